//! Fuzzing, for seconds in CI and for as long as asked by hand.
//!
//! The committed corpora are replayed by ordinary tests; this goes beyond them. cargo-fuzz is installed below `target` if
//! the machine has none.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;

use anyhow::{Context, Result, anyhow, bail};

use crate::{metadata, process};

/// The version that is installed where there is none.
const CARGO_FUZZ_VERSION: &str = "0.13.2";

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
    let tool = tool()?;
    targets.iter().try_for_each(|target| fuzz(&tool, target, seconds))
}

/// A short run of every target, one on each core at a time: a target has one thread. What one prints is shown when it
/// fails.
pub fn short(seconds: u64) -> Result<Vec<String>> {
    let (tool, targets) = (tool()?, targets()?);
    // cargo-fuzz puts a stale lock file right without a word, and with whatever versions there are that day.
    let mut lock = process::command("cargo")?;
    lock.args(["metadata", "--locked", "--format-version", "1", "--manifest-path", "fuzz/Cargo.toml"]);
    process::read(&mut lock)?;
    process::show(process::command(&tool)?.args(["fuzz", "build", "--sanitizer", "none"]))?;
    let waiting = Mutex::new(targets.iter());
    let work = || -> Result<()> {
        loop {
            // Taken in a statement of its own: the lock would otherwise be held while the target runs.
            let next = waiting.lock().map_err(|_| anyhow!("a run of a target panicked"))?.next();
            let Some(target) = next else { return Ok(()) };
            let mut printed = String::new();
            let mut command = command(&tool, target, seconds)?;
            let succeeded = process::follow(&mut command, |line| {
                printed.push_str(line);
                printed.push('\n');
            })?;
            if !succeeded {
                print!("{printed}");
                bail!("the fuzz target {target} failed");
            }
        }
    };
    std::thread::scope(|scope| {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| anyhow!("a run of a target panicked"))?)
    })?;
    Ok(vec![format!("{} targets, {seconds} s each", targets.len())])
}

fn fuzz(tool: &str, target: &str, seconds: u64) -> Result<()> {
    process::show(&mut command(tool, target, seconds)?)
}

fn command(tool: &str, target: &str, seconds: u64) -> Result<Command> {
    // The stable toolchain has no sanitizers; without unsafe code they would find little.
    let mut command = process::command(tool)?;
    // What is found goes into the first folder: the committed one is changed by people alone.
    let found = metadata::target_folder()?.join("fuzz-corpus").join(target);
    fs::create_dir_all(&found)?;
    let committed = process::root()?.join("fuzz/corpus").join(target);
    // As a program of its own it is called as cargo calls it.
    command.args(["fuzz", "run", "--sanitizer", "none", target]).arg(found).arg(committed).arg("--");
    command.arg(format!("-max_total_time={seconds}")).arg("-verbosity=0");
    Ok(command)
}

/// The program, installed below the target folder if the machine has none.
fn tool() -> Result<String> {
    const NAME: &str = "cargo-fuzz";
    if process::exists(NAME) {
        return Ok(NAME.to_owned());
    }
    let folder: PathBuf = metadata::target_folder()?.join("tools");
    let program = folder.join("bin").join(NAME);
    if !program.exists() {
        let mut install = process::command("cargo")?;
        install.args(["install", NAME, "--version", CARGO_FUZZ_VERSION, "--locked", "--debug", "--quiet", "--root"]);
        process::show(install.arg(&folder))?;
    }
    Ok(program.display().to_string())
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
