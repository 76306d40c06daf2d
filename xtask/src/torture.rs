//! `cargo xtask torture`: the server is killed, its disk is cut off, and what it acknowledged must be there
//! (`docs/durability.md`).
//!
//! Builds the server and the program that tortures it (`crates/testkit/src/bin/torture`), runs that and reports.

use std::path::PathBuf;
use std::{env, fs};

use anyhow::{Context, Result, bail};

use crate::report::Report;
use crate::{metadata, process, suites};

/// Rounds of kills when asked for nothing else.
const ROUNDS: u32 = 50;
/// Rounds of kills among all the other tests.
const ROUNDS_SHORT: u32 = 4;
/// Where the seed of a run is taken from, to repeat it; otherwise a fresh one is used, and told.
const SEED_VARIABLE: &str = "MUSTER_TORTURE_SEED";

/// Everything at full length; `arguments` may be the number of rounds.
pub fn run(arguments: &[String]) -> Result<()> {
    let rounds = match arguments {
        [] => ROUNDS,
        [rounds] => rounds.parse().with_context(|| format!("{rounds:?} is no number of rounds"))?,
        _ => bail!("cargo xtask torture [ROUNDS]"),
    };
    let mut report = Report::new("cargo xtask torture");
    if report.step("compile", 420, || suites::compile_binaries().map(|()| Vec::new())) {
        report.step("kill -9", 600, || kill(rounds));
    }
    report.finish()
}

/// A few rounds of everything, on the binaries that are already built.
pub fn short() -> Result<Vec<String>> {
    kill(ROUNDS_SHORT)
}

fn kill(rounds: u32) -> Result<Vec<String>> {
    torture(&["kill", "--rounds", &rounds.to_string()])
}

/// Runs the program with `arguments` on an empty folder, and returns its last line.
fn torture(arguments: &[&str]) -> Result<Vec<String>> {
    let programs = metadata::target_folder()?.join(suites::PROFILE);
    let mut command = process::command(&programs.join("torture").display().to_string())?;
    command.args(arguments).arg("--muster").arg(programs.join("muster"));
    command.arg("--work").arg(empty_folder()?);
    if let Ok(seed) = env::var(SEED_VARIABLE) {
        command.args(["--seed", &seed]);
    }
    let mut last = String::new();
    let succeeded = process::follow(&mut command, |line| {
        println!("{line}");
        line.clone_into(&mut last);
    })?;
    if !succeeded {
        bail!("{last}");
    }
    Ok(vec![last])
}

fn empty_folder() -> Result<PathBuf> {
    let folder = metadata::target_folder()?.join("torture");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    Ok(folder)
}
