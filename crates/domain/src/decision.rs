//! The trace of a decision: what was considered, what matched, what failed, and what would fix it.
//!
//! Every admit and every refusal leaves one, found by its tracking ID. Text that came from outside is bounded when it is
//! taken in and escaped when it is shown. Start at [`Decision`].

use std::net::IpAddr;

use crate::clock::UnixTime;
use crate::enrollment::EntryName;
use crate::ids::{OperationId, ServiceKey, TrackingId};
use crate::operation::Transport;

/// Why a device was admitted or refused.
#[derive(Clone, Debug, PartialEq)]
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
    /// The entries that were looked at, in that order.
    pub considered: Vec<Considered>,
    /// The certificates that were walked, leaf first.
    pub chain: Vec<ChainLink>,
    /// How many symmetric-key groups were tried.
    pub groups_tried: u32,
    /// How many more times the same thing happened within the minute.
    pub repeats: u32,
}

/// Text from outside: at most [`OutsideText::CHARS_MAX`] characters, control characters escaped.
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
            if character.is_control() {
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

/// What was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// An entry that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Considered {
    /// Which.
    pub entry: EntryName,
    /// `None` if it admitted, else why it did not.
    pub rejected: Option<Cause>,
    /// In words.
    pub detail: String,
}

/// A certificate that was walked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainLink {
    /// Its subject.
    pub subject: OutsideText,
    /// Its issuer.
    pub issuer: OutsideText,
    /// SHA-256, upper-case hexadecimal.
    pub thumbprint: String,
    /// The last moment it holds.
    pub not_after: UnixTime,
}

/// The fixed causes of a refusal. Their codes are part of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// No provisioning service has the ID scope, or not at the address dialled.
    WrongIdScope,
    /// The registration ID breaks the rules for one.
    InvalidRegistrationId,
    /// Nothing was presented.
    NoCredential,
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
    /// A certificate of the chain may not sign, or its signature is wrong.
    InvalidChain,
}

impl Cause {
    /// All causes, for tables that must be complete.
    pub const ALL: [Self; 15] = [
        Self::WrongIdScope,
        Self::InvalidRegistrationId,
        Self::NoCredential,
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
        Self::InvalidChain,
    ];

    /// The fixed code.
    pub const fn code(self) -> &'static str {
        match self {
            Self::WrongIdScope => "wrong-id-scope",
            Self::InvalidRegistrationId => "invalid-registration-id",
            Self::NoCredential => "no-credential",
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
            Self::InvalidChain => "Reissue the certificate named above: it must be a CA to sign others.",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(OutsideText::new("dev\u{1b}[31m\n").as_str(), "dev\\u{1b}[31m\\n");
        assert_eq!(OutsideText::new(&"é".repeat(200)).as_str().chars().count(), OutsideText::CHARS_MAX + 1);
    }
}
