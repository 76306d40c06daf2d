//! Tells each endpoint of the log of its hub: in the order of each partition, from a durable cursor, again and again until
//! it takes a message or that is given up.
//!
//! Nothing of a message is held while an endpoint is waited for: what was refused is read again. A receiver sees a message
//! twice where the server ended between sending it and noting that, which one that stops in good order avoids, and where
//! one before it was refused; its sequence number tells. Start at
//! [`Service::run_routes`].

use std::collections::HashSet;
use std::sync::Arc;

use domain::clock::random;
use domain::ids::{EndpointName, HubKey};
use domain::message::StoredPlace;
use domain::operation::route::DeadLetter;
use domain::resource::Hub;
use domain::route::{Endpoint, Parcel, Refusal};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use store::ports::{Buried, GivenUp, ReadFrom, StoredMessage, Told};
use tokio::sync::{Semaphore, SemaphorePermit, watch};

use super::Courier;
use crate::Service;
use crate::error::Error;
use crate::tasks::AFTER_FAILURE;

/// Messages that are read and sent at once; with messages of the greatest size these are 16 MiB.
const BATCH_MESSAGES_MAX: usize = 64;
/// Batches that are in memory at once and are not being sent.
const READING_MAX: usize = 16;
/// KiB of messages that are being sent at once, to all endpoints together.
const SENDING_KIB_MAX: usize = 256 << 10;

impl Service {
    /// Sends to the endpoints of all hubs, through `courier`, until the future is dropped.
    pub async fn run_routes(&self, courier: Arc<dyn Courier>) {
        let room = Arc::new(Room::default());
        let mut published = self.published_changes();
        let mut running: HashSet<(HubKey, String)> = HashSet::new();
        let mut workers = FuturesUnordered::new();
        loop {
            published.borrow_and_update();
            let all = self.outside_endpoints().into_iter();
            for (hub, name) in all.filter(|(hub, name)| running.insert((*hub, name.key()))) {
                let (key, worker) = ((hub, name.key()), Worker::new(self, (&courier, &room), hub, name));
                workers.push(async move {
                    worker.run().await;
                    key
                });
            }
            tokio::select! {
                changed = published.changed() => if changed.is_err() { return },
                Some(ended) = workers.next(), if !workers.is_empty() => {
                    running.remove(&ended);
                }
            }
        }
    }
}

impl Service {
    /// The endpoints of all hubs that are not built in.
    fn outside_endpoints(&self) -> Vec<(HubKey, EndpointName)> {
        let resources = self.resources();
        let of_hub = |hub: &Arc<Hub>| {
            let key = hub.key;
            hub.routing.endpoints.iter().map(move |endpoint| (key, endpoint.name.clone())).collect::<Vec<_>>()
        };
        resources.hubs().iter().flat_map(of_hub).collect()
    }
}

/// What a look at the log came to.
enum Round {
    /// The endpoint is no more.
    Gone,
    /// There is nothing to be told.
    Idle,
    /// The endpoint was told of something.
    Told,
    /// The endpoint did not take something; it is given time.
    Refused,
}

/// How much endpoints may have in memory, all together. One that takes its time is charged for its messages alone, so that
/// many of them leave room for the others.
struct Room {
    reading: Semaphore,
    sending: Semaphore,
}

impl Default for Room {
    fn default() -> Self {
        Self { reading: Semaphore::new(READING_MAX), sending: Semaphore::new(SENDING_KIB_MAX) }
    }
}

impl Room {
    /// Room for one batch that is about to be read.
    async fn read(&self) -> SemaphorePermit<'_> {
        self.reading.acquire().await.expect("it is never closed")
    }

    /// Room for `bytes` of messages while they are sent, in place of that for a batch.
    async fn send(&self, reading: SemaphorePermit<'_>, bytes: usize) -> SemaphorePermit<'_> {
        let kib = u32::try_from((bytes / 1_024 + 1).min(SENDING_KIB_MAX)).unwrap_or(u32::MAX);
        let sending = self.sending.acquire_many(kib).await.expect("it is never closed");
        drop(reading);
        sending
    }
}

/// A message that was refused, and how often.
#[derive(Clone, Copy)]
struct Stuck {
    partition: u16,
    sequence: u64,
    attempts: u32,
    /// How often the refusal was about the message itself.
    answered: u32,
}

