//! The reader against an endpoint that is played over bytes in memory, in virtual time.

use bytes::Bytes;
use dialect::hub::events_amqp::event;
use domain::clock::ManualClock;
use domain::ids::{DeviceId, HubKey};
use domain::message::{Draft, Origin};
use domain::operation::Reply;
use domain::operation::events::{Answer as EndpointAnswer, Event, Newest};
use domain::operation::identity::IdentityName;
use domain::operation::session::AuthenticationMethod;
use proto::amqp::{Connection, DeliveryState, Limits, Outgoing, SaslCode, Settlement};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::time::sleep_until;

use super::*;

const PARTITIONS: u16 = 2;
/// What each partition holds: one message, at this offset.
const HELD: u64 = 512;

/// An endpoint with one reader.
struct Endpoint {
    stream: DuplexStream,
    connection: Connection,
    /// On which answers of a node go.
    answers: BTreeMap<String, LinkId>,
    /// Where each partition is read from, and on which link.
    readers: BTreeMap<u16, (LinkId, Start)>,
    tokens: Vec<String>,
}

impl Endpoint {
    fn over(stream: DuplexStream) -> Self {
        let mechanisms = vec![Symbol::from_static("ANONYMOUS")];
        let connection =
            Connection::server(Arc::new(Limits::default()), "hub".into(), mechanisms, Instant::now().into_std());
        Self { stream, connection, answers: BTreeMap::new(), readers: BTreeMap::new(), tokens: Vec::new() }
    }

    /// Plays on until `is_enough`.
    async fn play(&mut self, is_enough: impl Fn(&Self) -> bool) {
        loop {
            while let Some(event) = self.connection.poll_event() {
                self.answer(event);
            }
            self.flush().await;
            if is_enough(self) {
                return;
            }
            let mut bytes = [0; 4_096];
            let deadline = self.connection.poll_timeout().map_or_else(far, Instant::from_std);
            tokio::select! {
                read = self.stream.read(&mut bytes) => match read.unwrap() {
                    0 => return,
                    count => self.connection.handle_input(&bytes[..count], Instant::now().into_std()),
                },
                () = sleep_until(deadline) => self.connection.handle_timeout(Instant::now().into_std()),
            }
        }
    }

    async fn flush(&mut self) {
        loop {
            let output = self.connection.output().to_vec();
            if output.is_empty() {
                return;
            }
            self.stream.write_all(&output).await.unwrap();
            self.connection.handle_written(output.len(), Instant::now().into_std());
        }
    }

    fn answer(&mut self, event: AmqpEvent) {
        let now = Instant::now().into_std();
        match event {
            AmqpEvent::SaslInit(_) => self.connection.sasl_outcome(SaslCode::Ok, now).unwrap(),
            AmqpEvent::Open(_) => self.connection.open(proto::amqp::Map::EMPTY, now),
            AmqpEvent::Attach { link, attach, .. } => {
                self.connection.accept_link(link, LinkTerms::echo(&attach, 0));
                let address = attach.source.as_ref().and_then(|source| source.address.clone());
                let address = address.unwrap_or_default().to_string();
                match attach.role {
                    Role::Sender => self.connection.grant_credit(link, 10),
                    Role::Receiver => match address.rsplit_once("/Partitions/") {
                        Some((_, number)) => {
                            let start = filter::start_of(attach.source.as_deref()).unwrap();
                            self.readers.insert(number.parse().unwrap(), (link, start));
                        }
                        None => drop(self.answers.insert(address, link)),
                    },
                }
            }
            AmqpEvent::Credit { link } if self.readers.values().any(|(reader, _)| *reader == link) => {
                assert_eq!(self.readers.len(), usize::from(PARTITIONS), "nothing may come before all are attached");
            }
            AmqpEvent::Delivery(delivery) => {
                self.connection.settle(delivery.id, DeliveryState::Accepted);
                let asked = Message::decode(&delivery.payload).unwrap();
                match cbs::Request::parse(&asked).token {
                    Ok(put) => {
                        self.tokens.push(put.token.resource().to_owned());
                        self.send(self.answers[cbs::NODE], &cbs::granted(asked.message_id().cloned()));
                    }
                    Err(_) => self.describe(&asked),
                }
            }
            _ => {}
        }
    }

