//! A telemetry log that takes nothing while it is held, and counts what is asked of it.
//!
//! Everything else is the log's own. Start at [`HeldLog::hold`].

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use domain::ids::HubKey;
use domain::message::Message;
use tokio::sync::watch;

use crate::Error;
use crate::ports::{Position, ReadFrom, StoredMessage, TelemetryLog};

/// The log.
pub struct HeldLog {
    log: Arc<dyn TelemetryLog>,
    is_held: watch::Sender<bool>,
    waiting: watch::Sender<usize>,
    bytes_read: AtomicUsize,
}

impl HeldLog {
    /// `log`, which is not held.
    pub fn new(log: Arc<dyn TelemetryLog>) -> Self {
        let (is_held, waiting) = (watch::Sender::new(false), watch::Sender::new(0));
        Self { log, is_held, waiting, bytes_read: AtomicUsize::new(0) }
    }

    /// Takes nothing from here on.
    pub fn hold(&self) {
        self.is_held.send_replace(true);
    }

    /// Takes what has waited, and what comes.
    pub fn let_go(&self) {
        self.is_held.send_replace(false);
    }

    /// How many calls wait to be taken.
    pub fn waiting(&self) -> usize {
        *self.waiting.borrow()
    }

    /// Waits until as many calls wait.
    pub async fn until_waiting(&self, count: usize) {
        // It does not end before this one, which keeps its other end.
        let _ = self.waiting.subscribe().wait_for(|waiting| *waiting >= count).await;
    }

    /// Bytes of bodies that were read, by all readers together.
    pub fn bytes_read(&self) -> usize {
        self.bytes_read.load(Ordering::Relaxed)
    }

    async fn pass(&self) {
        let mut is_held = self.is_held.subscribe();
        if *is_held.borrow_and_update() {
            self.waiting.send_modify(|waiting| *waiting += 1);
            let _ = is_held.wait_for(|is_held| !is_held).await;
            self.waiting.send_modify(|waiting| *waiting -= 1);
        }
    }
}

#[async_trait]
impl TelemetryLog for HeldLog {
    async fn append(&self, message: Message) -> Result<Position, Error> {
        self.pass().await;
        self.log.append(message).await
    }

    async fn append_all(&self, messages: Vec<Message>) -> Result<(), Error> {
        self.pass().await;
        self.log.append_all(messages).await
    }

    async fn read(
        &self,
        hub: HubKey,
        partition: u16,
        from: ReadFrom,
        limit: usize,
    ) -> Result<Vec<StoredMessage>, Error> {
        let read = self.log.read(hub, partition, from, limit).await?;
        let bytes = read.iter().map(|stored| stored.message.draft.body.len()).sum();
        self.bytes_read.fetch_add(bytes, Ordering::Relaxed);
        Ok(read)
    }

    async fn bounds(&self, hub: HubKey, partition: u16) -> Result<Option<(Position, Position)>, Error> {
        self.log.bounds(hub, partition).await
    }

    fn appended(&self, hub: HubKey) -> watch::Receiver<u64> {
        self.log.appended(hub)
    }

    fn set_retention(&self, hub: HubKey, keep: Duration) {
        self.log.set_retention(hub, keep);
    }

    fn forget_hub(&self, hub: HubKey) {
        self.log.forget_hub(hub);
    }
}
