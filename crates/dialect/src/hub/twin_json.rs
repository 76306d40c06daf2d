//! Twins as a hub's service API writes them (`contract/hub-service.md 5`).
//!
//! A twin flattens what an identity nests, and spells some members otherwise: `statusUpdateTime`, where an identity has
//! `statusUpdatedTime`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use domain::identity::Identity;
use domain::ids::Etag;
use domain::query::document;
pub use domain::query::document::twin_etag as etag_text;
use domain::twin::{ServiceChange, Twin};
use serde_json::{Map, Value};

use crate::error::Refused;
use crate::json::object;

/// Reads [`etag_text`].
pub fn parse_etag(text: &str) -> Option<Etag> {
    let bytes = STANDARD.decode(text).ok()?;
    Some(Etag::from_number(u64::from_be_bytes(bytes.try_into().ok()?)))
}

/// An etag as the header of an answer: weak, since what a device reports does not move it.
pub fn weak_etag(etag: Etag) -> String {
    format!("W/\"{}\"", etag_text(etag))
}

/// A twin with what it shows of its identity: the document that queries address.
pub fn show(twin: &Twin, identity: &Identity) -> Value {
    Value::Object(document::of_twin(twin, identity))
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
