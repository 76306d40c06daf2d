//! Connections that read, so that readers wait neither for the writer nor for each other.
//!
//! Short queries run where they are asked, on the async thread itself: a point read takes some 6 µs, less than handing
//! it to another thread and back (`examples/throughput.rs` measures both). Queries over many rows run on blocking threads.
//! At most [`Readers::scans_max`] connections serve the latter, so that long queries never starve short ones. A
//! store in memory has no readers of its own: its queries are queued to the writer.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::connection::open_reader;
use crate::error::{Error, OpenError};

/// A bounded pool of connections to one file.
#[derive(Debug)]
pub(crate) struct Readers {
    short: Arc<Pool>,
    long: Arc<Pool>,
}

#[derive(Debug)]
struct Pool {
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
}

/// A connection out of the pool; it goes back when dropped, also by a panic.
struct Lease {
    pool: Arc<Pool>,
    connection: Option<Connection>,
    _permit: OwnedSemaphorePermit,
}

impl Pool {
    fn open(path: &Path, connections: usize) -> Result<Arc<Self>, OpenError> {
        let idle = (0..connections).map(|_| open_reader(path)).collect::<Result<Vec<_>, _>>()?;
        Ok(Arc::new(Self { idle: Mutex::new(idle), permits: Arc::new(Semaphore::new(connections)) }))
    }

    async fn lease(self: &Arc<Self>) -> Result<Lease, Error> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| Error::closing())?;
        let connection = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Ok(Lease { pool: Arc::clone(self), connection, _permit: permit })
    }
}

impl Lease {
    fn run<T>(&self, query: impl FnOnce(&Connection) -> Result<T, Error>) -> Result<T, Error> {
        let connection = self.connection.as_ref().expect("there is a connection for each permit");
        query(connection)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
    }
}

impl Readers {
    /// Opens connections to the file at `path`: one for each processor for short queries, and `scans_max` for long ones.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Ok(Self { short: Pool::open(path, processors + 1)?, long: Pool::open(path, Self::scans_max())? })
    }

    /// How many long queries run at once.
    pub const fn scans_max() -> usize {
        2
    }

    /// Runs a query over few rows, in place.
    pub async fn read<T>(&self, query: impl FnOnce(&Connection) -> Result<T, Error>) -> Result<T, Error> {
        self.short.lease().await?.run(query)
    }

    /// Runs a query over many rows, on a blocking thread.
    pub async fn scan<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let lease = self.long.lease().await?;
        match tokio::task::spawn_blocking(move || lease.run(query)).await {
            Ok(answer) => answer,
            Err(error) if error.is_panic() => Err(Error::backend("a query", error)),
            Err(_) => Err(Error::closing()),
        }
    }
}
