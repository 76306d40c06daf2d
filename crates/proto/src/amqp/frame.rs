//! Protocol headers and frames (part 2, sections 2.2 and 2.3; part 5, section 5.3.1).
//!
//! A frame is judged by its first eight bytes: one that is too long is refused before any of it needs to have arrived,
//! and nothing is allocated for bytes that are not there. Start at [`decode_frame`].

use bytes::{Buf, Bytes, BytesMut};

/// How long a protocol header is.
pub const PROTOCOL_HEADER_BYTES: usize = 8;

/// How long the fixed part of a frame is.
pub const FRAME_HEADER_BYTES: usize = 8;

/// What every peer has to take in one frame (part 2, section 2.7.1), and the longest SASL frame of the standard
/// (part 5, section 5.3.1).
pub const MIN_MAX_FRAME_SIZE: u32 = 512;

/// What the first eight bytes on a connection, or after SASL, ask for (part 2, section 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolHeader {
    /// AMQP 1.0 at once.
    Amqp,
    /// TLS inside the connection.
    Tls,
    /// SASL, then AMQP.
    Sasl,
    /// Anything else.
    Foreign([u8; PROTOCOL_HEADER_BYTES]),
}

impl ProtocolHeader {
    const AMQP: [u8; PROTOCOL_HEADER_BYTES] = *b"AMQP\x00\x01\x00\x00";
    const TLS: [u8; PROTOCOL_HEADER_BYTES] = *b"AMQP\x02\x01\x00\x00";
    const SASL: [u8; PROTOCOL_HEADER_BYTES] = *b"AMQP\x03\x01\x00\x00";

    /// What eight bytes ask for.
    pub const fn parse(bytes: [u8; PROTOCOL_HEADER_BYTES]) -> Self {
        match &bytes {
            b"AMQP\x00\x01\x00\x00" => Self::Amqp,
            b"AMQP\x02\x01\x00\x00" => Self::Tls,
            b"AMQP\x03\x01\x00\x00" => Self::Sasl,
            _ => Self::Foreign(bytes),
        }
    }

    /// The eight bytes.
    pub const fn to_bytes(self) -> [u8; PROTOCOL_HEADER_BYTES] {
        match self {
            Self::Amqp => Self::AMQP,
            Self::Tls => Self::TLS,
            Self::Sasl => Self::SASL,
            Self::Foreign(bytes) => bytes,
        }
    }

    /// Takes a header off the front of `input`; `None` asks for more bytes. Bytes that cannot become a header of
    /// AMQP are reported, filled up with zeros, without waiting for the rest.
    pub fn take(input: &mut BytesMut) -> Option<Self> {
        const NAME: &[u8] = b"AMQP";

        let is_name = input.iter().zip(NAME).all(|(byte, expected)| byte == expected);
        if is_name && input.len() < PROTOCOL_HEADER_BYTES {
            return None;
        }
        let mut bytes = [0; PROTOCOL_HEADER_BYTES];
        let count = input.len().min(PROTOCOL_HEADER_BYTES);
        input.copy_to_slice(bytes.get_mut(..count).unwrap_or_default());
        Some(Self::parse(bytes))
    }
}

/// What kind of frame follows (part 2, section 2.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameType {
    /// One with a performative.
    Amqp,
    /// One of a SASL exchange.
    Sasl,
}

impl FrameType {
    const fn code(self) -> u8 {
        match self {
            Self::Amqp => 0,
            Self::Sasl => 1,
        }
    }
}

/// Why bytes are no frame. The connection they came on cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misframed {
    /// Longer than the receiver allows.
    #[error("a frame of {bytes} bytes, where {max} are allowed")]
    TooLarge {
        /// What the header announces.
        bytes: u32,
        /// What the receiver allows.
        max: u32,
    },
    /// Shorter than its own header.
    #[error("a frame of {0} bytes")]
    TooShort(u32),
    /// The body begins within the header, or after the end.
    #[error("a data offset of {0} words")]
    DataOffset(u8),
    /// Another type than the place in the conversation asks for.
    #[error("a frame of type {0}")]
    FrameType(u8),
}

/// A frame, cut out of what was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The channel; without meaning for SASL.
    pub channel: u16,
    /// What it says; empty for a sign of life.
    pub body: Bytes,
}

/// Takes one frame off the front of `input`. The body shares its memory.
///
/// `Ok(None)` asks for more bytes, and leaves `input` as it is. After an error `input` is of no further use.
pub fn decode_frame(
    input: &mut BytesMut,
    expected: FrameType,
    frame_bytes_max: u32,
) -> Result<Option<Frame>, Misframed> {
    let Some(&header) = input.first_chunk::<FRAME_HEADER_BYTES>() else { return Ok(None) };
    let [size @ .., words, frame_type, channel_high, channel_low] = header;
    let bytes = u32::from_be_bytes(size);
    if bytes > frame_bytes_max {
        return Err(Misframed::TooLarge { bytes, max: frame_bytes_max });
    }
    if (bytes as usize) < FRAME_HEADER_BYTES {
        return Err(Misframed::TooShort(bytes));
    }
    let body_start = usize::from(words) * 4;
    if body_start < FRAME_HEADER_BYTES || body_start > bytes as usize {
        return Err(Misframed::DataOffset(words));
    }
    if frame_type != expected.code() {
        return Err(Misframed::FrameType(frame_type));
    }
    if input.len() < bytes as usize {
        return Ok(None);
    }
    let mut body = input.split_to(bytes as usize).freeze();
    body.advance(body_start);
    Ok(Some(Frame { channel: u16::from_be_bytes([channel_high, channel_low]), body }))
}

/// Appends a frame, whose body `write` appends. Returns how long the frame is.
pub fn encode_frame(
    output: &mut Vec<u8>,
    frame_type: FrameType,
    channel: u16,
    write: impl FnOnce(&mut Vec<u8>),
) -> usize {
    const SIZE_BYTES: usize = 4;
    /// Where the body begins, in words of four bytes.
    const DATA_OFFSET: u8 = 2;

    let start = output.len();
    output.extend_from_slice(&[0; SIZE_BYTES]);
    output.extend_from_slice(&[DATA_OFFSET, frame_type.code()]);
    output.extend_from_slice(&channel.to_be_bytes());
    write(output);
    let bytes = output.len() - start;
    output.splice(start..start + SIZE_BYTES, (bytes as u32).to_be_bytes());
    bytes
}
