//! Requests of any kind to either port become an operation or are refused in words; what a client is handed to send back
//! is read as it was given.

use bytes::Bytes;
use dialect::error::Refused;
use dialect::http::{PAGE_MAX, Target, bearer, continuation, page, precondition, signature};
use dialect::hub::{device_http as hub_device_http, registry_json, service_http as hub_http, twin_json};
use dialect::management::{self, arm, arm_json, files, messages, oauth, own, routing};
use dialect::provisioning::{self, device_http, service_http, service_json};
use domain::access::{ResourceKind, Rights};
use domain::ids::{
    CertificateName, ConfigurationId, DeviceId, EnrollmentGroupId, Etag, HubName, IdScope, InvalidName, JobId,
    ModuleId, OperationId, PolicyName, Precondition, RegistrationId, ServiceName, TrackingId,
};
use domain::operation::registration::{Answer, Request as Wanted};
use domain::operation::{Operation, Reply};
use http::header::{IF_MATCH, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};

use super::refusal;

/// Longest text that is any name.
const NAME_BYTES_MAX: usize = 128;

/// Reads `input` as a request: a line with method and target, lines with headers, an empty line, and the body.
///
/// # Panics
/// When a promise of a dialect or of [`Target`] is broken.
pub fn check(input: &[u8]) {
    let Some(request) = read(input) else { return };
    check_headers(request.headers());
    let Ok(target) = Target::parse(request.uri()) else { return };
    check_target(&target, request.uri());
    check_public(&request, &target);
    check_admin(&request, &target);
}

fn read(input: &[u8]) -> Option<Request<Bytes>> {
    let (line, mut rest) = split_line(input)?;
    let mut words = line.splitn(2, |byte| *byte == b' ');
    let method = Method::from_bytes(words.next()?).ok()?;
    let mut request = Request::builder().method(method).uri(Uri::try_from(words.next()?).ok()?);
    while let Some((line, after)) = split_line(rest) {
        rest = after;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_at(line.iter().position(|byte| *byte == b':')?);
        let value = value.get(1..)?.trim_ascii();
        request = request.header(HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?);
    }
    request.body(Bytes::copy_from_slice(rest)).ok()
}

fn split_line(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = text.iter().position(|byte| *byte == b'\n')?;
    Some((text.get(..end)?, text.get(end + 1..)?))
}

fn check_headers(headers: &HeaderMap) {
    match page(headers) {
        Err(refused) => refusal::check(refused, provisioning::refuse),
        Ok(wanted) => {
            assert!((1..=PAGE_MAX).contains(&wanted.limit));
            if let Some(after) = wanted.after {
                assert_eq!(
                    headers.get("x-ms-continuation"),
                    HeaderValue::from_str(&continuation(&after)).as_ref().ok()
                );
            }
        }
    }
    check_etags(headers, registry_json::parse_etag, registry_json::etag_text);
    check_etags(headers, twin_json::parse_etag, twin_json::etag_text);
    check_etags(headers, service_json::parse_etag, service_json::etag_text);
    check_etags(headers, arm_json::parse_etag, arm_json::etag_text);
    let _ = signature(headers);
    assert!(bearer(headers).is_none_or(|token| token == token.trim()));
}

/// A version that is named is the one that is shown, with quotes or without.
fn check_etags(headers: &HeaderMap, parse: fn(&str) -> Option<Etag>, show: fn(Etag) -> String) {
    let Precondition::Matches(etag) = precondition(headers, parse) else { return };
    for text in [show(etag), format!("\"{}\"", show(etag)), format!("W/\"{}\"", show(etag))] {
        let value = HeaderValue::from_str(&text).expect("an etag can stand in a header");
        let named = HeaderMap::from_iter([(IF_MATCH, value)]);
        assert_eq!(precondition(&named, parse), Precondition::Matches(etag), "{text}");
    }
}

fn check_target(target: &Target, uri: &Uri) {
    let segments = target.segments();
    assert!(segments.iter().all(|segment| !segment.is_empty()));
    let bytes: usize = segments.iter().map(|segment| segment.len()).sum();
    assert!(bytes <= uri.path().len(), "decoding makes nothing longer");
    segments.into_iter().for_each(check_name);
    for parameter in ["api-version", "top", "limit", "registrationId", "deviceId", "from", "forceRegistration"] {
        let value = target.parameter(parameter).unwrap_or_default();
        assert!(value.len() <= uri.query().unwrap_or_default().len(), "decoding makes nothing longer");
    }
}

/// A text that is a name of some kind is short, and is kept as it is spelled.
fn check_name(text: &str) {
    let kept = |parsed: Result<String, InvalidName>| match parsed {
        Ok(kept) => assert!(kept == text && text.len() <= NAME_BYTES_MAX, "{kept:?} of {text:?}"),
        Err(invalid) => assert!(!invalid.to_string().contains(char::is_control), "{invalid}"),
    };
    kept(RegistrationId::parse(text).map(|name| name.to_string()));
    kept(EnrollmentGroupId::parse(text).map(|name| name.to_string()));
    kept(HubName::parse(text).map(|name| name.to_string()));
    kept(ServiceName::parse(text).map(|name| name.to_string()));
    kept(PolicyName::parse(text).map(|name| name.to_string()));
    kept(CertificateName::parse(text).map(|name| name.to_string()));
    kept(DeviceId::parse(text).map(|name| name.to_string()));
    kept(ConfigurationId::parse(text).map(|name| name.to_string()));
    kept(JobId::parse(text).map(|name| name.to_string()));
    kept(ModuleId::parse(text).map(|name| name.to_string()));
    kept(IdScope::parse(text).map(|name| name.to_string()));
    assert!(OperationId::parse(text).is_none_or(|operation| operation.to_string() == text), "{text:?}");
    if let Some(tracking) = TrackingId::parse(text) {
        assert_eq!(TrackingId::parse(&tracking.to_string()), Some(tracking));
    }
    for kind in [ResourceKind::Hub, ResourceKind::Service] {
        if let Ok(rights) = Rights::parse(text, kind) {
            assert_eq!(Rights::parse(&rights.to_string(), kind), Ok(rights));
        }
    }
}

