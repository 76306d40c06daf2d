//! Hubs, provisioning services, links, policies and CA certificates: made, changed and removed at run time.
//!
//! Changes happen one after another; each is durable before the snapshot that everybody reads is replaced. Start at
//! [`Service::perform_resource`].

mod answer;
mod certificates;
mod consumer_groups;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use domain::clock::{Entropy, UnixTime, random};
use domain::ids::{HubName, Precondition, ServiceName, TrackingId};
use domain::operation::resource::{Answer, Ask, HubDraft, Place, ResourceName, ServiceDraft};
use domain::operation::session::CutOff;
use domain::operation::{Caller, ErrorKind};
use domain::resource::{AddressPool, Hub, LinkedHub, Naming, ProvisioningService, ResourceGroup};
use serde_json::Map;
use store::ports::{Changed, DefaultsStage, Deployment, Placed, Resources, Sealed};

use crate::error::Error;
use crate::{Service, Snapshot};

/// The resources of a first start.
#[derive(Clone, Debug)]
pub struct Defaults {
    /// Name of the provisioning service.
    pub service: ServiceName,
    /// Name of the hub linked to it.
    pub hub: HubName,
    /// Resource group of both.
    pub group: String,
    /// Where they are said to be.
    pub location: String,
}

/// A resource that clients can dial.
#[derive(Clone, Debug)]
pub enum EndpointOf {
    /// A hub.
    Hub(Arc<Hub>),
    /// A provisioning service.
    Service(Arc<ProvisioningService>),
}

/// An address or a name that is served, and every name its certificate must carry.
#[derive(Clone, Debug)]
pub struct Published {
    /// The address, where addresses are handed out.
    pub address: Option<IpAddr>,
    /// Host name first.
    pub names: Vec<String>,
    /// What is reached there.
    pub of: EndpointOf,
}

/// A deployment that was never started.
pub(crate) fn first_deployment(entropy: &dyn Entropy, now: UnixTime) -> Deployment {
    let guid = || TrackingId::generate(entropy).to_string();
    Deployment {
        subscription: guid(),
        tenant: guid(),
        client: guid(),
        client_secret: Sealed(URL_SAFE_NO_PAD.encode(random::<24>(entropy)).into_bytes()),
        token_key: Sealed(random::<32>(entropy).to_vec()),
        created_at: now,
    }
}

impl Service {
    /// Performs `ask` for an operator of the management API. A change goes on when the operator hangs up: once it is
    /// durable, everybody must read it.
    pub(crate) async fn perform_resource(&self, caller: &Caller, ask: Ask) -> Result<Answer, Error> {
        self.authorize_operator(caller)?;
        if !ask.is_change() {
            return self.answer_resource(ask).await;
        }
        let service = self.clone();
        self.carry_through("resource-change", async move { service.answer_resource(ask).await }).await
    }

    /// Judges the bearer token of the management API.
    pub(crate) fn authorize_operator(&self, caller: &Caller) -> Result<(), Error> {
        let bearer = caller.evidence.bearer.as_ref();
        let good = caller.endpoint.admin && bearer.is_some_and(|bearer| self.is_good_token(bearer.expose()));
        if good { Ok(()) } else { Err(Error::unauthorized()) }
    }

    /// Everything that clients can dial.
    pub fn published(&self) -> Vec<Published> {
        let resources = self.resources();
        let hubs = resources.hubs().iter().map(|hub| Published {
            address: hub.address,
            names: resources.hub_aliases(hub).to_vec(),
            of: EndpointOf::Hub(Arc::clone(hub)),
        });
        let services = resources.services().iter().map(|service| Published {
            address: service.address,
            names: resources.service_aliases(service).to_vec(),
            of: EndpointOf::Service(Arc::clone(service)),
        });
        hubs.chain(services).collect()
    }

