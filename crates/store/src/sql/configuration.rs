//! Configurations, and what each twin has of them.
//!
//! Triggers note whose twin changed; a sweep is a place among the identities of a hub. What is judged is decided in
//! `domain::configuration`; here it is read, changed and written in one transaction, with the counts of each
//! configuration. Start at [`judge`].

use std::collections::BTreeSet;

use async_trait::async_trait;
use domain::clock::UnixTime;
use domain::configuration::{AGENT, Candidate, Configuration, Content, Draft, Put, choose, patch_between};
use domain::identity::Identity;
use domain::ids::{ConfigurationId, Etag, HubKey, ModuleId, Precondition};
use domain::operation::identity::IdentityName;
use domain::query::{Collection, document};
use domain::twin::ServiceChange;
use serde_json::{Map, Value, json};

use super::link::Sequence;
use super::resource::hub_exists;
use super::rows::{Bits, Column, from_json, from_json_if, moment, row_limit, to_json};
use super::value::{Row, params};
use super::{Db, Embedded, Tx, identity, twin};
use crate::error::Error;
use crate::ports::{Changed, ConfigurationStore, Created, Judged, TwinOutcome};

const RECORD: Column = Column { table: "configuration", column: "record" };
const PUTS: Column = Column { table: "configuration_put", column: "puts" };

/// Numbers of identities passed in one piece of a sweep, whoever they belong to.
const WINDOW: i64 = 1_024;

/// A row of `configuration`.
struct ConfigurationRow {
    key: i64,
    record: String,
    created_at: i64,
    updated_at: i64,
    targeted: i64,
    applied: i64,
    etag: Bits,
    id: String,
}

impl ConfigurationRow {
    const COLUMNS: &str = "key, record, created_at, updated_at, targeted, applied, etag, id";

    fn read(row: &Row<'_>) -> Result<Self, Error> {
        Ok(Self {
            key: row.get(0)?,
            record: row.get(1)?,
            created_at: row.get(2)?,
            updated_at: row.get(3)?,
            targeted: row.get(4)?,
            applied: row.get(5)?,
            etag: row.get(6)?,
            id: row.get(7)?,
        })
    }

    fn draft(&self) -> Result<Draft, Error> {
        from_json(&self.record, RECORD, self.key)
    }

    fn open(self) -> Result<Configuration, Error> {
        Ok(Configuration {
            draft: self.draft()?,
            created_at: moment(self.created_at),
            updated_at: moment(self.updated_at),
            targeted: self.targeted.unsigned_abs(),
            applied: self.applied.unsigned_abs(),
            etag: self.etag.into(),
        })
    }
}

fn find_row(db: Db<'_>, hub: HubKey, id: &ConfigurationId) -> Result<Option<ConfigurationRow>, Error> {
    let sql = format!("SELECT {} FROM configuration WHERE hub = ?1 AND id = ?2", ConfigurationRow::COLUMNS);
    db.row(&sql, params![hub.0, id.as_str()], ConfigurationRow::read)
}

/// Of a configuration: no twin may still tell of another one that had its name. Any other is put into twins, and neither
/// told of nor counted until a sweep has passed them all.
const IS_COUNTED: &str =
    "NOT EXISTS (SELECT 1 FROM configuration_gone g WHERE g.hub = configuration.hub AND g.id = configuration.id)";

fn list_rows(db: Db<'_>, hub: HubKey) -> Result<Vec<ConfigurationRow>, Error> {
    let sql = format!("SELECT {} FROM configuration WHERE hub = ?1 ORDER BY key", ConfigurationRow::COLUMNS);
    db.rows(&sql, [hub.0], ConfigurationRow::read)
}

fn list_ids(db: Db<'_>, hub: HubKey) -> Result<Vec<ConfigurationId>, Error> {
    let sql = "SELECT id FROM configuration WHERE hub = ?1 ORDER BY key";
    let ids: Vec<String> = db.rows(sql, [hub.0], |row| row.get(0))?;
    let id = |text: String| match ConfigurationId::parse(&text) {
        Ok(id) => Some(id),
        Err(error) => {
            tracing::error!(%error, "a configuration is passed over");
            None
        }
    };
    Ok(ids.into_iter().filter_map(id).collect())
}

