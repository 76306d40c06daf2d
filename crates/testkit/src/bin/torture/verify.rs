//! Holds a restarted server to the journal: what was acknowledged is there, what was not has at most one outcome.
//!
//! Looks through the public service APIs, as an operator would; telemetry is read from the log once the server has
//! ended. Finds every problem and hides none behind another.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use service::clock::{SystemClock, SystemEntropy};
use store::ports::{ReadFrom, ResourceStore as _, TelemetryLog as _};
use store::sqlite::{Embedded, Options};

use crate::http::{Request, Session};
use crate::journal::{Act, Change, Section};
use crate::load::device_of;
use crate::server::Server;
use crate::story::{Access, Scale, Story};
use crate::trouble::{During as _, Result, Trouble};

/// Messages read at once.
const PAGE: usize = 1_000;
/// How long a registration that was under way may go on after a restart before it counts as forgotten.
const SETTLING_TIMEOUT: Duration = Duration::from_secs(20);
/// Problems of one kind that are told one by one.
const TOLD_MAX: usize = 5;
/// How the problem ends that an acknowledged change is.
pub const LOST: &str = "was acknowledged and is not there";

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// How many acknowledged changes were looked for, by kind.
    pub acknowledged: BTreeMap<&'static str, usize>,
    /// How many that were not acknowledged had happened all the same.
    pub done_unheard: usize,
    /// What must not be, in words.
    pub problems: Vec<String>,
}

impl Findings {
    /// Adds what another look found.
    pub fn add(&mut self, other: Self) {
        for (kind, count) in other.acknowledged {
            *self.acknowledged.entry(kind).or_default() += count;
        }
        self.done_unheard += other.done_unheard;
        self.problems.extend(other.problems);
    }

    /// How many acknowledged changes there were, in words.
    pub fn told(&self) -> String {
        let kinds: Vec<String> = self.acknowledged.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        format!("{}; {} unheard", kinds.join(", "), self.done_unheard)
    }

    /// The problems, or nothing.
    pub fn check(&self, what: &str) -> Result<()> {
        if self.problems.is_empty() {
            return Ok(());
        }
        let told: Vec<&str> = self.problems.iter().take(TOLD_MAX).map(String::as_str).collect();
        Err(Trouble::new(format!("{what}: {} problems, among them\n  {}", self.problems.len(), told.join("\n  "))))
    }

    /// How many acknowledged changes are not there.
    pub fn lost(&self) -> usize {
        self.problems.iter().filter(|problem| problem.ends_with(LOST)).count()
    }

    /// Adds one.
    pub fn problem(&mut self, text: String) {
        self.problems.push(text);
    }

    /// Whether something is there, where only acknowledged changes must be.
    fn judge(&mut self, act: &Act, is_present: bool) {
        if act.acknowledged.is_some() {
            *self.acknowledged.entry(act.change.kind()).or_default() += 1;
        }
        match (act.acknowledged.is_some(), is_present) {
            (true, false) => {
                self.problem(format!("{:?} {} {LOST}", act.change, act.mark));
            }
            (false, true) => self.done_unheard += 1,
            (true, true) | (false, false) => {}
        }
    }
}

/// Looks at everything but telemetry. `acts` is the journal as it was when the server ended, `target` the host name of
/// the hub that the fleet was being sent to.
pub async fn look(server: &Server, story: &Story, acts: &[Act], target: &str) -> Result<Findings> {
    let mut findings = Findings::default();
    look_at_enrollments(server, story, acts, &mut findings).await?;
    look_at_twins(server, story, acts, &mut findings).await?;
    look_at_fleet(server, story, (acts, target), &mut findings).await?;
    Ok(findings)
}

async fn look_at_enrollments(server: &Server, story: &Story, acts: &[Act], findings: &mut Findings) -> Result<()> {
    let access = &story.provisioning;
    let mut session = Session::open(&server.door, &access.host).await?;
    for act in acts.iter().filter(|act| act.change == Change::Enrollment) {
        let target = format!("/enrollments/{}?api-version=2021-10-01", act.mark);
        let answer = session.ask(Request::new("GET", &target, &access.token)).await?;
        if answer.status == 404 {
            findings.judge(act, false);
            continue;
        }
        let answer = answer.success()?;
        let device = answer.body.get("deviceId").and_then(Value::as_str);
        if device != Some(device_of(act.mark).as_str()) {
            findings.problem(format!("enrollment {} is another than was asked for: {}", act.mark, answer.body));
        }
        findings.judge(act, true);
    }
    Ok(())
}

