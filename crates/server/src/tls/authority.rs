//! The instance CA: the one trust anchor of a Muster, and the leaf certificates it issues.
//!
//! It makes or loads the CA in the data folder and signs server leaves. It must never sign for anybody else: device
//! certificates come from `muster ca` or from the operator. The root carries no name constraints, because addresses and
//! domains may be added during its twenty years. Start reading at [`Authority::open`].

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use domain::clock::{Entropy, UnixTime, random};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, SerialNumber, date_time_ymd, string::Ia5String,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::key_file::{KeyFileError, KeyFolder};
use crate::names::CertificateNames;

/// How long the CA is valid: twenty years.
pub const AUTHORITY_LIFETIME: Duration = Duration::from_hours(20 * 365 * 24);

/// How long a leaf is valid, the backdating included: the most that current clients take from any CA.
pub const LEAF_LIFETIME: Duration = Duration::from_hours(397 * 24);

/// How long before its end a leaf is replaced.
pub const LEAF_RENEWAL: Duration = Duration::from_hours(60 * 24);

/// How far certificates are dated back, for devices whose clocks are behind.
pub const BACKDATING: Duration = Duration::from_hours(24);

/// The file that clients are given.
pub const CERTIFICATE_FILE: &str = "ca.pem";

/// The CA's private key, readable by its owner only.
pub const KEY_FILE: &str = "ca.key";

/// The longest common name (RFC 5280, appendix A.1, `ub-common-name`).
const COMMON_NAME_CHARS_MAX: usize = 64;

/// Why the CA cannot be used. Each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file of the CA cannot be read or written.
    #[error(transparent)]
    File(#[from] KeyFileError),
    /// The certificate is there and its key is not.
    #[error(
        "{certificate} is there but its key {key} is not: restore the key, or remove the certificate so that both \
             are made again (every client then needs the new {CERTIFICATE_FILE})"
    )]
    KeyMissing { certificate: PathBuf, key: PathBuf },
    /// The certificate does not parse, or is no CA.
    #[error("{path} is not a CA certificate in PEM form: {reason}")]
    Unreadable { path: PathBuf, reason: String },
    /// Certificate and key belong to different CAs.
    #[error("{certificate} was not made for the key in {key}: restore the pair from one backup")]
    Mismatch { certificate: PathBuf, key: PathBuf },
    /// The CA is not valid at this moment by this machine's clock.
    #[error(
        "the CA in {path} is valid from {from_s} to {until_s} (seconds since 1970) and the clock says {now_s}: set \
             the clock, or remove the CA so that it is made again"
    )]
    OutOfDate { path: PathBuf, from_s: i64, until_s: i64, now_s: i64 },
    /// The cryptographic library refused.
    #[error("the CA cannot sign")]
    Crypto(#[from] rcgen::Error),
}

/// The instance CA with its key.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    not_after: UnixTime,
}

/// A leaf certificate as issued.
pub struct IssuedLeaf {
    /// The certificate; the CA itself is not sent, since clients hold it already.
    pub certificate: CertificateDer<'static>,
    /// When it should be replaced.
    pub renew_at: UnixTime,
}

impl Authority {
    /// Loads the CA of `folder`, making it first if the folder has none.
    ///
    /// The key is written before the certificate. A key without a certificate is what a crash in between leaves; the
    /// certificate is then made for that key.
    pub fn open(folder: &KeyFolder, now: UnixTime, entropy: &dyn Entropy) -> Result<Self, AuthorityError> {
        let certificate_path = folder.path(CERTIFICATE_FILE);
        let key = match (folder.read_key(KEY_FILE)?, certificate_path.exists()) {
            (Some(key), _) => key,
            (None, true) => {
                return Err(AuthorityError::KeyMissing { certificate: certificate_path, key: folder.path(KEY_FILE) });
            }
            (None, false) => {
                let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
                folder.write_key(KEY_FILE, &key)?;
                key
            }
        };
        let pem = if let Some(pem) = folder.read_public(CERTIFICATE_FILE)? {
            pem
        } else {
            let pem = make_certificate(&key, now, entropy)?;
            folder.write_public(CERTIFICATE_FILE, &pem)?;
            pem
        };
        Self::from_parts(pem, key, &certificate_path, &folder.path(KEY_FILE), now)
    }

