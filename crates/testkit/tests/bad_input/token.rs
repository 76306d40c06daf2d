//! Forms that ask for a token and should not get one (RFC 6749, section 5.2).

use serde_json::Value;
use testkit::raw_http::RawRequest;

use crate::ground::Ground;
use crate::table::Api;

/// What a client sends; `{client}` and `{secret}` stand for the operator's credential.
const GOOD: &str = "grant_type=client_credentials&client_id={client}&client_secret={secret}&\
    scope=https%3A%2F%2Fmanagement.azure.com%2F.default";

/// What of the form is replaced, by what, and the status and the error of the answer.
const CASES: &[(&str, &str, &str, u16, &str)] = &[
    ("as it should be", "", "", 200, ""),
    ("an unknown field", "grant_type", "unknown=1&grant_type", 200, ""),
    ("the form of the first version", "scope", "resource", 200, ""),
    ("no grant", "grant_type=client_credentials&", "", 400, "invalid_request"),
    ("another grant", "client_credentials", "password", 400, "unsupported_grant_type"),
    ("an empty grant", "client_credentials", "", 400, "unsupported_grant_type"),
    ("no client", "client_id={client}&", "", 400, "invalid_request"),
    ("an empty client", "{client}", "", 401, "invalid_client"),
    ("another client", "{client}", "00000000-0000-0000-0000-000000000000", 401, "invalid_client"),
    ("a client that is not UTF-8", "{client}", "%FF", 400, "invalid_request"),
    ("no secret", "client_secret={secret}&", "", 400, "invalid_request"),
    ("an empty secret", "{secret}", "", 401, "invalid_client"),
    ("another secret", "{secret}", "secret", 401, "invalid_client"),
    ("a secret with a null character", "{secret}", "{secret}%00", 401, "invalid_client"),
    ("no scope", "&scope=https%3A%2F%2Fmanagement.azure.com%2F.default", "", 400, "invalid_request"),
    ("another separator", "&", ";", 400, "unsupported_grant_type"),
    ("JSON", GOOD, "{}", 400, "invalid_request"),
    ("nothing", GOOD, "", 400, "invalid_request"),
    ("a long form", "scope=", "scope={long}", 400, "invalid_request"),
];

/// Longer than any form that is read.
const LONG_BYTES: usize = 70 * 1_024;

#[tokio::test]
async fn a_form_that_is_wrong_gets_no_token() {
    let mut ground = Ground::start().await;
    let (mut wrong, long) = (Vec::new(), "a".repeat(LONG_BYTES));
    for (case, part, instead, status, error) in CASES {
        let form = GOOD.replacen(part, instead, if part.is_empty() { 0 } else { usize::MAX });
        let found = ask(&mut ground, &form.replace("{long}", &long)).await;
        if found != (*status, (*error).to_owned()) {
            wrong.push(format!("{case}: {found:?}"));
        }
        assert_eq!(ask(&mut ground, GOOD).await.0, 200, "after {case}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    ground.stop().await;
}

/// The status, and the error if there is one. An answer has a token or an error, never both.
async fn ask(ground: &mut Ground, form: &str) -> (u16, String) {
    let admin = &ground.muster().admin;
    let (client, secret) = &admin.credential;
    let headers = [("Host", &*admin.host), ("Content-Type", "application/x-www-form-urlencoded")];
    let request = RawRequest {
        method: "POST".to_owned(),
        target: "/adfs/oauth2/token".to_owned(),
        headers: headers.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())).to_vec(),
        body: form.replace("{client}", client).replace("{secret}", secret).into_bytes(),
    };
    let answer = ground.send(Api::Management, &request).await.unwrap();
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(body["access_token"].is_string(), answer.status == 200, "{body}");
    (answer.status, body["error"].as_str().unwrap_or_default().to_owned())
}
