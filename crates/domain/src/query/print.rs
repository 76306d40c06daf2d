//! Writes plans as the language does, each expression in brackets: reading the text again gives the same plan.

use std::fmt::{self, Write as _};

use super::{Collection, Constant, Expression, GroupColumn, GroupValue, Number, Operator, Path, Plan, Select};

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SELECT ")?;
        if let Some(top) = self.top {
            write!(f, "TOP {top} ")?;
        }
        let mut keys: &[Path] = &[];
        match &self.select {
            Select::Whole => f.write_str("*")?,
            Select::Columns(columns) => {
                list(f, columns, |f, column| {
                    write!(f, "{}", column.path)?;
                    rename(f, column.path.last_name(), &column.name)
                })?;
            }
            Select::Groups { keys: by, columns } => {
                keys = by;
                list(f, columns, |f, column| write_group_column(f, by, column))?;
            }
        }
        f.write_str(match self.collection {
            Collection::Devices => " FROM devices",
            Collection::Modules => " FROM devices.modules",
            Collection::Jobs => " FROM devices.jobs",
        })?;
        if let Some(condition) = &self.condition {
            write!(f, " WHERE {condition}")?;
        }
        if !keys.is_empty() {
            f.write_str(" GROUP BY ")?;
            list(f, keys, |f, key| write!(f, "{key}"))?;
        }
        Ok(())
    }
}

fn write_group_column(f: &mut fmt::Formatter<'_>, keys: &[Path], column: &GroupColumn) -> fmt::Result {
    match &column.value {
        GroupValue::Key(key) => {
            let Some(key) = keys.get(*key) else { return Ok(()) };
            write!(f, "{key}")?;
            rename(f, key.last_name(), &column.name)
        }
        GroupValue::Aggregate(aggregate) => {
            write!(f, "{}(", aggregate.name())?;
            aggregate.path().map_or(Ok(()), |path| write!(f, "{path}"))?;
            write!(f, ") AS {}", column.name)
        }
    }
}

/// The name of a column that is not called as it would be without one.
fn rename(f: &mut fmt::Formatter<'_>, unnamed: &str, name: &str) -> fmt::Result {
    if name == unnamed { Ok(()) } else { write!(f, " AS {name}") }
}

fn list<T>(
    f: &mut fmt::Formatter<'_>,
    items: &[T],
    mut write: impl FnMut(&mut fmt::Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    joined(f, items, ", ", &mut write)
}

fn joined<T>(
    f: &mut fmt::Formatter<'_>,
    items: &[T],
    between: &str,
    write: &mut impl FnMut(&mut fmt::Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    for (place, item) in items.iter().enumerate() {
        if place > 0 {
            f.write_str(between)?;
        }
        write(f, item)?;
    }
    Ok(())
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut each = |f: &mut fmt::Formatter<'_>, part: &Self| write!(f, "{part}");
        match self {
            Self::Constant(constant) => write!(f, "{constant}"),
            Self::Path(path) => write!(f, "{path}"),
            Self::Not(inner) => write!(f, "(NOT {inner})"),
            Self::All(parts) | Self::Any(parts) => {
                let between = if matches!(self, Self::All(_)) { " AND " } else { " OR " };
                f.write_char('(')?;
                joined(f, parts, between, &mut each)?;
                f.write_char(')')
            }
            Self::Compare(comparison, left, right) => write!(f, "({left} {} {right})", comparison.symbol()),
            Self::Moment(comparison, path, at) => {
                write!(f, "({path} {} '{}')", comparison.symbol(), super::document::moment(*at))
            }
            Self::In(operand, constants) => write!(f, "({operand} IN {})", Array(constants)),
            Self::Compute(operator, left, right) => {
                let symbol = match operator {
                    Operator::Plus => "+",
                    Operator::Minus => "-",
                    Operator::Times => "*",
                    Operator::Divide => "/",
                    Operator::Remainder => "%",
                };
                write!(f, "({left} {symbol} {right})")
            }
            Self::Negative(inner) => write!(f, "(-{inner})"),
            Self::Call(function, arguments) => {
                write!(f, "{}(", function.name())?;
                joined(f, arguments, ", ", &mut each)?;
                f.write_char(')')
            }
        }
    }
}

struct Array<'c>(&'c [Constant]);

impl fmt::Display for Array<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('[')?;
        list(f, self.0, |f, constant| write!(f, "{constant}"))?;
        f.write_char(']')
    }
}

impl fmt::Display for Constant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Undefined => f.write_str("undefined"),
            Self::Null => f.write_str("null"),
            Self::Bool(truth) => write!(f, "{truth}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => write!(f, "{}", serde_json::Value::from(&**text)),
            Self::Array(items) => write!(f, "{}", Array(items)),
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(integer) => write!(f, "{integer}"),
            Self::Real(real) if real.is_infinite() => f.write_str(if *real > 0.0 { "1e999" } else { "-1e999" }),
            Self::Real(real) => write!(f, "{real:?}"),
        }
    }
}
