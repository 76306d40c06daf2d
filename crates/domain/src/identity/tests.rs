//! What operators may write into a hub's registry, and what becomes of it.

use super::*;
use crate::clock::SeededEntropy;

const NOW: UnixTime = UnixTime::from_seconds(1_700_000_000);
const LATER: UnixTime = UnixTime::from_seconds(1_700_000_060);
const SHA1: &str = "ABCDEF0123456789abcdef0123456789ABCDEF01";

type Edit = fn(&mut IdentityDraft);
type AuthenticationCase<'a> =
    (&'a str, bool, Option<DraftAuthentication>, Result<StoredAuthentication, InvalidIdentity>);

#[test]
fn authentication_is_completed_or_refused() {
    let key = |byte| SymmetricKey::from_bytes(&[byte; 16]).ok();
    let text = |text: &str| Some(text.to_owned());
    let sas = |primary, secondary| Some(DraftAuthentication::Sas { primary, secondary });
    let self_signed = |primary, secondary| Some(DraftAuthentication::SelfSigned { primary, secondary });
    let sixty_four = "0".repeat(64);
    let cases: Vec<AuthenticationCase<'_>> = vec![
        ("nothing said", false, None, Ok(StoredAuthentication::Sas)),
        ("no keys", false, sas(None, None), Ok(StoredAuthentication::Sas)),
        ("both keys", false, sas(key(1), key(2)), Ok(StoredAuthentication::Sas)),
        ("the first key alone", false, sas(key(1), None), Err(InvalidIdentity::OneKey)),
        ("the second key alone", false, sas(None, key(2)), Err(InvalidIdentity::OneKey)),
        ("one thumbprint", false, self_signed(text(SHA1), None), Ok(stored(Some(SHA1), None))),
        ("the second alone", false, self_signed(None, text(&sixty_four)), Ok(stored(None, Some(&sixty_four)))),
        ("no thumbprint", false, self_signed(None, None), Err(InvalidIdentity::NoThumbprint)),
        ("colons", false, self_signed(text("AB:CD"), None), Err(InvalidIdentity::Thumbprint)),
        ("41 digits", false, self_signed(text(SHA1), text(&"0".repeat(41))), Err(InvalidIdentity::Thumbprint)),
        ("no digits", false, self_signed(text(&"g".repeat(40)), None), Err(InvalidIdentity::Thumbprint)),
        (
            "a CA",
            false,
            Some(DraftAuthentication::CertificateAuthority),
            Ok(StoredAuthentication::CertificateAuthority),
        ),
        ("nothing for a device", false, Some(DraftAuthentication::None), Err(InvalidIdentity::NoAuthentication)),
        ("nothing for a module", true, Some(DraftAuthentication::None), Ok(StoredAuthentication::Sas)),
    ];
    for (name, is_module, authentication, expected) in cases {
        let draft = IdentityDraft { authentication, ..draft(is_module) };
        let checked = draft.check(&SeededEntropy::new(1)).map(|identity| identity.authentication.to_stored().0);
        assert_eq!(checked, expected, "{name}");
    }
}

#[test]
fn keys_that_are_left_out_are_made_and_differ() {
    let Authentication::Sas(made) = checked(draft(false)).authentication else { panic!("not by key") };
    assert_ne!(made.primary, made.secondary);
    assert_eq!((made.primary.bytes().len(), made.secondary.bytes().len()), (32, 32));
}

#[test]
fn text_is_bounded_and_the_hubs_own_modules_are_reserved() {
    let cases: &[(&str, Edit, Result<(), InvalidIdentity>)] = &[
        ("the longest reason", |draft| draft.status_reason = Some("é".repeat(128)), Ok(())),
        ("a longer reason", |draft| draft.status_reason = Some("é".repeat(129)), Err(InvalidIdentity::StatusReason)),
        ("a long scope", |draft| draft.device_scope = Some("s".repeat(257)), Err(InvalidIdentity::Scope)),
        ("a long parent", |draft| draft.parent_scopes = vec!["s".repeat(257)], Err(InvalidIdentity::Scope)),
        ("many parents", |draft| draft.parent_scopes = vec!["s".to_owned(); 11], Err(InvalidIdentity::Scope)),
        ("a long manager", |draft| draft.managed_by = Some("m".repeat(257)), Err(InvalidIdentity::Scope)),
    ];
    for (name, edit, expected) in cases {
        let mut draft = draft(false);
        edit(&mut draft);
        assert_eq!(draft.check(&SeededEntropy::new(1)).map(|_| ()), *expected, "{name}");
    }
    let mut reserved = draft(false);
    reserved.name.module = ModuleId::parse("$edgeAgent").ok();
    assert_eq!(reserved.check_created(), Err(InvalidIdentity::ReservedModule));
    assert!(reserved.check(&SeededEntropy::new(1)).is_ok(), "one that is there is given keys");
}

#[test]
fn an_edge_device_has_a_scope_of_its_own_and_keeps_it() {
    let mut wanted = edge_draft();
    wanted.device_scope = Some("ms-azure-iot-edge://forged-1".to_owned());
    let edge = checked(wanted).created(Etag::from_number(1), NOW);
    assert_eq!(edge.device_scope.as_deref(), Some("ms-azure-iot-edge://dev-638355968000000000"));
    assert!(edge.parent_scopes.is_empty());

    let kept = edge.clone().replaced_by(checked(edge_draft()), Etag::from_number(2), LATER);
    assert_eq!(kept.device_scope, edge.device_scope);
    let plain = kept.replaced_by(checked(draft(false)), Etag::from_number(3), LATER);
    assert_eq!(plain.device_scope, None);
    let again = plain.replaced_by(checked(edge_draft()), Etag::from_number(4), LATER);
    assert_eq!(again.device_scope.as_deref(), Some("ms-azure-iot-edge://dev-638355968600000000"));
}

