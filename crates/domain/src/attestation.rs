//! How a device proves who it is: mechanism and evidence in, proof or rejection out.
//!
//! [`attest_individual`] is the door; one file per mechanism stands behind it. Nothing else can make a [`Proven`], so a
//! function that takes one cannot be reached by a device that proved nothing. Which entry decides follows `rules.md` 5: an
//! individual enrollment is the only candidate, then groups from the leaf upwards. A refusal tells the [`Trace`]
//! everything and the device nothing, not by its duration either (`rules.md` 6).

pub mod symmetric_key;
mod x509;

pub use x509::reachable;

use std::fmt;
use std::ops::Deref;

use crate::certificate::{Certificate, ChainFailure, Fault, InvalidChain};
use crate::clock::UnixTime;
use crate::decision::{Cause, Finding, OutsideText, Trace};
use crate::enrollment::{Attestation, Enrollment, EntryName, Mechanism};
use crate::ids::{CertificateName, Etag, RegistrationId, ServiceKey};
use crate::operation::Evidence;
use crate::resource::CaCertificate;
use crate::sas::InvalidToken;

/// What attestation has verified.
#[derive(Clone, Debug, PartialEq)]
pub struct Proven<T>(T);

impl<T> Proven<T> {
    /// What was proved, without the mark.
    pub fn into_inner(self) -> T {
        self.0
    }
}

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

/// What a device says of itself.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// The provisioning service that the ID scope named.
    pub service: ServiceKey,
    /// Its ID scope.
    pub id_scope: &'a str,
    /// Who the device says it is, as it spelled it.
    pub registration_id: &'a RegistrationId,
    /// When it says so.
    pub now: UnixTime,
}

/// The entries that could admit a device.
#[derive(Clone, Copy, Debug, Default)]
pub struct Candidates<'a> {
    /// The individual enrollment of the registration ID.
    pub individual: Option<&'a Enrollment>,
    /// Groups found by the keys of the presented chain and of the CA certificates, disabled ones included.
    pub x509_groups: &'a [Enrollment],
    /// Groups attested by symmetric key, in the order in which they are tried. To be given also when there is an
    /// individual enrollment: a refusal then works through them in vain, and takes as long as that of an unknown ID.
    pub key_groups: &'a [Enrollment],
    /// The group by symmetric key that admitted the device before, which is tried first.
    pub admitted_before: Option<&'a Enrollment>,
    /// Every CA certificate of the provisioning service.
    pub authorities: &'a [CaCertificate],
}

/// What became of a claim.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The proof, or why the evidence fell short.
    pub result: Result<Proven<Registrant>, Rejection>,
    /// What was looked at.
    pub trace: Trace,
}

/// The entry that decides, and what it says.
struct Match<'a> {
    entry: &'a Enrollment,
    result: Result<Proven<Registrant>, Rejection>,
}

/// What the individual enrollment makes of a claim.
#[derive(Clone, Debug)]
pub enum Individually<'a> {
    /// It admits the device, and no groups are needed.
    Admitted(Verdict),
    /// It does not, or there is none.
    Open(Open<'a>),
}

/// A claim that no individual enrollment admits: the groups are to be held against it.
#[derive(Clone, Debug)]
pub struct Open<'a> {
    claim: Claim<'a>,
    evidence: &'a Evidence,
    /// What the individual enrollment says, if there is one.
    refused: Option<Verdict>,
}

/// Holds a claim and its evidence against the individual enrollment; no groups are needed for it.
pub fn attest_individual<'a>(claim: Claim<'a>, evidence: &'a Evidence, candidates: Candidates<'_>) -> Individually<'a> {
    let Some(entry) = candidates.individual else {
        return Individually::Open(Open { claim, evidence, refused: None });
    };
    let mut trace = Trace::default();
    let result = if let Some(rejection) = unread(evidence) {
        Err(rejection)
    } else {
        let result = individual(claim, evidence, entry, candidates.authorities, &mut trace);
        decide(Match { entry, result }, &mut trace)
    };
    let verdict = Verdict { result, trace };
    if verdict.result.is_ok() {
        return Individually::Admitted(verdict);
    }
    Individually::Open(Open { claim, evidence, refused: Some(verdict) })
}

impl Open<'_> {
    /// Holds the claim against the groups. If the individual enrollment has refused it, that stands; the groups are worked
    /// through all the same, since the duration must not tell whether there is one.
    pub fn attest_groups(self, candidates: Candidates<'_>) -> Verdict {
        let judged = judge_groups(self.claim, self.evidence, candidates);
        match self.refused {
            Some(refused) => {
                std::hint::black_box(judged.result.is_ok());
                refused
            }
            None => judged,
        }
    }
}

