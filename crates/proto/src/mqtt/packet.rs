//! The packets of MQTT 3.1.1 as values. Nothing here reads or writes bytes; that is [`super::codec`].

use std::fmt;
use std::num::NonZeroU16;

use bytes::Bytes;

use super::text::Text;

/// Any packet, of either direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    /// A client introduces itself in MQTT 3.1.1.
    Connect(Box<Connect>),
    /// A client introduces itself in another protocol, or another version of this one; the rest is not read.
    ForeignConnect {
        /// `MQTT`, `MQIsdp` in MQTT 3.1, or anything.
        name: Text,
        /// 3 in MQTT 3.1, 5 in MQTT 5.
        level: u8,
    },
    /// The server's answer to CONNECT.
    Connack(Connack),
    /// A message.
    Publish(Publish),
    /// The receiver has taken a QoS 1 message over. `None` is the identifier 0, which the standard forbids and the
    /// C# provisioning client sends for QoS 0 messages (`contract/dps-device.md` 3.5).
    Puback(Option<PacketId>),
    /// QoS 2, first answer.
    Pubrec(PacketId),
    /// QoS 2, release.
    Pubrel(PacketId),
    /// QoS 2, complete.
    Pubcomp(PacketId),
    /// A client asks for messages.
    Subscribe {
        /// Repeated in the SUBACK.
        packet_id: PacketId,
        /// At least one, at most [`super::codec::FILTERS_MAX`].
        filters: Vec<Filter>,
    },
    /// The server's answer to SUBSCRIBE.
    Suback {
        /// That of the SUBSCRIBE.
        packet_id: PacketId,
        /// One for each filter, in their order.
        codes: Vec<SubackCode>,
    },
    /// A client wants no more messages.
    Unsubscribe {
        /// Repeated in the UNSUBACK.
        packet_id: PacketId,
        /// At least one, at most [`super::codec::FILTERS_MAX`].
        filters: Vec<Text>,
    },
    /// The server's answer to UNSUBSCRIBE.
    Unsuback(PacketId),
    /// A client asks whether the server is there.
    Pingreq,
    /// It is.
    Pingresp,
    /// A client leaves of its own will.
    Disconnect,
}

impl Packet {
    /// Which of the fourteen kinds it is.
    pub const fn packet_type(&self) -> PacketType {
        match self {
            Self::Connect(_) | Self::ForeignConnect { .. } => PacketType::Connect,
            Self::Connack(_) => PacketType::Connack,
            Self::Publish(_) => PacketType::Publish,
            Self::Puback(_) => PacketType::Puback,
            Self::Pubrec(_) => PacketType::Pubrec,
            Self::Pubrel(_) => PacketType::Pubrel,
            Self::Pubcomp(_) => PacketType::Pubcomp,
            Self::Subscribe { .. } => PacketType::Subscribe,
            Self::Suback { .. } => PacketType::Suback,
            Self::Unsubscribe { .. } => PacketType::Unsubscribe,
            Self::Unsuback(_) => PacketType::Unsuback,
            Self::Pingreq => PacketType::Pingreq,
            Self::Pingresp => PacketType::Pingresp,
            Self::Disconnect => PacketType::Disconnect,
        }
    }
}

/// The kinds of packets, with their number on the wire (MQTT 3.1.1, section 2.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PacketType {
    /// CONNECT.
    Connect = 1,
    /// CONNACK.
    Connack = 2,
    /// PUBLISH.
    Publish = 3,
    /// PUBACK.
    Puback = 4,
    /// PUBREC.
    Pubrec = 5,
    /// PUBREL.
    Pubrel = 6,
    /// PUBCOMP.
    Pubcomp = 7,
    /// SUBSCRIBE.
    Subscribe = 8,
    /// SUBACK.
    Suback = 9,
    /// UNSUBSCRIBE.
    Unsubscribe = 10,
    /// UNSUBACK.
    Unsuback = 11,
    /// PINGREQ.
    Pingreq = 12,
    /// PINGRESP.
    Pingresp = 13,
    /// DISCONNECT.
    Disconnect = 14,
}

/// Names an unanswered packet between two ends. Never 0 (MQTT 3.1.1, rule 2.3.1-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PacketId(NonZeroU16);

impl PacketId {
    /// The smallest.
    pub const FIRST: Self = Self(NonZeroU16::MIN);

    /// `None` for 0.
    pub const fn new(value: u16) -> Option<Self> {
        match NonZeroU16::new(value) {
            Some(value) => Some(Self(value)),
            None => None,
        }
    }

    /// The number on the wire.
    pub const fn get(self) -> u16 {
        self.0.get()
    }

    /// The following one; after 65,535 comes 1.
    pub const fn next(self) -> Self {
        match self.0.checked_add(1) {
            Some(value) => Self(value),
            None => Self::FIRST,
        }
    }
}

/// How surely a message arrives (MQTT 3.1.1, section 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum QoS {
    /// QoS 0.
    AtMostOnce = 0,
    /// QoS 1.
    AtLeastOnce = 1,
    /// QoS 2.
    ExactlyOnce = 2,
}

