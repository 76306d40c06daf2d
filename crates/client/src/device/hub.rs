//! A device at its hub (`contract/hub-device.md 2`): telemetry, its twin, and what is desired of it.
//!
//! Start at [`DeviceClient::connect`].

use std::collections::VecDeque;
use std::fmt;

use bytes::Bytes;
use dialect::hub::property_bag;
use domain::clock::UnixTime;
use domain::message::Draft;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use proto::mqtt::{ClientEvent, Message, PacketId, QoS, SubackCode, Text, Unpublished};
use serde_json::Value;

use super::link::{Introduction, Link, granted, text};
use super::{Credential, DeviceError, Dial, Refused};

#[cfg(test)]
mod tests;

/// Most events that are kept while something else is awaited.
pub(super) const EVENTS_KEPT_MAX: usize = 4_096;
/// The version that the newest SDKs name (`contract/hub-device.md 2.1`).
const API_VERSION: &str = "2021-04-12";
const TWIN_ANSWERS: &str = "$iothub/twin/res/#";
const DESIRED: &str = "$iothub/twin/PATCH/properties/desired/#";
/// What stays as it is in a signature's resource (RFC 3986, section 2.3).
pub(super) const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A connected device.
pub struct DeviceClient {
    link: Link,
    device_id: String,
    /// Came while something else was awaited.
    kept: VecDeque<DeviceEvent>,
    has_twin_answers: bool,
    requests: u64,
    session_present: bool,
}

/// What a hub does without being asked for it at that moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceEvent {
    /// It took over a message of [`DeviceClient::start_send`].
    Acknowledged(PacketId),
    /// Desired properties changed.
    Desired(DesiredChange),
}

/// A change of desired properties.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredChange {
    /// Version of the desired properties after it.
    pub version: u64,
    /// The patch, or the whole document if it was replaced; with `$version`.
    pub properties: Value,
}

/// A device's twin as the device sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Twin {
    /// Desired properties, with `$version`.
    pub desired: Value,
    /// Reported properties, with `$version`.
    pub reported: Value,
}

impl Twin {
    /// Reads the document that a hub answers.
    pub(super) fn read(body: &[u8]) -> Result<Self, DeviceError> {
        let unreadable = || DeviceError::Unreadable { what: "the twin" };
        let mut document: Value = serde_json::from_slice(body).map_err(|_| unreadable())?;
        let mut member = |name| document.get_mut(name).map(Value::take).ok_or_else(unreadable);
        Ok(Self { desired: member("desired")?, reported: member("reported")? })
    }

    /// The versions of the desired and of the reported properties.
    pub fn versions(&self) -> (Option<u64>, Option<u64>) {
        let version = |document: &Value| document.get("$version").and_then(Value::as_u64);
        (version(&self.desired), version(&self.reported))
    }
}

/// What a packet means.
enum Incoming {
    Event(DeviceEvent),
    Subscribed {
        packet_id: PacketId,
        codes: Vec<SubackCode>,
    },
    TwinAnswer(TwinAnswer),
    /// Of no interest here.
    Other,
}

struct TwinAnswer {
    status: u16,
    request_id: u64,
    version: Option<u64>,
    body: Bytes,
}

impl DeviceClient {
    /// Connects as `device_id`; with a symmetric key, by a signature made at `now`.
    pub async fn connect(
        dial: &Dial,
        device_id: &str,
        credential: &Credential,
        now: UnixTime,
    ) -> Result<Self, DeviceError> {
        let host = &dial.server.host;
        let encode = |text| utf8_percent_encode(text, SEGMENT);
        let agent = concat!("muster%2F", env!("CARGO_PKG_VERSION"));
        let introduction = Introduction {
            client_id: device_id,
            username: format!("{host}/{device_id}/?api-version={API_VERSION}&DeviceClientType={agent}"),
            password: credential.token(&format!("{}%2Fdevices%2F{}", encode(host), encode(device_id)), None, now),
        };
        let (link, session_present) = Link::open(dial, credential, introduction).await?;
        Ok(Self::over(link, device_id, session_present))
    }

