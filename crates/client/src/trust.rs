//! Whom a client trusts, and with which certificate it shows itself.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// Why a TLS configuration cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The authority's file holds no certificate.
    #[error("the authority's file holds no certificate")]
    NoAuthority,
    /// A PEM text cannot be read.
    #[error("not PEM")]
    Pem(#[source] rustls::pki_types::pem::Error),
    /// TLS refuses the certificate or the key.
    #[error("TLS refuses the certificate or the key")]
    Tls(#[source] rustls::Error),
}

/// A device's certificate chain, leaf first, and its private key.
pub struct ClientCertificate {
    /// DER, leaf first.
    pub chain: Vec<Vec<u8>>,
    /// PKCS#8.
    pub key: Vec<u8>,
}

impl std::fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientCertificate").field("certificates", &self.chain.len()).finish_non_exhaustive()
    }
}

/// A TLS configuration that trusts `authority` (PEM) alone and shows `certificate` if the server asks.
pub fn configure(authority: &str, certificate: Option<ClientCertificate>) -> Result<Arc<ClientConfig>, TrustError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority.as_bytes()) {
        roots.add(certificate.map_err(TrustError::Pem)?).map_err(TrustError::Tls)?;
    }
    if roots.is_empty() {
        return Err(TrustError::NoAuthority);
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TrustError::Tls)?
        .with_root_certificates(roots);
    let config = match certificate {
        None => builder.with_no_client_auth(),
        Some(certificate) => {
            let chain = certificate.chain.into_iter().map(CertificateDer::from).collect();
            let key = PrivateKeyDer::Pkcs8(certificate.key.into());
            builder.with_client_auth_cert(chain, key).map_err(TrustError::Tls)?
        }
    };
    Ok(Arc::new(config))
}
