//! Takes DER, PEM and base64 apart. Judges nothing beyond what is needed to find the parts.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use x509_parser::certificate::{X509Certificate, X509CertificateParser};
use x509_parser::extensions::{BasicConstraints as Constraints, KeyUsage};
use x509_parser::nom::Parser as _;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_NIST_EC_P521, OID_PKCS1_RSAENCRYPTION,
    OID_X509_EXT_BASIC_CONSTRAINTS, OID_X509_EXT_CERTIFICATE_POLICIES, OID_X509_EXT_EXTENDED_KEY_USAGE,
    OID_X509_EXT_KEY_USAGE, Oid,
};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::RSAPublicKey;
use x509_parser::x509::{AttributeTypeAndValue, SubjectPublicKeyInfo, X509Name};

use super::signature::SignatureAlgorithm;
use super::verified::Verified;
use super::{BasicConstraints, Certificate, CommonName, Contents, InvalidCertificate, Parts, PublicKey};
use crate::clock::UnixTime;
use crate::sas::sha256;

pub(super) const PEM_BEGIN: &str = "-----BEGIN CERTIFICATE-----";
pub(super) const PEM_END: &str = "-----END CERTIFICATE-----";

/// Longest name kept as text, in bytes; the encoding itself is kept whole.
const NAME_BYTES_MAX: usize = 512;

pub(super) fn first_pem_block(text: &str) -> Result<Vec<u8>, InvalidCertificate> {
    pem_blocks(text, 1)?.pop().ok_or(InvalidCertificate::Empty)
}

/// The first `limit` certificates of a PEM text. What stands before, between and behind them is passed over.
pub(super) fn pem_blocks(text: &str, limit: usize) -> Result<Vec<Vec<u8>>, InvalidCertificate> {
    let mut blocks = Vec::new();
    let mut rest = text;
    while blocks.len() < limit {
        let Some((_, behind)) = rest.split_once(PEM_BEGIN) else { break };
        let (body, behind) = behind.split_once(PEM_END).ok_or(InvalidCertificate::Encoding)?;
        blocks.push(decode_base64(body)?);
        rest = behind;
    }
    Ok(blocks)
}

/// Base64, broken into lines or not.
pub(super) fn decode_base64(text: &str) -> Result<Vec<u8>, InvalidCertificate> {
    let packed: String = text.split_ascii_whitespace().collect();
    if packed.is_empty() {
        return Err(InvalidCertificate::Empty);
    }
    STANDARD.decode(packed).map_err(|_| InvalidCertificate::Encoding)
}

pub(super) fn contents(der: &[u8]) -> Result<Contents, InvalidCertificate> {
    // Extensions are read one by one below: a malformed one that nobody needs must not make the rest unreadable.
    let mut parser = X509CertificateParser::new().with_deep_parse_extensions(false);
    let (behind, parsed) = parser.parse(der).map_err(|_| InvalidCertificate::Malformed)?;
    if !behind.is_empty() {
        return Err(InvalidCertificate::Malformed);
    }
    let key = parsed.public_key();
    Ok(Contents {
        der: der.into(),
        sha1: sha1(der),
        sha256: sha256(der),
        subject_key_hash: sha256(key.raw),
        subject: name_text(parsed.subject()),
        issuer: name_text(parsed.issuer()),
        common_name: common_name(parsed.subject()),
        not_before: UnixTime::from_seconds(parsed.validity().not_before.timestamp()),
        not_after: UnixTime::from_seconds(parsed.validity().not_after.timestamp()),
        version: parsed.version().0.saturating_add(1),
        basic_constraints: basic_constraints(&parsed),
        may_sign_certificates: may_sign_certificates(&parsed),
        has_unhandled_critical_extension: has_unhandled_critical_extension(&parsed),
        public_key: public_key(key),
        algorithm: algorithm(&parsed),
        parts: parts(der, &parsed).ok_or(InvalidCertificate::Malformed)?,
        verified: Verified::default(),
    })
}

fn sha1(bytes: &[u8]) -> [u8; 20] {
    let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, bytes);
    digest.as_ref().try_into().expect("SHA-1 gives 20 bytes")
}

fn name_text(name: &X509Name<'_>) -> Box<str> {
    let mut text = name.to_string();
    if text.len() > NAME_BYTES_MAX {
        text.truncate(text.floor_char_boundary(NAME_BYTES_MAX));
        text.push('…');
    }
    text.into()
}

fn common_name(subject: &X509Name<'_>) -> CommonName {
    let mut names = subject.iter_common_name();
    match (names.next().map(AttributeTypeAndValue::as_str), names.next()) {
        (Some(Ok(name)), None) => CommonName::One(name.into()),
        _ => CommonName::NotOne,
    }
}

