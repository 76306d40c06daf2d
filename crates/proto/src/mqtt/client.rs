//! The client's end of a connection: for simulated devices, demonstrations and load.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::codec::Malformed;
use super::input::Input;
use super::keep_alive::KeepAlive;
use super::outbound::{Outbound, Unpublished};
use super::packet::{
    Connack, Connect, Delivery, Filter, Message, Packet, PacketId, PacketType, Publish, Refusal, SubackCode,
};
use super::text::Text;
use super::window::{Ticket, Window};

#[cfg(test)]
mod tests;

/// What one connection may take, in memory and in time. Shared by all connections of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientLimits {
    /// The longest packet received, in bytes with its header.
    pub packet_bytes_max: usize,
    /// Time from the start of the connection to the CONNACK.
    pub connack_timeout: Duration,
    /// Time from a PINGREQ to its PINGRESP.
    pub pingresp_timeout: Duration,
    /// Who acknowledges received messages.
    pub acknowledgement: Acknowledgement,
    /// The most messages received and not acknowledged, where the caller does that. Then nothing more is read.
    pub inbound_max: usize,
    /// The most messages and requests sent and not acknowledged; at most 65,535.
    pub in_flight_max: usize,
    /// The most bytes to be written before nothing more is taken from the caller; the packet that passes it is the
    /// last.
    pub output_bytes_max: usize,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            packet_bytes_max: (256 + 8) * 1024,
            connack_timeout: Duration::from_mins(1),
            pingresp_timeout: Duration::from_secs(30),
            acknowledgement: Acknowledgement::AtOnce,
            inbound_max: 128,
            in_flight_max: 1024,
            output_bytes_max: 256 * 1024,
        }
    }
}

/// Who acknowledges received messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledgement {
    /// The connection, as it reports them.
    AtOnce,
    /// The caller, by [`ClientConnection::acknowledge`].
    ByCaller,
}

/// What the server did.
#[derive(Debug, PartialEq, Eq)]
pub enum ClientEvent {
    /// It accepted the CONNECT. Nothing else comes before.
    Connected {
        /// Whether it kept a session for this client.
        session_present: bool,
    },
    /// It sent a message.
    Message {
        /// For [`ClientConnection::acknowledge`]; `None` with [`Acknowledgement::AtOnce`].
        ticket: Option<Ticket>,
        /// The message.
        message: Message,
    },
    /// It answered [`ClientConnection::subscribe`].
    Subscribed {
        /// Which one.
        packet_id: PacketId,
        /// One code for each filter.
        codes: Vec<SubackCode>,
    },
    /// It answered [`ClientConnection::unsubscribe`].
    Unsubscribed {
        /// Which one.
        packet_id: PacketId,
    },
    /// It took over a message of [`ClientConnection::publish`].
    Acknowledged {
        /// Which one.
        packet_id: PacketId,
    },
    /// The connection is over; the last event. Write what [`ClientConnection::output`] still holds, then close the
    /// socket.
    Closed(ClientCloseReason),
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientCloseReason {
    /// The caller said goodbye.
    #[error("disconnected")]
    Disconnected,
    /// The server refused the CONNECT.
    #[error("refused: {0:?}")]
    Refused(Refusal),
    /// The server's bytes ended.
    #[error("the connection was lost")]
    Lost,
    /// A packet could not be read.
    #[error("malformed packet: {0}")]
    Malformed(Malformed),
    /// A packet that servers do not send, or not then.
    #[error("unexpected {0:?}")]
    Unexpected(PacketType),
    /// A QoS 2 message; none was asked for.
    #[error("a message of QoS 2")]
    ExactlyOnce,
    /// No CONNACK in time.
    #[error("no CONNACK in time")]
    ConnackTimeout,
    /// No PINGRESP in time.
    #[error("no PINGRESP in time")]
    PingrespTimeout,
}

/// The client's end of one MQTT 3.1.1 connection, without its socket. Driven like [`super::Connection`].
#[derive(Debug)]
pub struct ClientConnection {
    limits: Arc<ClientLimits>,
    state: State,
    input: Input,
    window: Window,
    outbound: Outbound,
    pings: Pings,
}

#[derive(Debug)]
enum State {
    /// CONNECT is sent.
    Connecting { deadline: Instant },
    /// The server accepted it.
    Open,
    /// Over. `Some` until it has been reported.
    Closed(Option<ClientCloseReason>),
}

/// When to ping, and whether the server answers.
#[derive(Debug)]
struct Pings {
    /// After how much silence of our own; `None` if no keep-alive was promised.
    interval: Option<Duration>,
    written_at: Instant,
    /// The watch on the answer to the last ping, until it comes.
    awaited: Option<KeepAlive>,
}

impl ClientConnection {
    /// Starts with `connect` in the output; the time for CONNACK begins.
    ///
    /// # Errors
    /// If a field of `connect` is longer than MQTT can say.
    pub fn new(limits: Arc<ClientLimits>, connect: Connect, now: Instant) -> Result<Self, super::Oversized> {
        let keep_alive = Duration::from_secs(connect.keep_alive_s.into());
        let mut outbound = Outbound::default();
        outbound.output.push(&Packet::Connect(Box::new(connect)))?;
        Ok(Self {
            state: State::Connecting { deadline: now + limits.connack_timeout },
            limits,
            input: Input::default(),
            window: Window::default(),
            outbound,
            // Three quarters of the promise leave the rest for late timers and slow networks.
            pings: Pings {
                interval: (!keep_alive.is_zero()).then(|| keep_alive * 3 / 4),
                written_at: now,
                awaited: None,
            },
        })
    }

