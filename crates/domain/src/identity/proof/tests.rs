//! Who gets in at a hub, with what, and why not.

use std::sync::Arc;

use super::*;
use crate::access::{Right, Rights};
use crate::certificate::maker::{Made, NOON, Plan, presented};
use crate::clock::SeededEntropy;
use crate::identity::Thumbprints;
use crate::ids::{DeviceId, Etag, ModuleId, PolicyName};
use crate::operation::identity::IdentityName;

const HOSTS: &[&str] = &["127.0.0.2", "hub.example.org"];
const DEVICE: &str = "127.0.0.2/devices/dev";

type Verdict = Result<(), IdentityRejection>;
type Method = Result<AuthenticationMethod, IdentityRejection>;
type KeyCase<'a> = (&'a str, &'a str, u8, i64, Method);
type PolicyCase<'a> = (&'a str, &'a Identity, &'a str, u8, &'a str, Method);
type ModuleCase<'a> = (&'a str, &'a str, Option<&'a Identity>, Verdict);
type ThumbprintCase<'a> = (&'a str, Option<String>, Option<String>, &'a Made, Verdict);
type ChainCase<'a> = (&'a str, &'a Identity, &'a [&'a Made], &'a Made, Verdict);
type ReasonCase<'a> = (&'a str, Option<&'a Identity>, &'a Evidence, Verdict);

#[test]
fn a_signature_lets_in_the_identity_whose_key_made_it() {
    use IdentityRejection::{Expired, Resource, Signature};
    let cases: &[KeyCase<'_>] = &[
        ("the first key", DEVICE, 1, 60, Ok(AuthenticationMethod::DeviceKey)),
        ("the second key", DEVICE, 2, 60, Ok(AuthenticationMethod::DeviceKey)),
        ("another key", DEVICE, 9, 60, Err(Signature)),
        ("an alias in capitals", "HUB.Example.org/devices/dev", 1, 60, Ok(AuthenticationMethod::DeviceKey)),
        ("percent-encoded", "127.0.0.2%2fdevices%2Fdev", 1, 60, Ok(AuthenticationMethod::DeviceKey)),
        (
            "a documented tail",
            "127.0.0.2/devices/dev/api-version=2016-11-14",
            1,
            60,
            Ok(AuthenticationMethod::DeviceKey),
        ),
        ("another device", "127.0.0.2/devices/dev2", 1, 60, Err(Resource)),
        ("another case", "127.0.0.2/devices/DEV", 1, 60, Err(Resource)),
        ("another hub", "127.0.0.3/devices/dev", 1, 60, Err(Resource)),
        ("a module of it", "127.0.0.2/devices/dev/modules/mod", 1, 60, Err(Resource)),
        ("the bare host", "127.0.0.2", 1, 60, Err(Resource)),
        ("all devices", "127.0.0.2/devices", 1, 60, Err(Resource)),
        ("just within the leeway", DEVICE, 1, -5, Ok(AuthenticationMethod::DeviceKey)),
        ("just expired", DEVICE, 1, -6, Err(Expired)),
    ];
    let identity = by_keys("dev");
    for (name, resource, key_byte, seconds, expected) in cases {
        let evidence = signed(resource, *key_byte, None, *seconds);
        let proven = prove(claim(&identity), &evidence, rules(&[], &[]), NOON);
        assert_eq!(
            proven.as_ref().map(|proven| proven.used().method()).map_err(|rejection| *rejection),
            *expected,
            "{name}"
        );
        if let Ok(proven) = proven {
            assert!(identity.authentication.still_admits(proven.used()), "{name}");
            assert_eq!(proven.expires_at().seconds(), NOON.seconds() + seconds + 5, "{name}: as long as it is taken");
        }
    }
}

