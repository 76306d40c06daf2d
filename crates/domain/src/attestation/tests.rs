use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::certificate::PresentedChain;
use crate::certificate::maker::{Made, NOON, Plan, presented};
use crate::clock::SeededEntropy;
use crate::decision::LinkVerdict;
use crate::enrollment::{
    AttestationDraft, CertificateDraft, Draft, ProvisioningStatus, PublicArea, Slots, Terms, TpmAttestation, merge,
};
use crate::ids::EnrollmentGroupId;
use crate::sas::{SasToken, SymmetricKey};

const SCOPE: &str = "0ne00000000";

fn key(byte: u8) -> SymmetricKey {
    SymmetricKey::from_bytes(&[byte; 32]).unwrap()
}

fn enrollment(name: EntryName, attestation: AttestationDraft) -> Enrollment {
    let draft = Draft { name, attestation, terms: Terms::default() };
    Enrollment { etag: Etag::from_number(9), ..merge(draft, None, &SeededEntropy::new(1)).unwrap() }
}

fn disabled(mut enrollment: Enrollment) -> Enrollment {
    enrollment.terms.status = Some(ProvisioningStatus::Disabled);
    enrollment
}

fn individual(attestation: AttestationDraft) -> Enrollment {
    enrollment(EntryName::Individual(RegistrationId::parse("dev-1").unwrap()), attestation)
}

fn group(name: &str, attestation: AttestationDraft) -> Enrollment {
    enrollment(EntryName::Group(EnrollmentGroupId::parse(name).unwrap()), attestation)
}

fn keys(primary: u8, secondary: u8) -> AttestationDraft {
    AttestationDraft::SymmetricKey(Slots { primary: Some(key(primary)), secondary: Some(key(secondary)) })
}

fn slots(certificates: &[&Made]) -> Slots<CertificateDraft> {
    let mut given = certificates.iter().map(|made| CertificateDraft::Given(made.certificate.clone()));
    Slots { primary: given.next(), secondary: given.next() }
}

fn client(certificates: &[&Made]) -> AttestationDraft {
    AttestationDraft::X509 { client: Some(slots(certificates)), signing: None, references: None }
}

fn signing(certificates: &[&Made]) -> AttestationDraft {
    AttestationDraft::X509 { client: None, signing: Some(slots(certificates)), references: None }
}

fn reference(name: &str) -> AttestationDraft {
    let name = Some(CertificateName::parse(name).unwrap());
    AttestationDraft::X509 { client: None, signing: None, references: Some(Slots { primary: name, secondary: None }) }
}

fn ca(name: &str, made: &Made, verified: bool) -> CaCertificate {
    CaCertificate {
        name: CertificateName::parse(name).unwrap(),
        certificate: made.certificate.clone(),
        verified,
        verification_code: None,
        created_at: NOON,
        updated_at: NOON,
        etag: Etag::from_number(1),
    }
}

fn judge(id: &str, evidence: &Evidence, candidates: Candidates<'_>) -> Verdict {
    let registration_id = RegistrationId::parse(id).unwrap();
    let claim = Claim { service: ServiceKey(3), id_scope: SCOPE, registration_id: &registration_id, now: NOON };
    match attest_individual(claim, evidence, candidates) {
        Individually::Admitted(verdict) => verdict,
        Individually::Open(open) => open.attest_groups(candidates),
    }
}

fn code(verdict: &Verdict) -> &'static str {
    match &verdict.result {
        Ok(_) => "admitted",
        Err(rejection) => rejection.cause().code(),
    }
}

/// The token of a client whose clock is `late` behind, whose tokens last an hour.
fn token(key: &SymmetricKey, resource: &str, late: Duration) -> SasToken {
    let expires_at = NOON.minus(late).plus(Duration::from_hours(1));
    SasToken::parse(&SasToken::write(key, resource, Some("registration"), expires_at)).unwrap()
}

fn fresh(key: &SymmetricKey, id: &str) -> SasToken {
    token(key, &format!("{SCOPE}%2fregistrations%2f{id}"), Duration::ZERO)
}

