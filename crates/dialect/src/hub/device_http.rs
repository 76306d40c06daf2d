//! A device at a hub over HTTPS: telemetry, cloud-to-device messages, uploads of files (`contract/hub-device.md 5.2` to
//! `5.4`).
//!
//! The device proves itself with each request. Names in paths are compared without regard to case, identities with.
//! Whether a lock holds is for the service to say. Start at [`decode`].

use bytes::Bytes;
use domain::cloud_to_device::{Delivery, Settlement};
use domain::ids::LockToken;
use domain::operation::cloud_to_device::{Answer, Ask, Receiver};
use domain::operation::identity::IdentityName;
use domain::operation::{ErrorKind, Failure, Operation, Reply, file, telemetry};
use http::header::{CONTENT_TYPE, ETAG};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};

use super::registry_json::parse_name;
use super::service_http::refuse;
use super::{file_json, telemetry_http, topics, words};
use crate::error::Refused;
use crate::http::{Target, empty, is, json};
use crate::time;

/// Whether `target` belongs to this dialect.
pub fn owns(target: &Target) -> bool {
    let is_known = |word: &str| is(word, "devicebound") || is(word, "events");
    let segments = target.segments();
    split(&segments, "messages").is_some_and(|(_, rest)| rest.first().is_some_and(|word| is_known(word)))
        || split(&segments, "files").is_some()
}

/// The identity that a path is about, and what follows `word`.
fn split<'a, 's>(segments: &'a [&'s str], word: &str) -> Option<((&'s str, Option<&'s str>), &'a [&'s str])> {
    match segments {
        [first, device, found, rest @ ..] if is(first, "devices") && is(found, word) => Some(((device, None), rest)),
        [first, device, modules, module, found, rest @ ..]
            if is(first, "devices") && is(modules, "modules") && is(found, word) =>
        {
            Some(((device, Some(module)), rest))
        }
        _ => None,
    }
}

/// Turns a request into an operation, and says whose it is; or into its refusal. Any API version is taken, or none.
pub fn decode(request: &Request<Bytes>, target: &Target) -> Result<(Operation, IdentityName), Refused> {
    let segments = target.segments();
    if let Some(((device, module), rest)) = split(&segments, "files") {
        let name = parse_name(device, module)?;
        return Ok((Operation::File(decode_file(request, rest, name.clone())?), name));
    }
    let ((device, module), rest) = split(&segments, "messages").ok_or_else(Refused::nothing_here)?;
    let name = parse_name(device, module)?;
    match rest {
        [word] if is(word, "events") => {
            if *request.method() != Method::POST {
                return Err(Refused::wrong_method());
            }
            let messages = telemetry_http::decode(request)?;
            return Ok((Operation::Telemetry(telemetry::Ask::Post { name: name.clone(), messages }), name));
        }
        [word, ..] if is(word, "events") => return Err(Refused::nothing_here()),
        _ => {}
    }
    let receiver = Receiver::Claimed(name.clone());
    let ask = match (rest, request.method()) {
        ([_], &Method::GET) => Ask::Receive { receiver, limit: 1 },
        ([_, lock], &Method::DELETE) => {
            let settlement = if is_rejected(target) { Settlement::Reject } else { Settlement::Complete };
            Ask::Settle { receiver, lock: parse_lock(lock)?, settlement }
        }
        ([_, lock, word], &Method::POST) if is(word, "abandon") => {
            Ask::Settle { receiver, lock: parse_lock(lock)?, settlement: Settlement::Abandon }
        }
        ([_] | [_, _], _) => return Err(Refused::wrong_method()),
        ([_, _, word], _) if is(word, "abandon") => return Err(Refused::wrong_method()),
        _ => return Err(Refused::nothing_here()),
    };
    Ok((Operation::CloudToDevice(ask), name))
}

