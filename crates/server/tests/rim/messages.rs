//! Cloud-to-device messages: what a device did not acknowledge comes again, to whichever connection asks next.

use std::sync::Arc;

use domain::clock::{Clock as _, ManualClock};
use domain::cloud_to_device::DEVICE_LOCK;
use http::Method;
use proto::amqp::{DeliveryState, Message, Value as AmqpValue};
use proto::mqtt::{Delivery, Filter, Packet, Publish, QoS, SubackCode, Text};
use serde_json::{Value, json};
use service::clock::SystemClock;
use testkit::raw_http::{RawAnswer, RawHttp, RawRequest};
use testkit::raw_mqtt::{Heard, PATIENCE};
use testkit::whole::Muster;
use tokio::time::timeout;

use crate::amqp_hub::Gateway;
use crate::ground::{Client, DEVICE, ask, ask_registry, enter, introduction, packet, start, token, with_device};

const FILTER: &str = "devices/rim-device/messages/devicebound/#";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_acknowledged_comes_again_in_order_and_never_twice_on_one_connection() {
    let muster = start().await;
    let mut first = listening(&muster).await;
    for body in ["a", "b", "c"] {
        send(&muster, body).await;
    }
    let heard = [hear(&mut first).await, hear(&mut first).await, hear(&mut first).await];
    assert_eq!(bodies(&heard), ["a", "b", "c"]);
    let [_, second, _] = &heard;
    acknowledge(&mut first, second).await;
    // Nothing is held up by what the application still works on; and nothing is sent again.
    first.say(&Packet::Pingreq).await;
    assert_eq!(first.hear().await, Heard::Packet(Packet::Pingresp));
    settled(&muster, 2).await;
    drop(first);

    let mut second = listening(&muster).await;
    let heard = [hear(&mut second).await, hear(&mut second).await];
    assert_eq!(bodies(&heard), ["a", "c"]);
    for message in &heard {
        acknowledge(&mut second, message).await;
    }
    settled(&muster, 0).await;
    muster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_has_a_few_messages_at_once_and_gets_the_others_as_it_acknowledges() {
    let muster = start().await;
    let numbers: Vec<String> = (0..12).map(|number| number.to_string()).collect();
    for number in &numbers {
        send(&muster, number).await;
    }
    let mut client = listening(&muster).await;
    let mut heard = Vec::new();
    for _ in 0..4 {
        heard.push(hear(&mut client).await);
    }
    client.say(&Packet::Pingreq).await;
    assert_eq!(client.hear().await, Heard::Packet(Packet::Pingresp), "no fifth while four are open");
    for open in 0..numbers.len() {
        acknowledge(&mut client, heard.get(open).expect("a message")).await;
        if heard.len() < numbers.len() {
            heard.push(hear(&mut client).await);
        }
    }
    assert_eq!(bodies(&heard), numbers);
    settled(&muster, 0).await;
    muster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_given_back_over_https_reaches_who_is_connected() {
    let muster = start().await;
    send(&muster, "a").await;
    let answer = over_https(&muster, "GET", "").await;
    assert_eq!((answer.status, answer.text()), (200, "a".to_owned()));
    assert_eq!(answer.header("iothub-deliverycount"), Some("0"));
    let lock = answer.header("etag").expect("a lock").trim_matches('"').to_owned();
    assert_eq!(over_https(&muster, "GET", "").await.status, 204, "it is locked");

    let mut client = listening(&muster).await;
    assert_eq!(over_https(&muster, "POST", &format!("/{lock}/abandon")).await.status, 204);
    let message = hear(&mut client).await;
    assert_eq!(bodies(std::slice::from_ref(&message)), ["a"]);
    assert_eq!(over_https(&muster, "DELETE", &format!("/{lock}")).await.status, 412);
    acknowledge(&mut client, &message).await;
    settled(&muster, 0).await;
    muster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_connection_leaves_is_there_for_who_asks_over_https() {
    let muster = start().await;
    send(&muster, "a").await;
    let mut client = listening(&muster).await;
    hear(&mut client).await;
    assert_eq!(over_https(&muster, "GET", "").await.status, 204, "the connection has it");
    client.say(&Packet::Disconnect).await;
    assert_eq!(client.hear().await, Heard::Closed);
    // The end of a connection is noted a moment after its socket is closed.
    let freed = async {
        loop {
            match over_https(&muster, "GET", "").await {
                answer if answer.status == 204 => {}
                answer => break answer,
            }
        }
    };
    let answer = timeout(PATIENCE, freed).await.expect("the message is free");
    assert_eq!((answer.text(), answer.header("iothub-deliverycount")), ("a".to_owned(), Some("0")));
    muster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_not_settled_in_a_minute_comes_again_over_amqp_and_stays_with_mqtt() {
    let clock = Arc::new(ManualClock::at(SystemClock.now()));
    let muster = with_device(Muster::start_by(clock.clone()).await.expect("a server")).await;
    let mut gateway = Gateway::open(&muster).await;
    let events = gateway.enter(&muster, DEVICE).await;
    gateway.listen(DEVICE).await;
    let count =
        |message: &Message| message.message_annotations.find("iothub-deliverycount").and_then(AmqpValue::as_i64);
    send(&muster, "a").await;
    let (late, message) = gateway.message().await;
    assert_eq!(count(&message), Some(0));
    clock.advance(DEVICE_LOCK);
    let (last, message) = gateway.message().await;
    assert_eq!((count(&message), last.link), (Some(1), late.link));
    assert_ne!(last.tag, late.tag, "neither is settled");

    // Who settles late is answered, and does not decide what becomes of the message.
    gateway.client.connection.settle(late.id, DeliveryState::Accepted);
    let answered = async |gateway: &mut Gateway, left| {
        while gateway.client.connection.unsettled() > left {
            assert_eq!(gateway.send(events, "x").await, DeliveryState::Accepted);
        }
    };
    timeout(PATIENCE, answered(&mut gateway, 1)).await.expect("late outcomes are answered");
    settled(&muster, 1).await;
    gateway.client.connection.settle(last.id, DeliveryState::Accepted);
    timeout(PATIENCE, answered(&mut gateway, 0)).await.expect("it is answered");
    settled(&muster, 0).await;
    drop(gateway);

    let mut over_mqtt = listening(&muster).await;
    send(&muster, "b").await;
    let message = hear(&mut over_mqtt).await;
    clock.advance(DEVICE_LOCK);
    assert_eq!(over_https(&muster, "GET", "").await.status, 204, "the connection has it for as long as it lives");
    acknowledge(&mut over_mqtt, &message).await;
    settled(&muster, 0).await;
    muster.stop().await;
}

/// The device, subscribed to its messages.
async fn listening(muster: &Muster) -> Client {
    let mut client = enter(muster, introduction(muster)).await;
    let topic = Text::try_from(FILTER.to_owned()).expect("text");
    let filters = vec![Filter { topic, qos: QoS::AtLeastOnce }];
    client.say(&Packet::Subscribe { packet_id: packet(9), filters }).await;
    let codes = vec![SubackCode::Granted(QoS::AtLeastOnce)];
    assert_eq!(client.hear().await, Heard::Packet(Packet::Suback { packet_id: packet(9), codes }));
    client
}

/// The next message.
async fn hear(client: &mut Client) -> Publish {
    match client.hear().await {
        Heard::Packet(Packet::Publish(publish)) => publish,
        other => panic!("{other:?}"),
    }
}

async fn acknowledge(client: &mut Client, message: &Publish) {
    match message.delivery {
        Delivery::AtLeastOnce(id) => client.say(&Packet::Puback(Some(id))).await,
        other => panic!("{other:?}"),
    }
}

fn bodies(messages: &[Publish]) -> Vec<String> {
    messages.iter().map(|message| String::from_utf8_lossy(&message.payload).into_owned()).collect()
}

/// Sends a message, as an operator does.
async fn send(muster: &Muster, body: &str) {
    let request = RawRequest {
        method: "POST".to_owned(),
        target: format!("/muster/v1/hubs/hub/devices/{DEVICE}/messages"),
        headers: vec![
            ("Host".to_owned(), muster.admin.host.as_bytes().to_vec()),
            ("Authorization".to_owned(), format!("Bearer {}", muster.admin.token).into_bytes()),
        ],
        body: json!({ "body": body }).to_string().into_bytes(),
    };
    let stream = muster.dial_admin().await.expect("a handshake");
    let answer = RawHttp::new(stream).exchange(&request).await.expect("an answer");
    assert_eq!(answer.status, 201, "{}", answer.text());
}

/// What the hub answers to the device's request for its messages, or for the one that `path` names.
async fn over_https(muster: &Muster, method: &str, path: &str) -> RawAnswer {
    let host = &muster.hub.host;
    let stream = muster.dial_https(host).await.expect("a handshake");
    let target = format!("/devices/{DEVICE}/messages/devicebound{path}?api-version=2021-04-12");
    ask(stream, (method, &target), host, Some(&token(muster, &format!("{host}%2Fdevices%2F{DEVICE}")))).await
}

/// Waits until the hub has only so many messages for the device: an acknowledgement has no answer.
async fn settled(muster: &Muster, count: u64) {
    let settled = async {
        loop {
            let device = ask_registry(muster, Method::GET, DEVICE, None).await;
            if device.get("cloudToDeviceMessageCount").and_then(Value::as_u64) == Some(count) {
                return;
            }
        }
    };
    timeout(PATIENCE, settled).await.expect("messages are settled");
}
