//! HTTP/1.1 as bytes: requests that no client library would send, and what comes back.
//!
//! Writes what it is given, byte for byte; reads answers that have a length or no body, which is all the server sends
//! to the requests of the tests. Start at [`RawHttp::exchange`].

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

/// Longer than any answer takes that comes.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Most bytes of an answer.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// A request, not checked in any way.
#[derive(Clone, Debug, Default)]
pub struct RawRequest {
    /// The method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Header names and values; `Content-Length` is added, as [`RawHttp`] keeps its connection.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body.
    pub body: Vec<u8>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawAnswer {
    /// The status.
    pub status: u16,
    /// Header names, in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl RawAnswer {
    /// The first header called `name`, which is in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The body as text, for messages.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    /// The connection ended first.
    #[error("the connection ended without an answer")]
    Closed,
    /// Nothing came in time.
    #[error("no answer within {} s", .0.as_secs())]
    Silence(Duration),
    /// The connection broke.
    #[error("the connection broke")]
    Broken(#[from] io::Error),
    /// What came is no answer.
    #[error("no HTTP: {0}")]
    Malformed(&'static str),
}

/// One connection, kept from request to request.
pub struct RawHttp<S> {
    stream: S,
    received: Vec<u8>,
    open: bool,
    patience: Duration,
}

impl<S: AsyncRead + AsyncWrite + Unpin> RawHttp<S> {
    /// Speaks over `stream`.
    pub const fn new(stream: S) -> Self {
        Self::with_patience(stream, PATIENCE)
    }

    /// Speaks over `stream`, and waits so long for each answer.
    pub const fn with_patience(stream: S, patience: Duration) -> Self {
        Self { stream, received: Vec::new(), open: true, patience }
    }

    /// What is spoken over.
    pub const fn stream(&self) -> &S {
        &self.stream
    }

    /// Whether another request can be sent.
    pub const fn is_open(&self) -> bool {
        self.open
    }

    /// Sends `request` and reads its answer.
    pub async fn exchange(&mut self, request: &RawRequest) -> Result<RawAnswer, NoAnswer> {
        let answer = timeout(self.patience, self.send_and_read(request)).await;
        let answer = answer.unwrap_or(Err(NoAnswer::Silence(self.patience)));
        self.open = self.open && answer.as_ref().is_ok_and(|answer| answer.header("connection") != Some("close"));
        answer
    }

    async fn send_and_read(&mut self, request: &RawRequest) -> Result<RawAnswer, NoAnswer> {
        let written = match self.stream.write_all(&encode(request)).await {
            Ok(()) => self.stream.flush().await,
            failed => failed,
        };
        // A server that refuses a body early answers and stops reading: its answer is there all the same.
        self.open &= written.is_ok();
        let head_end = self.read_until(|received| find(received, b"\r\n\r\n").map(|at| at + 4)).await?;
        let head: Vec<u8> = self.received.drain(..head_end).collect();
        let mut answer = parse_head(&head)?;
        let length = match answer.header("content-length").map(str::parse::<usize>) {
            Some(Ok(length)) if length <= ANSWER_BYTES_MAX => length,
            None if answer.status == 204 => 0,
            None if request.method == "HEAD" => 0,
            _ => return Err(NoAnswer::Malformed("an answer has no usable length")),
        };
        let length = if request.method == "HEAD" { 0 } else { length };
        let body_end = self.read_until(|received| (received.len() >= length).then_some(length)).await?;
        answer.body = self.received.drain(..body_end).collect();
        Ok(answer)
    }

    /// Reads until `is_enough` says how much is wanted.
    async fn read_until(&mut self, is_enough: impl Fn(&[u8]) -> Option<usize>) -> Result<usize, NoAnswer> {
        loop {
            if let Some(enough) = is_enough(&self.received) {
                return Ok(enough);
            }
            if self.received.len() > ANSWER_BYTES_MAX {
                return Err(NoAnswer::Malformed("the answer does not end"));
            }
            match self.stream.read_buf(&mut self.received).await {
                Ok(0) => return Err(NoAnswer::Closed),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(NoAnswer::Closed),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn encode(request: &RawRequest) -> Vec<u8> {
    let mut wire = format!("{} {} HTTP/1.1\r\n", request.method, request.target).into_bytes();
    for (name, value) in &request.headers {
        wire.extend_from_slice(name.as_bytes());
        wire.extend_from_slice(b": ");
        wire.extend_from_slice(value);
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(format!("Content-Length: {}\r\n\r\n", request.body.len()).as_bytes());
    wire.extend_from_slice(&request.body);
    wire
}

fn parse_head(head: &[u8]) -> Result<RawAnswer, NoAnswer> {
    let text = std::str::from_utf8(head).map_err(|_| NoAnswer::Malformed("the head is not text"))?;
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
    let headers = lines.filter_map(|line| line.split_once(':'));
    Ok(RawAnswer {
        status: status.ok_or(NoAnswer::Malformed("no status line"))?,
        headers: headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect(),
        body: Vec::new(),
    })
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
