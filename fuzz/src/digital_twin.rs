//! Patches of digital twins of any kind, one after another: each means a change that can be made again without effect, and
//! the difference between two views leads from the one to the other.

use domain::clock::UnixTime;
use domain::digital_twin::{Patch, difference, view};
use domain::identity::Identity;
use domain::ids::{DeviceId, Etag};
use domain::operation::identity::IdentityName;
use domain::twin::{ServiceChange, Twin, parse_patch};
use serde_json::{Map, Value};

const NOW: UnixTime = UnixTime::from_seconds(1_800_000_000);

/// Reads `input` as lines: `d` and `r` before a merge patch of desired or of reported properties, everything else before a
/// patch of the digital twin.
///
/// # Panics
/// When a promise of digital twins is broken.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let identity = Identity::blank(IdentityName::device(DeviceId::parse("dev-1").expect("a device ID")));
    let mut twin = Twin::new(Etag::from_number(1));
    for line in text.lines() {
        let Some(how) = line.chars().next() else { continue };
        let rest = line.get(how.len_utf8()..).unwrap_or_default();
        let before = view(&twin, &identity);
        match how {
            'r' => drop(parse_patch(rest).map(|patch| twin.apply_reported(patch, NOW))),
            'd' => drop(parse_patch(rest).map(|patch| want(&mut twin, patch))),
            _ => patch(&mut twin, rest),
        }
        let after = view(&twin, &identity);
        let mut led = before.clone();
        for operation in difference(&before, &after) {
            carry_out(&mut led, &operation);
        }
        assert_eq!(led, after, "the difference leads elsewhere");
    }
}

fn want(twin: &mut Twin, desired: Map<String, Value>) -> bool {
    let change = ServiceChange { tags: None, desired: Some(desired) };
    twin.apply_service_patch(change, Etag::from_number(2), NOW).is_ok()
}

fn patch(twin: &mut Twin, text: &str) {
    let Ok(patch) =
        serde_json::from_str::<Value>(text).map_err(drop).and_then(|body| Patch::parse(&body).map_err(drop))
    else {
        return;
    };
    let Ok(planned) = patch.plan(twin) else { return };
    if !planned.is_empty() && want(twin, planned) {
        let once = twin.desired.document().clone();
        // What is removed first and set then may not stand on what the first time left.
        if let Ok(again) = patch.plan(twin) {
            let _ = again.is_empty() || want(twin, again);
            assert_eq!(*twin.desired.document(), once, "a patch made twice means something else");
        }
    }
}

fn carry_out(document: &mut Map<String, Value>, operation: &Value) {
    let path = operation["path"].as_str().expect("a path");
    let mut steps: Vec<_> = path.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~")).collect();
    let last = steps.pop().expect("a path has a step");
    let place = steps.iter().fold(document, |place, step| {
        place.get_mut(step).and_then(Value::as_object_mut).expect("the way is made of objects")
    });
    match operation["op"].as_str() {
        Some("remove") => assert!(place.shift_remove(&last).is_some(), "only what is there goes"),
        Some(op) => {
            let before = place.insert(last, operation["value"].clone());
            assert_eq!(before.is_some(), op == "replace", "only what is there is replaced");
        }
        None => panic!("no operation"),
    }
}
