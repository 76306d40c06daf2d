//! Links, credit, deliveries in both directions.

use super::*;

#[test]
fn a_put_token_is_accepted_before_it_is_answered() {
    // The order that the C client insists on (`contract/hub-device.md` 4.3), on links as it attaches them.
    let (mut script, _) = Script::with_session(Limits::default());
    let requests = script.link(0, Role::Sender);
    let replies = script.link(1, Role::Receiver);
    script.connection.grant_credit(requests, 1000);
    let [Performative::Flow(granted)] = &script.performatives()[..] else { panic!("no flow") };
    assert_eq!((granted.handle, granted.delivery_count, granted.link_credit), (Some(0), Some(0), Some(1000)));
    assert_eq!((granted.next_incoming_id, granted.incoming_window), (Some(0), 2048));

    script.receive_with(1, &Performative::Transfer(transfer(0, 0)), b"token");
    let delivery = script.delivery();
    assert_eq!((delivery.link, &delivery.payload[..], delivery.is_settled), (requests, &b"token"[..], false));

    script.connection.settle(delivery.id, DeliveryState::Accepted);
    script.connection.send(replies, outgoing(b"0123456789abcdef", b"200")).unwrap();
    assert_eq!(script.performatives(), [disposition(Role::Receiver, 0, 0, true, DeliveryState::Accepted)]);
    assert_eq!(script.connection.queued(), 1, "there is no credit");

    script.receive(&[(1, Performative::Flow(Flow { next_outgoing_id: 1, ..flow(1, 0, 10_000) }))]);
    assert_eq!(script.events(), [Event::Credit { link: replies }]);
    let sent = script.sent();
    let [(1, Performative::Transfer(reply), payload)] = &sent[..] else { panic!("no reply: {sent:?}") };
    assert_eq!((reply.handle, reply.delivery_id, reply.message_format), (1, Some(0), Some(0)));
    assert_eq!((reply.settled, reply.more), (Some(false), false));
    assert_eq!(reply.delivery_tag.as_deref(), Some(&b"0123456789abcdef"[..]));
    assert_eq!(payload[..], b"200"[..]);

    script.receive(&[(1, disposition(Role::Receiver, 0, 0, true, DeliveryState::Accepted))]);
    let events = script.events();
    let [Event::Outcome { link, state: Some(DeliveryState::Accepted), is_settled: true, tag, .. }] = &events[..] else {
        panic!("no outcome: {events:?}")
    };
    assert_eq!((*link, &tag[..]), (replies, &b"0123456789abcdef"[..]));
}

#[test]
fn an_attach_is_answered_in_full_with_the_bound_on_messages() {
    let (mut script, _) = Script::with_session(Limits::default());
    for role in [Role::Sender, Role::Receiver] {
        let attach = attach(u32::from(role == Role::Receiver) + 5, role);
        let link = script.attached(attach.clone());
        script.connection.accept_link(link, LinkTerms::echo(&attach, 262_144));
        let [Performative::Attach(answer)] = &script.performatives()[..] else { panic!("no attach") };
        assert_eq!(
            (&answer.name, answer.role, answer.max_message_size),
            (&attach.name, role.opposite(), Some(262_144))
        );
        assert_eq!((&answer.source, &answer.target), (&attach.source, &attach.target));
        let count = if role == Role::Receiver { Some(0) } else { None };
        assert_eq!(answer.initial_delivery_count, count, "there if we send");
    }
}

#[test]
fn a_refused_link_is_attached_to_nothing_and_closed() {
    for role in [Role::Sender, Role::Receiver] {
        let (mut script, _) = Script::with_session(Limits::default());
        let link = script.attached(attach(3, role));
        script.connection.refuse_link(link, Error::new(condition::NOT_FOUND, "404006"));
        let by_itself = frames(script.connection.output());
        assert!(matches!(by_itself[..], [(_, Performative::Attach(_), _)]), "{by_itself:?}");
        let sent = script.performatives();
        let [Performative::Attach(answer), Performative::Detach(detach)] = &sent[..] else { panic!("{sent:?}") };
        assert_eq!((answer.target.is_none(), answer.source.is_none()), (role == Role::Sender, role == Role::Receiver));
        assert!(detach.closed && detach.error.is_some());

        script.receive(&[(1, Performative::Detach(Detach { handle: 3, closed: true, error: None }))]);
        assert_eq!(script.events(), [Event::Detach { link, is_closed: true, error: None }]);
        assert_eq!(script.sent(), []);
        script.attached(attach(3, role));
    }
}

