//! Whoever was let in over a connection: a device, or a back-end program. Start at [`Guest`].

use domain::operation::backend::{self, Backend};
use domain::operation::session::{self, ConnectedDevice, CutOff};
use domain::operation::{Operation, Reply};
use service::{Mailbox, Service};

/// Somebody who was let in.
#[derive(Clone)]
pub(super) enum Guest {
    Device(ConnectedDevice),
    Backend(Backend),
}

impl Guest {
    /// Who is let in by `reply`, if anybody is.
    pub(super) fn entering(reply: &Reply) -> Option<Self> {
        match reply {
            Reply::Session(session::Answer::Connected { device, .. }) => Some(Self::Device(device.clone())),
            Reply::Backend(backend::Answer::Entered(backend)) => Some(Self::Backend(backend.clone())),
            _ => None,
        }
    }

    /// Who leaves by `operation`, if anybody does.
    pub(super) fn leaving(operation: &Operation) -> Option<Self> {
        match operation {
            Operation::Session(session::Ask::Disconnect { device }) => Some(Self::Device(device.clone())),
            Operation::Backend(backend::Ask::Leave(backend)) => Some(Self::Backend(backend.clone())),
            _ => None,
        }
    }

    /// Where it finds what it is told, or why it was cut off before it could look.
    pub(super) fn mailbox(&self, service: &Service) -> Result<Mailbox, CutOff> {
        match self {
            Self::Device(device) => service.mailbox(device).ok_or(CutOff::Displaced),
            Self::Backend(backend) => service.backend_mailbox(backend).ok_or(CutOff::Rekeyed),
        }
    }

    /// Its leaving.
    pub(super) fn leave(self) -> Operation {
        match self {
            Self::Device(device) => Operation::Session(session::Ask::Disconnect { device }),
            Self::Backend(backend) => Operation::Backend(backend::Ask::Leave(backend)),
        }
    }

    /// Whether both were let in at once, as one.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Device(one), Self::Device(other)) => one.is_same_seat(other),
            (Self::Backend(one), Self::Backend(other)) => one == other,
            (Self::Device(_), Self::Backend(_)) | (Self::Backend(_), Self::Device(_)) => false,
        }
    }
}