    fn over(link: Link, device_id: &str, session_present: bool) -> Self {
        Self {
            link,
            device_id: device_id.to_owned(),
            kept: VecDeque::new(),
            has_twin_answers: false,
            requests: 0,
            session_present,
        }
    }

    /// Its name at the hub.
    pub fn device_id(&self) -> &str {
        &self.device_id
    }

    /// Whether the hub kept the subscriptions of an earlier connection.
    pub const fn session_present(&self) -> bool {
        self.session_present
    }

    /// How many messages and requests the hub has not answered.
    pub fn in_flight(&self) -> usize {
        self.link.in_flight()
    }

    /// Sends telemetry and waits until the hub has taken it over.
    pub async fn send(&mut self, message: &Draft) -> Result<(), DeviceError> {
        let topic = self.telemetry_topic(message)?;
        let Some(sent) = self.publish(topic, &message.body, QoS::AtLeastOnce).await? else { return Ok(()) };
        self.wait("the message", |incoming| match incoming {
            Incoming::Event(DeviceEvent::Acknowledged(packet_id)) if packet_id == sent => Ok(()),
            other => Err(other),
        })
        .await
    }

    /// Puts telemetry into the output, to leave with the next await; [`Self::next_event`] will tell of its acknowledgement.
    ///
    /// # Errors
    /// [`Unpublished::InFlightFull`] and [`Unpublished::OutputFull`] pass with the next acknowledgement.
    pub fn start_send(&mut self, message: &Draft) -> Result<PacketId, DeviceError> {
        let topic = self.telemetry_topic(message)?;
        let sent = self.link.publish(topic, message.body.clone(), QoS::AtLeastOnce)?;
        sent.ok_or(DeviceError::Unsent(Unpublished::NotConnected))
    }

    /// What the hub does next, however long it takes. Keeps the connection alive; dropping the future loses nothing.
    pub async fn next_event(&mut self) -> Result<DeviceEvent, DeviceError> {
        if let Some(event) = self.kept.pop_front() {
            return Ok(event);
        }
        loop {
            if let Incoming::Event(event) = read(self.link.next().await?)? {
                return Ok(event);
            }
        }
    }

    /// Reads the twin.
    pub async fn twin(&mut self) -> Result<Twin, DeviceError> {
        let answer = self.ask_twin("GET", Bytes::from_static(b" ")).await?;
        Twin::read(&answer.body)
    }

    /// Applies `patch` to the reported properties, and returns their version.
    pub async fn report(&mut self, patch: &Value) -> Result<u64, DeviceError> {
        let answer = self.ask_twin("PATCH/properties/reported", patch.to_string().into()).await?;
        answer.version.ok_or(DeviceError::Unreadable { what: "the reported properties" })
    }

    /// Asks to be told of changed desired properties.
    pub async fn subscribe_desired(&mut self) -> Result<(), DeviceError> {
        self.subscribe(DESIRED).await
    }

    /// The next change of desired properties, however long it takes. Acknowledgements that come before it are let pass.
    pub async fn desired(&mut self) -> Result<DesiredChange, DeviceError> {
        loop {
            if let DeviceEvent::Desired(change) = self.next_event().await? {
                return Ok(change);
            }
        }
    }

    /// Says goodbye.
    pub async fn disconnect(self) {
        self.link.close().await;
    }

    fn telemetry_topic(&self, message: &Draft) -> Result<Text, DeviceError> {
        let bag = property_bag::encode(&message.system, &message.properties);
        text("the properties", format!("devices/{}/messages/events/{bag}", self.device_id))
    }

    /// Publishes as soon as there is room.
    async fn publish(&mut self, topic: Text, body: &Bytes, qos: QoS) -> Result<Option<PacketId>, DeviceError> {
        loop {
            match self.link.publish(topic.clone(), body.clone(), qos) {
                Err(Unpublished::OutputFull) => self.link.flush().await?,
                Err(Unpublished::InFlightFull) => {
                    let Self { link, kept, .. } = self;
                    link.wait("the messages before it", |event| keep(kept, read(event)?).map(Some)).await?;
                }
                published => return Ok(published?),
            }
        }
    }

