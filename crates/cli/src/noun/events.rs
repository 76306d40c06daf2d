//! `muster events`: what the devices of a hub send, as it comes, read at the hub's Event Hubs-compatible endpoint as any
//! program reads there.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Error, Result, anyhow, bail};
use clap::{Args, Subcommand, ValueEnum};
use client::endpoints::Endpoints;
use client::events::{Absent, EventHub, EventsError, Finality, Followed, Follower, Reading};
use dialect::management::message_json::show_received;
use dialect::time;
use domain::clock::UnixTime;
use domain::operation::events::{From as Place, Start};
use http::StatusCode;
use serde_json::Value;
use service::clock::SystemClock;
use tokio::time::timeout;

use crate::context::{Context, NotFound, Refused};

/// The consumer group that every hub has.
const DEFAULT_GROUP: &str = "$Default";

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
    /// Begin with what was kept at this time or after, such as 2026-11-21T17:00:00Z
    #[arg(long, value_name = "TIME", conflicts_with = "from", value_parser = parse_time)]
    since: Option<UnixTime>,
    /// Consumer group to read in
    #[arg(long, value_name = "NAME", default_value = DEFAULT_GROUP)]
    consumer_group: String,
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

impl From {
    const fn place(self) -> Start {
        match self {
            Self::Start => Start::At(Place::Oldest),
            Self::End => Start::Newest,
        }
    }
}

fn parse_time(text: &str) -> Result<UnixTime> {
    time::parse(text).ok_or_else(|| anyhow!("it is no time such as 2026-11-21T17:00:00Z"))
}

/// Does it.
pub async fn run(command: &EventsCommand, context: &Context) -> Result<()> {
    let EventsCommand::Monitor(args) = command;
    let hub = context.endpoints.hub(args.hub.as_deref()).ok_or_else(no_such_hub)?;
    let start = match args.since {
        None => args.from.place(),
        Some(time) => Start::At(Place::AfterTime(UnixTime::from_micros(time.micros().saturating_sub(1)))),
    };
    let mut watch = Watch::open(context, &hub.name, (start, &args.consumer_group), args.device.clone()).await?;
    eprintln!("watching the telemetry of {}; Ctrl-C ends it", hub.name);
    print_all(&mut watch, args, context).await?;
    watch.close().await;
    Ok(())
}

/// The telemetry of a hub, or of one of its devices, as documents.
pub struct Watch {
    follower: Follower,
    device: Option<String>,
}

impl Watch {
    /// Begins to watch the hub named `hub`, from a place on and in a consumer group.
    pub async fn open(
        context: &Context,
        hub: &str,
        (start, group): (Start, &str),
        device: Option<String>,
    ) -> Result<Self> {
        let (file, hub) = (context.endpoints_file.clone(), hub.to_owned());
        // Read afresh for every connection: a server that is started again may listen elsewhere.
        let locate = move || {
            let endpoints = Endpoints::read(&file).map_err(|_| Absent::Server)?;
            let found = endpoints.hub(Some(&hub)).ok_or(Absent::Hub)?;
            EventHub::parse(&found.event_hub_connection_string, endpoints.ports.amqps).map_err(|_| Absent::Hub)
        };
        let tls = Arc::clone(context.https.tls());
        let reading = Reading { tls, group: group.to_owned(), clock: Arc::new(SystemClock) };
        let follower = Follower::open(Box::new(locate), reading, start).await.map_err(explain)?;
        Ok(Self { follower, device })
    }

    /// Begins to watch with the oldest message that is kept.
    pub async fn open_at_start(context: &Context, hub: &str) -> Result<Self> {
        Self::open(context, hub, (From::Start.place(), DEFAULT_GROUP), None).await
    }

    /// The next message, over lost connections too, which are told to whoever sees the standard error.
    pub async fn next(&mut self) -> Result<Value> {
        loop {
            match self.follower.next().await.map_err(explain)? {
                Followed::Interrupted(error) => eprintln!("{error}; connecting again"),
                Followed::Event(event) if self.takes(event.received.device.as_deref()) => {
                    return Ok(show_received(event.partition, &event.received));
                }
                Followed::Event(_) => {}
            }
        }
    }

    fn takes(&self, device: Option<&str>) -> bool {
        self.device.is_none() || self.device.as_deref() == device
    }

    /// Stops watching.
    pub async fn close(self) {
        self.follower.close().await;
    }
}

/// An error with the exit code that it leads to.
fn explain(error: EventsError) -> Error {
    const WHAT: &str = "watching telemetry";

    match error.finality() {
        Finality::NotFound => NotFound(format!("{WHAT}: {error}")).into(),
        Finality::Forbidden => {
            Refused { what: WHAT.to_owned(), status: StatusCode::UNAUTHORIZED, message: error.to_string() }.into()
        }
        Finality::Passing | Finality::Final => Error::new(error).context(WHAT),
    }
}

async fn print_all(watch: &mut Watch, args: &MonitorArgs, context: &Context) -> Result<()> {
    let mut printed = 0;
    while args.count.is_none_or(|count| printed < count) {
        let Some(event) = next_in_time(watch, args).await? else { break };
        context.output.streamed(&event, story)?;
        printed += 1;
    }
    match args.count {
        Some(count) if printed < count => bail!("only {printed} of {count} messages came"),
        _ => Ok(()),
    }
}

/// The next message; `None` if the time passes without one.
async fn next_in_time(watch: &mut Watch, args: &MonitorArgs) -> Result<Option<Value>> {
    match args.timeout {
        None => watch.next().await.map(Some),
        Some(seconds) => timeout(Duration::from_secs(seconds), watch.next()).await.ok().transpose(),
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
