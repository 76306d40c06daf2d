//! The client's end, against scripts and against [`Connection`], the server's end.

use bytes::Bytes;

use super::*;
use crate::mqtt::{Connection, Event, Limits, QoS, codec};

/// A client with a server's end that answers as it is told. Bytes travel at once, time stands still until it is moved.
struct Script {
    client: ClientConnection,
    server: Connection,
    now: Instant,
}

impl Script {
    fn new(limits: ClientLimits) -> Self {
        let now = Instant::now();
        let client = ClientConnection::new(Arc::new(limits), connect(), now).unwrap();
        Self { client, server: Connection::new(Arc::new(Limits::default()), now), now }
    }

    fn open(limits: ClientLimits) -> Self {
        let mut script = Self::new(limits);
        assert_eq!(script.carry_to_server(), [Event::Connect(Box::new(connect()))]);
        script.server.accept(true, script.now);
        assert_eq!(script.carry_to_client(), [ClientEvent::Connected { session_present: true }]);
        script
    }

    fn carry_to_server(&mut self) -> Vec<Event> {
        let bytes = self.client.output().to_vec();
        if !bytes.is_empty() {
            self.client.handle_written(bytes.len(), self.now);
            self.server.handle_input(&bytes, self.now);
        }
        std::iter::from_fn(|| self.server.poll_event()).collect()
    }

    fn carry_to_client(&mut self) -> Vec<ClientEvent> {
        let bytes = self.server.output().to_vec();
        self.server.handle_written(bytes.len());
        self.client.handle_input(&bytes);
        self.events()
    }

    fn events(&mut self) -> Vec<ClientEvent> {
        std::iter::from_fn(|| self.client.poll_event()).collect()
    }

    fn receive(&mut self, packets: &[Packet]) -> Vec<ClientEvent> {
        let mut bytes = Vec::new();
        for packet in packets {
            codec::encode(packet, &mut bytes).unwrap();
        }
        self.client.handle_input(&bytes);
        self.events()
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.client.handle_timeout(self.now);
        self.server.handle_timeout(self.now);
    }

    fn timeout_s(&self) -> Option<u64> {
        self.client.poll_timeout().map(|at| (at - self.now).as_secs())
    }
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
        clean_session: true,
        keep_alive_s: 60,
        will: None,
        username: Some(text("hub/dev-1")),
        password: Some(Bytes::from_static(b"SharedAccessSignature sr=")),
    }
}

fn message(qos: QoS) -> Message {
    Message::new(text("devices/dev-1/messages/devicebound/"), Bytes::from_static(b"{}"), qos)
}

fn publish(delivery: Delivery) -> Packet {
    let Message { topic, payload, retain, dup, .. } = message(delivery.qos());
    Packet::Publish(Publish { topic, payload, delivery, retain, dup })
}

#[test]
fn both_ends_understand_each_other() {
    let mut script = Script::open(ClientLimits::default());

    let filters = vec![Filter { topic: text("a/#"), qos: QoS::AtLeastOnce }];
    assert_eq!(script.client.subscribe(filters.clone()), Ok(id(1)));
    assert_eq!(script.carry_to_server(), [Event::Subscribe { packet_id: id(1), filters }]);
    let codes = vec![SubackCode::Granted(QoS::AtLeastOnce)];
    script.server.suback(id(1), codes.clone());
    assert_eq!(script.carry_to_client(), [ClientEvent::Subscribed { packet_id: id(1), codes }]);

    assert_eq!(script.client.publish(&message(QoS::AtLeastOnce)), Ok(Some(id(2))));
    assert_eq!(script.client.publish(&message(QoS::AtMostOnce)), Ok(None));
    let events = script.carry_to_server();
    let [Event::Publish { ticket, message: first }, Event::Publish { message: second, .. }] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!((first, second), (&message(QoS::AtLeastOnce), &message(QoS::AtMostOnce)));
    script.server.acknowledge(*ticket);
    assert_eq!(script.carry_to_client(), [ClientEvent::Acknowledged { packet_id: id(2) }]);

    assert_eq!(script.server.publish(&message(QoS::AtLeastOnce)), Ok(Some(id(1))));
    let received = ClientEvent::Message { ticket: None, message: message(QoS::AtLeastOnce) };
    assert_eq!(script.carry_to_client(), [received]);
    assert_eq!(script.carry_to_server(), [Event::Acknowledged { packet_id: id(1) }]);

    assert_eq!(script.client.unsubscribe(vec![text("a/#")]), Ok(id(3)));
    assert_eq!(script.carry_to_server(), [Event::Unsubscribe { packet_id: id(3), filters: vec![text("a/#")] }]);
    script.server.unsuback(id(3));
    assert_eq!(script.carry_to_client(), [ClientEvent::Unsubscribed { packet_id: id(3) }]);
    assert_eq!(script.client.in_flight(), 0);

    script.client.disconnect();
    assert_eq!(script.events(), [ClientEvent::Closed(ClientCloseReason::Disconnected)]);
    assert!(matches!(script.carry_to_server()[..], [Event::Closed(_)]));
}

