//! Jobs: one thing done to every device that fulfils a condition (`contract/hub-service.md 8.1`).
//!
//! The store has every job, the list of its devices and what became of each; the worker moves jobs on a bounded piece at
//! a time, so that they share the writer with everybody else and go on where they stood after a crash. A call that was
//! under way then is not made again: nobody knows whether the device did what it was told. Start at
//! [`Service::run_jobs`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use domain::access::Action;
use domain::ids::HubKey;
use domain::job::{DeviceFault, DeviceOutcome, Draft, EXECUTION_S, JobFailure, KEPT, Work};
use domain::method::Call;
use domain::operation::identity::IdentityName;
use domain::operation::job::{Answer, Ask};
use domain::operation::{Caller, ErrorKind, Page};
use domain::query::parse_target;
use store::ports::{Created, DueJob, Enlisted, JobKey, JobStage, Place};
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};
use tokio::time::MissedTickBehavior;

use crate::Service;
use crate::error::Error;
use crate::tasks::AFTER_FAILURE;

/// How late a job may begin or end whose time has come.
const IDLE: Duration = Duration::from_secs(1);
/// Devices that one verb puts on the list of a job, which holds up all others (`rules.md` 11).
const FOUND_MAX: usize = 200;
/// Twins that one verb changes, which holds up all others.
const TWINS_MAX: usize = 16;
/// Calls that one verb notes to be under way.
const CALLS_BEGUN_MAX: usize = 64;
/// Calls of the jobs of one hub under way at once: devices that keep their callers waiting hold up no other hub.
const CALLS_PER_HUB_MAX: usize = 512;
/// How often jobs are forgotten that ended long ago.
const PRUNE_INTERVAL: Duration = Duration::from_hours(1);
/// Rows of jobs forgotten by one verb, which holds up all others.
const PRUNE_BATCH: usize = 500;

/// Calls under way.
#[derive(Default)]
struct Calls {
    tasks: JoinSet<()>,
    /// Room for more at each hub that has any; what a call takes of it comes back however the call ends.
    room: HashMap<HubKey, Arc<Semaphore>>,
}

impl Calls {
    /// The room at a hub.
    fn room_at(&mut self, hub: HubKey) -> &Arc<Semaphore> {
        self.room.entry(hub).or_insert_with(|| Arc::new(Semaphore::new(CALLS_PER_HUB_MAX)))
    }

    /// Looks at calls that have ended.
    fn look_at_ended(&mut self) {
        while let Some(ended) = self.tasks.try_join_next() {
            look_at(ended);
        }
        self.room.retain(|_, room| room.available_permits() < CALLS_PER_HUB_MAX);
    }
}

impl Service {
    /// Performs `ask` at the hub that the caller dialled.
    pub(crate) async fn perform_job(&self, caller: &Caller, ask: Ask) -> Result<Answer, Error> {
        let at = |id: &str| ["jobs", "v2", id].map(str::to_owned);
        let store = &self.0.store;
        match ask {
            Ask::Schedule(draft) => {
                let hub = self.authorize_at_hub(caller, Action::ScheduleJobs, &at(draft.id.as_str()))?;
                self.schedule(hub.key, *draft).await
            }
            Ask::Find(id) => {
                let hub = self.authorize_at_hub(caller, Action::ScheduleJobs, &at(id.as_str()))?;
                let job = store.find_job(hub.key, &id, self.now()).await?;
                Ok(job.map_or(Answer::Unknown(id), |job| Answer::Job(Box::new(job))))
            }
            Ask::Cancel(id) => {
                let hub = self.authorize_at_hub(caller, Action::ScheduleJobs, &at(id.as_str()))?;
                let job = store.cancel_job(hub.key, &id, self.now()).await?;
                let job = job.ok_or_else(|| Error::new(ErrorKind::JobNotFound, "There is no such job."))?;
                Ok(Answer::Job(Box::new(job)))
            }
            Ask::List { filter, page } => {
                let hub = self.authorize_at_hub(caller, Action::ScheduleJobs, &at("query"))?;
                let jobs = match filter {
                    Some(filter) => store.list_jobs(hub.key, filter, page, self.now()).await?,
                    None => Page { items: Vec::new(), next: None },
                };
                Ok(Answer::Jobs(jobs))
            }
        }
    }

    async fn schedule(&self, hub: HubKey, draft: Draft) -> Result<Answer, Error> {
        parse_target(&draft.condition)
            .map_err(|invalid| Error::invalid(format!("The condition of the job, {invalid}.")))?;
        if !EXECUTION_S.contains(&draft.execution_max.as_secs()) {
            let (least, most) = (EXECUTION_S.start(), EXECUTION_S.end());
            return Err(Error::invalid(format!("A job may take {least} to {most} seconds.")));
        }
        if let Work::PatchTwin { change, .. } = &draft.work {
            change.check().map_err(|error| Error::invalid(format!("{error}.")))?;
        }
        let id = draft.id.clone();
        match self.0.store.create_job(hub, draft, self.now()).await? {
            Created::Done(job) => {
                tracing::info!(job.id = %id, kind = ?job.work.kind(), "job scheduled");
                self.0.jobs.notify_one();
                Ok(Answer::Job(Box::new(job)))
            }
            Created::AlreadyExists => Err(Error::new(ErrorKind::JobExists, format!("A job with ID '{id}' exists."))),
            Created::Full => Err(Error::new(ErrorKind::TooManyJobs, "The hub has as many jobs as it may.")),
            Created::NoOwner => Err(Error::new(ErrorKind::HubNotFound, "The hub was not found.")),
        }
    }

