//! The power fails: a server is traced while it is written to, and what a disk would have kept at some moment is given
//! to another server, which must have everything acknowledged until then.
//!
//! The same trace is held to the order of writes, syncs and acknowledgements ([`crate::order`]). A build that does not
//! sync must fail both; [`Wish::expect_loss`] asks for that. Start at [`run`].

use std::fs;
use std::path::{Path, PathBuf};

use domain::clock::{Entropy, SeededEntropy, random};

use crate::disk::{Cut, Disk};
use crate::journal::{Act, Journal, as_of, nanoseconds};
use crate::kill::{load_and_kill, prepare};
use crate::order;
use crate::server::{Binary, Server, tail_of_log};
use crate::story::{Scale, Story};
use crate::trace::{self, Call, Event};
use crate::trouble::{During as _, Result, Trouble};
use crate::verify::{self, Findings};

/// The clients of a traced server: `strace` stops it at every call.
const SCALE: Scale =
    Scale { enrolling: 12, patching: 10, reporting: 4, sending: 10, registering_https: 40, registering_mqtt: 0 };
/// Acknowledgements after which the traced server is killed: enough for the write-ahead log to be taken over twice.
const ACKNOWLEDGED: u64 = 2_000;
/// Of so many power cuts one hits the write-ahead log being taken over, and one the very first start.
const SPECIAL_CUTS: u32 = 3;

/// The folder of the traced servers.
const TRACED: &str = "traced";
/// The file of the certificate authority in it.
const AUTHORITY: &str = "ca.pem";

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Wish {
    /// The server.
    pub binary: Binary,
    /// An empty folder for everything that is written.
    pub work: PathBuf,
    /// At how many moments the power fails.
    pub cuts: u32,
    /// Whether acknowledged work must be missing, and the order broken: the build is known to leave out its syncs.
    pub expect_loss: bool,
    /// Where chance begins.
    pub seed: u64,
}

/// What `strace` saw of two servers, one after the other on the same folder.
struct Traced {
    /// From its first start to a clean end.
    first: Vec<Event>,
    /// Under load, to its kill.
    second: Vec<Event>,
    /// What was asked of the second.
    acts: Vec<Act>,
}

/// Runs everything, and returns the line that tells how it went.
pub async fn run(wish: &Wish) -> Result<String> {
    let traced = traced_load(wish).await?;
    let order = order::check(&traced.second, &traced.acts);
    println!("order: {} in order, {} out of order", order.told(), order.broken.len());
    if let Some(kind) = order.absent().next() {
        return Err(Trouble::new(format!("the load had no {kind} acknowledged: nothing is shown of their order")));
    }
    if !wish.expect_loss {
        cut_first_start(wish, &traced).await?;
    }
    let (lost, cuts) = cut_load(wish, &traced).await?;
    if wish.expect_loss {
        return caught(&order, &lost, cuts);
    }
    if let Some(first) = order.broken.first() {
        return Err(Trouble::new(format!("{} acknowledgements out of order, such as {first}", order.broken.len())));
    }
    lost.check("after power cuts")?;
    Ok(format!(
        "synced before the acknowledgement: {}; {cuts} power cuts (seed {}), nothing missing or twice of {}",
        order.told(),
        wish.seed,
        lost.told()
    ))
}

/// What a build that does not sync must have come to.
fn caught(order: &order::Order, lost: &Findings, cuts: usize) -> Result<String> {
    if order.broken.is_empty() {
        return Err(Trouble::new(format!("a build without syncs passed the order check: {}", order.told())));
    }
    if lost.problems.is_empty() {
        return Err(Trouble::new("a build without syncs lost nothing in a power cut"));
    }
    Ok(format!(
        "a build without syncs is caught: {} acknowledgements out of order, {} problems after {cuts} power cuts",
        order.broken.len(),
        lost.problems.len()
    ))
}

/// Has a server written to and killed under `strace`, from its first start without a folder.
async fn traced_load(wish: &Wish) -> Result<Traced> {
    let folder = wish.work.join(TRACED);
    let traces = wish.work.join("trace");
    fs::create_dir_all(&traces)?;
    prepare(&wish.binary, &folder, Some(&traces.join("first"))).await.during("the first traced server")?;
    let server = Server::start(&wish.binary, &folder, Some(&traces.join("second"))).await?;
    let journal = Journal::starting_at(SCALE.fleet().len() as u32);
    load_and_kill(server, &SCALE, &journal, (0, ACKNOWLEDGED)).await.during("the traced server")?;
    let first = trace::read(&traces.join("first"), &folder)?;
    let second = trace::read(&traces.join("second"), &folder)?;
    let acts = journal.acts();
    println!("trace: {} calls, {} requests", first.len() + second.len(), acts.len());
    Ok(Traced { first, second, acts })
}

/// Cuts the power while the very first server starts and ends: whatever is left, another one starts on it.
async fn cut_first_start(wish: &Wish, traced: &Traced) -> Result<()> {
    let entropy = SeededEntropy::new(!wish.seed);
    let moments: Vec<u64> = traced.first.iter().map(|event| event.ended_at).collect();
    let mut disk = Disk::new(&wish.work.join(TRACED))?;
    let mut events = traced.first.iter().peekable();
    let chosen = choose(moments, wish.cuts.div_ceil(SPECIAL_CUTS), &entropy).during("moments of the first start")?;
    for (number, moment) in (0_u64..).zip(&chosen) {
        while let Some(event) = events.next_if(|event| event.ended_at <= *moment) {
            disk.apply(event)?;
        }
        let (folder, cut) = remains(wish, &disk, &format!("first-cut-{number}"), number)?;
        let server = Server::start(&wish.binary, &folder, None).await;
        server.during(format!("power cut {number} of the first start, {cut:?}"))?.stop().await?;
    }
    println!("first start: {} power cuts, and each time another server started", chosen.len());
    Ok(())
}

