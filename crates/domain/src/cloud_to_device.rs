//! Messages from back-end programs to devices: what one may hold, how long it waits, and what becomes of it.
//!
//! A message is enqueued, then locked while a device has it, and then completed, given back or dead-lettered
//! (`contract/hub-device.md 8`). The rules stand here; when they are applied is the store's to say, in the transaction of
//! each step. Knows no wire and no clock. Start at [`Draft`] and [`given_back`].

use std::time::Duration;

use bytes::Bytes;

use crate::clock::UnixTime;
use crate::ids::LockToken;
use crate::message::{PROPERTIES_MAX, Property};
use crate::operation::identity::IdentityName;

/// Most bytes of a body (`contract/hub-service.md 9.3`).
pub const BODY_BYTES_MAX: usize = 65_536;
/// Most bytes of all properties together, names included: encoded, they must fit into a topic of MQTT, whose length is
/// told in 16 bits, and every byte may take three.
pub const PROPERTIES_BYTES_MAX: usize = 16_384;
/// Most characters of a message ID (`contract/hub-service.md 9.3`).
pub const MESSAGE_ID_CHARS_MAX: usize = 128;
/// How long a device that asks over HTTPS or AMQP has a message for itself (`contract/hub-service.md 9.3`: fixed).
pub const DEVICE_LOCK: Duration = Duration::from_mins(1);
/// Records of feedback that are handed out together (`contract/hub-service.md 9.4`).
pub const FEEDBACK_BATCH_MAX: usize = 64;

/// A message as a back-end program sends it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Draft {
    /// What the sender sets besides its own properties.
    pub system: SystemProperties,
    /// Application properties in the order sent.
    pub properties: Vec<Property>,
    /// When the message expires, if the sender says; never later than [`QueueSettings::TTL_MAX`] after it is sent.
    pub expires_at: Option<UnixTime>,
    /// What the sender wants to hear of.
    pub acknowledgement: Acknowledgement,
    /// The body, unchanged.
    pub body: Bytes,
}

/// System properties that a sender may set. All are text as sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct SystemProperties {
    /// Message ID, by which feedback names the message.
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
}

/// Which outcomes a sender wants to hear of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Acknowledgement {
    /// None.
    #[default]
    None,
    /// That the device completed it.
    Positive,
    /// That it was dead-lettered or purged.
    Negative,
    /// Both.
    Full,
}

impl Acknowledgement {
    /// Whether `outcome` is to be told.
    pub const fn wants(self, outcome: Outcome) -> bool {
        match (self, outcome) {
            (Self::None, _) => false,
            (Self::Full, _) => true,
            (Self::Positive, outcome) => matches!(outcome, Outcome::Success),
            (Self::Negative, outcome) => !matches!(outcome, Outcome::Success),
        }
    }
}

/// How a message ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The device completed it.
    Success,
    /// Its time ran out.
    Expired,
    /// It was given back too often.
    DeliveryCountExceeded,
    /// The device rejected it.
    Rejected,
    /// An operator emptied the queue.
    Purged,
}

/// What whoever holds a lock does with what is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Settlement {
    /// It is done with.
    Complete,
    /// It is given back, to be delivered again.
    Abandon,
    /// It is of no use; of a message, not of feedback.
    Reject,
}

/// Why a message is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMessage {
    /// Too long a body.
    #[error("the body has {bytes} bytes; {BODY_BYTES_MAX} are allowed")]
    Body {
        /// Its bytes.
        bytes: usize,
    },
    /// Too much text around the body.
    #[error("the properties have {bytes} bytes; {PROPERTIES_BYTES_MAX} are allowed")]
    PropertiesBytes {
        /// Their bytes.
        bytes: usize,
    },
    /// Too many application properties.
    #[error("the message has {properties} application properties; {PROPERTIES_MAX} are allowed")]
    TooManyProperties {
        /// How many.
        properties: usize,
    },
    /// Too long a message ID.
    #[error("a message ID has at most {MESSAGE_ID_CHARS_MAX} characters")]
    MessageId,
}

impl Draft {
    /// Whether the message keeps the limits.
    pub fn check(&self) -> Result<(), InvalidMessage> {
        let message_id = self.system.message_id.as_deref().unwrap_or_default();
        if message_id.chars().count() > MESSAGE_ID_CHARS_MAX {
            return Err(InvalidMessage::MessageId);
        }
        if self.body.len() > BODY_BYTES_MAX {
            return Err(InvalidMessage::Body { bytes: self.body.len() });
        }
        if self.properties.len() > PROPERTIES_MAX {
            return Err(InvalidMessage::TooManyProperties { properties: self.properties.len() });
        }
        let property = |(name, value): &Property| name.len() + value.as_ref().map_or(0, String::len);
        let system: usize = self.system.values().map(String::len).sum();
        match system + self.properties.iter().map(property).sum::<usize>() {
            bytes if bytes > PROPERTIES_BYTES_MAX => Err(InvalidMessage::PropertiesBytes { bytes }),
            _ => Ok(()),
        }
    }
}

