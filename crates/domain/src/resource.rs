//! Hubs, provisioning services, links, policies, CA certificates, and the names under which all of it is reached.
//!
//! Records have keys of their own; host names are derived ([`Naming`]), so that a move from address literals to a domain
//! touches no record (`rules.md` 19). Secrets are in types that cannot be serialised. Start at [`Hub`] and [`Naming`];
//! what operators may write is decided by [`Hub::apply`] and [`ProvisioningService::apply`].

mod ca_certificate;
mod consumer_group;
mod naming;
mod policy;

use std::net::IpAddr;

use serde_json::{Map, Value};

use crate::access::{InvalidRights, ResourceKind};
use crate::clock::{Entropy, UnixTime};
use crate::cloud_to_device::{InvalidQueue, QueueSettings};
use crate::enrollment::AllocationPolicy;
use crate::event::Sources;
use crate::file::{FileSettings, InvalidFiles};
use crate::ids::{Etag, HubKey, HubName, IdScope, PolicyName, ServiceKey, ServiceName};
use crate::message::{EventSource, Origin};
use crate::operation::resource::{HubDraft, LinkDraft, ServiceDraft};
use crate::route::{InvalidRouting, Routing, Source};

pub use ca_certificate::{CaCertificate, NotProved};
pub use consumer_group::ConsumerGroup;
pub use naming::{AddressPool, FIRST_ADDRESS, Naming, next_loopback};
pub use policy::{Policy, StoredPolicy, default_hub_policies, default_service_policies};

/// A hub.
#[derive(Clone, Debug, PartialEq)]
pub struct Hub {
    /// The store's number for it.
    pub key: HubKey,
    /// Its name.
    pub name: HubName,
    /// Its address, where addresses are handed out; its own for ever.
    pub address: Option<IpAddr>,
    /// Its resource group.
    pub group: String,
    /// Where it is said to be.
    pub location: String,
    /// Labels.
    pub tags: Map<String, Value>,
    /// Tier and units as the operator wrote them.
    pub sku: Map<String, Value>,
    /// Policies, keys and all.
    pub policies: Vec<Policy>,
    /// Partitions of its telemetry, 1 to 32; fixed at creation.
    pub partitions: u16,
    /// Days that telemetry is kept, 1 to 365.
    pub retention_days: u16,
    /// Under which names its telemetry is read, beside the default one.
    pub consumer_groups: Vec<ConsumerGroup>,
    /// How messages to its devices are treated; a change concerns what is sent after it.
    pub cloud_to_device: QueueSettings,
    /// Where its messages go.
    pub routing: Routing,
    /// How files that its devices upload are treated.
    pub files: FileSettings,
    /// Every other property as the operator wrote it.
    pub extra: Map<String, Value>,
    /// When it was created.
    pub created_at: UnixTime,
    /// Its version.
    pub etag: Etag,
}

/// A provisioning service.
#[derive(Clone, Debug, PartialEq)]
pub struct ProvisioningService {
    /// The store's number for it.
    pub key: ServiceKey,
    /// Its name.
    pub name: ServiceName,
    /// Its immutable tenant key.
    pub id_scope: IdScope,
    /// Its address, where addresses are handed out; its own for ever.
    pub address: Option<IpAddr>,
    /// Its resource group.
    pub group: String,
    /// Where it is said to be.
    pub location: String,
    /// Labels.
    pub tags: Map<String, Value>,
    /// Tier and units as the operator wrote them.
    pub sku: Map<String, Value>,
    /// Policies, keys and all.
    pub policies: Vec<Policy>,
    /// How devices are spread unless their enrollment says otherwise.
    pub allocation: AllocationPolicy,
    /// Linked hubs, in the operator's order.
    pub links: Vec<LinkedHub>,
    /// Every other property as the operator wrote it.
    pub extra: Map<String, Value>,
    /// When it was created.
    pub created_at: UnixTime,
    /// Its version.
    pub etag: Etag,
}

/// A hub that a provisioning service may assign devices to. Hubs elsewhere come with their own work.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LinkedHub {
    /// The hub.
    pub hub: HubKey,
    /// The policy the link was made with, as shown in its masked connection string.
    pub policy: String,
    /// Where it is said to be.
    pub location: String,
    /// Whether the allocation policy may choose it.
    pub applies: bool,
    /// Its share, 1 to 1,000.
    pub weight: u32,
}

