//! Writes packets.

use super::{BODY_BYTES_MAX, reserved_flags};
use crate::mqtt::packet::{
    Connack, Connect, Delivery, Filter, Packet, PacketId, PacketType, Publish, SubackCode, Will,
};
use crate::mqtt::text::Text;

/// A field or a packet is longer than MQTT can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{bytes} bytes are more than MQTT can announce")]
pub struct Oversized {
    /// How long it is.
    pub bytes: usize,
}

/// Appends `packet` to `output`. On error `output` is as it was.
///
/// Whether lists hold anything and topics are not empty is the caller's business.
pub fn encode(packet: &Packet, output: &mut Vec<u8>) -> Result<(), Oversized> {
    let body_bytes = body_bytes(packet);
    if body_bytes > BODY_BYTES_MAX {
        return Err(Oversized { bytes: body_bytes });
    }
    check_binaries(packet)?;

    output.reserve(super::HEADER_BYTES_MAX + body_bytes);
    output.push(first_byte(packet));
    encode_remaining_length(body_bytes, output);
    match packet {
        Packet::Connect(connect) => encode_connect(connect, output),
        Packet::ForeignConnect { name, level } => {
            encode_binary(name.as_ref(), output);
            output.push(*level);
        }
        Packet::Connack(Connack::Accepted { session_present }) => {
            output.extend_from_slice(&[u8::from(*session_present), 0]);
        }
        Packet::Connack(Connack::Refused(refusal)) => output.extend_from_slice(&[0, *refusal as u8]),
        Packet::Publish(publish) => encode_publish(publish, output),
        Packet::Puback(packet_id) => encode_u16(packet_id.map_or(0, PacketId::get), output),
        Packet::Pubrec(packet_id)
        | Packet::Pubrel(packet_id)
        | Packet::Pubcomp(packet_id)
        | Packet::Unsuback(packet_id) => encode_u16(packet_id.get(), output),
        Packet::Subscribe { packet_id, filters } => {
            encode_u16(packet_id.get(), output);
            for Filter { topic, qos } in filters {
                encode_binary(topic.as_ref(), output);
                output.push(*qos as u8);
            }
        }
        Packet::Suback { packet_id, codes } => {
            encode_u16(packet_id.get(), output);
            output.extend(codes.iter().map(|code| match code {
                SubackCode::Granted(qos) => *qos as u8,
                SubackCode::Failure => 0x80,
            }));
        }
        Packet::Unsubscribe { packet_id, filters } => {
            encode_u16(packet_id.get(), output);
            for filter in filters {
                encode_binary(filter.as_ref(), output);
            }
        }
        Packet::Pingreq | Packet::Pingresp | Packet::Disconnect => {}
    }
    Ok(())
}

/// Appends a packet that holds an identifier and nothing else: PUBACK and its kin, UNSUBACK.
pub(in crate::mqtt) fn encode_ack(packet_type: PacketType, packet_id: PacketId, output: &mut Vec<u8>) {
    let [high, low] = packet_id.get().to_be_bytes();
    let first = (packet_type as u8) << 4 | reserved_flags(packet_type).unwrap_or(0);
    output.extend_from_slice(&[first, 2, high, low]);
}

fn first_byte(packet: &Packet) -> u8 {
    let packet_type = packet.packet_type();
    let flags = match packet {
        Packet::Publish(Publish { delivery, retain, dup, .. }) => {
            u8::from(*dup) << 3 | (delivery.qos() as u8) << 1 | u8::from(*retain)
        }
        _ => reserved_flags(packet_type).unwrap_or(0),
    };
    (packet_type as u8) << 4 | flags
}

