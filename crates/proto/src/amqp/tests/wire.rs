//! Bytes written down by hand, or recorded from clients, and what they say.

use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

/// The bytes of a file of `testdata/wire/amqp`. Lines that begin with `#` name the source.
fn vector(name: &str) -> Bytes {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata/wire/amqp").join(name);
    let file = std::fs::read_to_string(path.with_extension("hex")).unwrap();
    assert!(file.starts_with("# "), "{name} does not name its source");
    hex(&file.lines().filter(|line| !line.starts_with('#')).collect::<String>())
}

#[test]
fn an_open_of_the_node_client_is_read() {
    let bytes = vector("open-dps-node-x509");
    let mut input = BytesMut::from(&bytes[..]);
    assert_eq!(frame::ProtocolHeader::take(&mut input), Some(frame::ProtocolHeader::Amqp));
    let frames = frames(&input, frame::FrameType::Amqp);
    assert_eq!(frames.len(), 1);
    assert_eq!(frames[0].channel, 0);
    let Performative::Open(open) = performative(&frames[0].body) else { panic!("no open") };
    assert_eq!(open.container_id, "cab90a99-05cc-fd49-9b06-2391da3bced9");
    assert_eq!(open.hostname.unwrap(), "127.0.0.77");
    assert_eq!((open.max_frame_size, open.channel_max, open.idle_time_out), (u32::MAX, u16::MAX, None));
}

#[test]
fn the_start_of_a_put_token_of_the_c_client_is_read() {
    // The recorder printed the first 52 bytes: properties, and the first two application properties.
    let bytes = vector("put-token-hub-c-start");
    let properties = bytes.slice(..7);
    let message = Message::decode(&properties).unwrap();
    assert_eq!(message.message_id(), Some(&MessageId::Ulong(0)));
    assert!(Message::decode(&bytes).is_err(), "the rest is missing");
}

#[test]
fn the_start_of_a_reply_that_rhea_wrote_is_read() {
    let message = Message::decode(&vector("put-token-reply-rhea-start")).unwrap();
    assert_eq!(message.correlation_id(), Some(&MessageId::Ulong(0)));
    assert_eq!((message.header, message.body), (Some(Header::default()), Body::Empty));
}

#[test]
fn values_are_written_as_the_standard_says() {
    let described = Value::Described(Box::new(Described {
        descriptor: Symbol::from_static("apache.org:selector-filter:string").into(),
        value: "x".into(),
    }));
    let cases: &[(&str, Value, &str)] = &[
        ("null", Value::Null, "40"),
        ("true", true.into(), "41"),
        ("false", false.into(), "42"),
        ("ubyte", 7u8.into(), "50 07"),
        ("ushort", 7u16.into(), "60 0007"),
        ("uint 0", 0u32.into(), "43"),
        ("small uint", 255u32.into(), "52 ff"),
        ("uint", 256u32.into(), "70 00000100"),
        ("ulong 0", 0u64.into(), "44"),
        ("small ulong", 36u64.into(), "53 24"),
        ("ulong", u64::MAX.into(), "80 ffffffffffffffff"),
        ("byte", (-1i8).into(), "51 ff"),
        ("short", (-1i16).into(), "61 ffff"),
        ("small int", (-128i32).into(), "54 80"),
        ("int", 200i32.into(), "71 000000c8"),
        ("small long", 1i64.into(), "55 01"),
        ("long", 128i64.into(), "81 0000000000000080"),
        ("float", 1.0f32.into(), "72 3f800000"),
        ("double", 1.0f64.into(), "82 3ff0000000000000"),
        ("decimal32", Value::Decimal32([1; 4]), "74 01010101"),
        ("decimal64", Value::Decimal64([1; 8]), "84 0101010101010101"),
        ("decimal128", Value::Decimal128([1; 16]), "94 01010101010101010101010101010101"),
        ("char", 'ä'.into(), "73 000000e4"),
        ("timestamp", Value::Timestamp(-62_135_596_800_000), "83 ffffc77cedd32800"),
        ("uuid", Value::Uuid([2; 16]), "98 02020202020202020202020202020202"),
        ("binary", Bytes::from_static(b"ab").into(), "a0 02 6162"),
        ("string", "$cbs".into(), "a1 04 24636273"),
        ("symbol", Symbol::from_static("a:b").into(), "a3 03 613a62"),
        ("empty list", Value::List(vec![]), "45"),
        ("list", Value::List(vec![Value::Null, true.into()]), "c0 03 02 40 41"),
        ("empty map", Map::EMPTY.into(), "c1 01 00"),
        ("map", Map::from_iter([("a", 1i32)]).into(), "c1 06 02 a1 01 61 54 01"),
        ("empty array", Array::default().into(), "e0 02 00 40"),
        ("array of ints", Array::new(vec![1i32.into(), 2i32.into()]).unwrap().into(), "e0 0a 02 71 00000001 00000002"),
        (
            "array of symbols",
            Array::from(vec![Symbol::from_static("a"), Symbol::from_static("bc")]).into(),
            "e0 07 02 a3 01 61 02 6263",
        ),
        (
            "described",
            described,
            "00 a3 21 6170616368652e6f72673a73656c6563746f722d66696c7465723a737472696e67 a1 01 78",
        ),
    ];
    for (name, value, expected) in cases {
        assert_eq!(encoded_value(value), hex(expected), "{name}");
        assert_eq!(Value::decode(&hex(expected)).as_ref(), Ok(value), "{name}");
    }
}

