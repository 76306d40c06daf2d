//! Either end of a connection.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::decode::Malformed;
use super::frame::{MIN_MAX_FRAME_SIZE, Misframed};
use super::performative::{Attach, Close, Disposition, Open, Performative};
use super::sasl::{SaslCode, SaslInit};
use super::state::{DeliveryState, Error, condition};
use super::text::{Symbol, Text};
use super::value::Map;
use crate::output::Output;

use link::Link;
use opening::Phase;
use session::Sessions;

mod forgotten;
mod link;
mod links;
mod opening;
mod outgoing;
mod received;
mod session;
#[cfg(test)]
mod tests;
mod transfers;

pub use link::{LinkTerms, Outgoing, Settlement};
pub use opening::ClientOpening;

/// What one connection may take, in memory and in time. Shared by all connections of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest frame of a SASL exchange that is read, in bytes.
    pub sasl_frame_bytes_max: u32,
    /// The longest frame after that, in bytes: told to the peer, and the longest that is sent to any peer. At least
    /// 512 (part 2, section 2.7.1).
    pub frame_bytes_max: u32,
    /// Time from the start of the connection to the peer's open, the caller's decisions left out.
    pub open_timeout: Duration,
    /// Time from our close to the peer's.
    pub close_timeout: Duration,
    /// The longest silence: told to the peer, which sends empty frames in time.
    pub idle_timeout: Duration,
    /// The most sessions: told to the peer as its highest channel. At least 1.
    pub sessions_max: u16,
    /// The most links of all sessions together. At least 1.
    pub links_max: u32,
    /// How many transfers of a session may be under way to us.
    pub session_window: u32,
    /// The most credit a link can have.
    pub credit_max: u32,
    /// The most bytes of deliveries of which more is to come, of all links together.
    pub unfinished_bytes_max: usize,
    /// The most deliveries received and not settled, of all links together.
    pub unsettled_max: usize,
    /// The most deliveries that wait to be sent, of all links together.
    pub queued_max: usize,
    /// The most bytes of deliveries that wait to be sent; the delivery that passes it is the last.
    pub queued_bytes_max: usize,
    /// The most deliveries of one link that are queued or sent, and not settled.
    pub in_flight_max: usize,
    /// The most bytes to be written before no more deliveries are sent; the frame that passes it is the last. When
    /// answers make it twice as many, nothing more is read. At least as long as a frame, or two ends may wait for each
    /// other.
    pub output_bytes_max: usize,
}

impl Default for Limits {
    /// Azure's own limits where the contract knows them, else enough for every SDK.
    fn default() -> Self {
        Self {
            sasl_frame_bytes_max: 4 * 1024,
            // `contract/dps-device.md` 4.4.
            frame_bytes_max: 64 * 1024,
            open_timeout: Duration::from_secs(30),
            close_timeout: Duration::from_secs(5),
            // `contract/dps-device.md` 4.4.
            idle_timeout: Duration::from_secs(240),
            sessions_max: 256,
            links_max: 2048,
            session_window: 2048,
            credit_max: 10_000,
            unfinished_bytes_max: 1024 * 1024,
            unsettled_max: 10_000,
            queued_max: 4096,
            queued_bytes_max: 1024 * 1024,
            in_flight_max: 1024,
            output_bytes_max: 256 * 1024,
        }
    }
}

impl Limits {
    const fn channel_max(&self) -> u16 {
        self.sessions_max.saturating_sub(1)
    }

    const fn handle_max(&self) -> u32 {
        self.links_max.saturating_sub(1)
    }
}

/// Stands for one session. Never repeats on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(u64);

/// Stands for one link, until it is detached. Never repeats on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(u64);

/// Stands for one delivery, sent or received, until it is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId {
    session: SessionId,
    is_received: bool,
    number: u32,
}

/// Deliveries whose receiver waits for them to be settled, and of which nothing is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownDeliveries {
    session: SessionId,
    /// First and last of each range. At most one more than there are deliveries and ranges that are remembered.
    ranges: Vec<(u32, u32)>,
}

/// A message that was received whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The link it came on.
    pub link: LinkId,
    /// For [`Connection::settle`].
    pub id: DeliveryId,
    /// What the sender calls it.
    pub tag: Bytes,
    /// The format of the payload; 0 is a [`Message`](super::Message).
    pub message_format: u32,
    /// Whether the sender has settled it: then nothing is to be answered.
    pub is_settled: bool,
    /// The message. If it came in one frame, a slice of what was received.
    pub payload: Bytes,
}

