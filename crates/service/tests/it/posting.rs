//! Telemetry of devices without a connection: who may send, as whom it is kept, and what is said when there is too much.

use std::sync::Arc;

use domain::message::{Draft, MESSAGE_BYTES_MAX, Origin};
use domain::operation::session::AuthenticationMethod;
use domain::operation::telemetry::{Answer, Ask};
use domain::operation::{Caller, ErrorKind, Failure, Operation, Reply};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use service::Settings;
use store::conformance::Done as _;
use store::conformance::sample::{NOON, device, identity, keys};
use store::faults::HeldLog;
use store::ports::{IdentityStore as _, ReadFrom, StoredMessage};
use tokio::time::timeout;

use crate::ground::{Ground, PATIENCE, open_over};

async fn make_device(ground: &Ground) {
    let hub = ground.hub().key;
    ground.store.create_identity(hub, identity(device("dev"), 1), None, NOON).await.unwrap().done();
}

impl Ground {
    async fn post(&self, caller: &Caller, bodies: &[usize]) -> Result<Reply, Failure> {
        let messages =
            bodies.iter().map(|&bytes| Draft { body: vec![b'a'; bytes].into(), ..Draft::default() }).collect();
        self.service.perform(caller, Operation::Telemetry(Ask::Post { name: device("dev"), messages })).await
    }

    fn sender(&self) -> Caller {
        self.device_at_hub(&device("dev"), &keys(1).primary)
    }

    async fn log_of_the_hub(&self) -> Vec<StoredMessage> {
        let hub = self.hub();
        let mut kept = Vec::new();
        for partition in 0..hub.partitions {
            kept.extend(self.service.telemetry().read(hub.key, partition, ReadFrom::Start, 100).await.unwrap());
        }
        kept
    }
}

#[tokio::test]
async fn what_is_posted_is_kept_as_the_devices_own() {
    let ground = Ground::new().await;
    make_device(&ground).await;
    let posted = ground.post(&ground.sender(), &[1, 2]).await.unwrap();
    assert!(matches!(posted, Reply::Telemetry(Answer::Stored)), "{posted:?}");
    let kept = ground.log_of_the_hub().await;
    let lengths: Vec<usize> = kept.iter().map(|stored| stored.message.draft.body.len()).collect();
    assert_eq!(lengths, [1, 2]);
    for stored in &kept {
        assert_eq!(stored.message.sender, device("dev"));
        assert_eq!(stored.message.origin, Origin::Telemetry(AuthenticationMethod::DeviceKey));
    }
}

#[tokio::test]
async fn who_proves_nothing_posts_nothing() {
    let ground = Ground::new().await;
    make_device(&ground).await;
    let stranger = ground.device_at_hub(&device("dev"), &keys(7).primary);
    assert_eq!(ground.post(&stranger, &[1]).await.unwrap_err().kind, ErrorKind::Unauthorized);
    let other = ground.device_at_hub(&device("other"), &keys(1).primary);
    assert_eq!(ground.post(&other, &[1]).await.unwrap_err().kind, ErrorKind::Unauthorized);
    assert!(ground.log_of_the_hub().await.is_empty());
}

#[tokio::test]
async fn who_finds_too_much_under_way_is_told_when_to_come_again() {
    /// As many of the largest messages as may wait.
    const ROOM: usize = 32;
    const POSTS: usize = 40;

    let mut ground = Ground::new().await;
    let log = Arc::new(ground.store.inner().telemetry().clone());
    let held = Arc::new(HeldLog::new(log));
    held.hold();
    ground.service = open_over(&ground.store, held.clone(), &ground.clock, Settings::default()).await.unwrap();
    make_device(&ground).await;

    let sender = ground.sender();
    let bodies = [MESSAGE_BYTES_MAX];
    let mut posts: FuturesUnordered<_> = (0..POSTS).map(|_| ground.post(&sender, &bodies)).collect();
    // While the log takes nothing, who is answered is refused: all but those for whom there was room.
    for _ in ROOM..POSTS {
        let refused = timeout(PATIENCE, posts.next()).await.expect("an answer").unwrap().unwrap_err();
        assert_eq!((refused.kind, refused.retry_after_s.is_some()), (ErrorKind::Throttled, true));
    }
    held.let_go();
    let answers: Vec<_> = timeout(PATIENCE, posts.collect()).await.expect("answers");
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert!(ground.post(&sender, &bodies).await.is_ok(), "there is room again");
    let hub = ground.hub();
    let mut kept = 0;
    for partition in 0..hub.partitions {
        let bounds = ground.service.telemetry().bounds(hub.key, partition).await.unwrap();
        kept += bounds.map_or(0, |(_, newest)| newest.sequence + 1);
    }
    assert_eq!(kept, ROOM as u64 + 1, "what was answered is kept, and nothing else");
}