#[test]
fn a_quiet_client_pings_before_its_promise_runs_out() {
    let mut script = Script::open(ClientLimits::default());
    assert_eq!(script.timeout_s(), Some(45), "three quarters of 60");
    for _ in 0..100 {
        script.pass(Duration::from_secs(45));
        assert_eq!(script.client.output(), [0xc0, 0]);
        assert_eq!(script.carry_to_server(), []);
        assert_eq!(script.timeout_s(), Some(30), "the server has its time to answer");
        assert_eq!(script.carry_to_client(), []);
        assert_eq!(script.timeout_s(), Some(45));
    }
    script.pass(Duration::from_secs(44));
    assert_eq!(script.client.publish(&message(QoS::AtMostOnce)), Ok(None));
    assert_eq!(script.carry_to_server().len(), 1);
    assert_eq!(script.timeout_s(), Some(45), "a message is a sign of life as well");
}

#[test]
fn a_client_without_keep_alive_never_pings() {
    let now = Instant::now();
    let connect = Connect { keep_alive_s: 0, ..connect() };
    let mut client = ClientConnection::new(Arc::new(ClientLimits::default()), connect, now).unwrap();
    client.handle_input(&[0x20, 2, 0, 0]);
    assert_eq!(client.poll_event(), Some(ClientEvent::Connected { session_present: false }));
    assert_eq!(client.poll_timeout(), None);
}

#[test]
fn a_server_that_does_not_answer_in_time_is_left() {
    let mut script = Script::new(ClientLimits::default());
    assert_eq!(script.timeout_s(), Some(60));
    script.pass(Duration::from_mins(1));
    assert_eq!(script.events(), [ClientEvent::Closed(ClientCloseReason::ConnackTimeout)]);

    let mut script = Script::open(ClientLimits::default());
    script.pass(Duration::from_secs(45));
    script.pass(Duration::from_secs(30));
    assert_eq!(script.events(), [ClientEvent::Closed(ClientCloseReason::PingrespTimeout)]);
}

#[test]
fn a_caller_may_acknowledge_late_and_the_window_holds_the_rest_back() {
    let limits = ClientLimits {
        acknowledgement: Acknowledgement::ByCaller,
        inbound_max: 2,
        pingresp_timeout: Duration::from_secs(1),
        ..ClientLimits::default()
    };
    let mut script = Script::open(limits);
    script.pass(Duration::from_secs(45));
    let packets: Vec<Packet> = (1..=3).map(|number| publish(Delivery::AtLeastOnce(id(number)))).collect();
    let ticket = |event: &ClientEvent| match event {
        ClientEvent::Message { ticket: Some(ticket), .. } => *ticket,
        other => panic!("no ticket: {other:?}"),
    };
    let tickets: Vec<Ticket> = script.receive(&packets).iter().map(ticket).collect();
    assert_eq!(tickets.len(), 2);
    assert!(!script.client.wants_input());
    assert_eq!(script.client.poll_timeout(), None, "the PINGRESP cannot be heard");
    script.pass(Duration::from_secs(2));
    script.client.handle_written(2, script.now);

    script.client.acknowledge(tickets[1]);
    assert_eq!(script.client.output(), []);
    script.client.acknowledge(tickets[0]);
    assert_eq!(script.client.output(), [0x40, 2, 0, 1, 0x40, 2, 0, 2]);
    assert_eq!(script.events().len(), 1);
    script.client.handle_timeout(script.now);
    assert!(!script.client.is_closed(), "it has a second from here");
    assert_eq!(script.timeout_s(), Some(1));
}

