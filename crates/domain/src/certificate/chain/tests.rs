use std::slice::from_ref;

use super::super::maker::{Made, NOON, Plan, presented};
use super::*;

fn to(anchor: &Made) -> impl Fn(&Certificate) -> bool {
    let anchor = anchor.certificate.clone();
    move |certificate| *certificate == anchor
}

struct Family {
    root: Made,
    first: Made,
    second: Made,
    leaf: Made,
}

/// Root, two intermediates, leaf, with the plans bent as a test wants.
fn family(bend: impl Fn(&str, Plan) -> Plan) -> Family {
    let root = bend("root", Plan::authority("root")).self_signed();
    let first = bend("first", Plan::authority("first")).signed_by(&root);
    let second = bend("second", Plan::authority("second")).signed_by(&first);
    let leaf = bend("leaf", Plan::leaf("dev-1")).signed_by(&second);
    Family { root, first, second, leaf }
}

#[test]
fn a_chain_ends_at_whatever_the_caller_recognises() {
    let Family { root, first, second, leaf } = family(|_, plan| plan);
    let known = [root.certificate.clone()];
    let cases: &[(&str, PresentedChain, &[Certificate], &Made, usize)] = &[
        ("a root that was not sent", presented(&[&leaf, &second, &first]), &known, &root, 4),
        ("a root that was sent", presented(&[&leaf, &second, &first, &root]), &[], &root, 4),
        ("sent in any order", presented(&[&leaf, &root, &first, &second]), &[], &root, 4),
        ("an intermediate that was sent", presented(&[&leaf, &second]), &[], &second, 2),
        ("an intermediate that was not sent", presented(&[&leaf]), from_ref(&second.certificate), &second, 2),
        ("the leaf itself", presented(&[&leaf]), &[], &leaf, 1),
        ("sent twice", presented(&[&leaf, &second, &second, &first]), &known, &root, 4),
    ];
    for (name, presented, known, anchor, length) in cases {
        let chain = build_chain(presented, known, to(anchor), NOON).unwrap();
        assert_eq!(chain.certificates().len(), *length, "{name}");
        assert_eq!(chain.anchor(), &anchor.certificate, "{name}");
    }
}

#[test]
fn a_failure_names_the_certificate_and_what_is_wrong_with_it() {
    type Bend = fn(&str, Plan) -> Plan;
    fn bend_one(name: &str, wanted: &str, plan: Plan, bend: fn(Plan) -> Plan) -> Plan {
        if name == wanted { bend(plan) } else { plan }
    }
    let cases: &[(&str, Bend, &str, Fault)] = &[
        ("leaf expired", |n, p| bend_one(n, "leaf", p, |p| p.years(2020, 2021)), "dev-1", Fault::Expired),
        ("leaf early", |n, p| bend_one(n, "leaf", p, |p| p.years(2027, 2028)), "dev-1", Fault::Early),
        ("intermediate expired", |n, p| bend_one(n, "first", p, |p| p.years(2020, 2021)), "first", Fault::Expired),
        ("root early", |n, p| bend_one(n, "root", p, |p| p.years(2027, 2028)), "root", Fault::Early),
        (
            "path too long",
            |n, p| bend_one(n, "first", p, |p| p.path_length(0)),
            "first",
            Fault::PathLength { limit: 0 },
        ),
        (
            "root allows one",
            |n, p| bend_one(n, "root", p, |p| p.path_length(1)),
            "root",
            Fault::PathLength { limit: 1 },
        ),
        ("no signing", |n, p| bend_one(n, "second", p, Plan::without_key_cert_sign), "second", Fault::KeyUsage),
        ("unknown demand", |n, p| bend_one(n, "first", p, Plan::critical_extension), "first", Fault::CriticalExtension),
        (
            "key of another kind",
            |n, p| bend_one(n, "second", p, |p| p.key(&rcgen::PKCS_ED25519)),
            "second",
            Fault::IssuerKey,
        ),
    ];
    for (name, bend, culprit, fault) in cases {
        let Family { root, first, second, leaf } = family(bend);
        let presented = presented(&[&leaf, &second, &first]);
        let failure = build_chain(&presented, from_ref(&root.certificate), to(&root), NOON).unwrap_err();
        assert_eq!((failure.certificate.common_name(), failure.fault), (Some(*culprit), *fault), "{name}");
    }
}

#[test]
fn limits_that_are_kept_are_no_fault() {
    let Family { root, first, second, leaf } = family(|name, plan| match name {
        "root" => plan.path_length(2),
        "first" => plan.path_length(1),
        "second" => plan.path_length(0),
        _ => plan.critical_extension(),
    });
    let presented = presented(&[&leaf, &second, &first]);
    assert!(build_chain(&presented, from_ref(&root.certificate), to(&root), NOON).is_ok());
}

