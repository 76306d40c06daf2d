//! The first bytes of a connection: a GET is found however it arrives, nothing is lost, and a reply holds no line that
//! the client wrote.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use http::Request;
use tokio::io::{AsyncRead, ReadBuf};

use super::opening::read_opening;
use super::upgrade::{Verdict, judge};

/// Longer than any input here, so that the limit makes no difference between pieces.
const HEAD_BYTES_MAX: usize = 1 << 20;
/// Lines of the reply that opens a WebSocket, the empty one included.
const ACCEPTED_LINES: usize = 6;

/// Reads a byte of choice, then what a client sends first.
///
/// # Panics
/// When cutting makes a difference, bytes are lost, or a reply is not well-formed.
pub fn check(input: &[u8]) {
    let Some((piece_bytes, wire)) = input.split_first() else { return };
    let whole = open(wire, wire.len());
    let pieces = open(wire, usize::from(*piece_bytes).max(1));
    match (whole, pieces) {
        (Some((length, head)), Some((other_length, other))) => {
            assert_eq!((length, head.uri(), head.headers()), (other_length, other.uri(), other.headers()));
            assert!(length <= wire.len() && wire.starts_with(b"GET "));
            check_verdict(&judge(&head));
        }
        (whole, pieces) => assert_eq!(whole.is_some(), pieces.is_some(), "cutting makes a difference"),
    }
}

fn open(wire: &[u8], piece_bytes: usize) -> Option<(usize, Request<()>)> {
    let mut pieces = Pieces { rest: wire, piece_bytes };
    let opening = {
        let mut reading = pin!(read_opening(&mut pieces, HEAD_BYTES_MAX));
        match reading.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(opening) => opening.expect("reading does not fail here"),
            Poll::Pending => panic!("it waits, though everything is there"),
        }
    };
    assert_eq!([&opening.read, pieces.rest].concat(), wire, "bytes are lost");
    opening.head
}

fn check_verdict(verdict: &Verdict) {
    let (reply, start) = match verdict {
        Verdict::NotWebSocket => return,
        Verdict::Refused { reply, .. } => (reply, "HTTP/1.1 4"),
        Verdict::Accepted { reply, .. } => (reply, "HTTP/1.1 101 Switching Protocols\r\n"),
    };
    let reply = std::str::from_utf8(reply).expect("replies are text");
    let (head, body) = reply.split_once("\r\n\r\n").expect("a head ends");
    assert!(reply.starts_with(start));
    if let Verdict::Accepted { .. } = verdict {
        assert_eq!((reply.split("\r\n").count() - 1, body), (ACCEPTED_LINES, ""), "{reply:?}");
    } else {
        let length = format!("Content-Length: {}\r\n", body.len());
        assert!(head.contains(&length), "{reply:?}");
    }
}

/// Gives bytes in pieces.
struct Pieces<'a> {
    rest: &'a [u8],
    piece_bytes: usize,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let count = self.piece_bytes.min(self.rest.len()).min(buf.remaining());
        let (piece, rest) = self.rest.split_at(count);
        buf.put_slice(piece);
        self.rest = rest;
        Poll::Ready(Ok(()))
    }
}
