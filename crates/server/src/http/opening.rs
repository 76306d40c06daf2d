//! The first request of a connection, looked at before HTTP takes over: it may ask for a WebSocket.
//!
//! What was read is never lost: whoever goes on with the connection gets it back through [`Replayed`].

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Request;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::handshake::machine::TryParse;
use tokio_tungstenite::tungstenite::handshake::server::Request as RequestHead;

/// Bytes asked of the connection at once.
const READ_BYTES: usize = 2 * 1024;

/// How every request begins that could become a WebSocket.
const METHOD: &[u8] = b"GET ";

/// What a connection began with.
pub(super) struct Opening {
    /// Everything read so far; empty if the peer closed at once.
    pub(super) read: Vec<u8>,
    /// The head of the first request and its length, if it is a GET with a head that parses.
    pub(super) head: Option<(usize, Request<()>)>,
}

/// Reads until the first request's head is complete, or until it is clear that it is no GET. Syntax errors and heads of
/// `bytes_max` or more are left to the HTTP library, which answers them.
pub(super) async fn read_opening<S: AsyncRead + Unpin>(stream: &mut S, bytes_max: usize) -> io::Result<Opening> {
    let mut read = Vec::new();
    loop {
        let searched = read.len();
        let count = poll_fn(|cx| poll_append(stream, cx, &mut read)).await?;
        let is_get = read.iter().zip(METHOD).all(|(byte, expected)| byte == expected);
        if count == 0 || !is_get {
            return Ok(Opening { read, head: None });
        }
        if ends_a_head(&read, searched) {
            let head = RequestHead::try_parse(&read).ok().flatten();
            return Ok(Opening { read, head });
        }
        if read.len() >= bytes_max {
            return Ok(Opening { read, head: None });
        }
    }
}

/// Appends what has arrived. The buffer to read into lives on the stack of the poll, so that a connection that waits for
/// its first request costs none.
fn poll_append<S: AsyncRead + Unpin>(
    stream: &mut S,
    cx: &mut Context<'_>,
    read: &mut Vec<u8>,
) -> Poll<io::Result<usize>> {
    let mut scratch = [0; READ_BYTES];
    let mut buffer = ReadBuf::new(&mut scratch);
    ready!(Pin::new(stream).poll_read(cx, &mut buffer))?;
    read.extend_from_slice(buffer.filled());
    Poll::Ready(Ok(buffer.filled().len()))
}

/// Looks for an empty line that ends at or after `from`.
fn ends_a_head(read: &[u8], from: usize) -> bool {
    let recent = read.get(from.saturating_sub(2)..).unwrap_or_default();
    recent.windows(2).any(|pair| pair == b"\n\n") || recent.windows(3).any(|three| three == b"\n\r\n")
}

/// A stream that first gives back what was already read from it.
pub(super) struct Replayed<S> {
    read: Vec<u8>,
    read_at: usize,
    stream: S,
}

impl<S> Replayed<S> {
    /// Gives `read`, then what `stream` gives.
    pub(super) fn new(read: Vec<u8>, stream: S) -> Self {
        Self { read, read_at: 0, stream }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Replayed<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let rest = this.read.get(this.read_at..).unwrap_or_default();
        if rest.is_empty() {
            return Pin::new(&mut this.stream).poll_read(cx, buf);
        }
        let given = rest.len().min(buf.remaining());
        buf.put_slice(rest.get(..given).unwrap_or_default());
        this.read_at += given;
        if this.read_at == this.read.len() {
            (this.read, this.read_at) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Replayed<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn the_first_head_is_found_however_it_arrives() {
        let get = b"GET /mqtt HTTP/1.1\r\nHost: h\r\n\r\nrest".as_slice();
        let cases: &[(&str, &[u8], Option<&str>)] = &[
            ("a GET with bytes after it", get, Some("/mqtt")),
            ("bare line feeds", b"GET /a HTTP/1.1\nHost: h\n\n", Some("/a")),
            ("another method", b"POST /a HTTP/1.1\r\n\r\n", None),
            ("HTTP/2 with prior knowledge", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", None),
            ("a GET that is cut off", b"GET /a HTTP/1.1\r\nHos", None),
            ("no syntax", b"GET \x00\r\n\r\n", None),
            ("nothing", b"", None),
        ];
        for (case, wire, path) in cases {
            for piece in [1, 7, wire.len().max(1)] {
                let mut input = in_pieces(wire, piece);
                let opening = read_opening(&mut input, 1024).await.unwrap();
                assert!(wire.starts_with(&opening.read), "{case}");
                assert_eq!(opening.head.as_ref().map(|(_, head)| head.uri().path()), *path, "{case} by {piece}");
                let mut replayed = Replayed::new(opening.read, input);
                let mut all = Vec::new();
                replayed.read_to_end(&mut all).await.unwrap();
                assert_eq!(all, *wire, "{case}");
            }
        }
    }

    #[tokio::test]
    async fn an_endless_head_is_given_up() {
        let wire = [b"GET / HTTP/1.1\r\nX: ".as_slice(), &[b'x'; 5_000]].concat();
        let opening = read_opening(&mut wire.as_slice(), 4_096).await.unwrap();
        assert!(opening.head.is_none());
        assert!(opening.read.len() < 4_096 + READ_BYTES);
    }

    /// Gives `wire` in pieces of at most `piece` bytes.
    fn in_pieces(wire: &[u8], piece: usize) -> Pieces {
        Pieces { wire: wire.to_vec(), piece }
    }

    struct Pieces {
        wire: Vec<u8>,
        piece: usize,
    }

    impl AsyncRead for Pieces {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            let count = self.piece.min(self.wire.len()).min(buf.remaining());
            let piece: Vec<u8> = self.wire.drain(..count).collect();
            buf.put_slice(&piece);
            Poll::Ready(Ok(()))
        }
    }
}