    fn describe(&mut self, asked: &Message) {
        let management::Request { message_id, entity } = management::Request::parse(asked);
        let at = UnixTime::from_seconds(1);
        let answer = match entity.unwrap() {
            Entity { name, partition: None, .. } => {
                EndpointAnswer::EventHub { name, created_at: at, partitions: PARTITIONS }
            }
            Entity { name, partition: Some(partition), .. } => {
                let newest = Newest { sequence: 0, offset: HELD, enqueued_at: at, read_at: at };
                let kept = Some((0, newest));
                EndpointAnswer::Partition { name, partition: partition.parse().unwrap(), kept }
            }
        };
        self.send(self.answers[MANAGEMENT], &management::answer(message_id, Ok(Reply::Events(answer))));
    }

    fn send(&mut self, link: LinkId, message: &Message) {
        let outgoing = Outgoing {
            tag: Bytes::from_static(b"t"),
            message_format: 0,
            settlement: Settlement::Settled,
            payload: vec![message.to_bytes()],
        };
        self.connection.send(link, outgoing).unwrap();
    }

    /// Has a message come in a partition.
    fn tell(&mut self, partition: u16, offset: u64) {
        let message = domain::message::Message {
            hub: HubKey(1),
            partition,
            sender: IdentityName::device(DeviceId::parse("dev-1").unwrap()),
            generation: "7".to_owned(),
            origin: Origin::Telemetry(AuthenticationMethod::DeviceKey),
            model_id: None,
            draft: Draft { body: Bytes::from_static(b"hello"), ..Draft::default() },
        };
        let enqueued_at = UnixTime::from_seconds(2);
        let event = Event { sequence: 1, offset, enqueued_at, message: Arc::new(message) };
        self.send(self.readers[&partition].0, &event::encode(&event, None));
    }
}

fn far() -> Instant {
    Instant::now() + TOKEN_LIFETIME
}

/// A reader of both partitions from `start` on, and the endpoint where it reads.
async fn reading(start: Start) -> (EventReader, Places, Endpoint) {
    let (here, there) = tokio::io::duplex(64 * 1_024);
    let mut endpoint = Endpoint::over(there);
    let text = "Endpoint=sb://127.0.0.2/;SharedAccessKeyName=service;SharedAccessKey=MDEyMzQ1Njc4OWFiY2RlZg==;\
                EntityPath=caves";
    let hub = EventHub::parse(text, 5_671).unwrap();
    let opening = async {
        let clock = Arc::new(ManualClock::at(UnixTime::from_seconds(1_795_000_000)));
        let mut reader = EventReader::greet(Wire::Stream(Box::new(here)), hub, clock).await.unwrap();
        let places = reader.find_places(start).await.unwrap();
        reader.attach_all("$Default", &places).await.unwrap();
        (reader, places)
    };
    let opened = async |endpoint: &mut Endpoint| {
        endpoint.play(|endpoint| endpoint.readers.len() == usize::from(PARTITIONS)).await;
    };
    let ((reader, places), ()) = tokio::join!(opening, opened(&mut endpoint));
    (reader, places, endpoint)
}

