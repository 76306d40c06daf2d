//! The tasks that follow the store's changes: twin notifications in the order of commits, and the ending of connections
//! whose identity, credential or time is gone.

use std::time::Duration;

use domain::identity::proof::has_ended;
use domain::identity::{Identity, IdentityStatus, UsedCredential};
use domain::ids::HubKey;
use domain::operation::Push;
use domain::operation::identity::IdentityName;
use domain::operation::session::CutOff;
use domain::operation::twin::DesiredChange;
use domain::resource::{CertificateOwner, Hub};

use crate::Service;
use crate::error::Error;
use crate::tasks::{AFTER_FAILURE, Followed};

/// Changes read at once.
const BATCH: usize = 1_000;
/// How often connections are checked for a proof that has run out.
const EXPIRY_SWEEP: Duration = Duration::from_secs(1);

impl Service {
    /// Tells connected devices of changed desired properties until the future is dropped (`rules.md` 12).
    pub async fn run_notifications(&self) {
        // What changes while it is asked where to begin is told of.
        let changes = self.0.store.twin_changes();
        let first = self.latest_change().await;
        self.follow(first, changes, |followed| self.notify_on(followed)).await;
    }

    async fn latest_change(&self) -> u64 {
        loop {
            match self.0.store.latest_twin_change().await {
                Ok(latest) => return latest,
                Err(error) => {
                    self.fail(error.into());
                    tokio::time::sleep(AFTER_FAILURE).await;
                }
            }
        }
    }

    /// Delivers one batch and forgets it: nobody who connects later needs it, since a device reads its twin first.
    async fn notify_on(&self, mut followed: Followed) -> (Followed, Result<(), Error>) {
        let store = &self.0.store;
        match store.twin_changes_after(followed.dealt, BATCH).await {
            Ok((changes, last)) => {
                for change in changes {
                    let push = Push::Desired(DesiredChange { version: change.version, patch: change.patch });
                    self.0.directory.push(change.hub, &change.name, push);
                }
                followed.dealt = last;
            }
            Err(error) => return (followed, Err(error.into())),
        }
        let forgotten = followed.forget(BATCH, |upto, limit| store.prune_twin_changes(upto, limit)).await;
        (followed, forgotten)
    }

    /// Ends connections whose identity was removed, disabled or re-keyed, until the future is dropped.
    pub async fn run_cut_offs(&self) {
        self.follow(0, self.0.store.identity_changes(), |followed| self.judge_on(followed)).await;
    }

    async fn judge_on(&self, mut followed: Followed) -> (Followed, Result<(), Error>) {
        let store = &self.0.store;
        match self.judge_changes_after(followed.dealt).await {
            Ok(last) => followed.dealt = last,
            Err(error) => return (followed, Err(error)),
        }
        let forgotten = followed.forget(BATCH, |upto, limit| store.prune_identity_changes(upto, limit)).await;
        (followed, forgotten)
    }

    async fn judge_changes_after(&self, judged: u64) -> Result<u64, Error> {
        let (concerned, last) = self.0.store.identity_changes_after(judged, BATCH).await?;
        for (hub, name) in concerned {
            self.judge_connection(hub, &name).await?;
        }
        Ok(last)
    }

    /// Ends the connection of `name` if the identity would not be let in with the same credential.
    pub(crate) async fn judge_connection(&self, hub: HubKey, name: &IdentityName) -> Result<(), store::Error> {
        let Some(present) = self.0.directory.find(hub, name) else { return Ok(()) };
        let resources = self.resources();
        let (identity, device) = match self.find_claimed(hub, name).await {
            // An identity that nobody can read lets nobody in, and must not keep others from being judged.
            Err(error @ store::Error::Corrupt { .. }) => {
                self.fail(error.into());
                (None, None)
            }
            found => found?,
        };
        let is_disabled = |identity: &Identity| identity.status == IdentityStatus::Disabled;
        let upheld = |identity: &Identity, hub: &Hub| {
            let authorities = resources.authorities(CertificateOwner::Hub(hub.key));
            identity.authentication.still_admits(&present.credential)
                && present.credential.is_upheld(&hub.policies, authorities, self.now())
        };
        let reason = match (identity, resources.hub(hub)) {
            (_, None) => CutOff::HubDeleted,
            (None, _) => CutOff::Deleted,
            (Some(identity), _) if *identity.generation != *present.generation => CutOff::Deleted,
            (Some(identity), _) if is_disabled(&identity) || device.is_some_and(|it| is_disabled(&it)) => {
                CutOff::Disabled
            }
            (Some(identity), Some(hub)) if !upheld(&identity, hub) => CutOff::Rekeyed,
            (Some(_), Some(_)) => return Ok(()),
        };
        tracing::info!(identity = %name, ?reason, "a connection was ended");
        self.0.directory.cut(hub, name, present.epoch, reason);
        Ok(())
    }

    /// Ends connections whose token or certificate has run out, and what back-end programs were let in for, until the
    /// future is dropped.
    pub async fn run_expiry(&self) {
        let mut ticks = tokio::time::interval(EXPIRY_SWEEP);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let now = self.now();
            self.0.backends.expire(now);
            self.0.readers.expire(now);
            self.0.directory.cut_where(|_, _, present| {
                present.expires_at.is_some_and(|at| has_ended(at, now)).then_some(match present.credential {
                    UsedCredential::DeviceKey(_) | UsedCredential::PolicyKey(_) => CutOff::TokenExpired,
                    UsedCredential::Certificate(_) | UsedCredential::Authority { .. } => CutOff::CertificateExpired,
                })
            });
        }
    }

    /// Judges every connection of a hub again, and what back-end programs do and read there, after its policies or
    /// certificates changed.
    pub(crate) async fn judge_hub(&self, hub: HubKey) -> Result<(), Error> {
        self.0.backends.judge(hub, &self.resources());
        self.0.readers.judge(hub, &self.resources());
        for name in self.0.directory.names_at(hub) {
            self.insist(|| self.judge_connection(hub, &name)).await?;
        }
        Ok(())
    }
}
