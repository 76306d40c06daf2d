//! Twins, and the rows from which devices are told of changed desired properties.
//!
//! What a change does to a twin is decided in `domain::twin`; here it is read, changed and written in one transaction,
//! with the row that tells of it (`rules.md` 12).

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use domain::clock::UnixTime;
use domain::event::Patches;
use domain::identity::Identity;
use domain::ids::{DeviceId, HubKey, ModuleId, Precondition};
use domain::operation::identity::IdentityName;
use domain::query::leaf::{self, Leaf};
use domain::twin::{PatchError, Section, ServiceChange, Twin};
use serde_json::{Map, Value};

use super::link::{Flow, Sequence, Statement};
use super::rows::{Bits, Column, from_json, from_json_if, row_limit, to_json};
use super::value::{Row, params};
use super::{Db, Embedded, Tx, WAKES_TWINS, configuration, event, identity};
use crate::error::Error;
use crate::ports::{TwinChange, TwinOutcome, TwinStore};

/// Changes read at once end with the one that brings their text to so many bytes.
const CHANGES_BYTES_MAX: usize = 1 << 20;

/// A row of `twin`.
struct TwinRow {
    tags: String,
    desired: (String, String, Bits),
    reported: (String, String, Bits),
    version: Bits,
    etag: Bits,
    configurations: String,
}

impl TwinRow {
    fn read(row: &Row<'_>) -> Result<Self, Error> {
        Ok(Self {
            tags: row.get(0)?,
            desired: (row.get(1)?, row.get(2)?, row.get(3)?),
            reported: (row.get(4)?, row.get(5)?, row.get(6)?),
            version: row.get(7)?,
            etag: row.get(8)?,
            configurations: row.get(9)?,
        })
    }

    fn open(self, id: i64) -> Result<Twin, Error> {
        let map = |text: &str, column| from_json::<Map<String, Value>>(text, Column { table: "twin", column }, id);
        let (document, metadata, version) = self.desired;
        let desired = Section::from_parts(map(&document, "desired")?, map(&metadata, "desired_metadata")?, version.0);
        let (document, metadata, version) = self.reported;
        let reported =
            Section::from_parts(map(&document, "reported")?, map(&metadata, "reported_metadata")?, version.0);
        Ok(Twin {
            tags: map(&self.tags, "tags")?,
            desired,
            reported,
            version: self.version.0,
            etag: self.etag.into(),
            configurations: map(&self.configurations, "configurations")?,
        })
    }
}

/// The twin of an identity.
pub(super) fn find(db: Db<'_>, id: i64) -> Result<Option<Twin>, Error> {
    Ok(find_with_size(db, id)?.map(|(twin, _)| twin))
}

/// The twin of an identity, and the bytes of its documents.
pub(super) fn find_with_size(db: Db<'_>, id: i64) -> Result<Option<(Twin, usize)>, Error> {
    let sql = "SELECT tags, desired, desired_metadata, desired_version, reported, reported_metadata, reported_version, \
               version, etag, configurations FROM twin WHERE identity = ?1";
    let row = db.row(sql, [id], TwinRow::read)?;
    row.map(|row| {
        let bytes = row.tags.len() + row.desired.0.len() + row.reported.0.len();
        Ok((row.open(id)?, bytes))
    })
    .transpose()
}

/// Writes the whole twin of an identity, whether there is one or not, and the rows by which its tags are found.
pub(super) fn write(tx: &Tx<'_, '_>, hub: HubKey, id: i64, twin: &Twin) -> Result<(), Error> {
    index(tx, hub, id, &twin.tags)?;
    tx.change(
        "INSERT INTO twin (identity, tags, desired, desired_metadata, desired_version, reported, reported_metadata, \
         reported_version, version, etag, configurations) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) \
         ON CONFLICT (identity) DO UPDATE SET tags = excluded.tags, desired = excluded.desired, \
         desired_metadata = excluded.desired_metadata, desired_version = excluded.desired_version, \
         reported = excluded.reported, reported_metadata = excluded.reported_metadata, \
         reported_version = excluded.reported_version, version = excluded.version, etag = excluded.etag, \
         configurations = excluded.configurations",
        params![
            id,
            to_json(&twin.tags)?,
            to_json(twin.desired.document())?,
            to_json(twin.desired.metadata())?,
            Bits(twin.desired.version()),
            to_json(twin.reported.document())?,
            to_json(twin.reported.metadata())?,
            Bits(twin.reported.version()),
            Bits(twin.version),
            Bits::from(twin.etag),
            to_json(&twin.configurations)?
        ],
    )?;
    Ok(())
}

