//! What a device at a hub may count on: that it is missed, that it is alone, and that what it says is kept.

use std::time::{Duration, Instant};

use bytes::Bytes;
use domain::message::Message;
use proto::mqtt::{Connect, Packet, QoS, Text, Will};
use testkit::raw_mqtt::Heard;

use crate::ground::{TELEMETRY, enter, introduction, kept_when, packet, start, telemetry};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_client_is_ended_after_one_and_a_half_keep_alives_and_its_will_is_kept() {
    const KEEP_ALIVE_S: u16 = 1;
    let muster = start().await;
    let topic = Text::try_from(TELEMETRY.to_owned()).expect("text");
    let will = Will { topic, payload: Bytes::from_static(b"gone"), qos: QoS::AtLeastOnce, retain: false };
    let introduction = Connect { keep_alive_s: KEEP_ALIVE_S, will: Some(Box::new(will)), ..introduction(&muster) };
    let mut client = enter(&muster, introduction).await;
    client.say(&Packet::Pingreq).await;
    let heard_at = Instant::now();
    assert_eq!(client.hear().await, Heard::Packet(Packet::Pingresp));
    assert_eq!(client.hear().await, Heard::Closed);
    let silence = heard_at.elapsed();
    assert!(silence >= Duration::from_secs(KEEP_ALIVE_S.into()) * 3 / 2, "{silence:?}");
    assert!(silence < Duration::from_secs(KEEP_ALIVE_S.into()) * 5, "{silence:?}");
    assert_eq!(bodies(&kept_when(muster.service(), 1).await), ["gone"]);
    muster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_connection_of_an_identity_ends_the_first() {
    let muster = start().await;
    let mut first = enter(&muster, introduction(&muster)).await;
    let mut second = enter(&muster, introduction(&muster)).await;
    assert_eq!(first.hear().await, Heard::Closed);
    second.say(&telemetry(Some(1), "still here")).await;
    assert_eq!(second.hear().await, Heard::Packet(Packet::Puback(Some(packet(1)))));
    muster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_either_quality_of_service_are_kept_in_the_order_sent() {
    let muster = start().await;
    let mut client = enter(&muster, introduction(&muster)).await;
    for (packet_id, body) in [(None, "a"), (Some(1), "b"), (None, "c"), (Some(2), "d")] {
        client.say(&telemetry(packet_id, body)).await;
    }
    // Only those that ask for it are acknowledged.
    for id in [1, 2] {
        assert_eq!(client.hear().await, Heard::Packet(Packet::Puback(Some(packet(id)))));
    }
    assert_eq!(bodies(&kept_when(muster.service(), 4).await), ["a", "b", "c", "d"]);
    muster.stop().await;
}

fn bodies<M: AsRef<Message>>(messages: &[M]) -> Vec<String> {
    messages.iter().map(|message| String::from_utf8_lossy(&message.as_ref().draft.body).into_owned()).collect()
}
