//! The thread that writes the log: it takes what waits, appends it in one transaction, syncs once, and answers.
//!
//! Positions are given here and become real with the commit; a commit that fails gives them back. Files are begun and
//! removed here as well, so that nobody else writes. Start at [`Thread::run`].

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use domain::clock::UnixTime;
use domain::ids::HubKey;
use rusqlite::{Connection, params};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::file::{LogFile, Mark, Partition, last, partitions};
use super::{Shared, file_path};
use crate::error::{Error, OpenError, Unavailability};
use crate::folder::Folder;
use crate::ports::Position;
use crate::sqlite::rows::Bits;
use crate::sqlite::{LogKeeper, LogLimits, TELEMETRY, checkpoint_last, open_memory, open_writer};

/// Most messages of one transaction.
const ROUND_MESSAGES_MAX: usize = 4_096;
/// How often it is looked whether a file is to be begun or removed, as messages come.
const TEND_EVERY: Duration = Duration::from_secs(10);
/// Messages of a forgotten hub that are removed by one transaction.
const PIECE_MESSAGES: i64 = 500;

/// What the thread is asked.
pub(super) enum Command {
    /// Append a message.
    Append(Append),
    /// Run a query on the connection of a log in memory.
    Query(Box<dyn FnOnce(&Connection) + Send>),
    /// Remove a piece of a hub's messages from one of the files, the oldest first; tells whether more may be left.
    Forget { hub: HubKey, file: u64, slot: oneshot::Sender<Result<bool, Error>> },
    /// Begin and remove files as their time has come.
    Tend(oneshot::Sender<()>),
}

/// A message in the queue.
pub(super) struct Append {
    pub partition: Partition,
    pub record: Vec<u8>,
    pub slot: oneshot::Sender<Result<Position, Error>>,
    /// The bytes it takes of what may wait; given back with the answer.
    pub room: OwnedSemaphorePermit,
}

/// Where a partition stands: what its next message gets.
#[derive(Clone, Copy, Debug)]
struct Tail {
    sequence: u64,
    offset: u64,
    at: UnixTime,
}

pub(super) struct Thread {
    folder: Option<Folder>,
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
    active: Active,
    tails: HashMap<Partition, Tail>,
    /// The newest message of each hub in each closed file.
    closed_newest: HashMap<u64, HashMap<HubKey, UnixTime>>,
    tended_at: UnixTime,
}

/// The file that is appended to.
struct Active {
    number: u64,
    connection: Connection,
    log: Option<LogKeeper>,
    /// Bytes in it, nearly.
    bytes: u64,
    begun_at: UnixTime,
    newest: HashMap<HubKey, UnixTime>,
}

impl Thread {
    pub fn prepare(
        folder: Option<Folder>,
        shared: Arc<Shared>,
        commands: mpsc::Receiver<Command>,
    ) -> Result<Self, OpenError> {
        let now = shared.clock.now();
        let number = shared.files().last().map_or(1, |file| file.number);
        let active = Active::open(folder.as_ref(), number, now)?;
        let failed = |error: Error| OpenError::Backend { path: "telemetry".into(), source: Arc::new(error) };
        let tails = read_tails(&active.connection).map_err(failed)?;
        let mut thread =
            Self { folder, shared, commands, active, tails, closed_newest: HashMap::new(), tended_at: UnixTime::NEVER };
        thread.read_newest().map_err(failed)?;
        Ok(thread)
    }

    /// Reads when the newest messages of each file were appended, of which the active one says only where it ends.
    fn read_newest(&mut self) -> Result<(), Error> {
        for (hub, number) in partitions(&self.active.connection)? {
            if let Some(Mark { at, .. }) = last(&self.active.connection, (hub, number))? {
                note_newest(&mut self.active.newest, hub, at);
            }
        }
        for file in self.shared.files().iter().filter(|file| file.number != self.active.number) {
            let newest = file.read(|db| {
                let mut statement = db.prepare("SELECT hub, at FROM newest")?;
                let rows =
                    statement.query_map((), |row| Ok((HubKey(row.get(0)?), UnixTime::from_micros(row.get(1)?))))?;
                Ok(rows.collect::<rusqlite::Result<HashMap<_, _>>>()?)
            })?;
            self.closed_newest.insert(file.number, newest);
        }
        Ok(())
    }

