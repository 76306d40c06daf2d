//! Budgets per peer address, for what costs this server something that the peer need not have proved anything for:
//! handshakes, failed proofs, log lines.
//!
//! A budget is a fixed table, so that no number of addresses makes it grow: addresses that fall into one slot share its
//! budget, and a random seed keeps anybody from choosing whom to share with. It must never hold back what a connection
//! that was let in asks for; whoever takes from a budget sees to that. Start reading at [`AddressBudget`].

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Slots in the table: 12 bytes each.
const SLOTS: usize = 16_384;

/// Bytes of an IPv6 address that name one customer network (RFC 6177: a /56 or shorter goes to an end site, a /64 is the
/// least).
const IPV6_PREFIX_BYTES: usize = 8;

/// How much one address may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetSettings {
    /// Uses per minute, in the long run. Zero turns the budget off.
    pub per_minute: u32,
    /// Uses at once, after a quiet while.
    pub burst: u32,
    /// Uses under way at the same time.
    pub concurrent: u32,
    /// Whether peers on loopback are held to the budget too. They can exhaust the machine by other means, and whole
    /// simulated fleets share one address.
    pub includes_loopback: bool,
}

impl Default for BudgetSettings {
    /// Room for a few thousand devices behind one address that all reconnect after a restart.
    fn default() -> Self {
        Self { per_minute: 30_000, burst: 5_000, concurrent: 512, includes_loopback: false }
    }
}

/// A rate and a concurrency limit per peer address.
#[derive(Debug)]
pub struct AddressBudget {
    settings: BudgetSettings,
    seed: RandomState,
    started_at: Instant,
    slots: Box<[Slot]>,
}

#[derive(Debug, Default)]
struct Slot {
    /// When the bucket will be full again, in nanoseconds since the budget was made (the "theoretical arrival time" of
    /// the generic cell rate algorithm, ITU-T I.371).
    full_again_ns: AtomicU64,
    under_way: AtomicU32,
}

/// Permission for one use; the use counts as under way until it is dropped.
#[derive(Debug)]
pub struct Use(Option<(Arc<AddressBudget>, usize)>);

impl AddressBudget {
    /// A full budget for every address.
    pub fn new(settings: BudgetSettings, now: Instant) -> Arc<Self> {
        let slots = std::iter::repeat_with(Slot::default).take(SLOTS).collect();
        Arc::new(Self { settings, seed: RandomState::new(), started_at: now, slots })
    }

