//! Endpoints beside the built-in one: webhooks, NATS subjects, AMQP addresses, and the secrets they need.
//!
//! What is written is read once, into parts; secrets stay in [`SecretText`]. A secret comes back as [`MASK`] from clients
//! that were shown it so, and then stands for the one that is kept, as long as it goes to the same place.

use std::fmt::{self, Write as _};

use serde_json::{Map, Value};

use super::OwnKind;
use crate::ids::EndpointName;

/// What is shown in the place of a secret.
pub const MASK: &str = "****";
/// Longest address of an endpoint.
const URL_BYTES_MAX: usize = 2_048;
/// Most headers of a webhook.
const HEADERS_MAX: usize = 20;
/// Longest secret.
const SECRET_BYTES_MAX: usize = 8 * 1_024;
/// Longest text of certificates that an endpoint is trusted by.
const AUTHORITY_BYTES_MAX: usize = 64 * 1_024;
/// Headers that the sender sets itself, or that would change how a request is read.
const HEADERS_TAKEN: [&str; 12] = [
    "content-type",
    "content-length",
    "content-encoding",
    "host",
    "transfer-encoding",
    "te",
    "trailer",
    "expect",
    "connection",
    "proxy-connection",
    "keep-alive",
    "upgrade",
];

/// A text that is never printed. Serialised to be sealed, and nowhere else.
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, zeroize::ZeroizeOnDrop)]
#[serde(transparent)]
pub struct SecretText(String);

impl SecretText {
    /// Wraps `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text; the caller takes over the duty not to print it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether it stands for one that is kept.
    fn is_masked(&self) -> bool {
        !self.0.is_empty() && self.0.bytes().all(|byte| byte == b'*')
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(..)")
    }
}

/// An endpoint.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Endpoint {
    /// Its name.
    pub name: EndpointName,
    /// Where it is.
    pub target: Target,
    /// What else the operator wrote, echoed.
    pub labels: Map<String, Value>,
}

/// Where an endpoint is, and what is spoken there.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub enum Target {
    /// CloudEvents over HTTP.
    Webhook(Webhook),
    /// CloudEvents over NATS.
    Nats(NatsSubject),
    /// Messages over AMQP 1.0.
    Amqp(AmqpAddress),
}

/// A server that takes CloudEvents by POST.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Webhook {
    /// Where; `http` or `https`.
    pub url: Url,
    /// How many events a request has.
    pub mode: WebhookMode,
    /// Headers to send; their values are secrets.
    pub headers: Vec<(String, SecretText)>,
    /// Certificates (PEM) that vouch for the server, instead of those that the system trusts.
    pub authority: Option<String>,
}

/// How many events a request has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum WebhookMode {
    /// One (CloudEvents, HTTP binding 3.2).
    Single,
    /// Several (CloudEvents, HTTP binding 3.3).
    Batch,
}

/// A subject of a NATS server.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct NatsSubject {
    /// Where; `nats` or `tls`.
    pub url: Url,
    /// The subject.
    pub subject: String,
    /// Whether a stream has to keep each message before it counts as delivered.
    pub stream: bool,
    /// User, if the server wants one.
    pub user: Option<String>,
    /// Password of the user, or a token if there is none.
    pub secret: Option<SecretText>,
    /// As of webhooks.
    pub authority: Option<String>,
}

/// An address of an AMQP 1.0 container.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct AmqpAddress {
    /// As what the operator wrote it.
    pub kind: AmqpKind,
    /// Where; `amqp` or `amqps`. Its path is nothing.
    pub url: Url,
    /// The address of the link's target.
    pub address: String,
    /// User or policy; anonymous without one.
    pub user: Option<String>,
    /// Password or key.
    pub secret: Option<SecretText>,
    /// As of webhooks.
    pub authority: Option<String>,
}

/// As what an AMQP address was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum AmqpKind {
    /// An event hub.
    EventHub,
    /// A queue of a service bus.
    Queue,
    /// A topic of a service bus.
    Topic,
    /// Any container.
    Container,
}

