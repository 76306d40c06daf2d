//! A device against the server's end of MQTT, over bytes in memory.

use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::message::SystemProperties;
use domain::operation::Transport;
use proto::mqtt::{Connect, Connection, Event, Limits};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use super::*;
use crate::device::wire::Wire;
use crate::https::Server;

/// The hub's end, doing what the test tells it.
struct Hub {
    stream: DuplexStream,
    connection: Connection,
}

impl Hub {
    async fn next(&mut self) -> Event {
        loop {
            self.flush().await;
            if let Some(event) = self.connection.poll_event() {
                return event;
            }
            let mut bytes = [0; 512];
            match self.stream.read(&mut bytes).await.unwrap() {
                0 => self.connection.handle_eof(),
                count => self.connection.handle_input(&bytes[..count], Instant::now()),
            }
        }
    }

    async fn flush(&mut self) {
        let output = self.connection.output().to_vec();
        self.stream.write_all(&output).await.unwrap();
        self.connection.handle_written(output.len());
    }

    async fn publish(&mut self, topic: &str, body: &str) {
        let topic = Text::try_from(topic.to_owned()).unwrap();
        self.connection.publish(&Message::new(topic, body.to_owned().into(), QoS::AtMostOnce)).unwrap();
        self.flush().await;
    }

    async fn grant(&mut self, filter: &str, code: SubackCode) {
        let event = self.next().await;
        let Event::Subscribe { packet_id, filters } = event else { panic!("{event:?}") };
        assert_eq!(filters[0].topic, *filter);
        self.connection.suback(packet_id, vec![code]);
        self.flush().await;
    }

    /// The next message, acknowledged.
    async fn message(&mut self) -> Message {
        let event = self.next().await;
        let Event::Publish { ticket, message } = event else { panic!("{event:?}") };
        self.connection.acknowledge(ticket);
        self.flush().await;
        message
    }
}

async fn connected() -> (DeviceClient, Hub) {
    let (device, hub) = tokio::io::duplex(4_096);
    let mut hub = Hub { stream: hub, connection: Connection::new(Arc::new(Limits::default()), Instant::now()) };
    let dial = Dial::new(Server { host: "127.0.0.2".to_owned(), port: 8883 }, Transport::Mqtt);
    let connect = Connect {
        client_id: Text::try_from("cave").unwrap(),
        clean_session: false,
        keep_alive_s: 180,
        will: None,
        username: Some(Text::try_from("127.0.0.2/cave").unwrap()),
        password: None,
    };
    let accepting = async {
        assert!(matches!(hub.next().await, Event::Connect(_)));
        hub.connection.accept(true, Instant::now());
        hub.flush().await;
    };
    let (link, ()) = tokio::join!(Link::introduce(Wire::Stream(Box::new(device)), &dial, connect), accepting);
    let (link, session_present) = link.unwrap();
    (DeviceClient::over(link, "cave", session_present), hub)
}

fn telemetry() -> Draft {
    Draft {
        body: Bytes::from_static(b"{\"temperature\":20.5}"),
        system: SystemProperties { content_type: Some("application/json".to_owned()), ..SystemProperties::default() },
        properties: vec![("temperatureAlert".to_owned(), Some("false".to_owned()))],
    }
}

#[tokio::test]
async fn telemetry_is_sent_when_the_hub_has_acknowledged_it() {
    let (mut device, mut hub) = connected().await;
    assert!(device.session_present());
    let message = telemetry();
    let (sent, received) = tokio::join!(device.send(&message), hub.message());
    sent.unwrap();
    assert_eq!(received.topic, "devices/cave/messages/events/%24.ct=application%2Fjson&temperatureAlert=false");
    assert_eq!((received.payload, received.qos), (message.body, QoS::AtLeastOnce));
    assert_eq!(device.in_flight(), 0);
}

