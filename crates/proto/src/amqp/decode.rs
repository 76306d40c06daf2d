//! Bytes to values, bounded in depth, in number and by the bytes that are there.
//!
//! Nothing is allocated for what is only announced: a count is held against the bytes left, and, where elements take
//! no bytes, against [`VALUES_MAX`].

use bytes::Bytes;

use super::descriptor;
use super::text::{Symbol, Text};
use super::value::{Array, Described, Map, Value};

/// The deepest that lists, maps, arrays and descriptions may be nested in each other.
pub const DEPTH_MAX: usize = 16;

/// The most values in one frame's performative, or in one message. A null takes one byte on the wire and forty in
/// memory; without a bound a frame could cost forty times its size. What describes the elements of an array counts once
/// where it stands, and again with every element.
pub const VALUES_MAX: usize = 16 * 1024;

/// The most places reserved for the elements of a list before they are read: each list within another could announce as
/// many as there are bytes.
const RESERVED_MAX: usize = 32;

/// What is wrong with bytes, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{fault}, at byte {offset}")]
pub struct Malformed {
    /// Counted from the start of what was decoded.
    pub offset: usize,
    /// What is wrong there.
    pub fault: Fault,
}

/// What is wrong with bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A value reaches past the end of what holds it.
    #[error("ends within a value")]
    Truncated,
    /// Bytes are left over after the last value.
    #[error("bytes are left over")]
    Trailing,
    /// A format code that part 1 does not know.
    #[error("format code {0:#04x} does not exist")]
    FormatCode(u8),
    /// A value of another type.
    #[error("format code {code:#04x} is no {expected}")]
    Type {
        /// What belongs there.
        expected: &'static str,
        /// What is there; 0 for a described value.
        code: u8,
    },
    /// A string that is no UTF-8, or a symbol that is no ASCII.
    #[error("a string is not text")]
    NotText,
    /// A char that is no Unicode scalar value.
    #[error("{0:#x} is no character")]
    NotChar(u32),
    /// A boolean byte that is neither 0 nor 1.
    #[error("a boolean is {0}")]
    NotBoolean(u8),
    /// A number outside the choices that a field has.
    #[error("{value} is no {expected}")]
    Choice {
        /// The field's type.
        expected: &'static str,
        /// What it was.
        value: u8,
    },
    /// A map with a key and no value.
    #[error("a map has an odd number of values")]
    OddMap,
    /// Deeper than [`DEPTH_MAX`].
    #[error("nested more than {DEPTH_MAX} deep")]
    TooDeep,
    /// More than [`VALUES_MAX`].
    #[error("more than {VALUES_MAX} values")]
    TooManyValues,
    /// A descriptor that does not belong there.
    #[error("the descriptor is no {expected}")]
    Descriptor {
        /// What belongs there.
        expected: &'static str,
    },
    /// A field that must be there.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A list has more fields than its type, and they hold something.
    #[error("a list has fields that its type does not have")]
    ExtraField,
    /// A section of a message that may occur once occurs again, or two kinds of body.
    #[error("a section is repeated")]
    RepeatedSection,
}

