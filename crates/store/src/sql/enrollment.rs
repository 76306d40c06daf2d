//! Individual enrollments and enrollment groups.

use async_trait::async_trait;
use domain::clock::UnixTime;
use domain::enrollment::{Attestation, Enrollment, EntryKind, EntryName, Mechanism, NoKeys, X509Attestation};
use domain::ids::{Precondition, ServiceKey};
use domain::operation::{Cursor, Page, PageRequest};
use tokio::sync::watch;

use super::rows::{Bits, Column, Senseless, from_json, open_pair, open_text, row_limit, seal_keys, to_json};
use super::tally::{self, Counted};
use super::value::{Row, params};
use super::{Db, Embedded, Tx, WAKES_KEY_GROUPS, registration, resource};
use crate::error::Error;
use crate::ports::{Changed, Created, EnrollmentStore, X509Lookup};
use crate::seal::Place;

const RECORD: Column = Column { table: "enrollment", column: "record" };

/// The kinds of lookup rows.
const BY_SUBJECT_KEY: i64 = 0;
const BY_CA_NAME: i64 = 1;

const fn kind_number(kind: EntryKind) -> i64 {
    match kind {
        EntryKind::Individual => 0,
        EntryKind::Group => 1,
    }
}

const fn mechanism_number(mechanism: Mechanism) -> i64 {
    match mechanism {
        Mechanism::Tpm => 0,
        Mechanism::X509 => 1,
        Mechanism::SymmetricKey => 2,
    }
}

/// The row as sealed values know it.
fn seal_row(service: ServiceKey, kind: i64, key: &str) -> String {
    format!("{}/{kind}/{key}", service.0)
}

/// A row of `enrollment`.
struct EnrollmentRow {
    id: i64,
    service: i64,
    kind: i64,
    name_key: String,
    record: String,
    keys: Option<Vec<u8>>,
    webhook: Option<Vec<u8>>,
}

impl EnrollmentRow {
    const COLUMNS: &'static str = "e.id, e.service, e.kind, e.name_key, e.record, e.keys, e.webhook";

    fn read(row: &Row<'_>) -> Result<Self, Error> {
        Ok(Self {
            id: row.get(0)?,
            service: row.get(1)?,
            kind: row.get(2)?,
            name_key: row.get(3)?,
            record: row.get(4)?,
            keys: row.get(5)?,
            webhook: row.get(6)?,
        })
    }

    fn open(self, db: Db<'_>) -> Result<Enrollment, Error> {
        let sealer = &db.context.sealer;
        let row = seal_row(ServiceKey(self.service), self.kind, &self.name_key);
        let place = |column| Place { table: "enrollment", row: &row, column };
        let mut open: Enrollment<NoKeys> = from_json(&self.record, RECORD, &row)?;
        if let (Some(custom), Some(sealed)) = (&mut open.terms.custom_allocation, &self.webhook) {
            custom.webhook_url = open_text(sealer, place("webhook"), sealed)?;
        }
        let keys = open_pair(sealer, place("keys"), self.keys.as_deref())?;
        open.join(keys).ok_or_else(|| RECORD.corrupt(&row, Senseless("its mechanism and its keys differ")))
    }
}

/// What is written of an entry.
struct Sealing {
    record: String,
    keys: Option<Vec<u8>>,
    webhook: Option<Vec<u8>>,
}

/// The address of a webhook may hold a key, so that it is sealed like one.
fn seal(tx: &Tx<'_, '_>, service: ServiceKey, enrollment: &Enrollment) -> Result<Sealing, Error> {
    let sealer = &tx.context.sealer;
    let row = seal_row(service, kind_number(enrollment.name.kind()), &enrollment.name.key());
    let place = |column| Place { table: "enrollment", row: &row, column };
    let (mut open, keys) = enrollment.clone().split();
    let webhook = open.terms.custom_allocation.as_mut().map(|custom| {
        let address = std::mem::take(&mut custom.webhook_url);
        sealer.seal(place("webhook"), address.as_bytes())
    });
    let keys = keys.map(|pair| seal_keys(sealer, place("keys"), [&pair]));
    Ok(Sealing { record: to_json(&open)?, keys, webhook })
}

