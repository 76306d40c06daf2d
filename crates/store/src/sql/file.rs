//! Files that devices upload: their records; the bytes are in [`Contents`](crate::contents::Contents).
//!
//! A verb tells which pieces nobody names any more, and they are removed once it is durable. Start at `write_file`.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use domain::clock::UnixTime;
use domain::cloud_to_device::{FeedbackSettings, Settlement};
use domain::file::{
    BLOCKS_MAX, BlockId, BlockSource, CHARGED_BYTES_MIN, CONTAINER_UPLOADS_MAX, Content, FileName, FileNotification,
    FileProperties, StoredFile,
};
use domain::ids::{ContentId, Etag, HubKey, LockToken, UploadId};
use domain::operation::identity::IdentityName;
use domain::operation::{Page, PageRequest};
use serde::{Deserialize, Serialize};

use super::enrollment::{cut_page, page_limit};
use super::identity::module_column;
use super::queue::Queue;
use super::resource::hub_exists;
use super::rows::{Bits, Column, from_json, moment, row_limit, to_json};
use super::tally::{Counted, amount};
use super::twin::name_of;
use super::value::{Parameters, Row, ToValue, params};
use super::{Db, Embedded, Link, Tx, WAKES_NOTIFICATIONS};
use crate::error::Error;
use crate::ports::{
    Begun, ContentWriter, Ended, Ending, FileStore, Given, Limit, NewUpload, Settled, Writing, WritingSource, Written,
};

const NAME: Column = Column { table: "file", column: "name" };
const CONTENT: Column = Column { table: "file", column: "content" };
const PROPERTIES: Column = Column { table: "file", column: "properties" };
const NOTIFICATION: Column = Column { table: "file_notification", column: "record" };

/// Notifications as back-end programs take them.
const NOTIFICATIONS: Queue = Queue {
    table: "file_notification",
    select: "SELECT q.sequence, q.record FROM file_notification q",
    wakes: WAKES_NOTIFICATIONS,
};

/// When the time of content came that was let go: before any other.
const LET_GO: i64 = 0;
/// Rows of content that one verb removes, which holds up all others.
const LET_GO_ROWS: usize = 100;
/// How long a verb that failed may still be carried out by the server of a database, and longer.
const DOUBTED_FOR: Duration = Duration::from_mins(1);
/// Most pieces that are doubted at once; others stay until the store is opened.
const DOUBTS_MAX: usize = 10_000;

/// Pieces that a verb was to name which failed: some it may have named all the same.
#[derive(Debug, Default)]
pub(super) struct Doubts(Mutex<Vec<(ContentId, UnixTime)>>);

impl Doubts {
    fn note(&self, pieces: impl IntoIterator<Item = (ContentId, UnixTime)>) {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = DOUBTS_MAX.saturating_sub(noted.len());
        noted.extend(pieces.into_iter().take(room));
    }

    /// Up to `limit` pieces that were doubted for long enough, which are then no longer noted.
    fn take(&self, now: UnixTime, limit: usize) -> Vec<(ContentId, UnixTime)> {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = noted.iter().take(limit).take_while(|(_, since)| since.plus(DOUBTED_FOR) <= now).count();
        noted.drain(..due).collect()
    }
}

/// What a verb answers, and the pieces that nobody names any more.
type Freeing<T> = Result<(T, Vec<ContentId>), Error>;

fn upload_column(upload: UploadId) -> [u8; 16] {
    upload.bits().to_be_bytes()
}

fn content_column(content: ContentId) -> [u8; 16] {
    content.bits().to_be_bytes()
}

fn read_content_id(row: &Row<'_>, index: usize) -> Result<ContentId, Error> {
    row.get(index).map(|bytes: [u8; 16]| ContentId::from_bits(u128::from_be_bytes(bytes)))
}

const fn charged(bytes: u64) -> u64 {
    if bytes < CHARGED_BYTES_MIN { CHARGED_BYTES_MIN } else { bytes }
}

