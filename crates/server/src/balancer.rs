//! Connections through a balancer: whom they come from, by the header that the balancer writes before TLS.
//!
//! The header is the PROXY protocol's, version 2
//! (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>); a library decodes it. It is demanded of listed
//! balancers and taken from nobody else, since it names any address. Nothing behind it is read: that belongs to TLS.
//! Start reading at [`Balancers::introduce`].

mod header;

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::time::timeout_at;

use self::header::{Ends, Unreadable, decode, read_header};
use crate::listener::{Incoming, canonical};
use crate::log_budget::LogBudget;
use crate::names::Names;

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

/// Why a connection from a balancer is closed.
#[derive(Debug, thiserror::Error)]
enum Unintroduced {
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    #[error("no whole header within {0:?}")]
    TimedOut(Duration),
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
        let ends = decode(&read.map_err(|_| Unintroduced::TimedOut(self.patience))??)?;
        Ok(ends.map(|ends| Ends { source: canonical(ends.source), destination: canonical(ends.destination) }))
    }

    fn tell(&self, balancer: IpAddr, reason: &Unintroduced) {
        if !matches!(reason, Unintroduced::Unreadable(Unreadable::Silent))
            && let Some(left_out) = self.log.line(balancer)
        {
            tracing::warn!(%balancer, %reason, left_out, "connection from a balancer closed");
        } else {
            tracing::debug!(%balancer, %reason, "connection from a balancer closed");
        }
    }
}

#[cfg(test)]
#[path = "../../../fuzz/src/balancer_header.rs"]
mod balancer_header;
#[cfg(test)]
mod tests;
