//! What the server shows: names, kinds of keys, renewal, the operator's own certificates, and the files of the CA.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use domain::clock::{SeededEntropy, UnixTime};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, SignatureAlgorithm};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, SignatureScheme};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use super::super::authority::{
    AUTHORITY_LIFETIME, Authority, AuthorityError, CERTIFICATE_FILE, KEY_FILE, LEAF_LIFETIME, LEAF_RENEWAL,
};
use super::super::key_file::{KeyFileError, KeyFolder, KeySeal};
use super::super::{OperatorCertificate, OperatorCertificateError, PortProtocol, RSA_KEY_FILE, TlsSettings};
use crate::names::NameTable;
use crate::testing::{TakesAnything, TestRim, VERSIONS, address, names, provider};

const RSA_ONLY: [SignatureScheme; 2] = [SignatureScheme::RSA_PSS_SHA256, SignatureScheme::RSA_PKCS1_SHA256];

/// The certificate that `host` shows to `config`.
async fn leaf_shown(rim: &TestRim, host: &str, name: &str, config: ClientConfig) -> CertificateDer<'static> {
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let client = rim.dial_as(host, name, &Arc::new(config)).await.expect("a handshake");
    rim.outcome().await.expect("a handshake");
    let chain = client.get_ref().1.peer_certificates().expect("a chain");
    assert_eq!(chain.len(), 1, "the CA need not be sent");
    chain[0].clone().into_owned()
}

fn parsed<'c>(certificate: &'c CertificateDer<'_>) -> X509Certificate<'c> {
    X509Certificate::from_der(certificate).expect("a certificate").1
}

fn is_rsa(certificate: &CertificateDer<'_>) -> bool {
    let key = parsed(certificate).public_key().parsed().expect("a key").key_size();
    key == 2_048
}

/// As lists of text: DNS names, then addresses.
fn alternative_names(certificate: &CertificateDer<'_>) -> (Vec<String>, Vec<Vec<u8>>) {
    let parsed = parsed(certificate);
    let alternatives = parsed.subject_alternative_name().expect("syntax").expect("names");
    let (mut dns_names, mut addresses) = (Vec::new(), Vec::new());
    for name in &alternatives.value.general_names {
        match name {
            GeneralName::DNSName(name) => dns_names.push((*name).to_owned()),
            GeneralName::IPAddress(address) => addresses.push(address.to_vec()),
            other => panic!("{other}"),
        }
    }
    (dns_names, addresses)
}

#[tokio::test]
async fn each_literal_stands_as_address_and_as_text() {
    let rim = TestRim::start();
    let leaf = leaf_shown(&rim, "127.0.0.2", "127.0.0.2", rim.client(&rustls::version::TLS12)).await;
    assert_eq!(alternative_names(&leaf), (vec!["127.0.0.2".into()], vec![vec![127, 0, 0, 2]]));
    let leaf = leaf_shown(&rim, "127.0.0.1", "localhost", rim.client(&rustls::version::TLS12)).await;
    let (dns_names, addresses) = alternative_names(&leaf);
    assert_eq!((dns_names, addresses), (vec!["127.0.0.1".into(), "localhost".into()], vec![vec![127, 0, 0, 1]]));
}

#[tokio::test]
async fn a_known_sni_decides_over_the_address() {
    let rim = TestRim::start();
    for (sni, expected) in [("hub.example.org", "hub.example.org"), ("HUB.example.org", "hub.example.org")] {
        let leaf = leaf_shown(&rim, "127.0.0.3", sni, rim.client(&rustls::version::TLS13)).await;
        assert_eq!(alternative_names(&leaf).0, [expected]);
    }
    let mut careless = rim.client(&rustls::version::TLS13);
    careless
        .dangerous()
        .set_certificate_verifier(Arc::new(TakesAnything(vec![SignatureScheme::ECDSA_NISTP256_SHA256])));
    let leaf = leaf_shown(&rim, "127.0.0.3", "nobody.knows", careless).await;
    assert_eq!(alternative_names(&leaf).0, ["127.0.0.3"], "an unknown SNI is no reason to refuse");
}

