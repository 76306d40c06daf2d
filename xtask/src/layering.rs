//! Who may import whom: the crates of this workspace among each other, and outside crates by their owners.
//!
//! The tables are the rule (`docs/ARCHITECTURE.md`); the code below only compares. Test code may import more than the
//! product does: dev-dependencies are held to the first table's tests column alone.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::metadata::{self, Package};
use crate::process;

/// A crate of ours, and the crates of ours it may import, in the product and in its tests.
struct Room {
    name: &'static str,
    product: &'static [&'static str],
    tests: &'static [&'static str],
}

const ROOMS: &[Room] = &[
    Room { name: "muster-domain", product: &[], tests: &[] },
    Room { name: "muster-proto", product: &[], tests: &[] },
    Room { name: "muster-dialect", product: &["muster-domain", "muster-proto"], tests: &[] },
    Room { name: "muster-store", product: &["muster-domain"], tests: &[] },
    Room { name: "muster-service", product: &["muster-domain", "muster-store"], tests: &["muster-testkit"] },
    Room {
        name: "muster-client",
        product: &["muster-dialect", "muster-domain", "muster-proto"],
        tests: &["muster-testkit"],
    },
    Room {
        name: "muster-server",
        product: &["muster-client", "muster-dialect", "muster-domain", "muster-proto", "muster-service"],
        tests: &["muster-store", "muster-testkit"],
    },
    Room {
        name: "muster-testkit",
        product: &[
            "muster-client",
            "muster-dialect",
            "muster-domain",
            "muster-proto",
            "muster-server",
            "muster-service",
            "muster-store",
        ],
        tests: &[],
    },
    Room {
        name: "muster",
        product: &[
            "muster-client",
            "muster-dialect",
            "muster-domain",
            "muster-proto",
            "muster-server",
            "muster-service",
            "muster-store",
        ],
        tests: &["muster-testkit"],
    },
    Room { name: "xtask", product: &[], tests: &[] },
];

/// An outside crate that belongs to some rooms only.
struct Owned {
    name: &'static str,
    owners: &'static [&'static str],
    reason: &'static str,
}

const OWNED: &[Owned] = &[
    Owned { name: "rusqlite", owners: &["muster-store"], reason: "SQL stays behind the store's ports" },
    Owned { name: "tokio-postgres", owners: &["muster-store"], reason: "SQL stays behind the store's ports" },
    Owned { name: "deadpool-postgres", owners: &["muster-store"], reason: "SQL stays behind the store's ports" },
    Owned { name: "async-nats", owners: &["muster-store"], reason: "streams stay behind the store's ports" },
    Owned { name: "hyper", owners: HTTP, reason: "only the two ends of a socket speak HTTP" },
    Owned { name: "hyper-util", owners: HTTP, reason: "only the two ends of a socket speak HTTP" },
    Owned { name: "tokio-tungstenite", owners: HTTP, reason: "only the two ends of a socket speak WebSocket" },
    Owned { name: "socket2", owners: &["muster-server"], reason: "only the server listens" },
    Owned { name: "ppp", owners: &["muster-server"], reason: "only the server listens behind balancers" },
    // The command line measures the bare handshake (`bench handshake`) and plays foreign clients; the test kit plays
    // scripted ones. Neither may go through the code that it measures or tests.
    Owned { name: "rustls", owners: TLS, reason: "only the two ends of a socket speak TLS" },
    Owned { name: "tokio-rustls", owners: TLS, reason: "only the two ends of a socket speak TLS" },
    Owned {
        name: "rcgen",
        owners: &["muster-server", "muster", "muster-testkit"],
        reason: "certificates are issued for the server's own names, by `muster ca`, and in tests",
    },
    Owned { name: "tokio", owners: ASYNC, reason: "domain, proto and dialect are sans-IO" },
    Owned { name: "async-trait", owners: ASYNC, reason: "domain, proto and dialect are sans-IO" },
    Owned { name: "tracing", owners: ASYNC, reason: "domain, proto and dialect return what there is to say" },
    Owned { name: "tracing-subscriber", owners: &["muster"], reason: "the binary decides where logs go" },
    Owned { name: "clap", owners: &["muster"], reason: "arguments are the binary's business" },
    Owned { name: "comfy-table", owners: &["muster"], reason: "tables are the binary's business" },
    Owned {
        name: "toml",
        owners: &["muster", "xtask"],
        reason: "configuration is read by the binary, and checked out",
    },
    Owned { name: "anyhow", owners: &["muster", "xtask"], reason: "libraries have error types that callers can match" },
];

const HTTP: &[&str] = &["muster-server", "muster-client"];
const TLS: &[&str] = &["muster-server", "muster-client", "muster", "muster-testkit"];
const ASYNC: &[&str] =
    &["muster-store", "muster-service", "muster-server", "muster-client", "muster-testkit", "muster"];

/// Words that must not stand in the product code of a room: what cargo's manifest cannot say.
struct Absent {
    folder: &'static str,
    word: &'static str,
    reason: &'static str,
}

