//! An operator manages enrollments and registration records of a provisioning service.

use crate::enrollment::{Attestation, Enrollment, EntryKind, EntryName};
use crate::ids::{EnrollmentGroupId, Precondition, RegistrationId};

use super::registration::RegistrationState;
use super::{Page, PageRequest};

/// What an operator asks about enrollments.
#[derive(Clone, Debug)]
pub enum Ask {
    /// Creates the entry (no precondition) or replaces it.
    Put {
        /// The entry as it shall be; what it leaves out is kept or generated (`domain::enrollment::merge`).
        draft: Box<EnrollmentDraft>,
        /// Demanded of the present entry.
        precondition: Precondition,
    },
    /// Reads one entry, keys hidden.
    Find(EntryName),
    /// Reads the attestation mechanism of one entry, keys shown.
    FindAttestation(EntryName),
    /// Removes one entry.
    Delete {
        /// Which.
        name: EntryName,
        /// Demanded of it.
        precondition: Precondition,
    },
    /// Lists entries of one kind.
    List {
        /// Which kind.
        kind: EntryKind,
        /// Which page.
        page: PageRequest,
    },
    /// Does many things, each on its own, in order.
    Bulk(Vec<BulkItem>),
    /// Reads the registration record of one device.
    FindRegistration(RegistrationId),
    /// Removes the registration record of one device; its identity at the hub stays.
    DeleteRegistration {
        /// Whose.
        registration_id: RegistrationId,
        /// Demanded of it.
        precondition: Precondition,
    },
    /// Lists the registration records that a group admitted.
    ListRegistrations {
        /// The group.
        group: EnrollmentGroupId,
        /// Which page.
        page: PageRequest,
    },
}

/// An enrollment as an operator writes it: certificates may be named by what is stored, keys may be missing.
pub type EnrollmentDraft = crate::enrollment::Draft;

/// One item of a bulk request.
#[derive(Clone, Debug)]
pub enum BulkItem {
    /// Creates or replaces.
    Put {
        /// The entry, or why the item could not be read.
        draft: Box<EnrollmentDraft>,
        /// Demanded of the present entry.
        precondition: Precondition,
    },
    /// Removes.
    Delete {
        /// Which.
        name: EntryName,
        /// Demanded of it.
        precondition: Precondition,
    },
}

/// What an operator is told.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The entry, keys and all; the dialect shows what the response may show.
    Entry(Box<Enrollment>),
    /// The entry with the registration record of its device (individual enrollments).
    EntryAndState(Box<Enrollment>, Box<RegistrationState>),
    /// The attestation mechanism, keys and all.
    Attestation(Box<Attestation>),
    /// It is gone.
    Deleted,
    /// A page of entries.
    Entries(Page<Enrollment>),
    /// For each failed item of a bulk request: which and why.
    Bulk(Vec<(EntryName, super::Failure)>),
    /// A registration record.
    Registration(Box<RegistrationState>),
    /// A page of registration records.
    Registrations(Page<RegistrationState>),
}