impl SystemProperties {
    /// Those that are set.
    fn values(&self) -> impl Iterator<Item = &String> {
        let Self { message_id, correlation_id, user_id, content_type, content_encoding } = self;
        [message_id, correlation_id, user_id, content_type, content_encoding].into_iter().flatten()
    }
}

/// A message in the hands of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// By which it is settled.
    pub lock: LockToken,
    /// Its place in the order of all messages.
    pub sequence: u64,
    /// When it was enqueued.
    pub enqueued_at: UnixTime,
    /// When it expires, unless the device completes it before.
    pub expires_at: UnixTime,
    /// How often it was given back before.
    pub delivery_count: u32,
    /// What was sent.
    pub message: Draft,
}

/// What became of a message whose sender wants to hear of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feedback {
    /// The ID its sender gave it.
    pub message_id: String,
    /// To whom it was sent.
    pub device: IdentityName,
    /// The generation of that identity.
    pub generation: String,
    /// What became of it.
    pub outcome: Outcome,
    /// When.
    pub at: UnixTime,
}

/// Feedback handed out to a back-end program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedbackBatch {
    /// By which all of it is settled.
    pub lock: LockToken,
    /// At most [`FEEDBACK_BATCH_MAX`], oldest first.
    pub records: Vec<Feedback>,
}

/// How a hub treats the messages to its devices (`contract/hub-service.md 9.3`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct QueueSettings {
    /// How long a message waits whose sender does not say; one minute to two days.
    pub default_ttl: Duration,
    /// How often a message is given to a device, 1 to 100.
    pub deliveries_max: u32,
    /// What holds for feedback.
    pub feedback: FeedbackSettings,
}

/// How a hub treats feedback.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct FeedbackSettings {
    /// How long it waits to be read; one minute to two days.
    pub ttl: Duration,
    /// How often it is handed out, 1 to 100.
    pub deliveries_max: u32,
    /// How long a reader has it for itself, 5 to 300 seconds.
    pub lock: Duration,
}

impl Default for QueueSettings {
    fn default() -> Self {
        Self { default_ttl: Duration::from_hours(1), deliveries_max: 10, feedback: FeedbackSettings::default() }
    }
}

impl Default for FeedbackSettings {
    fn default() -> Self {
        Self { ttl: Duration::from_hours(1), deliveries_max: 10, lock: Duration::from_mins(1) }
    }
}

/// Which setting of a queue is out of its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidQueue {
    /// A time to live.
    #[error("a message or its feedback lives for 1 minute to 2 days")]
    Ttl,
    /// A number of deliveries.
    #[error("a message or its feedback is delivered 1 to {} times", QueueSettings::DELIVERIES_MAX)]
    Deliveries,
    /// A lock.
    #[error("feedback is locked for 5 to 300 seconds")]
    Lock,
}

impl QueueSettings {
    /// Shortest time to live that can be set.
    pub const TTL_MIN: Duration = Duration::from_mins(1);
    /// Longest time that a message lives, also if its sender says more.
    pub const TTL_MAX: Duration = Duration::from_hours(48);
    /// Most deliveries that can be set.
    pub const DELIVERIES_MAX: u32 = 100;
    /// Shortest lock of feedback.
    pub const LOCK_MIN: Duration = Duration::from_secs(5);
    /// Longest lock of feedback.
    pub const LOCK_MAX: Duration = Duration::from_mins(5);

    /// Whether every setting is in its range.
    pub fn check(&self) -> Result<(), InvalidQueue> {
        let ttl = Self::TTL_MIN..=Self::TTL_MAX;
        let deliveries = 1..=Self::DELIVERIES_MAX;
        if !ttl.contains(&self.default_ttl) || !ttl.contains(&self.feedback.ttl) {
            return Err(InvalidQueue::Ttl);
        }
        if !deliveries.contains(&self.deliveries_max) || !deliveries.contains(&self.feedback.deliveries_max) {
            return Err(InvalidQueue::Deliveries);
        }
        match (Self::LOCK_MIN..=Self::LOCK_MAX).contains(&self.feedback.lock) {
            true => Ok(()),
            false => Err(InvalidQueue::Lock),
        }
    }

    /// When a message expires that is sent at `now`.
    pub fn expiry(&self, wanted: Option<UnixTime>, now: UnixTime) -> UnixTime {
        wanted.unwrap_or(now.plus(self.default_ttl)).min(now.plus(Self::TTL_MAX))
    }
}

