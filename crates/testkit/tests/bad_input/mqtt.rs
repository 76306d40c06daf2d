//! MQTT as no client speaks it, over a real socket: what each fault leads to, and that nobody else is disturbed.
//!
//! Two devices, one at the hub and one at the provisioning service, stay connected through every case and are heard
//! after each. Start at [`whatever_is_sent_ends_at_most_the_connection_it_came_over`].

use std::time::Duration;

use bytes::Bytes;
use domain::sas::{SasToken, SymmetricKey};
use proto::mqtt::{Delivery, Filter, Packet, PacketId, Publish, QoS, Text};
use testkit::raw_mqtt::{RawMqtt, connect, encoded};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::ground::{DEVICE_KEY, Ground, REGISTERED, Scene};
use crate::table::Table;

/// How long tokens hold.
const TOKEN_LIFETIME: Duration = Duration::from_secs(3_600);
/// The device that goes on all the time.
const GOOD: &str = "keyed";
/// The device that misbehaves.
pub const BAD: &str = "fresh";
/// Its telemetry topic.
const TELEMETRY: &str = "devices/fresh/messages/events/";
/// Longer than any packet that is taken.
const LONG_BYTES: usize = 300 * 1_024;

type Client = RawMqtt<TlsStream<TcpStream>>;

