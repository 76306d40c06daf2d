//! What a hub tells of by itself: changes of twins, identities and connections, as messages in the log that telemetry is in
//! (`contract/hub-device.md 7`).
//!
//! An [`Event`] is made in the transaction of the change that it tells of, and becomes a [`Message`] when it is passed on to
//! the log. Its spellings stand here because they are the message's own content, which is kept. Start at [`Change`].

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::clock::UnixTime;
use crate::identity::Identity;
use crate::ids::{HubKey, ModuleId};
use crate::message::{Draft, EventSource, Message, Origin, SystemProperties, partition_of};
use crate::operation::identity::IdentityName;
use crate::query::document;
use crate::resource::Hub;
use crate::twin::{METADATA, Section, Twin, VERSION};

/// The sources that a hub's routes lead to its own endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Sources(u8);

impl Sources {
    const fn bit(source: EventSource) -> u8 {
        1 << source as u8
    }

    /// These sources and `source`.
    #[must_use]
    pub const fn with(self, source: EventSource) -> Self {
        Self(self.0 | Self::bit(source))
    }

    /// Whether `source` is among them.
    pub const fn contains(self, source: EventSource) -> bool {
        self.0 & Self::bit(source) != 0
    }

    /// Whether there are none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// As storage keeps them.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Takes what [`Self::bits`] gave; bits of sources that are not known count for nothing.
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// An identity was made.
    Created,
    /// An identity was removed.
    Deleted,
    /// Parts of a twin were changed.
    TwinUpdated,
    /// Tags and desired properties of a twin were replaced.
    TwinReplaced,
    /// A device or module connected.
    Connected,
    /// A device or module left.
    Disconnected,
    /// A digital twin changed.
    DigitalTwinUpdated,
}

impl Change {
    /// All of them; storage knows them by their place.
    pub const ALL: [Self; 7] = [
        Self::Created,
        Self::Deleted,
        Self::TwinUpdated,
        Self::TwinReplaced,
        Self::Connected,
        Self::Disconnected,
        Self::DigitalTwinUpdated,
    ];

    /// Which source tells of it.
    pub const fn source(self) -> EventSource {
        match self {
            Self::Created | Self::Deleted => EventSource::Lifecycle,
            Self::TwinUpdated | Self::TwinReplaced => EventSource::TwinChange,
            Self::Connected | Self::Disconnected => EventSource::ConnectionState,
            Self::DigitalTwinUpdated => EventSource::DigitalTwinChange,
        }
    }

    /// The value of `opType`.
    const fn operation(self) -> &'static str {
        match self {
            Self::Created => "createDeviceIdentity",
            Self::Deleted => "deleteDeviceIdentity",
            Self::TwinUpdated => "updateTwin",
            Self::TwinReplaced => "replaceTwin",
            Self::Connected => "deviceConnected",
            Self::Disconnected => "deviceDisconnected",
            Self::DigitalTwinUpdated => "updateDigitalTwin",
        }
    }

    /// The schema of the body.
    const fn schema(self) -> &'static str {
        match self.source() {
            EventSource::Lifecycle => "deviceLifecycleNotification",
            EventSource::TwinChange => "twinChangeNotification",
            EventSource::ConnectionState => "deviceConnectionStateNotification",
            EventSource::DigitalTwinChange => "digitalTwinChangeNotification",
        }
    }

    const fn content_type(self) -> &'static str {
        match self.source() {
            EventSource::DigitalTwinChange => "application/json-patch+json",
            EventSource::Lifecycle | EventSource::TwinChange | EventSource::ConnectionState => "application/json",
        }
    }
}

/// Something that a hub tells of.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The hub.
    pub hub: HubKey,
    /// Whose.
    pub name: IdentityName,
    /// The generation of that identity.
    pub generation: String,
    /// What.
    pub change: Change,
    /// When.
    pub at: UnixTime,
    /// What is told of it; of connections, only their place in the order of events, which [`Event::message`] is given.
    pub body: Option<Value>,
}

