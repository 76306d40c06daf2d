//! Decisions: why devices were admitted or refused.

use async_trait::async_trait;
use domain::decision::Decision;
use domain::ids::TrackingId;

use crate::Error;

/// Keeps decisions. Admits come with [`super::RegistrationStore::accept_registration`]; refusals come here.
#[async_trait]
pub trait DecisionStore: Send + Sync {
    /// Takes a refusal without ever waiting for the disk (`rules.md` 7). It may be merged into an equal one of the
    /// last minute, which then counts it and keeps its tracking ID findable; or lost when too many come at once,
    /// which is counted.
    fn record_refusal(&self, decision: Decision);

    /// How many refusals were lost since the start.
    fn lost_refusals(&self) -> u64;

    /// The decision of one tracking ID.
    async fn find_decision(&self, tracking: TrackingId) -> Result<Option<Decision>, Error>;

    /// The latest decisions about a registration ID, compared without case, newest first, admits and refusals alike.
    async fn list_decisions(&self, registration_id: &str, limit: usize) -> Result<Vec<Decision>, Error>;
}
