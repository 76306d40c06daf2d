//! Configurations of many twins as a hub's service API asks for them and shows them (`contract/hub-service.md 10`).
//!
//! Reads only shapes; what may be put where is said in `domain::configuration`. Start at [`decode`].

use std::collections::BTreeMap;

use bytes::Bytes;
use domain::configuration::{AgentQueries, Content, Draft};
use domain::ids::ConfigurationId;
use domain::operation::ErrorKind;
use domain::operation::configuration::{Answer, Ask, Counted, Reported};
use domain::query::document::moment;
use http::{Method, Request, Response, StatusCode};
use serde_json::{Map, Value, json};

use super::registry_json::{self, invalid, parse_name};
use crate::error::Refused;
use crate::http::{Target, empty, is, json as respond, precondition};
use crate::json::{self, InvalidJson, object, text};

/// Most configurations of a list, and as many as are given if nothing else is asked for.
const LIST_MAX: usize = 1_000;
/// The version of the form, if none is named.
const SCHEMA_VERSION: &str = "1.0";
/// The path of tests, which no configuration is asked for at by POST.
const TEST: &str = "testQueries";

/// Reads a request for what is below `/configurations`.
pub(super) fn decode(
    request: &Request<Bytes>,
    method: &Method,
    target: &Target,
    rest: &[&str],
) -> Result<Ask, Refused> {
    let precondition = || precondition(request.headers(), registry_json::parse_etag);
    match (method, rest) {
        (&Method::GET, []) => Ok(Ask::List { limit: parse_top(target)? }),
        (&Method::POST, [word]) if is(word, TEST) => parse_test(&json::parse(request.body())?),
        (&Method::GET, [id]) => Ok(Ask::Find(parse_id(id)?)),
        (&Method::DELETE, [id]) => Ok(Ask::Delete { id: parse_id(id)?, precondition: precondition() }),
        (&Method::PUT, [id]) => {
            let draft = parse_draft(parse_id(id)?, &json::parse(request.body())?)?;
            Ok(Ask::Put { draft: Box::new(draft), precondition: precondition() })
        }
        (_, [] | [_]) => Err(Refused::wrong_method()),
        _ => Err(Refused::nothing_here()),
    }
}

/// Reads content that is put into the twins of one device.
pub(super) fn decode_apply(request: &Request<Bytes>, method: &Method, device: &str) -> Result<Ask, Refused> {
    let device = parse_name(device, None)?.device;
    if *method != Method::POST {
        return Err(Refused::wrong_method());
    }
    let body = json::parse(request.body())?;
    Ok(Ask::Apply { device, content: Box::new(parse_content(&body)?) })
}

/// Reads the name of a configuration.
pub(super) fn parse_id(text: &str) -> Result<ConfigurationId, Refused> {
    ConfigurationId::parse(text).map_err(|fault| invalid(format!("The configuration ID: {fault}.")))
}

fn parse_top(target: &Target) -> Result<usize, Refused> {
    match target.parameter("top").map(str::parse::<usize>) {
        None => Ok(LIST_MAX),
        Some(Ok(top)) if top > 0 => Ok(top.min(LIST_MAX)),
        Some(_) => Err(invalid("top is no number from 1 to 1000.")),
    }
}

/// Reads a configuration. Members that the hub writes are ignored, because programs send back what they read.
pub(super) fn parse_draft(id: ConfigurationId, body: &Value) -> Result<Draft, Refused> {
    if !body.is_object() {
        return Err(InvalidJson::Type { member: "the body", wanted: "an object" }.into());
    }
    if text(body, "id")?.is_some_and(|named| named != id.as_str()) {
        return Err(invalid("The ID of the body is not that of the path."));
    }
    let Some(content) = object(body, "content")? else {
        return Err(Refused::new(ErrorKind::InvalidContent, "The configuration has no content."));
    };
    let priority = match body.get("priority") {
        None | Some(Value::Null) => 0,
        Some(Value::Number(number)) if number.is_i64() || number.is_u64() => {
            let priority = number.as_i64().and_then(|priority| i32::try_from(priority).ok());
            priority.ok_or_else(|| invalid("priority is out of its range."))?
        }
        Some(_) => return Err(InvalidJson::Type { member: "priority", wanted: "a whole number" }.into()),
    };
    let metrics = object(body, "metrics")?;
    Ok(Draft {
        id,
        schema_version: text(body, "schemaVersion")?.unwrap_or_else(|| SCHEMA_VERSION.to_owned()),
        labels: labels(body)?,
        content: parse_content(content)?,
        target: text(body, "targetCondition")?.unwrap_or_default(),
        priority,
        metrics: metrics.map(|metrics| texts(metrics, "queries")).transpose()?.unwrap_or_default(),
    })
}

