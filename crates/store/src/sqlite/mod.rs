//! The embedded store: SQLite files in the data folder, one writer, many readers.
//!
//! One file per noun holds its verbs: functions over a `Tx`, run by the writer, and queries over a `Db`. No SQL
//! stands anywhere else, and no transaction leaves this module. Start at [`Embedded::open`]; how verbs are committed is
//! in `engine`.

mod checkpoint;
mod cloud_to_device;
mod connection;
mod decision;
mod engine;
mod enrollment;
mod identity;
mod job;
mod migrations;
mod query;
mod readers;
mod registration;
mod removal;
mod resource;
pub(crate) mod rows;
mod session;
mod tally;
mod twin;

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use domain::clock::{Clock, Entropy};
use domain::ids::Etag;
use domain::quota::Quotas;
use rusqlite::{Connection, OptionalExtension as _};
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::decisions::Refusals;
use crate::error::{Error, OpenError};
use crate::folder::Folder;
use crate::seal::{KEY_FILE, Place, Sealer};
use crate::stream::{self, EmbeddedLog};
use engine::{Durability, Setup, Wakes, Write, Writer};
use readers::Readers;

pub(crate) use checkpoint::{LogKeeper, LogLimits};
pub(crate) use connection::{Sync, checkpoint_last, open_memory, open_reader, open_writer};
pub(crate) use decision::registration_key;
pub(crate) use migrations::{REFUSALS, TELEMETRY};

/// The name of the main file in the data folder.
const STORE_FILE: &str = "muster.db";

/// Wakes who watches [`crate::ports::TwinStore::twin_changes`].
const WAKES_TWINS: Wakes = 1;
/// Wakes who watches [`crate::ports::IdentityStore::identity_changes`].
const WAKES_IDENTITIES: Wakes = 2;
/// Counts up [`crate::ports::EnrollmentStore::key_group_changes`].
const WAKES_KEY_GROUPS: Wakes = 4;
/// Wakes who watches [`crate::ports::CloudToDeviceStore::feedback_changes`].
const WAKES_FEEDBACK: Wakes = 8;

/// Where and how a store is opened.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The data folder; `None` keeps everything in this process's memory.
    pub folder: Option<PathBuf>,
    /// Limits of the telemetry log.
    pub telemetry: stream::Limits,
    /// How many there may be of what is created.
    pub quotas: Quotas,
}

/// The embedded store. Clones are the same store, which closes when the last one is dropped, or by [`Self::close`].
#[derive(Clone, Debug)]
pub struct Embedded(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    writer: Writer,
    readers: Option<Readers>,
    context: Arc<Context>,
    changes: Changes,
    refusals: Refusals,
    telemetry: EmbeddedLog,
}

/// Counts of committed changes, for those who watch them. Clones share them.
#[derive(Clone, Debug, Default)]
struct Changes {
    twins: watch::Sender<u64>,
    identities: watch::Sender<u64>,
    key_groups: watch::Sender<u64>,
    feedback: watch::Sender<u64>,
}

/// What every verb may need besides its connection.
pub(crate) struct Context {
    sealer: Sealer,
    /// The store's own clock, for verbs that are not told the time.
    clock: Arc<dyn Clock>,
    /// Counts the openings of the store: leases and connections of an earlier run are void.
    run: i64,
    quotas: Quotas,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("sealer", &self.sealer).field("run", &self.run).finish_non_exhaustive()
    }
}

/// A connection to read from.
#[derive(Clone, Copy)]
pub(crate) struct Db<'c> {
    connection: &'c Connection,
    context: &'c Context,
}

impl Deref for Db<'_> {
    type Target = Connection;
    fn deref(&self) -> &Connection {
        self.connection
    }
}

/// What a verb works with: its savepoint.
pub(crate) struct Tx<'a, 'c> {
    write: &'a mut Write<'c>,
    context: &'a Context,
}

impl Deref for Tx<'_, '_> {
    type Target = Connection;
    fn deref(&self) -> &Connection {
        self.write
    }
}

