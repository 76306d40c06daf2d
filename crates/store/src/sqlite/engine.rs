//! The writer: one thread that takes queued verbs, runs each in a savepoint of its own, and commits them together.
//!
//! A verb's reply is sent only when the commit that holds it is durable. A verb that fails or panics is undone alone
//! and spoils no other; a commit that fails answers every verb in it. The queue is bounded: who finds it full waits.
//! Dropping the future of [`Writer::run`] does not stop a verb that was queued. Start at [`Writer::start`], then
//! `Thread::round`.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::checkpoint::{LogKeeper, LogLimits};
use super::connection::{Sync, checkpoint_last};
use crate::error::{Error, OpenError};
use crate::sql::{Durability, Link, Wakes, Write};

/// Verbs that can wait before callers are held back.
const QUEUE_VERBS_MAX: usize = 1_024;
/// Most verbs of one commit.
const ROUND_VERBS_MAX: usize = 512;
/// A round takes no further verbs once it has run this long, so that the first ones are not kept waiting.
const ROUND_TIME_MAX: Duration = Duration::from_millis(5);

/// A verb that panicked.
#[derive(Debug, thiserror::Error)]
#[error("the verb panicked")]
struct Panicked;

/// A verb in the queue, with its reply slot.
trait Queued: Send {
    fn durability(&self) -> Durability;
    /// Runs the verb; whether it succeeded.
    fn run(&mut self, write: &mut Write<'_>) -> bool;
    /// Answers the caller: with `failure` if there is one, else with what the verb gave.
    fn reply(self: Box<Self>, failure: Option<&Error>);
}

struct Verb<T, F> {
    work: Option<F>,
    outcome: Option<Result<T, Error>>,
    slot: oneshot::Sender<Result<T, Error>>,
    durability: Durability,
}

impl<T: Send, F: FnOnce(&mut Write<'_>) -> Result<T, Error> + Send> Queued for Verb<T, F> {
    fn durability(&self) -> Durability {
        self.durability
    }

    fn run(&mut self, write: &mut Write<'_>) -> bool {
        let Some(work) = self.work.take() else { return false };
        let outcome = catch_unwind(AssertUnwindSafe(|| work(write)));
        let outcome = outcome.unwrap_or_else(|_| Err(Error::backend("a verb", Panicked)));
        let succeeded = outcome.is_ok();
        self.outcome = Some(outcome);
        succeeded
    }

    fn reply(self: Box<Self>, failure: Option<&Error>) {
        let outcome = match (failure, self.outcome) {
            (_, Some(Err(own))) => Err(own),
            (Some(failure), _) => Err(failure.clone()),
            (None, Some(outcome)) => outcome,
            (None, None) => Err(Error::closing()),
        };
        // A caller that has gone away has lost interest in the answer, not in the deed.
        let _ = self.slot.send(outcome);
    }
}

/// What the writer thread is made of.
pub(crate) struct Setup {
    /// The connection that writes.
    pub connection: Connection,
    /// The file, unless it is memory.
    pub path: Option<PathBuf>,
    /// When the log is taken into the file.
    pub limits: LogLimits,
    /// Called after each durable round with what it wakes.
    pub on_commit: Box<dyn Fn(Wakes) + Send>,
    /// Kept until the thread has ended: the lock of the folder, say.
    pub keep: Box<dyn std::any::Any + Send>,
}

/// The way to the writer thread.
#[derive(Debug)]
pub(crate) struct Writer {
    queue: mpsc::Sender<Box<dyn Queued>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread.
    pub fn start(setup: Setup) -> Result<Self, OpenError> {
        let (queue, verbs) = mpsc::channel(QUEUE_VERBS_MAX);
        let path = setup.path.clone().unwrap_or_else(|| ":memory:".into());
        let thread = Thread::prepare(setup, verbs)?;
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || thread.run())
            .map_err(|error| OpenError::file("cannot start the writer of", path, error))?;
        Ok(Self { queue, thread: Some(thread) })
    }

    /// Queues a verb and waits until it is as durable as it asked for, or has failed.
    pub async fn run<T: Send + 'static>(
        &self,
        durability: Durability,
        work: impl FnOnce(&mut Write<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (slot, answer) = oneshot::channel();
        let verb = Verb { work: Some(work), outcome: None, slot, durability };
        self.queue.send(Box::new(verb)).await.map_err(|_| Error::closing())?;
        answer.await.unwrap_or_else(|_| Err(Error::closing()))
    }

    /// A way to the thread that does not keep it from ending.
    pub fn downgrade(&self) -> WeakWriter {
        WeakWriter(self.queue.downgrade())
    }

