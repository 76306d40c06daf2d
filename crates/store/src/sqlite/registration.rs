//! Registrations and operations: accepted, claimed, planned, finished (`rules.md` 1 to 3).
//!
//! Every verb of a worker names its attempt; [`running`] refuses one that is not the latest of an operation that has not
//! ended. What finishing does to the identity and the twin is in `assign`.

mod assign;

use async_trait::async_trait;
use domain::attestation::{Credential, Proven, Registrant};
use domain::clock::UnixTime;
use domain::decision::Decision;
use domain::ids::{DeviceId, EnrollmentGroupId, HubKey, OperationId, Precondition, RegistrationId, ServiceKey};
use domain::operation::registration::{AttestedBy, RegistrationError, RegistrationState, RegistrationStatus};
use domain::operation::{Page, PageRequest};
use rusqlite::{Row, params};
use serde_json::Value;
use std::time::Duration;

use super::enrollment::{cut_page, page_limit};
use super::rows::{Bits, Column, Senseless, from_json, from_json_if, row_limit, to_json};
use super::{Db, Embedded, Tx, decision};
use crate::error::Error;
use crate::ports::{Accepted, Assigned, Changed, Claimed, Finish, Finished, OperationView, Planned, RegistrationStore};

const RECORD: Column = Column { table: "registration", column: "record" };

/// How long a worker may work on an operation before another may take it.
const LEASE: Duration = Duration::from_secs(30);

/// How an operation ends that another one replaced: a conflict with a later registration of the same device.
const SUPERSEDED: u32 = 409_000;
/// How an operation ends whose entry does not admit the device any more: as if it had just been refused.
const ENTRY_CHANGED: u32 = 401_002;

fn error(code: u32, message: &str) -> RegistrationError {
    RegistrationError { code, message: message.to_owned() }
}

/// A row of `registration`.
struct Record {
    state: RegistrationState,
    current: Option<Assigned>,
    operation: Option<OperationId>,
}

struct RecordRow {
    key: String,
    record: String,
    current: (Option<i64>, Option<String>, Option<i64>),
    operation: Option<String>,
}

impl RecordRow {
    const COLUMNS: &'static str = "registration_key, record, hub, device, initial_hub, operation";

    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            key: row.get(0)?,
            record: row.get(1)?,
            current: (row.get(2)?, row.get(3)?, row.get(4)?),
            operation: row.get(5)?,
        })
    }

    fn open(self) -> Result<Record, Error> {
        let column = |column| Column { table: "registration", column };
        let current = match self.current {
            (Some(hub), Some(device), initial) => Some(Assigned {
                hub: HubKey(hub),
                device_id: DeviceId::parse(&device).map_err(|error| column("device").corrupt(&self.key, error))?,
                initial_hub: HubKey(initial.unwrap_or(hub)),
            }),
            _ => None,
        };
        let parse = |text: &String| {
            let senseless = || column("operation").corrupt(&self.key, Senseless("it is not an operation ID"));
            OperationId::parse(text).ok_or_else(senseless)
        };
        let operation = self.operation.as_ref().map(parse).transpose()?;
        Ok(Record { state: from_json(&self.record, RECORD, &self.key)?, current, operation })
    }
}

fn find_record(db: Db<'_>, service: ServiceKey, registration_id: &RegistrationId) -> Result<Option<Record>, Error> {
    let sql = format!("SELECT {} FROM registration WHERE service = ?1 AND registration_key = ?2", RecordRow::COLUMNS);
    db.row(&sql, params![service.0, registration_id.key()], RecordRow::read)?.map(RecordRow::open).transpose()
}

/// Who admitted the device, as its record shall say.
#[derive(Clone, Copy)]
enum Admission<'a> {
    /// As it says already.
    Unchanged,
    /// A group, or an individual enrollment.
    By(Option<&'a EnrollmentGroupId>),
}

