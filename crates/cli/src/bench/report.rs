//! What a bench found, as evidence: machine, build, parameters, measurements, and how they compare.

use anyhow::{Result, bail};
use serde::Serialize;
use serde_json::{Value, json};

use super::load::Tally;
use super::machine::{Build, Machine};
use crate::output::Output;

/// Everything one bench has to say.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    bench: &'static str,
    machine: Machine,
    build: Build,
    parameters: Value,
    measurements: Vec<Measurement>,
    ratios: Vec<Ratio>,
    notes: Vec<String>,
    missing: Vec<String>,
}

/// One server under one load, all rounds together.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Measurement {
    /// Which load.
    pub case: String,
    /// Which server.
    pub server: String,
    /// What is counted.
    pub unit: &'static str,
    units: u64,
    seconds: f64,
    per_second: f64,
    latency_p50_us: u64,
    latency_p99_us: u64,
    server_cpu_us_per_unit: f64,
    /// Growth of the server's memory for each idle connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_bytes_per_connection: Option<u64>,
    /// Processor time of the server for each second in which nothing is said, all connections together.
    #[serde(skip_serializing_if = "Option::is_none")]
    idle_cpu_us_per_second: Option<f64>,
    /// Memory of the whole server.
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_bytes: Option<u64>,
}

/// One measurement in terms of another, or of a limit.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ratio {
    what: String,
    /// `None` if the other is missing.
    value: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    asked: Option<Asked>,
}

/// What the design asks of a ratio.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Asked {
    /// More is better.
    AtLeast(f64),
    /// Less is better.
    AtMost(f64),
}

impl Measurement {
    /// What `tally` amounts to.
    pub fn new(case: impl Into<String>, server: impl Into<String>, unit: &'static str, tally: &Tally) -> Self {
        let seconds = tally.seconds();
        Self {
            case: case.into(),
            server: server.into(),
            unit,
            units: tally.units(),
            seconds: rounded(seconds),
            per_second: rounded(tally.units() as f64 / seconds.max(f64::EPSILON)),
            latency_p50_us: tally.latency_us(0.50),
            latency_p99_us: tally.latency_us(0.99),
            server_cpu_us_per_unit: rounded(tally.cpu_us() / (tally.units().max(1) as f64)),
            memory_bytes_per_connection: None,
            idle_cpu_us_per_second: None,
            memory_bytes: None,
        }
    }

    /// With the memory of the server as a whole.
    pub fn with_memory(self, bytes: u64) -> Self {
        Self { memory_bytes: Some(bytes), ..self }
    }

    /// With what each connection costs while nothing is said.
    pub fn with_idle(self, bytes_per_connection: u64, cpu_us_per_second: f64) -> Self {
        Self {
            memory_bytes_per_connection: Some(bytes_per_connection),
            idle_cpu_us_per_second: Some(rounded(cpu_us_per_second)),
            ..self
        }
    }

    /// Units a second.
    pub const fn per_second(&self) -> f64 {
        self.per_second
    }
}

impl Ratio {
    /// `value` under the name `what`; `None` where there is nothing to compare with.
    pub fn new(what: impl Into<String>, value: Option<f64>, asked: Option<Asked>) -> Self {
        Self { what: what.into(), value: value.filter(|value| value.is_finite()).map(rounded), asked }
    }
}

impl Report {
    /// An empty report of `bench`.
    pub fn new(bench: &'static str, machine: Machine, parameters: Value) -> Self {
        Self {
            bench,
            machine,
            build: Build::current(),
            parameters,
            measurements: Vec::new(),
            ratios: Vec::new(),
            notes: Vec::new(),
            missing: Vec::new(),
        }
    }

    /// Adds a measurement.
    pub fn measured(&mut self, measurement: Measurement) {
        self.measurements.push(measurement);
    }

    /// Adds a comparison.
    pub fn compared(&mut self, ratio: Ratio) {
        self.ratios.push(ratio);
    }

    /// Adds what a reader must know to read the figures right.
    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Adds what could not be measured, and how it can be.
    pub fn lack(&mut self, what: impl Into<String>) {
        self.missing.push(what.into());
    }

    /// Prints everything.
    pub fn print(&self, output: Output) -> Result<()> {
        let document = serde_json::to_value(self)?;
        if output.is_json() {
            return output.record(&document);
        }
        let part = |name: &str| document.get(name).cloned().unwrap_or_default();
        output.record(&json!({
            "bench": self.bench, "machine": part("machine"), "build": part("build"), "parameters": self.parameters,
        }))?;
        let rows: Vec<Value> = self.measurements.iter().map(serde_json::to_value).collect::<Result<_, _>>()?;
        output.list(
            &rows,
            &[
                ("case", "/case"),
                ("server", "/server"),
                ("unit", "/unit"),
                ("units", "/units"),
                ("per second", "/perSecond"),
                ("p50 µs", "/latencyP50Us"),
                ("p99 µs", "/latencyP99Us"),
                ("cpu µs/unit", "/serverCpuUsPerUnit"),
                ("bytes/connection", "/memoryBytesPerConnection"),
                ("idle cpu µs/s", "/idleCpuUsPerSecond"),
                ("bytes", "/memoryBytes"),
            ],
        )?;
        let rows: Vec<Value> = self.ratios.iter().map(serde_json::to_value).collect::<Result<_, _>>()?;
        let asked = [("at least", "/asked/atLeast"), ("at most", "/asked/atMost")];
        output.list(&rows, &[("ratio", "/what"), ("found", "/value"), asked[0], asked[1]])?;
        self.notes.iter().chain(&self.missing).try_for_each(|line| output.say(&format!("- {line}")))
    }

    /// Fails if something could not be measured: a comparison without the other side is none.
    pub fn check_complete(&self) -> Result<()> {
        if !self.missing.is_empty() {
            bail!("not everything could be measured: {}", self.missing.join("; "));
        }
        Ok(())
    }
}

/// Four significant digits; more would only be noise.
fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let factor = 10_f64.powi(3 - value.abs().log10().floor() as i32);
    (value * factor).round() / factor
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_keep_four_digits() {
        for (value, expected) in [(0.0, 0.0), (123_456.7, 123_500.0), (0.123_456, 0.1235), (9_999.9, 10_000.0)] {
            assert!((rounded(value) - expected).abs() < 1e-9, "{value}: {}", rounded(value));
        }
    }
}
