//! Bodies of any kind are an identity, a list of changes, a request for fresh keys, a twin, a call of a method, an import or
//! one of its lines, or are refused; an identity can be put as shown, and imported as exported.

use bytes::Bytes;
use dialect::http::Target;
use dialect::hub::registry_json::{parse_identity, show_identity};
use dialect::hub::service_http;
use dialect::hub::transfer_json::{parse_line, show_line};
use domain::clock::{SeededEntropy, UnixTime};
use domain::identity::Identity;
use domain::ids::{DeviceId, Etag, ModuleId};
use domain::operation::identity::IdentityName;
use domain::transfer::{Change, ImportFile, Line};
use domain::twin::Twin;
use http::Request;
use serde_json::Value;

/// Reads `input` as the body of every request that takes one.
///
/// # Panics
/// When an accepted identity cannot be put again as it is shown.
pub fn check(input: &[u8]) {
    for (method, target) in [
        ("PUT", "/devices/dev-1?api-version=2021-04-12"),
        ("PUT", "/devices/dev-1/modules/part?api-version=2021-04-12"),
        ("POST", "/devices?api-version=2021-04-12"),
        ("POST", "/devices/keys/regenerate?api-version=2021-04-12"),
        ("POST", "/jobs/create?api-version=2021-04-12"),
        ("PATCH", "/twins/dev-1?api-version=2021-04-12"),
        ("PUT", "/twins/dev-1/modules/part?api-version=2021-04-12"),
        ("POST", "/twins/dev-1/methods?api-version=2021-04-12"),
        ("PATCH", "/digitaltwins/dev-1?api-version=2021-04-12"),
        ("POST", "/digitaltwins/dev-1/components/c/commands/reboot?api-version=2021-04-12"),
    ] {
        let body = Bytes::copy_from_slice(input);
        let request = Request::builder().method(method).uri(target).body(body).expect("a request");
        let target = Target::parse(request.uri()).expect("a target");
        let _ = service_http::decode(&request, &target);
    }
    let _ = parse_line(ImportFile::Configurations, 1, input);
    let _ = parse_line(ImportFile::Identities, 1, input);
    let Ok(body) = dialect::json::parse(input) else { return };
    let device = DeviceId::parse("dev-1").expect("a device ID");
    let module = ModuleId::parse("part").expect("a module ID");
    for module in [None, Some(module)] {
        check_identity(&IdentityName { device: device.clone(), module }, &body);
    }
}

fn accepted(name: &IdentityName, body: &Value) -> Option<Identity> {
    let draft = parse_identity(name.clone(), body).ok()?;
    let identity = draft.check(&SeededEntropy::new(1)).ok()?;
    Some(identity.created(Etag::from_number(1), UnixTime::from_seconds(1_800_000_000)))
}

fn check_identity(name: &IdentityName, body: &Value) {
    let Some(identity) = accepted(name, body) else { return };
    assert_eq!(identity.name, *name);
    let shown = show_identity(&identity);
    let again = accepted(name, &shown).unwrap_or_else(|| panic!("what a client was shown can be put again: {shown}"));
    assert_eq!(show_identity(&again), shown);
    let line = show_line(&identity, &Twin::new(Etag::from_number(1)), true);
    let read = parse_line(ImportFile::Identities, 1, line.as_bytes())
        .unwrap_or_else(|fault| panic!("what is exported can be imported: {fault:?}"));
    let Line::Identity(_, Change::Put { identity: draft, .. }) = read else {
        panic!("a line without a mode is put: {line}")
    };
    let again = draft.check(&SeededEntropy::new(1)).expect("it was checked before");
    assert_eq!(again.authentication, identity.authentication);
}
