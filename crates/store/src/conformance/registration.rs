//! Promises of [`crate::ports::RegistrationStore`]: from the first request to the finished assignment.

use std::sync::Arc;

use domain::clock::{ManualClock, UnixTime};
use domain::enrollment::{Capabilities, Enrollment, InitialTwin, ProvisioningStatus};
use domain::identity::{Authentication, IdentityStatus, Thumbprints};
use domain::ids::{HubKey, OperationId, Precondition, ServiceKey};
use domain::operation::PageRequest;
use domain::operation::identity::IdentityName;
use domain::operation::registration::{AttestedBy, RegistrationError, RegistrationStatus, Substatus};
use domain::twin::ServiceChange;
use serde_json::json;

use super::sample::{
    NOON, admitted, after, device, finish, group_id, identity, individual, key_group, keys, make_hub, make_service,
    module, object, operation, plan, proven, registration_id,
};
use super::{Backend, Done as _};
use crate::ports::{Accepted, Assigned, Assignee, Changed, Claimed, Finish, Finished, Planned, Store, TwinSource};

/// A store with a service, a hub and an individual enrollment for `dev-1`.
pub(super) struct Scene {
    pub store: Arc<dyn Store>,
    pub service: ServiceKey,
    pub hub: HubKey,
    pub entry: Enrollment,
    clock: Arc<ManualClock>,
}

pub(super) async fn scene(backend: &Backend) -> Scene {
    let store = Arc::clone(&backend.store);
    let (service, hub) = (make_service(&*store, "dps").await, make_hub(&*store, "hub").await);
    let entry = store.create_enrollment(service, individual("dev-1", 1), NOON).await.unwrap().done();
    Scene { store, service, hub, entry, clock: Arc::clone(&backend.clock) }
}

impl Scene {
    /// `dev-1` asks to be registered, as operation number `seed`.
    pub async fn accept(&self, seed: u64, at: UnixTime) -> Accepted {
        let device = proven(self.service, "dev-1", &self.entry);
        self.store.accept_registration(&device, operation(seed), None, admitted(seed, "dev-1"), at).await.unwrap()
    }

    /// What can be claimed at a time.
    pub async fn claim_up_to(&self, limit: usize, at: UnixTime) -> Vec<Claimed> {
        self.clock.set(at);
        self.store.claim_operations(limit).await.unwrap()
    }

    /// The one operation that can be claimed.
    pub async fn claim(&self, at: UnixTime) -> Claimed {
        let mut claimed = self.claim_up_to(10, at).await;
        assert_eq!(claimed.len(), 1, "{claimed:?}");
        claimed.remove(0)
    }

    /// Assigns `dev-1` once, as operation number `seed`.
    pub async fn assign(&self, seed: u64, plan: Planned, finish: Finish, at: UnixTime) {
        assert_eq!(self.accept(seed, at).await, Accepted::New);
        let Claimed { operation, attempt, .. } = self.claim(at).await;
        self.store.plan_assignment(operation, attempt, plan, at).await.unwrap().done();
        self.store.finish_assignment(operation, attempt, finish, at).await.unwrap().done();
    }

