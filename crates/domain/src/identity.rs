//! Device and module identities at a hub: what its registry knows of each, the rules for writing it
//! (`contract/hub-service.md 4`), and what proves one.
//!
//! Keys are in [`Authentication`], which cannot be serialised; the store seals them apart ([`StoredAuthentication`]).
//! Start at [`Identity`] and [`IdentityDraft::check`]; whether a connection is who it says is decided in [`proof`].

pub mod proof;

use subtle::ConstantTimeEq as _;

use crate::certificate::Certificate;
use crate::clock::{Entropy, UnixTime};
use crate::enrollment::Capabilities;
use crate::ids::{DeviceId, Etag, ModuleId};
use crate::operation::identity::IdentityName;
use crate::sas::{KeyPair, SymmetricKey};

pub use proof::{Claim, HubRules, IdentityRejection, ProvenIdentity, UsedCredential, prove};

/// The registry's record of a device or module.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// Who.
    pub name: IdentityName,
    /// Tells it from an earlier one of the same name: decimal digits, made by the hub.
    pub generation: String,
    /// Version of the record.
    pub etag: Etag,
    /// Whether it may connect; modules are always enabled.
    pub status: IdentityStatus,
    /// Why, in the operator's words.
    pub status_reason: Option<String>,
    /// When the status last changed; [`UnixTime::NEVER`] if it never did.
    pub status_updated_at: UnixTime,
    /// What proves it.
    pub authentication: Authentication,
    /// What it may do; devices only.
    pub capabilities: Capabilities,
    /// The scope of an edge device, or of the parent of a leaf.
    pub device_scope: Option<String>,
    /// Scopes above it.
    pub parent_scopes: Vec<String>,
    /// Who manages a module.
    pub managed_by: Option<String>,
    /// Whether it is connected.
    pub connected: bool,
    /// When that last changed.
    pub connection_updated_at: UnixTime,
    /// When it was last heard.
    pub last_activity_at: UnixTime,
    /// Cloud-to-device messages waiting.
    pub messages_waiting: u32,
    /// The model that it announced at its latest connection.
    pub model_id: Option<String>,
}

/// An identity as an operator writes it.
#[derive(Clone, Debug, PartialEq)]
pub struct IdentityDraft {
    /// Who.
    pub name: IdentityName,
    /// Whether it may connect.
    pub status: Option<IdentityStatus>,
    /// Why.
    pub status_reason: Option<String>,
    /// What proves it; keys are generated if it is left out.
    pub authentication: Option<DraftAuthentication>,
    /// What it may do.
    pub capabilities: Option<Capabilities>,
    /// The scope of its parent.
    pub device_scope: Option<String>,
    /// Scopes above it.
    pub parent_scopes: Vec<String>,
    /// Who manages a module.
    pub managed_by: Option<String>,
}

/// Whether an identity may connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IdentityStatus {
    /// It may.
    Enabled,
    /// It may not.
    Disabled,
}

/// What proves an identity.
#[derive(Clone, Debug, PartialEq)]
pub enum Authentication {
    /// Either of two symmetric keys.
    Sas(KeyPair),
    /// A certificate with one of two thumbprints.
    SelfSigned(Thumbprints),
    /// A certificate that leads to a CA certificate of the hub and has the device ID as its common name.
    CertificateAuthority,
    /// Nothing; the hub's own modules.
    None,
}

/// As [`Authentication`], without keys.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StoredAuthentication {
    /// By symmetric key; the keys are stored apart.
    Sas,
    /// By thumbprint.
    SelfSigned(Thumbprints),
    /// By CA.
    CertificateAuthority,
    /// By nothing.
    None,
}

/// As [`Authentication`], as an operator writes it.
#[derive(Clone, Debug, PartialEq)]
pub enum DraftAuthentication {
    /// By symmetric key.
    Sas {
        /// First key.
        primary: Option<SymmetricKey>,
        /// Second key.
        secondary: Option<SymmetricKey>,
    },
    /// By thumbprint.
    SelfSigned {
        /// First thumbprint.
        primary: Option<String>,
        /// Second thumbprint.
        secondary: Option<String>,
    },
    /// By CA.
    CertificateAuthority,
    /// By nothing.
    None,
}

/// Two thumbprints: hexadecimal SHA-1 or SHA-256 in the case they were given in.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Thumbprints {
    /// First.
    pub primary: Option<String>,
    /// Second.
    pub secondary: Option<String>,
}

impl Thumbprints {
    /// Most characters of a thumbprint; SHA-256 in hexadecimal.
    const CHARS_MAX: usize = 64;

    /// Whether one of them is that of `leaf`. Both are always compared, each in constant time.
    pub fn include(&self, leaf: &Certificate) -> bool {
        let digests: [&[u8]; 2] = [leaf.sha1(), leaf.sha256()];
        let is_leafs = |text: &String| {
            let mut bytes = [0; Self::CHARS_MAX / 2];
            let Some(bytes) = bytes.get_mut(..text.len() / 2) else { return false };
            let read = hex::decode_to_slice(text, bytes).is_ok();
            read & digests.iter().any(|digest| bool::from(digest.ct_eq(bytes)))
        };
        self.primary.iter().chain(&self.secondary).map(is_leafs).fold(false, |found, is_leafs| found | is_leafs)
    }
}

