//! Makes SQL of a plan's condition: SQL that is true for every row that fulfils the condition.
//!
//! What SQL decides as the language does, it decides; anything else is left out of the SQL and to the evaluator, which
//! then looks at each row that is left ([`Filter::is_exact`]). The traps are SQLite's: `json_extract` gives 1 for `true`,
//! and text for arrays and objects, so that each comparison also asks for the type. No value of a query stands in the SQL:
//! all are bound.
//!
//! Negation is carried down to the comparisons, where it is known what "undefined" is: what is made here need only tell
//! true from the rest.

use domain::clock::UnixTime;
use domain::query::{Comparison, Constant, Expression, Function, Number, Path, Root};

use super::super::Db;
use super::super::value::Value;

/// A condition as SQL over the tables `i` (identity), `t` (twin) and `s` (session).
#[derive(Debug)]
pub(super) struct Filter {
    /// True for every row that fulfils the condition; `None` says nothing of any row.
    pub sql: Option<String>,
    /// Whether it is true for no other row.
    pub is_exact: bool,
    /// Whether it needs the table `t`.
    pub needs_twin: bool,
    /// Whether it needs the table `s`.
    pub needs_session: bool,
}

/// Values to be bound, and the names they have in SQL.
#[derive(Debug, Default)]
pub(super) struct Bound(pub Vec<Value<'static>>);

impl Bound {
    /// Binds a value; gives the name by which SQL refers to it.
    pub fn bind(&mut self, value: impl Into<Value<'static>>) -> String {
        self.0.push(value.into());
        format!("?{}", self.0.len())
    }
}

/// Makes SQL of `condition` for the database that `db` reads from.
pub(super) fn compile(condition: Option<&Expression>, db: Db<'_>, bound: &mut Bound) -> Filter {
    let (run, is_sqlite) = (db.context.run, db.link.is_sqlite());
    let mut compiler = Compiler { bound, run, is_sqlite, is_exact: true, needs_twin: false, needs_session: false };
    let sql = condition.and_then(|condition| {
        let sql = compiler.truth(condition, false);
        compiler.is_exact &= sql.is_some();
        sql
    });
    let Compiler { is_exact, needs_twin, needs_session, .. } = compiler;
    Filter { sql, is_exact, needs_twin, needs_session }
}

struct Compiler<'b> {
    bound: &'b mut Bound,
    run: i64,
    /// Elsewhere, what lies in documents and within texts is left to the evaluator.
    is_sqlite: bool,
    is_exact: bool,
    needs_twin: bool,
    needs_session: bool,
}

