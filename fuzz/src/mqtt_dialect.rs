//! A client of the MQTT dialects that says anything: it is heard or closed, asks only for itself, and is never echoed
//! more than it said.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use dialect::mqtt::Session;
use dialect::session::{Ask, Session as _};
use domain::clock::UnixTime;
use domain::ids::{HubKey, TrackingId};
use domain::operation::identity::IdentityName;
use domain::operation::session::{Answer, AuthenticationMethod, ConnectedDevice, Seat, Subscriptions};
use domain::operation::{ErrorKind, Failure, Operation, Reply, registration, session, telemetry, twin};
use proto::mqtt::codec::{decode, encode};
use proto::mqtt::{Connect, Delivery, Filter, Limits, Packet, PacketId, Publish, QoS, Text};

use crate::refusal::SameRefusals;

/// Most bytes of answers to one line: an error body, a topic with what it echoes, and the packets around them.
const ANSWER_BYTES_MAX: usize = 4_096;

/// Reads `input` as lines: a user name first, then what is done, by its first character: `s` and `u` with a filter, `0`,
/// `1` and `2` publish to a topic, with a body behind a tab.
///
/// # Panics
/// When a promise of [`Session`] is broken.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let mut lines = text.split('\n');
    let Some(username) = lines.next().and_then(readable) else { return };
    let mut client = Client::new();
    client.send(&Packet::Connect(Box::new(Connect {
        client_id: Text::parse(Bytes::from_static(b"dev-1")).expect("a text"),
        clean_session: false,
        keep_alive_s: 60,
        will: None,
        username: Some(username),
        password: None,
    })));
    for (number, line) in (1..).zip(lines.take(200)) {
        if let Some(packet) = packet(line, number) {
            client.send(&packet);
        }
        client.pass();
    }
    client.session.handle_eof(client.now);
    client.settle();
    assert!(client.session.closed().is_some(), "a connection ends with its bytes");
}

fn readable(text: &str) -> Option<Text> {
    Text::parse(Bytes::copy_from_slice(text.as_bytes())).ok()
}

fn packet(line: &str, number: u16) -> Option<Packet> {
    let how = line.chars().next()?;
    let (topic, body) = line.get(how.len_utf8()..)?.split_once('\t').unwrap_or((line.get(how.len_utf8()..)?, ""));
    let (topic, packet_id) = (readable(topic).filter(|topic| !topic.is_empty())?, PacketId::new(number)?);
    let publish = |delivery| {
        let payload = Bytes::copy_from_slice(body.as_bytes());
        Packet::Publish(Publish { topic: topic.clone(), payload, delivery, retain: false, dup: false })
    };
    Some(match how {
        's' => Packet::Subscribe { packet_id, filters: vec![Filter { topic: topic.clone(), qos: QoS::ExactlyOnce }] },
        'u' => Packet::Unsubscribe { packet_id, filters: vec![topic.clone()] },
        '1' => publish(Delivery::AtLeastOnce(packet_id)),
        '2' => publish(Delivery::ExactlyOnce(packet_id)),
        _ => publish(Delivery::AtMostOnce),
    })
}

struct Client {
    session: Session,
    now: Instant,
    /// Who the hub took it for.
    seat: Option<IdentityName>,
    registration_id: Option<String>,
    said_bytes: usize,
    heard_bytes: usize,
}

impl Client {
    fn new() -> Self {
        let now = Instant::now();
        let session = Session::new(Arc::new(Limits::default()), Arc::new(SameRefusals), true, now);
        Self { session, now, seat: None, registration_id: None, said_bytes: 0, heard_bytes: 0 }
    }

    fn send(&mut self, packet: &Packet) {
        let mut bytes = Vec::new();
        if encode(packet, &mut bytes).is_err() || self.session.closed().is_some() {
            return;
        }
        self.said_bytes += bytes.len();
        self.session.handle_input(&bytes, self.now);
        self.settle();
    }

    fn pass(&mut self) {
        self.now += Duration::from_millis(100);
        self.session.handle_timeout(self.now);
        self.settle();
    }

    /// Answers what is asked, and hears what is said.
    fn settle(&mut self) {
        while let Some(ask) = self.session.poll_ask() {
            let reply = self.reply(&ask);
            self.session.handle_reply(ask.id, reply, self.now);
        }
        let mut output = BytesMut::from(self.session.output());
        self.session.handle_written(output.len(), self.now);
        self.heard_bytes += output.len();
        while decode(&mut output, usize::MAX).expect("what is said can be read").is_some() {}
        assert!(output.is_empty(), "whole packets are said");
        assert!(self.heard_bytes <= self.said_bytes + ANSWER_BYTES_MAX * 201, "an echo without bound");
    }

    fn reply(&mut self, ask: &Ask) -> Result<Reply, Failure> {
        match &ask.operation {
            Operation::Session(session::Ask::Connect(connect)) => {
                let name = connect.claimed.clone();
                assert!(self.seat.replace(name.clone()).is_none(), "one connection, one identity");
                let device = ConnectedDevice::seat(Seat {
                    hub: HubKey(1),
                    name,
                    generation: "1".into(),
                    epoch: 1,
                    authentication: AuthenticationMethod::X509,
                    model_id: None,
                });
                let subscriptions = Subscriptions::default();
                Ok(Reply::Session(Answer::Connected { device, subscriptions, session_present: false }))
            }
            Operation::Session(session::Ask::Subscribe { device, .. } | session::Ask::Disconnect { device })
            | Operation::Telemetry(telemetry::Ask::Send { device, .. } | telemetry::Ask::Will { device, .. })
            | Operation::Twin(twin::Ask::Read(device) | twin::Ask::Report { device, .. }) => {
                assert_eq!(Some(&device.name), self.seat.as_ref(), "asked for somebody else");
                Err(failure())
            }
            Operation::Registration(registration::Ask { registration_id, .. }) => {
                let known = self.registration_id.get_or_insert_with(|| registration_id.clone());
                assert_eq!(known, registration_id, "one connection, one registration ID");
                Err(failure())
            }
            other => panic!("a device asked for {other:?}"),
        }
    }
}

fn failure() -> Failure {
    let at = UnixTime::from_seconds(1_800_000_000);
    let tracking = TrackingId::from_bits(1);
    Failure { kind: ErrorKind::Unavailable, public: "Later.".into(), tracking, retry_after_s: Some(3), at }
}