/// Why a draft is not an identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidIdentity {
    /// One key without the other.
    #[error("Either no keys or both keys can be set")]
    OneKey,
    /// A thumbprint that is none.
    #[error("A thumbprint is 40 or 64 hexadecimal digits without separators")]
    Thumbprint,
    /// Proved by thumbprint, and none is given.
    #[error("self-signed authentication needs a thumbprint")]
    NoThumbprint,
    /// A device that proves nothing.
    #[error("A device needs an authentication type")]
    NoAuthentication,
    /// A module name reserved for the hub.
    #[error("Module ids that start with $ are reserved")]
    ReservedModule,
    /// A reason longer than the registry keeps.
    #[error("statusReason has more than {} characters", STATUS_REASON_CHARS_MAX)]
    StatusReason,
    /// A scope or a manager's name longer than the registry keeps, or too many parents.
    #[error("scopes and managedBy have at most {SCOPE_CHARS_MAX} characters, and at most {PARENT_SCOPES_MAX} parents")]
    Scope,
}

/// Most characters of a status reason (`contract/hub-service.md 4.2`).
pub const STATUS_REASON_CHARS_MAX: usize = 128;
/// Most characters of a scope, which holds a device ID and a number, and of a manager's name.
pub const SCOPE_CHARS_MAX: usize = 256;
/// Most parents of an identity.
pub const PARENT_SCOPES_MAX: usize = 10;

impl IdentityDraft {
    /// A draft with nothing but a name: an enabled identity with generated keys.
    pub const fn new(name: IdentityName) -> Self {
        Self {
            name,
            status: None,
            status_reason: None,
            authentication: None,
            capabilities: None,
            device_scope: None,
            parent_scopes: Vec::new(),
            managed_by: None,
        }
    }

    /// Whether a caller may create an identity of this name. The hub's own modules come with their edge device and prove
    /// nothing at first; its runtime gives them their keys by replacing them.
    pub fn check_created(&self) -> Result<(), InvalidIdentity> {
        match &self.name.module {
            Some(module) if module.as_str().starts_with('$') => Err(InvalidIdentity::ReservedModule),
            Some(_) | None => Ok(()),
        }
    }

    /// Checks the rules of `contract/hub-service.md 4.3` and generates keys that are left out. The result has no
    /// generation, etag or state yet: those come with [`Identity::created`] or [`Identity::replaced_by`].
    ///
    /// What only devices have is ignored for modules, and the other way round. The scope of an edge device is the hub's
    /// to make; a leaf's parent is also the first of its parents.
    pub fn check(self, entropy: &dyn Entropy) -> Result<Identity, InvalidIdentity> {
        self.check_text()?;
        let is_module = self.name.module.is_some();
        let identity = Identity {
            authentication: check_authentication(self.authentication, is_module, entropy)?,
            ..Identity::blank(self.name)
        };
        if is_module {
            return Ok(Identity { managed_by: self.managed_by, ..identity });
        }
        let capabilities = self.capabilities.unwrap_or_default();
        let device_scope = self.device_scope.filter(|_| !capabilities.iot_edge);
        let mut parent_scopes = self.parent_scopes;
        if parent_scopes.is_empty() {
            parent_scopes.extend(device_scope.clone());
        }
        Ok(Identity {
            status: self.status.unwrap_or(IdentityStatus::Enabled),
            status_reason: self.status_reason,
            capabilities,
            device_scope,
            parent_scopes,
            ..identity
        })
    }

    fn check_text(&self) -> Result<(), InvalidIdentity> {
        let is_long = |text: &String, chars_max| text.chars().nth(chars_max).is_some();
        if self.status_reason.as_ref().is_some_and(|reason| is_long(reason, STATUS_REASON_CHARS_MAX)) {
            return Err(InvalidIdentity::StatusReason);
        }
        let mut scopes = self.parent_scopes.iter().chain(&self.device_scope).chain(&self.managed_by);
        if self.parent_scopes.len() > PARENT_SCOPES_MAX || scopes.any(|scope| is_long(scope, SCOPE_CHARS_MAX)) {
            return Err(InvalidIdentity::Scope);
        }
        Ok(())
    }
}

