//! The world that the clients write to: two hubs, one fleet that is moved between them, devices that send and devices
//! whose twins are patched.
//!
//! Everything goes through the command line and the public service APIs, as an operator would do it.

use std::time::Duration;

use client::service::ConnectionString;
use domain::clock::{Clock as _, UnixTime};
use domain::sas::{SasToken, SymmetricKey};
use serde_json::{Value, json};
use service::clock::SystemClock;

use crate::http::{Request, Session};
use crate::journal::Mark;
use crate::server::Server;
use crate::trouble::{During as _, Result, Trouble};

/// The hub that is made besides the default one.
const SECOND_HUB: &str = "second";
/// The enrollment group of the fleet.
const GROUP: &str = "fleet";
/// How long signatures hold: longer than any run.
const SIGNATURE_LIFETIME: Duration = Duration::from_secs(24 * 3_600);
/// Bytes of the keys that are made here.
const KEY_BYTES: usize = 32;

/// How many of everything.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Clients that create enrollments.
    pub enrolling: u32,
    /// Clients that patch twins, each one of its own.
    pub patching: u32,
    /// Devices that report properties.
    pub reporting: u32,
    /// Devices that send telemetry.
    pub sending: u32,
    /// Devices that register over HTTPS, polling at once.
    pub registering_https: u32,
    /// Devices that register over MQTT, as slowly as devices do.
    pub registering_mqtt: u32,
}

impl Scale {
    /// Names of the devices that are provisioned. Their numbers are marks that the journal leaves out.
    pub fn fleet(&self) -> Vec<String> {
        (1..=self.registering_https + self.registering_mqtt).map(|number| Mark(number).to_string()).collect()
    }

    /// Names of the devices whose twins are patched.
    pub fn patched(&self) -> Vec<String> {
        (1..=self.patching).map(|number| format!("patched-{number}")).collect()
    }

    /// Names of the devices that report.
    pub fn reporters(&self) -> Vec<String> {
        (1..=self.reporting).map(|number| format!("reporter-{number}")).collect()
    }

    /// Names of the devices that send.
    pub fn senders(&self) -> Vec<String> {
        (1..=self.sending).map(|number| format!("sender-{number}")).collect()
    }
}

/// A service and the right to use it.
#[derive(Clone, Debug)]
pub struct Access {
    /// What is dialled.
    pub host: String,
    /// The signature.
    pub token: String,
}

/// What clients need to know of a running server.
#[derive(Clone, Debug)]
pub struct Story {
    /// The provisioning service's operators.
    pub provisioning: Access,
    /// What devices dial to be provisioned.
    pub device_endpoint: String,
    /// Their ID scope.
    pub id_scope: String,
    /// The operators of the hubs; telemetry and patched twins live at the first.
    pub hubs: [Access; 2],
}

fn now() -> UnixTime {
    SystemClock.now()
}

/// The right of whoever a hub's or a provisioning service's connection string belongs to.
pub fn access(connection_string: &str) -> Result<Access> {
    let ConnectionString { host_name, policy, key } = ConnectionString::parse(connection_string)?;
    let token = SasToken::write(&key, &host_name, Some(&policy), now().plus(SIGNATURE_LIFETIME));
    Ok(Access { host: host_name, token })
}

/// The key of a device that has one of its own, and of the fleet's group. Known to everybody, and good for nothing else.
pub fn key_of(name: &str) -> Result<SymmetricKey> {
    let bytes: Vec<u8> = name.bytes().cycle().take(KEY_BYTES).collect();
    Ok(SymmetricKey::from_bytes(&bytes)?)
}

/// The derived key of a device of the fleet.
pub fn fleet_key(device: &str) -> Result<SymmetricKey> {
    Ok(key_of(GROUP)?.derive(device))
}

