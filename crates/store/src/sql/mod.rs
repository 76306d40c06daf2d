//! The store over an SQL database: one file per noun holds its verbs, written once for every database.
//!
//! A verb is a function over a [`Tx`]; a query is one over a [`Db`]. No SQL stands outside this module, and no transaction
//! leaves it. How a verb becomes durable is the engine's business: the writer thread of `sqlite`, or a transaction of
//! `postgres`. Start at [`Embedded`].

mod cloud_to_device;
mod configuration;
mod decision;
mod enrollment;
mod event;
mod file;
mod identity;
mod job;
mod link;
mod query;
mod queue;
mod registration;
mod removal;
mod resource;
mod route;
pub(crate) mod rows;
mod session;
mod tally;
mod transfer;
mod twin;
pub(crate) mod value;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use domain::clock::{Clock, Entropy};
use domain::ids::Etag;
use domain::quota::Quotas;
use domain::resource::CertificateOwner;
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::contents::Contents;
use crate::decisions::Refusals;
use crate::error::{Error, OpenError};
use crate::folder::Folder;
#[cfg(feature = "postgres")]
use crate::postgres::Postgres;
use crate::seal::{KEY_FILE, Place, Sealer};
use crate::sqlite::{self, LogLimits, Readers, STORE_FILE, Setup, WeakWriter, Writer};
use crate::stream::{self, EmbeddedLog};
use link::{Sequence, Statement};
use rows::{Bits, row_limit};
use value::{Parameters, Row, params};

pub(crate) use decision::registration_key;
pub(crate) use link::{Flow, Link, Wakes, Write};

/// Wakes who watches [`crate::ports::TwinStore::twin_changes`].
const WAKES_TWINS: Wakes = 1;
/// Wakes who watches [`crate::ports::IdentityStore::identity_changes`].
const WAKES_IDENTITIES: Wakes = 2;
/// Counts up [`crate::ports::EnrollmentStore::key_group_changes`].
const WAKES_KEY_GROUPS: Wakes = 4;
/// Wakes who watches [`crate::ports::CloudToDeviceStore::feedback_changes`].
const WAKES_FEEDBACK: Wakes = 8;
/// Wakes who watches [`crate::ports::FileStore::notification_changes`].
const WAKES_NOTIFICATIONS: Wakes = 16;
/// Wakes who watches [`crate::ports::EventStore::event_changes`].
const WAKES_EVENTS: Wakes = 32;

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

/// A store over an SQL database. Clones are the same store, which closes when the last one is dropped, or by
/// [`Self::close`].
#[derive(Clone, Debug)]
pub struct Embedded(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    engine: Engine,
    context: Arc<Context>,
    changes: Changes,
    refusals: Refusals,
    telemetry: EmbeddedLog,
    contents: Arc<Contents>,
    doubts: file::Doubts,
}

/// What runs verbs and queries.
#[derive(Debug)]
enum Engine {
    /// One thread writes; in a folder others read.
    Sqlite { writer: Writer, readers: Option<Readers> },
    #[cfg(feature = "postgres")]
    Postgres {
        database: Postgres,
        /// Its lock is held for as long as the store is open.
        folder: Folder,
    },
}

/// A way to run verbs that does not keep the store from closing.
enum Runner {
    Sqlite(WeakWriter),
    #[cfg(feature = "postgres")]
    Postgres(crate::postgres::WeakPostgres),
}

impl Engine {
    fn runner(&self) -> Runner {
        match self {
            Self::Sqlite { writer, .. } => Runner::Sqlite(writer.downgrade()),
            #[cfg(feature = "postgres")]
            Self::Postgres { database, .. } => Runner::Postgres(database.downgrade()),
        }
    }
}

