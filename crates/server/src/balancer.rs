//! Connections through a balancer: whom they come from, by the header that the balancer writes before TLS.
//!
//! The header is the PROXY protocol's, version 2
//! (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>); a library decodes it. It is demanded of listed
//! balancers and taken from nobody else, since it names any address. Nothing behind it is read: that belongs to TLS.
//! Start reading at [`Balancers::introduce`].

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use ppp::v2::{Addresses, Command, Header, ParseError, Protocol};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout_at;

use crate::listener::{Incoming, canonical};
use crate::log_budget::LogBudget;
use crate::names::Names;

/// Bytes of every header: signature, version and command, family and protocol, length (section 2.2).
const FIXED_BYTES: usize = 16;

/// Most bytes behind those: addresses take 216 at most, the rest are TLVs, of which a client certificate is the longest
/// that balancers send. Nothing of the connection is held beside it yet.
const REST_BYTES_MAX: usize = 4_096;

/// An address, or a network, that balancers connect from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Balancer(IpNet);

/// Why a text names no balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBalancer {
    /// It is no address and no prefix.
    #[error("is neither an IP address nor a prefix such as 10.0.0.0/8")]
    NoPrefix,
    /// It is a prefix of IPv4-mapped IPv6 addresses; peers are compared as IPv4.
    #[error("is a prefix of IPv4-mapped addresses; write it as an IPv4 prefix")]
    Mapped,
}

impl FromStr for Balancer {
    type Err = InvalidBalancer;

    fn from_str(text: &str) -> Result<Self, InvalidBalancer> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self(address.to_canonical().into()));
        }
        match text.parse().map_err(|_| InvalidBalancer::NoPrefix)? {
            IpNet::V6(network) if network.addr().to_ipv4_mapped().is_some() => Err(InvalidBalancer::Mapped),
            network => Ok(Self(network)),
        }
    }
}

impl fmt::Display for Balancer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The listed balancers, and how their connections are introduced.
pub struct Balancers {
    listed: Vec<Balancer>,
    names: Arc<Names>,
    patience: Duration,
    log: LogBudget,
}

/// The two ends of a connection as the balancer saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ends {
    source: SocketAddr,
    destination: SocketAddr,
}

/// Why a connection from a balancer is closed.
#[derive(Debug, thiserror::Error)]
enum Unintroduced {
    #[error("no header of PROXY protocol version 2: {0}")]
    NoHeader(ParseError),
    #[error("a header of {FIXED_BYTES} + {0} bytes, of which {FIXED_BYTES} + {REST_BYTES_MAX} are taken")]
    TooLong(usize),
    #[error("a header that names no TCP connection over IPv4 or IPv6")]
    NoTcp,
    #[error("no whole header within {0:?}")]
    TimedOut(Duration),
    #[error("the connection ended within the header: {0}")]
    Ended(#[from] io::Error),
    /// The usual way of looking whether a port is open.
    #[error("the connection ended before the header")]
    Silent,
}

impl Balancers {
    /// Demands a header of connections from `listed`, and waits for it until `patience` has passed since the connection
    /// was accepted. `names` tells which addresses are handed out here.
    pub fn new(listed: Vec<Balancer>, names: Arc<Names>, patience: Duration) -> Self {
        Self { listed, names, patience, log: LogBudget::new() }
    }

    /// The connection with the ends it has behind the balancer, if it comes from one; `None` if that one does not say, and
    /// the connection is to be closed.
    ///
    /// The peer becomes the header's source. What was dialled becomes the header's destination where that is an address
    /// handed out here (`docs/decisions/balancers.md`), and stays the address that the balancer dialled otherwise. The
    /// balancer's own health checks (`LOCAL`) keep both.
    pub async fn introduce(&self, mut incoming: Incoming) -> Option<Incoming> {
        if !self.is_listed(incoming.peer.ip()) {
            return Some(incoming);
        }
        match self.read_ends(&mut incoming).await {
            Ok(None) => {}
            Ok(Some(Ends { source, destination })) => {
                incoming.peer = source;
                if self.names.current().hands_out(destination.ip()) {
                    incoming.dialled = destination;
                }
            }
            Err(reason) => {
                self.tell(incoming.peer.ip(), &reason);
                return None;
            }
        }
        Some(incoming)
    }

    fn is_listed(&self, peer: IpAddr) -> bool {
        self.listed.iter().any(|Balancer(network)| network.contains(&peer))
    }

    async fn read_ends(&self, incoming: &mut Incoming) -> Result<Option<Ends>, Unintroduced> {
        let deadline = incoming.accepted_at + self.patience;
        let read = timeout_at(deadline, read_header(&mut incoming.stream)).await;
        decode(&read.map_err(|_| Unintroduced::TimedOut(self.patience))??)
    }

    fn tell(&self, balancer: IpAddr, reason: &Unintroduced) {
        if !matches!(reason, Unintroduced::Silent)
            && let Some(left_out) = self.log.line(balancer)
        {
            tracing::warn!(%balancer, %reason, left_out, "connection from a balancer closed");
        } else {
            tracing::debug!(%balancer, %reason, "connection from a balancer closed");
        }
    }
}

/// Reads exactly one header.
async fn read_header(stream: &mut TcpStream) -> Result<Vec<u8>, Unintroduced> {
    if stream.peek(&mut [0]).await? == 0 {
        return Err(Unintroduced::Silent);
    }
    let mut header = vec![0; FIXED_BYTES];
    stream.read_exact(&mut header).await?;
    match Header::try_from(header.as_slice()) {
        Err(ParseError::Partial(_, rest)) if rest > REST_BYTES_MAX => return Err(Unintroduced::TooLong(rest)),
        Err(ParseError::Partial(_, rest)) => {
            header.resize(FIXED_BYTES + rest, 0);
            stream.read_exact(header.split_at_mut(FIXED_BYTES).1).await?;
        }
        // Whole, or wrong; the caller finds out which.
        _ => {}
    }
    Ok(header)
}

/// The ends that a whole header names; `None` for a connection of the balancer's own. TLVs are left alone.
fn decode(header: &[u8]) -> Result<Option<Ends>, Unintroduced> {
    let header = Header::try_from(header).map_err(Unintroduced::NoHeader)?;
    let (source, destination): (SocketAddr, SocketAddr) = match (header.command, header.protocol, header.addresses) {
        (Command::Local, _, _) => return Ok(None),
        (Command::Proxy, Protocol::Stream, Addresses::IPv4(ends)) => {
            ((ends.source_address, ends.source_port).into(), (ends.destination_address, ends.destination_port).into())
        }
        (Command::Proxy, Protocol::Stream, Addresses::IPv6(ends)) => {
            ((ends.source_address, ends.source_port).into(), (ends.destination_address, ends.destination_port).into())
        }
        (Command::Proxy, _, _) => return Err(Unintroduced::NoTcp),
    };
    Ok(Some(Ends { source: canonical(source), destination: canonical(destination) }))
}

#[cfg(test)]
mod tests;
