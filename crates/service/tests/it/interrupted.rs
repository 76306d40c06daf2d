//! Clients that hang up while what they asked for is being done.

use std::pin::pin;

use domain::ids::{PolicyName, Precondition};
use domain::operation::Operation;
use domain::operation::registration::RegistrationStatus;
use domain::operation::resource::{Ask, HubDraft, PolicyDraft};
use domain::sas::SymmetricKey;
use store::conformance::sample::{individual, keys};

use crate::ground::{Ground, PATIENCE};

#[tokio::test]
async fn an_operator_who_hangs_up_has_still_revoked_the_key() {
    let ground = Ground::new().await;
    let owner = PolicyName::parse("iothubowner").unwrap();
    let fresh = SymmetricKey::from_bytes(&[9; 32]).unwrap();
    let policy = PolicyDraft {
        name: owner.clone(),
        rights: "RegistryWrite, ServiceConnect, DeviceConnect".to_owned(),
        primary: Some(fresh.clone()),
        secondary: Some(fresh.clone()),
    };
    let ask = Ask::PutHub {
        place: ground.place(),
        name: ground.hub().name.clone(),
        draft: Box::new(HubDraft { policies: Some(vec![policy]), ..HubDraft::default() }),
        precondition: Precondition::Exists,
    };
    let mut held = ground.store.hold("replace_hub");
    let mut published = ground.service.published_changes();
    let operator = ground.operator();
    {
        let mut request = pin!(ground.service.perform(&operator, Operation::Resource(ask)));
        tokio::select! {
            answer = &mut request => panic!("answered before the change was read: {answer:?}"),
            () = held.done() => {}
        }
    }
    drop(held);
    tokio::time::timeout(PATIENCE, published.changed()).await.expect("the change is read by everybody").unwrap();
    let hub = ground.hub();
    let policy = hub.policies.iter().find(|policy| policy.name == owner).unwrap();
    assert!(policy.has_key(&fresh.digest()));
    assert_eq!(hub.policies.len(), 1);
}

#[tokio::test]
async fn a_device_that_hangs_up_is_assigned_at_once() {
    let ground = Ground::new().await;
    ground.enroll(individual("dev-1", 1)).await;
    let device = ground.device("dev-1", &keys(1).primary);
    let mut worker = pin!(ground.service.run_assignments());
    let mut held = ground.store.hold("accept_registration");
    {
        // The worker has found nothing to do when the device comes.
        let mut request = pin!(ground.register(&device, "dev-1"));
        tokio::select! {
            biased;
            () = &mut worker => unreachable!("the worker does not end"),
            answer = &mut request => panic!("answered before the assignment was begun: {answer:?}"),
            () = held.done() => {}
        }
    }
    drop(held);
    tokio::select! {
        () = &mut worker => unreachable!("the worker does not end"),
        () = ground.registered_as("dev-1", |state| state.status == RegistrationStatus::Assigned) => {}
    }
}
