//! Ports as an operator meets them.

use std::net::{Ipv4Addr, Ipv6Addr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::*;
use crate::shutdown::{Drained, Tasks};

const PATIENCE: Duration = Duration::from_secs(20);

fn wanted(port: u16) -> PortWanted {
    PortWanted { purpose: "mqtts", port, explicit: true }
}

fn binder(addresses: &[&str]) -> Binder {
    Binder { addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(), strict: false }
}

/// Starts `listener` and gives what it accepts.
fn start(listener: Listener, tasks: &Tasks) -> (RunningListener, mpsc::UnboundedReceiver<Incoming>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let running = listener.start(tasks, move |incoming| {
        let _ = sender.send(incoming);
        async {}
    });
    (running.expect("a running listener"), receiver)
}

async fn next(accepted: &mut mpsc::UnboundedReceiver<Incoming>) -> Incoming {
    tokio::time::timeout(PATIENCE, accepted.recv()).await.expect("in time").expect("the listener runs")
}

#[tokio::test]
async fn one_port_serves_every_loopback_address_and_tells_them_apart() {
    let tasks = Tasks::new();
    let listener = binder(&["127.0.0.1", "127.0.0.2"]).bind(wanted(0)).unwrap();
    assert_ne!(listener.port(), 0);
    let (running, mut accepted) = start(listener, &tasks);
    running.cover("127.0.0.3".parse().unwrap()).expect("a hub made at run time");
    for host in ["127.0.0.1", "127.0.0.2", "127.0.0.3"] {
        let dialled = SocketAddr::new(host.parse().unwrap(), running.port());
        let client = TcpStream::connect(dialled).await.unwrap();
        let incoming = next(&mut accepted).await;
        assert_eq!((incoming.dialled, incoming.peer), (dialled, client.local_addr().unwrap()));
        assert!(incoming.stream.nodelay().unwrap(), "inherited from the listening socket");
    }
}

#[tokio::test]
async fn where_the_device_cannot_be_had_each_address_has_its_socket() {
    let tasks = Tasks::new();
    let first = bind_address("mqtts", Ipv4Addr::LOCALHOST.into(), 0).unwrap();
    let port = first.port("mqtts").unwrap();
    let listener = Listener { purpose: "mqtts", port, sockets: vec![first], notice: None, limit: None };
    let (running, mut accepted) = start(listener, &tasks);
    let second = SocketAddr::from(([127, 0, 0, 2], port));
    assert!(TcpStream::connect(second).await.is_err());
    running.serve(bind_address("mqtts", second.ip(), port).unwrap()).unwrap();
    let _client = TcpStream::connect(second).await.expect("bound on return");
    assert_eq!(next(&mut accepted).await.dialled, second);
}

#[tokio::test]
async fn both_families_are_served_and_mapped_addresses_are_ipv4() {
    let tasks = Tasks::new();
    let (running, mut accepted) = start(binder(&["::"]).bind(wanted(0)).unwrap(), &tasks);
    let cases = [IpAddr::from(Ipv6Addr::LOCALHOST), Ipv4Addr::LOCALHOST.into()];
    for address in cases {
        let dialled = SocketAddr::new(address, running.port());
        let _client = TcpStream::connect(dialled).await.unwrap();
        let incoming = next(&mut accepted).await;
        assert_eq!((incoming.dialled, incoming.peer.ip()), (dialled, address));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_port_in_use_is_an_error_that_names_the_holder() {
    for held in ["127.0.0.1:0", "0.0.0.0:0"] {
        let holder = TcpListener::bind(held).unwrap();
        let port = holder.local_addr().unwrap().port();
        let error = binder(&["127.0.0.1"]).bind(wanted(port)).expect_err(held);
        assert!(matches!(error, BindError::InUse { port: in_error, .. } if in_error == port), "{error:?}");
        let text = error.to_string();
        let expected = format!("port {port} (mqtts) on 127.0.0.1 is in use by ");
        assert!(text.starts_with(&expected), "{text}");
        assert!(text.contains(&format!("(process {})", std::process::id())), "{text}");
        assert!(text.ends_with("give another port with --mqtts-port"), "{text}");
    }
}

#[test]
fn two_instances_cannot_share_a_port() {
    let first = binder(&["127.0.0.1"]).bind(wanted(0)).unwrap();
    let second = binder(&["127.0.0.1"]).bind(wanted(first.port()));
    assert!(matches!(second, Err(BindError::InUse { .. })), "{second:?}");
}

#[test]
fn a_port_that_needs_a_privilege_is_replaced_only_where_that_was_allowed() {
    let cases = [
        ("a default port", 443, false, false, true),
        ("a port that was asked for", 443, true, false, false),
        ("a strict start", 443, false, true, false),
        ("a default port above the limit", 8883, false, false, false),
    ];
    for (case, port, explicit, strict, expected) in cases {
        let binder = Binder { strict, ..binder(&["127.0.0.1"]) };
        assert_eq!(binder.may_replace(PortWanted { purpose: "https", port, explicit }), expected, "{case}");
    }
    let denied = refusal("https", Ipv4Addr::LOCALHOST.into(), 443, io::ErrorKind::PermissionDenied.into());
    let text = denied.to_string();
    assert!(text.contains("sudo sysctl net.ipv4.ip_unprivileged_port_start=443"), "{text}");
}

#[test]
fn an_address_of_another_machine_is_named() {
    // TEST-NET-1 (RFC 5737).
    let error = binder(&["192.0.2.1"]).bind(wanted(0)).expect_err("no such address").to_string();
    assert_eq!(error, "192.0.2.1 is not an address of this machine, so mqtts cannot listen there");
}

#[tokio::test]
async fn a_drain_closes_the_port() {
    let tasks = Tasks::new();
    let (running, _accepted) = start(binder(&["127.0.0.1"]).bind(wanted(0)).unwrap(), &tasks);
    let address = SocketAddr::from(([127, 0, 0, 1], running.port()));
    TcpStream::connect(address).await.expect("open");
    assert_eq!(tasks.drain(PATIENCE).await, Drained::Finished);
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_connection_that_panics_ends_alone() {
    let tasks = Tasks::new();
    let listener = binder(&["127.0.0.1"]).bind(wanted(0)).unwrap();
    let running = listener
        .start(&tasks, |mut incoming| async move {
            let mut byte = [0];
            incoming.stream.read_exact(&mut byte).await.unwrap();
            assert_ne!(byte, [0], "on purpose");
            incoming.stream.write_all(&byte).await.unwrap();
        })
        .unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], running.port()));
    for (sent, answered) in [(0, false), (1, true)] {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(&[sent]).await.unwrap();
        assert_eq!(client.read_exact(&mut [0]).await.is_ok(), answered);
    }
}
