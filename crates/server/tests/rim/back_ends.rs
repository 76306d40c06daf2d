//! Back-end programs over AMQP: what one does wrong or leaves undone harms no other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::clock::{Clock as _, ManualClock};
use http::Method;
use proto::amqp::{
    Body, DeliveryState, Error, Event, LinkId, LinkTerms, Map, Message, MessageId, Outgoing, Performative, Properties,
    ReceiverSettleMode, Role, SessionId, Settlement, Source, Target, Transfer,
};
use serde_json::Value as Json;
use server::shutdown::Drained;
use service::clock::SystemClock;
use testkit::amqp_client::AmqpClient;
use testkit::whole::Muster;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::ground::{DEVICE, ask_hub, start, with_device};

pub type Client = AmqpClient<TlsStream<TcpStream>>;

const DEVICE_BOUND: &str = "/messages/devicebound";
const FEEDBACK: &str = "/messages/serviceBound/feedback";
const FILES: &str = "/messages/serviceBound/filenotifications";
/// How long feedback is a reader's own, unless the hub is set otherwise.
const LOCK: Duration = Duration::from_secs(60);
/// How many messages to devices a link lets a program send before any is kept.
const SEND_CREDIT: u32 = 64;
/// The longest body of a message to a device.
const BODY_BYTES_MAX: usize = 65_536;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_sends_and_reads_what_became_of_it_on_one_connection() {
    let muster = start().await;
    let (mut client, session) = enter(&muster).await;
    let reader = attach(&mut client, session, (FEEDBACK, Role::Receiver)).await;
    client.connection.grant_credit(reader, 1);
    let sender = attach(&mut client, session, (DEVICE_BOUND, Role::Sender)).await;
    assert_eq!(send(&mut client, sender, "m1", "hello").await, DeliveryState::Accepted);
    purge(&muster).await;
    assert_eq!(records(&read(&mut client, reader).await), ["m1"]);
    let (drained, heard) = tokio::join!(muster.stop(), async { [client.hear().await, client.hear().await] });
    assert_eq!(drained, Drained::Finished, "whoever only reads holds up no drain");
    assert!(matches!(heard, [Some(Event::End { error: None, .. }), Some(Event::Closed(_))]), "{heard:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_reader_keeps_is_another_readers_once_its_lock_has_run_out() {
    let clock = Arc::new(ManualClock::at(SystemClock.now()));
    let muster = with_device(Muster::start_by(clock.clone()).await.expect("a server")).await;
    let (mut keeper, session) = enter(&muster).await;
    let link = attach(&mut keeper, session, (FEEDBACK, Role::Receiver)).await;
    keeper.connection.grant_credit(link, 1);
    let sender = attach(&mut keeper, session, (DEVICE_BOUND, Role::Sender)).await;
    send(&mut keeper, sender, "m1", "hello").await;
    purge(&muster).await;
    let kept = read(&mut keeper, link).await;

    let (mut other, session) = enter(&muster).await;
    let second = attach(&mut other, session, (FEEDBACK, Role::Receiver)).await;
    other.connection.grant_credit(second, 10);
    other.flush().await.expect("the server reads");
    clock.advance(LOCK);
    let (again, settled) = tokio::join!(read(&mut other, second), async {
        // The keeper's settling comes too late: it is told so, and nothing is lost.
        keeper.connection.settle(kept.id, DeliveryState::Accepted);
        keeper.flush().await
    });
    settled.expect("the server reads");
    drop(keeper);
    assert_eq!(records(&again), ["m1"]);
    other.connection.settle(again.id, DeliveryState::Accepted);
    other.connection.close(None, Instant::now());
    while !matches!(other.hear().await, Some(Event::Closed(_)) | None) {}
    let (mut third, session) = enter(&muster).await;
    let link = attach(&mut third, session, (FEEDBACK, Role::Receiver)).await;
    third.connection.grant_credit(link, 10);
    third.flush().await.expect("the server reads");
    let sender = attach(&mut third, session, (DEVICE_BOUND, Role::Sender)).await;
    send(&mut third, sender, "m2", "hello").await;
    purge(&muster).await;
    assert_eq!(records(&read(&mut third, link).await), ["m2"], "what was settled does not come again");
    drop(third);
    muster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_without_credit_takes_nothing_from_others_and_one_that_goes_gives_back() {
    let muster = start().await;
    let (mut idle, session) = enter(&muster).await;
    attach(&mut idle, session, (FEEDBACK, Role::Receiver)).await;
    let (mut client, session) = enter(&muster).await;
    let link = attach(&mut client, session, (FEEDBACK, Role::Receiver)).await;
    client.connection.grant_credit(link, 1);
    let sender = attach(&mut client, session, (DEVICE_BOUND, Role::Sender)).await;
    send(&mut client, sender, "m1", "hello").await;
    purge(&muster).await;
    assert_eq!(records(&read(&mut client, link).await), ["m1"]);
    // Without a word: the socket is closed, and nothing was settled.
    drop(client);
    let (mut other, session) = enter(&muster).await;
    let link = attach(&mut other, session, (FEEDBACK, Role::Receiver)).await;
    other.connection.grant_credit(link, 1);
    assert_eq!(records(&read(&mut other, link).await), ["m1"]);
    drop((idle, other));
    muster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_too_large_is_refused_by_itself() {
    let muster = start().await;
    let (mut client, session) = enter(&muster).await;
    let link = attach(&mut client, session, (DEVICE_BOUND, Role::Sender)).await;
    let large = |bytes| "x".repeat(bytes);
    let refused = send(&mut client, link, "m1", &large(BODY_BYTES_MAX + 1)).await;
    assert_eq!(rejection(&refused).condition, "amqp:link:message-size-exceeded");
    assert_eq!(send(&mut client, link, "m2", &large(BODY_BYTES_MAX)).await, DeliveryState::Accepted);
    drop(client);
    muster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_breaks_its_bounds_ends_and_its_neighbours_stay() {
    let muster = start().await;
    // Handles are given in order: the abused link is the second.
    let transfer = |number: u32, more, aborted| Transfer {
        handle: 1,
        delivery_id: Some(number),
        delivery_tag: Some(number.to_be_bytes().to_vec().into()),
        message_format: Some(0),
        settled: Some(false),
        more,
        rcv_settle_mode: None,
        state: None,
        resume: false,
        aborted,
        batchable: false,
    };
    let endless: Vec<Transfer> = (0..5).map(|_| transfer(0, true, false)).collect();
    let greedy: Vec<Transfer> = (0..=SEND_CREDIT).map(|number| transfer(number, false, true)).collect();
    for (transfers, bytes, condition) in
        [(endless, 60_000, "amqp:link:message-size-exceeded"), (greedy, 0, "amqp:link:transfer-limit-exceeded")]
    {
        let (mut client, session) = enter(&muster).await;
        let neighbour = attach(&mut client, session, (DEVICE_BOUND, Role::Sender)).await;
        let whole = format!("amqps://{}{DEVICE_BOUND}", muster.hub.host);
        let abused = attach(&mut client, session, (&whole, Role::Sender)).await;
        for transfer in transfers {
            client.force(&Performative::Transfer(transfer), &vec![0; bytes]).await.expect("the server reads");
        }
        match client.hear().await {
            Some(Event::Detach { link, error: Some(error), .. }) if link == abused => {
                assert_eq!(error.condition, condition);
            }
            other => panic!("{condition}: {other:?}"),
        }
        assert!(client.connection.credit(neighbour) > 0, "{condition}");
    }
    muster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_that_lead_nowhere_or_need_another_right_are_refused() {
    let muster = start().await;
    let (mut client, session) = enter(&muster).await;
    for (address, role, condition) in [
        ("/messages/nothing", Role::Sender, "amqp:not-found"),
        (FEEDBACK, Role::Sender, "amqp:not-found"),
        (FILES, Role::Sender, "amqp:not-found"),
        (DEVICE_BOUND, Role::Receiver, "amqp:not-found"),
    ] {
        assert_eq!(refused(&mut client, session, (address, role)).await.condition, condition, "{address}");
    }
    let mut nobody = open(&muster, false).await;
    let session = nobody.begin().await;
    for (address, role) in [(DEVICE_BOUND, Role::Sender), (FEEDBACK, Role::Receiver), (FILES, Role::Receiver)] {
        let error = refused(&mut nobody, session, (address, role)).await;
        assert_eq!(error.condition, "amqp:unauthorized-access", "{address}");
        assert!(error.info.find("com.microsoft:tracking-id").is_some(), "{error:?}");
    }
    drop((client, nobody));
    muster.stop().await;
}

async fn open(muster: &Muster, with_sasl: bool) -> Client {
    let stream = muster.dial_amqp(&muster.hub.host, &muster.trust(None).expect("trust")).await.expect("TLS");
    AmqpClient::new(stream, &muster.hub.host, with_sasl)
}

/// A connection of the hub's owner, by PLAIN, and a session on it.
pub async fn enter(muster: &Muster) -> (Client, SessionId) {
    let owner = &muster.hub.owner;
    let until = muster.clock().now().plus(Duration::from_secs(3_600));
    let token = domain::sas::SasToken::write(&owner.key, &muster.hub.host, Some(&owner.policy), until);
    let mut client = open(muster, true).await;
    let response = format!("\0{}@sas.root.127\0{token}", owner.policy);
    client.choose("PLAIN", Some(response.as_bytes())).await;
    let session = client.begin().await;
    (client, session)
}

fn terms(address: &str, role: Role) -> LinkTerms {
    let mut terms = match role {
        Role::Sender => LinkTerms::between(Source::default(), Target::at(address), 0),
        Role::Receiver => LinkTerms::between(Source::at(address), Target::default(), 0),
    };
    terms.rcv_settle_mode = ReceiverSettleMode::First;
    terms
}

/// Attaches a link, and waits for leave to send on it if it is one to send on.
async fn attach(client: &mut Client, session: SessionId, (address, role): (&str, Role)) -> LinkId {
    let (link, attach) = client.attach(session, (address, role), terms(address, role)).await;
    assert!(attach.source.is_some() && attach.target.is_some(), "{attach:?}");
    if role == Role::Sender {
        assert_eq!(client.hear().await, Some(Event::Credit { link }));
    }
    link
}

/// How the server refuses a link.
async fn refused(client: &mut Client, session: SessionId, (address, role): (&str, Role)) -> Error {
    let (link, _) = client.attach(session, (address, role), terms(address, role)).await;
    match client.hear().await {
        Some(Event::Detach { link: detached, is_closed: true, error: Some(error) }) if detached == link => *error,
        other => panic!("{address}: {other:?}"),
    }
}

/// Sends a message to [`DEVICE`] with all feedback asked for; what became of it.
async fn send(client: &mut Client, link: LinkId, message_id: &str, body: &str) -> DeliveryState {
    let properties = Properties {
        message_id: Some(MessageId::String(message_id.into())),
        to: Some(format!("/devices/{DEVICE}/messages/devicebound").into()),
        ..Properties::default()
    };
    let message = Message {
        properties: Some(Box::new(properties)),
        application_properties: Map::from_iter([("iothub-ack", "full")]),
        body: Body::data(body.to_owned()),
        ..Message::default()
    };
    let tag = bytes::Bytes::copy_from_slice(message_id.as_bytes());
    let payload = vec![message.to_bytes()];
    let outgoing = Outgoing { tag, message_format: 0, settlement: Settlement::Unsettled, payload };
    client.connection.send(link, outgoing).expect("sent");
    loop {
        match client.hear().await {
            Some(Event::Outcome { state: Some(state), is_settled: true, .. }) => return state,
            Some(Event::Credit { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// The next message that comes on a link.
pub async fn read(client: &mut Client, link: LinkId) -> proto::amqp::Delivery {
    loop {
        match client.hear().await {
            Some(Event::Delivery(delivery)) if delivery.link == link => return delivery,
            Some(Event::Credit { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Which messages a batch is on.
fn records(delivery: &proto::amqp::Delivery) -> Vec<String> {
    let message = Message::decode(&delivery.payload).expect("a message");
    let Body::Data(sections) = message.body else { panic!("{:?}", message.body) };
    let body: Json = serde_json::from_slice(&sections.concat()).expect("JSON");
    let records = body.as_array().expect("a batch").iter();
    records.map(|record| record["originalMessageId"].as_str().expect("an ID").to_owned()).collect()
}

fn rejection(outcome: &DeliveryState) -> &Error {
    match outcome {
        DeliveryState::Rejected(rejected) => rejected.error.as_ref().expect("an error"),
        other => panic!("{other:?}"),
    }
}

/// Empties the queue of [`DEVICE`], so that there is feedback on what was in it.
async fn purge(muster: &Muster) {
    ask_hub(muster, Method::DELETE, &["devices", DEVICE, "commands"], None).await;
}
