//! Refusals: kept in a file of their own, without ever waiting for the disk (`rules.md` 7).
//!
//! Nothing here may hold a device up or grow without bound: what does not fit into the queue is lost and counted, and
//! what was refused for the same reason within a minute is one record with a count. Start at [`Refusals`].

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use domain::clock::UnixTime;
use domain::decision::{Cause, Decision, Outcome};
use domain::ids::TrackingId;
use rusqlite::{Connection, OptionalExtension as _, params};
use tokio::sync::{mpsc, oneshot};

use crate::error::{Error, OpenError};
use crate::folder::Folder;
use crate::sql::registration_key;
use crate::sql::rows::{Column, from_json, row_limit, to_json};
use crate::sqlite::{REFUSALS, Sync, checkpoint_last, open_memory, open_writer};

/// The name of the file in the data folder.
const FILE: &str = "refusals.db";
/// Refusals, and questions about them, that can wait.
const QUEUE_MAX: usize = 4_096;
/// Refusals without a known ID scope that can wait among them: they must not crowd out those of known devices.
const UNKNOWN_QUEUED_MAX: usize = 256;
/// Refusals written by one transaction.
const BATCH_MAX: usize = 256;
/// Refusals kept that concern a known ID scope.
const KNOWN_KEPT: i64 = 100_000;
/// Refusals kept that concern none.
const UNKNOWN_KEPT: i64 = 5_000;
/// Tracking IDs of counted repeats that are kept.
const ALIASES_KEPT: i64 = 200_000;
/// Refusals that a repeat can be counted in.
const RECENT_MAX: usize = 8_192;
/// Within this time of the first, equal refusals are one.
const MERGED_WITHIN: Duration = Duration::from_mins(1);
/// What the file holds is cut down to what is kept each time so many have been written.
const CUT_EVERY: usize = 1_024;

const RECORD: Column = Column { table: "refusal", column: "record" };

/// The way to the thread that writes refusals.
#[derive(Debug)]
pub(crate) struct Refusals {
    queue: mpsc::Sender<Command>,
    counts: Arc<Counts>,
    thread: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Counts {
    lost: AtomicU64,
    unknown_queued: AtomicUsize,
}

#[derive(Debug)]
enum Command {
    Record(Box<Decision>),
    Find(TrackingId, oneshot::Sender<Result<Option<Decision>, Error>>),
    List(String, usize, oneshot::Sender<Result<Vec<Decision>, Error>>),
}

impl Refusals {
    /// Opens the file, or memory, and starts the thread.
    pub fn open(folder: Option<&Folder>) -> Result<Self, OpenError> {
        let connection = match folder {
            Some(folder) => {
                let path = folder.file(FILE);
                let connection = open_writer(&path, REFUSALS)?;
                let prepared = Sync::Relaxed.apply(&connection).and_then(|()| {
                    const LOG_PAGES: i64 = 1_000;
                    connection.pragma_update(None, "wal_autocheckpoint", LOG_PAGES)
                });
                prepared.map_err(|error| OpenError::sqlite(path, error))?;
                connection
            }
            None => open_memory(REFUSALS)?,
        };
        let (queue, commands) = mpsc::channel(QUEUE_MAX);
        let counts = Arc::new(Counts::default());
        let (folder, shared) = (folder.cloned(), Arc::clone(&counts));
        let thread = std::thread::Builder::new()
            .name("store-refusals".to_owned())
            .spawn(move || {
                let on_disk = folder.is_some();
                Thread { connection, commands, counts: shared, recent: HashMap::new(), since_cut: 0 }.run(on_disk);
                drop(folder);
            })
            .map_err(|error| OpenError::file("cannot start the writer of", FILE, error))?;
        Ok(Self { queue, counts, thread })
    }

