//! Every operation of the tables has a wire vector, which `dialect` decodes in its own tests: what is only ever sent by
//! this generator would be held to nobody's client.

use serde_json::Value;

use crate::table::{Table, testdata};

/// What Azure has no API for, and no client of others asks.
const OWN: &str = "/muster/v1/";

/// Each table, and the file of requests that clients send to that API.
const TABLES: &[(&str, &str)] = &[
    ("provisioning-service", "provisioning/service-requests.json"),
    ("provisioning-device", "provisioning/device-requests.json"),
    ("hub-registry", "hub/service-requests.json"),
    ("hub-twin", "hub/service-requests.json"),
    ("hub-query", "hub/service-requests.json"),
    ("hub-configurations", "hub/service-requests.json"),
    ("hub-jobs", "hub/service-requests.json"),
    ("hub-messages", "hub/service-requests.json"),
    ("hub-device", "hub/device-requests.json"),
    ("management", "management/requests.json"),
];

#[test]
fn every_operation_has_a_wire_vector() {
    let mut missing = Vec::new();
    for (table, file) in TABLES {
        let vectors = vectors(file);
        let operations = Table::read(table).operations.into_iter();
        for operation in operations.filter(|operation| !operation.path.starts_with(OWN)) {
            let pattern: Vec<_> = operation.path.split('/').collect();
            let is_shown = |(method, path): &(String, String)| {
                *method == operation.method && fits(&pattern, &path.split('/').collect::<Vec<_>>())
            };
            if !vectors.iter().any(is_shown) {
                missing.push(format!("{table}: {}", operation.name));
            }
        }
    }
    assert!(missing.is_empty(), "no client's request in testdata/wire:\n{}", missing.join("\n"));
}

/// Method and path of each vector.
fn vectors(file: &str) -> Vec<(String, String)> {
    let vectors: Vec<Value> =
        serde_json::from_slice(&std::fs::read(testdata().join("wire").join(file)).unwrap()).unwrap();
    let split = |vector: &Value| {
        let (method, target) = match vector["request"].as_str() {
            Some(request) => request.split_once(' ').unwrap(),
            None => (vector["method"].as_str().unwrap(), vector["target"].as_str().unwrap()),
        };
        (method.to_owned(), target.split('?').next().unwrap().to_owned())
    };
    vectors.iter().map(split).collect()
}

/// Whether a path is of a pattern; literal steps are the same in any case.
fn fits(pattern: &[&str], path: &[&str]) -> bool {
    pattern.len() == path.len()
        && pattern.iter().zip(path).all(|(known, found)| known.starts_with('{') || known.eq_ignore_ascii_case(found))
}
