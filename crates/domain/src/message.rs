//! Telemetry messages: what a device sends and what the hub stamps on it.
//!
//! Property bags are decoded elsewhere: here a property has its meaning already, and its spelling on a wire is nobody's
//! business but that of the names in the application's own properties. Start at [`Draft`] (as sent) and [`Message`] (as
//! kept).

use bytes::Bytes;

use crate::clock::UnixTime;
use crate::ids::{DeviceId, HubKey};
use crate::operation::identity::IdentityName;
use crate::operation::session::{AuthenticationMethod, Seat};
use crate::sas::sha256;

/// Most bytes of a message, body and properties together (`contract/hub-device.md 2.11`).
pub const MESSAGE_BYTES_MAX: usize = 262_144;
/// Most bytes of all messages of a batch together, counted as for one (`contract/hub-device.md 5.2`).
pub const BATCH_BYTES_MAX: usize = MESSAGE_BYTES_MAX;
/// Most application properties of a message. No client comes near; a bag of bare separators would.
pub const PROPERTIES_MAX: usize = 256;
/// Beginning of the names under which the hub alone vouches for a sender (`contract/hub-device.md 7`).
pub const VOUCHED_PREFIX: &str = "iothub-connection-";
/// Application property of a message that was published to be retained, which the hub never does.
pub const RETAIN_MARK: (&str, &str) = ("mqtt-retain", "true");
/// Application property of a message that a device left for the case that its connection breaks.
pub const WILL_MARK: (&str, &str) = ("iothub-MessageType", "Will");

/// Application property that says when a message was made (`contract/hub-device.md 2.7` and `4.6`, as the next ones).
const CREATION_TIME: &str = "iothub-creation-time-utc";
/// What older clients call [`CREATION_TIME`].
const CREATION_TIME_OF_OLD: &str = "iothub-creationtimeutc";
/// Application property that names the schema of the body.
const MESSAGE_SCHEMA: &str = "iothub-message-schema";
/// Application property that names the output by which a module sent.
const OUTPUT_NAME: &str = "iothub-outputname";

/// A message as a device sent it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Draft {
    /// The body, unchanged.
    pub body: Bytes,
    /// System properties the device set.
    pub system: SystemProperties,
    /// Application properties in the order sent.
    pub properties: Vec<Property>,
}

/// An application property: its name, and its value unless it was sent without one.
pub type Property = (String, Option<String>);

/// Why a message is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMessage {
    /// Too much of it.
    #[error("the message has {bytes} bytes; {MESSAGE_BYTES_MAX} are allowed")]
    TooLarge {
        /// Bytes by the formula of [`Draft::size`].
        bytes: usize,
    },
    /// Too many application properties.
    #[error("the message has {properties} application properties; {PROPERTIES_MAX} are allowed")]
    TooManyProperties {
        /// How many.
        properties: usize,
    },
}

/// System properties that a device may set. All are text as sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct SystemProperties {
    /// Message ID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// Correlation ID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// User ID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// Content type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Content encoding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_encoding: Option<String>,
    /// Absolute expiry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// Creation time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<String>,
    /// Component of a Plug and Play device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub component: Option<String>,
    /// Output of an edge module.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_name: Option<String>,
    /// Interface ID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface_id: Option<String>,
    /// Message schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_schema: Option<String>,
    /// Trace that the message belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diagnostic_id: Option<String>,
    /// What else the trace carries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation_context: Option<String>,
}

impl SystemProperties {
    /// Those that are set.
    fn values(&self) -> impl Iterator<Item = &String> {
        let Self {
            message_id,
            correlation_id,
            user_id,
            content_type,
            content_encoding,
            expires_at,
            created_at,
            component,
            output_name,
            interface_id,
            message_schema,
            diagnostic_id,
            correlation_context,
        } = self;
        let identity = [message_id, correlation_id, user_id, content_type, content_encoding, expires_at, created_at];
        let meaning = [component, output_name, interface_id, message_schema, diagnostic_id, correlation_context];
        identity.into_iter().chain(meaning).flatten()
    }

