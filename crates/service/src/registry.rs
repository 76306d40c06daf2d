//! Identities at hubs, as operators manage them.

use domain::access::Action;
use domain::identity::{IdentityDraft, InvalidIdentity};
use domain::ids::{DeviceId, Precondition};
use domain::operation::identity::{Answer, Ask, BulkChange, BulkItem, IdentityName};
use domain::operation::{Caller, ErrorKind, Failure, PageRequest};
use domain::resource::Hub;
use domain::sas::{KeyChoice, KeyPair, KeyRotation};
use domain::twin::ServiceChange;
use futures_util::future::join_all;
use store::ports::{Changed, Created, Rotated};

use crate::Service;
use crate::access::{authorize, unreached};
use crate::error::Error;

/// Most devices of one list (`contract/hub-service.md 4.1`).
const LIST_MAX: usize = 1_000;
/// Most items of a bulk request (`contract/hub-service.md 4.4`).
const BULK_ITEMS_MAX: usize = 100;
/// Most identities of a request for fresh keys: the contract names no bound, and as many as a list gives are asked for at
/// once by programs that rotate the keys of a whole list.
const ROTATIONS_MAX: usize = LIST_MAX;

impl Service {
    /// Performs `ask` at the hub that the caller dialled.
    pub(crate) async fn perform_identity(&self, caller: &Caller, ask: Ask) -> Result<Answer, Error> {
        let (action, path) = action_and_path(&ask);
        let hub = self.authorize_at_hub(caller, action, &path)?;
        let store = &self.0.store;
        match ask {
            Ask::Put { draft, precondition } => self.put_identity(&hub, *draft, precondition, None).await,
            Ask::Find(name) => match store.find_identity(hub.key, &name).await? {
                Some(identity) => Ok(Answer::Identity(Box::new(identity))),
                None => Err(not_found(&name)),
            },
            Ask::Delete { name, precondition } => {
                if precondition == Precondition::None {
                    return Err(Error::new(ErrorKind::PreconditionFailed, "An ETag (If-Match) is required."));
                }
                self.delete_identity(&hub, &name, precondition).await
            }
            Ask::List { limit } => {
                let page = PageRequest { after: None, limit: limit.clamp(1, LIST_MAX) };
                Ok(Answer::Identities(store.list_devices(hub.key, page).await?.items))
            }
            Ask::ListModules(device) => match store.list_modules(hub.key, &device).await? {
                Some(modules) => Ok(Answer::Identities(modules)),
                None => Err(not_found(&IdentityName::device(device))),
            },
            Ask::Bulk(items) if items.len() > BULK_ITEMS_MAX => {
                let public = format!("A bulk operation takes at most {BULK_ITEMS_MAX} devices.");
                Err(Error::new(ErrorKind::TooManyDevices, public))
            }
            Ask::Bulk(items) => Ok(Answer::Bulk(self.change_in_bulk(&hub, items).await)),
            Ask::RotateKeys { names, .. } if names.len() > ROTATIONS_MAX => {
                let public = format!("Keys of at most {ROTATIONS_MAX} devices and modules are made afresh at once.");
                Err(Error::new(ErrorKind::TooManyDevices, public))
            }
            Ask::RotateKeys { choice, names } => {
                let service = self.clone();
                // Half of it would leave devices with keys that nobody was told.
                self.carry_through("rotate-keys", async move { Ok(service.rotate_keys(&hub, choice, &names).await) })
                    .await
            }
            Ask::CountDevices => {
                let counts = store.count_devices(hub.key).await?;
                Ok(Answer::Devices { total: counts.total, enabled: counts.enabled, disabled: counts.disabled })
            }
            Ask::CountConnected => Ok(Answer::Connected(store.count_devices(hub.key).await?.connected)),
        }
    }

