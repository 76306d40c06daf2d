//! WebSocket framing as a byte stream needs it (RFC 6455, section 5), without I/O.
//!
//! Payload is handed on as it arrives, so that no frame is ever held whole, however long it claims to be. Header syntax
//! is tungstenite's; which frames are acceptable is decided here. Start reading at [`Decoder::decode`].

use std::io::Cursor;
use std::ops::Range;

use tokio_tungstenite::tungstenite::Error as TungsteniteError;
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// Most payload bytes of one message, all its frames together. Longer than any MQTT packet or AMQP frame taken.
pub(super) const MESSAGE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Most payload bytes of a control frame (RFC 6455, section 5.5).
const CONTROL_BYTES_MAX: u64 = 125;

/// Bytes of the masking key.
const MASK_BYTES: usize = 4;

/// Bytes of the status code that a close frame begins with.
const CLOSE_CODE_BYTES: usize = 2;

/// What the peer did wrong; each has its close code (RFC 6455, section 7.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Violation {
    /// Reserved bits or opcodes, which only extensions may use, and none was agreed.
    #[error("a reserved bit or opcode is set")]
    Reserved,
    /// Frames from a client must be masked (section 5.1).
    #[error("a frame is not masked")]
    Unmasked,
    /// A control frame that is fragmented or too long.
    #[error("a control frame is fragmented or too long")]
    Control,
    /// A continuation without a beginning, or a beginning inside a message.
    #[error("fragments are out of order")]
    Fragments,
    /// A text frame; the stream is binary.
    #[error("a text frame arrived on a binary stream")]
    Text,
    /// The message is longer than [`MESSAGE_BYTES_MAX`].
    #[error("a message is too long")]
    TooLong,
}

impl Violation {
    /// The code that the close frame carries.
    pub(super) const fn close_code(self) -> u16 {
        match self {
            Self::Reserved | Self::Unmasked | Self::Control | Self::Fragments => 1002,
            Self::Text => 1003,
            Self::TooLong => 1009,
        }
    }
}

/// What was found at the beginning of the input. Ranges are into that input, unmasked in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// Payload bytes of a binary message.
    Data(Range<usize>),
    /// A ping with its payload, to be sent back.
    Ping(Range<usize>),
    /// An answer to a ping that nobody sent; to be ignored.
    Pong,
    /// The peer closes, with this code if it gave one.
    Close(Option<u16>),
}

/// Takes frames of a client apart.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    /// The data frame under way: bytes still to come, and the mask turned to the next of them.
    payload: Option<(u64, [u8; MASK_BYTES])>,
    /// Payload bytes of the message under way that were announced so far; `None` between messages.
    message_bytes: Option<u64>,
    /// Whether the frame under way is the last of its message.
    is_final: bool,
}

impl Decoder {
    /// Takes the next event from the front of `input`, together with how many bytes of it are used up.
    ///
    /// `Ok(None)` asks for more bytes. At most `room` bytes of data are taken at once.
    pub(super) fn decode(&mut self, input: &mut [u8], room: usize) -> Result<Option<(usize, Event)>, Violation> {
        let mut used = 0;
        while self.payload.is_none() {
            let mut cursor = Cursor::new(input.get(used..).unwrap_or_default());
            let Some((header, payload_bytes)) = FrameHeader::parse(&mut cursor).map_err(reserved)? else {
                // A header that was used up belongs to an empty frame and must not be seen again.
                return Ok((used > 0).then_some((used, Event::Data(used..used))));
            };
            let header_bytes = cursor.position() as usize;
            let mask = checked_mask(&header)?;
            match header.opcode {
                OpCode::Data(kind) => {
                    self.begin_data_frame(kind, header.is_final, payload_bytes)?;
                    self.payload = (payload_bytes > 0).then_some((payload_bytes, mask));
                    used += header_bytes;
                    self.end_empty_frame();
                }
                // Data before it goes first.
                OpCode::Control(_) if used > 0 => return Ok(Some((used, Event::Data(used..used)))),
                OpCode::Control(kind) => {
                    if !header.is_final || payload_bytes > CONTROL_BYTES_MAX {
                        return Err(Violation::Control);
                    }
                    return control_event(kind, input, header_bytes, payload_bytes as usize, mask);
                }
            }
        }
        Ok(self.take_data(input, used, room))
    }

