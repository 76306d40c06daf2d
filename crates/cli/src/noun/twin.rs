//! `muster twin`: tags, desired and reported properties of a device at a hub.

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use client::service::ServiceRequest;
use http::Method;
use serde_json::{Map, Value, json};

use crate::context::{Context, ask, parse_json};

/// What to do with twins.
#[derive(Debug, Subcommand)]
pub enum TwinCommand {
    /// Show a twin
    Show(TwinName),
    /// Merge into tags and desired properties; null removes a member
    Update(TwinArgs),
    /// Replace tags and desired properties
    Replace(TwinArgs),
}

/// Whose twin.
#[derive(Debug, Args)]
pub struct TwinName {
    /// Device ID
    id: String,
    /// Module ID, if a module's twin is meant
    #[arg(long)]
    module: Option<String>,
    /// Hub [default: the first]
    #[arg(long)]
    hub: Option<String>,
}

/// A change.
#[derive(Debug, Args)]
pub struct TwinArgs {
    #[command(flatten)]
    name: TwinName,
    /// Desired properties: JSON or @FILE
    #[arg(long, value_name = "JSON")]
    desired: Option<String>,
    /// Tags: JSON or @FILE
    #[arg(long, value_name = "JSON")]
    tags: Option<String>,
    /// Only if the twin has this etag
    #[arg(long)]
    etag: Option<String>,
}

/// Does it.
pub async fn run(command: &TwinCommand, context: &Context) -> Result<()> {
    let twin = match command {
        TwinCommand::Show(name) => send(context, name, Method::GET, None, None).await?,
        TwinCommand::Update(args) => change(context, args, Method::PATCH).await?,
        TwinCommand::Replace(args) => change(context, args, Method::PUT).await?,
    };
    context.output.record(&twin)
}

async fn change(context: &Context, args: &TwinArgs, method: Method) -> Result<Value> {
    let mut body = Map::new();
    if let Some(tags) = &args.tags {
        body.insert("tags".into(), parse_json("tags", tags)?);
    }
    if let Some(desired) = &args.desired {
        body.insert("properties".into(), json!({ "desired": parse_json("desired", desired)? }));
    }
    if body.is_empty() {
        bail!("say what to change: --desired JSON or --tags JSON");
    }
    let etag = args.etag.as_deref().map(|etag| format!("\"{etag}\""));
    send(context, &args.name, method, Some(&Value::Object(body)), etag.as_deref()).await
}

async fn send(
    context: &Context,
    name: &TwinName,
    method: Method,
    body: Option<&Value>,
    etag: Option<&str>,
) -> Result<Value> {
    let mut path = vec!["twins", name.id.as_str()];
    if let Some(module) = &name.module {
        path.extend(["modules", module.as_str()]);
    }
    let mut request = ServiceRequest::new(method, &path);
    request.body = body;
    request.if_match = etag;
    ask(&context.hub(name.hub.as_deref())?, "the twin", request).await
}
