//! `muster job`: one thing done to many devices of a hub, at once or at a time; imports and exports of all of them.

use anyhow::{Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use client::service::ServiceRequest;
use http::Method;
use serde_json::{Map, Value, json};

use super::transfer::{self, ExportArgs, ImportArgs};
use crate::context::{Context, ask, ask_with_headers, parse_json};

/// Jobs asked for at a time.
const PAGE: &str = "1000";

/// What to do with jobs.
#[derive(Debug, Subcommand)]
pub enum JobCommand {
    /// Change the twins of many devices, or call a method of each
    Schedule(ScheduleArgs),
    /// Create, change and remove the devices and modules that a file names
    Import(ImportArgs),
    /// Write all devices and modules, with their keys and twins, to a file
    Export(ExportArgs),
    /// Show one job and how far it is
    Show(JobName),
    /// List jobs
    List(ListArgs),
    /// End a job: what was not begun is not done
    Cancel(JobName),
}

/// Which job.
#[derive(Debug, Args)]
pub struct JobName {
    /// Job ID
    id: String,
    /// Hub [default: the first]
    #[arg(long)]
    hub: Option<String>,
}

/// A job.
#[derive(Debug, Args)]
pub struct ScheduleArgs {
    #[command(flatten)]
    name: JobName,
    /// Which devices: a condition of the query language, as in "tags.site = 'cave'", * for all, or FROM devices.modules
    /// WHERE and a condition
    #[arg(long = "where", value_name = "CONDITION")]
    condition: String,
    /// Desired properties to merge into each twin: JSON or @FILE
    #[arg(long, value_name = "JSON", conflicts_with = "method")]
    desired: Option<String>,
    /// Tags to merge into each twin: JSON or @FILE
    #[arg(long, value_name = "JSON", conflicts_with = "method")]
    tags: Option<String>,
    /// Method to call of each device
    #[arg(long, value_name = "NAME")]
    method: Option<String>,
    /// What the method is called with: JSON or @FILE [default: null]
    #[arg(long, value_name = "JSON", requires = "method")]
    payload: Option<String>,
    /// Seconds to wait for the answer of a device, 5 to 300
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    timeout: u64,
    /// Seconds to wait for a device to connect, up to 300
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    connect_timeout: u64,
    /// When to begin, as in 2026-11-21T22:00:00Z [default: at once]
    #[arg(long, value_name = "TIME")]
    start: Option<String>,
    /// Seconds that the whole job may take
    #[arg(long, value_name = "SECONDS", default_value_t = 3_600)]
    max_seconds: u64,
}

/// Which jobs.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Of this type alone
    #[arg(long = "type", value_enum)]
    kind: Option<Kind>,
    /// That stand here alone
    #[arg(long, value_parser = ["scheduled", "queued", "enqueued", "running", "completed", "failed", "cancelled"])]
    status: Option<String>,
    /// Hub [default: the first]
    #[arg(long)]
    hub: Option<String>,
}

/// Types of jobs.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Kind {
    /// Changes of twins
    Twin,
    /// Calls of methods
    Method,
    /// Imports of devices
    Import,
    /// Exports of devices
    Export,
}

impl Kind {
    const fn wire(self) -> &'static str {
        match self {
            Self::Twin => "scheduleUpdateTwin",
            Self::Method => "scheduleDeviceMethod",
            Self::Import => "import",
            Self::Export => "export",
        }
    }
}

/// Does it.
pub async fn run(command: &JobCommand, context: &Context) -> Result<()> {
    match command {
        JobCommand::Schedule(args) => {
            let body = body_of(args)?;
            let path = ["jobs", "v2", args.name.id.as_str()];
            let request = ServiceRequest { body: Some(&body), ..ServiceRequest::new(Method::PUT, &path) };
            let hub = context.hub(args.name.hub.as_deref())?;
            context.output.record(&ask(&hub, "scheduling the job", request).await?)
        }
        JobCommand::Show(name) => match find_scheduled(name, context).await? {
            Some(job) => context.output.record(&job),
            None => transfer::at(Method::GET, (&name.id, name.hub.as_deref()), context).await,
        },
        JobCommand::Cancel(name) => {
            if find_scheduled(name, context).await?.is_none() {
                return transfer::at(Method::DELETE, (&name.id, name.hub.as_deref()), context).await;
            }
            let path = ["jobs", "v2", name.id.as_str(), "cancel"];
            let request = ServiceRequest::new(Method::POST, &path);
            let hub = context.hub(name.hub.as_deref())?;
            context.output.record(&ask(&hub, "cancelling the job", request).await?)
        }
        JobCommand::Import(args) => transfer::import(args, context).await,
        JobCommand::Export(args) => transfer::export(args, context).await,
        JobCommand::List(args) => match args.kind {
            Some(kind @ (Kind::Import | Kind::Export)) => {
                transfer::list(kind.wire(), args.status.as_deref(), (args.hub.as_deref(), context)).await
            }
            _ => list(args, context).await,
        },
    }
}

