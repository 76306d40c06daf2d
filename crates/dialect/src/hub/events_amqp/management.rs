//! What `$management` is asked of an event hub, and what it answers (`contract/eventhub-endpoint.md 5`). Start at
//! [`Request::parse`]; whoever asks, at [`request`].

use domain::operation::events::{Answer, Entity, From, Newest};
use domain::operation::{ErrorKind, Failure, Reply};
use proto::amqp::{Body, Map, Message, MessageId, Symbol, Value};

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

/// The request to say what `entity` is.
pub fn request(entity: &Entity) -> Message {
    let mut asked = Map::from_iter([("operation", Value::from("READ")), ("name", Value::from(entity.name.as_str()))]);
    match &entity.partition {
        None => asked.push("type", EVENT_HUB),
        Some(partition) => {
            asked.push("type", PARTITION);
            asked.push("partition", partition.as_str());
        }
    }
    Message { application_properties: asked, ..Message::default() }
}

/// How many partitions an event hub has, as its answer says.
pub fn read_partitions(answer: &Message) -> Option<u16> {
    let count = described(answer)?.find("partition_count").and_then(Value::as_i64)?;
    u16::try_from(count).ok()
}

/// Behind what a partition is to be read to get what comes from here on, as its answer says.
pub fn read_end(answer: &Message) -> Option<From> {
    let offset: i64 = described(answer)?.find("last_enqueued_offset").and_then(Value::as_str)?.parse().ok()?;
    Some(u64::try_from(offset).map_or(From::Oldest, From::AfterOffset))
}

fn described(answer: &Message) -> Option<&Map> {
    match &answer.body {
        Body::Value(Value::Map(described)) => Some(described),
        _ => None,
    }
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

#[cfg(test)]
mod tests {
    use domain::clock::UnixTime;

    use super::*;

    #[test]
    fn what_a_reader_asks_is_understood_and_so_is_the_answer() {
        for partition in [None, Some("3".to_owned())] {
            let entity = Entity { host: String::new(), name: "hub".to_owned(), partition };
            assert_eq!(Request::parse(&request(&entity)).entity.ok(), Some(entity));
        }
        let name = || "hub".to_owned();
        let hub = Answer::EventHub { name: name(), created_at: UnixTime::NEVER, partitions: 4 };
        assert_eq!(read_partitions(&answer(None, Ok(Reply::Events(hub)))), Some(4));
        let at = UnixTime::from_seconds(1);
        let newest = Newest { sequence: 7, offset: 512, enqueued_at: at, read_at: at };
        for (kept, expected) in [(None, From::Oldest), (Some((0, newest)), From::AfterOffset(512))] {
            let partition = Answer::Partition { name: name(), partition: 3, kept };
            assert_eq!(read_end(&answer(None, Ok(Reply::Events(partition)))), Some(expected));
        }
        let none = Answer::NoPartition { partitions: 4 };
        assert_eq!(read_end(&answer(None, Ok(Reply::Events(none)))), None);
    }
}
