//! Requests as clients send them against the operations they stand for, and replies against the bytes they become.

use domain::clock::UnixTime;
use domain::configuration::Content;
use domain::enrollment::Capabilities;
use domain::identity::{Authentication, DraftAuthentication, Identity, IdentityDraft, IdentityStatus, Thumbprints};
use domain::ids::{Etag, Precondition, TrackingId};
use domain::job::{Draft, Filter, Work};
use domain::method::{Call, Payload};
use domain::operation::configuration;
use domain::operation::digital_twin;
use domain::operation::identity::{Answer, Ask, BulkChange, BulkItem};
use domain::operation::job;
use domain::operation::transfer;
use domain::sas::{KeyChoice, KeyPair, SymmetricKey};
use domain::transfer as transferred;
use domain::twin::{ServiceChange, Twin};
use proptest::prelude::*;
use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestVector {
    source: String,
    method: String,
    target: String,
    #[serde(default)]
    headers: std::collections::BTreeMap<String, String>,
    #[serde(default)]
    body: Option<Value>,
    /// The operation in words, or the refusal as `status name`.
    means: Vec<String>,
}

fn decode_vector(vector: &RequestVector) -> Result<(Operation, Asked), Refused> {
    let mut request = Request::builder().method(vector.method.as_str()).uri(&vector.target);
    for (name, value) in &vector.headers {
        request = request.header(name, value);
    }
    let body = match &vector.body {
        None => Bytes::new(),
        Some(Value::String(text)) => text.clone().into(),
        Some(body) => body.to_string().into(),
    };
    let request = request.body(body).unwrap();
    let target = Target::parse(request.uri()).unwrap();
    assert!(owns(&target), "{}", vector.target);
    decode(&request, &target)
}

#[test]
fn requests_of_clients_mean_what_they_should() {
    let text = include_str!("../../../../../testdata/wire/hub/service-requests.json");
    let vectors: Vec<RequestVector> = serde_json::from_str(text).unwrap();
    assert!(vectors.len() >= 40);
    for vector in vectors {
        let found = match decode_vector(&vector) {
            Ok((operation, _)) => show(&operation),
            Err(invalid) => {
                vec![format!("{} {}", error::status(invalid.kind).as_u16(), spelling(invalid.kind).hub_name)]
            }
        };
        assert_eq!(found, vector.means, "{}: {} {}", vector.source, vector.method, vector.target);
    }
}

fn show(operation: &Operation) -> Vec<String> {
    match operation {
        Operation::Identity(Ask::Put { draft, precondition }) => {
            vec![format!("put {}", draft.name), show_precondition(*precondition), show_identity_draft(draft)]
        }
        Operation::Identity(Ask::Find(name)) => vec![format!("find {name}")],
        Operation::Identity(Ask::Delete { name, precondition }) => {
            vec![format!("delete {name}"), show_precondition(*precondition)]
        }
        Operation::Identity(Ask::List { limit }) => vec![format!("list {limit}")],
        Operation::Identity(Ask::ListModules(device)) => vec![format!("list modules of {device}")],
        Operation::Identity(Ask::Bulk(items)) => items.iter().map(show_item).collect(),
        Operation::Identity(Ask::RotateKeys { choice, names }) => {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            vec![format!("make {choice:?} of {} afresh", names.join(", "))]
        }
        Operation::Identity(Ask::CountDevices) => vec!["count devices".to_owned()],
        Operation::Identity(Ask::CountConnected) => vec!["count connected".to_owned()],
        Operation::Twin(twin::Ask::Find(name)) => vec![format!("find twin {name}")],
        Operation::Twin(twin::Ask::Patch { name, change, precondition }) => {
            vec![format!("patch twin {name}"), show_precondition(*precondition), show_change(change)]
        }
        Operation::Twin(twin::Ask::Replace { name, change, precondition }) => {
            vec![format!("replace twin {name}"), show_precondition(*precondition), show_change(change)]
        }
        Operation::Method(method::Ask::Invoke { name, call }) => {
            let Call { method, payload, timeouts: Timeouts { connect, response } } = &**call;
            let waits = format!("{} s to connect, {} s to respond", connect.as_secs(), response.as_secs());
            vec![format!("call {method} of {name}"), String::from_utf8(payload.bytes().to_vec()).unwrap(), waits]
        }
        Operation::DigitalTwin(ask) => show_digital_twin(ask),
        Operation::Transfer(ask) => vec![show_transfer(ask)],
        Operation::Query(query::Ask::Run { text, page }) => {
            let after =
                page.after.as_ref().map_or("from the beginning".to_owned(), |after| format!("after {}", after.0));
            vec![format!("query {text}"), after, format!("at most {}", page.limit)]
        }
        Operation::Job(ask) => show_job(ask),
        Operation::Configuration(ask) => show_configuration(ask),
        Operation::CloudToDevice(cloud_to_device::Ask::Purge(name)) => vec![format!("purge {name}")],
        Operation::CloudToDevice(cloud_to_device::Ask::TakeFeedback(AtHub::Dialled)) => {
            vec!["take feedback".to_owned()]
        }
        Operation::CloudToDevice(cloud_to_device::Ask::SettleFeedback { hub: AtHub::Dialled, lock, settlement }) => {
            vec![format!("{settlement:?} feedback {lock}")]
        }
        Operation::File(file::Ask::TakeNotification(AtHub::Dialled)) => {
            vec!["take a notification of a file".to_owned()]
        }
        Operation::File(file::Ask::SettleNotification { hub: AtHub::Dialled, lock, settlement }) => {
            vec![format!("{settlement:?} notification {lock}")]
        }
        other => panic!("{other:?}"),
    }
}

