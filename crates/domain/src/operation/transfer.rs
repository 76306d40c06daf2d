//! An operator has the identities of a hub imported from a file, or exported to one.

use super::resource::Place;
use crate::ids::{HubName, JobId};
use crate::transfer::{Draft, Transfer};

/// What is asked.
#[derive(Clone, Debug)]
pub enum Ask {
    /// Begins an import or export; answered once it is durable.
    Create(Box<Draft>),
    /// Tells how one stands.
    Find(JobId),
    /// Lists all that are kept.
    List,
    /// Ends one: what was not begun is not done.
    Cancel(JobId),
}

/// What an operator of the deployment asks of a hub, which it need not dial.
#[derive(Clone, Debug)]
pub struct Managed {
    /// Where the hub is.
    pub place: Place,
    /// Which it is.
    pub hub: HubName,
    /// What is asked.
    pub ask: Ask,
}

/// What is answered.
#[derive(Clone, Debug)]
pub enum Answer {
    /// An import or export.
    Transfer(Box<Transfer>),
    /// All that are kept, in the order they were asked for.
    Transfers(Vec<Transfer>),
}