/// What the groups say, without regard to the individual enrollment, so that the work is the same with and without one.
fn judge_groups(claim: Claim<'_>, evidence: &Evidence, candidates: Candidates<'_>) -> Verdict {
    let mut trace = Trace::default();
    let matched = match unread(evidence) {
        Some(rejection) => Err(rejection),
        None => groups(claim, evidence, candidates, &mut trace),
    };
    let result = matched.and_then(|matched| decide(matched, &mut trace));
    Verdict { result, trace }
}

/// Why what was presented is not judged at all, if it is not.
const fn unread(evidence: &Evidence) -> Option<Rejection> {
    match (evidence.unreadable, evidence.untaken, &evidence.token) {
        (Some(invalid), ..) => Some(Rejection::Unreadable(invalid)),
        (None, Some(invalid), None) => Some(Rejection::Untaken(invalid)),
        (None, ..) => None,
    }
}

/// Notes what the entry that decides says.
fn decide(Match { entry, result }: Match<'_>, trace: &mut Trace) -> Result<Proven<Registrant>, Rejection> {
    let refuses = |rejection: &Rejection| Finding::Refuses(rejection.cause());
    trace.decide(&entry.name, result.as_ref().map_or_else(refuses, |_| Finding::Admits));
    result
}

fn individual(
    claim: Claim<'_>,
    evidence: &Evidence,
    entry: &Enrollment,
    authorities: &[CaCertificate],
    trace: &mut Trace,
) -> Result<Proven<Registrant>, Rejection> {
    match (&entry.attestation, &evidence.token, &evidence.certificates) {
        (_, None, None) => Err(Rejection::NoCredential),
        (Attestation::SymmetricKey(_), Some(token), _) => symmetric_key::prove(claim, token, entry),
        (Attestation::X509(x509), _, Some(chain)) => {
            let credential = x509::individual(claim, chain, x509, authorities, trace)?;
            seal(claim, entry, credential)
        }
        _ => Err(Rejection::Mechanism { wanted: entry.attestation.mechanism() }),
    }
}

fn groups<'a>(
    claim: Claim<'_>,
    evidence: &Evidence,
    candidates: Candidates<'a>,
    trace: &mut Trace,
) -> Result<Match<'a>, Rejection> {
    // A token is sent on purpose; a certificate may come along with any TLS connection.
    match (&evidence.token, &evidence.certificates) {
        (Some(token), _) => symmetric_key::groups(claim, token, candidates, trace),
        (None, Some(chain)) => x509::groups(claim, chain, candidates, trace),
        (None, None) => Err(Rejection::NoCredential),
    }
}

/// Marks evidence that suffices as proof. Whether the entry is enabled is asked last, so that only a device that could
/// have been admitted is recorded as refused for that.
fn seal(claim: Claim<'_>, entry: &Enrollment, credential: Credential) -> Result<Proven<Registrant>, Rejection> {
    if !entry.terms.is_enabled() {
        return Err(Rejection::Disabled);
    }
    Ok(Proven(Registrant {
        service: claim.service,
        registration_id: claim.registration_id.clone(),
        admitted_by: EntryRef { name: entry.name.clone(), etag: entry.etag },
        credential,
    }))
}

/// Why evidence fell short.
#[derive(Clone, Debug, PartialEq)]
pub enum Rejection {
    /// Nothing was presented.
    NoCredential,
    /// What was presented as a signature is none.
    Unreadable(InvalidToken),
    /// The certificates that were presented are not looked at.
    Untaken(InvalidChain),
    /// There is no entry that could admit the device.
    NotEnrolled,
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
        named: OutsideText,
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
        found: Option<OutsideText>,
    },
    /// The leaf is not one of those that the entry holds.
    OtherCertificate,
    /// A certificate is outside its dates.
    CertificateDates {
        /// Which.
        subject: OutsideText,
        /// Its last moment if that has passed; its first one if that has not come.
        bound: UnixTime,
        /// Whether it has expired.
        expired: bool,
        /// By this server's clock.
        now: UnixTime,
    },
    /// The chain leads to no certificate of any entry.
    UnknownIssuer {
        /// Where it ends.
        subject: OutsideText,
        /// Who issued that.
        issuer: OutsideText,
    },
    /// A certificate of the chain is not fit to sign, or did not sign what bears its name.
    Chain {
        /// Which.
        subject: OutsideText,
        /// What is wrong with it.
        fault: Fault,
    },
    /// The chain leads to a certificate of the entry, and to no CA certificate whose possession is proved.
    UnverifiedCa {
        /// The certificate of the entry.
        subject: OutsideText,
    },
    /// The entry refers to a CA certificate that is not there.
    MissingCa {
        /// Its name.
        name: CertificateName,
    },
}

