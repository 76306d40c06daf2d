//! Reading all partitions through the Event Hubs-compatible endpoint, each from an offset on, as any consumer would.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use client::events::{EventHub, EventReader, EventsError, PartitionEvent, Places, Reading};
use domain::operation::events::{From as Place, Start};
use service::clock::SystemClock;
use tokio::time::timeout;

use crate::server::Door;
use crate::trouble::{During as _, Result};

/// Time in which the next message comes, where there is one.
const NEXT_TIMEOUT: Duration = Duration::from_secs(30);
/// The consumer group that every hub has.
const GROUP: &str = "$Default";

/// A message as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// Its number in the partition.
    pub sequence: u64,
    /// Where reading is resumed behind it.
    pub offset: u64,
    /// Who sent it, as the hub says.
    pub device: String,
    /// What was sent.
    pub body: String,
}

/// Reads every partition, and goes on where it stopped.
pub struct Reader {
    hub: EventHub,
    places: Places,
    /// Everything so far, by partition.
    pub read: BTreeMap<u16, Vec<Read>>,
}

impl Reader {
    /// One that has read nothing of partitions that have these `ends`.
    pub fn new(hub: &EventHub, ends: &Places) -> Self {
        let places = ends.keys().map(|&partition| (partition, Place::Oldest)).collect();
        let read = ends.keys().map(|&partition| (partition, Vec::new())).collect();
        Self { hub: hub.clone(), places, read }
    }

    /// Reads on, as messages come, until the server is gone.
    pub async fn follow(&mut self, door: &Door) -> EventsError {
        let mut reader = match EventReader::resume(self.hub.clone(), &reading(door), &self.places).await {
            Ok(reader) => reader,
            Err(error) => return error,
        };
        loop {
            match reader.next().await {
                Ok(event) => self.keep(event),
                Err(error) => return error,
            }
        }
    }

    /// Reads on until everything in front of `ends` has been read.
    pub async fn read_to(&mut self, door: &Door, ends: &Places) -> Result<()> {
        let mut reader = EventReader::resume(self.hub.clone(), &reading(door), &self.places).await?;
        while ends.iter().any(|(partition, &end)| self.places.get(partition).copied().map(offset) < Some(offset(end))) {
            self.keep(timeout(NEXT_TIMEOUT, reader.next()).await.during("waiting for the next message")??);
        }
        reader.close().await;
        Ok(())
    }

    fn keep(&mut self, PartitionEvent { partition, received }: PartitionEvent) {
        self.places.insert(partition, Place::AfterOffset(received.offset));
        self.read.entry(partition).or_default().push(Read {
            sequence: received.sequence,
            offset: received.offset,
            device: received.device.unwrap_or_default(),
            body: String::from_utf8_lossy(&received.body).into_owned(),
        });
    }
}

/// The end of each partition.
pub async fn ends(door: &Door, hub: &EventHub) -> Result<Places> {
    let (reader, ends) = EventReader::open(hub.clone(), &reading(door), Start::Newest).await?;
    reader.close().await;
    Ok(ends)
}

fn reading(door: &Door) -> Reading {
    Reading { tls: Arc::clone(&door.tls), group: GROUP.to_owned(), clock: Arc::new(SystemClock) }
}

/// The offset of the message before a place; none before the first.
const fn offset(place: Place) -> Option<u64> {
    match place {
        Place::AfterOffset(offset) => Some(offset),
        Place::Oldest | Place::AfterSequence(_) | Place::AfterTime(_) => None,
    }
}