#[test]
fn every_other_form_of_a_value_is_read() {
    let cases: &[(&str, &str, Value)] = &[
        ("boolean in a byte", "56 01", true.into()),
        ("uint 0 in full", "70 00000000", 0u32.into()),
        ("ulong 1 in full", "80 0000000000000001", 1u64.into()),
        ("int 1 in full", "71 00000001", 1i32.into()),
        ("long 1 in full", "81 0000000000000001", 1i64.into()),
        ("long binary", "b0 00000001 61", Bytes::from_static(b"a").into()),
        ("long string", "b1 00000001 61", "a".into()),
        ("long symbol", "b3 00000001 61", Symbol::from_static("a").into()),
        ("long empty list", "d0 00000004 00000000", Value::List(vec![])),
        ("short empty list", "c0 01 00", Value::List(vec![])),
        ("long map", "d1 00000006 00000002 40 41", Map(vec![(Value::Null, true.into())]).into()),
        ("long array", "f0 00000006 00000001 50 07", Array::new(vec![7u8.into()]).unwrap().into()),
        ("array of small uints", "e0 04 02 52 01 02", Array::new(vec![1u32.into(), 2u32.into()]).unwrap().into()),
        ("array of trues", "e0 02 03 41", Array::new(vec![true.into(); 3]).unwrap().into()),
        ("array of empty lists", "e0 02 02 45", Array::new(vec![Value::List(vec![]); 2]).unwrap().into()),
    ];
    for (name, bytes, expected) in cases {
        assert_eq!(Value::decode(&hex(bytes)).as_ref(), Ok(expected), "{name}");
    }
}

