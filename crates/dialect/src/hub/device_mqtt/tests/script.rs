//! What the scripts under `testdata/wire/hub` add to the steps of [`crate::mqtt::script`].

use std::fmt::Write as _;
use std::sync::Arc;

use domain::clock::UnixTime;
use domain::cloud_to_device::{self as message_to_device, Delivery, Settlement, SystemProperties};
use domain::ids::{DeviceId, HubKey, LockToken, MethodName, ModuleId};
use domain::operation::identity::IdentityName;
use domain::operation::session::{AuthenticationMethod, Filter as Known, Seat};
use domain::operation::twin::DesiredChange;
use proto::mqtt::{Connack, Packet};
use serde_json::json;

use super::super::*;
use crate::mqtt::script::{self, Words, read_qos};
use crate::session;

pub use crate::mqtt::script::{Script, failure, publish, text};

const WORDS: Words = Words { user_name, show_ask, read_reply, read_push };

/// Plays a file; panics with the line that went otherwise.
pub fn play(source: &str) {
    script::play(source, WORDS);
}

fn user_name(device: &str) -> String {
    format!("127.0.0.2/{device}/?api-version=2021-04-12")
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

pub fn connect(device: &str) -> Packet {
    Packet::Connect(Box::new(script::connect(device, &user_name(device))))
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

fn show_ask(ask: &session::Ask) -> String {
    match &ask.operation {
        Operation::Session(Ask::Connect(connect)) => {
            let Introduction { host, claimed, memory, model_id, client } = &**connect;
            let clean = if *memory == Memory::Forget { " | clean" } else { "" };
            let model = model_id.as_ref().map(|model| format!(" | model {model}")).unwrap_or_default();
            let client = client.as_ref().map(|client| format!(" | client {client}")).unwrap_or_default();
            format!("connect | {host} | {claimed}{clean}{model}{client}")
        }
        Operation::Session(Ask::Subscribe { subscriptions, is_kept, .. }) => {
            let kept = if *is_kept { "" } else { " | for this connection" };
            format!("subscribe | {}{kept}", show_set(*subscriptions))
        }
        Operation::Session(Ask::Disconnect { .. }) => "disconnect".to_owned(),
        Operation::Twin(twin::Ask::Read(_)) => "read twin".to_owned(),
        Operation::Twin(twin::Ask::Report { patch, expected_version, .. }) => match expected_version {
            Some(version) => format!("report | {patch} | on version {version}"),
            None => format!("report | {patch}"),
        },
        Operation::Method(method::Ask::Respond { request, response: Ok(response), .. }) => {
            let payload = String::from_utf8_lossy(response.payload.bytes());
            format!("respond | {request} | {} | {payload}", response.status)
        }
        Operation::Method(method::Ask::Respond { request, response: Err(invalid), .. }) => {
            format!("respond | {request} | {invalid}")
        }
        Operation::Telemetry(telemetry::Ask::Send { message, .. }) => format!("send{}", show_draft(message)),
        Operation::Telemetry(telemetry::Ask::Will { message, .. }) => format!("will{}", show_draft(message)),
        Operation::CloudToDevice(cloud_to_device::Ask::Receive { limit, .. }) => format!("receive | {limit}"),
        Operation::CloudToDevice(cloud_to_device::Ask::Settle { lock, settlement: Settlement::Complete, .. }) => {
            format!("complete | {}", lock.bits())
        }
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
    match subscriptions.is_empty() {
        true => "nothing".to_owned(),
        false => NAMES.into_iter().filter_map(shown).collect::<Vec<_>>().join(", "),
    }
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
        ["noted"] => Reply::Method(method::Answer::Noted),
        ["stored"] => Reply::Telemetry(telemetry::Answer::Stored),
        ["document", text] => Reply::Twin(twin::Answer::Document(serde_json::from_str(text).unwrap())),
        ["received", messages @ ..] => {
            let messages = messages.iter().map(|message| read_delivery(message)).collect();
            Reply::CloudToDevice(cloud_to_device::Answer::Received(messages))
        }
        ["settled"] => Reply::CloudToDevice(cloud_to_device::Answer::Settled),
        ["reported", version] => Reply::Twin(twin::Answer::Reported { version: version.parse().unwrap() }),
        other => panic!("{other:?}"),
    }
}

/// A message whose lock is the number before its body.
fn read_delivery(text: &str) -> Delivery {
    let (number, body) = text.split_once(' ').unwrap();
    let system = SystemProperties { message_id: Some(format!("m{number}")), ..SystemProperties::default() };
    Delivery {
        lock: LockToken::from_bits(number.parse().unwrap()),
        sequence: number.parse().unwrap(),
        enqueued_at: UnixTime::from_seconds(0),
        expires_at: UnixTime::from_seconds(1),
        delivery_count: 0,
        message: message_to_device::Draft {
            system,
            body: body.to_owned().into(),
            ..message_to_device::Draft::default()
        },
    }
}

fn read_push(fields: &[&str]) -> Push {
    match fields {
        ["desired", version, patch] => {
            let patch = Arc::new(serde_json::from_str(patch).unwrap());
            Push::Desired(DesiredChange { version: version.parse().unwrap(), patch })
        }
        ["method", id, name, payload] => {
            let payload = Payload::parse(Bytes::copy_from_slice(payload.as_bytes())).unwrap();
            // Somebody who waits for ever.
            let waiter = Box::leak(Box::new(call::Waiter::new()));
            let id = MethodRequestId::parse(id).unwrap();
            Push::Method(waiter.request(id, MethodName::parse(name).unwrap(), payload))
        }
        ["messages wait"] => Push::MessagesWaiting,
        ["cut off", reason] => Push::CutOff(match *reason {
            "Displaced" => CutOff::Displaced,
            "Disabled" => CutOff::Disabled,
            "Deleted" => CutOff::Deleted,
            other => panic!("{other}"),
        }),
        other => panic!("{other:?}"),
    }
}