/// Cuts the power at moments of acknowledgements, and while the write-ahead log is taken over, and looks what is left
/// each time. Returns what was found, and after how many cuts.
async fn cut_load(wish: &Wish, traced: &Traced) -> Result<(Findings, usize)> {
    let entropy = SeededEntropy::new(wish.seed);
    let special = wish.cuts / SPECIAL_CUTS;
    let acknowledged = traced.acts.iter().filter_map(|act| Some(nanoseconds(act.acknowledged.as_ref()?.at)));
    let mut chosen =
        choose(acknowledged.collect(), wish.cuts - special, &entropy).during("moments of acknowledgements")?;
    // Under load, nothing but that writes to the main file of a database.
    let taken_over = traced.second.iter().filter(
        |event| matches!(&event.call, Call::Write { path, .. } | Call::Sync { path } if path.ends_with("/muster.db")),
    );
    let acknowledged = chosen.len();
    let taken_over = taken_over.map(|event| event.ended_at).collect();
    chosen.extend(choose(taken_over, special, &entropy).during("moments of checkpoints")?);
    println!("power cuts: {acknowledged} at acknowledgements, {} in checkpoints", chosen.len() - acknowledged);
    chosen.sort_unstable();
    let mut disk = Disk::new(&wish.work.join(TRACED))?;
    let mut events = traced.first.iter().chain(&traced.second).peekable();
    let mut findings = Findings::default();
    let cuts = chosen.len();
    for (number, moment) in (0_u64..).zip(chosen) {
        while let Some(event) = events.next_if(|event| event.ended_at <= moment) {
            disk.apply(event)?;
        }
        let (folder, cut) = remains(wish, &disk, &format!("cut-{number}"), number)?;
        let found = look(wish, &folder, &as_of(&traced.acts, moment)).await;
        match found.during(format!("power cut {number}, {cut:?}")) {
            Ok(found) => {
                println!("power cut {number}, {cut:?}: {}, {} problems", found.told(), found.problems.len());
                findings.add(found);
            }
            // Without syncs the folder may well be beyond use.
            Err(trouble) if wish.expect_loss => findings.problems.push(trouble.to_string()),
            Err(trouble) => return Err(trouble),
        }
    }
    Ok((findings, cuts))
}

/// `count` of `moments`, in order, none of them twice. There must be as many: what is not cut shows nothing.
fn choose(mut moments: Vec<u64>, count: u32, entropy: &dyn Entropy) -> Result<Vec<u64>> {
    let (wanted, found) = (usize::try_from(count)?, moments.len());
    if found < wanted {
        return Err(Trouble::new(format!("{wanted} are wanted, and there are {found}")));
    }
    let mut chosen = Vec::with_capacity(wanted);
    while chosen.len() < wanted {
        let chance = u64::from_le_bytes(random(entropy)) % moments.len() as u64;
        chosen.push(moments.swap_remove(usize::try_from(chance)?));
    }
    chosen.sort_unstable();
    Ok(chosen)
}

/// Puts what is left after power cut `number` into a folder called `name`; every second cut tears.
fn remains(wish: &Wish, disk: &Disk, name: &str, number: u64) -> Result<(PathBuf, Cut)> {
    let cut = if number.is_multiple_of(2) { Cut::Clean } else { Cut::Torn(wish.seed ^ number) };
    let folder = wish.work.join(name);
    disk.write_remains(&folder, cut)?;
    Ok((folder, cut))
}

/// Starts a server on what is left, and looks what it has.
async fn look(wish: &Wish, folder: &Path, acts: &[Act]) -> Result<Findings> {
    let server = Server::start(&wish.binary, folder, None).await?;
    let story = Story::read(&server).during(tail_of_log(folder))?;
    let mut findings = verify::look(&server, &story, acts, story.target(0)).await?;
    // Devices trust the authority of the first start for as long as they live.
    if fs::read(&server.endpoints.ca_file)? != fs::read(wish.work.join(TRACED).join(AUTHORITY))? {
        findings.problems.push("the certificate authority is another one".to_owned());
    }
    server.stop().await?;
    findings.add(verify::look_at_telemetry(folder, acts).await?);
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_different_moments_are_chosen_as_are_wanted_or_none() {
        let entropy = SeededEntropy::new(1);
        let cases: [(&str, &[u64], u32, bool); 4] = [
            ("some", &[5, 6, 7, 8, 9], 3, true),
            ("all", &[5, 6], 2, true),
            ("more than there are", &[5, 6], 3, false),
            ("one of nothing", &[], 1, false),
        ];
        for (name, moments, count, is_possible) in cases {
            let chosen = choose(moments.to_vec(), count, &entropy);
            assert_eq!(chosen.is_ok(), is_possible, "{name}");
            if let Ok(chosen) = chosen {
                assert_eq!(chosen.len(), count as usize, "{name}");
                assert!(chosen.is_sorted_by(|a, b| a < b) && chosen.iter().all(|one| moments.contains(one)), "{name}");
            }
        }
    }
}