/// A scheduled job; `None` for the ID of an import or export, or of nothing.
async fn find_scheduled(name: &JobName, context: &Context) -> Result<Option<Value>> {
    let path = ["jobs", "v2", name.id.as_str()];
    let request = ServiceRequest::new(Method::GET, &path);
    let job = ask(&context.hub(name.hub.as_deref())?, "reading the job", request).await?;
    // The API answers for a job that it does not know as for any other.
    Ok(Some(job).filter(|job| job.get("status").and_then(Value::as_str) != Some("unknown")))
}

fn body_of(args: &ScheduleArgs) -> Result<Value> {
    let mut body = Map::new();
    let mut put = |member: &str, value: Value| drop(body.insert(member.to_owned(), value));
    put("jobId", json!(args.name.id));
    put("queryCondition", json!(args.condition));
    put("startTime", json!(args.start));
    put("maxExecutionTimeInSeconds", json!(args.max_seconds));
    if let Some(method) = &args.method {
        put("type", json!(Kind::Method.wire()));
        let call = json!({
            "methodName": method,
            "payload": args.payload.as_deref().map(|payload| parse_json("payload", payload)).transpose()?,
            "responseTimeoutInSeconds": args.timeout,
            "connectTimeoutInSeconds": args.connect_timeout,
        });
        put("cloudToDeviceMethod", call);
        return Ok(Value::Object(body));
    }
    let section = |option: &str, text: Option<&str>| text.map(|text| parse_json(option, text)).transpose();
    let (desired, tags) = (section("desired", args.desired.as_deref())?, section("tags", args.tags.as_deref())?);
    if desired.is_none() && tags.is_none() {
        bail!("say what to do: --desired JSON, --tags JSON or --method NAME");
    }
    put("type", json!(Kind::Twin.wire()));
    put("updateTwin", json!({ "etag": "*", "tags": tags, "properties": { "desired": desired } }));
    Ok(Value::Object(body))
}

async fn list(args: &ListArgs, context: &Context) -> Result<()> {
    let hub = context.hub(args.hub.as_deref())?;
    let mut parameters = Vec::new();
    parameters.extend(args.kind.map(|kind| ("jobType", kind.wire().to_owned())));
    parameters.extend(args.status.clone().map(|status| ("jobStatus", status)));
    let (mut jobs, mut next) = (Vec::new(), None::<String>);
    loop {
        let mut headers = vec![("x-ms-max-item-count", PAGE.to_owned())];
        headers.extend(next.take().map(|next| ("x-ms-continuation", next)));
        let path = ["jobs", "v2", "query"];
        let request =
            ServiceRequest { parameters: &parameters, headers: &headers, ..ServiceRequest::new(Method::GET, &path) };
        let (page, answered) = ask_with_headers(&hub, "listing jobs", request).await?;
        let Value::Array(page) = page else { bail!("the answer is not a list") };
        jobs.extend(page);
        next = answered.get("x-ms-continuation").and_then(|value| value.to_str().ok()).map(str::to_owned);
        if next.is_none() {
            break;
        }
    }
    context.output.list(
        &jobs,
        &[
            ("Job", "/jobId"),
            ("Type", "/type"),
            ("Status", "/status"),
            ("Starts", "/startTime"),
            ("Devices", "/deviceJobStatistics/deviceCount"),
            ("Succeeded", "/deviceJobStatistics/succeededCount"),
            ("Failed", "/deviceJobStatistics/failedCount"),
        ],
    )
}
