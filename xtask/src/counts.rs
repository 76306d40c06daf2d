//! How many tests each suite ran, against `testdata/golden/test-counts.json`.
//!
//! A test that silently vanishes (a feature gate, an early return, a file that is no longer collected) would leave
//! everything green. So the numbers of executed tests are golden: fewer fail the run, more are recorded by
//! `cargo xtask golden`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::{metadata, process};

/// Executed tests by suite.
pub type Counts = BTreeMap<String, u64>;

const GOLDEN: &str = "testdata/golden/test-counts.json";

/// Keeps what this run executed for `cargo xtask golden`, and fails if a suite that ran executed fewer than recorded,
/// or if a recorded suite of the same kind (the word before the first slash) did not run at all.
pub fn compare(kind: &str, executed: &Counts) -> Result<()> {
    remember(executed)?;
    let shortfalls = shortfalls(kind, &golden()?, executed);
    if !shortfalls.is_empty() {
        bail!("fewer tests than recorded in {GOLDEN}:\n{}", shortfalls.join("\n"));
    }
    Ok(())
}

fn shortfalls(kind: &str, golden: &Counts, executed: &Counts) -> Vec<String> {
    let prefix = format!("{kind}/");
    golden
        .iter()
        .filter(|(suite, _)| suite.starts_with(&prefix))
        .filter_map(|(suite, &expected)| {
            let ran = executed.get(suite).copied().unwrap_or(0);
            (ran < expected).then(|| format!("{suite}: {ran} of {expected}"))
        })
        .collect()
}

/// Raises the recorded numbers to those of the last runs. Suites that are gone keep their row: deleting a test is a
/// decision that a person writes into the file.
pub fn record() -> Result<Vec<String>> {
    let mut golden = golden()?;
    for (suite, executed) in read(&remembered_path()?)? {
        let recorded = golden.entry(suite).or_insert(0);
        *recorded = executed.max(*recorded);
    }
    write(&golden_path()?, &golden)?;
    Ok(vec![format!("{} suites, {} tests recorded", golden.len(), golden.values().sum::<u64>())])
}

fn remember(executed: &Counts) -> Result<()> {
    let path = remembered_path()?;
    let mut all = read(&path)?;
    all.extend(executed.iter().map(|(suite, count)| (suite.clone(), *count)));
    write(&path, &all)
}

fn golden() -> Result<Counts> {
    read(&golden_path()?)
}

fn golden_path() -> Result<PathBuf> {
    Ok(process::root()?.join(GOLDEN))
}

fn remembered_path() -> Result<PathBuf> {
    Ok(metadata::target_folder()?.join("test-counts.json"))
}

fn read(path: &PathBuf) -> Result<Counts> {
    if !path.exists() {
        return Ok(Counts::new());
    }
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let value: serde_json::Value = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
    let entries = value.as_object().with_context(|| format!("{} is not an object", path.display()))?;
    Ok(entries.iter().filter_map(|(suite, count)| Some((suite.clone(), count.as_u64()?))).collect())
}

fn write(path: &PathBuf, counts: &Counts) -> Result<()> {
    let mut text = String::from("{\n");
    for (index, (suite, count)) in counts.iter().enumerate() {
        let comma = if index + 1 < counts.len() { "," } else { "" };
        writeln!(text, "  {}: {count}{comma}", serde_json::Value::from(suite.as_str()))?;
    }
    text.push_str("}\n");
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, text).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suite_that_ran_fewer_tests_or_not_at_all_is_named() {
        let counts = |rows: &[(&str, u64)]| rows.iter().map(|&(suite, count)| (suite.to_owned(), count)).collect();
        let golden: Counts = counts(&[("rust/domain", 10), ("rust/store", 5), ("sdk/python", 7)]);
        let cases: &[(&str, Counts, &[&str])] = &[
            ("as recorded", counts(&[("rust/domain", 10), ("rust/store", 5)]), &[]),
            ("more", counts(&[("rust/domain", 11), ("rust/store", 5), ("rust/proto", 1)]), &[]),
            ("fewer", counts(&[("rust/domain", 9), ("rust/store", 5)]), &["rust/domain: 9 of 10"]),
            ("gone", counts(&[("rust/domain", 10)]), &["rust/store: 0 of 5"]),
        ];
        for (name, executed, expected) in cases {
            assert_eq!(&shortfalls("rust", &golden, executed), expected, "{name}");
        }
    }
}
