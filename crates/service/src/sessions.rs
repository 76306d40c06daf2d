//! A device's connection to a hub: let in, remembered, let go.

use std::sync::Arc;

use domain::identity::{Identity, proof};
use domain::ids::HubKey;
use domain::model::ModelId;
use domain::operation::identity::IdentityName;
use domain::operation::session::{Answer, Ask, Connect, ConnectedDevice, Seat, Verify};
use domain::operation::{Caller, ErrorKind};
use domain::resource::{CertificateOwner, Hub};
use store::ports::ClaimWanted;

use crate::access::{unreached, verify_policy};
use crate::error::Error;
use crate::mailbox::Mailbox;
use crate::{Service, Snapshot};

impl Service {
    /// Performs `ask`.
    pub(crate) async fn perform_session(&self, caller: &Caller, ask: Ask) -> Result<Answer, Error> {
        match ask {
            Ask::Connect(connect) => self.connect(caller, *connect).await,
            Ask::Verify(verify) => self.verify(caller, *verify).await,
            Ask::Renew { device } => self.renew(caller, &device).await,
            Ask::Subscribe { device, subscriptions, is_kept } => {
                if is_kept {
                    let store = &self.0.store;
                    let is_saved =
                        store.save_subscriptions(device.hub, &device.name, device.epoch, subscriptions).await?;
                    if !is_saved {
                        return Err(Error::new(ErrorKind::Unauthorized, "Another connection has taken over."));
                    }
                }
                self.0.directory.subscribe(&device, subscriptions);
                Ok(Answer::Done)
            }
            Ask::Announce { device, model_id } => self.announce(&device, &model_id).await,
            Ask::Disconnect { device } => {
                self.0.directory.leave(&device);
                self.0.store.release_connection(device.hub, &device.name, device.epoch, self.now()).await?;
                Ok(Answer::Done)
            }
        }
    }

    async fn connect(&self, caller: &Caller, connect: Connect) -> Result<Answer, Error> {
        let resources = self.resources();
        let Some(hub) = resources.hub_at(&caller.endpoint, &connect.host) else {
            let reason = format!("no hub of that name is at {}", caller.endpoint);
            return Err(refuse(&connect.claimed, &reason));
        };
        let (identity, device) = self.find_claimed(hub.key, &connect.claimed).await?;
        let claim = proof::Claim { identity: identity.as_ref(), device: device.as_ref() };
        let proven = judge(caller, hub, &resources, claim, self.now())
            .map_err(|rejection| refuse(&connect.claimed, &rejection.to_string()))?;
        let Some(identity) = identity else { return Err(Error::unauthorized()) };
        if let Some(model_id) = &connect.model_id {
            check_model(&connect.claimed, model_id)?;
        }
        let wanted = ClaimWanted {
            generation: identity.generation.clone(),
            memory: connect.memory,
            model_id: connect.model_id.clone(),
        };
        let claimed = self.0.store.claim_connection(hub.key, &connect.claimed, wanted, self.now()).await?;
        let claimed = claimed.ok_or_else(Error::unauthorized)?;
        let device = ConnectedDevice::seat(Seat {
            hub: hub.key,
            name: identity.name,
            generation: identity.generation.into(),
            epoch: claimed.epoch,
            authentication: proven.used().method(),
            model_id: claimed.model_id.map(Into::into),
        });
        let mailbox = self.0.directory.enter(&device, proven.used().clone(), Some(proven.expires_at()));
        self.0.directory.keep_mailbox(&device, mailbox);
        self.0.directory.subscribe(&device, claimed.subscriptions);
        // The identity may have been changed between the judgement and the entry into the directory.
        self.judge_connection(hub.key, &device.name).await?;
        Ok(Answer::Connected { device, subscriptions: claimed.subscriptions, session_present: claimed.session_present })
    }

    async fn announce(&self, device: &ConnectedDevice, model_id: &str) -> Result<Answer, Error> {
        check_model(&device.name, model_id)?;
        let store = &self.0.store;
        let is_noted = store.announce_model(device.hub, &device.name, (device.epoch, model_id), self.now()).await?;
        if !is_noted {
            return Err(Error::new(ErrorKind::Unauthorized, "Another connection has taken over."));
        }
        Ok(Answer::Announced(device.announcing(model_id)))
    }

    /// The hub that a caller without a connection dialled, and the identity it has proved to be.
    pub(crate) async fn prove_device(
        &self,
        caller: &Caller,
        name: &IdentityName,
    ) -> Result<(Arc<Hub>, Identity), Error> {
        self.prove_claimed(caller, name).await.map(|(hub, identity, _)| (hub, identity))
    }

    /// As [`Self::prove_device`], as a seat for the one request: it takes no connection over and is told nothing.
    pub(crate) async fn seat_for_request(&self, caller: &Caller, name: &IdentityName) -> Result<Seat, Error> {
        let (hub, identity, proven) = self.prove_claimed(caller, name).await?;
        Ok(Seat {
            hub: hub.key,
            name: identity.name,
            generation: identity.generation.into(),
            epoch: 0,
            authentication: proven.used().method(),
            model_id: None,
        })
    }

