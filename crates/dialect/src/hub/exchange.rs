//! A node that answers requests: they come on one link of a session, and the answers go on another one of the same
//! session. Start at [`Exchange`].

use std::collections::{BTreeMap, VecDeque};

use proto::amqp::{
    Attach, Body, Delivery, DeliveryState, LinkId, Malformed, Map, Message, MessageId, Properties, Role, SessionId,
    Value, condition,
};

use crate::amqp::Port;
use crate::amqp::links::{self, Credit, Sender};

/// Requests that may be under way on a link.
const CREDIT: u32 = 64;

/// The links to one node. Sessions do not share links.
#[derive(Debug, Default)]
pub struct Exchange {
    requests: BTreeMap<LinkId, Requests>,
    answers: BTreeMap<SessionId, Answers>,
}

/// A link on which requests come.
#[derive(Debug)]
struct Requests {
    session: SessionId,
    credit: Credit,
}

/// The link on which a session's answers go. Answers wait for it: C# attaches it second.
#[derive(Debug, Default)]
struct Answers {
    link: Option<Sender>,
    waiting: VecDeque<Message>,
}

impl Exchange {
    /// Whether nobody has a link to the node on which requests come.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Whether requests come on `link`.
    pub fn owns(&self, link: LinkId) -> bool {
        self.requests.contains_key(&link)
    }

    /// Accepts a link to the node, with a bound on the bytes of a request; nobody has to have proved anything.
    pub fn attach(
        &mut self,
        (link, session): (LinkId, SessionId),
        attach: &Attach,
        request_bytes_max: u64,
        port: &mut Port<'_>,
    ) {
        links::accept(link, attach, request_bytes_max, port.connection);
        match attach.role {
            Role::Sender => {
                let credit = Credit::grant(link, CREDIT, port.connection);
                for (displaced, _) in self.requests.extract_if(.., |_, requests| requests.session == session) {
                    displace(displaced, port);
                }
                self.requests.insert(link, Requests { session, credit });
            }
            Role::Receiver => {
                let answers = self.answers.entry(session).or_default();
                if let Some(displaced) = answers.link.replace(Sender::new(link, attach)) {
                    displace(displaced.link(), port);
                }
            }
        }
        self.flush(port);
    }

    /// Takes a request. The disposition leaves before the answer: C takes it for the answer otherwise.
    pub fn take(delivery: &Delivery, port: &mut Port<'_>) -> Result<Message, Malformed> {
        if !delivery.is_settled {
            port.connection.settle(delivery.id, DeliveryState::Accepted);
        }
        Message::decode(&delivery.payload)
    }

    /// Answers a request that came on `link`.
    pub fn answer(&mut self, link: LinkId, answer: Message, port: &mut Port<'_>) {
        // Whoever has detached asks no more.
        let Some(Requests { session, credit }) = self.requests.get_mut(&link) else { return };
        credit.use_one(port.connection);
        let answers = self.answers.entry(*session).or_default();
        // As many as may be under way, and not one more for a client that never takes any.
        if answers.waiting.len() < 2 * CREDIT as usize {
            answers.waiting.push_back(answer);
        }
        self.flush(port);
    }

    /// Sends the answers for which there is room.
    pub fn flush(&mut self, port: &mut Port<'_>) {
        for answers in self.answers.values_mut() {
            let Some(link) = &mut answers.link else { continue };
            while let Some(answer) = answers.waiting.front() {
                if !link.send(answer, port.connection) {
                    break;
                }
                answers.waiting.pop_front();
            }
        }
    }

    /// Forgets a link that is over.
    pub fn forget_link(&mut self, link: LinkId) {
        self.requests.remove(&link);
        self.answers.retain(|_, answers| answers.link.as_ref().is_none_or(|sender| sender.link() != link));
    }

    /// Forgets the links of a session that is over.
    pub fn forget_session(&mut self, session: SessionId) {
        self.requests.retain(|_, requests| requests.session != session);
        self.answers.remove(&session);
    }
}

/// Ends a link whose place another has taken.
fn displace(link: LinkId, port: &mut Port<'_>) {
    let error = proto::amqp::Error::new(condition::STOLEN, "A newer link of the session took its place.");
    port.connection.detach(link, true, Some(error));
}

/// An answer as clients read one: it repeats the name of the request in its own type, and the status is an `int`, which
/// uAMQP insists on (`contract/eventhub-endpoint.md 4`).
pub fn response(
    correlation_id: Option<MessageId>,
    (status, description): (u16, &str),
    body: impl Into<Value>,
) -> Message {
    Message {
        properties: Some(Box::new(Properties { correlation_id, ..Properties::default() })),
        application_properties: Map::from_iter([
            ("status-code", Value::Int(i32::from(status))),
            ("status-description", Value::from(description)),
        ]),
        body: Body::Value(body.into()),
        ..Message::default()
    }
}
