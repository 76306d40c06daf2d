//! Imports and exports of identities: what is to be done, how far each has come, and what went wrong with its lines.
//!
//! The record is sealed, since the addresses of containers have signatures. Start at [`import`].

use async_trait::async_trait;
use domain::clock::UnixTime;
use domain::identity::Identity;
use domain::ids::Precondition;
use domain::ids::{HubKey, JobId};
use domain::operation::identity::IdentityName;
use domain::transfer::{
    Change, ConfigurationChange, Draft, FAULTS_TOLD_MAX, FaultReason, ImportFile, KEPT_MAX, Line, LineFault, Manner,
    Transfer, TransferStatus,
};
use domain::twin::ServiceChange;

use super::link::Sequence;
use super::resource::hub_exists;
use super::rows::{Bits, Column, Senseless, from_json, moment, open_text, row_limit, to_json};
use super::value::{Row, params};
use super::{Db, Embedded, Tx, configuration, identity, twin};
use crate::error::Error;
use crate::ports::{
    Changed, Created, DueTransfer, ImportFaults, ImportLine, ImportPiece, LinePlace, TransferKey, TransferStore,
    TwinOutcome,
};
use crate::seal::Place;

const RECORD: Column = Column { table: "transfer", column: "record" };
const FAULT: Column = Column { table: "transfer_fault", column: "record" };

const ENQUEUED: i64 = 0;
const RUNNING: i64 = 1;
const COMPLETED: i64 = 2;
const FAILED: i64 = 3;
const CANCELLED: i64 = 4;

const fn file_column(file: ImportFile) -> i64 {
    match file {
        ImportFile::Identities => 0,
        ImportFile::Configurations => 1,
    }
}

const fn file_of(column: i64) -> ImportFile {
    match column {
        0 => ImportFile::Identities,
        _ => ImportFile::Configurations,
    }
}

/// Where the record of `id` at `hub` is sealed.
fn seal_row(hub: i64, id: &str) -> String {
    format!("{hub}/{id}")
}

/// A row of `transfer`.
struct TransferRow {
    key: i64,
    hub: i64,
    id: String,
    record: Vec<u8>,
    created_at: i64,
    started_at: Option<i64>,
    ended_at: Option<i64>,
    status: i64,
    progress: i64,
    failure: Option<String>,
    place: LinePlace,
}

impl TransferRow {
    const COLUMNS: &str = "t.key, t.hub, t.id, t.record, t.created_at, t.started_at, t.ended_at, t.status, t.progress, \
                           t.failure, t.file, t.bytes, t.lines";

    fn read(row: &Row<'_>) -> Result<Self, Error> {
        Ok(Self {
            key: row.get(0)?,
            hub: row.get(1)?,
            id: row.get(2)?,
            record: row.get(3)?,
            created_at: row.get(4)?,
            started_at: row.get(5)?,
            ended_at: row.get(6)?,
            status: row.get(7)?,
            progress: row.get(8)?,
            failure: row.get(9)?,
            place: LinePlace {
                file: file_of(row.get(10)?),
                bytes: row.get::<Bits>(11)?.0,
                lines: row.get::<Bits>(12)?.0,
            },
        })
    }

    fn id(&self) -> Result<JobId, Error> {
        JobId::parse(&self.id).map_err(|error| Column { column: "id", ..RECORD }.corrupt(self.key, error))
    }

    fn draft(&self, db: Db<'_>) -> Result<Draft, Error> {
        let place = Place { table: RECORD.table, row: &seal_row(self.hub, &self.id), column: RECORD.column };
        from_json(&open_text(&db.context.sealer, place, &self.record)?, RECORD, self.key)
    }