/// The port of devices and of programs that operate hubs and provisioning services.
fn check_public(request: &Request<Bytes>, target: &Target) {
    if hub_device_http::owns(target) {
        match hub_device_http::decode(request, target) {
            Ok((operation, _)) => {
                use Operation::{CloudToDevice, File, Telemetry};
                assert!(matches!(operation, CloudToDevice(_) | File(_) | Telemetry(_)), "{operation:?}");
            }
            Err(refused) => refusal::check(refused, hub_http::refuse),
        }
    }
    if hub_http::owns(target) {
        match hub_http::decode(request, target) {
            Ok((operation, _)) => assert!(is_of_back_end(&operation), "{operation:?}"),
            Err(refused) => refusal::check(refused, hub_http::refuse),
        }
    }
    if device_http::owns(target) {
        assert!(!service_http::owns(target), "one request, one dialect");
        match device_http::decode(request, target) {
            Ok((operation, asked)) => check_location(operation, &asked),
            Err(refused) => refusal::check(refused, provisioning::refuse),
        }
    }
    if service_http::owns(target) {
        match service_http::decode(request, target) {
            Ok((operation, _)) => assert!(matches!(operation, Operation::Enrollment(_))),
            Err(refused) => refusal::check(refused, provisioning::refuse),
        }
    }
}

/// Whether a program that operates a hub may ask for it.
const fn is_of_back_end(operation: &Operation) -> bool {
    use Operation::{CloudToDevice, Configuration, DigitalTwin, File, Identity, Job, Method, Query, Transfer, Twin};
    matches!(
        operation,
        Identity(_)
            | Twin(_)
            | Method(_)
            | DigitalTwin(_)
            | Query(_)
            | Job(_)
            | Transfer(_)
            | Configuration(_)
            | CloudToDevice(_)
            | File(_)
    )
}

/// The address that a device is given leads to its own operation.
fn check_location(operation: Operation, asked: &device_http::Asked) {
    let Operation::Registration(ask) = operation else { panic!("a device asked for {operation:?}") };
    let number = OperationId::parse("5.0123456789abcdef.01234567-89ab-cdef-0123-456789abcdef").expect("an operation");
    let accepted = Answer::Accepted { operation: number, retry_after_s: 3 };
    let response = device_http::encode(Ok(Reply::Registration(accepted)), asked, "127.0.0.1:8443");
    let location = response.headers().get(LOCATION).expect("the answer to a registration says where to ask");
    let request = Request::get(location.as_bytes()).body(Bytes::new()).expect("an address");
    let target = Target::parse(request.uri()).expect("an address");
    assert!(device_http::owns(&target), "{location:?}");
    let (again, asked_again) = device_http::decode(&request, &target).expect("it can be asked");
    let Operation::Registration(again) = again else { panic!("a device asked for {again:?}") };
    assert_eq!((again.id_scope, again.registration_id), (ask.id_scope, ask.registration_id));
    assert_eq!(asked_again, *asked);
    assert!(matches!(again.request, Wanted::Poll { operation } if operation == number.to_string()), "{location:?}");
}

/// The management port.
fn check_admin(request: &Request<Bytes>, target: &Target) {
    let refused = |refused: Refused| refusal::check(refused, management::refuse);
    if oauth::owns(target)
        && let Err(denied) = oauth::decode(request, target)
    {
        let response = oauth::deny(denied);
        assert!(response.status().is_client_error());
        refusal::check_body(&response, &denied.to_string());
    }
    if messages::owns(target) {
        match messages::decode(request, target) {
            Ok(operation) => assert!(matches!(operation, Operation::CloudToDevice(_)), "{operation:?}"),
            Err(problem) => refused(problem),
        }
    }
    if files::owns(target) {
        match files::decode(request, target) {
            Ok(operation) => assert!(matches!(operation, Operation::File(_)), "{operation:?}"),
            Err(problem) => refused(problem),
        }
    }
    if own::owns(target) {
        match own::decode(request, target) {
            Ok(operation) => assert!(matches!(operation, Operation::Decision(_))),
            Err(problem) => refused(problem),
        }
    }
    if routing::owns_letters(target) {
        match routing::decode_letters(request, target) {
            Ok(operation) => assert!(matches!(operation, Operation::Route(_))),
            Err(problem) => refused(problem),
        }
    }
    if arm::owns(target) {
        match arm::decode(request, target) {
            Ok((operation, _)) => {
                use Operation::{ManagedTransfer, Resource, Route};
                assert!(matches!(operation, Resource(_) | Route(_) | ManagedTransfer(_)), "{operation:?}");
            }
            Err(problem) => refused(problem),
        }
    }
}
