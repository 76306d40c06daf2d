//! The embedded store: SQLite files in the data folder, one writer, many readers.

mod checkpoint;
mod connection;
mod engine;
mod readers;
