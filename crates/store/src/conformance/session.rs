//! Promises of [`crate::ports::IdentityStore`] about connections.

use domain::clock::UnixTime;
use domain::ids::HubKey;
use domain::operation::session::{Filter, Memory, QualityOfService, Subscriptions};

use super::sample::{NOON, after, claims, device, identity, make_hub};
use super::{Backend, Done as _};
use crate::ports::{ActivityMark, ClaimWanted, ConnectionClaim};

struct Scene<'b> {
    backend: &'b Backend,
    hub: HubKey,
    generation: String,
}

async fn scene(backend: &Backend) -> Scene<'_> {
    let hub = make_hub(&*backend.store, "hub").await;
    let made = backend.store.create_identity(hub, identity(device("dev"), 1), None, NOON).await.unwrap();
    Scene { backend, hub, generation: made.done().generation }
}

impl Scene<'_> {
    async fn claim(&self, memory: Memory, at: UnixTime) -> ConnectionClaim {
        let claim =
            self.backend.store.claim_connection(self.hub, &device("dev"), claims(&self.generation, memory), at).await;
        claim.unwrap().done()
    }

    async fn save(&self, epoch: u64, subscriptions: Subscriptions) -> bool {
        self.backend.store.save_subscriptions(self.hub, &device("dev"), epoch, subscriptions).await.unwrap()
    }

    async fn is_connected(&self) -> (bool, UnixTime) {
        let found = self.backend.store.find_identity(self.hub, &device("dev")).await.unwrap().done();
        (found.connected, found.connection_updated_at)
    }
}

fn desired() -> Subscriptions {
    let mut subscriptions = Subscriptions::default();
    subscriptions.insert(Filter::Desired, QualityOfService::AtLeastOnce);
    subscriptions
}

pub async fn each_claim_is_higher_than_the_one_before_and_ends_it(backend: &Backend) {
    let scene = scene(backend).await;
    let store = &backend.store;
    assert_eq!(scene.is_connected().await, (false, UnixTime::NEVER));
    let first = scene.claim(Memory::Resume, after(1)).await;
    assert_eq!(scene.is_connected().await, (true, after(1)));
    let second = scene.claim(Memory::Resume, after(2)).await;
    assert!(second.epoch > first.epoch);
    assert!(!scene.save(first.epoch, desired()).await);
    assert!(!store.release_connection(scene.hub, &device("dev"), first.epoch, after(3)).await.unwrap());
    assert_eq!(scene.is_connected().await, (true, after(2)));
    assert!(store.release_connection(scene.hub, &device("dev"), second.epoch, after(4)).await.unwrap());
    assert_eq!(scene.is_connected().await, (false, after(4)));
    assert!(scene.claim(Memory::Resume, after(5)).await.epoch > second.epoch);
}

pub async fn nobody_claims_what_is_gone_or_of_another_generation(backend: &Backend) {
    let scene = scene(backend).await;
    let store = &backend.store;
    for (name, generation) in [("dev", "0"), ("nobody", scene.generation.as_str())] {
        let claim =
            store.claim_connection(scene.hub, &device(name), claims(generation, Memory::Resume), NOON).await.unwrap();
        assert_eq!(claim, None, "{name} {generation}");
    }
    assert!(!store.release_connection(scene.hub, &device("nobody"), 1, NOON).await.unwrap());
    assert!(!store.save_subscriptions(scene.hub, &device("nobody"), 1, desired()).await.unwrap());
}

pub async fn a_session_is_resumed_until_a_clean_one_forgets_it(backend: &Backend) {
    let scene = scene(backend).await;
    let first = scene.claim(Memory::Resume, NOON).await;
    assert!(!first.session_present && first.subscriptions.is_empty());
    assert!(scene.save(first.epoch, desired()).await);
    let second = scene.claim(Memory::Resume, NOON).await;
    assert!(second.session_present);
    assert_eq!(second.subscriptions, desired());

    let clean = scene.claim(Memory::Forget, NOON).await;
    assert!(!clean.session_present && clean.subscriptions.is_empty());
    let fourth = scene.claim(Memory::Resume, NOON).await;
    assert!(!fourth.session_present && fourth.subscriptions.is_empty());
    assert!(scene.claim(Memory::Resume, NOON).await.session_present, "a session without subscriptions is one");
}

