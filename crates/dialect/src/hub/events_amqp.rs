//! The Event Hubs-compatible endpoint of a hub (`contract/eventhub-endpoint.md`): its management node, its partitions, and
//! the way to it from the hub's own address.
//!
//! A link that reads is one reader. It is given no more messages than it has credit for, and asks for the next ones once
//! those have left; what all readers of a connection hold is bounded too. So one that reads slowly, or not at all, holds
//! up nobody and costs nothing. Nothing here remembers what was read: that is for whoever reads. Start at
//! [`Events::attach`].

use std::collections::BTreeMap;

use domain::operation::events::{Answer, Ask, Attach as AttachAsk, Entity, Reader};
use domain::operation::{ErrorKind, Failure, Lane, Operation, Reply};
use proto::amqp::{Attach, Delivery, LinkId, MessageId, Role, SessionId, Value};

use self::address::Node;
use self::management::Request;
use self::reader::{Next, Reading};
use super::amqp::Arrival;
use super::cbs::{Cbs, PutToken};
use super::exchange::Exchange;
use crate::amqp::{Port, links};
use crate::error::Refused;
use crate::session::AskId;

pub mod address;
pub mod event;
pub mod filter;
pub mod management;
mod reader;
pub mod received;
mod refusal;
#[cfg(test)]
mod tests;

/// Longest request to the management node, in bytes; the token beside it takes up to 4,096.
const REQUEST_BYTES_MAX: u64 = 16 * 1024;
/// Bytes that the readers of a connection may hold before none of them reads on. One read more may be under way.
const HELD_BYTES_MAX: usize = 512 * 1024;
/// Links and requests that a connection may have judged at once before nothing more is read.
const JUDGED_MAX: usize = 64;
/// Longest name of anything in an address that is looked at.
const NAME_BYTES_MAX: usize = 256;

/// The links of one connection to the endpoint.
#[derive(Debug, Default)]
pub struct Events {
    management: Exchange,
    links: BTreeMap<LinkId, Link>,
    waiting: BTreeMap<AskId, Waiting>,
    is_used: bool,
}

/// A link that is to be a reader's, or is one.
#[derive(Debug)]
struct Link {
    session: SessionId,
    /// What it is called in the log.
    address: Box<str>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// It is judged. What it asked for comes back with the answer.
    Arriving(Box<Attach>),
    Reading(Box<Reading>),
}

/// What to do when an answer comes.
#[derive(Debug)]
enum Waiting {
    /// Let a reader in.
    Attach(LinkId),
    /// Send a link elsewhere.
    Locate { link: LinkId, rest: String },
    /// Answer a request.
    Describe { link: LinkId, message_id: Option<MessageId> },
    /// Send what was read.
    Read(LinkId),
    /// Read on.
    More(LinkId),
    /// End a reader.
    End(LinkId),
    /// Nothing.
    Nothing,
}

impl Events {
    /// Whether somebody has read here, or asked to.
    pub const fn is_used(&self) -> bool {
        self.is_used
    }

    /// Whether nobody reads here, nor asks.
    pub fn is_empty(&self) -> bool {
        self.links.is_empty() && self.management.is_empty()
    }

    /// Whether somebody was let in.
    pub fn has_seats(&self) -> bool {
        self.links.values().any(|link| matches!(link.stage, Stage::Reading(_)))
    }

    /// Whether so much is judged that nothing more is to be read; nobody has proved anything by it.
    pub fn is_full(&self) -> bool {
        let is_judged = |waiting: &&Waiting| {
            matches!(waiting, Waiting::Attach(_) | Waiting::Locate { .. } | Waiting::Describe { .. })
        };
        self.waiting.values().filter(is_judged).count() >= JUDGED_MAX
    }

    /// Whether `link` is one on which requests come.
    pub fn owns(&self, link: LinkId) -> bool {
        self.management.owns(link)
    }

    /// Whether `id` is an ask of this endpoint.
    pub fn has_asked(&self, id: AskId) -> bool {
        self.waiting.contains_key(&id)
    }

    /// Takes a link that a client attaches; `false` if its address is none of this endpoint's.
    pub fn attach(&mut self, arrival: Arrival<'_>, tokens: &Cbs, port: &mut Port<'_>) -> bool {
        let Arrival { link, session, attach, address } = arrival;
        let host = arrival.said_host(port);
        match Node::read(address) {
            None => return false,
            Some(Node::Management) => self.management.attach((link, session), attach, REQUEST_BYTES_MAX, port),
            Some(_) if attach.role == Role::Sender => {
                port.refuse_link(link, address.path(), refusal::not_for_sending());
            }
            Some(Node::Elsewhere { rest }) => {
                let token = tokens.token_covering(&["messages", "events"]);
                let ask = ask(Ask::Locate { host }, token, port);
                self.waiting.insert(ask, Waiting::Locate { link, rest });
                self.arrive(arrival);
            }
            Some(Node::Partition { name, group, partition }) => {
                let entity = Entity { host, name, partition: Some(partition) };
                match wanted(attach, entity, group) {
                    Err(error) => port.refuse_link(link, address.path(), error),
                    Ok(wanted) => {
                        let token = tokens.token_covering(&wanted.path());
                        let ask = ask(Ask::Attach(Box::new(wanted)), token, port);
                        self.waiting.insert(ask, Waiting::Attach(link));
                        self.arrive(arrival);
                    }
                }
            }
        }
        true
    }

