//! Which hub or provisioning service a connection reaches.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use domain::clock::SeededEntropy;
use domain::ids::{HubKey, IdScope, ServiceKey};
use domain::operation::Endpoint;
use domain::resource::{Hub, Naming, ProvisioningService};
use service::Snapshot;
use store::conformance::sample;
use store::ports::Resources;

/// The address of the nth resource.
const fn address(number: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, number))
}

fn at(number: u8, name: Option<&str>) -> Endpoint {
    Endpoint { address: address(number), name: name.map(Arc::from), admin: false }
}

fn scope(seed: u64) -> IdScope {
    IdScope::generate(&SeededEntropy::new(seed))
}

/// Two provisioning services at the first two addresses, and two hubs at the next.
fn snapshot(naming: Naming) -> Snapshot {
    let owned = |number| matches!(naming, Naming::Addresses).then_some(address(number));
    let service = |number: u8, name| ProvisioningService {
        key: ServiceKey(number.into()),
        id_scope: scope(number.into()),
        address: owned(number),
        ..sample::service(name, "0ne00000000")
    };
    let hub = |number: u8, name| Hub { key: HubKey(number.into()), address: owned(2 + number), ..sample::hub(name) };
    let services = vec![service(1, "zeta"), service(2, "alpha")];
    let hubs = vec![hub(1, "upper"), hub(2, "lower")];
    Snapshot::new(naming, Resources { hubs, services, ..Resources::default() })
}

#[test]
fn a_hub_is_reached_by_its_address_or_its_name_and_what_is_said_may_only_narrow_it() {
    let domain = Naming::Domain("example.org".to_owned());
    let addresses = [
        ("its address", at(3, None), "", Some(1)),
        ("its address, named", at(3, Some("127.0.0.3:443")), "127.0.0.3", Some(1)),
        ("another one's name", at(3, None), "127.0.0.4", None),
        ("nobody's address", at(9, None), "127.0.0.3", None),
        ("a provisioning service's address", at(1, None), "", None),
    ];
    let names = [
        ("its name", at(1, Some("upper.example.org")), "", Some(1)),
        ("its name, by the other way", at(1, None), "UPPER.example.org:8883", Some(1)),
        ("both agree", at(1, Some("lower.example.org")), "Lower.Example.org", Some(2)),
        ("both differ", at(1, Some("lower.example.org")), "upper.example.org", None),
        ("nothing is said", at(1, None), "", None),
        ("another domain", at(1, Some("upper.example.com")), "", None),
    ];
    for (naming, cases) in [(Naming::Addresses, addresses.as_slice()), (domain, names.as_slice())] {
        let snapshot = snapshot(naming);
        for (case, endpoint, said, expected) in cases {
            let found = snapshot.hub_at(endpoint, said).map(|hub| hub.key.0);
            assert_eq!(found, *expected, "{case}");
        }
    }
}

#[test]
fn a_provisioning_service_is_reached_at_its_own_endpoint_and_by_scope_at_the_common_one() {
    let domain = Naming::Domain("example.org".to_owned());
    // Endpoint, its service API, and the services whose scope may be asked for.
    let addresses = [
        ("the first service's address is the common one", at(1, None), Some(1), [true, true]),
        ("the second service's own", at(2, None), Some(2), [false, true]),
        ("a hub's", at(3, None), None, [false, false]),
    ];
    let names = [
        ("the common name is nobody's own", at(1, Some("GLOBAL.example.org")), None, [true, true]),
        ("no name", at(1, None), None, [true, true]),
        ("the first service's own", at(1, Some("zeta.example.org:443")), Some(1), [true, false]),
        ("the second service's own", at(1, Some("alpha.example.org")), Some(2), [false, true]),
        ("a hub's", at(1, Some("upper.example.org")), None, [false, false]),
    ];
    for (naming, cases) in [(Naming::Addresses, addresses.as_slice()), (domain, names.as_slice())] {
        let snapshot = snapshot(naming);
        for (case, endpoint, own, scopes) in cases {
            assert_eq!(snapshot.service_at(endpoint).map(|service| service.key.0), *own, "{case}");
            let asked = [scope(1), scope(2)].map(|scope| {
                snapshot.scope_at(endpoint, &scope.as_str().to_ascii_uppercase()).is_some_and(|it| it.id_scope == scope)
            });
            assert_eq!(asked, *scopes, "{case}");
        }
        assert!(snapshot.scope_at(&at(1, None), "0neOTHER").is_none());
    }
}