    fn begin_data_frame(&mut self, kind: Data, is_final: bool, payload_bytes: u64) -> Result<(), Violation> {
        let so_far = match (kind, self.message_bytes) {
            (Data::Binary, None) => 0,
            (Data::Continue, Some(so_far)) => so_far,
            (Data::Text, None) => return Err(Violation::Text),
            (Data::Binary | Data::Text, Some(_)) | (Data::Continue, None) => return Err(Violation::Fragments),
            (Data::Reserved(_), _) => return Err(Violation::Reserved),
        };
        let message_bytes = so_far.saturating_add(payload_bytes);
        if message_bytes > MESSAGE_BYTES_MAX {
            return Err(Violation::TooLong);
        }
        self.message_bytes = Some(message_bytes);
        self.is_final = is_final;
        Ok(())
    }

    fn end_empty_frame(&mut self) {
        if self.payload.is_none() && self.is_final {
            self.message_bytes = None;
        }
    }

    fn take_data(&mut self, input: &mut [u8], used: usize, room: usize) -> Option<(usize, Event)> {
        let (left, mask) = self.payload.as_mut()?;
        let available = input.get_mut(used..)?;
        let taken = available.len().min(room).min(usize::try_from(*left).unwrap_or(usize::MAX));
        if taken == 0 {
            return (used > 0).then_some((used, Event::Data(used..used)));
        }
        unmask(available.get_mut(..taken)?, *mask);
        mask.rotate_left(taken % MASK_BYTES);
        *left -= taken as u64;
        if *left == 0 {
            self.payload = None;
            self.end_empty_frame();
        }
        Some((used + taken, Event::Data(used..used + taken)))
    }
}

fn reserved(_: TungsteniteError) -> Violation {
    Violation::Reserved
}

fn checked_mask(header: &FrameHeader) -> Result<[u8; MASK_BYTES], Violation> {
    if header.rsv1 || header.rsv2 || header.rsv3 {
        return Err(Violation::Reserved);
    }
    header.mask.ok_or(Violation::Unmasked)
}

fn control_event(
    kind: Control,
    input: &mut [u8],
    header_bytes: usize,
    payload_bytes: usize,
    mask: [u8; MASK_BYTES],
) -> Result<Option<(usize, Event)>, Violation> {
    let range = header_bytes..header_bytes + payload_bytes;
    let Some(payload) = input.get_mut(range.clone()) else {
        return Ok(None);
    };
    unmask(payload, mask);
    let event = match kind {
        Control::Ping => Event::Ping(range.clone()),
        Control::Pong => Event::Pong,
        Control::Close => {
            let code = payload.first_chunk::<CLOSE_CODE_BYTES>();
            Event::Close(code.map(|code| u16::from_be_bytes(*code)))
        }
        Control::Reserved(_) => return Err(Violation::Reserved),
    };
    Ok(Some((range.end, event)))
}

