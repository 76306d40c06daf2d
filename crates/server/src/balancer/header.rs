//! One header of the PROXY protocol, version 2: read to its last byte and no further, and decoded.
//!
//! Says what the balancer wrote, not whether it may be believed. Start reading at [`read_header`].

use std::io;
use std::net::SocketAddr;

use ppp::v2::{Addresses, Command, Header, ParseError, Protocol};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Bytes of every header: signature, version and command, family and protocol, length (section 2.2).
pub(super) const FIXED_BYTES: usize = 16;

/// Most bytes behind those: addresses take 216 at most, the rest are TLVs, of which a client certificate is the longest
/// that balancers send. Nothing of the connection is held beside it yet.
pub(super) const REST_BYTES_MAX: usize = 4_096;

/// The two ends of a connection as the balancer saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    pub source: SocketAddr,
    pub destination: SocketAddr,
}

/// Why what a balancer sent is no header that could be gone by.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("no header of PROXY protocol version 2: {0}")]
    NoHeader(ParseError),
    #[error("a header of {FIXED_BYTES} + {0} bytes, of which {FIXED_BYTES} + {REST_BYTES_MAX} are taken")]
    TooLong(usize),
    #[error("a header that names no TCP connection over IPv4 or IPv6")]
    NoTcp,
    #[error("the connection ended within the header: {0}")]
    Ended(#[from] io::Error),
    /// The usual way of looking whether a port is open.
    #[error("the connection ended before the header")]
    Silent,
}

/// Reads exactly one header.
pub(super) async fn read_header<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Vec<u8>, Unreadable> {
    let mut header = vec![0; FIXED_BYTES];
    // Whoever only looks whether a port is open may end by a reset, too.
    let read = stream.read(&mut header).await.unwrap_or(0);
    if read == 0 {
        return Err(Unreadable::Silent);
    }
    stream.read_exact(header.split_at_mut(read).1).await?;
    match Header::try_from(header.as_slice()) {
        Err(ParseError::Partial(_, rest)) if rest > REST_BYTES_MAX => return Err(Unreadable::TooLong(rest)),
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
pub(super) fn decode(header: &[u8]) -> Result<Option<Ends>, Unreadable> {
    let header = Header::try_from(header).map_err(Unreadable::NoHeader)?;
    let (source, destination) = match (header.command, header.protocol, header.addresses) {
        (Command::Local, _, _) => return Ok(None),
        (Command::Proxy, Protocol::Stream, Addresses::IPv4(ends)) => {
            ((ends.source_address, ends.source_port).into(), (ends.destination_address, ends.destination_port).into())
        }
        (Command::Proxy, Protocol::Stream, Addresses::IPv6(ends)) => {
            ((ends.source_address, ends.source_port).into(), (ends.destination_address, ends.destination_port).into())
        }
        (Command::Proxy, _, _) => return Err(Unreadable::NoTcp),
    };
    Ok(Some(Ends { source, destination }))
}
