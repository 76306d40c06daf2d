//! What the log says of clients that break the rules.

use std::io;
use std::sync::{Arc, LazyLock, Mutex};

use proto::mqtt::{Packet, SubackCode};
use testkit::raw_mqtt::{Heard, RawMqtt, connect};

use crate::ground::{dial, enter, introduction, packet, publish, start, subscribe};

/// What this process logs from the first look on.
static LOG: LazyLock<Lines> = LazyLock::new(|| {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).with_ansi(false);
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
