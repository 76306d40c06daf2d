//! PostgreSQL: each verb is one serialisable transaction, run again where it met another.
//!
//! No table is named here but those that say which schema and which run there is; what verbs do is in [`crate::sql`]. One process
//! works on a database at a time: it holds an advisory lock for as long as it lives. Start at [`Postgres::open`].

mod schema;
mod session;
mod value;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, Semaphore};
use tokio_postgres::{Client, Config, NoTls};

use crate::error::{Error, OpenError, Unavailability};
use crate::sql::{Durability, Link, Wakes, Write};

pub(crate) use session::Session;

/// Connections that write, and that many more that read. More writers meet each other more often.
const WRITERS_MAX: usize = 4;
const READERS_MAX: usize = 8;
/// How long a connection is waited for.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a verb is run again that met another.
const ATTEMPTS_MAX: usize = 100;
/// The advisory lock of the process that works on the database: `Muster` in ASCII.
const PROCESS_LOCK: i64 = 0x4d75_7374_6572;

/// A database. Clones are the same one.
#[derive(Clone, Debug)]
pub(crate) struct Postgres(Arc<Inner>);

/// A database that closes when nobody else has it.
#[derive(Clone, Debug)]
pub(crate) struct WeakPostgres(Weak<Inner>, Handle);

struct Inner {
    pool: Pool,
    writers: Arc<Semaphore>,
    readers: Arc<Semaphore>,
    /// The connection that holds the lock of this process.
    lock: Mutex<Client>,
    config: Config,
    /// The run of the store that this process began.
    run: OnceLock<i64>,
    /// What the store does with whom a verb wakes.
    on_commit: Box<dyn Fn(Wakes) + Send + Sync>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Postgres").field("place", &place(&self.config)).finish_non_exhaustive()
    }
}

/// How a database is called where people read it: without its user's password.
pub(crate) fn place(config: &Config) -> String {
    let hosts: Vec<String> = config
        .get_hosts()
        .iter()
        .map(|host| match host {
            tokio_postgres::config::Host::Tcp(name) => name.clone(),
            tokio_postgres::config::Host::Unix(path) => path.display().to_string(),
        })
        .collect();
    format!("{}/{}", hosts.join(","), config.get_dbname().or(config.get_user()).unwrap_or_default())
}

/// A verb that panicked.
#[derive(Debug, thiserror::Error)]
#[error("the verb panicked")]
struct Panicked;

