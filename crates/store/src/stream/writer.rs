//! The thread that writes the log: it takes what waits, appends it in one transaction, syncs once, and answers.
//!
//! Positions are given here and become real with the commit; a commit that fails gives them back. Files are begun and
//! removed here as well, so that nobody else writes. Start at [`Thread::run`].

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use domain::clock::UnixTime;
use domain::ids::HubKey;
use rusqlite::{CachedStatement, Connection, params};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::file::{LogFile, Mark, Partition, last, partitions, spans};
use super::{FOLDER, Shared, file_path};
use crate::error::{Error, OpenError, Unavailability};
use crate::folder::Folder;
use crate::ports::Position;
use crate::sql::rows::Bits;
use crate::sqlite::{LogKeeper, LogLimits, TELEMETRY, checkpoint_last, open_memory, open_writer};

/// Most messages of one transaction; the append that passes it is the last.
const ROUND_MESSAGES_MAX: usize = 4_096;
/// How often it is looked whether a file is to be begun or removed, as messages come.
const TEND_EVERY: Duration = Duration::from_secs(10);
/// Messages of a partition that one look removes from a log in memory: more than come between two, and some 20 ms.
const EXPIRED_MESSAGES_MAX: i64 = 20_000;

/// What the thread is asked.
pub(super) enum Command {
    /// Append messages.
    Append(Append),
    /// Run a query on the connection of a log in memory.
    Query(Box<dyn FnOnce(&Connection) + Send>),
    /// Begin and remove files as their time has come.
    Tend(oneshot::Sender<()>),
}

/// Messages in the queue, of which all are kept or none.
pub(super) struct Append {
    pub records: Vec<Record>,
    /// Where they stand.
    pub slot: oneshot::Sender<Result<Vec<Position>, Error>>,
    /// The bytes they take of what may wait; given back with the answer.
    pub room: OwnedSemaphorePermit,
}

/// A message as it is written.
pub(super) struct Record {
    pub partition: Partition,
    pub bytes: Vec<u8>,
}

impl Append {
    pub fn bytes(&self) -> usize {
        self.records.iter().map(|record| record.bytes.len()).sum()
    }
}

/// Where a partition stands: what its next message gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    is_empty: bool,
}

impl Thread {
    pub fn prepare(
        folder: Option<Folder>,
        shared: Arc<Shared>,
        commands: mpsc::Receiver<Command>,
    ) -> Result<Self, OpenError> {
        let now = shared.clock.now();
        let files = shared.files();
        let number = files.last().map_or(1, |file| file.number);
        let active = Active::open(folder.as_ref(), number, now)?;
        let closed = files.split_last().map_or(&[][..], |(_, closed)| closed);
        for file in closed {
            file.close(file.read(spans).map_err(unreadable)?);
        }
        let tails = recover_tails(closed.last().map(AsRef::as_ref), &active.connection).map_err(unreadable)?;
        Ok(Self { folder, shared, commands, active, tails, tended_at: UnixTime::NEVER })
    }

