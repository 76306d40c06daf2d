//! The management dialects of the admin port: Azure Resource Manager's form ([`arm`]), the token endpoint ([`oauth`]),
//! and what Azure has no API for ([`own`], [`messages`], and what endpoints would not take, in [`routing`]).
//!
//! Nothing here judges a token: it goes into the caller's evidence, and the one door judges it. Start at [`arm::decode`].

pub mod arm;
pub mod arm_json;
pub mod files;
pub mod message_json;
pub mod messages;
pub mod oauth;
pub mod own;
pub mod routing;
pub mod routing_json;
pub mod transfers;
mod unenforced;

use bytes::Bytes;
use domain::operation::{ErrorKind, Failure};
use http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, Response};

use crate::error;
use crate::http::{json, with_header};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-request-id");

/// A failure as the management dialects tell it (`contract/control-plane.md 2`).
pub fn refuse(failure: &Failure) -> Response<Bytes> {
    let response = json(error::status(failure.kind), &error::management_body(failure));
    let response = with_header(response, REQUEST_ID, &failure.tracking.to_string());
    let response = match failure.kind {
        ErrorKind::Unauthorized => with_header(response, WWW_AUTHENTICATE, "Bearer"),
        _ => response,
    };
    match failure.retry_after_s {
        Some(seconds) => with_header(response, RETRY_AFTER, &seconds.to_string()),
        None => response,
    }
}

/// The answer to a reply that does not belong to the request.
fn internal() -> Response<Bytes> {
    let kind = ErrorKind::Internal;
    let code = error::spelling(kind).management;
    json(error::status(kind), &serde_json::json!({ "error": { "code": code, "message": "Internal error." } }))
}
