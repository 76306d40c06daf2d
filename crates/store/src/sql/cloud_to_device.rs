//! Messages that wait for devices, and feedback that waits for back-end programs.
//!
//! What becomes of a message is decided in `domain::cloud_to_device`; here it is read, changed and written in one
//! transaction, with the feedback on it (`rules.md` 16). Locks are columns with a deadline, not timers. Start at `lease`.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use domain::clock::UnixTime;
use domain::cloud_to_device::{
    Acknowledgement, Delivery, Draft, Feedback, Outcome, QueueSettings, Settlement, SystemProperties, given_back,
};
use domain::ids::{HubKey, LockToken};
use domain::message::Property;
use domain::operation::identity::IdentityName;
use serde::{Deserialize, Serialize};

use super::identity::{find_id, module_column};
use super::queue::{Queue, lock_column};
use super::rows::{Bits, Column, from_json, moment, row_limit, to_json};
use super::twin::name_of;
use super::value::{Row, params};
use super::{Db, Embedded, Tx, WAKES_FEEDBACK};
use crate::error::Error;
use crate::ports::{CloudToDeviceStore, Enqueued, Given, Holder, Lease, Leased, Settled, Swept};

/// Has the messages that a connection had wait again: to be run when the store is opened, and nobody is connected.
pub(super) const RELEASE_ALL: &str =
    "UPDATE message SET lock = NULL, holder = NULL, deadline = expires_at WHERE holder IS NOT NULL";

const RECORD: Column = Column { table: "message", column: "record" };
const FEEDBACK_RECORD: Column = Column { table: "feedback", column: "record" };

/// Feedback as back-end programs take it.
const FEEDBACK: Queue = Queue {
    table: "feedback",
    select: "SELECT q.sequence, q.record, i.device, i.module, i.generation FROM feedback q \
             JOIN identity i ON i.id = q.identity",
    wakes: WAKES_FEEDBACK,
};

/// What of a message is not queried.
#[derive(Serialize, Deserialize)]
struct MessageRecord {
    system: SystemProperties,
    properties: Vec<Property>,
    /// What the sender said.
    wanted_expiry: Option<UnixTime>,
    acknowledgement: Acknowledgement,
    /// What the hub said when the message was sent.
    deliveries_max: u32,
    feedback_ttl: Duration,
}

/// What of feedback is not queried.
#[derive(Serialize, Deserialize)]
struct FeedbackRecord {
    message_id: String,
    outcome: Outcome,
    at: UnixTime,
}

/// A row of `message` without its body.
struct MessageRow {
    sequence: i64,
    hub: i64,
    identity: i64,
    record: String,
    expires_at: UnixTime,
    delivery_count: u32,
    is_locked: bool,
}

const SELECT: &str =
    "SELECT sequence, hub, identity, record, expires_at, delivery_count, lock IS NOT NULL FROM message";

impl MessageRow {
    fn read(row: &Row<'_>) -> Result<Self, Error> {
        Ok(Self {
            sequence: row.get(0)?,
            hub: row.get(1)?,
            identity: row.get(2)?,
            record: row.get(3)?,
            expires_at: moment(row.get(4)?),
            delivery_count: row.get(5)?,
            is_locked: row.get(6)?,
        })
    }

    fn record(&self) -> Result<MessageRecord, Error> {
        from_json(&self.record, RECORD, self.sequence)
    }
}

fn enqueue(
    tx: &Tx<'_, '_>,
    (hub, name): (HubKey, &IdentityName),
    message: Draft,
    settings: &QueueSettings,
    now: UnixTime,
) -> Result<Enqueued, Error> {
    let sql = "SELECT i.id, i.messages_waiting FROM identity i JOIN hub h ON h.key = i.hub \
               WHERE i.hub = ?1 AND i.device = ?2 AND i.module = ?3";
    let columns = params![hub.0, name.device.as_str(), module_column(name)];
    let found: Option<(i64, u32)> = tx.db().row(sql, columns, |row| Ok((row.get(0)?, row.get(1)?)))?;
    let Some((id, waiting)) = found else { return Ok(Enqueued::NotFound) };
    if waiting >= tx.context.quotas.messages_per_device {
        return Ok(Enqueued::Full);
    }
    let expires_at = settings.expiry(message.expires_at, now);
    let record = to_json(&MessageRecord {
        system: message.system,
        properties: message.properties,
        wanted_expiry: message.expires_at,
        acknowledgement: message.acknowledgement,
        deliveries_max: settings.deliveries_max,
        feedback_ttl: settings.feedback.ttl,
    })?;
    tx.change(
        "INSERT INTO message (hub, identity, record, body, enqueued_at, expires_at, deadline) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)",
        params![hub.0, id, record, &*message.body, now.micros(), expires_at.micros()],
    )?;
    Ok(Enqueued::Done)
}

