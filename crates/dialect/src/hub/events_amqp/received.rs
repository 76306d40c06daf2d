//! A message of the Event Hubs-compatible endpoint as its reader takes it in: what [`super::event`] writes, read again.
//!
//! Start at [`Received::decode`].

use bytes::Bytes;
use domain::clock::UnixTime;
use domain::message::{Property, SystemProperties};
use proto::amqp::{Map, Message, Value};

use crate::amqp::body::bytes_of;
use crate::hub::telemetry_amqp::{id_text, text};
use crate::time;

/// Beginning of the annotations by which a message's place is told.
const PLACE: &str = "x-opt-";

/// A message, and where it stands in its partition.
#[derive(Clone, Debug, PartialEq)]
pub struct Received {
    /// Counts the messages of the partition, from 0, with gaps.
    pub sequence: u64,
    /// Counts the bytes of the partition, from 0.
    pub offset: u64,
    /// When it was kept, in whole milliseconds.
    pub enqueued_at: UnixTime,
    /// Who sent it.
    pub device: Option<String>,
    /// Which module of that device, if one did.
    pub module: Option<String>,
    /// What the sender said of it, as far as readers are told.
    pub system: SystemProperties,
    /// Application properties, system properties that are called so among them.
    pub properties: Vec<Property>,
    /// What the hub says of it beside its place; texts, and moments as numbers of milliseconds.
    pub annotations: Vec<(String, Value)>,
    /// The body.
    pub body: Bytes,
}

impl Received {
    /// Reads a message; `None` of one that does not say where it stands.
    pub fn decode(message: &Message) -> Option<Self> {
        let said = &message.message_annotations;
        let number = |name| said.find(name).and_then(Value::as_i64).and_then(|number| u64::try_from(number).ok());
        let words = |name| said.find(name).and_then(Value::as_str).map(str::to_owned);
        let Some(Value::Timestamp(enqueued_at)) = said.find("x-opt-enqueued-time") else { return None };
        let others = said.0.iter().filter_map(|(name, value)| Some((text(name)?, value.clone())));
        Some(Self {
            sequence: number("x-opt-sequence-number")?,
            offset: words("x-opt-offset")?.parse().ok()?,
            enqueued_at: UnixTime::from_micros(enqueued_at.saturating_mul(1_000)),
            device: words("iothub-connection-device-id"),
            module: words("iothub-connection-module-id"),
            system: system(message),
            properties: properties(&message.application_properties),
            annotations: others.filter(|(name, _)| !name.starts_with(PLACE)).collect(),
            body: bytes_of(&message.body)?,
        })
    }
}

fn system(message: &Message) -> SystemProperties {
    let annotated = |name| message.message_annotations.find(name).and_then(text);
    let named = |name| message.application_properties.find(name).and_then(text);
    let properties = message.properties.as_deref().cloned().unwrap_or_default();
    let moment = |millis: i64| time::rfc3339(UnixTime::from_micros(millis.saturating_mul(1_000)));
    SystemProperties {
        message_id: properties.message_id.map(id_text),
        correlation_id: properties.correlation_id.map(id_text),
        user_id: properties.user_id.map(|user| String::from_utf8_lossy(&user).into_owned()),
        content_type: properties.content_type.map(|kind| kind.to_string()),
        content_encoding: properties.content_encoding.map(|encoding| encoding.to_string()),
        expires_at: properties.absolute_expiry_time.map(moment),
        created_at: annotated("iothub-creation-time-utc"),
        component: annotated("dt-subject"),
        output_name: named("iothub-outputname"),
        interface_id: annotated("iothub-interface-id"),
        message_schema: named("iothub-message-schema"),
        diagnostic_id: annotated("Diagnostic-Id"),
        correlation_context: annotated("Correlation-Context"),
    }
}

