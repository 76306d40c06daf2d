//! Proof by shared access signature: with the entry's own key, or one derived from a group's key.

use std::time::Duration;

use super::{Credential, EntryRef, Proven, Registrant, Rejection};
use crate::clock::UnixTime;
use crate::enrollment::{Attestation, Enrollment, EntryName};
use crate::ids::{RegistrationId, ServiceKey};
use crate::sas::{KeyPair, SasToken, SymmetricKey, sha256};

/// How long after its end a signature is still taken (`contract/dps-device.md 10`).
pub const LEEWAY: Duration = Duration::from_secs(300);

/// What a device claims with a signature.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// The provisioning service.
    pub service: ServiceKey,
    /// Its ID scope.
    pub id_scope: &'a str,
    /// Who the device says it is, as it spelled it.
    pub registration_id: &'a RegistrationId,
    /// The signature.
    pub token: &'a SasToken,
}

/// Proves `claim` against `entry`. All candidate keys are tried whatever the outcome, so that the time taken tells
/// nothing about which one was right.
pub fn prove(claim: Claim<'_>, entry: &Enrollment, now: UnixTime) -> Result<Proven<Registrant>, Rejection> {
    let Attestation::SymmetricKey(keys) = &entry.attestation else {
        return Err(Rejection::Mechanism { wanted: entry.attestation.mechanism() });
    };
    let candidates = candidates(&entry.name, keys, claim.registration_id);
    let mut matched = None;
    for candidate in candidates {
        if claim.token.is_signed_by_either(&candidate.keys) && matched.is_none() {
            matched = Some(candidate);
        }
    }
    let Some(matched) = matched else { return Err(Rejection::Signature) };
    if !entry.terms.is_enabled() {
        return Err(Rejection::Disabled);
    }
    check_claim(claim, now)?;
    Ok(Proven(Registrant {
        service: claim.service,
        registration_id: claim.registration_id.clone(),
        admitted_by: EntryRef { name: entry.name.clone(), etag: entry.etag },
        credential: Credential::SymmetricKey {
            fingerprint: fingerprint(&matched.keys),
            derived_from: matched.derived_from,
        },
    }))
}

/// Does the work of refusing a signature for which there is no entry, and takes as long.
pub fn refuse_unknown(claim: Claim<'_>, decoy: &SymmetricKey) -> Rejection {
    let keys = KeyPair { primary: decoy.clone(), secondary: decoy.clone() };
    let name = EntryName::Individual(claim.registration_id.clone());
    for candidate in candidates(&name, &keys, claim.registration_id) {
        std::hint::black_box(claim.token.is_signed_by_either(&candidate.keys));
    }
    Rejection::Signature
}

/// The keys that the identity of a registrant shall have at its hub, from the entry that admitted it.
pub fn device_keys(registrant: &Registrant, entry: &Enrollment) -> Option<KeyPair> {
    let (Attestation::SymmetricKey(keys), Credential::SymmetricKey { fingerprint: proved, derived_from }) =
        (&entry.attestation, &registrant.credential)
    else {
        return None;
    };
    let keys = match derived_from {
        None => keys.clone(),
        Some(spelling) => keys.derive(spelling),
    };
    (fingerprint(&keys) == *proved).then_some(keys)
}

struct Candidate {
    keys: KeyPair,
    derived_from: Option<String>,
}

/// An individual entry's own keys, or those derived from a group's keys: from the registration ID as sent, then in
/// lower case (`contract/dps-device.md 5`).
fn candidates(name: &EntryName, keys: &KeyPair, registration_id: &RegistrationId) -> Vec<Candidate> {
    match name {
        EntryName::Individual(_) => vec![Candidate { keys: keys.clone(), derived_from: None }],
        EntryName::Group(_) => [registration_id.as_str().to_owned(), registration_id.key()]
            .into_iter()
            .map(|spelling| Candidate { keys: keys.derive(&spelling), derived_from: Some(spelling) })
            .collect(),
    }
}

fn fingerprint(keys: &KeyPair) -> [u8; 32] {
    let mut both = [0; 64];
    let digests = keys.primary.digest().into_iter().chain(keys.secondary.digest());
    for (byte, value) in both.iter_mut().zip(digests) {
        *byte = value;
    }
    sha256(&both)
}

