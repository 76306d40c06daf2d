//! `[outbound]`: how messages are sent to endpoints of routes.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use service::RouteSettings;

/// `[outbound]`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Outbound {
    /// Whether endpoints may have private addresses, loopback included. Link-local ones, where clouds keep what is not for
    /// everybody, are never dialled.
    pub private: bool,
    /// How often a message is sent that its endpoint answers and does not take, before it is given up, 1 to 1,000.
    pub attempts: u32,
    /// Hours after which a message is given up that its endpoint does not take, 1 to 8,760. Hubs that keep telemetry no
    /// longer than that forget it first.
    pub give_up_h: u32,
    /// Messages of one endpoint that are kept after they were given up, 1 to 1,000,000.
    pub dead_letters: u32,
    /// Milliseconds of the first pause after a failure, 10 to 60,000; each further one is twice as long.
    pub pause_ms: u32,
    /// Seconds of the longest pause, 1 to 3,600.
    pub pause_max_s: u32,
}

impl Default for Outbound {
    fn default() -> Self {
        Self { private: false, attempts: 10, give_up_h: 20, dead_letters: 1_000, pause_ms: 500, pause_max_s: 60 }
    }
}

impl Outbound {
    /// Checks every value.
    pub fn check(&self, bound: &mut impl FnMut(&str, u64, u64, u64)) {
        bound("outbound.attempts", self.attempts.into(), 1, 1_000);
        bound("outbound.give_up_h", self.give_up_h.into(), 1, 24 * 365);
        bound("outbound.dead_letters", self.dead_letters.into(), 1, 1_000_000);
        bound("outbound.pause_ms", self.pause_ms.into(), 10, 60_000);
        bound("outbound.pause_max_s", self.pause_max_s.into(), 1, 3_600);
    }

    /// The settings, once checked.
    pub fn settings(&self) -> RouteSettings {
        RouteSettings {
            attempts_max: self.attempts,
            age_max: Duration::from_secs(u64::from(self.give_up_h) * 3_600),
            dead_letters_max: self.dead_letters.into(),
            pause: Duration::from_millis(self.pause_ms.into()),
            pause_max: Duration::from_secs(self.pause_max_s.into()),
        }
    }
}
