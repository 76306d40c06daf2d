use super::maker::{NOON, Plan};
use super::*;

fn openssl(name: &str) -> Certificate {
    Certificate::from_pem_or_der(&file(name)).unwrap()
}

fn file(name: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/certificates");
    std::fs::read(format!("{folder}/{name}.pem")).unwrap()
}

#[test]
fn certificates_made_by_openssl_are_read() {
    let year = 365 * 24 * 60 * 60;
    let cases: &[(&str, u32, PublicKey, &str, BasicConstraints, i64)] = &[
        ("self-signed-30-days", 3, PublicKey::Rsa { bits: 2_048 }, "CN=my-x509-device", Absent, 30 * 24 * 60 * 60),
        ("root-rsa-2048", 3, PublicKey::Rsa { bits: 2_048 }, "C=GB, O=Muster, CN=root-rsa-2048", Authority, 100 * year),
        (
            "root-rsa-4096-pss",
            3,
            PublicKey::Rsa { bits: 4_096 },
            "C=GB, O=Muster, CN=root-rsa-4096-pss",
            Authority,
            100 * year,
        ),
        ("root-p384", 3, PublicKey::P384, "C=GB, O=Muster, CN=root-p384", Authority, 100 * year),
        ("root-p521", 3, PublicKey::P521, "C=GB, O=Muster, CN=root-p521", Authority, 100 * year),
        ("leaf-p384", 3, PublicKey::P256, "CN=leaf-p384", EndEntity, 100 * year),
        ("leaf-v1", 1, PublicKey::P256, "CN=leaf-v1", Absent, 100 * year),
    ];
    for (name, version, key, subject, constraints, seconds) in cases {
        let read = openssl(name);
        assert_eq!(read.version(), *version, "{name}");
        assert_eq!(read.public_key(), *key, "{name}");
        assert_eq!(read.subject(), *subject, "{name}");
        assert_eq!(read.basic_constraints(), *constraints, "{name}");
        assert_eq!(read.not_after().seconds() - read.not_before().seconds(), *seconds, "{name}");
        assert!(!read.has_unhandled_critical_extension(), "{name}");
    }
}

use BasicConstraints::{Absent, EndEntity};
#[expect(non_upper_case_globals, reason = "stands in a table beside the other variants")]
const Authority: BasicConstraints = BasicConstraints::Authority { path_length: None };

#[test]
fn signatures_are_accepted_by_algorithm_and_key() {
    let cases: &[(&str, &str, bool)] = &[
        ("leaf-rsa-2048", "root-rsa-2048", true),
        ("leaf-rsa-4096-pss", "root-rsa-4096-pss", true),
        ("leaf-p384", "root-p384", true),
        ("leaf-p521", "root-p521", true),
        ("leaf-v1", "root-rsa-2048", true),
        ("leaf-expired", "root-rsa-2048", true),
        ("root-p384", "root-p384", true),
        ("leaf-p384", "root-p521", false),
        ("leaf-p384", "root-rsa-2048", false),
        ("leaf-sha1", "root-rsa-2048", false),
        ("leaf-rsa-1024", "root-rsa-1024", false),
    ];
    for &(leaf, issuer, expected) in cases {
        assert_eq!(openssl(leaf).is_signed_by(&openssl(issuer)), expected, "{leaf} by {issuer}");
    }
}

/// What `openssl x509 -fingerprint` prints for the file.
#[test]
fn thumbprints_are_those_that_openssl_prints_and_serial_numbers_are_kept_as_encoded() {
    let odd = openssl("leaf-v1");
    assert_eq!(odd.sha256_hex(), "477CA18C2CDBDF98CA9AC010F41118AD81C18214CD13525A8CBE8FEC7D12C9F9");
    assert_eq!(odd.sha1_hex(), "E013518E65B0994640C6F9321135D3DF80D44862");
    assert_eq!(odd.serial_hex(), "F9", "minus seven");
    assert_eq!(openssl("leaf-rsa-2048").serial_hex(), "00FF");
}

