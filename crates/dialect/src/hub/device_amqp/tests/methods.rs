//! Devices that are called.

use domain::ids::{MethodName, MethodRequestId};
use domain::method::{Payload, Waiter};
use domain::operation::session::ConnectedDevice;
use proto::amqp::{LinkId, LinkTerms, Source, Target};

use super::*;

const ADDRESS: &str = "/devices/dev-1/methods/devicebound";

/// `dev-1` with both links of its methods; the one on which it is called first.
fn methods_ready() -> (Client, [LinkId; 2], ConnectedDevice) {
    let mut client = Client::open();
    let calls = client.attach("calls", Role::Receiver, ADDRESS);
    let ask = client.ask();
    let results = client.attach("results", Role::Sender, ADDRESS);
    let seat = seat("dev-1", 1);
    client.reply(&ask, Ok(connected(&seat)));
    assert_eq!(client.noticed(), ["attached"], "the link of results; the other waits");
    let ask = client.ask();
    assert_eq!(show(&ask), "have calls come");
    client.reply(&ask, Ok(DONE));
    assert_eq!(client.noticed(), ["attached"]);
    (client, [calls, results], seat)
}

fn call(waiter: &Waiter, number: u128) -> Push {
    let payload = Payload::parse(format!("[{number}]").into()).unwrap();
    Push::Method(waiter.request(MethodRequestId::from_bits(number), MethodName::parse("reboot").unwrap(), payload))
}

fn result(number: u128, status: impl Into<Value>, body: &'static str) -> Message {
    let correlation_id = Some(MessageId::Uuid(number.to_be_bytes()));
    Message {
        properties: Some(Box::new(Properties { correlation_id, ..Properties::default() })),
        application_properties: Map::from_iter([("IoThub-status", status)]),
        body: Body::data(body),
        ..Message::default()
    }
}

const NOTED: Reply = Reply::Method(method::Answer::Noted);

#[test]
fn a_call_is_told_and_its_result_settled_once_it_is_noted() {
    let (mut client, [calls, results], seat) = methods_ready();
    let waiter = Waiter::new();
    client.session.handle_push(&seat, call(&waiter, 7), client.now);
    let told = client.messages(calls);
    assert_eq!(told[0].correlation_id(), Some(&MessageId::Uuid(7u128.to_be_bytes())));
    assert_eq!((told.len(), text(&told[0].body)), (1, "[7]".to_owned()));

    client.send(results, 0, &result(7, 200, "{}"));
    let ask = client.ask();
    assert_eq!((show(&ask), client.noticed()), ("respond to 7 with 200 {}".to_owned(), vec![]));
    client.reply(&ask, Ok(NOTED));
    assert_eq!(client.noticed(), ["accepted"]);

    client.send_format(results, 1, (0, Settlement::Settled), result(8, 200, "no JSON").to_bytes());
    assert_eq!(
        asked(&mut client),
        ["respond to 8: The response from device cannot be passed on: the payload is not JSON."],
        "its caller hears of it at once"
    );
}

#[test]
fn a_call_that_is_longer_than_the_device_takes_is_not_told_and_its_caller_hears_so() {
    let (mut client, _, seat) = methods_ready();
    let terms = LinkTerms::between(Source::at(ADDRESS), Target::default(), 150);
    let calls = client.connection.attach(client.link_session.unwrap(), "short".into(), Role::Receiver, terms).unwrap();
    client.connection.grant_credit(calls, 50);
    client.pump();
    let waiter = Waiter::new();
    let payload = Payload::parse(format!("\"{}\"", "x".repeat(150)).into()).unwrap();
    let long = waiter.request(MethodRequestId::from_bits(7), MethodName::parse("reboot").unwrap(), payload);
    client.session.handle_push(&seat, Push::Method(long), client.now);
    client.session.handle_push(&seat, call(&waiter, 8), client.now);
    let asked = asked(&mut client);
    let [told] = &asked[..] else { panic!("{asked:?}") };
    assert!(told.starts_with("respond to 7: The request has 2") && told.ends_with("takes 150."), "{told}");
    let told: Vec<_> = client.messages(calls).iter().map(|message| text(&message.body)).collect();
    assert_eq!(told, ["[8]"], "the next one is");
}

