//! Telemetry in HTTP requests: one message, or a batch of them (`contract/hub-device.md 5.2`).
//!
//! A single message has its properties in headers, whose names HTTP does not tell apart by letter case: they arrive in
//! lower case. A batch is JSON, in which names are kept. Nothing here judges who sends. Start at [`decode`], or at a device's
//! end at [`encode`].

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use domain::message::{BATCH_BYTES_MAX, Draft, InvalidMessage, PROPERTIES_MAX, SystemProperties};
use domain::operation::ErrorKind;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request};
use serde_json::{Map, Value};

use super::telemetry_amqp::BATCH_MESSAGES_MAX;
use crate::error::Refused;
use crate::json::{self, InvalidJson};

/// The content type of a batch.
const BATCH: &str = "application/vnd.microsoft.iothub.json";
/// What stands before the name of an application property.
const PROPERTY_PREFIX: &str = "iothub-app-";

/// What HTTP calls the system properties that it has a name for.
const SYSTEM: [&str; 10] = [
    "iothub-messageid",
    "iothub-correlationid",
    "iothub-userid",
    "iothub-expiry",
    "iothub-contenttype",
    "iothub-contentencoding",
    "iothub-interface-id",
    "iothub-messageschema",
    "iothub-creationtimeutc",
    "dt-subject",
];

/// A request that carries `draft` alone, as a device sends it; where it goes, and who sends it, is for the caller. Names
/// of properties arrive in lower case, and a property without a value with an empty one.
///
/// # Errors
/// When HTTP cannot carry a property.
pub fn encode(draft: &Draft) -> Result<Request<Bytes>, http::Error> {
    let mut request = Request::post("/").header(CONTENT_TYPE, "application/octet-stream");
    let mut said = draft.system.clone();
    for name in SYSTEM {
        if let Some(value) = system(&mut said, name).and_then(Option::take) {
            request = request.header(name, value);
        }
    }
    for (name, value) in &draft.properties {
        request = request.header(format!("{PROPERTY_PREFIX}{name}"), value.as_deref().unwrap_or_default());
    }
    request.body(draft.body.clone())
}

/// The messages of a request, all of which keep the limits.
pub fn decode(request: &Request<Bytes>) -> Result<Vec<Draft>, Refused> {
    let drafts = if is_batch(request) { decode_batch(request.body())? } else { vec![decode_single(request)?] };
    let mut bytes = 0;
    for draft in &drafts {
        draft.check().map_err(|invalid| too_large(&invalid))?;
        bytes += draft.size();
    }
    if bytes > BATCH_BYTES_MAX {
        return Err(too_large(&InvalidMessage::TooLarge { bytes }));
    }
    Ok(drafts)
}

/// What follows a semicolon is a parameter of the type.
fn is_batch(request: &Request<Bytes>) -> bool {
    let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let named = content_type.and_then(|value| value.split(';').next());
    named.is_some_and(|name| name.trim().eq_ignore_ascii_case(BATCH))
}

fn too_large(invalid: &InvalidMessage) -> Refused {
    Refused::not_understood(ErrorKind::TooLarge, invalid)
}

fn decode_single(request: &Request<Bytes>) -> Result<Draft, Refused> {
    let mut draft = Draft { body: request.body().clone(), ..Draft::default() };
    for (name, value) in request.headers() {
        // A property may be called like a header that a connection adds; without the prefix it is none.
        match name.as_str().strip_prefix(PROPERTY_PREFIX) {
            Some(property) => set_property(&mut draft, property, Some(&text_of(value)))?,
            None => {
                if let Some(slot) = system(&mut draft.system, name.as_str()) {
                    *slot = Some(text_of(value));
                }
            }
        }
    }
    Ok(draft)
}

/// The text of a header: UTF-8, or Latin-1 as Node writes it.
fn text_of(value: &HeaderValue) -> String {
    let bytes = value.as_bytes();
    std::str::from_utf8(bytes).map_or_else(|_| bytes.iter().map(|&byte| char::from(byte)).collect(), str::to_owned)
}

fn decode_batch(body: &[u8]) -> Result<Vec<Draft>, Refused> {
    let Value::Array(items) = json::parse(body)? else {
        return Err(InvalidJson::Type { member: "the body", wanted: "a list of messages" }.into());
    };
    if items.len() > BATCH_MESSAGES_MAX {
        let words = format!("A batch has at most {BATCH_MESSAGES_MAX} messages.");
        return Err(Refused::new(ErrorKind::TooLarge, words));
    }
    items.iter().map(decode_item).collect()
}

fn decode_item(item: &Value) -> Result<Draft, Refused> {
    if !item.is_object() {
        return Err(InvalidJson::Type { member: "a message", wanted: "an object" }.into());
    }
    let body = json::text(item, "body")?.unwrap_or_default();
    let is_encoded = json::boolean(item, "base64Encoded")?.unwrap_or(true);
    let body = match is_encoded {
        true => STANDARD.decode(&body).map_err(|_| InvalidJson::Type { member: "body", wanted: "base64" })?.into(),
        false => Bytes::from(body),
    };
    let mut draft = Draft { body, ..Draft::default() };
    match item.get("properties") {
        None | Some(Value::Null) => {}
        Some(Value::Object(properties)) => decode_properties(&mut draft, properties)?,
        Some(_) => return Err(InvalidJson::Type { member: "properties", wanted: "an object" }.into()),
    }
    Ok(draft)
}