#[tokio::test(start_paused = true)]
async fn the_end_of_each_partition_is_found_before_anything_is_read_behind_it() {
    let behind = Place::AfterOffset(HELD);
    for (start, place) in [(Start::Newest, behind), (Start::At(Place::Oldest), Place::Oldest)] {
        let (_reader, places, endpoint) = reading(start).await;
        assert_eq!(places, Places::from([(0, place), (1, place)]));
        let read: Vec<Start> = endpoint.readers.values().map(|(_, start)| *start).collect();
        assert_eq!(read, [Start::At(place), Start::At(place)]);
        assert_eq!(endpoint.tokens, ["sb://127.0.0.2/caves"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_is_put_again_before_it_ends_while_messages_are_waited_for() {
    let (mut reader, _, mut endpoint) = reading(Start::Newest).await;
    let began = Instant::now();
    let renewing = async {
        endpoint.play(|endpoint| endpoint.tokens.len() == 3).await;
        endpoint.tell(1, 1_024);
        endpoint.play(|_| false).await;
    };
    tokio::select! {
        event = reader.next() => {
            let PartitionEvent { partition, received } = event.unwrap();
            assert_eq!((partition, received.offset, &*received.body), (1, 1_024, &b"hello"[..]));
        }
        () = renewing => panic!("the reader is gone"),
    }
    let passed = began.elapsed();
    assert!(passed >= 2 * TOKEN_RENEWED_AFTER && passed < TOKEN_RENEWED_AFTER + TOKEN_LIFETIME, "{passed:?}");
}

#[test]
fn a_connection_string_of_event_hubs_is_taken_apart_and_says_what_it_lacks() {
    let key = "SharedAccessKeyName=service;SharedAccessKey=MDEyMzQ1Njc4OWFiY2RlZg==";
    let hosts = [
        ("sb://127.0.0.2/", "127.0.0.2"),
        ("sb://hub.example.org:5671/", "hub.example.org"),
        ("amqps://hub.example.org", "hub.example.org"),
        ("sb://[::1]/", "::1"),
        ("sb://[::1]:5671/", "::1"),
    ];
    for (endpoint, host) in hosts {
        let hub = EventHub::parse(&format!("Endpoint={endpoint};{key};EntityPath=caves"), 5_671).unwrap();
        assert_eq!((hub.server.host.as_str(), hub.server.port, hub.name.as_str()), (host, 5_671, "caves"));
        assert!(!format!("{hub:?}").contains("MDEy"), "{hub:?}");
    }
    let lacking = EventHub::parse(&format!("Endpoint=sb://127.0.0.2/;{key}"), 5_671).unwrap_err();
    assert_eq!(lacking, InvalidConnectionString::Missing("EntityPath"));
}

#[test]
fn only_what_may_pass_is_tried_again() {
    let ended = |condition| {
        let error = proto::amqp::Error::new(condition, "so");
        EventsError::Amqp(AmqpError::Ended(Some(Box::new(error))))
    };
    let refused = |status| EventsError::Refused { what: "the token", status, description: String::new() };
    let lost = proto::amqp::CloseReason::Lost;
    let cases = [
        (EventsError::Amqp(AmqpError::Closed(Box::new(lost))), Finality::Passing),
        (EventsError::Amqp(AmqpError::Ended(None)), Finality::Passing),
        (EventsError::Amqp(AmqpError::NotOffered("ANONYMOUS")), Finality::Final),
        (ended(condition::CONNECTION_FORCED), Finality::Passing),
        (ended(Symbol::from_static("com.microsoft:server-busy")), Finality::Passing),
        (ended(condition::NOT_FOUND), Finality::NotFound),
        (ended(condition::UNAUTHORIZED_ACCESS), Finality::Forbidden),
        (ended(condition::RESOURCE_LIMIT_EXCEEDED), Finality::Final),
        (ended(condition::STOLEN), Finality::Final),
        (refused(401), Finality::Forbidden),
        (refused(404), Finality::NotFound),
        (refused(400), Finality::Final),
        (refused(503), Finality::Passing),
        (EventsError::NoServer, Finality::Passing),
        (EventsError::Gone, Finality::NotFound),
    ];
    for (error, expected) in cases {
        assert_eq!(error.finality(), expected, "{error}");
    }
}
