//! Which hub or provisioning service a connection reaches.

use std::net::{IpAddr, Ipv4Addr};

use domain::clock::SeededEntropy;
use domain::host::HostName;
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

/// Whoever gave these names: SNI, and `Host`.
fn at(number: u8, server_name: &str, host: &str) -> Endpoint {
    let named = |text: &str| (!text.is_empty()).then(|| HostName::parse(text).unwrap());
    Endpoint { address: address(number), server_name: named(server_name), host: named(host), admin: false }
}

#[test]
fn a_hub_is_reached_by_its_address_or_its_name_and_what_is_said_may_only_narrow_it() {
    let domain = Naming::Domain("example.org".to_owned());
    let addresses = [
        ("its address", at(3, "", ""), "", Some(1)),
        ("its address, named", at(3, "", "127.0.0.3:443"), "127.0.0.3", Some(1)),
        ("its address in another spelling", at(3, "", "[::ffff:7f00:3]"), "127.0.0.3:8883", Some(1)),
        ("localhost", at(3, "localhost", "localhost:443"), "", Some(1)),
        ("another one's name", at(3, "", ""), "127.0.0.4", None),
        ("another one's host", at(3, "", "127.0.0.4:443"), "", None),
        ("another one's host, whatever is said", at(3, "", "127.0.0.4"), "127.0.0.3", None),
        ("a provisioning service's host", at(3, "", "127.0.0.1"), "", None),
        ("nobody's host", at(3, "", "hub.example.org"), "", None),
        ("a first label", at(3, "", "127"), "", None),
        ("nobody's SNI", at(3, "stale.example.org", "127.0.0.3"), "", Some(1)),
        ("what is said is no host", at(3, "", ""), "127.0.0.3:port", None),
        ("nobody's address", at(9, "", ""), "127.0.0.3", None),
        ("nobody's address, named", at(9, "", "127.0.0.9"), "", None),
        ("a provisioning service's address", at(1, "", ""), "", None),
    ];
    let names = [
        ("its name", at(1, "", "upper.example.org"), "", Some(1)),
        ("its name by SNI", at(1, "upper.example.org", ""), "", Some(1)),
        ("its name, by the other way", at(1, "", ""), "UPPER.example.org:8883", Some(1)),
        ("all agree", at(1, "lower.example.org", "lower.example.org"), "Lower.Example.org", Some(2)),
        ("SNI differs from what is said", at(1, "lower.example.org", ""), "upper.example.org", None),
        ("the host differs from what is said", at(1, "", "lower.example.org"), "upper.example.org", None),
        ("SNI differs from the host", at(1, "lower.example.org", "upper.example.org"), "", None),
        ("SNI of a provisioning service", at(1, "zeta.example.org", "upper.example.org"), "", None),
        ("SNI of the devices' endpoint", at(1, "global.example.org", "upper.example.org"), "", None),
        ("nobody's SNI", at(1, "gateway.test", "upper.example.org"), "", Some(1)),
        ("the dialled address as host", at(1, "", "127.0.0.1:443"), "upper.example.org", Some(1)),
        ("localhost as host", at(1, "localhost", "localhost"), "upper.example.org", Some(1)),
        ("another address as host", at(1, "", "127.0.0.2"), "upper.example.org", None),
        ("nothing is said", at(1, "", ""), "", None),
        ("nothing but the address is said", at(1, "", "127.0.0.1"), "", None),
        ("another domain", at(1, "", "upper.example.com"), "", None),
        ("another domain by SNI", at(1, "upper.example.com", ""), "", None),
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
        ("the first service's address is the common one", at(1, "", ""), Some(1), [true, true]),
        ("the common address, named", at(1, "", "127.0.0.1:443"), Some(1), [true, true]),
        ("the common address as localhost", at(1, "localhost", "localhost"), Some(1), [true, true]),
        ("the common address, narrowed to the second", at(1, "", "127.0.0.2"), None, [false, true]),
        ("the common address as nobody's", at(1, "", "dps.example.org"), None, [false, false]),
        ("the common address as a hub's", at(1, "", "127.0.0.3"), None, [false, false]),
        ("the second service's own", at(2, "", "127.0.0.2"), Some(2), [false, true]),
        ("the second service's own by the first one's name", at(2, "", "127.0.0.1"), None, [false, false]),
        ("a hub's", at(3, "", ""), None, [false, false]),
        ("a hub's by a service's name", at(3, "", "127.0.0.1"), None, [false, false]),
    ];
    let names = [
        ("the common name is nobody's own", at(1, "", "GLOBAL.example.org"), None, [true, true]),
        ("the common name by SNI", at(1, "global.example.org", ""), None, [true, true]),
        ("no name", at(1, "", ""), None, [true, true]),
        ("nobody's SNI", at(1, "gateway.test", ""), None, [true, true]),
        ("the dialled address as host", at(1, "", "127.0.0.1"), None, [true, true]),
        ("the first service's own", at(1, "", "zeta.example.org:443"), Some(1), [true, false]),
        ("the second service's own", at(1, "", "alpha.example.org"), Some(2), [false, true]),
        (
            "its own on a connection to the common one",
            at(1, "global.example.org", "alpha.example.org"),
            Some(2),
            [false, true],
        ),
        ("another one's on a connection to it", at(1, "zeta.example.org", "alpha.example.org"), None, [false, false]),
        ("a hub's", at(1, "", "upper.example.org"), None, [false, false]),
        ("a hub's by SNI", at(1, "upper.example.org", "zeta.example.org"), None, [false, false]),
        ("another domain", at(1, "", "zeta.example.com"), None, [false, false]),
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
        assert!(snapshot.scope_at(&at(1, "", ""), "0neOTHER").is_none());
    }
}
