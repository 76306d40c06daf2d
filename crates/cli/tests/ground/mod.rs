//! The real server in a process of its own, and the clients that tests of its ends need.
//!
//! What is sent and heard over MQTT is read from the stream itself, since it matters how a connection ends. Start at
//! [`Server::start`].

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use client::endpoints::{Endpoints, FILE_NAME};
use client::https::{self, Https, HttpsError, Server as Address};
use client::service::{ConnectionString, ServiceClient, ServiceRequest};
use client::trust;
use domain::clock::Clock as _;
use domain::sas::{SasToken, SymmetricKey};
use http::{Method, Response};
use proto::mqtt::codec::decode;
use proto::mqtt::{Delivery, Packet, PacketId, Publish, Text};
use rustix::process::{Pid, Signal, kill_process};
use rustls::ClientConfig;
use serde_json::{Value, json};
use service::clock::{SystemClock, SystemEntropy};
use store::ports::{ReadFrom, ResourceStore as _, TelemetryLog as _};
use store::sqlite::{Embedded, Options};
use testkit::raw_mqtt::{connect, encoded};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

pub const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
/// Longer than anything takes that happens at all.
pub const PATIENCE: Duration = Duration::from_secs(30);
const TOKEN_LIFETIME: Duration = Duration::from_hours(1);
const PACKET_BYTES_MAX: usize = 1 << 20;
/// Messages read at once.
const PAGE: usize = 1_000;

/// A server on free ports.
pub struct Server {
    child: Child,
    log: UnboundedReceiver<String>,
    pub door: Door,
}

/// How a server is dialled.
#[derive(Clone)]
pub struct Door {
    pub endpoints: Arc<Endpoints>,
    pub tls: Arc<ClientConfig>,
}

