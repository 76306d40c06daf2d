//! `muster endpoint`: where a hub sends messages, how these endpoints are, and what they would not take.

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use client::management::{ManagementClient, ManagementRequest};
use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};

use crate::context::{Context, NotFound, hide_secrets, manage};
use crate::noun::resource::{self, HUB, set};
use crate::noun::route::{HubArgs, edit, is_called, items, list_of, routing};

/// The lists of endpoints that a hub has.
const LISTS: [(&str, &str); 6] = [
    ("webhooks", "webhook"),
    ("natsSubjects", "nats"),
    ("amqpAddresses", "amqp"),
    ("eventHubs", "event hub"),
    ("serviceBusQueues", "service bus queue"),
    ("serviceBusTopics", "service bus topic"),
];

/// What to do with endpoints.
#[derive(Debug, Subcommand)]
pub enum EndpointCommand {
    /// Create an endpoint; routes lead to it by its name
    #[command(subcommand)]
    Create(CreateCommand),
    /// List endpoints
    List(HubArgs),
    /// Show an endpoint
    Show(EndpointName),
    /// Delete an endpoint that no route leads to, with all it would not take
    Delete(EndpointName),
    /// Say how the endpoints of a hub are
    Health(HubArgs),
    /// List messages that an endpoint would not take
    DeadLetters(LettersArgs),
    /// Send again all that an endpoint would not take
    Replay(EndpointName),
    /// Forget all that an endpoint would not take
    Purge(EndpointName),
}

/// Which kind to create.
#[derive(Debug, Subcommand)]
pub enum CreateCommand {
    /// A server that takes CloudEvents by POST
    Webhook(WebhookArgs),
    /// A subject of a NATS server
    Nats(NatsArgs),
    /// An event hub, a queue or a topic, or an address of any AMQP 1.0 container
    Amqp(AmqpArgs),
}

/// Which endpoint.
#[derive(Debug, Args)]
pub struct EndpointName {
    /// Name of the endpoint
    name: String,
    #[command(flatten)]
    hub: HubArgs,
}

/// Which dead letters.
#[derive(Debug, Args)]
pub struct LettersArgs {
    #[command(flatten)]
    endpoint: EndpointName,
    /// Messages at most
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
}

/// A webhook.
#[derive(Debug, Args)]
pub struct WebhookArgs {
    #[command(flatten)]
    endpoint: EndpointName,
    /// Where, as in <https://example.org/in>
    #[arg(long)]
    url: String,
    /// Whether a request may have several events
    #[arg(long)]
    batch: bool,
    /// Header to send, as in "Authorization: Bearer …"; its value is kept secret; may be repeated
    #[arg(long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    #[command(flatten)]
    trust: TrustArgs,
}

/// A subject.
#[derive(Debug, Args)]
pub struct NatsArgs {
    #[command(flatten)]
    endpoint: EndpointName,
    /// Where, as in <nats://localhost:4222> or <tls://localhost:4222>
    #[arg(long)]
    url: String,
    /// Subject
    #[arg(long)]
    subject: String,
    /// Whether a stream has to keep each message
    #[arg(long)]
    jet_stream: bool,
    /// User
    #[arg(long, requires = "password")]
    user: Option<String>,
    /// Password of the user
    #[arg(long, requires = "user")]
    password: Option<String>,
    /// Token, for a server without users
    #[arg(long, conflicts_with = "user")]
    token: Option<String>,
    #[command(flatten)]
    trust: TrustArgs,
}

/// An address.
#[derive(Debug, Args)]
pub struct AmqpArgs {
    #[command(flatten)]
    endpoint: EndpointName,
    /// As in "Endpoint=sb://…;EntityPath=…" of an event hub, or <amqps://user:password@host/address>
    #[arg(long)]
    connection_string: String,
    #[command(flatten)]
    trust: TrustArgs,
}

/// Whom to trust.
#[derive(Debug, Args)]
pub struct TrustArgs {
    /// PEM file of the certificates that vouch for the server [default: those that the system trusts]
    #[arg(long, value_name = "FILE")]
    ca: Option<std::path::PathBuf>,
}

impl TrustArgs {
    fn apply(&self, endpoint: &mut Value) -> Result<()> {
        if let Some(file) = &self.ca {
            let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
            set(endpoint, &["caCertificate"], json!(text));
        }
        Ok(())
    }
}

