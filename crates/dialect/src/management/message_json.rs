//! A message of telemetry as Muster's own interface shows it, on the command line and where endpoints would not take one.
//!
//! The names are part of that interface. Start at [`show`] for a message of the log, at [`show_received`] for one that was
//! read at the Event Hubs-compatible endpoint.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use domain::clock::UnixTime;
use domain::message::{Message, SystemProperties};
use serde_json::{Map, Value, json};

use crate::hub::annotations::{Said, annotations};
use crate::hub::events_amqp::received::Received;
use crate::json::members;
use crate::time;

/// What is shown of any message.
struct Shown<'m> {
    sender: (Option<&'m str>, Option<&'m str>),
    partition: u16,
    /// Sequence number and offset.
    place: (u64, u64),
    enqueued_at: UnixTime,
    system: &'m SystemProperties,
    properties: Map<String, Value>,
    annotations: Map<String, Value>,
    body: &'m Bytes,
}

/// Shows a message that stands at `sequence` and `offset` of its partition.
pub fn show(message: &Message, (sequence, offset): (u64, u64), enqueued_at: UnixTime) -> Value {
    let module = message.sender.module.as_ref().map(domain::ids::ModuleId::as_str);
    Shown {
        sender: (Some(message.sender.device.as_str()), module),
        partition: message.partition,
        place: (sequence, offset),
        enqueued_at,
        system: &message.draft.system,
        properties: message.draft.told_properties().map(show_property).collect(),
        annotations: annotations(message, enqueued_at).map(show_annotation).collect(),
        body: &message.draft.body,
    }
    .show()
}

/// Shows a message that was read from `partition`.
pub fn show_received(partition: u16, received: &Received) -> Value {
    let annotated = |(name, said): &(String, proto::amqp::Value)| {
        let shown = match said {
            proto::amqp::Value::Timestamp(millis) => json!(millis),
            other => json!(other.as_str()?),
        };
        Some((name.clone(), shown))
    };
    Shown {
        sender: (received.device.as_deref(), received.module.as_deref()),
        partition,
        place: (received.sequence, received.offset),
        enqueued_at: received.enqueued_at,
        system: &received.system,
        properties: received.properties.iter().map(|(name, value)| show_property((name, value.as_deref()))).collect(),
        annotations: received.annotations.iter().filter_map(annotated).collect(),
        body: &received.body,
    }
    .show()
}

impl Shown<'_> {
    fn show(self) -> Value {
        let ((device, module), (sequence, offset)) = (self.sender, self.place);
        let mut shown = members([
            ("deviceId", json!(device)),
            ("moduleId", json!(module)),
            ("partition", json!(self.partition)),
            ("sequenceNumber", json!(sequence)),
            ("offset", json!(offset.to_string())),
            ("enqueuedTime", json!(time::rfc3339(self.enqueued_at))),
            ("systemProperties", Value::Object(show_system(self.system))),
            ("properties", Value::Object(self.properties)),
            ("annotations", Value::Object(self.annotations)),
        ]);
        let (name, body) = show_body(self.body, self.system.content_type.as_deref());
        shown.insert(name.to_owned(), body);
        Value::Object(shown)
    }
}

fn show_annotation((name, said): (&'static str, Said<'_>)) -> (String, Value) {
    let said = match said {
        Said::Text(text) => json!(text),
        Said::Moment(moment) => json!(moment.millis()),
    };
    (name.to_owned(), said)
}

fn show_property((name, value): (&str, Option<&str>)) -> (String, Value) {
    (name.to_owned(), json!(value))
}

fn show_system(system: &SystemProperties) -> Map<String, Value> {
    members([
        ("messageId", json!(system.message_id)),
        ("correlationId", json!(system.correlation_id)),
        ("userId", json!(system.user_id)),
        ("contentType", json!(system.content_type)),
        ("contentEncoding", json!(system.content_encoding)),
        ("expiryTimeUtc", json!(system.expires_at)),
        ("creationTimeUtc", json!(system.created_at)),
        ("component", json!(system.component)),
        ("outputName", json!(system.output_name)),
        ("interfaceId", json!(system.interface_id)),
        ("messageSchema", json!(system.message_schema)),
        ("diagnosticId", json!(system.diagnostic_id)),
        ("correlationContext", json!(system.correlation_context)),
    ])
}

