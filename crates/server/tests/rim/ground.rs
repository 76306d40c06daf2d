//! A Muster, a device at its hub, and what it keeps.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use client::https::Https;
use client::service::{ServiceClient, ServiceRequest};
use domain::message::Message;
use domain::sas::{SasToken, SymmetricKey};
use http::Method;
use proto::mqtt::{Connect, Delivery, Packet, PacketId, Publish, Text};
use serde_json::json;
use service::{EndpointOf, Service};
use store::ports::ReadFrom;
use testkit::raw_mqtt::{RawMqtt, connect};
use testkit::whole::Muster;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// The device at the hub.
pub const DEVICE: &str = "rim-device";
/// Its telemetry topic.
pub const TELEMETRY: &str = "devices/rim-device/messages/events/";
const DEVICE_KEY: [u8; 32] = [7; 32];
const TOKEN_LIFETIME: Duration = Duration::from_secs(3_600);
/// More messages than any test sends.
const MESSAGES_MAX: usize = 10_000;

/// A client that says what it likes.
pub type Client = RawMqtt<TlsStream<TcpStream>>;

/// A Muster with [`DEVICE`] at its hub.
pub async fn start() -> Muster {
    with_device(Muster::start().await.expect("a server")).await
}

/// Puts [`DEVICE`] at the hub of `muster`.
pub async fn with_device(muster: Muster) -> Muster {
    let https = Https::new(Arc::clone(&muster.trust(None).expect("trust")));
    let port = muster.https_port();
    let registry = ServiceClient::new(https, muster.hub.owner.clone(), port, ServiceClient::HUB_API_VERSION);
    let key = SymmetricKey::from_bytes(&DEVICE_KEY).expect("a key").to_base64();
    let keys = json!({ "primaryKey": key, "secondaryKey": key });
    let body = json!({ "deviceId": DEVICE, "authentication": { "type": "sas", "symmetricKey": keys } });
    let path = ["devices", DEVICE];
    let request = ServiceRequest { body: Some(&body), ..ServiceRequest::new(Method::PUT, &path) };
    let answer = registry.send(request, muster.clock().now()).await.expect("an answer");
    assert!(answer.status().is_success(), "{answer:?}");
    muster
}

/// The CONNECT of [`DEVICE`].
pub fn introduction(muster: &Muster) -> Connect {
    let host = &muster.hub.host;
    let token = token(muster, &format!("{host}%2Fdevices%2F{DEVICE}"));
    connect(DEVICE, &format!("{host}/{DEVICE}/?api-version=2021-04-12"), &token).expect("text")
}

/// A signature for `resource` by the key of [`DEVICE`].
pub fn token(muster: &Muster, resource: &str) -> String {
    let key = SymmetricKey::from_bytes(&DEVICE_KEY).expect("a key");
    SasToken::write(&key, resource, None, muster.clock().now().plus(TOKEN_LIFETIME))
}

/// A connection to the hub over which nothing was said.
pub async fn dial(muster: &Muster) -> Client {
    RawMqtt::new(muster.dial_mqtt(&muster.hub.host).await.expect("a handshake"))
}

/// A message of telemetry, QoS 1 if it has a packet ID.
pub fn telemetry(packet_id: Option<u16>, body: &str) -> Packet {
    publish(TELEMETRY, packet_id, body)
}

/// A message to `topic`.
pub fn publish(topic: &str, packet_id: Option<u16>, body: &str) -> Packet {
    let topic = Text::try_from(topic.to_owned()).expect("text");
    let delivery = packet_id.map_or(Delivery::AtMostOnce, |id| Delivery::AtLeastOnce(packet(id)));
    let payload = Bytes::copy_from_slice(body.as_bytes());
    Packet::Publish(Publish { topic, payload, delivery, retain: false, dup: false })
}

/// A packet ID.
pub fn packet(id: u16) -> PacketId {
    PacketId::new(id).expect("not zero")
}

/// Everything the hub keeps, partition by partition.
pub async fn kept(service: &Service) -> Vec<Arc<Message>> {
    let published = service.published().into_iter();
    let mut hubs = published.filter_map(|one| match one.of {
        EndpointOf::Hub(hub) => Some(hub),
        EndpointOf::Service(_) => None,
    });
    let hub = hubs.next().expect("a hub");
    let mut messages = Vec::new();
    for partition in 0..hub.partitions {
        let read = service.telemetry().read(hub.key, partition, ReadFrom::Start, MESSAGES_MAX).await;
        messages.extend(read.expect("messages").into_iter().map(|stored| stored.message));
    }
    messages
}
