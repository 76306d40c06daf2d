//! Ports: which sockets a port needs, what to say when it cannot be had, and the accept loop.
//!
//! On loopback one socket per port serves every address of `127.0.0.0/8`, where the kernel lets it be bound to the
//! device `lo`; elsewhere each address has its own. The address that a client dialled is kept, because it decides which
//! resource the connection belongs to. Nothing here reads from a connection. Start reading at [`Binder::bind`].

mod accept;
pub mod holder;
mod limit;

#[cfg(test)]
mod tests;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::net::TcpStream;
use tokio::time::Instant;

pub use self::accept::RunningListener;
pub(crate) use self::accept::canonical;
use self::holder::{Holder, find_holder};
pub use self::limit::ConnectionLimit;

/// Connections that the kernel keeps ready to be accepted; it may allow fewer.
const BACKLOG: i32 = 4_096;

/// Ports below this one may need a privilege.
const PRIVILEGED_BELOW: u16 = 1_024;

/// Tries at finding one free port that is free on every address.
const FREE_PORT_TRIES: usize = 32;

/// How long a connection may be silent before the kernel asks whether the peer is still there. MQTT clients may turn
/// their own keep-alive off.
const KEEPALIVE_AFTER: Duration = Duration::from_mins(2);

/// How long sent bytes may stay unacknowledged before the kernel gives the connection up.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_mins(2);

/// The device that loopback addresses are reached through.
#[cfg(target_os = "linux")]
const LOOPBACK_DEVICE: &[u8] = b"lo";

/// A connection as accepted, before a byte was read.
#[derive(Debug)]
pub struct Incoming {
    /// The socket.
    pub stream: TcpStream,
    /// Where the peer comes from; IPv4-mapped addresses are given as IPv4.
    pub peer: SocketAddr,
    /// What the peer dialled; IPv4-mapped addresses are given as IPv4.
    pub dialled: SocketAddr,
    /// When the socket was accepted, from which every time-out before proof counts.
    pub accepted_at: Instant,
}

/// A port as asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortWanted {
    /// What the port is for, in messages and logs: `https`, `mqtts`, `amqps`, `admin`.
    pub purpose: &'static str,
    /// The number; 0 for any free one.
    pub port: u16,
    /// Whether the operator gave the number, so that no other will do.
    pub explicit: bool,
}

/// A port that had to be replaced, for the start-up panel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortNotice {
    /// What the port is for.
    pub purpose: &'static str,
    /// The number that needs a privilege.
    pub wanted: u16,
    /// The number taken instead.
    pub taken: u16,
    /// The one command that allows the wanted number.
    pub command: String,
}

