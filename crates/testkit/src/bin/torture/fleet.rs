//! A thousand devices that send at once, over every transport, while the server is killed: what was acknowledged is read
//! exactly once through the Event Hubs-compatible endpoint, each device's messages in their order.
//!
//! The server comes back on the same folder and the same ports, and the devices with it. Each partition is read in parts,
//! one for each life of the server, each resumed by the offset at which the last one broke off, and then once more as a
//! whole. Start at [`run`].

mod check;
mod device;
mod reader;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use client::service::ConnectionString;
use domain::clock::{SeededEntropy, random};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use self::check::check;
use self::device::{Life, Log, Senders};
use self::reader::{Owner, Reader};
use crate::http::{Request, Session};
use crate::server::{Binary, Server};
use crate::story::{self, Access};
use crate::trouble::{During as _, Result, Trouble};
use crate::verify::Findings;

/// The server's folder, in the folder for everything.
const FOLDER: &str = "data";
/// Identities that one request makes.
const BULK: usize = 100;
/// Files that each end may have open besides one socket for each device.
const OTHER_FILES: u64 = 200;
/// Time in which the devices have sent everything; far more than they take.
const SENDING_TIMEOUT: Duration = Duration::from_secs(600);

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Wish {
    /// The server.
    pub binary: Binary,
    /// An empty folder for everything that is written.
    pub work: PathBuf,
    /// How many devices.
    pub devices: u32,
    /// How many messages each of them sends.
    pub messages: u32,
    /// How often the server is killed meanwhile.
    pub kills: u32,
    /// Where chance begins.
    pub seed: u64,
}

/// Everything that was sent, by device.
type Everything = BTreeMap<String, Log>;

/// Sends, kills, reads and judges, and returns the line that tells how it went.
pub async fn run(wish: &Wish) -> Result<String> {
    allow_open_files(wish.devices)?;
    let server = Server::start(&wish.binary, &wish.work.join(FOLDER), None).await?;
    let owner = owner_of(&server)?;
    let names: Vec<String> = (1..=wish.devices).map(|number| format!("fleet-{number:05}")).collect();
    make_devices(&server, &owner.access, &names).await?;
    let begun_at = Instant::now();
    let (server, sent, parts) = send_and_kill(wish, server, &owner, &names).await?;
    let sent_after_s = begun_at.elapsed().as_secs();
    let ends = reader::ends(&server.door, &owner).await?;
    let mut findings = Findings::default();
    let mut wholes = Vec::new();
    for (mut parts, end) in parts.into_iter().zip(ends) {
        let mut whole = Reader::new(owner.clone(), parts.partition);
        parts.read_to(&server.door, end).await.during(format!("the rest of partition {}", parts.partition))?;
        whole.read_to(&server.door, end).await.during(format!("the whole of partition {}", parts.partition))?;
        if parts.read != whole.read {
            findings.problem(format!("partition {} reads differently in parts", parts.partition));
        }
        wholes.push(whole.read);
    }
    server.stop().await?;
    findings.add(check(&sent, &wholes));
    judge(wish, &findings, sent_after_s)
}

fn judge(wish: &Wish, findings: &Findings, sent_after_s: u64) -> Result<String> {
    let Wish { devices, messages, kills, seed, binary, .. } = wish;
    let told = findings.told();
    let expected = u64::from(*devices) * u64::from(*messages);
    if findings.acknowledged.values().sum::<usize>() as u64 != expected {
        return Err(Trouble::new(format!("not every one of {expected} messages was acknowledged, but {told}")));
    }
    if binary.forgetful {
        return match findings.problems.len() {
            0 => Err(Trouble::new(format!("nobody noticed that messages were forgotten: {told}"))),
            problems => Ok(format!("the server that forgets was caught: {problems} problems; {told}")),
        };
    }
    findings.check("what the devices sent")?;
    let how = format!("{devices} devices sent for {sent_after_s} s through {kills} kills (seed {seed})");
    Ok(format!("{how}, each message read once and in order, in parts and at once, of {told}"))
}

/// Has this process, and the servers it starts, open as many files as `devices` take.
fn allow_open_files(devices: u32) -> Result<()> {
    let needed = u64::from(devices) + OTHER_FILES;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < needed) {
        let wanted = Rlimit { current: Some(needed), maximum };
        setrlimit(Resource::Nofile, wanted).during(format!("asking for {needed} open files"))?;
    }
    Ok(())
}

