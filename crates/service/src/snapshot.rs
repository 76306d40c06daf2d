//! All resources of the deployment, held in memory and replaced as a whole, and which of them an endpoint reaches.
//!
//! The dialled address decides first; what the client says may only narrow it (`rules.md` 21). Nothing here is ever
//! changed in place. Start at [`Snapshot::hub_at`].

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use domain::certificate::Certificate;
use domain::ids::{HubKey, ServiceKey};
use domain::operation::Endpoint;
use domain::resource::{CaCertificate, CertificateOwner, Hub, Naming, ProvisioningService, ResourceGroup};
use store::ports::Resources;

/// Resources at one moment.
#[derive(Debug)]
pub struct Snapshot {
    naming: Naming,
    hubs: HashMap<HubKey, Arc<Hub>>,
    services: HashMap<ServiceKey, Arc<ProvisioningService>>,
    certificates: HashMap<CertificateOwner, Vec<CaCertificate>>,
    groups: Vec<ResourceGroup>,
    common: Option<IpAddr>,
}

impl Snapshot {
    /// Sorts `resources` for look-up.
    pub fn new(naming: Naming, resources: Resources) -> Self {
        let mut certificates: HashMap<CertificateOwner, Vec<CaCertificate>> = HashMap::new();
        for (owner, certificate) in resources.certificates {
            certificates.entry(owner).or_default().push(certificate);
        }
        let first = resources.services.iter().min_by_key(|service| service.key);
        Self {
            common: first.and_then(|service| service.address),
            naming,
            hubs: resources.hubs.into_iter().map(|hub| (hub.key, Arc::new(hub))).collect(),
            services: resources.services.into_iter().map(|service| (service.key, Arc::new(service))).collect(),
            certificates,
            groups: resources.groups,
        }
    }

    /// A hub.
    pub fn hub(&self, key: HubKey) -> Option<&Arc<Hub>> {
        self.hubs.get(&key)
    }

    /// Every hub, by name.
    pub fn hubs(&self) -> Vec<&Arc<Hub>> {
        let mut hubs: Vec<_> = self.hubs.values().collect();
        hubs.sort_by_key(|hub| hub.name.key());
        hubs
    }

    /// Every provisioning service, by name.
    pub fn services(&self) -> Vec<&Arc<ProvisioningService>> {
        let mut services: Vec<_> = self.services.values().collect();
        services.sort_by_key(|service| service.name.key());
        services
    }

    /// A provisioning service.
    pub fn service(&self, key: ServiceKey) -> Option<&Arc<ProvisioningService>> {
        self.services.get(&key)
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
    pub fn authorities(&self, owner: CertificateOwner) -> Vec<Certificate> {
        let all = self.certificates(owner).iter();
        all.filter(|certificate| certificate.verified).map(|certificate| certificate.certificate.clone()).collect()
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
        self.naming.devices(self.common)
    }

    /// Every name a hub answers to, its host name first.
    pub fn hub_aliases(&self, hub: &Hub) -> Vec<String> {
        self.naming.hub_names(hub)
    }

    /// Every name a provisioning service answers to, its own host name first.
    pub fn service_aliases(&self, service: &ProvisioningService) -> Vec<String> {
        self.naming.service_names(service, self.common)
    }

    /// The address that devices dial for any provisioning service, where addresses are handed out.
    pub fn common_address(&self) -> Option<IpAddr> {
        self.common
    }

    /// The hub that a connection to `endpoint` reaches, if what the client says, `said`, is one of its names. An empty
    /// `said` says nothing.
    pub fn hub_at(&self, endpoint: &Endpoint, said: &str) -> Option<&Arc<Hub>> {
        let said = without_port(said);
        let name = endpoint.name.as_deref().map(without_port);
        let answers = |hub: &Hub, to: &str| self.hub_aliases(hub).iter().any(|alias| alias.eq_ignore_ascii_case(to));
        self.hubs.values().find(|hub| {
            let dialled = match &self.naming {
                Naming::Addresses => hub.address == Some(endpoint.address),
                Naming::Domain(_) => name.is_none_or(|name| answers(hub, name)) && !(name.is_none() && said.is_empty()),
            };
            dialled && (said.is_empty() || answers(hub, said))
        })
    }

    /// The provisioning service whose service API is at `endpoint`.
    pub fn service_at(&self, endpoint: &Endpoint) -> Option<&Arc<ProvisioningService>> {
        let name = endpoint.name.as_deref().map(without_port);
        self.services.values().find(|service| match &self.naming {
            Naming::Addresses => service.address == Some(endpoint.address),
            Naming::Domain(_) => name
                .is_some_and(|name| self.service_aliases(service).iter().any(|alias| alias.eq_ignore_ascii_case(name))),
        })
    }

    /// The provisioning service with the ID scope, if a device may ask for it at `endpoint`: the common endpoint serves
    /// all, a service's own serves it alone.
    pub fn scope_at(&self, endpoint: &Endpoint, id_scope: &str) -> Option<&Arc<ProvisioningService>> {
        let service =
            self.services.values().find(|service| service.id_scope.as_str().eq_ignore_ascii_case(id_scope))?;
        let is_common = match &self.naming {
            Naming::Addresses => self.common == Some(endpoint.address),
            Naming::Domain(_) => {
                let common = self.device_host();
                endpoint.name.as_deref().is_none_or(|name| without_port(name).eq_ignore_ascii_case(&common))
            }
        };
        let is_own = self.service_at(endpoint).is_some_and(|own| own.key == service.key);
        (is_common || is_own).then_some(service)
    }
}

/// A host text without a port behind it.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}
