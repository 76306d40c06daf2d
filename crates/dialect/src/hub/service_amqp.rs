//! A hub's back-end programs over AMQP: they send to devices, and read what became of it and which files were uploaded
//! (`contract/hub-service.md 9.3` to `9.6`).
//!
//! Each link is let in by itself, with the policy's token that the connection was given, and is cut off by itself when that
//! is worth nothing any more. Devices may have links beside them on the same connection. Nothing here stores a message or
//! knows a policy. Start at [`Backends::attach`].

use std::collections::BTreeMap;

use domain::access::Action;
use domain::cloud_to_device::Settlement;
use domain::operation::backend::{Answer, Ask, Backend, Enter};
use domain::operation::cloud_to_device::{self, AtHub};
use domain::operation::session::CutOff;
use domain::operation::{ErrorKind, Failure, Lane, Operation, Push, Reply};
use proto::amqp::{Attach, Delivery, DeliveryId, DeliveryState, LinkId, Role, SessionId};

use self::queue::{Queue, Taken};
use self::reader::{Handed, Reader};
use super::amqp::Arrival;
use super::cbs::{Cbs, PutToken};
use super::cut_off;
use crate::amqp::links::{self, Credit, Told};
use crate::amqp::{Address, Port};
use crate::error;
use crate::session::AskId;

mod queue;
mod reader;
#[cfg(test)]
mod tests;
pub mod to_device;

/// Messages to devices that may be under way on a link.
const SEND_CREDIT: u32 = 64;
/// Bytes that a connection may have under way, by messages to devices and by asks, before nothing more is read.
const ASKED_BYTES_MAX: usize = 1024 * 1024;
/// What a link counts for that is judged, which keeps what it was attached with, up to a whole frame: there may be 16.
const ARRIVING_BYTES: usize = ASKED_BYTES_MAX / 16;
/// What any other ask counts for, beside what the client sent.
const ASK_BYTES: usize = 512;
/// Longest transfer to a device that is looked at. Longer than a message may be, so that one that is too long is refused by
/// itself, and does not end its link.
const SEND_BYTES_EACH_MAX: u64 = 256 * 1024;
/// What the manual calls the address of notifications of files, beside the clients' name (`contract/hub-service.md 9.5`).
const FILE_NOTIFICATIONS: &str = "messages/serviceBound/fileuploadnotifications";

/// The links of the back-end programs of one connection.
#[derive(Debug, Default)]
pub struct Backends {
    links: BTreeMap<LinkId, Link>,
    waiting: BTreeMap<AskId, Waiting>,
    /// What the asks in `waiting` count for. A link that is gone has left some behind, which end by themselves.
    asked_bytes: usize,
}

/// What a link of a back-end program is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Send,
    Read(Queue),
}

#[derive(Debug)]
struct Link {
    session: SessionId,
    purpose: Purpose,
    stage: Stage,
}

/// How far a link has come.
#[derive(Debug)]
enum Stage {
    /// The service judges.
    Arriving(Box<Attach>),
    /// The client sends.
    Sending(Backend, Credit),
    /// The client reads.
    Reading(Backend, Reader),
    /// It is over, while an ask for more is under way.
    Leaving(Backend),
}

/// What to do when an answer comes.
#[derive(Debug)]
enum Waiting {
    /// Accept a link, or refuse it.
    Enter(LinkId),
    /// Settle a transfer of so many bytes.
    Sent { link: LinkId, delivery: Option<DeliveryId>, bytes: usize },
    /// Send what was taken.
    Taken(LinkId),
    /// Tell a client that waits for it that its outcome is taken.
    Settled(DeliveryId, DeliveryState),
    /// Nothing.
    Nothing,
}

impl Waiting {
    /// What it counts for.
    const fn bytes(&self) -> usize {
        match self {
            Self::Enter(_) => ARRIVING_BYTES,
            Self::Sent { bytes, .. } => ASK_BYTES + *bytes,
            Self::Taken(_) | Self::Settled(..) | Self::Nothing => ASK_BYTES,
        }
    }
}

