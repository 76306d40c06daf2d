//! Back-end programs send to devices and hear what became of it; devices receive and settle.

use crate::cloud_to_device::{Delivery, Draft, FeedbackBatch, Settlement};
use crate::ids::{HubName, LockToken};

use super::backend::Backend;
use super::identity::IdentityName;
use super::session::ConnectedDevice;

/// Which hub a back-end program or an operator speaks of, and by which right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AtHub {
    /// The one dialled, by a shared access signature of it.
    Dialled,
    /// The one of this name, by a bearer token of the management API.
    Named(HubName),
    /// The one that a back-end program was let in to.
    Entered(Backend),
}

/// Which device receives.
#[derive(Clone, Debug)]
pub enum Receiver {
    /// One whose connection was let in, over MQTT: what it receives is its own for as long as the connection lives.
    Connected(ConnectedDevice),
    /// One whose connection was let in, over AMQP: what it receives is its own for
    /// [`DEVICE_LOCK`](crate::cloud_to_device::DEVICE_LOCK), and no longer than the connection lives.
    Attached(ConnectedDevice),
    /// One that proves itself with the request: what it receives is its own for
    /// [`DEVICE_LOCK`](crate::cloud_to_device::DEVICE_LOCK).
    Claimed(IdentityName),
}

/// What is asked.
#[derive(Clone, Debug)]
pub enum Ask {
    /// Send to a device or module; answered once the message is durable.
    Send {
        /// Where.
        hub: AtHub,
        /// To whom.
        to: IdentityName,
        /// What.
        message: Box<Draft>,
    },
    /// Empty the queue of an identity.
    Purge(IdentityName),
    /// Take feedback that nobody has at present.
    TakeFeedback(AtHub),
    /// Settle feedback that was taken.
    SettleFeedback {
        /// Where.
        hub: AtHub,
        /// Which.
        lock: LockToken,
        /// How. Rejected feedback is done with, like completed.
        settlement: Settlement,
    },
    /// Take messages that nobody has at present, in the order enqueued.
    Receive {
        /// Who.
        receiver: Receiver,
        /// At most this many; the service applies its own ceiling.
        limit: usize,
    },
    /// Settle a message that was received; answered once that is durable.
    Settle {
        /// Who.
        receiver: Receiver,
        /// Which.
        lock: LockToken,
        /// How.
        settlement: Settlement,
    },
    /// Free what a connection has and did not settle, as if it had ended: it takes no messages any more.
    GiveBack(ConnectedDevice),
}

/// What is answered.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The message is kept.
    Sent {
        /// The ID by which feedback names it: the sender's, or one that was made up.
        message_id: String,
    },
    /// The queue is empty.
    Purged {
        /// Whose.
        name: IdentityName,
        /// How many messages it held.
        messages: u64,
    },
    /// Feedback, if there was any.
    Feedback(Option<FeedbackBatch>),
    /// Messages, none if nothing waited.
    Received(Vec<Delivery>),
    /// Done.
    Settled,
}