/// Writes a record under a fresh etag.
fn write_record(
    tx: &Tx<'_, '_>,
    service: ServiceKey,
    record: &mut Record,
    admission: Admission<'_>,
    now: UnixTime,
) -> Result<(), Error> {
    let etag = tx.fresh_etag()?;
    record.state.etag = Some(etag);
    record.state.updated_at = Some(now);
    record.state.created_at = record.state.created_at.or(Some(now));
    let current = record.current.as_ref();
    tx.change(
        "INSERT INTO registration (service, registration_key, record, hub, device, initial_hub, operation, etag) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) \
         ON CONFLICT (service, registration_key) DO UPDATE SET record = excluded.record, hub = excluded.hub, \
         device = excluded.device, initial_hub = excluded.initial_hub, operation = excluded.operation, \
         etag = excluded.etag",
        params![
            service.0,
            record.state.registration_id.key(),
            to_json(&record.state)?,
            current.map(|assigned| assigned.hub.0),
            current.map(|assigned| assigned.device_id.as_str()),
            current.map(|assigned| assigned.initial_hub.0),
            record.operation.map(|operation| operation.to_string()),
            Bits::from(etag)
        ],
    )?;
    if let Admission::By(group) = admission {
        tx.change(
            "UPDATE registration SET group_key = ?3, group_name = ?4 WHERE service = ?1 AND registration_key = ?2",
            params![
                service.0,
                record.state.registration_id.key(),
                group.map(EnrollmentGroupId::key),
                group.map(EnrollmentGroupId::as_str)
            ],
        )?;
    }
    Ok(())
}

/// A row of `operation`.
struct Operation {
    id: OperationId,
    registrant: Registrant,
    payload: Option<Value>,
    plan: Option<Planned>,
    attempt: u32,
    outcome: Option<RegistrationState>,
}

struct OperationRow {
    id: String,
    registrant: String,
    payload: Option<String>,
    plan: Option<String>,
    attempt: u32,
    outcome: Option<String>,
}

impl OperationRow {
    const COLUMNS: &'static str = "id, registrant, payload, plan, attempt, outcome";

    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            registrant: row.get(1)?,
            payload: row.get(2)?,
            plan: row.get(3)?,
            attempt: row.get(4)?,
            outcome: row.get(5)?,
        })
    }

    fn open(self) -> Result<Operation, Error> {
        let column = |column| Column { table: "operation", column };
        let senseless = || column("id").corrupt(&self.id, Senseless("it is not an operation ID"));
        Ok(Operation {
            id: OperationId::parse(&self.id).ok_or_else(senseless)?,
            registrant: from_json(&self.registrant, column("registrant"), &self.id)?,
            payload: from_json_if(self.payload.as_deref(), column("payload"), &self.id)?,
            plan: from_json_if(self.plan.as_deref(), column("plan"), &self.id)?,
            attempt: self.attempt,
            outcome: from_json_if(self.outcome.as_deref(), column("outcome"), &self.id)?,
        })
    }
}

fn find_operation(db: Db<'_>, id: OperationId) -> Result<Option<Operation>, Error> {
    let sql = format!("SELECT {} FROM operation WHERE id = ?1", OperationRow::COLUMNS);
    db.row(&sql, [id.to_string()], OperationRow::read)?.map(OperationRow::open).transpose()
}

/// The operation, if `attempt` is its latest and it has not ended.
fn running(db: Db<'_>, id: OperationId, attempt: u32) -> Result<Option<Operation>, Error> {
    let operation = find_operation(db, id)?;
    Ok(operation.filter(|operation| operation.attempt == attempt && operation.outcome.is_none()))
}

/// Ends an operation with `outcome`.
fn end(tx: &Tx<'_, '_>, id: OperationId, outcome: &RegistrationState, now: UnixTime) -> Result<(), Error> {
    let sql = "UPDATE operation SET ended_at = ?2, outcome = ?3 WHERE id = ?1 AND ended_at IS NULL";
    tx.change(sql, params![id.to_string(), now.micros(), to_json(outcome)?])?;
    Ok(())
}

/// Ends an operation because another one, or the removal of its record, took its place.
fn supersede(tx: &Tx<'_, '_>, id: OperationId, state: &RegistrationState, now: UnixTime) -> Result<(), Error> {
    let outcome = RegistrationState {
        status: RegistrationStatus::Failed,
        substatus: None,
        assignment: None,
        error: Some(error(SUPERSEDED, "A later registration of the device took the place of this one.")),
        updated_at: Some(now),
        payload: None,
        ..state.clone()
    };
    end(tx, id, &outcome, now)
}

