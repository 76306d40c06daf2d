//! `muster bench`: what this build does on this machine, next to a limit or a peer measured in the same run.
//!
//! Servers run as processes of their own and are measured from outside; the load comes from this process. What is
//! compared is measured in turns, so that a machine that slows down slows both. Nothing here judges: a figure that was
//! asked for stands beside the one that was found. Start at [`BenchCommand`].

mod connections;
mod fleet;
mod handshake;
mod handshake_peer;
mod hub;
mod load;
mod machine;
mod process;
mod query;
mod register;
mod report;
mod server;
mod start;
mod telemetry;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use tempfile::TempDir;

use crate::output::Output;

/// Time before counting begins, so that caches are warm and queues have their length.
const WARM_UP: Duration = Duration::from_millis(500);

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Mutual TLS handshakes: this server, and rustls alone with the same options
    Handshake(handshake::HandshakeArgs),
    /// Registrations of devices with X.509 certificates over MQTT, and bare handshakes
    Register(register::RegisterArgs),
    /// Messages of QoS 1 over TLS: this program's hub, durable, and mosquitto
    Telemetry(telemetry::TelemetryArgs),
    /// Devices that connect and say nothing: this program's hub, and mosquitto
    Connections(connections::ConnectionsArgs),
    /// Queries over the twins of a hub: by an index, and by a look at all of them
    Query(query::QueryArgs),
    /// Time from the start of the process until it is ready, on an empty folder and on one used before
    Start(start::StartArgs),
    /// The peer of `handshake` and `register`: handshakes and nothing else, until its standard input ends
    #[command(hide = true)]
    HandshakePeer(handshake_peer::PeerArgs),
}

/// How long a bench with turns takes.
#[derive(Clone, Debug, Args)]
pub struct Rounds {
    /// Seconds that are counted, of each round and each server
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// Rounds in which the servers take turns
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
}

/// Where a bench works.
#[derive(Clone, Debug, Args)]
pub struct Place {
    /// Where the servers' data goes: on the disk that is to be measured [default: the folder for temporary files]
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
}

impl Rounds {
    /// How long each round is counted.
    const fn counted(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

impl Place {
    /// A folder for one bench, removed in the end.
    fn make_folder(&self) -> Result<TempDir> {
        let parent = self.folder.clone().unwrap_or_else(std::env::temp_dir);
        let made = tempfile::Builder::new().prefix("muster-bench-").tempdir_in(&parent);
        made.with_context(|| format!("cannot make a folder in {}", parent.display()))
    }
}

/// Measures, and prints what was found.
pub fn run(command: &BenchCommand, output: Output) -> Result<()> {
    if let BenchCommand::HandshakePeer(args) = command {
        return handshake_peer::run(args);
    }
    process::raise_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = runtime.block_on(async {
        match command {
            BenchCommand::Handshake(args) => handshake::run(args).await,
            BenchCommand::Register(args) => register::run(args).await,
            BenchCommand::Connections(args) => connections::run(args).await,
            BenchCommand::Telemetry(args) => telemetry::run(args).await,
            BenchCommand::Query(args) => query::run(args).await,
            BenchCommand::Start(args) => start::run(args).await,
            BenchCommand::HandshakePeer(_) => unreachable!("runs without a report"),
        }
    })?;
    report.print(output)?;
    report.check_complete()
}
