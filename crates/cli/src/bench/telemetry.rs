//! `muster bench telemetry`: messages of QoS 1 over TLS, by this program's hub and by mosquitto.
//!
//! The hub has a message on the disk before it acknowledges it. mosquitto keeps none: nobody subscribes.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use clap::Args;
use client::device::{DeviceClient, DeviceEvent};
use domain::message::Draft;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::hub::{Broker, Hubs};
use super::load::{Tally, Window, observe};
use super::machine::Machine;
use super::report::{Asked, Measurement, Ratio, Report};
use super::{Place, Rounds, WARM_UP};

/// What the design asks for, and at which window.
const ASKED: (usize, Asked) = (20, Asked::AtLeast(2.0));
/// How long the last acknowledgements of a round may take.
const LAST_ACKNOWLEDGEMENTS_TIMEOUT: Duration = Duration::from_secs(30);

/// Options of the bench.
#[derive(Debug, Args)]
pub struct TelemetryArgs {
    #[command(flatten)]
    rounds: Rounds,
    /// Devices that publish at the same time
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..))]
    publishers: u16,
    /// Messages that each device sends ahead of their acknowledgement; each number is measured by itself
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [20, 1], value_parser = clap::value_parser!(u16).range(1..=1_000))]
    windows: Vec<u16>,
    /// Bytes of a message
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(0..=65_536))]
    bytes: u32,
    #[command(flatten)]
    place: Place,
    /// The peer [default: the one that is installed]
    #[arg(long, value_name = "FILE")]
    mosquitto: Option<PathBuf>,
}

/// One broker and the devices connected to it.
struct Side {
    broker: Broker,
    devices: Vec<DeviceClient>,
}

/// Measures.
pub async fn run(args: &TelemetryArgs) -> Result<Report> {
    let folder = args.place.make_folder()?;
    let parameters = json!({
        "publishers": args.publishers, "windows": args.windows, "bytes": args.bytes, "qos": 1, "tls": true,
        "seconds": args.rounds.seconds, "rounds": args.rounds.rounds,
    });
    let mut report = Report::new("telemetry", Machine::find(folder.path())?, parameters);
    let names: Vec<String> = (0..args.publishers).map(|number| format!("publisher-{number}")).collect();
    let hubs = Hubs::start(folder.path(), args.mosquitto.as_ref(), &names).await?;
    let mut sides = Vec::new();
    for broker in hubs.brokers() {
        let mut devices = Vec::new();
        for name in &names {
            devices.push(broker.connect(name).await?);
        }
        sides.push(Side { broker: broker.clone(), devices });
    }
    let message = Draft { body: Bytes::from(vec![b'm'; args.bytes as usize]), ..Draft::default() };
    for &window in &args.windows {
        let in_flight = usize::from(window);
        let mut tallies = vec![Tally::default(); sides.len()];
        for _ in 0..args.rounds.rounds {
            for (side, tally) in sides.iter_mut().zip(&mut tallies) {
                tally.add(&side.round(args.rounds.counted(), in_flight, &message).await?)?;
            }
        }
        compare(&mut report, in_flight, &sides, &tallies);
    }
    report.note("muster acknowledges a message once it is on the disk; mosquitto keeps none, for nobody subscribes");
    hubs.report_missing(&mut report);
    drop(sides);
    hubs.stop().await?;
    Ok(report)
}

fn compare(report: &mut Report, in_flight: usize, sides: &[Side], tallies: &[Tally]) {
    let case = format!("window {in_flight}");
    let mut rates = Vec::new();
    for (side, tally) in sides.iter().zip(tallies) {
        let measurement = Measurement::new(case.as_str(), side.broker.name, "message", tally);
        rates.push(measurement.per_second());
        report.measured(measurement);
    }
    let ratio = rates.first().zip(rates.get(1)).map(|(muster, mosquitto)| muster / mosquitto);
    let asked = (in_flight == ASKED.0).then_some(ASKED.1);
    report.compared(Ratio::new(format!("{case}, muster to mosquitto"), ratio, asked));
}

impl Side {
    /// All devices publish until the round ends; they stay connected.
    #[expect(clippy::disallowed_methods, reason = "the end of each task is looked at")]
    async fn round(&mut self, counted: Duration, in_flight: usize, message: &Draft) -> Result<Tally> {
        let window = Window::after(WARM_UP, counted);
        let mut running = JoinSet::new();
        for device in self.devices.drain(..) {
            running.spawn(publish(device, window, in_flight, message.clone()));
        }
        let mut tally = observe(self.broker.pid, window).await?;
        while let Some(ended) = running.join_next().await {
            let (device, counted) = ended.context("a publisher failed")??;
            tally.add(&counted)?;
            self.devices.push(device);
        }
        Ok(tally)
    }
}

/// Publishes with `in_flight` messages ahead until the window ends, then waits for what is still to be acknowledged.
async fn publish(
    mut device: DeviceClient,
    window: Window,
    in_flight: usize,
    message: Draft,
) -> Result<(DeviceClient, Tally)> {
    let mut tally = Tally::default();
    let publishing = async {
        let mut sent = VecDeque::with_capacity(in_flight);
        let mut now = Instant::now();
        loop {
            while now < window.until() && sent.len() < in_flight {
                sent.push_back((device.start_send(&message)?, now));
            }
            if sent.is_empty() {
                return Ok(());
            }
            let DeviceEvent::Acknowledged(packet_id) = device.next_event().await? else { continue };
            let (expected, sent_at) = sent.pop_front().context("an acknowledgement of nothing")?;
            ensure!(packet_id == expected, "acknowledgements out of order");
            now = Instant::now();
            if window.contains(now) {
                tally.count(now - sent_at);
            }
        }
    };
    let published = timeout_at(window.until() + LAST_ACKNOWLEDGEMENTS_TIMEOUT, publishing).await;
    published.context("messages were not acknowledged")??;
    Ok((device, tally))
}
