//! Devices that share an AMQP connection to a hub and do anything, while the service says anything: nothing is asked for who
//! is not let in, whoever was let in leaves once, and of what was handed out each message is settled once at most.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dialect::session::{Ask, Session as _};
use domain::cloud_to_device::{DEVICE_LOCK, Delivery};
use domain::ids::{MethodName, MethodRequestId};
use domain::method::{Payload, Waiter};
use domain::operation::cloud_to_device::{self, Receiver};
use domain::operation::identity::IdentityName;
use domain::operation::session::{Answer, ConnectedDevice, CutOff, Subscriptions};
use domain::operation::{ErrorKind, Failure, Operation, Push, Reply, method, session, telemetry, twin};
use proto::amqp::{DeliveryState, LinkTerms, Outgoing, ReceiverSettleMode, Role, Settlement, Source, Symbol, Target};

use crate::amqp_ends::{Conversation, Ends};
use crate::script::Script;
use crate::service::{delivery, failure, seat};

const ADDRESSES: [&str; 12] = [
    "$cbs",
    "/devices/a/messages/events",
    "devices/a/messages/deviceBound",
    "/devices/a/twin",
    "amqps://h:5671/devices/a/methods/devicebound",
    "/devices/b/messages/events",
    "/devices/b/twin",
    "/devices/b/modules/m/messages/events",
    "/devices/b/modules/m/twin",
    "/elsewhere",
    "/devices/b/messages/devicebound",
    "/devices/b/modules/m/methods/devicebound",
];
const CUT_OFFS: [CutOff; 4] = [CutOff::Displaced, CutOff::Disabled, CutOff::TokenExpired, CutOff::Overrun];
/// How much time goes by at once: a lock is longer, and a connection may be silent for longer.
const STEP: Duration = Duration::from_secs(7);
/// Messages that a device may have and not settle.
const HELD_MAX: usize = 50;
const FORMATS: [u32; 3] = [0, 0x8001_3700, 7];

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
    /// Who is in, by the epoch of the seat.
    seats: BTreeMap<u64, ConnectedDevice>,
    next_epoch: u64,
    /// When the locks of messages run out, by the epoch of who was given them.
    held: BTreeMap<(u64, u128), Instant>,
    next_lock: u128,
    /// Who waits for calls.
    waiters: Vec<Waiter>,
}

impl Conversation for Pair {
    fn open() -> Self {
        Self {
            ends: Ends::open("h"),
            seats: BTreeMap::new(),
            next_epoch: 1,
            held: BTreeMap::new(),
            next_lock: 1,
            waiters: Vec::new(),
        }
    }

    fn ends(&mut self) -> &mut Ends {
        &mut self.ends
    }

    fn step(&mut self, script: &mut Script<'_>) {
        match script.byte() % 11 {
            0 | 1 => self.attach(script),
            2 | 3 => self.send(script),
            4 => self.ends.detach(script),
            5 => self.reply(script),
            6 => self.push(script),
            8 => self.settle(script),
            9 => self.ends.grant(script),
            10 if script.bit() => self.pass(script),
            10 => {
                let waiter = script.index(self.waiters.len());
                waiter.map(|index| self.waiters.swap_remove(index));
            }
            _ => self.begin_again(script),
        }
    }

