//! What a deleted hub or provisioning service leaves behind is removed a bounded piece at a time, so that the writer is
//! never held for long (`rules.md` 11). The resource itself is gone at once, and what it held with it: verbs and queries
//! read nothing whose hub or service is not there, and write nothing for it, which no removal would find any more. A
//! removal that was cut short goes on when the store is opened again.

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

/// Tables whose rows belong to the identities of a hub.
const BY_IDENTITY: &[&str] = &["message", "feedback", "configuration_due", "configuration_put", "twin", "session"];
/// Tables whose rows belong to a hub, and by what they are told apart.
const BY_HUB: &[(&str, &str)] = &[
    ("twin_tag", "hub, path, value, identity"),
    ("hub_event", "sequence"),
    ("configuration", "key"),
    ("configuration_gone", "hub, id"),
    ("configuration_sweep", "hub"),
    ("job_device", "sequence"),
    ("job", "key"),
    ("transfer_fault", "transfer, file, line"),
    ("transfer", "key"),
    ("dead_letter", "id"),
    ("endpoint_cursor", "hub, endpoint, partition"),
    ("upload", "id"),
    ("file", "id"),
    ("file_notification", "sequence"),
];
/// Tables whose rows belong to a provisioning service, and by what they are told apart.
const BY_SERVICE: &[(&str, &str)] = &[("registration", "id"), ("operation", "sequence")];

/// The statements that remove one piece, in their order.
fn statements_of(owner: CertificateOwner) -> Vec<String> {
    let (owner, tables, finder, order, found_from): (_, _, _, _, &[&str]) = match owner {
        CertificateOwner::Hub(_) => ("hub", BY_HUB, "identity", "device, module", BY_IDENTITY),
        CertificateOwner::Service(_) => ("service", BY_SERVICE, "enrollment", "kind, name_key", &["enrollment_lookup"]),
    };
    // What belongs to identities, or to enrollments, is found by them. All of these statements mean the same ones, since
    // they put them in the same order, which is the one they are found in by their owner.
    let first = format!("SELECT id FROM {finder} WHERE {owner} = ?1 ORDER BY {order} LIMIT ?2");
    let own = |&(table, keys): &(&str, &str)| {
        format!("DELETE FROM {table} WHERE ({keys}) IN (SELECT {keys} FROM {table} WHERE {owner} = ?1 LIMIT ?2)")
    };
    let found = |table: &&str| format!("DELETE FROM {table} WHERE {finder} IN ({first})");
    let last = format!("DELETE FROM {finder} WHERE id IN ({first})");
    tables.iter().map(own).chain(found_from.iter().map(found)).chain([last]).collect()
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
    let mut removed = freed.len();
    for statement in statements_of(owner) {
        removed += tx.change(&statement, (key, PIECE_ROWS))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_found_by_others_is_found_by_the_same_ones() {
        for owner in [CertificateOwner::Hub(HubKey(1)), CertificateOwner::Service(ServiceKey(1))] {
            let statements = statements_of(owner);
            let finders = |statement: &String| statement.split_once("SELECT id FROM").map(|(_, rest)| rest.to_owned());
            let last = statements.last().and_then(finders).unwrap();
            assert!(last.contains(" ORDER BY "), "{last}");
            let by_others = statements.iter().filter(|statement| {
                statement.contains(" FROM identity WHERE") || statement.contains(" FROM enrollment WHERE")
            });
            let found: Vec<_> = by_others.map(|statement| finders(statement).unwrap()).collect();
            assert!(found.len() > 1 && found.iter().all(|finders| *finders == last), "{found:#?}");
        }
    }
}