/// Whether the store knows what a piece is.
pub(super) fn is_named(link: Link<'_>, id: ContentId) -> Result<bool, Error> {
    Ok(link.number("SELECT count(*) FROM content WHERE id = ?1", &[content_column(id)])? > 0)
}

/// Runs a statement that removes content; which.
fn remove_content(tx: &Tx<'_, '_>, condition: &str, parameters: impl Parameters) -> Result<Vec<ContentId>, Error> {
    let sql = format!("DELETE FROM content WHERE {condition} RETURNING id");
    tx.db().rows(&sql, parameters, |row| read_content_id(row, 0))
}

/// Lets go of content, and removes the first of it; what is left goes behind the verb that let it go, or in a sweep.
fn let_go(tx: &Tx<'_, '_>, condition: &str, parameters: impl Parameters) -> Result<Vec<ContentId>, Error> {
    let sql = format!("UPDATE content SET file = NULL, upload = NULL, expires_at = {LET_GO} WHERE {condition}");
    tx.change(&sql, parameters)?;
    remove_due(tx, LET_GO, LET_GO_ROWS)
}

/// Removes content whose time has come; what was let go comes first.
fn remove_due(tx: &Tx<'_, '_>, now: i64, limit: usize) -> Result<Vec<ContentId>, Error> {
    let due = "id IN (SELECT id FROM content WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2)";
    remove_content(tx, due, params![now, row_limit(limit)])
}

/// Removes a piece of what a hub held.
pub(super) fn remove_of_hub(tx: &Tx<'_, '_>, hub: i64, limit: i64) -> Result<Vec<ContentId>, Error> {
    remove_content(tx, "id IN (SELECT id FROM content WHERE hub = ?1 ORDER BY id LIMIT ?2)", (hub, limit))
}

/// Ends the uploads of an identity that is gone, or of a device and its modules; what was sent goes when its time is up.
pub(super) fn forget_uploads(tx: &Tx<'_, '_>, hub: HubKey, name: &IdentityName) -> Result<(), Error> {
    let sql = "DELETE FROM upload WHERE hub = ?1 AND device = ?2 AND (?3 = '' OR module = ?3)";
    tx.change(sql, params![hub.0, name.device.as_str(), module_column(name)])?;
    Ok(())
}

fn begin_upload(
    tx: &Tx<'_, '_>,
    (hub, name): (HubKey, &IdentityName),
    upload: &NewUpload,
    now: UnixTime,
) -> Result<Begun, Error> {
    let identity = params![hub.0, name.device.as_str(), module_column(name), upload.generation];
    let sql = "SELECT 1 FROM identity i JOIN hub h ON h.key = i.hub \
               WHERE i.hub = ?1 AND i.device = ?2 AND i.module = ?3 AND i.generation = ?4";
    if tx.db().row(sql, identity, |_| Ok(()))?.is_none() {
        return Ok(Begun::NotFound);
    }
    let most = tx.context.quotas.uploads_per_device;
    note_upload(tx, (hub, name.device.as_str(), module_column(name)), (upload, most), now)
}

/// As [`begin_upload`], of no identity: the names of both are empty then.
fn begin_container_upload(tx: &Tx<'_, '_>, hub: HubKey, upload: &NewUpload, now: UnixTime) -> Result<Begun, Error> {
    if !hub_exists(tx.db(), hub)? {
        return Ok(Begun::NotFound);
    }
    if open_upload(tx.db(), hub, upload.id, now)?.is_some() {
        return Ok(Begun::Done);
    }
    note_upload(tx, (hub, "", ""), (upload, CONTAINER_UPLOADS_MAX), now)
}

