//! The demo, played by the binary as a person would, and judged by the evidence it prints.

use std::collections::HashSet;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use rustix::process::{Pid, Signal, kill_process};

use serde_json::Value;

/// What one run of the demo has to show; every test looks at another side of it.
static EVIDENCE: LazyLock<Value> = LazyLock::new(|| {
    // Folder and ports are the demo's own, so that it meets nothing else on the machine.
    let output = Command::new(env!("CARGO_BIN_EXE_muster"))
        .args(["demo", "--output", "json"])
        .output()
        .expect("the binary runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("it printed JSON")
});

fn text<'a>(document: &'a Value, path: &str) -> &'a str {
    document.pointer(path).and_then(Value::as_str).unwrap_or_else(|| panic!("no {path} in {document:#}"))
}

fn items<'a>(document: &'a Value, path: &str) -> &'a [Value] {
    document.pointer(path).and_then(Value::as_array).unwrap_or_else(|| panic!("no {path} in {document:#}"))
}

#[test]
fn the_story_is_played_to_its_end_and_leaves_evidence() {
    let evidence = &*EVIDENCE;

    assert!(text(evidence, "/provisioningService/idScope").starts_with("0ne"));
    assert_eq!(evidence["certificate"]["isVerified"], true);
    assert_eq!(text(evidence, "/enrollmentGroup/id"), "cheesecave-devices");
    let etags = ["/provisioningService/etag", "/hub/etag", "/certificate/etag", "/enrollmentGroup/etag"];
    assert!(etags.iter().all(|path| !text(evidence, path).is_empty()));

    let devices = items(evidence, "/devices");
    let protocols: Vec<&str> = devices.iter().map(|device| text(device, "/protocol")).collect();
    assert_eq!(protocols, ["MQTT", "AMQP", "HTTPS"]);
    let operations: HashSet<&str> = devices.iter().map(|device| text(device, "/operationId")).collect();
    assert_eq!(operations.len(), 3, "each device has an operation of its own");
    for device in devices {
        assert_eq!(text(device, "/assignedHub"), text(evidence, "/hub/hostName"));
        assert!(!text(device, "/registrationEtag").is_empty());
    }

    let desired = &evidence["desired"];
    assert_eq!(text(desired, "/deviceId"), "cheesecave-device1");
    assert_eq!(desired["temperature"], serde_json::json!(50.123));
    assert_eq!((desired["desiredVersion"].as_u64(), desired["reportedVersion"].as_u64()), (Some(2), Some(2)));
    assert_ne!(text(desired, "/etagBefore"), text(desired, "/etagAfter"));
    assert!(evidence["seconds"].as_f64().unwrap() > 0.0);
}

/// What a person sees: a tick and a time for each step as it happens, what happened as a table, and what to type next.
#[test]
fn a_person_sees_every_step_ticked_a_table_and_the_next_command() {
    let output = Command::new(env!("CARGO_BIN_EXE_muster"))
        .args(["demo", "--output", "table"])
        .output()
        .expect("the binary runs");
    let told = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    let ticks: Vec<&str> = told.lines().filter_map(|line| line.strip_prefix("  ✓ ")).collect();
    assert!(ticks.len() > 15, "{told}");
    for tick in &ticks {
        let seconds = tick.split_once(" s  ").and_then(|(seconds, _)| seconds.trim().parse::<f64>().ok());
        assert!(seconds.is_some(), "no time in {tick}");
    }
    let (_, after) = told.split_once(ticks[ticks.len() - 1]).expect("the last tick");
    let (table, next) = after.split_once("Next:").expect("what to type next");
    for row in ["cheesecave-device1   MQTT ", "cheesecave-device2   AMQP ", "cheesecave-device3   HTTPS "] {
        assert!(table.contains(row), "{row} is not in {table}");
    }
    assert!(next.contains("demo --keep") && next.contains("serve"), "{next}");
}

#[test]
fn every_message_has_its_place_in_the_hubs_log() {
    for device in items(&EVIDENCE, "/devices") {
        let messages = items(device, "/messages");
        assert_eq!(messages.len(), 3);
        let places: Vec<(u64, u64, u64)> = messages
            .iter()
            .map(|message| {
                let number = |name: &str| message[name].as_u64().unwrap();
                (number("partition"), number("sequenceNumber"), text(message, "/offset").parse().unwrap())
            })
            .collect();
        let one_partition = places.iter().all(|(partition, ..)| *partition == places[0].0);
        let in_order = places.iter().is_sorted_by(|before, after| before.1 < after.1 && before.2 < after.2);
        assert!(one_partition && in_order, "{places:?}");
    }
}

#[test]
fn every_device_is_refused_in_the_end_and_the_operator_learns_why() {
    let evidence = &*EVIDENCE;
    let causes: Vec<Vec<&str>> = items(evidence, "/devices")
        .iter()
        .map(|device| items(device, "/refusals").iter().map(|refusal| text(refusal, "/cause")).collect())
        .collect();
    assert_eq!(causes, [vec!["unknown-ca"], vec!["unknown-ca"], vec!["disabled-entry", "disabled-entry"]]);
    for refusal in items(evidence, "/devices").iter().flat_map(|device| items(device, "/refusals")) {
        assert_eq!((refusal["status"].as_u64(), refusal["errorCode"].as_u64()), (Some(401), Some(401_002)));
        assert!(!text(refusal, "/trackingId").is_empty() && !text(refusal, "/fix").is_empty());
    }
}

#[test]
fn an_interrupt_stops_the_server_in_order_and_leaves_nothing_behind() {
    let temporary = tempfile::tempdir().unwrap();
    let mut demo = Command::new(env!("CARGO_BIN_EXE_muster"))
        .args(["demo", "--output", "json"])
        .env("TMPDIR", temporary.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(demo.stderr.take().unwrap());
    let port: u16 = loop {
        let mut line = String::new();
        assert!(said.read_line(&mut line).unwrap() > 0, "the demo ended before its server was ready");
        if let Some((_, rest)) = line.split_once("HTTPS on port ") {
            break rest.split(',').next().unwrap().parse().unwrap();
        }
    };
    TcpStream::connect(("127.0.0.1", port)).unwrap();
    kill_process(Pid::from_child(&demo), Signal::INT).unwrap();

    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    assert_eq!(demo.wait().unwrap().code(), Some(1));
    assert!(rest.contains("server drained and stopped") && rest.contains("the demo was interrupted"), "{rest}");
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "the server still listens");
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0, "the folder is still there");
}

#[test]
fn a_place_that_takes_no_folder_is_named_with_what_to_do() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_muster")).arg("demo").env("TMPDIR", "/dev/null/nowhere").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot make a temporary folder; TMPDIR names another place"), "{said}");
}
