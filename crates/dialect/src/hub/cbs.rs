//! Claims-based security: tokens that are put into a connection through `$cbs` (`contract/hub-device.md 4.3`,
//! `contract/hub-service.md 9.2`).
//!
//! What a token is good for is the service's to know, and by the text of the token; the `name` beside it is not looked at.
//! Start at [`Request::parse`] for the grammar, at [`Cbs`] for what a connection keeps.

use std::collections::BTreeMap;

use domain::ids::{DeviceId, InvalidName, ModuleId};
use domain::operation::identity::IdentityName;
use domain::operation::session::{Ask, Verify};
use domain::operation::{ErrorKind, Failure, Lane, Operation, Reply};
use domain::sas::SasToken;
use proto::amqp::{Attach, Body, Delivery, LinkId, Message, MessageId, SessionId, Value};

use super::exchange::{Exchange, response};
use crate::amqp::Port;
use crate::error::{self, Refused};
use crate::session::AskId;

/// The node that takes tokens.
pub const NODE: &str = "$cbs";
/// The type of a shared access signature; clients that bring another kind of token say so.
const SAS_TYPE: &str = "servicebus.windows.net:sastoken";

/// Most tokens that a connection keeps; gateways put one for each of their devices.
pub const TOKENS_MAX: usize = 2_048;
/// Longest request, in bytes; a token takes up to [`SasToken::BYTES_MAX`].
const REQUEST_BYTES_MAX: u64 = 16 * 1024;
/// Requests that a connection may have judged at once before nothing more is read; nobody has proved anything by one.
const JUDGED_MAX: usize = 64;
/// Bytes of those requests.
const JUDGED_BYTES_MAX: usize = 256 * 1024;

/// What was asked at `$cbs`.
#[derive(Debug)]
pub struct Request {
    /// Names the request; the answer repeats it in its own type.
    pub message_id: Option<MessageId>,
    /// The token, or why it is not looked at.
    pub token: Result<PutToken, Refused>,
}

/// A token, and for whom it is meant.
#[derive(Clone, Debug)]
pub struct PutToken {
    /// The host that it names.
    pub host: String,
    /// The one identity it names; `None` for a policy's token for the whole hub.
    pub scope: Option<IdentityName>,
    /// The token, unverified.
    pub token: SasToken,
}

impl Request {
    /// Takes a message to `$cbs` apart.
    pub fn parse(message: &Message) -> Self {
        Self { message_id: message.message_id().cloned(), token: parse_token(message) }
    }
}

fn parse_token(message: &Message) -> Result<PutToken, Refused> {
    let property = |name| message.application_properties.find(name).and_then(Value::as_str);
    if property("operation") != Some("put-token") {
        return Err(Refused::new(ErrorKind::InvalidArgument, "The operation is not put-token."));
    }
    if property("type") != Some(SAS_TYPE) {
        return Err(Refused::new(ErrorKind::InvalidArgument, "The type of the token is not known."));
    }
    let Body::Value(Value::String(text)) = &message.body else {
        return Err(Refused::new(ErrorKind::InvalidArgument, "The body is no string."));
    };
    PutToken::parse(text)
}

impl PutToken {
    /// Reads a token and finds whom it names.
    pub fn parse(text: &str) -> Result<Self, Refused> {
        let unauthorized = || Refused::new(ErrorKind::Unauthorized, "The token was refused.");
        let token = SasToken::parse(text).map_err(|_| unauthorized())?;
        let (host, path) = token.segments();
        let scope = find_scope(&path).map_err(|_| unauthorized())?;
        if scope.is_none() && token.policy().is_none() {
            return Err(unauthorized());
        }
        Ok(Self { host, scope, token })
    }

    /// Whether the token is meant for `identity` on the hub: for it, for its device, or for everybody.
    pub fn is_for(&self, identity: &IdentityName) -> bool {
        let Some(scope) = &self.scope else { return true };
        scope.device == identity.device && (scope.module.is_none() || scope.module == identity.module)
    }

