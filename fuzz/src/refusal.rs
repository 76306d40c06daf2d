//! What every refusal holds to, whoever was not understood: it is the client's fault, says why, and is told in JSON.

use bytes::Bytes;
use dialect::error::{self, Refused};
use dialect::session::Refusals;
use domain::operation::Failure;
use http::Response;
use serde_json::Value;

use crate::service::failure;

/// Most bytes of a reason: a sentence with what it quotes.
const PUBLIC_BYTES_MAX: usize = 512;

/// Gives every refusal the same number and time.
pub struct SameRefusals;

impl Refusals for SameRefusals {
    fn refuse(&self, refused: Refused) -> Failure {
        failure(refused.kind, refused.public)
    }
}

/// Looks at `refused`, and at what `encode` makes of it.
///
/// # Panics
/// When the client is told nothing, too much, or that the server is at fault.
pub fn check(refused: Refused, encode: impl Fn(&Failure) -> Response<Bytes>) {
    let Refused { kind, public } = refused;
    assert!(error::status(kind).is_client_error(), "{kind:?}: {public}");
    assert!((1..=PUBLIC_BYTES_MAX).contains(&public.len()), "{public:?}");
    assert!(!public.contains(char::is_control), "{public:?}");
    let response = encode(&failure(kind, public.clone()));
    assert!(response.status().is_client_error(), "{kind:?}: {public}");
    check_body(&response, &public);
}

/// Looks at a body that must say `reason`.
///
/// # Panics
/// When it is not JSON, or does not say it.
pub fn check_body(response: &Response<Bytes>, reason: &str) {
    let body: Value = serde_json::from_slice(response.body()).expect("a refusal is JSON");
    assert!(says(&body, reason), "{body} does not say {reason:?}");
}

fn says(body: &Value, reason: &str) -> bool {
    match body {
        Value::String(text) => text.contains(reason),
        Value::Object(members) => members.values().any(|member| says(member, reason)),
        _ => false,
    }
}
