//! Bodies of messages, however a client wraps them. Start at [`bytes_of`].

use bytes::Bytes;
use proto::amqp::{Body, Value};

/// The bytes of a body: of one section as they came, of several one after the other, of a text as UTF-8; none of an absent
/// one. `None` if it is something else.
pub fn bytes_of(body: &Body) -> Option<Bytes> {
    match body {
        Body::Empty | Body::Value(Value::Null) => Some(Bytes::new()),
        Body::Data(sections) => Some(match sections.as_slice() {
            [only] => only.clone(),
            several => several.concat().into(),
        }),
        Body::Value(Value::String(text)) => Some(Bytes::copy_from_slice(text.as_bytes())),
        Body::Value(Value::Binary(bytes)) => Some(bytes.clone()),
        Body::Value(_) | Body::Sequences(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_its_bytes_however_it_is_wrapped() {
        let sections = |sections: &[&'static str]| Body::Data(sections.iter().map(|&text| text.into()).collect());
        let cases = [
            ("nothing", Body::Empty, Some("")),
            ("null", Body::Value(Value::Null), Some("")),
            ("no section", sections(&[]), Some("")),
            ("a section", sections(&["a"]), Some("a")),
            ("sections", sections(&["a", "b"]), Some("ab")),
            ("a text", Body::Value("é".into()), Some("é")),
            ("bytes", Body::Value(Value::Binary("a".into())), Some("a")),
            ("a number", Body::Value(1.into()), None),
            ("lists", Body::Sequences(Vec::new()), None),
        ];
        for (name, body, expected) in cases {
            assert_eq!(bytes_of(&body).as_deref(), expected.map(str::as_bytes), "{name}");
        }
    }
}
