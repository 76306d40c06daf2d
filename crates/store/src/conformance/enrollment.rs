//! Promises of [`crate::ports::EnrollmentStore`].

use domain::enrollment::{AllocationPolicy, CustomAllocation, Enrollment, EntryKind, InitialTwin, ProvisioningStatus};
use domain::ids::{CertificateName, Precondition, ServiceKey};
use domain::operation::PageRequest;
use tokio::sync::watch;

use super::sample::{
    NOON, QUOTAS, admitted, after, certificate, individual, key_group, make_service, object, operation, proven,
    reference_group, registration_id, x509_group,
};
use super::{Backend, Done as _};
use crate::ports::{Changed, Created, EnrollmentStore, Store, X509Lookup};

/// An entry that has something in every field that lies in another place than the rest.
fn rich(mut entry: Enrollment) -> Enrollment {
    entry.terms.allocation = Some(AllocationPolicy::Custom);
    entry.terms.custom_allocation = Some(CustomAllocation {
        webhook_url: "https://example.org/allocate?code=secret".to_owned(),
        api_version: "2021-10-01".to_owned(),
    });
    entry.terms.initial_twin = Some(InitialTwin {
        tags: Some(object(r#"{"z":1,"a":2}"#)),
        desired: Some(object(r#"{"t":1.0,"big":9007199254740993,"n":null}"#)),
    });
    entry
}

async fn names(store: &dyn Store, service: ServiceKey, lookup: X509Lookup) -> Vec<String> {
    let found = EnrollmentStore::find_x509_groups(store, service, lookup).await.unwrap();
    let mut names: Vec<_> = found.iter().map(|entry| entry.name.as_str().to_owned()).collect();
    names.sort();
    names
}

pub async fn an_entry_comes_back_as_it_was_created_keys_and_all(backend: &Backend) {
    let service = make_service(&*backend.store, "dps").await;
    let entries = [
        rich(individual("Dev-1", 1)),
        key_group("dev-1", 2),
        x509_group("x509", Some(0), None),
        reference_group("r", "ca"),
    ];
    for entry in entries {
        let created = backend.store.create_enrollment(service, entry.clone(), NOON).await.unwrap().done();
        assert_eq!((created.created_at, created.updated_at), (NOON, NOON));
        assert_eq!((&created.terms, &created.attestation), (&entry.terms, &entry.attestation));
        assert_eq!(backend.store.find_enrollment(service, &entry.name).await.unwrap(), Some(created));
    }
}

pub async fn names_are_unique_per_service_and_kind_without_regard_to_case(backend: &Backend) {
    let store = &backend.store;
    let (service, other) = (make_service(&**store, "dps").await, make_service(&**store, "other").await);
    store.create_enrollment(service, individual("dev-1", 1), NOON).await.unwrap().done();
    let again = store.create_enrollment(service, individual("DEV-1", 2), NOON).await.unwrap();
    assert_eq!(again, Created::AlreadyExists);
    store.create_enrollment(service, key_group("dev-1", 3), NOON).await.unwrap().done();
    store.create_enrollment(other, individual("dev-1", 4), NOON).await.unwrap().done();
    let found = store.find_enrollment(service, &individual("dEv-1", 0).name).await.unwrap().done();
    assert_eq!(found.attestation, individual("dev-1", 1).attestation);
}

pub async fn a_replaced_entry_keeps_its_creation_time_and_gets_a_fresh_etag(backend: &Backend) {
    let store = &backend.store;
    let service = make_service(&**store, "dps").await;
    let entry = key_group("group", 1);
    let missing = store.replace_enrollment(service, entry.clone(), Precondition::None, NOON).await.unwrap();
    assert_eq!(missing, Changed::NotFound);
    let created = store.create_enrollment(service, rich(entry.clone()), NOON).await.unwrap().done();

    let mut wanted = x509_group("group", Some(1), None);
    wanted.terms.status = Some(ProvisioningStatus::Disabled);
    let precondition = Precondition::Matches(created.etag);
    let replaced = store.replace_enrollment(service, wanted.clone(), precondition, after(9)).await.unwrap().done();
    assert_eq!((replaced.created_at, replaced.updated_at), (NOON, after(9)));
    assert_eq!((&replaced.attestation, &replaced.terms), (&wanted.attestation, &wanted.terms));
    assert_ne!(replaced.etag, created.etag);
    assert_eq!(store.find_enrollment(service, &wanted.name).await.unwrap(), Some(replaced.clone()));
    let stale = store.replace_enrollment(service, wanted, precondition, NOON).await.unwrap();
    assert_eq!(stale, Changed::PreconditionFailed { present: replaced.etag });
}

pub async fn a_deleted_individual_enrollment_takes_its_record_along_and_a_group_does_not(backend: &Backend) {
    let store = &backend.store;
    let service = make_service(&**store, "dps").await;
    let individual = store.create_enrollment(service, individual("alone", 1), NOON).await.unwrap().done();
    let group = store.create_enrollment(service, key_group("group", 2), NOON).await.unwrap().done();
    for (seed, registration, entry) in [(1, "alone", &individual), (2, "member", &group)] {
        let device = proven(service, registration, entry);
        let decision = admitted(seed, registration);
        store.accept_registration(&device, operation(seed), None, decision, NOON).await.unwrap();
    }
    let stale = store.delete_enrollment(service, &individual.name, Precondition::Impossible).await.unwrap();
    assert_eq!(stale, Changed::PreconditionFailed { present: individual.etag });
    for entry in [&individual, &group] {
        let precondition = Precondition::Matches(entry.etag);
        let deleted = store.delete_enrollment(service, &entry.name, precondition).await.unwrap();
        assert_eq!(deleted, Changed::Done(entry.clone()));
        assert_eq!(store.find_enrollment(service, &entry.name).await.unwrap(), None);
        let again = store.delete_enrollment(service, &entry.name, Precondition::None).await.unwrap();
        assert_eq!(again, Changed::NotFound);
    }
    assert_eq!(store.find_registration(service, &registration_id("alone")).await.unwrap(), None);
    assert!(store.find_registration(service, &registration_id("member")).await.unwrap().is_some());
    let ended = store.find_operation(service, operation(1)).await.unwrap().done();
    assert!(ended.outcome.is_some(), "the operation of the removed record goes on");
}

pub async fn entries_are_listed_by_kind_in_pages_in_order_of_their_keys(backend: &Backend) {
    let store = &backend.store;
    let service = make_service(&**store, "dps").await;
    for name in ["c", "A", "e", "B", "d"] {
        store.create_enrollment(service, individual(name, 1), NOON).await.unwrap().done();
    }
    store.create_enrollment(service, key_group("aa", 2), NOON).await.unwrap().done();
    let mut pages = Vec::new();
    let mut after = None;
    loop {
        let page = PageRequest { after: after.take(), limit: 2 };
        let page = store.list_enrollments(service, EntryKind::Individual, page).await.unwrap();
        pages.push(page.items.iter().map(|entry| entry.name.as_str().to_owned()).collect::<Vec<_>>());
        match page.next {
            Some(cursor) => after = Some(cursor),
            None => break,
        }
    }
    assert_eq!(pages, [vec!["A", "B"], vec!["c", "d"], vec!["e"]]);
    let exact = PageRequest { after: None, limit: 1 };
    assert_eq!(store.list_enrollments(service, EntryKind::Group, exact).await.unwrap().next, None);
}

pub async fn x509_groups_are_found_by_any_certificate_they_hold_or_name(backend: &Backend) {
    let store = &*backend.store;
    let (service, other) = (make_service(store, "dps").await, make_service(store, "other").await);
    let mut disabled = x509_group("disabled", Some(0), None);
    disabled.terms.status = Some(ProvisioningStatus::Disabled);
    let entries = [x509_group("both", Some(0), Some(1)), x509_group("same", Some(2), Some(2)), disabled];
    for entry in entries {
        EnrollmentStore::create_enrollment(store, service, entry, NOON).await.unwrap().done();
    }
    store.create_enrollment(service, reference_group("named", "My-CA"), NOON).await.unwrap().done();
    store.create_enrollment(other, x509_group("elsewhere", Some(0), None), NOON).await.unwrap().done();
    store.create_enrollment(service, key_group("keys", 1), NOON).await.unwrap().done();

    let by = |numbers: &[usize], names: &[&str]| X509Lookup {
        subject_keys: numbers.iter().map(|&number| *certificate(number).subject_key_hash()).collect(),
        ca_names: names.iter().map(|name| CertificateName::parse(name).unwrap()).collect(),
    };
    assert_eq!(names(store, service, by(&[], &[])).await, Vec::<String>::new());
    assert_eq!(names(store, service, by(&[0], &[])).await, ["both", "disabled"]);
    assert_eq!(names(store, service, by(&[0, 1], &[])).await, ["both", "disabled"]);
    assert_eq!(names(store, service, by(&[2], &["my-ca", "none"])).await, ["named", "same"]);

    // A group that is replaced or deleted is found by what it holds at present.
    let moved = x509_group("both", Some(2), None);
    store.replace_enrollment(service, moved.clone(), Precondition::None, NOON).await.unwrap().done();
    assert_eq!(names(store, service, by(&[0, 1], &[])).await, ["disabled"]);
    assert_eq!(names(store, service, by(&[2], &[])).await, ["both", "same"]);
    store.delete_enrollment(service, &moved.name, Precondition::None).await.unwrap().done();
    assert_eq!(names(store, service, by(&[2], &[])).await, ["same"]);
}

pub async fn changes_of_symmetric_key_groups_are_counted_and_no_others(backend: &Backend) {
    let store = &backend.store;
    let service = make_service(&**store, "dps").await;
    let mut changes = store.key_group_changes();
    let has_counted = |what: &str, wanted: bool, changes: &mut watch::Receiver<u64>| {
        assert_eq!(changes.has_changed().unwrap(), wanted, "{what}");
        changes.mark_unchanged();
    };
    store.create_enrollment(service, individual("dev-1", 1), NOON).await.unwrap().done();
    store.create_enrollment(service, x509_group("by-certificate", Some(0), None), NOON).await.unwrap().done();
    has_counted("other entries", false, &mut changes);
    let group = store.create_enrollment(service, key_group("by-key", 1), NOON).await.unwrap().done();
    has_counted("created", true, &mut changes);
    let by_certificate = Enrollment { name: group.name.clone(), ..x509_group("by-key", Some(0), None) };
    for next in [by_certificate, group.clone()] {
        store.replace_enrollment(service, next, Precondition::None, NOON).await.unwrap().done();
        has_counted("replaced", true, &mut changes);
    }
    store.delete_enrollment(service, &group.name, Precondition::None).await.unwrap().done();
    has_counted("deleted", true, &mut changes);
}

pub async fn symmetric_key_groups_are_listed_in_order_up_to_the_limit(backend: &Backend) {
    let store = &backend.store;
    let service = make_service(&**store, "dps").await;
    for name in ["c", "a", "B"] {
        store.create_enrollment(service, key_group(name, 1), NOON).await.unwrap().done();
    }
    store.create_enrollment(service, x509_group("aa", Some(0), None), NOON).await.unwrap().done();
    store.create_enrollment(service, individual("aa", 2), NOON).await.unwrap().done();
    for (limit, expected) in [(2, vec!["a", "B"]), (10, vec!["a", "B", "c"])] {
        let found = store.list_symmetric_key_groups(service, limit).await.unwrap();
        assert_eq!(found.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(), expected);
    }
}

pub async fn an_entry_needs_its_service_and_is_not_found_without(backend: &Backend) {
    let store = &backend.store;
    let service = make_service(&**store, "gone").await;
    let held = X509Lookup { subject_keys: vec![*certificate(0).subject_key_hash()], ca_names: Vec::new() };
    let entries = [individual("dev-1", 1), key_group("by-key", 1), x509_group("by-certificate", Some(0), None)];
    for entry in entries.clone() {
        store.create_enrollment(service, entry, NOON).await.unwrap().done();
    }
    store.delete_service(service).await.unwrap().done();
    for entry in entries {
        assert_eq!(store.find_enrollment(service, &entry.name).await.unwrap(), None);
        assert_eq!(store.create_enrollment(service, entry, NOON).await.unwrap(), Created::NoOwner);
    }
    assert_eq!(names(&**store, service, held).await, Vec::<String>::new());
    assert_eq!(store.list_symmetric_key_groups(service, 10).await.unwrap(), []);
}

pub async fn a_service_takes_as_many_entries_of_a_kind_as_it_may(backend: &Backend) {
    type Entry = fn(&str, u64) -> Enrollment;
    let store = &backend.store;
    let (service, other) = (make_service(&**store, "dps").await, make_service(&**store, "other").await);
    let kinds: [(Entry, u64); 2] = [(individual, QUOTAS.enrollments), (key_group, QUOTAS.enrollment_groups)];
    for (entry, most) in kinds {
        for number in 0..most {
            store.create_enrollment(service, entry(&format!("e{number}"), 1), NOON).await.unwrap().done();
        }
        assert_eq!(store.create_enrollment(service, entry("more", 1), NOON).await.unwrap(), Created::Full);
        let present = entry("e0", 1);
        assert_eq!(store.create_enrollment(service, present.clone(), NOON).await.unwrap(), Created::AlreadyExists);
        store.create_enrollment(other, entry("more", 1), NOON).await.unwrap().done();
        store.replace_enrollment(service, entry("e1", 2), Precondition::Exists, NOON).await.unwrap().done();
        store.delete_enrollment(service, &present.name, Precondition::Exists).await.unwrap().done();
        store.create_enrollment(service, entry("more", 1), NOON).await.unwrap().done();
        assert_eq!(store.create_enrollment(service, present, NOON).await.unwrap(), Created::Full);
    }
}
