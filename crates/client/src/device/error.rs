//! What can go wrong at a device's end, and what the server said about it.

use std::fmt;
use std::time::Duration;

use domain::operation::Transport;
use proto::amqp;
use proto::mqtt::{ClientCloseReason, InvalidText, Unpublished};
use serde::Deserialize;
use tokio_tungstenite::tungstenite;

use crate::amqp::AmqpError;
use crate::https::HttpsError;
use crate::wire::WireError;

/// Why a device did not get what it asked for.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The server could not be reached, or the HTTPS exchange broke.
    #[error(transparent)]
    Https(#[from] HttpsError),
    /// The server did not open a WebSocket.
    #[error("the server did not open a WebSocket")]
    WebSocket(#[source] Box<tungstenite::Error>),
    /// The connection ended; a CONNECT that was refused among others.
    #[error("the connection ended: {0}")]
    Closed(ClientCloseReason),
    /// The AMQP connection ended.
    #[error("the connection ended: {0}")]
    AmqpClosed(Box<amqp::CloseReason>),
    /// The server ended a link, and with it what the device did on it.
    #[error("the server ended a link: {0}")]
    Detached(Refused),
    /// The message or request was not sent over AMQP.
    #[error("nothing was sent: {0}")]
    Untransferred(#[from] amqp::Unsent),
    /// The socket failed.
    #[error("the connection broke")]
    Io(#[source] std::io::Error),
    /// The message or request was not sent.
    #[error("nothing was sent: {0}")]
    Unsent(#[from] Unpublished),
    /// The server does not offer the SASL mechanism.
    #[error("the server does not offer {0}")]
    NotOffered(&'static str),
    /// A name or a property cannot be said in MQTT.
    #[error("MQTT cannot carry {what}: {source}")]
    Text {
        /// What it is.
        what: &'static str,
        /// Why not.
        #[source]
        source: InvalidText,
    },
    /// A property cannot be said in HTTP.
    #[error("HTTP cannot carry the message: {0}")]
    Header(#[from] http::Error),
    /// A name, user name or signature is longer than the protocol can say.
    #[error("a name is longer than can be said")]
    Oversized,
    /// The server did not grant a subscription.
    #[error("the server did not grant the subscription to {filter}")]
    NotGranted {
        /// Which.
        filter: &'static str,
    },
    /// The server refused the request.
    #[error("{0}")]
    Refused(Refused),
    /// The registration ended without a hub.
    #[error("the registration failed: {0}")]
    Unassigned(Refused),
    /// The server's answer has another form than it should.
    #[error("the answer to {what} cannot be read")]
    Unreadable {
        /// What was asked.
        what: &'static str,
    },
    /// No answer in time.
    #[error("no answer to {what} within {} s", .after.as_secs())]
    Timeout {
        /// What was asked.
        what: &'static str,
        /// How long was waited.
        after: Duration,
    },
    /// More events came than anybody took.
    #[error("{kept} events came and were not taken")]
    Overrun {
        /// How many are kept.
        kept: usize,
    },
    /// This client does not speak that transport there.
    #[error("devices of this program do not speak {0:?} there")]
    Transport(Transport),
}

impl From<WireError> for DeviceError {
    fn from(error: WireError) -> Self {
        match error {
            WireError::Connect(error) => Self::Https(error),
            WireError::WebSocket(error) => Self::WebSocket(error),
            WireError::Io(error) => Self::Io(error),
            WireError::Timeout { what, after } => Self::Timeout { what, after },
        }
    }
}

impl From<AmqpError> for DeviceError {
    fn from(error: AmqpError) -> Self {
        let refused = |error: Option<Box<amqp::Error>>| error.as_deref().map(Refused::read_amqp).unwrap_or_default();
        match error {
            AmqpError::Wire(error) => error.into(),
            AmqpError::Closed(reason) => match *reason {
                amqp::CloseReason::Peer(Some(error)) => Self::Detached(Refused::read_amqp(&error)),
                reason => Self::AmqpClosed(Box::new(reason)),
            },
            AmqpError::Ended(error) => Self::Detached(refused(error)),
            AmqpError::Unsent(error) => Self::Untransferred(error),
            AmqpError::Rejected(error) => Self::Refused(refused(error)),
            AmqpError::Undecided => Self::Unreadable { what: "the message" },
            AmqpError::NotOffered(mechanism) => Self::NotOffered(mechanism),
        }
    }
}

/// A server's refusal, in its own words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// As in HTTP.
    pub status: u16,
    /// The six-digit code.
    pub code: Option<u64>,
    /// The words.
    pub message: String,
    /// For `muster why`.
    pub tracking_id: Option<String>,
}

/// A refusal's body (`contract/dps-device.md 2.8`), and a failed registration's state, which names its members alike.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Body {
    error_code: Option<u64>,
    #[serde(alias = "errorMessage")]
    message: Option<String>,
    tracking_id: Option<String>,
}

impl Refused {
    /// Reads the body of an answer with `status`; one that cannot be read leaves the status alone.
    pub(super) fn read(status: u16, body: &[u8]) -> Self {
        let Body { error_code, message, tracking_id } = serde_json::from_slice(body).unwrap_or_default();
        Self { status, code: error_code, message: message.unwrap_or_default(), tracking_id }
    }

    /// Reads what an AMQP server says of a link, a delivery or the connection: its description is a body, whose code
    /// begins with the status (`contract/hub-device.md 4.9`).
    pub(super) fn read_amqp(error: &amqp::Error) -> Self {
        let description = error.description.as_deref().unwrap_or_default();
        let mut refused = Self::read(0, description.as_bytes());
        refused.status = refused.code.and_then(|code| u16::try_from(code / 1_000).ok()).unwrap_or_default();
        if refused.message.is_empty() {
            refused.message = error.condition.to_string();
        }
        refused
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server answered {}", self.status)?;
        if let Some(code) = self.code {
            write!(f, " ({code})")?;
        }
        if !self.message.is_empty() {
            write!(f, ": {}", self.message.escape_debug())?;
        }
        match &self.tracking_id {
            Some(tracking_id) => write!(f, ", tracking ID {}", tracking_id.escape_debug()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_in_the_servers_words() {
        let cases = [
            (
                401,
                r#"{"errorCode":401002,"trackingId":"t-1","message":"Unauthorized","timestampUtc":"x"}"#,
                "the server answered 401 (401002): Unauthorized, tracking ID t-1",
            ),
            (200, r#"{"errorCode":400207,"errorMessage":"a\nb"}"#, r"the server answered 200 (400207): a\nb"),
            (500, "not JSON", "the server answered 500"),
            (404, "{}", "the server answered 404"),
        ];
        for (status, body, expected) in cases {
            assert_eq!(Refused::read(status, body.as_bytes()).to_string(), expected);
        }
    }

    #[test]
    fn over_amqp_the_code_tells_the_status_and_the_condition_stands_for_missing_words() {
        let cases = [
            (r#"{"errorCode":404001,"message":"Gone."}"#, "the server answered 404 (404001): Gone."),
            (r#"{"errorCode":18446744073709551615}"#, "the server answered 0 (18446744073709551615): amqp:not-found"),
            ("not JSON", "the server answered 0: amqp:not-found"),
        ];
        for (description, expected) in cases {
            let error = amqp::Error::new(amqp::condition::NOT_FOUND, description);
            assert_eq!(Refused::read_amqp(&error).to_string(), expected);
        }
    }
}
