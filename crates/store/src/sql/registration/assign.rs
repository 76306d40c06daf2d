//! Finishing an assignment to a hub of this deployment: identity, twin, removal of the old identity and the registration
//! record change in one transaction, after the entry was read again (`rules.md` 2 and 3).

use domain::clock::UnixTime;
use domain::enrollment::{Capabilities, InitialTwin};
use domain::identity::{Authentication, Identity, IdentityStatus, Thumbprints};
use domain::ids::{HubKey, OperationId};
use domain::operation::identity::IdentityName;
use domain::operation::registration::{Assignment, RegistrationState, RegistrationStatus};
use domain::sas::KeyPair;
use domain::twin::{ServiceChange, Twin};

use super::{
    Admission, ENTRY_CHANGED, Operation, Record, attested_by, end, error, fail, find_record, running, write_record,
};
use crate::error::Error;
use crate::ports::{Assigned, Assignee, Finish, Finished, Planned, TwinSource};
use crate::sql::link::Sequence;
use crate::sql::{Tx, enrollment, event, identity, resource, twin};

/// An assignment that is finished without having been planned.
#[derive(Debug, thiserror::Error)]
#[error("the operation has no plan")]
struct Unplanned;

pub(super) fn finish(
    tx: &mut Tx<'_, '_>,
    (id, attempt): (OperationId, u32),
    finish: Finish,
    now: UnixTime,
) -> Result<Finished<RegistrationState>, Error> {
    let Some(operation) = running(tx.db(), id, attempt)? else { return Ok(Finished::Fenced) };
    let plan = operation.plan.clone().ok_or_else(|| Error::backend("finishing an assignment", Unplanned))?;
    let registrant = &operation.registrant;
    let entry = enrollment::find(tx.db(), registrant.service, &registrant.admitted_by.name)?;
    if !entry.is_some_and(|entry| entry.etag == registrant.admitted_by.etag && entry.terms.is_enabled()) {
        fail(tx, &operation, error(ENTRY_CHANGED, "Unauthorized"), now)?;
        return Ok(Finished::EntryChanged);
    }
    if !resource::hub_exists(tx.db(), plan.hub)? {
        return Ok(Finished::HubGone);
    }
    let record = find_record(tx.db(), registrant.service, &registrant.registration_id)?;
    let Some(record) = record.filter(|record| record.operation == Some(id)) else { return Ok(Finished::Fenced) };

    let name = IdentityName::device(plan.device_id.clone());
    if record.current.is_none() && identity::find_id(tx.db(), plan.hub, &name)?.is_none() {
        event::reserve(tx, plan.hub, [])?;
    } else {
        tx.reserve([Sequence::TwinChanges, Sequence::IdentityChanges, Sequence::Events])?;
    }
    settle_identity(tx, &plan, finish, record.current.as_ref(), now)?;
    if let Some(old) = record.current.as_ref().filter(|old| (old.hub, &old.device_id) != (plan.hub, &plan.device_id)) {
        identity::remove(tx, old.hub, &IdentityName::device(old.device_id.clone()))?;
    }
    Ok(Finished::Done(settle_record(tx, &operation, plan, record, now)?))
}

/// Writes the assignment into the record and ends the operation.
fn settle_record(
    tx: &Tx<'_, '_>,
    operation: &Operation,
    plan: Planned,
    mut record: Record,
    now: UnixTime,
) -> Result<RegistrationState, Error> {
    let initial_hub = record.current.as_ref().map_or(plan.hub, |current| current.initial_hub);
    record.current = Some(Assigned { hub: plan.hub, device_id: plan.device_id.clone(), initial_hub });
    record.operation = None;
    record.state.status = RegistrationStatus::Assigned;
    record.state.substatus = Some(plan.substatus);
    record.state.assignment = Some(Assignment { host_name: plan.hub.0.to_string(), device_id: plan.device_id });
    record.state.error = None;
    record.state.payload = plan.payload;
    record.state.attested_by = Some(attested_by(&operation.registrant));
    write_record(tx, operation.registrant.service, &mut record, Admission::Unchanged, now)?;
    end(tx, operation.id, &record.state, now)?;
    Ok(record.state)
}