impl Purpose {
    /// What a link to or from `address` is for, in any letter case (`contract/hub-service.md 9.4`).
    fn read(address: &Address) -> Option<Self> {
        let path = address.path().trim_matches('/');
        let is = |purpose: &Self| path.eq_ignore_ascii_case(&purpose.path().join("/"));
        let named =
            [Self::Send, Self::Read(Queue::Feedback), Self::Read(Queue::FileNotifications)].into_iter().find(is);
        named.or_else(|| path.eq_ignore_ascii_case(FILE_NOTIFICATIONS).then_some(Self::Read(Queue::FileNotifications)))
    }

    /// What a signature has to cover.
    const fn path(self) -> &'static [&'static str] {
        match self {
            Self::Send => &["messages", "devicebound"],
            Self::Read(queue) => queue.path(),
        }
    }

    const fn action(self) -> Action {
        match self {
            Self::Send => Action::SendToDevices,
            Self::Read(queue) => queue.action(),
        }
    }

    /// What the client is on such a link.
    const fn role(self) -> Role {
        match self {
            Self::Send => Role::Sender,
            Self::Read(_) => Role::Receiver,
        }
    }
}

impl Backends {
    /// Whether nobody is here.
    pub fn is_empty(&self) -> bool {
        self.links.values().all(|link| matches!(link.stage, Stage::Leaving(_)))
    }

    /// Whether somebody was let in.
    pub fn has_seats(&self) -> bool {
        self.links.values().any(|link| link.backend().is_some())
    }

    /// Whether so much is under way that nothing more is to be read.
    pub const fn is_full(&self) -> bool {
        self.asked_bytes >= ASKED_BYTES_MAX
    }

    /// Whether `link` is a back-end program's.
    pub fn owns(&self, link: LinkId) -> bool {
        self.links.contains_key(&link)
    }

    /// Whether `id` is an ask of a back-end program.
    pub fn has_asked(&self, id: AskId) -> bool {
        self.waiting.contains_key(&id)
    }

    /// Takes a link that a client attaches; `false` if its address is none of a back-end program's. It is answered once the
    /// service has judged.
    pub fn attach(&mut self, arrival: Arrival<'_>, tokens: &Cbs, port: &mut Port<'_>) -> bool {
        let Arrival { link, session, attach, address } = arrival;
        let Some(purpose) = Purpose::read(address).filter(|purpose| purpose.role() == attach.role) else {
            return false;
        };
        self.links.insert(link, Link { session, purpose, stage: Stage::Arriving(Box::new(attach.clone())) });
        let host = arrival.said_host(port);
        let path = purpose.path().iter().map(|&segment| segment.to_owned()).collect();
        let enter = Ask::Enter(Box::new(Enter { host, action: purpose.action(), path }));
        let token = tokens.policy_token().map(|put| put.token.clone());
        let ask = port.ask_with(token, Operation::Backend(enter), Lane::Serial);
        self.wait_for(ask, Waiting::Enter(link));
        true
    }

    /// Asks that a newer token count for all links, if it is a policy's.
    pub fn renew(&mut self, put: &PutToken, port: &mut Port<'_>) {
        if put.scope.is_some() {
            return;
        }
        let backends: Vec<Backend> = self.links.values().filter_map(|link| link.backend().cloned()).collect();
        for backend in backends {
            let ask = port.ask_with(Some(put.token.clone()), Operation::Backend(Ask::Renew(backend)), Lane::Serial);
            self.wait_for(ask, Waiting::Nothing);
        }
    }

    /// Remembers what to do when the answer to `ask` comes.
    fn wait_for(&mut self, ask: AskId, waiting: Waiting) {
        self.asked_bytes += waiting.bytes();
        self.waiting.insert(ask, waiting);
    }

