//! The worker that assigns proven devices to hubs.
//!
//! It claims operations, makes its choice durable, and carries it out; a crash anywhere leads the next attempt along the
//! same plan (`rules.md` 2). Start at [`Service::run_assignments`].

use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio::time::MissedTickBehavior;

use domain::allocation::{Candidate, Unallocatable, allocate};
use domain::attestation::{Credential, Registrant, symmetric_key};
use domain::enrollment::{AllocationPolicy, Enrollment};
use domain::ids::{DeviceId, HubKey};
use domain::operation::registration::{RegistrationError, Substatus};
use domain::reprovision::{Home, Reprovision, TwinHandover, on_return};
use domain::resource::ProvisioningService;
use store::ports::{Assigned, Assignee, Claimed, Finish, Finished, Planned, TwinSource};

use crate::Service;
use crate::error::Error;
use crate::tasks::AFTER_FAILURE;

/// How long the worker sleeps when nobody wakes it: what an earlier process left behind, or a lease that ran out.
const IDLE: Duration = Duration::from_secs(5);
/// Attempts after which an assignment is given up: an operation that fails each time must not be tried for ever. A failed
/// one is tried again when its lease has run out.
const ATTEMPTS_MAX: u32 = 10;
/// Operations claimed by one verb, which holds up all others (`rules.md` 11).
const CLAIMED_MAX: usize = 64;
/// How often ended operations are forgotten.
const PRUNE_INTERVAL: Duration = Duration::from_secs(60);
/// Ended operations forgotten by one verb, which holds up all others.
const PRUNE_BATCH: usize = 500;
/// How a registration fails that its enrollment does not admit any more (`contract/dps-device.md 2.8`).
const UNAUTHORIZED: u32 = 401_002;
/// How it fails if there is no hub for it: something that is not there, of no kind that has a number of its own.
const NO_HUB: u32 = 404_000;
/// How it fails if every hub is full: as a hub numbers a quota (`contract/hub-service.md 3`).
const HUBS_FULL: u32 = 403_002;
/// How it fails if a webhook should have chosen (`contract/dps-device.md 2.8`).
const CUSTOM_ALLOCATION_FAILED: u32 = 400_207;

impl Service {
    /// Assigns devices until the future is dropped: so many side by side as a worker may claim, so that their commits are
    /// shared, and another as soon as one has ended.
    pub async fn run_assignments(&self) {
        let mut running = JoinSet::new();
        // Whether more may be queued than was claimed.
        let mut has_more = true;
        loop {
            while let Some(ended) = running.try_join_next() {
                self.end_assignment(ended);
            }
            let room = self.0.settings.claim_batch.max(1).saturating_sub(running.len());
            if has_more && room > 0 {
                has_more = self.begin_assignments(&mut running, room.min(CLAIMED_MAX)).await;
                continue;
            }
            tokio::select! {
                () = self.0.assignments.notified() => has_more = true,
                () = tokio::time::sleep(IDLE) => has_more = true,
                Some(ended) = running.join_next() => self.end_assignment(ended),
            }
        }
    }

    /// Claims up to `room` operations; tells whether there may be more.
    #[expect(clippy::disallowed_methods, reason = "the set is the worker's own: it looks at each task's end")]
    async fn begin_assignments(&self, running: &mut JoinSet<Result<(), Error>>, room: usize) -> bool {
        let (claimed, full) = match self.claim(room).await {
            Ok(claimed) => claimed,
            Err(error) => {
                self.fail(error);
                tokio::time::sleep(AFTER_FAILURE).await;
                return true;
            }
        };
        let has_more = claimed.len() >= room;
        for claimed in claimed {
            let (service, full) = (self.clone(), Arc::clone(&full));
            running.spawn(async move { service.assign(claimed, &full).await });
        }
        has_more
    }

    /// Claims up to `room` operations; gives also the hubs that take no more devices. They are read first, so that nothing
    /// is claimed and left lying when that fails.
    async fn claim(&self, room: usize) -> Result<(Vec<Claimed>, Arc<[HubKey]>), Error> {
        let full = self.0.store.list_full_hubs().await?;
        Ok((self.0.store.claim_operations(room).await?, full.into()))
    }

