//! Connections through a balancer: what is counted, decided or logged goes by the address behind it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use ppp::v2::{Builder, Command, Protocol, Version};
use proto::mqtt::{Packet, Refusal};
use rustls::pki_types::ServerName;
use server::balancer::Balancer;
use server::budget::BudgetSettings;
use server::serve::RimLimits;
use server::tls::TlsSettings;
use testkit::raw_mqtt::{Heard, PATIENCE, RawMqtt};
use testkit::whole::Muster;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::decisions::why;
use crate::ground::{DEVICE, ask, dial, enter, introduction, packet, refusal, telemetry, token, with_device};
use crate::logging::{listen, logged};

/// Where the balancer connects from.
const BALANCER: &str = "127.0.9.9";
/// Where clients connect from that need no balancer.
const ELSEWHERE: &str = "127.0.0.1";
/// Devices behind it.
const ONE: &str = "203.0.113.7:40000";
const ANOTHER: &str = "203.0.113.8:40000";
/// What devices dial, as far as nobody here knows.
const FRONT: &str = "198.51.100.1:8883";

/// A Muster behind [`BALANCER`].
async fn start(limits: RimLimits) -> Muster {
    let balancers = vec![BALANCER.parse::<Balancer>().expect("an address")];
    Muster::start_behind(balancers, limits).await.expect("a server")
}

/// The header of a connection from `source`, which dialled `destination`.
fn proxied(source: &str, destination: &str) -> Vec<u8> {
    let ends: (SocketAddr, SocketAddr) =
        (source.parse().expect("a source"), destination.parse().expect("a destination"));
    Builder::with_addresses(Version::Two | Command::Proxy, Protocol::Stream, ends).build().expect("a header")
}

/// The header of the balancer's own health check.
fn local() -> Vec<u8> {
    Builder::new(Version::Two | Command::Local, 0).build().expect("a header")
}

/// A connection from `from` over which `said` was sent.
async fn knock(from: &str, to: (&str, u16), said: &[u8]) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::new(from.parse().expect("an address"), 0)).expect("a loopback address");
    let to = SocketAddr::new(to.0.parse().expect("an address"), to.1);
    let mut stream = socket.connect(to).await.expect("the kernel accepts");
    stream.write_all(said).await.expect("room");
    stream
}

/// A handshake with what the certificate must call `name`, over `stream`.
async fn secure(muster: &Muster, name: &str, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    TlsConnector::from(muster.trust(None).expect("trust")).connect(name, stream).await
}

/// A connection to the hub's MQTT port, through the balancer, which says `header`.
async fn hub_behind(muster: &Muster, header: &[u8]) -> io::Result<TlsStream<TcpStream>> {
    let host = &muster.hub.host;
    secure(muster, host, knock(BALANCER, (host, muster.mqtts_port()), header).await).await
}