#[test]
fn a_coordinator_is_shown_as_one() {
    let (mut script, _) = Script::with_session(Limits::default());
    let coordinator = AttachTarget::Coordinator(Coordinator { capabilities: Vec::new() });
    let attach = Attach { target: Some(Box::new(coordinator)), ..attach(0, Role::Sender) };
    script.receive(&[(1, Performative::Attach(Box::new(attach)))]);
    let [Event::Attach { attach, .. }] = &script.events()[..] else { panic!("no link") };
    assert_eq!(attach.target.as_ref().unwrap().node(), None);
}

#[test]
fn parts_of_a_message_are_put_together_and_given_up_parts_forgotten() {
    let (mut script, _) = Script::with_session(Limits::default());
    let link = script.link(0, Role::Sender);
    script.connection.grant_credit(link, 3);
    let part = |more, aborted| {
        let rest = Transfer { delivery_id: None, delivery_tag: None, message_format: None, ..transfer(0, 0) };
        Performative::Transfer(Transfer { more, aborted, ..rest })
    };
    let first = |number| {
        Performative::Transfer(Transfer { more: true, message_format: Some(0x8001_3700), ..transfer(0, number) })
    };
    script.receive_with(1, &first(0), b"a");
    script.receive_with(1, &part(true, false), b"b");
    assert_eq!(script.events(), []);
    script.receive_with(1, &part(false, false), b"c");
    let delivery = script.delivery();
    assert_eq!((&delivery.payload[..], delivery.message_format), (&b"abc"[..], 0x8001_3700));

    script.receive_with(1, &first(1), b"a");
    script.receive_with(1, &part(false, true), b"");
    script.receive_with(1, &Performative::Transfer(Transfer { settled: Some(true), ..transfer(0, 2) }), b"d");
    let delivery = script.delivery();
    assert_eq!((&delivery.payload[..], delivery.is_settled), (&b"d"[..], true));
    assert_eq!(script.connection.credit(link), 0);
    assert_eq!(script.connection.unsettled(), 1);
    assert_eq!(script.connection.unfinished_bytes, 0);
}

#[test]
fn neighbours_with_one_outcome_are_settled_in_one_disposition() {
    let (mut script, _) = Script::with_session(Limits::default());
    let link = script.link(0, Role::Sender);
    script.connection.grant_credit(link, 10);
    script.sent();
    let mut ids = Vec::new();
    for number in 0..6 {
        script.receive_with(1, &Performative::Transfer(transfer(0, number)), b"");
        ids.push(script.delivery().id);
    }
    for (index, state) in [
        (4, DeliveryState::Accepted),
        (0, DeliveryState::Accepted),
        (1, DeliveryState::Accepted),
        (2, DeliveryState::Accepted),
        (3, DeliveryState::Released),
        (3, DeliveryState::Accepted),
    ] {
        script.connection.settle(ids[index], state);
    }
    assert_eq!(
        script.performatives(),
        [
            disposition(Role::Receiver, 4, 4, true, DeliveryState::Accepted),
            disposition(Role::Receiver, 0, 2, true, DeliveryState::Accepted),
            disposition(Role::Receiver, 3, 3, true, DeliveryState::Released),
        ],
        "in the order they were settled, each once"
    );
    assert_eq!(script.connection.unsettled(), 1);
}

