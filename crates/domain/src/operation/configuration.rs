//! An operator manages configurations of many twins, and applies content to one device.

use std::collections::BTreeMap;

use crate::configuration::{Configuration, Content, Draft};
use crate::ids::{ConfigurationId, DeviceId, Precondition};

/// What is asked.
#[derive(Clone, Debug)]
pub enum Ask {
    /// Creates a configuration, or replaces one that is named by version.
    Put {
        /// What.
        draft: Box<Draft>,
        /// Demanded of the one that is there; none creates.
        precondition: Precondition,
    },
    /// Reads one with its counts.
    Find(ConfigurationId),
    /// Lists up to so many.
    List {
        /// How many.
        limit: usize,
    },
    /// Removes one: what it has put is withdrawn.
    Delete {
        /// Which.
        id: ConfigurationId,
        /// Demanded of it.
        precondition: Precondition,
    },
    /// Says what is wrong with a condition and with queries.
    Test {
        /// The condition.
        target: String,
        /// The queries, by name.
        metrics: BTreeMap<String, String>,
    },
    /// Puts content into the twins of one edge device, at once.
    Apply {
        /// Which.
        device: DeviceId,
        /// What.
        content: Box<Content>,
    },
}

/// A configuration, and how many rows its queries find.
#[derive(Clone, Debug)]
pub struct Counted {
    /// The configuration.
    pub configuration: Configuration,
    /// Rows, by the names of its metrics; without those that are too many to be counted.
    pub metrics: BTreeMap<String, u64>,
    /// What edge agents report of it, if it is a deployment and that can be counted.
    pub reported: Option<Reported>,
}

/// How many edge agents report of a deployment that applies to their devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reported {
    /// That they did as they were told.
    pub successful: u64,
    /// That they could not.
    pub failed: u64,
}

/// What is answered.
#[derive(Clone, Debug)]
pub enum Answer {
    /// One.
    Configuration(Box<Counted>),
    /// Several.
    Configurations(Vec<Counted>),
    /// It is gone.
    Deleted,
    /// What is wrong, in words.
    Tested {
        /// With the condition.
        target: Option<String>,
        /// With queries, by name.
        metrics: BTreeMap<String, String>,
    },
    /// It is put.
    Applied,
}
