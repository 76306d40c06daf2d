//! Readers of telemetry that were let in: which partition each reads, until when, and how to end it.
//!
//! In a consumer group a partition has either one reader with an epoch or a few without. A reader with an epoch displaces
//! whoever has a lower one or none, and the latest of equals stays (`contract/eventhub-endpoint.md 6.4`). Whatever a reader
//! asks is done only while it is entered here. Start at [`Readers::enter`].

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use domain::access::Action;
use domain::clock::UnixTime;
use domain::identity::proof::has_ended;
use domain::ids::HubKey;
use domain::operation::events::{Reader, Seat};
use domain::operation::session::CutOff;
use tokio::sync::watch;

use crate::Snapshot;
use crate::access::Signed;

/// Readers without an epoch that a partition has in a consumer group (`contract/eventhub-endpoint.md 6.4`).
pub const SHARING_MAX: usize = 5;

/// Who was let in at this node.
#[derive(Debug, Default)]
pub struct Readers(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    next: u64,
    entered: HashMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    reader: Reader,
    epoch: Option<i64>,
    signed: Signed,
    /// Whether messages were appended since the reader last looked.
    appended: watch::Receiver<u64>,
    /// Why it was cut off. Gone once it has left.
    ended: watch::Sender<Option<CutOff>>,
}

/// Why a reader was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotEntered {
    /// Another reader holds the partition by this epoch.
    Held(i64),
    /// There are as many readers as may share the partition.
    Crowded,
}

/// What a reader waits for.
pub struct Awaited {
    /// Counts up when messages were appended.
    pub appended: watch::Receiver<u64>,
    /// Why it was cut off. Its sender is gone once the reader has left.
    pub ended: watch::Receiver<Option<CutOff>>,
}

impl Entry {
    /// Whether it reads what `seat` would, for the same group.
    fn is_beside(&self, seat: &Seat) -> bool {
        let here = &self.reader;
        here.hub == seat.hub && here.partition == seat.partition && here.group.eq_ignore_ascii_case(&seat.group)
    }
}

impl Readers {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a reader in, and cuts off whom it displaces. The number in `seat` is given here.
    pub fn enter(
        &self,
        seat: Seat,
        epoch: Option<i64>,
        signed: Signed,
        appended: watch::Receiver<u64>,
    ) -> Result<Reader, NotEntered> {
        let mut state = self.state();
        let beside = state.entered.values().filter(|entry| entry.is_beside(&seat));
        let (mut sharing, mut highest) = (0, None);
        for entry in beside {
            sharing += usize::from(entry.epoch.is_none());
            highest = highest.max(entry.epoch);
        }
        match (highest, epoch) {
            (Some(held), epoch) if epoch.is_none_or(|epoch| epoch < held) => return Err(NotEntered::Held(held)),
            (_, None) if sharing >= SHARING_MAX => return Err(NotEntered::Crowded),
            (_, None) => {}
            (_, Some(_)) => state.cut_where(|entry| entry.is_beside(&seat).then_some(CutOff::Displaced)),
        }
        let number = state.next;
        state.next += 1;
        let reader = Reader::seat(Seat { number, ..seat });
        let ended = watch::Sender::new(None);
        state.entered.insert(number, Entry { reader: reader.clone(), epoch, signed, appended, ended });
        Ok(reader)
    }

    /// Lets a reader go.
    pub fn leave(&self, reader: &Reader) {
        self.state().entered.remove(&reader.number);
    }

    /// Has it stay as long as a newer signature; says whether it is still here.
    pub fn renew(&self, reader: &Reader, signed: Signed) -> bool {
        let mut state = self.state();
        let found = state.entered.get_mut(&reader.number);
        found.map(|entry| entry.signed = signed).is_some()
    }

    /// Notes that a reader is about to look, so that what is appended from here on is news to it. `false` if it is gone.
    pub fn look(&self, reader: &Reader) -> bool {
        let mut state = self.state();
        let found = state.entered.get_mut(&reader.number);
        found.map(|entry| entry.appended.mark_unchanged()).is_some()
    }

    /// What a reader waits for; `None` if it is gone.
    pub fn awaited(&self, reader: &Reader) -> Option<Awaited> {
        let state = self.state();
        let entry = state.entered.get(&reader.number)?;
        Some(Awaited { appended: entry.appended.clone(), ended: entry.ended.subscribe() })
    }

    /// Ends what a hub that is gone let in.
    pub fn forget_hub(&self, hub: HubKey) {
        self.state().cut_where(|entry| (entry.reader.hub == hub).then_some(CutOff::HubDeleted));
    }