/// Why a resource cannot be as an operator writes it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidResource {
    /// Too few or too many partitions.
    #[error("a hub has 1 to {} partitions", Hub::PARTITIONS_MAX)]
    Partitions,
    /// Another number of partitions than the hub was created with.
    #[error("the number of partitions cannot change after the hub is created")]
    PartitionsFixed,
    /// Telemetry would be kept for no time, or too long.
    #[error("telemetry is kept for 1 to {} days", Hub::RETENTION_DAYS_MAX)]
    Retention,
    /// A setting of the messages to devices is out of its range.
    #[error("{0}")]
    CloudToDevice(InvalidQueue),
    /// Messages cannot be routed so.
    #[error("{0}")]
    Routing(Box<InvalidRouting>),
    /// A setting of uploaded files is out of its range.
    #[error("{0}")]
    Files(InvalidFiles),
    /// The rights of a policy cannot be read.
    #[error("the rights of policy {policy}: {reason}")]
    Rights {
        /// Which policy.
        policy: PolicyName,
        /// Why.
        reason: InvalidRights,
    },
    /// Two policies of one name.
    #[error("policy {0} is named twice")]
    PolicyTwice(PolicyName),
    /// More policies than a resource has.
    #[error("a resource has at most {} policies", Policy::COUNT_MAX)]
    TooManyPolicies,
    /// A provisioning service as a whole cannot leave the choice to a webhook, which only enrollments name.
    #[error("custom allocation is chosen by an enrollment")]
    Allocation,
    /// The share of a linked hub is outside its range.
    #[error("the weight of a linked hub is 1 to {}", LinkedHub::WEIGHT_MAX)]
    Weight,
    /// A hub is linked twice.
    #[error("a hub is linked twice")]
    LinkTwice,
    /// More linked hubs than a provisioning service has.
    #[error("a provisioning service has at most {} linked hubs", LinkedHub::COUNT_MAX)]
    TooManyLinks,
    /// The name of a consumer group breaks the rules.
    #[error(
        "a consumer group's name has 1 to 50 letters, digits, and - . _, and begins and ends with one of the former"
    )]
    ConsumerGroupName,
    /// More consumer groups than a hub has.
    #[error("a hub has at most {} consumer groups", ConsumerGroup::COUNT_MAX)]
    TooManyConsumerGroups,
    /// The one that every hub has would go.
    #[error("every hub has the consumer group {}", ConsumerGroup::DEFAULT)]
    DefaultConsumerGroup,
    /// The name of a resource group breaks the rules.
    #[error("a resource group's name has 1 to 90 letters, digits, and - . _ ( ), and does not end with a full stop")]
    GroupName,
}

impl Hub {
    /// Most partitions (`contract/control-plane.md 4.2`).
    pub const PARTITIONS_MAX: u16 = 32;
    /// Partitions if nobody says how many.
    pub const PARTITIONS_DEFAULT: u16 = 4;
    /// Most days that telemetry is kept.
    pub const RETENTION_DAYS_MAX: u16 = 365;
    /// Days that telemetry is kept if nobody says how many.
    pub const RETENTION_DAYS_DEFAULT: u16 = 1;

    /// A fresh hub in `group`. Key, address and etag are the store's to give.
    pub fn create(
        name: HubName,
        group: String,
        draft: HubDraft,
        now: UnixTime,
        entropy: &dyn Entropy,
    ) -> Result<Self, InvalidResource> {
        let mut hub = Self {
            key: HubKey(0),
            name,
            address: None,
            group,
            location: String::new(),
            tags: Map::new(),
            sku: Map::new(),
            policies: Vec::new(),
            partitions: draft.partition_count.unwrap_or(Self::PARTITIONS_DEFAULT),
            retention_days: Self::RETENTION_DAYS_DEFAULT,
            consumer_groups: Vec::new(),
            cloud_to_device: QueueSettings::default(),
            routing: Routing::default(),
            files: FileSettings::default(),
            extra: Map::new(),
            created_at: now,
            etag: Etag::from_number(0),
        };
        if !(1..=Self::PARTITIONS_MAX).contains(&hub.partitions) {
            return Err(InvalidResource::Partitions);
        }
        if draft.policies.is_none() {
            hub.policies = default_hub_policies(entropy);
        }
        hub.apply(draft, entropy)?;
        Ok(hub)
    }

    /// Takes over what `draft` says and keeps what it leaves out; nothing if any of it breaks a rule.
    pub fn apply(&mut self, draft: HubDraft, entropy: &dyn Entropy) -> Result<(), InvalidResource> {
        if draft.partition_count.is_some_and(|count| count != self.partitions) {
            return Err(InvalidResource::PartitionsFixed);
        }
        let retention_days = draft.retention_days.unwrap_or(self.retention_days);
        if !(1..=Self::RETENTION_DAYS_MAX).contains(&retention_days) {
            return Err(InvalidResource::Retention);
        }
        let cloud_to_device = draft.cloud_to_device.apply(self.cloud_to_device);
        cloud_to_device.check().map_err(InvalidResource::CloudToDevice)?;
        let routing = draft.routing.map(|routing| Routing::settle(routing, &self.routing)).transpose();
        let routing = routing.map_err(|invalid| InvalidResource::Routing(Box::new(invalid)))?;
        let files = draft.files.apply(self.files.clone());
        files.check().map_err(InvalidResource::Files)?;
        if let Some(drafts) = draft.policies {
            self.policies = policy::settle(drafts, &self.policies, ResourceKind::Hub, entropy)?;
        }
        replace_if_said(&mut self.routing, routing);
        self.retention_days = retention_days;
        self.cloud_to_device = cloud_to_device;
        self.files = files;
        replace_if_said(&mut self.location, draft.location);
        replace_if_said(&mut self.tags, draft.tags);
        replace_if_said(&mut self.sku, draft.sku);
        self.extra.extend(draft.extra);
        Ok(())
    }
}

