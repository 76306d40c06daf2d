//! `muster method`: direct methods of devices connected to a hub.

use std::time::Duration;

use anyhow::Result;
use clap::{Args, Subcommand};
use client::service::ServiceRequest;
use http::Method;
use serde_json::{Map, Value};

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
    #[command(flatten)]
    call: CallArgs,
    /// Module ID, if a module's method is meant
    #[arg(long)]
    module: Option<String>,
    /// Hub [default: the first]
    #[arg(long)]
    hub: Option<String>,
}

/// What a device is called with, and how long to wait for it: a method and a Plug and Play command say the same.
#[derive(Debug, Args)]
pub struct CallArgs {
    /// What it is called with: JSON or @FILE [default: null]
    #[arg(long, value_name = "JSON")]
    payload: Option<String>,
    /// Seconds to wait for the device's answer, 5 to 300
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    timeout: u64,
    /// Seconds to wait for the device to connect, up to 300
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    connect_timeout: u64,
}

impl CallArgs {
    /// What it is called with, if anything.
    pub fn payload(&self) -> Result<Option<Value>> {
        self.payload.as_deref().map(|payload| parse_json("payload", payload)).transpose()
    }

    /// Seconds to wait for the device's answer and for it to connect, by the names that the hub gives them.
    pub const fn seconds(&self) -> [(&'static str, u64); 2] {
        [("responseTimeoutInSeconds", self.timeout), ("connectTimeoutInSeconds", self.connect_timeout)]
    }

    /// How long the hub may take beyond its own time. It refuses what is out of its range, so that no sum of two is too
    /// great.
    pub const fn waits(&self) -> Duration {
        Duration::from_secs(self.timeout.saturating_add(self.connect_timeout))
    }
}

/// Does it.
pub async fn run(command: &MethodCommand, context: &Context) -> Result<()> {
    let MethodCommand::Invoke(args) = command;
    let mut body = Map::from_iter(args.call.seconds().map(|(name, seconds)| (name.to_owned(), seconds.into())));
    body.insert("methodName".to_owned(), args.name.as_str().into());
    body.insert("payload".to_owned(), args.call.payload()?.into());
    let body = Value::Object(body);
    let mut path = vec!["twins", args.device.as_str()];
    if let Some(module) = &args.module {
        path.extend(["modules", module.as_str()]);
    }
    path.push("methods");
    let mut request = ServiceRequest::new(Method::POST, &path);
    request.body = Some(&body);
    request.waits = args.call.waits();
    let answer = ask(&context.hub(args.hub.as_deref())?, "the method", request).await?;
    context.output.record(&answer)
}