    /// Takes a message to a device.
    pub fn deliver(&mut self, delivery: &Delivery, port: &mut Port<'_>) {
        let Some(Link { stage: Stage::Sending(backend, credit), .. }) = self.links.get_mut(&delivery.link) else {
            return;
        };
        match to_device::decode(delivery.message_format, &delivery.payload) {
            Ok((to, message)) => {
                let hub = AtHub::Entered(backend.clone());
                let send = cloud_to_device::Ask::Send { hub, to, message: Box::new(message) };
                // One after another: messages to a device are queued in the order in which they were sent.
                let ask = port.ask(Operation::CloudToDevice(send), Lane::Serial);
                let bytes = delivery.payload.len();
                let answered = (!delivery.is_settled).then_some(delivery.id);
                self.wait_for(ask, Waiting::Sent { link: delivery.link, delivery: answered, bytes });
            }
            Err(invalid) => {
                credit.use_one(port.connection);
                if !delivery.is_settled {
                    let refused = error::hub_amqp(&port.refuse(invalid.kind(), invalid.to_string()));
                    port.connection.settle(delivery.id, DeliveryState::rejected(refused));
                }
            }
        }
    }

    /// A client told what became of something that it read.
    pub fn take_outcome(&mut self, told: Told, port: &mut Port<'_>) {
        let Told { link, id, tag, state, is_settled } = told;
        let Some(Link { stage: Stage::Reading(backend, reader), .. }) = self.links.get_mut(&link) else { return };
        let Some(lock) = reader.settled(&tag) else { return };
        let operation = reader.queue().settle(backend, lock, reader::settlement(state.as_ref()));
        let ask = port.ask(operation, Lane::Serial);
        // C# waits to be told that its outcome counts (`contract/hub-service.md 9.4`).
        let answered = state.filter(|_| !is_settled).map(|state| Waiting::Settled(id, state));
        self.wait_for(ask, answered.unwrap_or(Waiting::Nothing));
        self.ask_for_more(link, port);
    }

    /// The answer to an earlier ask.
    pub fn handle_reply(&mut self, id: AskId, reply: Result<Reply, Failure>, port: &mut Port<'_>) {
        let waiting = self.waiting.remove(&id);
        self.asked_bytes -= waiting.as_ref().map_or(0, Waiting::bytes);
        match waiting {
            None | Some(Waiting::Nothing) => {}
            Some(Waiting::Enter(link)) => self.entered(link, reply, port),
            Some(Waiting::Sent { link, delivery, .. }) => {
                if let Some(delivery) = delivery {
                    let state = match reply {
                        Ok(_) => DeliveryState::Accepted,
                        Err(failure) => DeliveryState::rejected(error::hub_amqp(&failure)),
                    };
                    port.connection.settle(delivery, state);
                }
                if let Some(Link { stage: Stage::Sending(_, credit), .. }) = self.links.get_mut(&link) {
                    credit.use_one(port.connection);
                }
            }
            Some(Waiting::Taken(link)) => match reply {
                Ok(reply) => match Taken::of(reply) {
                    Some(taken) => self.taken(link, &taken, port),
                    None => self.found_nothing(link, None, port),
                },
                Err(failure) => self.found_nothing(link, Some(error::hub_amqp(&failure)), port),
            },
            Some(Waiting::Settled(delivery, state)) => {
                let state = reply.map_or_else(|failure| DeliveryState::rejected(error::hub_amqp(&failure)), |_| state);
                port.connection.settle(delivery, state);
            }
        }
    }

