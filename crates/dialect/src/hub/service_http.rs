//! Operators' programs at a hub: identities, twins, direct methods, jobs, statistics (`contract/hub-service.md 3` to `8`),
//! and of messages to devices what is done over HTTPS.
//!
//! Decodes and encodes; who may do what, and whether a device exists, is for the service to say. Start at [`decode`].

use bytes::Bytes;
use domain::cloud_to_device::Settlement;
use domain::ids::LockToken;
use domain::method::Timeouts;
use domain::operation::cloud_to_device::AtHub;
use domain::operation::identity::{self, IdentityName};
use domain::operation::{ErrorKind, Failure, Operation, Reply, cloud_to_device, file, method, query, twin};
use domain::query::document;
use http::header::{ETAG, RETRY_AFTER};
use http::{HeaderName, Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use super::import_mode::ImportMode;
use super::registry_json::{self, invalid, parse_name};
use super::{configuration_http, digital_twin_http, job_http, method_json, transfer_http, twin_json, words};
use crate::error::{self, Refused, spelling};
use crate::http::{Target, empty, is, json as respond, json_text, list, page, precondition, with_header};
use crate::json::{self, InvalidJson};

#[cfg(test)]
mod tests;

/// Most bytes of a body. Bodies are read before it is known who sends them.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Most devices of a list, and as many as are given if nothing else is asked for.
const LIST_MAX: usize = 1_000;

const ERROR_CODE: HeaderName = HeaderName::from_static("iothub-errorcode");
const METHOD_OVERRIDE: HeaderName = HeaderName::from_static("x-http-method-override");

/// What an answer needs to know of its request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A twin, whose absence is always that of a device.
    Twin,
    /// A call of a direct method, and how long its caller waits.
    Method(Timeouts),
    /// Many things at once: which, and how.
    Bulk(Vec<(IdentityName, ImportMode)>),
    /// Anything else.
    Other,
}

/// Whether `target` belongs to this dialect.
pub fn owns(target: &Target) -> bool {
    target.segments().first().is_some_and(|first| is_root(first))
}

/// Whether a path belongs to this dialect, even if the rest of it cannot be read.
pub fn owns_path(path: &str) -> bool {
    path.split('/').find(|segment| !segment.is_empty()).is_some_and(is_root)
}

fn is_root(segment: &str) -> bool {
    ["devices", "twins", "digitaltwins", "statistics", "messages", "jobs", "configurations"]
        .iter()
        .any(|word| is(segment, word))
}

/// Turns a request into an operation; or into its refusal.
pub fn decode(request: &Request<Bytes>, target: &Target) -> Result<(Operation, Asked), Refused> {
    if !target.api_version().is_ok_and(is_version) {
        return Err(invalid("The query parameter api-version is missing or no version."));
    }
    if request.body().len() > BODY_BYTES_MAX {
        return Err(Refused::new(ErrorKind::TooLarge, "The body is too long."));
    }
    let method = method(request);
    match target.segments().as_slice() {
        [first, rest @ ..] if is(first, "devices") => decode_registry(request, &method, target, rest),
        [first, rest @ ..] if is(first, "twins") => {
            // A module, too, may be called `methods`.
            if let [named @ .., word] = rest
                && is(word, "methods")
                && matches!(named.len(), 1 | 3)
            {
                return decode_call(request, &method, named);
            }
            let ask = decode_twin(request, &method, rest)?;
            Ok((Operation::Twin(ask), Asked::Twin))
        }
        [first, rest @ ..] if is(first, "digitaltwins") => digital_twin_http::decode(request, &method, target, rest),
        [first, bound, word, rest @ ..]
            if is(first, "messages") && is(bound, "servicebound") && is(word, "feedback") =>
        {
            Ok((Operation::CloudToDevice(decode_feedback(&method, rest)?), Asked::Other))
        }
        [first, rest @ ..] if is(first, "configurations") => {
            Ok((Operation::Configuration(configuration_http::decode(request, &method, target, rest)?), Asked::Other))
        }
        [first, version, rest @ ..] if is(first, "jobs") && is(version, "v2") => {
            Ok((Operation::Job(job_http::decode(request, &method, target, rest)?), Asked::Other))
        }
        [first, rest @ ..] if is(first, "jobs") => {
            Ok((Operation::Transfer(transfer_http::decode(request, &method, rest)?), Asked::Other))
        }
        [first, bound, word, rest @ ..]
            if is(first, "messages") && is(bound, "servicebound") && is_file_notifications(word) =>
        {
            Ok((Operation::File(decode_file_notifications(&method, rest)?), Asked::Other))
        }
        [first, word] if is(first, "statistics") => {
            let ask = match (is(word, "devices"), is(word, "service")) {
                (true, _) => identity::Ask::CountDevices,
                (_, true) => identity::Ask::CountConnected,
                (false, false) => return Err(Refused::nothing_here()),
            };
            if method == Method::GET {
                Ok((Operation::Identity(ask), Asked::Other))
            } else {
                Err(Refused::wrong_method())
            }
        }
        _ => Err(Refused::nothing_here()),
    }
}

