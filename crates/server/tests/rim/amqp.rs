//! What AMQP clients see at the rim, over TLS and inside WebSockets: introductions, provisioning, refusals in order.

use std::sync::Arc;

use client::https::Https;
use client::service::{ServiceClient, ServiceRequest};
use http::Method;
use proto::amqp::{
    Body, CloseReason, DeliveryState, Error, Event, LinkId, LinkTerms, Map, Message, MessageId, Outgoing, Properties,
    Role, SaslCode, SessionId, Settlement, Source, Target, Value,
};
use serde_json::{Value as Json, json};
use server::shutdown::Drained;
use testkit::amqp_client::AmqpClient;
use testkit::raw_mqtt::PATIENCE;
use testkit::whole::Muster;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::ground::{device_key, token};

type Client = AmqpClient<TlsStream<TcpStream>>;

/// The registration that these tests enrol.
const ID: &str = "amqp-device";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_mechanisms_are_offered_as_an_array_and_one_that_is_not_is_refused() {
    let muster = Muster::start().await.expect("a server");
    let mut client = open(&muster, true).await;
    assert_eq!(client.choose("MSSBCBS", None).await, ["MSSBCBS", "PLAIN", "TPM", "ANONYMOUS"]);
    client.begin().await;
    for (mechanism, response) in [
        ("EXTERNAL", &b""[..]),
        ("TPM", b"\0scope\0id\0key"),
        ("PLAIN", b""),
        ("PLAIN", b"\0no name\0password"),
        ("PLAIN", b"\0a\0b\0c"),
        ("PLAIN", b"\0\xff\0b"),
    ] {
        let mut client = open(&muster, true).await;
        client.choose(mechanism, Some(response)).await;
        let heard = client.hear().await;
        assert_eq!(heard, Some(Event::Closed(CloseReason::Sasl(SaslCode::Auth))), "{mechanism} {response:?}");
    }
    muster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_with_a_key_registers_and_polls_on_one_connection() {
    let muster = enrolled().await;
    let mut client = enter(&muster, ID, &signature(&muster, ID)).await;
    let links = attach_both(&mut client, &address(&muster, ID)).await;
    let (outcome, answer) = request(&mut client, links, &[("iotdps-operation-type", "iotdps-register")], "1").await;
    assert_eq!(outcome, DeliveryState::Accepted);
    let answer = answer.expect("an answer");
    let correlation = answer.properties.as_ref().and_then(|properties| properties.correlation_id.clone());
    assert_eq!(correlation, Some(MessageId::String("1".into())));
    for key in ["retry-after", "Retry-After"] {
        assert_eq!(answer.application_properties.find(key), Some(&Value::Int(1)), "{key}");
    }
    let operation = read(&answer)["operationId"].as_str().expect("an operation").to_owned();
    let polls = [("iotdps-operation-type", "iotdps-get-operationstatus"), ("iotdps-operation-id", operation.as_str())];
    let state = loop {
        let (outcome, answer) = request(&mut client, links, &polls, "2").await;
        assert_eq!(outcome, DeliveryState::Accepted);
        let body = read(&answer.expect("an answer"));
        if body["status"] != "assigning" {
            break body;
        }
    };
    assert_eq!(state["registrationState"]["assignedHub"], muster.hub.host.as_str(), "{state}");
    client.connection.close(None, std::time::Instant::now());
    assert_eq!(client.hear().await, Some(Event::Closed(CloseReason::Local(None))));
    muster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signature_that_proves_nothing_ends_the_exchange() {
    let muster = enrolled().await;
    for (id, password) in [(ID, signature(&muster, "another")), ("stranger", signature(&muster, "stranger"))] {
        let mut client = open(&muster, true).await;
        client.choose("PLAIN", Some(&plain(&muster, id, &password))).await;
        assert_eq!(client.hear().await, Some(Event::Closed(CloseReason::Sasl(SaslCode::Auth))), "{id}");
    }
    muster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_that_may_not_be_are_refused_and_the_connection_stays() {
    let muster = enrolled().await;
    let mut client = enter(&muster, ID, &signature(&muster, ID)).await;
    let session = client.begin().await;
    let cases = [
        (address(&muster, "another"), "amqp:unauthorized-access"),
        ("nobody/here".to_owned(), "amqp:not-found"),
        ("$cbs".to_owned(), "amqp:not-found"),
    ];
    for (address, condition) in cases {
        let error = refused_link(&mut client, session, &address).await;
        assert_eq!(error.condition, condition, "{address}");
        let body: Json = serde_json::from_str(&error.description.expect("a description")).expect("JSON");
        assert!(body["errorCode"].is_u64(), "{body}");
    }
    let links = attach_in(&mut client, session, &address(&muster, ID)).await;
    for properties in [&[][..], &[("iotdps-operation-type", "iotdps-unregister")]] {
        let (outcome, answer) = request(&mut client, links, properties, "3").await;
        assert_eq!((rejection(&outcome).condition.as_str(), answer), ("com.microsoft:argument-error", None));
    }
    let (outcome, _) = request(&mut client, links, &[("iotdps-operation-type", "iotdps-register")], "4").await;
    assert_eq!(outcome, DeliveryState::Accepted);
    muster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provisioning_link_of_a_connection_that_showed_nothing_is_refused() {
    let muster = enrolled().await;
    for with_sasl in [false, true] {
        let mut client = open(&muster, with_sasl).await;
        if with_sasl {
            client.choose("ANONYMOUS", Some(b"")).await;
        }
        let session = client.begin().await;
        let error = refused_link(&mut client, session, &address(&muster, ID)).await;
        assert_eq!(error.condition, "amqp:unauthorized-access");
        let body: Json = serde_json::from_str(&error.description.expect("a description")).expect("JSON");
        assert_eq!((&body["errorCode"], body["trackingId"].is_string()), (&json!(401_002), true), "{body}");
    }
    muster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_lie_end_their_connection_and_no_other() {
    let muster = enrolled().await;
    let mut bystander = enter(&muster, ID, &signature(&muster, ID)).await;
    let links = attach_both(&mut bystander, &address(&muster, ID)).await;
    let header = b"AMQP\x00\x01\x00\x00";
    let cases: [(&str, Vec<u8>); 6] = [
        ("another protocol", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("another version", b"AMQP\x00\x02\x00\x00".to_vec()),
        ("a frame of four gigabytes", [header, &[0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0][..]].concat()),
        ("a frame shorter than its header", [header, &[0, 0, 0, 4, 2, 0, 0, 0][..]].concat()),
        ("an unknown performative", [header, &[0, 0, 0, 12, 2, 0, 0, 0, 0x00, 0x53, 0x99, 0x45][..]].concat()),
        ("a list nested in its own descriptor", [header, &[0, 0, 0, 16, 2, 0, 0, 0][..], &[0; 8]].concat()),
    ];
    for (case, bytes) in cases {
        let mut stream = muster.dial_amqp(&muster.hub.host, &muster.trust(None).expect("trust")).await.expect("TLS");
        stream.write_all(&bytes).await.expect(case);
        let mut said = Vec::new();
        // The end may come with TLS's own goodbye or without.
        let _ = timeout(PATIENCE, stream.read_to_end(&mut said)).await.expect(case);
        assert!(said.starts_with(b"AMQP"), "{case}: {said:02x?}");
    }
    let (outcome, _) = request(&mut bystander, links, &[("iotdps-operation-type", "iotdps-register")], "5").await;
    assert_eq!(outcome, DeliveryState::Accepted);
    muster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_tells_clients_to_come_again() {
    let muster = enrolled().await;
    let mut client = enter(&muster, ID, &signature(&muster, ID)).await;
    attach_both(&mut client, &address(&muster, ID)).await;
    let mut fresh = open(&muster, false).await;
    fresh.begin().await;
    let (drained, told, told_fresh) = tokio::join!(muster.stop(), goodbye(&mut client), goodbye(&mut fresh));
    assert_eq!(drained, Drained::Finished);
    assert_eq!(told.condition, "amqp:connection:forced");
    // Who has no link yet may be Node, which comes again after this condition alone.
    assert_eq!(told_fresh.condition, "amqp:link:detach-forced");
    for error in [told, told_fresh] {
        assert!(error.info.find("retry-after").is_some(), "{error:?}");
    }
}

/// With what the server closes a connection.
async fn goodbye(client: &mut Client) -> Error {
    loop {
        match client.hear().await.expect("a close before the end") {
            Event::Closed(CloseReason::Peer(Some(error))) => return *error,
            Event::Closed(reason) => panic!("{reason}"),
            _ => {}
        }
    }
}

/// A Muster that knows [`ID`] by the key that [`token`] signs with.
async fn enrolled() -> Muster {
    let muster = Muster::start().await.expect("a server");
    let https = Https::new(Arc::clone(&muster.trust(None).expect("trust")));
    let version = ServiceClient::PROVISIONING_API_VERSION;
    let service = ServiceClient::new(https, muster.provisioning.owner.clone(), muster.https_port(), version);
    let key = device_key().to_base64();
    let keys = json!({ "primaryKey": key, "secondaryKey": key });
    let body = json!({ "registrationId": ID, "attestation": { "type": "symmetricKey", "symmetricKey": keys } });
    let path = ["enrollments", ID];
    let request = ServiceRequest { body: Some(&body), ..ServiceRequest::new(Method::PUT, &path) };
    let answer = service.send(request, muster.clock().now()).await.expect("an answer");
    assert!(answer.status().is_success(), "{answer:?}");
    muster
}

async fn open(muster: &Muster, with_sasl: bool) -> Client {
    let stream = muster.dial_amqp(&muster.device_host, &muster.trust(None).expect("trust")).await.expect("TLS");
    AmqpClient::new(stream, &muster.device_host, with_sasl)
}

/// A connection that PLAIN let in.
async fn enter(muster: &Muster, id: &str, password: &str) -> Client {
    let mut client = open(muster, true).await;
    client.choose("PLAIN", Some(&plain(muster, id, password))).await;
    client
}

fn plain(muster: &Muster, id: &str, password: &str) -> Vec<u8> {
    format!("\0{}\0{password}", address(muster, id)).into_bytes()
}

fn address(muster: &Muster, id: &str) -> String {
    format!("{}/registrations/{id}", muster.id_scope)
}

fn signature(muster: &Muster, id: &str) -> String {
    token(muster, &format!("{}%2Fregistrations%2F{id}", muster.id_scope))
}

async fn attach_both(client: &mut Client, address: &str) -> (LinkId, LinkId) {
    let session = client.begin().await;
    attach_in(client, session, address).await
}

/// The link to send on and the link to hear on, as SDKs attach them.
async fn attach_in(client: &mut Client, session: SessionId, address: &str) -> (LinkId, LinkId) {
    let terms = || LinkTerms::between(Source::at(address), Target::at(address), 0);
    let (receiver, attach) = client.attach(session, ("receiver", Role::Receiver), terms()).await;
    assert_eq!(attach.source.and_then(|source| source.address).as_deref(), Some(address));
    client.connection.grant_credit(receiver, 10);
    let (sender, attach) = client.attach(session, ("sender", Role::Sender), terms()).await;
    assert!(attach.max_message_size.is_some_and(|bytes| bytes > 0), "{attach:?}");
    let heard = client.hear().await;
    assert_eq!(heard, Some(Event::Credit { link: sender }));
    assert!(client.connection.credit(sender) >= 10);
    (sender, receiver)
}

/// How the server refuses a link to `address`.
async fn refused_link(client: &mut Client, session: SessionId, address: &str) -> Error {
    let terms = LinkTerms::between(Source::at(address), Target::at(address), 0);
    let (link, attach) = client.attach(session, (address, Role::Sender), terms).await;
    assert_eq!(attach.target, None, "{address}");
    match client.hear().await {
        Some(Event::Detach { link: detached, is_closed: true, error: Some(error) }) if detached == link => *error,
        other => panic!("{address}: {other:?}"),
    }
}

/// Sends a request; its outcome, and the answer if it was accepted. The outcome comes first.
async fn request(
    client: &mut Client,
    (sender, receiver): (LinkId, LinkId),
    properties: &[(&'static str, &str)],
    id: &str,
) -> (DeliveryState, Option<Message>) {
    let correlation_id = Some(MessageId::String(id.into()));
    let message = Message {
        properties: Some(Box::new(Properties { correlation_id, ..Properties::default() })),
        application_properties: properties.iter().map(|&(key, value)| (key, value)).collect::<Map>(),
        body: Body::data(&b"{}"[..]),
        ..Message::default()
    };
    let mut payload = Vec::new();
    message.encode(&mut payload);
    let tag = bytes::Bytes::copy_from_slice(id.as_bytes());
    let payload = vec![payload.into()];
    let outgoing = Outgoing { tag, message_format: 0, settlement: Settlement::Unsettled, payload };
    client.connection.send(sender, outgoing).expect("sent");
    let mut outcome = None;
    loop {
        match client.hear().await {
            Some(Event::Credit { .. }) => {}
            Some(Event::Outcome { state: Some(state), is_settled: true, .. }) if outcome.is_none() => {
                if state != DeliveryState::Accepted {
                    return (state, None);
                }
                outcome = Some(state);
            }
            Some(Event::Delivery(delivery)) if delivery.link == receiver => {
                let message = Message::decode(&delivery.payload).expect("a message");
                return (outcome.expect("the outcome comes first"), Some(message));
            }
            other => panic!("{other:?}"),
        }
    }
}

fn rejection(outcome: &DeliveryState) -> &Error {
    match outcome {
        DeliveryState::Rejected(rejected) => rejected.error.as_ref().expect("an error"),
        other => panic!("{other:?}"),
    }
}

/// The body: one section of bytes, of JSON.
fn read(message: &Message) -> Json {
    match &message.body {
        Body::Data(sections) => match sections.as_slice() {
            [bytes] => serde_json::from_slice(bytes).expect("JSON"),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}
