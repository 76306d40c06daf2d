//! A device's telemetry over MQTT, one message at a time: between a PUBLISH and its PUBACK the server writes nothing
//! else to the socket.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use client::https::connect;
use proto::mqtt::{ClientConnection, ClientEvent, ClientLimits, Connect, Message, QoS, Text};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::journal::Ends;
use crate::server::Door;
use crate::trouble::{During as _, Result, Trouble};

/// Time for one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes read at once.
const READ_BYTES: usize = 4 << 10;

/// A connected device.
pub struct Device {
    stream: TlsStream<TcpStream>,
    connection: ClientConnection,
    topic: Text,
}

impl Device {
    /// Connects `device` to `host` with `token` as its password.
    pub async fn connect(door: &Door, host: &str, device: &str, token: String) -> Result<Self> {
        let text = |text: String| Text::parse(Bytes::from(text));
        let introduction = Connect {
            client_id: text(device.to_owned())?,
            clean_session: true,
            // No pings: nothing but acknowledgements is to be written.
            keep_alive_s: 0,
            will: None,
            username: Some(text(format!("{host}/{device}/?api-version=2021-04-12"))?),
            password: Some(Bytes::from(token)),
        };
        let topic = text(format!("devices/{device}/messages/events/"))?;
        let stream = timeout(ANSWER_TIMEOUT, connect(&door.tls, &door.mqtts(host))).await??;
        let connection = ClientConnection::new(Arc::new(ClientLimits::default()), introduction, Instant::now())?;
        let mut device = Self { stream, connection, topic };
        match device.next().await? {
            ClientEvent::Connected { .. } => Ok(device),
            other => Err(Trouble::new(format!("the hub did not accept the device: {other:?}"))),
        }
    }

    /// Both ends of the connection.
    pub fn ends(&self) -> Result<Ends> {
        Ends::of(self.stream.get_ref().0)
    }

    /// Sends a message and waits for its PUBACK.
    pub async fn send(&mut self, body: String) -> Result<()> {
        let message = Message {
            topic: self.topic.clone(),
            payload: Bytes::from(body),
            qos: QoS::AtLeastOnce,
            retain: false,
            dup: false,
        };
        let sent = self.connection.publish(&message)?;
        match self.next().await? {
            ClientEvent::Acknowledged { packet_id } if Some(packet_id) == sent => Ok(()),
            other => Err(Trouble::new(format!("instead of a PUBACK came {other:?}"))),
        }
    }

    async fn next(&mut self) -> Result<ClientEvent> {
        timeout(ANSWER_TIMEOUT, self.drive()).await.during("waiting for the hub")?
    }

    /// Writes what is to be written, and reads until something happens.
    async fn drive(&mut self) -> Result<ClientEvent> {
        loop {
            let pending = self.connection.output().len();
            if pending > 0 {
                self.stream.write_all(self.connection.output()).await?;
                self.stream.flush().await?;
                self.connection.handle_written(pending, Instant::now());
            }
            if let Some(event) = self.connection.poll_event() {
                return Ok(event);
            }
            let mut received = Vec::with_capacity(READ_BYTES);
            match self.stream.read_buf(&mut received).await? {
                0 => self.connection.handle_eof(),
                _ => self.connection.handle_input(&received),
            }
        }
    }
}
