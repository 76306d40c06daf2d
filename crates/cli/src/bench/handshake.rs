//! `muster bench handshake`: full mutual handshakes, by the whole server and by rustls alone with the same options.
//!
//! A handshake counts once the server has closed its end in answer to the client's goodbye: only then has it verified the
//! client's signature, which in TLS 1.3 it does after the client believes to be done.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use client::https::{self, Server};
use rustls::ClientConfig;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::fleet::{Authority, TlsClient};
use super::load::{Tally, Window, closed_loop, observe};
use super::machine::Machine;
use super::report::{Measurement, Ratio, Report};
use super::server::{BareTls, LOOPBACK, Muster, Process};
use super::{Place, Rounds, WARM_UP};

/// Options of the bench.
#[derive(Debug, Args)]
pub struct HandshakeArgs {
    #[command(flatten)]
    rounds: Rounds,
    /// Clients that connect at the same time
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    clients: u16,
    #[command(flatten)]
    place: Place,
}

/// A server that handshakes, and a client for it.
#[derive(Clone)]
pub struct Target {
    /// Where it listens.
    pub server: Server,
    /// Its process.
    pub pid: u32,
    /// How it is dialled.
    pub tls: Arc<ClientConfig>,
}

/// Measures.
pub async fn run(args: &HandshakeArgs) -> Result<Report> {
    let folder = args.place.make_folder()?;
    let parameters = json!({
        "clients": args.clients, "seconds": args.rounds.seconds, "rounds": args.rounds.rounds,
        "serverCertificate": "P-256", "deviceChain": ["P-256", "P-256"], "resumption": false,
    });
    let mut report = Report::new("handshake", Machine::find(folder.path())?, parameters);
    let authority = Authority::make()?;
    let devices = authority.devices(&["bench-device".to_owned()])?;
    let device = devices.first().context("a device")?;
    let bare = BareTls::start(folder.path(), &authority.server(LOOPBACK)?).await?;
    let muster = Muster::start(folder.path()).await?;
    let target = |port, process: &Process, authority: &str| -> Result<Target> {
        let server = Server { host: LOOPBACK.to_owned(), port };
        Ok(Target { server, pid: process.pid(), tls: TlsClient::trusting(authority)?.showing(device) })
    };
    let targets = [
        ("rustls alone", target(bare.port, bare.process(), &authority.root_pem())?),
        ("muster", target(muster.mqtts_port(), muster.process(), &muster.authority_pem)?),
    ];
    let mut tallies = [Tally::default(), Tally::default()];
    for _ in 0..args.rounds.rounds {
        for ((_, target), tally) in targets.iter().zip(&mut tallies) {
            tally.add(&round(target, args.clients.into(), args.rounds.counted()).await?)?;
        }
    }
    let mut rates = Vec::new();
    for ((name, target), tally) in targets.iter().zip(&tallies) {
        let measurement = Measurement::new(handshake(target).await?, *name, "handshake", tally);
        rates.push(measurement.per_second());
        report.measured(measurement);
    }
    if let [bare, muster] = rates[..] {
        report.compared(Ratio::new("muster to rustls alone", Some(muster / bare), None));
    }
    muster.stop().await?;
    Ok(report)
}

/// One round of `clients` that connect and leave.
pub async fn round(target: &Target, clients: usize, counted: Duration) -> Result<Tally> {
    let window = Window::after(WARM_UP, counted);
    let connecting = closed_loop(clients, window, {
        let target = target.clone();
        move |_| {
            let target = target.clone();
            async move { handshake(&target).await.map(|_| ControlFlow::Continue(())) }
        }
    });
    let (mut tally, cost) = tokio::try_join!(connecting, observe(target.pid, window))?;
    tally.add(&cost)?;
    Ok(tally)
}

/// Connects, says goodbye, and waits for the server's end. Returns what was agreed on.
async fn handshake(target: &Target) -> Result<String> {
    let mut stream = https::connect(&target.tls, &target.server).await?;
    let session = stream.get_ref().1;
    let agreed = session.protocol_version().zip(session.negotiated_cipher_suite());
    let agreed = agreed.map(|(version, suite)| format!("{version:?} {:?}", suite.suite())).unwrap_or_default();
    stream.shutdown().await?;
    while stream.read(&mut [0; 64]).await? > 0 {}
    Ok(agreed)
}
