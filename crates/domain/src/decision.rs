//! The trace of a decision: what was considered, what matched, what failed, and what would fix it.
//!
//! Every admit and every refusal leaves one, found by its tracking ID. Text that came from outside is bounded when it is
//! taken in and escaped when it is shown. Start at [`Decision`].

use std::fmt;
use std::net::IpAddr;

use crate::attestation::Rejection;
use crate::certificate::{Certificate, Fault};
use crate::clock::UnixTime;
use crate::enrollment::EntryName;
use crate::ids::{OperationId, ServiceKey, TrackingId};
use crate::operation::{Evidence, Transport};

/// Why a device was admitted or refused.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Decision {
    /// Finds it.
    pub tracking: TrackingId,
    /// When it fell.
    pub at: UnixTime,
    /// The provisioning service, if the ID scope named one.
    pub service: Option<ServiceKey>,
    /// The ID scope as the device wrote it.
    pub id_scope: OutsideText,
    /// The registration ID as the device wrote it.
    pub registration_id: OutsideText,
    /// Where the device called from.
    pub peer: IpAddr,
    /// How.
    pub transport: Transport,
    /// What it presented.
    pub presented: Presented,
    /// What was decided.
    pub outcome: Outcome,
    /// What it was decided by.
    pub trace: Trace,
    /// How many more times the same thing happened within the minute.
    pub repeats: u32,
}

/// Text from outside: at most [`OutsideText::CHARS_MAX`] characters. What could move the cursor, turn the line round or
/// hide is escaped, and so is the backslash that escapes begin with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct OutsideText(String);

impl OutsideText {
    /// Most characters kept.
    pub const CHARS_MAX: usize = 128;

    /// Cuts and escapes `text`.
    pub fn new(text: &str) -> Self {
        let mut kept = String::new();
        for character in text.chars().take(Self::CHARS_MAX) {
            if character.is_control() || is_invisible(character) || character == '\\' {
                kept.extend(character.escape_default());
            } else {
                kept.push(character);
            }
        }
        if text.chars().nth(Self::CHARS_MAX).is_some() {
            kept.push('…');
        }
        Self(kept)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for OutsideText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Soft hyphens, zero-width characters, line separators and marks of direction.
const fn is_invisible(character: char) -> bool {
    matches!(
        character,
        '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
    )
}

/// What kind of credential a device presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Presented {
    /// None.
    Nothing,
    /// A client certificate.
    Certificate,
    /// A shared access signature.
    Signature,
}

impl Presented {
    /// What attestation goes by, of all that `evidence` holds.
    pub const fn of(evidence: &Evidence) -> Self {
        match (&evidence.token, &evidence.certificates) {
            (Some(_), _) => Self::Signature,
            (None, _) if evidence.unreadable.is_some() => Self::Signature,
            (None, None) if evidence.untaken.is_some() => Self::Certificate,
            (None, Some(_)) => Self::Certificate,
            (None, None) => Self::Nothing,
        }
    }
}

/// What was decided.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The device may be assigned; `operation` does it.
    Admitted {
        /// By which entry.
        by: EntryName,
        /// The operation that assigns it.
        operation: OperationId,
    },
    /// It may not.
    Refused {
        /// Why.
        cause: Cause,
        /// What failed, with its numbers.
        what: String,
        /// What would fix it.
        fix: String,
    },
}

impl Outcome {
    /// Says that the admitted device joined `running`, an operation that was under way.
    pub fn joins(&mut self, running: OperationId) {
        if let Self::Admitted { operation, .. } = self {
            *operation = running;
        }
    }

    /// A refusal: what failed, and what would fix it.
    pub fn refused(rejection: &Rejection) -> Self {
        Self::refused_because(rejection.cause(), rejection)
    }

    /// A refusal for `cause`: `what` failed.
    pub fn refused_because(cause: Cause, what: &impl fmt::Display) -> Self {
        Self::Refused { cause, what: what.to_string(), fix: cause.fix().to_owned() }
    }
}