    /// Makes the resources of a first start. One that was interrupted is gone on with: what it made is kept, and what is
    /// missing is made.
    pub(crate) async fn make_defaults(&self, defaults: &Defaults) -> Result<(), Error> {
        let _changing = self.0.changing.lock().await;
        let (store, resources) = (&self.0.store, self.resources());
        let is_empty = resources.hubs().is_empty() && resources.services().is_empty();
        match store.defaults_stage().await? {
            DefaultsStage::Finished => return Ok(()),
            DefaultsStage::Untouched if !is_empty => return Ok(()),
            DefaultsStage::Untouched => store.set_defaults_stage(DefaultsStage::Begun).await?,
            DefaultsStage::Begun => {}
        }
        let group =
            ResourceGroup { name: defaults.group.clone(), location: defaults.location.clone(), tags: Map::new() };
        store.put_group(group).await?;
        // The service comes first: the first address is its own.
        let present = resources.services().iter().find(|service| service.name == defaults.service);
        let service = if let Some(present) = present {
            ProvisioningService::clone(present)
        } else {
            let draft = ServiceDraft { location: Some(defaults.location.clone()), ..ServiceDraft::default() };
            self.create_service(&defaults.service, &defaults.group, (draft, None)).await?
        };
        let hub = if let Some(present) = resources.hubs().iter().find(|hub| hub.name == defaults.hub) {
            Hub::clone(present)
        } else {
            let draft = HubDraft { location: Some(defaults.location.clone()), ..self.blank_hub() };
            self.create_hub(&defaults.hub, &defaults.group, draft).await?
        };
        if service.links.is_empty() {
            self.link_default(service, &hub, &defaults.location).await?;
        }
        store.set_defaults_stage(DefaultsStage::Finished).await?;
        self.show(store.load_resources().await?);
        Ok(())
    }

    async fn link_default(&self, service: ProvisioningService, hub: &Hub, location: &str) -> Result<(), Error> {
        let link = LinkedHub {
            hub: hub.key,
            policy: "iothubowner".to_owned(),
            location: location.to_owned(),
            applies: true,
            weight: 1,
        };
        let linked = ProvisioningService { links: vec![link], ..service };
        self.0.store.replace_service(linked, Precondition::Exists, self.now()).await?;
        Ok(())
    }

    fn blank_hub(&self) -> HubDraft {
        HubDraft {
            partition_count: Some(self.0.settings.partitions),
            retention_days: Some(self.0.settings.retention_days),
            ..HubDraft::default()
        }
    }

    async fn create_hub(&self, name: &HubName, group: &str, draft: HubDraft) -> Result<Hub, Error> {
        let hub = Hub::create(name.clone(), group.to_owned(), draft, self.now(), self.entropy())
            .map_err(|invalid| Error::invalid(invalid.to_string()))?;
        match self.0.store.create_hub(hub, self.address_pool(), self.now()).await? {
            Placed::Done(hub) => Ok(hub),
            Placed::AlreadyExists => Err(Error::new(ErrorKind::ResourceExists, "A hub has this name.")),
            Placed::NoAddressLeft => Err(no_address_left()),
        }
    }

    async fn create_service(
        &self,
        name: &ServiceName,
        group: &str,
        draft: (ServiceDraft, Option<Vec<LinkedHub>>),
    ) -> Result<ProvisioningService, Error> {
        let service = ProvisioningService::create(name.clone(), group.to_owned(), draft, self.now(), self.entropy())
            .map_err(|invalid| Error::invalid(invalid.to_string()))?;
        match self.0.store.create_service(service, self.address_pool(), self.now()).await? {
            Placed::Done(service) => Ok(service),
            Placed::AlreadyExists => {
                Err(Error::new(ErrorKind::ResourceExists, "A provisioning service has this name."))
            }
            Placed::NoAddressLeft => Err(no_address_left()),
        }
    }

    /// Where addresses of fresh resources come from, unless they are known by name.
    fn address_pool(&self) -> Option<AddressPool> {
        match self.0.naming {
            Naming::Addresses => Some(self.0.settings.addresses.clone()),
            Naming::Domain(_) => None,
        }
    }

