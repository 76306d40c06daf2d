//! What the log says of clients that break the rules.

use std::io;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use domain::sas::SasToken;
use proto::mqtt::{Packet, SubackCode};
use testkit::raw_mqtt::{Heard, RawMqtt, connect};

use crate::amqp_hub::{Gateway, OTHER, events_of, misdeeds, token_of, two_devices};
use crate::ground::{DEVICE, device_key, dial, enter, introduction, packet, publish, start, subscribe};

/// Links that are refused in less than the minute in which an address has so many lines.
const REFUSED_LINKS: usize = 200;

/// What this process logs from the first look on.
static LOG: LazyLock<Lines> = LazyLock::new(|| {
    let lines = Lines::default();
    let writer = lines.clone();
    // How connections end that nobody is to blame for is said at the level of debugging.
    let subscriber = tracing_subscriber::fmt().with_env_filter("info,server=debug").with_ansi(false);
    tracing::subscriber::set_global_default(subscriber.with_writer(move || writer.clone()).finish())
        .expect("nobody else in this process says where the log goes");
    lines
});

/// Keeps what is logged from now on.
pub fn listen() {
    LazyLock::force(&LOG);
}

/// What was logged since somebody listens, by whichever test.
pub fn logged() -> String {
    String::from_utf8(LOG.0.lock().expect("no test panics here").clone()).expect("text")
}

/// Log lines in memory.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no test panics here").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_reason_of_a_refusal_and_of_misuse_is_in_the_log() {
    listen();
    let muster = start().await;

    let mut foreign = dial(&muster).await;
    foreign.send(b"GET / HTTP/1.1\r\n\r\n").await;
    assert_eq!(foreign.hear().await, Heard::Closed);
    let mut nameless = dial(&muster).await;
    nameless.say(&Packet::Connect(Box::new(connect("d", "no\u{1b}such name", "").expect("text")))).await;
    assert!(matches!(nameless.hear().await, Heard::Packet(Packet::Connack(_))));
    let mut client = enter(&muster, introduction(&muster)).await;
    client.say(&subscribe("some/\u{1b}filter")).await;
    let refused = Packet::Suback { packet_id: packet(1), codes: vec![SubackCode::Failure] };
    assert_eq!(client.hear().await, Heard::Packet(refused));
    client.say(&publish("devices/another/messages/events/", Some(2), "{}")).await;
    assert_eq!(client.hear().await, Heard::Closed);
    let mut wildcard = RawMqtt::new(muster.dial_mqtt(&muster.device_host).await.expect("a handshake"));
    let username = format!("{}/registrations/+/api-version=2019-03-31", muster.id_scope);
    wildcard.say(&Packet::Connect(Box::new(connect("+", &username, "").expect("text")))).await;
    assert!(matches!(wildcard.hear().await, Heard::Packet(Packet::Connack(_))));
    // Every connection has been dealt with then.
    muster.stop().await;

    let log = logged();
    for expected in [
        "MQTT connection refused or misused peer=127.0.0.1 reason=",
        "reason=the user name is not one: no\\u{1b}such name",
        "MQTT subscription or link refused peer=127.0.0.1 name=\"some/",
        "reason=a message to devices/another/messages/events/",
        "reason=refused: the registration ID breaks the rules for one",
    ] {
        assert!(log.contains(expected), "{expected} is not in:\n{log}");
    }
    let first = "reason=the first packet was";
    assert!(log.contains(first) || log.contains("reason=malformed packet"), "{log}");
    assert!(!log.contains('\u{1b}'), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_reason_of_misdeeds_over_amqp_is_in_the_log() {
    listen();
    let muster = two_devices().await;
    for (_, bytes, _) in misdeeds() {
        let mut bad = Gateway::open(&muster).await;
        bad.client.say(&bytes).await.expect("sent");
        bad.next().await;
    }
    let mut gateway = Gateway::open(&muster).await;
    gateway.enter(&muster, DEVICE).await;
    let hour = Duration::from_secs(3_600);
    let resource = format!("{}%2Fdevices%2F{DEVICE}", muster.hub.host);
    for token in [
        SasToken::write(&device_key(), &resource, None, muster.clock().now().minus(hour)),
        token_of(&muster, OTHER, &device_key(), hour),
        token_of(&muster, "amqp-nobody", &device_key(), hour),
    ] {
        assert_eq!(gateway.put(&token).await, Some(401));
    }
    for address in [events_of(OTHER), "/devices/amqp\u{1b}nobody/messages/events".to_owned()] {
        gateway.attach(&address, &address).await.expect_err("a refusal");
    }
    drop(gateway);
    muster.stop().await;

    let log = logged();
    for expected in [
        "AMQP connection refused or misused peer=127.0.0.1 reason=a frame of 4294967295 bytes, where 65536 are allowed",
        "AMQP connection refused or misused peer=127.0.0.1 reason=a frame of 4 bytes",
        "AMQP connection refused or misused peer=127.0.0.1 reason=a data offset of 9 words",
        "AMQP connection refused or misused peer=127.0.0.1 reason=malformed frame: ",
        "AMQP session or link misused peer=127.0.0.1 reason=a transfer for a handle that is not attached",
        "AMQP session or link misused peer=127.0.0.1 reason=a transfer from the receiver",
        "AMQP session or link misused peer=127.0.0.1 reason=a transfer beyond the credit",
        "a connection was refused identity=rim-device reason=\"the signature has expired\"",
        "a connection was refused identity=rim-other reason=\"the signature was made with another key\"",
        "a connection was refused identity=amqp-nobody reason=\"the hub has no such identity\"",
        "AMQP subscription or link refused peer=127.0.0.1 name=\"rim-other\"",
        "AMQP subscription or link refused peer=127.0.0.1 name=\"devices/amqp\\\\u{1b}nobody",
    ] {
        assert!(log.contains(expected), "{expected} is not in:\n{log}");
    }
    assert!(!log.contains('\u{1b}'), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_that_are_refused_do_not_fill_the_log() {
    listen();
    let muster = start().await;
    let mut gateway = Gateway::open(&muster).await;
    gateway.enter(&muster, DEVICE).await;
    for number in 0..REFUSED_LINKS {
        let address = format!("/flood/{number}");
        gateway.attach(&address, &address).await.expect_err("a refusal");
    }
    drop(gateway);
    muster.stop().await;
    let log = logged();
    let at = |level: &str| log.lines().filter(|line| line.contains(level) && line.contains("name=\"flood/")).count();
    let (said, left_out) = (at(" INFO "), at("DEBUG "));
    assert_eq!(said + left_out, REFUSED_LINKS, "{log}");
    assert!(said > 0 && left_out > 0, "{said} and {left_out}");
}