fn accept(
    tx: &Tx<'_, '_>,
    device: &Registrant,
    (fresh, payload): (OperationId, Option<Value>),
    decision: &Decision,
    now: UnixTime,
) -> Result<Accepted, Error> {
    decision::record_admit(tx, decision)?;
    let record = find_record(tx.db(), device.service, &device.registration_id)?;
    if let Some(Record { operation: Some(id), state, .. }) = &record
        && let Some(operation) = find_operation(tx.db(), *id)?
        && operation.outcome.is_none()
    {
        if operation.registrant.admitted_by == device.admitted_by
            && operation.registrant.credential == device.credential
        {
            return Ok(Accepted::AlreadyRunning(*id));
        }
        supersede(tx, *id, state, now)?;
    }
    let mut record = record.unwrap_or_else(|| Record {
        state: RegistrationState::unassigned(device.registration_id.clone()),
        current: None,
        operation: None,
    });
    record.state.registration_id = device.registration_id.clone();
    record.state.status = RegistrationStatus::Assigning;
    record.state.error = None;
    record.operation = Some(fresh);
    write_record(tx, device.service, &mut record, Admission::By(device.admitted_by.name.group()), now)?;
    tx.change(
        "INSERT INTO operation (id, service, registration_key, registrant, payload) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![
            fresh.to_string(),
            device.service.0,
            device.registration_id.key(),
            to_json(device)?,
            payload.as_ref().map(to_json).transpose()?
        ],
    )?;
    Ok(Accepted::New)
}

fn claim(tx: &Tx<'_, '_>, limit: usize, now: UnixTime) -> Result<Vec<Claimed>, Error> {
    let sql = format!(
        "SELECT {} FROM operation WHERE ended_at IS NULL AND (lease_run <> ?1 OR lease_until <= ?2) \
         ORDER BY sequence LIMIT ?3",
        OperationRow::COLUMNS
    );
    let rows = tx.db().rows(&sql, params![tx.context.run, now.micros(), row_limit(limit)], OperationRow::read)?;
    let lease = "UPDATE operation SET attempt = attempt + 1, lease_run = ?2, lease_until = ?3 WHERE id = ?1";
    let mut claimed = Vec::with_capacity(rows.len());
    for row in rows {
        tx.change(lease, params![row.id, tx.context.run, now.plus(LEASE).micros()])?;
        let Operation { id, registrant, payload, plan, attempt, .. } = row.open()?;
        let record = find_record(tx.db(), registrant.service, &registrant.registration_id)?;
        let current = record.and_then(|record| record.current);
        claimed.push(Claimed { operation: id, attempt: attempt + 1, registrant, payload, plan, current });
    }
    Ok(claimed)
}

fn plan(tx: &Tx<'_, '_>, id: OperationId, attempt: u32, plan: Planned) -> Result<Finished<Planned>, Error> {
    let Some(operation) = running(tx.db(), id, attempt)? else { return Ok(Finished::Fenced) };
    if let Some(earlier) = operation.plan {
        return Ok(Finished::Done(earlier));
    }
    tx.change("UPDATE operation SET plan = ?2 WHERE id = ?1", params![id.to_string(), to_json(&plan)?])?;
    Ok(Finished::Done(plan))
}

/// Ends an operation as failed, in the record as well; an assignment that the device has stays.
fn fail(
    tx: &Tx<'_, '_>,
    operation: &Operation,
    error: RegistrationError,
    now: UnixTime,
) -> Result<RegistrationState, Error> {
    let Registrant { service, registration_id, .. } = &operation.registrant;
    let record = find_record(tx.db(), *service, registration_id)?;
    let mut record = record.unwrap_or_else(|| Record {
        state: RegistrationState::unassigned(registration_id.clone()),
        current: None,
        operation: None,
    });
    record.state.status = RegistrationStatus::Failed;
    record.state.error = Some(error);
    record.state.attested_by = Some(attested_by(&operation.registrant));
    record.operation = None;
    write_record(tx, *service, &mut record, Admission::Unchanged, now)?;
    end(tx, operation.id, &record.state, now)?;
    Ok(record.state)
}

