//! Words of cloud-to-device messages and of uploaded files that several of the hub's dialects write alike.

use domain::cloud_to_device::{Acknowledgement, Feedback, Outcome};
use domain::file::{FileName, FileNotification, LockedNotification};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use crate::time;

/// As `iothub-ack` says it.
pub const fn acknowledgement(acknowledgement: Acknowledgement) -> &'static str {
    match acknowledgement {
        Acknowledgement::None => "none",
        Acknowledgement::Positive => "positive",
        Acknowledgement::Negative => "negative",
        Acknowledgement::Full => "full",
    }
}

/// Reads what `iothub-ack` says, in any letter case.
pub fn parse_acknowledgement(text: &str) -> Option<Acknowledgement> {
    [Acknowledgement::None, Acknowledgement::Positive, Acknowledgement::Negative, Acknowledgement::Full]
        .into_iter()
        .find(|&known| acknowledgement(known).eq_ignore_ascii_case(text))
}

/// The status code of a record of feedback.
pub const fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Success => "Success",
        Outcome::Expired => "Expired",
        Outcome::DeliveryCountExceeded => "DeliveryCountExceeded",
        Outcome::Rejected => "Rejected",
        Outcome::Purged => "Purged",
    }
}

/// A batch of feedback as back-end programs read it, over AMQP and HTTPS alike (`contract/hub-service.md 9.4`).
pub fn feedback(records: &[Feedback]) -> Value {
    let shown = records.iter().map(|record| {
        let mut shown = json!({
            "originalMessageId": record.message_id,
            "description": outcome(record.outcome),
            "deviceGenerationId": record.generation,
            "deviceId": record.device.device,
            "enqueuedTimeUtc": time::rfc3339(record.at),
            "statusCode": outcome(record.outcome),
        });
        if let (Some(module), Some(shown)) = (&record.device.module, shown.as_object_mut()) {
            shown.insert("moduleId".to_owned(), json!(module));
        }
        shown
    });
    shown.collect()
}

/// A notification of an uploaded file, over AMQP and HTTPS alike (`contract/hub-service.md 9.5`).
pub fn file_notification(locked: &LockedNotification) -> Value {
    let FileNotification { device, file, bytes, written_at, enqueued_at } = &locked.notification;
    let mut shown = json!({
        "deviceId": device.device,
        "blobUri": file_address(&locked.host, &locked.container, file),
        "blobName": file.as_str(),
        "lastUpdatedTime": time::rfc3339_offset(*written_at),
        "blobSizeInBytes": bytes,
        "enqueuedTimeUtc": time::rfc3339(*enqueued_at),
    });
    if let (Some(module), Some(shown)) = (&device.module, shown.as_object_mut()) {
        shown.insert("moduleId".to_owned(), json!(module));
    }
    shown
}

/// Where a file is found, for whoever has a signature.
pub fn file_address(host: &str, container: &str, file: &FileName) -> String {
    /// What stands in a path as it is.
    const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

    format!("https://{host}/{container}/{}", utf8_percent_encode(file.as_str(), PLAIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledgements_are_read_as_they_are_written() {
        for text in ["none", "positive", "negative", "full"] {
            assert_eq!(parse_acknowledgement(&text.to_uppercase()).map(acknowledgement), Some(text));
        }
        assert_eq!(parse_acknowledgement("both"), None);
    }
}
