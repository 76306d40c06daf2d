//! The SASL mechanisms that Azure's clients choose from, and what PLAIN says (RFC 4616; `contract/dps-device.md 4.1`,
//! `contract/hub-device.md 4.1`).

use domain::operation::Secret;
use domain::sas::{InvalidToken, SasToken};
use proto::amqp::Symbol;

use super::Address;

/// The C client's for connections that prove themselves on links.
const MSSBCBS: &str = "MSSBCBS";
/// A user name and a password.
pub(super) const PLAIN: &str = "PLAIN";
/// The challenge of a TPM.
pub(super) const TPM: &str = "TPM";
/// The Java client's for connections that prove themselves on links.
const ANONYMOUS: &str = "ANONYMOUS";
/// By the certificate of the TLS handshake.
const EXTERNAL: &str = "EXTERNAL";

/// The mechanisms in the order offered (`rules.md` 24).
pub(super) fn mechanisms(has_certificate: bool) -> Vec<Symbol> {
    let mut offered = [MSSBCBS, PLAIN, TPM, ANONYMOUS].map(Symbol::from_static).to_vec();
    if has_certificate {
        offered.push(Symbol::from_static(EXTERNAL));
    }
    offered
}

/// What came by PLAIN. Nothing of it is proven.
#[derive(Debug)]
pub struct Plain {
    user: Box<str>,
    password: Secret,
}

/// Why an initial response is none of PLAIN's. Says nothing of the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPlain {
    /// Not three parts with zero bytes between them.
    #[error("the response of PLAIN has not three parts")]
    Parts,
    /// A part is no text, or too long.
    #[error("the response of PLAIN holds something else than text")]
    NotText,
}

impl Plain {
    /// Reads an initial response: whom to act for, which is not looked at, the user name and the password.
    pub fn parse(response: &[u8]) -> Result<Self, InvalidPlain> {
        let mut parts = response.split(|byte| *byte == 0);
        let (Some(_), Some(user), Some(password), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(InvalidPlain::Parts);
        };
        let text = |part| std::str::from_utf8(part).map_err(|_| InvalidPlain::NotText);
        Ok(Self { user: text(user)?.into(), password: Secret::new(text(password)?) })
    }

    /// The user name.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The password: a signature at a provisioning service, a signature or a key at a hub.
    pub const fn password(&self) -> &Secret {
        &self.password
    }

    /// The password, read as a signature.
    pub fn token(&self) -> Result<SasToken, InvalidToken> {
        SasToken::parse(self.password.expose())
    }

    /// The ID scope and the registration ID, if the user name is one of a provisioning service.
    pub fn registration(&self) -> Option<(String, String)> {
        Address::parse(&self.user)?.registration()
    }
}
