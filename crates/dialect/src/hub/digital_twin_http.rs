//! Digital twins as a hub's service API writes them (`contract/hub-service.md 11`).
//!
//! Commands are direct methods by another name: a component's is the component's name, an asterisk, and its own. Their
//! payloads pass through as text. Start at [`decode`].

use bytes::Bytes;
use domain::digital_twin::{InvalidPatch, Patch};
use domain::ids::{DeviceId, MethodName};
use domain::method::{Call, Payload};
use domain::operation::Operation;
use domain::operation::digital_twin::{Answer, Ask, Command};
use http::header::{ETAG, LOCATION};
use http::{HeaderName, Method, Request, Response, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::registry_json::{invalid, parse_name};
use super::service_http::Asked;
use super::{method_json, twin_json};
use crate::error::Refused;
use crate::http::{Target, empty, is, json as respond, json_text, precondition, with_header};
use crate::json::{self, InvalidJson};

/// What joins the name of a component to that of its command in the name of a direct method.
const COMPONENT_SEPARATOR: char = '*';

const COMMAND_STATUS: HeaderName = HeaderName::from_static("x-ms-command-statuscode");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-request-id");

/// Turns a request into an operation; `rest` is the path behind the dialect's own word.
pub fn decode(
    request: &Request<Bytes>,
    method: &Method,
    target: &Target,
    rest: &[&str],
) -> Result<(Operation, Asked), Refused> {
    let (ask, asked) = match rest {
        [device] => (decode_document(request, method, parse_name(device, None)?.device)?, Asked::Twin),
        [device, word, command] if is(word, "commands") => {
            decode_command((request, method, target), parse_name(device, None)?.device, (None, command))?
        }
        [device, of, component, word, command] if is(of, "components") && is(word, "commands") => {
            decode_command((request, method, target), parse_name(device, None)?.device, (Some(component), command))?
        }
        _ => return Err(Refused::nothing_here()),
    };
    Ok((Operation::DigitalTwin(ask), asked))
}

fn decode_document(request: &Request<Bytes>, method: &Method, device: DeviceId) -> Result<Ask, Refused> {
    match *method {
        Method::GET => Ok(Ask::Find(device)),
        Method::PATCH => {
            let patch = Patch::parse(&json::parse(request.body())?).map_err(|error| match error {
                InvalidPatch::NotAList => InvalidJson::Type { member: "the body", wanted: "a list" }.into(),
                other => invalid(format!("{other}.")),
            })?;
            let precondition = precondition(request.headers(), twin_json::parse_etag);
            Ok(Ask::Patch { device, patch, precondition })
        }
        _ => Err(Refused::wrong_method()),
    }
}

fn decode_command(
    (request, method, target): (&Request<Bytes>, &Method, &Target),
    device: DeviceId,
    (component, name): (Option<&str>, &str),
) -> Result<(Ask, Asked), Refused> {
    if *method != Method::POST {
        return Err(Refused::wrong_method());
    }
    let of_component = component.map(|component| format!("{component}{COMPONENT_SEPARATOR}")).unwrap_or_default();
    let joined = MethodName::parse(&format!("{of_component}{name}"));
    let payload = Payload::parse(request.body().clone()).map_err(method_json::untaken)?;
    let seconds = |parameter| match target.parameter(parameter).map(str::parse) {
        None => Ok(None),
        Some(Ok(seconds)) => Ok(Some(seconds)),
        Some(Err(_)) => Err(invalid(format!("{parameter} is no whole number."))),
    };
    let (connect_s, response_s) = (seconds(method_json::CONNECT_TIMEOUT)?, seconds(method_json::RESPONSE_TIMEOUT)?);
    let call = Call {
        method: joined.map_err(|error| invalid(format!("The name of the command is not valid: {error}.")))?,
        payload,
        timeouts: method_json::timeouts(connect_s, response_s)?,
    };
    let asked = Asked::Method(call.timeouts);
    let command = Command { component: component.map(str::to_owned), name: name.to_owned(), call };
    Ok((Ask::Command { device, command: Box::new(command) }, asked))
}

/// Turns the answer into a response. What devices say goes out as it came; its status is not that of the response.
pub fn encode(answer: Answer) -> Response<Bytes> {
    match answer {
        Answer::Found { document, etag } => {
            with_header(respond(StatusCode::OK, &Value::Object(document)), ETAG, &twin_json::weak_etag(etag))
        }
        Answer::Accepted { device, etag } => {
            let location = format!("/digitaltwins/{}", utf8_percent_encode(device.as_str(), NON_ALPHANUMERIC));
            let response = with_header(empty(StatusCode::ACCEPTED), ETAG, &twin_json::weak_etag(etag));
            with_header(response, LOCATION, &location)
        }
        Answer::Responded { request, response } => {
            let status = response.status.to_string();
            let response = json_text(StatusCode::OK, response.payload.bytes().clone());
            with_header(with_header(response, COMMAND_STATUS, &status), REQUEST_ID, &request.to_string())
        }
    }
}
