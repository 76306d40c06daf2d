//! Makes a complete enrollment of what an operator wrote and what is stored, and applies the rules for its fields.

use super::{
    AllocationPolicy, Attestation, AttestationDraft, CertificateDraft, Draft, Enrollment, EntryKind, EntryName,
    InitialTwin, Slots, Terms, TpmAttestation, X509Attestation,
};
use crate::certificate::Certificate;
use crate::clock::{Entropy, UnixTime};
use crate::ids::{CertificateName, Etag};
use crate::sas::{KeyPair, SymmetricKey};
use crate::twin::{PatchError, ServiceChange};

/// Longest registration ID of an enrollment attested by certificate, since it equals the subject's common name.
const X509_REGISTRATION_ID_BYTES_MAX: usize = 64;
/// Most bytes of what an operator notes about a device, as JSON text: as much as a section of a twin.
const DEVICE_INFORMATION_BYTES_MAX: usize = 32 * 1_024;
/// Longest host name (RFC 1035, section 2.3.4).
const HOST_NAME_BYTES_MAX: usize = 253;
/// Most bytes of a TPM's public key; one of RSA with 4,096 bits has less than 600.
const PUBLIC_AREA_BYTES_MAX: usize = 1_024;
/// Longest address of a webhook, in bytes.
const WEBHOOK_URL_BYTES_MAX: usize = 2_048;
/// Oldest contract a webhook may speak (`contract/dps-service.md 3.4`).
const WEBHOOK_API_VERSION_MIN: &str = "2018-09-01-preview";

/// Why an enrollment cannot be as it was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEnrollment {
    /// A group cannot be attested by TPM.
    #[error("an enrollment group cannot use TPM attestation")]
    TpmForGroup,
    /// The endorsement key is empty.
    #[error("TPM attestation needs an endorsement key")]
    EndorsementKey,
    /// A key of a TPM is longer than any there is.
    #[error("a key of a TPM has at most {PUBLIC_AREA_BYTES_MAX} bytes")]
    PublicArea,
    /// None or several of the three kinds of certificates.
    #[error("X.509 attestation takes exactly one of client certificates, signing certificates and CA references")]
    CertificateKinds,
    /// Client certificates for a group.
    #[error("an enrollment group takes signing certificates or CA references, not client certificates")]
    ClientCertificateForGroup,
    /// Signing certificates for an individual enrollment.
    #[error("an individual enrollment takes client certificates or CA references, not signing certificates")]
    SigningCertificateForIndividual,
    /// Neither a primary nor a secondary.
    #[error("X.509 attestation needs a primary or a secondary certificate")]
    NoCertificate,
    /// A certificate is to be kept that is not stored.
    #[error("a certificate is described and not given, and no such certificate is stored")]
    NothingToKeep,
    /// The registration ID could not be a common name.
    #[error("with X.509 attestation a registration ID has at most {X509_REGISTRATION_ID_BYTES_MAX} characters")]
    RegistrationIdLength,
    /// A device ID or device information for a group.
    #[error("an enrollment group has no device ID and no device information")]
    DeviceOfGroup,
    /// Too much device information.
    #[error("the device information has at most {DEVICE_INFORMATION_BYTES_MAX} bytes")]
    DeviceInformation,
    /// A host name is longer than any there is.
    #[error("the host name of a hub has at most {HOST_NAME_BYTES_MAX} bytes")]
    HostName,
    /// Custom allocation without a webhook.
    #[error("custom allocation needs a custom allocation definition")]
    NoWebhook,
    /// The webhook is not an https address.
    #[error("the webhook must be an https address of at most {WEBHOOK_URL_BYTES_MAX} bytes")]
    WebhookUrl,
    /// The webhook's contract is unknown.
    #[error("the webhook's API version must be a date from {WEBHOOK_API_VERSION_MIN} on")]
    WebhookApiVersion,
    /// The initial twin is none that a device could have.
    #[error("initialTwin: {0}")]
    InitialTwin(#[from] PatchError),
    /// A hub that is not linked.
    #[error("the hub {host_name} is not linked to the provisioning service")]
    HubNotLinked {
        /// As written.
        host_name: String,
    },
}

