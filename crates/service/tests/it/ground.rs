//! What the tests stand on: a service with its default hub and provisioning service, and the callers that come to it.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use domain::clock::{Clock as _, ManualClock, SeededEntropy};
use domain::enrollment::Enrollment;
use domain::ids::{HubName, ServiceKey, ServiceName};
use domain::operation::identity::IdentityName;
use domain::operation::registration::{Ask as RegistrationAsk, RegistrationState, Request};
use domain::operation::resource::Place;
use domain::operation::session::{Answer as SessionAnswer, Ask as SessionAsk, Connect, Memory};
use domain::operation::{Caller, Endpoint, Evidence, Failure, Operation, Reply, Secret, Transport};
use domain::resource::{Hub, Naming, ProvisioningService};
use domain::sas::{SasToken, SymmetricKey};
use service::{Defaults, EndpointOf, Mailbox, Parts, Service, Settings, Spawner, Task};
use store::conformance::sample::{NOON, individual, keys, registration_id};
use store::faults::Faulty;
use store::ports::{EnrollmentStore as _, RegistrationStore as _, TelemetryLog};
use store::sqlite::{Embedded, Options};

/// The default provisioning service's address, which is the common one.
const DIALLED: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// The resource group of the default resources.
pub const GROUP: &str = "muster";
/// Longer than anything takes that is not stuck; less than a worker sleeps that nobody wakes.
pub const PATIENCE: Duration = Duration::from_secs(3);

pub struct Ground {
    pub store: Arc<Faulty<Embedded>>,
    pub service: Service,
    pub clock: Arc<ManualClock>,
}

struct Tasks;

impl Spawner for Tasks {
    #[expect(clippy::disallowed_methods, reason = "a test's tasks end with its runtime")]
    fn spawn(&self, _name: &'static str, task: Task) {
        tokio::spawn(task);
    }
}

pub fn defaults() -> Defaults {
    Defaults {
        service: ServiceName::parse("dps").unwrap(),
        hub: HubName::parse("hub").unwrap(),
        group: GROUP.to_owned(),
        location: "local".to_owned(),
    }
}

/// A service over `store`.
pub async fn open(
    store: &Arc<Faulty<Embedded>>,
    clock: &Arc<ManualClock>,
    settings: Settings,
) -> Result<Service, service::Error> {
    open_over(store, Arc::new(store.inner().telemetry().clone()), clock, settings).await
}

/// A service over `store` that keeps telemetry in `telemetry`.
pub async fn open_over(
    store: &Arc<Faulty<Embedded>>,
    telemetry: Arc<dyn TelemetryLog>,
    clock: &Arc<ManualClock>,
    settings: Settings,
) -> Result<Service, service::Error> {
    let parts = Parts {
        store: Arc::clone(store) as _,
        telemetry,
        clock: Arc::clone(clock) as _,
        entropy: Arc::new(SeededEntropy::new(7)),
        tasks: Arc::new(Tasks),
        naming: Naming::Addresses,
        settings,
    };
    Service::open(parts, Some(defaults())).await
}

impl Ground {
    pub async fn new() -> Self {
        Self::with(Settings::default()).await
    }

    pub async fn with(settings: Settings) -> Self {
        let clock = Arc::new(ManualClock::at(NOON));
        let embedded = Embedded::open(Options::default(), Arc::clone(&clock) as _, &SeededEntropy::new(1)).unwrap();
        let store = Arc::new(Faulty::new(embedded));
        let service = open(&store, &clock, settings).await.unwrap();
        Self { store, service, clock }
    }

    pub fn dps(&self) -> Arc<ProvisioningService> {
        Arc::clone(self.service.resources().services().first().unwrap())
    }

    pub fn hub(&self) -> Arc<Hub> {
        Arc::clone(self.service.resources().hubs().first().unwrap())
    }

    pub fn place(&self) -> Place {
        Place { subscription: self.service.deployment().subscription.clone(), group: Some(GROUP.to_owned()) }
    }

    /// The operator at the management port.
    pub fn operator(&self) -> Caller {
        let deployment = self.service.deployment();
        let secret = std::str::from_utf8(&deployment.client_secret.0).unwrap();
        let token = self.service.issue_token(&deployment.client, secret, "management").unwrap();
        let mut caller = caller(Evidence { bearer: Some(Secret::new(token)), ..Evidence::default() });
        caller.endpoint.admin = true;
        caller
    }

    /// A device that signs with `key`.
    pub fn device(&self, registration: &str, key: &SymmetricKey) -> Caller {
        let resource = format!("{}/registrations/{registration}", self.dps().id_scope);
        let token = SasToken::write(key, &resource, None, self.clock.now().plus(Duration::from_secs(3_600)));
        caller(Evidence { token: Some(SasToken::parse(&token).unwrap()), ..Evidence::default() })
    }

