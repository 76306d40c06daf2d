//! MQTT as bytes: packets that no client library would send, and what comes back.
//!
//! Writes what it is given, byte for byte; what comes back is read by the product's codec, which has an oracle of its
//! own. Start at [`RawMqtt::provoke`].

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use proto::mqtt::codec::{decode, encode};
use proto::mqtt::{Connack, Connect, Delivery, Packet, SubackCode, Text};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

/// Longer than any answer takes that comes.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Most bytes of a packet from the server.
const PACKET_BYTES_MAX: usize = 1 << 20;

/// What the server did.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    /// It said something.
    Packet(Packet),
    /// It ended the connection.
    Closed,
    /// Nothing for [`PATIENCE`].
    Silence,
    /// What it said is no MQTT.
    Malformed,
}

/// One connection.
pub struct RawMqtt<S> {
    stream: S,
    received: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin> RawMqtt<S> {
    /// Speaks over `stream`.
    pub fn new(stream: S) -> Self {
        Self { stream, received: BytesMut::new() }
    }

    /// Sends `bytes`, whatever they are. A server that has closed already is no error: hearing will show it.
    pub async fn send(&mut self, bytes: &[u8]) {
        if self.stream.write_all(bytes).await.is_ok() {
            let _ = self.stream.flush().await;
        }
    }

    /// Sends a packet.
    pub async fn say(&mut self, packet: &Packet) {
        self.send(&encoded(packet)).await;
    }

    /// Says that nothing more will come.
    pub async fn end(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// What the server does next.
    pub async fn hear(&mut self) -> Heard {
        timeout(PATIENCE, self.next()).await.unwrap_or(Heard::Silence)
    }

    async fn next(&mut self) -> Heard {
        loop {
            match decode(&mut self.received, PACKET_BYTES_MAX) {
                Ok(Some(packet)) => return Heard::Packet(packet),
                Ok(None) => {}
                Err(_) => return Heard::Malformed,
            }
            match self.stream.read_buf(&mut self.received).await {
                Ok(0) | Err(_) => return Heard::Closed,
                Ok(_) => {}
            }
        }
    }

    /// Sends `bytes` and tells in words what comes, up to the end, or until the server has shown that it goes on.
    ///
    /// Pings overtake what waits, so that they are sent behind the answer to a packet that has one; and the first of them
    /// may be answered before the bytes before it are judged.
    pub async fn provoke(&mut self, bytes: &[u8]) -> String {
        const PINGS: usize = 2;

        self.send(bytes).await;
        let mut words = Vec::new();
        if is_answered(bytes) {
            let heard = self.hear().await;
            words.push(word(&heard));
            if !matches!(heard, Heard::Packet(_)) {
                return words.join(", ");
            }
        }
        let mut pings = 0;
        while pings < PINGS {
            self.say(&Packet::Pingreq).await;
            loop {
                match self.hear().await {
                    Heard::Packet(Packet::Pingresp) => break,
                    Heard::Packet(packet) => words.push(word(&Heard::Packet(packet))),
                    end => {
                        words.push(word(&end));
                        return words.join(", ");
                    }
                }
            }
            pings += 1;
        }
        words.push("goes on".to_owned());
        words.join(", ")
    }
}

/// Whether `bytes` are a packet that is answered, unless it ends the connection.
fn is_answered(bytes: &[u8]) -> bool {
    match decode(&mut BytesMut::from(bytes), PACKET_BYTES_MAX) {
        Ok(Some(Packet::Publish(publish))) => matches!(publish.delivery, Delivery::AtLeastOnce(_)),
        Ok(Some(Packet::Connect(_) | Packet::Subscribe { .. } | Packet::Unsubscribe { .. })) => true,
        _ => false,
    }
}

/// What was heard, in words.
fn word(heard: &Heard) -> String {
    let packet = match heard {
        Heard::Packet(packet) => packet,
        Heard::Closed => return "closed".to_owned(),
        Heard::Silence => return "silence".to_owned(),
        Heard::Malformed => return "not MQTT 3.1.1".to_owned(),
    };
    match packet {
        Packet::Connack(Connack::Accepted { .. }) => "accepted".to_owned(),
        Packet::Connack(Connack::Refused(refusal)) => format!("refused {}", *refusal as u8),
        Packet::Suback { codes, .. } => {
            let code = |code: &SubackCode| match code {
                SubackCode::Failure => "128".to_owned(),
                SubackCode::Granted(qos) => (*qos as u8).to_string(),
            };
            format!("suback {}", codes.iter().map(code).collect::<Vec<_>>().join(" "))
        }
        Packet::Publish(publish) => {
            publish.topic.split_once('?').map_or(&*publish.topic, |(topic, _)| topic).to_owned()
        }
        other => format!("{:?}", other.packet_type()).to_lowercase(),
    }
}

/// A packet's bytes.
///
/// # Panics
/// When the packet is longer than any can be.
pub fn encoded(packet: &Packet) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(packet, &mut bytes).expect("a packet that is not too long");
    bytes
}

/// A CONNECT as SDKs send it. Texts that MQTT forbids cannot be written so.
pub fn connect(client_id: &str, username: &str, password: &str) -> Result<Connect, io::Error> {
    let text = |text: &str| Text::try_from(text.to_owned()).map_err(io::Error::other);
    Ok(Connect {
        client_id: text(client_id)?,
        clean_session: true,
        keep_alive_s: 60,
        will: None,
        username: Some(text(username)?),
        password: Some(Bytes::copy_from_slice(password.as_bytes())),
    })
}
