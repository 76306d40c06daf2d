//! Values to bytes, each in the shortest form its type has. Lengths are below 4 GiB: no frame can carry more, and the
//! frame's own size is checked.

use super::text::{Symbol, Text};
use super::value::{Array, Described, Map, Value};

const NULL: u8 = 0x40;

pub(super) fn null(out: &mut Vec<u8>) {
    out.push(NULL);
}

pub(super) fn boolean(value: bool, out: &mut Vec<u8>) {
    out.push(if value { 0x41 } else { 0x42 });
}

pub(super) fn uint(value: u32, out: &mut Vec<u8>) {
    match u8::try_from(value) {
        Ok(0) => out.push(0x43),
        Ok(small) => out.extend_from_slice(&[0x52, small]),
        Err(_) => fixed(0x70, &value.to_be_bytes(), out),
    }
}

pub(super) fn ulong(value: u64, out: &mut Vec<u8>) {
    match u8::try_from(value) {
        Ok(0) => out.push(0x44),
        Ok(small) => out.extend_from_slice(&[0x53, small]),
        Err(_) => fixed(0x80, &value.to_be_bytes(), out),
    }
}

/// A format code and as many bytes as it says.
pub(super) fn fixed(code: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(code);
    out.extend_from_slice(bytes);
}

/// Bytes behind their length: `code` for up to 255, `code + 0x10` beyond.
fn variable(code: u8, bytes: &[u8], out: &mut Vec<u8>) {
    match u8::try_from(bytes.len()) {
        Ok(count) => out.extend_from_slice(&[code, count]),
        Err(_) => fixed(code + 0x10, &(bytes.len() as u32).to_be_bytes(), out),
    }
    out.extend_from_slice(bytes);
}

pub(super) fn binary(bytes: &[u8], out: &mut Vec<u8>) {
    variable(0xa0, bytes, out);
}

pub(super) fn text(text: &Text, out: &mut Vec<u8>) {
    variable(0xa1, text.as_ref(), out);
}

pub(super) fn symbol(symbol: &Symbol, out: &mut Vec<u8>) {
    variable(0xa3, symbol.as_ref(), out);
}

/// A descriptor that is a number, and the 0 before it. Python's decoder takes the short form alone
/// (`contract/eventhub-endpoint.md` 3.1); every number of the standard has it.
pub(super) fn descriptor(code: u64, out: &mut Vec<u8>) {
    out.push(0x00);
    ulong(code, out);
}

/// A list, map or array: size, count and what `body` writes. `code` for up to 255 bytes, `code + 0x10` beyond.
pub(super) fn compound(code: u8, count: usize, out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    const SHORT_BYTES: usize = 3;

    let start = out.len();
    out.extend_from_slice(&[code, 0, 0]);
    body(out);
    let body_bytes = out.len() - start - SHORT_BYTES;
    if let (Ok(size), Ok(count)) = (u8::try_from(body_bytes + 1), u8::try_from(count)) {
        out.splice(start..start + SHORT_BYTES, [code, size, count]);
    } else {
        let size = (body_bytes as u32).saturating_add(4).to_be_bytes();
        let count = (count as u32).to_be_bytes();
        out.splice(start..start + SHORT_BYTES, std::iter::once(code + 0x10).chain(size).chain(count));
    }
}

/// The same, always with four bytes of size and of count: what elements of an array share.
fn wide_compound(count: usize, out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    const SIZE_BYTES: usize = 4;

    let start = out.len();
    out.extend_from_slice(&[0; SIZE_BYTES]);
    out.extend_from_slice(&(count as u32).to_be_bytes());
    body(out);
    let size = (out.len() - start - SIZE_BYTES) as u32;
    out.splice(start..start + SIZE_BYTES, size.to_be_bytes());
}

pub(super) fn list(values: &[Value], out: &mut Vec<u8>) {
    if values.is_empty() {
        return out.push(0x45);
    }
    compound(0xc0, values.len(), out, |out| values.iter().for_each(|item| value(item, out)));
}

