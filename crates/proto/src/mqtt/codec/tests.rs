//! What is read, what is refused, and that what is written is what is read.

use std::path::PathBuf;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::mqtt::packet::{Connack, Connect, Delivery, Filter, PacketId, Publish, QoS, Refusal, SubackCode, Will};
use crate::mqtt::text::Text;

mod oracle;
mod packets;

/// Decodes one packet and nothing else.
fn decode_one(bytes: &[u8]) -> Result<Option<Packet>, Malformed> {
    let mut input = BytesMut::from(bytes);
    let packet = decode(&mut input, usize::MAX)?;
    assert!(packet.is_none() || input.is_empty(), "bytes are left");
    assert!(packet.is_some() || input == bytes, "bytes were taken without a packet");
    Ok(packet)
}

fn decode_all(bytes: &[u8]) -> Vec<Packet> {
    let mut input = BytesMut::from(bytes);
    let packets = std::iter::from_fn(|| decode(&mut input, usize::MAX).unwrap()).collect();
    assert!(input.is_empty(), "bytes are left");
    packets
}

fn encoded(packet: &Packet) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(packet, &mut bytes).unwrap();
    bytes
}

fn text(text: &str) -> Text {
    Text::try_from(text.to_owned()).unwrap()
}

fn id(number: u16) -> PacketId {
    PacketId::new(number).unwrap()
}

fn hex(text: &str) -> Vec<u8> {
    hex::decode(text.split_whitespace().collect::<String>()).unwrap()
}

/// Every file of `testdata/wire/mqtt`: its name without `.hex`, and its bytes. Lines that begin with `#` name the source.
fn vectors() -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata/wire/mqtt");
    let mut vectors = Vec::new();
    for entry in folder.read_dir().unwrap() {
        let path = entry.unwrap().path();
        let file = std::fs::read_to_string(&path).unwrap();
        assert!(file.starts_with("# "), "{} does not name its source", path.display());
        let lines: Vec<&str> = file.lines().filter(|line| !line.starts_with('#')).collect();
        vectors.push((path.file_stem().unwrap().to_str().unwrap().to_owned(), hex(&lines.concat())));
    }
    vectors.sort();
    vectors
}

/// What each vector says, written down from its source.
fn expected(name: &str) -> Vec<Packet> {
    let node = "azure-iot-provisioning-device%2F1.9.1";
    match name {
        "acknowledgements-standard" => vec![
            Packet::Puback(PacketId::new(10)),
            Packet::Pubrec(id(10)),
            Packet::Pubrel(id(10)),
            Packet::Pubcomp(id(10)),
            Packet::Unsuback(id(10)),
        ],
        "connack-standard" => vec![Packet::Connack(Connack::Accepted { session_present: true })],
        "connect-dps-node-key" => {
            let password = "SharedAccessSignature sr=0ne00000000/registrations/dev-1\
                &sig=CupbWQsstJqGhYMnN%2BadgzOmVapK6PbhPC%2FJ%2BoTlApU%3D&skn=registration&se=1795223329";
            dps_connect(180, true, node, Some(password))
        }
        "connect-dps-node-x509" => dps_connect(180, true, node, None),
        "connect-dps-python-key" => {
            let python = "azure-iot-device-provisioning-py%2F2.14.0%283.11.7%3BLinux%20%231%20SMP%20PREEMPT_DYNAMIC\
                %20%400%3Bx86_64%29";
            let password = "SharedAccessSignature sr=0ne00000000%2Fregistrations%2Fdev-1\
                &sig=Hvogs%2FMXNSNR9rHnvTbQc9DBSooejg6u93v%2FgVF%2Bjcs%3D&se=1795223330";
            dps_connect(60, false, python, Some(password))
        }
        "connect-mqtt-3-1" => vec![Packet::ForeignConnect { name: text("MQIsdp"), level: 3 }],
        "connect-mqtt-5" => vec![Packet::ForeignConnect { name: text("MQTT"), level: 5 }],
        "connect-standard" => vec![Packet::Connect(Box::new(Connect {
            client_id: text("c"),
            clean_session: true,
            keep_alive_s: 10,
            will: Some(Box::new(Will {
                topic: text("a/b"),
                payload: Bytes::from_static(b"by"),
                qos: QoS::AtLeastOnce,
                retain: false,
            })),
            username: Some(text("user")),
            password: Some(Bytes::from_static(b"pass")),
        }))],
        "empty-standard" => vec![Packet::Pingreq, Packet::Pingresp, Packet::Disconnect],
        "puback-0-csharp" => vec![Packet::Puback(None)],
        "publish-standard" => vec![Packet::Publish(Publish {
            topic: text("a/b"),
            payload: Bytes::from_static(b"hi"),
            delivery: Delivery::AtLeastOnce(id(10)),
            retain: false,
            dup: false,
        })],
        "suback-standard" => vec![Packet::Suback {
            packet_id: id(10),
            codes: vec![
                SubackCode::Granted(QoS::AtMostOnce),
                SubackCode::Granted(QoS::ExactlyOnce),
                SubackCode::Failure,
            ],
        }],
        "subscribe-standard" => vec![Packet::Subscribe {
            packet_id: id(10),
            filters: vec![
                Filter { topic: text("a/b"), qos: QoS::AtLeastOnce },
                Filter { topic: text("c/d"), qos: QoS::ExactlyOnce },
            ],
        }],
        "unsubscribe-standard" => {
            vec![Packet::Unsubscribe { packet_id: id(10), filters: vec![text("a/b"), text("c/d")] }]
        }
        other => panic!("nobody has written down what {other}.hex says"),
    }
}

