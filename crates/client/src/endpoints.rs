//! `endpoints.json`: where a running Muster listens, and the credentials of its operator.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The name of the file in the data folder.
pub const FILE_NAME: &str = "endpoints.json";

/// Everything a program on the same machine needs to use a Muster.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoints {
    /// Version of this file's form.
    pub version: u32,
    /// The server's process.
    pub pid: u32,
    /// PEM file of the certificate authority that all server certificates lead to.
    pub ca_file: PathBuf,
    /// Suffix of all host names; `None` where addresses are handed out.
    pub domain: Option<String>,
    /// Port numbers.
    pub ports: Ports,
    /// Provisioning services.
    pub provisioning_services: Vec<ProvisioningService>,
    /// Hubs.
    pub hubs: Vec<Hub>,
    /// The management API.
    pub admin: Admin,
}

/// Port numbers.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Ports {
    /// HTTPS and WebSocket.
    pub https: u16,
    /// MQTT over TLS.
    pub mqtts: u16,
    /// AMQP over TLS.
    pub amqps: u16,
    /// Management.
    pub admin: u16,
}

/// A provisioning service.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProvisioningService {
    /// Its name.
    pub name: String,
    /// The ID scope that devices are given.
    pub id_scope: String,
    /// The host that devices dial.
    pub device_endpoint: String,
    /// The host that operators' programs dial.
    pub service_endpoint: String,
    /// For the service SDKs.
    pub connection_string: String,
}

/// A hub.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hub {
    /// Its name.
    pub name: String,
    /// The host that devices and operators' programs dial.
    pub host_name: String,
    /// For the service SDKs.
    pub connection_string: String,
    /// For readers of telemetry.
    pub event_hub_connection_string: String,
}

/// The management API and the operator's credential.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Admin {
    /// Its base.
    pub url: String,
    /// Tenant of the token endpoint.
    pub tenant_id: String,
    /// Who signs in.
    pub client_id: String,
    /// And how.
    pub client_secret: String,
    /// The one subscription.
    pub subscription_id: String,
}

// What holds keys shows its names alone.
impl fmt::Debug for ProvisioningService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProvisioningService")
            .field("name", &self.name)
            .field("id_scope", &self.id_scope)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("name", &self.name).field("host_name", &self.host_name).finish_non_exhaustive()
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("url", &self.url).field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

/// Why the endpoints are not known.
#[derive(Debug, thiserror::Error)]
pub enum Unknown {
    /// There is no file.
    #[error(
        "no running Muster is known at {}: start one with `muster serve`, or name its folder with --data or the file \
         with MUSTER_ENDPOINTS", .path.display()
    )]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("{} cannot be read", .path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not of this form.
    #[error("{} is not an endpoints file of this version", .path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

impl Endpoints {
    /// Reads the file at `path`.
    pub fn read(path: &Path) -> Result<Self, Unknown> {
        let path = path.to_path_buf();
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|source| Unknown::Malformed { path, source }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Unknown::Missing { path }),
            Err(source) => Err(Unknown::Unreadable { path, source }),
        }
    }

    /// The provisioning service `name`, or the only one.
    pub fn provisioning_service(&self, name: Option<&str>) -> Option<&ProvisioningService> {
        match name {
            Some(name) => self.provisioning_services.iter().find(|service| service.name.eq_ignore_ascii_case(name)),
            None => self.provisioning_services.first(),
        }
    }

    /// The hub `name`, or the first one.
    pub fn hub(&self, name: Option<&str>) -> Option<&Hub> {
        match name {
            Some(name) => self.hubs.iter().find(|hub| hub.name.eq_ignore_ascii_case(name) || hub.host_name == name),
            None => self.hubs.first(),
        }
    }
}