    /// Ends what was let in by signatures that have run out.
    pub fn expire(&self, now: UnixTime) {
        self.state().cut_where(|entry| has_ended(entry.signed.expires_at, now).then_some(CutOff::TokenExpired));
    }

    /// Ends what a hub would not let in any more.
    pub fn judge(&self, hub: HubKey, resources: &Snapshot) {
        let present = resources.hub(hub);
        self.state().cut_where(|entry| match present {
            _ if entry.reader.hub != hub => None,
            None => Some(CutOff::HubDeleted),
            Some(hub) if hub.find_consumer_group(&entry.reader.group).is_none() => Some(CutOff::Deleted),
            Some(hub) => (!entry.signed.is_upheld(&hub.policies, Action::ReadTelemetry)).then_some(CutOff::Rekeyed),
        });
    }
}

impl State {
    /// Ends every reader for which `doomed` gives a reason.
    fn cut_where(&mut self, doomed: impl Fn(&Entry) -> Option<CutOff>) {
        self.entered.retain(|_, entry| {
            let Some(reason) = doomed(entry) else { return true };
            let Seat { name, group, partition, .. } = &*entry.reader;
            tracing::info!(name, group, partition, ?reason, "a reader of telemetry was cut off");
            entry.ended.send_replace(Some(reason));
            false
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seat(partition: u16, group: &str) -> Seat {
        Seat { number: 0, hub: HubKey(1), name: "hub".to_owned(), group: group.to_owned(), partition, tracks: false }
    }

    fn enter(readers: &Readers, seat: Seat, epoch: Option<i64>) -> Result<Reader, NotEntered> {
        let signed = Signed { key: [0; 32], expires_at: UnixTime::from_seconds(9) };
        readers.enter(seat, epoch, signed, watch::Sender::new(0).subscribe())
    }

    fn is_here(readers: &Readers, reader: &Reader) -> bool {
        readers.look(reader)
    }

    #[test]
    fn the_highest_epoch_holds_a_partition_and_the_latest_of_equals_stays() {
        let readers = Readers::default();
        let plain = enter(&readers, seat(0, "$Default"), None).unwrap();
        let first = enter(&readers, seat(0, "$default"), Some(1)).unwrap();
        assert!(!is_here(&readers, &plain), "whoever shares gives way");
        assert_eq!(enter(&readers, seat(0, "$Default"), None), Err(NotEntered::Held(1)));
        assert_eq!(enter(&readers, seat(0, "$Default"), Some(0)), Err(NotEntered::Held(1)));
        let again = enter(&readers, seat(0, "$Default"), Some(1)).unwrap();
        assert!(!is_here(&readers, &first) && is_here(&readers, &again));
        let ended = readers.awaited(&again).unwrap().ended;
        enter(&readers, seat(0, "$Default"), Some(7)).unwrap();
        assert_eq!(*ended.borrow(), Some(CutOff::Displaced));
    }

    #[test]
    fn partitions_and_groups_have_readers_of_their_own() {
        let readers = Readers::default();
        let held = enter(&readers, seat(0, "$Default"), Some(5)).unwrap();
        for other in [seat(1, "$Default"), seat(0, "audit")] {
            enter(&readers, other, None).unwrap();
        }
        assert!(is_here(&readers, &held));
    }

    #[test]
    fn a_few_may_share_and_whoever_leaves_makes_room() {
        let readers = Readers::default();
        let sharing: Vec<Reader> =
            (0..SHARING_MAX).map(|_| enter(&readers, seat(0, "$Default"), None).unwrap()).collect();
        assert_eq!(enter(&readers, seat(0, "$Default"), None), Err(NotEntered::Crowded));
        readers.leave(&sharing[0]);
        enter(&readers, seat(0, "$Default"), None).unwrap();
    }

    #[test]
    fn a_reader_ends_with_its_signature_or_its_hub() {
        let readers = Readers::default();
        let reader = enter(&readers, seat(0, "$Default"), None).unwrap();
        readers.expire(UnixTime::from_seconds(8));
        assert!(is_here(&readers, &reader));
        let later = Signed { key: [0; 32], expires_at: UnixTime::from_seconds(99) };
        assert!(readers.renew(&reader, later));
        readers.expire(UnixTime::from_seconds(50));
        assert!(is_here(&readers, &reader));
        readers.expire(UnixTime::from_seconds(100));
        assert!(!is_here(&readers, &reader) && !readers.renew(&reader, later));

        let reader = enter(&readers, seat(0, "$Default"), None).unwrap();
        let ended = readers.awaited(&reader).unwrap().ended;
        readers.forget_hub(HubKey(1));
        assert_eq!(*ended.borrow(), Some(CutOff::HubDeleted));
    }
}
