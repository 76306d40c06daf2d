//! Headers, SASL, open.

use super::*;
use crate::amqp::sasl::{SaslChallenge, SaslResponse};

const SASL_HEADER: &[u8] = b"AMQP\x03\x01\x00\x00";
const AMQP_HEADER: &[u8] = b"AMQP\x00\x01\x00\x00";

fn hex(text: &str) -> Vec<u8> {
    hex::decode(text.split_whitespace().collect::<String>()).unwrap()
}

fn sasl_bytes(frame: &SaslFrame) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::encode_frame(&mut bytes, FrameType::Sasl, 0, |out| frame.encode(out));
    bytes
}

fn init(mechanism: &'static str, response: &'static [u8]) -> SaslInit {
    SaslInit {
        mechanism: Symbol::from_static(mechanism),
        initial_response: Some(Bytes::from_static(response)),
        hostname: None,
    }
}

#[test]
fn a_client_with_sasl_is_led_through_it_byte_by_byte() {
    let mut script = Script::new(Limits::default());
    script.receive_bytes(SASL_HEADER);
    assert_eq!(script.events(), []);
    let mechanisms =
        hex("414d515003010000 00000020 02010000 005340 c0 13 01 e0 10 02 a3 07 4d535342434253 05 504c41494e");
    assert_eq!(script.sent_bytes(), mechanisms);

    // A mechanism and nothing else, as the C client has it.
    script.receive_bytes(&hex("00000017 02010000 005341 c0 0a 01 a3 07 4d535342434253"));
    let mechanism = Symbol::from_static("MSSBCBS");
    assert_eq!(script.events(), [Event::SaslInit(SaslInit { mechanism, initial_response: None, hostname: None })]);
    script.connection.sasl_outcome(SaslCode::Ok, script.now).unwrap();
    assert_eq!(script.sent_bytes(), hex("00000011 02010000 005344 c0 04 02 50 00 40"));

    script.receive_bytes(AMQP_HEADER);
    assert_eq!(script.events(), []);
    assert_eq!(script.sent_bytes(), AMQP_HEADER);
}

#[test]
fn bytes_behind_a_sasl_outcome_are_kept() {
    let mut script = Script::new(Limits::default());
    let mut bytes = SASL_HEADER.to_vec();
    bytes.extend(sasl_bytes(&SaslFrame::Init(init("PLAIN", b"\0d\0key"))));
    bytes.extend(AMQP_HEADER);
    frame::encode_frame(&mut bytes, FrameType::Amqp, 0, |out| Performative::Open(Box::new(open())).encode(out));
    script.receive_bytes(&bytes);
    assert_eq!(script.events(), [Event::SaslInit(init("PLAIN", b"\0d\0key"))]);
    assert!(!script.connection.wants_input());

    script.connection.sasl_outcome(SaslCode::Ok, script.now).unwrap();
    assert_eq!(script.events(), [Event::Open(Box::new(open()))]);
    assert!(script.connection.is_opening());
    script.sent_bytes();

    script.connection.open(Map::from_iter([(Symbol::from_static("a"), "b")]), script.now);
    let [(0, Performative::Open(answer), _)] = &script.sent()[..] else { panic!("no open") };
    assert_eq!((answer.max_frame_size, answer.channel_max, answer.idle_time_out), (65_536, 255, Some(240_000)));
    assert_eq!(answer.properties.find("a"), Some(&"b".into()));
    assert!(script.connection.is_open());
}

#[test]
fn a_client_may_say_everything_before_it_hears_anything() {
    // Python does (`contract/eventhub-endpoint.md` 3.1).
    let mut script = Script::new(Limits::default());
    script.receive_bytes(AMQP_HEADER);
    script.receive(&[
        (0, Performative::Open(Box::new(open()))),
        (1, Performative::Begin(Box::new(begin()))),
        (1, Performative::Attach(Box::new(attach(1, Role::Sender)))),
    ]);
    assert_eq!(script.events(), [Event::Open(Box::new(open()))]);
    script.connection.open(Map::EMPTY, script.now);
    let events = script.events();
    assert!(matches!(events[..], [Event::Begin { .. }, Event::Attach { .. }]), "{events:?}");
}

#[test]
fn what_speaks_something_else_is_told_what_is_spoken() {
    let cases: &[(&str, &[u8])] = &[
        ("AMQP 0-9-1", b"AMQP\x00\x00\x09\x01"),
        ("TLS inside", b"AMQP\x02\x01\x00\x00"),
        ("HTTP", b"GET / HTTP/1.1\r\n"),
        ("a TLS hello", b"\x16\x03\x01"),
    ];
    for (name, bytes) in cases {
        let mut script = Script::new(Limits::default());
        script.receive_bytes(bytes);
        assert!(matches!(script.closed(), CloseReason::ForeignProtocol(_)), "{name}");
        assert_eq!(script.sent_bytes(), AMQP_HEADER, "{name}");
    }
}

