//! What the demo can show for itself: the record for programs, and the table that people see at its end.
//!
//! Member names are part of the interface. Start at [`Evidence`].

use std::path::PathBuf;

use serde::Serialize;
use serde_json::Value;

use super::progress::Tick;

/// Everything that happened.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Evidence {
    /// From the start to the last tick.
    pub seconds: f64,
    /// The provisioning service.
    pub provisioning_service: ServiceEvidence,
    /// The hub linked to it.
    pub hub: HubEvidence,
    /// The root CA.
    pub certificate: CertificateEvidence,
    /// The enrollment group.
    pub enrollment_group: GroupEvidence,
    /// The devices.
    pub devices: Vec<DeviceEvidence>,
    /// The change of a desired property.
    pub desired: DesiredEvidence,
    /// The server that was left running.
    pub kept: Option<Kept>,
    /// What was ticked off.
    pub steps: Vec<Tick>,
}

/// A server that was left running.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    /// Its data folder.
    pub folder: PathBuf,
    /// Where it says how it is reached.
    pub endpoints_file: PathBuf,
    /// Certificates and keys of the root and the devices.
    pub certificates: PathBuf,
    /// Its process.
    pub pid: Option<u32>,
}

/// The provisioning service.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceEvidence {
    /// Its name.
    pub name: String,
    /// The ID scope that devices are given.
    pub id_scope: String,
    /// The host that devices dial.
    pub device_endpoint: String,
    /// The host that operators' programs dial.
    pub service_endpoint: String,
    /// Version of the resource.
    pub etag: String,
}

/// The hub.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HubEvidence {
    /// Its name.
    pub name: String,
    /// The host that devices and operators' programs dial.
    pub host_name: String,
    /// Version of the resource.
    pub etag: String,
}

/// The root CA.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateEvidence {
    /// Its name at the provisioning service.
    pub name: String,
    /// SHA-1 of the certificate.
    pub thumbprint: String,
    /// What the verification certificate was made for.
    pub verification_code: String,
    /// Whether possession of its key is proved.
    pub is_verified: bool,
    /// Version of the resource.
    pub etag: String,
}

/// The enrollment group.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupEvidence {
    /// Its ID.
    pub id: String,
    /// Version of the entry.
    pub etag: String,
    /// What the twins of its devices began with.
    pub initial_twin: Value,
}

/// One device.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceEvidence {
    /// Its registration ID, which became its device ID.
    pub device_id: String,
    /// How it was provisioned.
    pub protocol: &'static str,
    /// The operation that assigned it.
    pub operation_id: String,
    /// Where it was assigned.
    pub assigned_hub: String,
    /// Version of its registration.
    pub registration_etag: Option<String>,
    /// Messages that the hub acknowledged.
    pub messages: Vec<MessageEvidence>,
    /// Its twin after the telemetry.
    pub twin: TwinEvidence,
    /// Its vain attempts to come back.
    pub refusals: Vec<RefusalEvidence>,
}

/// A message that the hub acknowledged, and that the operator then read.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageEvidence {
    /// The ID that the device gave it.
    pub message_id: String,
    /// Its partition of the hub's log.
    pub partition: u64,
    /// Its number there.
    pub sequence_number: u64,
    /// Where it stands there, as readers name it.
    pub offset: String,
    /// When the hub took it over.
    pub enqueued_time: String,
    /// From sending to the acknowledgement.
    pub acknowledged_after_ms: f64,
}

/// Versions of a twin.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TwinEvidence {
    /// Of the desired properties.
    pub desired_version: u64,
    /// Of the reported properties.
    pub reported_version: u64,
}

/// A refused registration.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RefusalEvidence {
    /// What the device was told: the status.
    pub status: u16,
    /// And the code.
    pub error_code: Option<u64>,
    /// For `muster why`.
    pub tracking_id: String,
    /// What the operator is told: the code of the cause.
    pub cause: String,
    /// The cause in words.
    pub what: String,
    /// What would help.
    pub fix: String,
}

/// A desired property that came back as a reported one.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DesiredEvidence {
    /// Whose.
    pub device_id: String,
    /// The value that the device reported.
    pub temperature: Value,
    /// Version of the desired properties that the device was told.
    pub desired_version: u64,
    /// Version of the reported properties after it.
    pub reported_version: u64,
    /// The twin's etag before the change.
    pub etag_before: String,
    /// And after the report.
    pub etag_after: String,
    /// From the operator's request to the device's eyes.
    pub seen_after_ms: f64,
}

/// The columns of the table at the end, as `Output` takes them.
pub const COLUMNS: [(&str, &str); 7] = [
    ("Device", "/device"),
    ("Provisioned over", "/protocol"),
    ("Assigned to", "/hub"),
    ("Messages", "/messages"),
    ("Desired", "/desired"),
    ("Reported", "/reported"),
    ("Then refused as", "/refused"),
];

impl Evidence {
    /// The rows of the table at the end.
    pub fn rows(&self) -> Vec<Value> {
        let row = |device: &DeviceEvidence| {
            let mut causes: Vec<&str> = device.refusals.iter().map(|refusal| refusal.cause.as_str()).collect();
            causes.dedup();
            serde_json::json!({
                "device": device.device_id,
                "protocol": device.protocol,
                "hub": device.assigned_hub,
                "messages": device.messages.len(),
                "desired": format!("version {}", device.twin.desired_version),
                "reported": format!("version {}", device.twin.reported_version),
                "refused": causes.join(", "),
            })
        };
        self.devices.iter().map(row).collect()
    }
}
