//! Bytes of any kind are frames, or are refused; cut anywhere, they are the same frames; what they say can be written
//! and read again.

use bytes::{Bytes, BytesMut};
use proto::amqp::frame::{Frame, FrameType, Misframed, decode_frame};
use proto::amqp::{Message, Performative, SaslFrame};

/// Small enough for the fuzzer to pass it.
const FRAME_BYTES_MAX: u32 = 512;

/// Reads `input` as frames: the first byte says how long the pieces are it arrives in, the second what kind it is.
///
/// # Panics
/// When a frame is longer than allowed, when pieces make a difference, or when something changes by being written.
pub fn check(input: &[u8]) {
    let Some((&[piece_bytes, kind], input)) = input.split_first_chunk() else { return };
    let frame_type = if kind.is_multiple_of(2) { FrameType::Amqp } else { FrameType::Sasl };
    let whole = decode_in_pieces(input, input.len(), frame_type);
    assert_eq!(whole, decode_in_pieces(input, usize::from(piece_bytes), frame_type));
    for Frame { body, .. } in whole.0 {
        match frame_type {
            FrameType::Amqp => check_performative(&body),
            FrameType::Sasl => check_sasl(&body),
        }
    }
    check_message(&Bytes::copy_from_slice(input));
}

fn decode_in_pieces(input: &[u8], piece_bytes: usize, frame_type: FrameType) -> (Vec<Frame>, Result<(), Misframed>) {
    let mut frames = Vec::new();
    let mut received = BytesMut::new();
    for piece in input.chunks(piece_bytes.max(1)) {
        received.extend_from_slice(piece);
        loop {
            let before = received.len();
            match decode_frame(&mut received, frame_type, FRAME_BYTES_MAX) {
                Ok(Some(frame)) => {
                    assert!((8..=FRAME_BYTES_MAX as usize).contains(&(before - received.len())));
                    frames.push(frame);
                }
                Ok(None) => {
                    assert_eq!(received.len(), before, "bytes were taken without a frame");
                    assert!(before < FRAME_BYTES_MAX as usize, "it waits for more than is allowed");
                    break;
                }
                Err(misframed) => return (frames, Err(misframed)),
            }
        }
    }
    (frames, Ok(()))
}

fn check_performative(body: &Bytes) {
    let Ok((performative, payload)) = Performative::decode(body) else { return };
    let encoded = |performative: &Performative| {
        let mut output = Vec::new();
        performative.encode(&mut output);
        Bytes::from(output)
    };
    let once = encoded(&performative);
    let (again, rest) = Performative::decode(&once).expect("what was written can be read");
    assert_eq!(encoded(&again), once);
    assert!(rest.is_empty());
    check_message(&payload);
}

fn check_sasl(body: &Bytes) {
    let Ok(frame) = SaslFrame::decode(body) else { return };
    let mut output = Vec::new();
    frame.encode(&mut output);
    assert_eq!(SaslFrame::decode(&output.into()), Ok(frame));
}

fn check_message(payload: &Bytes) {
    let Ok(message) = Message::decode(payload) else { return };
    let once = message.to_bytes();
    let again = Message::decode(&once).expect("what was written can be read");
    assert_eq!(again.to_bytes(), once);
}