#[test]
fn a_mechanism_of_several_steps_passes_through_as_it_is() {
    let mut script = Script::new(Limits::default());
    script.receive_bytes(SASL_HEADER);
    script.receive_bytes(&sasl_bytes(&SaslFrame::Init(init("MSSBCBS", b"one"))));
    assert_eq!(script.events(), [Event::SaslInit(init("MSSBCBS", b"one"))]);
    script.sent_bytes();

    script.connection.sasl_challenge(Bytes::from_static(b"two"), script.now).unwrap();
    let challenge = SaslFrame::Challenge(SaslChallenge { challenge: Bytes::from_static(b"two") });
    assert_eq!(script.sent_bytes(), sasl_bytes(&challenge));
    let response = SaslResponse { response: Bytes::from_static(b"three") };
    script.receive_bytes(&sasl_bytes(&SaslFrame::Response(response)));
    assert_eq!(script.events(), [Event::SaslResponse(Bytes::from_static(b"three"))]);

    assert_eq!(
        script.connection.sasl_challenge(Bytes::from(vec![0; 500]), script.now),
        Err(Unsent::Sasl),
        "over 512 bytes"
    );
    assert_eq!(script.sent_bytes(), b"");
    script.connection.sasl_outcome(SaslCode::Auth, script.now).unwrap();
    assert_eq!(script.closed(), CloseReason::Sasl(SaslCode::Auth));
    assert_eq!(script.sent_bytes(), hex("00000011 02010000 005344 c0 04 02 50 01 40"));
}

#[test]
fn sasl_that_goes_wrong_ends_the_connection() {
    let response = SaslFrame::Response(SaslResponse { response: Bytes::new() });
    let long = SaslFrame::Init(SaslInit { initial_response: Some(vec![0; 4096].into()), ..init("PLAIN", b"") });
    let cases = [
        ("a mechanism that is not offered", sasl_bytes(&SaslFrame::Init(init("GSSAPI", b"")))),
        ("a response before init", sasl_bytes(&response)),
        ("a frame over 4 KiB", sasl_bytes(&long)),
        ("a frame of AMQP", hex("00000008 02000000")),
        ("no frame", hex("00000009 02010000 40")),
    ];
    for (name, bytes) in cases {
        let mut script = Script::new(Limits::default());
        script.receive_bytes(SASL_HEADER);
        script.receive_bytes(&bytes);
        let reason = script.closed();
        let is_expected = match name {
            "a mechanism that is not offered" => matches!(reason, CloseReason::SaslMechanism(_)),
            "a response before init" => matches!(reason, CloseReason::Violation { .. }),
            "no frame" => matches!(reason, CloseReason::Malformed(_)),
            _ => matches!(reason, CloseReason::Misframed(_)),
        };
        assert!(is_expected, "{name}: {reason}");
    }
}

#[test]
fn a_frame_of_four_kibibytes_of_sasl_is_read() {
    let mut script = Script::new(Limits::default());
    script.receive_bytes(SASL_HEADER);
    let init = SaslInit { initial_response: Some(vec![7; 4000].into()), ..init("PLAIN", b"") };
    script.receive_bytes(&sasl_bytes(&SaslFrame::Init(init.clone())));
    assert_eq!(script.events(), [Event::SaslInit(init)]);
}

#[test]
fn an_open_can_be_answered_with_a_close() {
    // `contract/dps-device.md` 4.9.
    let mut script = Script::new(Limits::default());
    script.receive_bytes(AMQP_HEADER);
    script.receive(&[(0, Performative::Open(Box::new(open())))]);
    script.events();
    script.sent_bytes();
    script.connection.close(Some(Error::new(condition::UNAUTHORIZED_ACCESS, "who")), script.now);
    let sent = script.performatives();
    assert!(matches!(&sent[..], [Performative::Open(_), Performative::Close(Close { error: Some(_) })]), "{sent:?}");
    script.receive(&[(0, Performative::Close(Close { error: None }))]);
    assert!(matches!(script.closed(), CloseReason::Local(Some(_))));
}

#[test]
fn who_opens_too_late_is_dropped_unless_the_caller_is_late() {
    let mut script = Script::new(Limits::default());
    script.receive_bytes(AMQP_HEADER);
    script.events();
    script.pass(seconds(29));
    assert!(!script.connection.is_closed());
    script.pass(seconds(1));
    assert_eq!(script.closed(), CloseReason::OpenTimeout);

    let mut script = Script::new(Limits::default());
    script.receive_bytes(AMQP_HEADER);
    script.receive(&[(0, Performative::Open(Box::new(open())))]);
    script.events();
    assert_eq!(script.connection.poll_timeout(), None);
    script.pass(seconds(500));
    script.connection.open(Map::EMPTY, script.now);
    script.pass(seconds(100));
    assert!(script.connection.is_open());
}

#[test]
fn what_the_caller_takes_for_its_verdicts_is_not_the_clients_time() {
    let mut script = Script::new(Limits::default());
    script.receive_bytes(SASL_HEADER);
    script.events();
    script.pass(seconds(10));
    // The second answer lies ready before it is asked for.
    let mut bytes = sasl_bytes(&SaslFrame::Init(init("MSSBCBS", b"one")));
    bytes.extend(sasl_bytes(&SaslFrame::Response(SaslResponse { response: Bytes::from_static(b"two") })));
    script.receive_bytes(&bytes);
    script.events();
    script.pass(seconds(25));
    script.connection.sasl_challenge(Bytes::new(), script.now).unwrap();
    script.events();
    script.pass(seconds(25));
    script.connection.sasl_outcome(SaslCode::Ok, script.now).unwrap();
    script.events();
    script.pass(seconds(19));
    assert!(!script.connection.is_closed(), "29 of 30 seconds were the client's");
    script.pass(seconds(1));
    assert_eq!(script.closed(), CloseReason::OpenTimeout);
}