    pub fn run(mut self) {
        let mut waiting = Vec::new();
        while let Some(command) = self.commands.blocking_recv() {
            let mut next = Some(command);
            let mut messages = 0;
            while let Some(command) = next.take() {
                match command {
                    Command::Append(append) => {
                        messages += append.records.len();
                        waiting.push(append);
                    }
                    other => {
                        self.append(&mut waiting);
                        self.perform(other);
                        messages = 0;
                    }
                }
                if messages < ROUND_MESSAGES_MAX {
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
                self.active.bytes += waiting.iter().map(|append| append.bytes() as u64).sum::<u64>();
                self.active.is_empty = false;
                let hubs: HashSet<HubKey> = moved.keys().map(|(hub, _)| *hub).collect();
                self.tails.extend(moved);
                self.shared.wake(&hubs);
                for (append, positions) in waiting.drain(..).zip(positions) {
                    let _ = append.slot.send(Ok(positions));
                    drop(append.room);
                }
            }
            Err(error) => {
                let messages = waiting.iter().map(|append| append.records.len()).sum::<usize>();
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
    ) -> Result<Vec<Vec<Position>>, Error> {
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
                let place = |record| self.insert(&mut insert, record, moved, now);
                positions.push(append.records.iter().map(place).collect::<Result<_, _>>()?);
            }
        }
        transaction.commit()?;
        Ok(positions)
    }

    /// Writes one message behind the last of its partition.
    fn insert(
        &self,
        insert: &mut CachedStatement<'_>,
        Record { partition, bytes }: &Record,
        moved: &mut HashMap<Partition, Tail>,
        now: UnixTime,
    ) -> Result<Position, Error> {
        let known = || self.tails.get(partition).copied();
        let tail = moved.entry(*partition).or_insert_with(|| known().unwrap_or(Tail::FIRST));
        // A clock that was put back must not put messages before earlier ones.
        tail.at = tail.at.max(now);
        let (hub, number) = *partition;
        let position = Position { sequence: tail.sequence, offset: tail.offset };
        tail.sequence += 1;
        tail.offset += bytes.len() as u64;
        #[cfg(feature = "torture")]
        if crate::faults::is_append_forgotten() {
            return Ok(position);
        }
        let (sequence, offset) = (Bits(position.sequence), Bits(position.offset));
        insert.execute(params![hub.0, number, sequence, offset, tail.at.micros(), bytes])?;
        Ok(position)
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
        let is_old = !self.active.is_empty && now.since(self.active.begun_at) >= limits.file_age_max;
        if (is_full || is_old)
            && let Err(error) = self.roll(now)
        {
            tracing::error!(error = %crate::error::chain(&error), "no file of the telemetry log could be begun");
        }
        self.expire(now);
    }

    /// Closes the active file and begins the next.
    ///
    /// Whatever of it was done when the process ends or the disk is full, nothing is lost: what is in a file is read from
    /// its messages, and a file that was begun without all its tails gets them when the log is opened.
    fn roll(&mut self, now: UnixTime) -> Result<(), Error> {
        let number = self.active.number + 1;
        let spans = spans(&self.active.connection)?;
        let opened = Active::open(self.folder.as_ref(), number, now);
        let next = opened.map_err(|error| match error {
            // It is tried again without a restart, which is what the error itself advises.
            OpenError::Full { .. } => Error::Unavailable { reason: Unavailability::Full, source: None },
            other => Error::backend("beginning a file of the log", other),
        })?;
        // The next file has no messages of a forgotten hub, so that its numbers need not go on.
        let is_known = |(hub, _): &Partition| self.shared.retention(*hub).is_some();
        let tails = self.tails.iter().filter(|(partition, _)| is_known(partition));
        let tails: HashMap<_, _> = tails.map(|(partition, tail)| (*partition, *tail)).collect();
        write_tails(&next.connection, &tails)?;
        self.tails = tails;
        std::mem::replace(&mut self.active, next).close();
        if let Some(folder) = &self.folder {
            self.shared.files().last().inspect(|old| old.close(spans));
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
            let is_past = |hub, at| self.shared.retention(hub).is_none_or(|keep| now.since(at) > keep);
            let has_passed =
                file.spans().is_some_and(|spans| spans.iter().all(|((hub, _), span)| is_past(*hub, span.last.at)));
            if has_passed || total > self.shared.limits.total_bytes_max {
                total = total.saturating_sub(size(file));
                self.shared.drop_file(file.number);
                file.remove();
            }
        }
    }

    /// Removes what has passed its time, or is of a forgotten hub, from a log in memory.
    fn expire_memory(&mut self, now: UnixTime) -> Result<(), Error> {
        let sql = "DELETE FROM message WHERE hub = ?1 AND partition = ?2 AND sequence IN \
                   (SELECT sequence FROM message WHERE hub = ?1 AND partition = ?2 AND at < ?3 \
                    ORDER BY sequence LIMIT ?4)";
        let present = partitions(&self.active.connection)?;
        for (hub, number) in &present {
            let before = self.shared.retention(*hub).map_or(i64::MAX, |keep| now.minus(keep).micros());
            let mut statement = self.active.connection.prepare_cached(sql)?;
            statement.execute(params![hub.0, number, before, EXPIRED_MESSAGES_MAX])?;
        }
        let shared = Arc::clone(&self.shared);
        self.tails.retain(|partition, _| shared.retention(partition.0).is_some() || present.contains(partition));
        Ok(())
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
        let is_empty = partitions(&connection).map_err(unreadable)?.is_empty();
        Ok(Self { number, connection, log, bytes, begun_at: now, is_empty })
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

fn unreadable(error: Error) -> OpenError {
    OpenError::Backend { path: FOLDER.into(), source: Arc::new(error) }
}

fn file_bytes(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// Where every partition stands, also if the process ended while the active file was begun: its tails are then missing, or
/// older than the last messages of the file before.
fn recover_tails(previous: Option<&LogFile>, active: &Connection) -> Result<HashMap<Partition, Tail>, Error> {
    let noted = read_tails(active)?;
    let mut tails = noted.clone();
    for (partition, earlier) in previous.map(|file| file.read(read_tails)).transpose()?.unwrap_or_default() {
        let tail = tails.entry(partition).or_insert(earlier);
        if tail.sequence < earlier.sequence {
            *tail = earlier;
        }
    }
    if tails != noted {
        write_tails(active, &tails)?;
    }
    Ok(tails)
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
