//! Promises of [`crate::ports::CloudToDeviceStore`].

use std::time::Duration;

use domain::clock::UnixTime;
use domain::cloud_to_device::{
    Acknowledgement, Delivery, Draft, Feedback, FeedbackSettings, Outcome, QueueSettings, Settlement, SystemProperties,
};
use domain::ids::{HubKey, LockToken, Precondition};
use domain::operation::identity::IdentityName;
use domain::operation::session::Memory;

use super::sample::{NOON, QUOTAS, after, claims, device, identity, make_hub};
use super::{Backend, Done as _};
use crate::ports::{Enqueued, Given, Holder, Lease, Settled, Swept};

/// How long a device has a message for itself in these tests.
const LOCK_S: u64 = 60;

/// How often feedback is handed out here.
const FEEDBACK_DELIVERIES_MAX: u32 = 2;

struct Scene<'b> {
    backend: &'b Backend,
    hub: HubKey,
    generation: String,
    settings: QueueSettings,
}

async fn scene(backend: &Backend) -> Scene<'_> {
    let hub = make_hub(&*backend.store, "hub").await;
    let made = backend.store.create_identity(hub, identity(device("dev"), 1), None, NOON).await.unwrap();
    let settings = QueueSettings { deliveries_max: 2, ..QueueSettings::default() };
    Scene { backend, hub, generation: made.done().generation, settings }
}

fn message(id: &str) -> Draft {
    Draft {
        system: SystemProperties { message_id: Some(id.to_owned()), ..SystemProperties::default() },
        acknowledgement: Acknowledgement::Full,
        body: vec![0, 0xff, 7].into(),
        ..Draft::default()
    }
}

fn lock(number: u128) -> LockToken {
    LockToken::from_bits(number)
}

impl Scene<'_> {
    async fn enqueue(&self, draft: Draft, at: UnixTime) -> Enqueued {
        let sent = (draft, self.settings);
        self.backend.store.enqueue_message(self.hub, &device("dev"), sent, at).await.unwrap()
    }

    /// Leases as many messages as there are tokens.
    async fn lease(&self, holder: Holder, tokens: std::ops::Range<u128>, at: UnixTime) -> Vec<Delivery> {
        let lease = Lease { generation: self.generation.clone(), holder, locks: tokens.map(lock).collect() };
        self.backend.store.lease_messages(self.hub, &device("dev"), lease, at).await.unwrap().deliveries
    }

    /// Leases one message for a minute.
    async fn poll(&self, token: u128, at: UnixTime) -> Option<Delivery> {
        let until = at.plus(Duration::from_secs(LOCK_S));
        self.lease(Holder::Until(until), token..token + 1, at).await.pop()
    }

    async fn settle(&self, token: u128, settlement: Settlement, at: UnixTime) -> Settled {
        let how = (lock(token), settlement);
        self.backend.store.settle_message(self.hub, &device("dev"), how, at).await.unwrap()
    }

    async fn connect(&self) -> u64 {
        let wanted = claims(&self.generation, Memory::Resume);
        let claim = self.backend.store.claim_connection(self.hub, &device("dev"), wanted, NOON).await;
        claim.unwrap().done().epoch
    }

    async fn waiting(&self) -> u32 {
        self.backend.store.find_identity(self.hub, &device("dev")).await.unwrap().done().messages_waiting
    }

    async fn take(&self, token: u128, limit: usize, at: UnixTime) -> Vec<Feedback> {
        let settings = FeedbackSettings { deliveries_max: FEEDBACK_DELIVERIES_MAX, ..self.settings.feedback };
        let given = Given { lock: lock(token), limit, settings };
        self.backend.store.take_feedback(self.hub, given, at).await.unwrap()
    }

    /// Which messages feedback was given on, and what became of them.
    async fn told(&self, token: u128, at: UnixTime) -> Vec<(String, Outcome)> {
        self.take(token, 64, at).await.into_iter().map(|record| (record.message_id, record.outcome)).collect()
    }
}