    fn look_at(&mut self, ask: &Ask) {
        let (Operation::Telemetry(telemetry::Ask::Send { device, .. } | telemetry::Ask::SendBatch { device, .. })
        | Operation::Twin(twin::Ask::Read(device) | twin::Ask::Report { device, .. })
        | Operation::Method(method::Ask::Respond { device, .. })
        | Operation::CloudToDevice(
            cloud_to_device::Ask::Receive { receiver: Receiver::Attached(device), .. }
            | cloud_to_device::Ask::Settle { receiver: Receiver::Attached(device), .. }
            | cloud_to_device::Ask::GiveBack(device),
        )
        | Operation::Session(
            session::Ask::Renew { device }
            | session::Ask::Subscribe { device, .. }
            | session::Ask::Announce { device, .. }
            | session::Ask::Disconnect { device },
        )) = &ask.operation
        else {
            return;
        };
        assert!(self.seats.contains_key(&device.epoch), "{} is not in: {:?}", device.name, ask.operation);
        match &ask.operation {
            Operation::Session(session::Ask::Disconnect { .. }) => {
                self.seats.remove(&device.epoch);
                self.held.retain(|(epoch, _), _| *epoch != device.epoch);
            }
            Operation::CloudToDevice(cloud_to_device::Ask::GiveBack(_)) => {
                self.held.retain(|(epoch, _), _| *epoch != device.epoch);
            }
            Operation::CloudToDevice(cloud_to_device::Ask::Settle { lock, .. }) => {
                assert!(
                    self.held.remove(&(device.epoch, lock.bits())).is_some(),
                    "{} settles what it has not",
                    device.name
                );
            }
            _ => {}
        }
    }

    /// Answers everything and takes all links away: then nobody is left, unless the connection ended.
    fn finish(mut self) {
        self.answer_all();
        self.detach_all();
        self.answer_all();
        assert!(self.seats.is_empty() || self.ends.session.closed().is_some(), "somebody stays without a link");
        self.ends.cut();
    }
}

impl Pair {
    fn answer_all(&mut self) {
        while let Some(ask) = self.ends.open.pop_front() {
            let reply = self.answer(&ask, false);
            self.ends.session.handle_reply(ask.id, reply, self.ends.now);
            self.pump();
        }
    }

    fn attach(&mut self, script: &mut Script<'_>) {
        let Some(address) = script.choose(&ADDRESSES) else { return };
        let is_sender = script.byte().is_multiple_of(2);
        let (role, source, target) = match is_sender {
            true => (Role::Sender, Source::default(), Target::at(address)),
            false => (Role::Receiver, Source::at(address), Target::default()),
        };
        let mut terms = LinkTerms::between(source, target, 0);
        let how = script.byte();
        if how.is_multiple_of(2) {
            terms.rcv_settle_mode = ReceiverSettleMode::Second;
        }
        if how.is_multiple_of(3) {
            let model_id = if how.is_multiple_of(9) { "dtmi:x;1" } else { "dtmi:x;2" };
            terms.properties.push(Symbol::from_static("com.microsoft:model-id"), model_id);
        }
        self.ends.attach("link-", role, terms, script);
    }

    fn send(&mut self, script: &mut Script<'_>) {
        let Some(link) = script.choose(&self.ends.links) else { return };
        let settlement = if script.byte().is_multiple_of(2) { Settlement::Settled } else { Settlement::Forgotten };
        let message_format = script.choose(&FORMATS).unwrap_or_default();
        let payload = vec![Bytes::copy_from_slice(script.bytes(4))];
        let tag = Bytes::from_static(b"tag");
        // Without a link there is nothing to send on.
        let _ = self.ends.client.send(link, Outgoing { tag, message_format, settlement, payload });
    }

    /// Settles something that was received.
    fn settle(&mut self, script: &mut Script<'_>) {
        let Some(index) = script.index(self.ends.unsettled.len()) else { return };
        let error = proto::amqp::Error::new(proto::amqp::condition::NOT_ALLOWED, "no");
        let states = [DeliveryState::Accepted, DeliveryState::Released, DeliveryState::rejected(error)];
        let state = script.index(states.len()).and_then(|index| states.get(index).cloned());
        self.ends.client.settle(self.ends.unsettled.swap_remove(index), state.unwrap_or(DeliveryState::Released));
    }

    /// Lets time go by, in which both ends do what they have to.
    fn pass(&mut self, script: &mut Script<'_>) {
        self.ends.now += STEP * u32::try_from(script.number(1, 10)).expect("it is small");
        self.ends.client.handle_timeout(self.ends.now);
        self.ends.session.handle_timeout(self.ends.now);
        assert!(
            self.ends.session.poll_timeout().is_none_or(|at| at > self.ends.now)
                || self.ends.session.closed().is_some(),
            "a driver would spin"
        );
    }

