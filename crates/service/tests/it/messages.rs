//! Messages to devices: who is told of them and when, and what the settings of a hub do.

use std::pin::pin;
use std::time::Duration;

use domain::clock::{Clock as _, UnixTime};
use domain::cloud_to_device::{Acknowledgement, DEVICE_LOCK, Delivery, Draft, Outcome, Settlement, SystemProperties};
use domain::ids::{HubName, LockToken, Precondition};
use domain::operation::cloud_to_device::{Answer, Ask, AtHub, Receiver};
use domain::operation::resource::{Ask as ResourceAsk, HubDraft, QueueDraft};
use domain::operation::session::Answer::Connected;
use domain::operation::{Caller, ErrorKind, Failure, Operation, Push, Reply};
use service::{EndpointOf, Mailbox};
use store::conformance::Done as _;
use store::conformance::sample::{NOON, device, identity, keys};
use store::ports::IdentityStore as _;

use crate::ground::{Ground, PATIENCE};

async fn make_device(ground: &Ground) {
    let hub = ground.hub().key;
    ground.store.create_identity(hub, identity(device("dev"), 1), None, NOON).await.unwrap().done();
}

fn message(id: &str) -> Draft {
    let system = SystemProperties { message_id: Some(id.to_owned()), ..SystemProperties::default() };
    Draft { system, acknowledgement: Acknowledgement::Full, ..Draft::default() }
}

fn send(message: Draft) -> Operation {
    Operation::CloudToDevice(Ask::Send { hub: AtHub::Dialled, to: device("dev"), message: Box::new(message) })
}

impl Ground {
    /// The device itself.
    fn own(&self) -> Caller {
        self.device_at_hub(&device("dev"), &keys(1).primary)
    }

    async fn send(&self, message: Draft) -> Result<Reply, Failure> {
        self.service.perform(&self.program(&EndpointOf::Hub(self.hub())), send(message)).await
    }

    /// Takes the message that `dev` is given when it asks without a connection.
    async fn poll(&self) -> Option<Delivery> {
        let ask = Ask::Receive { receiver: Receiver::Claimed(device("dev")), limit: 1 };
        let reply = self.service.perform(&self.own(), Operation::CloudToDevice(ask)).await.unwrap();
        let Reply::CloudToDevice(Answer::Received(mut deliveries)) = reply else { panic!("{reply:?}") };
        deliveries.pop()
    }

    /// Takes the messages that a connection of `dev` is given.
    async fn receive(&self, receiver: Receiver) -> Vec<Delivery> {
        let ask = Operation::CloudToDevice(Ask::Receive { receiver, limit: 4 });
        let reply = self.service.perform(&self.own(), ask).await.unwrap();
        let Reply::CloudToDevice(Answer::Received(deliveries)) = reply else { panic!("{reply:?}") };
        deliveries
    }

    async fn settle(&self, lock: LockToken, settlement: Settlement) -> Result<Reply, Failure> {
        self.settle_as(Receiver::Claimed(device("dev")), lock, settlement).await
    }

    async fn settle_as(&self, receiver: Receiver, lock: LockToken, settlement: Settlement) -> Result<Reply, Failure> {
        let ask = Ask::Settle { receiver, lock, settlement };
        self.service.perform(&self.own(), Operation::CloudToDevice(ask)).await
    }

    /// What became of messages, by their IDs.
    async fn told(&self) -> Vec<(String, Outcome)> {
        let ask = Operation::CloudToDevice(Ask::TakeFeedback(AtHub::Named(self.hub().name.clone())));
        let reply = self.service.perform(&self.operator(), ask).await.unwrap();
        let Reply::CloudToDevice(Answer::Feedback(batch)) = reply else { panic!("{reply:?}") };
        let records = batch.into_iter().flat_map(|batch| batch.records);
        records.map(|record| (record.message_id, record.outcome)).collect()
    }

    async fn configure(&self, queue: QueueDraft) -> Result<Reply, Failure> {
        let ask = ResourceAsk::PutHub {
            place: self.place(),
            name: self.hub().name.clone(),
            draft: Box::new(HubDraft { cloud_to_device: queue, ..HubDraft::default() }),
            precondition: Precondition::None,
        };
        self.service.perform(&self.operator(), Operation::Resource(ask)).await
    }
}

/// How often the mailbox says that messages wait.
fn wake_ups(mailbox: &Mailbox) -> usize {
    std::iter::from_fn(|| mailbox.try_next()).filter(|push| matches!(push, Push::MessagesWaiting)).count()
}

