//! Devices over AMQP against a client's end of the connection, in virtual time.

use bytes::Bytes;
use domain::operation::ErrorKind;
use domain::operation::session::{Ask, CutOff, Filter};
use domain::operation::telemetry::Answer::Stored;
use domain::operation::{Operation, Push, Reply, cloud_to_device, method, telemetry, twin};
use domain::sas::SasToken;
use proto::amqp::{Body, Map, Message, MessageId, Properties, Role, Settlement, Symbol, Value};
use serde_json::json;

use self::client::{Client, DONE, SIGNATURE, connected, failure, seat};
use crate::hub::telemetry_amqp::BATCH_FORMAT;
use crate::session::{Ask as Asked, Session as _};

mod bounds;
pub(in crate::hub) mod client;
mod messages;
mod methods;
mod misuse;
mod models;
mod room;
mod unproven;

const STORED: Reply = Reply::Telemetry(Stored);

fn telemetry(body: &'static str) -> Message {
    Message { body: Body::data(body), ..Message::default() }
}

pub(in crate::hub) fn put_token(message_id: MessageId, resource: &str) -> Message {
    Message {
        properties: Some(Box::new(Properties { message_id: Some(message_id), ..Properties::default() })),
        application_properties: Map::from_iter([
            ("operation", "put-token"),
            ("type", "servicebus.windows.net:sastoken"),
            ("name", resource),
        ]),
        body: Body::Value(format!("SharedAccessSignature sr={resource}&{SIGNATURE}").into()),
        ..Message::default()
    }
}

fn twin_request(operation: &'static str, resource: Option<&'static str>, id: &str, body: Body) -> Message {
    let mut annotations = Map::EMPTY;
    annotations.push(Symbol::from_static("operation"), Symbol::from_static(operation));
    if let Some(resource) = resource {
        annotations.push(Symbol::from_static("resource"), Symbol::from_static(resource));
    }
    let correlation_id = Some(MessageId::String(id.into()));
    let properties = Some(Box::new(Properties { correlation_id, ..Properties::default() }));
    Message { message_annotations: annotations, properties, body, ..Message::default() }
}

fn listen(id: &str) -> Message {
    twin_request("PUT", Some("/notifications/twin/properties/desired"), id, Body::Empty)
}

fn change(version: u64) -> Push {
    let patch = json!({ "t": 1, "$version": version }).as_object().unwrap().clone();
    Push::Desired(twin::DesiredChange { version, patch: std::sync::Arc::new(patch) })
}

fn document(version: u64) -> Reply {
    let document = json!({ "desired": { "$version": version }, "reported": { "$version": 1 } });
    Reply::Twin(twin::Answer::Document(document.as_object().unwrap().clone()))
}

/// What is asked, in words.
fn show(ask: &Asked) -> String {
    let token = ask.token.as_ref().map(|token: &SasToken| format!(" by {}", token.resource())).unwrap_or_default();
    let words = match &ask.operation {
        Operation::Session(Ask::Connect(connect)) => format!("connect {} at {}", connect.claimed, connect.host),
        Operation::Session(Ask::Verify(verify)) => match &verify.scope {
            Some(scope) => format!("verify {scope} at {}", verify.host),
            None => format!("verify a policy at {}", verify.host),
        },
        Operation::Session(Ask::Renew { device }) => format!("renew {}", device.name),
        Operation::Session(Ask::Announce { device, model_id }) => format!("announce {model_id} of {}", device.name),
        Operation::Session(Ask::Disconnect { device }) => format!("disconnect {}", device.name),
        Operation::Telemetry(telemetry::Ask::Send { message, .. }) => {
            format!("send {}", String::from_utf8_lossy(&message.body))
        }
        Operation::Telemetry(telemetry::Ask::SendBatch { messages, .. }) => {
            let bodies: Vec<_> = messages.iter().map(|draft| String::from_utf8_lossy(&draft.body)).collect();
            format!("send {}", bodies.join(" and "))
        }
        Operation::Twin(twin::Ask::Read(_)) => "read twin".to_owned(),
        Operation::Twin(twin::Ask::Report { patch, .. }) => format!("report {patch}"),
        Operation::Session(Ask::Subscribe { subscriptions, is_kept: false, .. }) => {
            match subscriptions.granted(Filter::Methods) {
                Some(_) => "have calls come".to_owned(),
                None => "have no calls come".to_owned(),
            }
        }
        Operation::Method(method::Ask::Respond { request, response, .. }) => match response {
            Ok(response) => {
                let said = String::from_utf8_lossy(response.payload.bytes());
                format!("respond to {} with {} {said}", request.bits(), response.status)
            }
            Err(invalid) => format!("respond to {}: {invalid}", request.bits()),
        },
        Operation::CloudToDevice(cloud_to_device::Ask::Receive { limit, .. }) => format!("receive {limit}"),
        Operation::CloudToDevice(cloud_to_device::Ask::Settle { lock, settlement, .. }) => {
            format!("{settlement:?} {}", lock.bits()).to_lowercase()
        }
        Operation::CloudToDevice(cloud_to_device::Ask::GiveBack(device)) => format!("give back of {}", device.name),
        other => panic!("{other:?}"),
    };
    words + &token
}

