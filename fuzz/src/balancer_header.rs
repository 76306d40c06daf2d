//! What a balancer sends first: however it is cut, one header is read to its last byte, and names the ends that stand in it.

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, ReadBuf};

use super::header::{Ends, FIXED_BYTES, REST_BYTES_MAX, Unreadable, decode, read_header};

/// What every header begins with (section 2.2).
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Reads a byte that says where to cut, then what a balancer sends first.
///
/// # Panics
/// When cutting makes a difference, more or less than the header is read, or other ends are named than stand there.
pub fn check(input: &[u8]) {
    let Some((piece_bytes, wire)) = input.split_first() else { return };
    let (whole, rest) = read(wire, wire.len());
    let (pieces, _) = read(wire, usize::from(*piece_bytes).max(1));
    match (whole, pieces) {
        (Err(whole), Err(pieces)) => {
            assert_eq!(whole.to_string(), pieces.to_string(), "cutting makes a difference");
            assert_eq!(matches!(whole, Unreadable::Silent), wire.is_empty());
        }
        (whole, pieces) => {
            let whole = whole.expect("the pieces could be read");
            assert_eq!(pieces.expect("the whole could be read"), whole, "cutting makes a difference");
            assert!((FIXED_BYTES..=FIXED_BYTES + REST_BYTES_MAX).contains(&whole.len()));
            assert_eq!([&whole, rest].concat(), wire, "bytes are lost");
            check_ends(&whole);
        }
    }
}

/// What the reader gives, and what it left.
fn read(wire: &[u8], piece_bytes: usize) -> (Result<Vec<u8>, Unreadable>, &[u8]) {
    let mut pieces = Pieces { rest: wire, piece_bytes };
    let header = match pin!(read_header(&mut pieces)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(header) => header,
        Poll::Pending => panic!("it waits, though everything is there"),
    };
    (header, pieces.rest)
}

fn check_ends(header: &[u8]) {
    match decode(header) {
        Err(unreadable) => assert!(!unreadable.to_string().is_empty()),
        Ok(ends) => {
            assert!(header.starts_with(SIGNATURE));
            let length = [14, 15].map(|index| header.get(index).copied().expect("the header is whole"));
            assert_eq!(header.len(), FIXED_BYTES + usize::from(u16::from_be_bytes(length)));
            if let Some(ends) = ends {
                assert_eq!(named(header), Some(ends));
            }
        }
    }
}

/// The ends of a TCP connection as the standard places them.
fn named(header: &[u8]) -> Option<Ends> {
    let (source, destination) = match header.get(12..14)? {
        [0x21, 0x11] => (address::<4>(header, (16, 24))?, address::<4>(header, (20, 26))?),
        [0x21, 0x21] => (address::<16>(header, (16, 48))?, address::<16>(header, (32, 50))?),
        _ => return None,
    };
    Some(Ends { source, destination })
}

fn address<const N: usize>(header: &[u8], (host, port): (usize, usize)) -> Option<SocketAddr>
where
    std::net::IpAddr: From<[u8; N]>,
{
    let host = <[u8; N]>::try_from(header.get(host..host + N)?).ok()?;
    let port = <[u8; 2]>::try_from(header.get(port..port + 2)?).ok()?;
    Some(SocketAddr::new(host.into(), u16::from_be_bytes(port)))
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
