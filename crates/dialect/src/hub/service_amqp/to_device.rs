//! Cloud-to-device messages as back-end programs send them (`contract/hub-service.md 9.3`).
//!
//! Bytes in, a draft and its receiver out; whether the receiver exists is the service's to know. Start at [`decode`].

use bytes::Bytes;
use domain::clock::UnixTime;
use domain::cloud_to_device::{Draft, SystemProperties};
use domain::message::PROPERTIES_MAX;
use domain::operation::ErrorKind;
use domain::operation::identity::IdentityName;
use proto::amqp::{Malformed, Message};

use crate::amqp::Address;
use crate::amqp::body::bytes_of;
use crate::hub::link_address::{LinkAddress, Purpose};
use crate::hub::telemetry_amqp::{id_text, text};
use crate::hub::words;

/// The application property that tells which outcomes the sender wants to hear of.
const ACKNOWLEDGEMENT: &str = "iothub-ack";

/// Why a transfer is no message to a device. What breaks a limit is found by [`Draft::check`], and not here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMessage {
    /// The format is not that of a message.
    #[error("the message format {0:#010x} is not known")]
    Format(u32),
    /// It cannot be read.
    #[error("{0}")]
    Malformed(Malformed),
    /// The body is neither bytes nor text.
    #[error("the body is neither bytes nor text")]
    Body,
    /// It is to nobody.
    #[error("`to` is not /devices/{{id}}/messages/devicebound")]
    To,
    /// What feedback is asked for is not known.
    #[error("{ACKNOWLEDGEMENT} is none, positive, negative or full")]
    Acknowledgement,
    /// Too many application properties.
    #[error("the message has more than {PROPERTIES_MAX} application properties")]
    TooManyProperties,
}

impl InvalidMessage {
    /// The class.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::TooManyProperties => ErrorKind::TooLarge,
            Self::Format(_) | Self::Malformed(_) | Self::Body | Self::To | Self::Acknowledgement => {
                ErrorKind::InvalidArgument
            }
        }
    }
}

/// The receiver and the message of a transfer.
pub fn decode(message_format: u32, payload: &Bytes) -> Result<(IdentityName, Draft), InvalidMessage> {
    if message_format != 0 {
        return Err(InvalidMessage::Format(message_format));
    }
    let message = Message::decode(payload).map_err(InvalidMessage::Malformed)?;
    let properties = message.properties.ok_or(InvalidMessage::To)?;
    let to = properties.to.as_deref().and_then(receiver).ok_or(InvalidMessage::To)?;
    let body = bytes_of(&message.body).ok_or(InvalidMessage::Body)?;
    let system = SystemProperties {
        message_id: properties.message_id.map(id_text),
        correlation_id: properties.correlation_id.map(id_text),
        user_id: properties.user_id.map(|id| String::from_utf8_lossy(&id).into_owned()),
        content_type: properties.content_type.map(|name| name.to_string()),
        content_encoding: properties.content_encoding.map(|name| name.to_string()),
    };
    let expires_at = properties.absolute_expiry_time.map(|millis| UnixTime::from_micros(millis.saturating_mul(1_000)));
    let mut draft = Draft { system, expires_at, body, ..Draft::default() };
    if message.application_properties.0.len() > PROPERTIES_MAX {
        return Err(InvalidMessage::TooManyProperties);
    }
    for (name, value) in &message.application_properties.0 {
        let (Some(name), value) = (name.as_str(), text(value)) else { continue };
        if name == ACKNOWLEDGEMENT {
            let word = value.unwrap_or_default();
            draft.acknowledgement = words::parse_acknowledgement(&word).ok_or(InvalidMessage::Acknowledgement)?;
        } else {
            draft.properties.push((name.to_owned(), value));
        }
    }
    Ok((to, draft))
}

/// Whom `to` names. Node percent-encodes names, Python does not: what is no name once it is decoded is taken as it stands.
fn receiver(to: &str) -> Option<IdentityName> {
    let address = Address::parse(to)?;
    let read = LinkAddress::read(&address).or_else(|_| LinkAddress::read_undecoded(&address));
    read.ok().filter(|address| address.purpose == Purpose::DeviceBound).map(|address| address.identity)
}

