//! The use cases, in the product's words.
//!
//! Knows the store's ports and never a backend, and no socket. [`Service::perform`] is the one door: whoever asks for
//! anything comes through it, and every failure leaves it as something that may be shown. Start there.

mod access;
mod activity;
mod backends;
mod calls;
pub mod clock;
mod cloud_to_device;
mod configurations;
mod digital_twins;
mod directory;
mod enrollments;
mod error;
mod events;
mod files;
mod hub_events;
mod jobs;
mod mailbox;
mod methods;
mod notifier;
mod provisioning;
mod queries;
mod readers;
mod registry;
mod resources;
mod routes;
mod sessions;
mod snapshot;
mod tasks;
mod telemetry;
mod token;
mod transfers;
mod twins;

use std::borrow::Cow;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use domain::clock::{Clock, Entropy, UnixTime};
use domain::operation::registration::RegistrationState;
use domain::operation::{Caller, ErrorKind, Failure, Operation, Reply};
use domain::quota::Quotas;
use domain::resource::{AddressPool, Naming};
use store::ports::{Deployment, Store, TelemetryLog};
use tokio::sync::{Notify, Semaphore, watch};

use backends::Backends;
use calls::Places;
use directory::Directory;
use provisioning::KeyGroups;
use readers::Readers;
use routes::Endpoints;

pub use error::Error;
pub use files::{FileReader, FileWriter};
pub use mailbox::{Mailbox, Slot, mailbox};
pub use resources::{Defaults, EndpointOf, Published};
pub use routes::{Courier, RouteSettings};
pub use snapshot::Snapshot;
pub use tasks::{Spawner, Task};
pub use token::TOKEN_LIFETIME;
pub use transfers::Exchange;

/// What an operator can set of the use cases.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Seconds a device waits before it polls an unfinished assignment.
    pub retry_after_s: u32,
    /// Assignments that the worker carries out side by side.
    pub claim_batch: usize,
    /// Symmetric-key groups tried for one registration.
    pub key_groups_tried_max: usize,
    /// How long ended operations can be polled.
    pub operations_kept: std::time::Duration,
    /// How often it is noted who was heard; not zero. The product shows it minutes late (`contract/hub-device.md`).
    pub activity_noted_every: std::time::Duration,
    /// Days that a fresh hub keeps telemetry.
    pub retention_days: u16,
    /// Partitions of a fresh hub.
    pub partitions: u16,
    /// How many CA certificates and links there may be; the rest is the store's to bound.
    pub quotas: Quotas,
    /// How endpoints are insisted on.
    pub routes: RouteSettings,
    /// Where fresh resources get their addresses from, unless they are known by name.
    pub addresses: AddressPool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            retry_after_s: 3,
            claim_batch: 512,
            key_groups_tried_max: 1_000,
            operations_kept: std::time::Duration::from_secs(24 * 3_600),
            activity_noted_every: std::time::Duration::from_secs(10),
            retention_days: 1,
            partitions: 4,
            quotas: Quotas::default(),
            routes: RouteSettings::default(),
            addresses: AddressPool::Loopback,
        }
    }
}

/// What the use cases stand on.
pub struct Parts {
    /// Everything durable but telemetry.
    pub store: Arc<dyn Store>,
    /// Telemetry.
    pub telemetry: Arc<dyn TelemetryLog>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Runs what must outlive the request that began it.
    pub tasks: Arc<dyn Spawner>,
    /// How resources are named.
    pub naming: Naming,
    /// What an operator set.
    pub settings: Settings,
}

/// The use cases. Cheap to clone.
#[derive(Clone)]
pub struct Service(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    telemetry: Arc<dyn TelemetryLog>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    tasks: Arc<dyn Spawner>,
    naming: Naming,
    settings: Settings,
    deployment: Deployment,
    resources: ArcSwap<Snapshot>,
    /// Changes of resources, one after another.
    changing: tokio::sync::Mutex<()>,
    directory: Directory,
    /// Back-end programs that stay.
    backends: Backends,
    /// Readers of telemetry.
    readers: Readers,
    /// Direct method calls under way.
    calls: Places,
    /// Room, in bytes, for messages that were sent over HTTPS and wait to be durable.
    posts: Semaphore,
    /// How the endpoints are that messages are sent to.
    endpoints: Endpoints,
    /// Bytes of uploaded files that are being received.
    file_bytes_under_way: Arc<AtomicU64>,
    assignments: Notify,
    jobs: Notify,
    transfers: Notify,
    /// Reads and writes the lines of imports and exports.
    exchange: OnceLock<Arc<dyn Exchange>>,
    configurations: Notify,
    key_groups: KeyGroups,
    /// Counts changes of what clients can dial.
    published: watch::Sender<u64>,
    /// Makes what is published reachable.
    publisher: OnceLock<Publisher>,
    /// Notes of refused registrations that may be under way at once.
    refusal_notes: Arc<Semaphore>,
}

/// Makes what a service publishes reachable; never waits.
type Publisher = Box<dyn Fn(&Service) + Send + Sync>;

/// Notes of refused registrations under way at once; more are left out, since nobody may wait for them (`rules.md` 7).
const REFUSAL_NOTES_MAX: usize = 256;

