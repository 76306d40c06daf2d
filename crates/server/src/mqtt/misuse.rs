//! What the log says of clients that break the rules: the reason, in a bounded number of lines for each address.
//!
//! It must never log what a client sent but for names that are cut and escaped. Start at [`MisuseLog::ended`].

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use dialect::session::CloseReason;

use crate::tls::budget::{AddressBudget, BudgetSettings};

/// Lines a minute for one address; what comes on top is counted, and said at the level of debugging.
const LINES_PER_MINUTE: u32 = 60;

/// Logs misuse.
pub(super) struct MisuseLog {
    budget: Arc<AddressBudget>,
    left_out: AtomicU64,
}

impl MisuseLog {
    pub(super) fn new(now: Instant) -> Self {
        let budget = BudgetSettings {
            per_minute: LINES_PER_MINUTE,
            burst: LINES_PER_MINUTE,
            concurrent: u32::MAX,
            includes_loopback: true,
        };
        Self { budget: AddressBudget::new(budget, now), left_out: AtomicU64::new(0) }
    }

    /// Says why a connection ended: openly if the client is to blame.
    pub(super) fn ended(&self, peer: IpAddr, reason: &CloseReason) {
        if reason.is_misuse()
            && let Some(left_out) = self.line(peer, Instant::now())
        {
            tracing::info!(%peer, %reason, left_out, "MQTT connection refused or misused");
        } else {
            tracing::debug!(%peer, %reason, "MQTT connection ended");
        }
    }

    /// Says which subscription was refused.
    pub(super) fn refused_filter(&self, peer: IpAddr, filter: &str) {
        if let Some(left_out) = self.line(peer, Instant::now()) {
            tracing::info!(%peer, filter, left_out, "MQTT subscription refused");
        } else {
            tracing::debug!(%peer, filter, "MQTT subscription refused");
        }
    }

    /// Takes a line for `peer`, if it has one left, and tells how many of all addresses were left out before.
    fn line(&self, peer: IpAddr, now: Instant) -> Option<u64> {
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
        let now = Instant::now();
        let log = MisuseLog::new(now);
        let (noisy, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([127, 0, 0, 1]));
        let lines = (0..LINES_PER_MINUTE + 40).filter(|_| log.line(noisy, now).is_some()).count();
        assert_eq!(lines, LINES_PER_MINUTE as usize);
        assert_eq!((log.line(other, now), log.line(other, now)), (Some(40), Some(0)));
    }
}
