//! Messages to devices: sent, handed out, settled, and what became of them.
//!
//! The store has the queue (`rules.md` 16). A connected device is only told that something may wait, and asks for it
//! itself, so that losing or doubling a wake-up is harmless. Nothing here keeps a message. Start at
//! [`Service::perform_cloud_to_device`].

use std::sync::Arc;
use std::time::Duration;

use domain::access::Action;
use domain::cloud_to_device::{DEVICE_LOCK, Draft, FEEDBACK_BATCH_MAX, FeedbackBatch, InvalidMessage, Settlement};
use domain::ids::{HubKey, LockToken, TrackingId};
use domain::operation::cloud_to_device::{Answer, Ask, AtHub, Receiver};
use domain::operation::identity::IdentityName;
use domain::operation::session::Seat;
use domain::operation::{Caller, ErrorKind, Push};
use domain::resource::Hub;
use store::ports::{Enqueued, Given, Holder, Lease, Leased, Settled};

use crate::Service;
use crate::error::Error;
use crate::registry::not_found;
use crate::tasks::AFTER_FAILURE;

/// Most messages handed out by one ask: with bodies of the greatest size these are 1 MiB.
const RECEIVE_MAX: usize = 16;
/// How often it is looked for messages whose time has come.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// Messages and records of feedback that one verb ends, so that it never holds the writer for long.
const SWEEP_ROWS_MAX: usize = 100;

/// Where an operation of a device leads: the hub, the identity, its generation, and who holds what it is given.
struct Place {
    hub: HubKey,
    name: IdentityName,
    generation: String,
    holder: Holder,
}

impl Place {
    fn of(seat: &Seat, holder: Holder) -> Self {
        Self { hub: seat.hub, name: seat.name.clone(), generation: seat.generation.to_string(), holder }
    }
}

impl Service {
    /// Performs `ask`; what is sent or settled is answered once that is durable.
    pub(crate) async fn perform_cloud_to_device(&self, caller: &Caller, ask: Ask) -> Result<Answer, Error> {
        match ask {
            Ask::Send { hub, to, message } => {
                let hub = self.hub_for(caller, &hub, (Action::SendToDevices, &["messages", "devicebound"]))?;
                self.send_to_device(&hub, to, *message).await
            }
            Ask::Purge(name) => self.purge(caller, name).await,
            Ask::TakeFeedback(hub) => {
                let hub = self.hub_for(caller, &hub, (Action::ReadFeedback, FEEDBACK_PATH))?;
                self.take_feedback(&hub).await
            }
            Ask::SettleFeedback { hub, lock, settlement } => {
                let hub = self.hub_for(caller, &hub, (Action::ReadFeedback, FEEDBACK_PATH))?;
                let deliveries_max = hub.cloud_to_device.feedback.deliveries_max;
                let settled = self.0.store.settle_feedback(hub.key, (lock, settlement), deliveries_max, self.now());
                settle(settled.await?)
            }
            Ask::Receive { receiver, limit } => {
                let Place { hub, name, generation, holder } = self.place_of(caller, receiver).await?;
                let locks = (0..limit.min(RECEIVE_MAX)).map(|_| LockToken::generate(self.entropy())).collect();
                let lease = Lease { generation, holder, locks };
                let is_seated = matches!(holder, Holder::Connection { .. });
                let Leased { deliveries, has_freed } =
                    self.0.store.lease_messages(hub, &name, lease, self.now()).await?;
                // What the connection lost and the request left is the connection's again.
                if has_freed && !is_seated {
                    self.0.directory.push(hub, &name, Push::MessagesWaiting);
                }
                Ok(Answer::Received(deliveries))
            }
            Ask::Settle { receiver, lock, settlement } => {
                let Place { hub, name, .. } = self.place_of(caller, receiver).await?;
                self.settle_message(hub, name, (lock, settlement)).await
            }
            Ask::GiveBack(device) => {
                self.0.store.free_messages(device.hub, &device.name, device.epoch).await?;
                Ok(Answer::Settled)
            }
        }
    }

    /// The hub that is meant, if the caller may do this there.
    pub(crate) fn hub_for(
        &self,
        caller: &Caller,
        hub: &AtHub,
        (action, path): (Action, &[&str]),
    ) -> Result<Arc<Hub>, Error> {
        match hub {
            AtHub::Dialled => {
                let path: Vec<String> = path.iter().map(|&segment| segment.to_owned()).collect();
                self.authorize_at_hub(caller, action, &path)
            }
            AtHub::Entered(backend) => self.hub_of(backend, action),
            AtHub::Named(name) => {
                self.authorize_operator(caller)?;
                let resources = self.resources();
                let found = resources.hubs().iter().find(|hub| hub.name == *name);
                found.cloned().ok_or_else(|| Error::new(ErrorKind::ResourceNotFound, "The hub was not found."))
            }
        }
    }

