//! Which right lets a shared access policy do what (`contract/hub-service.md 2.3`, `contract/dps-service.md 8.1`).
//!
//! Knows rights and actions, and nothing of tokens, keys or connections: whoever asks here has verified a signature
//! already. What a device may do with its own credential is not a matter of rights. Start at [`Action::rights`].

use std::fmt;

/// The kinds of resource that have policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResourceKind {
    /// A hub.
    Hub,
    /// A provisioning service.
    Service,
}

/// A right that a policy can grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Right {
    /// Read identities of a hub.
    RegistryRead,
    /// Change identities of a hub.
    RegistryWrite,
    /// Do what a back-end program does at a hub.
    ServiceConnect,
    /// Do what a device does, as any device.
    DeviceConnect,
    /// Change a provisioning service itself.
    ServiceConfig,
    /// Read enrollments.
    EnrollmentRead,
    /// Change enrollments.
    EnrollmentWrite,
    /// Read registration records.
    RegistrationStatusRead,
    /// Remove registration records.
    RegistrationStatusWrite,
}

impl Right {
    /// All rights, in the order in which they are written.
    pub const ALL: [Self; 9] = [
        Self::RegistryRead,
        Self::RegistryWrite,
        Self::ServiceConfig,
        Self::ServiceConnect,
        Self::DeviceConnect,
        Self::EnrollmentRead,
        Self::EnrollmentWrite,
        Self::RegistrationStatusRead,
        Self::RegistrationStatusWrite,
    ];

    /// The name by which policies are written and stored.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RegistryRead => "RegistryRead",
            Self::RegistryWrite => "RegistryWrite",
            Self::ServiceConnect => "ServiceConnect",
            Self::DeviceConnect => "DeviceConnect",
            Self::ServiceConfig => "ServiceConfig",
            Self::EnrollmentRead => "EnrollmentRead",
            Self::EnrollmentWrite => "EnrollmentWrite",
            Self::RegistrationStatusRead => "RegistrationStatusRead",
            Self::RegistrationStatusWrite => "RegistrationStatusWrite",
        }
    }

    /// Whether a policy of a resource of `kind` can grant it. A provisioning service knows no use for `DeviceConnect`,
    /// which its default policy holds all the same (`contract/manual-differences.md`).
    pub const fn exists_for(self, kind: ResourceKind) -> bool {
        match self {
            Self::DeviceConnect => true,
            Self::RegistryRead | Self::RegistryWrite | Self::ServiceConnect => matches!(kind, ResourceKind::Hub),
            Self::ServiceConfig
            | Self::EnrollmentRead
            | Self::EnrollmentWrite
            | Self::RegistrationStatusRead
            | Self::RegistrationStatusWrite => matches!(kind, ResourceKind::Service),
        }
    }

    /// The rights that include this one, itself first.
    const fn granted_by(self) -> &'static [Self] {
        match self {
            Self::RegistryRead => &[Self::RegistryRead, Self::RegistryWrite],
            Self::EnrollmentRead => &[Self::EnrollmentRead, Self::EnrollmentWrite],
            Self::RegistrationStatusRead => {
                &[Self::RegistrationStatusRead, Self::RegistrationStatusWrite, Self::EnrollmentWrite]
            }
            Self::RegistrationStatusWrite => &[Self::RegistrationStatusWrite, Self::EnrollmentWrite],
            Self::RegistryWrite => &[Self::RegistryWrite],
            Self::ServiceConnect => &[Self::ServiceConnect],
            Self::DeviceConnect => &[Self::DeviceConnect],
            Self::ServiceConfig => &[Self::ServiceConfig],
            Self::EnrollmentWrite => &[Self::EnrollmentWrite],
        }
    }

    const fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// A set of rights, never empty when parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rights(u16);

/// Why a text is not a set of rights.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRights {
    /// It names none.
    #[error("no rights are named")]
    Empty,
    /// It names one that this kind of resource does not have; cut to a bounded length.
    #[error("{name:?} is not a right of this kind of resource")]
    Unknown {
        /// What stands there.
        name: String,
    },
}

impl Rights {
    /// Exactly the rights listed.
    pub const fn of(rights: &[Right]) -> Self {
        let mut bits = 0;
        let mut rest = rights;
        while let [right, tail @ ..] = rest {
            bits |= right.bit();
            rest = tail;
        }
        Self(bits)
    }

