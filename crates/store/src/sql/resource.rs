//! Hubs, provisioning services, CA certificates, resource groups and the deployment.

use std::net::IpAddr;

use async_trait::async_trait;
use domain::access::ResourceKind;
use domain::clock::UnixTime;
use domain::cloud_to_device::QueueSettings;
use domain::enrollment::AllocationPolicy;
use domain::file::FileSettings;
use domain::ids::{CertificateName, Etag, HubKey, HubName, IdScope, Precondition, ServiceKey, ServiceName};
use domain::resource::{
    AddressPool, CaCertificate, CertificateOwner, ConsumerGroup, Hub, LinkedHub, Policy, ProvisioningService,
    ResourceGroup, StoredPolicy,
};
use domain::route::Routing;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::link::Sequence;
use super::rows::{Bits, Column, Senseless, from_json, moment, open_keys, open_text, seal_keys, to_json};
use super::value::{Row, params};
use super::{Db, Embedded, Tx, removal};
use crate::error::Error;
use crate::ports::{Changed, DefaultsStage, Deployment, Placed, ResourceStore, Resources, Sealed};
use crate::seal::{Place, Sealer};

/// What of a hub lies in the open.
#[derive(Serialize, Deserialize)]
struct HubRecord {
    name: HubName,
    group: String,
    location: String,
    tags: Map<String, Value>,
    sku: Map<String, Value>,
    policies: Vec<StoredPolicy>,
    partitions: u16,
    retention_days: u16,
    cloud_to_device: QueueSettings,
    files: FileSettings,
    consumer_groups: Vec<ConsumerGroup>,
}

/// What of a provisioning service lies in the open.
#[derive(Serialize, Deserialize)]
struct ServiceRecord {
    name: ServiceName,
    id_scope: IdScope,
    group: String,
    location: String,
    tags: Map<String, Value>,
    sku: Map<String, Value>,
    policies: Vec<StoredPolicy>,
    allocation: AllocationPolicy,
    links: Vec<LinkedHub>,
}

/// What of a hub is sealed beside its keys: routes and endpoints have secrets, and other properties may.
#[derive(Serialize, Deserialize)]
struct SealedHub {
    extra: Map<String, Value>,
    routing: Routing,
}

/// A row of `hub` or `service`: both have the same columns.
struct ResourceRow {
    key: i64,
    address: Option<String>,
    record: String,
    policy_keys: Vec<u8>,
    extra: Vec<u8>,
    created_at: i64,
    etag: Bits,
}

impl ResourceRow {
    const COLUMNS: &'static str = "key, address, record, policy_keys, extra, created_at, etag";

    fn read(row: &Row<'_>) -> Result<Self, Error> {
        Ok(Self {
            key: row.get(0)?,
            address: row.get(1)?,
            record: row.get(2)?,
            policy_keys: row.get(3)?,
            extra: row.get(4)?,
            created_at: row.get(5)?,
            etag: row.get(6)?,
        })
    }

    fn address(&self, table: &'static str) -> Result<Option<IpAddr>, Error> {
        let parse = |text: &String| text.parse();
        let address = self.address.as_ref().map(parse).transpose();
        address.map_err(|error| Column { table, column: "address" }.corrupt(self.key, error))
    }

    fn policies(&self, stored: Vec<StoredPolicy>, kind: ResourceKind, sealer: &Sealer) -> Result<Vec<Policy>, Error> {
        let table = table_of(kind);
        let row = self.key.to_string();
        let keys = open_keys(sealer, Place { table, row: &row, column: "policy_keys" }, &self.policy_keys)?;
        let senseless = || Column { table, column: "record" }.corrupt(&row, Senseless("its policies and keys differ"));
        if keys.len() != stored.len() {
            return Err(senseless());
        }
        let policies = stored.into_iter().zip(keys).map(|(policy, keys)| policy.with_keys(keys, kind));
        policies.collect::<Option<_>>().ok_or_else(senseless)
    }

    fn extra<T: serde::de::DeserializeOwned>(&self, table: &'static str, sealer: &Sealer) -> Result<T, Error> {
        let row = self.key.to_string();
        let place = Place { table, row: &row, column: "extra" };
        from_json(&open_text(sealer, place, &self.extra)?, Column { table, column: "extra" }, &row)
    }
}

