//! What a ClientHello says about the certificate and the protocol it can take.
//!
//! Pure questions over the hello; it must never change what is answered. Start reading at [`takes_key`].

use std::fmt::Write;

use rustls::crypto::CryptoProvider;
use rustls::server::ClientHello;
use rustls::sign::SigningKey;
use rustls::{CipherSuite, SignatureAlgorithm, SignatureScheme};

/// What HTTP ports offer by ALPN, in order of preference.
const HTTP_PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Most cipher suites that a log line lists; a hello may hold thousands.
const SUITES_LOGGED_MAX: usize = 40;

/// The list for a configuration that negotiates HTTP.
pub(super) fn http_protocols() -> Vec<Vec<u8>> {
    HTTP_PROTOCOLS.map(<[u8]>::to_vec).into()
}

/// Tells whether the client offers a protocol of HTTP. A client that offers others only is served without ALPN, for a
/// list without a match would end the handshake (RFC 7301, section 3.2).
pub(super) fn offers_http(hello: &ClientHello<'_>) -> bool {
    hello.alpn().is_some_and(|mut offered| offered.any(|protocol| HTTP_PROTOCOLS.contains(&protocol)))
}

/// Tells whether any suite of the client is one of ours.
pub(super) fn shares_a_suite(hello: &ClientHello<'_>, provider: &CryptoProvider) -> bool {
    provider.cipher_suites.iter().any(|ours| hello.cipher_suites().contains(&ours.suite()))
}

/// Tells whether the client can verify a signature of `key`.
pub(super) fn takes_key(hello: &ClientHello<'_>, provider: &CryptoProvider, key: &dyn SigningKey) -> bool {
    key.choose_scheme(hello.signature_schemes()).is_some() && takes_algorithm(hello, provider, key.algorithm())
}

/// Tells whether the client can verify an ECDSA signature with SHA-256 on P-256.
pub(super) fn takes_ecdsa_p256(hello: &ClientHello<'_>, provider: &CryptoProvider) -> bool {
    hello.signature_schemes().contains(&SignatureScheme::ECDSA_NISTP256_SHA256)
        && takes_algorithm(hello, provider, SignatureAlgorithm::ECDSA)
}

/// Tells whether the client can verify an RSA signature, by TLS 1.2's rules or by those of 1.3.
pub(super) fn takes_rsa(hello: &ClientHello<'_>, provider: &CryptoProvider) -> bool {
    let ours = [
        SignatureScheme::RSA_PSS_SHA256,
        SignatureScheme::RSA_PSS_SHA384,
        SignatureScheme::RSA_PSS_SHA512,
        SignatureScheme::RSA_PKCS1_SHA256,
        SignatureScheme::RSA_PKCS1_SHA384,
        SignatureScheme::RSA_PKCS1_SHA512,
    ];
    hello.signature_schemes().iter().any(|scheme| ours.contains(scheme))
        && takes_algorithm(hello, provider, SignatureAlgorithm::RSA)
}

/// Suites of TLS 1.3 go with any key; those of 1.2 name the kind (RFC 8422, section 2).
fn takes_algorithm(hello: &ClientHello<'_>, provider: &CryptoProvider, algorithm: SignatureAlgorithm) -> bool {
    provider
        .cipher_suites
        .iter()
        .filter(|ours| hello.cipher_suites().contains(&ours.suite()))
        .any(|ours| ours.usable_for_signature_algorithm(algorithm))
}

/// The client's suites for a log line, at most [`SUITES_LOGGED_MAX`] of them.
pub(super) fn suites_for_the_log(suites: &[CipherSuite]) -> String {
    let mut text = String::new();
    for suite in suites.iter().take(SUITES_LOGGED_MAX) {
        let separator = if text.is_empty() { "" } else { " " };
        let code = u16::from(*suite);
        // Writing to a String cannot fail.
        let _ = match suite.as_str() {
            Some(name) => write!(text, "{separator}{name}"),
            None => write!(text, "{separator}0x{code:04x}"),
        };
    }
    if suites.len() > SUITES_LOGGED_MAX {
        let _ = write!(text, " and {} more", suites.len() - SUITES_LOGGED_MAX);
    }
    text
}
