//! CA certificates of hubs and provisioning services, and the proof that whoever uploads one holds its key.
//!
//! Whether chains may lead to a certificate is decided by [`CaCertificate::verified`] alone. Start at
//! [`CaCertificate::prove`].

use std::time::Duration;

use crate::certificate::Certificate;
use crate::clock::{Entropy, UnixTime, random};
use crate::ids::{CertificateName, Etag};

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
    /// How far ahead the clock may run that dated a proof: it is usually minted a moment before it is shown.
    const CLOCK_SKEW: Duration = Duration::from_mins(5);

    /// An uploaded certificate. `vouched` skips the proof of possession. Etags are the store's to give.
    pub fn upload(name: CertificateName, certificate: Certificate, vouched: bool, now: UnixTime) -> Self {
        Self {
            name,
            certificate,
            verified: vouched,
            verification_code: None,
            created_at: now,
            updated_at: now,
            etag: Etag::from_number(0),
        }
    }

    /// This record with another upload in its place. A proof holds for the certificate that it was given for, and for no
    /// other.
    pub fn replaced_by(self, upload: Self) -> Self {
        let is_same = self.certificate == upload.certificate;
        Self {
            verified: upload.verified || (is_same && self.verified),
            verification_code: self.verification_code.filter(|_| is_same),
            created_at: self.created_at,
            ..upload
        }
    }

    /// Gives the certificate a fresh verification code: 48 hexadecimal digits. The code before it ends; what was proved
    /// stays proved, so that looking for a code cuts nobody off.
    pub fn ask_for_proof(&mut self, entropy: &dyn Entropy, now: UnixTime) {
        self.verification_code = Some(hex::encode_upper(random::<24>(entropy)));
        self.updated_at = now;
    }

    /// Takes `proof`: a certificate that this CA signed and whose common name is the code. The code is used up by it.
    pub fn prove(&mut self, proof: &Certificate, now: UnixTime) -> Result<(), NotProved> {
        let code = self.verification_code.as_deref().ok_or(NotProved::NoCode)?;
        if !proof.common_name().is_some_and(|name| name.eq_ignore_ascii_case(code)) {
            return Err(NotProved::Code);
        }
        if !proof.is_signed_by(&self.certificate) {
            return Err(NotProved::Signature);
        }
        if proof.is_early(now.plus(Self::CLOCK_SKEW)) || proof.is_expired(now) {
            return Err(NotProved::Dates);
        }
        self.verified = true;
        self.verification_code = None;
        self.updated_at = now;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::maker::{Made, NOON, Plan};
    use crate::clock::SeededEntropy;

    #[test]
    fn possession_is_proved_by_a_certificate_that_the_ca_signed_for_the_code() {
        let ca = Plan::authority("Cheesecave Root").self_signed();
        let other = Plan::authority("Cheesecave Root").self_signed();
        let mut record = uploaded(&ca);
        record.ask_for_proof(&SeededEntropy::new(1), NOON);
        let code = record.verification_code.clone().unwrap();
        assert!(code.len() == 48 && code.bytes().all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_lowercase()));

        let cases: &[(&str, Made, Result<(), NotProved>)] = &[
            ("the code", Plan::leaf(&code).signed_by(&ca), Ok(())),
            ("the code in small letters", Plan::leaf(&code.to_lowercase()).signed_by(&ca), Ok(())),
            ("another name", Plan::leaf("verification").signed_by(&ca), Err(NotProved::Code)),
            ("another CA of that name", Plan::leaf(&code).signed_by(&other), Err(NotProved::Signature)),
            ("itself", Plan::leaf(&code).self_signed(), Err(NotProved::Signature)),
            ("expired", Plan::leaf(&code).years(2024, 2025).signed_by(&ca), Err(NotProved::Dates)),
            ("of next year", Plan::leaf(&code).years(2027, 2028).signed_by(&ca), Err(NotProved::Dates)),
        ];
        for (name, proof, expected) in cases {
            let mut record = record.clone();
            assert_eq!(record.prove(&proof.certificate, NOON), *expected, "{name}");
            assert_eq!(record.verified, expected.is_ok(), "{name}");
            assert_eq!(record.verification_code.is_some(), expected.is_err(), "{name}");
        }
    }

    #[test]
    fn a_proof_may_come_from_a_clock_that_runs_ahead() {
        let ca = Plan::authority("root").self_signed();
        let mut record = uploaded(&ca);
        record.ask_for_proof(&SeededEntropy::new(1), NOON);
        let proof = Plan::leaf(record.verification_code.as_deref().unwrap()).signed_by(&ca).certificate;
        let at = |seconds: u64| proof.not_before().minus(Duration::from_secs(seconds));
        assert_eq!(record.clone().prove(&proof, at(301)), Err(NotProved::Dates));
        assert_eq!(record.prove(&proof, at(300)), Ok(()));
    }

    #[test]
    fn a_code_ends_the_one_before_and_is_used_once() {
        let ca = Plan::authority("root").self_signed();
        let mut record = uploaded(&ca);
        assert_eq!(record.prove(&ca.certificate, NOON), Err(NotProved::NoCode));
        record.ask_for_proof(&SeededEntropy::new(1), NOON);
        let old = Plan::leaf(record.verification_code.as_deref().unwrap()).signed_by(&ca).certificate;
        record.ask_for_proof(&SeededEntropy::new(2), NOON);
        assert_eq!(record.prove(&old, NOON), Err(NotProved::Code));
        let fresh = Plan::leaf(record.verification_code.as_deref().unwrap()).signed_by(&ca).certificate;
        assert_eq!(record.prove(&fresh, NOON), Ok(()));
        assert_eq!(record.prove(&fresh, NOON), Err(NotProved::NoCode));

        record.ask_for_proof(&SeededEntropy::new(3), NOON);
        assert!(record.verified);
    }

    #[test]
    fn another_upload_must_be_proved_again_and_the_same_need_not() {
        let (ca, other) = (Plan::authority("root").self_signed(), Plan::authority("root").self_signed());
        let later = NOON.plus(Duration::from_hours(1));
        let verified = CaCertificate { verified: true, verification_code: Some("C0DE".to_owned()), ..uploaded(&ca) };
        let upload = |made: &Made, vouched| {
            CaCertificate::upload(verified.name.clone(), made.certificate.clone(), vouched, later)
        };
        let cases = [
            ("the same", upload(&ca, false), true, Some("C0DE")),
            ("another", upload(&other, false), false, None),
            ("another that is vouched for", upload(&other, true), true, None),
        ];
        for (name, upload, still_verified, code) in cases {
            let replaced = verified.clone().replaced_by(upload);
            assert_eq!((replaced.verified, replaced.verification_code.as_deref()), (still_verified, code), "{name}");
            assert_eq!((replaced.created_at, replaced.updated_at), (NOON, later), "{name}");
        }
    }

    fn uploaded(made: &Made) -> CaCertificate {
        CaCertificate::upload(CertificateName::parse("ca").unwrap(), made.certificate.clone(), false, NOON)
    }
}
