//! When a device was last heard moves with what it sends, not with its connecting alone.

use std::sync::Arc;

use bytes::Bytes;
use client::device::{Credential, DeviceClient, DeviceEvent, Dial};
use client::https::{Https, Server};
use client::service::{ServiceClient, ServiceRequest};
use domain::message::Draft;
use domain::operation::Transport;
use domain::sas::SymmetricKey;
use http::Method;
use serde_json::{Value, json};
use testkit::whole::Muster;

const DEVICE: &str = "talkative";
const KEY: &[u8] = b"a key of thirty-two bytes, or so";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_was_last_heard_when_it_sent_something() {
    let muster = Muster::start().await.expect("a server");
    let key = SymmetricKey::from_bytes(KEY).expect("a key");
    let keys = json!({ "primaryKey": key.to_base64(), "secondaryKey": key.to_base64() });
    let body = json!({ "deviceId": DEVICE, "authentication": { "type": "sas", "symmetricKey": keys } });
    let created = ask(&muster, Method::PUT, Some(&body)).await;

    let dial = Dial::new(Server { host: muster.hub.host.clone(), port: muster.mqtts_port() }, Transport::Mqtt);
    let credential = Credential::symmetric_key(muster.trust(None).expect("trust"), key);
    let mut device = DeviceClient::connect(&dial, DEVICE, &credential, muster.clock().now()).await.expect("let in");
    let connected = ask(&muster, Method::GET, None).await;
    device.start_send(&Draft { body: Bytes::from_static(b"1"), ..Draft::default() }).expect("room for the message");
    let event = device.next_event().await.expect("an acknowledgement");
    assert!(matches!(event, DeviceEvent::Acknowledged(_)), "{event:?}");
    muster.service().note_activity().await;
    let heard = ask(&muster, Method::GET, None).await;

    let times = [&created, &connected, &heard].map(|device| device["lastActivityTime"].as_str().map(str::to_owned));
    assert!(times.is_sorted_by(|a, b| a < b), "{times:?}");
    assert_eq!(heard["connectionStateUpdatedTime"], connected["connectionStateUpdatedTime"]);
    muster.stop().await;
}

/// What the hub's registry answers about the device.
async fn ask(muster: &Muster, method: Method, body: Option<&Value>) -> Value {
    let https = Https::new(Arc::clone(&muster.trust(None).expect("trust")));
    let port = muster.https_port();
    let registry = ServiceClient::new(https, muster.hub.owner.clone(), port, ServiceClient::HUB_API_VERSION);
    let path = ["devices", DEVICE];
    let request = ServiceRequest { body, ..ServiceRequest::new(method, &path) };
    let answer = registry.send(request, muster.clock().now()).await.expect("an answer");
    assert!(answer.status().is_success(), "{answer:?}");
    serde_json::from_slice(answer.body()).expect("a document")
}
