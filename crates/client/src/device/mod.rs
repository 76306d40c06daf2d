//! A device's end of the wire: provisioning and the hub over MQTT and AMQP, over a WebSocket too, and over HTTPS.
//!
//! For demonstrations, simulated fleets and load. A connection belongs to the task that calls it: nothing here spawns, and
//! nothing moves while no method is awaited, so thousands of devices cost their sockets and little else. Every wait has a
//! deadline. What a server sends is bounded by [`proto::mqtt::ClientLimits`] or [`proto::amqp::Limits`] and can only end the connection.
//!
//! Start at [`ProvisioningClient::register`], then [`DeviceClient::connect`], [`AmqpDeviceClient::connect`] or
//! [`HttpsDeviceClient::connect`].

mod amqp_hub;
mod amqp_provisioning;
mod error;
mod https_hub;
mod hub;
mod link;
mod provisioning;
mod registration;
#[cfg(test)]
mod testing;

use std::sync::Arc;
use std::time::Duration;

use domain::clock::UnixTime;
use domain::operation::Transport;
use domain::sas::{SasToken, SymmetricKey};
use proto::amqp::{LinkId, LinkTerms, Role, Source, Target};
use proto::mqtt::ClientLimits;
use rustls::ClientConfig;

pub use amqp_hub::AmqpDeviceClient;
pub use error::{DeviceError, Refused};
pub use https_hub::HttpsDeviceClient;
pub use hub::{DesiredChange, DeviceClient, DeviceEvent, Twin};
pub use provisioning::ProvisioningClient;
pub use registration::Registration;

pub use crate::driver::{ANSWER_TIMEOUT, CLOSE_TIMEOUT};

use crate::amqp::{AmqpConnection, Introduction, Sasl};
use crate::driver::in_time;
use crate::https::Server;
use crate::wire::Wire;

/// Time for a connection: TCP, TLS, the WebSocket's handshake and the CONNACK together.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Time for a whole registration, with all its polls.
pub const REGISTRATION_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a signature made by a device holds.
const SIGNATURE_LIFETIME: Duration = Duration::from_secs(3_600);
/// Longest message that a device takes over AMQP: a twin with what is around it.
const AMQP_MESSAGE_BYTES_MAX: u64 = 256 * 1_024;

/// Where a device dials, and how it speaks there.
#[derive(Clone, Debug)]
pub struct Dial {
    /// Host and port.
    pub server: Server,
    /// One of MQTT's for [`DeviceClient`], one of AMQP's for [`AmqpDeviceClient`], any for provisioning; of no account for
    /// [`HttpsDeviceClient`].
    pub transport: Transport,
    /// What an MQTT connection asks for and allows; shared by all devices of a program.
    pub mqtt: Arc<MqttSettings>,
}

/// What an MQTT connection asks for and allows.
#[derive(Clone, Debug)]
pub struct MqttSettings {
    /// Seconds within which the device promises to be heard.
    pub keep_alive_s: u16,
    /// Whether the hub forgets the subscriptions when the connection ends.
    pub clean_session: bool,
    /// Bounds in memory and time.
    pub limits: Arc<ClientLimits>,
}

impl Default for MqttSettings {
    fn default() -> Self {
        let limits = ClientLimits { connack_timeout: CONNECT_TIMEOUT, ..ClientLimits::default() };
        Self { keep_alive_s: 180, clean_session: false, limits: Arc::new(limits) }
    }
}

impl Dial {
    /// A dial with the usual settings.
    pub fn new(server: Server, transport: Transport) -> Self {
        Self { server, transport, mqtt: Arc::default() }
    }

    /// A connection to the server.
    async fn connect(&self, tls: &Arc<ClientConfig>) -> Result<Wire, DeviceError> {
        let protocol = match self.transport {
            Transport::Https => return Err(DeviceError::Transport(self.transport)),
            Transport::Mqtt | Transport::Amqp => None,
            Transport::MqttWebSocket => Some("mqtt"),
            Transport::AmqpWebSocket => Some("AMQPWSB10"),
        };
        Ok(Wire::open(tls, &self.server, protocol).await?)
    }

    /// An AMQP connection: with a certificate without SASL, as the SDKs for C# and Node do.
    async fn connect_amqp(
        &self,
        credential: &Credential,
        plain: Option<(String, String)>,
    ) -> Result<AmqpConnection, DeviceError> {
        let opening = async {
            let wire = self.connect(&credential.tls).await?;
            let introduction = Introduction {
                container_id: "muster-device",
                host: &self.server.host,
                sasl: plain.map_or(Sasl::Absent, |(user, password)| Sasl::Plain { user, password }),
                answer_timeout: ANSWER_TIMEOUT,
            };
            Ok(AmqpConnection::introduce(wire, introduction).await?)
        };
        in_time("the connection", CONNECT_TIMEOUT, opening).await
    }
}

/// Attaches a link of a device to `address`.
async fn attach(
    connection: &mut AmqpConnection,
    (name, role): (&'static str, Role),
    address: &str,
) -> Result<LinkId, DeviceError> {
    let (source, target) = match role {
        Role::Sender => (Source::default(), Target::at(address)),
        Role::Receiver => (Source::at(address), Target::default()),
    };
    let terms = LinkTerms::between(source, target, AMQP_MESSAGE_BYTES_MAX);
    let link = connection.attach(name.into(), role, terms).await?;
    if role == Role::Receiver {
        connection.grant(link);
    }
    Ok(link)
}

/// What a device proves itself with. The TLS configuration says whom it trusts; see [`crate::trust::configure`].
#[derive(Clone, Debug)]
pub struct Credential {
    tls: Arc<ClientConfig>,
    key: Option<SymmetricKey>,
}

impl Credential {
    /// The certificate that `tls` shows.
    pub const fn certificate(tls: Arc<ClientConfig>) -> Self {
        Self { tls, key: None }
    }

    /// A symmetric key; `tls` may be shared by a fleet.
    pub const fn symmetric_key(tls: Arc<ClientConfig>, key: SymmetricKey) -> Self {
        Self { tls, key: Some(key) }
    }

    /// A signature over `resource`, encoded as it shall stand there; `None` for a certificate.
    fn token(&self, resource: &str, policy: Option<&str>, now: UnixTime) -> Option<String> {
        let key = self.key.as_ref()?;
        Some(SasToken::write(key, resource, policy, now.plus(SIGNATURE_LIFETIME)))
    }
}
