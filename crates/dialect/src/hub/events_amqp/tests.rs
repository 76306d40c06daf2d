//! Readers of telemetry against a client's end of the connection, in virtual time.

use std::sync::Arc;

use bytes::Bytes;
use domain::clock::UnixTime;
use domain::ids::HubKey;
use domain::message::{Draft, Message as Telemetry, Origin};
use domain::operation::events::{Answer, Ask, Attach, Entity, Event, From, Newest, Reader, Seat, Start};
use domain::operation::session::{AuthenticationMethod, CutOff};
use domain::operation::{ErrorKind, Lane, Operation, Reply};
use proto::amqp::{
    Body, Described, Event as Noticed, LinkId, LinkTerms, Map, Message, MessageId, Properties, Role, Source, Symbol,
    Target, Value,
};

use crate::hub::device_amqp::tests::client::{Client, DONE, SIGNATURE, failure, name};
use crate::session::{Ask as Asked, Session as _};

const PARTITION: &str = "amqps://127.0.0.2/hub/ConsumerGroups/$Default/Partitions/1";
const CREDIT: u32 = 50;

fn events_of(ask: &Asked) -> &Ask {
    match &ask.operation {
        Operation::Events(ask) => ask,
        other => panic!("{other:?}"),
    }
}

fn answer(client: &mut Client, ask: &Asked, answer: Answer) {
    client.reply(ask, Ok(Reply::Events(answer)));
}

fn reader(tracks: bool) -> Reader {
    let (name, group) = ("hub".to_owned(), "$Default".to_owned());
    Reader::seat(Seat { number: 7, hub: HubKey(1), name, group, partition: 1, tracks })
}

fn event(sequence: u64, body: impl Into<Bytes>) -> Event {
    let message = Telemetry {
        hub: HubKey(1),
        partition: 1,
        sender: name("dev-1"),
        generation: "9".to_owned(),
        origin: Origin::Telemetry(AuthenticationMethod::DeviceKey),
        model_id: None,
        draft: Draft { body: body.into(), ..Draft::default() },
    };
    let enqueued_at = UnixTime::from_micros(1_706_702_400_123_456);
    Event { sequence, offset: 100 * sequence, enqueued_at, message: Arc::new(message) }
}

fn events(numbers: std::ops::Range<u64>, newest: Option<Newest>) -> Answer {
    let events: Vec<Event> = numbers.map(|number| event(number, number.to_string())).collect();
    read(events, newest)
}

/// What is answered to a reader whose messages all go to it.
fn read(events: Vec<Event>, newest: Option<Newest>) -> Answer {
    Answer::Events { read_to: events.last().map(|last| last.sequence), events, newest }
}

/// Attaches a reader with a filter, properties and desires, and `credit`.
fn attach(client: &mut Client, (address, filter): (&str, Option<&str>), epoch: Option<i64>, credit: u32) -> LinkId {
    let mut source = Source::at(address);
    if let Some(expression) = filter {
        let descriptor = Value::Ulong(0x468C_0000_0004);
        let value = Value::Described(Box::new(Described { descriptor, value: expression.into() }));
        source.filter = Map::from_iter([(Symbol::from_static("apache.org:selector-filter:string"), value)]);
    }
    let mut terms = LinkTerms::between(source, Target::default(), 0);
    terms.properties = epoch.into_iter().map(|epoch| (Symbol::from_static("com.microsoft:epoch"), epoch)).collect();
    let link = client.connection.attach(client.link_session.unwrap(), "r".into(), Role::Receiver, terms).unwrap();
    client.connection.grant_credit(link, credit);
    client.pump();
    link
}

