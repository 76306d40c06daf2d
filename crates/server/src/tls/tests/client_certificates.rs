//! What clients show: everything reaches the application, as long as the peer holds the leaf's key.

use std::sync::Arc;

use domain::certificate::PresentedChain;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, IsCa, KeyPair, PKCS_ECDSA_P256_SHA256,
    PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519, PKCS_RSA_SHA256, SerialNumber, SignatureAlgorithm,
    date_time_ymd,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::CertifiedKey;

use super::super::verifier::{CHAIN_BYTES_MAX, CHAIN_LEN_MAX};
use super::HandshakeError;
use crate::testing::{TestRim, VERSIONS, shown};

const VERSION_1: &[u8] = include_bytes!("../../../../../testdata/certificates/v1-with-key.pem");

pub(super) fn self_signed(common_name: &str) -> (CertificateDer<'static>, KeyPair) {
    self_signed_with(&PKCS_ECDSA_P256_SHA256, |params| {
        params.distinguished_name.push(rcgen::DnType::CommonName, common_name);
    })
}

fn self_signed_with(
    algorithm: &'static SignatureAlgorithm,
    change: impl FnOnce(&mut CertificateParams),
) -> (CertificateDer<'static>, KeyPair) {
    let key = KeyPair::generate_for(algorithm).expect("a key");
    let mut params = CertificateParams::default();
    change(&mut params);
    (params.self_signed(&key).expect("a certificate").der().clone(), key)
}

fn version_1() -> (CertificateDer<'static>, KeyPair) {
    let text = std::str::from_utf8(VERSION_1).expect("text");
    let key = text.get(text.find("-----BEGIN PRIVATE KEY").expect("a key")..).expect("a key");
    (CertificateDer::from_pem_slice(VERSION_1).expect("a certificate"), KeyPair::from_pem(key).expect("a key"))
}

fn odd_certificates() -> Vec<(&'static str, CertificateDer<'static>, KeyPair)> {
    let unknown_critical = |params: &mut CertificateParams| {
        let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 55555, 1], vec![5, 0]);
        extension.set_criticality(true);
        params.custom_extensions.push(extension);
    };
    let expired = |params: &mut CertificateParams| {
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
    };
    let future = |params: &mut CertificateParams| params.not_before = date_time_ymd(4000, 1, 1);
    let authority = |params: &mut CertificateParams| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let long_serial =
        |params: &mut CertificateParams| params.serial_number = Some(SerialNumber::from_slice(&[0x7f; 40]));
    let server_only = |params: &mut CertificateParams| {
        params.extended_key_usages.push(rcgen::ExtendedKeyUsagePurpose::ServerAuth);
    };
    let named = |name, (certificate, key)| (name, certificate, key);
    vec![
        named("self-signed", self_signed("dev-1")),
        named("expired", self_signed_with(&PKCS_ECDSA_P256_SHA256, expired)),
        named("not valid yet", self_signed_with(&PKCS_ECDSA_P256_SHA256, future)),
        named("a CA as leaf", self_signed_with(&PKCS_ECDSA_P256_SHA256, authority)),
        named("for servers only", self_signed_with(&PKCS_ECDSA_P256_SHA256, server_only)),
        named("a serial number too long", self_signed_with(&PKCS_ECDSA_P256_SHA256, long_serial)),
        named("an unknown critical extension", self_signed_with(&PKCS_ECDSA_P256_SHA256, unknown_critical)),
        named("the same on RSA", self_signed_with(&PKCS_RSA_SHA256, unknown_critical)),
        named("the same on P-384", self_signed_with(&PKCS_ECDSA_P384_SHA384, unknown_critical)),
        named("version 1", version_1()),
        named("P-384", self_signed_with(&PKCS_ECDSA_P384_SHA384, |_| {})),
        named("P-521", self_signed_with(&PKCS_ECDSA_P521_SHA512, |_| {})),
        named("RSA", self_signed_with(&PKCS_RSA_SHA256, |_| {})),
        named("Ed25519", self_signed_with(&PKCS_ED25519, |_| {})),
    ]
}

#[tokio::test]
async fn odd_certificates_reach_the_application() {
    let rim = TestRim::start();
    for (case, certificate, key) in odd_certificates() {
        for version in VERSIONS {
            let config = rim.client_showing(version, shown(vec![certificate.clone()], &key));
            let client = rim.dial("127.0.0.2", &Arc::new(config)).await;
            assert!(client.is_ok(), "{case}, {version:?}: {client:?}");
            let connection = rim.outcome().await.unwrap_or_else(|error| panic!("{case}, {version:?}: {error}"));
            let read = PresentedChain::from_der(std::slice::from_ref(&certificate)).map(Arc::new);
            assert_eq!(connection.peer.chain, Some(read), "{case}, {version:?}");
        }
    }
}

#[tokio::test]
async fn a_certificate_without_its_key_is_refused() {
    let rim = TestRim::start();
    let stranger = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let stranger_rsa = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    for (case, certificate, _) in odd_certificates() {
        for (key, version) in [&stranger, &stranger_rsa].into_iter().flat_map(|key| VERSIONS.map(|v| (key, v))) {
            let config = rim.client_showing(version, shown(vec![certificate.clone()], key));
            // In TLS 1.3 the client has finished before it hears of the refusal.
            let _client = rim.dial("127.0.0.2", &Arc::new(config)).await;
            let outcome = rim.outcome().await;
            assert!(matches!(outcome, Err(HandshakeError::Tls(_))), "{case}, {version:?}: {outcome:?}");
        }
    }
}

fn chain_of(len: usize, padding_bytes: usize) -> CertifiedKey {
    let (certificate, key) = self_signed_with(&PKCS_ECDSA_P256_SHA256, |params| {
        let padding = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 55555, 2], vec![0; padding_bytes]);
        params.custom_extensions.push(padding);
    });
    shown(vec![certificate; len], &key)
}

#[tokio::test]
async fn a_chain_is_taken_whole_within_its_bounds() {
    let rim = TestRim::start();
    let half = CHAIN_BYTES_MAX / 2;
    let cases = [
        ("the longest", chain_of(CHAIN_LEN_MAX, 0), true),
        ("one too many", chain_of(CHAIN_LEN_MAX + 1, 0), false),
        ("large", chain_of(2, half - 2_000), true),
        ("too large", chain_of(2, half), false),
    ];
    for (case, certificate, is_taken) in cases {
        let chain = certificate.cert.clone();
        let certificate = Arc::new(certificate);
        for version in VERSIONS {
            let certificate = CertifiedKey::new(certificate.cert.clone(), Arc::clone(&certificate.key));
            let _client = rim.dial("127.0.0.2", &Arc::new(rim.client_showing(version, certificate))).await;
            let outcome = rim.outcome().await;
            assert_eq!(outcome.is_ok(), is_taken, "{case}, {version:?}: {outcome:?}");
            if let Ok(connection) = outcome {
                let read = PresentedChain::from_der(&chain).map(Arc::new);
                assert_eq!(connection.peer.chain, Some(read), "{case}: leaf first, in the order sent");
            }
        }
    }
}