    fn entered(&mut self, link: LinkId, reply: Result<Reply, Failure>, port: &mut Port<'_>) {
        let backend = match reply {
            Ok(Reply::Backend(Answer::Entered(backend))) => backend,
            other => {
                let error = match other {
                    Err(failure) => error::hub_amqp(&failure),
                    Ok(_) => error::hub_amqp(&port.refuse(ErrorKind::Internal, "Internal error.")),
                };
                if let Some(gone) = self.links.remove(&link) {
                    port.refuse_link(link, &gone.purpose.path().join("/"), error);
                }
                return;
            }
        };
        let Some(present) = self.links.get_mut(&link) else { return self.leave(backend, port) };
        let Stage::Arriving(attach) = &present.stage else { return };
        let bytes_max = match present.purpose {
            Purpose::Send => SEND_BYTES_EACH_MAX,
            Purpose::Read(_) => 0,
        };
        links::accept(link, attach, bytes_max, port.connection);
        present.stage = match present.purpose {
            Purpose::Send => Stage::Sending(backend, Credit::grant(link, SEND_CREDIT, port.connection)),
            Purpose::Read(queue) => {
                let reader = Reader::new(link, queue, attach);
                Stage::Reading(backend, reader)
            }
        };
        self.ask_for_more(link, port);
    }

    /// Asks for what may wait, if the client has room for it.
    fn ask_for_more(&mut self, link: LinkId, port: &mut Port<'_>) {
        let Some(Link { stage: Stage::Reading(backend, reader), .. }) = self.links.get_mut(&link) else { return };
        let asks = reader.poll_wish(port.connection);
        port.connection.hold_credit(link, reader.is_asking());
        if asks {
            let ask = port.ask(reader.queue().take(backend), Lane::Serial);
            self.wait_for(ask, Waiting::Taken(link));
        }
    }

    /// Nothing waits, or it could not be taken: then the link ends, so that the client comes back for it.
    fn found_nothing(&mut self, link: LinkId, failed: Option<proto::amqp::Error>, port: &mut Port<'_>) {
        let Some(Link { stage, .. }) = self.links.get_mut(&link) else { return };
        match stage {
            Stage::Reading(_, reader) => {
                reader.received(false);
                match failed {
                    Some(_) => self.end_link(link, failed, port),
                    // Something may have come meanwhile.
                    None => self.ask_for_more(link, port),
                }
            }
            Stage::Leaving(_) => self.left(link, port),
            Stage::Arriving(_) | Stage::Sending(..) => {}
        }
    }

    /// Hands out what was taken, or gives it back if nobody is there to have it.
    fn taken(&mut self, link: LinkId, taken: &Taken, port: &mut Port<'_>) {
        let Some(Link { stage, .. }) = self.links.get_mut(&link) else { return };
        let (backend, handed) = match stage {
            Stage::Reading(backend, reader) => {
                reader.received(true);
                let message = taken.message(&backend.hub_name);
                (backend, reader.send(taken.lock(), &message, port.connection))
            }
            Stage::Leaving(backend) => (backend, Handed::NoLink),
            Stage::Arriving(_) | Stage::Sending(..) => return,
        };
        let settlement = match handed {
            Handed::Held => None,
            Handed::Done => Some(Settlement::Complete),
            Handed::NoLink | Handed::Overrun | Handed::TooLarge => Some(Settlement::Abandon),
        };
        if let Some(settlement) = settlement {
            let ask = port.ask(taken.queue().settle(backend, taken.lock(), settlement), Lane::Serial);
            self.wait_for(ask, Waiting::Nothing);
        }
        match handed {
            Handed::Held | Handed::Done => self.ask_for_more(link, port),
            Handed::NoLink => self.left(link, port),
            Handed::Overrun => {
                let error = cut_off::of_backend(CutOff::Overrun, port);
                self.end_link(link, Some(error), port);
            }
            Handed::TooLarge => {
                let refused = port.refuse(ErrorKind::TooLarge, "The link takes no message as long as the next one is.");
                self.end_link(link, Some(error::hub_amqp(&refused)), port);
            }
        }
    }

    fn end_link(&mut self, link: LinkId, error: Option<proto::amqp::Error>, port: &mut Port<'_>) {
        port.connection.detach(link, true, error);
        self.forget_link(link, port);
    }

