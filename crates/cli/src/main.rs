//! The binary `muster`: the server, the story, and the nouns, each a client of the public APIs.
//!
//! Start at [`Command`].

mod bench;
mod ca;
mod config;
mod context;
mod demo;
mod noun;
mod output;
mod serve;
mod trust;
mod why;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use client::endpoints::Unknown;
use http::StatusCode;

use crate::context::{Context, Global, NotFound, Refused};

/// Azure's Device Provisioning Service and IoT Hub, on your own machine.
#[derive(Debug, Parser)]
#[command(name = "muster", version, about, propagate_version = true)]
struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything until SIGINT or SIGTERM
    Serve(Box<serve::ServeArgs>),
    /// Play the cheese-cave story on this machine: three devices are provisioned, send, obey, and are shut out again
    Demo(demo::DemoArgs),
    /// Hubs
    #[command(subcommand)]
    Hub(noun::hub::HubCommand),
    /// Provisioning services
    #[command(subcommand)]
    Dps(noun::dps::DpsCommand),
    /// Hubs that a provisioning service may assign devices to
    #[command(subcommand)]
    LinkedHub(noun::linked_hub::LinkedHubCommand),
    /// Shared access policies
    #[command(subcommand)]
    Policy(noun::policy::PolicyCommand),
    /// CA certificates, with proof of possession
    #[command(subcommand)]
    Certificate(noun::certificate::CertificateCommand),
    /// Individual enrollments
    #[command(subcommand)]
    Enrollment(noun::enrollment::EnrollmentCommand),
    /// Enrollment groups
    #[command(subcommand)]
    EnrollmentGroup(noun::enrollment::GroupCommand),
    /// Records of devices that registered
    #[command(subcommand)]
    Registration(noun::registration::RegistrationCommand),
    /// Devices of a hub
    #[command(subcommand)]
    Device(noun::device::DeviceCommand),
    /// Twins of devices
    #[command(subcommand)]
    Twin(noun::twin::TwinCommand),
    /// Digital twins of Plug and Play devices
    #[command(subcommand)]
    DigitalTwin(noun::digital_twin::DigitalTwinCommand),
    /// Direct methods of connected devices
    #[command(subcommand)]
    Method(noun::method::MethodCommand),
    /// Ask a hub for twins in its query language
    Query(noun::query::QueryArgs),
    /// Jobs: one thing done to many devices, at once or at a time
    #[command(subcommand)]
    Job(noun::job::JobCommand),
    /// Configurations: content put into every twin that fulfils a condition, deployments for edge devices among them
    #[command(subcommand)]
    Configuration(noun::configuration::ConfigurationCommand),
    /// Cloud-to-device messages, and what became of them
    #[command(subcommand, visible_alias = "c2d")]
    Message(noun::message::MessageCommand),
    /// Which messages of a hub go where
    #[command(subcommand)]
    Route(noun::route::RouteCommand),
    /// Where a hub sends messages, and what was not taken there
    #[command(subcommand)]
    Endpoint(noun::endpoint::EndpointCommand),
    /// Files that devices uploaded, and the notifications of them
    #[command(subcommand)]
    File(noun::file::FileCommand),
    /// Telemetry of a hub
    #[command(subcommand)]
    Events(noun::events::EventsCommand),
    /// Make test certificates
    #[command(subcommand)]
    Ca(ca::CaCommand),
    /// Say why a device was admitted or refused
    Why(why::WhyArgs),
    /// Measure this build on this machine, next to a limit or a peer
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    /// Print the instance CA, and how each SDK is told to trust it
    Trust,
    /// Print /etc/hosts lines for a server with --domain
    Hosts,
    /// Check or show the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Report every problem of a configuration file and the environment
    Check {
        /// The file
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Print the configuration in force
    Show {
        /// The file
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut causes = error.chain();
            if let Some(first) = causes.next() {
                eprintln!("muster: {first}");
            }
            for cause in causes {
                eprintln!("  because {cause}");
            }
            exit_code(&error)
        }
    }
}