    /// The hub that the caller dialled, if its signature allows `action` there.
    pub(crate) fn authorize_at_hub(
        &self,
        caller: &Caller,
        action: Action,
        path: &[String],
    ) -> Result<std::sync::Arc<Hub>, Error> {
        let resources = self.resources();
        let hub = resources
            .hub_at(&caller.endpoint, "")
            .ok_or_else(|| unreached(caller, ErrorKind::HubNotFound, "No hub answers at this host."))?;
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        authorize(caller, (resources.hub_aliases(hub), &path), &hub.policies, action, self.now())?;
        Ok(std::sync::Arc::clone(hub))
    }

    async fn put_identity(
        &self,
        hub: &Hub,
        draft: IdentityDraft,
        precondition: Precondition,
        twin: Option<ServiceChange>,
    ) -> Result<Answer, Error> {
        let name = draft.name.clone();
        let checked = twin.as_ref().map(ServiceChange::check).transpose();
        checked.map_err(|invalid| Error::invalid(invalid.to_string()))?;
        if precondition == Precondition::None {
            draft.check_created().map_err(|error| invalid(&error))?;
        }
        let identity = draft.check(self.entropy()).map_err(|error| invalid(&error))?;
        let store = &self.0.store;
        if precondition != Precondition::None {
            return match store.replace_identity(hub.key, identity, precondition, self.now()).await? {
                Changed::Done(identity) => Ok(Answer::Identity(Box::new(identity))),
                Changed::NotFound => Err(not_found(&name)),
                Changed::PreconditionFailed { .. } => Err(stale()),
            };
        }
        match store.create_identity(hub.key, identity, twin, self.now()).await? {
            Created::Done(identity) => Ok(Answer::Identity(Box::new(identity))),
            Created::AlreadyExists => Err(exists(&name)),
            Created::Full => Err(full(&name)),
            Created::NoOwner => Err(not_found(&IdentityName::device(name.device))),
        }
    }

    async fn delete_identity(
        &self,
        hub: &Hub,
        name: &IdentityName,
        precondition: Precondition,
    ) -> Result<Answer, Error> {
        match self.0.store.delete_identity(hub.key, name, precondition).await? {
            Changed::Done(_) => Ok(Answer::Deleted),
            Changed::NotFound => Err(not_found(name)),
            Changed::PreconditionFailed { .. } => Err(stale()),
        }
    }

    /// Changes all of `items` side by side, so that they share commits; what could not be changed.
    async fn change_in_bulk(&self, hub: &Hub, items: Vec<BulkItem>) -> Vec<(IdentityName, Failure)> {
        let changes = items.into_iter().map(async |BulkItem { name, change }| {
            let outcome = self.change_one(hub, &name, change).await;
            outcome.err().map(|error| (name, self.fail(error)))
        });
        join_all(changes).await.into_iter().flatten().collect()
    }

    /// Makes keys of all of `names` afresh, as many side by side as in bulk.
    async fn rotate_keys(&self, hub: &Hub, choice: KeyChoice, names: &[IdentityName]) -> Answer {
        let (mut keys, mut failures) = (Vec::new(), Vec::new());
        for piece in names.chunks(BULK_ITEMS_MAX) {
            let outcomes = join_all(piece.iter().map(|name| self.rotate_keys_of(hub, name, choice))).await;
            for (name, outcome) in piece.iter().zip(outcomes) {
                match outcome {
                    Ok(pair) => keys.push((name.clone(), pair)),
                    Err(error) => failures.push((name.clone(), self.fail(error))),
                }
            }
        }
        tracing::info!(hub = %hub.name, ?choice, rotated = keys.len(), failed = failures.len(), "keys were made afresh");
        Answer::Rotated { choice, keys, failures }
    }

    async fn rotate_keys_of(&self, hub: &Hub, name: &IdentityName, choice: KeyChoice) -> Result<KeyPair, Error> {
        let rotation = KeyRotation::generate(choice, self.entropy());
        match self.0.store.rotate_keys(hub.key, name, rotation, self.now()).await? {
            Rotated::Done(keys) => Ok(keys),
            Rotated::NotFound => Err(not_found(name)),
            Rotated::NoKeys => Err(Error::invalid(format!("'{name}' does not authenticate by symmetric keys."))),
        }
    }