/// Has the messages wait again that the connection of `epoch` had, or an earlier one.
pub(super) fn release(tx: &Tx<'_, '_>, identity: i64, epoch: u64) -> Result<usize, Error> {
    let sql =
        "UPDATE message SET lock = NULL, holder = NULL, deadline = expires_at WHERE identity = ?1 AND holder <= ?2";
    tx.change(sql, params![identity, Bits(epoch)])
}

/// Has a message wait again, `count` times given back.
fn free(tx: &Tx<'_, '_>, row: &MessageRow, count: u32) -> Result<(), Error> {
    let sql = "UPDATE message SET lock = NULL, holder = NULL, deadline = expires_at, delivery_count = ?2 \
               WHERE sequence = ?1";
    tx.change(sql, params![row.sequence, count])?;
    Ok(())
}

/// Ends a message, and tells its sender if that wants to hear of it.
fn end(tx: &mut Tx<'_, '_>, row: &MessageRow, outcome: Outcome, now: UnixTime) -> Result<(), Error> {
    let record = row.record()?;
    tx.change("DELETE FROM message WHERE sequence = ?1", [row.sequence])?;
    if !record.acknowledgement.wants(outcome) {
        return Ok(());
    }
    let message_id = record.system.message_id.unwrap_or_default();
    let expires_at = now.plus(record.feedback_ttl);
    let feedback = to_json(&FeedbackRecord { message_id, outcome, at: now })?;
    tx.change(
        "INSERT INTO feedback (hub, identity, record, expires_at) VALUES (?1, ?2, ?3, ?4)",
        params![row.hub, row.identity, feedback, expires_at.micros()],
    )?;
    tx.wake(WAKES_FEEDBACK);
    Ok(())
}

/// Ends a lock of a message: it waits again, which is `true`, or has ended.
fn give_back(tx: &mut Tx<'_, '_>, row: &MessageRow, now: UnixTime) -> Result<bool, Error> {
    match given_back(row.delivery_count, row.record()?.deliveries_max, row.expires_at, now) {
        Ok(count) => {
            free(tx, row, count)?;
            Ok(true)
        }
        Err(outcome) => {
            end(tx, row, outcome, now)?;
            Ok(false)
        }
    }
}

/// Does what is due of a message whose deadline has passed; whether it waits again.
fn meet_deadline(tx: &mut Tx<'_, '_>, row: &MessageRow, now: UnixTime) -> Result<bool, Error> {
    if row.is_locked {
        return give_back(tx, row, now);
    }
    end(tx, row, Outcome::Expired, now)?;
    Ok(false)
}

fn lease(
    tx: &mut Tx<'_, '_>,
    (hub, name): (HubKey, &IdentityName),
    wanted: &Lease,
    now: UnixTime,
) -> Result<Leased, Error> {
    let Some(id) = find_receiver(tx.db(), (hub, name), wanted)? else { return Ok(Leased::default()) };
    let (holder, deadline) = match wanted.holder {
        Holder::Connection { epoch, until } => {
            // Whoever claimed the identity before is no longer connected.
            release(tx, id, epoch.saturating_sub(1))?;
            (Some(Bits(epoch)), until)
        }
        Holder::Until(until) => (None, Some(until)),
    };
    let sql = format!("{SELECT} WHERE identity = ?1 AND deadline <= ?2");
    let mut has_freed = false;
    for row in tx.db().rows(&sql, params![id, now.micros()], MessageRow::read)? {
        has_freed |= meet_deadline(tx, &row, now)?;
    }
    let sql = "SELECT sequence, record, body, enqueued_at, expires_at, delivery_count FROM message \
               WHERE identity = ?1 AND lock IS NULL ORDER BY sequence LIMIT ?2";
    let limit = row_limit(wanted.locks.len());
    let waiting = tx.db().rows(sql, params![id, limit], DeliveryRow::read)?;
    let mut deliveries = Vec::with_capacity(waiting.len());
    for (row, &lock) in waiting.into_iter().zip(&wanted.locks) {
        tx.change(
            "UPDATE message SET lock = ?2, holder = ?3, deadline = ?4 WHERE sequence = ?1",
            params![row.sequence, lock_column(lock), holder, deadline.map(UnixTime::micros)],
        )?;
        deliveries.push(row.open(lock)?);
    }
    Ok(Leased { deliveries, has_freed })
}