#[tokio::test]
async fn rsa_is_for_clients_that_cannot_verify_ecdsa() {
    let rim = TestRim::start();
    for version in VERSIONS {
        let leaf = leaf_shown(&rim, "127.0.0.2", "127.0.0.2", rim.client(version)).await;
        assert!(!is_rsa(&leaf), "{version:?}: ECDSA is preferred");

        let mut by_scheme = rim.client(version);
        by_scheme.dangerous().set_certificate_verifier(Arc::new(TakesAnything(RSA_ONLY.to_vec())));
        let leaf = leaf_shown(&rim, "127.0.0.2", "127.0.0.2", by_scheme).await;
        assert!(is_rsa(&leaf), "{version:?}: by signature schemes");
        assert_eq!(alternative_names(&leaf), (vec!["127.0.0.2".into()], vec![vec![127, 0, 0, 2]]));
    }
    let mut rsa_suites = rustls::crypto::aws_lc_rs::default_provider();
    rsa_suites.cipher_suites.retain(|suite| {
        suite.tls13().is_none() && suite.usable_for_signature_algorithm(rustls::SignatureAlgorithm::RSA)
    });
    let by_suite = ClientConfig::builder_with_provider(Arc::new(rsa_suites))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TakesAnything(
            provider().signature_verification_algorithms.supported_schemes(),
        )))
        .with_no_client_auth();
    let leaf = leaf_shown(&rim, "127.0.0.3", "127.0.0.3", by_suite).await;
    assert!(is_rsa(&leaf), "by the suites of TLS 1.2");
}

#[tokio::test]
async fn the_rsa_key_is_made_when_first_needed_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(RSA_KEY_FILE);
    let mut keys = Vec::new();
    for _ in 0..2 {
        let keys_in = Some(KeyFolder::new(folder.path(), Arc::new(PlainKeys)));
        let rim = TestRim::start_in(keys_in, TlsSettings::default(), PortProtocol::Other, None);
        assert_eq!(path.exists(), !keys.is_empty());
        let mut rsa_only = rim.client(&rustls::version::TLS13);
        rsa_only.dangerous().set_certificate_verifier(Arc::new(TakesAnything(RSA_ONLY.to_vec())));
        let leaf = leaf_shown(&rim, "127.0.0.2", "127.0.0.2", rsa_only).await;
        keys.push(parsed(&leaf).public_key().raw.to_vec());
        assert_eq!(mode(&path), 0o600);
    }
    assert_eq!(keys[0], keys[1]);
}

#[tokio::test]
async fn leaves_are_kept_and_renewed_without_a_restart() {
    let rim = TestRim::start();
    let show = async || leaf_shown(&rim, "127.0.0.2", "127.0.0.2", rim.client(&rustls::version::TLS13)).await;
    let first = show().await;
    assert_eq!(first, show().await, "a leaf is kept");
    let validity = parsed(&first).validity().clone();
    let lifetime = validity.not_after.timestamp() - validity.not_before.timestamp();
    assert_eq!(lifetime, LEAF_LIFETIME.as_secs() as i64);
    let serial = parsed(&first).raw_serial().to_vec();

    rim.clock.set(UnixTime::from_seconds(validity.not_after.timestamp()).minus(LEAF_RENEWAL + Duration::from_secs(1)));
    assert_eq!(first, show().await, "a second too early");
    // The certificate holds whole seconds, the clock does not.
    rim.clock.advance(Duration::from_secs(2));
    let mut careless = rim.client(&rustls::version::TLS13);
    careless
        .dangerous()
        .set_certificate_verifier(Arc::new(TakesAnything(vec![SignatureScheme::ECDSA_NISTP256_SHA256])));
    let second = leaf_shown(&rim, "127.0.0.2", "127.0.0.2", careless).await;
    assert!(parsed(&second).validity().not_after > validity.not_after);
    assert_ne!(parsed(&second).raw_serial(), serial);
}

#[tokio::test]
async fn names_given_at_run_time_are_served_at_once() {
    let rim = TestRim::start();
    rim.names.replace(
        NameTable::new(names(&["127.0.0.1"])).with_address(address("127.0.0.2"), names(&["127.0.0.2", "other.test"])),
    );
    let leaf = leaf_shown(&rim, "127.0.0.2", "other.test", rim.client(&rustls::version::TLS13)).await;
    assert_eq!(alternative_names(&leaf).0, ["127.0.0.2", "other.test"]);
}

