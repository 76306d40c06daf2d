//! Hubs, provisioning services, links, policies, CA certificates, and the names under which all of it is reached.
//!
//! Records have keys of their own; host names are derived ([`Naming`]), so that a move from address literals to a domain
//! touches no record (`rules.md` 19). Secrets are in types that cannot be serialised. Start at [`Hub`] and [`Naming`].

mod policy;

use std::net::{IpAddr, Ipv4Addr};

use serde_json::{Map, Value};

use crate::certificate::Certificate;
use crate::clock::{Entropy, UnixTime, random};
use crate::enrollment::AllocationPolicy;
use crate::ids::{CertificateName, Etag, HubKey, HubName, IdScope, ServiceKey, ServiceName};

pub use policy::{Policy, StoredPolicy, default_hub_policies, default_service_policies};

/// A hub.
#[derive(Clone, Debug, PartialEq)]
pub struct Hub {
    /// The store's number for it.
    pub key: HubKey,
    /// Its name.
    pub name: HubName,
    /// Its address, where addresses are handed out; its own for ever.
    pub address: Option<IpAddr>,
    /// Its resource group.
    pub group: String,
    /// Where it is said to be.
    pub location: String,
    /// Labels.
    pub tags: Map<String, Value>,
    /// Tier and units as the operator wrote them.
    pub sku: Map<String, Value>,
    /// Policies, keys and all.
    pub policies: Vec<Policy>,
    /// Partitions of its telemetry, 1 to 32; fixed at creation.
    pub partitions: u16,
    /// Days that telemetry is kept, 1 to 365.
    pub retention_days: u16,
    /// Every other property as the operator wrote it.
    pub extra: Map<String, Value>,
    /// When it was created.
    pub created_at: UnixTime,
    /// Its version.
    pub etag: Etag,
}

/// A provisioning service.
#[derive(Clone, Debug, PartialEq)]
pub struct ProvisioningService {
    /// The store's number for it.
    pub key: ServiceKey,
    /// Its name.
    pub name: ServiceName,
    /// Its immutable tenant key.
    pub id_scope: IdScope,
    /// Its address, where addresses are handed out; its own for ever.
    pub address: Option<IpAddr>,
    /// Its resource group.
    pub group: String,
    /// Where it is said to be.
    pub location: String,
    /// Labels.
    pub tags: Map<String, Value>,
    /// Tier and units as the operator wrote them.
    pub sku: Map<String, Value>,
    /// Policies, keys and all.
    pub policies: Vec<Policy>,
    /// How devices are spread unless their enrollment says otherwise.
    pub allocation: AllocationPolicy,
    /// Linked hubs, in the operator's order.
    pub links: Vec<LinkedHub>,
    /// Every other property as the operator wrote it.
    pub extra: Map<String, Value>,
    /// When it was created.
    pub created_at: UnixTime,
    /// Its version.
    pub etag: Etag,
}

/// A hub that a provisioning service may assign devices to. Hubs elsewhere come with their own work.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LinkedHub {
    /// The hub.
    pub hub: HubKey,
    /// The policy the link was made with, as shown in its masked connection string.
    pub policy: String,
    /// Where it is said to be.
    pub location: String,
    /// Whether the allocation policy may choose it.
    pub applies: bool,
    /// Its share, 1 to 1,000.
    pub weight: u32,
}

impl LinkedHub {
    /// Largest share.
    pub const WEIGHT_MAX: u32 = 1_000;
}

/// A resource group: a name that resources are kept under.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ResourceGroup {
    /// Its name.
    pub name: String,
    /// Where it is said to be.
    pub location: String,
    /// Labels.
    pub tags: Map<String, Value>,
}

/// Whose CA certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CertificateOwner {
    /// A hub's.
    Hub(HubKey),
    /// A provisioning service's.
    Service(ServiceKey),
}

/// A CA certificate that chains may lead to, once its possession is proved.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct CaCertificate {
    /// Its name.
    pub name: CertificateName,
    /// The certificate.
    pub certificate: Certificate,
    /// Whether its possession is proved.
    pub verified: bool,
    /// The code that a proof must carry; a new one ends the one before.
    pub verification_code: Option<String>,
    /// When it was uploaded.
    pub created_at: UnixTime,
    /// When it last changed.
    pub updated_at: UnixTime,
    /// Its version.
    pub etag: Etag,
}

