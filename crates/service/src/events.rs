//! The Event Hubs-compatible endpoint: what a hub's telemetry is called there, and reading it on.
//!
//! A reader keeps its own place and asks for what stands behind it, so that nothing waits here for one that reads slowly
//! or not at all. Start at [`Service::perform_events`]; who may be a reader beside whom is in `readers`.

use std::sync::Arc;

use domain::message::StoredPlace;
use domain::operation::events::{Answer, Ask, Attach, Entity, Event, From, Newest, Reader, Seat, Start};
use domain::operation::{Caller, ErrorKind};
use domain::resource::Hub;
use store::ports::{Position, ReadFrom};

use crate::Service;
use crate::access::{Signed, authorize_reader, unreached};
use crate::error::Error;
use crate::readers::{Awaited, NotEntered, SHARING_MAX};

/// Messages that are read at once at the most; the log ends a page of large ones earlier.
const BATCH_MESSAGES_MAX: usize = 256;

impl Service {
    /// Performs `ask`.
    pub(crate) async fn perform_events(&self, caller: &Caller, ask: Ask) -> Result<Answer, Error> {
        match ask {
            Ask::Locate { host } => {
                let (hub, _) = self.judge_reader(caller, &host, &["messages", "events"])?;
                Ok(Answer::Located { host: self.resources().hub_host(&hub), name: hub.name.to_string() })
            }
            Ask::Describe(entity) => self.describe(caller, &entity).await,
            Ask::Attach(attach) => self.attach_reader(caller, *attach).await,
            Ask::Renew(reader) => self.renew_reader(caller, &reader),
            Ask::Read { reader, from, limit } => self.read_on(&reader, from, limit).await,
            Ask::AwaitEvents(reader) => Ok(self.await_events(&reader).await),
            Ask::AwaitEnd(reader) => Ok(self.await_end(&reader).await),
            Ask::Detach(reader) => {
                self.0.readers.leave(&reader);
                Ok(Answer::Done)
            }
        }
    }

    /// The hub dialled, if the caller's signature lets it read there what `path` names.
    fn judge_reader(&self, caller: &Caller, host: &str, path: &[&str]) -> Result<(Arc<Hub>, Signed), Error> {
        let resources = self.resources();
        let hub = resources
            .hub_at(&caller.endpoint, host)
            .ok_or_else(|| unreached(caller, ErrorKind::HubNotFound, "No hub answers at this host."))?;
        let signed = authorize_reader(caller, (resources.hub_aliases(hub), path), &hub.policies, self.now())?;
        Ok((Arc::clone(hub), signed))
    }

    /// As [`Self::judge_reader`], for the event hub of that name.
    fn judge_entity(&self, caller: &Caller, entity: &Entity, path: &[&str]) -> Result<(Arc<Hub>, Signed), Error> {
        let (hub, signed) = self.judge_reader(caller, &entity.host, path)?;
        match self.is_event_hub(&hub, &entity.name) {
            true => Ok((hub, signed)),
            false => Err(Error::new(ErrorKind::ResourceNotFound, "There is no event hub of this name here.")),
        }
    }

    /// Whether `name` is that of the event hub of `hub`: the hub's own, or the first part of a host that it is dialled at,
    /// which Azure IoT Explorer takes for it. Which hub is meant was decided before.
    fn is_event_hub(&self, hub: &Hub, name: &str) -> bool {
        let resources = self.resources();
        let first_parts = resources.hub_aliases(hub).iter().filter_map(|host| host.split('.').next());
        first_parts.chain([hub.name.as_str()]).any(|known| known.eq_ignore_ascii_case(name))
    }

    async fn describe(&self, caller: &Caller, entity: &Entity) -> Result<Answer, Error> {
        let (hub, _) = self.judge_entity(caller, entity, &entity.path())?;
        let name = hub.name.to_string();
        let Some(partition) = &entity.partition else {
            return Ok(Answer::EventHub { name, created_at: hub.created_at, partitions: hub.partitions });
        };
        let Some(partition) = partition_of(partition, &hub) else {
            return Ok(Answer::NoPartition { partitions: hub.partitions });
        };
        let kept = self.0.telemetry.bounds(hub.key, partition).await?;
        let kept = match kept {
            None => None,
            Some((oldest, newest)) => Some((oldest.sequence, self.newest(&hub, partition, newest).await?)),
        };
        Ok(Answer::Partition { name, partition, kept })
    }

    /// When the newest message of a partition was kept.
    async fn newest(&self, hub: &Hub, partition: u16, at: Position) -> Result<Newest, Error> {
        let before = at.sequence.checked_sub(1).map_or(ReadFrom::Start, ReadFrom::AfterSequence);
        let found = self.0.telemetry.read(hub.key, partition, before, 1).await?;
        let read_at = self.now();
        let enqueued_at = found.first().map_or(read_at, |stored| stored.enqueued_at);
        Ok(Newest { sequence: at.sequence, offset: at.offset, enqueued_at, read_at })
    }

