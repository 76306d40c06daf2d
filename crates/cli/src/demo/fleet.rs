//! The three devices of the story, each with a certificate and a protocol of its own.
//!
//! Start at [`Device::provision`].

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use client::device::{
    self, AmqpDeviceClient, DesiredChange, DeviceClient, DeviceError, Dial, ProvisioningClient, Registration, Twin,
};
use client::endpoints::Ports;
use client::https::Server;
use client::trust;
use domain::clock::Clock as _;
use domain::message::{Draft, SystemProperties};
use domain::operation::Transport;
use serde_json::{Value, json};
use service::clock::SystemClock;

use super::evidence::TwinEvidence;
use super::progress::milliseconds;
use super::telemetry::Sent;
use crate::ca::Credential;

/// Messages of telemetry that each device sends.
pub const MESSAGES: u8 = 3;

/// The application property of each message.
pub const ALERT: (&str, &str) = ("temperatureAlert", "false");

/// The devices' names and how they are provisioned.
pub const DEVICES: [(&str, Transport); 3] = [
    ("cheesecave-device1", Transport::Mqtt),
    ("cheesecave-device2", Transport::Amqp),
    ("cheesecave-device3", Transport::Https),
];

/// A device.
pub struct Device {
    /// Its registration ID.
    pub name: &'static str,
    /// How it is provisioned.
    pub transport: Transport,
    /// Its certificate in DER.
    pub certificate: Vec<u8>,
    credential: device::Credential,
    /// Its connection to the hub.
    hub: Option<Line>,
}

/// A connection to the hub.
enum Line {
    Mqtt(Box<DeviceClient>),
    Amqp(Box<AmqpDeviceClient>),
}

/// Where devices go.
#[derive(Clone, Debug)]
pub struct Place {
    /// The host they are provisioned at.
    pub host: String,
    /// The ID scope.
    pub id_scope: String,
    /// The ports there and at the hub.
    pub ports: Ports,
}

impl Place {
    fn dial(&self, host: &str, transport: Transport) -> Dial {
        let port = match transport {
            Transport::Mqtt => self.ports.mqtts,
            Transport::Amqp => self.ports.amqps,
            Transport::Https | Transport::MqttWebSocket | Transport::AmqpWebSocket => self.ports.https,
        };
        Dial::new(Server { host: host.to_owned(), port }, transport)
    }
}

impl Device {
    /// A device that shows the certificate of `credential` and trusts `authority` (PEM).
    pub fn new((name, transport): (&'static str, Transport), credential: &Credential, authority: &str) -> Result<Self> {
        let tls = trust::configure(authority, Some(credential.to_client_certificate()))?;
        let certificate = credential.leaf().to_vec();
        let credential = device::Credential::certificate(Arc::clone(&tls));
        Ok(Self { name, transport, certificate, credential, hub: None })
    }

    /// Registers.
    pub async fn provision(&self, place: &Place) -> Result<Registration> {
        let registered = self.register(place).await.with_context(|| format!("{} was not provisioned", self.name))?;
        ensure!(registered.device_id == self.name, "{} became {}", self.name, registered.device_id);
        Ok(registered)
    }

    /// Registers, and is refused.
    pub async fn be_refused(&self, place: &Place) -> Result<device::Refused> {
        match self.register(place).await {
            Err(DeviceError::Refused(refused)) => Ok(refused),
            Err(other) => Err(other).with_context(|| format!("{} was not refused properly", self.name)),
            Ok(registered) => {
                bail!("{} was not refused but assigned by operation {}", self.name, registered.operation_id)
            }
        }
    }

    async fn register(&self, place: &Place) -> Result<Registration, DeviceError> {
        let dial = place.dial(&place.host, self.transport);
        let client = ProvisioningClient::new(dial, place.id_scope.clone());
        client.register(self.name, None, &self.credential, SystemClock.now()).await
    }

    /// Connects to the hub that it was assigned to, as it was provisioned. One that came over HTTPS speaks MQTT there.
    pub async fn connect(&mut self, place: &Place, hub: &str) -> Result<()> {
        let (credential, now) = (&self.credential, SystemClock.now());
        let connected = match self.transport {
            Transport::Amqp | Transport::AmqpWebSocket => {
                let dial = place.dial(hub, self.transport);
                AmqpDeviceClient::connect(&dial, self.name, credential, now)
                    .await
                    .map(|client| Line::Amqp(Box::new(client)))
            }
            Transport::Https | Transport::Mqtt | Transport::MqttWebSocket => {
                let is_plain = self.transport == Transport::Https;
                let dial = place.dial(hub, if is_plain { Transport::Mqtt } else { self.transport });
                DeviceClient::connect(&dial, self.name, credential, now)
                    .await
                    .map(|client| Line::Mqtt(Box::new(client)))
            }
        };
        self.hub = Some(connected.with_context(|| format!("{} did not reach its hub", self.name))?);
        Ok(())
    }

    fn client(&mut self) -> Result<&mut Line> {
        self.hub.as_mut().with_context(|| format!("{} is not connected", self.name))
    }

    /// Sends [`MESSAGES`] readings, each when the one before it has been acknowledged.
    pub async fn send_telemetry(&mut self) -> Result<Vec<Sent>> {
        let name = self.name;
        let client = self.client()?;
        let mut sent = Vec::new();
        for number in 1..=MESSAGES {
            let message_id = format!("{name}-{number}");
            let body = reading(number);
            let message = draft(&message_id, &body);
            let started = Instant::now();
            client.send(&message).await.with_context(|| format!("the message {message_id} was not acknowledged"))?;
            sent.push(Sent { message_id, body, acknowledged_after_ms: milliseconds(started.elapsed()) });
        }
        Ok(sent)
    }

    /// Reads its twin.
    pub async fn twin(&mut self) -> Result<Twin> {
        let name = self.name;
        self.client()?.twin().await.with_context(|| format!("{name} could not read its twin"))
    }

    /// The versions of its twin.
    pub async fn twin_versions(&mut self) -> Result<TwinEvidence> {
        match self.twin().await?.versions() {
            (Some(desired_version), Some(reported_version)) => Ok(TwinEvidence { desired_version, reported_version }),
            _ => bail!("the twin of {} has no versions", self.name),
        }
    }

    /// Asks to be told of desired properties.
    pub async fn follow_desired(&mut self) -> Result<()> {
        Ok(self.client()?.subscribe_desired().await?)
    }

    /// Waits for a desired temperature. Returns it with the version of the desired properties.
    pub async fn next_temperature(&mut self) -> Result<(Value, u64)> {
        let change = self.client()?.desired().await?;
        let temperature = change.properties.get("temperature").cloned();
        Ok((temperature.context("the change has no temperature")?, change.version))
    }

    /// Reports the temperature it has set. Returns the version of the reported properties.
    pub async fn report_temperature(&mut self, temperature: &Value) -> Result<u64> {
        Ok(self.client()?.report(&json!({ "temperature": temperature })).await?)
    }

    /// Waits until the hub ends the connection.
    pub async fn be_cut_off(&mut self) -> Result<()> {
        let client = self.client()?;
        loop {
            match client.desired().await {
                Ok(_) => {}
                Err(DeviceError::Closed(_) | DeviceError::Detached(_) | DeviceError::Io(_)) => break,
                Err(other) => return Err(other.into()),
            }
        }
        self.hub = None;
        Ok(())
    }

    /// Says goodbye to the hub.
    pub async fn disconnect(&mut self) {
        if let Some(client) = self.hub.take() {
            client.disconnect().await;
        }
    }
}

impl Line {
    async fn send(&mut self, message: &Draft) -> Result<(), DeviceError> {
        match self {
            Self::Mqtt(client) => client.send(message).await,
            Self::Amqp(client) => client.send(message).await,
        }
    }

