//! A message of a hub as a CloudEvent 1.0 in JSON, in the shape that Azure gives one: `type` and `data` are those of its
//! telemetry events.
//!
//! An event has the same `id` whenever it is sent, so that a receiver can drop what it has seen; `sequence` rises with each
//! message of a partition, and with it of a device. Start at [`event`].

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use domain::message::{Origin, StoredPlace};
use domain::operation::identity::IdentityName;
use domain::query::message::json_body;
use domain::route::{Parcel, Source};
use serde_json::{Map, Value, json};

use super::annotations::{Said, annotations};
use crate::json::members;
use crate::time;

/// The media type of one event (CloudEvents, JSON format 3).
pub const MEDIA_TYPE: &str = "application/cloudevents+json";
/// The media type of several (CloudEvents, JSON format 4).
pub const BATCH_MEDIA_TYPE: &str = "application/cloudevents-batch+json";

/// What tells an event from every other one of this server: also from those of a hub of this name that has gone, or that
/// came after a backup which was restored. Receivers drop what has an ID that they have seen.
pub fn id(parcel: &Parcel) -> String {
    let StoredPlace { sequence, enqueued_at, .. } = parcel.place;
    format!("{}-{}-{sequence}-{}", parcel.hub, parcel.message.partition, enqueued_at.micros())
}

/// The event of a message.
pub fn event(parcel: &Parcel) -> Value {
    let Parcel { hub, place, message, .. } = parcel;
    let StoredPlace { sequence, enqueued_at, .. } = place;
    let kind = match message.origin {
        Origin::Telemetry(_) => "DeviceTelemetry",
        origin @ Origin::Hub(_) => Source::of(origin).name(),
    };
    json!({
        "specversion": "1.0",
        "id": id(parcel),
        "source": format!("/hubs/{hub}"),
        "type": format!("Microsoft.Devices.{kind}"),
        "subject": subject(&message.sender),
        "time": time::rfc3339(*enqueued_at),
        "datacontenttype": "application/json",
        "sequence": sequence.to_string(),
        "partition": message.partition.to_string(),
        "data": data(parcel),
    })
}

fn subject(sender: &IdentityName) -> String {
    let device = &sender.device;
    match &sender.module {
        None => format!("devices/{device}"),
        Some(module) => format!("devices/{device}/modules/{module}"),
    }
}

fn data(parcel: &Parcel) -> Map<String, Value> {
    let Parcel { place, message, .. } = parcel;
    let draft = &message.draft;
    let properties = draft.told_properties().map(|(name, value)| (name.to_owned(), json!(value))).collect();
    let said = annotations(message, place.enqueued_at).map(|(name, said)| match said {
        Said::Text(text) => (name.to_owned(), json!(text)),
        Said::Moment(moment) => (name.to_owned(), json!(time::rfc3339(moment))),
    });
    let mut system: Map<String, Value> = said.collect();
    system.extend(members([
        ("iothub-content-type", json!(draft.system.content_type)),
        ("iothub-content-encoding", json!(draft.system.content_encoding)),
        ("iothub-message-id", json!(draft.system.message_id)),
        ("iothub-correlation-id", json!(draft.system.correlation_id)),
        ("iothub-user-id", json!(draft.system.user_id)),
    ]));
    let body = json_body(&draft.system, &draft.body).unwrap_or_else(|| json!(STANDARD.encode(&draft.body)));
    members([("properties", Value::Object(properties)), ("systemProperties", Value::Object(system)), ("body", body)])
}

#[cfg(test)]
mod tests {
    use domain::clock::UnixTime;
    use domain::ids::{DeviceId, HubKey};
    use domain::message::{Draft, EventSource, Message, SystemProperties};
    use domain::operation::session::AuthenticationMethod;

    use super::*;

    fn parcel(origin: Origin, body: &'static [u8], said: Option<&str>) -> Parcel {
        let system = SystemProperties {
            content_type: said.map(str::to_owned),
            content_encoding: Some("utf-8".to_owned()),
            created_at: Some("noon".to_owned()),
            message_schema: Some("schema".to_owned()),
            output_name: Some("out".to_owned()),
            interface_id: Some("urn:i".to_owned()),
            component: Some("thermostat".to_owned()),
            diagnostic_id: Some("trace".to_owned()),
            correlation_context: Some("ctx".to_owned()),
            ..SystemProperties::default()
        };
        let properties = vec![("level".to_owned(), Some("hot".to_owned())), ("bare".to_owned(), None)];
        let message = Message {
            hub: HubKey(1),
            partition: 3,
            sender: IdentityName::device(DeviceId::parse("dev-1").unwrap()),
            generation: "7".to_owned(),
            origin,
            model_id: None,
            draft: Draft { body: body.into(), system, properties },
        };
        let place = StoredPlace { sequence: 42, offset: 9, enqueued_at: UnixTime::from_micros(1_706_702_400_123_456) };
        Parcel { hub: "hub".parse().unwrap(), place, message: message.into() }
    }

    #[test]
    fn an_event_says_whose_it_is_and_has_its_body_as_json_or_base64() {
        let telemetry = Origin::Telemetry(AuthenticationMethod::DeviceKey);
        let cases = [
            (telemetry, b"{\"a\":1}".as_slice(), Some("application/json"), json!({ "a": 1 }), "DeviceTelemetry"),
            (telemetry, b"{\"a\":1}", None, json!("eyJhIjoxfQ=="), "DeviceTelemetry"),
            (telemetry, b"\xff", Some("application/json"), json!("/w=="), "DeviceTelemetry"),
            (Origin::Hub(EventSource::Lifecycle), b"{}", Some("application/json"), json!({}), "DeviceLifecycleEvents"),
        ];
        for (origin, body, said, expected, kind) in cases {
            let event = event(&parcel(origin, body, said));
            assert_eq!(event["data"]["body"], expected);
            assert_eq!(event["type"], format!("Microsoft.Devices.{kind}"));
            let members = ["specversion", "id", "source", "subject", "time", "sequence", "partition"];
            let expected = [
                "1.0",
                "hub-3-42-1706702400123456",
                "/hubs/hub",
                "devices/dev-1",
                "2024-01-31T12:00:00.1234560Z",
                "42",
                "3",
            ];
            assert_eq!(members.map(|member| event[member].as_str().unwrap_or_default()), expected);
            let properties = json!({
                "level": "hot",
                "bare": null,
                "iothub-creation-time-utc": "noon",
                "iothub-message-schema": "schema",
                "iothub-outputname": "out",
            });
            assert_eq!(event["data"]["properties"], properties);
            let said = [
                ("iothub-connection-device-id", "dev-1"),
                ("iothub-creation-time-utc", "noon"),
                ("iothub-interface-id", "urn:i"),
                ("dt-subject", "thermostat"),
                ("Diagnostic-Id", "trace"),
                ("Correlation-Context", "ctx"),
            ];
            for (name, value) in said {
                assert_eq!(event["data"]["systemProperties"][name], value, "{name}");
            }
        }
    }
}
