//! An operator calls a direct method of a connected device, and the device responds.

use crate::ids::MethodRequestId;
use crate::method::{Call, NoResponse, Response};

use super::identity::IdentityName;
use super::session::ConnectedDevice;

/// What is asked.
#[derive(Clone, Debug)]
pub enum Ask {
    /// An operator calls a method, and waits for what the device says.
    Invoke {
        /// Whose.
        name: IdentityName,
        /// What.
        call: Box<Call>,
    },
    /// A connected device responds to a request that was pushed to it.
    Respond {
        /// Who.
        device: ConnectedDevice,
        /// To which request.
        request: MethodRequestId,
        /// What it says; or why there is nothing to pass on, which the caller is told at once.
        response: Result<Response, NoResponse>,
    },
}

/// What is answered.
#[derive(Clone, Debug)]
pub enum Answer {
    /// To the operator: what the device said.
    Responded(Response),
    /// To the device: taken note of, also if nobody waits for it any more.
    Noted,
}
