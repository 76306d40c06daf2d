//! `docs/clients.md`: which unmodified client does what against Muster, written from the last run of the SDK suites.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, Result};

use crate::{process, sdk};

const FILE: &str = "docs/clients.md";

const HEAD: &str = "\
# Clients

What unmodified clients from PyPI and npm were seen to do against Muster. `cargo xtask golden` writes this file from the
results of the last `cargo xtask test` (`target/sdk-results.json`); every row is a test that passed.

| client | transport | credential | feature |
|---|---|---|---|
";

/// Writes the file from the last run; does nothing if there was none.
pub fn write() -> Result<Vec<String>> {
    let Some(text) = table()? else { return Ok(vec![format!("{FILE}: no SDK results, left as it is")]) };
    fs::write(process::root()?.join(FILE), text).context(FILE)?;
    Ok(vec![format!("{FILE} written")])
}

/// The file's name if the last run would write it otherwise.
pub fn stale() -> Result<Vec<String>> {
    let Some(text) = table()? else { return Ok(Vec::new()) };
    let present = fs::read_to_string(process::root()?.join(FILE)).unwrap_or_default();
    Ok(if present == text { Vec::new() } else { vec![FILE.to_owned()] })
}

fn table() -> Result<Option<String>> {
    let results = sdk::results_of_run()?;
    if results.is_empty() {
        return Ok(None);
    }
    let mut text = HEAD.to_owned();
    for (client, rows) in sdk::cells(&results) {
        for [transport, credential, feature] in rows {
            writeln!(text, "| {client} | {transport} | {credential} | {feature} |")?;
        }
    }
    Ok(Some(text))
}
