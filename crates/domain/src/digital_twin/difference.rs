//! What a change of a digital twin meant, as a JSON Patch (RFC 6902) that leads from the one document to the other.

use serde_json::{Map, Value, json};

/// The operations that make `after` of `before`; none if they are alike. Members that differ are told one by one, as
/// deeply as both sides are objects.
pub fn difference(before: &Map<String, Value>, after: &Map<String, Value>) -> Vec<Value> {
    let mut operations = Vec::new();
    compare(&mut String::new(), (before, after), &mut operations);
    operations
}

/// Recursion ends with the documents, whose depth twins bound.
fn compare(path: &mut String, (before, after): (&Map<String, Value>, &Map<String, Value>), into: &mut Vec<Value>) {
    let depth = path.len();
    for name in before.keys().filter(|name| !after.contains_key(*name)) {
        step(path, name);
        into.push(json!({ "op": "remove", "path": path.as_str() }));
        path.truncate(depth);
    }
    for (name, wanted) in after {
        step(path, name);
        match (before.get(name), wanted) {
            (None, _) => into.push(json!({ "op": "add", "path": path.as_str(), "value": wanted })),
            (Some(Value::Object(found)), Value::Object(wanted)) => compare(path, (found, wanted), into),
            (Some(found), _) if found == wanted => {}
            (Some(_), _) => into.push(json!({ "op": "replace", "path": path.as_str(), "value": wanted })),
        }
        path.truncate(depth);
    }
}

/// Adds a step to a JSON Pointer (RFC 6901, section 4).
fn step(path: &mut String, name: &str) {
    path.push('/');
    path.push_str(&name.replace('~', "~0").replace('/', "~1"));
}