fn ids(deliveries: &[Delivery]) -> Vec<&str> {
    deliveries.iter().filter_map(|delivery| delivery.message.system.message_id.as_deref()).collect()
}

pub async fn a_message_comes_to_its_device_as_it_was_sent(backend: &Backend) {
    let scene = scene(backend).await;
    let sent = Draft {
        system: SystemProperties {
            correlation_id: Some("c".to_owned()),
            user_id: Some("u".to_owned()),
            content_type: Some("text/plain".to_owned()),
            content_encoding: Some("utf-8".to_owned()),
            ..message("m").system
        },
        properties: vec![("a".to_owned(), Some("b".to_owned())), ("c".to_owned(), None)],
        expires_at: Some(after(100)),
        ..message("m")
    };
    assert_eq!(scene.enqueue(sent.clone(), NOON).await, Enqueued::Done);
    assert_eq!(scene.waiting().await, 1);
    let got = scene.poll(1, after(1)).await.done();
    assert_eq!((got.lock, got.enqueued_at, got.expires_at, got.delivery_count), (lock(1), NOON, after(100), 0));
    assert_eq!(got.message, sent);
    assert_eq!(scene.waiting().await, 1, "it is not settled");
    assert_eq!(scene.settle(1, Settlement::Complete, after(2)).await, Settled::Done);
    assert_eq!(scene.waiting().await, 0);
    assert_eq!(scene.settle(1, Settlement::Complete, after(2)).await, Settled::LockLost);
    let told = Feedback {
        message_id: "m".to_owned(),
        device: device("dev"),
        generation: scene.generation.clone(),
        outcome: Outcome::Success,
        at: after(2),
    };
    assert_eq!(scene.take(9, 64, after(3)).await, [told]);
}

pub async fn messages_are_leased_in_order_and_each_to_one(backend: &Backend) {
    let scene = scene(backend).await;
    for id in ["a", "b", "c"] {
        scene.enqueue(message(id), NOON).await;
    }
    let first = scene.lease(Holder::Until(after(LOCK_S)), 1..3, NOON).await;
    assert_eq!(ids(&first), ["a", "b"]);
    assert!(first[0].sequence < first[1].sequence);
    let rest = scene.lease(Holder::Until(after(LOCK_S)), 3..6, NOON).await;
    assert_eq!(ids(&rest), ["c"]);
    assert_eq!(scene.poll(6, NOON).await, None);
    scene.settle(1, Settlement::Abandon, NOON).await;
    scene.enqueue(message("d"), NOON).await;
    assert_eq!(ids(&scene.lease(Holder::Until(after(LOCK_S)), 6..9, NOON).await), ["a", "d"], "its place is kept");
}

pub async fn a_message_is_for_an_identity_that_is_there(backend: &Backend) {
    let scene = scene(backend).await;
    let store = &backend.store;
    let sent = |id| (message(id), scene.settings);
    let nobody = device("nobody");
    assert_eq!(store.enqueue_message(scene.hub, &nobody, sent("a"), NOON).await.unwrap(), Enqueued::NotFound);
    assert_eq!(store.enqueue_message(HubKey(99), &device("dev"), sent("a"), NOON).await.unwrap(), Enqueued::NotFound);
    assert_eq!(store.purge_messages(scene.hub, &nobody, NOON).await.unwrap(), None);

    scene.enqueue(message("a"), NOON).await;
    let other = Scene { generation: "another".to_owned(), ..scene };
    assert_eq!(other.poll(1, NOON).await, None, "of another generation");
}

