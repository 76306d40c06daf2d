//! The provisioning service's dialects: devices over MQTT and HTTPS, operators' programs over HTTPS.
//!
//! [`device_json`] holds what both device dialects say alike, this module how both HTTP dialects say that something
//! failed. Nothing here judges a credential. Start at [`device_mqtt`].

pub mod device_amqp;
pub mod device_http;
pub mod device_json;
pub mod device_mqtt;
pub mod service_http;
pub mod service_json;
#[cfg(test)]
mod wire;

use bytes::Bytes;
use domain::operation::{ErrorKind, Failure};
use http::header::RETRY_AFTER;
use http::{HeaderName, Response};

use crate::error::{self, Refused};
use crate::http::{json, with_header};

const ERROR_CODE: HeaderName = HeaderName::from_static("x-ms-error-code");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-request-id");

/// A failure as both HTTP dialects tell it (`contract/dps-device.md 2.8`).
pub fn refuse(failure: &Failure) -> Response<Bytes> {
    let response = json(error::status(failure.kind), &error::provisioning_body(failure));
    let response = with_header(response, ERROR_CODE, &error::spelling(failure.kind).provisioning.to_string());
    let response = with_header(response, REQUEST_ID, &failure.tracking.to_string());
    match failure.retry_after_s {
        Some(seconds) => with_header(response, RETRY_AFTER, &seconds.to_string()),
        None => response,
    }
}

/// The answer to a reply that does not belong to the request.
fn internal() -> Response<Bytes> {
    let body = error::provisioning_refusal(&Refused::new(ErrorKind::Internal, "Internal error."));
    json(error::status(ErrorKind::Internal), &body)
}
