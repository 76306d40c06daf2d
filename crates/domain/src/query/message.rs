//! The document that conditions on messages address: what a route looks at.
//!
//! System properties are written behind `$`, in any letter case; `$body` is the message's body where that is JSON, `$twin`
//! the sender's twin; every other name is an application property, whose names have no letter case either. A property
//! whose name is not a name of the language stands in braces: `{my property}`. Start at [`document`].

use serde_json::{Map, Value};

use super::{Expression, Path, Root};
use crate::clock::UnixTime;
use crate::message::{Message, SystemProperties};

/// The member that the body is.
pub const BODY: &str = "$body";
/// The member that the sender's twin is.
pub const TWIN: &str = "$twin";

/// The system properties, as they are written.
const SYSTEM: [&str; 15] = [
    "$messageId",
    "$correlationId",
    "$userId",
    "$contentType",
    "$contentEncoding",
    "$absoluteExpiryTime",
    "$creationTimeUtc",
    "$connectionDeviceId",
    "$connectionModuleId",
    "$connectionDeviceGenerationId",
    "$enqueuedTime",
    "$messageSource",
    "$dt-dataschema",
    "$dt-subject",
    "$iothub-interface-id",
];

/// Most arrays and objects inside each other that are looked into; a body that goes deeper is none.
const DEPTH_MAX: usize = 64;

impl Expression {
    /// Whether the expression looks at a member of the document that is called so.
    fn looks_at(&self, member: &str) -> bool {
        let mut looks = false;
        self.visit_paths(&mut |path| looks |= path.root.name() == member);
        looks
    }

    /// Whether the sender's twin decides.
    pub fn looks_at_twin(&self) -> bool {
        self.looks_at(TWIN)
    }

    /// Whether the body decides.
    pub fn looks_at_body(&self) -> bool {
        self.looks_at(BODY)
    }
}

/// The place that names of a condition mean; the name of a system property that there is none of.
pub(super) fn resolve(names: Vec<String>) -> Result<Path, String> {
    let Some(first) = names.first() else { return Err(String::new()) };
    if let Some(inside) = first.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        return Ok(Path { root: Root::Other(property_member(inside).into()), rest: Vec::new() });
    }
    if !first.starts_with('$') {
        // An application property has no members; its name may have full stops.
        return Ok(Path { root: Root::Other(property_member(&names.join(".")).into()), rest: Vec::new() });
    }
    let known = SYSTEM.iter().chain(&[BODY, TWIN]).find(|known| known.eq_ignore_ascii_case(first));
    let root = known.ok_or_else(|| first.clone())?;
    let is_whole = !matches!(*root, BODY | TWIN) && names.len() > 1;
    if is_whole {
        return Err(names.join("."));
    }
    let rest = names.into_iter().skip(1).map(String::into_boxed_str).collect();
    Ok(Path { root: Root::Other((*root).into()), rest })
}

/// The member that an application property is. What begins like a system property is told apart by braces.
fn property_member(name: &str) -> String {
    let name = name.to_lowercase();
    if name.starts_with('$') { format!("{{{name}}}") } else { name }
}

/// What beside the message itself a condition may look at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Surroundings<'a> {
    /// When the message came in.
    pub enqueued_at: Option<UnixTime>,
    /// The sender's twin, as queries see it.
    pub twin: Option<&'a Map<String, Value>>,
}

/// The document of a message; its body is read only if `with_body`.
pub fn document(message: &Message, around: Surroundings<'_>, with_body: bool) -> Map<String, Value> {
    let mut document = Map::new();
    let draft = &message.draft;
    for (name, value) in draft.told_properties() {
        document.insert(property_member(name), value.map_or(Value::Null, Value::from));
    }
    for (name, value) in system_members(&draft.system) {
        document.extend(value.map(|value| (name.to_owned(), Value::from(value))));
    }
    let mut put = |name: &str, value: &str| drop(document.insert(name.to_owned(), Value::from(value)));
    put("$connectionDeviceId", message.sender.device.as_str());
    if let Some(module) = &message.sender.module {
        put("$connectionModuleId", module.as_str());
    }
    put("$connectionDeviceGenerationId", &message.generation);
    put("$messageSource", crate::route::Source::of(message.origin).name());
    if let Some(model) = &message.model_id {
        put("$dt-dataschema", model);
    }
    if let Some(at) = around.enqueued_at {
        put("$enqueuedTime", &super::document::moment(at));
    }
    if with_body && let Some(body) = json_body(&draft.system, &draft.body) {
        document.insert(BODY.to_owned(), body);
    }
    if let Some(twin) = around.twin {
        document.insert(TWIN.to_owned(), Value::Object(twin.clone()));
    }
    document
}

fn system_members(system: &SystemProperties) -> [(&'static str, Option<&str>); 9] {
    [
        ("$messageId", system.message_id.as_deref()),
        ("$correlationId", system.correlation_id.as_deref()),
        ("$userId", system.user_id.as_deref()),
        ("$contentType", system.content_type.as_deref()),
        ("$contentEncoding", system.content_encoding.as_deref()),
        ("$absoluteExpiryTime", system.expires_at.as_deref()),
        ("$creationTimeUtc", system.created_at.as_deref()),
        ("$dt-subject", system.component.as_deref()),
        ("$iothub-interface-id", system.interface_id.as_deref()),
    ]
}

/// The body, if the sender says that it is JSON in UTF-8, and it is.
pub fn json_body(system: &SystemProperties, body: &[u8]) -> Option<Value> {
    let media = system.content_type.as_deref()?.split(';').next()?.trim();
    let encoding = system.content_encoding.as_deref()?.trim();
    let says = media.eq_ignore_ascii_case("application/json")
        && (encoding.eq_ignore_ascii_case("utf-8") || encoding.eq_ignore_ascii_case("utf8"));
    if !says {
        return None;
    }
    serde_json::from_slice(body).ok().filter(|body| is_shallow(body, DEPTH_MAX))
}

fn is_shallow(value: &Value, levels: usize) -> bool {
    let Some(below) = levels.checked_sub(1) else { return false };
    match value {
        Value::Array(items) => items.iter().all(|item| is_shallow(item, below)),
        Value::Object(members) => members.values().all(|member| is_shallow(member, below)),
        _ => true,
    }
}

#[cfg(test)]
mod tests;