fn asked(client: &mut Client) -> Vec<String> {
    client.asks().iter().map(show).collect()
}

/// A message's answer: its status code or status, and what it answers.
fn status(message: &Message) -> (Option<i64>, Option<MessageId>) {
    let status = message.application_properties.find("status-code").or(message.message_annotations.find("status"));
    (status.and_then(Value::as_i64), message.correlation_id().cloned())
}

fn text(body: &Body) -> String {
    match body {
        Body::Data(sections) => sections.iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect(),
        other => format!("{other:?}"),
    }
}

#[test]
fn a_token_is_put_and_the_device_is_let_in_with_it() {
    let mut client = Client::open();
    let tokens = client.attach("$cbs-sender", Role::Sender, "$cbs");
    let answers = client.attach("$cbs-receiver", Role::Receiver, "$cbs");
    assert_eq!(client.noticed(), ["attached", "attached"]);
    client.send(tokens, 0, &put_token(MessageId::Ulong(0), "127.0.0.2/devices/dev-1"));
    let ask = client.ask();
    assert_eq!(show(&ask), "verify dev-1 at 127.0.0.2 by 127.0.0.2/devices/dev-1");
    assert_eq!(client.noticed(), ["accepted"], "the disposition comes before the answer");
    client.reply(&ask, Ok(DONE));
    let answered = client.messages(answers);
    assert_eq!(status(&answered[0]), (Some(200), Some(MessageId::Ulong(0))));
    assert_eq!(answered[0].application_properties.find("status-code"), Some(&Value::Int(200)));

    client.attach("t", Role::Sender, "amqps://127.0.0.2:5671/devices/dev-1/messages/events");
    let ask = client.ask();
    assert_eq!(show(&ask), "connect dev-1 at 127.0.0.2:5671 by 127.0.0.2/devices/dev-1");
    client.reply(&ask, Ok(connected(&seat("dev-1", 1))));
    assert_eq!(client.noticed(), ["attached"]);

    // A newer token counts for who is in.
    client.send(tokens, 1, &put_token(MessageId::Uuid([9; 16]), "127.0.0.2%2Fdevices%2Fdev-1"));
    let ask = client.ask();
    client.reply(&ask, Ok(DONE));
    assert_eq!(asked(&mut client), ["renew dev-1 by 127.0.0.2/devices/dev-1"]);
    assert_eq!(status(&client.messages(answers)[0]), (Some(200), Some(MessageId::Uuid([9; 16]))));
}