fn with_token(token: &SasToken) -> Evidence {
    Evidence { token: Some(token.clone()), ..Evidence::default() }
}

fn with_chain(chain: &PresentedChain) -> Evidence {
    Evidence { certificates: Some(Arc::new(chain.clone())), ..Evidence::default() }
}

#[test]
fn a_token_is_held_against_the_individual_enrollment() {
    let (entry, own) = (individual(keys(1, 2)), format!("{SCOPE}/registrations/DEV-1"));
    let late = |minutes| token(&key(1), &own, Duration::from_mins(minutes));
    let cases: &[(&str, SasToken, &str)] = &[
        ("primary key", fresh(&key(1), "dev-1"), "admitted"),
        ("secondary key", fresh(&key(2), "dev-1"), "admitted"),
        ("other case", late(0), "admitted"),
        ("expired within the leeway", late(65), "admitted"),
        ("expired beyond it", late(66), "clock-skew"),
        ("wrong key", fresh(&key(3), "dev-1"), "wrong-key"),
        ("a derived key", fresh(&key(1).derive("dev-1"), "dev-1"), "wrong-key"),
        ("another's token", fresh(&key(3), "dev-2"), "wrong-resource"),
        ("another scope", token(&key(1), "0neX/registrations/dev-1", Duration::ZERO), "wrong-resource"),
        ("a hub's token", token(&key(1), "127.0.0.2/devices/dev-1", Duration::ZERO), "wrong-resource"),
    ];
    for (name, token, expected) in cases {
        let candidates = Candidates { individual: Some(&entry), ..Candidates::default() };
        let verdict = judge("Dev-1", &with_token(token), candidates);
        assert_eq!(code(&verdict), *expected, "{name}");
        assert_eq!(verdict.trace.considered.len(), 1, "{name}");

        let off = disabled(entry.clone());
        let candidates = Candidates { individual: Some(&off), ..Candidates::default() };
        let verdict = judge("Dev-1", &with_token(token), candidates);
        let expected = if *expected == "admitted" { "disabled-entry" } else { expected };
        assert_eq!(code(&verdict), expected, "{name}, disabled");
    }
}

#[test]
fn what_is_proved_names_the_entry_its_version_and_the_credential() {
    let entry = individual(keys(1, 2));
    let token = fresh(&key(2), "dev-1");
    let candidates = Candidates { individual: Some(&entry), ..Candidates::default() };
    let proven = judge("Dev-1", &with_token(&token), candidates).result.unwrap();
    assert_eq!((proven.service, proven.registration_id.as_str()), (ServiceKey(3), "Dev-1"));
    assert_eq!(proven.admitted_by, EntryRef { name: entry.name.clone(), etag: Etag::from_number(9) });
    let registrant = proven.into_inner();
    let keys = symmetric_key::device_keys(&registrant, &entry).unwrap();
    assert_eq!((keys.primary, keys.secondary), (key(1), key(2)));
    let text = serde_json::to_string(&registrant).unwrap();
    assert_eq!(serde_json::from_str::<Registrant>(&text).unwrap(), registrant);
}

#[test]
fn a_group_admits_by_any_of_its_four_derived_keys() {
    let groups = [group("other", keys(8, 9)), group("fleet", keys(1, 2)), group("last", keys(6, 7))];
    let cases: &[(&str, SymmetricKey, &str, u32)] = &[
        ("as sent, primary", key(1).derive("Dev-1"), "admitted", 2),
        ("as sent, secondary", key(2).derive("Dev-1"), "admitted", 2),
        ("lower case, primary", key(1).derive("dev-1"), "admitted", 2),
        ("lower case, secondary", key(2).derive("dev-1"), "admitted", 2),
        ("upper case", key(1).derive("DEV-1"), "wrong-key", 3),
        ("the group's own key", key(1), "wrong-key", 3),
        ("another device's", key(1).derive("dev-2"), "wrong-key", 3),
    ];
    for (name, device_key, expected, tried) in cases {
        let token = fresh(device_key, "Dev-1");
        let candidates = Candidates { key_groups: &groups, ..Candidates::default() };
        let verdict = judge("Dev-1", &with_token(&token), candidates);
        assert_eq!((code(&verdict), verdict.trace.groups_tried), (*expected, *tried), "{name}");
        if let Ok(proven) = &verdict.result {
            let keys = symmetric_key::device_keys(proven, &groups[1]).unwrap();
            assert!(token.is_signed_by_either(&keys), "{name}: the identity gets the key the device holds");
            assert_eq!(verdict.trace.considered[0].entry, groups[1].name, "{name}");
            assert_eq!(verdict.trace.considered[0].finding, Finding::Admits, "{name}");
            assert_eq!(verdict.trace.considered[1].finding, Finding::Refuses(Cause::WrongKey), "{name}");
        }
    }
}

