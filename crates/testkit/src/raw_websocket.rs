//! WebSockets as bytes: openings and frames that no client library would send, and what comes back.
//!
//! Start at [`RawWebSocket::open`].

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::error::Elapsed;
use tokio::time::timeout;

/// Longer than any answer takes that comes.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Most bytes of an answer.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// The mask of every frame; which one it is makes no difference.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// What a frame begins with: it is the last of its message, and binary.
pub const BINARY: u8 = 0x82;

/// One connection.
pub struct RawWebSocket<S> {
    stream: S,
    received: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> RawWebSocket<S> {
    /// Sends `opening`; gives the status of the answer, and the WebSocket if it is 101.
    ///
    /// # Panics
    /// When nothing comes for [`PATIENCE`].
    pub async fn open(mut stream: S, opening: &str) -> (Option<u16>, Option<Self>) {
        let sent = stream.write_all(opening.as_bytes()).await.is_ok() && stream.flush().await.is_ok();
        let mut socket = Self { stream, received: Vec::new() };
        let is_whole = |received: &[u8]| received.windows(4).any(|four| four == b"\r\n\r\n");
        if !sent || !socket.fill(is_whole).await.expect("the server answers or closes") {
            return (None, None);
        }
        let head = String::from_utf8_lossy(&socket.received).into_owned();
        let head_bytes = head.find("\r\n\r\n").map_or(0, |at| at + 4);
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        socket.received.drain(..head_bytes);
        (status, (status == Some(101)).then_some(socket))
    }

    /// Sends bytes, whatever they are. A server that has closed already is no error: hearing will show it.
    pub async fn send(&mut self, bytes: &[u8]) {
        if self.stream.write_all(bytes).await.is_ok() {
            let _ = self.stream.flush().await;
        }
    }

    /// What the server says up to the end or to [`PATIENCE`], in words: a close frame by its code, a binary one by its bytes, other frames by
    /// what they begin with.
    pub async fn hear_to_the_end(&mut self) -> String {
        let mut words = Vec::new();
        let end = loop {
            match self.fill(|received| frame(received).is_some()).await {
                Ok(true) => {}
                Ok(false) => break "closed",
                Err(_) => break "silence",
            }
            let Some((first, payload, used)) = frame(&self.received) else { continue };
            words.push(match (first, payload) {
                (0x88, [high, low, ..]) => format!("close {}", u16::from_be_bytes([*high, *low])),
                (BINARY, payload) => {
                    payload.iter().fold("binary".to_owned(), |word, byte| format!("{word} {byte:02x}"))
                }
                (0x8a, _) => "pong".to_owned(),
                (first, _) => format!("frame {first:#x}"),
            });
            self.received.drain(..used);
        };
        words.push(end.to_owned());
        words.join(", ")
    }

    /// The payload of the next binary frame; `None` for any other, and for the end.
    ///
    /// # Panics
    /// When nothing comes for [`PATIENCE`].
    pub async fn hear_binary(&mut self) -> Option<Vec<u8>> {
        if !self.fill(|received| frame(received).is_some()).await.expect("the server answers or closes") {
            return None;
        }
        let (first, payload, used) = frame(&self.received)?;
        let payload = (first == BINARY).then(|| payload.to_vec());
        self.received.drain(..used);
        payload
    }

    /// Reads until `is_enough`; `false` if the connection ends first. Fails when nothing comes for [`PATIENCE`].
    async fn fill(&mut self, is_enough: impl Fn(&[u8]) -> bool) -> Result<bool, Elapsed> {
        while !is_enough(&self.received) {
            assert!(self.received.len() <= ANSWER_BYTES_MAX, "the answer does not end");
            let read = timeout(PATIENCE, self.stream.read_buf(&mut self.received)).await?;
            if !matches!(read, Ok(1..)) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// A masked frame of at most 65,535 bytes that begins with `first`.
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    if let Ok(length @ ..126) = u8::try_from(payload.len()) {
        frame.push(0x80 | length);
    } else {
        frame.push(0xfe);
        frame.extend(u16::try_from(payload.len()).unwrap_or(u16::MAX).to_be_bytes());
    }
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// What a frame of the server begins with, its payload, and its length, if it is there whole.
fn frame(received: &[u8]) -> Option<(u8, &[u8], usize)> {
    let (&first, rest) = received.split_first()?;
    let (&length, rest) = rest.split_first()?;
    let (length, head_bytes, rest) = match length {
        126 => (usize::from(u16::from_be_bytes(*rest.first_chunk()?)), 4, rest.get(2..)?),
        length => (usize::from(length), 2, rest),
    };
    Some((first, rest.get(..length)?, head_bytes + length))
}
