//! Enrollments and registration records as the service API writes them (`contract/dps-service.md 3` and `4`).
//!
//! Nulls are taken for absence and never written, but for the one that clients look for. Keys leave only where
//! [`Keys::Shown`] is said. Start at [`parse_draft`] and [`show`].

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use domain::certificate::Certificate;
use domain::enrollment::{
    AllocationPolicy, Attestation, AttestationDraft, Capabilities, CertificateDraft, CustomAllocation, Draft,
    Enrollment, EntryKind, EntryName, InitialTwin, ProvisioningStatus, PublicArea, ReprovisionPolicy, Slots, Terms,
    TpmAttestation, X509Attestation,
};
use domain::ids::{CertificateName, DeviceId, EnrollmentGroupId, Etag, RegistrationId};
use domain::operation::registration::RegistrationState;
use domain::sas::{KeyPair, SymmetricKey};
use serde_json::{Map, Value, json};

use super::device_json;
use crate::json::{InvalidJson, boolean, members, object, text};
use crate::time;

/// Why a body is no enrollment. The text may be shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBody {
    /// The JSON is not of the right shape.
    #[error("{0}")]
    Json(#[from] InvalidJson),
    /// A value breaks the rules of its member.
    #[error("{member}: {problem}")]
    Value {
        /// Which.
        member: &'static str,
        /// How.
        problem: String,
    },
}

fn value(member: &'static str, problem: impl std::fmt::Display) -> InvalidBody {
    InvalidBody::Value { member, problem: problem.to_string() }
}

/// The spelling of an etag: base64 of a quoted text that looks like a GUID.
pub fn etag_text(etag: Etag) -> String {
    let number = etag.number();
    let guid = format!("{:08x}-0000-0000-0000-{:012x}", (number >> 48) & 0xffff, number & 0xffff_ffff_ffff);
    STANDARD.encode(format!("\"{guid}\""))
}

/// Reads what [`etag_text`] wrote, and nothing else.
pub fn parse_etag(text: &str) -> Option<Etag> {
    let bytes = STANDARD.decode(text).ok()?;
    let (generation, counter) = std::str::from_utf8(&bytes).ok()?.trim_matches('"').split_once("-0000-0000-0000-")?;
    let generation = u16::from_str_radix(generation, 16).ok()?;
    let counter = u64::from_str_radix(counter, 16).ok()?;
    Some(Etag::from_number((u64::from(generation) << 48) | counter)).filter(|etag| etag_text(*etag) == text)
}

/// Reads an entry. `id` is the name in the path, if there is one; the body's must agree.
pub fn parse_draft(kind: EntryKind, id: Option<&str>, body: &Value) -> Result<Draft, InvalidBody> {
    if !body.is_object() {
        return Err(InvalidJson::Type { member: "the body", wanted: "an object" }.into());
    }
    let name = parse_name(kind, id, body)?;
    let attestation = object(body, "attestation")?.ok_or(InvalidJson::Missing { member: "attestation" })?;
    Ok(Draft { name, attestation: parse_attestation(kind, attestation)?, terms: parse_terms(body)? })
}

/// The name of an entry, which the body must spell as the path does, but for its case.
pub(super) fn parse_name(kind: EntryKind, id: Option<&str>, body: &Value) -> Result<EntryName, InvalidBody> {
    let member = id_member(kind);
    let written = text(body, member)?;
    let name = match (id, &written) {
        (Some(id), Some(written)) if !written.eq_ignore_ascii_case(id) => {
            return Err(value(member, "the name of the body is not that of the path"));
        }
        (_, Some(written)) => written.as_str(),
        (Some(id), None) => id,
        (None, None) => return Err(InvalidJson::Missing { member }.into()),
    };
    entry_name(kind, name).map_err(|invalid| value(member, invalid))
}

/// The member that names an entry.
pub const fn id_member(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::Individual => "registrationId",
        EntryKind::Group => "enrollmentGroupId",
    }
}

/// A name of the given kind.
pub fn entry_name(kind: EntryKind, name: &str) -> Result<EntryName, domain::ids::InvalidName> {
    Ok(match kind {
        EntryKind::Individual => EntryName::Individual(RegistrationId::parse(name)?),
        EntryKind::Group => EntryName::Group(EnrollmentGroupId::parse(name)?),
    })
}

