//! How a device asks over each transport, and the whole of what it hears.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use client::https::{Server, connect};
use client::trust::ClientCertificate;
use proto::mqtt::codec::decode;
use proto::mqtt::{Connack, Delivery, Filter, Packet, PacketId, Publish, QoS, Text};
use serde_json::Value;
use testkit::raw_http::{RawHttp, RawRequest};
use testkit::raw_mqtt::{self, Heard, RawMqtt, encoded};
use testkit::raw_websocket::{BINARY, RawWebSocket, masked};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::Question;
use crate::cases::{Case, Place};

/// Most bytes of a packet from the server.
const PACKET_BYTES_MAX: usize = 1 << 20;

/// Three ways to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Requests over HTTPS.
    Https,
    /// MQTT over TLS.
    Mqtt,
    /// MQTT over WebSocket.
    WebSocket,
}

/// All that came, with words in place of the tracking ID and the time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The status of HTTP; of MQTT, the packets in their order and whether the connection goes on.
    pub status: String,
    /// The headers, but for `date`; none over MQTT.
    pub headers: BTreeMap<String, String>,
    /// The body, byte for byte.
    pub body: String,
    /// What was replaced.
    pub tracking_id: Option<String>,
}

impl Answer {
    /// Takes out what differs between any two answers.
    fn new(status: String, headers: BTreeMap<String, String>, body: &[u8]) -> Self {
        let told = serde_json::from_slice::<Value>(body).unwrap_or_default();
        let mut answer = Self { status, headers, body: String::from_utf8(body.to_vec()).unwrap(), tracking_id: None };
        answer.headers.remove("date");
        for (member, word) in [("trackingId", "TRACKING"), ("timestampUtc", "TIME")] {
            let Some(found) = told[member].as_str().filter(|found| !found.is_empty()) else { continue };
            answer.body = answer.body.replace(found, word);
            answer.headers.values_mut().for_each(|value| *value = value.replace(found, word));
            if member == "trackingId" {
                answer.tracking_id = Some(found.to_owned());
            }
        }
        answer
    }
}

/// Asks once, over a connection of its own.
pub async fn ask(place: &Place, case: &Case, question: Question, transport: Transport) -> Answer {
    let shown = case.shown.clone().map(|shown| ClientCertificate { chain: shown.chain, key: shown.key });
    let muster = &place.muster;
    let port = if transport == Transport::Mqtt { muster.mqtts_port() } else { muster.https_port() };
    let server = Server { host: muster.device_host.clone(), port };
    let stream = connect(&muster.trust(shown).unwrap(), &server).await.unwrap();
    match transport {
        Transport::Https => over_https(place, case, question, stream).await,
        Transport::Mqtt => over_mqtt(place, case, question, Line::Bare(RawMqtt::new(stream))).await,
        Transport::WebSocket => over_mqtt(place, case, question, upgrade(&muster.device_host, stream).await).await,
    }
}

