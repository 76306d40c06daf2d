//! The answers of a provisioning service, the same over every transport (`contract/dps-device.md 2.4` and `2.6`).
//!
//! Pure functions: which answer asks for another poll, which ends the registration, and how. Start at [`judge`].

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::{DeviceError, Refused};

/// Shortest and longest pause that a server may ask for; what is outside is brought inside.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(300);
/// The pause where the server asks for none.
const PAUSE_DEFAULT: Duration = Duration::from_secs(2);

/// A device that has been assigned to a hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Under which name it registered.
    pub registration_id: String,
    /// The operation that assigned it.
    pub operation_id: String,
    /// The hub's host name.
    pub assigned_hub: String,
    /// Its name there.
    pub device_id: String,
    /// What became of its data.
    pub substatus: Option<String>,
    /// Version of the registration's record.
    pub etag: Option<String>,
    /// When the record was made, as the server writes it.
    pub created_at: Option<String>,
    /// When it was changed last.
    pub updated_at: Option<String>,
    /// What an allocator had to say to the device.
    pub payload: Option<Value>,
}

/// An answer of the service.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer<'a> {
    pub(super) status: u16,
    pub(super) retry_after_s: Option<u64>,
    pub(super) body: &'a [u8],
}

/// What an answer asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Ask for this operation after the pause.
    Poll { operation_id: String, after: Duration },
    /// Ask the same again after the pause.
    Repeat { after: Duration },
    /// It is done.
    Assigned(Box<Registration>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    operation_id: String,
    status: String,
    registration_state: Option<State>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct State {
    registration_id: Option<String>,
    assigned_hub: Option<String>,
    device_id: Option<String>,
    substatus: Option<String>,
    etag: Option<String>,
    created_date_time_utc: Option<String>,
    last_updated_date_time_utc: Option<String>,
    payload: Option<Value>,
    error_code: Option<u64>,
    error_message: Option<String>,
}

/// Reads an answer to a registration or to a poll.
pub(super) fn judge(answer: Answer<'_>) -> Result<Step, DeviceError> {
    const UNREADABLE: DeviceError = DeviceError::Unreadable { what: "the registration" };
    let Answer { status, retry_after_s, body } = answer;
    let after = retry_after_s.map_or(PAUSE_DEFAULT, Duration::from_secs).clamp(PAUSE_MIN, PAUSE_MAX);
    match status {
        200..300 => {}
        // Overload passes; everything else would only be refused again.
        429 | 503 => return Ok(Step::Repeat { after }),
        _ => return Err(DeviceError::Refused(Refused::read(status, body))),
    }
    let Document { operation_id, status: word, registration_state } =
        serde_json::from_slice(body).map_err(|_| UNREADABLE)?;
    match (word.as_str(), registration_state) {
        ("assigning", _) => Ok(Step::Poll { operation_id, after }),
        ("assigned", Some(state)) => assigned(operation_id, state).ok_or(UNREADABLE),
        ("failed", Some(state)) => Err(DeviceError::Unassigned(Refused {
            status,
            code: state.error_code,
            message: state.error_message.unwrap_or_default(),
            tracking_id: None,
        })),
        _ => Err(UNREADABLE),
    }
}

fn assigned(operation_id: String, state: State) -> Option<Step> {
    Some(Step::Assigned(Box::new(Registration {
        registration_id: state.registration_id?,
        operation_id,
        assigned_hub: state.assigned_hub?,
        device_id: state.device_id?,
        substatus: state.substatus,
        etag: state.etag,
        created_at: state.created_date_time_utc,
        updated_at: state.last_updated_date_time_utc,
        payload: state.payload,
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASSIGNED: &str = r#"{"operationId":"5.a.b","status":"assigned","registrationState":{"x509":{},
        "registrationId":"cave","createdDateTimeUtc":"2024-01-31T12:00:00.1234567Z","assignedHub":"127.0.0.2",
        "deviceId":"cave","status":"assigned","substatus":"initialAssignment","etag":"IjEi","payload":{"a":1}}}"#;

    #[test]
    fn an_answer_is_polled_repeated_or_taken() {
        let poll = |after| Step::Poll { operation_id: "5.a.b".to_owned(), after: Duration::from_secs(after) };
        let repeat = |after| Step::Repeat { after: Duration::from_secs(after) };
        let assigning = r#"{"operationId":"5.a.b","status":"assigning"}"#;
        let cases = [
            ("the pause asked for", 202, Some(3), assigning, poll(3)),
            ("no pause asked for", 202, None, assigning, poll(2)),
            ("never at once", 202, Some(0), assigning, poll(1)),
            ("never for ever", 200, Some(u64::MAX), assigning, poll(300)),
            ("overload", 429, Some(7), "", repeat(7)),
            ("a server that restarts", 503, None, "<html>", repeat(2)),
        ];
        for (name, status, retry_after_s, body, expected) in cases {
            let found = judge(Answer { status, retry_after_s, body: body.as_bytes() });
            assert_eq!(found.unwrap(), expected, "{name}");
        }
    }

    #[test]
    fn an_assigned_device_knows_its_hub() {
        let step = judge(Answer { status: 200, retry_after_s: None, body: ASSIGNED.as_bytes() }).unwrap();
        let Step::Assigned(registration) = step else { panic!("{step:?}") };
        assert_eq!(registration.assigned_hub, "127.0.0.2");
        assert_eq!((registration.operation_id.as_str(), registration.device_id.as_str()), ("5.a.b", "cave"));
        assert_eq!(registration.etag.as_deref(), Some("IjEi"));
        assert_eq!(registration.payload, Some(serde_json::json!({ "a": 1 })));
    }

    #[test]
    fn what_is_refused_or_unreadable_says_so() {
        let failed = r#"{"operationId":"o","status":"failed","registrationState":{"registrationId":"cave",
            "status":"failed","errorCode":400207,"errorMessage":"Custom allocation failed."}}"#;
        let cases = [
            (401, r#"{"errorCode":401002,"message":"Unauthorized"}"#, "the server answered 401 (401002): Unauthorized"),
            (200, failed, "the registration failed: the server answered 200 (400207): Custom allocation failed."),
            (200, "", "the answer to the registration cannot be read"),
            (200, r#"{"operationId":"o","status":"unassigned"}"#, "the answer to the registration cannot be read"),
            (
                200,
                r#"{"operationId":"o","status":"assigned","registrationState":{"registrationId":"cave"}}"#,
                "the answer to the registration cannot be read",
            ),
        ];
        for (status, body, expected) in cases {
            let error = judge(Answer { status, retry_after_s: None, body: body.as_bytes() }).unwrap_err();
            assert_eq!(error.to_string(), expected, "{body}");
        }
    }
}
