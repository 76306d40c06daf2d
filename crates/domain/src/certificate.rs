//! X.509 certificates: read once, then asked. Chains of them, built up to an anchor that the caller names.
//!
//! Reading judges nothing: version 1 certificates, odd serial numbers and unknown extensions are all read, since whoever
//! refuses a certificate must be able to say which it was. What holds between certificates is judged in [`chain`].
//! Nothing here trusts a certificate because it was presented. Start at [`Certificate`] and [`chain::Web`].

pub mod chain;
#[cfg(test)]
pub(crate) mod maker;
mod read;
mod signature;
mod verified;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::clock::UnixTime;

pub use chain::{Chain, ChainFailure, Fault, InvalidChain, PresentedChain, build_chain};
use signature::SignatureAlgorithm;
use verified::Verified;

/// A certificate that could be read. Cheap to clone; equal if the encoding is.
#[derive(Clone)]
pub struct Certificate(Arc<Contents>);

/// Why bytes are not a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCertificate {
    /// There is nothing.
    #[error("there is no certificate")]
    Empty,
    /// Longer than [`Certificate::BYTES_MAX`], or an upload longer than [`Certificate::UPLOAD_BYTES_MAX`].
    #[error("the certificate is longer than {} bytes", Certificate::BYTES_MAX)]
    TooLong,
    /// Neither PEM nor base64.
    #[error("the certificate is neither PEM nor base64 of DER")]
    Encoding,
    /// Not the DER of a certificate.
    #[error("the bytes are not an X.509 certificate in DER")]
    Malformed,
}

#[derive(Debug)]
struct Contents {
    der: Box<[u8]>,
    sha1: [u8; 20],
    sha256: [u8; 32],
    subject_key_hash: [u8; 32],
    subject: Box<str>,
    issuer: Box<str>,
    common_name: CommonName,
    not_before: UnixTime,
    not_after: UnixTime,
    version: u32,
    basic_constraints: BasicConstraints,
    may_sign_certificates: Option<bool>,
    has_unhandled_critical_extension: bool,
    public_key: PublicKey,
    algorithm: Option<SignatureAlgorithm>,
    parts: Parts,
    verified: Verified,
}

/// Where the parts lie that later checks need, as ranges of the DER.
#[derive(Clone, Debug)]
struct Parts {
    signed: Range<usize>,
    signature: Range<usize>,
    key: Range<usize>,
    serial: Range<usize>,
    subject: Range<usize>,
    issuer: Range<usize>,
}

/// The common names of a subject: a device's certificate has exactly one.
#[derive(Clone, Debug, PartialEq, Eq)]
enum CommonName {
    One(Box<str>),
    NotOne,
}

/// What a certificate says about signing others (RFC 5280, section 4.2.1.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BasicConstraints {
    /// The extension is not there, as in every version 1 certificate.
    Absent,
    /// It is there and says that the subject is no authority, or is there twice, or cannot be read.
    EndEntity,
    /// The subject is an authority.
    Authority {
        /// How many further authorities may stand between it and an end entity.
        path_length: Option<u32>,
    },
}

/// The kind of a public key, as far as it matters who may sign with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublicKey {
    /// RSA with a modulus of so many bits.
    Rsa {
        /// Bits of the modulus.
        bits: usize,
    },
    /// ECDSA on P-256.
    P256,
    /// ECDSA on P-384.
    P384,
    /// ECDSA on P-521.
    P521,
    /// Anything else: may belong to a leaf, never to an issuer.
    Other,
}

impl PublicKey {
    /// Fewest bits of an issuer's RSA modulus.
    pub const RSA_BITS_MIN: usize = 2_048;
    /// Most bits of an issuer's RSA modulus; more would let a stranger make us work.
    pub const RSA_BITS_MAX: usize = 4_096;

    /// Whether an issuer may have a key of this kind (`rules.md` 27).
    pub const fn may_issue(self) -> bool {
        match self {
            Self::Rsa { bits } => bits >= Self::RSA_BITS_MIN && bits <= Self::RSA_BITS_MAX,
            Self::P256 | Self::P384 | Self::P521 => true,
            Self::Other => false,
        }
    }
}

