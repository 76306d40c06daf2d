//! `muster serve`: opens the store, starts the server, says where everything is, and drains on a signal.

mod panel;
mod told;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use client::endpoints::{Admin, Endpoints, FILE_NAME, Hub, Ports, ProvisioningService};
use domain::clock::{Clock, Entropy};
use domain::ids::{HubName, ServiceName};
use domain::resource::{AddressPool, Naming, Policy};
use server::budget::BudgetSettings;
use server::serve::{RimLimits, ServeOptions, Server, dialled_from_here};
use server::shutdown::Tasks;
use server::tls::authority::CERTIFICATE_FILE;
use server::tls::key_file::{KeyFolder, KeySeal};
use server::tls::{OperatorCertificate, TlsSettings};
use service::clock::{SystemClock, SystemEntropy};
use service::{Defaults, EndpointOf, Parts, Service, Settings};
use store::sqlite::{Embedded, Options};
use tokio::signal::unix::{SignalKind, signal};
use zeroize::Zeroizing;

use crate::config::{self, Config, Problem};
use crate::context::{Global, RESOURCE_GROUP};
use crate::noun::resource::LOCATION;
use crate::serve::told::Told;

/// Options of the server; those left out come from the configuration.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Keep everything in memory, for tests
    #[arg(long, conflicts_with = "data")]
    memory: bool,
    /// Keep what is durable in a PostgreSQL database, postgres://user:password@host/name
    ///
    /// The data folder still has the sealing key, the telemetry and the refusals. Others can read the command line of a
    /// process: a password is better given in the environment.
    #[cfg(feature = "postgres")]
    #[arg(long, value_name = "ADDRESS", env = "MUSTER_DATABASE", hide_env_values = true, conflicts_with = "memory")]
    database: Option<String>,
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// HTTPS and WebSocket; 0 takes a free port
    #[arg(long, value_name = "PORT")]
    https_port: Option<u16>,
    /// MQTT over TLS; 0 takes a free port
    #[arg(long, value_name = "PORT")]
    mqtts_port: Option<u16>,
    /// AMQP over TLS; 0 takes a free port
    #[arg(long, value_name = "PORT")]
    amqps_port: Option<u16>,
    /// Management and metrics; 0 takes a free port
    #[arg(long, value_name = "PORT")]
    admin_port: Option<u16>,
    /// Suffix of all host names
    #[arg(long, value_name = "NAME")]
    domain: Option<String>,
    /// Addresses of this machine to listen on
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    address: Vec<String>,
    /// Stop if a default port may not be opened
    #[arg(long)]
    strict: bool,
    /// Start without a provisioning service and a hub
    #[arg(long)]
    no_defaults: bool,
}

/// Reads the configuration, or tells everything that is wrong with it.
pub fn load_config(file: Option<&Path>) -> Result<Config> {
    config::load(file, std::env::vars()).map_err(|problems| listed(&problems))
}

/// As [`load_config`], and looks into the files that the configuration names.
pub fn check_config(file: Option<&Path>) -> Result<Config> {
    let config = load_config(file)?;
    if let Some((chain, key)) = config.certificate() {
        OperatorCertificate::load(&chain, &key, &rustls::crypto::aws_lc_rs::default_provider())
            .context("[tls] names a certificate that cannot be used")?;
    }
    Ok(config)
}

fn listed(problems: &[Problem]) -> anyhow::Error {
    let lines: Vec<String> = problems.iter().map(|problem| format!("  {problem}")).collect();
    anyhow::anyhow!("the configuration has {} problem(s):\n{}", problems.len(), lines.join("\n"))
}

/// Serves until SIGINT or SIGTERM.
pub fn run(args: &ServeArgs, global: &Global) -> Result<()> {
    start_log();
    let mut config = load_config(args.config.as_deref())?;
    override_config(&mut config, args);
    let mut problems = Vec::new();
    config.check("command line", &mut problems);
    if !problems.is_empty() {
        return Err(listed(&problems));
    }
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve(args, &config, global))
}

