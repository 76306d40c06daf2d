//! Sessions against the machine: what clients send, what is asked of the service, what is answered, in virtual time.

use std::time::Duration;

use domain::ids::MethodName;
use domain::operation::ErrorKind;
use domain::operation::session::Filter as Known;
use proptest::prelude::*;
use proto::mqtt::Packet;
use serde_json::json;

use super::*;
use crate::session::Session as _;
use script::{Script, change, document, failure, publish, ready, text};

mod script;

macro_rules! wire_scripts {
    ($($name:ident: $file:literal,)*) => {
        $(#[test] fn $name() {
            script::play(include_str!(concat!("../../../../../testdata/wire/hub/", $file)));
        })*
    };
}

wire_scripts! {
    python_gets_its_twin_reports_sends_and_resumes_without_subscribing: "python-x509.script",
    node_gets_its_twin_reports_and_sends: "node-x509.script",
    c_subscribes_three_filters_in_one_packet: "c-x509.script",
    java_subscribes_on_demand_and_writes_literal_dollars: "java-x509.script",
    refused_connects_are_answered_alike: "refused.script",
    what_no_device_may_do_closes_its_connection: "misuse.script",
    failed_twin_requests_carry_a_code_in_the_body: "twin-failures.script",
    subscriptions_are_written_before_they_are_granted: "subscriptions.script",
    changes_of_desired_properties_are_told_in_order: "desired.script",
    messages_to_the_device_are_sent_in_order_and_done_with_when_acknowledged: "devicebound.script",
    wills_become_telemetry_unless_the_device_said_goodbye: "wills.script",
    methods_are_requested_and_answered: "methods.script",
    a_module_has_topics_of_its_own: "module.script",
}

fn telemetry(packet_id: u16) -> Packet {
    publish("devices/dev-1/messages/events/", QoS::AtLeastOnce, packet_id, b"{}")
}

fn read_twin(packet_id: u16, request_id: &str) -> Packet {
    publish(&format!("$iothub/twin/GET/?$rid={request_id}"), QoS::AtLeastOnce, packet_id, b" ")
}

const STORED: Reply = Reply::Telemetry(telemetry::Answer::Stored);

fn pubacks(packet_ids: impl IntoIterator<Item = u16>) -> Vec<Packet> {
    packet_ids.into_iter().map(|packet_id| Packet::Puback(PacketId::new(packet_id))).collect()
}

/// The topics of the messages among `packets`.
fn topics_of(packets: &[Packet]) -> Vec<String> {
    let topic = |packet: &Packet| match packet {
        Packet::Publish(publish) => Some(publish.topic.to_string()),
        _ => None,
    };
    packets.iter().filter_map(topic).collect()
}

#[test]
fn twenty_messages_stored_in_reverse_are_acknowledged_in_order() {
    let mut script = ready(&[]);
    script.receive(&(1..=20).map(telemetry).collect::<Vec<_>>());
    let asks = script.asks();
    assert_eq!(asks.len(), 20, "telemetry is not held up by telemetry");
    assert!(asks.iter().all(|ask| ask.lane == Lane::Telemetry));

    for ask in asks.iter().skip(1).rev() {
        script.reply(ask.id, Ok(STORED));
        assert_eq!(script.sent(), [], "the first is not stored");
    }
    script.reply(asks[0].id, Ok(STORED));
    assert_eq!(script.sent(), pubacks(1..=20));
}

#[test]
fn a_twin_reply_held_back_blocks_neither_pings_nor_telemetry_asks() {
    let mut script = ready(&[]);
    script.receive(&[read_twin(1, "a"), read_twin(2, "b"), telemetry(3)]);
    let asks = script.asks();
    let lanes: Vec<Lane> = asks.iter().map(|ask| ask.lane).collect();
    assert_eq!(lanes, [Lane::Telemetry, Lane::Serial], "the second twin request waits for the first");
    script.reply(asks[0].id, Ok(STORED));

    script.pass(Duration::from_secs(10));
    script.receive(&[Packet::Pingreq]);
    assert_eq!(script.sent(), [Packet::Pingresp]);

    script.reply(asks[1].id, Ok(document(3)));
    let sent = script.sent();
    assert_eq!(sent[0], Packet::Puback(PacketId::new(1)));
    assert_eq!(topics_of(&sent), ["$iothub/twin/res/200/?$rid=a"]);
    let second = script.asks();
    assert_eq!(second.len(), 1);
    script.reply(second[0].id, Ok(document(3)));
    let sent = script.sent();
    assert_eq!(sent[..2], pubacks([2, 3]), "the acknowledgement of telemetry keeps its place");
    assert_eq!(topics_of(&sent), ["$iothub/twin/res/200/?$rid=b"]);
}

