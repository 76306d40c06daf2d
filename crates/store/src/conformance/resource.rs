//! Promises of [`crate::ports::ResourceStore`].

use std::collections::HashSet;
use std::net::IpAddr;

use domain::enrollment::EntryKind;
use domain::ids::{CertificateName, Etag, HubKey, Precondition, ServiceKey};
use domain::operation::PageRequest;
use domain::resource::{AddressPool, CertificateOwner, LinkedHub, ResourceGroup};

use super::sample::{
    NOON, admitted, after, ca_certificate, device, entropy, hub, identity, individual, make_hub, make_service, object,
    operation, proven, registration_id, service,
};
use super::{Backend, Done as _};
use crate::ports::{Changed, Created, DefaultsStage, Deployment, Placed, Sealed};

fn deployment(secret: u8) -> Deployment {
    Deployment {
        subscription: "s".to_owned(),
        tenant: "t".to_owned(),
        client: "c".to_owned(),
        client_secret: Sealed(vec![secret; 20]),
        token_key: Sealed(vec![secret; 32]),
        created_at: NOON,
    }
}

pub async fn the_first_deployment_stays(backend: &Backend) {
    let first = backend.store.deployment(deployment(1)).await.unwrap();
    assert_eq!(first, deployment(1));
    assert_eq!(backend.store.deployment(deployment(2)).await.unwrap(), deployment(1));
}

pub async fn how_far_the_first_resources_are_made_is_remembered(backend: &Backend) {
    let store = &backend.store;
    assert_eq!(store.defaults_stage().await.unwrap(), DefaultsStage::Untouched);
    for stage in [DefaultsStage::Begun, DefaultsStage::Finished, DefaultsStage::Untouched] {
        store.set_defaults_stage(stage).await.unwrap();
        assert_eq!(store.defaults_stage().await.unwrap(), stage);
    }
}

pub async fn a_hub_comes_back_as_it_was_created(backend: &Backend) {
    let created = backend.store.create_hub(hub("Hub-1"), None, NOON).await.unwrap().done();
    assert_eq!((created.created_at, created.address), (NOON, None));
    assert_eq!(backend.store.load_resources().await.unwrap().hubs, [created]);
}

pub async fn names_of_hubs_are_unique_without_regard_to_case(backend: &Backend) {
    make_hub(&*backend.store, "hub-1").await;
    let again = backend.store.create_hub(hub("HUB-1"), Some(AddressPool::Loopback), NOON).await.unwrap();
    assert_eq!(again, Placed::AlreadyExists);
    assert_eq!(backend.store.load_resources().await.unwrap().hubs.len(), 1);
}

pub async fn keys_of_hubs_are_never_given_twice(backend: &Backend) {
    let mut seen = HashSet::new();
    for _ in 0..3 {
        let key = make_hub(&*backend.store, "hub-1").await;
        assert!(seen.insert(key));
        backend.store.delete_hub(key).await.unwrap().done();
    }
}

pub async fn addresses_follow_each_other_and_are_never_given_twice(backend: &Backend) {
    let store = &backend.store;
    let first_hub = store.create_hub(hub("hub-1"), Some(AddressPool::Loopback), NOON).await.unwrap().done();
    let first_service =
        store.create_service(service("dps-1", "0neA"), Some(AddressPool::Loopback), NOON).await.unwrap().done();
    let second_service =
        store.create_service(service("dps-2", "0neB"), Some(AddressPool::Loopback), NOON).await.unwrap().done();
    store.delete_hub(first_hub.key).await.unwrap().done();
    let second_hub = store.create_hub(hub("hub-1"), Some(AddressPool::Loopback), NOON).await.unwrap().done();
    let addresses = [first_hub.address, first_service.address, second_service.address, second_hub.address];
    let expected = ["127.0.0.2", "127.0.0.1", "127.0.0.3", "127.0.0.4"].map(|text| Some(text.parse().unwrap()));
    assert_eq!(addresses, expected);
}

