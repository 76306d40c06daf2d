//! Messages of one device are kept in the order in which it sent them, however many are under way at once.

use std::sync::Arc;

use bytes::Bytes;
use client::device::{Credential, DeviceClient, DeviceEvent, Dial};
use client::https::{Https, Server};
use client::service::{ServiceClient, ServiceRequest};
use domain::message::Draft;
use domain::operation::Transport;
use domain::sas::SymmetricKey;
use http::Method;
use serde_json::json;
use service::{EndpointOf, ReaderStart};
use testkit::whole::Muster;

const MESSAGES: usize = 600;
const IN_FLIGHT: usize = 60;
const DEVICE: &str = "sequence";
const KEY: &[u8] = b"a key of thirty-two bytes, or so";

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn messages_under_way_at_once_are_kept_in_the_order_sent() {
    let muster = Muster::start().await.expect("a server");
    let key = SymmetricKey::from_bytes(KEY).expect("a key");
    create_device(&muster, &key).await;

    let dial = Dial::new(Server { host: muster.hub.host.clone(), port: muster.mqtts_port() }, Transport::Mqtt);
    let credential = Credential::symmetric_key(muster.trust(None).expect("trust"), key);
    let mut device = DeviceClient::connect(&dial, DEVICE, &credential, muster.clock().now()).await.expect("let in");
    let (mut sent, mut acknowledged) = (0, 0);
    while acknowledged < MESSAGES {
        while sent < MESSAGES && sent - acknowledged < IN_FLIGHT {
            let body = Bytes::from(sent.to_string());
            device.start_send(&Draft { body, ..Draft::default() }).expect("room for the message");
            sent += 1;
        }
        let event = device.next_event().await.expect("an acknowledgement");
        assert!(matches!(event, DeviceEvent::Acknowledged(_)), "{event:?}");
        acknowledged += 1;
    }

    assert_eq!(kept(&muster).await, (0..MESSAGES).map(|number| number.to_string()).collect::<Vec<_>>());
    muster.stop().await;
}

async fn create_device(muster: &Muster, key: &SymmetricKey) {
    let https = Https::new(Arc::clone(&muster.trust(None).expect("trust")));
    let port = muster.https_port();
    let registry = ServiceClient::new(https, muster.hub.owner.clone(), port, ServiceClient::HUB_API_VERSION);
    let keys = json!({ "primaryKey": key.to_base64(), "secondaryKey": key.to_base64() });
    let body = json!({ "deviceId": DEVICE, "authentication": { "type": "sas", "symmetricKey": keys } });
    let path = ["devices", DEVICE];
    let request = ServiceRequest { body: Some(&body), ..ServiceRequest::new(Method::PUT, &path) };
    let answer = registry.send(request, muster.clock().now()).await.expect("an answer");
    assert!(answer.status().is_success(), "{answer:?}");
}

/// The bodies of all messages, as a reader finds them.
async fn kept(muster: &Muster) -> Vec<String> {
    let service = muster.service();
    let hubs = service.published().into_iter().filter_map(|one| match one.of {
        EndpointOf::Hub(hub) => Some(hub),
        EndpointOf::Service(_) => None,
    });
    let hub = hubs.last().expect("a hub");
    let reader = service.telemetry_reader(hub.key, hub.partitions, ReaderStart::Oldest).await;
    let mut reader = reader.expect("a reader");
    let mut bodies = Vec::new();
    while bodies.len() < MESSAGES {
        let batch = reader.next().await.expect("messages").expect("the hub is there");
        bodies.extend(batch.iter().map(|one| String::from_utf8_lossy(&one.message.draft.body).into_owned()));
    }
    bodies
}
