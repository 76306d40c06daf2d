//! Bytes of any kind are the value that the standard's tables make of them, or are refused as there; what is written is
//! read as the same, by the codec and by the tables.

use bytes::Bytes;
use proto::amqp::{VALUES_MAX, Value};

use crate::amqp_reference::{Tree, read, values};

/// Decodes `input`, and what was decoded once more, beside the reference.
///
/// # Panics
/// When codec and reference do not agree, when a value holds more than is allowed, or changes by being written.
pub fn check(input: &[u8]) {
    let expected = read(input);
    let decoded = Value::decode(&Bytes::copy_from_slice(input));
    assert_eq!(decoded.as_ref().ok().map(tree), expected, "{decoded:?}");
    let (Ok(value), Some(expected)) = (decoded, expected) else { return };
    assert!(values(&expected) <= VALUES_MAX);
    let mut output = Vec::new();
    value.encode(&mut output);
    assert_eq!(read(&output).as_ref(), Some(&expected), "what was written is something else");
    let again = Value::decode(&output.into()).expect("what was written can be read");
    assert_eq!(tree(&again), expected);
}

/// A value as the reference would have it. Values cannot be compared themselves: a NaN is not equal to itself.
fn tree(value: &Value) -> Tree {
    let many = |name, values: &[Value]| Tree::Many(name, values.iter().map(tree).collect());
    match value {
        Value::Null => Tree::Scalar("null", Vec::new()),
        Value::Boolean(value) => Tree::Scalar("boolean", vec![u8::from(*value)]),
        Value::Ubyte(value) => Tree::Scalar("ubyte", vec![*value]),
        Value::Ushort(value) => Tree::Scalar("ushort", value.to_be_bytes().into()),
        Value::Uint(value) => Tree::Scalar("uint", value.to_be_bytes().into()),
        Value::Ulong(value) => Tree::Scalar("ulong", value.to_be_bytes().into()),
        Value::Byte(value) => Tree::Scalar("byte", value.to_be_bytes().into()),
        Value::Short(value) => Tree::Scalar("short", value.to_be_bytes().into()),
        Value::Int(value) => Tree::Scalar("int", value.to_be_bytes().into()),
        Value::Long(value) => Tree::Scalar("long", value.to_be_bytes().into()),
        Value::Float(value) => Tree::Scalar("float", value.to_bits().to_be_bytes().into()),
        Value::Double(value) => Tree::Scalar("double", value.to_bits().to_be_bytes().into()),
        Value::Decimal32(bytes) => Tree::Scalar("decimal32", bytes.to_vec()),
        Value::Decimal64(bytes) => Tree::Scalar("decimal64", bytes.to_vec()),
        Value::Decimal128(bytes) => Tree::Scalar("decimal128", bytes.to_vec()),
        Value::Char(value) => Tree::Scalar("char", u32::from(*value).to_be_bytes().into()),
        Value::Timestamp(value) => Tree::Scalar("timestamp", value.to_be_bytes().into()),
        Value::Uuid(bytes) => Tree::Scalar("uuid", bytes.to_vec()),
        Value::Binary(bytes) => Tree::Scalar("binary", bytes.to_vec()),
        Value::String(text) => Tree::Scalar("string", text.as_str().into()),
        Value::Symbol(symbol) => Tree::Scalar("symbol", symbol.as_str().into()),
        Value::List(values) => many("list", values),
        Value::Map(map) => Tree::Many("map", map.0.iter().flat_map(|(key, value)| [tree(key), tree(value)]).collect()),
        Value::Array(array) => many("array", array.values()),
        Value::Described(described) => Tree::Described(Box::new([tree(&described.descriptor), tree(&described.value)])),
    }
}
