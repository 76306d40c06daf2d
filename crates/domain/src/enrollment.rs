//! Standing permissions to register: individual enrollments and enrollment groups.
//!
//! An [`Enrollment`] is complete; a [`Draft`] is what an operator writes, where keys and certificates may be left out
//! because they are stored already. [`merge()`] makes the one from the other and applies every rule that needs nothing
//! else. Secrets cannot be stored by accident: only `Enrollment<NoKeys>`, made by [`Enrollment::split`], can be
//! serialised.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use crate::certificate::Certificate;
use crate::clock::UnixTime;
use crate::ids::{CertificateName, DeviceId, EnrollmentGroupId, Etag, RegistrationId};
use crate::sas::{KeyPair, SymmetricKey};

mod merge;

pub use merge::{InvalidEnrollment, check_hubs, merge};

/// The two kinds of entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EntryKind {
    /// For one device.
    Individual,
    /// For all devices that prove to belong to it.
    Group,
}

/// Names an entry within its provisioning service.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EntryName {
    /// An individual enrollment, by the device it is for.
    Individual(RegistrationId),
    /// An enrollment group.
    Group(EnrollmentGroupId),
}

impl EntryName {
    /// Which kind of entry it names.
    pub const fn kind(&self) -> EntryKind {
        match self {
            Self::Individual(_) => EntryKind::Individual,
            Self::Group(_) => EntryKind::Group,
        }
    }

    /// The name as it was spelled.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Individual(id) => id.as_str(),
            Self::Group(id) => id.as_str(),
        }
    }

    /// The name in lower case, by which equal names of one kind are found.
    pub fn key(&self) -> String {
        self.as_str().to_ascii_lowercase()
    }

    /// The group's name, if it names a group.
    pub const fn group(&self) -> Option<&EnrollmentGroupId> {
        match self {
            Self::Individual(_) => None,
            Self::Group(id) => Some(id),
        }
    }
}

impl fmt::Display for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Individual(id) => write!(f, "individual enrollment {id}"),
            Self::Group(id) => write!(f, "enrollment group {id}"),
        }
    }
}

/// A standing permission to register. `K` is [`KeyPair`] in use, and [`NoKeys`] in storage.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Enrollment<K = KeyPair> {
    /// Its name, which never changes.
    pub name: EntryName,
    /// What a device must prove.
    pub attestation: Attestation<K>,
    /// What a device then gets.
    pub terms: Terms,
    /// When it was created; set by the store.
    pub created_at: UnixTime,
    /// When it last changed; set by the store.
    pub updated_at: UnixTime,
    /// Its version; set by the store.
    pub etag: Etag,
}

/// Stands where the keys were, in what is stored in the open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct NoKeys;

impl Enrollment {
    /// Takes the keys out, for storage apart. `None` if it is attested otherwise.
    pub fn split(self) -> (Enrollment<NoKeys>, Option<KeyPair>) {
        let (attestation, keys) = self.attestation.split();
        let Self { name, terms, created_at, updated_at, etag, .. } = self;
        (Enrollment { name, attestation, terms, created_at, updated_at, etag }, keys)
    }
}

impl Enrollment<NoKeys> {
    /// Puts the keys back. `None` if keys are missing, or are there and have no place.
    pub fn join(self, keys: Option<KeyPair>) -> Option<Enrollment> {
        let attestation = match (self.attestation, keys) {
            (Attestation::SymmetricKey(NoKeys), Some(keys)) => Attestation::SymmetricKey(keys),
            (Attestation::X509(x509), None) => Attestation::X509(x509),
            (Attestation::Tpm(tpm), None) => Attestation::Tpm(tpm),
            _ => return None,
        };
        let Self { name, terms, created_at, updated_at, etag, .. } = self;
        Some(Enrollment { name, attestation, terms, created_at, updated_at, etag })
    }
}

