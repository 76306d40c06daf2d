//! The Java suite's own steps: jars from Maven Central, held to their digests; javac; JUnit's console launcher.
//!
//! Maven only resolves and downloads: the suites run where there is no network. Nothing reaches the class path but the
//! jars that `tests/sdk/java/jars.sha256` lists. Start at [`install`].

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{metadata, process};

const PROJECT: &str = "tests/sdk/java";
const DIGESTS: &str = "tests/sdk/java/jars.sha256";
/// The language level of `pom.xml`.
const RELEASE: &str = "17";

/// Downloads the jars unless they are there as listed, and compiles the suite.
pub fn install() -> Result<()> {
    if !jars_match()? {
        download()?;
    }
    if !jars_match()? {
        bail!("what Maven brought is not what {DIGESTS} lists");
    }
    compile()
}

/// Adds the program and its arguments: for the whole suite, or for what arguments after these select.
pub fn launch(command: &mut Command, whole: bool) -> Result<()> {
    let mut class_path = jars()?;
    class_path.extend([classes()?, process::root()?.join(PROJECT).join("src/test/resources")]);
    // A short life: what starts soonest counts for more than what runs fastest.
    command.args(["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]);
    command.arg(format!("-Dorg.slf4j.simpleLogger.logFile={}", folder()?.join("clients.log").display()));
    command.arg("-cp").arg(joined(&class_path)?);
    command.args(["org.junit.platform.console.ConsoleLauncher", "execute", "--disable-banner"]);
    command.args(["--disable-ansi-colors", "--details=tree"]);
    if whole {
        command.args(["--select-package", "muster"]);
    }
    Ok(())
}

/// What one line of the launcher's summary says, if it tells how many tests ended in which way.
pub fn closing(line: &str) -> Option<&str> {
    let text = line.strip_prefix('[')?.strip_suffix(']')?.trim();
    [" tests successful", " tests failed"].iter().any(|end| text.ends_with(end)).then_some(text)
}

fn download() -> Result<()> {
    let jars = jars_folder()?;
    if jars.exists() {
        fs::remove_dir_all(&jars).with_context(|| jars.display().to_string())?;
    }
    let mut maven = process::command("mvn")?;
    maven.args(["--batch-mode", "--quiet", "-Dstyle.color=never", "--file", PROJECT, "dependency:copy-dependencies"]);
    process::show(maven.arg(format!("-DoutputDirectory={}", jars.display())))
}

/// Whether every listed jar is there with its digest.
fn jars_match() -> Result<bool> {
    let jars = jars_folder()?;
    if !jars.is_dir() {
        return Ok(false);
    }
    let mut check = process::command("sha256sum")?;
    check.args(["--check", "--strict", "--quiet"]).arg(process::root()?.join(DIGESTS)).current_dir(jars);
    Ok(process::succeeds(&mut check))
}

fn compile() -> Result<()> {
    let classes = classes()?;
    if classes.exists() {
        fs::remove_dir_all(&classes).with_context(|| classes.display().to_string())?;
    }
    let mut javac = process::command("javac")?;
    javac.args(["--release", RELEASE, "-Xlint:all,-processing", "-Werror", "-d"]).arg(&classes);
    javac.arg("-cp").arg(joined(&jars()?)?).args(sources()?);
    // Shown only where it has something to say: its arguments are longer than its work.
    if process::succeeds(&mut javac) { Ok(()) } else { process::show(&mut javac) }
}

/// The suite's sources, which are all in one package.
fn sources() -> Result<Vec<PathBuf>> {
    let folder = process::root()?.join(PROJECT).join("src/test/java/muster");
    let mut sources = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        sources.push(entry?.path());
    }
    sources.sort();
    Ok(sources)
}

/// The listed jars.
fn jars() -> Result<Vec<PathBuf>> {
    let folder = jars_folder()?;
    let list = fs::read_to_string(process::root()?.join(DIGESTS)).context(DIGESTS)?;
    Ok(list.lines().filter_map(|line| line.split_once("  ")).map(|(_, jar)| folder.join(jar)).collect())
}

fn joined(paths: &[PathBuf]) -> Result<OsString> {
    std::env::join_paths(paths).context("a class path")
}

fn jars_folder() -> Result<PathBuf> {
    Ok(folder()?.join("jars"))
}

fn classes() -> Result<PathBuf> {
    Ok(folder()?.join("classes"))
}

fn folder() -> Result<PathBuf> {
    let folder = metadata::target_folder()?.join("sdk/java");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_launchers_summary_closes_the_suite() {
        let cases = [
            ("[        41 tests successful      ]", Some("41 tests successful")),
            ("[         0 tests failed          ]", Some("0 tests failed")),
            ("[         9 containers failed     ]", None),
            ("Test run finished after 6229 ms", None),
        ];
        for (line, expected) in cases {
            assert_eq!(closing(line), expected, "{line}");
        }
    }
}
