//! `muster bench connections`: many devices that connect over TLS and then say nothing, at this program's hub and at
//! mosquitto.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use client::device::DeviceClient;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::Place;
use super::hub::{Broker, Hubs};
use super::load::{Tally, Window, closed_loop};
use super::machine::Machine;
use super::process::{Usage, open_files_max};
use super::report::{Asked, Measurement, Ratio, Report};

/// What an idle connection may cost the server.
const MEMORY_MAX: u64 = 14 * 1_024;
/// Devices that connect and leave before anything is measured, so that what is made once is there.
const WARM_UP_DEVICES: usize = 200;
/// Files that the bench needs beside the connections.
const FILES_BESIDE: u64 = 200;
/// Time for all connections of one server.
const CONNECT_ALL_TIMEOUT: Duration = Duration::from_secs(600);

/// Options of the bench.
#[derive(Debug, Args)]
pub struct ConnectionsArgs {
    /// Devices that are connected at the same time
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    connections: u32,
    /// Devices that connect at the same time
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    clients: u16,
    /// Seconds for which nothing is said, before memory is measured
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    #[command(flatten)]
    place: Place,
    /// The peer [default: the one that is installed]
    #[arg(long, value_name = "FILE")]
    mosquitto: Option<PathBuf>,
}

/// What one server's connections cost it.
struct Found {
    connecting: Tally,
    /// Growth of its memory for each connection.
    memory_bytes: u64,
    /// Processor time per second of silence, all connections together.
    idle_cpu_us_per_s: f64,
}

/// Measures. The servers take turns as a whole: both at once would need twice the files.
pub async fn run(args: &ConnectionsArgs) -> Result<Report> {
    check_open_files(args.connections)?;
    let folder = args.place.make_folder()?;
    let parameters = json!({
        "connections": args.connections, "clients": args.clients, "idleSeconds": args.seconds, "tls": true,
        "clientCertificates": false, "keepAliveSeconds": 180,
    });
    let mut report = Report::new("connections", Machine::find(folder.path())?, parameters);
    let names: Arc<[String]> = (0..args.connections).map(|number| format!("idle-{number}")).collect();
    let hubs = Hubs::start(folder.path(), args.mosquitto.as_ref(), &names).await?;
    let mut found = Vec::new();
    for broker in hubs.brokers() {
        found.push(measure(broker, &names, args).await?);
    }
    for (broker, found) in hubs.brokers().iter().zip(&found) {
        let measurement = Measurement::new("connect, then idle", broker.name, "connection", &found.connecting);
        report.measured(measurement.with_idle(found.memory_bytes, found.idle_cpu_us_per_s));
    }
    compare(&mut report, &found);
    hubs.report_missing(&mut report);
    hubs.stop().await?;
    Ok(report)
}

fn compare(report: &mut Report, found: &[Found]) {
    let muster = found.first();
    let pair = || muster.zip(found.get(1));
    let memory = |found: &Found| found.memory_bytes as f64;
    let rate = |found: &Found| found.connecting.units() as f64 / found.connecting.seconds();
    let to_limit = muster.map(|muster| memory(muster) / MEMORY_MAX as f64);
    report.compared(Ratio::new("memory per connection, muster to 14 KiB", to_limit, Some(Asked::AtMost(1.0))));
    let to_peer = pair().map(|(muster, mosquitto)| memory(muster) / memory(mosquitto));
    report.compared(Ratio::new("memory per connection, muster to mosquitto", to_peer, None));
    let to_peer = pair().map(|(muster, mosquitto)| rate(muster) / rate(mosquitto));
    report.compared(Ratio::new("connections a second, muster to mosquitto", to_peer, None));
}

async fn measure(broker: &Broker, names: &Arc<[String]>, args: &ConnectionsArgs) -> Result<Found> {
    let clients = usize::from(args.clients);
    let few: Arc<[String]> = names.iter().take(WARM_UP_DEVICES).cloned().collect();
    leave(connect_all(broker, &few, clients).await?.1, clients).await;

    let before = Usage::of(broker.pid)?;
    let began = Instant::now();
    let (mut connecting, devices) = connect_all(broker, names, clients).await?;
    let connected = Usage::of(broker.pid)?;
    connecting.spend(began.elapsed(), connected.cpu.saturating_sub(before.cpu));

    let idle = Duration::from_secs(args.seconds);
    sleep(idle).await;
    let after = Usage::of(broker.pid)?;
    let devices = all_connected(devices, broker.name).await?;
    leave(devices, clients).await;
    let grown = after.resident_bytes.saturating_sub(before.resident_bytes);
    Ok(Found {
        connecting,
        memory_bytes: grown / (names.len().max(1) as u64),
        idle_cpu_us_per_s: after.cpu.saturating_sub(connected.cpu).as_secs_f64() * 1e6 / idle.as_secs_f64(),
    })
}

/// Connects every device, `clients` at a time.
async fn connect_all(broker: &Broker, names: &Arc<[String]>, clients: usize) -> Result<(Tally, Vec<DeviceClient>)> {
    let next = Arc::new(AtomicUsize::new(0));
    let connected = Arc::new(Mutex::new(Vec::with_capacity(names.len())));
    let tally = closed_loop(clients, Window::after(Duration::ZERO, CONNECT_ALL_TIMEOUT), {
        let (broker, names, connected) = (broker.clone(), Arc::clone(names), Arc::clone(&connected));
        move |_| {
            let name = names.get(next.fetch_add(1, Ordering::Relaxed)).cloned();
            let (broker, connected) = (broker.clone(), Arc::clone(&connected));
            async move {
                let Some(name) = name else { return Ok(ControlFlow::Break(())) };
                let device = broker.connect(&name).await?;
                connected.lock().unwrap_or_else(PoisonError::into_inner).push(device);
                Ok(ControlFlow::Continue(()))
            }
        }
    });
    let tally = tally.await?;
    let connected = std::mem::take(&mut *connected.lock().unwrap_or_else(PoisonError::into_inner));
    if connected.len() != names.len() {
        bail!("only {} of {} devices connected in {CONNECT_ALL_TIMEOUT:?}", connected.len(), names.len());
    }
    Ok((tally, connected))
}

/// Fails if a server closed a connection, or said something nobody asked for.
async fn all_connected(mut devices: Vec<DeviceClient>, server: &str) -> Result<Vec<DeviceClient>> {
    for device in &mut devices {
        if let Ok(event) = timeout(Duration::ZERO, device.next_event()).await {
            let event = event.with_context(|| format!("{server} closed an idle connection"))?;
            bail!("{server} said something on an idle connection: {event:?}");
        }
    }
    Ok(devices)
}

/// Says goodbye for all devices, `clients` at a time: each waits until the server has closed.
#[expect(clippy::disallowed_methods, reason = "the end of each task is looked at")]
async fn leave(devices: Vec<DeviceClient>, clients: usize) {
    let mut devices = devices.into_iter();
    let mut leaving: JoinSet<()> = devices.by_ref().take(clients).map(DeviceClient::disconnect).collect();
    while leaving.join_next().await.is_some() {
        if let Some(device) = devices.next() {
            leaving.spawn(device.disconnect());
        }
    }
}

fn check_open_files(connections: u32) -> Result<()> {
    let (wanted, allowed) = (u64::from(connections) + FILES_BESIDE, open_files_max());
    if allowed.is_some_and(|allowed| allowed < wanted) {
        let allowed = allowed.unwrap_or_default();
        bail!("{connections} connections need {wanted} open files and {allowed} are allowed: raise `ulimit -n`");
    }
    Ok(())
}