/// What the peer did.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The server offers SASL mechanisms. Answer with [`Connection::sasl_init`].
    SaslMechanisms(Vec<Symbol>),
    /// The client chose a mechanism that was offered. Answer with [`Connection::sasl_challenge`] or
    /// [`Connection::sasl_outcome`].
    SaslInit(SaslInit),
    /// The server asks. Answer with [`Connection::sasl_response`].
    SaslChallenge(Bytes),
    /// The client answered. Answer with [`Connection::sasl_challenge`] or [`Connection::sasl_outcome`].
    SaslResponse(Bytes),
    /// The peer introduces itself. A server answers with [`Connection::open`]; nothing comes before. A client has done
    /// so: the connection is open.
    Open(Box<Open>),
    /// A session was begun: by the peer, or by us and the peer has answered.
    Begin {
        /// The session.
        session: SessionId,
    },
    /// A session is over, and its links with it.
    End {
        /// The session.
        session: SessionId,
        /// Why, if not as it should be.
        error: Option<Box<Error>>,
    },
    /// The peer attaches a link. Answer with [`Connection::accept_link`] or [`Connection::refuse_link`].
    Attach {
        /// The link.
        link: LinkId,
        /// The session it belongs to.
        session: SessionId,
        /// What the peer wants.
        attach: Box<Attach>,
    },
    /// The peer answered an attach of ours. If our end's terminus is absent in it, the peer refuses, and detaches.
    Attached {
        /// The link.
        link: LinkId,
        /// What the peer made of it.
        attach: Box<Attach>,
    },
    /// A link is over, or rests: the peer detached it, or answered our detach, or broke a rule.
    Detach {
        /// The link.
        link: LinkId,
        /// Whether the peer closed it, and does not only let it rest.
        is_closed: bool,
        /// Why, if not as it should be.
        error: Option<Box<Error>>,
    },
    /// A link can send more than before; see [`Connection::credit`].
    Credit {
        /// The link.
        link: LinkId,
    },
    /// A message was received. If it is not settled, call [`Connection::settle`] when done with it.
    Delivery(Delivery),
    /// The receiver told the state of a delivery that [`Connection::send`] sent.
    Outcome {
        /// The link.
        link: LinkId,
        /// For [`Connection::settle`], if it is not settled.
        id: DeliveryId,
        /// The name it was given.
        tag: Bytes,
        /// What became of it; `None` if the receiver does not say.
        state: Option<DeliveryState>,
        /// Whether that is all. If not, the receiver waits for [`Connection::settle`].
        is_settled: bool,
    },
    /// The receiver told the outcome of deliveries that were settled, or that [`Connection::forget`] forgot, or that were
    /// never sent. It waits for [`Connection::settle_unknown`].
    UnknownOutcome {
        /// The deliveries.
        deliveries: UnknownDeliveries,
        /// What it told.
        state: DeliveryState,
    },
    /// The connection is over; the last event. Write what [`Connection::output`] still holds, then close the socket.
    Closed(CloseReason),
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CloseReason {
    /// The peer closed it.
    #[error("closed by the peer{}", because(.0.as_deref()))]
    Peer(Option<Box<Error>>),
    /// The caller closed it.
    #[error("closed{}", because(.0.as_deref()))]
    Local(Option<Box<Error>>),
    /// The peer's bytes ended without a close.
    #[error("the connection was lost")]
    Lost,
    /// The first bytes ask for another protocol or version; the peer was told ours.
    #[error("the protocol header {0:02x?} is not spoken")]
    ForeignProtocol([u8; super::frame::PROTOCOL_HEADER_BYTES]),
    /// Bytes that cannot be cut into frames.
    #[error("{0}")]
    Misframed(Misframed),
    /// A frame that cannot be read.
    #[error("malformed frame: {0}")]
    Malformed(Malformed),
    /// The client chose a SASL mechanism that was not offered.
    #[error("the SASL mechanism {0} is not offered")]
    SaslMechanism(Symbol),
    /// The SASL exchange did not end well.
    #[error("SASL ended with {0:?}")]
    Sasl(SaslCode),
    /// The peer broke a rule.
    #[error("{condition}: {what}")]
    Violation {
        /// What it was told.
        condition: Symbol,
        /// What it did.
        what: &'static str,
    },
    /// No open in time.
    #[error("no open in time")]
    OpenTimeout,
    /// Silence for too long.
    #[error("the peer fell silent")]
    Idle,
    /// A frame of ours is longer than the peer takes.
    #[error("a frame of {bytes} bytes, where the peer takes {max}")]
    Oversized {
        /// How long it is.
        bytes: usize,
        /// What the peer takes.
        max: u32,
    },
}

