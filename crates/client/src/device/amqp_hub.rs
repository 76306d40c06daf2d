//! A device at its hub over AMQP (`contract/hub-device.md 4`): telemetry, its twin, and what is desired of it.
//!
//! Start at [`AmqpDeviceClient::connect`].

use std::collections::VecDeque;
use std::fmt;

use dialect::amqp::body::bytes_of;
use dialect::hub::telemetry_amqp;
use domain::clock::UnixTime;
use domain::message::Draft;
use percent_encoding::utf8_percent_encode;
use proto::amqp::{Body, Delivery, Event, LinkId, Map, Message, MessageId, Properties, Role, Symbol, Value};
use serde_json::Value as Json;

use super::hub::{DesiredChange, EVENTS_KEPT_MAX, SEGMENT, Twin};
use super::{Credential, DeviceError, Dial, Refused, attach};
use crate::amqp::AmqpConnection;

const REPORTED: &str = "/properties/reported";
const NOTIFICATIONS: &str = "/notifications/twin/properties/desired";

/// A connected device.
pub struct AmqpDeviceClient {
    connection: AmqpConnection,
    device_id: String,
    telemetry: LinkId,
    /// On which it asks of its twin, once it did.
    twin: Option<LinkId>,
    /// Came while something else was awaited.
    kept: VecDeque<DesiredChange>,
    requests: u64,
}

/// What the twin says.
struct TwinAnswer {
    status: u16,
    version: Option<u64>,
    body: Vec<u8>,
}

impl AmqpDeviceClient {
    /// Connects as `device_id`, and attaches the link of its telemetry; with a symmetric key, by a signature made at `now`.
    pub async fn connect(
        dial: &Dial,
        device_id: &str,
        credential: &Credential,
        now: UnixTime,
    ) -> Result<Self, DeviceError> {
        let host = &dial.server.host;
        let encode = |text| utf8_percent_encode(text, SEGMENT);
        let token = credential.token(&format!("{}%2Fdevices%2F{}", encode(host), encode(device_id)), None, now);
        let plain = token.map(|password| (format!("{device_id}@sas.{host}"), password));
        let mut connection = dial.connect_amqp(credential, plain).await?;
        let address = format!("/devices/{}/messages/events", encode(device_id));
        let telemetry = attach(&mut connection, ("telemetry", Role::Sender), &address).await?;
        let device_id = device_id.to_owned();
        Ok(Self { connection, device_id, telemetry, twin: None, kept: VecDeque::new(), requests: 0 })
    }

    /// Its name at the hub.
    pub fn device_id(&self) -> &str {
        &self.device_id
    }

    /// Sends telemetry and waits until the hub has taken it over.
    pub async fn send(&mut self, message: &Draft) -> Result<(), DeviceError> {
        let Self { connection, kept, .. } = self;
        connection.send(self.telemetry, telemetry_amqp::encode(message).to_bytes(), |event| keep(kept, event)).await
    }

    /// Reads the twin.
    pub async fn twin(&mut self) -> Result<Twin, DeviceError> {
        let answer = self.ask_twin("GET", None, Body::Empty).await?;
        Twin::read(&answer.body)
    }

    /// Applies `patch` to the reported properties, and returns their version.
    pub async fn report(&mut self, patch: &Json) -> Result<u64, DeviceError> {
        let answer = self.ask_twin("PATCH", Some(REPORTED), Body::data(patch.to_string())).await?;
        answer.version.ok_or(DeviceError::Unreadable { what: "the reported properties" })
    }

    /// Asks to be told of changed desired properties.
    pub async fn subscribe_desired(&mut self) -> Result<(), DeviceError> {
        self.ask_twin("PUT", Some(NOTIFICATIONS), Body::Empty).await.map(drop)
    }

    /// The next change of desired properties, however long it takes. Keeps the connection alive; dropping the future loses
    /// nothing.
    pub async fn desired(&mut self) -> Result<DesiredChange, DeviceError> {
        loop {
            if let Some(change) = self.kept.pop_front() {
                return Ok(change);
            }
            let event = self.connection.next().await?;
            keep(&mut self.kept, event)?;
        }
    }

