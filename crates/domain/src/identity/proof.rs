//! Whether a connection is the device or module it says it is (`contract/hub-device.md 6`).
//!
//! Evidence and records in, proof or reason out. The reason is for the log alone: a refusal is never quicker for an
//! identity that is unknown, disabled or proved in another way, so that nothing can be learned from the clock either.
//! Start at [`prove`].

use std::sync::Arc;
use std::time::Duration;

use crate::access::Action;
use crate::certificate::{Certificate, Chain, ChainFailure, Fault, InvalidChain, PresentedChain, build_chain};
use crate::clock::UnixTime;
use crate::operation::Evidence;
use crate::operation::session::AuthenticationMethod;
use crate::resource::Policy;
use crate::sas::{KeyPair, SasToken, SymmetricKey};

use super::{Authentication, Identity, IdentityStatus};

/// How long after its end a signature is still taken at a hub (`contract/hub-device.md 6.1`).
pub const LEEWAY: Duration = Duration::from_secs(5);

/// Who a connection claims to be, as far as the hub knows it.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// The identity of the claimed name; `None` if there is none.
    pub identity: Option<&'a Identity>,
    /// The device whose module it is; `None` for a device itself. A module is only as enabled as its device.
    pub device: Option<&'a Identity>,
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
    Authority {
        /// What was presented.
        presented: Arc<PresentedChain>,
        /// The CA certificate it led to.
        anchor: Certificate,
    },
}

impl UsedCredential {
    /// As telemetry shows it.
    pub const fn method(&self) -> AuthenticationMethod {
        match self {
            Self::DeviceKey(_) => AuthenticationMethod::DeviceKey,
            Self::PolicyKey(_) => AuthenticationMethod::PolicyKey,
            Self::Certificate(_) | Self::Authority { .. } => AuthenticationMethod::X509,
        }
    }

    /// Whether a hub with these policies and verified CA certificates still vouches for it; what the identity itself
    /// decides is [`Authentication::still_admits`].
    pub fn is_upheld(&self, policies: &[Policy], authorities: &[Certificate], now: UnixTime) -> bool {
        match self {
            Self::DeviceKey(_) | Self::Certificate(_) => true,
            Self::PolicyKey(digest) => {
                let may_connect = |policy: &&Policy| policy.rights.allow(Action::ConnectAsDevice);
                policies.iter().filter(may_connect).any(|policy| policy.has_key(digest))
            }
            // Signatures are computed only where the anchor is gone: another CA of the hub may vouch for the leaf too.
            Self::Authority { presented, anchor } => {
                authorities.contains(anchor) || find_anchor(presented, authorities, now).is_ok()
            }
        }
    }
}

/// The path from what was presented to one of the hub's CA certificates.
fn find_anchor(presented: &PresentedChain, authorities: &[Certificate], now: UnixTime) -> Result<Chain, ChainFailure> {
    build_chain(presented, authorities, |anchor| authorities.contains(anchor), now)
}

impl Authentication {
    /// Whether a connection that was let in by `used` would still be, as far as the identity decides it. Of a policy's
    /// key and of a CA it decides only that they may speak for it: whether the hub still has them is the hub's to know.
    pub fn still_admits(&self, used: &UsedCredential) -> bool {
        match (self, used) {
            (Self::Sas(keys), UsedCredential::DeviceKey(digest)) => {
                keys.primary.digest() == *digest || keys.secondary.digest() == *digest
            }
            (Self::SelfSigned(thumbprints), UsedCredential::Certificate(leaf)) => thumbprints.include(leaf),
            (Self::CertificateAuthority, UsedCredential::Authority { .. }) => true,
            // A policy's key speaks for identities that have keys of their own, and for those without any.
            (Self::Sas(_) | Self::None, UsedCredential::PolicyKey(_)) => true,
            _ => false,
        }
    }
}

/// Proof of an identity at a hub. Only [`prove`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvenIdentity {
    used: UsedCredential,
    expires_at: UnixTime,
}

impl ProvenIdentity {
    /// What proved it.
    pub const fn used(&self) -> &UsedCredential {
        &self.used
    }

    /// When the proof ends, leeway included: it is taken until then, and a connection lasts as long.
    pub const fn expires_at(&self) -> UnixTime {
        self.expires_at
    }
}

/// Whether a proof that holds until `expires_at` has ended. It holds to the end of that second, as the dates of a
/// certificate do: whoever is let in is not cut off at once, and whoever is cut off is not let in again.
pub const fn has_ended(expires_at: UnixTime, now: UnixTime) -> bool {
    now.seconds() > expires_at.seconds()
}

/// Why a hub does not let a device in. The wire says none of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityRejection {
    /// Neither a certificate nor a signature.
    #[error("no credential was presented")]
    NoCredential,
    /// The certificates that were presented are not looked at.
    #[error("the presented certificates are not taken: {0}")]
    Untaken(InvalidChain),
    /// The hub has no such identity.
    #[error("the hub has no such identity")]
    Unknown,
    /// The identity is disabled, or the device whose module it is.
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
    /// The leaf is outside its dates.
    #[error("the certificate is outside its dates")]
    CertificateDates,
    /// The leaf has no single common name, or another one than the identity's.
    #[error("the certificate's common name is not the identity's name")]
    CommonName,
    /// The chain does not lead to a verified CA certificate of the hub.
    #[error("the certificate does not lead to a verified CA certificate of the hub: {0:?}")]
    Chain(Fault),
}

