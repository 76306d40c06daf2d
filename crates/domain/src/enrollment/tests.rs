use super::*;
use crate::certificate::maker::Plan;
use crate::clock::SeededEntropy;
use crate::twin::{KeyFault, PatchError};

const ENTROPY_SEED: u64 = 5;

fn individual(id: &str) -> EntryName {
    EntryName::Individual(RegistrationId::parse(id).unwrap())
}

fn group(id: &str) -> EntryName {
    EntryName::Group(EnrollmentGroupId::parse(id).unwrap())
}

fn key(byte: u8) -> SymmetricKey {
    SymmetricKey::from_bytes(&[byte; 32]).unwrap()
}

fn draft(name: EntryName, attestation: AttestationDraft) -> Draft {
    Draft { name, attestation, terms: Terms::default() }
}

fn keys(primary: Option<u8>, secondary: Option<u8>) -> AttestationDraft {
    AttestationDraft::SymmetricKey(Slots { primary: primary.map(key), secondary: secondary.map(key) })
}

fn client(primary: Option<CertificateDraft>, secondary: Option<CertificateDraft>) -> AttestationDraft {
    AttestationDraft::X509 { client: Some(Slots { primary, secondary }), signing: None, references: None }
}

fn merged(draft: Draft, stored: Option<&Enrollment>) -> Result<Enrollment, InvalidEnrollment> {
    merge(draft, stored, &SeededEntropy::new(ENTROPY_SEED))
}

fn pair(enrollment: &Enrollment) -> &KeyPair {
    match &enrollment.attestation {
        Attestation::SymmetricKey(keys) => keys,
        other => panic!("{other:?}"),
    }
}

#[test]
fn keys_left_out_are_generated_at_first_and_kept_later() {
    let first = merged(draft(individual("dev-1"), keys(None, None)), None).unwrap();
    assert_ne!(pair(&first).primary, pair(&first).secondary);

    let cases: &[(&str, AttestationDraft, SymmetricKey, SymmetricKey)] = &[
        ("none given", keys(None, None), pair(&first).primary.clone(), pair(&first).secondary.clone()),
        ("primary given", keys(Some(1), None), key(1), pair(&first).secondary.clone()),
        ("both given", keys(Some(1), Some(2)), key(1), key(2)),
    ];
    for (name, attestation, primary, secondary) in cases {
        let second = merged(draft(individual("dev-1"), attestation.clone()), Some(&first)).unwrap();
        assert_eq!((&pair(&second).primary, &pair(&second).secondary), (primary, secondary), "{name}");
    }

    let certificate = CertificateDraft::Given(Plan::leaf("dev-1").self_signed().certificate);
    let other = merged(draft(individual("dev-1"), client(Some(certificate), None)), Some(&first)).unwrap();
    assert!(merged(draft(individual("dev-1"), keys(None, None)), Some(&other)).is_ok(), "generated afresh");
}

#[test]
fn a_certificate_that_is_only_described_is_the_stored_one() {
    let (one, two) = (Plan::leaf("dev-1").self_signed().certificate, Plan::leaf("dev-1").self_signed().certificate);
    let given = |certificate: &Certificate| Some(CertificateDraft::Given(certificate.clone()));
    let described = |sha256: Option<&str>| Some(CertificateDraft::Kept { sha256: sha256.map(str::to_owned) });
    let stored = merged(draft(individual("dev-1"), client(given(&one), given(&two))), None).unwrap();
    let lower = one.sha256_hex().to_lowercase();

    let slots = |primary: Option<&Certificate>, secondary: Option<&Certificate>| {
        Ok(X509Attestation::Client(Slots { primary: primary.cloned(), secondary: secondary.cloned() }))
    };
    let cases: &[(&str, AttestationDraft, Result<X509Attestation, InvalidEnrollment>)] = &[
        ("by slot", client(described(None), described(None)), slots(Some(&one), Some(&two))),
        ("by thumbprint, moved", client(None, described(Some(&lower))), slots(None, Some(&one))),
        ("removed", client(None, described(None)), slots(None, Some(&two))),
        ("one replaced", client(given(&two), described(None)), slots(Some(&two), Some(&two))),
        ("unknown thumbprint", client(described(Some("00")), None), Err(InvalidEnrollment::NothingToKeep)),
        ("all removed", client(None, None), Err(InvalidEnrollment::NoCertificate)),
    ];
    for (name, attestation, expected) in cases {
        let result = merged(draft(individual("dev-1"), attestation.clone()), Some(&stored));
        let attestation = result.map(|enrollment| match enrollment.attestation {
            Attestation::X509(x509) => x509,
            other => panic!("{other:?}"),
        });
        assert_eq!(attestation, *expected, "{name}");
    }
    let nothing_stored = merged(draft(individual("dev-1"), client(described(None), None)), None);
    assert_eq!(nothing_stored.unwrap_err(), InvalidEnrollment::NothingToKeep);
}

