//! Messages on their way to endpoints: in order, from where the endpoint was, and apart if they are not taken.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use domain::ids::{EndpointName, HubName, Precondition};
use domain::message::Message;
use domain::operation::resource::{Ask as ResourceAsk, HubDraft};
use domain::operation::route::{Answer, Ask, DeadLetter, EndpointHealth, HealthStatus};
use domain::operation::{Operation, Reply};
use domain::route::{
    Condition, Endpoint, Parcel, Refusal, Route, Routing, RoutingDraft, Source, Target, Url, Webhook, WebhookMode,
};
use serde_json::Map;
use service::{Courier, RouteSettings, Service, Settings};
use store::conformance::telemetry::message;
use store::ports::{RouteStore as _, TelemetryLog as _};
use tokio::sync::watch;

use crate::ground::{Ground, PATIENCE, open};

/// An endpoint that remembers what it took, and takes what it is told to.
struct Recorder {
    taken: watch::Sender<Vec<String>>,
    refusals: Mutex<HashMap<String, Refusal>>,
    /// How often it refused a message as such.
    refused: watch::Sender<u64>,
    asked: watch::Sender<u64>,
    /// Whether it answers.
    answers: watch::Sender<bool>,
    /// Whether the server stops; whatever is under way listens.
    stops: watch::Sender<bool>,
    /// How many it takes at once.
    most: usize,
}

impl Recorder {
    fn new() -> Arc<Self> {
        Self::taking(usize::MAX)
    }

    fn taking(most: usize) -> Arc<Self> {
        let (refusals, answers) = (Mutex::default(), watch::Sender::new(true));
        let (taken, refused, asked) = (watch::Sender::default(), watch::Sender::default(), watch::Sender::default());
        Arc::new(Self { taken, refusals, refused, asked, answers, stops: watch::Sender::default(), most })
    }

    /// What it says to a message with this body; to all if it is empty.
    fn refuse(&self, body: &str, refusal: Option<Refusal>) {
        let mut refusals = self.refusals.lock().unwrap();
        match refusal {
            Some(refusal) => refusals.insert(body.to_owned(), refusal),
            None => refusals.remove(body),
        };
    }

    fn judge(&self, body: &str) -> Result<(), Refusal> {
        let refusals = self.refusals.lock().unwrap();
        let refusal = refusals.get("").or_else(|| refusals.get(body)).cloned();
        let is_of_message = refusal.as_ref().is_some_and(|refusal| refusal.is_of_message);
        self.refused.send_modify(|refused| *refused += u64::from(is_of_message));
        refusal.map_or(Ok(()), Err)
    }

    async fn has_taken(&self, expected: &[&str]) {
        let mut taken = self.taken.subscribe();
        let waiting = taken.wait_for(|taken| taken.len() >= expected.len());
        let waited = tokio::time::timeout(PATIENCE, waiting).await.map(drop);
        assert_eq!(*self.taken.borrow(), expected, "{waited:?}");
    }

    /// Waits until it was asked so often more.
    async fn is_asked(&self, times: u64) {
        let mut asked = self.asked.subscribe();
        let wanted = *asked.borrow() + times;
        tokio::time::timeout(PATIENCE, asked.wait_for(|asked| *asked >= wanted)).await.unwrap().unwrap();
    }
}

#[async_trait]
impl Courier for Recorder {
    fn begin(&self) -> Option<Box<dyn Send + Sync>> {
        (!*self.stops.borrow()).then(|| Box::new(self.stops.subscribe()) as Box<dyn Send + Sync>)
    }

    async fn send(&self, endpoint: &Endpoint, parcels: &[Parcel]) -> (usize, Result<(), Refusal>) {
        self.asked.send_modify(|asked| *asked += 1);
        if endpoint.name != hook() {
            return std::future::pending().await;
        }
        self.answers.subscribe().wait_for(|answers| *answers).await.unwrap();
        for (index, parcel) in parcels.iter().enumerate().take(self.most) {
            let body = String::from_utf8(parcel.message.draft.body.to_vec()).unwrap();
            if let Err(refusal) = self.judge(&body) {
                return (index, Err(refusal));
            }
            self.taken.send_modify(|taken| taken.push(body));
        }
        (parcels.len().min(self.most), Ok(()))
    }
}

fn settings(dead_letters_max: u64) -> Settings {
    let routes = RouteSettings {
        attempts_max: 3,
        dead_letters_max,
        pause: Duration::from_millis(1),
        pause_max: Duration::from_millis(2),
        ..RouteSettings::default()
    };
    Settings { routes, ..Settings::default() }
}

fn hook() -> EndpointName {
    "hook".parse().unwrap()
}

