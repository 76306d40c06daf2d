//! Scripts against the server's end: what arrives, what is reported, what is sent, at which time.

use bytes::{Bytes, BytesMut};

use super::*;
use crate::mqtt::codec;
use crate::mqtt::packet::QoS;

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

#[test]
fn a_full_window_of_bytes_stops_reading_too() {
    let limits = Limits { inbound_bytes_max: 60, ..Limits::default() };
    let mut script = Script::open(limits);
    script.receive(&[publish_1(1), publish_1(2), publish_1(3)]);
    let tickets = script.tickets();
    assert_eq!(tickets.len(), 2, "31 bytes each: the second passes the limit and is the last");
    assert!(!script.connection.wants_input());

    script.connection.acknowledge(tickets[1]);
    assert_eq!(script.tickets().len(), 1, "bytes are free as soon as a message is done, in whatever order");
}

#[test]
fn unwritten_output_stops_reading_and_publishing() {
    let limits = Limits { output_bytes_max: 6, ..Limits::default() };
    let mut script = Script::open(limits);
    script.receive(&[Packet::Pingreq, Packet::Pingreq]);
    assert!(script.connection.wants_input());
    script.receive(&[Packet::Pingreq]);
    assert!(!script.connection.wants_input());
    assert_eq!(script.connection.publish(&message("", QoS::AtMostOnce)), Err(Unpublished::OutputFull));

    script.connection.handle_written(1);
    assert!(script.connection.wants_input());
    assert_eq!(script.connection.publish(&message("", QoS::AtMostOnce)), Ok(None));
}

#[test]
fn bytes_may_arrive_one_by_one() {
    let packets = [publish_1(1), Packet::Pingreq, subscribe(2), publish_0(), Packet::Disconnect];
    let mut whole = Script::open(Limits::default());
    whole.receive(&packets);
    let (events, sent) = (whole.events(), whole.sent());
    assert_eq!(events.len(), 4);

    let mut slow = Script::open(Limits::default());
    let mut slow_events = Vec::new();
    for byte in encoded(&packets) {
        slow.connection.handle_input(&[byte], slow.now);
        slow_events.extend(slow.events());
    }
    assert_eq!(slow_events, events);
    assert_eq!(slow.sent(), sent);
}

#[test]
fn a_ping_cut_in_two_behind_a_message_is_answered() {
    let mut script = Script::open(Limits::default());
    let bytes = encoded(&[publish_1(1), Packet::Pingreq]);
    let (head, tail) = bytes.split_at(bytes.len() - 1);
    script.connection.handle_input(head, script.now);
    assert_eq!(script.tickets().len(), 1);
    assert_eq!(script.sent(), []);
    script.connection.handle_input(tail, script.now);
    assert_eq!(script.sent(), [Packet::Pingresp]);
}

#[test]
fn the_first_packet_must_be_a_connect_of_this_version() {
    let foreign = |name: &str, level| Packet::ForeignConnect { name: text(name), level };
    let connack_1: &[u8] = &[0x20, 2, 0, 1];
    let cases: &[(&str, Vec<u8>, CloseReason, &[u8])] = &[
        ("a ping", encoded(&[Packet::Pingreq]), CloseReason::NotConnect(PacketType::Pingreq), &[]),
        ("a message", encoded(&[publish_0()]), CloseReason::NotConnect(PacketType::Publish), &[]),
        ("a message's header alone", vec![0x30, 0x7f], CloseReason::NotConnect(PacketType::Publish), &[]),
        ("HTTP", b"GET / HTTP/1.1\r\n".to_vec(), CloseReason::Malformed(Malformed::Flags), &[]),
        ("type 0", vec![0], CloseReason::Malformed(Malformed::PacketType(0)), &[]),
        (
            "a length that lies",
            vec![0x10, 0xff, 0xff, 0xff, 0x7f],
            CloseReason::Malformed(Malformed::TooLarge { bytes: 268_435_460, max: 16 * 1024 }),
            &[],
        ),
        ("MQTT 3.1", encoded(&[foreign("MQIsdp", 3)]), CloseReason::ForeignProtocol { level: 3 }, connack_1),
        ("MQTT 5", encoded(&[foreign("MQTT", 5)]), CloseReason::ForeignProtocol { level: 5 }, &[0x20, 3, 0, 0x84, 0]),
        ("another name", encoded(&[foreign("AMQP", 4)]), CloseReason::ForeignProtocol { level: 4 }, connack_1),
    ];
    for (name, bytes, reason, answer) in cases {
        let mut script = Script::new(Limits::default());
        script.connection.handle_input(bytes, script.now);
        assert_eq!(script.closed(), *reason, "{name}");
        assert_eq!(script.connection.output(), *answer, "{name}");
        assert!(script.connection.is_closed() && !script.connection.wants_input(), "{name}");
        assert_eq!(script.connection.poll_timeout(), None, "{name}");
    }
}

