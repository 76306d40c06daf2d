//! Plays a session, from Rust or from a file under `testdata/wire`.
//!
//! In a file each line is one step; fields are set apart by ` | `:
//! `>` the client sends; `?` the service is asked; `=` and `!` it answers the oldest open ask, well or badly; `^` it says
//! something unasked; `<` the client receives; `~` seconds pass; `x` the session is over, and why; `@` tells what the TLS
//! handshakes from here on show; `#` is a remark. A payload may be written as `hex:…`. Before every step of the client's
//! or the service's own, everything sent and asked must have been listed. How a dialect's asks and answers are written is
//! in its [`Words`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use domain::clock::UnixTime;
use domain::ids::{DeviceId, HubKey, TrackingId};
use domain::operation::identity::IdentityName;
use domain::operation::session::{AuthenticationMethod, ConnectedDevice, Seat};
use domain::operation::{ErrorKind, Failure, Push, Reply};
use proto::mqtt::{
    Connack, Connect, Delivery, Filter, Limits, Packet, PacketId, Publish, QoS, SubackCode, Text, Will, codec,
};

use super::Session;
use crate::session::{Ask, AskId, Session as _};

/// What a dialect adds to the steps.
#[derive(Clone, Copy)]
pub struct Words {
    /// The user name of a CONNECT that states none, by its client ID.
    pub user_name: fn(&str) -> String,
    /// An ask, as a line.
    pub show_ask: fn(&Ask) -> String,
    /// The fields of an answer.
    pub read_reply: fn(&[&str]) -> Reply,
    /// The fields of something unasked.
    pub read_push: fn(&[&str]) -> Push,
}

pub struct Script {
    pub session: Session,
    pub limits: Arc<Limits>,
    pub now: Instant,
}

/// Whoever knows the time and numbers what is refused.
pub struct Refuses;

impl crate::session::Refusals for Refuses {
    fn refuse(&self, refused: crate::error::Refused) -> Failure {
        Failure {
            kind: refused.kind,
            public: refused.public,
            tracking: TrackingId::from_bits(7),
            retry_after_s: None,
            at: UnixTime::from_seconds(1_502_966_924),
        }
    }
}

impl Script {
    /// A connection whose handshake showed a certificate.
    pub fn new() -> Self {
        Self::open(true)
    }

    pub fn open(has_certificate: bool) -> Self {
        let (limits, now) = (Arc::new(Limits::default()), Instant::now());
        Self { session: Session::new(Arc::clone(&limits), Arc::new(Refuses), has_certificate, now), limits, now }
    }

    pub fn receive(&mut self, packets: &[Packet]) {
        let mut bytes = Vec::new();
        for packet in packets {
            codec::encode(packet, &mut bytes).unwrap();
        }
        self.session.handle_input(&bytes, self.now);
    }

    pub fn asks(&mut self) -> Vec<Ask> {
        std::iter::from_fn(|| self.session.poll_ask()).collect()
    }

    pub fn reply(&mut self, id: AskId, reply: Result<Reply, Failure>) {
        self.session.handle_reply(id, reply, self.now);
    }

    pub fn push(&mut self, push: Push) {
        self.session.handle_push(&anyone(), push, self.now);
    }

    pub fn pass(&mut self, time: Duration) {
        self.now += time;
        self.session.handle_timeout(self.now);
    }

    pub fn sent(&mut self) -> Vec<Packet> {
        let mut bytes = BytesMut::from(self.session.output());
        self.session.handle_written(bytes.len(), self.now);
        let packets = std::iter::from_fn(|| codec::decode(&mut bytes, usize::MAX).unwrap()).collect();
        assert!(bytes.is_empty());
        packets
    }
}

/// Whom a push is for: an MQTT connection belongs to one device only.
fn anyone() -> ConnectedDevice {
    let device = DeviceId::parse("dev-1").unwrap();
    ConnectedDevice::seat(Seat {
        hub: HubKey(1),
        name: IdentityName { device, module: None },
        generation: "1".into(),
        epoch: 1,
        authentication: AuthenticationMethod::X509,
        model_id: None,
    })
}

pub fn text(text: &str) -> Text {
    Text::try_from(text.to_owned()).unwrap()
}

pub fn connect(client_id: &str, user_name: &str) -> Connect {
    Connect {
        client_id: text(client_id),
        clean_session: false,
        keep_alive_s: 60,
        will: None,
        username: Some(text(user_name)),
        password: None,
    }
}

