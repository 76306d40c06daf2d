//! `muster bench start`: from the start of the process until everything is served, cold and warm.
//!
//! Cold is an empty folder, where authority, store, credentials and default resources are made first. Warm is the same
//! folder again, after an orderly end.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use serde_json::json;
use tempfile::TempDir;

use super::Place;
use super::load::Tally;
use super::machine::Machine;
use super::report::{Asked, Measurement, Ratio, Report};
use super::server::Muster;

/// What a cold start may take.
const COLD_START_MAX: Duration = Duration::from_millis(300);

/// Options of the bench.
#[derive(Debug, Args)]
pub struct StartArgs {
    /// Starts of each kind
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
    starts: u16,
    #[command(flatten)]
    place: Place,
}

/// Measures.
pub async fn run(args: &StartArgs) -> Result<Report> {
    let folder = args.place.make_folder()?;
    let parameters = json!({ "starts": args.starts });
    let mut report = Report::new("start", Machine::find(folder.path())?, parameters);
    let (mut cold, mut warm, mut resident_bytes) = (Tally::default(), Tally::default(), 0);
    for _ in 0..args.starts {
        let folder = TempDir::new_in(folder.path())?;
        for tally in [&mut cold, &mut warm] {
            let muster = Muster::start(folder.path()).await?;
            let usage = muster.process().usage()?;
            tally.count(muster.ready_after);
            tally.spend(muster.ready_after, usage.cpu);
            resident_bytes = usage.resident_bytes;
            muster.stop().await?;
        }
    }
    let limit_us = COLD_START_MAX.as_micros() as f64;
    let to_limit = Some(cold.latency_us(0.99) as f64 / limit_us);
    report.compared(Ratio::new("cold, p99, to 300 ms", to_limit, Some(Asked::AtMost(1.0))));
    let to_warm = Some(cold.latency_us(0.50) as f64 / warm.latency_us(0.50) as f64);
    report.compared(Ratio::new("cold to warm, p50", to_warm, None));
    report.measured(Measurement::new("cold, empty folder", "muster", "start", &cold).with_memory(resident_bytes));
    report.measured(Measurement::new("warm, folder used before", "muster", "start", &warm).with_memory(resident_bytes));
    Ok(report)
}
