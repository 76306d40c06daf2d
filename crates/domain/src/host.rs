//! A host as clients name it: in the `Host` header, a target's authority, TLS's SNI and MQTT's user name.
//!
//! One spelling for what means the same: no port, lower case, no root dot, addresses as they are usually written. It never
//! says whose name it is; that is decided by the address that was dialled. Start at [`HostName::parse`].

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

/// A host name or an address literal, in the one spelling that is compared. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostName(Arc<str>);

/// Text that names no host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a host of at most {} characters with or without a port", HostName::CHARS_MAX)]
pub struct InvalidHostName;

impl HostName {
    /// Longest host; DNS allows 255 octets (RFC 1035, section 2.3.4).
    pub const CHARS_MAX: usize = 255;

    /// What a loopback address is called by whoever has no other name for it (RFC 6761, section 6.3).
    const LOOPBACK: &'static str = "localhost";

    /// Reads `host[:port]` (RFC 9110, section 7.2). An IPv6 address is in brackets; alone it may go without, as in user
    /// names and connection strings.
    pub fn parse(text: &str) -> Result<Self, InvalidHostName> {
        if let Ok(address) = text.parse() {
            return Ok(Self::literal(address));
        }
        if let Some((literal, port)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            let address: Ipv6Addr = literal.parse().map_err(|_| InvalidHostName)?;
            let is_port = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
            return if is_port { Ok(Self::literal(address.into())) } else { Err(InvalidHostName) };
        }
        let (host, port) = text.split_once(':').unwrap_or((text, ""));
        let host = host.strip_suffix('.').unwrap_or(host);
        let is_host = (1..=Self::CHARS_MAX).contains(&host.len()) && host.bytes().all(is_name_character);
        if !is_host || !is_port(port) {
            return Err(InvalidHostName);
        }
        Ok(host.parse().map_or_else(|_| Self(host.to_ascii_lowercase().into()), Self::literal))
    }

    fn literal(address: IpAddr) -> Self {
        Self(address.to_canonical().to_string().into())
    }

    /// The name, as the aliases of resources are written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it says no more than that `address` was dialled: its literal, or `localhost` for one of loopback.
    pub fn repeats(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        (self.is_localhost() && address.is_loopback()) || self.0.parse() == Ok(address)
    }

    /// Whether it is `localhost`, which names another machine to everybody.
    pub fn is_localhost(&self) -> bool {
        &*self.0 == Self::LOOPBACK
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// RFC 3986, section 3.2.3: the digits may be missing.
fn is_port(digits: &str) -> bool {
    digits.bytes().all(|byte| byte.is_ascii_digit()) && (digits.is_empty() || digits.parse::<u16>().is_ok())
}

/// RFC 3986, section 3.2.2: unreserved, percent-encoded or a delimiter.
const fn is_name_character(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'%')
        || matches!(byte, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_host_is_read_as_one() {
        let cases = [
            ("hub.example.org", "hub.example.org"),
            ("HUB.Example.org:443", "hub.example.org"),
            ("hub.example.org.", "hub.example.org"),
            ("hub.example.org.:8883", "hub.example.org"),
            ("hub.example.org:", "hub.example.org"),
            ("127.0.0.2", "127.0.0.2"),
            ("127.0.0.2:443", "127.0.0.2"),
            ("[2001:DB8:0::2]", "2001:db8::2"),
            ("[2001:db8::2]:443", "2001:db8::2"),
            ("2001:db8:0::2", "2001:db8::2"),
            ("[::ffff:127.0.0.2]:443", "127.0.0.2"),
            ("localhost:8443", "localhost"),
            ("a_b~c%20d", "a_b~c%20d"),
        ];
        for (text, expected) in cases {
            assert_eq!(HostName::parse(text).as_ref().map(HostName::as_str), Ok(expected), "{text}");
        }
    }

    #[test]
    fn text_that_names_no_host_is_refused() {
        let long = "a".repeat(HostName::CHARS_MAX + 1);
        let cases = [
            "",
            ".",
            ":",
            ":443",
            " ",
            "a b",
            "a/b",
            "user@hub",
            "https://hub",
            "hub:port",
            "hub:65536",
            "hub:1:2",
            "hub:+1",
            "[::1",
            "::1]",
            "[::1]443",
            "[::1]:x",
            "[127.0.0.1]",
            "[hub]",
            "h\u{fc}b",
            "hub\0",
            "hub\\",
            &long,
        ];
        for text in cases {
            assert_eq!(HostName::parse(text), Err(InvalidHostName), "{text:?}");
        }
        assert!(HostName::parse(&"a".repeat(HostName::CHARS_MAX)).is_ok());
    }

    #[test]
    fn a_literal_repeats_its_address_and_localhost_any_of_loopback() {
        let cases = [
            ("127.0.0.2:443", "127.0.0.2", true),
            ("127.0.0.2", "::ffff:127.0.0.2", true),
            ("127.0.0.2", "127.0.0.3", false),
            ("localhost", "127.0.0.9", true),
            ("LocalHost.:443", "::1", true),
            ("localhost", "192.0.2.1", false),
            ("localhost.example.org", "127.0.0.1", false),
            ("[::1]", "::1", true),
            ("hub.example.org", "127.0.0.1", false),
        ];
        for (text, address, expected) in cases {
            let repeats = HostName::parse(text).unwrap().repeats(address.parse().unwrap());
            assert_eq!(repeats, expected, "{text} {address}");
        }
    }
}
