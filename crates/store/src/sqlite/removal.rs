//! What a deleted hub or provisioning service leaves behind is removed a bounded piece at a time, so that the writer is
//! never held for long (`rules.md` 11). The resource itself is gone at once; a removal that was cut short goes on when
//! the store is opened again.

use std::sync::Arc;

use domain::ids::{HubKey, ServiceKey};
use domain::resource::CertificateOwner;
use rusqlite::Connection;

use super::engine::{Durability, Write};
use super::{Context, Embedded, STORE_FILE, Tx};
use crate::error::{Error, OpenError};

/// Identities, or records of another kind, that are removed by one verb.
const PIECE_ROWS: i64 = 100;

const fn columns(owner: CertificateOwner) -> (i64, i64) {
    match owner {
        CertificateOwner::Hub(HubKey(key)) => (0, key),
        CertificateOwner::Service(ServiceKey(key)) => (1, key),
    }
}

/// Notes that the contents of `owner` are to be removed; its certificates, which are few, go at once.
pub(super) fn begin(tx: &Tx<'_, '_>, owner: CertificateOwner) -> Result<(), Error> {
    tx.change("DELETE FROM certificate WHERE owner_kind = ?1 AND owner = ?2", columns(owner))?;
    tx.change("INSERT INTO removal (owner_kind, owner) VALUES (?1, ?2) ON CONFLICT DO NOTHING", columns(owner))?;
    Ok(())
}

/// Removes one piece; whether anything may be left.
fn remove_piece(tx: &Tx<'_, '_>, owner: CertificateOwner) -> Result<bool, Error> {
    let (_, key) = columns(owner);
    let statements: &[&str] = match owner {
        CertificateOwner::Hub(_) => &[
            "DELETE FROM twin WHERE identity IN (SELECT id FROM identity WHERE hub = ?1 LIMIT ?2)",
            "DELETE FROM session WHERE identity IN (SELECT id FROM identity WHERE hub = ?1 LIMIT ?2)",
            // Last, since the others are found by it: each piece is the same set of identities.
            "DELETE FROM identity WHERE id IN (SELECT id FROM identity WHERE hub = ?1 LIMIT ?2)",
        ],
        CertificateOwner::Service(_) => &[
            "DELETE FROM enrollment_lookup WHERE enrollment IN \
             (SELECT id FROM enrollment WHERE service = ?1 LIMIT ?2)",
            "DELETE FROM enrollment WHERE id IN (SELECT id FROM enrollment WHERE service = ?1 LIMIT ?2)",
            "DELETE FROM registration WHERE id IN (SELECT id FROM registration WHERE service = ?1 LIMIT ?2)",
            "DELETE FROM operation WHERE sequence IN (SELECT sequence FROM operation WHERE service = ?1 LIMIT ?2)",
        ],
    };
    let mut removed = 0;
    for sql in statements {
        removed += tx.change(sql, (key, PIECE_ROWS))?;
    }
    if removed > 0 {
        return Ok(true);
    }
    tx.change("DELETE FROM removal WHERE owner_kind = ?1 AND owner = ?2", columns(owner))?;
    Ok(false)
}

impl Embedded {
    /// Removes what `owner` left, if it is noted for removal.
    pub(super) async fn finish_removal(&self, owner: CertificateOwner) -> Result<(), Error> {
        let noted = "SELECT 1 FROM removal WHERE owner_kind = ?1 AND owner = ?2";
        if self.read(move |db| db.row(noted, columns(owner), |_| Ok(()))).await?.is_none() {
            return Ok(());
        }
        while self.write(move |tx| remove_piece(tx, owner)).await? {}
        Ok(())
    }

    /// Goes on with the removals that an earlier process did not finish, on a thread that ends with them or when the
    /// store closes.
    pub(super) fn resume_removals(&self, pending: Vec<CertificateOwner>) -> Result<(), OpenError> {
        if pending.is_empty() {
            return Ok(());
        }
        let (writer, context) = (self.0.writer.downgrade(), Arc::clone(&self.0.context));
        let resume = move || {
            for owner in pending {
                let piece = |context: Arc<Context>| {
                    move |write: &mut Write<'_>| remove_piece(&Tx { write, context: &context }, owner)
                };
                while writer.run_blocking(Durability::Relaxed, piece(Arc::clone(&context))).unwrap_or(false) {}
            }
        };
        let thread = std::thread::Builder::new().name("store-removals".to_owned());
        thread.spawn(resume).map_err(|error| OpenError::file("cannot start the removals of", STORE_FILE, error))?;
        Ok(())
    }
}

/// The removals that an earlier process did not finish.
pub(super) fn pending(connection: &Connection) -> rusqlite::Result<Vec<CertificateOwner>> {
    let mut statement = connection.prepare("SELECT owner_kind, owner FROM removal")?;
    let owners = statement.query_map((), |row| {
        let key = row.get(1)?;
        Ok(match row.get::<_, i64>(0)? {
            0 => CertificateOwner::Hub(HubKey(key)),
            _ => CertificateOwner::Service(ServiceKey(key)),
        })
    })?;
    owners.collect()
}