const fn table_of(kind: ResourceKind) -> &'static str {
    match kind {
        ResourceKind::Hub => "hub",
        ResourceKind::Service => "service",
    }
}

/// The number that tells the owners of certificates apart.
pub(super) const fn owner_columns(owner: CertificateOwner) -> (i64, i64) {
    match owner {
        CertificateOwner::Hub(HubKey(key)) => (0, key),
        CertificateOwner::Service(ServiceKey(key)) => (1, key),
    }
}

/// What is written of a hub or a service.
struct Sealing {
    record: String,
    policy_keys: Vec<u8>,
    extra: Vec<u8>,
}

fn seal_parts(
    sealer: &Sealer,
    table: &'static str,
    key: i64,
    record: String,
    (policies, extra): (&[Policy], &impl Serialize),
) -> Result<Sealing, Error> {
    let row = key.to_string();
    let keys = policies.iter().map(|policy| &policy.keys);
    let policy_keys = seal_keys(sealer, Place { table, row: &row, column: "policy_keys" }, keys);
    let extra = sealer.seal(Place { table, row: &row, column: "extra" }, to_json(extra)?.as_bytes());
    Ok(Sealing { record, policy_keys, extra })
}

fn seal_hub(sealer: &Sealer, hub: &Hub) -> Result<Sealing, Error> {
    let record = to_json(&HubRecord {
        name: hub.name.clone(),
        group: hub.group.clone(),
        location: hub.location.clone(),
        tags: hub.tags.clone(),
        sku: hub.sku.clone(),
        policies: hub.policies.iter().map(Policy::to_stored).collect(),
        partitions: hub.partitions,
        retention_days: hub.retention_days,
        cloud_to_device: hub.cloud_to_device,
        files: hub.files.clone(),
        consumer_groups: hub.consumer_groups.clone(),
    })?;
    let sealed = SealedHub { extra: hub.extra.clone(), routing: hub.routing.clone() };
    seal_parts(sealer, "hub", hub.key.0, record, (&hub.policies, &sealed))
}

fn seal_service(sealer: &Sealer, service: &ProvisioningService) -> Result<Sealing, Error> {
    let record = to_json(&ServiceRecord {
        name: service.name.clone(),
        id_scope: service.id_scope.clone(),
        group: service.group.clone(),
        location: service.location.clone(),
        tags: service.tags.clone(),
        sku: service.sku.clone(),
        policies: service.policies.iter().map(Policy::to_stored).collect(),
        allocation: service.allocation,
        links: service.links.clone(),
    })?;
    seal_parts(sealer, "service", service.key.0, record, (&service.policies, &service.extra))
}

fn hub_of(db: Db<'_>, row: &ResourceRow) -> Result<Hub, Error> {
    let sealer = &db.context.sealer;
    let record: HubRecord = from_json(&row.record, Column { table: "hub", column: "record" }, row.key)?;
    let SealedHub { extra, routing } = row.extra("hub", sealer)?;
    Ok(Hub {
        key: HubKey(row.key),
        name: record.name,
        address: row.address("hub")?,
        group: record.group,
        location: record.location,
        tags: record.tags,
        sku: record.sku,
        policies: row.policies(record.policies, ResourceKind::Hub, sealer)?,
        partitions: record.partitions,
        retention_days: record.retention_days,
        consumer_groups: record.consumer_groups,
        cloud_to_device: record.cloud_to_device,
        files: record.files,
        routing,
        extra,
        created_at: moment(row.created_at),
        etag: row.etag.into(),
    })
}

fn service_of(db: Db<'_>, row: &ResourceRow) -> Result<ProvisioningService, Error> {
    let sealer = &db.context.sealer;
    let record: ServiceRecord = from_json(&row.record, Column { table: "service", column: "record" }, row.key)?;
    Ok(ProvisioningService {
        key: ServiceKey(row.key),
        name: record.name,
        id_scope: record.id_scope,
        address: row.address("service")?,
        group: record.group,
        location: record.location,
        tags: record.tags,
        sku: record.sku,
        policies: row.policies(record.policies, ResourceKind::Service, sealer)?,
        allocation: record.allocation,
        links: record.links,
        extra: row.extra("service", sealer)?,
        created_at: moment(row.created_at),
        etag: row.etag.into(),
    })
}

