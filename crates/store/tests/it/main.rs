//! Runs what every backend promises over the embedded store, on disk and in memory, and what only files can show.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod conformance;
#[cfg(feature = "postgres-tests")]
mod database;
mod faults;
mod ground;
mod opening;
#[cfg(feature = "postgres-tests")]
mod postgres;
mod reopening;
mod schemas;
mod secrets;
mod telemetry_files;
mod unreadable;
mod uploaded;
