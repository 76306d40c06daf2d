//! `muster events`: what the devices of a hub send, as it comes.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use client::https::Lines;
use client::management::ManagementRequest;
use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::time::Instant;

use crate::context::{Context, NotFound, refusal};

/// What to do with events.
#[derive(Debug, Subcommand)]
pub enum EventsCommand {
    /// Print telemetry as it comes, with system and application properties, until Ctrl-C
    Monitor(MonitorArgs),
}

/// What to print, and for how long.
#[derive(Debug, Args)]
pub struct MonitorArgs {
    /// Hub [default: the first]
    #[arg(long)]
    hub: Option<String>,
    /// Messages of this device alone
    #[arg(long, value_name = "ID")]
    device: Option<String>,
    /// Where to begin
    #[arg(long, value_enum, default_value = "end")]
    from: From,
    /// End after this many messages
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// End after this many seconds without a message; an error if fewer than --count came
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
}

/// Where a reader of telemetry begins.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum From {
    /// At the oldest message that is kept.
    Start,
    /// With what comes from here on.
    End,
}

/// Does it.
pub async fn run(command: &EventsCommand, context: &Context) -> Result<()> {
    let EventsCommand::Monitor(args) = command;
    let hub = context.endpoints.hub(args.hub.as_deref()).ok_or_else(no_such_hub)?;
    let mut lines = watch(context, &hub.name, args.from, args.device.as_deref()).await?;
    eprintln!("watching the telemetry of {}; Ctrl-C ends it", hub.name);
    print_all(&mut lines, args, context).await
}

/// Opens the stream of a hub's telemetry, or of one device's: a JSON document a line.
pub async fn watch(context: &Context, hub: &str, from: From, device: Option<&str>) -> Result<Lines> {
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let from = match from {
        From::Start => "start",
        From::End => "end",
    };
    let device = device.map(|device| format!("&deviceId={}", encode(device))).unwrap_or_default();
    let path = format!("/muster/v1/hubs/{}/events?from={from}{device}", encode(hub));
    let request = ManagementRequest { method: Method::GET, path, api_version: "1", if_match: None, body: None };
    let mut lines = context.management().await?.open(request).await.context("watching telemetry")?;
    if !lines.status().is_success() {
        let body = lines.next().await?.unwrap_or_default();
        return Err(refusal("watching telemetry", lines.status(), &body).into());
    }
    Ok(lines)
}

async fn print_all(lines: &mut Lines, args: &MonitorArgs, context: &Context) -> Result<()> {
    let mut printed = 0;
    while args.count.is_none_or(|count| printed < count) {
        let Some(line) = next_in_time(lines, args).await? else { break };
        let event: Value = serde_json::from_slice(&line).context("an event is not JSON")?;
        context.output.streamed(&event, story)?;
        printed += 1;
    }
    match args.count {
        Some(count) if printed < count => bail!("only {printed} of {count} messages came"),
        _ => Ok(()),
    }
}

/// The next line; `None` if the time passes without one.
async fn next_in_time(lines: &mut Lines, args: &MonitorArgs) -> Result<Option<bytes::Bytes>> {
    let read = lines.next();
    let line = match args.timeout {
        None => read.await,
        Some(seconds) => match tokio::time::timeout_at(Instant::now() + Duration::from_secs(seconds), read).await {
            Ok(line) => line,
            Err(_) => return Ok(None),
        },
    };
    match line? {
        Some(line) => Ok(Some(line)),
        None => bail!("the server ended the stream: it stops, or the hub is gone"),
    }
}

/// An event for people, on one line.
fn story(event: &Value) -> String {
    let text = |path: &str| event.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let body = match (event.get("body"), event.get("bodyBase64")) {
        (Some(Value::String(body)), _) => body.clone(),
        (Some(body), _) => body.to_string(),
        (None, bytes) => format!("base64 {}", bytes.and_then(Value::as_str).unwrap_or_default()),
    };
    let mut line = format!("{}  {}  {body}", text("/enqueuedTime"), text("/deviceId"));
    for group in ["/systemProperties", "/properties"] {
        for (name, value) in event.pointer(group).and_then(Value::as_object).into_iter().flatten() {
            line.push_str("  ");
            line.push_str(name);
            if let Some(value) = value.as_str() {
                line.push('=');
                line.push_str(value);
            }
        }
    }
    line
}

pub(super) fn no_such_hub() -> NotFound {
    NotFound("the server has no such hub: see `muster hub list`".to_owned())
}
