//! Devices that are sent messages.

use domain::clock::UnixTime;
use domain::cloud_to_device::{BODY_BYTES_MAX, DEVICE_LOCK, Delivery, Draft};
use domain::ids::LockToken;
use domain::operation::session::ConnectedDevice;
use proto::amqp::{DeliveryId, DeliveryState, Event, LinkId, LinkTerms, Modified, ReceiverSettleMode, Source, Target};

use super::*;

const ADDRESS: &str = "/devices/dev-1/messages/deviceBound";
const SETTLED: Reply = Reply::CloudToDevice(cloud_to_device::Answer::Settled);

fn delivery(number: u64, body: impl Into<Bytes>) -> Delivery {
    Delivery {
        lock: LockToken::from_bits(number.into()),
        sequence: number,
        enqueued_at: UnixTime::from_seconds(0),
        expires_at: UnixTime::from_seconds(1),
        delivery_count: 0,
        message: Draft { body: body.into(), ..Draft::default() },
    }
}

fn given(numbers: impl IntoIterator<Item = u64>) -> Reply {
    let deliveries = numbers.into_iter().map(|number| delivery(number, "x")).collect();
    Reply::CloudToDevice(cloud_to_device::Answer::Received(deliveries))
}

/// `dev-1` with a link for messages that has no credit.
fn attached(rcv_settle_mode: ReceiverSettleMode, bytes_max: u64) -> (Client, LinkId, ConnectedDevice) {
    let mut client = Client::open();
    let mut terms = LinkTerms::between(Source::at(ADDRESS), Target::default(), bytes_max);
    terms.rcv_settle_mode = rcv_settle_mode;
    let link = client.connection.attach(client.link_session.unwrap(), "m".into(), Role::Receiver, terms).unwrap();
    let ask = client.ask();
    let seat = seat("dev-1", 1);
    client.reply(&ask, Ok(connected(&seat)));
    assert_eq!(client.noticed(), ["attached"]);
    (client, link, seat)
}

/// The same, with credit for 50.
fn ready() -> (Client, LinkId, ConnectedDevice) {
    let (mut client, link, seat) = attached(ReceiverSettleMode::First, 0);
    client.connection.grant_credit(link, 50);
    (client, link, seat)
}

/// The messages that have come: what each is called on the wire, and for the answer.
fn come(client: &mut Client) -> Vec<(u128, DeliveryId)> {
    client.pump();
    let deliveries = client.events.drain(..).filter_map(|event| match event {
        Event::Delivery(delivery) => {
            assert!(!delivery.is_settled);
            Some((u128::from_be_bytes(delivery.tag[..].try_into().unwrap()), delivery.id))
        }
        _ => None,
    });
    deliveries.collect()
}

/// Answers an ask for messages, and gives those that have come.
fn receive(client: &mut Client, expected: &str, reply: Reply) -> Vec<(u128, DeliveryId)> {
    client.answer(expected, Ok(reply));
    come(client)
}

#[test]
fn messages_come_in_order_and_outcomes_settle_them() {
    let (mut client, _, seat) = ready();
    let come = receive(&mut client, "receive 4", given([1, 2, 3]));
    assert_eq!(come.iter().map(|(tag, _)| *tag).collect::<Vec<_>>(), [1, 2, 3]);
    let modified = |undeliverable_here| {
        let modified = Modified { delivery_failed: true, undeliverable_here, message_annotations: Map::EMPTY };
        DeliveryState::Modified(Box::new(modified))
    };
    client.session.handle_push(&seat, Push::MessagesWaiting, client.now);
    let more = receive(&mut client, "receive 4", given([4, 5]));
    let outcomes = [
        (come[1].1, DeliveryState::Released, "abandon 2"),
        (come[0].1, DeliveryState::Accepted, "complete 1"),
        (
            come[2].1,
            DeliveryState::rejected(proto::amqp::Error::new(proto::amqp::condition::NOT_ALLOWED, "")),
            "reject 3",
        ),
        (more[0].1, modified(false), "abandon 4"),
        (more[1].1, modified(true), "reject 5"),
    ];
    for (id, state, expected) in outcomes {
        client.connection.settle(id, state);
        client.answer(expected, Ok(SETTLED));
    }
    assert_eq!((asked(&mut client), client.noticed()), (vec![], vec![]));
}

