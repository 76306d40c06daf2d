//! A device that registers over AMQP and does anything, while the service says anything: what is asked is asked for the
//! registration that the connection is for, and of each request the device hears once.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use dialect::session::{Ask, Session as _};
use domain::ids::{OperationId, RegistrationId};
use domain::operation::registration::Answer;
use domain::operation::{ErrorKind, Operation, Reply};
use proto::amqp::{
    Body, Event, LinkTerms, Map, Message, MessageId, Outgoing, Properties, Role, SenderSettleMode, Settlement, Source,
    Target, Value,
};

use crate::amqp_ends::{Conversation, Ends};
use crate::script::Script;
use crate::service::failure;

const ADDRESSES: [&str; 5] = [
    "0ne00000001/registrations/dev-1",
    "amqps://127.0.0.1:5671/0NE00000001/Registrations/DEV-1",
    "0ne00000001/registrations/dev-2",
    "/0ne00000001/registrations/",
    "$cbs",
];
const OPERATIONS: [&str; 4] =
    ["iotdps-register", "iotdps-get-operationstatus", "iotdps-get-registration", "iotdps-other"];
const KINDS: [ErrorKind; 4] =
    [ErrorKind::Unauthorized, ErrorKind::Throttled, ErrorKind::InvalidArgument, ErrorKind::Internal];
/// Longer than an answer is held back.
const PAUSE: Duration = Duration::from_millis(200);

/// Reads `input` as a script: a byte for what is done, and what it takes.
///
/// # Panics
/// When a promise of [`dialect::amqp::Session`] is broken.
pub fn check(input: &[u8]) {
    Pair::play(input);
}

/// A client's end, and the session.
struct Pair {
    ends: Ends,
    /// Whether a link was attached.
    has_name: bool,
    /// Requests sent, which names each, and those of which an outcome came.
    sent: u64,
    told: BTreeSet<Bytes>,
}

impl Conversation for Pair {
    fn open() -> Self {
        Self { ends: Ends::open("127.0.0.1"), has_name: false, sent: 0, told: BTreeSet::new() }
    }

    fn ends(&mut self) -> &mut Ends {
        &mut self.ends
    }

    fn step(&mut self, script: &mut Script<'_>) {
        match script.byte() % 7 {
            0 => self.attach(script),
            1 | 2 => self.send(script),
            3 => self.ends.detach(script),
            4 => self.reply(script),
            5 => self.pass(),
            _ => self.begin_again(script),
        }
    }

    fn notice(&mut self, event: &Event) {
        if let Event::Outcome { tag, .. } = event {
            assert!(self.told.insert(tag.clone()), "a request is told of twice");
        }
    }

    fn look_at(&mut self, ask: &Ask) {
        let Operation::Registration(asked) = &ask.operation else { panic!("{:?}", ask.operation) };
        let name = (asked.id_scope.to_ascii_lowercase(), asked.registration_id.to_ascii_lowercase());
        assert!(name.0 == "0ne00000001" && name.1.starts_with("dev-"), "{name:?} was never named");
    }

    fn finish(mut self) {
        while let Some(ask) = self.ends.open.pop_front() {
            self.ends.session.handle_reply(ask.id, Err(failure(ErrorKind::Unavailable, "Because.")), self.ends.now);
            self.pump();
        }
        self.pass();
        self.pump();
        self.ends.cut();
    }
}

impl Pair {
    fn pass(&mut self) {
        self.ends.now += PAUSE;
        self.ends.session.handle_timeout(self.ends.now);
    }

    fn attach(&mut self, script: &mut Script<'_>) {
        let Some(address) = script.choose(&ADDRESSES) else { return };
        // The first address makes the connection a provisioning service's.
        let address = if std::mem::replace(&mut self.has_name, true) { address } else { ADDRESSES[0] };
        let choices = script.byte();
        let (role, source, target) = match choices.is_multiple_of(2) {
            true => (Role::Sender, Source::default(), Target::at(address)),
            false => (Role::Receiver, Source::at(address), Target::default()),
        };
        let mut terms = LinkTerms::between(source, target, 0);
        if choices.is_multiple_of(3) {
            terms.snd_settle_mode = SenderSettleMode::Unsettled;
        }
        let begin = if choices.is_multiple_of(5) { "provision_" } else { "link-" };
        self.ends.attach(begin, role, terms, script);
    }

    fn send(&mut self, script: &mut Script<'_>) {
        let Some(link) = script.choose(&self.ends.links) else { return };
        let payload = match script.byte() % 4 {
            0 => Bytes::copy_from_slice(script.bytes(1)),
            _ => request(script).to_bytes(),
        };
        self.sent += 1;
        let tag = Bytes::copy_from_slice(&self.sent.to_be_bytes());
        let message_format = u32::from(script.byte().is_multiple_of(16));
        let settlement = Settlement::Unsettled;
        // Without a link there is nothing to send on.
        let _ = self.ends.client.send(link, Outgoing { tag, message_format, settlement, payload: vec![payload] });
    }

    fn reply(&mut self, script: &mut Script<'_>) {
        let Some(ask) = self.ends.pick(script) else { return };
        let (operation, retry_after_s) =
            (OperationId::parse("5.0000000000000001.00000000-0000-0000-0000-000000000001"), 3);
        let reply = match (script.byte() % 3, operation, RegistrationId::parse("dev-1")) {
            (0, Some(operation), _) => Ok(Answer::Accepted { operation, retry_after_s }),
            (1, Some(operation), Ok(registration_id)) => {
                Ok(Answer::Assigning { operation, registration_id, retry_after_s })
            }
            _ => Err(failure(script.choose(&KINDS).unwrap_or(ErrorKind::Internal), "Because.")),
        };
        self.ends.session.handle_reply(ask.id, reply.map(Reply::Registration), self.ends.now);
    }
}

/// A request of which nearly everything is as it should be.
fn request(script: &mut Script<'_>) -> Message {
    let mut properties = Map::EMPTY;
    properties.push("iotdps-operation-type", script.choose(&OPERATIONS).unwrap_or_default());
    if script.byte().is_multiple_of(2) {
        properties.push("iotdps-operation-id", "5.1.2");
    }
    let bytes = Bytes::copy_from_slice(script.bytes(1));
    let body = match script.byte() % 5 {
        0 => Body::Empty,
        1 => Body::data("{\"registrationId\":\"dev-1\"}"),
        2 => Body::data(bytes),
        3 => Body::Value(Value::Binary(bytes)),
        _ => Body::Sequences(vec![vec![]]),
    };
    let correlation_id = script.byte().is_multiple_of(2).then(|| MessageId::Ulong(7));
    let properties_of = Properties { correlation_id, ..Properties::default() };
    Message {
        properties: Some(Box::new(properties_of)),
        application_properties: properties,
        body,
        ..Message::default()
    }
}