fn because(error: Option<&Error>) -> String {
    let Some(Error { condition, description, .. }) = error else { return String::new() };
    match description {
        Some(description) => format!(": {condition}: {description}"),
        None => format!(": {condition}"),
    }
}

/// Why something was not sent. Nothing of it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsent {
    /// The connection is not open.
    #[error("not open")]
    NotOpen,
    /// The session is over, or the peer has not answered its begin.
    #[error("no such session")]
    NoSession,
    /// The link is over, not attached yet, or does not send.
    #[error("no such link")]
    NoLink,
    /// Too much waits to be sent or to be settled; try again when less does.
    #[error("too much waits to be sent")]
    Full,
    /// The peer takes no more sessions or links.
    #[error("the peer takes no more")]
    Exhausted,
    /// The tag is longer than 32 bytes (part 2, section 2.8.7).
    #[error("the delivery tag is too long")]
    Tag,
    /// The message is longer than the peer takes.
    #[error("{bytes} bytes, where the peer takes {max}")]
    TooLarge {
        /// How long it is.
        bytes: usize,
        /// What the peer takes.
        max: u64,
    },
    /// The SASL frame would be longer than 512 bytes (part 5, section 5.3.1).
    #[error("the SASL frame is too long")]
    Sasl,
}

/// One end of an AMQP 1.0 connection, without its socket.
///
/// A driver repeats: [`handle_input`](Self::handle_input) with what was read, or any other call that begins with
/// `handle_`, or an answer; then [`poll_event`](Self::poll_event) until `None`; then write [`output`](Self::output) and
/// report with [`handle_written`](Self::handle_written); then wait until [`poll_timeout`](Self::poll_timeout), reading
/// only while [`wants_input`](Self::wants_input).
///
/// Sessions of the peer are accepted as they come, up to a bound. Windows are kept open; credit is the caller's. What
/// one link or session does wrong ends that link or session, with an event. An idle connection owns next to no memory
/// beside this structure and what it keeps of each session and link.
#[derive(Debug)]
pub struct Connection {
    limits: Arc<Limits>,
    state: State,
    /// When the opening, or the closing, has taken too long.
    deadline: Option<Instant>,
    /// When bytes of the peer last arrived.
    received_at: Instant,
    /// When a frame of the peer was last complete; while nothing is read of it, when it last took bytes of ours.
    heard_at: Instant,
    /// When our bytes last left.
    written_at: Instant,
    input: BytesMut,
    output: Output,
    events: VecDeque<Event>,
    /// How the peer broke the rules of sessions and links, until it is taken.
    faults: Vec<&'static str>,
    /// What is needed until the connection is open.
    opening: Option<Box<opening::Opening>>,
    peer: PeerLimits,
    sessions: Sessions,
    links: BTreeMap<LinkId, Box<Link>>,
    next_link: u64,
    /// Links that can send, in turn.
    ready: VecDeque<LinkId>,
    /// A disposition that the next one may continue, and its session's channel.
    disposition: Option<(u16, Disposition)>,
    queued: usize,
    queued_bytes: usize,
    unfinished_bytes: usize,
    unsettled: usize,
}

#[derive(Debug)]
enum State {
    /// Until both have opened.
    Opening(Phase),
    /// Both have opened.
    Open,
    /// We closed, the peer has not answered.
    Closing(CloseReason),
    /// Over. `Some` until it has been reported.
    Closed(Option<CloseReason>),
}

/// What the peer's open says of its limits.
#[derive(Clone, Copy, Debug)]
struct PeerLimits {
    frame_bytes_max: u32,
    channel_max: u16,
    /// How often it wants to hear of us.
    heartbeat: Option<Duration>,
}

impl Connection {
    /// The most often that empty frames are sent, whatever the peer asks for.
    const HEARTBEAT_MIN: Duration = Duration::from_millis(250);