/// Notes an upload unless there are `most` of its owner.
fn note_upload(
    tx: &Tx<'_, '_>,
    (hub, device, module): (HubKey, &str, &str),
    (upload, most): (&NewUpload, u32),
    now: UnixTime,
) -> Result<Begun, Error> {
    let sql = "SELECT count(*) FROM upload WHERE hub = ?1 AND device = ?2 AND module = ?3 AND expires_at > ?4";
    let under_way: u32 =
        tx.db().row(sql, params![hub.0, device, module, now.micros()], |row| row.get(0))?.unwrap_or_default();
    if under_way >= most {
        return Ok(Begun::Full);
    }
    let (id, file, expires_at) = (upload_column(upload.id), upload.file.as_str(), upload.expires_at.micros());
    tx.change(
        "INSERT INTO upload (id, hub, device, module, file, expires_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
         ON CONFLICT (id) DO UPDATE SET expires_at = ?6",
        params![id, hub.0, device, module, file, expires_at],
    )?;
    Ok(Begun::Done)
}

/// An upload that can be written to.
struct OpenUpload {
    id: UploadId,
    file: String,
    expires_at: i64,
    blocks: u32,
    bytes: Bits,
}

fn open_upload(db: Db<'_>, hub: HubKey, id: UploadId, now: UnixTime) -> Result<Option<OpenUpload>, Error> {
    let sql = "SELECT u.file, u.expires_at, u.blocks, u.bytes FROM upload u JOIN hub h ON h.key = u.hub \
               WHERE u.id = ?1 AND u.hub = ?2 AND u.expires_at > ?3";
    db.row(sql, params![upload_column(id), hub.0, now.micros()], |row| {
        let (file, expires_at) = (row.get(0)?, row.get(1)?);
        Ok(OpenUpload { id, file, expires_at, blocks: row.get(2)?, bytes: row.get(3)? })
    })
}

/// What is used up if `more` bytes come in the place of `fewer`, of a file that then has `file` bytes.
fn judge_bytes(db: Db<'_>, file: u64, more: u64, fewer: u64) -> Result<Option<Limit>, Error> {
    let quotas = &db.context.quotas;
    if file > quotas.file_bytes {
        return Ok(Some(Limit::File));
    }
    let all = amount(db, Counted::FileBytes)?.saturating_add(more).saturating_sub(fewer);
    Ok((all > quotas.files_bytes).then_some(Limit::AllFiles))
}

fn put_block(
    tx: &Tx<'_, '_>,
    hub: HubKey,
    upload: UploadId,
    (block, content): (&BlockId, Content),
    now: UnixTime,
) -> Freeing<Written<()>> {
    let refused = |written| Ok((written, vec![content.id]));
    let Some(open) = open_upload(tx.db(), hub, upload, now)? else { return refused(Written::NoUpload) };
    let id = upload_column(upload);
    let sql = "SELECT length(block) FROM content WHERE upload = ?1 LIMIT 1";
    let length: Option<Bits> = tx.db().row(sql, [id], |row| row.get(0))?;
    if length.is_some_and(|length| length.0 != block.bytes().len() as u64) {
        return refused(Written::NoBlock);
    }
    let sql = "SELECT bytes FROM content WHERE upload = ?1 AND block = ?2";
    let earlier: Option<Bits> = tx.db().row(sql, params![id, block.bytes()], |row| row.get(0))?;
    let blocks = open.blocks + u32::from(earlier.is_none());
    if usize::try_from(blocks).unwrap_or(usize::MAX) > BLOCKS_MAX {
        return refused(Written::Full(Limit::Blocks));
    }
    let bytes = open.bytes.0.saturating_sub(earlier.map_or(0, |earlier| earlier.0)).saturating_add(content.bytes);
    let fewer = earlier.map_or(0, |earlier| charged(earlier.0));
    if let Some(limit) = judge_bytes(tx.db(), bytes, charged(content.bytes), fewer)? {
        return refused(Written::Full(limit));
    }
    let freed = remove_content(tx, "upload = ?1 AND block = ?2", params![id, block.bytes()])?;
    tx.change(
        "INSERT INTO content (id, hub, bytes, upload, block, expires_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![content_column(content.id), hub.0, Bits(content.bytes), id, block.bytes(), open.expires_at],
    )?;
    tx.change("UPDATE upload SET blocks = ?2, bytes = ?3 WHERE id = ?1", params![id, blocks, Bits(bytes)])?;
    Ok((Written::Done(()), freed))
}