fn find_row(db: Db<'_>, table: &'static str, key: i64) -> Result<Option<ResourceRow>, Error> {
    db.row(&format!("SELECT {} FROM {table} WHERE key = ?1", ResourceRow::COLUMNS), [key], ResourceRow::read)
}

fn all_rows(db: Db<'_>, table: &'static str) -> Result<Vec<ResourceRow>, Error> {
    db.rows(&format!("SELECT {} FROM {table} ORDER BY key", ResourceRow::COLUMNS), (), ResourceRow::read)
}

/// Whether there is a hub.
pub(super) fn hub_exists(db: Db<'_>, hub: HubKey) -> Result<bool, Error> {
    Ok(db.row("SELECT 1 FROM hub WHERE key = ?1", [hub.0], |_| Ok(()))?.is_some())
}

/// Whether there is a provisioning service.
pub(super) fn service_exists(db: Db<'_>, service: ServiceKey) -> Result<bool, Error> {
    Ok(db.row("SELECT 1 FROM service WHERE key = ?1", [service.0], |_| Ok(()))?.is_some())
}

/// Gives an address for ever: the one in `present`, or else the next of the pool, if there is one.
fn take_address(
    tx: &Tx<'_, '_>,
    present: &mut Option<IpAddr>,
    pool: Option<&AddressPool>,
    kind: ResourceKind,
) -> Result<Taken, Error> {
    let address = match (*present, pool) {
        (Some(address), _) => address,
        (None, None) => return Ok(Taken::Done),
        (None, Some(pool)) => match pool.next(kind, &given_addresses(tx)?) {
            Some(address) => address,
            None => return Ok(Taken::NoneLeft),
        },
    };
    let sql = "INSERT INTO address (address) VALUES (?1) ON CONFLICT DO NOTHING";
    if tx.change(sql, [address.to_string()])? == 0 {
        return Ok(Taken::GivenBefore);
    }
    *present = Some(address);
    Ok(Taken::Done)
}

/// How an address was taken.
enum Taken {
    Done,
    GivenBefore,
    NoneLeft,
}

fn given_addresses(tx: &Tx<'_, '_>) -> Result<Vec<IpAddr>, Error> {
    let texts: Vec<String> = tx.db().rows("SELECT address FROM address", (), |row| row.get(0))?;
    // What does not parse was not given out by this program and cannot be given again either.
    Ok(texts.iter().filter_map(|text| text.parse().ok()).collect())
}

fn create_hub(
    tx: &mut Tx<'_, '_>,
    mut hub: Hub,
    pool: Option<&AddressPool>,
    now: UnixTime,
) -> Result<Placed<Hub>, Error> {
    let taken = tx.db().row("SELECT 1 FROM hub WHERE name_key = ?1", [hub.name.key()], |_| Ok(()))?;
    if taken.is_some() {
        return Ok(Placed::AlreadyExists);
    }
    match take_address(tx, &mut hub.address, pool, ResourceKind::Hub)? {
        Taken::Done => {}
        Taken::GivenBefore => return Ok(Placed::AlreadyExists),
        Taken::NoneLeft => return Ok(Placed::NoAddressLeft),
    }
    hub.etag = tx.fresh_etag()?;
    hub.created_at = now;
    hub.key = HubKey(tx.write.link().next_number(Sequence::Hubs)?);
    let Sealing { record, policy_keys, extra } = seal_hub(&tx.context.sealer, &hub)?;
    tx.change(
        "INSERT INTO hub (key, name_key, address, record, policy_keys, extra, created_at, etag, event_sources) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![
            hub.key.0,
            hub.name.key(),
            hub.address.map(|address| address.to_string()),
            record,
            policy_keys,
            extra,
            now.micros(),
            Bits::from(hub.etag),
            i64::from(hub.event_sources().bits())
        ],
    )?;
    Ok(Placed::Done(hub))
}

