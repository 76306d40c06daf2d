//! What survives the end of a process, and what must not.

use std::path::Path;

use domain::cloud_to_device::{Delivery, Draft, QueueSettings, Settlement};
use domain::decision::Cause;
use domain::ids::{HubKey, LockToken, Precondition, ServiceKey};
use domain::operation::registration::RegistrationStatus;
use domain::operation::session::{Filter, Memory, QualityOfService, Subscriptions};
use domain::quota::Quotas;
use domain::resource::{AddressPool, CertificateOwner};
use domain::twin::ServiceChange;
use store::conformance::Done as _;
use store::conformance::sample::{
    NOON, admitted, after, ca_certificate, claims, device, hub, identity, individual, key_group, make_hub,
    make_service, object, operation, plan, proven, refused, registration_id, tracking,
};
use store::ports::{
    CloudToDeviceStore as _, Created, DecisionStore as _, Enqueued, EnrollmentStore as _, Holder, IdentityStore as _,
    Lease, RegistrationStore as _, ResourceStore as _, Settled, TwinStore as _,
};
use store::sqlite::Embedded;

use crate::ground::{claimed_device, open, open_with};

#[tokio::test]
async fn an_operation_goes_on_along_its_plan_and_its_lease_is_void() {
    let place = tempfile::tempdir().unwrap();
    let store = open(place.path());
    let (_, hub, first) = claimed_device(&store).await;
    store.plan_assignment(first.operation, 1, plan(hub, "dev-1"), NOON).await.unwrap().done();
    assert!(store.claim_operations(1).await.unwrap().is_empty());
    store.close().await;

    let store = open(place.path());
    let again = store.claim_operations(1).await.unwrap().remove(0);
    assert_eq!((again.operation, again.attempt), (operation(1), 2));
    assert_eq!(again.plan, Some(plan(hub, "dev-1")));
    store.close().await;
}

#[tokio::test]
async fn messages_survive_with_their_locks_and_what_a_connection_had_waits_again() {
    let place = tempfile::tempdir().unwrap();
    let store = open(place.path());
    let hub = make_hub(&store, "hub").await;
    let name = device("dev");
    let made = store.create_identity(hub, identity(name.clone(), 1), None, NOON).await.unwrap().done();
    for body in ["polled", "pushed", "attached", "waiting"] {
        let sent = (Draft { body: body.into(), ..Draft::default() }, QueueSettings::default());
        assert_eq!(store.enqueue_message(hub, &name, sent, NOON).await.unwrap(), Enqueued::Done);
    }
    let claim =
        store.claim_connection(hub, &name, claims(&made.generation, Memory::Resume), NOON).await.unwrap().done();
    let lease =
        |holder, token| Lease { generation: made.generation.clone(), holder, locks: vec![LockToken::from_bits(token)] };
    store.lease_messages(hub, &name, lease(Holder::Until(after(60)), 1), NOON).await.unwrap();
    for (until, token) in [(None, 2), (Some(after(60)), 3)] {
        let holder = Holder::Connection { epoch: claim.epoch, until };
        store.lease_messages(hub, &name, lease(holder, token), NOON).await.unwrap();
    }
    store.close().await;

    let store = open(place.path());
    let bodies = |deliveries: Vec<Delivery>| deliveries.into_iter().map(|it| it.message.body).collect::<Vec<_>>();
    let more = Lease { locks: (4..8).map(LockToken::from_bits).collect(), ..lease(Holder::Until(after(60)), 4) };
    assert_eq!(
        bodies(store.lease_messages(hub, &name, more, after(1)).await.unwrap().deliveries),
        ["pushed", "attached", "waiting"]
    );
    for (token, expected) in [(1, Settled::Done), (2, Settled::LockLost), (3, Settled::LockLost)] {
        let how = (LockToken::from_bits(token), Settlement::Complete);
        assert_eq!(store.settle_message(hub, &name, how, after(1)).await.unwrap(), expected, "{token}");
    }
    assert_eq!(store.find_identity(hub, &name).await.unwrap().done().messages_waiting, 3);
    store.close().await;
}

