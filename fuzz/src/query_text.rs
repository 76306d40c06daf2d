//! Texts of any kind as queries: what is understood is bounded, means the same when it is written out and read again, and
//! can be asked of any document.

use domain::query::{self, DEPTH_MAX, Fault, Groups, Plan, Select, TERMS_MAX};
use serde_json::{Map, Value};

/// Documents that a query is asked of, of the shapes that twins have and of some that they have not.
const DOCUMENTS: [&str; 4] = [
    r#"{"deviceId":"dev","status":"enabled","lastActivityTime":"2026-11-21T10:00:00.0000000Z","capabilities":{"iotEdge":true},"tags":{"a":1,"b":"x","c":{"d":[true,null]},"e":-0.5},"properties":{"desired":{"a":2,"$version":3},"reported":{"a":1e300,"b":"é"}}}"#,
    r#"{"deviceId":"","moduleId":"m","tags":{"a":9007199254740993,"b":null},"properties":{"desired":{},"reported":null}}"#,
    r#"{"tags":[],"properties":7,"a":true,"b":"2026-11-21","etag":"AAAAAAAAAAE="}"#,
    "{}",
];

/// Reads `input` as a query.
///
/// # Panics
/// When a promise of [`query::parse`] is broken.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    check_condition(text);
    let plan = match query::parse(text) {
        Ok(plan) => plan,
        Err(invalid) => {
            assert!(invalid.at >= 1 && invalid.at <= text.chars().count() + 1, "{invalid}");
            assert!(invalid.to_string().len() < 512, "{invalid}");
            return;
        }
    };
    let mut paths = 0;
    plan.visit_paths(&mut |_| paths += 1);
    assert!(paths <= TERMS_MAX);
    check_written(&plan);
    ask(&plan);
}

/// The same text as a condition on messages, asked of documents that no message has.
fn check_condition(text: &str) {
    match query::parse_condition(text) {
        Ok(condition) => {
            for document in DOCUMENTS {
                condition.truth(&serde_json::from_str(document).expect("they are documents"));
            }
        }
        Err(invalid) => assert!(invalid.to_string().len() < 512, "{invalid}"),
    }
}

fn check_written(plan: &Plan) {
    let written = plan.to_string();
    match query::parse(&written) {
        Ok(again) => assert_eq!(&again, plan, "{written}"),
        // Brackets and escapes that were left out count when they are written.
        Err(invalid) => {
            let is_bound = matches!(invalid.fault, Fault::TooDeep | Fault::TooLong | Fault::TooManyTerms);
            assert!(is_bound, "{written}: {invalid}; at most {DEPTH_MAX} deep");
        }
    }
}

fn ask(plan: &Plan) {
    let documents: Vec<Map<String, Value>> =
        DOCUMENTS.iter().map(|text| serde_json::from_str(text).expect("they are documents")).collect();
    match &plan.select {
        Select::Whole => {
            for document in &documents {
                plan.matches(document);
            }
        }
        Select::Columns(columns) => {
            for document in documents.iter().filter(|document| plan.matches(document)) {
                assert!(Plan::project(columns, document).len() <= columns.len());
            }
        }
        Select::Groups { keys, columns } => {
            let mut groups = Groups::new(keys, columns);
            for document in documents.iter().filter(|document| plan.matches(document)) {
                groups.observe(document).expect("there are few documents");
            }
            assert!(groups.rows(None, 10).0.len() <= documents.len());
        }
    }
}
