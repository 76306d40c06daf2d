//! Enrollments and registration records, as operators manage them.

use domain::access::Action;
use domain::enrollment::{Enrollment, EntryKind, EntryName, InvalidEnrollment, merge};
use domain::ids::{Precondition, ServiceKey};
use domain::operation::enrollment::{Answer, Ask, BulkItem, EnrollmentDraft};
use domain::operation::registration::RegistrationState;
use domain::operation::{Caller, ErrorKind, Page};
use domain::resource::ProvisioningService;
use futures_util::future::join_all;
use store::ports::{Changed, Created};

use crate::Service;
use crate::access::{authorize, unreached};
use crate::error::Error;

/// What is answered where no provisioning service is reached, or where it has just been removed.
const NO_SERVICE: &str = "No provisioning service answers at this host.";

impl Service {
    /// Performs `ask` at the provisioning service that the caller dialled.
    pub(crate) async fn perform_enrollment(&self, caller: &Caller, ask: Ask) -> Result<Answer, Error> {
        let resources = self.resources();
        let service = resources
            .service_at(&caller.endpoint)
            .ok_or_else(|| unreached(caller, ErrorKind::ScopeNotFound, NO_SERVICE))?;
        let (action, path) = action_and_path(&ask);
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let hosts = resources.service_aliases(service);
        authorize(caller, (hosts, &path), &service.policies, action, self.now())?;
        self.answer_enrollment(service, ask).await
    }

    async fn answer_enrollment(&self, service: &ProvisioningService, ask: Ask) -> Result<Answer, Error> {
        let store = &self.0.store;
        let key = service.key;
        match ask {
            Ask::Put { draft, precondition } => {
                let entry = self.put_enrollment(service, *draft, precondition).await?;
                Ok(Answer::Entry(Box::new(entry)))
            }
            Ask::Find(name) => self.find_enrollment(service, &name).await,
            Ask::FindAttestation(name) => {
                let entry = store.find_enrollment(key, &name).await?.ok_or_else(|| not_found(&name))?;
                Ok(Answer::Attestation(Box::new(entry.attestation)))
            }
            Ask::Delete { name, precondition } => {
                self.delete_enrollment(key, &name, precondition).await?;
                Ok(Answer::Deleted)
            }
            Ask::List { kind, page } => {
                let mut page = store.list_enrollments(key, kind, page).await?;
                page.items.iter_mut().for_each(|entry| show_effective(entry, service));
                Ok(Answer::Entries(page))
            }
            Ask::Bulk(items) => Ok(Answer::Bulk(self.put_in_bulk(service, items).await)),
            Ask::FindRegistration(id) => {
                let state = store.find_registration(key, &id).await?.ok_or_else(no_record)?;
                Ok(Answer::Registration(Box::new(self.with_host(state))))
            }
            Ask::DeleteRegistration { registration_id, precondition } => {
                match store.delete_registration(key, &registration_id, precondition).await? {
                    Changed::Done(_) => Ok(Answer::Deleted),
                    Changed::NotFound => Err(no_record()),
                    Changed::PreconditionFailed { .. } => Err(Error::precondition_failed()),
                }
            }
            Ask::ListRegistrations { group, page } => {
                let page = store.list_registrations(key, &group, page).await?;
                let items = page.items.into_iter().map(|state| self.with_host(state)).collect();
                Ok(Answer::Registrations(Page { items, next: page.next }))
            }
        }
    }

    async fn find_enrollment(&self, service: &ProvisioningService, name: &EntryName) -> Result<Answer, Error> {
        let store = &self.0.store;
        let mut entry = store.find_enrollment(service.key, name).await?.ok_or_else(|| not_found(name))?;
        show_effective(&mut entry, service);
        match name {
            EntryName::Group(_) => Ok(Answer::Entry(Box::new(entry))),
            EntryName::Individual(id) => {
                let state = store.find_registration(service.key, id).await?;
                let state =
                    state.map_or_else(|| RegistrationState::unassigned(id.clone()), |state| self.with_host(state));
                Ok(Answer::EntryAndState(Box::new(entry), Box::new(state)))
            }
        }
    }

