//! The codec against `serde_amqp` and `fe2o3-amqp-types`, which nobody here wrote: what one writes, the other reads.

use bytes::Bytes;
use proptest::prelude::*;
use serde_amqp::{from_slice, to_vec};

use super::{encoded, encoded_sasl, encoded_value, performative, samples};
use crate::amqp::*;

use fe2o3_amqp_types::definitions as their_definitions;
use fe2o3_amqp_types::messaging as their_messaging;
use fe2o3_amqp_types::performatives as theirs;
use fe2o3_amqp_types::sasl as their_sasl;

/// Gives our bytes to their type, and what that writes back.
fn through<T: serde_amqp::serde::de::DeserializeOwned + serde_amqp::serde::Serialize>(bytes: &[u8]) -> Bytes {
    let read: T = from_slice(bytes).unwrap_or_else(|error| panic!("{error}: {}", hex::encode(bytes)));
    to_vec(&read).unwrap().into()
}

/// Whether their `Value` holds a value without loss.
fn is_shared(value: &Value) -> bool {
    match value {
        Value::List(values) => values.iter().all(is_shared),
        // Theirs keeps the last entry of a key, and reads keys of a few types alone.
        Value::Map(map) => {
            let keys: Vec<_> = map.0.iter().map(|(key, _)| encoded_value(key)).collect();
            let is_common = |key: &Value| key.as_str().is_some() || key.as_i64().is_some();
            (1..keys.len()).all(|index| !keys[..index].contains(&keys[index]))
                && map.0.iter().all(|(key, value)| is_common(key) && is_shared(value))
        }
        // Theirs reads and writes arrays of a few types alone, and none without elements.
        Value::Array(array) => {
            let is_common = |value: &Value| value.as_i64().is_some() || matches!(value, Value::Symbol(_));
            !array.values().is_empty() && array.values().iter().all(is_common)
        }
        Value::Described(described) => is_shared(&described.value),
        _ => true,
    }
}

fn through_them(ours: &Performative) -> Performative {
    let bytes = encoded(ours);
    performative(&match ours {
        Performative::Open(_) => through::<theirs::Open>(&bytes),
        Performative::Begin(_) => through::<theirs::Begin>(&bytes),
        Performative::Attach(_) => through::<theirs::Attach>(&bytes),
        Performative::Flow(_) => through::<theirs::Flow>(&bytes),
        Performative::Transfer(_) => through::<theirs::Transfer>(&bytes),
        Performative::Disposition(_) => through::<theirs::Disposition>(&bytes),
        Performative::Detach(_) => through::<theirs::Detach>(&bytes),
        Performative::End(_) => through::<theirs::End>(&bytes),
        Performative::Close(_) => through::<theirs::Close>(&bytes),
    })
}

proptest! {
    #[test]
    fn values_pass_through_their_codec(value in samples::value().prop_filter("shared", is_shared)) {
        let bytes = through::<serde_amqp::Value>(&encoded_value(&value));
        prop_assert_eq!(Value::decode(&bytes), Ok(value));
    }

    #[test]
    fn performatives_pass_through_their_codec(ours in samples::performative()) {
        prop_assert_eq!(through_them(&ours), ours);
    }

    #[test]
    fn sasl_frames_pass_through_their_codec(ours in samples::sasl_frame()) {
        let bytes = encoded_sasl(&ours);
        let back = match ours {
            SaslFrame::Mechanisms(_) => through::<their_sasl::SaslMechanisms>(&bytes),
            SaslFrame::Init(_) => through::<their_sasl::SaslInit>(&bytes),
            SaslFrame::Challenge(_) => through::<their_sasl::SaslChallenge>(&bytes),
            SaslFrame::Response(_) => through::<their_sasl::SaslResponse>(&bytes),
            SaslFrame::Outcome(_) => through::<their_sasl::SaslOutcome>(&bytes),
        };
        prop_assert_eq!(SaslFrame::decode(&back), Ok(ours));
    }
}

fn ours(theirs: &impl serde_amqp::serde::Serialize) -> Performative {
    performative(&Bytes::from(to_vec(theirs).unwrap()))
}

