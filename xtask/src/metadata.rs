//! What `cargo metadata` says, as far as the checks need it.

use std::collections::BTreeSet;

use anyhow::{Context, Result, anyhow};
use serde_json::Value;

use crate::process;

/// One package as cargo sees it.
pub struct Package {
    pub name: String,
    pub version: String,
    /// The licence expression of the manifest.
    pub licence: Option<String>,
    /// Where it was fetched from; nothing for a package of this workspace.
    pub source: Option<String>,
    pub dependencies: Vec<Dependency>,
}

/// A direct dependency of a package.
pub struct Dependency {
    pub name: String,
    /// Whether only its tests use it.
    pub dev: bool,
}

/// The packages of this workspace.
pub fn workspace() -> Result<Vec<Package>> {
    packages(&["--no-deps"])
}

/// Every package that is compiled for one of `targets`. The lock file names more: what a feature nobody turns on would
/// bring.
pub fn everything(targets: &[String]) -> Result<Vec<Package>> {
    let filters: Vec<&str> = targets.iter().flat_map(|target| ["--filter-platform", target.as_str()]).collect();
    let mut compiled = BTreeSet::new();
    for target in targets {
        let mut tree = process::command("cargo")?;
        tree.args(["tree", "--workspace", "--locked", "--prefix", "none", "--format", "{p}", "--target", target]);
        for line in process::read(&mut tree)?.lines() {
            let mut words = line.split_whitespace();
            if let (Some(name), Some(version)) = (words.next(), words.next()) {
                compiled.insert((name.to_owned(), version.trim_start_matches('v').to_owned()));
            }
        }
    }
    let mut packages = packages(&filters)?;
    packages.retain(|package| compiled.contains(&(package.name.clone(), package.version.clone())));
    Ok(packages)
}

/// The folder that cargo builds in.
pub fn target_folder() -> Result<std::path::PathBuf> {
    let metadata = metadata(&["--no-deps"])?;
    let folder = metadata.get("target_directory").and_then(Value::as_str).context("metadata without target folder")?;
    Ok(folder.into())
}

fn metadata(arguments: &[&str]) -> Result<Value> {
    let mut command = process::command("cargo")?;
    command.args(["metadata", "--format-version", "1", "--locked"]).args(arguments);
    serde_json::from_str(&process::read(&mut command)?).context("cargo metadata is not JSON")
}

fn packages(arguments: &[&str]) -> Result<Vec<Package>> {
    let metadata = metadata(arguments)?;
    let packages = metadata.get("packages").and_then(Value::as_array).context("metadata without packages")?;
    packages.iter().map(package).collect()
}

fn package(value: &Value) -> Result<Package> {
    let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let dependencies = value.get("dependencies").and_then(Value::as_array).context("package without dependencies")?;
    Ok(Package {
        name: text("name").ok_or_else(|| anyhow!("package without a name"))?,
        version: text("version").unwrap_or_default(),
        licence: text("license"),
        source: text("source"),
        dependencies: dependencies
            .iter()
            .filter_map(|dependency| {
                Some(Dependency {
                    name: dependency.get("name")?.as_str()?.to_owned(),
                    dev: dependency.get("kind").and_then(Value::as_str) == Some("dev"),
                })
            })
            .collect(),
    })
}