#[test]
fn an_upload_is_pem_or_base64_of_der_or_base64_of_pem() {
    let certificate = openssl("leaf-p384");
    let pem = String::from_utf8(file("leaf-p384")).unwrap();
    let chain = format!("subject=CN = leaf\n{pem}\n{}", openssl("root-p384").pem());
    let wrapped = STANDARD.encode(certificate.der()).replace('A', "A\r\n");
    let cases: &[(&str, String)] = &[
        ("PEM", pem.clone()),
        ("PEM written here", certificate.pem()),
        ("a chain, of which the first is taken", chain),
        ("base64 of DER", STANDARD.encode(certificate.der())),
        ("base64 in lines", wrapped),
        ("base64 of PEM", STANDARD.encode(&pem)),
        ("PEM without line ends", pem.replace('\n', "")),
    ];
    for (name, text) in cases {
        assert_eq!(Certificate::from_upload(text).as_ref(), Ok(&certificate), "{name}");
    }
    assert_eq!(certificate.pem(), pem);
}

#[test]
fn what_is_no_certificate_is_refused_for_its_reason() {
    let der = openssl("leaf-p384").der().to_vec();
    let mut longer = der.clone();
    longer.push(0);
    let cases: &[(&str, Vec<u8>, InvalidCertificate)] = &[
        ("nothing", vec![], InvalidCertificate::Empty),
        ("text", b"hello".to_vec(), InvalidCertificate::Malformed),
        ("cut short", der[..der.len() - 1].to_vec(), InvalidCertificate::Malformed),
        ("a byte too many", longer, InvalidCertificate::Malformed),
        ("too long", vec![0x30; Certificate::BYTES_MAX + 1], InvalidCertificate::TooLong),
        ("PEM without an end", b"-----BEGIN CERTIFICATE-----\nAAAA".to_vec(), InvalidCertificate::Encoding),
        ("PEM of nothing", [read::PEM_BEGIN, read::PEM_END].concat().into_bytes(), InvalidCertificate::Empty),
    ];
    for (name, bytes, expected) in cases {
        assert_eq!(Certificate::from_pem_or_der(bytes), Err(*expected), "{name}");
    }
    for (text, expected) in [("!", InvalidCertificate::Encoding), (" \n", InvalidCertificate::Empty)] {
        assert_eq!(Certificate::from_upload(text), Err(expected), "{text:?}");
    }
}

#[test]
fn every_certificate_cut_anywhere_or_bent_anywhere_is_refused_without_harm() {
    let der = openssl("leaf-v1").der().to_vec();
    for length in 0..der.len() {
        assert!(Certificate::from_der(&der[..length]).is_err(), "{length}");
    }
    for place in 0..der.len() {
        let mut bent = der.clone();
        bent[place] ^= 0xff;
        if let Ok(read) = Certificate::from_der(&bent) {
            assert!(!read.is_signed_by(&openssl("root-rsa-2048")), "{place}");
        }
    }
}

#[test]
fn the_common_name_must_be_the_only_one() {
    let mut two = Plan::leaf("one");
    two.params.distinguished_name = rcgen::DistinguishedName::new();
    two.params.distinguished_name.push(rcgen::DnType::OrganizationName, "nobody");
    assert_eq!(two.self_signed().certificate.common_name(), None);
    assert_eq!(Plan::leaf("dev-1").self_signed().certificate.common_name(), Some("dev-1"));
    assert_eq!(openssl("root-p384").common_name(), Some("root-p384"));
}

#[test]
fn validity_includes_its_first_and_its_last_second() {
    let made = Plan::leaf("dev-1").years(2026, 2027).self_signed().certificate;
    let (first, last) = (made.not_before(), made.not_after());
    let second = std::time::Duration::from_secs(1);
    let cases = [
        (first.minus(second), true, false),
        (first, false, false),
        (last, false, false),
        (last.plus(second), false, true),
    ];
    for (now, early, expired) in cases {
        assert_eq!((made.is_early(now), made.is_expired(now)), (early, expired), "{now:?}");
    }
    assert!(openssl("leaf-expired").is_expired(NOON));
}

#[test]
fn a_certificate_survives_storage() {
    let certificate = openssl("leaf-p521");
    let text = serde_json::to_string(&certificate).unwrap();
    assert_eq!(serde_json::from_str::<Certificate>(&text).unwrap(), certificate);
}
