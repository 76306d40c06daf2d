//! Telemetry in AMQP transfers: one message, or a batch of them (`contract/hub-device.md 4.6`).
//!
//! Bytes in, drafts out. Of what clients put into a message everything that has a meaning finds its place; values that are
//! no text become text. Start at [`decode`].

use bytes::Bytes;
use domain::clock::UnixTime;
use domain::message::{Draft, InvalidMessage, PROPERTIES_MAX, SystemProperties};
use domain::operation::ErrorKind;
use proto::amqp::{Body, Malformed, Message, MessageId, Properties, Symbol, Value};

use crate::amqp::body::bytes_of;
use crate::time;

/// The format of a transfer that holds a batch: each data section is a whole message.
pub const BATCH_FORMAT: u32 = 0x8001_3700;
/// Most messages of a batch. As many as small messages fit into a transfer; a batch of nothing but headers would hold
/// many times more.
pub const BATCH_MESSAGES_MAX: usize = 10_000;

/// Why a transfer is no telemetry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTelemetry {
    /// The format is neither that of a message nor that of a batch.
    #[error("the message format {0:#010x} is not known")]
    Format(u32),
    /// It cannot be read.
    #[error("{0}")]
    Malformed(Malformed),
    /// A batch holds something else than messages.
    #[error("a batch holds data sections alone")]
    Batch,
    /// A batch holds too many.
    #[error("the batch has more than {BATCH_MESSAGES_MAX} messages")]
    TooMany,
    /// The body is neither bytes nor text.
    #[error("the body is neither bytes nor text")]
    Body,
    /// A message breaks a limit.
    #[error("{0}")]
    Message(InvalidMessage),
}

impl InvalidTelemetry {
    /// The class.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::TooMany
            | Self::Message(InvalidMessage::TooLarge { .. } | InvalidMessage::TooManyProperties { .. }) => {
                ErrorKind::TooLarge
            }
            Self::Format(_) | Self::Malformed(_) | Self::Batch | Self::Body => ErrorKind::InvalidArgument,
        }
    }
}

/// The messages of a transfer, all of which keep the limits.
pub fn decode(message_format: u32, payload: &Bytes) -> Result<Vec<Draft>, InvalidTelemetry> {
    let message = Message::decode(payload).map_err(InvalidTelemetry::Malformed)?;
    match message_format {
        0 => Ok(vec![draft(message)?]),
        BATCH_FORMAT => {
            let Body::Data(sections) = message.body else { return Err(InvalidTelemetry::Batch) };
            if sections.len() > BATCH_MESSAGES_MAX {
                return Err(InvalidTelemetry::TooMany);
            }
            let nested = |section| draft(Message::decode(section).map_err(InvalidTelemetry::Malformed)?);
            sections.iter().map(nested).collect()
        }
        other => Err(InvalidTelemetry::Format(other)),
    }
}

/// The message by which a device sends `draft`. Of a name that no symbol can hold, and of an expiry that cannot be read,
/// nothing is said.
pub fn encode(draft: &Draft) -> Message {
    let system = &draft.system;
    let id = |text: &Option<String>| text.as_ref().map(|text| MessageId::String(text.clone().into()));
    let symbol = |text: &Option<String>| text.as_ref().and_then(|text| Symbol::try_from(text.clone()).ok());
    let moment =
        |text: &Option<String>| text.as_deref().and_then(time::parse).map(|moment| moment.micros().div_euclid(1_000));
    let properties = Properties {
        message_id: id(&system.message_id),
        user_id: system.user_id.clone().map(Bytes::from),
        correlation_id: id(&system.correlation_id),
        content_type: symbol(&system.content_type),
        content_encoding: symbol(&system.content_encoding),
        absolute_expiry_time: moment(&system.expires_at),
        creation_time: moment(&system.created_at),
        ..Properties::default()
    };
    let annotations = [
        ("iothub-interface-id", &system.interface_id),
        ("dt-subject", &system.component),
        ("Diagnostic-Id", &system.diagnostic_id),
        ("Correlation-Context", &system.correlation_context),
    ];
    let said = |(name, value): (&'static str, &Option<String>)| value.clone().map(|value| (name, value));
    let application_properties =
        draft.told_properties().map(|(name, value)| (name, value.map_or(Value::Null, Value::from)));
    let annotated = annotations.into_iter().filter_map(said);
    Message {
        message_annotations: annotated.map(|(name, value)| (Symbol::from_static(name), value)).collect(),
        properties: Some(Box::new(properties)),
        application_properties: application_properties.collect(),
        body: Body::data(draft.body.clone()),
        ..Message::default()
    }
}

fn draft(message: Message) -> Result<Draft, InvalidTelemetry> {
    let mut draft = Draft { body: bytes_of(&message.body).ok_or(InvalidTelemetry::Body)?, ..Draft::default() };
    if let Some(properties) = message.properties {
        let system = &mut draft.system;
        system.message_id = properties.message_id.map(id_text);
        system.correlation_id = properties.correlation_id.map(id_text);
        system.user_id = properties.user_id.map(|id| String::from_utf8_lossy(&id).into_owned());
        system.content_type = properties.content_type.map(|name| name.to_string());
        system.content_encoding = properties.content_encoding.map(|name| name.to_string());
        system.expires_at = properties.absolute_expiry_time.map(moment_text);
        system.created_at = properties.creation_time.map(moment_text);
    }
    for (name, value) in &message.message_annotations.0 {
        if let Some(slot) = name.as_str().and_then(|name| annotated(&mut draft.system, name)) {
            *slot = text(value);
        }
    }
    for (name, value) in &message.application_properties.0 {
        let Some(name) = name.as_str() else { continue };
        draft.set_property(name, text(value).as_deref());
        if draft.properties.len() > PROPERTIES_MAX {
            let properties = draft.properties.len();
            return Err(InvalidTelemetry::Message(InvalidMessage::TooManyProperties { properties }));
        }
    }
    draft.check().map_err(InvalidTelemetry::Message)?;
    Ok(draft)
}

/// Where an annotation of that name is kept.
fn annotated<'a>(system: &'a mut SystemProperties, name: &str) -> Option<&'a mut Option<String>> {
    Some(match name {
        "iothub-interface-id" => &mut system.interface_id,
        "dt-subject" => &mut system.component,
        "Diagnostic-Id" => &mut system.diagnostic_id,
        "Correlation-Context" => &mut system.correlation_context,
        _ => return None,
    })
}

