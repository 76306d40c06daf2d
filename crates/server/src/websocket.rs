//! WebSocket as a transport: the upgrade, and the byte stream inside binary frames.
//!
//! MQTT and AMQP run over it as over a socket; where frames begin and end means nothing to them. It must never send a
//! frame on its own account before the client has, since one client reads the upgrade's reply through a buffer that
//! would swallow it (`contract/dps-device.md 1.2`). Start reading at [`WebSocketStream`].

mod frame;
pub(crate) mod upgrade;

#[cfg(test)]
mod tests;
#[cfg(test)]
#[path = "../../../fuzz/src/websocket_frame.rs"]
mod websocket_frame;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use domain::host::HostName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use self::frame::{Decoder, Event, Violation, encode};
pub use self::upgrade::Subprotocol;
pub(crate) use self::upgrade::{Verdict, judge};
use crate::tls::{PeerContext, SecureStream};

/// Bytes asked of the connection at once.
const READ_BYTES: usize = 8 * 1024;

/// Most payload bytes in one frame of ours: a TLS record, less the frame's header.
const FRAME_PAYLOAD_BYTES_MAX: usize = 16 * 1024 - 16;

/// The close code of an ordinary end (RFC 6455, section 7.4.1).
const CLOSE_NORMAL: u16 = 1000;

/// The close code of an end that the peer's mistake caused.
const CLOSE_PROTOCOL_ERROR: u16 = 1002;

/// A connection after its upgrade.
#[derive(Debug)]
pub struct WebSocket {
    /// What the client will speak.
    pub protocol: Subprotocol,
    /// The host that it asked for.
    pub host: Option<HostName>,
    /// The bytes it speaks in.
    pub stream: WebSocketStream<SecureStream>,
    /// Who it is; an X.509 device's certificate is the one of the TLS connection.
    pub peer: PeerContext,
}

/// Takes over connections that were upgraded.
#[async_trait]
pub trait WebSocketHandler: Send + Sync + 'static {
    /// Serves the connection until it ends.
    async fn handle(&self, socket: WebSocket);
}

