//! Direct methods: what is called, with what, how long anybody waits, and what comes back (`contract/hub-service.md 7`).
//!
//! A call is never kept for later: it reaches a device while its caller waits, or not at all. Nothing here knows who is
//! connected. Start at [`Call`], then at [`Request`], which is the call on its way.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use serde::de::IgnoredAny;

use crate::ids::{MethodName, MethodRequestId};

/// Longest payload of a request or a response, in bytes of JSON (`contract/hub-device.md 2.11`).
pub const PAYLOAD_BYTES_MAX: usize = 128 * 1024;
/// Calls of one identity under way at once, those that wait for it to connect included.
pub const CALLS_PER_IDENTITY_MAX: usize = 64;
/// Calls of all identities of a hub under way at once.
pub const CALLS_PER_HUB_MAX: usize = 10_000;

/// Seconds that a caller may wait for the response.
pub const RESPONSE_TIMEOUT_S: RangeInclusive<u64> = 5..=300;
/// Seconds that a caller may wait for the device to connect.
pub const CONNECT_TIMEOUT_S: RangeInclusive<u64> = 0..=300;

/// A call of a method, as an operator asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The method.
    pub method: MethodName,
    /// What it is called with.
    pub payload: Payload,
    /// How long the caller waits.
    pub timeouts: Timeouts,
}

/// What a device answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The device's own status; means nothing to the hub.
    pub status: i32,
    /// What it says.
    pub payload: Payload,
}

/// A JSON document that is passed on as it was written. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload(Bytes);

/// Why bytes are no payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPayload {
    /// Longer than [`PAYLOAD_BYTES_MAX`].
    #[error("the payload has {bytes} bytes; the most is {PAYLOAD_BYTES_MAX}")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// Not JSON, or not UTF-8.
    #[error("the payload is not JSON")]
    NotJson,
}

/// Why a caller gets no response from a device that was to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoResponse {
    /// What the device said cannot be passed on.
    #[error("The response from device cannot be passed on: {0}.")]
    Invalid(#[from] InvalidPayload),
    /// The device was never told: it does not take so long a request.
    #[error("The request has {bytes} bytes as the device's connection carries it, where the device takes {bytes_max}.")]
    RequestTooLong {
        /// How long it is.
        bytes: usize,
        /// What the device takes.
        bytes_max: u64,
    },
}

impl Payload {
    /// What stands for no payload.
    pub const NULL: Self = Self(Bytes::from_static(b"null"));

    /// Takes a document; nothing but white space is `null`.
    pub fn parse(bytes: Bytes) -> Result<Self, InvalidPayload> {
        if bytes.len() > PAYLOAD_BYTES_MAX {
            return Err(InvalidPayload::TooLong { bytes: bytes.len() });
        }
        let text = std::str::from_utf8(&bytes).map_err(|_| InvalidPayload::NotJson)?;
        if text.trim_ascii().is_empty() {
            return Ok(Self::NULL);
        }
        serde_json::from_str::<IgnoredAny>(text).map_err(|_| InvalidPayload::NotJson)?;
        Ok(Self(bytes))
    }

    /// The document's text.
    pub const fn bytes(&self) -> &Bytes {
        &self.0
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.0.len())
    }
}

/// How long a caller waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For the device to connect and listen; zero means that it must do so already.
    pub connect: Duration,
    /// For the response, once the device is told.
    pub response: Duration,
}

/// Which time-out is out of its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTimeout {
    /// That for the connection: not within [`CONNECT_TIMEOUT_S`].
    #[error("the time to wait for the connection is out of its range")]
    Connect,
    /// That for the response: not within [`RESPONSE_TIMEOUT_S`].
    #[error("the time to wait for the response is out of its range")]
    Response,
}

/// A device must be connected already, and has half a minute.
impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::ZERO, response: Duration::from_secs(30) }
    }
}

impl Timeouts {
    /// Takes seconds; what is not said is as in [`Timeouts::default`].
    pub fn new(connect_s: Option<u64>, response_s: Option<u64>) -> Result<Self, InvalidTimeout> {
        let within = |seconds: Option<u64>, range: RangeInclusive<u64>, or: Duration| match seconds {
            None => Some(or),
            Some(seconds) => range.contains(&seconds).then(|| Duration::from_secs(seconds)),
        };
        let or = Self::default();
        Ok(Self {
            connect: within(connect_s, CONNECT_TIMEOUT_S, or.connect).ok_or(InvalidTimeout::Connect)?,
            response: within(response_s, RESPONSE_TIMEOUT_S, or.response).ok_or(InvalidTimeout::Response)?,
        })
    }
}

