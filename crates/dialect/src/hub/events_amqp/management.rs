//! What `$management` is asked of an event hub, and what it answers (`contract/eventhub-endpoint.md 5`). Start at
//! [`Request::parse`].

use domain::operation::events::{Answer, Entity, Newest};
use domain::operation::{ErrorKind, Failure, Reply};
use proto::amqp::{Map, Message, MessageId, Symbol, Value};

use super::refusal;
use crate::error::{self, Refused};
use crate::hub::exchange::response;

/// The kind of thing that an event hub is.
const EVENT_HUB: &str = "com.microsoft:eventhub";
/// The kind of thing that a partition is.
const PARTITION: &str = "com.microsoft:partition";
/// The moment that an empty partition says it was last written to: the first of the calendar, which Python expects.
const NEVER_MS: i64 = -62_135_596_800_000;
/// The sequence number and the offset of the last message where there is none.
const NOTHING: i64 = -1;

/// What was asked at `$management`.
#[derive(Debug)]
pub struct Request {
    /// Names the request; the answer repeats it in its own type.
    pub message_id: Option<MessageId>,
    /// What is asked about, or why that is not understood. The host is for the caller to fill in.
    pub entity: Result<Entity, Refused>,
}

impl Request {
    /// Takes a message to `$management` apart. The token that Python and Node put beside it is one that they have put at
    /// `$cbs` already.
    pub fn parse(message: &Message) -> Self {
        Self { message_id: message.message_id().cloned(), entity: parse(&message.application_properties) }
    }
}

fn parse(properties: &Map) -> Result<Entity, Refused> {
    let text = |name| properties.find(name).and_then(Value::as_str);
    let bad = |problem| Refused::new(ErrorKind::InvalidArgument, problem);
    if text("operation") != Some("READ") {
        return Err(bad("The operation is not READ."));
    }
    let name = text("name").ok_or_else(|| bad("The request names no event hub."))?.to_owned();
    let partition = match text("type") {
        Some(EVENT_HUB) => None,
        Some(PARTITION) => Some(text("partition").ok_or_else(|| bad("The request names no partition."))?.to_owned()),
        _ => return Err(bad("The request is about neither an event hub nor a partition.")),
    };
    Ok(Entity { host: String::new(), name, partition })
}

/// The answer to a request that was understood.
pub fn answer(message_id: Option<MessageId>, reply: Result<Reply, Failure>) -> Message {
    match reply {
        Ok(Reply::Events(Answer::EventHub { name, created_at, partitions })) => {
            let ids = (0..partitions).map(|partition| Value::from(partition.to_string())).collect();
            let described = [
                ("name", Value::from(name)),
                ("type", Value::from(EVENT_HUB)),
                ("created_at", Value::Timestamp(created_at.millis())),
                ("partition_count", Value::Int(i32::from(partitions))),
                ("partition_ids", Value::List(ids)),
            ];
            response(message_id, (200, "OK"), Map::from_iter(described))
        }
        Ok(Reply::Events(Answer::Partition { name, partition, kept })) => {
            response(message_id, (200, "OK"), describe(name, partition, kept))
        }
        Ok(Reply::Events(Answer::NoPartition { partitions })) => {
            let error = refusal::no_partition(partitions);
            let mut response = refused(message_id, &Refused::new(ErrorKind::InvalidArgument, refusal::text(&error)));
            response.application_properties.push("error-condition", error.condition);
            response
        }
        Ok(_) => refused(message_id, &Refused::new(ErrorKind::Internal, "Internal error.")),
        Err(failure) => {
            let error = refusal::of(&failure);
            let mut response = refused(message_id, &Refused::new(failure.kind, refusal::text(&error)));
            response.application_properties.push("error-condition", error.condition);
            response
        }
    }
}

/// The answer to a request that was refused, its words under the name too that azure-eventhub looks for.
pub fn refused(message_id: Option<MessageId>, refused: &Refused) -> Message {
    let said = (error::spelling(refused.kind).status, &*refused.public);
    let mut response = response(message_id, said, Value::Null);
    response.application_properties.push("statusDescription", &*refused.public);
    response
}

fn describe(name: String, partition: u16, kept: Option<(u64, Newest)>) -> Map {
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let (first, last, offset, at) = match kept {
        None => (0, NOTHING, NOTHING.to_string(), NEVER_MS),
        Some((oldest, newest)) => {
            (signed(oldest), signed(newest.sequence), newest.offset.to_string(), newest.enqueued_at.millis())
        }
    };
    Map::from_iter([
        ("name", Value::from(name)),
        ("type", Value::from(PARTITION)),
        ("partition", Value::from(partition.to_string())),
        ("begin_sequence_number", Value::Long(first)),
        ("last_enqueued_sequence_number", Value::Long(last)),
        ("last_enqueued_offset", Value::from(offset)),
        ("last_enqueued_time_utc", Value::Timestamp(at)),
        ("is_partition_empty", Value::Boolean(kept.is_none())),
    ])
}

/// Where the endpoint is, as whoever asked the hub for its telemetry is told (`contract/eventhub-endpoint.md 8`).
pub fn redirect(host: &str, name: &str, rest: &str) -> proto::amqp::Error {
    const PORT: u16 = 5_671;

    let text = format!("The telemetry of this hub is read at the event hub {name}.");
    let mut error = proto::amqp::Error::new(proto::amqp::condition::REDIRECT, text);
    let rest = if rest.is_empty() { domain::operation::events::MANAGEMENT } else { rest };
    for (key, value) in [
        ("hostname", Value::from(host)),
        ("network-host", Value::from(host)),
        ("port", Value::Int(PORT.into())),
        ("address", Value::from(format!("amqps://{host}:{PORT}/{name}/{rest}"))),
    ] {
        error.info.push(Symbol::from_static(key), value);
    }
    error
}