#[test]
fn every_field_of_a_performative_is_written_up_to_the_last() {
    let open = Open {
        container_id: "c".into(),
        hostname: None,
        max_frame_size: 65_536,
        channel_max: 255,
        idle_time_out: None,
        outgoing_locales: vec![],
        incoming_locales: vec![],
        offered_capabilities: vec![],
        desired_capabilities: vec![],
        properties: Map::EMPTY,
    };
    let transfer = Transfer {
        handle: 0,
        delivery_id: Some(0),
        delivery_tag: Some(Bytes::from_static(b"t")),
        message_format: Some(0),
        settled: Some(false),
        more: false,
        rcv_settle_mode: None,
        state: None,
        resume: false,
        aborted: false,
        batchable: false,
    };
    let close =
        Close { error: Some(Box::new(Error { condition: condition::NOT_FOUND, description: None, info: Map::EMPTY })) };
    let cases = [
        (Performative::Open(Box::new(open)), "005310 c0 13 0a a10163 40 7000010000 6000ff 40 40 40 40 40 40"),
        (Performative::Transfer(transfer), "005314 c0 0e 0b 43 43 a00174 43 42 42 40 40 42 42 42"),
        (Performative::End(End { error: None }), "005317 c0 02 01 40"),
        (Performative::Close(close), "005318 c0 1b 01 00531d c0 15 03 a30e616d71703a6e6f742d666f756e64 40 c10100"),
    ];
    for (performative, expected) in cases {
        assert_eq!(encoded(&performative), hex(expected), "{}", performative.name());
    }
}

#[test]
fn fields_may_be_left_out_at_the_end_and_descriptors_be_names() {
    let end = Performative::End(End { error: None });
    let detach = Performative::Detach(Detach { handle: 0, closed: true, error: None });
    let cases: &[(&str, &str, Performative)] = &[
        ("a list without fields", "005317 45", end.clone()),
        ("a short list without fields", "005317 c0 01 00", end.clone()),
        ("nulls beyond the last field", "005317 c0 04 03 404040", end.clone()),
        ("a long descriptor", "00 80 0000000000000017 45", end.clone()),
        ("a descriptor by name", "00 a3 0d 616d71703a656e643a6c697374 45", end),
        ("a detach of two fields", "005316 c0 03 02 43 41", detach),
    ];
    for (name, bytes, expected) in cases {
        assert_eq!(performative(&hex(bytes)), *expected, "{name}");
    }
}

#[test]
fn mechanisms_are_an_array_even_if_there_is_one() {
    let one = SaslFrame::Mechanisms(SaslMechanisms { sasl_server_mechanisms: vec![Symbol::from_static("PLAIN")] });
    assert_eq!(encoded_sasl(&one), hex("005340 c0 0b 01 e0 08 01 a3 05 504c41494e"));
    assert_eq!(SaslFrame::decode(&hex("005340 c0 08 01 a3 05 504c41494e")), Ok(one), "a lone symbol is read");
}

#[test]
fn sections_come_in_any_order_and_bodies_in_any_number() {
    let section = |name: &str| match name {
        "properties" => "005373 c0 04 01 a1 01 69",
        "application properties" => "005374 c1 07 02 a1 01 6b a1 01 76",
        "annotations" => "005372 c1 06 02 a3 01 61 54 01",
        "data a" => "005375 a0 01 61",
        "data b" => "005375 a0 01 62",
        other => panic!("{other}"),
    };
    let message =
        |sections: &[&str]| Message::decode(&hex(&sections.iter().map(|name| section(name)).collect::<String>()));
    let nothing = message(&[]).unwrap();
    assert_eq!(nothing, Message::default());
    let late = message(&["data a", "application properties", "annotations", "data b", "properties"]).unwrap();
    assert_eq!(late.body, Body::Data(vec![Bytes::from_static(b"a"), Bytes::from_static(b"b")]));
    assert_eq!(late.message_id(), Some(&MessageId::String("i".into())));
    assert_eq!(late.application_properties.find("k"), Some(&"v".into()));
    assert_eq!(late.message_annotations.find("a"), Some(&1i32.into()));
    let twice = message(&["properties", "properties"]).unwrap_err();
    assert_eq!(twice, Malformed { offset: 9, fault: Fault::RepeatedSection });
}

#[test]
fn a_body_is_of_one_kind() {
    for (name, bytes) in [
        ("data, then a value", "005375 a0 00 005377 40"),
        ("two values", "005377 40 005377 40"),
        ("a value, then a sequence", "005377 40 005376 45"),
    ] {
        assert_eq!(Message::decode(&hex(bytes)).unwrap_err().fault, Fault::RepeatedSection, "{name}");
    }
}

