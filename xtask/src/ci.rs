//! `cargo xtask ci`: what can be said about the code without running it.
//!
//! Lints and documentation use the profile of the tests, so that build scripts (two C libraries, the long poles) are
//! not run twice.

use anyhow::Result;

use crate::report::Report;
use crate::{check, fuzz, golden, layering, licences, process, suites};

/// Seconds per fuzz target.
const FUZZ_S: u64 = 5;

/// Runs every check, whatever the ones before it said.
pub fn run() -> Result<()> {
    let mut report = Report::new("cargo xtask ci");
    report.step("format", 10, format);
    report.step("file lengths", 5, check::file_lengths);
    report.step("layering", 10, layering::check);
    report.step("licences", 30, licences::check);
    report.step("lints", 180, lints);
    report.step("documentation", 60, documentation);
    report.step("golden files", 60, golden::check);
    report.step("fuzz", 420, || fuzz::short(FUZZ_S));
    report.finish()
}

fn format() -> Result<Vec<String>> {
    process::show(process::command("cargo")?.args(["fmt", "--all", "--check"]))?;
    Ok(Vec::new())
}

fn lints() -> Result<Vec<String>> {
    let mut clippy = process::command("cargo")?;
    clippy.args(["clippy", "--workspace", "--all-targets", "--locked", "--quiet", "--profile", suites::PROFILE]);
    clippy.args(suites::FEATURES);
    process::show(clippy.args(["--", "-D", "warnings"]))?;
    Ok(Vec::new())
}

fn documentation() -> Result<Vec<String>> {
    let mut doc = process::command("cargo")?;
    doc.args(["doc", "--workspace", "--no-deps", "--document-private-items", "--locked", "--quiet"]);
    process::show(
        doc.args(["--profile", suites::PROFILE]).env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links"),
    )?;
    Ok(Vec::new())
}
