//! What hubs tell of by themselves is passed on to the log that telemetry is in, in the order in which it happened.
//!
//! The change that is told of was kept together with its event, so that none is lost. An event is forgotten once the log
//! has it for good: one that was appended shortly before a crash may be appended again, with the same `sequenceNumber` or
//! version in it. Start at [`Service::run_hub_events`].

use domain::ids::TrackingId;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
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
        let appended = match self.append_events(events).await {
            Ok(()) => {
                followed.dealt = last;
                Ok(())
            }
            Err((upto, error)) => {
                followed.dealt = upto.unwrap_or(followed.dealt);
                Err(error)
            }
        };
        let forgotten = followed.forget(BATCH, |upto, limit| store.prune_events(upto, limit)).await;
        (followed, appended.and(forgotten))
    }

    /// Appends events in their order, with one sync of the disk. Where that fails, it is said up to which all were
    /// appended: of those behind some may have been as well, which then come twice.
    async fn append_events(&self, events: Vec<KeptEvent>) -> Result<(), (Option<u64>, Error)> {
        let resources = self.resources();
        let mut appends = FuturesOrdered::new();
        for KeptEvent { sequence, event } in events {
            // A hub that is gone has no log any more.
            if let Some(hub) = resources.hub(event.hub) {
                let correlation_id = TrackingId::generate(self.entropy()).to_string().replace('-', "");
                let append = self.0.telemetry.append(event.message(hub, sequence, correlation_id));
                appends.push_back(async move { (sequence, append.await) });
            }
        }
        let mut upto = None;
        while let Some((sequence, appended)) = appends.next().await {
            appended.map_err(|error| (upto, error.into()))?;
            upto = Some(sequence);
        }
        Ok(())
    }
}
