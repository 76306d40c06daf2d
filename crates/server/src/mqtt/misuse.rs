//! What the log says of clients that break the rules: the reason, in a bounded number of lines for each address.
//!
//! It must never log what a client sent but for names that are cut and escaped. Start at [`MisuseLog::ended`].

use std::net::IpAddr;

use dialect::session::CloseReason;

use crate::log_budget::LogBudget;

/// Logs misuse.
pub(super) struct MisuseLog(LogBudget);

impl MisuseLog {
    pub(super) fn new() -> Self {
        Self(LogBudget::new())
    }

    /// Says why a connection ended: openly if the client is to blame.
    pub(super) fn ended(&self, peer: IpAddr, reason: &CloseReason) {
        if reason.is_misuse()
            && let Some(left_out) = self.0.line(peer)
        {
            tracing::info!(%peer, %reason, left_out, "MQTT connection refused or misused");
        } else {
            tracing::debug!(%peer, %reason, "MQTT connection ended");
        }
    }

    /// Says which subscription was refused.
    pub(super) fn refused_filter(&self, peer: IpAddr, filter: &str) {
        if let Some(left_out) = self.0.line(peer) {
            tracing::info!(%peer, filter, left_out, "MQTT subscription refused");
        } else {
            tracing::debug!(%peer, filter, "MQTT subscription refused");
        }
    }
}