/// Before a CONNECT, or instead of one: what is sent, and what comes.
pub fn openings() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let publish = packet(&publish(TELEMETRY, Delivery::AtMostOnce));
    vec![
        ("PUBLISH first", publish, "closed"),
        ("SUBSCRIBE first", packet(&subscribe("#")), "closed"),
        ("PINGREQ first", packet(&Packet::Pingreq), "closed"),
        ("DISCONNECT first", packet(&Packet::Disconnect), "closed"),
        ("a server's packet first", packet(&Packet::Pingresp), "closed"),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: h\r\n\r\n".to_vec(), "closed"),
        ("AMQP", b"AMQP\x03\x01\x00\x00".to_vec(), "closed"),
        ("zeros", vec![0; 64], "closed"),
        ("ones", vec![0xff; 64], "closed"),
        ("a length of five bytes", vec![0x10, 0xff, 0xff, 0xff, 0xff, 0x01], "closed"),
        ("a length of a quarter of a gigabyte", vec![0x10, 0xff, 0xff, 0xff, 0x7f], "closed"),
        ("a length over that of any CONNECT", vec![0x10, 0x81, 0x80, 0x01], "closed"),
        ("a length that is too short", vec![0x10, 0x04, 0x00, 0x04, b'M', b'Q', b'T', b'T'], "closed"),
        ("a text beyond the packet", vec![0x10, 0x06, 0xff, 0xff, b'M', b'Q', b'T', b'T'], "closed"),
        ("another protocol", b"\x10\x0c\0\x04MQTX\x04\x02\0\x3c\0\0".to_vec(), "refused 1, closed"),
        ("MQTT 5", b"\x10\x0d\0\x04MQTT\x05\x02\0\x3c\0\0\0".to_vec(), "not MQTT 3.1.1"),
        ("a reserved flag", b"\x10\x0c\0\x04MQTT\x04\x03\0\x3c\0\0".to_vec(), "closed"),
        ("a password without a user name", b"\x10\x0f\0\x04MQTT\x04\x42\0\x3c\0\0\0\x01p".to_vec(), "closed"),
        ("a will of QoS 3", b"\x10\x12\0\x04MQTT\x04\x1e\0\x3c\0\0\0\x01t\0\x01w".to_vec(), "closed"),
        ("a client ID that is not UTF-8", b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01\xff".to_vec(), "closed"),
        ("a client ID with a null", b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01\0".to_vec(), "closed"),
        ("no user name", b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01d".to_vec(), "refused 4, closed"),
    ]
}

/// User names, with `{hub}` and `{scope}` in place of the resource, and what comes. The token is good for the device
/// [`BAD`] and the registration [`REGISTERED`].
const USER_NAMES: &[(&str, &str, &str, &str)] = &[
    ("at the hub", BAD, "{hub}/fresh/?api-version=2021-04-12", "accepted, goes on"),
    ("another client ID", "other", "{hub}/fresh/?api-version=2021-04-12", "refused 5, closed"),
    ("another device", GOOD, "{hub}/keyed/?api-version=2021-04-12", "refused 5, closed"),
    ("a slash in the device ID", "fresh/x", "{hub}/fresh/x/?api-version=2021-04-12", "refused 5, closed"),
    ("an encoded slash", "fresh%2Fx", "{hub}/fresh%2Fx/?api-version=2021-04-12", "refused 5, closed"),
    (
        "a control character in the device ID",
        "fresh\u{7}",
        "{hub}/fresh\u{7}/?api-version=2021-04-12",
        "refused 5, closed",
    ),
    ("a long device ID", "fresh", "{hub}/{long}/?api-version=2021-04-12", "refused 5, closed"),
    ("two dots", "..", "{hub}/../?api-version=2021-04-12", "refused 5, closed"),
    ("no device", "", "{hub}//?api-version=2021-04-12", "refused 4, closed"),
    ("no slash", BAD, "fresh", "refused 4, closed"),
    ("another hub", BAD, "127.0.0.99/fresh/?api-version=2021-04-12", "refused 5, closed"),
    (
        "at the provisioning service",
        REGISTERED,
        "{scope}/registrations/registered/api-version=2019-03-31",
        "accepted, goes on",
    ),
    ("a wildcard for a registration ID", "+", "{scope}/registrations/+/api-version=2019-03-31", "refused 2, closed"),
    ("another wildcard", "#", "{scope}/registrations/#/api-version=2019-03-31", "refused 2, closed"),
    (
        "a wildcard within",
        "registered#",
        "{scope}/registrations/registered#/api-version=2019-03-31",
        "refused 2, closed",
    ),
    ("a slash in the registration ID", "a/b", "{scope}/registrations/a/b/api-version=2019-03-31", "refused 2, closed"),
    ("a control character", "a\u{7}", "{scope}/registrations/a\u{7}/api-version=2019-03-31", "refused 2, closed"),
    ("no version", REGISTERED, "{scope}/registrations/registered/", "refused 4, closed"),
    ("no registration ID", "", "{scope}/registrations//api-version=2019-03-31", "refused 2, closed"),
];

/// After a good CONNECT at the hub.
pub fn faults_at_the_hub() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let one = PacketId::new(1).unwrap();
    let topic = |topic| packet(&publish(topic, Delivery::AtLeastOnce(one)));
    vec![
        ("telemetry", topic(TELEMETRY), "puback, goes on"),
        ("another device's topic", topic("devices/keyed/messages/events/"), "closed"),
        ("a device whose name begins alike", topic("devices/fresh2/messages/events/"), "closed"),
        ("a module's topic", topic("devices/fresh/modules/part/messages/events/"), "closed"),
        ("a wildcard for a device", topic("devices/+/messages/events/"), "closed"),
        ("the direction of the hub", topic("devices/fresh/messages/devicebound/"), "closed"),
        ("a topic of provisioning", topic("$dps/registrations/PUT/iotdps-register/?$rid=1"), "closed"),
        ("an unknown topic", topic("some/topic"), "closed"),
        ("an unknown topic of the hub", topic("$iothub/unknown/?$rid=1"), "closed"),
        ("a twin request without an ID", topic("$iothub/twin/GET/"), "closed"),
        ("QoS 2", packet(&publish(TELEMETRY, Delivery::ExactlyOnce(one))), "closed"),
        ("QoS 3", vec![0x36, 0x05, 0x00, 0x01, b't', 0x00, 0x01], "closed"),
        ("an empty topic", vec![0x30, 0x02, 0x00, 0x00], "closed"),
        ("a topic with a null", vec![0x30, 0x03, 0x00, 0x01, 0x00], "closed"),
        ("a topic that is not UTF-8", vec![0x30, 0x03, 0x00, 0x01, 0xff], "closed"),
        ("a topic beyond the packet", vec![0x30, 0x03, 0x00, 0xff, b't'], "closed"),
        ("a packet ID of zero", vec![0x32, 0x05, 0x00, 0x01, b't', 0x00, 0x00], "closed"),
        ("a packet over the limit", packet(&long_publish()), "closed"),
        ("an unknown filter", packet(&subscribe("some/#")), "suback 128, goes on"),
        ("everything", packet(&subscribe("#")), "suback 128, goes on"),
        ("everybody", packet(&subscribe("devices/+/messages/devicebound/#")), "suback 128, goes on"),
        ("another device", packet(&subscribe("devices/keyed/messages/devicebound/#")), "suback 128, goes on"),
        ("QoS 2 of its own", packet(&subscribe("devices/fresh/messages/devicebound/#")), "suback 1, goes on"),
        ("no filter", vec![0x82, 0x02, 0x00, 0x01], "closed"),
        ("a filter of QoS 3", vec![0x82, 0x06, 0x00, 0x01, 0x00, 0x01, b'#', 0x03], "closed"),
        ("a reserved flag", vec![0x80, 0x06, 0x00, 0x01, 0x00, 0x01, b'#', 0x00], "closed"),
        ("a filter that was never granted", packet(&unsubscribe("some/#")), "unsuback, goes on"),
        ("an acknowledgement of nothing", packet(&Packet::Puback(Some(one))), "goes on"),
        ("the end of QoS 2", packet(&Packet::Pubrel(one)), "closed"),
        ("a server's packet", packet(&Packet::Unsuback(one)), "closed"),
        ("a second CONNECT", packet(&Packet::Connect(Box::new(connect(BAD, "h/fresh/", "").unwrap()))), "closed"),
        ("a reserved type", vec![0x00, 0x00], "closed"),
        ("another reserved type", vec![0xf0, 0x00], "closed"),
        ("a length of five bytes", vec![0x30, 0xff, 0xff, 0xff, 0xff, 0x01], "closed"),
    ]
}

/// After a good CONNECT at the provisioning service.
fn faults_at_provisioning() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let one = PacketId::new(1).unwrap();
    let topic = |topic| packet(&publish(topic, Delivery::AtLeastOnce(one)));
    vec![
        ("telemetry", topic("devices/registered/messages/events/"), "closed"),
        ("a registration without an ID", topic("$dps/registrations/PUT/iotdps-register/"), "closed"),
        ("an unknown verb", topic("$dps/registrations/DELETE/iotdps-register/?$rid=1"), "closed"),
        ("the direction of the service", topic("$dps/registrations/res/200/?$rid=1"), "closed"),
        (
            "QoS 2",
            packet(&publish("$dps/registrations/PUT/iotdps-register/?$rid=1", Delivery::ExactlyOnce(one))),
            "closed",
        ),
        ("an unknown filter", packet(&subscribe("$dps/registrations/res/+")), "suback 128, goes on"),
        ("everything", packet(&subscribe("#")), "suback 128, goes on"),
        ("a filter of the hub", packet(&subscribe("$iothub/twin/res/#")), "suback 128, goes on"),
        ("QoS 2 of its own", packet(&subscribe("$dps/registrations/res/#")), "suback 1, goes on"),
        ("a packet over the limit", packet(&long_publish()), "closed"),
    ]
}

