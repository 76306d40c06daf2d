//! Putting the rim together: certificates, listeners and drivers around the use cases, and taking it down again.
//!
//! Start at [`Server::start`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use client::outbound::{Outbound, Reach};
use domain::clock::{Clock, Entropy};
use domain::operation::Transport;
use proto::{amqp, mqtt};
use service::{Courier, Service};

use crate::amqp::AmqpServer;
use crate::balancer::{Balancer, Balancers};
use crate::connection::caller;
use crate::courier::OutboundCourier;
use crate::door::Door;
use crate::exchange::OutboundExchange;
use crate::http::{HttpServer, HttpSettings};
use crate::listener::{BindError, Binder, ConnectionLimit, Incoming, PortNotice, PortWanted, RunningListener};
use crate::mqtt::MqttServer;
use crate::names::{CertificateNames, NameTable, Names};
use crate::routes::{AdminRoutes, PublicRoutes};
use crate::shutdown::{Drained, Tasks};
use crate::tls::authority::{Authority, AuthorityError};
use crate::tls::key_file::KeyFolder;
use crate::tls::{
    CertificateSources, Connection, OperatorCertificate, OperatorCertificateError, PortProtocol, ServerCertificates,
    TlsAcceptor, TlsSettings,
};
use crate::websocket::{Subprotocol, WebSocket, WebSocketHandler};

/// What the rim is told.
pub struct ServeOptions {
    /// The set that every task runs in: the one handed to the use cases as well.
    pub tasks: Tasks,
    /// Folder of the authority's files, and what seals its keys; `None` keeps everything in memory.
    pub keys: Option<KeyFolder>,
    /// Addresses to listen on.
    pub addresses: Vec<IpAddr>,
    /// Whether a default port that may not be opened stops the start.
    pub strict: bool,
    /// HTTPS and WebSocket.
    pub https: (u16, bool),
    /// MQTT; the second part tells whether the operator named the port.
    pub mqtts: (u16, bool),
    /// AMQP, in the same way.
    pub amqps: (u16, bool),
    /// Management.
    pub admin: (u16, bool),
    /// Bounds before proof.
    pub limits: RimLimits,
    /// Who says before TLS whom a connection comes from, and must.
    pub balancers: Vec<Balancer>,
    /// Whether endpoints of routes may have private addresses, loopback included.
    pub dials_private: bool,
    /// Files of a certificate chain and its key that the operator brings.
    pub operator: Option<(PathBuf, PathBuf)>,
}

/// What clients that proved nothing may cost.
#[derive(Clone, Debug)]
pub struct RimLimits {
    /// Before a handshake is done.
    pub tls: TlsSettings,
    /// Failed proofs a minute from one address before it is made to wait; 0 sets no bound.
    pub failed_proofs_per_min: u32,
    /// Connections at once, over all ports.
    pub connections_max: usize,
    /// What one AMQP connection may take, proven or not.
    pub amqp: amqp::Limits,
}

