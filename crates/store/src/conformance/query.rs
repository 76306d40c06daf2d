//! Promises of [`crate::ports::QueryStore`]: whatever the backend does to be quick, it finds what the evaluator does.

use std::sync::Arc;

use domain::clock::UnixTime;
use domain::ids::{HubKey, Precondition};
use domain::operation::identity::IdentityName;
use domain::operation::session::Memory;
use domain::query::{self, Groups, Plan, Select, TooManyGroups, document};
use domain::twin::ServiceChange;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::sample::{NOON, after, claims, device, identity, make_hub, module, object};
use super::{Backend, Done as _};
use crate::ports::{ActivityMark, Found, Place};

fn plan(text: &str) -> Arc<Plan> {
    Arc::new(query::parse(text).unwrap_or_else(|error| panic!("{text}: {error}")))
}

/// All that a query finds, asked for `limit` at a time.
async fn find(backend: &Backend, hub: HubKey, text: &str, limit: usize) -> Vec<Found> {
    let (plan, mut found, mut place) = (plan(text), Vec::new(), None);
    loop {
        let piece = backend.store.find_twins(hub, &plan, place, limit).await.unwrap();
        assert!(piece.result.len() <= limit, "{text}");
        assert!(piece.next.is_none_or(|next| Some(next) > place), "{text}");
        found.extend(piece.result);
        place = piece.next;
        if place.is_none() {
            assert!(found.is_sorted_by_key(|found: &Found| found.place), "{text}");
            return found;
        }
    }
}

async fn names(backend: &Backend, hub: HubKey, text: &str) -> Vec<String> {
    find(backend, hub, text, 1_000).await.iter().map(|found| found.identity.name.to_string()).collect()
}

/// The rows of a query with groups.
async fn rows(backend: &Backend, hub: HubKey, text: &str) -> Result<Value, TooManyGroups> {
    let plan = plan(text);
    let Select::Groups { keys, columns } = &plan.select else { panic!("{text} has no groups") };
    let (mut groups, mut place) = (Groups::new(keys, columns), None);
    loop {
        let piece = backend.store.group_twins(hub, &plan, place, groups).await.unwrap()?;
        (groups, place) = (piece.result, piece.next);
        if place.is_none() {
            return Ok(json!(groups.rows(None, usize::MAX).0));
        }
    }
}

/// An identity with these tags, desired and reported properties.
async fn put(backend: &Backend, hub: HubKey, name: &IdentityName, sections: [Value; 3]) {
    let [tags, desired, reported] = sections.map(|section| section.as_object().unwrap().clone());
    let twin = ServiceChange { tags: Some(tags), desired: Some(desired) };
    backend.store.create_identity(hub, identity(name.clone(), 1), Some(twin), NOON).await.unwrap().done();
    backend.store.apply_reported(hub, name, reported, None, NOON).await.unwrap().done();
}

fn site(site: &str, floor: impl Into<Value>) -> [Value; 3] {
    [json!({ "site": site, "floor": floor.into() }), json!({ "rate": 10 }), json!({ "rate": 20 })]
}

/// Three devices and two modules at one hub, and a device of the same name as another at another.
async fn scene(backend: &Backend) -> HubKey {
    let hub = make_hub(&*backend.store, "hub").await;
    put(backend, hub, &device("one"), site("x", json!(1))).await;
    put(backend, hub, &device("two"), site("y", json!(2.0))).await;
    put(backend, hub, &module("two", "part"), site("x", json!("1"))).await;
    put(backend, hub, &device("three"), site("x", json!(true))).await;
    put(backend, hub, &module("one", "part"), site("z", json!(null))).await;
    let other = make_hub(&*backend.store, "other").await;
    put(backend, other, &device("one"), site("x", json!(1))).await;
    hub
}

