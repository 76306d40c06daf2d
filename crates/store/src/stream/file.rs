//! One file of the log as readers see it: positions are found by halving, since offset and time rise with the sequence.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use domain::clock::UnixTime;
use domain::ids::HubKey;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::record::decode;
use crate::error::Error;
use crate::ports::{Position, ReadFrom, StoredMessage};
use crate::sql::rows::{Bits, Column, row_limit};
use crate::sqlite::open_reader;

/// Reading connections that the active file keeps for the next reader. Closed files, of which there may be hundreds, keep
/// none: each costs descriptors and a page cache.
const IDLE_MAX: usize = 2;
/// A page of messages ends when it has so many bytes, though it has one message at least.
const PAGE_BYTES_MAX: usize = 4 << 20;

/// A partition of a hub.
pub(super) type Partition = (HubKey, u16);

/// Where the messages of a partition begin and end in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub first: Mark,
    pub last: Mark,
}

/// A file that can be read.
#[derive(Debug)]
pub(super) struct LogFile {
    pub number: u64,
    pub path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    /// What is in it, once nothing is appended to it any more.
    spans: OnceLock<HashMap<Partition, Span>>,
}

impl LogFile {
    pub fn new(number: u64, path: PathBuf) -> Self {
        Self { number, path, idle: Mutex::new(Vec::new()), spans: OnceLock::new() }
    }

    /// Notes that the file stays as it is, with `spans` in it.
    pub fn close(&self, spans: HashMap<Partition, Span>) {
        let _ = self.spans.set(spans);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// What is in the file, if it is closed.
    pub fn spans(&self) -> Option<&HashMap<Partition, Span>> {
        self.spans.get()
    }

    /// Whether the partition may have messages in the file.
    pub fn may_hold(&self, partition: Partition) -> bool {
        self.spans().is_none_or(|spans| spans.contains_key(&partition))
    }

    /// The first message of the partition in the file.
    pub fn first(&self, partition: Partition) -> Result<Option<Mark>, Error> {
        match self.spans() {
            Some(spans) => Ok(spans.get(&partition).map(|span| span.first)),
            None => self.read(|db| first_from(db, partition, 0)),
        }
    }

    /// Runs `query` on a connection to the file.
    pub fn read<T>(&self, query: impl FnOnce(&Connection) -> Result<T, Error>) -> Result<T, Error> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => open_reader(&self.path).map_err(|error| Error::backend("opening a file of the log", error))?,
        };
        let answer = query(&connection);
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        // Asked under the lock: a file that is closed meanwhile has been cleared before, or is not kept in.
        if self.spans().is_none() && idle.len() < IDLE_MAX {
            idle.push(connection);
        }
        answer
    }

    /// Removes the file and what SQLite keeps beside it.
    pub fn remove(&self) {
        for suffix in ["", "-wal", "-shm"] {
            let mut path = self.path.clone().into_os_string();
            path.push(suffix);
            match std::fs::remove_file(Path::new(&path)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(%error, path = %self.path.display(), "a file of the telemetry log was not removed");
                }
                _ => {}
            }
        }
    }
}

/// Where a message stands, and when it was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub position: Position,
    pub at: UnixTime,
}

fn mark(row: &rusqlite::Row<'_>) -> rusqlite::Result<Mark> {
    let (sequence, offset): (Bits, Bits) = (row.get(0)?, row.get(1)?);
    let position = Position { sequence: sequence.0, offset: offset.0 };
    Ok(Mark { position, at: UnixTime::from_micros(row.get(2)?) })
}

/// The first message from `sequence` on.
pub(super) fn first_from(db: &Connection, partition: Partition, sequence: u64) -> Result<Option<Mark>, Error> {
    let sql = "SELECT sequence, offset, at FROM message WHERE hub = ?1 AND partition = ?2 AND sequence >= ?3 \
               ORDER BY sequence LIMIT 1";
    let (hub, number) = partition;
    Ok(db.prepare_cached(sql)?.query_row(params![hub.0, number, Bits(sequence)], mark).optional()?)
}

/// The last message.
pub(super) fn last(db: &Connection, partition: Partition) -> Result<Option<Mark>, Error> {
    let sql = "SELECT sequence, offset, at FROM message WHERE hub = ?1 AND partition = ?2 \
               ORDER BY sequence DESC LIMIT 1";
    let (hub, number) = partition;
    Ok(db.prepare_cached(sql)?.query_row(params![hub.0, number], mark).optional()?)
}

/// The partitions that have messages in the file.
pub(super) fn partitions(db: &Connection) -> Result<Vec<Partition>, Error> {
    let sql = "SELECT hub, partition FROM message WHERE (hub, partition) > (?1, ?2) ORDER BY hub, partition LIMIT 1";
    let mut statement = db.prepare_cached(sql)?;
    let mut found: Vec<Partition> = Vec::new();
    loop {
        let (hub, number) = found.last().map_or((i64::MIN, 0), |(hub, number)| (hub.0, *number));
        let next = statement.query_row(params![hub, number], |row| Ok((HubKey(row.get(0)?), row.get(1)?)));
        match next.optional()? {
            Some(partition) => found.push(partition),
            None => return Ok(found),
        }
    }
}

