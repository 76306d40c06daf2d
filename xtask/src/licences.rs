//! Licences, bans and sources of everything that the lock file brings in, by the lists of `deny.toml`.
//!
//! `cargo deny` reads the same file and is used as well where it is installed; this check needs nothing but cargo.
//! Advisories are not checked: their database is not part of the repository.

use std::fs;

use anyhow::{Context, Result, bail};

use crate::metadata::{self, Package};
use crate::process;

/// What `deny.toml` allows and bans.
struct Policy {
    targets: Vec<String>,
    licences: Vec<String>,
    banned: Vec<String>,
}

/// Checks every package, and repeats it with `cargo deny` where that is installed.
pub fn check() -> Result<Vec<String>> {
    let policy = Policy::read()?;
    let packages = metadata::everything(&policy.targets)?;
    let problems = policy.violations(&packages);
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    let mut closing = vec![format!("{} packages: licences, bans and sources ok", packages.len())];
    if process::exists("cargo-deny") {
        let mut deny = process::command("cargo")?;
        process::show(deny.args(["deny", "--offline", "check", "licenses", "bans", "sources"]))?;
        closing.push("cargo deny agrees".to_owned());
    }
    closing.push("advisories: not checked (their database is out of reach)".to_owned());
    Ok(closing)
}

impl Policy {
    fn read() -> Result<Self> {
        let text = fs::read_to_string(process::root()?.join("deny.toml")).context("deny.toml")?;
        let table: toml::Table = text.parse().context("deny.toml")?;
        let list = |section: &str, key: &str| -> Vec<String> {
            let entries = table.get(section).and_then(|section| section.get(key)).and_then(toml::Value::as_array);
            let name = |entry: &toml::Value| {
                let entry = entry.get("crate").or_else(|| entry.get("triple")).unwrap_or(entry);
                entry.as_str().map(str::to_owned)
            };
            entries.into_iter().flatten().filter_map(name).collect()
        };
        Ok(Self {
            targets: list("graph", "targets"),
            licences: list("licenses", "allow"),
            banned: list("bans", "deny"),
        })
    }

    fn violations(&self, packages: &[Package]) -> Vec<String> {
        let mut problems = Vec::new();
        for package in packages {
            let who = format!("{} {}", package.name, package.version);
            match &package.licence {
                None => problems.push(format!("{who}: no licence expression in its manifest")),
                Some(licence) if !self.permits(licence) => problems.push(format!("{who}: {licence} is not allowed")),
                Some(_) => {}
            }
            if self.banned.contains(&package.name) {
                problems.push(format!("{who}: banned"));
            }
            let source = package.source.as_deref();
            // Our own crates have no source; everything else comes from cargo's registry, nothing from a repository.
            let known = source.is_none_or(|source| source.starts_with("registry+"));
            if !known {
                problems.push(format!("{who}: comes from {}", source.unwrap_or_default()));
            }
        }
        problems
    }

    /// Whether an SPDX expression can be met with allowed licences. A slash is the old spelling of `OR`.
    fn permits(&self, expression: &str) -> bool {
        let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
        let words: Vec<&str> = spaced.split_whitespace().collect();
        let mut parser = Expression { words: &words, policy: self };
        let permitted = parser.any();
        permitted && parser.words.is_empty()
    }
}

/// A recursive reader of SPDX expressions (SPDX 2.3, annex D); `AND` binds closer than `OR`.
struct Expression<'a> {
    words: &'a [&'a str],
    policy: &'a Policy,
}

impl Expression<'_> {
    fn any(&mut self) -> bool {
        let mut permitted = self.all();
        while self.take("OR") {
            permitted |= self.all();
        }
        permitted
    }

    fn all(&mut self) -> bool {
        let mut permitted = self.one();
        while self.take("AND") {
            permitted &= self.one();
        }
        permitted
    }

    fn one(&mut self) -> bool {
        if self.take("(") {
            let permitted = self.any();
            return self.take(")") && permitted;
        }
        let Some((licence, rest)) = self.words.split_first() else { return false };
        self.words = rest;
        let mut name = (*licence).to_owned();
        if self.take("WITH") {
            let Some((exception, rest)) = self.words.split_first() else { return false };
            self.words = rest;
            name = format!("{name} WITH {exception}");
        }
        self.policy.licences.contains(&name)
    }

    fn take(&mut self, word: &str) -> bool {
        match self.words.split_first() {
            Some((first, rest)) if *first == word => {
                self.words = rest;
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Policy {
        Policy {
            targets: Vec::new(),
            licences: ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned).to_vec(),
            banned: vec!["ring".to_owned()],
        }
    }

    #[test]
    fn an_expression_is_met_by_allowed_licences_only() {
        let cases = [
            ("MIT", true),
            ("GPL-3.0", false),
            ("MIT OR GPL-3.0", true),
            ("MIT/GPL-3.0", true),
            ("MIT AND GPL-3.0", false),
            ("GPL-3.0 OR MIT AND Apache-2.0", true),
            ("(GPL-3.0 OR MIT) AND Apache-2.0", true),
            ("(GPL-3.0 OR MIT) AND Zlib", false),
            ("Apache-2.0 WITH LLVM-exception", true),
            ("MIT WITH LLVM-exception", false),
            ("MIT OR", true),
            ("(MIT", false),
            ("MIT)", false),
            ("", false),
        ];
        for (expression, expected) in cases {
            // A trailing operator leaves an empty operand, which permits nothing and harms nothing.
            assert_eq!(policy().permits(expression), expected, "{expression:?}");
        }
    }

    #[test]
    fn a_package_is_refused_for_its_licence_its_name_or_its_source() {
        let package = |name: &str, licence: Option<&str>, source: Option<&str>| Package {
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            licence: licence.map(str::to_owned),
            source: source.map(str::to_owned),
            dependencies: Vec::new(),
        };
        let index = Some("registry+https://index.example");
        let cases = [
            ("fine", package("serde", Some("MIT"), index), None),
            ("ours", package("muster", Some("Apache-2.0"), None), None),
            ("unlicensed", package("serde", None, index), Some("no licence expression")),
            ("copyleft", package("serde", Some("GPL-3.0"), index), Some("GPL-3.0 is not allowed")),
            ("banned", package("ring", Some("MIT"), index), Some("banned")),
            ("from git", package("serde", Some("MIT"), Some("git+https://x")), Some("comes from git+https://x")),
        ];
        for (name, package, expected) in cases {
            let problems = policy().violations(&[package]).join("\n");
            match expected {
                None => assert_eq!(problems, "", "{name}"),
                Some(text) => assert!(problems.contains(text), "{name}: {problems}"),
            }
        }
    }
}
