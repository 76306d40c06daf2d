//! The write-ahead log is taken into its file beside the writer, and kept from growing without bound.
//!
//! A thread runs passive checkpoints, which wait for nobody and hold nobody up. Under steady writing these never catch
//! up with the end of the log, so that from a certain size on the writer itself empties it between two commits. Start
//! at [`LogKeeper::start`].

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use rusqlite::Connection;

use super::connection::{checkpoint_passive, checkpoint_restart, open_checkpointer};
use crate::error::OpenError;

/// When the write-ahead log is taken into the file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogLimits {
    /// The checkpoint thread is woken each time the log has grown by so many pages.
    pub checkpoint_pages: u64,
    /// From this many pages on, the writer itself empties the log between two commits.
    pub pages_max: u64,
}

impl LogLimits {
    /// Bytes of a page, as SQLite makes them.
    const PAGE_BYTES: u64 = 4_096;

    /// For a file that is appended to: its last pages are written again and again, and every checkpoint copies them.
    pub const APPENDED: Self =
        Self { checkpoint_pages: (32 << 20) / Self::PAGE_BYTES, pages_max: (256 << 20) / Self::PAGE_BYTES };
}

impl Default for LogLimits {
    fn default() -> Self {
        Self { checkpoint_pages: (4 << 20) / Self::PAGE_BYTES, pages_max: (256 << 20) / Self::PAGE_BYTES }
    }
}

/// Watches over the log of one writing connection. Dropping it ends the checkpoints and waits for that.
#[derive(Debug)]
pub(crate) struct LogKeeper {
    limits: LogLimits,
    /// Pages in the log after the last commit, as the connection's hook tells.
    pages: Arc<AtomicU64>,
    /// At how many pages the thread was woken last.
    woken_at: u64,
    /// At how many pages the log is emptied next.
    emptied_at: u64,
    wake: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl LogKeeper {
    /// Starts to watch over the log of `connection`, which writes to the file at `path`.
    pub fn start(connection: &mut Connection, path: &Path, limits: LogLimits) -> Result<Self, OpenError> {
        let pages = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&pages);
        let hook = move |_: &mut rusqlite::hooks::Wal, pages: std::ffi::c_int| {
            seen.store(u64::try_from(pages).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        };
        connection.wal_hook(Some(hook)).map_err(|error| OpenError::sqlite(path, error))?;
        let checkpointer = open_checkpointer(path)?;
        let (wake, woken) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("store-checkpoint".to_owned())
            .spawn(move || run(&checkpointer, &woken))
            .map_err(|error| OpenError::file("cannot start the checkpoints of", path, error))?;
        Ok(Self { limits, pages, woken_at: 0, emptied_at: limits.pages_max, wake: Some(wake), thread: Some(thread) })
    }

    /// Has the log taken into the file if it has grown. To be called between two transactions of `connection`.
    pub fn tend(&mut self, connection: &Connection) {
        let pages = self.pages.load(Ordering::Relaxed);
        // Fewer pages than before: the log was taken over whole and is written from its beginning.
        self.woken_at = self.woken_at.min(pages);
        if pages >= self.emptied_at {
            // A reader that sits on the log for long must not hold every commit up: the next attempt comes later.
            let later = pages + self.limits.pages_max / 4;
            self.emptied_at = match checkpoint_restart(connection) {
                Ok(true) => self.limits.pages_max,
                Ok(false) => later,
                Err(error) => {
                    tracing::warn!(%error, "the store's log cannot be emptied");
                    later
                }
            };
        } else if pages >= self.woken_at + self.limits.checkpoint_pages
            && let Some(wake) = &self.wake
        {
            self.woken_at = pages;
            // A full channel means that the thread has been asked already.
            let _ = wake.try_send(());
        }
    }
}

impl Drop for LogKeeper {
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