impl Event {
    /// The message that tells of this. `sequence` is the event's place among all of its store, and `correlation_id` tells
    /// the message from any other.
    pub fn message(self, hub: &Hub, sequence: u64, correlation_id: String) -> Message {
        let body = self.body.unwrap_or_else(|| json!({ "sequenceNumber": format!("{sequence:064X}") }));
        let module = self.name.module.as_ref().map(ModuleId::as_str);
        let properties = [
            ("hubName", Some(hub.name.as_str().to_owned())),
            ("deviceId", Some(self.name.device.as_str().to_owned())),
            ("moduleId", module.map(str::to_owned)),
            ("opType", Some(self.change.operation().to_owned())),
            ("operationTimestamp", Some(document::moment(self.at))),
        ];
        let named = |(name, value): (&str, Option<String>)| value.map(|value| (name.to_owned(), Some(value)));
        let system = SystemProperties {
            correlation_id: Some(correlation_id),
            user_id: Some(hub.name.as_str().to_owned()),
            content_type: Some(self.change.content_type().to_owned()),
            content_encoding: Some("utf-8".to_owned()),
            message_schema: Some(self.change.schema().to_owned()),
            ..SystemProperties::default()
        };
        Message {
            hub: hub.key,
            partition: partition_of(&self.name.device, hub.partitions),
            sender: self.name,
            generation: self.generation,
            origin: Origin::Hub(self.change.source()),
            model_id: None,
            draft: Draft {
                body: Bytes::from(body.to_string()),
                system,
                properties: properties.into_iter().filter_map(named).collect(),
            },
        }
    }
}

/// What is told of a twin as a whole.
pub fn whole_twin(twin: &Twin, identity: &Identity) -> Value {
    let mut body = Map::from_iter([("deviceId".to_owned(), json!(identity.name.device))]);
    if let Some(module) = &identity.name.module {
        body.insert("moduleId".to_owned(), json!(module));
    }
    body.extend([
        ("etag".to_owned(), json!(document::twin_etag(twin.etag))),
        ("version".to_owned(), json!(twin.version)),
        ("tags".to_owned(), Value::Object(twin.tags.clone())),
        (
            "properties".to_owned(),
            json!({ "desired": twin.desired.service_document(), "reported": twin.reported.service_document() }),
        ),
    ]);
    Value::Object(body)
}

/// The merge patches that a twin took, each if there was one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Patches {
    /// Of tags.
    pub tags: Option<Map<String, Value>>,
    /// Of desired properties.
    pub desired: Option<Map<String, Value>>,
    /// Of reported properties.
    pub reported: Option<Map<String, Value>>,
}

/// What is told of the changed parts of a twin: what was asked for, with its metadata, and the versions that it led to.
pub fn changed_parts(twin: &Twin, patches: Patches) -> Value {
    let Patches { tags, desired, reported } = patches;
    let mut body = Map::from_iter([("version".to_owned(), json!(twin.version))]);
    body.extend(tags.map(|tags| ("tags".to_owned(), Value::Object(tags))));
    let mut properties = Map::new();
    properties.extend(desired.map(|patch| ("desired".to_owned(), changed_section(&twin.desired, patch))));
    properties.extend(reported.map(|patch| ("reported".to_owned(), changed_section(&twin.reported, patch))));
    if !properties.is_empty() {
        body.insert("properties".to_owned(), Value::Object(properties));
    }
    Value::Object(body)
}

fn changed_section(section: &Section, mut patch: Map<String, Value>) -> Value {
    patch.retain(|name, _| name != VERSION && name != METADATA);
    let metadata = metadata_of(&patch, section.metadata());
    patch.insert(METADATA.to_owned(), Value::Object(metadata));
    patch.insert(VERSION.to_owned(), section.version().into());
    Value::Object(patch)
}

