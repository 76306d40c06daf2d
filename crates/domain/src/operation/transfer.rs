//! An operator has the identities of a hub imported from a file, or exported to one.

use crate::ids::JobId;
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

/// What is answered.
#[derive(Clone, Debug)]
pub enum Answer {
    /// An import or export.
    Transfer(Box<Transfer>),
    /// All that are kept, in the order they were asked for.
    Transfers(Vec<Transfer>),
}
