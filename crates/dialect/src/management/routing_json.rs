//! Routes and endpoints of a hub as Resource Manager writes them (`contract/control-plane.md 4.2`), and the kinds of
//! endpoints that Azure has not beside them: `webhooks`, `natsSubjects`, `amqpAddresses`.
//!
//! No secret leaves here: each is shown as a mask, and a mask that comes back stands for the one that is kept. Start at
//! [`parse`] and [`show`].

use std::fmt::Display;

use domain::ids::{EndpointName, RouteName};
use domain::operation::ErrorKind;
use domain::route::{
    AmqpAddress, AmqpKind, Condition, Endpoint, Fallback, MASK, NatsSubject, OwnKind, Route, Routing, RoutingDraft,
    SecretText, Source, Target, Url, Webhook, WebhookMode,
};
use serde_json::{Map, Value, json};

use crate::error::Refused;
use crate::json::{InvalidJson, boolean, members, object, text};

/// Most members of an endpoint that nothing is known about.
const LABELS_MAX: usize = 16;
/// Longest of them.
const LABEL_BYTES_MAX: usize = 1_024;

fn invalid(member: &str, problem: impl Display) -> Refused {
    Refused::new(ErrorKind::InvalidArgument, format!("{member}: {problem}."))
}

fn items<'a>(document: &'a Value, member: &'static str) -> Result<&'a [Value], InvalidJson> {
    match document.get(member) {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(items)) => Ok(items),
        Some(_) => Err(InvalidJson::Type { member, wanted: "a list" }),
    }
}

fn wanted(document: &Value, member: &'static str) -> Result<String, InvalidJson> {
    text(document, member)?.ok_or(InvalidJson::Missing { member })
}

/// Reads `properties.routing`; `None` if there is none.
pub fn parse(properties: &Value) -> Result<Option<RoutingDraft>, Refused> {
    let Some(routing) = object(properties, "routing")? else { return Ok(None) };
    if !items(routing, "enrichments")?.is_empty() {
        return Err(invalid("enrichments", "this server adds none, so that only an empty list is taken"));
    }
    let (endpoints, unsaid) = parse_endpoints(object(routing, "endpoints")?.unwrap_or(&Value::Null))?;
    let routes = items(routing, "routes")?.iter().map(parse_route).collect::<Result<_, _>>()?;
    let fallback = match object(routing, "fallbackRoute")? {
        // Without one, messages that no route takes go nowhere, as the service has it.
        None => Fallback { enabled: false, ..Fallback::default() },
        Some(fallback) => parse_fallback(fallback)?,
    };
    Ok(Some(RoutingDraft { routing: Routing { endpoints, routes, fallback }, unsaid }))
}

fn parse_endpoints(lists: &Value) -> Result<(Vec<Endpoint>, Vec<OwnKind>), Refused> {
    for unserved in ["storageContainers", "cosmosDBSqlContainers"] {
        if !items(lists, unserved)?.is_empty() {
            return Err(invalid(unserved, "this server sends to none of them, so that only an empty list is taken"));
        }
    }
    let mut endpoints = Vec::new();
    for (member, kind) in AMQP_LISTS {
        for item in items(lists, member)? {
            endpoints.push(parse_amqp(item, kind)?);
        }
    }
    for item in items(lists, "webhooks")? {
        endpoints.push(parse_webhook(item)?);
    }
    for item in items(lists, "natsSubjects")? {
        endpoints.push(parse_nats(item)?);
    }
    let is_unsaid = |(member, kind): &(&str, OwnKind)| lists.get(*member).is_none().then_some(*kind);
    Ok((endpoints, OWN_LISTS.iter().filter_map(is_unsaid).collect()))
}

const AMQP_LISTS: [(&str, AmqpKind); 4] = [
    ("serviceBusQueues", AmqpKind::Queue),
    ("serviceBusTopics", AmqpKind::Topic),
    ("eventHubs", AmqpKind::EventHub),
    ("amqpAddresses", AmqpKind::Container),
];

const OWN_LISTS: [(&str, OwnKind); 3] =
    [("webhooks", OwnKind::Webhook), ("natsSubjects", OwnKind::Nats), ("amqpAddresses", OwnKind::Container)];

