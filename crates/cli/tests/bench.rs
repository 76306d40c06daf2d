//! Tiny runs of every bench: that the evidence is whole, never how fast it was.

use std::process::{Command, Output};

use serde_json::{Value, json};

/// A program that is not there stands for a machine without mosquitto.
const NO_MOSQUITTO: &[&str] = &["--mosquitto", "/nonexistent/mosquitto"];

#[test]
fn handshakes_are_compared_with_rustls_alone() {
    let report = complete(&["handshake", "--seconds", "1", "--rounds", "1", "--clients", "4"]);
    is_whole(&report, "handshake", &["rustls alone", "muster"]);
    for measurement in list(&report, "/measurements") {
        assert!(at(measurement, "/case").as_str().is_some_and(|case| case.starts_with("TLSv1_3 ")), "{measurement}");
    }
}

#[test]
fn registrations_are_compared_with_bare_handshakes() {
    let arguments = "register --seconds 4 --rounds 1 --warm-up 1 --clients 4 --in-flight 8 --devices 100";
    let report = complete(&arguments.split(' ').collect::<Vec<_>>());
    is_whole(&report, "register", &["rustls alone", "muster"]);
    assert_eq!(*at(&report, "/ratios/0/asked/atLeast"), 0.6);
    let [handshake, registration] = ["/measurements/0", "/measurements/1"].map(|pointer| at(&report, pointer));
    assert_eq!([at(handshake, "/unit"), at(registration, "/unit")], ["handshake", "registration"]);
    assert!(at(registration, "/latencyP50Us").as_u64() > Some(1_000_000), "a device waits before it polls: {report}");
}

#[test]
fn a_fleet_that_is_too_small_is_told_apart_from_a_slow_server() {
    let arguments = "register --seconds 1 --rounds 1 --warm-up 0 --clients 1 --in-flight 8 --devices 4";
    let output = bench(&arguments.split(' ').collect::<Vec<_>>());
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("raise --devices"), "{said}");
}

#[test]
fn telemetry_without_its_peer_is_measured_and_not_green() {
    let report = without_peer(&["telemetry", "--seconds", "1", "--rounds", "1", "--publishers", "4"]);
    is_whole(&report, "telemetry", &["muster", "muster"]);
    let cases: Vec<_> = list(&report, "/measurements").iter().map(|one| at(one, "/case").clone()).collect();
    assert_eq!(cases, ["window 20", "window 1"]);
    assert_eq!(*at(&report, "/ratios/0/asked/atLeast"), 2.0);
}

#[test]
fn idle_connections_without_their_peer_are_measured_and_not_green() {
    let report = without_peer(&["connections", "--connections", "20", "--clients", "4", "--seconds", "1"]);
    is_whole(&report, "connections", &["muster"]);
    let measurement = at(&report, "/measurements/0");
    assert_eq!(*at(measurement, "/units"), 20);
    assert!(at(measurement, "/memoryBytesPerConnection").is_u64(), "{measurement}");
    assert!(at(measurement, "/idleCpuUsPerSecond").is_number(), "{measurement}");
}

#[test]
fn queries_are_compared_with_the_time_they_may_take() {
    let report = complete(&["query", "--twins", "250", "--repeats", "2"]);
    is_whole(&report, "query", &["muster"; 6]);
    let ratios = list(&report, "/ratios");
    assert_eq!(ratios.len(), 5, "{report}");
    assert!(ratios.iter().all(|ratio| *at(ratio, "/asked/atMost") == 1.0), "{report}");
}

#[test]
fn starts_are_cold_and_warm() {
    let report = complete(&["start", "--starts", "2"]);
    is_whole(&report, "start", &["muster", "muster"]);
    assert_eq!(*at(&report, "/ratios/0/asked/atMost"), 1.0);
    for measurement in list(&report, "/measurements") {
        assert_eq!(*at(measurement, "/units"), 2, "{measurement}");
        assert!(at(measurement, "/memoryBytes").as_u64() > Some(1 << 20), "{measurement}");
    }
}

/// Runs `muster bench ARGUMENTS --output json`.
fn bench(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_muster"));
    command.arg("bench").args(arguments).args(["--output", "json"]).output().expect("the program starts")
}

/// The report of a bench that could measure everything.
fn complete(arguments: &[&str]) -> Value {
    let output = bench(arguments);
    let report = report(&output);
    assert!(output.status.success(), "{report}");
    assert_eq!(*at(&report, "/missing"), json!([]), "{report}");
    for ratio in list(&report, "/ratios") {
        assert!(at(ratio, "/value").as_f64().is_some_and(|value| value > 0.0), "{ratio}");
    }
    report
}

/// The report of a bench without its peer, which must not pass for a success.
fn without_peer(arguments: &[&str]) -> Value {
    let output = bench(&[arguments, NO_MOSQUITTO].concat());
    let report = report(&output);
    assert_eq!(output.status.code(), Some(1), "{report}");
    let missing = at(&report, "/missing/0").as_str().expect("what is missing");
    assert!(missing.contains("apt-get install mosquitto"), "{missing}");
    assert!(String::from_utf8_lossy(&output.stderr).contains(missing), "{report}");
    let without = list(&report, "/ratios").iter().filter(|ratio| at(ratio, "/what").to_string().contains("mosquitto"));
    assert!(without.clone().count() > 0 && without.into_iter().all(|ratio| at(ratio, "/value").is_null()), "{report}");
    report
}

fn report(output: &Output) -> Value {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {:?} {:?}", text(&output.stdout), text(&output.stderr)))
}

/// Checks what every report must hold, and which servers it measured.
fn is_whole(report: &Value, name: &str, servers: &[&str]) {
    assert_eq!(*at(report, "/bench"), name);
    for member in ["processor", "cores", "memoryMib", "kernel", "loadAverage", "fileSystem", "fdatasyncUs"] {
        at(report, &format!("/machine/{member}"));
    }
    assert_eq!(*at(report, "/build/version"), env!("CARGO_PKG_VERSION"));
    assert_eq!(*at(report, "/build/profile"), if cfg!(debug_assertions) { "debug" } else { "release" });
    assert!(at(report, "/parameters").is_object(), "{report}");
    let measurements = list(report, "/measurements");
    let found: Vec<_> = measurements.iter().map(|one| at(one, "/server").clone()).collect();
    assert_eq!(found, servers, "{report}");
    for measurement in measurements {
        for member in ["units", "seconds", "perSecond", "latencyP50Us", "latencyP99Us"] {
            let value = at(measurement, &format!("/{member}")).as_f64();
            assert!(value.is_some_and(|value| value > 0.0), "{member} of {measurement}");
        }
        assert!(at(measurement, "/serverCpuUsPerUnit").is_number(), "{measurement}");
        let (p50, p99) = (at(measurement, "/latencyP50Us").as_u64(), at(measurement, "/latencyP99Us").as_u64());
        assert!(p50 <= p99, "{measurement}");
    }
}

fn at<'a>(report: &'a Value, pointer: &str) -> &'a Value {
    report.pointer(pointer).unwrap_or_else(|| panic!("{pointer} of {report}"))
}

fn list<'a>(report: &'a Value, pointer: &str) -> &'a [Value] {
    at(report, pointer).as_array().unwrap_or_else(|| panic!("{pointer} of {report} is no list"))
}
