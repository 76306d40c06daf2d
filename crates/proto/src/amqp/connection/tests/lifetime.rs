//! Time, silence, the end, and what a connection costs.

use super::*;

#[test]
fn a_peer_hears_of_us_at_half_of_the_silence_it_suffers() {
    let mut script = Script::open_with(Limits::default(), Open { idle_time_out: Some(60_000), ..open() });
    let period = |script: &Script| (script.connection.poll_timeout().unwrap() - script.now).as_secs();
    assert_eq!(period(&script), 30);
    script.pass(seconds(29));
    assert_eq!(script.sent_bytes(), b"");
    script.pass(seconds(1));
    assert_eq!(script.sent_bytes(), [0, 0, 0, 8, 2, 0, 0, 0]);

    script.pass(seconds(20));
    script.receive(&[(1, Performative::Begin(Box::new(begin())))]);
    script.events();
    assert_eq!(script.sent().len(), 1);
    script.pass(seconds(29));
    assert_eq!(script.sent_bytes(), b"", "another frame was a sign of life");
    script.pass(seconds(1));
    assert_eq!(script.sent_bytes().len(), 8);
}

#[test]
fn a_peer_that_asks_for_too_much_hears_of_us_four_times_a_second() {
    let mut script = Script::open_with(Limits::default(), Open { idle_time_out: Some(1), ..open() });
    let mut frames = 0;
    let end = script.now + seconds(10);
    while script.now < end {
        let at = script.connection.poll_timeout().unwrap();
        assert!(at > script.now, "a driver would spin");
        script.pass(at - script.now);
        frames += script.sent_bytes().len() / 8;
    }
    assert_eq!(frames, 40);
}

#[test]
fn a_silent_peer_is_told_and_dropped() {
    let mut script = Script::open(Limits::default());
    script.pass(seconds(239));
    script.receive_bytes(&[0, 0, 0, 8, 2, 0, 0, 0]);
    assert_eq!(script.events(), []);
    script.pass(seconds(239));
    script.receive_bytes(&[0, 0, 0, 8]);
    assert_eq!(script.events(), []);
    script.pass(seconds(1));
    assert_eq!(script.closed(), CloseReason::Idle, "half a frame is no sign of life");
    let sent = script.performatives();
    let [Performative::Close(Close { error: Some(error) })] = &sent[..] else { panic!("no close: {sent:?}") };
    assert_eq!(error.condition, condition::RESOURCE_LIMIT_EXCEEDED);
}

#[test]
fn a_peer_that_is_not_read_lives_as_long_as_it_takes_what_waits_for_it() {
    let mut script = Script::open(Limits { output_bytes_max: 512, ..Limits::default() });
    for channel in 0..100 {
        script.receive(&[(channel, Performative::Begin(Box::new(begin())))]);
        script.events();
    }
    assert!(!script.connection.wants_input());
    for _ in 0..3 {
        script.pass(seconds(239));
        script.connection.handle_written(1, script.now);
        assert_eq!(script.connection.poll_timeout(), Some(script.now + seconds(240)));
    }
    script.pass(seconds(240));
    assert_eq!(script.closed(), CloseReason::Idle);
}

#[test]
fn what_is_still_said_on_a_session_that_is_over_is_passed_over() {
    let (mut script, session) = Script::with_session(Limits::default());
    script.link(0, Role::Sender);
    script.receive(&[(1, Performative::End(End { error: None }))]);
    assert_eq!(script.events(), [Event::End { session, error: None }]);
    script.sent();
    script.receive(&[
        (1, disposition(Role::Receiver, 0, 0, true, DeliveryState::Accepted)),
        (1, Performative::Flow(flow(0, 0, 1))),
        (1, Performative::Detach(Detach { handle: 0, closed: true, error: None })),
    ]);
    assert_eq!((script.events(), script.sent()), (vec![], vec![]));
    // The channel is free for another session, and nothing begins without one.
    script.begin();
    script.receive(&[(1, Performative::End(End { error: None }))]);
    script.events();
    script.receive(&[(1, Performative::Attach(Box::new(attach(0, Role::Sender))))]);
    assert!(matches!(script.closed(), CloseReason::Violation { .. }));
}

#[test]
fn a_close_is_answered_and_the_last_thing() {
    let (mut script, _) = Script::with_session(Limits::default());
    let error = Error::new(condition::CONNECTION_FORCED, "bye");
    script.receive(&[(0, Performative::Close(Close { error: Some(Box::new(error.clone())) }))]);
    let reason = script.closed();
    assert_eq!(reason, CloseReason::Peer(Some(Box::new(error))));
    assert_eq!(reason.to_string(), "closed by the peer: amqp:connection:forced: bye");
    assert_eq!(script.performatives(), [Performative::Close(Close { error: None })]);
    assert_eq!((script.events(), script.connection.poll_timeout()), (vec![], None));
    assert!(!script.connection.wants_input());
}

