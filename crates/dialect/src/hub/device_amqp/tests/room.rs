//! What a device is told when there is little room for it: late, or with an end, and never in part.

use std::sync::Arc;

use domain::operation::session::ConnectedDevice;
use domain::operation::twin::{Answer, DesiredChange};
use domain::operation::{Push, Reply};
use proto::amqp::{Body, LinkId, LinkTerms, Message, MessageId, Role, Source, Target};
use serde_json::{Value as Json, json};

use super::client::{Client, connected, seat};
use super::{change, document, listen, twin_request};
use crate::hub::desired::WAITING_MAX;
use crate::session::Session as _;

/// So long that as many changes as may wait are more than a connection takes at once.
const CHANGE_BYTES: usize = 33 * 1_024;

fn long_change(version: u64) -> Push {
    let patch = json!({ "t": "x".repeat(CHANGE_BYTES), "$version": version });
    Push::Desired(DesiredChange { version, patch: Arc::new(patch.as_object().unwrap().clone()) })
}

fn long_document() -> Reply {
    let document =
        json!({ "desired": { "t": "x".repeat(CHANGE_BYTES), "$version": 1 }, "reported": { "$version": 1 } });
    Reply::Twin(Answer::Document(document.as_object().unwrap().clone()))
}

fn json_of(message: &Message) -> Json {
    let Body::Data(sections) = &message.body else { panic!("no bytes") };
    serde_json::from_slice(&sections.concat()).unwrap()
}

/// `dev-1` with both links of the twin, and the answers' bounded.
fn bounded(message_bytes_max: u64) -> (Client, [LinkId; 2], ConnectedDevice) {
    let mut client = Client::open();
    let asking = client.attach("a", Role::Sender, "/devices/dev-1/twin");
    let ask = client.ask();
    let terms = LinkTerms::between(Source::at("/devices/dev-1/twin"), Target::default(), message_bytes_max);
    let session = client.link_session.unwrap();
    let answering = client.connection.attach(session, "b".into(), Role::Receiver, terms).unwrap();
    client.connection.grant_credit(answering, 50);
    client.pump();
    let seat = seat("dev-1", 1);
    client.reply(&ask, Ok(connected(&seat)));
    assert_eq!(client.noticed(), ["attached", "attached"]);
    (client, [asking, answering], seat)
}

#[test]
fn changes_that_do_not_fit_at_once_come_as_there_is_room() {
    let (mut client, [asking, answering], seat) = Client::twin_ready();
    client.send(asking, 1, &listen("1"));
    client.send(asking, 2, &twin_request("GET", None, "2", Body::Empty));
    let ask = client.ask();
    let versions: Vec<u64> = (2..).take(WAITING_MAX).collect();
    for version in &versions {
        client.session.handle_push(&seat, long_change(*version), client.now);
    }
    client.messages(answering);
    client.reply(&ask, Ok(document(1)));
    let told = client.messages(answering);
    let told: Vec<u64> = told.iter().skip(1).map(|message| json_of(message)["$version"].as_u64().unwrap()).collect();
    assert_eq!(told, versions);
}

#[test]
fn an_answer_that_is_longer_than_the_client_takes_says_so() {
    let (mut client, [asking, answering], _) = bounded(4_096);
    client.send(asking, 1, &twin_request("GET", None, "1", Body::Empty));
    let ask = client.ask();
    client.reply(&ask, Ok(long_document()));
    let told = client.messages(answering);
    let [answer] = &told[..] else { panic!("{told:?}") };
    assert_eq!(answer.correlation_id(), Some(&MessageId::String("1".into())));
    assert_eq!(json_of(answer)["errorCode"], 413_001);
}

#[test]
fn a_change_that_is_longer_than_the_client_takes_ends_its_links() {
    let (mut client, [asking, _], seat) = bounded(4_096);
    client.send(asking, 1, &listen("1"));
    client.noticed();
    client.session.handle_push(&seat, change(2), client.now);
    assert_eq!(client.noticed(), ["message"]);
    client.session.handle_push(&seat, long_change(3), client.now);
    let gone = "detached amqp:link:detach-forced";
    assert_eq!(client.noticed(), [gone, gone]);
}
