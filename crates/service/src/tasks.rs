//! Changes that come to their end whoever still waits for them (`rules.md` 9).
//!
//! A client that hangs up drops the future of its request. What the store was asked for is done all the same, so that what
//! must follow it may not go down with the request: it runs as a task of its own. Spawning itself is the server's, whose
//! drain waits for every task. Start at [`Service::carry_through`].

use std::pin::Pin;
use std::time::Duration;

use domain::operation::ErrorKind;
use store::Unavailability;
use tokio::sync::oneshot;

use crate::Service;
use crate::error::Error;

/// How long to wait after the store failed.
pub(crate) const AFTER_FAILURE: Duration = Duration::from_millis(500);

/// A task.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs tasks.
pub trait Spawner: Send + Sync {
    /// Runs `task` until it ends. A panic is logged under `name`; a drain waits for the task.
    fn spawn(&self, name: &'static str, task: Task);
}

impl Service {
    /// Does `work` to its end, even if the caller's future is dropped meanwhile; a failure that then nobody hears of is
    /// logged.
    pub(crate) async fn carry_through<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let (slot, answer) = oneshot::channel();
        let service = self.clone();
        let task = async move {
            if let Err(Err(unheard)) = slot.send(work.await) {
                service.fail(unheard);
            }
        };
        self.0.tasks.spawn(name, Box::pin(task));
        // The slot is gone without an answer if the work panicked, or was cut off by the end of the server.
        answer.await.unwrap_or_else(|_| Err(Error::new(ErrorKind::Internal, "Internal error.")))
    }

    /// Asks the store until it is available: for what must follow a change that is durable. Other failures, and the
    /// closing of the store, are given back, since waiting mends neither.
    pub(crate) async fn insist<T, F: Future<Output = Result<T, store::Error>>>(
        &self,
        ask: impl Fn() -> F,
    ) -> Result<T, store::Error> {
        use Unavailability::{Busy, Disk, Full};
        loop {
            match ask().await {
                Err(error @ store::Error::Unavailable { reason: Full | Disk | Busy, .. }) => {
                    self.fail(error.into());
                    tokio::time::sleep(AFTER_FAILURE).await;
                }
                answer => return answer,
            }
        }
    }
}