/// An upload begins, or is over.
fn decode_file(request: &Request<Bytes>, rest: &[&str], name: IdentityName) -> Result<file::Ask, Refused> {
    let named = match rest {
        [] => None,
        [word] if is(word, "notifications") => Some(None),
        [word, upload] if is(word, "notifications") => Some(Some(*upload)),
        _ => return Err(Refused::nothing_here()),
    };
    if *request.method() != Method::POST {
        return Err(Refused::wrong_method());
    }
    Ok(match named {
        None => file::Ask::Begin { name, file: file_json::parse_begin(request.body())? },
        Some(named) => {
            let (upload, outcome) = file_json::parse_end(request.body(), named)?;
            file::Ask::End { name, upload, outcome }
        }
    })
}

/// Java writes the question mark of the query twice.
fn is_rejected(target: &Target) -> bool {
    ["reject", "?reject"].into_iter().any(|name| target.parameter(name).is_some_and(|value| !is(value, "false")))
}

/// What is no token was never given out, so that it is as lost as one that has run out.
fn parse_lock(text: &str) -> Result<LockToken, Refused> {
    LockToken::parse(text.trim_matches('"'))
        .ok_or_else(|| Refused::new(ErrorKind::LockLost, "The lock token is not one that was given out."))
}

/// Turns the reply into a response; `host` is what the device dialled.
pub fn encode(reply: Result<Reply, Failure>, name: &IdentityName, host: &str) -> Response<Bytes> {
    match reply {
        Ok(Reply::CloudToDevice(Answer::Received(mut deliveries))) => match deliveries.pop() {
            Some(delivery) => show(delivery, name),
            None => empty(StatusCode::NO_CONTENT),
        },
        Ok(Reply::CloudToDevice(Answer::Settled) | Reply::Telemetry(telemetry::Answer::Stored)) => {
            empty(StatusCode::NO_CONTENT)
        }
        Ok(Reply::File(file::Answer::Begun { container, file, token })) => {
            json(StatusCode::OK, &file_json::show_begun(host, &container, &file, &token))
        }
        Ok(Reply::File(file::Answer::Ended)) => empty(StatusCode::NO_CONTENT),
        Ok(_) => empty(StatusCode::INTERNAL_SERVER_ERROR),
        Err(failure) => refuse(&failure),
    }
}

/// A message as body and headers. A property that no header can hold is left out, and the names of the others lose their
/// letter case.
fn show(delivery: Delivery, name: &IdentityName) -> Response<Bytes> {
    let message = delivery.message;
    let mut response = Response::new(message.body);
    let system = message.system;
    let expires_at = message.expires_at.map(|_| time::rfc3339(delivery.expires_at));
    let acknowledgement = words::acknowledgement(message.acknowledgement);
    let mut set = |name: &str, value: &str| {
        // Text beyond ASCII goes as its bytes.
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value.as_bytes()))
        {
            response.headers_mut().insert(name, value);
        }
    };
    for (property, value) in message.properties.iter().filter_map(|(property, value)| Some((property, value.as_ref()?)))
    {
        set(&format!("iothub-app-{property}"), value);
    }
    set(ETAG.as_str(), &format!("\"{}\"", delivery.lock));
    set("iothub-sequencenumber", &delivery.sequence.to_string());
    set("iothub-to", &topics::cloud_to_device_address(name));
    set("iothub-enqueuedtime", &time::twelve_hours(delivery.enqueued_at));
    set("iothub-deliverycount", &delivery.delivery_count.to_string());
    set("iothub-ack", acknowledgement);
    // Of the content's type and encoding, C reads the names of HTTP without their hyphen, and others the hub's.
    let said = [
        (&["iothub-messageid"][..], system.message_id),
        (&["iothub-correlationid"], system.correlation_id),
        (&["iothub-userid"], system.user_id),
        (&["iothub-expiry"], expires_at),
        (&["iothub-contenttype", "contenttype", CONTENT_TYPE.as_str()], system.content_type),
        (&["iothub-contentencoding", "contentencoding"], system.content_encoding),
    ];
    for (names, value) in said.iter().filter_map(|(names, value)| Some((names, value.as_ref()?))) {
        names.iter().for_each(|name| set(name, value));
    }
    response
}

#[cfg(test)]
mod tests {
    use domain::clock::UnixTime;
    use domain::cloud_to_device::{Acknowledgement, Draft, SystemProperties};
    use domain::ids::DeviceId;

    use super::*;
    use crate::error;
    use crate::vectors::{Exchange, request, show_response};