pub async fn listed_addresses_are_given_until_none_is_left(backend: &Backend) {
    let listed: Vec<IpAddr> = ["192.0.2.1", "2001:db8::2"].map(|text| text.parse().unwrap()).to_vec();
    let pool = || Some(AddressPool::Listed(listed.clone()));
    let first_hub = backend.store.create_hub(hub("hub-1"), pool(), NOON).await.unwrap().done();
    let first_service = backend.store.create_service(service("dps-1", "0neA"), pool(), NOON).await.unwrap().done();
    assert_eq!([first_hub.address, first_service.address], [Some(listed[1]), Some(listed[0])]);
    backend.store.delete_hub(first_hub.key).await.unwrap().done();
    assert_eq!(backend.store.create_hub(hub("hub-1"), pool(), NOON).await.unwrap(), Placed::NoAddressLeft);
    let scope = service("dps-2", "0neB");
    assert_eq!(backend.store.create_service(scope, pool(), NOON).await.unwrap(), Placed::NoAddressLeft);
    assert!(backend.store.load_resources().await.unwrap().hubs.is_empty());
}

pub async fn an_address_that_was_given_is_refused_also_after_deletion(backend: &Backend) {
    let address: Option<IpAddr> = Some("192.0.2.1".parse().unwrap());
    let wanted = |name| domain::resource::Hub { address, ..hub(name) };
    let first = backend.store.create_hub(wanted("hub-1"), None, NOON).await.unwrap().done();
    assert_eq!(first.address, address);
    backend.store.delete_hub(first.key).await.unwrap().done();
    assert_eq!(backend.store.create_hub(wanted("hub-2"), None, NOON).await.unwrap(), Placed::AlreadyExists);
    assert!(backend.store.load_resources().await.unwrap().hubs.is_empty());
}

