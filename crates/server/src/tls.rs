//! The TLS rim: from an accepted socket to a stream whose peer has shown what it holds, and proved nothing else.
//!
//! A handshake chooses the server certificate by the dialled address, SNI and the schemes the client offers, asks for a
//! client certificate without judging it, and stays within bounds before anything is known of the peer. It must never
//! look at what is spoken inside. Start reading at [`TlsAcceptor::accept`].

pub mod authority;
mod hello;
pub mod key_file;
mod leaves;
mod operator;
mod tickets;
pub mod verifier;

#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::certificate::{InvalidChain, PresentedChain};
use rustls::server::Acceptor;
use rustls::{HandshakeKind, ServerConfig};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout_at;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use self::leaves::Choice;
pub use self::leaves::{
    CertificateSources, CertificateUnavailable, RSA_KEY_FILE, ServerCertificates, configuration_template,
};
pub use self::operator::{OperatorCertificate, OperatorCertificateError};
use crate::budget::{AddressBudget, BudgetSettings};
use crate::listener::Incoming;

/// Limits on what a peer may cost before its handshake is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// From the accepted socket to the end of the handshake, waiting and a balancer's header included.
    pub handshake_timeout: Duration,
    /// Handshakes under way at once; more wait, within the time-out.
    pub handshakes_max: usize,
    /// What one address may ask for.
    pub handshake_budget: BudgetSettings,
}

impl Default for TlsSettings {
    /// Fifteen seconds, which a device on a slow link needs; 1,024 handshakes; the default budget.
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(15),
            handshakes_max: 1_024,
            handshake_budget: BudgetSettings::default(),
        }
    }
}

/// What a port speaks inside TLS, as far as the handshake must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortProtocol {
    /// HTTP: `h2` and `http/1.1` are offered to clients that ask for either. ALPN is never required.
    Http,
    /// MQTT or AMQP: no ALPN.
    Other,
}

/// What is known of a peer before it has said anything in its own protocol.
#[derive(Clone, Debug)]
pub struct PeerContext {
    /// Where the peer comes from; an IPv4 peer on an IPv6 socket is given as IPv4.
    pub address: SocketAddr,
    /// The address and port the peer dialled.
    pub dialled: SocketAddr,
    /// The host name the peer asked for by SNI, in lower case; `None` for address literals too.
    pub server_name: Option<Arc<str>>,
    /// The chain the peer presented, read once for all requests of the connection; `None` if none was. The peer holds
    /// the leaf's key; nothing else is proved, neither validity nor trust, and on a resumed connection the chain is the
    /// one of the first handshake.
    pub chain: Option<Result<Arc<PresentedChain>, InvalidChain>>,
    /// Whether the session was resumed.
    pub resumed: bool,
}

/// The stream of a finished handshake. Boxed: it is large, and passed by value through several futures.
pub type SecureStream = Box<TlsStream<TcpStream>>;