/// Proves that `evidence` speaks for the identity that `claim` names. A signature is preferred to a certificate.
pub fn prove(
    claim: Claim<'_>,
    evidence: &Evidence,
    rules: HubRules<'_>,
    now: UnixTime,
) -> Result<ProvenIdentity, IdentityRejection> {
    // Judged whether or not the identity may connect: an early refusal would show in the time it takes.
    let judged = match (&evidence.token, &evidence.certificates) {
        (Some(token), _) => judge_token(claim.identity, token, rules, now),
        (None, _) if evidence.unreadable.is_some() => Err(IdentityRejection::NoCredential),
        (None, Some(presented)) => judge_certificate(claim.identity, presented, rules, now),
        (None, None) => Err(evidence.untaken.map_or(IdentityRejection::NoCredential, IdentityRejection::Untaken)),
    };
    let Some(identity) = claim.identity else { return Err(IdentityRejection::Unknown) };
    let is_enabled = |identity: &Identity| identity.status == IdentityStatus::Enabled;
    let device_enabled = match claim.device {
        Some(device) => is_enabled(device),
        None => identity.name.module.is_none(),
    };
    if is_enabled(identity) && device_enabled { judged } else { Err(IdentityRejection::Disabled) }
}

fn judge_token(
    identity: Option<&Identity>,
    token: &SasToken,
    rules: HubRules<'_>,
    now: UnixTime,
) -> Result<ProvenIdentity, IdentityRejection> {
    let named = token.policy().map(|name| find_policy(rules.policies, name));
    let keys = match (&named, identity.map(|identity| &identity.authentication)) {
        (Some(policy), _) => policy.map(|policy| &policy.keys),
        (None, Some(Authentication::Sas(keys))) => Some(keys),
        (None, _) => None,
    };
    let signer = find_signer(token, keys);
    let authentication = &identity.ok_or(IdentityRejection::Unknown)?.authentication;
    let used = match (named, keys) {
        (Some(None), _) => return Err(IdentityRejection::Policy),
        (None, None) => return Err(IdentityRejection::Mechanism),
        (Some(Some(_)), _) => UsedCredential::PolicyKey(signer.ok_or(IdentityRejection::Signature)?),
        (None, Some(_)) => UsedCredential::DeviceKey(signer.ok_or(IdentityRejection::Signature)?),
    };
    if !authentication.still_admits(&used) {
        return Err(IdentityRejection::Mechanism);
    }
    if !identity.is_some_and(|identity| covers(token, identity, rules.hosts)) {
        return Err(IdentityRejection::Resource);
    }
    let expires_at = token.expires_at().plus(LEEWAY);
    if has_ended(expires_at, now) {
        return Err(IdentityRejection::Expired);
    }
    Ok(ProvenIdentity { used, expires_at })
}

/// The policy of that name, if it may connect devices.
fn find_policy<'a>(policies: &'a [Policy], name: &str) -> Option<&'a Policy> {
    let policy = policies.iter().find(|policy| policy.name.as_str().eq_ignore_ascii_case(name));
    policy.filter(|policy| policy.rights.allow(Action::ConnectAsDevice))
}

/// The digest of the key that signed `token`. Two signatures are computed whatever there is to compare with.
fn find_signer(token: &SasToken, keys: Option<&KeyPair>) -> Option<[u8; 32]> {
    let Some(keys) = keys else {
        let decoy = SymmetricKey::from_bytes(&[0; 32]).expect("a key may have 32 bytes");
        std::hint::black_box((token.is_signed_by(&decoy), token.is_signed_by(&decoy)));
        return None;
    };
    keys.signer(token)
}

/// Whether the token covers the identity. The bare host is enough for a policy's key, never for a device's.
fn covers(token: &SasToken, identity: &Identity, hosts: &[&str]) -> bool {
    let (_, path) = token.segments();
    let module = identity.name.module.as_ref().map(crate::ids::ModuleId::as_str);
    (token.policy().is_some() || path.len() >= 2) && token.covers_device(hosts, identity.name.device.as_str(), module)
}

fn judge_certificate(
    identity: Option<&Identity>,
    presented: &Arc<PresentedChain>,
    rules: HubRules<'_>,
    now: UnixTime,
) -> Result<ProvenIdentity, IdentityRejection> {
    let leaf = presented.leaf();
    let proven = |used| Ok(ProvenIdentity { used, expires_at: leaf.not_after() });
    let authentication = identity.map(|identity| &identity.authentication);
    let by_thumbprint = matches!(authentication, Some(Authentication::SelfSigned(known)) if known.include(leaf));
    let in_time = !leaf.is_early(now) && !leaf.is_expired(now);
    if by_thumbprint && in_time {
        return proven(UsedCredential::Certificate(leaf.clone()));
    }
    // Walked before any refusal: signatures are most of the work there is.
    let walked = find_anchor(presented, rules.authorities, now);
    match (identity, authentication) {
        (Some(_), Some(Authentication::SelfSigned(_))) if by_thumbprint => Err(IdentityRejection::CertificateDates),
        (Some(_), Some(Authentication::SelfSigned(_))) => Err(IdentityRejection::Thumbprint),
        (Some(identity), Some(Authentication::CertificateAuthority)) => match walked {
            Err(failure) => Err(IdentityRejection::Chain(failure.fault)),
            // A module's certificate names device and module (Azure's article on module identities).
            Ok(chain) if leaf.common_name() == Some(identity.name.to_string().as_str()) => {
                proven(UsedCredential::Authority { presented: Arc::clone(presented), anchor: chain.anchor().clone() })
            }
            Ok(_) => Err(IdentityRejection::CommonName),
        },
        (Some(_), _) => Err(IdentityRejection::Mechanism),
        (None, _) => Err(IdentityRejection::Unknown),
    }
}

#[cfg(test)]
mod tests;