/// A name without a prefix is that of an application property, unless it has a meaning of its own.
fn decode_properties(draft: &mut Draft, properties: &Map<String, Value>) -> Result<(), Refused> {
    for (name, value) in properties {
        let value = match value {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
            Value::Array(_) | Value::Object(_) => {
                return Err(InvalidJson::Type { member: "a property", wanted: "a string" }.into());
            }
        };
        if let Some(property) = strip_prefix(name) {
            set_property(draft, property, value.as_deref())?;
        } else if let Some(slot) = system(&mut draft.system, &name.to_ascii_lowercase()) {
            *slot = value;
        } else if !is_ignored(name) {
            set_property(draft, name, value.as_deref())?;
        }
    }
    Ok(())
}

fn strip_prefix(name: &str) -> Option<&str> {
    let (prefix, property) = name.split_at_checked(PROPERTY_PREFIX.len())?;
    prefix.eq_ignore_ascii_case(PROPERTY_PREFIX).then_some(property)
}

/// What clients say beside a message's own properties.
fn is_ignored(name: &str) -> bool {
    ["iothub-to", "iothub-operation", "iothub-name"].iter().any(|ignored| name.eq_ignore_ascii_case(ignored))
}

fn set_property(draft: &mut Draft, name: &str, value: Option<&str>) -> Result<(), Refused> {
    if name.is_empty() {
        return Ok(());
    }
    draft.set_property(name, value);
    match draft.properties.len() {
        properties if properties > PROPERTIES_MAX => Err(too_large(&InvalidMessage::TooManyProperties { properties })),
        _ => Ok(()),
    }
}