#[test]
fn what_follows_a_connect_waits_for_the_decision() {
    let mut script = Script::new(Limits::default());
    script.receive(&[Packet::Connect(Box::new(connect())), subscribe(1), Packet::Pingreq]);
    assert_eq!(script.events(), [Event::Connect(Box::new(connect()))]);
    assert!(!script.connection.wants_input());
    assert_eq!(script.connection.poll_timeout(), None, "deciding is the caller's time");
    assert_eq!(script.sent(), []);
    assert_eq!(script.connection.publish(&message("", QoS::AtMostOnce)), Err(Unpublished::NotConnected));

    script.connection.accept(true, script.now);
    let accepted = Packet::Connack(Connack::Accepted { session_present: true });
    assert_eq!(script.sent(), [accepted, Packet::Pingresp]);
    assert!(matches!(script.events()[..], [Event::Subscribe { .. }]));
}

#[test]
fn a_refused_client_gets_its_code_and_is_not_heard_again() {
    let refusals = [
        Refusal::ProtocolVersion,
        Refusal::IdentifierRejected,
        Refusal::ServerUnavailable,
        Refusal::BadUsernameOrPassword,
        Refusal::NotAuthorized,
    ];
    for (code, refusal) in (1..).zip(refusals) {
        let mut script = Script::new(Limits::default());
        let connect = Connect { will: Some(Box::new(will())), ..connect() };
        script.receive(&[Packet::Connect(Box::new(connect)), publish_1(1), Packet::Pingreq]);
        assert_eq!(script.events().len(), 1);
        script.connection.refuse(refusal);
        assert_eq!(script.connection.output(), [0x20, 2, 0, code]);
        let closed = Closed { reason: CloseReason::Refused(refusal), will: None };
        assert_eq!(script.events(), [Event::Closed(closed)]);
    }
}

#[test]
fn a_connect_has_its_time() {
    let mut script = Script::new(Limits { connect_timeout: Duration::from_secs(5), ..Limits::default() });
    let bytes = encoded(&[Packet::Connect(Box::new(connect()))]);
    script.connection.handle_input(&bytes[..bytes.len() - 1], script.now);
    assert_eq!(script.timeout_s(), Some(5));
    script.pass(Duration::from_millis(4_999));
    assert_eq!(script.events(), []);
    script.pass(Duration::from_millis(1));
    assert_eq!(script.closed(), CloseReason::ConnectTimeout);
    assert_eq!(script.sent(), []);
}

