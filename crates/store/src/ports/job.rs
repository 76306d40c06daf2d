//! Jobs, the devices that each has found, and what became of it at each (`contract/hub-service.md 8.1`).
//!
//! A job that has begun first has its devices enlisted, piece by piece; then it is carried through the list. Each verb is
//! a bounded piece of that, so that a job goes on where it stood, whoever ended meanwhile: nothing is done twice.

use async_trait::async_trait;
use domain::clock::UnixTime;
use domain::ids::{HubKey, JobId};
use domain::job::{DeviceJob, DeviceOutcome, Draft, Filter, Job, JobFailure, Work};
use domain::operation::identity::IdentityName;
use domain::operation::{Page, PageRequest};

use super::{Created, Place, Searched};
use crate::Error;

/// Finds a job for who carries it out; never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct JobKey(pub i64);

/// A job whose time has come and that has not ended.
#[derive(Clone, Debug, PartialEq)]
pub struct DueJob {
    /// By what the other verbs find it.
    pub key: JobKey,
    /// Where.
    pub hub: HubKey,
    /// What it is called.
    pub id: JobId,
    /// What is done.
    pub work: Work,
    /// To whom.
    pub condition: String,
    /// When it must have ended; `None` before it has begun.
    pub deadline: Option<UnixTime>,
    /// What is to be done next.
    pub stage: JobStage,
}

/// What a job does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobStage {
    /// It looks for its devices, behind this place.
    Enlisting {
        /// Where it stood.
        after: Option<Place>,
    },
    /// It goes through those that it found.
    Working,
}

/// Devices that a job found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enlisted {
    /// Where it stood: another piece that begins there is passed over.
    pub after: Option<Place>,
    /// Whom it found.
    pub found: Vec<(Place, IdentityName)>,
    /// Where it goes on; `None` at the end.
    pub next: Option<Place>,
}

/// Which rows of jobs are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceJobsWanted {
    /// Of this job alone.
    pub job: Option<String>,
    /// Of this device and its modules alone.
    pub device: Option<String>,
}

/// Keeps jobs.
#[async_trait]
pub trait JobStore: Send + Sync {
    /// Keeps a job until its time.
    async fn create_job(&self, hub: HubKey, draft: Draft, now: UnixTime) -> Result<Created<Job>, Error>;

    /// A job as it stands.
    async fn find_job(&self, hub: HubKey, id: &JobId, now: UnixTime) -> Result<Option<Job>, Error>;

    /// A page of the jobs of a hub, in the order they were created in.
    async fn list_jobs(
        &self,
        hub: HubKey,
        filter: Filter,
        page: PageRequest,
        now: UnixTime,
    ) -> Result<Page<Job>, Error>;

    /// Ends a job; one that has ended stays as it is. Calls that are under way are not cut short.
    async fn cancel_job(&self, hub: HubKey, id: &JobId, now: UnixTime) -> Result<Option<Job>, Error>;

    /// Jobs whose time has come, of each hub the [`RUNNING_PER_HUB_MAX`](domain::job::RUNNING_PER_HUB_MAX) whose time came
    /// first.
    async fn list_due_jobs(&self, now: UnixTime) -> Result<Vec<DueJob>, Error>;

    /// Takes down devices that a job found; it has begun then. Does nothing for a job that has ended, or does not stand
    /// where the piece begins.
    async fn enlist_devices(&self, job: JobKey, piece: Enlisted, now: UnixTime) -> Result<(), Error>;

    /// Merges a job's change into the next up to `limit` twins of its list; how many it went through. A twin and what is
    /// noted of it change together.
    async fn patch_listed_twins(&self, job: JobKey, limit: usize, now: UnixTime) -> Result<usize, Error>;

    /// Notes that the next up to `limit` devices of a job's list are being called; who they are.
    async fn begin_calls(&self, job: JobKey, limit: usize, now: UnixTime) -> Result<Vec<(Place, IdentityName)>, Error>;

    /// Notes what came of a call, also for a job that has ended meanwhile. Does nothing if it is not under way.
    async fn end_call(&self, job: JobKey, device: Place, outcome: DeviceOutcome, now: UnixTime) -> Result<(), Error>;

    /// Fails all calls that are noted to be under way: who made them has ended, so that nobody hears what comes of them.
    async fn interrupt_calls(&self, now: UnixTime) -> Result<(), Error>;

    /// Fails a job; with it, the devices to which nothing was done. One that has ended stays as it is.
    async fn fail_job(&self, job: JobKey, failure: JobFailure, now: UnixTime) -> Result<(), Error>;

    /// Of what became of the jobs of a hub, the next up to `limit` rows behind `after`, though not many large ones.
    async fn find_device_jobs(
        &self,
        hub: HubKey,
        wanted: &DeviceJobsWanted,
        after: Option<Place>,
        limit: usize,
    ) -> Result<Searched<Vec<(Place, DeviceJob)>>, Error>;

    /// Forgets jobs that ended before a moment, with their rows, of which at most `limit`; how many rows and jobs.
    async fn prune_jobs(&self, before: UnixTime, limit: usize) -> Result<usize, Error>;
}
