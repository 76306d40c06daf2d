//! What links of hubs and provisioning services have in common: how they are accepted, how their credit is kept, how they
//! are sent on. Start at [`Credit`] and [`Sender`].

use bytes::Bytes;
use proto::amqp::{
    Attach, Connection, DeliveryId, DeliveryState, LinkId, LinkTerms, Message, Outgoing, SenderSettleMode, Settlement,
    Source, Target, Unsent,
};

/// Accepts a link as it was asked for, with a bound on messages. Neither end is left out: Azure.Amqp reads both
/// (`contract/hub-device.md 4.5`).
pub fn accept(link: LinkId, attach: &Attach, message_bytes_max: u64, connection: &mut Connection) {
    let mut terms = LinkTerms::echo(attach, message_bytes_max);
    terms.source.get_or_insert_with(|| Box::new(Source::default()));
    terms.target.get_or_insert_with(|| Box::new(Target::default().into()));
    connection.accept_link(link, terms);
}

/// The credit of a link on which the client sends: given again when half of it is used up.
#[derive(Debug)]
pub struct Credit {
    link: LinkId,
    granted: u32,
    used: u32,
}

impl Credit {
    /// Lets the client send `granted` messages.
    pub fn grant(link: LinkId, granted: u32, connection: &mut Connection) -> Self {
        connection.grant_credit(link, granted);
        Self { link, granted, used: 0 }
    }

    /// A message is dealt with, so that another may come.
    pub fn use_one(&mut self, connection: &mut Connection) {
        self.used += 1;
        if self.used >= self.granted.div_ceil(2) {
            connection.grant_credit(self.link, std::mem::take(&mut self.used));
        }
    }
}

/// What a client tells of a message it was sent.
#[derive(Debug)]
pub struct Told {
    /// The link.
    pub link: LinkId,
    /// For the answer, if the client waits for one.
    pub id: DeliveryId,
    /// What the transfer was called.
    pub tag: Bytes,
    /// What became of it.
    pub state: Option<DeliveryState>,
    /// Whether the client waits for nothing.
    pub is_settled: bool,
}

/// A link on which the server sends what nobody has to settle.
#[derive(Debug)]
pub struct Sender {
    link: LinkId,
    settlement: Settlement,
    next_tag: u64,
}

impl Sender {
    /// For the link that `attach` asked for. A client that wants everything unsettled gets it so.
    pub fn new(link: LinkId, attach: &Attach) -> Self {
        let settlement = match attach.snd_settle_mode {
            SenderSettleMode::Unsettled => Settlement::Forgotten,
            SenderSettleMode::Settled | SenderSettleMode::Mixed => Settlement::Settled,
        };
        Self { link, settlement, next_tag: 0 }
    }

    /// The link.
    pub const fn link(&self) -> LinkId {
        self.link
    }

    /// Whether a message would leave, as far as the client's credit, the connection's output and its queue tell.
    pub fn has_room(&self, connection: &Connection) -> bool {
        connection.credit(self.link) > 0 && !connection.is_output_full() && !connection.is_queue_full()
    }

    /// Sends `message`; `false` if there is no room for it. What is longer than the client takes is dropped.
    pub fn send(&mut self, message: &Message, connection: &mut Connection) -> bool {
        self.try_send(message, connection) != Err(Unsent::Full)
    }

    /// Sends `message`, or says why not; [`Unsent::Full`] if there is no room for it.
    pub fn try_send(&mut self, message: &Message, connection: &mut Connection) -> Result<(), Unsent> {
        if !self.has_room(connection) {
            return Err(Unsent::Full);
        }
        let outgoing = self.transfer(message);
        connection.send(self.link, outgoing)
    }

    /// The transfer of `message`, with a tag of its own.
    pub fn transfer(&mut self, message: &Message) -> Outgoing {
        let tag = Bytes::copy_from_slice(&self.next_tag.to_be_bytes());
        self.next_tag += 1;
        Outgoing { tag, message_format: 0, settlement: self.settlement, payload: vec![message.to_bytes()] }
    }
}
