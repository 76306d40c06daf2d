//! Cloud-to-device messages as a device gets them over AMQP, and how it settles them (`contract/hub-device.md 4.7`).
//!
//! A message is named by its lock on the wire too: in 16 bytes, since C# reads a GUID there. Start at [`message`].

use bytes::Bytes;
use domain::clock::UnixTime;
use domain::cloud_to_device::{Acknowledgement, Delivery, Settlement};
use domain::ids::LockToken;
use domain::operation::identity::IdentityName;
use proto::amqp::{Body, DeliveryState, Map, Message, MessageId, Properties, Symbol, Value};

use super::{topics, words};

const ENQUEUED_AT: Symbol = Symbol::from_static("iothub-enqueuedtime");
const DELIVERY_COUNT: Symbol = Symbol::from_static("iothub-deliverycount");
const SEQUENCE: Symbol = Symbol::from_static("x-opt-sequence-number");
const LOCK: Symbol = Symbol::from_static("x-opt-lock-token");
/// The application property by which a message says what its sender wants to hear of.
const ACKNOWLEDGEMENT: &str = "iothub-ack";

/// What the transfer of a message is called.
pub fn tag(lock: LockToken) -> Bytes {
    Bytes::copy_from_slice(&lock.bits().to_be_bytes())
}

/// The lock of the message that a transfer is called by.
pub fn read_tag(tag: &[u8]) -> Option<LockToken> {
    tag.try_into().ok().map(|bytes| LockToken::from_bits(u128::from_be_bytes(bytes)))
}

/// What a device does with a message by telling `state`; `None` if that is no outcome. What is settled without an outcome
/// was not processed, and comes again.
pub fn settlement(state: Option<&DeliveryState>, is_settled: bool) -> Option<Settlement> {
    match state {
        Some(DeliveryState::Accepted) => Some(Settlement::Complete),
        Some(DeliveryState::Rejected(_)) => Some(Settlement::Reject),
        // The queue has no other reader to whom it could go.
        Some(DeliveryState::Modified(modified)) if modified.undeliverable_here => Some(Settlement::Reject),
        Some(DeliveryState::Released | DeliveryState::Modified(_)) => Some(Settlement::Abandon),
        Some(DeliveryState::Received(_) | DeliveryState::Other(_)) | None => is_settled.then_some(Settlement::Abandon),
    }
}

/// The message that `own` gets. Its types are those that C# and C read; a property without a value is left out.
pub fn message(delivery: &Delivery, own: &IdentityName) -> Message {
    let Delivery { lock, sequence, enqueued_at, expires_at, delivery_count, message } = delivery;
    let system = &message.system;
    let id = |text: &Option<String>| text.as_ref().map(|text| MessageId::String(text.clone().into()));
    let symbol = |text: &Option<String>| text.as_ref().and_then(|text| Symbol::try_from(text.clone()).ok());
    let properties = Properties {
        message_id: id(&system.message_id),
        user_id: system.user_id.clone().map(Bytes::from),
        to: Some(topics::cloud_to_device_address(own).into()),
        correlation_id: id(&system.correlation_id),
        content_type: symbol(&system.content_type),
        content_encoding: symbol(&system.content_encoding),
        absolute_expiry_time: message.expires_at.map(|_| millis(*expires_at)),
        ..Properties::default()
    };
    let mut annotations = Map::EMPTY;
    annotations.push(ENQUEUED_AT, Value::Timestamp(millis(*enqueued_at)));
    annotations.push(DELIVERY_COUNT, u8::try_from(*delivery_count).unwrap_or(u8::MAX));
    annotations.push(SEQUENCE, *sequence);
    annotations.push(LOCK, lock.to_string());
    let mut application_properties = Map::EMPTY;
    if message.acknowledgement != Acknowledgement::None {
        application_properties.push(ACKNOWLEDGEMENT, words::acknowledgement(message.acknowledgement));
    }
    for (name, value) in &message.properties {
        if let Some(value) = value.as_deref().filter(|_| !name.is_empty() && name != ACKNOWLEDGEMENT) {
            application_properties.push(name.as_str(), value);
        }
    }
    Message {
        message_annotations: annotations,
        properties: Some(Box::new(properties)),
        application_properties,
        body: Body::data(message.body.clone()),
        ..Message::default()
    }
}

/// Milliseconds since the start of 1970.
const fn millis(at: UnixTime) -> i64 {
    at.micros().div_euclid(1_000)
}

#[cfg(test)]
mod tests {
    use domain::cloud_to_device::{Draft, SystemProperties};
    use domain::ids::DeviceId;
    use proto::amqp::{Modified, Received, Rejected};

    use super::*;

    fn device() -> IdentityName {
        IdentityName::device(DeviceId::parse("dev-1").unwrap())
    }

