//! `muster bench register`: devices that register by X.509 through an intermediate of their group's root, over MQTT, until
//! they have a hub; next to the bare handshakes that such devices cost at least.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use client::device::{Credential, Dial, MqttSettings, ProvisioningClient};
use client::https::Server;
use client::service::ServiceRequest;
use domain::clock::Clock as _;
use domain::operation::Transport;
use http::Method;
use serde_json::json;
use service::clock::SystemClock;

use super::Place;
use super::fleet::{Authority, Device, TlsClient};
use super::handshake::{self, Target};
use super::load::{Tally, Window, closed_loop, observe};
use super::machine::Machine;
use super::report::{Asked, Measurement, Ratio, Report};
use super::server::{BareTls, LOOPBACK, Muster};
use crate::context::ask;
use crate::noun::resource;

/// What the design asks for: registrations for each bare handshake.
const ASKED: Asked = Asked::AtLeast(0.60);
/// The group that all devices belong to.
const GROUP: &str = "bench";

/// Options of the bench.
#[derive(Debug, Args)]
pub struct RegisterArgs {
    /// Seconds that are counted, of each round: registrations, and bare handshakes
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// Rounds in which the servers take turns
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
    /// Devices that are registering at the same time; most of them wait before they poll
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u16).range(1..))]
    in_flight: u16,
    /// Seconds before counting begins, in whose first half the devices begin: as many shall poll as register
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(0..=3_600))]
    warm_up: u64,
    /// Devices with a certificate, all rounds together; each registers once
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    devices: u32,
    /// Clients that handshake with the peer at the same time
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    clients: u16,
    #[command(flatten)]
    place: Place,
}

/// Devices that have not registered yet, and where they do.
#[derive(Clone)]
struct Fleet {
    devices: Arc<[Device]>,
    next: Arc<AtomicUsize>,
    tls: TlsClient,
    provisioning: Arc<ProvisioningClient>,
}

/// Measures.
pub async fn run(args: &RegisterArgs) -> Result<Report> {
    let folder = args.place.make_folder()?;
    let parameters = json!({
        "inFlight": args.in_flight, "devices": args.devices, "warmUpSeconds": args.warm_up, "handshakeClients": args.clients,
        "seconds": args.seconds, "rounds": args.rounds, "transport": "MQTT",
        "attestation": "X.509 group, root in the group, leaf through one intermediate, P-256", "resumption": false,
    });
    let mut report = Report::new("register", Machine::find(folder.path())?, parameters);
    let authority = Authority::make()?;
    let names: Vec<String> = (0..args.devices).map(|number| format!("bench-{number}")).collect();
    let devices = authority.devices(&names)?;
    let bare = BareTls::start(folder.path(), &authority.server(LOOPBACK)?).await?;
    let muster = Muster::start(folder.path()).await?;
    create_group(&muster, &authority).await?;
    let peer = Target {
        server: Server { host: LOOPBACK.to_owned(), port: bare.port },
        pid: bare.process().pid(),
        tls: TlsClient::trusting(&authority.root_pem())?.showing(devices.first().context("a device")?),
    };
    let fleet = Fleet::new(&muster, devices)?;
    let (mut handshakes, mut registrations) = (Tally::default(), Tally::default());
    let counted = Duration::from_secs(args.seconds);
    for _ in 0..args.rounds {
        handshakes.add(&handshake::round(&peer, args.clients.into(), counted).await?)?;
        let warm_up = Duration::from_secs(args.warm_up);
        let window = Window::after(warm_up, counted).ramped(warm_up / 2);
        registrations.add(&fleet.round(&muster, args.in_flight.into(), window).await?)?;
    }
    compare(&mut report, &handshakes, &registrations);
    muster.stop().await?;
    Ok(report)
}

fn compare(report: &mut Report, handshakes: &Tally, registrations: &Tally) {
    let case = "X.509 group, MQTT";
    let handshake = Measurement::new(case, "rustls alone", "handshake", handshakes);
    let registration = Measurement::new(case, "muster", "registration", registrations);
    let rate = registration.per_second() / handshake.per_second();
    report.compared(Ratio::new("registrations to bare handshakes", Some(rate), Some(ASKED)));
    let cpu = |tally: &Tally| tally.cpu_us() / tally.units() as f64;
    let cpu = cpu(handshakes) / cpu(registrations);
    report.compared(Ratio::new("server cpu, a bare handshake to a registration", Some(cpu), None));
    report.measured(handshake);
    report.measured(registration);
    report.note("a device waits as long as the server asks (retry-after) before it polls; its latency holds that wait");
}

/// Creates the group, with the root given directly, and vouches for the root as one that may admit devices. Both are done
/// as by any operator.
async fn create_group(muster: &Muster, authority: &Authority) -> Result<()> {
    let certificate = STANDARD.encode(authority.root_der());
    let service = muster.operator.endpoints.provisioning_service(None).context("there is no provisioning service")?;
    let root = json!({ "properties": { "certificate": certificate, "isVerified": true } });
    let path = format!("/{}/certificates/{GROUP}", service.name);
    resource::send(&muster.operator, resource::SERVICE, Method::PUT, &path, (Some(&root), None)).await?;

    let group = json!({
        "enrollmentGroupId": GROUP,
        "attestation": {
            "type": "x509",
            "x509": { "signingCertificates": { "primary": { "certificate": certificate } } },
        },
    });
    let path = ["enrollmentGroups", GROUP];
    let request = ServiceRequest { body: Some(&group), ..ServiceRequest::new(Method::PUT, &path) };
    ask(&muster.operator.provisioning(None)?, "create the enrollment group", request).await?;
    Ok(())
}

impl Fleet {
    fn new(muster: &Muster, devices: Vec<Device>) -> Result<Self> {
        let service =
            muster.operator.endpoints.provisioning_service(None).context("there is no provisioning service")?;
        let server = Server { host: service.device_endpoint.clone(), port: muster.mqtts_port() };
        let mqtt = MqttSettings { clean_session: true, ..MqttSettings::default() };
        let dial = Dial { mqtt: Arc::new(mqtt), ..Dial::new(server, Transport::Mqtt) };
        Ok(Self {
            devices: devices.into(),
            next: Arc::default(),
            tls: TlsClient::trusting(&muster.authority_pem)?,
            provisioning: Arc::new(ProvisioningClient::new(dial, &service.id_scope)),
        })
    }

    /// One round of `in_flight` devices that register side by side, each followed by one that has not registered yet.
    async fn round(&self, muster: &Muster, in_flight: usize, window: Window) -> Result<Tally> {
        let fleet = self.clone();
        let registering = closed_loop(in_flight, window, move |_| {
            let fleet = fleet.clone();
            async move { fleet.register_next().await.map(ControlFlow::Continue) }
        });
        let (mut tally, cost) = tokio::try_join!(registering, observe(muster.process().pid(), window))?;
        tally.add(&cost)?;
        Ok(tally)
    }

    async fn register_next(&self) -> Result<()> {
        let device = self.devices.get(self.next.fetch_add(1, Ordering::Relaxed));
        let device = device.context("there are not enough devices for this machine: raise --devices")?;
        let credential = Credential::certificate(self.tls.showing(device));
        let registered = self.provisioning.register(&device.name, None, &credential, SystemClock.now()).await;
        registered.map(drop).with_context(|| format!("{} cannot register", device.name))
    }
}
