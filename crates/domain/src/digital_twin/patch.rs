//! What operators want of a digital twin, as a JSON Patch (RFC 6902), and the change of desired properties that it means.
//!
//! Only wanted values can be patched: what a device reports is its own. So an operation names a property or a component,
//! or a property of a component, and nothing deeper; to `add` and to `replace` are the same. Start at [`Patch::parse`].

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::{MARKER, is_component};
use crate::model::is_name;
use crate::twin::{METADATA, Twin};

/// Most operations of a patch.
pub const OPERATIONS_MAX: usize = 1_000;
/// Most objects inside each other in the value of a property.
pub const VALUE_DEPTH_MAX: usize = 5;
/// Most characters of what is shown of a path that is refused.
const PATH_CHARS_MAX: usize = 256;

/// Changes of the wanted values of properties, in their order.
#[derive(Clone, Debug, PartialEq)]
pub struct Patch(Vec<Operation>);

/// One of them.
#[derive(Clone, Debug, PartialEq)]
struct Operation {
    component: Option<String>,
    property: Option<String>,
    change: Change,
}

#[derive(Clone, Debug, PartialEq)]
enum Change {
    /// To this value; of a component, to these properties and no other.
    Set(Value),
    /// To nothing.
    Remove,
}

/// Why a patch is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPatch {
    /// Not a list.
    #[error("the patch is not a list of operations")]
    NotAList,
    /// Too many operations.
    #[error("the patch has more than {OPERATIONS_MAX} operations")]
    TooMany,
    /// No `op`, or one that digital twins do not know.
    #[error("an operation's op is none of add, replace, remove")]
    Operation,
    /// No `path`, or one that names neither a component nor a property.
    #[error("the path {path:?} names no component and no property")]
    Path {
        /// The path.
        path: String,
    },
    /// No `value` where there must be one.
    #[error("the operation on {path} has no value")]
    NoValue {
        /// The path.
        path: String,
    },
    /// A value that no property can have.
    #[error(
        "the value of {path} is null, holds null or a list, has a field with no proper name, or is nested too deep"
    )]
    Value {
        /// The path.
        path: String,
    },
    /// A property and a component have the same name, or a component came without its mark.
    #[error(
        "'{name}' exists within the device twin and is not digital twin conformant property; the value of a component \
         has an empty $metadata"
    )]
    NotConformant {
        /// The name.
        name: String,
    },
}

impl Patch {
    /// Reads a patch.
    pub fn parse(body: &Value) -> Result<Self, InvalidPatch> {
        let items = body.as_array().ok_or(InvalidPatch::NotAList)?;
        if items.len() > OPERATIONS_MAX {
            return Err(InvalidPatch::TooMany);
        }
        items.iter().map(Operation::parse).collect::<Result<_, _>>().map(Self)
    }

    /// The merge patch of desired properties that does to `twin` what is wanted; empty if nothing is to be done. Every
    /// value that is set is in it, also if it was the same before: its version counts up.
    pub fn plan(&self, twin: &Twin) -> Result<Map<String, Value>, InvalidPatch> {
        let mut plan =
            Plan { before: twin.desired.document(), after: twin.desired.document().clone(), touched: BTreeMap::new() };
        for operation in &self.0 {
            plan.carry_out(operation, twin.reported.document())?;
        }
        Ok(plan.finish())
    }
}

impl Operation {
    fn parse(item: &Value) -> Result<Self, InvalidPatch> {
        let text = |member| item.get(member).and_then(Value::as_str);
        let sets = match text("op") {
            Some("add" | "replace") => true,
            Some("remove") => false,
            _ => return Err(InvalidPatch::Operation),
        };
        let path = text("path").unwrap_or_default();
        let shown = || path.chars().take(PATH_CHARS_MAX).collect::<String>();
        let steps: Vec<&str> = path.strip_prefix('/').map(|rest| rest.splitn(3, '/').collect()).unwrap_or_default();
        let is_named = !steps.is_empty() && steps.len() <= 2 && steps.iter().all(|step| is_name(step));
        if !is_named {
            return Err(InvalidPatch::Path { path: shown() });
        }
        let mut value = if sets {
            Some(item.get("value").cloned().ok_or_else(|| InvalidPatch::NoValue { path: shown() })?)
        } else {
            None
        };
        let is_marked = steps.len() == 1 && value.as_mut().is_some_and(take_mark);
        let is_proper = match &value {
            Some(Value::Object(members)) if is_marked => {
                members.iter().all(|(name, value)| is_name(name) && is_property(value, VALUE_DEPTH_MAX))
            }
            Some(value) => is_property(value, VALUE_DEPTH_MAX),
            None => true,
        };
        if !is_proper {
            return Err(InvalidPatch::Value { path: shown() });
        }
        let mut names = steps.into_iter().map(str::to_owned);
        let (first, second) = (names.next(), names.next());
        let change = value.map_or(Change::Remove, Change::Set);
        Ok(match (second, is_marked) {
            (Some(property), _) => Self { component: first, property: Some(property), change },
            (None, true) => Self { component: first, property: None, change },
            (None, false) => Self { component: None, property: first, change },
        })
    }
}

/// Takes the empty `$metadata` out of the value of a component; says whether there was one.
fn take_mark(value: &mut Value) -> bool {
    let is_empty = |mark: &Value| mark.as_object().is_some_and(Map::is_empty);
    match value {
        Value::Object(members) if members.get(METADATA).is_some_and(is_empty) => {
            members.shift_remove(METADATA).is_some()
        }
        _ => false,
    }
}

