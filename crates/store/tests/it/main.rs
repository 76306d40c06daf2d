//! Runs what every backend promises over the embedded store, on disk and in memory, and what only files can show.

mod opening;
