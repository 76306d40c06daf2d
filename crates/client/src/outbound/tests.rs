//! What is sent to servers that these tests play: scripts of what they answer, over real sockets.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use domain::clock::UnixTime;
use domain::ids::{DeviceId, HubKey};
use domain::message::{Draft, Message, Origin, StoredPlace, SystemProperties};
use domain::operation::identity::IdentityName;
use domain::operation::session::AuthenticationMethod;
use domain::route::{NatsSubject, Url, Webhook, WebhookMode};
use serde_json::{Map, Value};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::*;

mod blob;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(20);

fn parcel(sequence: u64) -> Parcel {
    let message = Message {
        hub: HubKey(1),
        partition: 0,
        sender: IdentityName::device(DeviceId::parse("dev").unwrap()),
        generation: "1".to_owned(),
        origin: Origin::Telemetry(AuthenticationMethod::DeviceKey),
        model_id: None,
        draft: Draft { body: "x".into(), system: SystemProperties::default(), properties: Vec::new() },
    };
    let place = StoredPlace { sequence, offset: sequence, enqueued_at: UnixTime::from_seconds(1_700_000_000) };
    Parcel { hub: "hub".parse().unwrap(), place, message: message.into() }
}

fn endpoint(target: Target) -> Endpoint {
    Endpoint { name: "e".parse().unwrap(), target, labels: Map::new() }
}

fn outbound() -> Outbound {
    Outbound::new(Reach { private: true, ..Reach::default() })
}

async fn listen(scheme: &str) -> (TcpListener, Url) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let url = Url { scheme: scheme.to_owned(), host: "127.0.0.1".to_owned(), port, path: "/in".to_owned() };
    (listener, url)
}

/// Sends `count` messages while `server` serves.
async fn send(count: u64, target: Target, server: impl Future<Output = ()>) -> (usize, Result<(), Refusal>) {
    let parcels: Vec<Parcel> = (0..count).map(parcel).collect();
    let (outbound, endpoint) = (outbound(), endpoint(target));
    let mut taken = 0;
    let sending = async {
        tokio::select! {
            outcome = outbound.send(&endpoint, &parcels, &mut taken) => outcome,
            () = server => panic!("the server ended"),
        }
    };
    let outcome = tokio::time::timeout(PATIENCE, sending).await.expect("it ends");
    (taken, outcome)
}

/// Reads one request; its body.
async fn read_request(stream: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut bytes = 0;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            bytes = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; bytes];
    stream.read_exact(&mut body).await.ok()?;
    Some(body)
}

/// Serves one connection after the other, a request of each if it `closes`, and notes the IDs that came.
async fn serve(listener: TcpListener, answer: &str, closes: bool, seen: Arc<Mutex<Vec<String>>>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = BufReader::new(stream);
        while let Some(body) = read_request(&mut stream).await {
            let event: Value = serde_json::from_slice(&body).unwrap();
            seen.lock().unwrap().push(event["sequence"].as_str().unwrap().to_owned());
            if stream.write_all(answer.as_bytes()).await.is_err() || closes {
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_web_server_that_keeps_no_connection_gets_everything() {
    let long = format!("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{}", "x".repeat(100_000));
    let cases: &[(&str, &str, bool)] = &[
        ("kept", "HTTP/1.1 204 No Content\r\n\r\n", false),
        ("closed by its word", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", true),
        ("closed without a word", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true),
        ("of the old version", "HTTP/1.0 200 OK\r\n\r\n", true),
        ("with a long answer", &long, false),
    ];
    for (name, answer, closes) in cases {
        let (listener, url) = listen("http").await;
        let seen = Arc::default();
        let webhook = Webhook { url, mode: WebhookMode::Single, headers: Vec::new(), authority: None };
        let server = serve(listener, answer, *closes, Arc::clone(&seen));
        assert_eq!(send(3, Target::Webhook(webhook), server).await, (3, Ok(())), "{name}");
        assert_eq!(*seen.lock().unwrap(), ["0", "1", "2"], "{name}");
    }
}

#[tokio::test]
async fn a_web_server_that_refuses_is_believed() {
    let cases: &[(&str, &str, bool)] = &[
        ("its fault", "HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n", false),
        ("the message's fault", "HTTP/1.1 422 No\r\nContent-Length: 0\r\n\r\n", true),
        ("elsewhere", "HTTP/1.1 307 There\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", false),
        ("no HTTP", "hello\r\n\r\n", false),
    ];
    for (name, answer, is_of_message) in cases {
        let (listener, url) = listen("http").await;
        let webhook = Webhook { url, mode: WebhookMode::Single, headers: Vec::new(), authority: None };
        let server = serve(listener, answer, false, Arc::default());
        let (taken, outcome) = send(2, Target::Webhook(webhook), server).await;
        assert_eq!((taken, outcome.unwrap_err().is_of_message), (0, *is_of_message), "{name}");
    }
}

/// A NATS server with a stream that keeps whatever it has not seen the ID of, and tells `kept` of it.
async fn keep(listener: TcpListener, kept: Arc<Mutex<Vec<String>>>) {
    let mut known = Vec::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = BufReader::new(stream);
        let info = b"INFO {\"headers\":true,\"max_payload\":1048576,\"server_id\":\"s\",\"client_id\":1}\r\n";
        stream.write_all(info).await.unwrap();
        let mut line = String::new();
        while stream.read_line(&mut line).await.is_ok_and(|bytes| bytes > 0) {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            match words.as_slice() {
                ["PING"] => stream.write_all(b"PONG\r\n").await.unwrap(),
                ["HPUB", subject, reply, head, bytes] => {
                    let mut payload = vec![0; bytes.parse::<usize>().unwrap() + 2];
                    stream.read_exact(&mut payload).await.unwrap();
                    let head = String::from_utf8(payload[..head.parse().unwrap()].to_vec()).unwrap();
                    let id = head.lines().find_map(|line| line.strip_prefix("Nats-Msg-Id: ")).unwrap().to_owned();
                    if !known.contains(&id) {
                        kept.lock().unwrap().push((*subject).to_owned());
                        known.push(id);
                    }
                    let word = "{\"stream\":\"S\",\"seq\":1}";
                    let word = format!("MSG {reply} 1 {}\r\n{word}\r\n", word.len());
                    stream.write_all(word.as_bytes()).await.unwrap();
                }
                _ => {}
            }
            line.clear();
        }
    }
}

#[tokio::test]
async fn a_stream_keeps_an_event_once_for_each_subject_that_it_is_published_at() {
    let (listener, url) = listen("nats").await;
    let kept = Arc::default();
    let target = |subject: &str| {
        let url = url.clone();
        let subject = subject.to_owned();
        Target::Nats(NatsSubject { url, subject, stream: true, user: None, secret: None, authority: None })
    };
    let mut server = std::pin::pin!(keep(listener, Arc::clone(&kept)));
    for subject in ["hub.all", "hub.hot", "hub.all"] {
        assert_eq!(send(2, target(subject), server.as_mut()).await, (2, Ok(())), "{subject}");
    }
    assert_eq!(*kept.lock().unwrap(), ["hub.all", "hub.all", "hub.hot", "hub.hot"]);
}
