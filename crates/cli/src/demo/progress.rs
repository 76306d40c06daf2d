//! The ticks of the demo: each step with its time, as it happens.
//!
//! People read them from standard output, or from standard error where a program reads the evidence from the other.
//! Start at [`Progress::step`].

use std::cell::RefCell;
use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

use crate::output::Output;

/// Time for one step. The longest, a registration, takes the three seconds that the service asks its devices to wait.
const STEP_TIMEOUT: Duration = Duration::from_secs(60);

/// A step that is done.
#[derive(Clone, Debug, Serialize)]
pub struct Tick {
    /// What happened.
    pub step: String,
    /// How long it took.
    pub seconds: f64,
}

/// What the demo does at one moment, and what helps where it fails.
#[derive(Clone, Copy, Debug)]
pub struct Task {
    /// What is being done, to stand behind "while".
    pub doing: &'static str,
    /// What a person can do if it fails.
    pub advice: &'static str,
}

/// Where the demo stopped.
#[derive(Debug, thiserror::Error)]
#[error("the demo stopped while {}, {:.1} s after its start", .task.doing, .after.as_secs_f64())]
pub struct Stopped {
    /// What was being done.
    pub task: Task,
    /// Since the start of the demo.
    pub after: Duration,
}

/// Keeps the ticks and prints them.
pub struct Progress {
    output: Output,
    started: Instant,
    ticks: RefCell<Vec<Tick>>,
}

impl Progress {
    /// Starts the clock.
    pub fn new(output: Output) -> Self {
        Self { output, started: Instant::now(), ticks: RefCell::default() }
    }

    /// Performs `work` and ticks it off with the text it returns beside its result. Steps may run side by side.
    pub fn step<T>(
        &self,
        task: Task,
        work: impl Future<Output = Result<(T, String)>>,
    ) -> impl Future<Output = Result<T>> {
        // Boxed before anything waits for it, so that a story of many steps stays small.
        self.tick(task, Box::pin(work))
    }

    async fn tick<T>(&self, task: Task, work: impl Future<Output = Result<(T, String)>>) -> Result<T> {
        let started = Instant::now();
        let done = match tokio::time::timeout(STEP_TIMEOUT, work).await {
            Ok(done) => done,
            Err(_) => Err(anyhow::anyhow!("it did not end within {} s", STEP_TIMEOUT.as_secs())),
        };
        let (value, step) = done.map_err(|error| error.context(Stopped { task, after: self.started.elapsed() }))?;
        let tick = Tick { step, seconds: rounded(started.elapsed()) };
        self.print(&format!("  ✓ {:6.2} s  {}", tick.seconds, tick.step));
        self.ticks.borrow_mut().push(tick);
        Ok(value)
    }

    /// Says something to people.
    pub fn print(&self, line: &str) {
        // A reader that has gone away is no reason to stop.
        let _ = match self.output.is_json() {
            true => writeln!(std::io::stderr().lock(), "{line}"),
            false => writeln!(std::io::stdout().lock(), "{line}"),
        };
    }

    /// Since the start.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// All ticks, in the order in which they ended.
    pub fn ticks(&self) -> Vec<Tick> {
        self.ticks.borrow().clone()
    }
}

/// Milliseconds to the microsecond.
pub fn milliseconds(duration: Duration) -> f64 {
    rounded(duration * 1_000)
}

/// Seconds to the millisecond.
pub fn rounded(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1_000.0).round() / 1_000.0
}