#[tokio::test]
async fn a_change_that_comes_while_an_acknowledgement_is_awaited_is_kept() {
    let (mut device, mut hub) = connected().await;
    let serving = async {
        hub.publish("$iothub/twin/PATCH/properties/desired/?$version=2", r#"{"temperature":50.123,"$version":2}"#)
            .await;
        hub.message().await
    };
    let message = telemetry();
    let (sent, _) = tokio::join!(device.send(&message), serving);
    sent.unwrap();
    let expected = DesiredChange { version: 2, properties: json!({ "temperature": 50.123, "$version": 2 }) };
    assert_eq!(device.desired().await.unwrap(), expected);
}

#[tokio::test]
async fn the_twin_is_read_and_reported_to() {
    let (mut device, mut hub) = connected().await;
    let serving = async {
        hub.grant(TWIN_ANSWERS, SubackCode::Granted(QoS::AtLeastOnce)).await;
        assert_eq!(hub.message().await.topic, "$iothub/twin/GET/?$rid=1");
        // An answer to somebody else's request comes first.
        hub.publish("$iothub/twin/res/200/?$rid=7", "{}").await;
        hub.publish("$iothub/twin/res/200/?$rid=1", r#"{"desired":{"$version":1},"reported":{"$version":4}}"#).await;
        let report = hub.message().await;
        assert_eq!(report.topic, "$iothub/twin/PATCH/properties/reported/?$rid=2");
        hub.publish("$iothub/twin/res/204/?$rid=2&$version=5", "").await;
        assert_eq!(hub.message().await.topic, "$iothub/twin/PATCH/properties/reported/?$rid=3");
        hub.publish("$iothub/twin/res/400/?$rid=3", r#"{"errorCode":400004,"message":"bad"}"#).await;
        report.payload
    };
    let asking = async {
        assert_eq!(device.twin().await.unwrap().versions(), (Some(1), Some(4)));
        assert_eq!(device.report(&json!({ "temperature": 50.123 })).await.unwrap(), 5);
        device.report(&json!({ "a b": 1 })).await.unwrap_err().to_string()
    };
    let (refusal, reported) = tokio::join!(asking, serving);
    assert_eq!(refusal, "the server answered 400 (400004): bad");
    assert_eq!(reported, r#"{"temperature":50.123}"#);
}

#[tokio::test]
async fn a_refused_subscription_is_named() {
    let (mut device, mut hub) = connected().await;
    let (subscribed, ()) = tokio::join!(device.subscribe_desired(), hub.grant(DESIRED, SubackCode::Failure));
    let expected = format!("the server did not grant the subscription to {DESIRED}");
    assert_eq!(subscribed.unwrap_err().to_string(), expected);
}

#[tokio::test]
async fn a_full_window_opens_with_the_next_acknowledgement() {
    let (mut device, mut hub) = connected().await;
    let window = device.link.in_flight();
    let message = telemetry();
    let mut started = 0_usize;
    while device.start_send(&message).is_ok() {
        started += 1;
    }
    assert_eq!(device.in_flight(), window + started);
    let acknowledging = async {
        for _ in 0..=started {
            hub.message().await;
        }
    };
    let (sent, ()) = tokio::join!(device.send(&message), acknowledging);
    sent.unwrap();
    for _ in 0..started {
        assert!(matches!(device.next_event().await.unwrap(), DeviceEvent::Acknowledged(_)));
    }
    assert_eq!(device.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_quiet_device_pings_and_notices_that_nobody_answers() {
    let (mut device, mut hub) = connected().await;
    let started = tokio::time::Instant::now();
    let deaf = async {
        // The hub's end answers pings by itself while it is driven; it is driven for the first one only.
        let _ = tokio::time::timeout(Duration::from_secs(200), hub.next()).await;
        hub
    };
    let (ended, _hub) = tokio::join!(device.next_event(), deaf);
    assert!(matches!(ended.unwrap_err(), DeviceError::Closed(proto::mqtt::ClientCloseReason::PingrespTimeout)));
    assert!(started.elapsed() > Duration::from_secs(200));
}

#[tokio::test]
async fn a_lost_connection_is_said_once_and_then_nothing_is_sent() {
    let (mut device, hub) = connected().await;
    drop(hub);
    assert!(matches!(device.next_event().await.unwrap_err(), DeviceError::Closed(_)));
    assert!(matches!(device.send(&telemetry()).await.unwrap_err(), DeviceError::Unsent(Unpublished::NotConnected)));
    assert!(device.next_event().await.is_err());
}