#[test]
fn a_proof_is_taken_exactly_as_long_as_a_connection_by_it_lasts() {
    let identity = by_keys("dev");
    let token = signed(DEVICE, 1, None, 0);
    let until = prove(claim(&identity), &token, rules(&[], &[]), NOON).unwrap().expires_at();
    let made = Plan::leaf("dev").self_signed();
    let thumbprints = Thumbprints { primary: Some(made.certificate.sha256_hex()), secondary: None };
    let by_leaf = Identity { authentication: Authentication::SelfSigned(thumbprints), ..by_keys("dev") };
    let (leaf, leaf_until) = (shown(&[&made]), made.certificate.not_after());
    let cases = [("a signature", &identity, &token, until), ("a certificate", &by_leaf, &leaf, leaf_until)];
    for (name, identity, evidence, until) in cases {
        for after_ms in [0, 999, 1_000, 60_000] {
            let now = until.plus(Duration::from_millis(after_ms));
            let is_taken = prove(claim(identity), evidence, rules(&[], &[]), now).is_ok();
            assert_eq!(is_taken, !has_ended(until, now), "{name}, {after_ms} ms after its end");
        }
    }
}

#[test]
fn a_policy_speaks_for_devices_if_it_has_the_right() {
    use IdentityRejection::{Mechanism, Policy as NoPolicy, Resource, Signature};
    let policies = [policy("device", Right::DeviceConnect, 5), policy("service", Right::ServiceConnect, 7)];
    let (keys, x509) = (by_keys("dev"), by_authority("dev"));
    let cases: &[PolicyCase<'_>] = &[
        ("the bare host", &keys, "127.0.0.2", 5, "device", Ok(AuthenticationMethod::PolicyKey)),
        ("its second key", &keys, "127.0.0.2", 6, "device", Ok(AuthenticationMethod::PolicyKey)),
        ("its name in capitals", &keys, DEVICE, 5, "DEVICE", Ok(AuthenticationMethod::PolicyKey)),
        ("another device", &keys, "127.0.0.2/devices/other", 5, "device", Err(Resource)),
        ("the device's own key", &keys, DEVICE, 1, "device", Err(Signature)),
        ("a policy without the right", &keys, "127.0.0.2", 7, "service", Err(NoPolicy)),
        ("a policy that is not there", &keys, "127.0.0.2", 5, "owner", Err(NoPolicy)),
        ("an X.509 device", &x509, "127.0.0.2", 5, "device", Err(Mechanism)),
    ];
    for (name, identity, resource, key_byte, policy, expected) in cases {
        let evidence = signed(resource, *key_byte, Some(policy), 60);
        let proven = prove(claim(identity), &evidence, rules(&policies, &[]), NOON);
        assert_eq!(proven.map(|proven| proven.used().method()), *expected, "{name}");
    }
}

#[test]
fn a_module_has_keys_of_its_own_and_is_as_enabled_as_its_device() {
    let device = by_keys("dev");
    let module = Identity { name: module_name(), ..by_keys("dev") };
    let disabled = Identity { status: IdentityStatus::Disabled, ..by_keys("dev") };
    let of = |device| Claim { identity: Some(&module), device };
    let cases: &[ModuleCase<'_>] = &[
        ("its own scope", "127.0.0.2/devices/dev/modules/mod", Some(&device), Ok(())),
        ("its device's scope", DEVICE, Some(&device), Ok(())),
        ("another module's", "127.0.0.2/devices/dev/modules/m2", Some(&device), Err(IdentityRejection::Resource)),
        ("its device is disabled", DEVICE, Some(&disabled), Err(IdentityRejection::Disabled)),
        ("its device is not given", DEVICE, None, Err(IdentityRejection::Disabled)),
    ];
    for (name, resource, device, expected) in cases {
        let proven = prove(of(*device), &signed(resource, 1, None, 60), rules(&[], &[]), NOON);
        assert_eq!(proven.map(|_| ()), *expected, "{name}");
    }
}