#[test]
fn a_leafs_parent_is_its_scope() {
    let scope = Some("ms-azure-iot-edge://parent-1".to_owned());
    let leaf = checked(IdentityDraft { device_scope: scope.clone(), ..draft(false) });
    assert_eq!((leaf.parent_scopes.first(), leaf.device_scope.as_ref()), (scope.as_ref(), scope.as_ref()));
    let told = IdentityDraft { device_scope: scope, parent_scopes: vec!["other".to_owned()], ..draft(false) };
    assert_eq!(checked(told).parent_scopes, ["other"]);
}

#[test]
fn modules_and_devices_have_nothing_of_each_other() {
    let everything = |is_module| IdentityDraft {
        status: Some(IdentityStatus::Disabled),
        status_reason: Some("why".to_owned()),
        capabilities: Some(Capabilities { iot_edge: true }),
        device_scope: Some("scope".to_owned()),
        managed_by: Some("me".to_owned()),
        ..draft(is_module)
    };
    let module = checked(everything(true));
    let plain = Identity { authentication: module.authentication.clone(), ..Identity::blank(draft(true).name) };
    assert_eq!(module, Identity { managed_by: Some("me".to_owned()), ..plain });
    let device = checked(everything(false));
    assert_eq!((device.managed_by, device.status), (None, IdentityStatus::Disabled));
}

#[test]
fn an_edge_device_comes_with_two_modules_that_prove_nothing() {
    let modules = Identity::edge_modules(&DeviceId::parse("dev").unwrap());
    let names: Vec<String> = modules.iter().map(|module| module.name.to_string()).collect();
    assert_eq!(names, ["dev/$edgeAgent", "dev/$edgeHub"]);
    assert!(modules.iter().all(|module| module.authentication == Authentication::None));
    assert!(modules.iter().all(|module| module.managed_by.as_deref() == Some("iotEdge")));
}

#[test]
fn replacing_keeps_what_the_hub_alone_knows() {
    let kept = Identity {
        connected: true,
        connection_updated_at: NOW,
        last_activity_at: NOW,
        messages_waiting: 3,
        model_id: None,
        ..checked(draft(false)).created(Etag::from_number(7), NOW)
    };
    let mut wanted = draft(false);
    wanted.status_reason = Some("fine".to_owned());
    let wanted = wanted.check(&SeededEntropy::new(2)).unwrap();
    let replaced = kept.clone().replaced_by(wanted.clone(), Etag::from_number(8), LATER);
    let expected = Identity {
        etag: Etag::from_number(8),
        status_reason: Some("fine".to_owned()),
        authentication: wanted.authentication.clone(),
        ..kept.clone()
    };
    assert_eq!(replaced, expected);
    assert_ne!(replaced.authentication, kept.authentication);

    let disabled = Identity { status: IdentityStatus::Disabled, ..wanted };
    let disabled = kept.replaced_by(disabled, Etag::from_number(9), LATER);
    assert_eq!((disabled.status, disabled.status_updated_at), (IdentityStatus::Disabled, LATER));
}

#[test]
fn a_name_that_is_used_again_has_another_generation() {
    let at = |etag| checked(draft(false)).created(Etag::from_number(etag), NOW).generation;
    assert_eq!(at(7), "638355968000000007");
    assert_ne!(at(7), at(8));
}

#[test]
fn keys_stay_out_of_what_is_stored_and_printed() {
    let authentication = checked(draft(false)).authentication;
    let (stored, keys) = authentication.to_stored();
    assert_eq!(serde_json::to_string(&stored).unwrap(), "\"sas\"");
    assert_eq!(Authentication::from_stored(stored.clone(), keys.cloned()), Some(authentication.clone()));
    assert_eq!(Authentication::from_stored(stored, None), None);
    let shown = format!("{authentication:?}");
    assert!(shown.contains("SymmetricKey(..)"), "{shown}");

    let others = [
        Authentication::SelfSigned(Thumbprints { primary: None, secondary: Some(SHA1.to_owned()) }),
        Authentication::CertificateAuthority,
        Authentication::None,
    ];
    for other in others {
        let text = serde_json::to_string(&other.to_stored().0).unwrap();
        assert_eq!(Authentication::from_stored(serde_json::from_str(&text).unwrap(), None), Some(other));
    }
}

fn draft(is_module: bool) -> IdentityDraft {
    let device = DeviceId::parse("dev").unwrap();
    IdentityDraft::new(IdentityName { device, module: is_module.then(|| ModuleId::parse("mod").unwrap()) })
}

fn edge_draft() -> IdentityDraft {
    IdentityDraft { capabilities: Some(Capabilities { iot_edge: true }), ..draft(false) }
}

fn checked(draft: IdentityDraft) -> Identity {
    draft.check(&SeededEntropy::new(1)).unwrap()
}

fn stored(primary: Option<&str>, secondary: Option<&str>) -> StoredAuthentication {
    let owned = |text: Option<&str>| text.map(str::to_owned);
    StoredAuthentication::SelfSigned(Thumbprints { primary: owned(primary), secondary: owned(secondary) })
}
