//! Client certificates in the handshake: asked for, never judged.
//!
//! Expired, self-signed and odd certificates must reach the application, which answers in its own protocol
//! (`contract/dps-device.md 7`). What the handshake does establish, and the only thing, is that the peer holds the key
//! of the leaf it sent. Nothing may treat "sent a certificate" as "is authenticated". Start reading at
//! [`AcceptAnyClient`].

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use webpki::RawPublicKeyEntity;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Most certificates in a presented chain (`rules.md` 27 of the design: bounds before proof).
pub const CHAIN_LEN_MAX: usize = 10;

/// Most bytes in a presented chain, all certificates together.
pub const CHAIN_BYTES_MAX: usize = 64 * 1024;

/// Asks for a certificate with an empty CA list and takes whatever comes, within bounds.
#[derive(Debug)]
pub struct AcceptAnyClient {
    algorithms: WebPkiSupportedAlgorithms,
}

impl AcceptAnyClient {
    /// A verifier that checks handshake signatures with the algorithms of `provider`.
    pub fn new(provider: &CryptoProvider) -> Arc<Self> {
        Arc::new(Self { algorithms: provider.signature_verification_algorithms })
    }
}

impl ClientCertVerifier for AcceptAnyClient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let bytes = intermediates.iter().fold(end_entity.len(), |bytes, next| bytes.saturating_add(next.len()));
        if intermediates.len() >= CHAIN_LEN_MAX || bytes > CHAIN_BYTES_MAX {
            return Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure));
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
            .or_else(|error| self.verify_odd(error, message, cert, dss))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
            .or_else(|error| self.verify_odd(error, message, cert, dss))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl AcceptAnyClient {
    /// Verifies for the certificates that webpki will not read and that devices nevertheless carry: version 1, and
    /// unknown critical extensions. Any other `error` stands.
    fn verify_odd(
        &self,
        error: Error,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if !is_odd_but_welcome(&error) {
            return Err(error);
        }
        let bad_encoding = Error::InvalidCertificate(CertificateError::BadEncoding);
        let Ok((_, certificate)) = X509Certificate::from_der(cert) else {
            return Err(bad_encoding);
        };
        let spki = SubjectPublicKeyInfoDer::from(certificate.public_key().raw);
        let Ok(key) = RawPublicKeyEntity::try_from(&spki) else {
            return Err(bad_encoding);
        };
        // All algorithms of the scheme are tried, since in TLS 1.2 an ECDSA scheme does not name the curve. TLS 1.3
        // does; trying the others is no weakening, for each of them needs the same private key.
        let scheme = self.algorithms.mapping.iter().find(|(scheme, _)| *scheme == dss.scheme);
        let verified = scheme
            .into_iter()
            .flat_map(|(_, algorithms)| algorithms.iter())
            .any(|algorithm| key.verify_signature(*algorithm, message, dss.signature()).is_ok());
        if verified {
            Ok(HandshakeSignatureValid::assertion())
        } else {
            Err(Error::InvalidCertificate(CertificateError::BadSignature))
        }
    }
}

/// Tells whether webpki refused to read a certificate for its version or for a critical extension it does not know.
fn is_odd_but_welcome(error: &Error) -> bool {
    let Error::InvalidCertificate(CertificateError::Other(other)) = error else {
        return false;
    };
    matches!(
        other.0.downcast_ref::<webpki::Error>(),
        Some(webpki::Error::UnsupportedCertVersion | webpki::Error::UnsupportedCriticalExtension)
    )
}
