//! How connections to SQLite files are opened: private, checked, brought to the latest schema, and durable.
//!
//! Nothing is written to a file before it has been seen to be sound, ours, and not from a newer version. Start at
//! [`open_writer`].

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::error::{Error, OpenError};
use crate::folder;

/// Marks a file as Muster's in the header of every SQLite file: `Mstr`.
const APPLICATION_ID: i32 = 0x4d73_7472;
/// What every SQLite file begins with.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// Files up to this size are checked whole at each opening, which takes some 100 ms for the largest; the check of a
/// larger one would be felt, and damage is then found where it is met.
const CHECKED_WHOLE_BYTES_MAX: u64 = 32 << 20;
/// Prepared statements kept per connection: more than the store has.
const STATEMENTS_MAX: usize = 256;
/// How long a statement waits for a lock. Within one process only checkpoints are waited for.
const BUSY_TIMEOUT: Duration = Duration::from_millis(250);
/// Page cache of the connection that writes, in KiB.
const WRITER_CACHE_KIB: i64 = 32 << 10;
/// Page cache of each connection that reads, in KiB.
const READER_CACHE_KIB: i64 = 8 << 10;

/// The schema of one kind of file: its migrations in order, the first making version 1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schema {
    pub migrations: &'static [&'static str],
}

impl Schema {
    fn latest(self) -> u32 {
        u32::try_from(self.migrations.len()).expect("there are fewer than four billion migrations")
    }
}

/// How far a commit reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sync {
    /// To the disk, before it is answered.
    Full,
    /// To the operating system; the next full commit takes it to the disk.
    Relaxed,
    /// Nowhere in particular. Only a build for power-cut tests can ask for it, to show that they notice.
    #[cfg(feature = "torture")]
    Off,
}

impl Sync {
    /// Sets the connection to it. Must not be called inside a transaction.
    pub fn apply(self, connection: &Connection) -> rusqlite::Result<()> {
        let level = match self {
            Self::Full => "FULL",
            Self::Relaxed => "NORMAL",
            #[cfg(feature = "torture")]
            Self::Off => "OFF",
        };
        connection.pragma_update(None, "synchronous", level)
    }

    /// The level that full commits have in this process.
    pub fn full() -> Self {
        #[cfg(feature = "torture")]
        if crate::faults::is_sync_off() {
            return Self::Off;
        }
        Self::Full
    }
}

/// Opens the file at `path` for writing, making or migrating it as needed.
pub(crate) fn open_writer(path: &Path, schema: Schema) -> Result<Connection, OpenError> {
    folder::make_private(path)?;
    check_header(path)?;
    let failed = |error| OpenError::sqlite(path, error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
    check_content(path, &connection, schema)?;
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0)).map_err(failed)?;
    if mode != "wal" {
        let detail = "its file system does not support a write-ahead log".to_owned();
        return Err(OpenError::Damaged { path: path.to_owned(), detail });
    }
    Sync::full().apply(&connection).map_err(failed)?;
    connection.pragma_update(None, "fullfsync", true).map_err(failed)?;
    connection.pragma_update(None, "checkpoint_fullfsync", true).map_err(failed)?;
    connection.pragma_update(None, "wal_autocheckpoint", 0).map_err(failed)?;
    configure(&connection, WRITER_CACHE_KIB).map_err(failed)?;
    migrate(&mut connection, schema).map_err(failed)?;
    Ok(connection)
}

/// Opens a database of this process's memory, brought to the latest schema.
pub(crate) fn open_memory(schema: Schema) -> Result<Connection, OpenError> {
    let failed = |error| OpenError::sqlite(":memory:", error);
    let mut connection = Connection::open_in_memory().map_err(failed)?;
    configure(&connection, WRITER_CACHE_KIB).map_err(failed)?;
    migrate(&mut connection, schema).map_err(failed)?;
    Ok(connection)
}