/// Whether there is a configuration of that name.
pub(super) fn is_there(db: Db<'_>, hub: HubKey, id: &ConfigurationId) -> Result<bool, Error> {
    Ok(find_row(db, hub, id)?.is_some())
}

pub(super) fn create(
    tx: &Tx<'_, '_>,
    hub: HubKey,
    draft: &Draft,
    now: UnixTime,
) -> Result<Created<Configuration>, Error> {
    if !hub_exists(tx.db(), hub)? {
        return Ok(Created::NoOwner);
    }
    if find_row(tx.db(), hub, &draft.id)?.is_some() {
        return Ok(Created::AlreadyExists);
    }
    let sql = "SELECT count(*) FROM configuration WHERE hub = ?1";
    let present: Option<i64> = tx.db().row(sql, [hub.0], |row| row.get(0))?;
    if present.unwrap_or(0).unsigned_abs() >= tx.context.quotas.configurations_per_hub {
        return Ok(Created::Full);
    }
    let etag = tx.fresh_etag()?;
    tx.change(
        "INSERT INTO configuration (hub, id, record, created_at, updated_at, etag) VALUES (?1, ?2, ?3, ?4, ?4, ?5)",
        params![hub.0, draft.id.as_str(), to_json(draft)?, now.micros(), Bits::from(etag)],
    )?;
    begin_sweep(tx, hub)?;
    Ok(Created::Done(Configuration {
        draft: draft.clone(),
        created_at: now,
        updated_at: now,
        targeted: 0,
        applied: 0,
        etag,
    }))
}

/// A configuration that stands at the version that is demanded.
fn find_at<T>(
    db: Db<'_>,
    hub: HubKey,
    id: &ConfigurationId,
    precondition: Precondition,
) -> Result<Result<ConfigurationRow, Changed<T>>, Error> {
    let Some(row) = find_row(db, hub, id)? else { return Ok(Err(Changed::NotFound)) };
    let present = Etag::from(row.etag);
    Ok(if precondition.holds(present) { Ok(row) } else { Err(Changed::PreconditionFailed { present }) })
}

pub(super) fn replace(
    tx: &Tx<'_, '_>,
    hub: HubKey,
    draft: Draft,
    precondition: Precondition,
    now: UnixTime,
) -> Result<Changed<Configuration>, Error> {
    let present = match find_at(tx.db(), hub, &draft.id, precondition)? {
        Ok(row) => row,
        Err(refused) => return Ok(refused),
    };
    let draft = Draft { content: present.draft()?.content, ..draft };
    let etag = tx.fresh_etag()?;
    let sql = "UPDATE configuration SET record = ?2, updated_at = ?3, etag = ?4 WHERE key = ?1";
    tx.change(sql, params![present.key, to_json(&draft)?, now.micros(), Bits::from(etag)])?;
    begin_sweep(tx, hub)?;
    let present = present.open()?;
    Ok(Changed::Done(Configuration { draft, updated_at: now, etag, ..present }))
}

pub(super) fn delete(
    tx: &Tx<'_, '_>,
    hub: HubKey,
    id: &ConfigurationId,
    precondition: Precondition,
) -> Result<Changed<()>, Error> {
    let present = match find_at(tx.db(), hub, id, precondition)? {
        Ok(row) => row,
        Err(refused) => return Ok(refused),
    };
    tx.change("DELETE FROM configuration WHERE key = ?1", [present.key])?;
    let sql = "INSERT INTO configuration_gone (hub, id) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
    tx.change(sql, params![hub.0, id.as_str()])?;
    begin_sweep(tx, hub)?;
    Ok(Changed::Done(()))
}

