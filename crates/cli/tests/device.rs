//! Devices with symmetric keys, by `client::device`, against a running server. (The demo does it with certificates.)

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use client::device::{
    AmqpDeviceClient, Credential, DeviceClient, DeviceError, Dial, HttpsDeviceClient, ProvisioningClient, Registration,
};
use client::endpoints::Endpoints;
use client::https::Server;
use client::trust;
use domain::clock::Clock as _;
use domain::message::{Draft, MESSAGE_BYTES_MAX};
use domain::operation::Transport;
use domain::sas::SymmetricKey;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use service::clock::SystemClock;
use tempfile::TempDir;

const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const OTHER_KEY: &str = "YW5vdGhlciBrZXkgb2YgdGhpcnR5LXR3byBieXRlcyE=";
const WRONG_KEY: &str = "d3Jvbmcga2V5IG9mIHRoaXJ0eS10d28gYnl0ZXMhIQ==";

/// A server with its default resources, on free ports and a folder that goes with it.
struct Muster {
    child: Child,
    folder: TempDir,
    endpoints: Endpoints,
}

impl Muster {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = muster(folder.path());
        command.args(["serve", "--https-port", "0", "--mqtts-port", "0", "--amqps-port", "0", "--admin-port", "0"]);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the binary runs");
        let mut ready = String::new();
        let stdout = child.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut ready).expect("it is text");
        assert_eq!(ready.trim(), "ready");
        let endpoints = Endpoints::read(&folder.path().join(client::endpoints::FILE_NAME)).expect("the file is there");
        Self { child, folder, endpoints }
    }

    fn enroll(&self, registration_id: &str) {
        let mut command = muster(self.folder.path());
        command.args(["enrollment", "create", registration_id, "--primary-key", KEY, "--secondary-key", OTHER_KEY]);
        assert!(command.stdout(Stdio::null()).status().expect("the binary runs").success());
    }

    fn credential(&self, key: &str) -> Credential {
        let authority = std::fs::read_to_string(&self.endpoints.ca_file).expect("the authority's file is there");
        let tls = trust::configure(&authority, None).expect("it holds a certificate");
        Credential::symmetric_key(tls, SymmetricKey::parse(key).expect("it is a key"))
    }

    fn dial(&self, host: &str, transport: Transport) -> Dial {
        let ports = self.endpoints.ports;
        let port = match transport {
            Transport::Mqtt => ports.mqtts,
            Transport::Amqp => ports.amqps,
            Transport::Https | Transport::MqttWebSocket | Transport::AmqpWebSocket => ports.https,
        };
        Dial::new(Server { host: host.to_owned(), port }, transport)
    }

    async fn register(&self, id: &str, key: &str, transport: Transport) -> Result<Registration, DeviceError> {
        let service = self.endpoints.provisioning_services.first().expect("a provisioning service");
        let dial = self.dial(&service.device_endpoint, transport);
        let client = ProvisioningClient::new(dial, service.id_scope.clone());
        client.register(id, None, &self.credential(key), SystemClock.now()).await
    }

    async fn connect(&self, id: &str, key: &str, transport: Transport) -> Result<DeviceClient, DeviceError> {
        let dial = self.dial(&self.endpoints.hubs.first().expect("a hub").host_name, transport);
        DeviceClient::connect(&dial, id, &self.credential(key), SystemClock.now()).await
    }

    async fn connect_over_amqp(
        &self,
        id: &str,
        key: &str,
        transport: Transport,
    ) -> Result<AmqpDeviceClient, DeviceError> {
        let dial = self.dial(&self.endpoints.hubs.first().expect("a hub").host_name, transport);
        AmqpDeviceClient::connect(&dial, id, &self.credential(key), SystemClock.now()).await
    }

    async fn connect_over_https(&self, id: &str, key: &str) -> Result<HttpsDeviceClient, DeviceError> {
        let dial = self.dial(&self.endpoints.hubs.first().expect("a hub").host_name, Transport::Https);
        HttpsDeviceClient::connect(&dial, id, &self.credential(key), SystemClock.now()).await
    }

    /// Changes a desired property.
    fn desire(&self, id: &str, temperature: f64) {
        let desired = json!({ "temperature": temperature }).to_string();
        let mut command = muster(self.folder.path());
        command.args(["twin", "update", id, "--desired", &desired]);
        assert!(command.stdout(Stdio::null()).status().expect("the binary runs").success());
    }

    fn stop(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("it runs");
        assert!(self.child.wait().expect("it was started here").success());
    }
}

