//! Values, performatives and messages for property tests.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::amqp::*;

/// A value of any type.
pub(in crate::amqp) fn value() -> BoxedStrategy<Value> {
    leaf()
        .prop_recursive(4, 48, 6, |inner| {
            prop_oneof![
                3 => vec(inner.clone(), 0..6).prop_map(Value::List),
                3 => vec((leaf(), inner.clone()), 0..5).prop_map(|entries| Value::Map(Map(entries))),
                2 => (inner.clone(), 0usize..4).prop_map(|(value, count)| {
                    Value::Array(Array::new(vec![value; count]).unwrap())
                }),
                1 => array_of_integers(),
                2 => (descriptor(), inner).prop_map(|(descriptor, value)| {
                    Value::Described(Box::new(Described { descriptor, value }))
                }),
            ]
        })
        .boxed()
}

fn leaf() -> BoxedStrategy<Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u8>().prop_map(Value::from),
        any::<u16>().prop_map(Value::from),
        uint().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (0u64..300).prop_map(Value::from),
        any::<i8>().prop_map(Value::from),
        any::<i16>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        (-130i32..130).prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-130i64..130).prop_map(Value::from),
        any::<f32>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<[u8; 4]>().prop_map(Value::Decimal32),
        any::<[u8; 8]>().prop_map(Value::Decimal64),
        any::<[u8; 16]>().prop_map(Value::Decimal128),
        any::<char>().prop_map(Value::from),
        any::<i64>().prop_map(Value::Timestamp),
        any::<[u8; 16]>().prop_map(Value::Uuid),
        binary().prop_map(Value::from),
        text().prop_map(Value::from),
        symbol().prop_map(Value::from),
    ]
    .boxed()
}

fn array_of_integers() -> impl Strategy<Value = Value> {
    vec(any::<i64>().prop_map(Value::from), 0..5).prop_map(|values| Value::Array(Array::new(values).unwrap()))
}

fn descriptor() -> impl Strategy<Value = Value> {
    prop_oneof![symbol().prop_map(Value::from), (0x100u64..u64::MAX).prop_map(Value::from)]
}

fn uint() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), 1..300u32, any::<u32>()]
}

fn binary() -> impl Strategy<Value = Bytes> {
    prop_oneof![8 => vec(any::<u8>(), 0..40), 1 => vec(any::<u8>(), 250..300)].prop_map(Bytes::from)
}

fn text() -> BoxedStrategy<Text> {
    prop_oneof![8 => "\\PC{0,12}", 1 => "[a-zä]{250,270}"].prop_map(Text::from).boxed()
}

fn symbol() -> BoxedStrategy<Symbol> {
    "[a-z:.-]{0,20}".prop_map(|text| Symbol::try_from(text).unwrap()).boxed()
}

fn symbols() -> impl Strategy<Value = Vec<Symbol>> {
    prop_oneof![2 => Just(Vec::new()), 1 => vec(symbol(), 1..4)]
}

/// A map with keys that are symbols, each once.
fn map() -> BoxedStrategy<Map> {
    let entries = vec((symbol(), leaf()), 0..4).prop_map(|mut entries| {
        entries.sort_by(|(one, _), (other, _)| one.cmp(other));
        entries.dedup_by(|(one, _), (other, _)| one == other);
        entries.into_iter().collect::<Map>()
    });
    prop_oneof![2 => Just(Map::EMPTY), 1 => entries].boxed()
}

pub(in crate::amqp) fn error() -> BoxedStrategy<Error> {
    let condition = prop_oneof![
        Just(condition::NOT_FOUND),
        Just(condition::TRANSFER_LIMIT_EXCEEDED),
        "com\\.microsoft:[a-z]{1,9}".prop_map(|text| Symbol::try_from(text).unwrap()),
    ];
    (condition, option::of(text()), map())
        .prop_map(|(condition, description, info)| Error { condition, description, info })
        .boxed()
}

pub(in crate::amqp) fn state() -> BoxedStrategy<DeliveryState> {
    prop_oneof![
        (uint(), any::<u64>()).prop_map(|(section_number, section_offset)| {
            DeliveryState::Received(Received { section_number, section_offset })
        }),
        Just(DeliveryState::Accepted),
        option::of(error()).prop_map(|error| DeliveryState::Rejected(Box::new(Rejected { error }))),
        Just(DeliveryState::Released),
        (any::<bool>(), any::<bool>(), map()).prop_map(|(delivery_failed, undeliverable_here, message_annotations)| {
            DeliveryState::Modified(Box::new(Modified { delivery_failed, undeliverable_here, message_annotations }))
        }),
    ]
    .boxed()
}

fn source() -> BoxedStrategy<Source> {
    let ends = (option::of(text()), 0u32..3, uint(), any::<bool>());
    (ends, map(), option::of(outcome()), symbols(), symbols())
        .prop_map(|((address, durable, timeout, dynamic), filter, default_outcome, outcomes, capabilities)| Source {
            address,
            durable,
            timeout,
            dynamic,
            filter,
            default_outcome: default_outcome.map(Box::new),
            outcomes,
            capabilities,
            expiry_policy: Symbol::from_static("never"),
            distribution_mode: Some(Symbol::from_static("copy")),
            ..Source::default()
        })
        .boxed()
}