/// Has all twins of a hub judged, from the first on.
fn begin_sweep(tx: &Tx<'_, '_>, hub: HubKey) -> Result<(), Error> {
    tx.change(
        "INSERT INTO configuration_sweep (hub, place) VALUES (?1, 0) ON CONFLICT (hub) DO UPDATE SET place = 0",
        [hub.0],
    )?;
    Ok(())
}

/// What the configurations of a hub are to its twins.
struct Judge {
    hub: HubKey,
    candidates: Vec<Candidate>,
    /// The names and contents of the candidates, by key.
    contents: Vec<(i64, ConfigurationId, Content)>,
    /// The names of configurations whose rows do not parse.
    unreadable: Vec<String>,
    /// The names of configurations that were deleted, of which twins may still tell.
    gone: BTreeSet<String>,
}

impl Judge {
    fn load(db: Db<'_>, hub: HubKey) -> Result<Self, Error> {
        let sql = "SELECT id FROM configuration_gone WHERE hub = ?1";
        let gone: Vec<String> = db.rows(sql, [hub.0], |row| row.get(0))?;
        let (candidates, contents, unreadable) = (Vec::new(), Vec::new(), Vec::new());
        let mut judge = Self { hub, candidates, contents, unreadable, gone: gone.into_iter().collect() };
        for row in list_rows(db, hub)? {
            let draft = match row.draft() {
                Ok(draft) => draft,
                Err(error) => {
                    tracing::error!(error = %crate::error::chain(&error), "a configuration is passed over");
                    // What twins tell of a name that is gone is of another.
                    if !judge.gone.contains(&row.id) {
                        judge.unreadable.push(row.id);
                    }
                    continue;
                }
            };
            // What cannot be read any more is for nobody.
            if let Ok(Some(target)) = draft.target() {
                let is_deployment = draft.content.is_deployment();
                judge.candidates.push(Candidate { key: row.key, target, priority: draft.priority, is_deployment });
            }
            judge.contents.push((row.key, draft.id, draft.content));
        }
        Ok(judge)
    }

    /// Those of `states` that are of deployments.
    fn deployments(&self, mut states: Map<String, Value>) -> Map<String, Value> {
        states.retain(|name, _| self.is_deployment(name) == Some(true));
        states
    }

    /// Those of `states` that are of other configurations.
    fn own(&self, mut states: Map<String, Value>) -> Map<String, Value> {
        states.retain(|name, _| self.is_deployment(name) == Some(false));
        states
    }

    /// Those of `states` that are of nothing that is gone.
    fn present(&self, mut states: Map<String, Value>) -> Map<String, Value> {
        states.retain(|name, _| !self.gone.contains(name));
        states
    }

    /// `None` for a configuration that is gone.
    fn is_deployment(&self, name: &str) -> Option<bool> {
        if self.gone.contains(name) {
            return None;
        }
        let found = self.contents.iter().find(|(_, id, _)| id.as_str() == name);
        found.map(|(.., content)| content.is_deployment())
    }

    fn content(&self, key: i64) -> Option<(&ConfigurationId, &Content)> {
        self.contents.iter().find(|(known, ..)| *known == key).map(|(_, id, content)| (id, content))
    }
}

