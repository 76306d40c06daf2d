//! A connection as verbs use it: each call waits for the server's answer, on a thread that may block.
//!
//! Nothing here decides what a transaction is for. Start at [`Session::begin`].

use std::cell::Cell;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;

use deadpool_postgres::Object;
use futures_util::StreamExt as _;
use tokio::runtime::Handle;
use tokio_postgres::types::ToSql;

use crate::error::Error;
use crate::sql::value::{Row, Value};
use crate::sql::{Durability, Flow};

/// A connection of the pool; it goes back when dropped.
pub(crate) struct Session {
    client: Object,
    runtime: Handle,
    in_transaction: Cell<bool>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

impl Session {
    pub fn new(client: Object, runtime: Handle) -> Self {
        Self { client, runtime, in_transaction: Cell::new(false) }
    }

    /// Begins the transaction of a verb.
    pub fn begin(&self, durability: Durability) -> Result<(), Error> {
        self.begin_with(match durability {
            Durability::Durable => "BEGIN ISOLATION LEVEL SERIALIZABLE",
            Durability::Relaxed => "BEGIN ISOLATION LEVEL SERIALIZABLE; SET LOCAL synchronous_commit = off",
        })
    }

    /// Makes what was written since [`Self::begin`] lasting and visible.
    pub fn commit(&self) -> Result<(), Error> {
        self.in_transaction.set(false);
        Ok(self.runtime.block_on(self.client.batch_execute("COMMIT"))?)
    }

    /// Takes back what was written since [`Self::begin`]. Where that fails the connection is lost, and the server does it.
    pub fn roll_back(&self) {
        self.in_transaction.set(false);
        if let Err(error) = self.runtime.block_on(self.client.batch_execute("ROLLBACK")) {
            tracing::debug!(error = %crate::error::chain(&error), "a transaction ended with its connection");
        }
    }

    /// Runs `query` on one snapshot.
    pub fn snapshot<T>(&self, query: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        if self.in_transaction.get() {
            return query();
        }
        self.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ")?;
        // Nobody else may get a connection with its transaction.
        let answer = catch_unwind(AssertUnwindSafe(query));
        self.roll_back();
        answer.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Runs a statement that changes rows; how many it changed.
    pub fn change(&self, sql: &str, values: &[Value<'_>]) -> Result<usize, Error> {
        let changed = self.runtime.block_on(async {
            let statement = self.client.prepare_cached(&numbered(sql)).await?;
            self.client.execute_raw(&statement, bound(values)).await
        })?;
        usize::try_from(changed).map_err(|error| Error::backend("an SQL statement", error))
    }

    /// Walks over the rows of a statement as they come, which is kept prepared if it is one of the store's own. What was
    /// asked within `visit` would be answered after the last row, which nobody would wait for.
    pub fn visit(
        &self,
        (sql, is_kept): (&str, bool),
        values: &[Value<'_>],
        mut visit: impl FnMut(&Row<'_>) -> Result<Flow, Error>,
    ) -> Result<(), Error> {
        let sql = numbered(sql);
        let rows = self.runtime.block_on(async {
            if is_kept {
                let statement = self.client.prepare_cached(&sql).await?;
                return self.client.query_raw(&statement, bound(values)).await;
            }
            // What is made for one query may bind more than it uses, whose types the server cannot tell.
            self.client.query_typed_raw(&sql, bound(values).zip(values.iter().map(Value::kind))).await
        })?;
        let mut rows = pin!(rows);
        while let Some(row) = self.runtime.block_on(rows.next()) {
            if visit(&Row::Postgres(&row?))? == Flow::Stop {
                break;
            }
        }
        Ok(())
    }

    fn begin_with(&self, sql: &str) -> Result<(), Error> {
        self.runtime.block_on(self.client.batch_execute(sql))?;
        self.in_transaction.set(true);
        Ok(())
    }
}

fn bound<'v>(values: &'v [Value<'_>]) -> impl ExactSizeIterator<Item = &'v (dyn ToSql + Sync)> {
    values.iter().map(|value| value as &(dyn ToSql + Sync))
}

/// A statement with its parameters in PostgreSQL's spelling: `?1` becomes `$1`. No statement of the store has a question
/// mark anywhere else.
fn numbered(sql: &str) -> String {
    let mut numbered = String::with_capacity(sql.len());
    for part in sql.split_inclusive('?') {
        match part.strip_suffix('?') {
            Some(before) => {
                let _ = write!(numbered, "{before}$");
            }
            None => numbered.push_str(part),
        }
    }
    numbered
}