    fn arrive(&mut self, Arrival { link, session, attach, address }: Arrival<'_>) {
        self.is_used = true;
        let stage = Stage::Arriving(Box::new(attach.clone()));
        self.links.insert(link, Link { session, address: address.path().into(), stage });
    }

    /// Takes a request to the management node.
    pub fn deliver(&mut self, delivery: &Delivery, tokens: &Cbs, port: &mut Port<'_>) {
        let link = delivery.link;
        let Ok(message) = Exchange::take(delivery, port) else {
            let unreadable = Refused::new(ErrorKind::InvalidArgument, "The request cannot be read.");
            return self.management.answer(link, management::refused(None, &unreadable), port);
        };
        let Request { message_id, entity } = Request::parse(&message);
        match entity {
            Err(reason) => self.management.answer(link, management::refused(message_id, &reason), port),
            Ok(entity) => {
                let token = tokens.token_covering(&entity.path());
                let ask = ask(Ask::Describe(entity), token, port);
                self.waiting.insert(ask, Waiting::Describe { link, message_id });
            }
        }
    }

    /// Asks that a newer token count for the readers that it is for.
    pub fn renew(&mut self, put: &PutToken, port: &mut Port<'_>) {
        if put.scope.is_some() {
            return;
        }
        for link in self.links.values() {
            let Stage::Reading(reading) = &link.stage else { continue };
            let path = reading.reader.path();
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            if put.token.covers_in_any_case(&path) {
                let ask = ask(Ask::Renew(reading.reader.clone()), Some(put), port);
                self.waiting.insert(ask, Waiting::Nothing);
            }
        }
    }

    /// The answer to an earlier ask.
    pub fn handle_reply(&mut self, id: AskId, reply: Result<Reply, Failure>, port: &mut Port<'_>) {
        match self.waiting.remove(&id) {
            None | Some(Waiting::Nothing) => {}
            Some(Waiting::Describe { link, message_id }) => {
                self.management.answer(link, management::answer(message_id, reply), port);
            }
            Some(Waiting::Locate { link, rest }) => self.located(link, &rest, reply, port),
            Some(Waiting::Attach(link)) => self.attached(link, reply, port),
            Some(Waiting::Read(link)) => self.read(link, reply, port),
            Some(Waiting::More(link)) => {
                if let Some(reading) = self.reading(link) {
                    reading.wake();
                    self.flush_link(link, port);
                }
            }
            Some(Waiting::End(link)) => {
                let error = match reply {
                    Ok(Reply::Events(Answer::Ended(reason))) => refusal::ended(reason),
                    // It ended before it was listened to; the client comes back and is told why.
                    Ok(_) => refusal::ended(domain::operation::session::CutOff::Overrun),
                    Err(failure) => refusal::of(&failure),
                };
                self.end(link, error, port);
            }
        }
    }

    fn located(&mut self, link: LinkId, rest: &str, reply: Result<Reply, Failure>, port: &mut Port<'_>) {
        let Some(Link { address, stage: Stage::Arriving(attach), .. }) = self.links.remove(&link) else { return };
        match reply {
            Ok(Reply::Events(Answer::Located { host, name })) => {
                links::accept(link, &attach, 0, port.connection);
                port.connection.detach(link, true, Some(management::redirect(&host, &name, rest)));
            }
            reply => port.refuse_link(link, &address, refused(reply)),
        }
    }

    fn attached(&mut self, link: LinkId, reply: Result<Reply, Failure>, port: &mut Port<'_>) {
        let Some(waiting) = self.links.get_mut(&link) else {
            // It left while it was judged.
            if let Ok(Reply::Events(Answer::Attached { reader, .. })) = reply {
                self.leave(reader, port);
            }
            return;
        };
        match reply {
            Ok(Reply::Events(Answer::Attached { reader, from })) => {
                let reading = Box::new(Reading::new(reader.clone(), from));
                let before = std::mem::replace(&mut waiting.stage, Stage::Reading(reading));
                if let Stage::Arriving(attach) = before {
                    links::accept(link, &attach, 0, port.connection);
                }
                let ask = port.ask(Operation::Events(Ask::AwaitEnd(reader)), Lane::Waiting);
                self.waiting.insert(ask, Waiting::End(link));
                self.flush_link(link, port);
            }
            reply => {
                let address = std::mem::take(&mut waiting.address);
                self.links.remove(&link);
                port.refuse_link(link, &address, refused(reply));
            }
        }
    }

    fn read(&mut self, link: LinkId, reply: Result<Reply, Failure>, port: &mut Port<'_>) {
        let Some(reading) = self.reading(link) else { return };
        match reply {
            Ok(Reply::Events(Answer::Events { events, read_to, newest })) => {
                if !reading.take(events, read_to, newest) {
                    reading.rest(link, port.connection);
                    let ask = Operation::Events(Ask::AwaitEvents(reading.reader.clone()));
                    let ask = port.ask(ask, Lane::Waiting);
                    self.waiting.insert(ask, Waiting::More(link));
                }
                // Others may have waited for what this one held.
                self.flush(port);
            }
            reply => self.end(link, refused(reply), port),
        }
    }

