//! The SDK suites: clients that nobody here wrote, installed from their registries, against the binary.
//!
//! Each suite runs in a network namespace of its own, where port 443 is free; where namespaces are forbidden, on the
//! machine's own ports. It must never start a server itself: the suites do, and stop it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::counts::{self, Counts};
use crate::failures::Failures;
use crate::{java, metadata, process, suites};

/// One suite and the folder it lives in.
struct Suite {
    name: &'static str,
    folder: &'static str,
}

const SUITES: &[Suite] = &[
    Suite { name: "python", folder: "tests/sdk/python" },
    Suite { name: "node", folder: "tests/sdk/node" },
    Suite { name: "java", folder: "tests/sdk/java" },
];

/// Installs what the suites need below `target/sdk`, from pinned and hashed lists.
pub fn install() -> Result<Vec<String>> {
    let venv = work_folder()?.join("venv");
    if !venv.join("bin/pip").exists() {
        process::show(process::command("python3")?.args(["-m", "venv"]).arg(&venv))?;
    }
    let mut pip = process::command(&venv.join("bin/pip").display().to_string())?;
    pip.args(["install", "--quiet", "--disable-pip-version-check", "--require-hashes", "--requirement"]);
    process::show(pip.arg("tests/sdk/python/requirements.txt"))?;
    if process::root()?.join("tests/sdk/node/package-lock.json").exists() {
        let mut npm = process::command("npm")?;
        npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", "tests/sdk/node"]);
        process::show(&mut npm)?;
    }
    java::install()?;
    Ok(Vec::new())
}

/// `cargo xtask sdk [python|node|java] [ARGUMENTS]`: a part, of which no results are kept.
pub fn run(arguments: &[String]) -> Result<()> {
    install()?;
    suites::compile_binaries()?;
    let (wanted, rest) = match arguments.split_first() {
        Some((name, rest)) if SUITES.iter().any(|suite| suite.name == name) => (Some(name.as_str()), rest),
        _ => (None, arguments),
    };
    for suite in SUITES.iter().filter(|suite| wanted.is_none_or(|name| name == suite.name)) {
        run_suite(suite, rest, None, |line| println!("{line}"))?;
    }
    Ok(())
}

/// Runs every suite, compares the numbers of executed tests, and keeps their results for `docs/clients.md`.
pub fn run_all(arguments: &[String]) -> Result<Vec<String>> {
    let results = results_file()?;
    if results.exists() {
        fs::remove_file(&results)?;
    }
    let mut counts = Counts::new();
    let mut closing = Vec::new();
    let mut failed = Vec::new();
    for (suite, outcome) in SUITES.iter().zip(run_side_by_side(arguments, &results)) {
        match outcome {
            Ok(line) => closing.push(format!("{}: {line}", suite.name)),
            Err(error) => failed.push(format!("{error:#}")),
        }
    }
    for result in results_of_run()? {
        if let Some(suite) = result.get("suite").and_then(Value::as_str) {
            *counts.entry(format!("sdk/{suite}")).or_insert(0) += 1;
        }
    }
    if !failed.is_empty() {
        bail!("{}", failed.join("\n"));
    }
    counts::compare("sdk", &counts)?;
    Ok(closing)
}

/// The results of the last run: one object a test, as the suites wrote them.
pub fn results_of_run() -> Result<Vec<Value>> {
    let path = results_file()?;
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    text.lines().map(|line| serde_json::from_str(line).with_context(|| path.display().to_string())).collect()
}

/// Runs the suites at the same time, each in its own namespace, since they mostly wait; one after the other where they
/// would share the machine's ports. What a suite prints is shown when it fails.
fn run_side_by_side(arguments: &[String], results: &Path) -> Vec<Result<String>> {
    if !namespaces_allowed().unwrap_or(false) {
        let run = |suite| run_suite(suite, arguments, Some(results), |line| println!("{line}"));
        return SUITES.iter().map(run).collect();
    }
    std::thread::scope(|scope| {
        let run = |suite: &Suite| {
            let mut printed = String::new();
            let outcome = run_suite(suite, arguments, Some(results), |line| {
                printed.push_str(line);
                printed.push('\n');
            });
            match &outcome {
                Ok(closing) => println!("{}: {closing}", suite.name),
                Err(_) => print!("{printed}"),
            }
            outcome
        };
        let running: Vec<_> = SUITES.iter().map(|suite| scope.spawn(move || run(suite))).collect();
        let crashed = |_| Err(anyhow::anyhow!("the thread of a suite panicked"));
        running.into_iter().map(|suite| suite.join().unwrap_or_else(crashed)).collect()
    })
}

