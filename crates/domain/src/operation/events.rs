//! A back-end program reads what the devices of a hub sent, partition by partition, as the Event Hubs-compatible endpoint
//! gives it out.
//!
//! A reader is let in for one partition and one consumer group, and keeps its own place: what was read is nobody's to
//! remember but the reader's. Start at [`Ask`].

use std::sync::Arc;

use crate::clock::UnixTime;
use crate::ids::HubKey;
use crate::message::Message;

use super::session::CutOff;

/// What is asked.
#[derive(Clone, Debug)]
pub enum Ask {
    /// Say where the endpoint of the dialled hub is.
    Locate {
        /// The host as the program wrote it, empty if it wrote none; only narrows what was dialled.
        host: String,
    },
    /// Say what the endpoint, or one of its partitions, holds.
    Describe(Entity),
    /// Let a reader in.
    Attach(Box<Attach>),
    /// Have a newer signature count for a reader, in the place of the one it was let in by.
    Renew(Reader),
    /// Read on; never waits for messages.
    Read {
        /// Who.
        reader: Reader,
        /// Behind which message.
        from: From,
        /// Most messages to give, at least 1; fewer are given of large ones.
        limit: usize,
    },
    /// Answer when there may be more than the last [`Ask::Read`] saw, or the reader's time has ended.
    AwaitEvents(Reader),
    /// Answer when the reader's time has ended.
    AwaitEnd(Reader),
    /// Leave.
    Detach(Reader),
}

/// What the endpoint of a hub is called, as a program wrote it, and what of it is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entity {
    /// The host, empty if none was written; only narrows what was dialled.
    pub host: String,
    /// The name of the event hub.
    pub name: String,
    /// The partition, as written; `None` for the event hub itself.
    pub partition: Option<String>,
}

/// An attempt to be let in as a reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attach {
    /// What is to be read.
    pub entity: Entity,
    /// The consumer group.
    pub group: String,
    /// Where to begin.
    pub start: Start,
    /// How strongly it claims the partition for itself in its group; `None` if it shares it.
    pub epoch: Option<i64>,
    /// Whether it wants to be told with each message how far the partition goes.
    pub tracks: bool,
}

/// Where a reader begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With what comes from here on.
    Newest,
    /// At a place of the log. One behind the newest message counts as [`Start::Newest`].
    At(From),
}

/// A place in a partition: what stands behind it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// Before the oldest message that is kept.
    Oldest,
    /// Behind the message of this sequence number.
    AfterSequence(u64),
    /// Behind the message of this offset.
    AfterOffset(u64),
    /// Behind what was kept at this time or before.
    AfterTime(UnixTime),
}

impl Entity {
    /// What a signature has to cover so that its owner may ask about the endpoint.
    pub fn path(&self) -> Vec<&str> {
        vec![&self.name, MANAGEMENT]
    }
}

impl Attach {
    /// What a signature has to cover so that its owner may read.
    pub fn path(&self) -> Vec<&str> {
        reader_path(&self.entity.name, &self.group, self.entity.partition.as_deref().unwrap_or_default())
    }
}

/// The node at which an event hub tells of itself.
pub const MANAGEMENT: &str = "$management";

/// The path below the host under which messages are read (`contract/eventhub-endpoint.md 6.1`).
fn reader_path<'a>(name: &'a str, group: &'a str, partition: &'a str) -> Vec<&'a str> {
    vec![name, "ConsumerGroups", group, "Partitions", partition]
}

/// What is answered.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Where the endpoint is.
    Located {
        /// Its host.
        host: String,
        /// The name of its event hub.
        name: String,
    },
    /// What the event hub is.
    EventHub {
        /// Its name.
        name: String,
        /// When it was created.
        created_at: UnixTime,
        /// How many partitions it has.
        partitions: u16,
    },
    /// What a partition holds.
    Partition {
        /// The name of the event hub.
        name: String,
        /// Which partition.
        partition: u16,
        /// The oldest and the newest message kept; `None` if there are none.
        kept: Option<(u64, Newest)>,
    },
    /// The reader is in.
    Attached {
        /// What it asks everything else with.
        reader: Reader,
        /// Where it begins.
        from: From,
    },
    /// Another reader holds the partition.
    Held {
        /// How strongly.
        epoch: i64,
    },
    /// There is no such partition.
    NoPartition {
        /// How many there are, from 0.
        partitions: u16,
    },
    /// What was read.
    Events {
        /// In their order.
        events: Vec<Event>,
        /// The sequence number up to which was looked: messages that do not go to the endpoint are passed over. `None` if
        /// there was nothing at all.
        read_to: Option<u64>,
        /// How far the partition goes, for a reader that tracks it.
        newest: Option<Newest>,
    },
    /// There may be more to read.
    More,
    /// The reader was cut off.
    Ended(CutOff),
    /// Done.
    Done,
}

/// A message as a reader gets it.
#[derive(Clone, Debug)]
pub struct Event {
    /// Counts messages of the partition, from 0, with gaps.
    pub sequence: u64,
    /// Counts bytes of the partition, from 0.
    pub offset: u64,
    /// When it was kept.
    pub enqueued_at: UnixTime,
    /// The message.
    pub message: Arc<Message>,
}

/// Where the newest message of a partition stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Newest {
    /// Its sequence number.
    pub sequence: u64,
    /// Its offset.
    pub offset: u64,
    /// When it was kept.
    pub enqueued_at: UnixTime,
    /// When this was looked up.
    pub read_at: UnixTime,
}

/// Proof that a reader was let in, carried by everything it asks afterwards. Only `service` makes one. It is worth nothing
/// any more once the reader is cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reader(Arc<Seat>);

/// What a [`Reader`] stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat {
    /// Tells it from every other of the node.
    pub number: u64,
    /// The hub.
    pub hub: HubKey,
    /// The name of the event hub as its reader has it, since what it signs names it so.
    pub name: String,
    /// The consumer group.
    pub group: String,
    /// The partition.
    pub partition: u16,
    /// Whether it wants to be told with each message how far the partition goes.
    pub tracks: bool,
}

impl Reader {
    /// Lets in a reader that has proved its right.
    pub fn seat(seat: Seat) -> Self {
        Self(Arc::new(seat))
    }
}

impl std::ops::Deref for Reader {
    type Target = Seat;
    fn deref(&self) -> &Seat {
        &self.0
    }
}

impl Seat {
    /// What a signature has to cover so that its owner may read on.
    pub fn path(&self) -> Vec<String> {
        let partition = self.partition.to_string();
        reader_path(&self.name, &self.group, &partition).into_iter().map(str::to_owned).collect()
    }
}
