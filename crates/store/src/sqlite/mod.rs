//! SQLite files in the data folder: one connection writes, on a thread of its own, and many read.
//!
//! No table is named here. How verbs are committed is in `engine`; what they do is in [`crate::sql`].

mod checkpoint;
mod connection;
mod engine;
mod migrations;
mod readers;

use std::path::Path;

use rusqlite::Connection;

use crate::error::OpenError;

pub use crate::sql::{Embedded, Options};
pub(crate) use checkpoint::{LogKeeper, LogLimits};
pub(crate) use connection::{Sync, checkpoint_last, open_memory, open_reader, open_writer, snapshot};
pub(crate) use engine::{Setup, WeakWriter, Writer};
pub(crate) use migrations::{REFUSALS, TELEMETRY};
pub(crate) use readers::Readers;

/// The name of the main file in the data folder.
pub(crate) const STORE_FILE: &str = "muster.db";

/// Opens the main file, or a store in memory, to be written to.
pub(crate) fn connect(path: Option<&Path>) -> Result<Connection, OpenError> {
    match path {
        Some(path) => open_writer(path, migrations::MAIN),
        None => open_memory(migrations::MAIN),
    }
}