#[test]
fn silence_is_suffered_for_one_and_a_half_keep_alives() {
    // `contract/hub-device.md` 2.4: the longest is 1767 s, also for a client that promises nothing.
    let cases = [(1, 1), (60, 90), (230, 345), (1177, 1765), (1178, 1767), (u16::MAX, 1767), (0, 1767)];
    for (keep_alive_s, timeout_s) in cases {
        let connect = Connect { keep_alive_s, ..connect() };
        let mut script = Script::open_with(Limits::default(), connect);
        assert_eq!(script.timeout_s(), Some(timeout_s), "{keep_alive_s}");
        script.pass(Duration::from_millis(timeout_s * 1000 - 600));
        script.receive(&[Packet::Pingreq]);
        assert_eq!(script.timeout_s(), Some(timeout_s), "{keep_alive_s}: heard");
        assert_eq!(script.events(), []);
        script.pass(Duration::from_secs(timeout_s + 1));
        assert_eq!(script.closed(), CloseReason::KeepAlive, "{keep_alive_s}");
    }
}

#[test]
fn half_a_packet_does_not_count_as_a_sign_of_life() {
    let mut script = Script::open(Limits::default());
    script.pass(Duration::from_secs(89));
    script.connection.handle_input(&[0x30, 50, 0], script.now);
    script.pass(Duration::from_secs(1));
    assert_eq!(script.closed(), CloseReason::KeepAlive);
}

#[test]
fn a_client_that_is_not_listened_to_is_not_silent() {
    let mut script = Script::open(Limits { inbound_max: 1, ..Limits::default() });
    script.receive(&[publish_1(1)]);
    let tickets = script.tickets();
    assert_eq!(script.timeout_s(), None);
    script.pass(Duration::from_secs(1000));
    assert_eq!(script.events(), []);

    script.connection.acknowledge(tickets[0]);
    assert_eq!(script.events(), []);
    script.connection.handle_timeout(script.now);
    assert_eq!(script.events(), [], "what it said meanwhile may be in the socket");
    assert_eq!(script.timeout_s(), Some(90));
    script.pass(Duration::from_secs(90));
    assert_eq!(script.closed(), CloseReason::KeepAlive);
}

#[test]
fn a_client_that_does_not_read_is_silent() {
    let mut script = Script::open(Limits { output_bytes_max: 2, ..Limits::default() });
    script.receive(&[Packet::Pingreq]);
    assert!(!script.connection.wants_input());
    script.pass(Duration::from_secs(90));
    assert_eq!(script.closed(), CloseReason::KeepAlive);
}

#[test]
fn a_repetition_of_an_unanswered_message_is_the_same_message() {
    let repeated = |packet_id| match publish_1(packet_id) {
        Packet::Publish(publish) => Packet::Publish(Publish { dup: true, ..publish }),
        other => other,
    };
    let mut script = Script::open(Limits::default());
    script.receive(&[publish_1(1), repeated(1), repeated(2)]);
    let tickets = script.tickets();
    assert_eq!(tickets.len(), 2, "1 once; 2 may have been sent on an earlier connection");

    script.connection.acknowledge(tickets[0]);
    assert_eq!(script.sent(), pubacks([1]));
    script.receive(&[repeated(1)]);
    assert_eq!(script.tickets().len(), 1, "the PUBACK has left: a new message (MQTT 3.1.1, section 4.3.2)");
}

#[test]
fn packets_that_clients_must_not_send_end_the_connection() {
    let exactly_once = match publish_1(1) {
        Packet::Publish(publish) => Packet::Publish(Publish { delivery: Delivery::ExactlyOnce(id(1)), ..publish }),
        other => other,
    };
    let unsubscribed = Packet::Unsuback(id(1));
    let cases = [
        (Packet::Connect(Box::new(connect())), CloseReason::SecondConnect),
        (Packet::ForeignConnect { name: text("MQTT"), level: 5 }, CloseReason::SecondConnect),
        (Packet::Connack(Connack::Accepted { session_present: false }), CloseReason::Unexpected(PacketType::Connack)),
        (exactly_once, CloseReason::ExactlyOnce),
        (Packet::Pubrec(id(1)), CloseReason::Unexpected(PacketType::Pubrec)),
        (Packet::Pubrel(id(1)), CloseReason::Unexpected(PacketType::Pubrel)),
        (Packet::Pubcomp(id(1)), CloseReason::Unexpected(PacketType::Pubcomp)),
        (
            Packet::Suback { packet_id: id(1), codes: vec![SubackCode::Failure] },
            CloseReason::Unexpected(PacketType::Suback),
        ),
        (unsubscribed, CloseReason::Unexpected(PacketType::Unsuback)),
        (Packet::Pingresp, CloseReason::Unexpected(PacketType::Pingresp)),
    ];
    for (packet, reason) in cases {
        let mut script = Script::open(Limits::default());
        script.receive(&[publish_1(9), packet.clone(), publish_1(10)]);
        let events = script.events();
        assert!(matches!(events[..], [Event::Publish { .. }, Event::Closed(_)]), "{packet:?}: {events:?}");
        assert!(events.contains(&Event::Closed(Closed { reason, will: None })), "{packet:?}: {events:?}");
        assert_eq!(script.sent(), [], "{packet:?}");
    }
}