    /// Takes a refusal, or loses it and counts that. Never waits.
    pub fn record(&self, decision: Decision) {
        let is_unknown = decision.service.is_none();
        if is_unknown && self.counts.unknown_queued.fetch_add(1, Ordering::Relaxed) >= UNKNOWN_QUEUED_MAX {
            self.counts.unknown_queued.fetch_sub(1, Ordering::Relaxed);
            self.counts.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if self.queue.try_send(Command::Record(Box::new(decision))).is_err() {
            self.counts.lost.fetch_add(1, Ordering::Relaxed);
            if is_unknown {
                self.counts.unknown_queued.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// How many were lost.
    pub fn lost(&self) -> u64 {
        self.counts.lost.load(Ordering::Relaxed)
    }

    /// The refusal of a tracking ID, or the one it was counted in; those taken before are seen.
    pub async fn find(&self, tracking: TrackingId) -> Result<Option<Decision>, Error> {
        self.ask(|slot| Command::Find(tracking, slot)).await
    }

    /// The latest refusals of a registration ID, by its key, newest first.
    pub async fn list(&self, key: String, limit: usize) -> Result<Vec<Decision>, Error> {
        self.ask(|slot| Command::List(key, limit, slot)).await
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<Result<T, Error>>) -> Command) -> Result<T, Error> {
        let (slot, answer) = oneshot::channel();
        self.queue.send(command(slot)).await.map_err(|_| Error::closing())?;
        answer.await.unwrap_or_else(|_| Err(Error::closing()))
    }

    /// Writes what is queued and ends the thread, which holds the folder's lock until then.
    pub async fn close(self) {
        let _ = tokio::task::spawn_blocking(move || self.end()).await;
    }

    /// As [`Refusals::close`], for who may block.
    pub fn end(self) {
        drop(self.queue);
        // A thread that panicked has logged it and holds nothing any more.
        let _ = self.thread.join();
    }
}

/// What makes two refusals the same.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Sameness {
    /// The entry that refused, or the ID scope if none was found.
    subject: String,
    registration_key: String,
    cause: Option<Cause>,
    prefix: IpAddr,
}

impl Sameness {
    fn of(decision: &Decision) -> Self {
        let service = decision.service.map(|service| service.0);
        let subject = match decision.trace.considered.first() {
            Some(considered) => format!("{service:?} {}", considered.entry),
            None => format!("{service:?} {}", decision.id_scope.as_str()),
        };
        let cause = match &decision.outcome {
            Outcome::Refused { cause, .. } => Some(*cause),
            Outcome::Admitted { .. } => None,
        };
        let registration_key = registration_key(&decision.registration_id);
        Self { subject, registration_key, cause, prefix: prefix(decision.peer) }
    }
}

/// The network an address is in: the first 24 bits of IPv4, the first 64 of IPv6.
fn prefix(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4((u32::from(v4) & 0xffff_ff00).into()),
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & !u128::from(u64::MAX)).into()),
    }
}

/// A refusal that repeats can be counted in.
struct Recent {
    row: i64,
    at: UnixTime,
}

struct Thread {
    connection: Connection,
    commands: mpsc::Receiver<Command>,
    counts: Arc<Counts>,
    recent: HashMap<Sameness, Recent>,
    since_cut: usize,
}

impl Thread {
    fn run(mut self, on_disk: bool) {
        let mut batch = Vec::new();
        while let Some(command) = self.commands.blocking_recv() {
            let mut next = Some(command);
            while let Some(command) = next.take() {
                match command {
                    Command::Record(decision) => batch.push(*decision),
                    question => {
                        self.write(&mut batch);
                        self.answer(question);
                    }
                }
                if batch.len() < BATCH_MAX {
                    next = self.commands.try_recv().ok();
                }
            }
            self.write(&mut batch);
        }
        if on_disk && let Err(error) = checkpoint_last(&self.connection) {
            tracing::warn!(%error, "the log of refusals was not taken into its file at the end");
        }
    }

    fn write(&mut self, batch: &mut Vec<Decision>) {
        if batch.is_empty() {
            return;
        }
        let unknown = batch.iter().filter(|decision| decision.service.is_none()).count();
        let written = self.try_write(batch);
        self.counts.unknown_queued.fetch_sub(unknown, Ordering::Relaxed);
        if let Err(error) = written {
            // What recent refusals refer to may have been undone with the transaction.
            self.recent.clear();
            self.counts.lost.fetch_add(batch.len() as u64, Ordering::Relaxed);
            tracing::warn!(error = %crate::error::chain(&error), refusals = batch.len(), "refusals were lost");
        }
        batch.clear();
    }

