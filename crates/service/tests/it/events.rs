//! What hubs tell of by themselves, on its way to the log while one thing or another fails.

use std::sync::Arc;

use domain::ids::{HubKey, Precondition};
use domain::message::EventSource;
use domain::operation::identity::IdentityName;
use domain::twin::ServiceChange;
use service::Settings;
use store::conformance::Done as _;
use store::conformance::event::telling;
use store::conformance::sample::{NOON, device, identity, object};
use store::faults::{Fault, Faulty};
use store::ports::{EventStore as _, IdentityStore as _, ReadFrom, TelemetryLog as _, TwinStore as _};
use store::stream::EmbeddedLog;

use crate::ground::{Ground, PATIENCE, open_over};

struct Scene {
    ground: Ground,
    log: Arc<Faulty<EmbeddedLog>>,
    hub: HubKey,
    partitions: u16,
}

/// A hub that tells of changed twins, with one device, and a log whose calls can be made to fail.
async fn scene() -> Scene {
    let mut ground = Ground::new().await;
    let hub = telling(&*ground.store, &[EventSource::TwinChange]).await;
    let log = Arc::new(Faulty::new(ground.store.inner().telemetry().clone()));
    ground.service = open_over(&ground.store, log.clone(), &ground.clock, Settings::default()).await.unwrap();
    ground.store.create_identity(hub.key, identity(name(), 1), None, NOON).await.unwrap().done();
    Scene { ground, log, hub: hub.key, partitions: hub.partitions }
}

fn name() -> IdentityName {
    device("dev")
}

impl Scene {
    async fn change(&self, number: u64) {
        let desired = Some(object(&format!(r#"{{"n":{number}}}"#)));
        let change = ServiceChange { tags: None, desired };
        let store = &self.ground.store;
        store.patch_twin(self.hub, &name(), change, Precondition::None, NOON).await.unwrap().done();
    }

    /// The numbers of the changes that are in the log, in the order of the log.
    async fn logged(&self) -> Vec<u64> {
        let mut numbers = Vec::new();
        for partition in 0..self.partitions {
            let kept = self.log.inner().read(self.hub, partition, ReadFrom::Start, 100).await.unwrap();
            for stored in kept {
                let body: serde_json::Value = serde_json::from_slice(&stored.message.draft.body).unwrap();
                numbers.push(body.pointer("/properties/desired/n").and_then(serde_json::Value::as_u64).unwrap());
            }
        }
        numbers
    }

    /// Runs one worker for as long as `script` runs.
    async fn beside(&self, script: impl Future<Output = ()>) {
        tokio::select! {
            () = self.ground.service.run_hub_events() => panic!("the worker ended"),
            outcome = tokio::time::timeout(PATIENCE, script) => assert!(outcome.is_ok(), "{:?}", self.logged().await),
        }
    }

    async fn has_logged(&self, count: usize) {
        while self.logged().await.len() < count {
            tokio::task::yield_now().await;
        }
    }

    async fn has_forgotten(&self) {
        while self.waiting().await > 0 {
            tokio::task::yield_now().await;
        }
    }

    async fn waiting(&self) -> usize {
        self.ground.store.inner().events_after(0, 100).await.unwrap().0.len()
    }
}

#[tokio::test]
async fn what_cannot_be_forgotten_is_not_told_again() {
    let scene = scene().await;
    let store = &scene.ground.store;
    store.plan_verb("prune_events", Fault::Before);
    let script = async {
        for number in 1..=2 {
            scene.change(number).await;
            scene.has_logged(usize::try_from(number).unwrap()).await;
        }
        assert_eq!(scene.waiting().await, 2);
        store.plan([]);
        scene.has_forgotten().await;
    };
    scene.beside(script).await;
    assert_eq!(scene.logged().await, [1, 2]);
}

#[tokio::test]
async fn what_could_not_be_appended_is_told_once_and_in_order_when_it_can() {
    let scene = scene().await;
    for number in 1..=4 {
        scene.change(number).await;
    }
    scene.log.plan([(1, Fault::Before)]);
    scene.beside(scene.has_forgotten()).await;
    assert_eq!(scene.logged().await, [1, 2, 3, 4]);
}
