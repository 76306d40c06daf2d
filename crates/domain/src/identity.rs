//! Device and module identities at a hub, and what proves one.
//!
//! Keys are in [`Authentication`], which cannot be serialised; the store seals them apart ([`StoredAuthentication`]).
//! Start at [`Identity`] and [`prove`].

use crate::access::Right;
use crate::certificate::{Certificate, PresentedChain, build_chain};
use crate::clock::{Entropy, UnixTime};
use crate::enrollment::Capabilities;
use crate::ids::Etag;
use crate::operation::Evidence;
use crate::operation::identity::IdentityName;
use crate::operation::session::AuthenticationMethod;
use crate::resource::Policy;
use crate::sas::{KeyPair, SasToken, SymmetricKey};

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
    /// Whether one of them is that of `leaf`.
    pub fn include(&self, leaf: &Certificate) -> bool {
        let (sha1, sha256) = (leaf.sha1_hex(), leaf.sha256_hex());
        let mut known = self.primary.iter().chain(&self.secondary);
        known.any(|text| text.eq_ignore_ascii_case(&sha1) || text.eq_ignore_ascii_case(&sha256))
    }
}

/// Why a draft is not an identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidIdentity {
    /// One key without the other.
    #[error("Either no keys or both keys can be set")]
    OneKey,
    /// A thumbprint that is none.
    #[error("StringIsNotThumbprint: a thumbprint is 40 or 64 hexadecimal digits without separators")]
    Thumbprint,
    /// A device that proves nothing.
    #[error("DeviceAuthenticationTypeIsMissing: a device needs an authentication type")]
    NoAuthentication,
    /// A module name reserved for the hub.
    #[error("Module ids that start with $ are reserved")]
    ReservedModule,
    /// A reason longer than the registry keeps.
    #[error("statusReason has more than {} characters", STATUS_REASON_CHARS_MAX)]
    StatusReason,
}

/// Most characters of a status reason (`contract/hub-service.md 4.2`).
pub const STATUS_REASON_CHARS_MAX: usize = 128;

impl IdentityDraft {
    /// Checks the rules of `contract/hub-service.md 4.3` and generates keys that are left out. The result has no
    /// generation, etag or state yet: the store gives those.
    pub fn check(self, entropy: &dyn Entropy) -> Result<Identity, InvalidIdentity> {
        let is_module = self.name.module.is_some();
        if self.name.module.as_ref().is_some_and(|module| module.as_str().starts_with('$')) {
            return Err(InvalidIdentity::ReservedModule);
        }
        if self.status_reason.as_ref().is_some_and(|reason| reason.chars().count() > STATUS_REASON_CHARS_MAX) {
            return Err(InvalidIdentity::StatusReason);
        }
        Ok(Identity {
            authentication: check_authentication(self.authentication, is_module, entropy)?,
            status: if is_module { IdentityStatus::Enabled } else { self.status.unwrap_or(IdentityStatus::Enabled) },
            status_reason: self.status_reason,
            capabilities: self.capabilities.unwrap_or_default(),
            device_scope: self.device_scope,
            parent_scopes: self.parent_scopes,
            managed_by: self.managed_by,
            ..Identity::blank(self.name)
        })
    }
}

fn check_authentication(
    draft: Option<DraftAuthentication>,
    is_module: bool,
    entropy: &dyn Entropy,
) -> Result<Authentication, InvalidIdentity> {
    let fresh = || {
        Authentication::Sas(KeyPair {
            primary: SymmetricKey::generate(entropy),
            secondary: SymmetricKey::generate(entropy),
        })
    };
    match draft {
        None | Some(DraftAuthentication::Sas { primary: None, secondary: None }) => Ok(fresh()),
        Some(DraftAuthentication::Sas { primary: Some(primary), secondary: Some(secondary) }) => {
            Ok(Authentication::Sas(KeyPair { primary, secondary }))
        }
        Some(DraftAuthentication::Sas { .. }) => Err(InvalidIdentity::OneKey),
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
        }
    }
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

    /// Whether a connection that was let in by `used` would still be.
    pub fn still_admits(&self, used: &UsedCredential) -> bool {
        match (self, used) {
            (Self::Sas(keys), UsedCredential::DeviceKey(digest)) => {
                keys.primary.digest() == *digest || keys.secondary.digest() == *digest
            }
            (Self::SelfSigned(thumbprints), UsedCredential::Certificate(leaf)) => thumbprints.include(leaf),
            (Self::CertificateAuthority, UsedCredential::Authority(_)) => true,
            // A policy's key speaks for identities that have keys of their own, and for those without any.
            (Self::Sas(_) | Self::None, UsedCredential::PolicyKey(_)) => true,
            _ => false,
        }
    }
}

/// The credential that a connection was let in by, as far as is needed to notice that it no longer holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UsedCredential {
    /// A symmetric key of the identity; its SHA-256.
    DeviceKey([u8; 32]),
    /// A key of a shared access policy of the hub; its SHA-256.
    PolicyKey([u8; 32]),
    /// A leaf whose thumbprint the identity holds.
    Certificate(Certificate),
    /// A leaf that leads to a CA certificate of the hub.
    Authority(Certificate),
}

impl UsedCredential {
    /// As telemetry shows it.
    pub const fn method(&self) -> AuthenticationMethod {
        match self {
            Self::DeviceKey(_) => AuthenticationMethod::DeviceKey,
            Self::PolicyKey(_) => AuthenticationMethod::PolicyKey,
            Self::Certificate(_) | Self::Authority(_) => AuthenticationMethod::X509,
        }
    }
}