/// A call on its way to a device. Whoever holds one delivers it only while [`Request::is_awaited`].
#[derive(Clone, Debug)]
pub struct Request {
    /// Comes back with the response.
    pub id: MethodRequestId,
    /// The method.
    pub method: MethodName,
    /// What it is called with.
    pub payload: Payload,
    caller: Weak<()>,
}

/// Kept by the caller for as long as it waits.
#[derive(Debug)]
pub struct Waiter(Arc<()>);

impl Waiter {
    /// Somebody who waits.
    #[expect(clippy::new_without_default, reason = "nobody waits by default")]
    pub fn new() -> Self {
        Self(Arc::new(()))
    }

    /// A request that this one waits for.
    pub fn request(&self, id: MethodRequestId, method: MethodName, payload: Payload) -> Request {
        Request { id, method, payload, caller: Arc::downgrade(&self.0) }
    }
}

impl Request {
    /// Whether the caller still waits. A device must not be told to do what nobody waits for any more.
    pub fn is_awaited(&self) -> bool {
        self.caller.strong_count() > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_json_of_a_bounded_length_and_pass_as_they_are() {
        let longest = format!("\"{}\"", "x".repeat(PAYLOAD_BYTES_MAX - 2));
        let too_long = format!("\"{}\"", "x".repeat(PAYLOAD_BYTES_MAX - 1));
        let deep = "[".repeat(PAYLOAD_BYTES_MAX / 2) + &"]".repeat(PAYLOAD_BYTES_MAX / 2);
        let cases: &[(&str, &[u8], Result<&[u8], InvalidPayload>)] = &[
            ("nothing", b"", Ok(b"null")),
            ("white space", b" \r\n", Ok(b"null")),
            ("as it is written", b" {\"a\": 1.0}", Ok(b" {\"a\": 1.0}")),
            ("an empty text", b"\"\"", Ok(b"\"\"")),
            ("longest", longest.as_bytes(), Ok(longest.as_bytes())),
            ("deepest", deep.as_bytes(), Ok(deep.as_bytes())),
            ("too long", too_long.as_bytes(), Err(InvalidPayload::TooLong { bytes: PAYLOAD_BYTES_MAX + 1 })),
            ("no JSON", b"OK", Err(InvalidPayload::NotJson)),
            ("two documents", b"1 2", Err(InvalidPayload::NotJson)),
            ("cut short", b"{\"a\":", Err(InvalidPayload::NotJson)),
            ("not UTF-8", b"\"\xff\"", Err(InvalidPayload::NotJson)),
        ];
        for (name, bytes, expected) in cases {
            let found = Payload::parse(Bytes::copy_from_slice(bytes));
            assert_eq!(found.as_ref().map(|payload| payload.bytes().as_ref()), expected.as_deref(), "{name}");
        }
        assert_eq!(format!("{:?}", Payload::NULL), "Payload(4 bytes)");
    }

    #[test]
    fn time_outs_keep_their_ranges() {
        let seconds = |connect, response| Timeouts {
            connect: Duration::from_secs(connect),
            response: Duration::from_secs(response),
        };
        let cases = [
            ((None, None), Ok(seconds(0, 30))),
            ((Some(0), Some(5)), Ok(seconds(0, 5))),
            ((Some(300), Some(300)), Ok(seconds(300, 300))),
            ((Some(301), None), Err(InvalidTimeout::Connect)),
            ((None, Some(4)), Err(InvalidTimeout::Response)),
            ((None, Some(301)), Err(InvalidTimeout::Response)),
        ];
        for ((connect, response), expected) in cases {
            assert_eq!(Timeouts::new(connect, response), expected, "{connect:?} {response:?}");
        }
    }

    #[test]
    fn a_request_is_awaited_until_its_caller_has_gone() {
        let waiter = Waiter::new();
        let id = MethodRequestId::from_bits(1);
        let request = waiter.request(id, MethodName::parse("reboot").unwrap(), Payload::NULL);
        assert!(request.clone().is_awaited());
        drop(waiter);
        assert!(!request.is_awaited());
    }

    #[test]
    fn methods_have_names_that_every_sdk_reads_alike() {
        for name in ["reboot", "a", "Get-State_2.0", "thermostat1*getMaxMinReport", &"m".repeat(100)] {
            assert!(MethodName::parse(name).is_ok(), "{name}");
        }
        for name in ["", "a b", "a/b", "a%20b", "a+b", "#", "ä", "a\0", &"m".repeat(101)] {
            assert!(MethodName::parse(name).is_err(), "{name}");
        }
    }
}