fn check_authentication(
    draft: Option<DraftAuthentication>,
    is_module: bool,
    entropy: &dyn Entropy,
) -> Result<Authentication, InvalidIdentity> {
    let fresh = || Authentication::Sas(KeyPair::generate(entropy));
    match draft {
        None | Some(DraftAuthentication::Sas { primary: None, secondary: None }) => Ok(fresh()),
        Some(DraftAuthentication::Sas { primary: Some(primary), secondary: Some(secondary) }) => {
            Ok(Authentication::Sas(KeyPair { primary, secondary }))
        }
        Some(DraftAuthentication::Sas { .. }) => Err(InvalidIdentity::OneKey),
        Some(DraftAuthentication::SelfSigned { primary: None, secondary: None }) => Err(InvalidIdentity::NoThumbprint),
        Some(DraftAuthentication::SelfSigned { primary, secondary }) => {
            let is_thumbprint =
                |text: &String| matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            if !primary.iter().chain(&secondary).all(is_thumbprint) {
                return Err(InvalidIdentity::Thumbprint);
            }
            Ok(Authentication::SelfSigned(Thumbprints { primary, secondary }))
        }
        Some(DraftAuthentication::CertificateAuthority) => Ok(Authentication::CertificateAuthority),
        Some(DraftAuthentication::None) if is_module => Ok(fresh()),
        Some(DraftAuthentication::None) => Err(InvalidIdentity::NoAuthentication),
    }
}

impl Identity {
    /// An enabled identity that nothing proves yet and that was never heard.
    pub fn blank(name: IdentityName) -> Self {
        Self {
            name,
            generation: String::new(),
            etag: Etag::from_number(0),
            status: IdentityStatus::Enabled,
            status_reason: None,
            status_updated_at: UnixTime::NEVER,
            authentication: Authentication::None,
            capabilities: Capabilities::default(),
            device_scope: None,
            parent_scopes: Vec::new(),
            managed_by: None,
            connected: false,
            connection_updated_at: UnixTime::NEVER,
            last_activity_at: UnixTime::NEVER,
            messages_waiting: 0,
            model_id: None,
        }
    }

    /// This identity as a store keeps it first: with an etag, a generation, and its own scope if it is an edge device.
    pub fn created(self, etag: Etag, now: UnixTime) -> Self {
        Self { etag, generation: generation(etag, now), ..self }.with_edge_scope(now)
    }

    /// This identity with everything an operator writes taken from `wanted`, and what the hub alone knows kept. The scope
    /// of a device that goes on being an edge device never changes, because others name it as their parent.
    pub fn replaced_by(self, wanted: Self, etag: Etag, now: UnixTime) -> Self {
        let stays_edge = self.capabilities.iot_edge && wanted.capabilities.iot_edge;
        Self {
            etag,
            status_updated_at: if self.status == wanted.status { self.status_updated_at } else { now },
            status: wanted.status,
            status_reason: wanted.status_reason,
            authentication: wanted.authentication,
            capabilities: wanted.capabilities,
            device_scope: if stays_edge { self.device_scope } else { wanted.device_scope },
            parent_scopes: wanted.parent_scopes,
            managed_by: wanted.managed_by,
            ..self
        }
        .with_edge_scope(now)
    }

    /// The modules that an edge device has from the start: the hub's own, which prove nothing.
    pub fn edge_modules(device: &DeviceId) -> Vec<Self> {
        let module = |name| {
            let module = ModuleId::parse(name).expect("the names of the hub's own modules keep the rules for names");
            Self { managed_by: Some("iotEdge".into()), ..Self::blank(IdentityName::module(device.clone(), module)) }
        };
        ["$edgeAgent", "$edgeHub"].into_iter().map(module).collect()
    }

    fn with_edge_scope(mut self, now: UnixTime) -> Self {
        if self.capabilities.iot_edge && self.device_scope.is_none() {
            self.device_scope = Some(format!("ms-azure-iot-edge://{}-{}", self.name.device, ticks(now)));
        }
        self
    }
}

/// Steps of 100 ns since year one, by which the product writes moments into names.
fn ticks(at: UnixTime) -> i128 {
    const EPOCH: i128 = 621_355_968_000_000_000;
    EPOCH + i128::from(at.micros()) * 10
}

/// Digits like a moment in ticks: exact to the millisecond, and below that from the etag, which no other identity of the
/// store has.
fn generation(etag: Etag, now: UnixTime) -> String {
    const MILLISECOND: i128 = 10_000;
    (ticks(now).div_euclid(MILLISECOND) * MILLISECOND + i128::from(etag.number()) % MILLISECOND).to_string()
}

impl Authentication {
    /// Takes the keys away from what may be stored in the clear.
    pub fn to_stored(&self) -> (StoredAuthentication, Option<&KeyPair>) {
        match self {
            Self::Sas(keys) => (StoredAuthentication::Sas, Some(keys)),
            Self::SelfSigned(thumbprints) => (StoredAuthentication::SelfSigned(thumbprints.clone()), None),
            Self::CertificateAuthority => (StoredAuthentication::CertificateAuthority, None),
            Self::None => (StoredAuthentication::None, None),
        }
    }

    /// Puts the keys back; `None` if they are needed and missing.
    pub fn from_stored(stored: StoredAuthentication, keys: Option<KeyPair>) -> Option<Self> {
        match stored {
            StoredAuthentication::Sas => keys.map(Self::Sas),
            StoredAuthentication::SelfSigned(thumbprints) => Some(Self::SelfSigned(thumbprints)),
            StoredAuthentication::CertificateAuthority => Some(Self::CertificateAuthority),
            StoredAuthentication::None => Some(Self::None),
        }
    }
}

#[cfg(test)]
mod tests;