/// Judges up to `limit` twins: first those that changed, then those of a sweep.
fn judge(tx: &mut Tx<'_, '_>, limit: usize, now: UnixTime) -> Result<Judged, Error> {
    let mut judged = Judged::default();
    // Also those of identities: a removal has the same rows in another order, and waits.
    tx.reserve([Sequence::TwinChanges, Sequence::IdentityChanges, Sequence::Events])?;
    let sql = "SELECT identity, hub FROM configuration_due ORDER BY hub, identity LIMIT ?1";
    let due = tx.db().rows(sql, [row_limit(limit)], |row| Ok((row.get::<i64>(0)?, HubKey(row.get(1)?))))?;
    let mut judge: Option<Judge> = None;
    for (id, hub) in &due {
        let known = judge.take().filter(|judge| judge.hub == *hub);
        let known = known.map_or_else(|| Judge::load(tx.db(), *hub), Ok)?;
        judge_one(tx, &known, *id, &mut judged, now)?;
        judge = Some(known);
        // After it, since a change of the twin notes it again.
        tx.change("DELETE FROM configuration_due WHERE identity = ?1", [id])?;
    }
    let rest = limit.saturating_sub(due.len());
    let sql = "SELECT hub, place FROM configuration_sweep ORDER BY hub LIMIT 1";
    let sweep = tx.db().row(sql, (), |row| Ok((HubKey(row.get(0)?), row.get::<i64>(1)?)))?;
    if let Some((hub, place)) = sweep.filter(|_| rest > 0) {
        sweep_on(tx, (hub, place), rest, &mut judged, now)?;
    }
    judged.has_more = !due.is_empty() || sweep.is_some();
    Ok(judged)
}

fn sweep_on(
    tx: &mut Tx<'_, '_>,
    (hub, place): (HubKey, i64),
    limit: usize,
    judged: &mut Judged,
    now: UnixTime,
) -> Result<(), Error> {
    let upto = place.saturating_add(WINDOW);
    let sql = "SELECT id FROM identity WHERE id > ?2 AND id <= ?3 AND +hub = ?1 ORDER BY id LIMIT ?4";
    let ids = tx.db().rows(sql, params![hub.0, place, upto, row_limit(limit)], |row| row.get::<i64>(0))?;
    let judge = Judge::load(tx.db(), hub)?;
    for id in &ids {
        judge_one(tx, &judge, *id, judged, now)?;
        tx.change("DELETE FROM configuration_due WHERE identity = ?1", [id])?;
    }
    let reached = ids.last().copied().filter(|_| ids.len() == limit).unwrap_or(upto);
    let last: Option<i64> = tx.db().row("SELECT max(id) FROM identity", (), |row| row.get(0))?.flatten();
    if last.is_none_or(|last| last <= reached) {
        end_sweep(tx, hub)
    } else {
        tx.change("UPDATE configuration_sweep SET place = ?2 WHERE hub = ?1", params![hub.0, reached])?;
        Ok(())
    }
}

/// No twin tells of what was deleted any more. What came under such a name since is told of and counted from here on, by
/// another sweep.
fn end_sweep(tx: &Tx<'_, '_>, hub: HubKey) -> Result<(), Error> {
    let sql = "SELECT EXISTS (SELECT 1 FROM configuration c JOIN configuration_gone g ON g.hub = c.hub AND g.id = c.id \
               WHERE c.hub = ?1)";
    let has_come = tx.db().row(sql, [hub.0], |row| row.get(0))?.unwrap_or(false);
    tx.change("DELETE FROM configuration_gone WHERE hub = ?1", [hub.0])?;
    if has_come {
        return begin_sweep(tx, hub);
    }
    tx.change("DELETE FROM configuration_sweep WHERE hub = ?1", [hub.0])?;
    Ok(())
}

/// Judges a twin; one whose rows do not parse is passed over, so that it holds up no others.
fn judge_one(tx: &mut Tx<'_, '_>, judge: &Judge, id: i64, judged: &mut Judged, now: UnixTime) -> Result<(), Error> {
    match judge_twin(tx, judge, id, judged, now) {
        Err(error @ Error::Corrupt { .. }) => {
            tracing::error!(error = %crate::error::chain(&error), "a twin is not brought into line");
            Ok(())
        }
        outcome => outcome,
    }
}