/// Blocks by their names, and the pieces that they are.
fn blocks_by(db: Db<'_>, condition: &str, owner: impl ToValue) -> Result<HashMap<Vec<u8>, Content>, Error> {
    let sql = format!("SELECT block, id, bytes FROM content WHERE {condition} AND block IS NOT NULL");
    let rows = db.rows(&sql, [owner], |row| {
        Ok((row.get(0)?, Content { id: read_content_id(row, 1)?, bytes: row.get::<Bits>(2)?.0 }))
    })?;
    Ok(rows.into_iter().collect())
}

/// The pieces that a list of blocks names; `None` if one of them is not there.
fn find_blocks(
    db: Db<'_>,
    (upload, file): (UploadId, Option<i64>),
    list: &[(BlockId, BlockSource)],
) -> Result<Option<Vec<Content>>, Error> {
    let fresh = blocks_by(db, "upload = ?1", upload_column(upload))?;
    let present = file.map(|file| blocks_by(db, "file = ?1", file)).transpose()?.unwrap_or_default();
    let find = |(block, source): &(BlockId, BlockSource)| match source {
        BlockSource::Committed => present.get(block.bytes()),
        BlockSource::Uncommitted => fresh.get(block.bytes()),
        BlockSource::Latest => fresh.get(block.bytes()).or_else(|| present.get(block.bytes())),
    };
    Ok(list.iter().map(|named| find(named).copied()).collect())
}

fn write_file(tx: &Tx<'_, '_>, hub: HubKey, writing: &Writing, now: UnixTime) -> Freeing<Written<Etag>> {
    let unnamed = match &writing.source {
        WritingSource::Whole(content) => vec![content.id],
        WritingSource::Blocks(_) => Vec::new(),
    };
    let Some(open) = open_upload(tx.db(), hub, writing.upload, now)? else { return Ok((Written::NoUpload, unnamed)) };
    let sql = "SELECT id FROM file WHERE hub = ?1 AND name = ?2";
    let present: Option<i64> = tx.db().row(sql, params![hub.0, open.file], |row| row.get(0))?;
    if writing.only_new && present.is_some() {
        return Ok((Written::Exists, unnamed));
    }
    let (content, more) = match &writing.source {
        WritingSource::Whole(content) => (vec![*content], charged(content.bytes)),
        WritingSource::Blocks(list) => match find_blocks(tx.db(), (open.id, present), list)? {
            Some(content) => (content, 0),
            None => return Ok((Written::NoBlock, unnamed)),
        },
    };
    let bytes = content.iter().fold(0_u64, |sum, content| sum.saturating_add(content.bytes));
    if let Some(limit) = judge_bytes(tx.db(), bytes, more, 0)? {
        return Ok((Written::Full(limit), unnamed));
    }
    let etag = tx.fresh_etag()?;
    let file = put_file(tx, (hub, &open.file), (&content, &writing.properties), (etag, now))?;
    let freed = take_content(tx, (hub, file, &open), &content)?;
    Ok((Written::Done(etag), freed))
}

fn put_file(
    tx: &Tx<'_, '_>,
    (hub, name): (HubKey, &str),
    (content, properties): (&[Content], &FileProperties),
    (etag, now): (Etag, UnixTime),
) -> Result<i64, Error> {
    let sql = "INSERT INTO file (hub, name, content, properties, created_at, written_at, etag) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?6) \
               ON CONFLICT (hub, name) DO UPDATE SET content = ?3, properties = ?4, written_at = ?5, etag = ?6 \
               RETURNING id";
    let columns = params![hub.0, name, to_json(&content)?, to_json(properties)?, now.micros(), Bits::from(etag)];
    let id = tx.db().row(sql, columns, |row| row.get(0))?;
    Ok(id.unwrap_or_default())
}

