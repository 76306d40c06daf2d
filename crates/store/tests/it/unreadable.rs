//! Rows that do not parse: each is passed over or ended, and never stands in the way of others.

use std::path::Path;
use std::time::Duration;

use domain::cloud_to_device::FeedbackSettings;
use domain::configuration::{Content, Draft};
use domain::enrollment::Capabilities;
use domain::file::{FileName, FileProperties};
use domain::identity::Identity;
use domain::ids::{ConfigurationId, ContentId, HubKey, LockToken, Precondition, UploadId};
use domain::operation::PageRequest;
use domain::operation::registration::RegistrationStatus;
use domain::twin::ServiceChange;
use store::Error;
use store::conformance::Done as _;
use store::conformance::configuration::draft;
use store::conformance::sample::{
    NOON, admitted, after, device, identity, individual, make_hub, make_service, object, operation, plan, proven,
    registration_id,
};
use store::ports::{
    Accepted, Begun, ConfigurationStore as _, Ended, Ending, EnrollmentStore as _, FileStore as _, IdentityStore as _,
    NewUpload, RegistrationStore as _, TwinStore as _, Writing, WritingSource, Written,
};
use store::sqlite::Embedded;

use crate::ground::{claimed_device, open};

/// Changes the file behind the back of the store that has it open.
fn spoil(folder: &Path, sql: &str) {
    let file = rusqlite::Connection::open(folder.join("muster.db")).unwrap();
    assert_ne!(file.execute(sql, ()).unwrap(), 0, "{sql}");
}

#[tokio::test]
async fn an_operation_that_cannot_be_read_ends_and_those_behind_it_are_worked_on() {
    let cases = [
        "UPDATE operation SET registrant = '{}' WHERE sequence = 1",
        "UPDATE operation SET payload = '{' WHERE sequence = 1",
        "UPDATE operation SET plan = '7' WHERE sequence = 1",
        "UPDATE registration SET record = '' WHERE registration_key = 'dev-1'",
    ];
    for sql in cases {
        let place = tempfile::tempdir().unwrap();
        let store = open(place.path());
        let service = make_service(&store, "dps").await;
        let mut entries = Vec::new();
        for (name, seed) in [("dev-1", 1), ("dev-2", 2)] {
            let entry = store.create_enrollment(service, individual(name, seed), NOON).await.unwrap().done();
            let (device, decision) = (proven(service, name, &entry), admitted(seed, name));
            store.accept_registration(&device, operation(seed), None, decision, NOON).await.unwrap();
            entries.push(entry);
        }
        spoil(place.path(), sql);
        let claimed = store.claim_operations(9).await.unwrap();
        assert_eq!(claimed.iter().map(|it| it.operation).collect::<Vec<_>>(), [operation(2)], "{sql}");
        let outcome = store.find_operation(service, operation(1)).await.unwrap().done().outcome.unwrap();
        let code = outcome.error.as_ref().map(|error| error.code);
        assert_eq!((outcome.status, code), (RegistrationStatus::Failed, Some(500_000)), "{sql}");
        let state = store.find_registration(service, &registration_id("dev-1")).await.unwrap();
        assert_eq!(state, Some(outcome), "{sql}");

        let again = proven(service, "dev-1", &entries[0]);
        let accepted = store.accept_registration(&again, operation(3), None, admitted(3, "dev-1"), after(1)).await;
        assert_eq!(accepted.unwrap(), Accepted::New, "{sql}");
        store.close().await;
    }
}

#[tokio::test]
async fn polling_and_planning_read_no_certificates() {
    let place = tempfile::tempdir().unwrap();
    let store = open(place.path());
    let (service, hub, claimed) = claimed_device(&store).await;
    // Whoever reads who registers, which costs the parsing of certificates, cannot go on.
    spoil(place.path(), "UPDATE operation SET registrant = '{'");
    let view = store.find_operation(service, operation(1)).await.unwrap().done();
    assert_eq!((view.registration_id, view.outcome), (registration_id("dev-1"), None));
    let planned = store.plan_assignment(operation(1), claimed.attempt, plan(hub, "dev-1"), NOON).await.unwrap();
    assert_eq!(planned.done(), plan(hub, "dev-1"));
    store.close().await;
}

