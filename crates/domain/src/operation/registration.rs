//! A device registers and asks how its registration stands.

use std::borrow::Cow;
use std::fmt;

use serde_json::{Map, Value};

use super::ErrorKind;
use crate::attestation::Rejection;
use crate::clock::UnixTime;
use crate::decision::{Cause, Presented};
use crate::ids::{DeviceId, EnrollmentGroupId, Etag, OperationId, RegistrationId};

/// What a device asks of a provisioning service.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The ID scope as the device wrote it; not parsed, so that an odd one is refused like an unknown one.
    pub id_scope: String,
    /// The registration ID as the device wrote it, bounded by the dialect.
    pub registration_id: String,
    /// What it wants.
    pub request: Request,
}

/// The three things a device can want; and what a dialect has to say of one that cannot be judged.
#[derive(Clone, Debug)]
pub enum Request {
    /// Be assigned to a hub.
    Register(Box<Registration>),
    /// Learn how operation `operation` stands; text as the device wrote it.
    Poll {
        /// The operation ID.
        operation: String,
    },
    /// Learn where it was assigned, without registering.
    LookUp,
    /// Nothing: the dialect refuses it. Always answered by a failure, which has the tracking ID.
    Refuse(Unfit),
}

/// Why a device is refused before anybody judges it.
#[derive(Clone, Debug, PartialEq)]
pub enum Unfit {
    /// The registration ID breaks the rules for one.
    RegistrationId,
    /// The protocol's own name of the client is not the registration ID, or cannot be read.
    Name(&'static str),
    /// What it presents can prove nothing, as is seen without a look at its entry.
    Credential(Rejection),
    /// The request cannot be taken; of the device nothing is decided.
    Request {
        /// The class.
        kind: ErrorKind,
        /// What may be shown to anyone.
        public: Cow<'static, str>,
    },
}

impl Unfit {
    /// The cause that a decision has; `None` if none is to be recorded.
    pub const fn cause(&self) -> Option<Cause> {
        match self {
            Self::RegistrationId => Some(Cause::InvalidRegistrationId),
            Self::Name(_) => Some(Cause::WrongUserName),
            Self::Credential(rejection) => Some(rejection.cause()),
            Self::Request { .. } => None,
        }
    }

    /// What it presented, where that is what it is refused for.
    pub const fn presented(&self) -> Option<Presented> {
        match self {
            Self::Credential(Rejection::Unreadable(_) | Rejection::Resource { .. }) => Some(Presented::Signature),
            Self::Credential(Rejection::NoCredential) => Some(Presented::Nothing),
            Self::RegistrationId | Self::Name(_) | Self::Credential(_) | Self::Request { .. } => None,
        }
    }
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RegistrationId => f.write_str("the registration ID breaks the rules for one"),
            Self::Name(what) => f.write_str(what),
            Self::Credential(rejection) => rejection.fmt(f),
            Self::Request { public, .. } => f.write_str(public),
        }
    }
}

/// The body of a registration.
#[derive(Clone, Debug, Default)]
pub struct Registration {
    /// The registration ID inside the body, which must agree with the one outside.
    pub registration_id: Option<String>,
    /// What the device sends to the allocator; `None` also for an explicit null.
    pub payload: Option<Value>,
    /// Whether the device shows a TPM.
    pub tpm: Option<TpmKeys>,
    /// A certificate signing request; no provisioning service grants it as long as none issues certificates.
    pub has_certificate_request: bool,
    /// Whether the device insists on being assigned afresh.
    pub force: bool,
}

/// The public keys of a device's TPM, each a marshalled `TPM2B_PUBLIC`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TpmKeys {
    /// Endorsement key.
    pub endorsement_key: Vec<u8>,
    /// Storage root key.
    pub storage_root_key: Option<Vec<u8>>,
}

/// What a provisioning service answers a device.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The registration was taken on; always the first answer to [`Request::Register`].
    Accepted {
        /// What to poll.
        operation: OperationId,
        /// Seconds to wait before polling.
        retry_after_s: u32,
    },
    /// The operation is still running.
    Assigning {
        /// What to poll.
        operation: OperationId,
        /// Whose it is.
        registration_id: RegistrationId,
        /// Seconds to wait before polling.
        retry_after_s: u32,
    },
    /// The operation ended, well or badly.
    Finished {
        /// Which one.
        operation: OperationId,
        /// How.
        state: Box<RegistrationState>,
    },
    /// To [`Request::LookUp`].
    State(Box<RegistrationState>),
}

/// The record of a device's registering.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct RegistrationState {
    /// Whose.
    pub registration_id: RegistrationId,
    /// When it first registered; `None` if it never did.
    pub created_at: Option<UnixTime>,
    /// When the record last changed.
    pub updated_at: Option<UnixTime>,
    /// How it stands.
    pub status: RegistrationStatus,
    /// How it came to be assigned.
    pub substatus: Option<Substatus>,
    /// Where it is assigned.
    pub assignment: Option<Assignment>,
    /// Why it failed: six digits, the first three an HTTP status.
    pub error: Option<RegistrationError>,
    /// Version of the record.
    pub etag: Option<Etag>,
    /// What the allocator sent for the device.
    pub payload: Option<Map<String, Value>>,
    /// How the device was attested, as far as the reply shows it.
    pub attested_by: Option<AttestedBy>,
}

impl RegistrationState {
    /// The record of a device that never registered.
    pub fn unassigned(registration_id: RegistrationId) -> Self {
        Self {
            registration_id,
            created_at: None,
            updated_at: None,
            status: RegistrationStatus::Unassigned,
            substatus: None,
            assignment: None,
            error: None,
            etag: None,
            payload: None,
            attested_by: None,
        }
    }
}

/// Where a device is assigned.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Assignment {
    /// The host name the device dials. Derived when shown, for hubs of this deployment.
    pub host_name: String,
    /// Its name there.
    pub device_id: DeviceId,
}

/// How a registration stands. On the wire to devices only assigning, assigned and failed appear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RegistrationStatus {
    /// Never registered.
    Unassigned,
    /// A hub is being chosen or the identity made.
    Assigning,
    /// Done.
    Assigned,
    /// Ended without a hub.
    Failed,
    /// Refused because its enrollment is disabled.
    Disabled,
}

/// How a device came to its assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Substatus {
    /// For the first time.
    InitialAssignment,
    /// Again, its twin carried along.
    DeviceDataMigrated,
    /// Again, its twin set back to the initial one.
    DeviceDataReset,
    /// Again, to the hub of its first assignment.
    ReprovisionedToInitialAssignment,
}

/// Why a registration failed.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RegistrationError {
    /// Six digits.
    pub code: u32,
    /// For people.
    pub message: String,
}

/// How a device was attested, as far as the reply shows it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AttestedBy {
    /// By certificate.
    X509 {
        /// The group, unless an individual enrollment admitted it.
        group: Option<EnrollmentGroupId>,
    },
    /// By symmetric key.
    SymmetricKey {
        /// The group, unless an individual enrollment admitted it.
        group: Option<EnrollmentGroupId>,
    },
}
