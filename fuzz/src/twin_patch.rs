//! Patches of any kind, one after another: the twin keeps its limits, and a refused patch changes nothing.

use domain::clock::UnixTime;
use domain::ids::Etag;
use domain::twin::limits::{self, SectionName};
use domain::twin::{ServiceChange, Twin, parse_patch};
use serde_json::{Map, Value};

const NOW: UnixTime = UnixTime::from_seconds(1_800_000_000);

/// Reads `input` as lines: the first character says what is done with the JSON behind it.
///
/// # Panics
/// When a promise of [`Twin`] is broken.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let mut twin = Twin::new(Etag::from_number(1));
    for (number, line) in (2..).zip(text.lines()) {
        let Some(how) = line.chars().next() else { continue };
        let Ok(patch) = parse_patch(line.get(how.len_utf8()..).unwrap_or_default()) else { continue };
        let before = twin.clone();
        let is_done = apply(&mut twin, how, patch, Etag::from_number(number));
        if is_done {
            assert!(twin.version >= before.version);
            assert!(twin.desired.version() >= before.desired.version());
            check_limits(&twin);
        } else {
            assert_eq!(twin, before, "a refused change left a trace");
        }
    }
    let stored = serde_json::to_string(&twin).expect("a twin can be stored");
    assert_eq!(serde_json::from_str::<Twin>(&stored).expect("and read again"), twin);
}

fn apply(twin: &mut Twin, how: char, patch: Map<String, Value>, fresh: Etag) -> bool {
    let tags = |patch| ServiceChange { tags: Some(patch), desired: None };
    let desired = |patch| ServiceChange { tags: None, desired: Some(patch) };
    match how {
        't' => twin.apply_service_patch(tags(patch), fresh, NOW).is_ok(),
        'd' => twin.apply_service_patch(desired(patch), fresh, NOW).is_ok(),
        'T' => twin.replace(tags(patch), fresh, NOW).is_ok(),
        'D' => twin.replace(desired(patch), fresh, NOW).is_ok(),
        'i' => twin.reset_to(desired(patch), fresh, NOW).is_ok(),
        _ => twin.apply_reported(patch, NOW).is_ok(),
    }
}

fn check_limits(twin: &Twin) {
    let sections = [
        (SectionName::Tags, &twin.tags),
        (SectionName::Desired, twin.desired.document()),
        (SectionName::Reported, twin.reported.document()),
    ];
    for (name, document) in sections {
        assert_eq!(limits::check_total(name, document), Ok(()));
        assert_eq!(limits::check(name, document), Ok(()));
        assert!(!holds_null(document), "null deletes, and is never kept: {document:?}");
    }
    for section in [&twin.desired, &twin.reported] {
        check_metadata(section.document(), section.metadata());
    }
}

fn holds_null(document: &Map<String, Value>) -> bool {
    document.values().any(|value| match value {
        Value::Null => true,
        Value::Object(members) => holds_null(members),
        _ => false,
    })
}

/// Every member has metadata of its own, and nothing else has.
fn check_metadata(document: &Map<String, Value>, metadata: &Map<String, Value>) {
    for (name, value) in document {
        let about = metadata.get(name).and_then(Value::as_object);
        let about = about.unwrap_or_else(|| panic!("{name} has no metadata"));
        assert!(about.contains_key("$lastUpdated"), "{name}");
        if let Value::Object(members) = value {
            check_metadata(members, about);
        }
    }
    for name in metadata.keys().filter(|name| !name.starts_with('$')) {
        assert!(document.contains_key(name), "{name} has metadata and is not there");
    }
}
