//! Ending well: the set of running tasks, the work under way in them, the word that a drain has begun, and the hard stop
//! after its deadline.
//!
//! Every task of the server is spawned here and nowhere else, so that a panic is logged and ends its own task only, and
//! so that nothing outlives [`Tasks::drain`]. A drain has two steps that tasks hear of: first nothing is begun any more
//! and whoever asks is told to come again, then, when no [`Work`] is under way, connections close. It must never decide
//! *what* a task does when it hears of either: each driver answers and closes in its own protocol's manner. Start reading
//! at [`Tasks`].

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

/// How long connections have for their goodbye once no work is under way: a peer that does not react must not hold up
/// the exit.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// How long a worker that panicked rests before it is begun again, so that one that cannot work does not keep a core busy.
const WORKER_RESTART_PAUSE: Duration = Duration::from_secs(1);

/// Where the server stands between start and exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// Whatever comes is done.
    Serving,
    /// What runs is finished, and nothing is begun.
    Draining,
    /// Nothing runs: ports and connections close.
    Closing,
    /// Whoever is still there is cut off.
    Stopping,
}

/// The running tasks of a server. Clones share one set.
#[derive(Clone, Debug)]
pub struct Tasks {
    phase: Arc<watch::Sender<Phase>>,
    /// Each running task holds a receiver, so "all receivers gone" is "all tasks gone".
    running: Arc<watch::Sender<()>>,
    /// Each [`Work`] holds a receiver.
    work: Arc<watch::Sender<()>>,
}

/// Work under way until it is dropped: a request with its answer, a connection that owes its client something. A drain
/// waits for it.
#[derive(Debug)]
pub struct Work {
    _under_way: watch::Receiver<()>,
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// All work was done before the deadline.
    Finished,
    /// The deadline passed and this many pieces of work were cut off.
    CutOff { work: usize },
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new()
    }
}

impl Tasks {
    /// An empty set, not draining.
    pub fn new() -> Self {
        Self {
            phase: Arc::new(watch::Sender::new(Phase::Serving)),
            running: Arc::new(watch::Sender::new(())),
            work: Arc::new(watch::Sender::new(())),
        }
    }

    /// Counts a piece of work in; `None` once the drain has begun, when nothing may be begun.
    pub fn begin_work(&self) -> Option<Work> {
        // Counted before the look at the phase: a drain that begins in between sees it.
        let work = Work { _under_way: self.work.subscribe() };
        (*self.phase.borrow() == Phase::Serving).then_some(work)
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
                _ = contained(name, future) => {}
                _ = phase.wait_for(|phase| *phase == Phase::Stopping) => {}
            }
        });
    }

    /// Runs what `begin` gives until it ends, or until nothing else runs in a server that drains. One that panics is begun again after a pause: the
    /// server is worth little without its workers.
    pub fn spawn_worker<F>(&self, name: &'static str, mut begin: impl FnMut() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut drain = self.drain_signal();
        let working = async move {
            let mut restarts = 0_u64;
            while let Err(Panicked) = contained(name, begin()).await {
                restarts += 1;
                tracing::error!(worker = name, restarts, "a worker is begun again");
                tokio::time::sleep(WORKER_RESTART_PAUSE).await;
            }
        };
        self.spawn(name, async move {
            tokio::select! {
                () = working => {}
                () = drain.closing() => {}
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

    /// Lets the work under way come to its end, until `deadline` has passed; then closes, and cuts off what remains.
    ///
    /// Without work under way it ends at once: a connection that is idle has no more than the time of a goodbye. Calling
    /// it again waits again; the first cut-off holds.
    pub async fn drain(&self, deadline: Duration) -> Drained {
        self.advance_to(Phase::Draining);
        let is_finished = tokio::time::timeout(deadline, self.work.closed()).await.is_ok();
        let drained = match is_finished {
            true => Drained::Finished,
            false => Drained::CutOff { work: self.work.receiver_count() },
        };
        if is_finished {
            self.advance_to(Phase::Closing);
            // Whoever does not leave by itself is cut off next.
            let _ = tokio::time::timeout(GOODBYE_MAX, self.running.closed()).await;
        }
        self.advance_to(Phase::Stopping);
        self.running.closed().await;
        drained
    }

    /// Phases only move forwards.
    fn advance_to(&self, next: Phase) {
        self.phase.send_if_modified(|phase| {
            let later = *phase < next;
            if later {
                *phase = next;
            }
            later
        });
    }
}

impl service::Spawner for Tasks {
    fn spawn(&self, name: &'static str, task: service::Task) {
        // What a client asked for before the drain began.
        let work = Work { _under_way: self.work.subscribe() };
        Self::spawn(self, name, async move {
            let _work = work;
            task.await;
        });
    }
}

/// Hears of the steps of the drain. Cheap to clone; each task that waits holds its own.
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
        let _ = self.0.wait_for(|phase| *phase >= Phase::Draining).await;
    }

    /// Waits until no work is under way and connections close; returns at once if it is so, or if the server is gone.
    pub async fn closing(&mut self) {
        // As above.
        let _ = self.0.wait_for(|phase| *phase >= Phase::Closing).await;
    }
}

/// Whatever a task did before, it panicked; the log says how.
struct Panicked;

/// Runs `future`, turning a panic into a log line.
async fn contained(name: &'static str, future: impl Future<Output = ()>) -> Result<(), Panicked> {
    let mut future = pin!(future);
    let outcome = poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(poll) => poll.map(Ok),
        Err(panic) => std::task::Poll::Ready(Err(panic)),
    })
    .await;
    outcome.map_err(|panic| {
        tracing::error!(task = name, panic = panic_text(panic.as_ref()), "task panicked");
        Panicked
    })
}

