//! Device and module identities, their sessions, and who is connected.

use async_trait::async_trait;
use domain::clock::UnixTime;
use domain::enrollment::Capabilities;
use domain::event::{Change, whole_twin};
use domain::identity::{Authentication, Identity, IdentityStatus, StoredAuthentication};
use domain::ids::{DeviceId, Etag, HubKey, ModuleId, Precondition};
use domain::message::EventSource;
use domain::operation::identity::IdentityName;
use domain::operation::session::Subscriptions;
use domain::operation::{Page, PageRequest};
use domain::sas::KeyRotation;
use domain::twin::{ServiceChange, Twin};
use serde::{Deserialize, Serialize};

use super::enrollment::{cut_page, page_limit};
use super::event::Whose;
use super::link::Sequence;
use super::rows::{Bits, Column, Senseless, from_json, moment, open_pair, row_limit, seal_keys, to_json};
use super::session::{Forgetting, Outcome};
use super::tally::{self, Counted};
use super::value::{Row, params};
use super::{Db, Embedded, Tx, WAKES_IDENTITIES, event, file, resource, session, twin};
use crate::error::Error;
use crate::ports::{
    ActivityMark, Changed, ClaimWanted, ConnectionClaim, Created, DeviceCounts, IdentityStore, Rotated,
};
use crate::seal::Place;

const RECORD: Column = Column { table: "identity", column: "record" };
const NAME: Column = Column { table: "identity", column: "device" };

/// What of an identity lies in the open and is not queried.
#[derive(Serialize, Deserialize)]
struct IdentityRecord {
    status_reason: Option<String>,
    status_updated_at: UnixTime,
    authentication: StoredAuthentication,
    capabilities: Capabilities,
    device_scope: Option<String>,
    parent_scopes: Vec<String>,
    managed_by: Option<String>,
}

/// A row of `identity` with its session.
struct IdentityRow {
    id: i64,
    hub: i64,
    device: String,
    module: String,
    generation: String,
    enabled: bool,
    record: String,
    keys: Option<Vec<u8>>,
    messages_waiting: u32,
    etag: Bits,
    connected_run: Option<i64>,
    connection_updated_at: Option<i64>,
    last_activity_at: Option<i64>,
    model_id: Option<String>,
}

/// All that [`IdentityRow::read`] reads, of hubs that are there.
const SELECT: &str = "SELECT i.id, i.hub, i.device, i.module, i.generation, i.enabled, i.record, i.keys, \
    i.messages_waiting, i.etag, s.connected_run, s.connection_updated_at, s.last_activity_at, s.model_id \
    FROM identity i JOIN hub h ON h.key = i.hub LEFT JOIN session s ON s.identity = i.id";

impl IdentityRow {
    fn read(row: &Row<'_>) -> Result<Self, Error> {
        Ok(Self {
            id: row.get(0)?,
            hub: row.get(1)?,
            device: row.get(2)?,
            module: row.get(3)?,
            generation: row.get(4)?,
            enabled: row.get(5)?,
            record: row.get(6)?,
            keys: row.get(7)?,
            messages_waiting: row.get(8)?,
            etag: row.get(9)?,
            connected_run: row.get(10)?,
            connection_updated_at: row.get(11)?,
            last_activity_at: row.get(12)?,
            model_id: row.get(13)?,
        })
    }

