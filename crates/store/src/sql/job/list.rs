//! The devices of jobs, and what became of each.
//!
//! A row moves from pending over running to done or failed, and its job's counts with it, in one transaction with what is
//! done: a twin is changed and noted together, so that nobody changes it twice. Start at [`enlist`].

use domain::clock::UnixTime;
use domain::ids::{HubKey, JobId, ModuleId, Precondition};
use domain::job::{DeviceFault, DeviceJob, DeviceJobStatus, DeviceOutcome, Work};
use domain::method::Response;
use domain::operation::identity::IdentityName;
use serde::{Deserialize, Serialize};

use super::super::link::{Flow, Sequence, Statement};
use super::super::rows::{Column, from_json, from_json_if, moment, row_limit, to_json};
use super::super::twin::{self, name_of};
use super::super::value::{Row, params};
use super::super::{Db, Tx};
use super::{CANCELLED, FAILED, JobRecord, RECORD, begin, kind_of, payload_of, settle, text_of};
use crate::error::Error;
use crate::ports::{DeviceJobsWanted, Enlisted, JobKey, Place, Searched, TwinOutcome};

const OUTCOME: Column = Column { table: "job_device", column: "outcome" };
const DEVICE: Column = Column { table: "job_device", column: "device" };

/// Rows of one answer end with the one that brings their outcomes to so many bytes.
const FOUND_BYTES_MAX: usize = 4 << 20;

const PENDING: i64 = 0;
const CALLED: i64 = 1;
const DONE: i64 = 2;
const FAULTY: i64 = 3;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum StoredOutcome {
    Patched,
    Responded { status: i32, payload: String },
    Failed(DeviceFault),
}

impl StoredOutcome {
    fn of(outcome: DeviceOutcome) -> Self {
        match outcome {
            DeviceOutcome::Patched => Self::Patched,
            DeviceOutcome::Responded(Response { status, payload }) => {
                Self::Responded { status, payload: text_of(&payload) }
            }
            DeviceOutcome::Failed(fault) => Self::Failed(fault),
        }
    }

    fn open(self, key: i64) -> Result<DeviceOutcome, Error> {
        Ok(match self {
            Self::Patched => DeviceOutcome::Patched,
            Self::Responded { status, payload } => {
                DeviceOutcome::Responded(Response { status, payload: payload_of(payload, OUTCOME, key)? })
            }
            Self::Failed(fault) => DeviceOutcome::Failed(fault),
        })
    }
}

pub(super) fn enlist(tx: &Tx<'_, '_>, job: JobKey, piece: &Enlisted, now: UnixTime) -> Result<(), Error> {
    let Some(row) = begin(tx, job, now)? else { return Ok(()) };
    if row.place != Some(piece.after.map_or(0, |place| place.0)) {
        return Ok(());
    }
    let mut found = 0;
    for (place, name) in &piece.found {
        let module = name.module.as_ref().map_or("", ModuleId::as_str);
        found += tx.change(
            "INSERT INTO job_device (job, hub, identity, device, module) VALUES (?1, ?2, ?3, ?4, ?5) \
             ON CONFLICT DO NOTHING",
            params![job.0, row.hub, place.0, name.device.as_str(), module],
        )?;
    }
    let sql = "UPDATE job SET place = ?2, pending = pending + ?3 WHERE key = ?1";
    tx.change(sql, params![job.0, piece.next.map(|place| place.0), row_limit(found)])?;
    settle(tx, job, now)
}

/// The next rows of a list to which nothing was done.
fn pending(db: Db<'_>, job: JobKey, limit: usize) -> Result<Vec<(i64, IdentityName)>, Error> {
    let sql =
        "SELECT sequence, device, module FROM job_device WHERE job = ?1 AND status = 0 ORDER BY sequence LIMIT ?2";
    let rows = db.rows(sql, params![job.0, row_limit(limit)], |row| {
        Ok((row.get::<i64>(0)?, row.get::<String>(1)?, row.get::<String>(2)?))
    })?;
    rows.into_iter().map(|(sequence, device, module)| Ok((sequence, name_of(&device, &module, DEVICE)?))).collect()
}