#[test]
fn a_group_refuses_for_what_else_is_wrong() {
    let derived = key(1).derive("dev-1");
    let late = token(&derived, &format!("{SCOPE}/registrations/dev-1"), Duration::from_hours(9));
    let (on, off) = ([group("fleet", keys(1, 2))], [disabled(group("fleet", keys(1, 2)))]);
    let certificates = [group("certified", signing(&[&Plan::authority("root").self_signed()]))];
    let cases: &[(&str, SasToken, &[Enrollment], &str)] = &[
        ("late", late, &on, "clock-skew"),
        ("disabled", fresh(&derived, "dev-1"), &off, "disabled-entry"),
        ("wrong key, disabled", fresh(&key(3), "dev-1"), &off, "wrong-key"),
        ("another's token", fresh(&key(1).derive("dev-2"), "dev-2"), &on, "wrong-resource"),
        ("no group", fresh(&derived, "dev-1"), &[], "not-enrolled"),
        ("no group with keys", fresh(&derived, "dev-1"), &certificates, "not-enrolled"),
    ];
    for (name, token, groups, expected) in cases {
        let candidates = Candidates { key_groups: groups, ..Candidates::default() };
        let verdict = judge("dev-1", &with_token(token), candidates);
        assert_eq!(code(&verdict), *expected, "{name}");
    }
}

#[test]
fn an_individual_enrollment_is_the_only_candidate() {
    let entry = individual(keys(3, 4));
    let groups = [group("fleet", keys(1, 2))];
    let token = fresh(&key(1).derive("dev-1"), "dev-1");
    let candidates = Candidates { individual: Some(&entry), key_groups: &groups, ..Candidates::default() };
    let verdict = judge("dev-1", &with_token(&token), candidates);
    assert_eq!(code(&verdict), "wrong-key");
    assert_eq!((verdict.trace.considered.len(), verdict.trace.groups_tried), (1, 0), "the groups leave no trace");
}

/// A refusal's duration must not tell whether the ID is enrolled, so that groups are passed over for any ID.
#[test]
fn evidence_that_cannot_be_read_is_held_against_no_group() {
    let Company { root, first, second, leaf } = company();
    let chain = with_chain(&presented(&[&leaf, &second, &first]));
    let token = with_token(&fresh(&key(1).derive("dev-1"), "dev-1"));
    let unreadable = Some(InvalidToken::Fields);
    let (entry, authorities) = (individual(keys(3, 4)), [ca("ca", &root, true)]);
    let groups = [group("chains", signing(&[&root])), group("keys", keys(1, 2))];
    let registration_id = RegistrationId::parse("dev-1").unwrap();
    let claim = Claim { service: ServiceKey(3), id_scope: SCOPE, registration_id: &registration_id, now: NOON };
    for (name, evidence) in [("a chain", chain), ("a token", token)] {
        for individual in [None, Some(&entry)] {
            let candidates = Candidates {
                individual,
                x509_groups: &groups,
                key_groups: &groups,
                authorities: &authorities,
                ..Candidates::default()
            };
            let garbled = Evidence { unreadable, ..evidence.clone() };
            let traces = [&evidence, &garbled].map(|evidence| judge_groups(claim, evidence, candidates).trace);
            assert!(!traces[0].considered.is_empty(), "{name}: the groups are worked through if all is read");
            assert_eq!(traces[1], Trace::default(), "{name}");
            assert_eq!(code(&judge("dev-1", &garbled, candidates)), "unreadable-signature", "{name}");
        }
    }
}

