//! What the links of a device or a back-end program are told that is cut off (`contract/hub-device.md 4.9`).

use domain::operation::ErrorKind;
use domain::operation::session::CutOff;
use proto::amqp::{Error, Symbol, condition};

use crate::amqp::Port;
use crate::error;

/// What is told: its class, for the log, how AMQP calls it, the code of six digits, and the words.
struct Told(ErrorKind, Symbol, u32, &'static str);

/// The error that a device's links are detached with. Clients take some for the end, and come back after others.
pub fn of_device(reason: CutOff, port: &Port<'_>) -> Error {
    tell(to_device(reason), port)
}

/// The error that the link of a back-end program is detached with.
pub fn of_backend(reason: CutOff, port: &Port<'_>) -> Error {
    tell(to_backend(reason), port)
}

fn tell(Told(kind, condition, code, words): Told, port: &Port<'_>) -> Error {
    error::hub_amqp_error(condition, code, &port.refuse(kind, words))
}

const fn to_device(reason: CutOff) -> Told {
    use ErrorKind::{DeviceNotFound, Forbidden, PreconditionFailed, Unauthorized, Unavailable};
    const ENDED: Symbol = condition::UNAUTHORIZED_ACCESS;

    match reason {
        CutOff::Displaced => {
            Told(PreconditionFailed, condition::STOLEN, 400_027, "A newer link for the same device took its place.")
        }
        CutOff::Disabled => Told(Forbidden, ENDED, 401_003, "The device was disabled."),
        CutOff::Rekeyed => Told(Unauthorized, ENDED, 401_003, "The credential was changed."),
        CutOff::TokenExpired => Told(Unauthorized, ENDED, 401_003, "The token has expired."),
        CutOff::CertificateExpired => Told(Unauthorized, ENDED, 401_003, "The certificate has expired."),
        CutOff::Deleted => Told(DeviceNotFound, condition::NOT_FOUND, 404_001, "The device was deleted."),
        CutOff::HubDeleted => hub_deleted(),
        CutOff::Overrun => {
            let words = "The device reads too slowly; read the twin afresh.";
            Told(Unavailable, condition::DETACH_FORCED, 503_001, words)
        }
    }
}

const fn to_backend(reason: CutOff) -> Told {
    use ErrorKind::{Forbidden, PreconditionFailed, ResourceNotFound, Unauthorized, Unavailable};
    const ENDED: Symbol = condition::UNAUTHORIZED_ACCESS;

    match reason {
        CutOff::Displaced => {
            Told(PreconditionFailed, condition::STOLEN, 400_027, "A newer link of the same program took its place.")
        }
        CutOff::Disabled => Told(Forbidden, ENDED, 401_003, "The policy was taken out of use."),
        CutOff::Rekeyed => {
            let words = "The keys of the policy were changed, or it does not allow this any more.";
            Told(Unauthorized, ENDED, 401_003, words)
        }
        CutOff::TokenExpired => Told(Unauthorized, ENDED, 401_003, "The token has expired."),
        CutOff::CertificateExpired => Told(Unauthorized, ENDED, 401_003, "The certificate has expired."),
        CutOff::Deleted => Told(ResourceNotFound, condition::NOT_FOUND, 404_000, "What the link is for was deleted."),
        CutOff::HubDeleted => hub_deleted(),
        CutOff::Overrun => {
            let words = "The program reads too slowly; attach the link afresh.";
            Told(Unavailable, condition::DETACH_FORCED, 503_001, words)
        }
    }
}

const fn hub_deleted() -> Told {
    let kind = ErrorKind::HubNotFound;
    Told(kind, error::amqp_condition(kind), error::spelling(kind).hub, "The hub was deleted.")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_reason_has_words_of_its_own_for_devices_and_for_programs() {
        let reasons = [
            CutOff::Displaced,
            CutOff::Disabled,
            CutOff::Deleted,
            CutOff::Rekeyed,
            CutOff::TokenExpired,
            CutOff::CertificateExpired,
            CutOff::Overrun,
            CutOff::HubDeleted,
        ];
        let (mut to_devices, mut to_programs) = (BTreeSet::new(), BTreeSet::new());
        for reason in reasons {
            let (device, program) = (to_device(reason), to_backend(reason));
            assert!(to_devices.insert(device.3) && to_programs.insert(program.3), "{reason:?}");
            assert!(!device.3.contains("program") && !program.3.contains("device"), "{reason:?}");
            // What is another program's doing is told by the same condition as a device's.
            assert_eq!(device.1, program.1, "{reason:?}");
        }
    }
}
