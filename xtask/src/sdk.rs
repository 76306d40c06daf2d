//! The SDK suites: clients that nobody here wrote, installed from their registries, against the binary.
//!
//! Each suite runs in network namespaces of its own, where port 443 is free: a file of tests at a time in each, since
//! tests mostly wait. Where namespaces are forbidden, it runs on the machine's own ports. It must never start a server
//! itself: the suites do, and stop it. Start at [`run_all`].

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use crate::counts::{self, Counts};
use crate::failures::Failures;
use crate::{java, metadata, process, suites};

/// One suite, the folder that its files of tests live in, and in how many namespaces at once these are run. Java's
/// runner does that by itself.
struct Suite {
    name: &'static str,
    folder: &'static str,
    lanes: usize,
}

const SUITES: &[Suite] = &[
    Suite { name: "python", folder: "tests/sdk/python", lanes: 2 },
    Suite { name: "node", folder: "tests/sdk/node/suites", lanes: 2 },
    Suite { name: "java", folder: "tests/sdk/java", lanes: 1 },
];

/// Files that ask what the tests of all others showed: they are run when those have passed.
const LAST: &[&str] = &["test_coverage.py", "whole.test.mjs"];

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
        show_suite(suite, rest, None)?;
    }
    Ok(())
}

/// Runs every suite, compares the numbers of executed tests and of the cells of `docs/clients.md` that they fill, and
/// keeps their results for it.
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
    let results = results_of_run()?;
    counts.insert("sdk/cells".to_owned(), cells(&results).values().map(|rows| rows.len() as u64).sum());
    for result in &results {
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

/// Runs the suites at the same time; one after the other where they would share the machine's ports. What a suite
/// prints is shown when it fails.
fn run_side_by_side(arguments: &[String], results: &Path) -> Vec<Result<String>> {
    if !namespaces_allowed().unwrap_or(false) {
        return SUITES.iter().map(|suite| show_suite(suite, arguments, Some(results))).collect();
    }
    std::thread::scope(|scope| {
        let run = |suite: &Suite| {
            let outcome = run_in_lanes(suite, arguments, results);
            if let Ok(closing) = &outcome {
                println!("{}: {closing}", suite.name);
            }
            outcome
        };
        let running: Vec<_> = SUITES.iter().map(|suite| scope.spawn(move || run(suite))).collect();
        running.into_iter().map(|suite| suite.join().unwrap_or_else(|_| Err(crashed()))).collect()
    })
}

fn crashed() -> anyhow::Error {
    anyhow!("the thread of a suite panicked")
}

/// Runs a whole suite as one process, its output shown as it comes.
fn show_suite(suite: &Suite, arguments: &[String], results: Option<&Path>) -> Result<String> {
    let files = test_files(suite)?;
    Ok(run_files(suite, &files, arguments, results, |line| println!("{line}"))?.to_string())
}

/// Runs a suite in its lanes, each of which takes the next file as soon as it has done with one; longest first, so that
/// none is left over at the end.
fn run_in_lanes(suite: &Suite, arguments: &[String], results: &Path) -> Result<String> {
    let files = test_files(suite)?;
    let run = |files: &[PathBuf]| {
        let mut printed = String::new();
        let outcome = run_files(suite, files, arguments, Some(results), |line| {
            printed.push_str(line);
            printed.push('\n');
        });
        if outcome.is_err() {
            print!("{printed}");
        }
        outcome
    };
    if files.is_empty() || !arguments.is_empty() {
        return Ok(run(&files)?.to_string());
    }
    let (last, first): (Vec<_>, Vec<_>) =
        files.into_iter().partition(|file| LAST.iter().any(|name| file.ends_with(name)));
    let queue = Mutex::new(first.into_iter());
    let next = || queue.lock().expect("no lane panics while it takes a file").next();
    let lane = || std::iter::from_fn(next).map(|file| run(&[file])).collect::<Vec<_>>();
    let mut outcomes: Vec<Result<Closing>> = std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..suite.lanes).map(|_| scope.spawn(lane)).collect();
        lanes.into_iter().flat_map(|lane| lane.join().unwrap_or_else(|_| vec![Err(crashed())])).collect()
    });
    if outcomes.iter().all(Result::is_ok) {
        outcomes.extend(last.into_iter().map(|file| run(&[file])));
    }
    let (mut whole, mut failed) = (Closing::default(), Vec::new());
    for outcome in outcomes {
        match outcome {
            Ok(closing) => whole.add(closing),
            Err(error) => failed.push(format!("{error:#}")),
        }
    }
    if failed.is_empty() { Ok(whole.to_string()) } else { bail!("{}", failed.join("\n")) }
}