/// Opens a file that a writer of this process has opened before, for reading alone.
pub(crate) fn open_reader(path: &Path) -> Result<Connection, OpenError> {
    let failed = |error| OpenError::sqlite(path, error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
    connection.pragma_update(None, "query_only", true).map_err(failed)?;
    configure(&connection, READER_CACHE_KIB).map_err(failed)?;
    Ok(connection)
}

/// Opens a file that a writer of this process has opened before, for checkpoints alone.
pub(crate) fn open_checkpointer(path: &Path) -> Result<Connection, OpenError> {
    let failed = |error| OpenError::sqlite(path, error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.pragma_update(None, "wal_autocheckpoint", 0).map_err(failed)?;
    Sync::full().apply(&connection).map_err(failed)?;
    Ok(connection)
}

fn configure(connection: &Connection, cache_kib: i64) -> rusqlite::Result<()> {
    connection.pragma_update(None, "cache_size", -cache_kib)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    // A value in the schema that calls a function would run when the file is opened by somebody who could write it.
    connection.pragma_update(None, "trusted_schema", false)?;
    // Otherwise every statement that a partial index might serve is prepared afresh for each value bound to it.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    Ok(())
}

/// Refuses a file that does not begin as an SQLite file does, before SQLite gets to see it. An empty one is fresh.
fn check_header(path: &Path) -> Result<(), OpenError> {
    /// Length of the header of an SQLite file.
    const HEADER_BYTES: usize = 100;
    let failed = |error| OpenError::file("cannot read the file", path, error);
    let mut header = Vec::with_capacity(HEADER_BYTES);
    File::open(path).map_err(failed)?.take(HEADER_BYTES as u64).read_to_end(&mut header).map_err(failed)?;
    if header.is_empty() || (header.len() == HEADER_BYTES && header.starts_with(MAGIC)) || is_being_begun(path)? {
        return Ok(());
    }
    Err(OpenError::Damaged { path: path.to_owned(), detail: "it does not begin as an SQLite file does".to_owned() })
}

/// Whether a power cut came while the file was being begun: the rollback journal beside it says that it had no pages
/// before, which is how SQLite then leaves it (SQLite's file format, section 3).
fn is_being_begun(path: &Path) -> Result<bool, OpenError> {
    /// What a journal begins with once it counts.
    const JOURNAL_MAGIC: [u8; 8] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
    /// Where it says how many pages the file had, in four bytes.
    const PAGES_AT: std::ops::Range<usize> = 16..20;
    let mut journal = path.as_os_str().to_owned();
    journal.push("-journal");
    let journal = Path::new(&journal);
    let mut header = Vec::with_capacity(PAGES_AT.end);
    match File::open(journal).and_then(|file| file.take(PAGES_AT.end as u64).read_to_end(&mut header)) {
        Ok(_) => Ok(header.starts_with(&JOURNAL_MAGIC) && header.get(PAGES_AT) == Some([0; 4].as_slice())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(OpenError::file("cannot read the file", journal, error)),
    }
}

/// Refuses a file that is another program's, from a newer version, or damaged.
fn check_content(path: &Path, connection: &Connection, schema: Schema) -> Result<(), OpenError> {
    let failed = |error| OpenError::sqlite(path, error);
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0)).map_err(failed);
    let (application, version) = (number("application_id")?, number("user_version")?);
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get(0)).map_err(failed)?;
    if application != i64::from(APPLICATION_ID) && (tables != 0 || version != 0 || application != 0) {
        return Err(OpenError::Foreign { path: path.to_owned() });
    }
    let found = u32::try_from(version).unwrap_or(u32::MAX);
    if found > schema.latest() {
        return Err(OpenError::Newer { path: path.to_owned(), found, known: schema.latest() });
    }
    let bytes = std::fs::metadata(path).map_err(|error| OpenError::file("cannot look at", path, error))?.len();
    if bytes <= CHECKED_WHOLE_BYTES_MAX {
        let verdict: String = connection.query_row("PRAGMA quick_check(1)", (), |row| row.get(0)).map_err(failed)?;
        if verdict != "ok" {
            return Err(OpenError::Damaged { path: path.to_owned(), detail: verdict });
        }
    }
    Ok(())
}

/// Runs the migrations that the file has not had, each in a transaction of its own.
fn migrate(connection: &mut Connection, schema: Schema) -> rusqlite::Result<()> {
    let present: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    for (version, sql) in (1u32..).zip(schema.migrations).skip(present as usize) {
        let transaction = connection.transaction()?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.execute_batch(sql)?;
        transaction.pragma_update(None, "user_version", version)?;
        transaction.commit()?;
    }
    Ok(())
}

/// Takes as much of the write-ahead log into the file as can be taken without waiting for anybody.
pub(crate) fn checkpoint_passive(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", (), |_| Ok(()))
}

/// Takes the whole write-ahead log into the file, so that it is written from its beginning again; `false` if somebody
/// reads it for too long. The log keeps its length: overwriting it costs less at each sync than letting it grow.
pub(crate) fn checkpoint_restart(connection: &Connection) -> rusqlite::Result<bool> {
    let busy: i64 = connection.query_row("PRAGMA wal_checkpoint(RESTART)", (), |row| row.get(0))?;
    Ok(busy == 0)
}

/// Takes the whole write-ahead log into the file and cuts it off, when no more is written.
pub(crate) fn checkpoint_last(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(()))
}

/// Runs `query` on one snapshot. A store in memory runs queries between its verbs, in the writer's own transaction.
pub(crate) fn snapshot<T>(
    connection: &Connection,
    query: impl FnOnce(&Connection) -> Result<T, Error>,
) -> Result<T, Error> {
    if !connection.is_autocommit() {
        return query(connection);
    }
    let transaction = connection.unchecked_transaction()?;
    let answer = query(&transaction)?;
    transaction.finish()?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "CREATE TABLE cave (name TEXT NOT NULL) STRICT";
    const SECOND: &str = "ALTER TABLE cave ADD COLUMN wheels INTEGER NOT NULL DEFAULT 7";
    const BROKEN: &str = "DELETE FROM cave; INSERT INTO nowhere VALUES (1)";

    fn version(connection: &Connection) -> u32 {
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
    }

    fn caves(connection: &Connection, columns: &str) -> String {
        let sql = format!("SELECT group_concat({columns}) FROM cave");
        connection.query_row(&sql, (), |row| row.get(0)).unwrap()
    }

    #[test]
    fn a_file_is_brought_to_the_latest_version_each_migration_once_and_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("caves.db");
        let open = |migrations| open_writer(&path, Schema { migrations });
        let file = open(&[FIRST]).unwrap();
        assert_eq!(version(&file), 1);
        file.execute("INSERT INTO cave (name) VALUES ('Roquefort')", ()).unwrap();
        drop(file);

        for opening in ["the first", "the second"] {
            let file = open(&[FIRST, SECOND]).unwrap();
            assert_eq!((version(&file), &*caves(&file, "name || wheels")), (2, "Roquefort7"), "{opening}");
        }
        open(&[FIRST, SECOND, BROKEN]).unwrap_err();
        let file = open(&[FIRST, SECOND]).unwrap();
        assert_eq!((version(&file), &*caves(&file, "name")), (2, "Roquefort"), "nothing of the broken one is left");
        drop(file);
        let newer = open(&[FIRST]).unwrap_err();
        assert!(matches!(newer, OpenError::Newer { found: 2, known: 1, .. }), "{newer}");
    }
}