fn packet(packet: &Packet) -> Vec<u8> {
    encoded(packet)
}

fn text(text: &str) -> Text {
    Text::try_from(text.to_owned()).unwrap()
}

fn publish(topic: &str, delivery: Delivery) -> Packet {
    let payload = Bytes::from_static(b"{}");
    Packet::Publish(Publish { topic: text(topic), payload, delivery, retain: false, dup: false })
}

fn long_publish() -> Packet {
    let payload = vec![0; LONG_BYTES].into();
    let delivery = Delivery::AtMostOnce;
    Packet::Publish(Publish { topic: text(TELEMETRY), payload, delivery, retain: false, dup: false })
}

fn subscribe(filter: &str) -> Packet {
    let filters = vec![Filter { topic: text(filter), qos: QoS::ExactlyOnce }];
    Packet::Subscribe { packet_id: PacketId::new(1).unwrap(), filters }
}

fn unsubscribe(filter: &str) -> Packet {
    Packet::Unsubscribe { packet_id: PacketId::new(1).unwrap(), filters: vec![text(filter)] }
}

/// A Muster, and the two devices that go on.
pub struct Stage {
    /// The Muster.
    pub ground: Ground,
    at_hub: Client,
    at_provisioning: Client,
}

impl Stage {
    /// Starts the Muster, and connects the two.
    pub async fn set() -> Self {
        let mut ground = Ground::start().await;
        let registry = Table::read("hub-registry");
        let devices = vec![registry.entity("keyed device"), registry.entity("fresh device")];
        let enrollment = Table::read("provisioning-device").entity("registered enrollment");
        let given = devices.into_iter().chain([enrollment]).collect();
        ground.prepare(&Scene { given, ..Scene::default() }).await;
        let at_hub = open_at_hub(&ground, GOOD).await;
        let at_provisioning = open_at_provisioning(&ground).await;
        Self { ground, at_hub, at_provisioning }
    }