    /// Those that are application properties on their way to readers, and what they are called there.
    fn named(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let named = [
            (CREATION_TIME, &self.created_at),
            (MESSAGE_SCHEMA, &self.message_schema),
            (OUTPUT_NAME, &self.output_name),
        ];
        named.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)))
    }

    /// Where an application property is kept whose name has a meaning of its own.
    fn meant(&mut self, name: &str) -> Option<&mut Option<String>> {
        Some(match name {
            CREATION_TIME | CREATION_TIME_OF_OLD => &mut self.created_at,
            MESSAGE_SCHEMA => &mut self.message_schema,
            OUTPUT_NAME => &mut self.output_name,
            _ => return None,
        })
    }
}

/// How a message came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A device sent it, having authenticated in this way.
    Telemetry(AuthenticationMethod),
    /// The hub tells of a change by itself.
    Hub(EventSource),
}

/// What the hub tells of by itself, where it is asked to (`contract/hub-device.md 7`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventSource {
    /// Changes of twins: tags, desired and reported properties.
    TwinChange,
    /// Identities that are made and removed.
    Lifecycle,
    /// Devices that connect and leave.
    ConnectionState,
    /// Changes of digital twins.
    DigitalTwinChange,
}

impl EventSource {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::TwinChange, Self::Lifecycle, Self::ConnectionState, Self::DigitalTwinChange];
}

/// A message as it is kept: what was sent, and what the hub vouches for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The hub.
    pub hub: HubKey,
    /// The partition, below the hub's number of partitions.
    pub partition: u16,
    /// Who sent it, or whose change it tells of.
    pub sender: IdentityName,
    /// The generation of that identity.
    pub generation: String,
    /// How it came about.
    pub origin: Origin,
    /// The model it had announced.
    pub model_id: Option<String>,
    /// Body and properties.
    pub draft: Draft,
}

/// Where a message stands in the log of its hub, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredPlace {
    /// Counts the messages of its partition, from 0.
    pub sequence: u64,
    /// Counts the bytes of its partition, from 0.
    pub offset: u64,
    /// When it was kept.
    pub enqueued_at: UnixTime,
}

impl Draft {
    /// Bytes that count towards [`MESSAGE_BYTES_MAX`]: body, values of system properties, names and values of
    /// application properties (`contract/hub-device.md 7`).
    pub fn size(&self) -> usize {
        let system: usize = self.system.values().map(String::len).sum();
        let property = |(name, value): &Property| name.len() + value.as_ref().map_or(0, String::len);
        self.body.len() + system + self.properties.iter().map(property).sum::<usize>()
    }

    /// Whether the message keeps the limits.
    pub fn check(&self) -> Result<(), InvalidMessage> {
        if self.properties.len() > PROPERTIES_MAX {
            return Err(InvalidMessage::TooManyProperties { properties: self.properties.len() });
        }
        match self.size() {
            bytes if bytes > MESSAGE_BYTES_MAX => Err(InvalidMessage::TooLarge { bytes }),
            _ => Ok(()),
        }
    }

    /// Sets an application property; an earlier one of the same name gives its place to it. One whose name has a meaning of
    /// its own is a system property, whichever protocol it came by.
    pub fn set_property(&mut self, name: &str, value: Option<&str>) {
        let value = value.map(str::to_owned);
        if let Some(slot) = self.system.meant(name) {
            *slot = value;
            return;
        }
        match self.properties.iter_mut().find(|(known, _)| known == name) {
            Some((_, present)) => *present = value,
            None => self.properties.push((name.to_owned(), value)),
        }
    }

    /// The application properties as readers are told them: the sender's own in the order sent, and behind them the system
    /// properties that are called so. Each name is there once.
    pub fn told_properties(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        let own = self.properties.iter().map(|(name, value)| (name.as_str(), value.as_deref()));
        let is_own = |name: &str| self.properties.iter().any(|(known, _)| known == name);
        let named = self.system.named().filter(move |(name, _)| !is_own(name));
        own.chain(named.map(|(name, value)| (name, Some(value))))
    }

