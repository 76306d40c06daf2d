//! Reading a configuration so that every problem is found, not just the first.
//!
//! The defaults, written out as a table, say which keys there are and of which type each is.

use std::fmt;

use toml::{Table, Value};

use super::Config;

/// What is wrong with one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    source: String,
    key: String,
    what: String,
}

impl Problem {
    /// `source` is a file or a variable.
    pub fn new(source: impl fmt::Display, key: impl Into<String>, what: String) -> Self {
        Self { source: source.to_string(), key: key.into(), what }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key.as_str() {
            "" => write!(f, "{}: {}", self.source, self.what),
            key => write!(f, "{}: {key}: {}", self.source, self.what),
        }
    }
}

/// The defaults, overlaid by the file's text and then by `MUSTER_SECTION_KEY` variables; other variables are left alone.
pub fn overlay(
    file: &str,
    text: &str,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Config, Vec<Problem>> {
    let written: Table = text.parse().map_err(|error| vec![Problem::new(file, "", format!("is not TOML: {error}"))])?;
    let mut table = Table::try_from(Config::default()).expect("the defaults can be written as a table");
    let mut problems = Vec::new();
    for (section, keys) in written {
        overlay_section(file, &mut table, (&section, keys), &mut problems);
    }
    let environment: std::collections::BTreeMap<String, String> = environment.into_iter().collect();
    for (name, value) in environment {
        overlay_variable(&mut table, &name, &value, &mut problems);
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    table.try_into().map_err(|error: toml::de::Error| vec![Problem::new(file, "", error.message().to_owned())])
}

fn overlay_section(file: &str, table: &mut Table, (section, keys): (&str, Value), problems: &mut Vec<Problem>) {
    let (Some(Value::Table(defaults)), Value::Table(keys)) = (table.get_mut(section), keys) else {
        problems.push(Problem::new(file, section, "is not a section".to_owned()));
        return;
    };
    for (key, value) in keys {
        let path = format!("{section}.{key}");
        match defaults.get(&key) {
            None => problems.push(Problem::new(file, path, unknown(&key, defaults))),
            Some(default) if !same_type(default, &value) => {
                problems.push(Problem::new(file, path, format!("is {value}; {} is wanted", describe(default))));
            }
            Some(_) => {
                defaults.insert(key, value);
            }
        }
    }
}

fn overlay_variable(table: &mut Table, name: &str, value: &str, problems: &mut Vec<Problem>) {
    let Some(rest) = name.strip_prefix("MUSTER_") else { return };
    let rest = rest.to_ascii_lowercase();
    for (section, defaults) in table.iter_mut() {
        let Some(key) = rest.strip_prefix(section.as_str()).and_then(|rest| rest.strip_prefix('_')) else { continue };
        let Value::Table(defaults) = defaults else { continue };
        let Some(default) = defaults.get(key) else { continue };
        let parsed = match default {
            Value::Integer(_) => value.parse().ok().map(Value::Integer),
            Value::Boolean(_) => value.parse().ok().map(Value::Boolean),
            Value::Array(_) => {
                let items = value.split(',').map(str::trim).filter(|item| !item.is_empty());
                Some(Value::Array(items.map(|item| Value::String(item.to_owned())).collect()))
            }
            _ => Some(Value::String(value.to_owned())),
        };
        let wanted = describe(default);
        match parsed {
            Some(parsed) => {
                defaults.insert(key.to_owned(), parsed);
            }
            None => problems.push(Problem::new(
                name,
                format!("{section}.{key}"),
                format!("is {value:?}; {wanted} is wanted"),
            )),
        }
        return;
    }
}

fn same_type(default: &Value, value: &Value) -> bool {
    match (default, value) {
        (Value::Array(_), Value::Array(items)) => items.iter().all(Value::is_str),
        _ => default.same_type(value),
    }
}

fn describe(default: &Value) -> &'static str {
    match default {
        Value::Integer(_) => "a whole number",
        Value::Boolean(_) => "true or false",
        Value::Array(_) => "a list of texts",
        _ => "a text",
    }
}

fn unknown(key: &str, known: &Table) -> String {
    let distance = |candidate: &String| {
        let common = candidate.bytes().filter(|byte| key.as_bytes().contains(byte)).count();
        candidate.len().abs_diff(key.len()) + candidate.len() - common
    };
    if let Some(best) = known.keys().min_by_key(|candidate| distance(candidate)).filter(|best| distance(best) <= 2) {
        return format!("is not a key; did you mean {best}?");
    }
    let keys: Vec<&str> = known.keys().map(String::as_str).collect();
    format!("is not a key; the section has {}", keys.join(", "))
}
