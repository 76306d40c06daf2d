//! What a client says of whom it dialled may only narrow: `Host`, a target's authority (`rules.md` 21).

use std::time::Duration;

use domain::sas::SasToken;
use proto::mqtt::{Connack, Packet, Refusal};
use serde_json::{Value, json};
use testkit::raw_http::{RawAnswer, RawHttp, RawRequest};
use testkit::raw_mqtt::encoded;
use testkit::raw_websocket::{BINARY, RawWebSocket, masked};
use testkit::whole::Muster;

use crate::ground::{DEVICE, introduction, start};

/// A second hub's address: the next free one.
const OTHER_HUB: &str = "127.0.0.3";
const TOKEN_LIFETIME: Duration = Duration::from_secs(3_600);

/// A Muster with two hubs, the device at the first.
async fn start_with_two_hubs() -> Muster {
    let muster = start().await;
    let target = format!(
        "/subscriptions/{}/resourceGroups/muster/providers/Microsoft.Devices/IotHubs/other?api-version=2023-06-30",
        muster.admin.subscription
    );
    let body = json!({ "location": "local", "sku": { "name": "S1", "capacity": 1 }, "properties": {} });
    let headers = [
        ("Host", muster.admin.host.clone()),
        ("Authorization", format!("Bearer {}", muster.admin.token)),
        ("Content-Type", "application/json".to_owned()),
    ];
    let request = RawRequest {
        method: "PUT".to_owned(),
        target,
        headers: headers.map(|(name, value)| (name.to_owned(), value.into_bytes())).into(),
        body: body.to_string().into_bytes(),
    };
    let answer = RawHttp::new(muster.dial_admin().await.expect("a handshake")).exchange(&request).await;
    assert!(answer.expect("an answer").status < 300);
    muster
}

/// The answer to a GET at `dialled` whose `Host` headers are `hosts`.
async fn get(muster: &Muster, dialled: &str, target: &str, hosts: &[&str], token: Option<String>) -> RawAnswer {
    let mut headers: Vec<_> = hosts.iter().map(|host| ("Host".to_owned(), host.as_bytes().to_vec())).collect();
    headers.extend(token.map(|token| ("Authorization".to_owned(), token.into_bytes())));
    let request = RawRequest { method: "GET".to_owned(), target: target.to_owned(), headers, body: Vec::new() };
    let stream = muster.dial_https(dialled).await.expect("a handshake");
    RawHttp::new(stream).exchange(&request).await.expect("an answer")
}