fn find_row(db: Db<'_>, service: ServiceKey, name: &EntryName) -> Result<Option<EnrollmentRow>, Error> {
    let sql = format!(
        "SELECT {} FROM enrollment e JOIN service s ON s.key = e.service \
         WHERE e.service = ?1 AND e.kind = ?2 AND e.name_key = ?3",
        EnrollmentRow::COLUMNS
    );
    db.row(&sql, params![service.0, kind_number(name.kind()), name.key()], EnrollmentRow::read)
}

/// One entry, keys and all.
pub(super) fn find(db: Db<'_>, service: ServiceKey, name: &EntryName) -> Result<Option<Enrollment>, Error> {
    find_row(db, service, name)?.map(|row| row.open(db)).transpose()
}

/// Counts a change of an entry if it is, or was, a group by symmetric key.
fn note_change(tx: &mut Tx<'_, '_>, versions: &[&Enrollment]) {
    let is_by_key = |entry: &&Enrollment| entry.attestation.mechanism() == Mechanism::SymmetricKey;
    if versions.iter().any(|entry| entry.name.kind() == EntryKind::Group && is_by_key(entry)) {
        tx.wake(WAKES_KEY_GROUPS);
    }
}

fn create(
    tx: &mut Tx<'_, '_>,
    service: ServiceKey,
    mut enrollment: Enrollment,
    now: UnixTime,
) -> Result<Created<Enrollment>, Error> {
    if !resource::service_exists(tx.db(), service)? {
        return Ok(Created::NoOwner);
    }
    if find_row(tx.db(), service, &enrollment.name)?.is_some() {
        return Ok(Created::AlreadyExists);
    }
    let (quotas, kind) = (tx.context.quotas, enrollment.name.kind());
    let most = match kind {
        EntryKind::Individual => quotas.enrollments,
        EntryKind::Group => quotas.enrollment_groups,
    };
    if tally::amount(tx.db(), Counted::Enrollments(service, kind))? >= most {
        return Ok(Created::Full);
    }
    enrollment.etag = tx.fresh_etag()?;
    enrollment.created_at = now;
    enrollment.updated_at = now;
    let Sealing { record, keys, webhook } = seal(tx, service, &enrollment)?;
    let id = tx.insert(
        "INSERT INTO enrollment (service, kind, name_key, mechanism, record, keys, webhook, etag) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) RETURNING id",
        params![
            service.0,
            kind_number(kind),
            enrollment.name.key(),
            mechanism_number(enrollment.attestation.mechanism()),
            record,
            keys,
            webhook,
            Bits::from(enrollment.etag)
        ],
    )?;
    write_lookups(tx, service, id, &enrollment)?;
    note_change(tx, &[&enrollment]);
    Ok(Created::Done(enrollment))
}

fn replace(
    tx: &mut Tx<'_, '_>,
    service: ServiceKey,
    mut enrollment: Enrollment,
    (precondition, now): (Precondition, UnixTime),
) -> Result<Changed<Enrollment>, Error> {
    let Some(row) = find_row(tx.db(), service, &enrollment.name)? else { return Ok(Changed::NotFound) };
    let id = row.id;
    let present = row.open(tx.db())?;
    if !precondition.holds(present.etag) {
        return Ok(Changed::PreconditionFailed { present: present.etag });
    }
    enrollment.etag = tx.fresh_etag()?;
    enrollment.created_at = present.created_at;
    enrollment.updated_at = now;
    let Sealing { record, keys, webhook } = seal(tx, service, &enrollment)?;
    tx.change(
        "UPDATE enrollment SET mechanism = ?2, record = ?3, keys = ?4, webhook = ?5, etag = ?6 WHERE id = ?1",
        params![
            id,
            mechanism_number(enrollment.attestation.mechanism()),
            record,
            keys,
            webhook,
            Bits::from(enrollment.etag)
        ],
    )?;
    tx.change("DELETE FROM enrollment_lookup WHERE enrollment = ?1", [id])?;
    write_lookups(tx, service, id, &enrollment)?;
    note_change(tx, &[&present, &enrollment]);
    Ok(Changed::Done(enrollment))
}

