//! What clients that prove nothing may cost.

use std::time::Duration;

use proto::mqtt::{Packet, Refusal};
use server::serve::RimLimits;
use server::tls::TlsSettings;
use testkit::raw_http::RawAnswer;
use testkit::raw_mqtt::{Heard, PATIENCE};
use testkit::whole::Muster;
use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;

use crate::ground::{DEVICE, ask, dial, enter, introduction, packet, refusal, telemetry, token, with_device};

/// Failed proofs that an address may have.
const FAILED_PROOFS: u32 = 3;

/// A time-out that ends nothing while a test runs.
const TOO_LONG: Duration = Duration::from_secs(600);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_fails_too_many_proofs_waits_whoever_it_names() {
    let limits = RimLimits { failed_proofs_per_min: FAILED_PROOFS, ..RimLimits::default() };
    let muster = with_device(Muster::start_limited(limits).await.expect("a server")).await;
    let mut seated = enter(&muster, introduction(&muster)).await;
    let stranger = token(&muster, &format!("{}%2Fdevices%2Fnobody", muster.hub.host));
    for _ in 0..FAILED_PROOFS {
        assert_eq!(refusal(dial(&muster).await, &muster, "nobody", &stranger).await, Refusal::NotAuthorized);
    }
    // Good or bad, known or unknown: the answer is the same.
    assert_eq!(refusal(dial(&muster).await, &muster, "nobody", &stranger).await, Refusal::ServerUnavailable);
    let good = token(&muster, &format!("{}%2Fdevices%2F{DEVICE}", muster.hub.host));
    assert_eq!(refusal(dial(&muster).await, &muster, DEVICE, &good).await, Refusal::ServerUnavailable);

    let host = &muster.device_host;
    let mut bodies = Vec::new();
    for registration in ["nobody", "somebody"] {
        let target = format!("/{}/registrations/{registration}/register?api-version=2019-03-31", muster.id_scope);
        let stream = muster.dial_https(host).await.expect("a handshake");
        let answer = ask(stream, ("PUT", &target), host, None).await;
        assert_eq!((answer.status, answer.header("retry-after")), (429, Some("5")), "{}", answer.text());
        assert!(answer.text().contains("\"errorCode\":429001"), "{}", answer.text());
        bodies.push(without_ids(&answer));
    }
    assert_eq!(bodies[0], bodies[1]);

    let host = &muster.hub.host;
    let stream = muster.dial_https(host).await.expect("a handshake");
    let answer =
        ask(stream, ("GET", "/devices/nobody?api-version=2021-04-12"), host, Some("SharedAccessSignature x")).await;
    assert_eq!((answer.status, answer.header("iothub-errorcode")), (429, Some("ThrottlingException")));
    let stream = muster.dial_admin().await.expect("a handshake");
    let answer = ask(stream, ("GET", "/muster/v1/decisions?registrationId=x"), "127.0.0.1", Some("Bearer x")).await;
    assert_eq!((answer.status, answer.header("retry-after")), (429, Some("5")), "{}", answer.text());

    // A connection that was let in is not held to it.
    seated.say(&telemetry(Some(1), "on")).await;
    assert_eq!(seated.hear().await, Heard::Packet(Packet::Puback(Some(packet(1)))));
    muster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_requests_for_a_token_are_counted_too() {
    let limits = RimLimits { failed_proofs_per_min: FAILED_PROOFS, ..RimLimits::default() };
    let muster = Muster::start_limited(limits).await.expect("a server");
    let mut statuses = Vec::new();
    for _ in 0..=FAILED_PROOFS {
        let form = "grant_type=client_credentials&client_id=a&client_secret=b&scope=c";
        let stream = muster.dial_admin().await.expect("a handshake");
        let headers = vec![
            ("Host".to_owned(), b"127.0.0.1".to_vec()),
            ("Content-Type".to_owned(), b"application/x-www-form-urlencoded".to_vec()),
        ];
        let request = testkit::raw_http::RawRequest {
            method: "POST".to_owned(),
            target: "/t/oauth2/v2.0/token".to_owned(),
            headers,
            body: form.as_bytes().to_vec(),
        };
        let answer = testkit::raw_http::RawHttp::new(stream).exchange(&request).await.expect("an answer");
        statuses.push((answer.status, answer.header("retry-after").map(str::to_owned)));
    }
    let denied = (401, None);
    assert_eq!(statuses, [denied.clone(), denied.clone(), denied, (429, Some("5".to_owned()))]);
    muster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_over_the_limit_are_closed_at_once_and_taken_again_when_there_is_room() {
    let tls = TlsSettings { handshake_timeout: TOO_LONG, ..TlsSettings::default() };
    let muster =
        Muster::start_limited(RimLimits { tls, connections_max: 2, ..RimLimits::default() }).await.expect("a server");
    let first = dial(&muster).await;
    let second = muster.dial_https(&muster.device_host).await.expect("a handshake");
    let address = (muster.hub.host.as_str(), muster.mqtts_port());
    let mut third = tokio::net::TcpStream::connect(address).await.expect("the kernel accepts");
    let mut nothing = Vec::new();
    let ended = timeout(PATIENCE, third.read_to_end(&mut nothing)).await.expect("closed before its time-out");
    assert!(nothing.is_empty(), "closed without a word: {ended:?}");
    drop(first);
    // The server notices the end of the first connection when it reads it: until then others are closed.
    while muster.dial_mqtt(&muster.hub.host).await.is_err() {}
    drop(second);
    muster.stop().await;
}

/// The body without what differs from answer to answer.
fn without_ids(answer: &RawAnswer) -> serde_json::Value {
    let mut body: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    for member in ["trackingId", "timestampUtc"] {
        assert!(body.as_object_mut().expect("an object").remove(member).is_some(), "{body}");
    }
    body
}