/// The bytes inside the binary frames of a connection that was upgraded.
///
/// Pings and the closing handshake are answered while reading. Shutting it down sends a close frame and ends the
/// connection below. It keeps no buffer while it is idle.
#[derive(Debug)]
pub struct WebSocketStream<S> {
    connection: S,
    decoder: Decoder,
    /// Bytes read and not yet decoded, from `raw_at` on.
    raw: Vec<u8>,
    raw_at: usize,
    /// Frames encoded and not yet written, from `out_at` on.
    out: Vec<u8>,
    out_at: usize,
    /// The payload of the latest ping. Earlier ones that could not be answered yet are passed over, which RFC 6455,
    /// section 5.5.3, permits, and which bounds what a peer can make us keep.
    pong: Option<Box<[u8]>>,
    /// The code of the close frame still to be sent.
    close: Option<u16>,
    close_queued: bool,
    read_ended: bool,
    /// Whether an answer was written that the connection may not have let go of: TLS takes bytes before the socket does.
    unflushed: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocketStream<S> {
    /// Frames over `connection`, from which `read_ahead` was already read after the upgrade's request.
    pub fn new(connection: S, read_ahead: Vec<u8>) -> Self {
        Self {
            connection,
            decoder: Decoder::default(),
            raw: read_ahead,
            raw_at: 0,
            out: Vec::new(),
            out_at: 0,
            pong: None,
            close: None,
            close_queued: false,
            read_ended: false,
            unflushed: false,
        }
    }

    /// Decodes what was read, up to the first data. `true` if data was put into `buf`, or no more will come.
    fn decode_into(&mut self, buf: &mut ReadBuf<'_>) -> Result<bool, Violation> {
        loop {
            let pending = self.raw.get_mut(self.raw_at..).unwrap_or_default();
            let Some((used, event)) = self.decoder.decode(pending, buf.remaining())? else {
                return Ok(false);
            };
            self.raw_at += used;
            match event {
                Event::Data(range) if range.is_empty() => {}
                Event::Data(range) => {
                    buf.put_slice(pending.get(range).unwrap_or_default());
                    return Ok(true);
                }
                Event::Ping(range) => self.pong = Some(pending.get(range).unwrap_or_default().into()),
                Event::Pong => {}
                Event::Close(code) => {
                    self.begin_close(code.map_or(CLOSE_NORMAL, echoed_close_code));
                    self.read_ended = true;
                    return Ok(true);
                }
            }
        }
    }

    fn begin_close(&mut self, code: u16) {
        if !self.close_queued {
            self.close_queued = true;
            self.close = Some(code);
        }
    }

    /// Drops what was decoded, and the buffer with it when it is empty.
    fn give_back_read_buffer(&mut self) {
        if self.raw_at == self.raw.len() {
            self.raw = Vec::new();
        } else {
            self.raw.drain(..self.raw_at);
        }
        self.raw_at = 0;
    }

    /// Writes frames out until none is left. Answers to control frames go between data frames.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while let Some(rest) = self.out.get(self.out_at..).filter(|rest| !rest.is_empty()) {
                let written = ready!(Pin::new(&mut self.connection).poll_write(cx, rest))?;
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.out_at += written;
            }
            (self.out, self.out_at) = (Vec::new(), 0);
            if let Some(payload) = self.pong.take() {
                encode(OpCode::Control(Control::Pong), &payload, &mut self.out);
            } else if let Some(code) = self.close.take() {
                encode(OpCode::Control(Control::Close), &code.to_be_bytes(), &mut self.out);
            } else {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Sends what reading has caused, as far as the connection takes it. Errors come to light in the next read or write.
    fn answer(&mut self, cx: &mut Context<'_>) {
        if let Poll::Ready(Ok(())) = self.poll_drain(cx) {
            self.unflushed = Pin::new(&mut self.connection).poll_flush(cx).is_pending();
        }
    }

    fn has_answers(&self) -> bool {
        self.pong.is_some() || self.close.is_some() || !self.out.is_empty() || self.unflushed
    }
}

/// The code to answer a close with: the peer's own, unless it is one that must not be sent (RFC 6455, section 7.4).
fn echoed_close_code(code: u16) -> u16 {
    match code {
        1005 | 1006 | 1015 => CLOSE_PROTOCOL_ERROR,
        1000..=4999 => code,
        _ => CLOSE_PROTOCOL_ERROR,
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocketStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            if this.read_ended {
                return Poll::Ready(Ok(()));
            }
            let decoded = this.decode_into(buf);
            this.give_back_read_buffer();
            if let Err(violation) = decoded {
                this.begin_close(violation.close_code());
                this.read_ended = true;
            }
            if this.has_answers() {
                this.answer(cx);
            }
            match decoded {
                Ok(true) => return Poll::Ready(Ok(())),
                Ok(false) => {}
                Err(violation) => return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, violation))),
            }
            let mut scratch = [0; READ_BYTES];
            let mut read = ReadBuf::new(&mut scratch);
            ready!(Pin::new(&mut this.connection).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                this.read_ended = true;
            } else {
                this.raw.extend_from_slice(read.filled());
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocketStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.close_queued {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        ready!(this.poll_drain(cx))?;
        let payload = buf.get(..FRAME_PAYLOAD_BYTES_MAX).unwrap_or(buf);
        if payload.is_empty() {
            return Poll::Ready(Ok(0));
        }
        encode(OpCode::Data(Data::Binary), payload, &mut this.out);
        // The frame counts as written once it is queued: a part of it may be on its way already.
        match this.poll_drain(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(payload.len())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.connection).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.begin_close(CLOSE_NORMAL);
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.connection).poll_shutdown(cx)
    }
}
