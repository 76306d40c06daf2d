//! Who is connected: for each identity the one live connection, and how to reach or end it.
//!
//! The directory is a local map. The claim "this connection owns this identity" is the store's epoch; the map only
//! tells the node which of its own connections to wake.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use domain::clock::UnixTime;
use domain::identity::UsedCredential;
use domain::ids::{HubKey, MethodRequestId};
use domain::method::{CALLS_PER_IDENTITY_MAX, Request, Waiter};
use domain::operation::Push;
use domain::operation::identity::IdentityName;
use domain::operation::session::{ConnectedDevice, CutOff, Filter, Seat, Subscriptions};
use store::ports::ActivityMark;

use crate::calls::{self, Outcome, Pending, Told, Untaken, Untold};
use crate::mailbox::{Mailbox, Slot, mailbox};

/// Maps are split so that connecting devices seldom wait for each other.
const SHARDS: usize = 64;

/// Who is connected to this node.
#[derive(Debug)]
pub struct Directory {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    /// When connections were last heard that have ended since [`Directory::take_heard`].
    departed: Mutex<Vec<ActivityMark>>,
    /// When identities without a connection were last heard since [`Directory::take_heard`].
    unseated: Mutex<HashMap<Key, UnixTime>>,
    /// Whether calls are refused, because the server is about to stop.
    is_stopping: AtomicBool,
}

/// An identity at its hub.
pub type Key = (HubKey, IdentityName);

/// What one lock guards: what concerns some of the identities.
#[derive(Debug, Default)]
struct Shard {
    /// Hub by hub: so that a connection is found by what is at hand, without a copy of its name. There is no map of a hub
    /// without connections.
    connections: HashMap<HubKey, HashMap<IdentityName, Entry>>,
    /// Calls of methods that wait for their identity to listen, in the order asked. There is no list without calls.
    untold: HashMap<Key, VecDeque<Untold>>,
}

impl Shard {
    fn entry(&self, hub: HubKey, name: &IdentityName) -> Option<&Entry> {
        self.connections.get(&hub)?.get(name)
    }

    /// The entry of an identity, if it is still that of `epoch`.
    fn entry_of(&mut self, (hub, name): (HubKey, &IdentityName), epoch: u64) -> Option<&mut Entry> {
        self.connections.get_mut(&hub)?.get_mut(name).filter(|entry| entry.present.epoch == epoch)
    }

    /// Takes the entry of an identity out, if it is still that of `epoch`.
    fn remove(&mut self, (hub, name): (HubKey, &IdentityName), epoch: u64) -> Option<Entry> {
        let at_hub = self.connections.get_mut(&hub)?;
        at_hub.get(name).filter(|entry| entry.present.epoch == epoch)?;
        let removed = at_hub.remove(name);
        if at_hub.is_empty() {
            self.connections.remove(&hub);
        }
        removed
    }
}

/// A live connection.
#[derive(Debug)]
struct Entry {
    slot: Slot,
    /// The other end, until the connection's driver fetches it.
    waiting: Option<Mailbox>,
    present: Present,
    /// When it was last heard, since [`Directory::take_heard`].
    heard_at: Option<UnixTime>,
    /// Whether it listens for methods.
    takes_calls: bool,
    /// The calls it was told and has not answered. Their callers hear of its end by their being dropped.
    told: Vec<Told>,
}

/// What a live connection has shown.
#[derive(Clone, Debug)]
pub struct Present {
    /// The store's claim.
    pub epoch: u64,
    /// The identity's generation at the time it was let in.
    pub generation: Box<str>,
    /// What it proved itself with.
    pub credential: UsedCredential,
    /// When that proof runs out.
    pub expires_at: Option<UnixTime>,
}

impl Entry {
    /// Tells the device of `call`.
    fn tell(&mut self, call: Untold) {
        let (request, told) = call.told();
        self.told.push(told);
        self.slot.push(Push::Method(request));
    }
}

impl Default for Directory {
    fn default() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self {
            shards,
            hasher: RandomState::new(),
            departed: Mutex::default(),
            unseated: Mutex::default(),
            is_stopping: AtomicBool::new(false),
        }
    }
}