/// A reader that was let in at the oldest message: its link, and its asks for the end and for messages.
fn reading(client: &mut Client, credit: u32) -> (LinkId, Asked, Option<Asked>) {
    let link = attach(client, (PARTITION, None), None, credit);
    let ask = client.ask();
    answer(client, &ask, Answer::Attached { reader: reader(false), from: From::Oldest });
    assert_eq!(client.noticed(), ["attached"]);
    let mut asks = client.asks();
    let end = asks.remove(0);
    assert!(matches!(events_of(&end), Ask::AwaitEnd(_)) && end.lane == Lane::Waiting, "{end:?}");
    (link, end, asks.pop())
}

/// Where and how much is asked for.
fn wanted(ask: &Asked) -> (From, usize) {
    match events_of(ask) {
        Ask::Read { from, limit, .. } => (*from, *limit),
        other => panic!("{other:?}"),
    }
}

fn sequences(messages: &[Message]) -> Vec<i64> {
    let sequence = |message: &Message| message.message_annotations.find("x-opt-sequence-number")?.as_i64();
    messages.iter().map(|message| sequence(message).unwrap()).collect()
}

/// Puts a token for `resource`, which is found good.
fn put_token(client: &mut Client, link: LinkId, tag: u8, resource: &str) -> Vec<Asked> {
    let message = Message {
        application_properties: Map::from_iter([
            ("operation", "put-token"),
            ("type", "servicebus.windows.net:sastoken"),
            ("name", resource),
        ]),
        body: Body::Value(format!("SharedAccessSignature sr={resource}&{SIGNATURE}&skn=service").into()),
        ..Message::default()
    };
    client.send(link, tag, &message);
    let ask = client.ask();
    client.reply(&ask, Ok(DONE));
    client.asks()
}

#[test]
fn a_reader_is_asked_for_as_its_link_says_and_with_the_token_that_covers_it() {
    let mut client = Client::open();
    let cbs = client.attach("cbs", Role::Sender, "$cbs");
    for (tag, resource) in
        ["sb://h/hub/consumergroups/$default", "sb://h/hub/$management", "h/other"].iter().enumerate()
    {
        put_token(&mut client, cbs, tag as u8, resource);
    }
    let filter = Some("amqp.annotation.x-opt-sequence-number > '41'");
    attach(&mut client, (PARTITION, filter), Some(3), CREDIT);
    let ask = client.ask();
    let Ask::Attach(asked) = events_of(&ask) else { panic!("{ask:?}") };
    let entity = Entity { host: "127.0.0.2".into(), name: "hub".into(), partition: Some("1".into()) };
    let (group, start) = ("$Default".to_owned(), Start::At(From::AfterSequence(41)));
    assert_eq!(**asked, Attach { entity, group, start, epoch: Some(3), tracks: false });
    assert_eq!(ask.token.unwrap().resource(), "sb://h/hub/consumergroups/$default");
}

#[test]
fn messages_leave_in_order_and_no_more_are_read_than_there_is_credit_for() {
    let mut client = Client::open();
    let (link, _, ask) = reading(&mut client, 3);
    let ask = ask.unwrap();
    assert_eq!((wanted(&ask), ask.lane), ((From::Oldest, 3), Lane::Serial));
    answer(&mut client, &ask, events(0..3, None));
    assert_eq!(sequences(&client.messages(link)), [0, 1, 2]);
    assert!(client.asks().is_empty(), "a reader without credit reads nothing");
    client.connection.grant_credit(link, 2);
    let ask = client.ask();
    assert_eq!(wanted(&ask), (From::AfterSequence(2), 2));
    // Fewer than asked for say nothing of whether there are more.
    answer(&mut client, &ask, events(7..8, None));
    assert_eq!(sequences(&client.messages(link)), [7]);
    assert_eq!(wanted(&client.ask()), (From::AfterSequence(7), 1));
}

#[test]
fn at_the_end_a_reader_waits_until_there_is_more() {
    let mut client = Client::open();
    let (link, _, ask) = reading(&mut client, CREDIT);
    answer(&mut client, &ask.unwrap(), events(0..0, None));
    let ask = client.ask();
    assert!(matches!(events_of(&ask), Ask::AwaitEvents(_)) && ask.lane == Lane::Waiting, "{ask:?}");
    client.connection.grant_credit(link, 1);
    assert!(client.asks().is_empty(), "more credit makes no messages");
    answer(&mut client, &ask, Answer::More);
    assert_eq!(wanted(&client.ask()), (From::Oldest, CREDIT as usize + 1));
}