/// Makes the enrollment that `draft` means, given the one that is stored under its name.
///
/// Keys and certificates that the draft leaves out are kept; keys that are nowhere are generated. Times and version are
/// carried over, for the store to set.
pub fn merge(
    draft: Draft,
    stored: Option<&Enrollment>,
    entropy: &dyn Entropy,
) -> Result<Enrollment, InvalidEnrollment> {
    let Draft { name, attestation, terms } = draft;
    check_terms(&terms, name.kind())?;
    let attestation = match attestation {
        AttestationDraft::Tpm(_) if name.kind() == EntryKind::Group => return Err(InvalidEnrollment::TpmForGroup),
        AttestationDraft::Tpm(tpm) if tpm.endorsement_key.0.is_empty() => {
            return Err(InvalidEnrollment::EndorsementKey);
        }
        AttestationDraft::Tpm(tpm) if is_too_long(&tpm) => return Err(InvalidEnrollment::PublicArea),
        AttestationDraft::Tpm(tpm) => Attestation::Tpm(tpm),
        AttestationDraft::SymmetricKey(keys) => {
            Attestation::SymmetricKey(merge_keys(keys, stored.map(|stored| &stored.attestation), entropy))
        }
        AttestationDraft::X509 { client, signing, references } => {
            let kept = match stored.map(|stored| &stored.attestation) {
                Some(Attestation::X509(x509)) => Some(x509),
                _ => None,
            };
            check_common_name(&name)?;
            Attestation::X509(match (client, signing, references) {
                (Some(client), None, None) => merge_client(client, kept, name.kind())?,
                (None, Some(signing), None) => merge_signing(signing, kept, name.kind())?,
                (None, None, Some(references)) => merge_references(references)?,
                _ => return Err(InvalidEnrollment::CertificateKinds),
            })
        }
    };
    let times = |stored: &Enrollment| (stored.created_at, stored.updated_at, stored.etag);
    let (created_at, updated_at, etag) =
        stored.map_or((UnixTime::default(), UnixTime::default(), Etag::from_number(0)), times);
    Ok(Enrollment { name, attestation, terms, created_at, updated_at, etag })
}

/// Refuses hubs that are not linked; `linked` holds host names, compared without case.
pub fn check_hubs<L: AsRef<str>>(terms: &Terms, linked: &[L]) -> Result<(), InvalidEnrollment> {
    let is_linked = |host: &str| linked.iter().any(|link| link.as_ref().eq_ignore_ascii_case(host));
    match terms.hubs().iter().find(|host| !is_linked(host)) {
        Some(host) => Err(InvalidEnrollment::HubNotLinked { host_name: host.clone() }),
        None => Ok(()),
    }
}

fn check_terms(terms: &Terms, kind: EntryKind) -> Result<(), InvalidEnrollment> {
    if kind == EntryKind::Group && (terms.device_id.is_some() || terms.device_information.is_some()) {
        return Err(InvalidEnrollment::DeviceOfGroup);
    }
    let is_long =
        |members| serde_json::to_string(members).expect("JSON can be written").len() > DEVICE_INFORMATION_BYTES_MAX;
    if terms.device_information.as_ref().is_some_and(is_long) {
        return Err(InvalidEnrollment::DeviceInformation);
    }
    if terms.iot_hub_host_name.as_ref().is_some_and(|host| host.len() > HOST_NAME_BYTES_MAX) {
        return Err(InvalidEnrollment::HostName);
    }
    // Checked where the operator can be told: at the assignment there is only the device.
    if let Some(InitialTwin { tags, desired }) = &terms.initial_twin {
        ServiceChange { tags: tags.clone(), desired: desired.clone() }.check()?;
    }
    let Some(custom) = &terms.custom_allocation else {
        return match terms.allocation {
            Some(AllocationPolicy::Custom) => Err(InvalidEnrollment::NoWebhook),
            _ => Ok(()),
        };
    };
    if !is_https_address(&custom.webhook_url) {
        return Err(InvalidEnrollment::WebhookUrl);
    }
    if !is_api_version(&custom.api_version) {
        return Err(InvalidEnrollment::WebhookApiVersion);
    }
    Ok(())
}

fn is_too_long(tpm: &TpmAttestation) -> bool {
    let keys = [Some(&tpm.endorsement_key), tpm.storage_root_key.as_ref()];
    keys.into_iter().flatten().any(|key| key.0.len() > PUBLIC_AREA_BYTES_MAX)
}

fn is_https_address(url: &str) -> bool {
    const SCHEME: &str = "https://";
    let Some((scheme, rest)) = url.split_at_checked(SCHEME.len()) else { return false };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    url.len() <= WEBHOOK_URL_BYTES_MAX
        && scheme.eq_ignore_ascii_case(SCHEME)
        && !host.is_empty()
        && !url.contains(|c: char| c.is_control() || c.is_whitespace())
}

