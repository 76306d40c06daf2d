//! How the vectors under `testdata/wire` write requests and responses, whatever the dialect.

use bytes::Bytes;
use domain::ids::Precondition;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use serde_json::Value;

use crate::http::Target;

/// A request, and the operation in words or the refusal that it leads to.
#[derive(serde::Deserialize)]
pub struct Exchange<Refusal, Body = String> {
    pub source: String,
    pub request: String,
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    #[serde(default)]
    pub body: Body,
    pub asks: Option<String>,
    pub refused: Option<Refusal>,
}

/// What is demanded of the present version.
pub fn show_precondition(precondition: Precondition) -> String {
    match precondition {
        Precondition::None => "any".to_owned(),
        Precondition::Exists => "present".to_owned(),
        Precondition::Matches(etag) => format!("at {}", etag.number()),
        Precondition::Impossible => "never".to_owned(),
    }
}

/// A request as a vector writes it: `METHOD target` with headers and body, each of which may be missing.
pub fn request(line: &str, headers: &[(String, String)], body: &[u8]) -> (Request<Bytes>, Target) {
    let (method, target) = line.split_once(' ').unwrap();
    let mut request = Request::builder().method(method).uri(target).body(Bytes::copy_from_slice(body)).unwrap();
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        request.headers_mut().append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    let target = Target::parse(request.uri()).unwrap();
    (request, target)
}

/// The response as lines: status, headers in order of name, and the body.
pub fn show_response(response: &Response<Bytes>) -> Vec<String> {
    let mut headers = show_headers(response.headers());
    headers.sort();
    let mut lines = vec![response.status().as_u16().to_string()];
    lines.extend(headers);
    lines.push(String::from_utf8(response.body().to_vec()).unwrap());
    lines
}

fn show_headers(headers: &HeaderMap) -> Vec<String> {
    headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect()
}

/// The JSON body of a response.
pub fn body_of(response: &Response<Bytes>) -> Value {
    serde_json::from_slice(response.body()).unwrap()
}
