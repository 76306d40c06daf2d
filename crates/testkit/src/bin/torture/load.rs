//! The writing clients: each asks, waits for its acknowledgement, notes it, and asks again, until the server is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use client::device::{Credential, DeviceClient, Dial, ProvisioningClient};
use domain::clock::Clock as _;
use domain::operation::Transport;
use serde_json::json;
use service::clock::SystemClock;
use tokio::task::JoinSet;

use crate::http::{Answer, Request, Session};
use crate::journal::{Acknowledged, Act, Change, Ends, Entry, Journal, Mark, Section};
use crate::mqtt::Device;
use crate::server::Door;
use crate::story::{self, Scale, Story};
use crate::trouble::{During as _, Result, Trouble};

/// How long a registration is asked about before it is given up. A device is told to wait between two questions; this one
/// is in a hurry.
const REGISTRATION_TIMEOUT: Duration = Duration::from_secs(30);

/// What every client of one server needs.
#[derive(Clone)]
struct Client {
    door: Door,
    story: Arc<Story>,
    journal: Journal,
}

/// All clients of one server.
pub struct Load {
    clients: JoinSet<Result<()>>,
    over: Arc<AtomicBool>,
}

/// What one client does until the server is gone, or until it is done.
#[derive(Clone, Debug)]
enum Work {
    Enroll,
    Patch { device: String, count: u64 },
    Report { device: String, count: u64 },
    Send { device: String },
    RegisterHttps { device: String, mark: Mark },
    RegisterMqtt { device: String, mark: Mark },
}

impl Load {
    /// Starts every client at once. `counts` is where the twin of each device stands.
    #[expect(clippy::disallowed_methods, reason = "the end of each task is looked at")]
    pub fn start(door: &Door, story: &Story, journal: &Journal, scale: &Scale, counts: &dyn Fn(&str) -> u64) -> Self {
        let client = Client { door: door.clone(), story: Arc::new(story.clone()), journal: journal.clone() };
        let over = Arc::new(AtomicBool::new(false));
        let mut clients = JoinSet::new();
        for work in works(scale, counts) {
            let (client, over) = (client.clone(), Arc::clone(&over));
            clients.spawn(async move {
                let what = format!("{work:?}");
                match client.perform(work).await {
                    Err(_) if over.load(Ordering::SeqCst) => Ok(()),
                    done => done.during(what),
                }
            });
        }
        Self { clients, over }
    }

    /// Says that whatever goes wrong from here on is no wonder.
    pub fn expect_the_end(&self) {
        self.over.store(true, Ordering::SeqCst);
    }

    /// Waits for every client's end. Trouble of any of them before the end was expected is trouble.
    pub async fn finish(mut self) -> Result<()> {
        while let Some(done) = self.clients.join_next().await {
            done??;
        }
        Ok(())
    }

    /// Trouble that came before the end was expected; never answers if there is none.
    pub async fn trouble(&mut self) -> Trouble {
        while let Some(done) = self.clients.join_next().await {
            match done {
                Ok(Ok(())) => {}
                Ok(Err(trouble)) => return trouble,
                Err(panicked) => return panicked.into(),
            }
        }
        std::future::pending().await
    }
}

fn works(scale: &Scale, counts: &dyn Fn(&str) -> u64) -> Vec<Work> {
    let mut works = Vec::new();
    works.extend((0..scale.enrolling).map(|_| Work::Enroll));
    works.extend(scale.patched().into_iter().map(|device| Work::Patch { count: counts(&device), device }));
    works.extend(scale.reporters().into_iter().map(|device| Work::Report { count: counts(&device), device }));
    works.extend(scale.senders().into_iter().map(|device| Work::Send { device }));
    for (device, number) in scale.fleet().into_iter().zip(1..) {
        let mark = Mark(number);
        works.push(match number <= scale.registering_https {
            true => Work::RegisterHttps { device, mark },
            false => Work::RegisterMqtt { device, mark },
        });
    }
    works
}

/// Registers `device` over HTTPS and waits for its hub.
pub async fn register_again(door: &Door, story: &Story, journal: &Journal, device: &str) -> Result<()> {
    let client = Client { door: door.clone(), story: Arc::new(story.clone()), journal: journal.clone() };
    let digits = device.rsplit('-').next().and_then(|digits| digits.parse().ok());
    let mark = Mark(digits.ok_or_else(|| Trouble::new("a device of the fleet is called by its mark"))?);
    client.register_over_https(device, mark).await
}

impl Client {
    async fn perform(&self, work: Work) -> Result<()> {
        match work {
            Work::Enroll => self.enroll().await,
            Work::Patch { device, count } => self.patch(&device, count).await,
            Work::Report { device, count } => self.report(&device, count).await,
            Work::Send { device } => self.send(&device).await,
            Work::RegisterHttps { device, mark } => self.register_over_https(&device, mark).await,
            Work::RegisterMqtt { device, mark } => self.register_over_mqtt(&device, mark).await,
        }
    }

    async fn enroll(&self) -> Result<()> {
        let access = &self.story.provisioning;
        let mut session =
            self.session(&access.host, "/enrollments/nobody?api-version=2021-10-01", &access.token).await?;
        loop {
            let mark = self.journal.mark();
            let body = json!({
                "registrationId": mark.to_string(), "deviceId": device_of(mark),
                "attestation": { "type": "symmetricKey" },
            });
            let target = format!("/enrollments/{mark}?api-version=2021-10-01");
            let entry = self.begin(Change::Enrollment, mark, Some(session.ends()?));
            session.ask(Request::new("PUT", &target, &access.token).with(&body)).await?.success()?;
            self.acknowledge(entry, None);
        }
    }

