//! Promises of [`crate::ports::TwinStore`].

use domain::ids::{HubKey, Precondition};
use domain::operation::identity::IdentityName;
use domain::twin::ServiceChange;

use super::sample::{NOON, after, device, identity, make_hub, module, object};
use super::{Backend, Done as _};
use crate::ports::{TwinChange, TwinOutcome};

async fn scene(backend: &Backend) -> HubKey {
    let hub = make_hub(&*backend.store, "hub").await;
    for name in [device("dev"), module("dev", "part")] {
        backend.store.create_identity(hub, identity(name, 1), None, NOON).await.unwrap().done();
    }
    hub
}

fn desired(text: &str) -> ServiceChange {
    ServiceChange { tags: None, desired: Some(object(text)) }
}

fn told(changes: &[TwinChange]) -> Vec<(u64, u64, IdentityName, String)> {
    let text = |change: &TwinChange| serde_json::to_string(&*change.patch).unwrap();
    changes.iter().map(|it| (it.sequence, it.version, it.name.clone(), text(it))).collect()
}

pub async fn documents_keep_order_numbers_and_depth(backend: &Backend) {
    let hub = scene(backend).await;
    let text = r#"{"z":1,"a":1.0,"big":4503599627370495,"exp":1e+2,"deep":{"y":{"x":[1,"two",{"t":true}]},"b":"é\n"}}"#;
    let name = device("dev");
    backend.store.patch_twin(hub, &name, desired(text), Precondition::None, NOON).await.unwrap().done();
    backend.store.apply_reported(hub, &name, object(text), None, NOON).await.unwrap().done();
    let (twin, _) = backend.store.find_twin(hub, &name).await.unwrap().done();
    for section in [&twin.desired, &twin.reported] {
        assert_eq!(serde_json::to_string(section.document()).unwrap(), text);
        let again: Vec<_> = section.metadata().keys().map(String::as_str).collect();
        assert_eq!(again.last(), Some(&"deep"), "{again:?}");
    }
}

