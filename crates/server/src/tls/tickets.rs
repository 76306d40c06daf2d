//! Session tickets of a bounded size.
//!
//! A ticket carries the chain that the client presented, and its length field has sixteen bits (RFC 8446, section
//! 4.6.1). A session too large for a sensible ticket gets none, and that client handshakes in full every time.

use std::sync::Arc;

use rustls::server::ProducesTickets;

/// Most bytes of a session that go into a ticket: some ten certificates of ordinary size.
const SESSION_BYTES_MAX: usize = 16 * 1024;

/// Rotating, encrypted tickets; see the module.
#[derive(Debug)]
pub(super) struct BoundedTickets(Arc<dyn ProducesTickets>);

impl BoundedTickets {
    /// Tickets under keys made here and changed every six hours, each accepted for up to twelve.
    pub(super) fn new() -> Result<Self, rustls::Error> {
        rustls::crypto::aws_lc_rs::Ticketer::new().map(Self)
    }
}

impl ProducesTickets for BoundedTickets {
    fn enabled(&self) -> bool {
        self.0.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.0.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        if plain.len() > SESSION_BYTES_MAX {
            return None;
        }
        self.0.encrypt(plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.0.decrypt(cipher)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_too_large_for_a_ticket_gets_none() {
        let tickets = BoundedTickets::new().expect("randomness");
        let session = vec![7; SESSION_BYTES_MAX];
        let ticket = tickets.encrypt(&session).expect("a ticket");
        assert_eq!(tickets.decrypt(&ticket).expect("our own ticket"), session);
        assert!(tickets.encrypt(&vec![7; SESSION_BYTES_MAX + 1]).is_none());
    }
}