impl Certificate {
    /// Most bytes of one certificate in DER.
    pub const BYTES_MAX: usize = 16 * 1_024;
    /// Most bytes of an uploaded text, which may hold a chain of which the first is taken.
    pub const UPLOAD_BYTES_MAX: usize = 128 * 1_024;

    /// Reads DER; nothing may follow.
    pub fn from_der(der: &[u8]) -> Result<Self, InvalidCertificate> {
        if der.is_empty() {
            return Err(InvalidCertificate::Empty);
        }
        if der.len() > Self::BYTES_MAX {
            return Err(InvalidCertificate::TooLong);
        }
        read::contents(der).map(|contents| Self(Arc::new(contents)))
    }

    /// Reads the content of a file: PEM, of which the first certificate is taken, or DER.
    pub fn from_pem_or_der(bytes: &[u8]) -> Result<Self, InvalidCertificate> {
        if bytes.len() > Self::UPLOAD_BYTES_MAX {
            return Err(InvalidCertificate::TooLong);
        }
        match std::str::from_utf8(bytes) {
            Ok(text) if text.contains(read::PEM_BEGIN) => Self::from_der(&read::first_pem_block(text)?),
            _ => Self::from_der(bytes),
        }
    }

    /// Reads what clients put into a JSON string: PEM text, base64 of DER, or base64 of PEM text
    /// (`contract/dps-service.md 3.3`).
    pub fn from_upload(text: &str) -> Result<Self, InvalidCertificate> {
        if text.len() > Self::UPLOAD_BYTES_MAX {
            return Err(InvalidCertificate::TooLong);
        }
        if text.contains(read::PEM_BEGIN) {
            return Self::from_pem_or_der(text.as_bytes());
        }
        Self::from_pem_or_der(&read::decode_base64(text)?)
    }

    /// Reads every certificate of a PEM text, in its order, at most [`PresentedChain::CERTIFICATES_MAX`].
    pub fn list_from_pem(text: &str) -> Result<Vec<Self>, InvalidCertificate> {
        if text.len() > Self::UPLOAD_BYTES_MAX {
            return Err(InvalidCertificate::TooLong);
        }
        let blocks = read::pem_blocks(text, PresentedChain::CERTIFICATES_MAX)?;
        if blocks.is_empty() {
            return Err(InvalidCertificate::Empty);
        }
        blocks.iter().map(|der| Self::from_der(der)).collect()
    }

    /// The encoding.
    pub fn der(&self) -> &[u8] {
        &self.0.der
    }

    /// The encoding as PEM text, lines of 64 characters.
    pub fn pem(&self) -> String {
        const LINE: usize = 64;
        let mut text = String::from(read::PEM_BEGIN);
        text.push('\n');
        for (index, character) in STANDARD.encode(self.der()).chars().enumerate() {
            if index > 0 && index % LINE == 0 {
                text.push('\n');
            }
            text.push(character);
        }
        text.push('\n');
        text.push_str(read::PEM_END);
        text.push('\n');
        text
    }

    /// SHA-1 of the encoding: a name, never a proof.
    pub fn sha1(&self) -> &[u8; 20] {
        &self.0.sha1
    }

    /// SHA-256 of the encoding.
    pub fn sha256(&self) -> &[u8; 32] {
        &self.0.sha256
    }

    /// SHA-1 of the encoding in upper-case hexadecimal.
    pub fn sha1_hex(&self) -> String {
        hex::encode_upper(self.sha1())
    }

    /// SHA-256 of the encoding in upper-case hexadecimal.
    pub fn sha256_hex(&self) -> String {
        hex::encode_upper(self.sha256())
    }

    /// SHA-256 of the subject's public key information: by it groups are found, since it survives a renewal.
    pub fn subject_key_hash(&self) -> &[u8; 32] {
        &self.0.subject_key_hash
    }

    /// The subject as text, in the order of the encoding: `C=US, CN=foo`.
    pub fn subject(&self) -> &str {
        &self.0.subject
    }

    /// The issuer as text.
    pub fn issuer(&self) -> &str {
        &self.0.issuer
    }

