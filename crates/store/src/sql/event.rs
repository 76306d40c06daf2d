//! Events of hubs: written with the change that they tell of, read in their order, forgotten once they are passed on.

use async_trait::async_trait;
use domain::clock::UnixTime;
use domain::digital_twin;
use domain::event::{Change, Event, Patches, Sources, changed_parts, whole_twin};
use domain::identity::Identity;
use domain::ids::HubKey;
use domain::message::EventSource;
use domain::operation::identity::IdentityName;
use domain::twin::Twin;
use serde_json::Value;

use super::identity::module_column;
use super::link::{Flow, Sequence, Statement};
use super::rows::{Bits, Column, Senseless, from_json, moment, row_limit, to_json};
use super::twin::name_of;
use super::value::{Row, params};
use super::{Db, Embedded, Tx, WAKES_EVENTS};
use crate::error::Error;
use crate::ports::{EventStore, KeptEvent};

/// Events read at once end with the one that brings their text to so many bytes.
const EVENTS_BYTES_MAX: usize = 1 << 20;

/// The sources that a hub's routes ask for.
pub(super) fn sources(db: Db<'_>, hub: HubKey) -> Result<Sources, Error> {
    let bits = db.row("SELECT event_sources FROM hub WHERE key = ?1", [hub.0], |row| row.get::<i64>(0))?;
    // More bits than there are sources are nobody's.
    Ok(Sources::from_bits(bits.and_then(|bits| u8::try_from(bits).ok()).unwrap_or(0)))
}

/// Whose events are told.
#[derive(Clone, Copy)]
pub(super) struct Whose<'a> {
    pub hub: HubKey,
    pub name: &'a IdentityName,
    pub generation: &'a str,
}

impl<'a> Whose<'a> {
    pub(super) fn of(hub: HubKey, identity: &'a Identity) -> Self {
        Self { hub, name: &identity.name, generation: &identity.generation }
    }
}

/// To be called before a verb writes anything, if events of the hub may tell of it; with the other sequences that it
/// writes rows of. Gives the sources that the hub's routes ask for.
pub(super) fn reserve(
    tx: &Tx<'_, '_>,
    hub: HubKey,
    others: impl IntoIterator<Item = Sequence>,
) -> Result<Sources, Error> {
    let sources = sources(tx.db(), hub)?;
    tx.reserve(others.into_iter().chain((!sources.is_empty()).then_some(Sequence::Events)))?;
    Ok(sources)
}

/// Writes an event, whatever the hub's routes ask for.
pub(super) fn tell(
    tx: &mut Tx<'_, '_>,
    whose: Whose<'_>,
    change: Change,
    body: Option<&Value>,
    at: UnixTime,
) -> Result<(), Error> {
    let body = body.map(to_json).transpose()?;
    tx.reserve([Sequence::Events])?;
    let Whose { hub, name, generation } = whose;
    tx.change(
        "INSERT INTO hub_event (hub, device, module, generation, change, at, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![hub.0, name.device.as_str(), module_column(name), generation, number_of(change), at.micros(), body],
    )?;
    tx.wake(WAKES_EVENTS);
    Ok(())
}

/// Storage knows changes by their place in [`Change::ALL`].
fn number_of(change: Change) -> i64 {
    (0..).zip(Change::ALL).find(|(_, known)| *known == change).map_or(0, |(number, _)| number)
}

/// How a twin came from what it was to what it is.
pub(super) enum Manner {
    /// By merging.
    Merged(Box<Patches>),
    /// By replacing.
    Replaced,
}

/// Tells of a changed twin, as far as the hub's routes ask for it.
pub(super) fn tell_of_twin(
    tx: &mut Tx<'_, '_>,
    (hub, identity): (HubKey, &Identity),
    (before, after): (&Twin, &Twin),
    manner: Manner,
    at: UnixTime,
) -> Result<(), Error> {
    let wanted = sources(tx.db(), hub)?;
    let whose = Whose::of(hub, identity);
    if wanted.contains(EventSource::TwinChange) {
        let (change, body) = match manner {
            Manner::Merged(patches) => (Change::TwinUpdated, changed_parts(after, *patches)),
            Manner::Replaced => (Change::TwinReplaced, whole_twin(after, identity)),
        };
        tell(tx, whose, change, Some(&body), at)?;
    }
    if wanted.contains(EventSource::DigitalTwinChange) && identity.name.module.is_none() {
        let view = |twin| digital_twin::view(twin, identity);
        let difference = digital_twin::difference(&view(before), &view(after));
        if !difference.is_empty() {
            tell(tx, whose, Change::DigitalTwinUpdated, Some(&Value::Array(difference)), at)?;
        }
    }
    Ok(())
}

/// A row of `hub_event`.
struct EventRow {
    sequence: u64,
    hub: i64,
    device: String,
    module: String,
    generation: String,
    change: i64,
    at: i64,
    body: Option<String>,
}

impl EventRow {
    fn read(row: &Row<'_>) -> Result<Self, Error> {
        let Bits(sequence) = row.get(0)?;
        let (hub, device, module, generation) = (row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?);
        Ok(Self { sequence, hub, device, module, generation, change: row.get(5)?, at: row.get(6)?, body: row.get(7)? })
    }

    fn open(self) -> Result<KeptEvent, Error> {
        let column = |column| Column { table: "hub_event", column };
        let sequence = self.sequence;
        let unknown = || column("change").corrupt(sequence, Senseless("there is no such change"));
        let change = (0..).zip(Change::ALL).find(|(number, _)| *number == self.change).map(|(_, change)| change);
        let event = Event {
            hub: HubKey(self.hub),
            name: name_of(&self.device, &self.module, column("device"))?,
            generation: self.generation,
            change: change.ok_or_else(unknown)?,
            at: moment(self.at),
            body: self.body.as_deref().map(|text| from_json(text, column("body"), sequence)).transpose()?,
        };
        Ok(KeptEvent { sequence, event })
    }
}

fn after(db: Db<'_>, sequence: u64, limit: usize) -> Result<(Vec<KeptEvent>, u64), Error> {
    let sql = "SELECT sequence, hub, device, module, generation, change, at, body FROM hub_event WHERE sequence > ?1 \
               ORDER BY sequence LIMIT ?2";
    let (mut events, mut reached, mut bytes) = (Vec::new(), sequence, 0);
    db.visit((sql, Statement::Kept), params![Bits(sequence), row_limit(limit)], |row| {
        let row = EventRow::read(row)?;
        reached = row.sequence;
        bytes += row.body.as_ref().map_or(0, String::len);
        match row.open() {
            Ok(event) => events.push(event),
            Err(error) => tracing::error!(error = %crate::error::chain(&error), "an event was passed over"),
        }
        Ok(if bytes >= EVENTS_BYTES_MAX { Flow::Stop } else { Flow::GoOn })
    })?;
    Ok((events, reached))
}

#[async_trait]
impl EventStore for Embedded {
    async fn events_after(&self, sequence: u64, limit: usize) -> Result<(Vec<KeptEvent>, u64), Error> {
        self.scan(move |db| after(db, sequence, limit)).await
    }

    async fn prune_events(&self, sequence: u64, limit: usize) -> Result<usize, Error> {
        self.write_relaxed(move |tx| tx.prune(Sequence::Events, sequence, limit)).await
    }

    fn event_changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.0.changes.events.subscribe()
    }
}