/// Writes a self-signed chain and key as an operator would bring them.
fn brought(
    folder: &Path,
    algorithm: &'static SignatureAlgorithm,
    names: &[&str],
) -> Result<OperatorCertificate, OperatorCertificateError> {
    let key = KeyPair::generate_for(algorithm).unwrap();
    let list: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let certificate = CertificateParams::new(list).unwrap().self_signed(&key).unwrap();
    let (chain_path, key_path) = (folder.join("chain.pem"), folder.join("key.pem"));
    fs::write(&chain_path, certificate.pem()).unwrap();
    fs::write(&key_path, key.serialize_pem()).unwrap();
    OperatorCertificate::load(&chain_path, &key_path, &provider())
}

#[tokio::test]
async fn a_brought_certificate_goes_first_for_the_names_it_covers() {
    let rim = TestRim::start();
    let folder = tempfile::tempdir().unwrap();
    let careless = |schemes: &[SignatureScheme]| {
        let mut config = rim.client(&rustls::version::TLS13);
        config.dangerous().set_certificate_verifier(Arc::new(TakesAnything(schemes.to_vec())));
        config
    };
    let all = provider().signature_verification_algorithms.supported_schemes();
    let ecdsa = brought(folder.path(), &PKCS_ECDSA_P256_SHA256, &["*.example.org", "127.0.0.2"]).unwrap();
    let rsa = brought(folder.path(), &PKCS_RSA_SHA256, &["rsa.example.org", "127.0.0.2"]).unwrap();
    rim.certificates.replace_operator_certificates(vec![ecdsa, rsa]);
    let cases = [
        ("by SNI and wildcard", "127.0.0.3", "hub.example.org", all.as_slice(), "*.example.org"),
        ("by address", "127.0.0.2", "127.0.0.2", &all, "*.example.org"),
        ("by address, RSA only", "127.0.0.2", "127.0.0.2", &RSA_ONLY, "rsa.example.org"),
        ("not covered", "127.0.0.3", "127.0.0.3", &all, "127.0.0.3"),
        ("covered for other clients only", "127.0.0.3", "hub.example.org", &RSA_ONLY, "hub.example.org"),
    ];
    for (case, host, name, schemes, expected) in cases {
        let leaf = leaf_shown(&rim, host, name, careless(schemes)).await;
        assert_eq!(alternative_names(&leaf).0[0], expected, "{case}");
    }
    rim.certificates.replace_operator_certificates(Vec::new());
    let leaf = leaf_shown(&rim, "127.0.0.2", "127.0.0.2", careless(&all)).await;
    assert_eq!(alternative_names(&leaf).0, ["127.0.0.2"]);
}

#[test]
fn a_brought_certificate_that_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let nameless = brought(folder.path(), &PKCS_ECDSA_P256_SHA256, &[]);
    assert!(matches!(nameless, Err(OperatorCertificateError::Nameless { .. })), "{nameless:?}");
    brought(folder.path(), &PKCS_ECDSA_P256_SHA256, &["a"]).unwrap();
    let (chain, key) = (folder.path().join("chain.pem"), folder.path().join("key.pem"));
    fs::write(&key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let mismatch = OperatorCertificate::load(&chain, &key, &provider());
    assert!(matches!(mismatch, Err(OperatorCertificateError::Mismatch { .. })), "{mismatch:?}");
    for (path, what) in [(&key, "a private key"), (&chain, "a certificate chain")] {
        fs::write(path, "no PEM").unwrap();
        match OperatorCertificate::load(&chain, &key, &provider()) {
            Err(OperatorCertificateError::Unreadable { what: found, .. }) => assert_eq!(found, what),
            other => panic!("{other:?}"),
        }
    }
}

const NOW: UnixTime = UnixTime::from_seconds(1_800_000_000);

