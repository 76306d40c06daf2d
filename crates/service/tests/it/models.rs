//! Models that devices announce while they are connected.

use domain::message::Draft;
use domain::operation::session::{Answer, Ask, ConnectedDevice};
use domain::operation::{ErrorKind, Failure, Operation, Reply, telemetry};
use service::EndpointOf;
use store::conformance::Done as _;
use store::conformance::sample::{NOON, device, identity};
use store::ports::{IdentityStore as _, ReadFrom};

use crate::ground::Ground;

impl Ground {
    async fn announce(&self, seat: &ConnectedDevice, model_id: &str) -> Result<ConnectedDevice, Failure> {
        let ask = Ask::Announce { device: seat.clone(), model_id: model_id.to_owned() };
        let caller = self.program(&EndpointOf::Hub(self.hub()));
        match self.service.perform(&caller, Operation::Session(ask)).await? {
            Reply::Session(Answer::Announced(seat)) => Ok(seat),
            other => panic!("{other:?}"),
        }
    }

    async fn seated(&self) -> ConnectedDevice {
        match self.seat_by_policy(&device("dev")).await {
            Reply::Session(Answer::Connected { device, .. }) => device,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_connected_device_is_known_by_the_model_that_it_announces() {
    let ground = Ground::new().await;
    let hub = ground.hub();
    ground.store.create_identity(hub.key, identity(device("dev"), 1), None, NOON).await.unwrap().done();
    let seat = ground.seated().await;
    let announced = ground.announce(&seat, "dtmi:com:example;1").await.unwrap();
    assert!(announced.is_same_seat(&seat));

    let message = Box::new(Draft { body: "x".into(), ..Draft::default() });
    let send = Operation::Telemetry(telemetry::Ask::Send { device: announced.clone(), message });
    ground.service.perform(&ground.program(&EndpointOf::Hub(hub.clone())), send).await.unwrap();
    let mut models = Vec::new();
    for partition in 0..hub.partitions {
        let kept = ground.service.telemetry().read(hub.key, partition, ReadFrom::Start, 9).await.unwrap();
        models.extend(kept.into_iter().map(|stored| stored.message.model_id.clone()));
    }
    assert_eq!(models, [Some("dtmi:com:example;1".to_owned())]);

    let refused = ground.announce(&announced, "no model").await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::InvalidArgument);
    ground.seated().await;
    let refused = ground.announce(&announced, "dtmi:com:example;2").await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Unauthorized, "another connection has the identity");
}
