//! Every refusal of a device can be asked about, also one that happens before anybody judges the device.

use client::trust::ClientCertificate;
use proto::mqtt::{Connack, Packet, Refusal};
use serde_json::Value;
use testkit::raw_http::{RawHttp, RawRequest};
use testkit::raw_mqtt::{Heard, RawMqtt, connect, encoded};
use testkit::whole::Muster;

use crate::ground::{Client, ask, packet, publish, subscribe, token};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_connect_leaves_a_decision() {
    let muster = Muster::start().await.expect("a server");
    let scope = &muster.id_scope;
    let name = |id: &str| format!("{scope}/registrations/{id}/api-version=2019-03-31");
    let other = token(&muster, &format!("{scope}%2Fregistrations%2Fother"));
    let cases = [
        ("mute", name("mute"), "", Refusal::NotAuthorized, "no-credential", "nothing"),
        ("garbled", name("garbled"), "secret", Refusal::BadUsernameOrPassword, "unreadable-signature", "signature"),
        ("mistaken", name("mistaken"), &other, Refusal::BadUsernameOrPassword, "wrong-resource", "signature"),
        ("a/b", name("a/b"), &other, Refusal::IdentifierRejected, "invalid-registration-id", "nothing"),
        (
            "versionless",
            format!("{scope}/registrations/versionless/"),
            &other,
            Refusal::BadUsernameOrPassword,
            "wrong-user-name",
            "nothing",
        ),
    ];
    for (id, username, password, refusal, cause, presented) in cases {
        let mut client = RawMqtt::new(muster.dial_mqtt(&muster.device_host).await.expect("a handshake"));
        client.say(&Packet::Connect(Box::new(connect(id, &username, password).expect("text")))).await;
        assert_eq!(client.hear().await, Heard::Packet(Packet::Connack(Connack::Refused(refusal))), "{id}");
        assert_eq!(client.hear().await, Heard::Closed, "{id}");
        let decision = why(&muster, id).await;
        let found = (decision["cause"].as_str(), decision["presented"].as_str(), decision["idScope"].as_str());
        assert_eq!(found, (Some(cause), Some(presented), Some(scope.as_str())), "{id}: {decision}");
        assert!(decision["fix"].as_str().is_some_and(|fix| fix.ends_with('.')), "{decision}");
    }
    muster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tracking_id_of_an_invalid_registration_id_leads_to_its_decision() {
    let muster = Muster::start().await.expect("a server");
    let target = format!("/{}/registrations/dev_/register?api-version=2019-03-31", muster.id_scope);
    let stream = muster.dial_https(&muster.device_host).await.expect("a handshake");
    let answer = ask(stream, ("PUT", &target), &muster.device_host, None).await;
    assert_eq!(answer.status, 400, "{}", answer.text());
    let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
    let decision = why(&muster, "dev_").await;
    assert_eq!(decision["cause"], "invalid-registration-id");
    assert_eq!(decision["trackingId"], body["trackingId"]);
    muster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_that_cannot_be_read_is_refused_like_any_credential_and_leaves_a_decision() {
    let muster = Muster::start().await.expect("a server");
    let trust = muster.trust(Some(unreadable_chain("chained"))).expect("trust");
    let https = client::https::Server { host: muster.device_host.clone(), port: muster.https_port() };
    let stream = client::https::connect(&trust, &https).await.expect("a handshake");
    let target = format!("/{}/registrations/chained/register?api-version=2019-03-31", muster.id_scope);
    let request = RawRequest {
        method: "PUT".to_owned(),
        target,
        headers: vec![("Host".to_owned(), muster.device_host.clone().into_bytes())],
        body: Vec::new(),
    };
    let answer = RawHttp::new(stream).exchange(&request).await.expect("an answer");
    let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!((answer.status, &body["errorCode"]), (401, &Value::from(401_002)), "{body}");
    let decision = why(&muster, "chained").await;
    assert_eq!((&decision["cause"], &decision["presented"]), (&"unreadable-certificate".into(), &"certificate".into()));
    assert_eq!(decision["trackingId"], body["trackingId"]);

    let mqtt = client::https::Server { host: muster.device_host.clone(), port: muster.mqtts_port() };
    let mut client = RawMqtt::new(client::https::connect(&trust, &mqtt).await.expect("a handshake"));
    let (topic, body) = register(&muster, &mut client, "chained", "{}").await;
    assert_eq!((topic.as_str(), &body["errorCode"]), ("$dps/registrations/res/401/?$rid=1", &Value::from(401_002)));
    muster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_cannot_be_understood_is_answered_with_a_tracking_id() {
    let muster = Muster::start().await.expect("a server");
    let mut client = RawMqtt::new(muster.dial_mqtt(&muster.device_host).await.expect("a handshake"));
    let (topic, body) = register(&muster, &mut client, "vague", "[1]").await;
    assert_eq!((topic.as_str(), &body["errorCode"]), ("$dps/registrations/res/400/?$rid=1", &Value::from(400_012)));
    assert!(body["trackingId"].is_string() && body["timestampUtc"].is_string(), "{body}");
    muster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_request_too_many_is_told_to_come_later_with_a_tracking_id() {
    let muster = Muster::start().await.expect("a server");
    let mut client = RawMqtt::new(muster.dial_mqtt(&muster.device_host).await.expect("a handshake"));
    register(&muster, &mut client, "hasty", "{}").await;
    // In one record, so that all are there before the first is answered.
    let topic = |number| format!("$dps/registrations/PUT/iotdps-register/?$rid={number}");
    let requests = (1..=5).flat_map(|number| encoded(&publish(&topic(number), Some(number), "{}")));
    client.send(&requests.collect::<Vec<_>>()).await;
    let answer = loop {
        match client.hear().await {
            Heard::Packet(Packet::Publish(answer)) if answer.topic.contains("$rid=5") => break answer,
            Heard::Packet(_) => {}
            other => panic!("no answer: {other:?}"),
        }
    };
    assert!(answer.topic.starts_with("$dps/registrations/res/429/?$rid=5&retry-after="), "{}", &*answer.topic);
    let body: Value = serde_json::from_slice(&answer.payload).expect("JSON");
    assert_eq!(body["errorCode"], 429_001, "{body}");
    assert!(body["trackingId"].is_string() && body["timestampUtc"].is_string(), "{body}");
    muster.stop().await;
}

/// The latest decision about a registration ID, as `muster why` gets it.
pub async fn why(muster: &Muster, registration_id: &str) -> Value {
    let id = registration_id.replace('/', "%2F");
    let target = format!("/muster/v1/decisions?registrationId={id}&limit=1&api-version=1");
    let stream = muster.dial_admin().await.expect("a handshake");
    let bearer = format!("Bearer {}", muster.admin.token);
    let answer = ask(stream, ("GET", &target), &muster.admin.host, Some(&bearer)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
    body.pointer("/value/0").cloned().unwrap_or_default()
}

/// Connects as `id`, registers with `body`, and returns topic and body of the answer.
async fn register(muster: &Muster, client: &mut Client, id: &str, body: &str) -> (String, Value) {
    let scope = &muster.id_scope;
    let password = token(muster, &format!("{scope}%2Fregistrations%2F{id}"));
    let password = if id == "chained" { "" } else { &password };
    let username = format!("{scope}/registrations/{id}/api-version=2019-03-31");
    client.say(&Packet::Connect(Box::new(connect(id, &username, password).expect("text")))).await;
    assert!(matches!(client.hear().await, Heard::Packet(Packet::Connack(Connack::Accepted { .. }))));
    client.say(&subscribe("$dps/registrations/res/#")).await;
    assert!(matches!(client.hear().await, Heard::Packet(Packet::Suback { .. })));
    client.say(&publish("$dps/registrations/PUT/iotdps-register/?$rid=1", Some(2), body)).await;
    assert_eq!(client.hear().await, Heard::Packet(Packet::Puback(Some(packet(2)))));
    let Heard::Packet(Packet::Publish(answer)) = client.hear().await else { panic!("no answer") };
    (answer.topic.to_string(), serde_json::from_slice(&answer.payload).expect("JSON"))
}

/// A leaf that can be read, and behind it something that is no certificate.
fn unreadable_chain(name: &str) -> ClientCertificate {
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let leaf = params.self_signed(&key).expect("a certificate").der().to_vec();
    ClientCertificate { chain: vec![leaf, b"no certificate".to_vec()], key: key.serialize_der() }
}
