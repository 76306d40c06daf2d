//! Bytes to packets and back. Stateless; never reads past a packet, never allocates for bytes that are not there.
//!
//! Stricter than most libraries (reserved bits, left-over bytes and wrong lengths are refused), except where real
//! clients need leave: see [`Packet::Puback`], [`Packet::ForeignConnect`] and [`Publish::topic`]. Start at [`decode()`];
//! [`decode_header`] is what bounds everything else.
//!
//! [`Publish::topic`]: super::packet::Publish::topic

mod decode;
mod encode;
#[cfg(test)]
mod tests;

use bytes::{Buf, BytesMut};

use super::packet::{Packet, PacketType};
use super::text::InvalidText;

pub(super) use encode::encode_ack;
pub use encode::{Oversized, encode};

/// The longest body that four bytes of remaining length can announce (MQTT 3.1.1, section 2.2.3).
pub const BODY_BYTES_MAX: usize = 268_435_455;

/// The most filters read from one SUBSCRIBE or UNSUBSCRIBE, and codes from one SUBACK. Without a bound a packet of
/// four-byte filters would take ten times its size in memory.
pub const FILTERS_MAX: usize = 256;

/// The longest a fixed header can be: the first byte, and four of remaining length.
pub const HEADER_BYTES_MAX: usize = 1 + REMAINING_LENGTH_BYTES_MAX;

const REMAINING_LENGTH_BYTES_MAX: usize = 4;

/// What is wrong with a packet. The connection it came on cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The packet types 0 and 15 do not exist.
    #[error("packet type {0} does not exist")]
    PacketType(u8),
    /// Reserved bits of the first byte are not as section 2.2.2 has them.
    #[error("reserved flags are wrong")]
    Flags,
    /// The remaining length does not end within four bytes.
    #[error("the remaining length does not end")]
    RemainingLength,
    /// Longer than the receiver allows, its fixed header included.
    #[error("{bytes} bytes, where {max} are allowed")]
    TooLarge {
        /// What the fixed header announces.
        bytes: usize,
        /// What the receiver allows.
        max: usize,
    },
    /// A field reaches past the end of the packet.
    #[error("ends within a field")]
    Truncated,
    /// Bytes are left over after the last field.
    #[error("bytes are left over")]
    Trailing,
    /// A field is not an MQTT string.
    #[error("a string is {0}")]
    Text(#[from] InvalidText),
    /// A topic or filter is empty (rule 4.7.3-1).
    #[error("a topic is empty")]
    EmptyTopic,
    /// QoS 3, or reserved bits beside a QoS.
    #[error("the QoS does not exist")]
    QoS,
    /// The packet identifier 0, elsewhere than in PUBACK.
    #[error("the packet identifier is 0")]
    PacketId,
    /// The flags of CONNECT contradict each other (section 3.1.2).
    #[error("the CONNECT flags contradict each other")]
    ConnectFlags,
    /// Reserved bits of CONNACK are set.
    #[error("the CONNACK flags are reserved")]
    ConnackFlags,
    /// A return code of CONNACK that section 3.2.2.3 does not know.
    #[error("CONNACK return code {0} does not exist")]
    ReturnCode(u8),
    /// A return code of SUBACK that section 3.9.3 does not know.
    #[error("SUBACK return code {0} does not exist")]
    SubackCode(u8),
    /// SUBSCRIBE or UNSUBSCRIBE without a filter, or SUBACK without a code.
    #[error("asks for nothing")]
    NoFilters,
    /// More than [`FILTERS_MAX`] filters or codes.
    #[error("more than {FILTERS_MAX} filters")]
    TooManyFilters,
}

/// A fixed header (MQTT 3.1.1, section 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What follows.
    pub packet_type: PacketType,
    /// The low half of the first byte; checked, and meaningful for PUBLISH alone.
    pub flags: u8,
    /// How long this header is: 2 to 5.
    pub header_bytes: usize,
    /// How long the rest is.
    pub body_bytes: usize,
}

impl Header {
    /// How long the whole packet is.
    pub const fn packet_bytes(&self) -> usize {
        self.header_bytes + self.body_bytes
    }
}

