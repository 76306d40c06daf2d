//! A client of the MQTT dialects that says anything, and is sent things meanwhile: it is heard or closed, asks only for
//! itself, settles only what it was handed, and is never echoed more than it said.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use dialect::mqtt::Session;
use dialect::session::{Ask, Session as _};
use domain::ids::{MethodName, MethodRequestId};
use domain::method::{Payload, Waiter};
use domain::operation::cloud_to_device::{self, Receiver};
use domain::operation::session::{Answer, ConnectedDevice, Subscriptions};
use domain::operation::{ErrorKind, Failure, Operation, Push, Reply, method, registration, session, telemetry, twin};
use proto::mqtt::codec::{decode, encode};
use proto::mqtt::{Connect, Delivery, Filter, Limits, Packet, PacketId, Publish, QoS, Text};

use crate::refusal::SameRefusals;
use crate::service::{delivery, failure, seat};

/// Most bytes of answers to one line: an error body, a topic with what it echoes, and the packets around them.
const ANSWER_BYTES_MAX: usize = 4_096;
/// Messages that the hub has for the device.
const QUEUED_MAX: u128 = 40;

/// Reads `input` as lines: a user name first, then what is done, by its first character: `s` and `u` with a filter, `0`,
/// `1` and `2` publish to a topic, with a body behind a tab; `a` acknowledges what the hub sent under the line's number;
/// the hub says that messages wait (`w`), calls a method (`m`) or changes desired properties (`d`).
///
/// # Panics
/// When a promise of [`Session`] is broken.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let mut lines = text.split('\n');
    let Some(username) = lines.next().and_then(readable) else { return };
    let mut client = Client::new();
    client.send(&Packet::Connect(Box::new(Connect {
        client_id: Text::parse(Bytes::from_static(b"dev-1")).expect("a text"),
        clean_session: false,
        keep_alive_s: 60,
        will: None,
        username: Some(username),
        password: None,
    })));
    for (number, line) in (1..).zip(lines.take(200)) {
        match line.chars().next() {
            Some('w') => client.push(Push::MessagesWaiting),
            Some('m') => client.call(number),
            Some('d') => client.change(number),
            _ => packet(line, number).iter().for_each(|packet| client.send(packet)),
        }
        client.pass();
    }
    client.session.handle_eof(client.now);
    client.settle();
    assert!(client.session.closed().is_some(), "a connection ends with its bytes");
}

fn readable(text: &str) -> Option<Text> {
    Text::parse(Bytes::copy_from_slice(text.as_bytes())).ok()
}

fn packet(line: &str, number: u16) -> Option<Packet> {
    let how = line.chars().next()?;
    let packet_id = PacketId::new(number)?;
    if how == 'a' {
        return Some(Packet::Puback(Some(packet_id)));
    }
    let (topic, body) = line.get(how.len_utf8()..)?.split_once('\t').unwrap_or((line.get(how.len_utf8()..)?, ""));
    let topic = readable(topic).filter(|topic| !topic.is_empty())?;
    let publish = |delivery| {
        let payload = Bytes::copy_from_slice(body.as_bytes());
        Packet::Publish(Publish { topic: topic.clone(), payload, delivery, retain: false, dup: false })
    };
    Some(match how {
        's' => Packet::Subscribe { packet_id, filters: vec![Filter { topic: topic.clone(), qos: QoS::ExactlyOnce }] },
        'u' => Packet::Unsubscribe { packet_id, filters: vec![topic.clone()] },
        '1' => publish(Delivery::AtLeastOnce(packet_id)),
        '2' => publish(Delivery::ExactlyOnce(packet_id)),
        _ => publish(Delivery::AtMostOnce),
    })
}

struct Client {
    session: Session,
    now: Instant,
    /// Who the hub took it for.
    seat: Option<ConnectedDevice>,
    registration_id: Option<String>,
    /// The locks of what it has and did not settle.
    held: BTreeSet<u128>,
    /// How many messages it was handed.
    handed: u128,
    /// Who waits for calls.
    waiters: Vec<Waiter>,
    said_bytes: usize,
    heard_bytes: usize,
}

impl Client {
    fn new() -> Self {
        let now = Instant::now();
        let session = Session::new(Arc::new(Limits::default()), Arc::new(SameRefusals), true, now);
        Self {
            session,
            now,
            seat: None,
            registration_id: None,
            held: BTreeSet::new(),
            handed: 0,
            waiters: Vec::new(),
            said_bytes: 0,
            heard_bytes: 0,
        }
    }