fn show_transfer(ask: &transfer::Ask) -> String {
    let host = |container: &transferred::Container, file| container.file(file).host;
    match ask {
        transfer::Ask::Create(draft) => match &draft.work {
            transferred::Work::Import { input, file } => {
                format!("import {file} from {}, to {}", host(input, file), host(&draft.output, file))
            }
            transferred::Work::Export { file, without_keys } => {
                let keys = if *without_keys { "without" } else { "with" };
                format!("export {file} {keys} keys, to {}", host(&draft.output, file))
            }
        },
        transfer::Ask::Find(id) => format!("find transfer {id}"),
        transfer::Ask::List => "list transfers".to_owned(),
        transfer::Ask::Cancel(id) => format!("cancel transfer {id}"),
    }
}

fn show_digital_twin(ask: &digital_twin::Ask) -> Vec<String> {
    match ask {
        digital_twin::Ask::Find(device) => vec![format!("find digital twin {device}")],
        digital_twin::Ask::Patch { device, patch, precondition } => {
            let planned = patch.plan(&Twin::new(Etag::from_number(1))).unwrap();
            let change = Value::Object(planned).to_string();
            vec![format!("patch digital twin {device}"), show_precondition(*precondition), change]
        }
        digital_twin::Ask::Command { device, command } => {
            let Call { method, payload, timeouts: Timeouts { connect, response } } = &command.call;
            let waits = format!("{} s to connect, {} s to respond", connect.as_secs(), response.as_secs());
            let payload = String::from_utf8(payload.bytes().to_vec()).unwrap();
            vec![format!("command {method} of {device}"), payload, waits]
        }
    }
}

fn show_configuration(ask: &configuration::Ask) -> Vec<String> {
    let written = |content: &Content| serde_json::to_string(content).unwrap();
    match ask {
        configuration::Ask::Find(id) => vec![format!("find configuration {id}")],
        configuration::Ask::List { limit } => vec![format!("list {limit} configurations")],
        configuration::Ask::Delete { id, precondition } => {
            vec![format!("delete configuration {id}"), show_precondition(*precondition)]
        }
        configuration::Ask::Test { target, metrics } => {
            let metrics = metrics.iter().map(|(name, query)| format!("{name}: {query}"));
            std::iter::once(format!("test {target}")).chain(metrics).collect()
        }
        configuration::Ask::Apply { device, content } => vec![format!("apply to {device}"), written(content)],
        configuration::Ask::Put { draft, precondition } => {
            let labels = Value::Object(draft.labels.clone());
            let metrics = draft.metrics.keys().cloned().collect::<Vec<_>>().join(" ");
            vec![
                format!("put configuration {} for {}", draft.id, draft.target),
                show_precondition(*precondition),
                written(&draft.content),
                format!("priority {}, {}, labels {labels}, metrics {metrics}", draft.priority, draft.schema_version),
            ]
        }
    }
}

