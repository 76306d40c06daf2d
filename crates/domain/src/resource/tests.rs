//! What operators may write about hubs and provisioning services.

use serde_json::json;

use super::*;
use crate::clock::SeededEntropy;
use crate::operation::resource::{LinkCredential, PolicyDraft};
use crate::sas::SymmetricKey;

const NOW: UnixTime = UnixTime::from_seconds(1_700_000_000);

type HubEdit = fn(&mut HubDraft);

/// A hub that nobody has configured.
pub(super) fn hub(name: &str) -> Hub {
    create_hub(name, HubDraft::default()).unwrap()
}

/// A provisioning service that nobody has configured.
pub(super) fn service(name: &str) -> ProvisioningService {
    let name = ServiceName::parse(name).unwrap();
    let draft = (ServiceDraft::default(), None);
    ProvisioningService::create(name, "muster".to_owned(), draft, NOW, &SeededEntropy::new(2)).unwrap()
}

#[test]
fn a_fresh_hub_has_the_documented_defaults() {
    let hub = hub("hub");
    assert_eq!((hub.partitions, hub.retention_days, hub.policies.len(), hub.created_at), (4, 1, 5, NOW));
    assert_eq!((hub.group.as_str(), hub.address), ("muster", None));
}

#[test]
fn a_fresh_service_hashes_over_no_hubs() {
    let service = service("dps");
    assert_eq!((service.allocation, service.links.len(), service.policies.len()), (AllocationPolicy::Hashed, 0, 1));
    assert!(service.id_scope.as_str().starts_with("0ne"));
}

#[test]
fn a_hub_is_created_within_its_limits() {
    let cases: &[(&str, HubEdit, Result<(), InvalidResource>)] = &[
        ("one partition", |draft| draft.partition_count = Some(1), Ok(())),
        ("the most partitions", |draft| draft.partition_count = Some(32), Ok(())),
        ("no partition", |draft| draft.partition_count = Some(0), Err(InvalidResource::Partitions)),
        ("one partition more", |draft| draft.partition_count = Some(33), Err(InvalidResource::Partitions)),
        ("the longest retention", |draft| draft.retention_days = Some(365), Ok(())),
        ("no retention", |draft| draft.retention_days = Some(0), Err(InvalidResource::Retention)),
        ("a longer retention", |draft| draft.retention_days = Some(366), Err(InvalidResource::Retention)),
        ("no policies at all", |draft| draft.policies = Some(Vec::new()), Ok(())),
    ];
    for (name, edit, expected) in cases {
        let mut draft = HubDraft::default();
        edit(&mut draft);
        assert_eq!(create_hub("hub", draft).map(|_| ()), *expected, "{name}");
    }
}

#[test]
fn an_update_changes_what_it_says_and_keeps_the_rest() {
    let mut hub = create_hub(
        "hub",
        HubDraft {
            location: Some("local".to_owned()),
            tags: Some(object(&json!({"a": 1}))),
            sku: Some(object(&json!({"name": "S1"}))),
            extra: object(&json!({"comments": "x", "features": "None"})),
            ..HubDraft::default()
        },
    )
    .unwrap();
    let before = hub.clone();
    hub.apply(HubDraft::default(), &SeededEntropy::new(9)).unwrap();
    assert_eq!(hub, before);

    let update = HubDraft {
        tags: Some(object(&json!({"b": 2}))),
        partition_count: Some(4),
        retention_days: Some(7),
        extra: object(&json!({"comments": "y"})),
        ..HubDraft::default()
    };
    hub.apply(update, &SeededEntropy::new(9)).unwrap();
    let expected = Hub {
        tags: object(&json!({"b": 2})),
        retention_days: 7,
        extra: object(&json!({"comments": "y", "features": "None"})),
        ..before.clone()
    };
    assert_eq!(hub, expected);

    let refused = HubDraft { partition_count: Some(8), retention_days: Some(9), ..HubDraft::default() };
    assert_eq!(hub.apply(refused, &SeededEntropy::new(9)), Err(InvalidResource::PartitionsFixed));
    assert_eq!(hub, expected);
}

#[test]
fn policies_are_replaced_as_a_set_and_keep_the_keys_that_are_left_out() {
    let mut hub = hub("hub");
    let owner = hub.policies.first().unwrap().clone();
    let key = SymmetricKey::from_bytes(&[7; 32]).unwrap();
    let drafts = vec![
        PolicyDraft { primary: Some(key.clone()), ..policy("IOTHUBOWNER", "ServiceConnect,RegistryWrite") },
        policy("fresh", "DeviceConnect"),
    ];
    hub.apply(HubDraft { policies: Some(drafts), ..HubDraft::default() }, &SeededEntropy::new(9)).unwrap();

    let [kept, fresh] = hub.policies.as_slice() else { panic!("{:?}", hub.policies) };
    assert_eq!((&kept.keys.primary, &kept.keys.secondary), (&key, &owner.keys.secondary));
    assert_eq!(kept.rights.to_string(), "RegistryWrite, ServiceConnect");
    assert_ne!(fresh.keys.primary, fresh.keys.secondary);
    assert!(kept.has_key(&key.digest()) && !kept.has_key(&owner.keys.primary.digest()));
}