/// The identity that a lease is for, unless it is another's by now.
fn find_receiver(db: Db<'_>, (hub, name): (HubKey, &IdentityName), wanted: &Lease) -> Result<Option<i64>, Error> {
    let sql = "SELECT i.id, s.epoch FROM identity i JOIN hub h ON h.key = i.hub \
               LEFT JOIN session s ON s.identity = i.id \
               WHERE i.hub = ?1 AND i.device = ?2 AND i.module = ?3 AND i.generation = ?4";
    let columns = params![hub.0, name.device.as_str(), module_column(name), wanted.generation];
    let found: Option<(i64, Option<Bits>)> = db.row(sql, columns, |row| Ok((row.get(0)?, row.get(1)?)))?;
    let is_latest = |present: Option<Bits>| match wanted.holder {
        Holder::Connection { epoch, .. } => present == Some(Bits(epoch)),
        Holder::Until(_) => true,
    };
    Ok(found.filter(|(_, present)| is_latest(*present)).map(|(id, _)| id))
}

/// A row of `message` to be delivered.
struct DeliveryRow {
    sequence: i64,
    record: String,
    body: Vec<u8>,
    enqueued_at: UnixTime,
    expires_at: UnixTime,
    delivery_count: u32,
}

impl DeliveryRow {
    fn read(row: &Row<'_>) -> Result<Self, Error> {
        Ok(Self {
            sequence: row.get(0)?,
            record: row.get(1)?,
            body: row.get(2)?,
            enqueued_at: moment(row.get(3)?),
            expires_at: moment(row.get(4)?),
            delivery_count: row.get(5)?,
        })
    }

    fn open(self, lock: LockToken) -> Result<Delivery, Error> {
        let record: MessageRecord = from_json(&self.record, RECORD, self.sequence)?;
        Ok(Delivery {
            lock,
            sequence: self.sequence.cast_unsigned(),
            enqueued_at: self.enqueued_at,
            expires_at: self.expires_at,
            delivery_count: self.delivery_count,
            message: Draft {
                system: record.system,
                properties: record.properties,
                expires_at: record.wanted_expiry,
                acknowledgement: record.acknowledgement,
                body: Bytes::from(self.body),
            },
        })
    }
}

fn settle(
    tx: &mut Tx<'_, '_>,
    (hub, name): (HubKey, &IdentityName),
    (lock, settlement): (LockToken, Settlement),
    now: UnixTime,
) -> Result<Settled, Error> {
    let Some(id) = find_id(tx.db(), hub, name)? else { return Ok(Settled::LockLost) };
    let sql = format!("{SELECT} WHERE lock = ?1 AND identity = ?2 AND (deadline IS NULL OR deadline > ?3)");
    let found = tx.db().row(&sql, params![lock_column(lock), id, now.micros()], MessageRow::read)?;
    let Some(row) = found else { return Ok(Settled::LockLost) };
    match settlement {
        Settlement::Complete => end(tx, &row, Outcome::Success, now)?,
        Settlement::Reject => end(tx, &row, Outcome::Rejected, now)?,
        Settlement::Abandon => drop(give_back(tx, &row, now)?),
    }
    Ok(Settled::Done)
}

fn purge(tx: &mut Tx<'_, '_>, (hub, name): (HubKey, &IdentityName), now: UnixTime) -> Result<Option<u64>, Error> {
    let Some(id) = find_id(tx.db(), hub, name)? else { return Ok(None) };
    let rows = tx.db().rows(&format!("{SELECT} WHERE identity = ?1"), [id], MessageRow::read)?;
    for row in &rows {
        end(tx, row, Outcome::Purged, now)?;
    }
    Ok(Some(rows.len() as u64))
}

fn sweep(tx: &mut Tx<'_, '_>, now: UnixTime, limit: usize) -> Result<Swept, Error> {
    let sql = format!("{SELECT} WHERE deadline <= ?1 ORDER BY deadline LIMIT ?2");
    let rows = tx.db().rows(&sql, params![now.micros(), row_limit(limit)], MessageRow::read)?;
    let mut swept = Swept { freed: Vec::new(), rows: rows.len() };
    for row in &rows {
        if meet_deadline(tx, row, now)? {
            swept.freed.extend(receiver_of(tx.db(), row)?);
        }
    }
    swept.rows += FEEDBACK.sweep(tx, now, limit.saturating_sub(rows.len()))?;
    Ok(swept)
}

