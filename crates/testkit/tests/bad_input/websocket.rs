//! WebSockets as no client opens or uses them, over a real socket: what each fault leads to, and that nobody else is
//! disturbed.

use testkit::raw_websocket::{BINARY, RawWebSocket, masked};

use crate::mqtt::{BAD, Stage, faults_at_the_hub, introduction, openings};

/// The CONNACK that lets a client in (MQTT 3.1.1, section 3.2).
const ACCEPTED: [u8; 4] = [0x20, 0x02, 0x00, 0x00];

/// Bytes that the server takes in at once.
const SHORT_BYTES_MAX: usize = 1_024;

/// A good opening.
const OPENING: &str = "GET /$iothub/websocket HTTP/1.1\r\nHost: {hub}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";

/// What of the opening is replaced, by what, and the status of the answer.
const OPENINGS: &[(&str, &str, &str, u16)] = &[
    ("as it should be", "", "", 101),
    ("no version", "Sec-WebSocket-Version: 13\r\n", "", 426),
    ("an old version", "Version: 13", "Version: 8", 426),
    ("no key", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", 400),
    ("an empty key", "dGhlIHNhbXBsZSBub25jZQ==", "", 400),
    ("no subprotocol", "Sec-WebSocket-Protocol: mqtt\r\n", "", 400),
    ("an unknown subprotocol", "Protocol: mqtt", "Protocol: xmpp", 400),
    ("a Connection that stays", "Connection: Upgrade", "Connection: keep-alive", 400),
    ("another upgrade", "Upgrade: websocket", "Upgrade: h2c", 404),
    ("another path", "/$iothub/websocket", "/elsewhere", 404),
    ("another method", "GET", "POST", 404),
];

/// Frames, and what they lead to.
fn frames() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let whole = |bytes: &[u8]| masked(BINARY, bytes);
    let huge = [&[BINARY, 0xff][..], &u64::MAX.to_be_bytes(), &[0; 4]].concat();
    vec![
        ("a frame without a mask", vec![BINARY, 0x01, 0x00], "close 1002, closed"),
        ("a text frame", masked(0x81, b"x"), "close 1003, closed"),
        ("a compressed frame", masked(0xc2, b"x"), "close 1002, closed"),
        ("an unknown opcode", masked(0x83, b"x"), "close 1002, closed"),
        ("a continuation of nothing", masked(0x80, b"x"), "close 1002, closed"),
        ("a message inside a message", [masked(0x02, b"\x10"), whole(b"y")].concat(), "close 1002, closed"),
        ("a ping in fragments", masked(0x09, b""), "close 1002, closed"),
        ("a ping that is too long", masked(0x89, &[0; 126]), "close 1002, closed"),
        ("a length that no message has", huge, "close 1009, closed"),
        ("the end at once", masked(0x88, &[0x03, 0xe8]), "close 1000, closed"),
    ]
}

#[tokio::test]
async fn a_websocket_that_breaks_a_rule_ends_alone() {
    let mut stage = Stage::set().await;
    let mut wrong = Vec::new();
    for (case, part, instead, expected) in OPENINGS {
        let (found, _) = open(&stage, &OPENING.replacen(part, instead, usize::from(!part.is_empty()))).await;
        if found != Some(*expected) {
            wrong.push(format!("{case}: {found:?}, not {expected}"));
        }
        stage.check(case).await;
    }
    let openings = openings().into_iter().map(|(case, bytes, answer)| (case, masked(BINARY, &bytes), framed(answer)));
    let frames = frames().into_iter().map(|(case, bytes, answer)| (case, bytes, answer.to_owned()));
    for (case, bytes, expected) in frames.chain(openings) {
        let (_, socket) = open(&stage, OPENING).await;
        let mut socket = socket.expect("a good opening");
        socket.send(&bytes).await;
        let found = socket.hear_to_the_end().await;
        if found != expected {
            wrong.push(format!("{case}: {found}, not {expected}"));
        }
        stage.check(case).await;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    stage.strike().await;
}

#[tokio::test]
async fn a_connected_device_that_breaks_a_rule_over_websocket_ends_alone() {
    let mut stage = Stage::set().await;
    let mut wrong = Vec::new();
    // The server does not wait for the rest of a packet over the limit, which may cost the client the close frame.
    let is_short = |bytes: &[u8]| bytes.len() <= SHORT_BYTES_MAX;
    let faults = faults_at_the_hub().into_iter();
    for (case, bytes, answer) in faults.filter(|(_, bytes, answer)| *answer == "closed" && is_short(bytes)) {
        let (_, socket) = open(&stage, OPENING).await;
        let mut socket = socket.expect("a good opening");
        socket.send(&masked(BINARY, &introduction(&stage.ground, BAD))).await;
        assert_eq!(socket.hear_binary().await.as_deref(), Some(&ACCEPTED[..]), "{case}");
        socket.send(&masked(BINARY, &bytes)).await;
        let (found, expected) = (socket.hear_to_the_end().await, framed(answer));
        if found != expected {
            wrong.push(format!("{case}: {found}, not {expected}"));
        }
        stage.check(case).await;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    stage.strike().await;
}

/// What an answer over a socket is over a WebSocket, which the server ends without being asked to.
fn framed(answer: &str) -> String {
    let said = match answer {
        "closed" => "",
        "refused 1, closed" => "binary 20 02 00 01, ",
        "refused 4, closed" => "binary 20 02 00 04, ",
        // A CONNACK as MQTT 5 has it: the version is not supported, and there are no properties.
        "not MQTT 3.1.1" => "binary 20 03 00 84 00, ",
        other => panic!("{other} is not known over a WebSocket"),
    };
    format!("{said}close 1000, closed")
}

async fn open(
    stage: &Stage,
    opening: &str,
) -> (Option<u16>, Option<RawWebSocket<tokio_rustls::client::TlsStream<tokio::net::TcpStream>>>) {
    let muster = stage.ground.muster();
    let stream = muster.dial_https(&muster.hub.host).await.unwrap();
    RawWebSocket::open(stream, &opening.replace("{hub}", &muster.hub.host)).await
}