/// `2021-04-12`, or that and `-preview`.
fn is_version(text: &str) -> bool {
    let date = text.strip_suffix("-preview").unwrap_or(text);
    let fits = |(index, byte): (usize, u8)| if matches!(index, 4 | 7) { byte == b'-' } else { byte.is_ascii_digit() };
    date.len() == 10 && date.bytes().enumerate().all(fits)
}

/// The method meant: clients that cannot send PATCH say it in a header of a POST.
fn method(request: &Request<Bytes>) -> Method {
    let meant = request.headers().get(METHOD_OVERRIDE).and_then(|method| method.to_str().ok());
    match meant {
        Some(meant) if request.method() == Method::POST && meant.eq_ignore_ascii_case("PATCH") => Method::PATCH,
        _ => request.method().clone(),
    }
}

fn decode_registry(
    request: &Request<Bytes>,
    method: &Method,
    target: &Target,
    rest: &[&str],
) -> Result<(Operation, Asked), Refused> {
    let ask = match (method, rest) {
        (&Method::GET, []) => identity::Ask::List { limit: parse_top(target)? },
        (&Method::POST, []) => {
            let items = registry_json::parse_bulk(&json::parse(request.body())?)?;
            let modes = items.iter().map(|(item, mode)| (item.name.clone(), *mode)).collect();
            let items = items.into_iter().map(|(item, _)| item).collect();
            return Ok((Operation::Identity(identity::Ask::Bulk(items)), Asked::Bulk(modes)));
        }
        (&Method::POST, [word]) if is(word, "query") => {
            return Ok((Operation::Query(decode_query(request)?), Asked::Other));
        }
        (method, [first, word]) if is(first, "keys") && is(word, "regenerate") => {
            if *method != Method::POST {
                return Err(Refused::wrong_method());
            }
            registry_json::parse_rotation(&json::parse(request.body())?)?
        }
        (_, [device, word]) if is(word, "applyConfigurationContent") => {
            let ask = configuration_http::decode_apply(request, method, device)?;
            return Ok((Operation::Configuration(ask), Asked::Other));
        }
        (&Method::GET, [device, word]) if is(word, "modules") => {
            identity::Ask::ListModules(parse_name(device, None)?.device)
        }
        (&Method::DELETE, [device, word]) if is(word, "commands") => {
            let purge = cloud_to_device::Ask::Purge(parse_name(device, None)?);
            return Ok((Operation::CloudToDevice(purge), Asked::Other));
        }
        (_, [device]) => decode_identity(request, method, parse_name(device, None)?)?,
        (_, [device, word, module]) if is(word, "modules") => {
            decode_identity(request, method, parse_name(device, Some(module))?)?
        }
        (_, []) => return Err(Refused::wrong_method()),
        (_, [_, word]) if is(word, "modules") || is(word, "commands") => return Err(Refused::wrong_method()),
        _ => return Err(Refused::nothing_here()),
    };
    Ok((Operation::Identity(ask), Asked::Other))
}

