//! One device of a connection: its seat, its links, and what it is to be told.

use std::collections::{BTreeMap, VecDeque};

use domain::ids::{LockToken, MethodRequestId};
use domain::method::{NoResponse, Request};
use domain::operation::ErrorKind;
use domain::operation::identity::IdentityName;
use domain::operation::session::ConnectedDevice;
use proto::amqp::{Attach, Connection, LinkId, Message, Role, Unsent, Value};

use crate::amqp::Port;
use crate::amqp::links::{Credit, Sender};
use crate::hub::deliveries::Deliveries;
use crate::hub::desired::{Feed, Next};
use crate::hub::link_address::Purpose;
use crate::hub::{method_amqp, twin_amqp};
use crate::session::AskId;

/// Messages that a device has locked at once: as many as may wait for it by default, so that an application may settle late
/// and in any order.
const MESSAGES_HELD_MAX: usize = 50;

/// What a link carries, and which way: `role` is the client's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) purpose: Purpose,
    pub(super) role: Role,
}

/// Whether the service knows that a device listens for methods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Listening {
    /// It does not.
    #[default]
    No,
    /// It is being told by this ask.
    Asked(AskId),
    /// It does.
    Yes,
}

/// A device, from its first attach on.
#[derive(Debug)]
pub(super) struct Device {
    /// `None` while the service judges.
    pub(super) seat: Option<ConnectedDevice>,
    /// Whether the service was asked to seat it.
    pub(super) is_asked: bool,
    /// Whether a token speaks for it, which is to be renewed.
    pub(super) has_token: bool,
    /// The model that it announced last.
    pub(super) model_id: Option<String>,
    /// By which ask it announces another.
    pub(super) announcing: Option<AskId>,
    /// Links that wait for the seat, or for a model to be known.
    pub(super) arriving: Vec<(LinkId, Box<Attach>)>,
    links: BTreeMap<(Purpose, bool), Link>,
    pub(super) answers: VecDeque<Answer>,
    /// Requests about the twin that the service performs.
    pub(super) twin_requests: usize,
    /// Whether changes of the desired properties are to be told.
    pub(super) is_listening: bool,
    pub(super) feed: Feed,
    /// Whether calls of methods come.
    pub(super) listening: Listening,
    /// Calls to be sent; as many as are awaited at once.
    pub(super) requests: VecDeque<Request>,
    /// Messages on their way, by their locks.
    pub(super) deliveries: Deliveries<LockToken>,
}

/// An answer about the twin that waits to be sent.
#[derive(Debug)]
pub(super) struct Answer {
    /// The link on which it was asked for.
    pub(super) link: LinkId,
    pub(super) message: Message,
    /// The version of the desired properties in it, which the device knows once it has left.
    pub(super) desired: Option<u64>,
}

impl Default for Device {
    fn default() -> Self {
        Self {
            seat: None,
            is_asked: false,
            has_token: false,
            model_id: None,
            announcing: None,
            arriving: Vec::new(),
            links: BTreeMap::new(),
            answers: VecDeque::new(),
            twin_requests: 0,
            is_listening: false,
            feed: Feed::default(),
            listening: Listening::default(),
            requests: VecDeque::new(),
            deliveries: no_deliveries(),
        }
    }
}

/// Of a link that has just been attached.
pub(super) const fn no_deliveries() -> Deliveries<LockToken> {
    Deliveries::new(MESSAGES_HELD_MAX)
}

/// A link that is attached.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) id: LinkId,
    /// What pairs it with the link the other way, if the client says so.
    pub(super) pair: Option<Box<str>>,
    /// Of a link on which the client sends.
    pub(super) credit: Option<Credit>,
    /// Of a link on which the hub sends what nobody has to settle.
    pub(super) sender: Option<Sender>,
}

/// What came of sending what there was room for.
#[derive(Debug, Default)]
pub(super) struct Flushed {
    /// The links whose requests were answered.
    pub(super) answered: Vec<LinkId>,
    /// Whether a change of the desired properties is missing.
    pub(super) has_gap: bool,
}

impl Kind {
    /// What is asked of the twin.
    pub(super) const TWIN_REQUESTS: Self = Self { purpose: Purpose::Twin, role: Role::Sender };
    /// What the twin says.
    pub(super) const TWIN_ANSWERS: Self = Self { purpose: Purpose::Twin, role: Role::Receiver };
    /// Calls of methods.
    pub(super) const CALLS: Self = Self { purpose: Purpose::Methods, role: Role::Receiver };
    /// Cloud-to-device messages.
    pub(super) const MESSAGES: Self = Self { purpose: Purpose::DeviceBound, role: Role::Receiver };

    /// Whether `identity` has such links: inputs belong to modules alone, and nobody sends where messages come from.
    pub(super) fn is_known(self, identity: &IdentityName) -> bool {
        match (self.purpose, self.role) {
            (Purpose::Events, Role::Receiver) => identity.module.is_some(),
            (Purpose::DeviceBound, Role::Sender) => false,
            (Purpose::Events, Role::Sender)
            | (Purpose::DeviceBound, Role::Receiver)
            | (Purpose::Twin | Purpose::Methods, _) => true,
        }
    }

    fn key(self) -> (Purpose, bool) {
        (self.purpose, self.role == Role::Sender)
    }

    fn is_paired(self) -> bool {
        matches!(self.purpose, Purpose::Twin | Purpose::Methods)
    }
}