#[test]
fn a_result_that_answers_nothing_is_accepted_and_one_that_cannot_be_read_is_refused() {
    let (mut client, [_, results], _) = methods_ready();
    client.send(results, 0, &telemetry("nothing"));
    assert_eq!(client.noticed(), ["rejected com.microsoft:argument-error"]);
    client.send_format(results, 1, (0, Settlement::Unsettled), Bytes::from_static(b"\x00\x53"));
    assert_eq!(client.noticed(), ["rejected com.microsoft:argument-error"]);
    let mut unnamed = result(1, 200, "{}");
    unnamed.properties = None;
    client.send(results, 2, &unnamed);
    assert_eq!((client.noticed(), asked(&mut client)), (vec!["accepted".to_owned()], vec![]));
}

#[test]
fn credit_for_results_comes_back() {
    let (mut client, [_, results], _) = methods_ready();
    for tag in 0..100 {
        client.send(results, tag, &telemetry("nothing"));
        assert_eq!(client.noticed(), ["rejected com.microsoft:argument-error"], "{tag}");
    }
    for tag in 100..200 {
        client.send(results, tag, &result(1, 200, "{}"));
        let ask = client.ask();
        client.reply(&ask, Ok(NOTED));
        assert_eq!(client.noticed(), ["accepted"], "{tag}");
    }
}

#[test]
fn calls_wait_for_credit_and_only_those_still_awaited_are_told() {
    let (mut client, [calls, _], seat) = methods_ready();
    let mut waiters: Vec<_> = (0..60).map(|_| Waiter::new()).collect();
    for (number, waiter) in waiters.iter().enumerate() {
        client.session.handle_push(&seat, call(waiter, number as u128), client.now);
    }
    assert_eq!(client.messages(calls).len(), 50, "as many as there is credit for");
    waiters.drain(..58);
    client.connection.grant_credit(calls, 50);
    let told: Vec<_> = client.messages(calls).iter().map(|message| text(&message.body)).collect();
    assert_eq!(told, ["[58]", "[59]"]);
}

#[test]
fn no_calls_come_to_a_device_without_a_link_for_them() {
    let (mut client, [calls, results], _) = methods_ready();
    client.connection.detach(calls, true, None);
    client.answer("have no calls come", Ok(DONE));
    let again = client.attach("again", Role::Receiver, ADDRESS);
    let ask = client.ask();
    client.connection.detach(again, true, None);
    client.pump();
    assert_eq!(show(&ask), "have calls come");
    client.reply(&ask, Ok(DONE));
    client.answer("have no calls come", Ok(DONE));
    client.connection.detach(results, true, None);
    assert_eq!(asked(&mut client), ["disconnect dev-1"]);
}

#[test]
fn the_later_link_for_calls_takes_over() {
    let (mut client, _, seat) = methods_ready();
    let _ = client.noticed();
    let later = client.attach("later", Role::Receiver, ADDRESS);
    let mut noticed = client.noticed();
    noticed.sort();
    assert_eq!(noticed, ["attached", "detached amqp:link:stolen"]);
    assert_eq!(asked(&mut client), Vec::<String>::new(), "calls went on coming");
    let waiter = Waiter::new();
    client.session.handle_push(&seat, call(&waiter, 1), client.now);
    assert_eq!(client.messages(later).len(), 1);
}

#[test]
fn a_link_for_calls_that_cannot_come_is_refused() {
    let mut client = Client::open();
    client.attach("calls", Role::Receiver, ADDRESS);
    let ask = client.ask();
    client.reply(&ask, Ok(connected(&seat("dev-1", 1))));
    let ask = client.ask();
    client.reply(&ask, Err(failure(ErrorKind::Unavailable)));
    assert_eq!(client.noticed(), ["refused", "detached amqp:internal-error"]);
    assert_eq!(asked(&mut client), ["disconnect dev-1"]);
}
