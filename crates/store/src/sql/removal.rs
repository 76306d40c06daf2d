//! What a deleted hub or provisioning service leaves behind is removed a bounded piece at a time, so that the writer is
//! never held for long (`rules.md` 11). The resource itself is gone at once, and what it held with it: verbs and queries
//! read nothing whose hub or service is not there, and write nothing for it, which no removal would find any more. A removal that was cut short goes on when the store is opened again.

use std::sync::Arc;

use domain::ids::{ContentId, HubKey, ServiceKey};
use domain::resource::CertificateOwner;

use super::link::{Flow, Link, Statement};
use super::resource::owner_columns;
use super::{Context, Durability, Embedded, Runner, Tx, Write, file};
use crate::contents::Contents;
use crate::error::Error;

/// Identities, or records of another kind, that are removed by one verb.
const PIECE_ROWS: i64 = 100;

/// Notes that the contents of `owner` are to be removed; its certificates, which are few, go at once.
pub(super) fn begin(tx: &Tx<'_, '_>, owner: CertificateOwner) -> Result<(), Error> {
    tx.change("DELETE FROM certificate WHERE owner_kind = ?1 AND owner = ?2", owner_columns(owner))?;
    tx.change("INSERT INTO removal (owner_kind, owner) VALUES (?1, ?2) ON CONFLICT DO NOTHING", owner_columns(owner))?;
    Ok(())
}

/// What one piece was: whether anything may be left, and the uploaded bytes that nobody names any more.
struct Piece {
    may_be_more: bool,
    freed: Vec<ContentId>,
}

/// Removes one piece.
fn remove_piece(tx: &Tx<'_, '_>, owner: CertificateOwner) -> Result<Piece, Error> {
    let (_, key) = owner_columns(owner);
    let freed = match owner {
        CertificateOwner::Hub(_) => file::remove_of_hub(tx, key, PIECE_ROWS)?,
        CertificateOwner::Service(_) => Vec::new(),
    };
    let statements: &[&str] = match owner {
        CertificateOwner::Hub(_) => &[
            "DELETE FROM twin_tag WHERE (hub, path, value, identity) IN \
             (SELECT hub, path, value, identity FROM twin_tag WHERE hub = ?1 LIMIT ?2)",
            "DELETE FROM hub_event WHERE sequence IN (SELECT sequence FROM hub_event WHERE hub = ?1 LIMIT ?2)",
            "DELETE FROM message WHERE identity IN (SELECT id FROM identity WHERE hub = ?1 LIMIT ?2)",
            "DELETE FROM feedback WHERE identity IN (SELECT id FROM identity WHERE hub = ?1 LIMIT ?2)",
            "DELETE FROM configuration WHERE key IN (SELECT key FROM configuration WHERE hub = ?1 LIMIT ?2)",
            "DELETE FROM configuration_sweep WHERE hub IN (SELECT hub FROM configuration_sweep WHERE hub = ?1 LIMIT ?2)",
            "DELETE FROM configuration_due WHERE identity IN (SELECT id FROM identity WHERE hub = ?1 LIMIT ?2)",
            "DELETE FROM configuration_put WHERE identity IN (SELECT id FROM identity WHERE hub = ?1 LIMIT ?2)",
            "DELETE FROM job_device WHERE sequence IN (SELECT sequence FROM job_device WHERE hub = ?1 LIMIT ?2)",
            "DELETE FROM job WHERE key IN (SELECT key FROM job WHERE hub = ?1 LIMIT ?2)",
            "DELETE FROM twin WHERE identity IN (SELECT id FROM identity WHERE hub = ?1 LIMIT ?2)",
            "DELETE FROM session WHERE identity IN (SELECT id FROM identity WHERE hub = ?1 LIMIT ?2)",
            "DELETE FROM dead_letter WHERE id IN (SELECT id FROM dead_letter WHERE hub = ?1 LIMIT ?2)",
            "DELETE FROM endpoint_cursor WHERE (hub, endpoint, partition) IN \
             (SELECT hub, endpoint, partition FROM endpoint_cursor WHERE hub = ?1 LIMIT ?2)",
            "DELETE FROM upload WHERE id IN (SELECT id FROM upload WHERE hub = ?1 LIMIT ?2)",
            "DELETE FROM file WHERE id IN (SELECT id FROM file WHERE hub = ?1 LIMIT ?2)",
            "DELETE FROM file_notification WHERE sequence IN \
             (SELECT sequence FROM file_notification WHERE hub = ?1 LIMIT ?2)",
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
    let mut removed = freed.len();
    for sql in statements {
        removed += tx.change(sql, (key, PIECE_ROWS))?;
    }
    if removed > 0 {
        return Ok(Piece { may_be_more: true, freed });
    }
    tx.change("DELETE FROM removal WHERE owner_kind = ?1 AND owner = ?2", owner_columns(owner))?;
    Ok(Piece { may_be_more: false, freed })
}

impl Embedded {
    /// Carries out removals that are noted, on a thread that ends with them or when the store closes.
    pub(super) fn carry_out_removals(&self, noted: Vec<CertificateOwner>) {
        if noted.is_empty() {
            return;
        }
        let (run, context) = (self.0.engine.runner(), Arc::clone(&self.0.context));
        let contents = Arc::clone(&self.0.contents);
        let work = move || {
            for owner in noted {
                if let Err(error) = remove_all((&run, &contents), &context, owner) {
                    tracing::warn!(error = %crate::error::chain(&error), ?owner, "a removal waits for the next opening");
                }
            }
        };
        if let Err(error) = std::thread::Builder::new().name("store-removals".to_owned()).spawn(work) {
            tracing::warn!(%error, "removals wait for the next opening");
        }
    }
}

fn remove_all(
    (run, contents): (&Runner, &Contents),
    context: &Arc<Context>,
    owner: CertificateOwner,
) -> Result<(), Error> {
    let piece =
        |context: Arc<Context>| move |write: &mut Write<'_>| remove_piece(&Tx { write, context: &context }, owner);
    loop {
        // A power cut may bring rows back, and the note with them; bytes that are gone by then are missed by nobody, since
        // nothing of the hub is read.
        let Piece { may_be_more, freed } = run.run_blocking(Durability::Relaxed, piece(Arc::clone(context)))?;
        contents.remove(&freed);
        if !may_be_more {
            return Ok(());
        }
    }
}

/// The removals that an earlier process did not finish.
pub(super) fn pending(link: Link<'_>) -> Result<Vec<CertificateOwner>, Error> {
    let mut owners = Vec::new();
    link.visit(("SELECT owner_kind, owner FROM removal", Statement::Once), &(), |row| {
        let key = row.get(1)?;
        owners.push(match row.get::<i64>(0)? {
            0 => CertificateOwner::Hub(HubKey(key)),
            _ => CertificateOwner::Service(ServiceKey(key)),
        });
        Ok(Flow::GoOn)
    })?;
    Ok(owners)
}