/// Where the twins of the devices stand that are patched or report.
pub async fn counts(server: &Server, story: &Story, scale: &Scale) -> Result<HashMap<String, u64>> {
    let [hub, _] = &story.hubs;
    let mut session = Session::open(&server.door, &hub.host).await?;
    let mut counts = HashMap::new();
    for (devices, section) in [(scale.patched(), Section::Desired), (scale.reporters(), Section::Reported)] {
        for device in devices {
            let (count, _) = properties(&mut session, hub, (&device, section)).await?.unwrap_or_default();
            counts.insert(device, count);
        }
    }
    Ok(counts)
}

/// `count` and `$version` of a device's properties; nothing if there is no such device.
async fn properties(
    session: &mut Session,
    hub: &Access,
    (device, section): (&str, Section),
) -> Result<Option<(u64, u64)>> {
    let target = format!("/twins/{device}?api-version=2021-04-12");
    let answer = session.ask(Request::new("GET", &target, &hub.token)).await?;
    if answer.status == 404 {
        return Ok(None);
    }
    let answer = answer.success()?;
    let section = section.name();
    let number = |name: &str| answer.body.pointer(&format!("/properties/{section}/{name}")).and_then(Value::as_u64);
    let version = number("$version").ok_or_else(|| Trouble::new(format!("a twin without version: {}", answer.body)))?;
    Ok(Some((number("count").unwrap_or(0), version)))
}

async fn look_at_twins(server: &Server, story: &Story, acts: &[Act], findings: &mut Findings) -> Result<()> {
    let [hub, _] = &story.hubs;
    let mut session = Session::open(&server.door, &hub.host).await?;
    let mut patches: BTreeMap<(&str, Section), Vec<(&Act, u64)>> = BTreeMap::new();
    for act in acts {
        if let Change::Twin { device, section, count } = &act.change {
            patches.entry((device, *section)).or_default().push((act, *count));
        }
    }
    for ((device, section), patches) in patches {
        let found = properties(&mut session, hub, (device, section)).await?;
        let (count, version) = found.unwrap_or_default();
        // The first version is that of the empty document, and each patch counts it up once.
        if found.is_some() && version != count + 1 {
            findings.problem(format!("{device}, {section:?}: {count} patches led to version {version}"));
        }
        if patches.iter().all(|(_, asked)| *asked < count) {
            findings.problem(format!("{device}, {section:?}: count {count} was never asked for"));
        }
        for (act, asked) in patches {
            findings.judge(act, asked <= count);
        }
    }
    Ok(())
}

/// What the journal says of one device of the fleet.
#[derive(Debug, Default)]
struct Expected<'a> {
    /// The act that told it that its last registration is under way; the store then leads it to a hub by itself.
    accepted: Option<&'a Act>,
    /// The hub it was told last, if nothing was asked for since.
    assigned: Option<&'a str>,
    /// The act that told it.
    act: Option<&'a Act>,
}

fn expectations(acts: &[Act]) -> BTreeMap<&str, Expected<'_>> {
    let mut devices: BTreeMap<&str, Expected<'_>> = BTreeMap::new();
    for act in acts {
        match &act.change {
            Change::Registration { device } => {
                let assigned = act.acknowledged.as_ref().and_then(|acknowledged| acknowledged.hub.as_deref());
                devices.insert(device, Expected { accepted: None, assigned, act: Some(act) });
            }
            Change::Accepted { device } => {
                devices.entry(device).or_default().accepted = act.acknowledged.is_some().then_some(act);
            }
            Change::Enrollment | Change::Twin { .. } | Change::Telemetry => {}
        }
    }
    devices
}