    /// Who receives; whoever has no connection proves itself each time.
    async fn place_of(&self, caller: &Caller, receiver: Receiver) -> Result<Place, Error> {
        match receiver {
            Receiver::Connected(device) => {
                self.hear(&device);
                Ok(Place::of(&device, Holder::Connection { epoch: device.epoch, until: None }))
            }
            Receiver::Attached(device) => {
                self.hear(&device);
                let until = Some(self.now().plus(DEVICE_LOCK));
                Ok(Place::of(&device, Holder::Connection { epoch: device.epoch, until }))
            }
            Receiver::Claimed(name) => {
                let seat = self.seat_for_request(caller, &name).await?;
                let now = self.now();
                self.0.directory.hear_unseated(&seat, now);
                Ok(Place::of(&seat, Holder::Until(now.plus(DEVICE_LOCK))))
            }
        }
    }

    async fn send_to_device(&self, hub: &Hub, to: IdentityName, mut message: Draft) -> Result<Answer, Error> {
        message.check().map_err(|invalid| {
            let kind = match invalid {
                InvalidMessage::MessageId => ErrorKind::InvalidArgument,
                InvalidMessage::Body { .. }
                | InvalidMessage::PropertiesBytes { .. }
                | InvalidMessage::TooManyProperties { .. } => ErrorKind::TooLarge,
            };
            Error::new(kind, invalid.to_string())
        })?;
        // Feedback names a message by it, and devices are told of one whatever the sender said.
        let unnamed = || TrackingId::generate(self.entropy()).to_string();
        let message_id = message.system.message_id.take().filter(|id| !id.is_empty()).unwrap_or_else(unnamed);
        message.system.message_id = Some(message_id.clone());
        let (service, hub, settings) = (self.clone(), hub.key, hub.cloud_to_device);
        self.carry_through("send-to-device", async move {
            match service.0.store.enqueue_message(hub, &to, (message, settings), service.now()).await? {
                Enqueued::Done => {
                    service.0.directory.push(hub, &to, Push::MessagesWaiting);
                    Ok(Answer::Sent { message_id })
                }
                Enqueued::NotFound => Err(not_found(&to)),
                Enqueued::Full => Err(Error::new(ErrorKind::QueueFull, "The device's queue is full.")),
            }
        })
        .await
    }

    async fn purge(&self, caller: &Caller, name: IdentityName) -> Result<Answer, Error> {
        let path = ["devices".to_owned(), name.device.to_string(), "commands".to_owned()];
        let hub = self.authorize_at_hub(caller, Action::PurgeQueues, &path)?;
        let purged = self.0.store.purge_messages(hub.key, &name, self.now()).await?;
        let messages = purged.ok_or_else(|| not_found(&name))?;
        Ok(Answer::Purged { name, messages })
    }

    async fn take_feedback(&self, hub: &Hub) -> Result<Answer, Error> {
        let lock = LockToken::generate(self.entropy());
        let given = Given { lock, limit: FEEDBACK_BATCH_MAX, settings: hub.cloud_to_device.feedback };
        let records = self.0.store.take_feedback(hub.key, given, self.now()).await?;
        Ok(Answer::Feedback((!records.is_empty()).then_some(FeedbackBatch { lock, records })))
    }

    async fn settle_message(
        &self,
        hub: HubKey,
        name: IdentityName,
        how: (LockToken, Settlement),
    ) -> Result<Answer, Error> {
        let service = self.clone();
        self.carry_through("settle-message", async move {
            let settled = service.0.store.settle_message(hub, &name, how, service.now()).await?;
            if settled == Settled::Done && how.1 == Settlement::Abandon {
                service.0.directory.push(hub, &name, Push::MessagesWaiting);
            }
            settle(settled)
        })
        .await
    }

    /// Ends messages and locks whose time has come, until the future is dropped.
    pub async fn run_message_sweeps(&self) {
        let mut ticks = tokio::time::interval(SWEEP_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(error) = self.sweep_messages().await {
                self.fail(error.into());
                tokio::time::sleep(AFTER_FAILURE).await;
            }
        }
    }

    /// Ends what is due, a bounded piece at a time.
    pub async fn sweep_messages(&self) -> Result<(), store::Error> {
        loop {
            let swept = self.0.store.sweep_messages(self.now(), SWEEP_ROWS_MAX).await?;
            for (hub, name) in swept.freed {
                self.0.directory.push(hub, &name, Push::MessagesWaiting);
            }
            if swept.rows < SWEEP_ROWS_MAX {
                return Ok(());
            }
        }
    }
}

const FEEDBACK_PATH: &[&str] = &["messages", "serviceBound", "feedback"];

fn settle(settled: Settled) -> Result<Answer, Error> {
    match settled {
        Settled::Done => Ok(Answer::Settled),
        Settled::LockLost => Err(Error::new(ErrorKind::LockLost, "The lock is unknown or has run out.")),
    }
}