/// Brings the rows by which tags are found from those of the twin as it is kept to those of `tags`.
fn index(tx: &Tx<'_, '_>, hub: HubKey, id: i64, tags: &Map<String, Value>) -> Result<(), Error> {
    let text = tx.db().row("SELECT tags FROM twin WHERE identity = ?1", [id], |row| row.get::<String>(0))?;
    let kept = from_json_if::<Map<String, Value>>(text.as_deref(), Column { table: "twin", column: "tags" }, id)?;
    let kept: BTreeSet<Leaf> = kept.iter().flat_map(leaf::of_tags).collect();
    let wanted: BTreeSet<Leaf> = leaf::of_tags(tags).into_iter().collect();
    for Leaf { path, value } in kept.difference(&wanted) {
        let sql = "DELETE FROM twin_tag WHERE hub = ?1 AND path = ?2 AND value = ?3 AND identity = ?4";
        tx.change(sql, params![hub.0, path, value, id])?;
    }
    for Leaf { path, value } in wanted.difference(&kept) {
        let sql = "INSERT INTO twin_tag (hub, path, value, identity) VALUES (?1, ?2, ?3, ?4)";
        tx.change(sql, params![hub.0, path, value, id])?;
    }
    Ok(())
}

/// Removes the twin of an identity, with the rows by which its tags are found.
pub(super) fn remove(tx: &Tx<'_, '_>, hub: HubKey, id: i64) -> Result<(), Error> {
    configuration::forget(tx, hub, id)?;
    match index(tx, hub, id, &Map::new()) {
        // What the tags were cannot be read: the rows are looked for among all.
        Err(Error::Corrupt { .. }) => {
            tx.change("DELETE FROM twin_tag WHERE hub = ?1 AND identity = ?2", params![hub.0, id])?;
        }
        outcome => outcome?,
    }
    tx.change("DELETE FROM twin WHERE identity = ?1", [id])?;
    Ok(())
}

/// Writes the reported part of a twin alone: the other parts, which may be large, stay as they are.
fn write_reported(tx: &Tx<'_, '_>, id: i64, twin: &Twin) -> Result<(), Error> {
    tx.change(
        "UPDATE twin SET reported = ?2, reported_metadata = ?3, reported_version = ?4, version = ?5 \
         WHERE identity = ?1",
        params![
            id,
            to_json(twin.reported.document())?,
            to_json(twin.reported.metadata())?,
            Bits(twin.reported.version()),
            Bits(twin.version)
        ],
    )?;
    Ok(())
}

/// Writes the row that tells the device of changed desired properties.
pub(super) fn announce(
    tx: &mut Tx<'_, '_>,
    hub: HubKey,
    name: &IdentityName,
    version: u64,
    patch: &Map<String, Value>,
) -> Result<(), Error> {
    let module = name.module.as_ref().map_or("", ModuleId::as_str);
    tx.reserve([Sequence::TwinChanges])?;
    tx.change(
        "INSERT INTO twin_change (hub, device, module, version, patch) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![hub.0, name.device.as_str(), module, Bits(version), to_json(patch)?],
    )?;
    tx.wake(WAKES_TWINS);
    Ok(())
}

fn find_with_identity(db: Db<'_>, hub: HubKey, name: &IdentityName) -> Result<Option<(Twin, Identity)>, Error> {
    let Some((id, identity)) = identity::find_with_id(db, hub, name)? else { return Ok(None) };
    Ok(find(db, id)?.map(|twin| (twin, identity)))
}

