//! Digital twins: the twin of a Plug and Play device as its model's components, properties and their state of agreement
//! (`contract/hub-service.md 11`).
//!
//! A digital twin is a view and is never stored: [`view`] makes it of the twin, [`Patch::plan`] turns what is wanted of it
//! into a merge patch of desired properties, [`difference()`] says what a change meant. Its spellings stand here because
//! they are members of the document itself, and of the twin's by the conventions of Plug and Play: a component is an
//! object marked `"__t": "c"`, and a device acknowledges a property by an object of `value`, `ac`, `av` and `ad`.

mod difference;
mod patch;

use serde_json::{Map, Value, json};

pub use difference::difference;
pub use patch::{InvalidPatch, OPERATIONS_MAX, Patch, VALUE_DEPTH_MAX};

use crate::identity::Identity;
use crate::twin::{LAST_UPDATED, LAST_UPDATED_VERSION, METADATA, Section, Twin};

/// Member that marks a component of a twin, and its value.
const MARKER: (&str, &str) = ("__t", "c");

/// Member of the metadata that names the model.
const MODEL: &str = "$model";

/// Whether a value of a twin is a component.
fn is_component(value: &Value) -> bool {
    value.get(MARKER.0).and_then(Value::as_str) == Some(MARKER.1)
}

/// The digital twin of a device.
pub fn view(twin: &Twin, identity: &Identity) -> Map<String, Value> {
    let desired = Part::whole(&twin.desired);
    let reported = Part::whole(&twin.reported);
    let mut metadata = Map::new();
    metadata.insert(MODEL.to_owned(), json!(identity.model_id.as_deref().unwrap_or_default()));
    let mut document = Map::new();
    document.insert("$dtId".to_owned(), json!(identity.name.device));
    let (mut properties, mut components) = (Map::new(), Map::new());
    for name in names(desired, reported) {
        let (wanted, said) = (desired.member(name), reported.member(name));
        if [wanted, said].into_iter().any(Part::is_component) {
            components.insert(name.to_owned(), component(wanted, said));
        } else {
            show_property((name, wanted, said), &mut properties, &mut metadata);
        }
    }
    document.extend(properties);
    document.extend(components);
    document.insert(METADATA.to_owned(), Value::Object(metadata));
    document
}

/// What it means to a digital twin that its device announces another model, as [`difference()`] would tell it.
pub fn model_change(model_id: Option<&str>) -> Value {
    let value = model_id.unwrap_or_default();
    json!([{ "op": "replace", "path": format!("/{METADATA}/{MODEL}"), "value": value }])
}

/// The properties of a component, and their metadata, which mark it.
fn component(desired: Part<'_>, reported: Part<'_>) -> Value {
    let (mut properties, mut metadata) = (Map::new(), Map::new());
    for name in names(desired, reported).filter(|name| *name != MARKER.0) {
        show_property((name, desired.member(name), reported.member(name)), &mut properties, &mut metadata);
    }
    properties.insert(METADATA.to_owned(), Value::Object(metadata));
    Value::Object(properties)
}

/// Shows the value a device reports, and beside it what is wanted and how far both agree.
fn show_property(
    (name, desired, reported): (&str, Part<'_>, Part<'_>),
    properties: &mut Map<String, Value>,
    metadata: &mut Map<String, Value>,
) {
    let mut state = Map::new();
    if let Some(wanted) = desired.value {
        state.insert("desiredValue".to_owned(), wanted.clone());
        state.insert("desiredVersion".to_owned(), desired.stamp(LAST_UPDATED_VERSION));
    }
    if let Some(said) = reported.value {
        let value = match acknowledgement(said) {
            None => said,
            Some(value) => {
                for (shown, member) in [("ackVersion", "av"), ("ackCode", "ac"), ("ackDescription", "ad")] {
                    state.extend(said.get(member).map(|value| (shown.to_owned(), value.clone())));
                }
                value
            }
        };
        properties.insert(name.to_owned(), value.clone());
        state.insert("lastUpdateTime".to_owned(), reported.stamp(LAST_UPDATED));
    }
    metadata.insert(name.to_owned(), Value::Object(state));
}

/// The value that a device acknowledges, if it does.
fn acknowledgement(said: &Value) -> Option<&Value> {
    said.get("value").filter(|_| said.get("ac").is_some_and(Value::is_number))
}

/// The names of both, each once: those of `reported` first.
fn names<'a>(desired: Part<'a>, reported: Part<'a>) -> impl Iterator<Item = &'a str> {
    let wanted = desired.names().filter(move |name| reported.member(name).value.is_none());
    reported.names().chain(wanted)
}

/// A value of a section, with the metadata that belongs to it.
#[derive(Clone, Copy)]
struct Part<'a> {
    value: Option<&'a Value>,
    members: Option<&'a Map<String, Value>>,
    metadata: Option<&'a Map<String, Value>>,
}

impl<'a> Part<'a> {
    const fn whole(section: &'a Section) -> Self {
        Self { value: None, members: Some(section.document()), metadata: Some(section.metadata()) }
    }

    fn member(self, name: &str) -> Self {
        let value = self.members.and_then(|members| members.get(name));
        let metadata = self.metadata.and_then(|metadata| metadata.get(name));
        Self { value, members: value.and_then(Value::as_object), metadata: metadata.and_then(Value::as_object) }
    }

    fn names(self) -> impl Iterator<Item = &'a str> {
        self.members.into_iter().flatten().map(|(name, _)| name.as_str())
    }

    fn is_component(self) -> bool {
        self.value.is_some_and(is_component)
    }

    /// What the metadata says, null if it says nothing.
    fn stamp(self, member: &str) -> Value {
        self.metadata.and_then(|metadata| metadata.get(member)).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
