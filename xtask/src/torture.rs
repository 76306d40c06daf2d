//! `cargo xtask torture`: the server is killed, its disk is cut off or full, and what it acknowledged must be there
//! (`docs/durability.md`).
//!
//! Builds the server and the program that tortures it (`crates/testkit/src/bin/torture`), runs that and reports. Also
//! builds a server that can be told not to sync and to forget messages, which must be caught. Start at [`run`].

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result, bail};

use crate::report::Report;
use crate::{debian, metadata, process, sdk, suites};

/// How much of everything.
struct Amount {
    /// How often the server is killed.
    rounds: u32,
    /// How often the power fails.
    cuts: u32,
    /// What the fleet does.
    fleet: Fleet,
    /// Seconds in which it does that.
    fleet_s: u64,
}

/// Devices that send at once.
struct Fleet {
    devices: u32,
    /// Of each device.
    messages: u32,
    /// How often the server is killed meanwhile.
    kills: u32,
}

/// When asked for nothing else.
const LONG: Amount =
    Amount { rounds: 50, cuts: 40, fleet: Fleet { devices: 1_000, messages: 400, kills: 8 }, fleet_s: 300 };
/// Among all the other tests.
const SHORT: Amount =
    Amount { rounds: 4, cuts: 6, fleet: Fleet { devices: 1_000, messages: 100, kills: 1 }, fleet_s: 60 };
/// Enough for a server to be caught that forgets one message of a hundred.
const FLEET_FORGOTTEN: Fleet = Fleet { devices: 50, messages: 20, kills: 1 };
/// Size of the disk that is filled: with room for a few seconds of work.
const SMALL_DISK_MIB: u32 = 96;
/// Power cuts of a server that does not sync: the first one shows it.
const CUTS_UNSYNCED: u32 = 2;
/// Where the seed of a run is taken from, to repeat it; otherwise a fresh one is used, and told.
const SEED_VARIABLE: &str = "MUSTER_TORTURE_SEED";
/// The feature with which a server can be told not to sync, and to forget.
const UNSYNCED_FEATURE: &str = "muster-store/torture";

/// Everything at full length; `arguments` may be the number of kills.
pub fn run(arguments: &[String]) -> Result<()> {
    let rounds = match arguments {
        [] => LONG.rounds,
        [rounds] => rounds.parse().with_context(|| format!("{rounds:?} is no number of rounds"))?,
        _ => bail!("cargo xtask torture [ROUNDS]"),
    };
    let mut report = Report::new("cargo xtask torture");
    if report.step("programs", 120, debian::install)
        && report.step("compile", 420, || suites::compile_binaries().map(|()| Vec::new()))
    {
        steps(&mut report, &Amount { rounds, ..LONG });
    }
    report.finish()
}

/// A few rounds of everything, on the binaries that are already built.
pub fn short(report: &mut Report) {
    steps(report, &SHORT);
}

fn steps(report: &mut Report, amount: &Amount) {
    let Amount { rounds, cuts, fleet: sending, fleet_s } = amount;
    let (seconds_per_round, seconds_per_cut) = (6, 2);
    report.step("kill -9", 10 + u64::from(*rounds) * seconds_per_round, || {
        torture("kill", "kill", &["--rounds", &rounds.to_string()], &ordinary()?)
    });
    report.step("power cuts", 10 + u64::from(*cuts) * seconds_per_cut, || {
        torture("power", "power", &["--cuts", &cuts.to_string()], &ordinary()?)
    });
    report.step("fleet", *fleet_s, || fleet("fleet", sending, &[], &ordinary()?));
    report.step("full disk", 40, full_disk);
    let mut unsynced = PathBuf::new();
    if report.step("compile without syncs", 90, || {
        unsynced = compile_unsynced()?;
        Ok(Vec::new())
    }) {
        report.step("power cuts without syncs", 20, || {
            torture("power", "unsynced", &["--unsynced", "--cuts", &CUTS_UNSYNCED.to_string()], &unsynced)
        });
        report.step("fleet of a server that forgets", 20, || {
            fleet("forgetful", &FLEET_FORGOTTEN, &["--forgetful"], &unsynced)
        });
    }
}

fn fleet(name: &str, fleet: &Fleet, arguments: &[&str], muster: &Path) -> Result<Vec<String>> {
    let Fleet { devices, messages, kills } = fleet;
    let [devices, messages, kills] = [devices, messages, kills].map(ToString::to_string);
    let amount = ["--devices", &devices, "--messages", &messages, "--kills", &kills];
    torture("fleet", name, &[&amount, arguments].concat(), muster)
}

fn ordinary() -> Result<PathBuf> {
    Ok(programs()?.join("muster"))
}

fn programs() -> Result<PathBuf> {
    Ok(metadata::target_folder()?.join(suites::PROFILE))
}

/// Builds a server that can be told not to sync, puts it aside, and has the ordinary one back in its place.
fn compile_unsynced() -> Result<PathBuf> {
    let mut build = process::command("cargo")?;
    // The whole workspace is named, so that other crates are compiled with the features they have had before.
    build.args(["build", "--workspace", "--bin", "muster", "--locked", "--quiet", "--profile", suites::PROFILE]);
    process::show(build.args(["--features", UNSYNCED_FEATURE]))?;
    let aside = metadata::target_folder()?.join("muster-unsynced");
    fs::copy(ordinary()?, &aside).context("putting the server aside")?;
    suites::compile_binaries()?;
    Ok(aside)
}

/// Runs the program on an empty folder called `name`, which stays to be looked at, and returns its last line.
fn torture(what: &str, name: &str, arguments: &[&str], muster: &Path) -> Result<Vec<String>> {
    let mut command = process::command(&programs()?.join("torture").display().to_string())?;
    command.arg(what).args(arguments).arg("--muster").arg(muster).arg("--work").arg(empty_folder(name)?);
    if let Ok(seed) = env::var(SEED_VARIABLE) {
        command.args(["--seed", &seed]);
    }
    follow(command)
}

/// On a small disk that only the program and its servers see, and that is gone with them.
fn full_disk() -> Result<Vec<String>> {
    if !sdk::namespaces_allowed()? {
        return Ok(vec!["not shown: namespaces are forbidden here, so that no small disk can be mounted".to_owned()]);
    }
    let (folder, program) = (empty_folder("full")?, programs()?.join("torture"));
    let mount = format!("mount -t tmpfs -o mode=700,size={SMALL_DISK_MIB}m tmpfs");
    let script = format!(r#"mkdir "$1/disk" && {mount} "$1/disk" && exec "$2" full --muster "$3" --work "$1""#);
    let mut command = process::command("unshare")?;
    command.args(["-rm", "sh", "-c", &script, "sh"]).arg(folder).arg(program).arg(ordinary()?);
    follow(command)
}

/// Runs the program and returns its last line.
fn follow(mut command: Command) -> Result<Vec<String>> {
    let mut last = String::new();
    let succeeded = process::follow(&mut command, |line| {
        println!("{line}");
        line.clone_into(&mut last);
    })?;
    if !succeeded {
        bail!("{last}");
    }
    Ok(vec![last])
}

fn empty_folder(name: &str) -> Result<PathBuf> {
    let folder = metadata::target_folder()?.join("torture").join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    Ok(folder)
}