#[cfg(test)]
mod tests {
    use domain::cloud_to_device::Acknowledgement;
    use proptest::prelude::*;
    use proto::amqp::{Body, Map, MessageId, Properties, Symbol, Value};

    use super::*;

    fn to(address: &str) -> Message {
        let properties = Properties { to: Some(address.into()), ..Properties::default() };
        Message { properties: Some(Box::new(properties)), body: Body::data("hello"), ..Message::default() }
    }

    fn read(message: &Message) -> Result<(IdentityName, Draft), InvalidMessage> {
        decode(0, &message.to_bytes())
    }

    #[test]
    fn a_message_is_to_whom_its_address_names_in_every_clients_form() {
        let cases: &[(&str, &str, Option<&str>)] = &[
            ("Node", "/devices/dev-1/messages/devicebound", Some("dev-1")),
            ("Node, encoded", "/devices/a%2525b%40c/messages/devicebound", Some("a%25b@c")),
            ("Python, with a percent sign of its own", "/devices/100%20/messages/devicebound", Some("100%20")),
            ("a module", "/devices/d/modules/m/messages/devicebound", Some("d/m")),
            ("another letter case", "/Devices/d/messages/deviceBound", Some("d")),
            ("telemetry", "/devices/d/messages/events", None),
            ("the service", "/messages/devicebound", None),
            ("nobody", "", None),
        ];
        for (name, address, expected) in cases {
            let found = read(&to(address)).map(|(identity, _)| identity.to_string());
            assert_eq!(found, expected.map(str::to_owned).ok_or(InvalidMessage::To), "{name}");
        }
    }

    #[test]
    fn properties_find_their_places() {
        let mut message = to("/devices/d/messages/devicebound");
        if let Some(properties) = &mut message.properties {
            properties.message_id = Some(MessageId::Uuid([0xab; 16]));
            properties.correlation_id = Some(MessageId::String("c".into()));
            properties.user_id = Some(Bytes::from_static(b"user"));
            properties.content_type = Some(Symbol::from_static("application/json"));
            properties.content_encoding = Some(Symbol::from_static("utf-8"));
            properties.absolute_expiry_time = Some(1_706_702_400_123);
        }
        message.application_properties =
            Map::from_iter([("text", Value::from("x")), ("number", 3i32.into()), ("iothub-ack", "FULL".into())]);
        let some = |text: &str| Some(text.to_owned());
        let expected = Draft {
            system: SystemProperties {
                message_id: some("abababab-abab-abab-abab-abababababab"),
                correlation_id: some("c"),
                user_id: some("user"),
                content_type: some("application/json"),
                content_encoding: some("utf-8"),
            },
            properties: vec![("text".to_owned(), some("x")), ("number".to_owned(), some("3"))],
            expires_at: Some(UnixTime::from_micros(1_706_702_400_123_000)),
            acknowledgement: Acknowledgement::Full,
            body: Bytes::from_static(b"hello"),
        };
        assert_eq!(read(&message).unwrap().1, expected);
    }

    #[test]
    fn what_is_no_message_to_a_device_is_refused() {
        let good = || to("/devices/d/messages/devicebound");
        let many = (0..=PROPERTIES_MAX).map(|number| (format!("p{number}"), Value::Null)).collect();
        let cases: &[(&str, Message, InvalidMessage)] = &[
            ("no properties", Message { properties: None, ..good() }, InvalidMessage::To),
            ("a number", Message { body: Body::Value(1i32.into()), ..good() }, InvalidMessage::Body),
            (
                "another acknowledgement",
                Message { application_properties: Map::from_iter([("iothub-ack", "both")]), ..good() },
                InvalidMessage::Acknowledgement,
            ),
            ("too many", Message { application_properties: many, ..good() }, InvalidMessage::TooManyProperties),
        ];
        for (name, message, expected) in cases {
            assert_eq!(read(message).as_ref().err(), Some(expected), "{name}");
        }
        assert_eq!(decode(7, &good().to_bytes()).err(), Some(InvalidMessage::Format(7)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes: Vec<u8>) {
            let _ = decode(0, &bytes.into());
        }

        #[test]
        fn any_address_is_read(address in ".*") {
            let _ = receiver(&address);
        }
    }
}