    fn delivery(message: Draft) -> Delivery {
        Delivery {
            lock: LockToken::from_bits(0x0123_4567_89ab_4def_8123_4567_89ab_cdef),
            sequence: 7,
            enqueued_at: UnixTime::from_micros(1_700_000_000_123_456),
            expires_at: UnixTime::from_seconds(1_700_003_600),
            delivery_count: 300,
            message,
        }
    }

    fn sent(delivery: &Delivery) -> Message {
        Message::decode(&message(delivery, &device()).to_bytes()).unwrap()
    }

    #[test]
    fn a_message_has_the_types_that_clients_read() {
        let some = |text: &str| Some(text.to_owned());
        let system = SystemProperties {
            message_id: some("m/1"),
            correlation_id: some("c 1"),
            user_id: some("ü"),
            content_type: some("application/json"),
            content_encoding: some("utf-8"),
        };
        let property = |name: &str, value: Option<&str>| (name.to_owned(), value.map(str::to_owned));
        let message = sent(&delivery(Draft {
            system,
            properties: vec![
                property("key", Some("v/ä")),
                property("empty", Some("")),
                property("none", None),
                property("", Some("nameless")),
                property("iothub-ack", Some("forged")),
                property("iothub-operation", Some("reboot")),
            ],
            expires_at: Some(UnixTime::from_seconds(0)),
            acknowledgement: Acknowledgement::Full,
            body: "{}".into(),
        }));
        let properties = Properties {
            message_id: Some(MessageId::String("m/1".into())),
            user_id: Some("ü".into()),
            to: Some("/devices/dev-1/messages/deviceBound".into()),
            correlation_id: Some(MessageId::String("c 1".into())),
            content_type: Some(Symbol::from_static("application/json")),
            content_encoding: Some(Symbol::from_static("utf-8")),
            absolute_expiry_time: Some(1_700_003_600_000),
            ..Properties::default()
        };
        assert_eq!(message.properties.as_deref(), Some(&properties));
        let annotations = Map::from_iter([
            (ENQUEUED_AT, Value::Timestamp(1_700_000_000_123)),
            (DELIVERY_COUNT, Value::Ubyte(255)),
            (SEQUENCE, Value::Ulong(7)),
            (LOCK, "01234567-89ab-4def-8123-456789abcdef".into()),
        ]);
        assert_eq!(message.message_annotations, annotations);
        let expected =
            Map::from_iter([("iothub-ack", "full"), ("key", "v/ä"), ("empty", ""), ("iothub-operation", "reboot")]);
        assert_eq!(message.application_properties, expected);
        assert_eq!(message.body, Body::data("{}"));
    }

    #[test]
    fn a_bare_message_has_an_address_and_a_body() {
        let system = SystemProperties { content_type: Some("no symbol: ä".to_owned()), ..SystemProperties::default() };
        let message = sent(&delivery(Draft { system, ..Draft::default() }));
        let to = Some("/devices/dev-1/messages/deviceBound".into());
        assert_eq!(message.properties.as_deref(), Some(&Properties { to, ..Properties::default() }));
        assert_eq!((message.application_properties, message.body), (Map::EMPTY, Body::data("")));
    }

    #[test]
    fn a_lock_is_a_tag_of_16_bytes() {
        let lock = LockToken::from_bits(0x0102_0000_0000_0000_0000_0000_0000_00ff);
        assert_eq!((tag(lock).len(), read_tag(&tag(lock))), (16, Some(lock)));
        assert_eq!((read_tag(b""), read_tag(&[0; 17])), (None, None));
    }

    #[test]
    fn outcomes_become_settlements() {
        use Settlement::{Abandon, Complete, Reject};

        let modified = |undeliverable_here| {
            let modified = Modified { delivery_failed: true, undeliverable_here, message_annotations: Map::EMPTY };
            DeliveryState::Modified(Box::new(modified))
        };
        let received = DeliveryState::Received(Received { section_number: 0, section_offset: 0 });
        let cases = [
            ("accepted", Some(DeliveryState::Accepted), false, Some(Complete)),
            ("rejected", Some(DeliveryState::Rejected(Box::new(Rejected { error: None }))), true, Some(Reject)),
            ("released", Some(DeliveryState::Released), true, Some(Abandon)),
            ("modified", Some(modified(false)), false, Some(Abandon)),
            ("modified, and not for this device", Some(modified(true)), false, Some(Reject)),
            ("under way", Some(received.clone()), false, None),
            ("given up under way", Some(received), true, Some(Abandon)),
            ("settled without a word", None, true, Some(Abandon)),
            ("nothing", None, false, None),
        ];
        for (name, state, is_settled, expected) in cases {
            assert_eq!(settlement(state.as_ref(), is_settled), expected, "{name}");
        }
    }
}
