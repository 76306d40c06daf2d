//! The first start, broken off anywhere.

use std::sync::Arc;

use domain::clock::{ManualClock, SeededEntropy};
use service::Settings;
use store::conformance::sample::NOON;
use store::faults::{Fault, Faulty};
use store::ports::ResourceStore as _;
use store::sqlite::{Embedded, Options};

use crate::ground::{Ground, open};

fn fresh() -> (Arc<Faulty<Embedded>>, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::at(NOON));
    let embedded = Embedded::open(Options::default(), Arc::clone(&clock) as _, &SeededEntropy::new(1)).unwrap();
    (Arc::new(Faulty::new(embedded)), clock)
}

#[tokio::test]
async fn a_first_start_that_was_broken_off_is_gone_on_with() {
    let (store, clock) = fresh();
    open(&store, &clock, Settings::default()).await.unwrap();
    let calls = store.calls();
    for (call, fault) in (1..=calls).flat_map(|call| [(call, Fault::Before), (call, Fault::After)]) {
        let (store, clock) = fresh();
        store.plan([(call, fault)]);
        assert!(open(&store, &clock, Settings::default()).await.is_err(), "call {call} of {calls}");
        let service = open(&store, &clock, Settings::default()).await.unwrap();
        let resources = service.resources();
        let (hubs, services) = (resources.hubs(), resources.services());
        let ([hub], [dps]) = (hubs, services) else {
            panic!("call {call}, {fault:?}: {hubs:?}, {services:?}");
        };
        assert_eq!(dps.links.iter().map(|link| link.hub).collect::<Vec<_>>(), [hub.key], "call {call}, {fault:?}");
        assert_eq!(resources.groups().len(), 1, "call {call}, {fault:?}");
        assert!(dps.address < hub.address, "call {call}, {fault:?}");
    }
}

#[tokio::test]
async fn default_resources_that_were_removed_are_not_made_again() {
    let ground = Ground::new().await;
    ground.store.delete_hub(ground.hub().key).await.unwrap();
    ground.store.delete_service(ground.service_key()).await.unwrap();
    let service = open(&ground.store, &ground.clock, Settings::default()).await.unwrap();
    assert!(service.resources().hubs().is_empty() && service.resources().services().is_empty());
}