    fn open(&self, db: Db<'_>) -> Result<Transfer, Error> {
        let column = |column| Column { column, ..RECORD };
        let status = match self.status {
            ENQUEUED => TransferStatus::Enqueued,
            RUNNING => TransferStatus::Running,
            COMPLETED => TransferStatus::Completed,
            FAILED => TransferStatus::Failed,
            CANCELLED => TransferStatus::Cancelled,
            _ => return Err(column("status").corrupt(self.key, Senseless("there is no such one"))),
        };
        Ok(Transfer {
            id: self.id()?,
            draft: self.draft(db)?,
            created_at: moment(self.created_at),
            started_at: self.started_at.map(moment),
            ended_at: self.ended_at.map(moment),
            status,
            progress: u8::try_from(self.progress).map_err(|error| column("progress").corrupt(self.key, error))?,
            failure: self.failure.clone(),
        })
    }
}

fn find(db: Db<'_>, hub: HubKey, id: &JobId) -> Result<Option<Transfer>, Error> {
    let sql = format!(
        "SELECT {} FROM transfer t JOIN hub h ON h.key = t.hub WHERE t.hub = ?1 AND t.id = ?2",
        TransferRow::COLUMNS
    );
    let row = db.row(&sql, params![hub.0, id.as_str()], TransferRow::read)?;
    row.map(|row| row.open(db)).transpose()
}

fn list(db: Db<'_>, hub: HubKey) -> Result<Vec<Transfer>, Error> {
    let sql = format!(
        "SELECT {} FROM transfer t JOIN hub h ON h.key = t.hub WHERE t.hub = ?1 ORDER BY t.key",
        TransferRow::COLUMNS
    );
    db.rows(&sql, [hub.0], TransferRow::read)?.iter().map(|row| row.open(db)).collect()
}

fn create(
    tx: &Tx<'_, '_>,
    hub: HubKey,
    (id, draft): (&JobId, &Draft),
    now: UnixTime,
) -> Result<Created<Transfer>, Error> {
    if !hub_exists(tx.db(), hub)? {
        return Ok(Created::NoOwner);
    }
    let sql = "SELECT 1 FROM transfer WHERE hub = ?1 AND ended_at IS NULL";
    if tx.db().row(sql, [hub.0], |_| Ok(()))?.is_some() {
        return Ok(Created::Full);
    }
    if find(tx.db(), hub, id)?.is_some() {
        return Ok(Created::AlreadyExists);
    }
    tx.change(
        "DELETE FROM transfer WHERE hub = ?1 AND key NOT IN \
         (SELECT key FROM transfer WHERE hub = ?1 ORDER BY key DESC LIMIT ?2)",
        params![hub.0, row_limit(KEPT_MAX - 1)],
    )?;
    // Those of one that was cancelled may not have been told.
    tx.change(
        "DELETE FROM transfer_fault WHERE hub = ?1 AND transfer NOT IN (SELECT key FROM transfer WHERE hub = ?1)",
        [hub.0],
    )?;
    let place = Place { table: RECORD.table, row: &seal_row(hub.0, id.as_str()), column: RECORD.column };
    let record = tx.context.sealer.seal(place, to_json(draft)?.as_bytes());
    tx.change(
        "INSERT INTO transfer (hub, id, record, created_at) VALUES (?1, ?2, ?3, ?4)",
        params![hub.0, id.as_str(), record, now.micros()],
    )?;
    let row = find(tx.db(), hub, id)?;
    row.map(Created::Done).ok_or_else(|| RECORD.corrupt(id, Senseless("it was written and is not there")))
}

fn cancel(tx: &Tx<'_, '_>, hub: HubKey, id: &JobId, now: UnixTime) -> Result<Option<Transfer>, Error> {
    let sql = "SELECT key FROM transfer WHERE hub = ?1 AND id = ?2 AND ended_at IS NULL";
    if let Some(key) = tx.db().row(sql, params![hub.0, id.as_str()], |row| row.get(0))? {
        end(tx, TransferKey(key), (CANCELLED, None), now)?;
    }
    find(tx.db(), hub, id)
}

