//! What operators see of a digital twin, what a patch of it does to the twin, and that both tell of a change alike.

use serde_json::{Map, Value, json};

use super::*;
use crate::clock::UnixTime;
use crate::ids::{DeviceId, Etag};
use crate::operation::identity::IdentityName;
use crate::twin::ServiceChange;

const NOW: UnixTime = UnixTime::from_seconds(1_700_000_000);
const LATER: UnixTime = UnixTime::from_seconds(1_700_000_001);
const NOW_TEXT: &str = "2023-11-14T22:13:20.0000000Z";
const LATER_TEXT: &str = "2023-11-14T22:13:21.0000000Z";
const MODEL: &str = "dtmi:com:example:TemperatureController;1";

#[test]
fn a_digital_twin_shows_what_is_said_beside_what_is_wanted() {
    let mut twin = Twin::new(Etag::from_number(1));
    want(
        &mut twin,
        json!({ "fanSpeed": 2.0, "thermostat1": { "__t": "c", "targetTemperature": 21.8, "mode": { "eco": true } } }),
    );
    report(
        &mut twin,
        NOW,
        json!({
            "serialNumber": "alwinexlepaho8329",
            "fanSpeed": { "value": 3.0, "ac": 200, "av": 1, "ad": "done" },
            "thermostat1": { "__t": "c", "maxTempSinceLastReboot": 25.3 },
        }),
    );
    report(
        &mut twin,
        LATER,
        json!({ "thermostat1": { "__t": "c", "targetTemperature": { "value": 21.8, "ac": 203, "av": 2 } } }),
    );
    let shown = Value::Object(view(&twin, &identity()));
    assert_eq!(
        shown,
        json!({
            "$dtId": "dev-1",
            "serialNumber": "alwinexlepaho8329",
            "fanSpeed": 3.0,
            "thermostat1": {
                "maxTempSinceLastReboot": 25.3,
                "targetTemperature": 21.8,
                "$metadata": {
                    "maxTempSinceLastReboot": { "lastUpdateTime": NOW_TEXT },
                    "targetTemperature": {
                        "desiredValue": 21.8, "desiredVersion": 2, "ackVersion": 2, "ackCode": 203, "lastUpdateTime": LATER_TEXT,
                    },
                    "mode": { "desiredValue": { "eco": true }, "desiredVersion": 2 },
                },
            },
            "$metadata": {
                "$model": MODEL,
                "serialNumber": { "lastUpdateTime": NOW_TEXT },
                "fanSpeed": {
                    "desiredValue": 2.0, "desiredVersion": 2, "ackVersion": 1, "ackCode": 200, "ackDescription": "done",
                    "lastUpdateTime": NOW_TEXT,
                },
            },
        })
    );
}

#[test]
fn a_digital_twin_of_a_device_that_announced_nothing_is_empty() {
    let twin = Twin::new(Etag::from_number(1));
    let identity = Identity { model_id: None, ..identity() };
    let shown = Value::Object(view(&twin, &identity));
    assert_eq!(shown, json!({ "$dtId": "dev-1", "$metadata": { "$model": "" } }));
}

