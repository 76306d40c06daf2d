//! The commands that developers and continuous integration share: `cargo xtask test`, `ci`, `layering`, `golden`,
//! `fuzz`, `sdk`, `torture`.
//!
//! It starts other programs and reads what they say. It must never hold product logic, and stays quick to compile,
//! since everything waits for it. Start at `run` for the list of commands, at [`report`] for how a run is told.

mod check;
mod ci;
mod clients;
mod counts;
mod debian;
mod failures;
mod fuzz;
mod golden;
mod java;
mod layering;
mod licences;
mod metadata;
mod process;
mod report;
mod sdk;
mod suites;
mod test;
mod torture;

use std::process::ExitCode;

use anyhow::{Result, bail};

const USAGE: &str = "\
cargo xtask COMMAND

  test               install what the tests need, compile once, run every test, the SDK suites included
  ci                 format, lints, layering, licences, documentation, golden files, file lengths
  layering           who may import whom, against the table in xtask/src/layering.rs
  golden             write the golden files and docs/clients.md again
  fuzz [TARGET] [S]  fuzz one target or all of them for S seconds each (default 15)
  sdk [python|node|java] [ARGUMENTS]
                     only the SDK suites; ARGUMENTS go to pytest, `node --test` or JUnit's console launcher, as in
                     `sdk python -k provisioning` or `sdk java --select-class muster.DeviceTest`
  torture [ROUNDS]   kill the server under load, round after round (default 50), cut off its power, and look for what it
                     acknowledged
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let (command, rest) = match arguments.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => ("help", arguments),
    };
    match command {
        "test" => test::run(),
        "ci" => ci::run(),
        "layering" => layering::run(),
        "golden" => golden::run(),
        "fuzz" => fuzz::run(rest),
        "sdk" => sdk::run(rest),
        "torture" => torture::run(rest),
        "help" | "--help" | "-h" => {
            print!("{USAGE}");
            Ok(())
        }
        other => bail!("no command {other:?}\n\n{USAGE}"),
    }
}
