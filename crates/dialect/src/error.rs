//! How each dialect spells a failure: one exhaustive table, no default arm, so that a new kind is placed by hand.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use domain::operation::{ErrorKind, Failure};
use http::StatusCode;
use proto::amqp::{self, SaslCode, Symbol, Value as AmqpValue, condition};
use proto::mqtt::Refusal;
use serde_json::{Value, json};

use crate::time;

/// The spellings of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spelling {
    /// HTTP status of every dialect, also inside MQTT topics. Clients of hubs and provisioning services take 403 for a
    /// quota that is used up, so rights that do not suffice are 401, like no rights at all.
    pub status: u16,
    /// Six digits of the provisioning dialects (`contract/dps-device.md 2.8`, `contract/dps-service.md 9`).
    pub provisioning: u32,
    /// Six digits of the hub dialects (`contract/hub-service.md 3`).
    pub hub: u32,
    /// Name of the hub's service dialect.
    pub hub_name: &'static str,
    /// Code of the management dialect.
    pub management: &'static str,
}

const fn spell(status: u16, provisioning: u32, hub: u32, hub_name: &'static str, management: &'static str) -> Spelling {
    Spelling { status, provisioning, hub, hub_name, management }
}

/// The spellings of `kind`.
#[rustfmt::skip]
pub const fn spelling(kind: ErrorKind) -> Spelling {
    match kind {
        ErrorKind::InvalidArgument => spell(400, 400_004, 400_004, "ArgumentInvalid", "BadRequest"),
        ErrorKind::InvalidBody => spell(400, 400_012, 400_012, "DeserializationError", "InvalidRequestContent"),
        // The numbers of the next four are in no source (`contract/hub-service.md 3` and `4.3`).
        ErrorKind::InvalidContent => spell(400, 400_000, 400_000, "InvalidConfigurationContent", "BadRequest"),
        ErrorKind::InvalidThumbprint => spell(400, 400_000, 400_000, "StringIsNotThumbprint", "BadRequest"),
        ErrorKind::NoAuthentication => {
            spell(400, 400_000, 400_000, "DeviceAuthenticationTypeIsMissing", "BadRequest")
        }
        ErrorKind::InvalidContainer => spell(400, 400_000, 400_000, "BlobContainerValidationError", "BadRequest"),
        ErrorKind::TooManyEnrollments => spell(400, 400_205, 400_205, "TooManyEnrollments", "BadRequest"),
        ErrorKind::EnrollmentRepeated => {
            spell(400, 400_206, 400_206, "RegistrationIdDefinedMultipleTimes", "BadRequest")
        }
        ErrorKind::TooLarge => spell(413, 413_001, 413_001, "MessageTooLarge", "RequestEntityTooLarge"),
        ErrorKind::TooManyDevices => spell(413, 413_002, 413_002, "TooManyDevices", "RequestEntityTooLarge"),
        ErrorKind::TooManyModules => spell(413, 413_003, 413_003, "TooManyModulesOnDevice", "RequestEntityTooLarge"),
        ErrorKind::NotSupported => spell(405, 405_000, 405_000, "InvalidOperation", "MethodNotAllowed"),
        ErrorKind::Unauthorized => spell(401, 401_002, 401_002, "IotHubUnauthorizedAccess", "AuthenticationFailed"),
        ErrorKind::Forbidden => spell(401, 401_003, 401_003, "IotHubUnauthorized", "AuthorizationFailed"),
        ErrorKind::ScopeNotFound => spell(404, 404_000, 404_000, "ResourceNotFound", "ResourceNotFound"),
        ErrorKind::HubNotFound => spell(401, 401_000, 401_001, "IotHubNotFound", "AuthenticationFailed"),
        ErrorKind::EnrollmentNotFound => spell(404, 404_201, 404_201, "EnrollmentNotFound", "ResourceNotFound"),
        ErrorKind::EnrollmentGroupNotFound => spell(404, 404_204, 404_204, "EnrollmentGroupNotFound", "ResourceNotFound"),
        ErrorKind::RegistrationNotFound => spell(404, 404_202, 404_202, "DeviceRegistrationNotFound", "ResourceNotFound"),
        ErrorKind::OperationNotFound => spell(404, 404_203, 404_203, "AsyncOperationNotFound", "ResourceNotFound"),
        ErrorKind::DeviceNotFound => spell(404, 404_001, 404_001, "DeviceNotFound", "ResourceNotFound"),
        ErrorKind::ModuleNotFound => spell(404, 404_010, 404_010, "ModuleNotFound", "ResourceNotFound"),
        ErrorKind::DeviceNotOnline => spell(404, 404_103, 404_103, "DeviceNotOnline", "ResourceNotFound"),
        ErrorKind::JobNotFound => spell(404, 404_000, 404_002, "JobNotFound", "ResourceNotFound"),
        ErrorKind::ConfigurationNotFound => spell(404, 404_000, 404_000, "ConfigurationNotFound", "ResourceNotFound"),
        ErrorKind::ResourceNotFound => spell(404, 404_000, 404_000, "ResourceNotFound", "ResourceNotFound"),
        ErrorKind::EnrollmentExists => spell(409, 409_201, 409_201, "EnrollmentConflict", "Conflict"),
        ErrorKind::EnrollmentGroupExists => spell(409, 409_202, 409_202, "EnrollmentGroupConflict", "Conflict"),
        ErrorKind::DeviceExists => spell(409, 409_001, 409_001, "DeviceAlreadyExists", "Conflict"),
        ErrorKind::ModuleExists => spell(409, 409_301, 409_301, "ModuleAlreadyExistsOnDevice", "Conflict"),
        // Its number is in no source (`contract/hub-service.md 3`).
        ErrorKind::JobExists => spell(409, 409_000, 409_000, "JobAlreadyExists", "Conflict"),
        ErrorKind::ConfigurationExists => spell(409, 409_000, 409_000, "ConfigurationAlreadyExists", "Conflict"),
        ErrorKind::ResourceExists => spell(409, 409_000, 409_000, "ResourceConflict", "Conflict"),
        ErrorKind::LockLost => spell(412, 412_002, 412_002, "DeviceMessageLockLost", "PreconditionFailed"),
        ErrorKind::PreconditionFailed => spell(412, 412_001, 412_001, "PreconditionFailed", "PreconditionFailed"),
        ErrorKind::QuotaExceeded => spell(403, 403_000, 403_002, "IotHubQuotaExceeded", "QuotaExceeded"),
        ErrorKind::TooManyJobs => spell(403, 403_000, 403_003, "JobQuotaExceeded", "QuotaExceeded"),
        ErrorKind::QueueFull => spell(403, 403_004, 403_004, "DeviceMaximumQueueDepthExceeded", "QuotaExceeded"),
        ErrorKind::Throttled => spell(429, 429_001, 429_001, "ThrottlingException", "TooManyRequests"),
        ErrorKind::DeviceUnanswering => spell(504, 504_101, 504_101, "GatewayTimeout", "GatewayTimeout"),
        ErrorKind::Unavailable => spell(503, 503_001, 503_001, "ServiceUnavailable", "ServiceUnavailable"),
        ErrorKind::Internal => spell(500, 500_001, 500_001, "ServerError", "InternalServerError"),
    }
}