fn apply_reported(
    tx: &mut Tx<'_, '_>,
    (hub, name): (HubKey, &IdentityName),
    patch: Map<String, Value>,
    expected_version: Option<u64>,
    now: UnixTime,
) -> Result<TwinOutcome<u64>, Error> {
    let Some(id) = identity::find_id(tx.db(), hub, name)? else { return Ok(TwinOutcome::NotFound) };
    let Some(mut twin) = find(tx.db(), id)? else { return Ok(TwinOutcome::NotFound) };
    if expected_version.is_some_and(|expected| expected != twin.reported.version()) {
        return Ok(TwinOutcome::PreconditionFailed);
    }
    // What is told of a change needs a copy of what was before; most hubs tell of none.
    let told = (!event::reserve(tx, hub, [])?.is_empty()).then(|| (twin.clone(), patch.clone()));
    match twin.apply_reported(patch, now) {
        Ok(version) => {
            write_reported(tx, id, &twin)?;
            if let (Some((before, patch)), Some(identity)) = (told, identity::find_by_id(tx.db(), id)?) {
                let patches = Patches { reported: Some(patch), ..Patches::default() };
                let manner = event::Manner::Merged(Box::new(patches));
                event::tell_of_twin(tx, (hub, &identity), (&before, &twin), manner, now)?;
            }
            Ok(TwinOutcome::Done(version))
        }
        Err(refused) => Ok(TwinOutcome::Refused(refused)),
    }
}

/// Merges a change into a twin, as part of another verb.
pub(super) fn patch(
    tx: &mut Tx<'_, '_>,
    place: (HubKey, &IdentityName),
    wanted: ServiceChange,
    precondition: Precondition,
    now: UnixTime,
) -> Result<TwinOutcome<(Twin, Identity)>, Error> {
    change(tx, place, (wanted, Manner::Patch), precondition, now)
}

/// How a change meets a twin.
#[derive(Clone, Copy)]
enum Manner {
    Patch,
    Replace,
}

fn change(
    tx: &mut Tx<'_, '_>,
    (hub, name): (HubKey, &IdentityName),
    (change, manner): (ServiceChange, Manner),
    precondition: Precondition,
    now: UnixTime,
) -> Result<TwinOutcome<(Twin, Identity)>, Error> {
    let Some((id, identity)) = identity::find_with_id(tx.db(), hub, name)? else { return Ok(TwinOutcome::NotFound) };
    let Some(mut twin) = find(tx.db(), id)? else { return Ok(TwinOutcome::NotFound) };
    if !precondition.holds(twin.etag) {
        return Ok(TwinOutcome::PreconditionFailed);
    }
    let fresh = tx.fresh_etag()?;
    let told = (!event::sources(tx.db(), hub)?.is_empty()).then(|| (twin.clone(), change.clone()));
    let changes: Result<_, PatchError> = match manner {
        Manner::Patch => twin.apply_service_patch(change, fresh, now),
        Manner::Replace => twin.replace(change, fresh, now),
    };
    match changes {
        Ok(changes) => {
            event::reserve(tx, hub, changes.desired.is_some().then_some(Sequence::TwinChanges))?;
            write(tx, hub, id, &twin)?;
            if let Some(patch) = &changes.desired {
                announce(tx, hub, name, twin.desired.version(), patch)?;
            }
            if let Some((before, ServiceChange { tags, desired })) = told {
                let manner = match manner {
                    Manner::Patch => event::Manner::Merged(Box::new(Patches { tags, desired, reported: None })),
                    Manner::Replace => event::Manner::Replaced,
                };
                event::tell_of_twin(tx, (hub, &identity), (&before, &twin), manner, now)?;
            }
            Ok(TwinOutcome::Done((twin, identity)))
        }
        Err(refused) => Ok(TwinOutcome::Refused(refused)),
    }
}

/// A row of `twin_change`.
struct ChangeRow {
    sequence: u64,
    hub: i64,
    device: String,
    module: String,
    version: u64,
    patch: String,
}

impl ChangeRow {
    fn read(row: &Row<'_>) -> Result<Self, Error> {
        let (Bits(sequence), Bits(version)) = (row.get(0)?, row.get(4)?);
        let (hub, device, module) = (row.get(1)?, row.get(2)?, row.get(3)?);
        Ok(Self { sequence, hub, device, module, version, patch: row.get(5)? })
    }

