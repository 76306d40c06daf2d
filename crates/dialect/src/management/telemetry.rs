//! The telemetry of a hub as it comes, below `/muster/v1/hubs/{hub}/events`: one JSON document a line, without end.
//!
//! Names here are Muster's own, and part of its interface. Nothing here waits: who serves the request reads the log and
//! shows each message by [`show`]. Start at [`decode`].

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use domain::clock::UnixTime;
use domain::ids::HubName;
use domain::message::{Message, Property, SystemProperties};
use domain::operation::telemetry::Ask;
use domain::operation::{ErrorKind, Operation};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response};
use serde_json::{Map, Value, json};

use crate::error::Refused;
use crate::http::{Target, is};
use crate::hub::annotations::{Said, annotations};
use crate::json::members;
use crate::time;

/// What the reader wants, beside the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Whether to begin at the oldest message that is kept, and not with what comes from here on.
    pub from_start: bool,
    /// The one device whose messages are wanted.
    pub device: Option<String>,
}

impl Wanted {
    /// Whether `message` is wanted.
    pub fn takes(&self, message: &Message) -> bool {
        self.device.as_ref().is_none_or(|device| message.sender.device.as_str() == device)
    }
}

/// Whether `target` belongs to this dialect.
pub fn owns(target: &Target) -> bool {
    matches!(
        target.segments().as_slice(),
        [first, version, hubs, _, last] if is(first, "muster") && is(version, "v1") && is(hubs, "hubs") && is(last, "events")
    )
}

/// Turns a request into an operation and what its answer is made by, or into its refusal.
pub fn decode(request: &Request<Bytes>, target: &Target) -> Result<(Operation, Wanted), Refused> {
    if request.method() != Method::GET {
        return Err(Refused::wrong_method());
    }
    let segments = target.segments();
    let name = segments.get(3).copied().unwrap_or_default();
    let hub = HubName::parse(name)
        .map_err(|invalid| Refused::new(ErrorKind::InvalidArgument, format!("The hub's name: {invalid}.")))?;
    let from_start = match target.parameter("from") {
        None | Some("end") => false,
        Some("start") => true,
        Some(_) => {
            return Err(Refused::new(ErrorKind::InvalidArgument, "The parameter from is neither start nor end."));
        }
    };
    let device = target.parameter("deviceId").filter(|device| !device.is_empty()).map(str::to_owned);
    Ok((Operation::Telemetry(Ask::Watch { hub }), Wanted { from_start, device }))
}

/// The answer whose body the lines are.
pub fn open<B>(body: B) -> Response<B> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Shows a message that stands at `sequence` and `offset` of its partition.
pub fn show(message: &Message, (sequence, offset): (u64, u64), enqueued_at: UnixTime) -> Value {
    let draft = &message.draft;
    let mut shown = members([
        ("deviceId", json!(message.sender.device.as_str())),
        ("moduleId", json!(message.sender.module.as_ref().map(domain::ids::ModuleId::as_str))),
        ("partition", json!(message.partition)),
        ("sequenceNumber", json!(sequence)),
        ("offset", json!(offset.to_string())),
        ("enqueuedTime", json!(time::rfc3339(enqueued_at))),
        ("systemProperties", Value::Object(show_system(&draft.system))),
        ("properties", Value::Object(draft.properties.iter().map(show_property).collect())),
        ("annotations", Value::Object(annotations(message, enqueued_at).map(show_annotation).collect())),
    ]);
    let (name, body) = show_body(&draft.body, draft.system.content_type.as_deref());
    shown.insert(name.to_owned(), body);
    Value::Object(shown)
}

fn show_annotation((name, said): (&'static str, Said<'_>)) -> (String, Value) {
    let said = match said {
        Said::Text(text) => json!(text),
        Said::Moment(moment) => json!(moment.millis()),
    };
    (name.to_owned(), said)
}

fn show_property((name, value): &Property) -> (String, Value) {
    (name.clone(), json!(value))
}

fn show_system(system: &SystemProperties) -> Map<String, Value> {
    members([
        ("messageId", json!(system.message_id)),
        ("correlationId", json!(system.correlation_id)),
        ("userId", json!(system.user_id)),
        ("contentType", json!(system.content_type)),
        ("contentEncoding", json!(system.content_encoding)),
        ("expiryTimeUtc", json!(system.expires_at)),
        ("creationTimeUtc", json!(system.created_at)),
        ("component", json!(system.component)),
        ("outputName", json!(system.output_name)),
        ("interfaceId", json!(system.interface_id)),
        ("messageSchema", json!(system.message_schema)),
        ("diagnosticId", json!(system.diagnostic_id)),
        ("correlationContext", json!(system.correlation_context)),
    ])
}

