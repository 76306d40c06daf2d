//! A device sends telemetry.

use crate::message::Draft;

use super::identity::IdentityName;
use super::session::ConnectedDevice;

/// What is sent or asked.
#[derive(Clone, Debug)]
pub enum Ask {
    /// One message; answered once it is durable.
    Send {
        /// Who.
        device: ConnectedDevice,
        /// Body and properties; the hub stamps the rest.
        message: Box<Draft>,
    },
    /// Several messages, of which all are kept or none; answered once they are durable.
    SendBatch {
        /// Who.
        device: ConnectedDevice,
        /// Bodies and properties; the hub stamps the rest.
        messages: Vec<Draft>,
    },
    /// One or several messages of a device that proves itself with the request; kept and answered as
    /// [`Self::SendBatch`] is.
    Post {
        /// Who it claims to be.
        name: IdentityName,
        /// Bodies and properties; the hub stamps the rest.
        messages: Vec<Draft>,
    },
    /// The will of a device whose connection broke.
    Will {
        /// Who.
        device: ConnectedDevice,
        /// Body and properties.
        message: Box<Draft>,
    },
}

/// What is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Every message of the ask is durable.
    Stored,
}
