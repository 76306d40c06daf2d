//! What a hub's resource says of uploaded files (`contract/control-plane.md 4.2`).
//!
//! Files are kept by this server, so that a hub is told a container's name and no account. Start at [`parse`].

use domain::file::FileSettings;
use domain::operation::resource::FileDraft;
use serde_json::{Value, json};

use super::{count, duration, invalid, object};
use crate::error::Refused;
use crate::json::{boolean, text};
use crate::time;

/// What a connection string may say: nothing, or the words by which Azure's tools mean a storage on the machine itself.
const OWN_STORAGE: &str = "UseDevelopmentStorage=true";
const DEFAULT_ENDPOINT: &str = "$default";

/// Reads how uploaded files are treated.
pub(super) fn parse(properties: &Value) -> Result<FileDraft, Refused> {
    let endpoints = object(properties, "storageEndpoints")?.unwrap_or(&Value::Null);
    let storage = object(endpoints, DEFAULT_ENDPOINT)?.unwrap_or(&Value::Null);
    let account = text(storage, "connectionString")?.unwrap_or_default();
    let account = account.trim().trim_end_matches(';');
    if !account.is_empty() && !account.eq_ignore_ascii_case(OWN_STORAGE) {
        let words = format!("files are kept by this server, so that only {OWN_STORAGE} or nothing is taken");
        return Err(invalid("storageEndpoints.$default.connectionString", words));
    }
    let messaging = object(properties, "messagingEndpoints")?.unwrap_or(&Value::Null);
    let notifications = object(messaging, "fileNotifications")?.unwrap_or(&Value::Null);
    Ok(FileDraft {
        container: text(storage, "containerName")?,
        upload_ttl: duration(storage, "sasTtlAsIso8601")?,
        notifies: boolean(properties, "enableFileUploadNotifications")?,
        notification_ttl: duration(notifications, "ttlAsIso8601")?,
        notification_deliveries_max: count(notifications, "maxDeliveryCount")?,
        notification_lock: duration(notifications, "lockDurationAsIso8601")?,
    })
}

/// Shows where files are kept.
pub(super) fn show_storage(settings: &FileSettings) -> Value {
    let account = if settings.are_taken() { OWN_STORAGE } else { "" };
    json!({
        DEFAULT_ENDPOINT: {
            "sasTtlAsIso8601": time::duration(settings.upload_ttl),
            "connectionString": account,
            "containerName": settings.container,
        },
    })
}

/// Shows how notifications wait.
pub(super) fn show_messaging(settings: &FileSettings) -> Value {
    let waiting = &settings.notifications;
    json!({
        "fileNotifications": {
            "lockDurationAsIso8601": time::duration(waiting.lock),
            "ttlAsIso8601": time::duration(waiting.ttl),
            "maxDeliveryCount": waiting.deliveries_max,
        },
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_hub_is_told_a_container_and_no_account() {
        let document = |account: &str| {
            json!({
                "storageEndpoints": { "$default": {
                    "sasTtlAsIso8601": "PT2H", "connectionString": account, "containerName": "uploads",
                } },
                "messagingEndpoints": { "fileNotifications": {
                    "lockDurationAsIso8601": "PT10S", "ttlAsIso8601": "PT24H", "maxDeliveryCount": 3,
                } },
                "enableFileUploadNotifications": true,
            })
        };
        for account in ["", OWN_STORAGE, "usedevelopmentstorage=TRUE;"] {
            let settings = parse(&document(account)).unwrap().apply(FileSettings::default());
            assert_eq!((settings.container.as_str(), settings.notifies), ("uploads", true), "{account}");
            assert_eq!(settings.upload_ttl, Duration::from_hours(2));
            assert_eq!(show_storage(&settings)["$default"]["sasTtlAsIso8601"], "PT2H");
            assert_eq!(show_messaging(&settings), document("")["messagingEndpoints"]);
        }
        let elsewhere = parse(&document("DefaultEndpointsProtocol=https;AccountName=a;AccountKey=k")).unwrap_err();
        assert!(elsewhere.public.contains("kept by this server") && !elsewhere.public.contains("AccountKey"));
        let nothing = parse(&Value::Null).unwrap().apply(FileSettings::default());
        assert_eq!(nothing, FileSettings::default());
        assert_eq!(show_storage(&nothing)["$default"]["connectionString"], "");
    }
}