pub fn publish(topic: &str, qos: QoS, packet_id: u16, payload: &[u8]) -> Packet {
    let packet_id = PacketId::new(packet_id);
    let delivery = match qos {
        QoS::AtMostOnce => Delivery::AtMostOnce,
        QoS::AtLeastOnce => Delivery::AtLeastOnce(packet_id.unwrap()),
        QoS::ExactlyOnce => Delivery::ExactlyOnce(packet_id.unwrap()),
    };
    let payload = Bytes::copy_from_slice(payload);
    Packet::Publish(Publish { topic: text(topic), payload, delivery, retain: false, dup: false })
}

pub fn failure(kind: ErrorKind) -> Failure {
    let tracking = TrackingId::from_bits(0x0123_4567_89ab_4def_8123_4567_89ab_cdef);
    let at = UnixTime::from_micros(1_502_966_924_530_934);
    Failure { kind, public: "Because.".into(), tracking, retry_after_s: None, at }
}

/// Plays a file; panics with the line that went otherwise.
pub fn play(source: &str, words: Words) {
    assert!(source.starts_with("# "), "a script begins with a note of its source");
    let (open, asked, sent) = (VecDeque::new(), VecDeque::new(), VecDeque::new());
    let mut player = Player { words, has_certificate: true, script: Script::new(), open, asked, sent };
    for (number, line) in source.lines().enumerate() {
        let Some((step, rest)) = line.split_once(' ') else { continue };
        let fields: Vec<&str> = rest.split(" | ").collect();
        player.step(step, &fields, &format!("line {}: {line}", number + 1));
    }
    player.expect_quiet("the end");
}

struct Player {
    words: Words,
    has_certificate: bool,
    script: Script,
    open: VecDeque<AskId>,
    asked: VecDeque<Ask>,
    sent: VecDeque<Packet>,
}

impl Player {
    fn step(&mut self, step: &str, fields: &[&str], place: &str) {
        match step {
            "#" => return,
            "?" => {
                let ask = self.asked.pop_front().unwrap_or_else(|| panic!("{place}: nothing is asked"));
                self.open.push_back(ask.id);
                return assert_eq!((self.words.show_ask)(&ask), fields.join(" | "), "{place}");
            }
            "<" => {
                let packet = self.sent.pop_front().unwrap_or_else(|| panic!("{place}: nothing is sent"));
                return assert_eq!(show_packet(&packet), fields.join(" | "), "{place}");
            }
            "x" => {
                let reason = self.script.session.closed().map(ToString::to_string);
                assert_eq!(reason.as_deref(), Some(fields[0]), "{place}");
                self.expect_quiet(place);
                // What follows is another connection.
                self.open.clear();
                self.script = Script::open(self.has_certificate);
                return;
            }
            "@" => {
                self.expect_quiet(place);
                self.has_certificate = match fields[0] {
                    "certificate" => true,
                    "no certificate" => false,
                    _ => panic!("{place}: no such handshake"),
                };
                self.script = Script::open(self.has_certificate);
                return;
            }
            _ => self.expect_quiet(place),
        }
        match step {
            ">" if fields == ["EOF"] => self.script.session.handle_eof(self.script.now),
            ">" => match fields {
                ["BYTES", digits] => self.script.session.handle_input(&hex::decode(digits).unwrap(), self.script.now),
                _ => self.script.receive(&[read_packet(fields, self.words)]),
            },
            "=" | "!" => {
                let id = self.open.pop_front().unwrap_or_else(|| panic!("{place}: nothing is open"));
                let is_good = step == "=";
                self.script
                    .reply(id, if is_good { Ok((self.words.read_reply)(fields)) } else { Err(read_failure(fields)) });
            }
            "^" => self.script.push((self.words.read_push)(fields)),
            "~" => self.script.pass(Duration::from_secs_f64(fields[0].parse().unwrap())),
            _ => panic!("{place}: no such step"),
        }
        self.asked.extend(self.script.asks());
        self.sent.extend(self.script.sent());
        self.asked.extend(self.script.asks());
    }

    fn expect_quiet(&self, place: &str) {
        assert!(self.asked.is_empty(), "before {place}: {:?}", self.asked);
        assert!(self.sent.is_empty(), "before {place}: {:?}", self.sent);
    }
}

