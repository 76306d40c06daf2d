//! When a device was last heard moves with what it sends, not with its connecting alone.

use bytes::Bytes;
use client::device::DeviceEvent;
use domain::message::Draft;
use http::Method;
use serde_json::Value;
use testkit::raw_mqtt::PATIENCE;
use tokio::time::timeout;

use crate::ground::{DEVICE, ask_registry, connect_device, start};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_was_last_heard_when_it_sent_something() {
    let muster = start().await;
    let created = ask_registry(&muster, Method::GET, DEVICE, None).await;
    let mut device = connect_device(&muster).await;
    let connected = ask_registry(&muster, Method::GET, DEVICE, None).await;
    device.start_send(&Draft { body: Bytes::from_static(b"1"), ..Draft::default() }).expect("room for the message");
    let event = device.next_event().await.expect("an acknowledgement");
    assert!(matches!(event, DeviceEvent::Acknowledged(_)), "{event:?}");
    let last_heard = |device: &Value| device["lastActivityTime"].as_str().map(str::to_owned);
    let moved = async {
        loop {
            let heard = ask_registry(&muster, Method::GET, DEVICE, None).await;
            if last_heard(&heard) != last_heard(&connected) {
                return heard;
            }
        }
    };
    let heard = timeout(PATIENCE, moved).await.expect("it is noted in time");

    let times = [&created, &connected, &heard].map(last_heard);
    assert!(times.is_sorted_by(|a, b| a < b), "{times:?}");
    assert_eq!(heard["connectionStateUpdatedTime"], connected["connectionStateUpdatedTime"]);
    muster.stop().await;
}
