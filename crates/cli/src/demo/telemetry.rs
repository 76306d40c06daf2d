//! What the devices sent, as the operator reads it: every message with its place in the hub's log.
//!
//! Start at [`read_back`].

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::evidence::MessageEvidence;
use super::fleet::ALERT;
use super::operator::text;
use crate::noun::events::Watch;

/// A message that the hub acknowledged.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Its ID.
    pub message_id: String,
    /// Its body.
    pub body: Value,
    /// From sending to the acknowledgement.
    pub acknowledged_after_ms: f64,
}

/// Reads the hub's telemetry until every message of the three senders has come, unchanged and in order.
pub async fn read_back(watch: &mut Watch, senders: [(&str, Vec<Sent>); 3]) -> Result<[Vec<MessageEvidence>; 3]> {
    let mut found = [Vec::new(), Vec::new(), Vec::new()];
    let wanted: usize = senders.iter().map(|(_, sent)| sent.len()).sum();
    for _ in 0..wanted {
        let event = watch.next().await?;
        let device_id = text(&event, "/deviceId")?;
        let sender = senders.iter().zip(&mut found).find(|((name, _), _)| *name == device_id);
        let ((_, sent), found) = sender.with_context(|| format!("telemetry of {device_id}, which nobody knows"))?;
        let sent = sent.get(found.len()).with_context(|| format!("{device_id} sent less than came"))?;
        found.push(compare(&event, sent)?);
    }
    Ok(found)
}

fn compare(event: &Value, sent: &Sent) -> Result<MessageEvidence> {
    let message_id = text(event, "/systemProperties/messageId")?;
    ensure!(message_id == sent.message_id, "{message_id} came where {} was sent", sent.message_id);
    ensure!(event.get("body") == Some(&sent.body), "the body of {message_id} was changed");
    let (name, value) = ALERT;
    ensure!(text(event, &format!("/properties/{name}"))? == value, "the properties of {message_id} were changed");
    let number = |name: &str| {
        event.get(name).and_then(Value::as_u64).with_context(|| format!("{message_id} came without {name}"))
    };
    Ok(MessageEvidence {
        partition: number("partition")?,
        sequence_number: number("sequenceNumber")?,
        offset: text(event, "/offset")?,
        enqueued_time: text(event, "/enqueuedTime")?,
        acknowledged_after_ms: sent.acknowledged_after_ms,
        message_id,
    })
}