impl Runner {
    /// Runs a verb from a thread that may block.
    fn run_blocking<T: Send + 'static>(
        &self,
        durability: Durability,
        work: impl Fn(&mut Write<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        match self {
            Self::Sqlite(writer) => writer.run_blocking(durability, work),
            #[cfg(feature = "postgres")]
            Self::Postgres(database) => database.run_blocking(durability, work),
        }
    }
}

/// How far a verb must reach before it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// To the disk.
    Durable,
    /// It may be lost in a power cut, though not when the process ends.
    Relaxed,
}

/// Counts of committed changes, for those who watch them. Clones share them.
#[derive(Clone, Debug, Default)]
struct Changes {
    twins: watch::Sender<u64>,
    identities: watch::Sender<u64>,
    key_groups: watch::Sender<u64>,
    feedback: watch::Sender<u64>,
    notifications: watch::Sender<u64>,
    events: watch::Sender<u64>,
}

/// What every verb may need besides its connection.
pub(crate) struct Context {
    sealer: Arc<Sealer>,
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
    link: Link<'c>,
    context: &'c Context,
}

/// What a verb works with.
pub(crate) struct Tx<'a, 'c> {
    write: &'a mut Write<'c>,
    context: &'a Context,
}

impl Tx<'_, '_> {
    /// To run a query inside the verb.
    fn db(&self) -> Db<'_> {
        Db { link: self.write.link(), context: self.context }
    }

    /// Has `wakes` woken once the verb is durable.
    const fn wake(&mut self, wakes: Wakes) {
        self.write.wake(wakes);
    }

    /// An etag that this store has never given out: the restore generation in the upper 16 bits, a count below
    /// (`rules.md` 19).
    fn fresh_etag(&self) -> Result<Etag, Error> {
        const COUNT_BITS: u32 = 48;
        let count = self.write.link().next_etag_count()?;
        let generation: Option<i64> =
            self.db().row("SELECT number FROM meta WHERE name = 'generation'", (), |row| row.get(0))?;
        Ok(Etag::from_number((generation.unwrap_or(0).cast_unsigned() << COUNT_BITS) | count.cast_unsigned()))
    }

    /// Runs a statement that changes rows; how many it changed.
    fn change(&self, sql: &str, parameters: impl Parameters) -> Result<usize, Error> {
        self.write.begins_to_write();
        self.write.link().change(sql, &parameters)
    }

    /// Writes a row by a statement that ends with `RETURNING`; gives the number that it returns.
    fn insert(&self, sql: &str, parameters: impl Parameters) -> Result<i64, Error> {
        self.write.begins_to_write();
        self.write.link().number(sql, &parameters)
    }

    /// To be called before anything is written, with the sequences that the verb writes rows of: see [`Write::reserve`].
    fn reserve(&self, sequences: impl IntoIterator<Item = Sequence>) -> Result<(), Error> {
        self.write.reserve(sequences)
    }

    /// Removes up to `limit` rows of a sequence, the first ones, up to the row numbered `upto`; how many there were.
    fn prune(&self, sequence: Sequence, upto: u64, limit: usize) -> Result<usize, Error> {
        let table = sequence.table();
        let sql = format!(
            "DELETE FROM {table} WHERE sequence IN \
             (SELECT sequence FROM {table} WHERE sequence <= ?1 ORDER BY sequence LIMIT ?2)"
        );
        self.change(&sql, params![Bits(upto), row_limit(limit)])
    }
}