#[test]
fn a_token_that_is_refused_lets_nobody_in() {
    let mut client = Client::open();
    let tokens = client.attach("s", Role::Sender, "$cbs");
    let answers = client.attach("r", Role::Receiver, "$cbs");
    for (tag, kind, expected) in [
        (0, ErrorKind::Unauthorized, 401),
        (1, ErrorKind::HubNotFound, 401),
        (2, ErrorKind::DeviceNotFound, 404),
        (3, ErrorKind::Throttled, 429),
    ] {
        client.send(tokens, tag, &put_token(MessageId::Ulong(tag.into()), "h/devices/dev-1"));
        let ask = client.ask();
        client.reply(&ask, Err(failure(kind)));
        assert_eq!(status(&client.messages(answers)[0]).0, Some(expected), "{kind:?}");
    }
    client.send(tokens, 4, &telemetry("no request"));
    assert_eq!(status(&client.messages(answers)[0]), (Some(400), None));

    client.attach("t", Role::Sender, "/devices/dev-1/messages/events");
    let ask = client.ask();
    assert_eq!(show(&ask), "connect dev-1 at 127.0.0.2", "no token is shown that was refused");
    client.reply(&ask, Err(failure(ErrorKind::Unauthorized)));
    assert_eq!(client.noticed(), ["refused", "detached amqp:unauthorized-access"]);
}

#[test]
fn several_devices_share_a_connection_each_with_its_own_proof() {
    let mut client = Client::open();
    let tokens = client.attach("s", Role::Sender, "$cbs");
    let _answers = client.attach("r", Role::Receiver, "$cbs");
    for (tag, resource) in [(0, "h/devices/a"), (1, "h/devices/b"), (2, "h&skn=device")] {
        client.send(tokens, tag, &put_token(MessageId::Ulong(tag.into()), resource));
        let ask = client.ask();
        client.reply(&ask, Ok(DONE));
    }
    let expected = [("a", "h/devices/a"), ("b", "h/devices/b"), ("b/m", "h/devices/b"), ("c", "h")];
    let mut entered = Vec::new();
    for (number, (identity, resource)) in expected.into_iter().enumerate() {
        let path = identity.replace('/', "/modules/");
        let link = client.attach(identity, Role::Sender, &format!("/devices/{path}/messages/events"));
        let ask = client.ask();
        assert_eq!(show(&ask), format!("connect {identity} at 127.0.0.2 by {resource}"));
        let seat = seat(identity, number as u64);
        client.reply(&ask, Ok(connected(&seat)));
        entered.push((link, seat));
    }
    let _ = client.noticed();
    client.session.handle_push(&seat("a", 9), Push::CutOff(CutOff::TokenExpired), client.now);
    assert_eq!(client.noticed(), Vec::<String>::new(), "another seat of that name is meant");

    // One that is cut off takes nobody with it.
    client.session.handle_push(&entered[0].1, Push::CutOff(CutOff::TokenExpired), client.now);
    assert_eq!(client.noticed(), ["detached amqp:unauthorized-access"]);
    assert_eq!(asked(&mut client), ["disconnect a"]);
    client.send(entered[1].0, 9, &telemetry("still here"));
    let ask = client.ask();
    assert_eq!(show(&ask), "send still here");
    client.reply(&ask, Ok(STORED));
    assert_eq!(client.noticed(), ["accepted"]);
}

#[test]
fn telemetry_is_settled_once_it_is_stored() {
    let (mut client, link, _) = Client::telemetry_ready();
    client.send(link, 0, &telemetry("a"));
    let first = client.ask();
    client.send(link, 1, &telemetry("b"));
    let second = client.ask();
    assert_eq!((show(&first), show(&second)), ("send a".to_owned(), "send b".to_owned()));
    assert_eq!(client.noticed(), Vec::<String>::new());
    client.reply(&first, Ok(STORED));
    assert_eq!(client.noticed(), ["accepted"]);
    client.reply(&second, Err(failure(ErrorKind::Unavailable)));
    assert_eq!(client.noticed(), ["rejected amqp:internal-error"], "and says why");
}

