//! SIGTERM to the real server under load: what was acknowledged is there afterwards, connections end in order, whoever
//! comes meanwhile is told to come again, and a client that never finishes does not hold up the end.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod ground;

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use client::https::{self, Https};
use domain::sas::SymmetricKey;
use ground::{Door, Heard, KEY, Mqtt, PATIENCE, Server, attestation, kept, telemetry, token};
use http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use http::{Method, Request, StatusCode};
use proto::mqtt::{Connack, Packet, Refusal};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::client::TlsStream;

/// Devices that send as fast as they are answered.
const PUBLISHERS: usize = 40;
/// Messages of each that are not acknowledged yet.
const WINDOW: u16 = 16;
/// Clients that enroll, and as many that register.
const ASKING: usize = 4;
/// Acknowledged messages before the server is asked to end.
const MESSAGES_BEFORE: usize = 2_000;
/// Answered enrollments, and as many registrations, before the server is asked to end.
const ANSWERS_BEFORE: usize = 8;
/// All clients have one address here, which stands for many.
const SETTINGS: &[(&str, &str)] =
    &[("MUSTER_LIMITS_ADDRESS_HANDSHAKES_PER_MIN", "1000000"), ("MUSTER_LIMITS_ADDRESS_HANDSHAKES_BURST", "1000000")];

/// How much has been acknowledged.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    messages: usize,
    enrollments: usize,
    registrations: usize,
}

/// What one client was told.
#[derive(Debug)]
enum Told {
    Messages { bodies: Vec<String>, end: Heard },
    Enrollments(Vec<String>),
    Registrations(Vec<String>),
}

/// What all clients were told.
#[derive(Debug, Default)]
struct Acknowledged {
    messages: Vec<String>,
    enrollments: Vec<String>,
    registrations: Vec<String>,
    /// Clients that were told to come again.
    refused: usize,
}

async fn publish(door: Door, device: String, mut client: Mqtt, progress: watch::Sender<Progress>) -> Told {
    client.say(&door.introduction(&device)).await;
    assert!(matches!(client.hear().await, Heard::Packet(Packet::Connack(Connack::Accepted { .. }))));
    let body = |id: u16| format!("{device} {id}");
    for id in 1..=WINDOW {
        client.say(&telemetry(&device, id, &body(id))).await;
    }
    let mut bodies = Vec::new();
    loop {
        match client.hear().await {
            Heard::Packet(Packet::Puback(Some(id))) => {
                bodies.push(body(id.get()));
                progress.send_modify(|progress| progress.messages += 1);
                let next = id.get().checked_add(WINDOW).unwrap();
                client.say(&telemetry(&device, next, &body(next))).await;
            }
            end => return Told::Messages { bodies, end },
        }
    }
}

/// What a refusal during the drain must say.
fn assert_come_again(answer: &http::Response<bytes::Bytes>) {
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE, "{:?}", answer.body());
    assert_eq!(answer.headers().get(RETRY_AFTER).map(http::HeaderValue::as_bytes), Some(b"3".as_slice()));
}

async fn enroll(door: Door, client: usize, progress: watch::Sender<Progress>) -> Told {
    let mut done = Vec::new();
    loop {
        let id = format!("enrolled-{client}-{}", done.len());
        let answer = door.put_enrollment(&id).await.unwrap();
        if !answer.status().is_success() {
            assert_come_again(&answer);
            return Told::Enrollments(done);
        }
        done.push(id);
        progress.send_modify(|progress| progress.enrollments += 1);
    }
}

async fn register(door: Door, client: usize, progress: watch::Sender<Progress>) -> Told {
    let scope = door.id_scope();
    let (host, https) = (door.device_host(), Https::new(door.tls.clone()));
    let mut done = Vec::new();
    loop {
        let id = format!("fleet-{client}-{}", done.len());
        let key = SymmetricKey::parse(KEY).unwrap().derive(&id);
        let request = Request::builder()
            .method(Method::PUT)
            .uri(format!("/{scope}/registrations/{id}/register?api-version=2019-03-31"))
            .header(AUTHORIZATION, token(&format!("{scope}%2Fregistrations%2F{id}"), Some("registration"), &key))
            .header(CONTENT_TYPE, "application/json");
        let body = json!({ "registrationId": id }).to_string();
        let answer = https.send(&door.https(host), request.body(body.into()).unwrap()).await.unwrap();
        if answer.status() != StatusCode::ACCEPTED {
            assert_come_again(&answer);
            return Told::Registrations(done);
        }
        done.push(id);
        progress.send_modify(|progress| progress.registrations += 1);
    }
}

