//! The telemetry log: what devices sent, by hub and partition, in order.

use std::sync::Arc;

use async_trait::async_trait;
use domain::clock::UnixTime;
use domain::ids::HubKey;
use domain::message::Message;

use crate::Error;

/// Where a message stands in its partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Counts messages of the partition, from 0; readers accept gaps.
    pub sequence: u64,
    /// Counts bytes of the partition, from 0.
    pub offset: u64,
}

/// A message as it is kept.
#[derive(Clone, Debug)]
pub struct StoredMessage {
    /// Where it stands.
    pub position: Position,
    /// When it was appended.
    pub enqueued_at: UnixTime,
    /// The message.
    pub message: Arc<Message>,
}

/// Where a reader starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFrom {
    /// At the oldest message kept.
    Start,
    /// Behind the newest message.
    End,
    /// At the first message with a higher sequence number.
    AfterSequence(u64),
    /// At the first message with a higher offset.
    AfterOffset(u64),
    /// At the first message appended later than this.
    AfterTime(UnixTime),
}

/// Keeps telemetry. `message.hub` and `message.partition` say where a message belongs.
#[async_trait]
pub trait TelemetryLog: Send + Sync {
    /// Appends a message and answers once it is durable. Calls that wait at the same time share one sync of the disk.
    ///
    /// A call takes its place in the order when its future is first polled: who sends in order and waits for many at
    /// once finds the messages in that order.
    async fn append(&self, message: Message) -> Result<Position, Error>;

    /// Appends all of `messages` in their order or, if that fails, none of them; answers once they are durable. Stands in
    /// the order of calls as one [`Self::append`] does.
    async fn append_all(&self, messages: Vec<Message>) -> Result<(), Error>;

    /// Reads up to `limit` messages of a partition in order, without waiting for any.
    async fn read(
        &self,
        hub: HubKey,
        partition: u16,
        from: ReadFrom,
        limit: usize,
    ) -> Result<Vec<StoredMessage>, Error>;

    /// The oldest and the newest position of a partition; `None` if it is empty.
    async fn bounds(&self, hub: HubKey, partition: u16) -> Result<Option<(Position, Position)>, Error>;

    /// Counts up whenever messages of a hub were appended; carries no content. The sender is gone once the hub is
    /// forgotten.
    fn appended(&self, hub: HubKey) -> tokio::sync::watch::Receiver<u64>;

    /// Tells how long the messages of a hub are kept; a shorter time hides, files go when their newest record has
    /// passed the longest time in them.
    fn set_retention(&self, hub: HubKey, keep: std::time::Duration);

    /// Hides all messages of a hub for ever; they go in time. A key of a hub is never given again.
    fn forget_hub(&self, hub: HubKey);
}