/// How the device was attested, as far as replies show it.
fn attested_by(registrant: &Registrant) -> AttestedBy {
    let group = registrant.admitted_by.name.group().cloned();
    match registrant.credential {
        Credential::X509 { .. } => AttestedBy::X509 { group },
        Credential::SymmetricKey { .. } => AttestedBy::SymmetricKey { group },
    }
}

fn note_refusal(
    tx: &Tx<'_, '_>,
    (service, registration_id): (ServiceKey, &RegistrationId),
    status: RegistrationStatus,
    error: Option<RegistrationError>,
    now: UnixTime,
) -> Result<(), Error> {
    let record = match find_record(tx.db(), service, registration_id)? {
        Some(record) => record,
        None if status == RegistrationStatus::Disabled => {
            Record { state: RegistrationState::unassigned(registration_id.clone()), current: None, operation: None }
        }
        None => return Ok(()),
    };
    let mut record = record;
    if (record.state.status, &record.state.error) == (status, &error) {
        // A device that tries again and again must not cost a sync each time.
        return Ok(());
    }
    record.state.status = status;
    record.state.error = error;
    write_record(tx, service, &mut record, Admission::Unchanged, now)
}

/// Removes the record of a device; an operation that is under way ends as superseded.
pub(super) fn remove(tx: &Tx<'_, '_>, service: ServiceKey, registration_id: &RegistrationId) -> Result<(), Error> {
    let Some(record) = find_record(tx.db(), service, registration_id)? else { return Ok(()) };
    if let Some(operation) = record.operation {
        supersede(tx, operation, &record.state, tx.context.clock.now())?;
    }
    let sql = "DELETE FROM registration WHERE service = ?1 AND registration_key = ?2";
    tx.change(sql, params![service.0, registration_id.key()])?;
    Ok(())
}

fn delete(
    tx: &Tx<'_, '_>,
    service: ServiceKey,
    registration_id: &RegistrationId,
    precondition: Precondition,
) -> Result<Changed<RegistrationState>, Error> {
    let Some(record) = find_record(tx.db(), service, registration_id)? else { return Ok(Changed::NotFound) };
    if let Some(present) = record.state.etag.filter(|&present| !precondition.holds(present)) {
        return Ok(Changed::PreconditionFailed { present });
    }
    remove(tx, service, registration_id)?;
    Ok(Changed::Done(record.state))
}

fn view(db: Db<'_>, service: ServiceKey, id: OperationId) -> Result<Option<OperationView>, Error> {
    let operation = find_operation(db, id)?.filter(|operation| operation.registrant.service == service);
    Ok(operation.map(|operation| OperationView {
        registration_id: operation.registrant.registration_id,
        outcome: operation.outcome,
    }))
}

fn admitting_group(
    db: Db<'_>,
    service: ServiceKey,
    registration_id: &RegistrationId,
) -> Result<Option<EnrollmentGroupId>, Error> {
    let sql = "SELECT group_name FROM registration WHERE service = ?1 AND registration_key = ?2";
    let name: Option<Option<String>> = db.row(sql, params![service.0, registration_id.key()], |row| row.get(0))?;
    let column = Column { table: "registration", column: "group_name" };
    let parse = |name: String| EnrollmentGroupId::parse(&name).map_err(|error| column.corrupt(registration_id, error));
    name.flatten().map(parse).transpose()
}

fn list(
    db: Db<'_>,
    service: ServiceKey,
    group: &EnrollmentGroupId,
    page: &PageRequest,
) -> Result<Page<RegistrationState>, Error> {
    let after = page.after.as_ref().map_or("", |cursor| cursor.0.as_str());
    let limit = page_limit(page);
    let sql = format!(
        "SELECT {} FROM registration WHERE service = ?1 AND group_key = ?2 AND registration_key > ?3 \
         ORDER BY registration_key LIMIT ?4",
        RecordRow::COLUMNS
    );
    let rows = db.rows(&sql, params![service.0, group.key(), after, row_limit(limit + 1)], RecordRow::read)?;
    let (rows, next) = cut_page(rows, limit, |row| row.key.clone());
    let items = rows.into_iter().map(|row| Ok(row.open()?.state)).collect::<Result<_, Error>>()?;
    Ok(Page { items, next })
}