#[test]
fn a_batch_is_one_ask_and_one_outcome() {
    let (mut client, link, _) = Client::telemetry_ready();
    let sections = vec![telemetry("a").to_bytes(), telemetry("b").to_bytes()];
    let batch = Message { body: Body::Data(sections), ..Message::default() };
    client.send_format(link, 0, (BATCH_FORMAT, Settlement::Unsettled), batch.to_bytes());
    let ask = client.ask();
    assert_eq!(show(&ask), "send a and b");
    client.reply(&ask, Ok(STORED));
    assert_eq!(client.noticed(), ["accepted"]);

    let one = Message { body: Body::Data(vec![telemetry("c").to_bytes()]), ..Message::default() };
    client.send_format(link, 1, (BATCH_FORMAT, Settlement::Settled), one.to_bytes());
    let ask = client.ask();
    assert_eq!(show(&ask), "send c");
    client.reply(&ask, Ok(STORED));
    assert_eq!(client.noticed(), Vec::<String>::new(), "what is settled needs no outcome");

    client.send_format(link, 2, (7, Settlement::Unsettled), telemetry("d").to_bytes());
    assert_eq!((asked(&mut client), client.noticed()), (vec![], vec!["rejected com.microsoft:argument-error".into()]));
    client.send_format(link, 3, (0, Settlement::Unsettled), Bytes::from_static(b"\x00\x53"));
    assert_eq!(client.noticed(), ["rejected com.microsoft:argument-error"]);
}

#[test]
fn credit_comes_back_as_telemetry_is_stored() {
    let (mut client, link, _) = Client::telemetry_ready();
    let credit = client.connection.credit(link);
    let count = u8::try_from(credit).unwrap();
    for tag in 0..count {
        client.send(link, tag, &telemetry("x"));
    }
    assert_eq!(client.connection.credit(link), 0, "while the store is slow, no more may come");
    let asks = client.asks();
    for ask in asks.iter().take(usize::from(count) / 2) {
        client.reply(ask, Ok(STORED));
    }
    assert_eq!(client.connection.credit(link), credit / 2);
}

