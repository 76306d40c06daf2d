//! What a store promises, by noun. [`Store`] is all of it. Every promise is a conformance test that every backend runs.
//!
//! Each verb is one atomic change (`rules.md` 11): it is durable when it answers, and it happens whole or not at all.
//! Absence is `Option`; a lost race is a value of the answer; [`crate::Error`] is for what the caller cannot decide.

mod cloud_to_device;
mod configuration;
mod decision;
mod enrollment;
mod event;
mod file;
mod identity;
mod job;
mod query;
mod registration;
mod resource;
mod route;
mod telemetry;
mod transfer;
mod twin;

pub use cloud_to_device::{CloudToDeviceStore, Enqueued, Given, Holder, Lease, Leased, Settled, Swept};
pub use configuration::{ConfigurationStore, Judged};
pub use decision::DecisionStore;
pub use enrollment::{EnrollmentStore, X509Lookup};
pub use event::{EventStore, KeptEvent};
pub use file::{Begun, ContentWriter, Ended, Ending, FileStore, Limit, NewUpload, Writing, WritingSource, Written};
pub use identity::{ActivityMark, ClaimWanted, ConnectionClaim, DeviceCounts, IdentityStore, Rotated};
pub use job::{DeviceJobsWanted, DueJob, Enlisted, JobKey, JobStage, JobStore};
pub use query::{Found, Place, QueryStore, Searched};
pub use registration::{
    Accepted, Assigned, Assignee, Claimed, Finish, Finished, OperationView, Planned, RegistrationStore, TwinSource,
};
pub use resource::{DefaultsStage, Deployment, Placed, ResourceStore, Resources, Sealed};
pub use route::{Buried, GivenUp, RouteStore, Told};
pub use telemetry::{Position, ReadFrom, StoredMessage, TelemetryLog};
pub use transfer::{DueTransfer, ImportFaults, ImportLine, ImportPiece, LinePlace, TransferKey, TransferStore};
pub use twin::{TwinChange, TwinOutcome, TwinStore};

use domain::ids::Etag;

/// The answer of a verb that creates.
#[derive(Clone, Debug, PartialEq)]
pub enum Created<T> {
    /// It was created, as given here.
    Done(T),
    /// The name is taken; nothing was written.
    AlreadyExists,
    /// There are as many as the store's [`Quotas`](domain::quota::Quotas) allow; nothing was written.
    Full,
    /// What it would belong to is not there; nothing was written.
    NoOwner,
}

/// The answer of a verb that replaces or removes under a precondition.
#[derive(Clone, Debug, PartialEq)]
pub enum Changed<T> {
    /// It was changed; for a removal this is what was removed.
    Done(T),
    /// There is nothing of that name.
    NotFound,
    /// It stands at another version; nothing was written.
    PreconditionFailed {
        /// The version it stands at.
        present: Etag,
    },
}

/// Everything durable but telemetry.
pub trait Store:
    ResourceStore
    + EnrollmentStore
    + RegistrationStore
    + IdentityStore
    + TwinStore
    + QueryStore
    + JobStore
    + TransferStore
    + ConfigurationStore
    + DecisionStore
    + CloudToDeviceStore
    + RouteStore
    + FileStore
    + EventStore
{
}

impl<S> Store for S where
    S: ResourceStore
        + EnrollmentStore
        + RegistrationStore
        + IdentityStore
        + TwinStore
        + QueryStore
        + JobStore
        + ConfigurationStore
        + TransferStore
        + DecisionStore
        + CloudToDeviceStore
        + RouteStore
        + FileStore
        + EventStore
        + ?Sized
{
}