/// Where the system property `name`, in lower case, is kept.
fn system<'a>(system: &'a mut SystemProperties, name: &str) -> Option<&'a mut Option<String>> {
    Some(match name {
        "iothub-messageid" => &mut system.message_id,
        "iothub-correlationid" => &mut system.correlation_id,
        "iothub-userid" => &mut system.user_id,
        "iothub-expiry" => &mut system.expires_at,
        "iothub-contenttype" => &mut system.content_type,
        "iothub-contentencoding" => &mut system.content_encoding,
        "iothub-interface-id" => &mut system.interface_id,
        "iothub-messageschema" => &mut system.message_schema,
        "iothub-creationtimeutc" => &mut system.created_at,
        "dt-subject" => &mut system.component,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn post(headers: &[(&str, &[u8])], body: &str) -> Request<Bytes> {
        let mut request = Request::post("/devices/d/messages/events");
        for (name, value) in headers {
            request = request.header(*name, HeaderValue::from_bytes(value).unwrap());
        }
        request.body(Bytes::copy_from_slice(body.as_bytes())).unwrap()
    }

    fn batch(body: &str) -> Result<Vec<Draft>, Refused> {
        decode(&post(&[("Content-Type", b"application/vnd.microsoft.iothub.json; charset=utf-8")], body))
    }

    fn properties(draft: &Draft) -> Vec<(&str, Option<&str>)> {
        draft.properties.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect()
    }

    fn everything() -> SystemProperties {
        let some = |text: &str| Some(text.to_owned());
        SystemProperties {
            message_id: some("m"),
            correlation_id: some("c"),
            user_id: some("u"),
            expires_at: some("e"),
            content_type: some("application/json"),
            content_encoding: some("utf-8"),
            interface_id: some("i"),
            message_schema: some("s"),
            created_at: some("t"),
            component: some("d"),
            ..SystemProperties::default()
        }
    }

    #[test]
    fn the_headers_of_a_single_message_find_their_places() {
        let headers: &[(&str, &[u8])] = &[
            ("Content-Type", b"application/octet-stream"),
            ("iothub-to", b"/devices/d/messages/events"),
            ("iothub-operation", b"d2c"),
            ("IoTHub-MessageId", b"m"),
            ("iothub-correlationid", b"c"),
            ("iothub-userid", b"u"),
            ("iothub-expiry", b"e"),
            ("iothub-contenttype", b"application/json"),
            ("iothub-contentencoding", b"utf-8"),
            ("iothub-interface-id", b"i"),
            ("iothub-messageschema", b"s"),
            ("iothub-creationtimeutc", b"t"),
            ("dt-subject", b"d"),
            ("iothub-app-Alert", b"yes"),
            ("iothub-app-latin", b"\xe9"),
            ("iothub-app-utf8", "é".as_bytes()),
            ("iothub-app-", b"nameless"),
        ];
        let [draft] = decode(&post(headers, "{}")).unwrap().try_into().unwrap();
        assert_eq!((draft.system.clone(), &*draft.body), (everything(), &b"{}"[..]));
        let expected = [("alert", Some("yes")), ("latin", Some("é")), ("utf8", Some("é"))];
        assert_eq!(properties(&draft), expected);
    }

    #[test]
    fn what_a_device_says_is_read_as_it_was_meant() {
        let properties = vec![("alert".to_owned(), Some("yes é".to_owned())), ("none".to_owned(), Some(String::new()))];
        let draft = Draft { body: Bytes::from_static(b"[]"), system: everything(), properties };
        assert_eq!(decode(&encode(&draft).unwrap()), Ok(vec![draft]));
        for (name, value) in [("a b", "c"), ("a", "b\nc"), ("a:", "b")] {
            let properties = vec![(name.to_owned(), Some(value.to_owned()))];
            assert!(encode(&Draft { properties, ..Draft::default() }).is_err(), "{name:?}: {value:?}");
        }
    }

    #[test]
    fn a_batch_holds_texts_and_base64() {
        let body = r#"[
            {"body": "eyJhIjoxfQ==", "properties": {"iothub-app-Alert": "yes", "plain": true, "none": null, "iothub-to": "x",
             "iothub-messageid": "m", "iothub-correlationid": "c", "iothub-userid": "u", "iothub-expiry": "e",
             "iothub-contenttype": "application/json", "iothub-contentencoding": "utf-8", "iothub-interface-id": "i",
             "iothub-messageschema": "s", "iothub-creationtimeutc": "t", "dt-subject": "d"}},
            {"body": "plain", "base64Encoded": false, "properties": null},
            {}
        ]"#;
        let drafts = batch(body).unwrap();
        let bodies: Vec<&[u8]> = drafts.iter().map(|draft| &*draft.body).collect();
        assert_eq!(bodies, [&b"{\"a\":1}"[..], b"plain", b""]);
        let [first, ..] = drafts.as_slice() else { panic!("there are three") };
        assert_eq!(first.system, everything());
        assert_eq!(properties(first), [("Alert", Some("yes")), ("plain", Some("true")), ("none", None)]);
        assert_eq!(batch("[]"), Ok(Vec::new()));
    }

    #[test]
    fn a_batch_that_cannot_be_read_is_refused_whole() {
        let many = format!("[{}]", vec!["{}"; BATCH_MESSAGES_MAX + 1].join(","));
        let cases: &[(&str, &str, ErrorKind)] = &[
            ("not JSON", "[", ErrorKind::InvalidBody),
            ("nothing", "", ErrorKind::InvalidBody),
            ("no list", "{}", ErrorKind::InvalidBody),
            ("a list of something else", "[1]", ErrorKind::InvalidBody),
            ("a body that is no text", r#"[{"body": {}}]"#, ErrorKind::InvalidBody),
            ("a body that is not base64", r#"[{"body": "{}"}]"#, ErrorKind::InvalidBody),
            ("a mark that is none", r#"[{"base64Encoded": "false"}]"#, ErrorKind::InvalidBody),
            ("properties that are none", r#"[{"properties": []}]"#, ErrorKind::InvalidBody),
            ("a property that is no text", r#"[{"properties": {"a": {}}}]"#, ErrorKind::InvalidBody),
            ("one bad among good ones", r#"[{"body": "YQ=="}, {"body": "a"}]"#, ErrorKind::InvalidBody),
            ("too many", &many, ErrorKind::TooLarge),
        ];
        for (name, body, expected) in cases {
            assert_eq!(batch(body).map_err(|refused| refused.kind), Err(*expected), "{name}");
        }
    }

    #[test]
    fn limits_are_those_of_all_messages_together() {
        let text = |bytes: usize| format!(r#"{{"body": "{}", "base64Encoded": false}}"#, "a".repeat(bytes));
        let half = BATCH_BYTES_MAX / 2;
        assert_eq!(batch(&format!("[{}, {}]", text(half), text(half))).map(|drafts| drafts.len()), Ok(2));
        let more = batch(&format!("[{}, {}]", text(half), text(half + 1))).map_err(|refused| refused.kind);
        assert_eq!(more, Err(ErrorKind::TooLarge));

        let single = |bytes: usize| decode(&post(&[], &"a".repeat(bytes))).map(|drafts| drafts.len());
        assert_eq!(single(BATCH_BYTES_MAX), Ok(1));
        assert_eq!(single(BATCH_BYTES_MAX + 1).map_err(|refused| refused.kind), Err(ErrorKind::TooLarge));
        let names: Vec<_> = (0..=PROPERTIES_MAX).map(|number| format!("iothub-app-{number}")).collect();
        let headers: Vec<_> = names.iter().map(|name| (name.as_str(), &b"v"[..])).collect();
        assert_eq!(decode(&post(&headers, "")).map_err(|refused| refused.kind), Err(ErrorKind::TooLarge));
    }

    proptest! {
        #[test]
        fn any_body_is_read(body: String) {
            let _ = batch(&body);
        }
    }
}