#[test]
fn evidence_must_be_of_the_kind_that_is_demanded() {
    let made = Plan::leaf("dev-1").self_signed();
    let (chain, token) = (presented(&[&made]), fresh(&key(1), "dev-1"));
    let tpm = TpmAttestation { endorsement_key: PublicArea(vec![1]), storage_root_key: None };
    let (by_key, by_certificate) = (individual(keys(1, 2)), individual(client(&[&made])));
    let by_tpm = individual(AttestationDraft::Tpm(tpm));
    let (by_chain, by_token) = (with_chain(&chain), with_token(&token));
    let nothing = Evidence::default();
    let both = Evidence { token: Some(token.clone()), ..with_chain(&chain) };
    let cases: &[(&str, Option<&Enrollment>, &Evidence, &str)] = &[
        ("nothing for a key", Some(&by_key), &nothing, "no-credential"),
        ("nothing for a certificate", Some(&by_certificate), &nothing, "no-credential"),
        ("nothing for a TPM", Some(&by_tpm), &nothing, "no-credential"),
        ("nothing for a group", None, &nothing, "no-credential"),
        ("a certificate for a key", Some(&by_key), &by_chain, "wrong-mechanism"),
        ("a token for a certificate", Some(&by_certificate), &by_token, "wrong-mechanism"),
        ("a token for a TPM", Some(&by_tpm), &by_token, "wrong-mechanism"),
        ("both for a key", Some(&by_key), &both, "admitted"),
        ("both for a certificate", Some(&by_certificate), &both, "admitted"),
    ];
    for (name, entry, evidence, expected) in cases {
        let candidates = Candidates { individual: *entry, ..Candidates::default() };
        assert_eq!(code(&judge("dev-1", evidence, candidates)), *expected, "{name}");
    }
    let candidates = Candidates { individual: Some(&by_certificate), ..Candidates::default() };
    let refused = judge("dev-1", &with_token(&token), candidates).result;
    assert_eq!(refused, Err(Rejection::Mechanism { wanted: Mechanism::X509 }));
}

#[test]
fn a_leaf_is_held_against_the_individual_enrollment() {
    let (one, two) = (Plan::leaf("dev-1").self_signed(), Plan::leaf("DEV-1").self_signed());
    let expired = Plan::leaf("dev-1").years(2020, 2021).self_signed();
    let early = Plan::leaf("dev-1").years(2027, 2028).self_signed();
    let stranger = Plan::leaf("dev-1").self_signed();
    let other_name = Plan::leaf("dev-2").self_signed();
    let mut nameless = Plan::leaf("dev-1");
    nameless.params.distinguished_name = rcgen::DistinguishedName::new();
    let nameless = nameless.self_signed();
    let cases: &[(&str, &[&Made], &Made, &str)] = &[
        ("primary", &[&one, &two], &one, "admitted"),
        ("secondary, name in capitals", &[&one, &two], &two, "admitted"),
        ("a primary that expired, the secondary used", &[&expired, &one], &one, "admitted"),
        ("expired", &[&expired], &expired, "expired-certificate"),
        ("early", &[&early], &early, "clock-skew"),
        ("not enrolled", &[&one], &stranger, "wrong-certificate"),
        ("another name", &[&other_name], &other_name, "common-name-differs"),
        ("no name", &[&nameless], &nameless, "common-name-differs"),
    ];
    for (name, enrolled, shown, expected) in cases {
        let (entry, chain) = (individual(client(enrolled)), presented(&[shown]));
        let candidates = Candidates { individual: Some(&entry), ..Candidates::default() };
        let verdict = judge("dev-1", &with_chain(&chain), candidates);
        assert_eq!(code(&verdict), *expected, "{name}");
        let is_dated = matches!(*expected, "expired-certificate" | "clock-skew");
        let fails = matches!(verdict.trace.chain[..], [ref link] if matches!(link.verdict, LinkVerdict::Fails(_)));
        assert_eq!((verdict.trace.chain.len(), fails), (1, is_dated), "{name}");
        if let Ok(proven) = verdict.result {
            let other = enrolled.iter().find(|made| made.certificate != shown.certificate);
            let other = other.map(|made| made.certificate.clone());
            let expected = Credential::X509 { leaf: shown.certificate.clone(), other, signer: None };
            assert_eq!(proven.credential, expected, "{name}");
        }
    }
}

