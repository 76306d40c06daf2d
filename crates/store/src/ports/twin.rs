//! Twins, and the rows from which devices are told of changed desired properties.

use std::sync::Arc;

use async_trait::async_trait;
use domain::clock::UnixTime;
use domain::identity::Identity;
use domain::ids::{HubKey, Precondition};
use domain::operation::identity::IdentityName;
use domain::twin::{PatchError, ServiceChange, Twin};
use serde_json::{Map, Value};

use crate::Error;

/// What became of a change.
#[derive(Clone, Debug, PartialEq)]
pub enum TwinOutcome<T> {
    /// It was made.
    Done(T),
    /// There is no such identity.
    NotFound,
    /// The twin stands at another version.
    PreconditionFailed,
    /// The change breaks a rule of twins; nothing was written.
    Refused(PatchError),
}

/// A change of desired properties, in the order of commits.
#[derive(Clone, Debug, PartialEq)]
pub struct TwinChange {
    /// Place in the order of all changes of the store, from 1, without gaps at the time of reading.
    pub sequence: u64,
    /// The hub.
    pub hub: HubKey,
    /// Whose twin.
    pub name: IdentityName,
    /// The version of the desired properties it leads to.
    pub version: u64,
    /// The merge patch, or the whole document if it was replaced, `$version` included.
    pub patch: Arc<Map<String, Value>>,
}

/// Keeps twins.
#[expect(clippy::too_many_arguments, reason = "a verb is one atomic change: all it needs comes with it")]
#[async_trait]
pub trait TwinStore: Send + Sync {
    /// The twin with the identity it belongs to.
    async fn find_twin(&self, hub: HubKey, name: &IdentityName) -> Result<Option<(Twin, Identity)>, Error>;

    /// Merges `patch` into the reported properties; answers with their new version.
    async fn apply_reported(
        &self,
        hub: HubKey,
        name: &IdentityName,
        patch: Map<String, Value>,
        expected_version: Option<u64>,
        now: UnixTime,
    ) -> Result<TwinOutcome<u64>, Error>;

    /// Merges `change` into tags and desired properties, and writes the [`TwinChange`] in the same transaction if the
    /// desired properties were touched.
    async fn patch_twin(
        &self,
        hub: HubKey,
        name: &IdentityName,
        change: ServiceChange,
        precondition: Precondition,
        now: UnixTime,
    ) -> Result<TwinOutcome<(Twin, Identity)>, Error>;

    /// As [`TwinStore::patch_twin`], replacing the sections that `change` has.
    async fn replace_twin(
        &self,
        hub: HubKey,
        name: &IdentityName,
        change: ServiceChange,
        precondition: Precondition,
        now: UnixTime,
    ) -> Result<TwinOutcome<(Twin, Identity)>, Error>;

    /// Up to `limit` changes after `sequence`, in order, though not many large ones, and the sequence they lead to: the
    /// one given if there are none. A change that does not parse is passed over.
    async fn twin_changes_after(&self, sequence: u64, limit: usize) -> Result<(Vec<TwinChange>, u64), Error>;

    /// The sequence of the latest change; 0 if there is none.
    async fn latest_twin_change(&self) -> Result<u64, Error>;

    /// Forgets changes up to `sequence`, at most `limit`; returns how many.
    async fn prune_twin_changes(&self, sequence: u64, limit: usize) -> Result<usize, Error>;

    /// Counts up whenever a committed verb wrote a [`TwinChange`]; losing or doubling a wake-up is harmless.
    fn twin_changes(&self) -> tokio::sync::watch::Receiver<u64>;
}