fn parse_attestation(kind: EntryKind, body: &Value) -> Result<AttestationDraft, InvalidBody> {
    let mechanism = text(body, "type")?.ok_or(InvalidJson::Missing { member: "attestation.type" })?;
    match mechanism.to_ascii_lowercase().as_str() {
        "symmetrickey" => {
            let keys = object(body, "symmetricKey")?.unwrap_or(&Value::Null);
            Ok(AttestationDraft::SymmetricKey(Slots {
                primary: parse_key(keys, "primaryKey")?,
                secondary: parse_key(keys, "secondaryKey")?,
            }))
        }
        "x509" => {
            let x509 = object(body, "x509")?.ok_or(InvalidJson::Missing { member: "attestation.x509" })?;
            Ok(AttestationDraft::X509 {
                client: parse_certificates(x509, "clientCertificates")?,
                signing: parse_certificates(x509, "signingCertificates")?,
                references: parse_references(x509)?,
            })
        }
        "tpm" if kind == EntryKind::Group => Err(value("attestation.type", "a group cannot be attested by TPM")),
        "tpm" => {
            let tpm = object(body, "tpm")?.ok_or(InvalidJson::Missing { member: "attestation.tpm" })?;
            let area = |member| {
                let decoded = text(tpm, member)?.map(|text| STANDARD.decode(text)).transpose();
                decoded.map(|bytes| bytes.map(PublicArea)).map_err(|_| value(member, "not base64"))
            };
            let endorsement_key =
                area("endorsementKey")?.ok_or(InvalidJson::Missing { member: "tpm.endorsementKey" })?;
            Ok(AttestationDraft::Tpm(TpmAttestation { endorsement_key, storage_root_key: area("storageRootKey")? }))
        }
        _ => Err(value("attestation.type", "none of symmetricKey, x509, tpm")),
    }
}

fn parse_key(keys: &Value, member: &'static str) -> Result<Option<SymmetricKey>, InvalidBody> {
    let written = text(keys, member)?.filter(|text| !text.is_empty());
    written.map(|text| SymmetricKey::parse(&text).map_err(|invalid| value(member, invalid))).transpose()
}

/// A kind of certificates of which nothing is given counts as absent.
fn parse_certificates(x509: &Value, member: &'static str) -> Result<Option<Slots<CertificateDraft>>, InvalidBody> {
    let Some(slots) = object(x509, member)? else { return Ok(None) };
    let slot = |name| {
        let Some(certificate) = object(slots, name)? else { return Ok(None) };
        if let Some(written) = text(certificate, "certificate")?.filter(|text| !text.trim().is_empty()) {
            let parsed = Certificate::from_upload(&written).map_err(|invalid| value(member, invalid))?;
            return Ok(Some(CertificateDraft::Given(parsed)));
        }
        let shown = object(certificate, "info")?.unwrap_or(&Value::Null);
        Ok::<_, InvalidBody>(Some(CertificateDraft::Kept { sha256: text(shown, "sha256Thumbprint")? }))
    };
    Ok(present(Slots { primary: slot("primary")?, secondary: slot("secondary")? }))
}

fn parse_references(x509: &Value) -> Result<Option<Slots<CertificateName>>, InvalidBody> {
    let Some(slots) = object(x509, "caReferences")? else { return Ok(None) };
    let slot = |name| {
        let written = text(slots, name)?.filter(|text| !text.is_empty());
        written.map(|text| CertificateName::parse(&text).map_err(|invalid| value("caReferences", invalid))).transpose()
    };
    Ok(present(Slots { primary: slot("primary")?, secondary: slot("secondary")? }))
}

fn present<T>(slots: Slots<T>) -> Option<Slots<T>> {
    (slots.primary.is_some() || slots.secondary.is_some()).then_some(slots)
}

fn parse_terms(body: &Value) -> Result<Terms, InvalidBody> {
    Ok(Terms {
        device_id: parse_device_id(body)?,
        capabilities: match object(body, "capabilities")? {
            None => None,
            Some(capabilities) => {
                Some(Capabilities { iot_edge: boolean(capabilities, "iotEdge")?.unwrap_or_default() })
            }
        },
        iot_hub_host_name: text(body, "iotHubHostName")?.filter(|host| !host.is_empty()),
        initial_twin: parse_initial_twin(body)?,
        status: parse_status(body)?,
        reprovision: match object(body, "reprovisionPolicy")? {
            None => None,
            Some(policy) => Some(ReprovisionPolicy {
                update_hub_assignment: boolean(policy, "updateHubAssignment")?.unwrap_or(true),
                migrate_device_data: boolean(policy, "migrateDeviceData")?.unwrap_or(true),
            }),
        },
        allocation: parse_allocation(body)?,
        iot_hubs: parse_hubs(body)?,
        custom_allocation: match object(body, "customAllocationDefinition")? {
            None => None,
            Some(custom) => Some(CustomAllocation {
                webhook_url: text(custom, "webhookUrl")?.unwrap_or_default(),
                api_version: text(custom, "apiVersion")?.unwrap_or_default(),
            }),
        },
        device_information: parse_collection(body, "optionalDeviceInformation")?,
    })
}

