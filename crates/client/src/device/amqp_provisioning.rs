//! A device registers over AMQP (`contract/dps-device.md 4`). Start at [`register`].

use bytes::Bytes;
use proto::amqp::{Body, Delivery, Event, Map, Message, MessageId, Properties, Role, Value};
use tokio::time::{Instant, timeout_at};

use super::registration::{Answer, Registration, Step, judge};
use super::{Credential, DeviceError, Dial, attach};
use crate::amqp::AmqpConnection;

/// What is asked for.
pub(super) struct Wish<'a> {
    /// The ID scope.
    pub(super) id_scope: &'a str,
    /// As whom.
    pub(super) registration_id: &'a str,
    /// The signature, with a symmetric key.
    pub(super) token: Option<String>,
    /// What the request to register says.
    pub(super) body: Bytes,
}

/// Registers and polls on one connection.
pub(super) async fn register(
    dial: &Dial,
    credential: &Credential,
    wish: Wish<'_>,
) -> Result<Registration, DeviceError> {
    let Wish { id_scope, registration_id, token, body } = wish;
    let address = format!("{id_scope}/registrations/{registration_id}");
    let plain = token.map(|password| (address.clone(), password));
    let mut connection = dial.connect_amqp(credential, plain).await?;
    let registered = converse(&mut connection, &address, body).await;
    connection.close().await;
    registered
}

async fn converse(connection: &mut AmqpConnection, address: &str, body: Bytes) -> Result<Registration, DeviceError> {
    // In this order (`contract/dps-device.md 4.5`).
    attach(connection, ("answers", Role::Receiver), address).await?;
    let link = attach(connection, ("requests", Role::Sender), address).await?;
    let mut operation = None;
    for number in 1_u64.. {
        let asked = MessageId::String(format!("muster-{number}").into());
        let request = request(operation.as_deref(), &body, asked.clone());
        let mut answered = None;
        let is_answer = |event: &Event| match event {
            Event::Delivery(Delivery { payload, .. }) => {
                Message::decode(payload).ok().filter(|message| message.correlation_id() == Some(&asked))
            }
            _ => None,
        };
        let sent = connection.send(link, request.to_bytes(), |event| {
            answered = answered.take().or_else(|| is_answer(&event));
            Ok(())
        });
        let step = match (sent.await, answered) {
            // Told by the outcome of the request; overload passes, everything else would only be refused again.
            (Err(DeviceError::Refused(refused)), _) if matches!(refused.status, 429 | 503) => {
                judge(Answer { status: refused.status, retry_after_s: None, body: &[] })?
            }
            (Err(error), _) => return Err(error),
            (Ok(()), Some(answer)) => judge(read(&answer))?,
            (Ok(()), None) => {
                let answer =
                    connection.wait("the registration", |event| Ok::<_, DeviceError>(is_answer(&event))).await?;
                judge(read(&answer))?
            }
        };
        let after = match step {
            Step::Assigned(registration) => return Ok(*registration),
            Step::Repeat { after } => after,
            Step::Poll { operation_id, after } => {
                operation = Some(operation_id);
                after
            }
        };
        idle_until(connection, Instant::now() + after).await?;
    }
    unreachable!("the numbers of requests do not end")
}

/// The request to register, or, once there is an operation, to say how it stands.
fn request(operation: Option<&str>, body: &Bytes, asked: MessageId) -> Message {
    let mut properties = Map::EMPTY;
    let body = match operation {
        None => {
            properties.push("iotdps-operation-type", "iotdps-register");
            Body::data(body.clone())
        }
        Some(operation_id) => {
            properties.push("iotdps-operation-type", "iotdps-get-operationstatus");
            properties.push("iotdps-operation-id", operation_id);
            Body::Empty
        }
    };
    Message {
        properties: Some(Box::new(Properties { correlation_id: Some(asked), ..Properties::default() })),
        application_properties: properties,
        body,
        ..Message::default()
    }
}

/// An answer is one of success: refusals are told by the outcome of the request.
fn read(answer: &Message) -> Answer<'_> {
    let retry_after = answer.application_properties.find("retry-after").and_then(Value::as_i64);
    let body = match &answer.body {
        Body::Data(sections) => sections.first().map(|section| &**section).unwrap_or_default(),
        Body::Empty | Body::Sequences(_) | Body::Value(_) => &[],
    };
    Answer { status: 200, retry_after_s: retry_after.and_then(|seconds| u64::try_from(seconds).ok()), body }
}

/// Keeps the connection alive until `deadline`; nothing that comes meanwhile is waited for.
async fn idle_until(connection: &mut AmqpConnection, deadline: Instant) -> Result<(), DeviceError> {
    while let Ok(event) = timeout_at(deadline, connection.next()).await {
        event?;
    }
    Ok(())
}
