//! Which names a server certificate must carry, by what the client dialled.
//!
//! The table is a snapshot: whoever creates or deletes a hub builds the next one and replaces it whole, so that a
//! handshake never sees half a change. It knows names only; which *resource* a connection belongs to is decided
//! elsewhere, and a name found here never proves anything. Start reading at [`NameTable`].

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

/// The host names and address literals one certificate carries, in the order given. Never empty.
///
/// Cheap to clone. Two lists are equal if they hold the same names in the same order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CertificateNames(Arc<[String]>);

impl CertificateNames {
    /// Most names on one certificate; more would make every handshake carry them all.
    pub const LEN_MAX: usize = 64;

    /// Names in lower case, without repetition, in the order given. `None` if there are none, or more than
    /// [`Self::LEN_MAX`].
    pub fn new<N: AsRef<str>>(names: impl IntoIterator<Item = N>) -> Option<Self> {
        let mut unique: Vec<String> = Vec::new();
        for name in names {
            let name = name.as_ref().to_ascii_lowercase();
            if !unique.contains(&name) {
                unique.push(name);
            }
            if unique.len() > Self::LEN_MAX {
                return None;
            }
        }
        (!unique.is_empty()).then(|| Self(unique.into()))
    }

    /// The names.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// The name a certificate is called after.
    pub fn first(&self) -> &str {
        self.0.first().map_or("", String::as_str)
    }
}

/// What was dialled, to the names that the certificate must carry.
#[derive(Clone, Debug)]
pub struct NameTable {
    by_address: HashMap<IpAddr, CertificateNames>,
    by_host: HashMap<String, CertificateNames>,
    fallback: CertificateNames,
}

impl NameTable {
    /// A table that answers `fallback` for everything. Unknown names are answered rather than refused: some clients put
    /// an address literal or a stale name into SNI (`contract/hub-device.md 1.2`).
    pub fn new(fallback: CertificateNames) -> Self {
        Self { by_address: HashMap::new(), by_host: HashMap::new(), fallback }
    }

    /// Sets the names for connections to `address`.
    #[must_use]
    pub fn with_address(mut self, address: IpAddr, names: CertificateNames) -> Self {
        self.by_address.insert(address.to_canonical(), names);
        self
    }

    /// Sets the names for connections whose SNI says `host`, compared without regard to case.
    #[must_use]
    pub fn with_host(mut self, host: &str, names: CertificateNames) -> Self {
        self.by_host.insert(host.to_ascii_lowercase(), names);
        self
    }

    /// The names for a connection: by SNI if that host is known, else by the dialled address, else the fallback.
    ///
    /// SNI goes first here, unlike everywhere else, because it says which name the client will look for in the
    /// certificate; it chooses nothing but that.
    pub fn find(&self, dialled: IpAddr, server_name: Option<&str>) -> &CertificateNames {
        server_name
            .and_then(|host| self.by_host.get(host.trim_end_matches('.').to_ascii_lowercase().as_str()))
            .or_else(|| self.by_address.get(&dialled.to_canonical()))
            .unwrap_or(&self.fallback)
    }

    /// Tells whether `address` is handed out for a resource.
    pub fn hands_out(&self, address: IpAddr) -> bool {
        self.by_address.contains_key(&address.to_canonical())
    }

    /// Tells whether any connection can be answered with exactly `names`.
    pub fn contains(&self, names: &CertificateNames) -> bool {
        *names == self.fallback
            || self.by_address.values().any(|known| known == names)
            || self.by_host.values().any(|known| known == names)
    }
}

/// The table in force, replaced while connections arrive.
#[derive(Debug)]
pub struct Names(ArcSwap<NameTable>);

impl Names {
    /// Starts with `table`.
    pub fn new(table: NameTable) -> Self {
        Self(ArcSwap::from_pointee(table))
    }

    /// The table in force.
    pub fn current(&self) -> Guard<Arc<NameTable>> {
        self.0.load()
    }

    /// Puts `table` in force for every later handshake.
    pub fn replace(&self, table: NameTable) {
        self.0.store(Arc::new(table));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> CertificateNames {
        CertificateNames::new(list).expect("test names")
    }

    #[test]
    fn sni_then_address_then_fallback() {
        let table = NameTable::new(names(&["127.0.0.1", "localhost"]))
            .with_address("127.0.0.2".parse().unwrap(), names(&["127.0.0.2"]))
            .with_host("Hub.Example.org", names(&["hub.example.org"]));
        let cases: &[(&str, &str, Option<&str>, &str)] = &[
            ("a known address", "127.0.0.2", None, "127.0.0.2"),
            ("an IPv4-mapped address", "::ffff:127.0.0.2", None, "127.0.0.2"),
            ("an unknown address", "10.0.0.1", None, "127.0.0.1"),
            ("a known host", "10.0.0.1", Some("hub.example.org"), "hub.example.org"),
            ("a known host in capitals", "10.0.0.1", Some("HUB.example.ORG"), "hub.example.org"),
            ("a known host with its root dot", "10.0.0.1", Some("hub.example.org."), "hub.example.org"),
            ("a known host on a known address", "127.0.0.2", Some("hub.example.org"), "hub.example.org"),
            ("an unknown host on a known address", "127.0.0.2", Some("other"), "127.0.0.2"),
        ];
        for (case, dialled, sni, expected) in cases {
            assert_eq!(table.find(dialled.parse().unwrap(), *sni).first(), *expected, "{case}");
        }
    }

    #[test]
    fn a_list_of_names_is_lower_case_unique_and_bounded() {
        assert_eq!(names(&["B", "a", "b"]).iter().collect::<Vec<_>>(), ["b", "a"]);
        assert_eq!(CertificateNames::new::<&str>([]), None);
        let many = (0..=CertificateNames::LEN_MAX).map(|n| n.to_string());
        assert_eq!(CertificateNames::new(many), None);
    }

    #[test]
    fn a_replaced_table_is_seen_at_once() {
        let live = Names::new(NameTable::new(names(&["a"])));
        assert!(!live.current().contains(&names(&["b"])));
        live.replace(NameTable::new(names(&["a"])).with_host("b", names(&["b"])));
        assert!(live.current().contains(&names(&["b"])));
    }
}
