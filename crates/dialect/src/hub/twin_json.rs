//! Twins as a hub's service API writes them (`contract/hub-service.md 5`).
//!
//! A twin flattens what an identity nests, and spells some members otherwise: `statusUpdateTime`, where an identity has
//! `statusUpdatedTime`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use domain::identity::Identity;
use domain::ids::Etag;
use domain::twin::{ServiceChange, Twin};
use serde_json::{Map, Value, json};

use super::registry_json::{
    self, authentication_type, connection_state, moment, show_scopes, show_thumbprints, status,
};
use crate::error::Refused;
use crate::json::object;

/// A twin's etag: base64 of eight bytes, the highest first.
pub fn etag_text(etag: Etag) -> String {
    STANDARD.encode(etag.number().to_be_bytes())
}

/// Reads [`etag_text`].
pub fn parse_etag(text: &str) -> Option<Etag> {
    let bytes = STANDARD.decode(text).ok()?;
    Some(Etag::from_number(u64::from_be_bytes(bytes.try_into().ok()?)))
}

/// A twin with what it shows of its identity.
pub fn show(twin: &Twin, identity: &Identity) -> Value {
    let name = &identity.name;
    let mut shown = Map::new();
    let mut put = |member: &str, value: Value| drop(shown.insert(member.to_owned(), value));
    put("deviceId", json!(name.device));
    if let Some(module) = &name.module {
        put("moduleId", json!(module));
    }
    put("etag", json!(etag_text(twin.etag)));
    put("deviceEtag", json!(registry_json::etag_text(identity.etag)));
    put("status", json!(status(identity.status)));
    put("statusReason", json!(identity.status_reason));
    put("statusUpdateTime", json!(moment(identity.status_updated_at)));
    put("connectionState", json!(connection_state(identity.connected)));
    put("lastActivityTime", json!(moment(identity.last_activity_at)));
    put("cloudToDeviceMessageCount", json!(identity.messages_waiting));
    put("authenticationType", json!(authentication_type(&identity.authentication)));
    put("x509Thumbprint", show_thumbprints(&identity.authentication));
    put("modelId", json!(identity.model_id.as_deref().unwrap_or_default()));
    put("version", json!(twin.version));
    put("tags", Value::Object(twin.tags.clone()));
    let properties = json!({
        "desired": twin.desired.service_document(),
        "reported": twin.reported.service_document(),
    });
    put("properties", properties);
    if name.module.is_none() {
        put("capabilities", json!({ "iotEdge": identity.capabilities.iot_edge }));
        show_scopes(identity, put);
    }
    Value::Object(shown)
}

/// Reads what a PATCH changes: tags and desired properties, each left alone if it is absent or null. Everything else is
/// the hub's or the device's to write, and ignored, because programs send back whole twins.
pub fn parse_change(body: &Value) -> Result<ServiceChange, Refused> {
    let properties = object(body, "properties")?;
    let desired = properties.map(|properties| object(properties, "desired")).transpose()?.flatten();
    let section = |value: &Value| value.as_object().cloned();
    Ok(ServiceChange { tags: object(body, "tags")?.and_then(section), desired: desired.and_then(section) })
}

/// Reads what a PUT puts in place of both sections; one that is absent becomes empty.
pub fn parse_replacement(body: &Value) -> Result<ServiceChange, Refused> {
    let ServiceChange { tags, desired } = parse_change(body)?;
    let whole = |section: Option<Map<String, Value>>| Some(section.unwrap_or_default());
    Ok(ServiceChange { tags: whole(tags), desired: whole(desired) })
}
