//! What operators change: many things at once, and hubs with devices connected.

use std::pin::pin;
use std::sync::Arc;

use domain::enrollment::{AttestationDraft, EntryName, Slots, Terms};
use domain::identity::{Authentication, DraftAuthentication, Identity, IdentityDraft};
use domain::ids::{PolicyName, Precondition};
use domain::operation::enrollment::{Ask as EnrollmentAsk, BulkItem as EntryItem, EnrollmentDraft};
use domain::operation::identity::{Answer, Ask as IdentityAsk, BulkChange, BulkItem, IdentityName};
use domain::operation::resource::{Ask, CertificateAsk, HubDraft, PolicyDraft, ResourceName};
use domain::operation::session::CutOff;
use domain::operation::{ErrorKind, Operation, Push, Reply};
use domain::resource::Hub;
use domain::sas::KeyChoice;
use service::EndpointOf;
use store::conformance::Done as _;
use store::conformance::sample::{NOON, ca_certificate, device, identity, keys, module, registration_id};
use store::faults::Fault;
use store::ports::{EnrollmentStore as _, IdentityStore as _};

use crate::ground::{Ground, PATIENCE};

fn draft(name: IdentityName) -> Box<IdentityDraft> {
    let (status, status_reason, authentication, capabilities) = (None, None, None, None);
    let (device_scope, parent_scopes, managed_by) = (None, Vec::new(), None);
    Box::new(IdentityDraft {
        name,
        status,
        status_reason,
        authentication,
        capabilities,
        device_scope,
        parent_scopes,
        managed_by,
    })
}

#[tokio::test]
async fn identities_of_a_bulk_request_do_not_wait_for_each_other_and_modules_come_after_devices() {
    let ground = Ground::new().await;
    let names = [device("dev-1"), module("dev-1", "part"), device("dev-2"), device("dev-3")];
    let put = |name: &IdentityName| BulkItem {
        name: name.clone(),
        change: BulkChange::Put { draft: draft(name.clone()), precondition: Precondition::None, twin: None },
    };
    let ask = IdentityAsk::Bulk(names.iter().map(put).collect());
    let program = ground.program(&EndpointOf::Hub(ground.hub()));
    let mut held = ground.store.hold("create_identity");
    let mut request = pin!(ground.service.perform(&program, Operation::Identity(ask)));
    let all_there = async {
        held.done().await;
        for name in &names {
            while ground.store.find_identity(ground.hub().key, name).await.unwrap().is_none() {
                tokio::task::yield_now().await;
            }
        }
    };
    tokio::select! {
        answer = &mut request => panic!("answered before the first was: {answer:?}"),
        there = tokio::time::timeout(PATIENCE, all_there) => there.expect("the others are made while the first is held"),
    }
    drop(held);
    let answer = request.await.unwrap();
    assert!(matches!(&answer, Reply::Identity(Answer::Bulk(failures)) if failures.is_empty()), "{answer:?}");
}

#[tokio::test]
async fn keys_are_made_afresh_for_each_identity_that_has_any() {
    let ground = Ground::new().await;
    let (hub, program) = (ground.hub(), ground.program(&EndpointOf::Hub(ground.hub())));
    let by_ca = Identity { authentication: Authentication::CertificateAuthority, ..identity(device("ca"), 1) };
    for wanted in [identity(device("dev-1"), 1), identity(module("dev-1", "part"), 1), by_ca] {
        ground.store.create_identity(hub.key, wanted, None, NOON).await.unwrap().done();
    }
    let rotate = async |choice, names| {
        let ask = IdentityAsk::RotateKeys { choice, names };
        match ground.service.perform(&program, Operation::Identity(ask)).await {
            Ok(Reply::Identity(Answer::Rotated { choice: told, keys, failures })) if told == choice => {
                Ok((keys, failures.into_iter().map(|(name, failure)| (name, failure.kind)).collect::<Vec<_>>()))
            }
            Ok(other) => panic!("answered {other:?}"),
            Err(failure) => Err(failure.kind),
        }
    };
    let kept = async |name| ground.store.find_identity(hub.key, name).await.unwrap().unwrap().authentication;

    let names = [device("dev-1"), device("no"), module("dev-1", "part"), module("dev-1", "no"), device("ca")];
    let (fresh, failed) = rotate(KeyChoice::Primary, names.to_vec()).await.unwrap();
    let expected = [
        (device("no"), ErrorKind::DeviceNotFound),
        (module("dev-1", "no"), ErrorKind::ModuleNotFound),
        (device("ca"), ErrorKind::InvalidArgument),
    ];
    assert_eq!(failed, expected);
    assert_eq!(fresh.iter().map(|(name, _)| name).collect::<Vec<_>>(), [&names[0], &names[2]]);
    for (name, pair) in &fresh {
        assert_eq!(pair.secondary, keys(1).secondary);
        assert!(fresh.iter().filter(|(_, other)| other.primary == pair.primary).count() == 1, "{name}: not its own");
        assert_eq!(kept(name).await, Authentication::Sas(pair.clone()));
    }

    ground.store.plan_verb("rotate_keys", Fault::Before);
    let (fresh, failed) = rotate(KeyChoice::Both, vec![device("dev-1")]).await.unwrap();
    assert_eq!((fresh.len(), failed), (0, vec![(device("dev-1"), ErrorKind::Unavailable)]));
    ground.store.plan([]);

    let many = |count: usize| (0..count).map(|number| device(&format!("d{number}"))).collect::<Vec<_>>();
    assert_eq!(rotate(KeyChoice::Both, many(1_001)).await.unwrap_err(), ErrorKind::TooManyDevices);
    assert_eq!(rotate(KeyChoice::Both, many(1_000)).await.unwrap().1.len(), 1_000);
}

