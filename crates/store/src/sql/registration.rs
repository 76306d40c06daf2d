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
use serde_json::Value;
use std::time::Duration;

use super::enrollment::{cut_page, page_limit};
use super::rows::{Bits, Column, Senseless, from_json, from_json_if, row_limit, to_json};
use super::value::{Row, params};
use super::{Db, Embedded, Tx, decision, resource};
use crate::error::Error;
use crate::ports::{Accepted, Assigned, Changed, Claimed, Finish, Finished, OperationView, Planned, RegistrationStore};

const RECORD: Column = Column { table: "registration", column: "record" };

/// How long a worker may work on an operation before another may take it.
const LEASE: Duration = Duration::from_secs(30);

/// How an operation ends that another one replaced: a conflict with a later registration of the same device.
const SUPERSEDED: u32 = 409_000;
/// How an operation ends whose row does not parse: a fault of this service.
const UNREADABLE: u32 = 500_000;
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

impl Record {
    /// The record of a device that has not registered.
    fn blank(registration_id: RegistrationId) -> Self {
        Self { state: RegistrationState::unassigned(registration_id), current: None, operation: None }
    }
}

struct RecordRow {
    key: String,
    record: String,
    current: (Option<i64>, Option<String>, Option<i64>),
    operation: Option<String>,
}

impl RecordRow {
    const COLUMNS: &'static str = "r.registration_key, r.record, r.hub, r.device, r.initial_hub, r.operation";