fn end(tx: &Tx<'_, '_>, key: TransferKey, (status, failure): (i64, Option<&str>), now: UnixTime) -> Result<(), Error> {
    if status != CANCELLED {
        tx.change("DELETE FROM transfer_fault WHERE transfer = ?1", [key.0])?;
    }
    tx.change(
        "UPDATE transfer SET status = ?2, ended_at = ?3, failure = ?4, \
         progress = CASE WHEN CAST(?2 AS BIGINT) = ?5 THEN 100 ELSE progress END WHERE key = ?1 AND ended_at IS NULL",
        params![key.0, status, now.micros(), failure, COMPLETED],
    )?;
    Ok(())
}

fn list_due(db: Db<'_>) -> Result<Vec<DueTransfer>, Error> {
    let sql = format!(
        "SELECT {} FROM transfer t JOIN hub h ON h.key = t.hub WHERE t.ended_at IS NULL \
         OR t.key IN (SELECT transfer FROM transfer_fault) ORDER BY t.key",
        TransferRow::COLUMNS
    );
    let open = |row: &TransferRow| {
        Ok::<_, Error>(DueTransfer {
            key: TransferKey(row.key),
            hub: HubKey(row.hub),
            id: row.id()?,
            draft: row.draft(db)?,
            place: row.place,
        })
    };
    let mut due = Vec::new();
    for row in db.rows(&sql, (), TransferRow::read)? {
        match open(&row) {
            Ok(one) => due.push(one),
            Err(error) => tracing::error!(error = %crate::error::chain(&error), "a job is passed over"),
        }
    }
    Ok(due)
}

fn advance(tx: &Tx<'_, '_>, key: TransferKey, percent: u8, now: UnixTime) -> Result<bool, Error> {
    let changed = tx.change(
        "UPDATE transfer SET status = ?2, started_at = coalesce(started_at, ?3), \
         progress = CASE WHEN progress < ?4 THEN ?4 ELSE progress END \
         WHERE key = ?1 AND ended_at IS NULL AND EXISTS (SELECT 1 FROM hub WHERE hub.key = transfer.hub)",
        params![key.0, RUNNING, now.micros(), i64::from(percent)],
    )?;
    Ok(changed > 0)
}

fn import(tx: &mut Tx<'_, '_>, key: TransferKey, piece: ImportPiece, now: UnixTime) -> Result<bool, Error> {
    let sql = "SELECT t.hub, t.faults FROM transfer t JOIN hub h ON h.key = t.hub \
               WHERE t.key = ?1 AND t.ended_at IS NULL AND t.file = ?2 AND t.bytes = ?3";
    let file = file_column(piece.from.file);
    let at = params![key.0, file, Bits(piece.from.bytes)];
    let found: Option<(i64, i64)> = tx.db().row(sql, at, |row| Ok((row.get(0)?, row.get(1)?)))?;
    let Some((hub, mut faults)) = found else { return Ok(false) };
    tx.reserve([Sequence::TwinChanges, Sequence::IdentityChanges, Sequence::Events])?;
    for ImportLine { number, asked } in piece.lines {
        let fault = match asked {
            Err(fault) => Some(fault),
            Ok(line) => carry_line_out(tx, HubKey(hub), (number, line), now)?,
        };
        let Some(fault) = fault else { continue };
        if faults.unsigned_abs() < FAULTS_TOLD_MAX {
            let sql = "INSERT INTO transfer_fault (transfer, file, line, hub, record) VALUES (?1, ?2, ?3, ?4, ?5)";
            tx.change(sql, params![key.0, file, Bits(number), hub, to_json(&fault)?])?;
        }
        faults += 1;
    }
    let LinePlace { file, bytes, lines } = piece.to;
    let sql = "UPDATE transfer SET file = ?2, bytes = ?3, lines = ?4, faults = ?5 WHERE key = ?1";
    tx.change(sql, params![key.0, file_column(file), Bits(bytes), Bits(lines), faults])?;
    Ok(true)
}

