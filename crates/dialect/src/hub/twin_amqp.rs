//! Requests about the twin over AMQP, and what is said of it (`contract/hub-device.md 4.8`).
//!
//! What is asked stands in message annotations, as symbols or strings; a body may be missing altogether. Start at
//! [`TwinRequest::parse`].

use bytes::Bytes;
use domain::operation::twin::DesiredChange;
use domain::operation::{ErrorKind, Failure};
use proto::amqp::{Body, Map, Message, MessageId, Properties, Symbol, Value};

use super::twin_answer::{self, TwinAnswer, no_text};
use crate::amqp::body::bytes_of;
use crate::error::Refused;

const REPORTED: &str = "/properties/reported";
const NOTIFICATIONS: &str = "/notifications/twin/properties/desired";

const STATUS: Symbol = Symbol::from_static("status");
const VERSION: Symbol = Symbol::from_static("version");
const RESOURCE: Symbol = Symbol::from_static("resource");
/// Where a change of desired properties comes from.
const DESIRED: &str = "/properties/desired";

/// What a device asks of its twin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TwinRequest {
    /// The document.
    Read,
    /// To merge into the reported properties.
    Report {
        /// The patch, as received.
        patch: String,
        /// The version the device builds on, if it names one.
        expected_version: Option<u64>,
    },
    /// To be told of changes.
    Listen,
    /// To be told no more.
    Cease,
}

impl TwinRequest {
    /// Reads what `message` asks.
    pub fn parse(message: &Message) -> Result<Self, Refused> {
        let annotation = |name| message.message_annotations.find(name);
        let resource = annotation("resource").and_then(Value::as_str).unwrap_or_default();
        let operation = annotation("operation").and_then(Value::as_str).unwrap_or_default();
        let is = |known: &str| resource.eq_ignore_ascii_case(known);
        match operation {
            "GET" if resource.is_empty() => Ok(Self::Read),
            "PATCH" if is(REPORTED) => {
                let version = annotation("version").and_then(Value::as_i64);
                let patch = bytes_of(&message.body).unwrap_or_default();
                let patch = String::from_utf8(patch.into()).map_err(|_| no_text())?;
                Ok(Self::Report { patch, expected_version: version.and_then(|version| version.try_into().ok()) })
            }
            "PUT" if is(NOTIFICATIONS) => Ok(Self::Listen),
            "DELETE" if is(NOTIFICATIONS) => Ok(Self::Cease),
            _ => Err(Refused::new(ErrorKind::InvalidArgument, "the operation and the resource are not known")),
        }
    }
}

/// The answer to a request, which it repeats the name of in its own type.
pub fn response(answer: TwinAnswer, correlation_id: Option<MessageId>) -> Message {
    let TwinAnswer { status, version, body, .. } = answer;
    let mut annotations = Map::EMPTY;
    annotations.push(STATUS, i32::from(status));
    if let Some(version) = version {
        annotations.push(VERSION, i64::try_from(version).unwrap_or(i64::MAX));
    }
    Message {
        message_annotations: annotations,
        properties: Some(Box::new(Properties { correlation_id, ..Properties::default() })),
        body: Body::data(body),
        ..Message::default()
    }
}

/// What is said instead of `answer`, which cannot be.
pub fn refused(answer: &Message, failure: &Failure) -> Message {
    response(TwinAnswer::refused(failure), answer.correlation_id().cloned())
}

/// The answer to a request that is done with nothing to say.
pub fn done() -> TwinAnswer {
    TwinAnswer { status: 200, version: None, desired: None, body: Bytes::new() }
}

/// A change of the desired properties. It answers nothing, and C# and C know it by that.
pub fn notification(change: &DesiredChange) -> Message {
    let mut annotations = Map::EMPTY;
    annotations.push(RESOURCE, DESIRED);
    Message { message_annotations: annotations, body: Body::data(twin_answer::change(change)), ..Message::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(annotations: &[(&str, Value)], body: Body) -> Result<TwinRequest, u16> {
        let annotations = annotations.iter().map(|(name, value)| (*name, value.clone())).collect();
        let message = Message { message_annotations: annotations, body, ..Message::default() };
        // As it comes over the wire.
        let message = Message::decode(&message.to_bytes()).unwrap();
        TwinRequest::parse(&message).map_err(|refused| crate::error::spelling(refused.kind).status)
    }

    fn symbol(text: &'static str) -> Value {
        Symbol::from_static(text).into()
    }

    #[test]
    fn every_clients_request_is_read() {
        let report = |version| TwinRequest::Report { patch: "{\"a\":1}".into(), expected_version: version };
        let (patch, reported) = (("operation", symbol("PATCH")), ("resource", symbol(REPORTED)));
        let body = || Body::data("{\"a\":1}");
        let listen = [("operation", symbol("PUT")), ("resource", symbol(NOTIFICATIONS)), ("version", Value::Null)];
        let cases = [
            ("Node and C: a space", request(&[("operation", symbol("GET"))], Body::data(" ")), Ok(TwinRequest::Read)),
            ("C# and Java: no body", request(&[("operation", symbol("GET"))], Body::Empty), Ok(TwinRequest::Read)),
            ("as strings", request(&[("operation", "GET".into())], Body::Empty), Ok(TwinRequest::Read)),
            ("a patch", request(&[patch.clone(), reported.clone()], body()), Ok(report(None))),
            (
                "C#: a version that is null",
                request(&[patch.clone(), reported.clone(), ("version", Value::Null)], body()),
                Ok(report(None)),
            ),
            (
                "Java: a version",
                request(&[patch.clone(), reported.clone(), ("version", 4.into())], body()),
                Ok(report(Some(4))),
            ),
            ("subscribe", request(&listen, Body::Empty), Ok(TwinRequest::Listen)),
            (
                "unsubscribe",
                request(&[("operation", symbol("DELETE")), listen[1].clone()], Body::data(" ")),
                Ok(TwinRequest::Cease),
            ),
            ("no UTF-8", request(&[patch.clone(), reported], Body::data(&b"\xff"[..])), Err(400)),
            ("a patch of something else", request(&[patch, listen[1].clone()], body()), Err(400)),
            ("no operation", request(&[], Body::Empty), Err(400)),
        ];
        for (name, found, expected) in cases {
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn an_answer_has_the_types_that_clients_read() {
        let answer = TwinAnswer { status: 204, version: Some(7), desired: None, body: Bytes::new() };
        let message = response(answer, Some(MessageId::Uuid([9; 16])));
        let message = Message::decode(&message.to_bytes()).unwrap();
        assert_eq!(message.correlation_id(), Some(&MessageId::Uuid([9; 16])));
        let expected: Map = [(STATUS, Value::Int(204)), (VERSION, Value::Long(7))].into_iter().collect();
        assert_eq!(message.message_annotations, expected, "keys are symbols");
    }

    #[test]
    fn a_change_answers_nothing() {
        let patch = serde_json::json!({ "t": 1, "$version": 3 });
        let change = DesiredChange { version: 3, patch: std::sync::Arc::new(patch.as_object().unwrap().clone()) };
        let message = Message::decode(&notification(&change).to_bytes()).unwrap();
        assert_eq!(message.correlation_id(), None);
        assert_eq!(message.body, Body::data("{\"t\":1,\"$version\":3}"));
    }
}