fn judge_twin(tx: &mut Tx<'_, '_>, judge: &Judge, id: i64, judged: &mut Judged, now: UnixTime) -> Result<(), Error> {
    let Some((identity, twin)) = identity::find_by_id(tx.db(), id)?.zip(twin::find(tx.db(), id)?) else {
        return Ok(());
    };
    // What a configuration that cannot be read has put stays until somebody replaces or deletes it.
    if judge.unreadable.iter().any(|name| twin.configurations.contains_key(name)) {
        let states = judge.present(twin.configurations.clone());
        return if states == twin.configurations { Ok(()) } else { put_states(tx, id, &states) };
    }
    let collection = if identity.name.module.is_none() { Collection::Devices } else { Collection::Modules };
    let (targeting, applying) = choose(&judge.candidates, collection, &document::of_twin(&twin, &identity));
    let mut states = Map::new();
    for candidate in targeting {
        let word = if applying.is_some_and(|applying| applying.key == candidate.key) { APPLIED } else { TARGETED };
        if let Some((name, _)) = judge.content(candidate.key) {
            states.insert(name.to_string(), json!({ "status": word }));
        }
    }
    let mut states = judge.present(states);
    if is_agent(&identity.name) {
        states.extend(passed_on(tx.db(), judge, &identity.name)?);
    }
    if states != twin.configurations {
        note_states(tx, (judge.hub, id), &twin.configurations, &states)?;
        if identity.name.module.is_none() {
            tell_agent(tx, judge, &identity.name, &states)?;
        }
    }
    let applying = applying.and_then(|applying| Some((applying.key, judge.content(applying.key)?.1)));
    // It was checked when it was taken.
    let mut wanted = applying.and_then(|(_, content)| content.puts(collection).ok()).unwrap_or_default();
    wanted.retain(|put| put.module.is_none() || identity.capabilities.iot_edge);
    if let Some((_, content)) = applying.filter(|_| identity.capabilities.iot_edge) {
        for module in content.modules() {
            let name = IdentityName { device: identity.name.device.clone(), module: Some(module.clone()) };
            if identity::find_id(tx.db(), judge.hub, &name)?.is_none() {
                judged.missing.push((judge.hub, identity.name.device.clone(), module));
            }
        }
    }
    bring_into_line(tx, (judge.hub, id), &identity, (applying.map(|(key, _)| key), wanted), now)
}

const APPLIED: &str = "Applied";
const TARGETED: &str = "Targeted";

/// Notes which configurations a twin fulfils, and counts them.
fn note_states(
    tx: &Tx<'_, '_>,
    (hub, id): (HubKey, i64),
    before: &Map<String, Value>,
    after: &Map<String, Value>,
) -> Result<(), Error> {
    put_states(tx, id, after)?;
    count(tx, (hub, id), before, -1)?;
    count(tx, (hub, id), after, 1)
}

fn put_states(tx: &Tx<'_, '_>, id: i64, states: &Map<String, Value>) -> Result<(), Error> {
    tx.change("UPDATE twin SET configurations = ?2 WHERE identity = ?1", params![id, to_json(states)?])?;
    Ok(())
}

/// Whether a configuration is there, and a deployment. One that cannot be read is taken for none, so that it keeps nobody
/// from leaving.
fn is_deployment(db: Db<'_>, hub: HubKey, name: &str) -> Result<bool, Error> {
    let columns = ConfigurationRow::COLUMNS;
    let sql = format!("SELECT {columns} FROM configuration WHERE hub = ?1 AND id = ?2 AND {IS_COUNTED}");
    let row = db.row(&sql, params![hub.0, name], ConfigurationRow::read)?;
    Ok(row.is_some_and(|row| row.draft().is_ok_and(|draft| draft.content.is_deployment())))
}

fn is_agent(name: &IdentityName) -> bool {
    name.module.as_ref().is_some_and(|module| module.as_str() == AGENT)
}

/// What an agent's twin tells of the deployments that its device fulfils: the same as the device's. Operators ask for it
/// beside what the agent reports.
fn passed_on(db: Db<'_>, judge: &Judge, agent: &IdentityName) -> Result<Map<String, Value>, Error> {
    let device = IdentityName { device: agent.device.clone(), module: None };
    let Some(id) = identity::find_id(db, judge.hub, &device)? else { return Ok(Map::new()) };
    Ok(judge.deployments(states_of(db, id)?))
}