/// An address with a scheme, taken apart. What clients would read in different ways is refused.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Url {
    /// The scheme, in small letters.
    pub scheme: String,
    /// Host name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Path and query, beginning with a slash.
    pub path: String,
}

/// Why an endpoint cannot be as it is written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEndpoint {
    /// The address cannot be read.
    #[error("its address is not of the form {form}, without user and password")]
    Url {
        /// How it is written.
        form: &'static str,
    },
    /// A part is too long, or there are too many.
    #[error("{what} is longer than {most}")]
    TooLong {
        /// Which.
        what: &'static str,
        /// The most there can be.
        most: usize,
    },
    /// A header that cannot be sent.
    #[error("{name:?} is not a header that can be set")]
    Header {
        /// Its name.
        name: String,
    },
    /// The value of a header, user, subject or address has characters that it cannot have.
    #[error("{what} has a character that cannot stand there")]
    Character {
        /// Which.
        what: &'static str,
    },
    /// The connection string lacks a part.
    #[error("its connection string has no {part}")]
    Missing {
        /// Which.
        part: &'static str,
    },
    /// A masked secret without one that is kept for this place.
    #[error("its secret is masked: with another address or user it has to be given again")]
    Masked,
}

impl Target {
    /// The kind, if it is one that Azure has not.
    pub fn own_kind(&self) -> Option<OwnKind> {
        match self {
            Self::Webhook(_) => Some(OwnKind::Webhook),
            Self::Nats(_) => Some(OwnKind::Nats),
            Self::Amqp(amqp) => (amqp.kind == AmqpKind::Container).then_some(OwnKind::Container),
        }
    }
}

impl Endpoint {
    /// Checks the endpoint and puts kept secrets in the place of masked ones.
    pub(super) fn settle(&mut self, present: Option<&Self>) -> Result<(), InvalidEndpoint> {
        let present = present.map(|endpoint| &endpoint.target);
        match (&mut self.target, present) {
            (Target::Webhook(webhook), present) => webhook.settle(match present {
                Some(Target::Webhook(present)) => Some(present),
                _ => None,
            }),
            (Target::Nats(nats), present) => nats.settle(match present {
                Some(Target::Nats(present)) => Some(present),
                _ => None,
            }),
            (Target::Amqp(amqp), present) => amqp.settle(match present {
                Some(Target::Amqp(present)) => Some(present),
                _ => None,
            }),
        }
    }
}

impl Webhook {
    fn settle(&mut self, present: Option<&Self>) -> Result<(), InvalidEndpoint> {
        check_authority(self.authority.as_deref())?;
        if self.headers.len() > HEADERS_MAX {
            return Err(InvalidEndpoint::TooLong { what: "the list of headers", most: HEADERS_MAX });
        }
        let kept = present.filter(|present| present.url.is_same_server(&self.url));
        for (name, value) in &mut self.headers {
            let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            let is_taken = HEADERS_TAKEN.iter().any(|taken| taken.eq_ignore_ascii_case(name));
            if is_taken || name.is_empty() || !name.bytes().all(is_token) {
                return Err(InvalidEndpoint::Header { name: name.clone() });
            }
            let of_name = kept.and_then(|kept| kept.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)));
            settle_secret(Some(value), of_name.map(|(_, value)| value))?;
            if value.0.chars().any(|found| found.is_control() || !found.is_ascii()) {
                return Err(InvalidEndpoint::Character { what: "the value of a header" });
            }
        }
        Ok(())
    }
}

impl NatsSubject {
    fn settle(&mut self, present: Option<&Self>) -> Result<(), InvalidEndpoint> {
        check_authority(self.authority.as_deref())?;
        let is_word = |word: &str| !word.is_empty() && !word.contains(['*', '>']);
        let is_subject = self.subject.len() <= 256
            && self.subject.bytes().all(|byte| byte.is_ascii_graphic())
            && self.subject.split('.').all(is_word);
        if !is_subject {
            return Err(InvalidEndpoint::Character { what: "the subject" });
        }
        check_user(self.user.as_deref())?;
        let kept = present.filter(|present| present.url.is_same_server(&self.url) && present.user == self.user);
        settle_secret(self.secret.as_mut(), kept.and_then(|kept| kept.secret.as_ref()))
    }
}