#[test]
fn what_readers_hold_is_bounded_and_all_of_it_arrives() {
    const LARGE_BYTES: usize = 200_000;

    let mut client = Client::open();
    let (first, _, ask) = reading(&mut client, CREDIT);
    let asked = ask.unwrap();
    let second = attach(&mut client, ("hub/ConsumerGroups/$Default/Partitions/2", None), None, CREDIT);
    let large = (0..CREDIT.into()).map(|number| event(number, vec![0; LARGE_BYTES])).collect();
    // The answer is there before the client reads a byte of it.
    client.session.handle_reply(asked.id, Ok(Reply::Events(read(large, None))), client.now);
    let attached = Answer::Attached { reader: reader(false), from: From::Oldest };
    let attach = client.session.poll_ask().unwrap();
    client.session.handle_reply(attach.id, Ok(Reply::Events(attached)), client.now);
    let asked: Vec<Asked> = std::iter::from_fn(|| client.session.poll_ask()).collect();
    assert!(asked.iter().all(|ask| matches!(events_of(ask), Ask::AwaitEnd(_))), "the other one reads too: {asked:?}");
    let mut arrived = Vec::new();
    while arrived.len() < CREDIT as usize {
        arrived.extend(sequences(&client.messages(first)));
    }
    assert_eq!(arrived, (0..CREDIT.into()).collect::<Vec<i64>>());
    let asks = client.asks();
    assert!(asks.iter().any(|ask| matches!(events_of(ask), Ask::Read { .. })), "the other one reads on: {asks:?}");
    assert_eq!(client.connection.credit(second), CREDIT);
}

#[test]
fn a_reader_that_leaves_lets_go_of_what_waits_for_it() {
    for is_detached in [true, false] {
        let mut client = Client::open();
        let (link, end, ask) = reading(&mut client, CREDIT);
        answer(&mut client, &ask.unwrap(), events(0..0, None));
        let more = client.ask();
        if is_detached {
            client.connection.detach(link, true, None);
            client.pump();
        } else {
            client.session.handle_eof(client.now);
        }
        let left: Vec<Asked> = std::iter::from_fn(|| client.session.poll_ask()).collect();
        assert!(matches!(left.as_slice(), [ask] if matches!(events_of(ask), Ask::Detach(_))), "{left:?}");
        for ask in [&left[0], &end, &more] {
            client.session.handle_reply(ask.id, Ok(Reply::Events(Answer::Done)), client.now);
        }
        assert!(client.session.poll_ask().is_none());
    }
}

#[test]
fn a_server_that_stops_waits_for_no_reader() {
    let mut client = Client::open();
    let (_, end, ask) = reading(&mut client, CREDIT);
    answer(&mut client, &ask.unwrap(), events(0..0, None));
    let more = client.ask();
    client.session.stop();
    let left = client.ask();
    assert!(matches!(events_of(&left), Ask::Detach(_)), "{left:?}");
    for ask in [&left, &end, &more] {
        answer(&mut client, ask, Answer::Done);
    }
    assert!(client.session.is_at_rest());
    client.session.close(client.now);
    assert_eq!(client.noticed(), ["closed: closed by the peer: amqp:connection:forced: The serv"]);
}

#[test]
fn a_reader_is_told_why_it_ends() {
    let cases = [
        (CutOff::Displaced, "detached amqp:link:stolen"),
        (CutOff::TokenExpired, "detached amqp:unauthorized-access"),
        (CutOff::Rekeyed, "detached amqp:unauthorized-access"),
        (CutOff::HubDeleted, "detached amqp:not-found"),
    ];
    for (reason, expected) in cases {
        let mut client = Client::open();
        // Also without any credit.
        let (_, end, _) = reading(&mut client, 0);
        answer(&mut client, &end, Answer::Ended(reason));
        assert_eq!(client.noticed(), [expected]);
    }
}