    /// A CA that lives in memory only, for `--memory` and for tests.
    pub fn in_memory(now: UnixTime, entropy: &dyn Entropy) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let pem = make_certificate(&key, now, entropy)?;
        let nowhere = Path::new("(memory)");
        Self::from_parts(pem, key, nowhere, nowhere, now)
    }

    /// The CA certificate in PEM form: what clients must trust.
    pub fn certificate_pem(&self) -> &str {
        &self.pem
    }

    /// Issues a leaf for `names` and the public half of `key`.
    pub fn issue(
        &self,
        names: &CertificateNames,
        key: &KeyPair,
        now: UnixTime,
        entropy: &dyn Entropy,
    ) -> Result<IssuedLeaf, rcgen::Error> {
        let not_before = now.minus(BACKDATING);
        let not_after = not_before.plus(LEAF_LIFETIME).min(self.not_after);
        let mut params = CertificateParams::default();
        params.subject_alt_names = subject_alt_names(names)?;
        params.distinguished_name = common_name(names.first());
        set_validity(&mut params, not_before, not_after);
        params.serial_number = Some(serial_number(entropy));
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(key, &self.issuer)?;
        Ok(IssuedLeaf { certificate: certificate.der().clone(), renew_at: not_after.minus(LEAF_RENEWAL) })
    }

    fn from_parts(
        pem: String,
        key: KeyPair,
        certificate_path: &Path,
        key_path: &Path,
        now: UnixTime,
    ) -> Result<Self, AuthorityError> {
        let unreadable = |reason: String| AuthorityError::Unreadable { path: certificate_path.to_path_buf(), reason };
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| unreadable(error.to_string()))?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).map_err(|error| unreadable(error.to_string()))?;
        if !parsed.is_ca() {
            return Err(unreadable("basicConstraints does not say CA".into()));
        }
        if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return Err(AuthorityError::Mismatch {
                certificate: certificate_path.to_path_buf(),
                key: key_path.to_path_buf(),
            });
        }
        let (from_s, until_s) = (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp());
        if !(from_s..=until_s).contains(&now.seconds()) {
            let path = certificate_path.to_path_buf();
            return Err(AuthorityError::OutOfDate { path, from_s, until_s, now_s: now.seconds() });
        }
        let issuer = Issuer::from_ca_cert_der(&der, key)?;
        Ok(Self { issuer, pem, not_after: UnixTime::from_seconds(until_s) })
    }
}

fn make_certificate(key: &KeyPair, now: UnixTime, entropy: &dyn Entropy) -> Result<String, rcgen::Error> {
    let not_before = now.minus(BACKDATING);
    // Part of the name is unguessable, so that the CAs of two instances stay apart in one trust store.
    let suffix = u32::from_be_bytes(random(entropy));
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(&format!("Muster instance CA {suffix:08x}"));
    set_validity(&mut params, not_before, not_before.plus(AUTHORITY_LIFETIME));
    params.serial_number = Some(serial_number(entropy));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params.self_signed(key)?.pem())
}

/// Every name once; an address literal both as iPAddress and as dNSName, because OpenSSL-based clients compare the text
/// they dialled with the DNS names and refuse a certificate that has addresses only.
fn subject_alt_names(names: &CertificateNames) -> Result<Vec<SanType>, rcgen::Error> {
    let mut alternatives = Vec::new();
    for name in names.iter() {
        if let Ok(address) = name.parse::<IpAddr>() {
            alternatives.push(SanType::IpAddress(address));
        }
        alternatives.push(SanType::DnsName(Ia5String::try_from(name)?));
    }
    Ok(alternatives)
}

fn common_name(text: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if text.chars().count() <= COMMON_NAME_CHARS_MAX {
        name.push(DnType::CommonName, text);
    }
    name
}

/// Sixteen random bytes of a positive number. Set by hand because rcgen derives it from the key, which RSA leaves share.
fn serial_number(entropy: &dyn Entropy) -> SerialNumber {
    let [first, rest @ ..] = random::<16>(entropy);
    let mut bytes = vec![first & 0x3f | 0x40];
    bytes.extend(rest);
    SerialNumber::from(bytes)
}

/// Sets both ends in whole seconds; a clock that stands before 1970 counts as 1970.
fn set_validity(params: &mut CertificateParams, not_before: UnixTime, not_after: UnixTime) {
    let since_epoch = |at: UnixTime| Duration::from_secs(u64::try_from(at.seconds()).unwrap_or(0));
    params.not_before = date_time_ymd(1970, 1, 1) + since_epoch(not_before);
    params.not_after = date_time_ymd(1970, 1, 1) + since_epoch(not_after);
}
