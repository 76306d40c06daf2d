//! Registrations: the record of each device, and the operations that assign devices to hubs.
//!
//! An operation goes accepted, claimed, planned, finished. Every verb of a worker carries the attempt number of its
//! claim, a fencing token: the store refuses it once a later claim exists, or once the operation has ended
//! (`rules.md` 2).

use async_trait::async_trait;
use domain::attestation::{Proven, Registrant};
use domain::clock::UnixTime;
use domain::decision::Decision;
use domain::enrollment::{Capabilities, InitialTwin};
use domain::ids::{DeviceId, EnrollmentGroupId, HubKey, OperationId, Precondition, RegistrationId, ServiceKey};
use domain::operation::registration::{RegistrationError, RegistrationState, RegistrationStatus, Substatus};
use domain::operation::{Page, PageRequest};
use domain::sas::SymmetricKey;
use serde_json::{Map, Value};

use super::Changed;
use crate::Error;

/// What became of a request to register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// The fresh operation was queued.
    New,
    /// An unfinished operation of the same entry and credential goes on.
    AlreadyRunning(OperationId),
    /// The provisioning service is not there; nothing was written.
    ServiceGone,
}

/// An operation in the hands of a worker.
#[derive(Clone, Debug)]
pub struct Claimed {
    /// Which.
    pub operation: OperationId,
    /// The fencing token.
    pub attempt: u32,
    /// Who is being assigned.
    pub registrant: Registrant,
    /// What the device sent for the allocator.
    pub payload: Option<Value>,
    /// The plan of an earlier attempt; it must be followed.
    pub plan: Option<Planned>,
    /// Where the device is assigned at present, if it is.
    pub current: Option<Assigned>,
}

/// A present assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assigned {
    /// The hub.
    pub hub: HubKey,
    /// The device there.
    pub device_id: DeviceId,
    /// The hub of its first assignment.
    pub initial_hub: HubKey,
}

/// A choice made durable before it is carried out.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Planned {
    /// The chosen hub.
    pub hub: HubKey,
    /// The name there.
    pub device_id: DeviceId,
    /// What its twin is made of.
    pub twin: TwinSource,
    /// How the result is called.
    pub substatus: Substatus,
    /// What the allocator sends to the device.
    pub payload: Option<Map<String, Value>>,
}

/// What the twin of the assigned device is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TwinSource {
    /// The twin at the chosen hub stays as it is; one that is missing is made from the initial twin.
    Keep,
    /// The initial twin replaces whatever there is.
    Initial,
    /// The twin of the present assignment is carried along, with capabilities.
    Migrate,
}

/// What finishing needs besides the plan.
#[derive(Clone, Debug)]
pub struct Finish {
    /// The credential, capabilities and enabled state the identity is brought into line with.
    pub assignee: Assignee,
    /// The enrollment's initial twin.
    pub initial_twin: Option<InitialTwin>,
}

/// The identity a completed registration leaves behind (`rules.md` 3).
#[derive(Clone, Debug)]
pub enum Assignee {
    /// Authenticates by the leaf's thumbprint.
    SelfSigned {
        /// SHA-256 of the leaf, upper-case hexadecimal.
        primary: String,
        /// A second one, if the enrollment holds two certificates.
        secondary: Option<String>,
        /// Capabilities from the entry.
        capabilities: Capabilities,
    },
    /// Authenticates by symmetric key.
    Sas {
        /// First key.
        primary: SymmetricKey,
        /// Second key.
        secondary: SymmetricKey,
        /// Capabilities from the entry.
        capabilities: Capabilities,
    },
}

/// What became of a worker's verb.
#[derive(Clone, Debug, PartialEq)]
pub enum Finished<T> {
    /// It was done.
    Done(T),
    /// A later claim exists, the operation has ended, or its provisioning service is gone; nothing was written.
    Fenced,
    /// The entry was disabled, deleted or replaced since; the operation was ended as failed.
    EntryChanged,
    /// The chosen hub is gone; nothing was written.
    HubGone,
}

