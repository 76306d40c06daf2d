//! Headers as balancers write them, and as nobody should.

use std::net::Ipv4Addr;

use std::net::SocketAddr;

use ppp::v2::{Builder, Command, Protocol, Type, Version};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::header::REST_BYTES_MAX;
use super::*;
use crate::names::{CertificateNames, NameTable};

const PATIENCE: Duration = Duration::from_secs(20);
const SOURCE: &str = "203.0.113.7:40000";
const HANDED_OUT: &str = "127.0.0.2";

/// What two ends of a connection say, in a header for `protocol`.
fn header(protocol: Protocol, source: &str, destination: &str) -> Builder {
    let ends: (SocketAddr, SocketAddr) = (source.parse().unwrap(), destination.parse().unwrap());
    Builder::with_addresses(Version::Two | Command::Proxy, protocol, ends)
}

fn built(builder: Builder) -> Vec<u8> {
    builder.build().unwrap()
}

fn balancers(listed: &[&str], patience: Duration) -> Balancers {
    let names = |name: &str| CertificateNames::new([name]).unwrap();
    let table = NameTable::new(names("localhost")).with_address(HANDED_OUT.parse().unwrap(), names(HANDED_OUT));
    let listed = listed.iter().map(|text| text.parse().unwrap()).collect();
    Balancers::new(listed, Arc::new(Names::new(table)), patience)
}

/// A connection over which `said` was sent, the client's end of it, and where it went.
async fn connection(said: &[u8]) -> (Incoming, TcpStream, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let dialled = listener.local_addr().unwrap();
    let mut client = TcpStream::connect(dialled).await.unwrap();
    client.write_all(said).await.unwrap();
    let (stream, peer) = listener.accept().await.unwrap();
    (Incoming { stream, peer, dialled, accepted_at: Instant::now() }, client, dialled)
}

#[test]
fn balancers_are_addresses_and_prefixes() {
    let cases: &[(&str, Result<&str, InvalidBalancer>)] = &[
        ("10.0.0.7", Ok("10.0.0.7/32")),
        ("10.0.0.0/8", Ok("10.0.0.0/8")),
        ("2001:db8::1", Ok("2001:db8::1/128")),
        ("2001:db8::/32", Ok("2001:db8::/32")),
        ("::ffff:10.0.0.7", Ok("10.0.0.7/32")),
        ("::ffff:10.0.0.0/104", Err(InvalidBalancer::Mapped)),
        ("10.0.0.0/33", Err(InvalidBalancer::NoPrefix)),
        ("lb.example.org", Err(InvalidBalancer::NoPrefix)),
        ("", Err(InvalidBalancer::NoPrefix)),
    ];
    for (text, expected) in cases {
        let parsed = text.parse::<Balancer>().map(|balancer| balancer.to_string());
        assert_eq!(parsed, expected.map(str::to_owned), "{text}");
    }
    let behind = balancers(&["10.0.0.0/8", "2001:db8::/32"], PATIENCE);
    let listed =
        ["10.1.2.3", "11.0.0.1", "2001:db8::9", "2001:db9::9"].map(|text| behind.is_listed(text.parse().unwrap()));
    assert_eq!(listed, [true, false, true, false]);
}

#[tokio::test]
async fn a_header_is_read_to_its_end_and_no_further() {
    let elsewhere = "198.51.100.1:8883";
    let long = vec![0; REST_BYTES_MAX - 12 - 3];
    let tlvs = header(Protocol::Stream, SOURCE, elsewhere).write_tlv(Type::NoOp, &long).unwrap();
    let handed_out = format!("{HANDED_OUT}:8883");
    let local = || Builder::new(Version::Two | Command::Local, 0);
    // The peer and the dialled address; `None` leaves what the socket says.
    let cases: &[(&str, Vec<u8>, Option<&str>, Option<&str>)] = &[
        ("IPv4", built(header(Protocol::Stream, SOURCE, elsewhere)), Some(SOURCE), None),
        ("as many TLVs as are taken", built(tlvs), Some(SOURCE), None),
        (
            "to an address handed out",
            built(header(Protocol::Stream, SOURCE, &handed_out)),
            Some(SOURCE),
            Some(&handed_out),
        ),
        ("IPv6", built(header(Protocol::Stream, "[2001:db8::9]:1", "[2001:db8::1]:2")), Some("[2001:db8::9]:1"), None),
        (
            "IPv4-mapped",
            built(header(Protocol::Stream, "[::ffff:203.0.113.7]:40000", "[::ffff:127.0.0.2]:8883")),
            Some(SOURCE),
            Some(&handed_out),
        ),
        ("a health check", built(local()), None, None),
        ("a health check with TLVs", built(local().write_tlv(Type::NoOp, &[1]).unwrap()), None, None),
    ];
    for (case, header, peer, dialled) in cases {
        let (incoming, client, server) = connection(&[header, b"hello".as_slice()].concat()).await;
        let introduced = balancers(&["127.0.0.1"], PATIENCE).introduce(incoming).await;
        let mut introduced = introduced.unwrap_or_else(|| panic!("{case}: not introduced"));
        let parsed = |text: &str| text.parse().unwrap();
        assert_eq!(introduced.peer, peer.map_or_else(|| client.local_addr().unwrap(), parsed), "{case}");
        assert_eq!(introduced.dialled, dialled.map_or(server, parsed), "{case}");
        let mut behind = [0; 5];
        introduced.stream.read_exact(&mut behind).await.unwrap();
        assert_eq!(&behind, b"hello", "{case}");
    }
}

