//! Shared access policies: named rights with two keys.

use crate::access::{ResourceKind, Right, Rights};
use crate::clock::Entropy;
use crate::ids::PolicyName;
use crate::operation::resource::PolicyDraft;
use crate::sas::{KeyPair, SasToken};

use super::InvalidResource;

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

    /// Most policies of a resource.
    pub const COUNT_MAX: usize = 100;

    /// SHA-256 of the key that made `token`'s signature, if one of the two did. Both are always tried.
    pub fn signer(&self, token: &SasToken) -> Option<[u8; 32]> {
        self.keys.signer(token)
    }

    /// As [`Self::signer`], where a key's text may have signed in the place of its bytes
    /// ([`KeyPair::signer_by_text`]).
    pub fn signer_by_text(&self, token: &SasToken) -> Option<[u8; 32]> {
        self.keys.signer_by_text(token)
    }

    /// Whether one of its keys has this SHA-256: whether it would still admit who was admitted by that key.
    pub fn has_key(&self, digest: &[u8; 32]) -> bool {
        self.keys.primary.digest() == *digest || self.keys.secondary.digest() == *digest
    }
}

/// The policies that `drafts` describe: the whole set. A key that is left out stays what it is in the policy of that name
/// among `present`, or is generated.
pub(super) fn settle(
    drafts: Vec<PolicyDraft>,
    present: &[Policy],
    kind: ResourceKind,
    entropy: &dyn Entropy,
) -> Result<Vec<Policy>, InvalidResource> {
    if drafts.len() > Policy::COUNT_MAX {
        return Err(InvalidResource::TooManyPolicies);
    }
    let mut settled: Vec<Policy> = Vec::with_capacity(drafts.len());
    for draft in drafts {
        if settled.iter().any(|policy| policy.name == draft.name) {
            return Err(InvalidResource::PolicyTwice(draft.name));
        }
        let rights = Rights::parse(&draft.rights, kind)
            .map_err(|reason| InvalidResource::Rights { policy: draft.name.clone(), reason })?;
        let kept = present.iter().find(|policy| policy.name == draft.name);
        let kept = kept.map_or_else(|| KeyPair::generate(entropy), |policy| policy.keys.clone());
        let keys = KeyPair {
            primary: draft.primary.unwrap_or(kept.primary),
            secondary: draft.secondary.unwrap_or(kept.secondary),
        };
        settled.push(Policy { name: draft.name, keys, rights });
    }
    Ok(settled)
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
    // Reading is not listed beside writing, which includes it.
    policies(
        &[
            ("iothubowner", &[RegistryWrite, ServiceConnect, DeviceConnect]),
            ("service", &[ServiceConnect]),
            ("device", &[DeviceConnect]),
            ("registryRead", &[RegistryRead]),
            ("registryReadWrite", &[RegistryWrite]),
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
    fn default_policies_have_the_rights_that_clients_look_for() {
        let rights = |policies: Vec<Policy>| -> Vec<(String, String)> {
            policies.iter().map(|policy| (policy.name.to_string(), policy.rights.to_string())).collect()
        };
        let expected = [
            ("iothubowner", "RegistryWrite, ServiceConnect, DeviceConnect"),
            ("service", "ServiceConnect"),
            ("device", "DeviceConnect"),
            ("registryRead", "RegistryRead"),
            ("registryReadWrite", "RegistryWrite"),
        ];
        let expected = expected.map(|(name, rights)| (name.to_owned(), rights.to_owned()));
        assert_eq!(rights(default_hub_policies(&SeededEntropy::new(1))), expected);
        let owner = ("provisioningserviceowner".to_owned(), "ServiceConfig, DeviceConnect, EnrollmentWrite".to_owned());
        assert_eq!(rights(default_service_policies(&SeededEntropy::new(1))), [owner]);
    }

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