fn endpoint(name: EndpointName) -> Endpoint {
    let url = Url::parse("https://example.org/", &[("https", 443)], "").unwrap();
    let webhook = Webhook { url, mode: WebhookMode::Single, headers: Vec::new(), authority: None };
    Endpoint { name, target: Target::Webhook(webhook), labels: Map::new() }
}

fn route(name: &str, endpoint: EndpointName, condition: &str) -> Route {
    Route {
        name: name.parse().unwrap(),
        source: Source::DeviceMessages,
        condition: Condition::parse(condition).unwrap(),
        endpoint,
        enabled: true,
    }
}

fn routing(condition: &str) -> Routing {
    let routes = vec![route("route", hook(), condition)];
    Routing { endpoints: vec![endpoint(hook())], routes, ..Routing::default() }
}

/// Everything goes to so many endpoints that never answer, and to the one that does.
fn beside_silent_ones(silent: usize) -> Routing {
    let mut routing = routing("true");
    for number in 0..silent {
        let name: EndpointName = format!("silent-{number}").parse().unwrap();
        routing.routes.push(route(name.as_str(), name.clone(), "true"));
        routing.endpoints.push(endpoint(name));
    }
    routing
}

/// A task that sends to endpoints until it is dropped.
struct Running(tokio::task::JoinHandle<()>);

