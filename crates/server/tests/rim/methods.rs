//! What callers of direct methods and the devices they call may count on, over real sockets.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use domain::method::CALLS_PER_IDENTITY_MAX;
use domain::sas::SasToken;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use proto::mqtt::Packet;
use serde_json::{Value, json};
use server::shutdown::Drained;
use testkit::raw_http::{RawAnswer, RawHttp, RawRequest};
use testkit::raw_mqtt::{Heard, PATIENCE};
use testkit::whole::Muster;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::ground::{Client, DEVICE, create_device, enter, introduction, packet, publish, start, subscribe};

/// Callers that come at once.
const CALLERS: usize = 100;
/// Far below the time-out of a call, the shortest of which is 5 s.
const AT_ONCE: Duration = Duration::from_secs(3);

/// The device, which listens for methods and answers nothing of itself.
async fn listening(muster: &Muster) -> Client {
    let mut client = enter(muster, introduction(muster)).await;
    client.say(&subscribe("$iothub/methods/POST/#")).await;
    assert!(matches!(client.hear().await, Heard::Packet(Packet::Suback { .. })));
    client
}

fn call(muster: &Muster, payload: usize, connect_s: u64) -> RawRequest {
    let body = json!({
        "methodName": "echo",
        "payload": payload,
        "responseTimeoutInSeconds": 30,
        "connectTimeoutInSeconds": connect_s,
    });
    let owner = &muster.hub.owner;
    let until = muster.clock().now().plus(Duration::from_secs(600));
    let token = SasToken::write(&owner.key, &muster.hub.host, Some(&owner.policy), until);
    let headers = [("Host", muster.hub.host.clone()), ("Authorization", token)];
    RawRequest {
        method: "POST".to_owned(),
        target: format!("/twins/{DEVICE}/methods?api-version=2021-04-12"),
        headers: headers.into_iter().map(|(name, value)| (name.to_owned(), value.into_bytes())).collect(),
        body: body.to_string().into_bytes(),
    }
}

async fn open(muster: &Muster) -> RawHttp<TlsStream<TcpStream>> {
    RawHttp::new(muster.dial_https(&muster.hub.host).await.expect("a handshake"))
}

/// How a call is answered that waits `connect_s` seconds for the device.
pub async fn invoke(muster: &Muster, payload: usize, connect_s: u64) -> RawAnswer {
    open(muster).await.exchange(&call(muster, payload, connect_s)).await.expect("an answer")
}

/// The next request's ID and what it holds.
async fn told(client: &mut Client) -> (String, Value) {
    match client.hear().await {
        Heard::Packet(Packet::Publish(publish)) => {
            let request = publish.topic.strip_prefix("$iothub/methods/POST/echo/?$rid=").expect("a method's topic");
            (request.to_owned(), serde_json::from_slice(&publish.payload).expect("JSON"))
        }
        other => panic!("{other:?}"),
    }
}

async fn respond(client: &mut Client, request: &str, status: i32, body: &Value) {
    client.say(&publish(&format!("$iothub/methods/res/{status}/?$rid={request}"), None, &body.to_string())).await;
}

