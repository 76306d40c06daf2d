//! One device of a connection: its seat, its links, and what it is to be told.

use std::collections::{BTreeMap, VecDeque};

use domain::operation::identity::IdentityName;
use domain::operation::session::ConnectedDevice;
use proto::amqp::{Attach, Connection, LinkId, Message, Role, Value};

use crate::hub::desired::{Feed, Next};
use crate::hub::link_address::Purpose;
use crate::hub::links::{Credit, Sender};
use crate::hub::twin_amqp;

/// What a link carries, and which way: `role` is the client's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) purpose: Purpose,
    pub(super) role: Role,
}

/// A device, from its first attach on.
#[derive(Debug, Default)]
pub(super) struct Device {
    /// `None` while the service judges.
    pub(super) seat: Option<ConnectedDevice>,
    /// Whether the service was asked to seat it.
    pub(super) is_asked: bool,
    /// Whether a token speaks for it, which is to be renewed.
    pub(super) has_token: bool,
    /// Links that wait for the seat.
    pub(super) arriving: Vec<(LinkId, Box<Attach>)>,
    links: BTreeMap<(Purpose, bool), Link>,
    /// Answers to requests that came on the link beside them.
    pub(super) answers: VecDeque<(LinkId, Message)>,
    /// Requests about the twin that the service performs.
    pub(super) twin_requests: usize,
    /// Whether changes of the desired properties are to be told.
    pub(super) is_listening: bool,
    pub(super) feed: Feed,
}

/// A link that is attached.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) id: LinkId,
    /// What pairs it with the link the other way, if the client says so.
    pub(super) pair: Option<Box<str>>,
    /// Of a link on which the client sends.
    pub(super) credit: Option<Credit>,
    /// Of a link on which the hub sends.
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

    /// Being told of changes ends with either link of the pair.
    fn end_twin(&mut self, links: &[LinkId]) {
        self.is_listening = false;
        self.answers.retain(|(link, _)| !links.contains(link));
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
        !self.answers.is_empty() || !self.feed.is_empty()
    }

    /// Sends what there is room for: answers, and after them, unless an answer about the twin is under way, changes of
    /// desired properties.
    pub(super) fn flush(&mut self, connection: &mut Connection) -> Flushed {
        let mut flushed = Flushed::default();
        let key = Kind { purpose: Purpose::Twin, role: Role::Receiver }.key();
        let mut sender = self.links.get_mut(&key).and_then(|link| link.sender.as_mut());
        while let (Some((link, answer)), Some(sender)) = (self.answers.front(), &mut sender) {
            if !sender.send(answer, connection) {
                return flushed;
            }
            flushed.answered.push(*link);
            self.answers.pop_front();
        }
        if self.twin_requests > 0 || !self.answers.is_empty() {
            return flushed;
        }
        while !self.is_listening || sender.as_ref().is_some_and(|sender| sender.has_room(connection)) {
            match self.feed.poll(self.is_listening) {
                Some(Next::Tell(change)) => {
                    if let Some(sender) = &mut sender {
                        sender.send(&twin_amqp::notification(&change), connection);
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