    fn read(row: &Row<'_>) -> Result<Self, Error> {
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
    let sql = format!(
        "SELECT {} FROM registration r JOIN service s ON s.key = r.service \
         WHERE r.service = ?1 AND r.registration_key = ?2",
        RecordRow::COLUMNS
    );
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

/// An operation in full. Reading one parses certificates, so that it is read only where the registrant is needed.
struct Operation {
    id: OperationId,
    registrant: Registrant,
    plan: Option<Planned>,
}

const fn operation_column(column: &'static str) -> Column {
    Column { table: "operation", column }
}

/// How far an operation is that has not ended.
struct Progress {
    plan: Option<Planned>,
}

/// How far the operation is, if `attempt` is its latest, it has not ended and its provisioning service is there.
fn progress(db: Db<'_>, id: OperationId, attempt: u32) -> Result<Option<Progress>, Error> {
    let sql = "SELECT o.plan FROM operation o JOIN service s ON s.key = o.service \
               WHERE o.id = ?1 AND o.attempt = ?2 AND o.ended_at IS NULL";
    let read = |row: &Row<'_>| row.get::<Option<String>>(0);
    let Some(plan) = db.row(sql, params![id.to_string(), attempt], read)? else { return Ok(None) };
    Ok(Some(Progress { plan: from_json_if(plan.as_deref(), operation_column("plan"), id)? }))
}

/// The operation, if `attempt` is its latest, it has not ended and its provisioning service is there.
fn running(db: Db<'_>, id: OperationId, attempt: u32) -> Result<Option<Operation>, Error> {
    let Some(Progress { plan }) = progress(db, id, attempt)? else { return Ok(None) };
    let sql = "SELECT registrant FROM operation WHERE id = ?1";
    let registrant: Option<String> = db.row(sql, [id.to_string()], |row| row.get(0))?;
    let registrant = registrant.map(|text| from_json(&text, operation_column("registrant"), id)).transpose()?;
    Ok(registrant.map(|registrant| Operation { id, registrant, plan }))
}

/// Whether the operation runs, and if so, whether `device` was admitted to it by the same entry with the same credential.
fn is_joined(db: Db<'_>, id: OperationId, device: &Registrant) -> Result<Option<bool>, Error> {
    let sql = "SELECT registrant FROM operation WHERE id = ?1 AND ended_at IS NULL";
    let Some(text) = db.row(sql, [id.to_string()], |row| row.get::<String>(0))? else { return Ok(None) };
    // Compared as they are written: certificates need not be parsed to tell whether they are equal.
    let running: Value = from_json(&text, operation_column("registrant"), id)?;
    let wanted = serde_json::to_value(device).map_err(|error| Error::backend("writing a registrant", error))?;
    let is_same = |member| running.get(member) == wanted.get(member);
    Ok(Some(is_same("admitted_by") && is_same("credential")))
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
    mut decision: Decision,
    now: UnixTime,
) -> Result<Accepted, Error> {
    if !resource::service_exists(tx.db(), device.service)? {
        return Ok(Accepted::ServiceGone);
    }
    let record = find_record(tx.db(), device.service, &device.registration_id)?;
    if let Some(Record { operation: Some(id), state, .. }) = &record {
        match is_joined(tx.db(), *id, device)? {
            Some(true) => {
                decision.outcome.joins(*id);
                decision::record_admit(tx, &decision)?;
                return Ok(Accepted::AlreadyRunning(*id));
            }
            Some(false) => supersede(tx, *id, state, now)?,
            None => {}
        }
    }
    decision::record_admit(tx, &decision)?;
    let mut record = record.unwrap_or_else(|| Record::blank(device.registration_id.clone()));
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

/// A row of `operation` that can be claimed.
struct ClaimRow {
    id: String,
    service: i64,
    registration_key: String,
    registrant: String,
    payload: Option<String>,
    plan: Option<String>,
    attempt: u32,
}

impl ClaimRow {
    const COLUMNS: &'static str = "id, service, registration_key, registrant, payload, plan, attempt";

    fn read(row: &Row<'_>) -> Result<Self, Error> {
        Ok(Self {
            id: row.get(0)?,
            service: row.get(1)?,
            registration_key: row.get(2)?,
            registrant: row.get(3)?,
            payload: row.get(4)?,
            plan: row.get(5)?,
            attempt: row.get(6)?,
        })
    }

    fn open(&self, db: Db<'_>) -> Result<Claimed, Error> {
        let column = operation_column;
        let senseless = || column("id").corrupt(&self.id, Senseless("it is not an operation ID"));
        let registrant: Registrant = from_json(&self.registrant, column("registrant"), &self.id)?;
        let record = find_record(db, registrant.service, &registrant.registration_id)?;
        Ok(Claimed {
            operation: OperationId::parse(&self.id).ok_or_else(senseless)?,
            attempt: self.attempt + 1,
            registrant,
            payload: from_json_if(self.payload.as_deref(), column("payload"), &self.id)?,
            plan: from_json_if(self.plan.as_deref(), column("plan"), &self.id)?,
            current: record.and_then(|record| record.current),
        })
    }
}

fn claim(tx: &Tx<'_, '_>, limit: usize) -> Result<Vec<Claimed>, Error> {
    // The lease was given by this clock, and the caller's may differ from it (`rules.md` 2).
    let now = tx.context.clock.now();
    let sql = format!(
        "SELECT {} FROM operation WHERE ended_at IS NULL AND (lease_run <> ?1 OR lease_until <= ?2) \
         AND service IN (SELECT key FROM service) ORDER BY sequence LIMIT ?3",
        ClaimRow::COLUMNS
    );
    let rows = tx.db().rows(&sql, params![tx.context.run, now.micros(), row_limit(limit)], ClaimRow::read)?;
    let lease = "UPDATE operation SET attempt = attempt + 1, lease_run = ?2, lease_until = ?3 WHERE id = ?1";
    let mut claimed = Vec::with_capacity(rows.len());
    for row in rows {
        match row.open(tx.db()) {
            Ok(operation) => {
                tx.change(lease, params![row.id, tx.context.run, now.plus(LEASE).micros()])?;
                claimed.push(operation);
            }
            Err(error @ Error::Corrupt { .. }) => {
                tracing::error!(error = %crate::error::chain(&error), "an operation that cannot be read was ended");
                end_unreadable(tx, &row, now)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(claimed)
}

/// Ends an operation that does not parse, so that those behind it are worked on, and tells the device to register again.
fn end_unreadable(tx: &Tx<'_, '_>, row: &ClaimRow, now: UnixTime) -> Result<(), Error> {
    let mut outcome = None;
    if let Ok(registration_id) = RegistrationId::parse(&row.registration_key) {
        let service = ServiceKey(row.service);
        let blank = || Record::blank(registration_id.clone());
        // A record that does not parse either is written afresh.
        let mut record = find_record(tx.db(), service, &registration_id).ok().flatten().unwrap_or_else(blank);
        record.state.status = RegistrationStatus::Failed;
        record.state.error = Some(error(UNREADABLE, "Internal error."));
        record.operation = None;
        write_record(tx, service, &mut record, Admission::Unchanged, now)?;
        outcome = Some(to_json(&record.state)?);
    }
    let sql = "UPDATE operation SET ended_at = ?2, outcome = ?3 WHERE id = ?1";
    tx.change(sql, params![row.id, now.micros(), outcome])?;
    Ok(())
}

fn plan(tx: &Tx<'_, '_>, id: OperationId, attempt: u32, plan: Planned) -> Result<Finished<Planned>, Error> {
    let Some(progress) = progress(tx.db(), id, attempt)? else { return Ok(Finished::Fenced) };
    if let Some(earlier) = progress.plan {
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
    let mut record = record.unwrap_or_else(|| Record::blank(registration_id.clone()));
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
    if !resource::service_exists(tx.db(), service)? {
        return Ok(());
    }
    let record = match find_record(tx.db(), service, registration_id)? {
        Some(record) => record,
        None if status == RegistrationStatus::Disabled => Record::blank(registration_id.clone()),
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
    let sql = "SELECT o.registration_key, o.outcome FROM operation o JOIN service s ON s.key = o.service \
               WHERE o.id = ?1 AND o.service = ?2";
    let read = |row: &Row<'_>| Ok((row.get::<String>(0)?, row.get::<Option<String>>(1)?));
    let Some((key, outcome)) = db.row(sql, params![id.to_string(), service.0], read)? else { return Ok(None) };
    let column = operation_column;
    Ok(Some(OperationView {
        registration_id: RegistrationId::parse(&key).map_err(|error| column("registration_key").corrupt(id, error))?,
        outcome: from_json_if(outcome.as_deref(), column("outcome"), id)?,
    }))
}

fn admitting_group(
    db: Db<'_>,
    service: ServiceKey,
    registration_id: &RegistrationId,
) -> Result<Option<EnrollmentGroupId>, Error> {
    let sql = "SELECT r.group_name FROM registration r JOIN service s ON s.key = r.service \
               WHERE r.service = ?1 AND r.registration_key = ?2";
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
        "SELECT {} FROM registration r JOIN service s ON s.key = r.service \
         WHERE r.service = ?1 AND r.group_key = ?2 AND r.registration_key > ?3 ORDER BY r.registration_key LIMIT ?4",
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
        self.write(move |tx| accept(tx, &device, (fresh, payload), decision, now)).await
    }

    async fn claim_operations(&self, limit: usize) -> Result<Vec<Claimed>, Error> {
        self.write(move |tx| claim(tx, limit)).await
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