    /// Replaces the snapshot after a change: since that is durable, the store is asked until everybody can read it.
    pub(crate) async fn reload(&self) -> Result<(), Error> {
        self.show(self.insist(|| self.0.store.load_resources()).await?);
        Ok(())
    }

    /// Replaces the snapshot.
    fn show(&self, resources: Resources) {
        let snapshot = Arc::new(Snapshot::new(self.0.naming.clone(), resources));
        self.0.resources.store(Arc::clone(&snapshot));
        self.0.key_groups.retain(|service| snapshot.service(service).is_some());
        self.apply_retention();
        if let Some(publisher) = self.0.publisher.get() {
            publisher(self);
        }
        self.0.published.send_modify(|version| *version += 1);
    }

    /// Has `publisher` make reachable what is published, at once and in every later change before it is answered
    /// (`rules.md` 21). The first one stays.
    pub fn publish_by(&self, publisher: impl Fn(&Self) + Send + Sync + 'static) {
        self.0.publisher.get_or_init(|| Box::new(publisher))(self);
    }

    /// Counts up whenever [`Service::published`] may have changed.
    pub fn published_changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.0.published.subscribe()
    }

    pub(crate) fn apply_retention(&self) {
        for hub in self.resources().hubs() {
            let keep = Duration::from_secs(u64::from(hub.retention_days) * 86_400);
            self.0.telemetry.set_retention(hub.key, keep);
        }
    }

    pub(crate) fn check_place(&self, place: &Place) -> Result<(), Error> {
        if place.subscription.eq_ignore_ascii_case(&self.0.deployment.subscription) {
            Ok(())
        } else {
            Err(Error::new(ErrorKind::ResourceNotFound, "The subscription was not found."))
        }
    }

    /// The hub of that name, in the group if one is named.
    pub(crate) fn find_hub(&self, place: &Place, name: &HubName) -> Result<Arc<Hub>, Error> {
        let resources = self.resources();
        let found = resources.hubs().iter().find(|hub| hub.name == *name && in_group(place, &hub.group));
        found.cloned().ok_or_else(|| Error::new(ErrorKind::ResourceNotFound, "The hub was not found."))
    }

    /// The provisioning service of that name, in the group if one is named.
    pub(crate) fn find_service(&self, place: &Place, name: &ServiceName) -> Result<Arc<ProvisioningService>, Error> {
        let resources = self.resources();
        let mut services = resources.services().iter();
        let found = services.find(|service| service.name == *name && in_group(place, &service.group));
        found.cloned().ok_or_else(|| Error::new(ErrorKind::ResourceNotFound, "The provisioning service was not found."))
    }

    /// Removes a hub or a provisioning service with all it holds; its connections end.
    pub(crate) async fn remove(&self, place: &Place, name: &ResourceName) -> Result<bool, Error> {
        let changing = self.0.changing.lock().await;
        let existed = match name {
            ResourceName::Hub(name) => {
                let hub = self.find_hub(place, name)?;
                let existed = matches!(self.0.store.delete_hub(hub.key).await?, Changed::Done(_));
                let reloaded = self.reload().await;
                drop(changing);
                self.0.directory.cut_where(|at, _, _| (at == hub.key).then_some(CutOff::HubDeleted));
                self.0.backends.forget_hub(hub.key);
                self.0.readers.forget_hub(hub.key);
                self.0.telemetry.forget_hub(hub.key);
                reloaded?;
                existed
            }
            ResourceName::Service(name) => {
                let service = self.find_service(place, name)?;
                let existed = matches!(self.0.store.delete_service(service.key).await?, Changed::Done(_));
                self.reload().await?;
                existed
            }
        };
        Ok(existed)
    }
}

fn no_address_left() -> Error {
    Error::invalid(
        "No address is left for another resource: start the server with more of them (--address), or with --domain.",
    )
}

pub(crate) fn in_group(place: &Place, group: &str) -> bool {
    place.group.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(group))
}
