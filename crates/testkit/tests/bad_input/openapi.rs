//! The tables against the published OpenAPI files: what these name and no table sends is on a list, with the reason.
//!
//! `testdata/openapi-facts.py` takes the names out of the files; the list is `testdata/openapi-excluded.json`. Start at
//! [`every_name_of_the_openapi_files_is_in_a_table_or_on_the_list`].

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;
use testkit::raw_http::RawRequest;

use crate::ground::Ground;
use crate::table::{Api, Operation, Table, testdata};

/// Names by place of the request, by operation.
type Operations = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// The APIs that OpenAPI files are published of, and the tables of each.
const APIS: &[(&str, Api, &[&str])] = &[
    ("provisioning-service", Api::ProvisioningService, &["provisioning-service"]),
    (
        "hub",
        Api::Hub,
        &[
            "hub-registry",
            "hub-twin",
            "hub-method",
            "hub-digital-twin",
            "hub-query",
            "hub-jobs",
            "hub-configurations",
            "hub-messages",
        ],
    ),
];

/// What no table sends.
#[derive(Debug, Deserialize)]
struct Exclusion {
    api: String,
    /// All operations, if none is named.
    #[serde(default)]
    operations: Vec<String>,
    /// Whole steps of a name; without it the operations themselves are excluded.
    part: Option<String>,
    /// What an excluded operation answers.
    #[serde(default = "not_found")]
    answers: u16,
    reason: String,
}

const fn not_found() -> u16 {
    404
}

impl Exclusion {
    fn excludes(&self, api: &str, operation: &str, name: Option<&str>) -> bool {
        let is_named = match (&self.part, name) {
            (None, None) => true,
            (Some(part), Some(name)) => format!(".{name}.").contains(&format!(".{part}.")),
            _ => false,
        };
        is_named
            && self.api == api
            && (self.operations.is_empty() || self.operations.iter().any(|found| found == operation))
    }
}

#[test]
fn every_name_of_the_openapi_files_is_in_a_table_or_on_the_list() {
    let facts: BTreeMap<String, Operations> = read("openapi-facts.json");
    let exclusions: Vec<Exclusion> = read("openapi-excluded.json");
    let (mut missing, mut used) = (Vec::new(), BTreeSet::new());
    for (api, _, tables) in APIS {
        let known = sent_by(tables);
        for (operation, places) in &facts[*api] {
            let unsent: Vec<(String, Option<&str>)> = match known.get(operation) {
                None => vec![(format!("{api}: {operation}"), None)],
                Some(sent) => {
                    let names = places.iter().flat_map(|(place, names)| names.iter().map(move |name| (place, name)));
                    let unsent = names.filter(|(place, name)| !sent[*place].contains(&spelling(place, name)));
                    unsent.map(|(place, name)| (format!("{api}: {operation}: {place} {name}"), Some(&**name))).collect()
                }
            };
            for (shown, name) in unsent {
                match exclusions.iter().position(|exclusion| exclusion.excludes(api, operation, name)) {
                    Some(found) => drop(used.insert(found)),
                    None => missing.push(shown),
                }
            }
        }
    }
    assert!(missing.is_empty(), "neither in a table nor excluded:\n{}", missing.join("\n"));
    for (at, exclusion) in exclusions.iter().enumerate() {
        assert!(!exclusion.reason.is_empty(), "without a reason: {exclusion:?}");
        assert!(used.contains(&at), "excludes nothing: {exclusion:?}");
    }
}

#[tokio::test]
async fn an_operation_on_the_list_is_refused_as_the_list_says() {
    let mut ground = Ground::start().await;
    let exclusions: Vec<Exclusion> = read("openapi-excluded.json");
    for exclusion in exclusions.iter().filter(|exclusion| exclusion.part.is_none()) {
        let (_, api, _) = APIS.iter().find(|(name, ..)| *name == exclusion.api).unwrap();
        for operation in &exclusion.operations {
            let (method, path) = operation.split_once(' ').unwrap();
            let request = RawRequest {
                method: method.to_owned(),
                target: format!("{}?api-version=2021-04-12", path.replace("{}", "x")),
                headers: ground.headers(*api, &ground.tokens(*api).good),
                body: b"{}".to_vec(),
            };
            let answer = ground.send(*api, &request).await.unwrap();
            assert_eq!(answer.status, exclusion.answers, "{operation}: {}", answer.text());
        }
    }
    ground.stop().await;
}

/// The operations of an API's file that are not excluded as a whole.
pub fn served(api: &str) -> BTreeSet<String> {
    let mut facts: BTreeMap<String, Operations> = read("openapi-facts.json");
    let exclusions: Vec<Exclusion> = read("openapi-excluded.json");
    let is_served = |operation: &String| !exclusions.iter().any(|exclusion| exclusion.excludes(api, operation, None));
    facts.remove(api).unwrap().into_keys().filter(is_served).collect()
}

/// The method and the path of an operation, as the files of names have them.
pub fn fact_name(operation: &Operation) -> String {
    let path: Vec<_> = operation.path.split('/').map(|step| if step.starts_with('{') { "{}" } else { step }).collect();
    format!("{} {}", operation.method, path.join("/"))
}

fn read<T: serde::de::DeserializeOwned>(name: &str) -> T {
    serde_json::from_slice(&std::fs::read(testdata().join(name)).unwrap()).unwrap()
}

/// What the tables send.
fn sent_by(tables: &[&str]) -> Operations {
    let mut sent = Operations::new();
    for operation in tables.iter().flat_map(|table| Table::read(table).operations) {
        let places = sent.entry(fact_name(&operation)).or_default();
        let mut add = |place: &str, names: Vec<String>| {
            places.entry(place.to_owned()).or_default().extend(names.iter().map(|name| spelling(place, name)));
        };
        add("query", operation.query.keys().cloned().collect());
        add("header", operation.headers.keys().cloned().collect());
        add("body", operation.body.as_ref().map(members).unwrap_or_default());
    }
    sent
}

/// Header names are the same in any case.
fn spelling(place: &str, name: &str) -> String {
    if place == "header" { name.to_ascii_lowercase() } else { name.to_owned() }
}

/// The dotted names of everything in a body; `*` for an item, or for a name that may be any.
fn members(value: &Value) -> Vec<String> {
    let below = |step: &str, value| members(value).into_iter().map(move |name| format!("{step}.{name}")).collect();
    match value {
        Value::Object(found) => {
            let names = found.iter().flat_map(|(name, value)| {
                let deeper: [Vec<String>; 2] = [below(name, value), below("*", value)];
                deeper.into_iter().flatten().chain([name.clone()])
            });
            names.collect()
        }
        Value::Array(items) => items.iter().flat_map(|item| -> Vec<String> { below("*", item) }).collect(),
        _ => Vec::new(),
    }
}
