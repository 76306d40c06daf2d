//! What is known of connections: who claimed an identity, what it subscribes to, when it was heard.
//!
//! A claim is a number that rises with every connection of an identity, also over the runs of the store, so that whoever
//! holds an older one can tell.

use domain::clock::UnixTime;
use domain::ids::HubKey;
use domain::operation::identity::IdentityName;
use domain::operation::session::Subscriptions;
use rusqlite::params;

use super::identity::{find_id, module_column};
use super::rows::Bits;
use super::{Tx, cloud_to_device};
use crate::error::Error;
use crate::ports::{ActivityMark, ClaimWanted, ConnectionClaim};

/// Bits of an epoch that count within one run of the store.
const EPOCH_BITS: u32 = 32;

/// How a claim deals with a remembered session.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Memory {
    /// Takes it up.
    Resume,
    /// Refuses to go on if there is one: forgetting must be durable, and the verb is not.
    ExpectNone,
    /// Forgets it.
    Forget,
}

/// What became of a claim.
pub(super) enum Outcome {
    /// It holds.
    Claimed(ConnectionClaim),
    /// There is no such identity, or not of this generation.
    Gone,
    /// There is a session to be forgotten; nothing was written.
    Remembered,
}

pub(super) fn claim(
    tx: &Tx<'_, '_>,
    (hub, name): (HubKey, &IdentityName),
    wanted: &ClaimWanted,
    memory: Memory,
    now: UnixTime,
) -> Result<Outcome, Error> {
    let sql = "SELECT i.id, i.generation FROM identity i JOIN hub h ON h.key = i.hub \
               WHERE i.hub = ?1 AND i.device = ?2 AND i.module = ?3";
    let columns = params![hub.0, name.device.as_str(), module_column(name)];
    let found: Option<(i64, String)> = tx.db().row(sql, columns, |row| Ok((row.get(0)?, row.get(1)?)))?;
    let Some((id, _)) = found.filter(|(_, present)| *present == wanted.generation) else { return Ok(Outcome::Gone) };
    let sql = "SELECT epoch, subscriptions FROM session WHERE identity = ?1";
    let earlier: Option<(Bits, Option<u16>)> = tx.db().row(sql, [id], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let (last, remembered) = earlier.unwrap_or((Bits(0), None));
    if memory == Memory::ExpectNone && remembered.is_some() {
        return Ok(Outcome::Remembered);
    }
    let remembered = remembered.filter(|_| memory == Memory::Resume);
    // A claim that a power cut took back was of an earlier run, whose epochs are all lower.
    let epoch = (last.0 + 1).max(tx.context.run.cast_unsigned() << EPOCH_BITS);
    let kept = (memory == Memory::Resume).then(|| remembered.unwrap_or(0));
    tx.change(
        "INSERT INTO session (identity, hub, is_device, subscriptions, epoch, connected_run, \
         connection_updated_at, last_activity_at, model_id) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, ?8) \
         ON CONFLICT DO UPDATE SET subscriptions = excluded.subscriptions, epoch = excluded.epoch, \
         model_id = excluded.model_id, connected_run = excluded.connected_run, connection_updated_at = excluded.connection_updated_at, \
         last_activity_at = max(last_activity_at, excluded.last_activity_at)",
        params![
            id,
            hub.0,
            name.module.is_none(),
            kept,
            Bits(epoch),
            tx.context.run,
            now.micros(),
            wanted.model_id
        ],
    )?;
    Ok(Outcome::Claimed(ConnectionClaim {
        epoch,
        subscriptions: Subscriptions::from_bits(remembered.unwrap_or(0)),
        session_present: remembered.is_some(),
    }))
}

pub(super) fn release(
    tx: &Tx<'_, '_>,
    (hub, name): (HubKey, &IdentityName),
    epoch: u64,
    now: UnixTime,
) -> Result<bool, Error> {
    let Some(id) = find_id(tx.db(), hub, name)? else { return Ok(false) };
    cloud_to_device::release(tx, id, epoch)?;
    let sql = "UPDATE session SET connected_run = 0, connection_updated_at = ?3 WHERE identity = ?1 AND epoch = ?2";
    Ok(tx.change(sql, params![id, Bits(epoch), now.micros()])? == 1)
}

pub(super) fn save(
    tx: &Tx<'_, '_>,
    (hub, name): (HubKey, &IdentityName),
    epoch: u64,
    subscriptions: Subscriptions,
) -> Result<bool, Error> {
    let Some(id) = find_id(tx.db(), hub, name)? else { return Ok(false) };
    // A connection with a clean session has none to remember.
    let sql = "UPDATE session SET subscriptions = iif(subscriptions IS NULL, NULL, ?3) \
               WHERE identity = ?1 AND epoch = ?2";
    Ok(tx.change(sql, params![id, Bits(epoch), subscriptions.to_bits()])? == 1)
}

pub(super) fn note(tx: &Tx<'_, '_>, marks: &[ActivityMark]) -> Result<(), Error> {
    let sql = "INSERT INTO session (identity, hub, is_device, connection_updated_at, last_activity_at) \
               VALUES (?1, ?2, ?3, ?4, ?5) \
               ON CONFLICT DO UPDATE SET last_activity_at = max(last_activity_at, excluded.last_activity_at)";
    for mark in marks {
        if let Some(id) = find_id(tx.db(), mark.hub, &mark.name)? {
            let is_device = mark.name.module.is_none();
            tx.change(sql, params![id, mark.hub.0, is_device, UnixTime::NEVER.micros(), mark.at.micros()])?;
        }
    }
    Ok(())
}