impl AmqpAddress {
    fn settle(&mut self, present: Option<&Self>) -> Result<(), InvalidEndpoint> {
        check_authority(self.authority.as_deref())?;
        check_user(self.user.as_deref())?;
        if self.address.is_empty() || self.address.len() > 1_024 || self.address.chars().any(char::is_control) {
            return Err(InvalidEndpoint::Missing { part: "address of one character or more, such as EntityPath" });
        }
        let kept = present.filter(|present| present.url.is_same_server(&self.url) && present.user == self.user);
        settle_secret(self.secret.as_mut(), kept.and_then(|kept| kept.secret.as_ref()))
    }

    /// Reads a connection string: `Endpoint=sb://…;SharedAccessKeyName=…;SharedAccessKey=…;EntityPath=…`, or
    /// `amqps://user:password@host:port/address`. `entity` is used where it names no address.
    pub fn parse(kind: AmqpKind, text: &str, entity: Option<&str>) -> Result<Self, InvalidEndpoint> {
        if kind == AmqpKind::Container { Self::parse_url(text) } else { Self::parse_parts(kind, text, entity) }
    }

    fn parse_url(text: &str) -> Result<Self, InvalidEndpoint> {
        const FORM: &str = "amqps://user:password@host:port/address, or amqp://";
        let wrong = InvalidEndpoint::Url { form: FORM };
        let (scheme, rest) = text.split_once("://").ok_or(wrong.clone())?;
        let (authority, address) = rest.split_once('/').unwrap_or((rest, ""));
        let (credential, server) = match authority.rsplit_once('@') {
            Some((credential, server)) => (Some(credential), server),
            None => (None, authority),
        };
        let url = Url::parse(&format!("{scheme}://{server}"), &[("amqps", 5671), ("amqp", 5672)], FORM)?;
        let decoded = |part: &str| percent_decoded(part).ok_or(wrong.clone());
        let (user, secret) = match credential.map(|credential| credential.split_once(':').unwrap_or((credential, ""))) {
            Some((user, secret)) => (Some(decoded(user)?), Some(SecretText(decoded(secret)?))),
            None => (None, None),
        };
        Ok(Self { kind: AmqpKind::Container, url, address: decoded(address)?, user, secret, authority: None })
    }

    fn parse_parts(kind: AmqpKind, text: &str, entity: Option<&str>) -> Result<Self, InvalidEndpoint> {
        const FORM: &str = "Endpoint=sb://host/";
        let part = |name: &str| {
            let mut parts = text.split(';').filter_map(|part| part.split_once('='));
            parts.find(|(key, _)| key.trim().eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
        };
        let missing = |part| InvalidEndpoint::Missing { part };
        let endpoint = part("Endpoint").ok_or(missing("Endpoint"))?;
        let is_plain = part("UseDevelopmentEmulator").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let (scheme, port) = if is_plain { ("amqp", 5672) } else { ("amqps", 5671) };
        let url = Url::parse(&endpoint, &[("sb", port)], FORM)?;
        let user = part("SharedAccessKeyName").ok_or(missing("SharedAccessKeyName"))?;
        let secret = part("SharedAccessKey").ok_or(missing("SharedAccessKey"))?;
        let address = part("EntityPath").or_else(|| entity.map(str::to_owned)).ok_or(missing("EntityPath"))?;
        Ok(Self {
            kind,
            url: Url { scheme: scheme.to_owned(), path: "/".to_owned(), ..url },
            address,
            user: Some(user),
            secret: Some(SecretText(secret)),
            authority: None,
        })
    }

    /// The connection string, its secret masked.
    pub fn masked(&self) -> String {
        let Url { scheme, port, .. } = &self.url;
        let host = self.url.bracketed_host();
        if self.kind == AmqpKind::Container {
            let user = self.user.as_deref().map(percent_encoded);
            let credential = match (user, &self.secret) {
                (None, _) => String::new(),
                (Some(user), None) => format!("{user}@"),
                (Some(user), Some(_)) => format!("{user}:{MASK}@"),
            };
            return format!("{scheme}://{credential}{host}:{port}/{}", percent_encoded(&self.address));
        }
        let user = self.user.as_deref().unwrap_or_default();
        let emulated = if scheme == "amqp" { ";UseDevelopmentEmulator=true" } else { "" };
        let address = &self.address;
        format!(
            "Endpoint=sb://{host}:{port}/;SharedAccessKeyName={user};SharedAccessKey={MASK};EntityPath={address}{emulated}"
        )
    }
}

impl Url {
    /// Reads an address with one of `schemes`, each with the port that it means; `form` is what an error says.
    pub fn parse(text: &str, schemes: &[(&str, u16)], form: &'static str) -> Result<Self, InvalidEndpoint> {
        let wrong = || InvalidEndpoint::Url { form };
        if text.len() > URL_BYTES_MAX {
            return Err(InvalidEndpoint::TooLong { what: "the address", most: URL_BYTES_MAX });
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"<>\\^`{|}#".contains(&byte)) {
            return Err(wrong());
        }
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let known = schemes.iter().find(|(known, _)| known.eq_ignore_ascii_case(scheme));
        let (scheme, usual_port) = *known.ok_or_else(wrong)?;
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let (host, port) = split_port(authority).ok_or_else(wrong)?;
        let port = match port {
            None => usual_port,
            Some(digits) => digits.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?,
        };
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { scheme: scheme.to_owned(), host: host.to_ascii_lowercase(), port, path })
    }

