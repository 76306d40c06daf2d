//! Handshakes over real sockets, by clients that rustls drives and by one hello written by hand.

mod client_certificates;
mod server_certificates;

use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::{ClientConfig, HandshakeKind, ProtocolVersion, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::*;
use crate::budget::BudgetSettings;
use crate::testing::{PATIENCE, TestRim, VERSIONS, shown};

#[tokio::test]
async fn clients_of_either_version_are_served_without_a_certificate() {
    let rim = TestRim::start();
    let expected = [ProtocolVersion::TLSv1_2, ProtocolVersion::TLSv1_3];
    for (version, expected) in VERSIONS.into_iter().zip(expected) {
        let mut client = rim.dial("127.0.0.2", &Arc::new(rim.client(version))).await.expect("a handshake");
        let mut connection = rim.outcome().await.expect("a handshake");
        assert_eq!(connection.stream.get_ref().1.protocol_version(), Some(expected));
        assert_eq!(connection.peer.chain, None);
        assert!(!connection.peer.resumed);
        client.write_all(b"ping").await.unwrap();
        let mut heard = [0; 4];
        connection.stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"ping");
    }
}

#[tokio::test]
async fn two_addresses_on_one_port_are_told_apart() {
    let rim = TestRim::start();
    let config = Arc::new(rim.client(&rustls::version::TLS13));
    for host in ["127.0.0.2", "127.0.0.3"] {
        let client = rim.dial(host, &config).await.expect("the certificate names the address");
        let connection = rim.outcome().await.unwrap();
        assert_eq!(connection.peer.dialled, rim.dialled(host));
        assert_eq!(connection.peer.address, client.get_ref().0.local_addr().unwrap());
        assert_eq!(connection.peer.server_name, None, "an address literal is no SNI");
    }
}

#[tokio::test]
async fn a_session_is_resumed_with_the_chain_of_its_first_handshake() {
    for version in VERSIONS {
        for shows_certificate in [false, true] {
            resume_once(version, shows_certificate).await;
        }
    }
}

async fn resume_once(version: &'static SupportedProtocolVersion, shows_certificate: bool) {
    let rim = TestRim::start();
    let (certificate, key) = client_certificates::self_signed("dev-1");
    let mut config = if shows_certificate {
        rim.client_showing(version, shown(vec![certificate], &key))
    } else {
        rim.client(version)
    };
    config.resumption = Resumption::in_memory_sessions(8);
    let config = Arc::new(config);
    let (first_kind, first) = talk_once(&rim, &config).await;
    let (second_kind, second) = talk_once(&rim, &config).await;
    assert_eq!(first_kind, Some(HandshakeKind::Full), "{version:?}");
    assert_eq!(second_kind, Some(HandshakeKind::Resumed), "{version:?}");
    assert!(!first.resumed && second.resumed, "{version:?}");
    assert_eq!(first.chain.is_some(), shows_certificate, "{version:?}");
    assert_eq!(first.chain, second.chain, "{version:?}");
}

/// Handshakes and exchanges a few bytes, so that the tickets of TLS 1.3 arrive.
async fn talk_once(rim: &TestRim, config: &Arc<ClientConfig>) -> (Option<HandshakeKind>, PeerContext) {
    let mut client = rim.dial("127.0.0.2", config).await.unwrap();
    let mut connection = rim.outcome().await.unwrap();
    connection.stream.write_all(b"hello").await.unwrap();
    connection.stream.shutdown().await.unwrap();
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"hello");
    (client.get_ref().1.handshake_kind(), connection.peer)
}

#[tokio::test]
async fn alpn_is_answered_on_http_ports_and_never_required() {
    use PortProtocol::{Http, Other};
    let cases = [
        ("both offered", Http, "http/1.1 h2", Some("h2")),
        ("only the old one", Http, "http/1.1", Some("http/1.1")),
        ("none of ours", Http, "mqtt", None),
        ("nothing offered", Http, "", None),
        ("a port without HTTP", Other, "h2 mqtt", None),
    ];
    for (case, protocol, offered, expected) in cases {
        let rim = TestRim::start_with(TlsSettings::default(), protocol);
        let mut config = rim.client(&rustls::version::TLS13);
        config.alpn_protocols = offered.split_whitespace().map(|name| name.as_bytes().to_vec()).collect();
        let client = rim.dial("127.0.0.2", &Arc::new(config)).await.expect(case);
        assert_eq!(client.get_ref().1.alpn_protocol(), expected.map(str::as_bytes), "{case}");
    }
}