pub async fn twins_are_found_by_what_they_hold_at_their_hub_alone(backend: &Backend) {
    let hub = scene(backend).await;
    let cases: &[(&str, &[&str])] = &[
        ("SELECT * FROM devices", &["one", "two", "three"]),
        ("SELECT * FROM devices.modules", &["two/part", "one/part"]),
        ("SELECT * FROM devices WHERE tags.site = 'x'", &["one", "three"]),
        ("SELECT * FROM devices.modules WHERE tags.site = 'x'", &["two/part"]),
        ("SELECT * FROM devices WHERE tags.floor = 1", &["one"]),
        ("SELECT * FROM devices WHERE tags.floor = 2", &["two"]),
        ("SELECT * FROM devices WHERE tags.floor = true", &["three"]),
        ("SELECT * FROM devices WHERE tags.floor IN [1, 2, 'x']", &["one", "two"]),
        ("SELECT * FROM devices WHERE tags.site = 'x' AND tags.floor = true", &["three"]),
        ("SELECT * FROM devices WHERE deviceId = 'two'", &["two"]),
        ("SELECT * FROM devices WHERE deviceId IN ['three', 'one', 'none']", &["one", "three"]),
        ("SELECT * FROM devices.modules WHERE deviceId = 'two' AND moduleId = 'part'", &["two/part"]),
        ("SELECT * FROM devices WHERE moduleId != 'part'", &[]),
        ("SELECT * FROM devices WHERE properties.desired.rate < properties.reported.rate", &["one", "two", "three"]),
        ("SELECT * FROM devices WHERE properties.reported.rate - properties.desired.rate > 10", &[]),
        ("SELECT * FROM devices WHERE properties.reported.$version = 2 AND tags.site != 'x'", &["two"]),
        ("SELECT * FROM devices WHERE tags.gone = 'x'", &[]),
        ("SELECT * FROM devices WHERE NOT IS_DEFINED(tags.gone) AND STARTS_WITH(deviceId, 't')", &["two", "three"]),
    ];
    for (text, expected) in cases {
        assert_eq!(names(backend, hub, text).await, *expected, "{text}");
        let one_by_one = find(backend, hub, text, 1).await;
        assert_eq!(one_by_one.len(), expected.len(), "{text}");
    }
    let none = make_hub(&*backend.store, "none").await;
    assert_eq!(names(backend, none, "SELECT * FROM devices").await, [""; 0]);
}

pub async fn found_twins_come_whole_with_their_identities(backend: &Backend) {
    let hub = scene(backend).await;
    for found in find(backend, hub, "SELECT * FROM devices WHERE tags.site = 'x'", 10).await {
        let kept = backend.store.find_twin(hub, &found.identity.name).await.unwrap();
        assert_eq!(kept, Some((found.twin, found.identity)));
    }
}