/// The body: JSON if the device says that it is, else text, else bytes in base64.
fn show_body(body: &Bytes, content_type: Option<&str>) -> (&'static str, Value) {
    let is_json = content_type.is_some_and(|kind| kind.to_ascii_lowercase().starts_with("application/json"));
    let parsed = if is_json { serde_json::from_slice(body).ok() } else { None };
    match (parsed, std::str::from_utf8(body)) {
        (Some(document), _) => ("body", document),
        (None, Ok(text)) => ("body", json!(text)),
        (None, Err(_)) => ("bodyBase64", json!(STANDARD.encode(body))),
    }
}

#[cfg(test)]
mod tests {
    use domain::ids::{DeviceId, HubKey};
    use domain::message::{Draft, Origin};
    use domain::operation::identity::IdentityName;
    use domain::operation::session::AuthenticationMethod;

    use super::*;

    fn send(line: &str) -> Result<(Operation, Wanted), Refused> {
        let (method, uri) = line.split_once(' ').unwrap();
        let request = Request::builder().method(method).uri(uri).body(Bytes::new()).unwrap();
        let target = Target::parse(request.uri()).unwrap();
        assert!(owns(&target), "{line}");
        decode(&request, &target)
    }

    #[test]
    fn a_reader_says_where_to_begin_and_whom_to_hear() {
        let cases = [
            ("GET /muster/v1/hubs/hub/events", Some((false, None))),
            ("GET /muster/v1/hubs/hub/events?from=end", Some((false, None))),
            ("GET /muster/v1/hubs/hub/events?from=start&deviceId=dev-1", Some((true, Some("dev-1")))),
            ("GET /muster/v1/hubs/hub/events?from=middle", None),
            ("GET /muster/v1/hubs/a%20hub/events", None),
            ("POST /muster/v1/hubs/hub/events", None),
        ];
        for (line, expected) in cases {
            let wanted = send(line).ok().map(|(_, wanted)| (wanted.from_start, wanted.device));
            assert_eq!(wanted, expected.map(|(start, device)| (start, device.map(str::to_owned))), "{line}");
        }
    }

    fn message(draft: Draft) -> Message {
        Message {
            hub: HubKey(1),
            partition: 2,
            sender: IdentityName::device(DeviceId::parse("dev-1").unwrap()),
            generation: "7".to_owned(),
            origin: Origin::Telemetry(AuthenticationMethod::X509),
            model_id: None,
            draft,
        }
    }

    #[test]
    fn a_message_is_shown_with_all_that_was_said_of_it() {
        let json_type = Some("application/json; charset=utf-8");
        let bodies: [(&'static [u8], _, _, _); 4] = [
            (b"{\"a\":1}", json_type, "body", json!({ "a": 1 })),
            (b"{\"a\":1}", None, "body", json!("{\"a\":1}")),
            (b"{", json_type, "body", json!("{")),
            (b"\xff\x00", json_type, "bodyBase64", json!("/wA=")),
        ];
        for (body, content_type, name, expected) in bodies {
            let system = SystemProperties { content_type: content_type.map(str::to_owned), ..Default::default() };
            let properties = vec![("alert".to_owned(), Some("yes".to_owned())), ("bare".to_owned(), None)];
            let draft = Draft { body: Bytes::from_static(body), system, properties };
            let shown = show(&message(draft), (3, 4_096), UnixTime::from_micros(1_706_702_400_123_456));
            assert_eq!(shown[name], expected);
            assert_eq!(shown["properties"], json!({ "alert": "yes", "bare": null }));
            assert_eq!((&shown["partition"], &shown["sequenceNumber"]), (&json!(2), &json!(3)));
            assert_eq!(shown["offset"], json!("4096"));
            let method =
                "{\"scope\":\"device\",\"type\":\"x509\",\"issuer\":\"external\",\"acceptingIpFilterRule\":null}";
            assert_eq!(shown["annotations"]["iothub-connection-auth-method"], json!(method));
            assert_eq!(shown["annotations"]["iothub-enqueuedtime"], json!(1_706_702_400_123_i64));
            assert_eq!(shown["annotations"].get("iothub-connection-module-id"), None);
        }
    }
}