/// Where every partition begins and ends in the file.
pub(super) fn spans(db: &Connection) -> Result<HashMap<Partition, Span>, Error> {
    let mut spans = HashMap::new();
    for partition in partitions(db)? {
        if let (Some(first), Some(last)) = (first_from(db, partition, 0)?, last(db, partition)?) {
            spans.insert(partition, Span { first, last });
        }
    }
    Ok(spans)
}

/// What a reader wants: where it starts, and since when messages may be seen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    pub from: ReadFrom,
    pub seen_since: UnixTime,
}

impl Wish {
    /// Whether a message is wanted; if one is, so are all behind it.
    fn wants(&self, mark: &Mark) -> bool {
        let is_far_enough = match self.from {
            ReadFrom::Start => true,
            ReadFrom::End => false,
            ReadFrom::AfterSequence(sequence) => mark.position.sequence > sequence,
            ReadFrom::AfterOffset(offset) => mark.position.offset > offset,
            ReadFrom::AfterTime(at) => mark.at > at,
        };
        is_far_enough && mark.at >= self.seen_since
    }

    /// Whether all wanted messages stand in this file or in later ones, as far as its first one tells.
    pub fn begins_at_or_after(&self, first: &Mark) -> bool {
        // The file before may hold wanted messages only if the first one of this file is wanted itself, and is not the
        // very next behind the place that was named.
        match self.from {
            ReadFrom::AfterSequence(sequence) => first.position.sequence <= sequence.saturating_add(1),
            _ => !self.wants(first),
        }
    }
}

/// The first wanted message of the file.
pub(super) fn first_wanted(db: &Connection, partition: Partition, wish: Wish) -> Result<Option<Mark>, Error> {
    let from = match wish.from {
        ReadFrom::End => return Ok(None),
        ReadFrom::AfterSequence(u64::MAX) => return Ok(None),
        ReadFrom::AfterSequence(sequence) => sequence + 1,
        _ => 0,
    };
    let Some(first) = first_from(db, partition, from)? else { return Ok(None) };
    if wish.wants(&first) {
        return Ok(Some(first));
    }
    let Some(newest) = last(db, partition)?.filter(|newest| wish.wants(newest)) else { return Ok(None) };
    // Not wanted up to `low`, wanted from `found` on.
    let (mut low, mut found) = (first.position.sequence, newest);
    while found.position.sequence - low > 1 {
        let middle = low + (found.position.sequence - low) / 2;
        match first_from(db, partition, middle)? {
            Some(mark) if wish.wants(&mark) => {
                if mark.position.sequence == found.position.sequence {
                    // Nothing stands between the middle and what was found: the search goes on before the middle.
                    let Some(before) = last_before(db, partition, middle)? else { break };
                    if !wish.wants(&before) {
                        break;
                    }
                    found = before;
                } else {
                    found = mark;
                }
            }
            Some(mark) => low = mark.position.sequence,
            None => break,
        }
    }
    Ok(Some(found))
}

fn last_before(db: &Connection, partition: Partition, sequence: u64) -> Result<Option<Mark>, Error> {
    let sql = "SELECT sequence, offset, at FROM message WHERE hub = ?1 AND partition = ?2 AND sequence < ?3 \
               ORDER BY sequence DESC LIMIT 1";
    let (hub, number) = partition;
    Ok(db.prepare_cached(sql)?.query_row(params![hub.0, number, Bits(sequence)], mark).optional()?)
}

/// Appends the wanted messages of the file to `page`, up to `limit` and a number of bytes; whether there is room left.
pub(super) fn read_page(
    db: &Connection,
    partition: Partition,
    wish: Wish,
    limit: usize,
    page: &mut Page,
) -> Result<bool, Error> {
    let Some(first) = first_wanted(db, partition, wish)? else { return Ok(true) };
    let (hub, number) = partition;
    let sql = "SELECT sequence, offset, at, record FROM message WHERE hub = ?1 AND partition = ?2 AND sequence >= ?3 \
               ORDER BY sequence LIMIT ?4";
    let mut statement = db.prepare_cached(sql)?;
    let wanted = limit.saturating_sub(page.messages.len());
    let mut rows = statement.query(params![hub.0, number, Bits(first.position.sequence), row_limit(wanted)])?;
    while let Some(row) = rows.next()? {
        let Mark { position, at } = mark(row)?;
        let record: Vec<u8> = row.get(3)?;
        page.bytes += record.len();
        let column = Column { table: "message", column: "record" };
        let message = decode(hub, number, record)
            .map_err(|error| column.corrupt(format!("{}/{number}/{}", hub.0, position.sequence), error))?;
        page.messages.push(StoredMessage { position, enqueued_at: at, message: message.into() });
        if page.messages.len() >= limit || page.bytes >= PAGE_BYTES_MAX {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Messages read so far.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub messages: Vec<StoredMessage>,
    pub bytes: usize,
}