struct Company {
    root: Made,
    first: Made,
    second: Made,
    leaf: Made,
}

fn company() -> Company {
    let root = Plan::authority("root").self_signed();
    let first = Plan::authority("first").signed_by(&root);
    let second = Plan::authority("second").signed_by(&first);
    let leaf = Plan::leaf("dev-1").signed_by(&second);
    Company { root, first, second, leaf }
}

#[test]
fn an_individual_enrollment_may_refer_to_a_ca_certificate() {
    let Company { root, first, second, leaf } = company();
    let whole = presented(&[&leaf, &second, &first]);
    let named = |is_verified| vec![ca("Contoso", &root, is_verified)];
    let stranger = presented(&[&Plan::leaf("dev-1").self_signed()]);
    let cases: &[(&str, &PresentedChain, Vec<CaCertificate>, &str)] = &[
        ("verified", &whole, named(true), "admitted"),
        ("not verified", &whole, named(false), "unverified-ca"),
        ("deleted", &whole, vec![], "missing-ca"),
        ("another is verified", &whole, vec![ca("other", &root, true)], "missing-ca"),
        ("a gap", &presented(&[&leaf, &second]), named(true), "unknown-ca"),
        ("a stranger", &stranger, named(true), "unknown-ca"),
    ];
    for (name, chain, authorities, expected) in cases {
        let entry = individual(reference("contoso"));
        let candidates = Candidates { individual: Some(&entry), authorities, ..Candidates::default() };
        let verdict = judge("dev-1", &with_chain(chain), candidates);
        assert_eq!(code(&verdict), *expected, "{name}");
    }
}

/// The manual, "DPS device chain requirements" and the breach procedure.
#[test]
fn a_chain_counts_if_it_reaches_a_verified_certificate() {
    let Company { root, first, second, leaf } = company();
    let whole = presented(&[&leaf, &second, &first]);
    let cut = presented(&[&leaf, &second]);
    let root_verified = vec![ca("ca", &root, true)];
    let root_only_uploaded = vec![ca("ca", &root, false)];
    let second_verified = vec![ca("mid", &second, true), ca("ca", &root, false)];
    let cases: &[(&str, &PresentedChain, AttestationDraft, &[CaCertificate], &str)] = &[
        ("intermediate enrolled, whole chain", &whole, signing(&[&second]), &root_verified, "admitted"),
        ("intermediate enrolled, chain cut", &cut, signing(&[&second]), &root_verified, "unverified-ca"),
        ("root enrolled, whole chain", &whole, signing(&[&root]), &root_verified, "admitted"),
        ("root enrolled, chain cut", &cut, signing(&[&root]), &root_verified, "unknown-ca"),
        ("root by name", &whole, reference("ca"), &root_verified, "admitted"),
        ("root by name, not verified", &whole, reference("ca"), &root_only_uploaded, "unverified-ca"),
        ("root enrolled, not verified", &whole, signing(&[&root]), &root_only_uploaded, "unverified-ca"),
        ("nothing uploaded", &whole, signing(&[&second]), &[], "unverified-ca"),
        ("intermediate verified", &cut, signing(&[&second]), &second_verified, "admitted"),
        ("intermediate verified, root enrolled", &whole, signing(&[&root]), &second_verified, "admitted"),
        ("by name below a verified root", &whole, reference("mid"), &root_verified, "unknown-ca"),
        (
            "secondary slot",
            &whole,
            signing(&[&Plan::authority("old").self_signed(), &second]),
            &root_verified,
            "admitted",
        ),
        ("enrolled but not sent", &presented(&[&leaf]), signing(&[&second]), &second_verified, "admitted"),
    ];
    for (name, chain, attestation, authorities, expected) in cases {
        let groups = [group("fleet", attestation.clone())];
        let candidates = Candidates { x509_groups: &groups, authorities, ..Candidates::default() };
        let verdict = judge("dev-1", &with_chain(chain), candidates);
        assert_eq!(code(&verdict), *expected, "{name}");
        let reached = verdict.trace.chain.iter().any(|link| link.verdict == LinkVerdict::Verified);
        assert!(reached || verdict.result.is_err(), "{name}");
    }
}

