//! What operators and devices see of a twin, and the laws of its merge.

use proptest::prelude::*;
use serde_json::json;

use super::limits::{
    DEPTH_MAX, KEY_BYTES_MAX, PATCH_TEXT_BYTES_MAX, PROPERTIES_BYTES_MAX, STRING_BYTES_MAX, TAGS_BYTES_MAX, VALUES_MAX,
    document_bytes,
};
use super::*;

const BEFORE: UnixTime = UnixTime::from_micros(1_600_000_000_123_456);
const NOW: UnixTime = UnixTime::from_seconds(1_700_000_000);
const FIRST: Etag = Etag::from_number(1);
const FRESH: Etag = Etag::from_number(2);
const NOW_TEXT: &str = "2023-11-14T22:13:20.0000000Z";

#[test]
fn a_fresh_twin_stands_at_its_first_versions() {
    let twin = Twin::new(FIRST);
    let untouched = json!({"$metadata": {"$lastUpdated": "0001-01-01T00:00:00Z"}, "$version": 1});
    assert_eq!((twin.version, twin.etag), (2, FIRST));
    assert_eq!(Value::Object(twin.desired.service_document()), untouched);
    assert_eq!(Value::Object(twin.reported.service_document()), untouched);
    assert_eq!(text(&twin.device_document()), r#"{"desired":{"$version":1},"reported":{"$version":1}}"#);
}

#[test]
fn an_initial_twin_fills_the_first_version() {
    let twin = Twin::with_initial(change(json!({"site": "cave"}), json!({"t": 12.5, "no": null})), FIRST, NOW).unwrap();
    assert_eq!((twin.version, twin.desired.version(), twin.reported.version()), (2, 1, 1));
    assert_eq!(Value::Object(twin.tags), json!({"site": "cave"}));
    assert_eq!(
        Value::Object(twin.desired.service_document()),
        json!({
            "t": 12.5,
            "$metadata": {
                "$lastUpdated": NOW_TEXT, "$lastUpdatedVersion": 1,
                "t": {"$lastUpdated": NOW_TEXT, "$lastUpdatedVersion": 1},
            },
            "$version": 1,
        })
    );
    assert_eq!(twin.reported, Section::untouched());
}

#[test]
fn a_reported_patch_merges_counts_and_stamps_what_it_names() {
    let mut twin = Twin::new(FIRST);
    twin.apply_reported(object(json!({"a": {"b": 1, "c": 2}, "d": [1]})), BEFORE).unwrap();
    let version = twin.apply_reported(object(json!({"a": {"c": null, "e": "x"}})), NOW).unwrap();
    let before = "2020-09-13T12:26:40.1234560Z";

    assert_eq!((version, twin.version, twin.etag), (3, 4, FIRST));
    assert_eq!(text(twin.reported.document()), r#"{"a":{"b":1,"e":"x"},"d":[1]}"#);
    assert_eq!(
        Value::Object(twin.reported.metadata().clone()),
        json!({
            "$lastUpdated": NOW_TEXT,
            "a": {
                "$lastUpdated": NOW_TEXT,
                "b": {"$lastUpdated": before},
                "e": {"$lastUpdated": NOW_TEXT},
            },
            "d": {"$lastUpdated": before},
        })
    );
}

#[test]
fn merging_follows_the_rules_of_a_merge_patch() {
    let cases: &[(&str, &str, &str, &str)] = &[
        ("a member is added behind the others", r#"{"b":1}"#, r#"{"a":2}"#, r#"{"b":1,"a":2}"#),
        ("a replaced member keeps its place", r#"{"b":1,"a":2}"#, r#"{"b":3}"#, r#"{"b":3,"a":2}"#),
        ("null deletes, the rest keeps its order", r#"{"a":1,"b":2,"c":3}"#, r#"{"a":null}"#, r#"{"b":2,"c":3}"#),
        ("deleting what is not there", r#"{"a":1}"#, r#"{"b":null}"#, r#"{"a":1}"#),
        ("deleting the last leaf leaves an object", r#"{"a":{"b":1}}"#, r#"{"a":{"b":null}}"#, r#"{"a":{}}"#),
        ("arrays are replaced whole", r#"{"a":[1,2]}"#, r#"{"a":[3]}"#, r#"{"a":[3]}"#),
        ("an object takes the place of a leaf", r#"{"a":1}"#, r#"{"a":{"b":2,"c":null}}"#, r#"{"a":{"b":2}}"#),
        ("a leaf takes the place of an object", r#"{"a":{"b":1}}"#, r#"{"a":2}"#, r#"{"a":2}"#),
        ("nothing changes nothing", r#"{"a":1}"#, "{}", r#"{"a":1}"#),
        ("one is not one point nought", r#"{"a":1}"#, r#"{"a":1.0}"#, r#"{"a":1.0}"#),
    ];
    for (name, document, patch, expected) in cases {
        let mut twin = Twin::new(FIRST);
        twin.apply_reported(parse_patch(document).unwrap(), BEFORE).unwrap();
        twin.apply_reported(parse_patch(patch).unwrap(), NOW).unwrap();
        assert_eq!(text(twin.reported.document()), *expected, "{name}");
        assert_mirrors(twin.reported.document(), twin.reported.metadata());
    }
}

#[test]
fn an_operators_patch_tells_the_device_exactly_what_was_applied() {
    let mut twin = Twin::with_initial(change(json!({"a": 1}), json!({"t": 1, "u": 2})), FIRST, BEFORE).unwrap();
    let patch = json!({"t": null, "v": {"w": true}, "$version": 40, "$metadata": {"$lastUpdated": "x"}});
    let changes = twin.apply_service_patch(change(json!({"a": null, "b": {"c": "d"}}), patch), FRESH, NOW).unwrap();

    assert_eq!(text(&changes.desired.unwrap()), r#"{"t":null,"v":{"w":true},"$version":2}"#);
    assert_eq!(text(twin.desired.document()), r#"{"u":2,"v":{"w":true}}"#);
    assert_eq!(text(&twin.tags), r#"{"b":{"c":"d"}}"#);
    assert_eq!((twin.version, twin.desired.version(), twin.etag), (3, 2, FRESH));
    let metadata = twin.desired.metadata();
    assert_eq!(
        (&metadata["v"]["w"]["$lastUpdatedVersion"], &metadata["u"]["$lastUpdatedVersion"]),
        (&2.into(), &1.into())
    );
}

#[test]
fn a_replacement_tells_the_device_the_whole_document() {
    let mut twin = Twin::with_initial(change(json!({"a": 1}), json!({"t": 1, "u": 2})), FIRST, BEFORE).unwrap();
    let desired = ServiceChange { tags: None, desired: Some(object(json!({"v": 3, "w": null}))) };
    let changes = twin.replace(desired, FRESH, NOW).unwrap();

    assert_eq!(text(&changes.desired.unwrap()), r#"{"v":3,"$version":2}"#);
    assert_eq!((text(&twin.tags), text(twin.desired.document())), (r#"{"a":1}"#.to_owned(), r#"{"v":3}"#.to_owned()));
    assert!(!twin.desired.metadata().contains_key("t"));
    assert_eq!((twin.version, twin.etag), (3, FRESH));
}

#[test]
fn tags_alone_move_the_etag_and_tell_the_device_nothing() {
    let mut twin = Twin::new(FIRST);
    let tags = ServiceChange { tags: Some(object(json!({"a": 1}))), desired: None };
    assert_eq!(twin.apply_service_patch(tags, FRESH, NOW).unwrap(), Changes::default());
    assert_eq!((twin.version, twin.etag, &twin.desired), (3, FRESH, &Section::untouched()));

    let unchanged = twin.clone();
    twin.apply_service_patch(ServiceChange::default(), Etag::from_number(9), NOW).unwrap();
    assert_eq!(twin, unchanged);
}

#[test]
fn a_reset_returns_to_the_beginning_and_counts_on() {
    let initial = change(json!({"site": "cave"}), json!({"t": 1}));
    let mut twin = Twin::with_initial(initial.clone(), FIRST, BEFORE).unwrap();
    twin.apply_service_patch(change(json!({"x": 1}), json!({"t": 9, "u": 1})), Etag::from_number(7), BEFORE).unwrap();
    twin.apply_reported(object(json!({"r": 1})), BEFORE).unwrap();
    let changes = twin.reset_to(initial, FRESH, NOW).unwrap();

    assert_eq!(text(&changes.desired.unwrap()), r#"{"t":1,"$version":3}"#);
    assert_eq!((text(&twin.tags), text(twin.reported.document())), (r#"{"site":"cave"}"#.to_owned(), "{}".to_owned()));
    assert_eq!((twin.version, twin.reported.version(), twin.etag), (5, 3, FRESH));
    assert_mirrors(twin.reported.document(), twin.reported.metadata());

    twin.reset_to(ServiceChange::default(), Etag::from_number(8), NOW).unwrap();
    assert!(twin.tags.is_empty() && twin.desired.document().is_empty());
}

#[test]
fn a_migrated_twin_carries_everything() {
    let mut twin = Twin::with_initial(change(json!({"a": 1}), json!({"t": 1})), FIRST, BEFORE).unwrap();
    twin.apply_reported(object(json!({"r": 1})), BEFORE).unwrap();
    let arrived = twin.migrate(FRESH);
    assert_eq!((&arrived.tags, &arrived.desired, &arrived.reported), (&twin.tags, &twin.desired, &twin.reported));
    assert_eq!((arrived.version, arrived.etag), (twin.version + 1, FRESH));
}

#[test]
fn text_that_is_no_patch_is_named() {
    let long = format!("{}{{}}", " ".repeat(PATCH_TEXT_BYTES_MAX));
    let endless = "[".repeat(100_000);
    let cases: &[(&str, PatchError)] = &[
        ("", PatchError::NotJson),
        ("{", PatchError::NotJson),
        ("{\"a\":1}x", PatchError::NotJson),
        ("{\"a\":01}", PatchError::NotJson),
        ("[]", PatchError::NotAnObject),
        ("null", PatchError::NotAnObject),
        ("1", PatchError::NotAnObject),
        (&endless, PatchError::NotJson),
        (&long, PatchError::TextTooLong { bytes: PATCH_TEXT_BYTES_MAX + 2 }),
    ];
    for (text, expected) in cases {
        assert_eq!(parse_patch(text).as_ref(), Err(expected), "{}", text.chars().take(20).collect::<String>());
    }
}

#[test]
fn a_rule_that_is_broken_is_named_with_its_place() {
    let at = |path: &str| format!("properties.reported.{path}");
    let character = |path: &str, found| PatchError::Key { path: at(path), fault: KeyFault::Character { found } };
    let out_of_range = |path: &str| PatchError::NumberOutOfRange { path: at(path) };
    let long_key = "k".repeat(KEY_BYTES_MAX + 1);
    let cut = format!("properties.reported.{}…", "k".repeat(235));
    let cases: &[(&str, Value, PatchError)] = &[
        ("$version", json!({"$version": 1}), PatchError::Reserved { name: "$version" }),
        ("$metadata", json!({"a": 1, "$metadata": {}}), PatchError::Reserved { name: "$metadata" }),
        ("a reserved name deeper down", json!({"a": {"$version": 1}}), character("a.$version", '$')),
        ("a dot", json!({"a.b": 1}), character("a.b", '.')),
        ("a space", json!({"a b": 1}), character("a b", ' ')),
        ("a hash", json!({"a": [{"#": 1}]}), character("a[0].#", '#')),
        ("a tab", json!({"\t": 1}), character("\t", '\t')),
        ("a C1 control", json!({"\u{85}": 1}), character("\u{85}", '\u{85}')),
        ("a no-break space", json!({"\u{a0}": 1}), character("\u{a0}", '\u{a0}')),
        ("a deletion under a bad name", json!({"a$": null}), character("a$", '$')),
        (
            "a long name",
            json!({ long_key: 1 }),
            PatchError::Key { path: cut, fault: KeyFault::TooLong { bytes: KEY_BYTES_MAX + 1 } },
        ),
        (
            "a long text",
            json!({"a": ["x", "é".repeat(2_049)]}),
            PatchError::StringTooLong { path: at("a[1]"), bytes: STRING_BYTES_MAX + 2 },
        ),
        ("an integer above", json!({"a": 4_503_599_627_370_496_i64}), out_of_range("a")),
        ("an integer below", json!({"a": {"b": -4_503_599_627_370_497_i64}}), out_of_range("a.b")),
        ("an integer beyond 64 bits", number("123456789012345678901234567890"), out_of_range("a")),
        ("more than a double holds", number("1e999"), out_of_range("a")),
        ("very many digits", number(&format!("0.{}", "1".repeat(63))), out_of_range("a")),
        ("null in an array", json!({"a": [1, null]}), PatchError::NullInArray { path: at("a[1]") }),
        (
            "null in an object in an array",
            json!({"a": [{"b": {"c": null}}]}),
            PatchError::NullInArray { path: at("a[0].b.c") },
        ),
        (
            "objects too deep",
            json!({"a": nested(DEPTH_MAX + 1)}),
            PatchError::TooDeep { path: at(&format!("a{}", ".n".repeat(DEPTH_MAX))) },
        ),
        (
            "arrays too deep",
            json!({"a": [[[[[[[[[[[1]]]]]]]]]]]}),
            PatchError::TooDeep { path: at(&format!("a{}", "[0]".repeat(DEPTH_MAX))) },
        ),
        (
            "too many empty values",
            json!({"a": vec![""; VALUES_MAX]}),
            PatchError::TooManyValues { section: SectionName::Reported, values: VALUES_MAX + 1 },
        ),
    ];
    for (name, patch, expected) in cases {
        let mut twin = Twin::new(FIRST);
        assert_eq!(twin.apply_reported(object(patch.clone()), NOW).as_ref(), Err(expected), "{name}");
        assert_eq!(twin, Twin::new(FIRST), "{name}");
    }
}

#[test]
fn what_just_keeps_the_rules_is_taken() {
    let cases: &[(&str, Value)] = &[
        ("the largest integers", json!({"a": 4_503_599_627_370_495_i64, "b": -4_503_599_627_370_496_i64})),
        ("a large number with an exponent", number("1e20")),
        ("the deepest object", json!({"a": nested(DEPTH_MAX)})),
        ("the longest name", json!({ "k".repeat(KEY_BYTES_MAX): 1 })),
        ("the longest text", json!({"a": "x".repeat(STRING_BYTES_MAX)})),
        ("other scripts", json!({"température": "12 °C", "温度": 1})),
        ("punctuation", json!({"a-b_c:d/e\\f\"g": 1})),
        ("arrays in arrays", json!({"a": [[1], {"b": []}]})),
    ];
    for (name, patch) in cases {
        let mut twin = Twin::new(FIRST);
        assert_eq!(twin.apply_reported(object(patch.clone()), NOW), Ok(2), "{name}");
    }
}

#[test]
fn size_is_limited_before_and_after_the_merge() {
    let half = |name: &str| object(json!({ name: vec!["x".repeat(1_000); 17] }));
    let mut twin = Twin::new(FIRST);
    twin.apply_reported(half("a"), NOW).unwrap();
    let full = PatchError::TooLarge { section: SectionName::Reported, bytes: 2 * 17_001 };
    assert_eq!(twin.apply_reported(half("b"), NOW), Err(full.clone()));
    assert_eq!(full.to_string(), "properties.reported has 34002 bytes; 32768 are allowed");
    assert_eq!((twin.reported.version(), twin.version), (2, 3));

    let whole = object(json!({ "a": vec!["x".repeat(4_096); 9] }));
    let bytes = 9 * 4_096 + 1;
    assert_eq!(
        Twin::new(FIRST).apply_reported(whole.clone(), NOW),
        Err(PatchError::TooLarge { section: SectionName::Reported, bytes })
    );

    // A service change is refused whole: the desired half of it would have fitted.
    let tags = object(json!({"a": vec!["x".repeat(1_000); 5], "b": 1}));
    let mut twin = Twin::with_initial(ServiceChange { tags: Some(tags), desired: None }, FIRST, NOW).unwrap();
    let untouched = twin.clone();
    let change = change(json!({"c": vec!["x".repeat(1_000); 4]}), json!({"t": 1}));
    let refused = twin.apply_service_patch(change.clone(), FRESH, NOW);
    assert!(matches!(refused, Err(PatchError::TooLarge { section: SectionName::Tags, .. })), "{refused:?}");
    assert_eq!(twin, untouched);
    assert!(twin.replace(change, FRESH, NOW).is_ok());
}

#[test]
fn the_limits_are_met_exactly() {
    for (section, max) in [(SectionName::Tags, TAGS_BYTES_MAX), (SectionName::Desired, PROPERTIES_BYTES_MAX)] {
        for (excess, fits) in [(0, true), (1, false)] {
            let texts = vec!["x".repeat(1_024); max / 1_024 - 1];
            let document = object(json!({ "a": texts, "b": "y".repeat(1_022 + excess) }));
            assert_eq!(limits::check(section, &document).is_ok(), fits, "{section} {excess}");
        }
    }
}

#[test]
fn the_size_formula_counts_names_texts_numbers_and_booleans() {
    let cases: &[(Value, usize)] = &[
        (json!({}), 0),
        (json!({"ab": 1}), 10),
        (json!({"ab": 1.5e300}), 10),
        (json!({"é": "é"}), 4),
        (json!({"a": true, "b": null}), 6),
        (json!({"a": {"b": {"c": "12345"}}}), 8),
        (json!({"a": [1, "xy", {"b": false}]}), 16),
    ];
    for (document, bytes) in cases {
        assert_eq!(document_bytes(&object(document.clone())), *bytes, "{document}");
    }
}

#[test]
fn order_and_numbers_survive_storage_to_the_letter() {
    let document =
        r#"{"z":1,"a":1.0,"m":{"big":4503599627370495,"small":1e-7,"exact":0.10000000000000000001},"b":[1,1.0]}"#;
    let mut twin = Twin::new(FIRST);
    twin.apply_reported(parse_patch(document).unwrap(), BEFORE).unwrap();
    let stored = serde_json::to_string(&twin).unwrap();
    let loaded: Twin = serde_json::from_str(&stored).unwrap();
    assert_eq!(loaded, twin);
    assert_eq!(text(loaded.reported.document()), document);
}

#[test]
fn a_service_change_is_checked_before_there_is_a_twin() {
    assert_eq!(change(json!({"a": 1}), json!({"b": 1, "$version": 3})).check(), Ok(()));
    let bad = change(json!({"a": 1}), json!({"b": {"c$": 1}})).check();
    assert_eq!(bad.unwrap_err().to_string(), "the name at properties.desired.b.c$ holds '$', which is not allowed");
    assert!(change(json!({"$version": 1}), json!({})).check().is_err());
}

#[test]
fn names_that_the_parser_uses_inside_neither_slip_through_nor_exhaust_the_stack() {
    // The JSON library hands numbers and raw text through these names, so that they never reach the rules for names.
    let mut patch = "1".to_owned();
    for _ in 0..12 {
        let inner = serde_json::to_string(&format!("{}{patch}{}", "[".repeat(100), "]".repeat(100))).unwrap();
        patch = format!(r#"{{"$serde_json::private::RawValue":{inner}}}"#);
        if patch.len() > PATCH_TEXT_BYTES_MAX / 3 {
            break;
        }
    }
    let parsed = std::thread::Builder::new()
        .stack_size(2 * 1_024 * 1_024)
        .spawn(move || {
            parse_patch(&format!(r#"{{"a":{patch}}}"#)).map(|patch| Twin::new(FIRST).apply_reported(patch, NOW))
        })
        .unwrap()
        .join();
    assert!(!matches!(parsed.unwrap(), Ok(Ok(_))));
}

#[test]
fn a_number_in_the_parsers_own_spelling_is_a_number_like_any_other() {
    let patch = parse_patch(r#"{"a":{"$serde_json::private::Number":"4503599627370496"}}"#).unwrap();
    let refused = Twin::new(FIRST).apply_reported(patch, NOW);
    assert_eq!(refused, Err(PatchError::NumberOutOfRange { path: "properties.reported.a".to_owned() }));
    assert_eq!(parse_patch(r#"{"a":{"$serde_json::private::Number":"[1]"}}"#), Err(PatchError::NotJson));
}

#[test]
fn deleting_thousands_of_members_keeps_the_others_in_order() {
    let names = || (0..3_000).map(|n| format!("k{n}"));
    let mut twin = Twin::new(FIRST);
    twin.apply_reported(names().map(|name| (name, Value::Bool(true))).collect(), BEFORE).unwrap();
    let kept = |name: &String| name.ends_with('7');
    let deletions = names().filter(|name| !kept(name)).map(|name| (name, Value::Null)).collect();
    twin.apply_reported(deletions, NOW).unwrap();
    assert!(twin.reported.document().keys().cloned().eq(names().filter(kept)));
    assert_mirrors(twin.reported.document(), twin.reported.metadata());
}

proptest! {
    #[test]
    fn the_merge_is_that_of_the_standard(document in document(), patch in patch()) {
        let mut twin = Twin::new(FIRST);
        twin.apply_reported(document, BEFORE).unwrap();
        let expected = standard_merge(Value::Object(twin.reported.document().clone()), &Value::Object(patch.clone()));
        twin.apply_reported(patch, NOW).unwrap();
        prop_assert_eq!(Value::Object(twin.reported.document().clone()), expected);
    }

    #[test]
    fn a_patch_applied_twice_is_a_patch_applied_once(document in document(), patch in patch()) {
        let mut twin = Twin::new(FIRST);
        twin.apply_reported(document, BEFORE).unwrap();
        twin.apply_reported(patch.clone(), NOW).unwrap();
        let once = twin.reported.clone();
        twin.apply_reported(patch, NOW).unwrap();
        prop_assert_eq!(text(once.document()), text(twin.reported.document()));
        prop_assert_eq!(once.metadata(), twin.reported.metadata());
    }

    #[test]
    fn some_patch_leads_from_any_document_to_any_other(document in document(), wanted in document()) {
        let mut twin = Twin::new(FIRST);
        twin.apply_reported(document.clone(), BEFORE).unwrap();
        twin.apply_reported(difference(&document, &wanted), NOW).unwrap();
        prop_assert_eq!(twin.reported.document(), &wanted);
    }

    #[test]
    fn metadata_mirrors_the_document_whatever_happens(changes in proptest::collection::vec((patch(), 0..4), 1..6)) {
        let mut twin = Twin::new(FIRST);
        for (version, (patch, kind)) in (twin.version..).zip(changes) {
            let change = ServiceChange { tags: Some(patch.clone()), desired: Some(patch.clone()) };
            match kind {
                0 => { twin.apply_reported(patch, NOW).unwrap(); }
                1 => { twin.apply_service_patch(change, FRESH, NOW).unwrap(); }
                2 => { twin.replace(change, FRESH, NOW).unwrap(); }
                _ => { twin.reset_to(change, FRESH, NOW).unwrap(); }
            }
            prop_assert_eq!(twin.version, version + 1);
            assert_mirrors(twin.desired.document(), twin.desired.metadata());
            assert_mirrors(twin.reported.document(), twin.reported.metadata());
        }
        let stored = serde_json::to_string(&twin).unwrap();
        prop_assert_eq!(serde_json::from_str::<Twin>(&stored).unwrap(), twin);
    }

    #[test]
    fn the_size_of_a_document_is_the_sum_of_its_members(document in document()) {
        let members = document.iter().map(|(key, value)| document_bytes(&Map::from_iter([(key.clone(), value.clone())])));
        prop_assert_eq!(members.sum::<usize>(), document_bytes(&document));
        prop_assert!(document_bytes(&document) <= text(&document).len() * 8);
    }

    #[test]
    fn no_text_makes_the_parser_or_the_rules_panic(input in r#"[\[\]{}:,"a\\.$1e+\- nultrfs]{0,60}"#) {
        if let Ok(patch) = parse_patch(&input) {
            let _ = Twin::new(FIRST).apply_reported(patch, NOW);
        }
    }
}

fn object(value: Value) -> Map<String, Value> {
    let Value::Object(object) = value else { panic!("{value} is not an object") };
    object
}

fn text(object: &Map<String, Value>) -> String {
    serde_json::to_string(object).unwrap()
}

fn change(tags: Value, desired: Value) -> ServiceChange {
    ServiceChange { tags: Some(object(tags)), desired: Some(object(desired)) }
}

fn number(text: &str) -> Value {
    Value::Object(parse_patch(&format!(r#"{{"a":{text}}}"#)).unwrap())
}

fn nested(levels: usize) -> Value {
    (0..levels).fold(json!(1), |inner, _| json!({ "n": inner }))
}

/// The metadata has a node for every member of the document and no other; every node says when.
fn assert_mirrors(document: &Map<String, Value>, metadata: &Map<String, Value>) {
    assert!(metadata.get("$lastUpdated").is_some_and(Value::is_string), "{metadata:?}");
    let children = metadata.iter().filter(|(key, _)| !key.starts_with('$'));
    let mut children: Map<String, Value> = children.map(|(key, value)| (key.clone(), value.clone())).collect();
    for (key, value) in document {
        let node = children.remove(key).unwrap_or_else(|| panic!("no metadata for {key}"));
        assert_mirrors(&value.as_object().cloned().unwrap_or_default(), &object(node));
    }
    assert!(children.is_empty(), "metadata of nothing: {children:?}");
}

/// RFC 7386, section 2, word for word.
fn standard_merge(target: Value, patch: &Value) -> Value {
    let Value::Object(patch) = patch else { return patch.clone() };
    let mut target = match target {
        Value::Object(target) => target,
        _ => Map::new(),
    };
    for (name, value) in patch {
        if value.is_null() {
            target.shift_remove(name);
        } else {
            let merged = standard_merge(target.get(name).cloned().unwrap_or_default(), value);
            target.insert(name.clone(), merged);
        }
    }
    Value::Object(target)
}

fn difference(from: &Map<String, Value>, to: &Map<String, Value>) -> Map<String, Value> {
    let gone = from.keys().filter(|key| !to.contains_key(*key)).map(|key| (key.clone(), Value::Null));
    let kept = to.iter().filter(|(key, value)| from.get(*key) != Some(value));
    let kept = kept.map(|(key, value)| match (from.get(key), value) {
        (Some(Value::Object(from)), Value::Object(to)) => (key.clone(), Value::Object(difference(from, to))),
        (_, value) => (key.clone(), value.clone()),
    });
    gone.chain(kept).collect()
}

fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<bool>().prop_map(Value::from),
        (limits::INTEGER_MIN..=limits::INTEGER_MAX).prop_map(Value::from),
        (-1e12..1e12).prop_map(|number: f64| json!(number)),
        "[a-zé\"\\\\ ]{0,6}".prop_map(Value::from),
        proptest::collection::vec((0..9_i64).prop_map(Value::from), 0..3).prop_map(Value::from),
    ]
}

fn members(leaf: impl Strategy<Value = Value> + 'static) -> impl Strategy<Value = Map<String, Value>> {
    let member = |value| proptest::collection::vec(("[a-e]{1,2}", value), 0..4);
    let value = leaf.prop_recursive(3, 24, 4, move |inner| {
        proptest::collection::vec(("[a-e]{1,2}", inner), 0..4)
            .prop_map(|members| Value::Object(members.into_iter().collect()))
    });
    member(value).prop_map(|members| members.into_iter().collect())
}

fn document() -> impl Strategy<Value = Map<String, Value>> {
    members(leaf().boxed())
}

fn patch() -> impl Strategy<Value = Map<String, Value>> {
    members(prop_oneof![1 => Just(Value::Null), 3 => leaf()].boxed())
}
