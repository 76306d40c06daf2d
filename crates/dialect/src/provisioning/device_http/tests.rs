use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::error::spelling;
use crate::http::signature;
use crate::mqtt::script::failure;
use crate::provisioning::wire::{self, read_reply};
use crate::vectors::{Exchange, body_of, request, show_response};

#[derive(serde::Deserialize)]
struct Told {
    source: String,
    reply: Option<Vec<String>>,
    failure: Option<String>,
    response: Vec<String>,
}

#[derive(serde::Deserialize)]
struct Printed {
    source: String,
    line: String,
    values: Vec<(String, String)>,
    is_signed: bool,
    asks: String,
}

fn send(line: &str, headers: &[(String, String)], body: &[u8]) -> Result<String, u32> {
    let (request, target) = request(line, headers, body);
    assert!(owns(&target), "{line}");
    let decoded = decode(&request, &target);
    decoded.map(|(operation, _)| wire::show(&operation)).map_err(|refused| spelling(refused.kind).provisioning)
}

fn register(body: &Value) -> Result<String, u32> {
    send("PUT /0ne/registrations/dev-1/register?api-version=1", &[], body.to_string().as_bytes())
}

#[test]
fn every_request_becomes_its_operation_or_its_refusal() {
    let vectors = include_str!("../../../../../testdata/wire/provisioning/device-requests.json");
    for exchange in serde_json::from_str::<Vec<Exchange<u32>>>(vectors).unwrap() {
        let Exchange { source, request, headers, body, asks, refused } = exchange;
        let expected = asks.ok_or_else(|| refused.unwrap());
        assert_eq!(send(&request, &headers, body.as_bytes()), expected, "{source}: {request}");
    }
}

#[test]
fn every_reply_becomes_its_response() {
    let vectors = include_str!("../../../../../testdata/wire/provisioning/device-replies.json");
    let line = "PUT /0ne00000000/registrations/dev-1/register?api-version=2019-03-31";
    let (request, target) = request(line, &[], b"");
    let (_, asked) = decode(&request, &target).unwrap();
    for Told { source, reply, failure: kind, response } in serde_json::from_str::<Vec<Told>>(vectors).unwrap() {
        let reply = match (reply, kind) {
            (Some(fields), _) => Ok(read_reply(&fields.iter().map(String::as_str).collect::<Vec<_>>())),
            (None, kind) => {
                let kind = kind.unwrap();
                let kind = ErrorKind::ALL.into_iter().find(|one| format!("{one:?}") == kind).unwrap();
                let retry_after_s = (kind == ErrorKind::Throttled).then_some(5);
                Err(Failure { retry_after_s, ..failure(kind) })
            }
        };
        assert_eq!(show_response(&encode(reply, &asked, "127.0.0.1:8443")), response, "{source}");
    }
}

/// The words of a command line; quotes hold words together.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for character in line.chars() {
        match character {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            other => words.last_mut().unwrap().push(other),
        }
    }
    words
}

#[test]
fn the_manuals_commands_are_understood_as_printed() {
    let vectors = include_str!("../../../../../testdata/wire/provisioning/manual-curl.json");
    for Printed { source, line, values, is_signed, asks } in serde_json::from_str::<Vec<Printed>>(vectors).unwrap() {
        let line = values.iter().fold(line, |line, (placeholder, value)| line.replace(placeholder, value));
        let words = words(&line);
        let following = |option: &str| {
            let pairs = words.iter().zip(words.iter().skip(1));
            pairs.filter(|(word, _)| *word == option).map(|(_, next)| next.clone()).collect::<Vec<_>>()
        };
        let header = |text: &String| text.split_once(": ").map(|(name, value)| (name.to_owned(), value.to_owned()));
        let headers: Vec<_> = following("-H").iter().filter_map(header).collect();
        let line = format!("{} {}", following("-X")[0], words.last().unwrap());
        let body = following("-d")[0].clone();
        assert_eq!(send(&line, &headers, body.as_bytes()), Ok(asks), "{source}");
        let (request, _) = request(&line, &headers, b"");
        assert_eq!(signature(request.headers()).is_some_and(|parsed| parsed.is_ok()), is_signed, "{source}");
    }
}

