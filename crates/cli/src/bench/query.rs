//! `muster bench query`: queries over the twins of one hub, as a back-end program asks them, next to the time that the
//! design allows.
//!
//! The twins are made through the public API. Each has a site that a thousandth of them share, a floor of which there are
//! a hundred, and a level that differs from twin to twin.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use client::service::{ServiceClient, ServiceRequest};
use domain::clock::Clock as _;
use http::Method;
use serde_json::{Value, json};
use service::clock::SystemClock;
use tokio::task::JoinSet;

use super::Place;
use super::load::Tally;
use super::machine::Machine;
use super::report::{Asked, Measurement, Ratio, Report};
use super::server::Muster;

/// Sites among which the twins are spread.
const SITES: u32 = 1_000;
/// Floors among which the twins are spread.
const FLOORS: u32 = 100;
/// Devices of one bulk request (`contract/hub-service.md 4.4`).
const BULK_DEVICES: u32 = 100;
/// Bulk requests under way at the same time.
const CLIENTS: usize = 16;
/// Twins on the page of an answer.
const PAGE: usize = 100;

/// What the design asks for over a million twins.
const BY_TAG_MAX: Duration = Duration::from_millis(50);
const FULL_SCAN_MAX: Duration = Duration::from_millis(1_500);

/// Options of the bench.
#[derive(Debug, Args)]
pub struct QueryArgs {
    /// Twins of the hub
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    twins: u32,
    /// How often each query is asked
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
    repeats: u16,
    #[command(flatten)]
    place: Place,
}

/// A query, and how long it may take.
struct Question {
    case: &'static str,
    text: String,
    limit: Option<Duration>,
    /// Rows of the first page.
    rows: usize,
}

/// Measures.
pub async fn run(args: &QueryArgs) -> Result<Report> {
    let folder = args.place.make_folder()?;
    let parameters = json!({
        "twins": args.twins, "repeats": args.repeats, "sites": SITES, "floors": FLOORS, "page": PAGE,
        "transport": "HTTPS, one request after the other",
    });
    let mut report = Report::new("query", Machine::find(folder.path())?, parameters);
    let muster = Muster::start(folder.path()).await?;
    let hub = Arc::new(muster.operator.hub(None)?);
    let began = Instant::now();
    fill(&hub, args.twins).await?;
    report.note(format!("{} twins were made through the API in {:.0} s", args.twins, began.elapsed().as_secs_f64()));
    for question in questions(args.twins) {
        let tally = ask_often(&muster, &hub, &question, args.repeats).await?;
        if let Some(limit) = question.limit {
            let to_limit = tally.latency_us(0.50) as f64 / limit.as_micros() as f64;
            let what = format!("{}, p50, to {} ms", question.case, limit.as_millis());
            report.compared(Ratio::new(what, Some(to_limit), Some(Asked::AtMost(1.0))));
        }
        report.measured(Measurement::new(question.case, "muster", "query", &tally));
    }
    muster.stop().await?;
    Ok(report)
}

fn questions(twins: u32) -> Vec<Question> {
    let at_site = usize::try_from(twins.div_ceil(SITES)).unwrap_or(usize::MAX);
    let question = |case, text: &str, limit, rows| Question { case, text: text.to_owned(), limit, rows };
    vec![
        question(
            "equality of a tag",
            "SELECT * FROM devices WHERE tags.site = 's0'",
            Some(BY_TAG_MAX),
            at_site.min(PAGE),
        ),
        question(
            "equality of a tag, counted",
            "SELECT COUNT() AS n FROM devices WHERE tags.site = 's0' AND tags.floor >= 0",
            Some(BY_TAG_MAX),
            1,
        ),
        question(
            "full scan that finds nothing",
            "SELECT * FROM devices WHERE properties.desired.level < 0",
            Some(FULL_SCAN_MAX),
            0,
        ),
        question(
            "full scan, counted",
            "SELECT COUNT() AS n FROM devices WHERE properties.desired.level >= 1 AND tags.floor != 7",
            Some(FULL_SCAN_MAX),
            1,
        ),
        question(
            "full scan by the evaluator",
            "SELECT * FROM devices WHERE LOWER(tags.site) = 'nowhere'",
            Some(FULL_SCAN_MAX),
            0,
        ),
        question(
            "groups of all",
            "SELECT tags.floor, COUNT() AS n, AVG(properties.desired.level) AS level FROM devices GROUP BY tags.floor",
            None,
            usize::try_from(twins.min(FLOORS)).unwrap_or(usize::MAX).min(PAGE),
        ),
    ]
}

/// Makes the twins, many requests side by side.
#[expect(clippy::disallowed_methods, reason = "the end of each task is looked at")]
async fn fill(hub: &Arc<ServiceClient>, twins: u32) -> Result<()> {
    let next = Arc::new(AtomicU32::new(0));
    let mut running: JoinSet<Result<()>> = JoinSet::new();
    for _ in 0..CLIENTS {
        let (hub, next) = (Arc::clone(hub), Arc::clone(&next));
        running.spawn(async move {
            loop {
                let first = next.fetch_add(BULK_DEVICES, Ordering::Relaxed);
                if first >= twins {
                    return Ok(());
                }
                let devices: Vec<Value> = (first..twins.min(first + BULK_DEVICES)).map(device).collect();
                let body = Value::Array(devices);
                send(&hub, ServiceRequest { body: Some(&body), ..ServiceRequest::new(Method::POST, &["devices"]) })
                    .await?;
            }
        });
    }
    while let Some(ended) = running.join_next().await {
        ended.context("a client of the bench failed")??;
    }
    Ok(())
}

fn device(number: u32) -> Value {
    json!({
        "id": format!("bench-{number}"),
        "importMode": "create",
        "authentication": { "type": "selfSigned", "x509Thumbprint": { "primaryThumbprint": format!("{number:040x}") } },
        "tags": { "site": format!("s{}", number % SITES), "floor": number % FLOORS, "place": { "region": "north" } },
        "properties": { "desired": { "interval": 60, "level": number } },
    })
}

async fn ask_often(muster: &Muster, hub: &ServiceClient, question: &Question, repeats: u16) -> Result<Tally> {
    let body = json!({ "query": question.text });
    let headers = [("x-ms-max-item-count", PAGE.to_string())];
    let path = ["devices", "query"];
    let request =
        || ServiceRequest { body: Some(&body), headers: &headers, ..ServiceRequest::new(Method::POST, &path) };
    let mut tally = Tally::default();
    // The first answer fills the caches and is checked.
    let rows: Vec<Value> = serde_json::from_slice(&send(hub, request()).await?)?;
    ensure!(rows.len() == question.rows, "{}: {} rows, not {}", question.text, rows.len(), question.rows);
    let (before, began) = (muster.process().usage()?, Instant::now());
    for _ in 0..repeats {
        let asked = Instant::now();
        send(hub, request()).await?;
        tally.count(asked.elapsed());
    }
    tally.spend(began.elapsed(), muster.process().usage()?.cpu.saturating_sub(before.cpu));
    Ok(tally)
}

async fn send(hub: &ServiceClient, request: ServiceRequest<'_>) -> Result<bytes::Bytes> {
    let response = hub.send(request, SystemClock.now()).await?;
    let (status, body) = (response.status(), response.into_body());
    ensure!(status.is_success(), "the server answers {status}: {}", String::from_utf8_lossy(&body));
    Ok(body)
}
