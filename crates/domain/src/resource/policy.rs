//! Shared access policies: named rights with two keys.

use crate::access::{ResourceKind, Right, Rights};
use crate::clock::Entropy;
use crate::ids::PolicyName;
use crate::sas::{KeyPair, SasToken};

/// A shared access policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Its name.
    pub name: PolicyName,
    /// Its keys.
    pub keys: KeyPair,
    /// What it allows.
    pub rights: Rights,
}

/// A policy without its keys, for storage.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct StoredPolicy {
    /// Its name.
    pub name: PolicyName,
    /// What it allows, as written.
    pub rights: String,
}

impl StoredPolicy {
    /// Puts the keys back; `None` if the rights are not those of a resource of `kind`.
    pub fn with_keys(self, keys: KeyPair, kind: ResourceKind) -> Option<Policy> {
        let rights = Rights::parse(&self.rights, kind).ok()?;
        Some(Policy { name: self.name, keys, rights })
    }
}

impl Policy {
    /// What may be stored in the clear.
    pub fn to_stored(&self) -> StoredPolicy {
        StoredPolicy { name: self.name.clone(), rights: self.rights.to_string() }
    }

    /// A policy with fresh keys.
    pub fn generate(name: PolicyName, rights: Rights, entropy: &dyn Entropy) -> Self {
        Self { name, keys: KeyPair::generate(entropy), rights }
    }

    /// SHA-256 of the key that made `token`'s signature, if one of the two did. Both are always tried.
    pub fn signer(&self, token: &SasToken) -> Option<[u8; 32]> {
        let (primary, secondary) = (token.is_signed_by(&self.keys.primary), token.is_signed_by(&self.keys.secondary));
        match (primary, secondary) {
            (true, _) => Some(self.keys.primary.digest()),
            (false, true) => Some(self.keys.secondary.digest()),
            (false, false) => None,
        }
    }
}

fn policies(table: &[(&str, &[Right])], entropy: &dyn Entropy) -> Vec<Policy> {
    let make = |(name, rights): &(&str, &[Right])| {
        let name = PolicyName::parse(name).expect("the names of default policies keep the rules");
        Policy::generate(name, Rights::of(rights), entropy)
    };
    table.iter().map(make).collect()
}

/// The policies of a fresh hub (`contract/control-plane.md 4.2`).
pub fn default_hub_policies(entropy: &dyn Entropy) -> Vec<Policy> {
    use Right::{DeviceConnect, RegistryRead, RegistryWrite, ServiceConnect};
    policies(
        &[
            ("iothubowner", &[RegistryRead, RegistryWrite, ServiceConnect, DeviceConnect]),
            ("service", &[ServiceConnect]),
            ("device", &[DeviceConnect]),
            ("registryRead", &[RegistryRead]),
            ("registryReadWrite", &[RegistryRead, RegistryWrite]),
        ],
        entropy,
    )
}

/// The policies of a fresh provisioning service (`contract/control-plane.md 4.1`).
pub fn default_service_policies(entropy: &dyn Entropy) -> Vec<Policy> {
    use Right::{DeviceConnect, EnrollmentWrite, ServiceConfig};
    policies(&[("provisioningserviceowner", &[ServiceConfig, DeviceConnect, EnrollmentWrite])], entropy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{SeededEntropy, UnixTime};

    #[test]
    fn either_key_of_a_policy_signs_and_a_stored_policy_comes_back() {
        let policies = default_hub_policies(&SeededEntropy::new(1));
        let policy = policies.first().unwrap();
        for (key, expected) in
            [(&policy.keys.primary, true), (&policy.keys.secondary, true), (&policies[1].keys.primary, false)]
        {
            let text = SasToken::write(key, "127.0.0.2", Some("iothubowner"), UnixTime::from_seconds(1));
            assert_eq!(policy.signer(&SasToken::parse(&text).unwrap()).is_some(), expected);
        }
        assert_eq!(policy.to_stored().with_keys(policy.keys.clone(), ResourceKind::Hub).as_ref(), Some(policy));
    }
}
