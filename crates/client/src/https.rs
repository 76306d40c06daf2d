//! One HTTPS request at a time, over a connection of its own: enough for commands, and nothing to keep alive.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Most bytes of an answer that are read.
pub const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Time for a whole request.
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
    /// No answer within [`REQUEST_TIMEOUT`].
    #[error("no answer from {host} within {} s", REQUEST_TIMEOUT.as_secs())]
    Timeout {
        /// The host.
        host: String,
    },
}

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

    /// Sends `request`, whose target is a path, to `server` and reads the whole answer.
    pub async fn send(&self, server: &Server, request: Request<Bytes>) -> Result<Response<Bytes>, HttpsError> {
        let exchange = self.exchange(server, request);
        tokio::time::timeout(REQUEST_TIMEOUT, exchange)
            .await
            .unwrap_or_else(|_| Err(HttpsError::Timeout { host: server.host.clone() }))
    }

    async fn exchange(&self, server: &Server, request: Request<Bytes>) -> Result<Response<Bytes>, HttpsError> {
        let stream = connect(&self.tls, server).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(HttpsError::Exchange)?;
        let exchange = async move {
            let answer = sender.send_request(complete(server, request)).await.map_err(HttpsError::Exchange)?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(HttpsError::Answer)?;
            Ok(Response::from_parts(head, body.to_bytes()))
        };
        tokio::pin!(exchange);
        let connection = std::pin::pin!(connection);
        tokio::select! {
            answer = &mut exchange => answer,
            ended = connection => {
                ended.map_err(HttpsError::Exchange)?;
                exchange.await
            }
        }
    }
}

fn complete(server: &Server, request: Request<Bytes>) -> Request<Full<Bytes>> {
    let (mut head, body) = request.into_parts();
    let host = if server.port == 443 { server.host.clone() } else { format!("{}:{}", server.host, server.port) };
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
