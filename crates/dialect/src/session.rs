//! What the session of a connection is to its driver, whatever it speaks: bytes in and out, [`Ask`]s, and an end with a
//! reason.
//!
//! A session emits [`Ask`]s; the driver has them performed and brings the reply back under the ask's number. Asks of the
//! serial lane run one after another, all others side by side (`rules.md` 8 and 9). Nothing here knows a
//! protocol. Start at [`Session`].

use std::collections::VecDeque;
use std::time::Instant;

use domain::message::InvalidMessage;
use domain::operation::backend::Backend;
use domain::operation::session::{ConnectedDevice, CutOff};
use domain::operation::{Failure, Lane, Operation, Push, Reply};
use domain::sas::SasToken;
use proto::{amqp, mqtt};

use crate::error::Refused;

/// Tells the asks of one connection apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AskId(u64);

/// Something a connection wants performed.
#[derive(Debug)]
pub struct Ask {
    /// Comes back with the reply.
    pub id: AskId,
    /// What.
    pub operation: Operation,
    /// How it may wait behind others.
    pub lane: Lane,
    /// What is presented as proof, beside what the connection itself shows.
    pub token: Option<SasToken>,
}

/// Makes a failure of what is refused before anybody performs it: gives it a tracking ID, by which it is found in the log,
/// and the time.
pub trait Refusals: Send + Sync {
    /// The failure that `refused` is.
    fn refuse(&self, refused: Refused) -> Failure;
}

/// The sans-IO session of one connection. A driver repeats: one `handle_` call; [`Session::poll_ask`] until `None`; write
/// [`Session::output`]; wait until [`Session::poll_timeout`], reading only while [`Session::wants_input`].
pub trait Session: Send {
    /// Takes what the client sent.
    fn handle_input(&mut self, bytes: &[u8], now: Instant);

    /// The client's bytes have ended.
    fn handle_eof(&mut self, now: Instant);

    /// The time that [`Session::poll_timeout`] named has come.
    fn handle_timeout(&mut self, now: Instant);

    /// The first `count` bytes of the output are written.
    fn handle_written(&mut self, count: usize, now: Instant);

    /// The answer to an ask. If it seats a device, the device's pushes follow from here on.
    fn handle_reply(&mut self, id: AskId, reply: Result<Reply, Failure>, now: Instant);

    /// Something that `device` is told unasked.
    fn handle_push(&mut self, device: &ConnectedDevice, push: Push, now: Instant);

    /// Something that `backend` is told unasked, which was let in over this connection.
    fn handle_backend_push(&mut self, _backend: &Backend, _push: Push, _now: Instant) {}

    /// The server is about to stop: from here on only an introduction is read, which is told to come again. Everything
    /// else that was read is still dealt with.
    fn stop(&mut self);

    /// Whether the client has still to introduce itself, so that it is owed nothing.
    fn is_opening(&self) -> bool;

    /// Whether everything that was read is dealt with and answered, as far as nothing that was asked still runs.
    fn is_at_rest(&mut self) -> bool;

    /// What the client wanted to listen to and may not, since the last call, cut for the log.
    fn take_refused(&mut self) -> Vec<String>;

    /// How the client broke a rule without ending its connection by it, since the last call.
    fn take_faults(&mut self) -> Vec<&'static str> {
        Vec::new()
    }

    /// Ends the connection from our side.
    fn close(&mut self, now: Instant);

    /// The next thing to be performed.
    fn poll_ask(&mut self) -> Option<Ask>;

    /// When [`Session::handle_timeout`] is to be called.
    fn poll_timeout(&self) -> Option<Instant>;

    /// What to write.
    fn output(&mut self) -> &[u8];

    /// Whether to read.
    fn wants_input(&self) -> bool;

    /// Why the session is over, once it is; the last output may still be unwritten.
    fn closed(&self) -> Option<&CloseReason>;
}

/// Why a session ended, for the log.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CloseReason {
    /// The MQTT layer ended it.
    #[error("{0}")]
    Mqtt(mqtt::CloseReason),
    /// The AMQP layer ended it.
    #[error("{0}")]
    Amqp(Box<amqp::CloseReason>),
    /// The user name is of neither a provisioning service nor a hub.
    #[error("the user name is not one: {0}")]
    UserName(String),
    /// A publish to a topic that this client may not use.
    #[error("a message to {0}")]
    Topic(String),
    /// A message beyond the limits; the client would send it again for ever if it were only not acknowledged.
    #[error("{0}")]
    Message(InvalidMessage),
    /// The service refused the connection.
    #[error("refused: {0}")]
    Refused(String),
    /// The client was let in and has proved nothing for too long.
    #[error("nothing was proven in time")]
    Unproven,
    /// The server is about to stop, and lets nobody in.
    #[error("the server is stopping")]
    Stopping,
    /// The service ended the connection.
    #[error("cut off: {0:?}")]
    CutOff(CutOff),
    /// A telemetry message could not be stored; the client sends it again after reconnecting.
    #[error("a message could not be kept: {0}")]
    Unstored(String),
    /// What the client subscribed to could not be kept.
    #[error("the subscriptions could not be kept: {0}")]
    Subscriptions(String),
    /// A cloud-to-device message could not be fetched or settled; it is delivered again after reconnecting.
    #[error("messages to the device could not be fetched or settled: {0}")]
    Undelivered(String),
    /// A change of desired properties is missing; the client reads them afresh after reconnecting.
    #[error("version {found} of the desired properties came after {known}")]
    Gap {
        /// The last version told.
        known: u64,
        /// The version at hand.
        found: u64,
    },
}

