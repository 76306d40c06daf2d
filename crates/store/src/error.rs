//! What goes wrong in a store and the caller cannot decide.

/// Why a verb was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store cannot do it at present: the disk is full, the queue is closed, the lock is held. Trying again may help.
    #[error("the store is not available")]
    Unavailable {
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A row does not parse.
    #[error("table {table}, row {key}, column {column} does not hold what it should")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// The row.
        key: String,
        /// The column.
        column: &'static str,
        /// Why, if a parser said so.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// Anything else.
    #[error("the store failed")]
    Backend {
        /// What the backend said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
