//! One HTTPS request at a time, over a connection of its own: enough for commands, and nothing to keep alive. Whoever asks
//! again and again keeps one ([`KeptOpen`]); an answer of any length is read piece by piece ([`Pieces`]).

use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Connection, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Most bytes of an answer that are read.
pub const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Time for a whole request; for an answer that is read piece by piece, until it begins.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpsError {
    /// The connection cannot be made.
    #[error("cannot connect to {host} port {port}")]
    Connect {
        /// The host.
        host: String,
        /// The port.
        port: u16,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The host is neither a name nor an address.
    #[error("{0:?} is not a host")]
    Host(String),
    /// The exchange broke.
    #[error("the exchange broke off")]
    Exchange(#[source] hyper::Error),
    /// The answer is longer than [`ANSWER_BYTES_MAX`], or broke off.
    #[error("the answer could not be read")]
    Answer(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No answer in time: [`REQUEST_TIMEOUT`], and what the server was allowed to wait.
    #[error("no answer from {host} in time")]
    Timeout {
        /// The host.
        host: String,
    },
}

/// The part of a connection that moves its bytes.
type Moving = Connection<TokioIo<tokio_rustls::client::TlsStream<TcpStream>>, Full<Bytes>>;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Name or address, as certificates carry it.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// Sends requests.
#[derive(Clone, Debug)]
pub struct Https {
    tls: Arc<ClientConfig>,
}

impl Https {
    /// A client with the given trust.
    pub fn new(tls: Arc<ClientConfig>) -> Self {
        Self { tls }
    }

    /// Whom it trusts.
    pub fn tls(&self) -> &Arc<ClientConfig> {
        &self.tls
    }

    /// Sends `request`, whose target is a path, to `server` and reads the whole answer.
    pub async fn send(&self, server: &Server, request: Request<Bytes>) -> Result<Response<Bytes>, HttpsError> {
        self.send_waiting(server, request, Duration::ZERO).await
    }

    /// As [`Self::send`], for a request over which the server takes up to `waits` beside the usual time.
    pub async fn send_waiting(
        &self,
        server: &Server,
        request: Request<Bytes>,
        waits: Duration,
    ) -> Result<Response<Bytes>, HttpsError> {
        let exchange = self.exchange(server, request);
        tokio::time::timeout(REQUEST_TIMEOUT.saturating_add(waits), exchange)
            .await
            .unwrap_or_else(|_| Err(HttpsError::Timeout { host: server.host.clone() }))
    }

    /// Sends `request`, whose target is a path, to `server`; the answer is read piece by piece as it comes.
    pub async fn open(&self, server: &Server, request: Request<Bytes>) -> Result<Pieces, HttpsError> {
        let opening = async {
            let stream = connect(&self.tls, server).await?;
            let (mut sender, mut connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(HttpsError::Exchange)?;
            let mut answering = std::pin::pin!(sender.send_request(complete(server, request)));
            let answer = tokio::select! {
                answer = &mut answering => answer,
                ended = &mut connection => {
                    ended.map_err(HttpsError::Exchange)?;
                    return Err(HttpsError::Answer("the connection was closed".into()));
                }
            };
            let (head, body) = answer.map_err(HttpsError::Exchange)?.into_parts();
            Ok(Pieces { status: head.status, body, connection: Some(connection) })
        };
        tokio::time::timeout(REQUEST_TIMEOUT, opening)
            .await
            .unwrap_or_else(|_| Err(HttpsError::Timeout { host: server.host.clone() }))
    }

    async fn exchange(&self, server: &Server, request: Request<Bytes>) -> Result<Response<Bytes>, HttpsError> {
        self.keep_open(server).await?.send(request).await
    }

    /// A connection to `server` for one request after the other.
    pub async fn keep_open(&self, server: &Server) -> Result<KeptOpen, HttpsError> {
        let stream = connect(&self.tls, server).await?;
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(HttpsError::Exchange)?;
        Ok(KeptOpen { sender, connection: Some(connection), server: server.clone() })
    }
}

/// A connection that stays open from one request to the next.
#[derive(Debug)]
pub struct KeptOpen {
    sender: SendRequest<Full<Bytes>>,
    /// What moves the bytes, while a request is awaited; gone once it has ended.
    connection: Option<Moving>,
    server: Server,
}

impl KeptOpen {
    /// Sends `request`, whose target is a path, and reads the whole answer, however long it takes. A future that is
    /// dropped leaves a connection that is of no more use.
    pub async fn send(&mut self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpsError> {
        let Self { sender, connection, server } = self;
        let exchange = async move {
            let answer = sender.send_request(complete(server, request)).await.map_err(HttpsError::Exchange)?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(HttpsError::Answer)?;
            Ok(Response::from_parts(head, body.to_bytes()))
        };
        tokio::pin!(exchange);
        let Some(moving) = connection else { return exchange.await };
        tokio::select! {
            answer = &mut exchange => answer,
            ended = moving => {
                *connection = None;
                ended.map_err(HttpsError::Exchange)?;
                exchange.await
            }
        }
    }
}

/// An answer that is read piece by piece.
#[derive(Debug)]
pub struct Pieces {
    status: StatusCode,
    body: Incoming,
    /// What moves the bytes; gone once it has ended.
    connection: Option<Moving>,
}

impl Pieces {
    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The next bytes as they come; `None` once the answer has ended.
    pub async fn next(&mut self) -> Result<Option<Bytes>, HttpsError> {
        loop {
            let frame = match &mut self.connection {
                None => self.body.frame().await,
                Some(connection) => tokio::select! {
                    biased;
                    frame = self.body.frame() => frame,
                    ended = connection => {
                        self.connection = None;
                        ended.map_err(HttpsError::Exchange)?;
                        continue;
                    }
                },
            };
            match frame {
                None => return Ok(None),
                Some(frame) => {
                    if let Ok(piece) = frame.map_err(HttpsError::Exchange)?.into_data() {
                        return Ok(Some(piece));
                    }
                }
            }
        }
    }
}

fn complete(server: &Server, request: Request<Bytes>) -> Request<Full<Bytes>> {
    let (mut head, body) = request.into_parts();
    let is_ipv6 = server.host.parse::<Ipv6Addr>().is_ok();
    let host = if is_ipv6 { format!("[{}]", server.host) } else { server.host.clone() };
    let host = if server.port == 443 { host } else { format!("{host}:{}", server.port) };
    if let Ok(host) = host.parse() {
        head.headers.entry(HOST).or_insert(host);
    }
    if !body.is_empty() || head.method != http::Method::GET {
        head.headers.entry(CONTENT_LENGTH).or_insert(body.len().into());
    }
    Request::from_parts(head, Full::new(body))
}

/// A TLS connection to `server`.
pub async fn connect(
    tls: &Arc<ClientConfig>,
    server: &Server,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, HttpsError> {
    let Server { host, port } = server;
    let failed = |source| HttpsError::Connect { host: host.clone(), port: *port, source };
    let name = ServerName::try_from(host.clone()).map_err(|_| HttpsError::Host(host.clone()))?;
    let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    TlsConnector::from(Arc::clone(tls)).connect(name, stream).await.map_err(failed)
}