impl Running {
    #[expect(clippy::disallowed_methods, reason = "a test's tasks end with its runtime")]
    fn start(service: &Service, recorder: &Arc<Recorder>) -> Self {
        let (service, courier) = (service.clone(), Arc::clone(recorder) as Arc<dyn Courier>);
        Self(tokio::spawn(async move { service.run_routes(courier).await }))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Ground {
    async fn put(&self, routing: Routing) {
        self.put_at(self.hub().name.clone(), routing).await;
    }

    async fn put_at(&self, name: HubName, routing: Routing) {
        let draft = HubDraft { routing: Some(RoutingDraft { routing, unsaid: Vec::new() }), ..HubDraft::default() };
        let place = self.place();
        let ask = ResourceAsk::PutHub { place, name, draft: Box::new(draft), precondition: Precondition::None };
        self.service.perform(&self.operator(), Operation::Resource(ask)).await.unwrap();
    }

    async fn append(&self, partition: u16, bodies: &[&str]) {
        for body in bodies {
            let message = Message { hub: self.hub().key, ..message(self.hub().key, partition, body) };
            self.store.inner().telemetry().append(message).await.unwrap();
        }
    }

    async fn ask(&self, ask: Ask) -> Answer {
        match self.service.perform(&self.operator(), Operation::Route(ask)).await.unwrap() {
            Reply::Route(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    async fn letters(&self) -> Vec<DeadLetter> {
        let ask = Ask::ListDeadLetters { hub: self.hub().name.clone(), endpoint: hook(), limit: 10 };
        let Answer::DeadLetters(letters) = self.ask(ask).await else { panic!("no letters") };
        letters
    }

    async fn health(&self) -> EndpointHealth {
        let ask = Ask::Health { place: self.place(), hub: self.hub().name.clone() };
        let Answer::Health(mut all) = self.ask(ask).await else { panic!("no health") };
        all.pop().unwrap()
    }
}

#[tokio::test]
async fn messages_are_told_in_order_from_where_the_endpoint_began() {
    let ground = Ground::with(settings(9)).await;
    ground.append(1, &["before"]).await;
    ground.put(routing("true")).await;
    ground.append(1, &["1", "2"]).await;
    let recorder = Recorder::new();
    let _running = Running::start(&ground.service, &recorder);
    recorder.has_taken(&["1", "2"]).await;
    ground.append(1, &["3"]).await;
    recorder.has_taken(&["1", "2", "3"]).await;
    assert_eq!(ground.health().await.status, HealthStatus::Healthy);
}

#[tokio::test]
async fn an_endpoint_goes_on_where_it_was_when_the_server_starts_again() {
    let ground = Ground::with(settings(9)).await;
    ground.put(routing("true")).await;
    let recorder = Recorder::new();
    let running = Running::start(&ground.service, &recorder);
    ground.append(0, &["1"]).await;
    recorder.has_taken(&["1"]).await;
    // Until its cursor is noted it may be told again.
    let noted = async {
        let told = || ground.store.inner();
        while told().begin_endpoint(ground.hub().key, &hook(), vec![None]).await.unwrap() != Some(vec![Some(0)]) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, noted).await.unwrap();
    drop(running);
    ground.append(0, &["2"]).await;
    let again = open(&ground.store, &ground.clock, settings(9)).await.unwrap();
    let recorder = Recorder::new();
    let _running = Running::start(&again, &recorder);
    recorder.has_taken(&["2"]).await;
}

#[tokio::test]
async fn a_condition_decides_and_a_change_of_it_counts_at_once() {
    let ground = Ground::with(settings(9)).await;
    ground.put(routing("$connectionDeviceId = 'other'")).await;
    let recorder = Recorder::new();
    let _running = Running::start(&ground.service, &recorder);
    ground.append(0, &["1"]).await;
    ground.put(Routing { endpoints: Vec::new(), ..Routing::default() }).await;
    ground.put(routing("$connectionDeviceId = 'dev'")).await;
    ground.append(0, &["2"]).await;
    recorder.has_taken(&["2"]).await;
}

#[tokio::test]
async fn an_endpoint_that_is_gone_for_a_while_gets_everything_in_order() {
    let ground = Ground::with(settings(9)).await;
    ground.put(routing("true")).await;
    let recorder = Recorder::new();
    recorder.refuse("", Some(Refusal::of_all("it is away")));
    let _running = Running::start(&ground.service, &recorder);
    ground.append(0, &["1", "2", "3"]).await;
    recorder.is_asked(10).await;
    let health = ground.health().await;
    assert_eq!((health.status, health.last_error.as_deref()), (HealthStatus::Unhealthy, Some("it is away")));
    recorder.refuse("", None);
    recorder.has_taken(&["1", "2", "3"]).await;
    assert!(ground.letters().await.is_empty());
}

#[tokio::test]
async fn a_message_that_is_not_taken_is_kept_apart_and_can_be_sent_again() {
    let ground = Ground::with(settings(9)).await;
    ground.put(routing("true")).await;
    let recorder = Recorder::new();
    recorder.refuse("2", Some(Refusal::of_message("it is ugly")));
    let _running = Running::start(&ground.service, &recorder);
    ground.append(0, &["1", "2", "3"]).await;
    recorder.has_taken(&["1", "3"]).await;
    let letters = ground.letters().await;
    let [letter] = &letters[..] else { panic!("{letters:?}") };
    assert_eq!((letter.message.draft.body.as_ref(), letter.reason.as_str()), (b"2".as_slice(), "it is ugly"));
    assert!(letter.attempts >= 3);
    recorder.refuse("2", None);
    let replayed = ground.ask(Ask::Replay { hub: ground.hub().name.clone(), endpoint: hook() }).await;
    assert!(matches!(replayed, Answer::Replayed(1)));
    recorder.has_taken(&["1", "3", "2"]).await;
}

#[tokio::test]
async fn nothing_is_given_up_while_as_many_are_kept_as_may_be() {
    let ground = Ground::with(settings(1)).await;
    ground.put(routing("true")).await;
    let recorder = Recorder::new();
    recorder.refuse("", Some(Refusal::of_message("no")));
    let _running = Running::start(&ground.service, &recorder);
    ground.append(0, &["1", "2", "3"]).await;
    recorder.is_asked(20).await;
    assert_eq!(ground.letters().await.len(), 1);
    recorder.refuse("", None);
    recorder.has_taken(&["2", "3"]).await;
}

#[tokio::test]
async fn a_message_that_has_become_old_is_given_up_whatever_the_reason() {
    let ground = Ground::with(settings(9)).await;
    ground.put(routing("true")).await;
    let recorder = Recorder::new();
    recorder.refuse("", Some(Refusal::of_all("it is away")));
    ground.append(0, &["1", "2"]).await;
    ground.clock.advance(RouteSettings::default().age_max);
    ground.append(0, &["3"]).await;
    let _running = Running::start(&ground.service, &recorder);
    recorder.is_asked(5).await;
    let bodies: Vec<_> = ground.letters().await.iter().map(|letter| letter.message.draft.body.clone()).collect();
    assert_eq!(bodies, ["1", "2"]);
    assert_eq!(ground.health().await.status, HealthStatus::Dead);
    recorder.refuse("", None);
    recorder.has_taken(&["3"]).await;
}

#[tokio::test]
async fn endpoints_that_never_answer_hold_no_other_up() {
    let ground = Ground::with(settings(9)).await;
    let other: HubName = "other".parse().unwrap();
    ground.put(beside_silent_ones(9)).await;
    ground.put_at(other.clone(), beside_silent_ones(9)).await;
    let recorder = Recorder::new();
    let _running = Running::start(&ground.service, &recorder);
    let other = ground.service.resources().hubs().iter().find(|hub| hub.name == other).unwrap().key;
    ground.store.inner().telemetry().append(message(other, 0, "1")).await.unwrap();
    recorder.has_taken(&["1"]).await;
    ground.append(0, &["2"]).await;
    recorder.has_taken(&["1", "2"]).await;
    let mut asked = recorder.asked.subscribe();
    let all = asked.wait_for(|asked| *asked == 20);
    tokio::time::timeout(PATIENCE, all).await.unwrap().unwrap();
    ground.append(1, &["3"]).await;
    recorder.has_taken(&["1", "2", "3"]).await;
}

#[tokio::test]
async fn an_endpoint_that_takes_some_gets_the_rest_next_and_is_well() {
    let ground = Ground::with(settings(9)).await;
    ground.put(routing("true")).await;
    let recorder = Recorder::taking(2);
    ground.append(0, &["1", "2", "3", "4", "5"]).await;
    let _running = Running::start(&ground.service, &recorder);
    recorder.has_taken(&["1", "2", "3", "4", "5"]).await;
    let health = ground.health().await;
    assert_eq!((health.status, health.last_error), (HealthStatus::Healthy, None));
}

#[tokio::test]
async fn an_endpoint_made_anew_gets_nothing_of_before_even_where_a_message_is_on_its_way() {
    let ground = Ground::with(settings(9)).await;
    ground.put(routing("true")).await;
    let recorder = Recorder::new();
    recorder.answers.send_replace(false);
    recorder.refuse("1", Some(Refusal::of_all("it is away")));
    let _running = Running::start(&ground.service, &recorder);
    ground.append(0, &["1"]).await;
    let mut asked = recorder.asked.subscribe();
    tokio::time::timeout(PATIENCE, asked.wait_for(|asked| *asked == 1)).await.unwrap().unwrap();
    ground.put(Routing::default()).await;
    ground.put(routing("true")).await;
    recorder.answers.send_replace(true);
    ground.append(0, &["2"]).await;
    recorder.has_taken(&["2"]).await;
}

#[tokio::test]
async fn only_refusals_of_a_message_count_before_it_is_given_up() {
    let ground = Ground::with(settings(9)).await;
    ground.put(routing("true")).await;
    let recorder = Recorder::new();
    recorder.refuse("", Some(Refusal::of_all("it is away")));
    recorder.refuse("1", Some(Refusal::of_message("it is ugly")));
    let _running = Running::start(&ground.service, &recorder);
    ground.append(0, &["1"]).await;
    recorder.is_asked(10).await;
    assert_eq!(*recorder.refused.borrow(), 0);
    recorder.refuse("", None);
    ground.append(0, &["2"]).await;
    recorder.has_taken(&["2"]).await;
    assert_eq!(*recorder.refused.borrow(), 3);
    let [letter] = &ground.letters().await[..] else { panic!("it was given up") };
    assert!(letter.attempts >= 13, "{}", letter.attempts);
}

#[tokio::test]
async fn what_is_sent_again_in_vain_holds_the_log_up_no_more_than_once_and_is_left_alone_in_the_end() {
    let ground = Ground::with(settings(9)).await;
    ground.put(routing("true")).await;
    let recorder = Recorder::new();
    recorder.refuse("1", Some(Refusal::of_message("it is ugly")));
    let _running = Running::start(&ground.service, &recorder);
    ground.append(0, &["1", "2"]).await;
    recorder.has_taken(&["2"]).await;
    // As a server says that breaks at it.
    recorder.refuse("1", Some(Refusal::of_all("it answers 500")));
    let asked = *recorder.asked.borrow();
    ground.ask(Ask::Replay { hub: ground.hub().name.clone(), endpoint: hook() }).await;
    ground.append(0, &["3"]).await;
    recorder.has_taken(&["2", "3"]).await;
    let settled = async {
        loop {
            let letters = ground.letters().await;
            let [letter] = &letters[..] else { panic!("{letters:?}") };
            if !letter.is_due {
                return letter.reason.clone();
            }
            tokio::task::yield_now().await;
        }
    };
    assert_eq!(tokio::time::timeout(PATIENCE, settled).await.unwrap(), "it answers 500");
    assert_eq!(*recorder.asked.borrow() - asked, 4, "three times the letter, once the log");
}

#[tokio::test]
async fn a_server_that_stops_notes_what_is_on_its_way_and_begins_nothing() {
    let ground = Ground::with(settings(9)).await;
    ground.put(routing("true")).await;
    let recorder = Recorder::new();
    recorder.answers.send_replace(false);
    let _running = Running::start(&ground.service, &recorder);
    ground.append(0, &["1", "2"]).await;
    let mut asked = recorder.asked.subscribe();
    tokio::time::timeout(PATIENCE, asked.wait_for(|asked| *asked == 1)).await.unwrap().unwrap();
    recorder.stops.send_replace(true);
    ground.append(0, &["3"]).await;
    recorder.answers.send_replace(true);
    tokio::time::timeout(PATIENCE, recorder.stops.closed()).await.unwrap();
    let told = ground.store.inner().begin_endpoint(ground.hub().key, &hook(), vec![None]).await.unwrap();
    assert_eq!(told, Some(vec![Some(1)]));
    assert_eq!(*recorder.taken.borrow(), ["1", "2"]);
}