    /// Marks the message as [`RETAIN_MARK`] or [`WILL_MARK`] says; does not count towards the limits.
    #[must_use]
    pub fn marked(mut self, (name, value): (&str, &str)) -> Self {
        self.set_property(name, Some(value));
        self
    }

    /// Stamps the message for its hub. Names under which the hub speaks itself are dropped, in whatever letter case:
    /// nobody else may vouch.
    pub fn stamp(mut self, seat: &Seat, partitions: u16) -> Message {
        self.properties.retain(|(name, _)| !is_vouched(name));
        Message {
            hub: seat.hub,
            partition: partition_of(&seat.name.device, partitions),
            sender: seat.name.clone(),
            generation: seat.generation.to_string(),
            origin: Origin::Telemetry(seat.authentication),
            model_id: seat.model_id.as_deref().map(str::to_owned),
            draft: self,
        }
    }
}

fn is_vouched(name: &str) -> bool {
    name.get(..VOUCHED_PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(VOUCHED_PREFIX))
}

/// The partition of a device: stable, so that the order of its messages is kept.
pub fn partition_of(device: &DeviceId, partitions: u16) -> u16 {
    let digest = sha256(device.as_str().as_bytes());
    let number = digest.first_chunk().map_or(0, |bytes: &[u8; 8]| u64::from_be_bytes(*bytes));
    (number % u64::from(partitions.max(1))) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_counts_the_body_both_sides_of_a_property_and_the_values_of_the_system() {
        let system = SystemProperties { message_id: Some("m1".into()), ..SystemProperties::default() };
        let cases: &[(&str, Draft, usize)] = &[
            ("nothing", Draft::default(), 0),
            ("a body", Draft { body: Bytes::from_static(b"12345"), ..Draft::default() }, 5),
            ("a system property", Draft { system, ..Draft::default() }, 2),
            ("a property", with(&[("a", Some("bc"))]), 3),
            ("a property without a value", with(&[("ab", None)]), 2),
            ("letters of two bytes", with(&[("é", Some("é"))]), 4),
        ];
        for (name, draft, size) in cases {
            assert_eq!(draft.size(), *size, "{name}");
        }
    }

    #[test]
    fn every_system_property_counts() {
        let one = |index: usize| Some("x".repeat(1 << index));
        let system = SystemProperties {
            message_id: one(0),
            correlation_id: one(1),
            user_id: one(2),
            content_type: one(3),
            content_encoding: one(4),
            expires_at: one(5),
            created_at: one(6),
            component: one(7),
            output_name: one(8),
            interface_id: one(9),
            message_schema: one(10),
            diagnostic_id: one(11),
            correlation_context: one(12),
        };
        assert_eq!(Draft { system: system.clone(), ..Draft::default() }.size(), (1 << 13) - 1);
        let stored = serde_json::to_string(&system).unwrap();
        assert_eq!(serde_json::from_str::<SystemProperties>(&stored).unwrap(), system);
        assert_eq!(serde_json::to_string(&SystemProperties::default()).unwrap(), "{}");
    }

    #[test]
    fn limits_are_met_exactly() {
        let body = |bytes| Draft { body: vec![0; bytes].into(), ..Draft::default() };
        let many = |count: usize| Draft { properties: vec![("a".into(), None); count], ..Draft::default() };
        let cases: &[(&str, Draft, Result<(), InvalidMessage>)] = &[
            ("the largest body", body(MESSAGE_BYTES_MAX), Ok(())),
            ("one byte more", body(MESSAGE_BYTES_MAX + 1), Err(InvalidMessage::TooLarge { bytes: 262_145 })),
            ("the most properties", many(PROPERTIES_MAX), Ok(())),
            ("one more", many(PROPERTIES_MAX + 1), Err(InvalidMessage::TooManyProperties { properties: 257 })),
        ];
        for (name, draft, expected) in cases {
            assert_eq!(draft.check(), *expected, "{name}");
        }
    }

    #[test]
    fn the_hub_alone_speaks_under_its_own_names() {
        let draft = with(&[
            ("iothub-connection-device-id", Some("other")),
            ("a", Some("b")),
            ("IoTHub-Connection-Auth-Method", None),
            ("iothub-connection", Some("kept")),
            ("iothub-creation-time-utc", Some("kept")),
            ("änderung-des-anschlusses", None),
        ]);
        let message = draft.stamp(&seat(), 4);
        let kept: Vec<&str> = message.draft.properties.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(kept, ["a", "iothub-connection", "iothub-creation-time-utc", "änderung-des-anschlusses"]);
        assert_eq!((message.sender, message.generation.as_str(), message.hub), (seat().name, "7", HubKey(1)));
        let origin = Origin::Telemetry(seat().authentication);
        assert_eq!((message.origin, message.model_id.as_deref()), (origin, Some("dtmi:a;1")));
    }

    #[test]
    fn a_mark_takes_the_place_of_what_the_device_says() {
        let marked = with(&[("mqtt-retain", Some("no")), ("a", None)]).marked(RETAIN_MARK).marked(WILL_MARK);
        let expected = with(&[("mqtt-retain", Some("true")), ("a", None), ("iothub-MessageType", Some("Will"))]);
        assert_eq!(marked, expected);
    }

    #[test]
    fn a_property_whose_name_has_a_meaning_is_a_system_property_that_readers_are_told_by_that_name() {
        let mut draft = with(&[("a", None)]);
        let said = [
            ("iothub-creationtimeutc", Some("old")),
            ("iothub-creation-time-utc", Some("noon")),
            ("iothub-message-schema", Some("schema")),
            ("iothub-outputname", Some("out")),
            ("b", Some("c")),
        ];
        for (name, value) in said {
            draft.set_property(name, value);
        }
        let system = SystemProperties {
            created_at: Some("noon".into()),
            message_schema: Some("schema".into()),
            output_name: Some("out".into()),
            ..SystemProperties::default()
        };
        assert_eq!(draft, Draft { system, ..with(&[("a", None), ("b", Some("c"))]) });
        let told = |draft: &Draft| -> Vec<(String, Option<String>)> {
            let owned = |(name, value): (&str, Option<&str>)| (name.to_owned(), value.map(str::to_owned));
            draft.told_properties().map(owned).collect()
        };
        let expected = with(&[("a", None), ("b", Some("c")), said[1], said[2], said[3]]);
        assert_eq!(told(&draft), expected.properties);

        let kept_as_sent = with(&[("iothub-outputname", Some("own"))]);
        draft.properties.clone_from(&kept_as_sent.properties);
        let expected = with(&[("iothub-outputname", Some("own")), said[1], said[2]]);
        assert_eq!(told(&draft), expected.properties, "no name twice");
        draft.set_property("iothub-message-schema", None);
        assert_eq!(draft.system.message_schema, None);
    }

    #[test]
    fn partitions_are_stable_and_all_are_used() {
        let of = |device: &str, partitions| partition_of(&DeviceId::parse(device).unwrap(), partitions);
        // These stand in every log that was ever written: another hash would break the order of a device's messages.
        assert_eq!([of("dev-1", 4), of("dev-2", 4), of("cheesecave-device1", 32)], [2, 1, 17]);
        for partitions in [1, 2, 4, 32] {
            let mut used = vec![0; usize::from(partitions)];
            for number in 0..2_000 {
                used[usize::from(of(&format!("dev-{number}"), partitions))] += 1;
            }
            let fair = 2_000 / usize::from(partitions);
            assert!(used.iter().all(|&count| count > fair / 2 && count < fair * 2), "{used:?}");
        }
        assert_eq!(of("dev-1", 0), 0);
    }

    fn with(properties: &[(&str, Option<&str>)]) -> Draft {
        let owned = |(name, value): &(&str, Option<&str>)| ((*name).to_owned(), value.map(str::to_owned));
        Draft { properties: properties.iter().map(owned).collect(), ..Draft::default() }
    }

    fn seat() -> Seat {
        Seat {
            hub: HubKey(1),
            name: IdentityName::device(DeviceId::parse("dev-1").unwrap()),
            generation: "7".into(),
            epoch: 1,
            authentication: AuthenticationMethod::DeviceKey,
            model_id: Some("dtmi:a;1".into()),
        }
    }
}