    /// Both devices are heard.
    pub async fn check(&mut self, case: &str) {
        let topic = format!("devices/{GOOD}/messages/events/");
        let telemetry = packet(&publish(&topic, Delivery::AtLeastOnce(PacketId::new(7).unwrap())));
        assert_eq!(self.at_hub.provoke(&telemetry).await, "puback, goes on", "after {case}");
        assert_eq!(self.at_provisioning.provoke(&[]).await, "goes on", "after {case}");
    }

    /// Ends everything.
    pub async fn strike(self) {
        drop((self.at_hub, self.at_provisioning));
        self.ground.stop().await;
    }

    /// Tries every case on a connection of its own.
    async fn try_all<O: AsyncFn(&Ground) -> Client>(
        &mut self,
        cases: Vec<(&'static str, Vec<u8>, &'static str)>,
        open: O,
        wrong: &mut Vec<String>,
    ) {
        for (case, bytes, expected) in cases {
            let mut client = open(&self.ground).await;
            let found = client.provoke(&bytes).await;
            if found != expected {
                wrong.push(format!("{case}: {found}, not {expected}"));
            }
            self.check(case).await;
        }
    }
}

async fn dial_hub(ground: &Ground) -> Client {
    RawMqtt::new(ground.muster().dial_mqtt(&ground.muster().hub.host).await.unwrap())
}

async fn dial_provisioning(ground: &Ground) -> Client {
    RawMqtt::new(ground.muster().dial_mqtt(&ground.muster().device_host).await.unwrap())
}

async fn open_at_hub(ground: &Ground, device: &str) -> Client {
    let mut client = dial_hub(ground).await;
    assert_eq!(client.provoke(&introduction(ground, device)).await, "accepted, goes on", "{device}");
    client
}

/// The CONNECT that lets `device` in at the hub.
pub fn introduction(ground: &Ground, device: &str) -> Vec<u8> {
    let username = filled(ground, &format!("{{hub}}/{device}/?api-version=2021-04-12"));
    let connect = connect(device, &username, &hub_token(ground, device)).unwrap();
    packet(&Packet::Connect(Box::new(connect)))
}

async fn open_at_provisioning(ground: &Ground) -> Client {
    let mut client = dial_provisioning(ground).await;
    let username = filled(ground, "{scope}/registrations/registered/api-version=2019-03-31");
    let token = ground.tokens(crate::table::Api::ProvisioningDevice).good;
    let connect = Packet::Connect(Box::new(connect(REGISTERED, &username, &token).unwrap()));
    assert_eq!(client.provoke(&packet(&connect)).await, "accepted, goes on", "{username}");
    client
}

fn filled(ground: &Ground, username: &str) -> String {
    let username = username.replace("{hub}", &ground.muster().hub.host).replace("{long}", &"d".repeat(129));
    username.replace("{scope}", &ground.muster().id_scope)
}

fn hub_token(ground: &Ground, device: &str) -> String {
    let key = SymmetricKey::from_bytes(&DEVICE_KEY).unwrap();
    let ends = ground.muster().clock().now().plus(TOKEN_LIFETIME);
    SasToken::write(&key, &format!("{}%2Fdevices%2F{device}", ground.muster().hub.host), None, ends)
}

#[tokio::test]
async fn whatever_is_sent_ends_at_most_the_connection_it_came_over() {
    let mut stage = Stage::set().await;
    let mut wrong = Vec::new();
    stage.try_all(openings(), dial_hub, &mut wrong).await;
    stage.try_all(openings(), dial_provisioning, &mut wrong).await;
    stage.try_all(faults_at_the_hub(), async |ground| open_at_hub(ground, BAD).await, &mut wrong).await;
    stage.try_all(faults_at_provisioning(), open_at_provisioning, &mut wrong).await;
    for (case, client_id, username, expected) in USER_NAMES {
        let is_hub = !username.starts_with("{scope}");
        let provisioning = || stage.ground.tokens(crate::table::Api::ProvisioningDevice).good;
        let token = if is_hub { hub_token(&stage.ground, BAD) } else { provisioning() };
        let mut client = if is_hub { dial_hub(&stage.ground).await } else { dial_provisioning(&stage.ground).await };
        let username = filled(&stage.ground, username);
        let connect = Packet::Connect(Box::new(connect(client_id, &username, &token).unwrap()));
        let found = client.provoke(&packet(&connect)).await;
        if found != *expected {
            wrong.push(format!("{case}: {found}, not {expected}"));
        }
        stage.check(case).await;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    stage.strike().await;
}