pub async fn as_many_messages_wait_as_may(backend: &Backend) {
    let scene = scene(backend).await;
    for number in 0..QUOTAS.messages_per_device {
        assert_eq!(scene.enqueue(message(&number.to_string()), NOON).await, Enqueued::Done);
    }
    assert_eq!(scene.enqueue(message("one more"), NOON).await, Enqueued::Full);
    scene.poll(1, NOON).await.done();
    assert_eq!(scene.enqueue(message("one more"), NOON).await, Enqueued::Full, "a locked one counts");
    scene.settle(1, Settlement::Complete, NOON).await;
    assert_eq!(scene.enqueue(message("one more"), NOON).await, Enqueued::Done);
    assert_eq!(scene.waiting().await, QUOTAS.messages_per_device);
}

pub async fn a_message_given_back_too_often_is_dead_lettered(backend: &Backend) {
    let scene = scene(backend).await;
    scene.enqueue(message("a"), NOON).await;
    assert_eq!(scene.poll(1, NOON).await.done().delivery_count, 0);
    assert_eq!(scene.settle(1, Settlement::Abandon, NOON).await, Settled::Done);
    assert_eq!(scene.poll(2, NOON).await.done().delivery_count, 1);
    assert_eq!(scene.settle(1, Settlement::Complete, NOON).await, Settled::LockLost, "the first lock is over");
    assert_eq!(scene.settle(2, Settlement::Abandon, NOON).await, Settled::Done);
    assert_eq!((scene.poll(3, NOON).await, scene.waiting().await), (None, 0));
    assert_eq!(scene.told(9, NOON).await, [("a".to_owned(), Outcome::DeliveryCountExceeded)]);
}

pub async fn a_lock_that_runs_out_counts_as_given_back(backend: &Backend) {
    let scene = scene(backend).await;
    scene.enqueue(message("a"), NOON).await;
    scene.poll(1, NOON).await.done();
    assert_eq!(scene.poll(2, after(LOCK_S - 1)).await, None);
    assert_eq!(scene.settle(1, Settlement::Complete, after(LOCK_S)).await, Settled::LockLost);
    assert_eq!(scene.poll(2, after(LOCK_S)).await.done().delivery_count, 1);

    let swept = backend.store.sweep_messages(after(2 * LOCK_S), 10).await.unwrap();
    assert_eq!(swept, Swept { freed: Vec::new(), rows: 1 });
    assert_eq!(scene.told(9, after(2 * LOCK_S)).await, [("a".to_owned(), Outcome::DeliveryCountExceeded)]);
}

pub async fn a_sweep_tells_whose_messages_wait_again(backend: &Backend) {
    let scene = scene(backend).await;
    let sweep = async |at| backend.store.sweep_messages(at, 1).await.unwrap();
    for id in ["a", "b"] {
        scene.enqueue(message(id), NOON).await;
    }
    scene.lease(Holder::Until(after(LOCK_S)), 1..3, NOON).await;
    assert_eq!(sweep(after(LOCK_S - 1)).await, Swept::default());
    let one = Swept { freed: vec![(scene.hub, device("dev"))], rows: 1 };
    assert_eq!((sweep(after(LOCK_S)).await, sweep(after(LOCK_S)).await), (one.clone(), one));
    assert_eq!(sweep(after(LOCK_S)).await, Swept::default());
}

pub async fn time_runs_out_for_what_nobody_has(backend: &Backend) {
    let scene = scene(backend).await;
    let until = |seconds| Some(after(seconds));
    for (id, expires_at) in [("locked", until(10)), ("waiting", until(10)), ("later", None)] {
        scene.enqueue(Draft { expires_at, ..message(id) }, NOON).await;
    }
    assert_eq!(ids(&[scene.poll(1, NOON).await.done()]), ["locked"]);
    let swept = backend.store.sweep_messages(after(10), 10).await.unwrap();
    assert_eq!((swept.rows, scene.waiting().await), (1, 2));
    assert_eq!(scene.told(8, after(10)).await, [("waiting".to_owned(), Outcome::Expired)]);
    assert_eq!(scene.settle(1, Settlement::Abandon, after(11)).await, Settled::Done);
    assert_eq!(scene.told(9, after(11)).await, [("locked".to_owned(), Outcome::Expired)]);
    assert_eq!(ids(&[scene.poll(2, after(12)).await.done()]), ["later"]);
    scene.enqueue(Draft { expires_at: until(5), ..message("late") }, after(13)).await;
    assert_eq!(scene.poll(3, after(13)).await, None, "it is expired before a sweep says so");
}