pub async fn what_changes_is_found_by_what_it_is_then(backend: &Backend) {
    let hub = scene(backend).await;
    let (store, one) = (&backend.store, device("one"));
    let by_site = |site: &str| format!("SELECT * FROM devices WHERE tags.site = '{site}'");
    let tags = |text: &str| ServiceChange { tags: Some(object(text)), desired: None };

    store.patch_twin(hub, &one, tags(r#"{"site":"w"}"#), Precondition::None, NOON).await.unwrap().done();
    assert_eq!(names(backend, hub, &by_site("x")).await, ["three"]);
    assert_eq!(names(backend, hub, &by_site("w")).await, ["one"]);
    store.replace_twin(hub, &one, tags(r#"{"site":{"deep":"w"}}"#), Precondition::None, NOON).await.unwrap().done();
    assert_eq!(names(backend, hub, &by_site("w")).await, [""; 0]);
    assert_eq!(names(backend, hub, "SELECT * FROM devices WHERE tags.site.deep = 'w'").await, ["one"]);
    store.delete_identity(hub, &one, Precondition::Exists).await.unwrap().done();
    assert_eq!(names(backend, hub, "SELECT * FROM devices WHERE tags.site.deep = 'w'").await, [""; 0]);
    // One that takes its place is another.
    store.create_identity(hub, identity(one.clone(), 2), None, NOON).await.unwrap().done();
    assert_eq!(names(backend, hub, "SELECT * FROM devices WHERE NOT IS_DEFINED(tags.site)").await, ["one"]);
    store.delete_hub(hub).await.unwrap().done();
    assert_eq!(names(backend, hub, &by_site("x")).await, [""; 0]);
    assert_eq!(rows(backend, hub, "SELECT COUNT() AS n FROM devices").await.unwrap(), json!([{ "n": 0 }]));
}

pub async fn states_of_connections_are_found(backend: &Backend) {
    let hub = scene(backend).await;
    let (store, one) = (&backend.store, device("one"));
    let generation = store.find_identity(hub, &one).await.unwrap().done().generation;
    store.claim_connection(hub, &one, claims(&generation, Memory::Forget), NOON).await.unwrap().done();
    let marks = vec![ActivityMark { hub, name: one.clone(), at: after(60) }];
    store.note_activity(marks).await.unwrap();
    let moment = |at: UnixTime| document::moment(at);
    let cases = [
        ("connectionState = 'Connected'".to_owned(), &["one"][..]),
        ("connectionState != 'Connected'".to_owned(), &["two", "three"]),
        ("status = 'enabled' AND connectionState IN ['Disconnected']".to_owned(), &["two", "three"]),
        (format!("lastActivityTime >= '{}'", moment(after(60))), &["one"]),
        (format!("lastActivityTime > '{}'", moment(after(60))), &[]),
        (format!("NOT lastActivityTime > '{}'", moment(after(59))), &["two", "three"]),
        ("lastActivityTime = '0001-01-01'".to_owned(), &["two", "three"]),
        ("capabilities.iotEdge = false".to_owned(), &["one", "two", "three"]),
        ("authenticationType = 'sas' AND modelId = ''".to_owned(), &["one", "two", "three"]),
    ];
    for (condition, expected) in cases {
        let text = format!("SELECT * FROM devices WHERE {condition}");
        assert_eq!(names(backend, hub, &text).await, expected, "{text}");
    }
}

pub async fn a_zero_within_a_text_is_a_character_like_others(backend: &Backend) {
    let hub = make_hub(&*backend.store, "hub").await;
    let texts = ["x\0y", "xy", "y\0x", "\0", "é\0é", "y"];
    for (number, text) in texts.into_iter().enumerate() {
        put(backend, hub, &device(&number.to_string()), [json!({ "t": text }), json!({}), json!({})]).await;
    }
    let cases: &[(&str, &[&str])] = &[
        ("ENDS_WITH(tags.t, 'y')", &["0", "1", "5"]),
        ("ENDS_WITH(tags.t, 'xy')", &["1"]),
        ("ENDS_WITH(tags.t, 'é')", &["4"]),
        ("NOT ENDS_WITH(tags.t, 'x')", &["0", "1", "3", "4", "5"]),
        ("ENDS_WITH(tags.t, '')", &["0", "1", "2", "3", "4", "5"]),
        ("STARTS_WITH(tags.t, 'y')", &["2", "5"]),
        ("STARTS_WITH(tags.t, 'xy')", &["1"]),
        ("CONTAINS(tags.t, 'y')", &["0", "1", "2", "5"]),
        ("tags.t = 'y'", &["5"]),
        ("tags.t > 'y'", &["2", "4"]),
    ];
    for (condition, expected) in cases {
        let text = format!("SELECT * FROM devices WHERE {condition}");
        assert_eq!(names(backend, hub, &text).await, *expected, "{text}");
    }
}

pub async fn large_twins_come_in_bounded_pieces(backend: &Backend) {
    const LARGE: usize = 160;
    let hub = make_hub(&*backend.store, "hub").await;
    let members: Map<String, Value> = (0..7).map(|member| (format!("m{member}"), "x".repeat(4_000).into())).collect();
    for number in 0..LARGE {
        put(backend, hub, &device(&format!("dev-{number}")), [json!({}), json!(members), json!({})]).await;
    }
    let all = plan("SELECT * FROM devices");
    let first = backend.store.find_twins(hub, &all, None, 1_000).await.unwrap();
    assert!((100..LARGE).contains(&first.result.len()), "{}", first.result.len());
    assert!(first.result.iter().all(|found| found.bytes > 28_000));
    assert_eq!(first.next, first.result.last().map(|found| found.place));
    assert_eq!(find(backend, hub, "SELECT * FROM devices", 1_000).await.len(), LARGE);
}

pub async fn groups_are_counted_over_all_pieces(backend: &Backend) {
    let hub = scene(backend).await;
    let cases = [
        ("SELECT COUNT() AS n FROM devices", json!([{ "n": 3 }])),
        ("SELECT COUNT() AS n FROM devices WHERE tags.site = 'x'", json!([{ "n": 2 }])),
        ("SELECT COUNT() AS n FROM devices WHERE LOWER(tags.site) = 'x'", json!([{ "n": 2 }])),
        (
            "SELECT tags.site AS s, COUNT() AS n, SUM(properties.reported.rate) AS r FROM devices GROUP BY tags.site",
            json!([{ "s": "x", "n": 2, "r": 40 }, { "s": "y", "n": 1, "r": 20 }]),
        ),
        (
            "SELECT authenticationType AS a, COUNT() AS n FROM devices.modules GROUP BY authenticationType",
            json!([{ "a": "sas", "n": 2 }]),
        ),
        ("SELECT MAX(tags.floor) AS m FROM devices WHERE deviceId = 'two'", json!([{ "m": 2.0 }])),
    ];
    for (text, expected) in cases {
        assert_eq!(rows(backend, hub, text).await, Ok(expected), "{text}");
    }
}

/// Twins of one random test.
const TWINS_MAX: usize = 12;

/// Texts that stores are known to treat in their own way.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        Just("x".to_owned()),
        Just("X".to_owned()),
        Just("xy".to_owned()),
        Just("1".to_owned()),
        Just("true".to_owned()),
        Just("[1]".to_owned()),
        Just("{}".to_owned()),
        Just("é\"\\\u{1f600}".to_owned()),
        Just("x\u{0}y".to_owned()),
        Just("y".to_owned()),
        "[ -~]{0,6}",
        any::<String>().prop_map(|text| text.chars().take(8).collect()),
    ]
}

fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        (-3_i64..4).prop_map(|number| number.to_string()),
        (-3_i64..4).prop_map(|number| format!("{number}.0")),
        Just("1e0".to_owned()),
        Just("4503599627370495".to_owned()),
        Just("-0.0".to_owned()),
        (-1e3..1e3_f64).prop_map(|number| format!("{number:?}")),
        any::<f64>()
            .prop_filter("JSON has no others", |number| number.is_finite())
            .prop_map(|number| format!("{number:?}")),
    ]
}