/// A finished handshake.
#[derive(Debug)]
pub struct Connection {
    /// Plaintext inside, TLS outside.
    pub stream: SecureStream,
    /// Who is at the other end.
    pub peer: PeerContext,
}

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The peer's address has used up its budget.
    #[error("the address has used up its budget of handshakes")]
    OverBudget,
    /// The peer was too slow, or the server too busy.
    #[error("the handshake took longer than {0:?}")]
    TimedOut(Duration),
    /// The client offers only suites that this server refuses.
    #[error("the client offers no cipher suite with AEAD and ECDHE; it offers: {offered}")]
    NoCommonSuite { offered: String },
    /// No certificate can be offered.
    #[error(transparent)]
    Certificate(#[from] CertificateUnavailable),
    /// TLS failed, or the peer left.
    #[error(transparent)]
    Tls(#[from] io::Error),
}

/// Finishes handshakes for one port. Clones share certificates, settings and budgets.
#[derive(Clone)]
pub struct TlsAcceptor {
    rim: Arc<Rim>,
    protocol: PortProtocol,
}

struct Rim {
    certificates: Arc<ServerCertificates>,
    settings: TlsSettings,
    budget: Arc<AddressBudget>,
    permits: Semaphore,
}

impl TlsAcceptor {
    /// An acceptor whose budgets are full.
    pub fn new(certificates: Arc<ServerCertificates>, settings: TlsSettings, protocol: PortProtocol) -> Self {
        let rim = Rim {
            certificates,
            settings,
            budget: AddressBudget::new(settings.handshake_budget, Instant::now()),
            permits: Semaphore::new(settings.handshakes_max.min(Semaphore::MAX_PERMITS)),
        };
        Self { rim: Arc::new(rim), protocol }
    }

    /// An acceptor for another port, under the same limits.
    pub fn for_protocol(&self, protocol: PortProtocol) -> Self {
        Self { rim: Arc::clone(&self.rim), protocol }
    }

    /// Finishes the handshake of `incoming`, within the limits.
    pub async fn accept(&self, incoming: Incoming) -> Result<Connection, HandshakeError> {
        let settings = self.rim.settings;
        let use_of_budget = self.rim.budget.take(incoming.peer.ip(), Instant::now());
        let _under_way = use_of_budget.ok_or(HandshakeError::OverBudget)?;
        // On the heap, so that the caller's future does not keep room for a handshake while the connection lives.
        let deadline = incoming.accepted_at + settings.handshake_timeout;
        let handshake = Box::pin(self.handshake(incoming));
        timeout_at(deadline, handshake).await.map_err(|_| HandshakeError::TimedOut(settings.handshake_timeout))?
    }

    async fn handshake(&self, incoming: Incoming) -> Result<Connection, HandshakeError> {
        let Incoming { stream, peer, dialled, accepted_at: _ } = incoming;
        // The permit is taken once the client has spoken, so that silent sockets keep nobody waiting.
        let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let _permit = self.rim.permits.acquire().await.map_err(io::Error::other)?;
        let hello = start.client_hello();
        let server_name = hello.server_name().map(Arc::from);
        let certificates = &self.rim.certificates;
        let offered = (!hello::shares_a_suite(&hello, certificates.provider()))
            .then(|| hello::suites_for_the_log(hello.cipher_suites()));
        let choice = certificates.choose(&hello, dialled.ip(), self.protocol == PortProtocol::Http)?;
        let configuration: Arc<ServerConfig> = match choice {
            Choice::Ready(configuration) => configuration,
            Choice::AwaitsRsaKey(wanted) => certificates.rsa_configuration(wanted).await?,
        };
        let finished = start.into_stream(configuration).await;
        let stream = match (finished, offered) {
            (Ok(stream), _) => Box::new(stream),
            (Err(_), Some(offered)) => return Err(HandshakeError::NoCommonSuite { offered }),
            (Err(error), None) => return Err(error.into()),
        };
        let session = stream.get_ref().1;
        let shown = session.peer_certificates().filter(|certificates| !certificates.is_empty());
        let peer = PeerContext {
            address: peer,
            dialled,
            server_name,
            chain: shown.map(|certificates| PresentedChain::from_der(certificates).map(Arc::new)),
            resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
        };
        Ok(Connection { stream, peer })
    }
}

impl HandshakeError {
    /// Logs the failure, once, as the peer's fault or as ours.
    pub fn log(&self, peer: SocketAddr, dialled: SocketAddr) {
        match self {
            Self::NoCommonSuite { offered } => {
                tracing::info!(%peer, %dialled, %offered, "handshake refused: no cipher suite with AEAD and ECDHE");
            }
            Self::Certificate(error) => {
                tracing::error!(%peer, %dialled, error = error as &dyn std::error::Error, "no server certificate");
            }
            Self::OverBudget | Self::TimedOut(_) | Self::Tls(_) => {
                tracing::debug!(%peer, %dialled, error = %self, "handshake failed");
            }
        }
    }
}