/// Identifiers that look like a GUID are sent as one by Node, so that all of them are text again here.
pub(super) fn id_text(id: MessageId) -> String {
    match id {
        MessageId::Ulong(number) => number.to_string(),
        MessageId::Uuid(bytes) => uuid_text(bytes),
        MessageId::Binary(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        MessageId::String(text) => text.to_string(),
    }
}

fn uuid_text(bytes: [u8; 16]) -> String {
    let mut text = hex::encode(bytes);
    for at in [20, 16, 12, 8] {
        text.insert(at, '-');
    }
    text
}

/// A moment in milliseconds since 1970.
fn moment_text(millis: i64) -> String {
    time::rfc3339(UnixTime::from_micros(millis.saturating_mul(1_000)))
}

/// A value as text; `None` for nothing, and for what has no text (lists, maps, decimal numbers).
pub(super) fn text(value: &Value) -> Option<String> {
    Some(match value {
        Value::String(text) => text.to_string(),
        Value::Symbol(symbol) => symbol.to_string(),
        Value::Boolean(bit) => bit.to_string(),
        Value::Ulong(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Double(number) => number.to_string(),
        Value::Char(character) => character.to_string(),
        Value::Timestamp(millis) => moment_text(*millis),
        Value::Uuid(bytes) => uuid_text(*bytes),
        Value::Binary(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => other.as_i64()?.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proto::amqp::Map;

    fn batch(sections: Vec<Bytes>) -> Bytes {
        Message { body: Body::Data(sections), ..Message::default() }.to_bytes()
    }

    fn one(message: &Message) -> Draft {
        decode(0, &message.to_bytes()).unwrap().pop().unwrap()
    }

    #[test]
    fn properties_find_their_places() {
        let properties = Properties {
            message_id: Some(MessageId::Uuid([0xab; 16])),
            correlation_id: Some(MessageId::Ulong(7)),
            user_id: Some(Bytes::from_static(b"user")),
            to: Some("/devices/d/messages/events".into()),
            content_type: Some(Symbol::from_static("application/json")),
            content_encoding: Some(Symbol::from_static("utf-8")),
            absolute_expiry_time: Some(1_706_702_400_123),
            creation_time: Some(0),
            ..Properties::default()
        };
        let application: Map = [
            ("iothub-creation-time-utc", Value::from("2024-01-31T12:00:00.0000000Z")),
            ("iothub-message-schema", "schema".into()),
            ("iothub-outputname", "out".into()),
            ("text", "x".into()),
            ("number", (-3i32).into()),
            ("large", u64::MAX.into()),
            ("bit", true.into()),
            ("nothing", Value::Null),
            ("list", Value::List(vec![])),
        ]
        .into_iter()
        .collect();
        let annotations: Map = [
            ("iothub-interface-id", Value::from("urn:i")),
            ("dt-subject", "thermostat".into()),
            ("Diagnostic-Id", "trace".into()),
            ("Correlation-Context", "ctx".into()),
            ("unknown", "x".into()),
        ]
        .into_iter()
        .collect();
        let draft = one(&Message {
            message_annotations: annotations,
            properties: Some(Box::new(properties)),
            application_properties: application,
            body: Body::data("{}"),
            ..Message::default()
        });
        let some = |text: &str| Some(text.to_owned());
        let system = SystemProperties {
            message_id: some("abababab-abab-abab-abab-abababababab"),
            correlation_id: some("7"),
            user_id: some("user"),
            content_type: some("application/json"),
            content_encoding: some("utf-8"),
            expires_at: some("2024-01-31T12:00:00.1230000Z"),
            created_at: some("2024-01-31T12:00:00.0000000Z"),
            component: some("thermostat"),
            output_name: some("out"),
            interface_id: some("urn:i"),
            message_schema: some("schema"),
            diagnostic_id: some("trace"),
            correlation_context: some("ctx"),
        };
        assert_eq!(draft.system, system);
        let property = |name: &str, value: Option<&str>| (name.to_owned(), value.map(str::to_owned));
        let expected = [
            property("text", Some("x")),
            property("number", Some("-3")),
            property("large", Some("18446744073709551615")),
            property("bit", Some("true")),
            property("nothing", None),
            property("list", None),
        ];
        assert_eq!((draft.properties.as_slice(), &*draft.body), (&expected[..], &b"{}"[..]));
    }

    #[test]
    fn what_a_device_sends_is_read_as_it_was_meant() {
        let some = |text: &str| Some(text.to_owned());
        let system = SystemProperties {
            message_id: some("m/1"),
            correlation_id: some("c 1"),
            user_id: some("ü"),
            content_type: some("application/json"),
            content_encoding: some("utf-8"),
            expires_at: some("2024-01-31T12:00:00.1230000Z"),
            created_at: some("2024-01-31T12:00:00.0000000Z"),
            component: some("thermostat"),
            output_name: some("out"),
            interface_id: some("urn:i"),
            message_schema: some("schema"),
            diagnostic_id: some("trace"),
            correlation_context: some("ctx"),
        };
        let properties = vec![("a & b".to_owned(), some("v/ä")), ("none".to_owned(), None)];
        let draft = Draft { system, properties, body: "{}".into() };
        assert_eq!(one(&encode(&draft)), draft);
        let silent =
            SystemProperties { content_type: some("ä"), expires_at: some("soon"), ..SystemProperties::default() };
        assert_eq!(one(&encode(&Draft { system: silent, ..Draft::default() })), Draft::default());
    }

    #[test]
    fn bodies_of_every_client_are_bytes() {
        let cases: &[(&str, Body, Result<&[u8], InvalidTelemetry>)] = &[
            ("none", Body::Empty, Ok(b"")),
            ("one section", Body::data("ab"), Ok(b"ab")),
            ("several sections", Body::Data(vec!["a".into(), "b".into()]), Ok(b"ab")),
            ("text", Body::Value("ä".into()), Ok("ä".as_bytes())),
            ("bytes as a value", Body::Value(Value::Binary("ab".into())), Ok(b"ab")),
            ("null", Body::Value(Value::Null), Ok(b"")),
            ("a number", Body::Value(1i32.into()), Err(InvalidTelemetry::Body)),
            ("a list", Body::Sequences(vec![vec![]]), Err(InvalidTelemetry::Body)),
        ];
        for (name, body, expected) in cases {
            let message = Message { body: body.clone(), ..Message::default() };
            let found = decode(0, &message.to_bytes()).map(|mut drafts| drafts.pop().unwrap().body);
            assert_eq!(found.as_deref(), expected.as_deref(), "{name}");
        }
    }

    #[test]
    fn a_batch_is_taken_whole_or_not_at_all() {
        let good = |body: &'static str| Message { body: Body::data(body), ..Message::default() }.to_bytes();
        let drafts = decode(BATCH_FORMAT, &batch(vec![good("a"), good("b")])).unwrap();
        assert_eq!(drafts.iter().map(|draft| &*draft.body).collect::<Vec<_>>(), [b"a", b"b"]);

        let bad = batch(vec![good("a"), Bytes::from_static(b"\x00\x53")]);
        assert!(matches!(decode(BATCH_FORMAT, &bad), Err(InvalidTelemetry::Malformed(_))));
        let empty = Message::default().to_bytes();
        assert_eq!(decode(BATCH_FORMAT, &empty), Err(InvalidTelemetry::Batch));
        let many = batch(vec![Bytes::new(); BATCH_MESSAGES_MAX + 1]);
        assert_eq!(decode(BATCH_FORMAT, &many), Err(InvalidTelemetry::TooMany));
        assert_eq!(decode(1, &good("a")), Err(InvalidTelemetry::Format(1)));
    }

    #[test]
    fn limits_of_messages_hold_inside_a_batch() {
        let property = |number: usize| (format!("p{number}"), Value::Null);
        let application_properties = (0..=PROPERTIES_MAX).map(property).collect();
        let many = Message { application_properties, ..Message::default() }.to_bytes();
        let expected = InvalidMessage::TooManyProperties { properties: PROPERTIES_MAX + 1 };
        assert_eq!(decode(BATCH_FORMAT, &batch(vec![many])), Err(InvalidTelemetry::Message(expected)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(format in prop_oneof![Just(0), Just(BATCH_FORMAT), any::<u32>()], bytes: Vec<u8>) {
            let _ = decode(format, &bytes.into());
        }
    }
}