/// Why a port cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else listens there.
    #[error("port {port} ({purpose}) on {address} is in use{}: stop it, or give another port with --{purpose}-port",
        .holder.as_ref().map(|holder| format!(" by {holder}")).unwrap_or_default())]
    InUse { purpose: &'static str, address: IpAddr, port: u16, holder: Option<Holder> },
    /// The port needs a privilege that this process has not.
    #[error("port {port} ({purpose}) needs a privilege: allow it once with `{}`, or give a port of {PRIVILEGED_BELOW} or \
             above with --{purpose}-port", allowing_command(*.port))]
    NotPermitted { purpose: &'static str, port: u16 },
    /// The address is none of this machine's.
    #[error("{address} is not an address of this machine, so {purpose} cannot listen there")]
    NoSuchAddress { purpose: &'static str, address: IpAddr },
    /// The operating system refused otherwise.
    #[error("cannot listen on {address} port {port} ({purpose})")]
    Io {
        purpose: &'static str,
        address: IpAddr,
        port: u16,
        #[source]
        source: io::Error,
    },
}

/// Binds ports the same way for every purpose.
#[derive(Clone, Debug)]
pub struct Binder {
    /// The addresses to listen on; never empty. Loopback ones share a socket where the kernel allows it.
    pub addresses: Vec<IpAddr>,
    /// Whether a port that needs a privilege is an error even where it is only the default.
    pub strict: bool,
}

/// A bound port that does not accept yet; clients that connect wait in the kernel's queue.
#[derive(Debug)]
pub struct Listener {
    purpose: &'static str,
    port: u16,
    sockets: Vec<BoundSocket>,
    notice: Option<PortNotice>,
    limit: Option<Arc<ConnectionLimit>>,
}

#[derive(Debug)]
struct BoundSocket {
    socket: TcpListener,
    reach: Reach,
}

/// What one socket can be dialled by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// Every IPv4 loopback address.
    LoopbackDevice,
    /// One address, or all of them if it is unspecified.
    Address(IpAddr),
}

impl Reach {
    fn covers(self, address: IpAddr) -> bool {
        match self {
            Self::LoopbackDevice => matches!(address, IpAddr::V4(address) if address.is_loopback()),
            Self::Address(own) => {
                let any_of_family = own.is_unspecified() && (own.is_ipv6() || address.is_ipv4());
                own == address || any_of_family
            }
        }
    }

    fn address(self) -> IpAddr {
        match self {
            Self::LoopbackDevice => Ipv4Addr::LOCALHOST.into(),
            Self::Address(address) => address,
        }
    }
}

impl Binder {
    /// Binds `wanted` on every address, or on none.
    ///
    /// A default port below 1024 that needs a privilege is replaced by a free one, which [`Listener::notice`] tells.
    pub fn bind(&self, wanted: PortWanted) -> Result<Listener, BindError> {
        match self.bind_all(wanted.purpose, wanted.port) {
            Err(BindError::NotPermitted { purpose, port }) if self.may_replace(wanted) => {
                let mut listener = self.bind_all(purpose, 0)?;
                let (taken, command) = (listener.port, allowing_command(port));
                listener.notice = Some(PortNotice { purpose, wanted: port, taken, command });
                Ok(listener)
            }
            bound => bound,
        }
    }

    fn may_replace(&self, wanted: PortWanted) -> bool {
        !wanted.explicit && !self.strict && wanted.port < PRIVILEGED_BELOW
    }

    /// With port 0, the first address chooses and the others must follow; if one cannot, another port is tried.
    fn bind_all(&self, purpose: &'static str, port: u16) -> Result<Listener, BindError> {
        let mut tries = if port == 0 { FREE_PORT_TRIES } else { 1 };
        loop {
            tries -= 1;
            match self.bind_once(purpose, port) {
                Err(BindError::InUse { .. }) if tries > 0 => {}
                outcome => return outcome,
            }
        }
    }

    fn bind_once(&self, purpose: &'static str, port: u16) -> Result<Listener, BindError> {
        let mut listener = Listener { purpose, port, sockets: Vec::new(), notice: None, limit: None };
        for &address in &self.addresses {
            if !listener.sockets.iter().any(|bound| bound.reach.covers(address)) {
                let bound = bind_reaching(purpose, address, listener.port)?;
                listener.port = bound.port(purpose)?;
                listener.sockets.push(bound);
            }
        }
        Ok(listener)
    }
}

impl Listener {
    /// The port number; the same on every address.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Holds the port to `limit`, which other ports may share.
    pub fn limited(self, limit: &Arc<ConnectionLimit>) -> Self {
        Self { limit: Some(Arc::clone(limit)), ..self }
    }

    /// What the operator should be told, if the port is not the one wanted.
    pub fn notice(&self) -> Option<&PortNotice> {
        self.notice.as_ref()
    }
}

impl BoundSocket {
    fn port(&self, purpose: &'static str) -> Result<u16, BindError> {
        let address = self.reach.address();
        let local = self.socket.local_addr();
        local.map(|local| local.port()).map_err(|source| BindError::Io { purpose, address, port: 0, source })
    }
}

/// The command that lets every program bind `port` and above.
fn allowing_command(port: u16) -> String {
    format!("sudo sysctl net.ipv4.ip_unprivileged_port_start={port}")
}

/// Binds `address`, as part of the loopback device if it is IPv4 loopback and the kernel allows it.
fn bind_reaching(purpose: &'static str, address: IpAddr, port: u16) -> Result<BoundSocket, BindError> {
    let shared = matches!(address, IpAddr::V4(address) if address.is_loopback());
    if shared && let Some(socket) = loopback_device_socket() {
        let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        let reach = Reach::LoopbackDevice;
        return listen(socket, everywhere)
            .map(|socket| BoundSocket { socket, reach })
            .map_err(|source| refusal(purpose, address, port, source));
    }
    bind_address(purpose, address, port)
}

fn bind_address(purpose: &'static str, address: IpAddr, port: u16) -> Result<BoundSocket, BindError> {
    let family = if address.is_ipv6() { Domain::IPV6 } else { Domain::IPV4 };
    let reach = Reach::Address(address);
    Socket::new(family, Type::STREAM, Some(Protocol::TCP))
        .and_then(|socket| {
            if address.is_ipv6() && address.is_unspecified() {
                // All addresses of both families; peers on IPv4 appear as IPv4.
                socket.set_only_v6(false)?;
            }
            listen(socket, SocketAddr::new(address, port))
        })
        .map(|socket| BoundSocket { socket, reach })
        .map_err(|source| refusal(purpose, address, port, source))
}

/// A socket tied to the loopback device. Tying needs no privilege since Linux 5.7; `None` where it cannot be had.
#[cfg(target_os = "linux")]
fn loopback_device_socket() -> Option<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).ok()?;
    socket.bind_device(Some(LOOPBACK_DEVICE)).ok()?;
    Some(socket)
}

#[cfg(not(target_os = "linux"))]
fn loopback_device_socket() -> Option<Socket> {
    None
}

/// Accepted sockets inherit the options, which saves a system call for each option and connection.
fn listen(socket: Socket, address: SocketAddr) -> io::Result<TcpListener> {
    // Connections of an earlier run that linger must not keep the port.
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE_AFTER))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn refusal(purpose: &'static str, address: IpAddr, port: u16, source: io::Error) -> BindError {
    match source.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse { purpose, address, port, holder: find_holder(port) },
        io::ErrorKind::PermissionDenied => BindError::NotPermitted { purpose, port },
        io::ErrorKind::AddrNotAvailable => BindError::NoSuchAddress { purpose, address },
        _ => BindError::Io { purpose, address, port, source },
    }
}
