//! Tells a run step by step: what is being done, how long it took against its budget, and how it all ended.
//!
//! A failed step does not hide the ones after it: the report goes on where the caller lets it, and ends as failed.

use std::fs;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::metadata;

/// The longest a whole run may take.
const RUN_LIMIT: Duration = Duration::from_mins(40);

/// One run of `test` or `ci`.
pub struct Report {
    title: &'static str,
    started: Instant,
    steps: Vec<Step>,
}

struct Step {
    name: String,
    took: Duration,
    budget: Duration,
    failure: Option<String>,
    closing: Vec<String>,
}

impl Report {
    /// Starts a run and its clock.
    pub fn new(title: &'static str) -> Self {
        Self { title, started: Instant::now(), steps: Vec::new() }
    }

    /// Does one step and says whether it succeeded. What `work` returns are the closing lines that the table repeats.
    pub fn step(&mut self, name: &str, budget_s: u64, work: impl FnOnce() -> Result<Vec<String>>) -> bool {
        println!("\n== {name} (budget {budget_s} s)");
        let started = Instant::now();
        let outcome = work();
        let took = started.elapsed();
        let (failure, closing) = match outcome {
            Ok(closing) => (None, closing),
            Err(error) => (Some(format!("{error:#}")), Vec::new()),
        };
        match &failure {
            None => println!("== {name}: done in {:.1} s", took.as_secs_f64()),
            Some(failure) => println!("== {name}: FAILED after {:.1} s\n{failure}", took.as_secs_f64()),
        }
        let succeeded = failure.is_none();
        self.steps.push(Step { name: name.to_owned(), took, budget: Duration::from_secs(budget_s), failure, closing });
        succeeded
    }

    /// Prints the table and the closing lines, and fails if any step did or the whole took longer than 40 minutes.
    pub fn finish(self) -> Result<()> {
        let total = self.started.elapsed();
        let width = self.steps.iter().map(|step| step.name.len()).max().unwrap_or(0).max("total".len());
        println!("\n{}", self.title);
        println!("  {:width$}  seconds  budget  result", "step");
        for step in &self.steps {
            println!(
                "  {:width$}  {:>7.1}  {:>6}  {}",
                step.name,
                step.took.as_secs_f64(),
                step.budget.as_secs(),
                step.result()
            );
        }
        let budget: Duration = self.steps.iter().map(|step| step.budget).sum();
        println!("  {:width$}  {:>7.1}  {:>6}", "total", total.as_secs_f64(), budget.as_secs());
        for step in &self.steps {
            for line in &step.closing {
                println!("{}: {line}", step.name);
            }
        }
        let failed: Vec<String> = self
            .steps
            .iter()
            .filter_map(|step| step.failure.as_ref().map(|failure| format!("{}: {failure}", step.name)))
            .collect();
        self.keep(&failed)?;
        if !failed.is_empty() {
            bail!("failed:\n  {}", failed.join("\n  "));
        }
        if total > RUN_LIMIT {
            bail!("took {} s; the hard limit is {} s", total.as_secs(), RUN_LIMIT.as_secs());
        }
        Ok(())
    }

    /// Leaves what failed in a file of `target/failed`, or none: another command's output may come after ours.
    fn keep(&self, failed: &[String]) -> Result<()> {
        let folder = metadata::target_folder()?.join("failed");
        let file = folder.join(self.title.rsplit(' ').next().unwrap_or(self.title));
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        if failed.is_empty() {
            match fs::remove_file(&file) {
                Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            }
        } else {
            fs::write(&file, format!("{} failed:\n  {}\n", self.title, failed.join("\n  ")))
        }
        .with_context(|| file.display().to_string())
    }
}

impl Step {
    fn result(&self) -> &'static str {
        match (&self.failure, self.took > self.budget) {
            (Some(_), _) => "FAILED",
            (None, true) => "ok, over budget",
            (None, false) => "ok",
        }
    }
}
