//! `muster linked-hub`: the hubs that a provisioning service may assign devices to.

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::context::{Context, NotFound, hide_secrets};
use crate::noun::resource::{self, HUB, SERVICE, primary_key};

/// The hub's policy that links are made with.
const LINK_POLICY: &str = "iothubowner";

/// What to do with links.
#[derive(Debug, Subcommand)]
pub enum LinkedHubCommand {
    /// Link a hub of this deployment
    Create(LinkArgs),
    /// List linked hubs
    List(ServiceArgs),
    /// Show a link
    Show(LinkName),
    /// Change weight or availability of a link
    Update(LinkArgs),
    /// Unlink a hub; devices assigned to it stay
    Delete(LinkName),
}

/// Whose links.
#[derive(Debug, Args)]
pub struct ServiceArgs {
    /// Provisioning service
    #[arg(long)]
    dps: String,
}

/// Which link.
#[derive(Debug, Args)]
pub struct LinkName {
    #[command(flatten)]
    service: ServiceArgs,
    /// Name of the hub
    #[arg(long)]
    hub: String,
}

/// A link as it shall be.
#[derive(Debug, Args)]
pub struct LinkArgs {
    #[command(flatten)]
    name: LinkName,
    /// Share of the devices, 1 to 1000
    #[arg(long)]
    weight: Option<u32>,
    /// Whether the allocation policy may choose it
    #[arg(long)]
    allocate: Option<bool>,
}

/// Does it.
pub async fn run(command: &LinkedHubCommand, context: &Context) -> Result<()> {
    match command {
        LinkedHubCommand::Create(args) => create(context, args).await,
        LinkedHubCommand::List(args) => {
            let mut service = resource::show(context, SERVICE, &args.dps).await?;
            hide_secrets(&mut service, context.show_keys);
            context.output.list(
                links(&service),
                &[
                    ("Hub", "/name"),
                    ("Location", "/location"),
                    ("Weight", "/allocationWeight"),
                    ("Allocates", "/applyAllocationPolicy"),
                ],
            )
        }
        LinkedHubCommand::Show(name) => {
            let host = host_name(context, &name.hub).await?;
            let service = resource::show(context, SERVICE, &name.service.dps).await?;
            let link = links(&service).iter().find(|link| is(link, &host)).ok_or_else(not_linked)?;
            let mut link = link.clone();
            hide_secrets(&mut link, context.show_keys);
            context.output.record(&link)
        }
        LinkedHubCommand::Update(args) => {
            let host = host_name(context, &args.name.hub).await?;
            let mut changed = None;
            edit(context, &args.name.service.dps, |links| {
                let link = links.iter_mut().find(|link| is(link, &host)).ok_or_else(not_linked)?;
                apply(link, args);
                changed = Some(link.clone());
                Ok(())
            })
            .await?;
            context.output.record(&changed.unwrap_or_default())
        }
        LinkedHubCommand::Delete(name) => {
            let host = host_name(context, &name.hub).await?;
            edit(context, &name.service.dps, |links| {
                let before = links.len();
                links.retain(|link| !is(link, &host));
                if links.len() == before {
                    return Err(not_linked().into());
                }
                Ok(())
            })
            .await?;
            context.output.record(&json!({ "name": host, "deleted": true }))
        }
    }
}

async fn create(context: &Context, args: &LinkArgs) -> Result<()> {
    let host = host_name(context, &args.name.hub).await?;
    link(context, &args.name.service.dps, (&args.name.hub, &host), |link| apply(link, args)).await?;
    context.output.record(&json!({ "name": host, "linked": true }))
}

/// Links the hub of that name and host name; `shape` may say more about the link.
pub async fn link(
    context: &Context,
    dps: &str,
    (hub, host): (&str, &str),
    shape: impl FnOnce(&mut Value),
) -> Result<()> {
    let key = primary_key(context, HUB, hub, LINK_POLICY).await?;
    let mut link = json!({
        "connectionString": format!("HostName={host};SharedAccessKeyName={LINK_POLICY};SharedAccessKey={key}"),
        "location": resource::LOCATION,
    });
    shape(&mut link);
    edit(context, dps, |links| {
        if links.iter().any(|link| is(link, host)) {
            bail!("the hub is linked already: `muster linked-hub update` changes the link");
        }
        links.push(link);
        Ok(())
    })
    .await
}

fn apply(link: &mut Value, args: &LinkArgs) {
    if let Some(weight) = args.weight {
        resource::set(link, &["allocationWeight"], json!(weight));
    }
    if let Some(allocate) = args.allocate {
        resource::set(link, &["applyAllocationPolicy"], json!(allocate));
    }
}

/// The API knows no verb for one link: the service is put back with the whole set.
async fn edit(context: &Context, dps: &str, change: impl FnOnce(&mut Vec<Value>) -> Result<()>) -> Result<()> {
    let mut document = resource::show(context, SERVICE, dps).await?;
    let mut links = links(&document).to_vec();
    change(&mut links)?;
    resource::set(&mut document, &["properties", "iotHubs"], Value::Array(links));
    resource::put(context, SERVICE, dps, &document).await.map(drop)
}

async fn host_name(context: &Context, hub: &str) -> Result<String> {
    let hub = resource::show(context, HUB, hub).await?;
    let host = hub.pointer("/properties/hostName").and_then(Value::as_str);
    Ok(host.context("the hub has no host name")?.to_owned())
}

fn not_linked() -> NotFound {
    NotFound("the hub is not linked".to_owned())
}

fn links(service: &Value) -> &[Value] {
    service.pointer("/properties/iotHubs").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn is(link: &Value, host: &str) -> bool {
    link.get("name").and_then(Value::as_str).is_some_and(|name| name.eq_ignore_ascii_case(host))
}
