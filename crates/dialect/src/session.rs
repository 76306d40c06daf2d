//! The machine of one MQTT connection: what it asks, and the port through which it answers.
//!
//! A machine emits [`Ask`]s; the driver has them performed and brings the reply back under the ask's number. Asks of the
//! serial lane run one after another, those of the telemetry lane side by side (`rules.md` 8 and 9). Start at
//! [`Machine`].

use std::collections::VecDeque;
use std::time::Instant;

use domain::message::InvalidMessage;
use domain::operation::session::CutOff;
use domain::operation::{Failure, Lane, Operation, Push, Reply};
use domain::sas::SasToken;
use proto::mqtt::{self, Connection, Event, Refusal};

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
}

/// Why a session ended, for the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// The MQTT layer ended it.
    #[error("{0}")]
    Mqtt(mqtt::CloseReason),
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
            Self::UserName(_) | Self::Topic(_) | Self::Message(_) | Self::Refused(_) => true,
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
    serial: VecDeque<Ask>,
    serial_running: Option<AskId>,
}

impl Asks {
    fn push(&mut self, operation: Operation, lane: Lane) -> AskId {
        let id = AskId(self.next);
        self.next += 1;
        let ask = Ask { id, operation, lane };
        match lane {
            Lane::Telemetry => self.telemetry.push_back(ask),
            Lane::Serial => self.serial.push_back(ask),
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
        self.telemetry.is_empty() && self.serial.is_empty() && self.serial_running.is_none()
    }

    /// Drops the asks that did not begin.
    fn forget(&mut self) {
        self.telemetry = VecDeque::new();
        self.serial = VecDeque::new();
    }

    /// Takes note that the reply to `id` has come.
    pub fn finished(&mut self, id: AskId) {
        if self.serial_running == Some(id) {
            self.serial_running = None;
        }
    }
}

/// Most refused filters that wait to be logged; more say nothing new.
const REFUSED_FILTERS_MAX: usize = 8;

/// Through which a machine acts on its connection.
#[derive(Debug)]
pub struct Port<'a> {
    /// The MQTT layer.
    pub connection: &'a mut Connection,
    pub(crate) asks: &'a mut Asks,
    pub(crate) closed: &'a mut Option<CloseReason>,
    pub(crate) refused_filters: &'a mut Vec<String>,
}

impl Port<'_> {
    /// Asks for `operation`.
    pub fn ask(&mut self, operation: Operation, lane: Lane) -> AskId {
        self.asks.push(operation, lane)
    }

    /// Takes note, for the log, that a subscription to `filter` is refused.
    pub fn note_refused_filter(&mut self, filter: &str) {
        if self.refused_filters.len() < REFUSED_FILTERS_MAX {
            self.refused_filters.push(cut(filter));
        }
    }

    /// Refuses the CONNECT.
    pub fn refuse(&mut self, refusal: Refusal, reason: CloseReason) {
        self.closed.get_or_insert(reason);
        self.connection.refuse(refusal);
    }

    /// Ends the connection at once: what is not written is never written, what was not begun is never begun.
    pub fn cut_off(&mut self, reason: CutOff) {
        self.closed.get_or_insert(CloseReason::CutOff(reason));
        self.asks.forget();
        self.connection.abort();
    }

    /// Ends the connection; the first reason stays.
    pub fn close(&mut self, reason: CloseReason) {
        self.closed.get_or_insert(reason);
        self.connection.close();
    }
}

/// What a dialect does with its connection. It is made from an accepted user name and sees every event behind CONNECT.
pub trait Machine: Send {
    /// The client did something. CONNECT itself is the machine's first event.
    fn handle_event(&mut self, event: Event, port: &mut Port<'_>, now: Instant);

    /// The answer to an earlier ask.
    fn handle_reply(&mut self, id: AskId, reply: Result<Reply, Failure>, port: &mut Port<'_>, now: Instant);

    /// The service says something unasked.
    fn handle_push(&mut self, push: Push, port: &mut Port<'_>, now: Instant);

    /// Something was written, so that there may be room again.
    fn handle_room(&mut self, _port: &mut Port<'_>, _now: Instant) {}

    /// Time has come that [`Machine::poll_timeout`] asked for.
    fn handle_timeout(&mut self, port: &mut Port<'_>, now: Instant);

    /// When the machine wants to act of itself.
    fn poll_timeout(&self) -> Option<Instant>;

    /// The signature that came as password.
    fn token(&self) -> Option<&SasToken>;
}