/// Why a proof of possession is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotProved {
    /// No code was asked for.
    #[error("no verification code was generated for the certificate")]
    NoCode,
    /// The common name is another.
    #[error("the verification certificate's common name is not the verification code")]
    Code,
    /// The CA did not sign it.
    #[error("the verification certificate was not signed by the CA certificate's key")]
    Signature,
    /// It is outside its dates.
    #[error("the verification certificate is outside its dates")]
    Dates,
}

impl CaCertificate {
    /// Gives the certificate a fresh verification code: 48 hexadecimal digits. Possession must be proved again.
    pub fn ask_for_proof(&mut self, entropy: &dyn Entropy, now: UnixTime) {
        self.verification_code = Some(hex::encode_upper(random::<24>(entropy)));
        self.verified = false;
        self.updated_at = now;
    }

    /// Takes `proof`: a certificate that this CA signed and whose common name is the code.
    pub fn prove(&mut self, proof: &Certificate, now: UnixTime) -> Result<(), NotProved> {
        let code = self.verification_code.as_deref().ok_or(NotProved::NoCode)?;
        if !proof.common_name().is_some_and(|name| name.eq_ignore_ascii_case(code)) {
            return Err(NotProved::Code);
        }
        if !proof.is_signed_by(&self.certificate) {
            return Err(NotProved::Signature);
        }
        if now < proof.not_before() || now > proof.not_after() {
            return Err(NotProved::Dates);
        }
        self.verified = true;
        self.verification_code = None;
        self.updated_at = now;
        Ok(())
    }
}

/// How resources are named to clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Naming {
    /// By the addresses they own.
    Addresses,
    /// Under a domain.
    Domain(String),
}

impl Naming {
    /// The host name of a hub.
    pub fn hub(&self, hub: &Hub) -> String {
        self.host(hub.name.as_str(), hub.address)
    }

    /// The host name that operators' programs dial for a provisioning service.
    pub fn service(&self, service: &ProvisioningService) -> String {
        self.host(service.name.as_str(), service.address)
    }

    /// The host name that devices dial for any provisioning service. Without a domain it is the first service's
    /// address, which `common` tells.
    pub fn devices(&self, common: Option<IpAddr>) -> String {
        match self {
            Self::Addresses => common.unwrap_or(FIRST_ADDRESS.into()).to_string(),
            Self::Domain(domain) => format!("global.{domain}"),
        }
    }

    fn host(&self, name: &str, address: Option<IpAddr>) -> String {
        match (self, address) {
            (Self::Domain(domain), _) => format!("{}.{domain}", name.to_ascii_lowercase()),
            (Self::Addresses, Some(address)) => address.to_string(),
            // A record made under a domain has no address until it is given one; its bare name resolves nowhere.
            (Self::Addresses, None) => name.to_ascii_lowercase(),
        }
    }
}

/// The first address that is handed out on loopback: the first provisioning service's.
pub const FIRST_ADDRESS: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// The loopback address behind `last`; `None` when the range is used up. 127.0.0.1 comes first, the broadcast-like
/// 127.255.255.255 never.
pub fn next_loopback(last: Option<Ipv4Addr>) -> Option<Ipv4Addr> {
    let next = match last {
        None => FIRST_ADDRESS,
        Some(last) => Ipv4Addr::from(u32::from(last).checked_add(1)?),
    };
    (next.is_loopback() && u32::from(next) & 0x00ff_ffff != 0x00ff_ffff).then_some(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_addresses_follow_each_other_and_end() {
        let cases: &[(Option<&str>, Option<&str>)] = &[
            (None, Some("127.0.0.1")),
            (Some("127.0.0.1"), Some("127.0.0.2")),
            (Some("127.0.0.255"), Some("127.0.1.0")),
            (Some("127.255.255.253"), Some("127.255.255.254")),
            (Some("127.255.255.254"), None),
        ];
        for (last, expected) in cases {
            let last = last.map(|text| text.parse().unwrap());
            let expected = expected.map(|text| text.parse().unwrap());
            assert_eq!(next_loopback(last), expected, "{last:?}");
        }
    }
}
