//! Ending well: the set of running tasks, the word that a drain has begun, and the hard stop after its deadline.
//!
//! Every task of the server is spawned here and nowhere else, so that a panic is logged and ends its own task only, and
//! so that nothing outlives [`Tasks::drain`]. It must never decide *what* a task does when it hears of the drain: each
//! driver closes in its own protocol's manner. Start reading at [`Tasks`].

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

/// Where the server stands between start and exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    Draining,
    Stopping,
}

/// The running tasks of a server. Clones share one set.
#[derive(Clone, Debug)]
pub struct Tasks {
    phase: Arc<watch::Sender<Phase>>,
    /// Each running task holds a receiver, so "all receivers gone" is "all tasks gone".
    running: Arc<watch::Sender<()>>,
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Every task ended by itself before the deadline.
    Finished,
    /// The deadline passed and this many tasks were cut off.
    CutOff { tasks: usize },
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new()
    }
}

impl Tasks {
    /// An empty set, not draining.
    pub fn new() -> Self {
        Self { phase: Arc::new(watch::Sender::new(Phase::Serving)), running: Arc::new(watch::Sender::new(())) }
    }

    /// Runs `future` until it ends, panics (which is logged under `name`) or is cut off by the hard stop.
    ///
    /// Tasks may be spawned while the set drains: a connection that says goodbye may need one.
    #[expect(clippy::disallowed_methods, reason = "this is the one home of spawning")]
    pub fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        let running = self.running.subscribe();
        let mut phase = self.phase.subscribe();
        tokio::spawn(async move {
            let _running = running;
            tokio::select! {
                () = contained(name, future) => {}
                _ = phase.wait_for(|phase| *phase == Phase::Stopping) => {}
            }
        });
    }

    /// A listener for the beginning of the drain.
    pub fn drain_signal(&self) -> DrainSignal {
        DrainSignal(self.phase.subscribe())
    }

    /// How many tasks run.
    pub fn running(&self) -> usize {
        self.running.receiver_count()
    }

    /// Tells every task to end, waits for them until `deadline` has passed, then cuts off the rest.
    ///
    /// Calling it again waits again; the first cut-off holds.
    pub async fn drain(&self, deadline: Duration) -> Drained {
        self.advance_to(Phase::Draining);
        if tokio::time::timeout(deadline, self.running.closed()).await.is_ok() {
            return Drained::Finished;
        }
        let tasks = self.running();
        self.advance_to(Phase::Stopping);
        self.running.closed().await;
        Drained::CutOff { tasks }
    }

    /// Phases only move forwards.
    fn advance_to(&self, next: Phase) {
        self.phase.send_if_modified(|phase| {
            let later = *phase != Phase::Stopping && *phase != next;
            if later {
                *phase = next;
            }
            later
        });
    }
}

/// Hears when the drain begins. Cheap to clone; each task that waits holds its own.
#[derive(Clone, Debug)]
pub struct DrainSignal(watch::Receiver<Phase>);

impl DrainSignal {
    /// Tells whether the drain has begun.
    pub fn has_begun(&self) -> bool {
        *self.0.borrow() != Phase::Serving
    }

    /// Waits for the drain to begin; returns at once if it has, or if the server is gone.
    pub async fn begun(&mut self) {
        // An error means that the sender is gone, and with it the server.
        let _ = self.0.wait_for(|phase| *phase != Phase::Serving).await;
    }
}

/// Runs `future`, turning a panic into a log line.
async fn contained(name: &'static str, future: impl Future<Output = ()>) {
    let mut future = pin!(future);
    let outcome = poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(poll) => poll.map(Ok),
        Err(panic) => std::task::Poll::Ready(Err(panic)),
    })
    .await;
    if let Err(panic) = outcome {
        tracing::error!(task = name, panic = panic_text(panic.as_ref()), "task panicked");
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(no message)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    const LONG: Duration = Duration::from_mins(1);

    #[tokio::test]
    async fn a_drain_waits_for_tasks_that_end_when_told() {
        let tasks = Tasks::new();
        let (ended, heard) = oneshot::channel();
        let mut signal = tasks.drain_signal();
        tasks.spawn("polite", async move {
            signal.begun().await;
            let _ = ended.send(());
        });
        assert!(!tasks.drain_signal().has_begun());
        assert_eq!(tasks.drain(LONG).await, Drained::Finished);
        heard.await.expect("the task was told");
        assert!(tasks.drain_signal().has_begun());
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_will_not_end_is_cut_off_at_the_deadline() {
        struct OnDrop(Option<oneshot::Sender<()>>);
        impl Drop for OnDrop {
            fn drop(&mut self) {
                let _ = self.0.take().map(|sender| sender.send(()));
            }
        }
        let tasks = Tasks::new();
        let (dropped, heard) = oneshot::channel();
        let guard = OnDrop(Some(dropped));
        tasks.spawn("stubborn", async move {
            let _guard = guard;
            std::future::pending::<()>().await;
        });
        assert_eq!(tasks.drain(LONG).await, Drained::CutOff { tasks: 1 });
        heard.await.expect("what the task owned was dropped");
        assert_eq!(tasks.running(), 0);
    }

    #[tokio::test]
    async fn a_panic_ends_its_own_task_only() {
        let tasks = Tasks::new();
        let (send, receive) = oneshot::channel::<()>();
        let (answered, heard) = oneshot::channel();
        tasks.spawn("broken", async { panic!("on purpose") });
        tasks.spawn("healthy", async move {
            let _ = receive.await;
            let _ = answered.send(());
        });
        send.send(()).expect("the healthy task still listens");
        heard.await.expect("the healthy task went on");
        assert_eq!(tasks.drain(LONG).await, Drained::Finished);
    }

    #[tokio::test]
    async fn a_signal_taken_after_the_drain_began_fires_at_once() {
        let tasks = Tasks::new();
        tasks.drain(LONG).await;
        tasks.drain_signal().begun().await;
    }
}
