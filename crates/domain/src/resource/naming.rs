//! Under which names and addresses resources are reached (`rules.md` 19, 21 and 22).
//!
//! Names are derived, never stored; addresses are given once and never to another. Nothing here looks a name up: which
//! resource a connection belongs to is decided by the address it dialled. Start at [`Naming`].

use std::net::{IpAddr, Ipv4Addr};

use super::{Hub, ProvisioningService};
use crate::access::ResourceKind;

/// How resources are named to clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Naming {
    /// By the addresses they own.
    Addresses,
    /// Under a domain, which is written without a leading full stop.
    Domain(String),
}

impl Naming {
    /// First label of the host name that devices dial for any provisioning service under a domain.
    const COMMON_LABEL: &'static str = "global";

    /// The host name of a hub.
    pub fn hub(&self, hub: &Hub) -> String {
        self.host(hub.name.as_str(), hub.address)
    }

    /// The host name that operators' programs dial for a provisioning service.
    pub fn service(&self, service: &ProvisioningService) -> String {
        self.host(service.name.as_str(), service.address)
    }

    /// The host name that devices dial for any provisioning service. Without a domain it is the first service's
    /// address, which `common` tells.
    pub fn devices(&self, common: Option<IpAddr>) -> String {
        match self {
            Self::Addresses => common.unwrap_or(FIRST_ADDRESS.into()).to_string(),
            Self::Domain(domain) => format!("{}.{domain}", Self::COMMON_LABEL).to_ascii_lowercase(),
        }
    }

    /// Every name a hub answers to, its host name first: what its certificate carries, and what signatures may be for.
    pub fn hub_names(&self, hub: &Hub) -> Vec<String> {
        distinct([Some(self.hub(hub)), hub.address.map(|address| address.to_string())])
    }

    /// Every name a provisioning service answers to, its own host name first; `common` as for [`Naming::devices`].
    pub fn service_names(&self, service: &ProvisioningService, common: Option<IpAddr>) -> Vec<String> {
        let is_common = match self {
            Self::Addresses => common.is_none() || common == service.address,
            Self::Domain(_) => true,
        };
        distinct([
            Some(self.service(service)),
            is_common.then(|| self.devices(common)),
            service.address.map(|address| address.to_string()),
        ])
    }

    fn host(&self, name: &str, address: Option<IpAddr>) -> String {
        match (self, address) {
            (Self::Domain(domain), _) => format!("{name}.{domain}").to_ascii_lowercase(),
            (Self::Addresses, Some(address)) => address.to_string(),
            // A record made under a domain has no address until it is given one; its bare name resolves nowhere.
            (Self::Addresses, None) => name.to_ascii_lowercase(),
        }
    }
}

fn distinct<const N: usize>(names: [Option<String>; N]) -> Vec<String> {
    let mut distinct = Vec::with_capacity(N);
    for name in names.into_iter().flatten() {
        if !distinct.contains(&name) {
            distinct.push(name);
        }
    }
    distinct
}

/// The first address that is handed out on loopback: the first provisioning service's.
pub const FIRST_ADDRESS: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// The loopback address behind `last`; `None` when the range is used up. 127.0.0.1 comes first, the broadcast-like
/// 127.255.255.255 never.
pub fn next_loopback(last: Option<Ipv4Addr>) -> Option<Ipv4Addr> {
    const END: Ipv4Addr = Ipv4Addr::new(127, 255, 255, 255);
    let next = match last {
        None => FIRST_ADDRESS,
        Some(last) => Ipv4Addr::from_bits(last.to_bits().checked_add(1)?),
    };
    (FIRST_ADDRESS <= next && next < END).then_some(next)
}

/// Where the addresses of resources come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressPool {
    /// 127.0.0.1, 127.0.0.2 and so on, up to 127.255.255.254.
    Loopback,
    /// Addresses of this machine, in the operator's order.
    Listed(Vec<IpAddr>),
}