#[test]
fn a_set_of_policies_is_refused_whole() {
    let unknown = InvalidRights::Unknown { name: "EnrollmentRead".to_owned() };
    let name = |text| PolicyName::parse(text).unwrap();
    let cases: Vec<(&str, Vec<PolicyDraft>, InvalidResource)> = vec![
        (
            "rights of another kind of resource",
            vec![policy("a", "ServiceConnect"), policy("b", "EnrollmentRead")],
            InvalidResource::Rights { policy: name("b"), reason: unknown },
        ),
        (
            "no rights",
            vec![policy("a", " ")],
            InvalidResource::Rights { policy: name("a"), reason: InvalidRights::Empty },
        ),
        (
            "one name twice",
            vec![policy("a", "ServiceConnect"), policy("A", "ServiceConnect")],
            InvalidResource::PolicyTwice(name("A")),
        ),
        (
            "too many",
            (0..=Policy::COUNT_MAX).map(|n| policy(&format!("p{n}"), "ServiceConnect")).collect(),
            InvalidResource::TooManyPolicies,
        ),
    ];
    for (name, drafts, expected) in cases {
        let mut hub = hub("hub");
        let before = hub.clone();
        let draft = HubDraft { policies: Some(drafts), ..HubDraft::default() };
        assert_eq!(hub.apply(draft, &SeededEntropy::new(9)), Err(expected), "{name}");
        assert_eq!(hub, before, "{name}");
    }
}

#[test]
fn links_are_bounded_and_name_each_hub_once() {
    let linked = |hub, weight| LinkedHub::settle(link(weight, false), HubKey(hub), None);
    let many = |count: i64| (1..=count).map(|hub| linked(hub, 1)).collect::<Vec<_>>();
    let cases: Vec<(&str, Vec<LinkedHub>, Result<(), InvalidResource>)> = vec![
        ("the smallest and the largest weight", vec![linked(1, 1), linked(2, 1_000)], Ok(())),
        ("no weight", vec![linked(1, 0)], Err(InvalidResource::Weight)),
        ("too much weight", vec![linked(1, 1_001)], Err(InvalidResource::Weight)),
        ("a hub twice", vec![linked(1, 1), linked(2, 1), linked(1, 2)], Err(InvalidResource::LinkTwice)),
        ("the most hubs", many(50), Ok(())),
        ("one more", many(51), Err(InvalidResource::TooManyLinks)),
    ];
    for (name, links, expected) in cases {
        let mut service = service("dps");
        let applied = service.apply(ServiceDraft::default(), Some(links.clone()), &SeededEntropy::new(9));
        assert_eq!(applied, expected, "{name}");
        assert_eq!(service.links, if expected.is_ok() { links } else { Vec::new() }, "{name}");
    }
}

#[test]
fn a_link_without_its_key_keeps_its_policy_and_place() {
    let present = LinkedHub::settle(link(1, true), HubKey(1), None);
    assert_eq!((present.policy.as_str(), present.location.as_str(), present.applies), ("iothubowner", "westus", true));
    let echoed = LinkDraft { location: None, apply_allocation_policy: false, ..link(5, false) };
    let updated = LinkedHub::settle(echoed, HubKey(1), Some(&present));
    assert_eq!(updated, LinkedHub { weight: 5, applies: false, ..present });
}

#[test]
fn a_service_never_leaves_all_choices_to_a_webhook() {
    let mut service = service("dps");
    let mut allocate = |allocation| {
        let draft = ServiceDraft { allocation: Some(allocation), ..ServiceDraft::default() };
        service.apply(draft, None, &SeededEntropy::new(9)).map(|()| service.allocation)
    };
    for allocation in [AllocationPolicy::Static, AllocationPolicy::GeoLatency, AllocationPolicy::Hashed] {
        assert_eq!(allocate(allocation), Ok(allocation));
    }
    assert_eq!(allocate(AllocationPolicy::Custom), Err(InvalidResource::Allocation));
}

#[test]
fn resource_groups_have_the_managers_names() {
    for name in ["muster", "rg-1_(a).b", &"x".repeat(90)] {
        assert_eq!(ResourceGroup::check_name(name), Ok(()), "{name}");
    }
    for name in ["", "a/b", "a b", "rg.", "ü", &"x".repeat(91)] {
        assert_eq!(ResourceGroup::check_name(name), Err(InvalidResource::GroupName), "{name}");
    }
}

fn create_hub(name: &str, draft: HubDraft) -> Result<Hub, InvalidResource> {
    Hub::create(HubName::parse(name).unwrap(), "muster".to_owned(), draft, NOW, &SeededEntropy::new(1))
}

fn policy(name: &str, rights: &str) -> PolicyDraft {
    PolicyDraft { name: PolicyName::parse(name).unwrap(), rights: rights.to_owned(), primary: None, secondary: None }
}

fn link(weight: u32, with_credential: bool) -> LinkDraft {
    let credential = LinkCredential {
        policy: PolicyName::parse("iothubowner").unwrap(),
        key: SymmetricKey::from_bytes(&[1; 32]).unwrap(),
    };
    LinkDraft {
        host_name: "127.0.0.2".to_owned(),
        credential: with_credential.then_some(credential),
        location: Some("westus".to_owned()),
        apply_allocation_policy: true,
        weight,
    }
}

fn object(value: &Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}