    /// Whether what is said to one is said to the other.
    pub fn is_same_server(&self, other: &Self) -> bool {
        (&self.scheme, &self.host, self.port) == (&other.scheme, &other.host, other.port)
    }

    /// Whether the connection is encrypted.
    pub fn is_encrypted(&self) -> bool {
        matches!(self.scheme.as_str(), "https" | "tls" | "amqps")
    }

    fn bracketed_host(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}{}", self.scheme, self.bracketed_host(), self.port, self.path)
    }
}

/// Host and port of an authority; `None` if it is none, or has a user.
fn split_port(authority: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, behind) = rest.split_once(']')?;
        host.parse::<std::net::Ipv6Addr>().ok()?;
        return match behind.strip_prefix(':') {
            Some(port) => Some((host, Some(port))),
            None => behind.is_empty().then_some((host, None)),
        };
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    (!host.is_empty() && host.len() <= 253 && host.bytes().all(is_name)).then_some((host, port))
}

fn settle_secret(written: Option<&mut SecretText>, kept: Option<&SecretText>) -> Result<(), InvalidEndpoint> {
    let Some(written) = written else { return Ok(()) };
    if written.is_masked() {
        *written = kept.cloned().ok_or(InvalidEndpoint::Masked)?;
    }
    if written.0.len() > SECRET_BYTES_MAX {
        return Err(InvalidEndpoint::TooLong { what: "a secret", most: SECRET_BYTES_MAX });
    }
    Ok(())
}

fn check_user(user: Option<&str>) -> Result<(), InvalidEndpoint> {
    let is_user = |user: &str| !user.is_empty() && user.len() <= 256 && !user.chars().any(char::is_control);
    if user.is_none_or(is_user) { Ok(()) } else { Err(InvalidEndpoint::Character { what: "the user" }) }
}

fn check_authority(authority: Option<&str>) -> Result<(), InvalidEndpoint> {
    match authority {
        Some(text) if text.len() > AUTHORITY_BYTES_MAX => {
            Err(InvalidEndpoint::TooLong { what: "the text of its authority", most: AUTHORITY_BYTES_MAX })
        }
        Some(text) if !text.contains("-----BEGIN CERTIFICATE-----") => {
            Err(InvalidEndpoint::Missing { part: "certificate in PEM as its authority" })
        }
        _ => Ok(()),
    }
}

/// The text of RFC 3986, section 2.1; `None` if it is not one, or not UTF-8.
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
            let (high, low) = (digit(rest.next())?, digit(rest.next())?);
            bytes.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").expect("a string takes all that is written");
        }
    }
    encoded
}
