//! What a command prints: a table for people, JSON for programs.

use std::io::{IsTerminal as _, Write as _};

use anyhow::Result;
use clap::ValueEnum;
use comfy_table::{Table, presets};
use serde_json::Value;

/// The form of what is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// Prints results to standard output.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    format: Format,
}

impl Output {
    /// In the form asked for; without one a table on a terminal and JSON through a pipe.
    pub fn new(format: Option<Format>) -> Self {
        let piped = if std::io::stdout().is_terminal() { Format::Table } else { Format::Json };
        Self { format: format.unwrap_or(piped) }
    }

    /// Whether programs read it.
    pub fn is_json(self) -> bool {
        self.format == Format::Json
    }

    /// Prints one record.
    pub fn record(self, record: &Value) -> Result<()> {
        match self.format {
            Format::Json => print_line(&serde_json::to_string_pretty(record)?),
            Format::Table => print_line(&record_table(record)),
        }
    }

    /// Prints records under the columns named by `columns`: title, then where in the record the value stands.
    pub fn list(self, records: &[Value], columns: &[(&str, &str)]) -> Result<()> {
        match self.format {
            Format::Json => print_line(&serde_json::to_string_pretty(records)?),
            Format::Table if records.is_empty() => print_line("(none)"),
            Format::Table => {
                let mut table = Table::new();
                table.load_style(presets::UTF8_HORIZONTAL_ONLY);
                table.set_header(columns.iter().map(|(title, _)| *title));
                for record in records {
                    table.add_row(columns.iter().map(|(_, path)| shown(record.pointer(path).unwrap_or(&Value::Null))));
                }
                print_line(&table.to_string())
            }
        }
    }

    /// Prints one record of a stream on one line: as JSON, or as `story` tells it to people.
    pub fn streamed(self, record: &Value, story: impl FnOnce(&Value) -> String) -> Result<()> {
        match self.format {
            Format::Json => print_line(&serde_json::to_string(record)?),
            Format::Table => print_line(&story(record)),
        }
    }

    /// Says something to people, and nothing to programs.
    pub fn say(self, text: &str) -> Result<()> {
        match self.format {
            Format::Json => Ok(()),
            Format::Table => print_line(text),
        }
    }
}

/// Writes a line at once, so that a reader of a pipe sees it.
fn print_line(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.write_all(b"\n")?;
    Ok(stdout.flush()?)
}

fn record_table(record: &Value) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let mut rows = Vec::new();
    flatten("", record, &mut rows);
    for (name, value) in rows {
        table.add_row([name, value]);
    }
    table.to_string()
}

fn flatten(prefix: &str, value: &Value, rows: &mut Vec<(String, String)>) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (name, member) in members {
                let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                flatten(&path, member, rows);
            }
        }
        _ => rows.push((prefix.to_owned(), shown(value))),
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(shown).collect::<Vec<_>>().join("\n"),
        other => other.to_string(),
    }
}
