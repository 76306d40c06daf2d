use bytes::Bytes;
use serde_json::json;

use super::*;
use crate::ids::{DeviceId, HubKey};
use crate::message::{Draft, Origin};
use crate::operation::identity::IdentityName;
use crate::operation::session::AuthenticationMethod;
use crate::query::{Fault, TEXT_BYTES_MAX, parse_condition};

const JSON: (Option<&str>, Option<&str>) = (Some("application/json; charset=utf-8"), Some("UTF-8"));

fn message(body: &str, (content_type, encoding): (Option<&str>, Option<&str>)) -> Message {
    let system = SystemProperties {
        message_id: Some("m-1".to_owned()),
        content_type: content_type.map(str::to_owned),
        content_encoding: encoding.map(str::to_owned),
        component: Some("thermostat".to_owned()),
        created_at: Some("2024-01-31T11:00:00Z".to_owned()),
        message_schema: Some("schema".to_owned()),
        ..SystemProperties::default()
    };
    let property = |name: &str, value: Option<&str>| (name.to_owned(), value.map(str::to_owned));
    let properties = vec![
        property("Level", Some("critical")),
        property("number", Some("12.5")),
        property("my property", Some("x")),
        property("$messageId", Some("not the system's")),
        property("true", Some("a word")),
        property("a.b", Some("dotted")),
        property("bare", None),
    ];
    Message {
        hub: HubKey(1),
        partition: 0,
        sender: IdentityName::device(DeviceId::parse("dev-1").unwrap()),
        generation: "7".to_owned(),
        origin: Origin::Telemetry(AuthenticationMethod::DeviceKey),
        model_id: Some("dtmi:a;1".to_owned()),
        draft: Draft { body: Bytes::from(body.to_owned()), system, properties },
    }
}

fn truth_of(text: &str, message: &Message) -> Option<bool> {
    let twin = json!({ "tags": { "site": "Köln" }, "properties": { "desired": { "limit": 5 }, "reported": {} } });
    let around = Surroundings { enqueued_at: Some(UnixTime::from_micros(0)), twin: twin.as_object() };
    let condition = parse_condition(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    condition.truth(&document(message, around, true))
}

#[test]
fn conditions_see_properties_body_and_twin() {
    const T: Option<bool> = Some(true);
    const F: Option<bool> = Some(false);
    let message = message(r#"{"temperature":21.5,"rooms":[{"name":"a"},{"name":"b"}],"on":true,"tags":[]}"#, JSON);
    let cases: &[(&str, Option<bool>)] = &[
        ("true", T),
        ("level = 'critical'", T),
        ("LEVEL = 'critical' AND {Level} = 'critical'", T),
        ("level = 'Critical'", F),
        ("level IN ['low', 'critical']", T),
        ("level IN['low']", F),
        ("AS_NUMBER(number) > 12", T),
        ("number > 12", None),
        ("{my property} = 'x'", T),
        ("{$messageId} = 'not the system\\'s'", T),
        ("{true} = 'a word'", T),
        ("a.b = 'dotted'", T),
        ("IS_DEFINED(bare) AND bare = null", T),
        ("gone = 'x'", None),
        ("NOT IS_DEFINED(gone)", T),
        ("status = 'enabled'", None),
        ("$messageId = 'm-1' AND $MESSAGEID = 'm-1'", T),
        ("$contentEncoding = 'UTF-8'", T),
        ("$connectionDeviceId = 'dev-1' AND $messageSource = 'DeviceMessages'", T),
        ("$dt-subject = 'thermostat' AND $dt-dataschema='dtmi:a;1'", T),
        ("$enqueuedTime < '2000'", T),
        ("{iothub-creation-time-utc} = $creationTimeUtc", T),
        ("{iothub-message-schema} = 'schema'", T),
        ("$body.temperature > 20 AND $body.temperature-1 < 21", T),
        ("$Body.Temperature > 20", None),
        ("$body.on", T),
        ("$body.rooms[1].name = 'b'", T),
        ("$body.rooms[2].name = 'b'", None),
        ("IS_ARRAY($body.rooms)", T),
        ("$body.[[temperature]] = 21.5", T),
        ("$twin.tags.site = 'Köln' OR false", T),
        ("$body.temperature > $twin.properties.desired.limit", T),
        ("$twin.properties.reported.x = 1", None),
        ("starts_with(level, 'crit')", T),
    ];
    for (text, expected) in cases {
        assert_eq!(truth_of(text, &message), *expected, "{text}");
    }
}

#[test]
fn a_body_is_seen_if_its_sender_says_that_it_is_json_in_utf_8() {
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    let cases: &[(&str, &str, (Option<&str>, Option<&str>), bool)] = &[
        ("said", "{\"a\":1}", JSON, true),
        ("in small letters", "{\"a\":1}", (Some("APPLICATION/JSON"), Some("utf8")), true),
        ("no content type", "{\"a\":1}", (None, Some("utf-8")), false),
        ("no encoding", "{\"a\":1}", (Some("application/json"), None), false),
        ("another encoding", "{\"a\":1}", (Some("application/json"), Some("utf-16")), false),
        ("not JSON", "{\"a\":", JSON, false),
        ("nothing", "", JSON, false),
        ("too deep", &deep, JSON, false),
    ];
    for (name, body, said, is_seen) in cases {
        assert_eq!(truth_of("IS_DEFINED($body)", &message(body, *said)), Some(*is_seen), "{name}");
    }
}

#[test]
fn what_is_no_condition_says_where_and_what() {
    let cases: &[(&str, usize, &str)] = &[
        ("", 1, "expected a value, found the end of the query"),
        ("level =", 8, "expected a value, found the end of the query"),
        ("level = 'a' 'b'", 13, "expected an operator or the end of the condition, found the text \"b\""),
        ("$bodi.a = 1", 1, "$bodi is not a system property of messages"),
        ("$messageId.a = 1", 1, "$messageId.a is not a system property of messages"),
        ("{open = 1", 1, "{ is not closed"),
        ("SELECT * FROM devices", 1, "expected a value, found SELECT"),
        ("shout(level)", 1, "shout is not a function of the language"),
        ("level[0] = 1", 6, "expected an operator or the end of the condition, found ["),
    ];
    for (text, at, fault) in cases {
        let invalid = parse_condition(text).expect_err(text);
        assert_eq!((invalid.at, invalid.fault.to_string().as_str()), (*at, *fault), "{text}");
    }
    let long = format!("level = '{}'", "x".repeat(TEXT_BYTES_MAX));
    assert_eq!(parse_condition(&long).unwrap_err().fault, Fault::TooLong);
    assert_eq!(parse_condition(&"(".repeat(100)).unwrap_err().fault, Fault::TooDeep);
    assert_eq!(parse_condition(&"1+".repeat(400)).unwrap_err().fault, Fault::TooManyTerms);
}

#[test]
fn what_a_condition_looks_at_is_known() {
    let cases = [("true", false, false), ("$body.a = $twin.tags.b", true, true), ("a = 'b'", false, false)];
    for (text, body, twin) in cases {
        let condition = parse_condition(text).unwrap();
        assert_eq!((condition.looks_at_body(), condition.looks_at_twin()), (body, twin), "{text}");
    }
}
