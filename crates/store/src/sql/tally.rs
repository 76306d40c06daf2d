//! How many there are of what is bounded. The schema's triggers keep the numbers; nothing here ever counts rows.

use domain::enrollment::EntryKind;
use domain::ids::{HubKey, ServiceKey};

use super::Db;
use super::rows::Bits;
use crate::error::Error;

/// What is counted, and whose.
#[derive(Clone, Copy)]
pub(super) enum Counted {
    /// Devices of a hub.
    Devices(HubKey),
    /// Entries of a provisioning service.
    Enrollments(ServiceKey, EntryKind),
    /// Charged bytes of uploaded files.
    FileBytes,
}

const DEVICES: i64 = 0;

impl Counted {
    const fn columns(self) -> (i64, i64) {
        match self {
            Self::Devices(HubKey(key)) => (DEVICES, key),
            Self::Enrollments(ServiceKey(key), EntryKind::Individual) => (1, key),
            Self::Enrollments(ServiceKey(key), EntryKind::Group) => (2, key),
            Self::FileBytes => (3, 0),
        }
    }
}

/// How many there are.
pub(super) fn amount(db: Db<'_>, counted: Counted) -> Result<u64, Error> {
    let sql = "SELECT amount FROM tally WHERE kind = ?1 AND owner = ?2";
    let amount = db.row(sql, counted.columns(), |row| row.get::<Bits>(0))?;
    Ok(amount.map_or(0, |amount| amount.0))
}

/// The hubs that have `devices` devices or more.
pub(super) fn hubs_with(db: Db<'_>, devices: u64) -> Result<Vec<HubKey>, Error> {
    let sql = "SELECT owner FROM tally WHERE kind = ?1 AND amount >= ?2";
    db.rows(sql, (DEVICES, Bits(devices)), |row| row.get(0).map(HubKey))
}
