//! `muster file`: files that devices uploaded, and the notifications of them.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use clap::{Args, Subcommand};
use client::management::ManagementRequest;
use http::{Method, Response, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::events::no_such_hub;
use crate::context::{Context, refusal};

/// The port that an address need not name.
const HTTPS_PORT: u16 = 443;

/// What to do with files.
#[derive(Debug, Subcommand)]
pub enum FileCommand {
    /// List the files of a hub
    List(HubArgs),
    /// Fetch a file
    Get(GetArgs),
    /// Remove a file
    Delete(NamedArgs),
    /// Print the address of a hub's container, by which programs may read and write every file of it for a while
    Container(ContainerArgs),
    /// Print which files were uploaded, oldest first; what is printed is done with
    Notifications(HubArgs),
}

/// Whose files.
#[derive(Debug, Args)]
pub struct HubArgs {
    /// Hub [default: the first]
    #[arg(long)]
    hub: Option<String>,
}

/// Whose container, and for how long.
#[derive(Debug, Args)]
pub struct ContainerArgs {
    /// Hub [default: the first]
    #[arg(long)]
    hub: Option<String>,
    /// Minutes for which the address is good
    #[arg(long, default_value_t = 60)]
    minutes: u32,
}

/// Which file.
#[derive(Debug, Args)]
pub struct NamedArgs {
    /// Its name, as `muster file list` shows it: the device's, a slash, and what the device called it
    name: String,
    /// Hub [default: the first]
    #[arg(long)]
    hub: Option<String>,
}

/// Which file, and where to.
#[derive(Debug, Args)]
pub struct GetArgs {
    #[command(flatten)]
    named: NamedArgs,
    /// Where to put it [default: standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Does it.
pub async fn run(command: &FileCommand, context: &Context) -> Result<()> {
    match command {
        FileCommand::List(args) => list(args.hub.as_deref(), context).await,
        FileCommand::Get(args) => get(args, context).await,
        FileCommand::Delete(args) => {
            let path = format!("/files/{}", encode_path(&args.name));
            own(context, (args.hub.as_deref(), &path), (Method::DELETE, None)).await.map(drop)
        }
        FileCommand::Container(args) => container(args, context).await,
        FileCommand::Notifications(args) => notifications(args.hub.as_deref(), context).await,
    }
}

async fn list(hub: Option<&str>, context: &Context) -> Result<()> {
    const COLUMNS: &[(&str, &str)] =
        &[("File", "/name"), ("Bytes", "/bytes"), ("Content type", "/contentType"), ("Written", "/lastUpdatedTime")];

    let (mut files, mut path) = (Vec::new(), "/files".to_owned());
    loop {
        let page = own(context, (hub, &path), (Method::GET, None)).await?.unwrap_or_default();
        files.extend(page.get("value").and_then(Value::as_array).context("a page without files")?.iter().cloned());
        match page.get("after").and_then(Value::as_str) {
            Some(after) => path = format!("/files?after={}", encode(after)),
            None => return context.output.list(&files, COLUMNS),
        }
    }
}

/// Writes the file as it comes, whatever its size.
async fn get(args: &GetArgs, context: &Context) -> Result<()> {
    let NamedArgs { name, hub } = &args.named;
    let request = request(context, (hub.as_deref(), &format!("/files/{}", encode_path(name))), (Method::GET, None))?;
    let mut answer = context.management().await?.open(request).await.context("fetching a file")?;
    if !answer.status().is_success() {
        let body = answer.next().await?.unwrap_or_default();
        return Err(refusal("fetching a file", answer.status(), &body).into());
    }
    let mut out: Box<dyn Write> = match &args.out {
        None => Box::new(std::io::stdout().lock()),
        Some(path) => {
            Box::new(std::fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?)
        }
    };
    while let Some(piece) = answer.next().await? {
        out.write_all(&piece).context("cannot write the file")?;
    }
    out.flush().context("cannot write the file")
}

/// Prints an address with a signature: asking for it is the asking for a secret.
async fn container(args: &ContainerArgs, context: &Context) -> Result<()> {
    let (address, expiry) = container_uri(context, args.hub.as_deref(), args.minutes).await?;
    context.output.record(&json!({ "containerUri": address, "expiryTime": expiry }))
}

/// The address of a hub's container with a signature, and until when that is good.
pub async fn container_uri(context: &Context, hub: Option<&str>, minutes: u32) -> Result<(String, String)> {
    let body = json!({ "ttlInSeconds": u64::from(minutes) * 60 });
    let signed = own(context, (hub, "/filecontainer"), (Method::POST, Some(&body))).await?;
    let signed = signed.unwrap_or_default();
    let text = |member: &str| signed.get(member).and_then(Value::as_str).with_context(|| format!("no {member}"));
    let port = match context.endpoints.ports.https {
        HTTPS_PORT => String::new(),
        port => format!(":{port}"),
    };
    let address = format!("https://{}{port}/{}{}", text("hostName")?, text("containerName")?, text("sasToken")?);
    Ok((address, text("expiryTime")?.to_owned()))
}

/// Prints all there is, and is done with it only when it is printed.
async fn notifications(hub: Option<&str>, context: &Context) -> Result<()> {
    const COLUMNS: &[(&str, &str)] =
        &[("At", "/enqueuedTimeUtc"), ("Device", "/deviceId"), ("File", "/blobName"), ("Bytes", "/blobSizeInBytes")];

    let (mut told, mut locks) = (Vec::new(), Vec::new());
    while let Some(one) = own(context, (hub, "/filenotifications"), (Method::GET, None)).await? {
        let lock = one.get("lockToken").and_then(Value::as_str).context("a notification without a lock token")?;
        locks.push(lock.to_owned());
        told.extend(one.get("value").cloned());
    }
    context.output.list(&told, COLUMNS)?;
    for lock in locks {
        own(context, (hub, &format!("/filenotifications/{lock}")), (Method::DELETE, None)).await?;
    }
    Ok(())
}

fn request<'b>(
    context: &Context,
    (hub, path): (Option<&str>, &str),
    (method, body): (Method, Option<&'b Value>),
) -> Result<ManagementRequest<'b>> {
    let hub = context.endpoints.hub(hub).ok_or_else(no_such_hub)?;
    let path = format!("/muster/v1/hubs/{}{path}", encode(&hub.name));
    Ok(ManagementRequest { method, path, api_version: "1", if_match: None, body })
}

/// Asks Muster's own API of a hub; `None` if there is nothing to answer.
async fn own(
    context: &Context,
    target: (Option<&str>, &str),
    asked: (Method, Option<&Value>),
) -> Result<Option<Value>> {
    let request = request(context, target, asked)?;
    let answer: Response<Bytes> = context.management().await?.send(request).await.context("files")?;
    match answer.status() {
        StatusCode::NO_CONTENT => Ok(None),
        status if status.is_success() => Ok(Some(serde_json::from_slice(answer.body())?)),
        status => Err(refusal("files", status, answer.body()).into()),
    }
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// As [`encode`], segment by segment.
fn encode_path(text: &str) -> String {
    const SEGMENTS: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/');
    utf8_percent_encode(text, SEGMENTS).to_string()
}
