//! What devices that share an AMQP connection to a hub may count on, and what comes of clients that do not play by the
//! rules.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use domain::clock::{Clock as _, ManualClock};
use domain::sas::{SasToken, SymmetricKey};
use http::Method;
use proto::amqp::frame::{FrameType, encode_frame};
use proto::amqp::{
    Body, CloseReason, Delivery, DeliveryState, Error, Event, Limits, LinkId, LinkTerms, Map, Message, MessageId,
    Outgoing, Performative, Properties, ReceiverSettleMode, Role, SessionId, Settlement, Source, Target, Transfer,
    Value,
};
use proto::mqtt::{Connack, Connect, Packet};
use serde_json::json;
use server::serve::RimLimits;
use server::shutdown::Drained;
use service::clock::SystemClock;
use testkit::amqp_client::{AmqpClient, PATIENCE};
use testkit::raw_mqtt::Heard;
use testkit::whole::Muster;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::ground::{
    DEVICE, ask_registry, create_device, device_key, dial, introduction, kept, kept_when, start, subscribe, with_device,
};
use crate::logging::{listen, logged};
use crate::methods::invoke;

/// Another device of the hub, with a key of its own.
pub const OTHER: &str = "rim-other";
const OTHER_KEY: [u8; 32] = [9; 32];
const TOKEN_LIFETIME: Duration = Duration::from_secs(3_600);
/// How long a client may say nothing, where a test waits for it.
const SILENCE: Duration = Duration::from_secs(2);
/// More than clocks may differ by.
const LATER: Duration = Duration::from_secs(2 * 3_600);
/// Messages that a drain finds on their way.
const UNDER_WAY: usize = 50;

