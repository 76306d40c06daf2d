//! Workers over a store of which any one call fails: a device that registers until it is answered is assigned once.

use std::sync::Arc;

use domain::clock::{Clock, ManualClock, SeededEntropy};
use domain::operation::registration::RegistrationStatus;
use store::Error;
use store::conformance::Done as _;
use store::conformance::sample::{
    NOON, admitted, after, device, finish, individual, make_hub, make_service, operation, plan, proven,
};
use store::faults::{Fault, Faulty};
use store::ports::{Accepted, EnrollmentStore as _, Finished, IdentityStore as _, RegistrationStore as _};
use store::sqlite::{Embedded, Options};

/// Fewest calls in which a device can be assigned: accept, claim, plan, finish, find.
const CALLS: u64 = 5;

fn open(clock: &Arc<ManualClock>) -> Embedded {
    let clock = Arc::clone(clock) as Arc<dyn Clock>;
    Embedded::open(Options::default(), clock, &SeededEntropy::new(1)).unwrap()
}

/// Tries until it is answered.
async fn insist<T>(call: impl AsyncFn() -> Result<T, Error>) -> T {
    loop {
        if let Ok(answer) = call().await {
            return answer;
        }
    }
}

async fn assign_despite(faults: &[(u64, Fault)]) {
    let clock = Arc::new(ManualClock::at(NOON));
    let store = Faulty::new(open(&clock));
    let (service, hub) = (make_service(&store, "dps").await, make_hub(&store, "hub").await);
    let entry = store.create_enrollment(service, individual("dev-1", 1), NOON).await.unwrap().done();
    let proven = proven(service, "dev-1", &entry);
    store.plan(faults.iter().copied());

    let seed = std::cell::Cell::new(0);
    let accepted = insist(async || {
        seed.set(seed.get() + 1);
        let decision = admitted(seed.get(), "dev-1");
        store.accept_registration(&proven, operation(seed.get()), None, decision, NOON).await
    })
    .await;
    let running = match accepted {
        Accepted::New => operation(seed.get()),
        Accepted::AlreadyRunning(running) => running,
        Accepted::ServiceGone => panic!("nobody removed the service"),
    };
    let now = std::cell::Cell::new(0);
    let outcome = loop {
        // Each attempt comes after the lease of the one before has run out, as after a crash.
        now.set(now.get() + 3_600);
        clock.set(after(now.get()));
        let claimed = insist(async || store.claim_operations(9).await).await;
        for it in claimed {
            let planned = store.plan_assignment(it.operation, it.attempt, plan(hub, "dev-1"), after(now.get())).await;
            if matches!(planned, Ok(Finished::Done(_))) {
                let _ = store.finish_assignment(it.operation, it.attempt, finish(1), after(now.get())).await;
            }
        }
        let view = insist(async || store.find_operation(service, running).await).await.done();
        if let Some(outcome) = view.outcome {
            break outcome;
        }
    };
    store.plan([]);
    assert_eq!(outcome.status, RegistrationStatus::Assigned, "{faults:?}");
    assert_eq!(store.count_devices(hub).await.unwrap().total, 1, "{faults:?}");
    assert!(store.find_identity(hub, &device("dev-1")).await.unwrap().is_some(), "{faults:?}");
    clock.set(after(999_999));
    assert!(store.claim_operations(9).await.unwrap().is_empty(), "{faults:?}");
}

#[tokio::test]
async fn a_device_is_assigned_once_whichever_call_fails() {
    assign_despite(&[]).await;
    for call in 1..=CALLS {
        for fault in [Fault::Before, Fault::After] {
            assign_despite(&[(call, fault)]).await;
        }
    }
}

#[tokio::test]
async fn a_device_is_assigned_once_whichever_two_calls_fail() {
    for first in 1..=CALLS {
        for second in first + 1..=CALLS + 2 {
            for faults in [[Fault::After, Fault::After], [Fault::Before, Fault::After], [Fault::After, Fault::Before]] {
                assign_despite(&[(first, faults[0]), (second, faults[1])]).await;
            }
        }
    }
}

#[tokio::test]
async fn a_planned_fault_hits_the_call_it_names_and_no_other() {
    let store = Faulty::new(open(&Arc::new(ManualClock::at(NOON))));
    store.plan([(2, Fault::Before)]);
    let hub = make_hub(&store, "hub").await;
    assert!(matches!(store.count_devices(hub).await, Err(Error::Unavailable { .. })));
    assert_eq!(store.count_devices(hub).await.unwrap().total, 0);
    assert_eq!(store.calls(), 3);
}
