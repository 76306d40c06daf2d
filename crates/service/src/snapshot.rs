//! All resources of the deployment, held in memory and replaced as a whole, and which of them an endpoint reaches.
//!
//! The dialled address decides first; what the client says may only narrow it (`rules.md` 21). Nothing here is ever
//! changed in place. Start at [`Snapshot::hub_at`].

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use domain::certificate::Certificate;
use domain::host::HostName;
use domain::ids::{HubKey, ServiceKey};
use domain::operation::Endpoint;
use domain::resource::{CaCertificate, CertificateOwner, Hub, Naming, ProvisioningService, ResourceGroup};
use store::ports::Resources;

/// Resources at one moment. What is looked up for each connection or request is worked out once, when it is made.
#[derive(Debug)]
pub struct Snapshot {
    naming: Naming,
    hubs: Index<HubKey, Hub>,
    services: Index<ServiceKey, ProvisioningService>,
    scopes: HashMap<String, ServiceKey>,
    certificates: HashMap<CertificateOwner, Vec<CaCertificate>>,
    authorities: HashMap<CertificateOwner, Vec<Certificate>>,
    groups: Vec<ResourceGroup>,
    common: Option<IpAddr>,
    device_host: String,
}

/// Resources of one kind, by what they are looked for.
#[derive(Debug)]
struct Index<K, R> {
    /// By name.
    sorted: Vec<Arc<R>>,
    by_key: HashMap<K, Named<R>>,
    by_address: HashMap<IpAddr, K>,
    /// Aliases in lower case; `None` for one that several answer to, which is nobody's own.
    by_alias: HashMap<String, Option<K>>,
}

#[derive(Debug)]
struct Named<R> {
    resource: Arc<R>,
    /// Every name it answers to, its host name first.
    aliases: Vec<String>,
}

impl<K: Copy + Eq + Hash, R> Index<K, R> {
    /// Sorts `resources`, which come with key, address and aliases, in the order of their names.
    fn new(resources: impl Iterator<Item = (K, Option<IpAddr>, Vec<String>, R)>) -> Self {
        let (mut sorted, mut by_key) = (Vec::new(), HashMap::new());
        let (mut by_address, mut by_alias) = (HashMap::new(), HashMap::new());
        for (key, address, aliases, resource) in resources {
            let resource = Arc::new(resource);
            sorted.push(Arc::clone(&resource));
            by_address.extend(address.map(|address| (address, key)));
            for alias in &aliases {
                let owner = by_alias.entry(alias.to_ascii_lowercase()).or_insert(Some(key));
                *owner = owner.filter(|owner| *owner == key);
            }
            by_key.insert(key, Named { resource, aliases });
        }
        Self { sorted, by_key, by_address, by_alias }
    }

    fn find(&self, key: K) -> Option<&Arc<R>> {
        self.by_key.get(&key).map(|named| &named.resource)
    }

    fn aliases(&self, key: K) -> &[String] {
        self.by_key.get(&key).map_or(&[], |named| &named.aliases)
    }

    fn key_at(&self, address: IpAddr) -> Option<K> {
        self.by_address.get(&address).copied()
    }

    fn key_of(&self, alias: &HostName) -> Option<K> {
        self.by_alias.get(alias.as_str()).copied().flatten()
    }

    fn answers(&self, key: K, to: &HostName) -> bool {
        self.aliases(key).iter().any(|alias| alias.eq_ignore_ascii_case(to.as_str()))
    }
}

impl Snapshot {
    /// Sorts `resources` for look-up.
    pub fn new(naming: Naming, resources: Resources) -> Self {
        let Resources { mut hubs, mut services, certificates: all, groups } = resources;
        let mut certificates: HashMap<CertificateOwner, Vec<CaCertificate>> = HashMap::new();
        for (owner, certificate) in all {
            certificates.entry(owner).or_default().push(certificate);
        }
        let verified = |all: &Vec<CaCertificate>| {
            all.iter().filter(|one| one.verified).map(|one| one.certificate.clone()).collect()
        };
        let common = services.iter().min_by_key(|service| service.key).and_then(|service| service.address);
        hubs.sort_by_key(|hub| hub.name.key());
        services.sort_by_key(|service| service.name.key());
        let named_hub = |hub: Hub| (hub.key, hub.address, naming.hub_names(&hub), hub);
        let named_service = |service: ProvisioningService| {
            (service.key, service.address, naming.service_names(&service, common), service)
        };
        let scope = |service: &ProvisioningService| (service.id_scope.as_str().to_ascii_lowercase(), service.key);
        Self {
            scopes: services.iter().map(scope).collect(),
            hubs: Index::new(hubs.into_iter().map(named_hub)),
            services: Index::new(services.into_iter().map(named_service)),
            authorities: certificates.iter().map(|(owner, all)| (*owner, verified(all))).collect(),
            certificates,
            groups,
            common,
            device_host: naming.devices(common),
            naming,
        }
    }