    /// Reads names separated by commas, in any order, letter case and spacing, for a policy of a resource of `kind`.
    pub fn parse(text: &str, kind: ResourceKind) -> Result<Self, InvalidRights> {
        const SHOWN_CHARS_MAX: usize = 64;

        let mut bits = 0;
        for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            let known = |right: &Right| right.exists_for(kind) && right.name().eq_ignore_ascii_case(name);
            match Right::ALL.into_iter().find(known) {
                Some(right) => bits |= right.bit(),
                None => return Err(InvalidRights::Unknown { name: name.chars().take(SHOWN_CHARS_MAX).collect() }),
            }
        }
        if bits == 0 { Err(InvalidRights::Empty) } else { Ok(Self(bits)) }
    }

    /// Whether the set holds `right` itself.
    pub const fn contains(self, right: Right) -> bool {
        self.0 & right.bit() != 0
    }

    /// Whether the set holds `right` or one that includes it.
    pub fn grants(self, right: Right) -> bool {
        right.granted_by().iter().any(|&granting| self.contains(granting))
    }

    /// Whether the set is enough for `action`.
    pub fn allow(self, action: Action) -> bool {
        action.rights().iter().any(|&right| self.grants(right))
    }
}

/// Names joined by comma and space, which is where clients split them (`contract/control-plane.md 3.7`).
impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = Right::ALL.into_iter().filter(|&right| self.contains(right)).map(Right::name);
        f.write_str(&held.collect::<Vec<_>>().join(", "))
    }
}

/// Something that needs a right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Read identities of a hub, singly or as a list.
    ReadIdentities,
    /// Create, replace and delete identities of a hub, singly or in bulk.
    WriteIdentities,
    /// Import and export identities of a hub.
    TransferIdentities,
    /// Count the devices of a hub.
    CountDevices,
    /// Count the connected devices of a hub.
    CountConnected,
    /// Read twins.
    ReadTwins,
    /// Change twins.
    WriteTwins,
    /// Query twins and jobs.
    Query,
    /// Call direct methods.
    InvokeMethods,
    /// Run jobs over many devices.
    ScheduleJobs,
    /// Send to devices.
    SendToDevices,
    /// Read what became of messages to devices.
    ReadFeedback,
    /// Read notifications of uploaded files.
    ReadFileNotifications,
    /// Empty a device's queue.
    PurgeQueues,
    /// Read telemetry.
    ReadTelemetry,
    /// Manage configurations of many devices.
    ManageConfigurations,
    /// Connect as a device.
    ConnectAsDevice,
    /// Read enrollments.
    ReadEnrollments,
    /// Create, replace and delete enrollments.
    WriteEnrollments,
    /// Read the keys of an enrollment.
    ReadAttestation,
    /// Read registration records.
    ReadRegistrations,
    /// Remove registration records.
    DeleteRegistrations,
    /// Change a provisioning service itself.
    ConfigureService,
}

impl Action {
    /// All actions, for tables that must be complete.
    pub const ALL: [Self; 23] = [
        Self::ReadIdentities,
        Self::WriteIdentities,
        Self::TransferIdentities,
        Self::CountDevices,
        Self::CountConnected,
        Self::ReadTwins,
        Self::WriteTwins,
        Self::Query,
        Self::InvokeMethods,
        Self::ScheduleJobs,
        Self::SendToDevices,
        Self::ReadFeedback,
        Self::ReadFileNotifications,
        Self::PurgeQueues,
        Self::ReadTelemetry,
        Self::ManageConfigurations,
        Self::ConnectAsDevice,
        Self::ReadEnrollments,
        Self::WriteEnrollments,
        Self::ReadAttestation,
        Self::ReadRegistrations,
        Self::DeleteRegistrations,
        Self::ConfigureService,
    ];