pub(super) fn patch_twins(tx: &mut Tx<'_, '_>, job: JobKey, limit: usize, now: UnixTime) -> Result<usize, Error> {
    tx.reserve([Sequence::TwinChanges, Sequence::Events])?;
    let Some(row) = begin(tx, job, now)? else { return Ok(0) };
    let record: JobRecord = from_json(&row.record, RECORD, row.key)?;
    let Work::PatchTwin { change, etag } = record.work.open(row.key)? else { return Ok(0) };
    let precondition = etag.map_or(Precondition::None, Precondition::Matches);
    let listed = pending(tx.db(), job, limit)?;
    for (sequence, name) in &listed {
        let outcome = match twin::patch(tx, (HubKey(row.hub), name), change.clone(), precondition, now) {
            Ok(outcome) => outcome_of(outcome),
            // One device whose rows do not parse must not hold up the others for ever.
            Err(error @ Error::Corrupt { .. }) => {
                tracing::error!(error = %crate::error::chain(&error), job.id = row.id, "a job fails at a device");
                DeviceOutcome::Failed(DeviceFault::Internal)
            }
            Err(error) => return Err(error),
        };
        close(tx, (job, *sequence), PENDING, outcome, now)?;
    }
    settle(tx, job, now)?;
    Ok(listed.len())
}

fn outcome_of<T>(outcome: TwinOutcome<T>) -> DeviceOutcome {
    DeviceOutcome::Failed(match outcome {
        TwinOutcome::Done(_) => return DeviceOutcome::Patched,
        TwinOutcome::NotFound => DeviceFault::NotFound,
        TwinOutcome::PreconditionFailed => DeviceFault::PreconditionFailed,
        TwinOutcome::Refused(error) => DeviceFault::Refused(format!("{error}.")),
    })
}

pub(super) fn begin_calls(
    tx: &Tx<'_, '_>,
    job: JobKey,
    limit: usize,
    now: UnixTime,
) -> Result<Vec<(Place, IdentityName)>, Error> {
    if begin(tx, job, now)?.is_none() {
        return Ok(Vec::new());
    }
    let listed = pending(tx.db(), job, limit)?;
    for (sequence, _) in &listed {
        let sql = "UPDATE job_device SET status = ?2, started_at = ?3 WHERE sequence = ?1";
        tx.change(sql, params![sequence, CALLED, now.micros()])?;
    }
    let sql = "UPDATE job SET pending = pending - ?2, running = running + ?2 WHERE key = ?1";
    tx.change(sql, params![job.0, row_limit(listed.len())])?;
    Ok(listed.into_iter().map(|(sequence, name)| (Place(sequence), name)).collect())
}

pub(super) fn end_call(
    tx: &Tx<'_, '_>,
    (job, device): (JobKey, Place),
    outcome: DeviceOutcome,
    now: UnixTime,
) -> Result<(), Error> {
    close(tx, (job, device.0), CALLED, outcome, now)?;
    settle(tx, job, now)
}

/// Notes what came of a device that stands at `from`, and counts it.
fn close(
    tx: &Tx<'_, '_>,
    (job, sequence): (JobKey, i64),
    from: i64,
    outcome: DeviceOutcome,
    now: UnixTime,
) -> Result<(), Error> {
    let is_done = !matches!(outcome, DeviceOutcome::Failed(_));
    let status = if is_done { DONE } else { FAULTY };
    let changed = tx.change(
        "UPDATE job_device SET status = ?3, started_at = coalesce(started_at, ?4), ended_at = ?4, outcome = ?5 \
         WHERE sequence = ?1 AND job = ?2 AND status = ?6",
        params![sequence, job.0, status, now.micros(), to_json(&StoredOutcome::of(outcome))?, from],
    )?;
    if changed == 0 {
        return Ok(());
    }
    let sql = match (from == PENDING, is_done) {
        (true, true) => "UPDATE job SET pending = pending - 1, succeeded = succeeded + 1 WHERE key = ?1",
        (true, false) => "UPDATE job SET pending = pending - 1, failed = failed + 1 WHERE key = ?1",
        (false, true) => "UPDATE job SET running = running - 1, succeeded = succeeded + 1 WHERE key = ?1",
        (false, false) => "UPDATE job SET running = running - 1, failed = failed + 1 WHERE key = ?1",
    };
    tx.change(sql, [job.0])?;
    Ok(())
}

pub(super) fn interrupt(tx: &Tx<'_, '_>, now: UnixTime) -> Result<(), Error> {
    // As many as may be called at once at each hub, which is not many.
    let outcome = to_json(&StoredOutcome::Failed(DeviceFault::Interrupted))?;
    let sql = "UPDATE job_device SET status = ?1, ended_at = ?2, outcome = ?3 WHERE status = 1";
    tx.change(sql, params![FAULTY, now.micros(), outcome])?;
    let jobs = tx.db().rows("SELECT key FROM job WHERE running > 0", (), |row| row.get::<i64>(0))?;
    for job in jobs {
        tx.change("UPDATE job SET failed = failed + running, running = 0 WHERE key = ?1", [job])?;
        settle(tx, JobKey(job), now)?;
    }
    Ok(())
}

