//! Back-end programs that share an AMQP connection to a hub and do anything, while the service says anything: nothing is
//! asked for who is not let in, whoever was let in leaves once, and what was handed out is settled once, or given back.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use dialect::session::{Ask, Session as _};
use domain::clock::UnixTime;
use domain::cloud_to_device::{Feedback, FeedbackBatch, Outcome};
use domain::file::{FileName, FileNotification, LockedNotification};
use domain::ids::{DeviceId, HubKey, HubName, LockToken};
use domain::operation::backend::{self, Backend, Stay};
use domain::operation::cloud_to_device::{self, AtHub};
use domain::operation::identity::IdentityName;
use domain::operation::session::{Answer, CutOff};
use domain::operation::{ErrorKind, Failure, Operation, Push, Reply, file};
use proto::amqp::{
    Body, DeliveryState, LinkTerms, Message, Outgoing, Properties, ReceiverSettleMode, Role, SenderSettleMode,
    Settlement, Source, Target,
};

use crate::amqp_ends::{Conversation, Ends};
use crate::script::Script;
use crate::service::failure;

const ADDRESSES: [&str; 8] = [
    "$cbs",
    "/messages/devicebound",
    "amqps://h/messages/deviceBound",
    "/messages/serviceBound/feedback",
    "/Messages/servicebound/Feedback/",
    "/messages/elsewhere",
    "/messages/serviceBound/filenotifications",
    "amqps://h/messages/servicebound/fileUploadNotifications",
];
const CUT_OFFS: [CutOff; 3] = [CutOff::TokenExpired, CutOff::Rekeyed, CutOff::HubDeleted];
const FORMATS: [u32; 2] = [0, 7];
/// Batches that a link has at once, sent or on their way, as the dialect promises.
const HELD_MAX: usize = 8;

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
    /// Who is in, with what each has and has not settled.
    present: BTreeMap<u64, (Backend, BTreeSet<LockToken>)>,
    /// Who was cut off: nothing is done for it any more.
    cut_off: BTreeSet<u64>,
    next: u64,
}

impl Conversation for Pair {
    fn open() -> Self {
        Self { ends: Ends::open("h"), present: BTreeMap::new(), cut_off: BTreeSet::new(), next: 1 }
    }

    fn ends(&mut self) -> &mut Ends {
        &mut self.ends
    }

    fn step(&mut self, script: &mut Script<'_>) {
        match script.byte() % 8 {
            0 | 1 => self.attach(script),
            2 => self.send(script),
            3 => self.settle(script),
            4 => {
                let Some(link) = script.choose(&self.ends.links) else { return };
                match script.byte() {
                    even if even.is_multiple_of(2) => self.ends.client.detach(link, even.is_multiple_of(4), None),
                    credit => self.ends.client.grant_credit(link, u32::from(credit)),
                }
            }
            5 => self.reply(script),
            6 => self.push(script),
            _ => self.begin_again(script),
        }
    }

    fn look_at(&mut self, ask: &Ask) {
        let (Operation::Backend(backend::Ask::Renew(backend) | backend::Ask::Leave(backend))
        | Operation::CloudToDevice(
            cloud_to_device::Ask::Send { hub: AtHub::Entered(backend), .. }
            | cloud_to_device::Ask::TakeFeedback(AtHub::Entered(backend))
            | cloud_to_device::Ask::SettleFeedback { hub: AtHub::Entered(backend), .. },
        )
        | Operation::File(
            file::Ask::TakeNotification(AtHub::Entered(backend))
            | file::Ask::SettleNotification { hub: AtHub::Entered(backend), .. },
        )) = &ask.operation
        else {
            return;
        };
        let Some((_, held)) = self.present.get_mut(&backend.number) else {
            panic!("{} is not in: {:?}", backend.number, ask.operation)
        };
        match &ask.operation {
            Operation::CloudToDevice(cloud_to_device::Ask::SettleFeedback { lock, .. })
            | Operation::File(file::Ask::SettleNotification { lock, .. }) => {
                // Who is cut off may settle in vain.
                held.remove(lock);
            }
            Operation::Backend(backend::Ask::Leave(_)) => {
                assert!(held.is_empty(), "{} leaves with what it has not given back", backend.number);
                self.present.remove(&backend.number);
            }
            _ => {}
        }
    }

