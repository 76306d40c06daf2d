//! What a plan means, row by row. Stores are held to this.

use serde_json::{Map, Value};

use super::document::parse_moment;
use super::value::{Known, Number};
use super::{Column, Comparison, Constant, Expression, Operator, Path, Plan};

/// What a row contributes to an answer that is not grouped.
pub type Outcome = Map<String, Value>;

impl Plan {
    /// Whether the document fulfils the condition: whether that is exactly true.
    pub fn matches(&self, document: &Map<String, Value>) -> bool {
        self.condition.as_ref().is_none_or(|condition| condition.is_true(document))
    }

    /// The columns of a document. A value that is not there leaves no member.
    pub fn project(columns: &[Column], document: &Map<String, Value>) -> Outcome {
        let member = |column: &Column| Some((column.name.clone(), column.path.find(document)?.clone()));
        columns.iter().filter_map(member).collect()
    }
}

impl Expression {
    /// Whether the value of the expression is exactly true.
    pub fn is_true(&self, document: &Map<String, Value>) -> bool {
        self.truth(document) == Some(true)
    }

    /// What the expression is worth as a condition; `None` is undefined.
    pub fn truth(&self, document: &Map<String, Value>) -> Option<bool> {
        self.value(document).truth()
    }

    pub(super) fn value<'v>(&'v self, document: &'v Map<String, Value>) -> Known<'v> {
        match self {
            Self::Constant(constant) => Known::of_constant(constant),
            Self::Path(path) => Known::of_json(path.find(document)),
            Self::Not(inner) => Known::of_truth(inner.value(document).truth().map(|truth| !truth)),
            Self::All(parts) => Known::of_truth(settle(parts, document, false)),
            Self::Any(parts) => Known::of_truth(settle(parts, document, true)),
            Self::Compare(comparison, left, right) => {
                Known::of_truth(compare(*comparison, &left.value(document), &right.value(document)))
            }
            Self::Moment(comparison, path, at) => {
                let found = find_moment(path, document);
                Known::of_truth(found.map(|found| comparison.holds(found.cmp(at))))
            }
            Self::In(operand, list) => {
                let operand = operand.value(document);
                let equals = |constant| compare(Comparison::Equal, &operand, &Known::of_constant(constant));
                let is_in = || list.iter().any(|constant| equals(constant) == Some(true));
                Known::of_truth(operand.is_primitive().then(is_in))
            }
            Self::Compute(operator, left, right) => match (left.value(document), right.value(document)) {
                (Known::Number(left), Known::Number(right)) => {
                    operator.compute(left, right).map_or(Known::Undefined, Known::Number)
                }
                _ => Known::Undefined,
            },
            Self::Negative(inner) => match inner.value(document) {
                Known::Number(number) => Known::Number(negative(number)),
                _ => Known::Undefined,
            },
            Self::Call(function, arguments) => {
                let arguments: Vec<Known<'v>> = arguments.iter().map(|argument| argument.value(document)).collect();
                function.call(&arguments)
            }
        }
    }
}

fn find_moment(path: &Path, document: &Map<String, Value>) -> Option<crate::clock::UnixTime> {
    parse_moment(path.find(document)?.as_str()?)
}

/// `deciding` if one part is that; the other truth if all parts are; otherwise undefined.
fn settle(parts: &[Expression], document: &Map<String, Value>, deciding: bool) -> Option<bool> {
    let mut settled = Some(!deciding);
    for part in parts {
        match part.value(document).truth() {
            Some(truth) if truth == deciding => return Some(deciding),
            Some(_) => {}
            None => settled = None,
        }
    }
    settled
}

/// Compares primitive values; anything else is undefined. Values of different types are not equal and have no order, and
/// neither have truths and null.
fn compare(comparison: Comparison, left: &Known<'_>, right: &Known<'_>) -> Option<bool> {
    use Comparison::{Equal, NotEqual};

    if !left.is_primitive() || !right.is_primitive() {
        return None;
    }
    match (left, right) {
        (Known::Number(left), Known::Number(right)) => Some(comparison.holds(left.cmp(right))),
        (Known::Text(left), Known::Text(right)) => Some(comparison.holds(left.cmp(right))),
        _ => match comparison {
            Equal => Some(left == right),
            NotEqual => Some(left != right),
            _ => None,
        },
    }
}

impl Comparison {
    /// Whether two values that stand in this order fulfil the comparison.
    pub(super) const fn holds(self, order: std::cmp::Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::NotEqual => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::AtMost => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::AtLeast => order.is_ge(),
        }
    }
}

impl Operator {
    /// The result; `None` for a division by zero and for what is no number. Integers stay integers where they can.
    fn compute(self, left: Number, right: Number) -> Option<Number> {
        if let (Number::Integer(left), Number::Integer(right)) = (left, right) {
            let exact = match self {
                Self::Plus => left.checked_add(right),
                Self::Minus => left.checked_sub(right),
                Self::Times => left.checked_mul(right),
                Self::Divide => left.checked_rem(right).filter(|rest| *rest == 0).and_then(|_| left.checked_div(right)),
                Self::Remainder => left.checked_rem(right),
            };
            if let Some(exact) = exact {
                return Some(Number::Integer(exact));
            }
        }
        let (left, right) = (left.real(), right.real());
        match self {
            Self::Plus => Number::from_real(left + right),
            Self::Minus => Number::from_real(left - right),
            Self::Times => Number::from_real(left * right),
            Self::Divide | Self::Remainder if right == 0.0 => None,
            Self::Divide => Number::from_real(left / right),
            Self::Remainder => Number::from_real(left % right),
        }
    }
}

fn negative(number: Number) -> Number {
    match number {
        Number::Integer(integer) => integer.checked_neg().map_or(Number::Real(-number.real()), Number::Integer),
        Number::Real(real) => Number::Real(-real),
    }
}

/// The constant that an expression of constants amounts to; `None` if it is none.
pub(super) fn fold(expression: &Expression) -> Option<Constant> {
    expression.value(&Map::new()).to_constant()
}