fn start_log() {
    use std::io::IsTerminal as _;
    let filter = tracing_subscriber::EnvFilter::try_from_env("MUSTER_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let is_terminal = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(is_terminal)
        .with_writer(std::io::stderr)
        // A log that cannot be written would be told of by printing, which panics where that cannot be written either.
        .log_internal_errors(false)
        .init();
}

fn override_config(config: &mut Config, args: &ServeArgs) {
    let listen = &mut config.listen;
    let ports = [
        (&mut listen.https_port, args.https_port),
        (&mut listen.mqtts_port, args.mqtts_port),
        (&mut listen.amqps_port, args.amqps_port),
        (&mut listen.admin_port, args.admin_port),
    ];
    for (port, given) in ports {
        *port = given.unwrap_or(*port);
    }
    if let Some(domain) = &args.domain {
        listen.domain.clone_from(domain);
    }
    if !args.address.is_empty() {
        listen.addresses.clone_from(&args.address);
    }
    listen.strict |= args.strict;
}

async fn serve(args: &ServeArgs, config: &Config, global: &Global) -> Result<()> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
    let folder = (!args.memory).then(|| global.folder());
    let store = open_store(folder.as_deref(), (args, config), &clock, entropy.as_ref()).await?;
    let folder = folder.map(|folder| folder.canonicalize()).transpose()?;
    let told = Told::new(folder.as_deref())?;
    let tasks = Tasks::new();
    let service = open_service(&store, args, config, (&clock, &entropy), &tasks).await?;
    let keys = folder.as_ref().map(|folder| KeyFolder::new(folder, Arc::new(SealedKeys(store.clone()))));
    let options = serve_options(args, config, keys, tasks);
    let server = Server::start(&service, options, &clock, &entropy)?;
    let mut changes = service.published_changes();
    let tell = || endpoints(&service, &server, config, told.folder());
    let found = tell()?;
    // Before anyone can learn that the server is ready, and ask it to end.
    let stopped = stop_signal()?;
    told.write(&found, server.authority_pem())?;
    panel::print(&found, &server, &told, global.output)?;
    let following = async {
        while changes.changed().await.is_ok() {
            if let Err(error) = tell().and_then(|found| told.write(&found, server.authority_pem())) {
                tracing::error!(error = format!("{error:#}"), "{FILE_NAME} does not tell of the last change");
            }
        }
    };
    tokio::select! {
        () = stopped => {}
        // Ends only if the use cases do.
        () = following => {}
    }
    tracing::info!("draining");
    let drained = server.drain(Duration::from_secs(config.shutdown.drain_s.into())).await;
    tracing::info!(?drained, "stopped");
    told.remove()
}

#[cfg_attr(not(feature = "postgres"), expect(clippy::unused_async, reason = "a database is waited for"))]
async fn open_store(
    folder: Option<&Path>,
    (args, config): (&ServeArgs, &Config),
    clock: &Arc<dyn Clock>,
    entropy: &dyn Entropy,
) -> Result<Embedded> {
    let mut options = Options { folder: folder.map(Path::to_path_buf), quotas: config.quotas, ..Options::default() };
    options.telemetry.total_bytes_max = config.hub.telemetry_kept_mib << 20;
    #[cfg(feature = "postgres")]
    if let Some(address) = &args.database {
        let opened = Embedded::open_database(address, options, Arc::clone(clock), entropy).await;
        return opened.context("cannot open the store");
    }
    Embedded::open(options, Arc::clone(clock), entropy).context("cannot open the store")
}

async fn open_service(
    store: &Embedded,
    args: &ServeArgs,
    config: &Config,
    (clock, entropy): (&Arc<dyn Clock>, &Arc<dyn Entropy>),
    tasks: &Tasks,
) -> Result<Service> {
    let provisioning = &config.provisioning;
    let settings = Settings {
        retry_after_s: provisioning.retry_after_s,
        claim_batch: provisioning.claim_batch,
        key_groups_tried_max: provisioning.key_groups_tried_max,
        operations_kept: Duration::from_secs(u64::from(provisioning.operations_kept_h) * 3_600),
        retention_days: config.hub.telemetry_kept_days,
        partitions: config.hub.partitions,
        quotas: config.quotas,
        routes: config.outbound.settings(),
        addresses: match config.addresses() {
            none if none.is_empty() => AddressPool::Loopback,
            listed => AddressPool::Listed(listed),
        },
        ..Settings::default()
    };
    let naming = match config.listen.domain.as_str() {
        "" => Naming::Addresses,
        domain => Naming::Domain(domain.to_ascii_lowercase()),
    };
    let parts = Parts {
        store: Arc::new(store.clone()),
        telemetry: Arc::new(store.telemetry().clone()),
        clock: Arc::clone(clock),
        entropy: Arc::clone(entropy),
        tasks: Arc::new(tasks.clone()),
        naming,
        settings,
    };
    let defaults = Defaults {
        service: ServiceName::parse("dps")?,
        hub: HubName::parse("hub")?,
        group: RESOURCE_GROUP.to_owned(),
        location: LOCATION.to_owned(),
    };
    let opened = Service::open(parts, (!args.no_defaults).then_some(defaults)).await;
    opened.map_err(|error| {
        let text = error.public.to_string();
        match error.source {
            Some(source) => anyhow::anyhow!(source).context(text),
            None => anyhow::anyhow!(text),
        }
    })
}

