use domain::clock::{SeededEntropy, UnixTime};
use domain::enrollment::merge;
use proptest::prelude::*;

use super::*;

const ENTROPY_SEED: u64 = 11;

#[derive(serde::Deserialize)]
struct Entry {
    source: String,
    kind: String,
    before: Option<Value>,
    body: Value,
    shown: Value,
}

/// Replaces `{pem NAME}`, `{der NAME}` and `{pem64 NAME}` by a certificate of `testdata/certificates`.
fn filled_in(value: &Value) -> Value {
    let certificate = |text: &str| {
        let (form, name) = text.strip_prefix('{')?.strip_suffix('}')?.split_once(' ')?;
        let path = format!("{}/../../testdata/certificates/{name}.pem", env!("CARGO_MANIFEST_DIR"));
        let pem = std::fs::read_to_string(path).unwrap();
        Some(match form {
            "pem" => pem,
            "pem64" => STANDARD.encode(pem),
            "der" => pem.lines().filter(|line| !line.starts_with('-')).collect(),
            other => panic!("{other}"),
        })
    };
    match value {
        Value::String(text) => certificate(text).map_or_else(|| value.clone(), Value::String),
        Value::Array(items) => items.iter().map(filled_in).collect(),
        Value::Object(members) => {
            members.iter().map(|(name, member)| (name.clone(), filled_in(member))).collect::<Map<_, _>>().into()
        }
        _ => value.clone(),
    }
}

fn merged(kind: EntryKind, body: &Value, before: Option<&Enrollment>) -> Enrollment {
    let draft = parse_draft(kind, None, &filled_in(body)).unwrap();
    Enrollment {
        created_at: UnixTime::from_micros(1_706_702_400_123_456),
        updated_at: UnixTime::from_micros(1_706_702_401_123_456),
        etag: Etag::from_number(7),
        ..merge(draft, before, &SeededEntropy::new(ENTROPY_SEED)).unwrap()
    }
}

fn individual(attestation: &Value) -> Value {
    json!({ "registrationId": "dev-1", "attestation": attestation })
}

fn entries() -> Vec<Entry> {
    serde_json::from_str(include_str!("../../../../../testdata/wire/provisioning/entries.json")).unwrap()
}

fn kind_named(name: &str) -> EntryKind {
    if name == "group" { EntryKind::Group } else { EntryKind::Individual }
}

#[test]
fn every_entry_is_shown_as_it_was_written_in_the_services_order() {
    for Entry { source, kind, before, body, shown } in entries() {
        let kind = kind_named(&kind);
        let before = before.map(|before| merged(kind, &before, None));
        let entry = merged(kind, &body, before.as_ref());
        assert_eq!(show(&entry, Keys::Shown, None).to_string(), shown.to_string(), "{source}");
    }
}

#[test]
fn what_was_shown_can_be_sent_back_and_changes_nothing() {
    for Entry { source, kind, body, shown, .. } in entries().into_iter().filter(|entry| entry.before.is_none()) {
        let kind = kind_named(&kind);
        let entry = merged(kind, &body, None);
        let hidden = show(&entry, Keys::Hidden, None);
        let again = merged(kind, &hidden, Some(&entry));
        assert_eq!(show(&again, Keys::Shown, None), shown, "{source}");
    }
}

#[test]
fn keys_that_nobody_gave_are_made_and_shown_to_whoever_created_the_entry() {
    for attestation in [
        json!({ "type": "symmetricKey" }),
        json!({ "type": "symmetricKey", "symmetricKey": {} }),
        json!({ "type": "symmetricKey", "symmetricKey": { "primaryKey": null, "secondaryKey": null } }),
    ] {
        let entry = merged(EntryKind::Individual, &individual(&attestation), None);
        let shown = show(&entry, Keys::Shown, None);
        let keys = &shown["attestation"]["symmetricKey"];
        assert!(SymmetricKey::parse(keys["primaryKey"].as_str().unwrap()).is_ok());
        assert_ne!(keys["primaryKey"], keys["secondaryKey"]);
        let hidden = show(&entry, Keys::Hidden, None);
        assert_eq!(hidden["attestation"], json!({ "type": "symmetricKey" }));
    }
}