/// What becomes of a message that its device gives back, or whose lock has run out: how often it was given back with this
/// time, or how it ended. Expiry is looked at first, since who asks for an expired message gets none.
pub fn given_back(
    delivery_count: u32,
    deliveries_max: u32,
    expires_at: UnixTime,
    now: UnixTime,
) -> Result<u32, Outcome> {
    let count = delivery_count.saturating_add(1);
    if expires_at <= now {
        return Err(Outcome::Expired);
    }
    if count >= deliveries_max { Err(Outcome::DeliveryCountExceeded) } else { Ok(count) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: UnixTime = UnixTime::from_seconds(1_700_000_000);

    #[test]
    fn limits_are_met_exactly() {
        let body = |bytes| Draft { body: vec![0; bytes].into(), ..Draft::default() };
        let many = |count: usize| Draft { properties: vec![("a".into(), None); count], ..Draft::default() };
        let long = |bytes| Draft { properties: vec![("a".into(), Some("b".repeat(bytes)))], ..Draft::default() };
        let named = |chars| {
            let system = SystemProperties { message_id: Some("é".repeat(chars)), ..SystemProperties::default() };
            Draft { system, ..Draft::default() }
        };
        let cases: &[(&str, Draft, Result<(), InvalidMessage>)] = &[
            ("the longest body", body(BODY_BYTES_MAX), Ok(())),
            ("one byte more", body(BODY_BYTES_MAX + 1), Err(InvalidMessage::Body { bytes: 65_537 })),
            ("the most properties", many(PROPERTIES_MAX), Ok(())),
            ("one more", many(PROPERTIES_MAX + 1), Err(InvalidMessage::TooManyProperties { properties: 257 })),
            ("the longest property", long(PROPERTIES_BYTES_MAX - 1), Ok(())),
            ("a longer one", long(PROPERTIES_BYTES_MAX), Err(InvalidMessage::PropertiesBytes { bytes: 16_385 })),
            ("the longest message ID", named(MESSAGE_ID_CHARS_MAX), Ok(())),
            ("a longer message ID", named(MESSAGE_ID_CHARS_MAX + 1), Err(InvalidMessage::MessageId)),
        ];
        for (name, draft, expected) in cases {
            assert_eq!(draft.check(), *expected, "{name}");
        }
    }

    #[test]
    fn a_sender_hears_of_what_it_asked_for() {
        use Acknowledgement::{Full, Negative, None, Positive};

        let told = |wanted: Acknowledgement| {
            [Outcome::Success, Outcome::Expired, Outcome::DeliveryCountExceeded, Outcome::Rejected, Outcome::Purged]
                .map(|outcome| wanted.wants(outcome))
        };
        assert_eq!(told(None), [false; 5]);
        assert_eq!(told(Positive), [true, false, false, false, false]);
        assert_eq!(told(Negative), [false, true, true, true, true]);
        assert_eq!(told(Full), [true; 5]);
    }

    #[test]
    fn nothing_waits_longer_than_two_days() {
        let settings = QueueSettings::default();
        let after = |seconds| NOON.plus(Duration::from_secs(seconds));
        let cases = [
            ("nobody says", None, after(3_600)),
            ("the sender says less", Some(after(5)), after(5)),
            ("the sender says more", Some(after(3 * 86_400)), after(2 * 86_400)),
            ("it has passed already", Some(after(0)), after(0)),
        ];
        for (name, wanted, expected) in cases {
            assert_eq!(settings.expiry(wanted, NOON), expected, "{name}");
        }
    }

    #[test]
    fn a_message_comes_back_until_its_deliveries_or_its_time_are_spent() {
        let later = NOON.plus(Duration::from_secs(1));
        let cases = [
            ("the first of two", (0, 2, later), Ok(1)),
            ("the second of two", (1, 2, later), Err(Outcome::DeliveryCountExceeded)),
            ("the only one", (0, 1, later), Err(Outcome::DeliveryCountExceeded)),
            ("its time is over", (0, 10, NOON), Err(Outcome::Expired)),
            ("a count beyond the most", (u32::MAX, 10, later), Err(Outcome::DeliveryCountExceeded)),
        ];
        for (name, (count, most, expires_at), expected) in cases {
            assert_eq!(given_back(count, most, expires_at, NOON), expected, "{name}");
        }
    }

    #[test]
    fn settings_have_ranges() {
        let with = |change: fn(&mut QueueSettings)| {
            let mut settings = QueueSettings::default();
            change(&mut settings);
            settings.check()
        };
        assert_eq!(with(|_| {}), Ok(()));
        assert_eq!(with(|it| it.default_ttl = Duration::from_secs(59)), Err(InvalidQueue::Ttl));
        assert_eq!(with(|it| it.default_ttl = Duration::from_hours(48)), Ok(()));
        assert_eq!(with(|it| it.feedback.ttl = Duration::from_hours(49)), Err(InvalidQueue::Ttl));
        assert_eq!(with(|it| it.deliveries_max = 0), Err(InvalidQueue::Deliveries));
        assert_eq!(with(|it| it.feedback.deliveries_max = 101), Err(InvalidQueue::Deliveries));
        assert_eq!(with(|it| it.feedback.lock = Duration::from_secs(4)), Err(InvalidQueue::Lock));
        assert_eq!(with(|it| it.feedback.lock = Duration::from_secs(300)), Ok(()));
    }
}
