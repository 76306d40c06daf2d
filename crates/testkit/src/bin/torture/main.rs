//! Writes to a real Muster in another process, has it die, and looks what is left (`docs/durability.md`).
//!
//! `cargo xtask torture` builds and starts it. It must never look into the server: what it knows comes over the wire,
//! from the data folder, and from `strace`. Start at [`kill`] for the kills, at [`power`] for
//! the power cuts, at [`full`] for the full disk, at [`fleet`] for the thousand devices.

mod disk;
mod fleet;
mod full;
mod http;
mod journal;
mod kill;
mod load;
mod mqtt;
mod order;
mod power;
mod server;
mod story;
mod trace;
mod trouble;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use domain::clock::random;
use service::clock::SystemEntropy;

use crate::server::Binary;
use crate::trouble::{During as _, Result, Trouble};

const USAGE: &str = "\
torture kill --muster PROGRAM --work EMPTY-FOLDER [--rounds N] [--seed N]
torture power --muster PROGRAM --work EMPTY-FOLDER [--cuts N] [--seed N] [--unsynced]
torture full --muster PROGRAM --work FOLDER     a small disk is mounted at FOLDER/disk
torture fleet --muster PROGRAM --work EMPTY-FOLDER [--devices N] [--messages N] [--kills N] [--seed N] [--forgetful]

--forgetful has a build that can forget messages do so, and expects that they are missed.
--unsynced has a build that can leave out its syncs do so, and expects that acknowledged work is missed.
";

/// Rounds, where the number is not given.
const ROUNDS: u32 = 50;
/// Power cuts, where the number is not given.
const CUTS: u32 = 40;
/// Devices of the fleet, where the number is not given.
const DEVICES: u32 = 1_000;
/// Messages of each of them, where the number is not given.
const MESSAGES: u32 = 100;
/// Kills while they send, where the number is not given.
const KILLS: u32 = 1;

fn main() -> ExitCode {
    match run(&std::env::args().skip(1).collect::<Vec<_>>()) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(trouble) => {
            eprintln!("torture: {trouble}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<String> {
    let (command, options) = arguments.split_first().ok_or_else(|| Trouble::new(USAGE))?;
    let option = |name: &str| options.iter().position(|option| option == name).and_then(|at| options.get(at + 1));
    let path = |name: &str| option(name).map(PathBuf::from).ok_or_else(|| Trouble::new(format!("{name} is missing")));
    let number = |name: &str| option(name).map(|text| text.parse::<u64>().during(name)).transpose();
    let unsynced = options.iter().any(|option| option == "--unsynced");
    let forgetful = options.iter().any(|option| option == "--forgetful");
    let binary = Binary { muster: path("--muster")?.canonicalize()?, unsynced, forgetful };
    let work = path("--work")?;
    std::fs::create_dir_all(&work)?;
    let work = work.canonicalize()?;
    let seed = number("--seed")?.unwrap_or_else(|| u32::from_le_bytes(random(&SystemEntropy)).into());
    let rounds = number("--rounds")?.map_or(Ok(ROUNDS), u32::try_from)?;
    let cuts = number("--cuts")?.map_or(Ok(CUTS), u32::try_from)?;
    let devices = number("--devices")?.map_or(Ok(DEVICES), u32::try_from)?;
    let messages = number("--messages")?.map_or(Ok(MESSAGES), u32::try_from)?;
    let kills = number("--kills")?.map_or(Ok(KILLS), u32::try_from)?;
    // Told first, since a run that fails is the one to be repeated.
    println!("seed {seed}, in {}", work.display());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match command.as_str() {
        "kill" => runtime.block_on(kill::run(&kill::Wish { binary, work, rounds, seed })),
        "fleet" => runtime.block_on(fleet::run(&fleet::Wish { binary, work, devices, messages, kills, seed })),
        "full" => runtime.block_on(full::run(&full::Wish { binary, work })),
        "power" => runtime.block_on(power::run(&power::Wish { binary, work, cuts, expect_loss: unsynced, seed })),
        _ => Err(Trouble::new(USAGE)),
    }
}