fn parse_device_id(body: &Value) -> Result<Option<DeviceId>, InvalidBody> {
    let written = text(body, "deviceId")?.filter(|id| !id.is_empty());
    written.map(|id| DeviceId::parse(&id).map_err(|invalid| value("deviceId", invalid))).transpose()
}

/// Absent means enabled; an explicit null is kept and echoed.
fn parse_status(body: &Value) -> Result<Option<ProvisioningStatus>, InvalidBody> {
    match body.get("provisioningStatus") {
        None => Ok(Some(ProvisioningStatus::Enabled)),
        Some(Value::Null) => Ok(None),
        Some(Value::String(word)) if word.eq_ignore_ascii_case("enabled") => Ok(Some(ProvisioningStatus::Enabled)),
        Some(Value::String(word)) if word.eq_ignore_ascii_case("disabled") => Ok(Some(ProvisioningStatus::Disabled)),
        Some(_) => Err(value("provisioningStatus", "neither enabled nor disabled")),
    }
}

fn parse_allocation(body: &Value) -> Result<Option<AllocationPolicy>, InvalidBody> {
    let Some(word) = text(body, "allocationPolicy")? else { return Ok(None) };
    parse_allocation_word(&word)
        .map(Some)
        .ok_or_else(|| value("allocationPolicy", "none of hashed, geoLatency, static, custom"))
}

/// An allocation policy, in any case.
pub fn parse_allocation_word(word: &str) -> Option<AllocationPolicy> {
    let known = [
        ("hashed", AllocationPolicy::Hashed),
        ("geoLatency", AllocationPolicy::GeoLatency),
        ("static", AllocationPolicy::Static),
        ("custom", AllocationPolicy::Custom),
    ];
    known.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(word)).map(|(_, policy)| policy)
}

fn parse_hubs(body: &Value) -> Result<Option<Vec<String>>, InvalidBody> {
    match body.get("iotHubs") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(items)) => {
            let host = |item: &Value| item.as_str().map(str::to_owned);
            let hosts: Option<Vec<_>> = items.iter().map(host).collect();
            hosts.map(Some).ok_or_else(|| value("iotHubs", "not a list of strings"))
        }
        Some(_) => Err(value("iotHubs", "not a list of strings")),
    }
}

fn parse_initial_twin(body: &Value) -> Result<Option<InitialTwin>, InvalidBody> {
    let Some(twin) = object(body, "initialTwin")? else { return Ok(None) };
    let desired = match object(twin, "properties")? {
        None => None,
        Some(properties) => parse_collection(properties, "desired")?,
    };
    Ok(Some(InitialTwin { tags: parse_collection(twin, "tags")?, desired }))
}

/// A free object. Clients send back three slots of their own model as nulls: those are dropped.
fn parse_collection(body: &Value, member: &'static str) -> Result<Option<Map<String, Value>>, InvalidBody> {
    let Some(Value::Object(members)) = object(body, member)? else { return Ok(None) };
    let mut members = members.clone();
    for slot in ["version", "count", "metadata"] {
        if members.get(slot).is_some_and(Value::is_null) {
            members.remove(slot);
        }
    }
    Ok(Some(members))
}

/// How much of the keys an answer shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// All of them.
    Shown,
    /// None.
    Hidden,
}

/// Shows an entry; `state` is the registration record, which only the reading of one enrollment shows. Members stand in
/// the order of `contract/dps-service.md 4.1`.
pub fn show(entry: &Enrollment, keys: Keys, state: Option<&RegistrationState>) -> Value {
    let terms = &entry.terms;
    let mut shown = members([
        (id_member(entry.name.kind()), json!(entry.name.as_str())),
        ("deviceId", json!(terms.device_id)),
        ("registrationState", json!(state.map(show_registration))),
        ("optionalDeviceInformation", json!(terms.device_information)),
        ("attestation", show_attestation(&entry.attestation, keys)),
        ("capabilities", json!(terms.capabilities.map(|capabilities| json!({ "iotEdge": capabilities.iot_edge })))),
        ("iotHubHostName", json!(terms.iot_hub_host_name)),
        ("initialTwin", json!(terms.initial_twin.as_ref().map(show_initial_twin))),
        ("etag", json!(etag_text(entry.etag))),
    ]);
    // Azure: the one null that is written, if it was sent (`contract/dps-service.md 4.1`).
    shown.insert("provisioningStatus".to_owned(), json!(terms.status.map(status_word)));
    shown.extend(members([
        ("reprovisionPolicy", json!(terms.reprovision.map(show_reprovision))),
        ("createdDateTimeUtc", json!(time::rfc3339(entry.created_at))),
        ("lastUpdatedDateTimeUtc", json!(time::rfc3339(entry.updated_at))),
        ("allocationPolicy", json!(terms.allocation.map(allocation_word))),
        ("iotHubs", json!(terms.iot_hubs)),
        ("customAllocationDefinition", json!(terms.custom_allocation.as_ref().map(show_custom_allocation))),
    ]));
    Value::Object(shown)
}