/// Whoever owns the hub that everything goes to.
fn owner_of(server: &Server) -> Result<Owner> {
    let [hub] = server.endpoints.hubs.as_slice() else { return Err(Trouble::new("one hub is expected")) };
    let ConnectionString { policy, .. } = ConnectionString::parse(&hub.connection_string)?;
    Ok(Owner { access: story::access(&hub.connection_string)?, policy, event_hub: hub.name.clone() })
}

async fn make_devices(server: &Server, access: &Access, names: &[String]) -> Result<()> {
    let mut session = Session::open(&server.door, &access.host).await?;
    for names in names.chunks(BULK) {
        let mut identities = Vec::new();
        for name in names {
            let key = story::key_of(name)?.to_base64();
            let keys = json!({ "primaryKey": key, "secondaryKey": key });
            let authentication = json!({ "type": "sas", "symmetricKey": keys });
            identities.push(json!({ "id": name, "importMode": "create", "authentication": authentication }));
        }
        let identities = Value::from(identities);
        let request = Request::new("POST", "/devices?api-version=2021-04-12", &access.token).with(&identities);
        session.ask(request).await?.success().during("making the fleet")?;
    }
    Ok(())
}

/// Has every device send everything, kills the server meanwhile, and reads what there is until each kill. Returns the last
/// server, what was sent, and who read each partition.
async fn send_and_kill(
    wish: &Wish,
    mut server: Server,
    owner: &Owner,
    names: &[String],
) -> Result<(Server, Everything, Vec<Reader>)> {
    let partitions = reader::ends(&server.door, owner).await?.len();
    let mut readers: Vec<Reader> = (0..partitions).map(|partition| Reader::new(owner.clone(), partition)).collect();
    let lives = watch::Sender::new(Life::FIRST);
    let mut senders = Senders::start(&server.door, &owner.access.host, names, (wish.messages, &lives));
    let mut acknowledged = senders.acknowledged();
    let ports = server.endpoints.ports;
    let entropy = SeededEntropy::new(wish.seed);
    for kill in 0..wish.kills {
        let limit = limit(wish, kill, &entropy);
        let mut parts = follow(&server, readers);
        tokio::select! {
            reached = acknowledged.wait_for(|count| *count >= limit) => drop(reached?),
            trouble = senders.trouble() => return Err(trouble),
            Some(ended) = parts.join_next() => {
                ended?.1?;
                return Err(Trouble::new("a reader came to its end before the server did"));
            }
        }
        lives.send_modify(|life| life.is_over = true);
        server.kill().await?;
        readers = broken_off(parts).await?;
        let read: usize = readers.iter().map(|reader| reader.read.len()).sum();
        println!("killed at {limit} acknowledgements, with {read} messages read");
        server = Server::start_again(&wish.binary, &wish.work.join(FOLDER), ports).await.during("after the kill")?;
        lives.send_modify(|life| *life = life.next());
    }
    let sent = timeout(SENDING_TIMEOUT, senders.finish()).await.during("waiting for the devices")??;
    Ok((server, sent, readers))
}

/// After how many acknowledgements the server is killed: somewhere in the middle half of each part of the whole.
fn limit(wish: &Wish, kill: u32, entropy: &SeededEntropy) -> u64 {
    let part = u64::from(wish.devices) * u64::from(wish.messages) / u64::from(wish.kills.max(1));
    part * u64::from(kill) + part / 4 + u64::from_le_bytes(random(entropy)) % (part / 2).max(1)
}

/// Readers on their way, each with how it ended.
type Parts = JoinSet<(Reader, Result<()>)>;

/// Has every partition be read on as messages come.
#[expect(clippy::disallowed_methods, reason = "the end of each task is looked at")]
fn follow(server: &Server, readers: Vec<Reader>) -> Parts {
    let mut parts = JoinSet::new();
    for mut reader in readers {
        let door = server.door.clone();
        parts.spawn(async move {
            let ended = reader.follow(&door).await;
            (reader, ended)
        });
    }
    parts
}

/// The readers of a server that was killed.
async fn broken_off(mut parts: Parts) -> Result<Vec<Reader>> {
    let mut readers = Vec::new();
    while let Some(ended) = parts.join_next().await {
        readers.push(ended?.0);
    }
    readers.sort_by_key(|reader| reader.partition);
    Ok(readers)
}