/// What a panic said, if it said anything in words.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
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
    async fn a_drain_waits_for_the_work_under_way_and_then_closes() {
        let tasks = Tasks::new();
        let (finish, finished) = oneshot::channel::<()>();
        let (work, mut signal) = (tasks.begin_work().expect("serving"), tasks.drain_signal());
        tasks.spawn("polite", async move {
            signal.begun().await;
            let _ = finished.await;
            drop(work);
            signal.closing().await;
        });
        assert!(!tasks.drain_signal().has_begun());
        let witness = async {
            let mut signal = tasks.drain_signal();
            signal.begun().await;
            assert!(tasks.begin_work().is_none(), "nothing is begun during a drain");
            finish.send(()).expect("the task waits");
            signal.closing().await;
        };
        let (drained, ()) = tokio::join!(tasks.drain(LONG), witness);
        assert_eq!((drained, tasks.running()), (Drained::Finished, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_does_not_end_is_cut_off_at_the_deadline() {
        struct OnDrop(Option<oneshot::Sender<()>>);
        impl Drop for OnDrop {
            fn drop(&mut self) {
                let _ = self.0.take().map(|sender| sender.send(()));
            }
        }
        let tasks = Tasks::new();
        let (dropped, heard) = oneshot::channel();
        let (guard, work) = (OnDrop(Some(dropped)), tasks.begin_work());
        tasks.spawn("stubborn", async move {
            let _guard = (guard, work);
            std::future::pending::<()>().await;
        });
        assert_eq!(tasks.drain(LONG).await, Drained::CutOff { work: 1 });
        heard.await.expect("what the task owned was dropped");
        assert_eq!(tasks.running(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_without_work_holds_the_exit_up_for_a_goodbye_only() {
        let tasks = Tasks::new();
        tasks.spawn("idle", std::future::pending());
        let begun_at = tokio::time::Instant::now();
        assert_eq!(tasks.drain(LONG).await, Drained::Finished);
        assert_eq!((begun_at.elapsed(), tasks.running()), (GOODBYE_MAX, 0));
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
    async fn a_drain_waits_for_what_must_outlive_its_request() {
        let tasks = Tasks::new();
        let (finish, finished) = oneshot::channel::<()>();
        let change = Box::pin(async move { finished.await.expect("the test goes on") });
        service::Spawner::spawn(&tasks, "change", change);
        let (mut draining, mut signal) = (pin!(tasks.drain(LONG)), tasks.drain_signal());
        tokio::select! {
            biased;
            drained = &mut draining => panic!("the change was not waited for: {drained:?}"),
            () = signal.begun() => {}
        }
        finish.send(()).expect("the change goes on");
        assert_eq!(draining.await, Drained::Finished);
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_panics_is_begun_again_until_the_drain() {
        let tasks = Tasks::new();
        let (begun, mut beginnings) = tokio::sync::mpsc::unbounded_channel();
        tasks.spawn_worker("unlucky", move || {
            let _ = begun.send(tokio::time::Instant::now());
            async { panic!("on purpose") }
        });
        let first = beginnings.recv().await.expect("it begins");
        let second = beginnings.recv().await.expect("it begins again");
        assert!(second - first >= WORKER_RESTART_PAUSE);
        beginnings.recv().await.expect("and again");
        assert_eq!(tasks.drain(LONG).await, Drained::Finished);
    }

    #[tokio::test]
    async fn a_signal_taken_after_the_drain_began_fires_at_once() {
        let tasks = Tasks::new();
        tasks.drain(LONG).await;
        tasks.drain_signal().begun().await;
    }
}
