//! Jobs: one thing done to every twin that fulfils a condition, once, at a time (`contract/hub-service.md 8.1`).
//!
//! A job finds its devices when its time has come, keeps the list, and then goes through it: what became of each is kept
//! beside it. Knows neither who carries it out nor where it is kept. Start at [`Draft`], then [`Job`].

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::UnixTime;
use crate::ids::{Etag, JobId};
use crate::method::{Call, Response};
use crate::operation::identity::IdentityName;
use crate::twin::ServiceChange;

/// Seconds that a job may take, from when it begins.
pub const EXECUTION_S: RangeInclusive<u64> = 1..=30 * 24 * 3_600;
/// Seconds that a job may take if nobody says.
pub const EXECUTION_DEFAULT_S: u64 = 3_600;
/// Jobs of a hub that run side by side; others wait for their turn (`contract/hub-service.md 12`: 10 at most).
pub const RUNNING_PER_HUB_MAX: u32 = 10;
/// How long a job that has ended can be asked for.
pub const KEPT: Duration = Duration::from_hours(30 * 24);

/// A job as an operator asks for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    /// What it is called.
    pub id: JobId,
    /// What is done.
    pub work: Work,
    /// To whom: read by [`parse_target`](crate::query::parse_target).
    pub condition: String,
    /// When it begins; `None` is at once.
    pub starts_at: Option<UnixTime>,
    /// How long it may take.
    pub execution_max: Duration,
}

/// What a job does to each of its devices.
#[derive(Clone, Debug, PartialEq)]
pub enum Work {
    /// Merges into tags and desired properties.
    PatchTwin {
        /// What.
        change: ServiceChange,
        /// The version that each twin must stand at, if one is named.
        etag: Option<Etag>,
    },
    /// Calls a direct method.
    Invoke(Call),
}

impl Work {
    /// Its kind.
    pub const fn kind(&self) -> JobKind {
        match self {
            Self::PatchTwin { .. } => JobKind::PatchTwin,
            Self::Invoke(_) => JobKind::Invoke,
        }
    }
}

/// The kinds of jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobKind {
    /// Changes twins.
    PatchTwin,
    /// Calls direct methods.
    Invoke,
}

/// A job as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// What it is called.
    pub id: JobId,
    /// What is done.
    pub work: Work,
    /// To whom, as it was asked.
    pub condition: String,
    /// How long it may take.
    pub execution_max: Duration,
    /// When it was asked for.
    pub created_at: UnixTime,
    /// When it is to begin.
    pub starts_at: UnixTime,
    /// When it ended.
    pub ended_at: Option<UnixTime>,
    /// Where it stands.
    pub status: JobStatus,
    /// Why it failed.
    pub failure: Option<JobFailure>,
    /// How many devices it has; `None` before it begins.
    pub tally: Option<Tally>,
}

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobStatus {
    /// Its time has not come.
    Scheduled,
    /// It waits for its turn.
    Queued,
    /// It finds its devices, or goes through them.
    Running,
    /// It went through all of them, whatever became of each.
    Completed,
    /// It did not come to its end.
    Failed,
    /// It was ended by an operator.
    Cancelled,
}

/// Why a job did not come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum JobFailure {
    /// It took longer than it may.
    #[error("the job took longer than it may")]
    TimeRanOut,
    /// Its condition cannot be read any more.
    #[error("the condition of the job cannot be read")]
    Condition,
}

/// How many devices of a job stand where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Nothing was done to them.
    pub pending: u64,
    /// They are being called.
    pub running: u64,
    /// It was done.
    pub succeeded: u64,
    /// It was not done, or nobody knows.
    pub failed: u64,
}

impl Tally {
    /// All of them.
    pub const fn devices(&self) -> u64 {
        self.pending + self.running + self.succeeded + self.failed
    }
}

/// Which jobs are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this kind alone.
    pub kind: Option<JobKind>,
    /// That stand here alone.
    pub status: Option<JobStatus>,
}

/// What became of a job at one of its devices.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceJob {
    /// Which job.
    pub job: JobId,
    /// Its kind.
    pub kind: JobKind,
    /// Whose.
    pub name: IdentityName,
    /// Where it stands.
    pub status: DeviceJobStatus,
    /// When the job was asked for.
    pub created_at: UnixTime,
    /// When it began with the device; [`UnixTime::NEVER`] before.
    pub started_at: UnixTime,
    /// When it was done with the device; [`UnixTime::NEVER`] before.
    pub ended_at: UnixTime,
    /// What came of it.
    pub outcome: Option<DeviceOutcome>,
}

/// Where a job stands at one of its devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceJobStatus {
    /// Nothing was done.
    Pending,
    /// It is being called.
    Running,
    /// It was done.
    Completed,
    /// It was not done, or nobody knows.
    Failed,
    /// The job was ended before.
    Cancelled,
}

/// What came of a job at one of its devices.
#[derive(Clone, Debug, PartialEq)]
pub enum DeviceOutcome {
    /// The twin was changed.
    Patched,
    /// The device said this.
    Responded(Response),
    /// It failed.
    Failed(DeviceFault),
}

/// Why a job failed at one of its devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceFault {
    /// It is there no more.
    #[error("The device is not registered.")]
    NotFound,
    /// It is not connected, or does not listen.
    #[error("Timed out waiting for device to connect.")]
    NotOnline,
    /// It was told and did not answer.
    #[error("Timed out waiting for the response from device.")]
    Unanswering,
    /// Too many calls were under way.
    #[error("Too many calls were under way.")]
    Throttled,
    /// The twin stood at another version.
    #[error("PreconditionFailed, ETag may be invalid.")]
    PreconditionFailed,
    /// The change breaks a rule of twins.
    #[error("{0}")]
    Refused(String),
    /// The server ended while the device was called: nobody knows whether it did what it was told.
    #[error("The server ended while the device was called.")]
    Interrupted,
    /// The job took longer than it may.
    #[error("The job took longer than it may.")]
    TimeRanOut,
    /// Our fault.
    #[error("Internal error.")]
    Internal,
}

impl DeviceFault {
    /// The name of the failure, as documents have it: what a hub's service API calls the same (`contract/hub-service.md 3`).
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotFound => "DeviceNotFound",
            Self::NotOnline => "DeviceNotOnline",
            Self::Unanswering | Self::Interrupted => "GatewayTimeout",
            Self::Throttled => "ThrottlingException",
            Self::PreconditionFailed => "PreconditionFailed",
            Self::Refused(_) => "ArgumentInvalid",
            Self::TimeRanOut => "JobTimeout",
            Self::Internal => "ServerError",
        }
    }
}