/// A client's introduction (MQTT 3.1.1, section 3.1).
#[derive(Clone, PartialEq, Eq)]
pub struct Connect {
    /// May be empty; whether that is acceptable is the caller's to say (section 3.1.3.1).
    pub client_id: Text,
    /// Ask for a session that begins and ends with this connection.
    pub clean_session: bool,
    /// Seconds within which the client promises to be heard; 0 promises nothing.
    pub keep_alive_s: u16,
    /// To be published when the connection ends without DISCONNECT.
    pub will: Option<Box<Will>>,
    /// Who connects.
    pub username: Option<Text>,
    /// Only with a user name (rule 3.1.2-22). Never printed.
    pub password: Option<Bytes>,
}

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect")
            .field("client_id", &self.client_id)
            .field("clean_session", &self.clean_session)
            .field("keep_alive_s", &self.keep_alive_s)
            .field("will", &self.will)
            .field("username", &self.username)
            .field("password", &self.password.as_ref().map(|_| "…"))
            .finish()
    }
}

/// A message left behind for the case that the connection breaks (MQTT 3.1.1, section 3.1.2.5).
#[derive(Clone, PartialEq, Eq)]
pub struct Will {
    /// Where to.
    pub topic: Text,
    /// What. Never printed.
    pub payload: Bytes,
    /// How surely.
    pub qos: QoS,
    /// Whether it is to be kept.
    pub retain: bool,
}

impl Will {
    /// The same will in allocations of its own, so that keeping it does not keep the CONNECT it came in.
    pub fn detached(&self) -> Self {
        Self { topic: self.topic.detached(), payload: Bytes::copy_from_slice(&self.payload), ..*self }
    }
}

impl fmt::Debug for Will {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Will")
            .field("topic", &self.topic)
            .field("payload_bytes", &self.payload.len())
            .field("qos", &self.qos)
            .field("retain", &self.retain)
            .finish()
    }
}

/// The server's answer to CONNECT (MQTT 3.1.1, section 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connack {
    /// Welcome.
    Accepted {
        /// Whether the server kept a session for this client.
        session_present: bool,
    },
    /// Not welcome; the connection ends.
    Refused(Refusal),
}

/// Why a CONNECT is refused, with the code on the wire (MQTT 3.1.1, section 3.2.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Refusal {
    /// The protocol level is not supported.
    ProtocolVersion = 1,
    /// The client identifier is not allowed.
    IdentifierRejected = 2,
    /// Come again later.
    ServerUnavailable = 3,
    /// User name or password cannot be read.
    BadUsernameOrPassword = 4,
    /// The client may not connect.
    NotAuthorized = 5,
}

/// How a message is delivered: its QoS, and the identifier that belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// QoS 0: no identifier, no answer.
    AtMostOnce,
    /// QoS 1: answered by PUBACK.
    AtLeastOnce(PacketId),
    /// QoS 2: answered by PUBREC, PUBREL and PUBCOMP.
    ExactlyOnce(PacketId),
}

impl Delivery {
    /// The QoS alone.
    pub const fn qos(self) -> QoS {
        match self {
            Self::AtMostOnce => QoS::AtMostOnce,
            Self::AtLeastOnce(_) => QoS::AtLeastOnce,
            Self::ExactlyOnce(_) => QoS::ExactlyOnce,
        }
    }

    /// The identifier alone; `None` for QoS 0.
    pub const fn packet_id(self) -> Option<PacketId> {
        match self {
            Self::AtMostOnce => None,
            Self::AtLeastOnce(packet_id) | Self::ExactlyOnce(packet_id) => Some(packet_id),
        }
    }
}

/// A message on the wire (MQTT 3.1.1, section 3.3).
#[derive(Clone, PartialEq, Eq)]
pub struct Publish {
    /// Not empty. May hold `+` and `#`: devices put property values and their own names there unencoded, whatever
    /// rule 3.3.2-2 says (`contract/hub-device.md` 2.5 and 2.7).
    pub topic: Text,
    /// The message itself. Never printed.
    pub payload: Bytes,
    /// QoS and identifier.
    pub delivery: Delivery,
    /// Whether the message is to be kept for later subscribers.
    pub retain: bool,
    /// Whether this may be a repetition.
    pub dup: bool,
}

impl fmt::Debug for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publish")
            .field("topic", &self.topic)
            .field("payload_bytes", &self.payload.len())
            .field("delivery", &self.delivery)
            .field("retain", &self.retain)
            .field("dup", &self.dup)
            .finish()
    }
}

/// A message as the two ends' callers see it: without packet identifiers.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// Where to.
    pub topic: Text,
    /// What. Never printed.
    pub payload: Bytes,
    /// How surely.
    pub qos: QoS,
    /// Whether it is to be kept for later subscribers.
    pub retain: bool,
    /// Whether it may have been delivered before.
    pub dup: bool,
}

impl Message {
    /// A first delivery that nobody keeps.
    pub const fn new(topic: Text, payload: Bytes, qos: QoS) -> Self {
        Self { topic, payload, qos, retain: false, dup: false }
    }
}

impl From<Publish> for Message {
    fn from(publish: Publish) -> Self {
        let Publish { topic, payload, delivery, retain, dup } = publish;
        Self { topic, payload, qos: delivery.qos(), retain, dup }
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("topic", &self.topic)
            .field("payload_bytes", &self.payload.len())
            .field("qos", &self.qos)
            .field("retain", &self.retain)
            .field("dup", &self.dup)
            .finish()
    }
}

/// One line of a SUBSCRIBE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Not empty. Where wildcards stand is not checked: only the caller knows which filters mean anything.
    pub topic: Text,
    /// The most that the client wants.
    pub qos: QoS,
}

/// One line of a SUBACK (MQTT 3.1.1, section 3.9.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubackCode {
    /// Messages will come with at most this QoS.
    Granted(QoS),
    /// 0x80: they will not come.
    Failure,
}