/// The text of a query, and which page of the answer is wanted.
fn decode_query(request: &Request<Bytes>) -> Result<query::Ask, Refused> {
    let body = json::parse(request.body())?;
    if !body.is_object() {
        return Err(InvalidJson::Type { member: "the body", wanted: "an object" }.into());
    }
    let text = json::text(&body, "query")?.ok_or(InvalidJson::Missing { member: "query" })?;
    Ok(query::Ask::Run { text, page: page(request.headers())? })
}

fn parse_top(target: &Target) -> Result<usize, Refused> {
    match target.parameter("top").map(str::parse::<usize>) {
        None => Ok(LIST_MAX),
        Some(Ok(top)) if top > 0 => Ok(top.min(LIST_MAX)),
        Some(_) => Err(invalid("top is no number from 1 to 1000.")),
    }
}

fn decode_identity(request: &Request<Bytes>, method: &Method, name: IdentityName) -> Result<identity::Ask, Refused> {
    let precondition = precondition(request.headers(), registry_json::parse_etag);
    match *method {
        Method::GET => Ok(identity::Ask::Find(name)),
        Method::PUT => {
            let draft = registry_json::parse_identity(name, &json::parse(request.body())?)?;
            Ok(identity::Ask::Put { draft: Box::new(draft), precondition })
        }
        Method::DELETE => Ok(identity::Ask::Delete { name, precondition }),
        _ => Err(Refused::wrong_method()),
    }
}

/// Whose twin or method a path is about.
fn decode_name(rest: &[&str]) -> Result<IdentityName, Refused> {
    match rest {
        [device] => parse_name(device, None),
        [device, word, module] if is(word, "modules") => parse_name(device, Some(module)),
        _ => Err(Refused::nothing_here()),
    }
}

/// The manual and the clients call them differently (`contract/hub-service.md 9.5`).
fn is_file_notifications(word: &str) -> bool {
    is(word, "filenotifications") || is(word, "fileuploadnotifications")
}

/// Notifications of files of the hub dialled, as feedback is read.
fn decode_file_notifications(method: &Method, rest: &[&str]) -> Result<file::Ask, Refused> {
    Ok(match decode_feedback(method, rest)? {
        cloud_to_device::Ask::SettleFeedback { hub, lock, settlement } => {
            file::Ask::SettleNotification { hub, lock, settlement }
        }
        _ => file::Ask::TakeNotification(AtHub::Dialled),
    })
}

/// Feedback of the hub dialled (`contract/hub-service.md 9.4`, over HTTPS).
fn decode_feedback(method: &Method, rest: &[&str]) -> Result<cloud_to_device::Ask, Refused> {
    let settle = |lock: &str, settlement| {
        let lock = LockToken::parse(lock.trim_matches('"'));
        let lock = lock.ok_or_else(|| Refused::new(ErrorKind::LockLost, "This is no lock token."))?;
        Ok(cloud_to_device::Ask::SettleFeedback { hub: AtHub::Dialled, lock, settlement })
    };
    match (method, rest) {
        (&Method::GET, []) => Ok(cloud_to_device::Ask::TakeFeedback(AtHub::Dialled)),
        (&Method::DELETE, [lock]) => settle(lock, Settlement::Complete),
        (&Method::POST, [lock, word]) if is(word, "abandon") => settle(lock, Settlement::Abandon),
        (_, [] | [_]) => Err(Refused::wrong_method()),
        (_, [_, word]) if is(word, "abandon") => Err(Refused::wrong_method()),
        _ => Err(Refused::nothing_here()),
    }
}