/// Brings the identity at the chosen hub, and its twin, into line with the plan.
fn settle_identity(
    tx: &mut Tx<'_, '_>,
    plan: &Planned,
    finish: Finish,
    current: Option<&Assigned>,
    now: UnixTime,
) -> Result<(), Error> {
    let name = IdentityName::device(plan.device_id.clone());
    let old = match current {
        Some(old) => identity::find_with_id(tx.db(), old.hub, &IdentityName::device(old.device_id.clone()))?,
        None => None,
    };
    let (authentication, mut capabilities) = credentials(finish.assignee);
    if let (TwinSource::Migrate, Some((_, old))) = (plan.twin, &old) {
        capabilities = Capabilities { iot_edge: capabilities.iot_edge || old.capabilities.iot_edge };
    }
    let migrated = match (plan.twin, &old) {
        (TwinSource::Migrate, Some((id, _))) => twin::find(tx.db(), *id)?,
        _ => None,
    };
    let Some((id, present)) = identity::find_with_id(tx.db(), plan.hub, &name)? else {
        let wanted = Identity { authentication, capabilities, ..Identity::blank(name) };
        let twin = first_twin(tx, migrated, finish.initial_twin, now)?;
        identity::insert(tx, plan.hub, wanted, &twin, now)?;
        return Ok(());
    };
    let wanted = Identity { authentication, capabilities, status: IdentityStatus::Enabled, ..present.clone() };
    if is_out_of_line(&present, &wanted) {
        identity::update(tx, (plan.hub, id), &present, wanted, now)?;
    }
    let is_same = old.is_some_and(|(old_id, _)| old_id == id);
    let sources = (migrated.filter(|_| !is_same), finish.initial_twin);
    settle_twin(tx, (plan.hub, id, &name), plan.twin, sources, now)
}

/// The twin of an identity that has none: the one that was carried along, or the initial one.
fn first_twin(
    tx: &Tx<'_, '_>,
    migrated: Option<Twin>,
    initial: Option<InitialTwin>,
    now: UnixTime,
) -> Result<Twin, Error> {
    let fresh = tx.fresh_etag()?;
    match migrated {
        Some(migrated) => Ok(migrated.migrate(fresh)),
        None => identity::fresh_twin(fresh, initial.map(change_of), now),
    }
}

fn is_out_of_line(present: &Identity, wanted: &Identity) -> bool {
    (&present.authentication, present.capabilities, present.status)
        != (&wanted.authentication, wanted.capabilities, wanted.status)
}

/// What the identity authenticates by, and what it may do.
fn credentials(assignee: Assignee) -> (Authentication, Capabilities) {
    match assignee {
        Assignee::SelfSigned { primary, secondary, capabilities } => {
            (Authentication::SelfSigned(Thumbprints { primary: Some(primary), secondary }), capabilities)
        }
        Assignee::Sas { primary, secondary, capabilities } => {
            (Authentication::Sas(KeyPair { primary, secondary }), capabilities)
        }
    }
}

fn change_of(initial: InitialTwin) -> ServiceChange {
    ServiceChange { tags: initial.tags, desired: initial.desired }
}

/// Makes the twin of an identity that was there before what the plan wants; a connected device is told.
fn settle_twin(
    tx: &mut Tx<'_, '_>,
    (hub, id, name): (HubKey, i64, &IdentityName),
    source: TwinSource,
    (migrated, initial): (Option<Twin>, Option<InitialTwin>),
    now: UnixTime,
) -> Result<(), Error> {
    let Some(mut twin) = twin::find(tx.db(), id)? else {
        let twin = first_twin(tx, migrated, initial, now)?;
        return twin::write(tx, hub, id, &twin);
    };
    let fresh = tx.fresh_etag()?;
    let before = twin.clone();
    let pushed = match (source, migrated) {
        (TwinSource::Keep, _) | (TwinSource::Migrate, None) => return Ok(()),
        (TwinSource::Migrate, Some(migrated)) => {
            twin = migrated.migrate(fresh);
            Some(twin.desired.device_document())
        }
        (TwinSource::Initial, _) => {
            let initial = initial.map(change_of).unwrap_or_default();
            let changes = twin.reset_to(initial, fresh, now);
            changes.map_err(|error| Error::backend("an initial twin", error))?.desired
        }
    };
    twin::write(tx, hub, id, &twin)?;
    if let Some(patch) = pushed {
        twin::announce(tx, hub, name, twin.desired.version(), &patch)?;
    }
    if let Some(identity) = identity::find_by_id(tx.db(), id)? {
        event::tell_of_twin(tx, (hub, &identity), (&before, &twin), event::Manner::Replaced, now)?;
    }
    Ok(())
}
