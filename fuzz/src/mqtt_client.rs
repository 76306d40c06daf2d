//! The client's end of a connection, whose server says anything: events come in order, nothing is answered twice, and no
//! more is kept than is allowed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use proto::mqtt::{
    Acknowledgement, ClientConnection, ClientEvent, ClientLimits, Connect, Filter, Message, PacketId, QoS, Text, Ticket,
};

/// Small enough for the fuzzer to pass it.
const PACKET_BYTES_MAX: usize = 300;
const INBOUND_MAX: usize = 4;
const IN_FLIGHT_MAX: usize = 8;
/// The bytes of a CONNACK without a session.
const ACCEPTED: [u8; 4] = [0x20, 2, 0, 0];
/// More than the client says by itself: CONNECT, what [`Client::ask`] sends, PINGREQ and DISCONNECT.
const OWN_BYTES_MAX: usize = 256;
/// The bytes of a PUBACK.
const PUBACK_BYTES: usize = 4;

/// Reads a byte of choices and one that says where to cut, then what the server sends.
///
/// # Panics
/// When a promise of [`ClientConnection`] is broken, or cutting makes a difference to a client that asked for nothing.
pub fn check(input: &[u8]) {
    let [choices, piece_bytes, wire @ ..] = input else { return };
    let acknowledgement = if choices & 1 == 0 { Acknowledgement::AtOnce } else { Acknowledgement::ByCaller };
    let piece_bytes = usize::from(*piece_bytes).max(1);
    if choices & 2 == 0 {
        let whole = Client::new(acknowledgement).hear(wire, wire.len().max(1));
        assert_eq!(Client::new(acknowledgement).hear(wire, piece_bytes), whole, "cutting makes a difference");
        return;
    }
    let mut client = Client::new(acknowledgement);
    client.hear_piece(&ACCEPTED);
    client.ask();
    client.hear(wire, piece_bytes);
}

struct Client {
    connection: ClientConnection,
    now: Instant,
    events: Vec<ClientEvent>,
    /// What was asked and not answered.
    asked: Vec<PacketId>,
    /// What was received and not acknowledged.
    open: Vec<Ticket>,
}

impl Client {
    fn new(acknowledgement: Acknowledgement) -> Self {
        let now = Instant::now();
        let limits = ClientLimits {
            packet_bytes_max: PACKET_BYTES_MAX,
            acknowledgement,
            inbound_max: INBOUND_MAX,
            in_flight_max: IN_FLIGHT_MAX,
            ..ClientLimits::default()
        };
        let connect = Connect {
            client_id: text(b"dev-1"),
            clean_session: true,
            keep_alive_s: 60,
            will: None,
            username: None,
            password: None,
        };
        let connection = ClientConnection::new(Arc::new(limits), connect, now).expect("the fields are short");
        Self { connection, now, events: Vec::new(), asked: Vec::new(), open: Vec::new() }
    }

    /// Two messages and two requests, which the server may answer.
    fn ask(&mut self) {
        for _ in 0..2 {
            let message = Message::new(text(b"a"), Bytes::from_static(b"b"), QoS::AtLeastOnce);
            let packet_id = self.connection.publish(&message).expect("there is room");
            self.asked.push(packet_id.expect("a message of QoS 1 has an identifier"));
        }
        let filter = Filter { topic: text(b"a/#"), qos: QoS::AtLeastOnce };
        self.asked.push(self.connection.subscribe(vec![filter]).expect("there is room"));
        self.asked.push(self.connection.unsubscribe(vec![text(b"a/#")]).expect("there is room"));
    }

    /// Hears all of `wire`, then its end. Gives what happened.
    fn hear(mut self, wire: &[u8], piece_bytes: usize) -> Vec<ClientEvent> {
        for piece in wire.chunks(piece_bytes) {
            self.hear_piece(piece);
        }
        self.connection.handle_eof();
        self.settle();
        assert!(matches!(self.events.last(), Some(ClientEvent::Closed(_))), "a connection ends with its bytes");
        assert!(self.connection.poll_timeout().is_none() && !self.connection.wants_input());
        self.events
    }

    fn hear_piece(&mut self, piece: &[u8]) {
        self.connection.handle_input(piece);
        self.settle();
        self.pass();
        self.settle();
    }

    /// Time passes, too little of it for a server to be given up, and everything is written.
    fn pass(&mut self) {
        self.now += Duration::from_millis(1);
        self.connection.handle_timeout(self.now);
        let written = self.connection.output().len();
        let acknowledgements = self.events.len() * PUBACK_BYTES;
        assert!(written <= OWN_BYTES_MAX + acknowledgements, "{written} bytes");
        self.connection.handle_written(written, self.now);
        assert!(self.connection.poll_timeout().is_none_or(|at| at > self.now), "a driver would spin");
    }

    /// Takes every event; acknowledges messages, the last one first, whenever there is no room for more.
    fn settle(&mut self) {
        loop {
            while let Some(event) = self.connection.poll_event() {
                self.take(event);
            }
            if self.open.is_empty() {
                return;
            }
            assert!(self.open.len() <= INBOUND_MAX, "more was received than is allowed");
            assert_eq!(self.connection.wants_input(), !self.connection.is_closed() && self.open.len() < INBOUND_MAX);
            while let Some(ticket) = self.open.pop() {
                self.connection.acknowledge(ticket);
                self.connection.acknowledge(ticket);
            }
        }
    }

    fn take(&mut self, event: ClientEvent) {
        let is_over = matches!(self.events.last(), Some(ClientEvent::Closed(_)));
        assert!(!is_over, "{event:?} after the end");
        match &event {
            ClientEvent::Connected { .. } => assert!(self.events.is_empty(), "the server accepts once"),
            ClientEvent::Message { ticket, .. } => self.open.extend(*ticket),
            ClientEvent::Subscribed { packet_id, .. }
            | ClientEvent::Unsubscribed { packet_id }
            | ClientEvent::Acknowledged { packet_id } => {
                let index = self.asked.iter().position(|asked| asked == packet_id);
                self.asked.swap_remove(index.expect("nothing of that identifier is unanswered"));
            }
            ClientEvent::Closed(_) => assert!(self.connection.is_closed()),
        }
        let is_connected = matches!(self.events.first(), None | Some(ClientEvent::Connected { .. }));
        assert!(is_connected || matches!(event, ClientEvent::Closed(_)), "{event:?} before CONNACK");
        self.events.push(event);
    }
}

fn text(bytes: &'static [u8]) -> Text {
    Text::parse(Bytes::from_static(bytes)).expect("a text")
}
