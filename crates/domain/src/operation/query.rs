//! An operator asks for twins and jobs in the query language.

use serde_json::{Map, Value};

use super::{Page, PageRequest};
use crate::identity::Identity;
use crate::job::DeviceJob;
use crate::twin::Twin;

/// What is asked.
#[derive(Clone, Debug)]
pub enum Ask {
    /// Runs a query and gives a page of its answer.
    Run {
        /// The text, as it was sent.
        text: String,
        /// Which page.
        page: PageRequest,
    },
}

/// What is answered.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Whole twins.
    Twins(Page<(Twin, Identity)>),
    /// What became of jobs, device by device.
    DeviceJobs(Page<DeviceJob>),
    /// Rows of columns or groups.
    Rows(Page<Map<String, Value>>),
}