fn body_bytes(packet: &Packet) -> usize {
    match packet {
        Packet::Connect(connect) => connect_body_bytes(connect),
        Packet::ForeignConnect { name, .. } => text_bytes(name) + 1,
        Packet::Publish(Publish { topic, payload, delivery, .. }) => {
            text_bytes(topic) + delivery.packet_id().map_or(0, |_| 2) + payload.len()
        }
        Packet::Subscribe { filters, .. } => {
            2 + filters.iter().map(|filter| text_bytes(&filter.topic) + 1).sum::<usize>()
        }
        Packet::Suback { codes, .. } => 2 + codes.len(),
        Packet::Unsubscribe { filters, .. } => 2 + filters.iter().map(text_bytes).sum::<usize>(),
        Packet::Connack(_)
        | Packet::Puback(_)
        | Packet::Pubrec(_)
        | Packet::Pubrel(_)
        | Packet::Pubcomp(_)
        | Packet::Unsuback(_) => 2,
        Packet::Pingreq | Packet::Pingresp | Packet::Disconnect => 0,
    }
}

fn connect_body_bytes(connect: &Connect) -> usize {
    const FIXED: usize = 2 + "MQTT".len() + 1 + 1 + 2;

    let will = connect.will.as_deref().map_or(0, |will| text_bytes(&will.topic) + 2 + will.payload.len());
    let username = connect.username.as_ref().map_or(0, text_bytes);
    let password = connect.password.as_ref().map_or(0, |password| 2 + password.len());
    FIXED + text_bytes(&connect.client_id) + will + username + password
}

fn text_bytes(text: &Text) -> usize {
    let bytes: &[u8] = text.as_ref();
    2 + bytes.len()
}

/// Refuses binary fields longer than their two-byte length can say; a [`Text`] never is.
fn check_binaries(packet: &Packet) -> Result<(), Oversized> {
    let Packet::Connect(connect) = packet else { return Ok(()) };
    let will = connect.will.as_deref().map(|will| &will.payload);
    match [will, connect.password.as_ref()].into_iter().flatten().find(|field| field.len() > Text::BYTES_MAX) {
        Some(field) => Err(Oversized { bytes: field.len() }),
        None => Ok(()),
    }
}

fn encode_connect(connect: &Connect, output: &mut Vec<u8>) {
    let Connect { client_id, clean_session, keep_alive_s, will, username, password } = connect;
    let will_flags = will.as_deref().map_or(0, |will| 0x04 | (will.qos as u8) << 3 | u8::from(will.retain) << 5);
    let flags = u8::from(username.is_some()) << 7
        | u8::from(password.is_some()) << 6
        | will_flags
        | u8::from(*clean_session) << 1;

    encode_binary(b"MQTT", output);
    output.extend_from_slice(&[4, flags]);
    encode_u16(*keep_alive_s, output);
    encode_binary(client_id.as_ref(), output);
    if let Some(Will { topic, payload, .. }) = will.as_deref() {
        encode_binary(topic.as_ref(), output);
        encode_binary(payload, output);
    }
    if let Some(username) = username {
        encode_binary(username.as_ref(), output);
    }
    if let Some(password) = password {
        encode_binary(password, output);
    }
}

fn encode_publish(publish: &Publish, output: &mut Vec<u8>) {
    encode_binary(publish.topic.as_ref(), output);
    match publish.delivery {
        Delivery::AtMostOnce => {}
        Delivery::AtLeastOnce(packet_id) | Delivery::ExactlyOnce(packet_id) => encode_u16(packet_id.get(), output),
    }
    output.extend_from_slice(&publish.payload);
}

fn encode_remaining_length(mut value: usize, output: &mut Vec<u8>) {
    while value > 0x7f {
        output.push(value as u8 | 0x80);
        value >>= 7;
    }
    output.push(value as u8);
}

fn encode_binary(bytes: &[u8], output: &mut Vec<u8>) {
    encode_u16(bytes.len() as u16, output);
    output.extend_from_slice(bytes);
}

fn encode_u16(value: u16, output: &mut Vec<u8>) {
    output.extend_from_slice(&value.to_be_bytes());
}
