//! JSON as the dialects read and write it.

use std::fmt::Write as _;

use serde_json::Value;

/// Deepest nesting of a document that is read; `serde_json` itself stops at 128.
pub const DEPTH_MAX: usize = 64;

/// Why a body is not the JSON that was expected. The text may be shown to the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidJson {
    /// Not JSON, or not UTF-8.
    #[error("the body is not JSON")]
    Malformed,
    /// Nested too deeply.
    #[error("the body is nested more than {DEPTH_MAX} levels deep")]
    TooDeep,
    /// A member is not of the type it should be.
    #[error("{member} is not {wanted}")]
    Type {
        /// Which.
        member: &'static str,
        /// What it should be.
        wanted: &'static str,
    },
    /// A member that must be there is not.
    #[error("{member} is missing")]
    Missing {
        /// Which.
        member: &'static str,
    },
}

/// Reads a document; a byte order mark before it is passed over.
pub fn parse(bytes: &[u8]) -> Result<Value, InvalidJson> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let value: Value = serde_json::from_slice(bytes).map_err(|_| InvalidJson::Malformed)?;
    if depth(&value) > DEPTH_MAX { Err(InvalidJson::TooDeep) } else { Ok(value) }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// Writes a document in ASCII: other characters as `\uXXXX`, since one SDK decodes what it receives as ASCII
/// (`contract/dps-device.md 3.5`).
pub fn to_ascii(value: &Value) -> String {
    let text = value.to_string();
    if text.is_ascii() {
        return text;
    }
    let mut ascii = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if character.is_ascii() {
            ascii.push(character);
        } else {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                // Writing to a string cannot fail.
                let _ = write!(ascii, "\\u{unit:04x}");
            }
        }
    }
    ascii
}

/// A member that is text; absent and null are `None`.
pub fn text(document: &Value, member: &'static str) -> Result<Option<String>, InvalidJson> {
    match document.get(member) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(InvalidJson::Type { member, wanted: "a string" }),
    }
}

/// A member that is true or false; absent and null are `None`.
pub fn boolean(document: &Value, member: &'static str) -> Result<Option<bool>, InvalidJson> {
    match document.get(member) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(value)) => Ok(Some(*value)),
        Some(_) => Err(InvalidJson::Type { member, wanted: "true or false" }),
    }
}

/// A member that is an object; absent and null are `None`.
pub fn object<'a>(document: &'a Value, member: &'static str) -> Result<Option<&'a Value>, InvalidJson> {
    match document.get(member) {
        None | Some(Value::Null) => Ok(None),
        Some(value @ Value::Object(_)) => Ok(Some(value)),
        Some(_) => Err(InvalidJson::Type { member, wanted: "an object" }),
    }
}

/// The same document without members that are null, at any depth of objects.
pub fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(members) => Value::Object(
            members
                .into_iter()
                .filter(|(_, member)| !member.is_null())
                .map(|(name, member)| (name, without_nulls(member)))
                .collect(),
        ),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn documents_are_bounded_in_depth_and_written_in_ascii() {
        let deep = format!("{}1{}", "[".repeat(65), "]".repeat(65));
        assert_eq!(parse(deep.as_bytes()), Err(InvalidJson::TooDeep));
        assert_eq!(parse(b"{"), Err(InvalidJson::Malformed));
        assert_eq!(parse("\u{feff}{\"a\":1.0}".as_bytes()).unwrap().to_string(), "{\"a\":1.0}");
        assert_eq!(to_ascii(&json!({ "a": "é😀" })), "{\"a\":\"\\u00e9\\ud83d\\ude00\"}");
    }

    #[test]
    fn members_are_of_their_type_or_absent() {
        let document = json!({ "text": "x", "null": null, "number": 1 });
        assert_eq!(text(&document, "text"), Ok(Some("x".to_owned())));
        assert_eq!((text(&document, "null"), text(&document, "absent")), (Ok(None), Ok(None)));
        assert!(text(&document, "number").is_err() && boolean(&document, "text").is_err());
        assert_eq!(without_nulls(document), json!({ "text": "x", "number": 1 }));
    }
}