fn outcome() -> impl Strategy<Value = DeliveryState> {
    state().prop_filter("received is no outcome", DeliveryState::is_outcome)
}

fn target() -> BoxedStrategy<AttachTarget> {
    let node = (option::of(text()), 0u32..3, uint(), any::<bool>(), symbols()).prop_map(
        |(address, durable, timeout, dynamic, capabilities)| {
            AttachTarget::Node(Target { address, durable, timeout, dynamic, capabilities, ..Target::default() })
        },
    );
    prop_oneof![4 => node, 1 => Just(AttachTarget::Coordinator(Coordinator { capabilities: Vec::new() }))].boxed()
}

fn role() -> impl Strategy<Value = Role> {
    prop_oneof![Just(Role::Sender), Just(Role::Receiver)]
}

fn snd_settle_mode() -> impl Strategy<Value = SenderSettleMode> {
    prop_oneof![Just(SenderSettleMode::Unsettled), Just(SenderSettleMode::Settled), Just(SenderSettleMode::Mixed)]
}

fn rcv_settle_mode() -> impl Strategy<Value = ReceiverSettleMode> {
    prop_oneof![Just(ReceiverSettleMode::First), Just(ReceiverSettleMode::Second)]
}

/// Any performative.
pub(in crate::amqp) fn performative() -> BoxedStrategy<Performative> {
    prop_oneof![
        open().prop_map(|open| Performative::Open(Box::new(open))),
        begin().prop_map(|begin| Performative::Begin(Box::new(begin))),
        attach().prop_map(|attach| Performative::Attach(Box::new(attach))),
        flow().prop_map(Performative::Flow),
        transfer().prop_map(Performative::Transfer),
        (role(), uint(), option::of(uint()), any::<bool>(), option::of(state()), any::<bool>()).prop_map(
            |(role, first, last, settled, state, batchable)| {
                Performative::Disposition(Disposition { role, first, last, settled, state, batchable })
            }
        ),
        (uint(), any::<bool>(), option::of(error())).prop_map(|(handle, closed, error)| {
            Performative::Detach(Detach { handle, closed, error: error.map(Box::new) })
        }),
        option::of(error()).prop_map(|error| Performative::End(End { error: error.map(Box::new) })),
        option::of(error()).prop_map(|error| Performative::Close(Close { error: error.map(Box::new) })),
    ]
    .boxed()
}

fn open() -> BoxedStrategy<Open> {
    let numbers = (uint(), any::<u16>(), option::of(uint()));
    let many = (symbols(), symbols(), symbols(), symbols(), map());
    (text(), option::of(text()), numbers, many)
        .prop_map(|(container_id, hostname, (max_frame_size, channel_max, idle_time_out), many)| {
            let (outgoing_locales, incoming_locales, offered_capabilities, desired_capabilities, properties) = many;
            Open {
                container_id,
                hostname,
                max_frame_size,
                channel_max,
                idle_time_out,
                outgoing_locales,
                incoming_locales,
                offered_capabilities,
                desired_capabilities,
                properties,
            }
        })
        .boxed()
}

fn begin() -> BoxedStrategy<Begin> {
    let numbers = (option::of(any::<u16>()), uint(), uint(), uint(), uint());
    (numbers, symbols(), symbols(), map())
        .prop_map(|(numbers, offered_capabilities, desired_capabilities, properties)| {
            let (remote_channel, next_outgoing_id, incoming_window, outgoing_window, handle_max) = numbers;
            Begin {
                remote_channel,
                next_outgoing_id,
                incoming_window,
                outgoing_window,
                handle_max,
                offered_capabilities,
                desired_capabilities,
                properties,
            }
        })
        .boxed()
}

fn attach() -> BoxedStrategy<Attach> {
    let modes = (role(), snd_settle_mode(), rcv_settle_mode());
    let ends = (option::of(source()), option::of(target()));
    let many = (option::of(uint()), option::of(any::<u64>()), symbols(), symbols(), map());
    (text(), uint(), modes, ends, many)
        .prop_map(|(name, handle, modes, (source, target), many)| {
            let (role, snd_settle_mode, rcv_settle_mode) = modes;
            let (initial_delivery_count, max_message_size, offered_capabilities, desired_capabilities, properties) =
                many;
            Attach {
                name,
                handle,
                role,
                snd_settle_mode,
                rcv_settle_mode,
                source: source.map(Box::new),
                target: target.map(Box::new),
                unsettled: Map::EMPTY,
                incomplete_unsettled: false,
                initial_delivery_count,
                max_message_size,
                offered_capabilities,
                desired_capabilities,
                properties,
            }
        })
        .boxed()
}

