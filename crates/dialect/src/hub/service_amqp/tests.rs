//! Back-end programs over AMQP against a client's end of the connection, in virtual time.

use bytes::Bytes;
use domain::access::Action;
use domain::clock::UnixTime;
use domain::cloud_to_device::{Feedback, FeedbackBatch, Outcome, Settlement as Settled};
use domain::file::{FileName, FileNotification, LockedNotification};
use domain::ids::{HubKey, HubName, LockToken};
use domain::operation::backend::{Answer, Ask, Backend, Stay};
use domain::operation::cloud_to_device::{self, AtHub};
use domain::operation::session::CutOff;
use domain::operation::{ErrorKind, Operation, Push, Reply, file};
use proto::amqp::{
    Body, DeliveryState, Event, LinkId, LinkTerms, Map, Message, MessageId, Modified, Properties, ReceiverSettleMode,
    Role, SenderSettleMode, Settlement, Source, Target, Value,
};

use super::reader::HELD_MAX;
use crate::hub::device_amqp::tests::client::{Client, DONE, SIGNATURE, connected, failure, name, seat};
use crate::hub::device_amqp::tests::put_token;
use crate::session::{Ask as Asked, Session as _};

const SENT: &str = "/messages/devicebound";
const FEEDBACK: &str = "/messages/serviceBound/feedback";
const FILES: &str = "/messages/serviceBound/filenotifications";
const LEFT: Reply = Reply::Backend(Answer::Done);
const SETTLED: Reply = Reply::CloudToDevice(cloud_to_device::Answer::Settled);

fn backend(number: u64, action: Action) -> Backend {
    let hub_name = HubName::parse("hub-1").unwrap();
    Backend::enter(Stay { number, hub: HubKey(1), hub_name, action, path: Vec::new() })
}

fn entered(backend: &Backend) -> Reply {
    Reply::Backend(Answer::Entered(backend.clone()))
}

