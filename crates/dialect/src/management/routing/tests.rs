use domain::clock::UnixTime;
use domain::route::{Condition, Route};

use super::*;
use crate::management::arm;

const HUB: &str = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Devices/IotHubs/hub";

fn send(line: &str, body: &Value) -> Result<Operation, Refused> {
    let (method, path) = line.split_once(' ').unwrap();
    let uri = if path.starts_with("/muster") { path.to_owned() } else { format!("{HUB}{path}?api-version=2023-06-30") };
    let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
    let request = Request::builder().method(method).uri(uri).body(body).unwrap();
    let target = Target::parse(request.uri()).unwrap();
    if owns_letters(&target) { decode_letters(&request, &target) } else { Ok(arm::decode(&request, &target)?.0) }
}

fn ask(line: &str, body: &Value) -> Ask {
    match send(line, body) {
        Ok(Operation::Route(ask)) => ask,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn a_message_to_try_is_read_with_all_that_conditions_look_at() {
    let body = json!({
        "routingSource": "DeviceMessages",
        "message": {
            "body": "{\"a\":1}",
            "appProperties": { "level": "hot" },
            "systemProperties": { "contentType": "application/json", "$contentEncoding": "utf-8", "connectionDeviceId": "d" },
        },
        "twin": { "tags": { "site": "x" }, "properties": { "desired": {}, "reported": {} } },
    });
    let Ask::TestAll { hub, source, sample, .. } = ask("POST /routing/routes/$testall", &body) else { panic!() };
    assert_eq!((hub.as_str(), source), ("hub", Some(Source::DeviceMessages)));
    assert_eq!((sample.sender.device.as_str(), sample.message.body.as_ref()), ("d", b"{\"a\":1}".as_slice()));
    assert_eq!(sample.message.properties, [("level".to_owned(), Some("hot".to_owned()))]);
    assert_eq!(sample.message.system.content_encoding.as_deref(), Some("utf-8"));
    assert_eq!(sample.twin.unwrap()["tags"]["site"], "x");

    let body = json!({ "route": { "name": "r", "condition": "a = 'b'" } });
    let Ask::TestNew { condition, sample, .. } = ask("POST /Routing/Routes/$TestNew", &body) else { panic!() };
    assert_eq!((condition.as_str(), sample.sender.device.as_str(), &sample.twin), ("a = 'b'", SAMPLE_DEVICE, &None));
    assert!(matches!(ask("GET /routingEndpointsHealth", &Value::Null), Ask::Health { .. }));
}

#[test]
fn dead_letters_are_listed_sent_again_and_purged() {
    const LETTERS: &str = "/muster/v1/hubs/hub/endpoints/hook/deadLetters";
    let of = |line: String| ask(&line, &Value::Null);
    assert!(matches!(of(format!("GET {LETTERS}")), Ask::ListDeadLetters { limit: LIST_DEFAULT, .. }));
    assert!(matches!(of(format!("GET {LETTERS}?limit=7")), Ask::ListDeadLetters { limit: 7, .. }));
    assert!(matches!(of(format!("POST {LETTERS}/replay")), Ask::Replay { .. }));
    assert!(matches!(of(format!("DELETE {LETTERS}")), Ask::Purge { .. }));
}

#[test]
fn what_is_not_understood_is_refused() {
    let cases = [
        ("GET /routing/routes/$testall", json!({}), ErrorKind::NotSupported),
        ("POST /routing/routes/$testsome", json!({}), ErrorKind::ResourceNotFound),
        ("POST /routing/routes/$testall", Value::Null, ErrorKind::InvalidBody),
        ("POST /routing/routes/$testall", json!({ "routingSource": "Gossip" }), ErrorKind::InvalidArgument),
        ("POST /routing/routes/$testall", json!({ "message": { "body": 7 } }), ErrorKind::InvalidBody),
        (
            "POST /routing/routes/$testall",
            json!({ "message": { "appProperties": { "a": 1 } } }),
            ErrorKind::InvalidArgument,
        ),
        ("POST /routing/routes/$testall", json!({ "message": { "body": "x".repeat(300_000) } }), ErrorKind::TooLarge),
        ("POST /routing/routes/$testnew", json!({}), ErrorKind::InvalidBody),
        ("POST /routingEndpointsHealth", json!({}), ErrorKind::NotSupported),
        ("PUT /muster/v1/hubs/hub/endpoints/hook/deadLetters", json!({}), ErrorKind::NotSupported),
        ("GET /muster/v1/hubs/hub/endpoints/hook/deadLetters/replay", json!({}), ErrorKind::NotSupported),
        ("GET /muster/v1/hubs/hub/endpoints/hook/deadLetters?limit=0", json!({}), ErrorKind::InvalidArgument),
        ("GET /muster/v1/hubs/hub/endpoints/hook/letters", json!({}), ErrorKind::ResourceNotFound),
        ("GET /muster/v1/hubs/hub/endpoints/a%20b/deadLetters", json!({}), ErrorKind::InvalidArgument),
    ];
    for (line, body, kind) in cases {
        assert_eq!(send(line, &body).map(drop).map_err(|refused| refused.kind), Err(kind), "{line}");
    }
}

fn shown(answer: Answer) -> Value {
    serde_json::from_slice(encode(Ok(Reply::Route(answer))).body()).unwrap()
}

#[test]
fn answers_have_the_shapes_that_clients_read() {
    let route = Route {
        name: "hot".parse().unwrap(),
        source: Source::DeviceMessages,
        condition: Condition::parse("true").unwrap(),
        endpoint: "events".parse().unwrap(),
        enabled: true,
    };
    assert_eq!(shown(Answer::Taking(vec![route]))["routes"][0]["properties"]["name"], "hot");
    for (outcome, word) in [(Some(true), "true"), (Some(false), "false"), (None, "undefined")] {
        let shown = shown(Answer::Tested(Ok(outcome)));
        assert_eq!((&shown["result"], &shown["details"]["compilationErrors"]), (&json!(word), &json!([])));
    }
    let invalid = Condition::parse("a =").unwrap_err();
    let error = &shown(Answer::Tested(Err(invalid)))["details"]["compilationErrors"][0];
    assert_eq!((&error["severity"], &error["location"]["start"]["column"]), (&json!("error"), &json!(4)));
    let health = EndpointHealth {
        endpoint: "hook".parse().unwrap(),
        status: HealthStatus::Unhealthy,
        last_error: Some("503".to_owned()),
        last_error_at: Some(UnixTime::from_micros(0)),
        last_success_at: None,
        last_attempt_at: None,
        dead_letters: 2,
        lost: 0,
    };
    let expected = json!({
        "endpointId": "hook", "healthStatus": "unhealthy", "lastKnownError": "503",
        "lastKnownErrorTime": "Thu, 01 Jan 1970 00:00:00 GMT", "deadLetterCount": 2, "lostMessageCount": 0,
    });
    assert_eq!(shown(Answer::Health(vec![health]))["value"][0], expected);
}