    fn open(self, db: Db<'_>) -> Result<Identity, Error> {
        let name = twin::name_of(&self.device, &self.module, Column { table: "identity", column: "device" })?;
        let row = seal_row(HubKey(self.hub), &name);
        let record: IdentityRecord = from_json(&self.record, RECORD, &row)?;
        let place = Place { table: "identity", row: &row, column: "keys" };
        let keys = open_pair(&db.context.sealer, place, self.keys.as_deref())?;
        let authentication = Authentication::from_stored(record.authentication, keys)
            .ok_or_else(|| RECORD.corrupt(&row, Senseless("its keys are missing")))?;
        Ok(Identity {
            name,
            generation: self.generation,
            etag: self.etag.into(),
            status: if self.enabled { IdentityStatus::Enabled } else { IdentityStatus::Disabled },
            status_reason: record.status_reason,
            status_updated_at: record.status_updated_at,
            authentication,
            capabilities: record.capabilities,
            device_scope: record.device_scope,
            parent_scopes: record.parent_scopes,
            managed_by: record.managed_by,
            connected: self.connected_run == Some(db.context.run),
            connection_updated_at: self.connection_updated_at.map_or(UnixTime::NEVER, moment),
            last_activity_at: self.last_activity_at.map_or(UnixTime::NEVER, moment),
            messages_waiting: self.messages_waiting,
            model_id: self.model_id,
        })
    }
}

/// The row as sealed values know it. A slash stands in no device ID.
fn seal_row(hub: HubKey, name: &IdentityName) -> String {
    format!("{}/{name}", hub.0)
}

pub(super) fn module_column(name: &IdentityName) -> &str {
    name.module.as_ref().map_or("", ModuleId::as_str)
}

/// The open and the sealed part of an identity.
fn seal(tx: &Tx<'_, '_>, hub: HubKey, identity: &Identity) -> Result<(String, Option<Vec<u8>>), Error> {
    let (authentication, keys) = identity.authentication.to_stored();
    let row = seal_row(hub, &identity.name);
    let place = Place { table: "identity", row: &row, column: "keys" };
    let keys = keys.map(|keys| seal_keys(&tx.context.sealer, place, [keys]));
    let record = IdentityRecord {
        status_reason: identity.status_reason.clone(),
        status_updated_at: identity.status_updated_at,
        authentication,
        capabilities: identity.capabilities,
        device_scope: identity.device_scope.clone(),
        parent_scopes: identity.parent_scopes.clone(),
        managed_by: identity.managed_by.clone(),
    };
    Ok((to_json(&record)?, keys))
}

/// The row number of an identity.
pub(super) fn find_id(db: Db<'_>, hub: HubKey, name: &IdentityName) -> Result<Option<i64>, Error> {
    let sql = "SELECT i.id FROM identity i JOIN hub h ON h.key = i.hub \
               WHERE i.hub = ?1 AND i.device = ?2 AND i.module = ?3";
    db.row(sql, params![hub.0, name.device.as_str(), module_column(name)], |row| row.get(0))
}

/// An identity with its row number.
pub(super) fn find_with_id(db: Db<'_>, hub: HubKey, name: &IdentityName) -> Result<Option<(i64, Identity)>, Error> {
    let sql = format!("{SELECT} WHERE i.hub = ?1 AND i.device = ?2 AND i.module = ?3");
    let row = db.row(&sql, params![hub.0, name.device.as_str(), module_column(name)], IdentityRow::read)?;
    row.map(|row| Ok((row.id, row.open(db)?))).transpose()
}

/// The identity of a row number.
pub(super) fn find_by_id(db: Db<'_>, id: i64) -> Result<Option<Identity>, Error> {
    let row = db.row(&format!("{SELECT} WHERE i.id = ?1"), [id], IdentityRow::read)?;
    row.map(|row| row.open(db)).transpose()
}

/// Writes a fresh identity and its twin, and an edge device's own modules; gives the identity as it is kept. There must be
/// none of its name.
pub(super) fn insert(
    tx: &mut Tx<'_, '_>,
    hub: HubKey,
    wanted: Identity,
    twin: &Twin,
    now: UnixTime,
) -> Result<Identity, Error> {
    let sources = event::reserve(tx, hub, [])?;
    let identity = wanted.created(tx.fresh_etag()?, now);
    let (record, keys) = seal(tx, hub, &identity)?;
    let id = tx.insert(
        "INSERT INTO identity (hub, device, module, generation, enabled, record, keys, messages_waiting, etag) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, ?8) RETURNING id",
        params![
            hub.0,
            identity.name.device.as_str(),
            module_column(&identity.name),
            identity.generation,
            identity.status == IdentityStatus::Enabled,
            record,
            keys,
            Bits::from(identity.etag)
        ],
    )?;
    twin::write(tx, hub, id, twin)?;
    if sources.contains(EventSource::Lifecycle) {
        let body = whole_twin(twin, &identity);
        event::tell(tx, Whose::of(hub, &identity), Change::Created, Some(&body), now)?;
    }
    if identity.capabilities.iot_edge {
        add_edge_modules(tx, hub, &identity.name.device, now)?;
    }
    Ok(identity)
}