/// Gives a file its content, and lets go of what it had before and of the other blocks of its upload.
fn take_content(
    tx: &Tx<'_, '_>,
    (hub, file, open): (HubKey, i64, &OpenUpload),
    content: &[Content],
) -> Result<Vec<ContentId>, Error> {
    let wanted: HashSet<ContentId> = content.iter().map(|content| content.id).collect();
    let upload = upload_column(open.id);
    let sql = "SELECT id FROM content WHERE file = ?1 OR upload = ?2";
    let known: HashSet<ContentId> =
        tx.db().rows(sql, params![file, upload], |row| read_content_id(row, 0))?.into_iter().collect();
    for id in known.difference(&wanted) {
        let sql = "UPDATE content SET file = NULL, upload = NULL, expires_at = ?2 WHERE id = ?1";
        tx.change(sql, params![content_column(*id), LET_GO])?;
    }
    let freed = remove_due(tx, LET_GO, LET_GO_ROWS)?;
    let sql = "UPDATE content SET file = ?1, upload = NULL, expires_at = NULL WHERE upload = ?2";
    tx.change(sql, params![file, upload])?;
    for one in content.iter().filter(|one| !known.contains(&one.id)) {
        tx.change(
            "INSERT INTO content (id, hub, bytes, file) VALUES (?1, ?2, ?3, ?4)",
            params![content_column(one.id), hub.0, Bits(one.bytes), file],
        )?;
    }
    // One of no identity is over with its file: nobody says so.
    tx.change("DELETE FROM upload WHERE id = ?1 AND device = ''", [upload])?;
    tx.change("UPDATE upload SET blocks = 0, bytes = 0 WHERE id = ?1", [upload])?;
    Ok(freed)
}

/// What of a notification is not queried.
#[derive(Serialize, Deserialize)]
struct NotificationRecord {
    device: String,
    module: String,
    file: String,
    bytes: u64,
    written_at: UnixTime,
    enqueued_at: UnixTime,
}

fn end_upload(
    tx: &mut Tx<'_, '_>,
    (hub, name): (HubKey, &IdentityName),
    ending: Ending,
    now: UnixTime,
) -> Freeing<Ended> {
    let sql = "DELETE FROM upload WHERE id = ?1 AND hub = ?2 AND device = ?3 AND module = ?4 AND expires_at > ?5 \
               AND EXISTS (SELECT 1 FROM hub WHERE key = ?2) RETURNING file";
    let id = upload_column(ending.upload);
    let columns = params![id, hub.0, name.device.as_str(), module_column(name), now.micros()];
    let ended: Option<String> = tx.db().row(sql, columns, |row| row.get(0))?;
    let Some(file) = ended else { return Ok((Ended::NotFound, Vec::new())) };
    let freed = let_go(tx, "upload = ?1", [id])?;
    let Some(settings) = ending.notify else { return Ok((Ended::Done, freed)) };
    let Some(stored) = find_file(tx.db(), hub, &file)? else { return Ok((Ended::Done, freed)) };
    let record = to_json(&NotificationRecord {
        device: name.device.as_str().to_owned(),
        module: module_column(name).to_owned(),
        bytes: stored.bytes(),
        written_at: stored.written_at,
        enqueued_at: now,
        file,
    })?;
    tx.change(
        "INSERT INTO file_notification (hub, record, expires_at) VALUES (?1, ?2, ?3)",
        params![hub.0, record, now.plus(settings.ttl).micros()],
    )?;
    tx.wake(WAKES_NOTIFICATIONS);
    Ok((Ended::Done, freed))
}

/// A row of `file`.
struct FileRow {
    name: String,
    content: String,
    properties: String,
    created_at: UnixTime,
    written_at: UnixTime,
    etag: Bits,
}

const SELECT: &str = "SELECT f.name, f.content, f.properties, f.created_at, f.written_at, f.etag \
                      FROM file f JOIN hub h ON h.key = f.hub";

impl FileRow {
    fn read(row: &Row<'_>) -> Result<Self, Error> {
        Ok(Self {
            name: row.get(0)?,
            content: row.get(1)?,
            properties: row.get(2)?,
            created_at: moment(row.get(3)?),
            written_at: moment(row.get(4)?),
            etag: row.get(5)?,
        })
    }