#[tokio::test]
async fn a_change_that_cannot_be_read_is_passed_over() {
    let place = tempfile::tempdir().unwrap();
    let store = open(place.path());
    let hub = make_hub(&store, "hub").await;
    for name in ["dev-1", "dev-2", "dev-3"] {
        store.create_identity(hub, identity(device(name), 1), None, NOON).await.unwrap().done();
        let wanted = ServiceChange { tags: None, desired: Some(object(r#"{"a":1}"#)) };
        store.patch_twin(hub, &device(name), wanted, Precondition::None, NOON).await.unwrap().done();
        store.delete_identity(hub, &device(name), Precondition::None).await.unwrap().done();
    }
    spoil(place.path(), "UPDATE twin_change SET patch = '[]' WHERE sequence = 1");
    spoil(place.path(), "UPDATE twin_change SET device = '' WHERE sequence = 3");
    spoil(place.path(), "UPDATE identity_change SET device = '' WHERE sequence = 1");
    let (changes, reached) = store.twin_changes_after(0, 9).await.unwrap();
    assert_eq!(changes.iter().map(|change| change.sequence).collect::<Vec<_>>(), [2]);
    assert_eq!(reached, 3, "what is passed over is not met again");
    let (changes, reached) = store.identity_changes_after(0, 9).await.unwrap();
    assert_eq!((changes, reached), (vec![(hub, device("dev-2")), (hub, device("dev-3"))], 3));
    store.close().await;
}

#[tokio::test]
async fn a_configuration_that_cannot_be_read_holds_up_no_other_and_keeps_what_it_has_put() {
    let place = tempfile::tempdir().unwrap();
    let store = open(place.path());
    let hub = make_hub(&store, "hub").await;
    let add = async |name: &str| {
        store.create_identity(hub, identity(device(name), 1), None, NOON).await.unwrap().done();
    };
    let speed = async |name: &str| {
        while store.judge_twins(9, NOON).await.unwrap().has_more {}
        let (twin, _) = store.find_twin(hub, &device(name)).await.unwrap().done();
        twin.desired.document().get("fan").and_then(|fan| fan.get("speed")).and_then(serde_json::Value::as_u64)
    };
    add("dev-1").await;
    store.create_configuration(hub, draft("first", 1, "deviceId = 'dev-1'", 1), NOON).await.unwrap().done();
    store.create_configuration(hub, draft("second", 2, "deviceId = 'dev-2'", 1), NOON).await.unwrap().done();
    assert_eq!(speed("dev-1").await, Some(1));
    spoil(place.path(), "UPDATE configuration SET record = '{' WHERE id = 'first'");
    add("dev-2").await;
    assert_eq!((speed("dev-2").await, speed("dev-1").await), (Some(2), Some(1)));

    let first = ConfigurationId::parse("first").unwrap();
    store.delete_configuration(hub, &first, Precondition::Exists).await.unwrap().done();
    assert_eq!((speed("dev-2").await, speed("dev-1").await), (Some(2), None), "what it has put is withdrawn");
    store.close().await;
}

#[tokio::test]
async fn a_twin_that_is_passed_over_does_not_tell_of_what_is_gone_and_is_counted_rightly_later() {
    let place = tempfile::tempdir().unwrap();
    let store = open(place.path());
    let hub = make_hub(&store, "hub").await;
    store.create_identity(hub, identity(device("dev"), 1), None, NOON).await.unwrap().done();
    let create = async |name: &str, priority: i32| {
        store.create_configuration(hub, draft(name, 1, "*", priority), NOON).await.unwrap().done()
    };
    let judged = async || {
        while store.judge_twins(9, NOON).await.unwrap().has_more {}
        let (twin, _) = store.find_twin(hub, &device("dev")).await.unwrap().done();
        let found = store.find_configuration(hub, &twice()).await.unwrap().done();
        (serde_json::Value::Object(twin.configurations).to_string(), (found.targeted, found.applied))
    };
    create("broken", 1).await;
    create("twice", 2).await;
    let both = r#"{"broken":{"status":"Targeted"},"twice":{"status":"Applied"}}"#;
    assert_eq!(judged().await, (both.to_owned(), (1, 1)));

    spoil(place.path(), "UPDATE configuration SET record = '{' || record WHERE id = 'broken'");
    store.delete_configuration(hub, &twice(), Precondition::Exists).await.unwrap().done();
    create("twice", 2).await;
    assert_eq!(judged().await, (r#"{"broken":{"status":"Targeted"}}"#.to_owned(), (0, 0)));

    spoil(place.path(), "UPDATE configuration SET record = substr(record, 2) WHERE id = 'broken'");
    let change = ServiceChange { tags: Some(object(r#"{"a":1}"#)), desired: None };
    store.patch_twin(hub, &device("dev"), change, Precondition::None, NOON).await.unwrap().done();
    assert_eq!(judged().await, (both.to_owned(), (1, 1)));
    store.close().await;
}

fn twice() -> ConfigurationId {
    ConfigurationId::parse("twice").unwrap()
}

#[tokio::test]
async fn a_deployment_that_cannot_be_read_keeps_no_edge_device_from_leaving() {
    let place = tempfile::tempdir().unwrap();
    let store = open(place.path());
    let hub = make_hub(&store, "hub").await;
    let edge = Identity { capabilities: Capabilities { iot_edge: true }, ..identity(device("edge"), 1) };
    store.create_identity(hub, edge, None, NOON).await.unwrap().done();
    let modules = serde_json::from_str(r#"{"part":{"properties.desired.rate":5}}"#).unwrap();
    let content = Content { modules: Some(modules), ..Content::default() };
    store.create_configuration(hub, Draft { content, ..draft("c", 0, "*", 1) }, NOON).await.unwrap().done();
    while store.judge_twins(9, NOON).await.unwrap().has_more {}
    spoil(place.path(), "UPDATE configuration SET record = '{' WHERE id = 'c'");
    store.delete_identity(hub, &device("edge"), Precondition::Exists).await.unwrap().done();
    store.close().await;
}

/// How files are told of.
const NOTIFIED: FeedbackSettings =
    FeedbackSettings { ttl: Duration::from_mins(10), deliveries_max: 2, lock: Duration::from_mins(1) };

fn file(number: u128) -> FileName {
    FileName::parse(&format!("dev/{number}")).unwrap()
}

/// Has a device upload [`file`], with a notification of it.
async fn upload(store: &Embedded, hub: HubKey, generation: &str, number: u128) {
    let upload = UploadId::from_bits(number);
    let new = NewUpload { id: upload, generation: generation.to_owned(), file: file(number), expires_at: after(60) };
    assert_eq!(store.begin_upload(hub, &device("dev"), new, NOON).await.unwrap(), Begun::Done);
    let content = store.begin_content(ContentId::from_bits(number)).await.unwrap().finish().await.unwrap();
    let (source, properties) = (WritingSource::Whole(content), FileProperties::default());
    let writing = Writing { upload, source, properties, only_new: false };
    assert!(matches!(store.write_file(hub, writing, NOON).await.unwrap(), Written::Done(_)));
    let ending = Ending { upload, notify: Some(NOTIFIED) };
    assert_eq!(store.end_upload(hub, &device("dev"), ending, NOON).await.unwrap(), Ended::Done);
}

#[tokio::test]
async fn a_notification_that_cannot_be_read_holds_up_none_behind_it() {
    let place = tempfile::tempdir().unwrap();
    let store = open(place.path());
    let hub = make_hub(&store, "hub").await;
    let made = store.create_identity(hub, identity(device("dev"), 1), None, NOON).await.unwrap().done();
    for number in 1..=4 {
        upload(&store, hub, &made.generation, number).await;
    }
    spoil(place.path(), "UPDATE file_notification SET record = '{' WHERE sequence IN (1, 2, 4)");
    for (lock, expected) in [(1, Some(file(3))), (2, None)] {
        let taken = store.take_notification(hub, (LockToken::from_bits(lock), NOTIFIED), NOON).await.unwrap();
        assert_eq!(taken.map(|taken| taken.file), expected, "{lock}");
    }
    store.close().await;
}

#[tokio::test]
async fn of_many_notifications_that_cannot_be_read_one_taking_passes_some_and_wakes_the_next() {
    let place = tempfile::tempdir().unwrap();
    let store = open(place.path());
    let hub = make_hub(&store, "hub").await;
    let made = store.create_identity(hub, identity(device("dev"), 1), None, NOON).await.unwrap().done();
    upload(&store, hub, &made.generation, 1).await;
    spoil(
        place.path(),
        "WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 100) \
         INSERT INTO file_notification (hub, record, expires_at) SELECT hub, '{', expires_at FROM file_notification, n",
    );
    spoil(place.path(), "UPDATE file_notification SET record = '{'");
    upload(&store, hub, &made.generation, 2).await;
    let mut changes = store.notification_changes();
    for (lock, expected) in [(1, None), (2, Some(file(2))), (3, None)] {
        changes.mark_unchanged();
        let taken = store.take_notification(hub, (LockToken::from_bits(lock), NOTIFIED), NOON).await.unwrap();
        assert_eq!(taken.map(|taken| taken.file), expected, "{lock}");
        assert_eq!(changes.has_changed().unwrap(), lock == 1, "{lock}");
    }
    store.close().await;
}

#[tokio::test]
async fn an_identity_or_configuration_that_cannot_be_read_is_still_named() {
    let place = tempfile::tempdir().unwrap();
    let store = open(place.path());
    let hub = make_hub(&store, "hub").await;
    for name in ["a", "b"] {
        store.create_identity(hub, identity(device(name), 1), None, NOON).await.unwrap().done();
        store.create_configuration(hub, draft(name, 1, "*", 1), NOON).await.unwrap().done();
    }
    spoil(place.path(), "UPDATE identity SET record = '{' WHERE device = 'a'");
    spoil(place.path(), "UPDATE configuration SET record = '{' WHERE id = 'a'");
    let page = PageRequest { after: None, limit: 9 };
    let names = store.list_names(hub, page).await.unwrap().items;
    assert_eq!(names, [device("a"), device("b")]);
    assert!(matches!(store.find_twin(hub, &names[0]).await, Err(Error::Corrupt { .. })));
    assert!(store.find_twin(hub, &names[1]).await.unwrap().is_some());
    let ids = store.list_configuration_ids(hub).await.unwrap();
    assert_eq!(ids.iter().map(ToString::to_string).collect::<Vec<_>>(), ["a", "b"]);
    assert!(matches!(store.find_configuration(hub, &ids[0]).await, Err(Error::Corrupt { .. })));
    store.close().await;
}
