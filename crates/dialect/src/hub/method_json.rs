//! Calls of direct methods as a hub's service API writes them (`contract/hub-service.md 7`).
//!
//! Payloads pass through as text: what a device says reaches the operator byte for byte.

use std::ops::RangeInclusive;

use bytes::Bytes;
use domain::ids::MethodName;
use domain::method::{
    CONNECT_TIMEOUT_S, Call, InvalidPayload, InvalidTimeout, Payload, RESPONSE_TIMEOUT_S, Response, Timeouts,
};
use domain::operation::ErrorKind;
use serde_json::Value;

use super::registry_json::invalid;
use crate::error::Refused;
use crate::json::{InvalidJson, text};

/// How long a caller waits for the device to connect, in seconds.
pub const CONNECT_TIMEOUT: &str = "connectTimeoutInSeconds";
/// How long it waits for the response, in seconds.
pub const RESPONSE_TIMEOUT: &str = "responseTimeoutInSeconds";

/// Reads a call. Without a payload the device is told `null`, since one SDK fails on nothing at all
/// (`contract/hub-device.md 2.10`).
pub fn parse_call(body: &Value) -> Result<Call, Refused> {
    if !body.is_object() {
        return Err(InvalidJson::Type { member: "the body", wanted: "an object" }.into());
    }
    let method = text(body, "methodName")?.ok_or(InvalidJson::Missing { member: "methodName" })?;
    let method = MethodName::parse(&method).map_err(|error| invalid(format!("methodName is not valid: {error}.")))?;
    let payload = match body.get("payload") {
        None => Payload::NULL,
        Some(payload) => Payload::parse(Bytes::from(payload.to_string())).map_err(untaken)?,
    };
    let timeouts = timeouts(seconds(body, CONNECT_TIMEOUT)?, seconds(body, RESPONSE_TIMEOUT)?)?;
    Ok(Call { method, payload, timeouts })
}

/// The refusal of a payload.
pub fn untaken(error: InvalidPayload) -> Refused {
    match error {
        InvalidPayload::TooLong { .. } => Refused::new(ErrorKind::TooLarge, format!("{error}.")),
        InvalidPayload::NotJson => InvalidJson::Malformed.into(),
    }
}

/// How long a caller waits, by seconds that it may leave out.
pub fn timeouts(connect_s: Option<u64>, response_s: Option<u64>) -> Result<Timeouts, Refused> {
    Timeouts::new(connect_s, response_s).map_err(|error| match error {
        InvalidTimeout::Connect => out_of_range(CONNECT_TIMEOUT, &CONNECT_TIMEOUT_S),
        InvalidTimeout::Response => out_of_range(RESPONSE_TIMEOUT, &RESPONSE_TIMEOUT_S),
    })
}

/// What a device said: its own status, which is not that of the answer.
pub fn show_response(response: &Response) -> Bytes {
    let mut body = format!("{{\"status\":{},\"payload\":", response.status).into_bytes();
    body.extend_from_slice(response.payload.bytes());
    body.push(b'}');
    body.into()
}

fn out_of_range(member: &str, range: &RangeInclusive<u64>) -> Refused {
    invalid(format!("{member} must be within [{}; {}].", range.start(), range.end()))
}

/// A member that counts seconds; absent and null are `None`. A whole number out of any range is one that is too great.
fn seconds(body: &Value, member: &'static str) -> Result<Option<u64>, Refused> {
    match body.get(member) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Number(number)) if number.is_i64() || number.is_u64() => {
            Ok(Some(number.as_u64().unwrap_or(u64::MAX)))
        }
        Some(_) => Err(InvalidJson::Type { member, wanted: "a whole number" }.into()),
    }
}
