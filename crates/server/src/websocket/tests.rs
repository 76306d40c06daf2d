//! The byte stream against a WebSocket client that nobody here wrote (tungstenite, on a thread of its own).

use std::io::ErrorKind;
use std::net::TcpStream as BlockingStream;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio_tungstenite::tungstenite::WebSocket as Tungstenite;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role};

use super::frame::MESSAGE_BYTES_MAX;
use super::*;

type Peer = Tungstenite<BlockingStream>;

const PATIENCE: Duration = Duration::from_secs(20);

/// Our end of a connection whose other end follows `script`.
async fn pair(script: impl FnOnce(Peer) + Send + 'static) -> (WebSocketStream<TcpStream>, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let peer = spawn_blocking(move || {
        let stream = BlockingStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        script(Tungstenite::from_raw_socket(stream, Role::Client, None));
    });
    (WebSocketStream::new(listener.accept().await.unwrap().0, Vec::new()), peer)
}

/// Collects binary messages until there are `bytes` of payload.
fn collect(peer: &mut Peer, bytes: usize) -> Vec<u8> {
    let mut data = Vec::new();
    while data.len() < bytes {
        match peer.read().unwrap() {
            Message::Binary(payload) => data.extend_from_slice(&payload),
            other => panic!("{other:?}"),
        }
    }
    data
}

fn pattern(bytes: usize) -> Bytes {
    (0..bytes).map(|index| (index % 251) as u8).collect()
}

#[tokio::test]
async fn messages_of_any_size_pass_both_ways_as_one_stream() {
    const SIZES: [usize; 8] = [1, 125, 126, 1_000, 65_535, 65_536, 300_000, 7];
    let (mut ours, peer) = pair(|mut peer| {
        for size in SIZES {
            peer.send(Message::binary(pattern(size))).unwrap();
            assert_eq!(collect(&mut peer, size), pattern(size), "{size}");
        }
    })
    .await;
    for size in SIZES {
        let mut heard = vec![0; size];
        ours.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, pattern(size), "{size}");
        ours.write_all(&heard).await.unwrap();
        ours.flush().await.unwrap();
    }
    peer.await.unwrap();
    assert_eq!((ours.raw.capacity(), ours.out.capacity()), (0, 0), "no buffer is kept while idle");
}

#[tokio::test]
async fn bytes_read_together_with_the_upgrade_are_not_lost() {
    let (ours, _theirs) = tokio::io::duplex(64);
    let frame = vec![0x82, 0x82, 0, 0, 0, 0, b'h', b'i'];
    let mut stream = WebSocketStream::new(ours, frame);
    let mut heard = [0; 2];
    stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"hi");
}

#[tokio::test]
async fn pings_are_answered_while_reading() {
    let (mut ours, peer) = pair(|mut peer| {
        peer.send(Message::Ping(Bytes::from_static(b"here?"))).unwrap();
        assert_eq!(peer.read().unwrap(), Message::Pong(Bytes::from_static(b"here?")));
        peer.send(Message::binary("x")).unwrap();
    })
    .await;
    assert_eq!(ours.read_u8().await.unwrap(), b'x');
    peer.await.unwrap();
}

#[tokio::test]
async fn a_flood_of_pings_that_nobody_reads_the_answers_of_is_bounded() {
    let (client, server) = tokio::io::duplex(1_000);
    let mut ours = WebSocketStream::new(server, Vec::new());
    let (_unread, mut client) = tokio::io::split(client);
    let flood = async move {
        let ping = [&[0x89, 0xfd, 0, 0, 0, 0][..], &[7; 125]].concat();
        for _ in 0..1_000 {
            client.write_all(&ping).await.unwrap();
        }
        client.write_all(&[0x82, 0x81, 0, 0, 0, 0, b'x']).await.unwrap();
        client
    };
    let (heard, _client) = tokio::join!(ours.read_u8(), flood);
    assert_eq!(heard.unwrap(), b'x');
    assert!(ours.out.len() <= 2 * 127, "{}", ours.out.len());
}

#[tokio::test]
async fn a_close_is_answered_and_ends_the_stream() {
    let (mut ours, peer) = pair(|mut peer| {
        peer.send(Message::binary("last words")).unwrap();
        let frame = CloseFrame { code: CloseCode::Away, reason: "bye".into() };
        peer.close(Some(frame)).unwrap();
        match peer.read().unwrap() {
            Message::Close(Some(frame)) => assert_eq!(frame.code, CloseCode::Away),
            other => panic!("{other:?}"),
        }
    })
    .await;
    let mut heard = Vec::new();
    ours.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"last words");
    assert_eq!(ours.write_all(b"too late").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
    ours.shutdown().await.unwrap();
    peer.await.unwrap();
}

#[tokio::test]
async fn shutting_down_says_goodbye() {
    let (mut ours, peer) = pair(|mut peer| {
        assert_eq!(collect(&mut peer, 3), b"end");
        match peer.read().unwrap() {
            Message::Close(Some(frame)) => assert_eq!(frame.code, CloseCode::Normal),
            other => panic!("{other:?}"),
        }
    })
    .await;
    ours.write_all(b"end").await.unwrap();
    ours.shutdown().await.unwrap();
    peer.await.unwrap();
}

#[tokio::test]
async fn a_violation_is_told_and_ends_the_stream() {
    let too_long = [&[0x82, 0xff][..], &(MESSAGE_BYTES_MAX + 1).to_be_bytes(), &[0; 4]].concat();
    let cases: &[(&str, &[u8], u16)] = &[
        ("text", &[0x81, 0x81, 0, 0, 0, 0, b'x'], 1003),
        ("unmasked", &[0x82, 0x01, b'x'], 1002),
        ("too long", &too_long, 1009),
    ];
    for (case, wire, code) in cases {
        let (mut client, server) = tokio::io::duplex(1_000);
        let mut ours = WebSocketStream::new(server, Vec::new());
        client.write_all(wire).await.unwrap();
        assert_eq!(ours.read_u8().await.unwrap_err().kind(), ErrorKind::InvalidData, "{case}");
        let mut goodbye = [0; 4];
        client.read_exact(&mut goodbye).await.unwrap();
        assert_eq!(goodbye, [&[0x88, 2], &code.to_be_bytes()[..]].concat()[..], "{case}");
        assert_eq!(ours.read(&mut [0; 1]).await.unwrap(), 0, "{case}: nothing more is read");
    }
}

#[tokio::test]
async fn a_connection_cut_off_ends_the_stream() {
    let (client, server) = tokio::io::duplex(1_000);
    let mut ours = WebSocketStream::new(server, Vec::new());
    drop(client);
    assert_eq!(ours.read(&mut [0; 1]).await.unwrap(), 0);
}

#[test]
fn the_corpus_of_websocket_frame_holds() {
    crate::replay::replay("websocket_frame", websocket_frame::check);
}
