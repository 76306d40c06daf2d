//! `muster dps`: provisioning services of the deployment.

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::context::{Context, hide_secrets};
use crate::noun::resource::{self, SERVICE};

/// What to do with provisioning services.
#[derive(Debug, Subcommand)]
pub enum DpsCommand {
    /// Create a provisioning service; devices can use it at once
    Create(DpsArgs),
    /// List provisioning services
    List,
    /// Show a provisioning service
    Show {
        /// Name
        name: String,
    },
    /// Change a provisioning service
    Update(DpsArgs),
    /// Delete a provisioning service with its enrollments
    Delete {
        /// Name
        name: String,
    },
}

/// A provisioning service as it shall be.
#[derive(Debug, Args)]
pub struct DpsArgs {
    /// Name
    name: String,
    /// Where it is said to be
    #[arg(long)]
    location: Option<String>,
    /// How hubs are chosen for enrollments without a policy of their own
    #[arg(long, value_parser = ["Hashed", "GeoLatency", "Static"], ignore_case = true)]
    allocation: Option<String>,
}

/// Does it.
pub async fn run(command: &DpsCommand, context: &Context) -> Result<()> {
    let columns = [
        ("Provisioning service", "/name"),
        ("ID scope", "/properties/idScope"),
        ("Devices dial", "/properties/deviceProvisioningHostName"),
        ("Operators dial", "/properties/serviceOperationsHostName"),
        ("Allocation", "/properties/allocationPolicy"),
    ];
    match command {
        DpsCommand::Create(args) => {
            resource::ensure_group(context).await?;
            let body = json!({
                "location": args.location.as_deref().unwrap_or(resource::LOCATION),
                "sku": { "name": "S1", "capacity": 1 },
                "properties": {},
            });
            put(context, args, body).await
        }
        DpsCommand::Update(args) => {
            let present = resource::show(context, SERVICE, &args.name).await?;
            put(context, args, present).await
        }
        DpsCommand::List => resource::list(context, SERVICE, &columns).await,
        DpsCommand::Show { name } => {
            let mut service = resource::show(context, SERVICE, name).await?;
            hide_secrets(&mut service, context.show_keys);
            context.output.record(&service)
        }
        DpsCommand::Delete { name } => resource::delete(context, SERVICE, name).await,
    }
}

async fn put(context: &Context, args: &DpsArgs, mut body: Value) -> Result<()> {
    if let Some(allocation) = &args.allocation {
        resource::set(&mut body, &["properties", "allocationPolicy"], json!(allocation));
    }
    if let Some(location) = &args.location {
        resource::set(&mut body, &["location"], json!(location));
    }
    context.output.record(&resource::put(context, SERVICE, &args.name, &body).await?)
}