/// The code within the code, and how long was waited.
fn inner(answer: &RawAnswer) -> (u64, String) {
    let outer: Value = serde_json::from_slice(&answer.body).expect("JSON");
    let inner = outer.pointer("/Message").and_then(Value::as_str).expect("text");
    let inner: Value = serde_json::from_str(inner).expect("JSON in text");
    let code = inner.pointer("/errorCode").and_then(Value::as_u64).expect("a code");
    (code, inner.pointer("/info/timeout").and_then(Value::as_str).expect("a time").to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_callers_at_once_are_bounded_and_each_hears_the_answer_to_its_own_call() {
    let muster = start().await;
    let mut client = listening(&muster).await;
    let muster = &muster;
    let each = |number| async move { (number, invoke(muster, number, 0).await) };
    let mut calls: FuturesUnordered<_> = (0..CALLERS).map(each).collect();
    // Those that find no room are told so while the device has answered nobody.
    let mut refused = 0;
    while refused < CALLERS - CALLS_PER_IDENTITY_MAX {
        let (number, answer) = timeout(PATIENCE, calls.next()).await.expect("in time").expect("one more");
        assert_eq!(answer.status, 429, "{number}: {}", answer.text());
        assert_eq!(answer.header("iothub-errorcode"), Some("ThrottlingException"));
        refused += 1;
    }
    let answer = async {
        let mut told_all = Vec::new();
        for _ in 0..CALLS_PER_IDENTITY_MAX {
            told_all.push(told(&mut client).await);
        }
        // The last first: an answer goes to whom it belongs, not to whoever waits longest.
        for (index, (request, payload)) in told_all.iter().enumerate().rev() {
            respond(&mut client, request, -1, &json!({ "echo": payload, "place": index })).await;
        }
    };
    let listen = async {
        let mut heard = HashMap::new();
        while let Some((number, answer)) = calls.next().await {
            assert_eq!(answer.status, 200, "{}", answer.text());
            let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
            let place = body.pointer("/payload/place").and_then(Value::as_u64).expect("a place");
            assert_eq!(body, json!({ "status": -1, "payload": { "echo": number, "place": place } }));
            heard.insert(place, number);
        }
        heard
    };
    let ((), heard) = tokio::join!(answer, timeout(PATIENCE, listen));
    assert_eq!(heard.expect("in time").len(), CALLS_PER_IDENTITY_MAX, "each has a place of its own");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_one_after_another_are_told_in_their_order() {
    let muster = start().await;
    let mut client = listening(&muster).await;
    let mut calls = Vec::new();
    for number in 0..10 {
        // Each call is begun when the one before it was told, and all of them wait.
        let mut calling = Box::pin(invoke(&muster, number, 0));
        let (request, payload) = tokio::select! {
            answer = &mut calling => panic!("{answer:?}"),
            told = told(&mut client) => told,
        };
        assert_eq!(payload, json!(number));
        calls.push((request, calling));
    }
    for (request, calling) in calls {
        respond(&mut client, &request, 200, &json!(null)).await;
        assert_eq!(calling.await.text(), r#"{"status":200,"payload":null}"#);
    }
    muster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_goes_away_in_the_middle_ends_the_call_at_once() {
    let muster = start().await;
    let client = listening(&muster).await;
    let began_at = Instant::now();
    let leave = async {
        let mut client = client;
        told(&mut client).await;
    };
    let (answer, ()) = tokio::join!(invoke(&muster, 1, 0), leave);
    assert_eq!((answer.status, answer.header("iothub-errorcode")), (504, Some("GatewayTimeout")), "{}", answer.text());
    assert_eq!(inner(&answer), (504_101, "00:00:30".to_owned()));
    assert!(began_at.elapsed() < AT_ONCE);
    muster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_waits_for_a_device_is_served_when_it_comes_back() {
    let muster = start().await;
    let answer = invoke(&muster, 1, 0).await;
    assert_eq!((answer.status, answer.header("iothub-errorcode")), (404, Some("DeviceNotOnline")), "{}", answer.text());
    assert_eq!(inner(&answer), (404_103, "00:00:00".to_owned()));
    let come = async {
        let mut client = listening(&muster).await;
        let (request, payload) = told(&mut client).await;
        assert_eq!(payload, json!(2));
        // Not the request's ID: dropped, and the connection goes on.
        respond(&mut client, "17", 500, &json!(null)).await;
        let late = publish(&format!("$iothub/methods/res/200/?$rid={request}"), Some(7), "{\"late\":false}");
        client.say(&late).await;
        assert_eq!(client.hear().await, Heard::Packet(Packet::Puback(Some(packet(7)))));
        client.say(&late).await;
        assert_eq!(client.hear().await, Heard::Packet(Packet::Puback(Some(packet(7)))), "the second is dropped");
    };
    let (answer, ()) = tokio::join!(invoke(&muster, 2, 30), come);
    assert_eq!(answer.text(), r#"{"status":200,"payload":{"late":false}}"#);
    muster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_hang_up_make_room() {
    let muster = start().await;
    let mut waiting: FuturesUnordered<_> =
        (0..=CALLS_PER_IDENTITY_MAX).map(|number| invoke(&muster, number, 300)).collect();
    let surplus = timeout(PATIENCE, waiting.next()).await.expect("in time").expect("one of them");
    assert_eq!(surplus.status, 429, "all places are taken: {}", surplus.text());
    drop(waiting);
    let free = async {
        while invoke(&muster, 0, 0).await.status != 404 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, free).await.expect("who hangs up makes room");
    muster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_ends_calls_at_once_and_says_whether_the_device_was_told() {
    let muster = start().await;
    let mut client = listening(&muster).await;
    create_device(&muster, "far", &json!({ "type": "sas" })).await;
    let (here, there) = (call(&muster, 1, 0), call(&muster, 2, 300));
    let there = RawRequest { target: there.target.replace(DEVICE, "far"), ..there };
    let (mut first, mut second) = (open(&muster).await, open(&muster).await);
    let mut told_call = Box::pin(first.exchange(&here));
    let mut untold_call = Box::pin(second.exchange(&there));
    tokio::select! {
        answer = &mut told_call => panic!("{answer:?}"),
        answer = &mut untold_call => panic!("{answer:?}"),
        _ = told(&mut client) => {}
    }
    // The second may still be on its way; it is told to come again all the same.
    let (drained, told, untold) = tokio::join!(muster.stop(), told_call, untold_call);
    let (told, untold) = (told.expect("an answer"), untold.expect("an answer"));
    assert_eq!(drained, Drained::Finished);
    assert_eq!((told.status, untold.status), (504, 503), "{} {}", told.text(), untold.text());
}
