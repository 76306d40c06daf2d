//! Faults made on purpose, to show that callers and tests survive and notice them.
//!
//! [`Faulty`] makes chosen calls of a store fail, before or after they were done: the second is a reply that was lost. Or
//! it keeps the replies of a verb back, or has the verb panic. [`HeldLog`] is a log that takes nothing for a while.
//! The switches for power-cut tests and for lost messages exist only in builds with the feature `torture`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use domain::attestation::{Proven, Registrant};
use domain::clock::UnixTime;
use domain::cloud_to_device::{Draft, Feedback, FeedbackSettings, QueueSettings, Settlement};
use domain::configuration::{self, Configuration};
use domain::decision::Decision;
use domain::enrollment::{Enrollment, EntryKind, EntryName};
use domain::file::{BlockId, Content, FileName, FileNotification, StoredFile};
use domain::identity::Identity;
use domain::ids::{
    CertificateName, ConfigurationId, ContentId, DeviceId, EndpointName, EnrollmentGroupId, Etag, HubKey, JobId,
    LockToken, OperationId, Precondition, RegistrationId, ServiceKey, TrackingId, UploadId,
};
use domain::job::{self, DeviceJob, DeviceOutcome, Job, JobFailure};
use domain::message::Message;
use domain::operation::identity::IdentityName;
use domain::operation::registration::{RegistrationError, RegistrationState, RegistrationStatus};
use domain::operation::route::DeadLetter;
use domain::operation::session::Subscriptions;
use domain::operation::{Page, PageRequest};
use domain::query::{Groups, Plan, TooManyGroups};
use domain::resource::{AddressPool, CaCertificate, CertificateOwner, Hub, ProvisioningService, ResourceGroup};
use domain::sas::KeyRotation;
use domain::transfer::{self, Transfer};
use domain::twin::{ServiceChange, Twin};
use serde_json::{Map, Value};
use tokio::sync::watch;

use crate::error::{Error, Unavailability};
use crate::ports::{
    Accepted, ActivityMark, Begun, Buried, Changed, ClaimWanted, Claimed, CloudToDeviceStore, ConfigurationStore,
    ConnectionClaim, ContentWriter, Created, DecisionStore, DefaultsStage, Deployment, DeviceCounts, DeviceJobsWanted,
    DueJob, DueTransfer, Ended, Ending, Enlisted, Enqueued, EnrollmentStore, EventStore, FileStore, Finish, Finished,
    Found, Given, GivenUp, IdentityStore, ImportFaults, ImportPiece, JobKey, JobStore, Judged, KeptEvent, Lease,
    Leased, NewUpload, OperationView, Place, Placed, Planned, Position, QueryStore, ReadFrom, RegistrationStore,
    ResourceStore, Resources, Rotated, RouteStore, Searched, Settled, StoredMessage, Swept, TelemetryLog, Told,
    TransferKey, TransferStore, TwinChange, TwinOutcome, TwinStore, Writing, Written, X509Lookup,
};

mod held_log;

pub use held_log::HeldLog;

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not done.
    Before,
    /// It is not done, since the database does not answer.
    Away,
    /// It is not done, since there is no room left on the disk.
    Full,
    /// It is done, and the caller does not hear of it.
    After,
    /// It finds a record that does not parse.
    Unreadable,
    /// It panics, as a defect would have it.
    Panic,
}

/// A call that is done, and whose reply is kept back until this is dropped.
#[derive(Debug)]
pub struct Held {
    done: watch::Receiver<bool>,
    _release: watch::Sender<()>,
}

impl Held {
    /// Waits until the call was done.
    pub async fn done(&mut self) {
        // The store keeps the other end.
        let _ = self.done.wait_for(|done| *done).await;
    }
}

#[derive(Debug)]
struct Holding {
    verb: &'static str,
    done: watch::Sender<bool>,
    released: watch::Receiver<()>,
}

/// A store of which chosen calls fail.
#[derive(Debug)]
pub struct Faulty<S> {
    inner: S,
    faults: Mutex<Faults>,
}

