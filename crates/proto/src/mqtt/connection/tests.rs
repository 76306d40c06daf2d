//! Scripts against the server's end: what arrives, what is reported, what is sent, at which time.

use bytes::{Bytes, BytesMut};

use super::*;
use crate::mqtt::codec;

/// A connection with the driver's part played by hand. Time stands still until it is moved.
struct Script {
    connection: Connection,
    now: Instant,
}

impl Script {
    fn new(limits: Limits) -> Self {
        let now = Instant::now();
        Self { connection: Connection::new(Arc::new(limits), now), now }
    }

    /// A connection that has been accepted, with the CONNACK out of the way.
    fn open(limits: Limits) -> Self {
        Self::open_with(limits, connect())
    }

    fn open_with(limits: Limits, connect: Connect) -> Self {
        let mut script = Self::new(limits);
        script.receive(&[Packet::Connect(Box::new(connect.clone()))]);
        assert_eq!(script.events(), [Event::Connect(Box::new(connect))]);
        script.connection.accept(false, script.now);
        assert_eq!(script.sent(), [Packet::Connack(Connack::Accepted { session_present: false })]);
        script
    }

    fn receive(&mut self, packets: &[Packet]) {
        let bytes = encoded(packets);
        self.connection.handle_input(&bytes, self.now);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.connection.handle_timeout(self.now);
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.connection.poll_event()).collect()
    }

    fn tickets(&mut self) -> Vec<Ticket> {
        let ticket = |event| match event {
            Event::Publish { ticket, .. } => ticket,
            other => panic!("not a publish: {other:?}"),
        };
        self.events().into_iter().map(ticket).collect()
    }

    fn sent(&mut self) -> Vec<Packet> {
        let mut bytes = BytesMut::from(self.connection.output());
        self.connection.handle_written(bytes.len());
        let packets = std::iter::from_fn(|| codec::decode(&mut bytes, usize::MAX).unwrap()).collect();
        assert!(bytes.is_empty());
        packets
    }

    fn closed(&mut self) -> CloseReason {
        match self.events().pop() {
            Some(Event::Closed(Closed { reason, .. })) => reason,
            other => panic!("not closed: {other:?}"),
        }
    }

    fn timeout_s(&self) -> Option<u64> {
        self.connection.poll_timeout().map(|at| (at - self.now).as_secs())
    }
}

fn encoded(packets: &[Packet]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for packet in packets {
        codec::encode(packet, &mut bytes).unwrap();
    }
    bytes
}

fn text(text: &str) -> Text {
    Text::try_from(text.to_owned()).unwrap()
}

fn id(number: u16) -> PacketId {
    PacketId::new(number).unwrap()
}

fn connect() -> Connect {
    Connect {
        client_id: text("dev-1"),
        clean_session: false,
        keep_alive_s: 60,
        will: None,
        username: Some(text("hub/dev-1/?api-version=2021-04-12")),
        password: None,
    }
}

fn will() -> Will {
    Will { topic: text("devices/dev-1/messages/events/"), payload: "gone".into(), qos: QoS::AtLeastOnce, retain: true }
}

fn message(payload: &str, qos: QoS) -> Message {
    Message::new(text("devices/dev-1/messages/events/"), Bytes::from(payload.to_owned()), qos)
}

fn publish_1(packet_id: u16) -> Packet {
    let Message { topic, payload, .. } = message("{}", QoS::AtLeastOnce);
    Packet::Publish(Publish {
        topic,
        payload,
        delivery: Delivery::AtLeastOnce(id(packet_id)),
        retain: false,
        dup: false,
    })
}

fn publish_0() -> Packet {
    let Message { topic, payload, .. } = message("{}", QoS::AtMostOnce);
    Packet::Publish(Publish { topic, payload, delivery: Delivery::AtMostOnce, retain: false, dup: false })
}

fn subscribe(packet_id: u16) -> Packet {
    let filters = vec![Filter { topic: text("$iothub/twin/res/#"), qos: QoS::AtMostOnce }];
    Packet::Subscribe { packet_id: id(packet_id), filters }
}

fn pubacks(packet_ids: impl IntoIterator<Item = u16>) -> Vec<Packet> {
    packet_ids.into_iter().map(|packet_id| Packet::Puback(PacketId::new(packet_id))).collect()
}

#[test]
fn twenty_messages_done_in_reverse_are_acknowledged_in_order() {
    let mut script = Script::open(Limits::default());
    script.receive(&(1..=20).map(publish_1).collect::<Vec<_>>());
    let tickets = script.tickets();
    assert_eq!(tickets.len(), 20);

    for &ticket in tickets.iter().skip(1).rev() {
        script.connection.acknowledge(ticket);
        assert_eq!(script.sent(), [], "the first is not done");
    }
    script.connection.acknowledge(tickets[0]);
    assert_eq!(script.sent(), pubacks(1..=20));
    assert_eq!(script.connection.unanswered(), 0);
}

#[test]
fn a_ping_is_answered_while_a_reply_is_held_back() {
    let mut script = Script::open(Limits::default());
    script.receive(&[publish_1(7)]);
    let tickets = script.tickets();

    script.pass(Duration::from_secs(10));
    script.receive(&[Packet::Pingreq]);
    assert_eq!(script.sent(), [Packet::Pingresp]);
    assert_eq!(script.events(), []);

    script.connection.acknowledge(tickets[0]);
    assert_eq!(script.sent(), pubacks([7]));
}

#[test]
fn a_full_window_stops_reading_and_still_answers_pings_received() {
    let limits = Limits { inbound_max: 2, ..Limits::default() };
    let mut script = Script::open(limits);
    script.receive(&[publish_1(1), publish_0(), subscribe(3), Packet::Pingreq, publish_1(4)]);
    let tickets = script.tickets();
    assert_eq!(tickets.len(), 2, "the third waits");
    assert!(!script.connection.wants_input());
    assert_eq!(script.sent(), [Packet::Pingresp]);

    script.connection.acknowledge(tickets[1]);
    assert_eq!(script.events().len(), 0, "a message of QoS 0 behind an unanswered one keeps its place");
    script.connection.acknowledge(tickets[0]);
    assert_eq!(script.sent(), pubacks([1]));
    let events = script.events();
    assert!(matches!(events[..], [Event::Subscribe { .. }, Event::Publish { .. }]), "{events:?}");
    assert!(!script.connection.wants_input());

    script.connection.suback(id(3), vec![SubackCode::Granted(QoS::AtMostOnce)]);
    assert!(script.connection.wants_input());
}