/// Has the agent's twin, if there is one, tell what its device's does.
fn tell_agent(tx: &Tx<'_, '_>, judge: &Judge, device: &IdentityName, states: &Map<String, Value>) -> Result<(), Error> {
    // It is one at all times.
    let Ok(module) = ModuleId::parse(AGENT) else { return Ok(()) };
    let agent = IdentityName { device: device.device.clone(), module: Some(module) };
    let Some(id) = identity::find_id(tx.db(), judge.hub, &agent)? else { return Ok(()) };
    let present = states_of(tx.db(), id)?;
    let mut wanted = judge.own(present.clone());
    wanted.extend(judge.deployments(states.clone()));
    if wanted != present {
        put_states(tx, id, &wanted)?;
    }
    Ok(())
}

/// What a twin tells of configurations.
fn states_of(db: Db<'_>, id: i64) -> Result<Map<String, Value>, Error> {
    let sql = "SELECT configurations FROM twin WHERE identity = ?1";
    let text = db.row(sql, [id], |row| row.get::<String>(0))?;
    let column = Column { table: "twin", column: "configurations" };
    Ok(from_json_if(text.as_deref(), column, id)?.unwrap_or_default())
}

/// Counts the states of a twin, up or down. What an agent's twin tells of deployments is its device's, and counted there.
fn count(tx: &Tx<'_, '_>, (hub, id): (HubKey, i64), states: &Map<String, Value>, by: i64) -> Result<(), Error> {
    let sql = "SELECT module FROM identity WHERE id = ?1";
    let module: Option<String> = tx.db().row(sql, [id], |row| row.get(0))?;
    let is_agent = module.is_some_and(|module| module == AGENT);
    for (name, state) in states {
        if is_agent && is_deployment(tx.db(), hub, name)? {
            continue;
        }
        let is_applied = state.get("status").and_then(Value::as_str) == Some(APPLIED);
        let sql = format!(
            "UPDATE configuration SET targeted = CASE WHEN targeted + ?3 < 0 THEN 0 ELSE targeted + ?3 END, \
             applied = CASE WHEN applied + ?4 < 0 THEN 0 ELSE applied + ?4 END WHERE hub = ?1 AND id = ?2 AND {IS_COUNTED}"
        );
        tx.change(&sql, params![hub.0, name, by, if is_applied { by } else { 0 }])?;
    }
    Ok(())
}

/// Forgets what a twin has of configurations, which goes with its identity.
pub(super) fn forget(tx: &Tx<'_, '_>, hub: HubKey, id: i64) -> Result<(), Error> {
    count(tx, (hub, id), &states_of(tx.db(), id)?, -1)?;
    tx.change("DELETE FROM configuration_put WHERE identity = ?1", [id])?;
    tx.change("DELETE FROM configuration_due WHERE identity = ?1", [id])?;
    Ok(())
}

/// Puts `wanted` into the twins of a target in place of what another configuration has put.
fn bring_into_line(
    tx: &mut Tx<'_, '_>,
    (hub, id): (HubKey, i64),
    identity: &Identity,
    (key, wanted): (Option<i64>, Vec<Put>),
    now: UnixTime,
) -> Result<(), Error> {
    let sql = "SELECT configuration, puts FROM configuration_put WHERE identity = ?1";
    let kept = tx.db().row(sql, [id], |row| Ok((row.get::<i64>(0)?, row.get::<String>(1)?)))?;
    let before: Vec<Put> = match &kept {
        Some((kept_key, text)) if Some(*kept_key) != key => from_json(text, PUTS, id)?,
        Some(_) | None => Vec::new(),
    };
    let modules: BTreeSet<Option<ModuleId>> = before.iter().chain(&wanted).map(|put| put.module.clone()).collect();
    for module in modules {
        let of = |puts: &[Put]| -> Vec<Put> { puts.iter().filter(|put| put.module == module).cloned().collect() };
        let name = match &module {
            None => identity.name.clone(),
            Some(module) => IdentityName { device: identity.name.device.clone(), module: Some(module.clone()) },
        };
        change_desired(tx, (hub, &name), (&of(&before), &of(&wanted)), now)?;
    }
    match key {
        Some(key) if kept.as_ref().is_none_or(|(kept_key, _)| *kept_key != key) => {
            let sql = "INSERT INTO configuration_put (identity, configuration, puts) VALUES (?1, ?2, ?3) ON CONFLICT (identity) \
                       DO UPDATE SET configuration = excluded.configuration, puts = excluded.puts";
            tx.change(sql, params![id, key, to_json(&wanted)?])?;
        }
        Some(_) => {}
        None if kept.is_some() => {
            tx.change("DELETE FROM configuration_put WHERE identity = ?1", [id])?;
        }
        None => {}
    }
    Ok(())
}