#[test]
fn requests_that_wait_are_bounded_by_the_window_whatever_their_qos() {
    let mut script = ready(&[]);
    let inbound_max = script.limits.inbound_max;
    let quiet = publish("$iothub/twin/GET/?$rid=1", QoS::AtMostOnce, 0, b"");
    script.receive(&vec![quiet; 10 * inbound_max]);
    assert!(!script.session.wants_input(), "nothing more is read");

    let mut asked = 0;
    while let Some(ask) = script.asks().pop() {
        asked += 1;
        script.reply(ask.id, Ok(document(1)));
        let _ = script.sent();
    }
    assert_eq!(asked, 10 * inbound_max, "what was received is answered");
    assert!(script.session.wants_input());
}

#[test]
fn method_requests_wait_for_a_slow_reader_and_only_those_still_awaited_are_sent() {
    let mut script = ready(&[Known::Methods]);
    let payload = Payload::parse(format!("\"{}\"", "x".repeat(100_000)).into()).unwrap();
    let mut waiters: Vec<_> = (0..8).map(|_| call::Waiter::new()).collect();
    for (number, waiter) in waiters.iter().enumerate() {
        let name = MethodName::parse(&format!("m{number}")).unwrap();
        let request = waiter.request(MethodRequestId::from_bits(1), name, payload.clone());
        script.push(Push::Method(request));
    }
    assert!(script.session.output().len() < 400_000, "256 KiB are full with the third request");
    // The first three are on their way; of the others all but the last have lost their callers.
    waiters.drain(..7);
    let sent = [script.sent(), script.sent()].concat();
    let sent = topics_of(&sent);
    let methods: Vec<_> = sent.iter().filter_map(|topic| topic.split('/').nth(3)).collect();
    assert_eq!(methods, ["m0", "m1", "m2", "m7"]);
}

#[test]
fn a_slow_reader_gets_everything_in_order_and_no_request_begins_without_room() {
    let mut script = ready(&[Known::Desired]);
    script.receive(&(1..=8).map(|number| read_twin(number, &number.to_string())).collect::<Vec<_>>());
    let mut begun = 0;
    let mut wide = document(4);
    if let Reply::Twin(twin::Answer::Document(document)) = &mut wide {
        document.insert("reported".into(), json!({ "text": "x".repeat(100_000) }));
    }
    while let Some(ask) = script.asks().pop() {
        begun += 1;
        script.reply(ask.id, Ok(wide.clone()));
    }
    assert_eq!(begun, 3, "256 KiB are full with the third answer");
    script.push(change(5));
    assert!(script.session.output().len() < 400_000, "the change waits");

    let mut sent = script.sent();
    while let Some(ask) = script.asks().pop() {
        script.reply(ask.id, Ok(wide.clone()));
        sent.extend(script.sent());
    }
    let mut topics = topics_of(&sent);
    let change = topics.iter().position(|topic| topic.contains("PATCH")).map(|index| topics.remove(index));
    assert_eq!(change.as_deref(), Some("$iothub/twin/PATCH/properties/desired/?$version=5"));
    let expected: Vec<String> = (1..=8).map(|number| format!("$iothub/twin/res/200/?$rid={number}")).collect();
    assert_eq!(topics, expected);
}

#[test]
fn a_reader_who_does_not_read_is_cut_off_when_too_many_changes_wait() {
    let mut script = ready(&[Known::Desired]);
    script.receive(&[read_twin(1, "a")]);
    assert_eq!(script.asks().len(), 1);
    for version in 2..=33 {
        script.push(change(version));
        assert_eq!(script.session.closed(), None);
    }
    script.push(change(34));
    assert_eq!(script.session.closed(), Some(&CloseReason::CutOff(CutOff::Overrun)));
}

#[test]
fn a_cut_off_drops_everything_that_was_not_delivered_or_begun() {
    let mut script = ready(&[Known::Desired]);
    script.receive(&[read_twin(1, "a"), read_twin(2, "b"), Packet::Pingreq]);
    let asks = script.asks();
    script.push(change(2));
    script.push(Push::CutOff(CutOff::Disabled));
    assert_eq!(script.session.output(), b"", "not even what was ready to be written");
    assert_eq!(script.session.closed(), Some(&CloseReason::CutOff(CutOff::Disabled)));
    script.reply(asks[0].id, Ok(document(2)));
    assert_eq!((script.sent(), script.asks().len()), (vec![], 0));
}

#[test]
fn a_request_id_is_echoed_byte_for_byte() {
    for request_id in ["3", "6f1e7d0a-0c1c-4b7e-9e5d-000000000001", "a%2Fb", "ü?/+#", ""] {
        let mut script = ready(&[]);
        script.receive(&[read_twin(1, request_id)]);
        let ask = script.asks().pop().unwrap();
        script.reply(ask.id, Ok(document(1)));
        assert_eq!(topics_of(&script.sent()), [format!("$iothub/twin/res/200/?$rid={request_id}")]);
    }
}

