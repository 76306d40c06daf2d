//! Changes that come to their end whoever still waits for them (`rules.md` 9).
//!
//! A client that hangs up drops the future of its request. What the store was asked for is done all the same, so that what
//! must follow it may not go down with the request: it runs as a task of its own. Spawning itself is the server's, whose
//! drain waits for every task. Start at [`Service::carry_through`].

use std::pin::Pin;
use std::time::Duration;

use domain::operation::ErrorKind;
use store::Unavailability;
use tokio::sync::{oneshot, watch};

use crate::Service;
use crate::error::Error;

/// How long to wait after the store failed.
pub(crate) const AFTER_FAILURE: Duration = Duration::from_millis(500);

/// How far a follower is in a sequence of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Followed {
    /// The row up to which all is dealt with.
    pub dealt: u64,
    /// The row up to which all is forgotten.
    forgotten: u64,
}

impl Followed {
    /// Forgets what is dealt with; `prune` removes up to so many rows of the store's up to the one it is given. Where that
    /// fails nothing is dealt with again: what is left is forgotten later.
    pub async fn forget<F: Future<Output = Result<usize, store::Error>>>(
        &mut self,
        at_once: usize,
        prune: impl Fn(u64, usize) -> F,
    ) -> Result<(), Error> {
        while self.forgotten < self.dealt {
            if prune(self.dealt, at_once).await? < at_once {
                self.forgotten = self.dealt;
            }
        }
        Ok(())
    }
}

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

    /// Follows a sequence of the store from the row behind `first` on, until the store is gone or the future is dropped.
    /// `step` deals with what comes next and says how far that is, also if it fails on the way; there is more for it as
    /// long as it gets on, and when `changes` says so.
    pub(crate) async fn follow<F: Future<Output = (Followed, Result<(), Error>)>>(
        &self,
        first: u64,
        mut changes: watch::Receiver<u64>,
        step: impl Fn(Followed) -> F,
    ) {
        let mut followed = Followed { dealt: first, forgotten: first };
        loop {
            changes.borrow_and_update();
            let before = followed;
            let (reached, outcome) = step(before).await;
            followed = reached;
            match outcome {
                Err(error) => {
                    self.fail(error);
                    tokio::time::sleep(AFTER_FAILURE).await;
                }
                Ok(()) if followed == before => {
                    if changes.changed().await.is_err() {
                        return;
                    }
                }
                Ok(()) => {}
            }
        }
    }

    /// Asks the store until it is available: for what must follow a change that is durable. Other failures, the
    /// closing of the store, and its being another process's, are given back, since waiting mends none of them.
    pub(crate) async fn insist<T, F: Future<Output = Result<T, store::Error>>>(
        &self,
        ask: impl Fn() -> F,
    ) -> Result<T, store::Error> {
        use Unavailability::{Busy, Database, Disk, Full};
        loop {
            match ask().await {
                Err(error @ store::Error::Unavailable { reason: Full | Disk | Busy | Database, .. }) => {
                    self.fail(error.into());
                    tokio::time::sleep(AFTER_FAILURE).await;
                }
                answer => return answer,
            }
        }
    }
}
