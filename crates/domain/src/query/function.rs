//! The functions that conditions can call.
//!
//! The language of conditions documents `IS_DEFINED` alone; the others are documented for routing conditions and taken
//! here as well (`contract/hub-service.md 6.1`). A function of a value that is not of its type is undefined.

use std::borrow::Cow;

use super::value::{Known, Number};

/// Most bytes of a text that a function makes.
const TEXT_BYTES_MAX: usize = 64 * 1_024;

/// A function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// Whether the value is there, be it null.
    IsDefined,
    /// Whether it is null.
    IsNull,
    /// Whether it is true or false.
    IsBool,
    /// Whether it is a number.
    IsNumber,
    /// Whether it is a text.
    IsString,
    /// Whether it is an array.
    IsArray,
    /// Whether it is an object.
    IsObject,
    /// Whether it is null, true, false, a number or a text.
    IsPrimitive,
    /// Whether a text begins with another.
    StartsWith,
    /// Whether a text ends with another.
    EndsWith,
    /// Whether a text contains another.
    Contains,
    /// How many characters a text has.
    Length,
    /// A text in small letters.
    Lower,
    /// A text in capital letters.
    Upper,
    /// A piece of a text: from a place, counted from 0, and so many characters or the rest.
    Substring,
    /// The place, counted from 0, where a text contains another; -1 if it does not.
    IndexOf,
    /// Texts one behind the other.
    Concat,
    /// The number that a text holds; a number itself.
    AsNumber,
    /// A number without its sign.
    Abs,
    /// The power of e.
    Exp,
    /// A number to the power of another.
    Power,
    /// A number times itself.
    Square,
    /// The smallest integer that is not below.
    Ceiling,
    /// The largest integer that is not above.
    Floor,
    /// -1, 0 or 1.
    Sign,
    /// The square root.
    Sqrt,
}