impl Postgres {
    /// Connects to the database that `address` names (`postgres://user:password@host/name`), takes its lock and brings its
    /// schema to the latest version. `on_commit` is called after each durable verb with whom it wakes.
    pub async fn open(address: &str, on_commit: Box<dyn Fn(Wakes) + Send + Sync>) -> Result<Self, OpenError> {
        let mut config: Config = address.parse().map_err(OpenError::database_address)?;
        config.connect_timeout(CONNECT_TIMEOUT).application_name("muster");
        let failed = |error: tokio_postgres::Error| OpenError::database(place(&config), error);
        let mut lock = connect(&config).await.map_err(failed)?;
        if !take_lock(&lock).await.map_err(failed)? {
            return Err(OpenError::DatabaseInUse { place: place(&config) });
        }
        schema::migrate(&mut lock, &place(&config)).await?;
        let manager = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let pool = Pool::builder(Manager::from_config(config.clone(), NoTls, manager))
            .max_size(WRITERS_MAX + READERS_MAX)
            .wait_timeout(Some(CONNECT_TIMEOUT))
            .create_timeout(Some(CONNECT_TIMEOUT))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| OpenError::database(place(&config), error))?;
        let (writers, readers) = [WRITERS_MAX, READERS_MAX].map(|most| Arc::new(Semaphore::new(most))).into();
        Ok(Self(Arc::new(Inner {
            pool,
            writers,
            readers,
            lock: Mutex::new(lock),
            config,
            run: OnceLock::new(),
            on_commit,
        })))
    }

    /// Remembers which run of the store this process has begun: if the lock is lost and another begins one, this is over.
    pub fn has_begun(&self, run: i64) {
        let _ = self.0.run.set(run);
    }

    /// Ends all connections, the one that holds the lock last.
    pub async fn close(self) {
        let Some(inner) = Arc::into_inner(self.0) else { return };
        // Verbs that are under way have their permits until they have ended.
        let _ended = inner.writers.acquire_many(u32::try_from(WRITERS_MAX).expect("a handful")).await;
        inner.pool.close();
    }

    /// A way to the database that does not keep it from closing.
    pub fn downgrade(&self) -> WeakPostgres {
        WeakPostgres(Arc::downgrade(&self.0), Handle::current())
    }

    /// Runs a verb until it met no other, and waits until it is as durable as it asked for. Dropping the future does not
    /// stop a verb that has begun.
    pub async fn run<T: Send + 'static>(
        &self,
        durability: Durability,
        work: impl Fn(&mut Write<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let permit = Arc::clone(&self.0.writers).acquire_owned().await.map_err(|_| Error::closing())?;
        self.hold_lock().await?;
        let session = self.session().await?;
        let inner = Arc::clone(&self.0);
        let outcome = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let (answer, wakes) = attempts(&session, durability, &work)?;
            if wakes != 0 {
                (inner.on_commit)(wakes);
            }
            Ok(answer)
        });
        outcome.await.map_err(|_| Error::closing())?
    }

    /// Runs `work` in one transaction, and once: to be called while nobody else works on the database.
    pub async fn once<T: Send + 'static, F: From<Error> + Send + 'static>(
        &self,
        work: impl FnOnce(Link<'_>) -> Result<T, F> + Send + 'static,
    ) -> Result<T, F> {
        let session = self.session().await?;
        let outcome = tokio::task::spawn_blocking(move || {
            session.begin(Durability::Durable)?;
            match work(Link::Postgres(&session)) {
                Ok(answer) => {
                    session.commit()?;
                    Ok(answer)
                }
                Err(failure) => {
                    session.roll_back();
                    Err(failure)
                }
            }
        });
        outcome.await.map_err(|error| Error::backend("the beginning of a run", error))?
    }

    /// Runs a query. Those that wait for one of the connections that read keep no verb from its own.
    pub async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(Link<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let permit = Arc::clone(&self.0.readers).acquire_owned().await.map_err(|_| Error::closing())?;
        let session = self.session().await?;
        let outcome = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            query(Link::Postgres(&session))
        });
        match outcome.await {
            Ok(answer) => answer,
            Err(error) if error.is_panic() => Err(Error::backend("a query", error)),
            Err(_) => Err(Error::closing()),
        }
    }

    async fn session(&self) -> Result<Session, Error> {
        let client = self.0.pool.get().await.map_err(|error| match error {
            deadpool_postgres::PoolError::Closed => Error::closing(),
            other => Error::Unavailable { reason: Unavailability::Database, source: Some(Arc::new(other)) },
        })?;
        Ok(Session::new(client, Handle::current()))
    }

    /// Takes the lock of this process again if its connection was lost, unless another process had it since.
    async fn hold_lock(&self) -> Result<(), Error> {
        let mut lock = self.0.lock.lock().await;
        if !lock.is_closed() {
            return Ok(());
        }
        let client = connect(&self.0.config).await?;
        let is_ours = take_lock(&client).await? && self.0.run.get() == Some(&schema::present_run(&client).await?);
        if !is_ours {
            return Err(Error::Unavailable { reason: Unavailability::Displaced, source: None });
        }
        *lock = client;
        Ok(())
    }
}

impl WeakPostgres {
    /// As [`Postgres::run`], from a thread that may block.
    pub fn run_blocking<T: Send + 'static>(
        &self,
        durability: Durability,
        work: impl Fn(&mut Write<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let database = Postgres(self.0.upgrade().ok_or_else(Error::closing)?);
        self.1.block_on(database.run(durability, work))
    }
}

/// Connects, and keeps the connection going in a task that ends with it.
#[expect(clippy::disallowed_methods, reason = "the task ends when its connection does")]
async fn connect(config: &Config) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::warn!(error = %crate::error::chain(&error), "the connection that holds the database's lock ended");
        }
    });
    Ok(client)
}

async fn take_lock(client: &Client) -> Result<bool, tokio_postgres::Error> {
    client.query_one("SELECT pg_try_advisory_lock($1)", &[&PROCESS_LOCK]).await?.try_get(0)
}

/// Runs a verb in transactions until one of them met no other.
fn attempts<T>(
    session: &Session,
    durability: Durability,
    work: &impl Fn(&mut Write<'_>) -> Result<T, Error>,
) -> Result<(T, Wakes), Error> {
    let mut attempt = 1;
    loop {
        match once(session, durability, work) {
            Err(Error::Unavailable { reason: Unavailability::Busy, .. }) if attempt < ATTEMPTS_MAX => attempt += 1,
            outcome => return outcome,
        }
    }
}

fn once<T>(
    session: &Session,
    durability: Durability,
    work: &impl Fn(&mut Write<'_>) -> Result<T, Error>,
) -> Result<(T, Wakes), Error> {
    session.begin(durability)?;
    let mut write = Write::new(Link::Postgres(session));
    let outcome = catch_unwind(AssertUnwindSafe(|| work(&mut write)));
    let outcome = outcome.unwrap_or_else(|_| Err(Error::backend("a verb", Panicked)));
    match outcome {
        Ok(answer) => {
            session.commit()?;
            Ok((answer, write.wakes()))
        }
        Err(error) => {
            session.roll_back();
            Err(error)
        }
    }
}