    pub fn run(mut self) {
        let mut waiting = Vec::new();
        while let Some(command) = self.commands.blocking_recv() {
            let mut next = Some(command);
            while let Some(command) = next.take() {
                match command {
                    Command::Append(append) => waiting.push(append),
                    other => {
                        self.append(&mut waiting);
                        self.perform(other);
                    }
                }
                if waiting.len() < ROUND_MESSAGES_MAX {
                    next = self.commands.try_recv().ok();
                }
            }
            self.append(&mut waiting);
            let now = self.shared.clock.now();
            if now.since(self.tended_at) >= TEND_EVERY {
                self.tend(now);
            }
        }
        self.active.close();
    }

    fn perform(&mut self, command: Command) {
        match command {
            Command::Append(append) => self.append(&mut vec![append]),
            Command::Query(query) => query(&self.active.connection),
            Command::Forget { hub, file, slot } => drop(slot.send(self.forget(hub, file))),
            Command::Tend(slot) => {
                self.tend(self.shared.clock.now());
                let _ = slot.send(());
            }
        }
    }

    /// Appends what waits, and answers.
    fn append(&mut self, waiting: &mut Vec<Append>) {
        if waiting.is_empty() {
            return;
        }
        let now = self.shared.clock.now();
        let mut moved = HashMap::new();
        let outcome = self.write(waiting, &mut moved, now);
        match outcome {
            Ok(positions) => {
                self.active.bytes += waiting.iter().map(|append| append.record.len() as u64).sum::<u64>();
                for ((hub, _), tail) in &moved {
                    note_newest(&mut self.active.newest, *hub, tail.at);
                }
                self.tails.extend(moved);
                self.shared.appended.send_modify(|count| *count += 1);
                for (append, position) in waiting.drain(..).zip(positions) {
                    let _ = append.slot.send(Ok(position));
                    drop(append.room);
                }
            }
            Err(error) => {
                let messages = waiting.len();
                tracing::error!(error = %crate::error::chain(&error), messages, "telemetry was not stored");
                waiting.drain(..).for_each(|append| drop(append.slot.send(Err(error.clone()))));
            }
        }
        if let Some(log) = &mut self.active.log {
            log.tend(&self.active.connection);
        }
    }

    /// Writes messages in one transaction; `moved` is where their partitions then stand.
    fn write(
        &self,
        waiting: &[Append],
        moved: &mut HashMap<Partition, Tail>,
        now: UnixTime,
    ) -> Result<Vec<Position>, Error> {
        let connection = &self.active.connection;
        if !connection.is_autocommit() {
            // An earlier rollback failed; nothing works until this one does not.
            connection.execute_batch("ROLLBACK")?;
        }
        let mut positions = Vec::with_capacity(waiting.len());
        let transaction = connection.unchecked_transaction()?;
        {
            let sql =
                "INSERT INTO message (hub, partition, sequence, offset, at, record) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
            let mut insert = transaction.prepare_cached(sql)?;
            for append in waiting {
                let (hub, number) = append.partition;
                let known = || self.tails.get(&append.partition).copied();
                let tail = moved.entry(append.partition).or_insert_with(|| known().unwrap_or(Tail::FIRST));
                // A clock that was put back must not put messages before earlier ones.
                tail.at = tail.at.max(now);
                let position = Position { sequence: tail.sequence, offset: tail.offset };
                insert.execute(params![
                    hub.0,
                    number,
                    Bits(position.sequence),
                    Bits(position.offset),
                    tail.at.micros(),
                    append.record
                ])?;
                tail.sequence += 1;
                tail.offset += append.record.len() as u64;
                positions.push(position);
            }
        }
        transaction.commit()?;
        Ok(positions)
    }

    /// Begins a file if the active one is large or old enough, and removes those whose time has passed.
    fn tend(&mut self, now: UnixTime) {
        self.tended_at = now;
        let limits = self.shared.limits;
        if self.folder.is_none() {
            if let Err(error) = self.expire_memory(now) {
                tracing::warn!(error = %crate::error::chain(&error), "old telemetry was not forgotten");
            }
            return;
        }
        let is_full = self.active.bytes >= limits.file_bytes_max;
        let is_old = !self.active.newest.is_empty() && now.since(self.active.begun_at) >= limits.file_age_max;
        if (is_full || is_old)
            && let Err(error) = self.roll(now)
        {
            tracing::error!(error = %crate::error::chain(&error), "no file of the telemetry log could be begun");
        }
        self.expire(now);
    }

