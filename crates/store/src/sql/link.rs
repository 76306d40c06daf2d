//! A connection, whatever database is at its other end: the few things that verbs do with one.
//!
//! SQL is written once, with parameters `?1`, `?2` and so on, in what both databases understand; where they differ, the
//! difference stands here, under a name that says what is wanted.

use std::cell::Cell;

use super::value::{Parameters, Row};
use crate::error::Error;

/// Whom a committed verb wakes: a set of bits whose meaning is the store's.
pub(crate) type Wakes = u32;

/// A connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Link<'c> {
    /// To a file, or to memory.
    Sqlite(&'c rusqlite::Connection),
    /// To a server.
    #[cfg(feature = "postgres")]
    Postgres(&'c crate::postgres::Session),
}

/// What a verb works with.
#[derive(Debug)]
pub(crate) struct Write<'c> {
    link: Link<'c>,
    wakes: Wakes,
    /// The sequences that it writes rows of, as bits.
    reserved: Cell<u8>,
    has_written: Cell<bool>,
}

impl<'c> Write<'c> {
    /// Begins a verb that wakes nobody yet.
    pub const fn new(link: Link<'c>) -> Self {
        Self { link, wakes: 0, reserved: Cell::new(0), has_written: Cell::new(false) }
    }

    /// Has `wakes` woken once the verb is durable.
    pub const fn wake(&mut self, wakes: Wakes) {
        self.wakes |= wakes;
    }

    /// Whom it wakes.
    pub const fn wakes(&self) -> Wakes {
        self.wakes
    }

    /// Notes that it changes rows from here on.
    pub(super) fn begins_to_write(&self) {
        self.has_written.set(true);
    }

    /// To be called by a verb before it writes anything, with all sequences that it writes rows of: see
    /// [`Link::in_order`]. All verbs take them in the same order, and before they hold any row, so that no two ever wait for
    /// each other. What is reserved already may be named again.
    pub(super) fn reserve(&self, sequences: impl IntoIterator<Item = Sequence>) -> Result<(), Error> {
        let wanted = sequences.into_iter().fold(0, |bits, sequence| bits | sequence.bit());
        for sequence in Sequence::FOLLOWED {
            let reserved = self.reserved.get();
            if wanted & !reserved & sequence.bit() != 0 {
                debug_assert!(!self.has_written.get(), "{sequence:?} is reserved after something was written");
                debug_assert!(reserved < sequence.bit(), "{sequence:?} is reserved out of its turn");
                self.link.in_order(sequence)?;
                self.reserved.set(reserved | sequence.bit());
            }
        }
        Ok(())
    }

    /// The connection.
    pub const fn link(&self) -> Link<'c> {
        self.link
    }
}

/// What a walk over rows does next.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    GoOn,
    Stop,
}

/// Whether a statement is worth keeping prepared.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Statement {
    /// It is one of the store's own.
    Kept,
    /// It was made for one query.
    Once,
}

/// Rows of which each gets its number when it is written, and is read in the order of the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sequence {
    /// Keys of hubs.
    Hubs,
    /// Keys of provisioning services.
    Services,
    /// Changes of twins.
    TwinChanges,
    /// Changes of identities.
    IdentityChanges,
    /// What hubs tell of by themselves.
    Events,
}

impl Sequence {
    /// Those whose rows are read in the order of their numbers, in the order in which verbs take them.
    const FOLLOWED: [Self; 3] = [Self::TwinChanges, Self::IdentityChanges, Self::Events];

    /// Its bit in a set of sequences.
    const fn bit(self) -> u8 {
        1 << self as u8
    }

    pub(super) const fn table(self) -> &'static str {
        match self {
            Self::Hubs => "hub",
            Self::Services => "service",
            Self::TwinChanges => "twin_change",
            Self::IdentityChanges => "identity_change",
            Self::Events => "hub_event",
        }
    }
}

#[cfg(test)]
impl<'c> Link<'c> {
    /// SQLite's own connection.
    pub fn sqlite(self) -> &'c rusqlite::Connection {
        match self {
            Self::Sqlite(connection) => connection,
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => panic!("it is one to PostgreSQL"),
        }
    }
}