fn unmask(payload: &mut [u8], mask: [u8; MASK_BYTES]) {
    let (whole, rest) = payload.as_chunks_mut::<MASK_BYTES>();
    let key = u32::from_ne_bytes(mask);
    for chunk in whole {
        *chunk = (u32::from_ne_bytes(*chunk) ^ key).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(mask) {
        *byte ^= key;
    }
}

/// Appends a frame of this server, which is never masked, to `output`.
pub(super) fn encode(opcode: OpCode, payload: &[u8], output: &mut Vec<u8>) {
    let header = FrameHeader { opcode, ..FrameHeader::default() };
    header.format(payload.len() as u64, output).expect("writing to a Vec cannot fail");
    output.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASK: [u8; MASK_BYTES] = [0x37, 0xfa, 0x21, 0x3d];

    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first];
        match payload.len() {
            length @ ..126 => frame.push(0x80 | length as u8),
            length => {
                frame.push(0xfe);
                frame.extend((length as u16).to_be_bytes());
            }
        }
        frame.extend(MASK);
        frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key));
        frame
    }

    /// Feeds `wire` in pieces of `piece` bytes and collects what comes out.
    fn decode_all(wire: &[u8], piece: usize, room: usize) -> Result<(Vec<u8>, Vec<Event>), Violation> {
        let (mut decoder, mut pending) = (Decoder::default(), Vec::new());
        let (mut data, mut events) = (Vec::new(), Vec::new());
        for chunk in wire.chunks(piece) {
            pending.extend_from_slice(chunk);
            while let Some((used, event)) = decoder.decode(&mut pending, room)? {
                match event {
                    Event::Data(range) => data.extend_from_slice(&pending[range]),
                    Event::Ping(range) => events.push(Event::Ping(0..range.len())),
                    other => events.push(other),
                }
                pending.drain(..used);
            }
        }
        Ok((data, events))
    }

    #[test]
    fn frames_come_out_as_one_stream_however_they_are_cut() {
        let long = vec![0xab; 300];
        let wire = [
            masked(0x82, b"one"),
            masked(0x82, b""),
            masked(0x02, b"two"),
            masked(0x89, b"are you there"),
            masked(0x00, b""),
            masked(0x80, b"three"),
            masked(0x8a, b""),
            masked(0x82, &long),
            masked(0x88, &[0x03, 0xe8, b'b', b'y', b'e']),
        ]
        .concat();
        let expected = [b"onetwothree".as_slice(), &long].concat();
        for piece in [1, 2, 3, 7, 100, wire.len()] {
            for room in [1, 5, 4096] {
                let (data, events) = decode_all(&wire, piece, room).expect("no violation");
                assert_eq!(data, expected, "pieces of {piece}, room for {room}");
                assert_eq!(events, [Event::Ping(0..13), Event::Pong, Event::Close(Some(1000))], "{piece} {room}");
            }
        }
    }

    #[test]
    fn what_a_client_must_not_send_is_named() {
        let too_long = [&[0x82, 0xff][..], &(MESSAGE_BYTES_MAX + 1).to_be_bytes(), &MASK].concat();
        let endless = [masked(0x02, b"x"), [&[0x00, 0xff][..], &u64::MAX.to_be_bytes(), &MASK].concat()].concat();
        let cases: &[(&str, Vec<u8>, Violation)] = &[
            ("an unmasked frame", vec![0x82, 0x01, 0x00], Violation::Unmasked),
            ("a compressed frame", masked(0xc2, b"x"), Violation::Reserved),
            ("an unknown opcode", masked(0x83, b"x"), Violation::Reserved),
            ("a text frame", masked(0x81, b"x"), Violation::Text),
            ("a continuation of nothing", masked(0x80, b"x"), Violation::Fragments),
            ("a message inside a message", [masked(0x02, b"x"), masked(0x82, b"y")].concat(), Violation::Fragments),
            ("a fragmented ping", masked(0x09, b""), Violation::Control),
            ("a ping that is too long", masked(0x89, &[0; 126]), Violation::Control),
            ("a message that is too long", too_long, Violation::TooLong),
            ("fragments that are too long together", endless, Violation::TooLong),
        ];
        for (case, wire, expected) in cases {
            assert_eq!(decode_all(wire, wire.len(), 4096), Err(*expected), "{case}");
        }
    }

    #[test]
    fn our_frames_are_unmasked_and_carry_their_length() {
        let cases: &[(usize, &[u8])] = &[
            (0, &[0x82, 0]),
            (125, &[0x82, 125]),
            (126, &[0x82, 126, 0, 126]),
            (65_536, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ];
        for &(length, header) in cases {
            let mut output = Vec::new();
            encode(OpCode::Data(Data::Binary), &vec![9; length], &mut output);
            assert_eq!(&output[..header.len()], header, "{length}");
            assert_eq!(output.len(), header.len() + length, "{length}");
        }
    }
}
