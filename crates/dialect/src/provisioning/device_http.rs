//! A device at a provisioning service over HTTPS (`contract/dps-device.md 2`).

use bytes::Bytes;
use domain::operation::registration::{Ask, Request as Wanted};
use domain::operation::{Failure, Operation, Reply};
use http::header::{LOCATION, RETRY_AFTER};
use http::{HeaderName, Method, Request, Response, StatusCode};
use serde_json::json;

use super::device_json::{self, BODY_BYTES_MAX};
use crate::error;
use crate::http::{Target, is, json as json_response, with_header};

const ERROR_CODE: HeaderName = HeaderName::from_static("x-ms-error-code");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-request-id");

/// What an answer needs to know of its request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    id_scope: String,
    registration_id: String,
    api_version: String,
}

/// Whether `target` belongs to this dialect: its second segment is `registrations`, which no path of the service API has.
pub fn owns(target: &Target) -> bool {
    matches!(target.segments().as_slice(), [_, second, _, ..] if is(second, "registrations"))
}

/// Turns a request into an operation, or into its refusal.
pub fn decode(request: &Request<Bytes>, target: &Target) -> Result<(Operation, Asked), Response<Bytes>> {
    let refuse = |status: u16, code: u32, message: &str| Err(refusal(status, code, message));
    let Ok(api_version) = target.api_version() else {
        return refuse(400, 400_004, "The query parameter api-version is missing.");
    };
    if request.body().len() > BODY_BYTES_MAX {
        return refuse(413, 413_001, "The body is too long.");
    }
    let segments = target.segments();
    let (wanted, id_scope, registration_id) = match (request.method(), segments.as_slice()) {
        (&Method::PUT, [scope, _, id, word]) if is(word, "register") => (None, scope, id),
        (&Method::GET, [scope, _, id, word, operation]) if is(word, "operations") => {
            (Some(Wanted::Poll { operation: (*operation).to_owned() }), scope, id)
        }
        (&Method::POST, [scope, _, id]) => (Some(Wanted::LookUp), scope, id),
        (_, [_, _, _] | [_, _, _, _] | [_, _, _, _, _]) => {
            return refuse(405, 405_000, "The method is not allowed here.");
        }
        _ => return refuse(404, 404_000, "There is nothing at this path."),
    };
    let request = match wanted {
        Some(Wanted::LookUp) | None => {
            let mut registration = match device_json::parse_registration(request.body()) {
                Ok(registration) => registration,
                Err(invalid) => return refuse(400, 400_012, &invalid.to_string()),
            };
            registration.force = target.parameter("forceRegistration").is_some_and(|value| is(value, "true"));
            if registration.has_certificate_request {
                return refuse(400, 400_004, "Certificates are not issued here: leave out csr.");
            }
            let same = |id: &String| id.eq_ignore_ascii_case(registration_id);
            if !registration.registration_id.as_ref().is_none_or(same) {
                return refuse(400, 400_004, "The registration ID of the body is not that of the path.");
            }
            match wanted {
                None => Wanted::Register(Box::new(registration)),
                Some(look_up) => look_up,
            }
        }
        Some(poll) => poll,
    };
    let asked = Asked {
        id_scope: (*id_scope).to_owned(),
        registration_id: (*registration_id).to_owned(),
        api_version: api_version.to_owned(),
    };
    let ask = Ask { id_scope: asked.id_scope.clone(), registration_id: asked.registration_id.clone(), request };
    Ok((Operation::Registration(ask), asked))
}

/// Turns the reply into a response. `host` is what the client dialled.
pub fn encode(reply: Result<Reply, Failure>, asked: &Asked, host: &str) -> Response<Bytes> {
    match reply {
        Ok(Reply::Registration(answer)) => {
            let shown = device_json::show(&answer);
            let status = StatusCode::from_u16(shown.status).unwrap_or(StatusCode::OK);
            let mut response = json_response(status, &shown.body);
            if let Some(seconds) = shown.retry_after_s {
                response = with_header(response, RETRY_AFTER, &seconds.to_string());
            }
            match (shown.status, shown.operation) {
                (202, Some(operation)) => {
                    let Asked { id_scope, registration_id, api_version } = asked;
                    let location = format!(
                        "https://{host}/{id_scope}/registrations/{registration_id}/operations/{operation}\
                         ?api-version={api_version}"
                    );
                    with_header(response, LOCATION, &location)
                }
                _ => response,
            }
        }
        Ok(_) => refusal(500, 500_001, "Internal error."),
        Err(failure) => refuse(&failure),
    }
}

/// A failure in the provisioning dialects' form, device and service side alike.
pub fn refuse(failure: &Failure) -> Response<Bytes> {
    let response = json_response(error::status(failure.kind), &error::provisioning_body(failure));
    let response = with_header(response, ERROR_CODE, &error::spelling(failure.kind).provisioning.to_string());
    let response = with_header(response, REQUEST_ID, &failure.tracking.to_string());
    match failure.retry_after_s {
        Some(seconds) => with_header(response, RETRY_AFTER, &seconds.to_string()),
        None => response,
    }
}

/// A refusal that needed no service to decide.
pub fn refusal(status: u16, code: u32, message: &str) -> Response<Bytes> {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    let response = json_response(status, &json!({ "errorCode": code, "message": message }));
    with_header(response, ERROR_CODE, &code.to_string())
}