#[tokio::test]
async fn who_is_connected_is_told_whenever_a_message_may_wait() {
    let ground = Ground::new().await;
    make_device(&ground).await;
    let mailbox = ground.connect_by_policy(&device("dev")).await;
    assert_eq!(wake_ups(&mailbox), 0);
    ground.send(message("a")).await.unwrap();
    ground.send(message("b")).await.unwrap();
    assert_eq!(wake_ups(&mailbox), 1, "once is enough");
    let taken = ground.poll().await.unwrap();
    assert_eq!(wake_ups(&mailbox), 0);
    ground.settle(taken.lock, Settlement::Abandon).await.unwrap();
    assert_eq!(wake_ups(&mailbox), 1);
    ground.poll().await.unwrap();
    ground.clock.advance(Duration::from_secs(60));
    ground.service.sweep_messages().await.unwrap();
    assert_eq!(wake_ups(&mailbox), 1, "the lock has run out");
    ground.poll().await.unwrap();
    ground.poll().await.unwrap();
    ground.clock.advance(Duration::from_secs(60));
    ground.poll().await.unwrap();
    assert_eq!(wake_ups(&mailbox), 1, "both locks have run out, and one message was taken");
}

#[tokio::test]
async fn a_connection_that_may_settle_late_loses_a_message_after_a_minute_and_gets_it_again() {
    let ground = Ground::new().await;
    make_device(&ground).await;
    let Reply::Session(Connected { device: seat, .. }) = ground.seat_by_policy(&device("dev")).await else {
        panic!("not connected")
    };
    let mailbox = ground.service.mailbox(&seat).unwrap();
    let (lasting, attached) = (Receiver::Connected(seat.clone()), Receiver::Attached(seat));
    ground.send(message("a")).await.unwrap();
    let given = ground.receive(attached.clone()).await.remove(0);
    ground.send(message("b")).await.unwrap();
    let kept = ground.receive(lasting.clone()).await.remove(0);
    assert_eq!(wake_ups(&mailbox), 1);

    let last_moment = Duration::from_micros(1);
    ground.clock.advance(DEVICE_LOCK.saturating_sub(last_moment));
    ground.service.sweep_messages().await.unwrap();
    assert_eq!((wake_ups(&mailbox), ground.receive(attached.clone()).await), (0, vec![]));
    ground.clock.advance(last_moment);
    ground.service.sweep_messages().await.unwrap();
    assert_eq!(wake_ups(&mailbox), 1, "the lock has run out");
    let again = ground.receive(attached.clone()).await.remove(0);
    assert_eq!((again.sequence, again.delivery_count), (given.sequence, 1));
    assert_ne!(again.lock, given.lock);

    let late = ground.settle_as(attached.clone(), given.lock, Settlement::Complete).await.unwrap_err();
    assert_eq!(late.kind, ErrorKind::LockLost);
    ground.settle_as(attached, again.lock, Settlement::Complete).await.unwrap();
    ground.settle_as(lasting, kept.lock, Settlement::Complete).await.unwrap();
    let told = ["a", "b"].map(|id| (id.to_owned(), Outcome::Success));
    assert_eq!(ground.told().await, told, "for as long as the connection lives");
}

#[tokio::test]
async fn a_device_is_heard_that_receives_and_settles_without_a_connection() {
    let ground = Ground::new().await;
    make_device(&ground).await;
    let heard_at = async || {
        ground.service.note_activity().await;
        ground.store.find_identity(ground.hub().key, &device("dev")).await.unwrap().done().last_activity_at
    };
    ground.send(message("a")).await.unwrap();
    assert_eq!(heard_at().await, UnixTime::NEVER, "that somebody sends to it is nothing of its own");
    let taken = ground.poll().await.unwrap();
    assert_eq!(heard_at().await, ground.clock.now());
    ground.clock.advance(Duration::from_secs(1));
    ground.settle(taken.lock, Settlement::Complete).await.unwrap();
    assert_eq!(heard_at().await, ground.clock.now());
    ground.clock.advance(Duration::from_secs(1));
    assert_eq!(ground.poll().await, None);
    assert_eq!(heard_at().await, ground.clock.now(), "it has asked");
}

