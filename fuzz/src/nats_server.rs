//! What a NATS server says: however it is cut, the same is heard, within bounds, and nothing of it is lost.

use bytes::BytesMut;

use super::wire::{LINE_BYTES_MAX, Malformed, PAYLOAD_BYTES_MAX, Said, read};

/// Most bytes that wait for more: a line, the payload behind it, and one byte of the two that end it.
const HELD_BYTES_MAX: usize = LINE_BYTES_MAX + 1 + PAYLOAD_BYTES_MAX + 1;

/// Reads a byte that says where to cut, then what a server says.
///
/// # Panics
/// When cutting makes a difference, bytes are lost or kept without bound, or what was heard says something else when it
/// is said again.
pub fn check(input: &[u8]) {
    let Some((piece_bytes, wire)) = input.split_first() else { return };
    let whole = hear(wire, wire.len().max(1));
    let pieces = hear(wire, usize::from(*piece_bytes).max(1));
    assert_eq!(whole, pieces, "cutting makes a difference");
    let (said, rest) = whole;
    if let Ok(rest) = rest {
        assert!(wire.ends_with(&rest), "bytes are made up");
    }
    said.iter().for_each(check_again);
}

/// Everything that was said, and what is left: the beginning of something, or nothing that can be understood.
fn hear(wire: &[u8], piece_bytes: usize) -> (Vec<Said>, Result<BytesMut, Malformed>) {
    let (mut input, mut heard) = (BytesMut::new(), Vec::new());
    for piece in wire.chunks(piece_bytes) {
        input.extend_from_slice(piece);
        loop {
            let before = input.len();
            match read(&mut input) {
                Ok(Some(said)) => {
                    assert!(input.len() < before, "something is heard for ever");
                    heard.push(said);
                }
                Ok(None) => {
                    assert_eq!(input.len(), before, "bytes are lost");
                    assert!(before <= HELD_BYTES_MAX, "{before} bytes wait for more");
                    break;
                }
                Err(malformed) => {
                    assert!(!malformed.to_string().is_empty());
                    return (heard, Err(malformed));
                }
            }
        }
    }
    (heard, Ok(input))
}

/// Says it again as a server would, and hears the same.
fn check_again(said: &Said) {
    let wire = match said {
        Said::Info(document) => [b"INFO ", &document[..], b"\r\n"].concat(),
        Said::Ping => b"PING\r\n".to_vec(),
        Said::Pong => b"PONG\r\n".to_vec(),
        Said::Ok => b"+OK\r\n".to_vec(),
        Said::Error(text) => format!("-ERR '{text}'\r\n").into_bytes(),
        Said::Message { subject, status, payload } => {
            assert!(payload.len() <= PAYLOAD_BYTES_MAX);
            let headers = status.map(|status| format!("NATS/1.0 {status:03}\r\n\r\n")).unwrap_or_default();
            let bytes = headers.len() + payload.len();
            if bytes > PAYLOAD_BYTES_MAX {
                return;
            }
            let line = match headers.len() {
                0 => format!("MSG {subject} 1 {bytes}\r\n"),
                header_bytes => format!("HMSG {subject} 1 {header_bytes} {bytes}\r\n"),
            };
            [line.as_bytes(), headers.as_bytes(), payload, b"\r\n"].concat()
        }
    };
    let (again, rest) = hear(&wire, wire.len());
    match again.as_slice() {
        [again] => assert_eq!(again, said),
        // Said shortly, a line may become longer than it was: by the words of its verb, and the digits of a length.
        _ => assert_eq!(rest, Err(Malformed::Line), "heard {again:?}"),
    }
}
