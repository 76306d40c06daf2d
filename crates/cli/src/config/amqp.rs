//! `[amqp]`: what one AMQP connection may take. Start at [`Amqp`].

use std::time::Duration;

use proto::amqp::Limits;
use serde::{Deserialize, Serialize};

/// The section as an operator writes it; everything holds for one connection.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Amqp {
    /// Seconds from the start to the client's open.
    pub open_s: u32,
    /// Seconds that the client has to answer a close.
    pub close_s: u32,
    /// Seconds of silence; the client is told, and speaks in time.
    pub idle_s: u32,
    /// Longest frame, in bytes.
    pub frame_bytes: u32,
    /// Sessions.
    pub sessions: u16,
    /// Links of all sessions; a device has up to seven.
    pub links: u32,
    /// Transfers of a session under way to the server.
    pub session_window: u32,
    /// Credit of a link.
    pub link_credit: u32,
    /// Kibibytes of messages of which more is to come.
    pub unfinished_kib: u32,
    /// Messages received whose outcome is not told.
    pub unsettled: u32,
    /// Messages that wait to be sent.
    pub queued: u32,
    /// Kibibytes of messages that wait to be sent.
    pub queued_kib: u32,
    /// Messages of one link that are sent and not settled.
    pub in_flight: u32,
    /// Kibibytes to be written before nothing more is sent.
    pub output_kib: u32,
}

impl Default for Amqp {
    fn default() -> Self {
        let limits = Limits::default();
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
        Self {
            open_s: seconds(limits.open_timeout),
            close_s: seconds(limits.close_timeout),
            idle_s: seconds(limits.idle_timeout),
            frame_bytes: limits.frame_bytes_max,
            sessions: limits.sessions_max,
            links: limits.links_max,
            session_window: limits.session_window,
            link_credit: limits.credit_max,
            unfinished_kib: count(limits.unfinished_bytes_max >> 10),
            unsettled: count(limits.unsettled_max),
            queued: count(limits.queued_max),
            queued_kib: count(limits.queued_bytes_max >> 10),
            in_flight: count(limits.in_flight_max),
            output_kib: count(limits.output_bytes_max >> 10),
        }
    }
}

impl Amqp {
    /// Hands every key with its value and the least and the most it may be to `bound`.
    pub fn check(&self, mut bound: impl FnMut(&str, u64, u64, u64)) {
        bound("amqp.open_s", self.open_s.into(), 1, 300);
        bound("amqp.close_s", self.close_s.into(), 1, 300);
        // Clients speak twice within it, and none more often than once a second.
        bound("amqp.idle_s", self.idle_s.into(), 2, 3_600);
        // The standard's least; the most that still fits a device's memory.
        bound("amqp.frame_bytes", self.frame_bytes.into(), 512, 1 << 24);
        bound("amqp.sessions", self.sessions.into(), 1, u16::MAX.into());
        bound("amqp.links", self.links.into(), 1, 1_000_000);
        bound("amqp.session_window", self.session_window.into(), 100, 1_000_000);
        bound("amqp.link_credit", self.link_credit.into(), 10, 1_000_000);
        // A message of the greatest size has to fit.
        bound("amqp.unfinished_kib", self.unfinished_kib.into(), 256, 1 << 20);
        bound("amqp.unsettled", self.unsettled.into(), 1, 1_000_000);
        bound("amqp.queued", self.queued.into(), 1, 1_000_000);
        bound("amqp.queued_kib", self.queued_kib.into(), 1, 1 << 20);
        bound("amqp.in_flight", self.in_flight.into(), 1, 1_000_000);
        // As long as a frame, or two ends may wait for each other.
        bound("amqp.output_kib", self.output_kib.into(), u64::from(self.frame_bytes).div_ceil(1_024), 1 << 20);
    }

    /// The limits that the protocol is held to.
    pub fn limits(&self) -> Limits {
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        Limits {
            open_timeout: seconds(self.open_s),
            close_timeout: seconds(self.close_s),
            idle_timeout: seconds(self.idle_s),
            frame_bytes_max: self.frame_bytes,
            sessions_max: self.sessions,
            links_max: self.links,
            session_window: self.session_window,
            credit_max: self.link_credit,
            unfinished_bytes_max: (self.unfinished_kib as usize) << 10,
            unsettled_max: self.unsettled as usize,
            queued_max: self.queued as usize,
            queued_bytes_max: (self.queued_kib as usize) << 10,
            in_flight_max: self.in_flight as usize,
            output_bytes_max: (self.output_kib as usize) << 10,
            ..Limits::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_protocol_and_within_bounds() {
        assert_eq!(Amqp::default().limits(), Limits::default());
        Amqp::default().check(|key, value, low, high| assert!((low..=high).contains(&value), "{key}"));
    }
}