#[test]
fn a_newer_token_counts_for_the_readers_that_it_covers() {
    let mut client = Client::open();
    reading(&mut client, 0);
    let cbs = client.attach("cbs", Role::Sender, "$cbs");
    let asks = put_token(&mut client, cbs, 1, "sb://h/hub/ConsumerGroups/$Default/Partitions/1");
    assert!(matches!(asks.as_slice(), [ask] if matches!(events_of(ask), Ask::Renew(_))), "{asks:?}");
    client.reply(&asks[0], Ok(Reply::Events(Answer::Done)));
    assert!(put_token(&mut client, cbs, 2, "sb://h/hub/ConsumerGroups/$Default/Partitions/2").is_empty());
}

#[test]
fn what_cannot_be_read_is_refused_at_once() {
    let long = format!("{}/ConsumerGroups/g/Partitions/0", "x".repeat(300));
    let cases = [
        ("a filter on what is no place", PARTITION, Some("amqp.annotation.x > '1'"), "com.microsoft:argument-error"),
        ("a filter of nonsense", PARTITION, Some("''"), "com.microsoft:argument-error"),
        ("a long name", &long, None, "com.microsoft:argument-error"),
        ("a group alone", "hub/ConsumerGroups/g", None, "amqp:not-found"),
        ("the event hub itself", "hub", None, "amqp:not-found"),
    ];
    for (case, address, filter, condition) in cases {
        let mut client = Client::open();
        attach(&mut client, (address, filter), None, CREDIT);
        assert!(client.asks().is_empty(), "{case}");
        assert_eq!(client.noticed(), ["refused".to_owned(), format!("detached {condition}")], "{case}");
    }
    let mut client = Client::open();
    client.attach("producer", Role::Sender, PARTITION);
    assert_eq!(client.noticed(), ["refused", "detached amqp:not-allowed"]);
}

#[test]
fn who_is_not_let_in_is_told_why() {
    let cases = [
        (Ok(Answer::Held { epoch: 4 }), "amqp:link:stolen"),
        (Ok(Answer::NoPartition { partitions: 4 }), "com.microsoft:argument-out-of-range"),
        (Err(ErrorKind::Unauthorized), "amqp:unauthorized-access"),
        (Err(ErrorKind::Forbidden), "amqp:unauthorized-access"),
        (Err(ErrorKind::ResourceNotFound), "amqp:not-found"),
        (Err(ErrorKind::HubNotFound), "amqp:not-found"),
        (Err(ErrorKind::QuotaExceeded), "amqp:resource-limit-exceeded"),
        (Err(ErrorKind::Throttled), "com.microsoft:server-busy"),
    ];
    for (reply, condition) in cases {
        let mut client = Client::open();
        attach(&mut client, (PARTITION, None), None, CREDIT);
        let ask = client.ask();
        client.reply(&ask, reply.map(Reply::Events).map_err(failure));
        assert_eq!(client.noticed(), ["refused".to_owned(), format!("detached {condition}")]);
        assert!(client.asks().is_empty());
    }
}

