//! The stream of a connection: reading through a buffer of the thread, and never leaving written bytes behind.
//!
//! TLS takes bytes before the socket does, and says nothing about it: whoever reads has to flush as well, or a slow
//! client waits for the rest of what was written until something else is. Start at [`Link`].

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};

/// Bytes read at once; TLS records hold at most 16 KiB.
const READ_BYTES: usize = 16 * 1_024;

thread_local! {
    static READ_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
}

/// A stream that may hold bytes which the socket has not taken.
pub(super) struct Link<S> {
    stream: S,
    unflushed: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Link<S> {
    pub(super) const fn new(stream: S) -> Self {
        Self { stream, unflushed: false }
    }

    /// Writes some of `bytes`, at least one. Nothing is written while it is pending.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.unflushed = true;
        Poll::Ready(if count == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(count) })
    }

    /// Reads once, if `wants_input`, straight into `take`, and meanwhile lets go of what was written. Without a wish for
    /// input it ends only if the stream does.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        wants_input: bool,
        take: impl FnOnce(&[u8]),
    ) -> Poll<io::Result<usize>> {
        if self.unflushed {
            match Pin::new(&mut self.stream).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {}
            }
        }
        if !wants_input {
            return Poll::Pending;
        }
        READ_BUFFER.with_borrow_mut(|buffer| {
            let mut read = ReadBuf::new(buffer);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read))?;
            let filled = read.filled();
            if !filled.is_empty() {
                take(filled);
            }
            Poll::Ready(Ok(filled.len()))
        })
    }

    /// Writes what is left and says goodbye.
    pub(super) async fn close(&mut self) {
        // The peer may be gone already; there is nobody else to tell.
        let _ = self.stream.flush().await;
        let _ = self.stream.shutdown().await;
    }

    /// Throws away what still comes, until the peer has left.
    pub(super) async fn discard(&mut self) {
        while poll_fn(|cx| self.poll_read(cx, true, |_| {})).await.is_ok_and(|count| count > 0) {}
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use socket2::SockRef;
    use tokio::io::AsyncReadExt as _;

    use super::*;
    use crate::testing::{PATIENCE, TestRim, VERSIONS};

    /// What TLS takes at once before the socket has taken anything.
    const WRITTEN_BYTES: usize = 48 * 1_024;
    /// So little that most of it stays with TLS.
    const SOCKET_BYTES: usize = 4_096;

    #[tokio::test]
    async fn a_slow_client_gets_everything_while_the_server_only_reads() {
        let rim = TestRim::start();
        let config = Arc::new(rim.client(VERSIONS[1]));
        let mut client = rim.dial("127.0.0.2", &config).await.expect("a handshake");
        let connection = rim.outcome().await.expect("a handshake");
        for socket in [SockRef::from(client.get_ref().0), SockRef::from(connection.stream.get_ref().0)] {
            socket.set_send_buffer_size(SOCKET_BYTES).unwrap();
            socket.set_recv_buffer_size(SOCKET_BYTES).unwrap();
        }
        let mut link = Link::new(connection.stream);
        let sent: Vec<u8> = (0..WRITTEN_BYTES).map(|index| (index % 251) as u8).collect();
        let mut written = 0;
        while let Some(rest) = sent.get(written..).filter(|rest| !rest.is_empty()) {
            written += poll_fn(|cx| link.poll_write(cx, rest)).await.unwrap();
        }
        let reading = async {
            let mut received = vec![0; WRITTEN_BYTES];
            client.read_exact(&mut received).await.unwrap();
            received
        };
        let received = tokio::select! {
            received = tokio::time::timeout(PATIENCE, reading) => received.expect("the rest arrives"),
            read = poll_fn(|cx| link.poll_read(cx, true, |_| {})) => panic!("the client sent nothing, but {read:?}"),
        };
        assert!(received == sent, "the bytes differ");
    }
}