#[test]
fn the_largest_message_is_taken_and_one_byte_more_closes() {
    for (bytes, taken) in [(262_144, true), (262_145, false)] {
        let mut script = ready(&[]);
        script.receive(&[publish("devices/dev-1/messages/events/", QoS::AtLeastOnce, 1, &vec![0; bytes])]);
        assert_eq!(script.asks().len() == 1, taken);
        let reason = CloseReason::Message(InvalidMessage::TooLarge { bytes: 262_145 });
        assert_eq!(script.session.closed(), (!taken).then_some(&reason));
    }
}

#[test]
fn a_message_that_cannot_be_stored_closes_unless_it_may_be_lost() {
    for (qos, closes) in [(QoS::AtLeastOnce, true), (QoS::AtMostOnce, false)] {
        let mut script = ready(&[]);
        script.receive(&[publish("devices/dev-1/messages/events/", qos, 1, b"{}")]);
        let ask = script.asks().pop().unwrap();
        script.reply(ask.id, Err(failure(ErrorKind::Unavailable)));
        assert_eq!(script.session.closed().is_some(), closes);
        assert_eq!(script.sent(), [], "nothing is acknowledged that is not stored");
    }
}

#[test]
fn a_repeated_subscription_waits_for_the_one_being_written() {
    let mut script = ready(&[]);
    let filters = vec![Filter { topic: text("$iothub/twin/res/#"), qos: QoS::AtLeastOnce }];
    let subscribe = |number| Packet::Subscribe { packet_id: PacketId::new(number).unwrap(), filters: filters.clone() };
    script.receive(&[subscribe(1), subscribe(2)]);
    let asks = script.asks();
    assert_eq!((asks.len(), script.sent().len()), (1, 0));
    script.reply(asks[0].id, Ok(Reply::Session(Answer::Done)));
    assert_eq!(script.sent().len(), 2);
    script.receive(&[subscribe(3)]);
    assert_eq!((script.asks().len(), script.sent().len()), (0, 1), "nothing changed, so nothing is written");
}

#[test]
fn a_subscription_that_cannot_be_kept_closes() {
    let mut script = ready(&[]);
    let filters = vec![Filter { topic: text("$iothub/twin/res/#"), qos: QoS::AtMostOnce }];
    script.receive(&[Packet::Subscribe { packet_id: PacketId::FIRST, filters }]);
    let ask = script.asks().pop().unwrap();
    script.reply(ask.id, Err(failure(ErrorKind::Unavailable)));
    assert!(matches!(script.session.closed(), Some(CloseReason::Subscriptions(_))));
}

#[test]
fn a_reply_that_comes_after_the_client_has_gone_changes_nothing() {
    let mut script = Script::new();
    script.receive(&[script::connect("dev-1")]);
    let ask = script.asks().pop().unwrap();
    script.session.handle_eof(script.now);
    script.reply(ask.id, Ok(script::connected(&[])));
    assert_eq!((script.sent(), script.asks().len()), (vec![], 0));
    assert_eq!(script.session.closed(), Some(&CloseReason::Mqtt(proto::mqtt::CloseReason::Lost)));
}

proptest! {
    #[test]
    fn no_topic_or_payload_panics(
        topic in "(devices/dev-1/messages/events/|\\$iothub/twin/(GET|PATCH/properties/reported)/\\?\\$rid=|)[^\0]{1,40}",
        payload in proptest::collection::vec(any::<u8>(), 0..64),
        filter in "[^\0]{1,40}",
    ) {
        let mut script = ready(&[]);
        let filters = vec![Filter { topic: text(&filter), qos: QoS::AtMostOnce }];
        script.receive(&[
            Packet::Subscribe { packet_id: PacketId::FIRST, filters },
            publish(&topic, QoS::AtLeastOnce, 1, &payload),
        ]);
        for ask in script.asks() {
            script.reply(ask.id, Err(failure(ErrorKind::Internal)));
        }
        let _ = script.sent();
    }

    #[test]
    fn no_user_name_password_or_will_panics(
        username in "[^\0]{0,60}",
        password in proptest::collection::vec(any::<u8>(), 0..60),
        will_topic in "[^\0]{1,40}",
        client_id in "[^\0]{0,20}",
    ) {
        let will = Will { topic: text(&will_topic), payload: Bytes::new(), qos: QoS::AtLeastOnce, retain: false };
        let Packet::Connect(mut connect) = script::connect("dev-1") else { unreachable!() };
        connect.username = Some(text(&username));
        connect.password = Some(password.into());
        connect.will = Some(Box::new(will));
        connect.client_id = text(&client_id);
        let mut script = Script::new();
        script.receive(&[Packet::Connect(connect)]);
        for ask in script.asks() {
            script.reply(ask.id, Err(failure(ErrorKind::Unauthorized)));
        }
        let _ = script.sent();
    }

    #[test]
    fn any_bytes_after_connect_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut script = ready(&[Known::Desired]);
        script.session.handle_input(&bytes, script.now);
        for ask in script.asks() {
            script.reply(ask.id, Err(failure(ErrorKind::Throttled)));
        }
        script.push(change(1));
    }
}