#[test]
fn whoever_asks_the_hub_for_its_telemetry_is_sent_to_the_event_hub() {
    let cases = [
        ("amqps://127.0.0.2/messages/events/$management", "amqps://127.0.0.2:5671/hub/$management"),
        ("/messages/events", "amqps://127.0.0.2:5671/hub/$management"),
        (
            "/messages/events/ConsumerGroups/$Default/Partitions/0",
            "amqps://127.0.0.2:5671/hub/ConsumerGroups/$Default/Partitions/0",
        ),
    ];
    for (asked, expected) in cases {
        let mut client = Client::open();
        attach(&mut client, (asked, None), None, CREDIT);
        let ask = client.ask();
        assert!(matches!(events_of(&ask), Ask::Locate { host } if host == "127.0.0.2"), "{ask:?}");
        answer(&mut client, &ask, Answer::Located { host: "127.0.0.2".into(), name: "hub".into() });
        let [Noticed::Attached { .. }, Noticed::Detach { is_closed: true, error: Some(error), .. }] =
            client.events.make_contiguous()
        else {
            panic!("{asked}: {:?}", client.events)
        };
        assert_eq!(error.condition, "amqp:link:redirect");
        let said = |key| error.info.find(key).cloned();
        assert_eq!(said("hostname"), Some("127.0.0.2".into()));
        assert_eq!(said("network-host"), Some("127.0.0.2".into()));
        assert_eq!(said("port"), Some(Value::Int(5_671)));
        assert_eq!(said("address"), Some(expected.into()));
    }
}

/// The two links of the management node, the one to ask on first.
fn management(client: &mut Client) -> (LinkId, LinkId) {
    let links =
        (client.attach("ask", Role::Sender, "$management"), client.attach("answer", Role::Receiver, "$management"));
    client.noticed();
    links
}

fn request(properties: &[(&'static str, &'static str)]) -> Message {
    Message {
        properties: Some(Box::new(Properties { message_id: Some(MessageId::Ulong(0)), ..Properties::default() })),
        application_properties: properties.iter().copied().collect(),
        ..Message::default()
    }
}

#[test]
fn the_management_node_tells_of_the_event_hub_and_its_partitions() {
    let at = UnixTime::from_micros(1_706_702_400_123_456);
    let newest = Newest { sequence: 9, offset: 900, enqueued_at: at, read_at: at };
    let of_partition = |kept| Answer::Partition { name: "hub".into(), partition: 1, kept };
    let cases: &[(&str, Answer, &[(&str, Value)])] = &[
        (
            "com.microsoft:eventhub",
            Answer::EventHub { name: "hub".into(), created_at: at, partitions: 2 },
            &[
                ("name", "hub".into()),
                ("created_at", Value::Timestamp(1_706_702_400_123)),
                ("partition_count", Value::Int(2)),
                ("partition_ids", Value::List(vec!["0".into(), "1".into()])),
            ],
        ),
        (
            "com.microsoft:partition",
            of_partition(Some((3, newest))),
            &[
                ("name", "hub".into()),
                ("partition", "1".into()),
                ("begin_sequence_number", Value::Long(3)),
                ("last_enqueued_sequence_number", Value::Long(9)),
                ("last_enqueued_offset", "900".into()),
                ("last_enqueued_time_utc", Value::Timestamp(1_706_702_400_123)),
                ("is_partition_empty", Value::Boolean(false)),
            ],
        ),
        (
            "com.microsoft:partition",
            of_partition(None),
            &[
                ("last_enqueued_sequence_number", Value::Long(-1)),
                ("last_enqueued_offset", "-1".into()),
                ("last_enqueued_time_utc", Value::Timestamp(-62_135_596_800_000)),
                ("is_partition_empty", Value::Boolean(true)),
            ],
        ),
    ];
    for (kind, told, expected) in cases {
        let mut client = Client::open();
        let (asking, answering) = management(&mut client);
        client.send(asking, 1, &request(&[("operation", "READ"), ("type", kind), ("name", "hub"), ("partition", "1")]));
        let ask = client.ask();
        let Ask::Describe(entity) = events_of(&ask) else { panic!("{ask:?}") };
        assert_eq!((entity.name.as_str(), entity.partition.is_some()), ("hub", *kind == "com.microsoft:partition"));
        answer(&mut client, &ask, told.clone());
        let [message] = client.messages(answering).try_into().unwrap();
        assert_eq!(message.correlation_id(), Some(&MessageId::Ulong(0)));
        assert_eq!(message.application_properties.find("status-code"), Some(&Value::Int(200)));
        let Body::Value(Value::Map(body)) = &message.body else { panic!("{:?}", message.body) };
        for (key, value) in *expected {
            assert_eq!(body.find(key), Some(value), "{kind}: {key}");
        }
    }
}