const ABSENT: &[Absent] = &[
    Absent { folder: "crates/domain/src", word: ".await", reason: "domain is plain code" },
    Absent { folder: "crates/proto/src", word: ".await", reason: "proto is sans-IO" },
    Absent { folder: "crates/dialect/src", word: ".await", reason: "nothing under dialect awaits" },
    Absent { folder: "crates/domain/src", word: "Instant::now(", reason: "time is an argument" },
    Absent { folder: "crates/proto/src", word: "Instant::now(", reason: "time is an argument" },
    Absent { folder: "crates/dialect/src", word: "Instant::now(", reason: "time is an argument" },
    Absent { folder: "crates/domain/src", word: "std::net::Tcp", reason: "no socket below server and client" },
    Absent { folder: "crates/service/src", word: "store::sqlite", reason: "service knows ports, never a backend" },
    Absent { folder: "crates/server/src", word: "store::sqlite", reason: "only cli names a backend" },
];

/// Checks both tables and the list of outside crates in `docs/dependencies.md`, and prints what was compared.
pub fn run() -> Result<()> {
    for line in check()? {
        println!("{line}");
    }
    Ok(())
}

/// As [`run`], for the report.
pub fn check() -> Result<Vec<String>> {
    let packages = metadata::workspace()?;
    let documented = fs::read_to_string(process::root()?.join("docs/dependencies.md"))
        .context("docs/dependencies.md lists the outside crates")?;
    let mut problems = violations(&packages, &documented);
    problems.extend(forbidden_words(&process::root()?)?);
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    let edges: usize = packages.iter().map(|package| package.dependencies.len()).sum();
    Ok(vec![format!(
        "{} crates, {edges} direct dependencies, {} rules held",
        packages.len(),
        OWNED.len() + ABSENT.len()
    )])
}

fn violations(packages: &[Package], documented: &str) -> Vec<String> {
    let ours = |name: &str| packages.iter().any(|package| package.name == name);
    let mut problems = Vec::new();
    for package in packages {
        let Some(room) = ROOMS.iter().find(|room| room.name == package.name) else {
            problems.push(format!("{} has no row in xtask/src/layering.rs", package.name));
            continue;
        };
        for dependency in &package.dependencies {
            let name = dependency.name.as_str();
            // A crate's own tests may turn on one of its features.
            if name == room.name {
                continue;
            }
            if ours(name) {
                let allowed = room.product.contains(&name) || (dependency.dev && room.tests.contains(&name));
                if !allowed {
                    problems.push(format!("{} must not import {name}", room.name));
                }
                continue;
            }
            let owned = OWNED.iter().find(|owned| owned.name == name);
            if let Some(owned) = owned.filter(|owned| !dependency.dev && !owned.owners.contains(&room.name)) {
                problems.push(format!("{} must not import {name}: {}", room.name, owned.reason));
            }
            if !documented.contains(&format!("`{name}`")) {
                problems.push(format!("{name}, imported by {}, has no row in docs/dependencies.md", room.name));
            }
        }
    }
    problems
}

fn forbidden_words(root: &Path) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for absent in ABSENT {
        for file in crate::check::rust_files(&root.join(absent.folder))? {
            let name = file.strip_prefix(root).unwrap_or(&file).display().to_string();
            if ["tests.rs", "script.rs"].iter().any(|end| name.ends_with(end)) || name.contains("/tests/") {
                continue;
            }
            let text = fs::read_to_string(&file).with_context(|| name.clone())?;
            let product = text.split("#[cfg(test)]").next().unwrap_or_default();
            for (index, line) in product.lines().enumerate() {
                let code = line.split("//").next().unwrap_or_default();
                if code.contains(absent.word) {
                    problems.push(format!("{name}:{}: {:?}: {}", index + 1, absent.word, absent.reason));
                }
            }
        }
    }
    Ok(problems)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::Dependency;

    fn package(name: &str, dependencies: &[(&str, bool)]) -> Package {
        Package {
            name: name.to_owned(),
            version: "0.1.0".to_owned(),
            licence: None,
            source: None,
            dependencies: dependencies.iter().map(|&(name, dev)| Dependency { name: name.to_owned(), dev }).collect(),
        }
    }

    #[test]
    fn a_wrong_import_is_named_with_its_rule() {
        const PRODUCT: bool = false;
        const TESTS: bool = true;
        type Case<'a> = (&'a str, &'a str, (&'a str, bool), Option<&'a str>);
        let cases: &[Case<'_>] = &[
            ("downwards", "muster-dialect", ("muster-proto", PRODUCT), None),
            ("upwards", "muster-domain", ("muster-store", PRODUCT), Some("must not import muster-store")),
            ("across", "muster-client", ("muster-store", PRODUCT), Some("must not import muster-store")),
            ("in tests only", "muster-server", ("muster-store", TESTS), None),
            ("in the product", "muster-server", ("muster-store", PRODUCT), Some("must not import muster-store")),
            ("owned, by its owner", "muster-store", ("rusqlite", PRODUCT), None),
            ("owned, by another", "muster-service", ("rusqlite", PRODUCT), Some("behind the store's ports")),
            ("owned, in tests", "muster-service", ("rusqlite", TESTS), None),
            ("not documented", "muster-service", ("left-pad", PRODUCT), Some("no row in docs/dependencies.md")),
            ("not in the table", "muster-attic", ("rusqlite", PRODUCT), Some("has no row in xtask")),
        ];
        for (name, importer, dependency, expected) in cases {
            let packages =
                [package(importer, &[*dependency]), package("muster-store", &[]), package("muster-proto", &[])];
            let problems = violations(&packages, "| `rusqlite` | `tokio` |").join("\n");
            match expected {
                None => assert_eq!(problems, "", "{name}"),
                Some(text) => assert!(problems.contains(text), "{name}: {problems}"),
            }
        }
    }
}
