//! Fuzzing, for seconds in CI and for as long as asked by hand.
//!
//! The committed corpora are replayed by ordinary tests; this goes beyond them, where cargo-fuzz is installed.

use std::fs;

use anyhow::{Context, Result, bail};

use crate::process;

/// Seconds per target when nothing else is said.
const DEFAULT_S: u64 = 15;

/// `cargo xtask fuzz [TARGET] [SECONDS]`.
pub fn run(arguments: &[String]) -> Result<()> {
    let mut targets = targets()?;
    let mut seconds = DEFAULT_S;
    for argument in arguments {
        match argument.parse() {
            Ok(number) => seconds = number,
            Err(_) => targets.retain(|target| target == argument),
        }
    }
    if targets.is_empty() {
        bail!("no such target; there are: {}", self::targets()?.join(", "));
    }
    if !installed() {
        bail!("cargo-fuzz is missing: cargo install cargo-fuzz");
    }
    targets.iter().try_for_each(|target| fuzz(target, seconds))
}

/// A short run of every target. Says so where cargo-fuzz is not installed, rather than calling it green.
pub fn short(seconds: u64) -> Result<Vec<String>> {
    let targets = targets()?;
    if !installed() {
        return Ok(vec![format!("not fuzzed: cargo-fuzz is not installed ({} targets)", targets.len())]);
    }
    targets.iter().try_for_each(|target| fuzz(target, seconds))?;
    Ok(vec![format!("{} targets, {seconds} s each", targets.len())])
}

fn fuzz(target: &str, seconds: u64) -> Result<()> {
    // The stable toolchain has no sanitizers; without unsafe code they would find little.
    let mut command = process::command("cargo")?;
    command.args(["fuzz", "run", "--sanitizer", "none", target, "--"]);
    process::show(command.arg(format!("-max_total_time={seconds}")))
}

fn installed() -> bool {
    process::exists("cargo-fuzz")
}

fn targets() -> Result<Vec<String>> {
    let folder = process::root()?.join("fuzz/fuzz_targets");
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).context("fuzz/fuzz_targets")? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "rs") {
            names.extend(path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned));
        }
    }
    names.sort();
    Ok(names)
}