/// The files of a suite, the longest first. Java's are known to its runner alone.
fn test_files(suite: &Suite) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(process::root()?.join(suite.folder)).with_context(|| suite.folder.to_owned())?;
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = PathBuf::from(entry.file_name());
        let text = name.to_string_lossy();
        let is_python = text.starts_with("test_") && name.extension().is_some_and(|extension| extension == "py");
        if is_python || text.ends_with(".test.mjs") {
            files.push((entry.metadata()?.len(), Path::new(suite.folder).join(&name)));
        }
    }
    files.sort_by(|(length, name), (other_length, other_name)| (other_length, name).cmp(&(length, other_name)));
    Ok(files.into_iter().map(|(_, file)| file).collect())
}

/// Runs files of one suite in a namespace; what their tests show is added to the file of `results`.
fn run_files(
    suite: &Suite,
    files: &[PathBuf],
    arguments: &[String],
    results: Option<&Path>,
    mut show: impl FnMut(&str),
) -> Result<Closing> {
    let mut command = isolated()?;
    match suite.name {
        "python" => {
            let python = work_folder()?.join("venv/bin/python");
            command.arg(python).args(["-m", "pytest", "-q", "-p", "no:cacheprovider"]).args(files);
        }
        "java" => java::launch(&mut command, arguments.is_empty())?,
        _ => {
            command.arg("node").args(["--test", "--test-concurrency=1"]).args(files);
        }
    }
    let binary = metadata::target_folder()?.join(suites::PROFILE).join("muster");
    command.args(arguments).env("MUSTER_BIN", binary).env_remove("MUSTER_SDK_RESULTS");
    if let Some(results) = results {
        command.env("MUSTER_SDK_RESULTS", results);
    }
    let mut closing = Closing::default();
    let mut failures = Failures::default();
    let succeeded = process::follow(&mut command, |line| {
        show(line);
        failures.read(line);
        closing.read(suite.name, line);
    })?;
    if !succeeded {
        let which =
            if let [file] = files { format!("{}", file.display()) } else { format!("the {} suite", suite.name) };
        bail!("{which} failed: {}", failures.after(&closing.to_string()));
    }
    Ok(closing)
}

/// How many tests ended in which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Closing {
    passed: u64,
    failed: u64,
}

impl Closing {
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }

    /// Looks at one line: those count with which the suite's runner tells how many tests ended in which way.
    fn read(&mut self, suite: &str, line: &str) {
        let counted = match suite {
            "python" => line.contains(" in ").then(|| (before(line, " passed"), before(line, " failed"))),
            "java" => {
                java::closing(line).map(|line| (before(line, " tests successful"), before(line, " tests failed")))
            }
            _ => line.strip_prefix("# ").map(|line| (after(line, "pass "), after(line, "fail "))),
        };
        if let Some((passed, failed)) = counted {
            self.add(Self { passed: passed.unwrap_or(0), failed: failed.unwrap_or(0) });
        }
    }
}

impl fmt::Display for Closing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} passed, {} failed", self.passed, self.failed)
    }
}

/// The number that stands before a word.
fn before(line: &str, word: &str) -> Option<u64> {
    line.split_once(word)?.0.split_whitespace().next_back()?.parse().ok()
}

/// The number that stands after a word at the line's begin.
fn after(line: &str, word: &str) -> Option<u64> {
    line.strip_prefix(word)?.parse().ok()
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
            ("python", "160 passed, 348 warnings in 227.94s (0:03:47)", (160, 0)),
            ("python", "1 failed, 3 passed in 2.10s", (3, 1)),
            ("python", "RuntimeError: cannot schedule new futures after shutdown in a thread", (0, 0)),
            ("node", "# pass 129", (129, 0)),
            ("node", "# fail 2", (0, 2)),
            ("node", "# duration_ms 157439.305333", (0, 0)),
            ("java", "[        65 tests successful      ]", (65, 0)),
            ("java", "[         1 tests failed          ]", (0, 1)),
        ];
        for (suite, line, (passed, failed)) in printed {
            let mut closing = Closing::default();
            closing.read(suite, line);
            assert_eq!(closing, Closing { passed, failed }, "{line}");
        }
    }

    #[test]
    fn the_files_of_a_suite_are_all_there_and_those_that_ask_of_the_others_are_known() {
        for suite in SUITES.iter().filter(|suite| suite.name != "java") {
            let files = test_files(suite).expect("a folder of tests");
            assert!(files.len() > LAST.len(), "{}", suite.name);
            let last = files.iter().filter(|file| LAST.iter().any(|name| file.ends_with(name)));
            assert_eq!(last.count(), 1, "{}", suite.name);
        }
    }
}