#[test]
fn what_a_kind_of_entry_cannot_demand_is_refused() {
    let certificate = CertificateDraft::Given(Plan::authority("ca").self_signed().certificate);
    let slots = || Some(Slots { primary: Some(certificate.clone()), secondary: None });
    let references = || Some(Slots { primary: Some(CertificateName::parse("ca").unwrap()), secondary: None });
    let x509 = |client, signing, references| AttestationDraft::X509 { client, signing, references };
    let tpm = |key: &[u8]| {
        AttestationDraft::Tpm(TpmAttestation {
            endorsement_key: PublicArea(key.to_vec()),
            storage_root_key: Some(PublicArea(vec![7])),
        })
    };
    let long = "a".repeat(65);
    let cases: &[(&str, EntryName, AttestationDraft, Option<InvalidEnrollment>)] = &[
        ("TPM", individual("d"), tpm(b"ek"), None),
        ("TPM of a group", group("g"), tpm(b"ek"), Some(InvalidEnrollment::TpmForGroup)),
        ("TPM with a long key", individual("d"), tpm(&[7; 1_025]), Some(InvalidEnrollment::PublicArea)),
        ("TPM without a key", individual("d"), tpm(b""), Some(InvalidEnrollment::EndorsementKey)),
        ("signing", group("g"), x509(None, slots(), None), None),
        (
            "client of a group",
            group("g"),
            x509(slots(), None, None),
            Some(InvalidEnrollment::ClientCertificateForGroup),
        ),
        (
            "signing of an individual",
            individual("d"),
            x509(None, slots(), None),
            Some(InvalidEnrollment::SigningCertificateForIndividual),
        ),
        ("references", individual("d"), x509(None, None, references()), None),
        ("references of a group", group("g"), x509(None, None, references()), None),
        ("two kinds", group("g"), x509(None, slots(), references()), Some(InvalidEnrollment::CertificateKinds)),
        ("no kind", group("g"), x509(None, None, None), Some(InvalidEnrollment::CertificateKinds)),
        ("no reference", group("g"), x509(None, None, Some(Slots::default())), Some(InvalidEnrollment::NoCertificate)),
        ("long ID", individual(&long), x509(slots(), None, None), Some(InvalidEnrollment::RegistrationIdLength)),
        ("long ID with a key", individual(&long), keys(None, None), None),
        ("long group ID", group(&long), x509(None, slots(), None), None),
    ];
    for (name, entry, attestation, expected) in cases {
        let result = merged(draft(entry.clone(), attestation.clone()), None);
        assert_eq!(result.err(), *expected, "{name}");
    }
}

