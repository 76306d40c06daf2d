//! Why a store could not do what it was asked, and why one could not be opened.

use std::path::PathBuf;
use std::sync::Arc;

/// The error beneath one of ours, shared because one failed commit is many callers' failure.
pub type Cause = Arc<dyn std::error::Error + Send + Sync>;

/// What a caller of a verb cannot decide: absence and lost races are values of the answer, not errors.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// Nothing was written, and trying again later may help. Where the connection to a database ended while it committed,
    /// nobody knows whether it was written: what is tried again must then do no harm a second time.
    #[error("the store is not available: {reason}")]
    Unavailable {
        /// What stands in the way.
        reason: Unavailability,
        /// What the backend said, if it was asked.
        #[source]
        source: Option<Cause>,
    },
    /// A stored value does not parse: the record was written by something else, or the disk lies.
    #[error("the store holds a value that does not parse in {table}.{column}, record {key}")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// The record's key.
        key: String,
        /// The column.
        column: &'static str,
        /// Why it does not parse.
        #[source]
        source: Cause,
    },
    /// Anything else that went wrong beneath: a fault of this program or of the backend.
    #[error("the store failed: {action}")]
    Backend {
        /// What was being done.
        action: &'static str,
        /// What went wrong.
        #[source]
        source: Cause,
    },
}

/// What stands in the way of a verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailability {
    /// The disk, or the size the store may grow to, is used up.
    #[error("there is no room left on the disk; make room, and writing goes on by itself")]
    Full,
    /// The disk does not do what it is told.
    #[error("the disk does not read or write")]
    Disk,
    /// The store is closing.
    #[error("it is closing")]
    Closing,
    /// The database server does not answer.
    #[error("the database does not answer")]
    Database,
    /// Another process works on the database, or did since the connection to it was lost: this one must not go on.
    #[error("another process works on the database; start again once it has ended")]
    Displaced,
    /// Another verb holds what this one needs for longer than is waited for.
    #[error("it is busy")]
    Busy,
}

impl Error {
    /// The store is closing and takes no more verbs.
    pub(crate) const fn closing() -> Self {
        Self::Unavailable { reason: Unavailability::Closing, source: None }
    }

    /// A fault beneath, with what was being done.
    pub(crate) fn backend(action: &'static str, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Backend { action, source: Arc::new(source) }
    }

    /// A stored value that does not parse.
    pub(crate) fn corrupt(
        table: &'static str,
        key: impl std::fmt::Display,
        column: &'static str,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self::Corrupt { table, key: key.to_string(), column, source: Arc::new(source) }
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as Code;
        let reason = match error.sqlite_error_code() {
            Some(Code::DiskFull) => Unavailability::Full,
            Some(Code::SystemIoFailure | Code::CannotOpen | Code::ReadOnly) => Unavailability::Disk,
            Some(Code::DatabaseBusy | Code::DatabaseLocked) => Unavailability::Busy,
            _ => return Self::backend("an SQL statement", error),
        };
        Self::Unavailable { reason, source: Some(Arc::new(error)) }
    }
}

#[cfg(feature = "postgres")]
impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        use tokio_postgres::error::SqlState;
        let reason = match error.code() {
            Some(&SqlState::T_R_SERIALIZATION_FAILURE | &SqlState::T_R_DEADLOCK_DETECTED) => Unavailability::Busy,
            Some(&SqlState::DISK_FULL) => Unavailability::Full,
            Some(&SqlState::IO_ERROR) => Unavailability::Disk,
            Some(
                &SqlState::ADMIN_SHUTDOWN
                | &SqlState::CRASH_SHUTDOWN
                | &SqlState::CANNOT_CONNECT_NOW
                | &SqlState::TOO_MANY_CONNECTIONS,
            ) => Unavailability::Database,
            Some(_) => return Self::backend("an SQL statement", error),
            None => Unavailability::Database,
        };
        Self::Unavailable { reason, source: Some(Arc::new(error)) }
    }
}