    /// Closes the active file and begins the next.
    fn roll(&mut self, now: UnixTime) -> Result<(), Error> {
        let number = self.active.number + 1;
        let opened = Active::open(self.folder.as_ref(), number, now);
        let next = opened.map_err(|error| Error::backend("beginning a file of the log", error))?;
        write_tails(&next.connection, &self.tails)?;
        write_newest(&self.active.connection, &self.active.newest)?;
        let old = std::mem::replace(&mut self.active, next);
        self.closed_newest.insert(old.number, old.newest.clone());
        old.close();
        if let Some(folder) = &self.folder {
            self.shared.add_file(LogFile::new(number, file_path(folder, number)));
        }
        Ok(())
    }

    /// Removes closed files whose newest messages have all passed their time, and the oldest ones beyond the size.
    fn expire(&mut self, now: UnixTime) {
        let files = self.shared.files();
        let size = |file: &LogFile| std::fs::metadata(&file.path).map_or(0, |metadata| metadata.len());
        let mut total: u64 = files.iter().map(|file| size(file)).sum();
        for file in files.iter().filter(|file| file.number != self.active.number) {
            let newest = self.closed_newest.get(&file.number);
            let is_past = |(hub, at): (&HubKey, &UnixTime)| now.since(*at) > self.shared.retention(*hub);
            let has_passed = newest.is_some_and(|newest| newest.iter().all(is_past));
            if has_passed || total > self.shared.limits.total_bytes_max {
                total = total.saturating_sub(size(file));
                self.closed_newest.remove(&file.number);
                self.shared.drop_file(file.number);
                file.remove();
            }
        }
    }

    /// Removes what has passed its time from a log in memory, a bounded piece of each partition.
    fn expire_memory(&self, now: UnixTime) -> Result<(), Error> {
        let sql = "DELETE FROM message WHERE hub = ?1 AND partition = ?2 AND sequence IN \
                   (SELECT sequence FROM message WHERE hub = ?1 AND partition = ?2 AND at < ?3 \
                    ORDER BY sequence LIMIT ?4)";
        for (hub, number) in partitions(&self.active.connection)? {
            let before = now.minus(self.shared.retention(hub)).micros();
            let mut statement = self.active.connection.prepare_cached(sql)?;
            statement.execute(params![hub.0, number, before, PIECE_MESSAGES])?;
        }
        Ok(())
    }

    fn forget(&mut self, hub: HubKey, number: u64) -> Result<bool, Error> {
        self.tails.retain(|(owner, _), _| *owner != hub);
        if number == self.active.number {
            self.active.newest.remove(&hub);
            return forget_piece(&self.active.connection, hub);
        }
        let Some(file) = self.shared.files().iter().find(|file| file.number == number).cloned() else {
            return Ok(false);
        };
        if let Some(newest) = self.closed_newest.get_mut(&number) {
            newest.remove(&hub);
        }
        let opened = open_writer(&file.path, TELEMETRY);
        let connection = opened.map_err(|error| Error::backend("opening a file of the log", error))?;
        let more = forget_piece(&connection, hub)?;
        checkpoint_last(&connection)?;
        Ok(more)
    }
}

impl Tail {
    const FIRST: Self = Self { sequence: 0, offset: 0, at: UnixTime::from_micros(i64::MIN) };
}

impl Active {
    fn open(folder: Option<&Folder>, number: u64, now: UnixTime) -> Result<Self, OpenError> {
        let (connection, log, bytes) = match folder {
            None => (open_memory(TELEMETRY)?, None, 0),
            Some(folder) => {
                let path = file_path(folder, number);
                let mut connection = open_writer(&path, TELEMETRY)?;
                let log = LogKeeper::start(&mut connection, &path, LogLimits::APPENDED)?;
                (connection, Some(log), file_bytes(&path))
            }
        };
        Ok(Self { number, connection, log, bytes, begun_at: now, newest: HashMap::new() })
    }