/// Waits until the server has closed `stream` without a word.
async fn closed(mut stream: TcpStream) {
    let mut nothing = Vec::new();
    // A reset is what a server's end looks like that has left something unread.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut nothing)).await.expect("closed");
    assert!(nothing.is_empty(), "{nothing:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_proofs_are_counted_for_the_address_behind_the_balancer() {
    let muster = start(RimLimits { failed_proofs_per_min: 2, ..RimLimits::default() }).await;
    let stranger = token(&muster, &format!("{}%2Fdevices%2Fnobody", muster.hub.host));
    let cases = [
        (proxied(ONE, FRONT), Refusal::NotAuthorized),
        (proxied(ONE, FRONT), Refusal::NotAuthorized),
        (proxied(ONE, FRONT), Refusal::ServerUnavailable),
        (proxied("[::ffff:203.0.113.7]:1", "[::ffff:198.51.100.1]:1"), Refusal::ServerUnavailable),
        (proxied(ANOTHER, FRONT), Refusal::NotAuthorized),
        (local(), Refusal::NotAuthorized),
    ];
    for (header, expected) in cases {
        let client = RawMqtt::new(hub_behind(&muster, &header).await.expect("a handshake"));
        assert_eq!(refusal(client, &muster, "nobody", &stranger).await, expected, "{header:?}");
    }
    muster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_are_counted_for_the_address_behind_the_balancer_and_not_for_the_balancer() {
    let handshake_budget =
        BudgetSettings { per_minute: 1, burst: 2, includes_loopback: true, ..BudgetSettings::default() };
    let tls = TlsSettings { handshake_budget, ..TlsSettings::default() };
    let muster = start(RimLimits { tls, ..RimLimits::default() }).await;
    let cases = [
        (proxied(ONE, FRONT), true),
        (proxied(ONE, FRONT), true),
        (proxied(ONE, FRONT), false),
        (proxied(ANOTHER, FRONT), true),
        (local(), true),
    ];
    for (number, (header, expected)) in cases.iter().enumerate() {
        assert_eq!(hub_behind(&muster, header).await.is_ok(), *expected, "connection {number}");
    }
    muster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_from_anybody_else_is_no_hello() {
    let muster = start(RimLimits::default()).await;
    let (host, header) = (muster.hub.host.clone(), proxied(ONE, FRONT));
    let to = (host.as_str(), muster.mqtts_port());
    assert!(secure(&muster, &host, knock(ELSEWHERE, to, &header).await).await.is_err());
    secure(&muster, &host, knock(ELSEWHERE, to, &[]).await).await.expect("a handshake without a header");
    muster.stop().await;
    let alone = Muster::start().await.expect("a server");
    assert!(hub_behind(&alone, &header).await.is_err());
    alone.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn decisions_and_the_log_name_the_address_behind_the_balancer() {
    listen();
    let muster = start(RimLimits::default()).await;
    let host = &muster.device_host;
    let cases = [("far", proxied(ONE, FRONT), "203.0.113.7"), ("checked", local(), BALANCER)];
    for (id, header, expected) in cases {
        let stream = knock(BALANCER, (host, muster.https_port()), &header).await;
        let target = format!("/{}/registrations/{id}/register?api-version=2019-03-31", muster.id_scope);
        let stream = secure(&muster, host, stream).await.expect("a handshake");
        assert_eq!(ask(stream, ("PUT", &target), host, None).await.status, 401, "{id}");
        assert_eq!(why(&muster, id).await["peer"], expected, "{id}");
    }
    let mut foreign = RawMqtt::new(hub_behind(&muster, &proxied(ONE, FRONT)).await.expect("a handshake"));
    foreign.send(b"GET / HTTP/1.1\r\n\r\n").await;
    assert_eq!(foreign.hear().await, Heard::Closed);
    muster.stop().await;
    let log = logged();
    assert!(log.contains("MQTT connection refused or misused peer=203.0.113.7 reason="), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_address_that_the_device_dialled_decides_where_it_is_handed_out() {
    let muster = with_device(start(RimLimits::default()).await).await;
    let (hub, devices) = (muster.hub.host.clone(), muster.device_host.clone());
    let cases = [
        ("the balancer sends everything to one address", devices.as_str(), format!("{hub}:8883")),
        ("nobody was given the address that was dialled", hub.as_str(), FRONT.to_owned()),
    ];
    for (case, reached, destination) in cases {
        let stream = knock(BALANCER, (reached, muster.mqtts_port()), &proxied(ONE, &destination)).await;
        // The certificate is the hub's, and so is the answer.
        let mut client = RawMqtt::new(secure(&muster, &hub, stream).await.expect(case));
        client.say(&Packet::Connect(Box::new(introduction(&muster)))).await;
        let accepted = proto::mqtt::Connack::Accepted { session_present: false };
        assert_eq!(client.hear().await, Heard::Packet(Packet::Connack(accepted)), "{case}");
    }
    let stream = knock(BALANCER, (&hub, muster.mqtts_port()), &proxied(ONE, &format!("{devices}:8883"))).await;
    let client = RawMqtt::new(secure(&muster, &devices, stream).await.expect("the common endpoint's certificate"));
    let good = token(&muster, &format!("{hub}%2Fdevices%2F{DEVICE}"));
    assert_eq!(refusal(client, &muster, DEVICE, &good).await, Refusal::NotAuthorized, "no hub is there");
    muster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_balancer_that_does_not_say_whom_it_brings_is_closed_and_disturbs_nobody() {
    listen();
    let muster = with_device(start(RimLimits::default()).await).await;
    let mut seated = enter(&muster, introduction(&muster)).await;
    for port in [muster.https_port(), muster.mqtts_port(), muster.admin_port()] {
        let stream = knock(BALANCER, (&muster.device_host, port), &[]).await;
        assert!(secure(&muster, &muster.device_host, stream).await.is_err(), "a hello without a header");
    }
    let datagram: (SocketAddr, SocketAddr) = (ONE.parse().expect("an address"), FRONT.parse().expect("an address"));
    let datagram = Builder::with_addresses(Version::Two | Command::Proxy, Protocol::Datagram, datagram);
    let endless = Builder::new(Version::Two | Command::Local, 0).set_length(u16::MAX);
    let cases = [
        b"PROXY TCP4 203.0.113.7 198.51.100.1 40000 8883\r\n".to_vec(),
        datagram.build().expect("a header"),
        endless.build().expect("a header"),
    ];
    for said in cases {
        closed(knock(BALANCER, (&muster.hub.host, muster.mqtts_port()), &said).await).await;
    }
    let mut cut = knock(BALANCER, (&muster.hub.host, muster.mqtts_port()), &proxied(ONE, FRONT)[..20]).await;
    cut.shutdown().await.expect("nothing more");
    closed(cut).await;

    seated.say(&telemetry(Some(1), "on")).await;
    assert_eq!(seated.hear().await, Heard::Packet(Packet::Puback(Some(packet(1)))));
    let _also = dial(&muster).await;
    muster.stop().await;
    let log = logged();
    for reason in [
        "no header of PROXY protocol version 2",
        "a header that names no TCP connection over IPv4 or IPv6",
        "a header of 16 + 65535 bytes",
        "the connection ended within the header",
    ] {
        let expected = format!("connection from a balancer closed balancer={BALANCER} reason={reason}");
        assert!(log.contains(&expected), "{expected} is not in:\n{log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_says_no_more_is_given_up_in_the_header_and_in_the_handshake() {
    let tls = TlsSettings { handshake_timeout: Duration::from_secs(2), ..TlsSettings::default() };
    let muster = start(RimLimits { tls, ..RimLimits::default() }).await;
    let whole = proxied(ONE, FRONT);
    let to = (muster.hub.host.as_str(), muster.mqtts_port());
    let mut knocked = Vec::new();
    for said in [&[][..], &whole[..5], &whole[..20], &whole] {
        knocked.push(knock(BALANCER, to, said).await);
    }
    for stream in knocked {
        closed(stream).await;
    }
    muster.stop().await;
}