/// An extension that is there more than once, which the standard forbids (RFC 5280, section 4.2).
struct Repeated;

/// The value of the one extension of this kind, if it is there.
fn extension<'a>(parsed: &'a X509Certificate<'_>, oid: &Oid<'_>) -> Result<Option<&'a [u8]>, Repeated> {
    let mut found = parsed.extensions().iter().filter(|extension| extension.oid == *oid);
    let first = found.next();
    if found.next().is_some() { Err(Repeated) } else { Ok(first.map(|extension| extension.value)) }
}

fn basic_constraints(parsed: &X509Certificate<'_>) -> BasicConstraints {
    match extension(parsed, &OID_X509_EXT_BASIC_CONSTRAINTS).map(|value| value.map(Constraints::from_der)) {
        Ok(None) => BasicConstraints::Absent,
        Ok(Some(Ok((_, Constraints { ca: true, path_len_constraint })))) => {
            BasicConstraints::Authority { path_length: path_len_constraint }
        }
        Ok(Some(_)) | Err(Repeated) => BasicConstraints::EndEntity,
    }
}

fn may_sign_certificates(parsed: &X509Certificate<'_>) -> Option<bool> {
    match extension(parsed, &OID_X509_EXT_KEY_USAGE) {
        Ok(None) => None,
        Ok(Some(value)) => Some(KeyUsage::from_der(value).is_ok_and(|(_, usage)| usage.key_cert_sign())),
        Err(Repeated) => Some(false),
    }
}

fn has_unhandled_critical_extension(parsed: &X509Certificate<'_>) -> bool {
    // Certificate policies bind nobody here: no policy is asked for (RFC 5280, section 6.1.1, any-policy).
    let handled = [
        OID_X509_EXT_BASIC_CONSTRAINTS,
        OID_X509_EXT_KEY_USAGE,
        OID_X509_EXT_EXTENDED_KEY_USAGE,
        OID_X509_EXT_CERTIFICATE_POLICIES,
    ];
    parsed.extensions().iter().any(|extension| extension.critical && !handled.contains(&extension.oid))
}

fn public_key(key: &SubjectPublicKeyInfo<'_>) -> PublicKey {
    if key.algorithm.algorithm == OID_PKCS1_RSAENCRYPTION {
        return match RSAPublicKey::from_der(&key.subject_public_key.data) {
            Ok((_, key)) => PublicKey::Rsa { bits: bit_length(key.modulus) },
            Err(_) => PublicKey::Other,
        };
    }
    if key.algorithm.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY {
        return PublicKey::Other;
    }
    match key.algorithm.parameters.as_ref().and_then(|curve| curve.as_oid().ok()) {
        Some(curve) if curve == OID_EC_P256 => PublicKey::P256,
        Some(curve) if curve == OID_NIST_EC_P384 => PublicKey::P384,
        Some(curve) if curve == OID_NIST_EC_P521 => PublicKey::P521,
        _ => PublicKey::Other,
    }
}

fn bit_length(number: &[u8]) -> usize {
    let leading = number.iter().take_while(|&&byte| byte == 0).count();
    let digits = number.get(leading..).unwrap_or_default();
    digits.first().map_or(0, |first| digits.len() * 8 - first.leading_zeros() as usize)
}

/// The algorithm named outside of what is signed counts only if the same stands inside (RFC 5280, section 4.1.1.2).
fn algorithm(parsed: &X509Certificate<'_>) -> Option<SignatureAlgorithm> {
    (parsed.signature_algorithm == parsed.tbs_certificate.signature)
        .then(|| SignatureAlgorithm::parse(&parsed.signature_algorithm))
        .flatten()
}

fn parts(der: &[u8], parsed: &X509Certificate<'_>) -> Option<Parts> {
    let locate = |part: &[u8]| {
        let start = part.as_ptr().addr().checked_sub(der.as_ptr().addr())?;
        let range = start..start.checked_add(part.len())?;
        (der.get(range.clone())? == part).then_some(range)
    };
    Some(Parts {
        signed: locate(parsed.tbs_certificate.as_ref())?,
        signature: locate(&parsed.signature_value.data)?,
        key: locate(&parsed.public_key().subject_public_key.data)?,
        serial: locate(parsed.raw_serial())?,
        subject: locate(parsed.subject().as_raw())?,
        issuer: locate(parsed.issuer().as_raw())?,
    })
}

impl std::str::FromStr for Certificate {
    type Err = InvalidCertificate;
    fn from_str(text: &str) -> Result<Self, InvalidCertificate> {
        Self::from_upload(text)
    }
}
