//! Bytes of any kind are packets, or are refused; cut anywhere, they are the same packets.

use bytes::BytesMut;
use proto::mqtt::codec::{decode, encode};
use proto::mqtt::{Malformed, Packet};

/// Small enough for the fuzzer to pass it.
const PACKET_BYTES_MAX: usize = 300;

/// Decodes `input` at once and in pieces, and what was decoded once more.
///
/// # Panics
/// When a packet is longer than allowed, when pieces make a difference, or when a packet changes by being written.
pub fn check(input: &[u8]) {
    let Some((&piece_bytes, input)) = input.split_first() else { return };
    let whole = decode_in_pieces(input, input.len());
    let pieces = decode_in_pieces(input, usize::from(piece_bytes).max(1));
    assert_eq!(whole, pieces);
    for packet in whole.0 {
        assert_eq!(decode_in_pieces(&encoded(&packet), usize::MAX), (vec![packet], Ok(())));
    }
}

fn decode_in_pieces(input: &[u8], piece_bytes: usize) -> (Vec<Packet>, Result<(), Malformed>) {
    let mut packets = Vec::new();
    let mut received = BytesMut::new();
    for piece in input.chunks(piece_bytes.max(1)) {
        received.extend_from_slice(piece);
        loop {
            let before = received.len();
            match decode(&mut received, PACKET_BYTES_MAX) {
                Ok(Some(packet)) => {
                    assert!((2..=PACKET_BYTES_MAX).contains(&(before - received.len())));
                    packets.push(packet);
                }
                Ok(None) => {
                    assert_eq!(received.len(), before, "bytes were taken without a packet");
                    assert!(before < PACKET_BYTES_MAX, "it waits for more than is allowed");
                    break;
                }
                Err(malformed) => return (packets, Err(malformed)),
            }
        }
    }
    (packets, Ok(()))
}

fn encoded(packet: &Packet) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(packet, &mut bytes).expect("what was read can be written");
    bytes
}
