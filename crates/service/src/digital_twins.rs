//! Digital twins: a view of twins for operators, and direct methods by the names of commands
//! (`contract/hub-service.md 11`).
//!
//! Nothing is kept beside the twin: a patch becomes one of desired properties, which is written only if these are still
//! what it was made for. Start at [`Service::perform_digital_twin`].

use domain::access::Action;
use domain::digital_twin::{Patch, view};
use domain::ids::{DeviceId, HubKey, Precondition};
use domain::operation::digital_twin::{Answer, Ask, Command};
use domain::operation::identity::IdentityName;
use domain::operation::{Caller, ErrorKind};
use domain::twin::ServiceChange;
use store::ports::TwinOutcome;

use crate::Service;
use crate::error::Error;
use crate::registry::not_found;
use crate::twins::settle;

/// How often a patch is made anew because somebody else changed the twin meanwhile.
const ATTEMPTS_MAX: usize = 16;

impl Service {
    /// Performs `ask` at the hub dialled.
    pub(crate) async fn perform_digital_twin(&self, caller: &Caller, ask: Ask) -> Result<Answer, Error> {
        match ask {
            Ask::Find(device) => {
                let hub = self.authorize_at_hub(caller, Action::ReadTwins, &path(&device, &[]))?;
                let name = IdentityName::device(device);
                let (twin, identity) = self.0.store.find_twin(hub.key, &name).await?.ok_or_else(|| not_found(&name))?;
                Ok(Answer::Found { document: view(&twin, &identity), etag: twin.etag })
            }
            Ask::Patch { device, patch, precondition } => {
                let hub = self.authorize_at_hub(caller, Action::WriteTwins, &path(&device, &[]))?;
                self.patch_digital_twin(hub.key, device, &patch, precondition).await
            }
            Ask::Command { device, command } => {
                let Command { component, name, call } = *command;
                let mut steps = Vec::new();
                steps.extend(component.as_deref().map(|component| ["components", component]).into_iter().flatten());
                steps.extend(["commands", &name]);
                let hub = self.authorize_at_hub(caller, Action::InvokeMethods, &path(&device, &steps))?;
                let (request, response) = self.call_method(hub.key, IdentityName::device(device), call).await?;
                Ok(Answer::Responded { request, response })
            }
        }
    }

    async fn patch_digital_twin(
        &self,
        hub: HubKey,
        device: DeviceId,
        patch: &Patch,
        precondition: Precondition,
    ) -> Result<Answer, Error> {
        let store = &self.0.store;
        let name = IdentityName::device(device);
        for _ in 0..ATTEMPTS_MAX {
            let (twin, _) = store.find_twin(hub, &name).await?.ok_or_else(|| not_found(&name))?;
            if !precondition.holds(twin.etag) {
                return settle(TwinOutcome::PreconditionFailed, &name);
            }
            let desired = patch.plan(&twin).map_err(|invalid| Error::invalid(invalid.to_string()))?;
            if desired.is_empty() {
                return Ok(Answer::Accepted { device: name.device, etag: twin.etag });
            }
            let change = ServiceChange { tags: None, desired: Some(desired) };
            match store.patch_twin(hub, &name, change, Precondition::Matches(twin.etag), self.now()).await? {
                TwinOutcome::PreconditionFailed => {}
                outcome => {
                    let (twin, _) = settle(outcome, &name)?;
                    return Ok(Answer::Accepted { device: name.device, etag: twin.etag });
                }
            }
        }
        Err(Error::new(ErrorKind::Throttled, "The twin is changed by too many at once; try again later."))
    }
}

fn path(device: &DeviceId, rest: &[&str]) -> Vec<String> {
    ["digitaltwins", device.as_str()].iter().chain(rest).map(|&step| step.to_owned()).collect()
}