    fn call(&mut self, number: u16) {
        let waiter = Waiter::new();
        let method = MethodName::parse("m").expect("it is a name");
        let request = waiter.request(MethodRequestId::from_bits(number.into()), method, Payload::NULL);
        self.waiters.push(waiter);
        self.push(Push::Method(request));
    }

    fn change(&mut self, version: u16) {
        self.push(Push::Desired(twin::DesiredChange { version: version.into(), patch: Arc::default() }));
    }

    fn push(&mut self, push: Push) {
        let Some(device) = self.seat.clone() else { return };
        if self.session.closed().is_none() {
            self.session.handle_push(&device, push, self.now);
            self.settle();
        }
    }

    fn send(&mut self, packet: &Packet) {
        let mut bytes = Vec::new();
        if encode(packet, &mut bytes).is_err() || self.session.closed().is_some() {
            return;
        }
        self.said_bytes += bytes.len();
        self.session.handle_input(&bytes, self.now);
        self.settle();
    }

    fn pass(&mut self) {
        self.now += Duration::from_millis(100);
        self.session.handle_timeout(self.now);
        self.settle();
    }

    /// Answers what is asked, and hears what is said.
    fn settle(&mut self) {
        while let Some(ask) = self.session.poll_ask() {
            let reply = self.reply(&ask);
            self.session.handle_reply(ask.id, reply, self.now);
        }
        let mut output = BytesMut::from(self.session.output());
        self.session.handle_written(output.len(), self.now);
        self.heard_bytes += output.len();
        while decode(&mut output, usize::MAX).expect("what is said can be read").is_some() {}
        assert!(output.is_empty(), "whole packets are said");
        assert!(self.heard_bytes <= self.said_bytes + ANSWER_BYTES_MAX * 201, "an echo without bound");
    }

    fn reply(&mut self, ask: &Ask) -> Result<Reply, Failure> {
        match &ask.operation {
            Operation::Session(session::Ask::Connect(connect)) => {
                assert!(self.seat.is_none(), "one connection, one identity");
                let device = seat(connect.claimed.clone(), 1);
                self.seat = Some(device.clone());
                let subscriptions = Subscriptions::default();
                Ok(Reply::Session(Answer::Connected { device, subscriptions, session_present: false }))
            }
            Operation::Session(session::Ask::Subscribe { device, .. }) => {
                self.check_seat(device);
                Ok(Reply::Session(Answer::Done))
            }
            Operation::CloudToDevice(
                cloud_to_device::Ask::Receive { receiver: Receiver::Connected(device), .. }
                | cloud_to_device::Ask::Settle { receiver: Receiver::Connected(device), .. },
            ) => {
                self.check_seat(device);
                Ok(Reply::CloudToDevice(self.deliver(&ask.operation)))
            }
            Operation::Session(session::Ask::Disconnect { device })
            | Operation::Telemetry(telemetry::Ask::Send { device, .. } | telemetry::Ask::Will { device, .. })
            | Operation::Method(method::Ask::Respond { device, .. })
            | Operation::Twin(twin::Ask::Read(device) | twin::Ask::Report { device, .. }) => {
                self.check_seat(device);
                Err(failure(ErrorKind::Unavailable, "Later."))
            }
            Operation::Registration(registration::Ask { registration_id, .. }) => {
                let known = self.registration_id.get_or_insert_with(|| registration_id.clone());
                assert_eq!(known, registration_id, "one connection, one registration ID");
                Err(failure(ErrorKind::Unavailable, "Later."))
            }
            other => panic!("a device asked for {other:?}"),
        }
    }

    fn check_seat(&self, device: &ConnectedDevice) {
        assert_eq!(Some(&device.name), self.seat.as_ref().map(|seat| &seat.name), "asked for somebody else");
    }

    /// Hands messages out while there are any, and takes back what is settled.
    fn deliver(&mut self, operation: &Operation) -> cloud_to_device::Answer {
        if let Operation::CloudToDevice(cloud_to_device::Ask::Settle { lock, .. }) = operation {
            assert!(self.held.remove(&lock.bits()), "it settles what it has not");
            return cloud_to_device::Answer::Settled;
        }
        let Operation::CloudToDevice(cloud_to_device::Ask::Receive { limit, .. }) = operation else {
            panic!("neither received nor settled: {operation:?}")
        };
        let locks = self.handed..QUEUED_MAX.min(self.handed + *limit as u128);
        self.handed = locks.end;
        self.held.extend(locks.clone());
        cloud_to_device::Answer::Received(locks.map(delivery).collect())
    }
}