    /// Lets go whose link is over, now that nothing of it is under way.
    fn left(&mut self, link: LinkId, port: &mut Port<'_>) {
        if let Some(Link { stage: Stage::Leaving(backend), .. }) = self.links.get(&link) {
            let backend = backend.clone();
            self.links.remove(&link);
            self.leave(backend, port);
        }
    }

    /// Tells a back-end program something unasked. Gives the reason if it was cut off.
    pub fn handle_push(&mut self, backend: &Backend, push: &Push, port: &mut Port<'_>) -> Option<CutOff> {
        let (&id, link) = self.links.iter_mut().find(|(_, link)| link.backend() == Some(backend))?;
        match push {
            Push::MessagesWaiting => {
                if let Stage::Reading(_, reader) = &mut link.stage {
                    reader.wake();
                }
                self.ask_for_more(id, port);
                None
            }
            Push::CutOff(reason) => {
                // What it has not settled is free when its locks run out: nothing more is asked for it.
                self.links.remove(&id);
                let error = cut_off::of_backend(*reason, port);
                port.connection.detach(id, true, Some(error));
                self.leave(backend.clone(), port);
                Some(*reason)
            }
            Push::Desired(_) | Push::Method(_) => None,
        }
    }

    /// Asks for more on all links for which there is room.
    pub fn flush(&mut self, port: &mut Port<'_>) {
        let links: Vec<LinkId> = self.links.keys().copied().collect();
        for link in links {
            self.ask_for_more(link, port);
        }
    }

    /// Asks for more on a link, now that the client has room for it.
    pub fn flush_link(&mut self, link: LinkId, port: &mut Port<'_>) {
        self.ask_for_more(link, port);
    }

    /// Forgets a link that is over. What was read on it and not settled is given back.
    pub fn forget_link(&mut self, id: LinkId, port: &mut Port<'_>) {
        let Some(Link { session, purpose, stage }) = self.links.remove(&id) else { return };
        match stage {
            // Who is judged is let go once that is over.
            Stage::Arriving(_) => {}
            Stage::Sending(backend, _) => self.leave(backend, port),
            Stage::Reading(backend, reader) => {
                let is_asking = reader.is_asking();
                self.give_back(&backend, reader, port);
                if is_asking {
                    self.links.insert(id, Link { session, purpose, stage: Stage::Leaving(backend) });
                } else {
                    self.leave(backend, port);
                }
            }
            Stage::Leaving(backend) => {
                self.links.insert(id, Link { session, purpose, stage: Stage::Leaving(backend) });
            }
        }
    }

    /// Forgets the links of a session that is over.
    pub fn forget_session(&mut self, session: SessionId, port: &mut Port<'_>) {
        let over = self.links.iter().filter(|(_, link)| link.session == session);
        let over: Vec<LinkId> = over.map(|(link, _)| *link).collect();
        for link in over {
            self.forget_link(link, port);
        }
    }

    /// Forgets all links: the connection is over.
    pub fn forget_all(&mut self, port: &mut Port<'_>) {
        let links: Vec<LinkId> = self.links.keys().copied().collect();
        for link in links {
            self.forget_link(link, port);
        }
    }

    fn give_back(&mut self, backend: &Backend, reader: Reader, port: &mut Port<'_>) {
        let queue = reader.queue();
        for lock in reader.into_held() {
            let ask = port.ask(queue.settle(backend, lock, Settlement::Abandon), Lane::Serial);
            self.wait_for(ask, Waiting::Nothing);
        }
    }

    fn leave(&mut self, backend: Backend, port: &mut Port<'_>) {
        let ask = port.ask(Operation::Backend(Ask::Leave(backend)), Lane::Serial);
        self.wait_for(ask, Waiting::Nothing);
    }
}

impl Link {
    /// Who was let in, and has not been asked to leave.
    const fn backend(&self) -> Option<&Backend> {
        match &self.stage {
            Stage::Sending(backend, _) | Stage::Reading(backend, _) => Some(backend),
            Stage::Arriving(_) | Stage::Leaving(_) => None,
        }
    }
}