fn show_job(ask: &job::Ask) -> Vec<String> {
    match ask {
        job::Ask::Find(id) => vec![format!("find job {id}")],
        job::Ask::Cancel(id) => vec![format!("cancel job {id}")],
        job::Ask::List { filter, page } => {
            let word = |word: Option<String>| word.map(|word| format!(" {word}")).unwrap_or_default();
            let jobs = match filter {
                None => "list no jobs".to_owned(),
                Some(Filter { kind, status }) => {
                    let (kind, status) = (kind.map(|kind| format!("{kind:?}")), status.map(|at| format!("{at:?}")));
                    format!("list jobs{}{}", word(kind), word(status))
                }
            };
            let after = page.after.as_ref().map_or("from the beginning".to_owned(), |at| format!("after {}", at.0));
            vec![jobs, after, format!("at most {}", page.limit)]
        }
        job::Ask::Schedule(draft) => {
            let Draft { id, work, condition, starts_at, execution_max } = &**draft;
            let at = starts_at.map_or("at once".to_owned(), |at| format!("at {}", at.seconds()));
            let work = match work {
                Work::PatchTwin { change, etag } => {
                    let version = etag.map(|etag| format!(" at version {}", etag.number())).unwrap_or_default();
                    format!("patch {}{version}", show_change(change))
                }
                Work::Invoke(Call { method, payload, timeouts: Timeouts { connect, response } }) => {
                    let payload = String::from_utf8_lossy(payload.bytes());
                    let waits = (connect.as_secs(), response.as_secs());
                    format!("call {method}: {payload}, {} s to connect, {} s to respond", waits.0, waits.1)
                }
            };
            vec![format!("schedule {id} for {condition}"), format!("{at}, {} s", execution_max.as_secs()), work]
        }
    }
}

fn show_precondition(precondition: Precondition) -> String {
    match precondition {
        Precondition::None => "without precondition".to_owned(),
        Precondition::Exists => "if it exists".to_owned(),
        Precondition::Matches(etag) => format!("at version {}", etag.number()),
        Precondition::Impossible => "never".to_owned(),
    }
}

fn show_item(BulkItem { name, change }: &BulkItem) -> String {
    match change {
        BulkChange::Put { draft, precondition, twin } => {
            let twin = twin.as_ref().map(|twin| format!(", {}", show_change(twin))).unwrap_or_default();
            format!("put {name} {}: {}{twin}", show_precondition(*precondition), show_identity_draft(draft))
        }
        BulkChange::Delete { precondition } => format!("delete {name} {}", show_precondition(*precondition)),
        BulkChange::PatchTwin { change, precondition } => {
            format!("patch twin {name} {}: {}", show_precondition(*precondition), show_change(change))
        }
    }
}

fn show_change(change: &ServiceChange) -> String {
    let section = |section: &Option<serde_json::Map<_, _>>| {
        section.as_ref().map_or("left alone".to_owned(), |section| Value::Object(section.clone()).to_string())
    };
    format!("tags {}, desired {}", section(&change.tags), section(&change.desired))
}