    async fn subscribe(&mut self, filter: &'static str) -> Result<(), DeviceError> {
        let subscription = self.link.subscribe(filter, QoS::AtLeastOnce)?;
        let codes = self.wait("the subscription", |incoming| match incoming {
            Incoming::Subscribed { packet_id, codes } if packet_id == subscription => Ok(codes),
            other => Err(other),
        });
        granted(filter, &codes.await?)
    }

    async fn ask_twin(&mut self, what: &str, body: Bytes) -> Result<TwinAnswer, DeviceError> {
        if !self.has_twin_answers {
            self.subscribe(TWIN_ANSWERS).await?;
            self.has_twin_answers = true;
        }
        self.requests += 1;
        let asked = self.requests;
        let topic = text("the request", format!("$iothub/twin/{what}/?$rid={asked}"))?;
        self.publish(topic, &body, QoS::AtMostOnce).await?;
        let answer = self.wait("the twin request", |incoming| match incoming {
            Incoming::TwinAnswer(answer) if answer.request_id == asked => Ok(answer),
            other => Err(other),
        });
        let answer = answer.await?;
        match answer.status {
            200..300 => Ok(answer),
            status => Err(DeviceError::Refused(Refused::read(status, &answer.body))),
        }
    }

    /// Waits for what `pick` takes, and keeps what belongs to others.
    async fn wait<T>(
        &mut self,
        what: &'static str,
        mut pick: impl FnMut(Incoming) -> Result<T, Incoming>,
    ) -> Result<T, DeviceError> {
        let Self { link, kept, .. } = self;
        link.wait(what, |event| match pick(read(event)?) {
            Ok(found) => Ok(Some(found)),
            Err(other) => keep(kept, other).map(|()| None),
        })
        .await
    }
}

impl fmt::Debug for DeviceClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceClient").field("device_id", &self.device_id).finish_non_exhaustive()
    }
}

fn keep(kept: &mut VecDeque<DeviceEvent>, incoming: Incoming) -> Result<(), DeviceError> {
    let Incoming::Event(event) = incoming else { return Ok(()) };
    if kept.len() >= EVENTS_KEPT_MAX {
        return Err(DeviceError::Overrun { kept: kept.len() });
    }
    kept.push_back(event);
    Ok(())
}

fn read(event: ClientEvent) -> Result<Incoming, DeviceError> {
    Ok(match event {
        ClientEvent::Acknowledged { packet_id } => Incoming::Event(DeviceEvent::Acknowledged(packet_id)),
        ClientEvent::Subscribed { packet_id, codes } => Incoming::Subscribed { packet_id, codes },
        ClientEvent::Message { message, .. } => read_message(&message)?,
        ClientEvent::Connected { .. } | ClientEvent::Unsubscribed { .. } | ClientEvent::Closed(_) => Incoming::Other,
    })
}

fn read_message(message: &Message) -> Result<Incoming, DeviceError> {
    if let Some(rest) = message.topic.strip_prefix("$iothub/twin/res/") {
        return Ok(read_twin_answer(rest, &message.payload).map_or(Incoming::Other, Incoming::TwinAnswer));
    }
    let Some(query) = message.topic.strip_prefix("$iothub/twin/PATCH/properties/desired/?") else {
        return Ok(Incoming::Other);
    };
    let unreadable = || DeviceError::Unreadable { what: "the subscription to desired properties" };
    let version = parameter(query, "$version").ok_or_else(unreadable)?;
    let properties = serde_json::from_slice(&message.payload).map_err(|_| unreadable())?;
    Ok(Incoming::Event(DeviceEvent::Desired(DesiredChange { version, properties })))
}

/// Reads `{status}/?$rid={rid}[&$version={v}]`; what nobody here asked for is `None`.
fn read_twin_answer(rest: &str, body: &Bytes) -> Option<TwinAnswer> {
    let (status, query) = rest.split_once("/?")?;
    Some(TwinAnswer {
        status: status.parse().ok()?,
        request_id: parameter(query, "$rid")?,
        version: parameter(query, "$version"),
        body: body.clone(),
    })
}

fn parameter(query: &str, name: &str) -> Option<u64> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| *key == name).and_then(|(_, value)| value.parse().ok())
}
