//! Promises of [`crate::ports::IdentityStore`] about the registry.

use std::collections::HashSet;

use domain::enrollment::Capabilities;
use domain::identity::{Authentication, Identity, IdentityStatus, Thumbprints};
use domain::ids::{DeviceId, HubKey, Precondition};
use domain::operation::PageRequest;
use domain::operation::session::{Filter, Memory, QualityOfService, Subscriptions};
use domain::sas::{KeyChoice, KeyRotation};
use domain::twin::ServiceChange;

use super::sample::{NOON, QUOTAS, after, claims, device, entropy, identity, keys, make_hub, module, object};
use super::{Backend, Done as _};
use crate::ports::{Changed, Created, DeviceCounts, Rotated};

pub async fn an_identity_comes_back_as_it_was_created_with_its_twin(backend: &Backend) {
    let store = &backend.store;
    let hub = make_hub(&**store, "hub").await;
    let authentications = [
        identity(device("x"), 1).authentication,
        Authentication::SelfSigned(Thumbprints { primary: Some("AB".repeat(20)), secondary: None }),
        Authentication::CertificateAuthority,
        Authentication::None,
    ];
    for (number, authentication) in authentications.into_iter().enumerate() {
        let wanted = Identity {
            authentication,
            status: IdentityStatus::Disabled,
            status_reason: Some("stolen".to_owned()),
            capabilities: Capabilities { iot_edge: true },
            device_scope: Some("ms-azure-iot-edge://x".to_owned()),
            parent_scopes: vec!["p".to_owned()],
            managed_by: Some("m".to_owned()),
            ..Identity::blank(device(&format!("Dev'{number}@$")))
        };
        let first = ServiceChange { tags: Some(object(r#"{"a":1}"#)), desired: Some(object(r#"{"b":1.0}"#)) };
        let created = store.create_identity(hub, wanted.clone(), Some(first), NOON).await.unwrap().done();
        let expected = Identity { etag: created.etag, generation: created.generation.clone(), ..wanted };
        assert_eq!(created, expected);
        let (twin, found) = store.find_twin(hub, &created.name).await.unwrap().done();
        assert_eq!((&found, twin.tags.len()), (&created, 1));
        assert_eq!(twin.desired.document(), &object(r#"{"b":1.0}"#));
        assert_eq!(store.find_identity(hub, &created.name).await.unwrap(), Some(created));
    }
}

pub async fn device_ids_are_unique_per_hub_and_case_matters(backend: &Backend) {
    let store = &backend.store;
    let (hub, other) = (make_hub(&**store, "hub").await, make_hub(&**store, "other").await);
    for (hub, name) in [(hub, "dev"), (hub, "DEV"), (other, "dev")] {
        store.create_identity(hub, identity(device(name), 1), None, NOON).await.unwrap().done();
    }
    let again = store.create_identity(hub, identity(device("dev"), 2), None, NOON).await.unwrap();
    assert_eq!(again, Created::AlreadyExists);
    let nowhere = store.create_identity(HubKey(404), identity(device("dev"), 1), None, NOON).await.unwrap();
    assert_eq!(nowhere, Created::NoOwner);
}

pub async fn a_module_needs_its_device_and_goes_with_it(backend: &Backend) {
    let store = &backend.store;
    let hub = make_hub(&**store, "hub").await;
    let id = DeviceId::parse("dev").unwrap();
    let orphan = store.create_identity(hub, identity(module("dev", "m1"), 1), None, NOON).await.unwrap();
    assert_eq!(orphan, Created::NoOwner);
    assert_eq!(store.list_modules(hub, &id).await.unwrap(), None);
    store.create_identity(hub, identity(device("dev"), 1), None, NOON).await.unwrap().done();
    store.create_identity(hub, identity(device("dev2"), 1), None, NOON).await.unwrap().done();
    for name in [module("dev", "m2"), module("dev", "m1"), module("dev2", "m3")] {
        store.create_identity(hub, identity(name, 2), None, NOON).await.unwrap().done();
    }
    let modules = store.list_modules(hub, &id).await.unwrap().done();
    assert_eq!(
        modules.iter().map(|it| it.name.clone()).collect::<Vec<_>>(),
        [module("dev", "m1"), module("dev", "m2")]
    );
    store.delete_identity(hub, &module("dev", "m2"), Precondition::None).await.unwrap().done();
    assert_eq!(store.list_modules(hub, &id).await.unwrap().done().len(), 1);
    store.delete_identity(hub, &device("dev"), Precondition::None).await.unwrap().done();
    assert_eq!(store.find_identity(hub, &module("dev", "m1")).await.unwrap(), None);
    assert_eq!(store.find_twin(hub, &module("dev", "m1")).await.unwrap(), None);
    assert!(store.find_identity(hub, &module("dev2", "m3")).await.unwrap().is_some());
}

pub async fn a_replaced_identity_keeps_generation_twin_and_what_the_hub_alone_knows(backend: &Backend) {
    let store = &backend.store;
    let hub = make_hub(&**store, "hub").await;
    let name = device("dev");
    let created = store.create_identity(hub, identity(name.clone(), 1), None, NOON).await.unwrap().done();
    store.claim_connection(hub, &name, claims(&created.generation, Memory::Forget), after(1)).await.unwrap().done();
    let twin = store.find_twin(hub, &name).await.unwrap().done().0;

    let wanted = Identity {
        status: IdentityStatus::Disabled,
        status_reason: Some("lost".to_owned()),
        generation: "made up".to_owned(),
        ..identity(name.clone(), 2)
    };
    let precondition = Precondition::Matches(created.etag);
    let replaced = store.replace_identity(hub, wanted.clone(), precondition, after(2)).await.unwrap().done();
    assert_ne!(replaced.etag, created.etag);
    assert_eq!((&replaced.generation, replaced.status_updated_at), (&created.generation, after(2)));
    assert_eq!((&replaced.authentication, replaced.status), (&wanted.authentication, IdentityStatus::Disabled));
    assert_eq!((replaced.connected, replaced.connection_updated_at), (true, after(1)));
    assert_eq!(store.find_twin(hub, &name).await.unwrap(), Some((twin, replaced.clone())));

    let stale = store.replace_identity(hub, wanted.clone(), precondition, after(3)).await.unwrap();
    assert_eq!(stale, Changed::PreconditionFailed { present: replaced.etag });
    let same_status = store.replace_identity(hub, wanted, Precondition::Exists, after(4)).await.unwrap().done();
    assert_eq!(same_status.status_updated_at, after(2));
    let missing = store.replace_identity(hub, identity(device("no"), 1), Precondition::None, NOON).await.unwrap();
    assert_eq!(missing, Changed::NotFound);
}

pub async fn rotated_keys_are_all_that_changes_and_who_is_connected_is_told(backend: &Backend) {
    let store = &backend.store;
    let hub = make_hub(&**store, "hub").await;
    let rotate = async |name, choice, seed| {
        let rotation = KeyRotation::generate(choice, &entropy(seed));
        store.rotate_keys(hub, &name, rotation, after(1)).await.unwrap()
    };
    let (owner, part) = (device("dev"), module("dev", "m"));
    for name in [&owner, &part] {
        let wanted = Identity { managed_by: Some("me".to_owned()), ..identity(name.clone(), 1) };
        let created = store.create_identity(hub, wanted, None, NOON).await.unwrap().done();
        let mut present = keys(1);
        for (choice, seed) in [(KeyChoice::Primary, 2), (KeyChoice::Secondary, 3), (KeyChoice::Both, 4)] {
            let before = store.find_identity(hub, name).await.unwrap().done();
            present = KeyRotation::generate(choice, &entropy(seed)).apply(present);
            assert_eq!(rotate(name.clone(), choice, seed).await, Rotated::Done(present.clone()), "{choice:?}");
            let found = store.find_identity(hub, name).await.unwrap().done();
            assert_ne!(found.etag, before.etag);
            let authentication = Authentication::Sas(present.clone());
            assert_eq!(found, Identity { authentication, etag: found.etag, ..created.clone() }, "{choice:?}");
        }
    }
    let (told, end) = store.identity_changes_after(0, 10).await.unwrap();
    assert_eq!(told, [vec![(hub, owner); 3], vec![(hub, part); 3]].concat());

    let by_ca = Identity { authentication: Authentication::CertificateAuthority, ..identity(device("ca"), 1) };
    let created = store.create_identity(hub, by_ca, None, NOON).await.unwrap().done();
    assert_eq!(rotate(device("ca"), KeyChoice::Both, 5).await, Rotated::NoKeys);
    assert_eq!(store.find_identity(hub, &device("ca")).await.unwrap(), Some(created));
    assert_eq!(rotate(device("no"), KeyChoice::Both, 5).await, Rotated::NotFound);
    assert_eq!(store.identity_changes_after(end, 10).await.unwrap(), (Vec::new(), end));
}

pub async fn an_edge_device_has_its_own_modules_and_a_scope_that_stays(backend: &Backend) {
    let store = &backend.store;
    let hub = make_hub(&**store, "hub").await;
    let edge = |name, seed| Identity { capabilities: Capabilities { iot_edge: true }, ..identity(name, seed) };
    let modules = async |name: &str| {
        let modules = store.list_modules(hub, &device(name).device).await.unwrap().done();
        modules.into_iter().map(|module| module.name).collect::<Vec<_>>()
    };
    let own = |name| [module(name, "$edgeAgent"), module(name, "$edgeHub")];

    let created = store.create_identity(hub, edge(device("born"), 1), None, NOON).await.unwrap().done();
    let scope = created.device_scope.clone().unwrap();
    assert!(scope.starts_with("ms-azure-iot-edge://born-"), "{scope}");
    assert_eq!(modules("born").await, own("born"));
    let (_, agent) = store.find_twin(hub, &module("born", "$edgeAgent")).await.unwrap().done();
    assert_eq!((agent.authentication, agent.managed_by.as_deref()), (Authentication::None, Some("iotEdge")));
    let forged = Identity { device_scope: Some("ms-azure-iot-edge://forged-1".to_owned()), ..edge(device("born"), 2) };
    for wanted in [edge(device("born"), 2), forged] {
        let replaced = store.replace_identity(hub, wanted, Precondition::None, after(1)).await.unwrap().done();
        assert_eq!(replaced.device_scope, Some(scope.clone()), "others name it as their parent");
        assert_eq!(modules("born").await, own("born"));
    }

    let plain = store.create_identity(hub, identity(device("made"), 1), None, NOON).await.unwrap().done();
    assert_eq!((plain.device_scope, modules("made").await), (None, Vec::new()));
    let made = store.replace_identity(hub, edge(device("made"), 1), Precondition::None, after(1)).await.unwrap().done();
    assert!(made.device_scope.is_some());
    assert_eq!(modules("made").await, own("made"));
}

pub async fn a_deleted_identity_is_gone_with_twin_and_session_and_comes_back_as_another(backend: &Backend) {
    let store = &backend.store;
    let hub = make_hub(&**store, "hub").await;
    let name = device("dev");
    let first = store.create_identity(hub, identity(name.clone(), 1), None, NOON).await.unwrap().done();
    let claim =
        store.claim_connection(hub, &name, claims(&first.generation, Memory::Resume), NOON).await.unwrap().done();
    let mut subscriptions = Subscriptions::default();
    subscriptions.insert(Filter::Desired, QualityOfService::AtMostOnce);
    assert!(store.save_subscriptions(hub, &name, claim.epoch, subscriptions).await.unwrap());
    let stale = store.delete_identity(hub, &name, Precondition::Impossible).await.unwrap();
    assert_eq!(stale, Changed::PreconditionFailed { present: first.etag });
    store.delete_identity(hub, &name, Precondition::Matches(first.etag)).await.unwrap().done();
    assert_eq!(store.delete_identity(hub, &name, Precondition::None).await.unwrap(), Changed::NotFound);
    assert_eq!(store.find_twin(hub, &name).await.unwrap(), None);

    let second = store.create_identity(hub, identity(name.clone(), 1), None, NOON).await.unwrap().done();
    assert_ne!(first.generation, second.generation);
    assert!(second.generation.len() == 18 && second.generation.starts_with("63"), "not a time: {}", second.generation);
    assert_eq!(
        store.claim_connection(hub, &name, claims(&first.generation, Memory::Resume), NOON).await.unwrap(),
        None
    );
    let claim =
        store.claim_connection(hub, &name, claims(&second.generation, Memory::Resume), NOON).await.unwrap().done();
    assert!(!claim.session_present && claim.subscriptions.is_empty());
}

pub async fn devices_are_listed_in_pages_without_modules_and_counted(backend: &Backend) {
    let store = &backend.store;
    let (hub, other) = (make_hub(&**store, "hub").await, make_hub(&**store, "other").await);
    assert_eq!(store.count_devices(hub).await.unwrap(), DeviceCounts::default());
    for name in ["c", "B", "a", "d"] {
        let status = if name == "c" { IdentityStatus::Disabled } else { IdentityStatus::Enabled };
        let wanted = Identity { status, ..identity(device(name), 1) };
        store.create_identity(hub, wanted, None, NOON).await.unwrap().done();
    }
    store.create_identity(hub, identity(module("a", "m"), 1), None, NOON).await.unwrap().done();
    store.create_identity(other, identity(device("b"), 1), None, NOON).await.unwrap().done();
    let mut seen = Vec::new();
    let mut cursor = None;
    loop {
        let page = store.list_devices(hub, PageRequest { after: cursor.take(), limit: 3 }).await.unwrap();
        assert!(page.items.len() <= 3);
        seen.extend(page.items.iter().map(|it| it.name.to_string()));
        match page.next {
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    assert_eq!(seen, ["B", "a", "c", "d"]);
    let mut named = Vec::new();
    loop {
        let page = store.list_names(hub, PageRequest { after: cursor.take(), limit: 2 }).await.unwrap();
        named.push(page.items.iter().map(ToString::to_string).collect::<Vec<_>>());
        match page.next {
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    assert_eq!(named, [vec!["B", "a", "a/m"], vec!["c", "d"]], "modules come with their device");
    let nobody = make_hub(&**store, "nobody").await;
    let page = store.list_names(nobody, PageRequest { after: None, limit: 2 }).await.unwrap();
    assert!(page.items.is_empty() && page.next.is_none());
    let generation = store.find_identity(hub, &device("d")).await.unwrap().done().generation;
    store.claim_connection(hub, &device("d"), claims(&generation, Memory::Forget), NOON).await.unwrap().done();
    let expected = DeviceCounts { total: 4, enabled: 3, disabled: 1, connected: 1 };
    assert_eq!(store.count_devices(hub).await.unwrap(), expected);
}

pub async fn who_may_no_longer_be_connected_is_told(backend: &Backend) {
    let store = &backend.store;
    let hub = make_hub(&**store, "hub").await;
    let mut wakes = store.identity_changes();
    for name in ["disabled", "deleted", "rekeyed", "relabelled"] {
        store.create_identity(hub, identity(device(name), 1), None, NOON).await.unwrap().done();
    }
    for owner in ["deleted", "disabled", "rekeyed"] {
        store.create_identity(hub, identity(module(owner, "m"), 1), None, NOON).await.unwrap().done();
    }
    assert!(!wakes.has_changed().unwrap());
    assert_eq!(store.identity_changes_after(0, 10).await.unwrap(), (Vec::new(), 0));

    let relabelled = Identity { status_reason: Some("x".to_owned()), ..identity(device("relabelled"), 1) };
    store.replace_identity(hub, relabelled, Precondition::None, NOON).await.unwrap().done();
    let disabled = Identity { status: IdentityStatus::Disabled, ..identity(device("disabled"), 1) };
    store.replace_identity(hub, disabled, Precondition::None, NOON).await.unwrap().done();
    assert!(wakes.has_changed().unwrap());
    wakes.mark_unchanged();
    let rekeyed = identity(device("rekeyed"), 2);
    store.replace_identity(hub, rekeyed, Precondition::None, NOON).await.unwrap().done();
    store.delete_identity(hub, &device("deleted"), Precondition::None).await.unwrap().done();
    assert!(wakes.has_changed().unwrap());

    let (first, reached) = store.identity_changes_after(0, 3).await.unwrap();
    assert_eq!(first, [(hub, device("disabled")), (hub, module("disabled", "m")), (hub, device("rekeyed"))]);
    let (rest, end) = store.identity_changes_after(reached, 10).await.unwrap();
    let rest: HashSet<_> = rest.into_iter().collect();
    assert_eq!(rest, HashSet::from([(hub, device("deleted")), (hub, module("deleted", "m"))]));
    assert_eq!(store.identity_changes_after(end, 10).await.unwrap(), (Vec::new(), end));

    assert_eq!(store.prune_identity_changes(reached, 2).await.unwrap(), 2);
    assert_eq!(store.prune_identity_changes(reached, 2).await.unwrap(), 1);
    let (kept, again) = store.identity_changes_after(0, 10).await.unwrap();
    assert_eq!((kept.into_iter().collect::<HashSet<_>>(), again), (rest, end));
}

pub async fn a_hub_takes_as_many_devices_as_it_may(backend: &Backend) {
    let store = &backend.store;
    let (hub, other) = (make_hub(&**store, "hub").await, make_hub(&**store, "other").await);
    let create =
        async |hub, name: &str| store.create_identity(hub, identity(device(name), 1), None, NOON).await.unwrap();
    for number in 1..QUOTAS.devices_per_hub {
        create(hub, &format!("d{number}")).await.done();
    }
    let of_a_module = identity(module("d1", "m"), 1);
    store.create_identity(hub, of_a_module, None, NOON).await.unwrap().done();
    assert_eq!(store.list_full_hubs().await.unwrap(), []);
    create(hub, "last").await.done();
    assert_eq!(store.list_full_hubs().await.unwrap(), [hub]);
    assert_eq!(create(hub, "more").await, Created::Full);
    assert_eq!(create(hub, "last").await, Created::AlreadyExists);
    create(other, "more").await.done();
    store.delete_identity(hub, &device("d1"), Precondition::None).await.unwrap().done();
    assert_eq!(store.list_full_hubs().await.unwrap(), []);
    create(hub, "more").await.done();
    assert_eq!(create(hub, "d1").await, Created::Full);
}

pub async fn a_device_takes_as_many_modules_as_it_may_and_lists_them_all(backend: &Backend) {
    let store = &backend.store;
    let hub = make_hub(&**store, "hub").await;
    for name in ["dev", "dev2"] {
        store.create_identity(hub, identity(device(name), 1), None, NOON).await.unwrap().done();
    }
    let create = async |owner: &str, name: &str| {
        store.create_identity(hub, identity(module(owner, name), 1), None, NOON).await.unwrap()
    };
    for number in 0..QUOTAS.modules_per_device {
        create("dev", &format!("m{number}")).await.done();
    }
    let listed = store.list_modules(hub, &DeviceId::parse("dev").unwrap()).await.unwrap().done();
    assert_eq!(listed.len() as u64, QUOTAS.modules_per_device);
    assert_eq!(create("dev", "more").await, Created::Full);
    assert_eq!(create("dev", "m0").await, Created::AlreadyExists);
    create("dev2", "more").await.done();
    store.delete_identity(hub, &module("dev", "m0"), Precondition::None).await.unwrap().done();
    create("dev", "more").await.done();
}
