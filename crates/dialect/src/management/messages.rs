//! Messages to devices as an operator sends them, and feedback on them, below `/muster/v1/hubs/{hub}/`: the same queue
//! that back-end programs reach over AMQP, for whom no public API has it over HTTPS.
//!
//! Names here are Muster's own, and part of its interface. Start at [`decode`].

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use domain::cloud_to_device::{Draft, Settlement, SystemProperties};
use domain::ids::{HubName, LockToken};
use domain::operation::cloud_to_device::{Answer, Ask, AtHub};
use domain::operation::{ErrorKind, Failure, Operation, Reply};
use http::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use super::{internal, refuse};
use crate::error::Refused;
use crate::http::{Target, empty, is, json as respond};
use crate::hub::registry_json::parse_name;
use crate::hub::words;
use crate::json::{self, InvalidJson};
use crate::time;

/// Whether `target` belongs to this dialect.
pub fn owns(target: &Target) -> bool {
    matches!(
        target.segments().as_slice(),
        [first, version, hubs, _, rest @ ..]
            if is(first, "muster") && is(version, "v1") && is(hubs, "hubs")
                && rest.first().is_some_and(|word| is(word, "devices") || is(word, "feedback"))
    )
}

/// Turns a request into an operation, or into its refusal.
pub fn decode(request: &Request<Bytes>, target: &Target) -> Result<Operation, Refused> {
    let segments = target.segments();
    let [_, _, _, hub, rest @ ..] = segments.as_slice() else { return Err(Refused::nothing_here()) };
    let at = || {
        let name =
            HubName::parse(hub).map_err(|invalid| Refused::new(ErrorKind::InvalidArgument, invalid.to_string()))?;
        Ok::<_, Refused>(AtHub::Named(name))
    };
    let ask = match (rest, request.method()) {
        ([_, device, word], method) if is(word, "messages") => {
            demand(method, &Method::POST)?;
            send(at()?, (device, None), request)?
        }
        ([_, device, modules, module, word], method) if is(modules, "modules") && is(word, "messages") => {
            demand(method, &Method::POST)?;
            send(at()?, (device, Some(module)), request)?
        }
        ([word], method) if is(word, "feedback") => {
            demand(method, &Method::GET)?;
            Ask::TakeFeedback(at()?)
        }
        ([word, lock], method) if is(word, "feedback") => {
            demand(method, &Method::DELETE)?;
            Ask::SettleFeedback { hub: at()?, lock: parse_lock(lock)?, settlement: Settlement::Complete }
        }
        _ => return Err(Refused::nothing_here()),
    };
    Ok(Operation::CloudToDevice(ask))
}

fn demand(method: &Method, wanted: &Method) -> Result<(), Refused> {
    if method == wanted { Ok(()) } else { Err(Refused::wrong_method()) }
}

fn parse_lock(text: &str) -> Result<LockToken, Refused> {
    LockToken::parse(text).ok_or_else(|| Refused::new(ErrorKind::LockLost, "This is no lock token."))
}

fn send(hub: AtHub, (device, module): (&str, Option<&str>), request: &Request<Bytes>) -> Result<Ask, Refused> {
    let to = parse_name(device, module)?;
    let message = parse_message(&json::parse(request.body())?)?;
    Ok(Ask::Send { hub, to, message: Box::new(message) })
}

/// Reads a message: `body` as text, or `bodyBase64`; each of the rest may be missing.
fn parse_message(document: &Value) -> Result<Draft, Refused> {
    let text = |member: &'static str| match document.get(member) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(Refused::from(InvalidJson::Type { member, wanted: "text" })),
    };
    let unread =
        |member: &str, wanted: &str| Refused::new(ErrorKind::InvalidArgument, format!("{member} is not {wanted}."));
    if !document.is_object() {
        return Err(InvalidJson::Type { member: "the body", wanted: "an object" }.into());
    }
    let body = match (text("body")?, text("bodyBase64")?) {
        (Some(_), Some(_)) => return Err(unread("body", "allowed beside bodyBase64")),
        (Some(body), None) => Bytes::from(body),
        (None, Some(body)) => STANDARD.decode(body).map_err(|_| unread("bodyBase64", "base64"))?.into(),
        (None, None) => Bytes::new(),
    };
    let expires_at = text("expiryTimeUtc")?.map(|moment| {
        time::parse(&moment).ok_or_else(|| unread("expiryTimeUtc", "a moment, such as 2026-11-21T12:00:00Z"))
    });
    let acknowledgement = text("ack")?.map(|word| {
        words::parse_acknowledgement(&word).ok_or_else(|| unread("ack", "none, positive, negative or full"))
    });
    Ok(Draft {
        system: SystemProperties {
            message_id: text("messageId")?,
            correlation_id: text("correlationId")?,
            user_id: text("userId")?,
            content_type: text("contentType")?,
            content_encoding: text("contentEncoding")?,
        },
        properties: parse_properties(document)?,
        expires_at: expires_at.transpose()?,
        acknowledgement: acknowledgement.transpose()?.unwrap_or_default(),
        body,
    })
}

fn parse_properties(document: &Value) -> Result<Vec<(String, Option<String>)>, Refused> {
    const WRONG: InvalidJson = InvalidJson::Type { member: "properties", wanted: "an object of texts" };

    let members = match document.get("properties") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(members) => members.as_object().ok_or(WRONG)?,
    };
    let read = |(name, value): (&String, &Value)| {
        let value = value.as_str().ok_or(WRONG)?;
        Ok((name.clone(), Some(value.to_owned())))
    };
    members.iter().map(read).collect()
}

/// Turns the reply into a response.
pub fn encode(reply: Result<Reply, Failure>) -> Response<Bytes> {
    match reply {
        Ok(Reply::CloudToDevice(Answer::Sent { message_id })) => {
            respond(StatusCode::CREATED, &json!({ "messageId": message_id }))
        }
        Ok(Reply::CloudToDevice(Answer::Feedback(Some(batch)))) => respond(
            StatusCode::OK,
            &json!({ "lockToken": batch.lock.to_string(), "value": words::feedback(&batch.records) }),
        ),
        Ok(Reply::CloudToDevice(Answer::Feedback(None) | Answer::Settled)) => empty(StatusCode::NO_CONTENT),
        Ok(_) => internal(),
        Err(failure) => refuse(&failure),
    }
}
