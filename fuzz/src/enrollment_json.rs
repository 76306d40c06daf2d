//! Bodies of any kind are an enrollment or are refused; one that is accepted can be shown, and put again as shown.

use bytes::Bytes;
use dialect::http::Target;
use dialect::provisioning::service_http;
use dialect::provisioning::service_json::{Keys, parse_draft, show};
use domain::clock::SeededEntropy;
use domain::enrollment::{Enrollment, EntryKind, merge};
use http::Request;
use serde_json::Value;

/// Reads `input` as the body of every request that takes one.
///
/// # Panics
/// When an accepted enrollment cannot be put again, or shows a key that is to be hidden.
pub fn check(input: &[u8]) {
    for (method, target) in [
        ("PUT", "/enrollments/dev-1?api-version=2021-10-01"),
        ("PUT", "/enrollmentGroups/fleet?api-version=2021-10-01"),
        ("POST", "/enrollments?api-version=2021-10-01"),
        ("POST", "/enrollmentGroups?api-version=2021-10-01"),
        ("POST", "/enrollments/query?api-version=2021-10-01"),
        ("POST", "/registrations/fleet/query?api-version=2021-10-01"),
    ] {
        let body = Bytes::copy_from_slice(input);
        let request = Request::builder().method(method).uri(target).body(body).expect("a request");
        let target = Target::parse(request.uri()).expect("a target");
        let _ = service_http::decode(&request, &target);
    }
    let Ok(body) = dialect::json::parse(input) else { return };
    for (kind, id) in [(EntryKind::Individual, "dev-1"), (EntryKind::Group, "fleet")] {
        if let Some(entry) = accepted(kind, id, &body, None) {
            check_entry(kind, id, &entry);
        }
    }
}

fn accepted(kind: EntryKind, id: &str, body: &Value, stored: Option<&Enrollment>) -> Option<Enrollment> {
    let draft = parse_draft(kind, Some(id), body).ok()?;
    merge(draft, stored, &SeededEntropy::new(1)).ok()
}

fn check_entry(kind: EntryKind, id: &str, entry: &Enrollment) {
    assert_eq!((entry.name.kind(), entry.name.as_str().to_ascii_lowercase()), (kind, id.to_owned()));
    let shown = show(entry, Keys::Hidden, None);
    let hidden = ["/attestation/symmetricKey/primaryKey", "/attestation/symmetricKey/secondaryKey"];
    assert!(hidden.iter().all(|key| shown.pointer(key).is_none()), "{shown}");
    let again = accepted(kind, id, &shown, Some(entry)).expect("what a client was shown can be put again");
    assert_eq!(again.attestation, entry.attestation);
    assert_eq!(show(&again, Keys::Shown, None), show(entry, Keys::Shown, None));
}