impl Link<'_> {
    /// Runs a statement that changes rows; how many it changed.
    pub(super) fn change(self, sql: &str, parameters: &impl Parameters) -> Result<usize, Error> {
        parameters.with(|values| match self {
            Self::Sqlite(connection) => {
                Ok(connection.prepare_cached(sql)?.execute(rusqlite::params_from_iter(values))?)
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(session) => session.change(sql, values),
        })
    }

    /// Walks over the rows of a statement. `visit` asks the database nothing.
    pub(super) fn visit(
        self,
        (sql, statement): (&str, Statement),
        parameters: &impl Parameters,
        visit: impl FnMut(&Row<'_>) -> Result<Flow, Error>,
    ) -> Result<(), Error> {
        parameters.with(|values| match self {
            Self::Sqlite(connection) => {
                let values = rusqlite::params_from_iter(values);
                match statement {
                    Statement::Kept => walk(connection.prepare_cached(sql)?.query(values)?, visit),
                    Statement::Once => walk(connection.prepare(sql)?.query(values)?, visit),
                }
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(session) => session.visit((sql, statement == Statement::Kept), values, visit),
        })
    }

    /// Runs `query` on one snapshot.
    pub(super) fn snapshot<T>(self, query: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        match self {
            Self::Sqlite(connection) => crate::sqlite::snapshot(connection, |_| query()),
            #[cfg(feature = "postgres")]
            Self::Postgres(session) => session.snapshot(query),
        }
    }

    /// The next count for an etag, which nobody gets twice.
    pub(super) fn next_etag_count(self) -> Result<i64, Error> {
        let sql = match self {
            Self::Sqlite(_) => "UPDATE meta SET number = number + 1 WHERE name = 'etag' RETURNING number",
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => "SELECT nextval('etag_count')",
        };
        self.number(sql, &())
    }

    /// The number of the next row of a sequence whose rows need it before they are written.
    pub(super) fn next_number(self, sequence: Sequence) -> Result<i64, Error> {
        match self {
            Self::Sqlite(_) => Ok(self.last_number(sequence)? + 1),
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => self.number("SELECT nextval(pg_get_serial_sequence(?1, 'key'))", &[sequence.table()]),
        }
    }

    /// The highest number that a row of a sequence ever had; 0 if there was none.
    pub(super) fn last_number(self, sequence: Sequence) -> Result<i64, Error> {
        match self {
            Self::Sqlite(_) => {
                let mut last = 0;
                let sql = "SELECT seq FROM sqlite_sequence WHERE name = ?1";
                self.visit((sql, Statement::Kept), &[sequence.table()], |row| {
                    last = row.get(0)?;
                    Ok(Flow::Stop)
                })?;
                Ok(last)
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(session) => session.snapshot(|| {
                // Who writes a row keeps the others from theirs: what has a number then is there to be read.
                self.in_order(sequence)?;
                let sql = "SELECT coalesce(pg_sequence_last_value(pg_get_serial_sequence(?1, 'sequence')), 0)";
                self.number(sql, &[sequence.table()])
            }),
        }
    }

    /// Keeps other verbs from a sequence that readers follow until this one has ended: the rows of all verbs get their
    /// numbers in the order in which they can be read (`rules.md` 12). Verbs call [`Write::reserve`].
    #[cfg_attr(not(feature = "postgres"), expect(clippy::unnecessary_wraps, reason = "with PostgreSQL it can fail"))]
    fn in_order(self, sequence: Sequence) -> Result<(), Error> {
        match self {
            // There is one writer.
            Self::Sqlite(_) => {
                let _ = sequence;
                Ok(())
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => {
                let sql = "SELECT 1 FROM (SELECT pg_advisory_xact_lock(hashtext(?1))) locked";
                self.number(sql, &[sequence.table()]).map(drop)
            }
        }
    }

    /// Whether it is to SQLite, whose functions look into documents and texts as the query language does.
    pub(super) const fn is_sqlite(self) -> bool {
        matches!(self, Self::Sqlite(_))
    }

    pub(super) fn number(self, sql: &str, parameters: &impl Parameters) -> Result<i64, Error> {
        let mut number = None;
        self.visit((sql, Statement::Kept), parameters, |row| {
            number = Some(row.get(0)?);
            Ok(Flow::Stop)
        })?;
        number.ok_or_else(|| Error::backend("a number of the store", MissingNumber))
    }
}

fn walk(mut rows: rusqlite::Rows<'_>, mut visit: impl FnMut(&Row<'_>) -> Result<Flow, Error>) -> Result<(), Error> {
    while let Some(row) = rows.next()? {
        if visit(&Row::Sqlite(row))? == Flow::Stop {
            break;
        }
    }
    Ok(())
}

/// A number that every store has is not there.
#[derive(Debug, thiserror::Error)]
#[error("it is not there")]
struct MissingNumber;
