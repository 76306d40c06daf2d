//! Who is connected: for each identity the one live connection, and how to reach or end it.
//!
//! The directory is a local map. The claim "this connection owns this identity" is the store's epoch; the map only
//! tells the node which of its own connections to wake.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::clock::UnixTime;
use domain::identity::UsedCredential;
use domain::ids::HubKey;
use domain::operation::Push;
use domain::operation::identity::IdentityName;
use domain::operation::session::{ConnectedDevice, CutOff, Seat};
use store::ports::ActivityMark;

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
}

/// The connections of some identities, hub by hub: so that one is found by what is at hand, without a copy of its name.
/// There is no map of a hub without connections.
#[derive(Debug, Default)]
struct Shard(HashMap<HubKey, HashMap<IdentityName, Entry>>);

impl Shard {
    fn entry(&self, hub: HubKey, name: &IdentityName) -> Option<&Entry> {
        self.0.get(&hub)?.get(name)
    }

    /// The entry of an identity, if it is still that of `epoch`.
    fn entry_of(&mut self, (hub, name): (HubKey, &IdentityName), epoch: u64) -> Option<&mut Entry> {
        self.0.get_mut(&hub)?.get_mut(name).filter(|entry| entry.epoch == epoch)
    }

    /// Takes the entry of an identity out, if it is still that of `epoch`.
    fn remove(&mut self, (hub, name): (HubKey, &IdentityName), epoch: u64) -> Option<Entry> {
        let at_hub = self.0.get_mut(&hub)?;
        at_hub.get(name).filter(|entry| entry.epoch == epoch)?;
        let removed = at_hub.remove(name);
        if at_hub.is_empty() {
            self.0.remove(&hub);
        }
        removed
    }
}

/// A live connection.
#[derive(Clone, Debug)]
pub struct Entry {
    slot: Slot,
    /// The other end, until the connection's driver fetches it.
    waiting: Option<Arc<Mailbox>>,
    /// The store's claim.
    pub epoch: u64,
    /// The identity's generation at the time it was let in.
    pub generation: Box<str>,
    /// What it proved itself with.
    pub credential: UsedCredential,
    /// When that proof runs out.
    pub expires_at: Option<UnixTime>,
    /// When it was last heard, since [`Directory::take_heard`].
    heard_at: Option<UnixTime>,
}

impl Default for Directory {
    fn default() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, hasher: RandomState::new(), departed: Mutex::default() }
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
        let entry = Entry {
            slot: slot.clone(),
            waiting: None,
            epoch: seat.epoch,
            generation: seat.generation.clone(),
            credential,
            expires_at,
            heard_at: None,
        };
        let mut shard = self.shard(seat.hub, &seat.name);
        match shard.entry(seat.hub, &seat.name) {
            Some(present) if present.epoch > seat.epoch => slot.cut(CutOff::Displaced),
            _ => {
                if let Some(displaced) = shard.0.entry(seat.hub).or_default().insert(seat.name.clone(), entry) {
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
            entry.waiting = Some(Arc::new(mailbox));
        }
    }

    /// Hands out the mailbox of a connection, once; `None` if another connection has taken over.
    pub fn take_mailbox(&self, device: &ConnectedDevice) -> Option<Mailbox> {
        let mut shard = self.shard(device.hub, &device.name);
        let entry = shard.entry_of((device.hub, &device.name), device.epoch)?;
        Arc::into_inner(entry.waiting.take()?)
    }

    /// Who is connected to a hub.
    pub fn names_at(&self, hub: HubKey) -> Vec<IdentityName> {
        let mut names = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            names.extend(shard.0.get(&hub).into_iter().flat_map(HashMap::keys).cloned());
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

    /// Notes that a connection was heard.
    pub fn hear(&self, seat: &Seat, now: UnixTime) {
        if let Some(entry) = self.shard(seat.hub, &seat.name).entry_of((seat.hub, &seat.name), seat.epoch) {
            entry.heard_at = Some(now);
        }
    }

    /// When each connection was last heard that was heard since this was last asked.
    pub fn take_heard(&self) -> Vec<ActivityMark> {
        let mut marks = std::mem::take(&mut *self.departed.lock().unwrap_or_else(PoisonError::into_inner));
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            for (&hub, at_hub) in &mut shard.0 {
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
    pub fn find(&self, hub: HubKey, name: &IdentityName) -> Option<Entry> {
        self.shard(hub, name).entry(hub, name).cloned()
    }

    /// Ends the connection of an identity if it is still the one of `epoch`; the entry is gone at once, so that nothing
    /// is pushed to it any more.
    pub fn cut(&self, hub: HubKey, name: &IdentityName, epoch: u64, reason: CutOff) {
        if let Some(entry) = self.shard(hub, name).remove((hub, name), epoch) {
            entry.slot.cut(reason);
        }
    }

    /// Ends every connection for which `doomed` gives a reason; used when a hub is gone, or a proof has run out.
    pub fn cut_where(&self, doomed: impl Fn(HubKey, &IdentityName, &Entry) -> Option<CutOff>) {
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.0.retain(|hub, at_hub| {
                at_hub.retain(|name, entry| match doomed(*hub, name, entry) {
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

    #[cfg(test)]
    fn connected(&self) -> usize {
        let connected = |shard: &Shard| shard.0.values().map(HashMap::len).sum::<usize>();
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
