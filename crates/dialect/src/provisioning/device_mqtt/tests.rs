//! Sessions against the machine: what clients send, what is asked of the service, what is answered, in virtual time.

use proptest::prelude::*;
use proto::mqtt::{Connack, Packet};

use super::*;
use crate::mqtt::script::{self, Script, Words, failure, publish, text};
use crate::provisioning::wire;
use crate::session::{self, Session as _};

const WORDS: Words =
    Words { user_name, show_ask, read_reply: wire::read_reply, read_push: |_| panic!("nothing is pushed") };
const OPERATION: &str = "5.316aac5bdc130deb.b1e02da8-0000-0000-0000-000000000000";

macro_rules! wire_scripts {
    ($($name:ident: $file:literal,)*) => {
        $(#[test] fn $name() {
            script::play(include_str!(concat!("../../../../../testdata/wire/provisioning/", $file)), WORDS);
        })*
    };
}

wire_scripts! {
    python_registers_by_symmetric_key: "python-key.script",
    node_registers_by_certificate_and_decodes_ascii: "node-x509.script",
    c_sends_at_qos_0_and_repeats_its_body: "c.script",
    csharp_sends_nothing_for_a_body: "csharp.script",
    java_is_answered_when_it_listens: "java.script",
    embedded_c_calls_every_request_the_same: "embedded-c.script",
    a_connect_is_accepted_when_it_is_plausible: "connack.script",
    what_no_client_does_is_told_apart: "misuse.script",
    refused_requests_are_answered_and_the_connection_stays: "failures.script",
}

fn user_name(client_id: &str) -> String {
    format!("0ne00000000/registrations/{client_id}/api-version=2019-03-31")
}

fn show_ask(ask: &session::Ask) -> String {
    assert_eq!(ask.lane, Lane::Serial);
    wire::show(&ask.operation)
}

/// A connected `dev-1` that listens, as the client whose user name ends in `client` does.
fn ready(client: &str) -> Script {
    let mut script = Script::new();
    let connect = script::connect("dev-1", &format!("{}{client}", user_name("dev-1")));
    let filters = vec![Filter { topic: text(RESPONSES), qos: QoS::AtLeastOnce }];
    script.receive(&[Packet::Connect(Box::new(connect)), Packet::Subscribe { packet_id: PacketId::FIRST, filters }]);
    let accepted = Packet::Connack(Connack::Accepted { session_present: false });
    let granted = vec![SubackCode::Granted(QoS::AtLeastOnce)];
    assert_eq!(script.sent(), [accepted, Packet::Suback { packet_id: PacketId::FIRST, codes: granted }]);
    script
}

fn register(packet_id: u16, request_id: &str) -> Packet {
    publish(&format!("{REGISTER}$rid={request_id}"), QoS::AtLeastOnce, packet_id, b"{}")
}

fn accepted() -> Reply {
    wire::read_reply(&["accepted", OPERATION, "3"])
}

/// The topics of the messages among `packets`.
fn topics_of(packets: &[Packet]) -> Vec<&str> {
    let messages = packets.iter().filter_map(|packet| match packet {
        Packet::Publish(publish) => Some(&*publish.topic),
        _ => None,
    });
    messages.collect()
}

/// `testdata/wire/mqtt` tells where they were recorded.
#[test]
fn recorded_connects_are_accepted() {
    let recorded = [
        (include_str!("../../../../../testdata/wire/mqtt/connect-dps-node-key.hex"), false),
        (include_str!("../../../../../testdata/wire/mqtt/connect-dps-node-x509.hex"), true),
        (include_str!("../../../../../testdata/wire/mqtt/connect-dps-python-key.hex"), false),
    ];
    for (source, has_certificate) in recorded {
        let digits: String = source.lines().filter(|line| !line.starts_with('#')).collect();
        let mut script = Script::open(has_certificate);
        script.session.handle_input(&hex::decode(digits).unwrap(), script.now);
        assert_eq!(script.sent(), [Packet::Connack(Connack::Accepted { session_present: false })]);
        script.receive(&[register(1, "r")]);
        assert_eq!(script.asks().pop().unwrap().token.is_some(), !has_certificate);
    }
}