/// A date of ten characters, perhaps with a suffix. Dates compare as text.
fn is_api_version(text: &str) -> bool {
    const PATTERN: &str = "0000-00-00";
    let is_date = |date: &str| {
        date.chars().zip(PATTERN.chars()).all(|(c, wanted)| c == wanted || (wanted == '0' && c.is_ascii_digit()))
    };
    let Some((date, suffix)) = text.split_at_checked(PATTERN.len()) else { return false };
    let (first, _) = WEBHOOK_API_VERSION_MIN.split_at(PATTERN.len());
    is_date(date) && date >= first && matches!(suffix, "" | "-preview")
}

fn check_common_name(name: &EntryName) -> Result<(), InvalidEnrollment> {
    match name {
        EntryName::Individual(id) if id.as_str().len() > X509_REGISTRATION_ID_BYTES_MAX => {
            Err(InvalidEnrollment::RegistrationIdLength)
        }
        _ => Ok(()),
    }
}

fn merge_keys(draft: Slots<SymmetricKey>, stored: Option<&Attestation>, entropy: &dyn Entropy) -> KeyPair {
    let (primary, secondary) = match stored {
        Some(Attestation::SymmetricKey(keys)) => (Some(&keys.primary), Some(&keys.secondary)),
        _ => (None, None),
    };
    let choose = |given: Option<SymmetricKey>, kept: Option<&SymmetricKey>| {
        given.or_else(|| kept.cloned()).unwrap_or_else(|| SymmetricKey::generate(entropy))
    };
    KeyPair { primary: choose(draft.primary, primary), secondary: choose(draft.secondary, secondary) }
}

fn merge_client(
    draft: Slots<CertificateDraft>,
    kept: Option<&X509Attestation>,
    kind: EntryKind,
) -> Result<X509Attestation, InvalidEnrollment> {
    let kept = match (kind, kept) {
        (EntryKind::Group, _) => return Err(InvalidEnrollment::ClientCertificateForGroup),
        (EntryKind::Individual, Some(X509Attestation::Client(kept))) => Some(kept),
        (EntryKind::Individual, _) => None,
    };
    merge_certificates(draft, kept).map(X509Attestation::Client)
}

fn merge_signing(
    draft: Slots<CertificateDraft>,
    kept: Option<&X509Attestation>,
    kind: EntryKind,
) -> Result<X509Attestation, InvalidEnrollment> {
    let kept = match (kind, kept) {
        (EntryKind::Individual, _) => return Err(InvalidEnrollment::SigningCertificateForIndividual),
        (EntryKind::Group, Some(X509Attestation::Signing(kept))) => Some(kept),
        (EntryKind::Group, _) => None,
    };
    merge_certificates(draft, kept).map(X509Attestation::Signing)
}

fn merge_references(draft: Slots<CertificateName>) -> Result<X509Attestation, InvalidEnrollment> {
    if draft.iter().next().is_none() {
        return Err(InvalidEnrollment::NoCertificate);
    }
    Ok(X509Attestation::References(draft))
}

fn merge_certificates(
    draft: Slots<CertificateDraft>,
    kept: Option<&Slots<Certificate>>,
) -> Result<Slots<Certificate>, InvalidEnrollment> {
    let none = Slots::default();
    let kept = kept.unwrap_or(&none);
    let merged = Slots {
        primary: choose_certificate(draft.primary, kept.primary.as_ref(), kept)?,
        secondary: choose_certificate(draft.secondary, kept.secondary.as_ref(), kept)?,
    };
    if merged.iter().next().is_none() {
        return Err(InvalidEnrollment::NoCertificate);
    }
    Ok(merged)
}

fn choose_certificate(
    draft: Option<CertificateDraft>,
    same_slot: Option<&Certificate>,
    kept: &Slots<Certificate>,
) -> Result<Option<Certificate>, InvalidEnrollment> {
    match draft {
        None => Ok(None),
        Some(CertificateDraft::Given(certificate)) => Ok(Some(certificate)),
        Some(CertificateDraft::Kept { sha256 }) => {
            let found = match sha256 {
                Some(wanted) => kept.iter().find(|one| one.sha256_hex().eq_ignore_ascii_case(&wanted)),
                None => same_slot,
            };
            found.cloned().map(Some).ok_or(InvalidEnrollment::NothingToKeep)
        }
    }
}