fn properties(said: &Map) -> Vec<Property> {
    said.0.iter().filter_map(|(name, value)| Some((text(name)?, text(value)))).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use domain::ids::{DeviceId, HubKey, ModuleId};
    use domain::message::{Draft, Origin};
    use domain::operation::events::Event;
    use domain::operation::identity::IdentityName;
    use domain::operation::session::AuthenticationMethod;

    use super::*;
    use crate::hub::events_amqp::event;

    fn event(draft: Draft, module: Option<&str>) -> Event {
        let message = domain::message::Message {
            hub: HubKey(1),
            partition: 2,
            sender: IdentityName {
                device: DeviceId::parse("dev-1").unwrap(),
                module: module.map(|module| ModuleId::parse(module).unwrap()),
            },
            generation: "7".to_owned(),
            origin: Origin::Telemetry(AuthenticationMethod::X509),
            model_id: Some("dtmi:a;1".to_owned()),
            draft,
        };
        let enqueued_at = UnixTime::from_micros(1_706_702_400_123_000);
        Event { sequence: 3, offset: 4_096, enqueued_at, message: Arc::new(message) }
    }

    #[test]
    fn what_is_written_for_readers_is_read_with_all_that_was_said() {
        let some = |text: &str| Some(text.to_owned());
        let system = SystemProperties {
            message_id: some("m-1"),
            correlation_id: some("c/1"),
            user_id: some("ünï"),
            content_type: some("application/json"),
            content_encoding: some("utf-8"),
            expires_at: some("2024-01-31T12:00:00.0000000Z"),
            created_at: some("2024-01-31T11:00:00Z"),
            component: some("thermostat"),
            output_name: some("out"),
            interface_id: some("urn:x"),
            message_schema: some("schema"),
            diagnostic_id: some("trace"),
            correlation_context: some("ctx"),
        };
        let properties = vec![("alert".to_owned(), some("yes")), ("bare".to_owned(), None)];
        let draft = Draft { body: Bytes::from_static(b"\xff\x00"), system, properties };
        let event = event(draft.clone(), Some("m"));
        let received = Received::decode(&event::encode(&event, None)).unwrap();
        assert_eq!((received.sequence, received.offset), (3, 4_096));
        assert_eq!(received.enqueued_at, event.enqueued_at);
        assert_eq!((received.device.as_deref(), received.module.as_deref()), (Some("dev-1"), Some("m")));
        assert_eq!((received.body, received.system), (draft.body, draft.system));
        let named = [
            ("iothub-creation-time-utc", "2024-01-31T11:00:00Z"),
            ("iothub-message-schema", "schema"),
            ("iothub-outputname", "out"),
        ];
        let named = named.map(|(name, value)| (name.to_owned(), some(value)));
        assert_eq!(received.properties, [draft.properties, named.to_vec()].concat());
        let annotated = |name: &str| {
            let mut found = received.annotations.iter().filter(|(known, _)| known == name);
            found.next().map(|(_, value)| value.clone())
        };
        assert_eq!(annotated("iothub-enqueuedtime"), Some(Value::Timestamp(1_706_702_400_123)));
        assert_eq!(annotated("dt-dataschema"), Some(Value::from("dtmi:a;1")));
        assert_eq!(annotated("iothub-creation-time-utc"), Some(Value::from("2024-01-31T11:00:00Z")));
        assert_eq!(annotated("iothub-interface-id"), Some(Value::from("urn:x")));
        assert_eq!(annotated("Diagnostic-Id"), Some(Value::from("trace")));
        assert_eq!(annotated("Correlation-Context"), Some(Value::from("ctx")));
        assert_eq!(annotated("x-opt-offset"), None);
    }

    #[test]
    fn what_does_not_say_where_it_stands_is_nothing_that_was_read_there() {
        let whole = || event::encode(&event(Draft::default(), None), None);
        assert!(Received::decode(&whole()).is_some());
        for missing in ["x-opt-sequence-number", "x-opt-offset", "x-opt-enqueued-time"] {
            let mut message = whole();
            message.message_annotations.0.retain(|(name, _)| text(name).as_deref() != Some(missing));
            assert_eq!(Received::decode(&message), None, "{missing}");
        }
        for value in [Value::from("-1"), Value::from("x"), Value::Long(7)] {
            let mut message = whole();
            let offset = message.message_annotations.0.iter_mut();
            let offset = offset.filter(|(name, _)| text(name).as_deref() == Some("x-opt-offset"));
            offset.for_each(|(_, found)| *found = value.clone());
            assert_eq!(Received::decode(&message), None, "{value:?}");
        }
    }
}