    async fn patch(&self, device: &str, mut count: u64) -> Result<()> {
        let [access, _] = &self.story.hubs;
        let target = format!("/twins/{device}?api-version=2021-04-12");
        let mut session = self.session(&access.host, &target, &access.token).await?;
        loop {
            count += 1;
            let mark = self.journal.mark();
            let desired = json!({ "count": count, "mark": mark.to_string() });
            let body = json!({ "properties": { "desired": desired } });
            let change = Change::Twin { device: device.to_owned(), section: Section::Desired, count };
            let entry = self.begin(change, mark, Some(session.ends()?));
            session.ask(Request::new("PATCH", &target, &access.token).with(&body)).await?.success()?;
            self.acknowledge(entry, None);
        }
    }

    async fn report(&self, device: &str, mut count: u64) -> Result<()> {
        let [access, _] = &self.story.hubs;
        let dial = Dial::new(self.door.mqtts(&access.host), Transport::Mqtt);
        let credential = Credential::symmetric_key(Arc::clone(&self.door.tls), story::key_of(device)?);
        let mut client = DeviceClient::connect(&dial, device, &credential, SystemClock.now()).await?;
        loop {
            count += 1;
            let mark = self.journal.mark();
            let change = Change::Twin { device: device.to_owned(), section: Section::Reported, count };
            let entry = self.begin(change, mark, None);
            client.report(&json!({ "count": count, "mark": mark.to_string() })).await?;
            self.acknowledge(entry, None);
        }
    }

    async fn send(&self, device: &str) -> Result<()> {
        let [access, _] = &self.story.hubs;
        let token = story::device_token(&access.host, device)?;
        let mut device = Device::connect(&self.door, &access.host, device, token).await?;
        let ends = device.ends()?;
        loop {
            let mark = self.journal.mark();
            let entry = self.begin(Change::Telemetry, mark, Some(ends));
            device.send(mark.to_string()).await?;
            self.acknowledge(entry, None);
        }
    }

    /// Two acknowledgements: that the registration is accepted, and the hub. The answer that tells the hub is not the
    /// first thing written to the socket after the request, so that only the first is looked for in a trace.
    async fn register_over_https(&self, device: &str, mark: Mark) -> Result<()> {
        let (host, scope) = (&self.story.device_endpoint, &self.story.id_scope);
        let token = story::registration_token(scope, device)?;
        let own = format!("/{scope}/registrations/{device}");
        let mut session = self.session(host, "/nothing", &token).await?;
        let assigned = self.begin(Change::Registration { device: device.to_owned() }, mark, None);
        let accepted = self.begin(Change::Accepted { device: device.to_owned() }, mark, Some(session.ends()?));
        let body = json!({ "registrationId": device });
        let target = format!("{own}/register?api-version=2021-06-01");
        let mut answer = session.ask(Request::new("PUT", &target, &token).with(&body)).await?.success()?;
        self.acknowledge(accepted, None);
        let operation = text(&answer, "/operationId")?;
        let target = format!("{own}/operations/{operation}?api-version=2021-06-01");
        let asked_until = Instant::now() + REGISTRATION_TIMEOUT;
        while Instant::now() < asked_until {
            if text(&answer, "/status")? == "assigned" {
                let hub = text(&answer, "/registrationState/assignedHub")?;
                self.acknowledge(assigned, Some(hub));
                return Ok(());
            }
            answer = session.ask(Request::new("GET", &target, &token)).await?.success()?;
        }
        Err(Trouble::new(format!("the registration does not end: {}", answer.body)))
    }

    async fn register_over_mqtt(&self, device: &str, mark: Mark) -> Result<()> {
        let dial = Dial::new(self.door.mqtts(&self.story.device_endpoint), Transport::Mqtt);
        let credential = Credential::symmetric_key(Arc::clone(&self.door.tls), story::fleet_key(device)?);
        let client = ProvisioningClient::new(dial, self.story.id_scope.as_str());
        let entry = self.begin(Change::Registration { device: device.to_owned() }, mark, None);
        let registration = client.register(device, None, &credential, SystemClock.now()).await?;
        self.acknowledge(entry, Some(registration.assigned_hub));
        Ok(())
    }

    /// A connection that has been spoken on once: what TLS still writes after its handshake is written.
    async fn session(&self, host: &str, target: &str, token: &str) -> Result<Session> {
        let mut session = Session::open(&self.door, host).await?;
        session.ask(Request::new("GET", target, token)).await?;
        Ok(session)
    }

    fn begin(&self, change: Change, mark: Mark, connection: Option<Ends>) -> Entry {
        self.journal.begin(Act { change, mark, connection, sent_at: SystemClock.now(), acknowledged: None })
    }

    fn acknowledge(&self, entry: Entry, hub: Option<String>) {
        self.journal.acknowledge(entry, Acknowledged { at: SystemClock.now(), hub });
    }
}

/// The device that an enrollment names.
pub fn device_of(mark: Mark) -> String {
    format!("device-of-{mark}")
}

/// A text of an answer's body.
pub fn text(answer: &Answer, pointer: &str) -> Result<String> {
    let found = answer.body.pointer(pointer).and_then(serde_json::Value::as_str);
    Ok(found.ok_or_else(|| Trouble::new(format!("no {pointer} in {}", answer.body)))?.to_owned())
}