/// Why a request is refused before anybody performs it. A [`Failure`] is made of it by whoever has a clock.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{public}")]
pub struct Refused {
    /// The class.
    pub kind: ErrorKind,
    /// What may be shown to anyone.
    pub public: Cow<'static, str>,
}

impl Refused {
    /// A refusal of `kind` in words that may be shown.
    pub fn new(kind: ErrorKind, public: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, public: public.into() }
    }

    /// A request of which something cannot be read.
    pub fn not_understood(kind: ErrorKind, cause: &impl fmt::Display) -> Self {
        Self::new(kind, format!("Not understood: {cause}."))
    }

    /// A path that leads nowhere.
    pub const fn nothing_here() -> Self {
        Self { kind: ErrorKind::ResourceNotFound, public: Cow::Borrowed("There is nothing at this path.") }
    }

    /// A path that leads somewhere by another method.
    pub const fn wrong_method() -> Self {
        Self { kind: ErrorKind::NotSupported, public: Cow::Borrowed("The method is not allowed here.") }
    }
}

/// The status of `kind`.
pub fn status(kind: ErrorKind) -> StatusCode {
    StatusCode::from_u16(spelling(kind).status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// The body of the provisioning dialects.
pub fn provisioning_body(failure: &Failure) -> Value {
    json!({
        "errorCode": spelling(failure.kind).provisioning,
        "trackingId": failure.tracking.to_string(),
        "message": failure.public,
        "timestampUtc": time::rfc3339(failure.at),
    })
}

/// The body of the provisioning dialects for what is refused on the spot, without a time and nothing to find it by.
pub fn provisioning_refusal(refused: &Refused) -> Value {
    json!({ "errorCode": spelling(refused.kind).provisioning, "message": refused.public })
}

/// The body of the hub's service dialect (`contract/hub-service.md 3`, shape E1).
pub fn hub_body(failure: &Failure) -> Value {
    json!({
        "Message": format!("ErrorCode:{};{}", spelling(failure.kind).hub_name, failure.public),
        "ExceptionMessage": format!("Tracking ID:{}", hub_tracking(failure)),
    })
}

/// The body of a direct method call that failed after `waited` (`contract/hub-service.md 3`, shape E3): a document in the
/// text of another.
pub fn hub_method_body(failure: &Failure, waited: Duration) -> Value {
    let waited_s = waited.as_secs();
    let waited = format!("{:02}:{:02}:{:02}", waited_s / 3_600, waited_s / 60 % 60, waited_s % 60);
    let inner = json!({
        "errorCode": spelling(failure.kind).hub,
        "trackingId": hub_tracking(failure),
        "message": failure.public,
        "info": { "timeout": waited },
        "timestampUtc": time::rfc3339(failure.at),
    });
    json!({ "Message": inner.to_string(), "ExceptionMessage": "" })
}

/// A tracking ID as hubs write it.
fn hub_tracking(failure: &Failure) -> String {
    let tracking = failure.tracking.to_string().replace('-', "");
    format!("{tracking}-G:0-TimeStamp:{}", time::month_first(failure.at))
}

/// The body of a failed twin request over MQTT (`contract/hub-device.md 2.9`).
pub fn hub_device_body(failure: &Failure) -> Value {
    hub_body_of(spelling(failure.kind).hub, failure)
}

fn hub_body_of(code: u32, failure: &Failure) -> Value {
    json!({
        "errorCode": code,
        "trackingId": hub_tracking(failure),
        "message": failure.public,
        "timestampUtc": time::rfc3339(failure.at),
    })
}

/// The body of the management dialect.
pub fn management_body(failure: &Failure) -> Value {
    json!({ "error": { "code": spelling(failure.kind).management, "message": failure.public } })
}

/// The code of a refused CONNECT at a hub: one for every refusal of a credential, another for what passes.
pub const fn connack(kind: ErrorKind) -> Refusal {
    match kind {
        ErrorKind::Throttled | ErrorKind::Unavailable | ErrorKind::Internal => Refusal::ServerUnavailable,
        ErrorKind::InvalidArgument
        | ErrorKind::InvalidBody
        | ErrorKind::InvalidContent
        | ErrorKind::InvalidThumbprint
        | ErrorKind::NoAuthentication
        | ErrorKind::InvalidContainer
        | ErrorKind::TooManyEnrollments
        | ErrorKind::EnrollmentRepeated
        | ErrorKind::TooLarge
        | ErrorKind::TooManyDevices
        | ErrorKind::TooManyModules
        | ErrorKind::NotSupported
        | ErrorKind::Unauthorized
        | ErrorKind::Forbidden
        | ErrorKind::ScopeNotFound
        | ErrorKind::HubNotFound
        | ErrorKind::EnrollmentNotFound
        | ErrorKind::EnrollmentGroupNotFound
        | ErrorKind::RegistrationNotFound
        | ErrorKind::OperationNotFound
        | ErrorKind::DeviceNotFound
        | ErrorKind::ModuleNotFound
        | ErrorKind::DeviceNotOnline
        | ErrorKind::JobNotFound
        | ErrorKind::ConfigurationNotFound
        | ErrorKind::ResourceNotFound
        | ErrorKind::EnrollmentExists
        | ErrorKind::EnrollmentGroupExists
        | ErrorKind::DeviceExists
        | ErrorKind::ModuleExists
        | ErrorKind::JobExists
        | ErrorKind::ConfigurationExists
        | ErrorKind::ResourceExists
        | ErrorKind::LockLost
        | ErrorKind::PreconditionFailed
        | ErrorKind::QuotaExceeded
        | ErrorKind::TooManyJobs
        | ErrorKind::QueueFull
        | ErrorKind::DeviceUnanswering => Refusal::NotAuthorized,
    }
}

/// The outcome of a SASL exchange in which a credential was refused: what passes is told apart, so that the client tries
/// again (AMQP 1.0, part 5, section 5.3.3.6).
pub const fn sasl_code(kind: ErrorKind) -> SaslCode {
    match connack(kind) {
        Refusal::ServerUnavailable => SaslCode::SysTemp,
        Refusal::ProtocolVersion
        | Refusal::IdentifierRejected
        | Refusal::BadUsernameOrPassword
        | Refusal::NotAuthorized => SaslCode::Auth,
    }
}

/// The AMQP condition of `kind` (`contract/dps-device.md 4.8`, `contract/hub-device.md 4.9`).
pub const fn amqp_condition(kind: ErrorKind) -> Symbol {
    match kind {
        ErrorKind::InvalidArgument
        | ErrorKind::InvalidBody
        | ErrorKind::InvalidContent
        | ErrorKind::InvalidThumbprint
        | ErrorKind::NoAuthentication
        | ErrorKind::InvalidContainer
        | ErrorKind::TooManyEnrollments
        | ErrorKind::EnrollmentRepeated
        | ErrorKind::TooManyDevices
        | ErrorKind::TooManyModules => Symbol::from_static("com.microsoft:argument-error"),
        ErrorKind::TooLarge => condition::MESSAGE_SIZE_EXCEEDED,
        ErrorKind::NotSupported => condition::NOT_ALLOWED,
        ErrorKind::Unauthorized | ErrorKind::Forbidden => condition::UNAUTHORIZED_ACCESS,
        ErrorKind::HubNotFound => Symbol::from_static("com.microsoft:iot-hub-not-found-error"),
        ErrorKind::ScopeNotFound
        | ErrorKind::EnrollmentNotFound
        | ErrorKind::EnrollmentGroupNotFound
        | ErrorKind::RegistrationNotFound
        | ErrorKind::OperationNotFound
        | ErrorKind::DeviceNotFound
        | ErrorKind::ModuleNotFound
        | ErrorKind::DeviceNotOnline
        | ErrorKind::JobNotFound
        | ErrorKind::ConfigurationNotFound
        | ErrorKind::ResourceNotFound => condition::NOT_FOUND,
        ErrorKind::EnrollmentExists
        | ErrorKind::EnrollmentGroupExists
        | ErrorKind::DeviceExists
        | ErrorKind::ModuleExists
        | ErrorKind::JobExists
        | ErrorKind::ConfigurationExists
        | ErrorKind::ResourceExists => Symbol::from_static("com.microsoft:device-already-exists"),
        ErrorKind::DeviceUnanswering => Symbol::from_static("com.microsoft:timeout"),
        ErrorKind::PreconditionFailed => Symbol::from_static("com.microsoft:precondition-failed"),
        ErrorKind::LockLost => Symbol::from_static("com.microsoft:message-lock-lost"),
        ErrorKind::QuotaExceeded | ErrorKind::TooManyJobs | ErrorKind::QueueFull => condition::RESOURCE_LIMIT_EXCEEDED,
        ErrorKind::Throttled => Symbol::from_static("com.microsoft:device-container-throttled"),
        ErrorKind::Unavailable | ErrorKind::Internal => condition::INTERNAL_ERROR,
    }
}

/// An error as AMQP carries it: the JSON body as its description, and how long to wait under both names that clients look
/// for (`contract/dps-device.md 4.8`).
pub fn amqp_error(kind: ErrorKind, body: &Value, retry_after_s: Option<u32>) -> amqp::Error {
    let mut error = amqp::Error::new(amqp_condition(kind), body.to_string());
    for key in retry_after_s.iter().flat_map(|_| ["Retry-After", "retry-after"]) {
        let seconds = retry_after_s.unwrap_or_default();
        error.info.push(Symbol::from_static(key), AmqpValue::Int(i32::try_from(seconds).unwrap_or(i32::MAX)));
    }
    error
}

/// What a link at a hub is told of a failure (`contract/hub-device.md 4.9`).
pub fn hub_amqp(failure: &Failure) -> amqp::Error {
    let mut error = amqp_error(failure.kind, &hub_device_body(failure), failure.retry_after_s);
    error.info.push(Symbol::from_static("com.microsoft:tracking-id"), failure.tracking.to_string());
    error
}

/// What a link at a hub is told of a refusal that has a condition and a code of six digits of its own.
pub fn hub_amqp_error(condition: Symbol, code: u32, failure: &Failure) -> amqp::Error {
    let mut error = amqp::Error::new(condition, hub_body_of(code, failure).to_string());
    error.info.push(Symbol::from_static("com.microsoft:is-filtered"), true);
    error.info.push(Symbol::from_static("com.microsoft:tracking-id"), failure.tracking.to_string());
    error
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/golden/errors.txt");

    #[test]
    fn the_golden_table_of_errors_is_the_one_that_was_reviewed() {
        let mut table =
            String::from("kind | status | provisioning | hub | hub name | management | connack | SASL | AMQP\n");
        for kind in ErrorKind::ALL {
            let Spelling { status, provisioning, hub, hub_name, management } = spelling(kind);
            let (connack, sasl, amqp) = (connack(kind) as u8, sasl_code(kind) as u8, amqp_condition(kind));
            let _ = write!(table, "{kind:?} | {status} | {provisioning} | {hub} | {hub_name} | {management} | ");
            let _ = writeln!(table, "{connack} | {sasl} | {amqp}");
        }
        if std::env::var_os("MUSTER_GOLDEN").is_some_and(|mode| mode == "write") {
            std::fs::write(GOLDEN, &table).unwrap();
        }
        assert_eq!(std::fs::read_to_string(GOLDEN).unwrap(), table, "`cargo xtask golden` writes it again");
    }

    #[test]
    fn codes_begin_with_their_status() {
        for kind in ErrorKind::ALL {
            let Spelling { status, provisioning, hub, .. } = spelling(kind);
            let codes = (provisioning / 1_000, hub / 1_000);
            assert_eq!(codes, (u32::from(status), u32::from(status)), "{kind:?}");
        }
    }
}