impl Default for RimLimits {
    /// Room for a large fleet behind one address.
    fn default() -> Self {
        Self {
            tls: TlsSettings::default(),
            failed_proofs_per_min: 6_000,
            connections_max: 1_000_000,
            amqp: amqp::Limits::default(),
        }
    }
}

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The instance CA cannot be made or read.
    #[error("the certificate authority cannot be opened")]
    Authority(#[from] AuthorityError),
    /// TLS cannot be configured.
    #[error("TLS cannot be configured")]
    Tls(#[from] rustls::Error),
    /// The operator's certificate cannot be used.
    #[error("the operator's certificate cannot be used")]
    Operator(#[from] OperatorCertificateError),
    /// A port cannot be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// There is no name to put on a certificate.
    #[error("there is no host name to serve")]
    NoNames,
}

/// The ports that accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// HTTPS and WebSocket.
    pub https: u16,
    /// MQTT.
    pub mqtts: u16,
    /// AMQP.
    pub amqps: u16,
    /// Management.
    pub admin: u16,
}

/// A server that accepts.
pub struct Server {
    service: Service,
    tasks: Tasks,
    certificates: Arc<ServerCertificates>,
    https: Arc<RunningListener>,
    mqtts: Arc<RunningListener>,
    amqps: Arc<RunningListener>,
    admin: RunningListener,
    notices: Vec<PortNotice>,
}

impl Server {
    /// Binds every port, starts the workers of `service` and accepts. On return every listener accepts.
    pub fn start(
        service: &Service,
        options: ServeOptions,
        clock: &Arc<dyn Clock>,
        entropy: &Arc<dyn Entropy>,
    ) -> Result<Self, StartError> {
        let authority = match &options.keys {
            Some(folder) => Authority::open(folder, clock.now(), entropy.as_ref())?,
            None => Authority::in_memory(clock.now(), entropy.as_ref())?,
        };
        let own = options.addresses.first().copied().map(dialled_from_here);
        let names = Arc::new(Names::new(name_table(service, own).ok_or(StartError::NoNames)?));
        let certificates = Arc::new(ServerCertificates::new(CertificateSources {
            authority,
            folder: options.keys,
            names: Arc::clone(&names),
            clock: Arc::clone(clock),
            entropy: Arc::clone(entropy),
        })?);
        if let Some((chain, key)) = &options.operator {
            let brought = OperatorCertificate::load(chain, key, certificates.provider())?;
            certificates.replace_operator_certificates(vec![brought]);
        }
        let own_addresses = options.addresses.clone();
        let binder = Binder { addresses: options.addresses, strict: options.strict };
        let connections = ConnectionLimit::new(options.limits.connections_max);
        let bind = |purpose, (port, explicit)| {
            binder.bind(PortWanted { purpose, port, explicit }).map(|listener| listener.limited(&connections))
        };
        let (https, mqtts) = (bind("https", options.https)?, bind("mqtts", options.mqtts)?);
        let (amqps, admin) = (bind("amqps", options.amqps)?, bind("admin", options.admin)?);
        let notices = [&https, &mqtts, &amqps, &admin].into_iter().filter_map(|port| port.notice().cloned()).collect();
        let tasks = options.tasks;
        let acceptor = TlsAcceptor::new(Arc::clone(&certificates), options.limits.tls, PortProtocol::Other);
        let door = Door::new(service.clone(), options.limits.failed_proofs_per_min);
        let mqtt = MqttServer::new(door.clone(), mqtt::Limits::default());
        let amqp = AmqpServer::new(door.clone(), options.limits.amqp);
        let balancers = Balancers::new(options.balancers, Arc::clone(&names), options.limits.tls.handshake_timeout);
        let rim = Rim { tasks: tasks.clone(), balancers: Arc::new(balancers), acceptor, door, mqtt, amqp };
        let server = Self {
            service: service.clone(),
            https: Arc::new(rim.start_https(https)?),
            mqtts: Arc::new(rim.start_mqtts(mqtts)?),
            amqps: Arc::new(rim.start_amqps(amqps)?),
            admin: rim.start_admin(admin)?,
            tasks,
            certificates,
            notices,
        };
        server.start_workers(service, names, own);
        let Ports { https, mqtts, amqps, admin } = server.ports();
        let reach =
            Reach { private: options.dials_private, own_ports: vec![https, mqtts, amqps, admin], own_addresses };
        let outbound = Outbound::new(reach);
        service.exchange_by(Arc::new(OutboundExchange::new(outbound.clone())));
        server.run("transfers", service, |service| async move { service.run_transfers().await });
        let courier: Arc<dyn Courier> = Arc::new(OutboundCourier::new(outbound, server.tasks.clone()));
        server.run("routes", service, move |service| {
            let courier = Arc::clone(&courier);
            async move { service.run_routes(courier).await }
        });
        Ok(server)
    }

    fn start_workers(&self, service: &Service, names: Arc<Names>, own: Option<IpAddr>) {
        // Weak, since the ports hold the service.
        let ports = [&self.https, &self.mqtts, &self.amqps].map(Arc::downgrade);
        service.publish_by(move |service| {
            if let Some(table) = name_table(service, own) {
                names.replace(table);
            }
            cover(&ports, service);
        });
        self.run("assignments", service, |service| async move { service.run_assignments().await });
        self.run("pruning", service, |service| async move { service.run_pruning().await });
        self.run("notifications", service, |service| async move { service.run_notifications().await });
        self.run("events", service, |service| async move { service.run_hub_events().await });
        self.run("cut-offs", service, |service| async move { service.run_cut_offs().await });
        self.run("expiry", service, |service| async move { service.run_expiry().await });
        self.run("wakes", service, |service| async move { service.run_backend_wakes().await });
        self.run("messages", service, |service| async move { service.run_message_sweeps().await });
        self.run("jobs", service, |service| async move { service.run_jobs().await });
        self.run("configurations", service, |service| async move { service.run_configurations().await });
        self.run("job-pruning", service, |service| async move { service.run_job_pruning().await });
        self.run("files", service, |service| async move { service.run_file_sweeps().await });
        self.run("activity", service, |service| async move { service.run_activity().await });
    }

    /// Runs a worker of `service` until nothing else runs in a server that drains.
    fn run<F>(&self, name: &'static str, service: &Service, work: impl Fn(Service) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let service = service.clone();
        self.tasks.spawn_worker(name, move || work(service.clone()));
    }

    /// The ports.
    pub fn ports(&self) -> Ports {
        Ports { https: self.https.port(), mqtts: self.mqtts.port(), amqps: self.amqps.port(), admin: self.admin.port() }
    }

    /// Ports that had to be replaced.
    pub fn notices(&self) -> &[PortNotice] {
        &self.notices
    }

    /// What clients must trust.
    pub fn authority_pem(&self) -> &str {
        self.certificates.authority_pem()
    }

    /// Begins nothing more and tells whoever asks to come again, lets what runs come to its end until `deadline`, then
    /// closes.
    pub async fn drain(&self, deadline: Duration) -> Drained {
        self.service.stop_calls();
        self.tasks.drain(deadline).await
    }
}

/// Makes sure that every published address can be dialled: where loopback cannot be had as a whole, each of its addresses
/// needs a socket of its own.
fn cover(ports: &[Weak<RunningListener>], service: &Service) {
    let ports: Vec<_> = ports.iter().filter_map(Weak::upgrade).collect();
    for address in service.published().iter().filter_map(|published| published.address) {
        for error in ports.iter().filter_map(|port| port.cover(address).err()) {
            tracing::error!(%error, "a resource cannot be reached at its address");
        }
    }
}

/// What programs of this machine dial to reach a socket bound to `address`.
pub const fn dialled_from_here(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) if address.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(address) if address.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        other => other,
    }
}

