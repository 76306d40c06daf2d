//! The server's end of a connection.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::codec::Malformed;
use super::input::Input;
use super::keep_alive::KeepAlive;
use super::outbound::{Outbound, Unpublished};
use super::output::Output;
use super::packet::{
    Connack, Connect, Delivery, Filter, Message, Packet, PacketId, PacketType, Publish, Refusal, SubackCode, Will,
};
use super::text::Text;
use super::window::{Ticket, Window};

#[cfg(test)]
mod tests;

/// What one connection may take, in memory and in time. Shared by all connections of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest CONNECT, in bytes with its header: what somebody who proved nothing can make us hold.
    pub connect_bytes_max: usize,
    /// The longest packet after that, in bytes with its header.
    pub packet_bytes_max: usize,
    /// Time from the start of the connection to a complete CONNECT.
    pub connect_timeout: Duration,
    /// The longest silence, however long a keep-alive the client asks for.
    pub keep_alive_max: Duration,
    /// The longest silence of a client that asks for no keep-alive.
    pub idle_timeout: Duration,
    /// The most messages and requests received and not answered. Then nothing more is read.
    pub inbound_max: usize,
    /// The most bytes of messages received and not acknowledged; the message that passes it is the last.
    pub inbound_bytes_max: usize,
    /// The most QoS 1 messages sent and not acknowledged; at most 65,535.
    pub in_flight_max: usize,
    /// The most bytes to be written before nothing more is taken from the caller or read from the client; the packet
    /// that passes it is the last.
    pub output_bytes_max: usize,
}

impl Default for Limits {
    /// Azure's own limits where the contract knows them, else enough for every SDK.
    fn default() -> Self {
        Self {
            connect_bytes_max: 16 * 1024,
            // 256 KiB of message (`contract/hub-device.md` 2.11), and the topic around its properties.
            packet_bytes_max: (256 + 8) * 1024,
            connect_timeout: Duration::from_secs(30),
            // `contract/hub-device.md` 2.4.
            keep_alive_max: Duration::from_secs(1767),
            idle_timeout: Duration::from_secs(1767),
            inbound_max: 128,
            inbound_bytes_max: 1024 * 1024,
            in_flight_max: 32,
            output_bytes_max: 256 * 1024,
        }
    }
}

impl Limits {
    /// How long a client that promised `keep_alive_s` may be silent (MQTT 3.1.1, section 3.1.2.10).
    fn silence_max(&self, keep_alive_s: u16) -> Duration {
        match Duration::from_secs(keep_alive_s.into()) {
            Duration::ZERO => self.idle_timeout,
            period => (period + period / 2).min(self.keep_alive_max),
        }
    }
}

/// What a client did.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// It introduces itself. Answer with [`Connection::accept`] or [`Connection::refuse`]; nothing else comes before.
    Connect(Box<Connect>),
    /// It sends a message, QoS 0 or 1. Either way call [`Connection::acknowledge`] when done with it.
    Publish {
        /// For [`Connection::acknowledge`].
        ticket: Ticket,
        /// The message.
        message: Message,
    },
    /// It asks for messages. Answer with [`Connection::suback`].
    Subscribe {
        /// For the answer.
        packet_id: PacketId,
        /// At least one.
        filters: Vec<Filter>,
    },
    /// It wants no more messages. Answer with [`Connection::unsuback`].
    Unsubscribe {
        /// For the answer.
        packet_id: PacketId,
        /// At least one.
        filters: Vec<Text>,
    },
    /// It has taken over the QoS 1 message to which [`Connection::publish`] gave this identifier.
    Acknowledged {
        /// That identifier.
        packet_id: PacketId,
    },
    /// The connection is over; the last event. Write what [`Connection::output`] still holds, then close the socket.
    Closed(Closed),
}