/// Reads a fixed header, and judges the packet by it as far as possible.
///
/// `Ok(None)` asks for more bytes. A packet longer than `packet_bytes_max`, counted with its header, is refused
/// before any of its body needs to have arrived.
pub fn decode_header(input: &[u8], packet_bytes_max: usize) -> Result<Option<Header>, Malformed> {
    let Some((&first, rest)) = input.split_first() else { return Ok(None) };
    let packet_type = decode_packet_type(first >> 4)?;
    let flags = first & 0x0f;
    check_flags(packet_type, flags)?;

    let Some((body_bytes, length_bytes)) = decode_remaining_length(rest)? else { return Ok(None) };
    let header = Header { packet_type, flags, header_bytes: 1 + length_bytes, body_bytes: body_bytes as usize };
    if header.packet_bytes() > packet_bytes_max {
        return Err(Malformed::TooLarge { bytes: header.packet_bytes(), max: packet_bytes_max });
    }
    match fixed_body_bytes(packet_type) {
        Some(expected) if header.body_bytes < expected => Err(Malformed::Truncated),
        Some(expected) if header.body_bytes > expected => Err(Malformed::Trailing),
        _ => Ok(Some(header)),
    }
}

/// Reads MQTT's "remaining length" (MQTT 3.1.1, section 2.2.3).
///
/// `Ok(None)` asks for more bytes. On success, also returns how many bytes the length itself took.
pub fn decode_remaining_length(input: &[u8]) -> Result<Option<(u32, usize)>, Malformed> {
    let mut value = 0u32;
    for (index, byte) in input.iter().take(REMAINING_LENGTH_BYTES_MAX).enumerate() {
        value |= u32::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((value, index + 1)));
        }
    }
    if input.len() < REMAINING_LENGTH_BYTES_MAX { Ok(None) } else { Err(Malformed::RemainingLength) }
}

/// Takes one packet off the front of `input`. Strings and payloads share the memory of `input`.
///
/// `Ok(None)` asks for more bytes, and leaves `input` as it is. After an error `input` is of no further use.
pub fn decode(input: &mut BytesMut, packet_bytes_max: usize) -> Result<Option<Packet>, Malformed> {
    let Some(header) = decode_header(input, packet_bytes_max)? else { return Ok(None) };
    if input.len() < header.packet_bytes() {
        return Ok(None);
    }
    let mut body = input.split_to(header.packet_bytes()).freeze();
    body.advance(header.header_bytes);
    decode::decode_body(header, body).map(Some)
}

fn decode_packet_type(number: u8) -> Result<PacketType, Malformed> {
    Ok(match number {
        1 => PacketType::Connect,
        2 => PacketType::Connack,
        3 => PacketType::Publish,
        4 => PacketType::Puback,
        5 => PacketType::Pubrec,
        6 => PacketType::Pubrel,
        7 => PacketType::Pubcomp,
        8 => PacketType::Subscribe,
        9 => PacketType::Suback,
        10 => PacketType::Unsubscribe,
        11 => PacketType::Unsuback,
        12 => PacketType::Pingreq,
        13 => PacketType::Pingresp,
        14 => PacketType::Disconnect,
        other => return Err(Malformed::PacketType(other)),
    })
}

/// The flags that a type must have; PUBLISH uses them itself (MQTT 3.1.1, section 2.2.2).
const fn reserved_flags(packet_type: PacketType) -> Option<u8> {
    match packet_type {
        PacketType::Publish => None,
        PacketType::Pubrel | PacketType::Subscribe | PacketType::Unsubscribe => Some(0b0010),
        _ => Some(0),
    }
}

fn check_flags(packet_type: PacketType, flags: u8) -> Result<(), Malformed> {
    match reserved_flags(packet_type) {
        Some(expected) if flags != expected => Err(Malformed::Flags),
        None if flags & 0b0110 == 0b0110 => Err(Malformed::QoS),
        _ => Ok(()),
    }
}

/// How long the body of a type always is; `None` if it varies.
const fn fixed_body_bytes(packet_type: PacketType) -> Option<usize> {
    match packet_type {
        PacketType::Connack
        | PacketType::Puback
        | PacketType::Pubrec
        | PacketType::Pubrel
        | PacketType::Pubcomp
        | PacketType::Unsuback => Some(2),
        PacketType::Pingreq | PacketType::Pingresp | PacketType::Disconnect => Some(0),
        PacketType::Connect
        | PacketType::Publish
        | PacketType::Subscribe
        | PacketType::Suback
        | PacketType::Unsubscribe => None,
    }
}
