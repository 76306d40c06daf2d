//! Jobs: what is to be done, where each stands, and when it ends. The lists of their devices are in `list`.
//!
//! A job counts its devices in its own row, in the transaction that moves one of them, so that nobody has to count them
//! to know whether it has come to its end. Start at [`settle`].

mod list;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use domain::clock::UnixTime;
use domain::ids::{Etag, HubKey, JobId, MethodName};
use domain::job::{
    DeviceJob, DeviceOutcome, Draft, Filter, Job, JobFailure, JobKind, JobStatus, RUNNING_PER_HUB_MAX, Tally, Work,
};
use domain::method::{Call, Payload, Timeouts};
use domain::operation::identity::IdentityName;
use domain::operation::{Page, PageRequest};
use domain::twin::ServiceChange;
use serde::{Deserialize, Serialize};

use super::enrollment::{cut_page, page_limit};
use super::resource::hub_exists;
use super::rows::{Column, Senseless, from_json, from_json_if, moment, row_limit, to_json};
use super::value::{Row, params};
use super::{Db, Embedded, Tx};
use crate::error::Error;
use crate::ports::{Created, DeviceJobsWanted, DueJob, Enlisted, JobKey, JobStage, JobStore, Place, Searched};

const RECORD: Column = Column { table: "job", column: "record" };

const WAITING: i64 = 0;
const RUNNING: i64 = 1;
const COMPLETED: i64 = 2;
const FAILED: i64 = 3;
const CANCELLED: i64 = 4;

/// What of a job never changes.
#[derive(Serialize, Deserialize)]
struct JobRecord {
    condition: String,
    execution_s: u64,
    work: StoredWork,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum StoredWork {
    PatchTwin { change: ServiceChange, etag: Option<Etag> },
    Invoke { method: MethodName, payload: String, connect_s: u64, response_s: u64 },
}

impl StoredWork {
    fn of(work: Work) -> Self {
        match work {
            Work::PatchTwin { change, etag } => Self::PatchTwin { change, etag },
            Work::Invoke(Call { method, payload, timeouts }) => Self::Invoke {
                method,
                payload: text_of(&payload),
                connect_s: timeouts.connect.as_secs(),
                response_s: timeouts.response.as_secs(),
            },
        }
    }

    fn open(self, key: i64) -> Result<Work, Error> {
        Ok(match self {
            Self::PatchTwin { change, etag } => Work::PatchTwin { change, etag },
            Self::Invoke { method, payload, connect_s, response_s } => {
                let payload = payload_of(payload, RECORD, key)?;
                let timeouts = Timeouts::new(Some(connect_s), Some(response_s));
                let timeouts = timeouts.map_err(|error| RECORD.corrupt(key, error))?;
                Work::Invoke(Call { method, payload, timeouts })
            }
        })
    }
}

/// The text of a payload, which was checked to be UTF-8 when it was taken.
fn text_of(payload: &Payload) -> String {
    String::from_utf8_lossy(payload.bytes()).into_owned()
}

fn payload_of(text: String, column: Column, key: i64) -> Result<Payload, Error> {
    Payload::parse(Bytes::from(text)).map_err(|error| column.corrupt(key, error))
}

const fn kind_column(kind: JobKind) -> i64 {
    match kind {
        JobKind::PatchTwin => 0,
        JobKind::Invoke => 1,
    }
}

const fn kind_of(column: i64) -> JobKind {
    match column {
        0 => JobKind::PatchTwin,
        _ => JobKind::Invoke,
    }
}

/// A row of `job`.
struct JobRow {
    key: i64,
    hub: i64,
    id: String,
    record: String,
    created_at: i64,
    starts_at: i64,
    deadline: Option<i64>,
    ended_at: Option<i64>,
    status: i64,
    failure: Option<String>,
    place: Option<i64>,
    tally: Tally,
}

impl JobRow {
    const COLUMNS: &str = "key, hub, id, record, created_at, starts_at, deadline, ended_at, status, failure, place, \
                           pending, running, succeeded, failed";

    fn read(row: &Row<'_>) -> Result<Self, Error> {
        let amount = |column| Ok::<_, Error>(row.get::<i64>(column)?.unsigned_abs());
        Ok(Self {
            key: row.get(0)?,
            hub: row.get(1)?,
            id: row.get(2)?,
            record: row.get(3)?,
            created_at: row.get(4)?,
            starts_at: row.get(5)?,
            deadline: row.get(6)?,
            ended_at: row.get(7)?,
            status: row.get(8)?,
            failure: row.get(9)?,
            place: row.get(10)?,
            tally: Tally { pending: amount(11)?, running: amount(12)?, succeeded: amount(13)?, failed: amount(14)? },
        })
    }