    /// Answers everything and takes all links away: then nobody is left, unless the connection ended.
    fn finish(mut self) {
        self.answer_all();
        self.detach_all();
        self.answer_all();
        assert!(self.present.is_empty() || self.ends.session.closed().is_some(), "somebody stays without a link");
        self.ends.cut();
    }
}

impl Pair {
    fn attach(&mut self, script: &mut Script<'_>) {
        let Some(address) = script.choose(&ADDRESSES) else { return };
        let (role, source, target) = match script.byte().is_multiple_of(2) {
            true => (Role::Sender, Source::default(), Target::at(address)),
            false => (Role::Receiver, Source::at(address), Target::default()),
        };
        let mut terms = LinkTerms::between(source, target, u64::from(script.byte()) * 64);
        let modes = [SenderSettleMode::Mixed, SenderSettleMode::Settled, SenderSettleMode::Unsettled];
        terms.snd_settle_mode = script.choose(&modes).unwrap_or(SenderSettleMode::Mixed);
        let modes = [ReceiverSettleMode::First, ReceiverSettleMode::Second];
        terms.rcv_settle_mode = script.choose(&modes).unwrap_or(ReceiverSettleMode::First);
        self.ends.attach("link-", role, terms, script);
    }

    fn send(&mut self, script: &mut Script<'_>) {
        let Some(link) = script.choose(&self.ends.links) else { return };
        let settlement = if script.byte().is_multiple_of(2) { Settlement::Settled } else { Settlement::Forgotten };
        let message_format = script.choose(&FORMATS).unwrap_or_default();
        let payload = match script.byte() {
            even if even.is_multiple_of(2) => {
                let properties =
                    Properties { to: Some("/devices/a/messages/devicebound".into()), ..Properties::default() };
                let body = Body::data(Bytes::copy_from_slice(script.bytes(4)));
                Message { properties: Some(Box::new(properties)), body, ..Message::default() }.to_bytes()
            }
            _ => Bytes::copy_from_slice(script.bytes(4)),
        };
        let tag = Bytes::from_static(b"tag");
        // Without a link there is nothing to send on.
        let _ = self.ends.client.send(link, Outgoing { tag, message_format, settlement, payload: vec![payload] });
    }

    fn settle(&mut self, script: &mut Script<'_>) {
        let index = script.index(self.ends.unsettled.len()).unwrap_or_default();
        if index < self.ends.unsettled.len() {
            let state = match script.byte() % 3 {
                0 => DeliveryState::Accepted,
                1 => DeliveryState::Released,
                _ => DeliveryState::Rejected(Box::new(proto::amqp::Rejected { error: None })),
            };
            self.ends.client.settle(self.ends.unsettled.remove(index), state);
        }
    }

    fn push(&mut self, script: &mut Script<'_>) {
        let numbers: Vec<u64> = self.present.keys().copied().collect();
        let Some((backend, _)) = script.choose(&numbers).and_then(|number| self.present.get(&number)) else { return };
        let backend = backend.clone();
        let push = match script.byte() {
            cut if cut.is_multiple_of(4) => Push::CutOff(script.choose(&CUT_OFFS).unwrap_or(CutOff::Rekeyed)),
            _ => Push::MessagesWaiting,
        };
        if matches!(push, Push::CutOff(_)) {
            // Its locks run out by themselves.
            self.cut_off.insert(backend.number);
            self.present.get_mut(&backend.number).expect("it is in").1.clear();
        }
        self.ends.session.handle_backend_push(&backend, push, self.ends.now);
    }

