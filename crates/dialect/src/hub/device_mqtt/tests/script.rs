//! Plays a session, from Rust or from a file under `testdata/wire/hub`.
//!
//! In a file each line is one step; fields are set apart by ` | `:
//! `>` the client sends; `?` the service is asked; `=` and `!` it answers the oldest open ask, well or badly; `^` it says
//! something unasked; `<` the client receives; `~` seconds pass; `x` the session is over, and why; `#` is a remark. A
//! payload may be written as `hex:…`. Before every step of the client's or the service's own, everything sent and asked
//! must have been listed.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use domain::clock::UnixTime;
use domain::ids::{DeviceId, HubKey, ModuleId, TrackingId};
use domain::operation::identity::IdentityName;
use domain::operation::session::{AuthenticationMethod, Filter as Known, Seat};
use domain::operation::twin::DesiredChange;
use proto::mqtt::{Connack, Delivery, Limits, Packet, Publish, codec};

use super::super::*;
use crate::mqtt::Session;
use crate::session;

pub struct Script {
    pub session: Session,
    pub limits: Arc<Limits>,
    pub now: Instant,
}

impl Script {
    pub fn new() -> Self {
        let (limits, now) = (Arc::new(Limits::default()), Instant::now());
        Self { session: Session::new(Arc::clone(&limits), true, now), limits, now }
    }

    pub fn receive(&mut self, packets: &[Packet]) {
        let mut bytes = Vec::new();
        for packet in packets {
            codec::encode(packet, &mut bytes).unwrap();
        }
        self.session.handle_input(&bytes, self.now);
    }

    pub fn asks(&mut self) -> Vec<session::Ask> {
        std::iter::from_fn(|| self.session.poll_ask()).collect()
    }

    pub fn reply(&mut self, id: AskId, reply: Result<Reply, Failure>) {
        self.session.handle_reply(id, reply, self.now);
    }

