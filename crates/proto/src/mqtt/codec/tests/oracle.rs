//! The codec against `rmqtt-codec`, which nobody here wrote, on the same bytes.

use std::num::NonZeroU16;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use rmqtt_codec::types::Protocol;
use rmqtt_codec::v3;
use tokio_util::codec::{Decoder, Encoder};

use super::{decode_one, encoded, hex, packets};
use crate::mqtt::codec::{Malformed, decode_header};
use crate::mqtt::packet::{
    Connack, Connect, Delivery, Filter, Packet, PacketId, Publish, QoS, Refusal, SubackCode, Will,
};
use crate::mqtt::text::{InvalidText, Text};

/// Where the two differ on purpose: why, bytes that show it, and who accepts them.
const DIFFERENCES: &[(&str, &str, Accepts)] = &[
    ("C# sends PUBACK with identifier 0", "40 02 00 00", Accepts::Ours),
    ("MQTT 5 is to be answered, not dropped", "10 0c 00 04 4d 51 54 54 05 02 00 3c 00 00", Accepts::Ours),
    (
        "MQTT 3.1 is to be refused, not served",
        "10 0f 00 06 4d 51 49 73 64 70 03 02 00 0a 00 01 70",
        Accepts::BothUnlike,
    ),
    ("an empty client identifier gets return code 2", "10 0c 00 04 4d 51 54 54 04 00 00 3c 00 00", Accepts::Ours),
    ("a refusal has no session", "20 02 01 05", Accepts::BothUnlike),
    ("return code 6 does not exist", "20 02 00 06", Accepts::Theirs),
    ("no string holds U+0000", "30 03 00 01 00", Accepts::Theirs),
    ("a PINGREQ is two bytes", "c0 01 00", Accepts::Theirs),
    ("a CONNECT ends with its last field", "10 0d 00 04 4d 51 54 54 04 02 00 3c 00 00 00", Accepts::Theirs),
    ("a password needs a user name", "10 0e 00 04 4d 51 54 54 04 42 00 3c 00 00 00 00", Accepts::Theirs),
    ("a will has a topic", "10 10 00 04 4d 51 54 54 04 06 00 3c 00 00 00 00 00 00", Accepts::Theirs),
    ("the bits beside a QoS are reserved", "82 06 00 01 00 01 61 04", Accepts::Theirs),
    ("a SUBACK answers something", "90 02 00 01", Accepts::Theirs),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accepts {
    Ours,
    Theirs,
    BothUnlike,
}

#[test]
fn the_two_codecs_differ_where_it_is_written_down() {
    for (why, bytes, accepts) in DIFFERENCES {
        let bytes = hex(bytes);
        let (ours, theirs) = (decode_one(&bytes), their_decode(&bytes));
        let found = match (&ours, &theirs) {
            (Ok(Some(_)), None) => Accepts::Ours,
            (Err(_), Some(_)) => Accepts::Theirs,
            (Ok(Some(ours)), Some(theirs)) if *ours != translate(theirs) => Accepts::BothUnlike,
            _ => panic!("{why}: they agree on {ours:?}"),
        };
        assert_eq!(found, *accepts, "{why}");
        assert!(is_deliberate(&ours, theirs.as_ref()), "{why}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn valid_packets_agree_field_for_field(packet in packets::packets()) {
        let bytes = encoded(&packet);
        let Some(theirs) = their_decode(&bytes) else {
            prop_assert!(is_deliberate(&Ok(Some(packet)), None));
            return Ok(());
        };
        prop_assert_eq!(&translate(&theirs), &packet);

        let mut written = BytesMut::new();
        v3::Codec::new(0).encode(theirs, &mut written).unwrap();
        prop_assert_eq!(&written[..], &bytes[..]);
    }

    #[test]
    fn other_bytes_agree_or_differ_on_purpose(bytes in packets::frames()) {
        // Only whole packets: the two may refuse an unfinished one at different bytes.
        let whole = match decode_header(&bytes, usize::MAX) {
            Ok(Some(header)) => bytes.get(..header.packet_bytes()),
            Ok(None) => None,
            Err(_) => Some(&bytes[..]),
        };
        let Some(whole) = whole else { return Ok(()) };
        let (ours, theirs) = (decode_one(whole), their_decode(whole));
        let agree = is_deliberate(&ours, theirs.as_ref())
            || match (&ours, &theirs) {
                (Ok(Some(ours)), Some(theirs)) => *ours == translate(theirs),
                (Err(_), None) => true,
                _ => false,
            };
        prop_assert!(agree, "{:?} and {:?}", ours, theirs);
    }
}

/// Whether [`DIFFERENCES`] covers a disagreement.
fn is_deliberate(ours: &Result<Option<Packet>, Malformed>, theirs: Option<&v3::Packet>) -> bool {
    match (ours, theirs) {
        (Ok(Some(Packet::Puback(None) | Packet::ForeignConnect { .. })), None) => true,
        (Ok(Some(Packet::Connect(connect))), None) => connect.client_id.is_empty() && !connect.clean_session,
        (Ok(Some(Packet::ForeignConnect { name, level })), Some(v3::Packet::Connect(_))) => {
            (name != "MQTT" || *level != 4) && (3..=4).contains(level)
        }
        (Ok(Some(Packet::Connack(Connack::Refused(_)))), Some(v3::Packet::ConnectAck(theirs))) => {
            theirs.session_present
        }
        (Err(malformed), Some(theirs)) => is_stricter(*malformed, theirs),
        _ => false,
    }
}

fn is_stricter(malformed: Malformed, theirs: &v3::Packet) -> bool {
    match (malformed, theirs) {
        (Malformed::Text(InvalidText::Nul), _) => true,
        (Malformed::Trailing, v3::Packet::PingRequest | v3::Packet::PingResponse | v3::Packet::Disconnect) => true,
        (Malformed::Trailing, v3::Packet::Connect(_) | v3::Packet::ConnectAck(_)) => true,
        (Malformed::ConnectFlags, v3::Packet::Connect(connect)) => {
            connect.password.is_some() && connect.username.is_none()
        }
        (Malformed::EmptyTopic, v3::Packet::Connect(connect)) => {
            connect.last_will.as_ref().is_some_and(|will| will.topic.is_empty())
        }
        (Malformed::ReturnCode(6), v3::Packet::ConnectAck(_)) => true,
        (Malformed::QoS, v3::Packet::Subscribe { .. }) => true,
        (Malformed::NoFilters, v3::Packet::SubscribeAck { .. }) => true,
        _ => false,
    }
}

/// Their reading of one whole packet; `None` if they refuse it, or take fewer bytes than all.
fn their_decode(bytes: &[u8]) -> Option<v3::Packet> {
    let mut input = BytesMut::from(bytes);
    let (packet, _) = v3::Codec::new(0).decode(&mut input).ok()??;
    input.is_empty().then_some(packet)
}

/// Their packet in our words. Panics on what neither may accept; [`is_deliberate`] is asked about the rest.
fn translate(theirs: &v3::Packet) -> Packet {
    match theirs {
        v3::Packet::Connect(connect) => translate_connect(connect),
        v3::Packet::ConnectAck(connack) => Packet::Connack(translate_connack(*connack)),
        v3::Packet::Publish(publish) => {
            let packet_id = publish.packet_id.map(id);
            let delivery = match (publish.qos, packet_id) {
                (v3::QoS::AtMostOnce, None) => Delivery::AtMostOnce,
                (v3::QoS::AtLeastOnce, Some(packet_id)) => Delivery::AtLeastOnce(packet_id),
                (v3::QoS::ExactlyOnce, Some(packet_id)) => Delivery::ExactlyOnce(packet_id),
                other => panic!("{other:?}"),
            };
            let (topic, payload) = (text(&publish.topic), publish.payload.clone());
            Packet::Publish(Publish { topic, payload, delivery, retain: publish.retain, dup: publish.dup })
        }
        v3::Packet::PublishAck { packet_id } => Packet::Puback(Some(id(*packet_id))),
        v3::Packet::PublishReceived { packet_id } => Packet::Pubrec(id(*packet_id)),
        v3::Packet::PublishRelease { packet_id } => Packet::Pubrel(id(*packet_id)),
        v3::Packet::PublishComplete { packet_id } => Packet::Pubcomp(id(*packet_id)),
        v3::Packet::Subscribe { packet_id, topic_filters } => {
            let filters = topic_filters.iter().map(|(topic, level)| Filter { topic: text(topic), qos: qos(*level) });
            Packet::Subscribe { packet_id: id(*packet_id), filters: filters.collect() }
        }
        v3::Packet::SubscribeAck { packet_id, status } => {
            let code = |code: &v3::SubscribeReturnCode| match code {
                v3::SubscribeReturnCode::Success(granted) => SubackCode::Granted(qos(*granted)),
                v3::SubscribeReturnCode::Failure => SubackCode::Failure,
            };
            Packet::Suback { packet_id: id(*packet_id), codes: status.iter().map(code).collect() }
        }
        v3::Packet::Unsubscribe { packet_id, topic_filters } => {
            let filters = topic_filters.iter().map(|filter| text(filter)).collect();
            Packet::Unsubscribe { packet_id: id(*packet_id), filters }
        }
        v3::Packet::UnsubscribeAck { packet_id } => Packet::Unsuback(id(*packet_id)),
        v3::Packet::PingRequest => Packet::Pingreq,
        v3::Packet::PingResponse => Packet::Pingresp,
        v3::Packet::Disconnect => Packet::Disconnect,
    }
}

fn translate_connect(connect: &v3::Connect) -> Packet {
    assert!(matches!(connect.protocol, Protocol(3 | 4)));
    let will = connect.last_will.as_ref().map(|will| {
        let (topic, payload) = (text(&will.topic), will.message.clone());
        Box::new(Will { topic, payload, qos: qos(will.qos), retain: will.retain })
    });
    Packet::Connect(Box::new(Connect {
        client_id: text(&connect.client_id),
        clean_session: connect.clean_session,
        keep_alive_s: connect.keep_alive,
        will,
        username: connect.username.as_ref().map(|username| text(username)),
        password: connect.password.clone(),
    }))
}

fn translate_connack(connack: v3::ConnectAck) -> Connack {
    let session_present = connack.session_present;
    match connack.return_code {
        v3::ConnectAckReason::ConnectionAccepted => Connack::Accepted { session_present },
        // A refusal with a session has no words here; an acceptance differs from every refusal.
        _ if session_present => Connack::Accepted { session_present },
        v3::ConnectAckReason::UnacceptableProtocolVersion => Connack::Refused(Refusal::ProtocolVersion),
        v3::ConnectAckReason::IdentifierRejected => Connack::Refused(Refusal::IdentifierRejected),
        v3::ConnectAckReason::ServiceUnavailable => Connack::Refused(Refusal::ServerUnavailable),
        v3::ConnectAckReason::BadUserNameOrPassword => Connack::Refused(Refusal::BadUsernameOrPassword),
        v3::ConnectAckReason::NotAuthorized => Connack::Refused(Refusal::NotAuthorized),
        v3::ConnectAckReason::Reserved => panic!("return code 6 is refused here"),
    }
}

fn qos(theirs: v3::QoS) -> QoS {
    match theirs {
        v3::QoS::AtMostOnce => QoS::AtMostOnce,
        v3::QoS::AtLeastOnce => QoS::AtLeastOnce,
        v3::QoS::ExactlyOnce => QoS::ExactlyOnce,
    }
}

fn id(theirs: NonZeroU16) -> PacketId {
    PacketId::new(theirs.get()).unwrap()
}

fn text(theirs: &str) -> Text {
    Text::parse(Bytes::copy_from_slice(theirs.as_bytes())).unwrap()
}
