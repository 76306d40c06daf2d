//! A client that sends anything and a caller that does anything, at any time: the server's end keeps its promises.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use proto::mqtt::codec::decode;
use proto::mqtt::{
    CloseReason, Closed, Connection, Event, Limits, Message, Packet, PacketId, QoS, Refusal, SubackCode, Text, Ticket,
    Unpublished,
};

use crate::script::Script;

const PACKET_BYTES_MAX: usize = 200;
const IN_FLIGHT_MAX: usize = 3;
/// The longest answer to one request: SUBACK with as many codes as filters fit into a packet.
const ANSWER_BYTES_MAX: usize = PACKET_BYTES_MAX;
/// All that a client of MQTT 5 is told: flags, the reason (an unsupported version), no properties (MQTT 5, section 3.2).
const CONNACK_OF_MQTT_5: [u8; 5] = [0x20, 3, 0, 0x84, 0];

/// Reads `input` as a script: four bytes of limits, then steps.
///
/// # Panics
/// When a promise of [`Connection`] is broken.
pub fn check(input: &[u8]) {
    let mut script = Script(input);
    let limits = Limits {
        connect_bytes_max: PACKET_BYTES_MAX,
        packet_bytes_max: PACKET_BYTES_MAX,
        connect_timeout: Duration::from_secs(30),
        keep_alive_max: Duration::from_secs(100),
        idle_timeout: Duration::from_secs(100),
        inbound_max: script.number(1, 6),
        inbound_bytes_max: script.number(1, 250),
        in_flight_max: script.number(0, IN_FLIGHT_MAX),
        output_bytes_max: script.number(1, 250),
    };
    let mut session = Session::new(limits);
    while !script.is_over() {
        session.step(&mut script);
        session.check();
    }
    session.finish();
}

/// A connection, and what is known of it from outside.
struct Session {
    connection: Connection,
    limits: Limits,
    now: Instant,
    /// Messages reported and not acknowledged.
    open: Vec<(Ticket, usize)>,
    /// QoS 1 messages reported and not answered, in order of arrival, and whether they have been acknowledged.
    unanswered: VecDeque<(Ticket, bool)>,
    requests: Vec<(PacketId, Option<usize>)>,
    in_flight: Vec<PacketId>,
    written: BytesMut,
    was_accepted: bool,
    was_closed: bool,
    /// Whether it was closed with words of MQTT 5.
    is_of_mqtt_5: bool,
    connects: usize,
}

impl Session {
    fn new(limits: Limits) -> Self {
        let now = Instant::now();
        Self {
            connection: Connection::new(Arc::new(limits.clone()), now),
            limits,
            now,
            open: Vec::new(),
            unanswered: VecDeque::new(),
            requests: Vec::new(),
            in_flight: Vec::new(),
            written: BytesMut::new(),
            was_accepted: false,
            was_closed: false,
            is_of_mqtt_5: false,
            connects: 0,
        }
    }

