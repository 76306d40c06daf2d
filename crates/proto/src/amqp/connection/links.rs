//! Links: attach, detach, credit (part 2, section 2.6).

use std::collections::VecDeque;

use super::link::{Link, LinkState, LinkTerms};
use super::session::SessionState;
use super::{Connection, Event, LinkId, SessionId, Unsent};
use crate::amqp::performative::{Attach, Detach, Flow, Performative, Role};
use crate::amqp::state::{Error, condition};
use crate::amqp::text::{Symbol, Text};

impl Connection {
    /// Has a link that is to drain keep its credit while its caller looks for what there is to send, or no longer: what is
    /// there is sent first (part 2, section 2.6.7).
    pub fn hold_credit(&mut self, id: LinkId, is_held: bool) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if std::mem::replace(&mut link.is_credit_held, is_held) && !is_held {
            self.make_ready(id);
        }
    }

    /// Attaches a link. [`Event::Attached`] follows, or [`Event::Detach`].
    pub fn attach(&mut self, id: SessionId, name: Text, role: Role, terms: LinkTerms) -> Result<LinkId, Unsent> {
        if !self.is_open() {
            return Err(Unsent::NotOpen);
        }
        let is_full = self.links.len() >= self.limits.links_max as usize;
        let session = self.sessions.get_mut(id).filter(|session| session.state == SessionState::Mapped);
        let session = session.ok_or(Unsent::NoSession)?;
        let handle = if is_full { None } else { session.take_handle() };
        let handle = handle.ok_or(Unsent::Exhausted)?;
        let mut link = Link::new(id, LinkState::Attaching, name, role, handle);
        let attach = link.attach(terms);
        let link = self.insert_link(link);
        self.push_on_session(id, &Performative::Attach(Box::new(attach)));
        Ok(link)
    }

    /// Accepts what [`Event::Attach`] asks for. Does nothing if the link is gone or was answered.
    pub fn accept_link(&mut self, id: LinkId, terms: LinkTerms) {
        let Some(link) = self.links.get_mut(&id).filter(|link| link.state == LinkState::Deciding) else { return };
        link.state = LinkState::Attached;
        let (session, attach) = (link.session, link.attach(terms));
        self.push_on_session(session, &Performative::Attach(Box::new(attach)));
        // The peer's first flow may have come before.
        self.make_ready(id);
    }

    /// Refuses what [`Event::Attach`] asks for: attaches without the terminus that was asked for, then closes the link
    /// (part 2, section 2.6.3). Does nothing if the link is gone or was answered.
    pub fn refuse_link(&mut self, id: LinkId, error: Error) {
        if self.links.get(&id).is_some_and(|link| link.state == LinkState::Deciding) {
            self.start_detaching(id, true, Some(Box::new(error)), false);
        }
    }

    /// Detaches a link: for good if `is_closed`, else so that the peer may attach it again. What waits on it is
    /// forgotten. [`Event::Detach`] follows when the peer has done so.
    pub fn detach(&mut self, id: LinkId, is_closed: bool, error: Option<Error>) {
        self.start_detaching(id, is_closed, error.map(Box::new), false);
    }

    /// Gives the sender of a link leave for `count` more deliveries. Does nothing if we send on it.
    pub fn grant_credit(&mut self, id: LinkId, count: u32) {
        let credit_max = self.limits.credit_max;
        let Some(link) = self.links.get_mut(&id) else { return };
        if link.role == Role::Receiver && matches!(link.state, LinkState::Attached | LinkState::Attaching) {
            link.add_credit(count, credit_max);
            self.push_link_flow(id);
        }
    }

    /// How many deliveries more can be received on a link, or sent without waiting; 0 if the link is gone.
    pub fn credit(&self, id: LinkId) -> u32 {
        let Some(link) = self.links.get(&id) else { return 0 };
        // A delivery that is under way has taken its credit.
        let waiting = link.queue.iter().filter(|queued| queued.number.is_none()).count();
        link.credit().saturating_sub(waiting as u32)
    }

    pub(super) fn insert_link(&mut self, link: Link) -> LinkId {
        let id = LinkId(self.next_link);
        self.next_link += 1;
        self.links.insert(id, Box::new(link));
        id
    }

    pub(super) fn push_on_session(&mut self, id: SessionId, performative: &Performative) {
        if let Some(channel) = self.sessions.get(id).map(|session| session.local_channel) {
            self.push_frame(channel, performative);
        }
    }

    pub(super) fn handle_attach(&mut self, session_id: SessionId, attach: Box<Attach>) {
        if attach.handle > self.limits.handle_max() {
            return self.violate(condition::FRAMING_ERROR, "a handle above handle-max");
        }
        let Some(session) = self.sessions.get_mut(session_id) else { return };
        if session.handles.contains_key(&attach.handle) {
            return self.fail_session(session_id, condition::HANDLE_IN_USE, "a second attach with a handle");
        }
        let role = attach.role.opposite();
        let is_answer = |link: &Link| {
            link.session == session_id && link.peer_handle.is_none() && link.role == role && link.name == *attach.name
        };
        if let Some((&id, link)) = self.links.iter_mut().find(|(_, link)| is_answer(link)) {
            session.handles.insert(attach.handle, id);
            link.handle_attach(&attach);
            if link.state == LinkState::Attaching {
                link.state = LinkState::Attached;
                self.events.push_back(Event::Attached { link: id, attach });
            }
            return;
        }
        let is_full = self.links.len() >= self.limits.links_max as usize;
        let handle = if is_full { None } else { session.take_handle() };
        let Some(handle) = handle else {
            return self.fail_session(session_id, condition::RESOURCE_LIMIT_EXCEEDED, "too many links");
        };
        // A copy: a slice of the attach would keep all of it for as long as the link lasts.
        let mut link = Link::new(session_id, LinkState::Deciding, attach.name.detached(), role, handle);
        link.handle_attach(&attach);
        session.handles.insert(attach.handle, LinkId(self.next_link));
        let id = self.insert_link(link);
        self.events.push_back(Event::Attach { link: id, session: session_id, attach });
    }

    pub(super) fn handle_detach(&mut self, session_id: SessionId, detach: Detach) {
        let found = self.sessions.get(session_id).and_then(|session| session.handles.get(&detach.handle));
        let Some(&id) = found else {
            let what = "a detach of a handle that is not attached";
            return self.fail_session(session_id, condition::UNATTACHED_HANDLE, what);
        };
        let Some(mut link) = self.forget_link(id) else { return };
        let is_reported = match link.state {
            LinkState::Detaching { is_reported } => is_reported,
            state => {
                // A peer may wait for the answer to its attach before it takes that to its detach.
                if state == LinkState::Deciding {
                    let attach = link.refusal();
                    self.push_on_session(session_id, &Performative::Attach(Box::new(attach)));
                }
                self.push_detach(session_id, link.local_handle, detach.closed, None);
                false
            }
        };
        if !is_reported {
            self.events.push_back(Event::Detach { link: id, is_closed: detach.closed, error: detach.error });
        }
    }

    fn push_detach(&mut self, session: SessionId, handle: u32, closed: bool, error: Option<Box<Error>>) {
        self.push_on_session(session, &Performative::Detach(Detach { handle, closed, error }));
    }

    /// Closes a link whose peer broke a rule.
    pub(super) fn fail_link(&mut self, id: LinkId, condition: Symbol, what: &'static str) {
        self.note_fault(what);
        let error = Box::new(Error::new(condition, what));
        self.start_detaching(id, true, Some(error.clone()), true);
        self.events.push_back(Event::Detach { link: id, is_closed: true, error: Some(error) });
    }

    fn start_detaching(&mut self, id: LinkId, is_closed: bool, error: Option<Box<Error>>, is_reported: bool) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if matches!(link.state, LinkState::Detaching { .. }) {
            return;
        }
        let refusal = (link.state == LinkState::Deciding).then(|| link.refusal());
        link.state = LinkState::Detaching { is_reported };
        let (session, handle) = (link.session, link.local_handle);
        if let Some(attach) = refusal {
            self.push_on_session(session, &Performative::Attach(Box::new(attach)));
        }
        self.empty_link(id);
        if error.is_some() {
            // rhea-promise hands out a link that is attached once all that it has read is dealt with: if the link is ended
            // in the same breath, nobody hears why.
            self.output.set_apart();
        }
        self.push_detach(session, handle, is_closed, error);
    }

    /// Forgets what waits on a link, and its deliveries.
    fn empty_link(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        self.queued -= link.queue.len();
        self.queued_bytes -= link.queued_bytes();
        self.unfinished_bytes -= link.partial_bytes();
        link.queue = VecDeque::new();
        link.partial = None;
        let was_ready = std::mem::take(&mut link.is_ready);
        if was_ready {
            self.ready.retain(|ready| *ready != id);
        }
        if let Some(session) = self.sessions.get_mut(link.session) {
            self.unsettled -= session.forget_deliveries(id);
            if was_ready {
                session.blocked.retain(|blocked| *blocked != id);
            }
        }
    }

    /// Forgets a link; its handles are free.
    fn forget_link(&mut self, id: LinkId) -> Option<Box<Link>> {
        self.empty_link(id);
        let link = self.links.remove(&id)?;
        if let Some(session) = self.sessions.get_mut(link.session) {
            session.local_handles.remove(&link.local_handle);
            if let Some(handle) = link.peer_handle {
                session.handles.remove(&handle);
            }
        }
        Some(link)
    }

    /// Forgets all links of a session.
    pub(super) fn forget_links_of(&mut self, session: SessionId) {
        let ids: Vec<LinkId> =
            self.links.iter().filter(|(_, link)| link.session == session).map(|(id, _)| *id).collect();
        for id in ids {
            self.forget_link(id);
        }
    }

    pub(super) fn handle_link_flow(&mut self, id: LinkId, flow: &Flow) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if matches!(link.state, LinkState::Detaching { .. }) {
            return;
        }
        let has_more = link.handle_flow(flow);
        let is_draining = link.is_draining && link.role == Role::Sender;
        if has_more {
            self.events.push_back(Event::Credit { link: id });
        }
        // A link that drains is answered when its turn comes, so that the caller can use the credit before.
        self.make_ready(id);
        if flow.echo && !is_draining {
            self.push_link_flow(id);
        }
    }

    /// Gives up the credit of a link that is to drain and has nothing to send with it; says so.
    pub(super) fn drain_if_idle(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let waits = link.queue.front().is_some_and(|front| link.credit() > 0 || front.number.is_some());
        let drains = link.is_draining && !link.is_credit_held;
        if link.role != Role::Sender || !drains || waits || link.state != LinkState::Attached {
            return;
        }
        link.give_up_credit();
        self.push_link_flow(id);
        if let Some(link) = self.links.get_mut(&id) {
            link.is_draining = false;
        }
    }

    fn push_link_flow(&mut self, id: LinkId) {
        let window = self.limits.session_window;
        let Some(link) = self.links.get(&id) else { return };
        // A link of which the peer has not seen an attach, or has seen a detach, has no flow.
        if matches!(link.state, LinkState::Deciding | LinkState::Detaching { .. }) {
            return;
        }
        let Some(session) = self.sessions.get_mut(link.session) else { return };
        let (channel, flow) = (session.local_channel, link.flow(session.flow(window)));
        self.push_frame(channel, &Performative::Flow(flow));
    }
}
