//! HTTP/1.1 on one connection that stays open, so that a trace can tell a response from everything else: between a
//! request and its response the server writes nothing to the socket but the response.

use std::time::Duration;

use client::https::{Server, connect};
use serde_json::Value;
use testkit::raw_http::{RawHttp, RawRequest};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::journal::Ends;
use crate::server::Door;
use crate::trouble::{During as _, Result, Trouble};

/// Time for one request.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// A connection.
pub struct Session {
    http: RawHttp<TlsStream<TcpStream>>,
    server: Server,
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
    /// The body; null if it is empty or no JSON.
    pub body: Value,
}

impl Answer {
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
        Ok(Self { http: RawHttp::with_patience(stream, ANSWER_TIMEOUT), server })
    }

    /// Both ends of the connection.
    pub fn ends(&self) -> Result<Ends> {
        Ends::of(self.http.stream().get_ref().0)
    }

    /// Sends a request and reads its whole response.
    pub async fn ask(&mut self, request: Request<'_>) -> Result<Answer> {
        let place = format!("{}:{}", self.server.host, self.server.port);
        let headers = [
            ("Host", place.as_str()),
            ("Authorization", request.authorization),
            ("Content-Type", "application/json"),
            request.header,
        ];
        let named = headers.into_iter().filter(|(name, _)| !name.is_empty());
        let raw = RawRequest {
            method: request.method.to_owned(),
            target: request.target.to_owned(),
            headers: named.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())).collect(),
            body: request.body.map(Value::to_string).unwrap_or_default().into_bytes(),
        };
        let answer = self.http.exchange(&raw).await.during(format!("asking for {}", request.target))?;
        let body = serde_json::from_slice(&answer.body).unwrap_or_default();
        Ok(Answer { status: answer.status, body })
    }
}
