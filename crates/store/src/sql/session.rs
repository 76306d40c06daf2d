//! What is known of connections: who claimed an identity, what it subscribes to, when it was heard.
//!
//! A claim is a number that rises with every connection of an identity, also over the runs of the store, so that whoever
//! holds an older one can tell.

use domain::clock::UnixTime;
use domain::digital_twin;
use domain::event::{Change, Sources};
use domain::ids::HubKey;
use domain::message::EventSource;
use domain::operation::identity::IdentityName;
use domain::operation::session::{Memory, Subscriptions};

use super::event::Whose;
use super::identity::{find_id, module_column};
use super::rows::Bits;
use super::value::params;
use super::{Tx, cloud_to_device, event};
use crate::error::Error;
use crate::ports::{ActivityMark, ClaimWanted, ConnectionClaim};

/// Bits of an epoch that count within one run of the store.
const EPOCH_BITS: u32 = 32;

/// The later of the activity that is known and the one that is written.
const LATER: &str = "CASE WHEN session.last_activity_at > excluded.last_activity_at \
                     THEN session.last_activity_at ELSE excluded.last_activity_at END";

/// Whether a claim can forget a remembered session: that must be durable.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Forgetting {
    /// The verb is not durable: it refuses to go on if there is something to be forgotten.
    Unfit,
    /// It is.
    Fit,
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
    tx: &mut Tx<'_, '_>,
    (hub, name): (HubKey, &IdentityName),
    wanted: &ClaimWanted,
    forgetting: Forgetting,
    now: UnixTime,
) -> Result<Outcome, Error> {
    let sql = "SELECT i.id, i.generation FROM identity i JOIN hub h ON h.key = i.hub \
               WHERE i.hub = ?1 AND i.device = ?2 AND i.module = ?3";
    let columns = params![hub.0, name.device.as_str(), module_column(name)];
    let found: Option<(i64, String)> = tx.db().row(sql, columns, |row| Ok((row.get(0)?, row.get(1)?)))?;
    let Some((id, _)) = found.filter(|(_, present)| *present == wanted.generation) else { return Ok(Outcome::Gone) };
    let earlier = tx.db().row(
        "SELECT epoch, subscriptions, connected_run, model_id FROM session WHERE identity = ?1",
        [id],
        |row| {
            let Bits(epoch) = row.get(0)?;
            Ok(Earlier { epoch, subscriptions: row.get(1)?, connected_run: row.get(2)?, model_id: row.get(3)? })
        },
    )?;
    let earlier = earlier.unwrap_or_default();
    let remembered = earlier.subscriptions;
    let (resumed, kept, model_id) = match wanted.memory {
        Memory::Resume => (remembered, Some(remembered.unwrap_or(0)), wanted.model_id.clone()),
        Memory::Forget if remembered.is_some() && forgetting == Forgetting::Unfit => return Ok(Outcome::Remembered),
        Memory::Forget => (None, None, wanted.model_id.clone()),
        Memory::LeaveAlone => (None, remembered, wanted.model_id.clone().or_else(|| earlier.model_id.clone())),
    };
    let sources = event::reserve(tx, hub, [])?;
    // A claim that a power cut took back was of an earlier run, whose epochs are all lower.
    let epoch = (earlier.epoch + 1).max(tx.context.run.cast_unsigned() << EPOCH_BITS);
    tx.change(
        &format!(
            "INSERT INTO session (identity, hub, is_device, subscriptions, epoch, connected_run, \
             connection_updated_at, last_activity_at, model_id) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, ?8) \
             ON CONFLICT (identity) DO UPDATE SET subscriptions = excluded.subscriptions, epoch = excluded.epoch, \
             model_id = excluded.model_id, connected_run = excluded.connected_run, \
             connection_updated_at = excluded.connection_updated_at, last_activity_at = {LATER}"
        ),
        params![id, hub.0, name.module.is_none(), kept, Bits(epoch), tx.context.run, now.micros(), model_id],
    )?;
    let whose = Whose { hub, name, generation: &wanted.generation };
    tell_of_coming(tx, (whose, sources), &earlier, model_id.as_deref(), now)?;
    Ok(Outcome::Claimed(ConnectionClaim {
        epoch,
        subscriptions: Subscriptions::from_bits(resumed.unwrap_or(0)),
        session_present: resumed.is_some(),
        model_id,
    }))
}

/// What was known of an identity before it connects.
#[derive(Default)]
struct Earlier {
    epoch: u64,
    subscriptions: Option<u16>,
    connected_run: i64,
    model_id: Option<String>,
}