pub(super) fn map(map: &Map, out: &mut Vec<u8>) {
    compound(0xc1, map.0.len() * 2, out, |out| entries(map, out));
}

fn entries(map: &Map, out: &mut Vec<u8>) {
    for (key, entry) in &map.0 {
        value(key, out);
        value(entry, out);
    }
}

/// Symbols where one or many may be: always an array, and null for none. The C client takes no lone symbol
/// (`contract/hub-device.md` 4.1).
pub(super) fn symbols(symbols: &[Symbol], out: &mut Vec<u8>) {
    if symbols.is_empty() {
        return null(out);
    }
    let is_wide = symbols.iter().any(|symbol| symbol.as_ref().len() > usize::from(u8::MAX));
    compound(0xe0, symbols.len(), out, |out| {
        out.push(if is_wide { 0xb3 } else { 0xa3 });
        for symbol in symbols {
            bare_variable(symbol.as_ref(), is_wide, out);
        }
    });
}

pub(super) fn value(item: &Value, out: &mut Vec<u8>) {
    match item {
        Value::Null => null(out),
        Value::Boolean(value) => boolean(*value, out),
        Value::Uint(value) => uint(*value, out),
        Value::Ulong(value) => ulong(*value, out),
        Value::Int(value) => match i8::try_from(*value) {
            Ok(small) => fixed(0x54, &small.to_be_bytes(), out),
            Err(_) => fixed(0x71, &value.to_be_bytes(), out),
        },
        Value::Long(value) => match i8::try_from(*value) {
            Ok(small) => fixed(0x55, &small.to_be_bytes(), out),
            Err(_) => fixed(0x81, &value.to_be_bytes(), out),
        },
        Value::Binary(bytes) => binary(bytes, out),
        Value::String(string) => text(string, out),
        Value::Symbol(name) => symbol(name, out),
        Value::List(values) => list(values, out),
        Value::Map(entries) => map(entries, out),
        Value::Array(values) => array(values, out),
        Value::Described(described) => {
            out.push(0x00);
            value(&described.descriptor, out);
            value(&described.value, out);
        }
        Value::Ubyte(_)
        | Value::Ushort(_)
        | Value::Byte(_)
        | Value::Short(_)
        | Value::Float(_)
        | Value::Double(_)
        | Value::Decimal32(_)
        | Value::Decimal64(_)
        | Value::Decimal128(_)
        | Value::Char(_)
        | Value::Timestamp(_)
        | Value::Uuid(_) => {
            out.push(wide_code(item, false));
            bare(item, false, out);
        }
    }
}

fn array(array: &Array, out: &mut Vec<u8>) {
    let values = array.values();
    compound(0xe0, values.len(), out, |out| {
        let is_wide = values.iter().any(is_long);
        constructor(values.first(), is_wide, out);
        for value in values {
            bare(value, is_wide, out);
        }
    });
}

/// The constructor that all elements of an array share. An empty array is one of nulls.
fn constructor(first: Option<&Value>, is_wide: bool, out: &mut Vec<u8>) {
    match first {
        None => null(out),
        Some(Value::Described(described)) => {
            out.push(0x00);
            value(&described.descriptor, out);
            constructor(Some(&described.value), is_wide, out);
        }
        Some(first) => out.push(wide_code(first, is_wide)),
    }
}

/// Whether an element needs the long form of its type.
fn is_long(element: &Value) -> bool {
    let bytes = match element {
        Value::Binary(bytes) => bytes.len(),
        Value::String(text) => text.as_ref().len(),
        Value::Symbol(symbol) => symbol.as_ref().len(),
        Value::Described(described) => return is_long(&described.value),
        _ => 0,
    };
    bytes > usize::from(u8::MAX)
}

