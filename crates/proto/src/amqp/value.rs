//! The type system: every primitive type, and values described by another (part 1, sections 1.1 to 1.6).

use bytes::Bytes;

use super::decode::{Malformed, Reader};
use super::encode;
use super::text::{Symbol, Text};

/// Any value that AMQP can carry. Strings and binaries share the memory of the frame they came in.
#[derive(Clone, Debug, PartialEq, Default)]
pub enum Value {
    /// Nothing.
    #[default]
    Null,
    /// True or false.
    Boolean(bool),
    /// 8 bits, unsigned.
    Ubyte(u8),
    /// 16 bits, unsigned.
    Ushort(u16),
    /// 32 bits, unsigned.
    Uint(u32),
    /// 64 bits, unsigned.
    Ulong(u64),
    /// 8 bits, signed.
    Byte(i8),
    /// 16 bits, signed.
    Short(i16),
    /// 32 bits, signed.
    Int(i32),
    /// 64 bits, signed.
    Long(i64),
    /// IEEE 754 binary32.
    Float(f32),
    /// IEEE 754 binary64.
    Double(f64),
    /// IEEE 754 decimal32, as it is on the wire.
    Decimal32([u8; 4]),
    /// IEEE 754 decimal64, as it is on the wire.
    Decimal64([u8; 8]),
    /// IEEE 754 decimal128, as it is on the wire.
    Decimal128([u8; 16]),
    /// A character.
    Char(char),
    /// Milliseconds since the start of 1970, UTC.
    Timestamp(i64),
    /// A UUID, in the order of its text.
    Uuid([u8; 16]),
    /// Bytes.
    Binary(Bytes),
    /// Characters.
    String(Text),
    /// A name from a small set.
    Symbol(Symbol),
    /// Values of any types.
    List(Vec<Value>),
    /// Values by values.
    Map(Map),
    /// Values of one type.
    Array(Array),
    /// A value with a descriptor that says what it means.
    Described(Box<Described>),
}

/// A value and what it means (part 1, section 1.2).
#[derive(Clone, Debug, PartialEq)]
pub struct Described {
    /// Usually a ulong or a symbol.
    pub descriptor: Value,
    /// What is described.
    pub value: Value,
}

/// Values by values, in the order they were written (part 1, section 1.6.23). A key may occur twice: the standard
/// forbids it, but then the first is found.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Map(pub Vec<(Value, Value)>);

impl Map {
    /// A map without entries.
    pub const EMPTY: Self = Self(Vec::new());

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of a key that is a symbol or a string: clients write either (`contract/hub-device.md` 4.8).
    pub fn find(&self, key: &str) -> Option<&Value> {
        let is_key = |candidate: &Value| match candidate {
            Value::Symbol(symbol) => *symbol == key,
            Value::String(text) => *text == key,
            _ => false,
        };
        self.0.iter().find(|(candidate, _)| is_key(candidate)).map(|(_, value)| value)
    }

    /// Appends an entry.
    pub fn push(&mut self, key: impl Into<Value>, value: impl Into<Value>) {
        self.0.push((key.into(), value.into()));
    }
}

impl<K: Into<Value>, V: Into<Value>> FromIterator<(K, V)> for Map {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        Self(entries.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }
}

/// Values that all have one type and, if they are described, one descriptor (part 1, section 1.6.24).
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Array(Vec<Value>);

/// The values of an array are of more than one type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an array holds values of one type")]
pub struct MixedArray;

impl Array {
    /// Checks that the values are of one type.
    pub fn new(values: Vec<Value>) -> Result<Self, MixedArray> {
        match values.split_first() {
            Some((first, rest)) if !rest.iter().all(|value| is_same_type(first, value)) => Err(MixedArray),
            _ => Ok(Self(values)),
        }
    }

    /// The values.
    pub fn values(&self) -> &[Value] {
        &self.0
    }

    /// For values that were read with one constructor.
    pub(super) const fn of_one_constructor(values: Vec<Value>) -> Self {
        Self(values)
    }
}

impl From<Vec<Symbol>> for Array {
    fn from(symbols: Vec<Symbol>) -> Self {
        Self(symbols.into_iter().map(Value::Symbol).collect())
    }
}

fn is_same_type(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Described(one), Value::Described(other)) => {
            one.descriptor == other.descriptor && is_same_type(&one.value, &other.value)
        }
        _ => std::mem::discriminant(one) == std::mem::discriminant(other),
    }
}

impl Value {
    /// Reads one value that fills `bytes`.
    pub fn decode(bytes: &Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let value = reader.value()?;
        reader.finish()?;
        Ok(value)
    }

    /// Appends the value to `output`, in the shortest form its type has.
    pub fn encode(&self, output: &mut Vec<u8>) {
        encode::value(self, output);
    }

    /// The text of a string or a symbol.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            Self::Symbol(symbol) => Some(symbol),
            _ => None,
        }
    }

    /// Whether there is no value.
    pub const fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// The number in any of the integer types, if an `i64` can hold it.
    pub fn as_i64(&self) -> Option<i64> {
        match *self {
            Self::Ubyte(number) => Some(number.into()),
            Self::Ushort(number) => Some(number.into()),
            Self::Uint(number) => Some(number.into()),
            Self::Ulong(number) => number.try_into().ok(),
            Self::Byte(number) => Some(number.into()),
            Self::Short(number) => Some(number.into()),
            Self::Int(number) => Some(number.into()),
            Self::Long(number) => Some(number),
            _ => None,
        }
    }
}

macro_rules! becomes_value {
    ($($type:ty => $variant:ident),* $(,)?) => {
        $(impl From<$type> for Value {
            fn from(value: $type) -> Self {
                Self::$variant(value)
            }
        })*
    };
}

becomes_value! {
    bool => Boolean,
    u8 => Ubyte,
    u16 => Ushort,
    u32 => Uint,
    u64 => Ulong,
    i8 => Byte,
    i16 => Short,
    i32 => Int,
    i64 => Long,
    f32 => Float,
    f64 => Double,
    char => Char,
    Bytes => Binary,
    Text => String,
    Symbol => Symbol,
    Vec<Value> => List,
    Map => Map,
    Array => Array,
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::String(text.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_searched_by_symbols_and_strings_and_gives_the_first() {
        let mut map = Map::default();
        map.push(Symbol::from_static("operation"), "GET");
        map.push("status", 200);
        map.push("status", 404);
        map.push(7u8, "seven");
        assert_eq!(map.find("operation"), Some(&Value::from("GET")));
        assert_eq!(map.find("status"), Some(&Value::Int(200)));
        assert_eq!(map.find("7"), None);
    }

    #[test]
    fn an_array_holds_one_type() {
        let described = |descriptor: u64| {
            Value::Described(Box::new(Described { descriptor: Value::Ulong(descriptor), value: Value::Null }))
        };
        assert!(Array::new(vec![]).is_ok());
        assert!(Array::new(vec![1i32.into(), 2i32.into()]).is_ok());
        assert!(Array::new(vec![described(1), described(1)]).is_ok());
        assert_eq!(Array::new(vec![1i32.into(), 2i64.into()]), Err(MixedArray));
        assert_eq!(Array::new(vec![described(1), described(2)]), Err(MixedArray));
    }

    #[test]
    fn integers_of_every_type_are_numbers() {
        for (value, number) in [
            (Value::Ubyte(200), Some(200)),
            (Value::Int(-2), Some(-2)),
            (Value::Ulong(u64::MAX), None),
            (Value::Null, None),
            (Value::from("1"), None),
        ] {
            assert_eq!(value.as_i64(), number, "{value:?}");
        }
    }
}
