//! Signatures that were found good, remembered with the certificates themselves.
//!
//! Whether one encoding signed another never changes, and verifying it is the dearest thing a registration asks for: an
//! intermediate is met with every device of its group, a leaf with every poll. Only good signatures are remembered, by the
//! digests of both encodings; dates, constraints and trust are judged afresh each time. Start at [`Verified`].

use std::sync::{Mutex, OnceLock, PoisonError};

/// Names an encoding.
type Digest = [u8; 32];

/// Authorities that are remembered for one issuer; the oldest gives way.
const SUBORDINATES_MAX: usize = 16;

/// What is remembered with one certificate.
#[derive(Debug, Default)]
pub(super) struct Verified {
    signer: OnceLock<Digest>,
    subordinates: Mutex<Subordinates>,
}

#[derive(Debug, Default)]
struct Subordinates {
    digests: Vec<Digest>,
    next: usize,
}

impl Verified {
    /// Whether the certificate was found to be signed by `issuer`.
    pub(super) fn is_by(&self, issuer: &Digest) -> bool {
        self.signer.get() == Some(issuer)
    }

    /// Whether the certificate was found to have signed `subordinate`.
    pub(super) fn has_signed(&self, subordinate: &Digest) -> bool {
        self.subordinates.lock().unwrap_or_else(PoisonError::into_inner).digests.contains(subordinate)
    }

    /// Remembers that `issuer` signed the certificate. The first issuer stays; there is hardly ever another.
    pub(super) fn note_signer(&self, issuer: Digest) {
        let _ = self.signer.set(issuer);
    }

    /// Remembers that the certificate signed `subordinate`.
    pub(super) fn note_subordinate(&self, subordinate: Digest) {
        let mut subordinates = self.subordinates.lock().unwrap_or_else(PoisonError::into_inner);
        let Subordinates { digests, next } = &mut *subordinates;
        match digests.get_mut(*next) {
            Some(oldest) => *oldest = subordinate,
            None => digests.push(subordinate),
        }
        *next = (*next + 1) % SUBORDINATES_MAX;
    }
}

#[cfg(test)]
mod tests {
    use super::super::maker::Plan;
    use super::*;
    use crate::certificate::Certificate;

    #[test]
    fn a_good_signature_is_remembered_for_these_encodings_alone() {
        let root = Plan::authority("root").self_signed();
        let stranger = Plan::authority("root").self_signed();
        let intermediate = Plan::authority("intermediate").signed_by(&root);
        let leaf = Plan::leaf("leaf").signed_by(&intermediate);
        for _ in 0..2 {
            assert!(intermediate.certificate.is_signed_by(&root.certificate));
            assert!(leaf.certificate.is_signed_by(&intermediate.certificate));
            assert!(!intermediate.certificate.is_signed_by(&stranger.certificate));
            assert!(!leaf.certificate.is_signed_by(&root.certificate));
        }
        // The same intermediate, read from another connection, is known to the root; the leaf is not kept by its issuer.
        let again = Certificate::from_der(intermediate.certificate.der()).unwrap();
        assert!(root.certificate.0.verified.has_signed(again.sha256()));
        assert!(!again.0.verified.is_by(root.certificate.sha256()));
        assert!(!intermediate.certificate.0.verified.has_signed(leaf.certificate.sha256()));
    }

    #[test]
    fn a_changed_byte_is_another_certificate() {
        let root = Plan::authority("root").self_signed();
        let intermediate = Plan::authority("intermediate").signed_by(&root);
        assert!(intermediate.certificate.is_signed_by(&root.certificate));
        let mut der = intermediate.certificate.der().to_vec();
        let last = der.last_mut().unwrap();
        *last ^= 1;
        if let Ok(forged) = Certificate::from_der(&der) {
            assert!(!forged.is_signed_by(&root.certificate));
        }
    }

    #[test]
    fn an_issuer_remembers_so_many_and_no_more() {
        let verified = Verified::default();
        let digest = |number: usize| [number as u8; 32];
        for number in 0..=SUBORDINATES_MAX {
            verified.note_subordinate(digest(number));
        }
        assert!(!verified.has_signed(&digest(0)), "the oldest gave way");
        assert!((1..=SUBORDINATES_MAX).all(|number| verified.has_signed(&digest(number))));
    }
}
