//! A device at a provisioning service over HTTPS (`contract/dps-device.md 2`).
//!
//! Decides nothing about credentials: what is refused here could not be understood. Start at [`decode`].

use bytes::Bytes;
use domain::operation::registration::{Ask, Registration, Request as Wanted};
use domain::operation::{ErrorKind, Failure, Operation, Reply};
use http::header::{LOCATION, RETRY_AFTER};
use http::{Method, Request, Response, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::device_json::{self, BODY_BYTES_MAX, REGISTRATION_ID_BYTES_MAX};
use super::{internal, refuse, service_http};
use crate::error::Refused;
use crate::http::{Target, is, json as json_response, with_header};

/// What is escaped in the address of an operation: all but what names of any kind are made of.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b':');

/// What an answer needs to know of its request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    id_scope: String,
    registration_id: String,
    api_version: String,
}

/// Whether `target` belongs to this dialect: its second segment is `registrations`, and the first no word of the service
/// API, under which something may be called so.
pub fn owns(target: &Target) -> bool {
    matches!(target.segments().as_slice(), [_, second, _, ..] if is(second, "registrations"))
        && !service_http::owns(target)
}

/// Turns a request into an operation, or into its refusal.
pub fn decode(request: &Request<Bytes>, target: &Target) -> Result<(Operation, Asked), Refused> {
    let api_version = target.api_version()?;
    let segments = target.segments();
    let [id_scope, _, registration_id, rest @ ..] = segments.as_slice() else { return Err(Refused::nothing_here()) };
    if registration_id.len() > REGISTRATION_ID_BYTES_MAX {
        return Err(Refused::new(ErrorKind::InvalidArgument, "The registration ID is too long."));
    }
    let wanted = match (request.method(), rest) {
        (&Method::PUT, [word]) if is(word, "register") => {
            let mut registration = read_body(request.body())?;
            registration.force = target.parameter("forceRegistration").is_some_and(|value| is(value, "true"));
            Wanted::Register(Box::new(registration))
        }
        // One client sends a body with it, which says nothing (section 2.2).
        (&Method::GET, [word, operation]) if is(word, "operations") => {
            Wanted::Poll { operation: (*operation).to_owned() }
        }
        (&Method::POST, []) => {
            // Nothing of the body goes on, so that it is judged here.
            device_json::check(&read_body(request.body())?, registration_id)?;
            Wanted::LookUp
        }
        (_, []) => return Err(Refused::wrong_method()),
        (_, [word]) if is(word, "register") => return Err(Refused::wrong_method()),
        (_, [word, _]) if is(word, "operations") => return Err(Refused::wrong_method()),
        _ => return Err(Refused::nothing_here()),
    };
    let asked = Asked {
        id_scope: (*id_scope).to_owned(),
        registration_id: (*registration_id).to_owned(),
        api_version: api_version.to_owned(),
    };
    let ask = Ask { id_scope: asked.id_scope.clone(), registration_id: asked.registration_id.clone(), request: wanted };
    Ok((Operation::Registration(ask), asked))
}

fn read_body(body: &Bytes) -> Result<Registration, Refused> {
    if body.len() > BODY_BYTES_MAX {
        return Err(Refused::new(ErrorKind::TooLarge, "The body is too long."));
    }
    Ok(device_json::parse_registration(body)?)
}

/// Turns the reply into a response. `host` is what the client dialled, with the port if it named one.
pub fn encode(reply: Result<Reply, Failure>, asked: &Asked, host: &str) -> Response<Bytes> {
    let answer = match reply {
        Ok(Reply::Registration(answer)) => answer,
        Ok(_) => return internal(),
        Err(failure) => return refuse(&failure),
    };
    let shown = device_json::show(&answer);
    let status = StatusCode::from_u16(shown.status).unwrap_or(StatusCode::OK);
    let response = json_response(status, &shown.body);
    let (Some(seconds), Some(operation)) = (shown.retry_after_s, shown.operation) else { return response };
    let response = with_header(response, RETRY_AFTER, &seconds.to_string());
    with_header(response, LOCATION, &location(host, asked, &operation))
}

fn location(host: &str, asked: &Asked, operation: &str) -> String {
    let escape = |text| utf8_percent_encode(text, ESCAPED);
    let (id_scope, registration_id) = (escape(&asked.id_scope), escape(&asked.registration_id));
    let api_version = escape(&asked.api_version);
    format!(
        "https://{host}/{id_scope}/registrations/{registration_id}/operations/{operation}?api-version={api_version}"
    )
}

#[cfg(test)]
mod tests;