const fn status_word(status: ProvisioningStatus) -> &'static str {
    match status {
        ProvisioningStatus::Enabled => "enabled",
        ProvisioningStatus::Disabled => "disabled",
    }
}

fn show_reprovision(policy: ReprovisionPolicy) -> Value {
    json!({
        "updateHubAssignment": policy.update_hub_assignment,
        "migrateDeviceData": policy.migrate_device_data,
    })
}

fn show_custom_allocation(custom: &CustomAllocation) -> Value {
    json!({ "webhookUrl": custom.webhook_url, "apiVersion": custom.api_version })
}

/// The word for a policy.
pub const fn allocation_word(policy: AllocationPolicy) -> &'static str {
    match policy {
        AllocationPolicy::Hashed => "hashed",
        AllocationPolicy::GeoLatency => "geoLatency",
        AllocationPolicy::Static => "static",
        AllocationPolicy::Custom => "custom",
    }
}

fn show_initial_twin(twin: &InitialTwin) -> Value {
    let properties = twin.desired.as_ref().map(|desired| json!({ "desired": desired }));
    Value::Object(members([("tags", json!(twin.tags)), ("properties", json!(properties))]))
}

/// Shows an attestation mechanism. Certificates are described and never given back.
pub fn show_attestation(attestation: &Attestation, keys: Keys) -> Value {
    match (attestation, keys) {
        (Attestation::Tpm(tpm), _) => {
            let shown = members([
                ("endorsementKey", json!(tpm.endorsement_key)),
                ("storageRootKey", json!(tpm.storage_root_key)),
            ]);
            json!({ "type": "tpm", "tpm": shown })
        }
        (Attestation::X509(x509), _) => json!({ "type": "x509", "x509": show_x509(x509) }),
        (Attestation::SymmetricKey(KeyPair { primary, secondary }), Keys::Shown) => json!({
            "type": "symmetricKey",
            "symmetricKey": { "primaryKey": primary.to_base64(), "secondaryKey": secondary.to_base64() },
        }),
        (Attestation::SymmetricKey(_), Keys::Hidden) => json!({ "type": "symmetricKey" }),
    }
}

fn show_x509(x509: &X509Attestation) -> Value {
    let certificates =
        |slots: &Slots<Certificate>| show_slots(slots, |certificate| json!({ "info": show_certificate(certificate) }));
    match x509 {
        X509Attestation::Client(slots) => json!({ "clientCertificates": certificates(slots) }),
        X509Attestation::Signing(slots) => json!({ "signingCertificates": certificates(slots) }),
        X509Attestation::References(names) => json!({ "caReferences": show_slots(names, |name| json!(name)) }),
    }
}

fn show_slots<T>(slots: &Slots<T>, show: impl Fn(&T) -> Value) -> Value {
    let show = |slot: &Option<T>| json!(slot.as_ref().map(&show));
    Value::Object(members([("primary", show(&slots.primary)), ("secondary", show(&slots.secondary))]))
}

fn show_certificate(certificate: &Certificate) -> Value {
    json!({
        "subjectName": certificate.subject(),
        "sha1Thumbprint": certificate.sha1_hex(),
        "sha256Thumbprint": certificate.sha256_hex(),
        "issuerName": certificate.issuer(),
        "notBeforeUtc": time::rfc3339_seconds(certificate.not_before()),
        "notAfterUtc": time::rfc3339_seconds(certificate.not_after()),
        "serialNumber": certificate.serial_hex(),
        "version": certificate.version(),
    })
}

/// Shows a registration record.
pub fn show_registration(state: &RegistrationState) -> Value {
    Value::Object(device_json::record(state, device_json::status(state.status)))
}

#[cfg(test)]
mod tests;
