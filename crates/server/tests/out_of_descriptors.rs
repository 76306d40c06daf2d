//! A listener without file descriptors waits and goes on. Alone in its process, whose limit it changes.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use server::listener::{Binder, PortWanted};
use server::shutdown::{Drained, Tasks};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);

/// Time for the accept loop to fail a few times; that it does not end can only be seen afterwards.
const LONG_ENOUGH_TO_TRY: Duration = Duration::from_millis(100);

/// Lets the process keep what it has open, and open nothing more.
fn forbid_new_descriptors() {
    let lowest_free = File::open("/dev/null").expect("a descriptor").as_raw_fd() as u64;
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(lowest_free), maximum }).expect("lowering is allowed");
}

#[tokio::test]
async fn connections_that_found_no_descriptor_are_served_when_some_come_free() {
    let tasks = Tasks::new();
    let binder = Binder { addresses: vec![Ipv4Addr::LOCALHOST.into()], strict: false };
    let listener = binder.bind(PortWanted { purpose: "test", port: 0, explicit: false }).expect("a port");
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, listener.port()));
    let given_up: Vec<TcpStream> = vec![connect(address).await, connect(address).await];
    let mut client = connect(address).await;
    forbid_new_descriptors();
    assert!(TcpStream::connect(address).await.is_err(), "the limit holds");

    listener
        .start(&tasks, |mut incoming| async move {
            let mut byte = [0];
            if incoming.stream.read_exact(&mut byte).await.is_ok() {
                let _ = incoming.stream.write_all(&byte).await;
            }
        })
        .expect("a listener");
    client.write_all(b"x").await.expect("the kernel queues it");
    let mut byte = [0];
    let unserved = timeout(LONG_ENOUGH_TO_TRY, client.read_exact(&mut byte)).await;
    assert!(unserved.is_err(), "there was a descriptor after all");
    drop(given_up);
    timeout(PATIENCE, client.read_exact(&mut byte)).await.expect("in time").expect("an answer");
    assert_eq!(byte, *b"x");
    assert_eq!(tasks.drain(PATIENCE).await, Drained::Finished);
}

async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.expect("a connection")
}
