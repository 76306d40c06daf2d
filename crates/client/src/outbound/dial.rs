//! Dialling: the address is looked at, then connected to, then TLS is spoken.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use domain::route::{Refusal, Url};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::{CONNECT_TIMEOUT, Outbound, Reach};

/// A connection, with TLS or without.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Why an address is not dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unreachable {
    /// Never.
    Forbidden,
    /// The server itself.
    Own,
    /// Not without the setting.
    Private,
    /// Not without TLS.
    Plain,
}

impl Reach {
    /// What is not encrypted stays within networks of one's own.
    fn judge(&self, address: SocketAddr, is_encrypted: bool) -> Result<(), Unreachable> {
        let ip = address.ip().to_canonical();
        let is_own = ip.is_loopback() || self.own_addresses.contains(&ip);
        if is_own && self.own_ports.contains(&address.port()) {
            return Err(Unreachable::Own);
        }
        match class(ip) {
            Class::Forbidden => Err(Unreachable::Forbidden),
            Class::Private if !self.private => Err(Unreachable::Private),
            Class::Public if !is_encrypted => Err(Unreachable::Plain),
            Class::Private | Class::Public => Ok(()),
        }
    }

    /// Whether a connection from `local` to `peer` leads to the server itself, which listens at every address of this
    /// machine: whoever dials one of them comes from that.
    fn leads_home(&self, local: SocketAddr, peer: SocketAddr) -> bool {
        let is_everywhere = self.own_addresses.iter().any(IpAddr::is_unspecified);
        is_everywhere && self.own_ports.contains(&peer.port()) && local.ip().to_canonical() == peer.ip().to_canonical()
    }
}

/// What kind of network an address belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// Where clouds keep what only the machine may ask for, link-local or not; and what is no address of a server.
    Forbidden,
    /// This machine or a network of one's own.
    Private,
    /// Any other.
    Public,
}

fn class(ip: IpAddr) -> Class {
    match ip {
        IpAddr::V4(ip) => class_v4(ip),
        IpAddr::V6(ip) => class_v6(ip),
    }
}

/// Where clouds keep, outside the link-local range, what only the machine may ask for: Oracle's, Alibaba's and Azure's;
/// Amazon's and Google's.
const METADATA_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(192, 0, 0, 192), Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16)];
const METADATA_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)];

fn class_v4(ip: Ipv4Addr) -> Class {
    let [first, second, third, _] = ip.octets();
    let is_no_server = ip.is_unspecified() || ip.is_broadcast() || ip.is_multicast() || first == 0 || first >= 240;
    if is_no_server || ip.is_link_local() || METADATA_V4.contains(&ip) {
        return Class::Forbidden;
    }
    // Addresses that carriers share (RFC 6598), of protocols (RFC 6890) and of test benches (RFC 2544).
    let is_of_somebody = (first == 100 && (64..128).contains(&second))
        || [first, second, third] == [192, 0, 0]
        || (first == 198 && matches!(second, 18 | 19));
    if ip.is_loopback() || ip.is_private() || is_of_somebody { Class::Private } else { Class::Public }
}

fn class_v6(ip: Ipv6Addr) -> Class {
    if ip.is_unspecified() || ip.is_multicast() || ip.is_unicast_link_local() || METADATA_V6.contains(&ip) {
        return Class::Forbidden;
    }
    if ip.is_loopback() || ip.is_unique_local() {
        return Class::Private;
    }
    match ip.segments() {
        // An address that leads to one of IPv4 is judged as that: translated (RFC 6052), 6to4 (RFC 3056), compatible
        // (RFC 4291, section 2.5.5.1).
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] | [0, 0, 0, 0, 0, 0, high, low] => {
            let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
            class_v4(Ipv4Addr::new(a, b, c, d))
        }
        // Translated within a network (RFC 8215), and local to a site (RFC 3879).
        [0x64, 0xff9b, 1, ..] | [0xfec0..=0xfeff, ..] => Class::Private,
        _ => Class::Public,
    }
}

impl Outbound {
    /// A connection to the server of `url`, with TLS if its scheme has it.
    pub(super) async fn dial(&self, url: &Url, authority: Option<&str>) -> Result<Box<dyn Stream>, Refusal> {
        let dialling = async {
            let stream = self.connect(url).await?;
            match url.is_encrypted() {
                true => self.secure(stream, &url.host, authority).await,
                false => Ok(Box::new(stream) as Box<dyn Stream>),
            }
        };
        timeout(CONNECT_TIMEOUT, dialling).await.unwrap_or_else(|_| {
            Err(Refusal::of_all(format!("no connection to {} port {} in time", url.host, url.port)))
        })
    }

    /// A connection without TLS.
    pub(super) async fn connect(&self, url: &Url) -> Result<TcpStream, Refusal> {
        let (host, port) = (url.host.as_str(), url.port);
        let found = tokio::net::lookup_host((host, port)).await;
        let found = found.map_err(|error| Refusal::of_all(format!("{host} has no address: {error}")))?;
        let mut refused = Refusal::of_all(format!("{host} has no address"));
        for address in found {
            if let Err(unreachable) = self.reach.judge(address, url.is_encrypted()) {
                refused = Refusal::of_all(words(unreachable, address));
                continue;
            }
            match TcpStream::connect(address).await {
                Ok(stream) if stream.local_addr().is_ok_and(|local| self.reach.leads_home(local, address)) => {
                    refused = Refusal::of_all(words(Unreachable::Own, address));
                }
                Ok(stream) => {
                    // Small messages are not to wait for each other; one that cannot be told so works as well.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Err(error) => refused = Refusal::of_all(format!("cannot connect to {host} port {port}: {error}")),
            }
        }
        Err(refused)
    }

    /// Speaks TLS over `stream` with the server called `host`.
    pub(super) async fn secure(
        &self,
        stream: impl Stream + 'static,
        host: &str,
        authority: Option<&str>,
    ) -> Result<Box<dyn Stream>, Refusal> {
        let config = self.roots.configure(authority).map_err(|error| Refusal::of_all(error.to_string()))?;
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| Refusal::of_all(format!("{host} is not a name that TLS knows")))?;
        let secured = TlsConnector::from(config).connect(name, stream).await;
        secured
            .map(|stream| Box::new(stream) as Box<dyn Stream>)
            .map_err(|error| Refusal::of_all(format!("TLS with {host} fails: {error}")))
    }
}