fn show_identity_draft(draft: &IdentityDraft) -> String {
    let key = |key: &Option<SymmetricKey>| key.as_ref().map_or("generated".to_owned(), SymmetricKey::to_base64);
    let thumbprint = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".to_owned());
    let authentication = match &draft.authentication {
        None => "authentication left out".to_owned(),
        Some(DraftAuthentication::Sas { primary, secondary }) => format!("keys {} {}", key(primary), key(secondary)),
        Some(DraftAuthentication::SelfSigned { primary, secondary }) => {
            format!("thumbprints {} {}", thumbprint(primary), thumbprint(secondary))
        }
        Some(DraftAuthentication::CertificateAuthority) => "by CA".to_owned(),
        Some(DraftAuthentication::None) => "by nothing".to_owned(),
    };
    let IdentityDraft { status, status_reason, capabilities, device_scope, parent_scopes, managed_by, .. } = draft;
    let mut shown = authentication;
    let mut add = |text: Option<String>| {
        if let Some(text) = text {
            shown += ", ";
            shown += &text;
        }
    };
    add(status.map(|status| registry_json::status(status).to_owned()));
    add(status_reason.as_ref().map(|reason| format!("because {reason}")));
    add(capabilities.map(|capabilities| (if capabilities.iot_edge { "edge" } else { "no edge" }).to_owned()));
    add(device_scope.as_ref().map(|scope| format!("in {scope}")));
    add((!parent_scopes.is_empty()).then(|| format!("below {}", parent_scopes.join(" "))));
    add(managed_by.as_ref().map(|manager| format!("managed by {manager}")));
    shown
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplyVectors {
    source: String,
    device: Value,
    device_by_thumbprint: Value,
    module: Value,
    twin: Value,
    module_twin: Value,
    devices: Value,
    connected: Value,
    bulk: Value,
    failure: Value,
    not_online: Value,
    unanswered: Value,
}

fn replies() -> ReplyVectors {
    serde_json::from_str(include_str!("../../../../../testdata/wire/hub/service-replies.json")).unwrap()
}

fn name(device: &str, module: Option<&str>) -> IdentityName {
    parse_name(device, module).unwrap()
}

fn device() -> Identity {
    let key = |byte| SymmetricKey::from_bytes(&[byte; 32]).unwrap();
    Identity {
        generation: "637051167384630591".into(),
        etag: Etag::from_number(801_232_426),
        authentication: Authentication::Sas(KeyPair { primary: key(1), secondary: key(2) }),
        last_activity_at: UnixTime::from_micros(1_502_966_924_530_934),
        ..Identity::blank(name("dev-1", None))
    }
}

fn by_thumbprint() -> Identity {
    Identity {
        status: IdentityStatus::Disabled,
        status_reason: Some("stolen".into()),
        status_updated_at: UnixTime::from_micros(1_502_966_924_530_934),
        authentication: Authentication::SelfSigned(Thumbprints { primary: Some("AB".repeat(20)), secondary: None }),
        capabilities: Capabilities { iot_edge: true },
        device_scope: Some("ms-azure-iot-edge://dev-1-1".into()),
        parent_scopes: vec!["ms-azure-iot-edge://parent-1".into()],
        connected: true,
        messages_waiting: 3,
        model_id: None,
        ..device()
    }
}

fn twin() -> Twin {
    let now = UnixTime::from_micros(1_502_966_924_530_934);
    let mut twin = Twin::new(Etag::from_number(1));
    let change =
        json!({ "tags": { "site": "cave" }, "properties": { "desired": { "t": 50.123, "mode": { "on": 1 } } } });
    let change = twin_json::parse_change(&change).unwrap();
    twin.apply_service_patch(change, Etag::from_number(2), now).unwrap();
    twin
}

/// The body as text: the order of members is part of what a person reads.
fn body(response: &Response<Bytes>) -> String {
    String::from_utf8(response.body().to_vec()).unwrap()
}

fn answered(answer: Answer) -> Response<Bytes> {
    encode(Ok(Reply::Identity(answer)), &Asked::Other)
}

#[test]
fn replies_are_written_as_recorded() {
    let expected = replies();
    assert!(!expected.source.is_empty());
    let module = Identity { authentication: Authentication::None, ..device() };
    let module = Identity { name: name("dev-1", Some("$edgeHub")), managed_by: Some("iotEdge".into()), ..module };
    let twin_reply = |identity: &Identity| {
        let answer = twin::Answer::Twin(Box::new(twin()), Box::new(identity.clone()));
        encode(Ok(Reply::Twin(answer)), &Asked::Twin)
    };
    let cases = [
        (answered(Answer::Identity(Box::new(device()))), expected.device),
        (answered(Answer::Identity(Box::new(by_thumbprint()))), expected.device_by_thumbprint),
        (answered(Answer::Identity(Box::new(module.clone()))), expected.module),
        (twin_reply(&by_thumbprint()), expected.twin),
        (twin_reply(&module), expected.module_twin),
        (answered(Answer::Devices { total: 3, enabled: 2, disabled: 1 }), expected.devices),
        (answered(Answer::Connected(2)), expected.connected),
    ];
    for (response, expected) in cases {
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "application/json; charset=utf-8");
        assert_eq!(body(&response), expected.to_string());
    }
    let list = answered(Answer::Identities(vec![device()]));
    assert_eq!(body(&list), format!("[{}]", replies().device));
    let gone = answered(Answer::Deleted);
    assert_eq!((gone.status(), body(&gone)), (StatusCode::NO_CONTENT, String::new()));
}