fn create_service(
    tx: &mut Tx<'_, '_>,
    mut service: ProvisioningService,
    pool: Option<&AddressPool>,
    now: UnixTime,
) -> Result<Placed<ProvisioningService>, Error> {
    let sql = "SELECT 1 FROM service WHERE name_key = ?1 OR id_scope_key = ?2";
    if tx.db().row(sql, [service.name.key(), service.id_scope.key()], |_| Ok(()))?.is_some() {
        return Ok(Placed::AlreadyExists);
    }
    match take_address(tx, &mut service.address, pool, ResourceKind::Service)? {
        Taken::Done => {}
        Taken::GivenBefore => return Ok(Placed::AlreadyExists),
        Taken::NoneLeft => return Ok(Placed::NoAddressLeft),
    }
    service.etag = tx.fresh_etag()?;
    service.created_at = now;
    service.key = ServiceKey(tx.write.link().next_number(Sequence::Services)?);
    let Sealing { record, policy_keys, extra } = seal_service(&tx.context.sealer, &service)?;
    tx.change(
        "INSERT INTO service (key, name_key, id_scope_key, address, record, policy_keys, extra, created_at, etag) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![
            service.key.0,
            service.name.key(),
            service.id_scope.key(),
            service.address.map(|address| address.to_string()),
            record,
            policy_keys,
            extra,
            now.micros(),
            Bits::from(service.etag)
        ],
    )?;
    Ok(Placed::Done(service))
}

fn replace_hub(tx: &mut Tx<'_, '_>, hub: Hub, precondition: Precondition) -> Result<Changed<Hub>, Error> {
    let Some(row) = find_row(tx.db(), "hub", hub.key.0)? else { return Ok(Changed::NotFound) };
    let present = hub_of(tx.db(), &row)?;
    if !precondition.holds(present.etag) {
        return Ok(Changed::PreconditionFailed { present: present.etag });
    }
    let hub = Hub {
        key: present.key,
        name: present.name,
        address: present.address,
        partitions: present.partitions,
        created_at: present.created_at,
        etag: tx.fresh_etag()?,
        ..hub
    };
    let sealing = seal_hub(&tx.context.sealer, &hub)?;
    update(tx, "hub", hub.key.0, &sealing, hub.etag)?;
    let sql = "UPDATE hub SET event_sources = ?2 WHERE key = ?1";
    tx.change(sql, params![hub.key.0, i64::from(hub.event_sources().bits())])?;
    Ok(Changed::Done(hub))
}

fn replace_service(
    tx: &mut Tx<'_, '_>,
    service: ProvisioningService,
    precondition: Precondition,
) -> Result<Changed<ProvisioningService>, Error> {
    let Some(row) = find_row(tx.db(), "service", service.key.0)? else { return Ok(Changed::NotFound) };
    let present = service_of(tx.db(), &row)?;
    if !precondition.holds(present.etag) {
        return Ok(Changed::PreconditionFailed { present: present.etag });
    }
    let service = ProvisioningService {
        key: present.key,
        name: present.name,
        id_scope: present.id_scope,
        address: present.address,
        created_at: present.created_at,
        etag: tx.fresh_etag()?,
        ..service
    };
    let sealing = seal_service(&tx.context.sealer, &service)?;
    update(tx, "service", service.key.0, &sealing, service.etag)?;
    Ok(Changed::Done(service))
}

fn update(tx: &Tx<'_, '_>, table: &'static str, key: i64, sealing: &Sealing, etag: Etag) -> Result<(), Error> {
    let sql = format!("UPDATE {table} SET record = ?2, policy_keys = ?3, extra = ?4, etag = ?5 WHERE key = ?1");
    tx.change(&sql, params![key, sealing.record, sealing.policy_keys, sealing.extra, Bits::from(etag)])?;
    Ok(())
}

