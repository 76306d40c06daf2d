//! `kill -9` under load, round after round on the same folder: each round ends in the middle of everything, and the next
//! server is held to what the last one had acknowledged.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use domain::clock::{Entropy, SeededEntropy, random};

use crate::journal::{Act, Journal};
use crate::load::{Load, register_again};
use crate::server::{Binary, Server};
use crate::story::{self, Scale, Story};
use crate::trouble::{During as _, Result, Trouble};
use crate::verify::{self, Findings};

/// Acknowledgements after which a round ends: in turn while the fleet registers, and later, when those who take their
/// time have been told their hub.
const ACKNOWLEDGED: [Range<u64>; 2] = [40..400, 400..6_000];
/// Time after which a round ends in any case.
const ROUND_TIMEOUT: Duration = Duration::from_secs(20);

/// About how long a start takes.
const START: Duration = Duration::from_millis(200);

/// The writing clients of each round: 36 of them, and 200 that register.
pub const SCALE: Scale =
    Scale { enrolling: 12, patching: 10, reporting: 4, sending: 10, registering_https: 100, registering_mqtt: 100 };

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Wish {
    /// The server.
    pub binary: Binary,
    /// An empty folder for everything that is written.
    pub work: PathBuf,
    /// How often the server is killed.
    pub rounds: u32,
    /// Where chance begins.
    pub seed: u64,
}

/// Runs every round, and returns the line that tells how it went.
pub async fn run(wish: &Wish) -> Result<String> {
    let folder = wish.work.join("data");
    let entropy = SeededEntropy::new(wish.seed);
    prepare(&wish.binary, &folder, None).await?;
    let mut history: Vec<Act> = Vec::new();
    let mut total = Findings::default();
    for round in 0..wish.rounds {
        let first = history.iter().map(|act| act.mark.0).max().unwrap_or(0).max(SCALE.fleet().len() as u32);
        let journal = Journal::starting_at(first);
        one_load(wish, &folder, round, &journal, limit(&entropy, round)).await.during(format!("round {round}"))?;
        let acts = journal.acts();
        // The next server is killed as well, somewhere between its first step and its readiness.
        let after = START.mul_f64(f64::from(u16::from_le_bytes(random(&entropy))) / f64::from(u16::MAX));
        Server::start_and_kill(&wish.binary, &folder, after).await.during(format!("after round {round}"))?;
        let server = Server::start(&wish.binary, &folder, None).await.during(format!("after round {round}"))?;
        let story = Story::read(&server)?;
        let mut findings = verify::look(&server, &story, &acts, story.target(round)).await?;
        server.stop().await?;
        findings.add(verify::look_at_telemetry(&folder, &acts).await?);
        println!("round {round}: {}", findings.told());
        findings.check(&format!("round {round}"))?;
        total.add(findings);
        history.extend(acts);
    }
    last_look(wish, &folder, &history).await?;
    Ok(format!("{} rounds of kill -9 (seed {}), nothing missing or twice of {}", wish.rounds, wish.seed, total.told()))
}

/// Makes the hubs and devices, and leaves the folder without a server. With `trace`, everything is traced.
pub async fn prepare(binary: &Binary, folder: &Path, trace: Option<&Path>) -> Result<()> {
    let server = Server::start(binary, folder, trace).await?;
    story::make_second_hub(&server).await?;
    server.stop().await
}

fn limit(entropy: &dyn Entropy, round: u32) -> u64 {
    let [early, late] = ACKNOWLEDGED;
    let range = if round.is_multiple_of(2) { late } else { early };
    range.start + u64::from_le_bytes(random(entropy)) % (range.end - range.start)
}

/// Starts a server, writes to it, and kills it after `limit` acknowledgements.
async fn one_load(wish: &Wish, folder: &Path, round: u32, journal: &Journal, limit: u64) -> Result<()> {
    let server = Server::start(&wish.binary, folder, None).await?;
    load_and_kill(server, &SCALE, journal, (round, limit)).await
}

/// Writes to `server` as in `round`, and kills it after `limit` acknowledgements.
pub async fn load_and_kill(server: Server, scale: &Scale, journal: &Journal, (round, limit): (u32, u64)) -> Result<()> {
    let story = Story::read(&server)?;
    if round == 0 {
        story.make_devices(&server, scale).await?;
    }
    story.send_fleet(&server, round).await?;
    let counts = verify::counts(&server, &story, scale).await?;
    let mut acknowledged = journal.acknowledged();
    let mut load =
        Load::start(&server.door, &story, journal, scale, &|device| counts.get(device).copied().unwrap_or(0));
    tokio::select! {
        reached = acknowledged.wait_for(|count| *count as u64 >= limit) => drop(reached?),
        trouble = load.trouble() => return Err(trouble),
        () = tokio::time::sleep(ROUND_TIMEOUT) => println!("round {round}: killed after its time, not its work"),
    }
    load.expect_the_end();
    server.kill().await?;
    load.finish().await
}

/// Looks for the whole history once more, and has every device of the fleet come back.
async fn last_look(wish: &Wish, folder: &Path, history: &[Act]) -> Result<()> {
    let server = Server::start(&wish.binary, folder, None).await?;
    let story = Story::read(&server)?;
    let target = story.target(wish.rounds.saturating_sub(1));
    verify::look(&server, &story, history, target).await?.check("the whole history")?;
    let journal = Journal::starting_at(0);
    for device in SCALE.fleet() {
        register_again(&server.door, &story, &journal, &device).await?;
    }
    verify::look(&server, &story, &journal.acts(), target).await?.check("devices that came back")?;
    if journal.acts().iter().any(|act| act.acknowledged.is_none()) {
        return Err(Trouble::new("a device that came back was not assigned"));
    }
    server.stop().await?;
    verify::look_at_telemetry(folder, history).await?.check("the whole telemetry")
}