/// The files of a Node suite, by name: what a folder means to the runner differs between its versions.
fn test_files(suite: &Suite) -> Result<Vec<PathBuf>> {
    let folder = Path::new(suite.folder).join("suites");
    let entries = fs::read_dir(process::root()?.join(&folder)).with_context(|| folder.display().to_string())?;
    let mut files = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        if name.to_string_lossy().ends_with(".test.mjs") {
            files.push(folder.join(name));
        }
    }
    files.sort();
    Ok(files)
}

/// Runs one suite; what its tests show is added to the file of `results`.
fn run_suite(
    suite: &Suite,
    arguments: &[String],
    results: Option<&Path>,
    mut show: impl FnMut(&str),
) -> Result<String> {
    let mut command = isolated()?;
    match suite.name {
        "python" => {
            let python = work_folder()?.join("venv/bin/python");
            command.arg(python).args(["-m", "pytest", "-q", "-p", "no:cacheprovider", suite.folder]);
        }
        "java" => java::launch(&mut command, arguments.is_empty())?,
        _ => {
            command.arg("node").args(["--test", "--test-concurrency=1"]).args(test_files(suite)?);
        }
    }
    let binary = metadata::target_folder()?.join(suites::PROFILE).join("muster");
    command.args(arguments).env("MUSTER_BIN", binary).env_remove("MUSTER_SDK_RESULTS");
    if let Some(results) = results {
        command.env("MUSTER_SDK_RESULTS", results);
    }
    let mut endings = Vec::new();
    let mut failures = Failures::default();
    let succeeded = process::follow(&mut command, |line| {
        show(line);
        failures.read(line);
        endings.extend(closing(suite, line).map(str::to_owned));
    })?;
    let closing = endings.join(", ");
    if !succeeded {
        bail!("the {} suite failed: {}", suite.name, failures.after(&closing));
    }
    Ok(closing)
}

/// What a line says if it is among those with which the suite's runner tells how many tests ended in which way.
fn closing<'a>(suite: &Suite, line: &'a str) -> Option<&'a str> {
    match suite.name {
        "python" => (line.contains(" in ") && (line.contains(" passed") || line.contains(" failed"))).then_some(line),
        "java" => java::closing(line),
        _ => line.strip_prefix("# ").filter(|text| text.starts_with("pass ") || text.starts_with("fail ")),
    }
}

/// A command in a network namespace of its own with loopback up, or none where that is forbidden.
fn isolated() -> Result<Command> {
    if !namespaces_allowed()? {
        println!("network namespaces are forbidden here: the suites use the machine's own ports");
        return process::command("env");
    }
    let mut command = process::command("unshare")?;
    command.args(["-rn", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh"]);
    Ok(command)
}

pub fn namespaces_allowed() -> Result<bool> {
    Ok(process::succeeds(process::command("unshare")?.args(["-rn", "ip", "link", "set", "lo", "up"])))
}

fn work_folder() -> Result<PathBuf> {
    let folder = metadata::target_folder()?.join("sdk");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

fn results_file() -> Result<PathBuf> {
    Ok(metadata::target_folder()?.join("sdk-results.json"))
}

/// Cells of the table in `docs/clients.md`: client and version, then transport, credential and feature. Tests that say
/// nothing of a client have none.
pub fn cells(results: &[Value]) -> BTreeMap<String, Vec<[String; 3]>> {
    let mut cells: BTreeMap<String, Vec<[String; 3]>> = BTreeMap::new();
    for result in results.iter().filter(|result| result.get("client").is_some()) {
        let text = |name: &str| result.get(name).and_then(Value::as_str).unwrap_or("-").to_owned();
        let client = format!("{} {}", text("client"), text("version"));
        cells.entry(client).or_default().push([text("transport"), text("credential"), text("feature")]);
    }
    for rows in cells.values_mut() {
        rows.sort();
        rows.dedup();
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closing_lines_are_the_runners_own_whatever_comes_after_them() {
        let printed = [
            ("python", "160 passed, 348 warnings in 227.94s (0:03:47)", true),
            ("python", "RuntimeError: cannot schedule new futures after shutdown", false),
            ("node", "# pass 129", true),
            ("node", "# duration_ms 157439.305333", false),
            ("java", "[        65 tests successful      ]", true),
        ];
        for (name, line, expected) in printed {
            let suite = SUITES.iter().find(|suite| suite.name == name).expect("a suite of that name");
            assert_eq!(closing(suite, line).is_some(), expected, "{line}");
        }
    }
}