/// A ClientHello of TLS 1.2 with two suites: ECDHE_RSA_WITH_AES_128_CBC_SHA256 and RSA_WITH_AES_128_GCM_SHA256.
const CBC_HELLO: &[u8] = &[
    0x16, 0x03, 0x01, 0x00, 0x4b, // handshake record
    0x01, 0x00, 0x00, 0x47, 0x03, 0x03, // ClientHello, TLS 1.2
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31,
    32,   // random
    0x00, // no session
    0x00, 0x04, 0xc0, 0x27, 0x00, 0x9c, // the suites
    0x01, 0x00, // no compression
    0x00, 0x1a, // extensions
    0x00, 0x0d, 0x00, 0x08, 0x00, 0x06, 0x04, 0x03, 0x04, 0x01, 0x08, 0x04, // signature schemes
    0x00, 0x0a, 0x00, 0x04, 0x00, 0x02, 0x00, 0x17, // P-256
    0x00, 0x0b, 0x00, 0x02, 0x01, 0x00, // uncompressed points
];

#[tokio::test]
async fn a_hello_with_refused_suites_only_is_answered_by_an_alert_and_told_to_the_log() {
    let rim = TestRim::start();
    let mut socket = TcpStream::connect(rim.dialled("127.0.0.2")).await.unwrap();
    socket.write_all(CBC_HELLO).await.unwrap();
    let mut reply = Vec::new();
    socket.read_to_end(&mut reply).await.unwrap();
    // A fatal alert: handshake_failure (RFC 5246, section 7.2.2).
    assert_eq!(reply, [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x28]);
    match rim.outcome().await {
        Err(HandshakeError::NoCommonSuite { offered }) => {
            assert_eq!(offered, "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256 TLS_RSA_WITH_AES_128_GCM_SHA256");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_is_not_tls_ends_its_own_connection_only() {
    let rim = TestRim::start();
    for garbage in [b"GET / HTTP/1.1\r\n\r\n".as_slice(), &[0x10, 0x0e, 0, 4, b'M'], &[0xff; 100], b""] {
        let mut socket = TcpStream::connect(rim.dialled("127.0.0.2")).await.unwrap();
        socket.write_all(garbage).await.unwrap();
        socket.shutdown().await.unwrap();
        assert!(matches!(rim.outcome().await, Err(HandshakeError::Tls(_))), "{garbage:?}");
    }
    rim.dial("127.0.0.2", &Arc::new(rim.client(&rustls::version::TLS13))).await.expect("others are served");
}

#[tokio::test]
async fn a_client_that_says_nothing_is_given_up() {
    let settings = TlsSettings { handshake_timeout: Duration::from_millis(50), ..TlsSettings::default() };
    let rim = TestRim::start_with(settings, PortProtocol::Other);
    let mut silent = TcpStream::connect(rim.dialled("127.0.0.2")).await.unwrap();
    assert!(matches!(rim.outcome().await, Err(HandshakeError::TimedOut(_))));
    assert_eq!(silent.read(&mut [0; 1]).await.unwrap(), 0, "the socket is closed");
}

#[tokio::test]
async fn the_time_out_counts_from_the_moment_the_socket_was_accepted() {
    let settings = TlsSettings { handshake_timeout: PATIENCE * 10, ..TlsSettings::default() };
    let acceptor = TlsAcceptor::new(Arc::clone(&TestRim::start().certificates), settings, PortProtocol::Other);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let _silent = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, peer) = listener.accept().await.unwrap();
    let (dialled, accepted_at) = (stream.local_addr().unwrap(), Instant::now() - settings.handshake_timeout);
    let outcome = acceptor.accept(Incoming { stream, peer, dialled, accepted_at });
    let outcome = tokio::time::timeout(PATIENCE, outcome).await.expect("its time is over");
    assert!(matches!(outcome, Err(HandshakeError::TimedOut(_))));
}

#[tokio::test]
async fn silent_sockets_keep_nobody_waiting() {
    let settings = TlsSettings { handshakes_max: 1, ..TlsSettings::default() };
    let rim = TestRim::start_with(settings, PortProtocol::Other);
    let mut silent = Vec::new();
    for _ in 0..8 {
        silent.push(TcpStream::connect(rim.dialled("127.0.0.2")).await.unwrap());
    }
    rim.dial("127.0.0.2", &Arc::new(rim.client(&rustls::version::TLS13))).await.expect("a handshake");
}

#[tokio::test]
async fn an_address_that_has_used_up_its_budget_is_turned_away() {
    let budget = BudgetSettings { per_minute: 60, burst: 1, concurrent: 8, includes_loopback: true };
    let settings = TlsSettings { handshake_budget: budget, ..TlsSettings::default() };
    let rim = TestRim::start_with(settings, PortProtocol::Other);
    let config = Arc::new(rim.client(&rustls::version::TLS13));
    rim.dial("127.0.0.2", &config).await.expect("the first is served");
    rim.outcome().await.expect("the first is served");
    assert!(rim.dial("127.0.0.2", &config).await.is_err());
    assert!(matches!(rim.outcome().await, Err(HandshakeError::OverBudget)));
}
