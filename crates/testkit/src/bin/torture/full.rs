//! A disk that is full under load: everybody is told to come again, what is there can be read, writing goes on by itself
//! once there is room, and after a kill nothing that was acknowledged is missing.
//!
//! The server's folder must be a small disk of its own (`cargo xtask torture` mounts one), since all its room is taken.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use tokio::time::timeout;

use crate::http::{Request, Session};
use crate::journal::{Act, Journal};
use crate::kill;
use crate::load::Load;
use crate::server::{Binary, Server, log_of};
use crate::story::{Scale, Story};
use crate::trouble::{During as _, Result, Trouble};
use crate::verify;

/// Acknowledgements before the disk is filled, and again when there is room.
const ACKNOWLEDGED: usize = 400;
/// Time within which clients come so far, or are refused.
const PATIENCE: Duration = Duration::from_secs(30);
/// What the server says of a full disk.
const TOLD: &str = "no room left on the disk; make room, and writing goes on by itself";
/// The writing clients. Nobody registers, since a registration that is refused is made once only.
const SCALE: Scale =
    Scale { enrolling: 8, patching: 8, reporting: 4, sending: 12, registering_https: 0, registering_mqtt: 0 };

/// Where the small disk is.
const DISK: &str = "disk";

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Wish {
    /// The server.
    pub binary: Binary,
    /// A folder in which [`DISK`] is an empty small disk.
    pub work: PathBuf,
}

/// Fills the disk once, and returns the line that tells how it went.
pub async fn run(wish: &Wish) -> Result<String> {
    let (folder, ballast) = (wish.work.join(DISK), wish.work.join(DISK).join("ballast"));
    kill::prepare(&wish.binary, &folder, None).await?;
    let server = Server::start(&wish.binary, &folder, None).await?;
    let story = Story::read(&server)?;
    story.make_devices(&server, &SCALE).await?;

    let before = Journal::starting_at(0);
    let load = write(&server, &story, &before).await?;
    take_all_room(&ballast)?;
    // Each client ends with the first thing that it is refused.
    timeout(PATIENCE, load.finish()).await.during("waiting for every client to be refused")??;
    expect_refusal(&server, &story).await?;
    if !log_of(&folder).contains(TOLD) {
        return Err(Trouble::new(format!("the log of the server does not tell of {TOLD:?}")));
    }
    let mut acts = before.acts();
    look(&server, &story, &acts).await.during("while the disk is full")?;

    std::fs::remove_file(&ballast)?;
    let after = Journal::starting_at(acts.iter().map(|act| act.mark.0).max().unwrap_or(0));
    let load = write(&server, &story, &after).await.during("when there is room again")?;
    server.kill().await?;
    load.finish().await?;
    acts.extend(after.acts());

    let server = Server::start(&wish.binary, &folder, None).await?;
    let told = look(&server, &story, &acts).await?;
    server.stop().await?;
    let telemetry = verify::look_at_telemetry(&folder, &acts).await?;
    telemetry.check("the telemetry")?;
    Ok(format!("a full disk under load, nothing missing or twice of {told}; {}", telemetry.told()))
}

/// Writes until enough is acknowledged; what goes wrong from then on is no trouble.
async fn write(server: &Server, story: &Story, journal: &Journal) -> Result<Load> {
    let counts = verify::counts(server, story, &SCALE).await?;
    let mut acknowledged = journal.acknowledged();
    let mut load =
        Load::start(&server.door, story, journal, &SCALE, &|device| counts.get(device).copied().unwrap_or(0));
    tokio::select! {
        reached = acknowledged.wait_for(|count| *count >= ACKNOWLEDGED) => drop(reached?),
        trouble = load.trouble() => return Err(trouble),
        () = tokio::time::sleep(PATIENCE) => return Err(Trouble::new("the clients do not come on")),
    }
    load.expect_the_end();
    Ok(load)
}

/// Fills the disk to its last byte.
fn take_all_room(ballast: &Path) -> Result<()> {
    let mut file = File::create(ballast)?;
    for piece in [1 << 16, 1 << 12, 1] {
        let piece = vec![0; piece];
        let refused = loop {
            if let Err(refused) = file.write_all(&piece) {
                break refused;
            }
        };
        if refused.kind() != ErrorKind::StorageFull {
            return Err(refused).during("filling the disk");
        }
    }
    Ok(())
}

async fn expect_refusal(server: &Server, story: &Story) -> Result<()> {
    let access = &story.provisioning;
    let mut session = Session::open(&server.door, &access.host).await?;
    let body = json!({ "registrationId": "nobody", "attestation": { "type": "symmetricKey" } });
    let request = Request::new("PUT", "/enrollments/nobody?api-version=2021-10-01", &access.token).with(&body);
    let answer = session.ask(request).await?;
    match answer.status {
        503 => Ok(()),
        other => Err(Trouble::new(format!("a full disk is answered by {other}: {}", answer.body))),
    }
}

async fn look(server: &Server, story: &Story, acts: &[Act]) -> Result<String> {
    let findings = verify::look(server, story, acts, story.target(0)).await?;
    findings.check("a full disk")?;
    Ok(findings.told())
}