/// Brings the desired properties of an identity, if it is there, from what was put to what is.
fn change_desired(
    tx: &mut Tx<'_, '_>,
    (hub, name): (HubKey, &IdentityName),
    (before, after): (&[Put], &[Put]),
    now: UnixTime,
) -> Result<(), Error> {
    let Some(id) = identity::find_id(tx.db(), hub, name)? else { return Ok(()) };
    let Some(present) = twin::find(tx.db(), id)? else { return Ok(()) };
    let patch = patch_between(present.desired.document(), before, after);
    if patch.is_empty() {
        return Ok(());
    }
    let change = ServiceChange { tags: None, desired: Some(patch) };
    // Beside what stands there already it may be too much for a twin.
    if let TwinOutcome::Refused(refused) = twin::patch(tx, (hub, name), change, Precondition::None, now)? {
        tracing::warn!(device = %name, %refused, "a configuration does not fit into a twin");
    }
    Ok(())
}

/// Whether any twin is to be judged.
fn is_due(db: Db<'_>) -> Result<bool, Error> {
    let sql = "SELECT identity FROM (SELECT identity FROM configuration_due UNION ALL SELECT hub FROM configuration_sweep) due \
               LIMIT 1";
    Ok(db.row(sql, (), |row| row.get::<i64>(0))?.is_some())
}

#[async_trait]
impl ConfigurationStore for Embedded {
    async fn create_configuration(
        &self,
        hub: HubKey,
        draft: Draft,
        now: UnixTime,
    ) -> Result<Created<Configuration>, Error> {
        self.write(move |tx| create(tx, hub, &draft, now)).await
    }

    async fn replace_configuration(
        &self,
        hub: HubKey,
        draft: Draft,
        precondition: Precondition,
        now: UnixTime,
    ) -> Result<Changed<Configuration>, Error> {
        self.write(move |tx| replace(tx, hub, draft, precondition, now)).await
    }

    async fn delete_configuration(
        &self,
        hub: HubKey,
        id: &ConfigurationId,
        precondition: Precondition,
    ) -> Result<Changed<()>, Error> {
        let id = id.clone();
        self.write(move |tx| delete(tx, hub, &id, precondition)).await
    }

    async fn find_configuration(&self, hub: HubKey, id: &ConfigurationId) -> Result<Option<Configuration>, Error> {
        let id = id.clone();
        self.read(move |db| find_row(db, hub, &id)?.map(ConfigurationRow::open).transpose()).await
    }

    async fn list_configurations(&self, hub: HubKey) -> Result<Vec<Configuration>, Error> {
        self.read(move |db| list_rows(db, hub)?.into_iter().map(ConfigurationRow::open).collect()).await
    }

    async fn list_configuration_ids(&self, hub: HubKey) -> Result<Vec<ConfigurationId>, Error> {
        self.read(move |db| list_ids(db, hub)).await
    }

    async fn judge_twins(&self, limit: usize, now: UnixTime) -> Result<Judged, Error> {
        match self.read(is_due).await? {
            true => self.write(move |tx| judge(tx, limit, now)).await,
            false => Ok(Judged::default()),
        }
    }
}