fn receiver_of(db: Db<'_>, row: &MessageRow) -> Result<Option<(HubKey, IdentityName)>, Error> {
    let sql = "SELECT device, module FROM identity WHERE id = ?1";
    let found: Option<(String, String)> = db.row(sql, [row.identity], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let column = Column { table: "identity", column: "device" };
    found.map(|(device, module)| Ok((HubKey(row.hub), name_of(&device, &module, column)?))).transpose()
}

/// Whether a sweep at `now` would find anything.
fn is_sweep_due(db: Db<'_>, now: UnixTime) -> Result<bool, Error> {
    let sql = "SELECT EXISTS (SELECT 1 FROM message WHERE deadline <= ?1)";
    let is_due = db.row(sql, [now.micros()], |row| row.get(0))?.unwrap_or(false);
    Ok(is_due || FEEDBACK.is_sweep_due(db, now)?)
}

/// Whether a lease would find anything.
fn is_message_waiting(db: Db<'_>, hub: HubKey, name: &IdentityName) -> Result<bool, Error> {
    let sql = "SELECT i.messages_waiting > 0 FROM identity i JOIN hub h ON h.key = i.hub \
               WHERE i.hub = ?1 AND i.device = ?2 AND i.module = ?3";
    let columns = params![hub.0, name.device.as_str(), module_column(name)];
    Ok(db.row(sql, columns, |row| row.get(0))?.unwrap_or(false))
}

fn take_feedback(tx: &mut Tx<'_, '_>, hub: HubKey, given: &Given, now: UnixTime) -> Result<Vec<Feedback>, Error> {
    FEEDBACK.take(tx, (hub, given), now, |row| {
        let (sequence, record, generation): (i64, String, String) = (row.get(0)?, row.get(1)?, row.get(4)?);
        let FeedbackRecord { message_id, outcome, at } = from_json(&record, FEEDBACK_RECORD, sequence)?;
        let (device, module): (String, String) = (row.get(2)?, row.get(3)?);
        let device = name_of(&device, &module, Column { table: "identity", column: "device" })?;
        Ok(Feedback { message_id, device, generation, outcome, at })
    })
}

#[async_trait]
impl CloudToDeviceStore for Embedded {
    async fn enqueue_message(
        &self,
        hub: HubKey,
        name: &IdentityName,
        (message, settings): (Draft, QueueSettings),
        now: UnixTime,
    ) -> Result<Enqueued, Error> {
        let name = name.clone();
        self.write(move |tx| enqueue(tx, (hub, &name), message, &settings, now)).await
    }

    async fn lease_messages(
        &self,
        hub: HubKey,
        name: &IdentityName,
        wanted: Lease,
        now: UnixTime,
    ) -> Result<Leased, Error> {
        let asked = name.clone();
        if !self.read(move |db| is_message_waiting(db, hub, &asked)).await? {
            return Ok(Leased::default());
        }
        let name = name.clone();
        match wanted.holder {
            Holder::Connection { .. } => self.write_relaxed(move |tx| lease(tx, (hub, &name), &wanted, now)).await,
            Holder::Until(_) => self.write(move |tx| lease(tx, (hub, &name), &wanted, now)).await,
        }
    }

    async fn settle_message(
        &self,
        hub: HubKey,
        name: &IdentityName,
        how: (LockToken, Settlement),
        now: UnixTime,
    ) -> Result<Settled, Error> {
        let name = name.clone();
        self.write(move |tx| settle(tx, (hub, &name), how, now)).await
    }

    async fn free_messages(&self, hub: HubKey, name: &IdentityName, epoch: u64) -> Result<(), Error> {
        let name = name.clone();
        self.write_relaxed(move |tx| match find_id(tx.db(), hub, &name)? {
            Some(id) => release(tx, id, epoch).map(drop),
            None => Ok(()),
        })
        .await
    }

    async fn purge_messages(&self, hub: HubKey, name: &IdentityName, now: UnixTime) -> Result<Option<u64>, Error> {
        let name = name.clone();
        self.write(move |tx| purge(tx, (hub, &name), now)).await
    }

    async fn sweep_messages(&self, now: UnixTime, limit: usize) -> Result<Swept, Error> {
        match self.read(move |db| is_sweep_due(db, now)).await? {
            true => self.write(move |tx| sweep(tx, now, limit)).await,
            false => Ok(Swept::default()),
        }
    }

    async fn take_feedback(&self, hub: HubKey, given: Given, now: UnixTime) -> Result<Vec<Feedback>, Error> {
        match self.read(move |db| FEEDBACK.is_waiting(db, hub, now)).await? {
            true => self.write(move |tx| take_feedback(tx, hub, &given, now)).await,
            false => Ok(Vec::new()),
        }
    }

    async fn settle_feedback(
        &self,
        hub: HubKey,
        (lock, settlement): (LockToken, Settlement),
        deliveries_max: u32,
        now: UnixTime,
    ) -> Result<Settled, Error> {
        self.write(move |tx| FEEDBACK.settle(tx, (hub, lock), (settlement, deliveries_max), now)).await
    }

    fn feedback_changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.0.changes.feedback.subscribe()
    }
}