fn serve_options(args: &ServeArgs, config: &Config, keys: Option<KeyFolder>, tasks: Tasks) -> ServeOptions {
    let addresses = match config.addresses() {
        none if none.is_empty() && config.listen.domain.is_empty() => vec![Ipv4Addr::LOCALHOST.into()],
        none if none.is_empty() => vec![IpAddr::from(Ipv4Addr::UNSPECIFIED)],
        given => given,
    };
    let default = Config::default().listen;
    let port = |port: u16, given: Option<u16>, usual: u16| (port, given.is_some() || port != usual);
    ServeOptions {
        tasks,
        keys,
        addresses,
        strict: config.listen.strict,
        https: port(config.listen.https_port, args.https_port, default.https_port),
        mqtts: port(config.listen.mqtts_port, args.mqtts_port, default.mqtts_port),
        amqps: port(config.listen.amqps_port, args.amqps_port, default.amqps_port),
        admin: port(config.listen.admin_port, args.admin_port, default.admin_port),
        limits: rim_limits(&config.limits, &config.amqp),
        balancers: config.balancers(),
        dials_private: config.outbound.private,
        operator: config.certificate(),
    }
}

fn rim_limits(limits: &config::Limits, amqp: &config::Amqp) -> RimLimits {
    RimLimits {
        tls: TlsSettings {
            handshake_timeout: Duration::from_secs(limits.handshake_s.into()),
            handshakes_max: limits.handshakes,
            handshake_budget: BudgetSettings {
                per_minute: limits.address_handshakes_per_min,
                burst: limits.address_handshakes_burst,
                concurrent: limits.address_handshakes,
                ..BudgetSettings::default()
            },
        },
        failed_proofs_per_min: limits.failed_proofs_per_min,
        connections_max: limits.connections,
        amqp: amqp.limits(),
    }
}

/// Seals the authority's keys as the store seals its secrets.
struct SealedKeys(Embedded);

impl KeySeal for SealedKeys {
    fn seal(&self, name: &str, key: &[u8]) -> Vec<u8> {
        self.0.seal_file(name, key)
    }

    fn open(&self, name: &str, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        self.0.open_file(name, sealed)
    }
}

fn endpoints(service: &Service, server: &Server, config: &Config, folder: &Path) -> Result<Endpoints> {
    let resources = service.resources();
    let ports = server.ports();
    let (https, mqtts, amqps, admin) = (ports.https, ports.mqtts, ports.amqps, ports.admin);
    let mut hubs = Vec::new();
    let mut services = Vec::new();
    for published in service.published() {
        match published.of {
            EndpointOf::Hub(hub) => {
                let host = resources.hub_host(&hub);
                let owner = owner_policy(&hub.policies, "iothubowner");
                hubs.push(Hub {
                    name: hub.name.to_string(),
                    connection_string: owner.map(|policy| connection_string(&host, policy)).unwrap_or_default(),
                    event_hub_connection_string: owner
                        .map(|policy| {
                            let key = policy.keys.primary.to_base64();
                            let (policy, path) = (&policy.name, &hub.name);
                            format!(
                                "Endpoint=sb://{host}/;SharedAccessKeyName={policy};SharedAccessKey={key};EntityPath={path}"
                            )
                        })
                        .unwrap_or_default(),
                    host_name: host,
                });
            }
            EndpointOf::Service(found) => {
                let host = resources.service_host(&found);
                let owner = owner_policy(&found.policies, "provisioningserviceowner");
                services.push(ProvisioningService {
                    name: found.name.to_string(),
                    id_scope: found.id_scope.to_string(),
                    device_endpoint: resources.device_host(),
                    connection_string: owner.map(|policy| connection_string(&host, policy)).unwrap_or_default(),
                    service_endpoint: host,
                });
            }
        }
    }
    let deployment = service.deployment();
    let address = config.addresses().first().map_or(Ipv4Addr::LOCALHOST.into(), |own| dialled_from_here(*own));
    Ok(Endpoints {
        version: 1,
        pid: std::process::id(),
        ca_file: folder.join(CERTIFICATE_FILE),
        domain: (!config.listen.domain.is_empty()).then(|| config.listen.domain.clone()),
        ports: Ports { https, mqtts, amqps, admin },
        provisioning_services: services,
        hubs,
        admin: Admin {
            url: format!("https://{}", SocketAddr::new(address, admin)),
            tenant_id: deployment.tenant.clone(),
            client_id: deployment.client.clone(),
            client_secret: String::from_utf8(deployment.client_secret.0.clone())?,
            subscription_id: deployment.subscription.clone(),
        },
    })
}

fn owner_policy<'a>(policies: &'a [Policy], name: &str) -> Option<&'a Policy> {
    policies.iter().find(|policy| policy.name.as_str().eq_ignore_ascii_case(name)).or(policies.first())
}

fn connection_string(host: &str, policy: &Policy) -> String {
    let key = policy.keys.primary.to_base64();
    format!("HostName={host};SharedAccessKeyName={};SharedAccessKey={key}", policy.name)
}

/// Listens for SIGINT and SIGTERM from the moment of the call; the future waits for the first of them.
pub fn stop_signal() -> Result<impl Future<Output = ()>> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