fn open(folder: &Path, now: UnixTime) -> Result<Authority, AuthorityError> {
    Authority::open(&KeyFolder::new(folder, Arc::new(PlainKeys)), now, &SeededEntropy::new(1))
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn the_authority_is_made_once_and_loaded_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join(CERTIFICATE_FILE), folder.path().join(KEY_FILE));
    let made = open(folder.path(), NOW).unwrap().certificate_pem().to_owned();
    assert_eq!(open(folder.path(), NOW).unwrap().certificate_pem(), made);
    assert_eq!(fs::read_to_string(&certificate).unwrap(), made);
    assert_eq!((mode(&key), mode(&certificate)), (0o600, 0o644));
    let (_, pem) = x509_parser::pem::parse_x509_pem(made.as_bytes()).unwrap();
    let parsed = pem.parse_x509().unwrap();
    let validity = parsed.validity();
    let lifetime = validity.not_after.timestamp() - validity.not_before.timestamp();
    assert_eq!(lifetime, AUTHORITY_LIFETIME.as_secs() as i64);
    assert!(parsed.is_ca());

    // What a crash between the two files leaves.
    fs::remove_file(&certificate).unwrap();
    let remade = open(folder.path(), NOW).unwrap();
    let (_, pem) = x509_parser::pem::parse_x509_pem(remade.certificate_pem().as_bytes()).unwrap();
    assert_eq!(pem.parse_x509().unwrap().public_key().raw, parsed.public_key().raw, "the key stays");
}

#[test]
fn an_authority_that_cannot_be_used_says_what_to_do() {
    let fresh = || {
        let folder = tempfile::tempdir().unwrap();
        open(folder.path(), NOW).unwrap();
        folder
    };
    let expect = |folder: &Path, now, expected: &str| match open(folder, now) {
        Ok(_) => panic!("expected: {expected}"),
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains(expected), "{text}");
            error
        }
    };
    let folder = fresh();
    fs::set_permissions(folder.path().join(KEY_FILE), fs::Permissions::from_mode(0o640)).unwrap();
    let error = expect(folder.path(), NOW, "chmod 600");
    assert!(matches!(error, AuthorityError::File(KeyFileError::ReadableByOthers { mode: 0o640, .. })));

    let folder = fresh();
    fs::remove_file(folder.path().join(KEY_FILE)).unwrap();
    expect(folder.path(), NOW, "restore the key");

    let (folder, other) = (fresh(), fresh());
    fs::copy(other.path().join(CERTIFICATE_FILE), folder.path().join(CERTIFICATE_FILE)).unwrap();
    expect(folder.path(), NOW, "was not made for the key");

    let folder = fresh();
    fs::write(folder.path().join(CERTIFICATE_FILE), "nonsense").unwrap();
    expect(folder.path(), NOW, "is not a CA certificate");

    let folder = fresh();
    fs::write(folder.path().join(KEY_FILE), "nonsense").unwrap();
    expect(folder.path(), NOW, "holds no usable private key");

    let folder = fresh();
    expect(folder.path(), NOW.plus(AUTHORITY_LIFETIME), "set the clock");
    expect(folder.path(), UnixTime::from_seconds(0), "set the clock");
}

/// Keeps keys as they are.
struct PlainKeys;

impl KeySeal for PlainKeys {
    fn seal(&self, _name: &str, key: &[u8]) -> Vec<u8> {
        key.to_vec()
    }

    fn open(&self, _name: &str, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        Some(Zeroizing::new(sealed.to_vec()))
    }
}

/// A seal that any reader of the disk could undo, which is enough to see that it is asked.
struct Reversed;

impl KeySeal for Reversed {
    fn seal(&self, name: &str, key: &[u8]) -> Vec<u8> {
        name.bytes().chain(key.iter().rev().copied()).collect()
    }

    fn open(&self, name: &str, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        Some(Zeroizing::new(sealed.strip_prefix(name.as_bytes())?.iter().rev().copied().collect()))
    }
}

#[test]
fn a_sealed_key_is_opened_by_its_own_seal_only() {
    let folder = tempfile::tempdir().unwrap();
    let sealed = KeyFolder::new(folder.path(), Arc::new(Reversed));
    let made = Authority::open(&sealed, NOW, &SeededEntropy::new(1)).unwrap().certificate_pem().to_owned();
    let bytes = fs::read(folder.path().join(KEY_FILE)).unwrap();
    assert!(!String::from_utf8(bytes).unwrap().contains("PRIVATE KEY"));
    assert_eq!(Authority::open(&sealed, NOW, &SeededEntropy::new(1)).unwrap().certificate_pem(), made);
    assert!(open(folder.path(), NOW).is_err());
    fs::write(folder.path().join(KEY_FILE), "tampered").unwrap();
    let error = Authority::open(&sealed, NOW, &SeededEntropy::new(1)).err().expect("an error").to_string();
    assert!(error.contains("cannot be unsealed"), "{error}");
}