fn decode_call(request: &Request<Bytes>, method: &Method, rest: &[&str]) -> Result<(Operation, Asked), Refused> {
    let name = decode_name(rest)?;
    if *method != Method::POST {
        return Err(Refused::wrong_method());
    }
    let call = method_json::parse_call(&json::parse(request.body())?)?;
    let asked = Asked::Method(call.timeouts);
    Ok((Operation::Method(method::Ask::Invoke { name, call: Box::new(call) }), asked))
}

fn decode_twin(request: &Request<Bytes>, method: &Method, rest: &[&str]) -> Result<twin::Ask, Refused> {
    let name = decode_name(rest)?;
    let precondition = precondition(request.headers(), twin_json::parse_etag);
    let body = || {
        let body = json::parse(request.body())?;
        if body.is_object() {
            return Ok(body);
        }
        Err(Refused::from(InvalidJson::Type { member: "the body", wanted: "an object" }))
    };
    match *method {
        Method::GET => Ok(twin::Ask::Find(name)),
        Method::PATCH => {
            let change = Box::new(twin_json::parse_change(&body()?)?);
            Ok(twin::Ask::Patch { name, change, precondition })
        }
        Method::PUT => {
            let change = Box::new(twin_json::parse_replacement(&body()?)?);
            Ok(twin::Ask::Replace { name, change, precondition })
        }
        _ => Err(Refused::wrong_method()),
    }
}

/// Turns the reply into a response.
pub fn encode(reply: Result<Reply, Failure>, asked: &Asked) -> Response<Bytes> {
    match reply {
        Ok(Reply::Identity(answer)) => encode_identity(answer, asked),
        Ok(Reply::Twin(twin::Answer::Twin(twin, identity))) => {
            respond(StatusCode::OK, &twin_json::show(&twin, &identity))
        }
        Ok(Reply::Method(method::Answer::Responded(response))) => {
            json_text(StatusCode::OK, method_json::show_response(&response))
        }
        Ok(Reply::DigitalTwin(answer)) => digital_twin_http::encode(answer),
        Ok(Reply::Query(answer)) => encode_query(&answer),
        Ok(Reply::Job(answer)) => job_http::encode(&answer),
        Ok(Reply::Transfer(answer)) => transfer_http::encode(&answer),
        Ok(Reply::Configuration(answer)) => configuration_http::encode(&answer),
        Ok(Reply::CloudToDevice(answer)) => encode_cloud_to_device(answer),
        Ok(Reply::File(answer)) => encode_file(&answer),
        Ok(_) => empty(StatusCode::INTERNAL_SERVER_ERROR),
        Err(failure) if *asked == Asked::Twin && failure.kind == ErrorKind::ModuleNotFound => {
            refuse(&Failure { kind: ErrorKind::DeviceNotFound, ..failure })
        }
        Err(failure) => match asked {
            Asked::Method(timeouts) => refuse_call(&failure, *timeouts),
            Asked::Twin | Asked::Bulk(_) | Asked::Other => refuse(&failure),
        },
    }
}

/// A call that did not reach its device, or was not answered, names the time that was waited; one that was refused is
/// refused like everything else.
fn refuse_call(failure: &Failure, timeouts: Timeouts) -> Response<Bytes> {
    let waited = match failure.kind {
        ErrorKind::DeviceNotOnline => timeouts.connect,
        ErrorKind::DeviceUnanswering => timeouts.response,
        _ => return refuse(failure),
    };
    let response = respond(error::status(failure.kind), &error::hub_method_body(failure, waited));
    with_header(response, ERROR_CODE, spelling(failure.kind).hub_name)
}

/// A failure in this dialect's form, with its code in the body and in a header, and when to come again.
pub fn refuse(failure: &Failure) -> Response<Bytes> {
    let response = respond(error::status(failure.kind), &error::hub_body(failure));
    let response = with_header(response, ERROR_CODE, spelling(failure.kind).hub_name);
    match failure.retry_after_s {
        Some(seconds) => with_header(response, RETRY_AFTER, &seconds.to_string()),
        None => response,
    }
}