fn delete(
    tx: &mut Tx<'_, '_>,
    service: ServiceKey,
    name: &EntryName,
    precondition: Precondition,
) -> Result<Changed<Enrollment>, Error> {
    let Some(row) = find_row(tx.db(), service, name)? else { return Ok(Changed::NotFound) };
    let id = row.id;
    let present = row.open(tx.db())?;
    if !precondition.holds(present.etag) {
        return Ok(Changed::PreconditionFailed { present: present.etag });
    }
    tx.change("DELETE FROM enrollment_lookup WHERE enrollment = ?1", [id])?;
    tx.change("DELETE FROM enrollment WHERE id = ?1", [id])?;
    note_change(tx, &[&present]);
    if let EntryName::Individual(registration_id) = name {
        registration::remove(tx, service, registration_id)?;
    }
    Ok(Changed::Done(present))
}

/// Writes by what an X.509 group is found.
fn write_lookups(tx: &Tx<'_, '_>, service: ServiceKey, id: i64, enrollment: &Enrollment) -> Result<(), Error> {
    let (EntryKind::Group, Attestation::X509(x509)) = (enrollment.name.kind(), &enrollment.attestation) else {
        return Ok(());
    };
    let values: Vec<(i64, String)> = match x509 {
        X509Attestation::Client(slots) | X509Attestation::Signing(slots) => {
            slots.iter().map(|it| (BY_SUBJECT_KEY, hex::encode(it.subject_key_hash()))).collect()
        }
        X509Attestation::References(slots) => slots.iter().map(|name| (BY_CA_NAME, name.key())).collect(),
    };
    // A secondary with the primary's key is the same row.
    let sql = "INSERT INTO enrollment_lookup (service, kind, value, enrollment) VALUES (?1, ?2, ?3, ?4) \
               ON CONFLICT DO NOTHING";
    for (kind, value) in values {
        tx.change(sql, params![service.0, kind, value, id])?;
    }
    Ok(())
}

fn list(db: Db<'_>, service: ServiceKey, kind: EntryKind, page: &PageRequest) -> Result<Page<Enrollment>, Error> {
    let after = page.after.as_ref().map_or("", |cursor| cursor.0.as_str());
    let sql = format!(
        "SELECT {} FROM enrollment e JOIN service s ON s.key = e.service \
         WHERE e.service = ?1 AND e.kind = ?2 AND e.name_key > ?3 \
         ORDER BY e.name_key LIMIT ?4",
        EnrollmentRow::COLUMNS
    );
    let limit = page_limit(page);
    let rows =
        db.rows(&sql, params![service.0, kind_number(kind), after, row_limit(limit + 1)], EnrollmentRow::read)?;
    let (rows, next) = cut_page(rows, limit, |row| row.name_key.clone());
    let items = rows.into_iter().map(|row| row.open(db)).collect::<Result<_, _>>()?;
    Ok(Page { items, next })
}

/// How many rows a page has.
pub(super) fn page_limit(page: &PageRequest) -> usize {
    /// No page is larger, whatever the caller asks for.
    const ROWS_MAX: usize = 10_000;
    page.limit.clamp(1, ROWS_MAX)
}

/// Cuts the row that was read beyond the page, which tells that there is another page, and names the last one on it.
pub(super) fn cut_page<T>(mut rows: Vec<T>, limit: usize, key: impl Fn(&T) -> String) -> (Vec<T>, Option<Cursor>) {
    if rows.len() <= limit {
        return (rows, None);
    }
    rows.truncate(limit);
    let next = rows.last().map(|row| Cursor(key(row)));
    (rows, next)
}