pub async fn a_report_moves_its_own_version_and_nothing_else(backend: &Backend) {
    let hub = scene(backend).await;
    let (store, name) = (&backend.store, device("dev"));
    let mut wakes = store.twin_changes();
    wakes.mark_unchanged();
    let before = store.find_twin(hub, &name).await.unwrap().done().0;
    let first = store.apply_reported(hub, &name, object(r#"{"a":1,"b":2}"#), None, after(1)).await.unwrap().done();
    let second = store.apply_reported(hub, &name, object(r#"{"a":null}"#), Some(first), after(2)).await.unwrap();
    assert_eq!(second, TwinOutcome::Done(first + 1));
    let stale = store.apply_reported(hub, &name, object(r#"{"c":1}"#), Some(first), after(3)).await.unwrap();
    assert_eq!(stale, TwinOutcome::PreconditionFailed);
    let (twin, _) = store.find_twin(hub, &name).await.unwrap().done();
    assert_eq!(twin.reported.document(), &object(r#"{"b":2}"#));
    assert_eq!((twin.reported.version(), twin.etag, &twin.desired), (first + 1, before.etag, &before.desired));
    assert!(!wakes.has_changed().unwrap());
    assert_eq!(store.latest_twin_change().await.unwrap(), 0);
}

pub async fn a_change_of_desired_properties_is_written_with_the_row_that_tells_of_it(backend: &Backend) {
    let hub = scene(backend).await;
    let (store, name) = (&backend.store, device("dev"));
    let mut wakes = store.twin_changes();
    wakes.mark_unchanged();
    let changed = store.patch_twin(hub, &name, desired(r#"{"t":1}"#), Precondition::None, after(1)).await.unwrap();
    let (twin, owner) = changed.done();
    assert_eq!(owner.name, name);
    assert!(wakes.has_changed().unwrap());
    wakes.mark_unchanged();
    let replaced = store.replace_twin(hub, &name, desired(r#"{"u":2}"#), Precondition::Matches(twin.etag), after(2));
    let (replaced, _) = replaced.await.unwrap().done();
    assert_eq!(replaced.desired.document(), &object(r#"{"u":2}"#));
    let part = module("dev", "part");
    store.patch_twin(hub, &part, desired(r#"{"v":3}"#), Precondition::Exists, after(3)).await.unwrap().done();
    let tags = ServiceChange { tags: Some(object(r#"{"x":1}"#)), desired: None };
    store.patch_twin(hub, &name, tags, Precondition::None, after(4)).await.unwrap().done();

    let version = twin.desired.version();
    let expected = [
        (1, version, name.clone(), format!(r#"{{"t":1,"$version":{version}}}"#)),
        (2, version + 1, name.clone(), format!(r#"{{"u":2,"$version":{}}}"#, version + 1)),
        (3, version, part, format!(r#"{{"v":3,"$version":{version}}}"#)),
    ];
    let (all, reached) = store.twin_changes_after(0, 10).await.unwrap();
    assert_eq!((told(&all).as_slice(), reached), (&expected[..], 3));
    assert_eq!(store.twin_changes_after(3, 10).await.unwrap(), (Vec::new(), 3));
    assert!(all.iter().all(|change| change.hub == hub));
    assert_eq!(told(&store.twin_changes_after(1, 1).await.unwrap().0), expected[1..2]);
    assert_eq!(store.latest_twin_change().await.unwrap(), 3);
}

pub async fn changes_of_large_properties_come_in_bounded_batches(backend: &Backend) {
    let hub = scene(backend).await;
    let (store, name) = (&backend.store, device("dev"));
    let pad = "x".repeat(4_000);
    for number in 0..300 {
        let wanted = desired(&format!(r#"{{"n":{number},"pad":"{pad}"}}"#));
        store.patch_twin(hub, &name, wanted, Precondition::None, NOON).await.unwrap().done();
    }
    let (mut batches, mut seen, mut after) = (0, Vec::new(), 0);
    loop {
        let (changes, reached) = store.twin_changes_after(after, 1_000).await.unwrap();
        if changes.is_empty() {
            break;
        }
        seen.extend(changes.iter().map(|change| change.sequence));
        (batches, after) = (batches + 1, reached);
    }
    assert_eq!(seen, (1..=300).collect::<Vec<_>>());
    assert!(batches > 1, "{batches} batches");
}

pub async fn a_change_that_is_refused_writes_nothing(backend: &Backend) {
    let hub = scene(backend).await;
    let (store, name) = (&backend.store, device("dev"));
    let before = store.find_twin(hub, &name).await.unwrap().done();
    let bad = desired(r#"{"ok":1,"a.b":1}"#);
    let refused = store.patch_twin(hub, &name, bad.clone(), Precondition::None, after(1)).await.unwrap();
    assert!(matches!(refused, TwinOutcome::Refused(_)), "{refused:?}");
    let refused = store.replace_twin(hub, &name, bad, Precondition::None, after(1)).await.unwrap();
    assert!(matches!(refused, TwinOutcome::Refused(_)), "{refused:?}");
    let refused = store.apply_reported(hub, &name, object(r#"{"$version":1}"#), None, after(1)).await.unwrap();
    assert!(matches!(refused, TwinOutcome::Refused(_)), "{refused:?}");
    let stale = store.patch_twin(hub, &name, desired("{}"), Precondition::Impossible, after(1)).await.unwrap();
    assert_eq!(stale, TwinOutcome::PreconditionFailed);
    assert_eq!(store.find_twin(hub, &name).await.unwrap(), Some(before));
    assert_eq!(store.latest_twin_change().await.unwrap(), 0);

    let nobody = device("nobody");
    let missing = store.patch_twin(hub, &nobody, desired("{}"), Precondition::None, NOON).await.unwrap();
    assert_eq!(missing, TwinOutcome::NotFound);
    let missing = store.apply_reported(hub, &nobody, object("{}"), None, NOON).await.unwrap();
    assert_eq!(missing, TwinOutcome::NotFound);
    assert_eq!(store.find_twin(hub, &nobody).await.unwrap(), None);
}

pub async fn changes_that_were_told_are_forgotten_and_their_numbers_go_on(backend: &Backend) {
    let hub = scene(backend).await;
    let (store, name) = (&backend.store, device("dev"));
    let change = |number: u32| desired(&format!(r#"{{"n":{number}}}"#));
    for number in 0..5 {
        store.patch_twin(hub, &name, change(number), Precondition::None, NOON).await.unwrap().done();
    }
    assert_eq!(store.prune_twin_changes(4, 3).await.unwrap(), 3);
    assert_eq!(store.prune_twin_changes(4, 3).await.unwrap(), 1);
    let left: Vec<_> = store.twin_changes_after(0, 10).await.unwrap().0.iter().map(|it| it.sequence).collect();
    assert_eq!(left, [5]);
    assert_eq!(store.prune_twin_changes(99, 3).await.unwrap(), 1);
    assert_eq!(store.latest_twin_change().await.unwrap(), 5);
    store.patch_twin(hub, &name, change(9), Precondition::None, NOON).await.unwrap().done();
    let left: Vec<_> = store.twin_changes_after(0, 10).await.unwrap().0.iter().map(|it| it.sequence).collect();
    assert_eq!(left, [6]);
}