#[derive(Debug, Default)]
struct Faults {
    /// Calls counted since the last plan.
    calls: u64,
    /// Which of them fail, and how.
    planned: Vec<(u64, Fault)>,
    /// Verbs all calls of which fail.
    verbs: Vec<(&'static str, Fault)>,
    holding: Option<Holding>,
}

impl<S> Faulty<S> {
    /// A store of which no call fails yet.
    pub fn new(inner: S) -> Self {
        Self { inner, faults: Mutex::new(Faults::default()) }
    }

    /// The store without its faults.
    pub const fn inner(&self) -> &S {
        &self.inner
    }

    /// Has calls fail from here on: each by its number, of which the next call's is 1. Plans made before are forgotten.
    pub fn plan(&self, faults: impl IntoIterator<Item = (u64, Fault)>) {
        *self.lock() = Faults { planned: faults.into_iter().collect(), ..Faults::default() };
    }

    /// Has every call of `verb` fail from here on, until the next plan.
    pub fn plan_verb(&self, verb: &'static str, fault: Fault) {
        self.lock().verbs.push((verb, fault));
    }

    /// Keeps the reply to the next call of `verb` back. One call at a time.
    pub fn hold(&self, verb: &'static str) -> Held {
        let (done, released) = (watch::Sender::new(false), watch::Sender::new(()));
        let held = Held { done: done.subscribe(), _release: released.clone() };
        self.lock().holding = Some(Holding { verb, done, released: released.subscribe() });
        held
    }

    /// How many calls there were since the last plan.
    pub fn calls(&self) -> u64 {
        self.lock().calls
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self, verb: &str) -> Option<Fault> {
        let mut faults = self.lock();
        faults.calls += 1;
        let call = faults.calls;
        let by_number = faults.planned.iter().find(|(number, _)| *number == call).map(|(_, fault)| *fault);
        by_number.or_else(|| faults.verbs.iter().find(|(failing, _)| *failing == verb).map(|(_, fault)| *fault))
    }

    async fn gate<T>(&self, verb: &str, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        const LOST: Error = Error::Unavailable { reason: Unavailability::Disk, source: None };
        let answer = match self.next(verb) {
            None => call.await,
            Some(Fault::Before) => Err(LOST),
            Some(Fault::Away) => Err(Error::Unavailable { reason: Unavailability::Database, source: None }),
            Some(Fault::Full) => Err(Error::Unavailable { reason: Unavailability::Full, source: None }),
            Some(Fault::Unreadable) => Err(Error::corrupt("some", verb, "value", std::fmt::Error)),
            Some(Fault::After) => call.await.and(Err(LOST)),
            Some(Fault::Panic) => panic!("{verb} was to panic"),
        };
        self.hold_back(verb).await;
        answer
    }

