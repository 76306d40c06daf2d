//! `muster route`: which messages of a hub go to which endpoints.

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};

use crate::context::{Context, NotFound, parse_json};
use crate::noun::resource::{self, HUB};

/// What to do with routes.
#[derive(Debug, Subcommand)]
pub enum RouteCommand {
    /// Create a route
    Create(CreateArgs),
    /// List routes, the fallback last
    List(HubArgs),
    /// Show a route
    Show(RouteName),
    /// Delete a route
    Delete(RouteName),
    /// Say which routes take a message, or whether a condition does
    Test(TestArgs),
}

/// Whose routes or endpoints.
#[derive(Debug, Args)]
pub struct HubArgs {
    /// Hub
    #[arg(long)]
    pub hub: String,
}

/// Which route.
#[derive(Debug, Args)]
pub struct RouteName {
    /// Name of the route
    name: String,
    #[command(flatten)]
    hub: HubArgs,
}

/// A route as it shall be.
#[derive(Debug, Args)]
pub struct CreateArgs {
    #[command(flatten)]
    route: RouteName,
    /// Endpoint that messages go to: events, or one made by `muster endpoint create`
    #[arg(long)]
    endpoint: String,
    /// Which messages, as in "level = 'critical' AND $body.temperature > 20" [default: all]
    #[arg(long, default_value = "true", hide_default_value = true)]
    condition: String,
    /// What it looks at, such as `DeviceMessages` or `TwinChangeEvents`
    #[arg(long, default_value = "DeviceMessages")]
    source: String,
    /// Whether it takes anything yet
    #[arg(long)]
    disabled: bool,
}

/// A message to try routes with.
#[derive(Debug, Args)]
pub struct TestArgs {
    #[command(flatten)]
    hub: HubArgs,
    /// A condition to try [default: the routes of the hub]
    #[arg(long)]
    condition: Option<String>,
    /// Body of the message
    #[arg(long, default_value = "")]
    body: String,
    /// Application property, as in level=critical; may be repeated
    #[arg(long = "property", value_name = "NAME=VALUE")]
    properties: Vec<String>,
    /// System property, as in contentType=application/json; may be repeated
    #[arg(long = "system", value_name = "NAME=VALUE")]
    system: Vec<String>,
    /// Twin of the sender, as JSON or @FILE
    #[arg(long)]
    twin: Option<String>,
}

const COLUMNS: [(&str, &str); 5] = [
    ("Route", "/name"),
    ("Source", "/source"),
    ("Condition", "/condition"),
    ("Endpoint", "/endpointNames/0"),
    ("Enabled", "/isEnabled"),
];

/// Does it.
pub async fn run(command: &RouteCommand, context: &Context) -> Result<()> {
    match command {
        RouteCommand::Create(args) => create(context, args).await,
        RouteCommand::List(args) => {
            let routing = routing(&resource::show(context, HUB, &args.hub).await?)?;
            let mut routes = items(&routing, "routes").to_vec();
            routes.extend(routing.get("fallbackRoute").cloned());
            context.output.list(&routes, &COLUMNS)
        }
        RouteCommand::Show(args) => {
            let routing = routing(&resource::show(context, HUB, &args.hub.hub).await?)?;
            let routes = items(&routing, "routes").iter().chain(routing.get("fallbackRoute"));
            let found = routes.into_iter().find(|route| is_called(route, &args.name));
            context.output.record(found.ok_or_else(|| missing(&args.name))?)
        }
        RouteCommand::Delete(args) => {
            edit(context, &args.hub.hub, |routing| {
                let routes = list_of(routing, &["routes"])?;
                let before = routes.len();
                routes.retain(|route| !is_called(route, &args.name));
                if routes.len() < before { Ok(()) } else { Err(missing(&args.name).into()) }
            })
            .await?;
            context.output.record(&json!({ "name": args.name, "deleted": true }))
        }
        RouteCommand::Test(args) => test(context, args).await,
    }
}

