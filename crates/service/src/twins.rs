//! Twins, as devices and operators read and change them.

use domain::access::Action;
use domain::ids::{HubKey, Precondition};
use domain::operation::identity::IdentityName;
use domain::operation::twin::{Answer, Ask};
use domain::operation::{Caller, ErrorKind};
use domain::twin::{ServiceChange, parse_patch};
use store::ports::TwinOutcome;

use crate::Service;
use crate::error::Error;
use crate::registry::not_found;

impl Service {
    /// Performs `ask`: a connected device's for itself, an operator's at the hub dialled.
    pub(crate) async fn perform_twin(&self, caller: &Caller, ask: Ask) -> Result<Answer, Error> {
        let store = &self.0.store;
        match ask {
            Ask::Read(device) => {
                self.hear(&device);
                match store.find_twin(device.hub, &device.name).await? {
                    Some((twin, _)) => Ok(Answer::Document(twin.device_document())),
                    None => Err(not_found(&device.name)),
                }
            }
            Ask::Report { device, patch, expected_version } => {
                self.hear(&device);
                let patch = parse_patch(&patch).map_err(|error| Error::invalid(error.to_string()))?;
                let outcome =
                    store.apply_reported(device.hub, &device.name, patch, expected_version, self.now()).await?;
                Ok(Answer::Reported { version: settle(outcome, &device.name)? })
            }
            Ask::Find(name) => {
                let hub = self.authorize_at_hub(caller, Action::ReadTwins, &path(&name))?;
                match store.find_twin(hub.key, &name).await? {
                    Some((twin, identity)) => Ok(Answer::Twin(Box::new(twin), Box::new(identity))),
                    // The hub names the device, also where a module is missing (`contract/hub-service.md 5`).
                    None => Err(not_found(&IdentityName::device(name.device))),
                }
            }
            Ask::Patch { name, change, precondition } => {
                let hub = self.authorize_at_hub(caller, Action::WriteTwins, &path(&name))?;
                self.patch_twin(hub.key, &name, *change, precondition).await
            }
            Ask::Replace { name, change, precondition } => {
                let hub = self.authorize_at_hub(caller, Action::WriteTwins, &path(&name))?;
                let outcome = store.replace_twin(hub.key, &name, *change, precondition, self.now()).await?;
                let (twin, identity) = settle(outcome, &name)?;
                Ok(Answer::Twin(Box::new(twin), Box::new(identity)))
            }
        }
    }

    /// Merges into tags and desired properties.
    pub(crate) async fn patch_twin(
        &self,
        hub: HubKey,
        name: &IdentityName,
        change: ServiceChange,
        precondition: Precondition,
    ) -> Result<Answer, Error> {
        let outcome = self.0.store.patch_twin(hub, name, change, precondition, self.now()).await?;
        let (twin, identity) = settle(outcome, name)?;
        Ok(Answer::Twin(Box::new(twin), Box::new(identity)))
    }
}

pub(crate) fn settle<T>(outcome: TwinOutcome<T>, name: &IdentityName) -> Result<T, Error> {
    match outcome {
        TwinOutcome::Done(value) => Ok(value),
        TwinOutcome::NotFound => Err(not_found(&IdentityName::device(name.device.clone()))),
        TwinOutcome::PreconditionFailed => {
            Err(Error::new(ErrorKind::PreconditionFailed, "PreconditionFailed, ETag may be invalid."))
        }
        TwinOutcome::Refused(error) => Err(Error::invalid(error.to_string())),
    }
}

pub(crate) fn path(name: &IdentityName) -> Vec<String> {
    let mut path = vec!["twins".to_owned(), name.device.to_string()];
    path.extend(name.module.iter().flat_map(|module| ["modules".to_owned(), module.to_string()]));
    path
}
