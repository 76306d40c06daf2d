//! `cargo xtask test`: everything a fresh Debian machine needs to install, then every test there is.

use anyhow::{Result, bail};

use crate::report::Report;
use crate::{debian, sdk, suites, torture};

/// Installs, downloads, compiles once and runs: first the Rust tests, then the clients that nobody here wrote.
pub fn run() -> Result<()> {
    let mut report = Report::new("cargo xtask test");
    if !report.step("programs", 120, debian::install) {
        bail!("nothing was compiled: programs are missing");
    }
    let fetched = report.step("fetch crates", 60, suites::fetch);
    let installed = report.step("fetch SDKs", 210, sdk::install);
    let compiled = fetched && report.step("compile", 420, suites::compile);
    if compiled {
        report.step("Rust tests", 150, suites::rust_tests);
    }
    if compiled {
        torture::short(&mut report);
    }
    if compiled && installed {
        report.step("SDK suites", 300, || sdk::run_all(&[]));
    }
    report.finish()
}
