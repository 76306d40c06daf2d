//! What a connection may make the hub keep, and how long one stays whose devices were cut off.

use std::time::Duration;

use domain::operation::session::CutOff;
use domain::operation::{ErrorKind, Operation, Push, Reply, cloud_to_device, twin};
use proto::amqp::frame::{FrameType, encode_frame};
use proto::amqp::{
    Body, Limits, LinkId, Map, Message, MessageId, Outgoing, Performative, Role, Settlement, Transfer, Unsent,
};

use super::client::{Client, DONE, connected, failure, seat};
use super::{STORED, asked, change, document, listen, put_token, show, status, telemetry, twin_request};
use crate::hub::amqp::LEAVE_TIME;
use crate::hub::cbs::TOKENS_MAX;
use crate::session::{Ask, CloseReason, Session as _};

/// A client with both links to `$cbs`.
fn with_cbs() -> (Client, LinkId, LinkId) {
    let mut client = Client::open();
    let tokens = client.attach("s", Role::Sender, "$cbs");
    let answers = client.attach("r", Role::Receiver, "$cbs");
    assert_eq!(client.noticed(), ["attached", "attached"]);
    (client, tokens, answers)
}

/// Puts a token, has it found good, and gives the status of the answer.
fn put_good(client: &mut Client, tokens: LinkId, answers: LinkId, resource: &str) -> Option<i64> {
    client.connection.grant_credit(answers, 1);
    client.send(tokens, 0, &put_token(MessageId::Ulong(1), resource));
    let ask = client.ask();
    client.reply(&ask, Ok(DONE));
    status(&client.messages(answers)[0]).0
}

