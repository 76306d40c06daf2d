//! `muster hub consumer-group`: the groups in which a hub's telemetry is read, each with readers of its own.

use anyhow::Result;
use clap::{Args, Subcommand};
use http::Method;
use serde_json::json;

use crate::context::Context;
use crate::noun::resource::{self, HUB};

/// What to do with consumer groups.
#[derive(Debug, Subcommand)]
pub enum ConsumerGroupCommand {
    /// Create a consumer group
    Create(GroupArgs),
    /// List consumer groups
    List {
        /// Hub
        #[arg(long)]
        hub: String,
    },
    /// Show a consumer group
    Show(GroupArgs),
    /// Delete a consumer group; its readers end
    Delete(GroupArgs),
}

/// Which group.
#[derive(Debug, Args)]
pub struct GroupArgs {
    /// Name
    name: String,
    /// Hub
    #[arg(long)]
    hub: String,
}

impl GroupArgs {
    fn path(&self) -> String {
        format!("{}/{}", collection(&self.hub), self.name)
    }
}

/// Does it.
pub async fn run(command: &ConsumerGroupCommand, context: &Context) -> Result<()> {
    let columns = [("Consumer group", "/name"), ("Created", "/properties/created")];
    match command {
        ConsumerGroupCommand::Create(group) => {
            let body = json!({ "properties": { "name": group.name } });
            let made = resource::send(context, HUB, Method::PUT, &group.path(), (Some(&body), None)).await?;
            context.output.record(&made)
        }
        ConsumerGroupCommand::List { hub } => {
            let answer = resource::send(context, HUB, Method::GET, &collection(hub), (None, None)).await?;
            context.output.list(resource::items(&answer), &columns)
        }
        ConsumerGroupCommand::Show(group) => {
            let found = resource::send(context, HUB, Method::GET, &group.path(), (None, None)).await?;
            context.output.record(&found)
        }
        ConsumerGroupCommand::Delete(group) => {
            resource::send(context, HUB, Method::DELETE, &group.path(), (None, None)).await?;
            context.output.record(&json!({ "name": group.name, "deleted": true }))
        }
    }
}

fn collection(hub: &str) -> String {
    format!("/{hub}/eventHubEndpoints/events/ConsumerGroups")
}
