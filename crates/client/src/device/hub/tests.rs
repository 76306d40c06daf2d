//! A device against the server's end of MQTT, over bytes in memory.

use std::time::Duration;

use domain::message::SystemProperties;
use serde_json::json;

use super::*;
use crate::device::testing::{self, Server};

async fn connected() -> (DeviceClient, Server) {
    let (link, session_present, server) = testing::connected().await;
    (DeviceClient::over(link, "cave", session_present), server)
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
