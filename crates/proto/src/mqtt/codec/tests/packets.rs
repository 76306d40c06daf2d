//! Packets and nearly-packets for property tests.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use super::encoded;
use crate::mqtt::packet::{
    Connack, Connect, Delivery, Filter, Packet, PacketId, Publish, QoS, Refusal, SubackCode, Will,
};
use crate::mqtt::text::Text;

/// Any packet that may be sent.
pub(super) fn packets() -> impl Strategy<Value = Packet> {
    prop_oneof![
        4 => connect().prop_map(|connect| Packet::Connect(Box::new(connect))),
        1 => connack().prop_map(Packet::Connack),
        6 => publish().prop_map(Packet::Publish),
        2 => acknowledgement(),
        2 => (packet_id(), vec(filter(), 1..6)).prop_map(|(packet_id, filters)| Packet::Subscribe { packet_id, filters }),
        1 => (packet_id(), vec(suback_code(), 1..6)).prop_map(|(packet_id, codes)| Packet::Suback { packet_id, codes }),
        1 => (packet_id(), vec(text(1), 1..6)).prop_map(|(packet_id, filters)| Packet::Unsubscribe { packet_id, filters }),
        1 => prop_oneof![Just(Packet::Pingreq), Just(Packet::Pingresp), Just(Packet::Disconnect)],
    ]
}

/// Packets with bytes changed, and random bytes behind a header that fits them.
pub(super) fn frames() -> impl Strategy<Value = Vec<u8>> {
    let changes = vec((any::<prop::sample::Index>(), any::<u8>()), 1..4);
    let changed = (packets(), changes).prop_map(|(packet, changes)| {
        let mut bytes = encoded(&packet);
        for (index, byte) in changes {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        bytes
    });
    let random = (any::<u8>(), vec(any::<u8>(), 0..120)).prop_map(|(first, body)| {
        let mut bytes = vec![first, body.len() as u8];
        bytes.extend(body);
        bytes
    });
    prop_oneof![3 => changed, 1 => random]
}

fn acknowledgement() -> impl Strategy<Value = Packet> {
    packet_id().prop_flat_map(|packet_id| {
        prop_oneof![
            Just(Packet::Puback(Some(packet_id))),
            Just(Packet::Pubrec(packet_id)),
            Just(Packet::Pubrel(packet_id)),
            Just(Packet::Pubcomp(packet_id)),
            Just(Packet::Unsuback(packet_id)),
        ]
    })
}

/// Strings of at least `chars_min` characters: mostly ASCII, sometimes not, now and then long.
fn text(chars_min: usize) -> impl Strategy<Value = Text> {
    let character = prop_oneof![4 => prop::char::range(' ', '~'), 1 => prop::char::range('\u{1}', '\u{10ffff}')];
    let chars = prop_oneof![20 => chars_min..40, 1 => 200usize..300];
    chars
        .prop_flat_map(move |chars| vec(character.clone(), chars))
        .prop_map(|characters| Text::try_from(characters.into_iter().collect::<String>()).unwrap())
}

fn binary() -> impl Strategy<Value = Bytes> {
    prop_oneof![20 => vec(any::<u8>(), 0..60), 1 => vec(any::<u8>(), 100..20_000)].prop_map(Bytes::from)
}

fn packet_id() -> impl Strategy<Value = PacketId> {
    (1..=u16::MAX).prop_map(|number| PacketId::new(number).unwrap())
}

fn qos() -> impl Strategy<Value = QoS> {
    prop_oneof![Just(QoS::AtMostOnce), Just(QoS::AtLeastOnce), Just(QoS::ExactlyOnce)]
}

fn filter() -> impl Strategy<Value = Filter> {
    (text(1), qos()).prop_map(|(topic, qos)| Filter { topic, qos })
}

fn suback_code() -> impl Strategy<Value = SubackCode> {
    prop_oneof![3 => qos().prop_map(SubackCode::Granted), 1 => Just(SubackCode::Failure)]
}

fn publish() -> impl Strategy<Value = Publish> {
    let delivery = (qos(), packet_id()).prop_map(|(qos, packet_id)| match qos {
        QoS::AtMostOnce => Delivery::AtMostOnce,
        QoS::AtLeastOnce => Delivery::AtLeastOnce(packet_id),
        QoS::ExactlyOnce => Delivery::ExactlyOnce(packet_id),
    });
    (text(1), binary(), delivery, any::<bool>(), any::<bool>())
        .prop_map(|(topic, payload, delivery, retain, dup)| Publish { topic, payload, delivery, retain, dup })
}

fn connack() -> impl Strategy<Value = Connack> {
    let refusal = prop_oneof![
        Just(Refusal::ProtocolVersion),
        Just(Refusal::IdentifierRejected),
        Just(Refusal::ServerUnavailable),
        Just(Refusal::BadUsernameOrPassword),
        Just(Refusal::NotAuthorized),
    ];
    prop_oneof![
        any::<bool>().prop_map(|session_present| Connack::Accepted { session_present }),
        refusal.prop_map(Connack::Refused),
    ]
}

fn connect() -> impl Strategy<Value = Connect> {
    let will = (text(1), binary(), qos(), any::<bool>())
        .prop_map(|(topic, payload, qos, retain)| Box::new(Will { topic, payload, qos, retain }));
    let credentials = prop::option::of((text(0), prop::option::of(binary())));
    (text(0), any::<bool>(), any::<u16>(), prop::option::of(will), credentials).prop_map(
        |(client_id, clean_session, keep_alive_s, will, credentials)| {
            let (username, password) = credentials.map_or((None, None), |(name, password)| (Some(name), password));
            Connect { client_id, clean_session, keep_alive_s, will, username, password }
        },
    )
}