/// Fields of one type could change places on the way there and back: here each has a value of its own.
#[test]
fn each_field_is_theirs_of_that_name() {
    let open = theirs::Open {
        container_id: "c".into(),
        hostname: Some("h".into()),
        max_frame_size: 1000.into(),
        channel_max: 7.into(),
        idle_time_out: Some(5),
        outgoing_locales: Some(vec!["ol".into()].into()),
        incoming_locales: Some(vec!["il".into()].into()),
        offered_capabilities: Some(vec!["oc".into()].into()),
        desired_capabilities: Some(vec!["dc".into()].into()),
        properties: None,
    };
    let symbols = |name: &'static str| vec![Symbol::from_static(name)];
    let expected = Open {
        container_id: "c".into(),
        hostname: Some("h".into()),
        max_frame_size: 1000,
        channel_max: 7,
        idle_time_out: Some(5),
        outgoing_locales: symbols("ol"),
        incoming_locales: symbols("il"),
        offered_capabilities: symbols("oc"),
        desired_capabilities: symbols("dc"),
        properties: Map::EMPTY,
    };
    assert_eq!(ours(&open), Performative::Open(Box::new(expected)));

    let flow = theirs::Flow {
        next_incoming_id: Some(1),
        incoming_window: 2,
        next_outgoing_id: 3,
        outgoing_window: 4,
        handle: Some(their_definitions::Handle(5)),
        delivery_count: Some(6),
        link_credit: Some(7),
        available: Some(8),
        drain: true,
        echo: false,
        properties: None,
    };
    let expected = Flow {
        next_incoming_id: Some(1),
        incoming_window: 2,
        next_outgoing_id: 3,
        outgoing_window: 4,
        handle: Some(5),
        delivery_count: Some(6),
        link_credit: Some(7),
        available: Some(8),
        drain: true,
        echo: false,
        properties: Map::EMPTY,
    };
    assert_eq!(ours(&flow), Performative::Flow(expected));
}

#[test]
fn each_number_and_flag_is_theirs_of_that_name() {
    let begin = theirs::Begin {
        remote_channel: Some(1),
        next_outgoing_id: 2,
        incoming_window: 3,
        outgoing_window: 4,
        handle_max: their_definitions::Handle(5),
        offered_capabilities: None,
        desired_capabilities: None,
        properties: None,
    };
    let Performative::Begin(begin) = ours(&begin) else { panic!("another performative") };
    let found = (begin.remote_channel, begin.next_outgoing_id, begin.incoming_window, begin.outgoing_window);
    assert_eq!(found, (Some(1), 2, 3, 4));
    assert_eq!(begin.handle_max, 5);

    for flags in [[true, false, false, false], [false, true, false, false], [false, false, true, false]] {
        let [more, resume, aborted, batchable] = flags;
        let transfer = theirs::Transfer {
            handle: their_definitions::Handle(1),
            delivery_id: Some(2),
            delivery_tag: Some(vec![3].into()),
            message_format: Some(4),
            settled: Some(true),
            more,
            rcv_settle_mode: Some(their_definitions::ReceiverSettleMode::Second),
            state: Some(their_messaging::DeliveryState::Released(their_messaging::Released {})),
            resume,
            aborted,
            batchable,
        };
        let Performative::Transfer(transfer) = ours(&transfer) else { panic!("another performative") };
        assert_eq!((transfer.handle, transfer.delivery_id, transfer.message_format), (1, Some(2), Some(4)));
        assert_eq!(transfer.rcv_settle_mode, Some(ReceiverSettleMode::Second));
        assert_eq!(transfer.state, Some(DeliveryState::Released));
        assert_eq!([transfer.more, transfer.resume, transfer.aborted, transfer.batchable], flags);
    }
}

#[test]
fn each_property_of_a_message_is_theirs_of_that_name() {
    let properties = their_messaging::Properties::builder()
        .message_id("id".to_owned())
        .user_id(vec![1])
        .to("to")
        .subject("subject")
        .reply_to("reply")
        .correlation_id(9u64)
        .content_type("type")
        .content_encoding("encoding")
        .group_id("group".to_owned())
        .group_sequence(4)
        .reply_to_group_id("reply-group".to_owned())
        .build();
    let bytes = to_vec(&properties).unwrap().into();
    let message = Message::decode(&bytes).unwrap();
    let expected = Properties {
        message_id: Some(MessageId::String("id".into())),
        user_id: Some(Bytes::from_static(&[1])),
        to: Some("to".into()),
        subject: Some("subject".into()),
        reply_to: Some("reply".into()),
        correlation_id: Some(MessageId::Ulong(9)),
        content_type: Some(Symbol::from_static("type")),
        content_encoding: Some(Symbol::from_static("encoding")),
        group_id: Some("group".into()),
        group_sequence: Some(4),
        reply_to_group_id: Some("reply-group".into()),
        ..Properties::default()
    };
    assert_eq!(message.properties.as_deref(), Some(&expected));
}