#[tokio::test]
async fn a_device_is_told_of_a_message_whose_sender_has_hung_up() {
    let ground = Ground::new().await;
    make_device(&ground).await;
    let mailbox = ground.connect_by_policy(&device("dev")).await;
    let program = ground.program(&EndpointOf::Hub(ground.hub()));
    let mut held = ground.store.hold("enqueue_message");
    {
        let mut request = pin!(ground.service.perform(&program, send(message("a"))));
        tokio::select! {
            answer = &mut request => panic!("answered before the message was kept: {answer:?}"),
            () = held.done() => {}
        }
    }
    drop(held);
    let push = tokio::time::timeout(PATIENCE, mailbox.next()).await.expect("it is told");
    assert!(matches!(push, Push::MessagesWaiting));
}

#[tokio::test]
async fn a_hub_says_how_long_and_how_often_its_messages_are_tried() {
    let ground = Ground::new().await;
    make_device(&ground).await;
    let minute = Duration::from_secs(60);
    let queue = QueueDraft { default_ttl: Some(minute), deliveries_max: Some(1), ..QueueDraft::default() };
    ground.send(message("before")).await.unwrap();
    ground.configure(queue).await.unwrap();
    ground.send(message("late")).await.unwrap();
    ground.clock.advance(minute);
    ground.service.sweep_messages().await.unwrap();
    assert_eq!(ground.told().await, [("late".to_owned(), Outcome::Expired)]);
    let before = ground.poll().await.unwrap();
    assert_eq!(before.message.system.message_id.as_deref(), Some("before"), "it keeps its hour");
    ground.settle(before.lock, Settlement::Abandon).await.unwrap();
    ground.settle(ground.poll().await.unwrap().lock, Settlement::Complete).await.unwrap();
    ground.send(message("once")).await.unwrap();
    ground.settle(ground.poll().await.unwrap().lock, Settlement::Abandon).await.unwrap();
    let told = ground.told().await;
    assert_eq!(told, [("before".to_owned(), Outcome::Success), ("once".to_owned(), Outcome::DeliveryCountExceeded)]);

    let wrong = QueueDraft { deliveries_max: Some(101), ..QueueDraft::default() };
    assert_eq!(ground.configure(wrong).await.unwrap_err().kind, ErrorKind::InvalidArgument);
}

#[tokio::test]
async fn a_message_that_breaks_a_rule_is_refused_and_one_without_an_id_gets_one() {
    let ground = Ground::new().await;
    make_device(&ground).await;
    let kind = |reply: Result<Reply, Failure>| reply.unwrap_err().kind;
    let large = Draft { body: vec![0; 65_537].into(), ..message("a") };
    assert_eq!(kind(ground.send(large).await), ErrorKind::TooLarge);
    assert_eq!(kind(ground.send(message(&"m".repeat(129))).await), ErrorKind::InvalidArgument);
    let reply = ground.send(message("")).await.unwrap();
    let Reply::CloudToDevice(Answer::Sent { message_id }) = reply else { panic!("{reply:?}") };
    assert_eq!(ground.poll().await.unwrap().message.system.message_id, Some(message_id.clone()));
    assert_eq!(message_id.len(), 36);
}

#[tokio::test]
async fn nobody_receives_for_another() {
    let ground = Ground::new().await;
    make_device(&ground).await;
    ground.send(message("a")).await.unwrap();
    let ask = |name| Operation::CloudToDevice(Ask::Receive { receiver: Receiver::Claimed(device(name)), limit: 1 });
    let other = ground.device_at_hub(&device("dev"), &keys(2).primary);
    for (caller, name) in [(other, "dev"), (ground.own(), "nobody")] {
        let refused = ground.service.perform(&caller, ask(name)).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Unauthorized, "{name}");
    }
    let lost = ground.settle(LockToken::from_bits(1), Settlement::Complete).await.unwrap_err();
    assert_eq!(lost.kind, ErrorKind::LockLost);
    assert!(ground.poll().await.is_some());
}

#[tokio::test]
async fn a_right_to_send_is_needed_to_send() {
    let ground = Ground::new().await;
    make_device(&ground).await;
    let named = |hub: &str| AtHub::Named(HubName::parse(hub).unwrap());
    let ask = |hub| Ask::Send { hub, to: device("dev"), message: Box::new(message("a")) };
    for (caller, hub, expected) in [
        (ground.own(), AtHub::Dialled, ErrorKind::Unauthorized),
        (ground.own(), named("hub"), ErrorKind::Unauthorized),
        (ground.operator(), named("elsewhere"), ErrorKind::ResourceNotFound),
    ] {
        let refused = ground.service.perform(&caller, Operation::CloudToDevice(ask(hub))).await.unwrap_err();
        assert_eq!(refused.kind, expected);
    }
}
