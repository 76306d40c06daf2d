//! Values of the language: constants of the text, values of documents, and numbers that compare exactly.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde_json::Value;

/// A value that stands in the text.
#[derive(Clone, Debug, PartialEq)]
pub enum Constant {
    /// `undefined`
    Undefined,
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number.
    Number(Number),
    /// A text.
    Text(Box<str>),
    /// An array of other constants.
    Array(Vec<Self>),
}

/// A number: an integer as long as it is one that fits, and otherwise the nearest double.
#[derive(Clone, Copy, Debug)]
pub enum Number {
    /// An integer.
    Integer(i64),
    /// Any other number; never NaN.
    Real(f64),
}

impl Number {
    /// Reads a number of a JSON document.
    pub fn from_json(number: &serde_json::Number) -> Self {
        Self::from_text(number.as_str())
    }

    /// Reads decimal digits with sign, fraction and exponent, as JSON has them.
    pub(super) fn from_text(text: &str) -> Self {
        match text.parse::<i64>() {
            Ok(integer) => Self::Integer(integer),
            Err(_) => Self::Real(text.parse().unwrap_or(0.0)),
        }
    }

    /// The number of a computation; `None` for one that is no number.
    pub(super) fn from_real(real: f64) -> Option<Self> {
        (!real.is_nan()).then_some(Self::Real(real))
    }

    /// The nearest double.
    pub const fn real(self) -> f64 {
        match self {
            Self::Integer(integer) => integer as f64,
            Self::Real(real) => real,
        }
    }

    /// The same number, as an integer if it is one that fits: equal numbers are alike then.
    pub(super) fn canonical(self) -> Self {
        match self {
            // Exactly the integer, so that the cast loses nothing.
            Self::Real(real) if self == Self::Integer(real as i64) => Self::Integer(real as i64),
            number => number,
        }
    }

    /// The number as JSON; `None` for one beyond the range of doubles.
    pub fn to_json(self) -> Option<serde_json::Number> {
        match self {
            Self::Integer(integer) => Some(integer.into()),
            Self::Real(real) => serde_json::Number::from_f64(real),
        }
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Number {}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// By value, exactly: an integer is not rounded to be compared with a double.
impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        match (*self, *other) {
            (Self::Integer(one), Self::Integer(two)) => one.cmp(&two),
            (Self::Real(one), Self::Real(two)) => one.partial_cmp(&two).unwrap_or(Ordering::Equal),
            (Self::Integer(one), Self::Real(two)) => compare_mixed(one, two),
            (Self::Real(one), Self::Integer(two)) => compare_mixed(two, one).reverse(),
        }
    }
}

fn compare_mixed(integer: i64, real: f64) -> Ordering {
    /// Two to the power of 63: the first double above every integer.
    const BEYOND: f64 = 9_223_372_036_854_775_808.0;

    if real >= BEYOND {
        Ordering::Less
    } else if real < -BEYOND {
        Ordering::Greater
    } else {
        let whole = real.trunc();
        integer.cmp(&(whole as i64)).then(if real > whole {
            Ordering::Less
        } else if real < whole {
            Ordering::Greater
        } else {
            Ordering::Equal
        })
    }
}

/// A value that an expression has. Arrays and objects can only be asked whether they are that.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Known<'v> {
    Undefined,
    Null,
    Bool(bool),
    Number(Number),
    Text(Cow<'v, str>),
    Array,
    Object,
}

impl<'v> Known<'v> {
    pub fn of_json(value: Option<&'v Value>) -> Self {
        match value {
            None => Self::Undefined,
            Some(Value::Null) => Self::Null,
            Some(Value::Bool(value)) => Self::Bool(*value),
            Some(Value::Number(number)) => Self::Number(Number::from_json(number)),
            Some(Value::String(text)) => Self::Text(Cow::Borrowed(text)),
            Some(Value::Array(_)) => Self::Array,
            Some(Value::Object(_)) => Self::Object,
        }
    }

    pub fn of_constant(constant: &'v Constant) -> Self {
        match constant {
            Constant::Undefined => Self::Undefined,
            Constant::Null => Self::Null,
            Constant::Bool(value) => Self::Bool(*value),
            Constant::Number(number) => Self::Number(*number),
            Constant::Text(text) => Self::Text(Cow::Borrowed(text)),
            Constant::Array(_) => Self::Array,
        }
    }

    /// The value of a logical expression; `None` is undefined.
    pub fn of_truth(truth: Option<bool>) -> Self {
        truth.map_or(Self::Undefined, Self::Bool)
    }

    /// What it is worth as a condition; `None` is undefined.
    pub const fn truth(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            _ => None,
        }
    }

    pub const fn is_primitive(&self) -> bool {
        matches!(self, Self::Null | Self::Bool(_) | Self::Number(_) | Self::Text(_))
    }

    /// The constant of the same value; `None` for arrays and objects.
    pub fn to_constant(&self) -> Option<Constant> {
        match self {
            Self::Undefined => Some(Constant::Undefined),
            Self::Null => Some(Constant::Null),
            Self::Bool(value) => Some(Constant::Bool(*value)),
            Self::Number(number) => Some(Constant::Number(*number)),
            Self::Text(text) => Some(Constant::Text(text.as_ref().into())),
            Self::Array | Self::Object => None,
        }
    }
}
