//! An operator tries routes, and looks after the endpoints of a hub and what they would not take.

use serde_json::{Map, Value};

use crate::clock::UnixTime;
use crate::ids::{EndpointName, HubName};
use crate::message::{Draft, StoredPlace};
use crate::query::InvalidQuery;
use crate::route::{Route, Source};

use super::identity::IdentityName;
use super::resource::Place;

/// What is asked.
#[derive(Clone, Debug)]
pub enum Ask {
    /// Which routes of a hub take a message.
    TestAll {
        /// Where.
        place: Place,
        /// Whose routes.
        hub: HubName,
        /// Of which source; `None` for all.
        source: Option<Source>,
        /// The message.
        sample: Box<Sample>,
    },
    /// Whether a route that is not there yet would take a message.
    TestNew {
        /// Where.
        place: Place,
        /// At which hub.
        hub: HubName,
        /// The condition, as written.
        condition: String,
        /// The message.
        sample: Box<Sample>,
    },
    /// How the endpoints of a hub are.
    Health {
        /// Where.
        place: Place,
        /// Whose.
        hub: HubName,
    },
    /// What an endpoint would not take, the oldest first.
    ListDeadLetters {
        /// Of which hub.
        hub: HubName,
        /// Of which endpoint.
        endpoint: EndpointName,
        /// At most so many.
        limit: usize,
    },
    /// Has everything that an endpoint would not take sent again.
    Replay {
        /// Of which hub.
        hub: HubName,
        /// Of which endpoint.
        endpoint: EndpointName,
    },
    /// Forgets what an endpoint would not take.
    Purge {
        /// Of which hub.
        hub: HubName,
        /// Of which endpoint.
        endpoint: EndpointName,
    },
}

/// A message to try routes with.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Whose it shall be.
    pub sender: IdentityName,
    /// Body and properties.
    pub message: Draft,
    /// The sender's twin: tags and properties.
    pub twin: Option<Map<String, Value>>,
}

/// What is answered.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The routes that take the message.
    Taking(Vec<Route>),
    /// What the condition is worth; `Ok(None)` is undefined.
    Tested(Result<Option<bool>, InvalidQuery>),
    /// The endpoints, the built-in one first.
    Health(Vec<EndpointHealth>),
    /// Messages that an endpoint would not take.
    DeadLetters(Vec<DeadLetter>),
    /// So many messages are sent again.
    Replayed(u64),
    /// So many messages are forgotten.
    Purged(u64),
}

/// How an endpoint is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointHealth {
    /// Which.
    pub endpoint: EndpointName,
    /// In a word.
    pub status: HealthStatus,
    /// Why the last attempt failed that did.
    pub last_error: Option<String>,
    /// When that was.
    pub last_error_at: Option<UnixTime>,
    /// When a message was last taken.
    pub last_success_at: Option<UnixTime>,
    /// When one was last sent.
    pub last_attempt_at: Option<UnixTime>,
    /// Messages that it would not take and that are kept.
    pub dead_letters: u64,
    /// Messages that went before it took them, because the log keeps them no longer.
    pub lost: u64,
}

/// How an endpoint is, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthStatus {
    /// Nothing was sent yet.
    Unknown,
    /// It takes what it is sent.
    Healthy,
    /// The last attempt failed; more follow.
    Unhealthy,
    /// It has not taken anything for so long that messages are given up.
    Dead,
}

/// A message that an endpoint would not take.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetter {
    /// The store's number for it.
    pub id: u64,
    /// Where it stood in the log.
    pub place: StoredPlace,
    /// The message.
    pub message: std::sync::Arc<crate::message::Message>,
    /// Why it was given up.
    pub reason: String,
    /// How often it was sent.
    pub attempts: u32,
    /// When it was given up.
    pub at: UnixTime,
    /// Whether it is to be sent again.
    pub is_due: bool,
}
