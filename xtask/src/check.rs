//! Small checks over the files of the repository: lengths, and which files there are.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::process;

/// The longest a source file may be, tests included.
const LINES_MAX: usize = 800;

/// Folders whose source files are held to [`LINES_MAX`].
const SOURCE_FOLDERS: &[&str] = &["crates", "xtask/src", "fuzz/fuzz_targets", "fuzz/src", "tests/sdk"];

/// Endings of source files.
const SOURCE_ENDINGS: &[&str] = &["rs", "py", "js", "mjs", "sql"];

/// Folders that hold what was built or fetched.
const SKIPPED_FOLDERS: &[&str] = &["target", "node_modules", "__pycache__", ".venv"];

/// Fails for every source file that is too long to be read in one sitting.
pub fn file_lengths() -> Result<Vec<String>> {
    let root = process::root()?;
    let mut files = Vec::new();
    for folder in SOURCE_FOLDERS {
        collect(&root.join(folder), SOURCE_ENDINGS, &mut files)?;
    }
    let mut too_long = Vec::new();
    for file in &files {
        let lines = fs::read_to_string(file).with_context(|| file.display().to_string())?.lines().count();
        if lines > LINES_MAX {
            let name = file.strip_prefix(&root).unwrap_or(file).display();
            too_long.push(format!("{name} has {lines} lines; the limit is {LINES_MAX}"));
        }
    }
    if !too_long.is_empty() {
        bail!("{}", too_long.join("\n"));
    }
    Ok(vec![format!("{} source files, none over {LINES_MAX} lines", files.len())])
}

/// Every Rust file below `folder`; none if there is no such folder.
pub fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    collect(folder, &["rs"], &mut files)?;
    Ok(files)
}

fn collect(folder: &Path, endings: &[&str], files: &mut Vec<PathBuf>) -> Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    let mut entries: Vec<PathBuf> = fs::read_dir(folder)
        .with_context(|| folder.display().to_string())?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    entries.sort();
    for entry in entries {
        let name = entry.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if entry.is_dir() && !SKIPPED_FOLDERS.contains(&name) {
            collect(&entry, endings, files)?;
        } else if entry.extension().and_then(|ending| ending.to_str()).is_some_and(|ending| endings.contains(&ending)) {
            files.push(entry);
        }
    }
    Ok(())
}
