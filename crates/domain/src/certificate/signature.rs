//! Which signatures on certificates are accepted, and how they are verified: RSA (PKCS #1 and PSS) and ECDSA with
//! SHA-256 or better. SHA-1, DSA and Ed25519 are not: no device of the contract is signed with them.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, ECDSA_P256_SHA512_ASN1, ECDSA_P384_SHA256_ASN1,
    ECDSA_P384_SHA384_ASN1, ECDSA_P384_SHA512_ASN1, ECDSA_P521_SHA256_ASN1, ECDSA_P521_SHA384_ASN1,
    ECDSA_P521_SHA512_ASN1, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, UnparsedPublicKey,
    VerificationAlgorithm,
};
use x509_parser::oid_registry::{
    OID_NIST_HASH_SHA256, OID_NIST_HASH_SHA384, OID_NIST_HASH_SHA512, OID_PKCS1_RSASSAPSS, OID_PKCS1_SHA256WITHRSA,
    OID_PKCS1_SHA384WITHRSA, OID_PKCS1_SHA512WITHRSA, OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ECDSA_WITH_SHA384,
    OID_SIG_ECDSA_WITH_SHA512, Oid,
};
use x509_parser::signature_algorithm::RsaSsaPssParams;
use x509_parser::x509::AlgorithmIdentifier;

use super::PublicKey;

/// An accepted way to sign a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SignatureAlgorithm {
    scheme: Scheme,
    hash: Hash,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    Pkcs1,
    Pss,
    Ecdsa,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

impl SignatureAlgorithm {
    /// `None` for one that is not accepted.
    pub(super) fn parse(identifier: &AlgorithmIdentifier<'_>) -> Option<Self> {
        let known: [(Oid<'static>, Scheme, Hash); 6] = [
            (OID_PKCS1_SHA256WITHRSA, Scheme::Pkcs1, Hash::Sha256),
            (OID_PKCS1_SHA384WITHRSA, Scheme::Pkcs1, Hash::Sha384),
            (OID_PKCS1_SHA512WITHRSA, Scheme::Pkcs1, Hash::Sha512),
            (OID_SIG_ECDSA_WITH_SHA256, Scheme::Ecdsa, Hash::Sha256),
            (OID_SIG_ECDSA_WITH_SHA384, Scheme::Ecdsa, Hash::Sha384),
            (OID_SIG_ECDSA_WITH_SHA512, Scheme::Ecdsa, Hash::Sha512),
        ];
        if identifier.algorithm == OID_PKCS1_RSASSAPSS {
            return Some(Self { scheme: Scheme::Pss, hash: pss_hash(identifier)? });
        }
        known.into_iter().find(|(oid, ..)| *oid == identifier.algorithm).map(|(_, scheme, hash)| Self { scheme, hash })
    }

    /// Whether `signature` over `signed` was made by the holder of `key_bytes`, a key of kind `kind`.
    pub(super) fn verify(self, kind: PublicKey, key_bytes: &[u8], signed: &[u8], signature: &[u8]) -> bool {
        let verify = |algorithm: &'static dyn VerificationAlgorithm| {
            UnparsedPublicKey::new(algorithm, key_bytes).verify(signed, signature).is_ok()
        };
        self.verification(kind).is_some_and(verify)
    }

    fn verification(self, kind: PublicKey) -> Option<&'static dyn VerificationAlgorithm> {
        Some(match (self.scheme, kind, self.hash) {
            (Scheme::Pkcs1, PublicKey::Rsa { .. }, Hash::Sha256) => &RSA_PKCS1_2048_8192_SHA256,
            (Scheme::Pkcs1, PublicKey::Rsa { .. }, Hash::Sha384) => &RSA_PKCS1_2048_8192_SHA384,
            (Scheme::Pkcs1, PublicKey::Rsa { .. }, Hash::Sha512) => &RSA_PKCS1_2048_8192_SHA512,
            (Scheme::Pss, PublicKey::Rsa { .. }, Hash::Sha256) => &RSA_PSS_2048_8192_SHA256,
            (Scheme::Pss, PublicKey::Rsa { .. }, Hash::Sha384) => &RSA_PSS_2048_8192_SHA384,
            (Scheme::Pss, PublicKey::Rsa { .. }, Hash::Sha512) => &RSA_PSS_2048_8192_SHA512,
            (Scheme::Ecdsa, PublicKey::P256, Hash::Sha256) => &ECDSA_P256_SHA256_ASN1,
            (Scheme::Ecdsa, PublicKey::P256, Hash::Sha384) => &ECDSA_P256_SHA384_ASN1,
            (Scheme::Ecdsa, PublicKey::P256, Hash::Sha512) => &ECDSA_P256_SHA512_ASN1,
            (Scheme::Ecdsa, PublicKey::P384, Hash::Sha256) => &ECDSA_P384_SHA256_ASN1,
            (Scheme::Ecdsa, PublicKey::P384, Hash::Sha384) => &ECDSA_P384_SHA384_ASN1,
            (Scheme::Ecdsa, PublicKey::P384, Hash::Sha512) => &ECDSA_P384_SHA512_ASN1,
            (Scheme::Ecdsa, PublicKey::P521, Hash::Sha256) => &ECDSA_P521_SHA256_ASN1,
            (Scheme::Ecdsa, PublicKey::P521, Hash::Sha384) => &ECDSA_P521_SHA384_ASN1,
            (Scheme::Ecdsa, PublicKey::P521, Hash::Sha512) => &ECDSA_P521_SHA512_ASN1,
            _ => return None,
        })
    }
}

/// The hash of PSS parameters, if the mask is generated with the same one (RFC 4055, section 3.1).
fn pss_hash(identifier: &AlgorithmIdentifier<'_>) -> Option<Hash> {
    let parameters = RsaSsaPssParams::try_from(identifier.parameters.as_ref()?).ok()?;
    let hash = parameters.hash_algorithm_oid();
    if parameters.mask_gen_algorithm().ok()?.hash != *hash {
        return None;
    }
    let known = [
        (OID_NIST_HASH_SHA256, Hash::Sha256),
        (OID_NIST_HASH_SHA384, Hash::Sha384),
        (OID_NIST_HASH_SHA512, Hash::Sha512),
    ];
    known.into_iter().find(|(oid, _)| oid == hash).map(|(_, hash)| hash)
}
