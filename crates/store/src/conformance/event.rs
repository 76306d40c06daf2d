//! Promises of [`crate::ports::EventStore`], and of the verbs that write events.

use domain::digital_twin;
use domain::event::{Change, changed_parts, whole_twin};
use domain::event::{Event, Patches};
use domain::ids::{EndpointName, HubKey, Precondition, RouteName};
use domain::message::{EventSource, Origin};
use domain::operation::identity::IdentityName;
use domain::operation::session::Memory;
use domain::resource::Hub;
use domain::route::{Condition, EVENTS, Route, Routing, Source};
use domain::twin::ServiceChange;
use serde_json::Value;

use super::sample::{NOON, after, claims, device, hub, identity, module, object};
use super::{Backend, Done as _};
use crate::ports::{KeptEvent, Store};

const EVERY: usize = 1_000;

/// A routing that leads `sources` to the hub's own endpoint.
fn routing(sources: &[EventSource]) -> Routing {
    let route = |source: &EventSource| Route {
        name: RouteName::parse(&format!("{source:?}")).unwrap(),
        source: Source::of(Origin::Hub(*source)),
        condition: Condition::parse("true").unwrap(),
        endpoint: EndpointName::parse(EVENTS).unwrap(),
        enabled: true,
    };
    Routing { routes: sources.iter().map(route).collect(), ..Routing::default() }
}

/// A hub that tells of `sources`.
pub async fn telling(store: &dyn Store, sources: &[EventSource]) -> Hub {
    let hub = Hub { routing: routing(sources), ..hub("telling") };
    store.create_hub(hub, None, NOON).await.unwrap().done()
}

async fn told(store: &dyn Store) -> Vec<Event> {
    store.events_after(0, EVERY).await.unwrap().0.into_iter().map(|kept| kept.event).collect()
}

/// The changes told of, and by whom.
fn changes(events: &[Event]) -> Vec<(Change, IdentityName)> {
    events.iter().map(|event| (event.change, event.name.clone())).collect()
}

fn desired(text: &str) -> ServiceChange {
    ServiceChange { tags: None, desired: Some(object(text)) }
}