fn carry_line_out(
    tx: &mut Tx<'_, '_>,
    hub: HubKey,
    (number, line): (u64, Line<Identity>),
    now: UnixTime,
) -> Result<Option<LineFault>, Error> {
    // One whose rows do not parse must not hold up the others for ever.
    let judge = |reason: Result<Option<FaultReason>, Error>| match reason {
        Err(error @ Error::Corrupt { .. }) => {
            tracing::error!(error = %crate::error::chain(&error), "a line of an import fails");
            Ok(Some(FaultReason::Internal))
        }
        reason => reason,
    };
    Ok(match line {
        Line::Identity(name, change) => {
            judge(carry_out(tx, (hub, &name), change, now))?.map(|reason| LineFault::of_identity(number, &name, reason))
        }
        Line::Configuration(change) => {
            let id = change.id().clone();
            judge(configure(tx, hub, change, now))?.map(|reason| LineFault::of_configuration(number, &id, reason))
        }
    })
}

/// Does what one line asks for about a configuration; why not, if it cannot be.
fn configure(
    tx: &Tx<'_, '_>,
    hub: HubKey,
    change: ConfigurationChange,
    now: UnixTime,
) -> Result<Option<FaultReason>, Error> {
    Ok(match change {
        ConfigurationChange::Put(draft, manner) => {
            let precondition = match manner {
                Manner::Update(precondition) => Some(precondition),
                Manner::CreateOrUpdate(precondition) if configuration::is_there(tx.db(), hub, &draft.id)? => {
                    Some(precondition)
                }
                Manner::Create | Manner::CreateOrUpdate(_) => None,
            };
            match precondition {
                Some(precondition) => fault_of(&configuration::replace(tx, hub, *draft, precondition, now)?),
                None => match configuration::create(tx, hub, &draft, now)? {
                    Created::Done(_) | Created::NoOwner => None,
                    Created::AlreadyExists => Some(FaultReason::ConfigurationExists),
                    Created::Full => Some(FaultReason::TooManyConfigurations),
                },
            }
        }
        ConfigurationChange::Delete(id, precondition) => fault_of(&configuration::delete(tx, hub, &id, precondition)?),
    })
}

fn fault_of<T>(changed: &Changed<T>) -> Option<FaultReason> {
    match changed {
        Changed::Done(_) => None,
        Changed::NotFound => Some(FaultReason::ConfigurationNotFound),
        Changed::PreconditionFailed { .. } => Some(FaultReason::PreconditionFailed),
    }
}

/// Does what one line asks for about an identity; why not, if it cannot be.
fn carry_out(
    tx: &mut Tx<'_, '_>,
    (hub, name): (HubKey, &IdentityName),
    change: Change<Identity>,
    now: UnixTime,
) -> Result<Option<FaultReason>, Error> {
    match change {
        Change::Put { identity, manner, twin } => {
            let twin = twin.map(|twin| *twin);
            match manner {
                Manner::Create => create_identity(tx, hub, *identity, twin, now),
                Manner::CreateOrUpdate(_) if identity::find_id(tx.db(), hub, name)?.is_none() => {
                    create_identity(tx, hub, *identity, twin, now)
                }
                Manner::Update(precondition) | Manner::CreateOrUpdate(precondition) => {
                    let reason = reason_of(&identity::replace(tx, hub, *identity, precondition, now)?, name);
                    match (reason, twin) {
                        (None, Some(change)) => patch(tx, (hub, name), (change, Precondition::None), now),
                        (reason, _) => Ok(reason),
                    }
                }
            }
        }
        Change::Delete { precondition } => Ok(reason_of(&identity::delete(tx, hub, name, precondition)?, name)),
        Change::PatchTwin { change, precondition } => patch(tx, (hub, name), (*change, precondition), now),
    }
}