/// What an enrollment demands as proof.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attestation<K = KeyPair> {
    /// A trusted platform module; individual enrollments only.
    Tpm(TpmAttestation),
    /// A certificate.
    X509(X509Attestation),
    /// A symmetric key: the device's own, or the group's, from which the device's is derived.
    SymmetricKey(K),
}

impl Attestation {
    fn split(self) -> (Attestation<NoKeys>, Option<KeyPair>) {
        match self {
            Self::Tpm(tpm) => (Attestation::Tpm(tpm), None),
            Self::X509(x509) => (Attestation::X509(x509), None),
            Self::SymmetricKey(keys) => (Attestation::SymmetricKey(NoKeys), Some(keys)),
        }
    }
}

impl<K> Attestation<K> {
    /// The kind of proof it demands.
    pub const fn mechanism(&self) -> Mechanism {
        match self {
            Self::Tpm(_) => Mechanism::Tpm,
            Self::X509(_) => Mechanism::X509,
            Self::SymmetricKey(_) => Mechanism::SymmetricKey,
        }
    }
}

/// The kinds of proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mechanism {
    /// A trusted platform module.
    Tpm,
    /// A certificate.
    X509,
    /// A symmetric key.
    SymmetricKey,
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tpm => "a TPM",
            Self::X509 => "an X.509 certificate",
            Self::SymmetricKey => "a symmetric key",
        })
    }
}

/// The public keys of the device's TPM.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TpmAttestation {
    /// The endorsement key.
    pub endorsement_key: PublicArea,
    /// The storage root key.
    pub storage_root_key: Option<PublicArea>,
}

/// A public key of a TPM: a marshalled `TPM2B_PUBLIC`. Stored as base64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicArea(pub Vec<u8>);

impl serde::Serialize for PublicArea {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> serde::Deserialize<'de> for PublicArea {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Self).map_err(serde::de::Error::custom)
    }
}

/// Which certificates are accepted; each kind holds at least one.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum X509Attestation {
    /// The device's own; individual enrollments only.
    Client(Slots<Certificate>),
    /// Those of an authority that the device's chain leads to; groups only.
    Signing(Slots<Certificate>),
    /// Names of CA certificates of the provisioning service that the device's chain leads to.
    References(Slots<CertificateName>),
}

/// A primary and a secondary, each of which may be missing.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Slots<T> {
    /// The first.
    pub primary: Option<T>,
    /// The second.
    pub secondary: Option<T>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { primary: None, secondary: None }
    }
}

impl<T> Slots<T> {
    /// Those that are there, the primary first.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.primary.iter().chain(&self.secondary)
    }
}

/// What a device gets that an enrollment admits.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Terms {
    /// Its name at the hub; its registration ID if `None`. Individual enrollments only.
    pub device_id: Option<DeviceId>,
    /// Its capabilities; none if `None`.
    pub capabilities: Option<Capabilities>,
    /// The one hub it goes to, in the older way of saying so; [`Terms::hubs`] reads both.
    pub iot_hub_host_name: Option<String>,
    /// The twin it begins with.
    pub initial_twin: Option<InitialTwin>,
    /// Whether it is admitted; `None` echoes an explicit null and means that it is.
    pub status: Option<ProvisioningStatus>,
    /// What happens when it comes again; [`ReprovisionPolicy::default`] if `None`.
    pub reprovision: Option<ReprovisionPolicy>,
    /// How its hub is chosen; the provisioning service's policy if `None`.
    pub allocation: Option<AllocationPolicy>,
    /// Host names of the hubs to choose from; all linked hubs if `None` or empty.
    pub iot_hubs: Option<Vec<String>>,
    /// Whom to ask when the choice is custom.
    pub custom_allocation: Option<CustomAllocation>,
    /// What the operator notes about the device. Individual enrollments only.
    pub device_information: Option<Map<String, Value>>,
}

impl Terms {
    /// Whether devices are admitted.
    pub fn is_enabled(&self) -> bool {
        self.status != Some(ProvisioningStatus::Disabled)
    }

