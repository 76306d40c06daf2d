//! Messages that wait for devices, and feedback that waits for back-end programs (`rules.md` 16).

use async_trait::async_trait;
use domain::clock::UnixTime;
use domain::cloud_to_device::{Delivery, Draft, Feedback, FeedbackSettings, QueueSettings, Settlement};
use domain::ids::{HubKey, LockToken};
use domain::operation::identity::IdentityName;

use crate::Error;

/// What became of a message that was to be enqueued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enqueued {
    /// It waits.
    Done,
    /// There is no such identity; nothing was written.
    NotFound,
    /// As many messages wait as the store's [`Quotas`](domain::quota::Quotas) allow; nothing was written.
    Full,
}

/// Who has a message that is leased, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A connection, for as long as it lives: until its claim is released
    /// ([`release_connection`](super::IdentityStore::release_connection)) or overtaken, or the store is closed.
    Connection {
        /// Its claim on the identity.
        epoch: u64,
        /// When its lock runs out, if it does not last that long.
        until: Option<UnixTime>,
    },
    /// Whoever can name the lock, until then.
    Until(UnixTime),
}

/// A wish for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The generation of the identity that proved itself.
    pub generation: String,
    /// Whose they shall be.
    pub holder: Holder,
    /// A fresh token for each message that is wanted.
    pub locks: Vec<LockToken>,
}

/// What is given of a wish for messages.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Leased {
    /// The messages.
    pub deliveries: Vec<Delivery>,
    /// Whether locks had run out of messages that wait again: some of them may be left for another receiver.
    pub has_freed: bool,
}

/// What became of something that was to be settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It is done.
    Done,
    /// Nothing is locked by that token, or no longer; nothing was written.
    LockLost,
}

/// What one sweep did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Whose messages wait again whose lock has run out.
    pub freed: Vec<(HubKey, IdentityName)>,
    /// Rows that were looked at; as many as the limit means that there may be more.
    pub rows: usize,
}

/// How feedback is handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Given {
    /// The token of all that is handed out together.
    pub lock: LockToken,
    /// Most records.
    pub limit: usize,
    /// How long, and how often.
    pub settings: FeedbackSettings,
}

/// Keeps cloud-to-device messages and their feedback. A step of a message and the feedback on it are one change.
///
/// A message whose time runs out while somebody has it ends when it is given back, or when the lock runs out: who has it
/// may still complete it.
#[async_trait]
pub trait CloudToDeviceStore: Send + Sync {
    /// Has what is `sent` wait for an identity, under the settings of its hub. It expires as
    /// [`QueueSettings::expiry`] says.
    async fn enqueue_message(
        &self,
        hub: HubKey,
        name: &IdentityName,
        sent: (Draft, QueueSettings),
        now: UnixTime,
    ) -> Result<Enqueued, Error>;

    /// Gives out messages that nobody has, in the order enqueued, at most one for each token. To a connection whose claim
    /// is not the latest, or of an identity of another generation, none is given. A lease of a connection need not
    /// survive a power cut; one of whoever can name the lock must.
    async fn lease_messages(
        &self,
        hub: HubKey,
        name: &IdentityName,
        lease: Lease,
        now: UnixTime,
    ) -> Result<Leased, Error>;

    /// Settles a message that was leased to `name`. One that is abandoned for the last time is dead-lettered.
    async fn settle_message(
        &self,
        hub: HubKey,
        name: &IdentityName,
        how: (LockToken, Settlement),
        now: UnixTime,
    ) -> Result<Settled, Error>;

    /// Frees the messages that a connection has and did not settle, as if it had ended. Need not survive a power cut.
    async fn free_messages(&self, hub: HubKey, name: &IdentityName, epoch: u64) -> Result<(), Error>;

    /// Removes all messages of an identity, those that somebody has included; how many there were. `None` if there is no
    /// such identity.
    async fn purge_messages(&self, hub: HubKey, name: &IdentityName, now: UnixTime) -> Result<Option<u64>, Error>;

    /// Ends up to `limit` messages and records of feedback whose time has come, and locks of both that have run out.
    async fn sweep_messages(&self, now: UnixTime, limit: usize) -> Result<Swept, Error>;

    /// Hands out feedback of a hub that nobody has, oldest first. What was handed out as often as it may be is gone once
    /// its lock has run out.
    async fn take_feedback(&self, hub: HubKey, given: Given, now: UnixTime) -> Result<Vec<Feedback>, Error>;

    /// Settles all that was handed out under a lock: forgets it, or, if it is abandoned, has it wait again unless it was
    /// handed out `deliveries_max` times.
    async fn settle_feedback(
        &self,
        hub: HubKey,
        how: (LockToken, Settlement),
        deliveries_max: u32,
        now: UnixTime,
    ) -> Result<Settled, Error>;

    /// Counts up whenever a committed verb wrote feedback, or made some free again that somebody had; losing or doubling a wake-up is harmless.
    fn feedback_changes(&self) -> tokio::sync::watch::Receiver<u64>;
}
