//! An operator has something done to many devices of a hub, once, at a time.

use crate::ids::JobId;
use crate::job::{Draft, Filter, Job};

use super::{Page, PageRequest};

/// What is asked.
#[derive(Clone, Debug)]
pub enum Ask {
    /// Schedules a job; answered once it is durable.
    Schedule(Box<Draft>),
    /// Tells how a job stands.
    Find(JobId),
    /// Ends a job: what was not begun is not done.
    Cancel(JobId),
    /// Lists jobs.
    List {
        /// Which; `None` for those that no job is among.
        filter: Option<Filter>,
        /// Which page.
        page: PageRequest,
    },
}

/// What is answered.
#[derive(Clone, Debug)]
pub enum Answer {
    /// A job.
    Job(Box<Job>),
    /// There is no such job, which is no failure (`contract/hub-service.md 8.1`).
    Unknown(JobId),
    /// Jobs.
    Jobs(Page<Job>),
}
