//! The power fails: a server is traced while it is written to, and what a disk would have kept at some moment is given
//! to another server, which must have everything acknowledged until then.
//!
//! The same trace is held to the order of writes, syncs and acknowledgements ([`crate::order`]). A build that does not
//! sync must fail both; [`Wish::expect_loss`] asks for that. Start at [`run`].

use std::fs;
use std::path::{Path, PathBuf};

use domain::clock::{SeededEntropy, UnixTime, random};

use crate::disk::{Cut, Disk};
use crate::journal::{Act, Journal, as_of};
use crate::kill::{load_and_kill, prepare};
use crate::order;
use crate::server::{Binary, Server, tail_of_log};
use crate::story::{Scale, Story};
use crate::trace::{self, Event};
use crate::trouble::{During as _, Result, Trouble};
use crate::verify::{self, Findings};

/// The clients of a traced server: `strace` stops it at every call.
const SCALE: Scale = Scale { enrolling: 12, patching: 10, sending: 10, registering_https: 40, registering_mqtt: 0 };
/// Acknowledgements after which the traced server is killed.
const ACKNOWLEDGED: u64 = 600;

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

/// Runs everything, and returns the line that tells how it went.
pub async fn run(wish: &Wish) -> Result<String> {
    let (events, acts) = traced_load(wish).await?;
    let order = order::check(&events, &acts);
    println!("order: {} in order, {} out of order", order.told(), order.broken.len());
    let lost = cut_off(wish, &events, &acts).await?;
    if wish.expect_loss {
        return caught(&order, &lost, wish);
    }
    if let Some(first) = order.broken.first() {
        return Err(Trouble::new(format!("{} acknowledgements out of order, such as {first}", order.broken.len())));
    }
    lost.check("after power cuts")?;
    Ok(format!(
        "synced before the acknowledgement: {}; {} power cuts (seed {}), nothing missing or twice of {}",
        order.told(),
        wish.cuts,
        wish.seed,
        lost.told()
    ))
}

/// What a build that does not sync must have come to.
fn caught(order: &order::Order, lost: &Findings, wish: &Wish) -> Result<String> {
    if order.broken.is_empty() {
        return Err(Trouble::new(format!("a build without syncs passed the order check: {}", order.told())));
    }
    if lost.problems.is_empty() {
        return Err(Trouble::new("a build without syncs lost nothing in a power cut"));
    }
    Ok(format!(
        "a build without syncs is caught: {} acknowledgements out of order, {} problems after {} power cuts",
        order.broken.len(),
        lost.problems.len(),
        wish.cuts
    ))
}

/// Has a server written to and killed under `strace`, from its first start on an empty folder.
async fn traced_load(wish: &Wish) -> Result<(Vec<Event>, Vec<Act>)> {
    let folder = wish.work.join("traced");
    let traces = wish.work.join("trace");
    fs::create_dir_all(&folder)?;
    fs::create_dir_all(&traces)?;
    prepare(&wish.binary, &folder, Some(&traces.join("first"))).await.during("the first traced server")?;
    let server = Server::start(&wish.binary, &folder, Some(&traces.join("second"))).await?;
    let journal = Journal::starting_at(SCALE.fleet().len() as u32);
    load_and_kill(server, &SCALE, &journal, (0, ACKNOWLEDGED)).await.during("the traced server")?;
    let mut events = trace::read(&traces.join("first"), &folder)?;
    events.extend(trace::read(&traces.join("second"), &folder)?);
    let acts = journal.acts();
    println!("trace: {} calls, {} requests", events.len(), acts.len());
    Ok((events, acts))
}

/// Cuts the power at moments of acknowledgements, and looks what is left each time.
async fn cut_off(wish: &Wish, events: &[Event], acts: &[Act]) -> Result<Findings> {
    let mut moments: Vec<UnixTime> = acts.iter().filter_map(|act| Some(act.acknowledged.as_ref()?.at)).collect();
    moments.sort_unstable();
    let entropy = SeededEntropy::new(wish.seed);
    let mut chosen: Vec<UnixTime> = (0..wish.cuts)
        .filter_map(|_| {
            let chance = u64::from_le_bytes(random(&entropy)) % moments.len().max(1) as u64;
            moments.get(usize::try_from(chance).ok()?).copied()
        })
        .collect();
    chosen.sort_unstable();
    let mut disk = Disk::new(&wish.work.join("traced"))?;
    let mut events = events.iter().peekable();
    let mut findings = Findings::default();
    for (number, moment) in (0_u64..).zip(chosen) {
        while let Some(event) = events.next_if(|event| event.ended_at <= moment.micros().unsigned_abs() * 1_000) {
            disk.apply(event)?;
        }
        let cut = if number.is_multiple_of(2) { Cut::Clean } else { Cut::Torn(wish.seed ^ number) };
        let folder = wish.work.join(format!("cut-{number}"));
        fs::create_dir_all(&folder)?;
        disk.write_remains(&folder, cut)?;
        let found = look(&wish.binary, &folder, &as_of(acts, moment)).await;
        let found = found.during(format!("power cut {number}, {cut:?}"));
        match found {
            Ok(found) => {
                println!("power cut {number}, {cut:?}: {}, {} problems", found.told(), found.problems.len());
                findings.add(found);
            }
            // Without syncs the folder may well be beyond use.
            Err(trouble) if wish.expect_loss => findings.problems.push(trouble.to_string()),
            Err(trouble) => return Err(trouble),
        }
    }
    Ok(findings)
}

/// Starts a server on what is left, and looks what it has.
async fn look(binary: &Binary, folder: &Path, acts: &[Act]) -> Result<Findings> {
    let server = Server::start(binary, folder, None).await?;
    let story = Story::read(&server).during(tail_of_log(folder))?;
    let mut findings = verify::look(&server, &story, acts, story.target(0)).await?;
    server.stop().await?;
    findings.add(verify::look_at_telemetry(folder, acts).await?);
    Ok(findings)
}