const NAMES: [&str; 5] = ["a", "b", "é", "x-y", "from"];

fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<bool>().prop_map(Value::Bool),
        number().prop_map(|text| serde_json::from_str(&text).unwrap()),
        text().prop_map(Value::String),
        Just(json!([1, "x"])),
        Just(json!([])),
    ]
}

fn section() -> impl Strategy<Value = Value> {
    let name = || proptest::sample::select(&NAMES[..]).prop_map(str::to_owned);
    let members = move |value: BoxedStrategy<Value>| {
        proptest::collection::vec((name(), value), 0..4)
            .prop_map(|members| Value::Object(members.into_iter().collect::<Map<_, _>>()))
    };
    let inner = members(leaf().boxed());
    members(prop_oneof![4 => leaf(), 1 => inner].boxed())
}

fn path() -> impl Strategy<Value = String> {
    let root = proptest::sample::select(&["tags", "properties.desired", "properties.reported"][..]);
    let name = || proptest::sample::select(&NAMES[..]);
    prop_oneof![
        8 => (root, proptest::collection::vec(name(), 1..3)).prop_map(|(root, names)| {
            names.iter().fold(root.to_owned(), |path, name| format!("{path}.[[{name}]]"))
        }),
        1 => proptest::sample::select(&[
            "deviceId", "moduleId", "status", "connectionState", "capabilities.iotEdge", "modelId", "tags", "version",
            "properties.reported.$version", "lastActivityTime", "etag", "gone.gone",
        ][..]).prop_map(str::to_owned),
    ]
}

fn constant() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => text().prop_map(|text| Value::String(text).to_string()),
        3 => number(),
        1 => proptest::sample::select(&["true", "false", "null", "undefined", "'dev-1'", "'enabled'", "'2026-01-01'"][..])
            .prop_map(str::to_owned),
    ]
}

