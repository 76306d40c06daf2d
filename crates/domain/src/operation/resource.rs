//! An operator manages hubs, provisioning services, their links, policies and CA certificates, and resource groups.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::certificate::Certificate;
use crate::cloud_to_device::{FeedbackSettings, QueueSettings};
use crate::file::FileSettings;
use crate::ids::{CertificateName, HubName, PolicyName, Precondition, ServiceName};
use crate::resource::{CaCertificate, ConsumerGroup, Hub, Policy, ProvisioningService, ResourceGroup};
use crate::route::RoutingDraft;
use crate::sas::SymmetricKey;

/// Where a resource lives, as the caller names it. The deployment has one subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Subscription, as written; another one than the deployment's is not found.
    pub subscription: String,
    /// Resource group, as written; `None` where the whole subscription is meant.
    pub group: Option<String>,
}

/// A hub or a provisioning service, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResourceName {
    /// A hub.
    Hub(HubName),
    /// A provisioning service.
    Service(ServiceName),
}

/// What an operator asks about resources. Every ask but those on subscriptions names a [`Place`].
#[derive(Clone, Debug)]
pub enum Ask {
    /// The deployment's subscription, for clients that list subscriptions.
    ListSubscriptions,
    /// The deployment's subscription, by the ID that the caller names.
    FindSubscription(String),
    /// Creates or updates a resource group.
    PutGroup {
        /// The subscription.
        place: Place,
        /// The group.
        name: String,
        /// Where it is said to be.
        location: String,
        /// Free labels.
        tags: Map<String, Value>,
    },
    /// Reads a resource group.
    FindGroup {
        /// The subscription.
        place: Place,
        /// The group.
        name: String,
    },
    /// Lists resource groups.
    ListGroups(Place),
    /// Removes a resource group with all it holds.
    DeleteGroup {
        /// The subscription.
        place: Place,
        /// The group.
        name: String,
    },
    /// Creates or updates a hub; works for devices as soon as it is answered.
    PutHub {
        /// Where.
        place: Place,
        /// Its name.
        name: HubName,
        /// What it shall be.
        draft: Box<HubDraft>,
        /// Demanded of the present hub.
        precondition: Precondition,
    },
    /// Creates or updates a provisioning service.
    PutService {
        /// Where.
        place: Place,
        /// Its name.
        name: ServiceName,
        /// What it shall be.
        draft: Box<ServiceDraft>,
        /// Demanded of the present service.
        precondition: Precondition,
    },
    /// Replaces the labels of a resource.
    PatchTags {
        /// Where.
        place: Place,
        /// Which.
        name: ResourceName,
        /// The labels.
        tags: Map<String, Value>,
    },
    /// Reads a resource.
    Find {
        /// Where.
        place: Place,
        /// Which.
        name: ResourceName,
    },
    /// Lists hubs of a group or of the subscription.
    ListHubs(Place),
    /// Lists provisioning services of a group or of the subscription.
    ListServices(Place),
    /// Removes a resource with all it holds; its connections end.
    Delete {
        /// Where.
        place: Place,
        /// Which.
        name: ResourceName,
    },
    /// Reads all policies of a resource, keys shown.
    ListPolicies {
        /// Where.
        place: Place,
        /// Whose.
        name: ResourceName,
    },
    /// Reads one policy, keys shown.
    FindPolicy {
        /// Where.
        place: Place,
        /// Whose.
        name: ResourceName,
        /// Which.
        policy: PolicyName,
    },
    /// Says whether a name could be given to a new hub.
    CheckHubName {
        /// Where.
        place: Place,
        /// The name as wished for.
        name: String,
    },
    /// Says whether a name could be given to a new provisioning service.
    CheckServiceName {
        /// Where.
        place: Place,
        /// The name as wished for.
        name: String,
    },
    /// Asks something about the CA certificates of a resource.
    Certificate {
        /// Where.
        place: Place,
        /// Whose.
        owner: ResourceName,
        /// What.
        request: CertificateAsk,
    },
    /// Something about consumer groups.
    ConsumerGroup {
        /// Where.
        place: Place,
        /// Of which hub.
        hub: HubName,
        /// What.
        request: ConsumerGroupAsk,
    },
}

/// What is asked of the consumer groups of one hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsumerGroupAsk {
    /// Lists them.
    List,
    /// Reads one.
    Find(String),
    /// Creates one, or reads it if it is there.
    Put(String),
    /// Removes one; its readers are cut off.
    Delete(String),
}

impl ConsumerGroupAsk {
    /// Whether it changes anything.
    pub const fn is_change(&self) -> bool {
        match self {
            Self::Put(_) | Self::Delete(_) => true,
            Self::List | Self::Find(_) => false,
        }
    }
}