fn delete_hub(tx: &mut Tx<'_, '_>, hub: HubKey) -> Result<Changed<Hub>, Error> {
    let Some(row) = find_row(tx.db(), "hub", hub.0)? else { return Ok(Changed::NotFound) };
    let present = hub_of(tx.db(), &row)?;
    tx.change("DELETE FROM hub WHERE key = ?1", [hub.0])?;
    removal::begin(tx, CertificateOwner::Hub(hub))?;
    Ok(Changed::Done(present))
}

fn delete_service(tx: &mut Tx<'_, '_>, service: ServiceKey) -> Result<Changed<ProvisioningService>, Error> {
    let Some(row) = find_row(tx.db(), "service", service.0)? else { return Ok(Changed::NotFound) };
    let present = service_of(tx.db(), &row)?;
    tx.change("DELETE FROM service WHERE key = ?1", [service.0])?;
    removal::begin(tx, CertificateOwner::Service(service))?;
    Ok(Changed::Done(present))
}

/// The columns of a stored certificate.
fn owner_and_name(owner: CertificateOwner, name: &CertificateName) -> (i64, i64, String) {
    let (kind, key) = owner_columns(owner);
    (kind, key, name.key())
}

fn find_certificate(
    db: Db<'_>,
    owner: CertificateOwner,
    name: &CertificateName,
) -> Result<Option<CaCertificate>, Error> {
    let sql = "SELECT record FROM certificate WHERE owner_kind = ?1 AND owner = ?2 AND name_key = ?3";
    let record: Option<String> = db.row(sql, owner_and_name(owner, name), |row| row.get(0))?;
    record.map(|text| from_json(&text, Column { table: "certificate", column: "record" }, name)).transpose()
}

fn put_certificate(
    tx: &mut Tx<'_, '_>,
    owner: CertificateOwner,
    mut certificate: CaCertificate,
    precondition: Precondition,
) -> Result<Changed<CaCertificate>, Error> {
    let has_owner = match owner {
        CertificateOwner::Hub(hub) => hub_exists(tx.db(), hub)?,
        CertificateOwner::Service(service) => service_exists(tx.db(), service)?,
    };
    if !has_owner {
        return Ok(Changed::NotFound);
    }
    let present = find_certificate(tx.db(), owner, &certificate.name)?;
    match (&present, precondition) {
        (None, Precondition::None) => {}
        (None, _) => return Ok(Changed::NotFound),
        (Some(present), precondition) if !precondition.holds(present.etag) => {
            return Ok(Changed::PreconditionFailed { present: present.etag });
        }
        (Some(_), _) => {}
    }
    certificate.etag = tx.fresh_etag()?;
    let (kind, key, name) = owner_and_name(owner, &certificate.name);
    tx.change(
        "INSERT INTO certificate (owner_kind, owner, name_key, record, etag) VALUES (?1, ?2, ?3, ?4, ?5) \
         ON CONFLICT (owner_kind, owner, name_key) DO UPDATE SET record = excluded.record, etag = excluded.etag",
        params![kind, key, name, to_json(&certificate)?, Bits::from(certificate.etag)],
    )?;
    Ok(Changed::Done(certificate))
}

fn delete_certificate(
    tx: &mut Tx<'_, '_>,
    owner: CertificateOwner,
    name: &CertificateName,
    precondition: Precondition,
) -> Result<Changed<CaCertificate>, Error> {
    let Some(present) = find_certificate(tx.db(), owner, name)? else { return Ok(Changed::NotFound) };
    if !precondition.holds(present.etag) {
        return Ok(Changed::PreconditionFailed { present: present.etag });
    }
    let sql = "DELETE FROM certificate WHERE owner_kind = ?1 AND owner = ?2 AND name_key = ?3";
    tx.change(sql, owner_and_name(owner, name))?;
    Ok(Changed::Done(present))
}

