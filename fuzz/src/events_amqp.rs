//! Readers of telemetry that share an AMQP connection and do anything, while the service says anything: messages of a link
//! come in order and none twice, and whoever was let in leaves once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use dialect::session::{Ask as Asked, Session as _};
use domain::clock::UnixTime;
use domain::ids::{DeviceId, HubKey};
use domain::message::{Draft, Message, Origin};
use domain::operation::events::{Answer, Ask, Event, From, Reader, Seat};
use domain::operation::identity::IdentityName;
use domain::operation::session::{AuthenticationMethod, CutOff};
use domain::operation::{ErrorKind, Failure, Operation, Reply, session};
use proto::amqp::{Event as Noticed, LinkId, LinkTerms, Outgoing, Role, Settlement, Source, Symbol, Target, Value};

use crate::amqp_ends::{Conversation, Ends};
use crate::script::Script;
use crate::service::failure;

const ADDRESSES: [&str; 6] = [
    "$cbs",
    "$management",
    "hub/ConsumerGroups/$Default/Partitions/0",
    "amqps://h/hub/consumergroups/a/partitions/1",
    "/messages/events/$management",
    "hub",
];
const CUT_OFFS: [CutOff; 4] = [CutOff::Displaced, CutOff::Rekeyed, CutOff::TokenExpired, CutOff::HubDeleted];
/// Bytes of a message's body for each byte of the script, so that some fill the output.
const BODY_BYTES: usize = 512;

/// Reads `input` as a script: a byte for what is done, and what it takes.
///
/// # Panics
/// When a promise of [`dialect::amqp::Session`] is broken.
pub fn check(input: &[u8]) {
    Pair::play(input);
}

/// A client's end, the session, and what is known of both from outside.
struct Pair {
    ends: Ends,
    /// Who is in.
    readers: BTreeSet<u64>,
    next_reader: u64,
    /// The number of the last message on each link.
    arrived: BTreeMap<LinkId, i64>,
}

impl Conversation for Pair {
    fn open() -> Self {
        Self { ends: Ends::open("h"), readers: BTreeSet::new(), next_reader: 0, arrived: BTreeMap::new() }
    }

    fn ends(&mut self) -> &mut Ends {
        &mut self.ends
    }

    fn step(&mut self, script: &mut Script<'_>) {
        match script.byte() % 8 {
            0 | 1 => self.attach(script),
            2 => self.send(script),
            3 => self.ends.grant(script),
            4 => self.ends.detach(script),
            7 => self.begin_again(script),
            _ => self.reply(script),
        }
    }

    fn notice(&mut self, event: &Noticed) {
        match event {
            Noticed::Detach { link, .. } => {
                self.arrived.remove(link);
            }
            Noticed::Delivery(delivery) => {
                let message = proto::amqp::Message::decode(&delivery.payload).expect("what is sent can be read");
                let number = message.message_annotations.find("x-opt-sequence-number").and_then(Value::as_i64);
                if let Some(number) = number {
                    let before = self.arrived.insert(delivery.link, number);
                    let follows = |before| before < number && (before + 1..number).all(is_passed_over);
                    assert!(before.is_none_or(follows), "{before:?} before {number}");
                }
            }
            _ => {}
        }
    }

    fn look_at(&mut self, ask: &Asked) {
        if let Operation::Events(Ask::Detach(reader)) = &ask.operation {
            assert!(self.readers.remove(&reader.number), "a reader leaves that is not in");
        }
    }

    /// Ends the connection: whoever is in leaves.
    fn finish(mut self) {
        self.ends.cut();
        self.ends.client.handle_eof();
        self.pump();
        while let Some(ask) = self.ends.open.pop_front() {
            let reply = self.answer(&ask, &mut Script(&[1]));
            self.ends.session.handle_reply(ask.id, reply, self.ends.now);
            self.pump();
        }
        assert!(self.readers.is_empty(), "somebody stays without a connection");
    }
}