pub async fn a_connection_has_what_it_was_given_for_as_long_as_it_lives(backend: &Backend) {
    let scene = scene(backend).await;
    for id in ["a", "b"] {
        scene.enqueue(Draft { expires_at: Some(after(10)), ..message(id) }, NOON).await;
    }
    let first = scene.connect().await;
    let given = scene.lease(Holder::Connection { epoch: first, until: None }, 1..3, NOON).await;
    assert_eq!(ids(&given), ["a", "b"]);
    assert_eq!(backend.store.sweep_messages(after(20), 10).await.unwrap(), Swept::default());
    assert_eq!(scene.lease(Holder::Connection { epoch: first, until: None }, 3..5, after(5)).await, []);
    assert_eq!(scene.settle(1, Settlement::Complete, after(20)).await, Settled::Done, "also after its time");

    let second = scene.connect().await;
    assert_eq!(
        scene.lease(Holder::Connection { epoch: first, until: None }, 3..5, after(5)).await,
        [],
        "it is overtaken"
    );
    let again = scene.lease(Holder::Connection { epoch: second, until: None }, 5..7, after(5)).await;
    assert_eq!((ids(&again), again[0].delivery_count), (vec!["b"], 0));
    assert_eq!(scene.settle(2, Settlement::Complete, after(5)).await, Settled::LockLost);

    backend.store.release_connection(scene.hub, &device("dev"), second, after(6)).await.unwrap();
    assert_eq!(scene.settle(5, Settlement::Complete, after(6)).await, Settled::LockLost);
    let polled = scene.poll(7, after(6)).await.done();
    assert_eq!((ids(std::slice::from_ref(&polled)), polled.delivery_count), (vec!["b"], 0));
}

pub async fn a_connection_that_may_settle_late_has_what_it_was_given_until_its_lock_runs_out(backend: &Backend) {
    let scene = scene(backend).await;
    let expiry = |id| if id == "short" { Some(after(LOCK_S)) } else { None };
    for id in ["a", "short"] {
        scene.enqueue(Draft { expires_at: expiry(id), ..message(id) }, NOON).await;
    }
    let epoch = scene.connect().await;
    let attached = |from: u64| Holder::Connection { epoch, until: Some(after(from + LOCK_S)) };
    assert_eq!(ids(&scene.lease(attached(0), 1..3, NOON).await), ["a", "short"]);
    assert_eq!(scene.lease(attached(1), 3..5, after(LOCK_S - 1)).await, [], "they are locked");
    assert_eq!(backend.store.sweep_messages(after(LOCK_S - 1), 10).await.unwrap(), Swept::default());
    let freed = vec![(scene.hub, device("dev"))];
    assert_eq!(backend.store.sweep_messages(after(LOCK_S), 10).await.unwrap(), Swept { freed, rows: 2 });

    let again = scene.lease(attached(LOCK_S), 5..7, after(LOCK_S)).await;
    assert_eq!((ids(&again), again[0].delivery_count), (vec!["a"], 1), "it counts as given back");
    assert_eq!(scene.settle(1, Settlement::Complete, after(LOCK_S)).await, Settled::LockLost, "the first lock is over");
    backend.store.free_messages(scene.hub, &device("dev"), epoch).await.unwrap();
    let freed = scene.lease(attached(LOCK_S), 7..8, after(LOCK_S)).await;
    assert_eq!((ids(&freed), freed[0].delivery_count), (vec!["a"], 1), "that does not count");
    assert_eq!(scene.settle(5, Settlement::Complete, after(LOCK_S)).await, Settled::LockLost);
    assert_eq!(scene.lease(attached(2 * LOCK_S), 8..9, after(2 * LOCK_S)).await, [], "it was delivered twice");
    let told = [("short".to_owned(), Outcome::Expired), ("a".to_owned(), Outcome::DeliveryCountExceeded)];
    assert_eq!(scene.told(9, after(2 * LOCK_S)).await, told);
}