    /// The subject's common name, if it has exactly one.
    pub fn common_name(&self) -> Option<&str> {
        match &self.0.common_name {
            CommonName::One(name) => Some(name),
            CommonName::NotOne => None,
        }
    }

    /// The serial number in upper-case hexadecimal, as it is encoded.
    pub fn serial_hex(&self) -> String {
        hex::encode_upper(self.part(&self.0.parts.serial))
    }

    /// From when it is valid.
    pub fn not_before(&self) -> UnixTime {
        self.0.not_before
    }

    /// The last second of its validity.
    pub fn not_after(&self) -> UnixTime {
        self.0.not_after
    }

    /// Whether its time has passed. It is valid through the whole of its last second.
    pub fn is_expired(&self, now: UnixTime) -> bool {
        now.seconds() > self.not_after().seconds()
    }

    /// Whether its time is yet to come.
    pub fn is_early(&self, now: UnixTime) -> bool {
        now.seconds() < self.not_before().seconds()
    }

    /// Its version: 1, 2 or 3.
    pub fn version(&self) -> u32 {
        self.0.version
    }

    /// Whether it may sign others, and how long a path.
    pub fn basic_constraints(&self) -> BasicConstraints {
        self.0.basic_constraints
    }

    /// What its key usage says about signing certificates; `None` if it has none.
    pub fn may_sign_certificates(&self) -> Option<bool> {
        self.0.may_sign_certificates
    }

    /// Whether it holds an extension that must be understood and is not. Of an issuer, that ends a path
    /// (RFC 5280, section 6.1.5); name constraints are among them.
    pub fn has_unhandled_critical_extension(&self) -> bool {
        self.0.has_unhandled_critical_extension
    }

    /// The kind of its key.
    pub fn public_key(&self) -> PublicKey {
        self.0.public_key
    }

    /// The subject as encoded, by which an issuer is found.
    pub fn raw_subject(&self) -> &[u8] {
        self.part(&self.0.parts.subject)
    }

    /// The issuer as encoded.
    pub fn raw_issuer(&self) -> &[u8] {
        self.part(&self.0.parts.issuer)
    }

    /// Whether subject and issuer are the same name; says nothing about the signature.
    pub fn is_self_issued(&self) -> bool {
        self.raw_subject() == self.raw_issuer()
    }

    /// Whether `issuer`'s key made this certificate's signature, with an algorithm and a key that are accepted
    /// (`rules.md` 27). Names, dates and constraints are not looked at. A good signature is verified once.
    pub fn is_signed_by(&self, issuer: &Self) -> bool {
        let (verified, of_issuer) = (&self.0.verified, &issuer.0.verified);
        if verified.is_by(issuer.sha256()) {
            return true;
        }
        if !of_issuer.has_signed(self.sha256()) {
            if !self.verify(issuer) {
                return false;
            }
            // Leaves are many, and met again on the same connection alone.
            if matches!(self.basic_constraints(), BasicConstraints::Authority { .. }) {
                of_issuer.note_subordinate(*self.sha256());
            }
        }
        verified.note_signer(*issuer.sha256());
        true
    }

    fn verify(&self, issuer: &Self) -> bool {
        let Some(algorithm) = self.0.algorithm else { return false };
        let (signed, signature) = (self.part(&self.0.parts.signed), self.part(&self.0.parts.signature));
        issuer.public_key().may_issue()
            && algorithm.verify(issuer.public_key(), issuer.part(&issuer.0.parts.key), signed, signature)
    }

    fn part(&self, range: &Range<usize>) -> &[u8] {
        self.0.der.get(range.clone()).expect("ranges were taken from this encoding")
    }
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.0.sha256 == other.0.sha256
    }
}

impl Eq for Certificate {}

impl std::hash::Hash for Certificate {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.sha256.hash(state);
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({:?}, {})", self.subject(), self.sha256_hex())
    }
}

/// Base64 of the DER.
impl serde::Serialize for Certificate {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(self.der()))
    }
}

impl<'de> serde::Deserialize<'de> for Certificate {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::from_upload(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
