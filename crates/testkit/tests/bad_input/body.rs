//! Bodies that are wrong in one place.

use serde_json::{Map, Value, json};

/// Longer than any text that has a bound.
const LONG_TEXT_BYTES: usize = 5_000;
/// More than any list that has a bound.
const LONG_LIST_ITEMS: usize = 101;
/// Deeper than a twin may be.
const DEEP_LEVELS: usize = 12;
/// Deeper than any document may be.
const VERY_DEEP_LEVELS: usize = 200;

/// A body with one fault: where, what, and the bytes.
pub struct Spoilt {
    /// A JSON pointer; empty for the whole document.
    pub place: String,
    /// What was done there.
    pub how: &'static str,
    /// The document.
    pub bytes: Vec<u8>,
}

/// Everything that is tried with `body`; below the pointers `free` nothing is looked for.
pub fn spoil(body: &Value, free: &[String]) -> Vec<Spoilt> {
    let mut spoilt = spoil_whole(body);
    if body.is_object() {
        let place = "/unknown-member";
        spoilt.push(Spoilt { how: "added", bytes: changed(body, place, Some(json!(1))), place: place.to_owned() });
    }
    if let Value::Array(items) = body {
        let whole =
            |how, items: Vec<Value>| Spoilt { place: String::new(), how, bytes: json!(items).to_string().into() };
        spoilt.push(whole("doubled", items.iter().chain(items).cloned().collect()));
        spoilt.push(whole("too many", many_like(items)));
    }
    for place in places(body, free) {
        let found = body.pointer(&place).expect("the place was found there");
        let is_free = free.contains(&place);
        for (how, value) in wrong_values(found, is_free) {
            spoilt.push(Spoilt { how, bytes: changed(body, &place, value), place: place.clone() });
        }
        if found.is_object() && !is_free {
            let unknown = format!("{place}/unknown-member");
            spoilt.push(Spoilt {
                how: "added",
                bytes: changed(body, &unknown, Some(json!({ "a": [1] }))),
                place: unknown,
            });
        }
    }
    spoilt
}

fn spoil_whole(body: &Value) -> Vec<Spoilt> {
    let good = body.to_string();
    let very_deep = format!("{}1{}", "[".repeat(VERY_DEEP_LEVELS), "]".repeat(VERY_DEEP_LEVELS));
    let doubled = match body.as_object().and_then(|members| members.iter().next()) {
        Some((name, value)) => good.replacen('{', &format!("{{{}:{value},", json!(name)), 1),
        None => format!("{good}{good}"),
    };
    let whole: Vec<(&str, Vec<u8>)> = vec![
        ("absent", Vec::new()),
        ("null", b"null".to_vec()),
        ("text", b"\"text\"".to_vec()),
        ("number", b"7".to_vec()),
        ("list", b"[]".to_vec()),
        ("object", b"{}".to_vec()),
        ("cut short", good.as_bytes().get(..good.len() - 1).unwrap_or_default().to_vec()),
        ("with more behind it", format!("{good}x").into_bytes()),
        ("with a mark", format!("\u{feff}{good}").into_bytes()),
        ("not UTF-8", [b"{\"a\":\"\xff\",".as_slice(), good.as_bytes().get(1..).unwrap_or_default()].concat()),
        ("with half a surrogate", good.replacen('{', "{\"a\":\"\\ud800\",", 1).into_bytes()),
        ("with a member twice", doubled.into_bytes()),
        ("very deep", very_deep.into_bytes()),
        ("cut very deep", "[".repeat(90_000).into_bytes()),
        ("blanks, 100 KiB", format!("{}{good}", " ".repeat(100 << 10)).into_bytes()),
        ("blanks, 1.5 MiB", format!("{}{good}", " ".repeat(3 << 19)).into_bytes()),
    ];
    let spoilt = |(how, bytes)| Spoilt { place: String::new(), how, bytes };
    whole.into_iter().map(spoilt).collect()
}

/// Pointers to everything in `body` but itself, not going into what is free.
fn places(body: &Value, free: &[String]) -> Vec<String> {
    fn walk(value: &Value, place: &str, free: &[String], found: &mut Vec<String>) {
        if !place.is_empty() {
            found.push(place.to_owned());
        }
        if free.iter().any(|free| free == place) {
            return;
        }
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    walk(value, &format!("{place}/{name}"), free, found);
                }
            }
            Value::Array(items) => {
                for (index, value) in items.iter().enumerate() {
                    walk(value, &format!("{place}/{index}"), free, found);
                }
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    walk(body, "", free, &mut found);
    found
}