fn flow() -> BoxedStrategy<Flow> {
    let session = (option::of(uint()), uint(), uint(), uint());
    let link = (option::of(uint()), option::of(uint()), option::of(uint()), option::of(uint()));
    (session, link, any::<bool>(), any::<bool>(), map())
        .prop_map(|(session, link, drain, echo, properties)| {
            let (next_incoming_id, incoming_window, next_outgoing_id, outgoing_window) = session;
            let (handle, delivery_count, link_credit, available) = link;
            Flow {
                next_incoming_id,
                incoming_window,
                next_outgoing_id,
                outgoing_window,
                handle,
                delivery_count,
                link_credit,
                available,
                drain,
                echo,
                properties,
            }
        })
        .boxed()
}

fn transfer() -> BoxedStrategy<Transfer> {
    let delivery = (uint(), option::of(uint()), option::of(tag()), option::of(uint()), option::of(any::<bool>()));
    let modes = (option::of(rcv_settle_mode()), option::of(state()));
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    (delivery, modes, flags)
        .prop_map(|(delivery, (rcv_settle_mode, state), flags)| {
            let (handle, delivery_id, delivery_tag, message_format, settled) = delivery;
            let (more, resume, aborted, batchable) = flags;
            Transfer {
                handle,
                delivery_id,
                delivery_tag,
                message_format,
                settled,
                more,
                rcv_settle_mode,
                state,
                resume,
                aborted,
                batchable,
            }
        })
        .boxed()
}

fn tag() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..=DELIVERY_TAG_BYTES_MAX).prop_map(Bytes::from)
}

/// Any frame of a SASL exchange.
pub(in crate::amqp) fn sasl_frame() -> BoxedStrategy<SaslFrame> {
    let code = prop_oneof![Just(SaslCode::Ok), Just(SaslCode::Auth), Just(SaslCode::SysTemp)];
    prop_oneof![
        vec(symbol(), 1..5)
            .prop_map(|sasl_server_mechanisms| { SaslFrame::Mechanisms(SaslMechanisms { sasl_server_mechanisms }) }),
        (symbol(), option::of(binary()), option::of(text())).prop_map(|(mechanism, initial_response, hostname)| {
            SaslFrame::Init(SaslInit { mechanism, initial_response, hostname })
        }),
        binary().prop_map(|challenge| SaslFrame::Challenge(SaslChallenge { challenge })),
        binary().prop_map(|response| SaslFrame::Response(SaslResponse { response })),
        (code, option::of(binary()))
            .prop_map(|(code, additional_data)| { SaslFrame::Outcome(SaslOutcome { code, additional_data }) }),
    ]
    .boxed()
}

fn message_id() -> impl Strategy<Value = MessageId> {
    prop_oneof![
        any::<u64>().prop_map(MessageId::Ulong),
        any::<[u8; 16]>().prop_map(MessageId::Uuid),
        binary().prop_map(MessageId::Binary),
        text().prop_map(MessageId::String),
    ]
}

fn properties() -> BoxedStrategy<Properties> {
    let ids = (option::of(message_id()), option::of(binary()), option::of(message_id()));
    let texts = (option::of(text()), option::of(text()), option::of(text()), option::of(text()), option::of(text()));
    let times = (option::of(any::<i64>()), option::of(any::<i64>()), option::of(uint()));
    (ids, texts, option::of(symbol()), option::of(symbol()), times)
        .prop_map(|((message_id, user_id, correlation_id), texts, content_type, content_encoding, times)| {
            let (to, subject, reply_to, group_id, reply_to_group_id) = texts;
            let (absolute_expiry_time, creation_time, group_sequence) = times;
            Properties {
                message_id,
                user_id,
                to,
                subject,
                reply_to,
                correlation_id,
                content_type,
                content_encoding,
                absolute_expiry_time,
                creation_time,
                group_id,
                group_sequence,
                reply_to_group_id,
            }
        })
        .boxed()
}

fn body() -> BoxedStrategy<Body> {
    prop_oneof![
        Just(Body::Empty),
        vec(binary(), 1..4).prop_map(Body::Data),
        vec(vec(leaf(), 0..4), 1..4).prop_map(Body::Sequences),
        value().prop_map(Body::Value),
    ]
    .boxed()
}

/// Any message.
pub(in crate::amqp) fn message() -> BoxedStrategy<Message> {
    let header = (any::<bool>(), any::<u8>(), option::of(uint()), any::<bool>(), uint()).prop_map(
        |(durable, priority, ttl, first_acquirer, delivery_count)| Header {
            durable,
            priority,
            ttl,
            first_acquirer,
            delivery_count,
        },
    );
    let maps = (map(), map(), map(), map());
    (option::of(header), maps, option::of(properties()), body())
        .prop_map(|(header, maps, properties, body)| {
            let (delivery_annotations, message_annotations, application_properties, footer) = maps;
            Message {
                header,
                delivery_annotations,
                message_annotations,
                properties: properties.map(Box::new),
                application_properties,
                body,
                footer,
            }
        })
        .boxed()
}
