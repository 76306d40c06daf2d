//! The two servers that take telemetry and connections: this program's hub, and mosquitto. Devices dial both with the same
//! client, the same topics and the same credentials; mosquitto looks at none of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use client::device::{Credential, DeviceClient, Dial, MqttSettings};
use client::https::Server;
use client::service::ServiceRequest;
use domain::clock::Clock as _;
use domain::operation::Transport;
use domain::sas::SymmetricKey;
use http::Method;
use serde_json::{Value, json};
use service::clock::{SystemClock, SystemEntropy};

use super::fleet::{Authority, TlsClient};
use super::report::Report;
use super::server::{LOOPBACK, Mosquitto, Muster, Process};
use crate::context::ask;

/// Most devices in one request to the registry (`contract/hub-service.md 4.4`).
const BULK_ITEMS_MAX: usize = 100;
/// How mosquitto is had where it is missing.
const INSTALL: &str = "mosquitto is not installed, so there is nothing to compare with: apt-get install mosquitto";

/// Both servers, running, with devices that may connect.
pub struct Hubs {
    muster: Muster,
    mosquitto: Option<Mosquitto>,
    brokers: Vec<Broker>,
}

/// A server that devices dial.
#[derive(Clone)]
pub struct Broker {
    /// What it is called in the report.
    pub name: &'static str,
    /// Its process.
    pub pid: u32,
    dial: Dial,
    credential: Credential,
}

impl Hubs {
    /// Starts both, and makes `devices` known.
    pub async fn start(folder: &Path, mosquitto: Option<&PathBuf>, devices: &[String]) -> Result<Self> {
        let authority = Authority::make()?;
        let muster = Muster::start(folder).await?;
        let server = authority.server(LOOPBACK)?;
        let mosquitto = Mosquitto::start(mosquitto.map(PathBuf::as_path), folder, &server).await?;
        let key = SymmetricKey::generate(&SystemEntropy);
        create_devices(&muster, devices, &key).await?;

        let hub = muster.operator.endpoints.hub(None).context("the server has no hub")?;
        let address = Server { host: hub.host_name.clone(), port: muster.mqtts_port() };
        let mut brokers =
            vec![broker("muster", muster.process(), address, (TlsClient::trusting(&muster.authority_pem)?, &key))];
        if let Some(mosquitto) = &mosquitto {
            let address = Server { host: LOOPBACK.to_owned(), port: mosquitto.port };
            let tls = TlsClient::trusting(&authority.root_pem())?;
            brokers.push(broker("mosquitto", mosquitto.process(), address, (tls, &key)));
        }
        Ok(Self { muster, mosquitto, brokers })
    }

    /// The hub, and mosquitto if it is there.
    pub fn brokers(&self) -> &[Broker] {
        &self.brokers
    }

    /// Tells `report` what could not be measured.
    pub fn report_missing(&self, report: &mut Report) {
        if self.mosquitto.is_none() {
            report.lack(INSTALL);
        }
    }

    /// Ends both.
    pub async fn stop(self) -> Result<()> {
        self.muster.stop().await
    }
}

impl Broker {
    /// Connects a device; for mosquitto any name will do.
    pub async fn connect(&self, device: &str) -> Result<DeviceClient> {
        let connected = DeviceClient::connect(&self.dial, device, &self.credential, SystemClock.now()).await;
        connected.with_context(|| format!("{device} cannot connect to {}", self.name))
    }
}

fn broker(name: &'static str, process: &Process, server: Server, (tls, key): (TlsClient, &SymmetricKey)) -> Broker {
    let mqtt = MqttSettings { clean_session: true, ..MqttSettings::default() };
    Broker {
        name,
        pid: process.pid(),
        dial: Dial { mqtt: Arc::new(mqtt), ..Dial::new(server, Transport::Mqtt) },
        credential: Credential::symmetric_key(tls.anonymous(), key.clone()),
    }
}

/// Creates `devices` with `key`, through the registry like any operator.
async fn create_devices(muster: &Muster, devices: &[String], key: &SymmetricKey) -> Result<()> {
    let registry = muster.operator.hub(None)?;
    let key = key.to_base64();
    for devices in devices.chunks(BULK_ITEMS_MAX) {
        let items: Value = devices
            .iter()
            .map(|device| {
                let keys = json!({ "primaryKey": key, "secondaryKey": key });
                json!({
                    "id": device, "importMode": "create", "status": "enabled",
                    "authentication": { "type": "sas", "symmetricKey": keys },
                })
            })
            .collect();
        let request = ServiceRequest { body: Some(&items), ..ServiceRequest::new(Method::POST, &["devices"]) };
        let answer = ask(&registry, "create devices", request).await?;
        ensure!(answer.get("isSuccessful") == Some(&json!(true)), "not every device could be created: {answer}");
    }
    Ok(())
}
