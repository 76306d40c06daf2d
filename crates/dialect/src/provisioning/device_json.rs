//! The bodies of the device API, the same over every transport (`contract/dps-device.md 2.3` to `2.5`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use domain::operation::ErrorKind;
use domain::operation::registration::{
    Answer, AttestedBy, Registration, RegistrationState, RegistrationStatus, Substatus, TpmKeys,
};
use serde_json::{Map, Value, json};

use crate::error::Refused;
use crate::json::{self, InvalidJson};
use crate::time;

/// Most bytes of a request's body (`contract/manual-differences.md`).
pub const BODY_BYTES_MAX: usize = 96 * 1_024;

/// Longest registration ID that is looked at (`contract/dps-device.md 0`).
pub const REGISTRATION_ID_BYTES_MAX: usize = 128;

/// Reads the body of a registration. Nothing, blanks and unknown members are accepted (`contract/dps-device.md 2.3`).
pub fn parse_registration(body: &[u8]) -> Result<Registration, InvalidJson> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Registration::default());
    }
    let document = json::parse(body)?;
    if !document.is_object() {
        return Err(InvalidJson::Type { member: "the body", wanted: "an object" });
    }
    Ok(Registration {
        registration_id: json::text(&document, "registrationId")?,
        payload: document.get("payload").filter(|payload| !payload.is_null()).cloned(),
        tpm: parse_tpm(&document)?,
        has_certificate_request: ["csr", "clientCertificateCsr"]
            .iter()
            .any(|member| document.get(*member).is_some_and(|value| !value.is_null())),
        force: false,
    })
}

/// Refuses a body that no registration could have; `registration_id` is the one outside the body.
pub fn check(registration: &Registration, registration_id: &str) -> Result<(), Refused> {
    let written = registration.registration_id.as_deref();
    if !written.is_none_or(|written| written.eq_ignore_ascii_case(registration_id)) {
        let public = "The registration ID of the body is not that of the request.";
        return Err(Refused::new(ErrorKind::InvalidArgument, public));
    }
    if registration.has_certificate_request {
        return Err(Refused::new(ErrorKind::InvalidArgument, "Certificates are not issued here: leave out csr."));
    }
    Ok(())
}

fn parse_tpm(document: &Value) -> Result<Option<TpmKeys>, InvalidJson> {
    let Some(tpm) = json::object(document, "tpm")? else { return Ok(None) };
    let key = |member| {
        let text = json::text(tpm, member)?;
        let decoded = text.map(|text| STANDARD.decode(text)).transpose();
        decoded.map_err(|_| InvalidJson::Type { member, wanted: "base64" })
    };
    let endorsement_key = key("endorsementKey")?.ok_or(InvalidJson::Missing { member: "endorsementKey" })?;
    Ok(Some(TpmKeys { endorsement_key, storage_root_key: key("storageRootKey")? }))
}

/// An answer as it goes to the device.
#[derive(Clone, Debug, PartialEq)]
pub struct Shown {
    /// 202 while it runs, 200 when it has ended.
    pub status: u16,
    /// Seconds to wait, while it runs.
    pub retry_after_s: Option<u32>,
    /// The operation, for the `Location` header.
    pub operation: Option<String>,
    /// The body.
    pub body: Value,
}

/// Shows an answer. Only `assigning`, `assigned` and `failed` are ever said to a device, since no SDK knows more.
pub fn show(answer: &Answer) -> Shown {
    match answer {
        Answer::Accepted { operation, retry_after_s } => Shown {
            status: 202,
            retry_after_s: Some(*retry_after_s),
            operation: Some(operation.to_string()),
            body: json!({ "operationId": operation.to_string(), "status": "assigning" }),
        },
        Answer::Assigning { operation, registration_id, retry_after_s } => Shown {
            status: 202,
            retry_after_s: Some(*retry_after_s),
            operation: Some(operation.to_string()),
            body: json!({
                "operationId": operation.to_string(),
                "status": "assigning",
                "registrationState": { "registrationId": registration_id, "status": "assigning" },
            }),
        },
        Answer::Finished { operation, state } => Shown {
            status: 200,
            retry_after_s: None,
            operation: Some(operation.to_string()),
            body: json!({
                "operationId": operation.to_string(),
                "status": device_status(state.status),
                "registrationState": registration_state(state),
            }),
        },
        Answer::State(state) => {
            Shown { status: 200, retry_after_s: None, operation: None, body: registration_state(state) }
        }
    }
}

const fn device_status(status: RegistrationStatus) -> &'static str {
    match status {
        RegistrationStatus::Assigning => "assigning",
        RegistrationStatus::Assigned => "assigned",
        RegistrationStatus::Failed | RegistrationStatus::Disabled => "failed",
        RegistrationStatus::Unassigned => "unassigned",
    }
}

/// The word for a status in the service API.
pub(super) const fn status(status: RegistrationStatus) -> &'static str {
    match status {
        RegistrationStatus::Disabled => "disabled",
        other => device_status(other),
    }
}

const fn substatus(substatus: Substatus) -> &'static str {
    match substatus {
        Substatus::InitialAssignment => "initialAssignment",
        Substatus::DeviceDataMigrated => "deviceDataMigrated",
        Substatus::DeviceDataReset => "deviceDataReset",
        Substatus::ReprovisionedToInitialAssignment => "reprovisionedToInitialAssignment",
    }
}

/// The record of a registration as devices see it. Absent members are left out, never null.
pub fn registration_state(state: &RegistrationState) -> Value {
    let (name, group) = match &state.attested_by {
        Some(AttestedBy::X509 { group }) => ("x509", group),
        Some(AttestedBy::SymmetricKey { group }) => ("symmetricKey", group),
        None => return Value::Object(record(state, device_status(state.status))),
    };
    let attested_by = json::members([("enrollmentGroupId", json!(group))]);
    let mut shown = Map::new();
    shown.insert(name.to_owned(), Value::Object(attested_by));
    shown.extend(record(state, device_status(state.status)));
    Value::Object(shown)
}

/// The record without what only devices see, with `status` spelled as given.
pub(super) fn record(state: &RegistrationState, status: &str) -> Map<String, Value> {
    let (assignment, error) = (state.assignment.as_ref(), state.error.as_ref());
    json::members([
        ("registrationId", json!(state.registration_id)),
        ("createdDateTimeUtc", json!(state.created_at.map(time::rfc3339))),
        ("assignedHub", json!(assignment.map(|assignment| &assignment.host_name))),
        ("deviceId", json!(assignment.map(|assignment| &assignment.device_id))),
        ("status", json!(status)),
        ("substatus", json!(state.substatus.map(substatus))),
        ("errorCode", json!(error.map(|error| error.code))),
        ("errorMessage", json!(error.map(|error| &error.message))),
        ("lastUpdatedDateTimeUtc", json!(state.updated_at.map(time::rfc3339))),
        ("etag", json!(state.etag.map(super::service_json::etag_text))),
        ("payload", json!(state.payload)),
    ])
}