#[tokio::test]
async fn of_others_nothing_is_read() {
    let said = built(header(Protocol::Stream, SOURCE, "198.51.100.1:8883"));
    for listed in [&[][..], &["127.0.0.2", "10.0.0.0/8"]] {
        let (incoming, client, dialled) = connection(&said).await;
        let mut incoming = balancers(listed, PATIENCE).introduce(incoming).await.expect("nothing is asked");
        assert_eq!((incoming.peer, incoming.dialled), (client.local_addr().unwrap(), dialled));
        let mut unread = vec![0; said.len()];
        incoming.stream.read_exact(&mut unread).await.unwrap();
        assert_eq!(unread, said);
    }
}

#[tokio::test]
async fn what_does_not_say_whom_it_comes_from_is_closed_with_the_reason() {
    let whole = built(header(Protocol::Stream, SOURCE, "198.51.100.1:8883"));
    let changed = |at: usize, to: u8| {
        let mut bytes = whole.clone();
        bytes[at] = to;
        bytes
    };
    let unspecified = built(Builder::new(Version::Two | Command::Proxy, 0));
    let too_long = header(Protocol::Stream, SOURCE, "198.51.100.1:8883").set_length(REST_BYTES_MAX as u16 + 1);
    let cases: &[(&str, Vec<u8>, &str)] = &[
        ("nothing", Vec::new(), "before the header"),
        (
            "a TLS hello",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 and more".to_vec(),
            "no header of PROXY protocol",
        ),
        ("version 1", b"PROXY TCP4 203.0.113.7 198.51.100.1 40000 8883\r\n".to_vec(), "no header of PROXY protocol"),
        ("another version", changed(12, 0x31), "version"),
        ("another command", changed(12, 0x22), "command"),
        ("another family", changed(13, 0x41), "Address Family"),
        ("another protocol", changed(13, 0x13), "protocol"),
        ("no room for the addresses", changed(15, 11), "cannot store"),
        ("UDP", built(header(Protocol::Datagram, SOURCE, "198.51.100.1:8883")), "names no TCP connection"),
        ("no addresses", unspecified, "names no TCP connection"),
        ("too long", built(too_long), "16 + 4097 bytes"),
        ("cut in the signature", whole[..8].to_vec(), "ended within the header"),
        ("cut in the addresses", whole[..20].to_vec(), "ended within the header"),
    ];
    for (case, said, expected) in cases {
        let (mut incoming, client, _) = connection(said).await;
        drop(client);
        let error = balancers(&["127.0.0.1"], PATIENCE).read_ends(&mut incoming).await.expect_err(case);
        assert!(error.to_string().contains(expected), "{case}: {error}");
    }
}

#[tokio::test]
async fn a_look_whether_the_port_is_open_is_none_of_the_logs_business_however_it_ends() {
    for resets in [false, true] {
        let (mut incoming, client, _) = connection(b"").await;
        if resets {
            socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        }
        drop(client);
        let error = balancers(&["127.0.0.1"], PATIENCE).read_ends(&mut incoming).await.expect_err("nothing is said");
        assert!(matches!(error, Unintroduced::Unreadable(Unreadable::Silent)), "{error}");
    }
}

#[tokio::test]
async fn a_header_is_awaited_since_the_connection_was_accepted() {
    let (mut incoming, _client, _) = connection(b"\r\n\r\n").await;
    incoming.accepted_at -= Duration::from_secs(10);
    let behind = balancers(&["127.0.0.1"], Duration::from_secs(10));
    let error = behind.read_ends(&mut incoming).await.expect_err("late");
    assert!(matches!(error, Unintroduced::TimedOut(_)), "{error}");
}

#[test]
fn the_corpus_of_balancer_header_holds() {
    crate::replay::replay("balancer_header", balancer_header::check);
}