impl Drop for Muster {
    fn drop(&mut self) {
        // Only a failed test has not stopped it in order before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn muster(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_muster"));
    command.arg("--data").arg(folder).env("MUSTER_LOG", "warn").env("MUSTER_PROVISIONING_RETRY_AFTER_S", "2");
    command
}

#[tokio::test]
async fn a_device_with_a_key_registers_sends_and_reports_over_every_transport() {
    let muster = Muster::start();
    let transports = [
        ("dev-mqtt", Transport::Mqtt, Transport::Mqtt),
        ("dev_ws", Transport::MqttWebSocket, Transport::MqttWebSocket),
        ("dev.https:1", Transport::Https, Transport::Mqtt),
    ];
    for (id, ..) in transports {
        muster.enroll(id);
    }
    let live = async |(id, provisioning, hub): (&str, Transport, Transport)| {
        let registered = muster.register(id, KEY, provisioning).await.unwrap();
        assert_eq!(registered.assigned_hub, muster.endpoints.hubs[0].host_name, "{id}");
        let mut device = muster.connect(&registered.device_id, KEY, hub).await.unwrap();
        device.send(&Draft { body: Bytes::from_static(b"20.5"), ..Draft::default() }).await.unwrap();
        assert_eq!(device.twin().await.unwrap().versions(), (Some(1), Some(1)), "{id}");
        assert_eq!(device.report(&json!({ "temperature": 20.5 })).await.unwrap(), 2, "{id}");
        assert_eq!(device.twin().await.unwrap().reported["temperature"], json!(20.5), "{id}");
        device.disconnect().await;
    };
    tokio::join!(live(transports[0]), live(transports[1]), live(transports[2]));
    muster.stop();
}

#[tokio::test]
async fn a_device_with_a_key_registers_sends_reports_and_obeys_over_amqp() {
    let muster = Muster::start();
    let transports = [("dev-amqp", Transport::Amqp), ("dev-amqp-ws", Transport::AmqpWebSocket)];
    for (id, _) in transports {
        muster.enroll(id);
    }
    let live = async |(id, transport): (&str, Transport)| {
        let registered = muster.register(id, KEY, transport).await.unwrap();
        assert_eq!(registered.assigned_hub, muster.endpoints.hubs[0].host_name, "{id}");
        let mut device = muster.connect_over_amqp(&registered.device_id, KEY, transport).await.unwrap();
        device.send(&Draft { body: Bytes::from_static(b"20.5"), ..Draft::default() }).await.unwrap();
        assert_eq!(device.twin().await.unwrap().versions(), (Some(1), Some(1)), "{id}");
        assert_eq!(device.report(&json!({ "temperature": 20.5 })).await.unwrap(), 2, "{id}");
        let broken = device.report(&json!({ "a b": 1 })).await;
        assert!(matches!(&broken, Err(DeviceError::Refused(refused)) if refused.status == 400), "{broken:?}");
        device.subscribe_desired().await.unwrap();
        muster.desire(id, 50.5);
        // Sent meanwhile, and the change is not lost over it.
        device.send(&Draft { body: Bytes::from_static(b"21"), ..Draft::default() }).await.unwrap();
        let change = device.desired().await.unwrap();
        assert_eq!((change.version, &change.properties["temperature"]), (2, &json!(50.5)), "{id}");
        device.disconnect().await;
    };
    tokio::join!(live(transports[0]), live(transports[1]));
    muster.stop();
}

#[tokio::test]
async fn a_device_sends_over_one_https_connection_and_is_refused_by_request() {
    let muster = Muster::start();
    muster.enroll("dev.https:2");
    let registered = muster.register("dev.https:2", KEY, Transport::Https).await.unwrap();
    let mut device = muster.connect_over_https(&registered.device_id, KEY).await.unwrap();
    let properties = vec![("alert".to_owned(), Some("yes".to_owned()))];
    let good = Draft { body: Bytes::from_static(b"20.5"), properties, ..Draft::default() };
    let bad = Draft { body: vec![0; MESSAGE_BYTES_MAX + 1].into(), ..Draft::default() };
    for _ in 0..3 {
        device.send(&good).await.unwrap();
    }
    let refused = device.send(&bad).await;
    assert!(matches!(&refused, Err(DeviceError::Refused(refused)) if refused.status == 413), "{refused:?}");
    let mut stranger = muster.connect_over_https(&registered.device_id, WRONG_KEY).await.unwrap();
    let refused = stranger.send(&good).await;
    assert!(matches!(&refused, Err(DeviceError::Refused(refused)) if refused.status == 401), "{refused:?}");
    muster.stop();
}

#[tokio::test]
async fn a_wrong_key_is_refused_by_provisioning_and_by_the_hub() {
    let muster = Muster::start();
    muster.enroll("dev-1");
    for transport in [Transport::Mqtt, Transport::MqttWebSocket, Transport::Https] {
        let refused = muster.register("dev-1", WRONG_KEY, transport).await;
        let Err(DeviceError::Refused(refused)) = refused else { panic!("{refused:?}") };
        assert_eq!((refused.status, refused.code), (401, Some(401_002)), "{transport:?}");
        assert!(refused.tracking_id.is_some(), "{transport:?}");
    }
    muster.register("dev-1", OTHER_KEY, Transport::Mqtt).await.expect("the secondary key is as good");
    for transport in [Transport::Mqtt, Transport::MqttWebSocket] {
        let refused = muster.connect("dev-1", WRONG_KEY, transport).await;
        let error = refused.unwrap_err().to_string();
        assert!(error.starts_with("the connection ended: refused: "), "{transport:?}: {error}");
    }
    for transport in [Transport::Amqp, Transport::AmqpWebSocket] {
        let registering = muster.register("dev-1", WRONG_KEY, transport).await.map(drop);
        let connecting = muster.connect_over_amqp("dev-1", WRONG_KEY, transport).await.map(drop);
        for refused in [registering, connecting] {
            let error = refused.unwrap_err().to_string();
            assert_eq!(error, "the connection ended: SASL ended with Auth", "{transport:?}");
        }
    }
    let nowhere = muster.connect("dev-1", KEY, Transport::Https).await;
    assert!(matches!(nowhere.unwrap_err(), DeviceError::Transport(Transport::Https)));
    muster.stop();
}
