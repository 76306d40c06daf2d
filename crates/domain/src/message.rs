//! Telemetry messages: what a device sends and what the hub stamps on it.
//!
//! Start at [`Draft`] (as sent) and [`Message`] (as kept).

use bytes::Bytes;

use crate::ids::{DeviceId, HubKey};
use crate::operation::identity::IdentityName;
use crate::operation::session::{AuthenticationMethod, Seat};
use crate::sas::sha256;

/// Most bytes of a message, body and properties together (`contract/hub-device.md 2.11`).
pub const MESSAGE_BYTES_MAX: usize = 262_144;
/// Most application properties of a message.
pub const PROPERTIES_MAX: usize = 256;

/// A message as a device sent it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Draft {
    /// The body, unchanged.
    pub body: Bytes,
    /// System properties the device set.
    pub system: SystemProperties,
    /// Application properties in the order sent.
    pub properties: Vec<(String, String)>,
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
}

/// A message as it is kept: what was sent, and what the hub vouches for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The hub.
    pub hub: HubKey,
    /// The partition, below the hub's number of partitions.
    pub partition: u16,
    /// Who sent it.
    pub sender: IdentityName,
    /// The generation of that identity.
    pub generation: String,
    /// How it had authenticated.
    pub authentication: AuthenticationMethod,
    /// The model it had announced.
    pub model_id: Option<String>,
    /// Body and properties.
    pub draft: Draft,
}

impl Draft {
    /// Bytes that count towards [`MESSAGE_BYTES_MAX`]: body, values of system properties, names and values of
    /// application properties (`contract/hub-device.md 7`).
    pub fn size(&self) -> usize {
        let system = &self.system;
        let values = [
            &system.message_id,
            &system.correlation_id,
            &system.user_id,
            &system.content_type,
            &system.content_encoding,
            &system.expires_at,
            &system.created_at,
            &system.component,
            &system.output_name,
            &system.interface_id,
            &system.message_schema,
        ];
        let system: usize = values.into_iter().flatten().map(String::len).sum();
        let properties: usize = self.properties.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.body.len() + system + properties
    }

    /// Stamps the message for its hub. Names under which the hub speaks itself are dropped: nobody else may vouch.
    pub fn stamp(mut self, seat: &Seat, partitions: u16) -> Message {
        self.properties.retain(|(name, _)| !name.starts_with("iothub-connection-"));
        Message {
            hub: seat.hub,
            partition: partition_of(&seat.name.device, partitions),
            sender: seat.name.clone(),
            generation: seat.generation.to_string(),
            authentication: seat.authentication,
            model_id: seat.model_id.as_deref().map(str::to_owned),
            draft: self,
        }
    }
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
    fn the_hub_alone_speaks_under_its_own_names_and_sizes_count_both_sides_of_a_property() {
        let seat = Seat {
            hub: HubKey(1),
            name: IdentityName::device(DeviceId::parse("dev-1").unwrap()),
            generation: "7".into(),
            epoch: 1,
            authentication: AuthenticationMethod::DeviceKey,
            model_id: None,
        };
        let draft = Draft {
            body: Bytes::from_static(b"12345"),
            system: SystemProperties { message_id: Some("m1".into()), ..SystemProperties::default() },
            properties: vec![("a".into(), "bc".into()), ("iothub-connection-device-id".into(), "other".into())],
        };
        assert_eq!(draft.size(), 5 + 2 + 3 + 27 + 5);
        let message = draft.stamp(&seat, 4);
        assert_eq!(message.draft.properties, [("a".to_owned(), "bc".to_owned())]);
        assert!(message.partition < 4);
    }

    #[test]
    fn partitions_are_stable_and_all_are_used() {
        let mut used = [false; 4];
        for number in 0..64 {
            let device = DeviceId::parse(&format!("dev-{number}")).unwrap();
            assert_eq!(partition_of(&device, 4), partition_of(&device, 4));
            used[usize::from(partition_of(&device, 4))] = true;
        }
        assert_eq!(used, [true; 4]);
    }
}
