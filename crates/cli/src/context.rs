//! What every command that talks to a running Muster needs: where it is, whom to trust, how to print.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use clap::Args;
use client::endpoints::{self, Endpoints};
use client::https::Https;
use client::management::{ManagementClient, ManagementRequest};
use client::service::{ConnectionString, ServiceClient, ServiceRequest};
use client::trust;
use domain::clock::Clock as _;
use http::{Response, StatusCode};
use serde_json::Value;
use service::clock::SystemClock;

use crate::output::{Format, Output};

/// The resource group that the commands work in.
pub const RESOURCE_GROUP: &str = "muster";
/// The folder looked into when none is named.
pub const DEFAULT_FOLDER: &str = "muster-data";

/// Options of every command.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Print a table or JSON [default: a table on a terminal, JSON through a pipe]
    #[arg(long, global = true, value_enum)]
    pub output: Option<Format>,
    /// Data folder of the server [default: ./muster-data]
    #[arg(long, global = true, value_name = "DIR", env = "MUSTER_DATA")]
    pub data: Option<PathBuf>,
    /// Print keys and other secrets
    #[arg(long, global = true)]
    pub show_keys: bool,
}

impl Global {
    /// The printer.
    pub fn output(&self) -> Output {
        Output::new(self.output)
    }

    /// The data folder.
    pub fn folder(&self) -> PathBuf {
        self.data.clone().unwrap_or_else(|| DEFAULT_FOLDER.into())
    }

    /// The endpoints file: `--data`, then `MUSTER_ENDPOINTS`, then the default folder.
    pub fn endpoints_file(&self) -> PathBuf {
        match (&self.data, std::env::var_os("MUSTER_ENDPOINTS")) {
            (None, Some(file)) => file.into(),
            _ => self.folder().join(endpoints::FILE_NAME),
        }
    }
}

/// A refusal by the server, with the exit code it leads to.
#[derive(Debug, thiserror::Error)]
#[error("{what}: the server answered {status}: {message}")]
pub struct Refused {
    /// What was asked.
    pub what: String,
    /// The status.
    pub status: StatusCode,
    /// The server's words.
    pub message: String,
}

/// Something that was named is not there.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotFound(pub String);

/// A running Muster, as a command sees it.
pub struct Context {
    /// Where it listens.
    pub endpoints: Endpoints,
    /// The file that says so.
    pub endpoints_file: PathBuf,
    /// How it is spoken to.
    pub https: Https,
    /// How results are printed.
    pub output: Output,
    /// Whether secrets are printed.
    pub show_keys: bool,
}

impl Context {
    /// Finds the running Muster.
    pub fn find(global: &Global) -> Result<Self> {
        let endpoints_file = global.endpoints_file();
        let endpoints = Endpoints::read(&endpoints_file)?;
        let authority = std::fs::read_to_string(&endpoints.ca_file)
            .with_context(|| format!("cannot read the authority's file {}", endpoints.ca_file.display()))?;
        let https = Https::new(trust::configure(&authority, None)?);
        Ok(Self { endpoints, endpoints_file, https, output: global.output(), show_keys: global.show_keys })
    }

    /// Makes sure that the server which wrote the endpoints file is the one that answers.
    pub async fn check_ready(&self) -> Result<()> {
        let written = self.endpoints.pid;
        let found = ManagementClient::ready_process(&self.https, &self.endpoints.admin).await;
        match found.context("the server of endpoints.json does not answer: start it again with `muster serve`")? {
            Some(found) if found == written => Ok(()),
            Some(found) => {
                bail!("endpoints.json is of process {written}, but process {found} answers: name its --data")
            }
            None => bail!("the server is stopping; start it again with `muster serve`"),
        }
    }

    /// A client of the service API of provisioning service `name`, or of the first one.
    pub fn provisioning(&self, name: Option<&str>) -> Result<ServiceClient> {
        let service = self.endpoints.provisioning_service(name).ok_or_else(|| unknown("provisioning service", name))?;
        self.service_client(&service.connection_string, ServiceClient::PROVISIONING_API_VERSION)
    }