#[test]
fn a_certificate_is_known_by_its_thumbprint_and_held_to_its_dates() {
    let (known, other) = (Plan::leaf("anything").self_signed(), Plan::leaf("dev").self_signed());
    let old = Plan::leaf("dev").years(2020, 2021).self_signed();
    let sha1 = |made: &Made| Some(made.certificate.sha1_hex().to_lowercase());
    let sha256 = |made: &Made| Some(made.certificate.sha256_hex());
    let wrong = Some("0".repeat(40));
    let cases: Vec<ThumbprintCase<'_>> = vec![
        ("SHA-1 in small letters", sha1(&known), None, &known, Ok(())),
        ("SHA-256", sha256(&known), None, &known, Ok(())),
        ("the second thumbprint", wrong.clone(), sha256(&known), &known, Ok(())),
        ("another certificate", sha1(&known), sha256(&known), &other, Err(IdentityRejection::Thumbprint)),
        ("expired", sha1(&old), None, &old, Err(IdentityRejection::CertificateDates)),
        ("a wrong thumbprint", wrong, None, &known, Err(IdentityRejection::Thumbprint)),
    ];
    for (name, primary, secondary, made, expected) in cases {
        let authentication = Authentication::SelfSigned(Thumbprints { primary, secondary });
        let identity = Identity { authentication, ..by_keys("dev") };
        let proven = prove(claim(&identity), &shown(&[made]), rules(&[], &[]), NOON);
        assert_eq!(proven.as_ref().map(|_| ()).map_err(|rejection| *rejection), expected, "{name}");
        if let Ok(proven) = proven {
            assert_eq!(proven.expires_at(), made.certificate.not_after(), "{name}");
            assert!(identity.authentication.still_admits(proven.used()), "{name}");
        }
    }
}

#[test]
fn a_chain_leads_to_a_ca_of_the_hub_and_names_the_identity() {
    let root = Plan::authority("root").self_signed();
    let between = Plan::authority("between").signed_by(&root);
    let leaf = |name: &str| Plan::leaf(name).signed_by(&between);
    let (dev, upper, module) = (leaf("dev"), leaf("DEV"), leaf("dev/mod"));
    let expired = Plan::leaf("dev").years(2020, 2021).signed_by(&between);
    let stranger = Plan::leaf("dev").self_signed();
    let device = by_authority("dev");
    let of_module = Identity { name: module_name(), ..by_authority("dev") };
    let cases: &[ChainCase<'_>] = &[
        ("the whole chain", &device, &[&dev, &between], &root, Ok(())),
        ("an intermediate as the CA", &device, &[&dev], &between, Ok(())),
        ("the intermediate missing", &device, &[&dev], &root, Err(IdentityRejection::Chain(Fault::IssuerUnknown))),
        ("another case", &device, &[&upper, &between], &root, Err(IdentityRejection::CommonName)),
        ("a module's certificate", &device, &[&module, &between], &root, Err(IdentityRejection::CommonName)),
        ("a module", &of_module, &[&module, &between], &root, Ok(())),
        (
            "a device's certificate for a module",
            &of_module,
            &[&dev, &between],
            &root,
            Err(IdentityRejection::CommonName),
        ),
        ("expired", &device, &[&expired, &between], &root, Err(IdentityRejection::Chain(Fault::Expired))),
        ("a stranger", &device, &[&stranger], &root, Err(IdentityRejection::Chain(Fault::NotAnchored))),
    ];
    let enabled = by_keys("dev");
    for (name, identity, chain, authority, expected) in cases {
        let device = identity.name.module.as_ref().map(|_| &enabled);
        let authorities = [authority.certificate.clone()];
        let claim = Claim { identity: Some(identity), device };
        let proven = prove(claim, &shown(chain), rules(&[], &authorities), NOON);
        assert_eq!(proven.map(|_| ()), *expected, "{name}");
    }
}