    fn id(&self) -> Result<JobId, Error> {
        JobId::parse(&self.id).map_err(|error| Column { column: "id", ..RECORD }.corrupt(self.key, error))
    }

    fn status(&self, now: UnixTime) -> Result<JobStatus, Error> {
        Ok(match self.status {
            WAITING if moment(self.starts_at) > now => JobStatus::Scheduled,
            WAITING => JobStatus::Queued,
            RUNNING => JobStatus::Running,
            COMPLETED => JobStatus::Completed,
            FAILED => JobStatus::Failed,
            CANCELLED => JobStatus::Cancelled,
            _ => return Err(Column { column: "status", ..RECORD }.corrupt(self.key, Senseless("there is no such one"))),
        })
    }

    fn open(self, now: UnixTime) -> Result<Job, Error> {
        let record: JobRecord = from_json(&self.record, RECORD, self.key)?;
        Ok(Job {
            id: self.id()?,
            work: record.work.open(self.key)?,
            condition: record.condition,
            execution_max: Duration::from_secs(record.execution_s),
            created_at: moment(self.created_at),
            starts_at: moment(self.starts_at),
            ended_at: self.ended_at.map(moment),
            status: self.status(now)?,
            failure: from_json_if(self.failure.as_deref(), Column { column: "failure", ..RECORD }, self.key)?,
            // Before it begins nobody knows whom it will find.
            tally: self.deadline.map(|_| self.tally),
        })
    }

