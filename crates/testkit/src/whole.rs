//! A whole Muster in this process: in memory or in a folder, real TLS sockets on free ports.
//!
//! It is put together as `muster serve --memory` does it, out of the same parts, and none of them is replaced. Start at
//! [`Muster::start`].

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use client::https::{HttpsError, Server as Place, connect};
use client::service::ConnectionString;
use client::trust::{ClientCertificate, TrustError, configure};
use domain::clock::{Clock, Entropy};
use domain::ids::{HubName, ServiceName};
use domain::resource::{Naming, Policy};
use rustls::ClientConfig;
use server::balancer::Balancer;
use server::serve::{RimLimits, ServeOptions, Server, StartError};
use server::shutdown::{Drained, Tasks};
use service::clock::{SystemClock, SystemEntropy};
use service::{Defaults, EndpointOf, Parts, Service, Settings};
use store::faults::{Faulty, HeldLog};
use store::ports::{Store, TelemetryLog};
use store::sqlite::{Embedded, Options};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// How long a drain may take.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// A port that is free.
const ANY_PORT: (u16, bool) = (0, true);

/// Whom management tokens are for.
const MANAGEMENT_AUDIENCE: &str = "https://management.azure.com";

/// Seconds a device is told to wait: tests do not wait at all, so that the least is told.
const RETRY_AFTER_S: u32 = 1;

/// How often it is noted who was heard: often, for a test that waits for it.
const ACTIVITY_NOTED_EVERY: Duration = Duration::from_millis(50);