/// How a connection ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Closed {
    /// Why.
    pub reason: CloseReason,
    /// What an accepted client left to be published for any end but its own DISCONNECT.
    pub will: Option<Box<Will>>,
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// The client said goodbye.
    #[error("the client disconnected")]
    Disconnected,
    /// The client's bytes ended without a goodbye.
    #[error("the connection was lost")]
    Lost,
    /// A packet could not be read.
    #[error("malformed packet: {0}")]
    Malformed(Malformed),
    /// The first packet was something else than CONNECT.
    #[error("the first packet was {0:?}")]
    NotConnect(PacketType),
    /// The client speaks another protocol or version; it was told so.
    #[error("protocol level {level} is not spoken")]
    ForeignProtocol {
        /// The level it asked for.
        level: u8,
    },
    /// A second CONNECT (MQTT 3.1.1, rule 3.1.0-2).
    #[error("a second CONNECT")]
    SecondConnect,
    /// A packet that only servers send, or that belongs to QoS 2.
    #[error("unexpected {0:?}")]
    Unexpected(PacketType),
    /// A QoS 2 message.
    #[error("a message of QoS 2")]
    ExactlyOnce,
    /// No complete CONNECT in time.
    #[error("no CONNECT in time")]
    ConnectTimeout,
    /// Silence for too long.
    #[error("the client fell silent")]
    KeepAlive,
    /// The caller refused the CONNECT.
    #[error("refused: {0:?}")]
    Refused(Refusal),
    /// The caller closed the connection.
    #[error("closed by the server")]
    Server,
}

/// The server's end of one MQTT 3.1.1 connection, without its socket.
///
/// A driver repeats: [`handle_input`](Self::handle_input) with what was read, or any other call that begins with
/// `handle_`, or an answer; then [`poll_event`](Self::poll_event) until `None`; then write
/// [`output`](Self::output) and report with [`handle_written`](Self::handle_written); then wait until
/// [`poll_timeout`](Self::poll_timeout), reading only while [`wants_input`](Self::wants_input).
///
/// PINGREQ is answered as soon as it has been received, whatever else is held back. An idle connection owns next to
/// no memory beside this structure.
#[derive(Debug)]
pub struct Connection {
    limits: Arc<Limits>,
    state: State,
    input: Input,
    window: Window,
    /// SUBSCRIBE and UNSUBSCRIBE that the caller has not answered.
    requests: usize,
    outbound: Outbound,
    will: Option<Box<Will>>,
}

#[derive(Debug)]
enum State {
    /// Waiting for CONNECT.
    Opening { deadline: Instant },
    /// The caller has the CONNECT.
    Deciding { keep_alive_s: u16 },
    /// Accepted.
    Open(KeepAlive),
    /// Over. `Some` until it has been reported.
    Closed(Option<CloseReason>),
}

impl Connection {
    /// Starts with nothing received; the time for CONNECT begins.
    pub fn new(limits: Arc<Limits>, now: Instant) -> Self {
        let deadline = now + limits.connect_timeout;
        Self {
            limits,
            state: State::Opening { deadline },
            input: Input::default(),
            window: Window::default(),
            requests: 0,
            outbound: Outbound::default(),
            will: None,
        }
    }

    /// Takes what the client sent, cut anywhere. Call it only while [`wants_input`](Self::wants_input).
    pub fn handle_input(&mut self, bytes: &[u8], now: Instant) {
        if self.is_closed() {
            return;
        }
        self.input.push(bytes);
        self.handle_control(now);
    }

    /// Takes note that the client's bytes have ended, or that the socket failed.
    pub fn handle_eof(&mut self) {
        self.end(CloseReason::Lost);
    }