/// Makes those of an edge device's own modules that are not there.
fn add_edge_modules(tx: &mut Tx<'_, '_>, hub: HubKey, device: &DeviceId, now: UnixTime) -> Result<(), Error> {
    for module in Identity::edge_modules(device) {
        if find_id(tx.db(), hub, &module.name)?.is_none() {
            let twin = fresh_twin(tx.fresh_etag()?, None, now)?;
            insert(tx, hub, module, &twin, now)?;
        }
    }
    Ok(())
}

/// Replaces the identity `present` of row `id` by `wanted`, under a fresh etag; gives it as it is kept. Who is connected
/// hears of it if it may no longer be.
pub(super) fn update(
    tx: &mut Tx<'_, '_>,
    (hub, id): (HubKey, i64),
    present: &Identity,
    wanted: Identity,
    now: UnixTime,
) -> Result<Identity, Error> {
    let next = present.clone().replaced_by(wanted, tx.fresh_etag()?, now);
    let (record, keys) = seal(tx, hub, &next)?;
    let enabled = next.status == IdentityStatus::Enabled;
    let is_told = !enabled || next.authentication != present.authentication;
    event::reserve(tx, hub, is_told.then_some(Sequence::IdentityChanges))?;
    tx.change(
        "UPDATE identity SET enabled = ?2, record = ?3, keys = ?4, etag = ?5 WHERE id = ?1",
        params![id, enabled, record, keys, Bits::from(next.etag)],
    )?;
    if next.capabilities.iot_edge && !present.capabilities.iot_edge {
        add_edge_modules(tx, hub, &next.name.device, now)?;
    }
    if is_told {
        announce(tx, hub, &next.name)?;
    }
    if !enabled && next.name.module.is_none() {
        announce_modules(tx, hub, &next.name.device)?;
    }
    Ok(next)
}

/// Notes that the modules of a device may no longer be connected, since the device may not.
fn announce_modules(tx: &mut Tx<'_, '_>, hub: HubKey, device: &DeviceId) -> Result<(), Error> {
    let sql = "SELECT module FROM identity WHERE hub = ?1 AND device = ?2 AND module > ''";
    let modules: Vec<String> = tx.db().rows(sql, params![hub.0, device.as_str()], |row| row.get(0))?;
    for module in modules {
        let column = Column { table: "identity", column: "module" };
        announce(tx, hub, &twin::name_of(device.as_str(), &module, column)?)?;
    }
    Ok(())
}

/// Notes that an identity was disabled, removed or re-keyed.
fn announce(tx: &mut Tx<'_, '_>, hub: HubKey, name: &IdentityName) -> Result<(), Error> {
    tx.reserve([Sequence::IdentityChanges])?;
    let sql = "INSERT INTO identity_change (hub, device, module) VALUES (?1, ?2, ?3)";
    tx.change(sql, params![hub.0, name.device.as_str(), module_column(name)])?;
    tx.wake(WAKES_IDENTITIES);
    Ok(())
}

