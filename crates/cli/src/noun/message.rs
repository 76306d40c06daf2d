//! `muster message`: cloud-to-device messages, and what became of them.

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use client::management::ManagementRequest;
use client::service::ServiceRequest;
use http::{Method, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};

use super::events::no_such_hub;
use crate::context::{Context, ask, refusal};

/// What to do with messages.
#[derive(Debug, Subcommand)]
pub enum MessageCommand {
    /// Send a message to a device, which gets it when it is connected and listens
    Send(Box<SendArgs>),
    /// Remove all messages that wait for a device
    Purge(PurgeArgs),
    /// Print what became of messages whose senders asked with --ack, oldest first; what is printed is done with
    Feedback(FeedbackArgs),
}

/// A message.
#[derive(Debug, Args)]
pub struct SendArgs {
    /// Device ID
    device: String,
    /// The body
    text: String,
    /// Module ID, if a module is meant
    #[arg(long)]
    module: Option<String>,
    /// Hub [default: the first]
    #[arg(long)]
    hub: Option<String>,
    /// An application property; may be given several times
    #[arg(long = "property", value_name = "NAME=VALUE")]
    properties: Vec<String>,
    /// What feedback to ask for
    #[arg(long, value_enum, default_value = "none")]
    ack: Ack,
    /// Message ID [default: a random one]
    #[arg(long, value_name = "ID")]
    message_id: Option<String>,
    /// Correlation ID
    #[arg(long, value_name = "ID")]
    correlation_id: Option<String>,
    /// User ID
    #[arg(long, value_name = "ID")]
    user_id: Option<String>,
    /// Content type
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// Content encoding
    #[arg(long, value_name = "ENCODING")]
    content_encoding: Option<String>,
    /// When the message expires, such as 2026-11-21T12:00:00Z [default: as the hub says, after an hour]
    #[arg(long, value_name = "TIME")]
    expires_at: Option<String>,
}

/// Which feedback is asked for.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Ack {
    /// None.
    None,
    /// That the device completed the message.
    Positive,
    /// That it did not.
    Negative,
    /// Both.
    Full,
}

/// Whose messages.
#[derive(Debug, Args)]
pub struct PurgeArgs {
    /// Device ID
    device: String,
    /// Hub [default: the first]
    #[arg(long)]
    hub: Option<String>,
}

/// Which feedback.
#[derive(Debug, Args)]
pub struct FeedbackArgs {
    /// Hub [default: the first]
    #[arg(long)]
    hub: Option<String>,
}

/// Does it.
pub async fn run(command: &MessageCommand, context: &Context) -> Result<()> {
    match command {
        MessageCommand::Send(args) => send(args, context).await,
        MessageCommand::Purge(args) => {
            let path = ["devices", &args.device, "commands"];
            let request = ServiceRequest::new(Method::DELETE, &path);
            let purged = ask(&context.hub(args.hub.as_deref())?, "purging the messages", request).await?;
            context.output.record(&purged)
        }
        MessageCommand::Feedback(args) => feedback(args, context).await,
    }
}

async fn send(args: &SendArgs, context: &Context) -> Result<()> {
    let mut properties = Map::new();
    for property in &args.properties {
        let Some((name, value)) = property.split_once('=') else { bail!("--property {property}: not NAME=VALUE") };
        properties.insert(name.to_owned(), json!(value));
    }
    let ack = match args.ack {
        Ack::None => "none",
        Ack::Positive => "positive",
        Ack::Negative => "negative",
        Ack::Full => "full",
    };
    let body = json!({
        "body": args.text,
        "properties": properties,
        "ack": ack,
        "messageId": args.message_id,
        "correlationId": args.correlation_id,
        "userId": args.user_id,
        "contentType": args.content_type,
        "contentEncoding": args.content_encoding,
        "expiryTimeUtc": args.expires_at,
    });
    let module = args.module.as_deref().map(|module| format!("/modules/{}", encode(module))).unwrap_or_default();
    let path = format!("/devices/{}{module}/messages", encode(&args.device));
    let sent = own(context, (args.hub.as_deref(), &path), Method::POST, Some(&body)).await?;
    context.output.record(&sent.unwrap_or_default())
}

/// Prints all there is, and is done with it only when it is printed.
async fn feedback(args: &FeedbackArgs, context: &Context) -> Result<()> {
    let hub = args.hub.as_deref();
    let (mut records, mut locks) = (Vec::new(), Vec::new());
    while let Some(batch) = own(context, (hub, "/feedback"), Method::GET, None).await? {
        let lock = batch.get("lockToken").and_then(Value::as_str).context("a batch without a lock token")?;
        locks.push(lock.to_owned());
        records
            .extend(batch.get("value").and_then(Value::as_array).context("a batch without records")?.iter().cloned());
    }
    context.output.list(&records, FEEDBACK_COLUMNS)?;
    for lock in locks {
        own(context, (hub, &format!("/feedback/{lock}")), Method::DELETE, None).await?;
    }
    Ok(())
}

const FEEDBACK_COLUMNS: &[(&str, &str)] = &[
    ("AT", "/enqueuedTimeUtc"),
    ("DEVICE", "/deviceId"),
    ("MESSAGE", "/originalMessageId"),
    ("STATUS", "/statusCode"),
];

/// Asks Muster's own API of a hub; `None` if there is nothing to answer.
async fn own(
    context: &Context,
    (hub, path): (Option<&str>, &str),
    method: Method,
    body: Option<&Value>,
) -> Result<Option<Value>> {
    let hub = context.endpoints.hub(hub).ok_or_else(no_such_hub)?;
    let path = format!("/muster/v1/hubs/{}{path}", encode(&hub.name));
    let request = ManagementRequest { method, path, api_version: "1", if_match: None, body };
    let answer = context.management().await?.send(request).await.context("messages to devices")?;
    match answer.status() {
        StatusCode::NO_CONTENT => Ok(None),
        status if status.is_success() => Ok(Some(serde_json::from_slice(answer.body())?)),
        status => Err(refusal("messages to devices", status, answer.body()).into()),
    }
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}
