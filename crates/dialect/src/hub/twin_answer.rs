//! What a device is told of its twin, whatever carries it (`contract/hub-device.md 3`).

use bytes::Bytes;
use domain::operation::{ErrorKind, Failure, Reply, twin};
use serde_json::{Map, Value};

use crate::error::{self, Refused};

/// The answer to a request about the twin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TwinAnswer {
    /// As HTTP numbers it.
    pub status: u16,
    /// The version of the reported properties, where they were changed.
    pub version: Option<u64>,
    /// The version of the desired properties in the document: whoever sends it has the feed know that it was read.
    pub desired: Option<u64>,
    /// The document, or what was wrong; empty if there is nothing to say.
    pub body: Bytes,
}

impl TwinAnswer {
    /// The answer that `reply` makes.
    pub fn new(reply: Result<Reply, Failure>, failure_of: impl FnOnce(Refused) -> Failure) -> Self {
        match reply {
            Ok(Reply::Twin(twin::Answer::Document(document))) => {
                let desired = desired_version(&document);
                Self { status: 200, version: None, desired, body: Value::Object(document).to_string().into() }
            }
            Ok(Reply::Twin(twin::Answer::Reported { version })) => {
                Self { status: 204, version: Some(version), desired: None, body: Bytes::new() }
            }
            Ok(_) => Self::refused(&failure_of(Refused::new(ErrorKind::Internal, "Internal error."))),
            Err(failure) => {
                // A twin that is too large is a bad request here, not an entity too large (`contract/hub-device.md 2.9`).
                let kind = match failure.kind {
                    ErrorKind::TooLarge => ErrorKind::InvalidArgument,
                    kind => kind,
                };
                Self::refused(&Failure { kind, ..failure })
            }
        }
    }

    /// The answer to a request that was refused.
    pub fn refused(failure: &Failure) -> Self {
        let body = error::hub_device_body(failure).to_string().into();
        Self { status: error::spelling(failure.kind).status, version: None, desired: None, body }
    }
}

/// Why a patch that is not UTF-8 is refused.
pub fn no_text() -> Refused {
    Refused::new(ErrorKind::InvalidArgument, "the patch is not UTF-8")
}

/// A change of the desired properties as the device reads it.
pub fn change(change: &twin::DesiredChange) -> Bytes {
    let json = serde_json::to_vec(&*change.patch).expect("JSON values have text for keys and can be written");
    json.into()
}

fn desired_version(document: &Map<String, Value>) -> Option<u64> {
    document.get("desired")?.get(domain::twin::VERSION)?.as_u64()
}
