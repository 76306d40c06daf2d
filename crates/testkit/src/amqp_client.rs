//! An AMQP client for tests: the product's engine at its client's end, over any stream.
//!
//! What the engine says is held to an oracle of its own; here it is only carried. Start at [`AmqpClient::new`], then
//! [`AmqpClient::hear`].

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use proto::amqp::{
    Attach, ClientOpening, Connection, Event, Limits, LinkId, LinkTerms, Map, Performative, Role, SaslInit, SessionId,
    Symbol, Text,
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

/// Longer than any answer takes that comes.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What follows the length of a frame: where its body begins, its type, its channel (part 2, section 2.3.1).
const FRAME_HEADER: [u8; 4] = [2, 0, 0, 0];

/// Bytes read at once.
const READ_BYTES: usize = 16 * 1_024;

/// One connection.
pub struct AmqpClient<S> {
    stream: S,
    /// The engine, on which whatever is called leaves with the next [`AmqpClient::hear`] or [`AmqpClient::flush`].
    pub connection: Connection,
}

impl<S: AsyncRead + AsyncWrite + Unpin> AmqpClient<S> {
    /// Introduces itself over `stream` to `host`, with a SASL exchange or without.
    pub fn new(stream: S, host: &str, with_sasl: bool) -> Self {
        let opening = ClientOpening {
            container_id: Text::from_static("test"),
            hostname: Some(host.into()),
            properties: Map::EMPTY,
            with_sasl,
        };
        Self { stream, connection: Connection::client(Arc::new(Limits::default()), opening, Instant::now()) }
    }

    /// What happens next; `None` if nothing does for [`PATIENCE`].
    pub async fn hear(&mut self) -> Option<Event> {
        timeout(PATIENCE, self.next()).await.ok()
    }

    async fn next(&mut self) -> Event {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            if let Some(event) = self.connection.poll_event() {
                return event;
            }
            if self.flush().await.is_err() {
                self.connection.handle_eof();
                continue;
            }
            match self.stream.read(&mut buffer).await {
                Ok(0) | Err(_) => self.connection.handle_eof(),
                Ok(count) => self.connection.handle_input(buffer.get(..count).unwrap_or_default(), Instant::now()),
            }
        }
    }

    /// Writes what waits to be written.
    pub async fn flush(&mut self) -> io::Result<()> {
        let bytes = self.connection.output().to_vec();
        self.stream.write_all(&bytes).await?;
        self.stream.flush().await?;
        self.connection.handle_written(bytes.len(), Instant::now());
        Ok(())
    }

    /// Writes `bytes` as they are, behind what the engine has to say.
    pub async fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.flush().await?;
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Writes a frame that the engine would not, on the first channel.
    ///
    /// # Panics
    /// When the frame is longer than a length can tell.
    pub async fn force(&mut self, performative: &Performative, payload: &[u8]) -> io::Result<()> {
        let mut body = Vec::new();
        performative.encode(&mut body);
        body.extend_from_slice(payload);
        let length = u32::try_from(size_of::<u32>() + FRAME_HEADER.len() + body.len()).expect("a frame");
        self.say(&[&length.to_be_bytes()[..], &FRAME_HEADER, &body].concat()).await
    }

    /// Answers the server's offer with `mechanism`, and returns the names offered.
    ///
    /// # Panics
    /// When the server offers nothing.
    pub async fn choose(&mut self, mechanism: &'static str, response: Option<&[u8]>) -> Vec<String> {
        let Some(Event::SaslMechanisms(offered)) = self.hear().await else { panic!("no mechanisms") };
        let init = SaslInit {
            mechanism: Symbol::from_static(mechanism),
            initial_response: response.map(Bytes::copy_from_slice),
            hostname: None,
        };
        self.connection.sasl_init(init, Instant::now()).expect("the answer fits into a frame");
        offered.iter().map(ToString::to_string).collect()
    }

    /// Waits for the server's open, and begins a session.
    ///
    /// # Panics
    /// When the server does something else.
    pub async fn begin(&mut self) -> SessionId {
        let heard = self.hear().await;
        assert!(matches!(heard, Some(Event::Open(_))), "{heard:?}");
        self.connection.begin().expect("a session");
        match self.hear().await {
            Some(Event::Begin { session }) => session,
            other => panic!("{other:?}"),
        }
    }

    /// Attaches a link, and returns what the server made of it.
    ///
    /// # Panics
    /// When the server does something else.
    pub async fn attach(
        &mut self,
        session: SessionId,
        (name, role): (&str, Role),
        terms: LinkTerms,
    ) -> (LinkId, Box<Attach>) {
        let wanted = self.connection.attach(session, name.into(), role, terms).expect("a link");
        match self.hear().await {
            Some(Event::Attached { link, attach }) if link == wanted => (link, attach),
            other => panic!("{other:?}"),
        }
    }
}