/// The format code that holds every value of an element's type.
const fn wide_code(element: &Value, is_wide: bool) -> u8 {
    match element {
        Value::Null => NULL,
        Value::Boolean(_) => 0x56,
        Value::Ubyte(_) => 0x50,
        Value::Ushort(_) => 0x60,
        Value::Uint(_) => 0x70,
        Value::Ulong(_) => 0x80,
        Value::Byte(_) => 0x51,
        Value::Short(_) => 0x61,
        Value::Int(_) => 0x71,
        Value::Long(_) => 0x81,
        Value::Float(_) => 0x72,
        Value::Double(_) => 0x82,
        Value::Decimal32(_) => 0x74,
        Value::Decimal64(_) => 0x84,
        Value::Decimal128(_) => 0x94,
        Value::Char(_) => 0x73,
        Value::Timestamp(_) => 0x83,
        Value::Uuid(_) => 0x98,
        Value::Binary(_) => 0xa0 + if is_wide { 0x10 } else { 0 },
        Value::String(_) => 0xa1 + if is_wide { 0x10 } else { 0 },
        Value::Symbol(_) => 0xa3 + if is_wide { 0x10 } else { 0 },
        Value::List(_) => 0xd0,
        Value::Map(_) => 0xd1,
        Value::Array(_) => 0xf0,
        Value::Described(_) => 0x00,
    }
}

fn bare_variable(bytes: &[u8], is_wide: bool, out: &mut Vec<u8>) {
    if is_wide {
        out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    } else {
        out.push(bytes.len() as u8);
    }
    out.extend_from_slice(bytes);
}

/// A value without its constructor, in the form of [`wide_code`].
fn bare(element: &Value, is_wide: bool, out: &mut Vec<u8>) {
    match element {
        Value::Null => {}
        Value::Boolean(value) => out.push(u8::from(*value)),
        Value::Ubyte(value) => out.push(*value),
        Value::Ushort(value) => out.extend_from_slice(&value.to_be_bytes()),
        Value::Uint(value) => out.extend_from_slice(&value.to_be_bytes()),
        Value::Ulong(value) => out.extend_from_slice(&value.to_be_bytes()),
        Value::Byte(value) => out.extend_from_slice(&value.to_be_bytes()),
        Value::Short(value) => out.extend_from_slice(&value.to_be_bytes()),
        Value::Int(value) => out.extend_from_slice(&value.to_be_bytes()),
        Value::Long(value) => out.extend_from_slice(&value.to_be_bytes()),
        Value::Float(value) => out.extend_from_slice(&value.to_be_bytes()),
        Value::Double(value) => out.extend_from_slice(&value.to_be_bytes()),
        Value::Decimal32(bytes) => out.extend_from_slice(bytes),
        Value::Decimal64(bytes) => out.extend_from_slice(bytes),
        Value::Decimal128(bytes) => out.extend_from_slice(bytes),
        Value::Char(value) => out.extend_from_slice(&u32::from(*value).to_be_bytes()),
        Value::Timestamp(value) => out.extend_from_slice(&value.to_be_bytes()),
        Value::Uuid(bytes) => out.extend_from_slice(bytes),
        Value::Binary(bytes) => bare_variable(bytes, is_wide, out),
        Value::String(text) => bare_variable(text.as_ref(), is_wide, out),
        Value::Symbol(symbol) => bare_variable(symbol.as_ref(), is_wide, out),
        Value::List(values) => {
            wide_compound(values.len(), out, |out| values.iter().for_each(|item| value(item, out)));
        }
        Value::Map(map) => wide_compound(map.0.len() * 2, out, |out| entries(map, out)),
        Value::Array(array) => wide_compound(array.values().len(), out, |out| {
            let is_wide = array.values().iter().any(is_long);
            constructor(array.values().first(), is_wide, out);
            array.values().iter().for_each(|value| bare(value, is_wide, out));
        }),
        Value::Described(described) => {
            let Described { value, .. } = &**described;
            bare(value, is_wide, out);
        }
    }
}