#[test]
fn a_gap_a_stranger_and_a_forger_are_told_apart() {
    let Family { root, first, second, leaf } = family(|_, plan| plan);
    let forger = Plan::authority("second").signed_by(&first);
    let stranger = Plan::leaf("dev-1").self_signed();
    let not_authority = Plan::leaf("leaf-2").signed_by(&leaf);
    let cases: &[(&str, PresentedChain, &str, Fault)] = &[
        ("a gap", presented(&[&leaf, &second]), "second", Fault::IssuerUnknown),
        ("nothing sent", presented(&[&leaf]), "dev-1", Fault::IssuerUnknown),
        ("a forger", presented(&[&leaf, &forger, &first]), "second", Fault::Signature),
        ("self-signed stranger", presented(&[&stranger]), "dev-1", Fault::NotAnchored),
        ("a leaf that signs", presented(&[&not_authority, &leaf, &second, &first]), "dev-1", Fault::NotAnAuthority),
    ];
    for (name, presented, culprit, fault) in cases {
        let failure = build_chain(presented, from_ref(&root.certificate), to(&root), NOON).unwrap_err();
        assert_eq!((failure.certificate.common_name(), failure.fault), (Some(*culprit), *fault), "{name}");
    }
}

#[test]
fn a_renewed_or_cross_signed_issuer_leads_round_an_expired_one() {
    let root = Plan::authority("root").self_signed();
    let expired = Plan::authority("first").years(2020, 2021).signed_by(&root);
    let renewed = Plan::authority("first").same_key(&expired).signed_by(&root);
    let leaf = Plan::leaf("dev-1").signed_by(&expired);
    let known = [root.certificate.clone()];
    for order in [[&leaf, &expired, &renewed], [&leaf, &renewed, &expired]] {
        let chain = build_chain(&presented(&order), &known, to(&root), NOON).unwrap();
        assert_eq!(chain.certificates()[1], renewed.certificate);
    }

    let other_root = Plan::authority("other root").self_signed();
    let crossed = Plan::authority("first").same_key(&expired).signed_by(&other_root);
    let chain = build_chain(&presented(&[&leaf, &crossed, &renewed]), &known, to(&root), NOON).unwrap();
    assert_eq!(chain.certificates()[1], renewed.certificate);
}

#[test]
fn work_is_bounded_however_many_issuers_share_a_name() {
    let issuer = Plan::authority("crowd").self_signed();
    let leaf = Plan::leaf("dev-1").signed_by(&issuer);
    let crowd: Vec<Certificate> =
        (0..Walk::SIGNATURES_MAX + 5).map(|_| Plan::authority("crowd").self_signed().certificate).collect();
    let failure = build_chain(&presented(&[&leaf]), &crowd, to(&issuer), NOON).unwrap_err();
    assert_eq!(failure.fault, Fault::TooLong);
}

#[test]
fn authorities_that_sign_each_other_end_the_walk() {
    let first = Plan::authority("first").self_signed();
    let second = Plan::authority("second").signed_by(&first);
    let circle = Plan::authority("first").same_key(&first).signed_by(&second);
    let leaf = Plan::leaf("dev-1").signed_by(&circle);
    let failure = build_chain(&presented(&[&leaf, &circle, &second]), &[], |_| false, NOON).unwrap_err();
    assert_eq!(failure.fault, Fault::NotAnchored);
}

#[test]
fn a_path_has_at_most_ten_certificates() {
    let mut line = vec![Plan::authority("0").self_signed()];
    for name in 1..12 {
        let next = Plan::authority(&name.to_string()).signed_by(line.last().unwrap());
        line.push(next);
    }
    let known: Vec<Certificate> = line.iter().map(|made| made.certificate.clone()).collect();
    let leaf = Plan::leaf("dev-1").signed_by(line.last().unwrap());
    let failure = build_chain(&presented(&[&leaf]), &known, to(&line[0]), NOON).unwrap_err();
    assert_eq!((failure.fault, failure.walked.len()), (Fault::TooLong, 9));
    assert!(build_chain(&presented(&[&leaf]), &known, to(&line[3]), NOON).is_ok());
}

#[test]
fn presented_chains_are_bounded() {
    let leaf = Plan::leaf("dev-1").self_signed().certificate;
    let many = vec![leaf.der(); 11];
    assert_eq!(PresentedChain::from_der(&many), Err(InvalidChain::TooMany));
    assert_eq!(PresentedChain::from_der::<&[u8]>(&[]), Err(InvalidChain::Empty));
    let long = vec![vec![0; Certificate::BYTES_MAX]; 5];
    assert_eq!(PresentedChain::from_der(&long), Err(InvalidChain::TooLong));
    let odd = [leaf.der(), b"odd"];
    let expected = InvalidChain::Certificate { index: 1, reason: InvalidCertificate::Malformed };
    assert_eq!(PresentedChain::from_der(&odd), Err(expected));
}