fn find_x509_groups(db: Db<'_>, service: ServiceKey, lookup: &X509Lookup) -> Result<Vec<Enrollment>, Error> {
    let keys = lookup.subject_keys.iter().map(|key| (BY_SUBJECT_KEY, hex::encode(key)));
    let names = lookup.ca_names.iter().map(|name| (BY_CA_NAME, name.key()));
    let sql = format!(
        "SELECT {} FROM enrollment_lookup l JOIN enrollment e ON e.id = l.enrollment JOIN service s ON s.key = l.service \
         WHERE l.service = ?1 AND l.kind = ?2 AND l.value = ?3",
        EnrollmentRow::COLUMNS
    );
    let mut found: Vec<EnrollmentRow> = Vec::new();
    for (kind, value) in keys.chain(names) {
        for row in db.rows(&sql, params![service.0, kind, value], EnrollmentRow::read)? {
            if !found.iter().any(|other| other.id == row.id) {
                found.push(row);
            }
        }
    }
    found.into_iter().map(|row| row.open(db)).collect()
}

fn list_symmetric_key_groups(db: Db<'_>, service: ServiceKey, limit: usize) -> Result<Vec<Enrollment>, Error> {
    let sql = format!(
        "SELECT {} FROM enrollment e JOIN service s ON s.key = e.service \
         WHERE e.kind = 1 AND e.service = ?1 AND e.mechanism = ?2 ORDER BY e.name_key LIMIT ?3",
        EnrollmentRow::COLUMNS
    );
    let mechanism = mechanism_number(Mechanism::SymmetricKey);
    let rows = db.rows(&sql, params![service.0, mechanism, row_limit(limit)], EnrollmentRow::read)?;
    rows.into_iter().map(|row| row.open(db)).collect()
}

#[async_trait]
impl EnrollmentStore for Embedded {
    async fn create_enrollment(
        &self,
        service: ServiceKey,
        enrollment: Enrollment,
        now: UnixTime,
    ) -> Result<Created<Enrollment>, Error> {
        self.write(move |tx| create(tx, service, enrollment, now)).await
    }

    async fn replace_enrollment(
        &self,
        service: ServiceKey,
        enrollment: Enrollment,
        precondition: Precondition,
        now: UnixTime,
    ) -> Result<Changed<Enrollment>, Error> {
        self.write(move |tx| replace(tx, service, enrollment, (precondition, now))).await
    }

    async fn delete_enrollment(
        &self,
        service: ServiceKey,
        name: &EntryName,
        precondition: Precondition,
    ) -> Result<Changed<Enrollment>, Error> {
        let name = name.clone();
        self.write(move |tx| delete(tx, service, &name, precondition)).await
    }

    async fn find_enrollment(&self, service: ServiceKey, name: &EntryName) -> Result<Option<Enrollment>, Error> {
        let name = name.clone();
        self.read(move |db| find(db, service, &name)).await
    }

    async fn list_enrollments(
        &self,
        service: ServiceKey,
        kind: EntryKind,
        page: PageRequest,
    ) -> Result<Page<Enrollment>, Error> {
        self.scan(move |db| list(db, service, kind, &page)).await
    }

    async fn find_x509_groups(&self, service: ServiceKey, lookup: X509Lookup) -> Result<Vec<Enrollment>, Error> {
        self.read(move |db| find_x509_groups(db, service, &lookup)).await
    }

    async fn list_symmetric_key_groups(&self, service: ServiceKey, limit: usize) -> Result<Vec<Enrollment>, Error> {
        self.scan(move |db| list_symmetric_key_groups(db, service, limit)).await
    }

    fn key_group_changes(&self) -> watch::Receiver<u64> {
        self.0.changes.key_groups.subscribe()
    }
}
