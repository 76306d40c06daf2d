//! The worker that assigns devices: what holds it up, and what must not.

use std::pin::pin;
use std::time::Duration;

use domain::clock::Clock as _;
use domain::enrollment::{InitialTwin, ReprovisionPolicy};
use domain::ids::{DeviceId, Precondition};
use domain::operation::registration::{RegistrationState, RegistrationStatus, Substatus};
use domain::twin::ServiceChange;
use service::Settings;
use store::conformance::Done as _;
use store::conformance::sample::{NOON, admitted, device, individual, keys, object, operation, proven};
use store::faults::Fault;
use store::ports::{EnrollmentStore as _, RegistrationStore as _, TwinStore as _};

use crate::ground::{Ground, PATIENCE};

/// Longer than a worker may keep an operation.
const LEASE: Duration = Duration::from_secs(60);

/// Does `story` while the worker works.
async fn beside_the_worker<T>(ground: &Ground, story: impl Future<Output = T>) -> T {
    let mut worker = pin!(ground.service.run_assignments());
    tokio::select! {
        biased;
        () = &mut worker => unreachable!("the worker does not end"),
        told = story => told,
    }
}

#[tokio::test]
async fn one_assignment_that_takes_long_does_not_hold_up_the_others() {
    let ground = Ground::with(Settings { claim_batch: 2, ..Settings::default() }).await;
    beside_the_worker(&ground, async {
        let mut held = ground.store.hold("plan_assignment");
        ground.begin("slow").await;
        held.done().await;
        for number in 0..5 {
            let quick = format!("quick-{number}");
            ground.begin(&quick).await;
            ground.registered_as(&quick, |state| state.status == RegistrationStatus::Assigned).await;
        }
        let slow = ground.registration("slow").await.unwrap();
        assert_eq!(slow.status, RegistrationStatus::Assigning);
        drop(held);
        ground.registered_as("slow", |state| state.status == RegistrationStatus::Assigned).await;
    })
    .await;
}

#[tokio::test]
async fn what_is_queued_is_claimed_piece_by_piece_and_assigned_whole() {
    const QUEUED: usize = 150;
    const CLAIMED: usize = 64;
    let queued = async |ground: &Ground| {
        for number in 0..QUEUED {
            ground.begin(&format!("dev-{number}")).await;
        }
    };
    let ground = Ground::new().await;
    queued(&ground).await;
    let mut held = ground.store.hold("claim_operations");
    beside_the_worker(&ground, async {
        held.done().await;
        let left = ground.store.inner().claim_operations(QUEUED).await.unwrap();
        assert_eq!(left.len(), QUEUED - CLAIMED, "one verb claims no more");
    })
    .await;

    let ground = Ground::new().await;
    queued(&ground).await;
    beside_the_worker(&ground, async {
        for number in 0..QUEUED {
            let id = format!("dev-{number}");
            ground.registered_as(&id, |state| state.status == RegistrationStatus::Assigned).await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_assignment_that_panics_each_time_is_given_up() {
    let ground = Ground::new().await;
    ground.store.plan_verb("finish_assignment", Fault::Panic);
    beside_the_worker(&ground, async {
        ground.begin("unlucky").await;
        let has_failed = async |ground: &Ground| {
            ground.registration("unlucky").await.is_some_and(|state| state.status == RegistrationStatus::Failed)
        };
        let mut others = 0;
        while !has_failed(&ground).await {
            assert!(others < 100, "it is tried for ever");
            // Each wakes the worker, when the lease of the attempt before has run out.
            ground.clock.advance(LEASE);
            ground.begin(&format!("other-{others}")).await;
            others += 1;
        }
        let error = ground.registration("unlucky").await.unwrap().error.unwrap();
        assert_eq!(error.code, 500_001);
    })
    .await;
}

#[tokio::test]
async fn every_operation_that_ended_long_ago_is_forgotten() {
    const ENDED: u64 = 1_300;
    let ground = Ground::new().await;
    let dps = ground.service_key();
    let devices = [1, 2].map(|seed| proven(dps, "dev-1", &individual("dev-1", seed)));
    // Each takes the place of the one before, which ends.
    for (seed, device) in (0..=ENDED).zip(devices.iter().cycle()) {
        let decision = admitted(seed, "dev-1");
        ground.store.accept_registration(device, operation(seed), None, decision, NOON).await.unwrap();
    }
    ground.clock.advance(Settings::default().operations_kept + Duration::from_secs(1));
    let forgotten = async {
        let ended = ground.clock.now().minus(Settings::default().operations_kept);
        while ground.store.find_operation(dps, operation(ENDED - 1)).await.unwrap().is_some() {
            tokio::task::yield_now().await;
        }
        ground.store.prune_operations(ended, 1).await.unwrap()
    };
    tokio::select! {
        () = ground.service.run_pruning() => unreachable!("the worker does not end"),
        left = tokio::time::timeout(PATIENCE, forgotten) => assert_eq!(left.expect("all are forgotten in one go"), 0),
    }
    assert!(ground.store.find_operation(dps, operation(ENDED)).await.unwrap().is_some(), "one has not ended");
}

#[tokio::test]
async fn a_device_that_gets_another_device_id_keeps_its_twin() {
    let policies = [
        (true, true, 50, Substatus::InitialAssignment),
        (false, false, 50, Substatus::InitialAssignment),
        (true, false, 20, Substatus::DeviceDataReset),
    ];
    for (update_hub_assignment, migrate_device_data, expected, substatus) in policies {
        let ground = Ground::new().await;
        let mut entry = individual("dev-1", 1);
        entry.terms.reprovision = Some(ReprovisionPolicy { update_hub_assignment, migrate_device_data });
        entry.terms.initial_twin = Some(InitialTwin { tags: None, desired: Some(object(r#"{ "temperature": 20 }"#)) });
        ground.enroll(entry.clone()).await;
        let assigned_as = async |id: &str| {
            ground.register(&ground.device("dev-1", &keys(1).primary), "dev-1").await.unwrap();
            let is_there = |state: &RegistrationState| {
                state.assignment.as_ref().is_some_and(|assignment| assignment.device_id.as_str() == id)
            };
            ground.registered_as("dev-1", is_there).await;
        };
        let hub = ground.hub().key;
        beside_the_worker(&ground, async {
            assigned_as("dev-1").await;
            let desired = ServiceChange { tags: None, desired: Some(object(r#"{ "temperature": 50 }"#)) };
            let patched = ground.store.patch_twin(hub, &device("dev-1"), desired, Precondition::None, NOON).await;
            patched.unwrap().done();

            entry.terms.device_id = Some(DeviceId::parse("cave-1").unwrap());
            ground.store.replace_enrollment(ground.service_key(), entry, Precondition::Exists, NOON).await.unwrap();
            assigned_as("cave-1").await;
        })
        .await;
        let (twin, _) = ground.store.find_twin(hub, &device("cave-1")).await.unwrap().unwrap();
        assert_eq!(
            twin.desired.device_document()["temperature"],
            expected,
            "{update_hub_assignment} {migrate_device_data}"
        );
        assert!(ground.store.find_twin(hub, &device("dev-1")).await.unwrap().is_none());
        assert_eq!(ground.registration("dev-1").await.unwrap().substatus, Some(substatus), "no hub was left");
    }
}
