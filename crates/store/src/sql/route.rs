//! How far endpoints are, and what they would not take. Messages that were given up are kept as the log has them, since
//! the log itself forgets them in time.

use std::sync::Arc;

use async_trait::async_trait;
use domain::clock::UnixTime;
use domain::ids::{EndpointName, HubKey};
use domain::message::StoredPlace;
use domain::operation::route::DeadLetter;

use super::resource::hub_exists;
use super::rows::{Column, moment, row_limit};
use super::value::{Row, params};
use super::{Db, Embedded, Tx};
use crate::error::Error;
use crate::ports::{Buried, GivenUp, RouteStore, Told};
use crate::stream;

const ENDPOINT: Column = Column { table: "endpoint_cursor", column: "endpoint" };
const RECORD: Column = Column { table: "dead_letter", column: "record" };

/// A number of the log as a column has it: they count from 0, and none comes near the end.
fn column_of(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// "Nothing yet" stands before the first message.
fn told_column(told: Told) -> i64 {
    told.map_or(-1, column_of)
}

fn begin_at(tx: &Tx<'_, '_>, hub: HubKey, endpoint: &EndpointName, begin: &[Told]) -> Result<Option<Vec<Told>>, Error> {
    if !hub_exists(tx.db(), hub)? {
        return Ok(None);
    }
    for (partition, told) in begin.iter().enumerate() {
        tx.change(
            "INSERT INTO endpoint_cursor (hub, endpoint, partition, told) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
            params![hub.0, endpoint.key(), row_limit(partition), told_column(*told)],
        )?;
    }
    let sql = "SELECT told FROM endpoint_cursor WHERE hub = ?1 AND endpoint = ?2 ORDER BY partition LIMIT ?3";
    let kept = tx.db().rows(sql, params![hub.0, endpoint.key(), row_limit(begin.len())], |row| {
        row.get(0).map(|told: i64| u64::try_from(told).ok())
    })?;
    Ok(Some(kept))
}

fn advance(tx: &Tx<'_, '_>, hub: HubKey, endpoint: &EndpointName, partition: u16, told: u64) -> Result<(), Error> {
    tx.change(
        "UPDATE endpoint_cursor SET told = ?4 WHERE hub = ?1 AND endpoint = ?2 AND partition = ?3 AND told < ?4",
        params![hub.0, endpoint.key(), partition, column_of(told)],
    )?;
    Ok(())
}

fn count(db: Db<'_>, hub: HubKey, endpoint: &EndpointName) -> Result<u64, Error> {
    let sql = "SELECT count(*) FROM dead_letter WHERE hub = ?1 AND endpoint = ?2";
    let counted: Option<i64> = db.row(sql, params![hub.0, endpoint.key()], |row| row.get(0))?;
    Ok(counted.and_then(|counted| u64::try_from(counted).ok()).unwrap_or(0))
}

fn give_up(
    tx: &Tx<'_, '_>,
    (hub, endpoint): (HubKey, &EndpointName),
    given_up: &GivenUp,
    (most, now): (u64, UnixTime),
) -> Result<Buried, Error> {
    if !hub_exists(tx.db(), hub)? {
        return Ok(Buried::NoHub);
    }
    if count(tx.db(), hub, endpoint)? >= most {
        return Ok(Buried::Full);
    }
    let GivenUp { message: stored, reason, attempts } = given_up;
    let partition = stored.message.partition;
    tx.change(
        "INSERT INTO dead_letter \
         (hub, endpoint, partition, sequence, log_offset, enqueued_at, record, reason, attempts, given_up_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        params![
            hub.0,
            endpoint.key(),
            partition,
            column_of(stored.position.sequence),
            column_of(stored.position.offset),
            stored.enqueued_at.micros(),
            stream::encode_record(&stored.message),
            reason,
            attempts,
            now.micros(),
        ],
    )?;
    advance(tx, hub, endpoint, partition, stored.position.sequence)?;
    Ok(Buried::Done)
}

struct LetterRow {
    id: i64,
    partition: u16,
    sequence: i64,
    offset: i64,
    enqueued_at: i64,
    record: Vec<u8>,
    reason: String,
    attempts: u32,
    given_up_at: i64,
    is_due: bool,
}

impl LetterRow {
    fn read(row: &Row<'_>) -> Result<Self, Error> {
        Ok(Self {
            id: row.get(0)?,
            partition: row.get(1)?,
            sequence: row.get(2)?,
            offset: row.get(3)?,
            enqueued_at: row.get(4)?,
            record: row.get(5)?,
            reason: row.get(6)?,
            attempts: row.get(7)?,
            given_up_at: row.get(8)?,
            is_due: row.get(9)?,
        })
    }

    fn letter(self, hub: HubKey) -> Result<DeadLetter, Error> {
        let message =
            stream::decode_record(hub, self.partition, self.record).map_err(|error| RECORD.corrupt(self.id, error))?;
        Ok(DeadLetter {
            id: self.id.cast_unsigned(),
            place: StoredPlace {
                sequence: self.sequence.cast_unsigned(),
                offset: self.offset.cast_unsigned(),
                enqueued_at: moment(self.enqueued_at),
            },
            message: Arc::new(message),
            reason: self.reason,
            attempts: self.attempts,
            at: moment(self.given_up_at),
            is_due: self.is_due,
        })
    }
}