impl Function {
    /// All functions.
    pub const ALL: [Self; 26] = [
        Self::IsDefined,
        Self::IsNull,
        Self::IsBool,
        Self::IsNumber,
        Self::IsString,
        Self::IsArray,
        Self::IsObject,
        Self::IsPrimitive,
        Self::StartsWith,
        Self::EndsWith,
        Self::Contains,
        Self::Length,
        Self::Lower,
        Self::Upper,
        Self::Substring,
        Self::IndexOf,
        Self::Concat,
        Self::AsNumber,
        Self::Abs,
        Self::Exp,
        Self::Power,
        Self::Square,
        Self::Ceiling,
        Self::Floor,
        Self::Sign,
        Self::Sqrt,
    ];

    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::IsDefined => "IS_DEFINED",
            Self::IsNull => "IS_NULL",
            Self::IsBool => "IS_BOOL",
            Self::IsNumber => "IS_NUMBER",
            Self::IsString => "IS_STRING",
            Self::IsArray => "IS_ARRAY",
            Self::IsObject => "IS_OBJECT",
            Self::IsPrimitive => "IS_PRIMITIVE",
            Self::StartsWith => "STARTS_WITH",
            Self::EndsWith => "ENDS_WITH",
            Self::Contains => "CONTAINS",
            Self::Length => "LENGTH",
            Self::Lower => "LOWER",
            Self::Upper => "UPPER",
            Self::Substring => "SUBSTRING",
            Self::IndexOf => "INDEX_OF",
            Self::Concat => "CONCAT",
            Self::AsNumber => "AS_NUMBER",
            Self::Abs => "ABS",
            Self::Exp => "EXP",
            Self::Power => "POWER",
            Self::Square => "SQUARE",
            Self::Ceiling => "CEILING",
            Self::Floor => "FLOOR",
            Self::Sign => "SIGN",
            Self::Sqrt => "SQRT",
        }
    }

    /// The function of this name, in any letter case and also without its underscores.
    pub(super) fn find(name: &str) -> Option<Self> {
        let letters = |name: &str| name.replace('_', "").to_ascii_uppercase();
        let wanted = letters(name);
        Self::ALL.into_iter().find(|function| letters(function.name()) == wanted)
    }

    /// Fewest and most arguments, and both in words.
    pub(super) const fn arity(self) -> (usize, usize, &'static str) {
        match self {
            Self::StartsWith | Self::EndsWith | Self::Contains | Self::IndexOf | Self::Power => (2, 2, "two arguments"),
            Self::Substring => (2, 3, "two or three arguments"),
            Self::Concat => (2, usize::MAX, "two or more arguments"),
            Self::IsDefined
            | Self::IsNull
            | Self::IsBool
            | Self::IsNumber
            | Self::IsString
            | Self::IsArray
            | Self::IsObject
            | Self::IsPrimitive
            | Self::Length
            | Self::Lower
            | Self::Upper
            | Self::AsNumber
            | Self::Abs
            | Self::Exp
            | Self::Square
            | Self::Ceiling
            | Self::Floor
            | Self::Sign
            | Self::Sqrt => (1, 1, "one argument"),
        }
    }

    /// The value of a call. What tells types apart is defined for every value, all else for its type alone.
    pub(super) fn call<'v>(self, arguments: &[Known<'v>]) -> Known<'v> {
        let Some(first) = arguments.first() else { return Known::Undefined };
        match self {
            Self::IsDefined => Known::Bool(!matches!(first, Known::Undefined)),
            Self::IsNull => Known::Bool(matches!(first, Known::Null)),
            Self::IsBool => Known::Bool(matches!(first, Known::Bool(_))),
            Self::IsNumber => Known::Bool(matches!(first, Known::Number(_))),
            Self::IsString => Known::Bool(matches!(first, Known::Text(_))),
            Self::IsArray => Known::Bool(matches!(first, Known::Array)),
            Self::IsObject => Known::Bool(matches!(first, Known::Object)),
            Self::IsPrimitive => Known::Bool(first.is_primitive()),
            _ => self.call_typed(first, arguments).unwrap_or(Known::Undefined),
        }
    }

    fn call_typed<'v>(self, first: &Known<'v>, arguments: &[Known<'v>]) -> Option<Known<'v>> {
        match first {
            Known::Number(number) => self.call_on_number(*number, arguments),
            Known::Text(text) => self.call_on_text(text, arguments),
            _ => None,
        }
    }

    fn call_on_text<'v>(self, text: &Cow<'v, str>, arguments: &[Known<'v>]) -> Option<Known<'v>> {
        let other = || match arguments.get(1) {
            Some(Known::Text(other)) => Some(other.as_ref()),
            _ => None,
        };
        let made = |text: String| (text.len() <= TEXT_BYTES_MAX).then_some(Known::Text(Cow::Owned(text)));
        match self {
            Self::StartsWith => Some(Known::Bool(text.starts_with(other()?))),
            Self::EndsWith => Some(Known::Bool(text.ends_with(other()?))),
            Self::Contains => Some(Known::Bool(text.contains(other()?))),
            Self::IndexOf => {
                let characters = |end: usize| text.get(..end).map_or(0, |before| before.chars().count() as i64);
                Some(integer(text.find(other()?).map_or(-1, characters)))
            }
            Self::Length => Some(integer(text.chars().count() as i64)),
            Self::Lower => made(text.to_lowercase()),
            Self::Upper => made(text.to_uppercase()),
            Self::Substring => {
                let count = |place: usize| match arguments.get(place) {
                    Some(Known::Number(Number::Integer(count))) => usize::try_from(*count).ok(),
                    _ => None,
                };
                let length = if arguments.len() > 2 { count(2)? } else { usize::MAX };
                made(text.chars().skip(count(1)?).take(length).collect())
            }
            Self::Concat => concat(arguments).and_then(made),
            Self::AsNumber => is_decimal(text).then(|| Known::Number(Number::from_text(text))),
            _ => None,
        }
    }

    fn call_on_number<'v>(self, number: Number, arguments: &[Known<'v>]) -> Option<Known<'v>> {
        let real = number.real();
        let made = |real: f64| Number::from_real(real).map(Known::Number);
        match (self, number) {
            (Self::AsNumber, _) => Some(Known::Number(number)),
            (Self::Abs, Number::Integer(value)) if value > i64::MIN => Some(integer(value.abs())),
            (Self::Abs, _) => made(real.abs()),
            (Self::Ceiling | Self::Floor, Number::Integer(_)) => Some(Known::Number(number)),
            (Self::Ceiling, Number::Real(_)) => made(real.ceil()),
            (Self::Floor, Number::Real(_)) => made(real.floor()),
            (Self::Sign, _) => Some(integer(match number.cmp(&Number::Integer(0)) {
                std::cmp::Ordering::Less => -1,
                std::cmp::Ordering::Equal => 0,
                std::cmp::Ordering::Greater => 1,
            })),
            (Self::Exp, _) => made(real.exp()),
            (Self::Sqrt, _) => made(real.sqrt()),
            (Self::Square, Number::Integer(value)) => {
                value.checked_mul(value).map(integer).or_else(|| made(real * real))
            }
            (Self::Square, Number::Real(_)) => made(real * real),
            (Self::Power, _) => match arguments.get(1) {
                Some(Known::Number(exponent)) => made(real.powf(exponent.real())),
                _ => None,
            },
            _ => None,
        }
    }
}

const fn integer<'v>(value: i64) -> Known<'v> {
    Known::Number(Number::Integer(value))
}

/// The texts one behind the other; `None` if one of them is no text, or together they are too long.
fn concat(texts: &[Known<'_>]) -> Option<String> {
    let mut whole = String::new();
    for text in texts {
        let Known::Text(text) = text else { return None };
        if whole.len() + text.len() > TEXT_BYTES_MAX {
            return None;
        }
        whole.push_str(text);
    }
    Some(whole)
}

/// Whether a text is a number as JSON writes one, leading zeros and a plus sign allowed.
fn is_decimal(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E'))
        && text.parse::<f64>().is_ok()
}
