//! The bytes below MQTT and AMQP: a TLS stream, or the binary messages of a WebSocket on one.
//!
//! Knows nothing of what is spoken. Reads go through a buffer on the stack, so that a quiet connection holds none.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Sink as _, Stream as _};
use http::HeaderValue;
use http::header::SEC_WEBSOCKET_PROTOCOL;
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::https::{self, HttpsError, Server};

/// Most bytes taken from a TLS stream at once.
const READ_BYTES_MAX: usize = 4 * 1_024;
/// Most bytes put into one WebSocket message.
const MESSAGE_BYTES_MAX: usize = 64 * 1_024;
/// Most bytes of a WebSocket message from the server.
const RECEIVED_BYTES_MAX: usize = 1 << 20;
/// What is asked for (`contract/dps-device.md 1.2`).
const WEBSOCKET_PATH: &str = "/$iothub/websocket";

/// Why bytes do not get to a server, or not back.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The server could not be reached.
    #[error(transparent)]
    Connect(#[from] HttpsError),
    /// The server did not open a WebSocket.
    #[error("the server did not open a WebSocket")]
    WebSocket(#[source] Box<tungstenite::Error>),
    /// The socket failed.
    #[error("the connection broke")]
    Io(#[source] io::Error),
    /// No answer in time.
    #[error("no answer to {what} within {} s", .after.as_secs())]
    Timeout {
        /// What was asked.
        what: &'static str,
        /// How long was waited.
        after: Duration,
    },
}

/// Anything bytes go through.
pub(crate) trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// A connected byte stream.
pub(crate) enum Wire {
    /// Bytes as they are.
    Stream(Box<dyn ByteStream>),
    /// Bytes in binary messages.
    WebSocket(Box<WebSocketStream<Box<dyn ByteStream>>>),
}

impl Wire {
    /// Connects to `server`; over a WebSocket if a `protocol` to be spoken on one is named.
    pub(crate) async fn open(
        tls: &Arc<ClientConfig>,
        server: &Server,
        protocol: Option<&'static str>,
    ) -> Result<Self, WireError> {
        let stream: Box<dyn ByteStream> = Box::new(https::connect(tls, server).await?);
        match protocol {
            Some(protocol) => Self::upgrade(stream, server, protocol).await,
            None => Ok(Self::Stream(stream)),
        }
    }

    /// Makes a WebSocket of `stream`, on which `protocol` is spoken.
    async fn upgrade(stream: Box<dyn ByteStream>, server: &Server, protocol: &'static str) -> Result<Self, WireError> {
        let refused = |error| WireError::WebSocket(Box::new(error));
        let Server { host, port } = server;
        let url = match host.contains(':') {
            true => format!("wss://[{host}]:{port}{WEBSOCKET_PATH}"),
            false => format!("wss://{host}:{port}{WEBSOCKET_PATH}"),
        };
        let mut request = url.into_client_request().map_err(refused)?;
        request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BYTES_MAX)
            .write_buffer_size(0)
            .max_message_size(Some(RECEIVED_BYTES_MAX))
            .max_frame_size(Some(RECEIVED_BYTES_MAX));
        let opened = tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await;
        let (socket, _) = opened.map_err(refused)?;
        Ok(Self::WebSocket(Box::new(socket)))
    }

    /// Hands what has arrived to `take`. Returns how many bytes it was; 0 when there will be no more.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, take: impl FnOnce(&[u8])) -> Poll<io::Result<usize>> {
        match self {
            Self::Stream(stream) => {
                let mut bytes = [0; READ_BYTES_MAX];
                let mut buffer = ReadBuf::new(&mut bytes);
                match ready!(Pin::new(stream).poll_read(cx, &mut buffer)) {
                    // Many servers close the socket without closing TLS first.
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Poll::Ready(Ok(0)),
                    read => read?,
                }
                take(buffer.filled());
                Poll::Ready(Ok(buffer.filled().len()))
            }
            Self::WebSocket(socket) => loop {
                match ready!(Pin::new(&mut **socket).poll_next(cx)).transpose().map_err(into_io)? {
                    Some(Message::Binary(bytes)) if !bytes.is_empty() => {
                        take(&bytes);
                        return Poll::Ready(Ok(bytes.len()));
                    }
                    None | Some(Message::Close(_)) => return Poll::Ready(Ok(0)),
                    // Pings are answered below us; nothing else carries what is spoken.
                    Some(_) => {}
                }
            },
        }
    }

    /// Takes a beginning of `bytes`, and returns how long it was.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Stream(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::WebSocket(socket) => {
                let mut socket = Pin::new(&mut **socket);
                ready!(socket.as_mut().poll_ready(cx)).map_err(into_io)?;
                let bytes = bytes.get(..MESSAGE_BYTES_MAX).unwrap_or(bytes);
                let message = Message::Binary(Bytes::copy_from_slice(bytes));
                socket.start_send(message).map_err(into_io)?;
                Poll::Ready(Ok(bytes.len()))
            }
        }
    }

    /// Pushes what was taken towards the server.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Stream(stream) => Pin::new(stream).poll_flush(cx),
            Self::WebSocket(socket) => Pin::new(&mut **socket).poll_flush(cx).map_err(into_io),
        }
    }

    /// Says that nothing more will be written.
    pub(crate) fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Stream(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::WebSocket(socket) => Pin::new(&mut **socket).poll_close(cx).map_err(into_io),
        }
    }
}

fn into_io(error: tungstenite::Error) -> io::Error {
    match error {
        tungstenite::Error::Io(error) => error,
        other => io::Error::other(other),
    }
}
