//! Bytes of any kind are a certificate or are refused; whatever is read can be asked, chained, and written again.

use domain::certificate::{Certificate, PresentedChain, build_chain};
use domain::clock::UnixTime;

const NOW: UnixTime = UnixTime::from_seconds(1_800_000_000);

/// Reads `input` as DER, as a file and as an upload.
///
/// # Panics
/// When a promise of [`Certificate`] is broken.
pub fn check(input: &[u8]) {
    if let Ok(certificate) = Certificate::from_der(input) {
        assert_eq!(certificate.der(), input);
        ask(&certificate);
    }
    if let Ok(certificate) = Certificate::from_pem_or_der(input) {
        assert_eq!(Certificate::from_upload(&certificate.pem()).expect("what was written can be read"), certificate);
    }
    let Ok(text) = std::str::from_utf8(input) else { return };
    let _ = Certificate::from_upload(text);
    if let Ok(certificates) = Certificate::list_from_pem(text) {
        assert!((1..=PresentedChain::CERTIFICATES_MAX).contains(&certificates.len()));
        chain(&certificates);
    }
}

fn ask(certificate: &Certificate) {
    assert!(certificate.der().len() <= Certificate::BYTES_MAX);
    assert_eq!((certificate.sha1_hex().len(), certificate.sha256_hex().len()), (40, 64));
    assert_eq!(certificate.is_self_issued(), certificate.raw_subject() == certificate.raw_issuer());
    assert!(
        !(certificate.is_expired(NOW) && certificate.is_early(NOW))
            || certificate.not_after() < certificate.not_before()
    );
    let _ = (certificate.subject(), certificate.issuer(), certificate.common_name(), certificate.serial_hex());
    let _ = (certificate.version(), certificate.basic_constraints(), certificate.may_sign_certificates());
    let _ = (certificate.public_key(), certificate.has_unhandled_critical_extension(), certificate.subject_key_hash());
    chain(std::slice::from_ref(certificate));
}

/// A path leads from the leaf to an anchor, each certificate signed by the next.
fn chain(certificates: &[Certificate]) {
    let encoded: Vec<&[u8]> = certificates.iter().map(Certificate::der).collect();
    let Ok(presented) = PresentedChain::from_der(&encoded) else { return };
    let anchor = certificates.last().expect("there is one");
    let Ok(found) = build_chain(&presented, &[], |certificate| certificate == anchor, NOW) else { return };
    assert_eq!((found.certificates().first(), found.anchor()), (Some(presented.leaf()), anchor));
    for (certificate, issuer) in found.certificates().iter().zip(found.certificates().iter().skip(1)) {
        assert!(certificate.is_signed_by(issuer));
    }
}
