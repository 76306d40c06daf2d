//! Every operation over HTTP, with every part of its request wrong in every way that the generator knows.
//!
//! What each answers stands in `testdata/golden/bad-input/`. Whatever is sent, there is an answer in the API's own words,
//! no fault is ours, a refusal changes nothing, and the next good request is answered. Start at [`try_everything`].
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on fails")]

mod body;
mod ground;
mod mqtt;
mod openapi;
mod outcome;
mod request;
mod rights;
mod table;
mod token;
mod vectors;
mod websocket;

use std::fmt::Write as _;

use testkit::raw_http::RawRequest;

use crate::ground::{Ground, Scene};
use crate::request::{Case, Parts};
use crate::table::{Api, Operation, Table};

#[tokio::test]
async fn golden_bad_input_of_the_enrollment_api() {
    try_everything("provisioning-service").await;
}

#[tokio::test]
async fn golden_bad_input_of_the_device_api() {
    try_everything("provisioning-device").await;
}

#[tokio::test]
async fn golden_bad_input_of_the_registry() {
    try_everything("hub-registry").await;
}

#[tokio::test]
async fn golden_bad_input_of_twins() {
    try_everything("hub-twin").await;
}

#[tokio::test]
async fn golden_bad_input_of_methods() {
    try_everything("hub-method").await;
}

#[tokio::test]
async fn golden_bad_input_of_digital_twins() {
    try_everything("hub-digital-twin").await;
}

#[tokio::test]
async fn golden_bad_input_of_queries() {
    try_everything("hub-query").await;
}

#[tokio::test]
async fn golden_bad_input_of_configurations() {
    try_everything("hub-configurations").await;
}

#[tokio::test]
async fn golden_bad_input_of_jobs() {
    try_everything("hub-jobs").await;
}

#[tokio::test]
async fn golden_bad_input_of_messages_to_devices() {
    try_everything("hub-messages").await;
}

#[tokio::test]
async fn golden_bad_input_of_devices_at_a_hub() {
    try_everything("hub-device").await;
}

#[tokio::test]
async fn golden_bad_input_of_the_management_api() {
    try_everything("management").await;
}

async fn try_everything(name: &str) {
    let table = Table::read(name);
    let mut ground = Ground::start().await;
    let (mut golden, mut faults) = (String::new(), Vec::new());
    for operation in &table.operations {
        let named = |names: &[String]| names.iter().map(|name| table.entity(name)).collect();
        let scene =
            Scene { given: named(&operation.given), absent: named(&operation.absent), registers: operation.registers };
        let tried = Tried { api: table.api, operation, scene };
        let _ = writeln!(golden, "{}", tried.run(&mut ground, &mut faults).await);
    }
    ground.stop().await;
    testkit::golden::compare(&format!("bad-input/{name}.txt"), &golden);
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

/// An operation under trial.
struct Tried<'a> {
    api: Api,
    operation: &'a Operation,
    scene: Scene,
}

impl Tried<'_> {
    /// Tries everything; gives the operation's part of the golden file.
    async fn run(&self, ground: &mut Ground, faults: &mut Vec<String>) -> String {
        let name = &self.operation.name;
        ground.prepare(&self.scene).await;
        let good = ground.parts(self.api, self.operation);
        let answer = ground.send(self.api, &good.request()).await.unwrap();
        assert_eq!(answer.status, self.operation.answers, "{name}: {}", answer.text());
        ground.prepare(&self.scene).await;

        let mut lines = Lines::default();
        for case in self.cases(ground, &good) {
            let answer = ground.send(self.api, &case.request).await;
            lines.push(&case, outcome::words(self.api, &answer));
            let mut report = |fault: &str| faults.push(format!("{name}: {} {}: {fault}", case.place, case.how));
            if let Some(fault) = outcome::fault(self.api, &answer) {
                report(&fault);
            }
            let is_accepted = answer.is_ok_and(|answer| (200..300).contains(&answer.status));
            if is_accepted && case.request.method != "GET" {
                ground.prepare(&self.scene).await;
            } else if !ground.is_unchanged().await {
                report("something changed that should not");
                ground.prepare(&self.scene).await;
            }
        }
        format!("# {name}\n{}", lines.written())
    }

    fn cases(&self, ground: &Ground, good: &Parts) -> Vec<Case> {
        let mut cases = good.spoil(&ground.tokens(self.api));
        let body = self.operation.body.as_ref().map(|body| ground.filled(body));
        for spoilt in body.iter().flat_map(|body| body::spoil(body, &self.operation.free)) {
            let request = RawRequest { body: spoilt.bytes, ..good.request() };
            cases.push(Case { place: format!("body {}", spoilt.place), how: spoilt.how, request });
        }
        cases
    }
}

/// The lines of an operation: a place, and for each outcome what leads to it.
#[derive(Default)]
struct Lines(Vec<(String, Vec<(String, Vec<&'static str>)>)>);

impl Lines {
    fn push(&mut self, case: &Case, outcome: String) {
        if self.0.last().is_none_or(|(place, _)| *place != case.place) {
            self.0.push((case.place.clone(), Vec::new()));
        }
        let (_, outcomes) = self.0.last_mut().expect("there is one");
        match outcomes.iter_mut().find(|(known, _)| *known == outcome) {
            Some((_, hows)) => hows.push(case.how),
            None => outcomes.push((outcome, vec![case.how])),
        }
    }

    fn written(mut self) -> String {
        let mut text = String::new();
        for (place, outcomes) in &mut self.0 {
            outcomes.sort();
            let _ = writeln!(text, "{}", place.trim_end());
            for (outcome, hows) in outcomes {
                let _ = writeln!(text, "  {outcome}: {}", hows.join(", "));
            }
        }
        text
    }
}