    /// Leaves a file that needs no recovery.
    fn close(self) {
        let Self { connection, log, .. } = self;
        let on_disk = log.is_some();
        drop(log);
        if on_disk && let Err(error) = checkpoint_last(&connection) {
            tracing::warn!(%error, "the log of a telemetry file was not taken into it");
        }
    }
}

fn file_bytes(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}

fn note_newest(newest: &mut HashMap<HubKey, UnixTime>, hub: HubKey, at: UnixTime) {
    let known = newest.entry(hub).or_insert(at);
    *known = (*known).max(at);
}

/// Where every partition stands: behind its last message in the file, or where it stood when the file was begun.
fn read_tails(connection: &Connection) -> Result<HashMap<Partition, Tail>, Error> {
    let mut statement = connection.prepare("SELECT hub, partition, sequence, offset, at FROM tail")?;
    let rows = statement.query_map((), |row| {
        let (sequence, offset): (Bits, Bits) = (row.get(2)?, row.get(3)?);
        let tail = Tail { sequence: sequence.0, offset: offset.0, at: UnixTime::from_micros(row.get(4)?) };
        Ok(((HubKey(row.get(0)?), row.get(1)?), tail))
    })?;
    let mut tails: HashMap<Partition, Tail> = rows.collect::<rusqlite::Result<_>>()?;
    let length = "SELECT length(record) FROM message WHERE hub = ?1 AND partition = ?2 AND sequence = ?3";
    for partition in partitions(connection)? {
        let Some(Mark { position, at }) = last(connection, partition)? else { continue };
        let key = params![partition.0.0, partition.1, Bits(position.sequence)];
        let bytes: Bits = connection.prepare_cached(length)?.query_row(key, |row| row.get(0))?;
        tails.insert(partition, Tail { sequence: position.sequence + 1, offset: position.offset + bytes.0, at });
    }
    Ok(tails)
}

fn write_tails(connection: &Connection, tails: &HashMap<Partition, Tail>) -> Result<(), Error> {
    let transaction = connection.unchecked_transaction()?;
    let sql = "INSERT OR REPLACE INTO tail (hub, partition, sequence, offset, at) VALUES (?1, ?2, ?3, ?4, ?5)";
    for ((hub, number), tail) in tails {
        transaction.prepare_cached(sql)?.execute(params![
            hub.0,
            number,
            Bits(tail.sequence),
            Bits(tail.offset),
            tail.at.micros()
        ])?;
    }
    transaction.commit()?;
    Ok(())
}

fn write_newest(connection: &Connection, newest: &HashMap<HubKey, UnixTime>) -> Result<(), Error> {
    let transaction = connection.unchecked_transaction()?;
    for (hub, at) in newest {
        let sql = "INSERT OR REPLACE INTO newest (hub, at) VALUES (?1, ?2)";
        transaction.prepare_cached(sql)?.execute(params![hub.0, at.micros()])?;
    }
    transaction.commit()?;
    Ok(())
}

/// Removes some messages of a hub; whether there may be more.
fn forget_piece(connection: &Connection, hub: HubKey) -> Result<bool, Error> {
    let transaction = connection.unchecked_transaction()?;
    let sql = "DELETE FROM message WHERE (hub, partition, sequence) IN \
               (SELECT hub, partition, sequence FROM message WHERE hub = ?1 LIMIT ?2)";
    let removed = transaction.prepare_cached(sql)?.execute(params![hub.0, PIECE_MESSAGES])?;
    for table in ["tail", "newest"] {
        transaction.prepare_cached(&format!("DELETE FROM {table} WHERE hub = ?1"))?.execute([hub.0])?;
    }
    transaction.commit()?;
    Ok(removed > 0)
}

impl Shared {
    /// A poisoned lock means that a reader panicked; the list itself is always whole.
    fn add_file(&self, file: LogFile) {
        self.files.write().unwrap_or_else(PoisonError::into_inner).push(Arc::new(file));
    }

    fn drop_file(&self, number: u64) {
        self.files.write().unwrap_or_else(PoisonError::into_inner).retain(|file| file.number != number);
    }
}

/// The log takes no more messages.
pub(super) const fn closing() -> Error {
    Error::Unavailable { reason: Unavailability::Closing, source: None }
}