pub async fn a_replaced_hub_keeps_what_never_changes(backend: &Backend) {
    let created = backend.store.create_hub(hub("hub-1"), Some(AddressPool::Loopback), NOON).await.unwrap().done();
    let wanted = domain::resource::Hub {
        key: created.key,
        name: "other".parse().unwrap(),
        address: None,
        partitions: 32,
        retention_days: 7,
        tags: object(r#"{"a":1}"#),
        policies: Vec::new(),
        ..hub("hub-1")
    };
    let replaced = backend.store.replace_hub(wanted.clone(), Precondition::None, after(5)).await.unwrap().done();
    assert_ne!(replaced.etag, created.etag);
    let expected = domain::resource::Hub {
        retention_days: 7,
        tags: wanted.tags.clone(),
        policies: Vec::new(),
        etag: replaced.etag,
        ..created.clone()
    };
    assert_eq!(replaced, expected);
    assert_eq!(backend.store.load_resources().await.unwrap().hubs, std::slice::from_ref(&replaced));

    let stale = backend.store.replace_hub(wanted.clone(), Precondition::Matches(created.etag), NOON).await.unwrap();
    assert_eq!(stale, Changed::PreconditionFailed { present: replaced.etag });
    let missing = domain::resource::Hub { key: HubKey(404), ..wanted };
    assert_eq!(backend.store.replace_hub(missing, Precondition::None, NOON).await.unwrap(), Changed::NotFound);
}

pub async fn a_deleted_hub_takes_its_contents_along(backend: &Backend) {
    let store = &backend.store;
    let (gone, stays) = (make_hub(&**store, "gone").await, make_hub(&**store, "stays").await);
    for hub in [gone, stays] {
        for number in 0..150 {
            let name = device(&format!("dev-{number}"));
            store.create_identity(hub, identity(name, number), None, NOON).await.unwrap().done();
        }
        let owner = CertificateOwner::Hub(hub);
        store.put_certificate(owner, ca_certificate("ca", 0), Precondition::None).await.unwrap().done();
    }
    let deleted = store.delete_hub(gone).await.unwrap().done();
    assert_eq!(deleted.key, gone);
    assert_eq!(store.delete_hub(gone).await.unwrap(), Changed::NotFound);

    let page = |hub| store.list_devices(hub, PageRequest { after: None, limit: 1_000 });
    assert_eq!((page(gone).await.unwrap().items.len(), page(stays).await.unwrap().items.len()), (0, 150));
    assert_eq!(store.find_twin(gone, &device("dev-1")).await.unwrap(), None);
    assert!(store.find_twin(stays, &device("dev-1")).await.unwrap().is_some());
    let resources = store.load_resources().await.unwrap();
    assert_eq!(resources.hubs.iter().map(|hub| hub.key).collect::<Vec<_>>(), [stays]);
    let owners: Vec<_> = resources.certificates.iter().map(|(owner, _)| *owner).collect();
    assert_eq!(owners, [CertificateOwner::Hub(stays)]);
    let refused = store.create_identity(gone, identity(device("late"), 1), None, NOON).await.unwrap();
    assert_eq!(refused, Created::NoOwner);
}

pub async fn a_service_comes_back_as_it_was_created_and_replaced(backend: &Backend) {
    let store = &backend.store;
    let created =
        store.create_service(service("dps-1", "0neA"), Some(AddressPool::Loopback), NOON).await.unwrap().done();
    assert_eq!(store.load_resources().await.unwrap().services, std::slice::from_ref(&created));
    for (name, scope) in [("DPS-1", "0neB"), ("dps-2", "0nea")] {
        let taken = store.create_service(service(name, scope), None, NOON).await.unwrap();
        assert_eq!(taken, Placed::AlreadyExists, "{name} {scope}");
    }
    let link = LinkedHub {
        hub: HubKey(7),
        policy: "iothubowner".to_owned(),
        location: "local".to_owned(),
        applies: true,
        weight: 3,
    };
    let wanted = domain::resource::ProvisioningService {
        key: created.key,
        links: vec![link.clone()],
        ..service("other", "0neOTHER")
    };
    let precondition = Precondition::Matches(created.etag);
    let replaced = store.replace_service(wanted.clone(), precondition, after(1)).await.unwrap().done();
    let expected = domain::resource::ProvisioningService { links: vec![link], etag: replaced.etag, ..created.clone() };
    assert_eq!(replaced, expected);
    assert_eq!(store.load_resources().await.unwrap().services, std::slice::from_ref(&replaced));
    let stale = store.replace_service(wanted, precondition, NOON).await.unwrap();
    assert_eq!(stale, Changed::PreconditionFailed { present: replaced.etag });
}

pub async fn a_deleted_service_takes_its_contents_along(backend: &Backend) {
    let store = &backend.store;
    let (gone, stays) = (make_service(&**store, "gone").await, make_service(&**store, "stays").await);
    for service in [gone, stays] {
        for number in 0..120 {
            let name = format!("dev-{number}");
            let entry = store.create_enrollment(service, individual(&name, number), NOON).await.unwrap().done();
            let seed = number + 1_000 * u64::try_from(service.0).unwrap();
            let (device, decision) = (proven(service, &name, &entry), admitted(seed, &name));
            store.accept_registration(&device, operation(seed), None, decision, NOON).await.unwrap();
        }
    }
    store.delete_service(gone).await.unwrap().done();
    assert_eq!(store.delete_service(gone).await.unwrap(), Changed::NotFound);
    let count = |service: ServiceKey| async move {
        let page = PageRequest { after: None, limit: 1_000 };
        let entries = store.list_enrollments(service, EntryKind::Individual, page).await.unwrap().items.len();
        let record = store.find_registration(service, &registration_id("dev-119")).await.unwrap();
        (entries, record.is_some())
    };
    assert_eq!((count(gone).await, count(stays).await), ((0, false), (120, true)));
    let claimed = store.claim_operations(1_000).await.unwrap();
    assert!(claimed.len() == 120 && claimed.iter().all(|claimed| claimed.registrant.service == stays));
}

pub async fn certificates_belong_to_their_owner_and_are_changed_under_preconditions(backend: &Backend) {
    let store = &backend.store;
    let (hub, service) = (make_hub(&**store, "hub").await, make_service(&**store, "dps").await);
    let (hub, service) = (CertificateOwner::Hub(hub), CertificateOwner::Service(service));
    let missing = store.put_certificate(hub, ca_certificate("ca", 0), Precondition::Exists).await.unwrap();
    assert_eq!(missing, Changed::NotFound);
    let first = store.put_certificate(hub, ca_certificate("ca", 0), Precondition::None).await.unwrap().done();
    store.put_certificate(service, ca_certificate("CA", 1), Precondition::None).await.unwrap().done();

    let mut asked = first.clone();
    asked.ask_for_proof(&entropy(1), after(1));
    let second = store.put_certificate(hub, asked, Precondition::Matches(first.etag)).await.unwrap().done();
    assert_ne!(first.etag, second.etag);
    let stale = store.put_certificate(hub, first.clone(), Precondition::Matches(first.etag)).await.unwrap();
    assert_eq!(stale, Changed::PreconditionFailed { present: second.etag });

    let name = CertificateName::parse("Ca").unwrap();
    let stale = store.delete_certificate(hub, &name, Precondition::Impossible).await.unwrap();
    assert_eq!(stale, Changed::PreconditionFailed { present: second.etag });
    assert_eq!(store.delete_certificate(hub, &name, Precondition::None).await.unwrap(), Changed::Done(second));
    assert_eq!(store.delete_certificate(hub, &name, Precondition::None).await.unwrap(), Changed::NotFound);
    let left = store.load_resources().await.unwrap().certificates;
    assert_eq!(left.iter().map(|(owner, _)| *owner).collect::<Vec<_>>(), [service]);
}

pub async fn a_certificate_needs_its_owner(backend: &Backend) {
    let store = &backend.store;
    let (hub, service) = (make_hub(&**store, "gone").await, make_service(&**store, "gone").await);
    store.delete_hub(hub).await.unwrap().done();
    store.delete_service(service).await.unwrap().done();
    for owner in [CertificateOwner::Hub(hub), CertificateOwner::Service(service)] {
        let refused = store.put_certificate(owner, ca_certificate("ca", 0), Precondition::None).await.unwrap();
        assert_eq!(refused, Changed::NotFound, "{owner:?}");
    }
    assert_eq!(store.load_resources().await.unwrap().certificates, []);
}

pub async fn resource_groups_are_put_and_removed_without_regard_to_case(backend: &Backend) {
    let group =
        |name: &str, tags| ResourceGroup { name: name.to_owned(), location: "local".to_owned(), tags: object(tags) };
    backend.store.put_group(group("Cheese", "{}")).await.unwrap();
    let replaced = backend.store.put_group(group("cheese", r#"{"a":"b"}"#)).await.unwrap();
    assert_eq!(backend.store.load_resources().await.unwrap().groups, std::slice::from_ref(&replaced));
    assert_eq!(backend.store.delete_group("CHEESE").await.unwrap(), Changed::Done(replaced));
    assert_eq!(backend.store.delete_group("cheese").await.unwrap(), Changed::NotFound);
}

pub async fn etags_never_repeat(backend: &Backend) {
    let mut seen: HashSet<Etag> = HashSet::new();
    let key = make_hub(&*backend.store, "hub-1").await;
    for number in 0..20 {
        let hub = domain::resource::Hub { key, ..hub("hub-1") };
        assert!(seen.insert(backend.store.replace_hub(hub, Precondition::None, NOON).await.unwrap().done().etag));
        let name = device(&format!("dev-{number}"));
        let made = backend.store.create_identity(key, identity(name, 1), None, NOON).await.unwrap();
        assert!(seen.insert(made.done().etag));
    }
}