impl Tx<'_, '_> {
    /// To run a query inside the verb.
    fn db(&self) -> Db<'_> {
        Db { connection: self.write, context: self.context }
    }

    /// Has `wakes` woken once the verb is durable.
    fn wake(&mut self, wakes: Wakes) {
        self.write.wake(wakes);
    }

    /// An etag that this store has never given out: the restore generation in the upper 16 bits, a count below
    /// (`rules.md` 19).
    fn fresh_etag(&self) -> Result<Etag, Error> {
        const COUNT_BITS: u32 = 48;
        let count: i64 = self
            .prepare_cached("UPDATE meta SET number = number + 1 WHERE name = 'etag' RETURNING number")?
            .query_row((), |row| row.get(0))?;
        let generation: i64 = self
            .prepare_cached("SELECT number FROM meta WHERE name = 'generation'")?
            .query_row((), |row| row.get(0))?;
        Ok(Etag::from_number((generation.cast_unsigned() << COUNT_BITS) | count.cast_unsigned()))
    }

    /// Runs a statement that changes rows; how many it changed.
    fn change(&self, sql: &str, parameters: impl rusqlite::Params) -> Result<usize, Error> {
        Ok(self.prepare_cached(sql)?.execute(parameters)?)
    }
}

impl Db<'_> {
    /// The one row of a query, if there is one.
    fn row<T>(
        &self,
        sql: &str,
        parameters: impl rusqlite::Params,
        read: impl FnOnce(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, Error> {
        Ok(self.prepare_cached(sql)?.query_row(parameters, read).optional()?)
    }

    /// All rows of a query.
    fn rows<T>(
        &self,
        sql: &str,
        parameters: impl rusqlite::Params,
        read: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, Error> {
        let mut statement = self.prepare_cached(sql)?;
        let rows = statement.query_map(parameters, read)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}

impl Embedded {
    /// Opens the store, making it if there is none. Blocks for as long as the files are checked.
    pub fn open(options: Options, clock: Arc<dyn Clock>, entropy: &dyn Entropy) -> Result<Self, OpenError> {
        let Options { folder, telemetry, quotas } = options;
        let folder = folder.map(|path| Folder::open(&path)).transpose()?;
        let path = folder.as_ref().map(|folder| folder.file(STORE_FILE));
        let sealer = match &folder {
            Some(folder) => Sealer::open(&folder.file(KEY_FILE), !is_store(&folder.file(STORE_FILE)), entropy)?,
            None => Sealer::ephemeral(entropy),
        };
        let connection = match &path {
            Some(path) => open_writer(path, migrations::MAIN)?,
            None => open_memory(migrations::MAIN)?,
        };
        if let Some(folder) = &folder {
            check_key(&connection, &sealer, folder)?;
        }
        let run = begin_run(&connection, path.as_deref())?;
        let context = Arc::new(Context { sealer, clock: Arc::clone(&clock), run, quotas });
        let removals = removal::pending(&connection)
            .map_err(|error| OpenError::sqlite(path.as_deref().unwrap_or(Path::new(":memory:")), error))?;
        let readers = path.as_deref().map(Readers::open).transpose()?;
        let refusals = Refusals::open(folder.as_ref())?;
        let telemetry = match EmbeddedLog::open(folder.as_ref(), telemetry, clock) {
            Ok(telemetry) => telemetry,
            Err(error) => {
                refusals.end();
                return Err(error);
            }
        };
        let changes = Changes::default();
        let counted = changes.clone();
        let writer = Writer::start(Setup {
            connection,
            path,
            limits: LogLimits::default(),
            on_commit: Box::new(move |woken| counted.count(woken)),
            keep: Box::new(folder),
        })?;
        let store = Self(Arc::new(Inner { writer, readers, context, changes, refusals, telemetry }));
        store.carry_out_removals(removals);
        Ok(store)
    }

    /// Begins a generation of etags that is higher than this store's and than `above`; gives it. To be called once when
    /// a copy takes the place of a store, with the generation of the store that it replaces: what either has given out
    /// since they parted is then never given out again (`rules.md` 19). `None` if there are no higher ones.
    pub async fn begin_generation(&self, above: u16) -> Result<Option<u16>, Error> {
        self.write(move |tx| {
            let sql = "UPDATE meta SET number = max(number, ?1) + 1 WHERE name = 'generation' AND max(number, ?1) < ?2 \
                       RETURNING number";
            tx.db().row(sql, [above, u16::MAX], |row| row.get(0))
        })
        .await
    }

    /// Seals what is kept in a file of the folder called `name`.
    pub fn seal_file(&self, name: &str, plain: &[u8]) -> Vec<u8> {
        self.0.context.sealer.seal(file_place(name), plain)
    }

    /// Opens what [`Self::seal_file`] made for the same name; `None` for anything else.
    pub fn open_file(&self, name: &str, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        self.0.context.sealer.open_sealed(file_place(name), sealed).ok()
    }

    /// The telemetry log of this store.
    pub fn telemetry(&self) -> &EmbeddedLog {
        &self.0.telemetry
    }

    /// Finishes what is queued and closes the files; answers when the folder is free for another process. Does nothing
    /// while another clone exists.
    pub async fn close(self) {
        let Some(inner) = Arc::into_inner(self.0) else { return };
        inner.telemetry.close().await;
        inner.refusals.close().await;
        drop(inner.readers);
        inner.writer.close().await;
    }

    /// Runs a verb that is durable when it answers.
    async fn write<T: Send + 'static>(
        &self,
        verb: impl FnOnce(&mut Tx<'_, '_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.run(Durability::Durable, verb).await
    }

    /// Runs a verb that may be lost in a power cut.
    async fn write_relaxed<T: Send + 'static>(
        &self,
        verb: impl FnOnce(&mut Tx<'_, '_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.run(Durability::Relaxed, verb).await
    }

    async fn run<T: Send + 'static>(
        &self,
        durability: Durability,
        verb: impl FnOnce(&mut Tx<'_, '_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let context = Arc::clone(&self.0.context);
        self.0.writer.run(durability, move |write| verb(&mut Tx { write, context: &context })).await
    }

    /// Runs a query over few rows.
    async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(Db<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        match &self.0.readers {
            Some(readers) => readers.read(|connection| query(Db { connection, context: &self.0.context })).await,
            None => self.write_relaxed(move |tx| query(tx.db())).await,
        }
    }

    /// Runs a query over many rows.
    async fn scan<T: Send + 'static>(
        &self,
        query: impl FnOnce(Db<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        match &self.0.readers {
            Some(readers) => {
                let context = Arc::clone(&self.0.context);
                readers.scan(move |connection| query(Db { connection, context: &context })).await
            }
            None => self.write_relaxed(move |tx| query(tx.db())).await,
        }
    }
}

impl Changes {
    fn count(&self, woken: Wakes) {
        let kinds = [
            (WAKES_TWINS, &self.twins),
            (WAKES_IDENTITIES, &self.identities),
            (WAKES_KEY_GROUPS, &self.key_groups),
            (WAKES_FEEDBACK, &self.feedback),
        ];
        for (_, changes) in kinds.iter().filter(|(wakes, _)| woken & wakes != 0) {
            changes.send_modify(|count| *count += 1);
        }
    }
}

/// Whether there is a store at `path`: a file that something was written to.
fn is_store(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.len() > 0)
}

/// Files beside the store are sealed as if they were rows of one table.
const fn file_place(name: &str) -> Place<'_> {
    Place { table: "file", row: name, column: "content" }
}

/// Refuses a sealing key that is not the one the store was sealed with; a fresh store takes it.
fn check_key(connection: &Connection, sealer: &Sealer, folder: &Folder) -> Result<(), OpenError> {
    let failed = |error| OpenError::sqlite(folder.file(STORE_FILE), error);
    let known: i64 = connection
        .query_row("SELECT number FROM meta WHERE name = 'sealing_key'", (), |row| row.get(0))
        .map_err(failed)?;
    let given = i64::from(sealer.id().number());
    if known < 0 {
        connection.execute("UPDATE meta SET number = ?1 WHERE name = 'sealing_key'", [given]).map_err(failed)?;
    } else if known != given {
        let problem = "is not the one this store was sealed with";
        return Err(OpenError::KeyUnusable { path: folder.file(KEY_FILE), problem });
    }
    Ok(())
}

/// Counts the opening, which also shows that the store can be written to. Nobody is connected yet, so nobody waits to
/// hear of changed identities, and nobody has messages by a connection.
fn begin_run(connection: &Connection, path: Option<&Path>) -> Result<i64, OpenError> {
    let failed = |error| OpenError::sqlite(path.unwrap_or(Path::new(":memory:")), error);
    connection.execute("DELETE FROM identity_change", ()).map_err(failed)?;
    connection.execute(cloud_to_device::RELEASE_ALL, ()).map_err(failed)?;
    connection
        .query_row("UPDATE meta SET number = number + 1 WHERE name = 'run' RETURNING number", (), |row| row.get(0))
        .map_err(failed)
}