    /// Takes one use for `peer`; `None` if its budget is spent.
    pub fn take(self: &Arc<Self>, peer: IpAddr, now: Instant) -> Option<Use> {
        let Some((index, slot)) = self.slot(peer) else { return Some(Use(None)) };
        if slot.under_way.fetch_add(1, Ordering::Relaxed) >= self.settings.concurrent {
            slot.under_way.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let permitted = Use(Some((Arc::clone(self), index)));
        self.spend(slot, now).then_some(permitted)
    }

    /// Whether `peer` has used up its budget; takes nothing.
    pub fn is_spent(&self, peer: IpAddr, now: Instant) -> bool {
        let Some((_, slot)) = self.slot(peer) else { return false };
        let (one, whole) = self.costs();
        let next = slot.full_again_ns.load(Ordering::Relaxed).max(self.nanoseconds(now)).saturating_add(one);
        next.saturating_sub(self.nanoseconds(now)) > whole
    }

    /// Takes one use for `peer` that nothing is under way for; `false` if its budget is spent.
    pub fn spend_one(&self, peer: IpAddr, now: Instant) -> bool {
        self.slot(peer).is_none_or(|(_, slot)| self.spend(slot, now))
    }

    /// Where `peer` is counted; `None` if it is held to no budget.
    fn slot(&self, peer: IpAddr) -> Option<(usize, &Slot)> {
        let peer = peer.to_canonical();
        if self.settings.per_minute == 0 || (peer.is_loopback() && !self.settings.includes_loopback) {
            return None;
        }
        let index = self.slot_of(peer);
        self.slots.get(index).map(|slot| (index, slot))
    }

    /// Nanoseconds in which one use and the whole burst come back.
    fn costs(&self) -> (u64, u64) {
        let one = Duration::from_mins(1).as_nanos() as u64 / u64::from(self.settings.per_minute.max(1));
        (one, one.saturating_mul(u64::from(self.settings.burst)))
    }

    fn nanoseconds(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.started_at).as_nanos()).unwrap_or(u64::MAX)
    }

    fn spend(&self, slot: &Slot, now: Instant) -> bool {
        let ((one, whole), now_ns) = (self.costs(), self.nanoseconds(now));
        slot.full_again_ns
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_again| {
                let next = full_again.max(now_ns).saturating_add(one);
                (next.saturating_sub(now_ns) <= whole).then_some(next)
            })
            .is_ok()
    }

    fn slot_of(&self, peer: IpAddr) -> usize {
        let hash = match peer {
            IpAddr::V4(address) => self.seed.hash_one(address.octets()),
            IpAddr::V6(address) => self.seed.hash_one(address.octets().first_chunk::<IPV6_PREFIX_BYTES>()),
        };
        hash as usize % SLOTS
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        if let Some((budget, index)) = &self.0
            && let Some(slot) = budget.slots.get(*index)
        {
            slot.under_way.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: BudgetSettings =
        BudgetSettings { per_minute: 600, burst: 3, concurrent: 2, includes_loopback: false };

    fn address(text: &str) -> IpAddr {
        text.parse().expect("test address")
    }

    #[test]
    fn a_burst_is_spent_and_comes_back_with_time() {
        let start = Instant::now();
        let budget = AddressBudget::new(SETTINGS, start);
        let take = |after_ms| budget.take(address("10.0.0.1"), start + Duration::from_millis(after_ms)).is_some();
        assert_eq!([take(0), take(0), take(0), take(0)], [true, true, true, false]);
        assert_eq!([take(99), take(100), take(100)], [false, true, false]);
        assert_eq!([take(10_000), take(10_000), take(10_000), take(10_000)], [true, true, true, false]);
    }

    #[test]
    fn a_look_at_a_budget_takes_nothing_from_it() {
        let now = Instant::now();
        let (budget, peer) = (AddressBudget::new(SETTINGS, now), address("10.0.0.1"));
        for _ in 0..SETTINGS.burst {
            assert!(!budget.is_spent(peer, now) && !budget.is_spent(peer, now));
            assert!(budget.spend_one(peer, now));
        }
        assert!(budget.is_spent(peer, now) && !budget.spend_one(peer, now));
        assert!(!budget.is_spent(address("10.0.0.2"), now) && !budget.is_spent(address("127.0.0.1"), now));
        assert!(!budget.is_spent(peer, now + Duration::from_millis(100)));
    }

    #[test]
    fn uses_under_way_are_bounded_and_given_back() {
        let now = Instant::now();
        let budget = AddressBudget::new(BudgetSettings { burst: 100, ..SETTINGS }, now);
        let first = budget.take(address("10.0.0.1"), now);
        let second = budget.take(address("10.0.0.1"), now);
        assert!(first.is_some() && second.is_some());
        assert!(budget.take(address("10.0.0.1"), now).is_none());
        drop(first);
        assert!(budget.take(address("10.0.0.1"), now).is_some());
    }

    #[test]
    fn one_ipv6_network_shares_a_budget_and_loopback_has_none() {
        let now = Instant::now();
        let budget = AddressBudget::new(BudgetSettings { burst: 1, ..SETTINGS }, now);
        assert!(budget.take(address("2001:db8::1"), now).is_some());
        assert!(budget.take(address("2001:db8::2"), now).is_none());
        for _ in 0..10 {
            assert!(budget.take(address("127.0.0.1"), now).is_some());
            assert!(budget.take(address("::ffff:127.0.0.9"), now).is_some());
        }
        let strict = AddressBudget::new(BudgetSettings { burst: 1, includes_loopback: true, ..SETTINGS }, now);
        assert!(strict.take(address("127.0.0.1"), now).is_some());
        assert!(strict.take(address("127.0.0.1"), now).is_none());
    }

    #[test]
    fn a_rate_of_zero_turns_the_budget_off() {
        let now = Instant::now();
        let budget = AddressBudget::new(BudgetSettings { per_minute: 0, burst: 0, ..SETTINGS }, now);
        assert!((0..10).all(|_| budget.take(address("10.0.0.1"), now).is_some()));
    }
}