async fn look_at_fleet(
    server: &Server,
    story: &Story,
    (acts, target): (&[Act], &str),
    findings: &mut Findings,
) -> Result<()> {
    let expected = expectations(acts);
    if expected.is_empty() {
        return Ok(());
    }
    let before = identities(server, story, target).await?;
    check_one_identity(&before, "at once after the restart", findings);
    let access = &story.provisioning;
    let mut session = Session::open(&server.door, &access.host).await?;
    let mut records = BTreeMap::new();
    for device in expected.keys() {
        records.insert(*device, settled_record(&mut session, access, device).await?);
    }
    let after = identities(server, story, target).await?;
    check_one_identity(&after, "once everything was over", findings);
    for (device, expected) in expected {
        let record = records.get(device).cloned().flatten();
        let hubs = after.get(device).cloned().unwrap_or_default();
        let assigned = record.as_ref().and_then(|record| record.assigned_hub.as_deref());
        if hubs.iter().map(String::as_str).ne(assigned) {
            findings.problem(format!("{device}: recorded at {assigned:?}, identities at {hubs:?}"));
        }
        if let Some(act) = expected.act {
            match expected.assigned {
                Some(hub) => findings.judge(act, assigned == Some(hub)),
                None => findings.judge(act, assigned.is_some()),
            }
        }
        if let Some(act) = expected.accepted {
            findings.judge(act, record.is_some_and(|record| record.status == "assigned"));
        }
    }
    Ok(())
}

#[derive(Clone, Debug)]
struct Record {
    status: String,
    assigned_hub: Option<String>,
}

/// The record of a registration once it is no longer under way; nothing if there is none.
async fn settled_record(session: &mut Session, access: &Access, device: &str) -> Result<Option<Record>> {
    let target = format!("/registrations/{device}?api-version=2021-10-01");
    let looked_until = Instant::now() + SETTLING_TIMEOUT;
    while Instant::now() < looked_until {
        let answer = session.ask(Request::new("GET", &target, &access.token)).await?;
        if answer.status == 404 {
            return Ok(None);
        }
        let answer = answer.success()?;
        let text = |name: &str| answer.body.get(name).and_then(Value::as_str).map(str::to_owned);
        let status = text("status").unwrap_or_default();
        if status != "assigning" {
            return Ok(Some(Record { status, assigned_hub: text("assignedHub") }));
        }
    }
    Err(Trouble::new(format!("the registration of {device} is under way for ever")))
}

/// The hubs at which each device has an identity. Registrations go on meanwhile, and what moves, moves to `target`: a
/// device that is seen there first and then still at the other hub has two identities.
async fn identities(server: &Server, story: &Story, target: &str) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let (first, second): (Vec<&Access>, Vec<&Access>) = story.hubs.iter().partition(|hub| hub.host == target);
    for hub in first.into_iter().chain(second) {
        let mut session = Session::open(&server.door, &hub.host).await?;
        let all = "/devices?top=1000&api-version=2021-04-12";
        let answer = session.ask(Request::new("GET", all, &hub.token)).await?.success()?;
        let devices = answer.body.as_array().ok_or_else(|| Trouble::new("the hub lists no devices"))?;
        for device in devices.iter().filter_map(|device| device.get("deviceId").and_then(Value::as_str)) {
            found.entry(device.to_owned()).or_default().insert(hub.host.clone());
        }
    }
    Ok(found)
}

fn check_one_identity(identities: &BTreeMap<String, BTreeSet<String>>, when: &str, findings: &mut Findings) {
    for (device, hubs) in identities.iter().filter(|(_, hubs)| hubs.len() > 1) {
        findings.problem(format!("{device} has identities at {hubs:?} {when}"));
    }
}

/// Reads the telemetry log in `folder`, which no server holds, and looks for every message.
pub async fn look_at_telemetry(folder: &Path, acts: &[Act]) -> Result<Findings> {
    let mut findings = Findings::default();
    let options = Options { folder: Some(folder.to_owned()), ..Options::default() };
    let store = Embedded::open(options, Arc::new(SystemClock), &SystemEntropy).during("opening the store")?;
    let mut bodies: HashMap<Vec<u8>, usize> = HashMap::new();
    let log = store.telemetry();
    for hub in store.load_resources().await?.hubs {
        for partition in 0..hub.partitions {
            let mut from = ReadFrom::Start;
            loop {
                let page = log.read(hub.key, partition, from, PAGE).await?;
                let Some(last) = page.last() else { break };
                from = ReadFrom::AfterSequence(last.position.sequence);
                for stored in &page {
                    *bodies.entry(stored.message.draft.body.to_vec()).or_default() += 1;
                }
            }
        }
    }
    store.close().await;
    for act in acts.iter().filter(|act| act.change == Change::Telemetry) {
        let times = bodies.get(act.mark.to_string().as_bytes()).copied().unwrap_or(0);
        if times > 1 {
            findings.problem(format!("message {} was sent once and is there {times} times", act.mark));
        }
        findings.judge(act, times > 0);
    }
    Ok(findings)
}
