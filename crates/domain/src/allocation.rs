//! Choosing a hub for a device (`rules.md` 4).
//!
//! Pure functions over the linked hubs that the enrollment allows. Start at [`allocate`].

use crate::enrollment::AllocationPolicy;
use crate::ids::{HubKey, RegistrationId};
use crate::sas::sha256;

/// A linked hub that the enrollment allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The hub.
    pub hub: HubKey,
    /// Its share, 1 to 1,000.
    pub weight: u32,
    /// Whether an allocation policy may choose it, set on the link.
    pub applies: bool,
    /// Whether it takes no more devices.
    pub is_full: bool,
}

/// Why no hub could be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unallocatable {
    /// No hub is linked, or none of those that the enrollment names.
    #[error("no IoT hub is linked that the enrollment allows")]
    NoHub,
    /// Every hub that could be chosen is full.
    #[error("every linked IoT hub that the enrollment allows is full")]
    AllFull,
    /// The policy asks a webhook, which this function cannot.
    #[error("custom allocation failed: this server asks no webhook")]
    Custom,
}

/// Chooses a hub among `candidates`, which stand in the order of the enrollment's list, or of the links.
///
/// Static takes the first of the list, whatever its link says: it was named on purpose. Latencies are not known to a
/// deployment whose hubs stand side by side: geo-latency spreads like hashed.
pub fn allocate(
    policy: AllocationPolicy,
    registration_id: &RegistrationId,
    candidates: &[Candidate],
) -> Result<HubKey, Unallocatable> {
    match policy {
        AllocationPolicy::Static => match candidates.iter().find(|candidate| !candidate.is_full) {
            Some(candidate) => Ok(candidate.hub),
            None if candidates.is_empty() => Err(Unallocatable::NoHub),
            None => Err(Unallocatable::AllFull),
        },
        AllocationPolicy::Hashed | AllocationPolicy::GeoLatency => hashed(registration_id, candidates),
        AllocationPolicy::Custom => Err(Unallocatable::Custom),
    }
}

/// Weighted rendezvous hashing: every hub draws a score from the registration ID, the best one wins. Adding a hub moves
/// only the devices it wins.
fn hashed(registration_id: &RegistrationId, candidates: &[Candidate]) -> Result<HubKey, Unallocatable> {
    let mut allowed = candidates.iter().filter(|candidate| candidate.applies).peekable();
    if allowed.peek().is_none() {
        return Err(Unallocatable::NoHub);
    }
    let key = registration_id.key();
    allowed
        .filter(|candidate| !candidate.is_full)
        .map(|candidate| (score(&key, candidate), candidate.hub))
        .max_by(|(left, a), (right, b)| left.total_cmp(right).then(b.cmp(a)))
        .map(|(_, hub)| hub)
        .ok_or(Unallocatable::AllFull)
}

/// `weight / -ln(u)` with `u` in (0, 1) drawn from device and hub: the larger the weight, the likelier the win.
fn score(registration_key: &str, candidate: &Candidate) -> f64 {
    let digest = sha256(format!("{registration_key}\n{}", candidate.hub.0).as_bytes());
    let bits = digest.first_chunk().map_or(0, |bytes: &[u8; 8]| u64::from_be_bytes(*bytes)) >> 11;
    let draw = (bits as f64 + 0.5) / (1_u64 << 53) as f64;
    f64::from(candidate.weight.max(1)) / -draw.ln()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn candidate(hub: i64, weight: u32) -> Candidate {
        Candidate { hub: HubKey(hub), weight, applies: true, is_full: false }
    }

    fn device(number: u32) -> RegistrationId {
        RegistrationId::parse(&format!("dev-{number}")).unwrap()
    }

    type Case<'a> = (&'a str, AllocationPolicy, &'a [Candidate], Result<i64, Unallocatable>);

    #[test]
    fn policies_skip_full_and_withdrawn_hubs_and_say_why_nothing_is_left() {
        let withdrawn = Candidate { applies: false, ..candidate(1, 1) };
        let full = Candidate { is_full: true, ..candidate(2, 1) };
        let good = candidate(3, 1);
        let cases: &[Case<'_>] = &[
            ("nothing linked", AllocationPolicy::Hashed, &[], Err(Unallocatable::NoHub)),
            ("only withdrawn", AllocationPolicy::Hashed, &[withdrawn], Err(Unallocatable::NoHub)),
            ("only full", AllocationPolicy::Hashed, &[full], Err(Unallocatable::AllFull)),
            ("one good", AllocationPolicy::GeoLatency, &[withdrawn, full, good], Ok(3)),
            ("static takes the first", AllocationPolicy::Static, &[withdrawn, good], Ok(1)),
            ("static skips the full", AllocationPolicy::Static, &[full, good], Ok(3)),
            ("static with none", AllocationPolicy::Static, &[], Err(Unallocatable::NoHub)),
            ("custom", AllocationPolicy::Custom, &[good], Err(Unallocatable::Custom)),
        ];
        for (name, policy, candidates, expected) in cases {
            assert_eq!(allocate(*policy, &device(1), candidates).map(|hub| hub.0), *expected, "{name}");
        }
    }

    #[test]
    fn devices_spread_by_weight() {
        let hubs = [candidate(1, 1), candidate(2, 3)];
        let second = (0..4_000).filter(|&n| allocate(AllocationPolicy::Hashed, &device(n), &hubs) == Ok(HubKey(2)));
        let share = second.count() as f64 / 4_000.0;
        assert!((0.70..0.80).contains(&share), "{share}");
    }

    #[test]
    fn the_case_of_a_registration_id_does_not_move_a_device() {
        let hubs: Vec<_> = (1..9).map(|hub| candidate(hub, 1)).collect();
        let (lower, upper) = (RegistrationId::parse("abc").unwrap(), RegistrationId::parse("ABC").unwrap());
        assert_eq!(
            allocate(AllocationPolicy::Hashed, &lower, &hubs),
            allocate(AllocationPolicy::Hashed, &upper, &hubs)
        );
    }

    proptest! {
        #[test]
        fn adding_a_hub_moves_devices_only_to_it(number in 0_u32..100_000, hubs in 1_i64..12) {
            let before: Vec<_> = (0..hubs).map(|hub| candidate(hub, 1)).collect();
            let mut after = before.clone();
            after.push(candidate(hubs, 1));
            let old = allocate(AllocationPolicy::Hashed, &device(number), &before).unwrap();
            let new = allocate(AllocationPolicy::Hashed, &device(number), &after).unwrap();
            prop_assert!(new == old || new == HubKey(hubs));
        }
    }
}
