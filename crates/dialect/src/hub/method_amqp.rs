//! Direct methods over AMQP: the request, and the result that comes back (`contract/hub-device.md 4.8`).
//!
//! Both are named by a UUID; some clients send it back as text. Start at [`request`] and [`MethodResult::parse`].

use domain::ids::MethodRequestId;
use domain::method::{NoResponse, Payload, Request, Response};
use domain::operation::ErrorKind;
use proto::amqp::{Body, Map, Message, MessageId, Properties, Value};

use crate::amqp::body::bytes_of;
use crate::error::Refused;

const NAME: &str = "IoThub-methodname";
const STATUS: &str = "IoThub-status";

/// The request, as a device gets it. Its ID is a UUID: C and C# read no other type, and Node no other version.
pub fn request(request: &Request) -> Message {
    let correlation_id = Some(MessageId::Uuid(request.id.bits().to_be_bytes()));
    Message {
        properties: Some(Box::new(Properties { correlation_id, ..Properties::default() })),
        application_properties: Map::from_iter([(NAME, request.method.to_string())]),
        body: Body::data(request.payload.bytes().clone()),
        ..Message::default()
    }
}

/// What a device answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MethodResult {
    /// Which request it answers; `None` if that is none that was ever made.
    pub request: Option<MethodRequestId>,
    /// What it says; or why that cannot be passed on.
    pub response: Result<Response, NoResponse>,
}

impl MethodResult {
    /// Reads a result.
    pub fn parse(message: &Message) -> Result<Self, Refused> {
        let request = match message.correlation_id() {
            Some(MessageId::Uuid(bytes)) => Some(MethodRequestId::from_bits(u128::from_be_bytes(*bytes))),
            Some(MessageId::String(text)) => MethodRequestId::parse(text),
            Some(MessageId::Ulong(_) | MessageId::Binary(_)) | None => None,
        };
        let status = message.application_properties.find(STATUS).and_then(Value::as_i64);
        let status = status.and_then(|status| i32::try_from(status).ok());
        let no_status = || Refused::new(ErrorKind::InvalidArgument, "the result of a method has a status of 32 bits");
        let status = status.ok_or_else(no_status)?;
        let payload = Payload::parse(bytes_of(&message.body).unwrap_or_default());
        let response = payload.map(|payload| Response { status, payload }).map_err(NoResponse::from);
        Ok(Self { request, response })
    }
}

#[cfg(test)]
mod tests {
    use domain::ids::MethodName;
    use domain::method::{InvalidPayload, Waiter};

    use super::*;

    const ID: u128 = 0x0123_4567_89ab_4def_8123_4567_89ab_cdef;

    fn result(id: Option<MessageId>, status: Value, body: Body) -> Result<MethodResult, u16> {
        let message = Message {
            properties: Some(Box::new(Properties { correlation_id: id, ..Properties::default() })),
            application_properties: Map::from_iter([(STATUS, status)]),
            body,
            ..Message::default()
        };
        // As it comes over the wire.
        let message = Message::decode(&message.to_bytes()).unwrap();
        MethodResult::parse(&message).map_err(|refused| crate::error::spelling(refused.kind).status)
    }

    #[test]
    fn a_request_has_the_types_that_clients_read() {
        let waiter = Waiter::new();
        let payload = Payload::parse("{\"a\": 1}".into()).unwrap();
        let made = waiter.request(MethodRequestId::from_bits(ID), MethodName::parse("reboot").unwrap(), payload);
        let message = Message::decode(&request(&made).to_bytes()).unwrap();
        assert_eq!(message.correlation_id(), Some(&MessageId::Uuid(ID.to_be_bytes())));
        assert_eq!(message.application_properties, Map::from_iter([(NAME, "reboot")]));
        assert_eq!(message.body, Body::data("{\"a\": 1}"));
        let nothing = waiter.request(made.id, made.method, Payload::NULL);
        assert_eq!(request(&nothing).body, Body::data("null"), "a section is there in any case");
    }

    #[test]
    fn every_clients_result_is_read() {
        let uuid = || Some(MessageId::Uuid(ID.to_be_bytes()));
        let text = |text: &str| Some(MessageId::String(text.into()));
        let answered = |status, payload: &'static str| {
            let payload = Payload::parse(payload.into()).unwrap();
            Ok(MethodResult {
                request: Some(MethodRequestId::from_bits(ID)),
                response: Ok(Response { status, payload }),
            })
        };
        let unknown =
            |status| Ok(MethodResult { request: None, response: Ok(Response { status, payload: Payload::NULL }) });
        let cases = [
            ("C", result(uuid(), 200.into(), Body::data("{}")), answered(200, "{}")),
            (
                "Node: an ID as text",
                result(text("01234567-89ab-4def-8123-456789abcdef"), (-500i64).into(), Body::data("null")),
                answered(-500, "null"),
            ),
            ("without a body", result(uuid(), 204.into(), Body::Empty), answered(204, "null")),
            ("text", result(uuid(), 1u8.into(), Body::Value("\"ä\"".into())), answered(1, "\"ä\"")),
            ("an ID that is none", result(text("1"), 200.into(), Body::Empty), unknown(200)),
            ("a number for an ID", result(Some(MessageId::Ulong(1)), 200.into(), Body::Empty), unknown(200)),
            ("no ID", result(None, 200.into(), Body::Empty), unknown(200)),
            ("no status", result(uuid(), Value::Null, Body::Empty), Err(400)),
            ("a status that is text", result(uuid(), "200".into(), Body::Empty), Err(400)),
            ("a status of 33 bits", result(uuid(), (1i64 << 32).into(), Body::Empty), Err(400)),
        ];
        for (name, found, expected) in cases {
            assert_eq!(found, expected, "{name}");
        }
        let broken = result(uuid(), 200.into(), Body::data("no JSON")).unwrap();
        assert_eq!(broken.response, Err(InvalidPayload::NotJson.into()), "its caller is told at once");
    }
}
