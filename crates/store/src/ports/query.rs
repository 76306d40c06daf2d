//! Queries over the twins of a hub. What a plan means is said by `domain::query`: whatever a backend makes of it, it finds
//! the twins that [`Plan::matches`] does (`rules.md` 17).

use std::sync::Arc;

use async_trait::async_trait;
use domain::identity::Identity;
use domain::ids::HubKey;
use domain::query::{Groups, Plan, TooManyGroups};
use domain::twin::Twin;

use crate::Error;

/// A place in the order of a hub's twins, which is the one they were created in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(pub i64);

/// A twin that a query found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Where.
    pub place: Place,
    /// The twin.
    pub twin: Twin,
    /// Whose.
    pub identity: Identity,
    /// Bytes of the twin's documents, without their metadata.
    pub bytes: usize,
}

/// A piece of a search.
#[derive(Clone, Debug, PartialEq)]
pub struct Searched<T> {
    /// What came of it.
    pub result: T,
    /// Where to go on; `None` at the end.
    pub next: Option<Place>,
}

/// Looks through twins, in bounded pieces: a call looks at some thousand twins at most, so that whoever asks no more stops
/// the search, and others take their turns.
#[async_trait]
pub trait QueryStore: Send + Sync {
    /// Of the twins behind `after`, in order, those that the plan selects: at most `limit` of them, not many large ones, and
    /// perhaps none although there are more.
    async fn find_twins(
        &self,
        hub: HubKey,
        plan: &Arc<Plan>,
        after: Option<Place>,
        limit: usize,
    ) -> Result<Searched<Vec<Found>>, Error>;

    /// Puts the twins behind `after` that the plan selects to their groups.
    async fn group_twins(
        &self,
        hub: HubKey,
        plan: &Arc<Plan>,
        after: Option<Place>,
        groups: Groups,
    ) -> Result<Result<Searched<Groups>, TooManyGroups>, Error>;
}
