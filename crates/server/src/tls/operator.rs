//! Certificates that the operator brought, for names that clients already trust somebody for.
//!
//! A brought certificate goes before the instance CA's leaves for the names it covers. Its chain is sent as it stands;
//! whether clients trust it is between them and the operator. Start reading at [`OperatorCertificate::load`].

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::names::CertificateNames;

/// Why a brought certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OperatorCertificateError {
    /// A file cannot be read, or holds no PEM of the kind asked for.
    #[error("{path} cannot be used as {what} in PEM form: {reason}")]
    Unreadable { path: PathBuf, what: &'static str, reason: String },
    /// The key is of a kind that TLS cannot sign with.
    #[error("the key in {path} cannot sign for TLS: {reason}")]
    Key { path: PathBuf, reason: String },
    /// The leaf was made for another key.
    #[error("the certificate in {certificate} was not made for the key in {key}")]
    Mismatch { certificate: PathBuf, key: PathBuf },
    /// The leaf names no host.
    #[error("the certificate in {path} has no subjectAltName of type DNS or IP, and clients look at nothing else")]
    Nameless { path: PathBuf },
}

/// A certificate chain, leaf first, with its key and the names it covers.
#[derive(Debug)]
pub struct OperatorCertificate {
    pub(super) key: Arc<CertifiedKey>,
    dns_names: Vec<String>,
    addresses: Vec<IpAddr>,
}

impl OperatorCertificate {
    /// Reads a PEM file with a chain (leaf first) and a PEM file with its private key.
    pub fn load(chain: &Path, key: &Path, provider: &CryptoProvider) -> Result<Self, OperatorCertificateError> {
        use OperatorCertificateError as Error;
        let certificates = read_chain(chain)?;
        let (dns_names, addresses) = match certificates.first() {
            Some(leaf) => covered_names(leaf).map_err(unreadable(chain, CHAIN))?,
            None => return Err(unreadable(chain, CHAIN)("it holds no certificate".into())),
        };
        let private =
            PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, "a private key")(error.to_string()))?;
        if dns_names.is_empty() && addresses.is_empty() {
            return Err(Error::Nameless { path: chain.to_path_buf() });
        }
        let signing = provider
            .key_provider
            .load_private_key(private)
            .map_err(|error| Error::Key { path: key.to_path_buf(), reason: error.to_string() })?;
        let certified = CertifiedKey::new(certificates, signing);
        match certified.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
            Err(_) => {
                return Err(Error::Mismatch { certificate: chain.to_path_buf(), key: key.to_path_buf() });
            }
        }
        Ok(Self { key: Arc::new(certified), dns_names, addresses })
    }

    /// Tells whether the certificate satisfies a client that dialled `host`, or, where the client did not say what it
    /// dialled, one that dialled any of `names`.
    pub(super) fn covers(&self, host: Option<&str>, names: &CertificateNames) -> bool {
        host.map_or_else(|| names.iter().all(|name| self.covers_name(name)), |host| self.covers_name(host))
    }

    fn covers_name(&self, name: &str) -> bool {
        if let Ok(address) = name.parse::<IpAddr>() {
            return self.addresses.contains(&address);
        }
        self.dns_names.iter().any(|pattern| matches_dns_name(pattern, name))
    }
}

/// What the first file is called in messages.
const CHAIN: &str = "a certificate chain";

fn unreadable(path: &Path, what: &'static str) -> impl FnOnce(String) -> OperatorCertificateError {
    let path = path.to_path_buf();
    move |reason| OperatorCertificateError::Unreadable { path, what, reason }
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, OperatorCertificateError> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| unreadable(path, CHAIN)(error.to_string()))
}

fn covered_names(leaf: &CertificateDer<'_>) -> Result<(Vec<String>, Vec<IpAddr>), String> {
    let (_, certificate) = X509Certificate::from_der(leaf).map_err(|error| error.to_string())?;
    let alternatives = certificate.subject_alternative_name().map_err(|error| error.to_string())?;
    let (mut dns_names, mut addresses) = (Vec::new(), Vec::new());
    for name in alternatives.iter().flat_map(|extension| &extension.value.general_names) {
        match name {
            GeneralName::DNSName(text) => dns_names.push(text.trim_end_matches('.').to_ascii_lowercase()),
            GeneralName::IPAddress(bytes) => addresses.extend(address_from_bytes(bytes)),
            _ => {}
        }
    }
    Ok((dns_names, addresses))
}

fn address_from_bytes(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// Compares as RFC 6125, section 6.4.3: a wildcard stands for exactly one left-most label.
fn matches_dns_name(pattern: &str, name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    match pattern.strip_prefix("*.") {
        Some(parent) => name.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == parent),
        None => pattern == name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_stands_for_one_label() {
        let cases: &[(&str, &str, bool)] = &[
            ("hub.example.org", "hub.example.org", true),
            ("hub.example.org", "HUB.example.org.", true),
            ("hub.example.org", "dps.example.org", false),
            ("*.example.org", "hub.example.org", true),
            ("*.example.org", "a.hub.example.org", false),
            ("*.example.org", "example.org", false),
            ("*.example.org", ".example.org", false),
        ];
        for &(pattern, name, expected) in cases {
            assert_eq!(matches_dns_name(pattern, name), expected, "{pattern} {name}");
        }
    }
}
