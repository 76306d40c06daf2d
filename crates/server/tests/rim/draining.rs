//! A server that is asked to end while clients work.

use proto::mqtt::{Connack, Filter, Packet, QoS, Refusal, Text};
use server::shutdown::Drained;
use testkit::raw_http::{RawHttp, RawRequest};
use testkit::raw_mqtt::{Heard, PATIENCE, RawMqtt, connect, encoded};
use testkit::whole::Muster;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::ground::{dial, introduction, kept, packet, publish, start, telemetry, token, with_device};

/// Acknowledgements after which the server is asked to end.
const BEFORE_THE_END: usize = 50;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_message_that_a_drain_finds_under_way_is_acknowledged() {
    let folder = tempfile::tempdir().expect("a folder");
    let muster = with_device(Muster::start_in(folder.path()).await.expect("a server")).await;
    let service = muster.service().clone();
    let stream = muster.dial_mqtt(&muster.hub.host).await.expect("a handshake");
    let (reader, mut writer) = tokio::io::split(stream);
    let mut client = RawMqtt::new(tokio::io::join(reader, tokio::io::sink()));
    let connect = encoded(&Packet::Connect(Box::new(introduction(&muster))));
    writer.write_all(&connect).await.expect("sent");
    assert!(matches!(client.hear().await, Heard::Packet(Packet::Connack(Connack::Accepted { .. }))));

    let (enough, is_enough) = oneshot::channel();
    // The device goes on sending whatever the server does.
    let send = async {
        for id in 1..=u16::MAX {
            if writer.write_all(&encoded(&telemetry(Some(id), &id.to_string()))).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    let listen = async {
        let (mut acknowledged, mut enough) = (Vec::new(), Some(enough));
        loop {
            match client.hear().await {
                Heard::Packet(Packet::Puback(Some(id))) => acknowledged.push(id.get().to_string()),
                Heard::Closed => break acknowledged,
                other => panic!("{other:?}"),
            }
            if acknowledged.len() == BEFORE_THE_END {
                enough.take().map(|enough| enough.send(()));
            }
        }
    };
    let stop = async {
        is_enough.await.expect("acknowledgements");
        muster.stop().await
    };
    let talk = async {
        tokio::select! {
            acknowledged = listen => acknowledged,
            () = send => unreachable!("it never ends"),
        }
    };
    let (drained, acknowledged) = tokio::join!(stop, talk);
    assert_eq!(drained, Drained::Finished);
    let kept: Vec<String> = kept(&service).await.iter().map(|message| text(&message.draft.body)).collect();
    assert_eq!(acknowledged, kept);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_registration_under_way_is_answered_before_the_connection_ends() {
    let (muster, store) = Muster::start_over_faulty_store().await.expect("a server");
    let hub = muster.hub.host.clone();
    let mut other = RawHttp::new(muster.dial_https(&hub).await.expect("a handshake"));
    let mut client = RawMqtt::new(muster.dial_mqtt(&muster.device_host).await.expect("a handshake"));
    let scope = &muster.id_scope;
    let password = token(&muster, &format!("{scope}%2Fregistrations%2Fnobody"));
    let username = format!("{scope}/registrations/nobody/api-version=2019-03-31");
    let introduction = connect("nobody", &username, &password).expect("text");
    client.say(&Packet::Connect(Box::new(introduction))).await;
    assert!(matches!(client.hear().await, Heard::Packet(Packet::Connack(Connack::Accepted { .. }))));
    let topic = Text::try_from("$dps/registrations/res/#".to_owned()).expect("text");
    let filters = vec![Filter { topic, qos: QoS::AtMostOnce }];
    client.say(&Packet::Subscribe { packet_id: packet(1), filters }).await;
    assert!(matches!(client.hear().await, Heard::Packet(Packet::Suback { .. })));
    let mut held = store.hold("find_enrollment");
    client.say(&publish("$dps/registrations/PUT/iotdps-register/?$rid=1", Some(2), "{}")).await;
    assert_eq!(client.hear().await, Heard::Packet(Packet::Puback(Some(packet(2)))));
    timeout(PATIENCE, held.done()).await.expect("the registration is under way");
    let answer = async {
        turned_away(&mut other, &hub).await;
        drop(held);
        let Heard::Packet(Packet::Publish(answer)) = client.hear().await else { panic!("no answer") };
        assert_eq!(&*answer.topic, "$dps/registrations/res/401/?$rid=1");
        assert_eq!(client.hear().await, Heard::Closed);
    };
    let (drained, ()) = tokio::join!(muster.stop(), answer);
    assert_eq!(drained, Drained::Finished);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_comes_while_others_finish_is_told_to_come_again() {
    let muster = start().await;
    let (hub, device_host) = (muster.hub.host.clone(), muster.device_host.clone());
    let path = format!("/{}/registrations/dev/register?api-version=2019-03-31", muster.id_scope);
    let mut running = muster.dial_https(&device_host).await.expect("a handshake");
    let head =
        format!("PUT {path} HTTP/1.1\r\nHost: {device_host}\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
    running.write_all(head.as_bytes()).await.expect("sent");
    let mut permission = [0; 25];
    running.read_exact(&mut permission).await.expect("the request is under way");
    assert_eq!(&permission, b"HTTP/1.1 100 Continue\r\n\r\n");

    let (mut at_hub, mut silent) = (dial(&muster).await, dial(&muster).await);
    let mut kept_open = RawHttp::new(muster.dial_https(&device_host).await.expect("a handshake"));
    assert_eq!(kept_open.exchange(&get(&device_host, "/nothing")).await.expect("an answer").status, 404);
    let introduction = Packet::Connect(Box::new(introduction(&muster)));
    let mut at_hub_https = RawHttp::new(muster.dial_https(&hub).await.expect("a handshake"));
    let others = async {
        turned_away(&mut at_hub_https, &hub).await;
        let answer = kept_open.exchange(&get(&device_host, &path)).await.expect("an answer");
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("3")), "{}", answer.text());
        assert!(answer.text().contains("\"errorCode\":503001"), "{}", answer.text());
        at_hub.say(&introduction).await;
        let refused = Packet::Connack(Connack::Refused(Refusal::ServerUnavailable));
        assert_eq!(at_hub.hear().await, Heard::Packet(refused));
        assert_eq!(at_hub.hear().await, Heard::Closed);

        running.write_all(b"{}").await.expect("sent");
        let mut reply = Vec::new();
        running.read_to_end(&mut reply).await.expect("an answer");
        let reply = text(&reply);
        assert!(reply.starts_with("HTTP/1.1 401 ") && reply.contains("\r\nconnection: close\r\n"), "{reply}");
        assert_eq!(silent.hear().await, Heard::Closed);
    };
    let (drained, ()) = tokio::join!(muster.stop(), others);
    assert_eq!(drained, Drained::Finished);
}

/// Asks the hub at `host` for something until the drain has begun: up to then a request is judged.
async fn turned_away(client: &mut RawHttp<TlsStream<TcpStream>>, host: &str) {
    loop {
        let answer = client.exchange(&get(host, "/devices/x?api-version=2021-04-12")).await.expect("an answer");
        if answer.status == 503 {
            assert_eq!(answer.header("iothub-errorcode"), Some("ServiceUnavailable"), "{}", answer.text());
            assert_eq!((answer.header("retry-after"), answer.header("connection")), (Some("3"), Some("close")));
            break;
        }
        assert_eq!(answer.status, 401, "{}", answer.text());
    }
}

/// A request that nobody signed.
fn get(host: &str, target: &str) -> RawRequest {
    let headers = vec![("Host".to_owned(), host.as_bytes().to_vec())];
    RawRequest { method: "GET".to_owned(), target: target.to_owned(), headers, body: Vec::new() }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