    /// Takes what the server sent, cut anywhere. Call it only while [`wants_input`](Self::wants_input).
    pub fn handle_input(&mut self, bytes: &[u8]) {
        if self.is_closed() {
            return;
        }
        self.input.push(bytes);
        let Self { limits, input, outbound, pings, .. } = self;
        input.scan(limits.packet_bytes_max, |packet_type, body| match packet_type {
            PacketType::Pingresp => pings.awaited = None,
            PacketType::Puback => outbound.handle_puback(body),
            _ => {}
        });
    }

    /// Takes note that the server's bytes have ended, or that the socket failed.
    pub fn handle_eof(&mut self) {
        self.end(ClientCloseReason::Lost);
    }

    /// Takes note of the time. Call it when [`poll_timeout`](Self::poll_timeout) has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        match &self.state {
            State::Connecting { deadline } if now >= *deadline => self.end(ClientCloseReason::ConnackTimeout),
            State::Open => self.handle_ping_timeout(now),
            State::Connecting { .. } | State::Closed(_) => {}
        }
    }

    /// Takes note that the first `count` bytes of [`output`](Self::output) have been written.
    pub fn handle_written(&mut self, count: usize, now: Instant) {
        self.outbound.output.advance(count);
        self.pings.written_at = now;
    }

    /// The next thing the server did; `None` until something else happens.
    pub fn poll_event(&mut self) -> Option<ClientEvent> {
        let event = match self.state {
            State::Connecting { .. } => self.poll_connack(),
            State::Open => match self.outbound.poll_acknowledged() {
                Some(packet_id) => Some(ClientEvent::Acknowledged { packet_id }),
                None => self.poll_packet(),
            },
            State::Closed(_) => None,
        };
        event.or_else(|| self.poll_closed())
    }

    /// When to call [`handle_timeout`](Self::handle_timeout); `None` if time does not matter.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Connecting { deadline } => Some(*deadline),
            State::Open => match &self.pings.awaited {
                Some(awaited) => (!self.is_inbound_full()).then(|| awaited.deadline()),
                None => self.pings.interval.map(|interval| self.pings.written_at + interval),
            },
            State::Closed(_) => None,
        }
    }

    /// What to write next; empty if there is nothing.
    pub fn output(&self) -> &[u8] {
        self.outbound.output.pending()
    }

    /// Whether to read from the server.
    pub fn wants_input(&self) -> bool {
        match self.state {
            State::Connecting { .. } => true,
            State::Open => !self.is_inbound_full(),
            State::Closed(_) => false,
        }
    }

    /// Whether the connection is over. The last output may still be unwritten.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed(_))
    }

    /// How many messages and requests the server has not answered.
    pub fn in_flight(&self) -> usize {
        self.outbound.in_flight.len()
    }

    /// Sends a message of QoS 0 or 1. For QoS 1 returns the identifier that [`ClientEvent::Acknowledged`] will name.
    pub fn publish(&mut self, message: &Message) -> Result<Option<PacketId>, Unpublished> {
        self.check_room()?;
        self.outbound.publish(message, self.limits.in_flight_max)
    }

    /// Asks for messages. Returns the identifier that [`ClientEvent::Subscribed`] will name.
    pub fn subscribe(&mut self, filters: Vec<Filter>) -> Result<PacketId, Unpublished> {
        self.check_room()?;
        self.outbound.request(self.limits.in_flight_max, |packet_id| Packet::Subscribe { packet_id, filters })
    }

    /// Asks for no more messages. Returns the identifier that [`ClientEvent::Unsubscribed`] will name.
    pub fn unsubscribe(&mut self, filters: Vec<Text>) -> Result<PacketId, Unpublished> {
        self.check_room()?;
        self.outbound.request(self.limits.in_flight_max, |packet_id| Packet::Unsubscribe { packet_id, filters })
    }

    /// Reports that a received message is dealt with. Its PUBACK, if it wants one, leaves after those of the messages
    /// before it. A ticket used before, or after the end, changes nothing.
    pub fn acknowledge(&mut self, ticket: Ticket) {
        if !self.is_closed() {
            let output = &mut self.outbound.output;
            self.window.acknowledge(ticket, |packet_id| output.push_ack(PacketType::Puback, packet_id));
        }
    }

    /// Says goodbye, and ends the connection.
    pub fn disconnect(&mut self) {
        if !self.is_closed() {
            self.outbound.output.push_small(&Packet::Disconnect);
            self.end(ClientCloseReason::Disconnected);
        }
    }

    fn handle_ping_timeout(&mut self, now: Instant) {
        let is_listening = !self.is_inbound_full();
        if let Some(awaited) = &mut self.pings.awaited {
            if is_listening && awaited.check(now) {
                self.end(ClientCloseReason::PingrespTimeout);
            }
            return;
        }
        if self.pings.interval.is_some_and(|interval| now >= self.pings.written_at + interval) {
            self.outbound.output.push_small(&Packet::Pingreq);
            self.pings.awaited = Some(KeepAlive::new(self.limits.pingresp_timeout, now));
        }
    }

    fn poll_connack(&mut self) -> Option<ClientEvent> {
        match self.input.take(self.limits.packet_bytes_max) {
            Ok(Some(Packet::Connack(Connack::Accepted { session_present }))) => {
                self.state = State::Open;
                return Some(ClientEvent::Connected { session_present });
            }
            Ok(Some(Packet::Connack(Connack::Refused(refusal)))) => self.end(ClientCloseReason::Refused(refusal)),
            Ok(Some(other)) => self.end(ClientCloseReason::Unexpected(other.packet_type())),
            Ok(None) => {}
            Err(malformed) => self.end(ClientCloseReason::Malformed(malformed)),
        }
        None
    }

    fn poll_packet(&mut self) -> Option<ClientEvent> {
        loop {
            if self.is_inbound_full() {
                if let Some(awaited) = &mut self.pings.awaited {
                    awaited.deafen();
                }
                return None;
            }
            match self.input.take(self.limits.packet_bytes_max) {
                Ok(Some(packet)) => {
                    if let Some(event) = self.handle_packet(packet) {
                        return Some(event);
                    }
                }
                Ok(None) => return None,
                Err(malformed) => self.end(ClientCloseReason::Malformed(malformed)),
            }
        }
    }

    fn handle_packet(&mut self, packet: Packet) -> Option<ClientEvent> {
        let packet_type = packet.packet_type();
        match packet {
            Packet::Publish(publish) => return self.handle_publish(publish),
            Packet::Suback { packet_id, codes } if self.outbound.in_flight.finish(packet_id) => {
                return Some(ClientEvent::Subscribed { packet_id, codes });
            }
            Packet::Unsuback(packet_id) if self.outbound.in_flight.finish(packet_id) => {
                return Some(ClientEvent::Unsubscribed { packet_id });
            }
            // Dealt with when they arrived.
            Packet::Pingresp | Packet::Puback(_) => {}
            _ => self.end(ClientCloseReason::Unexpected(packet_type)),
        }
        None
    }

    fn handle_publish(&mut self, publish: Publish) -> Option<ClientEvent> {
        let packet_id = match publish.delivery {
            Delivery::AtMostOnce => None,
            Delivery::AtLeastOnce(packet_id) => Some(packet_id),
            Delivery::ExactlyOnce(_) => {
                self.end(ClientCloseReason::ExactlyOnce);
                return None;
            }
        };
        let ticket = match self.limits.acknowledgement {
            Acknowledgement::ByCaller => Some(self.window.push(packet_id, publish.payload.len())),
            Acknowledgement::AtOnce => {
                if let Some(packet_id) = packet_id {
                    self.outbound.output.push_ack(PacketType::Puback, packet_id);
                }
                None
            }
        };
        Some(ClientEvent::Message { ticket, message: publish.into() })
    }

    fn poll_closed(&mut self) -> Option<ClientEvent> {
        let State::Closed(reason) = &mut self.state else { return None };
        reason.take().map(ClientEvent::Closed)
    }

    /// Ends the connection, unless it is over. Output stays, everything else is given back.
    fn end(&mut self, reason: ClientCloseReason) {
        if self.is_closed() {
            return;
        }
        self.state = State::Closed(Some(reason));
        self.input.clear();
        self.window = Window::default();
        self.outbound.end();
        self.pings.awaited = None;
    }

    fn check_room(&self) -> Result<(), Unpublished> {
        if !matches!(self.state, State::Open) {
            return Err(Unpublished::NotConnected);
        }
        if self.output().len() >= self.limits.output_bytes_max {
            return Err(Unpublished::OutputFull);
        }
        Ok(())
    }

    fn is_inbound_full(&self) -> bool {
        self.window.len() >= self.limits.inbound_max
    }
}