/// Removes an identity with all that belongs to it; a device takes its modules along.
pub(super) fn remove(tx: &mut Tx<'_, '_>, hub: HubKey, name: &IdentityName) -> Result<(), Error> {
    event::reserve(tx, hub, [Sequence::IdentityChanges])?;
    let sql = "SELECT id, module FROM identity WHERE hub = ?1 AND device = ?2 AND (?3 = '' OR module = ?3)";
    let rows: Vec<(i64, String)> =
        tx.db().rows(sql, params![hub.0, name.device.as_str(), module_column(name)], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    file::forget_uploads(tx, hub, name)?;
    for (id, module) in rows {
        tell_of_removal(tx, hub, id)?;
        twin::remove(tx, hub, id)?;
        tx.change("DELETE FROM session WHERE identity = ?1", [id])?;
        tx.change("DELETE FROM message WHERE identity = ?1", [id])?;
        tx.change("DELETE FROM feedback WHERE identity = ?1", [id])?;
        tx.change("DELETE FROM identity WHERE id = ?1", [id])?;
        let column = Column { table: "identity", column: "module" };
        announce(tx, hub, &twin::name_of(name.device.as_str(), &module, column)?)?;
    }
    Ok(())
}

/// Tells that an identity leaves and is gone, as far as the hub's routes ask for it. What cannot be read cannot be told
/// of, and is removed all the same.
fn tell_of_removal(tx: &mut Tx<'_, '_>, hub: HubKey, id: i64) -> Result<(), Error> {
    let sources = event::sources(tx.db(), hub)?;
    if sources.is_empty() {
        return Ok(());
    }
    let found = find_by_id(tx.db(), id).and_then(|identity| Ok(identity.zip(twin::find(tx.db(), id)?)));
    let (identity, twin) = match found {
        Ok(Some(found)) => found,
        Ok(None) => return Ok(()),
        Err(error @ Error::Corrupt { .. }) => {
            tracing::error!(error = %crate::error::chain(&error), "a removal is not told of");
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let now = tx.context.clock.now();
    if identity.connected && sources.contains(EventSource::ConnectionState) {
        event::tell(tx, Whose::of(hub, &identity), Change::Disconnected, None, now)?;
    }
    if sources.contains(EventSource::Lifecycle) {
        let body = whole_twin(&twin, &identity);
        event::tell(tx, Whose::of(hub, &identity), Change::Deleted, Some(&body), now)?;
    }
    Ok(())
}

pub(super) fn create(
    tx: &mut Tx<'_, '_>,
    hub: HubKey,
    identity: Identity,
    first: Option<ServiceChange>,
    now: UnixTime,
) -> Result<Created<Identity>, Error> {
    let name = identity.name.clone();
    let has_owner = match name.module {
        Some(_) => find_id(tx.db(), hub, &IdentityName::device(name.device.clone()))?.is_some(),
        None => resource::hub_exists(tx.db(), hub)?,
    };
    if !has_owner {
        return Ok(Created::NoOwner);
    }
    if find_id(tx.db(), hub, &name)?.is_some() {
        return Ok(Created::AlreadyExists);
    }
    if is_full(tx.db(), hub, &name)? {
        return Ok(Created::Full);
    }
    let twin = fresh_twin(tx.fresh_etag()?, first, now)?;
    Ok(Created::Done(insert(tx, hub, identity, &twin, now)?))
}

/// Whether the hub takes no more devices, or the device no more modules: whichever `name` is one of.
fn is_full(db: Db<'_>, hub: HubKey, name: &IdentityName) -> Result<bool, Error> {
    let quotas = db.context.quotas;
    if name.module.is_none() {
        return Ok(tally::amount(db, Counted::Devices(hub))? >= quotas.devices_per_hub);
    }
    let sql = "SELECT count(*) FROM identity WHERE hub = ?1 AND device = ?2 AND module > ''";
    let modules = db.row(sql, params![hub.0, name.device.as_str()], |row| row.get::<Bits>(0))?;
    Ok(modules.is_some_and(|modules| modules.0 >= quotas.modules_per_device))
}

/// The twin of a fresh identity. Its content is checked by whoever takes it from outside.
pub(super) fn fresh_twin(etag: Etag, first: Option<ServiceChange>, now: UnixTime) -> Result<Twin, Error> {
    Twin::with_initial(first.unwrap_or_default(), etag, now).map_err(|error| Error::backend("a first twin", error))
}

pub(super) fn replace(
    tx: &mut Tx<'_, '_>,
    hub: HubKey,
    identity: Identity,
    precondition: Precondition,
    now: UnixTime,
) -> Result<Changed<Identity>, Error> {
    let Some((id, present)) = find_with_id(tx.db(), hub, &identity.name)? else { return Ok(Changed::NotFound) };
    if !precondition.holds(present.etag) {
        return Ok(Changed::PreconditionFailed { present: present.etag });
    }
    Ok(Changed::Done(update(tx, (hub, id), &present, identity, now)?))
}

fn rotate_keys(
    tx: &mut Tx<'_, '_>,
    (hub, name): (HubKey, &IdentityName),
    rotation: KeyRotation,
    now: UnixTime,
) -> Result<Rotated, Error> {
    let Some((id, present)) = find_with_id(tx.db(), hub, name)? else { return Ok(Rotated::NotFound) };
    let Authentication::Sas(keys) = &present.authentication else { return Ok(Rotated::NoKeys) };
    let keys = rotation.apply(keys.clone());
    let wanted = Identity { authentication: Authentication::Sas(keys.clone()), ..present.clone() };
    update(tx, (hub, id), &present, wanted, now)?;
    Ok(Rotated::Done(keys))
}

pub(super) fn delete(
    tx: &mut Tx<'_, '_>,
    hub: HubKey,
    name: &IdentityName,
    precondition: Precondition,
) -> Result<Changed<Identity>, Error> {
    let Some((_, present)) = find_with_id(tx.db(), hub, name)? else { return Ok(Changed::NotFound) };
    if !precondition.holds(present.etag) {
        return Ok(Changed::PreconditionFailed { present: present.etag });
    }
    remove(tx, hub, name)?;
    Ok(Changed::Done(present))
}

fn list_devices(db: Db<'_>, hub: HubKey, page: &PageRequest) -> Result<Page<Identity>, Error> {
    let after = page.after.as_ref().map_or("", |cursor| cursor.0.as_str());
    let limit = page_limit(page);
    let sql = format!("{SELECT} WHERE i.hub = ?1 AND i.module = '' AND i.device > ?2 ORDER BY i.device LIMIT ?3");
    let rows = db.rows(&sql, params![hub.0, after, row_limit(limit + 1)], IdentityRow::read)?;
    let (rows, next) = cut_page(rows, limit, |row| row.device.clone());
    Ok(Page { items: rows.into_iter().map(|row| row.open(db)).collect::<Result<_, _>>()?, next })
}

fn list_modules(db: Db<'_>, hub: HubKey, device: &DeviceId) -> Result<Option<Vec<Identity>>, Error> {
    if find_id(db, hub, &IdentityName::device(device.clone()))?.is_none() {
        return Ok(None);
    }
    let sql = format!("{SELECT} WHERE i.hub = ?1 AND i.device = ?2 AND i.module > '' ORDER BY i.module");
    let rows = db.rows(&sql, params![hub.0, device.as_str()], IdentityRow::read)?;
    rows.into_iter().map(|row| row.open(db)).collect::<Result<_, _>>().map(Some)
}

fn list_names(db: Db<'_>, hub: HubKey, page: &PageRequest) -> Result<Page<IdentityName>, Error> {
    let after = page.after.as_ref().map_or("", |cursor| cursor.0.as_str());
    let limit = page_limit(page);
    let sql = "SELECT i.device FROM identity i JOIN hub h ON h.key = i.hub \
               WHERE i.hub = ?1 AND i.module = '' AND i.device > ?2 ORDER BY i.device LIMIT ?3";
    let devices: Vec<String> = db.rows(sql, params![hub.0, after, row_limit(limit + 1)], |row| row.get(0))?;
    let (devices, next) = cut_page(devices, limit, Clone::clone);
    let Some(last) = devices.last() else { return Ok(Page { items: Vec::new(), next }) };
    let sql = "SELECT device, module FROM identity WHERE hub = ?1 AND device > ?2 AND device <= ?3 \
               ORDER BY device, module";
    let rows = db.rows(sql, params![hub.0, after, last.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let name = |(device, module): (String, String)| match twin::name_of(&device, &module, NAME) {
        Ok(name) => Some(name),
        Err(error) => {
            tracing::error!(error = %crate::error::chain(&error), "an identity is passed over");
            None
        }
    };
    Ok(Page { items: rows.into_iter().filter_map(name).collect(), next })
}

fn count_devices(db: Db<'_>, hub: HubKey) -> Result<DeviceCounts, Error> {
    let mut counts = DeviceCounts::default();
    if !resource::hub_exists(db, hub)? {
        return Ok(counts);
    }
    let sql = "SELECT enabled, count(*) FROM identity WHERE hub = ?1 AND module = '' GROUP BY enabled";
    for (enabled, count) in db.rows(sql, [hub.0], |row| Ok((row.get::<bool>(0)?, row.get::<Bits>(1)?)))? {
        counts.total += count.0;
        *(if enabled { &mut counts.enabled } else { &mut counts.disabled }) += count.0;
    }
    let sql = "SELECT count(*) FROM session WHERE hub = ?1 AND connected_run = ?2 AND is_device = 1";
    counts.connected = db.row(sql, [hub.0, db.context.run], |row| row.get::<Bits>(0))?.map_or(0, |count| count.0);
    Ok(counts)
}

fn changes_after(db: Db<'_>, sequence: u64, limit: usize) -> Result<(Vec<(HubKey, IdentityName)>, u64), Error> {
    let sql =
        "SELECT sequence, hub, device, module FROM identity_change WHERE sequence > ?1 ORDER BY sequence LIMIT ?2";
    let rows: Vec<(Bits, i64, String, String)> = db.rows(sql, params![Bits(sequence), row_limit(limit)], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
    })?;
    let reached = rows.last().map_or(sequence, |(sequence, ..)| sequence.0);
    let column = Column { table: "identity_change", column: "device" };
    let change = |(_, hub, device, module): (Bits, i64, String, String)| {
        let name = twin::name_of(&device, &module, column).inspect_err(|error| {
            tracing::error!(error = %crate::error::chain(error), "a change of an identity was passed over");
        });
        Some((HubKey(hub), name.ok()?))
    };
    Ok((rows.into_iter().filter_map(change).collect(), reached))
}

#[async_trait]
impl IdentityStore for Embedded {
    async fn create_identity(
        &self,
        hub: HubKey,
        identity: Identity,
        twin: Option<ServiceChange>,
        now: UnixTime,
    ) -> Result<Created<Identity>, Error> {
        self.write(move |tx| create(tx, hub, identity, twin, now)).await
    }

    async fn replace_identity(
        &self,
        hub: HubKey,
        identity: Identity,
        precondition: Precondition,
        now: UnixTime,
    ) -> Result<Changed<Identity>, Error> {
        self.write(move |tx| replace(tx, hub, identity, precondition, now)).await
    }

    async fn rotate_keys(
        &self,
        hub: HubKey,
        name: &IdentityName,
        rotation: KeyRotation,
        now: UnixTime,
    ) -> Result<Rotated, Error> {
        let name = name.clone();
        self.write(move |tx| rotate_keys(tx, (hub, &name), rotation, now)).await
    }

    async fn delete_identity(
        &self,
        hub: HubKey,
        name: &IdentityName,
        precondition: Precondition,
    ) -> Result<Changed<Identity>, Error> {
        let name = name.clone();
        self.write(move |tx| delete(tx, hub, &name, precondition)).await
    }

    async fn find_identity(&self, hub: HubKey, name: &IdentityName) -> Result<Option<Identity>, Error> {
        let name = name.clone();
        self.read(move |db| Ok(find_with_id(db, hub, &name)?.map(|(_, identity)| identity))).await
    }

    async fn list_devices(&self, hub: HubKey, page: PageRequest) -> Result<Page<Identity>, Error> {
        self.scan(move |db| list_devices(db, hub, &page)).await
    }

    async fn list_modules(&self, hub: HubKey, device: &DeviceId) -> Result<Option<Vec<Identity>>, Error> {
        let device = device.clone();
        self.read(move |db| list_modules(db, hub, &device)).await
    }

    async fn list_names(&self, hub: HubKey, page: PageRequest) -> Result<Page<IdentityName>, Error> {
        self.scan(move |db| list_names(db, hub, &page)).await
    }

    async fn list_full_hubs(&self) -> Result<Vec<HubKey>, Error> {
        self.read(|db| tally::hubs_with(db, db.context.quotas.devices_per_hub)).await
    }

    async fn count_devices(&self, hub: HubKey) -> Result<DeviceCounts, Error> {
        self.scan(move |db| count_devices(db, hub)).await
    }

    async fn claim_connection(
        &self,
        hub: HubKey,
        name: &IdentityName,
        wanted: ClaimWanted,
        now: UnixTime,
    ) -> Result<Option<ConnectionClaim>, Error> {
        let verb = |forgetting| {
            let (name, wanted) = (name.clone(), wanted.clone());
            move |tx: &mut Tx<'_, '_>| session::claim(tx, (hub, &name), &wanted, forgetting, now)
        };
        let outcome = match self.write_while_running(verb(Forgetting::Unfit)).await? {
            Outcome::Remembered => self.write(verb(Forgetting::Fit)).await?,
            outcome => outcome,
        };
        match outcome {
            Outcome::Claimed(claim) => Ok(Some(claim)),
            Outcome::Gone | Outcome::Remembered => Ok(None),
        }
    }

    async fn announce_model(
        &self,
        hub: HubKey,
        name: &IdentityName,
        (epoch, model_id): (u64, &str),
        now: UnixTime,
    ) -> Result<bool, Error> {
        let (name, model_id) = (name.clone(), model_id.to_owned());
        self.write_while_running(move |tx| session::announce(tx, (hub, &name), (epoch, &model_id), now)).await
    }

    async fn release_connection(
        &self,
        hub: HubKey,
        name: &IdentityName,
        epoch: u64,
        now: UnixTime,
    ) -> Result<bool, Error> {
        let name = name.clone();
        self.write_while_running(move |tx| session::release(tx, (hub, &name), epoch, now)).await
    }

    async fn save_subscriptions(
        &self,
        hub: HubKey,
        name: &IdentityName,
        epoch: u64,
        subscriptions: Subscriptions,
    ) -> Result<bool, Error> {
        let name = name.clone();
        self.write(move |tx| session::save(tx, (hub, &name), epoch, subscriptions)).await
    }

    async fn note_activity(&self, marks: Vec<ActivityMark>) -> Result<(), Error> {
        /// Marks of one verb, so that the writer is not held for long.
        const PIECE_MARKS: usize = 256;
        for piece in marks.chunks(PIECE_MARKS) {
            let piece = piece.to_vec();
            self.write_relaxed(move |tx| session::note(tx, &piece)).await?;
        }
        Ok(())
    }

    fn identity_changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.0.changes.identities.subscribe()
    }

    async fn identity_changes_after(
        &self,
        sequence: u64,
        limit: usize,
    ) -> Result<(Vec<(HubKey, IdentityName)>, u64), Error> {
        self.scan(move |db| changes_after(db, sequence, limit)).await
    }

    async fn prune_identity_changes(&self, sequence: u64, limit: usize) -> Result<usize, Error> {
        // Nobody asks for an earlier run's changes, so that forgetting them need not survive a power cut.
        self.write_relaxed(move |tx| tx.prune(Sequence::IdentityChanges, sequence, limit)).await
    }
}