/// Serves one endpoint.
struct Worker {
    service: Service,
    courier: Arc<dyn Courier>,
    room: Arc<Room>,
    hub: HubKey,
    name: EndpointName,
    /// By partition; empty until it was read from the store.
    told: Vec<Told>,
    /// The changes of resources that were seen. After each, `told` is read again: an endpoint may have been removed and made
    /// anew by the same name.
    seen: u64,
    next_partition: usize,
    /// Messages to send at once: fewer after a refusal, so that the one that is not taken stands alone.
    window: usize,
    /// Refusals in a row.
    failures: u32,
    /// The message that was refused last.
    refused: Option<Stuck>,
    /// Whether something may wait to be sent again.
    may_be_due: bool,
    /// The message kept apart that was refused when it was sent again, and how often in a row.
    replayed: Option<(u64, u32)>,
    /// Whether the log has its turn before what is to be sent again.
    is_turn_of_log: bool,
}

impl Worker {
    fn new(
        service: &Service,
        (courier, room): (&Arc<dyn Courier>, &Arc<Room>),
        hub: HubKey,
        name: EndpointName,
    ) -> Self {
        Self {
            service: service.clone(),
            courier: Arc::clone(courier),
            room: Arc::clone(room),
            hub,
            name,
            told: Vec::new(),
            seen: 0,
            next_partition: 0,
            window: BATCH_MESSAGES_MAX,
            failures: 0,
            refused: None,
            may_be_due: true,
            replayed: None,
            is_turn_of_log: false,
        }
    }

    async fn run(mut self) {
        let mut appended = self.service.0.telemetry.appended(self.hub);
        let mut published = self.service.published_changes();
        let mut wakes = self.service.0.endpoints.wakes();
        loop {
            appended.borrow_and_update();
            let seen = *published.borrow_and_update();
            if std::mem::replace(&mut self.seen, seen) != seen {
                self.told.clear();
            }
            // Somebody may have called while something else was waited for.
            self.may_be_due |= wakes.borrow_and_update().has_changed();
            let Some(under_way) = self.courier.begin() else { return std::future::pending().await };
            let round = self.round().await;
            drop(under_way);
            match round {
                Ok(Round::Gone) => return,
                Ok(Round::Told) => {}
                Ok(Round::Idle) => tokio::select! {
                    changed = appended.changed() => if changed.is_err() { return },
                    changed = published.changed() => if changed.is_err() { return },
                    _ = wakes.changed() => self.may_be_due = true,
                },
                Ok(Round::Refused) => self.pause(&mut published, &mut wakes).await,
                Err(error) => {
                    self.service.fail(error);
                    tokio::time::sleep(AFTER_FAILURE).await;
                }
            }
        }
    }

    /// The hub and the endpoint as they are.
    fn find(&self) -> Option<(Arc<Hub>, Endpoint)> {
        let resources = self.service.resources();
        let hub = resources.hub(self.hub)?;
        let endpoint = hub.routing.endpoint(&self.name)?.clone();
        Some((Arc::clone(hub), endpoint))
    }

