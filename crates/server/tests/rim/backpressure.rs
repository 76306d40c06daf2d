//! What holds up whoever is faster than the disk, or slower than the log: nothing grows without bound meanwhile, nobody
//! else is held up, and nothing is lost.

use std::sync::Arc;

use domain::ids::HubKey;
use domain::message::{Draft, MESSAGE_BYTES_MAX, Message, Origin};
use domain::operation::identity::IdentityName;
use domain::operation::session::AuthenticationMethod;
use futures_util::future::join_all;
use http::Method;
use proto::amqp::{DeliveryState, Event, LinkTerms, Role, Source, Target};
use proto::mqtt::{Limits, Packet, Refusal};
use store::faults::{Fault, HeldLog};
use store::ports::TelemetryLog as _;
use testkit::raw_http::{RawAnswer, RawHttp, RawRequest};
use testkit::raw_mqtt::{Heard, encoded};
use testkit::whole::Muster;

use crate::amqp_hub::Gateway;
use crate::back_ends;
use crate::ground::{DEVICE, ask_registry, dial, enter, introduction, packet, refusal, telemetry, token, with_device};

/// Telemetry transfers that a link lets a device have under way.
const CREDIT: usize = 128;
/// Messages of the greatest size that may wait for the disk at once, of those that come over HTTPS.
const POSTS: usize = 32;
/// What a reader that does not read leaves behind: what it holds in the server, and what the kernel takes at both ends.
const LEFT_BYTES_MAX: usize = 14 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_mqtt_no_more_is_read_than_may_be_under_way() {
    let (muster, log) = start_held().await;
    let window = Limits::default().inbound_max;
    let mut client = enter(&muster, introduction(&muster)).await;
    log.hold();
    let numbers = 1..=u16::try_from(3 * window).expect("few");
    let all: Vec<u8> = numbers.clone().flat_map(|number| encoded(&telemetry(Some(number), "x"))).collect();
    client.send(&all).await;
    log.until_waiting(window).await;
    others_are_served(&muster).await;
    assert_eq!(log.waiting(), window);
    log.let_go();
    for number in numbers {
        assert_eq!(client.hear().await, Heard::Packet(Packet::Puback(Some(packet(number)))));
    }
    muster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_amqp_there_is_no_credit_for_more_than_may_be_under_way() {
    let (muster, log) = start_held().await;
    let mut gateway = Gateway::open(&muster).await;
    let link = gateway.enter(&muster, DEVICE).await;
    assert_eq!(gateway.send(link, "first").await, DeliveryState::Accepted);
    log.hold();
    for number in 0..CREDIT - 1 {
        gateway.start_send(link, &number.to_string());
    }
    gateway.client.flush().await.expect("the server reads");
    log.until_waiting(CREDIT - 1).await;
    others_are_served(&muster).await;
    assert_eq!((gateway.client.connection.credit(link), log.waiting()), (0, CREDIT - 1));
    log.let_go();
    let mut accepted = 0;
    while accepted < CREDIT - 1 || gateway.client.connection.credit(link) == 0 {
        match gateway.client.hear().await.expect("in time") {
            Event::Outcome { state: Some(DeliveryState::Accepted), .. } => accepted += 1,
            Event::Credit { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(accepted, CREDIT - 1);
    drop(gateway);
    muster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_https_whoever_finds_too_much_under_way_is_told_when_to_come_again() {
    let (muster, log) = start_held().await;
    log.hold();
    let posts = (0..POSTS).map(|_| async { post(&muster).await.status });
    let meanwhile = async {
        log.until_waiting(POSTS).await;
        let refused = post(&muster).await;
        assert_eq!((refused.status, refused.header("retry-after")), (429, Some("5")), "{}", refused.text());
        others_are_served(&muster).await;
        log.let_go();
    };
    let (statuses, ()) = tokio::join!(join_all(posts), meanwhile);
    assert_eq!(statuses, [204; POSTS]);
    assert_eq!(post(&muster).await.status, 204, "there is room again");
    muster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_be_let_in_for_the_moment_is_told_to_come_again_in_every_dialect() {
    let (muster, store) = Muster::start_over_faulty_store().await.expect("a server");
    let muster = with_device(muster).await;
    let good = token(&muster, &format!("{}%2Fdevices%2F{DEVICE}", muster.hub.host));
    store.plan_verb("find_identity", Fault::Before);
    assert_eq!(refusal(dial(&muster).await, &muster, DEVICE, &good).await, Refusal::ServerUnavailable);
    let answer = post(&muster).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("3")), "{}", answer.text());
    let mut gateway = Gateway::open(&muster).await;
    assert_eq!(gateway.put(&good).await, Some(503));
    store.plan([]);
    assert_eq!(gateway.put(&good).await, Some(200));
    store.plan_verb("find_identity", Fault::Before);
    let refused = gateway.attach("events", &format!("/devices/{DEVICE}/messages/events")).await.expect_err("no link");
    assert_eq!(refused.condition.as_str(), "amqp:internal-error", "which clients take for something that passes");
    store.plan([]);
    drop(gateway);
    muster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_of_events_that_stops_costs_a_bounded_amount_and_gets_everything_later() {
    const BODY_BYTES: usize = 200_000;
    const MESSAGES: usize = 160;
    const PARTITION: &str = "/hub/ConsumerGroups/$Default/Partitions/0";

    let (muster, log) = start_held().await;
    let hub = muster.service().resources().hubs().first().expect("a hub").key;
    for number in 0..MESSAGES {
        log.append(message(hub, u8::try_from(number % 251).expect("small"), BODY_BYTES)).await.expect("kept");
    }
    let before = log.bytes_read();
    let mut readers = Vec::new();
    for name in ["stops", "reads"] {
        let (mut client, session) = back_ends::enter(&muster).await;
        let terms = LinkTerms::between(Source::at(PARTITION), Target::default(), 0);
        let (link, attach) = client.attach(session, (name, Role::Receiver), terms).await;
        assert!(attach.source.is_some(), "{attach:?}");
        client.connection.grant_credit(link, 10_000);
        client.flush().await.expect("the server reads");
        readers.push((client, link));
    }
    let (mut reads, link) = readers.pop().expect("two");
    for number in 0..MESSAGES {
        let delivery = back_ends::read(&mut reads, link).await;
        assert!(delivery.payload.len() > BODY_BYTES, "{number}");
    }
    let left = log.bytes_read() - before - MESSAGES * BODY_BYTES;
    assert!(left < LEFT_BYTES_MAX, "{left} bytes were read for whoever does not read");

    let (mut stops, link) = readers.pop().expect("one");
    for number in 0..MESSAGES {
        let delivery = back_ends::read(&mut stops, link).await;
        assert_eq!(delivery.payload.last(), u8::try_from(number % 251).ok().as_ref(), "in order");
    }
    muster.stop().await;
}

/// A Muster with [`DEVICE`] at its hub, and its log.
async fn start_held() -> (Muster, Arc<HeldLog>) {
    let (muster, log) = Muster::start_over_held_log().await.expect("a server");
    (with_device(muster).await, log)
}

/// Others ask and are answered, often enough for the server to do whatever it would.
async fn others_are_served(muster: &Muster) {
    const TIMES: usize = 20;

    for _ in 0..TIMES {
        ask_registry(muster, Method::GET, DEVICE, None).await;
    }
}

/// Posts the longest message.
async fn post(muster: &Muster) -> RawAnswer {
    let host = &muster.hub.host;
    let token = token(muster, &format!("{host}%2Fdevices%2F{DEVICE}"));
    let headers = [("Host", host.clone()), ("Authorization", token)];
    let request = RawRequest {
        method: "POST".to_owned(),
        target: format!("/devices/{DEVICE}/messages/events?api-version=2021-04-12"),
        headers: headers.into_iter().map(|(name, value)| (name.to_owned(), value.into_bytes())).collect(),
        body: vec![b'x'; MESSAGE_BYTES_MAX],
    };
    RawHttp::new(muster.dial_https(host).await.expect("a handshake")).exchange(&request).await.expect("an answer")
}

fn message(hub: HubKey, fill: u8, bytes: usize) -> Message {
    Message {
        hub,
        partition: 0,
        sender: IdentityName::device(domain::ids::DeviceId::parse(DEVICE).expect("a device ID")),
        generation: "1".to_owned(),
        origin: Origin::Telemetry(AuthenticationMethod::DeviceKey),
        model_id: None,
        draft: Draft { body: vec![fill; bytes].into(), ..Draft::default() },
    }
}