/// What is asked, in words.
fn show(ask: &Asked) -> String {
    let by = ask.token.as_ref().map(|token| format!(" by {}", token.resource())).unwrap_or_default();
    let words = match &ask.operation {
        Operation::Session(_) => "session".to_owned(),
        Operation::Backend(Ask::Enter(enter)) => {
            format!("enter {} for {:?} of {}", enter.host, enter.action, enter.path.join("/"))
        }
        Operation::Backend(Ask::Renew(backend)) => format!("renew {}", backend.number),
        Operation::Backend(Ask::Leave(backend)) => format!("leave {}", backend.number),
        Operation::CloudToDevice(ask) => match ask {
            cloud_to_device::Ask::Send { hub: AtHub::Entered(_), to, message } => {
                format!("send {} to {to}", String::from_utf8_lossy(&message.body))
            }
            cloud_to_device::Ask::TakeFeedback(AtHub::Entered(_)) => "take".to_owned(),
            cloud_to_device::Ask::SettleFeedback { hub: AtHub::Entered(_), lock, settlement } => {
                format!("{settlement:?} {}", lock.bits())
            }
            other => panic!("{other:?}"),
        },
        Operation::File(ask) => match ask {
            file::Ask::TakeNotification(AtHub::Entered(_)) => "take of a file".to_owned(),
            file::Ask::SettleNotification { hub: AtHub::Entered(_), lock, settlement } => {
                format!("{settlement:?} {} of a file", lock.bits())
            }
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    words + &by
}

fn asked(client: &mut Client) -> Vec<String> {
    client.asks().iter().map(show).collect()
}

fn to(device: &str, body: &'static str) -> Message {
    let to = Some(format!("/devices/{device}/messages/devicebound").into());
    let properties = Some(Box::new(Properties { to, ..Properties::default() }));
    Message { properties, body: Body::data(body), ..Message::default() }
}

fn batch(lock: u128) -> Reply {
    let record = |second| Feedback {
        message_id: format!("m{second}"),
        device: name("dev-1"),
        generation: "7".to_owned(),
        outcome: Outcome::Success,
        at: UnixTime::from_seconds(second),
    };
    let batch = FeedbackBatch { lock: LockToken::from_bits(lock), records: vec![record(1), record(2)] };
    Reply::CloudToDevice(cloud_to_device::Answer::Feedback(Some(batch)))
}

fn notification(lock: u128) -> Reply {
    let at = UnixTime::from_seconds;
    let (device, file) = (name("dev-1"), FileName::parse("dev-1/a b").unwrap());
    let notification = FileNotification { device, file, bytes: 4, written_at: at(1), enqueued_at: at(2) };
    let (host, container) = ("127.0.0.2".to_owned(), "uploads".to_owned());
    let locked = LockedNotification { lock: LockToken::from_bits(lock), notification, host, container };
    Reply::File(file::Answer::Notification(Some(Box::new(locked))))
}

const NONE: Reply = Reply::CloudToDevice(cloud_to_device::Answer::Feedback(None));

/// A connection with a token of the policy `service`.
fn with_token() -> (Client, LinkId) {
    let mut client = Client::open();
    let tokens = client.attach("s", Role::Sender, "$cbs");
    client.attach("r", Role::Receiver, "$cbs");
    client.send(tokens, 0, &put_token(MessageId::Ulong(0), "127.0.0.2&skn=service"));
    let ask = client.ask();
    client.reply(&ask, Ok(DONE));
    let _ = client.noticed();
    (client, tokens)
}

/// A link to send on.
fn sending() -> (Client, LinkId) {
    let (mut client, _) = with_token();
    let link = client.attach("send", Role::Sender, SENT);
    let ask = client.ask();
    client.reply(&ask, Ok(entered(&backend(1, Action::SendToDevices))));
    assert_eq!(client.noticed(), ["attached"]);
    (client, link)
}

/// A link to read on, whose first ask for feedback is under way.
fn reading() -> (Client, LinkId, Backend, Asked) {
    let (client, link, backend, take) = reading_at(FEEDBACK, Action::ReadFeedback);
    assert_eq!(show(&take), "take");
    (client, link, backend, take)
}

fn reading_at(address: &str, action: Action) -> (Client, LinkId, Backend, Asked) {
    let (mut client, _) = with_token();
    let link = client.attach("read", Role::Receiver, address);
    let (ask, backend) = (client.ask(), backend(1, action));
    client.reply(&ask, Ok(entered(&backend)));
    assert_eq!(client.noticed(), ["attached"]);
    let take = client.ask();
    (client, link, backend, take)
}

fn push(client: &mut Client, backend: &Backend, push: Push) {
    client.session.handle_backend_push(backend, push, client.now);
}

fn deliveries(client: &mut Client) -> Vec<proto::amqp::Delivery> {
    client.pump();
    let events = client.events.drain(..).filter_map(|event| match event {
        Event::Delivery(delivery) => Some(delivery),
        _ => None,
    });
    events.collect()
}

#[test]
fn each_link_is_let_in_by_itself_with_the_policys_token() {
    let (mut client, tokens) = with_token();
    let cases = [
        (SENT, Role::Sender, "enter 127.0.0.2 for SendToDevices of messages/devicebound"),
        (
            "amqps://127.0.0.2:5671/messages/DeviceBound",
            Role::Sender,
            "enter 127.0.0.2:5671 for SendToDevices of messages/devicebound",
        ),
        (
            "/messages/servicebound/feedback/",
            Role::Receiver,
            "enter 127.0.0.2 for ReadFeedback of messages/serviceBound/feedback",
        ),
        (
            "/messages/servicebound/fileNotifications",
            Role::Receiver,
            "enter 127.0.0.2 for ReadFileNotifications of messages/serviceBound/filenotifications",
        ),
        (
            "/messages/serviceBound/FileUploadNotifications/",
            Role::Receiver,
            "enter 127.0.0.2 for ReadFileNotifications of messages/serviceBound/filenotifications",
        ),
    ];
    for (number, (address, role, expected)) in cases.into_iter().enumerate() {
        client.attach(address, role, address);
        let ask = client.ask();
        assert_eq!(show(&ask), format!("{expected} by 127.0.0.2"), "{address}");
        client.reply(&ask, Ok(entered(&backend(number as u64, Action::SendToDevices))));
        assert_eq!(client.noticed(), ["attached"], "{address}");
        if role == Role::Receiver {
            let take = client.ask();
            client.reply(&take, Ok(NONE));
        }
    }
    client.send(tokens, 1, &put_token(MessageId::Ulong(1), "127.0.0.2&skn=service"));
    let ask = client.ask();
    client.reply(&ask, Ok(DONE));
    for number in 0..5 {
        let ask = client.ask();
        assert_eq!(show(&ask), format!("renew {number} by 127.0.0.2"));
        client.reply(&ask, Ok(LEFT));
    }
}

#[test]
fn who_may_not_is_told_so_and_the_connection_stays() {
    let cases = [
        (ErrorKind::Unauthorized, "amqp:unauthorized-access"),
        (ErrorKind::Forbidden, "amqp:unauthorized-access"),
        (ErrorKind::HubNotFound, "com.microsoft:iot-hub-not-found-error"),
        (ErrorKind::Internal, "amqp:internal-error"),
    ];
    let mut client = Client::open();
    for (kind, condition) in cases {
        client.attach(condition, Role::Sender, SENT);
        let ask = client.ask();
        assert_eq!(show(&ask), "enter 127.0.0.2 for SendToDevices of messages/devicebound", "without a token");
        client.reply(&ask, Err(failure(kind)));
        assert_eq!(client.noticed(), ["refused".to_owned(), format!("detached {condition}")]);
    }
    for (address, role) in
        [(SENT, Role::Receiver), (FEEDBACK, Role::Sender), (FILES, Role::Sender), ("/messages", Role::Sender)]
    {
        client.attach(address, role, address);
        assert_eq!(client.noticed(), ["refused", "detached amqp:not-found"], "{address} {role:?}");
    }
    assert_eq!(asked(&mut client), Vec::<String>::new());
}

#[test]
fn plain_lets_a_policy_in_without_a_token_of_its_own() {
    let password = format!("SharedAccessSignature sr=127.0.0.2&skn=service&{SIGNATURE}");
    let mut client = Client::plain("service@sas.root.127", &password);
    let ask = client.ask();
    client.reply(&ask, Ok(DONE));
    client.begin();
    client.attach("send", Role::Sender, "amqps://127.0.0.2/messages/devicebound");
    assert_eq!(asked(&mut client), ["enter 127.0.0.2 for SendToDevices of messages/devicebound by 127.0.0.2"]);
}

#[test]
fn a_device_and_a_back_end_program_may_share_a_connection() {
    let (mut client, _) = sending();
    client.attach("t", Role::Sender, "/devices/dev-1/messages/events");
    let ask = client.ask();
    client.reply(&ask, Ok(connected(&seat("dev-1", 1))));
    assert_eq!(client.noticed(), ["attached"]);
    client.session.handle_push(&seat("dev-1", 2), Push::CutOff(CutOff::Disabled), client.now);
    assert_eq!(client.noticed(), Vec::<String>::new());
}

#[test]
fn messages_are_queued_one_after_another_and_settled_when_they_are_kept() {
    let (mut client, link) = sending();
    client.send(link, 0, &to("dev-1", "a"));
    client.send(link, 1, &to("dev-1", "b"));
    let sent =
        |message_id: &str| Reply::CloudToDevice(cloud_to_device::Answer::Sent { message_id: message_id.to_owned() });
    let first = client.ask();
    assert_eq!(show(&first), "send a to dev-1");
    client.reply(&first, Ok(sent("1")));
    assert_eq!(client.noticed(), ["accepted"]);
    let second = client.ask();
    assert_eq!(show(&second), "send b to dev-1");
    client.reply(&second, Ok(sent("2")));
    assert_eq!(client.noticed(), ["accepted"]);
    client.send_format(link, 2, (0, Settlement::Settled), to("dev-1", "c").to_bytes());
    let third = client.ask();
    client.reply(&third, Err(failure(ErrorKind::DeviceNotFound)));
    assert_eq!(client.noticed(), Vec::<String>::new(), "what is settled needs no outcome");
}

#[test]
fn a_message_that_is_not_taken_is_rejected_with_its_condition() {
    let (mut client, link) = sending();
    let cases = [
        (ErrorKind::DeviceNotFound, "amqp:not-found"),
        (ErrorKind::ModuleNotFound, "amqp:not-found"),
        (ErrorKind::QueueFull, "amqp:resource-limit-exceeded"),
        (ErrorKind::TooLarge, "amqp:link:message-size-exceeded"),
        (ErrorKind::InvalidArgument, "com.microsoft:argument-error"),
        (ErrorKind::Unauthorized, "amqp:unauthorized-access"),
        (ErrorKind::Unavailable, "amqp:internal-error"),
    ];
    for (tag, (kind, condition)) in cases.into_iter().enumerate() {
        client.send(link, tag as u8, &to("dev-1", "a"));
        let ask = client.ask();
        client.reply(&ask, Err(failure(kind)));
        assert_eq!(client.noticed(), [format!("rejected {condition}")], "{kind:?}");
    }
    let nobody = Message { body: Body::data("a"), ..Message::default() };
    let payloads = [(0, nobody.to_bytes()), (0, Bytes::from_static(b"\x00\x53")), (7, to("dev-1", "a").to_bytes())];
    for (tag, (format, payload)) in payloads.into_iter().enumerate() {
        client.send_format(link, 100 + tag as u8, (format, Settlement::Unsettled), payload);
        assert_eq!(client.noticed(), ["rejected com.microsoft:argument-error"]);
    }
    assert_eq!(asked(&mut client), Vec::<String>::new());
}

#[test]
fn credit_comes_back_as_messages_are_kept() {
    let (mut client, link) = sending();
    let credit = client.connection.credit(link);
    for tag in 0..credit {
        client.send(link, tag as u8, &to("dev-1", "a"));
    }
    assert_eq!(client.connection.credit(link), 0, "while the store is slow, no more may come");
    for _ in 0..credit / 2 {
        let ask = client.ask();
        client.reply(&ask, Err(failure(ErrorKind::QueueFull)));
    }
    assert_eq!(client.connection.credit(link), credit / 2);
}

/// What a client may say of something that it read, and how that settles it.
fn outcomes() -> [(DeliveryState, Settled); 4] {
    let error = proto::amqp::Error::new(proto::amqp::condition::NOT_ALLOWED, "No.");
    let modified = Modified { delivery_failed: true, undeliverable_here: false, message_annotations: Map::EMPTY };
    [
        (DeliveryState::Accepted, Settled::Complete),
        (DeliveryState::rejected(error), Settled::Reject),
        (DeliveryState::Released, Settled::Abandon),
        (DeliveryState::Modified(Box::new(modified)), Settled::Abandon),
    ]
}

#[test]
fn feedback_is_a_batch_that_names_its_lock_and_is_settled_as_the_client_says() {
    for (state, settled) in outcomes() {
        let (mut client, link, _, take) = reading();
        client.reply(&take, Ok(batch(9)));
        let delivery = deliveries(&mut client).pop().unwrap();
        assert_eq!((delivery.link, &*delivery.tag), (link, &9u128.to_be_bytes()[..]), "{settled:?}");
        let message = Message::decode(&delivery.payload).unwrap();
        let properties = message.properties.as_deref().unwrap();
        assert_eq!(properties.content_type.as_deref(), Some("application/vnd.microsoft.iothub.feedback.json"));
        assert_eq!(properties.user_id.as_deref(), Some(&b"hub-1"[..]));
        assert_eq!(message.message_annotations.find("iothub-enqueuedtime"), Some(&Value::Timestamp(2_000)));
        let Body::Data(sections) = &message.body else { panic!("{:?}", message.body) };
        let body: serde_json::Value = serde_json::from_slice(&sections[0]).unwrap();
        assert_eq!((&body[0]["originalMessageId"], &body[1]["statusCode"]), (&"m1".into(), &"Success".into()));

        let more = client.ask();
        assert_eq!(show(&more), "take", "there may be more");
        client.connection.settle(delivery.id, state);
        client.reply(&more, Ok(NONE));
        assert_eq!(asked(&mut client), [format!("{settled:?} 9")]);
    }
}

#[test]
fn a_notification_of_a_file_is_one_object_and_is_settled_as_the_client_says() {
    for (state, settled) in outcomes() {
        let (mut client, _, backend, take) = reading_at(FILES, Action::ReadFileNotifications);
        assert_eq!(show(&take), "take of a file");
        client.reply(&take, Ok(Reply::File(file::Answer::Notification(None))));
        assert_eq!(asked(&mut client), Vec::<String>::new(), "it waits until there is one");
        push(&mut client, &backend, Push::MessagesWaiting);
        let take = client.ask();
        client.reply(&take, Ok(notification(9)));
        let delivery = deliveries(&mut client).pop().unwrap();
        assert_eq!(&*delivery.tag, &9u128.to_be_bytes()[..]);
        let message = Message::decode(&delivery.payload).unwrap();
        let properties = message.properties.as_deref().unwrap();
        assert_eq!(properties.content_type.as_deref(), Some("application/vnd.microsoft.iothub.filenotification.json"));
        assert_eq!(message.message_annotations.find("iothub-enqueuedtime"), Some(&Value::Timestamp(2_000)));
        let Body::Data(sections) = &message.body else { panic!("{:?}", message.body) };
        let body: serde_json::Value = serde_json::from_slice(&sections[0]).unwrap();
        let expected = serde_json::json!({
            "deviceId": "dev-1",
            "blobUri": "https://127.0.0.2/uploads/dev-1/a%20b",
            "blobName": "dev-1/a b",
            "lastUpdatedTime": "1970-01-01T00:00:01+00:00",
            "blobSizeInBytes": 4,
            "enqueuedTimeUtc": "1970-01-01T00:00:02.0000000Z",
        });
        assert_eq!(body, expected);
        let more = client.ask();
        assert_eq!(show(&more), "take of a file", "there may be more");
        client.connection.settle(delivery.id, state);
        client.reply(&more, Ok(Reply::File(file::Answer::Notification(None))));
        assert_eq!(asked(&mut client), [format!("{settled:?} 9 of a file")]);
    }
}

#[test]
fn a_client_that_waits_for_its_settlement_is_told_whether_it_counts() {
    for (reply, expected) in
        [(Ok(SETTLED), "accepted"), (Err(failure(ErrorKind::LockLost)), "rejected com.microsoft:message-lock-lost")]
    {
        let (mut client, _) = with_token();
        let mut terms = LinkTerms::between(Source::at(FEEDBACK), Target::default(), 0);
        terms.rcv_settle_mode = ReceiverSettleMode::Second;
        let link =
            client.connection.attach(client.link_session.unwrap(), "read".into(), Role::Receiver, terms).unwrap();
        client.connection.grant_credit(link, 1);
        let ask = client.ask();
        client.reply(&ask, Ok(entered(&backend(1, Action::ReadFeedback))));
        let take = client.ask();
        client.reply(&take, Ok(batch(9)));
        let delivery = deliveries(&mut client).pop().unwrap();
        client.connection.settle(delivery.id, DeliveryState::Accepted);
        let settle = client.ask();
        assert_eq!(show(&settle), "Complete 9");
        assert_eq!(client.session.output(), b"", "not before it is durable");
        client.session.handle_reply(settle.id, reply, client.now);
        // The client's end tells of no disposition of a sender; the frame says it all.
        let frame = client.session.output().to_vec();
        let state = if expected == "accepted" { &b"\x00\x53\x24"[..] } else { &b"com.microsoft:message-lock-lost"[..] };
        assert!(frame.windows(state.len()).any(|part| part == state), "{expected}: {frame:02x?}");
    }
}

#[test]
fn whoever_reads_and_does_not_settle_has_a_few_and_the_rest_waits() {
    let (mut client, link, backend, mut take) = reading();
    for lock in 0..HELD_MAX {
        client.reply(&take, Ok(batch(lock as u128)));
        let mut asks = client.asks();
        match asks.pop() {
            Some(ask) => take = ask,
            None => assert_eq!(lock + 1, HELD_MAX),
        }
    }
    push(&mut client, &backend, Push::MessagesWaiting);
    assert_eq!(asked(&mut client), Vec::<String>::new());
    let held = deliveries(&mut client);
    assert_eq!(held.len(), HELD_MAX);
    client.connection.settle(held[3].id, DeliveryState::Accepted);
    let settle = client.ask();
    assert_eq!(show(&settle), "Complete 3");
    client.reply(&settle, Ok(SETTLED));
    assert_eq!(asked(&mut client), ["take"], "there is room for another");
    client.connection.detach(link, true, None);
    assert_eq!(asked(&mut client), Vec::<String>::new(), "while something may come, nobody leaves");
}

#[test]
fn nothing_is_taken_without_credit() {
    let (mut client, _) = with_token();
    let terms = LinkTerms::between(Source::at(FEEDBACK), Target::default(), 0);
    let link = client.connection.attach(client.link_session.unwrap(), "read".into(), Role::Receiver, terms).unwrap();
    let (ask, backend) = (client.ask(), backend(1, Action::ReadFeedback));
    client.reply(&ask, Ok(entered(&backend)));
    push(&mut client, &backend, Push::MessagesWaiting);
    assert_eq!(asked(&mut client), Vec::<String>::new());
    client.connection.grant_credit(link, 1);
    let take = client.ask();
    client.reply(&take, Ok(batch(1)));
    assert_eq!((deliveries(&mut client).len(), asked(&mut client)), (1, vec![]), "its credit is used up");
}

#[test]
fn a_reader_is_woken_when_something_may_wait_and_asks_once() {
    let (mut client, _, backend, take) = reading();
    push(&mut client, &backend, Push::MessagesWaiting);
    assert_eq!(asked(&mut client), Vec::<String>::new(), "it is asking already");
    client.reply(&take, Ok(NONE));
    let take = client.ask();
    assert_eq!(show(&take), "take", "something may have come meanwhile");
    client.reply(&take, Ok(NONE));
    assert_eq!(asked(&mut client), Vec::<String>::new());
    push(&mut client, &backend, Push::MessagesWaiting);
    assert_eq!(asked(&mut client), ["take"]);
}

#[test]
fn a_client_that_settles_nothing_has_what_it_was_sent() {
    let (mut client, _) = with_token();
    let mut terms = LinkTerms::between(Source::at(FEEDBACK), Target::default(), 0);
    terms.snd_settle_mode = SenderSettleMode::Settled;
    let link = client.connection.attach(client.link_session.unwrap(), "read".into(), Role::Receiver, terms).unwrap();
    client.connection.grant_credit(link, 1);
    let ask = client.ask();
    client.reply(&ask, Ok(entered(&backend(1, Action::ReadFeedback))));
    let take = client.ask();
    client.reply(&take, Ok(batch(9)));
    assert!(deliveries(&mut client)[0].is_settled);
    assert_eq!(asked(&mut client), ["Complete 9"]);
}

#[test]
fn what_a_client_leaves_unsettled_is_given_back_before_it_leaves() {
    type End = fn(&mut Client, LinkId);
    let ends: [(&str, End); 3] = [
        ("its link is over", |client, link| client.connection.detach(link, true, None)),
        ("its session is over", |client, _| client.connection.end_session(client.link_session.unwrap(), None)),
        ("its connection is over", |client, _| client.session.handle_eof(client.now)),
    ];
    for (case, end) in ends {
        let (mut client, link, _, take) = reading();
        client.reply(&take, Ok(batch(9)));
        let more = client.ask();
        end(&mut client, link);
        client.pump();
        client.reply(&more, Ok(batch(10)));
        for expected in ["Abandon 9", "Abandon 10", "leave 1"] {
            let ask = client.ask();
            assert_eq!(show(&ask), expected, "{case}");
            client.reply(&ask, Ok(SETTLED));
        }
        assert_eq!(asked(&mut client), Vec::<String>::new(), "{case}");
    }
}

#[test]
fn a_client_that_goes_while_it_is_judged_leaves_at_once() {
    let (mut client, _) = with_token();
    let link = client.attach("send", Role::Sender, SENT);
    let ask = client.ask();
    client.connection.detach(link, true, None);
    client.pump();
    client.reply(&ask, Ok(entered(&backend(4, Action::SendToDevices))));
    assert_eq!(asked(&mut client), ["leave 4"]);
}

#[test]
fn feedback_that_cannot_be_read_from_the_store_ends_its_link() {
    let (mut client, _, _, take) = reading();
    client.reply(&take, Err(failure(ErrorKind::Unavailable)));
    assert_eq!(client.noticed(), ["detached amqp:internal-error"]);
    assert_eq!(asked(&mut client), ["leave 1"]);
}

#[test]
fn who_is_cut_off_is_told_why_and_the_connection_ends_when_nobody_is_left() {
    let cases = [
        (CutOff::TokenExpired, "amqp:unauthorized-access"),
        (CutOff::Rekeyed, "amqp:unauthorized-access"),
        (CutOff::HubDeleted, "com.microsoft:iot-hub-not-found-error"),
    ];
    for (reason, condition) in cases {
        let (mut client, _, stays, take) = reading();
        client.reply(&take, Ok(batch(9)));
        let _ = deliveries(&mut client);
        push(&mut client, &backend(2, Action::ReadFeedback), Push::CutOff(reason));
        assert_eq!(client.noticed(), Vec::<String>::new(), "another is meant");
        push(&mut client, &stays, Push::CutOff(reason));
        assert_eq!(client.noticed(), [format!("detached {condition}")]);
        assert_eq!(asked(&mut client), ["take"], "which was begun before");
        let ending = client.session.poll_timeout().unwrap();
        client.session.handle_timeout(ending);
        let noticed = client.noticed();
        assert!(noticed[0].starts_with("closed: "), "{noticed:?}");
    }
}