    fn open(self) -> Result<StoredFile, Error> {
        Ok(StoredFile {
            content: from_json(&self.content, CONTENT, &self.name)?,
            properties: from_json(&self.properties, PROPERTIES, &self.name)?,
            name: FileName::parse(&self.name).map_err(|error| NAME.corrupt(&self.name, error))?,
            created_at: self.created_at,
            written_at: self.written_at,
            etag: self.etag.into(),
        })
    }
}

fn find_file(db: Db<'_>, hub: HubKey, name: &str) -> Result<Option<StoredFile>, Error> {
    let sql = format!("{SELECT} WHERE f.hub = ?1 AND f.name = ?2");
    db.row(&sql, params![hub.0, name], FileRow::read)?.map(FileRow::open).transpose()
}

fn list_files(db: Db<'_>, hub: HubKey, page: &PageRequest) -> Result<Page<StoredFile>, Error> {
    let after = page.after.as_ref().map_or("", |cursor| cursor.0.as_str());
    let limit = page_limit(page);
    let sql = format!("{SELECT} WHERE f.hub = ?1 AND f.name > ?2 ORDER BY f.name LIMIT ?3");
    let rows = db.rows(&sql, params![hub.0, after, row_limit(limit + 1)], FileRow::read)?;
    let (rows, next) = cut_page(rows, limit, |row| row.name.clone());
    Ok(Page { items: rows.into_iter().map(FileRow::open).collect::<Result<_, _>>()?, next })
}

fn delete_file(tx: &Tx<'_, '_>, hub: HubKey, name: &str) -> Freeing<bool> {
    if !hub_exists(tx.db(), hub)? {
        return Ok((false, Vec::new()));
    }
    let sql = "DELETE FROM file WHERE hub = ?1 AND name = ?2 RETURNING id";
    let removed: Option<i64> = tx.db().row(sql, params![hub.0, name], |row| row.get(0))?;
    let Some(id) = removed else { return Ok((false, Vec::new())) };
    Ok((true, let_go(tx, "file = ?1", [id])?))
}

fn sweep(tx: &mut Tx<'_, '_>, now: UnixTime, limit: usize) -> Freeing<usize> {
    let columns = params![now.micros(), row_limit(limit)];
    let mut rows =
        tx.change("DELETE FROM upload WHERE id IN (SELECT id FROM upload WHERE expires_at <= ?1 LIMIT ?2)", columns)?;
    let freed = remove_due(tx, now.micros(), limit)?;
    rows += freed.len();
    rows += NOTIFICATIONS.sweep(tx, now, limit)?;
    Ok((rows, freed))
}

/// Whether a sweep at `now` would find anything.
fn is_sweep_due(db: Db<'_>, now: UnixTime) -> Result<bool, Error> {
    let sql = "SELECT EXISTS (SELECT 1 FROM upload WHERE expires_at <= ?1) \
               OR EXISTS (SELECT 1 FROM content WHERE expires_at <= ?1)";
    let is_due = db.row(sql, [now.micros()], |row| row.get(0))?.unwrap_or(false);
    Ok(is_due || NOTIFICATIONS.is_sweep_due(db, now)?)
}

fn take_notification(
    tx: &mut Tx<'_, '_>,
    hub: HubKey,
    (lock, settings): (LockToken, FeedbackSettings),
    now: UnixTime,
) -> Result<Option<FileNotification>, Error> {
    let given = Given { lock, limit: 1, settings };
    let taken = NOTIFICATIONS.take(tx, (hub, &given), now, |row| {
        let (sequence, record): (i64, String) = (row.get(0)?, row.get(1)?);
        let record: NotificationRecord = from_json(&record, NOTIFICATION, sequence)?;
        Ok(FileNotification {
            device: name_of(&record.device, &record.module, NOTIFICATION)?,
            file: FileName::parse(&record.file).map_err(|error| NOTIFICATION.corrupt(sequence, error))?,
            bytes: record.bytes,
            written_at: record.written_at,
            enqueued_at: record.enqueued_at,
        })
    })?;
    Ok(taken.into_iter().next())
}

