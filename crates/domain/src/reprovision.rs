//! What happens to assignment and twin when a device registers again (`rules.md` 3).

use crate::enrollment::ReprovisionPolicy;
use crate::ids::HubKey;

/// What a returning device gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reprovision {
    /// It stays, and so does its twin.
    Keep,
    /// It stays, and its twin returns to the initial one.
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

/// Decides what happens to the hub and the twin of a device that registers again; `offered` is what allocation would
/// choose today. The identity's credential is refreshed whatever this returns.
///
/// With `update_hub_assignment` off, a device stays even if its hub has left the enrollment: editing the list of hubs
/// must not move a fleet by surprise. Reset applies on the same hub too: it is how a factory reset reaches the twin.
pub fn on_return(policy: ReprovisionPolicy, current: HubKey, offered: HubKey) -> Reprovision {
    if !policy.update_hub_assignment {
        return Reprovision::Keep;
    }
    let twin = if policy.migrate_device_data { TwinHandover::Migrate } else { TwinHandover::Reset };
    match (current == offered, twin) {
        (true, TwinHandover::Migrate) => Reprovision::Keep,
        (true, TwinHandover::Reset) => Reprovision::ResetInPlace,
        (false, twin) => Reprovision::Reassign { twin },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_returning_device_stays_moves_or_starts_afresh() {
        let (here, there) = (HubKey(1), HubKey(2));
        let policy = |update_hub_assignment, migrate_device_data| ReprovisionPolicy {
            update_hub_assignment,
            migrate_device_data,
        };
        let cases = [
            ("never, same hub", policy(false, false), here, Reprovision::Keep),
            ("never, another hub", policy(false, true), there, Reprovision::Keep),
            ("migrate, same hub", policy(true, true), here, Reprovision::Keep),
            ("migrate, another hub", policy(true, true), there, Reprovision::Reassign { twin: TwinHandover::Migrate }),
            ("reset, same hub", policy(true, false), here, Reprovision::ResetInPlace),
            ("reset, another hub", policy(true, false), there, Reprovision::Reassign { twin: TwinHandover::Reset }),
        ];
        for (name, policy, offered, expected) in cases {
            assert_eq!(on_return(policy, here, offered), expected, "{name}");
        }
    }
}