    fn step(&mut self, script: &mut Script<'_>) {
        match script.byte() % 16 {
            0 => self.receive(script.bytes_to(64)),
            1 => self.receive(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01c"),
            2 => self.receive(&[0x32, 0x07, 0, 1, b't', 0, script.byte(), b'h', b'i']),
            3 => self.receive(&[0x3a, 0x05, 0, 1, b't', 0, script.byte()]),
            4 => self.receive(&[0x30, 0x03, 0, 1, b't']),
            5 => self.receive(&[0xc0, 0]),
            6 => self.receive(&[0x40, 2, 0, script.byte()]),
            7 => self.receive(&[0x82, 0x06, 0, 1, 0, 1, b'f', script.byte() % 3]),
            8 => self.receive(&[0xa2, 0x05, 0, 1, 0, 1, b'f']),
            9 => self.acknowledge(script),
            10 => self.answer(script),
            11 => self.publish(script),
            12 => self.write(script.number(0, 255)),
            13 => self.pass(Duration::from_secs(script.number(0, 255) as u64)),
            14 => self.decide(script),
            _ => self.end(script),
        }
        self.report();
    }

    fn receive(&mut self, bytes: &[u8]) {
        if self.connection.wants_input() {
            self.connection.handle_input(bytes, self.now);
        }
    }

    fn acknowledge(&mut self, script: &mut Script<'_>) {
        if self.open.is_empty() {
            return;
        }
        let (ticket, _) = self.open.swap_remove(script.number(0, self.open.len() - 1));
        if let Some((_, is_acknowledged)) = self.unanswered.iter_mut().find(|(open, _)| *open == ticket) {
            *is_acknowledged = true;
        }
        self.connection.acknowledge(ticket);
        if script.byte().is_multiple_of(4) {
            self.connection.acknowledge(ticket);
        }
    }

    fn answer(&mut self, script: &mut Script<'_>) {
        if self.requests.is_empty() {
            return;
        }
        match self.requests.swap_remove(script.number(0, self.requests.len() - 1)) {
            (packet_id, Some(filters)) => self.connection.suback(packet_id, vec![SubackCode::Failure; filters]),
            (packet_id, None) => self.connection.unsuback(packet_id),
        }
    }

    fn publish(&mut self, script: &mut Script<'_>) {
        let qos = if script.byte().is_multiple_of(3) { QoS::AtMostOnce } else { QoS::AtLeastOnce };
        let topic = Text::try_from("t").expect("it is text");
        let was_open = self.was_accepted && !self.connection.is_closed();
        match self.connection.publish(&Message::new(topic, Bytes::from_static(b"payload"), qos)) {
            Ok(Some(packet_id)) => {
                assert!(!self.in_flight.contains(&packet_id), "an identifier is given twice");
                self.in_flight.push(packet_id);
            }
            Ok(None) => assert_eq!(qos, QoS::AtMostOnce),
            Err(Unpublished::InFlightFull) => assert_eq!(self.in_flight.len(), self.limits.in_flight_max),
            Err(Unpublished::OutputFull) => assert!(self.connection.output().len() >= self.limits.output_bytes_max),
            Err(Unpublished::NotConnected) => assert!(!was_open),
            Err(other) => panic!("{other}"),
        }
    }

    /// Writes up to `count` bytes, and reads them as the client would.
    fn write(&mut self, count: usize) {
        let output = self.connection.output();
        let written = output.get(..count).unwrap_or(output);
        self.written.extend_from_slice(written);
        let count = written.len();
        self.connection.handle_written(count);
        if self.is_of_mqtt_5 {
            assert!(CONNACK_OF_MQTT_5.starts_with(&self.written), "{:?}", self.written);
            return;
        }
        while let Some(packet) = decode(&mut self.written, usize::MAX).expect("we send packets") {
            if let Packet::Puback(packet_id) = packet {
                assert!(packet_id.is_some());
                let (_, is_acknowledged) = self.unanswered.pop_front().expect("a PUBACK for nothing");
                assert!(is_acknowledged, "a PUBACK before its turn");
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        let is_due = self.connection.poll_timeout().is_some_and(|at| at <= self.now);
        self.connection.handle_timeout(self.now);
        if is_due && !self.connection.is_closed() {
            let next = self.connection.poll_timeout().expect("time mattered, and it still does");
            assert!(next > self.now, "a driver would spin");
        }
    }

    fn decide(&mut self, script: &mut Script<'_>) {
        if self.connects == 0 || self.was_accepted {
            return;
        }
        if script.byte().is_multiple_of(8) {
            self.connection.refuse(Refusal::NotAuthorized);
        } else if !self.connection.is_closed() {
            self.connection.accept(true, self.now);
            self.was_accepted = true;
        }
    }

    fn end(&mut self, script: &mut Script<'_>) {
        match script.byte() % 8 {
            0 => self.connection.close(),
            1 => self.connection.handle_eof(),
            2 => self.receive(&[0xe0, 0]),
            _ => {}
        }
    }

    /// Takes every event.
    fn report(&mut self) {
        while let Some(event) = self.connection.poll_event() {
            assert!(!self.was_closed, "{event:?} after the end");
            match event {
                Event::Connect(_) => self.connects += 1,
                Event::Publish { ticket, message } => {
                    self.open.push((ticket, message.topic.len() + message.payload.len()));
                    if message.qos == QoS::AtLeastOnce {
                        self.unanswered.push_back((ticket, false));
                    }
                }
                Event::Subscribe { packet_id, filters } => self.requests.push((packet_id, Some(filters.len()))),
                Event::Unsubscribe { packet_id, .. } => self.requests.push((packet_id, None)),
                Event::Acknowledged { packet_id } => {
                    let index = self.in_flight.iter().position(|&id| id == packet_id);
                    self.in_flight.swap_remove(index.expect("nothing of that identifier was sent"));
                }
                Event::Closed(Closed { reason, .. }) => {
                    self.was_closed = true;
                    self.is_of_mqtt_5 = reason == CloseReason::ForeignProtocol { level: 5 };
                }
            }
        }
    }

    fn check(&self) {
        let Limits { inbound_max, inbound_bytes_max, output_bytes_max, .. } = self.limits;
        assert!(self.connects <= 1);
        assert!(self.connects == 1 || self.open.is_empty() && self.requests.is_empty());
        assert_eq!(self.was_closed, self.connection.is_closed());
        assert!(self.connection.unanswered() <= inbound_max);
        assert!(self.connection.in_flight() <= self.limits.in_flight_max);

        let open_bytes: usize = self.open.iter().map(|(_, bytes)| bytes).sum();
        assert!(self.was_closed || open_bytes < inbound_bytes_max + PACKET_BYTES_MAX);

        // What was there when input was last wanted, one answer to each request and message, a PINGRESP for each two
        // bytes of the last input, and the last message of our own.
        let output_bound = output_bytes_max + inbound_max * ANSWER_BYTES_MAX + 3 * PACKET_BYTES_MAX;
        assert!(self.connection.output().len() <= output_bound, "{}", self.connection.output().len());
    }

    /// A connection whose caller has done everything goes on, or is over.
    fn finish(mut self) {
        for _ in 0..=PACKET_BYTES_MAX {
            self.write(usize::MAX);
            for (ticket, _) in std::mem::take(&mut self.open) {
                self.unanswered.iter_mut().filter(|(open, _)| *open == ticket).for_each(|(_, done)| *done = true);
                self.connection.acknowledge(ticket);
            }
            while !self.requests.is_empty() {
                self.answer(&mut Script(&[]));
            }
            self.report();
            self.check();
        }
        self.write(usize::MAX);
        let is_deciding = self.connects == 1 && !self.was_accepted;
        assert!(self.connection.wants_input() || self.was_closed || is_deciding, "stuck");
        if !self.was_closed {
            assert!(self.unanswered.is_empty(), "an answer is missing");
            assert_eq!(self.connection.unanswered(), 0);
        }
    }
}