fn letters(
    db: Db<'_>,
    (hub, endpoint): (HubKey, &EndpointName),
    only_due: bool,
    limit: usize,
) -> Result<Vec<DeadLetter>, Error> {
    let sql = "SELECT id, partition, sequence, log_offset, enqueued_at, record, reason, attempts, given_up_at, due \
               FROM dead_letter WHERE hub = ?1 AND endpoint = ?2 AND due >= ?3 ORDER BY id LIMIT ?4";
    let rows = db.rows(sql, params![hub.0, endpoint.key(), only_due, row_limit(limit)], LetterRow::read)?;
    rows.into_iter().map(|row| row.letter(hub)).collect()
}

fn known(db: Db<'_>, hub: HubKey) -> Result<Vec<EndpointName>, Error> {
    let sql = "SELECT endpoint FROM endpoint_cursor WHERE hub = ?1 \
               UNION SELECT endpoint FROM dead_letter WHERE hub = ?1 ORDER BY endpoint";
    let names: Vec<String> = db.rows(sql, [hub.0], |row| row.get(0))?;
    let parse = |name: String| EndpointName::parse(&name).map_err(|error| ENDPOINT.corrupt(&name, error));
    names.into_iter().map(parse).collect()
}

#[async_trait]
impl RouteStore for Embedded {
    async fn begin_endpoint(
        &self,
        hub: HubKey,
        endpoint: &EndpointName,
        begin: Vec<Told>,
    ) -> Result<Option<Vec<Told>>, Error> {
        let endpoint = endpoint.clone();
        self.write(move |tx| begin_at(tx, hub, &endpoint, &begin)).await
    }

    async fn advance_endpoint(
        &self,
        hub: HubKey,
        endpoint: &EndpointName,
        partition: u16,
        told: u64,
    ) -> Result<(), Error> {
        let endpoint = endpoint.clone();
        self.write_relaxed(move |tx| advance(tx, hub, &endpoint, partition, told)).await
    }

    async fn give_up(
        &self,
        hub: HubKey,
        endpoint: &EndpointName,
        given_up: GivenUp,
        bounds: (u64, UnixTime),
    ) -> Result<Buried, Error> {
        let endpoint = endpoint.clone();
        self.write(move |tx| give_up(tx, (hub, &endpoint), &given_up, bounds)).await
    }

    async fn dead_letters(
        &self,
        hub: HubKey,
        endpoint: &EndpointName,
        only_due: bool,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, Error> {
        let endpoint = endpoint.clone();
        self.read(move |db| letters(db, (hub, &endpoint), only_due, limit)).await
    }

    async fn count_dead_letters(&self, hub: HubKey, endpoint: &EndpointName) -> Result<u64, Error> {
        let endpoint = endpoint.clone();
        self.read(move |db| count(db, hub, &endpoint)).await
    }

    async fn replay_dead_letters(&self, hub: HubKey, endpoint: &EndpointName) -> Result<u64, Error> {
        let endpoint = endpoint.clone();
        let sql = "UPDATE dead_letter SET due = 1 WHERE hub = ?1 AND endpoint = ?2";
        self.write(move |tx| Ok(tx.change(sql, params![hub.0, endpoint.key()])? as u64)).await
    }

    async fn settle_dead_letter(&self, id: u64, refused: Option<String>) -> Result<(), Error> {
        self.write(move |tx| {
            let id = id.cast_signed();
            match refused {
                None => tx.change("DELETE FROM dead_letter WHERE id = ?1", [id])?,
                Some(reason) => {
                    let sql = "UPDATE dead_letter SET due = 0, attempts = attempts + 1, reason = ?2 WHERE id = ?1";
                    tx.change(sql, params![id, reason])?
                }
            };
            Ok(())
        })
        .await
    }

    async fn purge_dead_letters(&self, hub: HubKey, endpoint: &EndpointName, limit: usize) -> Result<u64, Error> {
        let endpoint = endpoint.clone();
        let sql = "DELETE FROM dead_letter WHERE id IN \
                   (SELECT id FROM dead_letter WHERE hub = ?1 AND endpoint = ?2 ORDER BY id LIMIT ?3)";
        self.write(move |tx| Ok(tx.change(sql, params![hub.0, endpoint.key(), row_limit(limit)])? as u64)).await
    }

    async fn known_endpoints(&self, hub: HubKey) -> Result<Vec<EndpointName>, Error> {
        self.read(move |db| known(db, hub)).await
    }

    async fn forget_endpoint(&self, hub: HubKey, endpoint: &EndpointName) -> Result<(), Error> {
        let endpoint = endpoint.clone();
        let sql = "DELETE FROM endpoint_cursor WHERE hub = ?1 AND endpoint = ?2";
        self.write(move |tx| tx.change(sql, params![hub.0, endpoint.key()]).map(drop)).await
    }
}
