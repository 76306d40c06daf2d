//! Which entries are read to judge a device, and how fresh they are.

use domain::operation::ErrorKind;
use store::conformance::sample::{NOON, individual, key_group, keys};
use store::faults::Fault;
use store::ports::EnrollmentStore as _;

use crate::ground::Ground;

#[tokio::test]
async fn an_admission_by_an_individual_enrollment_reads_no_groups_and_a_refusal_does() {
    let ground = Ground::new().await;
    ground.enroll(individual("dev-1", 1)).await;
    ground.store.plan_verb("list_symmetric_key_groups", Fault::Before);
    ground.register(&ground.device("dev-1", &keys(1).primary), "dev-1").await.unwrap();
    for unknown in ["dev-1", "dev-2"] {
        let refused = ground.register(&ground.device(unknown, &keys(2).primary), unknown).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Unavailable, "{unknown}: the groups were to be read");
    }
}

#[tokio::test]
async fn groups_are_opened_once_and_again_when_one_changes() {
    let ground = Ground::new().await;
    let group = key_group("fleet", 1);
    ground.enroll(group.clone()).await;
    let register = async |seed: u64, device: &str| {
        let key = keys(seed).primary.derive(device);
        ground.register(&ground.device(device, &key), device).await.map(drop).map_err(|failure| failure.kind)
    };
    assert_eq!(register(1, "dev-1").await, Ok(()));
    ground.store.plan_verb("list_symmetric_key_groups", Fault::Before);
    assert_eq!(register(1, "dev-2").await, Ok(()), "nothing has changed");
    assert_eq!(register(2, "dev-3").await, Err(ErrorKind::Unauthorized));

    ground.store.plan([]);
    let changed = domain::enrollment::Enrollment { attestation: key_group("fleet", 2).attestation, ..group };
    let anyway = domain::ids::Precondition::None;
    ground.store.replace_enrollment(ground.service_key(), changed.clone(), anyway, NOON).await.unwrap();
    assert_eq!(register(1, "dev-1").await, Err(ErrorKind::Unauthorized), "the key was changed");
    assert_eq!(register(2, "dev-1").await, Ok(()));
    ground.store.delete_enrollment(ground.service_key(), &changed.name, anyway).await.unwrap();
    assert_eq!(register(2, "dev-1").await, Err(ErrorKind::Unauthorized), "the group is gone");
}

#[tokio::test]
async fn the_group_that_admitted_a_device_is_tried_first_though_it_is_beyond_those_tried() {
    let ground = Ground::with(service::Settings { key_groups_tried_max: 1, ..service::Settings::default() }).await;
    ground.enroll(key_group("b-fleet", 1)).await;
    let device = ground.device("dev-1", &keys(1).primary.derive("dev-1"));
    ground.register(&device, "dev-1").await.unwrap();
    ground.enroll(key_group("a-fleet", 2)).await;
    ground.register(&device, "dev-1").await.unwrap();
}