/// Everything that hubs tell of, once: with `name` made before.
async fn live(store: &dyn Store, hub: HubKey, name: &IdentityName) {
    let made = store.create_identity(hub, identity(name.clone(), 1), None, NOON).await.unwrap().done();
    store.patch_twin(hub, name, desired(r#"{"a":1}"#), Precondition::None, after(1)).await.unwrap().done();
    store.apply_reported(hub, name, object(r#"{"b":2}"#), None, after(2)).await.unwrap().done();
    store.replace_twin(hub, name, desired(r#"{"c":3}"#), Precondition::None, after(3)).await.unwrap().done();
    let claim =
        store.claim_connection(hub, name, claims(&made.generation, Memory::Resume), after(4)).await.unwrap().unwrap();
    store.release_connection(hub, name, claim.epoch, after(5)).await.unwrap();
    store.delete_identity(hub, name, Precondition::None).await.unwrap().done();
}

pub async fn a_hub_tells_of_nothing_unless_it_is_asked_to(backend: &Backend) {
    let store = &*backend.store;
    let hub = telling(store, &[]).await;
    let mut wakes = store.event_changes();
    wakes.mark_unchanged();
    live(store, hub.key, &device("dev")).await;
    assert_eq!(told(store).await, []);
    assert!(!wakes.has_changed().unwrap());
}

pub async fn each_source_tells_of_its_own_changes_alone(backend: &Backend) {
    let store = &*backend.store;
    let mut hub = telling(store, &[]).await;
    let of = |source| match source {
        EventSource::Lifecycle => vec![Change::Created, Change::Deleted],
        EventSource::TwinChange => vec![Change::TwinUpdated, Change::TwinUpdated, Change::TwinReplaced],
        EventSource::ConnectionState => vec![Change::Connected, Change::Disconnected],
        EventSource::DigitalTwinChange => vec![Change::DigitalTwinUpdated; 3],
    };
    for source in EventSource::ALL {
        hub.routing = routing(&[source]);
        hub = store.replace_hub(hub, Precondition::None, NOON).await.unwrap().done();
        let mut wakes = store.event_changes();
        wakes.mark_unchanged();
        let (_, before) = store.events_after(0, EVERY).await.unwrap();
        live(store, hub.key, &device("dev")).await;
        assert!(wakes.has_changed().unwrap());
        let (kept, _) = store.events_after(before, EVERY).await.unwrap();
        let found: Vec<_> = kept.iter().map(|kept| kept.event.change).collect();
        assert_eq!(found, of(source), "{source:?}");
    }
}

pub async fn a_twin_that_changes_is_told_of_with_what_it_came_to(backend: &Backend) {
    let store = &*backend.store;
    let hub = telling(store, &[EventSource::TwinChange, EventSource::DigitalTwinChange]).await.key;
    let name = device("dev");
    let made = store.create_identity(hub, identity(name.clone(), 1), None, NOON).await.unwrap().done();
    let (first, _) = store.find_twin(hub, &name).await.unwrap().done();
    let change = ServiceChange { tags: Some(object(r#"{"t":1}"#)), desired: Some(object(r#"{"a":1}"#)) };
    let (patched, _) = store.patch_twin(hub, &name, change, Precondition::None, after(1)).await.unwrap().done();
    store.apply_reported(hub, &name, object(r#"{"b":2}"#), None, after(2)).await.unwrap().done();
    let (reported, _) = store.find_twin(hub, &name).await.unwrap().done();
    let refused = store.apply_reported(hub, &name, object(r#"{"$version":2}"#), None, after(3)).await.unwrap();
    assert!(matches!(refused, crate::ports::TwinOutcome::Refused(_)));
    let (replaced, _) =
        store.replace_twin(hub, &name, desired("{}"), Precondition::None, after(4)).await.unwrap().done();

    let difference = |before, after| {
        let [before, after] = [before, after].map(|twin| digital_twin::view(twin, &made));
        Value::Array(digital_twin::difference(&before, &after))
    };
    let patches = Patches { tags: Some(object(r#"{"t":1}"#)), desired: Some(object(r#"{"a":1}"#)), reported: None };
    let report = Patches { reported: Some(object(r#"{"b":2}"#)), ..Patches::default() };
    let expected = [
        (Change::TwinUpdated, after(1), changed_parts(&patched, patches)),
        (Change::DigitalTwinUpdated, after(1), difference(&first, &patched)),
        (Change::TwinUpdated, after(2), changed_parts(&reported, report)),
        (Change::DigitalTwinUpdated, after(2), difference(&patched, &reported)),
        (Change::TwinReplaced, after(4), whole_twin(&replaced, &made)),
        (Change::DigitalTwinUpdated, after(4), difference(&reported, &replaced)),
    ];
    let generation = made.generation;
    let expected = expected.map(|(change, at, body)| Event {
        hub,
        name: name.clone(),
        generation: generation.clone(),
        change,
        at,
        body: Some(body),
    });
    assert_eq!(told(store).await, expected);
}

pub async fn a_connection_is_told_of_when_it_begins_and_when_it_ends(backend: &Backend) {
    let store = &*backend.store;
    let hub = telling(store, &[EventSource::ConnectionState]).await.key;
    let name = device("dev");
    let made = store.create_identity(hub, identity(name.clone(), 1), None, NOON).await.unwrap().done();
    let claim = || store.claim_connection(hub, &name, claims(&made.generation, Memory::Resume), after(1));
    let first = claim().await.unwrap().unwrap();
    let second = claim().await.unwrap().unwrap();
    assert!(!store.release_connection(hub, &name, first.epoch, after(2)).await.unwrap());
    assert_eq!(changes(&told(store).await), [(Change::Connected, name.clone())]);
    assert!(store.release_connection(hub, &name, second.epoch, after(3)).await.unwrap());
    store.release_connection(hub, &name, second.epoch, after(4)).await.unwrap();
    let third = claim().await.unwrap().unwrap();
    assert!(third.epoch > second.epoch);
    store.delete_identity(hub, &name, Precondition::None).await.unwrap().done();
    let events = told(store).await;
    let found: Vec<_> = events.iter().map(|event| event.change).collect();
    assert_eq!(found, [Change::Connected, Change::Disconnected, Change::Connected, Change::Disconnected]);
    assert!(events.iter().all(|event| event.body.is_none() && event.generation == made.generation));
}

pub async fn a_device_and_its_modules_are_told_of_as_they_come_and_go(backend: &Backend) {
    let store = &*backend.store;
    let hub = telling(store, &[EventSource::Lifecycle]).await.key;
    for name in [device("dev"), module("dev", "part")] {
        store.create_identity(hub, identity(name, 1), Some(desired(r#"{"a":1}"#)), NOON).await.unwrap().done();
    }
    let again = store.create_identity(hub, identity(device("dev"), 1), None, NOON).await.unwrap();
    assert_eq!(again, crate::ports::Created::AlreadyExists);
    store.delete_identity(hub, &device("dev"), Precondition::None).await.unwrap().done();
    let events = told(store).await;
    let mut gone = changes(&events[2..]);
    gone.sort_by_key(|(_, name)| name.to_string());
    assert_eq!(changes(&events[..2]), [(Change::Created, device("dev")), (Change::Created, module("dev", "part"))]);
    assert_eq!(gone, [(Change::Deleted, device("dev")), (Change::Deleted, module("dev", "part"))]);
    for event in &events {
        let body = event.body.as_ref().unwrap();
        assert_eq!(body["properties"]["desired"]["a"], 1, "{body}");
        assert_eq!(body.get("moduleId").is_some(), event.name.module.is_some(), "{body}");
    }
}

pub async fn a_model_that_is_announced_is_a_change_of_the_digital_twin(backend: &Backend) {
    let store = &*backend.store;
    let hub = telling(store, &[EventSource::DigitalTwinChange]).await.key;
    let name = device("dev");
    let made = store.create_identity(hub, identity(name.clone(), 1), None, NOON).await.unwrap().done();
    for model in [None, Some("dtmi:x;1"), Some("dtmi:x;1"), None] {
        let wanted = crate::ports::ClaimWanted {
            model_id: model.map(str::to_owned),
            ..claims(&made.generation, Memory::Resume)
        };
        store.claim_connection(hub, &name, wanted, NOON).await.unwrap().unwrap();
    }
    let claim = store.claim_connection(hub, &name, claims(&made.generation, Memory::Resume), NOON).await;
    let epoch = claim.unwrap().unwrap().epoch;
    for model in ["dtmi:x;2", "dtmi:x;2"] {
        assert!(store.announce_model(hub, &name, (epoch, model), NOON).await.unwrap());
    }
    let bodies: Vec<_> = told(store).await.into_iter().map(|event| event.body.unwrap()).collect();
    assert_eq!(bodies, [Some("dtmi:x;1"), None, Some("dtmi:x;2")].map(digital_twin::model_change));
}

pub async fn events_are_read_in_order_and_forgotten_up_to_a_place(backend: &Backend) {
    let store = &*backend.store;
    let hub = telling(store, &[EventSource::Lifecycle]).await.key;
    for number in 0..5 {
        let name = device(&format!("dev-{number}"));
        store.create_identity(hub, identity(name, 1), None, NOON).await.unwrap().done();
    }
    let sequences = |kept: &[KeptEvent]| kept.iter().map(|kept| kept.sequence).collect::<Vec<_>>();
    let (page, last) = store.events_after(0, 2).await.unwrap();
    assert_eq!((sequences(&page), last), (vec![1, 2], 2));
    let (page, last) = store.events_after(last, EVERY).await.unwrap();
    assert_eq!((sequences(&page), last), (vec![3, 4, 5], 5));
    assert_eq!(store.events_after(last, EVERY).await.unwrap(), (Vec::new(), 5));
    assert_eq!(store.prune_events(3, 2).await.unwrap(), 2);
    assert_eq!(sequences(&store.events_after(0, EVERY).await.unwrap().0), [3, 4, 5]);
    assert_eq!(store.prune_events(9, EVERY).await.unwrap(), 3);
    // A number is not given again, also when nothing is left that has one.
    store.delete_identity(hub, &device("dev-0"), Precondition::None).await.unwrap().done();
    assert_eq!(sequences(&store.events_after(0, EVERY).await.unwrap().0), [6]);
}