    /// A program that signs with a policy of the provisioning service, or of the hub, that may do everything.
    pub fn program(&self, at: &EndpointOf) -> Caller {
        let (address, policies, owner) = match at {
            EndpointOf::Service(dps) => (dps.address, &dps.policies, "provisioningserviceowner"),
            EndpointOf::Hub(hub) => (hub.address, &hub.policies, "iothubowner"),
        };
        let policy = policies.iter().find(|policy| policy.name.as_str() == owner).unwrap();
        self.signed(address.unwrap(), "", (&policy.keys.primary, Some(owner)))
    }

    /// Connects a device of the hub that signs with `key`.
    pub async fn connect(&self, name: &IdentityName, key: &SymmetricKey) -> Result<Reply, Failure> {
        self.seat(name, &self.device_at_hub(name, key)).await
    }

    /// A device of the hub that signs with `key`.
    pub fn device_at_hub(&self, name: &IdentityName, key: &SymmetricKey) -> Caller {
        self.signed(self.hub().address.unwrap(), &format!("/devices/{}", name.device), (key, None))
    }

    /// Connects a device of the hub by a policy that may do everything; gives what it is told.
    pub async fn connect_by_policy(&self, name: &IdentityName) -> Mailbox {
        let answer = self.seat_by_policy(name).await;
        let Reply::Session(SessionAnswer::Connected { device, .. }) = answer else { panic!("{answer:?}") };
        self.service.mailbox(&device).unwrap()
    }

    /// Connects a device of the hub by a policy that may do everything.
    pub async fn seat_by_policy(&self, name: &IdentityName) -> Reply {
        self.seat(name, &self.program(&EndpointOf::Hub(self.hub()))).await.unwrap()
    }

    /// Connects a device of the hub as [`Self::seat_by_policy`] does, and has `memory` become of its session.
    pub async fn resume_by_policy(&self, name: &IdentityName, memory: Memory) -> Reply {
        let ask = Connect { memory, ..self.introduction(name) };
        let ask = Operation::Session(SessionAsk::Connect(Box::new(ask)));
        self.service.perform(&self.program(&EndpointOf::Hub(self.hub())), ask).await.unwrap()
    }

    fn introduction(&self, name: &IdentityName) -> Connect {
        Connect {
            host: self.hub().address.unwrap().to_string(),
            claimed: name.clone(),
            memory: Memory::Forget,
            model_id: None,
            client: None,
        }
    }

    async fn seat(&self, name: &IdentityName, device: &Caller) -> Result<Reply, Failure> {
        let ask = self.introduction(name);
        self.service.perform(device, Operation::Session(SessionAsk::Connect(Box::new(ask)))).await
    }

    pub fn signed(&self, address: IpAddr, path: &str, (key, policy): (&SymmetricKey, Option<&str>)) -> Caller {
        let until = self.clock.now().plus(Duration::from_secs(3_600));
        let token = SasToken::write(key, &format!("{address}{path}"), policy, until);
        let mut caller = caller(Evidence { token: Some(SasToken::parse(&token).unwrap()), ..Evidence::default() });
        caller.endpoint.address = address;
        caller
    }

    pub async fn enroll(&self, entry: Enrollment) {
        self.store.create_enrollment(self.service_key(), entry, NOON).await.unwrap();
    }

    /// Enrolls a device by a key of its own and has it registered.
    pub async fn begin(&self, registration: &str) {
        self.enroll(individual(registration, 1)).await;
        let accepted = self.register(&self.device(registration, &keys(1).primary), registration).await;
        accepted.unwrap_or_else(|failure| panic!("{registration}: {failure}"));
    }

    pub fn service_key(&self) -> ServiceKey {
        self.dps().key
    }

    pub async fn register(&self, caller: &Caller, registration: &str) -> Result<Reply, Failure> {
        let request = Request::Register(Box::default());
        let (id_scope, registration_id) = (self.dps().id_scope.to_string(), registration.to_owned());
        let ask = RegistrationAsk { id_scope, registration_id, request };
        self.service.perform(caller, Operation::Registration(ask)).await
    }

    pub async fn registration(&self, registration: &str) -> Option<RegistrationState> {
        self.store.find_registration(self.service_key(), &registration_id(registration)).await.unwrap()
    }

    /// Waits until the registration is as `wanted`.
    pub async fn registered_as(&self, registration: &str, wanted: impl Fn(&RegistrationState) -> bool) {
        let until = async {
            while !self.registration(registration).await.is_some_and(|state| wanted(&state)) {
                tokio::task::yield_now().await;
            }
        };
        let state = tokio::time::timeout(PATIENCE, until).await;
        assert!(state.is_ok(), "{:?}", self.registration(registration).await);
    }
}

fn caller(evidence: Evidence) -> Caller {
    let endpoint = Endpoint { address: DIALLED, server_name: None, host: None, admin: false };
    Caller { endpoint, peer: DIALLED, transport: Transport::Https, evidence }
}