#[test]
fn a_receiver_that_settles_second_waits_for_the_sender() {
    // C# with cloud-to-device messages (`contract/hub-device.md` 4.7).
    let (mut script, _) = Script::with_session(Limits::default());
    let second = Attach { rcv_settle_mode: ReceiverSettleMode::Second, ..attach(0, Role::Receiver) };
    let link = script.link_with(&second, |_| {});
    script.receive(&[(1, Performative::Flow(flow(0, 0, 50)))]);
    script.events();
    script.connection.send(link, outgoing(b"t", b"m")).unwrap();
    script.sent();
    script.receive(&[(1, disposition(Role::Receiver, 0, 0, false, DeliveryState::Accepted))]);
    let events = script.events();
    let [Event::Outcome { id, state: Some(DeliveryState::Accepted), is_settled: false, .. }] = events[..] else {
        panic!("no outcome: {events:?}")
    };
    assert_eq!(script.sent(), [], "the caller has not settled");
    script.connection.settle(id, DeliveryState::Accepted);
    script.connection.settle(id, DeliveryState::Accepted);
    assert_eq!(script.performatives(), [disposition(Role::Sender, 0, 0, true, DeliveryState::Accepted)]);
}

#[test]
fn a_sender_that_settles_first_is_waited_for() {
    let (mut script, _) = Script::with_session(Limits::default());
    let settle_second = |terms: &mut LinkTerms| terms.rcv_settle_mode = ReceiverSettleMode::Second;
    let link = script.link_with(&attach(0, Role::Sender), settle_second);
    script.connection.grant_credit(link, 1);
    script.sent();
    script.receive_with(1, &Performative::Transfer(transfer(0, 0)), b"m");
    let delivery = script.delivery();
    script.connection.settle(delivery.id, DeliveryState::Accepted);
    assert_eq!(script.performatives(), [disposition(Role::Receiver, 0, 0, false, DeliveryState::Accepted)]);
    assert_eq!(script.connection.unsettled(), 1);
    script.receive(&[(1, disposition(Role::Sender, 0, 0, true, DeliveryState::Accepted))]);
    assert_eq!(script.events(), []);
    assert_eq!(script.connection.unsettled(), 0);
}

#[test]
fn a_sender_that_asks_us_to_settle_second_is_not_waited_for() {
    // Python's uAMQP asks so, and never settles.
    let (mut script, _) = Script::with_session(Limits::default());
    let second = Attach { rcv_settle_mode: ReceiverSettleMode::Second, ..attach(0, Role::Sender) };
    assert_eq!(LinkTerms::echo(&second, 0).rcv_settle_mode, ReceiverSettleMode::First);
    let link = script.link_with(&second, |_| {});
    script.connection.grant_credit(link, 1);
    script.sent();
    script.receive_with(1, &Performative::Transfer(transfer(0, 0)), b"m");
    let delivery = script.delivery();
    script.connection.settle(delivery.id, DeliveryState::Accepted);
    assert_eq!(script.performatives(), [disposition(Role::Receiver, 0, 0, true, DeliveryState::Accepted)]);
}

#[test]
fn a_transfer_may_be_settled_first_on_a_link_of_second_and_not_the_other_way_round() {
    use ReceiverSettleMode::{First, Second};
    let cases = [(First, None, true), (First, Some(Second), true), (Second, None, false), (Second, Some(First), true)];
    for (of_link, of_transfer, settled) in cases {
        let (mut script, _) = Script::with_session(Limits::default());
        let link = script.link_with(&attach(0, Role::Sender), |terms| terms.rcv_settle_mode = of_link);
        script.connection.grant_credit(link, 1);
        script.sent();
        let transfer = Transfer { rcv_settle_mode: of_transfer, ..transfer(0, 0) };
        script.receive_with(1, &Performative::Transfer(transfer), b"m");
        let delivery = script.delivery();
        script.connection.settle(delivery.id, DeliveryState::Accepted);
        let name = format!("{of_transfer:?} on {of_link:?}");
        let expected = [disposition(Role::Receiver, 0, 0, settled, DeliveryState::Accepted)];
        assert_eq!(script.performatives(), expected, "{name}");
        assert_eq!(script.connection.unsettled(), usize::from(!settled), "{name}");
    }
}