/// The body: JSON if the device says that it is, else text, else bytes in base64.
fn show_body(body: &Bytes, content_type: Option<&str>) -> (&'static str, Value) {
    let is_json = content_type.is_some_and(|kind| kind.to_ascii_lowercase().starts_with("application/json"));
    let parsed = if is_json { serde_json::from_slice(body).ok() } else { None };
    match (parsed, std::str::from_utf8(body)) {
        (Some(document), _) => ("body", document),
        (None, Ok(text)) => ("body", json!(text)),
        (None, Err(_)) => ("bodyBase64", json!(STANDARD.encode(body))),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use domain::ids::{DeviceId, HubKey};
    use domain::message::{Draft, Origin};
    use domain::operation::events::Event;
    use domain::operation::identity::IdentityName;
    use domain::operation::session::AuthenticationMethod;

    use super::*;
    use crate::hub::events_amqp::event;

    fn message(draft: Draft) -> Message {
        Message {
            hub: HubKey(1),
            partition: 2,
            sender: IdentityName::device(DeviceId::parse("dev-1").unwrap()),
            generation: "7".to_owned(),
            origin: Origin::Telemetry(AuthenticationMethod::X509),
            model_id: None,
            draft,
        }
    }

    #[test]
    fn a_message_is_shown_with_all_that_was_said_of_it_wherever_it_was_read() {
        let json_type = Some("application/json; charset=utf-8");
        let bodies: [(&'static [u8], _, _, _); 4] = [
            (b"{\"a\":1}", json_type, "body", json!({ "a": 1 })),
            (b"{\"a\":1}", None, "body", json!("{\"a\":1}")),
            (b"{", json_type, "body", json!("{")),
            (b"\xff\x00", json_type, "bodyBase64", json!("/wA=")),
        ];
        for (body, content_type, name, expected) in bodies {
            let some = |text: &str| Some(text.to_owned());
            let system = SystemProperties {
                content_type: content_type.map(str::to_owned),
                created_at: some("2024-01-31T11:00:00Z"),
                output_name: some("out"),
                message_schema: some("schema"),
                diagnostic_id: some("trace"),
                correlation_context: some("ctx"),
                ..SystemProperties::default()
            };
            let properties = vec![("alert".to_owned(), Some("yes".to_owned())), ("bare".to_owned(), None)];
            let message = message(Draft { body: Bytes::from_static(body), system, properties });
            let enqueued_at = UnixTime::from_micros(1_706_702_400_123_000);
            let shown = show(&message, (3, 4_096), enqueued_at);
            assert_eq!(shown[name], expected);
            let properties = json!({
                "alert": "yes",
                "bare": null,
                "iothub-creation-time-utc": "2024-01-31T11:00:00Z",
                "iothub-message-schema": "schema",
                "iothub-outputname": "out",
            });
            assert_eq!(shown["properties"], properties);
            assert_eq!((&shown["partition"], &shown["sequenceNumber"]), (&json!(2), &json!(3)));
            assert_eq!(shown["offset"], json!("4096"));
            let method =
                "{\"scope\":\"device\",\"type\":\"x509\",\"issuer\":\"iothub\",\"acceptingIpFilterRule\":null}";
            assert_eq!(shown["annotations"]["iothub-connection-auth-method"], json!(method));
            assert_eq!(shown["annotations"]["iothub-enqueuedtime"], json!(1_706_702_400_123_i64));
            assert_eq!(shown["annotations"].get("iothub-connection-module-id"), None);

            let event = Event { sequence: 3, offset: 4_096, enqueued_at, message: Arc::new(message) };
            let received = Received::decode(&event::encode(&event, None)).unwrap();
            assert_eq!(show_received(2, &received), shown);
        }
    }
}
