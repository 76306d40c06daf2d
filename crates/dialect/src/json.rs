//! JSON as the dialects read and write it.

use std::fmt::Write as _;

use domain::operation::ErrorKind;
use serde_json::{Map, Value};

use crate::error::Refused;

/// Deepest nesting of a document that is read.
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

impl From<InvalidJson> for Refused {
    fn from(invalid: InvalidJson) -> Self {
        Self::not_understood(ErrorKind::InvalidBody, &invalid)
    }
}

/// Reads a document; a byte order mark before it is passed over.
pub fn parse(bytes: &[u8]) -> Result<Value, InvalidJson> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    if nesting(bytes) > DEPTH_MAX {
        return Err(InvalidJson::TooDeep);
    }
    serde_json::from_slice(bytes).map_err(|_| InvalidJson::Malformed)
}

/// How deeply the brackets outside of strings are nested; nothing else is checked.
fn nesting(bytes: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_string, mut escaped) = (false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
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
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            write!(ascii, "\\u{unit:04x}").expect("a string takes all that is written");
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

/// Members in the order given, without those that are null.
pub fn members<const N: usize>(members: [(&str, Value); N]) -> Map<String, Value> {
    let present = members.into_iter().filter(|(_, value)| !value.is_null());
    present.map(|(name, value)| (name.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn documents_are_bounded_in_depth() {
        let nested = |levels: usize| format!("{}1{}", "[{\"a\":".repeat(levels / 2), "}]".repeat(levels / 2));
        assert!(parse(nested(DEPTH_MAX).as_bytes()).is_ok());
        assert_eq!(parse(nested(DEPTH_MAX + 2).as_bytes()), Err(InvalidJson::TooDeep));
        assert_eq!(parse("[".repeat(1 << 20).as_bytes()), Err(InvalidJson::TooDeep));
        let brackets_in_text = format!("\"{}\\\"{}\"", "[".repeat(100), "{".repeat(100));
        assert!(parse(brackets_in_text.as_bytes()).is_ok());
    }

    #[test]
    fn documents_are_utf_8_with_or_without_a_mark() {
        assert_eq!(parse("\u{feff}{\"a\":1.0}".as_bytes()).unwrap().to_string(), "{\"a\":1.0}");
        for text in [&b""[..], b"{", b"{}{}", b"\xff", b"{\"a\":\"\xff\"}", b"]]]["] {
            assert_eq!(parse(text), Err(InvalidJson::Malformed), "{text:?}");
        }
    }

    #[test]
    fn ascii_is_all_that_is_written() {
        let cases =
            [(json!({ "a": "é😀" }), "{\"a\":\"\\u00e9\\ud83d\\ude00\"}"), (json!("a\n\u{1}"), "\"a\\n\\u0001\"")];
        for (value, expected) in cases {
            let ascii = to_ascii(&value);
            assert_eq!(ascii, expected);
            assert_eq!(parse(ascii.as_bytes()), Ok(value));
        }
    }

    #[test]
    fn members_are_of_their_type_or_absent() {
        let document = json!({ "text": "x", "null": null, "number": 1 });
        assert_eq!(text(&document, "text"), Ok(Some("x".to_owned())));
        assert_eq!((text(&document, "null"), text(&document, "absent")), (Ok(None), Ok(None)));
        for wrong in [text(&document, "number").is_err(), boolean(&document, "text").is_err()] {
            assert!(wrong);
        }
        assert!(object(&document, "text").is_err() && object(&document, "null") == Ok(None));
        let kept = members([("b", json!(1)), ("gone", Value::Null), ("a", json!({ "inner": null }))]);
        assert_eq!(Value::Object(kept).to_string(), "{\"b\":1,\"a\":{\"inner\":null}}");
    }
}
