//! The schemas of the store's files, each as the migrations that lead to it.

use super::connection::Schema;

/// The main file.
pub(crate) const MAIN: Schema = Schema { migrations: &[include_str!("../../migrations/sqlite/0001_first.sql")] };

/// The file of refusals.
pub(crate) const REFUSALS: Schema =
    Schema { migrations: &[include_str!("../../migrations/sqlite/refusals/0001_first.sql")] };

/// A file of the telemetry log.
pub(crate) const TELEMETRY: Schema =
    Schema { migrations: &[include_str!("../../migrations/sqlite/telemetry/0001_first.sql")] };
