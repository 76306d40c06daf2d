//! A link on which a partition is read: what it was given and has not sent, and where it reads on. Start at [`Reading`].

use std::collections::VecDeque;

use bytes::Bytes;
use domain::operation::events::{Event, From, Newest, Reader};
use proto::amqp::{Connection, LinkId, Outgoing, Settlement, Unsent};

use super::event::encode;

/// A reader that was let in.
#[derive(Debug)]
pub struct Reading {
    /// What it asks with.
    pub reader: Reader,
    /// Behind which message it reads on.
    from: From,
    /// Read and not sent.
    ready: VecDeque<Event>,
    newest: Option<Newest>,
    /// How many bytes `ready` counts for.
    held_bytes: usize,
    /// Whether it asked for more and waits for the answer.
    is_asking: bool,
    next_tag: u64,
}

/// What a reader does next.
#[derive(Debug, PartialEq)]
pub enum Next {
    /// It waits: for credit, for room, or for an answer.
    Wait,
    /// It asks for so many messages at the most.
    Read {
        /// Behind which.
        from: From,
        /// How many.
        limit: usize,
    },
    /// The next message is longer than the client takes: the link cannot go on.
    TooLarge {
        /// How long it is.
        bytes: usize,
        /// What the client takes.
        max: u64,
    },
}

impl Reading {
    /// A reader that begins at `from`.
    pub const fn new(reader: Reader, from: From) -> Self {
        let ready = VecDeque::new();
        Self { reader, from, ready, newest: None, held_bytes: 0, is_asking: false, next_tag: 0 }
    }

    /// Bytes of messages that were read and not sent.
    pub const fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Takes what was read; `false` if there was nothing.
    pub fn take(&mut self, events: Vec<Event>, read_to: Option<u64>, newest: Option<Newest>) -> bool {
        self.is_asking = false;
        let Some(read_to) = read_to else { return false };
        self.from = From::AfterSequence(read_to);
        self.newest = newest;
        self.held_bytes += events.iter().map(bytes_of).sum::<usize>();
        self.ready.extend(events);
        true
    }

    /// There may be more: it may ask again.
    pub const fn wake(&mut self) {
        self.is_asking = false;
    }

    /// Waits until there is more, and asks for nothing before. A client that wants its credit back gets it.
    pub fn rest(&mut self, link: LinkId, connection: &mut Connection) {
        self.is_asking = true;
        connection.hold_credit(link, false);
    }

    /// Sends what there is credit and room for, and says what comes next. Whoever is told to read has to.
    pub fn advance(&mut self, link: LinkId, may_read: bool, connection: &mut Connection) -> Next {
        while let Some(event) = self.ready.front() {
            if connection.credit(link) == 0 || connection.is_output_full() || connection.is_queue_full() {
                connection.hold_credit(link, connection.credit(link) > 0);
                return Next::Wait;
            }
            let outgoing = Outgoing {
                tag: Bytes::copy_from_slice(&self.next_tag.to_be_bytes()),
                message_format: 0,
                // Python never settles, and others when they like (`contract/eventhub-endpoint.md 6.2`).
                settlement: Settlement::Forgotten,
                payload: vec![encode(event, self.newest.as_ref()).to_bytes()],
            };
            match connection.send(link, outgoing) {
                Ok(()) => {}
                Err(Unsent::TooLarge { bytes, max }) => return Next::TooLarge { bytes, max },
                Err(_) => return Next::Wait,
            }
            self.next_tag += 1;
            self.held_bytes -= bytes_of(event);
            self.ready.pop_front();
        }
        if self.ready.capacity() > 0 {
            self.ready = VecDeque::new();
        }
        let limit = connection.credit(link) as usize;
        if self.is_asking {
            return Next::Wait;
        }
        self.is_asking = may_read && limit > 0;
        connection.hold_credit(link, self.is_asking);
        if !self.is_asking {
            return Next::Wait;
        }
        Next::Read { from: self.from, limit }
    }
}

/// What an event counts for in memory.
fn bytes_of(event: &Event) -> usize {
    /// Beside what the device sent.
    const OVERHEAD_BYTES: usize = 512;

    event.message.draft.size() + OVERHEAD_BYTES
}