    /// Says goodbye.
    pub async fn disconnect(self) {
        self.connection.close().await;
    }

    async fn ask_twin(
        &mut self,
        operation: &'static str,
        resource: Option<&'static str>,
        body: Body,
    ) -> Result<TwinAnswer, DeviceError> {
        let link = self.twin_link().await?;
        self.requests += 1;
        let asked = MessageId::String(format!("muster-{}", self.requests).into());
        let mut annotations = Map::EMPTY;
        annotations.push(Symbol::from_static("operation"), Symbol::from_static(operation));
        if let Some(resource) = resource {
            annotations.push(Symbol::from_static("resource"), Symbol::from_static(resource));
        }
        let properties = Properties { correlation_id: Some(asked.clone()), ..Properties::default() };
        let request = Message {
            message_annotations: annotations,
            properties: Some(Box::new(properties)),
            body,
            ..Message::default()
        };
        let Self { connection, kept, .. } = self;
        // The answer may come before the word that the request was taken.
        let mut early = None;
        let sent = connection.send(link, request.to_bytes(), |event| {
            match answer_to(&event, &asked) {
                Some(message) => early = Some(message),
                None => keep(kept, event)?,
            }
            Ok::<_, DeviceError>(())
        });
        sent.await?;
        let answer = if let Some(message) = early {
            read_answer(&message)?
        } else {
            let answered = connection.wait("the twin request", |event| match answer_to(&event, &asked) {
                Some(message) => read_answer(&message).map(Some),
                None => keep(kept, event).map(|()| None),
            });
            answered.await?
        };
        match answer.status {
            200..300 => Ok(answer),
            status => Err(DeviceError::Refused(Refused::read(status, &answer.body))),
        }
    }

    /// The link on which it asks of its twin; made, with the one of the answers, when it is first asked.
    async fn twin_link(&mut self) -> Result<LinkId, DeviceError> {
        if let Some(link) = self.twin {
            return Ok(link);
        }
        let address = format!("/devices/{}/twin", utf8_percent_encode(&self.device_id, SEGMENT));
        attach(&mut self.connection, ("twin-answers", Role::Receiver), &address).await?;
        let link = attach(&mut self.connection, ("twin-requests", Role::Sender), &address).await?;
        self.twin = Some(link);
        Ok(link)
    }
}

impl fmt::Debug for AmqpDeviceClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AmqpDeviceClient").field("device_id", &self.device_id).finish_non_exhaustive()
    }
}

/// The message, if it answers `asked`.
fn answer_to(event: &Event, asked: &MessageId) -> Option<Message> {
    let Event::Delivery(Delivery { payload, .. }) = event else { return None };
    Message::decode(payload).ok().filter(|message| message.correlation_id() == Some(asked))
}

fn read_answer(message: &Message) -> Result<TwinAnswer, DeviceError> {
    let number = |name| message.message_annotations.find(name).and_then(Value::as_i64);
    let status = number("status").and_then(|status| u16::try_from(status).ok());
    Ok(TwinAnswer {
        status: status.ok_or(DeviceError::Unreadable { what: "the twin request" })?,
        version: number("version").and_then(|version| u64::try_from(version).ok()),
        body: bytes_of(&message.body).unwrap_or_default().into(),
    })
}

/// Keeps a change of desired properties: a message of the twin that answers nothing. Everything else is let pass.
fn keep(kept: &mut VecDeque<DesiredChange>, event: Event) -> Result<(), DeviceError> {
    let unreadable = || DeviceError::Unreadable { what: "the subscription to desired properties" };
    let Event::Delivery(Delivery { payload, .. }) = event else { return Ok(()) };
    let message = Message::decode(&payload).map_err(|_| unreadable())?;
    if message.correlation_id().is_some() {
        return Ok(());
    }
    if kept.len() >= EVENTS_KEPT_MAX {
        return Err(DeviceError::Overrun { kept: kept.len() });
    }
    let body = bytes_of(&message.body).unwrap_or_default();
    let properties: Json = serde_json::from_slice(&body).map_err(|_| unreadable())?;
    let version = properties.get("$version").and_then(Json::as_u64).ok_or_else(unreadable)?;
    kept.push_back(DesiredChange { version, properties });
    Ok(())
}