impl Rejection {
    /// The fixed cause.
    pub const fn cause(&self) -> Cause {
        match self {
            Self::NoCredential => Cause::NoCredential,
            Self::Unreadable(_) => Cause::UnreadableSignature,
            Self::Untaken(_) => Cause::UnreadableCertificate,
            Self::NotEnrolled => Cause::NotEnrolled,
            Self::Disabled => Cause::DisabledEntry,
            Self::Mechanism { .. } => Cause::WrongMechanism,
            Self::Resource { .. } => Cause::WrongResource,
            Self::Signature => Cause::WrongKey,
            Self::Expired { .. } | Self::CertificateDates { expired: false, .. } => Cause::ClockSkew,
            Self::CommonName { .. } => Cause::CommonNameDiffers,
            Self::OtherCertificate => Cause::WrongCertificate,
            Self::CertificateDates { expired: true, .. } => Cause::ExpiredCertificate,
            Self::UnknownIssuer { .. } => Cause::UnknownCa,
            Self::Chain { fault: Fault::NotAnAuthority, .. } => Cause::NotACa,
            Self::Chain { fault: Fault::PathLength { .. }, .. } => Cause::PathLength,
            Self::Chain { .. } => Cause::InvalidChain,
            Self::UnverifiedCa { .. } => Cause::UnverifiedCa,
            Self::MissingCa { .. } => Cause::MissingCa,
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCredential => f.write_str("the device presented neither a certificate nor a signature"),
            Self::Unreadable(invalid) => write!(f, "what the device presented as a signature is none: {invalid}"),
            Self::Untaken(invalid) => write!(f, "the device's certificates are not taken: {invalid}"),
            Self::NotEnrolled => f.write_str(
                "there is no individual enrollment of this registration ID, and no group of this mechanism to try",
            ),
            Self::Disabled => f.write_str("the entry is disabled"),
            Self::Mechanism { wanted } => write!(f, "the entry is attested by {wanted}, which was not presented"),
            Self::Resource { named } => write!(f, "the signature is for {named}"),
            Self::Signature => {
                f.write_str("the signature was made with no key of an entry, nor with one derived from it")
            }
            Self::Expired { expired_at, now } => {
                let ago = Ago(now.since(*expired_at).as_secs());
                write!(f, "the signature ended {ago} by this server's clock ({})", Moment(*expired_at))
            }
            Self::CommonName { found: Some(found) } => write!(f, "the certificate's common name is {found}"),
            Self::CommonName { found: None } => f.write_str("the certificate has not exactly one common name"),
            Self::OtherCertificate => f.write_str("the certificate is neither the entry's primary nor its secondary"),
            Self::CertificateDates { subject, bound, expired: true, now } => {
                let ago = Ago(now.since(*bound).as_secs());
                write!(f, "the certificate {subject} expired {ago} ({})", Moment(*bound))
            }
            Self::CertificateDates { subject, bound, expired: false, now } => {
                let seconds = bound.since(*now).as_secs();
                let clock = "by this server's clock";
                write!(f, "the certificate {subject} begins to hold in {seconds} s {clock} ({})", Moment(*bound))
            }
            Self::UnknownIssuer { subject, issuer } if subject == issuer => {
                write!(f, "the chain ends at the root {subject}, and nothing on it is enrolled")
            }
            Self::UnknownIssuer { subject, issuer } => {
                write!(f, "the chain ends at {subject}, issued by {issuer}, and nothing on it is enrolled")
            }
            Self::Chain { subject, fault } => write!(f, "the certificate {subject} {fault}"),
            Self::UnverifiedCa { subject } => {
                write!(f, "the chain leads to {subject}, and to no CA certificate whose possession is proved")
            }
            Self::MissingCa { name } => write!(f, "the entry refers to the CA certificate {name}, which is not there"),
        }
    }
}

/// What a chain is rejected for that leads to no entry.
impl Rejection {
    fn of_chain(failure: &ChainFailure, now: UnixTime) -> Self {
        let certificate = &failure.certificate;
        let subject = OutsideText::new(certificate.subject());
        match failure.fault {
            Fault::Expired => Self::CertificateDates { subject, bound: certificate.not_after(), expired: true, now },
            Fault::Early => Self::CertificateDates { subject, bound: certificate.not_before(), expired: false, now },
            Fault::IssuerUnknown | Fault::NotAnchored => {
                Self::UnknownIssuer { subject, issuer: OutsideText::new(certificate.issuer()) }
            }
            fault => Self::Chain { subject, fault },
        }
    }
}

/// A moment to the second; beyond the calendar, its number.
struct Moment(UnixTime);

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_second(self.0.seconds()) {
            Ok(timestamp) => write!(f, "{timestamp}"),
            Err(_) => write!(f, "second {}", self.0.seconds()),
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

#[cfg(test)]
mod tests;