    /// Creates or replaces. What the draft leaves out is taken from the entry as it stood at a version, and that version
    /// is demanded when writing; a race is tried again.
    async fn put_enrollment(
        &self,
        service: &ProvisioningService,
        draft: EnrollmentDraft,
        precondition: Precondition,
    ) -> Result<Enrollment, Error> {
        let (store, key) = (&self.0.store, service.key);
        let resources = self.resources();
        let linked: Vec<String> = service
            .links
            .iter()
            .filter_map(|link| resources.hub(link.hub))
            .flat_map(|hub| resources.hub_aliases(hub))
            .cloned()
            .collect();
        domain::enrollment::check_hubs(&draft.terms, &linked).map_err(|invalid| refused(&invalid))?;
        loop {
            let present = store.find_enrollment(key, &draft.name).await?;
            let merged = merge(draft.clone(), present.as_ref(), self.entropy()).map_err(|invalid| refused(&invalid))?;
            let mut written = match (present, precondition) {
                (None, Precondition::None) => match store.create_enrollment(key, merged, self.now()).await? {
                    Created::Done(entry) => entry,
                    Created::AlreadyExists => return Err(exists(&draft.name)),
                    Created::Full => return Err(full(&draft.name)),
                    Created::NoOwner => return Err(Error::new(ErrorKind::ResourceNotFound, NO_SERVICE)),
                },
                (Some(_), Precondition::None) => return Err(exists(&draft.name)),
                (None, _) => return Err(not_found(&draft.name)),
                (Some(present), _) if !precondition.holds(present.etag) => return Err(Error::precondition_failed()),
                (Some(present), _) => {
                    let at = Precondition::Matches(present.etag);
                    match store.replace_enrollment(key, merged, at, self.now()).await? {
                        Changed::Done(entry) => entry,
                        Changed::NotFound => return Err(not_found(&draft.name)),
                        Changed::PreconditionFailed { .. } => continue,
                    }
                }
            };
            show_effective(&mut written, service);
            return Ok(written);
        }
    }

    async fn delete_enrollment(
        &self,
        service: ServiceKey,
        name: &EntryName,
        precondition: Precondition,
    ) -> Result<(), Error> {
        match self.0.store.delete_enrollment(service, name, precondition).await? {
            Changed::Done(_) => Ok(()),
            Changed::NotFound => Err(not_found(name)),
            Changed::PreconditionFailed { .. } => Err(Error::precondition_failed()),
        }
    }

    /// Changes all of `items`, which name distinct entries, side by side, so that they share commits; what could not be
    /// changed.
    async fn put_in_bulk(
        &self,
        service: &ProvisioningService,
        items: Vec<BulkItem>,
    ) -> Vec<(EntryName, domain::operation::Failure)> {
        let changes = items.into_iter().map(async |item| {
            let (name, outcome) = match item {
                BulkItem::Put { draft, precondition } => {
                    (draft.name.clone(), self.put_enrollment(service, *draft, precondition).await.map(drop))
                }
                BulkItem::Delete { name, precondition } => {
                    let outcome = self.delete_enrollment(service.key, &name, precondition).await;
                    (name, outcome)
                }
            };
            outcome.err().map(|error| (name, self.fail(error)))
        });
        join_all(changes).await.into_iter().flatten().collect()
    }
}

/// Shows the allocation policy that applies, since one client cannot read an entry without.
fn show_effective(entry: &mut Enrollment, service: &ProvisioningService) {
    entry.terms.allocation.get_or_insert(service.allocation);
}

fn action_and_path(ask: &Ask) -> (Action, Vec<String>) {
    let entry = |name: &EntryName| vec![collection(name.kind()).to_owned(), name.as_str().to_owned()];
    match ask {
        Ask::Put { draft, .. } => (Action::WriteEnrollments, entry(&draft.name)),
        Ask::Find(name) => (Action::ReadEnrollments, entry(name)),
        Ask::FindAttestation(name) => (Action::ReadAttestation, entry(name)),
        Ask::Delete { name, .. } => (Action::WriteEnrollments, entry(name)),
        Ask::List { kind, .. } => (Action::ReadEnrollments, vec![collection(*kind).to_owned()]),
        Ask::Bulk(_) => (Action::WriteEnrollments, Vec::new()),
        Ask::FindRegistration(id) => (Action::ReadRegistrations, vec!["registrations".to_owned(), id.to_string()]),
        Ask::DeleteRegistration { registration_id, .. } => {
            (Action::DeleteRegistrations, vec!["registrations".to_owned(), registration_id.to_string()])
        }
        Ask::ListRegistrations { group, .. } => {
            (Action::ReadRegistrations, vec!["registrations".to_owned(), group.to_string()])
        }
    }
}

const fn collection(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::Individual => "enrollments",
        EntryKind::Group => "enrollmentGroups",
    }
}

fn refused(invalid: &InvalidEnrollment) -> Error {
    Error::invalid(invalid.to_string())
}

fn not_found(name: &EntryName) -> Error {
    match name.kind() {
        EntryKind::Individual => Error::new(ErrorKind::EnrollmentNotFound, "Enrollment not found."),
        EntryKind::Group => Error::new(ErrorKind::EnrollmentGroupNotFound, "EnrollmentGroup not found."),
    }
}

fn exists(name: &EntryName) -> Error {
    match name.kind() {
        EntryKind::Individual => Error::new(ErrorKind::EnrollmentExists, "Enrollment already exists."),
        EntryKind::Group => Error::new(ErrorKind::EnrollmentGroupExists, "EnrollmentGroup already exists."),
    }
}

fn full(name: &EntryName) -> Error {
    let public = match name.kind() {
        EntryKind::Individual => "There are as many enrollments as the server's limit allows.",
        EntryKind::Group => "There are as many enrollment groups as the server's limit allows.",
    };
    Error::new(ErrorKind::QuotaExceeded, public)
}

fn no_record() -> Error {
    Error::new(ErrorKind::RegistrationNotFound, "Registration not found.")
}
