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
use std::pin::pin;
use std::time::{Duration, Instant};

use client::events::EventHub;
use domain::clock::{SeededEntropy, random};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::timeout;

use self::check::check;
use self::device::{Life, Log, Senders};
use self::reader::Reader;
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
    let (hub, access) = hub_of(&server)?;
    let names: Vec<String> = (1..=wish.devices).map(|number| format!("fleet-{number:05}")).collect();
    make_devices(&server, &access, &names).await?;
    let begun_at = Instant::now();
    let (server, sent, mut parts) = send_and_kill(wish, server, (&hub, &access.host), &names).await?;
    let sent_after_s = begun_at.elapsed().as_secs();
    let ends = reader::ends(&server.door, &hub).await?;
    parts.read_to(&server.door, &ends).await.during("reading the rest")?;
    let mut whole = Reader::new(&hub, &ends);
    whole.read_to(&server.door, &ends).await.during("reading the whole")?;
    let mut findings = Findings::default();
    for (partition, read) in &whole.read {
        if parts.read.get(partition) != Some(read) {
            findings.problem(format!("partition {partition} reads differently in parts"));
        }
    }
    server.stop().await?;
    findings.add(check(&sent, &whole.read));
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
        return match findings.lost() {
            0 => Err(Trouble::new(format!("nobody noticed that messages were forgotten: {told}"))),
            lost => {
                Ok(format!("the server that forgets was caught: {lost} acknowledged messages are not there; {told}"))
            }
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

/// The hub that everything goes to: where it is read, and the right to make its devices.
fn hub_of(server: &Server) -> Result<(EventHub, Access)> {
    let [hub] = server.endpoints.hubs.as_slice() else { return Err(Trouble::new("one hub is expected")) };
    let endpoint = EventHub::parse(&hub.event_hub_connection_string, server.endpoints.ports.amqps)?;
    Ok((endpoint, story::access(&hub.connection_string)?))
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
/// server, what was sent, and who read it so far.
async fn send_and_kill(
    wish: &Wish,
    mut server: Server,
    (hub, host): (&EventHub, &str),
    names: &[String],
) -> Result<(Server, Everything, Reader)> {
    let mut reader = Reader::new(hub, &reader::ends(&server.door, hub).await?);
    let lives = watch::Sender::new(Life::FIRST);
    let mut senders = Senders::start(&server.door, host, names, (wish.messages, &lives));
    let mut acknowledged = senders.acknowledged();
    let ports = server.endpoints.ports;
    let entropy = SeededEntropy::new(wish.seed);
    for kill in 0..wish.kills {
        let limit = limit(wish, kill, &entropy);
        let door = server.door.clone();
        {
            let mut following = pin!(reader.follow(&door));
            tokio::select! {
                reached = acknowledged.wait_for(|count| *count >= limit) => drop(reached?),
                trouble = senders.trouble() => return Err(trouble),
                ended = &mut following => return Err(ended).during("reading before the kill"),
            }
            lives.send_modify(|life| life.is_over = true);
            server.kill().await?;
            // What had arrived is read to its end.
            following.await;
        }
        let read: usize = reader.read.values().map(Vec::len).sum();
        println!("killed at {limit} acknowledgements, with {read} messages read");
        server = Server::start_again(&wish.binary, &wish.work.join(FOLDER), ports).await.during("after the kill")?;
        lives.send_modify(|life| *life = life.next());
    }
    let sent = timeout(SENDING_TIMEOUT, senders.finish()).await.during("waiting for the devices")??;
    Ok((server, sent, reader))
}

/// After how many acknowledgements the server is killed: somewhere in the middle half of each part of the whole.
fn limit(wish: &Wish, kill: u32, entropy: &SeededEntropy) -> u64 {
    let part = u64::from(wish.devices) * u64::from(wish.messages) / u64::from(wish.kills.max(1));
    part * u64::from(kill) + part / 4 + u64::from_le_bytes(random(entropy)) % (part / 2).max(1)
}

#[cfg(test)]
mod tests;