    async fn prove_claimed(
        &self,
        caller: &Caller,
        name: &IdentityName,
    ) -> Result<(Arc<Hub>, Identity, proof::ProvenIdentity), Error> {
        let resources = self.resources();
        let hub = resources
            .hub_at(&caller.endpoint, "")
            .ok_or_else(|| unreached(caller, ErrorKind::HubNotFound, "No hub answers at this host."))?;
        let (identity, device) = self.find_claimed(hub.key, name).await?;
        let claim = proof::Claim { identity: identity.as_ref(), device: device.as_ref() };
        let proven = judge(caller, hub, &resources, claim, self.now())
            .map_err(|rejection| refuse(name, &rejection.to_string()))?;
        Ok((Arc::clone(hub), identity.ok_or_else(Error::unauthorized)?, proven))
    }

    /// Judges a signature that names nobody by its policy alone; what its policy lets its owner do is asked when it is done.
    async fn verify(&self, caller: &Caller, verify: Verify) -> Result<Answer, Error> {
        let Verify { host, scope } = verify;
        let resources = self.resources();
        let Some(hub) = resources.hub_at(&caller.endpoint, &host) else {
            return Err(Error::new(ErrorKind::HubNotFound, "No hub of that name is at the address dialled."));
        };
        let Some(claimed) = scope else {
            let hosts = resources.hub_aliases(hub);
            verify_policy(caller, (hosts, &hub.policies), self.now())?;
            return Ok(Answer::Done);
        };
        let (identity, device) = self.find_claimed(hub.key, &claimed).await?;
        let claim = proof::Claim { identity: identity.as_ref(), device: device.as_ref() };
        judge(caller, hub, &resources, claim, self.now())
            .map_err(|rejection| refuse(&claimed, &rejection.to_string()))?;
        Ok(Answer::Done)
    }

    async fn renew(&self, caller: &Caller, seat: &ConnectedDevice) -> Result<Answer, Error> {
        let resources = self.resources();
        let hub = resources.hub(seat.hub).ok_or_else(|| Error::new(ErrorKind::HubNotFound, "The hub is gone."))?;
        let (identity, device) = self.find_claimed(hub.key, &seat.name).await?;
        let claim = proof::Claim { identity: identity.as_ref(), device: device.as_ref() };
        let proven = judge(caller, hub, &resources, claim, self.now())
            .map_err(|rejection| refuse(&seat.name, &rejection.to_string()))?;
        if !self.0.directory.renew(seat, proven.used().clone(), proven.expires_at()) {
            return Err(Error::new(ErrorKind::Unauthorized, "Another connection has taken over."));
        }
        // The credential may have been changed between the judgement and the renewal.
        self.judge_connection(hub.key, &seat.name).await?;
        Ok(Answer::Done)
    }

    /// The identity, and the device whose module it is.
    pub(crate) async fn find_claimed(
        &self,
        hub: HubKey,
        name: &IdentityName,
    ) -> Result<(Option<Identity>, Option<Identity>), store::Error> {
        let store = &self.0.store;
        let identity = store.find_identity(hub, name).await?;
        let device = match name.module {
            None => None,
            Some(_) => store.find_identity(hub, &IdentityName::device(name.device.clone())).await?,
        };
        Ok((identity, device))
    }

    /// The mailbox of a connection that was let in; `None` if it was taken already.
    pub fn mailbox(&self, device: &ConnectedDevice) -> Option<Mailbox> {
        self.0.directory.take_mailbox(device)
    }
}

fn check_model(identity: &IdentityName, model_id: &str) -> Result<(), Error> {
    ModelId::parse(model_id).map(|_| ()).map_err(|invalid| {
        tracing::info!(%identity, %invalid, "a connection was refused for the model it announced");
        Error::invalid(format!("The model ID is not valid: {invalid}."))
    })
}

fn judge(
    caller: &Caller,
    hub: &Hub,
    resources: &Snapshot,
    claim: proof::Claim<'_>,
    now: domain::clock::UnixTime,
) -> Result<proof::ProvenIdentity, proof::IdentityRejection> {
    let aliases = resources.hub_aliases(hub);
    let hosts: Vec<&str> = aliases.iter().map(String::as_str).collect();
    let authorities = resources.authorities(CertificateOwner::Hub(hub.key));
    let rules = proof::HubRules { hosts: &hosts, policies: &hub.policies, authorities };
    proof::prove(claim, &caller.evidence, rules, now)
}

/// Every refused credential is refused alike; the reason is in the log.
fn refuse(claimed: &IdentityName, reason: &str) -> Error {
    tracing::info!(identity = %claimed, reason, "a connection was refused");
    Error::unauthorized()
}