/// The model that a link announces for its device (`contract/hub-device.md 4.5`).
pub(super) fn model_of(attach: &Attach) -> Option<&str> {
    let model_id = attach.properties.find("com.microsoft:model-id").and_then(Value::as_str);
    model_id.filter(|model_id| !model_id.is_empty())
}

/// What pairs a link of two, if the client says so (`contract/hub-device.md 4.5`).
pub(super) fn pair_of(attach: &Attach) -> Option<Box<str>> {
    attach.properties.find("com.microsoft:channel-correlation-id").and_then(Value::as_str).map(Into::into)
}

impl Device {
    /// Takes a link in. Gives those that it takes the place of: the one alike, and its counterpart if that is of another
    /// pair.
    pub(super) fn enter(&mut self, kind: Kind, link: Link) -> Vec<LinkId> {
        let mut stolen = Vec::new();
        let counterpart = Kind { role: kind.role.opposite(), ..kind };
        let is_stranger = |other: &Link| matches!((&other.pair, &link.pair), (Some(one), Some(two)) if one != two);
        if kind.is_paired() && self.links.get(&counterpart.key()).is_some_and(is_stranger) {
            stolen.extend(self.links.remove(&counterpart.key()));
        }
        stolen.extend(self.links.insert(kind.key(), link));
        let stolen: Vec<LinkId> = stolen.into_iter().map(|link| link.id).collect();
        if !stolen.is_empty() && kind.purpose == Purpose::Twin {
            self.end_twin(&stolen);
        }
        stolen
    }

    /// Forgets a link that is over.
    pub(super) fn forget(&mut self, id: LinkId) {
        self.arriving.retain(|(link, _)| *link != id);
        let ended = self.links.extract_if(.., |_, link| link.id == id).next();
        if let Some(((Purpose::Twin, _), _)) = ended {
            self.end_twin(&[id]);
        }
    }

    /// The link of a kind, if one is attached.
    pub(super) fn link(&self, kind: Kind) -> Option<LinkId> {
        self.links.get(&kind.key()).map(|link| link.id)
    }

    /// Being told of changes ends with either link of the pair.
    fn end_twin(&mut self, links: &[LinkId]) {
        self.is_listening = false;
        self.answers.retain(|answer| !links.contains(&answer.link));
    }

    /// Whether no link is attached, nor about to be.
    pub(super) fn has_no_links(&self) -> bool {
        self.links.is_empty() && self.arriving.is_empty()
    }

    /// The credit of a link on which the client sends.
    pub(super) fn credit_of(&mut self, kind: Kind) -> Option<&mut Credit> {
        self.links.get_mut(&kind.key())?.credit.as_mut()
    }

    /// Whether something waits to be sent.
    pub(super) fn has_something_to_say(&self) -> bool {
        !self.answers.is_empty()
            || !self.feed.is_empty()
            || !self.requests.is_empty()
            || self.deliveries.next().is_some()
    }

    /// Sends the calls that somebody still waits for. Gives those that are longer than the client takes.
    pub(super) fn send_requests(&mut self, connection: &mut Connection) -> Vec<(MethodRequestId, NoResponse)> {
        let mut too_long = Vec::new();
        self.requests.retain(Request::is_awaited);
        let link = self.links.get_mut(&Kind::CALLS.key());
        let Some(sender) = link.and_then(|link| link.sender.as_mut()) else { return too_long };
        while let Some(request) = self.requests.front() {
            match sender.try_send(&method_amqp::request(request), connection) {
                Err(Unsent::Full) => return too_long,
                Err(Unsent::TooLarge { bytes, max: bytes_max }) => {
                    too_long.push((request.id, NoResponse::RequestTooLong { bytes, bytes_max }));
                }
                // The end of a link that is gone is noticed by itself.
                Ok(()) | Err(_) => {}
            }
            self.requests.pop_front();
        }
        self.requests = VecDeque::new();
        too_long
    }

    /// Sends what there is room for: answers, and after them, unless an answer about the twin is under way, changes of
    /// desired properties.
    pub(super) fn flush(&mut self, port: &mut Port<'_>) -> Flushed {
        let mut flushed = Flushed::default();
        let mut sender = self.links.get_mut(&Kind::TWIN_ANSWERS.key()).and_then(|link| link.sender.as_mut());
        while let (Some(Answer { link, message, desired }), Some(sender)) = (self.answers.front(), &mut sender) {
            match sender.try_send(message, port.connection) {
                Err(Unsent::Full) => return flushed,
                // Whoever asked waits for an answer.
                Err(Unsent::TooLarge { .. }) => {
                    let refused = port.refuse(ErrorKind::TooLarge, "The answer is longer than the link takes.");
                    sender.send(&twin_amqp::refused(message, &refused), port.connection);
                }
                Ok(()) => {
                    if let Some(version) = *desired {
                        self.feed.read(version);
                    }
                }
                Err(_) => {}
            }
            flushed.answered.push(*link);
            self.answers.pop_front();
        }
        if self.twin_requests > 0 || !self.answers.is_empty() {
            return flushed;
        }
        while !self.is_listening || sender.as_ref().is_some_and(|sender| sender.has_room(port.connection)) {
            match self.feed.poll(self.is_listening) {
                Some(Next::Tell(change)) => {
                    if let Some(sender) = &mut sender
                        && sender.try_send(&twin_amqp::notification(&change), port.connection).is_err()
                    {
                        flushed.has_gap = true;
                        break;
                    }
                }
                Some(Next::Gap { .. }) => {
                    flushed.has_gap = true;
                    break;
                }
                None => break,
            }
        }
        flushed
    }
}
