//! `muster hub`: hubs of the deployment, and the consumer groups of their telemetry.

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::context::Context;
use crate::noun::consumer_group::{self, ConsumerGroupCommand};
use crate::noun::resource::{self, HUB};

/// What to do with hubs.
#[derive(Debug, Subcommand)]
pub enum HubCommand {
    /// Create a hub; devices can use it at once
    Create(HubArgs),
    /// List hubs
    List,
    /// Show a hub
    Show {
        /// Name
        name: String,
    },
    /// Change a hub
    Update(HubArgs),
    /// Delete a hub with its devices; its connections end
    Delete {
        /// Name
        name: String,
    },
    /// Consumer groups: independent readers of a hub's telemetry
    #[command(subcommand)]
    ConsumerGroup(ConsumerGroupCommand),
}

/// A hub as it shall be.
#[derive(Debug, Args)]
pub struct HubArgs {
    /// Name
    name: String,
    /// Where it is said to be
    #[arg(long)]
    location: Option<String>,
    /// Partitions of its telemetry, 1 to 32; fixed at creation
    #[arg(long)]
    partitions: Option<u16>,
    /// Days that its telemetry is kept, 1 to 365
    #[arg(long)]
    retention_days: Option<u16>,
    /// Container below which devices may upload files, such as uploads; empty to have them upload none
    #[arg(long, value_name = "NAME")]
    upload_container: Option<String>,
    /// Whether back-end programs are told of uploaded files
    #[arg(long, value_name = "true|false")]
    upload_notifications: Option<bool>,
}

/// Does it.
pub async fn run(command: &HubCommand, context: &Context) -> Result<()> {
    let columns = [
        ("Hub", "/name"),
        ("Host name", "/properties/hostName"),
        ("State", "/properties/state"),
        ("Partitions", "/properties/eventHubEndpoints/events/partitionCount"),
        ("Retention (days)", "/properties/eventHubEndpoints/events/retentionTimeInDays"),
    ];
    match command {
        HubCommand::Create(args) => {
            resource::ensure_group(context).await?;
            let body = json!({
                "location": args.location.as_deref().unwrap_or(resource::LOCATION),
                "sku": { "name": "S1", "capacity": 1 },
                "properties": {},
            });
            put(context, args, body).await
        }
        HubCommand::Update(args) => {
            let present = resource::show(context, HUB, &args.name).await?;
            put(context, args, present).await
        }
        HubCommand::List => resource::list(context, HUB, &columns).await,
        HubCommand::Show { name } => context.output.record(&resource::show(context, HUB, name).await?),
        HubCommand::Delete { name } => resource::delete(context, HUB, name).await,
        HubCommand::ConsumerGroup(command) => consumer_group::run(command, context).await,
    }
}

async fn put(context: &Context, args: &HubArgs, mut body: Value) -> Result<()> {
    let events = [("partitionCount", args.partitions), ("retentionTimeInDays", args.retention_days)];
    for (name, value) in events {
        if let Some(value) = value {
            resource::set(&mut body, &["properties", "eventHubEndpoints", "events", name], json!(value));
        }
    }
    if let Some(container) = &args.upload_container {
        let path = ["properties", "storageEndpoints", "$default", "containerName"];
        resource::set(&mut body, &path, json!(container));
    }
    if let Some(notifies) = args.upload_notifications {
        resource::set(&mut body, &["properties", "enableFileUploadNotifications"], json!(notifies));
    }
    if let Some(location) = &args.location {
        resource::set(&mut body, &["location"], json!(location));
    }
    context.output.record(&resource::put(context, HUB, &args.name, &body).await?)
}