pub async fn a_connection_that_knows_no_sessions_leaves_them_as_they_are(backend: &Backend) {
    let scene = scene(backend).await;
    let without = scene.claim(Memory::LeaveAlone, NOON).await;
    assert!(!without.session_present && without.subscriptions.is_empty());
    let first = scene.claim(Memory::Resume, NOON).await;
    assert!(!first.session_present, "none was made");
    assert!(scene.save(first.epoch, desired()).await);

    let between = scene.claim(Memory::LeaveAlone, NOON).await;
    assert!(between.epoch > first.epoch && !between.session_present && between.subscriptions.is_empty());
    let second = scene.claim(Memory::Resume, NOON).await;
    assert!(second.session_present);
    assert_eq!(second.subscriptions, desired());
}

pub async fn a_model_stays_known_to_connections_that_announce_none_by_their_protocol(backend: &Backend) {
    let scene = scene(backend).await;
    let announce = async |memory, model_id: Option<&str>| {
        let wanted = ClaimWanted { model_id: model_id.map(str::to_owned), ..claims(&scene.generation, memory) };
        let store = &scene.backend.store;
        let claim = store.claim_connection(scene.hub, &device("dev"), wanted, NOON).await.unwrap().done();
        let found = store.find_identity(scene.hub, &device("dev")).await.unwrap().done();
        assert_eq!(claim.model_id, found.model_id);
        found.model_id
    };
    let (first, second) = ("dtmi:com:example;1", "dtmi:com:example;2");
    assert_eq!(announce(Memory::LeaveAlone, None).await, None);
    assert_eq!(announce(Memory::LeaveAlone, Some(first)).await.as_deref(), Some(first));
    assert_eq!(announce(Memory::LeaveAlone, None).await.as_deref(), Some(first));
    assert_eq!(announce(Memory::LeaveAlone, Some(second)).await.as_deref(), Some(second));
    assert_eq!(announce(Memory::Resume, None).await, None);
}

pub async fn a_model_is_announced_by_whoever_holds_the_identity_alone(backend: &Backend) {
    let scene = scene(backend).await;
    let store = &scene.backend.store;
    let announce = async |name: &str, epoch, model_id: &str| {
        store.announce_model(scene.hub, &device(name), (epoch, model_id), NOON).await.unwrap()
    };
    let known = async || store.find_identity(scene.hub, &device("dev")).await.unwrap().done().model_id;
    let first = scene.claim(Memory::LeaveAlone, NOON).await;
    assert!(announce("dev", first.epoch, "dtmi:x;1").await);
    assert_eq!(known().await.as_deref(), Some("dtmi:x;1"));
    let second = scene.claim(Memory::LeaveAlone, NOON).await;
    assert_eq!(second.model_id.as_deref(), Some("dtmi:x;1"));
    assert!(!announce("dev", first.epoch, "dtmi:x;2").await && !announce("nobody", 1, "dtmi:x;2").await);
    assert_eq!(known().await.as_deref(), Some("dtmi:x;1"));
    assert!(announce("dev", second.epoch, "dtmi:x;2").await);
    assert_eq!(known().await.as_deref(), Some("dtmi:x;2"));
}

pub async fn a_clean_session_remembers_nothing(backend: &Backend) {
    let scene = scene(backend).await;
    let clean = scene.claim(Memory::Forget, NOON).await;
    assert!(scene.save(clean.epoch, desired()).await);
    let next = scene.claim(Memory::Resume, NOON).await;
    assert!(!next.session_present && next.subscriptions.is_empty());
}

pub async fn the_latest_activity_wins(backend: &Backend) {
    let scene = scene(backend).await;
    let mark = |name: &str, at| ActivityMark { hub: scene.hub, name: device(name), at };
    let marks = [mark("dev", after(5)), mark("nobody", after(9)), mark("dev", after(3))];
    backend.store.note_activity(marks.to_vec()).await.unwrap();
    let heard = || async {
        let found = backend.store.find_identity(scene.hub, &device("dev")).await.unwrap().done();
        (found.last_activity_at, found.connected)
    };
    assert_eq!(heard().await, (after(5), false));
    scene.claim(Memory::Resume, after(4)).await;
    assert_eq!(heard().await, (after(5), true));
    backend.store.note_activity(vec![mark("dev", after(7))]).await.unwrap();
    assert_eq!(heard().await, (after(7), true));
}
