//! What a peer must not do, and what it is told.

use super::*;

/// What the peer is told: the connection is closed, the session ended or the link detached, for this.
fn told(script: &mut Script) -> (&'static str, Symbol) {
    let told = |what, error: Option<Box<Error>>| error.map(|error| (what, error.condition));
    let sent = script.performatives();
    let found = sent.into_iter().find_map(|performative| match performative {
        Performative::Close(close) => told("close", close.error),
        Performative::End(end) => told("end", end.error),
        Performative::Detach(detach) => told("detach", detach.error),
        _ => None,
    });
    found.expect("nothing was told")
}

type Case = (&'static str, Vec<(Performative, &'static [u8])>, &'static str, Symbol);

/// Handle 0 is a link on which the peer sends, with credit for two; handle 1 one on which it receives.
#[expect(clippy::too_many_lines, reason = "a table")]
fn cases() -> Vec<Case> {
    let transfer_of = |transfer: Transfer| Performative::Transfer(transfer);
    let close = "close";
    vec![
        ("a second open", vec![(Performative::Open(Box::new(open())), b"")], close, condition::ILLEGAL_STATE),
        ("a second begin", vec![(Performative::Begin(Box::new(begin())), b"")], close, condition::NOT_ALLOWED),
        (
            "an answer to no begin",
            vec![(Performative::Begin(Box::new(Begin { remote_channel: Some(9), ..begin() })), b"")],
            close,
            condition::NOT_ALLOWED,
        ),
        (
            "a handle above handle-max",
            vec![(Performative::Attach(Box::new(attach(10, Role::Sender))), b"")],
            close,
            condition::FRAMING_ERROR,
        ),
        (
            "a handle in use",
            vec![(Performative::Attach(Box::new(attach(1, Role::Sender))), b"")],
            "end",
            condition::HANDLE_IN_USE,
        ),
        ("a transfer for no link", vec![(transfer_of(transfer(7, 0)), b"")], "end", condition::UNATTACHED_HANDLE),
        ("a flow for no link", vec![(Performative::Flow(flow(7, 0, 0)), b"")], "end", condition::UNATTACHED_HANDLE),
        (
            "a detach of no link",
            vec![(Performative::Detach(Detach { handle: 7, closed: true, error: None }), b"")],
            "end",
            condition::UNATTACHED_HANDLE,
        ),
        ("a transfer from the receiver", vec![(transfer_of(transfer(1, 0)), b"")], "detach", condition::NOT_ALLOWED),
        (
            "a transfer beyond the credit",
            (0..3).map(|number| (transfer_of(transfer(0, number)), &b""[..])).collect(),
            "detach",
            condition::TRANSFER_LIMIT_EXCEEDED,
        ),
        (
            "a delivery without a number",
            vec![(transfer_of(Transfer { delivery_id: None, ..transfer(0, 0) }), b"")],
            "detach",
            condition::INVALID_FIELD,
        ),
        (
            "a delivery without a tag",
            vec![(transfer_of(Transfer { delivery_tag: None, ..transfer(0, 0) }), b"")],
            "detach",
            condition::INVALID_FIELD,
        ),
        (
            "a tag too long",
            vec![(transfer_of(Transfer { delivery_tag: Some(vec![0; 33].into()), ..transfer(0, 0) }), b"")],
            "detach",
            condition::INVALID_FIELD,
        ),
        (
            "a number that changes",
            vec![(transfer_of(Transfer { more: true, ..transfer(0, 0) }), b"a"), (transfer_of(transfer(0, 1)), b"b")],
            "detach",
            condition::INVALID_FIELD,
        ),
        (
            "a number in use",
            vec![(transfer_of(transfer(0, 0)), b""), (transfer_of(transfer(0, 0)), b"")],
            "detach",
            condition::INVALID_FIELD,
        ),
        (
            "a message too long",
            vec![
                (transfer_of(Transfer { more: true, ..transfer(0, 0) }), &[0; 15]),
                (transfer_of(transfer(0, 0)), &[0; 15]),
            ],
            "detach",
            condition::MESSAGE_SIZE_EXCEEDED,
        ),
        (
            "too many bytes of unfinished messages",
            vec![(transfer_of(Transfer { more: true, ..transfer(0, 0) }), &[0; 19])],
            "detach",
            condition::RESOURCE_LIMIT_EXCEEDED,
        ),
        (
            "too many deliveries that are not settled",
            (0..2).map(|number| (transfer_of(transfer(0, number)), &b""[..])).collect(),
            "detach",
            condition::RESOURCE_LIMIT_EXCEEDED,
        ),
    ]
}

#[test]
fn each_rule_that_is_broken_is_named() {
    for (name, frames, what, condition) in cases() {
        let unsettled_max = if name.contains("not settled") { 1 } else { 10 };
        let limits = Limits { links_max: 10, unfinished_bytes_max: 18, unsettled_max, ..Limits::default() };
        let (mut script, _) = Script::with_session(limits);
        let link = script.link_with(&attach(0, Role::Sender), |terms| terms.max_message_size = 20);
        script.connection.grant_credit(link, 2);
        script.sent();
        script.link(1, Role::Receiver);
        for (performative, payload) in &frames {
            script.receive_with(1, performative, payload);
            script.events();
        }
        assert_eq!(told(&mut script), (what, condition), "{name}");
        assert_eq!(script.connection.is_closed(), what == "close", "{name}");
        assert_eq!(script.connection.unfinished_bytes, 0, "{name}");
    }
}