#[test]
fn a_refusal_names_the_reason_to_the_log() {
    let root = Plan::authority("root").self_signed();
    let leaf = Plan::leaf("dev").signed_by(&root);
    let authorities = [root.certificate.clone()];
    let (keys, x509) = (by_keys("dev"), by_authority("dev"));
    let disabled = Identity { status: IdentityStatus::Disabled, ..by_keys("dev") };
    let nothing = Identity { authentication: Authentication::None, ..by_keys("dev") };
    let (token, certificate, neither) = (signed(DEVICE, 1, None, 60), shown(&[&leaf]), Evidence::default());
    let both = Evidence { certificates: certificate.certificates.clone(), ..token.clone() };
    let cases: &[ReasonCase<'_>] = &[
        ("nothing shown", Some(&keys), &neither, Err(IdentityRejection::NoCredential)),
        ("unknown, with a signature", None, &token, Err(IdentityRejection::Unknown)),
        ("unknown, with a certificate", None, &certificate, Err(IdentityRejection::Unknown)),
        ("unknown, with nothing", None, &neither, Err(IdentityRejection::Unknown)),
        ("disabled, with the right key", Some(&disabled), &token, Err(IdentityRejection::Disabled)),
        ("keys asked for, a certificate shown", Some(&keys), &certificate, Err(IdentityRejection::Mechanism)),
        ("a certificate asked for, a signature shown", Some(&x509), &token, Err(IdentityRejection::Mechanism)),
        ("a certificate asked for, both shown", Some(&x509), &both, Err(IdentityRejection::Mechanism)),
        ("keys asked for, both shown", Some(&keys), &both, Ok(())),
        ("nothing proves it, a certificate shown", Some(&nothing), &certificate, Err(IdentityRejection::Mechanism)),
        ("nothing proves it, a signature shown", Some(&nothing), &token, Err(IdentityRejection::Mechanism)),
    ];
    for (name, identity, evidence, expected) in cases {
        let claim = Claim { identity: *identity, device: None };
        let proven = prove(claim, evidence, rules(&[], &authorities), NOON);
        assert_eq!(proven.map(|_| ()), *expected, "{name}");
    }
}

#[test]
fn a_credential_that_changed_no_longer_holds() {
    let made = Plan::leaf("dev").self_signed();
    let leaf = made.certificate.clone();
    let by_authority = UsedCredential::Authority { presented: Arc::new(presented(&[&made])), anchor: leaf.clone() };
    let known = |text: String| Authentication::SelfSigned(Thumbprints { primary: Some(text), secondary: None });
    let (old, new) = (by_keys("dev").authentication, Authentication::Sas(pair(3)));
    let used_key = UsedCredential::DeviceKey(key(1).digest());
    let by_leaf = UsedCredential::Certificate(leaf.clone());
    let cases: &[(&str, &Authentication, &UsedCredential, bool)] = &[
        ("the key is still there", &old, &used_key, true),
        ("the keys were replaced", &new, &used_key, false),
        ("the thumbprint is still there", &known(leaf.sha256_hex()), &by_leaf, true),
        ("the thumbprint was replaced", &known("0".repeat(64)), &by_leaf, false),
        ("from certificate to key", &old, &by_leaf, false),
        ("from thumbprint to CA", &Authentication::CertificateAuthority, &by_leaf, false),
        ("a policy for a key device", &old, &UsedCredential::PolicyKey([0; 32]), true),
        (
            "a policy for an X.509 device",
            &Authentication::CertificateAuthority,
            &UsedCredential::PolicyKey([0; 32]),
            false,
        ),
        ("a CA", &Authentication::CertificateAuthority, &by_authority, true),
        ("from CA to thumbprint", &known(leaf.sha256_hex()), &by_authority, false),
    ];
    for (name, authentication, used, expected) in cases {
        assert_eq!(authentication.still_admits(used), *expected, "{name}");
    }
}