    /// One change of many. It comes to the store when its future is first polled, and before it waits for anything, so
    /// that changes take their turns in the order asked: a module after its device.
    async fn change_one(&self, hub: &Hub, name: &IdentityName, change: BulkChange) -> Result<(), Error> {
        match change {
            BulkChange::Put { draft, precondition, twin } => {
                self.put_identity(hub, *draft, precondition, twin.map(|twin| *twin)).await.map(drop)
            }
            BulkChange::Delete { precondition } => {
                let demanded = if precondition == Precondition::None { Precondition::Exists } else { precondition };
                self.delete_identity(hub, name, demanded).await.map(drop)
            }
            BulkChange::PatchTwin { change, precondition } => {
                self.patch_twin(hub.key, name, *change, precondition).await.map(drop)
            }
        }
    }
}

fn action_and_path(ask: &Ask) -> (Action, Vec<String>) {
    let device = |device: &DeviceId| vec!["devices".to_owned(), device.to_string()];
    let identity = |name: &IdentityName| {
        let mut path = device(&name.device);
        path.extend(name.module.iter().flat_map(|module| ["modules".to_owned(), module.to_string()]));
        path
    };
    match ask {
        Ask::Put { draft, .. } => (Action::WriteIdentities, identity(&draft.name)),
        Ask::Find(name) => (Action::ReadIdentities, identity(name)),
        Ask::Delete { name, .. } => (Action::WriteIdentities, identity(name)),
        Ask::List { .. } => (Action::ReadIdentities, vec!["devices".to_owned()]),
        Ask::ListModules(name) => (Action::ReadIdentities, device(name)),
        Ask::Bulk(_) => (Action::WriteIdentities, vec!["devices".to_owned()]),
        Ask::RotateKeys { .. } => {
            (Action::WriteIdentities, ["devices", "keys", "regenerate"].map(str::to_owned).to_vec())
        }
        Ask::CountDevices => (Action::CountDevices, vec!["statistics".to_owned(), "devices".to_owned()]),
        Ask::CountConnected => (Action::CountConnected, vec!["statistics".to_owned(), "service".to_owned()]),
    }
}

/// A draft that is no identity, by the name that clients know of the rule it breaks (`contract/hub-service.md 4.3`).
fn invalid(invalid: &InvalidIdentity) -> Error {
    let kind = match invalid {
        InvalidIdentity::Thumbprint => ErrorKind::InvalidThumbprint,
        InvalidIdentity::NoAuthentication => ErrorKind::NoAuthentication,
        InvalidIdentity::OneKey
        | InvalidIdentity::NoThumbprint
        | InvalidIdentity::ReservedModule
        | InvalidIdentity::StatusReason
        | InvalidIdentity::Scope => ErrorKind::InvalidArgument,
    };
    Error::new(kind, invalid.to_string())
}

/// No such device, or the device has no such module.
pub(crate) fn not_found(name: &IdentityName) -> Error {
    match &name.module {
        None => Error::new(ErrorKind::DeviceNotFound, format!("The device '{}' was not found.", name.device)),
        Some(module) => Error::new(ErrorKind::ModuleNotFound, format!("The module '{module}' was not found.")),
    }
}

fn exists(name: &IdentityName) -> Error {
    match &name.module {
        None => {
            let text = format!("A device with ID '{}' is already registered.", name.device);
            Error::new(ErrorKind::DeviceExists, text)
        }
        Some(module) => {
            let text = format!("A module with ID '{module}' is already registered on device '{}'.", name.device);
            Error::new(ErrorKind::ModuleExists, text)
        }
    }
}

/// The hub takes no more devices, or the device no more modules.
fn full(name: &IdentityName) -> Error {
    match &name.module {
        None => Error::new(ErrorKind::TooManyDevices, "The hub takes no more devices."),
        Some(_) => {
            Error::new(ErrorKind::TooManyModules, format!("The device '{}' takes no more modules.", name.device))
        }
    }
}

fn stale() -> Error {
    Error::new(ErrorKind::PreconditionFailed, "PreconditionFailed, ETag may be invalid.")
}