/// The manual's five devices ("DPS order of operations with certificates") and "Disallow certificates".
#[test]
fn the_nearest_group_decides_and_a_disabled_one_wins_for_the_same_certificate() {
    let root = Plan::authority("root").self_signed();
    let (a, b) = (Plan::authority("A").signed_by(&root), Plan::authority("B").signed_by(&root));
    let renewed = Plan::authority("B").same_key(&b).signed_by(&root);
    let (one, four) = (Plan::leaf("dev-1").signed_by(&a), Plan::leaf("dev-1").signed_by(&b));
    let (with_a, with_b) = (presented(&[&one, &a]), presented(&[&four, &b]));
    let authorities = [ca("ca", &root, true)];
    let on = |name: &str, made: &Made| group(name, signing(&[made]));
    let off = |name: &str, made: &Made| disabled(group(name, signing(&[made])));
    let cases: &[(&str, &PresentedChain, Vec<Enrollment>, &str, &str)] = &[
        ("one group for all", &with_a, vec![on("all", &root)], "admitted", "all"),
        ("B is disallowed", &with_b, vec![on("all", &root), off("b", &b)], "disabled-entry", "b"),
        ("A is not concerned", &with_a, vec![on("all", &root), off("b", &b)], "admitted", "all"),
        ("the root is disallowed, A is not", &with_a, vec![off("all", &root), on("a", &a)], "admitted", "a"),
        ("two groups of one certificate", &with_a, vec![on("x", &a), off("y", &a)], "disabled-entry", "y"),
        ("whatever their order", &with_a, vec![off("x", &a), on("y", &a)], "disabled-entry", "x"),
        (
            "by name and by certificate",
            &with_a,
            vec![on("x", &root), disabled(group("y", reference("ca")))],
            "disabled-entry",
            "y",
        ),
        (
            "renewed around a disabled group",
            &presented(&[&four, &renewed]),
            vec![on("all", &root), off("b", &b)],
            "disabled-entry",
            "b",
        ),
    ];
    for (name, chain, groups, expected, decides) in cases {
        let candidates = Candidates { x509_groups: groups, authorities: &authorities, ..Candidates::default() };
        let verdict = judge("dev-1", &with_chain(chain), candidates);
        assert_eq!(code(&verdict), *expected, "{name}");
        assert_eq!(verdict.trace.considered[0].entry.as_str(), *decides, "{name}");
        assert_eq!(verdict.trace.considered.len(), groups.len(), "{name}");
    }

    let groups = [on("all", &root), on("a", &a), on("b", &b)];
    let disallowed = disabled(individual(client(&[&one])));
    let candidates = Candidates { individual: Some(&disallowed), x509_groups: &groups, ..Candidates::default() };
    let verdict = judge("dev-1", &with_chain(&with_a), Candidates { authorities: &authorities, ..candidates });
    assert_eq!(code(&verdict), "disabled-entry", "device 3");

    let candidates = Candidates { x509_groups: &groups, authorities: &authorities, ..Candidates::default() };
    let trace = judge("dev-1", &with_chain(&with_a), candidates).trace;
    let findings: Vec<_> = trace.considered.iter().map(|one| (one.entry.as_str(), &one.finding)).collect();
    assert_eq!(findings, [("a", &Finding::Admits), ("all", &Finding::Outranked), ("b", &Finding::NotOnPath)]);
}