#[test]
fn links_are_bounded_over_all_sessions() {
    let (mut script, _) = Script::with_session(Limits { links_max: 3, ..Limits::default() });
    script.receive(&[
        (2, Performative::Begin(Box::new(begin()))),
        (1, Performative::Attach(Box::new(attach(0, Role::Sender)))),
        (1, Performative::Attach(Box::new(attach(1, Role::Sender)))),
        (2, Performative::Attach(Box::new(attach(0, Role::Sender)))),
    ]);
    assert_eq!(script.events().len(), 4);
    script.sent();
    script.receive(&[(2, Performative::Attach(Box::new(attach(1, Role::Sender))))]);
    assert!(matches!(script.events()[..], [Event::End { error: Some(_), .. }]));
    assert_eq!(told(&mut script), ("end", condition::RESOURCE_LIMIT_EXCEEDED));
    assert_eq!(script.connection.links.len(), 2, "the other session goes on");
}

#[test]
fn a_window_that_is_passed_ends_the_session() {
    let (mut script, session) = Script::with_session(Limits { session_window: 0, ..Limits::default() });
    let link = script.link(0, Role::Sender);
    script.connection.grant_credit(link, 2);
    script.sent();
    script.receive_with(1, &Performative::Transfer(transfer(0, 0)), b"");
    let events = script.events();
    assert!(matches!(&events[..], [Event::End { session: ended, error: Some(_) }] if *ended == session), "{events:?}");
    assert_eq!(told(&mut script), ("end", condition::WINDOW_VIOLATION));

    script.receive_with(1, &Performative::Transfer(transfer(0, 1)), b"late");
    script.receive(&[(1, Performative::End(End { error: None }))]);
    assert_eq!((script.events(), script.sent()), (vec![], vec![]), "the caller knows");
    script.begin();
}

#[test]
fn channels_are_bounded_and_must_have_a_session() {
    let cases = [
        ("a channel above channel-max", 4, Performative::Begin(Box::new(begin())), condition::FRAMING_ERROR),
        ("a channel without a session", 0, Performative::Flow(flow(0, 0, 0)), condition::NOT_ALLOWED),
    ];
    for (name, channel, performative, condition) in cases {
        let mut script = Script::open(Limits { sessions_max: 4, ..Limits::default() });
        script.receive(&[(channel, performative)]);
        assert!(matches!(script.closed(), CloseReason::Violation { .. }), "{name}");
        assert_eq!(told(&mut script), ("close", condition), "{name}");
    }
    let mut script = Script::open(Limits { sessions_max: 4, ..Limits::default() });
    for channel in 0..4 {
        script.receive(&[(channel, Performative::Begin(Box::new(begin())))]);
    }
    assert_eq!(script.events().len(), 4);
    assert_eq!(script.connection.begin(), Err(Unsent::Exhausted));
}

#[test]
fn bytes_that_are_no_frames_close_the_connection() {
    let cases: &[(&str, &[u8], Symbol)] = &[
        ("a frame too long", &[0, 1, 0, 1, 2, 0, 0, 0], condition::FRAMING_ERROR),
        ("a frame too short", &[0, 0, 0, 7, 2, 0, 0, 0], condition::FRAMING_ERROR),
        ("a frame of SASL", &[0, 0, 0, 8, 2, 1, 0, 0], condition::FRAMING_ERROR),
        ("a body that is no performative", &[0, 0, 0, 9, 2, 0, 0, 0, 0x40], condition::DECODE_ERROR),
    ];
    for (name, bytes, condition) in cases {
        let mut script = Script::open(Limits::default());
        script.receive_bytes(bytes);
        let reason = script.closed();
        assert!(matches!(reason, CloseReason::Misframed(_) | CloseReason::Malformed(_)), "{name}");
        assert_eq!(told(&mut script), ("close", condition.clone()), "{name}");
    }
}

#[test]
fn an_open_with_too_small_a_frame_is_refused() {
    let mut script = Script::new(Limits::default());
    script.receive_bytes(&ProtocolHeader::Amqp.to_bytes());
    script.receive(&[(0, Performative::Open(Box::new(Open { max_frame_size: 511, ..open() })))]);
    assert!(matches!(script.closed(), CloseReason::Violation { .. }));
    let bytes = script.sent_bytes();
    assert!(bytes.len() > 8, "an open and a close follow the header");
}

#[test]
fn a_frame_that_the_peer_does_not_take_is_not_sent() {
    let mut script = Script::open_with(Limits::default(), Open { max_frame_size: 512, ..open() });
    script.begin();
    let link = script.attached(attach(0, Role::Sender));
    let properties = Map::from_iter([(Symbol::from_static("long"), "x".repeat(600))]);
    let terms = LinkTerms { properties, ..LinkTerms::echo(&attach(0, Role::Sender), 0) };
    script.connection.accept_link(link, terms);
    assert!(matches!(script.closed(), CloseReason::Oversized { max: 512, .. }));
    assert_eq!(script.sent(), []);
}
