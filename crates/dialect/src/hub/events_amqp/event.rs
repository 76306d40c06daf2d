//! A device's message as readers of the Event Hubs-compatible endpoint get it (`contract/hub-device.md 7`,
//! `contract/eventhub-endpoint.md 7`). Start at [`encode`].

use bytes::Bytes;
use domain::clock::UnixTime;
use domain::message::{Draft, Message as Telemetry, SystemProperties};
use domain::operation::events::{Event, Newest};
use domain::operation::identity::IdentityName;
use domain::route::Parcel;
use proto::amqp::{Body, Map, Message, MessageId, Properties, Symbol, Text, Value};

use crate::hub::annotations::{Said, annotations};
use crate::hub::cloud_event;
use crate::time;

/// `event` as a message. `newest` says how far its partition goes, to readers that asked for it.
pub fn encode(event: &Event, newest: Option<&Newest>) -> Message {
    let Telemetry { sender, draft, .. } = &*event.message;
    Message {
        delivery_annotations: newest.map_or(Map::EMPTY, tracking),
        message_annotations: annotate(event),
        properties: Some(Box::new(properties(sender, &draft.system))),
        application_properties: application_properties(draft),
        body: Body::data(draft.body.clone()),
        ..Message::default()
    }
}

/// A message on its way to an address elsewhere, where it gets a place of its own: by its ID a receiver knows it again, and
/// by its partition key it stays in the order of its device.
pub fn outgoing(parcel: &Parcel) -> Message {
    let Parcel { place, message, .. } = parcel;
    let Telemetry { sender, draft, .. } = &**message;
    let own = [
        ("x-opt-partition-key", Value::from(sender.device.as_str())),
        ("x-opt-muster-partition", Value::Long(message.partition.into())),
        ("x-opt-muster-sequence-number", Value::Long(signed(place.sequence))),
    ];
    let own = own.into_iter().map(|(name, value)| (Symbol::from_static(name), value));
    let mut properties = properties(sender, &draft.system);
    properties.message_id.get_or_insert_with(|| MessageId::String(cloud_event::id(parcel).as_str().into()));
    Message {
        message_annotations: said_of(message, place.enqueued_at).chain(own).collect(),
        properties: Some(Box::new(properties)),
        application_properties: application_properties(draft),
        body: Body::data(draft.body.clone()),
        ..Message::default()
    }
}

/// What the hub says of a message.
fn said_of(message: &Telemetry, enqueued_at: UnixTime) -> impl Iterator<Item = (Symbol, Value)> {
    annotations(message, enqueued_at).map(|(name, said)| {
        let value = match said {
            Said::Text(text) => Value::from(&*text),
            Said::Moment(moment) => Value::Timestamp(moment.millis()),
        };
        (Symbol::from_static(name), value)
    })
}

fn annotate(event: &Event) -> Map {
    let place = [
        ("x-opt-sequence-number", Value::Long(signed(event.sequence))),
        ("x-opt-offset", Value::from(event.offset.to_string())),
        ("x-opt-enqueued-time", Value::Timestamp(event.enqueued_at.millis())),
    ];
    let place = place.into_iter().map(|(name, value)| (Symbol::from_static(name), value));
    place.chain(said_of(&event.message, event.enqueued_at)).collect()
}

/// How far the partition goes (`contract/eventhub-endpoint.md 6.5`).
fn tracking(newest: &Newest) -> Map {
    Map::from_iter([
        (Symbol::from_static("last_enqueued_sequence_number"), Value::Long(signed(newest.sequence))),
        (Symbol::from_static("last_enqueued_offset"), Value::from(newest.offset.to_string())),
        (Symbol::from_static("last_enqueued_time_utc"), Value::Timestamp(newest.enqueued_at.millis())),
        (Symbol::from_static("runtime_info_retrieval_time_utc"), Value::Timestamp(newest.read_at.millis())),
    ])
}

/// Only what the device set, and where it sent it.
fn properties(sender: &IdentityName, system: &SystemProperties) -> Properties {
    let id = |id: &Option<String>| id.as_deref().map(|id| MessageId::String(id.into()));
    // A symbol is ASCII; what is not, names no type.
    let symbol = |name: &Option<String>| name.clone().and_then(|name| Symbol::try_from(name).ok());
    let moment = |moment: &Option<String>| Some(time::parse(moment.as_deref()?)?.millis());
    Properties {
        message_id: id(&system.message_id),
        user_id: system.user_id.as_deref().map(|user| Bytes::copy_from_slice(user.as_bytes())),
        to: Some(sent_to(sender)),
        correlation_id: id(&system.correlation_id),
        content_type: symbol(&system.content_type),
        content_encoding: symbol(&system.content_encoding),
        absolute_expiry_time: moment(&system.expires_at),
        ..Properties::default()
    }
}

fn sent_to(sender: &IdentityName) -> Text {
    let device = &sender.device;
    match &sender.module {
        None => format!("/devices/{device}/messages/events").into(),
        Some(module) => format!("/devices/{device}/modules/{module}/messages/events").into(),
    }
}

/// All strings. A name without a value has none here either.
fn application_properties(draft: &Draft) -> Map {
    draft.told_properties().map(|(name, value)| (name, value.map_or(Value::Null, Value::from))).collect()
}

/// Numbers of messages never come near the end of what AMQP's `long` holds.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