    /// A client of the service API of hub `name`, or of the first one.
    pub fn hub(&self, name: Option<&str>) -> Result<ServiceClient> {
        let hub = self.endpoints.hub(name).ok_or_else(|| unknown("hub", name))?;
        self.service_client(&hub.connection_string, ServiceClient::HUB_API_VERSION)
    }

    fn service_client(&self, connection: &str, api_version: &'static str) -> Result<ServiceClient> {
        let connection = ConnectionString::parse(connection)?;
        Ok(ServiceClient::new(self.https.clone(), connection, self.endpoints.ports.https, api_version))
    }

    /// A signed-in client of the management API.
    pub async fn management(&self) -> Result<ManagementClient> {
        Ok(ManagementClient::sign_in(self.https.clone(), &self.endpoints.admin).await?)
    }
}

fn unknown(kind: &str, name: Option<&str>) -> NotFound {
    NotFound(match name {
        Some(name) => format!("there is no {kind} {name:?} among the server's endpoints"),
        None => format!("the server has no {kind}: create one first"),
    })
}

/// Sends a request to a service API and reads its JSON; null for an empty answer.
pub async fn ask(client: &ServiceClient, what: &str, request: ServiceRequest<'_>) -> Result<Value> {
    Ok(ask_with_headers(client, what, request).await?.0)
}

/// As [`ask`], with the answer's headers.
pub async fn ask_with_headers(
    client: &ServiceClient,
    what: &str,
    request: ServiceRequest<'_>,
) -> Result<(Value, http::HeaderMap)> {
    let answer = client.send(request, SystemClock.now()).await.with_context(|| what.to_owned())?;
    let headers = answer.headers().clone();
    Ok((read(what, &answer)?, headers))
}

/// Sends a request to the management API and reads its JSON; null for an empty answer.
pub async fn manage(client: &ManagementClient, what: &str, request: ManagementRequest<'_>) -> Result<Value> {
    let answer = client.send(request).await.with_context(|| what.to_owned())?;
    read(what, &answer)
}

fn read(what: &str, answer: &Response<Bytes>) -> Result<Value> {
    let body = answer.body();
    if answer.status().is_success() {
        return match body.is_empty() {
            true => Ok(Value::Null),
            false => serde_json::from_slice(body).with_context(|| format!("{what}: the answer is not JSON")),
        };
    }
    Err(refusal(what, answer.status(), body).into())
}

/// A refusal, with what its body says.
pub fn refusal(what: &str, status: StatusCode, body: &[u8]) -> Refused {
    let document: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let words = ["/message", "/Message", "/error/message"].iter().find_map(|path| document.pointer(path));
    let message = words.and_then(Value::as_str).unwrap_or("no reason given").to_owned();
    let tracking = document.get("trackingId").and_then(Value::as_str);
    let message = match tracking {
        Some(tracking) => format!("{message} (muster why {tracking})"),
        None => message,
    };
    Refused { what: what.to_owned(), status, message }
}

/// Replaces the values of secret members by stars, unless they are to be shown.
pub fn hide_secrets(value: &mut Value, show: bool) {
    const SECRET: [&str; 4] = ["primaryKey", "secondaryKey", "connectionString", "clientSecret"];
    match value {
        _ if show => {}
        Value::Object(members) => {
            for (name, member) in members {
                match member {
                    Value::String(text) if SECRET.contains(&name.as_str()) => "****".clone_into(text),
                    other => hide_secrets(other, show),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| hide_secrets(item, show)),
        _ => {}
    }
}

/// Reads an option that is JSON, or `@FILE` with JSON in it.
pub fn parse_json(option: &str, text: &str) -> Result<Value> {
    let text = match text.strip_prefix('@') {
        Some(file) => std::fs::read_to_string(file).with_context(|| format!("--{option}: cannot read {file}"))?,
        None => text.to_owned(),
    };
    serde_json::from_str(&text).with_context(|| format!("--{option} is not JSON"))
}