    pub fn push(&mut self, push: Push) {
        self.session.handle_push(push, self.now);
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

/// A connected `dev-1` that had subscribed to `filters` before.
pub fn ready(filters: &[Known]) -> Script {
    let mut script = Script::new();
    script.receive(&[connect("dev-1")]);
    let ask = script.asks().pop().unwrap();
    script.reply(ask.id, Ok(connected(filters)));
    assert_eq!(script.sent(), [Packet::Connack(Connack::Accepted { session_present: true })]);
    script
}

pub fn text(text: &str) -> Text {
    Text::try_from(text.to_owned()).unwrap()
}

pub fn connect(device: &str) -> Packet {
    Packet::Connect(Box::new(Connect {
        client_id: text(device),
        clean_session: false,
        keep_alive_s: 60,
        will: None,
        username: Some(text(&format!("127.0.0.2/{device}/?api-version=2021-04-12"))),
        password: None,
    }))
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

pub fn connected(filters: &[Known]) -> Reply {
    let mut subscriptions = Subscriptions::default();
    for &filter in filters {
        subscriptions.insert(filter, QualityOfService::AtLeastOnce);
    }
    let name = IdentityName::device(DeviceId::parse("dev-1").unwrap());
    connected_as(name, subscriptions, true)
}

fn connected_as(name: IdentityName, subscriptions: Subscriptions, session_present: bool) -> Reply {
    let device = ConnectedDevice::seat(Seat {
        hub: HubKey(1),
        name,
        generation: "1".into(),
        epoch: 1,
        authentication: AuthenticationMethod::X509,
        model_id: None,
    });
    Reply::Session(Answer::Connected { device, subscriptions, session_present })
}

pub fn document(desired_version: u64) -> Reply {
    let document = json!({ "desired": { "$version": desired_version }, "reported": { "$version": 1 } });
    Reply::Twin(twin::Answer::Document(document.as_object().unwrap().clone()))
}

pub fn change(version: u64) -> Push {
    let patch = json!({ "t": 50.123, "$version": version });
    Push::Desired(DesiredChange { version, patch: Arc::new(patch.as_object().unwrap().clone()) })
}

pub fn failure(kind: ErrorKind) -> Failure {
    let tracking = TrackingId::from_bits(0x0123_4567_89ab_4def_8123_4567_89ab_cdef);
    let at = UnixTime::from_micros(1_502_966_924_530_934);
    Failure { kind, public: "Because.".into(), tracking, retry_after_s: None, at }
}

/// Plays a file; panics with the line that went otherwise.
pub fn play(source: &str) {
    assert!(source.starts_with("# "), "a script begins with a note of its source");
    let mut player =
        Player { script: Script::new(), open: VecDeque::new(), asked: VecDeque::new(), sent: VecDeque::new() };
    for (number, line) in source.lines().enumerate() {
        let Some((step, rest)) = line.split_once(' ') else { continue };
        let fields: Vec<&str> = rest.split(" | ").collect();
        player.step(step, &fields, &format!("line {}: {line}", number + 1));
    }
    player.expect_quiet("the end");
}

struct Player {
    script: Script,
    open: VecDeque<AskId>,
    asked: VecDeque<session::Ask>,
    sent: VecDeque<Packet>,
}

impl Player {
    fn step(&mut self, step: &str, fields: &[&str], place: &str) {
        match step {
            "#" => return,
            "?" => {
                let ask = self.asked.pop_front().unwrap_or_else(|| panic!("{place}: nothing is asked"));
                self.open.push_back(ask.id);
                return assert_eq!(show_ask(&ask), fields.join(" | "), "{place}");
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
                self.script = Script::new();
                return;
            }
            _ => self.expect_quiet(place),
        }
        match step {
            ">" if fields == ["EOF"] => self.script.session.handle_eof(self.script.now),
            ">" => self.script.receive(&[read_packet(fields)]),
            "=" | "!" => {
                let id = self.open.pop_front().unwrap_or_else(|| panic!("{place}: nothing is open"));
                self.script.reply(id, if step == "=" { Ok(read_reply(fields)) } else { Err(read_failure(fields)) });
            }
            "^" => self.script.push(read_push(fields)),
            "~" => self.script.pass(Duration::from_secs(fields[0].parse().unwrap())),
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

fn read_packet(fields: &[&str]) -> Packet {
    let id = |text: &str| PacketId::new(text.parse().unwrap()).unwrap();
    match fields {
        ["CONNECT", client_id, options @ ..] => {
            let Packet::Connect(mut connect) = connect(client_id) else { unreachable!() };
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
            Packet::Connect(connect)
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

fn read_qos(text: &str) -> QoS {
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

fn show_ask(ask: &session::Ask) -> String {
    match &ask.operation {
        Operation::Session(Ask::Connect(connect)) => {
            let Introduction { host, claimed, clean_session, model_id, client } = &**connect;
            let clean = if *clean_session { " | clean" } else { "" };
            let model = model_id.as_ref().map(|model| format!(" | model {model}")).unwrap_or_default();
            let client = client.as_ref().map(|client| format!(" | client {client}")).unwrap_or_default();
            format!("connect | {host} | {claimed}{clean}{model}{client}")
        }
        Operation::Session(Ask::Subscribe { subscriptions, .. }) => format!("subscribe | {}", show_set(*subscriptions)),
        Operation::Session(Ask::Disconnect { .. }) => "disconnect".to_owned(),
        Operation::Twin(twin::Ask::Read(_)) => "read twin".to_owned(),
        Operation::Twin(twin::Ask::Report { patch, expected_version, .. }) => match expected_version {
            Some(version) => format!("report | {patch} | on version {version}"),
            None => format!("report | {patch}"),
        },
        Operation::Telemetry(telemetry::Ask::Send { message, .. }) => format!("send{}", show_draft(message)),
        Operation::Telemetry(telemetry::Ask::Will { message, .. }) => format!("will{}", show_draft(message)),
        other => panic!("{other:?}"),
    }
}

fn show_draft(draft: &Draft) -> String {
    let body = String::from_utf8_lossy(&draft.body);
    let system = serde_json::to_value(&draft.system).unwrap();
    let mut shown = format!(" | {body}");
    for (name, value) in system.as_object().unwrap() {
        write!(shown, " | {name}: {}", value.as_str().unwrap()).unwrap();
    }
    for (name, value) in &draft.properties {
        write!(shown, " | {name}={}", value.as_deref().unwrap_or("(null)")).unwrap();
    }
    shown
}

const NAMES: [(&str, Known); 6] = [
    ("c2d", Known::CloudToDevice),
    ("methods", Known::Methods),
    ("twin", Known::TwinReplies),
    ("desired", Known::Desired),
    ("inputs", Known::Inputs),
    ("module", Known::Module),
];

fn show_set(subscriptions: Subscriptions) -> String {
    let shown = |(name, filter)| match subscriptions.granted(filter)? {
        QualityOfService::AtMostOnce => Some(format!("{name} 0")),
        QualityOfService::AtLeastOnce => Some(format!("{name} 1")),
    };
    NAMES.into_iter().filter_map(shown).collect::<Vec<_>>().join(", ")
}

fn read_reply(fields: &[&str]) -> Reply {
    match fields {
        ["connected", identity, rest @ ..] => {
            let (device, module) = identity.split_once('/').map_or((*identity, None), |(a, b)| (a, Some(b)));
            let module = module.map(|module| ModuleId::parse(module).unwrap());
            let name = IdentityName { device: DeviceId::parse(device).unwrap(), module };
            let mut subscriptions = Subscriptions::default();
            for entry in rest.iter().flat_map(|set| set.split(", ")) {
                let (wanted, qos) = entry.split_once(' ').unwrap();
                let (_, filter) = NAMES.into_iter().find(|(name, _)| *name == wanted).unwrap();
                subscriptions.insert(filter, grant(read_qos(qos)).1);
            }
            connected_as(name, subscriptions, !rest.is_empty())
        }
        ["done"] => Reply::Session(Answer::Done),
        ["stored"] => Reply::Telemetry(telemetry::Answer::Stored),
        ["document", text] => Reply::Twin(twin::Answer::Document(serde_json::from_str(text).unwrap())),
        ["reported", version] => Reply::Twin(twin::Answer::Reported { version: version.parse().unwrap() }),
        other => panic!("{other:?}"),
    }
}

fn read_failure(fields: &[&str]) -> Failure {
    let kind = ErrorKind::ALL.into_iter().find(|kind| format!("{kind:?}") == fields[0]).unwrap();
    failure(kind)
}

fn read_push(fields: &[&str]) -> Push {
    match fields {
        ["desired", version, patch] => {
            let patch = Arc::new(serde_json::from_str(patch).unwrap());
            Push::Desired(DesiredChange { version: version.parse().unwrap(), patch })
        }
        ["cut off", reason] => Push::CutOff(match *reason {
            "Displaced" => CutOff::Displaced,
            "Disabled" => CutOff::Disabled,
            "Deleted" => CutOff::Deleted,
            other => panic!("{other}"),
        }),
        other => panic!("{other:?}"),
    }
}
