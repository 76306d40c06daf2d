//! What waits for back-end programs, which take it in turns: feedback on messages, notifications of files.
//!
//! A row is handed out under a lock that runs out, as often as its hub says, and goes when it is settled or its time has
//! come. Locks are columns with a deadline, not timers; nothing here knows what a row says. Start at [`Queue::take`].

use domain::clock::UnixTime;
use domain::cloud_to_device::Settlement;
use domain::ids::{HubKey, LockToken};

use super::link::Wakes;
use super::rows::row_limit;
use super::value::{Row, params};
use super::{Db, Tx};
use crate::error::Error;
use crate::ports::{Given, Settled};

/// The column of a lock.
pub(super) fn lock_column(lock: LockToken) -> [u8; 16] {
    lock.bits().to_be_bytes()
}

/// Before the first sequence number.
const NOTHING_PASSED: i64 = 0;

/// Rows that cannot be read, and are passed over in one verb, which keeps the writers behind it waiting.
const PASSED_OVER_MAX: usize = 64;

/// A table of what waits.
pub(super) struct Queue {
    pub table: &'static str,
    /// Selects the sequence numbers of its rows, and what is told of each, `FROM` the table as `q`.
    pub select: &'static str,
    /// Wakes whoever takes from it.
    pub wakes: Wakes,
}

impl Queue {
    /// Rows of a hub that nobody has.
    const IS_FREE: &str = "q.hub = ?1 AND q.expires_at > ?2 AND (q.lock IS NULL OR q.locked_until <= ?2)";
    /// Rows of a hub that a lock holds.
    const IS_LOCKED: &str = "hub = ?1 AND lock = ?2 AND locked_until > ?3";

    /// Whether [`Self::take`] would find anything.
    pub(super) fn is_waiting(&self, db: Db<'_>, hub: HubKey, now: UnixTime) -> Result<bool, Error> {
        let (table, is_free) = (self.table, Self::IS_FREE);
        let sql = format!("SELECT EXISTS (SELECT 1 FROM {table} q JOIN hub h ON h.key = q.hub WHERE {is_free})");
        Ok(db.row(&sql, params![hub.0, now.micros()], |row| row.get(0))?.unwrap_or(false))
    }

    /// Hands out the oldest rows of a hub that nobody has, as many as may be or as there are. One that was handed out as
    /// often as it may be is gone. Behind [`PASSED_OVER_MAX`] rows that cannot be read it stops, and wakes whoever takes
    /// from the queue, to go on with the next.
    pub(super) fn take<T>(
        &self,
        tx: &mut Tx<'_, '_>,
        (hub, given): (HubKey, &Given),
        now: UnixTime,
        read: impl Fn(&Row<'_>) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        let Self { table, select, .. } = self;
        tx.change(
            &format!(
                "DELETE FROM {table} WHERE hub = ?1 AND (lock IS NULL OR locked_until <= ?2) AND delivery_count >= ?3"
            ),
            params![hub.0, now.micros(), given.settings.deliveries_max],
        )?;
        let is_free = Self::IS_FREE;
        let find = format!(
            "{select} JOIN hub h ON h.key = q.hub WHERE {is_free} AND q.sequence > ?4 ORDER BY q.sequence LIMIT ?3"
        );
        let (lock, until) = (lock_column(given.lock), now.plus(given.settings.lock));
        let hold = format!(
            "UPDATE {table} SET lock = ?2, locked_until = ?3, delivery_count = delivery_count + 1 WHERE sequence = ?1"
        );
        let (mut taken, mut passed, mut passed_over) = (Vec::new(), NOTHING_PASSED, 0);
        while taken.len() < given.limit {
            if passed_over >= PASSED_OVER_MAX {
                tx.wake(self.wakes);
                break;
            }
            let wanted = row_limit((given.limit - taken.len()).min(PASSED_OVER_MAX - passed_over));
            let waiting = params![hub.0, now.micros(), wanted, passed];
            let rows = tx.db().rows(&find, waiting, |row| Ok((row.get::<i64>(0)?, read(row))))?;
            if rows.is_empty() {
                break;
            }
            for (sequence, row) in rows {
                tx.change(&hold, params![sequence, lock, until.micros()])?;
                passed = sequence;
                match row {
                    Ok(row) => taken.push(row),
                    // It goes once it was handed out as often as it may be, and holds up no others.
                    Err(error @ Error::Corrupt { .. }) => {
                        passed_over += 1;
                        tracing::error!(error = %crate::error::chain(&error), "a row of a queue was passed over");
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(taken)
    }

    /// Settles what a lock holds: forgets it, or, if it is abandoned, has it wait again unless it was handed out
    /// `deliveries_max` times.
    pub(super) fn settle(
        &self,
        tx: &mut Tx<'_, '_>,
        (hub, lock): (HubKey, LockToken),
        (settlement, deliveries_max): (Settlement, u32),
        now: UnixTime,
    ) -> Result<Settled, Error> {
        let (table, is_locked, lock) = (self.table, Self::IS_LOCKED, lock_column(lock));
        let settled = match settlement {
            Settlement::Complete | Settlement::Reject => {
                tx.change(&format!("DELETE FROM {table} WHERE {is_locked}"), params![hub.0, lock, now.micros()])?
            }
            Settlement::Abandon => {
                let sql = format!("DELETE FROM {table} WHERE {is_locked} AND delivery_count >= ?4");
                let spent = tx.change(&sql, params![hub.0, lock, now.micros(), deliveries_max])?;
                let sql = format!("UPDATE {table} SET lock = NULL WHERE {is_locked}");
                spent + tx.change(&sql, params![hub.0, lock, now.micros()])?
            }
        };
        if settled == 0 {
            return Ok(Settled::LockLost);
        }
        if settlement == Settlement::Abandon {
            tx.wake(self.wakes);
        }
        Ok(Settled::Done)
    }

    /// Forgets up to `limit` rows whose time has come, and ends locks that have run out, so that whoever takes from the
    /// queue is woken; how many rows it was. What was handed out for the last time goes when something is taken next: the
    /// settings of its hub say which that is.
    pub(super) fn sweep(&self, tx: &mut Tx<'_, '_>, now: UnixTime, limit: usize) -> Result<usize, Error> {
        let table = self.table;
        let sql = format!(
            "DELETE FROM {table} WHERE sequence IN \
             (SELECT sequence FROM {table} WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2)"
        );
        let expired = tx.change(&sql, params![now.micros(), row_limit(limit)])?;
        let sql = format!(
            "UPDATE {table} SET lock = NULL WHERE sequence IN \
             (SELECT sequence FROM {table} WHERE lock IS NOT NULL AND locked_until <= ?1 ORDER BY locked_until LIMIT ?2)"
        );
        let freed = tx.change(&sql, params![now.micros(), row_limit(limit.saturating_sub(expired))])?;
        if freed > 0 {
            tx.wake(self.wakes);
        }
        Ok(expired + freed)
    }

    /// Whether [`Self::sweep`] would find anything.
    pub(super) fn is_sweep_due(&self, db: Db<'_>, now: UnixTime) -> Result<bool, Error> {
        let table = self.table;
        let sql = format!(
            "SELECT EXISTS (SELECT 1 FROM {table} WHERE expires_at <= ?1) \
             OR EXISTS (SELECT 1 FROM {table} WHERE lock IS NOT NULL AND locked_until <= ?1)"
        );
        Ok(db.row(&sql, [now.micros()], |row| row.get(0))?.unwrap_or(false))
    }
}