async fn create(context: &Context, args: &CreateArgs) -> Result<()> {
    let RouteName { name, hub } = &args.route;
    let route = json!({
        "name": name,
        "source": args.source,
        "condition": args.condition,
        "endpointNames": [args.endpoint],
        "isEnabled": !args.disabled,
    });
    let put = edit(context, &hub.hub, |routing| {
        let routes = list_of(routing, &["routes"])?;
        if routes.iter().any(|route| is_called(route, name)) {
            bail!("the route {name} exists");
        }
        routes.push(route);
        Ok(())
    })
    .await?;
    let made = items(&put, "routes").iter().find(|route| is_called(route, name));
    context.output.record(made.context("the hub does not show the route")?)
}

async fn test(context: &Context, args: &TestArgs) -> Result<()> {
    let mut asked = json!({ "message": {
        "body": args.body, "appProperties": pairs(&args.properties)?, "systemProperties": pairs(&args.system)?,
    } });
    if let Some(twin) = &args.twin {
        resource::set(&mut asked, &["twin"], parse_json("twin", twin)?);
    }
    let hub = &args.hub.hub;
    let Some(condition) = &args.condition else {
        let path = format!("/{hub}/routing/routes/$testall");
        let answer = resource::send(context, HUB, Method::POST, &path, (Some(&asked), None)).await?;
        let taking: Vec<Value> =
            items(&answer, "routes").iter().filter_map(|taking| taking.get("properties").cloned()).collect();
        return context.output.list(&taking, &COLUMNS);
    };
    let route = json!({
        "name": "test", "source": "DeviceMessages", "condition": condition, "endpointNames": ["events"], "isEnabled": true,
    });
    resource::set(&mut asked, &["route"], route);
    let path = format!("/{hub}/routing/routes/$testnew");
    let answer = resource::send(context, HUB, Method::POST, &path, (Some(&asked), None)).await?;
    let error = answer.pointer("/details/compilationErrors/0");
    match error.and_then(|error| Some((error.get("message")?.as_str()?, error.pointer("/location/start/column")?))) {
        Some((message, column)) => bail!("the condition cannot be understood: at character {column}: {message}"),
        None => context.output.record(&answer),
    }
}

fn pairs(written: &[String]) -> Result<Value> {
    let mut pairs = json!({});
    for pair in written {
        let (name, value) = pair.split_once('=').with_context(|| format!("{pair:?} is not NAME=VALUE"))?;
        resource::set(&mut pairs, &[name], json!(value));
    }
    Ok(pairs)
}

/// The routing of a hub.
pub fn routing(hub: &Value) -> Result<Value> {
    Ok(hub.pointer("/properties/routing").context("the hub has no routing")?.clone())
}

/// A list of a document; empty if it has none.
pub fn items<'a>(document: &'a Value, list: &str) -> &'a [Value] {
    document.get(list).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Whether a route or endpoint has this name.
pub fn is_called(item: &Value, name: &str) -> bool {
    item.get("name").and_then(Value::as_str).is_some_and(|found| found.eq_ignore_ascii_case(name))
}

/// The list at `path`, to be changed.
pub fn list_of<'a>(document: &'a mut Value, path: &[&str]) -> Result<&'a mut Vec<Value>> {
    let found = path.iter().try_fold(document, |document, name| document.get_mut(*name));
    found.and_then(Value::as_array_mut).context("the hub's routing is not as expected")
}

/// The API knows no verb for one route: the hub is put back with all, if it is still of the version that was read. Gives
/// the routing as it is then.
pub async fn edit(context: &Context, hub: &str, change: impl FnOnce(&mut Value) -> Result<()>) -> Result<Value> {
    let mut document = resource::show(context, HUB, hub).await?;
    let mut changed = routing(&document)?;
    change(&mut changed)?;
    resource::set(&mut document, &["properties", "routing"], changed);
    routing(&resource::put(context, HUB, hub, &document).await?)
}

fn missing(name: &str) -> NotFound {
    NotFound(format!("there is no route {name}"))
}