#[test]
fn a_hub_vouches_as_long_as_it_has_the_policy_or_the_ca() {
    let root = Plan::authority("root").self_signed();
    let between = Plan::authority("between").signed_by(&root);
    let leaf = Plan::leaf("dev").signed_by(&between);
    let stranger = Plan::authority("root").self_signed();
    let presented = Arc::new(presented(&[&leaf, &between]));
    let by_root = UsedCredential::Authority { presented, anchor: root.certificate.clone() };
    let by_policy = UsedCredential::PolicyKey(key(6).digest());
    let may = [policy("device", Right::DeviceConnect, 5)];
    let may_not = [policy("device", Right::ServiceConnect, 5)];
    let rekeyed = [policy("device", Right::DeviceConnect, 7)];
    let (key, thumbprint) = (UsedCredential::DeviceKey([0; 32]), UsedCredential::Certificate(leaf.certificate.clone()));
    let cases: &[(&str, &UsedCredential, &[Policy], &[&Made], bool)] = &[
        ("the CA is there", &by_root, &[], &[&stranger, &root], true),
        ("the CA is gone", &by_root, &[], &[], false),
        ("another CA of the same name came", &by_root, &[], &[&stranger], false),
        ("another CA vouches for the same chain", &by_root, &[], &[&between], true),
        ("the policy is there", &by_policy, &may, &[], true),
        ("the policy lost its right", &by_policy, &may_not, &[], false),
        ("the policy was re-keyed", &by_policy, &rekeyed, &[], false),
        ("the policy is gone", &by_policy, &[], &[], false),
        ("an identity's own key", &key, &[], &[], true),
        ("an identity's own thumbprint", &thumbprint, &[], &[], true),
    ];
    for (name, used, policies, authorities, expected) in cases {
        let authorities: Vec<_> = authorities.iter().map(|made| made.certificate.clone()).collect();
        assert_eq!(used.is_upheld(policies, &authorities, NOON), *expected, "{name}");
    }
}

fn key(byte: u8) -> SymmetricKey {
    SymmetricKey::from_bytes(&[byte; 32]).unwrap()
}

fn pair(byte: u8) -> KeyPair {
    KeyPair { primary: key(byte), secondary: key(byte + 1) }
}

fn by_keys(device: &str) -> Identity {
    let name = IdentityName::device(DeviceId::parse(device).unwrap());
    let identity = Identity { authentication: Authentication::Sas(pair(1)), ..Identity::blank(name) };
    identity.created(Etag::from_number(1), NOON)
}

fn by_authority(device: &str) -> Identity {
    Identity { authentication: Authentication::CertificateAuthority, ..by_keys(device) }
}

fn module_name() -> IdentityName {
    IdentityName::module(DeviceId::parse("dev").unwrap(), ModuleId::parse("mod").unwrap())
}

fn policy(name: &str, right: Right, byte: u8) -> Policy {
    let policy = Policy::generate(PolicyName::parse(name).unwrap(), Rights::of(&[right]), &SeededEntropy::new(1));
    Policy { keys: pair(byte), ..policy }
}

fn claim(identity: &Identity) -> Claim<'_> {
    Claim { identity: Some(identity), device: None }
}

fn rules<'a>(policies: &'a [Policy], authorities: &'a [Certificate]) -> HubRules<'a> {
    HubRules { hosts: HOSTS, policies, authorities }
}

fn signed(resource: &str, key_byte: u8, policy: Option<&str>, seconds: i64) -> Evidence {
    let expires_at = UnixTime::from_seconds(NOON.seconds() + seconds);
    let text = SasToken::write(&key(key_byte), resource, policy, expires_at);
    Evidence { token: Some(SasToken::parse(&text).unwrap()), ..Evidence::default() }
}

fn shown(chain: &[&Made]) -> Evidence {
    Evidence { certificates: Some(Arc::new(presented(chain))), ..Evidence::default() }
}
