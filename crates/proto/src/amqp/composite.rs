//! Composite types: lists whose fields have names, types and defaults (part 1, section 1.4).
//!
//! Every field is written, up to the last, null or not: Python's decoder finds fields by their place and fails where
//! trailing nulls are trimmed (`contract/eventhub-endpoint.md` 3.1). What is read may end early, or go on with nulls.

use bytes::Bytes;

use super::decode::{Fault, Fields, Malformed, Reader};
use super::encode;
use super::text::{Symbol, Text};
use super::value::{Map, Value};

/// A type that is written as a described list.
pub(super) trait Composite: Sized {
    /// The descriptor.
    const CODE: u64;
    /// What it is called in an error.
    const NAME: &'static str;

    /// Reads the list, its descriptor being read.
    fn read_list(reader: &mut Reader<'_>) -> Result<Self, Malformed>;

    /// Appends descriptor and list.
    fn write(&self, out: &mut Vec<u8>);
}

/// A type of one value, never null.
pub(super) trait Scalar: Sized {
    fn read(reader: &mut Reader<'_>, code: u8) -> Result<Self, Malformed>;
    fn write(&self, out: &mut Vec<u8>);
}

/// What a field holds: a scalar that must be there, or one that may be absent, or many.
pub(super) trait Field: Sized {
    /// What a null or missing field means; `None` if it must not be.
    fn absent() -> Option<Self>;
    fn read(reader: &mut Reader<'_>, code: u8) -> Result<Self, Malformed>;
    fn write(&self, out: &mut Vec<u8>);
}

impl<T: Scalar> Field for T {
    fn absent() -> Option<Self> {
        None
    }

    fn read(reader: &mut Reader<'_>, code: u8) -> Result<Self, Malformed> {
        Scalar::read(reader, code)
    }

    fn write(&self, out: &mut Vec<u8>) {
        Scalar::write(self, out);
    }
}

impl<T: Scalar> Field for Option<T> {
    fn absent() -> Option<Self> {
        Some(None)
    }

    fn read(reader: &mut Reader<'_>, code: u8) -> Result<Self, Malformed> {
        T::read(reader, code).map(Some)
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Some(value) => value.write(out),
            None => encode::null(out),
        }
    }
}

impl Field for Vec<Symbol> {
    fn absent() -> Option<Self> {
        Some(Self::new())
    }

    fn read(reader: &mut Reader<'_>, code: u8) -> Result<Self, Malformed> {
        reader.symbols(code)
    }

    fn write(&self, out: &mut Vec<u8>) {
        encode::symbols(self, out);
    }
}

/// A map that is empty is written as null.
impl Field for Map {
    fn absent() -> Option<Self> {
        Some(Self::EMPTY)
    }

    fn read(reader: &mut Reader<'_>, code: u8) -> Result<Self, Malformed> {
        reader.map(code)
    }

    fn write(&self, out: &mut Vec<u8>) {
        if self.is_empty() { encode::null(out) } else { encode::map(self, out) }
    }
}

impl<T: Scalar> Scalar for Box<T> {
    fn read(reader: &mut Reader<'_>, code: u8) -> Result<Self, Malformed> {
        T::read(reader, code).map(Self::new)
    }

    fn write(&self, out: &mut Vec<u8>) {
        (**self).write(out);
    }
}

macro_rules! scalars {
    ($($type:ty, $read:ident, |$value:ident, $out:ident| $write:expr;)*) => {
        $(impl Scalar for $type {
            fn read(reader: &mut Reader<'_>, code: u8) -> Result<Self, Malformed> {
                reader.$read(code)
            }

            fn write(&self, $out: &mut Vec<u8>) {
                let $value = self;
                $write
            }
        })*
    };
}

scalars! {
    bool, boolean, |value, out| encode::boolean(*value, out);
    u8, ubyte, |value, out| encode::fixed(0x50, &[*value], out);
    u16, ushort, |value, out| encode::fixed(0x60, &value.to_be_bytes(), out);
    u32, uint, |value, out| encode::uint(*value, out);
    u64, ulong, |value, out| encode::ulong(*value, out);
    i64, timestamp, |value, out| encode::fixed(0x83, &value.to_be_bytes(), out);
    Bytes, binary, |value, out| encode::binary(value, out);
    Text, text, |value, out| encode::text(value, out);
    Symbol, symbol, |value, out| encode::symbol(value, out);
    Value, value_of, |value, out| encode::value(value, out);
}

impl Fields<'_, '_> {
    /// The next field.
    pub(super) fn field<T: Field>(&mut self, name: &'static str) -> Result<T, Malformed> {
        match self.next()? {
            Some(code) => T::read(self.reader, code),
            None => T::absent().ok_or_else(|| self.reader.malformed(Fault::Missing(name))),
        }
    }