impl Embedded {
    /// Runs a verb, and removes the pieces that nobody names after it.
    async fn write_freeing<T: Send + 'static>(
        &self,
        verb: impl FnOnce(&mut Tx<'_, '_>) -> Freeing<T> + Clone + Send + 'static,
    ) -> Result<T, Error> {
        let (answer, mut freed) = self.write_removing(verb).await?;
        while freed >= LET_GO_ROWS {
            let removed = self.write_removing(|tx| Ok(((), remove_due(tx, LET_GO, LET_GO_ROWS)?))).await;
            freed = match removed {
                Ok(((), more)) => more,
                Err(error) => {
                    tracing::warn!(error = %crate::error::chain(&error), "uploaded pieces wait for a sweep");
                    0
                }
            };
        }
        Ok(answer)
    }

    /// Runs a verb that names `piece`, if there is one.
    async fn write_naming<T: Send + 'static>(
        &self,
        (piece, now): (Option<ContentId>, UnixTime),
        verb: impl FnOnce(&mut Tx<'_, '_>) -> Freeing<T> + Clone + Send + 'static,
    ) -> Result<T, Error> {
        let outcome = self.write_freeing(verb).await;
        if outcome.is_err() {
            self.0.doubts.note(piece.map(|piece| (piece, now)));
        }
        outcome
    }

    /// Runs a verb, and removes the pieces that it frees; how many there were.
    async fn write_removing<T: Send + 'static>(
        &self,
        verb: impl FnOnce(&mut Tx<'_, '_>) -> Freeing<T> + Clone + Send + 'static,
    ) -> Result<(T, usize), Error> {
        let (answer, freed) = self.write(verb).await?;
        let count = freed.len();
        self.remove_pieces(freed).await?;
        Ok((answer, count))
    }

    async fn remove_pieces(&self, pieces: Vec<ContentId>) -> Result<(), Error> {
        if pieces.is_empty() {
            return Ok(());
        }
        let store = self.clone();
        let removed = tokio::task::spawn_blocking(move || store.0.contents.remove(&pieces)).await;
        removed.map_err(|error| Error::backend("removing uploaded pieces", error))
    }

    /// Removes pieces of verbs that failed, unless these named them all the same; how many were looked at.
    async fn settle_doubts(&self, now: UnixTime, limit: usize) -> Result<usize, Error> {
        let doubted = self.0.doubts.take(now, limit);
        let asked: Vec<ContentId> = doubted.iter().map(|(piece, _)| *piece).collect();
        let unnamed = self.read(move |db| {
            let is_unnamed = |id: &ContentId| is_named(db.link, *id).map(|is_named| (!is_named).then_some(*id));
            asked.iter().filter_map(|id| is_unnamed(id).transpose()).collect::<Result<Vec<_>, _>>()
        });
        match unnamed.await {
            Ok(unnamed) => self.remove_pieces(unnamed).await.map(|()| doubted.len()),
            Err(error) => {
                self.0.doubts.note(doubted);
                Err(error)
            }
        }
    }
}

#[async_trait]
impl FileStore for Embedded {
    async fn begin_content(&self, id: ContentId) -> Result<Box<dyn ContentWriter>, Error> {
        self.0.contents.begin(id).await
    }

    async fn read_content(&self, id: ContentId, offset: u64, bytes: usize) -> Result<Option<Bytes>, Error> {
        self.0.contents.read(id, offset, bytes).await
    }

    async fn charged_bytes(&self) -> Result<u64, Error> {
        self.read(|db| amount(db, Counted::FileBytes)).await
    }

    async fn begin_upload(
        &self,
        hub: HubKey,
        name: &IdentityName,
        upload: NewUpload,
        now: UnixTime,
    ) -> Result<Begun, Error> {
        let name = name.clone();
        self.write(move |tx| begin_upload(tx, (hub, &name), &upload, now)).await
    }