    fn show_ask(operation: &Operation) -> String {
        let claimed = |receiver: &Receiver| match receiver {
            Receiver::Claimed(name) => name.clone(),
            Receiver::Connected(_) | Receiver::Attached(_) => panic!("nobody is connected over HTTPS"),
        };
        match operation {
            Operation::CloudToDevice(Ask::Receive { receiver, limit: 1 }) => {
                format!("receive for {}", claimed(receiver))
            }
            Operation::CloudToDevice(Ask::Settle { receiver, lock, settlement }) => {
                format!("{settlement:?} {lock} of {}", claimed(receiver))
            }
            Operation::Telemetry(telemetry::Ask::Post { name, messages }) => {
                format!("keep {} of {name}", messages.len())
            }
            Operation::File(file::Ask::Begin { name, file }) => format!("upload {file} of {name}"),
            Operation::File(file::Ask::End { name, upload, outcome }) => {
                format!("end {upload} of {name}, {}", if outcome.is_success { "done" } else { "failed" })
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn requests_of_clients_mean_what_they_should() {
        let text = include_str!("../../../../testdata/wire/hub/device-requests.json");
        let vectors: Vec<Exchange<String>> = serde_json::from_str(text).unwrap();
        assert!(vectors.len() >= 18);
        for Exchange { source, request: line, headers, body, asks, refused } in vectors {
            let (request, target) = request(&line, &headers, body.as_bytes());
            assert!(owns(&target), "{line}");
            let found = decode(&request, &target).map(|(operation, _)| show_ask(&operation)).map_err(|refused| {
                let spelling = error::spelling(refused.kind);
                format!("{} {}", spelling.status, spelling.hub_name)
            });
            assert_eq!((found.clone().ok(), found.err()), (asks, refused), "{source}: {line}");
        }
    }

    #[test]
    fn a_message_becomes_headers_and_a_body() {
        let text = |text: &str| Some(text.to_owned());
        let message = Draft {
            system: SystemProperties {
                message_id: text("m/1"),
                correlation_id: text("c"),
                user_id: text("u"),
                content_type: text("text/plain"),
                content_encoding: text("utf-8"),
            },
            properties: vec![
                ("Key".to_owned(), text("v")),
                ("no header".to_owned(), text("v")),
                ("n".to_owned(), text("a\nb")),
                ("null".to_owned(), None),
            ],
            expires_at: Some(UnixTime::from_seconds(0)),
            acknowledgement: Acknowledgement::Full,
            body: "hot".into(),
        };
        let noon = UnixTime::from_seconds(1_575_892_800);
        let delivery = Delivery {
            lock: LockToken::from_bits(1),
            sequence: 7,
            enqueued_at: noon,
            expires_at: noon,
            delivery_count: 2,
            message,
        };
        let name = IdentityName::device(DeviceId::parse("dev-1").unwrap());
        let reply = Ok(Reply::CloudToDevice(Answer::Received(vec![delivery])));
        let expected = [
            "200",
            "contentencoding: utf-8",
            "content-type: text/plain",
            "contenttype: text/plain",
            "etag: \"00000000-0000-0000-0000-000000000001\"",
            "iothub-ack: full",
            "iothub-app-key: v",
            "iothub-contentencoding: utf-8",
            "iothub-contenttype: text/plain",
            "iothub-correlationid: c",
            "iothub-deliverycount: 2",
            "iothub-enqueuedtime: 12/09/2019 12:00:00 PM",
            "iothub-expiry: 2019-12-09T12:00:00.0000000Z",
            "iothub-messageid: m/1",
            "iothub-sequencenumber: 7",
            "iothub-to: /devices/dev-1/messages/deviceBound",
            "iothub-userid: u",
            "hot",
        ];
        let mut shown = show_response(&encode(reply, &name, "h"));
        let mut expected = expected.map(str::to_owned).to_vec();
        shown.sort();
        expected.sort();
        assert_eq!(shown, expected);
        let none = Ok(Reply::CloudToDevice(Answer::Received(Vec::new())));
        assert_eq!(show_response(&encode(none, &name, "h")), ["204", ""]);
    }
}