#[test]
fn what_the_management_node_does_not_understand_is_refused() {
    let cases: &[(&str, &[(&str, &str)])] = &[
        ("no operation", &[("type", "com.microsoft:eventhub"), ("name", "hub")]),
        ("another operation", &[("operation", "UPDATE"), ("type", "com.microsoft:eventhub"), ("name", "hub")]),
        ("no name", &[("operation", "READ"), ("type", "com.microsoft:eventhub")]),
        ("another type", &[("operation", "READ"), ("type", "com.microsoft:topic"), ("name", "hub")]),
        ("no partition", &[("operation", "READ"), ("type", "com.microsoft:partition"), ("name", "hub")]),
    ];
    for (case, properties) in cases {
        let mut client = Client::open();
        let (asking, answering) = management(&mut client);
        client.send(asking, 1, &request(properties));
        assert!(client.asks().is_empty(), "{case}");
        let [message] = client.messages(answering).try_into().unwrap();
        assert_eq!(message.application_properties.find("status-code"), Some(&Value::Int(400)), "{case}");
    }
    for (reply, status, condition) in [
        (Err(failure(ErrorKind::Unauthorized)), 401, "amqp:unauthorized-access"),
        (Err(failure(ErrorKind::ResourceNotFound)), 404, "amqp:not-found"),
        (Ok(Reply::Events(Answer::NoPartition { partitions: 4 })), 400, "com.microsoft:argument-out-of-range"),
    ] {
        let mut client = Client::open();
        let (asking, answering) = management(&mut client);
        client.send(asking, 1, &request(&[("operation", "READ"), ("type", "com.microsoft:eventhub"), ("name", "hub")]));
        let ask = client.ask();
        client.reply(&ask, reply);
        let [message] = client.messages(answering).try_into().unwrap();
        let said = |key| message.application_properties.find(key).cloned();
        assert_eq!(said("status-code"), Some(Value::Int(status)));
        assert_eq!(said("error-condition").as_ref().and_then(Value::as_str), Some(condition));
    }
}

#[test]
fn a_reader_that_tracks_is_told_how_far_the_partition_goes() {
    let mut client = Client::open();
    let (link, _, ask) = reading(&mut client, CREDIT);
    let at = UnixTime::from_seconds(1_706_702_400);
    let newest = Newest { sequence: 9, offset: 900, enqueued_at: at, read_at: at };
    answer(&mut client, &ask.unwrap(), events(0..2, Some(newest)));
    for message in client.messages(link) {
        let said = |key| message.delivery_annotations.find(key).cloned();
        assert_eq!(said("last_enqueued_sequence_number"), Some(Value::Long(9)));
        assert_eq!(said("last_enqueued_offset"), Some("900".into()));
        assert_eq!(said("last_enqueued_time_utc"), Some(Value::Timestamp(1_706_702_400_000)));
    }
}

#[test]
fn a_message_longer_than_the_reader_takes_is_not_passed_over() {
    let mut client = Client::open();
    let terms = LinkTerms::between(Source::at(PARTITION), Target::default(), 1_000);
    let link = client.connection.attach(client.link_session.unwrap(), "r".into(), Role::Receiver, terms).unwrap();
    client.connection.grant_credit(link, 9);
    let ask = client.ask();
    answer(&mut client, &ask, Answer::Attached { reader: reader(false), from: From::Oldest });
    let read = client.asks().pop().unwrap();
    client.noticed();
    let both = vec![event(0, vec![0; 2_000]), event(1, "small")];
    answer(&mut client, &read, self::read(both, None));
    assert_eq!(client.noticed(), ["detached amqp:link:message-size-exceeded"]);
}