    /// Takes note of the time. Call it when [`poll_timeout`](Self::poll_timeout) has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        let is_listening = !self.is_inbound_full();
        let lapsed = match &mut self.state {
            State::Opening { deadline } => (now >= *deadline).then_some(CloseReason::ConnectTimeout),
            State::Open(keep_alive) => (is_listening && keep_alive.check(now)).then_some(CloseReason::KeepAlive),
            State::Deciding { .. } | State::Closed(_) => None,
        };
        if let Some(reason) = lapsed {
            self.end(reason);
        }
    }

    /// Takes note that the first `count` bytes of [`output`](Self::output) are written.
    pub fn handle_written(&mut self, count: usize) {
        self.outbound.output.advance(count);
    }

    /// The next thing the client did; `None` until something else happens.
    pub fn poll_event(&mut self) -> Option<Event> {
        if let Some(packet_id) = self.outbound.poll_acknowledged() {
            return Some(Event::Acknowledged { packet_id });
        }
        let event = match self.state {
            State::Opening { .. } => self.poll_connect(),
            State::Open(_) => self.poll_packet(),
            State::Deciding { .. } | State::Closed(_) => None,
        };
        event.or_else(|| self.poll_closed())
    }

    /// When to call [`handle_timeout`](Self::handle_timeout); `None` if time does not matter.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Opening { deadline } => Some(*deadline),
            State::Open(keep_alive) if !self.is_inbound_full() => Some(keep_alive.deadline()),
            State::Open(_) | State::Deciding { .. } | State::Closed(_) => None,
        }
    }

    /// What to write next; empty if there is nothing.
    pub fn output(&self) -> &[u8] {
        self.outbound.output.pending()
    }

    /// Whether to read from the client. `false` while too much is unanswered or unwritten, while the caller decides
    /// on a CONNECT, and at the end.
    pub fn wants_input(&self) -> bool {
        match self.state {
            State::Opening { .. } => true,
            State::Open(_) => !self.is_inbound_full() && !self.is_output_full(),
            State::Deciding { .. } | State::Closed(_) => false,
        }
    }

    /// Whether the client has still to introduce itself.
    pub const fn is_opening(&self) -> bool {
        matches!(self.state, State::Opening { .. })
    }

    /// Whether the connection is over. The last output may still be unwritten.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed(_))
    }

    /// Whether so much waits to be written that [`publish`](Self::publish) refuses more.
    pub fn is_output_full(&self) -> bool {
        self.outbound.output.pending().len() >= self.limits.output_bytes_max
    }

    /// How many messages and requests of the client the caller has not answered.
    pub fn unanswered(&self) -> usize {
        self.window.len() + self.requests
    }

    /// How many QoS 1 messages the client has not acknowledged.
    pub fn in_flight(&self) -> usize {
        self.outbound.in_flight.len()
    }

    /// Accepts the CONNECT. Does nothing if there is none to decide on.
    pub fn accept(&mut self, session_present: bool, now: Instant) {
        let State::Deciding { keep_alive_s } = self.state else { return };
        self.state = State::Open(KeepAlive::new(self.limits.silence_max(keep_alive_s), now));
        self.outbound.output.push_small(&Packet::Connack(Connack::Accepted { session_present }));
        self.handle_control(now);
    }

    /// Refuses the CONNECT, and ends the connection. Does nothing if there is none to decide on.
    pub fn refuse(&mut self, refusal: Refusal) {
        if let State::Deciding { .. } = self.state {
            self.outbound.output.push_small(&Packet::Connack(Connack::Refused(refusal)));
            self.end(CloseReason::Refused(refusal));
        }
    }

    /// Reports that a received message is dealt with. Its PUBACK, if it wants one, leaves after those of the messages
    /// before it. A ticket used before, or after the end, changes nothing.
    pub fn acknowledge(&mut self, ticket: Ticket) {
        if !self.is_closed() {
            let output = &mut self.outbound.output;
            self.window.acknowledge(ticket, |packet_id| output.push_ack(PacketType::Puback, packet_id));
        }
    }

    /// Answers a SUBSCRIBE, with one code for each filter.
    pub fn suback(&mut self, packet_id: PacketId, codes: Vec<SubackCode>) {
        if !self.is_closed() {
            self.requests = self.requests.saturating_sub(1);
            self.outbound.output.push_small(&Packet::Suback { packet_id, codes });
        }
    }

    /// Answers an UNSUBSCRIBE.
    pub fn unsuback(&mut self, packet_id: PacketId) {
        if !self.is_closed() {
            self.requests = self.requests.saturating_sub(1);
            self.outbound.output.push_ack(PacketType::Unsuback, packet_id);
        }
    }

    /// Sends a message of QoS 0 or 1. For QoS 1 returns the identifier that [`Event::Acknowledged`] will name.
    pub fn publish(&mut self, message: &Message) -> Result<Option<PacketId>, Unpublished> {
        if !matches!(self.state, State::Open(_)) {
            return Err(Unpublished::NotConnected);
        }
        if self.is_output_full() {
            return Err(Unpublished::OutputFull);
        }
        self.outbound.publish(message, self.limits.in_flight_max)
    }

    /// Ends the connection: MQTT 3.1.1 has no word for it, the socket just closes.
    pub fn close(&mut self) {
        self.end(CloseReason::Server);
    }

    /// Ends the connection as [`close`](Self::close) does, and forgets what is not written.
    pub fn abort(&mut self) {
        self.close();
        self.outbound.output = Output::default();
    }

    /// Answers PINGREQ, and takes PUBACK in, wherever in the received bytes they are.
    fn handle_control(&mut self, now: Instant) {
        let Self { limits, state: State::Open(keep_alive), input, outbound, .. } = self else { return };
        let was_heard = input.scan(limits.packet_bytes_max, |packet_type, body| match packet_type {
            PacketType::Pingreq => outbound.output.push_small(&Packet::Pingresp),
            PacketType::Puback => outbound.handle_puback(body),
            _ => {}
        });
        if was_heard {
            keep_alive.heard(now);
        }
    }

    fn poll_connect(&mut self) -> Option<Event> {
        let packet_bytes_max = self.limits.connect_bytes_max;
        match self.input.peek(packet_bytes_max) {
            Ok(Some(header)) if header.packet_type != PacketType::Connect => {
                self.end(CloseReason::NotConnect(header.packet_type));
                return None;
            }
            Ok(Some(_)) => {}
            Ok(None) => return None,
            Err(malformed) => {
                self.end(CloseReason::Malformed(malformed));
                return None;
            }
        }
        match self.input.take(packet_bytes_max) {
            Ok(Some(Packet::Connect(connect))) => {
                // A copy: a slice of the CONNECT would keep all of it for as long as the connection lasts.
                self.will = connect.will.as_deref().map(|will| Box::new(will.detached()));
                self.state = State::Deciding { keep_alive_s: connect.keep_alive_s };
                return Some(Event::Connect(connect));
            }
            Ok(Some(Packet::ForeignConnect { level, .. })) => self.refuse_foreign(level),
            Ok(Some(other)) => self.end(CloseReason::NotConnect(other.packet_type())),
            Ok(None) => {}
            Err(malformed) => self.end(CloseReason::Malformed(malformed)),
        }
        None
    }

    /// Tells a client of another version so, in its own words (MQTT 3.1.1, rule 3.1.2-2; `contract/hub-device.md` 2.1).
    fn refuse_foreign(&mut self, level: u8) {
        // MQTT 5, section 3.2: flags, reason 0x84 (unsupported protocol version), no properties.
        const CONNACK_OF_MQTT_5: [u8; 5] = [0x20, 3, 0, 0x84, 0];
        if level == 5 {
            self.outbound.output.push_bytes(&CONNACK_OF_MQTT_5);
        } else {
            self.outbound.output.push_small(&Packet::Connack(Connack::Refused(Refusal::ProtocolVersion)));
        }
        self.end(CloseReason::ForeignProtocol { level });
    }

    fn poll_packet(&mut self) -> Option<Event> {
        let packet_bytes_max = self.limits.packet_bytes_max;
        loop {
            let is_full = self.is_inbound_full();
            let State::Open(keep_alive) = &mut self.state else { return None };
            if is_full {
                keep_alive.deafen();
            }
            match self.input.peek(packet_bytes_max) {
                Ok(Some(header)) if is_full && needs_answer(header.packet_type) => return None,
                Ok(_) => {}
                Err(malformed) => self.end(CloseReason::Malformed(malformed)),
            }
            match self.input.take(packet_bytes_max) {
                Ok(Some(packet)) => {
                    if let Some(event) = self.handle_packet(packet) {
                        return Some(event);
                    }
                }
                Ok(None) => return None,
                Err(malformed) => self.end(CloseReason::Malformed(malformed)),
            }
        }
    }

    fn handle_packet(&mut self, packet: Packet) -> Option<Event> {
        match packet {
            Packet::Publish(publish) => return self.handle_publish(publish),
            Packet::Subscribe { packet_id, filters } => {
                self.requests += 1;
                return Some(Event::Subscribe { packet_id, filters });
            }
            Packet::Unsubscribe { packet_id, filters } => {
                self.requests += 1;
                return Some(Event::Unsubscribe { packet_id, filters });
            }
            // Dealt with when they arrived.
            Packet::Pingreq | Packet::Puback(_) => {}
            Packet::Disconnect => {
                self.will = None;
                self.end(CloseReason::Disconnected);
            }
            Packet::Connect(_) | Packet::ForeignConnect { .. } => self.end(CloseReason::SecondConnect),
            Packet::Connack(_)
            | Packet::Pubrec(_)
            | Packet::Pubrel(_)
            | Packet::Pubcomp(_)
            | Packet::Suback { .. }
            | Packet::Unsuback(_)
            | Packet::Pingresp => self.end(CloseReason::Unexpected(packet.packet_type())),
        }
        None
    }

    fn handle_publish(&mut self, publish: Publish) -> Option<Event> {
        match publish.delivery {
            Delivery::ExactlyOnce(_) => {
                self.end(CloseReason::ExactlyOnce);
                return None;
            }
            // The C client repeats on the same connection after a minute (`contract/hub-device.md` 2.6). Until its
            // PUBACK has left, a repetition is the same message (MQTT 3.1.1, section 4.3.2).
            Delivery::AtLeastOnce(packet_id) if publish.dup && self.window.holds(packet_id) => return None,
            Delivery::AtLeastOnce(_) | Delivery::AtMostOnce => {}
        }
        let bytes = publish.topic.len() + publish.payload.len();
        let ticket = self.window.push(publish.delivery.packet_id(), bytes);
        Some(Event::Publish { ticket, message: publish.into() })
    }

    fn poll_closed(&mut self) -> Option<Event> {
        let State::Closed(reason) = &mut self.state else { return None };
        let reason = reason.take()?;
        Some(Event::Closed(Closed { reason, will: self.will.take() }))
    }

    /// Ends the connection, unless it is over. Output stays, everything else is given back.
    fn end(&mut self, reason: CloseReason) {
        match self.state {
            State::Closed(_) => return,
            // The will of a client that was never accepted is nobody's (MQTT 3.1.1, rule 3.1.2-8).
            State::Opening { .. } | State::Deciding { .. } => self.will = None,
            State::Open(_) => {}
        }
        self.state = State::Closed(Some(reason));
        self.input.clear();
        self.window = Window::default();
        self.requests = 0;
        self.outbound.end();
    }

    fn is_inbound_full(&self) -> bool {
        self.unanswered() >= self.limits.inbound_max || self.window.bytes() >= self.limits.inbound_bytes_max
    }
}

/// Whether a packet takes a place among what the caller has to answer.
const fn needs_answer(packet_type: PacketType) -> bool {
    matches!(packet_type, PacketType::Publish | PacketType::Subscribe | PacketType::Unsubscribe)
}
