//! The use cases over a real store in memory, with a clock and randomness of the tests' own.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod assigning;
mod attesting;
mod backends;
mod calling;
mod configurations;
mod events;
mod first_start;
mod ground;
mod interrupted;
mod jobs;
mod messages;
mod models;
mod operating;
mod posting;
mod querying;
mod reaching;
mod routing;
mod transferring;
mod uploading;
