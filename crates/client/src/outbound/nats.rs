//! Publishing to a NATS server: the part of its protocol that a publisher needs.
//!
//! A message counts as taken once the server has said so: by the PONG behind it, or, where a stream is to keep it, by the
//! stream's own word. The event's ID and its subject are its `Nats-Msg-Id`, so that a stream drops what it has seen there,
//! and not what it has seen at another subject. [`wire`] reads what the server says. Start at [`Outbound::publish`].

#[cfg(test)]
mod tests;
mod wire;

use bytes::BytesMut;
use dialect::hub::cloud_event;
use domain::route::{NatsSubject, Parcel, Refusal};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::dial::Stream;
use super::{ANSWER_TIMEOUT, CONNECT_TIMEOUT, Outbound, SEND_TIMEOUT};
use wire::{Said, read};

/// Most bytes of a message where a server does not say how many it takes: those that one takes unless it is told otherwise.
const PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// What a stream answers to a message that is longer than it keeps (`JSStreamMessageExceedsMaximumErr`).
const TOO_LONG_FOR_STREAM: u64 = 10_054;
/// Bytes of a message's line and headers, about.
const LINE_ROOM: usize = 512;

/// A connection to a server.
struct Server {
    stream: Box<dyn Stream>,
    input: BytesMut,
    /// Most bytes of a message that it takes.
    payload_max: usize,
    /// Where a stream's words are heard, below which each message has a number; nobody else listens there.
    inbox: String,
}

impl Outbound {
    /// Publishes `parcels`.
    pub(super) async fn publish(
        &self,
        nats: &NatsSubject,
        parcels: &[Parcel],
        taken: &mut usize,
    ) -> Result<(), Refusal> {
        let opening = timeout(CONNECT_TIMEOUT, self.open(nats)).await;
        let mut server = opening.unwrap_or_else(|_| Err(Refusal::of_all("no connection in time")))?;
        let (events, too_large) = encode_all(nats, parcels, server.payload_max);
        let sent = async {
            if nats.stream {
                return server.publish_to_stream(&nats.subject, &events, taken).await;
            }
            server.publish_plainly(&nats.subject, &events).await?;
            *taken = events.len();
            Ok(())
        };
        let outcome = timeout(SEND_TIMEOUT, sent).await.unwrap_or_else(|_| Err(Refusal::of_all("no answer in time")));
        outcome.and(too_large)
    }

    async fn open(&self, nats: &NatsSubject) -> Result<Server, Refusal> {
        let plain = self.connect(&nats.url).await?;
        let mut server =
            Server { stream: Box::new(plain), input: BytesMut::new(), payload_max: 0, inbox: String::new() };
        let Said::Info(info) = server.hear().await? else { return Err(Refusal::of_all("it does not speak NATS")) };
        let told: Value = serde_json::from_slice(&info).map_err(|_| Refusal::of_all("it does not speak NATS"))?;
        let is = |member: &str| told.get(member).and_then(Value::as_bool).unwrap_or(false);
        if !is("headers") {
            return Err(Refusal::of_all("it is too old to take headers"));
        }
        if nats.url.is_encrypted() || is("tls_required") {
            if !server.input.is_empty() {
                return Err(Refusal::of_all("it speaks before TLS does"));
            }
            let secured = self.secure(server.stream, &nats.url.host, nats.authority.as_deref()).await?;
            server = Server { stream: secured, ..server };
        }
        let payload_max = told.get("max_payload").and_then(Value::as_u64);
        server.payload_max = payload_max.and_then(|most| usize::try_from(most).ok()).unwrap_or(PAYLOAD_BYTES_MAX);
        let part = |member: &str| told.get(member).map(Value::to_string).unwrap_or_default();
        let is_word = |character: &char| character.is_ascii_alphanumeric();
        let own: String = [part("server_id"), part("client_id")].join("x").chars().filter(is_word).collect();
        server.inbox = format!("_INBOX.muster{own}");
        let secret = nats.secret.as_ref().map(domain::route::SecretText::expose);
        let (password, token) = if nats.user.is_some() { (secret, None) } else { (None, secret) };
        let greeting = json!({
            "verbose": false, "pedantic": false, "lang": "rust", "name": "muster", "version": env!("CARGO_PKG_VERSION"),
            "protocol": 1, "headers": true, "no_responders": true, "user": nats.user, "pass": password,
            "auth_token": token,
        });
        server.say(format!("CONNECT {greeting}\r\nPING\r\n").as_bytes()).await?;
        server.expect_pong().await?;
        Ok(server)
    }
}

/// An event as it is published, without the line before it.
struct Published {
    headers: String,
    event: String,
}

/// The events up to the first that the server does not take, and why it does not.
fn encode_all(nats: &NatsSubject, parcels: &[Parcel], payload_max: usize) -> (Vec<Published>, Result<(), Refusal>) {
    let mut events = Vec::with_capacity(parcels.len());
    for parcel in parcels {
        let id = cloud_event::id(parcel);
        let media_type = cloud_event::MEDIA_TYPE;
        let subject = &nats.subject;
        let headers = format!("NATS/1.0\r\nNats-Msg-Id: {id}.{subject}\r\ncontent-type: {media_type}\r\n\r\n");
        let event = cloud_event::event(parcel).to_string();
        let bytes = headers.len() + event.len();
        if bytes > payload_max {
            let text = format!("the event has {bytes} bytes; {} takes {payload_max}", nats.url.host);
            return (events, Err(Refusal::of_message(text)));
        }
        events.push(Published { headers, event });
    }
    (events, Ok(()))
}