#[tokio::test]
async fn rules_that_clients_know_by_name_are_told_by_it() {
    let ground = Ground::new().await;
    let program = ground.program(&EndpointOf::Hub(ground.hub()));
    let none = DraftAuthentication::None;
    let thumbprint = |text: &str| DraftAuthentication::SelfSigned { primary: Some(text.to_owned()), secondary: None };
    let cases = [
        (thumbprint("AB:CD"), ErrorKind::InvalidThumbprint),
        (none, ErrorKind::NoAuthentication),
        (DraftAuthentication::SelfSigned { primary: None, secondary: None }, ErrorKind::InvalidArgument),
    ];
    for (authentication, expected) in cases {
        let draft = IdentityDraft { authentication: Some(authentication), ..IdentityDraft::new(device("dev-1")) };
        let ask = IdentityAsk::Put { draft: Box::new(draft), precondition: Precondition::None };
        let refused = ground.service.perform(&program, Operation::Identity(ask)).await.unwrap_err();
        assert_eq!(refused.kind, expected);
    }
}

#[tokio::test]
async fn enrollments_of_a_bulk_request_do_not_wait_for_each_other() {
    let ground = Ground::new().await;
    let names = ["dev-1", "dev-2", "dev-3"].map(|name| EntryName::Individual(registration_id(name)));
    let put = |name: &EntryName| {
        let attestation = AttestationDraft::SymmetricKey(Slots { primary: None, secondary: None });
        let draft = EnrollmentDraft { name: name.clone(), attestation, terms: Terms::default() };
        EntryItem::Put { draft: Box::new(draft), precondition: Precondition::None }
    };
    let ask = EnrollmentAsk::Bulk(names.iter().map(put).collect());
    let program = ground.program(&EndpointOf::Service(ground.dps()));
    let mut held = ground.store.hold("create_enrollment");
    let mut request = pin!(ground.service.perform(&program, Operation::Enrollment(ask)));
    let all_there = async {
        held.done().await;
        for name in &names {
            while ground.store.find_enrollment(ground.service_key(), name).await.unwrap().is_none() {
                tokio::task::yield_now().await;
            }
        }
    };
    tokio::select! {
        answer = &mut request => panic!("answered before the first was: {answer:?}"),
        there = tokio::time::timeout(PATIENCE, all_there) => there.expect("the others are made while the first is held"),
    }
    drop(held);
    request.await.unwrap();
}

#[tokio::test]
async fn a_certificate_that_waited_behind_the_deletion_of_its_hub_finds_no_hub() {
    let ground = Ground::new().await;
    let (operator, place, name) = (ground.operator(), ground.place(), ground.hub().name.clone());
    let made = ca_certificate("ca", 0);
    let request = CertificateAsk::Put {
        name: made.name,
        certificate: Box::new(made.certificate),
        verified: true,
        precondition: Precondition::None,
    };
    let put = Ask::Certificate { place, owner: ResourceName::Hub(name), request };

    let mut held = ground.store.hold("delete_hub");
    let deleting = ground.service.perform(&operator, delete_hub(&ground));
    let putting = async {
        held.done().await;
        let mut putting = pin!(ground.service.perform(&operator, Operation::Resource(put)));
        // The resources still have the hub, and the change that removes it is under way.
        tokio::select! {
            biased;
            early = &mut putting => panic!("it did not wait: {early:?}"),
            () = tokio::task::yield_now() => drop(held),
        }
        putting.await
    };
    let (deleted, put) = tokio::join!(deleting, putting);
    deleted.unwrap();
    let refused = put.unwrap_err();
    assert_eq!((refused.kind, &*refused.public), (ErrorKind::ResourceNotFound, "The hub was not found."));
}