/// What was looked at on the way to a decision. Bounded, whatever was presented.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Trace {
    /// The entries that were looked at, the one that decides first; at most [`Trace::CONSIDERED_MAX`].
    pub considered: Vec<Considered>,
    /// How many more were looked at.
    pub considered_left_off: u32,
    /// The certificates that were walked, leaf first.
    pub chain: Vec<ChainLink>,
    /// How many symmetric-key groups were tried.
    pub groups_tried: u32,
}

impl Trace {
    /// Most entries that are named.
    pub const CONSIDERED_MAX: usize = 32;

    /// Notes an entry that does not decide.
    pub fn consider(&mut self, entry: &EntryName, finding: Finding) {
        if self.considered.len() < Self::CONSIDERED_MAX {
            self.considered.push(Considered { entry: entry.clone(), finding });
        } else {
            self.considered_left_off = self.considered_left_off.saturating_add(1);
        }
    }

    /// Notes the entry that decides: it stands first, and is named however many others there are.
    pub fn decide(&mut self, entry: &EntryName, finding: Finding) {
        if self.considered.len() >= Self::CONSIDERED_MAX {
            self.considered.truncate(Self::CONSIDERED_MAX - 1);
            self.considered_left_off = self.considered_left_off.saturating_add(1);
        }
        self.considered.insert(0, Considered { entry: entry.clone(), finding });
    }
}

/// An entry that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Considered {
    /// Which.
    pub entry: EntryName,
    /// What was found about it.
    pub finding: Finding,
}

/// What was found about an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Finding {
    /// It admits the device.
    Admits,
    /// It refuses the device.
    Refuses(Cause),
    /// The device's chain does not lead to its certificates.
    NotOnPath,
    /// The device's chain leads to its certificates, and a nearer entry decides.
    Outranked,
}

/// A certificate that was walked.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ChainLink {
    /// Its subject.
    pub subject: OutsideText,
    /// Its issuer.
    pub issuer: OutsideText,
    /// SHA-256, upper-case hexadecimal.
    pub thumbprint: String,
    /// The last moment it holds.
    pub not_after: UnixTime,
    /// What was found about it.
    pub verdict: LinkVerdict,
}

impl ChainLink {
    /// What is told of `certificate`.
    pub fn new(certificate: &Certificate, verdict: LinkVerdict) -> Self {
        Self {
            subject: OutsideText::new(certificate.subject()),
            issuer: OutsideText::new(certificate.issuer()),
            thumbprint: certificate.sha256_hex(),
            not_after: certificate.not_after(),
            verdict,
        }
    }
}

/// What was found about a certificate that was walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkVerdict {
    /// It holds, and is signed by the next one if there is one.
    Holds,
    /// It holds, and is a CA certificate of the provisioning service whose possession is proved.
    Verified,
    /// It ends the path.
    Fails(Fault),
}

/// The fixed causes of a refusal. Their codes are part of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// No provisioning service has the ID scope, or not at the address dialled.
    WrongIdScope,
    /// The registration ID breaks the rules for one.
    InvalidRegistrationId,
    /// The protocol's own name of the client is not the registration ID, or cannot be read.
    WrongUserName,
    /// Nothing was presented.
    NoCredential,
    /// What was presented as a signature cannot be read.
    UnreadableSignature,
    /// The certificates that were presented are too many, too long or cannot be read.
    UnreadableCertificate,
    /// No entry could admit the device.
    NotEnrolled,
    /// The entry is disabled.
    DisabledEntry,
    /// The entry wants another kind of credential.
    WrongMechanism,
    /// The signature was made with another key.
    WrongKey,
    /// The signature is for another registration.
    WrongResource,
    /// The signature's time is over, or the certificate's has not come, by this server's clock.
    ClockSkew,
    /// A certificate of the chain has expired.
    ExpiredCertificate,
    /// The common name is not the registration ID, or not one.
    CommonNameDiffers,
    /// The certificate is not the one that the entry holds.
    WrongCertificate,
    /// The chain does not lead to a certificate that any entry holds.
    UnknownCa,
    /// The chain leads to a CA certificate whose possession is not proved.
    UnverifiedCa,
    /// The entry refers to a CA certificate that is not there.
    MissingCa,
    /// A certificate of the chain signed another and is no CA.
    NotACa,
    /// A certificate of the chain allows fewer CAs below it than there are.
    PathLength,
    /// A certificate of the chain may not sign for another reason, or its signature is wrong.
    InvalidChain,
}

