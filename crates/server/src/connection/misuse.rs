//! What the log says of clients that break the rules: the reason, in a bounded number of lines for each address.
//!
//! It must never log what a client sent but for names that are cut and escaped. Start at [`MisuseLog::ended`].

use std::net::IpAddr;

use dialect::session::CloseReason;

use crate::log_budget::LogBudget;

/// Logs misuse of one protocol.
pub(super) struct MisuseLog {
    protocol: &'static str,
    budget: LogBudget,
}

impl MisuseLog {
    pub(super) fn new(protocol: &'static str) -> Self {
        Self { protocol, budget: LogBudget::new() }
    }

    /// Says why a connection ended: openly if the client is to blame.
    pub(super) fn ended(&self, peer: IpAddr, reason: &CloseReason) {
        let protocol = self.protocol;
        if reason.is_misuse()
            && let Some(left_out) = self.budget.line(peer)
        {
            tracing::info!(%peer, %reason, left_out, "{protocol} connection refused or misused");
        } else {
            tracing::debug!(%peer, %reason, "{protocol} connection ended");
        }
    }

    /// Says by what a client lost a session or a link, while its connection stays.
    pub(super) fn broken(&self, peer: IpAddr, reason: &str) {
        let protocol = self.protocol;
        if let Some(left_out) = self.budget.line(peer) {
            tracing::info!(%peer, %reason, left_out, "{protocol} session or link misused");
        } else {
            tracing::debug!(%peer, %reason, "{protocol} session or link misused");
        }
    }

    /// Says which subscription or link was refused.
    pub(super) fn refused(&self, peer: IpAddr, name: &str) {
        let protocol = self.protocol;
        if let Some(left_out) = self.budget.line(peer) {
            tracing::info!(%peer, name, left_out, "{protocol} subscription or link refused");
        } else {
            tracing::debug!(%peer, name, "{protocol} subscription or link refused");
        }
    }
}
