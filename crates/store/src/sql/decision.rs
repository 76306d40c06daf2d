//! Decisions: admits lie in the main file, written with the registration they admit; refusals in a file of their own.

use async_trait::async_trait;
use domain::decision::{Decision, OutsideText};
use domain::ids::TrackingId;

use super::rows::{Column, from_json, row_limit, to_json};
use super::value::params;
use super::{Db, Embedded, Tx};
use crate::error::Error;
use crate::ports::DecisionStore;

const RECORD: Column = Column { table: "decision", column: "record" };

/// Admits kept for each registration ID: a device that registers every minute must not fill the disk.
const ADMITS_KEPT: i64 = 16;

/// The registration ID of a decision as equal ones are found by.
pub(crate) fn registration_key(registration_id: &OutsideText) -> String {
    registration_id.as_str().to_ascii_lowercase()
}

/// Keeps an admit, in the transaction of what it admits.
pub(super) fn record_admit(tx: &Tx<'_, '_>, decision: &Decision) -> Result<(), Error> {
    let key = registration_key(&decision.registration_id);
    tx.change(
        "INSERT INTO decision (tracking, registration_key, at, record) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
        params![decision.tracking.to_string(), key, decision.at.micros(), to_json(decision)?],
    )?;
    tx.change(
        "DELETE FROM decision WHERE registration_key = ?1 AND id <= \
         (SELECT id FROM decision WHERE registration_key = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
        params![key, ADMITS_KEPT],
    )?;
    Ok(())
}

fn find_admit(db: Db<'_>, tracking: TrackingId) -> Result<Option<Decision>, Error> {
    let sql = "SELECT record FROM decision WHERE tracking = ?1";
    let text = db.row(sql, [tracking.to_string()], |row| row.get::<String>(0))?;
    text.map(|text| from_json(&text, RECORD, tracking)).transpose()
}

fn list_admits(db: Db<'_>, key: &str, limit: usize) -> Result<Vec<Decision>, Error> {
    let sql = "SELECT record FROM decision WHERE registration_key = ?1 ORDER BY id DESC LIMIT ?2";
    let texts = db.rows(sql, params![key, row_limit(limit)], |row| row.get::<String>(0))?;
    texts.iter().map(|text| from_json(text, RECORD, key)).collect()
}

#[async_trait]
impl DecisionStore for Embedded {
    fn record_refusal(&self, decision: Decision) {
        self.0.refusals.record(decision);
    }

    fn lost_refusals(&self) -> u64 {
        self.0.refusals.lost()
    }

    async fn find_decision(&self, tracking: TrackingId) -> Result<Option<Decision>, Error> {
        match self.read(move |db| find_admit(db, tracking)).await? {
            Some(admit) => Ok(Some(admit)),
            None => self.0.refusals.find(tracking).await,
        }
    }

    async fn list_decisions(&self, registration_id: &str, limit: usize) -> Result<Vec<Decision>, Error> {
        let key = registration_key(&OutsideText::new(registration_id));
        let mut decisions = self.0.refusals.list(key.clone(), limit).await?;
        decisions.extend(self.read(move |db| list_admits(db, &key, limit)).await?);
        decisions.sort_by_key(|decision| std::cmp::Reverse(decision.at));
        decisions.truncate(limit);
        Ok(decisions)
    }
}
