//! `muster policy`: shared access policies of hubs and provisioning services.

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};

use crate::context::{Context, NotFound, hide_secrets};
use crate::noun::resource::{self, HUB, Kind, SERVICE, items};

/// What to do with policies.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Create a policy; keys are generated
    Create(RightsArgs),
    /// List policies
    List(OwnerArgs),
    /// Show a policy
    Show(PolicyArgs),
    /// Change the rights of a policy
    Update(RightsArgs),
    /// Delete a policy; connections that used it end
    Delete(PolicyArgs),
}

/// Whose policies or certificates.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct OwnerArgs {
    /// A hub
    #[arg(long)]
    hub: Option<String>,
    /// A provisioning service
    #[arg(long)]
    dps: Option<String>,
}

impl OwnerArgs {
    /// Kind and name of the owner.
    pub fn owner(&self) -> (Kind, &str) {
        match (&self.hub, &self.dps) {
            (Some(hub), _) => (HUB, hub),
            (None, dps) => (SERVICE, dps.as_deref().unwrap_or_default()),
        }
    }
}

/// Which policy.
#[derive(Debug, Args)]
pub struct PolicyArgs {
    /// Name of the policy
    name: String,
    #[command(flatten)]
    owner: OwnerArgs,
}

/// A policy as it shall be.
#[derive(Debug, Args)]
pub struct RightsArgs {
    #[command(flatten)]
    policy: PolicyArgs,
    /// Rights, for example ServiceConnect or EnrollmentRead,EnrollmentWrite
    #[arg(long, value_delimiter = ',', required = true)]
    rights: Vec<String>,
}

const COLUMNS: [(&str, &str); 4] =
    [("Policy", "/keyName"), ("Rights", "/rights"), ("Primary key", "/primaryKey"), ("Secondary key", "/secondaryKey")];

/// Does it.
pub async fn run(command: &PolicyCommand, context: &Context) -> Result<()> {
    match command {
        PolicyCommand::List(owner) => {
            let mut policies = list(context, owner).await?;
            for policy in &mut policies {
                hide_secrets(policy, context.show_keys);
            }
            context.output.list(&policies, &COLUMNS)
        }
        PolicyCommand::Show(args) => show(context, args, context.show_keys).await,
        PolicyCommand::Create(args) => {
            edit(context, &args.policy.owner, |policies| {
                if policies.iter().any(|policy| is(policy, &args.policy.name)) {
                    bail!("the policy {} exists: `muster policy update` changes it", args.policy.name);
                }
                policies.push(json!({ "keyName": args.policy.name, "rights": args.rights.join(", ") }));
                Ok(())
            })
            .await?;
            show(context, &args.policy, true).await
        }
        PolicyCommand::Update(args) => {
            edit(context, &args.policy.owner, |policies| {
                let policy = policies.iter_mut().find(|policy| is(policy, &args.policy.name));
                let policy = policy.ok_or_else(|| missing(&args.policy.name))?;
                resource::set(policy, &["rights"], json!(args.rights.join(", ")));
                Ok(())
            })
            .await?;
            show(context, &args.policy, context.show_keys).await
        }
        PolicyCommand::Delete(args) => {
            edit(context, &args.owner, |policies| {
                let before = policies.len();
                policies.retain(|policy| !is(policy, &args.name));
                if policies.len() < before { Ok(()) } else { Err(missing(&args.name).into()) }
            })
            .await?;
            context.output.record(&json!({ "keyName": args.name, "deleted": true }))
        }
    }
}

fn is(policy: &Value, name: &str) -> bool {
    policy.get("keyName").and_then(Value::as_str).is_some_and(|found| found.eq_ignore_ascii_case(name))
}

async fn list(context: &Context, owner: &OwnerArgs) -> Result<Vec<Value>> {
    let (kind, name) = owner.owner();
    let answer = resource::send(context, kind, Method::POST, &format!("/{name}/listkeys"), (None, None)).await?;
    Ok(items(&answer).to_vec())
}

async fn show(context: &Context, args: &PolicyArgs, show_keys: bool) -> Result<()> {
    let (kind, owner) = args.owner.owner();
    let rest = format!("/{owner}/{}/{}/listkeys", kind.policies, args.name);
    let mut policy = resource::send(context, kind, Method::POST, &rest, (None, None)).await?;
    hide_secrets(&mut policy, show_keys);
    context.output.record(&policy)
}

/// The API knows no verb for one policy: the resource is put back with the whole set, if it is still of the version that
/// was read before the keys were.
async fn edit(context: &Context, owner: &OwnerArgs, change: impl FnOnce(&mut Vec<Value>) -> Result<()>) -> Result<()> {
    let (kind, name) = owner.owner();
    let mut document = resource::show(context, kind, name).await?;
    let mut policies = list(context, owner).await?;
    change(&mut policies)?;
    resource::set(&mut document, &["properties", "authorizationPolicies"], Value::Array(policies));
    resource::put(context, kind, name, &document).await.map(drop)
}

fn missing(name: &str) -> NotFound {
    NotFound(format!("there is no policy {name}"))
}