#[test]
fn what_servers_do_not_send_ends_the_connection() {
    use ClientCloseReason::Unexpected;

    let cases = [
        (Packet::Connack(Connack::Accepted { session_present: false }), Unexpected(PacketType::Connack)),
        (publish(Delivery::ExactlyOnce(id(1))), ClientCloseReason::ExactlyOnce),
        (Packet::Pubrel(id(1)), Unexpected(PacketType::Pubrel)),
        (Packet::Suback { packet_id: id(1), codes: vec![SubackCode::Failure] }, Unexpected(PacketType::Suback)),
        (Packet::Unsuback(id(1)), Unexpected(PacketType::Unsuback)),
        (Packet::Pingreq, Unexpected(PacketType::Pingreq)),
        (Packet::Disconnect, Unexpected(PacketType::Disconnect)),
    ];
    for (packet, reason) in cases {
        let mut script = Script::open(ClientLimits::default());
        assert_eq!(script.receive(std::slice::from_ref(&packet)), [ClientEvent::Closed(reason)], "{packet:?}");
    }

    let mut script = Script::open(ClientLimits::default());
    script.client.handle_input(&[0]);
    let malformed = ClientCloseReason::Malformed(Malformed::PacketType(0));
    assert_eq!(script.events(), [ClientEvent::Closed(malformed)]);
    script.client.handle_eof();
    assert_eq!(script.events(), [], "it ends once");
}

#[test]
fn a_connect_is_answered_by_a_connack_and_nothing_else() {
    let refused = Packet::Connack(Connack::Refused(Refusal::NotAuthorized));
    let cases = [
        (refused, ClientCloseReason::Refused(Refusal::NotAuthorized)),
        (Packet::Pingresp, ClientCloseReason::Unexpected(PacketType::Pingresp)),
        (publish(Delivery::AtMostOnce), ClientCloseReason::Unexpected(PacketType::Publish)),
    ];
    for (packet, reason) in cases {
        let mut script = Script::new(ClientLimits::default());
        assert_eq!(script.client.publish(&message(QoS::AtMostOnce)), Err(Unpublished::NotConnected));
        assert_eq!(script.receive(std::slice::from_ref(&packet)), [ClientEvent::Closed(reason)], "{packet:?}");
    }
}

#[test]
fn what_is_sent_is_bounded() {
    let limits = ClientLimits { in_flight_max: 1, output_bytes_max: 64, ..ClientLimits::default() };
    let mut script = Script::open(limits);
    assert_eq!(script.client.publish(&message(QoS::AtLeastOnce)), Ok(Some(id(1))));
    assert_eq!(script.client.publish(&message(QoS::AtLeastOnce)), Err(Unpublished::InFlightFull));
    assert_eq!(script.client.subscribe(vec![]), Err(Unpublished::InFlightFull));
    assert_eq!(script.client.publish(&message(QoS::AtMostOnce)), Ok(None));
    assert_eq!(script.client.publish(&message(QoS::AtMostOnce)), Err(Unpublished::OutputFull));
    assert_eq!(script.client.publish(&message(QoS::ExactlyOnce)), Err(Unpublished::OutputFull));
}

#[test]
fn a_password_too_long_for_mqtt_is_refused_before_anything_is_sent() {
    let connect = Connect { password: Some(Bytes::from(vec![b'x'; 65_536])), ..connect() };
    let refused = ClientConnection::new(Arc::new(ClientLimits::default()), connect, Instant::now());
    assert_eq!(refused.err(), Some(crate::mqtt::Oversized { bytes: 65_536 }));
}