    /// Whether `newer` is for the same. Tokens that name nobody are told apart by what they cover: Node puts one for every
    /// partition that it reads.
    fn is_replaced_by(&self, newer: &Self) -> bool {
        let is_same = |one: &str, other: &str| one.eq_ignore_ascii_case(other);
        self.host == newer.host
            && self.scope == newer.scope
            && (self.scope.is_some() || is_same(self.token.resource(), newer.token.resource()))
    }
}

/// Whom the path of a resource names; `None` for nobody in particular. A fourth segment other than `modules` is noise
/// (`contract/hub-device.md 6.1`).
fn find_scope(path: &[&str]) -> Result<Option<IdentityName>, InvalidName> {
    let ["devices", device, rest @ ..] = path else { return Ok(None) };
    let module = match rest {
        ["modules", module, ..] => Some(ModuleId::parse(module)?),
        _ => None,
    };
    Ok(Some(IdentityName { device: DeviceId::parse(device)?, module }))
}

/// The request to take `token`, which is for `audience`.
pub fn request(audience: &str, token: &str) -> Message {
    let said = [("operation", "put-token"), ("type", SAS_TYPE), ("name", audience)];
    Message {
        application_properties: said.into_iter().collect(),
        body: Body::Value(token.into()),
        ..Message::default()
    }
}

/// The answer to a request that was granted.
pub fn granted(message_id: Option<MessageId>) -> Message {
    response(message_id, (200, "OK"), Value::Null)
}

/// The answer to a request that was not understood.
pub fn refused(message_id: Option<MessageId>, refused: &Refused) -> Message {
    response(message_id, (error::spelling(refused.kind).status, &refused.public), Value::Null)
}

/// The answer to a request whose token was refused.
pub fn failed(message_id: Option<MessageId>, failure: &Failure) -> Message {
    response(message_id, (error::spelling(failure.kind).status, &failure.public), Value::Null)
}

/// The tokens of a connection, and its links to `$cbs`. Tokens belong to all sessions.
#[derive(Debug, Default)]
pub struct Cbs {
    exchange: Exchange,
    tokens: Vec<PutToken>,
    /// What is judged, by its ask.
    judged: BTreeMap<AskId, Judged>,
    /// Bytes of it.
    judged_bytes: usize,
}

#[derive(Debug)]
struct Judged {
    link: LinkId,
    message_id: Option<MessageId>,
    put: PutToken,
    /// How long the request was.
    bytes: usize,
}

impl Cbs {
    /// Whether tokens come on `link`.
    pub fn owns(&self, link: LinkId) -> bool {
        self.exchange.owns(link)
    }

    /// Whether a token was found good.
    pub fn has_tokens(&self) -> bool {
        !self.tokens.is_empty()
    }

    /// Whether so much is judged that nothing more is to be read.
    pub fn is_full(&self) -> bool {
        self.judged.len() >= JUDGED_MAX || self.judged_bytes >= JUDGED_BYTES_MAX
    }

    /// Whether `id` is an ask of this node.
    pub fn has_asked(&self, id: AskId) -> bool {
        self.judged.contains_key(&id)
    }

    /// The token that speaks for `identity`; the one meant for it alone before the one meant for everybody.
    pub fn token_for(&self, identity: &IdentityName) -> Option<&PutToken> {
        let fitting = self.tokens.iter().filter(|put| put.is_for(identity));
        fitting.max_by_key(|put| match &put.scope {
            None => 0,
            Some(scope) if scope == identity => 2,
            Some(_) => 1,
        })
    }

    /// The token that speaks for a policy of the hub: the one kept last of those that name no device.
    pub fn policy_token(&self) -> Option<&PutToken> {
        self.tokens.iter().rev().find(|put| put.scope.is_none())
    }

    /// The latest token for nobody in particular that covers `path`, as readers of telemetry bring them.
    pub fn token_covering(&self, path: &[&str]) -> Option<&PutToken> {
        let mut policies = self.tokens.iter().rev().filter(|put| put.scope.is_none());
        policies.find(|put| put.token.covers_in_any_case(path))
    }

