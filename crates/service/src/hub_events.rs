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
use crate::tasks::AFTER_FAILURE;

/// Events read and appended at once.
const BATCH: usize = 256;

impl Service {
    /// Passes events on until the future is dropped.
    pub async fn run_hub_events(&self) {
        let mut changes = self.0.store.event_changes();
        let mut passed = 0;
        loop {
            changes.borrow_and_update();
            match self.pass_on_after(passed).await {
                Ok(last) if last > passed => passed = last,
                Ok(_) => {
                    if changes.changed().await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    self.fail(error);
                    tokio::time::sleep(AFTER_FAILURE).await;
                }
            }
        }
    }

    /// Passes one batch on; a server that stops meanwhile lets it come to its end, so that nothing is told twice.
    async fn pass_on_after(&self, passed: u64) -> Result<u64, Error> {
        let (events, last) = self.0.store.events_after(passed, BATCH).await?;
        if last > passed {
            let service = self.clone();
            let work = async move {
                service.append_events(events).await?;
                service.0.store.prune_events(last, BATCH).await?;
                Ok(())
            };
            self.carry_through("events", work).await?;
        }
        Ok(last)
    }

    /// Appends events in their order, with one sync of the disk.
    async fn append_events(&self, events: Vec<KeptEvent>) -> Result<(), Error> {
        let resources = self.resources();
        let mut appends = FuturesOrdered::new();
        for KeptEvent { sequence, event } in events {
            // A hub that is gone has no log any more.
            if let Some(hub) = resources.hub(event.hub) {
                let correlation_id = TrackingId::generate(self.entropy()).to_string().replace('-', "");
                appends.push_back(self.0.telemetry.append(event.message(hub, sequence, correlation_id)));
            }
        }
        while let Some(appended) = appends.next().await {
            appended?;
        }
        Ok(())
    }
}