/// A request whose body has not come, so that it is under way until it does.
async fn begin_request(door: &Door) -> TlsStream<TcpStream> {
    let host = door.device_host();
    let scope = door.id_scope();
    let mut stream = https::connect(&door.tls, &door.https(host)).await.unwrap();
    let head = format!(
        "PUT /{scope}/registrations/slow/register?api-version=2019-03-31 HTTP/1.1\r\nHost: {host}\r\n\
         Content-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut permission = [0; 25];
    stream.read_exact(&mut permission).await.unwrap();
    assert_eq!(&permission, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream
}

#[expect(clippy::disallowed_methods, reason = "the end of each task is looked at")]
async fn start_load(door: &Door, progress: &watch::Sender<Progress>) -> JoinSet<Told> {
    let group = json!({ "enrollmentGroupId": "fleet", "attestation": attestation() });
    let put = door.provisioning(Method::PUT, &["enrollmentGroups", "fleet"], Some(&group)).await.unwrap();
    assert!(put.status().is_success(), "{:?}", put.body());
    let mut clients = JoinSet::new();
    for number in 0..PUBLISHERS {
        let device = format!("dev-{number}");
        let put = door.put_device(&device).await.unwrap();
        assert!(put.status().is_success(), "{:?}", put.body());
        let client = door.dial_mqtt().await;
        clients.spawn(publish(door.clone(), device, client, progress.clone()));
    }
    for number in 0..ASKING {
        clients.spawn(enroll(door.clone(), number, progress.clone()));
        clients.spawn(register(door.clone(), number, progress.clone()));
    }
    clients
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_under_load_is_there_after_sigterm() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path(), SETTINGS);
    let door = server.door.clone();
    let (progress, mut seen) = watch::channel(Progress::default());
    let mut clients = start_load(&door, &progress).await;
    let mut latecomer = door.dial_mqtt().await;
    let mut slow = begin_request(&door).await;
    let enough = seen.wait_for(|seen| {
        seen.messages >= MESSAGES_BEFORE && seen.enrollments.min(seen.registrations) >= ANSWERS_BEFORE
    });
    tokio::time::timeout(PATIENCE, enough).await.unwrap().unwrap();

    server.signal(Signal::TERM);
    server.logged("draining").await;
    for client in [&mut latecomer, &mut door.dial_mqtt().await] {
        client.say(&door.introduction("dev-0")).await;
        let refused = Packet::Connack(Connack::Refused(Refusal::ServerUnavailable));
        assert_eq!((client.hear().await, client.hear().await), (Heard::Packet(refused), Heard::Goodbye));
    }
    let mut told = Acknowledged::default();
    while told.refused < 2 * ASKING {
        told.take(clients.join_next().await.unwrap().unwrap());
    }
    // Whoever asked anew has been refused; what runs is finished.
    slow.write_all(b"{}").await.unwrap();
    while let Some(client) = clients.join_next().await {
        told.take(client.unwrap());
    }
    let mut reply = String::new();
    slow.read_to_string(&mut reply).await.unwrap();
    assert!(reply.starts_with("HTTP/1.1 401 "), "{reply}");
    assert!(server.ended().success());

    told.check(folder.path()).await;
}

impl Acknowledged {
    fn take(&mut self, told: Told) {
        match told {
            Told::Messages { bodies, end } => {
                assert_eq!(end, Heard::Goodbye);
                self.messages.extend(bodies);
            }
            Told::Enrollments(ids) => {
                self.enrollments.extend(ids);
                self.refused += 1;
            }
            Told::Registrations(ids) => {
                self.registrations.extend(ids);
                self.refused += 1;
            }
        }
    }

    /// Looks for everything in `folder`, first in the store, then through a server.
    async fn check(&self, folder: &Path) {
        let mut times: HashMap<String, usize> = HashMap::new();
        kept(folder).await.into_iter().for_each(|body| *times.entry(body).or_default() += 1);
        assert!(self.messages.len() >= MESSAGES_BEFORE);
        let wrong: Vec<_> = self.messages.iter().filter(|body| times.get(*body) != Some(&1)).collect();
        assert!(wrong.is_empty(), "not there once: {wrong:?}");

        let server = Server::start(folder, SETTINGS);
        for id in &self.enrollments {
            let found = server.door.provisioning(Method::GET, &["enrollments", id], None).await.unwrap();
            assert_eq!(found.status(), StatusCode::OK, "{id}");
        }
        for id in &self.registrations {
            tokio::time::timeout(PATIENCE, assigned(&server.door, id)).await.unwrap();
        }
        server.signal(Signal::TERM);
        assert!(server.ended().success());
    }
}

/// Asks until the device has a hub; nobody registers it again.
async fn assigned(door: &Door, id: &str) {
    loop {
        let found = door.provisioning(Method::GET, &["registrations", id], None).await.unwrap();
        assert_eq!(found.status(), StatusCode::OK, "{id}");
        let record: Value = serde_json::from_slice(found.body()).unwrap();
        match record.get("status").and_then(Value::as_str) {
            Some("assigned") => return,
            Some("assigning") => {}
            _ => panic!("{record}"),
        }
    }
}

#[tokio::test]
async fn a_client_that_never_finishes_is_cut_off_at_the_deadline() {
    const DEADLINE: Duration = Duration::from_secs(1);
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path(), &[("MUSTER_SHUTDOWN_DRAIN_S", "1")]);
    let mut slow = begin_request(&server.door).await;
    let asked_at = Instant::now();
    server.signal(Signal::TERM);
    let told = server.logged("stopped").await;
    assert!(told.contains("CutOff { work: 1 }"), "{told}");
    let took = asked_at.elapsed();
    assert!(took >= DEADLINE && took < DEADLINE * 3, "{took:?}");
    assert!(server.ended().success());
    let mut rest = Vec::new();
    let _ = slow.read_to_end(&mut rest).await;
    assert!(rest.is_empty(), "the request was answered");
}