/// The part of a section's metadata that belongs to what a patch names; what it deletes has none.
fn metadata_of(patch: &Map<String, Value>, metadata: &Map<String, Value>) -> Map<String, Value> {
    // The stamps of a node are its members that no property can be called by.
    let stamps = metadata.iter().filter(|(name, _)| name.starts_with('$'));
    let mut found: Map<String, Value> = stamps.map(|(name, stamp)| (name.clone(), stamp.clone())).collect();
    for (name, value) in patch {
        match (value, metadata.get(name)) {
            (Value::Object(patch), Some(Value::Object(below))) => {
                found.insert(name.clone(), Value::Object(metadata_of(patch, below)));
            }
            (_, Some(below)) => drop(found.insert(name.clone(), below.clone())),
            (_, None) => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{DeviceId, Etag};
    use crate::twin::ServiceChange;

    const NOW: UnixTime = UnixTime::from_seconds(1_700_000_000);
    const NOW_TEXT: &str = "2023-11-14T22:13:20.0000000Z";

    #[test]
    fn sources_are_a_set() {
        let sources = Sources::default().with(EventSource::TwinChange).with(EventSource::DigitalTwinChange);
        let held: Vec<_> = EventSource::ALL.into_iter().filter(|source| sources.contains(*source)).collect();
        assert_eq!(held, [EventSource::TwinChange, EventSource::DigitalTwinChange]);
        assert_eq!(Sources::from_bits(sources.bits()), sources);
        assert!(Sources::default().is_empty() && !sources.is_empty());
    }

    #[test]
    fn changed_parts_are_told_with_what_belongs_to_them_alone() {
        let mut twin = Twin::new(Etag::from_number(1));
        let first = json!({ "kept": 1, "gone": 1, "deep": { "kept": 1, "changed": 1 } });
        twin.apply_service_patch(desired(first), Etag::from_number(2), UnixTime::NEVER).unwrap();
        let patch = json!({ "gone": null, "deep": { "changed": 2 }, "$version": 1 });
        twin.apply_service_patch(desired(patch.clone()), Etag::from_number(3), NOW).unwrap();
        let tags = object(json!({ "place": "cave" }));
        let patches = Patches { tags: Some(tags), desired: Some(object(patch)), reported: None };
        let stamp = json!({ "$lastUpdated": NOW_TEXT, "$lastUpdatedVersion": 3 });
        assert_eq!(
            changed_parts(&twin, patches),
            json!({
                "version": 4,
                "tags": { "place": "cave" },
                "properties": { "desired": {
                    "gone": null,
                    "deep": { "changed": 2 },
                    "$metadata": {
                        "$lastUpdated": NOW_TEXT,
                        "$lastUpdatedVersion": 3,
                        "deep": { "$lastUpdated": NOW_TEXT, "$lastUpdatedVersion": 3, "changed": stamp },
                    },
                    "$version": 3,
                } },
            })
        );
        twin.apply_reported(object(json!({ "a": 1 })), NOW).unwrap();
        let patches = Patches { reported: Some(object(json!({ "a": 1 }))), ..Patches::default() };
        let stamp = json!({ "$lastUpdated": NOW_TEXT });
        assert_eq!(
            changed_parts(&twin, patches),
            json!({
                "version": 5,
                "properties": { "reported": {
                    "a": 1, "$metadata": { "$lastUpdated": NOW_TEXT, "a": stamp }, "$version": 2,
                } },
            })
        );
    }

    #[test]
    fn a_whole_twin_is_told_with_its_names() {
        let device = DeviceId::parse("dev-1").unwrap();
        let twin = Twin::new(Etag::from_number(1));
        let untouched = json!({ "$metadata": { "$lastUpdated": "0001-01-01T00:00:00Z" }, "$version": 1 });
        let properties = json!({ "desired": untouched, "reported": untouched });
        let told = |name| whole_twin(&twin, &Identity::blank(name));
        let common = json!({ "etag": "AAAAAAAAAAE=", "version": 2, "tags": {}, "properties": properties });
        let with = |names: Value| {
            let mut body = object(names);
            body.extend(object(common.clone()));
            Value::Object(body)
        };
        assert_eq!(told(IdentityName::device(device.clone())), with(json!({ "deviceId": "dev-1" })));
        let module = IdentityName::module(device, ModuleId::parse("mod-1").unwrap());
        assert_eq!(told(module), with(json!({ "deviceId": "dev-1", "moduleId": "mod-1" })));
    }

    fn desired(document: Value) -> ServiceChange {
        ServiceChange { tags: None, desired: Some(object(document)) }
    }

    fn object(value: Value) -> Map<String, Value> {
        let Value::Object(object) = value else { panic!("no object: {value}") };
        object
    }
}
