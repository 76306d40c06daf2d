//! A Muster, a device at its hub, and what it keeps.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use client::device::{Credential, DeviceClient, Dial};
use client::https::{Https, Server};
use client::service::{ServiceClient, ServiceRequest};
use domain::message::Message;
use domain::operation::Transport;
use domain::sas::{SasToken, SymmetricKey};
use http::Method;
use proto::mqtt::{Connack, Connect, Delivery, Filter, Packet, PacketId, Publish, QoS, Refusal, Text};
use serde_json::{Value, json};
use service::{EndpointOf, Service};
use store::ports::ReadFrom;
use testkit::raw_http::{RawAnswer, RawHttp, RawRequest};
use testkit::raw_mqtt::{Heard, PATIENCE, RawMqtt, connect};
use testkit::whole::Muster;
use tokio::net::TcpStream;
use tokio::time::timeout;
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
    let key = device_key().to_base64();
    let keys = json!({ "primaryKey": key, "secondaryKey": key });
    create_device(&muster, DEVICE, &json!({ "type": "sas", "symmetricKey": keys })).await;
    muster
}

/// Puts `device` at the hub of `muster`.
pub async fn create_device(muster: &Muster, device: &str, authentication: &Value) {
    let body = json!({ "deviceId": device, "authentication": authentication });
    ask_registry(muster, Method::PUT, device, Some(&body)).await;
}

/// What the hub's registry answers about `device`.
pub async fn ask_registry(muster: &Muster, method: Method, device: &str, body: Option<&Value>) -> Value {
    ask_hub(muster, method, &["devices", device], body).await
}

/// What the hub answers at `path` to whoever may do everything there.
pub async fn ask_hub(muster: &Muster, method: Method, path: &[&str], body: Option<&Value>) -> Value {
    let https = Https::new(Arc::clone(&muster.trust(None).expect("trust")));
    let port = muster.https_port();
    let hub = ServiceClient::new(https, muster.hub.owner.clone(), port, ServiceClient::HUB_API_VERSION);
    let request = ServiceRequest { body, ..ServiceRequest::new(method, path) };
    let answer = hub.send(request, muster.clock().now()).await.expect("an answer");
    assert!(answer.status().is_success(), "{answer:?}");
    serde_json::from_slice(answer.body()).expect("a document")
}

/// [`DEVICE`], connected as devices are.
pub async fn connect_device(muster: &Muster) -> DeviceClient {
    let dial = Dial::new(Server { host: muster.hub.host.clone(), port: muster.mqtts_port() }, Transport::Mqtt);
    let credential = Credential::symmetric_key(muster.trust(None).expect("trust"), device_key());
    DeviceClient::connect(&dial, DEVICE, &credential, muster.clock().now()).await.expect("let in")
}

/// The key of [`DEVICE`].
pub fn device_key() -> SymmetricKey {
    SymmetricKey::from_bytes(&DEVICE_KEY).expect("a key")
}

/// The CONNECT of [`DEVICE`].
pub fn introduction(muster: &Muster) -> Connect {
    let host = &muster.hub.host;
    let token = token(muster, &format!("{host}%2Fdevices%2F{DEVICE}"));
    connect(DEVICE, &format!("{host}/{DEVICE}/?api-version=2021-04-12"), &token).expect("text")
}

/// A signature for `resource` by the key of [`DEVICE`].
pub fn token(muster: &Muster, resource: &str) -> String {
    SasToken::write(&device_key(), resource, None, muster.clock().now().plus(TOKEN_LIFETIME))
}

/// A connection to the hub over which nothing was said.
pub async fn dial(muster: &Muster) -> Client {
    RawMqtt::new(muster.dial_mqtt(&muster.hub.host).await.expect("a handshake"))
}

/// [`DEVICE`], let in by `introduction`.
pub async fn enter(muster: &Muster, introduction: Connect) -> Client {
    let mut client = dial(muster).await;
    client.say(&Packet::Connect(Box::new(introduction))).await;
    assert_eq!(client.hear().await, Heard::Packet(Packet::Connack(Connack::Accepted { session_present: false })));
    client
}

/// How the hub refuses `device` with `token` over `client`.
pub async fn refusal(mut client: Client, muster: &Muster, device: &str, token: &str) -> Refusal {
    let username = format!("{}/{device}/?api-version=2021-04-12", muster.hub.host);
    client.say(&Packet::Connect(Box::new(connect(device, &username, token).expect("text")))).await;
    match client.hear().await {
        Heard::Packet(Packet::Connack(Connack::Refused(refusal))) => refusal,
        other => panic!("{other:?}"),
    }
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

/// As [`kept`], once there are `count` messages.
pub async fn kept_when(service: &Service, count: usize) -> Vec<Arc<Message>> {
    let hub = service.resources().hubs().first().expect("a hub").key;
    let mut appended = service.telemetry().appended(hub);
    loop {
        appended.borrow_and_update();
        let messages = kept(service).await;
        if messages.len() >= count {
            return messages;
        }
        timeout(PATIENCE, appended.changed()).await.expect("messages in time").expect("the log is there");
    }
}

/// A SUBSCRIBE to one filter.
pub fn subscribe(filter: &str) -> Packet {
    let topic = Text::try_from(filter.to_owned()).expect("text");
    Packet::Subscribe { packet_id: packet(1), filters: vec![Filter { topic, qos: QoS::AtMostOnce }] }
}

/// The answer to a request without a body, over a connection of its own, with an `Authorization` header if there is one.
pub async fn ask(
    stream: TlsStream<TcpStream>,
    (method, target): (&str, &str),
    host: &str,
    authorization: Option<&str>,
) -> RawAnswer {
    let mut headers = vec![("Host".to_owned(), host.as_bytes().to_vec())];
    headers.extend(authorization.map(|value| ("Authorization".to_owned(), value.as_bytes().to_vec())));
    let request = RawRequest { method: method.to_owned(), target: target.to_owned(), headers, body: Vec::new() };
    RawHttp::new(stream).exchange(&request).await.expect("an answer")
}
