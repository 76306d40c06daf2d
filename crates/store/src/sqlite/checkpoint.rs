//! The checkpoint thread: takes the write-ahead log into the file, so that the writer need not.
//!
//! It only ever runs passive checkpoints, which wait for nobody and hold nobody up. Start at [`Checkpointer::start`].

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use rusqlite::Connection;

use super::connection::{checkpoint_passive, open_checkpointer};
use crate::error::OpenError;

/// The way to the thread; dropping it ends the thread and waits for that.
#[derive(Debug)]
pub(crate) struct Checkpointer {
    wake: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    /// Starts a thread for the file at `path`.
    pub fn start(path: &Path) -> Result<Self, OpenError> {
        let connection = open_checkpointer(path)?;
        let (wake, woken) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("store-checkpoint".to_owned())
            .spawn(move || run(&connection, &woken))
            .map_err(|error| OpenError::file("cannot start the checkpoints of", path, error))?;
        Ok(Self { wake: Some(wake), thread: Some(thread) })
    }

    /// Asks for a checkpoint, unless one is asked for already.
    pub fn wake(&self) {
        if let Some(wake) = &self.wake {
            let _ = wake.try_send(());
        }
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(connection: &Connection, woken: &Receiver<()>) {
    while woken.recv().is_ok() {
        if let Err(error) = checkpoint_passive(connection) {
            tracing::warn!(%error, "a checkpoint of the store failed; the next commit asks again");
        }
    }
}