    fn open_due(self) -> Result<DueJob, Error> {
        let record: JobRecord = from_json(&self.record, RECORD, self.key)?;
        let stage = match self.place {
            Some(place) => JobStage::Enlisting { after: (place > 0).then_some(Place(place)) },
            None => JobStage::Working,
        };
        Ok(DueJob {
            key: JobKey(self.key),
            hub: HubKey(self.hub),
            id: self.id()?,
            work: record.work.open(self.key)?,
            condition: record.condition,
            deadline: self.deadline.map(moment),
            stage,
        })
    }
}

fn find_row(db: Db<'_>, hub: HubKey, id: &JobId) -> Result<Option<JobRow>, Error> {
    let sql = format!("SELECT {} FROM job WHERE hub = ?1 AND id = ?2", JobRow::COLUMNS);
    db.row(&sql, params![hub.0, id.as_str()], JobRow::read)
}

fn find(db: Db<'_>, hub: HubKey, id: &JobId, now: UnixTime) -> Result<Option<Job>, Error> {
    find_row(db, hub, id)?.map(|row| row.open(now)).transpose()
}

fn create(tx: &Tx<'_, '_>, hub: HubKey, draft: Draft, now: UnixTime) -> Result<Created<Job>, Error> {
    if !hub_exists(tx.db(), hub)? {
        return Ok(Created::NoOwner);
    }
    if find_row(tx.db(), hub, &draft.id)?.is_some() {
        return Ok(Created::AlreadyExists);
    }
    let sql = "SELECT count(*) FROM job WHERE hub = ?1 AND ended_at IS NULL";
    let unended: Option<i64> = tx.db().row(sql, [hub.0], |row| row.get(0))?;
    if unended.unwrap_or(0).unsigned_abs() >= tx.context.quotas.jobs_per_hub {
        return Ok(Created::Full);
    }
    let kind = kind_column(draft.work.kind());
    let record = JobRecord {
        condition: draft.condition,
        execution_s: draft.execution_max.as_secs(),
        work: StoredWork::of(draft.work),
    };
    let starts_at = draft.starts_at.unwrap_or(now);
    tx.change(
        "INSERT INTO job (hub, id, kind, record, created_at, starts_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![hub.0, draft.id.as_str(), kind, to_json(&record)?, now.micros(), starts_at.micros()],
    )?;
    let row = find(tx.db(), hub, &draft.id, now)?;
    row.map(Created::Done).ok_or_else(|| RECORD.corrupt(&draft.id, Senseless("it was written and is not there")))
}

fn list(db: Db<'_>, hub: HubKey, filter: Filter, page: &PageRequest, now: UnixTime) -> Result<Page<Job>, Error> {
    // A cursor that is none leads nowhere, like one that is behind the end.
    let after = page.after.as_ref().map_or(0, |cursor| cursor.0.parse().unwrap_or(i64::MAX));
    let limit = page_limit(page);
    let (status, is_due) = match filter.status {
        None => (None, None),
        Some(JobStatus::Scheduled) => (Some(WAITING), Some(false)),
        Some(JobStatus::Queued) => (Some(WAITING), Some(true)),
        Some(JobStatus::Running) => (Some(RUNNING), None),
        Some(JobStatus::Completed) => (Some(COMPLETED), None),
        Some(JobStatus::Failed) => (Some(FAILED), None),
        Some(JobStatus::Cancelled) => (Some(CANCELLED), None),
    };
    let sql = format!(
        "SELECT {} FROM job WHERE hub = ?1 AND key > ?2 AND (CAST(?3 AS BIGINT) IS NULL OR kind = ?3) \
         AND (CAST(?4 AS BIGINT) IS NULL OR status = ?4) \
         AND (CAST(?5 AS BIGINT) IS NULL OR CASE WHEN starts_at <= ?6 THEN 1 ELSE 0 END = ?5) ORDER BY key LIMIT ?7",
        JobRow::COLUMNS
    );
    let kind = filter.kind.map(kind_column);
    let rows =
        db.rows(&sql, params![hub.0, after, kind, status, is_due, now.micros(), row_limit(limit + 1)], JobRow::read)?;
    let (rows, next) = cut_page(rows, limit, |row| row.key.to_string());
    Ok(Page { items: rows.into_iter().map(|row| row.open(now)).collect::<Result<_, _>>()?, next })
}

fn cancel(tx: &Tx<'_, '_>, hub: HubKey, id: &JobId, now: UnixTime) -> Result<Option<Job>, Error> {
    tx.change(
        "UPDATE job SET status = ?3, ended_at = ?4 WHERE hub = ?1 AND id = ?2 AND ended_at IS NULL",
        params![hub.0, id.as_str(), CANCELLED, now.micros()],
    )?;
    find(tx.db(), hub, id, now)
}

fn fail(tx: &Tx<'_, '_>, job: JobKey, failure: JobFailure, now: UnixTime) -> Result<(), Error> {
    tx.change(
        "UPDATE job SET status = ?2, ended_at = ?3, failure = ?4, failed = failed + pending, pending = 0 \
         WHERE key = ?1 AND ended_at IS NULL",
        params![job.0, FAILED, now.micros(), to_json(&failure)?],
    )?;
    Ok(())
}

fn list_due(db: Db<'_>, now: UnixTime) -> Result<Vec<DueJob>, Error> {
    let sql = format!(
        "SELECT {} FROM (SELECT j.*, row_number() OVER (PARTITION BY j.hub ORDER BY j.starts_at, j.key) AS turn \
         FROM job j JOIN hub h ON h.key = j.hub WHERE j.ended_at IS NULL AND j.starts_at <= ?1) due \
         WHERE turn <= ?2 ORDER BY starts_at, key",
        JobRow::COLUMNS
    );
    let rows = db.rows(&sql, params![now.micros(), RUNNING_PER_HUB_MAX], JobRow::read)?;
    let mut due = Vec::new();
    for row in rows {
        match row.open_due() {
            Ok(job) => due.push(job),
            Err(error) => tracing::error!(error = %crate::error::chain(&error), "a job is passed over"),
        }
    }
    Ok(due)
}

/// Has a job begin that has not, and has not ended; whether it is under way.
fn begin(tx: &Tx<'_, '_>, job: JobKey, now: UnixTime) -> Result<Option<JobRow>, Error> {
    let sql = format!("SELECT {} FROM job WHERE key = ?1 AND ended_at IS NULL", JobRow::COLUMNS);
    let Some(mut row) = tx.db().row(&sql, [job.0], JobRow::read)? else { return Ok(None) };
    if row.status == WAITING {
        let record: JobRecord = from_json(&row.record, RECORD, row.key)?;
        let deadline = now.plus(Duration::from_secs(record.execution_s));
        let sql = "UPDATE job SET status = ?2, deadline = ?3 WHERE key = ?1";
        tx.change(sql, params![job.0, RUNNING, deadline.micros()])?;
        (row.status, row.deadline) = (RUNNING, Some(deadline.micros()));
    }
    Ok(Some(row))
}

/// Ends a job that has found all of its devices and gone through them.
fn settle(tx: &Tx<'_, '_>, job: JobKey, now: UnixTime) -> Result<(), Error> {
    tx.change(
        "UPDATE job SET status = ?2, ended_at = ?3 WHERE key = ?1 AND ended_at IS NULL AND status = ?4 \
         AND place IS NULL AND pending = 0 AND running = 0",
        params![job.0, COMPLETED, now.micros(), RUNNING],
    )?;
    Ok(())
}

fn prune(tx: &Tx<'_, '_>, before: UnixTime, limit: usize) -> Result<usize, Error> {
    let rows = tx.change(
        "DELETE FROM job_device WHERE sequence IN (SELECT d.sequence FROM job j JOIN job_device d ON d.job = j.key \
         WHERE j.ended_at < ?1 LIMIT ?2)",
        params![before.micros(), row_limit(limit)],
    )?;
    let jobs = tx.change(
        "DELETE FROM job WHERE key IN (SELECT key FROM job j WHERE j.ended_at < ?1 \
         AND NOT EXISTS (SELECT 1 FROM job_device d WHERE d.job = j.key) LIMIT ?2)",
        params![before.micros(), row_limit(limit)],
    )?;
    Ok(rows + jobs)
}

#[async_trait]
impl JobStore for Embedded {
    async fn create_job(&self, hub: HubKey, draft: Draft, now: UnixTime) -> Result<Created<Job>, Error> {
        self.write(move |tx| create(tx, hub, draft, now)).await
    }