impl Hub {
    /// What it tells of by itself: what its routes ask for. A change concerns what happens after it.
    pub fn event_sources(&self) -> Sources {
        let asked_for = |source: &EventSource| self.routing.takes(Source::of(Origin::Hub(*source)));
        EventSource::ALL.into_iter().filter(asked_for).fold(Sources::default(), Sources::with)
    }
}

impl ProvisioningService {
    /// A fresh provisioning service in `group`, hashing over no hubs yet. Key, address and etag are the store's to give.
    /// `links` are those of `draft`, whose host names only a directory of hubs can tell.
    pub fn create(
        name: ServiceName,
        group: String,
        (draft, links): (ServiceDraft, Option<Vec<LinkedHub>>),
        now: UnixTime,
        entropy: &dyn Entropy,
    ) -> Result<Self, InvalidResource> {
        let mut service = Self {
            key: ServiceKey(0),
            name,
            id_scope: IdScope::generate(entropy),
            address: None,
            group,
            location: String::new(),
            tags: Map::new(),
            sku: Map::new(),
            policies: Vec::new(),
            allocation: AllocationPolicy::Hashed,
            links: Vec::new(),
            extra: Map::new(),
            created_at: now,
            etag: Etag::from_number(0),
        };
        if draft.policies.is_none() {
            service.policies = default_service_policies(entropy);
        }
        service.apply(draft, links, entropy)?;
        Ok(service)
    }

    /// Takes over what `draft` and `links` say and keeps what they leave out; nothing if any of it breaks a rule.
    pub fn apply(
        &mut self,
        draft: ServiceDraft,
        links: Option<Vec<LinkedHub>>,
        entropy: &dyn Entropy,
    ) -> Result<(), InvalidResource> {
        if draft.allocation == Some(AllocationPolicy::Custom) {
            return Err(InvalidResource::Allocation);
        }
        if let Some(links) = &links {
            LinkedHub::check_all(links)?;
        }
        if let Some(drafts) = draft.policies {
            self.policies = policy::settle(drafts, &self.policies, ResourceKind::Service, entropy)?;
        }
        replace_if_said(&mut self.links, links);
        replace_if_said(&mut self.allocation, draft.allocation);
        replace_if_said(&mut self.location, draft.location);
        replace_if_said(&mut self.tags, draft.tags);
        replace_if_said(&mut self.sku, draft.sku);
        self.extra.extend(draft.extra);
        Ok(())
    }
}

fn replace_if_said<T>(present: &mut T, said: Option<T>) {
    if let Some(said) = said {
        *present = said;
    }
}

impl LinkedHub {
    /// Largest share.
    pub const WEIGHT_MAX: u32 = 1_000;
    /// Most hubs of one provisioning service.
    pub const COUNT_MAX: usize = 50;

    /// The link that `draft` describes, once its host name is known to be `hub`'s. Without a credential, policy and
    /// location stay those of `present`.
    pub fn settle(draft: LinkDraft, hub: HubKey, present: Option<&Self>) -> Self {
        let kept = |part: fn(&Self) -> &String| present.map(part).cloned().unwrap_or_default();
        Self {
            hub,
            policy: match draft.credential {
                Some(credential) => credential.policy.as_str().to_owned(),
                None => kept(|link| &link.policy),
            },
            location: draft.location.unwrap_or_else(|| kept(|link| &link.location)),
            applies: draft.apply_allocation_policy,
            weight: draft.weight,
        }
    }

    fn check_all(links: &[Self]) -> Result<(), InvalidResource> {
        if links.len() > Self::COUNT_MAX {
            return Err(InvalidResource::TooManyLinks);
        }
        if links.iter().any(|link| !(1..=Self::WEIGHT_MAX).contains(&link.weight)) {
            return Err(InvalidResource::Weight);
        }
        let is_repeated =
            |(index, link): (usize, &Self)| links.iter().skip(index + 1).any(|other| other.hub == link.hub);
        if links.iter().enumerate().any(is_repeated) { Err(InvalidResource::LinkTwice) } else { Ok(()) }
    }
}

impl ResourceGroup {
    /// Most characters of a name.
    const NAME_CHARS_MAX: usize = 90;

    /// Whether `name` could be a resource group's.
    pub fn check_name(name: &str) -> Result<(), InvalidResource> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-._()".contains(c);
        let fits = (1..=Self::NAME_CHARS_MAX).contains(&name.len());
        if fits && name.chars().all(allowed) && !name.ends_with('.') { Ok(()) } else { Err(InvalidResource::GroupName) }
    }
}

/// A resource group: a name that resources are kept under.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ResourceGroup {
    /// Its name.
    pub name: String,
    /// Where it is said to be.
    pub location: String,
    /// Labels.
    pub tags: Map<String, Value>,
}

/// Whose CA certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CertificateOwner {
    /// A hub's.
    Hub(HubKey),
    /// A provisioning service's.
    Service(ServiceKey),
}

#[cfg(test)]
mod tests;