    /// Runs what is queued, takes the log into the file and ends the thread. The answer comes when all is done.
    pub async fn close(self) {
        let Self { queue, thread } = self;
        drop(queue);
        if let Some(thread) = thread {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

/// A way to the writer thread that does not keep it from ending.
#[derive(Clone, Debug)]
pub(crate) struct WeakWriter(mpsc::WeakSender<Box<dyn Queued>>);

impl WeakWriter {
    /// As [`Writer::run`], from a thread that may block.
    pub fn run_blocking<T: Send + 'static>(
        &self,
        durability: Durability,
        work: impl FnOnce(&mut Write<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (slot, answer) = oneshot::channel();
        let verb = Verb { work: Some(work), outcome: None, slot, durability };
        let queue = self.0.upgrade().ok_or_else(Error::closing)?;
        queue.blocking_send(Box::new(verb)).map_err(|_| Error::closing())?;
        drop(queue);
        answer.blocking_recv().unwrap_or_else(|_| Err(Error::closing()))
    }
}

struct Thread {
    connection: Connection,
    verbs: mpsc::Receiver<Box<dyn Queued>>,
    /// Taken from the queue and not yet run.
    waiting: VecDeque<Box<dyn Queued>>,
    sync: Sync,
    /// None in memory.
    log: Option<LogKeeper>,
    on_commit: Box<dyn Fn(Wakes) + Send>,
    keep: Box<dyn std::any::Any + Send>,
}

impl Thread {
    fn prepare(setup: Setup, verbs: mpsc::Receiver<Box<dyn Queued>>) -> Result<Self, OpenError> {
        let Setup { mut connection, path, limits, on_commit, keep } = setup;
        let log = path.map(|path| LogKeeper::start(&mut connection, &path, limits)).transpose()?;
        Ok(Self { connection, verbs, waiting: VecDeque::new(), sync: Sync::full(), log, on_commit, keep })
    }

    fn run(mut self) {
        loop {
            if self.waiting.is_empty() {
                let Some(verb) = self.verbs.blocking_recv() else { break };
                self.waiting.push_back(verb);
            }
            while self.waiting.len() < ROUND_VERBS_MAX {
                let Ok(verb) = self.verbs.try_recv() else { break };
                self.waiting.push_back(verb);
            }
            self.round();
            if let Some(log) = &mut self.log {
                log.tend(&self.connection);
            }
        }
        self.end();
    }

    /// Runs what waits, commits, and answers.
    fn round(&mut self) {
        let durable = self.waiting.iter().any(|verb| verb.durability() == Durability::Durable);
        let sync = if durable { Sync::full() } else { Sync::Relaxed };
        let mut done: Vec<Box<dyn Queued>> = Vec::with_capacity(self.waiting.len());
        let outcome = match self.begin(sync) {
            Ok(()) => self.perform(durable, &mut done).and_then(|wakes| self.commit().map(|()| wakes)),
            Err(error) => {
                done.extend(self.waiting.drain(..));
                Err(error)
            }
        };
        match outcome {
            Ok(wakes) => {
                if wakes != 0 {
                    (self.on_commit)(wakes);
                }
                for verb in done {
                    verb.reply(None);
                }
            }
            Err(error) => {
                tracing::error!(error = %crate::error::chain(&error), verbs = done.len(), "a commit of the store failed");
                for verb in done {
                    verb.reply(Some(&error));
                }
            }
        }
    }

    fn begin(&mut self, sync: Sync) -> Result<(), Error> {
        if !self.connection.is_autocommit() {
            // An earlier rollback failed; nothing works until this one does not.
            self.connection.execute_batch("ROLLBACK")?;
        }
        if self.sync != sync {
            sync.apply(&self.connection)?;
            self.sync = sync;
        }
        self.execute("BEGIN IMMEDIATE")
    }

    /// Runs verbs until none waits or the round is full; gives whom they wake. After an error the transaction is gone,
    /// and with it all that is in `done`.
    fn perform(&mut self, durable: bool, done: &mut Vec<Box<dyn Queued>>) -> Result<Wakes, Error> {
        let started = Instant::now();
        let mut wakes = 0;
        while let Some(mut verb) = self.next(durable) {
            let outcome = self.perform_one(verb.as_mut());
            done.push(verb);
            wakes |= outcome?;
            if done.len() >= ROUND_VERBS_MAX || started.elapsed() >= ROUND_TIME_MAX {
                break;
            }
        }
        Ok(wakes)
    }

    /// The next verb that may run in this round: in a round that is not synced, none that must be.
    fn next(&mut self, durable: bool) -> Option<Box<dyn Queued>> {
        if self.waiting.is_empty() {
            self.waiting.push_back(self.verbs.try_recv().ok()?);
        }
        let first = self.waiting.front()?;
        if !durable && first.durability() == Durability::Durable {
            return None;
        }
        self.waiting.pop_front()
    }

    /// Runs one verb in a savepoint; undoes it alone if it fails. An error means that the whole transaction is gone,
    /// which SQLite decides on when the disk is full or fails.
    fn perform_one(&self, verb: &mut dyn Queued) -> Result<Wakes, Error> {
        self.execute("SAVEPOINT verb")?;
        let mut write = Write::new(Link::Sqlite(&self.connection));
        let succeeded = verb.run(&mut write);
        let wakes = write.wakes();
        if self.connection.is_autocommit() {
            return Err(Error::Unavailable { reason: crate::error::Unavailability::Disk, source: None });
        }
        if succeeded {
            self.execute("RELEASE verb")?;
            return Ok(wakes);
        }
        self.execute("ROLLBACK TO verb")?;
        self.execute("RELEASE verb")?;
        Ok(0)
    }

    fn commit(&self) -> Result<(), Error> {
        let outcome = self.execute("COMMIT");
        if outcome.is_err() && !self.connection.is_autocommit() {
            // Its failure is met at the beginning of the next round.
            let _ = self.execute("ROLLBACK");
        }
        outcome
    }

    fn execute(&self, sql: &str) -> Result<(), Error> {
        self.connection.prepare_cached(sql)?.execute(())?;
        Ok(())
    }

    /// Leaves a file that needs no recovery, and only then gives up what was kept.
    fn end(self) {
        let Self { connection, log, keep, .. } = self;
        let on_disk = log.is_some();
        drop(log);
        if on_disk && let Err(error) = checkpoint_last(&connection) {
            tracing::warn!(%error, "the store's log was not taken into its file at the end");
        }
        if let Err((_, error)) = connection.close() {
            tracing::warn!(%error, "the store was not closed cleanly");
        }
        drop(keep);
    }
}

#[cfg(test)]
#[path = "engine/tests.rs"]
mod tests;
