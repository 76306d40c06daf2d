//! A registration against the service's end of MQTT, over bytes in memory and in virtual time.

use proto::mqtt::SubackCode;

use super::*;
use crate::device::testing::{Server, connected};

const REGISTER_1: &str = "$dps/registrations/PUT/iotdps-register/?$rid=1";
const REGISTER_2: &str = "$dps/registrations/PUT/iotdps-register/?$rid=2";
const STATUS_2: &str = "$dps/registrations/GET/iotdps-get-operationstatus/?$rid=2&operationId=5.a.b";
const STATUS_3: &str = "$dps/registrations/GET/iotdps-get-operationstatus/?$rid=3&operationId=5.a.b";
const ASSIGNING: &str = r#"{"operationId":"5.a.b","status":"assigning"}"#;
const ASSIGNED: &str = r#"{"operationId":"5.a.b","status":"assigned","registrationState":{"registrationId":"cave",
    "assignedHub":"127.0.0.2","deviceId":"cave","status":"assigned"}}"#;

/// A request that is expected, and what is answered to it: the rest of the topic behind `res/`, and the body.
type Exchange<'a> = (&'a str, &'a [(&'a str, &'a str)]);

/// Registers while the service answers as told, then hangs up.
async fn register(exchanges: &[Exchange<'_>]) -> Result<Registration, DeviceError> {
    let (mut link, _, mut server): (_, _, Server) = connected().await;
    let serving = async {
        server.grant(RESPONSES, SubackCode::Granted(QoS::AtLeastOnce)).await;
        for (expected, answers) in exchanges {
            assert_eq!(server.message().await.topic, **expected);
            for (topic, body) in *answers {
                server.publish(&format!("$dps/registrations/res/{topic}"), body).await;
            }
        }
        drop(server);
    };
    let body = Bytes::from_static(b"{}");
    tokio::join!(converse(&mut link, &body), serving).0
}

#[tokio::test(start_paused = true)]
async fn a_device_polls_when_it_was_told_to_until_it_has_a_hub() {
    let started = Instant::now();
    let registered = register(&[
        (REGISTER_1, &[("202/?$rid=1&retry-after=3", ASSIGNING)]),
        (STATUS_2, &[("202/?$rid=2&retry-after=5", ASSIGNING)]),
        (STATUS_3, &[("200/?$rid=3", ASSIGNED)]),
    ]);
    let registered = registered.await.unwrap();
    assert_eq!((registered.assigned_hub.as_str(), registered.operation_id.as_str()), ("127.0.0.2", "5.a.b"));
    assert_eq!(started.elapsed().as_secs(), 8);
}

#[tokio::test(start_paused = true)]
async fn an_overloaded_service_is_asked_again_and_other_answers_are_let_pass() {
    let registered = register(&[
        (REGISTER_1, &[("429/?$rid=1&retry-after=7", "")]),
        (REGISTER_2, &[("401/?$rid=1", "{}"), ("200/?$rid=21", "{}"), ("200/?$rid=2", ASSIGNED)]),
    ]);
    assert_eq!(registered.await.unwrap().device_id, "cave");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_ends_the_registration_with_its_tracking_id() {
    let body = r#"{"errorCode":401002,"trackingId":"t-1","message":"Unauthorized"}"#;
    let error = register(&[(REGISTER_1, &[("401/?$rid=1", body)])]).await.unwrap_err();
    let DeviceError::Refused(refused) = error else { panic!("{error:?}") };
    assert_eq!((refused.status, refused.code, refused.tracking_id.as_deref()), (401, Some(401_002), Some("t-1")));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_hangs_up_or_answers_nonsense_is_told_apart() {
    let cases: [(&str, &[(&str, &str)], &str); 3] = [
        ("before an answer", &[], "the connection ended: the connection was lost"),
        (
            "while the device waits",
            &[("202/?$rid=1&retry-after=3", ASSIGNING)],
            "the connection ended: the connection was lost",
        ),
        ("with a status that is none", &[("many/?$rid=1", ASSIGNED)], "the answer to the registration cannot be read"),
    ];
    for (name, answers, expected) in cases {
        assert_eq!(register(&[(REGISTER_1, answers)]).await.unwrap_err().to_string(), expected, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_never_answers_is_given_up() {
    let (mut link, _, mut server) = connected().await;
    let body = Bytes::from_static(b"{}");
    let serving = async {
        server.grant(RESPONSES, SubackCode::Granted(QoS::AtLeastOnce)).await;
        server.message().await
    };
    let (given_up, _) = tokio::join!(converse(&mut link, &body), serving);
    assert_eq!(given_up.unwrap_err().to_string(), "no answer to the registration within 30 s");
}