#[test]
fn a_patch_wants_exactly_what_it_names() {
    let wanted = json!({ "a": 1, "map": { "x": 1, "y": 2 }, "c1": { "__t": "c", "p": 1, "q": { "x": 1 } }, "c2": { "__t": "c", "p": 1 }, "c4": { "__t": "c" } });
    let set = |path: &str, value: Value| json!({ "op": "add", "path": path, "value": value });
    let remove = |path: &str| json!({ "op": "remove", "path": path });
    let cases = [
        ("nothing", json!([]), json!({})),
        ("a property", json!([set("/a", json!(2))]), json!({ "a": 2 })),
        ("the same value", json!([set("/a", json!(1))]), json!({ "a": 1 })),
        ("a fresh property", json!([{ "op": "replace", "path": "/b", "value": "x" }]), json!({ "b": "x" })),
        (
            "a complex value loses what it lacks",
            json!([set("/map", json!({ "y": 3 }))]),
            json!({ "map": { "x": null, "y": 3 } }),
        ),
        ("an empty complex value", json!([set("/map", json!({}))]), json!({ "map": { "x": null, "y": null } })),
        ("a property gone", json!([remove("/a")]), json!({ "a": null })),
        ("a property that is not there gone", json!([remove("/b")]), json!({})),
        ("in a component", json!([set("/c1/p", json!(2))]), json!({ "c1": { "__t": "c", "p": 2 } })),
        ("in a fresh component", json!([set("/c3/p", json!(2))]), json!({ "c3": { "__t": "c", "p": 2 } })),
        ("gone from a component", json!([remove("/c1/q")]), json!({ "c1": { "__t": "c", "q": null } })),
        ("gone from a component that lacks it", json!([remove("/c1/s")]), json!({})),
        ("gone from a component that is not there", json!([remove("/c9/s")]), json!({})),
        ("gone from an empty component", json!([remove("/c4/s")]), json!({})),
        ("put in a component and gone", json!([set("/c1/s", json!(1)), remove("/c1/s")]), json!({})),
        (
            "put in a component and gone, beside another",
            json!([set("/c1/s", json!(1)), set("/c1/p", json!(2)), remove("/c1/s")]),
            json!({ "c1": { "__t": "c", "p": 2 } }),
        ),
        ("the last gone from a component", json!([remove("/c2/p")]), json!({ "c2": null })),
        ("a component gone", json!([remove("/c1")]), json!({ "c1": null })),
        (
            "a component replaced",
            json!([set("/c1", json!({ "r": 1, "$metadata": {} }))]),
            json!({ "c1": { "__t": "c", "p": null, "q": null, "r": 1 } }),
        ),
        (
            "a component emptied",
            json!([set("/c1", json!({ "$metadata": {} }))]),
            json!({ "c1": { "__t": "c", "p": null, "q": null } }),
        ),
        (
            "a component removed and set again",
            json!([remove("/c1"), set("/c1/p", json!(5))]),
            json!({ "c1": { "__t": "c", "p": 5, "q": null } }),
        ),
        (
            "the later wins",
            json!([set("/a", json!(2)), set("/a", json!(3)), set("/c3/p", json!(1)), remove("/c3")]),
            json!({ "a": 3 }),
        ),
        (
            "a property that becomes a component",
            json!([remove("/map"), set("/map/p", json!(1))]),
            json!({ "map": { "x": null, "y": null, "__t": "c", "p": 1 } }),
        ),
    ];
    for (name, patch, expected) in cases {
        let mut twin = Twin::new(Etag::from_number(1));
        want(&mut twin, wanted.clone());
        let plan = Patch::parse(&patch).unwrap().plan(&twin).unwrap();
        assert_eq!(Value::Object(plan), expected, "{name}");
    }
}

#[test]
fn what_no_property_can_be_is_refused() {
    let path = |path: &str| InvalidPatch::Path { path: path.to_owned() };
    let value = |path: &str| InvalidPatch::Value { path: path.to_owned() };
    let add = |path: &str, value: Value| json!([{ "op": "add", "path": path, "value": value }]);
    let deepest = json!({ "a": { "a": { "a": { "a": { "a": 1 } } } } });
    let too_deep = json!({ "a": deepest });
    let many: Vec<Value> = vec![json!({ "op": "remove", "path": "/a" }); OPERATIONS_MAX + 1];
    let cases = [
        (json!({}), InvalidPatch::NotAList),
        (Value::Array(many), InvalidPatch::TooMany),
        (json!([1]), InvalidPatch::Operation),
        (json!([{ "path": "/a" }]), InvalidPatch::Operation),
        (json!([{ "op": "test", "path": "/a", "value": 1 }]), InvalidPatch::Operation),
        (json!([{ "op": "move", "path": "/a", "from": "/b" }]), InvalidPatch::Operation),
        (json!([{ "op": "remove" }]), path("")),
        (json!([{ "op": "remove", "path": 7 }]), path("")),
        (add("a", json!(1)), path("a")),
        (add("/", json!(1)), path("/")),
        (add("/a/b/c", json!(1)), path("/a/b/c")),
        (add("/a/", json!(1)), path("/a/")),
        (add("/$metadata/$model", json!(1)), path("/$metadata/$model")),
        (add("/$dtId", json!("x")), path("/$dtId")),
        (add("/a~1b", json!(1)), path("/a~1b")),
        (json!([{ "op": "replace", "path": "/a" }]), InvalidPatch::NoValue { path: "/a".to_owned() }),
        (add("/a", Value::Null), value("/a")),
        (add("/a", json!([1])), value("/a")),
        (add("/a", json!({ "b": [1] })), value("/a")),
        (add("/a", json!({ "b": null })), value("/a")),
        (add("/a", json!({ "b c": 1 })), value("/a")),
        (add("/a", too_deep), value("/a")),
        (add("/a", json!({ "b": 1, "$metadata": { "x": 1 } })), value("/a")),
        (add("/a/b", json!({ "$metadata": {} })), value("/a/b")),
        (add("/a", json!({ "__t": "c", "$metadata": {} })), value("/a")),
    ];
    for (patch, expected) in cases {
        assert_eq!(Patch::parse(&patch), Err(expected), "{patch}");
    }
    assert!(Patch::parse(&add("/a", deepest)).is_ok());
}