impl Server {
    /// Starts a server on `folder` with settings from its environment, and waits until it is ready.
    pub fn start(folder: &Path, settings: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_muster"));
        command.args(["serve", "--https-port", "0", "--mqtts-port", "0", "--amqps-port", "0", "--admin-port", "0"]);
        command.arg("--data").arg(folder).env("MUSTER_LOG", "info").envs(settings.iter().copied());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
        let stderr = BufReader::new(child.stderr.take().expect("it is piped"));
        let (lines, log) = unbounded_channel();
        // A server whose log nobody reads would wait for a reader.
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| lines.send(line)));
        let mut ready = String::new();
        let stdout = child.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut ready).expect("it is text");
        assert_eq!(ready.trim(), "ready");
        let endpoints = Endpoints::read(&folder.join(FILE_NAME)).expect("the file is there");
        let authority = std::fs::read_to_string(&endpoints.ca_file).expect("the authority's file is there");
        let tls = trust::configure(&authority, None).expect("it holds a certificate");
        Self { child, log, door: Door { endpoints: Arc::new(endpoints), tls } }
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// Waits for a line of the log that holds `text`, and gives it.
    pub async fn logged(&mut self, text: &str) -> String {
        let found = async {
            loop {
                let line = self.log.recv().await.unwrap_or_else(|| panic!("the log ended without {text:?}"));
                if line.contains(text) {
                    return line;
                }
            }
        };
        timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("the log does not say {text:?}"))
    }

    /// Waits for its end.
    pub fn ended(mut self) -> ExitStatus {
        self.child.wait().expect("it was started here")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Only a failed test has not awaited its end before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Door {
    /// The name of the hub.
    pub fn hub(&self) -> &str {
        &self.endpoints.hubs.first().expect("a hub").host_name
    }

    /// Where devices register.
    pub fn device_host(&self) -> &str {
        &self.endpoints.provisioning_services.first().expect("a service").device_endpoint
    }

    pub fn id_scope(&self) -> &str {
        &self.endpoints.provisioning_services.first().expect("a service").id_scope
    }

    pub fn https(&self, host: &str) -> Address {
        Address { host: host.to_owned(), port: self.endpoints.ports.https }
    }

    pub async fn put_device(&self, id: &str) -> Result<Response<Bytes>, HttpsError> {
        let keys = json!({ "primaryKey": KEY, "secondaryKey": KEY });
        let body = json!({ "deviceId": id, "authentication": { "type": "sas", "symmetricKey": keys } });
        let connection = &self.endpoints.hubs.first().expect("a hub").connection_string;
        let client = self.service(connection, ServiceClient::HUB_API_VERSION);
        send(&client, Method::PUT, &["devices", id], Some(&body)).await
    }

    /// Asks the service API of the provisioning service.
    pub async fn provisioning(
        &self,
        method: Method,
        path: &[&str],
        body: Option<&Value>,
    ) -> Result<Response<Bytes>, HttpsError> {
        let connection = &self.endpoints.provisioning_services.first().expect("a service").connection_string;
        send(&self.service(connection, ServiceClient::PROVISIONING_API_VERSION), method, path, body).await
    }

    pub async fn put_enrollment(&self, id: &str) -> Result<Response<Bytes>, HttpsError> {
        let body = json!({ "registrationId": id, "attestation": attestation() });
        self.provisioning(Method::PUT, &["enrollments", id], Some(&body)).await
    }

    fn service(&self, connection: &str, api_version: &'static str) -> ServiceClient {
        let connection = ConnectionString::parse(connection).expect("the server wrote it");
        ServiceClient::new(Https::new(Arc::clone(&self.tls)), connection, self.endpoints.ports.https, api_version)
    }

    /// A connection to the hub's MQTT port, before CONNECT.
    pub async fn dial_mqtt(&self) -> Mqtt {
        let server = Address { host: self.hub().to_owned(), port: self.endpoints.ports.mqtts };
        let stream = https::connect(&self.tls, &server).await.expect("a handshake");
        Mqtt { stream, received: BytesMut::new() }
    }

    /// The CONNECT of a device with [`KEY`].
    pub fn introduction(&self, id: &str) -> Packet {
        let hub = self.hub();
        let token = token(&format!("{hub}%2Fdevices%2F{id}"), None, &SymmetricKey::parse(KEY).expect("a key"));
        let connect = connect(id, &format!("{hub}/{id}/?api-version=2021-04-12"), &token);
        Packet::Connect(Box::new(connect.expect("text")))
    }
}

/// How a server proves that whoever holds [`KEY`] may register.
pub fn attestation() -> Value {
    json!({ "type": "symmetricKey", "symmetricKey": { "primaryKey": KEY, "secondaryKey": KEY } })
}

/// A signature for `resource`.
pub fn token(resource: &str, policy: Option<&str>, key: &SymmetricKey) -> String {
    SasToken::write(key, resource, policy, SystemClock.now().plus(TOKEN_LIFETIME))
}

async fn send(
    client: &ServiceClient,
    method: Method,
    path: &[&str],
    body: Option<&Value>,
) -> Result<Response<Bytes>, HttpsError> {
    let request = ServiceRequest { body, ..ServiceRequest::new(method, path) };
    client.send(request, SystemClock.now()).await
}

/// A connection over MQTT.
pub struct Mqtt {
    stream: TlsStream<TcpStream>,
    received: BytesMut,
}

/// What the server did.
#[derive(Debug, PartialEq)]
pub enum Heard {
    Packet(Packet),
    /// It said goodbye in TLS and ended the stream.
    Goodbye,
    /// The stream broke.
    Broken(std::io::ErrorKind),
}

impl Mqtt {
    /// Sends a packet. If the server has left, hearing will show how.
    pub async fn say(&mut self, packet: &Packet) {
        let _ = self.stream.write_all(&encoded(packet)).await;
        let _ = self.stream.flush().await;
    }

    /// What the server does next.
    pub async fn hear(&mut self) -> Heard {
        timeout(PATIENCE, self.next()).await.expect("the server says something or leaves")
    }

    async fn next(&mut self) -> Heard {
        loop {
            if let Some(packet) = decode(&mut self.received, PACKET_BYTES_MAX).expect("MQTT") {
                return Heard::Packet(packet);
            }
            match self.stream.read_buf(&mut self.received).await {
                // Without close_notify it would be an error (UnexpectedEof).
                Ok(0) => return Heard::Goodbye,
                Ok(_) => {}
                Err(error) => return Heard::Broken(error.kind()),
            }
        }
    }
}

/// Telemetry of QoS 1.
pub fn telemetry(device: &str, id: u16, body: &str) -> Packet {
    Packet::Publish(Publish {
        topic: Text::try_from(format!("devices/{device}/messages/events/")).expect("text"),
        payload: Bytes::copy_from_slice(body.as_bytes()),
        retain: false,
        dup: false,
        delivery: Delivery::AtLeastOnce(PacketId::new(id).expect("not zero")),
    })
}

/// The body of every message that the store in `folder` keeps; no server holds it.
pub async fn kept(folder: &Path) -> Vec<String> {
    let options = Options { folder: Some(folder.to_owned()), ..Options::default() };
    let store = Embedded::open(options, Arc::new(SystemClock), &SystemEntropy).expect("the store opens");
    let mut bodies = Vec::new();
    for hub in store.load_resources().await.expect("resources").hubs {
        for partition in 0..hub.partitions {
            let mut from = ReadFrom::Start;
            loop {
                let page = store.telemetry().read(hub.key, partition, from, PAGE).await.expect("messages");
                let Some(last) = page.last() else { break };
                from = ReadFrom::AfterSequence(last.position.sequence);
                bodies
                    .extend(page.iter().map(|stored| String::from_utf8_lossy(&stored.message.draft.body).into_owned()));
            }
        }
    }
    store.close().await;
    bodies
}
