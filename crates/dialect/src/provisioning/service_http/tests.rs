use domain::clock::{SeededEntropy, UnixTime};
use domain::enrollment::{Enrollment, merge};
use domain::ids::Etag;
use domain::operation::Page;
use domain::operation::registration::RegistrationState;
use proptest::prelude::*;

use super::*;
use crate::http::{CONTINUATION, ITEM_TYPE};
use crate::mqtt::script::failure;
use crate::provisioning::wire;
use crate::vectors::{Exchange, body_of, request, show_response};

const ENTROPY_SEED: u64 = 11;
const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZg==";

fn send(line: &str, headers: &[(String, String)], body: &str) -> Result<(Operation, Asked), Refused> {
    let (request, target) = request(line, headers, body.as_bytes());
    assert!(owns(&target), "{line}");
    decode(&request, &target)
}

fn enrollment(kind: EntryKind, name: &str) -> Enrollment {
    let keys = json!({ "primaryKey": KEY, "secondaryKey": KEY });
    let body = json!({ shape::id_member(kind): name, "attestation": { "type": "symmetricKey", "symmetricKey": keys } });
    let draft = shape::parse_draft(kind, None, &body).unwrap();
    let entry = merge(draft, None, &SeededEntropy::new(ENTROPY_SEED)).unwrap();
    let at = UnixTime::from_micros(1_706_702_400_123_456);
    Enrollment { created_at: at, updated_at: at, etag: Etag::from_number(7), ..entry }
}

fn state(status: &str) -> RegistrationState {
    serde_json::from_value(json!({ "registration_id": "dev-1", "status": status })).unwrap()
}

fn tell(answer: Answer, asked: Asked) -> Response<Bytes> {
    encode(Ok(Reply::Enrollment(answer)), asked)
}

#[test]
fn every_request_becomes_its_operation_or_its_refusal() {
    let vectors = include_str!("../../../../../testdata/wire/provisioning/service-requests.json");
    for exchange in serde_json::from_str::<Vec<Exchange<u32>>>(vectors).unwrap() {
        let Exchange { source, request, headers, body, asks, refused } = exchange;
        let sent = send(&request, &headers, &body);
        let sent = sent.map(|(operation, _)| wire::show(&operation));
        let expected = asks.ok_or_else(|| refused.unwrap());
        assert_eq!(sent.map_err(|refused| spelling(refused.kind).provisioning), expected, "{source}: {request}");
    }
}

/// `contract/dps-service.md 4.3`.
#[test]
fn keys_are_shown_to_those_who_put_them_or_ask_for_them() {
    let entry = || Box::new(enrollment(EntryKind::Individual, "dev-1"));
    let page = || Page { items: vec![*entry()], next: None };
    let cases = [
        ("put", tell(Answer::Entry(entry()), Asked::Put), true),
        ("read", tell(Answer::EntryAndState(entry(), Box::new(state("unassigned"))), Asked::Other), false),
        ("read a group", tell(Answer::Entry(entry()), Asked::Other), false),
        ("list", tell(Answer::Entries(page()), Asked::List(EntryKind::Individual)), false),
        ("mechanism", tell(Answer::Attestation(Box::new(entry().attestation)), Asked::Other), true),
    ];
    for (name, response, shown) in cases {
        let body = String::from_utf8(response.body().to_vec()).unwrap();
        assert_eq!((response.status(), body.contains(KEY)), (StatusCode::OK, shown), "{name}: {body}");
        assert!(body.contains("\"symmetricKey\""), "{name}: {body}");
    }
}

/// `contract/dps-service.md 4.4`.
#[test]
fn only_the_reading_of_one_enrollment_shows_its_registration() {
    let entry = || Box::new(enrollment(EntryKind::Individual, "dev-1"));
    let read = tell(Answer::EntryAndState(entry(), Box::new(state("unassigned"))), Asked::Other);
    assert_eq!(body_of(&read)["registrationState"], json!({ "registrationId": "dev-1", "status": "unassigned" }));
    let page = Page { items: vec![*entry()], next: None };
    let list = tell(Answer::Entries(page), Asked::List(EntryKind::Individual));
    assert_eq!(body_of(&list)[0].get("registrationState"), None);
    assert_eq!(body_of(&tell(Answer::Entry(entry()), Asked::Put)).get("registrationState"), None);
    let record = tell(Answer::Registration(Box::new(state("disabled"))), Asked::Other);
    assert_eq!(body_of(&record), json!({ "registrationId": "dev-1", "status": "disabled" }));
}