fn comparison() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(&["=", "!=", "<", "<=", ">", ">="][..])
}

fn atom() -> impl Strategy<Value = String> {
    let kinds = &["DEFINED", "NULL", "BOOL", "NUMBER", "STRING", "ARRAY", "OBJECT", "PRIMITIVE"][..];
    let parts = &["STARTS_WITH", "ENDS_WITH", "CONTAINS"][..];
    prop_oneof![
        6 => (path(), comparison(), constant()).prop_map(|(path, is, constant)| format!("{path} {is} {constant}")),
        1 => (constant(), comparison(), path()).prop_map(|(constant, is, path)| format!("{constant} {is} {path}")),
        2 => (path(), comparison(), path()).prop_map(|(one, is, other)| format!("{one} {is} {other}")),
        2 => (path(), any::<bool>(), proptest::collection::vec(constant(), 0..4)).prop_map(|(path, is_in, constants)| {
            format!("{path} {} [{}]", if is_in { "IN" } else { "NIN" }, constants.join(", "))
        }),
        2 => (proptest::sample::select(kinds), path()).prop_map(|(kind, path)| format!("IS_{kind}({path})")),
        2 => (proptest::sample::select(parts), path(), text()).prop_map(|(function, path, text)| {
            format!("{function}({path}, {})", Value::String(text))
        }),
        1 => path(),
        1 => (path(), number()).prop_map(|(path, number)| format!("{path} + 1 > {number}")),
        1 => (path(), text()).prop_map(|(path, text)| format!("LOWER({path}) = {}", Value::String(text))),
    ]
}

fn condition() -> impl Strategy<Value = String> {
    atom().prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|inner| format!("NOT ({inner})")),
            proptest::collection::vec(inner.clone(), 2..4).prop_map(|parts| format!("({})", parts.join(" AND "))),
            proptest::collection::vec(inner, 2..4).prop_map(|parts| format!("({})", parts.join(" OR "))),
        ]
    })
}

/// Some twins, and conditions to be asked of them.
#[derive(Clone, Debug)]
pub struct Asked {
    twins: Vec<[Value; 3]>,
    conditions: Vec<String>,
}

/// Random twins and conditions.
pub fn asked() -> impl Strategy<Value = Asked> {
    let twins = proptest::collection::vec((section(), section(), section()), 1..TWINS_MAX);
    (twins, proptest::collection::vec(condition(), 24)).prop_map(|(twins, conditions)| Asked {
        twins: twins.into_iter().map(|(tags, desired, reported)| [tags, desired, reported]).collect(),
        conditions,
    })
}

/// Has the backend and the evaluator judge the same twins by the same conditions.
pub async fn every_row_is_judged_as_the_evaluator_does(backend: &Backend, asked: &Asked) {
    let hub = make_hub(&*backend.store, "hub").await;
    for (number, sections) in asked.twins.iter().enumerate() {
        let name = if number % 4 == 3 {
            module(&format!("dev-{}", number - 1), "part")
        } else {
            device(&format!("dev-{number}"))
        };
        put(backend, hub, &name, sections.clone()).await;
    }
    for (collection, condition) in
        asked.conditions.iter().flat_map(|condition| [("devices", condition), ("devices.modules", condition)])
    {
        let text = format!("SELECT * FROM {collection} WHERE {condition}");
        let plan = plan(&text);
        let all = find(backend, hub, &format!("SELECT * FROM {collection}"), 100).await;
        let is_match = |found: &&Found| plan.matches(&document::of_twin(&found.twin, &found.identity));
        let expected: Vec<Place> = all.iter().filter(is_match).map(|found| found.place).collect();
        let found: Vec<Place> = find(backend, hub, &text, 2).await.iter().map(|found| found.place).collect();
        assert_eq!(found, expected, "{text}\nof {}", json!(asked.twins));
        let counted = rows(backend, hub, &format!("SELECT COUNT() AS n FROM {collection} WHERE {condition}")).await;
        assert_eq!(counted, Ok(json!([{ "n": expected.len() }])), "{text}");
    }
}