#[async_trait]
impl RegistrationStore for Embedded {
    async fn accept_registration(
        &self,
        device: &Proven<Registrant>,
        fresh: OperationId,
        payload: Option<Value>,
        decision: Decision,
        now: UnixTime,
    ) -> Result<Accepted, Error> {
        let device = Registrant::clone(device);
        self.write(move |tx| accept(tx, &device, (fresh, payload), &decision, now)).await
    }

    async fn claim_operations(&self, limit: usize, now: UnixTime) -> Result<Vec<Claimed>, Error> {
        self.write(move |tx| claim(tx, limit, now)).await
    }

    async fn plan_assignment(
        &self,
        operation: OperationId,
        attempt: u32,
        wanted: Planned,
        _now: UnixTime,
    ) -> Result<Finished<Planned>, Error> {
        self.write(move |tx| plan(tx, operation, attempt, wanted)).await
    }

    async fn finish_assignment(
        &self,
        operation: OperationId,
        attempt: u32,
        finish: Finish,
        now: UnixTime,
    ) -> Result<Finished<RegistrationState>, Error> {
        self.write(move |tx| assign::finish(tx, (operation, attempt), finish, now)).await
    }

    async fn fail_assignment(
        &self,
        operation: OperationId,
        attempt: u32,
        error: RegistrationError,
        now: UnixTime,
    ) -> Result<Finished<RegistrationState>, Error> {
        self.write(move |tx| match running(tx.db(), operation, attempt)? {
            Some(operation) => Ok(Finished::Done(fail(tx, &operation, error, now)?)),
            None => Ok(Finished::Fenced),
        })
        .await
    }

    async fn note_refusal(
        &self,
        service: ServiceKey,
        registration_id: &RegistrationId,
        status: RegistrationStatus,
        error: Option<RegistrationError>,
        now: UnixTime,
    ) -> Result<(), Error> {
        let registration_id = registration_id.clone();
        // A refusal never waits for the disk (`rules.md` 7).
        self.write_relaxed(move |tx| note_refusal(tx, (service, &registration_id), status, error, now)).await
    }

    async fn find_operation(
        &self,
        service: ServiceKey,
        operation: OperationId,
    ) -> Result<Option<OperationView>, Error> {
        self.read(move |db| view(db, service, operation)).await
    }

    async fn find_registration(
        &self,
        service: ServiceKey,
        registration_id: &RegistrationId,
    ) -> Result<Option<RegistrationState>, Error> {
        let registration_id = registration_id.clone();
        self.read(move |db| Ok(find_record(db, service, &registration_id)?.map(|record| record.state))).await
    }

    async fn find_admitting_group(
        &self,
        service: ServiceKey,
        registration_id: &RegistrationId,
    ) -> Result<Option<EnrollmentGroupId>, Error> {
        let registration_id = registration_id.clone();
        self.read(move |db| admitting_group(db, service, &registration_id)).await
    }

    async fn delete_registration(
        &self,
        service: ServiceKey,
        registration_id: &RegistrationId,
        precondition: Precondition,
    ) -> Result<Changed<RegistrationState>, Error> {
        let registration_id = registration_id.clone();
        self.write(move |tx| delete(tx, service, &registration_id, precondition)).await
    }

    async fn list_registrations(
        &self,
        service: ServiceKey,
        group: &EnrollmentGroupId,
        page: PageRequest,
    ) -> Result<Page<RegistrationState>, Error> {
        let group = group.clone();
        self.scan(move |db| list(db, service, &group, &page)).await
    }

    async fn prune_operations(&self, before: UnixTime, limit: usize) -> Result<usize, Error> {
        self.write_relaxed(move |tx| {
            let sql = "DELETE FROM operation WHERE sequence IN \
                       (SELECT sequence FROM operation WHERE ended_at < ?1 ORDER BY ended_at LIMIT ?2)";
            tx.change(sql, params![before.micros(), row_limit(limit)])
        })
        .await
    }
}