    fn end_assignment(&self, ended: Result<Result<(), Error>, JoinError>) {
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => drop(self.fail(error)),
            Err(error) => tracing::error!(%error, "an assignment panicked"),
        }
    }

    /// Forgets operations that have ended long ago, until the future is dropped.
    pub async fn run_pruning(&self) {
        let mut ticks = tokio::time::interval(PRUNE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(error) = self.prune_operations().await {
                self.fail(error);
            }
        }
    }

    async fn prune_operations(&self) -> Result<(), Error> {
        let before = self.now().minus(self.0.settings.operations_kept);
        while self.0.store.prune_operations(before, PRUNE_BATCH).await? >= PRUNE_BATCH {}
        Ok(())
    }

    async fn assign(&self, claimed: Claimed, full: &[HubKey]) -> Result<(), Error> {
        let store = &self.0.store;
        if claimed.attempt > ATTEMPTS_MAX {
            tracing::error!(operation.id = %claimed.operation, attempts = ATTEMPTS_MAX, "an assignment is given up");
            return self.fail_assignment(&claimed, 500_001, "The assignment could not be carried out.").await;
        }
        let Registrant { service, admitted_by, registration_id, .. } = &claimed.registrant;
        let entry = store.find_enrollment(*service, &admitted_by.name).await?;
        let resources = self.resources();
        let (Some(entry), Some(service)) = (entry, resources.service(*service)) else {
            return self.fail_assignment(&claimed, UNAUTHORIZED, "The enrollment was removed.").await;
        };
        if entry.etag != admitted_by.etag || !entry.terms.is_enabled() {
            return self.fail_assignment(&claimed, UNAUTHORIZED, "The enrollment was changed.").await;
        }
        let plan = match &claimed.plan {
            Some(plan) => plan.clone(),
            None => match self.choose(&claimed, &entry, service, full) {
                Ok(plan) => plan,
                Err(unallocatable) => {
                    let message = format!("{unallocatable}.");
                    return self.fail_assignment(&claimed, code_of(unallocatable), &message).await;
                }
            },
        };
        let Finished::Done(_) = store.plan_assignment(claimed.operation, claimed.attempt, plan, self.now()).await?
        else {
            return Ok(());
        };
        let Some(assignee) = assignee(&claimed.registrant, &entry) else {
            return self.fail_assignment(&claimed, UNAUTHORIZED, "The enrollment's keys were changed.").await;
        };
        let finish = Finish { assignee, initial_twin: entry.terms.initial_twin.clone() };
        match store.finish_assignment(claimed.operation, claimed.attempt, finish, self.now()).await? {
            Finished::Done(_) => {
                tracing::info!(registration.id = %registration_id, operation.id = %claimed.operation, "device assigned");
            }
            Finished::HubGone => return self.fail_assignment(&claimed, NO_HUB, "The chosen IoT hub is gone.").await,
            Finished::Fenced | Finished::EntryChanged => {}
        }
        Ok(())
    }

    async fn fail_assignment(&self, claimed: &Claimed, code: u32, message: &str) -> Result<(), Error> {
        let error = RegistrationError { code, message: message.to_owned() };
        let id = &claimed.registrant.registration_id;
        tracing::info!(registration.id = %id, operation.id = %claimed.operation, code, "{message}");
        self.0.store.fail_assignment(claimed.operation, claimed.attempt, error, self.now()).await?;
        Ok(())
    }

    /// Chooses hub and twin. A device that may not move keeps its hub, even if no hub could be chosen today.
    fn choose(
        &self,
        claimed: &Claimed,
        entry: &Enrollment,
        service: &ProvisioningService,
        full: &[HubKey],
    ) -> Result<Planned, Unallocatable> {
        let policy = entry.terms.allocation.unwrap_or(service.allocation);
        let registration_id = &claimed.registrant.registration_id;
        let lives_at = claimed.current.as_ref().map(|current| current.hub);
        // A device takes no further place at the hub where it lives.
        let is_full = |hub: HubKey| full.contains(&hub) && lives_at != Some(hub);
        let offered = allocate(policy, registration_id, &self.candidates(entry, service, policy, is_full));
        let device_id = entry.terms.device_id.clone().unwrap_or_else(|| {
            DeviceId::parse(registration_id.as_str()).expect("every registration ID is a device ID")
        });
        let reprovision = entry.terms.reprovision();
        let Some(current) = &claimed.current else {
            return Ok(planned(offered?, device_id, TwinSource::Keep, Substatus::InitialAssignment));
        };
        let offered = if reprovision.update_hub_assignment { offered? } else { current.hub };
        let home = Home { hub: current.hub, device_id: &current.device_id };
        let decided = on_return(reprovision, home, Home { hub: offered, device_id: &device_id });
        Ok(returning(current, decided, offered, device_id))
    }

    /// The linked hubs that the entry allows, in the order of its list, or of the links.
    fn candidates(
        &self,
        entry: &Enrollment,
        service: &ProvisioningService,
        policy: AllocationPolicy,
        is_full: impl Fn(HubKey) -> bool,
    ) -> Vec<Candidate> {
        let resources = self.resources();
        let named = entry.terms.hubs();
        let rank = |hub: HubKey| {
            let hub = resources.hub(hub)?;
            let aliases = resources.hub_aliases(hub);
            let is_named = |host: &String| aliases.iter().any(|alias| alias.eq_ignore_ascii_case(host));
            if named.is_empty() { Some(0) } else { named.iter().position(is_named) }
        };
        let mut ranked: Vec<_> =
            service.links.iter().filter_map(|link| rank(link.hub).map(|rank| (rank, link))).collect();
        ranked.sort_by_key(|(rank, _)| *rank);
        ranked
            .into_iter()
            .map(|(_, link)| Candidate {
                hub: link.hub,
                weight: link.weight,
                // A hub that the entry names for a static choice is meant, whatever its link says.
                applies: link.applies || (policy == AllocationPolicy::Static && !named.is_empty()),
                is_full: is_full(link.hub),
            })
            .collect()
    }
}

