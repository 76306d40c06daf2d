//! An operator asks why a device was admitted or refused.

use crate::decision::Decision;
use crate::ids::TrackingId;

/// What is asked.
#[derive(Clone, Debug)]
pub enum Ask {
    /// The decision of one tracking ID.
    Find(TrackingId),
    /// The latest decisions about a registration ID, on any provisioning service, newest first.
    List {
        /// As the device wrote it; compared without case.
        registration_id: String,
        /// At most this many.
        limit: usize,
    },
}

/// What is answered.
#[derive(Clone, Debug)]
pub enum Answer {
    /// One decision.
    Decision(Box<Decision>),
    /// Several.
    Decisions {
        /// Newest first.
        decisions: Vec<Decision>,
        /// Refusals, of whomever, that could not be kept since the start of the server (`rules.md` 7).
        lost: u64,
    },
}