#[test]
fn components_and_properties_do_not_take_each_others_names() {
    let mut twin = Twin::new(Etag::from_number(1));
    want(&mut twin, json!({ "p": 1, "c": { "__t": "c", "x": 1 } }));
    report(&mut twin, NOW, json!({ "rp": 1, "rc": { "__t": "c", "x": 1 } }));
    let marked = json!({ "x": 2, "$metadata": {} });
    for (path, value, name) in [
        ("/p/x", json!(1), "p"),
        ("/p", marked.clone(), "p"),
        ("/rp/x", json!(1), "rp"),
        ("/rp", marked, "rp"),
        ("/c", json!(1), "c"),
        ("/c", json!({ "x": 2 }), "c"),
        ("/rc", json!({ "x": 2 }), "rc"),
    ] {
        let patch = Patch::parse(&json!([{ "op": "add", "path": path, "value": value }])).unwrap();
        assert_eq!(patch.plan(&twin), Err(InvalidPatch::NotConformant { name: name.to_owned() }), "{path}");
    }
}

#[test]
fn a_difference_leads_from_the_one_document_to_the_other() {
    let cases = [
        (json!({ "a": 1 }), json!({ "a": 1 }), json!([])),
        (json!({}), json!({ "a": { "b": 1 } }), json!([{ "op": "add", "path": "/a", "value": { "b": 1 } }])),
        (
            json!({ "a": 1 }),
            json!({ "a": { "b": 1 } }),
            json!([{ "op": "replace", "path": "/a", "value": { "b": 1 } }]),
        ),
        (
            json!({ "c": { "p": 1, "q": 2, "$metadata": { "p": { "v": 1 } } } }),
            json!({ "c": { "p": 3, "$metadata": { "p": { "v": 2, "w": 1 } } } }),
            json!([
                { "op": "remove", "path": "/c/q" },
                { "op": "replace", "path": "/c/p", "value": 3 },
                { "op": "replace", "path": "/c/$metadata/p/v", "value": 2 },
                { "op": "add", "path": "/c/$metadata/p/w", "value": 1 },
            ]),
        ),
        (json!({ "a/b~c": 1 }), json!({}), json!([{ "op": "remove", "path": "/a~1b~0c" }])),
    ];
    for (before, after, expected) in cases {
        assert_eq!(Value::Array(difference(&object(before), &object(after))), expected);
    }
}

fn identity() -> Identity {
    let name = IdentityName::device(DeviceId::parse("dev-1").unwrap());
    Identity { model_id: Some(MODEL.to_owned()), ..Identity::blank(name) }
}

fn want(twin: &mut Twin, desired: Value) {
    let change = ServiceChange { tags: None, desired: Some(object(desired)) };
    twin.apply_service_patch(change, Etag::from_number(2), NOW).unwrap();
}

fn report(twin: &mut Twin, at: UnixTime, patch: Value) {
    twin.apply_reported(object(patch), at).unwrap();
}

fn object(value: Value) -> Map<String, Value> {
    let Value::Object(object) = value else { panic!("no object: {value}") };
    object
}