fn report(bytes: usize) -> Message {
    let patch = format!(r#"{{"a":"{}"}}"#, "x".repeat(bytes));
    twin_request("PATCH", Some("/properties/reported"), "1", Body::data(patch))
}

fn first(asks: &[Ask]) -> &Ask {
    asks.first().expect("an ask")
}

#[test]
fn no_more_is_read_while_many_tokens_are_judged() {
    let padding = "x".repeat(8 * 1_024);
    for (name, properties, count) in [("by number", vec![], 64), ("by length", vec![("padding", padding.as_str())], 32)]
    {
        let (mut client, tokens, _) = with_cbs();
        let mut asks = Vec::new();
        for number in 0..count {
            assert!(client.session.wants_input(), "{name}: {number}");
            let put = put_token(MessageId::Ulong(number), "h/devices/dev-1");
            let more =
                put.application_properties.0.iter().filter_map(|(key, value)| Some((key.as_str()?, value.clone())));
            let more: Map = more.chain(properties.iter().map(|(key, value)| (*key, (*value).into()))).collect();
            client.send(tokens, 0, &Message { application_properties: more, ..put });
            asks.extend(client.asks());
        }
        assert!(!client.session.wants_input(), "{name}");
        client.reply(first(&asks), Ok(DONE));
        assert!(client.session.wants_input(), "{name}");
    }
}

#[test]
fn no_more_is_read_while_many_devices_wait_to_be_let_in() {
    let mut client = Client::open();
    let mut asks = Vec::new();
    for number in 0..16 {
        assert!(client.session.wants_input(), "{number}");
        client.attach(&number.to_string(), Role::Sender, &format!("/devices/d{number}/messages/events"));
        asks.extend(client.asks());
    }
    assert!(!client.session.wants_input());
    client.reply(first(&asks), Ok(connected(&seat("d0", 1))));
    assert!(client.session.wants_input());
}

#[test]
fn no_more_is_read_while_many_links_of_back_ends_are_judged() {
    let (mut client, tokens, answers) = with_cbs();
    assert_eq!(put_good(&mut client, tokens, answers, "h&skn=service"), Some(200));
    for number in 0..16 {
        assert!(client.session.wants_input(), "{number}");
        client.attach(&number.to_string(), Role::Sender, "/messages/devicebound");
        client.asks();
    }
    assert!(!client.session.wants_input());
}

#[test]
fn devices_that_are_judged_count_also_once_their_links_are_gone() {
    let mut client = Client::open();
    let come_and_go = |client: &mut Client, device: u32| {
        let link = client.attach("link", Role::Sender, &format!("/devices/d{device}/messages/events"));
        client.connection.detach(link, true, None);
        client.asks()
    };
    let asks = come_and_go(&mut client, 0);
    for _ in 0..100 {
        assert!(come_and_go(&mut client, 0).is_empty(), "it is judged already");
    }
    for device in 1..16 {
        assert!(client.session.wants_input(), "{device}");
        come_and_go(&mut client, device);
    }
    assert!(!client.session.wants_input());
    client.reply(first(&asks), Ok(connected(&seat("d0", 1))));
    assert!(client.session.wants_input());
}

#[test]
fn links_of_back_ends_that_are_judged_count_also_once_they_are_gone() {
    let (mut client, tokens, answers) = with_cbs();
    assert_eq!(put_good(&mut client, tokens, answers, "h&skn=service"), Some(200));
    let mut asks = Vec::new();
    for number in 0..16 {
        assert!(client.session.wants_input(), "{number}");
        let link = client.attach("link", Role::Sender, "/messages/devicebound");
        client.connection.detach(link, true, None);
        asks.extend(client.asks());
    }
    assert!(!client.session.wants_input());
    client.reply(first(&asks), Err(failure(ErrorKind::Unauthorized)));
    assert!(client.session.wants_input());
}

#[test]
fn no_more_is_read_while_many_links_wait_for_calls_to_come() {
    let (mut client, _, _) = Client::telemetry_ready();
    let mut asks = Vec::new();
    for number in 0..16 {
        assert!(client.session.wants_input(), "{number}");
        client.attach(&number.to_string(), Role::Receiver, "/devices/dev-1/methods/devicebound");
        asks.extend(client.asks());
    }
    assert!(!client.session.wants_input());
    client.reply(first(&asks), Ok(DONE));
    assert!(client.session.wants_input());
}

#[test]
fn what_links_leave_behind_that_come_and_go_is_bounded() {
    let ways: [(&str, Role, &str, bool); 3] = [
        ("calls", Role::Receiver, "/devices/dev-1/methods/devicebound", false),
        ("messages", Role::Receiver, "/devices/dev-1/messages/devicebound", false),
        ("telemetry", Role::Sender, "/devices/dev-1/messages/events", true),
    ];
    for (name, role, address, sends) in ways {
        let (mut client, _, _) = Client::telemetry_ready();
        client.attach("stays", Role::Sender, "/devices/dev-1/methods/devicebound");
        let mut asks = Vec::new();
        let mut count = 0;
        while client.session.wants_input() {
            let link = client.attach("link", role, address);
            if sends {
                client.send(link, 0, &telemetry("small"));
            }
            client.connection.detach(link, true, None);
            asks.extend(client.asks());
            count += 1;
            assert!(count < 3_000, "{name}: no end");
        }
        while !asks.is_empty() {
            for ask in std::mem::take(&mut asks) {
                let reply = match &ask.operation {
                    Operation::CloudToDevice(_) => Reply::CloudToDevice(cloud_to_device::Answer::Received(Vec::new())),
                    Operation::Telemetry(_) => STORED,
                    _ => DONE,
                };
                client.reply(&ask, Ok(reply));
            }
            asks.extend(client.asks());
        }
        assert!(client.session.wants_input(), "{name}");
    }
}

#[test]
fn no_more_is_read_while_long_requests_about_twins_wait() {
    let (mut client, [asking, _], _) = Client::twin_ready();
    let mut asks = Vec::new();
    for number in 0..10 {
        assert!(client.session.wants_input(), "{number}");
        client.send(asking, number, &report(110 * 1_024));
        asks.extend(client.asks());
    }
    assert!(!client.session.wants_input());
    client.reply(first(&asks), Ok(Reply::Twin(twin::Answer::Reported { version: 2 })));
    assert!(client.session.wants_input());

    let outgoing = Outgoing {
        tag: b"1".as_slice().into(),
        message_format: 0,
        settlement: Settlement::Unsettled,
        payload: vec![report(128 * 1_024).to_bytes()],
    };
    let unsent = client.connection.send(asking, outgoing);
    assert!(matches!(unsent, Err(Unsent::TooLarge { max: 131_072, .. })), "{unsent:?}");
}

#[test]
fn a_session_has_one_link_for_tokens_and_one_for_answers() {
    let (mut client, _, answers) = with_cbs();
    let tokens = client.attach("again", Role::Sender, "$cbs");
    assert_eq!(client.noticed(), ["attached", "detached amqp:link:stolen"]);
    assert_eq!(put_good(&mut client, tokens, answers, "h/devices/dev-1"), Some(200));
    let answers = client.attach("again too", Role::Receiver, "$cbs");
    assert_eq!(client.noticed(), ["attached", "detached amqp:link:stolen"]);
    assert_eq!(put_good(&mut client, tokens, answers, "h/devices/dev-1"), Some(200));
}

#[test]
fn a_token_that_nobody_here_needs_makes_room_for_another() {
    let (mut client, tokens, answers) = with_cbs();
    for number in 0..TOKENS_MAX {
        assert_eq!(put_good(&mut client, tokens, answers, &format!("h/devices/d{number}")), Some(200));
    }
    let enter = |client: &mut Client, identity: &str, expected: &str| {
        let path = identity.replace('/', "/modules/");
        client.attach(identity, Role::Sender, &format!("/devices/{path}/messages/events"));
        let ask = client.ask();
        assert_eq!(show(&ask), expected);
        client.reply(&ask, Ok(connected(&seat(identity, 1))));
    };
    enter(&mut client, "d0", "connect d0 at 127.0.0.2 by h/devices/d0");
    assert_eq!(put_good(&mut client, tokens, answers, "h/devices/one-more"), Some(200));
    enter(&mut client, "one-more", "connect one-more at 127.0.0.2 by h/devices/one-more");
    enter(&mut client, "d0/m", "connect d0/m at 127.0.0.2 by h/devices/d0");
    enter(&mut client, "d1", "connect d1 at 127.0.0.2");
    enter(&mut client, "d2", "connect d2 at 127.0.0.2 by h/devices/d2");
}

#[test]
fn a_connection_ends_whose_last_device_missed_a_change_however_that_came_out() {
    let (mut client, [asking, _], seat) = Client::twin_ready();
    client.send(asking, 1, &listen("1"));
    client.send(asking, 2, &twin_request("GET", None, "2", Body::Empty));
    let ask = client.ask();
    client.session.handle_push(&seat, change(9), client.now);
    client.noticed();
    client.reply(&ask, Ok(document(1)));
    assert_eq!(asked(&mut client), ["disconnect dev-1"]);
    let gone = "detached amqp:link:detach-forced";
    assert_eq!(client.noticed(), [gone, gone]);
    client.now += LEAVE_TIME;
    client.session.handle_timeout(client.now);
    client.pump();
    assert_eq!(client.session.closed(), Some(&CloseReason::CutOff(CutOff::Overrun)));
}

#[test]
fn a_message_that_is_too_long_ends_its_link_and_nothing_else() {
    const PIECE_BYTES: usize = 60 * 1_024;
    let (mut client, _, seat) = Client::telemetry_ready();
    let other = client.attach("other", Role::Sender, "/devices/dev-2/messages/events");
    let ask = client.ask();
    client.reply(&ask, Ok(connected(&self::seat("dev-2", 2))));
    client.noticed();
    // A client that does not heed what the hub takes: its engine would not send it.
    for number in 0..5 {
        let transfer = Transfer {
            handle: 0,
            delivery_id: (number == 0).then_some(0),
            delivery_tag: (number == 0).then(|| b"1".as_slice().into()),
            message_format: Some(0),
            settled: Some(false),
            more: true,
            rcv_settle_mode: None,
            state: None,
            resume: false,
            aborted: false,
            batchable: false,
        };
        let mut bytes = Vec::new();
        encode_frame(&mut bytes, FrameType::Amqp, 0, |out| {
            Performative::Transfer(transfer).encode(out);
            out.resize(out.len() + PIECE_BYTES, 0);
        });
        client.session.handle_input(&bytes, client.now);
    }
    assert_eq!(client.noticed(), ["detached amqp:link:message-size-exceeded"]);
    assert_eq!(asked(&mut client), [format!("disconnect {}", seat.name)]);
    assert!(client.connection.credit(other) > 0 && client.session.closed().is_none());
}

#[test]
fn a_connection_does_not_end_to_which_somebody_came_back_meanwhile() {
    let (mut client, _, first) = Client::telemetry_ready();
    client.session.handle_push(&first, Push::CutOff(CutOff::Rekeyed), client.now);
    client.answer("disconnect dev-1", Ok(DONE));
    let link = client.attach("again", Role::Sender, "/devices/dev-1/messages/events");
    client.answer("connect dev-1 at 127.0.0.2", Ok(connected(&seat("dev-1", 2))));
    client.connection.detach(link, true, None);
    client.pump();
    client.now += LEAVE_TIME;
    client.session.handle_timeout(client.now);
    assert!(client.session.closed().is_none(), "it left by itself, and may come again");
}

#[test]
fn a_connection_does_not_end_on_which_somebody_reads_events() {
    let (mut client, tokens, answers) = with_cbs();
    client.attach("telemetry", Role::Sender, "/devices/dev-1/messages/events");
    let seat = seat("dev-1", 1);
    client.answer("connect dev-1 at 127.0.0.2", Ok(connected(&seat)));
    assert_eq!(put_good(&mut client, tokens, answers, "h&skn=service"), Some(200));
    client.attach("asking", Role::Sender, "$management");
    client.session.handle_push(&seat, Push::CutOff(CutOff::Rekeyed), client.now);
    client.now += LEAVE_TIME;
    client.session.handle_timeout(client.now);
    client.pump();
    assert!(client.session.closed().is_none());
}

#[test]
fn sessions_end_before_the_connection_of_a_device_when_the_server_stops() {
    let (mut client, _, _) = Client::telemetry_ready();
    client.session.stop();
    assert!(client.session.is_at_rest());
    client.session.close(client.now);
    let noticed = client.noticed();
    assert!(noticed[0].starts_with("End { ") && noticed[0].ends_with(" error: None }"), "{noticed:?}");
    assert_eq!(noticed[1..], ["closed: closed by the peer: amqp:link:detach-forced: The ser"]);
    assert_eq!(client.session.closed(), Some(&CloseReason::Stopping));
}

#[test]
fn a_displaced_device_is_not_the_end_of_a_connection_that_others_use() {
    let (mut client, _, first) = Client::telemetry_ready();
    client.attach("other", Role::Sender, "/devices/dev-2/messages/events");
    let ask = client.ask();
    client.reply(&ask, Ok(connected(&seat("dev-2", 2))));
    client.noticed();
    client.session.handle_push(&first, Push::CutOff(CutOff::Displaced), client.now);
    assert_eq!(client.noticed(), ["detached amqp:link:stolen"]);
    client.now += LEAVE_TIME + Duration::from_secs(1);
    assert!(client.session.poll_timeout().is_none_or(|at| at > client.now));
    assert!(Limits::default().idle_timeout > LEAVE_TIME, "only silence is waited for");
}