    fn reply(&mut self, script: &mut Script<'_>) {
        let Some(ask) = self.ends.pick(script) else { return };
        let reply = self.answer(&ask, script.byte());
        self.ends.session.handle_reply(ask.id, reply, self.ends.now);
    }

    fn answer(&mut self, ask: &Ask, how: u8) -> Result<Reply, Failure> {
        match &ask.operation {
            // Leaving does not fail.
            Operation::Backend(backend::Ask::Leave(_)) => Ok(Reply::Backend(backend::Answer::Done)),
            _ if how.is_multiple_of(4) => Err(failure(ErrorKind::Unauthorized, "Because.")),
            Operation::Backend(backend::Ask::Enter(enter)) => {
                let number = self.next();
                let hub_name = HubName::parse("hub-1").expect("a name");
                let stay = Stay { number, hub: HubKey(1), hub_name, action: enter.action, path: enter.path.clone() };
                let backend = Backend::enter(stay);
                self.present.insert(number, (backend.clone(), BTreeSet::new()));
                Ok(Reply::Backend(backend::Answer::Entered(backend)))
            }
            Operation::Backend(backend::Ask::Renew(_)) => Ok(Reply::Backend(backend::Answer::Done)),
            Operation::CloudToDevice(cloud_to_device::Ask::TakeFeedback(AtHub::Entered(backend))) => {
                let lock = self.take(backend, how)?;
                let batch = lock.map(|lock| FeedbackBatch { lock, records: vec![record()] });
                Ok(Reply::CloudToDevice(cloud_to_device::Answer::Feedback(batch)))
            }
            Operation::File(file::Ask::TakeNotification(AtHub::Entered(backend))) => {
                let lock = self.take(backend, how)?;
                let locked = lock.map(|lock| Box::new(notification(lock)));
                Ok(Reply::File(file::Answer::Notification(locked)))
            }
            Operation::File(_) => Ok(Reply::File(file::Answer::Settled)),
            Operation::CloudToDevice(cloud_to_device::Ask::Send { .. }) => {
                Ok(Reply::CloudToDevice(cloud_to_device::Answer::Sent { message_id: "m".to_owned() }))
            }
            Operation::CloudToDevice(_) => Ok(Reply::CloudToDevice(cloud_to_device::Answer::Settled)),
            _ => Ok(Reply::Session(Answer::Done)),
        }
    }

    /// The lock of something that `backend` is given, if there is anything.
    fn take(&mut self, backend: &Backend, how: u8) -> Result<Option<LockToken>, Failure> {
        let lock = LockToken::from_bits(self.next().into());
        if self.cut_off.contains(&backend.number) {
            return Err(failure(ErrorKind::Unauthorized, "Because."));
        }
        let is_something = how.is_multiple_of(2);
        if let Some((_, held)) = self.present.get_mut(&backend.number).filter(|_| is_something) {
            held.insert(lock);
            assert!(held.len() <= HELD_MAX, "more than a link may have");
        }
        Ok(is_something.then_some(lock))
    }

    fn next(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn answer_all(&mut self) {
        while let Some(ask) = self.ends.open.pop_front() {
            // Nothing waits any more.
            let reply = self.answer(&ask, 1);
            self.ends.session.handle_reply(ask.id, reply, self.ends.now);
            self.pump();
        }
    }
}

fn record() -> Feedback {
    let device = IdentityName::device(DeviceId::parse("a").expect("a name"));
    let at = UnixTime::from_seconds(1);
    Feedback { message_id: "m".to_owned(), device, generation: "1".to_owned(), outcome: Outcome::Success, at }
}

fn notification(lock: LockToken) -> LockedNotification {
    let device = IdentityName::device(DeviceId::parse("a").expect("a name"));
    let (file, at) = (FileName::parse("a/b").expect("a name"), UnixTime::from_seconds(1));
    let notification = FileNotification { device, file, bytes: 1, written_at: at, enqueued_at: at };
    LockedNotification { lock, notification, host: "h".to_owned(), container: "uploads".to_owned() }
}
