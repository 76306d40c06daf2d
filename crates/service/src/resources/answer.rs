//! The asks of the management API, one by one.

use std::sync::Arc;

use domain::ids::{HubName, Precondition, ServiceName};
use domain::operation::ErrorKind;
use domain::operation::resource::{
    Answer, Ask, HubDraft, LinkDraft, NameRefusal, Place, ResourceName, ServiceDraft, ShownHub, ShownService,
};
use domain::resource::{Hub, LinkedHub, ProvisioningService, ResourceGroup};
use serde_json::{Map, Value};
use store::ports::Changed;

use super::in_group;
use crate::Service;
use crate::error::Error;

impl Service {
    pub(super) async fn answer_resource(&self, ask: Ask) -> Result<Answer, Error> {
        match ask {
            Ask::ListSubscriptions => Ok(self.subscription()),
            Ask::FindSubscription(subscription) => {
                self.check_place(&Place { subscription, group: None })?;
                Ok(self.subscription())
            }
            Ask::PutGroup { place, name, location, tags } => {
                self.put_group(&place, ResourceGroup { name, location, tags }).await
            }
            Ask::FindGroup { place, name } => {
                self.check_place(&place)?;
                Ok(Answer::Group(Box::new(self.find_group(&name)?)))
            }
            Ask::ListGroups(place) => {
                self.check_place(&place)?;
                Ok(Answer::Groups(self.resources().groups().to_vec()))
            }
            Ask::DeleteGroup { place, name } => self.delete_group(&place, &name).await,
            Ask::PutHub { place, name, draft, precondition } => self.put_hub(&place, &name, *draft, precondition).await,
            Ask::PutService { place, name, draft, precondition } => {
                self.put_service(&place, &name, *draft, precondition).await
            }
            Ask::PatchTags { place, name, tags } => self.patch_tags(&place, name, tags).await,
            Ask::Find { place, name } => self.find_resource(&place, &name),
            Ask::ListHubs(place) => {
                self.check_place(&place)?;
                let resources = self.resources();
                let hubs = resources.hubs().iter().filter(|hub| in_group(&place, &hub.group));
                Ok(Answer::Hubs(hubs.map(|hub| self.shown_hub(hub)).collect()))
            }
            Ask::ListServices(place) => {
                self.check_place(&place)?;
                let resources = self.resources();
                let services = resources.services().iter().filter(|service| in_group(&place, &service.group));
                Ok(Answer::Services(services.map(|service| self.shown_service(service)).collect()))
            }
            Ask::Delete { place, name } => {
                self.check_place(&place)?;
                Ok(Answer::Deleted { existed: self.remove(&place, &name).await? })
            }
            Ask::ListPolicies { place, name } => {
                self.check_place(&place)?;
                Ok(Answer::Policies(self.policies_of(&place, &name)?))
            }
            Ask::FindPolicy { place, name, policy } => {
                self.check_place(&place)?;
                let found = self.policies_of(&place, &name)?.into_iter().find(|known| known.name == policy);
                let none = || Error::new(ErrorKind::ResourceNotFound, "The policy was not found.");
                Ok(Answer::Policy(Box::new(found.ok_or_else(none)?)))
            }
            Ask::CheckHubName { place, name } => self.check_hub_name(&place, &name),
            Ask::CheckServiceName { place, name } => self.check_service_name(&place, &name),
            Ask::Certificate { place, owner, request } => {
                self.check_place(&place)?;
                self.answer_certificate(&place, &owner, request).await
            }
            Ask::ConsumerGroup { place, hub, request } => {
                self.check_place(&place)?;
                self.answer_consumer_group(&place, &hub, request).await
            }
        }
    }

    async fn put_group(&self, place: &Place, group: ResourceGroup) -> Result<Answer, Error> {
        self.check_place(place)?;
        ResourceGroup::check_name(&group.name).map_err(|invalid| Error::invalid(invalid.to_string()))?;
        let _changing = self.0.changing.lock().await;
        let group = self.0.store.put_group(group).await?;
        self.reload().await?;
        Ok(Answer::Group(Box::new(group)))
    }

    fn check_hub_name(&self, place: &Place, name: &str) -> Result<Answer, Error> {
        self.check_place(place)?;
        let resources = self.resources();
        Ok(check_name(HubName::parse(name), |name| resources.hubs().iter().any(|hub| hub.name == *name)))
    }

    fn check_service_name(&self, place: &Place, name: &str) -> Result<Answer, Error> {
        self.check_place(place)?;
        let resources = self.resources();
        let taken = |name: &ServiceName| resources.services().iter().any(|service| service.name == *name);
        Ok(check_name(ServiceName::parse(name), taken))
    }