    /// The hubs to choose from, by host name; empty means all linked ones.
    pub fn hubs(&self) -> &[String] {
        match (&self.iot_hubs, &self.iot_hub_host_name) {
            (Some(hubs), _) if !hubs.is_empty() => hubs,
            (_, Some(hub)) if !hub.is_empty() => std::slice::from_ref(hub),
            _ => &[],
        }
    }

    /// What happens when a device comes again.
    pub fn reprovision(&self) -> ReprovisionPolicy {
        self.reprovision.unwrap_or_default()
    }

    /// The device's capabilities.
    pub fn capabilities(&self) -> Capabilities {
        self.capabilities.unwrap_or_default()
    }
}

/// What a device may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Capabilities {
    /// Whether it is an edge device.
    pub iot_edge: bool,
}

/// The twin a device begins with.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct InitialTwin {
    /// Tags.
    pub tags: Option<Map<String, Value>>,
    /// Desired properties.
    pub desired: Option<Map<String, Value>>,
}

/// Whether an enrollment admits devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProvisioningStatus {
    /// It does.
    Enabled,
    /// It refuses them, and those of the same certificate in other entries.
    Disabled,
}

/// What happens to the hub and the twin of a device that registers again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ReprovisionPolicy {
    /// Whether it may move to another hub.
    pub update_hub_assignment: bool,
    /// Whether its twin is carried along; otherwise it returns to the initial twin.
    pub migrate_device_data: bool,
}

impl Default for ReprovisionPolicy {
    fn default() -> Self {
        Self { update_hub_assignment: true, migrate_device_data: true }
    }
}

/// How a hub is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AllocationPolicy {
    /// Spread by weight, the same device always to the same hub.
    Hashed,
    /// The nearest one.
    GeoLatency,
    /// The one the enrollment names.
    Static,
    /// The one a webhook names.
    Custom,
}

/// The webhook that chooses hubs.
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CustomAllocation {
    /// Where it is; its query may hold a key and is not printed.
    pub webhook_url: String,
    /// The version of the contract it speaks: a date, perhaps with a suffix.
    pub api_version: String,
}

impl CustomAllocation {
    /// The address with its query hidden, for showing.
    pub fn masked_url(&self) -> String {
        match self.webhook_url.split_once('?') {
            Some((address, _)) => format!("{address}?****"),
            None => self.webhook_url.clone(),
        }
    }
}

impl fmt::Debug for CustomAllocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CustomAllocation")
            .field("webhook_url", &self.masked_url())
            .field("api_version", &self.api_version)
            .finish()
    }
}

/// An enrollment as an operator writes it.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Its name.
    pub name: EntryName,
    /// What a device must prove.
    pub attestation: AttestationDraft,
    /// What a device then gets. A status that was not mentioned is [`ProvisioningStatus::Enabled`] here.
    pub terms: Terms,
}

/// The proof an operator asks for; what is left out is kept or generated.
#[derive(Clone, Debug)]
pub enum AttestationDraft {
    /// A TPM.
    Tpm(TpmAttestation),
    /// Certificates. Exactly one of the kinds may be there.
    X509 {
        /// The device's own.
        client: Option<Slots<CertificateDraft>>,
        /// Those of an authority.
        signing: Option<Slots<CertificateDraft>>,
        /// Names of CA certificates.
        references: Option<Slots<CertificateName>>,
    },
    /// Symmetric keys; one that is missing is kept if one is stored and generated otherwise.
    SymmetricKey(Slots<SymmetricKey>),
}

/// A certificate an operator writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateDraft {
    /// The certificate itself.
    Given(Certificate),
    /// Only what a response told about it: the stored one is meant (`contract/dps-service.md 3.3`).
    Kept {
        /// Its SHA-256 in hexadecimal; without it, the one in the same slot is meant.
        sha256: Option<String>,
    },
}

#[cfg(test)]
mod tests;