/// A token of the hub's owner for `resource`.
fn owner(muster: &Muster, resource: &str) -> String {
    let owner = &muster.hub.owner;
    SasToken::write(&owner.key, resource, Some(&owner.policy), muster.clock().now().plus(TOKEN_LIFETIME))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_answers_only_to_its_own_hosts() {
    let muster = start_with_two_hubs().await;
    let hub = muster.hub.host.clone();
    let target = format!("/devices/{DEVICE}?api-version=2021-04-12");
    let in_absolute_form = format!("https://{OTHER_HUB}{target}");
    let to_itself = format!("https://{hub}:443{target}");
    let with_port = format!("{hub}:{}", muster.https_port());
    let cases: &[(&str, &str, &[&str], u16)] = &[
        ("its address", &target, &[&hub], 200),
        ("its address with the port", &target, &[&with_port], 200),
        ("its address with a port that was forwarded", &target, &[&format!("{hub}:443")], 200),
        ("its address as IPv6 writes it", &target, &[&format!("[::ffff:{hub}]:443")], 200),
        ("localhost", &target, &["LOCALHOST"], 200),
        ("another hub", &target, &[OTHER_HUB], 401),
        ("another hub with a port", &target, &[&format!("{OTHER_HUB}:443")], 401),
        ("the provisioning service", &target, &[&muster.provisioning.host], 401),
        ("nobody", &target, &["hub.example.org"], 401),
        ("its first label", &target, &["127"], 401),
        ("its name as the beginning of another", &target, &[&format!("{hub}.example.org")], 401),
        ("the target names another", &in_absolute_form, &[&hub], 401),
        ("the target names it, which goes before the header", &to_itself, &[OTHER_HUB], 200),
        ("no header though the target names it", &to_itself, &[], 400),
        ("no header", &target, &[], 400),
        ("an empty header", &target, &[""], 400),
        ("two headers", &target, &[&hub, &hub], 400),
        ("no host", &target, &["a b"], 400),
        ("a user before the host", &target, &[&format!("user@{hub}")], 400),
        ("a port that is none", &target, &[&format!("{hub}:https")], 400),
    ];
    for (case, target, hosts, status) in cases {
        let answer = get(&muster, &hub, target, hosts, Some(owner(&muster, &hub))).await;
        assert_eq!(answer.status, *status, "{case}: {}", answer.text());
        assert_eq!(answer.text().contains(DEVICE), *status == 200, "{case}: {}", answer.text());
        if *status == 401 {
            assert_eq!(answer.header("iothub-errorcode"), Some("IotHubNotFound"), "{case}");
            assert!(!answer.text().contains("127.0.0"), "{case}: {}", answer.text());
        }
    }
    // Nor does another hub's address give the device away, whatever it is called and whoever signed.
    for host in [hub.as_str(), OTHER_HUB, "localhost"] {
        for resource in [hub.as_str(), OTHER_HUB] {
            let answer = get(&muster, OTHER_HUB, &target, &[host], Some(owner(&muster, resource))).await;
            let expected = if host == hub { "IotHubNotFound" } else { "IotHubUnauthorizedAccess" };
            let found = (answer.status, answer.header("iothub-errorcode"));
            assert_eq!(found, (401, Some(expected)), "{host} {resource}: {}", answer.text());
        }
    }
    muster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provisioning_service_answers_only_to_its_own_hosts() {
    let muster = start_with_two_hubs().await;
    let own = muster.provisioning.host.clone();
    let device = format!("/{}/registrations/dev/operations/none?api-version=2019-03-31", muster.id_scope);
    let operator = "/enrollmentGroups/none?api-version=2021-10-01".to_owned();
    // A device or an operator that proved nothing is refused as such, where the service is.
    for target in [&device, &operator] {
        for (host, status) in [
            (own.as_str(), 401),
            ("127.0.0.1:443", 401),
            ("localhost", 401),
            (muster.hub.host.as_str(), 404),
            ("global.azure-devices-provisioning.net", 404),
        ] {
            let answer = get(&muster, &own, target, &[host], None).await;
            let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
            assert_eq!(answer.status, status, "{target} {host}: {body}");
            assert!(status == 401 || body["errorCode"] == 404_000, "{target} {host}: {body}");
            assert!(body["trackingId"].is_string(), "{target} {host}: {body}");
        }
    }
    muster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_reaches_only_the_hub_that_its_host_names() {
    let muster = start_with_two_hubs().await;
    let hub = muster.hub.host.clone();
    let accepted = Connack::Accepted { session_present: false };
    let refused = Connack::Refused(Refusal::NotAuthorized);
    for (host, status, answer) in [
        (hub.clone(), 101, Some(accepted)),
        (format!("{hub}:443"), 101, Some(accepted)),
        ("localhost".to_owned(), 101, Some(accepted)),
        (OTHER_HUB.to_owned(), 101, Some(refused)),
        ("hub.example.org".to_owned(), 101, Some(refused)),
        ("a b".to_owned(), 400, None),
    ] {
        let opening = format!(
            "GET /$iothub/websocket HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Protocol: mqtt\r\n\r\n"
        );
        let stream = muster.dial_https(&hub).await.expect("a handshake");
        let (found, socket) = RawWebSocket::open(stream, &opening).await;
        assert_eq!(found, Some(status), "{host}");
        let (Some(mut socket), Some(answer)) = (socket, answer) else { continue };
        let introduction = Packet::Connect(Box::new(introduction(&muster)));
        socket.send(&masked(BINARY, &encoded(&introduction))).await;
        assert_eq!(socket.hear_binary().await, Some(encoded(&Packet::Connack(answer))), "{host}");
    }
    muster.stop().await;
}