#[test]
fn a_request_id_is_echoed_byte_for_byte() {
    for request_id in ["1", "6f1e7d0a-0c1c-4b7e-9e5d-000000000001", "a%2Fb", "ü?/+#=", ""] {
        let mut script = ready("");
        script.receive(&[register(1, request_id)]);
        let ask = script.asks().pop().unwrap();
        script.reply(ask.id, Ok(accepted()));
        let expected = format!("$dps/registrations/res/202/?$rid={request_id}&retry-after=3");
        assert_eq!(topics_of(&script.sent()), [expected]);
    }
}

#[test]
fn requests_are_acknowledged_at_once_and_performed_one_after_another() {
    let mut script = ready("");
    script.receive(&[register(1, "a"), register(2, "b"), Packet::Pingreq]);
    assert!(matches!(script.sent()[..], [Packet::Pingresp, Packet::Puback(_), Packet::Puback(_)]));
    let first = script.asks();
    assert_eq!(first.len(), 1, "the second waits for the first");
    script.reply(first[0].id, Ok(accepted()));
    let second = script.asks().pop().unwrap();
    script.reply(second.id, Ok(accepted()));
    let sent = script.sent();
    let answers = ["a", "b"].map(|id| format!("$dps/registrations/res/202/?$rid={id}&retry-after=3"));
    assert_eq!(topics_of(&sent), answers);
}

#[test]
fn more_requests_than_anybody_has_are_told_to_come_later() {
    let mut script = ready("");
    script.receive(&(1..=6).map(|number| register(number, &number.to_string())).collect::<Vec<_>>());
    let mut performed = 0;
    while let Some(ask) = script.asks().pop() {
        let Operation::Registration(Ask { request, .. }) = ask.operation else { panic!("another operation") };
        let reply = if let Request::Refuse(Unfit::Request { kind, .. }) = request {
            Err(Failure { retry_after_s: Some(5), ..failure(kind) })
        } else {
            performed += 1;
            Ok(accepted())
        };
        script.reply(ask.id, reply);
    }
    assert_eq!(performed, REQUESTS_WAITING_MAX);
    let sent = script.sent();
    let answers = [(1, 202, 3), (2, 202, 3), (3, 202, 3), (4, 202, 3), (5, 429, 5), (6, 429, 5)].map(
        |(number, status, seconds)| format!("$dps/registrations/res/{status}/?$rid={number}&retry-after={seconds}"),
    );
    assert_eq!(topics_of(&sent), answers);
    let Some(Packet::Publish(refused)) = sent.last() else { panic!("no answer") };
    let body: Value = serde_json::from_slice(&refused.payload).unwrap();
    assert_eq!(body, error::provisioning_body(&failure(ErrorKind::Throttled)));
    script.receive(&[register(7, "7")]);
    assert_eq!(script.asks().len(), 1, "there is room again");
}

#[test]
fn a_client_that_does_not_wait_for_its_answers_is_sent_away() {
    let mut script = ready("");
    let most = u16::try_from(REQUESTS_WAITING_MAX + REFUSALS_WAITING_MAX).unwrap();
    script.receive(&(1..=most).map(|number| register(number, "1")).collect::<Vec<_>>());
    assert_eq!(script.session.closed(), None);
    script.receive(&[register(most + 1, "1")]);
    let reason = CloseReason::Refused("the client does not wait for its answers".to_owned());
    assert_eq!(script.session.closed(), Some(&reason));
}

#[test]
fn a_client_that_takes_no_answers_is_sent_away() {
    let mut script = ready("");
    for number in 1..=100 {
        script.receive(&[register(number, "1")]);
        let Some(ask) = script.asks().pop() else { break };
        script.reply(ask.id, Ok(accepted()));
        let _ = script.sent();
    }
    let reason = CloseReason::Refused("the client does not take its answers".to_owned());
    assert_eq!(script.session.closed(), Some(&reason));
}

#[test]
fn the_longest_body_is_taken_and_one_byte_more_is_refused() {
    for (bytes, taken) in [(BODY_BYTES_MAX, true), (BODY_BYTES_MAX + 1, false)] {
        let mut script = ready("");
        let body = vec![b' '; bytes];
        script.receive(&[publish(&format!("{REGISTER}$rid=1"), QoS::AtLeastOnce, 1, &body)]);
        let ask = script.asks().pop().expect("asked either way");
        let Operation::Registration(Ask { request, .. }) = &ask.operation else { panic!("{ask:?}") };
        assert_eq!(matches!(request, Request::Register(_)), taken);
        if !taken {
            script.reply(ask.id, Err(failure(ErrorKind::TooLarge)));
        }
        let sent = script.sent();
        let expected: &[&str] = if taken { &[] } else { &["$dps/registrations/res/413/?$rid=1"] };
        assert_eq!(topics_of(&sent), expected);
        assert_eq!(script.session.closed(), None);
    }
}

