//! Bytes of any kind are a value, or are refused; a value that is written is read as the same.

use bytes::Bytes;
use proto::amqp::{VALUES_MAX, Value};

/// Decodes `input`, and what was decoded once more.
///
/// # Panics
/// When a value holds more than is allowed, or changes by being written.
pub fn check(input: &[u8]) {
    let input = Bytes::copy_from_slice(input);
    let Ok(value) = Value::decode(&input) else { return };
    assert!(count(&value) <= VALUES_MAX);
    let once = encoded(&value);
    let again = Value::decode(&once).expect("what was written can be read");
    // Bytes are compared, not values: a NaN is not equal to itself.
    assert_eq!(encoded(&again), once);
}

fn encoded(value: &Value) -> Bytes {
    let mut output = Vec::new();
    value.encode(&mut output);
    output.into()
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::List(values) => values.iter().map(count).sum(),
        Value::Map(map) => map.0.iter().map(|(key, value)| count(key) + count(value)).sum(),
        Value::Array(array) => array.values().iter().map(count).sum(),
        Value::Described(described) => count(&described.value),
        _ => 0,
    }
}
