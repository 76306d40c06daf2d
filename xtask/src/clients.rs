//! `docs/clients.md`: which unmodified client does what against Muster, written from the last run of the SDK suites.
//!
//! Says nothing that no test of that run showed, and nothing that changes from run to run. Start at [`text`].

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::fs;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{process, sdk};

const FILE: &str = "docs/clients.md";

/// Where each suite lists the methods that it leaves out, with the reasons.
const LISTS: &[&str] = &["tests/sdk/node/not-covered.json", "tests/sdk/python/not-covered.json"];

const HEAD: &str = "\
# Clients

What unmodified clients from PyPI, npm and Maven Central were seen to do against Muster. `cargo xtask golden` writes this
file from the results of the last `cargo xtask test` (`target/sdk-results.json`); every row is a test that passed.

| client | transport | credential | feature |
|---|---|---|---|
";

const METHODS: &str = "
# Methods

Every public method that these packages export, as found by looking into the installed package: covered if a test called
it, saw it succeed and passed, and then with the one that uses most of the package; or not, with the reason. The suites
fail if a method is in neither table, or in both.
";

/// One package's methods.
#[derive(Debug, Default, PartialEq, Eq)]
struct Methods {
    /// As installed, if a test of the run named it.
    version: Option<String>,
    /// Each with the test that shows it.
    covered: BTreeMap<String, Witness>,
    /// Each with the reason.
    left_out: BTreeMap<String, String>,
}

/// A test that used a method. The least witness uses most of the package: unlike a test of a single refusal, it shows
/// what the method is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Witness {
    methods: Reverse<usize>,
    test: String,
}

/// Writes the file from the last run; does nothing if there was none.
pub fn write() -> Result<Vec<String>> {
    let Some(text) = text_of_run()? else { return Ok(vec![format!("{FILE}: no SDK results, left as it is")]) };
    fs::write(process::root()?.join(FILE), text).context(FILE)?;
    Ok(vec![format!("{FILE} written")])
}

/// The file's name and the lines that differ, if the last run would write it otherwise.
pub fn stale() -> Result<Vec<String>> {
    let Some(text) = text_of_run()? else { return Ok(Vec::new()) };
    let present = fs::read_to_string(process::root()?.join(FILE)).unwrap_or_default();
    Ok(if present == text { Vec::new() } else { vec![difference(&present, &text)] })
}

/// The lines that only one of the two has, those of the run first.
fn difference(present: &str, run: &str) -> String {
    let only = |of: &str, other: &str, sign: char| -> Vec<String> {
        let others: BTreeSet<&str> = other.lines().collect();
        of.lines().filter(|line| !others.contains(line)).map(|line| format!("  {sign} {line}")).collect()
    };
    let mut told = vec![FILE.to_owned()];
    told.extend(only(run, present, '+'));
    told.extend(only(present, run, '-'));
    told.join("\n")
}

fn text_of_run() -> Result<Option<String>> {
    let results = sdk::results_of_run()?;
    if results.is_empty() {
        return Ok(None);
    }
    let mut lists = Vec::new();
    for list in LISTS {
        let text = fs::read_to_string(process::root()?.join(list)).context(*list)?;
        lists.push(serde_json::from_str(&text).context(*list)?);
    }
    Ok(Some(text(&results, lists)?))
}

/// What one suite leaves out: packages, their methods and the reasons.
type List = BTreeMap<String, BTreeMap<String, String>>;

fn text(results: &[Value], lists: Vec<List>) -> Result<String, fmt::Error> {
    let mut text = HEAD.to_owned();
    for (client, rows) in sdk::cells(results) {
        for [transport, credential, feature] in rows {
            writeln!(text, "| {client} | {transport} | {credential} | {feature} |")?;
        }
    }
    text.push_str(METHODS);
    for (package, methods) in methods(results, lists) {
        write_methods(&mut text, &package, &methods)?;
    }
    Ok(text)
}

fn methods(results: &[Value], lists: Vec<List>) -> BTreeMap<String, Methods> {
    let mut packages: BTreeMap<String, Methods> = BTreeMap::new();
    for (package, left_out) in lists.into_iter().flatten() {
        packages.entry(package).or_default().left_out = left_out;
    }
    for result in results {
        for (package, used) in used(result) {
            let covered = &mut packages.entry(package.clone()).or_default().covered;
            let witness = Witness { methods: Reverse(used.len()), test: test_of(result) };
            for method in used {
                let least = covered.entry(method.to_owned()).or_insert_with(|| witness.clone());
                if witness < *least {
                    *least = witness.clone();
                }
            }
        }
        let member = |name: &str| result.get(name).and_then(Value::as_str);
        if let (Some(client), Some(version)) = (member("client"), member("version"))
            && let Some(methods) = packages.get_mut(client)
        {
            methods.version = methods.version.take().max(Some(version.to_owned()));
        }
    }
    packages
}