fn words(unreachable: Unreachable, address: SocketAddr) -> String {
    match unreachable {
        Unreachable::Forbidden => format!("{} is no address that is dialled", address.ip()),
        Unreachable::Own => format!("{address} is this server itself"),
        Unreachable::Private => {
            format!("{} is a private address: outbound.private = true lets it be dialled", address.ip())
        }
        Unreachable::Plain => format!("{} is a public address, which is not dialled without TLS", address.ip()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_judged_by_the_network_they_belong_to() {
        let cases = [
            ("93.184.216.34", Class::Public),
            ("127.0.0.1", Class::Private),
            ("10.1.2.3", Class::Private),
            ("172.16.0.1", Class::Private),
            ("192.168.1.1", Class::Private),
            ("100.64.0.1", Class::Private),
            ("100.128.0.1", Class::Public),
            ("169.254.169.254", Class::Forbidden),
            ("0.0.0.0", Class::Forbidden),
            ("0.1.2.3", Class::Forbidden),
            ("255.255.255.255", Class::Forbidden),
            ("224.0.0.1", Class::Forbidden),
            ("::1", Class::Private),
            ("fd00::1", Class::Private),
            ("fe80::1", Class::Forbidden),
            ("ff02::1", Class::Forbidden),
            ("::", Class::Forbidden),
            ("2606:2800:220:1::1", Class::Public),
            ("64:ff9b::a9fe:a9fe", Class::Forbidden),
            ("64:ff9b::a00:1", Class::Private),
            ("64:ff9b:1::1", Class::Private),
            ("2002:a9fe:a9fe::1", Class::Forbidden),
            ("2002:a00:1::1", Class::Private),
            ("2002:5db8:d822::1", Class::Public),
            ("::127.0.0.1", Class::Private),
            ("::169.254.169.254", Class::Forbidden),
            ("fec0::1", Class::Private),
            ("192.0.0.192", Class::Forbidden),
            ("192.0.0.8", Class::Private),
            ("100.100.100.200", Class::Forbidden),
            ("168.63.129.16", Class::Forbidden),
            ("168.63.129.17", Class::Public),
            ("198.18.0.1", Class::Private),
            ("198.20.0.1", Class::Public),
            ("fd00:ec2::254", Class::Forbidden),
            ("fd20:ce::254", Class::Forbidden),
        ];
        for (text, expected) in cases {
            assert_eq!(class(text.parse().unwrap()), expected, "{text}");
        }
    }

    #[test]
    fn nothing_private_is_dialled_unasked_and_the_server_itself_never() {
        let closed = Reach { own_ports: vec![8443], own_addresses: vec!["192.0.2.7".parse().unwrap()], private: false };
        let open = Reach { private: true, ..closed.clone() };
        let same = |outcome: Result<(), Unreachable>| (outcome, outcome, outcome);
        // Unasked; with the setting; with the setting, but without TLS.
        let cases = [
            ("192.0.2.1:443", (Ok(()), Ok(()), Err(Unreachable::Plain))),
            ("192.0.2.7:443", (Ok(()), Ok(()), Err(Unreachable::Plain))),
            ("192.0.2.7:8443", same(Err(Unreachable::Own))),
            ("127.0.0.9:8443", same(Err(Unreachable::Own))),
            ("[::ffff:127.0.0.1]:8443", same(Err(Unreachable::Own))),
            ("127.0.0.1:9000", (Err(Unreachable::Private), Ok(()), Ok(()))),
            ("[::ffff:10.0.0.1]:80", (Err(Unreachable::Private), Ok(()), Ok(()))),
            ("169.254.169.254:80", same(Err(Unreachable::Forbidden))),
        ];
        for (text, expected) in cases {
            let address = text.parse().unwrap();
            let judged = (closed.judge(address, true), open.judge(address, true), open.judge(address, false));
            assert_eq!(judged, expected, "{text}");
        }
    }

    #[test]
    fn a_server_that_listens_everywhere_knows_itself_at_each_address_of_the_machine() {
        let everywhere = Reach { private: true, own_ports: vec![443], own_addresses: vec!["0.0.0.0".parse().unwrap()] };
        let at_one = Reach { own_addresses: vec!["10.0.0.8".parse().unwrap()], ..everywhere.clone() };
        let cases = [
            ("10.0.0.7:50000", "10.0.0.7:443", true),
            ("[::ffff:10.0.0.7]:50000", "10.0.0.7:443", true),
            ("10.0.0.7:50000", "10.0.0.7:9000", false),
            ("10.0.0.7:50000", "10.0.0.9:443", false),
        ];
        for (local, peer, expected) in cases {
            let (local, peer) = (local.parse().unwrap(), peer.parse().unwrap());
            assert_eq!(
                (everywhere.leads_home(local, peer), at_one.leads_home(local, peer)),
                (expected, false),
                "{peer}"
            );
        }
    }
}