#[test]
fn frames_are_cut_and_refused_by_their_first_eight_bytes() {
    use frame::{Frame, FrameType, Misframed, decode_frame};

    let frame = |body: &'static [u8]| Ok(Some(Frame { channel: 5, body: Bytes::from_static(body) }));
    let cases: &[(&str, &str, Result<Option<Frame>, Misframed>)] = &[
        ("nothing yet", "", Ok(None)),
        ("a part of a header", "00000008 02 00 00", Ok(None)),
        ("a sign of life", "00000008 02 00 0005", frame(b"")),
        ("an extended header", "0000000d 03 00 0005 ffffffff 61", frame(b"a")),
        ("a body that is under way", "0000000a 02 00 0005 61", Ok(None)),
        ("the longest", "00000200 02 00 0005", Ok(None)),
        ("a lie about the size", "00000201 02 00 0005", Err(Misframed::TooLarge { bytes: 513, max: 512 })),
        ("shorter than itself", "00000007 02 00 0005", Err(Misframed::TooShort(7))),
        ("an offset into the header", "00000008 01 00 0005", Err(Misframed::DataOffset(1))),
        ("an offset beyond the end", "00000008 03 00 0005", Err(Misframed::DataOffset(3))),
        ("a frame of SASL", "00000008 02 01 0005", Err(Misframed::FrameType(1))),
    ];
    for (name, bytes, expected) in cases {
        let mut input = BytesMut::from(&hex(bytes)[..]);
        assert_eq!(decode_frame(&mut input, FrameType::Amqp, 512), *expected, "{name}");
    }
}

#[test]
fn protocol_headers_are_told_apart_as_soon_as_they_can_be() {
    use frame::ProtocolHeader::{self, Amqp, Foreign, Sasl, Tls};

    let cases: &[(&str, &[u8], Option<ProtocolHeader>)] = &[
        ("nothing", b"", None),
        ("a part", b"AMQP\x03", None),
        ("without SASL", b"AMQP\x00\x01\x00\x00", Some(Amqp)),
        ("with SASL", b"AMQP\x03\x01\x00\x00", Some(Sasl)),
        ("with TLS", b"AMQP\x02\x01\x00\x00", Some(Tls)),
        ("AMQP 0-9-1", b"AMQP\x00\x00\x09\x01", Some(Foreign(*b"AMQP\x00\x00\x09\x01"))),
        ("HTTP, cut short", b"GE", Some(Foreign(*b"GE\0\0\0\0\0\0"))),
    ];
    for (name, bytes, expected) in cases {
        let mut input = BytesMut::from(*bytes);
        assert_eq!(ProtocolHeader::take(&mut input), *expected, "{name}");
    }
}

proptest! {
    #[test]
    fn values_come_back(value in samples::value()) {
        prop_assert_eq!(Value::decode(&encoded_value(&value)), Ok(value));
    }

    #[test]
    fn performatives_come_back_and_leave_the_payload(sample in samples::performative(), payload: [u8; 3]) {
        let mut bytes = encoded(&sample).to_vec();
        bytes.extend(payload);
        prop_assert_eq!(Performative::decode(&bytes.into()), Ok((sample, Bytes::copy_from_slice(&payload))));
    }

    #[test]
    fn sasl_frames_come_back(sample in samples::sasl_frame()) {
        prop_assert_eq!(SaslFrame::decode(&encoded_sasl(&sample)), Ok(sample));
    }

    #[test]
    fn messages_come_back(message in samples::message()) {
        prop_assert_eq!(Message::decode(&message.to_bytes()), Ok(message));
    }

    #[test]
    fn a_part_of_a_performative_is_none(sample in samples::performative(), cut: prop::sample::Index) {
        let bytes = encoded(&sample);
        let part = bytes.slice(..cut.index(bytes.len()));
        prop_assert!(Performative::decode(&part).is_err());
    }
}