#[test]
fn no_message_is_asked_for_without_credit() {
    let (mut client, link, seat) = attached(ReceiverSettleMode::First, 0);
    client.session.handle_push(&seat, Push::MessagesWaiting, client.now);
    assert_eq!(asked(&mut client), Vec::<String>::new());
    client.connection.grant_credit(link, 3);
    assert_eq!(receive(&mut client, "receive 3", given([1, 2, 3])).len(), 3);
    client.session.handle_push(&seat, Push::MessagesWaiting, client.now);
    assert_eq!(asked(&mut client), Vec::<String>::new(), "the credit is used up");
    client.connection.grant_credit(link, 1);
    assert_eq!(receive(&mut client, "receive 1", given([4])).len(), 1);
}

#[test]
fn a_device_that_settles_nothing_has_a_bounded_number_of_messages() {
    let (mut client, link, _) = ready();
    client.connection.grant_credit(link, 1_000);
    let mut come = Vec::new();
    for round in 0..12 {
        come.extend(receive(&mut client, "receive 4", given((0..4).map(|n| round * 4 + n))));
    }
    come.extend(receive(&mut client, "receive 2", given([48, 49])));
    assert_eq!((come.len(), asked(&mut client)), (50, vec![]));
    client.connection.settle(come[9].1, DeliveryState::Accepted);
    let ask = client.ask();
    client.reply(&ask, Ok(SETTLED));
    assert_eq!(asked(&mut client), ["receive 1"], "one that is done makes room for one");
}

#[test]
fn a_client_that_waits_for_it_is_told_what_became_of_what_it_settled() {
    let (mut client, link, _) = attached(ReceiverSettleMode::Second, 0);
    client.connection.grant_credit(link, 50);
    let come = receive(&mut client, "receive 4", given([1, 2]));
    client.connection.settle(come[0].1, DeliveryState::Accepted);
    client.connection.settle(come[1].1, DeliveryState::Released);
    let asks = client.asks();
    assert_eq!(asks.iter().map(show).collect::<Vec<_>>(), ["complete 1"], "one after the other");
    assert_eq!(client.connection.unsettled(), 2, "it is not durable yet");
    client.reply(&asks[0], Ok(SETTLED));
    assert_eq!(client.connection.unsettled(), 1);
    let ask = client.ask();
    assert_eq!(show(&ask), "abandon 2");
    client.session.handle_reply(ask.id, Err(failure(ErrorKind::LockLost)), client.now);
    let said = String::from_utf8_lossy(client.session.output()).into_owned();
    assert!(said.contains("com.microsoft:message-lock-lost"), "{said}");
    client.pump();
    assert_eq!(client.connection.unsettled(), 0);
}

#[test]
fn what_the_hub_cannot_settle_or_give_ends_the_devices_links() {
    let (mut client, _, _) = ready();
    let come = receive(&mut client, "receive 4", given([1]));
    client.connection.settle(come[0].1, DeliveryState::Accepted);
    let ask = client.ask();
    client.reply(&ask, Err(failure(ErrorKind::Unavailable)));
    assert_eq!(client.noticed(), ["detached amqp:internal-error"]);
    assert_eq!(asked(&mut client), ["disconnect dev-1"], "which frees the message");

    let (mut client, _, _) = ready();
    let ask = client.ask();
    client.reply(&ask, Err(failure(ErrorKind::Unavailable)));
    assert_eq!(client.noticed(), ["detached amqp:internal-error"]);
    assert_eq!(asked(&mut client), ["disconnect dev-1"]);
}

#[test]
fn what_a_link_had_is_given_back_and_comes_again_on_the_next() {
    let (mut client, link, _) = ready();
    let _twin = client.attach("twin", Role::Receiver, "/devices/dev-1/twin");
    assert_eq!(receive(&mut client, "receive 4", given([1, 2])).len(), 2);
    client.connection.detach(link, true, None);
    client.answer("give back of dev-1", Ok(SETTLED));
    client.attach("again", Role::Receiver, ADDRESS);
    assert_eq!(receive(&mut client, "receive 4", given([1, 2])).len(), 2);

    // Of two alike, the later one gets them.
    client.attach("later", Role::Receiver, ADDRESS);
    client.answer("give back of dev-1", Ok(SETTLED));
    assert_eq!(receive(&mut client, "receive 4", given([1, 2])).len(), 2);
}