    fn push(&mut self, script: &mut Script<'_>) {
        let devices: Vec<u64> = self.seats.keys().copied().collect();
        let Some(device) = script.choose(&devices).and_then(|epoch| self.seats.get(&epoch).cloned()) else { return };
        let push = match script.byte() {
            cut if cut.is_multiple_of(8) => Push::CutOff(script.choose(&CUT_OFFS).unwrap_or(CutOff::Disabled)),
            waiting if waiting.is_multiple_of(3) => Push::MessagesWaiting,
            call if call.is_multiple_of(5) => {
                let waiter = Waiter::new();
                let Ok(name) = MethodName::parse("m") else { return };
                let request = waiter.request(MethodRequestId::from_bits(u128::from(call)), name, Payload::NULL);
                self.waiters.push(waiter);
                Push::Method(request)
            }
            version => Push::Desired(twin::DesiredChange { version: u64::from(version), patch: Arc::default() }),
        };
        self.ends.session.handle_push(&device, push, self.ends.now);
    }

    fn reply(&mut self, script: &mut Script<'_>) {
        let Some(ask) = self.ends.pick(script) else { return };
        let reply = self.answer(&ask, script.byte().is_multiple_of(4));
        self.ends.session.handle_reply(ask.id, reply, self.ends.now);
    }

    fn answer(&mut self, ask: &Ask, fails: bool) -> Result<Reply, Failure> {
        match &ask.operation {
            // Leaving does not fail.
            Operation::Session(session::Ask::Disconnect { .. }) => Ok(Reply::Session(Answer::Done)),
            _ if fails => Err(failure(ErrorKind::Unauthorized, "Because.")),
            Operation::Session(session::Ask::Announce { device, model_id }) => {
                Ok(Reply::Session(Answer::Announced(device.announcing(model_id))))
            }
            Operation::Session(session::Ask::Connect(connect)) => {
                let device = self.seat(connect.claimed.clone());
                let subscriptions = Subscriptions::default();
                Ok(Reply::Session(Answer::Connected { device, subscriptions, session_present: false }))
            }
            Operation::Session(_) => Ok(Reply::Session(Answer::Done)),
            Operation::Telemetry(_) => Ok(Reply::Telemetry(telemetry::Answer::Stored)),
            Operation::Method(_) => Ok(Reply::Method(method::Answer::Noted)),
            Operation::CloudToDevice(cloud_to_device::Ask::Receive { receiver, limit }) => {
                Ok(Reply::CloudToDevice(cloud_to_device::Answer::Received(self.hand_out(receiver, *limit))))
            }
            Operation::CloudToDevice(_) => Ok(Reply::CloudToDevice(cloud_to_device::Answer::Settled)),
            Operation::Twin(twin::Ask::Report { .. }) => Ok(Reply::Twin(twin::Answer::Reported { version: 2 })),
            _ => Ok(Reply::Twin(twin::Answer::Document(serde_json::Map::new()))),
        }
    }

    /// Messages for whoever asks, as the store would: none once it has left.
    fn hand_out(&mut self, receiver: &Receiver, limit: usize) -> Vec<Delivery> {
        let Receiver::Attached(device) = receiver else { return Vec::new() };
        if !self.seats.contains_key(&device.epoch) {
            return Vec::new();
        }
        let locks = self.next_lock..self.next_lock + limit as u128;
        self.next_lock = locks.end;
        let now = self.ends.now;
        self.held.extend(locks.clone().map(|lock| ((device.epoch, lock), now + DEVICE_LOCK)));
        let given = self.held.range((device.epoch, 0)..=(device.epoch, u128::MAX));
        let held = given.filter(|(_, until)| **until > now).count();
        assert!(held <= HELD_MAX, "{} has {held} messages", device.name);
        locks.map(delivery).collect()
    }

    fn seat(&mut self, name: IdentityName) -> ConnectedDevice {
        assert!(self.seats.values().all(|seat| seat.name != name), "{name} is let in twice");
        let epoch = self.next_epoch;
        self.next_epoch += 1;
        let device = seat(name, epoch);
        self.seats.insert(epoch, device.clone());
        device
    }
}
