//! How far the endpoints of hubs have been told of what is in the log, and what they would not take.

use async_trait::async_trait;
use domain::clock::UnixTime;
use domain::ids::{EndpointName, HubKey};
use domain::operation::route::DeadLetter;

use super::StoredMessage;
use crate::Error;

/// How far an endpoint has been told of a partition: of everything up to this message, or of nothing yet.
pub type Told = Option<u64>;

/// A message that an endpoint would not take.
#[derive(Clone, Debug)]
pub struct GivenUp {
    /// The message, where it stands in the log.
    pub message: StoredMessage,
    /// Why.
    pub reason: String,
    /// How often it was sent.
    pub attempts: u32,
}

/// What became of a message that was to be given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Buried {
    /// It is kept apart, and the endpoint has been told of it.
    Done,
    /// There are as many of that endpoint as may be kept; nothing was written.
    Full,
    /// The hub has gone; nothing was written.
    NoHub,
}

/// Keeps how far endpoints are, and what they would not take.
#[async_trait]
pub trait RouteStore: Send + Sync {
    /// Keeps where an endpoint begins, by partition, unless it has begun; gives where it is. Partitions beyond those that
    /// are kept begin as `begin` says.
    async fn begin_endpoint(
        &self,
        hub: HubKey,
        endpoint: &EndpointName,
        begin: Vec<Told>,
    ) -> Result<Option<Vec<Told>>, Error>;

    /// Notes that an endpoint was told of a partition up to `told`; never goes back. May be lost in a power cut, after
    /// which the endpoint is told again.
    async fn advance_endpoint(
        &self,
        hub: HubKey,
        endpoint: &EndpointName,
        partition: u16,
        told: u64,
    ) -> Result<(), Error>;

    /// Keeps a message apart that an endpoint would not take, and notes that the endpoint was told of it. At most `most`
    /// of an endpoint are kept.
    async fn give_up(
        &self,
        hub: HubKey,
        endpoint: &EndpointName,
        given_up: GivenUp,
        (most, now): (u64, UnixTime),
    ) -> Result<Buried, Error>;

    /// Up to `limit` messages that an endpoint would not take, the oldest first; only those that are to be sent again, if
    /// `only_due`.
    async fn dead_letters(
        &self,
        hub: HubKey,
        endpoint: &EndpointName,
        only_due: bool,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, Error>;

    /// How many messages an endpoint would not take.
    async fn count_dead_letters(&self, hub: HubKey, endpoint: &EndpointName) -> Result<u64, Error>;

    /// Marks all that an endpoint would not take as to be sent again; gives how many.
    async fn replay_dead_letters(&self, hub: HubKey, endpoint: &EndpointName) -> Result<u64, Error>;

    /// Notes what became of a message that was sent again: taken, and forgotten; or not, and kept with the reason.
    async fn settle_dead_letter(&self, id: u64, refused: Option<String>) -> Result<(), Error>;

    /// Forgets up to `limit` messages that an endpoint would not take; gives how many.
    async fn purge_dead_letters(&self, hub: HubKey, endpoint: &EndpointName, limit: usize) -> Result<u64, Error>;

    /// The endpoints of a hub of which anything is kept.
    async fn known_endpoints(&self, hub: HubKey) -> Result<Vec<EndpointName>, Error>;

    /// Forgets how far an endpoint is: it begins anew. What it would not take is purged before.
    async fn forget_endpoint(&self, hub: HubKey, endpoint: &EndpointName) -> Result<(), Error>;
}
