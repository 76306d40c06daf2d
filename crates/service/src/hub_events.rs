//! What hubs tell of by themselves is passed on to the log that telemetry is in, in the order in which it happened.
//!
//! The change that is told of was kept together with its event, so that none is lost. An event is forgotten once the log
//! has it for good: one that was appended shortly before a crash may be appended again, with the same `sequenceNumber` or
//! version in it. Start at [`Service::run_hub_events`].

use domain::ids::TrackingId;
use store::ports::KeptEvent;

use crate::Service;
use crate::error::Error;
use crate::tasks::Followed;

/// Events read and appended at once.
const BATCH: usize = 256;

impl Service {
    /// Passes events on until the future is dropped.
    pub async fn run_hub_events(&self) {
        self.follow(0, self.0.store.event_changes(), |followed| self.pass_on(followed)).await;
    }

    /// Passes one batch on; a server that stops meanwhile lets it come to its end, so that nothing is told twice.
    async fn pass_on(&self, followed: Followed) -> (Followed, Result<(), Error>) {
        let service = self.clone();
        let work = async move { Ok(service.pass_batch_on(followed).await) };
        self.carry_through("events", work).await.unwrap_or_else(|error| (followed, Err(error)))
    }

    async fn pass_batch_on(&self, mut followed: Followed) -> (Followed, Result<(), Error>) {
        let store = &self.0.store;
        let (events, last) = match store.events_after(followed.dealt, BATCH).await {
            Ok(read) => read,
            Err(error) => return (followed, Err(error.into())),
        };
        let appended = self.append_events(events).await;
        if appended.is_ok() {
            followed.dealt = last;
        }
        let forgotten = followed.forget(BATCH, |upto, limit| store.prune_events(upto, limit)).await;
        (followed, appended.and(forgotten))
    }

    /// Appends all events in their order or, if that fails, none: whoever tries again tells nothing twice, and nothing
    /// behind what came after it.
    async fn append_events(&self, events: Vec<KeptEvent>) -> Result<(), Error> {
        let resources = self.resources();
        let messages = events.into_iter().filter_map(|KeptEvent { sequence, event }| {
            // A hub that is gone has no log any more.
            let hub = resources.hub(event.hub)?;
            let correlation_id = TrackingId::generate(self.entropy()).to_string().replace('-', "");
            Some(event.message(hub, sequence, correlation_id))
        });
        Ok(self.0.telemetry.append_all(messages.collect()).await?)
    }
}
