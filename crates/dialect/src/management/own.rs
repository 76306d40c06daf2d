//! What Azure has no API for, below `/muster/v1/`: the decisions behind admits and refusals.
//!
//! Names here are Muster's own, and part of its interface. Start at [`decode`].

use bytes::Bytes;
use domain::decision::{Considered, Decision, Finding, LinkVerdict, Outcome, Presented};
use domain::enrollment::{EntryKind, EntryName};
use domain::ids::TrackingId;
use domain::operation::decision::{Answer, Ask};
use domain::operation::{ErrorKind, Failure, Operation, Reply, Transport};
use http::{Method, Request, Response, StatusCode};
use serde_json::{Map, Value, json};

use super::{internal, refuse};
use crate::error::Refused;
use crate::http::{Target, is, json as respond};
use crate::json::members;
use crate::time;

/// Decisions of a list if nobody says how many.
const LIST_DEFAULT: usize = 10;

/// Whether `target` belongs to this dialect.
pub fn owns(target: &Target) -> bool {
    matches!(target.segments().as_slice(), [first, version, ..] if is(first, "muster") && is(version, "v1"))
}

/// Turns a request into an operation, or into its refusal.
pub fn decode(request: &Request<Bytes>, target: &Target) -> Result<Operation, Refused> {
    let segments = target.segments();
    let ask = match segments.as_slice() {
        [_, _, word, tracking] if is(word, "decisions") => Ask::Find(
            TrackingId::parse(tracking)
                .ok_or_else(|| Refused::new(ErrorKind::InvalidArgument, "This is not a tracking ID."))?,
        ),
        [_, _, word] if is(word, "decisions") => Ask::List {
            registration_id: target
                .parameter("registrationId")
                .filter(|id| !id.is_empty())
                .ok_or_else(|| {
                    Refused::new(ErrorKind::InvalidArgument, "The query parameter registrationId is missing.")
                })?
                .to_owned(),
            limit: match target.parameter("limit").map(str::parse) {
                None => LIST_DEFAULT,
                Some(Ok(limit @ 1..)) => limit,
                Some(_) => {
                    return Err(Refused::new(ErrorKind::InvalidArgument, "The limit is not a number from 1 on."));
                }
            },
        },
        _ => return Err(Refused::nothing_here()),
    };
    if request.method() != Method::GET {
        return Err(Refused::wrong_method());
    }
    Ok(Operation::Decision(ask))
}

/// Turns the reply into a response.
pub fn encode(reply: Result<Reply, Failure>) -> Response<Bytes> {
    match reply {
        Ok(Reply::Decision(Answer::Decision(decision))) => respond(StatusCode::OK, &show(&decision)),
        Ok(Reply::Decision(Answer::Decisions { decisions, lost })) => {
            let shown: Vec<Value> = decisions.iter().map(show).collect();
            respond(StatusCode::OK, &json!({ "value": shown, "lostRefusals": lost }))
        }
        Ok(_) => internal(),
        Err(failure) => refuse(&failure),
    }
}

/// Shows a decision.
pub fn show(decision: &Decision) -> Value {
    let trace = &decision.trace;
    let mut shown = members([
        ("trackingId", json!(decision.tracking.to_string())),
        ("at", json!(time::rfc3339(decision.at))),
        ("idScope", json!(decision.id_scope.as_str())),
        ("registrationId", json!(decision.registration_id.as_str())),
        ("peer", json!(decision.peer.to_string())),
        ("transport", json!(transport_word(decision.transport))),
        ("presented", json!(presented_word(decision.presented))),
    ]);
    shown.extend(show_outcome(&decision.outcome));
    let chain = trace.chain.iter().map(|link| {
        json!({
            "subject": link.subject.as_str(),
            "issuer": link.issuer.as_str(),
            "thumbprint": link.thumbprint,
            "notAfter": time::rfc3339(link.not_after),
            "verdict": match link.verdict {
                LinkVerdict::Holds => "holds".to_owned(),
                LinkVerdict::Verified => "holds, and is a verified CA certificate of the provisioning service".to_owned(),
                LinkVerdict::Fails(fault) => fault.to_string(),
            },
        })
    });
    shown.extend(members([
        ("considered", trace.considered.iter().map(show_considered).collect()),
        ("consideredLeftOff", json!(trace.considered_left_off)),
        ("chain", chain.collect()),
        ("groupsTried", json!(trace.groups_tried)),
        ("repeats", json!(decision.repeats)),
    ]));
    Value::Object(shown)
}

fn show_outcome(outcome: &Outcome) -> Map<String, Value> {
    match outcome {
        Outcome::Admitted { by, operation } => members([
            ("outcome", json!("admitted")),
            ("by", json!(entry_text(by))),
            ("operationId", json!(operation.to_string())),
        ]),
        Outcome::Refused { cause, what, fix } => members([
            ("outcome", json!("refused")),
            ("cause", json!(cause.code())),
            ("what", json!(what)),
            ("fix", json!(fix)),
        ]),
    }
}

fn show_considered(considered: &Considered) -> Value {
    let (finding, cause) = match considered.finding {
        Finding::Admits => ("admits", None),
        Finding::Refuses(cause) => ("refuses", Some(cause.code())),
        Finding::NotOnPath => ("not-on-path", None),
        Finding::Outranked => ("outranked", None),
    };
    Value::Object(members([
        ("entry", json!(entry_text(&considered.entry))),
        ("finding", json!(finding)),
        ("cause", json!(cause)),
    ]))
}

fn entry_text(entry: &EntryName) -> String {
    match entry.kind() {
        EntryKind::Individual => format!("enrollment {}", entry.as_str()),
        EntryKind::Group => format!("enrollment group {}", entry.as_str()),
    }
}

const fn transport_word(transport: Transport) -> &'static str {
    match transport {
        Transport::Https => "https",
        Transport::Mqtt => "mqtt",
        Transport::MqttWebSocket => "mqtt-web-socket",
        Transport::Amqp => "amqp",
        Transport::AmqpWebSocket => "amqp-web-socket",
    }
}

const fn presented_word(presented: Presented) -> &'static str {
    match presented {
        Presented::Nothing => "nothing",
        Presented::Certificate => "certificate",
        Presented::Signature => "signature",
    }
}