    /// The server's end, with nothing received. `mechanisms` are offered if the client asks for SASL.
    pub fn server(limits: Arc<Limits>, container_id: Text, mechanisms: Vec<Symbol>, now: Instant) -> Self {
        let opening = opening::Opening::server(container_id, mechanisms);
        Self::new(limits, Phase::FirstHeader, opening, now)
    }

    /// The client's end; its first bytes are in the output.
    pub fn client(limits: Arc<Limits>, client: ClientOpening, now: Instant) -> Self {
        let with_sasl = client.with_sasl;
        let phase = if with_sasl { Phase::SaslHeader } else { Phase::AmqpHeader };
        let mut connection = Self::new(limits, phase, opening::Opening::client(client), now);
        connection.introduce(with_sasl);
        connection
    }

    fn new(limits: Arc<Limits>, phase: Phase, opening: opening::Opening, now: Instant) -> Self {
        let deadline = Some(now + limits.open_timeout);
        let peer = PeerLimits { frame_bytes_max: MIN_MAX_FRAME_SIZE, channel_max: 0, heartbeat: None };
        Self {
            limits,
            state: State::Opening(phase),
            deadline,
            received_at: now,
            heard_at: now,
            written_at: now,
            input: BytesMut::new(),
            output: Output::default(),
            events: VecDeque::new(),
            faults: Vec::new(),
            opening: Some(Box::new(opening)),
            peer,
            sessions: Sessions::default(),
            links: BTreeMap::new(),
            next_link: 0,
            ready: VecDeque::new(),
            disposition: None,
            queued: 0,
            queued_bytes: 0,
            unfinished_bytes: 0,
            unsettled: 0,
        }
    }

    /// Takes what the peer sent, cut anywhere. Call it only while [`wants_input`](Self::wants_input).
    pub fn handle_input(&mut self, bytes: &[u8], now: Instant) {
        if self.is_closed() {
            return;
        }
        self.received_at = now;
        if self.input.is_empty() {
            self.input = BytesMut::from(bytes);
        } else {
            self.input.extend_from_slice(bytes);
        }
    }

    /// Takes note that the peer's bytes have ended, or that the socket failed.
    pub fn handle_eof(&mut self) {
        let reason = match &mut self.state {
            // It may close the socket instead of answering a close.
            State::Closing(reason) => std::mem::replace(reason, CloseReason::Lost),
            _ => CloseReason::Lost,
        };
        self.end(reason);
    }

