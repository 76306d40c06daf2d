//! An operator manages device and module identities at a hub.

use crate::identity::{Identity, IdentityDraft};
use crate::ids::{DeviceId, ModuleId, Precondition};
use crate::sas::{KeyChoice, KeyPair};

use super::Failure;

/// Which identity of a hub: a device, or one of its modules.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IdentityName {
    /// The device.
    pub device: DeviceId,
    /// The module, unless the device itself is meant.
    pub module: Option<ModuleId>,
}

impl IdentityName {
    /// A device itself.
    pub const fn device(device: DeviceId) -> Self {
        Self { device, module: None }
    }

    /// A module of a device.
    pub const fn module(device: DeviceId, module: ModuleId) -> Self {
        Self { device, module: Some(module) }
    }
}

impl std::fmt::Display for IdentityName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.module {
            Some(module) => write!(f, "{}/{module}", self.device),
            None => write!(f, "{}", self.device),
        }
    }
}

/// What an operator asks of a hub's registry.
#[derive(Clone, Debug)]
pub enum Ask {
    /// Creates (no precondition) or replaces (with one).
    Put {
        /// The identity as it shall be; missing keys are generated.
        draft: Box<IdentityDraft>,
        /// Demanded of the present identity.
        precondition: Precondition,
    },
    /// Reads one.
    Find(IdentityName),
    /// Removes one, a device with its modules. [`Precondition::None`] is refused: the wire demands a version.
    Delete {
        /// Which.
        name: IdentityName,
        /// Demanded of it.
        precondition: Precondition,
    },
    /// Lists up to `limit` devices.
    List {
        /// At most this many, 1 to 1,000.
        limit: usize,
    },
    /// Lists the modules of a device.
    ListModules(DeviceId),
    /// Does many things, each on its own, in order; at most 100.
    Bulk(Vec<BulkItem>),
    /// Makes keys of identities afresh, each on its own; at most 1,000.
    RotateKeys {
        /// Which of their keys.
        choice: KeyChoice,
        /// Whose.
        names: Vec<IdentityName>,
    },
    /// Counts devices.
    CountDevices,
    /// Counts connected devices.
    CountConnected,
}

/// One item of a bulk request.
#[derive(Clone, Debug)]
pub struct BulkItem {
    /// Whose identity.
    pub name: IdentityName,
    /// What to do with it.
    pub change: BulkChange,
}

/// What a bulk item does.
#[derive(Clone, Debug)]
pub enum BulkChange {
    /// Creates or replaces the identity, with a first twin when it creates.
    Put {
        /// The identity.
        draft: Box<IdentityDraft>,
        /// Demanded of the present one; none means create only.
        precondition: Precondition,
        /// Tags and desired properties to begin with.
        twin: Option<Box<crate::twin::ServiceChange>>,
    },
    /// Removes the identity.
    Delete {
        /// Demanded of it.
        precondition: Precondition,
    },
    /// Merges into the twin.
    PatchTwin {
        /// Tags and desired properties.
        change: Box<crate::twin::ServiceChange>,
        /// Demanded of the twin.
        precondition: Precondition,
    },
}

/// What an operator is told.
#[derive(Clone, Debug)]
pub enum Answer {
    /// One identity, keys and all.
    Identity(Box<Identity>),
    /// Several.
    Identities(Vec<Identity>),
    /// It is gone.
    Deleted,
    /// For each failed item of a bulk request: which and why.
    Bulk(Vec<(IdentityName, Failure)>),
    /// Keys that were made afresh, and those that were not.
    Rotated {
        /// Which of their keys.
        choice: KeyChoice,
        /// Whose, and both keys that they have from here on.
        keys: Vec<(IdentityName, KeyPair)>,
        /// For each that failed: which and why.
        failures: Vec<(IdentityName, Failure)>,
    },
    /// How many devices there are.
    Devices {
        /// All.
        total: u64,
        /// Those enabled.
        enabled: u64,
        /// Those disabled.
        disabled: u64,
    },
    /// How many devices are connected.
    Connected(u64),
}