    /// The next field, or its default.
    pub(super) fn field_or<T: Scalar>(&mut self, default: T) -> Result<T, Malformed> {
        match self.next()? {
            Some(code) => T::read(self.reader, code),
            None => Ok(default),
        }
    }
}

/// Reads a composite type whose place in a list begins with `code`.
pub(super) fn read_composite<T: Composite>(reader: &mut Reader<'_>, code: u8) -> Result<T, Malformed> {
    if code != 0x00 {
        return Err(reader.wrong_type(T::NAME, code));
    }
    let offset = reader.offset();
    if reader.descriptor()? == Some(T::CODE) {
        return T::read_list(reader);
    }
    Err(Malformed { offset, fault: Fault::Descriptor { expected: T::NAME } })
}

/// Defines a composite type: a structure with public fields, read and written in the order they stand.
///
/// `field: Type` is a [`Field`]; `field: Type = default` is a scalar that is `default` when it is absent.
macro_rules! composite {
    (
        $(#[$meta:meta])*
        $name:ident = $code:path {
            $($(#[$field_meta:meta])* $field:ident: $type:ty $(= $default:expr)?,)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $type,)*
        }

        impl $crate::amqp::composite::Composite for $name {
            const CODE: u64 = $code;
            const NAME: &'static str = stringify!($name);

            fn read_list(
                reader: &mut $crate::amqp::decode::Reader<'_>,
            ) -> Result<Self, $crate::amqp::decode::Malformed> {
                reader.fields(|fields| {
                    Ok(Self { $($field: composite!(@read fields $field $($default)?),)* })
                })
            }

            fn write(&self, out: &mut Vec<u8>) {
                const FIELDS: usize = [$(stringify!($field)),*].len();
                $crate::amqp::encode::descriptor($code, out);
                $crate::amqp::encode::compound(0xc0, FIELDS, out, |out| {
                    $($crate::amqp::composite::Field::write(&self.$field, out);)*
                });
            }
        }

        impl $crate::amqp::composite::Scalar for $name {
            fn read(
                reader: &mut $crate::amqp::decode::Reader<'_>,
                code: u8,
            ) -> Result<Self, $crate::amqp::decode::Malformed> {
                $crate::amqp::composite::read_composite(reader, code)
            }

            fn write(&self, out: &mut Vec<u8>) {
                $crate::amqp::composite::Composite::write(self, out);
            }
        }
    };
    (@read $fields:ident $field:ident) => { $fields.field(stringify!($field))? };
    (@read $fields:ident $field:ident $default:expr) => { $fields.field_or($default)? };
}

/// Defines a type of a few choices, each a number in one byte.
macro_rules! choices {
    (
        $(#[$meta:meta])*
        $name:ident { $($(#[$choice_meta:meta])* $choice:ident = $number:literal,)* }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$choice_meta])* $choice = $number,)*
        }

        impl $crate::amqp::composite::Scalar for $name {
            fn read(
                reader: &mut $crate::amqp::decode::Reader<'_>,
                code: u8,
            ) -> Result<Self, $crate::amqp::decode::Malformed> {
                match reader.ubyte(code)? {
                    $($number => Ok(Self::$choice),)*
                    value => {
                        let expected = stringify!($name);
                        Err(reader.malformed($crate::amqp::decode::Fault::Choice { expected, value }))
                    }
                }
            }

            fn write(&self, out: &mut Vec<u8>) {
                $crate::amqp::composite::Scalar::write(&(*self as u8), out);
            }
        }
    };
}

pub(super) use {choices, composite};
