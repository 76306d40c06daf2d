//! The promise behind all others of registrations: whatever workers do, in whatever order, each operation has one plan
//! and one end, and only the latest attempt decides. Scripts of random steps are held against a model of a few lines.

use domain::operation::registration::{RegistrationError, RegistrationStatus};
use proptest::prelude::*;

use super::Backend;
use super::registration::{Scene, scene};
use super::sample::{after, device, finish, operation, plan};
use crate::ports::{Accepted, Finished};

/// What somebody does next.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// The device asks to be registered.
    Accept,
    /// A worker claims what can be claimed.
    Claim,
    /// So much time passes that every lease runs out.
    Wait,
    /// A worker plans, under an attempt that is so much older than the latest.
    Plan { behind: u32 },
    /// A worker finishes.
    Finish { behind: u32 },
    /// A worker gives up.
    Fail { behind: u32 },
}

/// Any script.
pub fn script() -> impl Strategy<Value = Vec<Step>> {
    let behind = || prop_oneof![3 => Just(0_u32), 1 => 1_u32..3];
    let step = prop_oneof![
        2 => Just(Step::Accept),
        3 => Just(Step::Claim),
        1 => Just(Step::Wait),
        2 => behind().prop_map(|behind| Step::Plan { behind }),
        2 => behind().prop_map(|behind| Step::Finish { behind }),
        1 => behind().prop_map(|behind| Step::Fail { behind }),
    ];
    proptest::collection::vec(step, 1..40)
}

/// What the store must know of the running operation.
#[derive(Debug, Default)]
struct Model {
    /// Number of the running operation, with its latest attempt and whether it is planned and leased.
    running: Option<(u64, u32, Option<String>, bool)>,
    accepted: u64,
    ended: Vec<(u64, RegistrationStatus)>,
    now: u64,
}

/// Runs a script against a store and the model.
pub async fn every_operation_has_one_plan_and_one_end(backend: &Backend, script: &[Step]) {
    let scene = scene(backend).await;
    let mut model = Model::default();
    for step in script {
        model.now += 1;
        match *step {
            Step::Accept => accept(&scene, &mut model).await,
            Step::Claim => claim(&scene, &mut model).await,
            Step::Wait => {
                model.now += 3_600;
                if let Some((_, _, _, leased)) = &mut model.running {
                    *leased = false;
                }
            }
            Step::Plan { behind } => plan_step(&scene, &mut model, behind).await,
            Step::Finish { behind } => finish_step(&scene, &mut model, behind).await,
            Step::Fail { behind } => fail_step(&scene, &mut model, behind).await,
        }
    }
    for (seed, status) in &model.ended {
        let view = scene.store.find_operation(scene.service, operation(*seed)).await.unwrap().unwrap();
        assert_eq!(view.outcome.map(|state| state.status), Some(*status), "operation {seed}");
    }
    let identities = scene.store.count_devices(scene.hub).await.unwrap().total;
    assert!(identities <= 1, "one device has {identities} identities");
}

async fn accept(scene: &Scene, model: &mut Model) {
    model.accepted += 1;
    let answer = scene.accept(model.accepted, after(model.now)).await;
    if let Some((seed, ..)) = &model.running {
        assert_eq!(answer, Accepted::AlreadyRunning(operation(*seed)));
    } else {
        assert_eq!(answer, Accepted::New);
        model.running = Some((model.accepted, 0, None, false));
    }
}

async fn claim(scene: &Scene, model: &mut Model) {
    let claimed = scene.claim_up_to(10, after(model.now)).await;
    match &mut model.running {
        Some((seed, attempt, planned, leased @ false)) => {
            *attempt += 1;
            *leased = true;
            assert_eq!(claimed.len(), 1);
            assert_eq!((claimed[0].operation, claimed[0].attempt), (operation(*seed), *attempt));
            let device = claimed[0].plan.as_ref().map(|plan| plan.device_id.as_str().to_owned());
            assert_eq!(device, *planned);
        }
        _ => assert!(claimed.is_empty(), "{claimed:?}"),
    }
}

/// The operation a worker names, the attempt it carries, and whether that is the latest one.
fn named(model: &Model, behind: u32) -> Option<(u64, u32, bool)> {
    match &model.running {
        Some((seed, attempt, ..)) if *attempt > behind => Some((*seed, attempt - behind, behind == 0)),
        Some(_) => None,
        None => model.ended.last().map(|(seed, _)| (*seed, 1, false)),
    }
}

async fn plan_step(scene: &Scene, model: &mut Model, behind: u32) {
    let Some((seed, attempt, is_latest)) = named(model, behind) else { return };
    let wanted = format!("dev-{}", model.now);
    let answer = scene
        .store
        .plan_assignment(operation(seed), attempt, plan(scene.hub, &wanted), after(model.now))
        .await
        .unwrap();
    match (&mut model.running, is_latest) {
        (Some((_, _, planned, _)), true) => {
            let kept = planned.get_or_insert(wanted).clone();
            assert_eq!(answer, Finished::Done(plan(scene.hub, &kept)));
        }
        _ => assert_eq!(answer, Finished::Fenced),
    }
}

async fn finish_step(scene: &Scene, model: &mut Model, behind: u32) {
    let Some((seed, attempt, is_latest)) = named(model, behind) else { return };
    let planned = match (&model.running, is_latest) {
        (Some((_, _, planned, _)), true) => planned.clone(),
        _ => None,
    };
    if is_latest && planned.is_none() {
        // A worker that finishes without a plan is a fault of its own, which the store answers with an error.
        assert!(scene.store.finish_assignment(operation(seed), attempt, finish(1), after(model.now)).await.is_err());
        return;
    }
    let answer = scene.store.finish_assignment(operation(seed), attempt, finish(1), after(model.now)).await.unwrap();
    match planned {
        Some(name) => {
            assert!(matches!(answer, Finished::Done(_)), "{answer:?}");
            assert!(scene.store.find_identity(scene.hub, &device(&name)).await.unwrap().is_some());
            model.ended.push((seed, RegistrationStatus::Assigned));
            model.running = None;
        }
        None => assert_eq!(answer, Finished::Fenced),
    }
}

async fn fail_step(scene: &Scene, model: &mut Model, behind: u32) {
    let Some((seed, attempt, is_latest)) = named(model, behind) else { return };
    let error = RegistrationError { code: 400_207, message: "no".to_owned() };
    let answer = scene.store.fail_assignment(operation(seed), attempt, error, after(model.now)).await.unwrap();
    if is_latest && model.running.is_some() {
        assert!(matches!(answer, Finished::Done(_)), "{answer:?}");
        model.ended.push((seed, RegistrationStatus::Failed));
        model.running = None;
    } else {
        assert_eq!(answer, Finished::Fenced);
    }
}
