//! Trying routes and the health of endpoints in Resource Manager's form (`contract/control-plane.md 5`), and, below
//! `/muster/v1/hubs/{hub}/endpoints/{endpoint}/deadLetters`, what an endpoint would not take.
//!
//! Names of the second part are Muster's own, and part of its interface. Start at [`decode`] and [`decode_letters`].

use bytes::Bytes;
use domain::ids::{EndpointName, HubName};
use domain::message::{Draft, SystemProperties};
use domain::operation::resource::Place;
use domain::operation::route::{Answer, Ask, DeadLetter, EndpointHealth, HealthStatus, Sample};
use domain::operation::{ErrorKind, Failure, Operation, Reply};
use domain::query::InvalidQuery;
use domain::route::Source;
use http::{Method, Request, Response, StatusCode};
use serde_json::{Map, Value, json};

use super::routing_json::show_route;
use super::{internal, message_json, refuse};
use crate::error::Refused;
use crate::http::{Target, is, json as respond};
use crate::hub::registry_json::parse_name;
use crate::json::{self, InvalidJson, members, object, text};
use crate::time;

/// Dead letters of a list if nobody says how many.
const LIST_DEFAULT: usize = 100;
/// Most dead letters of a list.
const LIST_MAX: usize = 1_000;
/// Whose a message is that is tried and does not say.
const SAMPLE_DEVICE: &str = "device";

/// Whether what stands behind a hub in a path belongs to this dialect.
pub fn owns(rest: &[&str]) -> bool {
    match rest {
        [word] => is(word, "routingEndpointsHealth"),
        [first, second, _] => is(first, "routing") && is(second, "routes"),
        _ => false,
    }
}

/// Turns a request at a hub into an operation, or into its refusal; `rest` stands behind the hub in the path.
pub fn decode(request: &Request<Bytes>, place: Place, hub: HubName, rest: &[&str]) -> Result<Operation, Refused> {
    let (method, ask) = match rest {
        [word] if is(word, "routingEndpointsHealth") => (Method::GET, Ask::Health { place, hub }),
        [_, _, word] if is(word, "$testall") => (Method::POST, parse_all(request.body(), place, hub)?),
        [_, _, word] if is(word, "$testnew") => (Method::POST, parse_new(request.body(), place, hub)?),
        _ => return Err(Refused::nothing_here()),
    };
    if request.method() == method { Ok(Operation::Route(ask)) } else { Err(Refused::wrong_method()) }
}

fn parse_all(body: &Bytes, place: Place, hub: HubName) -> Result<Ask, Refused> {
    let body = json::parse(body)?;
    let source = text(&body, "routingSource")?.filter(|word| !word.eq_ignore_ascii_case("Invalid"));
    let source = source.map(|word| Source::parse(&word).ok_or_else(|| bad("routingSource", "is none of the sources")));
    Ok(Ask::TestAll { place, hub, source: source.transpose()?, sample: Box::new(parse_sample(&body)?) })
}

fn parse_new(body: &Bytes, place: Place, hub: HubName) -> Result<Ask, Refused> {
    let body = json::parse(body)?;
    let route = object(&body, "route")?.ok_or(InvalidJson::Missing { member: "route" })?;
    let condition = text(route, "condition")?.unwrap_or_default();
    Ok(Ask::TestNew { place, hub, condition, sample: Box::new(parse_sample(&body)?) })
}

fn bad(member: &str, problem: &str) -> Refused {
    Refused::new(ErrorKind::InvalidArgument, format!("{member} {problem}."))
}

/// Reads the message and the twin to try routes with.
fn parse_sample(body: &Value) -> Result<Sample, Refused> {
    let message = object(body, "message")?.unwrap_or(&Value::Null);
    let mut draft = Draft { body: text(message, "body")?.unwrap_or_default().into(), ..Draft::default() };
    for (name, value) in object(message, "appProperties")?.and_then(Value::as_object).into_iter().flatten() {
        let value = value.as_str().ok_or_else(|| bad("appProperties", "holds something that is no text"))?;
        draft.set_property(name, Some(value));
    }
    let (mut device, mut module) = (SAMPLE_DEVICE.to_owned(), None);
    for (name, value) in object(message, "systemProperties")?.and_then(Value::as_object).into_iter().flatten() {
        let value = value.as_str().ok_or_else(|| bad("systemProperties", "holds something that is no text"))?;
        let short = name.trim_start_matches('$').to_ascii_lowercase();
        match short.as_str() {
            "connectiondeviceid" | "iothub-connection-device-id" => value.clone_into(&mut device),
            "connectionmoduleid" | "iothub-connection-module-id" => module = Some(value.to_owned()),
            other => set_system(&mut draft.system, other, value),
        }
    }
    draft.check().map_err(|invalid| Refused::new(ErrorKind::TooLarge, invalid.to_string()))?;
    let twin = object(body, "twin")?.and_then(Value::as_object).cloned();
    Ok(Sample { sender: parse_name(&device, module.as_deref())?, message: draft, twin })
}

/// Properties that nothing looks at are passed over.
fn set_system(system: &mut SystemProperties, name: &str, value: &str) {
    let member = match name {
        "messageid" => &mut system.message_id,
        "correlationid" => &mut system.correlation_id,
        "userid" => &mut system.user_id,
        "contenttype" => &mut system.content_type,
        "contentencoding" => &mut system.content_encoding,
        "absoluteexpirytime" => &mut system.expires_at,
        "creationtimeutc" => &mut system.created_at,
        "dt-subject" => &mut system.component,
        "iothub-interface-id" => &mut system.interface_id,
        _ => return,
    };
    *member = Some(value.to_owned());
}