/// An endpoint with its name and what is said of it beyond `known`.
fn endpoint(item: &Value, target: Target, known: &[&str]) -> Result<Endpoint, Refused> {
    let name = wanted(item, "name")?;
    let name = EndpointName::parse(&name).map_err(|problem| invalid("name", problem))?;
    let mut labels = Map::new();
    for (member, value) in item.as_object().into_iter().flatten() {
        if known.contains(&member.as_str()) || member == "name" || value.is_null() {
            continue;
        }
        let is_label = value.as_str().is_some_and(|text| text.len() <= LABEL_BYTES_MAX);
        if !is_label || labels.len() == LABELS_MAX || member.len() > LABEL_BYTES_MAX {
            let what = format!("{member} of the endpoint {name}");
            return Err(invalid(&what, "is not known, and only a few short texts are kept"));
        }
        labels.insert(member.clone(), value.clone());
    }
    Ok(Endpoint { name, target, labels })
}

fn parse_amqp(item: &Value, kind: AmqpKind) -> Result<Endpoint, Refused> {
    if text(item, "authenticationType")?.is_some_and(|word| !word.eq_ignore_ascii_case("keyBased")) {
        return Err(invalid("authenticationType", "only keyBased is taken: this server has no identity of its own"));
    }
    let (connection, entity) = (wanted(item, "connectionString")?, text(item, "entityPath")?);
    let amqp = AmqpAddress::parse(kind, &connection, entity.as_deref());
    let amqp = amqp.map_err(|problem| invalid("connectionString", problem))?;
    let amqp = AmqpAddress { authority: text(item, "caCertificate")?, ..amqp };
    endpoint(item, Target::Amqp(amqp), &["connectionString", "entityPath", "caCertificate"])
}

fn parse_webhook(item: &Value) -> Result<Endpoint, Refused> {
    let url = Url::parse(&wanted(item, "url")?, &[("https", 443), ("http", 80)], "https://host/path")
        .map_err(|problem| invalid("url", problem))?;
    let mode = match text(item, "mode")?.as_deref() {
        None => WebhookMode::Single,
        Some(word) if word.eq_ignore_ascii_case("single") => WebhookMode::Single,
        Some(word) if word.eq_ignore_ascii_case("batch") => WebhookMode::Batch,
        Some(_) => return Err(invalid("mode", "neither single nor batch")),
    };
    let mut headers = Vec::new();
    for (name, value) in object(item, "headers")?.and_then(Value::as_object).into_iter().flatten() {
        let value = value.as_str().ok_or_else(|| invalid("headers", "the value of each is a text"))?;
        headers.push((name.clone(), SecretText::new(value)));
    }
    let webhook = Webhook { url, mode, headers, authority: text(item, "caCertificate")? };
    endpoint(item, Target::Webhook(webhook), &["url", "mode", "headers", "caCertificate"])
}

fn parse_nats(item: &Value) -> Result<Endpoint, Refused> {
    let url = Url::parse(&wanted(item, "url")?, &[("nats", 4222), ("tls", 4222)], "nats://host:4222, or tls://")
        .map_err(|problem| invalid("url", problem))?;
    let (user, password, token) = (text(item, "user")?, text(item, "password")?, text(item, "token")?);
    let secret = match (&user, password, token) {
        (None, None, token) => token,
        (Some(_), password, None) => password,
        _ => return Err(invalid("user", "a user comes with a password, and a token alone")),
    };
    let nats = NatsSubject {
        url,
        subject: wanted(item, "subject")?,
        stream: boolean(item, "jetStream")?.unwrap_or(false),
        user,
        secret: secret.map(SecretText::new),
        authority: text(item, "caCertificate")?,
    };
    let known = ["url", "subject", "jetStream", "user", "password", "token", "caCertificate"];
    endpoint(item, Target::Nats(nats), &known)
}

fn parse_source(item: &Value) -> Result<Source, Refused> {
    let word = wanted(item, "source")?;
    Source::parse(&word).ok_or_else(|| {
        let known = Source::ALL.map(Source::name).join(", ");
        invalid("source", format!("it is none of {known}"))
    })
}

/// Reads a route.
pub fn parse_route(item: &Value) -> Result<Route, Refused> {
    let name = wanted(item, "name")?;
    let name = RouteName::parse(&name).map_err(|problem| invalid("name of a route", problem))?;
    let written = text(item, "condition")?.unwrap_or_default();
    let condition =
        Condition::parse(&written).map_err(|problem| invalid(&format!("condition of the route {name}"), problem))?;
    Ok(Route {
        source: parse_source(item)?,
        condition,
        endpoint: parse_only_endpoint(item)?,
        enabled: boolean(item, "isEnabled")?.ok_or(InvalidJson::Missing { member: "isEnabled" })?,
        name,
    })
}