pub async fn a_connection_frees_what_it_has_and_lives_on(backend: &Backend) {
    let scene = scene(backend).await;
    for id in ["a", "b"] {
        scene.enqueue(message(id), NOON).await;
    }
    let overtaken = scene.connect().await;
    let epoch = scene.connect().await;
    scene.lease(Holder::Connection { epoch, until: None }, 1..3, NOON).await;
    backend.store.free_messages(scene.hub, &device("dev"), overtaken).await.unwrap();
    assert_eq!(scene.settle(1, Settlement::Complete, NOON).await, Settled::Done, "it is the later connection's");
    backend.store.free_messages(scene.hub, &device("dev"), epoch).await.unwrap();
    assert_eq!(scene.settle(2, Settlement::Complete, NOON).await, Settled::LockLost);
    let again = scene.lease(Holder::Connection { epoch, until: None }, 3..5, NOON).await;
    assert_eq!((ids(&again), again[0].delivery_count), (vec!["b"], 0), "that does not count as a delivery");
    backend.store.free_messages(scene.hub, &device("nobody"), epoch).await.unwrap();
}

pub async fn a_late_release_leaves_a_later_connection_alone(backend: &Backend) {
    let scene = scene(backend).await;
    scene.enqueue(message("a"), NOON).await;
    let first = scene.connect().await;
    let second = scene.connect().await;
    scene.lease(Holder::Connection { epoch: second, until: None }, 1..2, NOON).await;
    backend.store.release_connection(scene.hub, &device("dev"), first, NOON).await.unwrap();
    assert_eq!(scene.settle(1, Settlement::Complete, NOON).await, Settled::Done);
}

pub async fn a_purged_queue_is_empty_and_the_senders_hear_of_it(backend: &Backend) {
    let scene = scene(backend).await;
    let purge = async || backend.store.purge_messages(scene.hub, &device("dev"), NOON).await.unwrap();
    assert_eq!(purge().await, Some(0));
    for (id, acknowledgement) in [
        ("none", Acknowledgement::None),
        ("positive", Acknowledgement::Positive),
        ("negative", Acknowledgement::Negative),
        ("full", Acknowledgement::Full),
    ] {
        scene.enqueue(Draft { acknowledgement, ..message(id) }, NOON).await;
    }
    scene.poll(1, NOON).await.done();
    assert_eq!((purge().await, scene.waiting().await), (Some(4), 0));
    assert_eq!(scene.settle(1, Settlement::Complete, NOON).await, Settled::LockLost);
    let told = [("negative".to_owned(), Outcome::Purged), ("full".to_owned(), Outcome::Purged)];
    assert_eq!(scene.told(9, NOON).await, told);
}