#[test]
fn messages_go_out_with_identifiers_and_come_back_acknowledged() {
    let mut script = Script::open(Limits { in_flight_max: 2, ..Limits::default() });
    let publish = |script: &mut Script, qos| script.connection.publish(&message("{}", qos));
    assert_eq!(publish(&mut script, QoS::AtLeastOnce), Ok(Some(id(1))));
    assert_eq!(publish(&mut script, QoS::AtMostOnce), Ok(None));
    assert_eq!(publish(&mut script, QoS::AtLeastOnce), Ok(Some(id(2))));
    assert_eq!(publish(&mut script, QoS::AtLeastOnce), Err(Unpublished::InFlightFull));
    assert_eq!(publish(&mut script, QoS::AtMostOnce), Ok(None));
    assert_eq!(publish(&mut script, QoS::ExactlyOnce), Err(Unpublished::ExactlyOnce));
    assert_eq!(script.sent(), [publish_1(1), publish_0(), publish_1(2), publish_0()]);
    assert_eq!(script.connection.in_flight(), 2);

    // 0 is what C# sends for QoS 0 (`contract/dps-device.md` 3.5); 9 was never sent; 2 comes twice.
    script.receive(&pubacks([0, 2, 9, 2]));
    assert_eq!(script.events(), [Event::Acknowledged { packet_id: id(2) }]);
    assert_eq!(publish(&mut script, QoS::AtLeastOnce), Ok(Some(id(3))));
}

#[test]
fn acknowledgements_get_past_a_full_window() {
    let mut script = Script::open(Limits { inbound_max: 1, ..Limits::default() });
    assert_eq!(script.connection.publish(&message("", QoS::AtLeastOnce)), Ok(Some(id(1))));
    script.receive(&[publish_1(1), publish_1(2), Packet::Puback(Some(id(1)))]);
    let events = script.events();
    assert!(matches!(events[..], [Event::Acknowledged { .. }, Event::Publish { .. }]), "{events:?}");
}

#[test]
fn a_message_too_long_for_mqtt_takes_no_identifier() {
    let mut script = Script::open(Limits::default());
    let long = Message::new(text("t"), Bytes::from(vec![0; codec::BODY_BYTES_MAX]), QoS::AtLeastOnce);
    assert_eq!(script.connection.publish(&long), Err(Unpublished::Oversized));
    assert_eq!(script.connection.in_flight(), 0);
    assert_eq!(script.sent(), []);
}