/// A row of `job_device` with what it shows of its job.
struct DeviceRow {
    sequence: i64,
    job: String,
    kind: i64,
    job_status: i64,
    job_ended_at: Option<i64>,
    created_at: i64,
    device: String,
    module: String,
    status: i64,
    started_at: Option<i64>,
    ended_at: Option<i64>,
    outcome: Option<String>,
}

impl DeviceRow {
    const COLUMNS: &str = "d.sequence, j.id, j.kind, j.status, j.ended_at, j.created_at, d.device, d.module, d.status, \
                           d.started_at, d.ended_at, d.outcome";

    fn read(row: &Row<'_>) -> Result<Self, Error> {
        Ok(Self {
            sequence: row.get(0)?,
            job: row.get(1)?,
            kind: row.get(2)?,
            job_status: row.get(3)?,
            job_ended_at: row.get(4)?,
            created_at: row.get(5)?,
            device: row.get(6)?,
            module: row.get(7)?,
            status: row.get(8)?,
            started_at: row.get(9)?,
            ended_at: row.get(10)?,
            outcome: row.get(11)?,
        })
    }

    fn open(self) -> Result<(Place, DeviceJob), Error> {
        let outcome: Option<StoredOutcome> = from_json_if(self.outcome.as_deref(), OUTCOME, self.sequence)?;
        let outcome = outcome.map(|outcome| outcome.open(self.sequence)).transpose()?;
        // What its job left undone ended with it.
        let (status, ended_at, outcome) = match (self.status, self.job_status) {
            (PENDING, CANCELLED) => (DeviceJobStatus::Cancelled, self.job_ended_at, None),
            (PENDING, FAILED) => {
                let outcome = DeviceOutcome::Failed(DeviceFault::TimeRanOut);
                (DeviceJobStatus::Failed, self.job_ended_at, Some(outcome))
            }
            (PENDING, _) => (DeviceJobStatus::Pending, None, None),
            (CALLED, _) => (DeviceJobStatus::Running, None, None),
            (DONE, _) => (DeviceJobStatus::Completed, self.ended_at, outcome),
            _ => (DeviceJobStatus::Failed, self.ended_at, outcome),
        };
        let row = DeviceJob {
            job: JobId::parse(&self.job).map_err(|error| RECORD.corrupt(&self.job, error))?,
            kind: kind_of(self.kind),
            name: name_of(&self.device, &self.module, DEVICE)?,
            status,
            created_at: moment(self.created_at),
            started_at: self.started_at.map_or(UnixTime::NEVER, moment),
            ended_at: ended_at.map_or(UnixTime::NEVER, moment),
            outcome,
        };
        Ok((Place(self.sequence), row))
    }
}

pub(super) fn find(
    db: Db<'_>,
    hub: HubKey,
    (wanted, after): (&DeviceJobsWanted, Option<Place>),
    limit: usize,
) -> Result<Searched<Vec<(Place, DeviceJob)>>, Error> {
    let wanted_by = match (&wanted.job, &wanted.device) {
        // The one condition leads to few rows by its index; the other is asked of these.
        (Some(_), _) => {
            "d.job = (SELECT key FROM job WHERE hub = ?1 AND id = ?4) AND (CAST(?5 AS TEXT) IS NULL OR d.device = ?5)"
        }
        (None, Some(_)) => "d.hub = ?1 AND d.device = ?5 AND CAST(?4 AS TEXT) IS NULL",
        (None, None) => "d.hub = ?1 AND CAST(?4 AS TEXT) IS NULL AND CAST(?5 AS TEXT) IS NULL",
    };
    let sql = format!(
        "SELECT {} FROM job_device d JOIN job j ON j.key = d.job WHERE {wanted_by} AND d.sequence > ?2 \
         ORDER BY d.sequence LIMIT ?3",
        DeviceRow::COLUMNS
    );
    let after = after.map_or(0, |place| place.0);
    let (mut found, mut bytes) = (Vec::new(), 0);
    let asked = params![hub.0, after, row_limit(limit), wanted.job, wanted.device];
    db.visit((&sql, Statement::Kept), asked, |row| {
        let row = DeviceRow::read(row)?;
        bytes += row.outcome.as_ref().map_or(0, String::len);
        found.push(row.open()?);
        Ok(if bytes >= FOUND_BYTES_MAX { Flow::Stop } else { Flow::GoOn })
    })?;
    let is_cut = found.len() == limit || bytes >= FOUND_BYTES_MAX;
    let next = found.last().map(|(place, _)| *place).filter(|_| is_cut);
    Ok(Searched { result: found, next })
}
