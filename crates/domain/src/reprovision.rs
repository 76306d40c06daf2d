//! What happens to assignment and twin when a device registers again (`rules.md` 3).

use crate::enrollment::ReprovisionPolicy;
use crate::ids::{DeviceId, HubKey};

/// Where a device lives, or is to live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Home<'a> {
    /// The hub.
    pub hub: HubKey,
    /// Its name there.
    pub device_id: &'a DeviceId,
}

/// What a returning device gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reprovision {
    /// It stays, and so does its twin.
    Keep,
    /// It stays at its hub under the wanted name: another identity, to which its twin is carried over.
    Rename,
    /// It stays at its hub, and its twin returns to the initial one.
    ResetInPlace,
    /// It moves to the offered hub.
    Reassign {
        /// What becomes of its twin.
        twin: TwinHandover,
    },
}

/// What becomes of a moving device's twin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TwinHandover {
    /// It goes along.
    Migrate,
    /// It starts from the initial twin.
    Reset,
}

/// Decides what happens to the hub and the twin of a device that registers again; `wanted` is the hub that allocation would
/// choose today, and the name that the enrollment gives. The identity's credential is refreshed whatever this returns.
///
/// With `update_hub_assignment` off, a device stays even if its hub has left the enrollment: editing the list of hubs
/// must not move a fleet by surprise. Reset applies on the same hub too: it is how a factory reset reaches the twin. The
/// name is the enrollment's whatever the policy says.
pub fn on_return(policy: ReprovisionPolicy, current: Home<'_>, wanted: Home<'_>) -> Reprovision {
    let stay = if current.device_id == wanted.device_id { Reprovision::Keep } else { Reprovision::Rename };
    if !policy.update_hub_assignment {
        return stay;
    }
    let twin = if policy.migrate_device_data { TwinHandover::Migrate } else { TwinHandover::Reset };
    match (current.hub == wanted.hub, twin) {
        (true, TwinHandover::Migrate) => stay,
        (true, TwinHandover::Reset) => Reprovision::ResetInPlace,
        (false, twin) => Reprovision::Reassign { twin },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_returning_device_stays_moves_or_starts_afresh() {
        use Reprovision::{Keep, Reassign, Rename, ResetInPlace};
        const NEVER: ReprovisionPolicy = ReprovisionPolicy { update_hub_assignment: false, migrate_device_data: true };
        const MIGRATE: ReprovisionPolicy = ReprovisionPolicy { update_hub_assignment: true, migrate_device_data: true };
        const RESET: ReprovisionPolicy = ReprovisionPolicy { update_hub_assignment: true, migrate_device_data: false };
        let (here, there) = (HubKey(1), HubKey(2));
        let carried = Reassign { twin: TwinHandover::Migrate };
        let afresh = Reassign { twin: TwinHandover::Reset };
        let never_reset = ReprovisionPolicy { migrate_device_data: false, ..NEVER };
        let cases = [
            ("never, same hub", NEVER, here, "dev-1", Keep),
            ("never, another hub", NEVER, there, "dev-1", Keep),
            ("never, same hub, another name", NEVER, here, "cave-1", Rename),
            ("never, another hub, another name", NEVER, there, "cave-1", Rename),
            ("never, and no data, another hub", never_reset, there, "dev-1", Keep),
            ("never, and no data, another name", never_reset, here, "cave-1", Rename),
            ("migrate, same hub", MIGRATE, here, "dev-1", Keep),
            ("migrate, same hub, another name", MIGRATE, here, "cave-1", Rename),
            ("migrate, another hub", MIGRATE, there, "dev-1", carried),
            ("migrate, another hub, another name", MIGRATE, there, "cave-1", carried),
            ("reset, same hub", RESET, here, "dev-1", ResetInPlace),
            ("reset, same hub, another name", RESET, here, "cave-1", ResetInPlace),
            ("reset, another hub", RESET, there, "dev-1", afresh),
        ];
        let device = |text| DeviceId::parse(text).unwrap();
        let current = device("dev-1");
        for (name, policy, hub, wanted, expected) in cases {
            let wanted = device(wanted);
            let (current, wanted) = (Home { hub: here, device_id: &current }, Home { hub, device_id: &wanted });
            assert_eq!(on_return(policy, current, wanted), expected, "{name}");
        }
    }
}
