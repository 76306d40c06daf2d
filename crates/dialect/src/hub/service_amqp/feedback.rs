//! Feedback as back-end programs read it (`contract/hub-service.md 9.4`). Start at [`message`].

use domain::cloud_to_device::Feedback;
use domain::ids::{HubName, LockToken};
use proto::amqp::{Body, Map, Message, MessageId, Properties, Symbol, Value};

use crate::hub::words;

/// C# takes nothing else for feedback.
const CONTENT_TYPE: Symbol = Symbol::from_static("application/vnd.microsoft.iothub.feedback.json");
/// When the last record was written; C# wants to read it.
const ENQUEUED_AT: Symbol = Symbol::from_static("iothub-enqueuedtime");

/// A batch, all of which is settled by `lock`.
pub fn message(lock: LockToken, records: &[Feedback], hub: &HubName) -> Message {
    let mut message_annotations = Map::EMPTY;
    if let Some(latest) = records.iter().map(|record| record.at).max() {
        message_annotations.push(ENQUEUED_AT, Value::Timestamp(latest.millis()));
    }
    let properties = Properties {
        message_id: Some(MessageId::String(lock.to_string().into())),
        user_id: Some(hub.as_str().to_owned().into()),
        to: Some("/messages/serviceBound/feedback".into()),
        content_type: Some(CONTENT_TYPE),
        ..Properties::default()
    };
    Message {
        message_annotations,
        properties: Some(Box::new(properties)),
        body: Body::data(words::feedback(records).to_string()),
        ..Message::default()
    }
}