/// What is put in place of `good`; `None` takes it away.
fn wrong_values(good: &Value, is_free: bool) -> Vec<(&'static str, Option<Value>)> {
    let mut wrong = vec![("absent", None), ("null", Some(Value::Null))];
    let mut put = |how, value| wrong.push((how, Some(value)));
    if !good.is_string() {
        put("text", json!("text"));
    }
    if !good.is_number() {
        put("number", json!(7));
    }
    if !good.is_array() {
        put("list", json!(["a"]));
    }
    if !good.is_object() {
        put("object", json!({ "a": 1 }));
    }
    match good {
        Value::String(text) => {
            put("empty", json!(""));
            put("another word", json!("no such thing"));
            put("with a control character", json!(format!("{text}\u{7}")));
            put("with a null character", json!(format!("{text}\0")));
            put("too long", json!("a".repeat(LONG_TEXT_BYTES)));
        }
        Value::Array(items) => {
            put("empty", json!([]));
            put("doubled", items.iter().chain(items).cloned().collect());
            put("too many", json!(many_like(items)));
        }
        Value::Object(_) if is_free => free_values(&mut put),
        Value::Object(_) => put("empty", json!({})),
        Value::Number(_) => {
            put("negative", json!(-1));
            put("fraction", json!(0.5));
            put("huge", serde_json::from_str("1e400").expect("a number"));
        }
        Value::Bool(_) | Value::Null => {}
    }
    wrong
}

/// More items like the first than any list may have.
fn many_like(items: &[Value]) -> Vec<Value> {
    (0..LONG_LIST_ITEMS).filter_map(|index| Some(renamed(items.first()?, index))).collect()
}

/// The same item of another name.
fn renamed(item: &Value, index: usize) -> Value {
    let mut item = item.clone();
    for name in ["registrationId", "enrollmentGroupId", "id"] {
        if let Some(value @ Value::String(_)) = item.get_mut(name) {
            *value = json!(format!("item-{index}"));
        }
    }
    item
}

fn free_values(put: &mut impl FnMut(&'static str, Value)) {
    let nested = (0..DEEP_LEVELS).fold(json!(1), |inner, _| json!({ "a": inner }));
    let long_texts = (0..10).map(|index| (format!("member{index}"), json!("a".repeat(4_000))));
    put("empty", json!({}));
    put("a dollar in a name", json!({ "$a": 1 }));
    put("a dot in a name", json!({ "a.b": 1 }));
    put("a blank in a name", json!({ "a b": 1 }));
    put("a control character in a name", json!({ "a\u{7}": 1 }));
    put("a long name", Value::Object(Map::from_iter([("a".repeat(LONG_TEXT_BYTES), json!(1))])));
    put("an empty name", json!({ "": 1 }));
    put("a long text", json!({ "a": "a".repeat(LONG_TEXT_BYTES) }));
    put("a null", json!({ "a": null }));
    put("a list with a null", json!({ "a": [1, null] }));
    put("a huge number", serde_json::from_str("{\"a\":1e400}").expect("JSON"));
    put("a long number", serde_json::from_str(&format!("{{\"a\":{}}}", "1".repeat(1_000))).expect("JSON"));
    put("deep", nested);
    put("40 KB", long_texts.collect());
}

/// `body` with `value` at `place`, or without anything there.
fn changed(body: &Value, place: &str, value: Option<Value>) -> Vec<u8> {
    let mut body = body.clone();
    let (parent, name) = place.rsplit_once('/').expect("a place below the document");
    let name = name.replace("~1", "/").replace("~0", "~");
    match (body.pointer_mut(parent), value) {
        (Some(Value::Object(members)), Some(value)) => drop(members.insert(name, value)),
        (Some(Value::Object(members)), None) => drop(members.shift_remove(&name)),
        (Some(Value::Array(items)), value) => {
            let index: usize = name.parse().expect("an index");
            items.splice(index..=index, value);
        }
        _ => unreachable!("every place has a parent"),
    }
    body.to_string().into_bytes()
}
