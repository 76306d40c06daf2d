//! A device sends telemetry.

use crate::message::Draft;

use super::session::ConnectedDevice;

/// What a device sends.
#[derive(Clone, Debug)]
pub enum Ask {
    /// One message; answered once it is durable.
    Send {
        /// Who.
        device: ConnectedDevice,
        /// Body and properties; the hub stamps the rest.
        message: Box<Draft>,
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
