//! One MQTT connection of a client.

use bytes::Bytes;
use proto::mqtt::{
    ClientConnection, ClientEvent, Connect, Filter, Message, PacketId, QoS, SubackCode, Text, Unpublished,
};
use tokio::time::{Instant, timeout};

use super::{ANSWER_TIMEOUT, CONNECT_TIMEOUT, Credential, DeviceError, Dial};
use crate::driver::{Driver, in_time, machine};
use crate::wire::Wire;

/// An open MQTT connection. Dropping it closes the socket without a goodbye.
pub(super) struct Link(Driver<ClientConnection>);

machine!(ClientConnection, ClientEvent, |connection: &mut Self, bytes: &[u8], _| connection.handle_input(bytes));

/// Who connects.
pub(super) struct Introduction<'a> {
    pub(super) client_id: &'a str,
    pub(super) username: String,
    pub(super) password: Option<String>,
}

impl Link {
    /// Connects and waits for the CONNACK. The second part tells whether the server kept a session.
    pub(super) async fn open(
        dial: &Dial,
        credential: &Credential,
        introduction: Introduction<'_>,
    ) -> Result<(Self, bool), DeviceError> {
        let connect = Connect {
            client_id: text("the name", introduction.client_id.to_owned())?,
            clean_session: dial.mqtt.clean_session,
            keep_alive_s: dial.mqtt.keep_alive_s,
            will: None,
            username: Some(text("the user name", introduction.username)?),
            password: introduction.password.map(Bytes::from),
        };
        let opening = async {
            let wire = dial.connect(&credential.tls).await?;
            Self::introduce(wire, dial, connect).await
        };
        let opened = timeout(CONNECT_TIMEOUT, opening).await;
        opened.unwrap_or(Err(DeviceError::Timeout { what: "the connection", after: CONNECT_TIMEOUT }))
    }

    pub(super) async fn introduce(wire: Wire, dial: &Dial, connect: Connect) -> Result<(Self, bool), DeviceError> {
        let connection = ClientConnection::new(dial.mqtt.limits.clone(), connect, Instant::now().into_std());
        let connection = connection.map_err(|_| DeviceError::Oversized)?;
        let mut link = Self(Driver::new(wire, connection));
        match link.next().await? {
            ClientEvent::Connected { session_present } => Ok((link, session_present)),
            _ => Err(DeviceError::Unreadable { what: "the connection" }),
        }
    }

    /// What the server does next. Writes, reads and keeps the connection alive meanwhile; dropping the future loses
    /// nothing.
    pub(super) async fn next(&mut self) -> Result<ClientEvent, DeviceError> {
        match self.0.next().await? {
            Some(ClientEvent::Closed(reason)) => Err(DeviceError::Closed(reason)),
            Some(event) => Ok(event),
            None => Err(Unpublished::NotConnected.into()),
        }
    }

    /// Takes events until `pick` finds what is waited for.
    pub(super) async fn wait<T>(
        &mut self,
        what: &'static str,
        mut pick: impl FnMut(ClientEvent) -> Result<Option<T>, DeviceError>,
    ) -> Result<T, DeviceError> {
        let waiting = async {
            loop {
                if let Some(found) = pick(self.next().await?)? {
                    return Ok(found);
                }
            }
        };
        in_time(what, ANSWER_TIMEOUT, waiting).await
    }

    /// Puts a message into the output; it leaves with the next await.
    pub(super) fn publish(&mut self, topic: Text, payload: Bytes, qos: QoS) -> Result<Option<PacketId>, Unpublished> {
        self.0.machine.publish(&Message::new(topic, payload, qos))
    }

    /// How many messages and requests the server has not answered.
    pub(super) fn in_flight(&self) -> usize {
        self.0.machine.in_flight()
    }

    /// Asks for messages; [`granted`] reads the answer.
    pub(super) fn subscribe(&mut self, filter: &'static str, qos: QoS) -> Result<PacketId, DeviceError> {
        let topic = Text::try_from(filter).map_err(|source| DeviceError::Text { what: "a filter", source })?;
        Ok(self.0.machine.subscribe(vec![Filter { topic, qos }])?)
    }

    /// Writes all output.
    pub(super) async fn flush(&mut self) -> Result<(), DeviceError> {
        Ok(self.0.flush().await?)
    }

    /// Says goodbye and waits for the server to close, which it does at once (`contract/dps-device.md 3.6`). A goodbye
    /// that fails changes nothing for anybody.
    pub(super) async fn close(mut self) {
        self.0.machine.disconnect();
        self.0.close().await;
    }
}

/// Whether the server granted what [`Link::subscribe`] asked for.
pub(super) fn granted(filter: &'static str, codes: &[SubackCode]) -> Result<(), DeviceError> {
    match codes {
        [SubackCode::Granted(_)] => Ok(()),
        _ => Err(DeviceError::NotGranted { filter }),
    }
}

/// `text` as MQTT carries it.
pub(super) fn text(what: &'static str, text: String) -> Result<Text, DeviceError> {
    Text::try_from(text).map_err(|source| DeviceError::Text { what, source })
}