impl Ask {
    /// Whether it changes anything.
    pub const fn is_change(&self) -> bool {
        match self {
            Self::PutGroup { .. }
            | Self::DeleteGroup { .. }
            | Self::PutHub { .. }
            | Self::PutService { .. }
            | Self::PatchTags { .. }
            | Self::Delete { .. } => true,
            Self::Certificate { request, .. } => request.is_change(),
            Self::ConsumerGroup { request, .. } => request.is_change(),
            Self::ListSubscriptions
            | Self::FindSubscription(_)
            | Self::FindGroup { .. }
            | Self::ListGroups(_)
            | Self::Find { .. }
            | Self::ListHubs(_)
            | Self::ListServices(_)
            | Self::ListPolicies { .. }
            | Self::FindPolicy { .. }
            | Self::CheckHubName { .. }
            | Self::CheckServiceName { .. } => false,
        }
    }
}

/// What is asked of the CA certificates of one resource.
#[derive(Clone, Debug)]
pub enum CertificateAsk {
    /// Lists them.
    List,
    /// Reads one.
    Find(CertificateName),
    /// Uploads one.
    Put {
        /// Its name.
        name: CertificateName,
        /// The certificate.
        certificate: Box<Certificate>,
        /// Whether the caller vouches for it, which skips the proof of possession.
        verified: bool,
        /// Demanded of the present one.
        precondition: Precondition,
    },
    /// Removes one; acts on the next registration.
    Delete {
        /// Which.
        name: CertificateName,
        /// Demanded of it.
        precondition: Precondition,
    },
    /// Makes a verification code, which ends the one before.
    GenerateCode {
        /// Which.
        name: CertificateName,
        /// Demanded of it.
        precondition: Precondition,
    },
    /// Proves possession with a certificate that the CA signed for the code.
    Verify {
        /// Which.
        name: CertificateName,
        /// The verification certificate.
        proof: Box<Certificate>,
        /// Demanded of the CA's record.
        precondition: Precondition,
    },
}

impl CertificateAsk {
    /// Whether it changes anything.
    pub const fn is_change(&self) -> bool {
        match self {
            Self::Put { .. } | Self::Delete { .. } | Self::GenerateCode { .. } | Self::Verify { .. } => true,
            Self::List | Self::Find(_) => false,
        }
    }
}

/// A hub as an operator writes it. What is `None` keeps its value, or takes the default on creation.
#[derive(Clone, Debug, Default)]
pub struct HubDraft {
    /// Where it is said to be.
    pub location: Option<String>,
    /// Labels.
    pub tags: Option<Map<String, Value>>,
    /// Tier and units, echoed.
    pub sku: Option<Map<String, Value>>,
    /// The whole set of policies.
    pub policies: Option<Vec<PolicyDraft>>,
    /// Partitions of the telemetry stream, 1 to 32; fixed at creation.
    pub partition_count: Option<u16>,
    /// Days that telemetry is kept, 1 to 365.
    pub retention_days: Option<u16>,
    /// How messages to its devices are treated.
    pub cloud_to_device: QueueDraft,
    /// Where its messages go, secrets perhaps masked.
    pub routing: Option<RoutingDraft>,
    /// How files that its devices upload are treated.
    pub files: FileDraft,
    /// Every other property, echoed as it came.
    pub extra: Map<String, Value>,
}

/// How a hub treats messages to its devices, as an operator writes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueDraft {
    /// How long a message waits whose sender does not say.
    pub default_ttl: Option<Duration>,
    /// How often a message is given to a device.
    pub deliveries_max: Option<u32>,
    /// How long feedback waits.
    pub feedback_ttl: Option<Duration>,
    /// How often feedback is handed out.
    pub feedback_deliveries_max: Option<u32>,
    /// How long a reader has feedback for itself.
    pub feedback_lock: Option<Duration>,
}

impl QueueDraft {
    /// What it makes of `present`; nothing is checked.
    pub fn apply(self, present: QueueSettings) -> QueueSettings {
        let QueueSettings { default_ttl, deliveries_max, feedback } = present;
        QueueSettings {
            default_ttl: self.default_ttl.unwrap_or(default_ttl),
            deliveries_max: self.deliveries_max.unwrap_or(deliveries_max),
            feedback: FeedbackSettings {
                ttl: self.feedback_ttl.unwrap_or(feedback.ttl),
                deliveries_max: self.feedback_deliveries_max.unwrap_or(feedback.deliveries_max),
                lock: self.feedback_lock.unwrap_or(feedback.lock),
            },
        }
    }
}

/// How a hub treats uploaded files, as an operator writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileDraft {
    /// What stands before the names of files; empty where devices may upload none.
    pub container: Option<String>,
    /// How long a device has to upload a file.
    pub upload_ttl: Option<Duration>,
    /// Whether back-end programs are told of files.
    pub notifies: Option<bool>,
    /// How long a notification waits.
    pub notification_ttl: Option<Duration>,
    /// How often a notification is handed out.
    pub notification_deliveries_max: Option<u32>,
    /// How long a reader has a notification for itself.
    pub notification_lock: Option<Duration>,
}