#[tokio::test]
async fn sessions_survive_and_connections_do_not() {
    let place = tempfile::tempdir().unwrap();
    let store = open(place.path());
    let hub = make_hub(&store, "hub").await;
    let name = device("dev");
    let made = store.create_identity(hub, identity(name.clone(), 1), None, NOON).await.unwrap().done();
    let first =
        store.claim_connection(hub, &name, claims(&made.generation, Memory::Resume), after(1)).await.unwrap().done();
    let mut subscriptions = Subscriptions::default();
    subscriptions.insert(Filter::Desired, QualityOfService::AtMostOnce);
    assert!(store.save_subscriptions(hub, &name, first.epoch, subscriptions).await.unwrap());
    assert!(store.find_identity(hub, &name).await.unwrap().done().connected);
    store.close().await;

    let store = open(place.path());
    assert!(!store.find_identity(hub, &name).await.unwrap().done().connected);
    assert_eq!(store.count_devices(hub).await.unwrap().connected, 0);
    let second =
        store.claim_connection(hub, &name, claims(&made.generation, Memory::Resume), after(2)).await.unwrap().done();
    assert!(second.epoch > first.epoch);
    assert_eq!((second.session_present, second.subscriptions), (true, subscriptions));
    store.close().await;
}

#[tokio::test]
async fn twins_their_changes_and_refusals_survive() {
    let place = tempfile::tempdir().unwrap();
    let store = open(place.path());
    let hub = make_hub(&store, "hub").await;
    let name = device("dev");
    store.create_identity(hub, identity(name.clone(), 1), None, NOON).await.unwrap().done();
    let change = ServiceChange { tags: None, desired: Some(object(r#"{"b":1.0,"a":1}"#)) };
    let patched = store.patch_twin(hub, &name, change, Precondition::None, NOON).await.unwrap().done();
    store.record_refusal(refused(7, "dev", Cause::WrongKey));
    let changes = store.twin_changes_after(0, 9).await.unwrap();
    store.close().await;

    let store = open(place.path());
    assert_eq!(store.find_twin(hub, &name).await.unwrap(), Some(patched));
    assert_eq!(store.twin_changes_after(0, 9).await.unwrap(), changes);
    assert_eq!(store.find_decision(tracking(7)).await.unwrap(), Some(refused(7, "dev", Cause::WrongKey)));
    store.close().await;
}

#[tokio::test]
async fn etags_and_keys_go_on_where_they_stood() {
    let place = tempfile::tempdir().unwrap();
    let store = open(place.path());
    let first = store.create_hub(hub("hub-1"), Some(AddressPool::Loopback), NOON).await.unwrap().done();
    store.delete_hub(first.key).await.unwrap().done();
    store.close().await;
    let store = open(place.path());
    let second = store.create_hub(hub("hub-1"), Some(AddressPool::Loopback), NOON).await.unwrap().done();
    assert!(second.etag > first.etag && second.key > first.key && second.address != first.address);
    store.close().await;
}

#[tokio::test]
async fn a_store_that_was_restored_gives_out_no_etag_of_the_one_it_replaces() {
    let (original, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    open(original.path()).close().await;
    for name in ["muster.db", "sealing.key"] {
        std::fs::copy(original.path().join(name), copy.path().join(name)).unwrap();
    }
    let (lived_on, restored) = (open(original.path()), open(copy.path()));
    assert_eq!(restored.begin_generation(3).await.unwrap(), Some(4));
    assert_eq!(restored.begin_generation(0).await.unwrap(), Some(5));
    let first = lived_on.create_hub(hub("hub-1"), None, NOON).await.unwrap().done();
    let second = restored.create_hub(hub("hub-1"), None, NOON).await.unwrap().done();
    assert_eq!(second.etag.number() >> 48, 5);
    assert_ne!(first.etag, second.etag);
    assert_eq!(restored.begin_generation(u16::MAX).await.unwrap(), None);
    lived_on.close().await;
    restored.close().await;
}

#[tokio::test]
async fn a_removal_that_was_cut_short_goes_on() {
    let place = tempfile::tempdir().unwrap();
    let store = open(place.path());
    let hub = make_hub(&store, "hub").await;
    for number in 0..250 {
        let name = device(&format!("dev-{number}"));
        store.create_identity(hub, identity(name, 1), None, NOON).await.unwrap().done();
    }
    store.close().await;
    // As a process leaves it that ends between the removal of the hub and that of its devices.
    let file = rusqlite::Connection::open(place.path().join("muster.db")).unwrap();
    file.execute_batch("DELETE FROM hub; INSERT INTO removal (owner_kind, owner) SELECT DISTINCT 0, hub FROM identity")
        .unwrap();
    file.close().unwrap();

    let store = open(place.path());
    identities_go(&store, place.path()).await;
    store.close().await;
}

#[tokio::test]
async fn what_comes_for_an_owner_that_is_not_there_leaves_no_row() {
    let place = tempfile::tempdir().unwrap();
    let store = open(place.path());
    let entry = individual("dev-1", 1);
    let (nowhere, id) = (ServiceKey(404), registration_id("dev-1"));
    store.create_enrollment(nowhere, entry.clone(), NOON).await.unwrap();
    let device = proven(nowhere, "dev-1", &entry);
    store.accept_registration(&device, operation(1), None, admitted(1, "dev-1"), NOON).await.unwrap();
    store.note_refusal(nowhere, &id, RegistrationStatus::Disabled, None, NOON).await.unwrap();
    for owner in [CertificateOwner::Hub(HubKey(404)), CertificateOwner::Service(nowhere)] {
        store.put_certificate(owner, ca_certificate("ca", 0), Precondition::None).await.unwrap();
    }
    store.close().await;

    let file = rusqlite::Connection::open(place.path().join("muster.db")).unwrap();
    for table in ["enrollment", "registration", "operation", "certificate"] {
        let count = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
        let rows = file.query_row(&format!("SELECT count(*) FROM {table}"), (), count).unwrap();
        assert_eq!(rows, 0, "{table}: no removal would find it");
    }
}

#[tokio::test]
async fn a_hub_is_deleted_at_once_and_what_it_held_bit_by_bit() {
    let place = tempfile::tempdir().unwrap();
    let store = open(place.path());
    let (hub, name) = (make_hub(&store, "hub").await, device("dev-1"));
    let made = store.create_identity(hub, identity(name.clone(), 1), None, NOON).await.unwrap().done();
    store.close().await;
    // Far more than can be removed while the store is being closed.
    let file = rusqlite::Connection::open(place.path().join("muster.db")).unwrap();
    let sql = "WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) \
               INSERT INTO identity (hub, device, module, generation, enabled, record, etag) \
               SELECT ?1, 'dev-' || i, '', '1', 1, '{}', i FROM n";
    file.execute(sql, [hub.0]).unwrap();
    file.close().unwrap();

    let store = open(place.path());
    store.delete_hub(hub).await.unwrap().done();
    assert_eq!(store.find_identity(hub, &name).await.unwrap(), None);
    assert_eq!(
        store.claim_connection(hub, &name, claims(&made.generation, Memory::Resume), after(1)).await.unwrap(),
        None
    );
    assert_eq!(store.count_devices(hub).await.unwrap().total, 0);
    store.close().await;
    assert_ne!(identities_left(place.path()), 0, "the answer waited for the removal");

    let store = open(place.path());
    identities_go(&store, place.path()).await;
    store.close().await;
}

/// Waits until no identity is left. The removal runs beside other verbs; each of these waits its turn behind a piece.
async fn identities_go(store: &Embedded, folder: &Path) {
    for _ in 0..10_000 {
        store.put_group(group()).await.unwrap();
        if identities_left(folder) == 0 {
            return;
        }
    }
    panic!("{} identities are left", identities_left(folder));
}

fn identities_left(folder: &Path) -> i64 {
    let file = rusqlite::Connection::open(folder.join("muster.db")).unwrap();
    file.query_row("SELECT count(*) FROM identity", (), |row| row.get(0)).unwrap()
}

fn group() -> domain::resource::ResourceGroup {
    domain::resource::ResourceGroup { name: "g".to_owned(), location: "l".to_owned(), tags: object("{}") }
}

#[tokio::test]
async fn how_many_there_are_is_known_after_a_reopening() {
    let place = tempfile::tempdir().unwrap();
    let store = open(place.path());
    let (service, hub) = (make_service(&store, "dps").await, make_hub(&store, "hub").await);
    for name in ["a", "b"] {
        store.create_identity(hub, identity(device(name), 1), None, NOON).await.unwrap().done();
        store.create_enrollment(service, individual(name, 1), NOON).await.unwrap().done();
    }
    store.create_enrollment(service, key_group("group", 1), NOON).await.unwrap().done();
    store.close().await;

    let quotas = Quotas { devices_per_hub: 2, enrollments: 2, enrollment_groups: 2, ..Quotas::default() };
    let store = open_with(place.path(), quotas);
    assert_eq!(store.list_full_hubs().await.unwrap(), [hub]);
    assert_eq!(store.create_enrollment(service, individual("c", 1), NOON).await.unwrap(), Created::Full);
    store.create_enrollment(service, key_group("other", 1), NOON).await.unwrap().done();
    assert_eq!(store.create_enrollment(service, key_group("third", 1), NOON).await.unwrap(), Created::Full);
    store.close().await;
}
