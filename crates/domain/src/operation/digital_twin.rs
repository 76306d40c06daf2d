//! An operator reads and changes the digital twin of a device, and calls its commands.

use serde_json::{Map, Value};

use crate::digital_twin::Patch;
use crate::ids::{DeviceId, Etag, MethodRequestId, Precondition};
use crate::method::{Call, Response};

/// What is asked.
#[derive(Clone, Debug)]
pub enum Ask {
    /// Read it.
    Find(DeviceId),
    /// Change what is wanted of the device.
    Patch {
        /// Whose.
        device: DeviceId,
        /// How.
        patch: Patch,
        /// Demanded of the twin.
        precondition: Precondition,
    },
    /// Call a command, and wait for what the device says.
    Command {
        /// Whose.
        device: DeviceId,
        /// Which.
        command: Box<Command>,
    },
}

/// A command to be called.
#[derive(Clone, Debug)]
pub struct Command {
    /// The component that has it; `None` for one of the device itself.
    pub component: Option<String>,
    /// Its name.
    pub name: String,
    /// The direct method that it is, and what that is called with.
    pub call: Call,
}

/// What is answered.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The document.
    Found {
        /// The document.
        document: Map<String, Value>,
        /// The version of tags and desired properties that it was made of.
        etag: Etag,
    },
    /// The wanted values are changed, and the device will hear of them.
    Accepted {
        /// Whose they are.
        device: DeviceId,
        /// The version that the change led to.
        etag: Etag,
    },
    /// What the device said.
    Responded {
        /// The request that it was told by.
        request: MethodRequestId,
        /// Its words.
        response: Response,
    },
}