fn load(db: Db<'_>) -> Result<Resources, Error> {
    let hubs = all_rows(db, "hub")?.into_iter().map(|row| hub_of(db, &row)).collect::<Result<_, _>>()?;
    let services = all_rows(db, "service")?.into_iter().map(|row| service_of(db, &row)).collect::<Result<_, _>>()?;
    let column = Column { table: "certificate", column: "record" };
    let sql = "SELECT owner_kind, owner, name_key, record FROM certificate ORDER BY owner_kind, owner, name_key";
    let rows: Vec<(i64, i64, String, String)> =
        db.rows(sql, (), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
    let certificate = |(kind, key, name, text): (i64, i64, String, String)| {
        let owner = match kind {
            0 => CertificateOwner::Hub(HubKey(key)),
            _ => CertificateOwner::Service(ServiceKey(key)),
        };
        from_json(&text, column, name).map(|certificate| (owner, certificate))
    };
    let certificates = rows.into_iter().map(certificate).collect::<Result<_, _>>()?;
    let column = Column { table: "resource_group", column: "record" };
    let rows: Vec<(String, String)> =
        db.rows("SELECT name_key, record FROM resource_group ORDER BY name_key", (), |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    let groups = rows.into_iter().map(|(name, text)| from_json(&text, column, name)).collect::<Result<_, _>>()?;
    Ok(Resources { hubs, services, certificates, groups })
}

const CLIENT_SECRET: Place<'static> = Place { table: "deployment", row: "1", column: "client_secret" };
const TOKEN_KEY: Place<'static> = Place { table: "deployment", row: "1", column: "token_key" };

fn deployment(tx: &mut Tx<'_, '_>, first: &Deployment) -> Result<Deployment, Error> {
    let sealer = &tx.context.sealer;
    tx.change(
        "INSERT INTO deployment (id, subscription, tenant, client, client_secret, token_key, created_at) \
         VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING",
        params![
            first.subscription,
            first.tenant,
            first.client,
            sealer.seal(CLIENT_SECRET, &first.client_secret.0),
            sealer.seal(TOKEN_KEY, &first.token_key.0),
            first.created_at.micros()
        ],
    )?;
    let sql = "SELECT subscription, tenant, client, client_secret, token_key, created_at FROM deployment";
    let read = |row: &Row<'_>| {
        let secrets: (Vec<u8>, Vec<u8>) = (row.get(3)?, row.get(4)?);
        let blank = || Sealed(Vec::new());
        let deployment = Deployment {
            subscription: row.get(0)?,
            tenant: row.get(1)?,
            client: row.get(2)?,
            client_secret: blank(),
            token_key: blank(),
            created_at: moment(row.get(5)?),
        };
        Ok((deployment, secrets))
    };
    let (mut deployment, (client_secret, token_key)) = tx
        .db()
        .row(sql, (), read)?
        .ok_or_else(|| Column { table: "deployment", column: "id" }.corrupt(1, Senseless("it is not there")))?;
    let open = |place: Place<'_>, sealed: &[u8]| {
        let column = Column { table: place.table, column: place.column };
        let plain = sealer.open_sealed(place, sealed).map_err(|error| column.corrupt(place.row, error))?;
        Ok::<_, Error>(Sealed(plain.to_vec()))
    };
    deployment.client_secret = open(CLIENT_SECRET, &client_secret)?;
    deployment.token_key = open(TOKEN_KEY, &token_key)?;
    Ok(deployment)
}

fn defaults_stage(db: Db<'_>) -> Result<DefaultsStage, Error> {
    let number = db.row("SELECT number FROM meta WHERE name = 'defaults'", (), |row| row.get(0))?;
    match number {
        None => Ok(DefaultsStage::Untouched),
        Some(1_i64) => Ok(DefaultsStage::Begun),
        Some(2) => Ok(DefaultsStage::Finished),
        Some(_) => Err(Column { table: "meta", column: "number" }.corrupt("defaults", Senseless("it is no stage"))),
    }
}

fn set_defaults_stage(tx: &Tx<'_, '_>, stage: DefaultsStage) -> Result<(), Error> {
    let number = match stage {
        DefaultsStage::Untouched => None,
        DefaultsStage::Begun => Some(1),
        DefaultsStage::Finished => Some(2),
    };
    match number {
        None => tx.change("DELETE FROM meta WHERE name = 'defaults'", ())?,
        Some(number) => {
            let sql = "INSERT INTO meta (name, number) VALUES ('defaults', ?1) \
                       ON CONFLICT (name) DO UPDATE SET number = excluded.number";
            tx.change(sql, [number])?
        }
    };
    Ok(())
}