    /// Carries jobs out until the future is dropped.
    pub async fn run_jobs(&self) {
        let mut calls = Calls::default();
        while let Err(error) = self.0.store.interrupt_calls(self.now()).await {
            self.fail(error.into());
            tokio::time::sleep(AFTER_FAILURE).await;
        }
        loop {
            calls.look_at_ended();
            match self.advance_jobs(&mut calls).await {
                Ok(true) => {}
                Ok(false) => tokio::select! {
                    () = self.0.jobs.notified() => {}
                    () = tokio::time::sleep(IDLE) => {}
                    Some(ended) = calls.tasks.join_next() => look_at(ended),
                },
                Err(error) => {
                    self.fail(error);
                    tokio::time::sleep(AFTER_FAILURE).await;
                }
            }
        }
    }

    /// Moves each job on that is due; whether any moved. One that fails holds up no other.
    async fn advance_jobs(&self, calls: &mut Calls) -> Result<bool, Error> {
        let (mut has_moved, mut failure) = (false, None);
        for job in self.0.store.list_due_jobs(self.now()).await? {
            match self.advance_job(&job, calls).await {
                Ok(moved) => has_moved |= moved,
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(has_moved), Err)
    }

    async fn advance_job(&self, job: &DueJob, calls: &mut Calls) -> Result<bool, Error> {
        let now = self.now();
        if job.deadline.is_some_and(|deadline| deadline <= now) {
            self.fail_job(job, JobFailure::TimeRanOut).await?;
            return Ok(true);
        }
        match (job.stage, &job.work) {
            (JobStage::Enlisting { after }, _) => self.enlist(job, after).await,
            (JobStage::Working, Work::PatchTwin { .. }) => {
                Ok(self.0.store.patch_listed_twins(job.key, TWINS_MAX, now).await? > 0)
            }
            (JobStage::Working, Work::Invoke(call)) => self.call_listed(job, call, calls).await,
        }
    }

    async fn fail_job(&self, job: &DueJob, failure: JobFailure) -> Result<(), Error> {
        tracing::warn!(job.id = %job.id, %failure, "a job failed");
        Ok(self.0.store.fail_job(job.key, failure, self.now()).await?)
    }

    /// Puts the next devices that fulfil the condition on the job's list.
    async fn enlist(&self, job: &DueJob, after: Option<Place>) -> Result<bool, Error> {
        let Ok(plan) = parse_target(&job.condition) else {
            self.fail_job(job, JobFailure::Condition).await?;
            return Ok(true);
        };
        let searched = self.0.store.find_twins(job.hub, &Arc::new(plan), after, FOUND_MAX).await?;
        let found = searched.result.into_iter().map(|found| (found.place, found.identity.name)).collect();
        let piece = Enlisted { after, found, next: searched.next };
        self.0.store.enlist_devices(job.key, piece, self.now()).await?;
        Ok(true)
    }

    /// Calls the next devices of the job's list, as far as there is room.
    #[expect(clippy::disallowed_methods, reason = "the set is the worker's own: it looks at each task's end")]
    async fn call_listed(&self, job: &DueJob, call: &Call, calls: &mut Calls) -> Result<bool, Error> {
        let room = Arc::clone(calls.room_at(job.hub));
        let free = room.available_permits().min(CALLS_BEGUN_MAX);
        if free == 0 {
            return Ok(false);
        }
        let begun = self.0.store.begin_calls(job.key, free, self.now()).await?;
        let has_begun = !begun.is_empty();
        for (device, name) in begun {
            let (service, hub, key, call) = (self.clone(), job.hub, job.key, call.clone());
            // Nobody else takes any of it.
            let taken = Arc::clone(&room).try_acquire_owned();
            calls.tasks.spawn(async move {
                let _taken = taken;
                service.call_for_job((hub, name), (key, device), call).await;
            });
        }
        Ok(has_begun)
    }

    async fn call_for_job(&self, (hub, name): (HubKey, IdentityName), (job, device): (JobKey, Place), call: Call) {
        let outcome = match self.call_method(hub, name, call).await {
            Ok((_, response)) => DeviceOutcome::Responded(response),
            Err(error) => DeviceOutcome::Failed(fault_of(self.fail(error).kind)),
        };
        let noted = self.insist(|| self.0.store.end_call(job, device, outcome.clone(), self.now())).await;
        if let Err(error) = noted {
            self.fail(error.into());
        }
    }

    /// Forgets jobs that ended long ago, until the future is dropped.
    pub async fn run_job_pruning(&self) {
        let mut ticks = tokio::time::interval(PRUNE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(error) = self.prune_jobs().await {
                self.fail(error);
            }
        }
    }

    async fn prune_jobs(&self) -> Result<(), Error> {
        let before = self.now().minus(KEPT);
        while self.0.store.prune_jobs(before, PRUNE_BATCH).await? > 0 {}
        Ok(())
    }
}

fn look_at(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a call of a job panicked");
    }
}

/// What a failed call is to a job.
fn fault_of(kind: ErrorKind) -> DeviceFault {
    match kind {
        ErrorKind::DeviceNotFound | ErrorKind::ModuleNotFound => DeviceFault::NotFound,
        ErrorKind::DeviceNotOnline => DeviceFault::NotOnline,
        ErrorKind::DeviceUnanswering => DeviceFault::Unanswering,
        ErrorKind::Throttled => DeviceFault::Throttled,
        // The server is stopping: the device was not told.
        ErrorKind::Unavailable => DeviceFault::Interrupted,
        _ => DeviceFault::Internal,
    }
}
