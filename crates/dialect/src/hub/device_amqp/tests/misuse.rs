//! Clients that say what no engine would: transfers beyond their credit, outcomes of what was never sent, links that end in
//! the middle of a message.

use domain::clock::UnixTime;
use domain::cloud_to_device::{Delivery, Draft};
use domain::ids::LockToken;
use proto::amqp::frame::{FrameType, encode_frame};
use proto::amqp::{DeliveryState, Detach, Disposition, Performative, Transfer};

use super::*;

/// What the client says on its only session.
fn say(client: &mut Client, performative: &Performative, payload: &[u8]) {
    let mut bytes = Vec::new();
    encode_frame(&mut bytes, FrameType::Amqp, 0, |out| {
        performative.encode(out);
        out.extend_from_slice(payload);
    });
    client.session.handle_input(&bytes, client.now);
}

/// A transfer on the client's first link.
fn transfer(number: u32, more: bool) -> Performative {
    Performative::Transfer(Transfer {
        handle: 0,
        delivery_id: Some(number),
        delivery_tag: Some(Bytes::copy_from_slice(&number.to_be_bytes())),
        message_format: Some(0),
        settled: Some(false),
        more,
        rcv_settle_mode: None,
        state: None,
        resume: false,
        aborted: false,
        batchable: false,
    })
}

fn outcome(first: u32, last: u32, state: DeliveryState) -> Performative {
    let last = Some(last);
    Performative::Disposition(Disposition {
        role: Role::Receiver,
        first,
        last,
        settled: true,
        state: Some(state),
        batchable: false,
    })
}

/// `dev-1` with a link for messages, of which it has one that is called 1.
fn with_message() -> Client {
    let mut client = Client::open();
    client.attach("m", Role::Receiver, "/devices/dev-1/messages/devicebound");
    let ask = client.ask();
    client.reply(&ask, Ok(connected(&seat("dev-1", 1))));
    let delivery = Delivery {
        lock: LockToken::from_bits(1),
        sequence: 1,
        enqueued_at: UnixTime::from_seconds(0),
        expires_at: UnixTime::from_seconds(1),
        delivery_count: 0,
        message: Draft::default(),
    };
    client.answer("receive 4", Ok(Reply::CloudToDevice(cloud_to_device::Answer::Received(vec![delivery]))));
    assert_eq!(client.noticed(), ["attached", "message"]);
    client
}

#[test]
fn who_sends_beyond_its_credit_loses_the_link() {
    let (mut client, link, _) = Client::telemetry_ready();
    let credit = client.connection.credit(link);
    let payload = telemetry("x").to_bytes();
    for number in 0..=credit {
        say(&mut client, &transfer(number, false), &payload);
    }
    assert_eq!(client.noticed(), ["detached amqp:link:transfer-limit-exceeded"]);
    let asked = asked(&mut client);
    assert_eq!(asked.len(), credit as usize + 1, "what came within the credit counts");
    assert_eq!(asked.last().map(String::as_str), Some("disconnect dev-1"));
}

#[test]
fn an_outcome_of_what_was_never_sent_settles_nothing() {
    let mut client = with_message();
    for (first, last) in [(1, 1), (7, 9), (u32::MAX, u32::MAX)] {
        say(&mut client, &outcome(first, last, DeliveryState::Accepted), &[]);
    }
    assert_eq!((asked(&mut client), client.noticed()), (vec![], vec![]));
    // A range that holds it along with others settles it alone.
    say(&mut client, &outcome(0, 1_000_000, DeliveryState::Released), &[]);
    assert_eq!(asked(&mut client), ["abandon 1"]);
    say(&mut client, &outcome(0, 0, DeliveryState::Accepted), &[]);
    assert_eq!((asked(&mut client), client.noticed()), (vec![], vec![]), "it is settled");
}

#[test]
fn a_link_that_ends_in_the_middle_of_a_message_leaves_nothing_of_it() {
    let (mut client, _, _) = Client::telemetry_ready();
    let payload = telemetry("half").to_bytes();
    say(&mut client, &transfer(0, true), &payload[..payload.len() / 2]);
    say(&mut client, &Performative::Detach(Detach { handle: 0, closed: true, error: None }), &[]);
    // No half of a message is telemetry.
    client.answer("disconnect dev-1", Ok(DONE));
    assert!(client.session.closed().is_none() && client.session.is_at_rest());
}

#[test]
fn a_link_that_ends_before_its_message_is_stored_is_told_nothing() {
    let (mut client, link, _) = Client::telemetry_ready();
    client.send(link, 0, &telemetry("a"));
    let ask = client.ask();
    client.connection.detach(link, true, None);
    client.pump();
    client.reply(&ask, Ok(STORED));
    let noticed = client.noticed();
    assert!(!noticed.contains(&"accepted".to_owned()), "{noticed:?}");
    assert_eq!(asked(&mut client), ["disconnect dev-1"]);
}
