//! `muster device`: identities at a hub.

use anyhow::{Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use client::service::ServiceRequest;
use http::Method;
use serde_json::{Value, json};

use crate::context::{Context, ask, hide_secrets};

/// What to do with devices.
#[derive(Debug, Subcommand)]
pub enum DeviceCommand {
    /// Create a device
    Create(DeviceArgs),
    /// List devices
    List {
        /// Hub [default: the first]
        #[arg(long)]
        hub: Option<String>,
        /// At most this many
        #[arg(long, default_value_t = 1_000)]
        top: u32,
    },
    /// Show one device
    Show(NameArgs),
    /// Change status or credential of a device
    Update(DeviceArgs),
    /// Delete a device; its connection ends
    Delete(NameArgs),
    /// Print the connection string of a device with a symmetric key
    ConnectionString(NameArgs),
}

/// Which device.
#[derive(Debug, Args)]
pub struct NameArgs {
    /// Device ID
    id: String,
    /// Hub [default: the first]
    #[arg(long)]
    hub: Option<String>,
}

/// How a device proves itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AuthenticationType {
    /// Symmetric key
    Sas,
    /// The thumbprint of its own certificate
    SelfSigned,
    /// A certificate that leads to a CA of the hub
    CertificateAuthority,
}

impl AuthenticationType {
    const fn wire(self) -> &'static str {
        match self {
            Self::Sas => "sas",
            Self::SelfSigned => "selfSigned",
            Self::CertificateAuthority => "certificateAuthority",
        }
    }
}

/// A device as it shall be.
#[derive(Debug, Args)]
pub struct DeviceArgs {
    #[command(flatten)]
    name: NameArgs,
    /// How it proves itself
    #[arg(long, value_enum)]
    authentication: Option<AuthenticationType>,
    /// First key (base64 of 16 to 64 bytes), or first thumbprint (hexadecimal)
    #[arg(long, value_name = "KEY")]
    primary: Option<String>,
    /// Second key or thumbprint
    #[arg(long, value_name = "KEY")]
    secondary: Option<String>,
    /// enabled or disabled
    #[arg(long, value_parser = ["enabled", "disabled"])]
    status: Option<String>,
}

/// Does it.
pub async fn run(command: &DeviceCommand, context: &Context) -> Result<()> {
    match command {
        DeviceCommand::Create(args) => put(context, args, false).await,
        DeviceCommand::Update(args) => put(context, args, true).await,
        DeviceCommand::List { hub, top } => list(context, hub.as_deref(), *top).await,
        DeviceCommand::Show(name) => {
            let mut device = show(context, name).await?;
            hide_secrets(&mut device, context.show_keys);
            // What a device announced to be is told by its twin alone.
            let path = ["twins", name.id.as_str()];
            let request = ServiceRequest::new(Method::GET, &path);
            let twin = ask(&context.hub(name.hub.as_deref())?, "reading the twin", request).await?;
            set(&mut device, "modelId", twin.get("modelId").cloned().unwrap_or_default());
            context.output.record(&device)
        }
        DeviceCommand::Delete(name) => {
            let path = ["devices", name.id.as_str()];
            let mut request = ServiceRequest::new(Method::DELETE, &path);
            request.if_match = Some("\"*\"");
            ask(&context.hub(name.hub.as_deref())?, "deleting the device", request).await?;
            context.output.record(&json!({ "deviceId": name.id, "deleted": true }))
        }
        DeviceCommand::ConnectionString(name) => connection_string(context, name).await,
    }
}

async fn show(context: &Context, name: &NameArgs) -> Result<Value> {
    let path = ["devices", name.id.as_str()];
    let request = ServiceRequest::new(Method::GET, &path);
    ask(&context.hub(name.hub.as_deref())?, "reading the device", request).await
}

async fn put(context: &Context, args: &DeviceArgs, update: bool) -> Result<()> {
    let mut body = match update {
        true => show(context, &args.name).await?,
        false => json!({ "deviceId": args.name.id, "authentication": { "type": "sas" } }),
    };
    let kind = args.authentication.map(AuthenticationType::wire);
    let kind = kind.or_else(|| body.pointer("/authentication/type").and_then(Value::as_str)).unwrap_or("sas");
    let credential = match kind {
        "sas" => json!({ "primaryKey": args.primary, "secondaryKey": args.secondary }),
        _ => json!({ "primaryThumbprint": args.primary, "secondaryThumbprint": args.secondary }),
    };
    let member = if kind == "sas" { "symmetricKey" } else { "x509Thumbprint" };
    if args.primary.is_some() || args.secondary.is_some() || args.authentication.is_some() {
        let authentication = json!({ "type": kind, member: credential });
        set(&mut body, "authentication", authentication);
    }
    if let Some(status) = &args.status {
        set(&mut body, "status", json!(status));
    }
    let path = ["devices", args.name.id.as_str()];
    let mut request = ServiceRequest::new(Method::PUT, &path);
    // What was read is what is changed: another operator's change in between is not undone.
    let etag = body.get("etag").and_then(Value::as_str).map(|etag| format!("\"{etag}\""));
    request.body = Some(&body);
    request.if_match = etag.as_deref().filter(|_| update);
    let what = if update { "updating the device" } else { "creating the device" };
    let mut device = ask(&context.hub(args.name.hub.as_deref())?, what, request).await?;
    hide_secrets(&mut device, context.show_keys || !update);
    context.output.record(&device)
}

fn set(document: &mut Value, name: &str, value: Value) {
    if let Value::Object(members) = document {
        members.insert(name.to_owned(), value);
    }
}

async fn list(context: &Context, hub: Option<&str>, top: u32) -> Result<()> {
    // The registry's list has no paging: `top` is applied here as well, since the wire caps it at 1,000.
    let path = ["devices"];
    let request = ServiceRequest::new(Method::GET, &path);
    let Value::Array(mut devices) = ask(&context.hub(hub)?, "listing devices", request).await? else {
        bail!("the answer is not a list");
    };
    devices.truncate(top as usize);
    for device in &mut devices {
        hide_secrets(device, context.show_keys);
    }
    context.output.list(
        &devices,
        &[
            ("Device", "/deviceId"),
            ("Status", "/status"),
            ("Connection", "/connectionState"),
            ("Authentication", "/authentication/type"),
            ("Last activity", "/lastActivityTime"),
        ],
    )
}

async fn connection_string(context: &Context, name: &NameArgs) -> Result<()> {
    let device = show(context, name).await?;
    let Some(key) = device.pointer("/authentication/symmetricKey/primaryKey").and_then(Value::as_str) else {
        bail!("the device has no symmetric key: it proves itself by certificate");
    };
    let host = context.endpoints.hub(name.hub.as_deref()).map(|hub| hub.host_name.clone()).unwrap_or_default();
    let text = format!("HostName={host};DeviceId={};SharedAccessKey={key}", name.id);
    context.output.record(&json!({ "connectionString": text }))
}