#[test]
fn a_forgotten_delivery_is_settled_as_soon_as_an_outcome_is_told() {
    let (mut script, _) = Script::with_session(Limits { in_flight_max: 0, ..Limits::default() });
    let link = script.link(0, Role::Receiver);
    script.receive(&[(1, Performative::Flow(flow(0, 0, 300)))]);
    script.events();
    assert_eq!(script.connection.send(link, outgoing(b"t", b"m")), Err(Unsent::Full));
    for _ in 0..3 {
        let forgotten = Outgoing { settlement: Settlement::Forgotten, ..outgoing(b"t", b"m") };
        script.connection.send(link, forgotten).unwrap();
    }
    let sent = script.performatives();
    assert!(sent.iter().all(|sent| matches!(sent, Performative::Transfer(Transfer { settled: Some(false), .. }))));
    script.receive(&[(1, disposition(Role::Receiver, 0, 2, false, DeliveryState::Accepted))]);
    assert_eq!(script.events(), []);
    assert_eq!(script.performatives(), [disposition(Role::Sender, 0, 2, true, DeliveryState::Accepted)]);
    script.receive(&[(1, disposition(Role::Receiver, 0, 2, true, DeliveryState::Accepted))]);
    assert_eq!((script.events(), script.sent()), (vec![], vec![]));
}

#[test]
fn what_is_told_of_deliveries_that_are_unknown_is_the_callers_to_answer() {
    let (mut script, _) = Script::with_session(Limits::default());
    let [tracked, forgetting] = [0, 1].map(|handle| script.link(handle, Role::Receiver));
    script.receive(&[(1, Performative::Flow(flow(0, 0, 9))), (1, Performative::Flow(flow(1, 0, 9)))]);
    script.events();
    for link in [tracked, forgetting, tracked] {
        let settlement = if link == forgetting { Settlement::Forgotten } else { Settlement::Unsettled };
        script.connection.send(link, Outgoing { settlement, ..outgoing(b"t", b"m") }).unwrap();
        script.sent();
    }
    let tell = |settled| [(1, disposition(Role::Receiver, 0, 4, settled, DeliveryState::Released))];
    script.receive(&tell(false));
    let events = script.events();
    let [Event::Outcome { id, .. }, Event::Outcome { .. }, Event::UnknownOutcome { deliveries, state }] = &events[..]
    else {
        panic!("{events:?}")
    };
    assert_eq!(*state, DeliveryState::Released);
    script.connection.settle_unknown(deliveries, &DeliveryState::Accepted);
    script.connection.settle(*id, DeliveryState::Released);
    let answered = [(1, 1, DeliveryState::Released), (3, 4, DeliveryState::Accepted), (0, 0, DeliveryState::Released)];
    let answered = answered.map(|(first, last, state)| disposition(Role::Sender, first, last, true, state));
    assert_eq!(script.performatives(), answered);

    script.receive(&[(1, disposition(Role::Receiver, 0, 4, false, DeliveryState::Accepted))]);
    let events = script.events();
    let [Event::Outcome { .. }, Event::UnknownOutcome { deliveries, .. }] = &events[..] else { panic!("{events:?}") };
    script.connection.settle_unknown(deliveries, &DeliveryState::Released);
    let answered = [(1, 1, DeliveryState::Accepted), (0, 0, DeliveryState::Released), (3, 4, DeliveryState::Released)];
    let answered = answered.map(|(first, last, state)| disposition(Role::Sender, first, last, true, state));
    assert_eq!(script.performatives(), answered, "the first is settled");
    script.receive(&tell(true));
    assert!(matches!(script.events()[..], [Event::Outcome { is_settled: true, .. }]), "nobody waits for the rest");
    assert_eq!(script.sent(), []);
}

#[test]
fn what_is_told_of_deliveries_of_an_ended_session_needs_no_answer() {
    let (mut script, session) = Script::with_session(Limits::default());
    script.receive(&[(1, disposition(Role::Receiver, 0, 0, false, DeliveryState::Accepted))]);
    let events = script.events();
    let [Event::UnknownOutcome { deliveries, .. }] = &events[..] else { panic!("{events:?}") };
    script.connection.end_session(session, None);
    script.receive(&[(1, Performative::End(End { error: None }))]);
    script.events();
    script.sent();
    script.connection.settle_unknown(deliveries, &DeliveryState::Accepted);
    assert_eq!(script.sent(), []);
}