/// 3 for what is not there, 4 for what is not allowed, 1 for the rest; clap itself exits with 2 on a usage error.
fn exit_code(error: &anyhow::Error) -> ExitCode {
    let refused = error.chain().find_map(|cause| cause.downcast_ref::<Refused>());
    match refused.map(|refused| refused.status) {
        Some(StatusCode::NOT_FOUND) => ExitCode::from(3),
        Some(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => ExitCode::from(4),
        _ if error.chain().any(|cause| cause.is::<Unknown>() || cause.is::<NotFound>()) => ExitCode::from(3),
        _ => ExitCode::FAILURE,
    }
}

fn run(arguments: Arguments) -> Result<()> {
    let Arguments { global, command } = arguments;
    let output = global.output();
    match command {
        Command::Serve(args) => serve::run(&args, &global),
        Command::Demo(args) => demo::run(&args, &global),
        Command::Ca(command) => ca::run(&command, output),
        Command::Bench(command) => bench::run(&command, output),
        Command::EnrollmentGroup(noun::enrollment::GroupCommand::ComputeDeviceKey { key, registration_id }) => {
            noun::enrollment::compute_device_key(&key, &registration_id, output)
        }
        Command::Config(ConfigCommand::Check { config }) => {
            serve::check_config(config.as_deref())?;
            output.say("The configuration is in order.")
        }
        Command::Config(ConfigCommand::Show { config }) => {
            let config = serve::load_config(config.as_deref())?;
            match output.is_json() {
                true => output.record(&serde_json::to_value(config)?),
                false => output.say(&toml::to_string(&config)?),
            }
        }
        command => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let context = Context::find(&global)?;
            runtime.block_on(run_remote(command, &context))
        }
    }
}

async fn run_remote(command: Command, context: &Context) -> Result<()> {
    if !matches!(command, Command::Trust | Command::Hosts) {
        context.check_ready().await?;
    }
    match command {
        Command::Hub(command) => noun::hub::run(&command, context).await,
        Command::Dps(command) => noun::dps::run(&command, context).await,
        Command::LinkedHub(command) => noun::linked_hub::run(&command, context).await,
        Command::Policy(command) => noun::policy::run(&command, context).await,
        Command::Certificate(command) => noun::certificate::run(&command, context).await,
        Command::Enrollment(command) => noun::enrollment::run(&command, context).await,
        Command::EnrollmentGroup(noun::enrollment::GroupCommand::Enrollment(command)) => {
            noun::enrollment::run_group(&command, context).await
        }
        Command::Registration(command) => noun::registration::run(&command, context).await,
        Command::Device(command) => noun::device::run(&command, context).await,
        Command::Twin(command) => noun::twin::run(&command, context).await,
        Command::DigitalTwin(command) => noun::digital_twin::run(&command, context).await,
        Command::Method(command) => noun::method::run(&command, context).await,
        Command::Query(args) => noun::query::run(&args, context).await,
        Command::Job(command) => noun::job::run(&command, context).await,
        Command::Configuration(command) => noun::configuration::run(&command, context).await,
        Command::Message(command) => noun::message::run(&command, context).await,
        Command::Route(command) => noun::route::run(&command, context).await,
        Command::Endpoint(command) => noun::endpoint::run(&command, context).await,
        Command::File(command) => noun::file::run(&command, context).await,
        Command::Events(command) => noun::events::run(&command, context).await,
        Command::Why(args) => why::run(&args, context).await,
        Command::Trust => trust::run_trust(context),
        Command::Hosts => trust::run_hosts(context),
        Command::Serve(_)
        | Command::Demo(_)
        | Command::Ca(_)
        | Command::Bench(_)
        | Command::Config(_)
        | Command::EnrollmentGroup(_) => {
            unreachable!("performed without a running server")
        }
    }
}