    /// Waits longer after each failure, but no longer than until the endpoint is changed or somebody wakes it.
    async fn pause(&mut self, published: &mut watch::Receiver<u64>, wakes: &mut watch::Receiver<u64>) {
        let settings = self.service.0.settings.routes;
        let doubled = settings.pause.saturating_mul(1_u32 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        let longest = doubled.min(settings.pause_max);
        // Between half of it and the whole, so that endpoints of one server are not asked all at once.
        let share = f64::from(u16::from_le_bytes(random(self.service.entropy()))) / f64::from(u16::MAX);
        let mut over = std::pin::pin!(tokio::time::sleep(longest.mul_f64(0.5 + share / 2.0)));
        let before = self.find().map(|(_, endpoint)| endpoint.target);
        loop {
            tokio::select! {
                () = &mut over => return,
                _ = wakes.changed() => {
                    self.may_be_due = true;
                    return;
                }
                changed = published.changed() => {
                    if changed.is_err() || self.find().map(|(_, endpoint)| endpoint.target) != before {
                        return;
                    }
                }
            }
        }
    }

    async fn round(&mut self) -> Result<Round, Error> {
        let Some((hub, endpoint)) = self.find() else { return Ok(Round::Gone) };
        if self.told.is_empty() {
            let begin = self.newest(hub.partitions).await?;
            let Some(told) = self.service.0.store.begin_endpoint(self.hub, &self.name, begin).await? else {
                return Ok(Round::Gone);
            };
            self.told = told;
        }
        // What is sent again goes first, but for once after it was refused: what is not taken is not to hold the log up.
        let is_turn_of_log = std::mem::take(&mut self.is_turn_of_log);
        if !is_turn_of_log {
            let replayed = self.replay(&hub, &endpoint).await?;
            if !matches!(replayed, Round::Idle) {
                return Ok(replayed);
            }
        }
        match self.follow(&hub, &endpoint).await? {
            Round::Idle if is_turn_of_log => self.replay(&hub, &endpoint).await,
            round => Ok(round),
        }
    }

    /// Tells of what the log holds next; the partitions have it by turns.
    async fn follow(&mut self, hub: &Hub, endpoint: &Endpoint) -> Result<Round, Error> {
        let room = Arc::clone(&self.room);
        let reading = room.read().await;
        for _ in 0..self.told.len() {
            let index = self.next_partition;
            self.next_partition = (index + 1) % self.told.len();
            let (Ok(partition), Some(told)) = (u16::try_from(index), self.told.get(index).copied()) else { continue };
            let batch = self.read(partition, told).await?;
            let Some(first) = batch.first() else { continue };
            self.note_gap(partition, told, first.position.sequence).await?;
            let bytes = batch.iter().map(|stored| stored.message.draft.size()).sum();
            let parcels = self.choose(hub, &batch).await?;
            let _sending = room.send(reading, bytes).await;
            let outcome = self.tell(endpoint, partition, &batch, parcels).await?;
            if matches!(outcome, Round::Refused) {
                // The same partition again: what was refused comes first.
                self.next_partition = index;
            }
            return Ok(outcome);
        }
        Ok(Round::Idle)
    }

    async fn newest(&self, partitions: u16) -> Result<Vec<Told>, Error> {
        let mut newest = Vec::with_capacity(usize::from(partitions));
        for partition in 0..partitions {
            let bounds = self.service.0.telemetry.bounds(self.hub, partition).await?;
            newest.push(bounds.map(|(_, newest)| newest.sequence));
        }
        Ok(newest)
    }

    async fn read(&self, partition: u16, told: Told) -> Result<Vec<StoredMessage>, Error> {
        let from = told.map_or(ReadFrom::Start, ReadFrom::AfterSequence);
        Ok(self.service.0.telemetry.read(self.hub, partition, from, self.window).await?)
    }

    /// Counts messages that the log has forgotten before the endpoint took them. Numbers may be missing for other reasons,
    /// but not before the oldest message.
    async fn note_gap(&self, partition: u16, told: Told, first: u64) -> Result<(), Error> {
        let expected = told.map_or(0, |told| told + 1);
        if first <= expected || self.refused.is_some_and(|stuck| stuck.sequence == first) {
            return Ok(());
        }
        let bounds = self.service.0.telemetry.bounds(self.hub, partition).await?;
        if bounds.is_some_and(|(oldest, _)| oldest.sequence == first) {
            let lost = first - expected;
            tracing::warn!(hub = self.hub.0, endpoint = %self.name, lost, "messages went before an endpoint took them");
            self.service.0.endpoints.lost(self.hub, &self.name, lost);
        }
        Ok(())
    }

    /// Those messages of a batch that go to the endpoint.
    async fn choose(&self, hub: &Hub, batch: &[StoredMessage]) -> Result<Vec<Parcel>, Error> {
        let mut parcels = Vec::new();
        for stored in batch {
            let place = place_of(stored);
            if self.service.leads_to(&hub.routing, &self.name, &stored.message, place).await? {
                parcels.push(Parcel { hub: hub.name.clone(), place, message: Arc::clone(&stored.message) });
            }
        }
        Ok(parcels)
    }

    /// Tells the endpoint of `parcels`, which are those messages of a batch that go to it.
    async fn tell(
        &mut self,
        endpoint: &Endpoint,
        partition: u16,
        batch: &[StoredMessage],
        parcels: Vec<Parcel>,
    ) -> Result<Round, Error> {
        let (taken, outcome) =
            if parcels.is_empty() { (0, Ok(())) } else { self.courier.send(endpoint, &parcels).await };
        let was_alone = parcels.len() == 1;
        let left: Vec<u64> = parcels.iter().skip(taken).map(|parcel| parcel.place.sequence).collect();
        drop(parcels);
        if taken > 0 {
            self.service.0.endpoints.succeeded(self.hub, &self.name, self.service.now());
            self.failures = 0;
        }
        // What stands before the first that is left was taken, or does not go there.
        let is_over = |sequence: &u64| left.first().is_none_or(|first| sequence < first);
        let told = batch.iter().map(|stored| stored.position.sequence).take_while(is_over).last();
        if let Some(told) = told {
            self.advance(partition, told).await?;
        }
        match outcome {
            Ok(()) => {
                self.window = (self.window * 2).min(BATCH_MESSAGES_MAX);
                Ok(Round::Told)
            }
            Err(refusal) => {
                let is_left = |stored: &&StoredMessage| left.binary_search(&stored.position.sequence).is_ok();
                let left: Vec<&StoredMessage> = batch.iter().filter(is_left).collect();
                self.settle_refusal(partition, (&left, was_alone), &refusal).await
            }
        }
    }

    async fn advance(&mut self, partition: u16, sequence: u64) -> Result<(), Error> {
        self.service.0.store.advance_endpoint(self.hub, &self.name, partition, sequence).await?;
        if let Some(told) = self.told.get_mut(usize::from(partition)) {
            *told = Some(sequence);
        }
        Ok(())
    }

    /// The first message of `left` was not taken; whether it was sent alone tells whether the refusal is about it.
    async fn settle_refusal(
        &mut self,
        partition: u16,
        (left, was_alone): (&[&StoredMessage], bool),
        refusal: &Refusal,
    ) -> Result<Round, Error> {
        let (now, settings) = (self.service.now(), self.service.0.settings.routes);
        self.service.0.endpoints.failed(self.hub, &self.name, refusal.text(), now);
        tracing::debug!(hub = self.hub.0, endpoint = %self.name, reason = refusal.text(), "an endpoint did not take a message");
        let Some(first) = left.first() else { return Ok(Round::Refused) };
        self.window = 1;
        let stuck = Stuck { partition, sequence: first.position.sequence, attempts: 0, answered: 0 };
        let known = self.refused.filter(|known| (known.partition, known.sequence) == (partition, stuck.sequence));
        let mut stuck = known.unwrap_or(stuck);
        stuck.attempts = stuck.attempts.saturating_add(1);
        stuck.answered = stuck.answered.saturating_add(refusal.is_of_message.into());
        self.refused = Some(stuck);
        let is_old = |stored: &StoredMessage| now.since(stored.enqueued_at) >= settings.age_max;
        let is_hopeless = refusal.is_of_message && was_alone && stuck.answered >= settings.attempts_max;
        let mut given_up = Round::Refused;
        for stored in
            left.iter().take_while(|stored| is_old(stored) || (is_hopeless && stored.position == first.position))
        {
            if !self.give_up(stored, refusal.text(), stuck.attempts).await? {
                return Ok(Round::Refused);
            }
            given_up = Round::Told;
        }
        if is_hopeless {
            // It answers: the next message is not to wait for this one.
            self.failures = 0;
        }
        Ok(given_up)
    }

    /// Keeps a message apart; `false` if there is no room for it, so that it stays where it is.
    async fn give_up(&mut self, stored: &StoredMessage, reason: &str, attempts: u32) -> Result<bool, Error> {
        let (partition, sequence) = (stored.message.partition, stored.position.sequence);
        let given_up = GivenUp { message: stored.clone(), reason: reason.to_owned(), attempts };
        let bounds = (self.service.0.settings.routes.dead_letters_max, self.service.now());
        match self.service.0.store.give_up(self.hub, &self.name, given_up, bounds).await? {
            Buried::Done => {}
            Buried::Full => return Ok(false),
            // What is left of it is removed.
            Buried::NoHub => return Ok(true),
        }
        tracing::warn!(hub = self.hub.0, endpoint = %self.name, partition, sequence, reason, "a message was given up");
        self.service.0.endpoints.gave_up(self.hub, &self.name);
        self.refused = None;
        if let Some(told) = self.told.get_mut(usize::from(partition)) {
            *told = Some(sequence);
        }
        Ok(true)
    }

    /// Sends again what an operator wants to be sent again, one by one; each as often as a message that is not taken.
    async fn replay(&mut self, hub: &Hub, endpoint: &Endpoint) -> Result<Round, Error> {
        if !self.may_be_due {
            return Ok(Round::Idle);
        }
        let room = Arc::clone(&self.room);
        let reading = room.read().await;
        let due = self.service.0.store.dead_letters(self.hub, &self.name, true, 1).await?;
        let Some(DeadLetter { id, place, message, .. }) = due.into_iter().next() else {
            self.may_be_due = false;
            return Ok(Round::Idle);
        };
        let _sending = room.send(reading, message.draft.size()).await;
        let parcel = Parcel { hub: hub.name.clone(), place, message };
        let (_, outcome) = self.courier.send(endpoint, &[parcel]).await;
        let now = self.service.now();
        let Err(refusal) = outcome else {
            self.service.0.endpoints.succeeded(self.hub, &self.name, now);
            self.service.0.store.settle_dead_letter(id, None).await?;
            return Ok(Round::Told);
        };
        self.service.0.endpoints.failed(self.hub, &self.name, refusal.text(), now);
        let before = self.replayed.filter(|(known, _)| *known == id).map_or(0, |(_, attempts)| attempts);
        let attempts = before.saturating_add(1);
        if refusal.is_of_message || attempts >= self.service.0.settings.routes.attempts_max {
            self.replayed = None;
            self.service.0.store.settle_dead_letter(id, Some(refusal.text().to_owned())).await?;
            return Ok(Round::Told);
        }
        self.replayed = Some((id, attempts));
        self.is_turn_of_log = true;
        Ok(Round::Refused)
    }
}

fn place_of(stored: &StoredMessage) -> StoredPlace {
    StoredPlace { sequence: stored.position.sequence, offset: stored.position.offset, enqueued_at: stored.enqueued_at }
}
