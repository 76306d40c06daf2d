//! `muster job import` and `muster job export`: the identities and configurations of a hub, from and to files in
//! containers.

use anyhow::{Result, bail};
use clap::Args;
use client::service::ServiceRequest;
use http::Method;
use serde_json::{Value, json};

use super::file::container_uri;
use crate::context::{Context, ask};

/// Minutes for which a signature for the hub's own container is good.
const SIGNED_MINUTES: u32 = 24 * 60;

/// What is imported.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// URI, with a signature, of the container that has the file [default: the hub's own container]
    #[arg(long, value_name = "URI")]
    from: Option<String>,
    /// The file, with a device or module a line [default: devices.txt]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Import the configurations of configurations.txt as well
    #[arg(long)]
    configurations: bool,
    /// URI of the container that importErrors.log is written to [default: the hub's own container]
    #[arg(long, value_name = "URI")]
    errors_to: Option<String>,
    /// Hub [default: the first]
    #[arg(long)]
    hub: Option<String>,
}

/// What is exported.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// URI, with a signature, of the container that gets the file [default: the hub's own container]
    #[arg(long, value_name = "URI")]
    to: Option<String>,
    /// What the file is called [default: devices.txt]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Export the configurations as well, to configurations.txt
    #[arg(long)]
    configurations: bool,
    /// Leave symmetric keys out
    #[arg(long)]
    without_keys: bool,
    /// Hub [default: the first]
    #[arg(long)]
    hub: Option<String>,
}

/// Begins an import.
pub async fn import(args: &ImportArgs, context: &Context) -> Result<()> {
    let hub = args.hub.as_deref();
    let from = container(args.from.as_deref(), hub, context).await?;
    let to = container(args.errors_to.as_deref(), hub, context).await?;
    let body = json!({
        "type": "import",
        "inputBlobContainerUri": from,
        "inputBlobName": args.name,
        "includeConfigurations": args.configurations,
        "outputBlobContainerUri": to,
    });
    create(&body, hub, context).await
}

/// Begins an export.
pub async fn export(args: &ExportArgs, context: &Context) -> Result<()> {
    let hub = args.hub.as_deref();
    let body = json!({
        "type": "export",
        "outputBlobContainerUri": container(args.to.as_deref(), hub, context).await?,
        "outputBlobName": args.name,
        "excludeKeysInExport": args.without_keys,
        "includeConfigurations": args.configurations,
    });
    create(&body, hub, context).await
}

async fn container(given: Option<&str>, hub: Option<&str>, context: &Context) -> Result<String> {
    match given {
        Some(given) => Ok(given.to_owned()),
        None => Ok(container_uri(context, hub, SIGNED_MINUTES).await?.0),
    }
}

async fn create(body: &Value, hub: Option<&str>, context: &Context) -> Result<()> {
    let path = ["jobs", "create"];
    let request = ServiceRequest { body: Some(body), ..ServiceRequest::new(Method::POST, &path) };
    context.output.record(&ask(&context.hub(hub)?, "beginning the job", request).await?)
}

/// Shows or ends an import or export.
pub async fn at(method: Method, (id, hub): (&str, Option<&str>), context: &Context) -> Result<()> {
    let path = ["jobs", id];
    let request = ServiceRequest::new(method, &path);
    context.output.record(&ask(&context.hub(hub)?, "import or export", request).await?)
}

/// Lists imports or exports.
pub async fn list(kind: &str, status: Option<&str>, (hub, context): (Option<&str>, &Context)) -> Result<()> {
    let path = ["jobs"];
    let listed = ask(&context.hub(hub)?, "listing jobs", ServiceRequest::new(Method::GET, &path)).await?;
    let Value::Array(mut jobs) = listed else { bail!("the answer is not a list") };
    let is = |job: &Value, member: &str, wanted: &str| job.get(member).and_then(Value::as_str) == Some(wanted);
    jobs.retain(|job| is(job, "type", kind) && status.is_none_or(|status| is(job, "status", status)));
    let columns = [
        ("Job", "/jobId"),
        ("Type", "/type"),
        ("Status", "/status"),
        ("Percent", "/progress"),
        ("Starts", "/startTimeUtc"),
        ("Ends", "/endTimeUtc"),
    ];
    context.output.list(&jobs, &columns)
}