    fn subscription(&self) -> Answer {
        let deployment = self.deployment();
        Answer::Subscription { id: deployment.subscription.clone(), tenant: deployment.tenant.clone() }
    }

    fn find_group(&self, name: &str) -> Result<ResourceGroup, Error> {
        let resources = self.resources();
        let found = resources.groups().iter().find(|group| group.name.eq_ignore_ascii_case(name)).cloned();
        found.ok_or_else(|| Error::new(ErrorKind::ResourceNotFound, "The resource group was not found."))
    }

    async fn delete_group(&self, place: &Place, name: &str) -> Result<Answer, Error> {
        self.check_place(place)?;
        self.find_group(name)?;
        let inside = Place { group: Some(name.to_owned()), ..place.clone() };
        let resources = self.resources();
        for service in resources.services() {
            if in_group(&inside, &service.group) {
                self.remove(&inside, &ResourceName::Service(service.name.clone())).await?;
            }
        }
        for hub in resources.hubs() {
            if in_group(&inside, &hub.group) {
                self.remove(&inside, &ResourceName::Hub(hub.name.clone())).await?;
            }
        }
        let _changing = self.0.changing.lock().await;
        let existed = matches!(self.0.store.delete_group(name).await?, Changed::Done(_));
        self.reload().await?;
        Ok(Answer::Deleted { existed })
    }

    async fn put_hub(
        &self,
        place: &Place,
        name: &HubName,
        draft: HubDraft,
        precondition: Precondition,
    ) -> Result<Answer, Error> {
        self.check_place(place)?;
        let changing = self.0.changing.lock().await;
        let group = self.group_of(place)?;
        let present = self.find_hub(place, name).ok();
        let created = present.is_none();
        let hub = if let Some(present) = &present {
            let mut hub = Hub::clone(present);
            hub.apply(draft, self.entropy()).map_err(|invalid| Error::invalid(invalid.to_string()))?;
            changed(self.0.store.replace_hub(hub, precondition, self.now()).await?)?
        } else {
            may_create(precondition)?;
            let blank = self.blank_hub();
            let draft = HubDraft {
                partition_count: draft.partition_count.or(blank.partition_count),
                retention_days: draft.retention_days.or(blank.retention_days),
                ..draft
            };
            self.create_hub(name, &group, draft).await?
        };
        let settled = self.settle_endpoints(&hub).await;
        self.reload().await?;
        drop(changing);
        settled?;
        if present.is_some_and(|present| present.policies != hub.policies) {
            self.judge_hub(hub.key).await?;
        }
        Ok(Answer::Hub { hub: Box::new(self.shown_hub(&Arc::new(hub))), created })
    }

    async fn put_service(
        &self,
        place: &Place,
        name: &ServiceName,
        mut draft: ServiceDraft,
        precondition: Precondition,
    ) -> Result<Answer, Error> {
        self.check_place(place)?;
        let _changing = self.0.changing.lock().await;
        let group = self.group_of(place)?;
        let present = self.find_service(place, name).ok();
        let links = draft.links.take().map(|links| self.settle_links(links, present.as_deref())).transpose()?;
        let (service, created) = if let Some(present) = present {
            let mut service = ProvisioningService::clone(&present);
            service.apply(draft, links, self.entropy()).map_err(|invalid| Error::invalid(invalid.to_string()))?;
            (changed(self.0.store.replace_service(service, precondition, self.now()).await?)?, false)
        } else {
            may_create(precondition)?;
            (self.create_service(name, &group, (draft, links)).await?, true)
        };
        self.reload().await?;
        Ok(Answer::Service { service: Box::new(self.shown_service(&Arc::new(service))), created })
    }

    /// Finds the hub of each link. A key that is given must be one of the hub's policy, with the rights that a link needs.
    fn settle_links(
        &self,
        drafts: Vec<LinkDraft>,
        present: Option<&ProvisioningService>,
    ) -> Result<Vec<LinkedHub>, Error> {
        let most = self.0.settings.quotas.linked_hubs;
        if drafts.len() > most.max(present.map_or(0, |service| service.links.len())) {
            return Err(Error::new(ErrorKind::QuotaExceeded, format!("At most {most} hubs can be linked.")));
        }
        let resources = self.resources();
        let settle = |draft: LinkDraft| {
            let answers = |hub: &&Arc<Hub>| {
                resources.hub_aliases(hub).iter().any(|alias| alias.eq_ignore_ascii_case(&draft.host_name))
            };
            let Some(hub) = resources.hubs().iter().find(answers) else {
                let text =
                    format!("{} is no hub of this deployment; hubs elsewhere cannot be linked.", draft.host_name);
                return Err(Error::invalid(text));
            };
            let kept = present.and_then(|service| service.links.iter().find(|link| link.hub == hub.key));
            match &draft.credential {
                None if kept.is_none() => Err(Error::invalid("A link needs the connection string of its hub.")),
                Some(credential) => {
                    let mut policies = hub.policies.iter();
                    let known = policies
                        .any(|policy| policy.name == credential.policy && policy.has_key(&credential.key.digest()));
                    if known { Ok(()) } else { Err(Error::invalid("The hub does not know the link's policy and key.")) }
                }
                None => Ok(()),
            }?;
            Ok(LinkedHub::settle(draft, hub.key, kept))
        };
        drafts.into_iter().map(settle).collect()
    }

