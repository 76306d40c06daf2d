//! The merge patch (RFC 7386) and the metadata that keeps step with it.
//!
//! Knows no limits: what comes here has passed `limits`, which also bounds the recursion. Keeps the order of members.

use serde_json::{Map, Value};

use crate::clock::UnixTime;

pub(crate) const LAST_UPDATED: &str = "$lastUpdated";
pub(crate) const LAST_UPDATED_VERSION: &str = "$lastUpdatedVersion";

/// What is written to each metadata node that a change touches.
pub(super) struct Stamp {
    at: Value,
    version: Option<u64>,
}

impl Stamp {
    /// `version` is that of the section after the change, for sections whose metadata shows it.
    pub(super) fn new(now: UnixTime, version: Option<u64>) -> Self {
        Self { at: Value::String(timestamp(now)), version }
    }

    fn mark(&self, node: &mut Map<String, Value>) {
        node.insert(LAST_UPDATED.to_owned(), self.at.clone());
        if let Some(version) = self.version {
            node.insert(LAST_UPDATED_VERSION.to_owned(), version.into());
        }
    }

    fn leaf(&self) -> Value {
        let mut node = Map::new();
        self.mark(&mut node);
        Value::Object(node)
    }
}

/// The metadata of a section that nobody has written.
pub(super) fn untouched_metadata() -> Map<String, Value> {
    Map::from_iter([(LAST_UPDATED.to_owned(), Value::String(timestamp(UnixTime::NEVER)))])
}

/// Applies `patch` to `target`: objects merge, null deletes, everything else replaces.
pub(super) fn merge(target: &mut Map<String, Value>, patch: Map<String, Value>) {
    delete_nulls(target, &patch);
    for (key, value) in patch {
        match value {
            Value::Null => {}
            Value::Object(patch) => merge(object_at(target, key).0, patch),
            leaf => {
                target.insert(key, leaf);
            }
        }
    }
}

/// As [`merge`], and stamps the metadata of everything that `patch` names, with all that stands above it.
pub(super) fn merge_stamped(
    target: &mut Map<String, Value>,
    metadata: &mut Map<String, Value>,
    patch: Map<String, Value>,
    stamp: &Stamp,
) {
    stamp.mark(metadata);
    delete_nulls(target, &patch);
    delete_nulls(metadata, &patch);
    for (key, value) in patch {
        match value {
            Value::Null => {}
            Value::Object(patch) => {
                let (child, fresh) = object_at(target, key.clone());
                if fresh {
                    metadata.insert(key.clone(), Value::Object(Map::new()));
                }
                merge_stamped(child, object_at(metadata, key).0, patch, stamp);
            }
            leaf => {
                metadata.insert(key.clone(), stamp.leaf());
                target.insert(key, leaf);
            }
        }
    }
}

/// The document that `patch` makes of nothing.
pub(super) fn without_nulls(patch: Map<String, Value>) -> Map<String, Value> {
    let mut document = Map::new();
    merge(&mut document, patch);
    document
}

/// One pass for all deletions: removing members one by one, in order, would cost the square of their number.
fn delete_nulls(target: &mut Map<String, Value>, patch: &Map<String, Value>) {
    if patch.values().any(Value::is_null) {
        target.retain(|key, _| !patch.get(key).is_some_and(Value::is_null));
    }
}

/// The object at `key`, put there if something else or nothing is; says whether it was.
fn object_at(parent: &mut Map<String, Value>, key: String) -> (&mut Map<String, Value>, bool) {
    let child = parent.entry(key).or_insert(Value::Null);
    let fresh = !child.is_object();
    if fresh {
        *child = Value::Object(Map::new());
    }
    (child.as_object_mut().expect("an object was put there if there was none"), fresh)
}

/// ISO 8601 in UTC with seven digits of fraction, as every client parses it; "never" has none
/// (`contract/hub-device.md 3.2`).
pub(crate) fn timestamp(at: UnixTime) -> String {
    use jiff::Timestamp;

    if at == UnixTime::NEVER {
        return "0001-01-01T00:00:00Z".to_owned();
    }
    let beyond = if at < UnixTime::NEVER { Timestamp::MIN } else { Timestamp::MAX };
    let at = jiff::tz::Offset::UTC.to_datetime(Timestamp::from_microsecond(at.micros()).unwrap_or(beyond));
    let (date, time) = (at.date(), at.time());
    format!(
        "{date}T{:02}:{:02}:{:02}.{:07}Z",
        time.hour(),
        time.minute(),
        time.second(),
        time.subsec_nanosecond() / 100
    )
}