#[test]
fn our_close_waits_for_the_peers_for_a_while() {
    let endings: [fn(&mut Script); 3] = [
        |script| {
            script.receive(&[(1, Performative::Flow(flow(9, 9, 9)))]);
            script.receive(&[(0, Performative::Close(Close { error: None }))]);
        },
        |script| script.pass(seconds(5)),
        |script| script.connection.handle_eof(),
    ];
    for ending in endings {
        let (mut script, _) = Script::with_session(Limits::default());
        script.link(0, Role::Receiver);
        script.connection.close(None, script.now);
        assert_eq!(script.performatives(), [Performative::Close(Close { error: None })]);
        assert_eq!(script.events(), []);
        assert!(!script.connection.is_open());
        ending(&mut script);
        assert_eq!(script.closed(), CloseReason::Local(None));
    }
}

#[test]
fn sessions_can_be_ended_before_a_close() {
    let (mut script, session) = Script::with_session(Limits::default());
    script.link(0, Role::Receiver);
    script.connection.end_sessions();
    script.connection.end_sessions();
    assert_eq!(script.sent(), [(1, Performative::End(End { error: None }), Bytes::new())]);
    script.receive(&[(1, Performative::End(End { error: None }))]);
    assert_eq!(script.events(), [Event::End { session, error: None }]);
    script.begin();
    script.connection.end_sessions();
    script.connection.close(None, script.now);
    let expected = [Performative::End(End { error: None }), Performative::Close(Close { error: None })];
    assert_eq!(script.performatives(), expected);
    script.receive(&[(1, Performative::End(End { error: None })), (0, Performative::Close(Close { error: None }))]);
    assert_eq!(script.closed(), CloseReason::Local(None));
}

#[test]
fn bytes_that_end_without_a_close_are_a_loss() {
    let mut script = Script::open(Limits::default());
    script.connection.handle_eof();
    assert_eq!(script.closed(), CloseReason::Lost);
}

#[test]
fn an_ended_session_takes_its_links_along() {
    let (mut script, session) = Script::with_session(Limits::default());
    let link = script.link(0, Role::Receiver);
    script.connection.send(link, outgoing(b"t", b"m")).unwrap();
    script.receive(&[(1, Performative::End(End { error: None }))]);
    assert_eq!(script.events(), [Event::End { session, error: None }]);
    assert_eq!(script.performatives(), [Performative::End(End { error: None })]);
    assert_eq!(script.connection.send(link, outgoing(b"t", b"m")), Err(Unsent::NoLink));
    assert_eq!(script.connection.queued(), 0);

    let session = script.begin();
    script.link(0, Role::Sender);
    script.connection.end_session(session, Some(Error::new(condition::INTERNAL_ERROR, "x")));
    assert!(matches!(script.performatives()[..], [Performative::End(End { error: Some(_) })]));
    script.receive(&[(1, Performative::End(End { error: None }))]);
    assert_eq!(script.events(), [Event::End { session, error: None }]);
}

#[test]
fn a_peer_that_does_not_read_is_not_read_from() {
    let (mut script, _) = Script::with_session(Limits { output_bytes_max: 100, ..Limits::default() });
    let link = script.link(0, Role::Receiver);
    let echo = Performative::Flow(Flow { echo: true, ..flow(0, 0, 9) });
    let mut echoes = 0;
    while script.connection.wants_input() {
        script.receive(std::slice::from_ref(&(1, echo.clone())));
        script.connection.send(link, outgoing(b"t", &[0; 50])).ok();
        script.events();
        echoes += 1;
        assert!(echoes < 20);
        let pending = script.connection.output().len();
        assert!(pending < 300, "{pending}");
    }
    script.sent_bytes();
    assert!(script.connection.wants_input());
}

#[test]
fn an_idle_connection_costs_little() {
    assert!(size_of::<Connection>() <= 640, "{}", size_of::<Connection>());
    assert!(size_of::<Link>() <= 256, "{}", size_of::<Link>());
    assert!(size_of::<session::Session>() <= 256, "{}", size_of::<session::Session>());

    let (mut script, _) = Script::with_session(Limits::default());
    let link = script.link(0, Role::Sender);
    script.connection.grant_credit(link, 10);
    for number in 0..10 {
        script.receive_with(1, &Performative::Transfer(transfer(0, number)), &[0; 900]);
        let delivery = script.delivery();
        script.connection.settle(delivery.id, DeliveryState::Accepted);
        script.sent();
    }
    let Connection { input, output, events, opening, ready, .. } = &mut script.connection;
    assert_eq!((input.capacity(), events.capacity(), ready.capacity()), (0, 0, 0));
    assert!(output.back().capacity() <= 256 && opening.is_none());
}