fn create_identity(
    tx: &mut Tx<'_, '_>,
    hub: HubKey,
    identity: Identity,
    twin: Option<ServiceChange>,
    now: UnixTime,
) -> Result<Option<FaultReason>, Error> {
    let name = identity.name.clone();
    Ok(match identity::create(tx, hub, identity, twin, now)? {
        Created::Done(_) => None,
        Created::AlreadyExists => Some(FaultReason::exists(&name)),
        Created::Full => Some(FaultReason::full(&name)),
        Created::NoOwner => Some(FaultReason::DeviceNotFound),
    })
}

fn reason_of<T>(changed: &Changed<T>, name: &IdentityName) -> Option<FaultReason> {
    match changed {
        Changed::Done(_) => None,
        Changed::NotFound => Some(FaultReason::not_found(name)),
        Changed::PreconditionFailed { .. } => Some(FaultReason::PreconditionFailed),
    }
}

fn patch(
    tx: &mut Tx<'_, '_>,
    place: (HubKey, &IdentityName),
    (change, precondition): (ServiceChange, Precondition),
    now: UnixTime,
) -> Result<Option<FaultReason>, Error> {
    Ok(match twin::patch(tx, place, change, precondition, now)? {
        TwinOutcome::Done(_) => None,
        TwinOutcome::NotFound => Some(FaultReason::not_found(place.1)),
        TwinOutcome::PreconditionFailed => Some(FaultReason::PreconditionFailed),
        TwinOutcome::Refused(error) => Some(FaultReason::Refused(format!("{error}."))),
    })
}

fn faults(db: Db<'_>, key: TransferKey) -> Result<ImportFaults, Error> {
    let count: Option<Bits> = db.row("SELECT faults FROM transfer WHERE key = ?1", [key.0], |row| row.get(0))?;
    let sql = "SELECT record FROM transfer_fault WHERE transfer = ?1 ORDER BY file, line";
    let told: Vec<String> = db.rows(sql, [key.0], |row| row.get(0))?;
    let told: Result<Vec<LineFault>, Error> = told.iter().map(|record| from_json(record, FAULT, key.0)).collect();
    Ok(ImportFaults { told: told?, count: count.map_or(0, |count| count.0) })
}

#[async_trait]
impl TransferStore for Embedded {
    async fn create_transfer(
        &self,
        hub: HubKey,
        id: JobId,
        draft: Draft,
        now: UnixTime,
    ) -> Result<Created<Transfer>, Error> {
        self.write(move |tx| create(tx, hub, (&id, &draft), now)).await
    }

    async fn find_transfer(&self, hub: HubKey, id: &JobId) -> Result<Option<Transfer>, Error> {
        let id = id.clone();
        self.read(move |db| find(db, hub, &id)).await
    }

    async fn list_transfers(&self, hub: HubKey) -> Result<Vec<Transfer>, Error> {
        self.read(move |db| list(db, hub)).await
    }

    async fn cancel_transfer(&self, hub: HubKey, id: &JobId, now: UnixTime) -> Result<Option<Transfer>, Error> {
        let id = id.clone();
        self.write(move |tx| cancel(tx, hub, &id, now)).await
    }

    async fn list_due_transfers(&self) -> Result<Vec<DueTransfer>, Error> {
        self.read(list_due).await
    }

    async fn advance_transfer(&self, key: TransferKey, percent: u8, now: UnixTime) -> Result<bool, Error> {
        self.write(move |tx| advance(tx, key, percent, now)).await
    }

    async fn import_lines(&self, key: TransferKey, piece: ImportPiece, now: UnixTime) -> Result<bool, Error> {
        self.write(move |tx| import(tx, key, piece, now)).await
    }

    async fn import_faults(&self, key: TransferKey) -> Result<ImportFaults, Error> {
        self.read(move |db| faults(db, key)).await
    }

    async fn end_transfer(&self, key: TransferKey, failure: Option<String>, now: UnixTime) -> Result<(), Error> {
        self.write(move |tx| {
            let status = if failure.is_some() { FAILED } else { COMPLETED };
            end(tx, key, (status, failure.as_deref()), now)
        })
        .await
    }
}