    /// Keeps a token that was found good, in the place of an earlier one for the same. If there is no room, the one kept
    /// longest is forgotten that names somebody and `is_needed` by nobody; `false` if there is none.
    pub fn keep(&mut self, put: PutToken, is_needed: impl Fn(&PutToken) -> bool) -> bool {
        let earlier = self.tokens.iter().position(|kept| kept.is_replaced_by(&put));
        let is_full = || self.tokens.len() >= TOKENS_MAX;
        let needless = || self.tokens.iter().position(|kept| kept.scope.is_some() && !is_needed(kept));
        match earlier {
            None if is_full() => match needless() {
                None => return false,
                Some(needless) => self.tokens.remove(needless),
            },
            None => return self.push_token(put),
            Some(earlier) => self.tokens.remove(earlier),
        };
        self.push_token(put)
    }

    /// Accepts a link to `$cbs`; nobody has to have proved anything.
    pub fn attach(&mut self, link: (LinkId, SessionId), attach: &Attach, port: &mut Port<'_>) {
        self.exchange.attach(link, attach, REQUEST_BYTES_MAX, port);
    }

    /// Takes a request.
    pub fn deliver(&mut self, delivery: &Delivery, port: &mut Port<'_>) {
        let link = delivery.link;
        let Ok(message) = Exchange::take(delivery, port) else {
            let unreadable = Refused::new(ErrorKind::InvalidArgument, "The request cannot be read.");
            return self.exchange.answer(link, refused(None, &unreadable), port);
        };
        let Request { message_id, token } = Request::parse(&message);
        match token {
            Ok(put) => {
                let verify = Verify { host: put.host.clone(), scope: put.scope.clone() };
                let operation = Operation::Session(Ask::Verify(Box::new(verify)));
                let ask = port.ask_with(Some(put.token.clone()), operation, Lane::Serial);
                let bytes = delivery.payload.len();
                self.judged_bytes += bytes;
                self.judged.insert(ask, Judged { link, message_id, put, bytes });
            }
            Err(reason) => self.exchange.answer(link, refused(message_id, &reason), port),
        }
    }

    /// Answers a request that was judged; gives the token if it is good. Of those kept, some are needed by who is here.
    pub fn handle_reply(
        &mut self,
        (id, reply): (AskId, Result<Reply, Failure>),
        is_needed: impl Fn(&PutToken) -> bool,
        port: &mut Port<'_>,
    ) -> Option<PutToken> {
        let Judged { link, message_id, put, bytes } = self.judged.remove(&id)?;
        self.judged_bytes -= bytes;
        let (answer, good) = match reply {
            Ok(_) if self.keep(put.clone(), is_needed) => (granted(message_id), Some(put)),
            Ok(_) => {
                let full = Refused::new(ErrorKind::QuotaExceeded, "The connection holds as many tokens as it may.");
                (refused(message_id, &full), None)
            }
            Err(failure) => (failed(message_id, &failure), None),
        };
        self.exchange.answer(link, answer, port);
        good
    }

    /// Sends the answers for which there is room.
    pub fn flush(&mut self, port: &mut Port<'_>) {
        self.exchange.flush(port);
    }

    fn push_token(&mut self, put: PutToken) -> bool {
        self.tokens.push(put);
        true
    }

    /// Forgets a link that is over.
    pub fn forget_link(&mut self, link: LinkId) {
        self.exchange.forget_link(link);
    }