#[test]
fn each_member_of_the_body_has_an_answer_whatever_it_is() {
    let long = "x".repeat(1_000);
    let registered = |rest: &str| Ok(format!("register | 0ne | dev-1{rest}"));
    let cases = [
        (json!({}), registered("")),
        (json!({ "registrationId": null, "payload": null, "tpm": null, "csr": null }), registered("")),
        (json!({ "another": { "deep": [1] } }), registered("")),
        (json!({ "registrationId": long }), registered(&format!(" | of {long}"))),
        (json!({ "registrationId": 1 }), Err(400_012)),
        (json!({ "registrationId": {} }), Err(400_012)),
        (json!({ "payload": "text" }), registered(" | payload \"text\"")),
        (json!({ "payload": [null, 1.50] }), registered(" | payload [null,1.5]")),
        (json!({ "payload": false }), registered(" | payload false")),
        (json!({ "tpm": 1 }), Err(400_012)),
        (json!({ "tpm": {} }), Err(400_012)),
        (json!({ "tpm": { "endorsementKey": null } }), Err(400_012)),
        (json!({ "tpm": { "endorsementKey": 1 } }), Err(400_012)),
        (json!({ "tpm": { "endorsementKey": "not base64!" } }), Err(400_012)),
        (json!({ "tpm": { "endorsementKey": "AA==" } }), registered(" | tpm 00 ")),
        (json!({ "tpm": { "endorsementKey": "AA==", "storageRootKey": null } }), registered(" | tpm 00 ")),
        (json!({ "tpm": { "endorsementKey": "AA==", "storageRootKey": "AA" } }), Err(400_012)),
        (json!({ "csr": 1 }), registered(" | csr")),
        (json!([]), Err(400_012)),
        (json!("text"), Err(400_012)),
        (json!(null), Err(400_012)),
    ];
    for (body, expected) in cases {
        assert_eq!(register(&body), expected, "{body}");
    }
}

#[test]
fn bodies_and_names_are_bounded() {
    let body =
        |bytes: usize| send("PUT /0ne/registrations/dev-1/register?api-version=1", &[], &vec![b' '; bytes]).map(|_| ());
    assert_eq!((body(BODY_BYTES_MAX), body(BODY_BYTES_MAX + 1)), (Ok(()), Err(413_001)));
    let named = |bytes: usize| {
        let name = "a".repeat(bytes);
        send(&format!("GET /0ne/registrations/{name}/operations/x?api-version=1"), &[], b"").map(|_| ())
    };
    assert_eq!((named(REGISTRATION_ID_BYTES_MAX), named(REGISTRATION_ID_BYTES_MAX + 1)), (Ok(()), Err(400_004)));
}

#[test]
fn entries_that_are_called_registrations_belong_to_the_service_api() {
    for path in [
        "/enrollments/registrations/attestationmechanism",
        "/enrollmentGroups/registrations/attestationmechanism",
        "/registrations/registrations/query",
    ] {
        let (_, target) = request(&format!("POST {path}?api-version=1"), &[], b"");
        assert!(!owns(&target) && service_http::owns(&target), "{path}");
    }
    for path in ["/", "/0ne", "/0ne/registrations", "/0ne/other/x"] {
        let (_, target) = request(&format!("GET {path}"), &[], b"");
        assert!(!owns(&target) && !service_http::owns(&target), "{path}");
    }
}

#[test]
fn the_address_of_an_operation_leads_back_to_it() {
    let line = "PUT /0ne/registrations/dev-1/register?api-version=2021%26x%3D%0d%0a%C3%A4";
    let (request, target) = request(line, &[], b"");
    let (_, asked) = decode(&request, &target).unwrap();
    let operation = "5.316aac5bdc130deb.b1e02da8-0000-0000-0000-000000000000";
    let response = encode(Ok(read_reply(&["accepted", operation, "3"])), &asked, "127.0.0.1");
    let location = response.headers()[LOCATION].to_str().unwrap();
    assert_eq!(send(&format!("GET {location}"), &[], b""), Ok(format!("poll | 0ne | dev-1 | {operation}")));

    let response = encode(Ok(read_reply(&["accepted", operation, "3"])), &asked, "an impossible\nhost");
    assert!(!response.headers().contains_key(LOCATION));
}

#[test]
fn an_answer_of_another_kind_is_our_fault() {
    let (request, target) = request("POST /0ne/registrations/dev-1?api-version=1", &[], b"");
    let (_, asked) = decode(&request, &target).unwrap();
    let other = Reply::Telemetry(domain::operation::telemetry::Answer::Stored);
    let response = encode(Ok(other), &asked, "h");
    assert_eq!((response.status().as_u16(), &body_of(&response)["errorCode"]), (500, &json!(500_001)));
}

proptest! {
    #[test]
    fn no_request_panics(
        method in "GET|PUT|POST|DELETE|PATCH",
        path in "(/|%[0-9a-f]{2}|registrations|register|operations|[a-z0-9.:-]{1,8}){1,8}",
        query in "(api-version=1)?(&?[a-zA-Z%0-9=]{0,20})",
        body in "(\\{\"(registrationId|tpm|payload|csr)\":.{0,20}\\}|.{0,40})",
    ) {
        let uri = format!("/{path}?{query}");
        if let Ok(request) = Request::builder().method(&*method).uri(uri).body(Bytes::from(body))
            && let Ok(target) = Target::parse(request.uri())
        {
            let _ = (owns(&target), decode(&request, &target));
        }
    }
}