impl FileDraft {
    /// What it makes of `present`; nothing is checked.
    pub fn apply(self, present: FileSettings) -> FileSettings {
        let FileSettings { container, upload_ttl, notifies, notifications } = present;
        FileSettings {
            container: self.container.unwrap_or(container),
            upload_ttl: self.upload_ttl.unwrap_or(upload_ttl),
            notifies: self.notifies.unwrap_or(notifies),
            notifications: FeedbackSettings {
                ttl: self.notification_ttl.unwrap_or(notifications.ttl),
                deliveries_max: self.notification_deliveries_max.unwrap_or(notifications.deliveries_max),
                lock: self.notification_lock.unwrap_or(notifications.lock),
            },
        }
    }
}

/// A provisioning service as an operator writes it. What is `None` keeps its value, or takes the default on creation.
#[derive(Clone, Debug, Default)]
pub struct ServiceDraft {
    /// Where it is said to be.
    pub location: Option<String>,
    /// Labels.
    pub tags: Option<Map<String, Value>>,
    /// Tier and units, echoed.
    pub sku: Option<Map<String, Value>>,
    /// The whole set of policies.
    pub policies: Option<Vec<PolicyDraft>>,
    /// How devices are spread over hubs unless their enrollment says otherwise.
    pub allocation: Option<crate::enrollment::AllocationPolicy>,
    /// The whole set of linked hubs.
    pub links: Option<Vec<LinkDraft>>,
    /// Every other property, echoed as it came.
    pub extra: Map<String, Value>,
}

/// A policy as an operator writes it.
#[derive(Clone, Debug)]
pub struct PolicyDraft {
    /// Its name.
    pub name: PolicyName,
    /// Rights, comma-separated, as written.
    pub rights: String,
    /// First key; kept or generated if absent.
    pub primary: Option<SymmetricKey>,
    /// Second key; kept or generated if absent.
    pub secondary: Option<SymmetricKey>,
}

/// A link to a hub as an operator writes it.
#[derive(Clone, Debug)]
pub struct LinkDraft {
    /// The hub's host name.
    pub host_name: String,
    /// Policy and key to sign in with; `None` keeps the stored ones, since the key is shown masked.
    pub credential: Option<LinkCredential>,
    /// Where it is said to be.
    pub location: Option<String>,
    /// Whether the allocation policy may choose it.
    pub apply_allocation_policy: bool,
    /// Its share, 1 to 1,000.
    pub weight: u32,
}

/// How a provisioning service signs in to a linked hub.
#[derive(Clone, Debug)]
pub struct LinkCredential {
    /// The policy.
    pub policy: PolicyName,
    /// Its key.
    pub key: SymmetricKey,
}

/// What an operator is told.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The deployment's subscription.
    Subscription {
        /// Its ID.
        id: String,
        /// The tenant it belongs to.
        tenant: String,
    },
    /// A resource group.
    Group(Box<ResourceGroup>),
    /// Resource groups.
    Groups(Vec<ResourceGroup>),
    /// A hub; `created` tells a new one.
    Hub {
        /// The hub.
        hub: Box<ShownHub>,
        /// Whether the ask made it.
        created: bool,
    },
    /// Hubs.
    Hubs(Vec<ShownHub>),
    /// A provisioning service; `created` tells a new one.
    Service {
        /// The service.
        service: Box<ShownService>,
        /// Whether the ask made it.
        created: bool,
    },
    /// Provisioning services.
    Services(Vec<ShownService>),
    /// It is gone, or was never there.
    Deleted {
        /// Whether there was anything to remove.
        existed: bool,
    },
    /// Policies, keys and all.
    Policies(Vec<Policy>),
    /// One policy, keys and all.
    Policy(Box<Policy>),
    /// Whether a name is free.
    NameCheck {
        /// Whether it is.
        available: bool,
        /// If not, why.
        reason: Option<NameRefusal>,
    },
    /// One CA certificate.
    Certificate {
        /// The record.
        certificate: Box<CaCertificate>,
        /// Whether the ask made it.
        created: bool,
    },
    /// CA certificates.
    Certificates(Vec<CaCertificate>),
    /// One consumer group.
    ConsumerGroup(ConsumerGroup),
    /// Consumer groups.
    ConsumerGroups(Vec<ConsumerGroup>),
}

/// Why a name cannot be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameRefusal {
    /// It breaks the rules for names.
    Invalid(String),
    /// It is in use.
    Taken,
}

/// A hub with the names derived for it.
#[derive(Clone, Debug)]
pub struct ShownHub {
    /// The record.
    pub hub: Hub,
    /// The host name clients dial.
    pub host_name: String,
    /// The subscription it is in.
    pub subscription: String,
}

/// A provisioning service with the names derived for it.
#[derive(Clone, Debug)]
pub struct ShownService {
    /// The record.
    pub service: ProvisioningService,
    /// The host name operators' programs dial.
    pub operations_host_name: String,
    /// The host name devices dial.
    pub device_host_name: String,
    /// The host names of its links, in their order.
    pub link_host_names: Vec<String>,
    /// The subscription it is in.
    pub subscription: String,
}