#[test]
fn only_the_client_that_listens_late_is_made_to_wait() {
    for (client, held_back) in [("&ClientVersion=2019-03-31", true), ("&ClientVersion=2.0", false), ("", false)] {
        let mut script = ready(client);
        script.receive(&[register(1, "1")]);
        let ask = script.asks().pop().unwrap();
        script.pass(HELD_BACK / 2);
        script.reply(ask.id, Ok(accepted()));
        assert_eq!(topics_of(&script.sent()).is_empty(), held_back, "{client}");
        let due = script.now + HELD_BACK / 2;
        assert_eq!(script.session.poll_timeout() == Some(due), held_back, "{client}");
    }
}

#[test]
fn answers_that_nobody_waits_for_any_more_change_nothing() {
    let mut script = ready("&ClientVersion=2019-03-31");
    script.receive(&[register(1, "1"), register(2, "2")]);
    let ask = script.asks().pop().unwrap();
    script.reply(ask.id, Ok(accepted()));
    let _ = script.sent();
    script.receive(&[Packet::Disconnect]);
    let second = script.asks().pop().unwrap();
    script.reply(second.id, Ok(accepted()));
    script.pass(HELD_BACK);
    assert_eq!(script.sent(), []);
    assert_eq!(script.session.closed(), Some(&CloseReason::Mqtt(proto::mqtt::CloseReason::Disconnected)));
}

#[test]
fn user_names_of_hubs_are_not_taken_for_ones_of_provisioning_services() {
    for name in [
        "127.0.0.2/registrations/?api-version=2021-04-12",
        "hub.example.org/registrations/module/api-version=2021-04-12",
        "hub.example.org/dev-1/registrations/x/api-version=1",
        "registrations/dev-1/api-version=1",
        "registrations",
        "",
    ] {
        assert!(!UserName::is_meant(name), "{name}");
    }
}

proptest! {
    #[test]
    fn no_topic_or_payload_panics(
        topic in "\\$dps/registrations/(PUT/iotdps-register|GET/iotdps-get-operationstatus)/\\?(\\$rid=[^\0]{0,9}&?)?[^\0]{0,40}",
        payload in proptest::collection::vec(any::<u8>(), 0..64),
        filter in "[^\0]{1,40}",
    ) {
        let mut script = ready("&ClientVersion=2019-03-31");
        let filters = vec![Filter { topic: text(&filter), qos: QoS::AtMostOnce }];
        script.receive(&[
            Packet::Subscribe { packet_id: PacketId::FIRST, filters },
            publish(&topic, QoS::AtLeastOnce, 1, &payload),
        ]);
        for ask in script.asks() {
            script.reply(ask.id, Err(failure(ErrorKind::Internal)));
        }
        script.pass(HELD_BACK);
        for packet in script.sent() {
            if let Packet::Publish(answer) = packet {
                prop_assert!(answer.payload.is_ascii() && !answer.payload.is_empty());
            }
        }
    }

    #[test]
    fn no_user_name_or_password_panics(
        username in "([^\0/]{0,9}/registrations/[^\0/]{0,9}/api-version=)?[^\0]{0,60}",
        password in proptest::collection::vec(any::<u8>(), 0..60),
        client_id in "[^\0]{0,20}",
    ) {
        let mut connect = script::connect(&client_id, &username);
        connect.password = Some(password.into());
        let mut script = Script::open(false);
        script.receive(&[Packet::Connect(Box::new(connect))]);
        for ask in script.asks() {
            let Operation::Registration(Ask { request: Request::Refuse(_), .. }) = &ask.operation else {
                panic!("nothing else is asked of a client that shows nothing: {ask:?}")
            };
            script.reply(ask.id, Err(failure(ErrorKind::Unauthorized)));
        }
        prop_assert!(script.session.closed().is_some());
    }

    #[test]
    fn any_bytes_after_connect_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut script = ready("");
        script.session.handle_input(&bytes, script.now);
        for ask in script.asks() {
            script.reply(ask.id, Err(failure(ErrorKind::Throttled)));
        }
        let _ = script.sent();
    }
}