/// The methods that a test used, by package.
fn used(result: &Value) -> BTreeMap<&String, BTreeSet<&str>> {
    let Some(packages) = result.get("methods").and_then(Value::as_object) else { return BTreeMap::new() };
    let names = |methods| Value::as_array(methods).into_iter().flatten().filter_map(Value::as_str).collect();
    packages.iter().map(|(package, methods)| (package, names(methods))).collect()
}

/// A test's name, the same for all its parameters.
fn test_of(result: &Value) -> String {
    let name = result.get("test").and_then(Value::as_str).unwrap_or_default();
    match name.split_once('[') {
        Some((function, _)) if name.contains("::") => function.to_owned(),
        _ => name.to_owned(),
    }
}

fn write_methods(text: &mut String, package: &str, methods: &Methods) -> fmt::Result {
    let Methods { version, covered, left_out } = methods;
    let all = covered.len() + left_out.len();
    writeln!(text, "\n## {package} {}\n", version.as_deref().unwrap_or_default())?;
    writeln!(text, "{} of {all} methods are covered.", covered.len())?;
    if !covered.is_empty() {
        text.push_str("\n| covered | by |\n|---|---|\n");
    }
    for (method, witness) in covered {
        writeln!(text, "| `{method}` | {} |", witness.test.replace('|', "\\|"))?;
    }
    if !left_out.is_empty() {
        text.push_str("\n| not covered | why |\n|---|---|\n");
    }
    for (method, reason) in left_out {
        writeln!(text, "| `{method}` | {} |", reason.replace('|', "\\|"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn list(package: &str, method: &str, reason: &str) -> List {
        BTreeMap::from([(package.to_owned(), BTreeMap::from([(method.to_owned(), reason.to_owned())]))])
    }

    #[test]
    fn lines_that_only_one_side_has_are_told_with_their_side() {
        assert_eq!(difference("a\nb\n", "a\nc\n"), format!("{FILE}\n  + c\n  - b"));
    }

    /// What a suite keeps of a test that passed.
    fn result(test: &str, methods: Value) -> Value {
        let mut result = json!({ "test": test, "client": "pack", "version": "1.2", "transport": "mqtt" });
        result["methods"] = methods;
        result
    }

    #[test]
    fn a_method_stands_beside_the_test_that_uses_most_of_its_package() {
        let results = [
            result("a.py::test_all[mqtt]", json!({ "pack": ["Client.get", "Client.put"], "other": ["Other.get"] })),
            result("b.py::test_put[mqtt-ws]", json!({ "pack": ["Client.put", "Client.see"], "other": ["Other.get"] })),
            result("c.py::test_put", json!({ "pack": ["Client.put"] })),
            result("a sentence [as it stands]", json!({ "other": ["Other.list"] })),
            json!({ "test": "one that names no methods" }),
        ];
        let found = methods(&results, vec![list("pack", "Client.ask", "nobody answers"), list("third", "C.d", "why")]);
        let witnesses: Vec<_> = found
            .iter()
            .flat_map(|(package, methods)| {
                methods.covered.iter().map(move |(method, by)| (&**package, &**method, &*by.test))
            })
            .collect();
        let expected = [
            ("other", "Other.get", "a.py::test_all"),
            ("other", "Other.list", "a sentence [as it stands]"),
            ("pack", "Client.get", "a.py::test_all"),
            ("pack", "Client.put", "a.py::test_all"),
            ("pack", "Client.see", "b.py::test_put"),
        ];
        assert_eq!(witnesses, expected);
        assert_eq!(found["pack"].version.as_deref(), Some("1.2"));
        assert_eq!(found["third"].left_out["C.d"], "why");
    }

    #[test]
    fn the_order_of_results_changes_nothing() {
        let using = |test, method| result(test, json!({ "pack": [method] }));
        let mut results = vec![using("b", "C.get"), using("a", "C.get"), using("c", "C.put")];
        results.push(json!({ "test": "d", "client": "pack", "version": "1.1", "transport": "https" }));
        let lists = || vec![list("pack", "C.ask", "one | two")];
        let first = text(&results, lists()).unwrap();
        assert!(first.contains("|\n| pack 1.1 | https | - | - |\n| pack 1.2 | mqtt | - | - |\n\n# Methods"), "{first}");
        results.reverse();
        assert_eq!(text(&results, lists()).unwrap(), first);
        let expected = "
## pack 1.2

2 of 3 methods are covered.

| covered | by |
|---|---|
| `C.get` | a |
| `C.put` | c |

| not covered | why |
|---|---|
| `C.ask` | one \\| two |
";
        assert!(first.ends_with(expected), "{first}");
    }
}