    /// The group that a resource is made in: the one named, which must exist.
    fn group_of(&self, place: &Place) -> Result<String, Error> {
        let Some(name) = &place.group else {
            return Err(Error::invalid("A resource is made in a resource group."));
        };
        Ok(self.find_group(name)?.name)
    }

    async fn patch_tags(&self, place: &Place, name: ResourceName, tags: Map<String, Value>) -> Result<Answer, Error> {
        self.check_place(place)?;
        let _changing = self.0.changing.lock().await;
        let (store, now) = (&self.0.store, self.now());
        match &name {
            ResourceName::Hub(hub) => {
                let hub = Hub { tags, ..Hub::clone(&*self.find_hub(place, hub)?) };
                changed(store.replace_hub(hub, Precondition::Exists, now).await?)?;
            }
            ResourceName::Service(service) => {
                let service =
                    ProvisioningService { tags, ..ProvisioningService::clone(&*self.find_service(place, service)?) };
                changed(store.replace_service(service, Precondition::Exists, now).await?)?;
            }
        }
        self.reload().await?;
        self.find_resource(place, &name)
    }

    fn find_resource(&self, place: &Place, name: &ResourceName) -> Result<Answer, Error> {
        self.check_place(place)?;
        Ok(match name {
            ResourceName::Hub(name) => {
                Answer::Hub { hub: Box::new(self.shown_hub(&self.find_hub(place, name)?)), created: false }
            }
            ResourceName::Service(name) => {
                let service = self.find_service(place, name)?;
                Answer::Service { service: Box::new(self.shown_service(&service)), created: false }
            }
        })
    }

    fn policies_of(&self, place: &Place, name: &ResourceName) -> Result<Vec<domain::resource::Policy>, Error> {
        Ok(match name {
            ResourceName::Hub(name) => self.find_hub(place, name)?.policies.clone(),
            ResourceName::Service(name) => self.find_service(place, name)?.policies.clone(),
        })
    }

    fn shown_hub(&self, hub: &Arc<Hub>) -> ShownHub {
        ShownHub {
            hub: Hub::clone(hub),
            host_name: self.resources().hub_host(hub),
            subscription: self.deployment().subscription.clone(),
        }
    }

    fn shown_service(&self, service: &Arc<ProvisioningService>) -> ShownService {
        let resources = self.resources();
        let host = |link: &LinkedHub| resources.hub(link.hub).map(|hub| resources.hub_host(hub)).unwrap_or_default();
        ShownService {
            operations_host_name: resources.service_host(service),
            device_host_name: resources.device_host(),
            link_host_names: service.links.iter().map(host).collect(),
            subscription: self.deployment().subscription.clone(),
            service: ProvisioningService::clone(service),
        }
    }
}

fn changed<T>(changed: Changed<T>) -> Result<T, Error> {
    match changed {
        Changed::Done(value) => Ok(value),
        Changed::NotFound => Err(Error::new(ErrorKind::ResourceNotFound, "The resource was not found.")),
        Changed::PreconditionFailed { .. } => Err(Error::precondition_failed()),
    }
}

/// A version can be demanded only of a resource that is there.
fn may_create(precondition: Precondition) -> Result<(), Error> {
    if precondition == Precondition::None { Ok(()) } else { Err(Error::precondition_failed()) }
}

fn check_name<N>(parsed: Result<N, domain::ids::InvalidName>, is_taken: impl Fn(&N) -> bool) -> Answer {
    let reason = match parsed {
        Err(invalid) => Some(NameRefusal::Invalid(format!("The name cannot be given: {invalid}."))),
        Ok(name) if is_taken(&name) => Some(NameRefusal::Taken),
        Ok(_) => None,
    };
    Answer::NameCheck { available: reason.is_none(), reason }
}