fn labels(body: &Value) -> Result<Map<String, Value>, Refused> {
    let labels = texts(body, "labels")?;
    Ok(labels.into_iter().map(|(name, label)| (name, Value::String(label))).collect())
}

/// A member whose own members are texts; absent and null are none.
fn texts(body: &Value, member: &'static str) -> Result<BTreeMap<String, String>, Refused> {
    let mut found = BTreeMap::new();
    for (name, value) in object(body, member)?.and_then(Value::as_object).into_iter().flatten() {
        match value {
            Value::String(text) => drop(found.insert(name.clone(), text.clone())),
            Value::Null => {}
            _ => return Err(InvalidJson::Type { member, wanted: "an object of strings" }.into()),
        }
    }
    Ok(found)
}

fn parse_content(body: &Value) -> Result<Content, Refused> {
    if !body.is_object() {
        return Err(InvalidJson::Type { member: "the content", wanted: "an object" }.into());
    }
    let part = |member| Ok::<_, Refused>(object(body, member)?.and_then(Value::as_object).cloned());
    let mut modules = BTreeMap::new();
    let named = part("modulesContent")?;
    for (name, content) in named.iter().flatten() {
        let Some(content) = content.as_object() else {
            return Err(InvalidJson::Type { member: "modulesContent", wanted: "an object of objects" }.into());
        };
        modules.insert(name.clone(), content.clone());
    }
    // Clients write an empty object for what they do not mean.
    let meant = |part: Option<Map<String, Value>>| part.filter(|pieces| !pieces.is_empty());
    Ok(Content {
        device: meant(part("deviceContent")?),
        modules: (!modules.is_empty()).then_some(modules),
        module: meant(part("moduleContent")?),
    })
}

fn parse_test(body: &Value) -> Result<Ask, Refused> {
    if !body.is_object() {
        return Err(InvalidJson::Type { member: "the body", wanted: "an object" }.into());
    }
    Ok(Ask::Test {
        target: text(body, "targetCondition")?.unwrap_or_default(),
        metrics: texts(body, "customMetricQueries")?,
    })
}

/// Shows what was answered.
pub(super) fn encode(answer: &Answer) -> Response<Bytes> {
    match answer {
        Answer::Configuration(counted) => respond(StatusCode::OK, &show(counted)),
        Answer::Configurations(all) => respond(StatusCode::OK, &all.iter().map(show).collect()),
        Answer::Deleted | Answer::Applied => empty(StatusCode::NO_CONTENT),
        Answer::Tested { target, metrics } => {
            let body = json!({ "targetConditionError": target, "customMetricQueryErrors": metrics });
            respond(StatusCode::OK, &body)
        }
    }
}

/// Shows a configuration.
pub(super) fn show(Counted { configuration, metrics, reported }: &Counted) -> Value {
    let draft = &configuration.draft;
    let id = &draft.id;
    let state = |states: &str| format!("SELECT deviceId FROM devices WHERE configurations.[[{id}]].status {states}");
    let mut system = vec![
        ("targetedCount", configuration.targeted, state("IN ['Targeted', 'Applied']")),
        ("appliedCount", configuration.applied, state("= 'Applied'")),
    ];
    if let Some(Reported { successful, failed }) = *reported {
        let queries = AgentQueries::of(id);
        system.push(("reportedSuccessfulCount", successful, queries.successful));
        system.push(("reportedFailedCount", failed, queries.failed));
    }
    let results: Map<String, Value> = system.iter().map(|(name, count, _)| ((*name).into(), (*count).into())).collect();
    let queries: Map<String, Value> = system.into_iter().map(|(name, _, text)| (name.into(), text.into())).collect();
    json!({
        "id": id,
        "schemaVersion": draft.schema_version,
        "labels": draft.labels,
        "content": {
            "modulesContent": draft.content.modules,
            "moduleContent": draft.content.module,
            "deviceContent": draft.content.device,
        },
        "targetCondition": draft.target,
        "createdTimeUtc": moment(configuration.created_at),
        "lastUpdatedTimeUtc": moment(configuration.updated_at),
        "priority": draft.priority,
        "systemMetrics": { "results": results, "queries": queries },
        "metrics": { "results": metrics, "queries": draft.metrics },
        "etag": registry_json::etag_text(configuration.etag),
    })
}
