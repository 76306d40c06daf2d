//! Golden files: text that a change of behaviour shows up in, as a diff that somebody reads.
//!
//! The tests that compare them (their names contain `golden`) write them instead when `MUSTER_GOLDEN=write` is set.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::{clients, counts, process, suites};

const FOLDER: &str = "testdata/golden";

/// Writes every golden file again, from the code and from what the last test run left in `target`.
pub fn run() -> Result<()> {
    write_from_tests()?;
    for line in counts::record()?.into_iter().chain(clients::write()?) {
        println!("{line}");
    }
    Ok(())
}

/// Writes the golden files that come from the code, and fails if any of them changed.
pub fn check() -> Result<Vec<String>> {
    let before = contents()?;
    write_from_tests()?;
    let mut changed = differing(&before, &contents()?);
    changed.extend(clients::stale()?);
    if !changed.is_empty() {
        bail!("not as committed (`cargo xtask golden` writes them; read the diff):\n{}", changed.join("\n"));
    }
    Ok(vec![format!("{} golden files as committed", before.len())])
}

fn write_from_tests() -> Result<()> {
    let mut command = process::command("cargo")?;
    command.args(["test", "--workspace", "--locked", "--quiet", "--profile", suites::PROFILE]);
    command.args(suites::FEATURES).args(["--", "golden"]);
    let mut output = Vec::new();
    if !process::follow(command.env("MUSTER_GOLDEN", "write"), |line| output.push(line.to_owned()))? {
        bail!("the golden tests failed:\n{}", output.join("\n"));
    }
    Ok(())
}

fn contents() -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut files = BTreeMap::new();
    read_folder(&process::root()?.join(FOLDER), &mut files)?;
    Ok(files)
}

fn read_folder(folder: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) -> Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            read_folder(&path, files)?;
        } else {
            let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
            files.insert(path, bytes);
        }
    }
    Ok(())
}

fn differing(before: &BTreeMap<PathBuf, Vec<u8>>, after: &BTreeMap<PathBuf, Vec<u8>>) -> Vec<String> {
    let mut paths: Vec<&PathBuf> = before.keys().chain(after.keys()).collect();
    paths.sort();
    paths.dedup();
    paths.retain(|path| before.get(*path) != after.get(*path));
    paths.iter().map(|path| path.display().to_string()).collect()
}
