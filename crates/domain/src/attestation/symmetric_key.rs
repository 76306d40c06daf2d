//! Proof by shared access signature: with the entry's own key, or one derived from a group's key.

use std::time::Duration;

use super::{Candidates, Claim, Credential, Match, Proven, Registrant, Rejection, seal};
use crate::decision::{Cause, Finding, OutsideText, Trace};
use crate::enrollment::{Attestation, Enrollment, EntryName};
use crate::ids::RegistrationId;
use crate::sas::{KeyPair, SasToken, SymmetricKey, sha256};

/// How long after its end a signature is still taken (`contract/dps-device.md 10`).
pub const LEEWAY: Duration = Duration::from_mins(5);

/// Proves `claim` by `token` against `entry`. All candidate keys are tried whatever the outcome, so that the time taken
/// tells nothing about which one was right.
pub fn prove(claim: Claim<'_>, token: &SasToken, entry: &Enrollment) -> Result<Proven<Registrant>, Rejection> {
    let Attestation::SymmetricKey(keys) = &entry.attestation else {
        return Err(Rejection::Mechanism { wanted: entry.attestation.mechanism() });
    };
    let matched = matching(claim, token, &entry.name, keys);
    check_resource(claim, token)?;
    conclude(claim, token, entry, matched.ok_or(Rejection::Signature)?)
}

/// Tries each group in order, and finds the first whose keys made the signature.
pub(super) fn groups<'a>(
    claim: Claim<'_>,
    token: &SasToken,
    candidates: Candidates<'a>,
    trace: &mut Trace,
) -> Result<Match<'a>, Rejection> {
    let first = candidates.admitted_before;
    let is_other = |group: &&Enrollment| first.is_none_or(|first| first.name != group.name);
    for group in first.into_iter().chain(candidates.key_groups.iter().filter(is_other)) {
        let Attestation::SymmetricKey(keys) = &group.attestation else { continue };
        trace.groups_tried = trace.groups_tried.saturating_add(1);
        let Some(matched) = matching(claim, token, &group.name, keys) else {
            trace.consider(&group.name, Finding::Refuses(Cause::WrongKey));
            continue;
        };
        let result = check_resource(claim, token).and_then(|()| conclude(claim, token, group, matched));
        return Ok(Match { entry: group, result });
    }
    if trace.groups_tried == 0 {
        burn(claim, token);
    }
    check_resource(claim, token)?;
    Err(if trace.groups_tried == 0 { Rejection::NotEnrolled } else { Rejection::Signature })
}

/// Does the work of refusing a signature where nothing is known of its maker, and takes as long as an individual
/// enrollment would.
fn burn(claim: Claim<'_>, token: &SasToken) {
    let decoy = SymmetricKey::from_bytes(&[0; 32]).expect("32 bytes are a key");
    let keys = KeyPair { primary: decoy.clone(), secondary: decoy };
    let name = EntryName::Individual(claim.registration_id.clone());
    std::hint::black_box(matching(claim, token, &name, &keys).is_some());
}

fn matching(claim: Claim<'_>, token: &SasToken, name: &EntryName, keys: &KeyPair) -> Option<Candidate> {
    let mut matched = None;
    for candidate in candidates(name, keys, claim.registration_id) {
        if token.is_signed_by_either(&candidate.keys) && matched.is_none() {
            matched = Some(candidate);
        }
    }
    matched
}

/// What is left to ask once a key has matched.
fn conclude(
    claim: Claim<'_>,
    token: &SasToken,
    entry: &Enrollment,
    matched: Candidate,
) -> Result<Proven<Registrant>, Rejection> {
    let expired_at = token.expires_at();
    if expired_at.plus(LEEWAY) < claim.now {
        return Err(Rejection::Expired { expired_at, now: claim.now });
    }
    let (fingerprint, derived_from) = (fingerprint(&matched.keys), matched.derived_from);
    seal(claim, entry, Credential::SymmetricKey { fingerprint, derived_from })
}

/// Reported before a wrong key: a device with another's token has another's key as well, and the token says whose.
fn check_resource(claim: Claim<'_>, token: &SasToken) -> Result<(), Rejection> {
    if token.is_for_registration(claim.id_scope, claim.registration_id.as_str()) {
        return Ok(());
    }
    Err(Rejection::Resource { named: OutsideText::new(token.resource()) })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixTime;
    use crate::enrollment::{ProvisioningStatus, Terms};
    use crate::ids::{EnrollmentGroupId, Etag, ServiceKey};

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
        let claim = Claim { service: ServiceKey(1), id_scope: "0ne1", registration_id: &registration_id, now: NOON };
        prove(claim, &token, entry)
    }

    type Case = (&'static str, Enrollment, &'static str, SymmetricKey, UnixTime, Option<Cause>);

    #[test]
    fn a_signature_is_judged_by_resource_key_time_and_entry() {
        let later = NOON.plus(Duration::from_hours(1));
        let just = NOON.minus(Duration::from_secs(299));
        let past = NOON.minus(Duration::from_secs(301));
        let on = ProvisioningStatus::Enabled;
        let cases: &[Case] = &[
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
        let later = NOON.plus(Duration::from_hours(1));
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
        let past = NOON.minus(Duration::from_mins(7));
        let rejection = attempt(&entry(individual(), ProvisioningStatus::Enabled), "dev-1", &key(1), past).unwrap_err();
        assert_eq!(
            rejection.to_string(),
            "the signature ended 7 min ago by this server's clock (2026-09-21T14:06:20Z)"
        );
    }
}