/// Does it.
pub async fn run(command: &EndpointCommand, context: &Context) -> Result<()> {
    match command {
        EndpointCommand::Create(command) => create(context, command).await,
        EndpointCommand::List(args) => {
            let routing = routing(&resource::show(context, HUB, &args.hub).await?)?;
            let columns = [("Endpoint", "/name"), ("Kind", "/kind"), ("URL", "/url"), ("Address", "/connectionString")];
            context.output.list(&all(&routing), &columns)
        }
        EndpointCommand::Show(args) => show(context, args).await,
        EndpointCommand::Delete(args) => {
            edit(context, &args.hub.hub, |routing| {
                for (list, _) in LISTS {
                    let endpoints = list_of(routing, &["endpoints", list])?;
                    let before = endpoints.len();
                    endpoints.retain(|endpoint| !is_called(endpoint, &args.name));
                    if endpoints.len() < before {
                        return Ok(());
                    }
                }
                Err(missing(&args.name).into())
            })
            .await?;
            context.output.record(&json!({ "name": args.name, "deleted": true }))
        }
        EndpointCommand::Health(args) => {
            let path = format!("/{}/routingEndpointsHealth", args.hub);
            let answer = resource::send(context, HUB, Method::GET, &path, (None, None)).await?;
            let columns = [
                ("Endpoint", "/endpointId"),
                ("Health", "/healthStatus"),
                ("Dead letters", "/deadLetterCount"),
                ("Last error", "/lastKnownError"),
                ("Last success", "/lastSuccessfulSendAttemptTime"),
            ];
            context.output.list(resource::items(&answer), &columns)
        }
        EndpointCommand::DeadLetters(args) => {
            let answer = letters(context, Method::GET, &args.endpoint, &format!("?limit={}", args.limit)).await?;
            let columns = [
                ("Device", "/message/deviceId"),
                ("Sequence", "/message/sequenceNumber"),
                ("Given up", "/givenUpTime"),
                ("Attempts", "/attempts"),
                ("Reason", "/reason"),
            ];
            context.output.list(resource::items(&answer), &columns)
        }
        EndpointCommand::Replay(args) => context.output.record(&letters(context, Method::POST, args, "/replay").await?),
        EndpointCommand::Purge(args) => context.output.record(&letters(context, Method::DELETE, args, "").await?),
    }
}

async fn create(context: &Context, command: &CreateCommand) -> Result<()> {
    let (list, mut endpoint, (args, trust)) = match command {
        CreateCommand::Webhook(args) => {
            let mut headers = Map::new();
            for header in &args.headers {
                let (name, value) = header.split_once(':').with_context(|| format!("{header:?} is not NAME: VALUE"))?;
                headers.insert(name.trim().to_owned(), json!(value.trim()));
            }
            let mode = if args.batch { "batch" } else { "single" };
            let endpoint = json!({ "url": args.url, "mode": mode, "headers": headers });
            ("webhooks", endpoint, (&args.endpoint, &args.trust))
        }
        CreateCommand::Nats(args) => {
            let endpoint = json!({
                "url": args.url, "subject": args.subject, "jetStream": args.jet_stream, "user": args.user,
                "password": args.password, "token": args.token,
            });
            ("natsSubjects", endpoint, (&args.endpoint, &args.trust))
        }
        CreateCommand::Amqp(args) => {
            let is_parts = args.connection_string.trim_start().to_ascii_lowercase().starts_with("endpoint=");
            let list = if is_parts { "eventHubs" } else { "amqpAddresses" };
            (list, json!({ "connectionString": args.connection_string }), (&args.endpoint, &args.trust))
        }
    };
    set(&mut endpoint, &["name"], json!(args.name));
    trust.apply(&mut endpoint)?;
    edit(context, &args.hub.hub, |routing| {
        if all(routing).iter().any(|known| is_called(known, &args.name)) {
            bail!("the endpoint {} exists", args.name);
        }
        list_of(routing, &["endpoints", list])?.push(endpoint);
        Ok(())
    })
    .await?;
    show(context, args).await
}

async fn show(context: &Context, args: &EndpointName) -> Result<()> {
    let routing = routing(&resource::show(context, HUB, &args.hub.hub).await?)?;
    let mut found = all(&routing).into_iter().find(|endpoint| is_called(endpoint, &args.name));
    hide_secrets(found.as_mut().unwrap_or(&mut Value::Null), context.show_keys);
    context.output.record(&found.ok_or_else(|| missing(&args.name))?)
}

/// All endpoints, each with its kind.
fn all(routing: &Value) -> Vec<Value> {
    let lists = routing.get("endpoints").unwrap_or(&Value::Null);
    let with_kind = |(list, kind): (&str, &str)| {
        let endpoints = items(lists, list).iter().cloned().map(move |mut endpoint| {
            set(&mut endpoint, &["kind"], json!(kind));
            endpoint
        });
        endpoints.collect::<Vec<_>>()
    };
    LISTS.into_iter().flat_map(with_kind).collect()
}

/// Asks something about what an endpoint would not take.
async fn letters(context: &Context, method: Method, endpoint: &EndpointName, rest: &str) -> Result<Value> {
    let client = context.management().await?;
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let (hub, name) = (encoded(&endpoint.hub.hub), encoded(&endpoint.name));
    let path = format!("/muster/v1/hubs/{hub}/endpoints/{name}/deadLetters{rest}");
    let api_version = ManagementClient::HUB_API_VERSION;
    let request = ManagementRequest { method, path, api_version, if_match: None, body: None };
    manage(&client, "the dead letters", request).await
}

fn missing(name: &str) -> NotFound {
    NotFound(format!("there is no endpoint {name}"))
}
