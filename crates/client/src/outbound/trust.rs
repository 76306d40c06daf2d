//! Whom outbound connections trust: certificates that an endpoint brings, or those that the system trusts.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

/// Where systems keep the certificates that they trust, in one file.
const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// What the system trusts, read when it is first asked for.
#[derive(Debug, Default)]
pub struct SystemRoots(OnceLock<Arc<ClientConfig>>);

/// Why nobody can be trusted.
#[derive(Debug, thiserror::Error)]
pub enum Untrusting {
    /// There is no file of trusted certificates.
    #[error("the system has no file of trusted certificates: give the endpoint one of its own")]
    NoBundle,
    /// The endpoint's own certificates cannot be read.
    #[error("the endpoint's certificates cannot be read")]
    Authority,
    /// TLS cannot be configured.
    #[error("TLS cannot be configured")]
    Tls(#[from] rustls::Error),
}

impl SystemRoots {
    /// The configuration that trusts `authority`, or else the system's certificates.
    pub fn configure(&self, authority: Option<&str>) -> Result<Arc<ClientConfig>, Untrusting> {
        if let Some(authority) = authority {
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(authority.as_bytes()) {
                roots.add(certificate.map_err(|_| Untrusting::Authority)?).map_err(|_| Untrusting::Authority)?;
            }
            return if roots.is_empty() { Err(Untrusting::Authority) } else { config(roots) };
        }
        if let Some(known) = self.0.get() {
            return Ok(Arc::clone(known));
        }
        let read = config(read_bundle(&BUNDLES)?)?;
        Ok(Arc::clone(self.0.get_or_init(|| read)))
    }
}

/// The certificates of the first bundle that has any; those that TLS does not understand are passed over.
fn read_bundle(bundles: &[&str]) -> Result<RootCertStore, Untrusting> {
    let brought = std::env::var("SSL_CERT_FILE").ok();
    let bundles = brought.iter().map(String::as_str).chain(bundles.iter().copied());
    for bundle in bundles {
        let Ok(certificates) = CertificateDer::pem_file_iter(Path::new(bundle)) else { continue };
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates.filter_map(Result::ok));
        if !roots.is_empty() {
            return Ok(roots);
        }
    }
    Err(Untrusting::NoBundle)
}

fn config(roots: RootCertStore) -> Result<Arc<ClientConfig>, Untrusting> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}
