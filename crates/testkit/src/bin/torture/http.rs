//! HTTP/1.1 on one connection that stays open, so that a trace can tell a response from everything else: between a
//! request and its response the server writes nothing to the socket but the response.

use std::time::Duration;

use client::https::{Server, connect};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::journal::Ends;
use crate::server::Door;
use crate::trouble::{During as _, Result, Trouble};

/// Time for one request.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest response that is read.
const RESPONSE_BYTES_MAX: usize = 64 << 20;

/// A connection.
pub struct Session {
    stream: TlsStream<TcpStream>,
    server: Server,
    received: Vec<u8>,
}

/// A request.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The method.
    pub method: &'static str,
    /// Path and query, encoded.
    pub target: &'a str,
    /// The signature.
    pub authorization: &'a str,
    /// The body.
    pub body: Option<&'a Value>,
    /// One further header, if it has a name.
    pub header: (&'static str, &'a str),
}

impl<'a> Request<'a> {
    /// A request without a body.
    pub const fn new(method: &'static str, target: &'a str, authorization: &'a str) -> Self {
        Self { method, target, authorization, body: None, header: ("", "") }
    }

    /// The same with a body.
    pub const fn with(self, body: &'a Value) -> Self {
        Self { body: Some(body), ..self }
    }
}

/// A response.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    /// The body; null if it is empty or no JSON.
    pub body: Value,
}

impl Answer {
    /// A header by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The answer if its status is a success.
    pub fn success(self) -> Result<Self> {
        match self.status {
            200..300 => Ok(self),
            status => Err(Trouble::new(format!("the server answered {status}: {}", self.body))),
        }
    }
}

impl Session {
    /// Connects to `host`.
    pub async fn open(door: &Door, host: &str) -> Result<Self> {
        let server = door.https(host);
        let stream = timeout(ANSWER_TIMEOUT, connect(&door.tls, &server)).await??;
        Ok(Self { stream, server, received: Vec::new() })
    }

    /// Both ends of the connection.
    pub fn ends(&self) -> Result<Ends> {
        Ends::of(self.stream.get_ref().0)
    }

    /// Sends a request and reads its whole response.
    pub async fn ask(&mut self, request: Request<'_>) -> Result<Answer> {
        timeout(ANSWER_TIMEOUT, self.exchange(request)).await.during(format!("asking for {}", request.target))?
    }

    async fn exchange(&mut self, request: Request<'_>) -> Result<Answer> {
        let body = request.body.map(Value::to_string).unwrap_or_default();
        let (name, value) = request.header;
        let further = if name.is_empty() { String::new() } else { format!("{name}: {value}\r\n") };
        let text = format!(
            "{} {} HTTP/1.1\r\nHost: {}:{}\r\nAuthorization: {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n{further}\r\n{body}",
            request.method,
            request.target,
            self.server.host,
            self.server.port,
            request.authorization,
            body.len()
        );
        self.stream.write_all(text.as_bytes()).await?;
        self.stream.flush().await?;
        let (head, rest) = loop {
            if let Some(end) = self.received.windows(4).position(|window| window == b"\r\n\r\n") {
                let rest = self.received.split_off(end + 4);
                break (std::mem::take(&mut self.received), rest);
            }
            self.read_more().await?;
        };
        self.received = rest;
        let head = String::from_utf8(head).during("a response's head")?;
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok());
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let mut answer =
            Answer { status: status.ok_or_else(|| Trouble::new("no status"))?, headers, body: Value::Null };
        let length: usize = match answer.header("content-length") {
            None if answer.header("transfer-encoding").is_some() => {
                return Err(Trouble::new("a response in chunks is not expected"));
            }
            None => 0,
            Some(length) => length.parse()?,
        };
        while self.received.len() < length {
            self.read_more().await?;
        }
        let rest = self.received.split_off(length);
        let body = std::mem::replace(&mut self.received, rest);
        answer.body = serde_json::from_slice(&body).unwrap_or_default();
        Ok(answer)
    }

    async fn read_more(&mut self) -> Result<()> {
        if self.received.len() > RESPONSE_BYTES_MAX {
            return Err(Trouble::new("the response is too long"));
        }
        match self.stream.read_buf(&mut self.received).await? {
            0 => Err(Trouble::new("the server closed the connection")),
            _ => Ok(()),
        }
    }
}