    /// Takes note of the time. Call it when [`poll_timeout`](Self::poll_timeout) has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_none_or(|at| now < at) {
            return;
        }
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            match &mut self.state {
                State::Opening(_) => self.end(CloseReason::OpenTimeout),
                State::Closing(reason) => {
                    let reason = std::mem::replace(reason, CloseReason::Lost);
                    self.end(reason);
                }
                State::Open | State::Closed(_) => {}
            }
        }
        if !matches!(self.state, State::Open) {
            return;
        }
        if now >= self.heard_at + self.limits.idle_timeout {
            let error = Error::new(condition::RESOURCE_LIMIT_EXCEEDED, "the peer fell silent");
            self.push_close(Some(Box::new(error)));
            return self.end(CloseReason::Idle);
        }
        if self.peer.heartbeat.is_some_and(|period| now >= self.written_at + period) {
            // What waits to be written is a sign of life as well.
            if self.output.pending().is_empty() {
                self.push_empty_frame();
            }
            self.written_at = now;
        }
    }

    /// Takes note that the first `count` bytes of [`output`](Self::output) are written.
    pub fn handle_written(&mut self, count: usize, now: Instant) {
        if count > 0 {
            self.written_at = now;
            // Its empty frames cannot be heard: that it takes what is long in coming is the sign of life it can give.
            if self.is_deaf() {
                self.heard_at = now;
            }
        }
        self.output.advance(count);
    }

    /// The next thing the peer did; `None` until something else happens.
    pub fn poll_event(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                if self.events.is_empty() {
                    self.events = VecDeque::new();
                }
                return Some(event);
            }
            if let State::Closed(reason) = &mut self.state {
                return reason.take().map(Event::Closed);
            }
            if self.is_deaf() || !self.step() {
                return None;
            }
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout); `None` if time does not matter.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Opening(phase) if phase.is_deciding() => None,
            State::Opening(_) | State::Closing(_) => self.deadline,
            State::Open => {
                let silence = self.heard_at + self.limits.idle_timeout;
                let heartbeat = self.peer.heartbeat.map(|period| self.written_at + period);
                Some(heartbeat.map_or(silence, |at| at.min(silence)))
            }
            State::Closed(_) => None,
        }
    }

    /// What to write next, in one go; empty if there is nothing. Fetches what links can send, as long as there is space.
    pub fn output(&mut self) -> &[u8] {
        self.pump();
        self.output.piece()
    }

    /// Whether to read from the peer. `false` while too much is unwritten, while the caller decides, and at the end.
    pub fn wants_input(&self) -> bool {
        match &self.state {
            State::Opening(phase) => !phase.is_deciding() && !self.is_deaf(),
            State::Open | State::Closing(_) => !self.is_deaf(),
            State::Closed(_) => false,
        }
    }

    /// Whether both have opened, and nobody has closed.
    pub const fn is_open(&self) -> bool {
        matches!(self.state, State::Open)
    }

    /// Whether the peer has still to introduce itself.
    pub const fn is_opening(&self) -> bool {
        matches!(self.state, State::Opening(_))
    }

    /// Whether the connection is over. The last output may still be unwritten.
    pub const fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed(_))
    }

    /// Whether so much waits to be written that deliveries wait too.
    pub fn is_output_full(&self) -> bool {
        self.output.pending().len() >= self.limits.output_bytes_max
    }

    /// Whether so much waits to be written that nothing is read either: twice what stops deliveries, so that two ends
    /// that send as much as they can still read each other.
    fn is_deaf(&self) -> bool {
        self.output.pending().len() >= self.limits.output_bytes_max.saturating_mul(2)
    }

    /// How many deliveries were received and are not settled.
    pub const fn unsettled(&self) -> usize {
        self.unsettled
    }

    /// How many deliveries wait to be sent.
    pub const fn queued(&self) -> usize {
        self.queued
    }

    /// Whether so much waits to be sent that [`Self::send`] takes nothing more.
    pub fn is_queue_full(&self) -> bool {
        self.queued >= self.limits.queued_max || self.queued_bytes >= self.limits.queued_bytes_max
    }

    /// Closes the connection, and waits for the peer to do so. Before anything was opened, it just ends.
    pub fn close(&mut self, error: Option<Error>, now: Instant) {
        let error = error.map(Box::new);
        match &self.state {
            State::Opening(phase) if !phase.can_close() => self.end(CloseReason::Local(error)),
            State::Opening(_) | State::Open => {
                self.push_close(error.clone());
                // Nothing else is sent after a close, so nothing else is kept.
                self.forget_all();
                self.state = State::Closing(CloseReason::Local(error));
                self.deadline = Some(now + self.limits.close_timeout);
            }
            State::Closing(_) | State::Closed(_) => {}
        }
    }

    /// Takes the next thing off the input. `false` if more has to arrive, or the caller has to decide.
    fn step(&mut self) -> bool {
        match &self.state {
            State::Opening(phase) => {
                let phase = *phase;
                self.step_opening(phase)
            }
            State::Open => self.step_open(),
            State::Closing(_) => self.step_closing(),
            State::Closed(_) => false,
        }
    }

    /// Tells the peer which rule it broke, and ends the connection.
    fn violate(&mut self, condition: Symbol, what: &'static str) {
        let error = Error::new(condition.clone(), what);
        self.push_close(Some(Box::new(error)));
        self.end(CloseReason::Violation { condition, what });
    }

    /// Sends our open, if it was not, and close.
    fn push_close(&mut self, error: Option<Box<Error>>) {
        self.push_open(Map::EMPTY);
        self.push_frame(0, &Performative::Close(Close { error }));
    }

    /// Ends the connection, unless it is over. Output and events stay, everything else is given back.
    fn end(&mut self, reason: CloseReason) {
        if self.is_closed() {
            return;
        }
        self.flush_disposition();
        self.state = State::Closed(Some(reason));
        self.input = BytesMut::new();
        self.opening = None;
        self.forget_all();
    }

    fn forget_all(&mut self) {
        self.sessions = Sessions::default();
        self.links = BTreeMap::new();
        self.ready = VecDeque::new();
        (self.queued, self.queued_bytes, self.unfinished_bytes, self.unsettled) = (0, 0, 0, 0);
    }
}