#[test]
fn a_will_is_left_by_every_end_but_a_goodbye() {
    type End = fn(&mut Script);
    let cases: &[(&str, End, CloseReason, bool)] = &[
        ("goodbye", |script| script.receive(&[Packet::Disconnect]), CloseReason::Disconnected, false),
        ("loss", |script| script.connection.handle_eof(), CloseReason::Lost, true),
        ("silence", |script| script.pass(Duration::from_secs(90)), CloseReason::KeepAlive, true),
        ("ours", |script| script.connection.close(), CloseReason::Server, true),
        (
            "nonsense",
            |script| script.connection.handle_input(&[0xff], script.now),
            CloseReason::Malformed(Malformed::PacketType(15)),
            true,
        ),
    ];
    for (name, end, reason, leaves_will) in cases {
        let connect = Connect { will: Some(Box::new(will())), ..connect() };
        let mut script = Script::open_with(Limits::default(), connect);
        end(&mut script);
        let will = leaves_will.then(|| Box::new(will()));
        assert_eq!(script.events(), [Event::Closed(Closed { reason: *reason, will })], "{name}");
        script.connection.handle_eof();
        assert_eq!(script.events(), [], "{name}: it ends once");
    }
}

#[test]
fn after_the_end_calls_change_nothing() {
    let mut script = Script::open(Limits::default());
    script.receive(&[publish_1(1), subscribe(2)]);
    let Some(Event::Publish { ticket, .. }) = script.connection.poll_event() else { panic!("no message") };
    script.connection.close();
    assert_eq!(script.closed(), CloseReason::Server);

    script.connection.acknowledge(ticket);
    script.connection.suback(id(2), vec![SubackCode::Failure]);
    script.connection.unsuback(id(2));
    script.connection.accept(false, script.now);
    script.connection.refuse(Refusal::NotAuthorized);
    script.receive(&[Packet::Pingreq]);
    script.pass(Duration::from_secs(1_000_000));
    assert_eq!(script.connection.publish(&message("", QoS::AtMostOnce)), Err(Unpublished::NotConnected));
    assert_eq!(script.sent(), []);
    assert_eq!(script.events(), []);
}

#[test]
fn every_request_is_answered_under_its_identifier() {
    let mut script = Script::open(Limits::default());
    script.receive(&[subscribe(5), Packet::Unsubscribe { packet_id: id(6), filters: vec![text("a"), text("b")] }]);
    let events = script.events();
    assert_eq!(script.connection.unanswered(), 2);
    assert!(matches!(&events[..], [Event::Subscribe { .. }, Event::Unsubscribe { filters, .. }] if filters.len() == 2));

    let codes = vec![SubackCode::Failure, SubackCode::Granted(QoS::AtLeastOnce)];
    script.connection.unsuback(id(6));
    script.connection.suback(id(5), codes.clone());
    assert_eq!(script.sent(), [Packet::Unsuback(id(6)), Packet::Suback { packet_id: id(5), codes }]);
    assert_eq!(script.connection.unanswered(), 0);
}

#[test]
fn an_idle_connection_is_small() {
    let mut script = Script::open(Limits::default());
    script.receive(&(1..=100).map(publish_1).collect::<Vec<_>>());
    for ticket in script.tickets() {
        script.connection.acknowledge(ticket);
    }
    assert_eq!(script.sent().len(), 100);
    script.receive(&[Packet::Pingreq]);
    assert_eq!(script.events(), []);
    assert_eq!(script.sent(), [Packet::Pingresp]);

    assert_eq!(script.connection.input.memory_bytes(), 0);
    assert!(size_of::<Connection>() <= 384, "{}", size_of::<Connection>());
}

#[test]
fn memory_grows_with_what_arrives_not_with_what_is_announced() {
    let mut script = Script::open(Limits::default());
    script.connection.handle_input(&[0x30, 0x80, 0x80, 0x10], script.now);
    assert_eq!(script.events(), []);
    assert!(script.connection.input.memory_bytes() < 64);

    let mut received = 4;
    for _ in 0..16 {
        script.connection.handle_input(&[b'x'; 16 * 1024 - 1], script.now);
        received += 16 * 1024 - 1;
        assert!(script.connection.input.memory_bytes() <= 2 * received);
    }
    script.connection.handle_input(&[b'x'; 16], script.now);
    assert_eq!(script.tickets().len(), 1);
    assert_eq!(script.connection.input.memory_bytes(), 0, "the message has it");
}
