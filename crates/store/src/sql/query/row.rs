//! What of a row is read: no more than a query looks at.

use domain::query::document::{connection_state, of_twin};
use domain::query::{Path, Plan, Root};
use serde_json::{Map, Value};

use super::super::rows::{Column, from_json};
use super::super::value::Row;
use super::super::{Db, identity, twin};
use crate::error::Error;

/// Parts of a document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lens {
    pub tags: bool,
    pub desired: bool,
    pub reported: bool,
    /// Names and the status, which lie in columns of their own.
    pub names: bool,
    /// Whether it is connected.
    pub connection: bool,
    /// Everything; then nothing of the above is asked.
    pub whole: bool,
}

/// A document, or the parts of it that were asked for.
#[derive(Debug)]
pub(super) struct Document(Map<String, Value>);

impl Document {
    pub const fn members(&self) -> &Map<String, Value> {
        &self.0
    }
}

/// Rows of a piece of which SQL alone decides: some milliseconds of work.
const ROWS_MAX: i64 = 4_096;
/// Rows of a piece that are looked at one by one.
const DOCUMENTS_MAX: i64 = 1_024;
/// Rows of a piece that are read whole.
const WHOLE_MAX: i64 = 256;

/// The document of a row that is read whole; `None` if it is gone.
pub(super) fn whole(db: Db<'_>, id: i64) -> Result<Option<Document>, Error> {
    let (identity, twin) = (identity::find_by_id(db, id)?, twin::find(db, id)?);
    Ok(identity.zip(twin).map(|(identity, twin)| Document(of_twin(&twin, &identity))))
}

impl Lens {
    /// Nothing but the number of the row.
    pub const NOTHING: Self =
        Self { tags: false, desired: false, reported: false, names: false, connection: false, whole: false };

    /// What the answer needs.
    pub fn selected(plan: &Plan) -> Self {
        let mut lens = Self::NOTHING;
        plan.visit_selected(&mut |path| lens.add(path));
        lens
    }

    /// This, and what the condition needs.
    pub fn with_condition(mut self, plan: &Plan) -> Self {
        if let Some(condition) = &plan.condition {
            condition.visit_paths(&mut |path| self.add(path));
        }
        self
    }

    fn add(&mut self, path: &Path) {
        // Versions and metadata are kept beside the properties.
        let is_beside = path.rest.first().is_none_or(|first| first.starts_with('$'));
        match path.root {
            Root::Tags => self.tags = true,
            Root::Desired if !is_beside => self.desired = true,
            Root::Reported if !is_beside => self.reported = true,
            Root::DeviceId | Root::ModuleId | Root::Status => self.names = true,
            Root::ConnectionState => self.connection = true,
            _ => self.whole = true,
        }
    }

    /// Whether it shows anything of the table `t`.
    pub const fn needs_twin(self) -> bool {
        !self.whole && (self.tags || self.desired || self.reported)
    }

    /// Whether it shows anything of the table `s`.
    pub const fn needs_session(self) -> bool {
        !self.whole && self.connection
    }

    const fn shows_nothing(self) -> bool {
        !(self.whole || self.names || self.connection || self.needs_twin())
    }

    /// How many rows are looked through in one piece.
    pub const fn rows_max(self) -> i64 {
        if self.whole {
            WHOLE_MAX
        } else if self.shows_nothing() {
            ROWS_MAX
        } else {
            DOCUMENTS_MAX
        }
    }

    /// The columns that [`Self::document`] reads, the number of the row first.
    pub fn columns(self) -> String {
        if self.whole || self.shows_nothing() {
            return "i.id".to_owned();
        }
        let shown = |is_shown, column| if is_shown { column } else { "NULL" };
        let names = ["i.device", "i.module", "i.enabled"].map(|column| shown(self.names, column)).join(", ");
        let connection = shown(self.connection, "s.connected_run");
        let (tags, desired) = (shown(self.tags, "t.tags"), shown(self.desired, "t.desired"));
        format!("i.id, {names}, {connection}, {tags}, {desired}, {}", shown(self.reported, "t.reported"))
    }

    /// The document of a row that is not read whole.
    pub fn document(self, db: Db<'_>, id: i64, row: &Row<'_>) -> Result<Document, Error> {
        let mut members = Map::new();
        if self.shows_nothing() {
            return Ok(Document(members));
        }
        if self.names {
            members.insert(Root::DeviceId.name().to_owned(), row.get::<String>(1)?.into());
            let module: String = row.get(2)?;
            if !module.is_empty() {
                members.insert(Root::ModuleId.name().to_owned(), module.into());
            }
            let status = if row.get(3)? { "enabled" } else { "disabled" };
            members.insert(Root::Status.name().to_owned(), status.into());
        }
        if self.connection {
            let is_connected = row.get::<Option<i64>>(4)? == Some(db.context.run);
            members.insert(Root::ConnectionState.name().to_owned(), connection_state(is_connected).into());
        }
        let read = |column: usize, name| {
            let text = row.text(column)?;
            text.map(|text| from_json::<Value>(text, Column { table: "twin", column: name }, id)).transpose()
        };
        members.extend(read(5, "tags")?.map(|tags| (Root::Tags.name().to_owned(), tags)));
        if self.desired || self.reported {
            let parts = [("desired", read(6, "desired")?), ("reported", read(7, "reported")?)];
            let parts = parts.into_iter().filter_map(|(name, part)| Some((name.to_owned(), part?)));
            members.insert(Root::Properties.name().to_owned(), Value::Object(parts.collect()));
        }
        Ok(Document(members))
    }
}