/// The six digits of the refusal, for each kind of value; `None` where it is taken.
#[test]
fn each_member_has_an_answer_whatever_it_is() {
    const TYPE: Option<u32> = Some(400_012);
    const VALUE: Option<u32> = Some(400_004);
    let long = json!("x".repeat(3_000));
    let (number, list, object) = (json!(1), json!(["a"]), json!({ "a": 1 }));
    let null = Value::Null;
    // Columns: null, a long text, a number, a list, an object.
    #[rustfmt::skip]
    let table: &[(&str, [Option<u32>; 5])] = &[
        ("registrationId", [TYPE, VALUE, TYPE, TYPE, TYPE]),
        ("deviceId", [None, VALUE, TYPE, TYPE, TYPE]),
        ("attestation", [TYPE, TYPE, TYPE, TYPE, TYPE]),
        ("attestation.type", [TYPE, VALUE, TYPE, TYPE, TYPE]),
        ("attestation.symmetricKey", [None, TYPE, TYPE, TYPE, None]),
        ("attestation.symmetricKey.primaryKey", [None, VALUE, TYPE, TYPE, TYPE]),
        ("attestation.symmetricKey.secondaryKey", [None, VALUE, TYPE, TYPE, TYPE]),
        ("capabilities", [None, TYPE, TYPE, TYPE, None]),
        ("capabilities.iotEdge", [None, TYPE, TYPE, TYPE, TYPE]),
        ("iotHubHostName", [None, None, TYPE, TYPE, TYPE]),
        ("initialTwin", [None, TYPE, TYPE, TYPE, None]),
        ("initialTwin.tags", [None, TYPE, TYPE, TYPE, None]),
        ("initialTwin.properties", [None, TYPE, TYPE, TYPE, None]),
        ("initialTwin.properties.desired", [None, TYPE, TYPE, TYPE, None]),
        ("optionalDeviceInformation", [None, TYPE, TYPE, TYPE, None]),
        ("etag", [None, None, None, None, None]),
        ("provisioningStatus", [None, VALUE, VALUE, VALUE, VALUE]),
        ("reprovisionPolicy", [None, TYPE, TYPE, TYPE, None]),
        ("reprovisionPolicy.updateHubAssignment", [None, TYPE, TYPE, TYPE, TYPE]),
        ("reprovisionPolicy.migrateDeviceData", [None, TYPE, TYPE, TYPE, TYPE]),
        ("allocationPolicy", [None, VALUE, TYPE, TYPE, TYPE]),
        ("iotHubs", [None, VALUE, VALUE, None, VALUE]),
        ("customAllocationDefinition", [None, TYPE, TYPE, TYPE, None]),
        ("customAllocationDefinition.webhookUrl", [None, None, TYPE, TYPE, TYPE]),
        ("customAllocationDefinition.apiVersion", [None, None, TYPE, TYPE, TYPE]),
        ("registrationState", [None, None, None, None, None]),
        ("createdDateTimeUtc", [None, None, None, None, None]),
        ("unknown", [None, None, None, None, None]),
    ];
    for (path, expected) in table {
        for (value, expected) in [&null, &long, &number, &list, &object].into_iter().zip(expected) {
            let mut body = individual(&json!({ "type": "symmetricKey" }));
            place(&mut body, path, value);
            assert_eq!(refusal_of(EntryKind::Individual, &body), *expected, "{path}: {value:.40}");
        }
    }
}

#[test]
fn each_member_of_other_mechanisms_has_an_answer_whatever_it_is() {
    let tpm = |member: &str, value: Value| {
        let mut body = individual(&json!({ "type": "tpm", "tpm": { "endorsementKey": "AA==" } }));
        place(&mut body, member, &value);
        refusal_of(EntryKind::Individual, &body)
    };
    assert_eq!(tpm("attestation.tpm", Value::Null), Some(400_012));
    assert_eq!(tpm("attestation.tpm.endorsementKey", Value::Null), Some(400_012));
    assert_eq!(tpm("attestation.tpm.endorsementKey", json!("?")), Some(400_004));
    assert_eq!(tpm("attestation.tpm.endorsementKey", json!(1)), Some(400_012));
    assert_eq!(tpm("attestation.tpm.storageRootKey", json!("AA==")), None);
    assert_eq!(tpm("attestation.tpm.storageRootKey", json!("?")), Some(400_004));
    for mechanism in ["none", "x", ""] {
        assert_eq!(tpm("attestation.type", json!(mechanism)), Some(400_004), "{mechanism}");
    }

    let x509 = |member: &str, value: Value| {
        let mut body = json!({ "enrollmentGroupId": "g", "attestation": { "type": "x509", "x509": {} } });
        place(&mut body, member, &value);
        refusal_of(EntryKind::Group, &body)
    };
    let signing = "attestation.x509.signingCertificates.primary";
    assert_eq!(x509("attestation.x509", Value::Null), Some(400_012));
    assert_eq!(x509("attestation.x509.signingCertificates", json!("x")), Some(400_012));
    assert_eq!(x509(signing, json!("x")), Some(400_012));
    assert_eq!(x509(&format!("{signing}.certificate"), json!(1)), Some(400_012));
    for text in ["x", "AAAA", "-----BEGIN CERTIFICATE-----\n", &"A".repeat(1 << 20)] {
        assert_eq!(x509(&format!("{signing}.certificate"), json!(text)), Some(400_004), "{text:.30}");
    }
    assert_eq!(x509(&format!("{signing}.info"), json!("x")), Some(400_012));
    assert_eq!(x509(&format!("{signing}.info.sha256Thumbprint"), json!(1)), Some(400_012));
    assert_eq!(x509("attestation.x509.caReferences", json!([])), Some(400_012));
    assert_eq!(x509("attestation.x509.caReferences.primary", json!("a b")), Some(400_004));
    assert_eq!(x509("attestation.x509.caReferences.primary", json!(1)), Some(400_012));
    let tpm =
        json!({ "enrollmentGroupId": "g", "attestation": { "type": "tpm", "tpm": { "endorsementKey": "AA==" } } });
    assert_eq!(refusal_of(EntryKind::Group, &tpm), Some(400_004));
}