impl Published {
    fn write(&self, out: &mut Vec<u8>, subject: &str, reply: &str) {
        let Self { headers, event } = self;
        let (header_bytes, bytes) = (headers.len(), headers.len() + event.len());
        out.extend_from_slice(format!("HPUB {subject} {reply} {header_bytes} {bytes}\r\n").as_bytes());
        out.extend_from_slice(headers.as_bytes());
        out.extend_from_slice(event.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

impl Server {
    async fn say(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let said = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        said.await.map_err(|error| Refusal::of_all(format!("the connection broke off: {error}")))
    }

    /// The next thing that the server says; its pings are answered.
    async fn hear(&mut self) -> Result<Said, Refusal> {
        loop {
            match read(&mut self.input) {
                Ok(Some(Said::Ping)) => self.say(b"PONG\r\n").await?,
                Ok(Some(said)) => return Ok(said),
                Ok(None) => {
                    let read = self.stream.read_buf(&mut self.input).await;
                    match read {
                        Ok(0) => return Err(Refusal::of_all("it closed the connection")),
                        Ok(_) => {}
                        Err(error) => return Err(Refusal::of_all(format!("the connection broke off: {error}"))),
                    }
                }
                Err(malformed) => return Err(Refusal::of_all(format!("it does not speak NATS: {malformed}"))),
            }
        }
    }

    /// Waits until the server has gone through all that it was sent; an error that it tells on the way is the outcome.
    async fn expect_pong(&mut self) -> Result<(), Refusal> {
        let waiting = async {
            let mut outcome = Ok(());
            loop {
                match self.hear().await {
                    Ok(Said::Pong) => return outcome,
                    Ok(Said::Error(text)) => outcome = outcome.and(Err(judge(&text))),
                    Ok(Said::Info(_) | Said::Message { .. } | Said::Ping | Said::Ok) => {}
                    // What it said before says more than that it left.
                    Err(gone) => return outcome.and(Err(gone)),
                }
            }
        };
        timeout(ANSWER_TIMEOUT, waiting).await.unwrap_or_else(|_| Err(Refusal::of_all("no answer in time")))
    }

    /// The server tells of errors, but not of which message: what makes one is the same for all of a subject.
    async fn publish_plainly(&mut self, subject: &str, events: &[Published]) -> Result<(), Refusal> {
        for event in events {
            let mut out = Vec::with_capacity(event.event.len() + LINE_ROOM);
            event.write(&mut out, subject, "");
            self.say(&out).await?;
        }
        self.say(b"PING\r\n").await?;
        self.expect_pong().await
    }

    async fn publish_to_stream(
        &mut self,
        subject: &str,
        events: &[Published],
        taken: &mut usize,
    ) -> Result<(), Refusal> {
        let inbox = self.inbox.clone();
        self.say(format!("SUB {inbox}.* 1\r\n").as_bytes()).await?;
        for (number, event) in events.iter().enumerate() {
            let mut out = Vec::with_capacity(event.event.len() + LINE_ROOM);
            event.write(&mut out, subject, &format!("{inbox}.{number}"));
            self.say(&out).await?;
        }
        let mut words: Vec<Option<Result<(), Refusal>>> = vec![None; events.len()];
        while let Some(next) = words.get(*taken) {
            match next {
                Some(Ok(())) => *taken += 1,
                Some(Err(refusal)) => return Err(refusal.clone()),
                None => {
                    let (number, said) = self.hear_word().await?;
                    if let Some(word) = words.get_mut(number) {
                        *word = Some(said);
                    }
                }
            }
        }
        Ok(())
    }

    /// What is said of the message with some number, which is none if it cannot be read.
    async fn hear_word(&mut self) -> Result<(usize, Result<(), Refusal>), Refusal> {
        let hearing = async {
            loop {
                match self.hear().await? {
                    Said::Error(text) => return Err(judge(&text)),
                    Said::Message { subject, status, payload } => {
                        let number = subject.rsplit('.').next().and_then(|number| number.parse().ok());
                        return Ok((number.unwrap_or(usize::MAX), judge_word(status, &payload)));
                    }
                    Said::Info(_) | Said::Ping | Said::Pong | Said::Ok => {}
                }
            }
        };
        timeout(ANSWER_TIMEOUT, hearing).await.unwrap_or_else(|_| Err(Refusal::of_all("no answer in time")))
    }
}

/// What the server says of anything that it was sent.
fn judge(text: &str) -> Refusal {
    Refusal::of_all(format!("it answers {text}"))
}

/// What a stream says of a message, or the server for it where no stream has its subject.
fn judge_word(status: Option<u16>, payload: &[u8]) -> Result<(), Refusal> {
    if let Some(status) = status {
        return Err(Refusal::of_all(format!("no stream keeps its subject: it answers {status}")));
    }
    let word: Value = serde_json::from_slice(payload).unwrap_or(Value::Null);
    let is_too_long = word.pointer("/error/err_code").and_then(Value::as_u64) == Some(TOO_LONG_FOR_STREAM);
    match word.pointer("/error/description").and_then(Value::as_str) {
        Some(text) if is_too_long => Err(Refusal::of_message(format!("its stream answers {text}"))),
        Some(text) => Err(Refusal::of_all(format!("its stream answers {text}"))),
        None if word.get("seq").is_some() => Ok(()),
        None => Err(Refusal::of_all("its stream answers in words that are not known")),
    }
}