    async fn hold_back(&self, verb: &str) {
        let mut released = match &self.lock().holding {
            Some(Holding { verb: held, done, released }) if *held == verb && !done.send_replace(true) => {
                released.clone()
            }
            _ => return,
        };
        // An error means that it is held no more.
        while released.changed().await.is_ok() {}
    }
}

/// Implements a port by handing each verb on through the gate.
macro_rules! gated {
    ($port:ident { $(fn $verb:ident($($name:ident: $kind:ty),*) -> $answer:ty;)* } $($rest:tt)*) => {
        #[async_trait]
        impl<S: $port> $port for Faulty<S> {
            $(async fn $verb(&self, $($name: $kind),*) -> Result<$answer, Error> {
                self.gate(stringify!($verb), self.inner.$verb($($name),*)).await
            })*
            $($rest)*
        }
    };
}

gated!(ResourceStore {
    fn deployment(first: Deployment) -> Deployment;
    fn defaults_stage() -> DefaultsStage;
    fn set_defaults_stage(stage: DefaultsStage) -> ();
    fn load_resources() -> Resources;
    fn create_hub(hub: Hub, pool: Option<AddressPool>, now: UnixTime) -> Placed<Hub>;
    fn replace_hub(hub: Hub, precondition: Precondition, now: UnixTime) -> Changed<Hub>;
    fn delete_hub(hub: HubKey) -> Changed<Hub>;
    fn create_service(service: ProvisioningService, pool: Option<AddressPool>, now: UnixTime)
        -> Placed<ProvisioningService>;
    fn replace_service(service: ProvisioningService, precondition: Precondition, now: UnixTime)
        -> Changed<ProvisioningService>;
    fn delete_service(service: ServiceKey) -> Changed<ProvisioningService>;
    fn put_certificate(owner: CertificateOwner, certificate: CaCertificate, precondition: Precondition)
        -> Changed<CaCertificate>;
    fn delete_certificate(owner: CertificateOwner, name: &CertificateName, precondition: Precondition)
        -> Changed<CaCertificate>;
    fn put_group(group: ResourceGroup) -> ResourceGroup;
    fn delete_group(name: &str) -> Changed<ResourceGroup>;
});

gated!(EnrollmentStore {
    fn create_enrollment(service: ServiceKey, enrollment: Enrollment, now: UnixTime) -> Created<Enrollment>;
    fn replace_enrollment(service: ServiceKey, enrollment: Enrollment, precondition: Precondition, now: UnixTime)
        -> Changed<Enrollment>;
    fn delete_enrollment(service: ServiceKey, name: &EntryName, precondition: Precondition) -> Changed<Enrollment>;
    fn find_enrollment(service: ServiceKey, name: &EntryName) -> Option<Enrollment>;
    fn list_enrollments(service: ServiceKey, kind: EntryKind, page: PageRequest) -> Page<Enrollment>;
    fn find_x509_groups(service: ServiceKey, lookup: X509Lookup) -> Vec<Enrollment>;
    fn list_symmetric_key_groups(service: ServiceKey, limit: usize) -> Vec<Enrollment>;
}
    fn key_group_changes(&self) -> watch::Receiver<u64> {
        self.inner.key_group_changes()
    }
);

gated!(RegistrationStore {
    fn accept_registration(
        device: &Proven<Registrant>, fresh: OperationId, payload: Option<Value>, decision: Decision, now: UnixTime
    ) -> Accepted;
    fn claim_operations(limit: usize) -> Vec<Claimed>;
    fn plan_assignment(operation: OperationId, attempt: u32, plan: Planned, now: UnixTime) -> Finished<Planned>;
    fn finish_assignment(operation: OperationId, attempt: u32, finish: Finish, now: UnixTime)
        -> Finished<RegistrationState>;
    fn fail_assignment(operation: OperationId, attempt: u32, error: RegistrationError, now: UnixTime)
        -> Finished<RegistrationState>;
    fn note_refusal(
        service: ServiceKey, registration_id: &RegistrationId, status: RegistrationStatus,
        error: Option<RegistrationError>, now: UnixTime
    ) -> ();
    fn find_operation(service: ServiceKey, operation: OperationId) -> Option<OperationView>;
    fn find_registration(service: ServiceKey, registration_id: &RegistrationId) -> Option<RegistrationState>;
    fn find_admitting_group(service: ServiceKey, registration_id: &RegistrationId) -> Option<EnrollmentGroupId>;
    fn delete_registration(service: ServiceKey, registration_id: &RegistrationId, precondition: Precondition)
        -> Changed<RegistrationState>;
    fn list_registrations(service: ServiceKey, group: &EnrollmentGroupId, page: PageRequest)
        -> Page<RegistrationState>;
    fn prune_operations(before: UnixTime, limit: usize) -> usize;
});

gated!(IdentityStore {
    fn create_identity(hub: HubKey, identity: Identity, twin: Option<ServiceChange>, now: UnixTime)
        -> Created<Identity>;
    fn replace_identity(hub: HubKey, identity: Identity, precondition: Precondition, now: UnixTime)
        -> Changed<Identity>;
    fn rotate_keys(hub: HubKey, name: &IdentityName, rotation: KeyRotation, now: UnixTime) -> Rotated;
    fn delete_identity(hub: HubKey, name: &IdentityName, precondition: Precondition) -> Changed<Identity>;
    fn find_identity(hub: HubKey, name: &IdentityName) -> Option<Identity>;
    fn list_devices(hub: HubKey, page: PageRequest) -> Page<Identity>;
    fn list_modules(hub: HubKey, device: &DeviceId) -> Option<Vec<Identity>>;
    fn list_names(hub: HubKey, page: PageRequest) -> Page<IdentityName>;
    fn list_full_hubs() -> Vec<HubKey>;
    fn count_devices(hub: HubKey) -> DeviceCounts;
    fn claim_connection(hub: HubKey, name: &IdentityName, wanted: ClaimWanted, now: UnixTime)
        -> Option<ConnectionClaim>;
    fn announce_model(hub: HubKey, name: &IdentityName, announced: (u64, &str), now: UnixTime) -> bool;
    fn release_connection(hub: HubKey, name: &IdentityName, epoch: u64, now: UnixTime) -> bool;
    fn save_subscriptions(hub: HubKey, name: &IdentityName, epoch: u64, subscriptions: Subscriptions) -> bool;
    fn note_activity(marks: Vec<ActivityMark>) -> ();
    fn identity_changes_after(sequence: u64, limit: usize) -> (Vec<(HubKey, IdentityName)>, u64);
    fn prune_identity_changes(sequence: u64, limit: usize) -> usize;
}
    fn identity_changes(&self) -> watch::Receiver<u64> {
        self.inner.identity_changes()
    }
);

gated!(TwinStore {
    fn find_twin(hub: HubKey, name: &IdentityName) -> Option<(Twin, Identity)>;
    fn apply_reported(
        hub: HubKey, name: &IdentityName, patch: Map<String, Value>, expected_version: Option<u64>, now: UnixTime
    ) -> TwinOutcome<u64>;
    fn patch_twin(hub: HubKey, name: &IdentityName, change: ServiceChange, precondition: Precondition, now: UnixTime)
        -> TwinOutcome<(Twin, Identity)>;
    fn replace_twin(hub: HubKey, name: &IdentityName, change: ServiceChange, precondition: Precondition, now: UnixTime)
        -> TwinOutcome<(Twin, Identity)>;
    fn twin_changes_after(sequence: u64, limit: usize) -> (Vec<TwinChange>, u64);
    fn latest_twin_change() -> u64;
    fn prune_twin_changes(sequence: u64, limit: usize) -> usize;
}
    fn twin_changes(&self) -> watch::Receiver<u64> {
        self.inner.twin_changes()
    }
);

gated!(QueryStore {
    fn find_twins(hub: HubKey, plan: &Arc<Plan>, after: Option<Place>, limit: usize) -> Searched<Vec<Found>>;
    fn group_twins(hub: HubKey, plan: &Arc<Plan>, after: Option<Place>, groups: Groups)
        -> Result<Searched<Groups>, TooManyGroups>;
});

gated!(JobStore {
    fn create_job(hub: HubKey, draft: job::Draft, now: UnixTime) -> Created<Job>;
    fn find_job(hub: HubKey, id: &JobId, now: UnixTime) -> Option<Job>;
    fn list_jobs(hub: HubKey, filter: job::Filter, page: PageRequest, now: UnixTime) -> Page<Job>;
    fn cancel_job(hub: HubKey, id: &JobId, now: UnixTime) -> Option<Job>;
    fn list_due_jobs(now: UnixTime) -> Vec<DueJob>;
    fn enlist_devices(job: JobKey, piece: Enlisted, now: UnixTime) -> ();
    fn patch_listed_twins(job: JobKey, limit: usize, now: UnixTime) -> usize;
    fn begin_calls(job: JobKey, limit: usize, now: UnixTime) -> Vec<(Place, IdentityName)>;
    fn end_call(job: JobKey, device: Place, outcome: DeviceOutcome, now: UnixTime) -> ();
    fn interrupt_calls(now: UnixTime) -> ();
    fn fail_job(job: JobKey, failure: JobFailure, now: UnixTime) -> ();
    fn find_device_jobs(hub: HubKey, wanted: &DeviceJobsWanted, after: Option<Place>, limit: usize)
        -> Searched<Vec<(Place, DeviceJob)>>;
    fn prune_jobs(before: UnixTime, limit: usize) -> usize;
});

gated!(TransferStore {
    fn create_transfer(hub: HubKey, id: JobId, draft: transfer::Draft, now: UnixTime) -> Created<Transfer>;
    fn find_transfer(hub: HubKey, id: &JobId) -> Option<Transfer>;
    fn list_transfers(hub: HubKey) -> Vec<Transfer>;
    fn cancel_transfer(hub: HubKey, id: &JobId, now: UnixTime) -> Option<Transfer>;
    fn list_due_transfers() -> Vec<DueTransfer>;
    fn advance_transfer(key: TransferKey, percent: u8, now: UnixTime) -> bool;
    fn import_lines(key: TransferKey, piece: ImportPiece, now: UnixTime) -> bool;
    fn import_faults(key: TransferKey) -> ImportFaults;
    fn end_transfer(key: TransferKey, failure: Option<String>, now: UnixTime) -> ();
});

gated!(ConfigurationStore {
    fn create_configuration(hub: HubKey, draft: configuration::Draft, now: UnixTime) -> Created<Configuration>;
    fn replace_configuration(
        hub: HubKey, draft: configuration::Draft, precondition: Precondition, now: UnixTime
    ) -> Changed<Configuration>;
    fn delete_configuration(hub: HubKey, id: &ConfigurationId, precondition: Precondition) -> Changed<()>;
    fn find_configuration(hub: HubKey, id: &ConfigurationId) -> Option<Configuration>;
    fn list_configurations(hub: HubKey) -> Vec<Configuration>;
    fn list_configuration_ids(hub: HubKey) -> Vec<ConfigurationId>;
    fn judge_twins(limit: usize, now: UnixTime) -> Judged;
});

gated!(CloudToDeviceStore {
    fn enqueue_message(hub: HubKey, name: &IdentityName, sent: (Draft, QueueSettings), now: UnixTime) -> Enqueued;
    fn lease_messages(hub: HubKey, name: &IdentityName, lease: Lease, now: UnixTime) -> Leased;
    fn settle_message(hub: HubKey, name: &IdentityName, how: (LockToken, Settlement), now: UnixTime) -> Settled;
    fn free_messages(hub: HubKey, name: &IdentityName, epoch: u64) -> ();
    fn purge_messages(hub: HubKey, name: &IdentityName, now: UnixTime) -> Option<u64>;
    fn sweep_messages(now: UnixTime, limit: usize) -> Swept;
    fn take_feedback(hub: HubKey, given: Given, now: UnixTime) -> Vec<Feedback>;
    fn settle_feedback(hub: HubKey, how: (LockToken, Settlement), deliveries_max: u32, now: UnixTime) -> Settled;
}
    fn feedback_changes(&self) -> watch::Receiver<u64> {
        self.inner.feedback_changes()
    }
);

gated!(RouteStore {
    fn begin_endpoint(hub: HubKey, endpoint: &EndpointName, begin: Vec<Told>) -> Option<Vec<Told>>;
    fn advance_endpoint(hub: HubKey, endpoint: &EndpointName, partition: u16, told: u64) -> ();
    fn give_up(hub: HubKey, endpoint: &EndpointName, given_up: GivenUp, bounds: (u64, UnixTime)) -> Buried;
    fn dead_letters(hub: HubKey, endpoint: &EndpointName, only_due: bool, limit: usize) -> Vec<DeadLetter>;
    fn count_dead_letters(hub: HubKey, endpoint: &EndpointName) -> u64;
    fn replay_dead_letters(hub: HubKey, endpoint: &EndpointName) -> u64;
    fn settle_dead_letter(id: u64, refused: Option<String>) -> ();
    fn purge_dead_letters(hub: HubKey, endpoint: &EndpointName, limit: usize) -> u64;
    fn known_endpoints(hub: HubKey) -> Vec<EndpointName>;
    fn forget_endpoint(hub: HubKey, endpoint: &EndpointName) -> ();
});
gated!(EventStore {
    fn events_after(sequence: u64, limit: usize) -> (Vec<KeptEvent>, u64);
    fn prune_events(sequence: u64, limit: usize) -> usize;
}
    fn event_changes(&self) -> watch::Receiver<u64> {
        self.inner.event_changes()
    }
);

gated!(FileStore {
    fn begin_content(id: ContentId) -> Box<dyn ContentWriter>;
    fn read_content(id: ContentId, offset: u64, bytes: usize) -> Option<Bytes>;
    fn charged_bytes() -> u64;
    fn begin_container_upload(hub: HubKey, upload: NewUpload, now: UnixTime) -> Begun;
    fn begin_upload(hub: HubKey, name: &IdentityName, upload: NewUpload, now: UnixTime) -> Begun;
    fn is_upload_open(hub: HubKey, upload: UploadId, now: UnixTime) -> bool;
    fn put_block(hub: HubKey, upload: UploadId, block: (BlockId, Content), now: UnixTime) -> Written<()>;
    fn list_blocks(hub: HubKey, upload: UploadId) -> Vec<(BlockId, u64)>;
    fn write_file(hub: HubKey, writing: Writing, now: UnixTime) -> Written<Etag>;
    fn end_upload(hub: HubKey, name: &IdentityName, ending: Ending, now: UnixTime) -> Ended;
    fn find_file(hub: HubKey, file: &FileName) -> Option<StoredFile>;
    fn list_files(hub: HubKey, page: PageRequest) -> Page<StoredFile>;
    fn delete_file(hub: HubKey, file: &FileName) -> bool;
    fn sweep_files(now: UnixTime, limit: usize) -> usize;
    fn take_notification(hub: HubKey, given: (LockToken, FeedbackSettings), now: UnixTime) -> Option<FileNotification>;
    fn settle_notification(hub: HubKey, how: (LockToken, Settlement), deliveries_max: u32, now: UnixTime) -> Settled;
}
    fn notification_changes(&self) -> watch::Receiver<u64> {
        self.inner.notification_changes()
    }
);

gated!(DecisionStore {
    fn find_decision(tracking: TrackingId) -> Option<Decision>;
    fn list_decisions(registration_id: &str, limit: usize) -> Vec<Decision>;
}
    // It answers nothing, so that its failing is its being lost.
    fn record_refusal(&self, decision: Decision) {
        if self.next("record_refusal").is_none() {
            self.inner.record_refusal(decision);
        }
    }

    fn lost_refusals(&self) -> u64 {
        self.inner.lost_refusals()
    }
);

gated!(TelemetryLog {
    fn append(message: Message) -> Position;
    fn append_all(messages: Vec<Message>) -> ();
    fn read(hub: HubKey, partition: u16, from: ReadFrom, limit: usize) -> Vec<StoredMessage>;
    fn bounds(hub: HubKey, partition: u16) -> Option<(Position, Position)>;
}
    fn appended(&self, hub: HubKey) -> watch::Receiver<u64> {
        self.inner.appended(hub)
    }

    fn set_retention(&self, hub: HubKey, keep: Duration) {
        self.inner.set_retention(hub, keep);
    }

    fn forget_hub(&self, hub: HubKey) {
        self.inner.forget_hub(hub);
    }
);

/// Whether `MUSTER_TORTURE_SYNC=off` asks for commits that are not synced: a build that the power-cut tests must fail.
#[cfg(feature = "torture")]
pub(crate) fn is_sync_off() -> bool {
    static OFF: std::sync::LazyLock<bool> =
        std::sync::LazyLock::new(|| std::env::var_os("MUSTER_TORTURE_SYNC").is_some_and(|value| value == "off"));
    *OFF
}

/// Whether `MUSTER_TORTURE_APPEND=forget` asks that this message of the telemetry log be acknowledged and not written: each
/// hundredth is, by a build that whoever looks for acknowledged messages must fail.
#[cfg(feature = "torture")]
pub(crate) fn is_append_forgotten() -> bool {
    use std::sync::atomic::{AtomicU64, Ordering};
    /// How many messages are written before one is not.
    const FORGOTTEN_EVERY: u64 = 100;
    static FORGETS: std::sync::LazyLock<bool> =
        std::sync::LazyLock::new(|| std::env::var_os("MUSTER_TORTURE_APPEND").is_some_and(|value| value == "forget"));
    static APPENDED: AtomicU64 = AtomicU64::new(1);
    *FORGETS && APPENDED.fetch_add(1, Ordering::Relaxed).is_multiple_of(FORGOTTEN_EVERY)
}