/// Whether a property can have the value: no lists, no nulls, objects not deeper than `depth`.
fn is_property(value: &Value, depth: usize) -> bool {
    match value {
        Value::Null | Value::Array(_) => false,
        Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
        Value::Object(members) => {
            depth > 0 && members.iter().all(|(name, value)| is_name(name) && is_property(value, depth - 1))
        }
    }
}

/// Desired properties on their way.
struct Plan<'a> {
    before: &'a Map<String, Value>,
    after: Map<String, Value>,
    /// What was named: properties, each with nothing, and components, each with its own properties.
    touched: BTreeMap<String, BTreeSet<String>>,
}

impl Plan<'_> {
    fn carry_out(&mut self, operation: &Operation, reported: &Map<String, Value>) -> Result<(), InvalidPatch> {
        let Operation { component, property, change } = operation;
        match (component, property) {
            (Some(component), property) => {
                self.check(component, reported, true)?;
                match property {
                    Some(property) => self.change_in(component, property, change),
                    None => self.replace_component(component, change),
                }
            }
            (None, Some(name)) => {
                // What is removed may be either; what is set without a mark is no component.
                if let (Change::Remove, Some(true)) = (change, self.after.get(name).map(is_component)) {
                    self.replace_component(name, change);
                    return Ok(());
                }
                if *change == Change::Remove {
                    self.touched.entry(name.clone()).or_default();
                    self.after.shift_remove(name);
                    return Ok(());
                }
                self.check(name, reported, false)?;
                self.touched.entry(name.clone()).or_default();
                if let Change::Set(value) = change {
                    self.after.insert(name.clone(), value.clone());
                }
            }
            (None, None) => {}
        }
        Ok(())
    }

    /// What stands under `name` already, here or at the device, must be of the same kind.
    fn check(&self, name: &str, reported: &Map<String, Value>, as_component: bool) -> Result<(), InvalidPatch> {
        let found = [self.after.get(name), reported.get(name)];
        if found.into_iter().flatten().all(|value| is_component(value) == as_component) {
            Ok(())
        } else {
            Err(InvalidPatch::NotConformant { name: name.to_owned() })
        }
    }

    fn change_in(&mut self, component: &str, property: &str, change: &Change) {
        let touch = |touched: &mut BTreeMap<String, BTreeSet<String>>| {
            touched.entry(component.to_owned()).or_default().insert(property.to_owned());
        };
        match change {
            Change::Set(value) => {
                touch(&mut self.touched);
                let marked = || Value::Object(Map::from_iter([(MARKER.0.to_owned(), Value::from(MARKER.1))]));
                let members = self.after.entry(component.to_owned()).or_insert_with(marked);
                if let Value::Object(members) = members {
                    members.insert(property.to_owned(), value.clone());
                }
            }
            Change::Remove => {
                let Some(Value::Object(members)) = self.after.get_mut(component) else { return };
                // What is not there needs no change.
                if members.shift_remove(property).is_none() {
                    return;
                }
                touch(&mut self.touched);
                // A component goes with the last of its properties.
                if members.keys().all(|name| name == MARKER.0) {
                    self.after.shift_remove(component);
                }
            }
        }
    }

    fn replace_component(&mut self, component: &str, change: &Change) {
        let touched = self.touched.entry(component.to_owned()).or_default();
        let present = self.after.shift_remove(component);
        let mut touch = |value: Option<&Value>| {
            touched.extend(value.and_then(Value::as_object).into_iter().flatten().map(|(name, _)| name.clone()));
        };
        touch(present.as_ref());
        let Change::Set(Value::Object(members)) = change else { return };
        touch(Some(&Value::Object(members.clone())));
        let mut marked = Map::from_iter([(MARKER.0.to_owned(), Value::from(MARKER.1))]);
        marked.extend(members.clone());
        self.after.insert(component.to_owned(), Value::Object(marked));
    }

    fn finish(self) -> Map<String, Value> {
        let Self { before, after, touched } = self;
        let mut patch = Map::new();
        for (name, properties) in touched {
            let change = match (before.get(&name), after.get(&name)) {
                (None, None) => continue,
                (Some(_), None) => Value::Null,
                (Some(found), Some(wanted)) if is_component(found) && is_component(wanted) => {
                    // What was set and removed again needs no change.
                    let is_there = |name: &String| found.get(name).is_some() || wanted.get(name).is_some();
                    let (there, not_there): (BTreeSet<_>, BTreeSet<_>) = properties.into_iter().partition(is_there);
                    if there.is_empty() && !not_there.is_empty() {
                        continue;
                    }
                    component_change(found, wanted, there)
                }
                (found, Some(wanted)) => overwrite(found, wanted),
            };
            patch.insert(name, change);
        }
        patch
    }
}

/// The change of a component, which is marked again by each, as devices expect.
fn component_change(found: &Value, wanted: &Value, properties: BTreeSet<String>) -> Value {
    let mut change = Map::from_iter([(MARKER.0.to_owned(), Value::from(MARKER.1))]);
    for property in properties.into_iter().filter(|property| property != MARKER.0) {
        let value = wanted.get(&property).map_or(Value::Null, |wanted| overwrite(found.get(&property), wanted));
        change.insert(property, value);
    }
    Value::Object(change)
}

/// The merge patch that puts `wanted` in the place of `found`: what `wanted` lacks is deleted.
fn overwrite(found: Option<&Value>, wanted: &Value) -> Value {
    let (Some(Value::Object(found)), Value::Object(wanted)) = (found, wanted) else { return wanted.clone() };
    let gone = found.keys().filter(|name| !wanted.contains_key(*name)).map(|name| (name.clone(), Value::Null));
    let kept = wanted.iter().map(|(name, value)| (name.clone(), overwrite(found.get(name), value)));
    Value::Object(gone.chain(kept).collect())
}