    /// Gives the twin tags, desired and reported properties.
    async fn use_twin(&self, name: &IdentityName, at: UnixTime) {
        let change = ServiceChange { tags: Some(object(r#"{"x":1}"#)), desired: Some(object(r#"{"t":9,"u":1.0}"#)) };
        self.store.patch_twin(self.hub, name, change, Precondition::None, at).await.unwrap().done();
        self.store.apply_reported(self.hub, name, object(r#"{"r":1}"#), None, at).await.unwrap().done();
    }

    async fn outcome(&self, seed: u64) -> Option<RegistrationStatus> {
        let view = self.store.find_operation(self.service, operation(seed)).await.unwrap().done();
        view.outcome.map(|state| state.status)
    }

    async fn change_entry(&mut self, at: UnixTime) {
        let changed = self.store.replace_enrollment(self.service, self.entry.clone(), Precondition::None, at).await;
        self.entry = changed.unwrap().done();
    }
}

pub async fn the_same_device_joins_its_running_registration(backend: &Backend) {
    let scene = scene(backend).await;
    assert_eq!(scene.accept(1, NOON).await, Accepted::New);
    assert_eq!(scene.accept(2, after(1)).await, Accepted::AlreadyRunning(operation(1)));
    scene.claim(after(2)).await;
    assert_eq!(scene.accept(3, after(3)).await, Accepted::AlreadyRunning(operation(1)));
    assert_eq!(scene.store.find_operation(scene.service, operation(2)).await.unwrap(), None);
    // The decision of each request is kept, joined or not, and names the operation that there is.
    let decisions = scene.store.list_decisions("DEV-1", 10).await.unwrap();
    let operations: Vec<_> = decisions.iter().map(|decision| (decision.tracking, &decision.outcome)).collect();
    let first = admitted(1, "dev-1").outcome;
    assert_eq!(operations, [3, 2, 1].map(|seed| (admitted(seed, "dev-1").tracking, &first)));
}

pub async fn another_credential_or_version_of_the_entry_supersedes(backend: &Backend) {
    let mut scene = scene(backend).await;
    assert_eq!(scene.accept(1, NOON).await, Accepted::New);
    scene.change_entry(after(1)).await;
    assert_eq!(scene.accept(2, after(2)).await, Accepted::New);
    assert_eq!(scene.outcome(1).await, Some(RegistrationStatus::Failed));
    scene.entry.attestation = individual("dev-1", 99).attestation;
    scene.change_entry(after(3)).await;
    assert_eq!(scene.accept(3, after(4)).await, Accepted::New);
    assert_eq!(scene.outcome(2).await, Some(RegistrationStatus::Failed));
    assert_eq!(scene.outcome(3).await, None);
    assert_eq!(scene.claim(after(5)).await.operation, operation(3));
}

pub async fn an_accepted_device_is_being_assigned(backend: &Backend) {
    let scene = scene(backend).await;
    let registration = registration_id("dev-1");
    assert_eq!(scene.store.find_registration(scene.service, &registration).await.unwrap(), None);
    scene.accept(1, NOON).await;
    let state = scene.store.find_registration(scene.service, &registration).await.unwrap().done();
    assert_eq!((state.status, state.assignment, state.created_at), (RegistrationStatus::Assigning, None, Some(NOON)));
    let view = scene.store.find_operation(scene.service, operation(1)).await.unwrap().done();
    assert_eq!((view.registration_id, view.outcome), (registration, None));
    let elsewhere = ServiceKey(scene.service.0 + 1);
    assert_eq!(scene.store.find_operation(elsewhere, operation(1)).await.unwrap(), None);
}

pub async fn operations_are_claimed_oldest_first_and_again_when_the_lease_has_run_out(backend: &Backend) {
    let store = &backend.store;
    let service = make_service(&**store, "dps").await;
    for seed in 1..=3 {
        let name = format!("dev-{seed}");
        let entry = store.create_enrollment(service, individual(&name, seed), NOON).await.unwrap().done();
        let payload = Some(json!({ "n": seed }));
        let device = proven(service, &name, &entry);
        store.accept_registration(&device, operation(seed), payload, admitted(seed, &name), NOON).await.unwrap();
    }
    let ids = |claimed: &[Claimed]| claimed.iter().map(|it| (it.operation, it.attempt)).collect::<Vec<_>>();
    let claim = async |limit, at| {
        backend.clock.set(at);
        store.claim_operations(limit).await.unwrap()
    };
    let first = claim(2, NOON).await;
    assert_eq!(ids(&first), [(operation(1), 1), (operation(2), 1)]);
    assert_eq!(first[0].payload, Some(json!({ "n": 1 })));
    assert_eq!(first[0].registrant.registration_id, registration_id("dev-1"));
    assert_eq!(ids(&claim(9, after(1)).await), [(operation(3), 1)]);
    assert_eq!(ids(&claim(9, after(2)).await), []);
    let again = claim(9, after(3_600)).await;
    assert_eq!(ids(&again), [(operation(1), 2), (operation(2), 2), (operation(3), 2)]);
}

pub async fn a_plan_that_exists_is_kept(backend: &Backend) {
    let scene = scene(backend).await;
    scene.accept(1, NOON).await;
    let first = scene.claim(NOON).await;
    assert_eq!((first.plan, first.current), (None, None));
    let chosen = plan(scene.hub, "dev-1");
    let planned = scene.store.plan_assignment(first.operation, 1, chosen.clone(), NOON).await.unwrap();
    assert_eq!(planned, Finished::Done(chosen.clone()));
    let other = plan(HubKey(99), "other");
    let again = scene.store.plan_assignment(first.operation, 1, other.clone(), NOON).await.unwrap();
    assert_eq!(again, Finished::Done(chosen.clone()));

    let second = scene.claim(after(3_600)).await;
    assert_eq!((second.attempt, second.plan), (2, Some(chosen.clone())));
    let fenced = scene.store.plan_assignment(first.operation, 1, other.clone(), NOON).await.unwrap();
    assert_eq!(fenced, Finished::Fenced);
    let kept = scene.store.plan_assignment(first.operation, 2, other, NOON).await.unwrap();
    assert_eq!(kept, Finished::Done(chosen));
}

pub async fn a_finished_assignment_leaves_identity_twin_and_record(backend: &Backend) {
    let scene = scene(backend).await;
    scene.accept(1, NOON).await;
    let claimed = scene.claim(NOON).await;
    let payload = Some(object(r#"{"from":"the allocator"}"#));
    let chosen = Planned { payload: payload.clone(), ..plan(scene.hub, "Other-Name") };
    scene.store.plan_assignment(claimed.operation, 1, chosen, NOON).await.unwrap().done();
    let initial = InitialTwin { tags: Some(object(r#"{"a":1}"#)), desired: Some(object(r#"{"t":50.5}"#)) };
    let assignee = Assignee::SelfSigned {
        primary: "AB".repeat(32),
        secondary: None,
        capabilities: Capabilities { iot_edge: true },
    };
    let finish = Finish { assignee, initial_twin: Some(initial) };
    let state = scene.store.finish_assignment(claimed.operation, 1, finish.clone(), after(2)).await.unwrap().done();

    assert_eq!((state.status, state.substatus), (RegistrationStatus::Assigned, Some(Substatus::InitialAssignment)));
    let assignment = state.assignment.clone().unwrap();
    assert_eq!((assignment.host_name, assignment.device_id.as_str()), (scene.hub.0.to_string(), "Other-Name"));
    assert_eq!((state.created_at, state.updated_at, &state.payload), (Some(NOON), Some(after(2)), &payload));
    assert_eq!((&state.error, &state.attested_by), (&None, &Some(AttestedBy::SymmetricKey { group: None })));
    let found = scene.store.find_registration(scene.service, &registration_id("DEV-1")).await.unwrap();
    assert_eq!(found, Some(state.clone()));
    let view = scene.store.find_operation(scene.service, operation(1)).await.unwrap().done();
    assert_eq!(view.outcome, Some(state));

    let (twin, identity) = scene.store.find_twin(scene.hub, &device("Other-Name")).await.unwrap().done();
    let thumbprints = Thumbprints { primary: Some("AB".repeat(32)), secondary: None };
    assert_eq!(identity.authentication, Authentication::SelfSigned(thumbprints));
    assert_eq!((identity.capabilities.iot_edge, identity.status), (true, IdentityStatus::Enabled));
    assert!(!identity.generation.is_empty());
    assert_eq!((twin.tags, twin.desired.document()), (object(r#"{"a":1}"#), &object(r#"{"t":50.5}"#)));

    let again = scene.store.finish_assignment(claimed.operation, 1, finish, after(3)).await.unwrap();
    assert_eq!(again, Finished::Fenced);
    assert!(scene.claim_up_to(9, after(9_999)).await.is_empty());
}

pub async fn a_returning_device_is_refreshed_and_keeps_its_twin_when_it_stays(backend: &Backend) {
    let scene = scene(backend).await;
    scene.assign(1, plan(scene.hub, "dev-1"), finish(1), NOON).await;
    let name = device("dev-1");
    let report = scene.store.apply_reported(scene.hub, &name, object(r#"{"r":1}"#), None, after(1));
    report.await.unwrap().done();
    let before = scene.store.find_twin(scene.hub, &name).await.unwrap().done();
    let disabled = domain::identity::Identity { status: IdentityStatus::Disabled, ..before.1.clone() };
    scene.store.replace_identity(scene.hub, disabled, Precondition::None, after(2)).await.unwrap().done();

    scene.accept(2, after(3)).await;
    let claimed = scene.claim(after(3)).await;
    let current = Assigned { hub: scene.hub, device_id: name.device.clone(), initial_hub: scene.hub };
    assert_eq!(claimed.current, Some(current));
    let keep = Planned { twin: TwinSource::Keep, substatus: Substatus::DeviceDataMigrated, ..plan(scene.hub, "dev-1") };
    scene.store.plan_assignment(claimed.operation, 1, keep, after(3)).await.unwrap().done();
    scene.store.finish_assignment(claimed.operation, 1, finish(2), after(4)).await.unwrap().done();

    let (twin, identity) = scene.store.find_twin(scene.hub, &name).await.unwrap().done();
    assert_eq!(twin, before.0);
    assert_eq!((identity.status, &identity.generation), (IdentityStatus::Enabled, &before.1.generation));
    assert_eq!(identity.authentication, Authentication::Sas(keys(2)));
}

pub async fn a_missing_identity_is_made_again(backend: &Backend) {
    let scene = scene(backend).await;
    scene.assign(1, plan(scene.hub, "dev-1"), finish(1), NOON).await;
    let name = device("dev-1");
    let first = scene.store.delete_identity(scene.hub, &name, Precondition::None).await.unwrap().done();
    let keep = Planned { twin: TwinSource::Keep, ..plan(scene.hub, "dev-1") };
    let initial = InitialTwin { tags: None, desired: Some(object(r#"{"t":1}"#)) };
    scene.assign(2, keep, Finish { initial_twin: Some(initial), ..finish(2) }, after(1)).await;
    let (twin, identity) = scene.store.find_twin(scene.hub, &name).await.unwrap().done();
    assert_ne!(identity.generation, first.generation);
    assert_eq!(twin.desired.document(), &object(r#"{"t":1}"#));
}

pub async fn a_reset_on_the_same_hub_returns_the_twin_to_the_initial_one_and_tells_the_device(backend: &Backend) {
    let scene = scene(backend).await;
    scene.assign(1, plan(scene.hub, "dev-1"), finish(1), NOON).await;
    let name = device("dev-1");
    scene.use_twin(&name, after(1)).await;
    let seen = scene.store.latest_twin_change().await.unwrap();

    let initial = InitialTwin { tags: None, desired: Some(object(r#"{"t":2}"#)) };
    let finish = Finish { initial_twin: Some(initial), ..finish(1) };
    scene.assign(2, plan(scene.hub, "dev-1"), finish, after(2)).await;
    let (twin, _) = scene.store.find_twin(scene.hub, &name).await.unwrap().done();
    assert_eq!((twin.tags.len(), twin.reported.document().len()), (0, 0));
    assert_eq!(twin.desired.document(), &object(r#"{"t":2}"#));
    let told = scene.store.twin_changes_after(seen, 10).await.unwrap().0;
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].version, &told[0].name), (twin.desired.version(), &name));
    assert_eq!(*told[0].patch, twin.desired.device_document());
}

pub async fn a_device_that_moves_takes_its_twin_along_and_leaves_nothing(backend: &Backend) {
    let scene = scene(backend).await;
    let there = make_hub(&*scene.store, "there").await;
    let edge = Finish {
        assignee: Assignee::Sas {
            primary: keys(1).primary,
            secondary: keys(1).secondary,
            capabilities: Capabilities { iot_edge: true },
        },
        initial_twin: None,
    };
    scene.assign(1, plan(scene.hub, "dev-1"), edge, NOON).await;
    let name = device("dev-1");
    let part = module("dev-1", "part");
    let made = scene.store.create_identity(scene.hub, identity(part.clone(), 5), None, NOON).await;
    made.unwrap().done();
    scene.use_twin(&name, after(1)).await;
    let (before, _) = scene.store.find_twin(scene.hub, &name).await.unwrap().done();

    let migrate =
        Planned { twin: TwinSource::Migrate, substatus: Substatus::DeviceDataMigrated, ..plan(there, "dev-1") };
    scene.assign(2, migrate, finish(2), after(2)).await;
    let (after_move, identity) = scene.store.find_twin(there, &name).await.unwrap().done();
    assert_eq!((&after_move.tags, &after_move.desired), (&before.tags, &before.desired));
    assert_eq!(after_move.reported, before.reported);
    assert!(identity.capabilities.iot_edge, "capabilities are carried along");
    assert_eq!(identity.authentication, Authentication::Sas(keys(2)));
    for gone in [&name, &part] {
        assert_eq!(scene.store.find_identity(scene.hub, gone).await.unwrap(), None, "{gone}");
    }

    scene.accept(3, after(3)).await;
    let current = scene.claim(after(3)).await.current.unwrap();
    assert_eq!((current.hub, current.initial_hub), (there, scene.hub));
}

pub async fn a_device_that_is_renamed_takes_its_twin_along_and_leaves_nothing(backend: &Backend) {
    let scene = scene(backend).await;
    scene.assign(1, plan(scene.hub, "dev-1"), finish(1), NOON).await;
    let name = device("dev-1");
    scene.use_twin(&name, after(1)).await;
    let (before, _) = scene.store.find_twin(scene.hub, &name).await.unwrap().done();

    let renamed = Planned { twin: TwinSource::Migrate, ..plan(scene.hub, "another-name") };
    scene.assign(2, renamed, finish(1), after(2)).await;
    let (moved, _) = scene.store.find_twin(scene.hub, &device("another-name")).await.unwrap().done();
    assert_eq!((moved.tags, moved.desired, moved.reported), (before.tags, before.desired, before.reported));
    assert_eq!(scene.store.find_identity(scene.hub, &name).await.unwrap(), None);
}

pub async fn a_device_that_is_reset_starts_afresh_elsewhere(backend: &Backend) {
    let scene = scene(backend).await;
    let there = make_hub(&*scene.store, "there").await;
    scene.assign(1, plan(scene.hub, "dev-1"), finish(1), NOON).await;
    let name = device("dev-1");
    scene.store.apply_reported(scene.hub, &name, object(r#"{"r":1}"#), None, after(1)).await.unwrap().done();
    let reset = Planned { substatus: Substatus::DeviceDataReset, ..plan(there, "new-name") };
    scene.assign(2, reset, finish(1), after(2)).await;
    let (twin, _) = scene.store.find_twin(there, &device("new-name")).await.unwrap().done();
    assert!(twin.reported.document().is_empty());
    assert_eq!(scene.store.find_identity(scene.hub, &name).await.unwrap(), None);
}

pub async fn an_entry_that_changed_since_ends_the_operation_as_failed(backend: &Backend) {
    /// What happens to the entry while the assignment runs.
    #[derive(Debug)]
    enum Change {
        Disabled,
        Deleted,
        Replaced,
    }
    for (seed, change) in [(1, Change::Disabled), (2, Change::Replaced), (3, Change::Deleted)] {
        let store = &backend.store;
        let service = make_service(&**store, &format!("dps-{seed}")).await;
        let hub = make_hub(&**store, &format!("hub-{seed}")).await;
        let group = store.create_enrollment(service, key_group("group", 7), NOON).await.unwrap().done();
        let device_proven = proven(service, "dev-1", &group);
        let decision = admitted(seed, "dev-1");
        store.accept_registration(&device_proven, operation(seed), None, decision, NOON).await.unwrap();
        let claimed = store.claim_operations(1).await.unwrap().remove(0);
        store.plan_assignment(claimed.operation, 1, plan(hub, "dev-1"), NOON).await.unwrap().done();
        let mut entry = group.clone();
        match change {
            Change::Deleted => {
                store.delete_enrollment(service, &group.name, Precondition::None).await.unwrap().done();
            }
            Change::Disabled | Change::Replaced => {
                if matches!(change, Change::Disabled) {
                    entry.terms.status = Some(ProvisioningStatus::Disabled);
                }
                store.replace_enrollment(service, entry, Precondition::None, after(1)).await.unwrap().done();
            }
        }
        let finished = store.finish_assignment(claimed.operation, 1, finish(1), after(2)).await.unwrap();
        assert_eq!(finished, Finished::EntryChanged, "{change:?}");
        let state = store.find_registration(service, &registration_id("dev-1")).await.unwrap().done();
        assert_eq!(state.status, RegistrationStatus::Failed, "{change:?}");
        assert_eq!(store.find_identity(hub, &device("dev-1")).await.unwrap(), None, "{change:?}");
        let view = store.find_operation(service, operation(seed)).await.unwrap().done();
        assert_eq!(view.outcome, Some(state), "{change:?}");
    }
}

pub async fn an_assignment_to_a_hub_that_is_gone_writes_nothing(backend: &Backend) {
    let scene = scene(backend).await;
    scene.accept(1, NOON).await;
    let claimed = scene.claim(NOON).await;
    let store = &scene.store;
    store.plan_assignment(claimed.operation, 1, plan(scene.hub, "dev-1"), NOON).await.unwrap().done();
    store.delete_hub(scene.hub).await.unwrap().done();
    let finished = store.finish_assignment(claimed.operation, 1, finish(1), NOON).await.unwrap();
    assert_eq!(finished, Finished::HubGone);
    assert_eq!(scene.outcome(1).await, None);
    let error = RegistrationError { code: 400_208, message: "no hub".to_owned() };
    let failed = store.fail_assignment(claimed.operation, 1, error.clone(), after(1)).await.unwrap().done();
    assert_eq!((failed.status, failed.error), (RegistrationStatus::Failed, Some(error.clone())));
    assert_eq!(scene.outcome(1).await, Some(RegistrationStatus::Failed));
    let again = store.fail_assignment(claimed.operation, 1, error, after(1)).await.unwrap();
    assert_eq!(again, Finished::Fenced);
}

pub async fn a_refusal_is_noted_on_the_record_and_keeps_the_assignment(backend: &Backend) {
    let scene = scene(backend).await;
    let store = &scene.store;
    let error = Some(RegistrationError { code: 401_002, message: "Unauthorized".to_owned() });
    let note = |name: &'static str, status, error: &Option<RegistrationError>| {
        let error = error.clone();
        async move { store.note_refusal(scene.service, &registration_id(name), status, error, after(9)).await.unwrap() }
    };
    note("unknown", RegistrationStatus::Failed, &error).await;
    assert_eq!(store.find_registration(scene.service, &registration_id("unknown")).await.unwrap(), None);
    note("unknown", RegistrationStatus::Disabled, &None).await;
    let state = store.find_registration(scene.service, &registration_id("unknown")).await.unwrap().done();
    assert_eq!((state.status, state.assignment), (RegistrationStatus::Disabled, None));

    scene.assign(1, plan(scene.hub, "dev-1"), finish(1), NOON).await;
    note("dev-1", RegistrationStatus::Failed, &error).await;
    let state = store.find_registration(scene.service, &registration_id("dev-1")).await.unwrap().done();
    assert_eq!((state.status, state.error, state.updated_at), (RegistrationStatus::Failed, error, Some(after(9))));
    assert!(state.assignment.is_some());
    scene.accept(2, after(10)).await;
    assert!(scene.claim(after(10)).await.current.is_some());
}

pub async fn a_group_is_remembered_and_lists_whom_it_admitted(backend: &Backend) {
    let store = &backend.store;
    let service = make_service(&**store, "dps").await;
    let group = store.create_enrollment(service, key_group("My-Group", 1), NOON).await.unwrap().done();
    for (seed, name) in [(1, "c"), (2, "A"), (3, "b")] {
        let device = proven(service, name, &group);
        store.accept_registration(&device, operation(seed), None, admitted(seed, name), NOON).await.unwrap();
    }
    let alone = store.create_enrollment(service, individual("alone", 2), NOON).await.unwrap().done();
    let device = proven(service, "alone", &alone);
    store.accept_registration(&device, operation(4), None, admitted(4, "alone"), NOON).await.unwrap();

    let group_of = |name: &str| {
        let name = registration_id(name);
        async move { store.find_admitting_group(service, &name).await.unwrap() }
    };
    assert_eq!(group_of("a").await, Some(group_id("my-group")));
    assert_eq!(group_of("alone").await, None);
    assert_eq!(group_of("nobody").await, None);
    let name = group_id("MY-GROUP");
    let page = |after, limit| store.list_registrations(service, &name, PageRequest { after, limit });
    let first = page(None, 2).await.unwrap();
    let names = |page: &domain::operation::Page<domain::operation::registration::RegistrationState>| {
        page.items.iter().map(|state| state.registration_id.as_str().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&first), ["A", "b"]);
    let second = page(first.next, 2).await.unwrap();
    assert_eq!((names(&second), second.next), (vec!["c".to_owned()], None));
}

pub async fn a_deleted_record_ends_its_operation_and_leaves_the_identity(backend: &Backend) {
    let scene = scene(backend).await;
    let store = &scene.store;
    let name = registration_id("dev-1");
    scene.assign(1, plan(scene.hub, "dev-1"), finish(1), NOON).await;
    scene.accept(2, after(1)).await;
    let claimed = scene.claim(after(1)).await;
    let state = store.find_registration(scene.service, &name).await.unwrap().done();
    let stale = store.delete_registration(scene.service, &name, Precondition::Impossible).await.unwrap();
    assert_eq!(stale, Changed::PreconditionFailed { present: state.etag.unwrap() });
    let precondition = Precondition::Matches(state.etag.unwrap());
    let deleted = store.delete_registration(scene.service, &name, precondition).await.unwrap();
    assert_eq!(deleted, Changed::Done(state));
    let again = store.delete_registration(scene.service, &name, Precondition::None).await.unwrap();
    assert_eq!(again, Changed::NotFound);
    assert_eq!(scene.outcome(2).await, Some(RegistrationStatus::Failed));
    let late = store.plan_assignment(claimed.operation, claimed.attempt, plan(scene.hub, "dev-1"), after(2)).await;
    assert_eq!(late.unwrap(), Finished::Fenced);
    assert!(store.find_identity(scene.hub, &device("dev-1")).await.unwrap().is_some());
}

pub async fn nobody_registers_at_a_service_that_is_gone(backend: &Backend) {
    let Scene { store, service, hub, entry, .. } = &scene(backend).await;
    let group = store.create_enrollment(*service, key_group("group", 2), NOON).await.unwrap().done();
    let member = proven(*service, "member", &group);
    store.accept_registration(&member, operation(1), None, admitted(1, "member"), NOON).await.unwrap();
    let Claimed { operation: running, attempt, .. } = store.claim_operations(1).await.unwrap().remove(0);
    store.delete_service(*service).await.unwrap().done();

    let page = PageRequest { after: None, limit: 10 };
    let id = registration_id("member");
    assert_eq!(store.find_operation(*service, running).await.unwrap(), None);
    assert_eq!(store.find_admitting_group(*service, &id).await.unwrap(), None);
    assert_eq!(store.list_registrations(*service, &group_id("group"), page).await.unwrap().items, []);

    let late = proven(*service, "dev-1", entry);
    let accepted = store.accept_registration(&late, operation(2), None, admitted(2, "dev-1"), NOON).await.unwrap();
    assert_eq!(accepted, Accepted::ServiceGone);
    assert_eq!(store.list_decisions("dev-1", 10).await.unwrap(), [], "nothing was decided");
    let planned = store.plan_assignment(running, attempt, plan(*hub, "member"), NOON).await.unwrap();
    assert_eq!(planned, Finished::Fenced);
    assert_eq!(store.finish_assignment(running, attempt, finish(1), NOON).await.unwrap(), Finished::Fenced);
    let error = RegistrationError { code: 500_001, message: "It is gone.".to_owned() };
    assert_eq!(store.fail_assignment(running, attempt, error, NOON).await.unwrap(), Finished::Fenced);
    store.note_refusal(*service, &id, RegistrationStatus::Disabled, None, NOON).await.unwrap();
    assert_eq!(store.find_registration(*service, &id).await.unwrap(), None);
}

pub async fn ended_operations_are_forgotten_when_asked_and_running_ones_never(backend: &Backend) {
    let scene = scene(backend).await;
    scene.assign(1, plan(scene.hub, "dev-1"), finish(1), NOON).await;
    scene.assign(2, plan(scene.hub, "dev-1"), finish(1), after(10)).await;
    scene.accept(3, after(20)).await;
    let exists = |seed| {
        let (store, service) = (&scene.store, scene.service);
        async move { store.find_operation(service, operation(seed)).await.unwrap().is_some() }
    };
    assert_eq!(scene.store.prune_operations(NOON, 10).await.unwrap(), 0);
    assert_eq!(scene.store.prune_operations(after(5), 10).await.unwrap(), 1);
    assert_eq!((exists(1).await, exists(2).await, exists(3).await), (false, true, true));
    assert_eq!(scene.store.prune_operations(after(9_999), 10).await.unwrap(), 1);
    assert_eq!((exists(2).await, exists(3).await), (false, true));
}

pub async fn two_hundred_requests_at_once_make_one_operation(backend: &Backend) {
    let scene = Arc::new(scene(backend).await);
    let requests = (1..=200).map(|seed| {
        let scene = Arc::clone(&scene);
        async move { scene.accept(seed, NOON).await }
    });
    let answers = join_all(requests.map(Box::pin).collect()).await;
    let fresh = answers.iter().filter(|answer| **answer == Accepted::New).count();
    assert_eq!(fresh, 1);
    let claimed: Vec<OperationId> =
        scene.store.claim_operations(999).await.unwrap().iter().map(|it| it.operation).collect();
    assert_eq!(claimed.len(), 1);
    for answer in answers {
        if let Accepted::AlreadyRunning(operation) = answer {
            assert_eq!(operation, claimed[0]);
        }
    }
}

/// Runs futures side by side on this task.
pub(super) async fn join_all<F: Future + Unpin>(mut futures: Vec<F>) -> Vec<F::Output> {
    let mut answers: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        let mut pending = false;
        for (future, answer) in futures.iter_mut().zip(&mut answers) {
            if answer.is_none() {
                match std::pin::Pin::new(future).poll(context) {
                    std::task::Poll::Ready(value) => *answer = Some(value),
                    std::task::Poll::Pending => pending = true,
                }
            }
        }
        if pending { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
    })
    .await;
    answers.into_iter().flatten().collect()
}
