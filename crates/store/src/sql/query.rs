//! Queries over twins. What SQL can tell of a condition is asked in SQL (`condition`), the rest of the evaluator, row by
//! row; conditions on a device ID or on the equality of a tag find their rows by an index.
//!
//! A search goes through the rows in order of their numbers, a bounded piece at a time: no call holds more than the rows
//! it answers with.

mod access;
mod condition;
mod row;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use domain::ids::HubKey;
use domain::query::{Groups, Plan, TooManyGroups};

use super::link::{Flow, Statement};
use super::rows::Bits;
use super::{Db, Embedded, identity, twin};
use crate::error::Error;
use crate::ports::{Found, Place, QueryStore, Searched};
use access::Access;
use condition::{Bound, compile};
use row::Lens;

/// Twins of one answer end with the one that brings their documents to so many bytes.
const FOUND_BYTES_MAX: usize = 4 << 20;

/// What a search looks at.
struct Search<'p> {
    hub: HubKey,
    plan: &'p Plan,
    after: i64,
}

impl Search<'_> {
    /// Calls `visit` with the number and the document, as far as `lens` shows it, of each row of the next piece that
    /// fulfils the condition. Answers where to go on.
    fn run(
        &self,
        db: Db<'_>,
        lens: Lens,
        mut visit: impl FnMut(i64, &row::Document) -> Result<Flow, Error>,
    ) -> Result<Option<i64>, Error> {
        let mut bound = Bound::default();
        let filter = compile(self.plan.condition.as_ref(), db, &mut bound);
        let lens = if filter.is_exact { lens } else { lens.with_condition(self.plan) };
        let access = Access::choose(self.plan);
        let Some(piece) = access.piece(db, self, lens.rows_max())? else { return Ok(None) };
        let sql = access.sql(db, &mut bound, (self, &piece), (&filter, lens));
        let mut stopped = None;
        let mut judge = |id: i64, document: &row::Document| {
            let is_wanted = filter.is_exact || self.plan.matches(document.members());
            if is_wanted && visit(id, document)? == Flow::Stop {
                stopped = Some(id);
                return Ok(Flow::Stop);
            }
            Ok(Flow::GoOn)
        };
        // Whole rows are asked for one by one, and nothing is asked while rows are walked over.
        let mut whole = Vec::new();
        db.visit((&sql, Statement::Once), bound.0, |row| {
            let id: i64 = row.get(0)?;
            if lens.whole {
                whole.push(id);
                return Ok(Flow::GoOn);
            }
            judge(id, &lens.document(db, id, row)?)
        })?;
        for id in whole {
            let Some(document) = row::whole(db, id)? else { continue };
            if judge(id, &document)? == Flow::Stop {
                break;
            }
        }
        Ok(stopped.or(piece.next))
    }

    /// How many rows of the next piece fulfil a condition that SQL decides, and where to go on; `None` if it does not
    /// decide it.
    fn count(&self, db: Db<'_>) -> Result<Option<(u64, Option<i64>)>, Error> {
        let mut bound = Bound::default();
        let filter = compile(self.plan.condition.as_ref(), db, &mut bound);
        if !filter.is_exact {
            return Ok(None);
        }
        let access = Access::choose(self.plan);
        let Some(piece) = access.piece(db, self, Lens::NOTHING.rows_max())? else { return Ok(Some((0, None))) };
        let sql = access.sql(db, &mut bound, (self, &piece), (&filter, Lens::NOTHING));
        let sql = format!("SELECT count(*) FROM ({sql}) counted");
        let mut counted = Bits(0);
        db.visit((&sql, Statement::Once), bound.0, |row| {
            counted = row.get(0)?;
            Ok(Flow::Stop)
        })?;
        Ok(Some((counted.0, piece.next)))
    }
}

fn find_twins(db: Db<'_>, search: &Search<'_>, limit: usize) -> Result<Searched<Vec<Found>>, Error> {
    let mut ids = Vec::new();
    let mut next = search.run(db, Lens::NOTHING, |id, _| {
        ids.push(id);
        Ok(if ids.len() >= limit { Flow::Stop } else { Flow::GoOn })
    })?;
    let (mut found, mut bytes) = (Vec::new(), 0);
    for (place, id) in ids.iter().enumerate() {
        let twin = twin::find_with_size(db, *id)?;
        let Some(((twin, size), identity)) = twin.zip(identity::find_by_id(db, *id)?) else { continue };
        found.push(Found { place: Place(*id), twin, identity, bytes: size });
        bytes += size;
        if bytes >= FOUND_BYTES_MAX && place + 1 < ids.len() {
            next = Some(*id);
            break;
        }
    }
    Ok(Searched { result: found, next: next.map(Place) })
}

fn group_twins(
    db: Db<'_>,
    search: &Search<'_>,
    mut groups: Groups,
) -> Result<Result<Searched<Groups>, TooManyGroups>, Error> {
    if groups.only_counts()
        && let Some((counted, next)) = search.count(db)?
    {
        groups.count(counted);
        return Ok(Ok(Searched { result: groups, next: next.map(Place) }));
    }
    let mut too_many = None;
    let next = search.run(db, Lens::selected(search.plan), |_, document| {
        too_many = groups.observe(document.members()).err();
        Ok(if too_many.is_some() { Flow::Stop } else { Flow::GoOn })
    })?;
    Ok(match too_many {
        Some(too_many) => Err(too_many),
        None => Ok(Searched { result: groups, next: next.map(Place) }),
    })
}

#[async_trait]
impl QueryStore for Embedded {
    async fn find_twins(
        &self,
        hub: HubKey,
        plan: &Arc<Plan>,
        after: Option<Place>,
        limit: usize,
    ) -> Result<Searched<Vec<Found>>, Error> {
        let plan = Arc::clone(plan);
        self.scan(move |db| {
            let search = Search { hub, plan: &plan, after: after.map_or(0, |place| place.0) };
            db.snapshot(|db| find_twins(db, &search, limit))
        })
        .await
    }

    async fn group_twins(
        &self,
        hub: HubKey,
        plan: &Arc<Plan>,
        after: Option<Place>,
        groups: Groups,
    ) -> Result<Result<Searched<Groups>, TooManyGroups>, Error> {
        let plan = Arc::clone(plan);
        self.scan(move |db| {
            let search = Search { hub, plan: &plan, after: after.map_or(0, |place| place.0) };
            db.snapshot(|db| group_twins(db, &search, groups))
        })
        .await
    }
}