/// Why a store could not be opened. Nothing was changed; the text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process works on the folder.
    #[error("the data folder {} is in use{}; stop that process or choose another folder with --data",
        folder.display(), holder.map(|pid| format!(" by process {pid}")).unwrap_or_default())]
    Locked {
        /// The folder.
        folder: PathBuf,
        /// Who holds it, if it has said so.
        holder: Option<u32>,
    },
    /// A folder or file cannot be made, read or written.
    #[error("{action} {}: {}", path.display(), advice(source))]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The sealing key can be read by others.
    #[error("the sealing key {} can be read by others (mode {mode:03o}); every secret of this store must be taken for \
        known. If nobody else has had access, run: chmod 600 {}", path.display(), path.display())]
    KeyExposed {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The sealing key is not the one this store was sealed with, or is damaged.
    #[error("the sealing key {} {problem}; put back the key file that belongs to this data folder", path.display())]
    KeyUnusable {
        /// The key file.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A newer Muster has written the store.
    #[error("{} was written by a newer version of Muster (schema {found}; this one knows up to {known}); run the \
        newer version, or restore a backup made with this one", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// The schema it has.
        found: u32,
        /// The latest schema this program knows.
        known: u32,
    },
    /// A file is damaged.
    #[error("{} is damaged: {detail}. It was left as it is; restore a backup into another folder, or move this file \
        away to start without it", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// The file is a database of something else.
    #[error("{} is an SQLite database that is not Muster's; choose another folder with --data", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// There is no room for the store.
    #[error("there is no room left on the disk that holds {}; make room and start again", path.display())]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// The disk fails.
    #[error("the disk that holds {} does not read or write as it should; see what the system log says about it",
        path.display())]
    Disk {
        /// The file.
        path: PathBuf,
        /// What failed.
        #[source]
        source: Cause,
    },
    /// A database alone does not do: secrets, telemetry and refusals lie in a folder.
    #[error("a store in a database needs a data folder besides; name one with --data")]
    FolderMissing,
    /// The address of a database cannot be read.
    #[error("the address of the database cannot be read; write it as postgres://user:password@host/name")]
    DatabaseAddress {
        /// What is wrong with it.
        #[source]
        source: Cause,
    },
    /// Another process works on the database.
    #[error("the database {place} is in use by another process; stop that process or name another database")]
    DatabaseInUse {
        /// The database, without a password.
        place: String,
    },
    /// A newer Muster has written the database.
    #[error(
        "the database {place} was written by a newer version of Muster (schema {found}; this one knows up to \
        {known}); run the newer version, or restore a backup made with this one"
    )]
    DatabaseNewer {
        /// The database, without a password.
        place: String,
        /// The schema it has.
        found: i64,
        /// The latest schema this program knows.
        known: i64,
    },
    /// The database server does not do what it is asked.
    #[error(
        "the database {place} cannot be opened; see that its server runs and that its user may create tables there"
    )]
    Database {
        /// The database, without a password.
        place: String,
        /// What went wrong.
        #[source]
        source: Cause,
    },
    /// Anything else.
    #[error("{} cannot be opened as a store", path.display())]
    Backend {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: Cause,
    },
}

impl OpenError {
    /// A failed call of the file system.
    pub(crate) fn file(action: &'static str, path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        use std::io::ErrorKind;
        let path = path.into();
        if matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge) {
            return Self::Full { path };
        }
        Self::File { action, path, source }
    }

    /// The address of a database that cannot be read.
    #[cfg(feature = "postgres")]
    pub(crate) fn database_address(source: tokio_postgres::Error) -> Self {
        Self::DatabaseAddress { source: Arc::new(source) }
    }

    /// A failed call of the database at `place`.
    #[cfg(feature = "postgres")]
    pub(crate) fn database(place: impl Into<String>, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Database { place: place.into(), source: Arc::new(source) }
    }

    /// A verb that failed on the store at `path` when it was opened.
    pub(crate) fn store(path: impl Into<PathBuf>, error: Error) -> Self {
        let path = path.into();
        match error {
            Error::Unavailable { reason: Unavailability::Full, .. } => Self::Full { path },
            Error::Unavailable { reason: Unavailability::Disk, source: Some(source) } => Self::Disk { path, source },
            Error::Backend { source, .. } => {
                use rusqlite::ErrorCode as Code;
                let code = source.downcast_ref::<rusqlite::Error>().and_then(rusqlite::Error::sqlite_error_code);
                match code {
                    Some(Code::NotADatabase | Code::DatabaseCorrupt) => {
                        Self::Damaged { path, detail: source.to_string() }
                    }
                    _ => Self::Backend { path, source },
                }
            }
            other => Self::Backend { path, source: Arc::new(other) },
        }
    }

    /// A failed call of SQLite on `path`.
    pub(crate) fn sqlite(path: impl Into<PathBuf>, error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as Code;
        let path = path.into();
        match error.sqlite_error_code() {
            Some(Code::NotADatabase | Code::DatabaseCorrupt) => Self::Damaged { path, detail: error.to_string() },
            Some(Code::DiskFull) => Self::Full { path },
            Some(Code::SystemIoFailure) => Self::Disk { path, source: Arc::new(error) },
            _ => Self::Backend { path, source: Arc::new(error) },
        }
    }
}

/// What the system said, and what to do about the usual cases.
fn advice(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            format!("{error}; run as the user the folder belongs to, or choose another folder with --data")
        }
        std::io::ErrorKind::ReadOnlyFilesystem => format!("{error}; choose a folder on a writable disk with --data"),
        _ => error.to_string(),
    }
}

/// An error with all its causes, for one line of the log.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
