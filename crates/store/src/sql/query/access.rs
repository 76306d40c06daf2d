//! By which way the rows of a query are found: by device IDs, by the index of tags, or by looking at all.

use domain::query::{Collection, Comparison, Constant, Expression, Path, Plan, Root, leaf};

use super::super::Db;
use super::super::link::{Flow, Link, Statement};
use super::Search;
use super::condition::{Bound, Filter};
use super::row::Lens;
use crate::error::Error;

/// A way to the rows. It leads to all that fulfil the condition.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// The devices of these IDs, and their modules.
    Devices(Vec<String>),
    /// The twins with one of these values at this place of their tags.
    Tag { path: String, values: Vec<String> },
    /// All.
    All,
}

/// Rows looked at in one go: those behind a number, up to another.
#[derive(Debug)]
pub(super) struct Piece {
    /// The last number.
    pub upto: i64,
    /// Where the next piece begins; `None` behind the last.
    pub next: Option<i64>,
}

/// Values of a list that an index is asked for.
const VALUES_MAX: usize = 64;

impl Access {
    /// The way to take for a plan. A device ID leads to the fewest rows, and a single value of a tag to fewer than a list.
    pub fn choose(plan: &Plan) -> Self {
        let condition = plan.condition.as_ref();
        let parts = match condition {
            Some(Expression::All(parts)) => parts.as_slice(),
            Some(one) => std::slice::from_ref(one),
            None => &[],
        };
        let ways = parts.iter().filter_map(wanted_values).filter_map(|(path, values)| Self::by_values(path, values));
        let rank = |way: &Self| match way {
            Self::Devices(_) => 0,
            Self::Tag { values, .. } => values.len(),
            Self::All => usize::MAX,
        };
        ways.min_by_key(rank).unwrap_or(Self::All)
    }

    fn by_values(path: &Path, values: &[Constant]) -> Option<Self> {
        if values.is_empty() || values.len() > VALUES_MAX {
            return None;
        }
        if path.root == Root::DeviceId && path.rest.is_empty() {
            let text = |constant: &Constant| match constant {
                Constant::Text(text) if !text.contains('\0') => Some(text.to_string()),
                _ => None,
            };
            return values.iter().map(text).collect::<Option<_>>().map(Self::Devices);
        }
        let values: Option<Vec<String>> = values.iter().map(leaf::of_constant).collect();
        Some(Self::Tag { path: leaf::of_path(path)?, values: values? })
    }

    /// The next piece; `None` if there are no rows left.
    pub fn piece(&self, db: Db<'_>, search: &Search<'_>, rows_max: i64) -> Result<Option<Piece>, Error> {
        match self {
            Self::Devices(_) => Ok(Some(Piece { upto: i64::MAX, next: None })),
            Self::All => {
                let last: Option<i64> = db.row("SELECT max(id) FROM identity", (), |row| row.get(0))?.flatten();
                let upto = search.after.saturating_add(rows_max);
                Ok(last
                    .filter(|last| *last > search.after)
                    .map(|last| Piece { upto, next: (upto < last).then_some(upto) }))
            }
            Self::Tag { path, values } => {
                let mut bound = Bound::default();
                let rows = tag_rows(&mut bound, search, path, values);
                let limit = bound.bind(rows_max);
                let sql = format!(
                    "SELECT max(identity), count(*) FROM (SELECT identity {rows} ORDER BY identity LIMIT {limit}) piece"
                );
                let mut found = (None, 0);
                db.visit((&sql, Statement::Once), bound.0, |row| {
                    found = (row.get::<Option<i64>>(0)?, row.get::<i64>(1)?);
                    Ok(Flow::Stop)
                })?;
                Ok(match found {
                    (Some(upto), count) => Some(Piece { upto, next: (count == rows_max).then_some(upto) }),
                    (None, _) => None,
                })
            }
        }
    }