#[test]
fn terms_keep_their_rules() {
    let webhook = |url: &str, version: &str| Terms {
        allocation: Some(AllocationPolicy::Custom),
        custom_allocation: Some(CustomAllocation { webhook_url: url.into(), api_version: version.into() }),
        ..Terms::default()
    };
    let custom = Terms { allocation: Some(AllocationPolicy::Custom), ..Terms::default() };
    let named = Terms { device_id: Some(DeviceId::parse("d").unwrap()), ..Terms::default() };
    let noted = |text_bytes: usize| Terms {
        device_information: Some(Map::from_iter([("a".to_owned(), Value::from("x".repeat(text_bytes)))])),
        ..Terms::default()
    };
    let long_host = Terms { iot_hub_host_name: Some("h".repeat(254)), ..Terms::default() };
    let odd_tags = serde_json::from_str(r#"{"a$":1}"#).unwrap();
    let initial_twin = Some(InitialTwin { tags: Some(odd_tags), desired: None });
    let odd_twin = Terms { initial_twin, ..Terms::default() };
    let dollar = PatchError::Key { path: "tags.a$".to_owned(), fault: KeyFault::Character { found: '$' } };
    let cases: &[(&str, EntryName, Terms, Option<InvalidEnrollment>)] = &[
        ("https", group("g"), webhook("https://example.org/f?code=x", "2019-03-31"), None),
        ("capitals", group("g"), webhook("HTTPS://example.org", "2018-09-01-preview"), None),
        ("no webhook", group("g"), custom, Some(InvalidEnrollment::NoWebhook)),
        ("http", group("g"), webhook("http://example.org", "2019-03-31"), Some(InvalidEnrollment::WebhookUrl)),
        ("no host", group("g"), webhook("https:///f", "2019-03-31"), Some(InvalidEnrollment::WebhookUrl)),
        ("a line end", group("g"), webhook("https://h/\r\nx", "2019-03-31"), Some(InvalidEnrollment::WebhookUrl)),
        ("old", group("g"), webhook("https://h", "2018-08-31"), Some(InvalidEnrollment::WebhookApiVersion)),
        ("no date", group("g"), webhook("https://h", "latest"), Some(InvalidEnrollment::WebhookApiVersion)),
        ("odd suffix", group("g"), webhook("https://h", "2019-03-31é"), Some(InvalidEnrollment::WebhookApiVersion)),
        ("device ID", individual("d"), named.clone(), None),
        ("information", individual("d"), noted(32 * 1_024 - 8), None),
        ("long information", individual("d"), noted(32 * 1_024 - 7), Some(InvalidEnrollment::DeviceInformation)),
        ("a long host name", group("g"), long_host, Some(InvalidEnrollment::HostName)),
        ("a twin that breaks the rules", group("g"), odd_twin, Some(InvalidEnrollment::InitialTwin(dollar))),
        ("device ID of a group", group("g"), named, Some(InvalidEnrollment::DeviceOfGroup)),
    ];
    for (name, entry, terms, expected) in cases {
        let draft = Draft { name: entry.clone(), attestation: keys(None, None), terms: terms.clone() };
        assert_eq!(merged(draft, None).err(), *expected, "{name}");
    }
}

#[test]
fn hubs_must_be_linked() {
    let hosts = |hubs: Option<&[&str]>, legacy: Option<&str>| Terms {
        iot_hubs: hubs.map(|hubs| hubs.iter().map(|&hub| hub.to_owned()).collect()),
        iot_hub_host_name: legacy.map(str::to_owned),
        ..Terms::default()
    };
    let linked = ["127.0.0.2", "hub.example.org"];
    let cases: &[(&str, Terms, Option<&str>)] = &[
        ("none named", hosts(None, None), None),
        ("an empty list", hosts(Some(&[]), None), None),
        ("linked, in capitals", hosts(Some(&["HUB.example.org"]), None), None),
        ("one is not", hosts(Some(&["127.0.0.2", "127.0.0.9"]), None), Some("127.0.0.9")),
        ("the older field", hosts(None, Some("127.0.0.9")), Some("127.0.0.9")),
        ("the list counts before the older field", hosts(Some(&["127.0.0.2"]), Some("127.0.0.9")), None),
    ];
    for (name, terms, missing) in cases {
        let expected = missing.map(|host| InvalidEnrollment::HubNotLinked { host_name: host.to_owned() });
        assert_eq!(check_hubs(terms, &linked).err(), expected, "{name}");
    }
}

#[test]
fn what_is_stored_in_the_open_holds_no_key_and_comes_back_whole() {
    let mut enrollment = merged(draft(individual("Dev-1"), keys(Some(0x41), Some(0x42))), None).unwrap();
    enrollment.terms.initial_twin =
        Some(InitialTwin { tags: None, desired: serde_json::from_str(r#"{"b":1.0,"a":[1]}"#).unwrap() });
    let (stored, secrets) = enrollment.clone().split();
    let text = serde_json::to_string(&stored).unwrap();
    for key in [key(0x41), key(0x42)] {
        let forms = [key.to_base64(), hex::encode(key.bytes()), "AAAA".repeat(8), "BBBB".repeat(8)];
        assert!(forms.iter().all(|form| !text.contains(form)), "{text}");
    }
    let read: Enrollment<NoKeys> = serde_json::from_str(&text).unwrap();
    assert_eq!(read.clone().join(None), None, "keys are missing");
    assert_eq!(read.join(secrets.clone()), Some(enrollment));

    let certificate = CertificateDraft::Given(Plan::leaf("dev-1").self_signed().certificate);
    let x509 = merged(draft(individual("dev-1"), client(Some(certificate), None)), None).unwrap();
    let (stored, none) = x509.clone().split();
    let read: Enrollment<NoKeys> = serde_json::from_str(&serde_json::to_string(&stored).unwrap()).unwrap();
    assert_eq!((none, read.clone().join(secrets)), (None, None), "keys without a place");
    assert_eq!(read.join(None), Some(x509));
}

#[test]
fn debug_output_hides_keys_and_the_webhooks_query() {
    let mut enrollment = merged(draft(individual("dev-1"), keys(Some(1), Some(2))), None).unwrap();
    enrollment.terms.custom_allocation =
        Some(CustomAllocation { webhook_url: "https://h/f?code=secret".into(), api_version: "2019-03-31".into() });
    let text = format!("{enrollment:?}");
    assert!(!text.contains("secret") && !text.contains("0101") && text.contains("https://h/f?****"), "{text}");
}