/// `contract/dps-service.md 6`.
#[test]
fn pages_name_their_items_and_the_last_one_names_no_other() {
    let page = |kind, next: Option<&str>| Page {
        items: vec![enrollment(kind, "a")],
        next: next.map(|next| domain::operation::Cursor(next.to_owned())),
    };
    let records = Page { items: Vec::new(), next: None };
    let cases = [
        (Answer::Entries(page(EntryKind::Individual, Some("a"))), EntryKind::Individual, "Enrollment", true),
        (Answer::Entries(page(EntryKind::Group, None)), EntryKind::Group, "EnrollmentGroup", false),
        (Answer::Registrations(records), EntryKind::Individual, "DeviceRegistration", false),
    ];
    for (answer, kind, item_type, has_next) in cases {
        let response = tell(answer, Asked::List(kind));
        assert_eq!(response.headers()[ITEM_TYPE], item_type);
        assert!(body_of(&response).is_array());
        let next = response.headers().get(CONTINUATION).map(|next| next.to_str().unwrap().to_owned());
        assert_eq!(next.is_some(), has_next, "{item_type}");
        let Some(next) = next else { continue };
        let headers = [("x-ms-continuation".to_owned(), next)];
        let (operation, _) = send("POST /enrollments/query?api-version=1", &headers, "").unwrap();
        assert_eq!(wire::show(&operation), "list | Individual | 100 after a");
    }
}

/// `contract/dps-service.md 7`.
#[test]
fn a_bulk_request_always_succeeds_and_tells_what_did_not() {
    let unreadable = json!({ "registrationId": "dev 3", "attestation": { "type": "symmetricKey" } });
    let body = json!({ "mode": "create", "enrollments": [unreadable, { "registrationId": "dev-2" }] });
    let (operation, asked) = send("POST /enrollments?api-version=1", &[], &body.to_string()).unwrap();
    assert_eq!(wire::show(&operation), "bulk", "nothing is left to be done");

    let name = EntryName::Individual(RegistrationId::parse("dev-1").unwrap());
    let response = tell(Answer::Bulk(vec![(name, failure(ErrorKind::EnrollmentExists))]), asked);
    let told = json!({ "errors": [
        { "registrationId": "dev-1", "errorCode": 409_201, "errorStatus": "Because." },
        { "registrationId": "dev 3", "errorCode": 400_004,
          "errorStatus": "Not understood: registrationId: the character ' ' is not allowed." },
        { "registrationId": "dev-2", "errorCode": 400_012, "errorStatus": "Not understood: attestation is missing." },
    ], "isSuccessful": false });
    assert_eq!((response.status(), body_of(&response)), (StatusCode::OK, told));

    let response = tell(Answer::Bulk(Vec::new()), Asked::Bulk(EntryKind::Group, Vec::new()));
    assert_eq!(body_of(&response), json!({ "errors": [], "isSuccessful": true }));
    let group = EntryName::Group(EnrollmentGroupId::parse("g").unwrap());
    let failures = vec![(group, failure(ErrorKind::EnrollmentGroupNotFound))];
    let response = tell(Answer::Bulk(failures), Asked::Bulk(EntryKind::Group, Vec::new()));
    assert_eq!(body_of(&response)["errors"][0]["enrollmentGroupId"], json!("g"));
}

#[test]
fn deletions_say_nothing_and_failures_say_what_can_be_found_again() {
    assert_eq!(show_response(&tell(Answer::Deleted, Asked::Other)), ["204", ""]);
    let response = encode(Err(failure(ErrorKind::PreconditionFailed)), Asked::Put);
    let expected = [
        "412",
        "content-type: application/json; charset=utf-8",
        "x-ms-error-code: 412001",
        "x-ms-request-id: 01234567-89ab-4def-8123-456789abcdef",
        "{\"errorCode\":412001,\"trackingId\":\"01234567-89ab-4def-8123-456789abcdef\",\"message\":\"Because.\",\
         \"timestampUtc\":\"2017-08-17T10:48:44.5309340Z\"}",
    ];
    assert_eq!(show_response(&response), expected);
    let other = Reply::Telemetry(domain::operation::telemetry::Answer::Stored);
    assert_eq!(encode(Ok(other), Asked::Other).status(), StatusCode::INTERNAL_SERVER_ERROR);
}

proptest! {
    #[test]
    fn no_request_panics(
        method in "GET|PUT|POST|DELETE|PATCH",
        path in "(enrollments|enrollmentGroups|registrations)(/(query|attestationmechanism|%[0-9a-f]{2}|[a-z]{1,4})){0,3}",
        etag in "[\"*W/a-zA-Z0-9=]{0,20}",
        body in "(\\{\"(query|mode|enrollments|attestation)\":.{0,30}\\}|.{0,40})",
    ) {
        let headers = [("if-match".to_owned(), etag.clone()), ("x-ms-continuation".to_owned(), etag)];
        let request = Request::builder().method(&*method).uri(format!("/{path}?api-version=1"));
        let mut request = request.body(Bytes::from(body)).unwrap();
        for (name, value) in &headers {
            let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        if let Ok(target) = Target::parse(request.uri()) {
            let _ = decode(&request, &target);
        }
    }
}