/// A place in bytes, and how much may still be read.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a Bytes,
    at: usize,
    end: usize,
    depth: usize,
    values_left: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a Bytes) -> Self {
        Self { bytes, at: 0, end: bytes.len(), depth: 0, values_left: VALUES_MAX }
    }

    pub(super) const fn malformed(&self, fault: Fault) -> Malformed {
        Malformed { offset: self.at, fault }
    }

    /// Where the next byte is.
    pub(super) const fn offset(&self) -> usize {
        self.at
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.at >= self.end
    }

    /// Checks that everything was read.
    pub(super) const fn finish(&self) -> Result<(), Malformed> {
        if self.is_empty() { Ok(()) } else { Err(self.malformed(Fault::Trailing)) }
    }

    /// The next bytes, `N` of them.
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let rest = self.bytes.get(self.at..self.end).and_then(|rest| rest.first_chunk::<N>());
        let Some(&chunk) = rest else { return Err(self.malformed(Fault::Truncated)) };
        self.at += N;
        Ok(chunk)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// The next `count` bytes, shared.
    fn slice(&mut self, count: usize) -> Result<Bytes, Malformed> {
        if count > self.end - self.at {
            return Err(self.malformed(Fault::Truncated));
        }
        let slice = self.bytes.slice(self.at..self.at + count);
        self.at += count;
        Ok(slice)
    }

    /// A size or a count, in as many bytes as the format code says.
    fn length(&mut self, is_wide: bool) -> Result<usize, Malformed> {
        if is_wide { self.array().map(|bytes| u32::from_be_bytes(bytes) as usize) } else { self.u8().map(usize::from) }
    }

    pub(super) fn binary(&mut self, code: u8) -> Result<Bytes, Malformed> {
        match code {
            0xa0 | 0xb0 => {
                let count = self.length(code == 0xb0)?;
                self.slice(count)
            }
            _ => Err(self.wrong_type("binary", code)),
        }
    }

    /// A string; a symbol does as well.
    pub(super) fn text(&mut self, code: u8) -> Result<Text, Malformed> {
        match code {
            0xa1 | 0xb1 | 0xa3 | 0xb3 => {
                let offset = self.at;
                let count = self.length(code & 0xf0 == 0xb0)?;
                Text::parse(self.slice(count)?).map_err(|_| Malformed { offset, fault: Fault::NotText })
            }
            _ => Err(self.wrong_type("string", code)),
        }
    }

    /// A symbol; a string does as well, if it is ASCII.
    pub(super) fn symbol(&mut self, code: u8) -> Result<Symbol, Malformed> {
        match code {
            0xa3 | 0xb3 | 0xa1 | 0xb1 => {
                let offset = self.at;
                let count = self.length(code & 0xf0 == 0xb0)?;
                Symbol::parse(self.slice(count)?).map_err(|_| Malformed { offset, fault: Fault::NotText })
            }
            _ => Err(self.wrong_type("symbol", code)),
        }
    }

    pub(super) const fn wrong_type(&self, expected: &'static str, code: u8) -> Malformed {
        self.malformed(Fault::Type { expected, code })
    }

    pub(super) fn boolean(&mut self, code: u8) -> Result<bool, Malformed> {
        match code {
            0x41 => Ok(true),
            0x42 => Ok(false),
            0x56 => match self.u8()? {
                0 => Ok(false),
                1 => Ok(true),
                other => Err(self.malformed(Fault::NotBoolean(other))),
            },
            _ => Err(self.wrong_type("boolean", code)),
        }
    }

    pub(super) fn ubyte(&mut self, code: u8) -> Result<u8, Malformed> {
        if code == 0x50 { self.u8() } else { Err(self.wrong_type("ubyte", code)) }
    }

    pub(super) fn ushort(&mut self, code: u8) -> Result<u16, Malformed> {
        if code == 0x60 { self.array().map(u16::from_be_bytes) } else { Err(self.wrong_type("ushort", code)) }
    }

    pub(super) fn uint(&mut self, code: u8) -> Result<u32, Malformed> {
        match code {
            0x43 => Ok(0),
            0x52 => self.u8().map(u32::from),
            0x70 => self.array().map(u32::from_be_bytes),
            _ => Err(self.wrong_type("uint", code)),
        }
    }

    pub(super) fn ulong(&mut self, code: u8) -> Result<u64, Malformed> {
        match code {
            0x44 => Ok(0),
            0x53 => self.u8().map(u64::from),
            0x80 => self.array().map(u64::from_be_bytes),
            _ => Err(self.wrong_type("ulong", code)),
        }
    }

    pub(super) fn timestamp(&mut self, code: u8) -> Result<i64, Malformed> {
        if code == 0x83 { self.array().map(i64::from_be_bytes) } else { Err(self.wrong_type("timestamp", code)) }
    }

    /// One value of any type.
    pub(super) fn value(&mut self) -> Result<Value, Malformed> {
        let code = self.u8()?;
        self.value_of(code)
    }

    /// The rest of a value whose format code was read.
    pub(super) fn value_of(&mut self, code: u8) -> Result<Value, Malformed> {
        self.count_values(1)?;
        Ok(match code {
            0x00 => self.deeper(|reader| {
                let descriptor = reader.value()?;
                let value = reader.value()?;
                Ok(Value::Described(Box::new(Described { descriptor, value })))
            })?,
            0x40 => Value::Null,
            0x41 | 0x42 | 0x56 => Value::Boolean(self.boolean(code)?),
            0x50 => Value::Ubyte(self.u8()?),
            0x60 => Value::Ushort(self.ushort(code)?),
            0x43 | 0x52 | 0x70 => Value::Uint(self.uint(code)?),
            0x44 | 0x53 | 0x80 => Value::Ulong(self.ulong(code)?),
            0x51 => Value::Byte(i8::from_be_bytes(self.array()?)),
            0x61 => Value::Short(i16::from_be_bytes(self.array()?)),
            0x54 => Value::Int(i8::from_be_bytes(self.array()?).into()),
            0x71 => Value::Int(i32::from_be_bytes(self.array()?)),
            0x55 => Value::Long(i8::from_be_bytes(self.array()?).into()),
            0x81 => Value::Long(i64::from_be_bytes(self.array()?)),
            0x72 => Value::Float(f32::from_be_bytes(self.array()?)),
            0x82 => Value::Double(f64::from_be_bytes(self.array()?)),
            0x74 => Value::Decimal32(self.array()?),
            0x84 => Value::Decimal64(self.array()?),
            0x94 => Value::Decimal128(self.array()?),
            0x73 => {
                let number = u32::from_be_bytes(self.array()?);
                Value::Char(char::from_u32(number).ok_or_else(|| self.malformed(Fault::NotChar(number)))?)
            }
            0x83 => Value::Timestamp(self.timestamp(code)?),
            0x98 => Value::Uuid(self.array()?),
            0xa0 | 0xb0 => Value::Binary(self.binary(code)?),
            0xa1 | 0xb1 => Value::String(self.text(code)?),
            0xa3 | 0xb3 => Value::Symbol(self.symbol(code)?),
            0x45 | 0xc0 | 0xd0 => Value::List(self.list(code)?),
            0xc1 | 0xd1 => Value::Map(self.map(code)?),
            0xe0 | 0xf0 => Value::Array(self.array_value(code)?),
            _ => return Err(self.malformed(Fault::FormatCode(code))),
        })
    }

    /// A list of values of any types.
    pub(super) fn list(&mut self, code: u8) -> Result<Vec<Value>, Malformed> {
        if code == 0x45 {
            // It counts as a level, as its longer forms do.
            return self.deeper(|_| Ok(Vec::new()));
        }
        self.compound(code, "list", |reader, count| {
            let mut values = Vec::with_capacity(count.min(RESERVED_MAX));
            for _ in 0..count {
                values.push(reader.value()?);
            }
            Ok(values)
        })
    }

    pub(super) fn map(&mut self, code: u8) -> Result<Map, Malformed> {
        if code & 0x0f != 1 {
            return Err(self.wrong_type("map", code));
        }
        self.compound(code, "map", |reader, count| {
            if !count.is_multiple_of(2) {
                return Err(reader.malformed(Fault::OddMap));
            }
            let mut entries = Vec::with_capacity((count / 2).min(RESERVED_MAX));
            for _ in 0..count / 2 {
                entries.push((reader.value()?, reader.value()?));
            }
            Ok(Map(entries))
        })
    }

    /// The inside of a list or a map: bounded by its size, which has to be exact, and its count by the size.
    pub(super) fn compound<T>(
        &mut self,
        code: u8,
        expected: &'static str,
        read: impl FnOnce(&mut Self, usize) -> Result<T, Malformed>,
    ) -> Result<T, Malformed> {
        if !matches!(code, 0xc0 | 0xc1 | 0xd0 | 0xd1) {
            return Err(self.wrong_type(expected, code));
        }
        self.sized(code & 0xf0 == 0xd0, |reader, count| {
            if count > reader.end - reader.at {
                return Err(reader.malformed(Fault::Truncated));
            }
            reader.check_values(count)?;
            read(reader, count)
        })
    }

    fn array_value(&mut self, code: u8) -> Result<Array, Malformed> {
        self.sized(code == 0xf0, |reader, count| {
            // Some peers leave the constructor of an empty array out.
            if count == 0 && reader.is_empty() {
                return Ok(Array::default());
            }
            let constructor = reader.constructor()?;
            reader.check_values(count)?;
            // Elements that take no bytes are bounded by the number of values alone.
            let mut values = Vec::with_capacity(count.min(RESERVED_MAX));
            for _ in 0..count {
                values.push(reader.element(&constructor)?);
            }
            Ok(Array::of_one_constructor(values))
        })
    }

    /// Symbols where one or many may be (part 1, section 1.4, "multiple"): one alone, or an array.
    pub(super) fn symbols(&mut self, code: u8) -> Result<Vec<Symbol>, Malformed> {
        if !matches!(code, 0xe0 | 0xf0) {
            return self.symbol(code).map(|symbol| vec![symbol]);
        }
        self.sized(code == 0xf0, |reader, count| {
            if count == 0 && reader.is_empty() {
                return Ok(Vec::new());
            }
            let element = match reader.constructor()? {
                Constructor::Primitive(code @ (0xa3 | 0xb3)) => code,
                _ if count == 0 => return Ok(Vec::new()),
                Constructor::Primitive(code) => return Err(reader.wrong_type("symbol", code)),
                Constructor::Described { .. } => return Err(reader.wrong_type("symbol", 0)),
            };
            reader.count_values(count)?;
            if count > reader.end - reader.at {
                return Err(reader.malformed(Fault::Truncated));
            }
            (0..count).map(|_| reader.symbol(element)).collect()
        })
    }

    fn constructor(&mut self) -> Result<Constructor, Malformed> {
        match self.u8()? {
            0x00 => self.deeper(|reader| {
                let values_left = reader.values_left;
                reader.count_values(1)?;
                let descriptor = reader.value()?;
                let values = values_left - reader.values_left;
                Ok(Constructor::Described { descriptor, values, described: Box::new(reader.constructor()?) })
            }),
            code if is_format_code(code) => Ok(Constructor::Primitive(code)),
            code => Err(self.malformed(Fault::FormatCode(code))),
        }
    }

    fn element(&mut self, constructor: &Constructor) -> Result<Value, Malformed> {
        match constructor {
            Constructor::Primitive(code) => self.value_of(*code),
            Constructor::Described { descriptor, values, described } => {
                // Each element has a copy of the descriptor, however large that is.
                self.count_values(*values)?;
                let descriptor = descriptor.clone();
                self.deeper(|reader| {
                    let value = reader.element(described)?;
                    Ok(Value::Described(Box::new(Described { descriptor, value })))
                })
            }
        }
    }

    /// Reads a size and a count, then what they cover, exactly.
    fn sized<T>(
        &mut self,
        is_wide: bool,
        read: impl FnOnce(&mut Self, usize) -> Result<T, Malformed>,
    ) -> Result<T, Malformed> {
        let size = self.length(is_wide)?;
        if size > self.end - self.at {
            return Err(self.malformed(Fault::Truncated));
        }
        let outer_end = std::mem::replace(&mut self.end, self.at + size);
        let count = self.length(is_wide)?;
        let read = self.deeper(|reader| read(reader, count))?;
        self.finish()?;
        self.end = outer_end;
        Ok(read)
    }

    fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Malformed>) -> Result<T, Malformed> {
        if self.depth >= DEPTH_MAX {
            return Err(self.malformed(Fault::TooDeep));
        }
        self.depth += 1;
        let read = read(self)?;
        self.depth -= 1;
        Ok(read)
    }

    const fn check_values(&self, count: usize) -> Result<(), Malformed> {
        if count > self.values_left { Err(self.malformed(Fault::TooManyValues)) } else { Ok(()) }
    }

    fn count_values(&mut self, count: usize) -> Result<(), Malformed> {
        self.check_values(count)?;
        self.values_left -= count;
        Ok(())
    }

    /// The descriptor of a described value whose 0 was read, as a number; names that the standard gives count too.
    /// `None` for any other.
    pub(super) fn descriptor(&mut self) -> Result<Option<u64>, Malformed> {
        let descriptor = self.value()?;
        Ok(descriptor::code(&descriptor))
    }

    /// The fields of a composite type whose descriptor was read.
    pub(super) fn fields<T>(
        &mut self,
        read: impl FnOnce(&mut Fields<'_, 'a>) -> Result<T, Malformed>,
    ) -> Result<T, Malformed> {
        let code = self.u8()?;
        if code == 0x45 {
            return read(&mut Fields { reader: self, left: 0 });
        }
        if code & 0x0f != 0 {
            return Err(self.wrong_type("list", code));
        }
        self.compound(code, "list", |reader, count| {
            reader.count_values(count)?;
            let mut fields = Fields { reader, left: count };
            let composite = read(&mut fields)?;
            while fields.left > 0 {
                if fields.next()?.is_some() {
                    return Err(fields.reader.malformed(Fault::ExtraField));
                }
            }
            Ok(composite)
        })
    }
}