impl CloseReason {
    /// Whether the client broke a rule or was refused, as opposed to having left, fallen silent or been ended by us.
    pub const fn is_misuse(&self) -> bool {
        match self {
            Self::Mqtt(reason) => match reason {
                mqtt::CloseReason::Malformed(_)
                | mqtt::CloseReason::NotConnect(_)
                | mqtt::CloseReason::ForeignProtocol { .. }
                | mqtt::CloseReason::SecondConnect
                | mqtt::CloseReason::Unexpected(_)
                | mqtt::CloseReason::ExactlyOnce
                | mqtt::CloseReason::ConnectTimeout
                | mqtt::CloseReason::Refused(_) => true,
                mqtt::CloseReason::Disconnected
                | mqtt::CloseReason::Lost
                | mqtt::CloseReason::KeepAlive
                | mqtt::CloseReason::Server => false,
            },
            Self::Amqp(reason) => match **reason {
                amqp::CloseReason::ForeignProtocol(_)
                | amqp::CloseReason::Misframed(_)
                | amqp::CloseReason::Malformed(_)
                | amqp::CloseReason::SaslMechanism(_)
                | amqp::CloseReason::Sasl(_)
                | amqp::CloseReason::Violation { .. }
                | amqp::CloseReason::OpenTimeout
                | amqp::CloseReason::Oversized { .. } => true,
                amqp::CloseReason::Peer(_)
                | amqp::CloseReason::Local(_)
                | amqp::CloseReason::Lost
                | amqp::CloseReason::Idle => false,
            },
            Self::UserName(_) | Self::Topic(_) | Self::Message(_) | Self::Refused(_) | Self::Unproven => true,
            Self::Stopping
            | Self::CutOff(_)
            | Self::Unstored(_)
            | Self::Subscriptions(_)
            | Self::Undelivered(_)
            | Self::Gap { .. } => false,
        }
    }
}

/// Text from a client, cut for the log.
pub fn cut(text: &str) -> String {
    const CHARS_MAX: usize = 128;
    text.chars().take(CHARS_MAX).flat_map(char::escape_debug).collect()
}

/// The asks of one connection: numbers them and keeps the lanes.
#[derive(Debug, Default)]
pub struct Asks {
    next: u64,
    telemetry: VecDeque<Ask>,
    waiting: VecDeque<Ask>,
    serial: VecDeque<Ask>,
    serial_running: Option<AskId>,
}

impl Asks {
    pub(crate) fn push(&mut self, operation: Operation, lane: Lane, token: Option<SasToken>) -> AskId {
        let id = AskId(self.next);
        self.next += 1;
        let ask = Ask { id, operation, lane, token };
        match lane {
            Lane::Telemetry => self.telemetry.push_back(ask),
            Lane::Serial => self.serial.push_back(ask),
            Lane::Waiting => self.waiting.push_back(ask),
        }
        id
    }

    /// The next ask that may run. A queue that ran empty gives its memory back. Without `has_room` for the answer no ask
    /// of the serial lane begins.
    pub fn poll(&mut self, has_room: bool) -> Option<Ask> {
        if let Some(ask) = self.telemetry.pop_front() {
            return Some(ask);
        }
        self.telemetry = VecDeque::new();
        if let Some(ask) = self.waiting.pop_front() {
            return Some(ask);
        }
        self.waiting = VecDeque::new();
        if self.serial_running.is_some() || !has_room {
            return None;
        }
        let ask = self.serial.pop_front();
        self.serial_running = ask.as_ref().map(|ask| ask.id);
        if self.serial.is_empty() {
            self.serial = VecDeque::new();
        }
        ask
    }

    /// Whether nothing waits to begin, and nothing of the serial lane runs.
    pub fn is_empty(&self) -> bool {
        self.telemetry.is_empty() && self.waiting.is_empty() && self.serial.is_empty() && self.serial_running.is_none()
    }

    /// Drops the asks that did not begin.
    pub(crate) fn forget(&mut self) {
        self.telemetry = VecDeque::new();
        self.waiting = VecDeque::new();
        self.serial = VecDeque::new();
    }

    /// Drops those of `ids` that did not begin, and gives them.
    pub(crate) fn forget_some(&mut self, ids: &[AskId]) -> Vec<AskId> {
        let mut forgotten = Vec::new();
        for queue in [&mut self.telemetry, &mut self.waiting, &mut self.serial] {
            queue.retain(|ask| {
                let stays = !ids.contains(&ask.id);
                if !stays {
                    forgotten.push(ask.id);
                }
                stays
            });
        }
        forgotten
    }

    /// Takes note that the reply to `id` has come.
    pub fn finished(&mut self, id: AskId) {
        if self.serial_running == Some(id) {
            self.serial_running = None;
        }
    }
}

/// Most refusals that wait to be logged; more say nothing new.
const REFUSED_MAX: usize = 8;

/// What a client wanted to listen to and may not, until it is logged.
#[derive(Debug, Default)]
pub(crate) struct RefusedNames(Vec<String>);

impl RefusedNames {
    /// Takes note of a filter or an address.
    pub(crate) fn note(&mut self, name: &str) {
        if self.0.len() < REFUSED_MAX {
            self.0.push(cut(name));
        }
    }

    pub(crate) fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.0)
    }
}
