//! A bounded number of log lines for each address, so that nobody can fill the log.
//!
//! It decides only whether there is a line left, never what it says. Start at [`LogBudget::line`].

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::budget::{AddressBudget, BudgetSettings};

/// Lines a minute for one address; what comes on top is counted, and may be said at the level of debugging.
const LINES_PER_MINUTE: u32 = 60;

/// Lines that are left, by address.
pub(crate) struct LogBudget {
    budget: Arc<AddressBudget>,
    left_out: AtomicU64,
}

impl LogBudget {
    /// A full budget for every address.
    pub(crate) fn new() -> Self {
        let budget = BudgetSettings {
            per_minute: LINES_PER_MINUTE,
            burst: LINES_PER_MINUTE,
            concurrent: u32::MAX,
            includes_loopback: true,
        };
        Self { budget: AddressBudget::new(budget, Instant::now()), left_out: AtomicU64::new(0) }
    }

    /// Takes a line for `peer`, if it has one left, and tells how many of all addresses were left out before.
    pub(crate) fn line(&self, peer: IpAddr) -> Option<u64> {
        self.line_at(peer, Instant::now())
    }

    fn line_at(&self, peer: IpAddr, now: Instant) -> Option<u64> {
        if self.budget.spend_one(peer, now) {
            return Some(self.left_out.swap(0, Ordering::Relaxed));
        }
        self.left_out.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_cannot_flood_the_log() {
        let (log, now) = (LogBudget::new(), Instant::now());
        let (noisy, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([127, 0, 0, 1]));
        let lines = (0..LINES_PER_MINUTE + 40).filter(|_| log.line_at(noisy, now).is_some()).count();
        assert_eq!(lines, LINES_PER_MINUTE as usize);
        assert_eq!((log.line_at(other, now), log.line_at(other, now)), (Some(40), Some(0)));
    }
}