async fn over_https(place: &Place, case: &Case, question: Question, stream: TlsStream<TcpStream>) -> Answer {
    let path = format!("/{}/registrations/{}", place.muster.id_scope, case.id);
    let (method, path, body) = match question {
        Question::Register => ("PUT", format!("{path}/register"), format!(r#"{{"registrationId":"{}"}}"#, case.id)),
        Question::Poll => ("GET", format!("{path}/operations/nothing"), String::new()),
        Question::LookUp => ("POST", path, format!(r#"{{"registrationId":"{}"}}"#, case.id)),
    };
    let mut headers = vec![("Host", &*place.muster.device_host), ("Content-Type", "application/json; charset=utf-8")];
    headers.extend(case.token.iter().map(|token| ("Authorization", &**token)));
    let request = RawRequest {
        method: method.to_owned(),
        target: format!("{path}?api-version=2021-06-01"),
        headers: headers.into_iter().map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())).collect(),
        body: body.into_bytes(),
    };
    let answer = RawHttp::new(stream).exchange(&request).await.unwrap();
    Answer::new(answer.status.to_string(), answer.headers.into_iter().collect(), &answer.body)
}

/// A connection that MQTT is spoken over.
enum Line {
    Bare(RawMqtt<TlsStream<TcpStream>>),
    WebSocket(RawWebSocket<TlsStream<TcpStream>>, BytesMut),
}

impl Line {
    async fn say(&mut self, packet: &Packet) {
        match self {
            Self::Bare(mqtt) => mqtt.say(packet).await,
            Self::WebSocket(socket, _) => socket.send(&masked(BINARY, &encoded(packet))).await,
        }
    }

    async fn hear(&mut self) -> Heard {
        let (socket, received) = match self {
            Self::Bare(mqtt) => return mqtt.hear().await,
            Self::WebSocket(socket, received) => (socket, received),
        };
        loop {
            match decode(received, PACKET_BYTES_MAX) {
                Ok(Some(packet)) => return Heard::Packet(packet),
                Ok(None) => {}
                Err(_) => return Heard::Malformed,
            }
            match socket.hear_binary().await {
                Some(payload) => received.extend_from_slice(&payload),
                None => return Heard::Closed,
            }
        }
    }
}

async fn upgrade(host: &str, stream: TlsStream<TcpStream>) -> Line {
    let opening = format!(
        "GET /$iothub/websocket HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Protocol: mqtt\r\n\r\n"
    );
    let (status, socket) = RawWebSocket::open(stream, &opening).await;
    Line::WebSocket(socket.unwrap_or_else(|| panic!("the WebSocket is refused: {status:?}")), BytesMut::new())
}

async fn over_mqtt(place: &Place, case: &Case, question: Question, mut line: Line) -> Answer {
    let username = format!("{}/registrations/{}/api-version=2019-03-31", place.muster.id_scope, case.id);
    let mut connect = raw_mqtt::connect(case.id, &username, case.token.as_deref().unwrap_or_default()).unwrap();
    connect.password = connect.password.filter(|password| !password.is_empty());
    line.say(&Packet::Connect(Box::new(connect))).await;
    if let Heard::Packet(Packet::Connack(Connack::Refused(refusal))) = line.hear().await {
        assert_eq!(line.hear().await, Heard::Closed);
        return Answer { status: format!("CONNACK {}, closed", refusal as u8), ..Answer::default() };
    }
    let filters = vec![Filter { topic: text("$dps/registrations/res/#"), qos: QoS::AtLeastOnce }];
    line.say(&Packet::Subscribe { packet_id: PacketId::new(1).unwrap(), filters }).await;
    assert!(matches!(line.hear().await, Heard::Packet(Packet::Suback { .. })), "{}", case.name);
    let (topic, payload) = match question {
        Question::Register => {
            ("PUT/iotdps-register/?$rid=1", Bytes::from(format!(r#"{{"registrationId":"{}"}}"#, case.id)))
        }
        _ => ("GET/iotdps-get-operationstatus/?$rid=1&operationId=nothing", Bytes::new()),
    };
    let topic = text(&format!("$dps/registrations/{topic}"));
    let delivery = Delivery::AtLeastOnce(PacketId::new(2).unwrap());
    line.say(&Packet::Publish(Publish { topic, payload, delivery, retain: false, dup: false })).await;
    hear_reply(&mut line).await
}

/// The acknowledgement and the reply, in whichever order, and whether the connection goes on after them.
async fn hear_reply(line: &mut Line) -> Answer {
    let (mut words, mut body) = (Vec::new(), Bytes::new());
    while words.len() < 2 {
        match line.hear().await {
            Heard::Packet(Packet::Puback(_)) => words.push("puback".to_owned()),
            Heard::Packet(Packet::Publish(publish)) => {
                let Publish { topic, payload, delivery, retain, dup } = publish;
                let Delivery::AtLeastOnce(id) = delivery else { panic!("an answer at {delivery:?}") };
                assert!(!retain && !dup, "neither kept nor repeated");
                words.push(format!("PUBLISH {} at least once", &*topic));
                body = payload;
                line.say(&Packet::Puback(Some(id))).await;
            }
            other => panic!("no answer: {other:?}"),
        }
    }
    // The reply needs a turn of the use cases, and either may come first.
    words.sort();
    line.say(&Packet::Pingreq).await;
    words.push(if line.hear().await == Heard::Packet(Packet::Pingresp) { "goes on" } else { "ends" }.to_owned());
    Answer::new(words.join(", "), BTreeMap::new(), &body)
}

fn text(text: &str) -> Text {
    Text::try_from(text.to_owned()).unwrap()
}