fn dps_connect(keep_alive_s: u16, clean_session: bool, version: &str, password: Option<&'static str>) -> Vec<Packet> {
    let username = format!("0ne00000000/registrations/dev-1/api-version=2019-03-31&ClientVersion={version}");
    vec![Packet::Connect(Box::new(Connect {
        client_id: text("dev-1"),
        clean_session,
        keep_alive_s,
        will: None,
        username: Some(text(&username)),
        password: password.map(|password| Bytes::from_static(password.as_bytes())),
    }))]
}

#[test]
fn recorded_packets_say_what_their_sources_say() {
    let vectors = vectors();
    assert_eq!(vectors.len(), 14);
    for (name, bytes) in vectors {
        let packets = decode_all(&bytes);
        assert_eq!(packets, expected(&name), "{name}");
        if !name.starts_with("connect-mqtt-") {
            assert_eq!(packets.iter().flat_map(encoded).collect::<Vec<_>>(), bytes, "{name}: written again");
        }
    }
}

#[test]
fn every_prefix_of_a_recorded_packet_asks_for_more() {
    for (name, bytes) in vectors() {
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let packet_bytes = decode_header(rest, usize::MAX).unwrap().unwrap().packet_bytes();
            for end in 0..packet_bytes {
                assert_eq!(decode_one(&rest[..end]), Ok(None), "{name}: {end} bytes");
            }
            rest = &rest[packet_bytes..];
        }
    }
}

#[test]
fn remaining_length_is_at_most_four_bytes() {
    type Length = Result<Option<(u32, usize)>, Malformed>;

    let cases: &[(&str, &[u8], Length)] = &[
        ("nothing yet", &[], Ok(None)),
        ("one byte, smallest", &[0x00], Ok(Some((0, 1)))),
        ("one byte, largest", &[0x7f], Ok(Some((127, 1)))),
        ("another is promised", &[0x80], Ok(None)),
        ("two bytes, smallest", &[0x80, 0x01], Ok(Some((128, 2)))),
        ("two bytes, largest", &[0xff, 0x7f], Ok(Some((16_383, 2)))),
        ("three bytes, smallest", &[0x80, 0x80, 0x01], Ok(Some((16_384, 3)))),
        ("three bytes, largest", &[0xff, 0xff, 0x7f], Ok(Some((2_097_151, 3)))),
        ("four bytes, smallest", &[0x80, 0x80, 0x80, 0x01], Ok(Some((2_097_152, 4)))),
        ("four bytes, largest", &[0xff, 0xff, 0xff, 0x7f], Ok(Some((268_435_455, 4)))),
        ("longer than needed", &[0x80, 0x00], Ok(Some((0, 2)))),
        ("a fourth is promised", &[0xff, 0xff, 0xff], Ok(None)),
        ("a fifth is promised", &[0xff, 0xff, 0xff, 0xff], Err(Malformed::RemainingLength)),
        ("a fifth has come", &[0x80, 0x80, 0x80, 0x80, 0x01], Err(Malformed::RemainingLength)),
    ];
    for (name, input, expected) in cases {
        assert_eq!(decode_remaining_length(input), *expected, "{name}");
    }
}

#[test]
fn a_packet_is_judged_by_its_header_before_its_body_comes() {
    let too_large = Err(Malformed::TooLarge { bytes: 102, max: 101 });
    let cases: &[(&str, &str, Result<(), Malformed>)] = &[
        ("one byte says the type", "00", Err(Malformed::PacketType(0))),
        ("type 15", "f0", Err(Malformed::PacketType(15))),
        ("one byte says the flags", "81", Err(Malformed::Flags)),
        ("PUBREL without its reserved bit", "60", Err(Malformed::Flags)),
        ("QoS 3", "36", Err(Malformed::QoS)),
        ("as long as allowed", "30 63", Ok(())),
        ("one longer than allowed", "30 64", too_large),
        ("a PINGREQ with a body", "c0 01", Err(Malformed::Trailing)),
        ("a DISCONNECT with a body", "e0 64", Err(Malformed::TooLarge { bytes: 102, max: 101 })),
        ("half a PUBACK", "40 01", Err(Malformed::Truncated)),
        ("a PUBACK and a half", "40 03", Err(Malformed::Trailing)),
        ("a length without an end", "30 ff ff ff ff", Err(Malformed::RemainingLength)),
    ];
    for (name, bytes, expected) in cases {
        assert_eq!(decode_header(&hex(bytes), 101).map(|_| ()), *expected, "{name}");
    }
}

