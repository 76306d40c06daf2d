//! A device or an operator reads or changes a twin.

use serde_json::{Map, Value};

use crate::identity::Identity;
use crate::ids::Precondition;
use crate::twin::{ServiceChange, Twin};

use super::identity::IdentityName;
use super::session::ConnectedDevice;

/// What is asked of a twin.
#[derive(Clone, Debug)]
pub enum Ask {
    /// The connected device reads its desired and reported properties.
    Read(ConnectedDevice),
    /// The connected device merges into its reported properties.
    Report {
        /// Who.
        device: ConnectedDevice,
        /// The patch: text as received, since only its JSON form decides whether it is one.
        patch: String,
        /// The reported version the device builds on, if it says so.
        expected_version: Option<u64>,
    },
    /// An operator reads the whole twin.
    Find(IdentityName),
    /// An operator merges into tags and desired properties.
    Patch {
        /// Whose.
        name: IdentityName,
        /// What.
        change: Box<ServiceChange>,
        /// Demanded of the twin.
        precondition: Precondition,
    },
    /// An operator replaces tags and desired properties.
    Replace {
        /// Whose.
        name: IdentityName,
        /// What.
        change: Box<ServiceChange>,
        /// Demanded of the twin.
        precondition: Precondition,
    },
}

/// What is answered.
#[derive(Clone, Debug)]
pub enum Answer {
    /// To the device: the document with versions and without metadata.
    Document(Map<String, Value>),
    /// To the device: the reported properties stand at this version.
    Reported {
        /// The new version.
        version: u64,
    },
    /// To an operator: the twin and the identity it belongs to.
    Twin(Box<Twin>, Box<Identity>),
}

/// A change of the desired properties, for the device it concerns.
#[derive(Clone, Debug)]
pub struct DesiredChange {
    /// The version it leads to; changes arrive in this order, without gaps or repeats.
    pub version: u64,
    /// The merge patch, or the whole document if it was replaced; `$version` included.
    pub patch: std::sync::Arc<Map<String, Value>>,
}