    fn open(&self) -> Result<TwinChange, Error> {
        let column = |column| Column { table: "twin_change", column };
        let patch: Map<String, Value> = from_json(&self.patch, column("patch"), self.sequence)?;
        Ok(TwinChange {
            sequence: self.sequence,
            hub: HubKey(self.hub),
            name: name_of(&self.device, &self.module, column("device"))?,
            version: self.version,
            patch: Arc::new(patch),
        })
    }
}

fn changes_after(db: Db<'_>, sequence: u64, limit: usize) -> Result<(Vec<TwinChange>, u64), Error> {
    let sql = "SELECT sequence, hub, device, module, version, patch FROM twin_change WHERE sequence > ?1 \
               ORDER BY sequence LIMIT ?2";
    let (mut changes, mut reached, mut bytes) = (Vec::new(), sequence, 0);
    db.visit((sql, Statement::Kept), params![Bits(sequence), row_limit(limit)], |row| {
        let row = ChangeRow::read(row)?;
        reached = row.sequence;
        bytes += row.patch.len();
        match row.open() {
            Ok(change) => changes.push(change),
            Err(error) => tracing::error!(error = %crate::error::chain(&error), "a change of a twin was passed over"),
        }
        Ok(if bytes >= CHANGES_BYTES_MAX { Flow::Stop } else { Flow::GoOn })
    })?;
    Ok((changes, reached))
}

/// The name of an identity out of its columns.
pub(super) fn name_of(device: &str, module: &str, column: Column) -> Result<IdentityName, Error> {
    let module = (!module.is_empty()).then(|| ModuleId::parse(module)).transpose();
    let module = module.map_err(|error| column.corrupt(device, error))?;
    let device = DeviceId::parse(device).map_err(|error| column.corrupt(device, error))?;
    Ok(IdentityName { device, module })
}

fn latest(db: Db<'_>) -> Result<u64, Error> {
    db.link.last_number(Sequence::TwinChanges).map(i64::cast_unsigned)
}

#[async_trait]
impl TwinStore for Embedded {
    async fn find_twin(&self, hub: HubKey, name: &IdentityName) -> Result<Option<(Twin, Identity)>, Error> {
        let name = name.clone();
        self.read(move |db| db.snapshot(|db| find_with_identity(db, hub, &name))).await
    }

    async fn apply_reported(
        &self,
        hub: HubKey,
        name: &IdentityName,
        patch: Map<String, Value>,
        expected_version: Option<u64>,
        now: UnixTime,
    ) -> Result<TwinOutcome<u64>, Error> {
        let name = name.clone();
        self.write(move |tx| apply_reported(tx, (hub, &name), patch, expected_version, now)).await
    }

    async fn patch_twin(
        &self,
        hub: HubKey,
        name: &IdentityName,
        wanted: ServiceChange,
        precondition: Precondition,
        now: UnixTime,
    ) -> Result<TwinOutcome<(Twin, Identity)>, Error> {
        let name = name.clone();
        self.write(move |tx| change(tx, (hub, &name), (wanted, Manner::Patch), precondition, now)).await
    }

    async fn replace_twin(
        &self,
        hub: HubKey,
        name: &IdentityName,
        wanted: ServiceChange,
        precondition: Precondition,
        now: UnixTime,
    ) -> Result<TwinOutcome<(Twin, Identity)>, Error> {
        let name = name.clone();
        self.write(move |tx| change(tx, (hub, &name), (wanted, Manner::Replace), precondition, now)).await
    }

    async fn twin_changes_after(&self, sequence: u64, limit: usize) -> Result<(Vec<TwinChange>, u64), Error> {
        self.scan(move |db| changes_after(db, sequence, limit)).await
    }

    async fn latest_twin_change(&self) -> Result<u64, Error> {
        self.read(latest).await
    }

    async fn prune_twin_changes(&self, sequence: u64, limit: usize) -> Result<usize, Error> {
        // Which rows are forgotten need not survive a power cut: they are forgotten again.
        self.write_relaxed(move |tx| tx.prune(Sequence::TwinChanges, sequence, limit)).await
    }

    fn twin_changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.0.changes.twins.subscribe()
    }
}