/// Tells that an identity comes, and of the model it announces, as far as the hub's routes ask for it. Who takes over from
/// an earlier connection does not change whether the identity is connected.
fn tell_of_coming(
    tx: &mut Tx<'_, '_>,
    (whose, sources): (Whose<'_>, Sources),
    earlier: &Earlier,
    model_id: Option<&str>,
    now: UnixTime,
) -> Result<(), Error> {
    if earlier.connected_run != tx.context.run && sources.contains(EventSource::ConnectionState) {
        event::tell(tx, whose, Change::Connected, None, now)?;
    }
    tell_of_model(tx, whose, (earlier.model_id.as_deref(), model_id), now)
}

/// Tells that a device is known by another model than `before`, if the hub's routes ask for it.
fn tell_of_model(
    tx: &mut Tx<'_, '_>,
    whose: Whose<'_>,
    (before, model_id): (Option<&str>, Option<&str>),
    now: UnixTime,
) -> Result<(), Error> {
    if before == model_id || whose.name.module.is_some() {
        return Ok(());
    }
    if event::sources(tx.db(), whose.hub)?.contains(EventSource::DigitalTwinChange) {
        let change = digital_twin::model_change(model_id);
        event::tell(tx, whose, Change::DigitalTwinUpdated, Some(&change), now)?;
    }
    Ok(())
}

pub(super) fn announce(
    tx: &mut Tx<'_, '_>,
    (hub, name): (HubKey, &IdentityName),
    (epoch, model_id): (u64, &str),
    now: UnixTime,
) -> Result<bool, Error> {
    let Some(id) = find_id(tx.db(), hub, name)? else { return Ok(false) };
    let sql = "SELECT i.generation, s.model_id FROM identity i JOIN session s ON s.identity = i.id \
               WHERE i.id = ?1 AND s.epoch = ?2";
    let found: Option<(String, Option<String>)> =
        tx.db().row(sql, params![id, Bits(epoch)], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let Some((generation, before)) = found else { return Ok(false) };
    event::reserve(tx, hub, [])?;
    tx.change("UPDATE session SET model_id = ?2 WHERE identity = ?1", params![id, model_id])?;
    tell_of_model(tx, Whose { hub, name, generation: &generation }, (before.as_deref(), Some(model_id)), now)?;
    Ok(true)
}

pub(super) fn release(
    tx: &mut Tx<'_, '_>,
    (hub, name): (HubKey, &IdentityName),
    epoch: u64,
    now: UnixTime,
) -> Result<bool, Error> {
    let Some(id) = find_id(tx.db(), hub, name)? else { return Ok(false) };
    let sources = event::reserve(tx, hub, [])?;
    cloud_to_device::release(tx, id, epoch)?;
    if sources.contains(EventSource::ConnectionState) {
        tell_of_leaving(tx, (hub, name), (id, epoch), now)?;
    }
    let sql = "UPDATE session SET connected_run = 0, connection_updated_at = ?3 WHERE identity = ?1 AND epoch = ?2";
    Ok(tx.change(sql, params![id, Bits(epoch), now.micros()])? == 1)
}

/// Tells that an identity leaves, if it is connected by the claim of `epoch`.
fn tell_of_leaving(
    tx: &mut Tx<'_, '_>,
    (hub, name): (HubKey, &IdentityName),
    (id, epoch): (i64, u64),
    now: UnixTime,
) -> Result<(), Error> {
    let sql = "SELECT i.generation FROM identity i JOIN session s ON s.identity = i.id \
               WHERE i.id = ?1 AND s.epoch = ?2 AND s.connected_run = ?3";
    let connected = params![id, Bits(epoch), tx.context.run];
    let generation: Option<String> = tx.db().row(sql, connected, |row| row.get(0))?;
    match generation {
        Some(generation) => {
            event::tell(tx, Whose { hub, name, generation: &generation }, Change::Disconnected, None, now)
        }
        None => Ok(()),
    }
}

pub(super) fn save(
    tx: &Tx<'_, '_>,
    (hub, name): (HubKey, &IdentityName),
    epoch: u64,
    subscriptions: Subscriptions,
) -> Result<bool, Error> {
    let Some(id) = find_id(tx.db(), hub, name)? else { return Ok(false) };
    // A connection with a clean session has none to remember.
    let sql = "UPDATE session SET subscriptions = CASE WHEN subscriptions IS NULL THEN NULL ELSE CAST(?3 AS BIGINT) END \
               WHERE identity = ?1 AND epoch = ?2";
    Ok(tx.change(sql, params![id, Bits(epoch), subscriptions.to_bits()])? == 1)
}

pub(super) fn note(tx: &Tx<'_, '_>, marks: &[ActivityMark]) -> Result<(), Error> {
    let sql = format!(
        "INSERT INTO session (identity, hub, is_device, connection_updated_at, last_activity_at) \
         VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (identity) DO UPDATE SET last_activity_at = {LATER}"
    );
    for mark in marks {
        if let Some(id) = find_id(tx.db(), mark.hub, &mark.name)? {
            let is_device = mark.name.module.is_none();
            tx.change(&sql, params![id, mark.hub.0, is_device, UnixTime::NEVER.micros(), mark.at.micros()])?;
        }
    }
    Ok(())
}