    /// A hub.
    pub fn hub(&self, key: HubKey) -> Option<&Arc<Hub>> {
        self.hubs.find(key)
    }

    /// Every hub, by name.
    pub fn hubs(&self) -> &[Arc<Hub>] {
        &self.hubs.sorted
    }

    /// Every provisioning service, by name.
    pub fn services(&self) -> &[Arc<ProvisioningService>] {
        &self.services.sorted
    }

    /// A provisioning service.
    pub fn service(&self, key: ServiceKey) -> Option<&Arc<ProvisioningService>> {
        self.services.find(key)
    }

    /// Every resource group.
    pub fn groups(&self) -> &[ResourceGroup] {
        &self.groups
    }

    /// The CA certificates of a resource.
    pub fn certificates(&self, owner: CertificateOwner) -> &[CaCertificate] {
        self.certificates.get(&owner).map_or(&[], Vec::as_slice)
    }

    /// The verified CA certificates of a resource.
    pub fn authorities(&self, owner: CertificateOwner) -> &[Certificate] {
        self.authorities.get(&owner).map_or(&[], Vec::as_slice)
    }

    /// The host name of a hub.
    pub fn hub_host(&self, hub: &Hub) -> String {
        self.naming.hub(hub)
    }

    /// The host name that operators' programs dial for a provisioning service.
    pub fn service_host(&self, service: &ProvisioningService) -> String {
        self.naming.service(service)
    }

    /// The host name that devices dial.
    pub fn device_host(&self) -> String {
        self.device_host.clone()
    }

    /// Every name a hub answers to, its host name first.
    pub fn hub_aliases(&self, hub: &Hub) -> &[String] {
        self.hubs.aliases(hub.key)
    }

    /// Every name a provisioning service answers to, its own host name first.
    pub fn service_aliases(&self, service: &ProvisioningService) -> &[String] {
        self.services.aliases(service.key)
    }

    /// The hub that a connection to `endpoint` reaches, if everything that its client says is one of its names: what it
    /// says besides, `said`, too. An empty `said` says nothing.
    pub fn hub_at(&self, endpoint: &Endpoint, said: &str) -> Option<&Arc<Hub>> {
        let said = match said {
            "" => None,
            said => Some(HostName::parse(said).ok()?),
        };
        let key = match &self.naming {
            Naming::Addresses => self.hubs.key_at(endpoint.address),
            Naming::Domain(_) => self.hubs.key_of(self.names_said(endpoint).next().or(said.as_ref())?),
        }?;
        let is_meant = self.names_said(endpoint).chain(&said).all(|name| self.hubs.answers(key, name));
        self.hubs.find(key).filter(|_| is_meant)
    }

    /// The provisioning service whose service API is at `endpoint`, if everything that the client says is one of its
    /// names.
    pub fn service_at(&self, endpoint: &Endpoint) -> Option<&Arc<ProvisioningService>> {
        let key = match &self.naming {
            Naming::Addresses => self.services.key_at(endpoint.address),
            Naming::Domain(_) => self.services.key_of(self.names_said(endpoint).next()?),
        }?;
        let is_meant = self.names_said(endpoint).all(|name| self.services.answers(key, name));
        self.services.find(key).filter(|_| is_meant)
    }

    /// The provisioning service with the ID scope, if a device may ask for it at `endpoint`: the common endpoint serves
    /// all, a service's own serves it alone.
    pub fn scope_at(&self, endpoint: &Endpoint, id_scope: &str) -> Option<&Arc<ProvisioningService>> {
        let key = *self.scopes.get(&id_scope.to_ascii_lowercase())?;
        let is_served = match &self.naming {
            Naming::Addresses => {
                self.common == Some(endpoint.address) || self.services.key_at(endpoint.address) == Some(key)
            }
            // Every address is everybody's; the names tell whose is meant.
            Naming::Domain(_) => true,
        };
        let is_meant = self.names_said(endpoint).all(|name| self.services.answers(key, name));
        self.services.find(key).filter(|_| is_served && is_meant)
    }

    /// What a client says of whom it dialled, beyond the address itself; what decides comes first.
    fn names_said<'e>(&self, endpoint: &'e Endpoint) -> impl Iterator<Item = &'e HostName> {
        // Under a domain a literal may be the name of a resource that was made before there was one.
        let may_name = matches!(self.naming, Naming::Domain(_));
        let says_more = move |name: &HostName| !name.repeats(endpoint.address) || (may_name && self.is_known(name));
        let host = endpoint.host.iter().filter(move |name| says_more(name));
        host.chain(endpoint.server_name.iter().filter(move |name| says_more(name) && self.is_known(name)))
    }

    /// Whether anybody answers to `name`.
    fn is_known(&self, name: &HostName) -> bool {
        let name = name.as_str();
        self.hubs.by_alias.contains_key(name) || self.services.by_alias.contains_key(name) || name == self.device_host
    }
}