    async fn find_job(&self, hub: HubKey, id: &JobId, now: UnixTime) -> Result<Option<Job>, Error> {
        let id = id.clone();
        self.read(move |db| find(db, hub, &id, now)).await
    }

    async fn list_jobs(
        &self,
        hub: HubKey,
        filter: Filter,
        page: PageRequest,
        now: UnixTime,
    ) -> Result<Page<Job>, Error> {
        self.scan(move |db| list(db, hub, filter, &page, now)).await
    }

    async fn cancel_job(&self, hub: HubKey, id: &JobId, now: UnixTime) -> Result<Option<Job>, Error> {
        let id = id.clone();
        self.write(move |tx| cancel(tx, hub, &id, now)).await
    }

    async fn list_due_jobs(&self, now: UnixTime) -> Result<Vec<DueJob>, Error> {
        self.read(move |db| list_due(db, now)).await
    }

    async fn enlist_devices(&self, job: JobKey, piece: Enlisted, now: UnixTime) -> Result<(), Error> {
        self.write(move |tx| list::enlist(tx, job, &piece, now)).await
    }

    async fn patch_listed_twins(&self, job: JobKey, limit: usize, now: UnixTime) -> Result<usize, Error> {
        self.write(move |tx| list::patch_twins(tx, job, limit, now)).await
    }

    async fn begin_calls(&self, job: JobKey, limit: usize, now: UnixTime) -> Result<Vec<(Place, IdentityName)>, Error> {
        self.write(move |tx| list::begin_calls(tx, job, limit, now)).await
    }

    async fn end_call(&self, job: JobKey, device: Place, outcome: DeviceOutcome, now: UnixTime) -> Result<(), Error> {
        self.write(move |tx| list::end_call(tx, (job, device), outcome, now)).await
    }

    async fn interrupt_calls(&self, now: UnixTime) -> Result<(), Error> {
        self.write(move |tx| list::interrupt(tx, now)).await
    }

    async fn fail_job(&self, job: JobKey, failure: JobFailure, now: UnixTime) -> Result<(), Error> {
        self.write(move |tx| fail(tx, job, failure, now)).await
    }

    async fn find_device_jobs(
        &self,
        hub: HubKey,
        wanted: &DeviceJobsWanted,
        after: Option<Place>,
        limit: usize,
    ) -> Result<Searched<Vec<(Place, DeviceJob)>>, Error> {
        let wanted = wanted.clone();
        self.scan(move |db| list::find(db, hub, (&wanted, after), limit)).await
    }

    async fn prune_jobs(&self, before: UnixTime, limit: usize) -> Result<usize, Error> {
        // What is forgotten need not survive a power cut: it is forgotten again.
        self.write_relaxed(move |tx| prune(tx, before, limit)).await
    }
}