/// Every name that is served, with the certificate it needs. The management port is dialled at the server's `own` address,
/// which under a domain is nobody's.
fn name_table(service: &Service, own: Option<IpAddr>) -> Option<NameTable> {
    let resources = service.resources();
    let published = service.published();
    let unnamed = [resources.device_host(), "localhost".to_owned()];
    let fallback = CertificateNames::new(unnamed.into_iter().chain(own.map(|address| address.to_string())))?;
    let mut table = NameTable::new(fallback);
    for one in published {
        let names = CertificateNames::new(&one.names)?;
        for name in names.clone().iter() {
            table = table.with_host(name, names.clone());
        }
        if let Some(address) = one.address {
            table = table.with_address(address, names);
        }
    }
    Some(table)
}

/// What every port shares.
#[derive(Clone)]
struct Rim {
    tasks: Tasks,
    balancers: Arc<Balancers>,
    acceptor: TlsAcceptor,
    door: Door,
    mqtt: MqttServer,
    amqp: AmqpServer,
}

impl Rim {
    fn start_mqtts(&self, listener: crate::listener::Listener) -> Result<RunningListener, BindError> {
        let rim = self.clone();
        listener.start(&self.tasks, move |incoming| {
            let rim = rim.clone();
            async move {
                let Some(Connection { stream, peer }) = rim.handshake(&rim.acceptor, incoming).await else {
                    return;
                };
                rim.mqtt.serve(stream, caller(&peer, Transport::Mqtt, None), &rim.tasks).await;
            }
        })
    }