fn parse_only_endpoint(item: &Value) -> Result<EndpointName, Refused> {
    let [Value::String(name)] = items(item, "endpointNames")? else {
        return Err(invalid("endpointNames", "a list of exactly one name"));
    };
    EndpointName::parse(name).map_err(|problem| invalid("endpointNames", problem))
}

fn parse_fallback(item: &Value) -> Result<Fallback, Refused> {
    if text(item, "source")?.is_some_and(|source| Source::parse(&source) != Some(Source::DeviceMessages)) {
        return Err(invalid("source of the fallback route", "only DeviceMessages is taken"));
    }
    if text(item, "condition")?.is_some_and(|condition| !condition.trim().eq_ignore_ascii_case("true")) {
        return Err(invalid("condition of the fallback route", "only true is taken"));
    }
    let name = text(item, "name")?.unwrap_or_else(|| "$fallback".to_owned());
    Ok(Fallback {
        name: RouteName::parse(&name).map_err(|problem| invalid("name of the fallback route", problem))?,
        endpoint: parse_only_endpoint(item)?,
        enabled: boolean(item, "isEnabled")?.ok_or(InvalidJson::Missing { member: "isEnabled" })?,
    })
}

/// Shows routes and endpoints, secrets masked.
pub fn show(routing: &Routing) -> Value {
    let mut lists = Map::new();
    let empty = ["storageContainers", "cosmosDBSqlContainers"];
    let own = OWN_LISTS.iter().map(|(member, _)| *member);
    for member in AMQP_LISTS.iter().map(|(member, _)| *member).chain(empty).chain(own) {
        lists.insert(member.to_owned(), json!([]));
    }
    for endpoint in &routing.endpoints {
        let (member, shown) = show_endpoint(endpoint);
        if let Some(Value::Array(list)) = lists.get_mut(member) {
            list.push(Value::Object(shown));
        }
    }
    let fallback = &routing.fallback;
    json!({
        "endpoints": lists,
        "routes": routing.routes.iter().map(show_route).collect::<Vec<_>>(),
        "fallbackRoute": {
            "name": fallback.name.as_str(),
            "source": Source::DeviceMessages.name(),
            "condition": "true",
            "endpointNames": [fallback.endpoint.as_str()],
            "isEnabled": fallback.enabled,
        },
    })
}

/// Shows a route.
pub fn show_route(route: &Route) -> Value {
    json!({
        "name": route.name.as_str(),
        "source": route.source.name(),
        "condition": route.condition.text(),
        "endpointNames": [route.endpoint.as_str()],
        "isEnabled": route.enabled,
    })
}

/// An endpoint, and the list that it stands in.
fn show_endpoint(endpoint: &Endpoint) -> (&'static str, Map<String, Value>) {
    let masked = |secret: &Option<SecretText>| secret.as_ref().map(|_| MASK);
    let (list, shown) = match &endpoint.target {
        Target::Webhook(webhook) => {
            let headers: Map<String, Value> =
                webhook.headers.iter().map(|(name, _)| (name.clone(), Value::from(MASK))).collect();
            let mode = match webhook.mode {
                WebhookMode::Single => "single",
                WebhookMode::Batch => "batch",
            };
            let shown = members([
                ("url", json!(webhook.url.to_string())),
                ("mode", json!(mode)),
                ("headers", Value::Object(headers)),
                ("caCertificate", json!(webhook.authority)),
            ]);
            ("webhooks", shown)
        }
        Target::Nats(nats) => {
            let url = nats.url.to_string();
            let secret = if nats.user.is_some() { "password" } else { "token" };
            let shown = members([
                ("url", json!(url.trim_end_matches('/'))),
                ("subject", json!(nats.subject)),
                ("jetStream", json!(nats.stream)),
                ("user", json!(nats.user)),
                (secret, json!(masked(&nats.secret))),
                ("caCertificate", json!(nats.authority)),
            ]);
            ("natsSubjects", shown)
        }
        Target::Amqp(amqp) => {
            let list = AMQP_LISTS.iter().find(|(_, kind)| *kind == amqp.kind).map_or("amqpAddresses", |(list, _)| list);
            let entity = (amqp.kind != AmqpKind::Container).then_some(&amqp.address);
            let shown = members([
                ("connectionString", json!(amqp.masked())),
                ("entityPath", json!(entity)),
                ("caCertificate", json!(amqp.authority)),
            ]);
            (list, shown)
        }
    };
    let mut whole = endpoint.labels.clone();
    whole.insert("name".to_owned(), json!(endpoint.name.as_str()));
    whole.extend(shown);
    (list, whole)
}

#[cfg(test)]
mod tests;