/// Where a value of the document lies.
enum Source {
    /// In a JSON document: the column, and the name of the bound path.
    Json(&'static str, String),
    /// A text; SQL's NULL is undefined.
    Text(String),
    /// 1 or 0; SQL's NULL is undefined.
    Truth(&'static str),
}

const NEVER: i64 = UnixTime::NEVER.micros();

impl Compiler<'_> {
    /// SQL that is true where the expression is exactly true, or exactly false if it is to be negated; `None` if SQL
    /// cannot tell.
    fn truth(&mut self, expression: &Expression, negated: bool) -> Option<String> {
        match expression {
            Expression::Constant(constant) => Some(sql_bool(*constant == Constant::Bool(!negated))),
            Expression::Path(path) => self.compare(path, Comparison::Equal, &Constant::Bool(!negated)),
            Expression::Not(inner) => self.truth(inner, !negated),
            Expression::All(parts) if !negated => self.all(parts, negated),
            Expression::Any(parts) if negated => self.all(parts, negated),
            Expression::All(parts) | Expression::Any(parts) => {
                let parts: Option<Vec<String>> = parts.iter().map(|part| self.truth(part, negated)).collect();
                Some(format!("({})", parts?.join(" OR ")))
            }
            Expression::Compare(comparison, left, right) => {
                let comparison = if negated { comparison.negated() } else { *comparison };
                match (&**left, &**right) {
                    (Expression::Path(path), Expression::Constant(constant)) => {
                        self.compare(path, comparison, constant)
                    }
                    (Expression::Constant(constant), Expression::Path(path)) => {
                        self.compare(path, comparison.mirrored(), constant)
                    }
                    (Expression::Path(left), Expression::Path(right)) => self.compare_paths(left, comparison, right),
                    _ => None,
                }
            }
            Expression::Moment(comparison, path, at) => {
                let comparison = if negated { comparison.negated() } else { *comparison };
                self.moment(path, comparison, *at)
            }
            Expression::In(operand, list) => match &**operand {
                Expression::Path(path) => self.membership(path, list, negated),
                _ => None,
            },
            Expression::Call(function, arguments) => self.call(*function, arguments, negated),
            Expression::Compute(..) | Expression::Negative(_) => None,
        }
    }

    /// All parts that SQL can tell; the others are left to the evaluator, since without them no row is lost.
    fn all(&mut self, parts: &[Expression], negated: bool) -> Option<String> {
        let told: Vec<String> = parts.iter().filter_map(|part| self.truth(part, negated)).collect();
        self.is_exact &= told.len() == parts.len();
        (!told.is_empty()).then(|| format!("({})", told.join(" AND ")))
    }

    fn source(&mut self, path: &Path) -> Option<Source> {
        if let (Root::Capabilities, [name]) = (&path.root, path.rest.as_slice())
            && &**name == "iotEdge"
        {
            if !self.is_sqlite {
                return None;
            }
            let sql = "CASE i.module WHEN '' THEN json_extract(i.record, '$.capabilities.iot_edge') END";
            return Some(Source::Truth(sql));
        }
        let column = match &path.root {
            Root::Tags => "t.tags",
            Root::Desired => "t.desired",
            Root::Reported => "t.reported",
            _ if !path.rest.is_empty() => return None,
            Root::DeviceId => return Some(Source::Text("i.device".to_owned())),
            Root::ModuleId => return Some(Source::Text("nullif(i.module, '')".to_owned())),
            Root::Status => {
                return Some(Source::Text("CASE i.enabled WHEN 1 THEN 'enabled' ELSE 'disabled' END".to_owned()));
            }
            Root::ConnectionState => {
                self.needs_session = true;
                let run = self.bound.bind(self.run);
                let sql = format!("CASE WHEN s.connected_run = {run} THEN 'Connected' ELSE 'Disconnected' END");
                return Some(Source::Text(sql));
            }
            Root::ModelId => {
                self.needs_session = true;
                return Some(Source::Text("coalesce(s.model_id, '')".to_owned()));
            }
            _ => return None,
        };
        if !self.is_sqlite {
            return None;
        }
        let json_path = json_path(path)?;
        self.needs_twin = true;
        Some(Source::Json(column, self.bound.bind(json_path)))
    }

    fn compare(&mut self, path: &Path, comparison: Comparison, constant: &Constant) -> Option<String> {
        if let Constant::Undefined | Constant::Array(_) = constant {
            return Some(sql_bool(false));
        }
        // SQLite ends some texts at their first zero.
        if matches!(constant, Constant::Text(text) if text.contains('\0')) {
            return None;
        }
        Some(match self.source(path)? {
            Source::Json(column, place) => self.compare_json(column, &place, comparison, constant),
            Source::Text(sql) => match constant {
                Constant::Text(text) => {
                    format!("{sql} {} {}", comparison.symbol(), self.bound.bind(text.to_string()))
                }
                _ => of_another_type(&sql, comparison),
            },
            Source::Truth(sql) => match (constant, comparison) {
                (Constant::Bool(truth), Comparison::Equal | Comparison::NotEqual) => {
                    format!("{sql} {} {}", comparison.symbol(), i32::from(*truth))
                }
                _ => of_another_type(sql, comparison),
            },
        })
    }

    fn compare_json(&mut self, column: &str, place: &str, comparison: Comparison, constant: &Constant) -> String {
        let (kind, value) = (json_type(column, place), json_value(column, place));
        let (kinds, bound) = match constant {
            Constant::Text(text) => ("('text')", self.bound.bind(text.to_string())),
            Constant::Number(number) => (NUMBERS, self.bind_number(*number)),
            // Truths and null are types of their own, and have no order.
            Constant::Bool(_) | Constant::Null | Constant::Undefined | Constant::Array(_) => {
                let name = match constant {
                    Constant::Bool(truth) => truth.to_string(),
                    _ => "null".to_owned(),
                };
                return match comparison {
                    Comparison::Equal => format!("{kind} = '{name}'"),
                    Comparison::NotEqual => format!("({kind} IN {PRIMITIVES} AND {kind} != '{name}')"),
                    _ => sql_bool(false),
                };
            }
        };
        match comparison {
            Comparison::NotEqual => {
                format!("CASE WHEN {kind} IN {kinds} THEN {value} != {bound} ELSE {kind} IN {PRIMITIVES} END")
            }
            other => format!("({value} {} {bound} AND {kind} IN {kinds})", other.symbol()),
        }
    }

    fn compare_paths(&mut self, left: &Path, comparison: Comparison, right: &Path) -> Option<String> {
        let (Source::Json(column, place), Source::Json(other_column, other_place)) =
            (self.source(left)?, self.source(right)?)
        else {
            return None;
        };
        let (kind, value) = (json_type(column, &place), json_value(column, &place));
        let (other_kind, other_value) = (json_type(other_column, &other_place), json_value(other_column, &other_place));
        let symbol = equal_or(comparison);
        let both = format!(
            "({value} {symbol} {other_value} AND ({kind} = 'text' AND {other_kind} = 'text' \
             OR {kind} IN {NUMBERS} AND {other_kind} IN {NUMBERS}))"
        );
        let same = format!("({both} OR {kind} = {other_kind} AND {kind} IN ('true', 'false', 'null'))");
        Some(match comparison {
            Comparison::Equal => same,
            Comparison::NotEqual => {
                format!("({kind} IN {PRIMITIVES} AND {other_kind} IN {PRIMITIVES} AND NOT coalesce({same}, 0))")
            }
            _ => both,
        })
    }

    fn moment(&mut self, path: &Path, comparison: Comparison, at: UnixTime) -> Option<String> {
        let sql = match path.root {
            Root::LastActivityTime => {
                self.needs_session = true;
                format!("coalesce(s.last_activity_at, {NEVER})")
            }
            Root::StatusUpdateTime if self.is_sqlite => "json_extract(i.record, '$.status_updated_at')".to_owned(),
            _ => return None,
        };
        Some(format!("{sql} {} {}", comparison.symbol(), self.bound.bind(at.micros())))
    }

    fn membership(&mut self, path: &Path, list: &[Constant], negated: bool) -> Option<String> {
        let comparison = if negated { Comparison::NotEqual } else { Comparison::Equal };
        let parts = list.iter().filter(|constant| !matches!(constant, Constant::Undefined | Constant::Array(_)));
        let parts: Option<Vec<String>> = parts.map(|constant| self.compare(path, comparison, constant)).collect();
        match (parts?.as_slice(), negated) {
            // Nothing is in it; whether a value is not in it still asks for a primitive value.
            ([], false) => Some(sql_bool(false)),
            ([], true) => match self.source(path)? {
                Source::Json(column, place) => Some(format!("{} IN {PRIMITIVES}", json_type(column, &place))),
                Source::Text(sql) => Some(format!("{sql} IS NOT NULL")),
                Source::Truth(sql) => Some(format!("{sql} IS NOT NULL")),
            },
            (parts, false) => Some(format!("({})", parts.join(" OR "))),
            (parts, true) => Some(format!("({})", parts.join(" AND "))),
        }
    }

    fn call(&mut self, function: Function, arguments: &[Expression], negated: bool) -> Option<String> {
        let (Some(Expression::Path(path)), rest) = (arguments.first(), arguments.get(1..).unwrap_or_default()) else {
            return None;
        };
        let kinds = match function {
            Function::IsDefined => "",
            Function::IsNull => "('null')",
            Function::IsBool => "('true', 'false')",
            Function::IsNumber => NUMBERS,
            Function::IsString => "('text')",
            Function::IsArray => "('array')",
            Function::IsObject => "('object')",
            Function::IsPrimitive => PRIMITIVES,
            Function::StartsWith | Function::EndsWith | Function::Contains => {
                let [Expression::Constant(Constant::Text(piece))] = rest else { return None };
                return self.call_on_text(function, path, piece, negated);
            }
            _ => return None,
        };
        let is = if negated { "NOT " } else { "" };
        match self.source(path)? {
            Source::Json(column, place) if kinds.is_empty() => {
                Some(format!("{is}({} IS NOT NULL)", json_type(column, &place)))
            }
            Source::Json(column, place) => Some(format!("{is}coalesce({} IN {kinds}, 0)", json_type(column, &place))),
            Source::Text(_) | Source::Truth(_) => None,
        }
    }

    fn call_on_text(&mut self, function: Function, path: &Path, piece: &str, negated: bool) -> Option<String> {
        if piece.contains('\0') || !self.is_sqlite {
            return None;
        }
        let (value, is_text) = match self.source(path)? {
            Source::Json(column, place) => {
                (json_value(column, &place), format!(" AND {} = 'text'", json_type(column, &place)))
            }
            Source::Text(sql) => (sql, String::new()),
            Source::Truth(_) => return Some(sql_bool(false)),
        };
        let (characters, bytes) = (piece.chars().count(), piece.len());
        let piece = self.bound.bind(piece.to_owned());
        let fits = match function {
            Function::StartsWith => format!("substr({value}, 1, {characters}) = {piece}"),
            Function::EndsWith if characters == 0 => format!("length({value}) >= 0"),
            // Bytes and not characters, whose end SQLite looks for behind the first zero. A text that ends with the bytes
            // of another ends with its characters.
            Function::EndsWith => format!("substr(CAST({value} AS BLOB), -{bytes}) = CAST({piece} AS BLOB)"),
            _ => format!("instr({value}, {piece}) > 0"),
        };
        let is = if negated { "NOT " } else { "" };
        Some(format!("({is}({fits}){is_text})"))
    }

    fn bind_number(&mut self, number: Number) -> String {
        match number {
            Number::Integer(integer) => self.bound.bind(integer),
            Number::Real(real) => self.bound.bind(real),
        }
    }
}

/// What `json_type` says of numbers.
const NUMBERS: &str = "('integer', 'real')";
/// What it says of values that can be compared.
const PRIMITIVES: &str = "('text', 'integer', 'real', 'true', 'false', 'null')";

fn json_type(column: &str, place: &str) -> String {
    format!("json_type({column}, {place})")
}

fn json_value(column: &str, place: &str) -> String {
    format!("json_extract({column}, {place})")
}

fn sql_bool(truth: bool) -> String {
    if truth { "(1 = 1)" } else { "(1 = 0)" }.to_owned()
}

/// The comparison of which another is the opposite, or the comparison itself.
const fn equal_or(comparison: Comparison) -> &'static str {
    match comparison {
        Comparison::NotEqual => Comparison::Equal.symbol(),
        other => other.symbol(),
    }
}

/// A value compared with a constant of another type: not equal, and without an order.
fn of_another_type(sql: &str, comparison: Comparison) -> String {
    match comparison {
        Comparison::NotEqual => format!("{sql} IS NOT NULL"),
        _ => sql_bool(false),
    }
}

/// The path of a value in SQLite's spelling; `None` for names that it cannot spell, and for what is not in the document
/// as it is kept.
fn json_path(path: &Path) -> Option<String> {
    let is_spelled =
        |name: &str| !name.contains(|character: char| matches!(character, '"' | '\\') || character.is_control());
    if path.rest.first().is_some_and(|first| first.starts_with('$')) || !path.rest.iter().all(|name| is_spelled(name)) {
        return None;
    }
    let names = path.rest.iter().flat_map(|name| [".\"", name, "\""]);
    Some(std::iter::once("$").chain(names).collect())
}