    /// Forgets the links of a session that is over.
    pub fn forget_session(&mut self, session: SessionId) {
        self.exchange.forget_session(session);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNATURE: &str = "sig=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA%3D&se=1795224005";

    fn put(properties: &[(&str, &str)], body: Body) -> Message {
        let properties = properties.iter().map(|(name, value)| (*name, *value)).collect();
        Message { application_properties: properties, body, ..Message::default() }
    }

    fn token(resource: &str) -> Body {
        Body::Value(format!("SharedAccessSignature sr={resource}&{SIGNATURE}").into())
    }

    const PUT: [(&str, &str); 2] = [("operation", "put-token"), ("type", SAS_TYPE)];

    #[test]
    fn a_token_is_for_whom_its_resource_names() {
        let cases: &[(&str, &str, Option<&str>)] = &[
            ("a device, as C writes it", "hub/devices/dev1", Some("dev1")),
            ("a device, as Node writes it", "127.0.0.9%2Fdevices%2Fdev1", Some("dev1")),
            ("a module", "hub%2Fdevices%2Fd%2Fmodules%2Fm", Some("d/m")),
            ("with a tail", "hub%2Fdevices%2Fd%2Fapi-version%3D2016-11-14", Some("d")),
            ("a policy for the hub", "hub&skn=device", None),
            ("a policy for a device", "hub%2Fdevices%2Fd&skn=device", Some("d")),
        ];
        for (name, resource, scope) in cases {
            let request = Request::parse(&put(&PUT, token(resource)));
            let put = request.token.unwrap_or_else(|refused| panic!("{name}: {refused}"));
            assert_eq!(put.scope.map(|scope| scope.to_string()).as_deref(), *scope, "{name}");
        }
    }

    #[test]
    fn a_token_of_a_device_is_for_its_modules_too() {
        let name = |device, module: Option<&str>| IdentityName {
            device: DeviceId::parse(device).unwrap(),
            module: module.map(|module| ModuleId::parse(module).unwrap()),
        };
        let put = |resource: &str| Request::parse(&put(&PUT, token(resource))).token.unwrap();
        let cases = [
            ("hub/devices/d", name("d", None), true),
            ("hub/devices/d", name("d", Some("m")), true),
            ("hub/devices/d", name("D", None), false),
            ("hub/devices/d/modules/m", name("d", Some("m")), true),
            ("hub/devices/d/modules/m", name("d", None), false),
            ("hub/devices/d/modules/m", name("d", Some("n")), false),
            ("hub&skn=device", name("d", Some("n")), true),
        ];
        for (resource, identity, expected) in cases {
            assert_eq!(put(resource).is_for(&identity), expected, "{resource} for {identity}");
        }
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let bad = |status| (status, 400);
        let cases: &[(&str, Message, (&str, u16))] = &[
            ("no operation", put(&PUT[1..], token("hub/devices/d")), bad("The operation is not put-token.")),
            ("no type", put(&PUT[..1], token("hub/devices/d")), bad("The type of the token is not known.")),
            ("no body", put(&PUT, Body::Empty), bad("The body is no string.")),
            ("bytes", put(&PUT, Body::data("SharedAccessSignature")), bad("The body is no string.")),
            ("another text", put(&PUT, Body::Value("x".into())), ("The token was refused.", 401)),
            ("no name of a device", put(&PUT, token("hub/devices/a b")), ("The token was refused.", 401)),
            ("a device's token for the hub", put(&PUT, token("hub")), ("The token was refused.", 401)),
        ];
        for (name, message, (public, status)) in cases {
            let refused = Request::parse(message).token.unwrap_err();
            assert_eq!((&*refused.public, error::spelling(refused.kind).status), (*public, *status), "{name}");
        }
    }

    #[test]
    fn a_request_that_is_written_is_read_as_it_was() {
        let token = format!("SharedAccessSignature sr=sb%3A%2F%2F127.0.0.9%2Fhub&{SIGNATURE}&skn=service");
        let put = Request::parse(&request("sb://127.0.0.9/hub", &token)).token.unwrap();
        assert_eq!((put.host.as_str(), put.token.resource()), ("127.0.0.9", "sb://127.0.0.9/hub"));
    }

    #[test]
    fn an_answer_repeats_the_name_of_the_request_in_its_own_type() {
        for id in [MessageId::Ulong(0), MessageId::Uuid([7; 16]), MessageId::String("a".into())] {
            let answer = Message::decode(&granted(Some(id.clone())).to_bytes()).unwrap();
            assert_eq!(answer.correlation_id(), Some(&id));
            assert_eq!(answer.application_properties.find("status-code"), Some(&Value::Int(200)));
            assert_eq!(answer.application_properties.find("status-description"), Some(&Value::from("OK")));
        }
    }
}