    fn try_write(&mut self, batch: &[Decision]) -> Result<(), Error> {
        let transaction = self.connection.unchecked_transaction()?;
        for decision in batch {
            insert(&transaction, &mut self.recent, decision)?;
        }
        self.since_cut += batch.len();
        if self.since_cut >= CUT_EVERY {
            cut(&transaction)?;
            self.since_cut = 0;
        }
        transaction.commit()?;
        Ok(())
    }

    fn answer(&self, question: Command) {
        match question {
            Command::Find(tracking, slot) => drop(slot.send(find(&self.connection, tracking))),
            Command::List(key, limit, slot) => drop(slot.send(list(&self.connection, &key, limit))),
            Command::Record(_) => {}
        }
    }
}

/// Writes a refusal, or counts it in an equal one of the last minute.
fn insert(connection: &Connection, recent: &mut HashMap<Sameness, Recent>, decision: &Decision) -> Result<(), Error> {
    let sameness = Sameness::of(decision);
    let tracking = decision.tracking.to_string();
    let is_near = |first: &&Recent| decision.at >= first.at && decision.at.since(first.at) < MERGED_WITHIN;
    if let Some(first) = recent.get(&sameness).filter(is_near) {
        let count = "UPDATE refusal SET repeats = repeats + 1 WHERE id = ?1";
        if connection.prepare_cached(count)?.execute([first.row])? == 1 {
            let alias = "INSERT INTO alias (tracking, refusal) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
            connection.prepare_cached(alias)?.execute(params![tracking, first.row])?;
            return Ok(());
        }
    }
    let sql = "INSERT INTO refusal (tracking, registration_key, known, record) VALUES (?1, ?2, ?3, ?4) \
               ON CONFLICT DO NOTHING";
    let key = &sameness.registration_key;
    connection.prepare_cached(sql)?.execute(params![tracking, key, decision.service.is_some(), to_json(decision)?])?;
    if recent.len() >= RECENT_MAX {
        recent.retain(|_, first| decision.at.since(first.at) < MERGED_WITHIN);
        if recent.len() >= RECENT_MAX {
            // Too many kinds within a minute to tell them all apart: counting starts afresh.
            recent.clear();
        }
    }
    recent.insert(sameness, Recent { row: connection.last_insert_rowid(), at: decision.at });
    Ok(())
}

/// Forgets the oldest refusals beyond what is kept of each kind.
fn cut(connection: &Connection) -> Result<(), Error> {
    let oldest = "DELETE FROM refusal WHERE known = ?1 AND id <= \
                  (SELECT id FROM refusal WHERE known = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)";
    for (known, kept) in [(true, KNOWN_KEPT), (false, UNKNOWN_KEPT)] {
        connection.prepare_cached(oldest)?.execute(params![known, kept])?;
    }
    let aliases = "DELETE FROM alias WHERE id <= (SELECT max(id) FROM alias) - ?1";
    connection.prepare_cached(aliases)?.execute([ALIASES_KEPT])?;
    Ok(())
}

fn find(connection: &Connection, tracking: TrackingId) -> Result<Option<Decision>, Error> {
    let sql = "SELECT record, repeats FROM refusal WHERE tracking = ?1 \
               OR id = (SELECT refusal FROM alias WHERE tracking = ?1) LIMIT 1";
    let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, u32>(1)?));
    let row = connection.prepare_cached(sql)?.query_row([tracking.to_string()], read).optional()?;
    row.map(|(text, repeats)| open(&text, repeats, tracking)).transpose()
}

fn list(connection: &Connection, key: &str, limit: usize) -> Result<Vec<Decision>, Error> {
    let sql = "SELECT record, repeats FROM refusal WHERE registration_key = ?1 ORDER BY id DESC LIMIT ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let found = statement
        .query_map(params![key, row_limit(limit)], |row| Ok((row.get::<_, String>(0)?, row.get::<_, u32>(1)?)))?;
    found.map(|row| row.map_err(Error::from).and_then(|(text, repeats)| open(&text, repeats, key))).collect()
}

fn open(text: &str, repeats: u32, key: impl std::fmt::Display) -> Result<Decision, Error> {
    let decision: Decision = from_json(text, RECORD, key)?;
    Ok(Decision { repeats, ..decision })
}