impl Directory {
    fn shard(&self, hub: HubKey, name: &IdentityName) -> MutexGuard<'_, Shard> {
        let index = usize::try_from(self.hasher.hash_one((hub, name)) % SHARDS as u64).unwrap_or(0);
        let shard = self.shards.get(index).expect("the index is below the number of shards");
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a connection and cuts off the one it displaces. A connection that a later claim has overtaken is cut off
    /// itself.
    pub fn enter(&self, seat: &Seat, credential: UsedCredential, expires_at: Option<UnixTime>) -> Mailbox {
        let (slot, mailbox) = mailbox();
        let present = Present { epoch: seat.epoch, generation: seat.generation.clone(), credential, expires_at };
        let entry =
            Entry { slot: slot.clone(), waiting: None, present, heard_at: None, takes_calls: false, told: Vec::new() };
        let mut shard = self.shard(seat.hub, &seat.name);
        match shard.entry(seat.hub, &seat.name) {
            Some(newer) if newer.present.epoch > seat.epoch => slot.cut(CutOff::Displaced),
            _ => {
                if let Some(displaced) = shard.connections.entry(seat.hub).or_default().insert(seat.name.clone(), entry)
                {
                    displaced.slot.cut(CutOff::Displaced);
                }
            }
        }
        mailbox
    }

    /// Keeps a mailbox until the connection's driver fetches it.
    pub fn keep_mailbox(&self, device: &ConnectedDevice, mailbox: Mailbox) {
        let mut shard = self.shard(device.hub, &device.name);
        if let Some(entry) = shard.entry_of((device.hub, &device.name), device.epoch) {
            entry.waiting = Some(mailbox);
        }
    }

    /// Hands out the mailbox of a connection, once; `None` if another connection has taken over.
    pub fn take_mailbox(&self, device: &ConnectedDevice) -> Option<Mailbox> {
        let mut shard = self.shard(device.hub, &device.name);
        shard.entry_of((device.hub, &device.name), device.epoch)?.waiting.take()
    }

