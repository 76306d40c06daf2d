//! `muster configuration`: content that is put into the desired properties of every twin that fulfils a condition.

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use client::service::ServiceRequest;
use http::Method;
use serde_json::{Map, Value, json};

use crate::context::{Context, ask, parse_json};

/// What to do with configurations.
#[derive(Debug, Subcommand)]
pub enum ConfigurationCommand {
    /// Create a configuration; a deployment for edge devices, if its content is for modules
    Create(CreateArgs),
    /// List configurations
    List {
        /// Hub [default: the first]
        #[arg(long)]
        hub: Option<String>,
    },
    /// Show one configuration, and how many twins it is for and applies to
    Show(ConfigurationName),
    /// Change the condition, priority or metrics of a configuration
    Update(UpdateArgs),
    /// Delete a configuration; what it has put is withdrawn
    Delete(ConfigurationName),
    /// Put content into the twins of one edge device and its modules, at once
    Apply {
        /// Device ID
        device: String,
        /// Content: JSON or @FILE
        #[arg(long, value_name = "JSON")]
        content: String,
        /// Hub [default: the first]
        #[arg(long)]
        hub: Option<String>,
    },
}

/// Which configuration.
#[derive(Debug, Args)]
pub struct ConfigurationName {
    /// Configuration ID
    id: String,
    /// Hub [default: the first]
    #[arg(long)]
    hub: Option<String>,
}

/// What can be changed.
#[derive(Debug, Args)]
pub struct Terms {
    /// Which devices: a condition of the query language, as in "tags.site = 'cave'", * for all, or FROM devices.modules
    /// WHERE and a condition
    #[arg(long, value_name = "CONDITION")]
    target: Option<String>,
    /// Of several that a twin fulfils, the highest applies
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    priority: Option<i32>,
    /// A query whose rows are counted
    #[arg(long = "metric", value_name = "NAME=QUERY")]
    metrics: Vec<String>,
}

/// A fresh configuration.
#[derive(Debug, Args)]
pub struct CreateArgs {
    #[command(flatten)]
    name: ConfigurationName,
    /// Content, as in {"deviceContent":{"properties.desired.fan":{"speed":7}}}: JSON or @FILE
    #[arg(long, value_name = "JSON")]
    content: String,
    #[command(flatten)]
    terms: Terms,
}

/// A change.
#[derive(Debug, Args)]
pub struct UpdateArgs {
    #[command(flatten)]
    name: ConfigurationName,
    #[command(flatten)]
    terms: Terms,
}

/// Does it.
pub async fn run(command: &ConfigurationCommand, context: &Context) -> Result<()> {
    match command {
        ConfigurationCommand::Create(args) => {
            let mut body = json!({ "id": args.name.id, "content": parse_json("content", &args.content)? });
            apply(&mut body, &args.terms)?;
            put(context, &args.name, &body, None).await
        }
        ConfigurationCommand::Update(args) => {
            let mut body = read(context, &args.name).await?;
            apply(&mut body, &args.terms)?;
            // What was read is what is changed: another operator's change in between is not undone.
            let etag = body.get("etag").and_then(Value::as_str).map(|etag| format!("\"{etag}\""));
            put(context, &args.name, &body, etag.as_deref()).await
        }
        ConfigurationCommand::Show(name) => context.output.record(&read(context, name).await?),
        ConfigurationCommand::Delete(name) => {
            let path = ["configurations", name.id.as_str()];
            let mut request = ServiceRequest::new(Method::DELETE, &path);
            request.if_match = Some("\"*\"");
            ask(&context.hub(name.hub.as_deref())?, "deleting the configuration", request).await?;
            context.output.record(&json!({ "id": name.id, "deleted": true }))
        }
        ConfigurationCommand::List { hub } => list(context, hub.as_deref()).await,
        ConfigurationCommand::Apply { device, content, hub } => {
            let content = parse_json("content", content)?;
            let path = ["devices", device.as_str(), "applyConfigurationContent"];
            let request = ServiceRequest { body: Some(&content), ..ServiceRequest::new(Method::POST, &path) };
            ask(&context.hub(hub.as_deref())?, "applying the content", request).await?;
            context.output.record(&json!({ "deviceId": device, "applied": true }))
        }
    }
}

async fn read(context: &Context, name: &ConfigurationName) -> Result<Value> {
    let path = ["configurations", name.id.as_str()];
    let request = ServiceRequest::new(Method::GET, &path);
    ask(&context.hub(name.hub.as_deref())?, "reading the configuration", request).await
}

async fn put(context: &Context, name: &ConfigurationName, body: &Value, etag: Option<&str>) -> Result<()> {
    let path = ["configurations", name.id.as_str()];
    let request = ServiceRequest { body: Some(body), if_match: etag, ..ServiceRequest::new(Method::PUT, &path) };
    let hub = context.hub(name.hub.as_deref())?;
    context.output.record(&ask(&hub, "writing the configuration", request).await?)
}

/// Writes the terms that were given into a configuration.
fn apply(body: &mut Value, terms: &Terms) -> Result<()> {
    let Value::Object(members) = body else { bail!("the configuration is no object") };
    if let Some(target) = &terms.target {
        members.insert("targetCondition".to_owned(), json!(target));
    }
    if let Some(priority) = terms.priority {
        members.insert("priority".to_owned(), json!(priority));
    }
    if !terms.metrics.is_empty() {
        let mut queries = Map::new();
        for metric in &terms.metrics {
            let Some((name, query)) = metric.split_once('=') else { bail!("--metric {metric:?} is no NAME=QUERY") };
            queries.insert(name.to_owned(), json!(query));
        }
        members.insert("metrics".to_owned(), json!({ "queries": queries }));
    }
    Ok(())
}

async fn list(context: &Context, hub: Option<&str>) -> Result<()> {
    let path = ["configurations"];
    let request = ServiceRequest::new(Method::GET, &path);
    let Value::Array(configurations) = ask(&context.hub(hub)?, "listing configurations", request).await? else {
        bail!("the answer is not a list");
    };
    context.output.list(
        &configurations,
        &[
            ("Configuration", "/id"),
            ("Target", "/targetCondition"),
            ("Priority", "/priority"),
            ("Targeted", "/systemMetrics/results/targetedCount"),
            ("Applied", "/systemMetrics/results/appliedCount"),
        ],
    )
}