    /// The statement that reads a piece.
    pub fn sql(
        &self,
        db: Db<'_>,
        bound: &mut Bound,
        (search, piece): (&Search<'_>, &Piece),
        (filter, lens): (&Filter, Lens),
    ) -> String {
        let (after, upto) = (bound.bind(search.after), bound.bind(piece.upto));
        let hub = bound.bind(search.hub.0);
        let needs_twin = filter.needs_twin || lens.needs_twin();
        let Joining { join, by_number } = Joining::of(db.link);
        let (tables, range, order) = match self {
            Self::All if filter.needs_twin => (
                format!("twin t {join} identity i{by_number} ON i.id = t.identity"),
                format!("t.identity > {after} AND t.identity <= {upto}"),
                "t.identity",
            ),
            Self::All => {
                let range = format!("i.id > {after} AND i.id <= {upto}");
                (with_twin(&format!("identity i{by_number}"), join, needs_twin), range, "i.id")
            }
            Self::Devices(devices) => {
                let devices: Vec<String> = devices.iter().map(|device| bound.bind(device.clone())).collect();
                let range = format!("i.device IN ({}) AND +i.id > {after} AND +i.id <= {upto}", devices.join(", "));
                (with_twin("identity i", join, needs_twin), range, "+i.id")
            }
            Self::Tag { path, values } => {
                let rows = tag_rows(bound, search, path, values);
                let tables = format!("(SELECT identity {rows}) x {join} identity i{by_number} ON i.id = x.identity");
                (with_twin(&tables, join, needs_twin), format!("x.identity <= {upto}"), "x.identity")
            }
        };
        let session =
            if filter.needs_session || lens.needs_session() { " LEFT JOIN session s ON s.identity = i.id" } else { "" };
        let modules = match search.plan.collection {
            Collection::Modules => ">",
            Collection::Devices | Collection::Jobs => "=",
        };
        let condition = filter.sql.as_ref().map_or_else(String::new, |sql| format!(" AND {sql}"));
        format!(
            "SELECT {} FROM {tables}{session} WHERE {range} AND i.hub = {hub} AND i.module {modules} ''{condition} \
             AND EXISTS (SELECT 1 FROM hub WHERE key = {hub}) ORDER BY {order}",
            lens.columns()
        )
    }
}

/// How tables are joined so that the database keeps to the way that was chosen.
struct Joining {
    join: &'static str,
    by_number: &'static str,
}

impl Joining {
    const fn of(link: Link<'_>) -> Self {
        match link {
            // CROSS JOIN keeps the order of tables: rows are passed over by what the first table says of them before the
            // others are looked at. NOT INDEXED leaves the row numbers as the one way into a table.
            Link::Sqlite(_) => Self { join: "CROSS JOIN", by_number: " NOT INDEXED" },
            #[cfg(feature = "postgres")]
            Link::Postgres(_) => Self { join: "JOIN", by_number: "" },
        }
    }
}

fn with_twin(tables: &str, join: &str, needs_twin: bool) -> String {
    if needs_twin { format!("{tables} {join} twin t ON t.identity = i.id") } else { tables.to_owned() }
}

/// The rows of the index behind the place where the search stands.
fn tag_rows(bound: &mut Bound, search: &Search<'_>, path: &str, values: &[String]) -> String {
    let (hub, path) = (bound.bind(search.hub.0), bound.bind(path.to_owned()));
    let after = bound.bind(search.after);
    let values: Vec<String> = values.iter().map(|value| bound.bind(value.clone())).collect();
    let values = values.join(", ");
    format!("FROM twin_tag WHERE hub = {hub} AND path = {path} AND value IN ({values}) AND identity > {after}")
}

/// The values of which a path must have one for the condition to be true, if it is of that kind.
fn wanted_values(part: &Expression) -> Option<(&Path, &[Constant])> {
    match part {
        Expression::Compare(Comparison::Equal, left, right) => match (&**left, &**right) {
            (Expression::Path(path), Expression::Constant(constant))
            | (Expression::Constant(constant), Expression::Path(path)) => Some((path, std::slice::from_ref(constant))),
            _ => None,
        },
        Expression::In(operand, list) => match &**operand {
            Expression::Path(path) => Some((path, list)),
            _ => None,
        },
        _ => None,
    }
}