#[test]
fn a_page_of_a_query_says_what_its_items_are_and_where_the_next_begins() {
    let ask = |answer| encode(Ok(Reply::Query(answer)), &Asked::Other);
    let twins = domain::operation::Page {
        items: vec![(twin(), by_thumbprint())],
        next: Some(domain::operation::Cursor("1:t:1".to_owned())),
    };
    let response = ask(query::Answer::Twins(twins));
    assert_eq!(
        (&response.headers()["x-ms-item-type"], body(&response)),
        (&"Twin".parse().unwrap(), format!("[{}]", replies().twin))
    );
    assert_eq!(response.headers()["x-ms-continuation"], "MTp0OjE");

    let row = json!({ "n": 3 }).as_object().unwrap().clone();
    let response = ask(query::Answer::Rows(domain::operation::Page { items: vec![row], next: None }));
    assert_eq!((response.status(), body(&response)), (StatusCode::OK, r#"[{"n":3}]"#.to_owned()));
    assert_eq!(response.headers()["x-ms-item-type"], "Raw");
    assert!(!response.headers().contains_key("x-ms-continuation"));
}

fn failure(kind: ErrorKind) -> Failure {
    Failure {
        kind,
        public: "PreconditionFailed, ETag may be invalid.".into(),
        tracking: TrackingId::from_bits(0x0123_4567_89ab_4def_8123_4567_89ab_cdef),
        retry_after_s: Some(5),
        at: UnixTime::from_micros(1_502_966_924_530_934),
    }
}

#[test]
fn a_failure_carries_its_code_in_the_body_and_in_a_header() {
    let response = encode(Err(failure(ErrorKind::PreconditionFailed)), &Asked::Other);
    assert_eq!(response.status(), StatusCode::PRECONDITION_FAILED);
    assert_eq!(response.headers()["iothub-errorcode"], "PreconditionFailed");
    assert_eq!(body(&response), replies().failure.to_string());
    assert_eq!(response.headers()["retry-after"], "5");
    let unhurried = Failure { retry_after_s: None, ..failure(ErrorKind::Throttled) };
    assert!(!encode(Err(unhurried), &Asked::Other).headers().contains_key("retry-after"));

    for kind in ErrorKind::ALL {
        let response = encode(Err(failure(kind)), &Asked::Other);
        let code = response.headers()["iothub-errorcode"].to_str().unwrap().to_owned();
        assert!(body(&response).contains(&format!("\"ErrorCode:{code};")), "{kind:?}");
    }
}

#[test]
fn what_a_device_says_reaches_its_caller_byte_for_byte() {
    let payload = Payload::parse(Bytes::from_static(b" {\"a\": 1.0}")).unwrap();
    let response = method::Answer::Responded(domain::method::Response { status: -500, payload });
    let response = encode(Ok(Reply::Method(response)), &Asked::Method(Timeouts::default()));
    assert_eq!((response.status(), &*body(&response)), (StatusCode::OK, r#"{"status":-500,"payload": {"a": 1.0}}"#));
    assert_eq!(response.headers()["content-type"], "application/json; charset=utf-8");
}

#[test]
fn a_call_that_fails_on_its_way_names_the_time_waited_in_a_document_inside_a_document() {
    let asked = Asked::Method(Timeouts::new(Some(300), Some(30)).unwrap());
    let cases = [
        (ErrorKind::DeviceNotOnline, 404, "DeviceNotOnline", replies().not_online),
        (ErrorKind::DeviceUnanswering, 504, "GatewayTimeout", replies().unanswered),
        (ErrorKind::PreconditionFailed, 412, "PreconditionFailed", replies().failure),
    ];
    for (kind, status, code, expected) in cases {
        let response = encode(Err(failure(kind)), &asked);
        assert_eq!((response.status().as_u16(), body(&response)), (status, expected.to_string()));
        assert_eq!(response.headers()["iothub-errorcode"], code);
    }
}

#[test]
fn the_twin_of_an_absent_module_is_that_of_an_absent_device() {
    let code = |asked| {
        let response = encode(Err(failure(ErrorKind::ModuleNotFound)), &asked);
        response.headers()["iothub-errorcode"].to_str().unwrap().to_owned()
    };
    assert_eq!((code(Asked::Twin).as_str(), code(Asked::Other).as_str()), ("DeviceNotFound", "ModuleNotFound"));
}

#[test]
fn a_bulk_answer_names_what_failed_and_is_a_bad_request_if_anything_did() {
    let asked =
        Asked::Bulk(vec![(name("a", None), ImportMode::Create), (name("b", Some("m")), ImportMode::DeleteIfMatchEtag)]);
    let failures = vec![
        (name("a", None), failure(ErrorKind::DeviceExists)),
        (name("b", Some("m")), failure(ErrorKind::ModuleNotFound)),
    ];
    let response = encode(Ok(Reply::Identity(Answer::Bulk(failures))), &asked);
    assert_eq!((response.status(), body(&response)), (StatusCode::BAD_REQUEST, replies().bulk.to_string()));
    let response = encode(Ok(Reply::Identity(Answer::Bulk(Vec::new()))), &asked);
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(body(&response), r#"{"isSuccessful":true,"errors":[],"warnings":[]}"#);
}

#[test]
fn fresh_keys_are_shown_beside_those_that_were_kept_and_beside_what_failed() {
    let [primary, secondary] = [1, 2].map(|byte| SymmetricKey::from_bytes(&[byte; 16]).unwrap());
    let keys = vec![(name("a", None), KeyPair { primary, secondary })];
    let failures = vec![
        (name("b", Some("m")), failure(ErrorKind::ModuleNotFound)),
        (name("c", None), failure(ErrorKind::InvalidArgument)),
    ];
    let rotated = json!([{
        "id": "a", "moduleId": null,
        "primaryKey": "AQEBAQEBAQEBAQEBAQEBAQ==", "secondaryKey": "AgICAgICAgICAgICAgICAg==",
    }]);
    let words = failure(ErrorKind::ModuleNotFound).public;
    let errors = json!([
        { "id": "b", "moduleId": "m", "errorCode": "ModuleNotFound", "errorStatus": words },
        { "id": "c", "moduleId": null, "errorCode": "ArgumentInvalid", "errorStatus": words },
    ]);
    let cases = [
        ("all", KeyChoice::Both, "both", (&keys, &Vec::new()), 200, [&rotated, &json!([])]),
        ("some", KeyChoice::Primary, "primaryKey", (&keys, &failures), 207, [&rotated, &errors]),
        ("none", KeyChoice::Secondary, "secondaryKey", (&Vec::new(), &failures), 400, [&json!([]), &errors]),
        ("nobody was named", KeyChoice::Both, "both", (&Vec::new(), &Vec::new()), 200, [&json!([]), &json!([])]),
    ];
    for (case, choice, policy_key, (keys, failures), status, [rotated, errors]) in cases {
        let answer = Answer::Rotated { choice, keys: keys.clone(), failures: failures.clone() };
        let response = encode(Ok(Reply::Identity(answer)), &Asked::Other);
        let expected = json!({ "policyKey": policy_key, "rotatedKeys": rotated, "errors": errors });
        assert_eq!((response.status().as_u16(), body(&response)), (status, expected.to_string()), "{case}");
    }
}

#[test]
fn rules_without_a_name_in_the_list_of_codes_have_one_only_where_they_stand_alone() {
    for (kind, alone) in [
        (ErrorKind::InvalidThumbprint, "StringIsNotThumbprint"),
        (ErrorKind::NoAuthentication, "DeviceAuthenticationTypeIsMissing"),
    ] {
        let response = encode(Err(failure(kind)), &Asked::Other);
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        assert_eq!(response.headers()["iothub-errorcode"], alone);
        let told: Value = serde_json::from_str(&body(&response)).unwrap();
        assert_eq!(told["Message"], format!("ErrorCode:{alone};{}", failure(kind).public));
        let asked = Asked::Bulk(vec![(name("a", None), ImportMode::Create)]);
        let response = encode(Ok(Reply::Identity(Answer::Bulk(vec![(name("a", None), failure(kind))]))), &asked);
        let told: Value = serde_json::from_str(&body(&response)).unwrap();
        assert_eq!(told["errors"][0]["errorCode"], "ArgumentInvalid");
    }
}

#[test]
fn etags_are_spelled_in_two_ways() {
    let cases = [
        (0, "MA==", "AAAAAAAAAAA="),
        (1, "MQ==", "AAAAAAAAAAE="),
        (801_232_426, "ODAxMjMyNDI2", "AAAAAC/B1io="),
        ((1 << 48) + 2, "MjgxNDc0OTc2NzEwNjU4", "AAEAAAAAAAI="),
    ];
    for (number, identity, twin) in cases {
        let etag = Etag::from_number(number);
        assert_eq!((registry_json::etag_text(etag).as_str(), twin_json::etag_text(etag).as_str()), (identity, twin));
        assert_eq!((registry_json::parse_etag(identity), twin_json::parse_etag(twin)), (Some(etag), Some(etag)));
    }
    for text in ["", "x", "MQ", "LTE=", "AAAA", "AAAAAAAAAAAAAAE="] {
        assert_eq!((registry_json::parse_etag(text), twin_json::parse_etag(text)), (None, None), "{text}");
    }
}

#[test]
fn each_member_of_a_body_that_is_of_the_wrong_type_is_refused_and_null_counts_as_absent() {
    let paths = [
        "/deviceId",
        "/moduleId",
        "/status",
        "/statusReason",
        "/authentication",
        "/authentication/type",
        "/authentication/symmetricKey",
        "/authentication/symmetricKey/primaryKey",
        "/authentication/x509Thumbprint",
        "/authentication/x509Thumbprint/secondaryThumbprint",
        "/capabilities",
        "/capabilities/iotEdge",
        "/deviceScope",
        "/parentScopes",
        "/parentScopes/0",
        "/managedBy",
    ];
    let whole = json!({
        "deviceId": "d", "moduleId": "", "status": "enabled", "statusReason": "x",
        "authentication": {
            "type": "sas",
            "symmetricKey": { "primaryKey": "", "secondaryKey": "" },
            "x509Thumbprint": { "primaryThumbprint": "", "secondaryThumbprint": "" },
        },
        "capabilities": { "iotEdge": true }, "deviceScope": "s", "parentScopes": ["p"], "managedBy": "m",
        "unknown": [{}],
    });
    let parse = |body: &Value| registry_json::parse_identity(name("d", None), body);
    assert!(parse(&whole).is_ok());
    for path in paths {
        for (wrong, is_read) in [(json!(7), false), (json!([[]]), false), (Value::Null, path != "/parentScopes/0")] {
            let mut body = whole.clone();
            *body.pointer_mut(path).unwrap() = wrong.clone();
            let found = parse(&body).map(drop).map_err(|refused| refused.kind);
            let expected = if is_read { Ok(()) } else { Err(ErrorKind::InvalidBody) };
            assert_eq!(found, expected, "{path} is {wrong}");
        }
    }
}

proptest! {
    #[test]
    fn no_request_panics(
        method in "(GET|PUT|POST|PATCH|DELETE|HEAD)",
        path in "/(devices|twins|statistics)(/[a-zA-Z0-9%/]{0,20}){0,3}",
        query in "(api-version=2021-04-12)?(&top=[0-9-]{0,25})?",
        etag in "[ -~]{0,20}",
        body in "(\\[|\\{)?(\"[a-zA-Z]{0,8}\":)?[ -~]{0,40}(\\]|\\})?",
    ) {
        let request = Request::builder().method(method.as_str()).uri(format!("{path}?{query}")).header("if-match", etag);
        let request = request.body(Bytes::from(body)).unwrap();
        if let Ok(target) = Target::parse(request.uri()) {
            match decode(&request, &target) {
                Ok((operation, asked)) => drop((show(&operation), encode(Err(failure(ErrorKind::Internal)), &asked))),
                Err(refused) => drop(refused.to_string()),
            }
        }
    }
}