    /// Who is connected to a hub.
    pub fn names_at(&self, hub: HubKey) -> Vec<IdentityName> {
        let mut names = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            names.extend(shard.connections.get(&hub).into_iter().flat_map(HashMap::keys).cloned());
        }
        names
    }

    /// Removes a connection that has ended, unless another has taken its place.
    pub fn leave(&self, seat: &Seat) {
        let left = self.shard(seat.hub, &seat.name).remove((seat.hub, &seat.name), seat.epoch);
        if let Some(at) = left.and_then(|entry| entry.heard_at) {
            let mark = ActivityMark { hub: seat.hub, name: seat.name.clone(), at };
            self.departed.lock().unwrap_or_else(PoisonError::into_inner).push(mark);
        }
    }

    /// Has a connection last as long as a newer proof; says whether it is still the one of `seat`.
    pub fn renew(&self, seat: &Seat, credential: UsedCredential, expires_at: UnixTime) -> bool {
        let mut shard = self.shard(seat.hub, &seat.name);
        let Some(entry) = shard.entry_of((seat.hub, &seat.name), seat.epoch) else { return false };
        (entry.present.credential, entry.present.expires_at) = (credential, Some(expires_at));
        true
    }

    /// Notes that a connection was heard.
    pub fn hear(&self, seat: &Seat, now: UnixTime) {
        if let Some(entry) = self.shard(seat.hub, &seat.name).entry_of((seat.hub, &seat.name), seat.epoch) {
            entry.heard_at = Some(now);
        }
    }

    /// Notes that an identity was heard over no connection of its own.
    pub fn hear_unseated(&self, seat: &Seat, now: UnixTime) {
        let mut unseated = self.unseated.lock().unwrap_or_else(PoisonError::into_inner);
        unseated.insert((seat.hub, seat.name.clone()), now);
    }

    /// When each identity was last heard that was heard since this was last asked.
    pub fn take_heard(&self) -> Vec<ActivityMark> {
        let mut marks = std::mem::take(&mut *self.departed.lock().unwrap_or_else(PoisonError::into_inner));
        let unseated = std::mem::take(&mut *self.unseated.lock().unwrap_or_else(PoisonError::into_inner));
        marks.extend(unseated.into_iter().map(|((hub, name), at)| ActivityMark { hub, name, at }));
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            for (&hub, at_hub) in &mut shard.connections {
                marks.extend(at_hub.iter_mut().filter_map(|(name, entry)| {
                    let at = entry.heard_at.take()?;
                    Some(ActivityMark { hub, name: name.clone(), at })
                }));
            }
        }
        marks
    }

    /// Tells a device something, if it is connected here.
    pub fn push(&self, hub: HubKey, name: &IdentityName, push: Push) {
        if let Some(entry) = self.shard(hub, name).entry(hub, name) {
            entry.slot.push(push);
        }
    }

    /// The connection of an identity, if there is one here.
    pub fn find(&self, hub: HubKey, name: &IdentityName) -> Option<Present> {
        self.shard(hub, name).entry(hub, name).map(|entry| entry.present.clone())
    }

    /// Ends the connection of an identity if it is still the one of `epoch`; the entry is gone at once, so that nothing
    /// is pushed to it any more.
    pub fn cut(&self, hub: HubKey, name: &IdentityName, epoch: u64, reason: CutOff) {
        if let Some(entry) = self.shard(hub, name).remove((hub, name), epoch) {
            entry.slot.cut(reason);
        }
    }

    /// Ends every connection for which `doomed` gives a reason; used when a hub is gone, or a proof has run out.
    pub fn cut_where(&self, doomed: impl Fn(HubKey, &IdentityName, &Present) -> Option<CutOff>) {
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.connections.retain(|hub, at_hub| {
                at_hub.retain(|name, entry| match doomed(*hub, name, &entry.present) {
                    Some(reason) => {
                        entry.slot.cut(reason);
                        false
                    }
                    None => true,
                });
                !at_hub.is_empty()
            });
        }
    }

    /// Notes what a connection has subscribed to. Calls that waited for it to listen are told it at once.
    pub fn subscribe(&self, seat: &Seat, subscriptions: Subscriptions) {
        let mut shard = self.shard(seat.hub, &seat.name);
        let Shard { connections, untold } = &mut *shard;
        let entry = connections.get_mut(&seat.hub).and_then(|at_hub| at_hub.get_mut(&seat.name));
        let Some(entry) = entry.filter(|entry| entry.present.epoch == seat.epoch) else { return };
        entry.takes_calls = subscriptions.granted(Filter::Methods).is_some();
        if entry.takes_calls && !untold.is_empty() {
            for call in untold.remove(&(seat.hub, seat.name.clone())).into_iter().flatten() {
                entry.tell(call);
            }
        }
    }

    /// Tells a device of a call, at once or as soon as it listens, unless too many of it are under way.
    pub fn call(&self, key: Key, waiter: Waiter, request: Request) -> Result<Pending<'_>, Untaken> {
        let (hub, name) = &key;
        let mut shard = self.shard(*hub, name);
        // Read under the lock, so that a call is either refused here or ended by `stop_calls`.
        if self.is_stopping.load(Ordering::SeqCst) {
            return Err(Untaken::Stopping);
        }
        let Shard { connections, untold } = &mut *shard;
        let entry = connections.get_mut(hub).and_then(|at_hub| at_hub.get_mut(name));
        let under_way = entry.as_ref().map_or(0, |entry| entry.told.len()) + untold.get(&key).map_or(0, VecDeque::len);
        if under_way >= CALLS_PER_IDENTITY_MAX {
            return Err(Untaken::Crowded);
        }
        let (call, pending) = calls::call(self, key.clone(), waiter, request);
        match entry {
            Some(entry) if entry.takes_calls => entry.tell(call),
            _ => untold.entry(key).or_default().push_back(call),
        }
        drop(shard);
        Ok(pending)
    }

    /// Hands a caller what a device answered. What comes late, twice, or from another connection than the one that was
    /// told, is dropped.
    pub fn answer_call(&self, seat: &Seat, id: MethodRequestId, outcome: Outcome) {
        let mut shard = self.shard(seat.hub, &seat.name);
        let Some(entry) = shard.entry_of((seat.hub, &seat.name), seat.epoch) else { return };
        if let Some(index) = entry.told.iter().position(|call| call.is(id)) {
            entry.told.remove(index).answer(outcome);
        }
    }

    /// Frees what a call holds whose caller has gone.
    pub fn forget_call(&self, key: &Key, id: MethodRequestId) {
        let (hub, name) = key;
        let mut shard = self.shard(*hub, name);
        let Shard { connections, untold } = &mut *shard;
        if let Some(entry) = connections.get_mut(hub).and_then(|at_hub| at_hub.get_mut(name)) {
            entry.told.retain(|call| !call.is(id));
        }
        if let Some(waiting) = untold.get_mut(key) {
            waiting.retain(|call| call.request.id != id);
            if waiting.is_empty() {
                untold.remove(key);
            }
        }
    }

    /// Refuses calls from here on, and ends those of which no device was told.
    pub fn stop_calls(&self) {
        self.is_stopping.store(true, Ordering::SeqCst);
        for shard in &self.shards {
            shard.lock().unwrap_or_else(PoisonError::into_inner).untold.clear();
        }
    }

    #[cfg(test)]
    fn connected(&self) -> usize {
        let connected = |shard: &Shard| shard.connections.values().map(HashMap::len).sum::<usize>();
        self.shards.iter().map(|shard| connected(&shard.lock().unwrap_or_else(PoisonError::into_inner))).sum()
    }
}