/// How the registration of a device fails that no hub could be chosen for.
const fn code_of(unallocatable: Unallocatable) -> u32 {
    match unallocatable {
        Unallocatable::NoHub => NO_HUB,
        Unallocatable::AllFull => HUBS_FULL,
        Unallocatable::Custom => CUSTOM_ALLOCATION_FAILED,
    }
}

fn planned(hub: HubKey, device_id: DeviceId, twin: TwinSource, substatus: Substatus) -> Planned {
    Planned { hub, device_id, twin, substatus, payload: None }
}

fn returning(current: &Assigned, decided: Reprovision, offered: HubKey, device_id: DeviceId) -> Planned {
    let back_home = offered == current.initial_hub;
    match decided {
        // No hub was left, which is what `DeviceDataMigrated` tells.
        Reprovision::Rename => planned(current.hub, device_id, TwinSource::Migrate, Substatus::InitialAssignment),
        Reprovision::Keep => planned(current.hub, device_id, TwinSource::Keep, Substatus::InitialAssignment),
        Reprovision::ResetInPlace => planned(current.hub, device_id, TwinSource::Initial, Substatus::DeviceDataReset),
        Reprovision::Reassign { twin } => {
            let (source, moved) = match twin {
                TwinHandover::Migrate => (TwinSource::Migrate, Substatus::DeviceDataMigrated),
                TwinHandover::Reset => (TwinSource::Initial, Substatus::DeviceDataReset),
            };
            let substatus = if back_home { Substatus::ReprovisionedToInitialAssignment } else { moved };
            planned(offered, device_id, source, substatus)
        }
    }
}

/// The identity a registrant is to have; `None` if the entry's keys are no longer those that were proved.
fn assignee(registrant: &Registrant, entry: &Enrollment) -> Option<Assignee> {
    let capabilities = entry.terms.capabilities();
    match &registrant.credential {
        Credential::X509 { leaf, other, .. } => Some(Assignee::SelfSigned {
            primary: leaf.sha256_hex(),
            secondary: other.as_ref().map(domain::certificate::Certificate::sha256_hex),
            capabilities,
        }),
        Credential::SymmetricKey { .. } => {
            let keys = symmetric_key::device_keys(registrant, entry)?;
            Some(Assignee::Sas { primary: keys.primary, secondary: keys.secondary, capabilities })
        }
    }
}