/// Why no Muster starts.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The store.
    #[error("the store cannot be opened")]
    Store(#[from] store::OpenError),
    /// The use cases.
    #[error("the service cannot be opened: {0}")]
    Service(String),
    /// The server.
    #[error("the server cannot be started")]
    Server(#[from] StartError),
    /// The client's own trust.
    #[error("the instance CA cannot be trusted")]
    Trust(#[from] TrustError),
    /// There is no default hub or provisioning service.
    #[error("a default resource is missing")]
    Resource,
}

/// A resource that can be dialled, and who may do everything there.
#[derive(Clone, Debug)]
pub struct Resource {
    /// Host name or address, as certificates carry it.
    pub host: String,
    /// The policy with every right, and its key.
    pub owner: ConnectionString,
}

/// The management port, and the operator.
#[derive(Clone, Debug)]
pub struct Admin {
    /// The address it is dialled at.
    pub host: String,
    /// The subscription that everything is in.
    pub subscription: String,
    /// The operator's credential: the client and its secret.
    pub credential: (String, String),
    /// A bearer token that may do everything.
    pub token: String,
}

/// What stands between clients and the drivers.
#[derive(Default)]
struct Rim {
    limits: RimLimits,
    balancers: Vec<Balancer>,
}

/// A running Muster with a provisioning service `dps` and a hub `hub` linked to it.
pub struct Muster {
    server: Server,
    service: Service,
    clock: Arc<dyn Clock>,
    trust: Arc<ClientConfig>,
    /// The provisioning service's service API.
    pub provisioning: Resource,
    /// What devices dial to be provisioned.
    pub device_host: String,
    /// The provisioning service's ID scope.
    pub id_scope: String,
    /// The hub.
    pub hub: Resource,
    /// The management API.
    pub admin: Admin,
}

impl Muster {
    /// Starts one that keeps everything in memory; on return it accepts.
    pub async fn start() -> Result<Self, Failed> {
        Self::start_with(Options::default(), Arc::new(SystemClock), Rim::default()).await
    }

    /// Starts one that holds clients to `limits`.
    pub async fn start_limited(limits: RimLimits) -> Result<Self, Failed> {
        let rim = Rim { limits, ..Rim::default() };
        Self::start_with(Options::default(), Arc::new(SystemClock), rim).await
    }

    /// As [`Self::start_limited`], behind `balancers`.
    pub async fn start_behind(balancers: Vec<Balancer>, limits: RimLimits) -> Result<Self, Failed> {
        Self::start_with(Options::default(), Arc::new(SystemClock), Rim { limits, balancers }).await
    }

    /// Starts one that goes by `clock`.
    pub async fn start_by(clock: Arc<dyn Clock>) -> Result<Self, Failed> {
        Self::start_with(Options::default(), clock, Rim::default()).await
    }

    /// Starts one whose store is in `folder`, so that what it acknowledges waits for a disk.
    pub async fn start_in(folder: &Path) -> Result<Self, Failed> {
        let options = Options { folder: Some(folder.to_path_buf()), ..Options::default() };
        Self::start_with(options, Arc::new(SystemClock), Rim::default()).await
    }

    /// Starts one calls of whose store can be held back through what is returned with it.
    pub async fn start_over_faulty_store() -> Result<(Self, Arc<Faulty<Embedded>>), Failed> {
        let clock = Arc::new(SystemClock);
        let embedded = Embedded::open(Options::default(), clock.clone(), &SystemEntropy)?;
        let telemetry = Arc::new(embedded.telemetry().clone());
        let store = Arc::new(Faulty::new(embedded));
        let started = Self::start_over(store.clone(), telemetry, clock, Rim::default()).await?;
        Ok((started, store))
    }

    /// Starts one whose log can be held through what is returned with it.
    pub async fn start_over_held_log() -> Result<(Self, Arc<HeldLog>), Failed> {
        let clock = Arc::new(SystemClock);
        let store = Embedded::open(Options::default(), clock.clone(), &SystemEntropy)?;
        let log = Arc::new(HeldLog::new(Arc::new(store.telemetry().clone())));
        let started = Self::start_over(Arc::new(store), log.clone(), clock, Rim::default()).await?;
        Ok((started, log))
    }

    async fn start_with(stored: Options, clock: Arc<dyn Clock>, rim: Rim) -> Result<Self, Failed> {
        let store = Embedded::open(stored, Arc::clone(&clock), &SystemEntropy)?;
        let telemetry = Arc::new(store.telemetry().clone());
        Self::start_over(Arc::new(store), telemetry, clock, rim).await
    }

    async fn start_over(
        store: Arc<dyn Store>,
        telemetry: Arc<dyn TelemetryLog>,
        clock: Arc<dyn Clock>,
        rim: Rim,
    ) -> Result<Self, Failed> {
        let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
        let tasks = Tasks::new();
        let parts = Parts {
            store,
            telemetry,
            clock: Arc::clone(&clock),
            entropy: Arc::clone(&entropy),
            tasks: Arc::new(tasks.clone()),
            naming: Naming::Addresses,
            settings: Settings {
                retry_after_s: RETRY_AFTER_S,
                activity_noted_every: ACTIVITY_NOTED_EVERY,
                ..Settings::default()
            },
        };
        let opened = Service::open(parts, Some(defaults()?)).await;
        let service = opened.map_err(|error| Failed::Service(error.public.into_owned()))?;
        let options = ServeOptions {
            tasks,
            keys: None,
            addresses: vec![Ipv4Addr::LOCALHOST.into()],
            strict: true,
            https: ANY_PORT,
            mqtts: ANY_PORT,
            amqps: ANY_PORT,
            admin: ANY_PORT,
            limits: rim.limits,
            balancers: rim.balancers,
            dials_private: true,
            operator: None,
        };
        let server = Server::start(&service, options, &clock, &entropy)?;
        let trust = configure(server.authority_pem(), None)?;
        let (provisioning, id_scope) = provisioning_of(&service).ok_or(Failed::Resource)?;
        Ok(Self {
            device_host: service.resources().device_host(),
            hub: hub_of(&service).ok_or(Failed::Resource)?,
            admin: admin_of(&service).ok_or(Failed::Resource)?,
            server,
            service,
            clock,
            trust,
            provisioning,
            id_scope,
        })
    }

    /// The use cases behind the server.
    pub const fn service(&self) -> &Service {
        &self.service
    }

    /// The HTTPS port.
    pub fn https_port(&self) -> u16 {
        self.server.ports().https
    }

    /// The MQTT port.
    pub fn mqtts_port(&self) -> u16 {
        self.server.ports().mqtts
    }

    /// The AMQP port.
    pub fn amqps_port(&self) -> u16 {
        self.server.ports().amqps
    }

    /// The management port.
    pub fn admin_port(&self) -> u16 {
        self.server.ports().admin
    }

    /// The clock that everything runs by.
    pub fn clock(&self) -> &dyn Clock {
        self.clock.as_ref()
    }

    /// A client's TLS configuration that trusts this Muster and shows `certificate`, if there is one.
    pub fn trust(&self, certificate: Option<ClientCertificate>) -> Result<Arc<ClientConfig>, TrustError> {
        match certificate {
            None => Ok(Arc::clone(&self.trust)),
            shown => configure(self.server.authority_pem(), shown),
        }
    }

    /// Dials the HTTPS port of `host`.
    pub async fn dial_https(&self, host: &str) -> Result<TlsStream<TcpStream>, HttpsError> {
        connect(&self.trust, &Place { host: host.to_owned(), port: self.https_port() }).await
    }

    /// Dials the MQTT port of `host`.
    pub async fn dial_mqtt(&self, host: &str) -> Result<TlsStream<TcpStream>, HttpsError> {
        connect(&self.trust, &Place { host: host.to_owned(), port: self.mqtts_port() }).await
    }

    /// Dials the AMQP port of `host`, showing what `trust` shows.
    pub async fn dial_amqp(&self, host: &str, trust: &Arc<ClientConfig>) -> Result<TlsStream<TcpStream>, HttpsError> {
        connect(trust, &Place { host: host.to_owned(), port: self.amqps_port() }).await
    }

    /// Dials the management port.
    pub async fn dial_admin(&self) -> Result<TlsStream<TcpStream>, HttpsError> {
        connect(&self.trust, &Place { host: self.admin.host.clone(), port: self.admin_port() }).await
    }

    /// Drains and stops.
    pub async fn stop(self) -> Drained {
        self.server.drain(DRAIN_MAX).await
    }
}

fn defaults() -> Result<Defaults, Failed> {
    let unnamed = |_| Failed::Resource;
    Ok(Defaults {
        service: ServiceName::parse("dps").map_err(unnamed)?,
        hub: HubName::parse("hub").map_err(unnamed)?,
        group: "muster".to_owned(),
        location: "local".to_owned(),
    })
}

fn provisioning_of(service: &Service) -> Option<(Resource, String)> {
    let published = service.published().into_iter();
    let mut found = published.filter_map(|one| match one.of {
        EndpointOf::Service(service) => Some(service),
        EndpointOf::Hub(_) => None,
    });
    let dps = found.next()?;
    let host = service.resources().service_host(&dps);
    Some((resource(host, &dps.policies, "provisioningserviceowner")?, dps.id_scope.to_string()))
}

fn hub_of(service: &Service) -> Option<Resource> {
    let published = service.published().into_iter();
    let mut found = published.filter_map(|one| match one.of {
        EndpointOf::Hub(hub) => Some(hub),
        EndpointOf::Service(_) => None,
    });
    let hub = found.next()?;
    resource(service.resources().hub_host(&hub), &hub.policies, "iothubowner")
}

fn admin_of(service: &Service) -> Option<Admin> {
    let deployment = service.deployment();
    let secret = std::str::from_utf8(&deployment.client_secret.0).ok()?;
    let token = service.issue_token(&deployment.client, secret, MANAGEMENT_AUDIENCE).ok()?;
    let host = Ipv4Addr::LOCALHOST.to_string();
    let credential = (deployment.client.clone(), secret.to_owned());
    Some(Admin { host, subscription: deployment.subscription.clone(), credential, token })
}

fn resource(host: String, policies: &[Policy], owner: &str) -> Option<Resource> {
    let policy = policies.iter().find(|policy| policy.name.as_str().eq_ignore_ascii_case(owner))?;
    let owner =
        ConnectionString { host_name: host.clone(), policy: policy.name.to_string(), key: policy.keys.primary.clone() };
    Some(Resource { host, owner })
}