/// What all elements of an array share.
enum Constructor {
    Primitive(u8),
    Described {
        descriptor: Value,
        /// How many values the descriptor adds to each element, the description itself counted.
        values: usize,
        described: Box<Constructor>,
    },
}

/// Whether part 1 has a primitive type with this code. [`Reader::value_of`] finds out by reading one, but an array may
/// have a constructor and no elements.
const fn is_format_code(code: u8) -> bool {
    matches!(
        code,
        0x40..=0x45 | 0x50..=0x56 | 0x60..=0x61 | 0x70..=0x74 | 0x80..=0x84 | 0x94 | 0x98
            | 0xa0 | 0xa1 | 0xa3 | 0xb0 | 0xb1 | 0xb3 | 0xc0 | 0xc1 | 0xd0 | 0xd1 | 0xe0 | 0xf0
    )
}

/// The fields of a composite type, one after the other (part 1, section 1.4).
#[derive(Debug)]
pub(super) struct Fields<'r, 'a> {
    pub(super) reader: &'r mut Reader<'a>,
    left: usize,
}

impl Fields<'_, '_> {
    /// The format code of the next field; `None` if it is null, or the list has ended.
    pub(super) fn next(&mut self) -> Result<Option<u8>, Malformed> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let code = self.reader.u8()?;
        Ok((code != 0x40).then_some(code))
    }
}
