//! Jobs as the worker carries them out: in time, over all devices, across its own end.

use std::pin::pin;
use std::time::Duration;

use domain::clock::{Clock as _, UnixTime};
use domain::ids::{JobId, MethodName};
use domain::job::{DeviceFault, DeviceJob, DeviceOutcome, Draft, Job, JobFailure, JobStatus, Tally, Work};
use domain::method::{Call, Payload, Timeouts};
use domain::operation::identity::IdentityName;
use domain::operation::job::{Answer, Ask};
use domain::operation::query::{Answer as QueryAnswer, Ask as QueryAsk};
use domain::operation::session::Filter as SubscribedFilter;
use domain::operation::{ErrorKind, Failure, Operation, PageRequest, Reply};
use domain::twin::ServiceChange;
use service::{EndpointOf, Settings};
use store::conformance::Done as _;
use store::conformance::sample::{device, hub, identity, object};
use store::faults::Fault;
use store::ports::{IdentityStore as _, JobStore as _, ResourceStore as _, TwinStore as _};

use crate::calling::Device;
use crate::ground::{Ground, PATIENCE, open};

fn draft(id: &str, condition: &str, work: Work) -> Draft {
    Draft {
        id: JobId::parse(id).unwrap(),
        work,
        condition: condition.to_owned(),
        starts_at: None,
        execution_max: Duration::from_secs(600),
    }
}