    async fn begin_container_upload(&self, hub: HubKey, upload: NewUpload, now: UnixTime) -> Result<Begun, Error> {
        self.write(move |tx| begin_container_upload(tx, hub, &upload, now)).await
    }

    async fn is_upload_open(&self, hub: HubKey, upload: UploadId, now: UnixTime) -> Result<bool, Error> {
        self.read(move |db| Ok(open_upload(db, hub, upload, now)?.is_some())).await
    }

    async fn put_block(
        &self,
        hub: HubKey,
        upload: UploadId,
        (block, content): (BlockId, Content),
        now: UnixTime,
    ) -> Result<Written<()>, Error> {
        self.write_naming((Some(content.id), now), move |tx| put_block(tx, hub, upload, (&block, content), now)).await
    }

    async fn list_blocks(&self, hub: HubKey, upload: UploadId) -> Result<Vec<(BlockId, u64)>, Error> {
        self.read(move |db| {
            let sql = "SELECT block, bytes FROM content WHERE upload = ?1 AND hub = ?2 ORDER BY block";
            let rows: Vec<(Vec<u8>, Bits)> =
                db.rows(sql, params![upload_column(upload), hub.0], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(rows.iter().filter_map(|(block, bytes)| Some((BlockId::from_bytes(block)?, bytes.0))).collect())
        })
        .await
    }

    async fn write_file(&self, hub: HubKey, writing: Writing, now: UnixTime) -> Result<Written<Etag>, Error> {
        let piece = match &writing.source {
            WritingSource::Whole(content) => Some(content.id),
            WritingSource::Blocks(_) => None,
        };
        self.write_naming((piece, now), move |tx| write_file(tx, hub, &writing, now)).await
    }

    async fn end_upload(
        &self,
        hub: HubKey,
        name: &IdentityName,
        ending: Ending,
        now: UnixTime,
    ) -> Result<Ended, Error> {
        let name = name.clone();
        self.write_freeing(move |tx| end_upload(tx, (hub, &name), ending, now)).await
    }

    async fn find_file(&self, hub: HubKey, file: &FileName) -> Result<Option<StoredFile>, Error> {
        let file = file.clone();
        self.read(move |db| find_file(db, hub, file.as_str())).await
    }

    async fn list_files(&self, hub: HubKey, page: PageRequest) -> Result<Page<StoredFile>, Error> {
        self.scan(move |db| list_files(db, hub, &page)).await
    }

    async fn delete_file(&self, hub: HubKey, file: &FileName) -> Result<bool, Error> {
        let file = file.clone();
        self.write_freeing(move |tx| delete_file(tx, hub, file.as_str())).await
    }

    async fn sweep_files(&self, now: UnixTime, limit: usize) -> Result<usize, Error> {
        let settled = self.settle_doubts(now, limit).await?;
        match self.read(move |db| is_sweep_due(db, now)).await? {
            true => Ok(settled + self.write_freeing(move |tx| sweep(tx, now, limit)).await?),
            false => Ok(settled),
        }
    }

    async fn take_notification(
        &self,
        hub: HubKey,
        given: (LockToken, FeedbackSettings),
        now: UnixTime,
    ) -> Result<Option<FileNotification>, Error> {
        match self.read(move |db| NOTIFICATIONS.is_waiting(db, hub, now)).await? {
            true => self.write(move |tx| take_notification(tx, hub, given, now)).await,
            false => Ok(None),
        }
    }

    async fn settle_notification(
        &self,
        hub: HubKey,
        (lock, settlement): (LockToken, Settlement),
        deliveries_max: u32,
        now: UnixTime,
    ) -> Result<Settled, Error> {
        self.write(move |tx| NOTIFICATIONS.settle(tx, (hub, lock), (settlement, deliveries_max), now)).await
    }

    fn notification_changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.0.changes.notifications.subscribe()
    }
}