#[test]
fn what_comes_for_a_link_that_is_over_is_not_sent_on_the_next() {
    let (mut client, link, _) = ready();
    let _twin = client.attach("twin", Role::Receiver, "/devices/dev-1/twin");
    let asked_before = client.ask();
    client.connection.detach(link, true, None);
    client.pump();
    client.attach("again", Role::Receiver, ADDRESS);
    client.reply(&asked_before, Ok(given([1])));
    assert_eq!(come(&mut client), []);
    client.answer("give back of dev-1", Ok(SETTLED));
    assert_eq!(receive(&mut client, "receive 4", given([1])).len(), 1);
}

#[test]
fn a_message_that_is_longer_than_the_client_takes_holds_up_no_other() {
    let (mut client, link, _) = attached(ReceiverSettleMode::First, 64 * 1024);
    client.connection.grant_credit(link, 50);
    let long = vec![b'x'; BODY_BYTES_MAX];
    let deliveries = vec![delivery(1, long), delivery(2, "x")];
    let reply = Reply::CloudToDevice(cloud_to_device::Answer::Received(deliveries));
    let come = receive(&mut client, "receive 4", reply);
    assert_eq!(come.iter().map(|(tag, _)| *tag).collect::<Vec<_>>(), [2]);
    assert_eq!(asked(&mut client), ["reject 1"]);
}

#[test]
fn an_outcome_that_is_told_twice_counts_once() {
    let (mut client, _, _) = ready();
    let come = receive(&mut client, "receive 4", given([1]));
    client.connection.settle(come[0].1, DeliveryState::Accepted);
    client.connection.settle(come[0].1, DeliveryState::Released);
    assert_eq!(asked(&mut client), ["complete 1"]);
}

/// Lets the locks run out of what has come.
fn outlast(client: &mut Client) {
    client.now = client.session.poll_timeout().unwrap();
    client.session.handle_timeout(client.now);
    client.pump();
}

#[test]
fn a_message_whose_lock_runs_out_comes_again_on_the_same_link_and_a_late_outcome_is_rejected() {
    let (mut client, _, seat) = ready();
    let start = client.now;
    let first = receive(&mut client, "receive 4", given([1, 2]));
    client.connection.settle(first[1].1, DeliveryState::Accepted);
    client.answer("complete 2", Ok(SETTLED));
    outlast(&mut client);
    assert_eq!(client.now, start + DEVICE_LOCK);
    assert_eq!(asked(&mut client), Vec::<String>::new(), "it is told when there is something");
    client.session.handle_push(&seat, Push::MessagesWaiting, client.now);
    let again = receive(&mut client, "receive 4", given([3]));
    assert_eq!(again[0].0, 3, "under a name of its own");

    client.connection.settle(first[0].1, DeliveryState::Accepted);
    assert_eq!(asked(&mut client), Vec::<String>::new(), "it is not that message's any more");
    client.connection.settle(again[0].1, DeliveryState::Accepted);
    assert_eq!(asked(&mut client), ["complete 3"]);
}

#[test]
fn a_client_that_waits_for_it_is_told_that_its_lock_is_lost() {
    let (mut client, link, _) = attached(ReceiverSettleMode::Second, 0);
    client.connection.grant_credit(link, 50);
    let come = receive(&mut client, "receive 4", given([1, 2]));
    outlast(&mut client);
    client.connection.settle(come[0].1, DeliveryState::Accepted);
    let up = Bytes::copy_from_slice(client.connection.output());
    client.connection.handle_written(up.len(), client.now);
    client.session.handle_input(&up, client.now);
    let said = String::from_utf8_lossy(client.session.output()).into_owned();
    assert!(said.contains("com.microsoft:message-lock-lost") && said.contains("412002"), "{said}");
    assert_eq!(asked(&mut client), Vec::<String>::new());
    assert_eq!(client.connection.unsettled(), 1);
}

#[test]
fn a_device_that_settles_nothing_has_room_again_once_its_locks_have_run_out() {
    let (mut client, link, seat) = ready();
    client.connection.grant_credit(link, 1_000);
    for round in 0..12 {
        receive(&mut client, "receive 4", given((0..4).map(|n| round * 4 + n)));
    }
    receive(&mut client, "receive 2", given([48, 49]));
    client.session.handle_push(&seat, Push::MessagesWaiting, client.now);
    assert_eq!(asked(&mut client), Vec::<String>::new(), "it has as many as it may");
    outlast(&mut client);
    assert_eq!(receive(&mut client, "receive 4", given([50])).len(), 1);
}