/// One connection, the session of its links, and its links to `$cbs`.
pub struct Gateway {
    pub client: AmqpClient<TlsStream<TcpStream>>,
    session: SessionId,
    tokens: LinkId,
    answers: LinkId,
    /// What was sent, which names each message.
    sent: u64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_devices_share_a_connection_and_each_is_displaced_by_itself() {
    let muster = two_devices().await;
    let mut gateway = Gateway::open(&muster).await;
    let (first, second) = (gateway.enter(&muster, DEVICE).await, gateway.enter(&muster, OTHER).await);
    assert_eq!(gateway.send(first, "a").await, DeliveryState::Accepted);
    assert_eq!(gateway.send(second, "b").await, DeliveryState::Accepted);
    assert_eq!(senders(&muster, 2).await, [(DEVICE.to_owned(), "a".to_owned()), (OTHER.to_owned(), "b".to_owned())]);

    // By its own later connection, over MQTT.
    let mut later = dial(&muster).await;
    later.say(&Packet::Connect(Box::new(introduction(&muster)))).await;
    assert_eq!(later.hear().await, Heard::Packet(Packet::Connack(Connack::Accepted { session_present: false })));
    assert_eq!(gateway.detached(first).await.condition, "amqp:link:stolen");
    assert_eq!(gateway.send(second, "c").await, DeliveryState::Accepted);

    // And the other way round.
    let first = gateway.attach("again", &events_of(DEVICE)).await.expect("a link");
    assert_eq!(later.hear().await, Heard::Closed);
    assert_eq!(gateway.send(first, "d").await, DeliveryState::Accepted);
    drop(gateway);
    muster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_of_mqtt_is_neither_used_nor_made_over_amqp() {
    let muster = two_devices().await;
    let lasting = || Connect { clean_session: false, ..introduction(&muster) };
    let accepted = |session_present| Heard::Packet(Packet::Connack(Connack::Accepted { session_present }));
    // A device that was there over AMQP alone has none.
    let mut gateway = Gateway::open(&muster).await;
    let link = gateway.enter(&muster, DEVICE).await;
    let mut over_mqtt = dial(&muster).await;
    over_mqtt.say(&Packet::Connect(Box::new(lasting()))).await;
    assert_eq!(over_mqtt.hear().await, accepted(false));
    over_mqtt.say(&subscribe("$iothub/methods/POST/#")).await;
    assert!(matches!(over_mqtt.hear().await, Heard::Packet(Packet::Suback { .. })));
    assert_eq!(gateway.detached(link).await.condition, "amqp:link:stolen");

    // One that listens for methods over MQTT does not over AMQP, until a link says so.
    gateway.attach("again", &events_of(DEVICE)).await.expect("a link");
    assert_eq!(over_mqtt.hear().await, Heard::Closed);
    assert_eq!(invoke(&muster, 1, 0).await.header("iothub-errorcode"), Some("DeviceNotOnline"));

    let mut over_mqtt = dial(&muster).await;
    over_mqtt.say(&Packet::Connect(Box::new(lasting()))).await;
    assert_eq!(over_mqtt.hear().await, accepted(true), "what it subscribed to is still known");
    drop(gateway);
    muster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_expires_ends_the_links_of_its_device_alone_and_a_newer_one_keeps_them() {
    let clock = Arc::new(ManualClock::at(SystemClock.now()));
    let muster = with_other(with_device(Muster::start_by(clock.clone()).await.expect("a server")).await).await;
    let mut gateway = Gateway::open(&muster).await;
    let (first, second) = (gateway.enter(&muster, DEVICE).await, gateway.enter(&muster, OTHER).await);
    let lasting = token_of(&muster, OTHER, &other_key(), LATER * 2);
    assert_eq!(gateway.put(&lasting).await, Some(200));
    // The renewal is performed behind the answer, and before what comes after it.
    assert_eq!(gateway.send(second, "a").await, DeliveryState::Accepted);
    clock.advance(LATER);
    assert_eq!(gateway.detached(first).await.condition, "amqp:unauthorized-access");
    assert_eq!(gateway.send(second, "b").await, DeliveryState::Accepted);
    drop(gateway);
    muster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_gets_no_link_of_another_and_keeps_its_own() {
    let muster = two_devices().await;
    let mut gateway = Gateway::open(&muster).await;
    let own = gateway.enter(&muster, DEVICE).await;
    for device in [OTHER, "nobody"] {
        for purpose in ["messages/events", "twin", "methods/devicebound"] {
            let address = format!("/devices/{device}/{purpose}");
            let refused = gateway.attach(&address, &address).await.expect_err("a refusal");
            assert_eq!(refused.condition, "amqp:unauthorized-access", "{address}");
        }
    }
    assert_eq!(gateway.send(own, "still here").await, DeliveryState::Accepted);
    assert_eq!(senders(&muster, 1).await, [(DEVICE.to_owned(), "still here".to_owned())]);
    drop(gateway);
    muster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_swapped_mid_link_neither_lets_anybody_in_nor_disturbs_who_is() {
    let muster = two_devices().await;
    let mut gateway = Gateway::open(&muster).await;
    let first = gateway.enter(&muster, DEVICE).await;
    for (name, swapped) in [
        ("signed by the other's key", token_of(&muster, DEVICE, &other_key(), TOKEN_LIFETIME)),
        ("the other's, signed by the first's key", token_of(&muster, OTHER, &device_key(), TOKEN_LIFETIME)),
        ("of a device that is not there", token_of(&muster, "nobody", &device_key(), TOKEN_LIFETIME)),
        ("no token at all", "SharedAccessSignature sr=x".to_owned()),
    ] {
        assert_eq!(gateway.put(&swapped).await, Some(401), "{name}");
        assert_eq!(gateway.send(first, name).await, DeliveryState::Accepted, "{name}");
    }
    for address in [events_of(OTHER), format!("/devices/{OTHER}/twin"), events_of("nobody")] {
        let refused = gateway.attach(&address, &address).await.expect_err("no token is good for it");
        assert_eq!(refused.condition, "amqp:unauthorized-access", "{address}");
    }
    for address in ["/devices", "/devices/a/b", "/nothing/here", "/devices/rim-device/messages/devicebound"] {
        let refused = gateway.attach(address, address).await.expect_err("nobody sends there");
        assert_eq!(refused.condition, "amqp:not-found", "{address}");
    }
    assert_eq!(gateway.send(first, "still here").await, DeliveryState::Accepted);
    drop(gateway);
    muster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_drain_finds_under_way_is_settled_and_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let muster = with_device(Muster::start_in(folder.path()).await.expect("a server")).await;
    let service = muster.service().clone();
    let mut gateway = Gateway::open(&muster).await;
    let link = gateway.enter(&muster, DEVICE).await;
    assert_eq!(gateway.send(link, "0").await, DeliveryState::Accepted);
    for number in 1..=UNDER_WAY {
        gateway.start_send(link, &number.to_string());
    }
    gateway.client.flush().await.expect("sent");
    let leave = async {
        let mut settled = 1;
        loop {
            match gateway.next().await {
                // The session ends before the connection.
                Event::End { error: None, .. } => {}
                Event::Outcome { state, .. } => {
                    assert_eq!(state, Some(DeliveryState::Accepted));
                    settled += 1;
                }
                Event::Closed(CloseReason::Peer(Some(error))) => break (settled, error.condition.to_string()),
                other => panic!("{other:?}"),
            }
        }
    };
    let (drained, (settled, condition)) = tokio::join!(muster.stop(), leave);
    assert_eq!((drained, condition.as_str()), (Drained::Finished, "amqp:link:detach-forced"));
    assert_eq!(kept(&service).await.len(), settled);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_client_sends_ends_at_most_its_own_connection() {
    let muster = two_devices().await;
    let mut bystander = Gateway::open(&muster).await;
    let link = bystander.enter(&muster, OTHER).await;
    for (name, bytes, expected) in misdeeds() {
        let mut bad = Gateway::open(&muster).await;
        bad.client.say(&bytes).await.expect("sent");
        let heard = match bad.next().await {
            Event::Closed(CloseReason::Peer(Some(error))) => format!("closed {}", error.condition),
            Event::Closed(reason) => format!("closed: {reason}"),
            Event::End { error: Some(error), .. } => format!("ended {}", error.condition),
            Event::Detach { error: Some(error), .. } => format!("detached {}", error.condition),
            other => panic!("{name}: {other:?}"),
        };
        assert_eq!(heard, expected, "{name}");
        assert_eq!(bystander.send(link, name).await, DeliveryState::Accepted, "{name}");
    }
    let kept: Vec<String> = senders(&muster, misdeeds().len()).await.into_iter().map(|(sender, _)| sender).collect();
    assert!(kept.iter().all(|sender| sender == OTHER), "{kept:?}");
    drop(bystander);
    muster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_gets_nowhere_is_not_kept() {
    let amqp = Limits { open_timeout: Duration::from_secs(1), ..Limits::default() };
    let muster = Muster::start_limited(RimLimits { amqp, ..RimLimits::default() }).await.expect("a server");
    let header = b"AMQP\x00\x01\x00\x00".as_slice();
    for (name, bytes) in [
        ("silence", b"".as_slice()),
        ("a part of a header", header.get(..5).expect("five bytes")),
        ("a header", header),
        ("SASL without a choice", b"AMQP\x03\x01\x00\x00"),
    ] {
        let mut stream = muster.dial_amqp(&muster.hub.host, &muster.trust(None).expect("trust")).await.expect("TLS");
        stream.write_all(bytes).await.expect(name);
        // The end may come with TLS's own goodbye or without.
        let _ = timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await.expect(name);
    }
    let stream = muster.dial_amqp(&muster.hub.host, &muster.trust(None).expect("trust")).await.expect("TLS");
    let mut client = AmqpClient::new(stream, &muster.hub.host, false);
    assert!(matches!(client.hear().await, Some(Event::Open(_))));
    let heard = client.hear().await;
    let Some(Event::Closed(CloseReason::Peer(Some(error)))) = heard else { panic!("{heard:?}") };
    assert_eq!(error.condition, "amqp:unauthorized-access");
    muster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_falls_silent_is_let_go_and_the_log_tells_why() {
    listen();
    let amqp = Limits { idle_timeout: SILENCE, ..Limits::default() };
    let limits = RimLimits { amqp, ..RimLimits::default() };
    let muster = with_device(Muster::start_limited(limits).await.expect("a server")).await;
    let mut gateway = Gateway::open(&muster).await;
    let link = gateway.enter(&muster, DEVICE).await;
    assert_eq!(gateway.send(link, "a").await, DeliveryState::Accepted);
    let state = async || ask_registry(&muster, Method::GET, DEVICE, None).await["connectionState"].clone();
    // The socket stays open, and its client says nothing, not even that it is there.
    match gateway.next().await {
        Event::Closed(CloseReason::Peer(Some(error))) => assert_eq!(error.condition, "amqp:resource-limit-exceeded"),
        other => panic!("{other:?}"),
    }
    let freed = async { while state().await != "Disconnected" {} };
    timeout(PATIENCE, freed).await.expect("the seat is freed in time");
    drop(gateway);
    muster.stop().await;
    let log = logged();
    assert!(log.contains("AMQP connection ended peer=127.0.0.1 reason=the peer fell silent"), "{log}");
}

/// What a client sends that has its links to `$cbs` and has proved nothing, and what comes of it.
pub fn misdeeds() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let framed = |body: &[u8]| {
        let mut bytes = Vec::new();
        encode_frame(&mut bytes, FrameType::Amqp, 0, |out| out.extend_from_slice(body));
        bytes
    };
    let transfers = |handle, count: u32, aborted| {
        let transfer = |number: u32| Transfer {
            handle,
            delivery_id: Some(number),
            delivery_tag: Some(Bytes::copy_from_slice(&number.to_be_bytes())),
            message_format: Some(0),
            settled: Some(false),
            more: false,
            rcv_settle_mode: None,
            state: None,
            resume: false,
            aborted,
            batchable: false,
        };
        let mut bytes = Vec::new();
        for number in 0..count {
            encode_frame(&mut bytes, FrameType::Amqp, 0, |out| Performative::Transfer(transfer(number)).encode(out));
        }
        bytes
    };
    let nested = [[0x00].repeat(4_000), vec![0x53, 0x24, 0x45]].concat();
    vec![
        ("a frame of four gigabytes", vec![0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0], "closed amqp:connection:framing-error"),
        ("a frame shorter than its header", vec![0, 0, 0, 4, 2, 0, 0, 0], "closed amqp:connection:framing-error"),
        ("a body that begins behind the frame", vec![0, 0, 0, 8, 9, 0, 0, 0], "closed amqp:connection:framing-error"),
        ("descriptors nested in descriptors", framed(&nested), "closed amqp:decode-error"),
        ("an unknown performative", framed(&[0x00, 0x53, 0x99, 0x45]), "closed amqp:decode-error"),
        (
            "a list longer than the frame",
            framed(&[0x00, 0x53, 0x11, 0xd0, 0xff, 0xff, 0xff, 0xff]),
            "closed amqp:decode-error",
        ),
        ("a transfer on no link", transfers(77, 1, false), "ended amqp:session:unattached-handle"),
        ("a transfer on a link to be read", transfers(1, 1, false), "detached amqp:not-allowed"),
        ("more transfers than there is credit", transfers(0, 65, true), "detached amqp:link:transfer-limit-exceeded"),
    ]
}

impl Gateway {
    /// A connection without SASL, with links to `$cbs`.
    pub async fn open(muster: &Muster) -> Self {
        let stream = muster.dial_amqp(&muster.hub.host, &muster.trust(None).expect("trust")).await.expect("TLS");
        let mut client = AmqpClient::new(stream, &muster.hub.host, false);
        let session = client.begin().await;
        let between = || LinkTerms::between(Source::at("$cbs"), Target::at("$cbs"), 0);
        let (tokens, _) = client.attach(session, ("tokens", Role::Sender), between()).await;
        assert_eq!(client.hear().await, Some(Event::Credit { link: tokens }));
        let (answers, _) = client.attach(session, ("answers", Role::Receiver), between()).await;
        client.connection.grant_credit(answers, 100);
        Self { client, session, tokens, answers, sent: 0 }
    }

    /// What happens next, credit left out.
    pub async fn next(&mut self) -> Event {
        loop {
            match self.client.hear().await.expect("in time") {
                Event::Credit { .. } => {}
                event => return event,
            }
        }
    }

    /// Puts a token; the status of the answer.
    pub async fn put(&mut self, token: &str) -> Option<i64> {
        self.sent += 1;
        let message_id = Some(MessageId::Ulong(self.sent));
        let message = Message {
            properties: Some(Box::new(Properties { message_id, ..Properties::default() })),
            application_properties: Map::from_iter([
                ("operation", "put-token"),
                ("type", "servicebus.windows.net:sastoken"),
            ]),
            body: Body::Value(token.into()),
            ..Message::default()
        };
        self.start(self.tokens, &message);
        assert!(matches!(self.next().await, Event::Outcome { state: Some(DeliveryState::Accepted), .. }));
        match self.next().await {
            Event::Delivery(delivery) if delivery.link == self.answers => {
                let answer = Message::decode(&delivery.payload).expect("a message");
                answer.application_properties.find("status-code").and_then(Value::as_i64)
            }
            other => panic!("{other:?}"),
        }
    }

    /// Lets a device in by a token of its own; its link for telemetry.
    pub async fn enter(&mut self, muster: &Muster, device: &str) -> LinkId {
        let key = if device == DEVICE { device_key() } else { other_key() };
        assert_eq!(self.put(&token_of(muster, device, &key, TOKEN_LIFETIME)).await, Some(200));
        self.attach(device, &events_of(device)).await.expect("a link")
    }

    /// Attaches a link to send on; how it is refused otherwise.
    pub async fn attach(&mut self, name: &str, address: &str) -> Result<LinkId, Error> {
        let terms = LinkTerms::between(Source::default(), Target::at(address), 0);
        let link = self.client.connection.attach(self.session, name.into(), Role::Sender, terms).expect("a link");
        match self.next().await {
            Event::Attached { attach, .. } if attach.target.is_some() => Ok(link),
            Event::Attached { .. } => Err(self.detached(link).await),
            other => panic!("{address}: {other:?}"),
        }
    }

    /// Attaches the link for messages to a device, which waits to be told what became of what it settles; with credit.
    pub async fn listen(&mut self, device: &str) {
        let source = Source::at(format!("/devices/{device}/messages/devicebound").as_str());
        let mut terms = LinkTerms::between(source, Target::default(), 0);
        terms.rcv_settle_mode = ReceiverSettleMode::Second;
        let name = "messages".into();
        let link = self.client.connection.attach(self.session, name, Role::Receiver, terms).expect("a link");
        assert!(matches!(self.next().await, Event::Attached { attach, .. } if attach.source.is_some()));
        self.client.connection.grant_credit(link, 50);
    }

    /// The next message to a device.
    pub async fn message(&mut self) -> (Delivery, Message) {
        match self.next().await {
            Event::Delivery(delivery) => {
                let message = Message::decode(&delivery.payload).expect("a message");
                (delivery, message)
            }
            other => panic!("{other:?}"),
        }
    }

    /// Waits for a link to be ended, and gives the reason.
    async fn detached(&mut self, wanted: LinkId) -> Error {
        match self.next().await {
            Event::Detach { link, error: Some(error), .. } if link == wanted => *error,
            other => panic!("{other:?}"),
        }
    }

    /// Sends telemetry; what comes of it.
    pub async fn send(&mut self, link: LinkId, body: &str) -> DeliveryState {
        // Credit comes behind the answer to the attach.
        while self.client.connection.credit(link) == 0 {
            self.client.hear().await.expect("credit in time");
        }
        self.start_send(link, body);
        match self.next().await {
            Event::Outcome { state: Some(state), .. } => state,
            other => panic!("{other:?}"),
        }
    }

    /// Begins to send telemetry.
    pub fn start_send(&mut self, link: LinkId, body: &str) {
        self.sent += 1;
        self.start(link, &Message { body: Body::data(body.to_owned()), ..Message::default() });
    }

    fn start(&mut self, link: LinkId, message: &Message) {
        let tag = Bytes::copy_from_slice(&self.sent.to_be_bytes());
        let payload = vec![message.to_bytes()];
        let outgoing = Outgoing { tag, message_format: 0, settlement: Settlement::Unsettled, payload };
        self.client.connection.send(link, outgoing).expect("room");
    }
}

/// A Muster with [`DEVICE`] and [`OTHER`] at its hub.
pub async fn two_devices() -> Muster {
    with_other(start().await).await
}

async fn with_other(muster: Muster) -> Muster {
    let key = other_key().to_base64();
    let keys = json!({ "primaryKey": key, "secondaryKey": key });
    create_device(&muster, OTHER, &json!({ "type": "sas", "symmetricKey": keys })).await;
    muster
}

fn other_key() -> SymmetricKey {
    SymmetricKey::from_bytes(&OTHER_KEY).expect("a key")
}

pub fn token_of(muster: &Muster, device: &str, key: &SymmetricKey, lifetime: Duration) -> String {
    let resource = format!("{}%2Fdevices%2F{device}", muster.hub.host);
    SasToken::write(key, &resource, None, muster.clock().now().plus(lifetime))
}

pub fn events_of(device: &str) -> String {
    format!("/devices/{device}/messages/events")
}

/// Who sent what the hub keeps, once there are `count` messages, in any order.
async fn senders(muster: &Muster, count: usize) -> Vec<(String, String)> {
    let kept = kept_when(muster.service(), count).await;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut senders: Vec<_> =
        kept.iter().map(|message| (message.sender.to_string(), text(&message.draft.body))).collect();
    senders.sort();
    senders
}