#[test]
fn malformed_packets_are_refused_by_name() {
    let cases: &[(&str, &str, Malformed)] = &[
        ("PUBLISH whose topic is longer than it", "30 04 00 05 61 62", Malformed::Truncated),
        ("PUBLISH without a topic length", "30 01 00", Malformed::Truncated),
        ("PUBLISH without its identifier", "32 03 00 01 61", Malformed::Truncated),
        ("PUBLISH with identifier 0", "32 05 00 01 61 00 00", Malformed::PacketId),
        ("PUBLISH to nowhere", "30 02 00 00", Malformed::EmptyTopic),
        ("PUBLISH to U+0000", "30 03 00 01 00", Malformed::Text(InvalidText::Nul)),
        ("PUBLISH to a surrogate", "30 05 00 03 ed a0 80", Malformed::Text(InvalidText::Utf8)),
        ("SUBSCRIBE to nothing", "82 02 00 01", Malformed::NoFilters),
        ("SUBSCRIBE without an identifier", "82 00", Malformed::Truncated),
        ("SUBSCRIBE with identifier 0", "82 06 00 00 00 01 61 00", Malformed::PacketId),
        ("SUBSCRIBE to an empty filter", "82 05 00 01 00 00 00", Malformed::EmptyTopic),
        ("SUBSCRIBE without a QoS", "82 05 00 01 00 01 61", Malformed::Truncated),
        ("SUBSCRIBE with QoS 3", "82 06 00 01 00 01 61 03", Malformed::QoS),
        ("SUBSCRIBE with an option of MQTT 5", "82 06 00 01 00 01 61 04", Malformed::QoS),
        ("SUBACK without a code", "90 02 00 01", Malformed::NoFilters),
        ("SUBACK with an unknown code", "90 03 00 01 03", Malformed::SubackCode(3)),
        ("UNSUBSCRIBE from nothing", "a2 02 00 01", Malformed::NoFilters),
        ("UNSUBSCRIBE from an empty filter", "a2 04 00 01 00 00", Malformed::EmptyTopic),
        ("PUBREC with identifier 0", "50 02 00 00", Malformed::PacketId),
        ("UNSUBACK with identifier 0", "b0 02 00 00", Malformed::PacketId),
        ("CONNACK with reserved flags", "20 02 02 00", Malformed::ConnackFlags),
        ("CONNACK with an unknown code", "20 02 00 06", Malformed::ReturnCode(6)),
        ("CONNECT without anything", "10 00", Malformed::Truncated),
        ("CONNECT with the reserved flag", "10 0d 00 04 4d 51 54 54 04 03 00 3c 00 01 61", Malformed::ConnectFlags),
        ("CONNECT, will QoS without will", "10 0d 00 04 4d 51 54 54 04 0a 00 3c 00 01 61", Malformed::ConnectFlags),
        ("CONNECT, will retain without will", "10 0d 00 04 4d 51 54 54 04 22 00 3c 00 01 61", Malformed::ConnectFlags),
        ("CONNECT, will QoS 3", "10 13 00 04 4d 51 54 54 04 1e 00 3c 00 01 61 00 01 62 00 01 63", Malformed::QoS),
        (
            "CONNECT, password without a user name",
            "10 10 00 04 4d 51 54 54 04 42 00 3c 00 01 61 00 01 62",
            Malformed::ConnectFlags,
        ),
        ("CONNECT, bytes left over", "10 0e 00 04 4d 51 54 54 04 02 00 3c 00 01 61 00", Malformed::Trailing),
        ("CONNECT, will to nowhere", "10 11 00 04 4d 51 54 54 04 06 00 3c 00 01 61 00 00 00 00", Malformed::EmptyTopic),
        ("CONNECT, user name cut", "10 10 00 04 4d 51 54 54 04 82 00 3c 00 01 61 00 02 62", Malformed::Truncated),
    ];
    for (name, bytes, expected) in cases {
        assert_eq!(decode_one(&hex(bytes)), Err(*expected), "{name}");
    }
}