fn encode_cloud_to_device(answer: cloud_to_device::Answer) -> Response<Bytes> {
    use cloud_to_device::Answer;

    match answer {
        Answer::Purged { name, messages } => {
            let body = json!({ "totalMessagesPurged": messages, "deviceId": name.device, "moduleId": name.module });
            respond(StatusCode::OK, &body)
        }
        Answer::Feedback(None) | Answer::Settled => empty(StatusCode::NO_CONTENT),
        Answer::Feedback(Some(batch)) => {
            let response = respond(StatusCode::OK, &words::feedback(&batch.records));
            with_header(response, ETAG, &format!("\"{}\"", batch.lock))
        }
        Answer::Sent { .. } | Answer::Received(_) => empty(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

fn encode_file(answer: &file::Answer) -> Response<Bytes> {
    match answer {
        file::Answer::Notification(Some(locked)) => {
            let response = respond(StatusCode::OK, &words::file_notification(locked));
            with_header(response, ETAG, &format!("\"{}\"", locked.lock))
        }
        file::Answer::Notification(None) | file::Answer::Settled => empty(StatusCode::NO_CONTENT),
        _ => empty(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

fn encode_identity(answer: identity::Answer, asked: &Asked) -> Response<Bytes> {
    use identity::Answer;

    let body = match answer {
        Answer::Identity(identity) => registry_json::show_identity(&identity),
        Answer::Identities(identities) => identities.iter().map(registry_json::show_identity).collect(),
        Answer::Deleted => return empty(StatusCode::NO_CONTENT),
        Answer::Bulk(failures) => {
            let status = if failures.is_empty() { StatusCode::OK } else { StatusCode::BAD_REQUEST };
            return respond(status, &show_bulk(&failures, asked));
        }
        Answer::Rotated { choice, keys, failures } => {
            let status = match (keys.is_empty(), failures.is_empty()) {
                (_, true) => StatusCode::OK,
                (false, false) => StatusCode::MULTI_STATUS,
                (true, false) => StatusCode::BAD_REQUEST,
            };
            return respond(status, &registry_json::show_rotation(choice, &keys, &failures));
        }
        Answer::Devices { total, enabled, disabled } => json!({
            "totalDeviceCount": total,
            "enabledDeviceCount": enabled,
            "disabledDeviceCount": disabled,
        }),
        Answer::Connected(connected) => json!({ "connectedDeviceCount": connected }),
    };
    respond(StatusCode::OK, &body)
}

/// A page of a query's answer. One client reads the type of its items by name and letter case
/// (`contract/hub-service.md 6`).
fn encode_query(answer: &query::Answer) -> Response<Bytes> {
    let (items, item_type, next) = match answer {
        query::Answer::Twins(page) => {
            let items = page.items.iter().map(|(twin, identity)| twin_json::show(twin, identity)).collect();
            (items, "Twin", &page.next)
        }
        query::Answer::DeviceJobs(page) => {
            let items = page.items.iter().map(|row| Value::Object(document::of_device_job(row))).collect();
            (items, "DeviceJob", &page.next)
        }
        query::Answer::Rows(page) => (page.items.iter().cloned().map(Value::Object).collect(), "Raw", &page.next),
    };
    list(items, item_type, next.as_ref())
}

fn show_bulk(failures: &[(IdentityName, Failure)], asked: &Asked) -> Value {
    let mode = |name: &IdentityName| match asked {
        Asked::Bulk(modes) => modes.iter().find(|(known, _)| known == name).map(|(_, mode)| mode.name()),
        Asked::Twin | Asked::Method(_) | Asked::Other => None,
    };
    let errors: Vec<Value> = failures
        .iter()
        .map(|(name, failure)| {
            json!({
                "deviceId": name.device,
                "errorCode": registry_json::listed_code(failure.kind),
                "errorStatus": failure.public,
                "moduleId": name.module,
                "operation": mode(name),
            })
        })
        .collect();
    json!({ "isSuccessful": errors.is_empty(), "errors": errors, "warnings": [] })
}