#[test]
fn deliveries_are_forgotten_by_their_tags_sent_or_not() {
    let (mut script, _) = Script::with_session(Limits { in_flight_max: 4, ..Limits::default() });
    let link = script.link(0, Role::Receiver);
    script.receive(&[(1, Performative::Flow(flow(0, 0, 2)))]);
    script.events();
    for tag in [b"a", b"b", b"c", b"d"] {
        script.connection.send(link, outgoing(tag, b"m")).unwrap();
    }
    assert_eq!((script.sent().len(), script.connection.queued()), (2, 2));
    assert_eq!(script.connection.send(link, outgoing(b"e", b"m")), Err(Unsent::Full));
    script.connection.forget(link, |tag| tag == b"a" || tag == b"c");
    assert_eq!(script.connection.queued(), 1);
    for tag in [b"e", b"f"] {
        script.connection.send(link, outgoing(tag, b"m")).unwrap();
    }
    assert_eq!(script.connection.send(link, outgoing(b"g", b"m")), Err(Unsent::Full), "there is room for two");
    script.receive(&[(1, Performative::Flow(flow(0, 2, 9)))]);
    script.events();
    let sent = script.performatives().into_iter().map(|sent| match sent {
        Performative::Transfer(Transfer { delivery_tag, .. }) => delivery_tag.unwrap(),
        other => panic!("{other:?}"),
    });
    assert_eq!(sent.collect::<Vec<_>>(), [&b"d"[..], b"e", b"f"]);

    script.receive(&[(1, disposition(Role::Receiver, 0, 1, false, DeliveryState::Accepted))]);
    let events = script.events();
    let [Event::Outcome { tag, .. }, Event::UnknownOutcome { .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(tag[..], b"b"[..]);
}

#[test]
fn a_message_is_cut_to_the_frames_the_peer_takes() {
    let small = Open { max_frame_size: 512, ..open() };
    let mut script = Script::open_with(Limits::default(), small);
    script.begin();
    let link = script.link(0, Role::Receiver);
    script.receive(&[(1, Performative::Flow(flow(0, 0, 2)))]);
    script.events();
    let payload: Vec<u8> = (0..1500u32).map(|index| index as u8).collect();
    let pieces = vec![Bytes::copy_from_slice(&payload[..7]), Bytes::copy_from_slice(&payload[7..])];
    let message = Outgoing { payload: pieces, settlement: Settlement::Settled, ..outgoing(&[7; 16], b"") };
    script.connection.send(link, message).unwrap();

    let bytes = script.sent_bytes();
    let mut input = BytesMut::from(&bytes[..]);
    let mut received = Vec::new();
    let mut frames = 0;
    while let Some(frame) = frame::decode_frame(&mut input, FrameType::Amqp, 512).unwrap() {
        let (Performative::Transfer(transfer), payload) = Performative::decode(&frame.body).unwrap() else {
            panic!("no transfer")
        };
        received.extend_from_slice(&payload);
        assert_eq!(transfer.more, received.len() < 1500);
        assert_eq!(transfer.delivery_id.is_some(), frames == 0);
        frames += 1;
    }
    assert_eq!((received, frames), (payload, 4));
}

#[test]
fn nothing_is_sent_beyond_the_window_of_the_session() {
    let (mut script, _) = Script::with_session(Limits::default());
    let link = script.link(0, Role::Receiver);
    script.receive(&[(1, Performative::Flow(Flow { incoming_window: 2, ..flow(0, 0, 10) }))]);
    script.events();
    for _ in 0..4 {
        script.connection.send(link, outgoing(b"t", b"m")).unwrap();
    }
    assert_eq!(script.sent().len(), 2);
    assert_eq!(script.connection.queued(), 2);

    let seen = |next_incoming_id, incoming_window| {
        let session = Flow { handle: None, delivery_count: None, link_credit: None, ..flow(0, 0, 0) };
        Performative::Flow(Flow { next_incoming_id: Some(next_incoming_id), incoming_window, ..session })
    };
    script.receive(&[(1, seen(1, 2))]);
    assert_eq!(script.events(), []);
    assert_eq!(script.sent().len(), 1, "one of the two places is taken by what is under way");
    script.receive(&[(1, seen(3, u32::MAX))]);
    script.events();
    assert_eq!(script.sent().len(), 1);
}

#[test]
fn our_window_is_opened_again_before_it_is_used_up() {
    let (mut script, _) = Script::with_session(Limits { session_window: 4, ..Limits::default() });
    let link = script.link(0, Role::Sender);
    script.connection.grant_credit(link, 100);
    script.sent();
    for number in 0..20 {
        script.receive_with(1, &Performative::Transfer(transfer(0, number)), b"");
        script.delivery();
        for sent in script.performatives() {
            let Performative::Flow(flow) = sent else { panic!("no flow") };
            assert_eq!((flow.next_incoming_id, flow.incoming_window), (Some(number + 1), 4));
        }
    }
}

#[test]
fn a_drained_link_gives_its_credit_up_when_it_has_nothing_to_send() {
    let (mut script, _) = Script::with_session(Limits::default());
    let link = script.link(0, Role::Receiver);
    let drain = |count, credit| Performative::Flow(Flow { drain: true, ..flow(0, count, credit) });
    script.receive(&[(1, drain(0, 10))]);
    script.events();
    let [Performative::Flow(answer)] = &script.performatives()[..] else { panic!("no flow") };
    assert_eq!((answer.delivery_count, answer.link_credit, answer.drain), (Some(10), Some(0), true));

    script.connection.send(link, outgoing(b"t", b"m")).unwrap();
    script.receive(&[(1, drain(10, 5))]);
    script.events();
    let sent = script.performatives();
    let [Performative::Transfer(_), Performative::Flow(answer)] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!((answer.delivery_count, answer.link_credit), (Some(15), Some(0)), "what waits goes first");
    assert_eq!(script.connection.credit(link), 0);

    script.receive(&[(1, drain(15, 2))]);
    assert_eq!(script.events(), [Event::Credit { link }]);
    script.connection.send(link, outgoing(b"t", b"m")).unwrap();
    let sent = script.performatives();
    assert!(matches!(&sent[..], [Performative::Transfer(_), Performative::Flow(_)]), "a caller at once is in time");
    assert_eq!(script.sent(), []);

    script.connection.send(link, outgoing(b"t", b"m")).unwrap();
    script.receive(&[(1, drain(17, 0))]);
    assert_eq!(script.events(), []);
    let [Performative::Flow(answer)] = &script.performatives()[..] else { panic!("no flow") };
    assert_eq!((answer.link_credit, answer.available), (Some(0), Some(1)), "there was no credit to use");
}

#[test]
fn a_flow_that_asks_for_one_is_answered() {
    let (mut script, _) = Script::with_session(Limits::default());
    script.link(0, Role::Receiver);
    script.receive(&[(1, Performative::Flow(Flow { echo: true, ..flow(0, 0, 7) }))]);
    script.events();
    let [Performative::Flow(answer)] = &script.performatives()[..] else { panic!("no flow") };
    assert_eq!((answer.handle, answer.link_credit, answer.available), (Some(0), Some(7), Some(0)));
    let session = Flow { handle: None, delivery_count: None, link_credit: None, echo: true, ..flow(0, 0, 0) };
    script.receive(&[(1, Performative::Flow(session))]);
    script.events();
    let [Performative::Flow(answer)] = &script.performatives()[..] else { panic!("no flow") };
    assert_eq!((answer.handle, answer.incoming_window), (None, 2048));
}

#[test]
fn a_flow_before_the_attach_is_answered_counts() {
    let (mut script, _) = Script::with_session(Limits::default());
    let attach = attach(0, Role::Receiver);
    let link = script.attached(attach.clone());
    script.receive(&[(1, Performative::Flow(Flow { echo: true, ..flow(0, 0, 7) }))]);
    assert_eq!(script.events(), [Event::Credit { link }]);
    assert_eq!(script.connection.send(link, outgoing(b"t", b"m")), Err(Unsent::NoLink));
    assert_eq!(script.sent(), [], "nothing goes before the attach");
    script.connection.accept_link(link, LinkTerms::echo(&attach, 0));
    script.connection.send(link, outgoing(b"t", b"m")).unwrap();
    assert!(matches!(script.performatives()[..], [Performative::Attach(_), Performative::Transfer(_)]));
}

#[test]
fn a_caller_is_told_when_too_much_waits() {
    let limits = Limits { queued_max: 3, queued_bytes_max: 10, in_flight_max: 2, ..Limits::default() };
    let (mut script, _) = Script::with_session(limits);
    let attach = Attach { max_message_size: Some(100), ..attach(0, Role::Receiver) };
    let link = script.link_with(&attach, |_| {});
    let settled = |payload| Outgoing { settlement: Settlement::Settled, ..outgoing(b"t", payload) };
    assert_eq!(script.connection.send(link, settled(&[0; 101])), Err(Unsent::TooLarge { bytes: 101, max: 100 }));
    assert_eq!(script.connection.send(link, outgoing(&[0; 33], b"")), Err(Unsent::Tag));
    assert_eq!(script.connection.send(link, outgoing(b"t", b"m")), Ok(()));
    assert_eq!(script.connection.send(link, outgoing(b"t", b"m")), Ok(()));
    assert_eq!(script.connection.send(link, outgoing(b"t", b"m")), Err(Unsent::Full), "two are in flight");
    assert_eq!(script.connection.send(link, settled(&[0; 100])), Ok(()), "the one that passes the bound is the last");
    assert_eq!(script.connection.send(link, settled(b"")), Err(Unsent::Full));
    script.receive(&[(1, Performative::Flow(flow(0, 0, 3)))]);
    script.events();
    assert_eq!(script.sent().len(), 3);
    assert_eq!(script.connection.queued(), 0);
    assert_eq!(script.connection.send(link, settled(b"")), Ok(()));
}

#[test]
fn a_link_that_is_not_answered_is_attached_before_it_is_detached() {
    let transfer = Performative::Transfer(transfer(0, 0));
    let detach = Performative::Detach(Detach { handle: 0, closed: true, error: None });
    for (name, frame) in [("a transfer without credit", transfer), ("a detach", detach)] {
        let (mut script, _) = Script::with_session(Limits::default());
        let attach = attach(0, Role::Sender);
        let link = script.attached(attach.clone());
        script.receive(&[(1, frame)]);
        assert!(matches!(script.events()[..], [Event::Detach { .. }]), "{name}");
        let sent = script.performatives();
        assert!(matches!(&sent[..], [Performative::Attach(_), Performative::Detach(_)]), "{name}: {sent:?}");
        script.connection.accept_link(link, LinkTerms::echo(&attach, 0));
        assert_eq!(script.sent(), [], "{name}: it is too late");
    }
}

#[test]
fn a_link_rests_and_is_attached_again() {
    let (mut script, _) = Script::with_session(Limits::default());
    let link = script.link(0, Role::Receiver);
    script.connection.send(link, outgoing(b"t", b"m")).unwrap();
    script.receive(&[(1, Performative::Detach(Detach { handle: 0, closed: false, error: None }))]);
    assert_eq!(script.events(), [Event::Detach { link, is_closed: false, error: None }]);
    assert_eq!(script.performatives(), [Performative::Detach(Detach { handle: 0, closed: false, error: None })]);
    assert_eq!(script.connection.queued(), 0);
    assert_eq!(script.connection.send(link, outgoing(b"t", b"m")), Err(Unsent::NoLink));
    assert_ne!(script.link(0, Role::Receiver), link);
}

#[test]
fn what_was_under_way_on_a_link_we_closed_is_dropped() {
    let (mut script, _) = Script::with_session(Limits::default());
    let link = script.link(0, Role::Sender);
    script.connection.grant_credit(link, 10);
    script.connection.detach(link, true, Some(Error::new(condition::STOLEN, "attached elsewhere")));
    let sent = script.performatives();
    assert!(
        matches!(&sent[..], [Performative::Flow(_), Performative::Detach(Detach { closed: true, .. })]),
        "{sent:?}"
    );
    script.receive_with(1, &Performative::Transfer(transfer(0, 0)), b"late");
    script.receive(&[(1, Performative::Flow(flow(0, 0, 0)))]);
    assert_eq!((script.events(), script.sent()), (vec![], vec![]));
    script.receive(&[(1, Performative::Detach(Detach { handle: 0, closed: true, error: None }))]);
    assert_eq!(script.events(), [Event::Detach { link, is_closed: true, error: None }]);
}