#[test]
fn what_real_clients_need_is_let_pass() {
    let publish = |topic: &str, dup| {
        let delivery = Delivery::AtMostOnce;
        Packet::Publish(Publish { topic: text(topic), payload: Bytes::new(), delivery, retain: false, dup })
    };
    let empty_client_id = Packet::Connect(Box::new(Connect {
        client_id: text(""),
        clean_session: false,
        keep_alive_s: 0,
        will: None,
        username: None,
        password: None,
    }));
    let any_qos =
        Packet::Subscribe { packet_id: id(1), filters: vec![Filter { topic: text("a/+/#"), qos: QoS::ExactlyOnce }] };
    let cases: &[(&str, &str, Packet)] = &[
        ("PUBACK with identifier 0", "40 02 00 00", Packet::Puback(None)),
        ("an empty client identifier", "10 0c 00 04 4d 51 54 54 04 00 00 00 00 00", empty_client_id),
        ("QoS 2 in SUBSCRIBE", "82 0a 00 01 00 05 61 2f 2b 2f 23 02", any_qos),
        ("wildcards in a topic name", "30 07 00 05 6b 3d 61 2b 23", publish("k=a+#", false)),
        ("DUP at QoS 0", "38 03 00 01 61", publish("a", true)),
        (
            "CONNECT of another protocol",
            "10 07 00 04 41 4d 51 50 04",
            Packet::ForeignConnect { name: text("AMQP"), level: 4 },
        ),
        ("a session with a refusal", "20 02 01 05", Packet::Connack(Connack::Refused(Refusal::NotAuthorized))),
    ];
    for (name, bytes, expected) in cases {
        assert_eq!(decode_one(&hex(bytes)), Ok(Some(expected.clone())), "{name}");
    }
}

#[test]
fn filters_are_counted() {
    let subscribe = |count| {
        let filters = vec![Filter { topic: text("a"), qos: QoS::AtMostOnce }; count];
        encoded(&Packet::Subscribe { packet_id: id(1), filters })
    };
    assert!(matches!(decode_one(&subscribe(FILTERS_MAX)), Ok(Some(Packet::Subscribe { .. }))));
    assert_eq!(decode_one(&subscribe(FILTERS_MAX + 1)), Err(Malformed::TooManyFilters));
}

#[test]
fn what_mqtt_cannot_say_is_not_written() {
    let connect = |password: usize, will: usize| {
        let will = Will { topic: text("t"), payload: vec![0; will].into(), qos: QoS::AtMostOnce, retain: true };
        Packet::Connect(Box::new(Connect {
            client_id: text(""),
            clean_session: true,
            keep_alive_s: 0,
            will: Some(Box::new(will)),
            username: Some(text("")),
            password: Some(vec![0; password].into()),
        }))
    };
    let publish = |payload: usize| {
        let delivery = Delivery::AtMostOnce;
        Packet::Publish(Publish {
            topic: text("t"),
            payload: vec![0; payload].into(),
            delivery,
            retain: false,
            dup: false,
        })
    };
    let too_long = [
        ("password", connect(65_536, 0), 65_536),
        ("will", connect(0, 70_000), 70_000),
        ("payload", publish(BODY_BYTES_MAX - 2), BODY_BYTES_MAX + 1),
    ];
    for (name, packet, bytes) in too_long {
        let mut output = b"before".to_vec();
        assert_eq!(encode(&packet, &mut output), Err(Oversized { bytes }), "{name}");
        assert_eq!(output, b"before", "{name}");
    }
    let longest = connect(65_535, 65_535);
    assert_eq!(decode_one(&encoded(&longest)), Ok(Some(longest)));
}

#[test]
fn strings_and_payloads_share_the_memory_they_came_in() {
    let mut input = BytesMut::from(&hex("32 09 00 03 61 2f 62 00 0a 68 69")[..]);
    let range = input.as_ptr_range();
    let Ok(Some(Packet::Publish(publish))) = decode(&mut input, usize::MAX) else { panic!("no message") };
    let topic: &[u8] = publish.topic.as_ref();
    assert!(range.contains(&topic.as_ptr()) && range.contains(&publish.payload.as_ptr()));
}

proptest! {
    #[test]
    fn what_is_written_is_read(packet in packets::packets()) {
        let bytes = encoded(&packet);
        prop_assert_eq!(decode_one(&bytes), Ok(Some(packet)));
        for end in 0..bytes.len() {
            prop_assert_eq!(decode_one(&bytes[..end]), Ok(None));
        }
    }

    #[test]
    fn what_is_read_is_read_again_once_written(bytes in packets::frames()) {
        if let Ok(Some(packet)) = decode(&mut BytesMut::from(&bytes[..]), usize::MAX) {
            prop_assert_eq!(decode_one(&encoded(&packet)), Ok(Some(packet)));
        }
    }
}