impl Service {
    /// Loads the resources, after making the defaults where there are none.
    pub async fn open(parts: Parts, defaults: Option<Defaults>) -> Result<Self, Error> {
        let Parts { store, telemetry, clock, entropy, tasks, naming, settings } = parts;
        let deployment = store.deployment(resources::first_deployment(entropy.as_ref(), clock.now())).await?;
        let snapshot = Snapshot::new(naming.clone(), store.load_resources().await?);
        let service = Self(Arc::new(Inner {
            published: watch::Sender::new(0),
            publisher: OnceLock::new(),
            refusal_notes: Arc::new(Semaphore::new(REFUSAL_NOTES_MAX)),
            resources: ArcSwap::from_pointee(snapshot),
            changing: tokio::sync::Mutex::new(()),
            directory: Directory::default(),
            backends: Backends::default(),
            readers: Readers::default(),
            calls: Places::default(),
            posts: Semaphore::new(telemetry::POSTS_BYTES_MAX),
            endpoints: Endpoints::default(),
            file_bytes_under_way: Arc::default(),
            assignments: Notify::new(),
            jobs: Notify::new(),
            transfers: Notify::new(),
            exchange: OnceLock::new(),
            configurations: Notify::new(),
            key_groups: KeyGroups::new(store.as_ref()),
            store,
            telemetry,
            clock,
            entropy,
            tasks,
            naming,
            settings,
            deployment,
        }));
        if let Some(defaults) = defaults {
            service.make_defaults(&defaults).await?;
        }
        service.apply_retention();
        // A change that was cut short may have left endpoints that have not begun, or that are no more.
        for hub in service.resources().hubs() {
            service.settle_endpoints(hub).await?;
        }
        Ok(service)
    }

    /// The one door: performs `operation` for `caller`.
    pub async fn perform(&self, caller: &Caller, operation: Operation) -> Result<Reply, Failure> {
        // Boxed, so that telemetry, which is performed most often, does not carry room for the others.
        let outcome = match operation {
            Operation::Telemetry(ask) => self.perform_telemetry(caller, ask).await.map(Reply::Telemetry),
            other => Box::pin(self.perform_other(caller, other)).await,
        };
        outcome.map_err(|error| self.fail(error))
    }

    async fn perform_other(&self, caller: &Caller, operation: Operation) -> Result<Reply, Error> {
        match operation {
            Operation::Registration(ask) => self.perform_registration(caller, ask).await.map(Reply::Registration),
            Operation::Enrollment(ask) => self.perform_enrollment(caller, ask).await.map(Reply::Enrollment),
            Operation::Identity(ask) => self.perform_identity(caller, ask).await.map(Reply::Identity),
            Operation::Twin(ask) => self.perform_twin(caller, ask).await.map(Reply::Twin),
            Operation::DigitalTwin(ask) => self.perform_digital_twin(caller, ask).await.map(Reply::DigitalTwin),
            Operation::Method(ask) => self.perform_method(caller, ask).await.map(Reply::Method),
            Operation::Query(ask) => self.perform_query(caller, ask).await.map(Reply::Query),
            Operation::Job(ask) => self.perform_job(caller, ask).await.map(Reply::Job),
            Operation::Transfer(ask) => self.perform_transfer(caller, ask).await.map(Reply::Transfer),
            Operation::ManagedTransfer(ask) => self.perform_managed_transfer(caller, ask).await.map(Reply::Transfer),
            Operation::Configuration(ask) => self.perform_configuration(caller, ask).await.map(Reply::Configuration),
            Operation::Session(ask) => self.perform_session(caller, ask).await.map(Reply::Session),
            Operation::Backend(ask) => self.perform_backend(caller, ask).map(Reply::Backend),
            Operation::Telemetry(ask) => self.perform_telemetry(caller, ask).await.map(Reply::Telemetry),
            Operation::Events(ask) => self.perform_events(caller, ask).await.map(Reply::Events),
            Operation::CloudToDevice(ask) => self.perform_cloud_to_device(caller, ask).await.map(Reply::CloudToDevice),
            Operation::File(ask) => self.perform_file(caller, ask).await.map(Reply::File),
            Operation::Resource(ask) => self.perform_resource(caller, ask).await.map(Reply::Resource),
            Operation::Route(ask) => self.perform_route(caller, ask).await.map(Reply::Route),
            Operation::Decision(ask) => self.perform_decision(caller, ask).await.map(Reply::Decision),
        }
    }

    /// What is answered to a request that could not be understood: nobody asks, so that nothing is performed.
    pub fn refuse(&self, kind: ErrorKind, public: impl Into<Cow<'static, str>>) -> Failure {
        self.fail(Error::new(kind, public))
    }

    /// The resources at this moment.
    pub fn resources(&self) -> Arc<Snapshot> {
        self.0.resources.load_full()
    }

    /// The telemetry log, for readers.
    pub fn telemetry(&self) -> &Arc<dyn TelemetryLog> {
        &self.0.telemetry
    }

    /// What the deployment is known by.
    pub fn deployment(&self) -> &Deployment {
        &self.0.deployment
    }

    pub(crate) fn now(&self) -> UnixTime {
        self.0.clock.now()
    }

    pub(crate) fn entropy(&self) -> &dyn Entropy {
        self.0.entropy.as_ref()
    }

    pub(crate) fn fail(&self, error: Error) -> Failure {
        error.into_failure(self.entropy(), self.now())
    }

    /// Puts the hub's host name where the store keeps its key.
    pub(crate) fn with_host(&self, mut state: RegistrationState) -> RegistrationState {
        if let Some(assignment) = &mut state.assignment {
            let key = assignment.host_name.parse().map(domain::ids::HubKey).ok();
            let resources = self.resources();
            if let Some(hub) = key.and_then(|key| resources.hub(key)) {
                assignment.host_name = resources.hub_host(hub);
            }
        }
        state
    }
}