/// The signature of a device at the provisioning service.
pub fn registration_token(id_scope: &str, device: &str) -> Result<String> {
    let resource = format!("{id_scope}%2Fregistrations%2F{device}");
    Ok(SasToken::write(&fleet_key(device)?, &resource, Some("registration"), now().plus(SIGNATURE_LIFETIME)))
}

/// The signature of a device at its hub.
pub fn device_token(host: &str, device: &str) -> Result<String> {
    let resource = format!("{host}%2Fdevices%2F{device}");
    Ok(SasToken::write(&key_of(device)?, &resource, None, now().plus(SIGNATURE_LIFETIME)))
}

/// Makes and links the second hub. The server tells of it when it is started again.
pub async fn make_second_hub(server: &Server) -> Result<()> {
    let provisioning = server.endpoints.provisioning_services.first();
    let provisioning = provisioning.ok_or_else(|| Trouble::new("there is no provisioning service"))?;
    server.command(&["hub", "create", SECOND_HUB]).await?;
    server.command(&["linked-hub", "create", "--dps", &provisioning.name, "--hub", SECOND_HUB]).await
}

impl Story {
    /// Reads what `server` says of itself; both hubs must be there.
    pub fn read(server: &Server) -> Result<Self> {
        let endpoints = &server.endpoints;
        let [provisioning] = endpoints.provisioning_services.as_slice() else {
            return Err(Trouble::new("one provisioning service is expected"));
        };
        let [first, second] = endpoints.hubs.as_slice() else { return Err(Trouble::new("two hubs are expected")) };
        Ok(Self {
            provisioning: access(&provisioning.connection_string)?,
            device_endpoint: provisioning.device_endpoint.clone(),
            id_scope: provisioning.id_scope.clone(),
            hubs: [access(&first.connection_string)?, access(&second.connection_string)?],
        })
    }

    /// Makes the devices that are not provisioned.
    pub async fn make_devices(&self, server: &Server, scale: &Scale) -> Result<()> {
        let [hub, _] = &self.hubs;
        let mut session = Session::open(&server.door, &hub.host).await?;
        for device in [scale.patched(), scale.reporters(), scale.senders()].concat() {
            let key = key_of(&device)?.to_base64();
            let keys = json!({ "primaryKey": key, "secondaryKey": key });
            let body = json!({ "deviceId": device, "authentication": { "type": "sas", "symmetricKey": keys } });
            let target = format!("/devices/{device}?api-version=2021-04-12");
            let answer = session.ask(Request::new("PUT", &target, &hub.token).with(&body)).await?;
            answer.success().during(format!("making {device}"))?;
        }
        Ok(())
    }

    /// The host name of the hub that the fleet is sent to in `round`: each in turn, so that everybody moves.
    pub fn target(&self, round: u32) -> &str {
        let [first, second] = &self.hubs;
        if round.is_multiple_of(2) { &first.host } else { &second.host }
    }

    /// Has the fleet sent to the hub of `round`, with its data.
    pub async fn send_fleet(&self, server: &Server, round: u32) -> Result<()> {
        let access = &self.provisioning;
        let mut session = Session::open(&server.door, &access.host).await?;
        let target = format!("/enrollmentGroups/{GROUP}?api-version=2021-10-01");
        let key = key_of(GROUP)?.to_base64();
        let body: Value = json!({
            "enrollmentGroupId": GROUP,
            "attestation": { "type": "symmetricKey", "symmetricKey": { "primaryKey": key, "secondaryKey": key } },
            "allocationPolicy": "static",
            "iotHubs": [self.target(round)],
            "reprovisionPolicy": { "updateHubAssignment": true, "migrateDeviceData": true },
            "initialTwin": { "tags": {}, "properties": { "desired": { "fleet": true } } },
        });
        let mut request = Request::new("PUT", &target, &access.token).with(&body);
        if round > 0 {
            request.header = ("If-Match", "*");
        }
        session.ask(request).await?.success().during("writing the fleet's enrollment group")?;
        Ok(())
    }
}
