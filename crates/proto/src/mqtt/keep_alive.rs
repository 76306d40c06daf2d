//! The watches on a silent peer.

use std::time::{Duration, Instant};

/// Watches that the peer is heard in time: a client within its keep-alive (MQTT 3.1.1, section 3.1.2.10), a server
/// with its PINGRESP.
#[derive(Debug)]
pub(super) struct KeepAlive {
    grace: Duration,
    heard_at: Instant,
    /// Set while, and after, nobody listened: what the peer said meanwhile may still wait in the socket.
    was_deaf: bool,
}

impl KeepAlive {
    /// Starts a watch that suffers `grace` of silence.
    pub(super) fn new(grace: Duration, now: Instant) -> Self {
        Self { grace, heard_at: now, was_deaf: false }
    }

    /// The peer has sent a packet.
    pub(super) fn heard(&mut self, now: Instant) {
        self.heard_at = now;
        self.was_deaf = false;
    }

    /// Nobody listens to the peer until further notice.
    pub(super) fn deafen(&mut self) {
        self.was_deaf = true;
    }

    /// When the silence has lasted too long.
    pub(super) fn deadline(&self) -> Instant {
        self.heard_at + self.grace
    }

    /// Whether the silence has lasted too long. A peer that could not be heard gets a whole period again, once.
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