#[test]
fn no_refusal_repeats_a_key() {
    let secret = "c2VjcmV0";
    let attestation = json!({ "type": "symmetricKey", "symmetricKey": { "primaryKey": secret } });
    let refused = parse_draft(EntryKind::Individual, None, &individual(&attestation)).unwrap_err();
    assert!(!refused.to_string().contains(secret), "{refused}");
}

/// Puts `value` where the dots lead, making objects on the way.
fn place(body: &mut Value, path: &str, value: &Value) {
    let mut at = body;
    for name in path.split('.') {
        if !at.is_object() {
            *at = json!({});
        }
        at = at.as_object_mut().unwrap().entry(name).or_insert(Value::Null);
    }
    *at = value.clone();
}

fn refusal_of(kind: EntryKind, body: &Value) -> Option<u32> {
    let invalid = parse_draft(kind, None, body).err()?;
    let refused = crate::error::Refused::from(invalid);
    Some(crate::error::spelling(refused.kind).provisioning)
}

#[test]
fn etags_look_like_azures_and_no_other_spelling_is_read() {
    let cases = [
        (0, "\"00000000-0000-0000-0000-000000000000\""),
        (7, "\"00000000-0000-0000-0000-000000000007\""),
        ((3 << 48) | 0xffff_ffff_ffff, "\"00000003-0000-0000-0000-ffffffffffff\""),
    ];
    for (number, decoded) in cases {
        let etag = Etag::from_number(number);
        let text = etag_text(etag);
        assert_eq!(STANDARD.decode(&text).unwrap(), decoded.as_bytes());
        assert_eq!(parse_etag(&text), Some(etag));
        assert_eq!(parse_etag(&STANDARD.encode(decoded.trim_matches('"'))), None, "without its quotes");
        assert_eq!(parse_etag(decoded), None, "not encoded");
    }
    for text in ["", "AA==", "\"00010000-0000-0000-0000-000000000000\"", "\"+0000001-0000-0000-0000-000000000007\""] {
        assert_eq!(parse_etag(&STANDARD.encode(text)), None, "{text}");
    }
}

proptest! {
    #[test]
    fn etags_survive_being_written_and_read(number: u64) {
        prop_assert_eq!(parse_etag(&etag_text(Etag::from_number(number))), Some(Etag::from_number(number)));
    }

    #[test]
    fn no_body_panics(text in "[\\{\\[\"a-z:,0-9\\]\\}]{0,60}", path in 0_usize..8, kind in any::<bool>()) {
        const PATHS: [&str; 8] = [
            "attestation", "attestation.x509.clientCertificates.primary.certificate", "attestation.tpm.endorsementKey",
            "initialTwin.tags", "iotHubs", "deviceId", "capabilities.iotEdge", "provisioningStatus",
        ];
        let mut body = individual(&json!({ "type": "x509" }));
        place(&mut body, PATHS[path], &serde_json::from_str(&text).unwrap_or(Value::String(text)));
        let kind = if kind { EntryKind::Group } else { EntryKind::Individual };
        let _ = parse_draft(kind, Some("dev-1"), &body);
    }
}