/// A change of the default hub.
fn put_hub(ground: &Ground, draft: HubDraft) -> Operation {
    let (place, name) = (ground.place(), ground.hub().name.clone());
    Operation::Resource(Ask::PutHub { place, name, draft: Box::new(draft), precondition: Precondition::Exists })
}

/// The keys of the default hub's policies are given up for fresh ones.
fn revoked(ground: &Ground) -> Operation {
    let policy = PolicyDraft {
        name: PolicyName::parse("iothubowner").unwrap(),
        rights: "RegistryWrite, ServiceConnect, DeviceConnect".to_owned(),
        primary: Some(keys(8).primary),
        secondary: Some(keys(8).secondary),
    };
    put_hub(ground, HubDraft { policies: Some(vec![policy]), ..HubDraft::default() })
}

fn delete_hub(ground: &Ground) -> Operation {
    Operation::Resource(Ask::Delete { place: ground.place(), name: ResourceName::Hub(ground.hub().name.clone()) })
}

#[tokio::test]
async fn a_change_that_was_made_counts_though_the_store_fails_after_it() {
    type Change = fn(&Ground) -> Operation;
    let cases: [(&str, Change, CutOff); 3] = [
        ("load_resources", revoked, CutOff::Rekeyed),
        ("find_identity", revoked, CutOff::Rekeyed),
        ("load_resources", delete_hub, CutOff::HubDeleted),
    ];
    for (verb, change, reason) in cases {
        let ground = Ground::new().await;
        let (name, operator, hub) = (device("dev-1"), ground.operator(), ground.hub());
        ground.store.create_identity(hub.key, identity(name.clone(), 1), None, NOON).await.unwrap().done();
        let told = ground.connect_by_policy(&name).await;
        let revoked = hub.policies.first().unwrap().keys.primary.digest();

        ground.store.plan_verb(verb, Fault::Before);
        let mut held = ground.store.hold(verb);
        let mut changing = pin!(ground.service.perform(&operator, change(&ground)));
        tokio::select! {
            answer = &mut changing => panic!("{verb}: answered before it failed: {answer:?}"),
            failed = tokio::time::timeout(PATIENCE, held.done()) => failed.expect(verb),
        }
        // The store can be read again; the failure is yet to be heard of.
        ground.store.plan([]);
        drop(held);
        tokio::time::timeout(PATIENCE, changing).await.expect(verb).unwrap();

        let resources = ground.service.resources();
        let is_known = |hub: &Arc<Hub>| hub.policies.iter().any(|policy| policy.has_key(&revoked));
        assert!(!resources.hubs().iter().any(is_known), "{verb} {reason:?}");
        assert!(matches!(told.try_next(), Some(Push::CutOff(told)) if told == reason), "{verb} {reason:?}");
    }
}

#[tokio::test]
async fn a_deleted_hub_ends_its_connections_without_reading_each_identity() {
    let ground = Ground::new().await;
    let (name, operator) = (device("dev-1"), ground.operator());
    ground.store.create_identity(ground.hub().key, identity(name.clone(), 1), None, NOON).await.unwrap().done();
    let told = ground.connect_by_policy(&name).await;
    ground.store.plan_verb("find_identity", Fault::Panic);
    ground.service.perform(&operator, delete_hub(&ground)).await.unwrap();
    assert!(matches!(told.try_next(), Some(Push::CutOff(CutOff::HubDeleted))));
}

#[tokio::test]
async fn connections_are_judged_when_policies_change_and_hold_up_no_other_change() {
    let ground = Ground::new().await;
    let name = device("dev-1");
    ground.store.create_identity(ground.hub().key, identity(name.clone(), 1), None, NOON).await.unwrap().done();
    ground.connect(&name, &keys(1).primary).await.unwrap();
    let operator = ground.operator();
    let moved = || put_hub(&ground, HubDraft { location: Some("elsewhere".to_owned()), ..HubDraft::default() });
    ground.store.plan_verb("find_identity", Fault::Before);
    ground.service.perform(&operator, moved()).await.expect("nobody is judged for a hub's location");
    ground.store.plan([]);

    let mut held = ground.store.hold("find_identity");
    let mut judging = pin!(ground.service.perform(&operator, revoked(&ground)));
    let other = async {
        held.done().await;
        ground.service.perform(&operator, moved()).await.unwrap();
    };
    tokio::select! {
        answer = &mut judging => panic!("answered before connections were judged: {answer:?}"),
        changed = tokio::time::timeout(PATIENCE, other) => changed.expect("another change does not wait"),
    }
    drop(held);
    judging.await.unwrap();
}
