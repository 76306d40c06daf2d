//! Leaves of tags as stores index them, so that a condition like `tags.site = 'x'` finds its rows without a look at the
//! others.
//!
//! Rows of an index are made of tags alone ([`of_tags`]) and can be made again at any time. They lead to every row that
//! fulfils such a condition, and perhaps to others: whoever finds rows by them still asks the condition.

use serde_json::{Map, Value};

use super::{Constant, Number, Path, Root};

/// Longer texts are in no index, and neither are those with a zero, at which some databases end a text.
const TEXT_BYTES_MAX: usize = 256;

/// A primitive value of tags: where it stands, and what it is. Equal values have equal texts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Leaf {
    /// The names that lead to it, separated by dots, which no name contains.
    pub path: String,
    /// The value, its type first.
    pub value: String,
}

/// The leaves of `tags` that are indexed.
pub fn of_tags(tags: &Map<String, Value>) -> Vec<Leaf> {
    let mut leaves = Vec::new();
    collect(&mut String::new(), tags, &mut leaves);
    leaves
}

/// Twins are bounded in depth, and this recursion with them.
fn collect(path: &mut String, members: &Map<String, Value>, leaves: &mut Vec<Leaf>) {
    for (name, value) in members {
        let length = path.len();
        if length > 0 {
            path.push('.');
        }
        path.push_str(name);
        let text = match value {
            Value::Object(members) => {
                collect(path, members, leaves);
                None
            }
            Value::Bool(truth) => Some(of_bool(*truth)),
            Value::Number(number) => Some(of_number(Number::from_json(number))),
            Value::String(text) => of_text(text),
            Value::Null | Value::Array(_) => None,
        };
        leaves.extend(text.map(|value| Leaf { path: path.clone(), value }));
        path.truncate(length);
    }
}

/// The path of the leaves that `path` means; `None` if it means no leaf of tags.
pub fn of_path(path: &Path) -> Option<String> {
    let is_name = |name: &str| !name.contains('.');
    let is_leaf = path.root == Root::Tags && !path.rest.is_empty() && path.rest.iter().all(|name| is_name(name));
    is_leaf.then(|| path.rest.join("."))
}

/// The value that leaves equal to `constant` have; `None` if those are in no index.
pub fn of_constant(constant: &Constant) -> Option<String> {
    match constant {
        Constant::Bool(truth) => Some(of_bool(*truth)),
        Constant::Number(number) => Some(of_number(*number)),
        Constant::Text(text) => of_text(text),
        Constant::Undefined | Constant::Null | Constant::Array(_) => None,
    }
}

fn of_bool(truth: bool) -> String {
    format!("b{truth}")
}

fn of_number(number: Number) -> String {
    format!("n{}", number.canonical())
}

fn of_text(text: &str) -> Option<String> {
    (text.len() <= TEXT_BYTES_MAX && !text.contains('\0')).then(|| format!("t{text}"))
}