    fn reading(&mut self, link: LinkId) -> Option<&mut Reading> {
        match &mut self.links.get_mut(&link)?.stage {
            Stage::Reading(reading) => Some(reading),
            Stage::Arriving(_) => None,
        }
    }

    /// Sends what there is room for on all links.
    pub fn flush(&mut self, port: &mut Port<'_>) {
        self.management.flush(port);
        let links: Vec<LinkId> = self.links.keys().copied().collect();
        for link in links {
            self.flush_link(link, port);
        }
    }

    /// Sends what there is room for to whom `link` belongs.
    pub fn flush_credited(&mut self, link: LinkId, port: &mut Port<'_>) {
        self.management.flush(port);
        self.flush_link(link, port);
    }

    /// Sends what there is room for on a link, and reads on.
    fn flush_link(&mut self, link: LinkId, port: &mut Port<'_>) {
        let held: usize = self.links.values().map(Link::held_bytes).sum();
        let Some(reading) = self.reading(link) else { return };
        // What it holds itself has left by the time that it reads.
        let others = held - reading.held_bytes();
        match reading.advance(link, others < HELD_BYTES_MAX, port.connection) {
            Next::Wait => {}
            Next::TooLarge { bytes, max } => self.end(link, refusal::too_large(bytes, max), port),
            Next::Read { from, limit } => {
                let ask = Operation::Events(Ask::Read { reader: reading.reader.clone(), from, limit });
                let ask = port.ask(ask, Lane::Serial);
                self.waiting.insert(ask, Waiting::Read(link));
            }
        }
    }

    /// Ends a link of ours.
    fn end(&mut self, link: LinkId, error: proto::amqp::Error, port: &mut Port<'_>) {
        if self.links.contains_key(&link) {
            port.connection.detach(link, true, Some(error));
            self.forget_link(link, port);
        }
    }

    /// Forgets a link that is over.
    pub fn forget_link(&mut self, link: LinkId, port: &mut Port<'_>) {
        self.management.forget_link(link);
        if let Some(Link { stage: Stage::Reading(reading), .. }) = self.links.remove(&link) {
            self.leave(reading.reader, port);
        }
    }

    /// Forgets the links of a session that is over.
    pub fn forget_session(&mut self, session: SessionId, port: &mut Port<'_>) {
        self.management.forget_session(session);
        self.forget_where(|link| link.session == session, port);
    }

    /// Lets all readers go: the connection ends.
    pub fn leave_all(&mut self, port: &mut Port<'_>) {
        self.forget_where(|_| true, port);
    }

    fn forget_where(&mut self, is_over: impl Fn(&Link) -> bool, port: &mut Port<'_>) {
        let over = self.links.iter().filter(|(_, link)| is_over(link));
        let over: Vec<LinkId> = over.map(|(link, _)| *link).collect();
        for link in over {
            self.forget_link(link, port);
        }
    }

    fn leave(&mut self, reader: Reader, port: &mut Port<'_>) {
        // Beside what waits for its turn: it is what ends the waiting.
        let ask = port.ask(Operation::Events(Ask::Detach(reader)), Lane::Waiting);
        self.waiting.insert(ask, Waiting::Nothing);
    }
}

impl Link {
    fn held_bytes(&self) -> usize {
        match &self.stage {
            Stage::Reading(reading) => reading.held_bytes(),
            Stage::Arriving(_) => 0,
        }
    }
}

fn ask(ask: Ask, token: Option<&PutToken>, port: &mut Port<'_>) -> AskId {
    port.ask_with(token.map(|put| put.token.clone()), Operation::Events(ask), Lane::Serial)
}

/// What a reader's attach asks for.
fn wanted(attach: &Attach, entity: Entity, group: String) -> Result<AttachAsk, proto::amqp::Error> {
    let start = filter::start_of(attach.source.as_deref()).map_err(refusal::bad_filter)?;
    let names = [Some(&entity.name), Some(&group), entity.partition.as_ref()];
    if names.into_iter().flatten().any(|name| name.len() > NAME_BYTES_MAX) {
        return Err(refusal::long_name());
    }
    Ok(AttachAsk {
        entity,
        group,
        start,
        epoch: attach.properties.find("com.microsoft:epoch").and_then(Value::as_i64),
        tracks: attach.desired_capabilities.iter().any(|one| *one == "com.microsoft:enable-receiver-runtime-metric"),
    })
}

/// Why a reader was not let in.
fn refused(reply: Result<Reply, Failure>) -> proto::amqp::Error {
    match reply {
        Ok(Reply::Events(Answer::Held { epoch })) => refusal::held(epoch),
        Ok(Reply::Events(Answer::NoPartition { partitions })) => refusal::no_partition(partitions),
        Ok(_) => refusal::internal(),
        Err(failure) => refusal::of(&failure),
    }
}