#[test]
fn a_group_checks_the_common_name_and_every_certificate_on_the_way() {
    let root = Plan::authority("root").self_signed();
    let authorities = [ca("ca", &root, true)];
    let good = Plan::authority("first").signed_by(&root);
    let expired = Plan::authority("first").years(2020, 2021).signed_by(&root);
    let short = Plan::authority("first").path_length(0).signed_by(&root);
    let below = Plan::authority("below").signed_by(&short);
    let forged = Plan::authority("first").signed_by(&root);
    let not_ca = Plan::leaf("first").signed_by(&root);
    let weak = Plan::authority("first").without_key_cert_sign().signed_by(&root);
    let of = |issuer: &Made| Plan::leaf("dev-1").signed_by(issuer);
    let cases: &[(&str, PresentedChain, &str)] = &[
        ("good", presented(&[&of(&good), &good]), "admitted"),
        ("another name", presented(&[&Plan::leaf("dev-2").signed_by(&good), &good]), "common-name-differs"),
        (
            "leaf expired",
            presented(&[&Plan::leaf("dev-1").years(2020, 2021).signed_by(&good), &good]),
            "expired-certificate",
        ),
        ("intermediate expired", presented(&[&of(&expired), &expired]), "expired-certificate"),
        ("path too long", presented(&[&of(&below), &below, &short]), "path-length"),
        ("forged", presented(&[&of(&good), &forged]), "invalid-chain"),
        ("no CA", presented(&[&of(&not_ca), &not_ca]), "not-a-ca"),
        ("may not sign", presented(&[&of(&weak), &weak]), "invalid-chain"),
        ("self-signed stranger", presented(&[&Plan::leaf("dev-1").self_signed()]), "unknown-ca"),
    ];
    for (name, chain, expected) in cases {
        let groups = [group("fleet", signing(&[&root]))];
        let candidates = Candidates { x509_groups: &groups, authorities: &authorities, ..Candidates::default() };
        let verdict = judge("dev-1", &with_chain(chain), candidates);
        assert_eq!(code(&verdict), *expected, "{name}");
        if let Ok(proven) = verdict.result {
            let (leaf, signer) = (chain.leaf().clone(), Some(root.certificate.clone()));
            assert_eq!(proven.credential, Credential::X509 { leaf, other: None, signer }, "{name}");
        }
    }
}

#[test]
fn only_authorities_that_a_chain_may_lead_over_are_reachable() {
    let root = Plan::authority("root").self_signed();
    let middle = Plan::authority("middle").signed_by(&root);
    let issuing = Plan::authority("issuing").signed_by(&middle);
    let namesake = Plan::authority("middle").self_signed();
    let stranger = Plan::authority("stranger").self_signed();
    let leaf = Plan::leaf("dev-1").signed_by(&issuing);
    let known = [
        ca("root", &root, true),
        ca("stranger", &stranger, true),
        ca("middle", &middle, false),
        ca("namesake", &namesake, true),
        ca("issuing", &issuing, false),
    ];
    let cases: [(&str, &[&Made], &[usize], &[&str]); 4] = [
        ("over authorities that are not sent along", &[&leaf], &[0, 1, 2, 4], &["issuing", "middle", "root"]),
        ("a name is all that is known of an issuer", &[&leaf, &issuing], &[0, 1, 3], &["namesake"]),
        ("the way ends where an issuer is unknown", &[&leaf], &[0, 1, 2], &[]),
        ("what is sent along needs no authority", &[&leaf, &issuing, &middle], &[0, 1], &["root"]),
    ];
    for (name, sent, places, expected) in cases {
        let authorities: Vec<_> = places.iter().map(|&place| known[place].clone()).collect();
        let mut found: Vec<_> =
            reachable(&presented(sent), &authorities).iter().map(|one| one.name.as_str().to_owned()).collect();
        found.sort();
        assert_eq!(found, expected, "{name}");
    }
}