impl Db<'_> {
    /// The first row of a query, if there is one.
    fn row<T>(
        &self,
        sql: &str,
        parameters: impl Parameters,
        read: impl FnOnce(&Row<'_>) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        let (mut read, mut found) = (Some(read), None);
        self.link.visit((sql, Statement::Kept), &parameters, |row| {
            found = read.take().map(|read| read(row)).transpose()?;
            Ok(Flow::Stop)
        })?;
        Ok(found)
    }

    /// All rows of a query.
    fn rows<T>(
        &self,
        sql: &str,
        parameters: impl Parameters,
        mut read: impl FnMut(&Row<'_>) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        let mut found = Vec::new();
        self.visit((sql, Statement::Kept), parameters, |row| {
            found.push(read(row)?);
            Ok(Flow::GoOn)
        })?;
        Ok(found)
    }

    /// Walks over the rows of a query.
    fn visit(
        &self,
        statement: (&str, Statement),
        parameters: impl Parameters,
        visit: impl FnMut(&Row<'_>) -> Result<Flow, Error>,
    ) -> Result<(), Error> {
        self.link.visit(statement, &parameters, visit)
    }

    /// Runs `query` on one snapshot.
    fn snapshot<T>(self, query: impl FnOnce(Self) -> Result<T, Error>) -> Result<T, Error> {
        self.link.snapshot(|| query(self))
    }
}

/// What a store has besides its engine and what lies beside the database.
struct Rest {
    context: Context,
    changes: Changes,
    contents: Arc<Contents>,
    /// What an earlier run did not finish to remove.
    removals: Vec<CertificateOwner>,
}

impl Embedded {
    /// Opens the store in a folder or in memory, making it if there is none. Blocks for as long as the files are checked.
    pub fn open(options: Options, clock: Arc<dyn Clock>, entropy: &dyn Entropy) -> Result<Self, OpenError> {
        let Options { folder, telemetry, quotas } = options;
        let folder = folder.map(|path| Folder::open(&path)).transpose()?;
        let path = folder.as_ref().map(|folder| folder.file(STORE_FILE));
        let sealer = match &folder {
            Some(folder) => Sealer::open(&folder.file(KEY_FILE), !is_store(&folder.file(STORE_FILE)), entropy)?,
            None => Sealer::ephemeral(entropy),
        };
        let sealer = Arc::new(sealer);
        let connection = sqlite::connect(path.as_deref())?;
        let place = path.as_deref().unwrap_or(Path::new(":memory:"));
        let contents = Arc::new(Contents::open(folder.as_ref())?);
        let begun = begin(Link::Sqlite(&connection), &sealer, (folder.as_ref(), &contents));
        let (run, removals) = begun.map_err(|fault| fault.told(place))?;
        let readers = path.as_deref().map(Readers::open).transpose()?;
        let changes = Changes::default();
        let counted = changes.clone();
        let kept = folder.clone();
        let start = move || {
            let writer = Writer::start(Setup {
                connection,
                path,
                limits: LogLimits::default(),
                on_commit: Box::new(move |woken| counted.count(woken)),
                keep: Box::new(kept),
            })?;
            Ok(Engine::Sqlite { writer, readers })
        };
        let context = Context { sealer, clock: Arc::clone(&clock), run, quotas };
        let rest = Rest { context, changes, contents, removals };
        Self::finish(start, folder.as_ref(), (telemetry, clock), rest)
    }

    /// Opens what stands beside the database, then what runs verbs, and goes on with what an earlier run left undone.
    fn finish(
        start: impl FnOnce() -> Result<Engine, OpenError>,
        folder: Option<&Folder>,
        (limits, clock): (stream::Limits, Arc<dyn Clock>),
        Rest { context, changes, contents, removals }: Rest,
    ) -> Result<Self, OpenError> {
        let refusals = Refusals::open(folder)?;
        let telemetry = match EmbeddedLog::open(folder, limits, clock) {
            Ok(telemetry) => telemetry,
            Err(error) => {
                refusals.end();
                return Err(error);
            }
        };
        let context = Arc::new(context);
        let store = Self(Arc::new(Inner {
            engine: start()?,
            context,
            changes,
            refusals,
            telemetry,
            contents,
            doubts: file::Doubts::default(),
        }));
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

    /// Opens the store in a PostgreSQL database (`postgres://user:password@host/name`), making it if there is none. The
    /// folder has the sealing key, the telemetry log and the refusals.
    #[cfg(feature = "postgres")]
    pub async fn open_database(
        address: &str,
        options: Options,
        clock: Arc<dyn Clock>,
        entropy: &dyn Entropy,
    ) -> Result<Self, OpenError> {
        let Options { folder, telemetry, quotas } = options;
        let folder = folder.ok_or(OpenError::FolderMissing)?;
        let folder = Folder::open(&folder)?;
        let changes = Changes::default();
        let counted = changes.clone();
        let database = Postgres::open(address, Box::new(move |woken| counted.count(woken))).await?;
        let place = folder.path().to_owned();
        let known = database.read(sealing_key).await.map_err(|error| OpenError::store(&place, error))?;
        let sealer = Arc::new(Sealer::open(&folder.file(KEY_FILE), known < 0, entropy)?);
        let contents = Arc::new(Contents::open(Some(&folder))?);
        let (key, place_of_all, kept) = (Arc::clone(&sealer), folder.clone(), Arc::clone(&contents));
        let begun = database.once(move |link| begin(link, &key, (Some(&place_of_all), &kept))).await;
        let (run, removals) = begun.map_err(|fault| fault.told(&place))?;
        database.has_begun(run);
        let context = Context { sealer, clock: Arc::clone(&clock), run, quotas };
        let rest = Rest { context, changes, contents, removals };
        let kept = folder.clone();
        Self::finish(|| Ok(Engine::Postgres { database, folder: kept }), Some(&folder), (telemetry, clock), rest)
    }

    /// Finishes what is queued and closes the files; answers when the folder is free for another process. Does nothing
    /// while another clone exists.
    pub async fn close(self) {
        let Some(inner) = Arc::into_inner(self.0) else { return };
        inner.telemetry.close().await;
        inner.refusals.close().await;
        match inner.engine {
            Engine::Sqlite { writer, readers } => {
                drop(readers);
                writer.close().await;
            }
            #[cfg(feature = "postgres")]
            Engine::Postgres { database, folder } => {
                database.close().await;
                drop(folder);
            }
        }
    }

    /// Runs a verb that is durable when it answers.
    async fn write<T: Send + 'static>(
        &self,
        verb: impl FnOnce(&mut Tx<'_, '_>) -> Result<T, Error> + Clone + Send + 'static,
    ) -> Result<T, Error> {
        self.run(Durability::Durable, verb).await
    }

    /// Runs a verb that may be lost in a power cut, or when the server of a database fails.
    async fn write_relaxed<T: Send + 'static>(
        &self,
        verb: impl FnOnce(&mut Tx<'_, '_>) -> Result<T, Error> + Clone + Send + 'static,
    ) -> Result<T, Error> {
        self.run(Durability::Relaxed, verb).await
    }

    /// Runs a verb that may be lost in a power cut, though not while this process lives, which goes on from what it did:
    /// the server of a database may fail by itself.
    async fn write_while_running<T: Send + 'static>(
        &self,
        verb: impl FnOnce(&mut Tx<'_, '_>) -> Result<T, Error> + Clone + Send + 'static,
    ) -> Result<T, Error> {
        let durability = match &self.0.engine {
            Engine::Sqlite { .. } => Durability::Relaxed,
            #[cfg(feature = "postgres")]
            Engine::Postgres { .. } => Durability::Durable,
        };
        self.run(durability, verb).await
    }

    /// Runs a verb. It is cloned where it may have to be run again, because it met another.
    async fn run<T: Send + 'static>(
        &self,
        durability: Durability,
        verb: impl FnOnce(&mut Tx<'_, '_>) -> Result<T, Error> + Clone + Send + 'static,
    ) -> Result<T, Error> {
        let context = Arc::clone(&self.0.context);
        match &self.0.engine {
            Engine::Sqlite { writer, .. } => {
                writer.run(durability, move |write| verb(&mut Tx { write, context: &context })).await
            }
            #[cfg(feature = "postgres")]
            Engine::Postgres { database, .. } => {
                let work = move |write: &mut Write<'_>| verb.clone()(&mut Tx { write, context: &context });
                database.run(durability, work).await
            }
        }
    }

    /// Runs a query over few rows.
    async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(Db<'_>) -> Result<T, Error> + Clone + Send + 'static,
    ) -> Result<T, Error> {
        match &self.0.engine {
            Engine::Sqlite { readers: Some(readers), .. } => {
                let context = &self.0.context;
                readers.read(|connection| query(Db { link: Link::Sqlite(connection), context })).await
            }
            Engine::Sqlite { readers: None, .. } => self.write_relaxed(move |tx| query(tx.db())).await,
            #[cfg(feature = "postgres")]
            Engine::Postgres { database, .. } => {
                let context = Arc::clone(&self.0.context);
                database.read(move |link| query(Db { link, context: &context })).await
            }
        }
    }

    /// Runs a query over many rows.
    async fn scan<T: Send + 'static>(
        &self,
        query: impl FnOnce(Db<'_>) -> Result<T, Error> + Clone + Send + 'static,
    ) -> Result<T, Error> {
        match &self.0.engine {
            Engine::Sqlite { readers: Some(readers), .. } => {
                let context = Arc::clone(&self.0.context);
                readers.scan(move |connection| query(Db { link: Link::Sqlite(connection), context: &context })).await
            }
            Engine::Sqlite { readers: None, .. } => self.read(query).await,
            #[cfg(feature = "postgres")]
            Engine::Postgres { .. } => self.read(query).await,
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
            (WAKES_NOTIFICATIONS, &self.notifications),
            (WAKES_EVENTS, &self.events),
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

/// Why a store could not be begun.
enum Fault {
    Store(Error),
    Open(OpenError),
}

impl Fault {
    fn told(self, place: &Path) -> OpenError {
        match self {
            Self::Store(error) => OpenError::store(place, error),
            Self::Open(error) => error,
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

/// Begins a run of a store that nobody else works with: its number, and the removals that an earlier one did not finish.
fn begin(
    link: Link<'_>,
    sealer: &Sealer,
    (folder, contents): (Option<&Folder>, &Contents),
) -> Result<(i64, Vec<CertificateOwner>), Fault> {
    if let Some(folder) = folder {
        check_key(link, sealer, folder)?;
    }
    for id in contents.list().map_err(Fault::Open)? {
        if !file::is_named(link, id)? {
            contents.remove(&[id]);
        }
    }
    Ok((begin_run(link)?, removal::pending(link)?))
}

/// The number of the key that the store was sealed with; negative if it is fresh.
fn sealing_key(link: Link<'_>) -> Result<i64, Error> {
    link.number("SELECT number FROM meta WHERE name = 'sealing_key'", &())
}

/// Refuses a sealing key that is not the one the store was sealed with; a fresh store takes it.
fn check_key(link: Link<'_>, sealer: &Sealer, folder: &Folder) -> Result<(), Fault> {
    let known = sealing_key(link)?;
    let given = i64::from(sealer.id().number());
    if known < 0 {
        link.change("UPDATE meta SET number = ?1 WHERE name = 'sealing_key'", &[given])?;
    } else if known != given {
        let problem = "is not the one this store was sealed with";
        return Err(Fault::Open(OpenError::KeyUnusable { path: folder.file(KEY_FILE), problem }));
    }
    Ok(())
}

/// Counts the opening, which also shows that the store can be written to. Nobody is connected yet, so nobody waits to
/// hear of changed identities, and nobody has messages by a connection.
fn begin_run(link: Link<'_>) -> Result<i64, Error> {
    link.change("DELETE FROM identity_change", &())?;
    link.change(cloud_to_device::RELEASE_ALL, &())?;
    link.number("UPDATE meta SET number = number + 1 WHERE name = 'run' RETURNING number", &())
}
