//! Device and module identities of hubs, their sessions, and who is connected.

use async_trait::async_trait;
use domain::clock::UnixTime;
use domain::identity::Identity;
use domain::ids::{DeviceId, HubKey, Precondition};
use domain::operation::identity::IdentityName;
use domain::operation::session::{Memory, Subscriptions};
use domain::operation::{Page, PageRequest};
use domain::sas::{KeyPair, KeyRotation};
use domain::twin::ServiceChange;

use super::{Changed, Created};
use crate::Error;

/// How many devices a hub has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceCounts {
    /// All.
    pub total: u64,
    /// Those enabled.
    pub enabled: u64,
    /// Those disabled.
    pub disabled: u64,
    /// Those with a live connection.
    pub connected: u64,
}

/// A connection's claim on an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionClaim {
    /// Higher than any earlier claim's on the same identity.
    pub epoch: u64,
    /// What the identity had subscribed to; empty if the session was not to be resumed.
    pub subscriptions: Subscriptions,
    /// Whether there was a session, and it is resumed.
    pub session_present: bool,
    /// The model that the identity is known by from here on.
    pub model_id: Option<String>,
}

/// What a connection claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimWanted {
    /// The generation of the identity that proved itself.
    pub generation: String,
    /// What becomes of a remembered session.
    pub memory: Memory,
    /// The model that the device announces.
    pub model_id: Option<String>,
}

/// When a device was last heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActivityMark {
    /// The hub.
    pub hub: HubKey,
    /// The identity.
    pub name: IdentityName,
    /// When.
    pub at: UnixTime,
}

/// What became of keys that were to be made afresh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rotated {
    /// The identity has these from here on.
    Done(KeyPair),
    /// There is no such identity.
    NotFound,
    /// It is not proven by keys; nothing was written.
    NoKeys,
}

/// Keeps identities. Every verb that changes who may connect wakes [`IdentityStore::identity_changes`].
#[async_trait]
pub trait IdentityStore: Send + Sync {
    /// Keeps a fresh identity as [`Identity::created`] makes it, and its twin, which `twin` may fill. An edge device gets
    /// its own modules ([`Identity::edge_modules`]) along. A device needs its hub, and a
    /// module its device: [`Created::NoOwner`] if there is none.
    async fn create_identity(
        &self,
        hub: HubKey,
        identity: Identity,
        twin: Option<ServiceChange>,
        now: UnixTime,
    ) -> Result<Created<Identity>, Error>;

    /// Replaces the identity of the same name as [`Identity::replaced_by`] does, and keeps its twin. A device that becomes
    /// an edge device gets its own modules.
    async fn replace_identity(
        &self,
        hub: HubKey,
        identity: Identity,
        precondition: Precondition,
        now: UnixTime,
    ) -> Result<Changed<Identity>, Error>;

    /// Gives an identity the keys of `rotation` under a fresh etag, and keeps everything else as it stands then.
    async fn rotate_keys(
        &self,
        hub: HubKey,
        name: &IdentityName,
        rotation: KeyRotation,
        now: UnixTime,
    ) -> Result<Rotated, Error>;

    /// Removes an identity with its twin, session, claim, messages and feedback; a device takes its modules along.
    async fn delete_identity(
        &self,
        hub: HubKey,
        name: &IdentityName,
        precondition: Precondition,
    ) -> Result<Changed<Identity>, Error>;

    /// One identity, keys and all.
    async fn find_identity(&self, hub: HubKey, name: &IdentityName) -> Result<Option<Identity>, Error>;

    /// A page of devices, without modules, keys and all, in order of device ID.
    async fn list_devices(&self, hub: HubKey, page: PageRequest) -> Result<Page<Identity>, Error>;

    /// The modules of a device; `None` if there is no such device.
    async fn list_modules(&self, hub: HubKey, device: &DeviceId) -> Result<Option<Vec<Identity>>, Error>;

    /// The names of a page of devices, each before those of its modules, in order of their IDs: also of those whose other
    /// columns do not parse.
    async fn list_names(&self, hub: HubKey, page: PageRequest) -> Result<Page<IdentityName>, Error>;

    /// The hubs that take no more devices, which is known without counting.
    async fn list_full_hubs(&self) -> Result<Vec<HubKey>, Error>;

    /// Counts devices.
    async fn count_devices(&self, hub: HubKey) -> Result<DeviceCounts, Error>;

    /// Takes the identity over for a connection and marks it connected; `None` if it is gone, or of another generation
    /// than is wanted. With a clean session the remembered subscriptions are forgotten. Neither the claim nor the
    /// connection state need survive a power cut; a forgotten session must.
    async fn claim_connection(
        &self,
        hub: HubKey,
        name: &IdentityName,
        wanted: ClaimWanted,
        now: UnixTime,
    ) -> Result<Option<ConnectionClaim>, Error>;

    /// Takes note of the model that a connection announces, if its epoch is still the identity's latest claim; says whether
    /// it was. Not durable.
    async fn announce_model(
        &self,
        hub: HubKey,
        name: &IdentityName,
        announced: (u64, &str),
        now: UnixTime,
    ) -> Result<bool, Error>;

    /// Marks the identity disconnected if `epoch` is still its latest claim; says whether it was. The messages that the
    /// connection did not settle wait again, as often delivered as before. Not durable.
    async fn release_connection(
        &self,
        hub: HubKey,
        name: &IdentityName,
        epoch: u64,
        now: UnixTime,
    ) -> Result<bool, Error>;

    /// Remembers what the identity subscribes to, if `epoch` is still its latest claim; says whether it was.
    async fn save_subscriptions(
        &self,
        hub: HubKey,
        name: &IdentityName,
        epoch: u64,
        subscriptions: Subscriptions,
    ) -> Result<bool, Error>;

    /// Notes when devices were last heard; later marks win. Not durable.
    async fn note_activity(&self, marks: Vec<ActivityMark>) -> Result<(), Error>;

    /// Counts up whenever a committed verb disabled, removed or re-keyed identities; a device that is disabled or removed
    /// takes its modules along. Who was concerned is found by
    /// reading the identities again; losing or doubling a wake-up is harmless.
    fn identity_changes(&self) -> tokio::sync::watch::Receiver<u64>;

    /// The identities concerned by up to `limit` changes after `sequence`, oldest first, and the sequence they lead to. A
    /// change that does not parse is passed over.
    async fn identity_changes_after(
        &self,
        sequence: u64,
        limit: usize,
    ) -> Result<(Vec<(HubKey, IdentityName)>, u64), Error>;

    /// Forgets changes up to `sequence`, at most `limit`; returns how many. None is forgotten unasked: whoever holds the
    /// connections hears of each.
    async fn prune_identity_changes(&self, sequence: u64, limit: usize) -> Result<usize, Error>;
}
