//! What the links of a device or a back-end program are told that is cut off (`contract/hub-device.md 4.9`).

use domain::operation::ErrorKind;
use domain::operation::session::CutOff;
use proto::amqp::{Error, condition};

use crate::amqp::Port;
use crate::error;

/// The error that links are detached with. Clients take some for the end, and come back after others.
pub fn error_of(reason: CutOff, port: &Port<'_>) -> Error {
    let (condition, code, message) = match reason {
        CutOff::Displaced => (condition::STOLEN, 400_027, "A newer link for the same device took its place."),
        CutOff::Disabled => (condition::UNAUTHORIZED_ACCESS, 401_003, "The device was disabled."),
        CutOff::Rekeyed => (condition::UNAUTHORIZED_ACCESS, 401_003, "The credential was changed."),
        CutOff::TokenExpired => (condition::UNAUTHORIZED_ACCESS, 401_003, "The token has expired."),
        CutOff::CertificateExpired => (condition::UNAUTHORIZED_ACCESS, 401_003, "The certificate has expired."),
        CutOff::Deleted => (condition::NOT_FOUND, 404_001, "The device was deleted."),
        CutOff::HubDeleted => (error::amqp_condition(ErrorKind::HubNotFound), 404_000, "The hub was deleted."),
        CutOff::Overrun => (condition::DETACH_FORCED, 503_001, "The device reads too slowly; read the twin afresh."),
    };
    error::hub_amqp_error(condition, code, &port.refuse(ErrorKind::Unauthorized, message))
}