    /// The rights of which one is enough.
    pub const fn rights(self) -> &'static [Right] {
        match self {
            Self::ReadIdentities | Self::CountDevices => &[Right::RegistryRead],
            Self::WriteIdentities | Self::TransferIdentities => &[Right::RegistryWrite],
            Self::ReadTwins
            | Self::WriteTwins
            | Self::Query
            | Self::InvokeMethods
            | Self::ScheduleJobs
            | Self::SendToDevices
            | Self::ReadFeedback
            | Self::ReadFileNotifications
            | Self::PurgeQueues
            | Self::ReadTelemetry => &[Right::ServiceConnect],
            // No document says which; either group of back-end programs has a use for them.
            Self::CountConnected => &[Right::RegistryRead, Right::ServiceConnect],
            Self::ManageConfigurations => &[Right::RegistryWrite, Right::ServiceConnect],
            Self::ConnectAsDevice => &[Right::DeviceConnect],
            Self::ReadEnrollments => &[Right::EnrollmentRead],
            // Keys are shown to those alone who could replace them.
            Self::WriteEnrollments | Self::ReadAttestation => &[Right::EnrollmentWrite],
            Self::ReadRegistrations => &[Right::RegistrationStatusRead],
            Self::DeleteRegistrations => &[Right::RegistrationStatusWrite],
            Self::ConfigureService => &[Right::ServiceConfig],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_read_in_any_spacing_and_written_in_one() {
        let cases: &[(&str, ResourceKind, Result<&str, InvalidRights>)] = &[
            ("RegistryWrite,ServiceConnect", ResourceKind::Hub, Ok("RegistryWrite, ServiceConnect")),
            (" DeviceConnect ,  RegistryRead", ResourceKind::Hub, Ok("RegistryRead, DeviceConnect")),
            (
                "ServiceConnect, DeviceConnect, RegistryWrite",
                ResourceKind::Hub,
                Ok("RegistryWrite, ServiceConnect, DeviceConnect"),
            ),
            (
                "EnrollmentWrite,DeviceConnect,ServiceConfig",
                ResourceKind::Service,
                Ok("ServiceConfig, DeviceConnect, EnrollmentWrite"),
            ),
            ("enrollmentread,ENROLLMENTREAD,", ResourceKind::Service, Ok("EnrollmentRead")),
            ("", ResourceKind::Hub, Err(InvalidRights::Empty)),
            (" , ", ResourceKind::Hub, Err(InvalidRights::Empty)),
            (
                "RegistryRead, EnrollmentRead",
                ResourceKind::Hub,
                Err(InvalidRights::Unknown { name: "EnrollmentRead".to_owned() }),
            ),
            ("Registry Read", ResourceKind::Hub, Err(InvalidRights::Unknown { name: "Registry Read".to_owned() })),
            (
                "ServiceConnect",
                ResourceKind::Service,
                Err(InvalidRights::Unknown { name: "ServiceConnect".to_owned() }),
            ),
        ];
        for (text, kind, expected) in cases {
            let shown = Rights::parse(text, *kind).map(|rights| rights.to_string());
            assert_eq!(shown.as_deref().map_err(Clone::clone), expected.clone(), "{text}");
        }
    }

    #[test]
    fn every_right_survives_being_written_and_read_for_the_kinds_that_have_it() {
        for right in Right::ALL {
            for kind in [ResourceKind::Hub, ResourceKind::Service] {
                let read = Rights::parse(right.name(), kind).ok();
                assert_eq!(read, right.exists_for(kind).then_some(Rights::of(&[right])), "{right:?} {kind:?}");
            }
        }
    }

    #[test]
    fn writing_includes_reading() {
        let cases: &[(Right, &[Right])] = &[
            (Right::RegistryRead, &[Right::RegistryRead]),
            (Right::RegistryWrite, &[Right::RegistryRead, Right::RegistryWrite]),
            (Right::ServiceConnect, &[Right::ServiceConnect]),
            (Right::DeviceConnect, &[Right::DeviceConnect]),
            (Right::ServiceConfig, &[Right::ServiceConfig]),
            (Right::EnrollmentRead, &[Right::EnrollmentRead]),
            (
                Right::EnrollmentWrite,
                &[
                    Right::EnrollmentRead,
                    Right::EnrollmentWrite,
                    Right::RegistrationStatusRead,
                    Right::RegistrationStatusWrite,
                ],
            ),
            (Right::RegistrationStatusRead, &[Right::RegistrationStatusRead]),
            (Right::RegistrationStatusWrite, &[Right::RegistrationStatusRead, Right::RegistrationStatusWrite]),
        ];
        assert_eq!(cases.len(), Right::ALL.len());
        for (held, granted) in cases {
            let found: Vec<Right> =
                Right::ALL.into_iter().filter(|&right| Rights::of(&[*held]).grants(right)).collect();
            assert_eq!(&found, granted, "{held:?}");
        }
    }

    #[test]
    fn each_right_alone_allows_exactly_its_actions() {
        use Action::*;
        let cases: &[(Right, &[Action])] = &[
            (Right::RegistryRead, &[ReadIdentities, CountDevices, CountConnected]),
            (
                Right::RegistryWrite,
                &[
                    ReadIdentities,
                    WriteIdentities,
                    TransferIdentities,
                    CountDevices,
                    CountConnected,
                    ManageConfigurations,
                ],
            ),
            (
                Right::ServiceConnect,
                &[
                    CountConnected,
                    ReadTwins,
                    WriteTwins,
                    Query,
                    InvokeMethods,
                    ScheduleJobs,
                    SendToDevices,
                    ReadFeedback,
                    ReadFileNotifications,
                    PurgeQueues,
                    ReadTelemetry,
                    ManageConfigurations,
                ],
            ),
            (Right::DeviceConnect, &[ConnectAsDevice]),
            (Right::ServiceConfig, &[ConfigureService]),
            (Right::EnrollmentRead, &[ReadEnrollments]),
            (
                Right::EnrollmentWrite,
                &[ReadEnrollments, WriteEnrollments, ReadAttestation, ReadRegistrations, DeleteRegistrations],
            ),
            (Right::RegistrationStatusRead, &[ReadRegistrations]),
            (Right::RegistrationStatusWrite, &[ReadRegistrations, DeleteRegistrations]),
        ];
        for (held, allowed) in cases {
            let rights = Rights::of(&[*held]);
            let found: Vec<Action> = Action::ALL.into_iter().filter(|&action| rights.allow(action)).collect();
            assert_eq!(&found, allowed, "{held:?}");
        }
    }
}
