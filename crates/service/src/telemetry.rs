//! Telemetry: stamped, kept, and only then acknowledged; and read by operators as it comes.
//!
//! Start at [`Service::perform_telemetry`] and [`TelemetryReader`].

use domain::ids::HubKey;
use domain::message::{Draft, WILL_MARK};
use domain::operation::identity::IdentityName;
use domain::operation::session::Seat;
use domain::operation::telemetry::{Answer, Ask};
use domain::operation::{Caller, ErrorKind, Failure};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use store::ports::{ReadFrom, StoredMessage};
use tokio::sync::watch;

use crate::Service;
use crate::error::Error;

/// Messages that a reader takes at once; with messages of the greatest size these are 16 MiB.
const BATCH_MESSAGES_MAX: usize = 64;

/// Most bytes of messages that were sent over HTTPS and wait to be durable: so many that they are kept as fast as the disk
/// takes them, and so few that connected devices find room in the log.
pub(crate) const POSTS_BYTES_MAX: usize = 8 << 20;

/// Where a reader of telemetry begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReaderStart {
    /// At the oldest message that is kept.
    Oldest,
    /// Behind the newest one.
    Newest,
}

impl Service {
    /// Performs `ask`; what a device sends is answered once it is durable.
    pub(crate) async fn perform_telemetry(&self, caller: &Caller, ask: Ask) -> Result<Answer, Error> {
        match ask {
            Ask::Send { device, message } => {
                let kept = self.keep(&device, *message).await;
                self.hear(&device);
                kept
            }
            Ask::SendBatch { device, messages } => {
                let kept = self.keep_all(&device, messages).await;
                self.hear(&device);
                kept
            }
            Ask::Post { name, messages } => self.post(caller, &name, messages).await,
            Ask::Will { device, message } => self.keep(&device, message.marked(WILL_MARK)).await,
            Ask::Watch { hub } => {
                self.authorize_operator(caller)?;
                let resources = self.resources();
                let found = resources.hubs().iter().find(|one| one.name == hub);
                let hub = found.ok_or_else(|| Error::new(ErrorKind::ResourceNotFound, "The hub was not found."))?;
                Ok(Answer::Readable { hub: hub.key, partitions: hub.partitions })
            }
        }
    }

    /// Keeps what a device without a connection sends. Nothing holds back who sends like that, so that whoever finds as
    /// much under way as may be is told to come again.
    async fn post(&self, caller: &Caller, name: &IdentityName, messages: Vec<Draft>) -> Result<Answer, Error> {
        let seat = self.seat_for_request(caller, name).await?;
        let bytes = messages.iter().map(Draft::size).sum::<usize>();
        let room = u32::try_from(bytes).ok().and_then(|bytes| self.0.posts.try_acquire_many(bytes).ok());
        let _room = room.ok_or_else(|| Error::new(ErrorKind::Throttled, "The hub is busy; try again later."))?;
        let kept = self.keep_all(&seat, messages).await?;
        self.0.directory.hear_unseated(&seat, self.now());
        Ok(kept)
    }

    /// Nothing is awaited before the append, so that the messages of a device are kept in the order in which their
    /// futures are first polled.
    async fn keep(&self, seat: &Seat, draft: Draft) -> Result<Answer, Error> {
        draft.check().map_err(|invalid| Error::new(ErrorKind::TooLarge, invalid.to_string()))?;
        let resources = self.resources();
        let hub = resources.hub(seat.hub).ok_or_else(|| Error::new(ErrorKind::HubNotFound, "The hub is gone."))?;
        self.0.telemetry.append(draft.stamp(seat, hub.partitions)).await?;
        Ok(Answer::Stored)
    }

    /// Keeps all of `drafts`, in their order and with one sync of the disk. One that breaks a limit keeps all out; where
    /// the log fails half-way, the sender is told, and sends the batch again.
    async fn keep_all(&self, seat: &Seat, drafts: Vec<Draft>) -> Result<Answer, Error> {
        if let Some(invalid) = drafts.iter().find_map(|draft| draft.check().err()) {
            return Err(Error::new(ErrorKind::TooLarge, invalid.to_string()));
        }
        let mut appends: FuturesOrdered<_> = drafts.into_iter().map(|draft| self.keep(seat, draft)).collect();
        let mut outcome = Ok(Answer::Stored);
        while let Some(kept) = appends.next().await {
            outcome = outcome.and(kept);
        }
        outcome
    }

    /// A reader of all partitions of a hub. Whether anybody may read was decided by an ask ([`Ask::Watch`]).
    pub async fn telemetry_reader(
        &self,
        hub: HubKey,
        partitions: u16,
        start: ReaderStart,
    ) -> Result<TelemetryReader, Failure> {
        // Taken before the positions are: what comes in between is noticed twice, not never.
        let appended = self.0.telemetry.appended(hub);
        let mut positions = Vec::with_capacity(usize::from(partitions));
        for partition in 0..partitions {
            let from = match start {
                ReaderStart::Oldest => ReadFrom::Start,
                ReaderStart::Newest => {
                    let bounds = self.0.telemetry.bounds(hub, partition).await;
                    let bounds = bounds.map_err(|error| self.fail(error.into()))?;
                    bounds.map_or(ReadFrom::Start, |(_, newest)| ReadFrom::AfterSequence(newest.sequence))
                }
            };
            positions.push(from);
        }
        Ok(TelemetryReader { service: self.clone(), hub, positions, next_partition: 0, appended })
    }
}

/// Follows the telemetry of a hub: each partition in order, the partitions by turns.
pub struct TelemetryReader {
    service: Service,
    hub: HubKey,
    /// Where each partition is read on.
    positions: Vec<ReadFrom>,
    next_partition: usize,
    appended: watch::Receiver<u64>,
}

impl TelemetryReader {
    /// The next messages, at least one, all of one partition; waits for them. `None` once the hub is gone.
    pub async fn next(&mut self) -> Result<Option<Vec<StoredMessage>>, Failure> {
        loop {
            self.appended.borrow_and_update();
            if let Some(batch) = self.read().await? {
                return Ok(Some(batch));
            }
            let mut published = self.service.published_changes();
            if self.service.resources().hub(self.hub).is_none() {
                return Ok(None);
            }
            tokio::select! {
                changed = self.appended.changed() => if changed.is_err() { return Ok(None) },
                _ = published.changed() => {}
            }
        }
    }

    /// What some partition holds; each is looked at once.
    async fn read(&mut self) -> Result<Option<Vec<StoredMessage>>, Failure> {
        for _ in 0..self.positions.len() {
            let index = self.next_partition;
            self.next_partition = (index + 1) % self.positions.len();
            let (Ok(partition), Some(position)) = (u16::try_from(index), self.positions.get_mut(index)) else {
                continue;
            };
            let log = &self.service.0.telemetry;
            let batch = log.read(self.hub, partition, *position, BATCH_MESSAGES_MAX).await;
            let batch = batch.map_err(|error| self.service.fail(error.into()))?;
            if let Some(last) = batch.last() {
                *position = ReadFrom::AfterSequence(last.position.sequence);
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }
}