/// Proof of an identity at a hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvenIdentity {
    /// What proved it.
    pub used: UsedCredential,
    /// When the proof ends.
    pub expires_at: UnixTime,
}

/// What a hub judges evidence by.
#[derive(Clone, Copy, Debug)]
pub struct HubRules<'a> {
    /// The names the hub answers to.
    pub hosts: &'a [&'a str],
    /// Its policies.
    pub policies: &'a [Policy],
    /// Its verified CA certificates.
    pub authorities: &'a [Certificate],
}

/// Why a hub does not let a device in. The wire says none of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityRejection {
    /// Neither a certificate nor a signature.
    #[error("no credential was presented")]
    NoCredential,
    /// The identity is disabled.
    #[error("the identity is disabled")]
    Disabled,
    /// The identity is proved in another way.
    #[error("the identity authenticates in another way")]
    Mechanism,
    /// The signature does not cover the identity on this hub.
    #[error("the signature is for another resource")]
    Resource,
    /// No key fits.
    #[error("the signature was made with another key")]
    Signature,
    /// The signature names a policy that is not there or may not connect devices.
    #[error("the signature names a policy that may not connect devices")]
    Policy,
    /// The signature's time is over.
    #[error("the signature has expired")]
    Expired,
    /// The leaf has another thumbprint.
    #[error("the certificate has another thumbprint")]
    Thumbprint,
    /// The certificate is outside its dates.
    #[error("the certificate is outside its dates")]
    CertificateDates,
    /// The chain does not lead to a verified CA certificate of the hub, or the common name differs.
    #[error("the certificate does not lead to a verified CA of the hub, or its common name is not the device ID")]
    Chain,
}

/// How long after its end a signature is still taken at a hub (`contract/hub-device.md 6.1`).
pub const LEEWAY: std::time::Duration = std::time::Duration::from_secs(5);

/// Proves that `evidence` speaks for `identity` at a hub. A signature is preferred to a certificate.
pub fn prove(
    identity: &Identity,
    evidence: &Evidence,
    rules: HubRules<'_>,
    now: UnixTime,
) -> Result<ProvenIdentity, IdentityRejection> {
    let proven = match (&evidence.token, &evidence.certificates) {
        (Some(token), _) => prove_token(identity, token, rules, now),
        (None, Some(presented)) => prove_certificate(identity, presented, rules, now),
        (None, None) => Err(IdentityRejection::NoCredential),
    }?;
    match identity.status {
        IdentityStatus::Enabled => Ok(proven),
        IdentityStatus::Disabled => Err(IdentityRejection::Disabled),
    }
}

fn prove_token(
    identity: &Identity,
    token: &SasToken,
    rules: HubRules<'_>,
    now: UnixTime,
) -> Result<ProvenIdentity, IdentityRejection> {
    let used = match token.policy() {
        Some(name) => prove_policy(token, name, rules.policies)?,
        None => {
            let Authentication::Sas(keys) = &identity.authentication else { return Err(IdentityRejection::Mechanism) };
            let (primary, secondary) = (token.is_signed_by(&keys.primary), token.is_signed_by(&keys.secondary));
            match (primary, secondary) {
                (true, _) => UsedCredential::DeviceKey(keys.primary.digest()),
                (false, true) => UsedCredential::DeviceKey(keys.secondary.digest()),
                (false, false) => return Err(IdentityRejection::Signature),
            }
        }
    };
    if !identity.authentication.still_admits(&used) {
        return Err(IdentityRejection::Mechanism);
    }
    let module = identity.name.module.as_ref().map(crate::ids::ModuleId::as_str);
    if !token.covers_device(rules.hosts, identity.name.device.as_str(), module) {
        return Err(IdentityRejection::Resource);
    }
    let expires_at = token.expires_at();
    if expires_at.plus(LEEWAY) < now {
        return Err(IdentityRejection::Expired);
    }
    Ok(ProvenIdentity { used, expires_at })
}

fn prove_policy(token: &SasToken, name: &str, policies: &[Policy]) -> Result<UsedCredential, IdentityRejection> {
    let policy = policies.iter().find(|policy| policy.name.as_str().eq_ignore_ascii_case(name));
    let Some(policy) = policy.filter(|policy| policy.rights.grants(Right::DeviceConnect)) else {
        return Err(IdentityRejection::Policy);
    };
    policy.signer(token).map(UsedCredential::PolicyKey).ok_or(IdentityRejection::Signature)
}

fn leads_to_authority(presented: &PresentedChain, authorities: &[Certificate], now: UnixTime) -> bool {
    build_chain(presented, authorities, |anchor| authorities.contains(anchor), now).is_ok()
}

fn prove_certificate(
    identity: &Identity,
    presented: &PresentedChain,
    rules: HubRules<'_>,
    now: UnixTime,
) -> Result<ProvenIdentity, IdentityRejection> {
    let leaf = presented.leaf();
    let used = match &identity.authentication {
        Authentication::SelfSigned(thumbprints) if thumbprints.include(leaf) => {
            UsedCredential::Certificate(leaf.clone())
        }
        Authentication::SelfSigned(_) => return Err(IdentityRejection::Thumbprint),
        Authentication::CertificateAuthority => {
            let named = leaf.common_name() == Some(identity.name.device.as_str());
            if !named || !leads_to_authority(presented, rules.authorities, now) {
                return Err(IdentityRejection::Chain);
            }
            UsedCredential::Authority(leaf.clone())
        }
        Authentication::Sas(_) | Authentication::None => return Err(IdentityRejection::Mechanism),
    };
    if now < leaf.not_before() || now > leaf.not_after() {
        return Err(IdentityRejection::CertificateDates);
    }
    Ok(ProvenIdentity { used, expires_at: leaf.not_after() })
}
