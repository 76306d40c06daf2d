//! Configurations of many twins, and what each twin has of them (`contract/hub-service.md 10`).
//!
//! A change of a twin notes that it is to be judged again, in the same transaction; a change of a configuration notes that
//! all twins of its hub are. Judging is done in bounded pieces, each as one change: so it goes on where it stood.

use async_trait::async_trait;
use domain::clock::UnixTime;
use domain::configuration::{Configuration, Draft};
use domain::ids::{ConfigurationId, DeviceId, HubKey, ModuleId, Precondition};

use super::{Changed, Created};
use crate::Error;

/// What a piece of judging did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// Whether there is more to judge.
    pub has_more: bool,
    /// Modules that the content of a configuration is for, and that their devices have not.
    pub missing: Vec<(HubKey, DeviceId, ModuleId)>,
}

/// Keeps configurations, and brings twins into line with them.
#[async_trait]
pub trait ConfigurationStore: Send + Sync {
    /// Keeps a configuration, and has all twins of the hub judged.
    async fn create_configuration(
        &self,
        hub: HubKey,
        draft: Draft,
        now: UnixTime,
    ) -> Result<Created<Configuration>, Error>;

    /// Replaces a configuration but for its content, which is never changed, and has all twins of the hub judged.
    async fn replace_configuration(
        &self,
        hub: HubKey,
        draft: Draft,
        precondition: Precondition,
        now: UnixTime,
    ) -> Result<Changed<Configuration>, Error>;

    /// Removes a configuration, even one that cannot be read, and has all twins of the hub judged: what it has put is
    /// withdrawn.
    async fn delete_configuration(
        &self,
        hub: HubKey,
        id: &ConfigurationId,
        precondition: Precondition,
    ) -> Result<Changed<()>, Error>;

    /// A configuration with its counts.
    async fn find_configuration(&self, hub: HubKey, id: &ConfigurationId) -> Result<Option<Configuration>, Error>;

    /// All configurations of a hub, in the order they were created in.
    async fn list_configurations(&self, hub: HubKey) -> Result<Vec<Configuration>, Error>;

    /// The IDs of all configurations of a hub, in the order they were created in: also of those whose other columns do not
    /// parse.
    async fn list_configuration_ids(&self, hub: HubKey) -> Result<Vec<ConfigurationId>, Error>;

    /// Judges up to `limit` twins of those that are to be: notes which configurations each fulfils, and puts the content of
    /// the one that applies in place of what another has put.
    async fn judge_twins(&self, limit: usize, now: UnixTime) -> Result<Judged, Error>;
}