    async fn attach_reader(&self, caller: &Caller, attach: Attach) -> Result<Answer, Error> {
        let (hub, signed) = self.judge_entity(caller, &attach.entity, &attach.path())?;
        let Attach { entity, group, start, epoch, tracks } = attach;
        let Some(partition) = entity.partition.as_deref().and_then(|text| partition_of(text, &hub)) else {
            return Ok(Answer::NoPartition { partitions: hub.partitions });
        };
        if hub.find_consumer_group(&group).is_none() {
            return Err(Error::new(ErrorKind::ResourceNotFound, "There is no consumer group of this name."));
        }
        // Before the place is looked up: what comes in between is noticed twice, not never.
        let appended = self.0.telemetry.appended(hub.key);
        let from = self.begin_at(&hub, partition, start).await?;
        let seat = Seat { number: 0, hub: hub.key, name: entity.name, group, partition, tracks };
        let reader = match self.0.readers.enter(seat, epoch, signed, appended) {
            Ok(reader) => reader,
            Err(NotEntered::Held(epoch)) => return Ok(Answer::Held { epoch }),
            Err(NotEntered::Crowded) => {
                let text = format!("A partition has at most {SHARING_MAX} readers without an epoch in a group.");
                return Err(Error::new(ErrorKind::QuotaExceeded, text));
            }
        };
        let Seat { name, group, partition, .. } = &*reader;
        tracing::info!(name, group, partition, ?start, ?epoch, "a reader of telemetry was let in");
        // The policy may have been changed between the judgement and the entry.
        self.0.readers.judge(hub.key, &self.resources());
        Ok(Answer::Attached { reader, from })
    }

    /// Where a reader begins. A place that nothing has reached counts as the end, so that a reader which names one is not
    /// deaf until the log gets there.
    async fn begin_at(&self, hub: &Hub, partition: u16, start: Start) -> Result<From, Error> {
        let newest = self.0.telemetry.bounds(hub.key, partition).await?.map(|(_, newest)| newest);
        let end = newest.map_or(From::Oldest, |newest| From::AfterSequence(newest.sequence));
        Ok(match start {
            Start::Newest => end,
            Start::At(From::AfterSequence(sequence)) if newest.is_none_or(|newest| sequence > newest.sequence) => end,
            Start::At(From::AfterOffset(offset)) if newest.is_none_or(|newest| offset > newest.offset) => end,
            Start::At(from) => from,
        })
    }

    fn renew_reader(&self, caller: &Caller, reader: &Reader) -> Result<Answer, Error> {
        let resources = self.resources();
        let hub = resources.hub(reader.hub).ok_or_else(|| Error::new(ErrorKind::HubNotFound, "The hub is gone."))?;
        let path = reader.path();
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let signed = authorize_reader(caller, (resources.hub_aliases(hub), &path), &hub.policies, self.now())?;
        if !self.0.readers.renew(reader, signed) {
            return Err(Error::unauthorized());
        }
        // The policy may have been changed between the judgement and the renewal.
        self.0.readers.judge(reader.hub, &self.resources());
        Ok(Answer::Done)
    }

    async fn read_on(&self, reader: &Reader, from: From, limit: usize) -> Result<Answer, Error> {
        if !self.0.readers.look(reader) {
            // Why it ended is told to whoever awaits the end.
            return Ok(Answer::Events { events: Vec::new(), read_to: None, newest: None });
        }
        let Seat { hub, partition, tracks, .. } = **reader;
        let limit = limit.min(BATCH_MESSAGES_MAX);
        let stored = self.0.telemetry.read(hub, partition, read_from(from), limit).await?;
        let read_to = stored.last().map(|last| last.position.sequence);
        let mut events = Vec::with_capacity(stored.len());
        for stored in stored {
            let Position { sequence, offset } = stored.position;
            let place = StoredPlace { sequence, offset, enqueued_at: stored.enqueued_at };
            if self.reaches_events(&stored.message, place).await? {
                events.push(Event { sequence, offset, enqueued_at: stored.enqueued_at, message: stored.message });
            }
        }
        let newest = match self.resources().hub(hub).filter(|_| tracks && !events.is_empty()) {
            None => None,
            Some(hub) => match self.0.telemetry.bounds(hub.key, partition).await? {
                None => None,
                Some((_, newest)) => Some(self.newest(hub, partition, newest).await?),
            },
        };
        Ok(Answer::Events { events, read_to, newest })
    }

    async fn await_events(&self, reader: &Reader) -> Answer {
        let Some(Awaited { mut appended, mut ended }) = self.0.readers.awaited(reader) else { return Answer::Done };
        tokio::select! {
            _ = appended.changed() => Answer::More,
            _ = ended.changed() => Answer::Done,
        }
    }

    async fn await_end(&self, reader: &Reader) -> Answer {
        let Some(Awaited { mut ended, .. }) = self.0.readers.awaited(reader) else { return Answer::Done };
        // Nobody sends any more once the reader has left.
        let _ = ended.changed().await;
        let reason = *ended.borrow();
        reason.map_or(Answer::Done, Answer::Ended)
    }
}

/// The partition of `hub` that a program names.
fn partition_of(text: &str, hub: &Hub) -> Option<u16> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number: u16 = text.parse().ok().filter(|_| is_number)?;
    (number < hub.partitions).then_some(number)
}

const fn read_from(from: From) -> ReadFrom {
    match from {
        From::Oldest => ReadFrom::Start,
        From::AfterSequence(sequence) => ReadFrom::AfterSequence(sequence),
        From::AfterOffset(offset) => ReadFrom::AfterOffset(offset),
        From::AfterTime(at) => ReadFrom::AfterTime(at),
    }
}
