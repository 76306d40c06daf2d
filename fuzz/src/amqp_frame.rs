//! Bytes of any kind are the frames that the standard's drawing makes of them, or are refused as there, cut anywhere;
//! what they say is what its tables make of it, and can be written and read again.

use bytes::{Bytes, BytesMut};
use proto::amqp::frame::{Frame, FrameType, Misframed, decode_frame};
use proto::amqp::{DEPTH_MAX, Fault, Malformed, Message, Performative, SaslFrame, VALUES_MAX};

use crate::amqp_composites::{self, PERFORMATIVES, SASL_FRAMES};
use crate::amqp_reference::{Tree, read_first};

/// Small enough for the fuzzer to pass it.
const FRAME_BYTES_MAX: u32 = 512;

/// Reads `input` as frames: the first byte says how long the pieces are it arrives in, the second what kind it is.
///
/// # Panics
/// When codec and reference do not agree, when a frame is longer than allowed, when pieces make a difference, or when
/// something changes by being written.
pub fn check(input: &[u8]) {
    let Some((&[piece_bytes, kind], input)) = input.split_first_chunk() else { return };
    let frame_type = if kind.is_multiple_of(2) { FrameType::Amqp } else { FrameType::Sasl };
    let whole = decode_in_pieces(input, input.len(), frame_type);
    assert_eq!(whole, split(input, frame_type));
    assert_eq!(whole, decode_in_pieces(input, usize::from(piece_bytes), frame_type));
    for Frame { body, .. } in whole.0 {
        match frame_type {
            FrameType::Amqp => check_performative(&body),
            FrameType::Sasl => check_sasl(&body),
        }
    }
    check_message(&Bytes::copy_from_slice(input));
}

type Frames = (Vec<Frame>, Result<(), Misframed>);

/// The reference: all of `input` is there, and every frame is where the drawing has it (part 2, section 2.3.1). What is
/// wrong is told in the order of the bytes.
fn split(input: &[u8], frame_type: FrameType) -> Frames {
    let mut frames = Vec::new();
    let mut rest = input;
    while let &[s3, s2, s1, s0, doff, found, c1, c0, ..] = rest {
        let size = u32::from_be_bytes([s3, s2, s1, s0]);
        let expected = match frame_type {
            FrameType::Amqp => 0,
            FrameType::Sasl => 1,
        };
        let misframed = match () {
            () if size > FRAME_BYTES_MAX => Some(Misframed::TooLarge { bytes: size, max: FRAME_BYTES_MAX }),
            () if size < 8 => Some(Misframed::TooShort(size)),
            () if doff < 2 || u32::from(doff) * 4 > size => Some(Misframed::DataOffset(doff)),
            () if found != expected => Some(Misframed::FrameType(found)),
            () => None,
        };
        if let Some(misframed) = misframed {
            return (frames, Err(misframed));
        }
        let Some((frame, after)) = rest.split_at_checked(size as usize) else { break };
        // Between the eight bytes and the body may be an extended header, without meaning.
        let (_, body) = frame.split_at(usize::from(doff) * 4);
        let body = Bytes::copy_from_slice(body);
        frames.push(Frame { channel: u16::from_be_bytes([c1, c0]), body });
        rest = after;
    }
    (frames, Ok(()))
}

fn decode_in_pieces(input: &[u8], piece_bytes: usize, frame_type: FrameType) -> Frames {
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
    let decoded = Performative::decode(body);
    if !is_beyond_a_bound(decoded.as_ref().err()) {
        let expected = reference(body, PERFORMATIVES);
        let given = decoded.as_ref().ok().map(|(performative, payload)| {
            let mut output = Vec::new();
            performative.encode(&mut output);
            let (tree, rest) = reference(&output, PERFORMATIVES).expect("what was written is as the standard has it");
            assert!(rest.is_empty());
            (tree, &payload[..])
        });
        assert_eq!(given, expected, "{decoded:?}");
    }
    let Ok((performative, payload)) = decoded else { return };
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
    let decoded = SaslFrame::decode(body);
    if is_beyond_a_bound(decoded.as_ref().err()) {
        return;
    }
    let expected = reference(body, SASL_FRAMES).filter(|(_, rest)| rest.is_empty());
    let mut output = Vec::new();
    if let Ok(frame) = &decoded {
        frame.encode(&mut output);
    }
    assert_eq!(reference(&output, SASL_FRAMES), expected, "{decoded:?}");
    if decoded.is_ok() {
        assert_eq!(SaslFrame::decode(&output.into()), decoded);
    }
}

/// What `body` says, and what follows it; `None` where it has to be refused.
fn reference<'a>(body: &'a [u8], allowed: &[&str]) -> Option<(Tree, &'a [u8])> {
    // The codec counts the levels and the values of its own types in another way; `amqp_value` holds it to both bounds.
    let (tree, rest) = read_first(body, DEPTH_MAX * 2, VALUES_MAX * 2)?;
    Some((amqp_composites::read(&tree, allowed)?, rest))
}

fn is_beyond_a_bound(malformed: Option<&Malformed>) -> bool {
    malformed.is_some_and(|malformed| matches!(malformed.fault, Fault::TooDeep | Fault::TooManyValues))
}

fn check_message(payload: &Bytes) {
    let Ok(message) = Message::decode(payload) else { return };
    let once = message.to_bytes();
    let again = Message::decode(&once).expect("what was written can be read");
    assert_eq!(again.to_bytes(), once);
}