#[cfg(test)]
mod tests {
    use domain::ids::DeviceId;
    use domain::operation::session::AuthenticationMethod;

    use super::*;

    fn seat(epoch: u64) -> Seat {
        Seat {
            hub: HubKey(1),
            name: IdentityName::device(DeviceId::parse("dev-1").unwrap()),
            generation: "1".into(),
            epoch,
            authentication: AuthenticationMethod::X509,
            model_id: None,
        }
    }

    fn enter(directory: &Directory, epoch: u64) -> Mailbox {
        directory.enter(&seat(epoch), UsedCredential::DeviceKey([0; 32]), None)
    }

    #[test]
    fn the_newest_claim_owns_the_identity_whatever_the_order_of_arrival() {
        let directory = Directory::default();
        let first = enter(&directory, 1);
        let third = enter(&directory, 3);
        let late = enter(&directory, 2);
        assert!(matches!(first.try_next(), Some(Push::CutOff(CutOff::Displaced))));
        assert!(matches!(late.try_next(), Some(Push::CutOff(CutOff::Displaced))));
        assert!(third.try_next().is_none());
        directory.leave(&seat(2));
        assert_eq!(directory.connected(), 1);
        directory.leave(&seat(3));
        assert_eq!(directory.connected(), 0);
    }

    #[test]
    fn a_newer_proof_counts_for_the_connection_it_was_shown_on() {
        let directory = Directory::default();
        let _mailbox = enter(&directory, 2);
        let renew =
            |epoch, key| directory.renew(&seat(epoch), UsedCredential::DeviceKey([key; 32]), UnixTime::from_seconds(9));
        assert!(!renew(1, 7), "an earlier connection");
        assert!(renew(2, 8));
        let entry = directory.find(HubKey(1), &seat(2).name).unwrap();
        assert_eq!(entry.credential, UsedCredential::DeviceKey([8; 32]));
        assert_eq!(entry.expires_at, Some(UnixTime::from_seconds(9)));
    }

    #[test]
    fn what_was_heard_is_told_once_also_of_connections_that_have_ended() {
        let directory = Directory::default();
        let at = |second: i64| UnixTime::from_micros(second * 1_000_000);
        let told = || directory.take_heard().into_iter().map(|mark| mark.at).collect::<Vec<_>>();
        let _first = enter(&directory, 1);
        assert_eq!(told(), []);
        directory.hear(&seat(1), at(1));
        directory.hear(&seat(1), at(2));
        assert_eq!((told(), told()), (vec![at(2)], vec![]));
        directory.hear(&seat(1), at(3));
        directory.leave(&seat(1));
        assert_eq!((told(), told()), (vec![at(3)], vec![]));

        let _second = enter(&directory, 2);
        directory.hear(&seat(1), at(4));
        assert_eq!(told(), [], "an earlier connection");
    }

    #[test]
    fn a_cut_concerns_only_the_connection_that_was_judged() {
        let directory = Directory::default();
        let mailbox = enter(&directory, 5);
        directory.cut(HubKey(1), &seat(5).name, 4, CutOff::Disabled);
        assert!(mailbox.try_next().is_none());
        directory.cut_where(|hub, _, _| (hub == HubKey(1)).then_some(CutOff::HubDeleted));
        assert!(matches!(mailbox.try_next(), Some(Push::CutOff(CutOff::HubDeleted))));
        assert!(directory.find(HubKey(1), &seat(5).name).is_none());
    }
}