/// How an operation stands, for who polls it.
#[derive(Clone, Debug, PartialEq)]
pub struct OperationView {
    /// Whose it is, in lower case.
    pub registration_id: RegistrationId,
    /// The record if it has ended, `None` while it runs.
    pub outcome: Option<RegistrationState>,
}

/// Keeps registrations and operations. Host names inside a [`RegistrationState`] are derived by the caller: the store
/// fills `assignment.host_name` with the decimal hub key and the service translates it.
#[expect(clippy::too_many_arguments, reason = "a verb is one atomic change: all it needs comes with it")]
#[async_trait]
pub trait RegistrationStore: Send + Sync {
    /// Records that `device` is being assigned, queues the work and keeps the decision, in one transaction.
    ///
    /// Writes nothing but the decision, which then names the operation that goes on, if an unfinished one was admitted by
    /// the same entry, at the same version, with the same credential; an unfinished operation of another entry or credential ends as superseded.
    async fn accept_registration(
        &self,
        device: &Proven<Registrant>,
        fresh: OperationId,
        payload: Option<Value>,
        decision: Decision,
        now: UnixTime,
    ) -> Result<Accepted, Error>;

    /// Hands up to `limit` queued operations, oldest first, to one worker, each with a higher attempt number than any
    /// before. An operation whose lease has not run out, by the store's own clock, is not handed out; at the opening of an
    /// embedded store all leases are void, since the folder lock proves that nobody holds them. An operation that does
    /// not parse ends as failed.
    async fn claim_operations(&self, limit: usize) -> Result<Vec<Claimed>, Error>;

    /// Makes the choice durable. A plan that exists already is kept and returned instead.
    async fn plan_assignment(
        &self,
        operation: OperationId,
        attempt: u32,
        plan: Planned,
        now: UnixTime,
    ) -> Result<Finished<Planned>, Error>;

    /// Carries out the plan for a hub of this deployment in one transaction: reads the entry again, brings the
    /// identity and twin at the chosen hub into line, removes the identity at the old hub, and ends the operation.
    async fn finish_assignment(
        &self,
        operation: OperationId,
        attempt: u32,
        finish: Finish,
        now: UnixTime,
    ) -> Result<Finished<RegistrationState>, Error>;

    /// Ends the operation without a hub.
    async fn fail_assignment(
        &self,
        operation: OperationId,
        attempt: u32,
        error: RegistrationError,
        now: UnixTime,
    ) -> Result<Finished<RegistrationState>, Error>;

    /// Notes on the record that a device was refused (`Disabled` or `Failed`); keeps any assignment. Creates the
    /// record if there is none and `status` is `Disabled`. Writes nothing if the provisioning service is not there.
    async fn note_refusal(
        &self,
        service: ServiceKey,
        registration_id: &RegistrationId,
        status: RegistrationStatus,
        error: Option<RegistrationError>,
        now: UnixTime,
    ) -> Result<(), Error>;

    /// How an operation of `service` stands. Ended ones are kept at least 24 hours.
    async fn find_operation(&self, service: ServiceKey, operation: OperationId)
    -> Result<Option<OperationView>, Error>;

    /// The record of a device.
    async fn find_registration(
        &self,
        service: ServiceKey,
        registration_id: &RegistrationId,
    ) -> Result<Option<RegistrationState>, Error>;

    /// The group that admitted this device before, tried first for symmetric-key groups (`rules.md` 5).
    async fn find_admitting_group(
        &self,
        service: ServiceKey,
        registration_id: &RegistrationId,
    ) -> Result<Option<EnrollmentGroupId>, Error>;

    /// Removes a record; a running operation of the device ends as superseded. The identity at the hub stays.
    async fn delete_registration(
        &self,
        service: ServiceKey,
        registration_id: &RegistrationId,
        precondition: Precondition,
    ) -> Result<Changed<RegistrationState>, Error>;

    /// A page of the records that a group admitted.
    async fn list_registrations(
        &self,
        service: ServiceKey,
        group: &EnrollmentGroupId,
        page: PageRequest,
    ) -> Result<Page<RegistrationState>, Error>;

    /// Forgets operations that ended before `before`, at most `limit`; returns how many.
    async fn prune_operations(&self, before: UnixTime, limit: usize) -> Result<usize, Error>;
}