fn delete_group(tx: &mut Tx<'_, '_>, name: &str) -> Result<Changed<ResourceGroup>, Error> {
    let key = name.to_ascii_lowercase();
    let sql = "DELETE FROM resource_group WHERE name_key = ?1 RETURNING record";
    let Some(text) = tx.db().row(sql, [&key], |row| row.get::<String>(0))? else { return Ok(Changed::NotFound) };
    Ok(Changed::Done(from_json(&text, Column { table: "resource_group", column: "record" }, key)?))
}

#[async_trait]
impl ResourceStore for Embedded {
    async fn deployment(&self, first: Deployment) -> Result<Deployment, Error> {
        self.write(move |tx| deployment(tx, &first)).await
    }

    async fn defaults_stage(&self) -> Result<DefaultsStage, Error> {
        self.read(defaults_stage).await
    }

    async fn set_defaults_stage(&self, stage: DefaultsStage) -> Result<(), Error> {
        self.write(move |tx| set_defaults_stage(tx, stage)).await
    }

    async fn load_resources(&self) -> Result<Resources, Error> {
        self.scan(|db| db.snapshot(load)).await
    }

    async fn create_hub(&self, hub: Hub, pool: Option<AddressPool>, now: UnixTime) -> Result<Placed<Hub>, Error> {
        self.write(move |tx| create_hub(tx, hub, pool.as_ref(), now)).await
    }

    async fn replace_hub(&self, hub: Hub, precondition: Precondition, _now: UnixTime) -> Result<Changed<Hub>, Error> {
        self.write(move |tx| replace_hub(tx, hub, precondition)).await
    }

    async fn delete_hub(&self, hub: HubKey) -> Result<Changed<Hub>, Error> {
        let deleted = self.write(move |tx| delete_hub(tx, hub)).await?;
        if let Changed::Done(_) = deleted {
            self.carry_out_removals(vec![CertificateOwner::Hub(hub)]);
        }
        Ok(deleted)
    }

    async fn create_service(
        &self,
        service: ProvisioningService,
        pool: Option<AddressPool>,
        now: UnixTime,
    ) -> Result<Placed<ProvisioningService>, Error> {
        self.write(move |tx| create_service(tx, service, pool.as_ref(), now)).await
    }

    async fn replace_service(
        &self,
        service: ProvisioningService,
        precondition: Precondition,
        _now: UnixTime,
    ) -> Result<Changed<ProvisioningService>, Error> {
        self.write(move |tx| replace_service(tx, service, precondition)).await
    }

    async fn delete_service(&self, service: ServiceKey) -> Result<Changed<ProvisioningService>, Error> {
        let deleted = self.write(move |tx| delete_service(tx, service)).await?;
        if let Changed::Done(_) = deleted {
            self.carry_out_removals(vec![CertificateOwner::Service(service)]);
        }
        Ok(deleted)
    }

    async fn put_certificate(
        &self,
        owner: CertificateOwner,
        certificate: CaCertificate,
        precondition: Precondition,
    ) -> Result<Changed<CaCertificate>, Error> {
        self.write(move |tx| put_certificate(tx, owner, certificate, precondition)).await
    }

    async fn delete_certificate(
        &self,
        owner: CertificateOwner,
        name: &CertificateName,
        precondition: Precondition,
    ) -> Result<Changed<CaCertificate>, Error> {
        let name = name.clone();
        self.write(move |tx| delete_certificate(tx, owner, &name, precondition)).await
    }

    async fn put_group(&self, group: ResourceGroup) -> Result<ResourceGroup, Error> {
        self.write(move |tx| {
            tx.change(
                "INSERT INTO resource_group (name_key, record) VALUES (?1, ?2) \
                 ON CONFLICT (name_key) DO UPDATE SET record = excluded.record",
                params![group.name.to_ascii_lowercase(), to_json(&group)?],
            )?;
            Ok(group)
        })
        .await
    }

    async fn delete_group(&self, name: &str) -> Result<Changed<ResourceGroup>, Error> {
        let name = name.to_owned();
        self.write(move |tx| delete_group(tx, &name)).await
    }
}