impl Cause {
    /// All causes, for tables that must be complete.
    pub const ALL: [Self; 21] = [
        Self::WrongIdScope,
        Self::InvalidRegistrationId,
        Self::WrongUserName,
        Self::NoCredential,
        Self::UnreadableSignature,
        Self::UnreadableCertificate,
        Self::NotEnrolled,
        Self::DisabledEntry,
        Self::WrongMechanism,
        Self::WrongKey,
        Self::WrongResource,
        Self::ClockSkew,
        Self::ExpiredCertificate,
        Self::CommonNameDiffers,
        Self::WrongCertificate,
        Self::UnknownCa,
        Self::UnverifiedCa,
        Self::MissingCa,
        Self::NotACa,
        Self::PathLength,
        Self::InvalidChain,
    ];

    /// The fixed code.
    pub const fn code(self) -> &'static str {
        match self {
            Self::WrongIdScope => "wrong-id-scope",
            Self::InvalidRegistrationId => "invalid-registration-id",
            Self::NoCredential => "no-credential",
            Self::WrongUserName => "wrong-user-name",
            Self::UnreadableSignature => "unreadable-signature",
            Self::UnreadableCertificate => "unreadable-certificate",
            Self::NotEnrolled => "not-enrolled",
            Self::DisabledEntry => "disabled-entry",
            Self::WrongMechanism => "wrong-mechanism",
            Self::WrongKey => "wrong-key",
            Self::WrongResource => "wrong-resource",
            Self::ClockSkew => "clock-skew",
            Self::ExpiredCertificate => "expired-certificate",
            Self::CommonNameDiffers => "common-name-differs",
            Self::WrongCertificate => "wrong-certificate",
            Self::UnknownCa => "unknown-ca",
            Self::UnverifiedCa => "unverified-ca",
            Self::MissingCa => "missing-ca",
            Self::NotACa => "not-a-ca",
            Self::PathLength => "path-length",
            Self::InvalidChain => "invalid-chain",
        }
    }

    /// What an operator can do about it.
    pub const fn fix(self) -> &'static str {
        match self {
            Self::WrongIdScope => {
                "Give the device the ID scope that `muster dps list` shows, and the host that belongs to it."
            }
            Self::InvalidRegistrationId => {
                "Use letters, digits and - . _ : (at most 128), ending in a letter, a digit or a hyphen."
            }
            Self::NoCredential => "Give the device its certificate or key; check that its SDK sends it.",
            Self::UnreadableSignature => {
                "Send `SharedAccessSignature sr=…&sig=…&se=…`, each value escaped once, in one Authorization header."
            }
            Self::WrongUserName => {
                "Connect by the registration ID as client ID and `{ID scope}/registrations/{registration \
                 ID}/api-version=2019-03-31` as user name."
            }
            Self::UnreadableCertificate => {
                "Let the device send its X.509 certificate and its intermediates only: at most 10, 64 KiB together."
            }
            Self::NotEnrolled => "Enroll the device: `muster enrollment create` or `muster enrollment-group create`.",
            Self::DisabledEntry => "If the device may come back: `muster enrollment update … --status enabled`.",
            Self::WrongMechanism => "Let the device use the mechanism of its entry, or change the entry.",
            Self::WrongKey => {
                "Compare the device's key with `muster enrollment show … --show-keys`; for a group, derive it with \
                 `muster enrollment-group compute-device-key`."
            }
            Self::WrongResource => "The device signs for another ID scope or registration ID: check its settings.",
            Self::ClockSkew => "Set the device's clock (NTP), or make a signature that ends later.",
            Self::ExpiredCertificate => "Renew the certificate named above.",
            Self::CommonNameDiffers => "Issue the certificate with the registration ID as its one common name.",
            Self::WrongCertificate => "Put the device's certificate into its entry, as primary or secondary.",
            Self::UnknownCa => "Let the device send its intermediate certificates, or enroll the CA that signed them.",
            Self::UnverifiedCa => {
                "Prove possession: `muster certificate generate-verification-code`, then `muster certificate verify`."
            }
            Self::MissingCa => "Upload and verify the CA certificate under that name, or let the entry name another.",
            Self::NotACa => "Reissue the certificate named above with basicConstraints CA:TRUE.",
            Self::PathLength => "Reissue the certificate named above with a higher path length, or sign nearer to it.",
            Self::InvalidChain => {
                "Let the device send the certificates that really issued its own; reissue the one named above."
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::maker::Plan;
    use crate::ids::EnrollmentGroupId;

    #[test]
    fn every_cause_has_a_code_that_its_stored_form_repeats() {
        let mut codes: Vec<_> = Cause::ALL.iter().map(|cause| cause.code()).collect();
        for cause in Cause::ALL {
            assert_eq!(serde_json::to_string(&cause).unwrap(), format!("{:?}", cause.code()));
            assert!(cause.fix().ends_with('.'));
        }
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Cause::ALL.len());
    }

    #[test]
    fn text_from_outside_is_cut_and_escaped() {
        let cases: &[(&str, &str)] = &[
            ("dev\u{1b}[31m\n", "dev\\u{1b}[31m\\n"),
            ("\u{202e}evil\u{200b}", "\\u{202e}evil\\u{200b}"),
            ("back\\slash", "back\\\\slash"),
            ("käse", "käse"),
        ];
        for (text, kept) in cases {
            assert_eq!(OutsideText::new(text).as_str(), *kept);
        }
        assert_eq!(OutsideText::new(&"é".repeat(200)).as_str().chars().count(), OutsideText::CHARS_MAX + 1);
    }

    fn group(name: &str) -> EntryName {
        EntryName::Group(EnrollmentGroupId::parse(name).unwrap())
    }

    #[test]
    fn the_list_of_entries_is_bounded_and_never_loses_the_one_that_decides() {
        let mut trace = Trace::default();
        for number in 0..Trace::CONSIDERED_MAX + 5 {
            trace.consider(&group(&format!("group-{number}")), Finding::NotOnPath);
        }
        trace.decide(&group("decides"), Finding::Admits);
        assert_eq!((trace.considered.len(), trace.considered_left_off), (Trace::CONSIDERED_MAX, 6));
        assert_eq!(trace.considered[0], Considered { entry: group("decides"), finding: Finding::Admits });
    }

    #[test]
    fn a_decision_survives_storage() {
        let certificate = Plan::leaf("dev-1").self_signed().certificate;
        let mut trace = Trace { groups_tried: 4, ..Trace::default() };
        trace.consider(&group("caves"), Finding::Refuses(Cause::PathLength));
        trace.chain.push(ChainLink::new(&certificate, LinkVerdict::Verified));
        trace.chain.push(ChainLink::new(&certificate, LinkVerdict::Fails(Fault::PathLength { limit: 1 })));
        let operation = OperationId::parse("5.316aac5bdc130deb.b1e02da8-0000-4000-8000-000000000000").unwrap();
        let refused = Outcome::refused(&Rejection::NotEnrolled);
        for outcome in [refused, Outcome::Admitted { by: group("caves"), operation }] {
            let decision = Decision {
                tracking: TrackingId::from_bits(7),
                at: UnixTime::from_seconds(1),
                service: Some(ServiceKey(1)),
                id_scope: OutsideText::new("0ne"),
                registration_id: OutsideText::new("dev\\\u{7}"),
                peer: [127, 0, 0, 1].into(),
                transport: Transport::Mqtt,
                presented: Presented::Certificate,
                outcome,
                trace: trace.clone(),
                repeats: 3,
            };
            let text = serde_json::to_string(&decision).unwrap();
            assert_eq!(serde_json::from_str::<Decision>(&text).unwrap(), decision);
        }
    }
}