fn check_claim(claim: Claim<'_>, now: UnixTime) -> Result<(), Rejection> {
    if !claim.token.is_for_registration(claim.id_scope, claim.registration_id.as_str()) {
        return Err(Rejection::Resource { named: claim.token.resource().to_owned() });
    }
    let expired_at = claim.token.expires_at();
    if expired_at.plus(LEEWAY) < now {
        return Err(Rejection::Expired { expired_at, now });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::Cause;
    use crate::enrollment::{ProvisioningStatus, Terms};
    use crate::ids::{EnrollmentGroupId, Etag};

    const NOON: UnixTime = UnixTime::from_seconds(1_790_000_000);

    fn key(byte: u8) -> SymmetricKey {
        SymmetricKey::from_bytes(&[byte; 32]).unwrap()
    }

    fn entry(name: EntryName, status: ProvisioningStatus) -> Enrollment {
        Enrollment {
            name,
            attestation: Attestation::SymmetricKey(KeyPair { primary: key(1), secondary: key(2) }),
            terms: Terms { status: Some(status), ..Terms::default() },
            created_at: NOON,
            updated_at: NOON,
            etag: Etag::from_number(7),
        }
    }

    fn individual() -> EntryName {
        EntryName::Individual(RegistrationId::parse("dev-1").unwrap())
    }

    fn group() -> EntryName {
        EntryName::Group(EnrollmentGroupId::parse("caves").unwrap())
    }

    fn attempt(
        entry: &Enrollment,
        id: &str,
        key: &SymmetricKey,
        expires_at: UnixTime,
    ) -> Result<Proven<Registrant>, Rejection> {
        let registration_id = RegistrationId::parse(id).unwrap();
        let text = SasToken::write(key, "0ne1%2Fregistrations%2Fdev-1", Some("registration"), expires_at);
        let token = SasToken::parse(&text).unwrap();
        let claim =
            Claim { service: ServiceKey(1), id_scope: "0ne1", registration_id: &registration_id, token: &token };
        prove(claim, entry, NOON)
    }

    #[test]
    fn a_signature_is_judged_by_key_then_entry_then_claim() {
        let later = NOON.plus(Duration::from_secs(3_600));
        let just = NOON.minus(Duration::from_secs(299));
        let past = NOON.minus(Duration::from_secs(301));
        let on = ProvisioningStatus::Enabled;
        let cases: &[(&str, Enrollment, &str, SymmetricKey, UnixTime, Option<Cause>)] = &[
            ("primary", entry(individual(), on), "dev-1", key(1), later, None),
            ("secondary", entry(individual(), on), "dev-1", key(2), later, None),
            ("within the leeway", entry(individual(), on), "dev-1", key(1), just, None),
            ("another case", entry(individual(), on), "DEV-1", key(1), later, None),
            ("derived, as sent", entry(group(), on), "DEV-1", key(1).derive("DEV-1"), later, None),
            ("derived, lower case", entry(group(), on), "DEV-1", key(2).derive("dev-1"), later, None),
            ("the group's own key", entry(group(), on), "dev-1", key(1), later, Some(Cause::WrongKey)),
            ("wrong key", entry(individual(), on), "dev-1", key(3), later, Some(Cause::WrongKey)),
            ("another device", entry(individual(), on), "dev-2", key(1), later, Some(Cause::WrongResource)),
            ("too late", entry(individual(), on), "dev-1", key(1), past, Some(Cause::ClockSkew)),
            (
                "disabled",
                entry(individual(), ProvisioningStatus::Disabled),
                "dev-1",
                key(1),
                later,
                Some(Cause::DisabledEntry),
            ),
            (
                "disabled and wrong key",
                entry(individual(), ProvisioningStatus::Disabled),
                "dev-1",
                key(3),
                later,
                Some(Cause::WrongKey),
            ),
        ];
        for (name, entry, id, key, expires_at, expected) in cases {
            let outcome = attempt(entry, id, key, *expires_at);
            assert_eq!(outcome.err().map(|rejection| rejection.cause()), *expected, "{name}");
        }
    }

    #[test]
    fn the_identity_gets_the_keys_that_were_proved() {
        let later = NOON.plus(Duration::from_secs(3_600));
        let grouped = entry(group(), ProvisioningStatus::Enabled);
        let proven = attempt(&grouped, "Dev-1", &key(2).derive("dev-1"), later).unwrap();
        let keys = device_keys(&proven, &grouped).unwrap();
        assert_eq!((keys.primary, keys.secondary), (key(1).derive("dev-1"), key(2).derive("dev-1")));
        let own = entry(individual(), ProvisioningStatus::Enabled);
        let proven = attempt(&own, "dev-1", &key(1), later).unwrap();
        assert_eq!(device_keys(&proven, &own).unwrap().primary, key(1));
        let mut rolled = own.clone();
        rolled.attestation = Attestation::SymmetricKey(KeyPair { primary: key(9), secondary: key(2) });
        assert_eq!(device_keys(&proven, &rolled), None);
    }

    #[test]
    fn rejections_explain_themselves() {
        let past = NOON.minus(Duration::from_secs(420));
        let rejection = attempt(&entry(individual(), ProvisioningStatus::Enabled), "dev-1", &key(1), past).unwrap_err();
        assert_eq!(rejection.to_string(), "the signature ended 7 min ago by this server's clock");
    }
}
