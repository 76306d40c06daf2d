//! How a device proves who it is: mechanism and evidence in, proof or rejection out.
//!
//! One file per mechanism. Nothing else can make a [`Proven`], so a function that takes one cannot be reached by a
//! device that proved nothing.

pub mod symmetric_key;

use std::fmt;
use std::ops::Deref;

use crate::certificate::Certificate;
use crate::clock::UnixTime;
use crate::decision::Cause;
use crate::enrollment::{EntryName, Mechanism};
use crate::ids::{Etag, RegistrationId, ServiceKey};

/// What attestation has verified.
#[derive(Clone, Debug, PartialEq)]
pub struct Proven<T>(T);

impl<T> Deref for Proven<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

/// Who registers, by which entry, with which credential (`rules.md` 1).
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Registrant {
    /// The provisioning service; registration IDs are unique only within it.
    pub service: ServiceKey,
    /// Who.
    pub registration_id: RegistrationId,
    /// By which entry.
    pub admitted_by: EntryRef,
    /// With which credential.
    pub credential: Credential,
}

/// An entry at a version.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct EntryRef {
    /// Its name.
    pub name: EntryName,
    /// Its version.
    pub etag: Etag,
}

/// What a device proved itself with. Holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Credential {
    /// A certificate.
    X509 {
        /// The leaf it presented.
        leaf: Certificate,
        /// The other certificate of its individual enrollment.
        other: Option<Certificate>,
        /// The certificate of a group's entry that vouched for it.
        signer: Option<Certificate>,
    },
    /// A symmetric key.
    SymmetricKey {
        /// SHA-256 of the device's two keys, which tells one pair from another.
        fingerprint: [u8; 32],
        /// The spelling of the registration ID that the keys are derived from, for a group.
        derived_from: Option<String>,
    },
}

/// Why evidence fell short.
#[derive(Clone, Debug, PartialEq)]
pub enum Rejection {
    /// Nothing was presented.
    NoCredential,
    /// The entry is disabled.
    Disabled,
    /// The entry wants another mechanism.
    Mechanism {
        /// The one it wants.
        wanted: Mechanism,
    },
    /// The signature is for another registration.
    Resource {
        /// What it is for.
        named: String,
    },
    /// The signature was made with another key.
    Signature,
    /// The signature has ended.
    Expired {
        /// When.
        expired_at: UnixTime,
        /// By this server's clock.
        now: UnixTime,
    },
    /// The subject has no single common name, or another one than the registration ID.
    CommonName {
        /// What it has.
        found: Option<String>,
    },
    /// The leaf is not one of those that the entry holds.
    OtherCertificate,
    /// A certificate is outside its dates.
    CertificateDates {
        /// Which.
        subject: String,
        /// Its last moment if that has passed; its first one if that has not come.
        bound: UnixTime,
        /// Whether it has expired.
        expired: bool,
        /// By this server's clock.
        now: UnixTime,
    },
    /// The chain does not reach a certificate of the entry.
    UnknownIssuer {
        /// The issuer that was looked for.
        issuer: String,
    },
    /// A certificate of the chain is not fit to sign, or was not signed by its issuer.
    Chain {
        /// Which.
        subject: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The CA certificate that the entry refers to is not verified, or not there.
    UnverifiedCa {
        /// Its name.
        name: String,
    },
}

impl Rejection {
    /// The fixed cause.
    pub const fn cause(&self) -> Cause {
        match self {
            Self::NoCredential => Cause::NoCredential,
            Self::Disabled => Cause::DisabledEntry,
            Self::Mechanism { .. } => Cause::WrongMechanism,
            Self::Resource { .. } => Cause::WrongResource,
            Self::Signature => Cause::WrongKey,
            Self::Expired { .. } | Self::CertificateDates { expired: false, .. } => Cause::ClockSkew,
            Self::CommonName { .. } => Cause::CommonNameDiffers,
            Self::OtherCertificate => Cause::WrongCertificate,
            Self::CertificateDates { expired: true, .. } => Cause::ExpiredCertificate,
            Self::UnknownIssuer { .. } => Cause::UnknownCa,
            Self::Chain { .. } => Cause::InvalidChain,
            Self::UnverifiedCa { .. } => Cause::UnverifiedCa,
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCredential => f.write_str("the device presented neither a certificate nor a signature"),
            Self::Disabled => f.write_str("the entry is disabled"),
            Self::Mechanism { wanted } => write!(f, "the entry is attested by {wanted}, which was not presented"),
            Self::Resource { named } => write!(f, "the signature is for {named}"),
            Self::Signature => f.write_str("the signature was made with neither key of the entry"),
            Self::Expired { expired_at, now } => {
                write!(f, "the signature ended {} by this server's clock", Ago(now.since(*expired_at).as_secs()))
            }
            Self::CommonName { found: Some(found) } => write!(f, "the certificate's common name is {found:?}"),
            Self::CommonName { found: None } => f.write_str("the certificate has not exactly one common name"),
            Self::OtherCertificate => f.write_str("the certificate is neither the entry's primary nor its secondary"),
            Self::CertificateDates { subject, bound, expired: true, now } => {
                write!(f, "the certificate {subject} expired {}", Ago(now.since(*bound).as_secs()))
            }
            Self::CertificateDates { subject, bound, expired: false, now } => write!(
                f,
                "the certificate {subject} begins to hold in {} s by this server's clock",
                bound.since(*now).as_secs()
            ),
            Self::UnknownIssuer { issuer } => write!(f, "no entry or presented certificate is the issuer {issuer}"),
            Self::Chain { subject, problem } => write!(f, "the certificate {subject} {problem}"),
            Self::UnverifiedCa { name } => write!(f, "the CA certificate {name} is not verified"),
        }
    }
}

/// A time span for people.
struct Ago(u64);

impl fmt::Display for Ago {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            seconds @ 0..120 => write!(f, "{seconds} s ago"),
            seconds @ 120..7_200 => write!(f, "{} min ago", seconds / 60),
            seconds @ 7_200..172_800 => write!(f, "{} h ago", seconds / 3_600),
            seconds => write!(f, "{} days ago", seconds / 86_400),
        }
    }
}