    async fn twin(&mut self) -> Result<Twin, DeviceError> {
        match self {
            Self::Mqtt(client) => client.twin().await,
            Self::Amqp(client) => client.twin().await,
        }
    }

    async fn report(&mut self, patch: &Value) -> Result<u64, DeviceError> {
        match self {
            Self::Mqtt(client) => client.report(patch).await,
            Self::Amqp(client) => client.report(patch).await,
        }
    }

    async fn subscribe_desired(&mut self) -> Result<(), DeviceError> {
        match self {
            Self::Mqtt(client) => client.subscribe_desired().await,
            Self::Amqp(client) => client.subscribe_desired().await,
        }
    }

    async fn desired(&mut self) -> Result<DesiredChange, DeviceError> {
        match self {
            Self::Mqtt(client) => client.desired().await,
            Self::Amqp(client) => client.desired().await,
        }
    }

    async fn disconnect(self) {
        match self {
            Self::Mqtt(client) => client.disconnect().await,
            Self::Amqp(client) => client.disconnect().await,
        }
    }
}

/// How the protocol is called.
pub const fn protocol(transport: Transport) -> &'static str {
    match transport {
        Transport::Https => "HTTPS",
        Transport::Mqtt => "MQTT",
        Transport::MqttWebSocket => "MQTT over WebSocket",
        Transport::Amqp => "AMQP",
        Transport::AmqpWebSocket => "AMQP over WebSocket",
    }
}

/// The transport that a decision's word stands for.
pub fn transport(word: &str) -> Option<Transport> {
    match word {
        "https" => Some(Transport::Https),
        "mqtt" => Some(Transport::Mqtt),
        "mqtt-web-socket" => Some(Transport::MqttWebSocket),
        "amqp" => Some(Transport::Amqp),
        "amqp-web-socket" => Some(Transport::AmqpWebSocket),
        _ => None,
    }
}

/// What the sensor of a cheese cave has to say.
fn reading(number: u8) -> Value {
    let number = f64::from(number);
    json!({ "temperature": 50.0 + number / 4.0, "humidity": 85.0 - number / 2.0 })
}

fn draft(message_id: &str, body: &Value) -> Draft {
    Draft {
        body: Bytes::from(body.to_string()),
        system: SystemProperties {
            message_id: Some(message_id.to_owned()),
            content_type: Some("application/json".to_owned()),
            content_encoding: Some("utf-8".to_owned()),
            ..SystemProperties::default()
        },
        properties: vec![(ALERT.0.to_owned(), Some(ALERT.1.to_owned()))],
    }
}
