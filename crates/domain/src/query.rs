//! The query language of hubs (`contract/hub-service.md 6`): its text, the plan that is made of it, and the evaluator
//! that says what a plan means.
//!
//! A text is read once, within bounds, into a [`Plan`]; stores compile plans to whatever finds rows quickly and are held
//! to [`Plan::matches`], row by row. Nothing here reads a row or knows a store. The names in it are those of the language:
//! a query addresses the document that the answer shows ([`document`]). Start at [`parse`].
//!
//! Conditions alone are written for messages as well, by those who route them ([`parse_condition`], [`message`]): the same
//! language over another document.
//!
//! A condition has three values. What is not there, or not of the type that is asked for, is undefined, and so is what is
//! made of it; only what is exactly true selects a row.

mod aggregate;
pub mod document;
mod evaluate;
mod function;
pub mod leaf;
mod lexer;
pub mod message;
mod parser;
mod path;
mod print;
mod value;

pub use aggregate::{Aggregate, GROUPS_MAX, Groups, TooManyGroups};
pub use evaluate::Outcome;
pub use function::Function;
pub use parser::{parse, parse_condition, parse_target};
pub use path::{Path, Root};
pub use value::{Constant, Number};

use crate::clock::UnixTime;

/// Most bytes of a query's text.
pub const TEXT_BYTES_MAX: usize = 8 * 1_024;
/// Most expressions inside each other.
pub const DEPTH_MAX: usize = 32;
/// Most paths, constants, operators, calls and columns of a query together.
pub const TERMS_MAX: usize = 256;

/// A query that was understood.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What is looked through.
    pub collection: Collection,
    /// Most rows of the whole answer, over all of its pages.
    pub top: Option<u64>,
    /// What is answered of each row, or of each group.
    pub select: Select,
    /// What a row must fulfil.
    pub condition: Option<Expression>,
}

/// What a query looks through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Collection {
    /// Twins of devices.
    Devices,
    /// Twins of modules.
    Modules,
    /// What became of jobs, device by device.
    Jobs,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Select {
    /// The whole document.
    Whole,
    /// Some of its values.
    Columns(Vec<Column>),
    /// One row for each group of documents with equal values of `keys`; without keys, one row for all.
    Groups {
        /// By what.
        keys: Vec<Path>,
        /// What is said of each group.
        columns: Vec<GroupColumn>,
    },
}

/// A value of a document under a name.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// The name in the answer.
    pub name: String,
    /// Which value.
    pub path: Path,
}

/// Something said of a group under a name.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupColumn {
    /// The name in the answer.
    pub name: String,
    /// What.
    pub value: GroupValue,
}

/// What is said of a group.
#[derive(Clone, Debug, PartialEq)]
pub enum GroupValue {
    /// The key at this place among the keys.
    Key(usize),
    /// Something counted or computed over the documents.
    Aggregate(Aggregate),
}

impl GroupValue {
    /// What is aggregated.
    const fn path(&self) -> Option<&Path> {
        match self {
            Self::Key(_) => None,
            Self::Aggregate(aggregate) => aggregate.path(),
        }
    }
}

/// An expression of a condition. Whatever held constants alone was computed when the text was read.
#[derive(Clone, Debug, PartialEq)]
pub enum Expression {
    /// A value of the text.
    Constant(Constant),
    /// A value of the document.
    Path(Path),
    /// `NOT`.
    Not(Box<Self>),
    /// `AND`, of two or more.
    All(Vec<Self>),
    /// `OR`, of two or more.
    Any(Vec<Self>),
    /// A comparison of two primitive values.
    Compare(Comparison, Box<Self>, Box<Self>),
    /// A comparison of one of the document's moments with a constant.
    Moment(Comparison, Path, UnixTime),
    /// `IN`: whether a primitive value is one of these.
    In(Box<Self>, Vec<Constant>),
    /// Arithmetic.
    Compute(Operator, Box<Self>, Box<Self>),
    /// A sign changed.
    Negative(Box<Self>),
    /// A call.
    Call(Function, Vec<Self>),
}

/// How two values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `=`
    Equal,
    /// `!=` and `<>`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    AtMost,
    /// `>`
    Greater,
    /// `>=`
    AtLeast,
}

impl Comparison {
    /// The comparison that is true where this one is false, and undefined where this one is.
    pub const fn negated(self) -> Self {
        match self {
            Self::Equal => Self::NotEqual,
            Self::NotEqual => Self::Equal,
            Self::Less => Self::AtLeast,
            Self::AtMost => Self::Greater,
            Self::Greater => Self::AtMost,
            Self::AtLeast => Self::Less,
        }
    }

    /// The comparison that says the same with the sides exchanged.
    pub const fn mirrored(self) -> Self {
        match self {
            Self::Equal | Self::NotEqual => self,
            Self::Less => Self::Greater,
            Self::AtMost => Self::AtLeast,
            Self::Greater => Self::Less,
            Self::AtLeast => Self::AtMost,
        }
    }

    /// As it is written.
    pub const fn symbol(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::AtMost => "<=",
            Self::Greater => ">",
            Self::AtLeast => ">=",
        }
    }
}

