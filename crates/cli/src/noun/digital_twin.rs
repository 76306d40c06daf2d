//! `muster digital-twin`: a Plug and Play device by its model's words, and its commands.

use anyhow::Result;
use clap::{Args, Subcommand};
use client::service::ServiceRequest;
use http::Method;
use http::header::ETAG;
use serde_json::{Value, json};

use super::method::CallArgs;
use crate::context::{Context, ask, ask_with_headers, parse_json};

/// What to do with digital twins.
#[derive(Debug, Subcommand)]
pub enum DigitalTwinCommand {
    /// Show a digital twin
    Show(TwinName),
    /// Change what is wanted of properties and components
    Update(UpdateArgs),
    /// Call a command and print what the device answers
    Command(CommandArgs),
}

/// Whose digital twin.
#[derive(Debug, Args)]
pub struct TwinName {
    /// Device ID
    id: String,
    /// Hub [default: the first]
    #[arg(long)]
    hub: Option<String>,
}

/// A change.
#[derive(Debug, Args)]
pub struct UpdateArgs {
    #[command(flatten)]
    name: TwinName,
    /// The operations, a JSON Patch: JSON or @FILE
    #[arg(long, value_name = "JSON")]
    patch: String,
    /// Only if the digital twin has this etag
    #[arg(long)]
    etag: Option<String>,
}

/// A call.
#[derive(Debug, Args)]
pub struct CommandArgs {
    #[command(flatten)]
    name: TwinName,
    /// Command
    command: String,
    /// Component, if a component's command is meant
    #[arg(long)]
    component: Option<String>,
    #[command(flatten)]
    call: CallArgs,
}

/// Does it.
pub async fn run(command: &DigitalTwinCommand, context: &Context) -> Result<()> {
    match command {
        DigitalTwinCommand::Show(name) => {
            let path = ["digitaltwins", name.id.as_str()];
            let request = ServiceRequest::new(Method::GET, &path);
            context.output.record(&ask(&context.hub(name.hub.as_deref())?, "the digital twin", request).await?)
        }
        DigitalTwinCommand::Update(args) => update(args, context).await,
        DigitalTwinCommand::Command(args) => call(args, context).await,
    }
}

async fn update(UpdateArgs { name, patch, etag }: &UpdateArgs, context: &Context) -> Result<()> {
    let path = ["digitaltwins", name.id.as_str()];
    let patch = parse_json("patch", patch)?;
    let etag = etag.as_deref().map(|etag| format!("\"{etag}\""));
    let mut request = ServiceRequest::new(Method::PATCH, &path);
    request.body = Some(&patch);
    request.if_match = etag.as_deref();
    let client = context.hub(name.hub.as_deref())?;
    let (_, headers) = ask_with_headers(&client, "the digital twin", request).await?;
    let etag = headers.get(ETAG).and_then(|etag| etag.to_str().ok());
    let etag = etag.map(|etag| etag.trim_start_matches("W/").trim_matches('"'));
    context.output.record(&json!({ "deviceId": name.id, "accepted": true, "etag": etag }))
}

async fn call(args: &CommandArgs, context: &Context) -> Result<()> {
    let CommandArgs { name, command, component, call } = args;
    let mut path = vec!["digitaltwins", name.id.as_str()];
    if let Some(component) = component {
        path.extend(["components", component.as_str()]);
    }
    path.extend(["commands", command.as_str()]);
    let payload = call.payload()?.unwrap_or(Value::Null);
    let parameters = call.seconds().map(|(name, seconds)| (name, seconds.to_string()));
    let mut request = ServiceRequest::new(Method::POST, &path);
    request.body = Some(&payload);
    request.parameters = &parameters;
    request.waits = call.waits();
    let client = context.hub(name.hub.as_deref())?;
    let (answer, headers) = ask_with_headers(&client, "the command", request).await?;
    let status = headers.get("x-ms-command-statuscode").and_then(|status| status.to_str().ok());
    let status = status.and_then(|status| status.parse::<i32>().ok());
    context.output.record(&json!({ "status": status, "payload": answer }))
}