pub async fn feedback_is_handed_out_until_it_is_settled_or_spent(backend: &Backend) {
    let scene = scene(backend).await;
    let lock_s = scene.settings.feedback.lock.as_secs();
    let mut changes = backend.store.feedback_changes();
    changes.borrow_and_update();
    for (token, id) in [(1, "a"), (2, "b"), (3, "c")] {
        scene.enqueue(message(id), NOON).await;
        scene.poll(token, NOON).await.done();
        scene.settle(token, Settlement::Reject, NOON).await;
    }
    assert!(changes.has_changed().unwrap());
    let told = |records: &[Feedback]| records.iter().map(|record| record.message_id.clone()).collect::<Vec<_>>();
    assert_eq!(told(&scene.take(11, 2, NOON).await), ["a", "b"]);
    assert_eq!(told(&scene.take(12, 2, NOON).await), ["c"]);
    let settle = async |token, settlement, at| {
        backend.store.settle_feedback(scene.hub, (lock(token), settlement), 2, at).await.unwrap()
    };
    assert_eq!(settle(12, Settlement::Complete, NOON).await, Settled::Done);
    assert_eq!(settle(12, Settlement::Complete, NOON).await, Settled::LockLost);
    assert_eq!(settle(11, Settlement::Abandon, after(1)).await, Settled::Done);
    assert_eq!(told(&scene.take(13, 1, after(2)).await), ["a"]);
    assert_eq!(settle(13, Settlement::Abandon, after(2)).await, Settled::Done, "for the second time: it is spent");
    assert_eq!(told(&scene.take(14, 9, after(3)).await), ["b"]);
    assert_eq!(settle(14, Settlement::Complete, after(3 + lock_s)).await, Settled::LockLost);
    assert_eq!(scene.take(15, 9, after(3 + lock_s)).await, [], "its second lock ran out");
}

pub async fn feedback_whose_lock_runs_out_is_free_and_its_readers_are_woken(backend: &Backend) {
    let scene = scene(backend).await;
    let lock_s = scene.settings.feedback.lock.as_secs();
    scene.enqueue(message("a"), NOON).await;
    scene.poll(1, NOON).await.done();
    scene.settle(1, Settlement::Complete, NOON).await;
    let mut changes = backend.store.feedback_changes();
    let most = u64::from(FEEDBACK_DELIVERIES_MAX);
    for round in 0..most {
        let (taken_at, ends_at) = (after(round * lock_s), after((round + 1) * lock_s));
        assert_eq!(scene.take(2, 9, taken_at).await.len(), 1, "round {round}");
        changes.borrow_and_update();
        let early = backend.store.sweep_messages(taken_at, 10).await.unwrap();
        assert_eq!((early.rows, changes.has_changed().unwrap()), (0, false));
        let swept = backend.store.sweep_messages(ends_at, 10).await.unwrap();
        assert_eq!((swept.rows, changes.has_changed().unwrap()), (1, true));
    }
    assert_eq!(scene.take(3, 9, after(most * lock_s)).await, [], "it was handed out as often as it may be");
}

pub async fn feedback_expires(backend: &Backend) {
    let scene = scene(backend).await;
    let ttl_s = scene.settings.feedback.ttl.as_secs();
    scene.enqueue(message("a"), NOON).await;
    scene.poll(1, NOON).await.done();
    scene.settle(1, Settlement::Complete, NOON).await;
    assert_eq!(scene.take(2, 9, after(ttl_s)).await, []);
    let sweep = async || backend.store.sweep_messages(after(ttl_s), 10).await.unwrap().rows;
    assert_eq!((sweep().await, sweep().await), (1, 0));
}

pub async fn messages_and_feedback_go_with_their_identity(backend: &Backend) {
    let scene = scene(backend).await;
    for (token, id) in [(1, "a"), (2, "b")] {
        scene.enqueue(message(id), NOON).await;
        scene.poll(token, NOON).await.done();
    }
    scene.settle(1, Settlement::Complete, NOON).await;
    let store = &backend.store;
    let name: IdentityName = device("dev");
    store.delete_identity(scene.hub, &name, Precondition::Exists).await.unwrap().done();
    let made = store.create_identity(scene.hub, identity(name, 1), None, NOON).await.unwrap().done();
    let scene = Scene { generation: made.generation, ..scene };
    assert_eq!((scene.waiting().await, scene.poll(3, after(LOCK_S)).await), (0, None));
    assert_eq!(scene.settle(2, Settlement::Complete, NOON).await, Settled::LockLost);
    assert_eq!(scene.take(4, 9, NOON).await, []);
    assert_eq!(store.sweep_messages(after(1_000_000), 10).await.unwrap(), Swept::default());
}