fn patch() -> Work {
    Work::PatchTwin { change: ServiceChange { tags: None, desired: Some(object(r#"{"fan":7}"#)) }, etag: None }
}

fn call() -> Work {
    let timeouts = Timeouts::new(None, Some(300)).unwrap();
    Work::Invoke(Call { method: MethodName::parse("reboot").unwrap(), payload: Payload::NULL, timeouts })
}

impl Ground {
    async fn devices(&self, count: usize) {
        for number in 0..count {
            self.add(&device(&format!("dev-{number}"))).await;
        }
    }

    async fn add(&self, name: &IdentityName) {
        self.store.create_identity(self.hub().key, identity(name.clone(), 1), None, self.now()).await.unwrap();
    }

    pub fn now(&self) -> UnixTime {
        self.clock.now()
    }

    async fn ask_job(&self, ask: Ask) -> Result<Answer, Failure> {
        let program = self.program(&EndpointOf::Hub(self.hub()));
        match self.service.perform(&program, Operation::Job(ask)).await? {
            Reply::Job(answer) => Ok(answer),
            other => panic!("{other:?}"),
        }
    }

    async fn schedule(&self, draft: Draft) -> Result<Answer, Failure> {
        self.ask_job(Ask::Schedule(Box::new(draft))).await
    }

    async fn job(&self, id: &str) -> Job {
        self.store.find_job(self.hub().key, &JobId::parse(id).unwrap(), self.now()).await.unwrap().unwrap()
    }

    /// All rows of a query, two at a time.
    async fn device_jobs(&self, text: &str) -> Vec<DeviceJob> {
        let program = self.program(&EndpointOf::Hub(self.hub()));
        let (mut rows, mut after) = (Vec::new(), None);
        loop {
            let ask = QueryAsk::Run { text: text.to_owned(), page: PageRequest { after, limit: 2 } };
            let reply = self.service.perform(&program, Operation::Query(ask)).await.unwrap();
            let Reply::Query(QueryAnswer::DeviceJobs(page)) = reply else { panic!("{reply:?}") };
            rows.extend(page.items);
            after = page.next;
            if after.is_none() {
                return rows;
            }
        }
    }

    /// Runs the worker until the job is as `wanted`.
    async fn run_until(&self, id: &str, wanted: impl Fn(&Job) -> bool) {
        let until = async {
            while !wanted(&self.job(id).await) {
                tokio::task::yield_now().await;
            }
        };
        let mut worker = pin!(self.service.run_jobs());
        let outcome = tokio::select! {
            () = &mut worker => panic!("the worker ended"),
            outcome = tokio::time::timeout(PATIENCE, until) => outcome,
        };
        assert!(outcome.is_ok(), "{:?}", self.job(id).await);
    }
}

const fn succeeded(count: u64) -> Tally {
    Tally { pending: 0, running: 0, succeeded: count, failed: 0 }
}

#[tokio::test]
async fn a_job_is_carried_out_over_more_devices_than_one_piece_holds() {
    let ground = Ground::new().await;
    ground.devices(230).await;
    ground.schedule(draft("job", "*", patch())).await.unwrap();
    ground.run_until("job", |job| job.status == JobStatus::Completed).await;
    assert_eq!(ground.job("job").await.tally, Some(succeeded(230)));
    let (twin, _) = ground.store.find_twin(ground.hub().key, &device("dev-229")).await.unwrap().unwrap();
    assert_eq!((twin.desired.version(), twin.desired.document().clone()), (2, object(r#"{"fan":7}"#)));
}

#[tokio::test]
async fn a_job_goes_on_where_it_stood_when_its_worker_ended() {
    let ground = Ground::new().await;
    ground.devices(60).await;
    ground.schedule(draft("job", "*", patch())).await.unwrap();
    ground.run_until("job", |job| job.tally.is_some_and(|tally| tally.succeeded > 0)).await;
    ground.run_until("job", |job| job.status == JobStatus::Completed).await;
    assert_eq!(ground.job("job").await.tally, Some(succeeded(60)));
    for number in 0..60 {
        let name = device(&format!("dev-{number}"));
        let (twin, _) = ground.store.find_twin(ground.hub().key, &name).await.unwrap().unwrap();
        assert_eq!(twin.desired.version(), 2, "{name} was changed once");
    }
}

#[tokio::test]
async fn what_the_store_loses_is_not_done_twice() {
    let ground = Ground::new().await;
    ground.devices(20).await;
    ground.schedule(draft("job", "*", patch())).await.unwrap();
    // Each piece is done, and its worker never hears of it.
    ground.store.plan_verb("enlist_devices", Fault::After);
    ground.store.plan_verb("patch_listed_twins", Fault::After);
    ground.run_until("job", |job| job.status == JobStatus::Completed).await;
    assert_eq!(ground.job("job").await.tally, Some(succeeded(20)));
    let (twin, _) = ground.store.find_twin(ground.hub().key, &device("dev-0")).await.unwrap().unwrap();
    assert_eq!(twin.desired.version(), 2);
}

#[tokio::test]
async fn a_call_that_is_under_way_when_the_worker_ends_is_not_made_again() {
    let ground = Ground::new().await;
    ground.devices(2).await;
    let listening = Device::connect(&ground, &device("dev-0")).await;
    listening.listen(&ground, SubscribedFilter::Methods).await;
    ground.schedule(draft("job", "*", call())).await.unwrap();
    // The other is not connected.
    let under_way = Tally { running: 1, failed: 1, ..Tally::default() };
    ground.run_until("job", |job| job.tally == Some(under_way)).await;
    ground.run_until("job", |job| job.status == JobStatus::Completed).await;
    assert_eq!(ground.job("job").await.tally, Some(Tally { failed: 2, ..Tally::default() }));
    let rows = ground.device_jobs("SELECT * FROM devices.jobs WHERE jobId = 'job'").await;
    let faults: Vec<_> = rows.into_iter().map(|row| row.outcome).collect();
    assert_eq!(
        faults,
        [DeviceFault::Interrupted, DeviceFault::NotOnline].map(|fault| Some(DeviceOutcome::Failed(fault)))
    );
}

#[tokio::test]
async fn a_hub_whose_devices_keep_their_callers_waiting_holds_up_no_other() {
    let mut ground = Ground::new().await;
    let other = ground.store.create_hub(hub("other"), None, ground.now()).await.unwrap().done().key;
    ground.service = open(&ground.store, &ground.clock, Settings::default()).await.unwrap();
    // More than are called at once, none of which is connected.
    ground.devices(600).await;
    let timeouts = Timeouts::new(Some(300), Some(300)).unwrap();
    let Work::Invoke(call) = call() else { panic!("it is one") };
    ground.schedule(draft("waiting", "*", Work::Invoke(Call { timeouts, ..call.clone() }))).await.unwrap();
    let made = identity(device("dev"), 1);
    ground.store.create_identity(other, made, None, ground.now()).await.unwrap();
    let job = draft("quick", "*", Work::Invoke(call));
    let is_full = |job: &Job| job.tally.is_some_and(|tally| tally.running > 500 && tally.pending > 0);
    let id = job.id.clone();
    let script = async {
        while !is_full(&ground.job("waiting").await) {
            tokio::task::yield_now().await;
        }
        ground.store.create_job(other, job, ground.now()).await.unwrap();
        let found = async || ground.store.find_job(other, &id, ground.now()).await.unwrap().unwrap();
        while found().await.status != JobStatus::Completed {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = ground.service.run_jobs() => panic!("the worker ended"),
        outcome = tokio::time::timeout(PATIENCE, script) => outcome.expect("the other hub's job is done"),
    }
}

#[tokio::test]
async fn what_came_of_a_call_is_noted_once_the_database_answers_again() {
    let ground = Ground::new().await;
    ground.devices(1).await;
    ground.schedule(draft("job", "*", call())).await.unwrap();
    ground.store.plan_verb("end_call", Fault::Away);
    let mut held = ground.store.hold("end_call");
    let script = async {
        held.done().await;
        // It has failed once.
        ground.store.plan([]);
        drop(held);
        while ground.job("job").await.status != JobStatus::Completed {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = ground.service.run_jobs() => panic!("the worker ended"),
        outcome = tokio::time::timeout(PATIENCE, script) => outcome.expect("it is noted"),
    }
    assert_eq!(ground.job("job").await.tally, Some(Tally { failed: 1, ..Tally::default() }));
}

#[tokio::test]
async fn a_job_that_takes_too_long_fails() {
    let ground = Ground::new().await;
    ground.devices(1).await;
    let listening = Device::connect(&ground, &device("dev-0")).await;
    listening.listen(&ground, SubscribedFilter::Methods).await;
    ground.schedule(draft("job", "*", call())).await.unwrap();
    let too_long = |job: &Job| {
        if job.tally.is_some_and(|tally| tally.running == 1) {
            ground.clock.advance(Duration::from_secs(601));
        }
        job.status == JobStatus::Failed
    };
    ground.run_until("job", too_long).await;
    assert_eq!(ground.job("job").await.failure, Some(JobFailure::TimeRanOut));
}

#[tokio::test]
async fn a_job_that_makes_no_sense_is_refused_when_it_is_scheduled() {
    let ground = Ground::new().await;
    let long = Duration::from_secs(40 * 24 * 3_600);
    let broken = ServiceChange { tags: Some(object(r#"{"a.b":1}"#)), desired: None };
    let cases = [
        draft("job", "tags.site =", patch()),
        draft("job", "SELECT * FROM devices", patch()),
        draft("job", "FROM devices.jobs", patch()),
        draft("job", "*", Work::PatchTwin { change: broken, etag: None }),
        Draft { execution_max: Duration::ZERO, ..draft("job", "*", patch()) },
        Draft { execution_max: long, ..draft("job", "*", patch()) },
    ];
    for case in cases {
        let refused = ground.schedule(case.clone()).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::InvalidArgument, "{case:?}");
    }
    ground.schedule(draft("job", "*", patch())).await.unwrap();
    let again = ground.schedule(draft("job", "*", patch())).await.unwrap_err();
    assert_eq!(again.kind, ErrorKind::JobExists);
}

#[tokio::test]
async fn what_became_of_jobs_is_asked_for_in_pages() {
    let ground = Ground::new().await;
    ground.devices(5).await;
    for id in ["one", "two"] {
        ground.schedule(draft(id, "*", patch())).await.unwrap();
        ground.run_until(id, |job| job.status == JobStatus::Completed).await;
    }
    let count = async |text: &str| ground.device_jobs(text).await.len();
    assert_eq!(count("SELECT * FROM devices.jobs").await, 10);
    assert_eq!(count("SELECT TOP 3 * FROM devices.jobs").await, 3);
    assert_eq!(count("SELECT * FROM devices.jobs WHERE jobId = 'two' AND status = 'completed'").await, 5);
    assert_eq!(count("SELECT * FROM devices.jobs WHERE deviceId = 'dev-1'").await, 2);
    assert_eq!(count("SELECT * FROM devices.jobs WHERE NOT jobType = 'scheduleUpdateTwin'").await, 0);
}