fn read_packet(fields: &[&str], words: Words) -> Packet {
    let id = |text: &str| PacketId::new(text.parse().unwrap()).unwrap();
    match fields {
        ["CONNECT", client_id, options @ ..] => {
            let mut connect = connect(client_id, &(words.user_name)(client_id));
            for option in options {
                match option.split_once('=').unwrap_or((option, "")) {
                    ("user", name) => connect.username = Some(text(name)),
                    ("password", password) => connect.password = Some(password.to_owned().into()),
                    ("keep-alive", seconds) => connect.keep_alive_s = seconds.parse().unwrap(),
                    ("clean", _) => connect.clean_session = true,
                    ("will", topic) => {
                        let (qos, topic) = topic.split_once(' ').unwrap();
                        let (qos, retain) = (read_qos(qos), false);
                        let will = Will { topic: text(topic), payload: "gone".into(), qos, retain };
                        connect.will = Some(Box::new(will));
                    }
                    other => panic!("{other:?}"),
                }
            }
            Packet::Connect(Box::new(connect))
        }
        ["SUBSCRIBE", packet_id, filters @ ..] => {
            let filter = |filter: &&str| {
                let (topic, qos) = filter.rsplit_once(' ').unwrap();
                Filter { topic: text(topic), qos: read_qos(qos) }
            };
            Packet::Subscribe { packet_id: id(packet_id), filters: filters.iter().map(filter).collect() }
        }
        ["UNSUBSCRIBE", packet_id, filters @ ..] => {
            let filters = filters.iter().map(|filter| text(filter)).collect();
            Packet::Unsubscribe { packet_id: id(packet_id), filters }
        }
        ["PUBLISH", kind, topic, payload @ ..] => {
            let mut words = kind.split(' ');
            let (qos, packet_id) = words.next().unwrap().split_once(':').unwrap_or((kind, "0"));
            let payload = payload.first().copied().unwrap_or_default();
            let payload = payload.strip_prefix("hex:").map_or(payload.into(), |text| hex::decode(text).unwrap());
            let packet = publish(topic, read_qos(qos), packet_id.parse().unwrap(), &payload);
            let Packet::Publish(mut publish) = packet else { unreachable!() };
            publish.retain = words.any(|word| word == "retain");
            Packet::Publish(publish)
        }
        ["PUBACK", packet_id] => Packet::Puback(Some(id(packet_id))),
        ["PINGREQ"] => Packet::Pingreq,
        ["DISCONNECT"] => Packet::Disconnect,
        other => panic!("{other:?}"),
    }
}

pub fn read_qos(text: &str) -> QoS {
    match text {
        "0" => QoS::AtMostOnce,
        "1" => QoS::AtLeastOnce,
        "2" => QoS::ExactlyOnce,
        other => panic!("{other}"),
    }
}

fn show_packet(packet: &Packet) -> String {
    match packet {
        Packet::Connack(Connack::Accepted { session_present }) => {
            format!("CONNACK | 0{}", if *session_present { " | session present" } else { "" })
        }
        Packet::Connack(Connack::Refused(refusal)) => format!("CONNACK | {}", *refusal as u8),
        Packet::Suback { packet_id, codes } => {
            let code = |code: &SubackCode| match code {
                SubackCode::Granted(qos) => (*qos as u8).to_string(),
                SubackCode::Failure => "0x80".to_owned(),
            };
            format!("SUBACK | {} | {}", packet_id.get(), codes.iter().map(code).collect::<Vec<_>>().join(" "))
        }
        Packet::Unsuback(packet_id) => format!("UNSUBACK | {}", packet_id.get()),
        Packet::Puback(packet_id) => format!("PUBACK | {}", packet_id.unwrap().get()),
        Packet::Pingresp => "PINGRESP".to_owned(),
        Packet::Publish(publish) => {
            let payload = match std::str::from_utf8(&publish.payload).unwrap() {
                "" => "(nothing)",
                payload => payload,
            };
            format!("PUBLISH | {} | {} | {payload}", publish.delivery.qos() as u8, publish.topic)
        }
        other => panic!("{other:?}"),
    }
}

fn read_failure(fields: &[&str]) -> Failure {
    let kind = ErrorKind::ALL.into_iter().find(|kind| format!("{kind:?}") == fields[0]).unwrap();
    let retry_after_s = fields.get(1).map(|seconds| seconds.parse().unwrap());
    Failure { retry_after_s, ..failure(kind) }
}
