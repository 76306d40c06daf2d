//! The watch on a silent peer.

use std::time::{Duration, Instant};

/// Watches that a client is heard often enough (MQTT 3.1.1, section 3.1.2.10).
#[derive(Debug)]
pub(super) struct KeepAlive {
    grace: Duration,
    heard_at: Instant,
    /// Set while, and after, nobody listened: what the client said meanwhile may still wait in the socket.
    was_deaf: bool,
}

impl KeepAlive {
    /// Starts the watch: one and a half periods, but at most `max`; `idle` if the client promises nothing.
    pub(super) fn new(keep_alive_s: u16, max: Duration, idle: Duration, now: Instant) -> Self {
        let period = Duration::from_secs(keep_alive_s.into());
        let grace = if period.is_zero() { idle } else { (period + period / 2).min(max) };
        Self { grace, heard_at: now, was_deaf: false }
    }

    /// The client has sent a packet.
    pub(super) fn heard(&mut self, now: Instant) {
        self.heard_at = now;
        self.was_deaf = false;
    }

    /// Nobody listens to the client until further notice.
    pub(super) fn deafen(&mut self) {
        self.was_deaf = true;
    }

    /// When the silence has lasted too long.
    pub(super) fn deadline(&self) -> Instant {
        self.heard_at + self.grace
    }

    /// Whether the silence has lasted too long. A client that could not be heard gets a whole period again, once.
    pub(super) fn check(&mut self, now: Instant) -> bool {
        if now < self.deadline() {
            return false;
        }
        if self.was_deaf {
            self.heard(now);
            return false;
        }
        true
    }
}