impl Pair {
    fn attach(&mut self, script: &mut Script<'_>) {
        let Some(address) = script.choose(&ADDRESSES) else { return };
        let is_sender = script.byte().is_multiple_of(4);
        let mut source = Source::at(address);
        let expression = script.bytes(1);
        if let Ok(text) = std::str::from_utf8(expression)
            && !text.is_empty()
        {
            source.filter.push(Symbol::from_static("apache.org:selector-filter:string"), text);
        }
        let (role, source, target) = match is_sender {
            true => (Role::Sender, Source::default(), Target::at(address)),
            false => (Role::Receiver, source, Target::default()),
        };
        self.ends.attach("link-", role, LinkTerms::between(source, target, 0), script);
    }

    fn send(&mut self, script: &mut Script<'_>) {
        let Some(link) = script.choose(&self.ends.links) else { return };
        let payload = vec![Bytes::copy_from_slice(script.bytes(1))];
        let (tag, settlement) = (Bytes::from_static(b"tag"), Settlement::Forgotten);
        // Without a link there is nothing to send on.
        let _ = self.ends.client.send(link, Outgoing { tag, message_format: 0, settlement, payload });
    }

    fn reply(&mut self, script: &mut Script<'_>) {
        let Some(ask) = self.ends.pick(script) else { return };
        let reply = self.answer(&ask, script);
        self.ends.session.handle_reply(ask.id, reply, self.ends.now);
    }

    fn answer(&mut self, ask: &Asked, script: &mut Script<'_>) -> Result<Reply, Failure> {
        let choice = usize::from(script.byte());
        let Operation::Events(ask) = &ask.operation else { return Ok(Reply::Session(session::Answer::Done)) };
        let answer = match ask {
            // Leaving does not fail.
            Ask::Detach(_) => Answer::Done,
            _ if choice.is_multiple_of(7) => return Err(failure(ErrorKind::Unauthorized, "Because.")),
            Ask::Attach(_) => {
                self.next_reader += 1;
                self.readers.insert(self.next_reader);
                Answer::Attached { reader: reader(self.next_reader), from: From::Oldest }
            }
            Ask::Read { from, limit, .. } => events(*from, choice.min(*limit), script.byte().into()),
            Ask::Locate { .. } => Answer::Located { host: "h".into(), name: "hub".into() },
            Ask::Describe(_) => {
                Answer::EventHub { name: "hub".into(), created_at: UnixTime::from_micros(0), partitions: 4 }
            }
            Ask::AwaitEvents(_) => Answer::More,
            Ask::AwaitEnd(_) => Answer::Ended(script.choose(&CUT_OFFS).unwrap_or(CutOff::Displaced)),
            Ask::Renew(_) => Answer::Done,
        };
        Ok(Reply::Events(answer))
    }
}

fn reader(number: u64) -> Reader {
    let (name, group) = ("hub".to_owned(), "$Default".to_owned());
    Reader::seat(Seat { number, hub: HubKey(1), name, group, partition: 0, tracks: false })
}

/// Whether no route leads a message there.
const fn is_passed_over(number: i64) -> bool {
    number % 3 == 2
}

/// The `count` messages behind `from`.
fn events(from: From, count: usize, size: usize) -> Answer {
    let first = match from {
        From::AfterSequence(last) => last + 1,
        From::Oldest | From::AfterOffset(_) | From::AfterTime(_) => 0,
    };
    let message = Arc::new(Message {
        hub: HubKey(1),
        partition: 0,
        sender: IdentityName::device(DeviceId::parse("a").expect("a name")),
        generation: "1".to_owned(),
        origin: Origin::Telemetry(AuthenticationMethod::DeviceKey),
        model_id: None,
        draft: Draft { body: vec![0; size * BODY_BYTES].into(), ..Draft::default() },
    });
    let event = |sequence| Event {
        sequence,
        offset: sequence,
        enqueued_at: UnixTime::from_micros(0),
        message: Arc::clone(&message),
    };
    let all = first..first + count as u64;
    let read_to = all.clone().last();
    let there = all.filter(|number| !is_passed_over(number.cast_signed()));
    Answer::Events { events: there.map(event).collect(), read_to, newest: None }
}
