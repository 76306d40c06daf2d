//! The documents that queries address and that `SELECT *` answers with: a twin with what it shows of its identity
//! (`contract/hub-service.md 5`), and what became of a job at a device (`contract/hub-service.md 6.1`).
//!
//! Its spellings stand here, and not in a dialect, because they are words of the language: `status = 'enabled'` means the
//! text of this document, for every store.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::Root;
use crate::clock::UnixTime;
use crate::identity::{Authentication, Identity, IdentityStatus, Thumbprints};
use crate::ids::Etag;
use crate::job::{DeviceJob, DeviceJobStatus, DeviceOutcome, JobKind};
use crate::twin::Twin;

/// The document of a twin.
pub fn of_twin(twin: &Twin, identity: &Identity) -> Map<String, Value> {
    let name = &identity.name;
    let mut document = Map::new();
    let mut put = |member: &str, value: Value| drop(document.insert(member.to_owned(), value));
    put(Root::DeviceId.name(), json!(name.device));
    if let Some(module) = &name.module {
        put(Root::ModuleId.name(), json!(module));
    }
    put("etag", json!(twin_etag(twin.etag)));
    put("deviceEtag", json!(identity_etag(identity.etag)));
    put(Root::Status.name(), json!(status(identity.status)));
    put("statusReason", json!(identity.status_reason));
    put(Root::StatusUpdateTime.name(), json!(moment(identity.status_updated_at)));
    put(Root::ConnectionState.name(), json!(connection_state(identity.connected)));
    put(Root::LastActivityTime.name(), json!(moment(identity.last_activity_at)));
    put("cloudToDeviceMessageCount", json!(identity.messages_waiting));
    put("authenticationType", json!(authentication_type(&identity.authentication)));
    put("x509Thumbprint", thumbprints(&identity.authentication));
    put(Root::ModelId.name(), json!(identity.model_id.as_deref().unwrap_or_default()));
    put("version", json!(twin.version));
    if !twin.configurations.is_empty() {
        put("configurations", Value::Object(twin.configurations.clone()));
    }
    put(Root::Tags.name(), Value::Object(twin.tags.clone()));
    let properties = json!({
        "desired": twin.desired.service_document(),
        "reported": twin.reported.service_document(),
    });
    put(Root::Properties.name(), properties);
    if name.module.is_none() {
        put(Root::Capabilities.name(), json!({ "iotEdge": identity.capabilities.iot_edge }));
        if let Some(scope) = &identity.device_scope {
            put("deviceScope", json!(scope));
        }
        if !identity.parent_scopes.is_empty() {
            put("parentScopes", json!(identity.parent_scopes));
        }
    }
    document
}

/// The document of what became of a job at one of its devices.
pub fn of_device_job(row: &DeviceJob) -> Map<String, Value> {
    let mut document = Map::new();
    let mut put = |member: &str, value: Value| drop(document.insert(member.to_owned(), value));
    put(Root::DeviceId.name(), json!(row.name.device));
    if let Some(module) = &row.name.module {
        put(Root::ModuleId.name(), json!(module));
    }
    put("jobId", json!(row.job));
    put("jobType", json!(job_kind(row.kind)));
    put(Root::Status.name(), json!(device_job_status(row.status)));
    put("startTimeUtc", json!(moment(row.started_at)));
    put("endTimeUtc", json!(moment(row.ended_at)));
    put("createdDateTimeUtc", json!(moment(row.created_at)));
    put("lastUpdatedDateTimeUtc", json!(moment(row.created_at.max(row.started_at).max(row.ended_at))));
    match &row.outcome {
        Some(DeviceOutcome::Responded(response)) => {
            // A payload was checked to be JSON when it was taken.
            let payload: Value = serde_json::from_slice(response.payload.bytes()).unwrap_or_default();
            let response = json!({ "status": response.status, "payload": payload });
            put("outcome", json!({ "deviceMethodResponse": response }));
        }
        Some(DeviceOutcome::Failed(fault)) => {
            put("error", json!({ "code": fault.code(), "description": fault.to_string() }));
        }
        Some(DeviceOutcome::Patched) | None => {}
    }
    document
}

/// The name of a kind of job.
pub const fn job_kind(kind: JobKind) -> &'static str {
    match kind {
        JobKind::PatchTwin => "scheduleUpdateTwin",
        JobKind::Invoke => "scheduleDeviceMethod",
    }
}

/// The name of where a job stands at a device.
pub const fn device_job_status(status: DeviceJobStatus) -> &'static str {
    match status {
        DeviceJobStatus::Pending => "pending",
        DeviceJobStatus::Running => "running",
        DeviceJobStatus::Completed => "completed",
        DeviceJobStatus::Failed => "failed",
        DeviceJobStatus::Cancelled => "canceled",
    }
}

/// A twin's etag: base64 of eight bytes, the highest first.
pub fn twin_etag(etag: Etag) -> String {
    STANDARD.encode(etag.number().to_be_bytes())
}

/// An identity's etag: base64 of a decimal counter.
pub fn identity_etag(etag: Etag) -> String {
    STANDARD.encode(etag.number().to_string())
}

/// A moment with seven digits of fraction; "never" has none.
pub fn moment(at: UnixTime) -> String {
    crate::twin::timestamp(at)
}

/// Reads a moment: with an offset, in UTC without one, or a date at its beginning. Less than a microsecond is cut off.
pub fn parse_moment(text: &str) -> Option<UnixTime> {
    /// Longer than any moment is written.
    const BYTES_MAX: usize = 64;

    if text.len() > BYTES_MAX || !text.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    let whole = [text.to_owned(), format!("{text}Z"), format!("{text}T00:00:00Z")];
    let at = whole.iter().find_map(|text| text.parse::<jiff::Timestamp>().ok())?;
    Some(UnixTime::from_micros(at.as_microsecond()))
}

/// The name of a status.
pub const fn status(status: IdentityStatus) -> &'static str {
    match status {
        IdentityStatus::Enabled => "enabled",
        IdentityStatus::Disabled => "disabled",
    }
}

/// The name of a connection state.
pub const fn connection_state(connected: bool) -> &'static str {
    if connected { "Connected" } else { "Disconnected" }
}

/// The name of an authentication type.
pub const fn authentication_type(authentication: &Authentication) -> &'static str {
    match authentication {
        Authentication::Sas(_) => "sas",
        Authentication::SelfSigned(_) => "selfSigned",
        Authentication::CertificateAuthority => "certificateAuthority",
        Authentication::None => "none",
    }
}

/// The two thumbprints, null where there is none.
pub fn thumbprints(authentication: &Authentication) -> Value {
    let thumbprints = match authentication {
        Authentication::SelfSigned(thumbprints) => thumbprints.clone(),
        Authentication::Sas(_) | Authentication::CertificateAuthority | Authentication::None => Thumbprints::default(),
    };
    json!({ "primaryThumbprint": thumbprints.primary, "secondaryThumbprint": thumbprints.secondary })
}