/// Whether `target` asks for what an endpoint would not take.
pub fn owns_letters(target: &Target) -> bool {
    matches!(
        target.segments().as_slice(),
        [first, version, hubs, _, endpoints, ..]
            if is(first, "muster") && is(version, "v1") && is(hubs, "hubs") && is(endpoints, "endpoints")
    )
}

/// Turns a request into an operation, or into its refusal.
pub fn decode_letters(request: &Request<Bytes>, target: &Target) -> Result<Operation, Refused> {
    let segments = target.segments();
    let [_, _, _, hub, _, endpoint, letters, rest @ ..] = segments.as_slice() else {
        return Err(Refused::nothing_here());
    };
    if !is(letters, "deadLetters") {
        return Err(Refused::nothing_here());
    }
    let hub = HubName::parse(hub).map_err(|invalid| bad("The hub's name", &invalid.to_string()))?;
    let endpoint = EndpointName::parse(endpoint).map_err(|invalid| bad("The endpoint's name", &invalid.to_string()))?;
    let ask = match (rest, request.method()) {
        ([], &Method::GET) => {
            let limit = match target.parameter("limit").map(str::parse) {
                None => LIST_DEFAULT,
                Some(Ok(limit @ 1..=LIST_MAX)) => limit,
                Some(_) => return Err(bad("limit", "is not a number from 1 to 1000")),
            };
            Ask::ListDeadLetters { hub, endpoint, limit }
        }
        ([], &Method::DELETE) => Ask::Purge { hub, endpoint },
        ([word], &Method::POST) if is(word, "replay") => Ask::Replay { hub, endpoint },
        ([], _) => return Err(Refused::wrong_method()),
        ([word], _) if is(word, "replay") => return Err(Refused::wrong_method()),
        _ => return Err(Refused::nothing_here()),
    };
    Ok(Operation::Route(ask))
}

/// Turns the reply into a response.
pub fn encode(reply: Result<Reply, Failure>) -> Response<Bytes> {
    let answer = match reply {
        Ok(Reply::Route(answer)) => answer,
        Ok(_) => return internal(),
        Err(failure) => return refuse(&failure),
    };
    let shown = match answer {
        Answer::Taking(routes) => {
            let routes: Vec<Value> = routes.iter().map(|route| json!({ "properties": show_route(route) })).collect();
            json!({ "routes": routes })
        }
        Answer::Tested(outcome) => show_outcome(&outcome),
        Answer::Health(endpoints) => {
            json!({ "value": endpoints.iter().map(show_health).collect::<Vec<_>>(), "nextLink": null })
        }
        Answer::DeadLetters(letters) => json!({ "value": letters.iter().map(show_letter).collect::<Vec<_>>() }),
        Answer::Replayed(count) => json!({ "replayed": count }),
        Answer::Purged(count) => json!({ "purged": count }),
    };
    respond(StatusCode::OK, &shown)
}

fn show_outcome(outcome: &Result<Option<bool>, InvalidQuery>) -> Value {
    let errors: Vec<Value> = match outcome {
        Ok(_) => Vec::new(),
        Err(invalid) => {
            let at = json!({ "line": 1, "column": invalid.at });
            let place = json!({ "start": at, "end": at });
            vec![json!({ "message": invalid.fault.to_string(), "severity": "error", "location": place })]
        }
    };
    let result = match outcome {
        Ok(Some(true)) => "true",
        Ok(Some(false)) => "false",
        Ok(None) | Err(_) => "undefined",
    };
    json!({ "result": result, "details": { "compilationErrors": errors } })
}

fn show_health(health: &EndpointHealth) -> Value {
    let status = match health.status {
        HealthStatus::Unknown => "unknown",
        HealthStatus::Healthy => "healthy",
        HealthStatus::Unhealthy => "unhealthy",
        HealthStatus::Dead => "dead",
    };
    let moment = |at: Option<domain::clock::UnixTime>| at.map(time::rfc1123);
    Value::Object(members([
        ("endpointId", json!(health.endpoint.as_str())),
        ("healthStatus", json!(status)),
        ("lastKnownError", json!(health.last_error)),
        ("lastKnownErrorTime", json!(moment(health.last_error_at))),
        ("lastSuccessfulSendAttemptTime", json!(moment(health.last_success_at))),
        ("lastSendAttemptTime", json!(moment(health.last_attempt_at))),
        ("deadLetterCount", json!(health.dead_letters)),
        ("lostMessageCount", json!(health.lost)),
    ]))
}

fn show_letter(letter: &DeadLetter) -> Value {
    let place = letter.place;
    let message = message_json::show(&letter.message, (place.sequence, place.offset), place.enqueued_at);
    let mut shown: Map<String, Value> = members([
        ("id", json!(letter.id)),
        ("reason", json!(letter.reason)),
        ("attempts", json!(letter.attempts)),
        ("givenUpTime", json!(time::rfc3339(letter.at))),
        ("isDue", json!(letter.is_due)),
    ]);
    shown.insert("message".to_owned(), message);
    Value::Object(shown)
}

#[cfg(test)]
mod tests;
