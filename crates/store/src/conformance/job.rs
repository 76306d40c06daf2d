//! Promises of [`crate::ports::JobStore`].

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use domain::clock::UnixTime;
use domain::ids::{Etag, HubKey, JobId, MethodName, Precondition};
use domain::job::{
    DeviceFault, DeviceJob, DeviceJobStatus, DeviceOutcome, Draft, Filter, Job, JobFailure, JobKind, JobStatus,
    RUNNING_PER_HUB_MAX, Tally, Work,
};
use domain::method::{Call, Payload, Response, Timeouts};
use domain::operation::PageRequest;
use domain::query::parse_target;
use domain::twin::ServiceChange;

use super::sample::{NOON, QUOTAS, after, device, identity, make_hub, object};
use super::{Backend, Done as _};
use crate::ports::{Created, DeviceJobsWanted, DueJob, Enlisted, JobKey, JobStage, Place};

const EXECUTION_S: u64 = 600;

fn id(name: &str) -> JobId {
    JobId::parse(name).unwrap()
}

fn patch(name: &str) -> Draft {
    let change = ServiceChange { tags: None, desired: Some(object(r#"{"fan":7}"#)) };
    Draft {
        id: id(name),
        work: Work::PatchTwin { change, etag: None },
        condition: "*".to_owned(),
        starts_at: None,
        execution_max: Duration::from_secs(EXECUTION_S),
    }
}

fn call(name: &str) -> Draft {
    let payload = Payload::parse(Bytes::from_static(br#" {"in": 1.0}"#)).unwrap();
    let timeouts = Timeouts::new(Some(3), Some(60)).unwrap();
    Draft {
        work: Work::Invoke(Call { method: MethodName::parse("reboot").unwrap(), payload, timeouts }),
        ..patch(name)
    }
}

struct Scene<'b> {
    backend: &'b Backend,
    hub: HubKey,
}

/// A hub with devices `dev-0` and on.
async fn scene(backend: &Backend, devices: usize) -> Scene<'_> {
    let hub = make_hub(&*backend.store, "hub").await;
    for number in 0..devices {
        let identity = identity(device(&format!("dev-{number}")), 1);
        backend.store.create_identity(hub, identity, None, NOON).await.unwrap().done();
    }
    Scene { backend, hub }
}

impl Scene<'_> {
    async fn create(&self, draft: Draft) -> Job {
        self.backend.store.create_job(self.hub, draft, NOON).await.unwrap().done()
    }

    async fn find(&self, name: &str, now: UnixTime) -> Job {
        self.backend.store.find_job(self.hub, &id(name), now).await.unwrap().done()
    }

    async fn due(&self, now: UnixTime) -> Vec<DueJob> {
        self.backend.store.list_due_jobs(now).await.unwrap()
    }

    async fn only_due(&self) -> JobKey {
        let due = self.due(NOON).await;
        assert_eq!(due.len(), 1);
        due[0].key
    }

    /// Puts all devices on the list of the only job that is due.
    async fn enlist_all(&self) -> JobKey {
        let key = self.only_due().await;
        let plan = Arc::new(parse_target("*").unwrap());
        let found = self.backend.store.find_twins(self.hub, &plan, None, 1_000).await.unwrap();
        let found = found.result.into_iter().map(|found| (found.place, found.identity.name)).collect();
        self.enlist(key, Enlisted { after: None, found, next: None }).await;
        key
    }

    async fn enlist(&self, key: JobKey, piece: Enlisted) {
        self.backend.store.enlist_devices(key, piece, NOON).await.unwrap();
    }

    async fn patch(&self, key: JobKey, limit: usize) -> usize {
        self.backend.store.patch_listed_twins(key, limit, after(1)).await.unwrap()
    }

    async fn rows(&self, wanted: DeviceJobsWanted) -> Vec<DeviceJob> {
        let found = self.backend.store.find_device_jobs(self.hub, &wanted, None, 1_000).await.unwrap();
        assert_eq!(found.next, None);
        found.result.into_iter().map(|(_, row)| row).collect()
    }

    async fn desired(&self, name: &str) -> (u64, String) {
        let (twin, _) = self.backend.store.find_twin(self.hub, &device(name)).await.unwrap().done();
        (twin.desired.version(), serde_json::Value::Object(twin.desired.document().clone()).to_string())
    }
}

const fn tally(pending: u64, running: u64, succeeded: u64, failed: u64) -> Tally {
    Tally { pending, running, succeeded, failed }
}

pub async fn a_job_comes_back_as_it_was_scheduled(backend: &Backend) {
    let scene = scene(backend, 0).await;
    for draft in [patch("job-1"), call("job-2")] {
        let made = scene.create(draft.clone()).await;
        assert_eq!((&made.id, &made.work, &made.condition), (&draft.id, &draft.work, &draft.condition));
        assert_eq!((made.execution_max, made.created_at, made.starts_at), (draft.execution_max, NOON, NOON));
        assert_eq!((made.status, made.ended_at, made.failure, made.tally), (JobStatus::Queued, None, None, None));
        assert_eq!(scene.find(draft.id.as_str(), NOON).await, made);
        let again = backend.store.create_job(scene.hub, draft, after(1)).await.unwrap();
        assert_eq!(again, Created::AlreadyExists);
    }
    assert_eq!(backend.store.find_job(scene.hub, &id("JOB-1"), NOON).await.unwrap(), None, "case matters");
    let elsewhere = backend.store.create_job(HubKey(99), patch("x"), NOON).await.unwrap();
    assert_eq!(elsewhere, Created::NoOwner);
}

pub async fn a_job_is_due_when_its_time_has_come(backend: &Backend) {
    let scene = scene(backend, 0).await;
    scene.create(Draft { starts_at: Some(after(60)), ..patch("late") }).await;
    scene.create(patch("now")).await;
    let names = |due: Vec<DueJob>| due.into_iter().map(|job| job.id.to_string()).collect::<Vec<_>>();
    assert_eq!(scene.find("late", NOON).await.status, JobStatus::Scheduled);
    assert_eq!(names(scene.due(NOON).await), ["now"]);
    assert_eq!(scene.find("late", after(60)).await.status, JobStatus::Queued);
    assert_eq!(names(scene.due(after(60)).await), ["now", "late"]);
    for number in 0..RUNNING_PER_HUB_MAX {
        scene.create(patch(&format!("job-{number}"))).await;
    }
    assert_eq!(scene.due(after(60)).await.len(), RUNNING_PER_HUB_MAX as usize, "others wait for their turn");
    backend.store.delete_hub(scene.hub).await.unwrap().done();
    assert_eq!(scene.due(after(60)).await, []);
}

pub async fn a_hub_takes_as_many_jobs_as_it_may(backend: &Backend) {
    let scene = scene(backend, 0).await;
    for number in 0..QUOTAS.jobs_per_hub {
        scene.create(patch(&format!("job-{number}"))).await;
    }
    assert_eq!(backend.store.create_job(scene.hub, patch("more"), NOON).await.unwrap(), Created::Full);
    backend.store.cancel_job(scene.hub, &id("job-0"), NOON).await.unwrap().done();
    scene.create(patch("more")).await;
}

pub async fn devices_are_enlisted_once_whoever_tries_again(backend: &Backend) {
    let scene = scene(backend, 3).await;
    scene.create(patch("job")).await;
    let key = scene.only_due().await;
    let found = |numbers: &[i64]| -> Vec<_> {
        numbers.iter().map(|number| (Place(*number), device(&format!("dev-{number}")))).collect()
    };
    let first = Enlisted { after: None, found: found(&[1, 2]), next: Some(Place(2)) };
    scene.enlist(key, first.clone()).await;
    assert_eq!(
        (scene.find("job", NOON).await.status, scene.find("job", NOON).await.tally),
        (JobStatus::Running, Some(tally(2, 0, 0, 0)))
    );
    scene.enlist(key, first).await;
    assert_eq!(scene.find("job", NOON).await.tally, Some(tally(2, 0, 0, 0)), "it stands elsewhere by now");
    let due = scene.due(NOON).await;
    assert_eq!(due[0].stage, JobStage::Enlisting { after: Some(Place(2)) });
    assert_eq!(due[0].deadline, Some(after(EXECUTION_S)));
    let last = Enlisted { after: Some(Place(2)), found: found(&[2, 3]), next: None };
    scene.enlist(key, last).await;
    assert_eq!(scene.find("job", NOON).await.tally, Some(tally(3, 0, 0, 0)), "none is on the list twice");
    assert_eq!(scene.due(NOON).await[0].stage, JobStage::Working);
}

pub async fn a_job_without_devices_is_done(backend: &Backend) {
    let scene = scene(backend, 0).await;
    scene.create(patch("job")).await;
    scene.enlist_all().await;
    let job = scene.find("job", NOON).await;
    assert_eq!((job.status, job.ended_at, job.tally), (JobStatus::Completed, Some(NOON), Some(tally(0, 0, 0, 0))));
}

pub async fn each_twin_of_a_list_is_changed_once(backend: &Backend) {
    let scene = scene(backend, 5).await;
    scene.create(patch("job")).await;
    let key = scene.enlist_all().await;
    backend.store.delete_identity(scene.hub, &device("dev-4"), Precondition::Exists).await.unwrap().done();
    let changes = backend.store.latest_twin_change().await.unwrap();
    assert_eq!((scene.patch(key, 2).await, scene.find("job", NOON).await.tally), (2, Some(tally(3, 0, 2, 0))));
    assert_eq!((scene.patch(key, 9).await, scene.patch(key, 9).await), (3, 0));
    let job = scene.find("job", NOON).await;
    assert_eq!((job.status, job.ended_at, job.tally), (JobStatus::Completed, Some(after(1)), Some(tally(0, 0, 4, 1))));
    for number in 0..4 {
        assert_eq!(scene.desired(&format!("dev-{number}")).await, (2, r#"{"fan":7}"#.to_owned()));
    }
    let (told, _) = backend.store.twin_changes_after(changes, 100).await.unwrap();
    assert_eq!(told.len(), 4, "devices are told");
    let rows = scene.rows(DeviceJobsWanted::default()).await;
    assert_eq!(rows.len(), 5);
    assert_eq!((rows[0].status, rows[0].outcome.clone()), (DeviceJobStatus::Completed, Some(DeviceOutcome::Patched)));
    assert_eq!((rows[0].created_at, rows[0].started_at, rows[0].ended_at), (NOON, after(1), after(1)));
    let gone = Some(DeviceOutcome::Failed(DeviceFault::NotFound));
    assert_eq!((rows[4].status, rows[4].outcome.clone()), (DeviceJobStatus::Failed, gone));
}

pub async fn a_change_that_is_refused_fails_at_its_device_alone(backend: &Backend) {
    let scene = scene(backend, 2).await;
    let (twin, _) = backend.store.find_twin(scene.hub, &device("dev-0")).await.unwrap().done();
    let mut draft = patch("job");
    let Work::PatchTwin { etag, .. } = &mut draft.work else { panic!("it is one") };
    *etag = Some(twin.etag);
    scene.create(draft).await;
    let key = scene.enlist_all().await;
    assert_eq!(scene.patch(key, 9).await, 2);
    let faults: Vec<_> = scene.rows(DeviceJobsWanted::default()).await.into_iter().map(|row| row.outcome).collect();
    let stale = Some(DeviceOutcome::Failed(DeviceFault::PreconditionFailed));
    assert_eq!(faults, [Some(DeviceOutcome::Patched), stale]);
    assert_ne!(twin.etag, Etag::from_number(0));
}

pub async fn what_a_device_answered_is_kept_as_it_was(backend: &Backend) {
    let scene = scene(backend, 3).await;
    scene.create(call("job")).await;
    let key = scene.enlist_all().await;
    assert_eq!(scene.patch(key, 9).await, 0, "it changes no twin");
    let begun = backend.store.begin_calls(key, 2, after(1)).await.unwrap();
    assert_eq!(begun.iter().map(|(_, name)| name.clone()).collect::<Vec<_>>(), [device("dev-0"), device("dev-1")]);
    assert_eq!(scene.find("job", NOON).await.tally, Some(tally(1, 2, 0, 0)));
    let payload = Payload::parse(Bytes::from_static(b" {\"a\": 1.0}")).unwrap();
    let outcome = DeviceOutcome::Responded(Response { status: -500, payload });
    let end = |device: Place, outcome| backend.store.end_call(key, device, outcome, after(2));
    end(begun[0].0, outcome.clone()).await.unwrap();
    end(begun[0].0, DeviceOutcome::Failed(DeviceFault::Internal)).await.unwrap();
    assert_eq!(scene.find("job", NOON).await.tally, Some(tally(1, 1, 1, 0)), "the first outcome stands");
    end(begun[1].0, DeviceOutcome::Failed(DeviceFault::NotOnline)).await.unwrap();
    let last = backend.store.begin_calls(key, 9, after(3)).await.unwrap();
    end(last[0].0, DeviceOutcome::Failed(DeviceFault::Refused("no".to_owned()))).await.unwrap();
    let job = scene.find("job", NOON).await;
    assert_eq!((job.status, job.tally), (JobStatus::Completed, Some(tally(0, 0, 1, 2))));
    let rows = scene.rows(DeviceJobsWanted { job: Some("job".to_owned()), device: Some("dev-0".to_owned()) }).await;
    assert_eq!(rows.iter().map(|row| row.outcome.clone()).collect::<Vec<_>>(), [Some(outcome)]);
    assert_eq!((rows[0].started_at, rows[0].ended_at, rows[0].kind), (after(1), after(2), JobKind::Invoke));
}

pub async fn calls_whose_caller_has_ended_have_failed(backend: &Backend) {
    let scene = scene(backend, 3).await;
    scene.create(call("job")).await;
    let key = scene.enlist_all().await;
    let begun = backend.store.begin_calls(key, 2, NOON).await.unwrap();
    backend.store.interrupt_calls(after(9)).await.unwrap();
    assert_eq!(scene.find("job", NOON).await.tally, Some(tally(1, 0, 0, 2)));
    let late = DeviceOutcome::Failed(DeviceFault::NotOnline);
    backend.store.end_call(key, begun[0].0, late, after(9)).await.unwrap();
    assert_eq!(
        scene.rows(DeviceJobsWanted::default()).await[0].outcome,
        Some(DeviceOutcome::Failed(DeviceFault::Interrupted))
    );
    backend.store.begin_calls(key, 9, NOON).await.unwrap();
    backend.store.interrupt_calls(after(10)).await.unwrap();
    let job = scene.find("job", NOON).await;
    assert_eq!((job.status, job.ended_at, job.tally), (JobStatus::Completed, Some(after(10)), Some(tally(0, 0, 0, 3))));
}

pub async fn a_cancelled_job_does_nothing_more(backend: &Backend) {
    let scene = scene(backend, 3).await;
    scene.create(patch("job")).await;
    let key = scene.enlist_all().await;
    scene.patch(key, 1).await;
    let job = backend.store.cancel_job(scene.hub, &id("job"), after(2)).await.unwrap().done();
    assert_eq!((job.status, job.ended_at, job.tally), (JobStatus::Cancelled, Some(after(2)), Some(tally(2, 0, 1, 0))));
    assert_eq!((scene.patch(key, 9).await, scene.due(after(3)).await), (0, vec![]));
    assert_eq!(scene.desired("dev-2").await.0, 1);
    let again = backend.store.cancel_job(scene.hub, &id("job"), after(3)).await.unwrap().done();
    assert_eq!(again, job, "it ends once");
    let statuses: Vec<_> = scene.rows(DeviceJobsWanted::default()).await.into_iter().map(|row| row.status).collect();
    assert_eq!(statuses, [DeviceJobStatus::Completed, DeviceJobStatus::Cancelled, DeviceJobStatus::Cancelled]);
    assert_eq!(backend.store.cancel_job(scene.hub, &id("none"), NOON).await.unwrap(), None);
}

pub async fn a_job_that_fails_fails_what_it_left_undone(backend: &Backend) {
    let scene = scene(backend, 2).await;
    scene.create(call("job")).await;
    let key = scene.enlist_all().await;
    let begun = backend.store.begin_calls(key, 1, NOON).await.unwrap();
    backend.store.fail_job(key, JobFailure::TimeRanOut, after(5)).await.unwrap();
    let job = scene.find("job", NOON).await;
    assert_eq!(
        (job.status, job.failure, job.tally),
        (JobStatus::Failed, Some(JobFailure::TimeRanOut), Some(tally(0, 1, 0, 1)))
    );
    // What is under way comes to its end.
    backend.store.end_call(key, begun[0].0, DeviceOutcome::Failed(DeviceFault::NotOnline), after(6)).await.unwrap();
    let job = scene.find("job", NOON).await;
    assert_eq!((job.ended_at, job.tally), (Some(after(5)), Some(tally(0, 0, 0, 2))));
    let undone = &scene.rows(DeviceJobsWanted::default()).await[1];
    assert_eq!((undone.status, undone.ended_at), (DeviceJobStatus::Failed, after(5)));
    assert_eq!(undone.outcome, Some(DeviceOutcome::Failed(DeviceFault::TimeRanOut)));
}

pub async fn jobs_are_listed_by_type_and_state_in_pages(backend: &Backend) {
    let scene = scene(backend, 0).await;
    for number in 0..4 {
        scene.create(patch(&format!("patch-{number}"))).await;
    }
    scene.create(Draft { starts_at: Some(after(60)), ..call("call") }).await;
    backend.store.cancel_job(scene.hub, &id("patch-3"), NOON).await.unwrap();
    let list = async |filter: Filter, page: PageRequest| {
        let page = backend.store.list_jobs(scene.hub, filter, page, NOON).await.unwrap();
        (page.items.iter().map(|job| job.id.to_string()).collect::<Vec<_>>(), page.next)
    };
    let all = PageRequest { after: None, limit: 100 };
    let cases: &[(Option<JobKind>, Option<JobStatus>, &[&str])] = &[
        (None, None, &["patch-0", "patch-1", "patch-2", "patch-3", "call"]),
        (Some(JobKind::Invoke), None, &["call"]),
        (Some(JobKind::PatchTwin), Some(JobStatus::Queued), &["patch-0", "patch-1", "patch-2"]),
        (None, Some(JobStatus::Scheduled), &["call"]),
        (None, Some(JobStatus::Cancelled), &["patch-3"]),
        (None, Some(JobStatus::Running), &[]),
    ];
    for (kind, status, expected) in cases {
        assert_eq!(list(Filter { kind: *kind, status: *status }, all.clone()).await.0, *expected);
    }
    let (first, next) = list(Filter::default(), PageRequest { after: None, limit: 3 }).await;
    let (second, end) = list(Filter::default(), PageRequest { after: next, limit: 3 }).await;
    assert_eq!((first.len(), second, end), (3, vec!["patch-3".to_owned(), "call".to_owned()], None));
}

pub async fn what_became_of_jobs_is_read_in_pieces(backend: &Backend) {
    let scene = scene(backend, 5).await;
    scene.create(patch("job-1")).await;
    let key = scene.enlist_all().await;
    scene.patch(key, 9).await;
    scene.create(patch("job-2")).await;
    let key = scene.enlist_all().await;
    scene.patch(key, 9).await;
    let job = |name: &str| DeviceJobsWanted { job: Some(name.to_owned()), device: None };
    assert_eq!((scene.rows(job("job-2")).await.len(), scene.rows(job("none")).await.len()), (5, 0));
    let of_device = DeviceJobsWanted { job: None, device: Some("dev-3".to_owned()) };
    let jobs: Vec<_> = scene.rows(of_device).await.into_iter().map(|row| row.job.to_string()).collect();
    assert_eq!(jobs, ["job-1", "job-2"]);
    let (mut place, mut sizes) = (None, Vec::new());
    loop {
        let piece = backend.store.find_device_jobs(scene.hub, &DeviceJobsWanted::default(), place, 4).await.unwrap();
        sizes.push(piece.result.len());
        place = piece.next;
        if place.is_none() {
            break;
        }
    }
    assert_eq!(sizes, [4, 4, 2]);
}

pub async fn jobs_that_ended_long_ago_are_forgotten(backend: &Backend) {
    let scene = scene(backend, 5).await;
    scene.create(patch("old")).await;
    let key = scene.enlist_all().await;
    scene.patch(key, 9).await;
    scene.create(patch("unended")).await;
    let store = &backend.store;
    assert_eq!(store.prune_jobs(after(1), 100).await.unwrap(), 0, "it ended then, not before");
    assert_eq!(store.prune_jobs(after(2), 3).await.unwrap(), 3);
    assert_eq!(store.prune_jobs(after(2), 3).await.unwrap(), 3, "two rows and the job");
    assert_eq!(store.prune_jobs(after(2), 3).await.unwrap(), 0);
    assert_eq!(store.find_job(scene.hub, &id("old"), NOON).await.unwrap(), None);
    assert_eq!(scene.find("unended", NOON).await.status, JobStatus::Queued);
    scene.create(patch("old")).await;
}