    fn start_amqps(&self, listener: crate::listener::Listener) -> Result<RunningListener, BindError> {
        let rim = self.clone();
        listener.start(&self.tasks, move |incoming| {
            let rim = rim.clone();
            async move {
                let Some(Connection { stream, peer }) = rim.handshake(&rim.acceptor, incoming).await else {
                    return;
                };
                rim.amqp.serve(stream, caller(&peer, Transport::Amqp, None), &rim.tasks).await;
            }
        })
    }

    fn start_https(&self, listener: crate::listener::Listener) -> Result<RunningListener, BindError> {
        let handler = Arc::new(PublicRoutes { door: self.door.clone(), tasks: self.tasks.clone() });
        let websockets = Arc::new(WebSockets { rim: self.clone() });
        let server = HttpServer::new(handler, Some(websockets), HttpSettings::default(), &self.tasks);
        self.start_http(listener, server)
    }

    fn start_admin(&self, listener: crate::listener::Listener) -> Result<RunningListener, BindError> {
        let handler = Arc::new(AdminRoutes { door: self.door.clone(), tasks: self.tasks.clone() });
        let server = HttpServer::new(handler, None, HttpSettings::default(), &self.tasks);
        self.start_http(listener, server)
    }

    fn start_http(
        &self,
        listener: crate::listener::Listener,
        server: HttpServer,
    ) -> Result<RunningListener, BindError> {
        let (rim, acceptor) = (self.clone(), self.acceptor.for_protocol(PortProtocol::Http));
        listener.start(&self.tasks, move |incoming| {
            let (rim, acceptor, server) = (rim.clone(), acceptor.clone(), server.clone());
            async move {
                if let Some(connection) = rim.handshake(&acceptor, incoming).await {
                    server.serve(connection, rim.tasks.drain_signal()).await;
                }
            }
        })
    }

    /// Reads a balancer's header, if there must be one, and finishes the handshake; `None` if either fails, or if the
    /// server closes meanwhile.
    async fn handshake(&self, acceptor: &TlsAcceptor, incoming: Incoming) -> Option<Connection> {
        let mut drain = self.tasks.drain_signal();
        let finished = async {
            let incoming = self.balancers.introduce(incoming).await?;
            let (peer, dialled) = (incoming.peer, incoming.dialled);
            acceptor.accept(incoming).await.inspect_err(|error| error.log(peer, dialled)).ok()
        };
        tokio::select! {
            finished = finished => finished,
            () = drain.closing() => None,
        }
    }
}

/// WebSockets of the HTTPS port.
struct WebSockets {
    rim: Rim,
}

#[async_trait]
impl WebSocketHandler for WebSockets {
    async fn handle(&self, socket: WebSocket) {
        let WebSocket { protocol, host, stream, peer } = socket;
        match protocol {
            Subprotocol::Mqtt => {
                let caller = caller(&peer, Transport::MqttWebSocket, host);
                self.rim.mqtt.serve(stream, caller, &self.rim.tasks).await;
            }
            Subprotocol::Amqp => {
                let caller = caller(&peer, Transport::AmqpWebSocket, host);
                self.rim.amqp.serve(stream, caller, &self.rim.tasks).await;
            }
        }
    }
}
