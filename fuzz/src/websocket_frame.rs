//! Frames of any kind come out as one stream however they are cut, or break a rule at the same place.

use std::ops::Range;

use super::frame::{Decoder, Event, Violation};

/// What comes out: the stream, and what else the peer said.
type Decoded = (Vec<u8>, Vec<Said>);

/// What the peer said beside the stream.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Ping(Vec<u8>),
    Pong,
    Close(Option<u16>),
}

/// Reads two bytes of choices, then frames.
///
/// # Panics
/// When cutting makes a difference, or an event lies outside of the input.
pub fn check(input: &[u8]) {
    let [piece_bytes, room, wire @ ..] = input else { return };
    let (whole, broken) = decode(wire, wire.len().max(1), usize::MAX);
    let (cut, cut_broken) = decode(wire, usize::from(*piece_bytes).max(1), usize::from(*room).max(1));
    assert_eq!((&cut, cut_broken), (&whole, broken));
    assert!(whole.0.len() <= wire.len(), "nothing comes out that did not go in");
}

fn decode(wire: &[u8], piece_bytes: usize, room: usize) -> (Decoded, Option<Violation>) {
    let (mut decoder, mut pending) = (Decoder::default(), Vec::new());
    let (mut data, mut said) = (Vec::new(), Vec::new());
    for piece in wire.chunks(piece_bytes) {
        pending.extend_from_slice(piece);
        loop {
            let (used, event) = match decoder.decode(&mut pending, room) {
                Ok(Some(found)) => found,
                Ok(None) => break,
                Err(violation) => return ((data, said), Some(violation)),
            };
            assert!(used > 0 && used <= pending.len(), "every event uses up bytes that are there");
            let bytes = |range: Range<usize>| pending.get(range).expect("events lie inside of the input").to_vec();
            match event {
                Event::Data(range) => data.extend(bytes(range)),
                Event::Ping(range) => said.push(Said::Ping(bytes(range))),
                Event::Pong => said.push(Said::Pong),
                Event::Close(code) => said.push(Said::Close(code)),
            }
            pending.drain(..used);
        }
    }
    ((data, said), None)
}
