//! `muster method`: direct methods of devices connected to a hub.

use std::time::Duration;

use anyhow::Result;
use clap::{Args, Subcommand};
use client::service::ServiceRequest;
use http::Method;
use serde_json::json;

use crate::context::{Context, ask, parse_json};

/// What to do with methods.
#[derive(Debug, Subcommand)]
pub enum MethodCommand {
    /// Call a method and print what the device answers
    Invoke(InvokeArgs),
}

/// A call.
#[derive(Debug, Args)]
pub struct InvokeArgs {
    /// Device ID
    device: String,
    /// Method
    name: String,
    /// What it is called with: JSON or @FILE [default: null]
    #[arg(long, value_name = "JSON")]
    payload: Option<String>,
    /// Seconds to wait for the device's answer, 5 to 300
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    timeout: u64,
    /// Seconds to wait for the device to connect, up to 300
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    connect_timeout: u64,
    /// Module ID, if a module's method is meant
    #[arg(long)]
    module: Option<String>,
    /// Hub [default: the first]
    #[arg(long)]
    hub: Option<String>,
}

/// Does it.
pub async fn run(command: &MethodCommand, context: &Context) -> Result<()> {
    let MethodCommand::Invoke(args) = command;
    let payload = args.payload.as_deref().map(|payload| parse_json("payload", payload)).transpose()?;
    let body = json!({
        "methodName": args.name,
        "payload": payload,
        "responseTimeoutInSeconds": args.timeout,
        "connectTimeoutInSeconds": args.connect_timeout,
    });
    let mut path = vec!["twins", args.device.as_str()];
    if let Some(module) = &args.module {
        path.extend(["modules", module.as_str()]);
    }
    path.push("methods");
    let mut request = ServiceRequest::new(Method::POST, &path);
    request.body = Some(&body);
    // The hub refuses what is out of its range, so that no sum of two is too great.
    request.waits = Duration::from_secs(args.timeout.saturating_add(args.connect_timeout));
    let answer = ask(&context.hub(args.hub.as_deref())?, "the method", request).await?;
    context.output.record(&answer)
}
