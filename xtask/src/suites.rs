//! Compiling the workspace once, and running its Rust tests from that build.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::counts::{self, Counts};
use crate::failures::Failures;
use crate::process;

/// What everything is compiled with, so that each crate is compiled once.
pub const PROFILE: &str = "ci";

/// Tests that need a program which the default developer loop does not: a PostgreSQL server.
pub const FEATURES: &[&str] = &["--features", "muster-store/postgres-tests"];

/// Fetches every crate of the lock file.
pub fn fetch() -> Result<Vec<String>> {
    process::show(process::command("cargo")?.args(["fetch", "--locked"]))?;
    Ok(Vec::new())
}

/// Compiles the binaries and every test. A binary that no integration test names is not built with the tests.
pub fn compile() -> Result<Vec<String>> {
    process::show(build(&[])?.arg("--quiet"))?;
    compile_binaries()?;
    Ok(Vec::new())
}

/// Compiles only the binaries.
pub fn compile_binaries() -> Result<()> {
    let mut command = process::command("cargo")?;
    process::show(command.args(["build", "--workspace", "--bins", "--locked", "--quiet", "--profile", PROFILE]))
}

fn build(arguments: &[&str]) -> Result<std::process::Command> {
    let mut command = process::command("cargo")?;
    command.args(["test", "--workspace", "--no-run", "--locked", "--profile", PROFILE]).args(FEATURES).args(arguments);
    Ok(command)
}

/// Runs every Rust test, and returns how the runs closed.
pub fn rust_tests() -> Result<Vec<String>> {
    let suites = suite_names()?;
    let mut tally = Tally::new(&suites);
    let mut command = process::command("cargo")?;
    command.args(["test", "--workspace", "--no-fail-fast", "--locked", "--profile", PROFILE]).args(FEATURES);
    let mut failures = Failures::default();
    let succeeded = process::follow(&mut command, |line| {
        if !(line.starts_with("test ") && line.ends_with(" ... ok")) {
            println!("{line}");
        }
        failures.read(line);
        tally.read(line);
    })?;
    let closing = tally.closing();
    if !succeeded {
        bail!("{}", failures.after(&closing));
    }
    counts::compare("rust", &tally.counts)?;
    Ok(vec![closing])
}

/// The suites by the file name of their executable: `server-0f3a…` is `rust/muster-server/lib`.
fn suite_names() -> Result<BTreeMap<String, String>> {
    let output =
        process::read(build(&["--quiet", "--message-format", "json"])?.stderr(std::process::Stdio::inherit()))?;
    let mut names = BTreeMap::new();
    for line in output.lines() {
        let Ok(message) = serde_json::from_str::<Value>(line) else { continue };
        let text = |pointer: &str| message.pointer(pointer).and_then(Value::as_str);
        let (Some(executable), Some(package), Some(kind), Some(target)) =
            (text("/executable"), text("/package_id"), text("/target/kind/0"), text("/target/name"))
        else {
            continue;
        };
        let file = Path::new(executable).file_name().and_then(|name| name.to_str()).context("an executable's name")?;
        names.insert(file.to_owned(), format!("rust/{}/{}", package_name(package), suite_name(kind, target)));
    }
    Ok(names)
}

/// The package in cargo's identifier: `path+file:///…/crates/cli#muster@0.1.0`, or `…/xtask#0.1.0` where folder and
/// package share a name.
fn package_name(id: &str) -> &str {
    let (path, fragment) = id.rsplit_once('#').unwrap_or((id, ""));
    match fragment.split_once('@') {
        Some((name, _)) => name,
        None => path.rsplit('/').next().unwrap_or(path),
    }
}

fn suite_name<'a>(kind: &'a str, target: &'a str) -> &'a str {
    match kind {
        "test" | "example" | "bench" => target,
        other => other,
    }
}

/// Reads libtest's output as it passes by.
struct Tally<'a> {
    suites: &'a BTreeMap<String, String>,
    current: String,
    counts: Counts,
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl<'a> Tally<'a> {
    fn new(suites: &'a BTreeMap<String, String>) -> Self {
        Self { suites, current: String::new(), counts: Counts::new(), passed: 0, failed: 0, ignored: 0 }
    }

    fn read(&mut self, line: &str) {
        let line = line.trim_start();
        if let Some(executable) = line.strip_prefix("Running ").and_then(|rest| rest.strip_suffix(')')) {
            let file = executable.rsplit(['/', '(']).next().unwrap_or_default();
            self.current = self.suites.get(file).cloned().unwrap_or_else(|| format!("rust/{file}"));
        } else if let Some(krate) = line.strip_prefix("Doc-tests ") {
            self.current = format!("rust/{krate}/documentation");
        } else if let Some(result) = line.strip_prefix("test result: ") {
            let number = |word: &str| -> u64 {
                let before = result.split(word).next().unwrap_or_default();
                before.split_whitespace().next_back().and_then(|number| number.parse().ok()).unwrap_or(0)
            };
            let (passed, failed) = (number(" passed"), number(" failed"));
            self.passed += passed;
            self.failed += failed;
            self.ignored += number(" ignored");
            if passed + failed > 0 {
                *self.counts.entry(self.current.clone()).or_insert(0) += passed + failed;
            }
        }
    }

    fn closing(&self) -> String {
        let (passed, failed, ignored) = (self.passed, self.failed, self.ignored);
        format!("{passed} passed; {failed} failed; {ignored} ignored, in {} suites", self.counts.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_output_is_counted_by_suite() {
        let suites = BTreeMap::from([
            ("it-0a1b".to_owned(), "rust/muster-store/it".to_owned()),
            ("it-2c3d".to_owned(), "rust/muster-server/it".to_owned()),
        ]);
        let mut tally = Tally::new(&suites);
        for line in [
            "     Running tests/it/main.rs (target/ci/deps/it-0a1b)",
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.02s",
            "     Running tests/it/main.rs (target/ci/deps/it-2c3d)",
            "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.02s",
            "   Doc-tests domain",
            "test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        ] {
            tally.read(line);
        }
        let expected = [("rust/muster-server/it", 5), ("rust/muster-store/it", 12)];
        assert_eq!(tally.counts, expected.map(|(suite, count)| (suite.to_owned(), count)).into());
        assert_eq!(tally.closing(), "15 passed; 2 failed; 1 ignored, in 2 suites");
    }

    #[test]
    fn a_package_is_named_in_both_spellings_of_its_identifier() {
        let cases = [
            ("path+file:///somewhere/crates/cli#muster@0.1.0", "muster"),
            ("path+file:///somewhere/xtask#0.1.0", "xtask"),
        ];
        for (id, expected) in cases {
            assert_eq!(package_name(id), expected, "{id}");
        }
    }
}
