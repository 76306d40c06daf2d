//! How a reader's link is told that it is refused, or why it ends (`contract/eventhub-endpoint.md 9`). Start at [`of`].

use domain::operation::session::CutOff;
use domain::operation::{ErrorKind, Failure};
use proto::amqp::{Error, Symbol, condition};

use super::filter::InvalidFilter;
use crate::error::amqp_condition;

/// What clients take for a pause after which they try again.
const SERVER_BUSY: Symbol = Symbol::from_static("com.microsoft:server-busy");
const ARGUMENT_ERROR: Symbol = Symbol::from_static("com.microsoft:argument-error");
const ARGUMENT_OUT_OF_RANGE: Symbol = Symbol::from_static("com.microsoft:argument-out-of-range");

/// What is said of a failure.
pub fn of(failure: &Failure) -> Error {
    let condition = match failure.kind {
        ErrorKind::HubNotFound => condition::NOT_FOUND,
        ErrorKind::Throttled | ErrorKind::Unavailable => SERVER_BUSY,
        other => amqp_condition(other),
    };
    Error::new(condition, format!("{} TrackingId:{}", failure.public, failure.tracking))
}

/// What is said of a filter that tells no place.
pub fn bad_filter(invalid: InvalidFilter) -> Error {
    Error::new(ARGUMENT_ERROR, format!("The place to begin at is not understood: {invalid}."))
}

/// What is said of a partition that there is not.
pub fn no_partition(partitions: u16) -> Error {
    let last = partitions.saturating_sub(1);
    Error::new(ARGUMENT_OUT_OF_RANGE, format!("There is no such partition: they are numbered from 0 to {last}."))
}

/// What is said to whoever comes too weakly to read a partition.
pub fn held(epoch: i64) -> Error {
    Error::new(condition::STOLEN, format!("A reader with epoch {epoch} holds the partition in this consumer group."))
}

/// What is said of a link that only carries messages the other way.
pub fn not_for_sending() -> Error {
    Error::new(condition::NOT_ALLOWED, "Messages are read here, and not sent.")
}

/// What is said of a message that the reader would not take.
pub fn too_large(bytes: usize, max: u64) -> Error {
    let text = format!("The next message has {bytes} bytes, where the reader takes {max}.");
    Error::new(condition::MESSAGE_SIZE_EXCEEDED, text)
}

/// Why a reader ends that was let in.
pub fn ended(reason: CutOff) -> Error {
    let (condition, text) = match reason {
        CutOff::Displaced => (condition::STOLEN, "Another reader has taken the partition over."),
        CutOff::TokenExpired | CutOff::CertificateExpired => (condition::UNAUTHORIZED_ACCESS, "The token has expired."),
        CutOff::Deleted => (condition::NOT_FOUND, "The consumer group is gone."),
        CutOff::Rekeyed | CutOff::Disabled => {
            (condition::UNAUTHORIZED_ACCESS, "The policy does not allow reading any more.")
        }
        CutOff::HubDeleted => (condition::NOT_FOUND, "The hub is gone."),
        CutOff::Overrun => (condition::DETACH_FORCED, "The link has to be attached afresh."),
    };
    Error::new(condition, text)
}

/// The words of an error.
pub fn text(error: &Error) -> String {
    error.description.as_ref().map(ToString::to_string).unwrap_or_default()
}

/// What is said of an address that is longer than any name.
pub fn long_name() -> Error {
    Error::new(ARGUMENT_ERROR, "A name in the address is too long.")
}

/// What is said of our own mistake.
pub fn internal() -> Error {
    Error::new(condition::INTERNAL_ERROR, "Internal error.")
}