/// What is computed of two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `+`
    Plus,
    /// `-`
    Minus,
    /// `*`
    Times,
    /// `/`
    Divide,
    /// `%`
    Remainder,
}

impl Plan {
    /// The text that `root` must equal for a row to be selected; `None` if the condition does not say it so plainly.
    pub fn required_text(&self, root: &Root) -> Option<&str> {
        let parts = match &self.condition {
            Some(Expression::All(parts)) => parts.as_slice(),
            Some(one) => std::slice::from_ref(one),
            None => &[],
        };
        parts.iter().find_map(|part| {
            let Expression::Compare(Comparison::Equal, left, right) = part else { return None };
            match (&**left, &**right) {
                (Expression::Path(path), Expression::Constant(Constant::Text(text)))
                | (Expression::Constant(Constant::Text(text)), Expression::Path(path))
                    if path.root == *root && path.rest.is_empty() =>
                {
                    Some(&**text)
                }
                _ => None,
            }
        })
    }

    /// Calls `visit` with every path of the plan.
    pub fn visit_paths(&self, visit: &mut impl FnMut(&Path)) {
        if let Some(condition) = &self.condition {
            condition.visit_paths(visit);
        }
        self.visit_selected(visit);
    }

    /// Calls `visit` with every path whose value is answered or grouped by.
    pub fn visit_selected(&self, visit: &mut impl FnMut(&Path)) {
        match &self.select {
            Select::Whole => {}
            Select::Columns(columns) => columns.iter().for_each(|column| visit(&column.path)),
            Select::Groups { keys, columns } => {
                keys.iter().for_each(&mut *visit);
                columns.iter().filter_map(|column| column.value.path()).for_each(visit);
            }
        }
    }
}

impl Expression {
    /// Calls `visit` with every path of the expression.
    pub fn visit_paths(&self, visit: &mut impl FnMut(&Path)) {
        match self {
            Self::Constant(_) => {}
            Self::Path(path) | Self::Moment(_, path, _) => visit(path),
            Self::Not(inner) | Self::Negative(inner) | Self::In(inner, _) => inner.visit_paths(visit),
            Self::All(parts) | Self::Any(parts) | Self::Call(_, parts) => {
                for part in parts {
                    part.visit_paths(visit);
                }
            }
            Self::Compare(_, left, right) | Self::Compute(_, left, right) => {
                left.visit_paths(visit);
                right.visit_paths(visit);
            }
        }
    }
}

/// Why a text is not a query, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at character {at}: {fault}")]
pub struct InvalidQuery {
    /// The character at which it was noticed, from 1.
    pub at: usize,
    /// What.
    pub fault: Fault,
}

/// What is wrong with a text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The text is too long.
    #[error("the query has more than {TEXT_BYTES_MAX} bytes")]
    TooLong,
    /// There are too many expressions inside each other.
    #[error("more than {DEPTH_MAX} expressions stand inside each other")]
    TooDeep,
    /// There are too many terms.
    #[error("the query has more than {TERMS_MAX} terms")]
    TooManyTerms,
    /// Something else should stand here.
    #[error("expected {wanted}, found {found}")]
    Expected {
        /// What should.
        wanted: &'static str,
        /// What does; cut if it is long.
        found: String,
    },
    /// A character that begins nothing.
    #[error("{found:?} begins nothing that the language knows")]
    Character {
        /// Which.
        found: char,
    },
    /// A text or a bracketed name without an end.
    #[error("{what} is not closed")]
    Unclosed {
        /// Which of them.
        what: &'static str,
    },
    /// A backslash with something behind it that means nothing.
    #[error("expected one of \\' \\\" \\\\ \\/ \\b \\f \\n \\r \\t \\uXXXX")]
    Escape,
    /// A system property that messages do not have.
    #[error("{name} is not a system property of messages")]
    UnknownProperty {
        /// What it was called; cut if it is long.
        name: String,
    },
    /// Digits that are no number.
    #[error("this is not a number")]
    Number,
    /// There is no such function.
    #[error("{name} is not a function of the language")]
    UnknownFunction {
        /// What it was called; cut if it is long.
        name: String,
    },
    /// A function has too few or too many arguments.
    #[error("{name} takes {wanted}")]
    Arguments {
        /// Which function.
        name: &'static str,
        /// What it takes.
        wanted: &'static str,
    },
    /// A column that is neither grouped by nor aggregated.
    #[error("{path} is neither in GROUP BY nor inside an aggregate")]
    NotGrouped {
        /// The column; cut if it is long.
        path: String,
    },
    /// Two columns have one name.
    #[error("two columns are called {name}: give one of them another name with AS")]
    NameRepeated {
        /// The name; cut if it is long.
        name: String,
    },
    /// Of jobs only whole documents can be selected.
    #[error("from devices.jobs only SELECT * is possible")]
    JobColumns,
    /// What became of jobs is no target of others.
    #[error("jobs and configurations are for devices and devices.modules")]
    JobTarget,
}

#[cfg(test)]
mod tests;