impl AddressPool {
    /// The address for another resource; `None` when there is none left. `given` are all addresses that any resource was
    /// ever given, those of deleted ones included: they are not given again, and loopback goes on behind the highest.
    ///
    /// The first address waits for the first provisioning service, even if hubs are created before it: it is what devices
    /// dial to be provisioned.
    pub fn next(&self, kind: ResourceKind, given: &[IpAddr]) -> Option<IpAddr> {
        let first = match self {
            Self::Loopback => Some(IpAddr::V4(FIRST_ADDRESS)),
            Self::Listed(listed) => listed.first().copied(),
        }?;
        if kind == ResourceKind::Service && !given.contains(&first) {
            return Some(first);
        }
        match self {
            Self::Loopback => {
                let loopback = |address: &IpAddr| match address {
                    IpAddr::V4(address) if address.is_loopback() => Some(*address),
                    _ => None,
                };
                // Before any other address is given, the first one is kept back.
                let highest = given.iter().filter_map(loopback).max().unwrap_or(FIRST_ADDRESS);
                next_loopback(Some(highest)).map(IpAddr::V4)
            }
            Self::Listed(listed) => listed.iter().skip(1).find(|address| !given.contains(address)).copied(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{hub, service};
    use super::*;

    fn addresses(list: &[&str]) -> Vec<IpAddr> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn loopback_addresses_follow_each_other_and_are_never_given_twice() {
        use ResourceKind::{Hub, Service};
        let cases: &[(&str, ResourceKind, &[&str], Option<&str>)] = &[
            ("the first service", Service, &[], Some("127.0.0.1")),
            ("a hub before any service", Hub, &[], Some("127.0.0.2")),
            ("the first service after a hub", Service, &["127.0.0.2"], Some("127.0.0.1")),
            ("a hub", Hub, &["127.0.0.1"], Some("127.0.0.2")),
            ("another hub", Hub, &["127.0.0.2", "127.0.0.1"], Some("127.0.0.3")),
            ("another service", Service, &["127.0.0.1", "127.0.0.2"], Some("127.0.0.3")),
            ("behind gaps", Hub, &["127.0.0.1", "127.0.0.9"], Some("127.0.0.10")),
            ("over the edge of a byte", Hub, &["127.0.0.255"], Some("127.0.1.0")),
            ("besides other addresses", Hub, &["192.0.2.9", "::1", "127.0.0.2"], Some("127.0.0.3")),
            ("the last one", Hub, &["127.255.255.253"], Some("127.255.255.254")),
            ("behind the last one", Hub, &["127.255.255.254"], None),
        ];
        for (name, kind, given, expected) in cases {
            let next = AddressPool::Loopback.next(*kind, &addresses(given)).map(|address| address.to_string());
            assert_eq!(next.as_deref(), *expected, "{name}");
        }
    }

    #[test]
    fn listed_addresses_are_given_in_their_order() {
        use ResourceKind::{Hub, Service};
        let pool = AddressPool::Listed(addresses(&["192.0.2.1", "192.0.2.7", "2001:db8::2"]));
        let cases: &[(ResourceKind, &[&str], Option<&str>)] = &[
            (Service, &[], Some("192.0.2.1")),
            (Hub, &[], Some("192.0.2.7")),
            (Hub, &["192.0.2.1", "192.0.2.7"], Some("2001:db8::2")),
            (Service, &["192.0.2.1", "192.0.2.7"], Some("2001:db8::2")),
            (Hub, &["192.0.2.1", "192.0.2.7", "2001:db8::2"], None),
        ];
        for (kind, given, expected) in cases {
            let next = pool.next(*kind, &addresses(given)).map(|address| address.to_string());
            assert_eq!(next.as_deref(), *expected, "{kind:?} {given:?}");
        }
        assert_eq!(AddressPool::Listed(Vec::new()).next(Service, &[]), None);
    }

    #[test]
    fn names_are_addresses_or_labels_under_the_domain() {
        let domain = Naming::Domain("Example.org".to_owned());
        let (first, second) = (Some(addresses(&["127.0.0.1"])[0]), Some(addresses(&["127.0.0.5"])[0]));
        let hub = |address| Hub { address, ..hub("Hub-A") };
        let service = |address| ProvisioningService { address, ..service("DPS") };

        assert_eq!(Naming::Addresses.hub(&hub(second)), "127.0.0.5");
        assert_eq!(Naming::Addresses.hub(&hub(None)), "hub-a");
        assert_eq!(domain.hub(&hub(second)), "hub-a.example.org");
        assert_eq!(
            (Naming::Addresses.devices(first), domain.devices(None)),
            ("127.0.0.1".into(), "global.example.org".into())
        );

        assert_eq!(Naming::Addresses.hub_names(&hub(second)), ["127.0.0.5"]);
        assert_eq!(domain.hub_names(&hub(None)), ["hub-a.example.org"]);
        assert_eq!(domain.hub_names(&hub(second)), ["hub-a.example.org", "127.0.0.5"]);
        assert_eq!(Naming::Addresses.service_names(&service(first), first), ["127.0.0.1"]);
        assert_eq!(Naming::Addresses.service_names(&service(second), first), ["127.0.0.5"]);
        assert_eq!(domain.service_names(&service(None), None), ["dps.example.org", "global.example.org"]);
        assert_eq!(
            domain.service_names(&service(second), first),
            ["dps.example.org", "global.example.org", "127.0.0.5"]
        );
    }
}