#[test]
fn a_twin_is_read_reported_and_followed() {
    let (mut client, [asking, answering], seat) = Client::twin_ready();
    client.send(asking, 0, &listen("Put1"));
    let answered = client.messages(answering);
    assert_eq!(status(&answered[0]), (Some(200), Some(MessageId::String("Put1".into()))));

    client.send(asking, 1, &twin_request("GET", None, "Get1", Body::Empty));
    let ask = client.ask();
    assert_eq!(show(&ask), "read twin");
    client.session.handle_push(&seat, change(4), client.now);
    client.session.handle_push(&seat, change(5), client.now);
    assert_eq!(client.messages(answering), [], "changes wait for the answer");
    client.reply(&ask, Ok(document(4)));
    let told = client.messages(answering);
    assert_eq!(status(&told[0]), (Some(200), Some(MessageId::String("Get1".into()))));
    assert_eq!(text(&told[0].body), r#"{"desired":{"$version":4},"reported":{"$version":1}}"#);
    assert_eq!((told.len(), status(&told[1])), (2, (None, None)), "what the document holds is not told again");
    assert_eq!(text(&told[1].body), r#"{"t":1,"$version":5}"#);

    let report = twin_request("PATCH", Some("/properties/reported"), "Patch1", Body::data("{\"a\":1}"));
    client.send(asking, 2, &report);
    let ask = client.ask();
    assert_eq!(show(&ask), "report {\"a\":1}");
    client.reply(&ask, Ok(Reply::Twin(twin::Answer::Reported { version: 7 })));
    let answer = &client.messages(answering)[0];
    assert_eq!(status(answer).0, Some(204));
    assert_eq!(answer.message_annotations.find("version"), Some(&Value::Long(7)));

    client.send(asking, 3, &report);
    let ask = client.ask();
    client.reply(&ask, Err(failure(ErrorKind::TooLarge)));
    let answer = &client.messages(answering)[0];
    assert_eq!(status(answer).0, Some(400));
    assert!(text(&answer.body).contains("\"errorCode\":400004"), "{:?}", answer.body);

    client.send(asking, 4, &twin_request("DELETE", Some("/notifications/twin/properties/desired"), "D", Body::Empty));
    client.session.handle_push(&seat, change(6), client.now);
    assert_eq!(client.messages(answering).len(), 1, "nobody listens");
}

#[test]
fn a_document_that_nobody_gets_is_none_that_the_device_knows() {
    let (mut client, [asking, answering], seat) = Client::twin_ready();
    client.send(asking, 0, &twin_request("GET", None, "1", Body::Empty));
    let ask = client.ask();
    let pair = [("com.microsoft:channel-correlation-id", "twin:1")];
    let again = client.attach_with("again", Role::Sender, "/devices/dev-1/twin", &pair);
    client.send(again, 0, &listen("2"));
    client.session.handle_push(&seat, change(5), client.now);
    client.reply(&ask, Ok(document(5)));
    let told: Vec<_> = client.messages(answering).iter().map(|message| text(&message.body)).collect();
    assert_eq!(told, ["", r#"{"t":1,"$version":5}"#], "the link on which it was asked for is gone");
}

#[test]
fn a_missing_change_ends_the_links_so_that_the_twin_is_read_afresh() {
    let (mut client, [asking, answering], seat) = Client::twin_ready();
    client.send(asking, 0, &listen("1"));
    client.session.handle_push(&seat, change(4), client.now);
    assert_eq!(client.messages(answering).len(), 2);
    client.session.handle_push(&seat, change(6), client.now);
    let noticed = client.noticed();
    assert_eq!(noticed[..2], ["detached amqp:link:detach-forced", "detached amqp:link:detach-forced"]);
    assert_eq!(asked(&mut client), ["disconnect dev-1"]);
}

#[test]
fn the_later_of_two_links_alike_stays() {
    let (mut client, first, _) = Client::telemetry_ready();
    let session = client.begin();
    assert_eq!(client.link_session, Some(session));
    let second = client.attach("telemetry", Role::Sender, "/devices/dev-1/messages/events");
    let mut noticed = client.noticed();
    noticed.sort();
    assert_eq!(noticed, ["attached", "detached amqp:link:stolen"]);
    assert_eq!(client.connection.credit(first), 0);
    client.send(second, 0, &telemetry("a"));
    assert_eq!(asked(&mut client), ["send a"]);
}

#[test]
fn the_links_of_another_pair_take_the_place_of_both() {
    let (mut client, [_, answering], _) = Client::twin_ready();
    let pair = [("com.microsoft:channel-correlation-id", "twin:2")];
    client.attach_with("c", Role::Sender, "/devices/dev-1/twin", &pair);
    let mut noticed = client.noticed();
    noticed.sort();
    assert_eq!(noticed, ["attached", "detached amqp:link:stolen", "detached amqp:link:stolen"]);
    assert_eq!(client.connection.credit(answering), 0);
    client.attach_with("d", Role::Receiver, "/devices/dev-1/twin", &pair);
    assert_eq!(client.noticed(), ["attached"]);
}

#[test]
fn who_is_cut_off_is_told_why_and_nothing_of_it_is_begun_after() {
    let cases = [
        (CutOff::Displaced, "amqp:link:stolen"),
        (CutOff::Disabled, "amqp:unauthorized-access"),
        (CutOff::Rekeyed, "amqp:unauthorized-access"),
        (CutOff::TokenExpired, "amqp:unauthorized-access"),
        (CutOff::CertificateExpired, "amqp:unauthorized-access"),
        (CutOff::Deleted, "amqp:not-found"),
        (CutOff::HubDeleted, "com.microsoft:iot-hub-not-found-error"),
        (CutOff::Overrun, "amqp:link:detach-forced"),
    ];
    for (reason, condition) in cases {
        let (mut client, link, seat) = Client::telemetry_ready();
        client.send(link, 0, &telemetry("never"));
        client.session.handle_push(&seat, Push::CutOff(reason), client.now);
        assert_eq!(client.noticed(), [format!("detached {condition}")]);
        assert_eq!(asked(&mut client), ["disconnect dev-1"], "{reason:?}");
        let ending = client.session.poll_timeout().unwrap();
        client.session.handle_timeout(ending);
        let noticed = client.noticed();
        assert!(noticed[0].starts_with("closed: "), "{noticed:?}: nobody is left on the connection");
    }
}

#[test]
fn a_device_leaves_with_its_last_link() {
    let (mut client, [asking, answering], _) = Client::twin_ready();
    client.connection.detach(asking, true, None);
    assert_eq!(asked(&mut client), Vec::<String>::new());
    client.connection.detach(answering, true, None);
    assert_eq!(asked(&mut client), ["disconnect dev-1"]);

    let (mut client, _, _) = Client::telemetry_ready();
    let session = client.link_session.unwrap();
    client.connection.end_session(session, None);
    assert_eq!(asked(&mut client), ["disconnect dev-1"]);
}

#[test]
fn a_device_that_goes_while_it_is_judged_leaves_at_once() {
    let mut client = Client::open();
    let link = client.attach("t", Role::Sender, "/devices/dev-1/messages/events");
    let ask = client.ask();
    client.connection.detach(link, true, None);
    client.pump();
    client.reply(&ask, Ok(connected(&seat("dev-1", 1))));
    assert_eq!(asked(&mut client), ["disconnect dev-1"]);
}

#[test]
fn addresses_that_lead_nowhere_are_refused() {
    let mut client = Client::open();
    let addresses = ["/devices/dev-1/nothing", "/devices/dev-1/modules", "/elsewhere", "/devices/a b/twin"];
    for address in addresses {
        client.attach(address, Role::Sender, address);
        assert_eq!(client.noticed(), ["refused", "detached amqp:not-found"], "{address}");
    }
    client.attach("receiver", Role::Receiver, "/devices/dev-1/messages/events");
    assert_eq!(client.noticed(), ["refused", "detached amqp:not-found"], "inputs are a module's");
    client.attach("sender", Role::Sender, "/devices/dev-1/messages/devicebound");
    assert_eq!(client.noticed(), ["refused", "detached amqp:not-found"], "nobody sends where messages come from");
    assert_eq!(asked(&mut client), Vec::<String>::new());
}

#[test]
fn plain_names_a_device_or_a_policy_and_shows_a_token() {
    let token = |resource: &str| format!("SharedAccessSignature sr={resource}&{SIGNATURE}");
    let mut client = Client::plain("dev-1@sas.hub", &token("127.0.0.2/devices/dev-1"));
    let ask = client.ask();
    assert_eq!(show(&ask), "verify dev-1 at 127.0.0.2 by 127.0.0.2/devices/dev-1");
    client.reply(&ask, Ok(DONE));
    client.begin();
    client.attach("t", Role::Sender, "/devices/dev-1/messages/events");
    assert_eq!(asked(&mut client), ["connect dev-1 at 127.0.0.2 by 127.0.0.2/devices/dev-1"]);

    let mut client = Client::plain("device@sas.root.127", &token("127.0.0.2&skn=device"));
    assert_eq!(asked(&mut client), ["verify a policy at 127.0.0.2 by 127.0.0.2"]);

    let refused = [
        ("dev-2@sas.hub", token("127.0.0.2/devices/dev-1")),
        ("other@sas.root.127", token("127.0.0.2&skn=device")),
        ("dev-1@sas.hub", "no token".to_owned()),
        ("dev-1", token("127.0.0.2/devices/dev-1")),
    ];
    for (user, password) in refused {
        let mut client = Client::plain(user, &password);
        assert_eq!(asked(&mut client), Vec::<String>::new(), "{user}");
        assert!(client.noticed()[0].starts_with("closed: SASL ended with Auth"), "{user}");
    }
    let mut client = Client::plain("dev-1@sas.hub", &token("h/devices/dev-1"));
    let ask = client.ask();
    client.reply(&ask, Err(failure(ErrorKind::Unauthorized)));
    assert!(client.noticed()[0].starts_with("closed: SASL ended with Auth"));
}
