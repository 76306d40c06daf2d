//! One MQTT connection: the sans-IO machine, its bytes and its timer, driven by whoever awaits it.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use proto::mqtt::{
    ClientConnection, ClientEvent, Connect, Filter, Message, PacketId, QoS, SubackCode, Text, Unpublished,
};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::wire::Wire;
use super::{ANSWER_TIMEOUT, CLOSE_TIMEOUT, CONNECT_TIMEOUT, Credential, DeviceError, Dial};

/// An open MQTT connection. Dropping it closes the socket without a goodbye.
pub(super) struct Link {
    wire: Wire,
    connection: ClientConnection,
    /// Something was handed to the wire and may still be on its way down.
    unflushed: bool,
    /// Made with the first deadline.
    sleep: Option<Pin<Box<Sleep>>>,
}

/// Who connects.
pub(super) struct Introduction<'a> {
    pub(super) client_id: &'a str,
    pub(super) username: String,
    pub(super) password: Option<String>,
}

impl Link {
    /// Connects and waits for the CONNACK. The second part tells whether the server kept a session.
    pub(super) async fn open(
        dial: &Dial,
        credential: &Credential,
        introduction: Introduction<'_>,
    ) -> Result<(Self, bool), DeviceError> {
        let connect = Connect {
            client_id: text("the name", introduction.client_id.to_owned())?,
            clean_session: dial.mqtt.clean_session,
            keep_alive_s: dial.mqtt.keep_alive_s,
            will: None,
            username: Some(text("the user name", introduction.username)?),
            password: introduction.password.map(Bytes::from),
        };
        let opening = async {
            let wire = Wire::open(&credential.tls, &dial.server, dial.transport).await?;
            Self::introduce(wire, dial, connect).await
        };
        let opened = timeout(CONNECT_TIMEOUT, opening).await;
        opened.unwrap_or(Err(DeviceError::Timeout { what: "the connection", after: CONNECT_TIMEOUT }))
    }

    pub(super) async fn introduce(wire: Wire, dial: &Dial, connect: Connect) -> Result<(Self, bool), DeviceError> {
        let connection = ClientConnection::new(dial.mqtt.limits.clone(), connect, Instant::now().into_std());
        let connection = connection.map_err(|_| DeviceError::Oversized)?;
        let mut link = Self { wire, connection, unflushed: false, sleep: None };
        match link.next().await? {
            ClientEvent::Connected { session_present } => Ok((link, session_present)),
            _ => Err(DeviceError::Unreadable { what: "the connection" }),
        }
    }

    /// What the server does next. Writes, reads and keeps the connection alive meanwhile; dropping the future loses
    /// nothing.
    pub(super) async fn next(&mut self) -> Result<ClientEvent, DeviceError> {
        match poll_fn(|cx| self.poll_next(cx)).await? {
            ClientEvent::Closed(reason) => Err(DeviceError::Closed(reason)),
            event => Ok(event),
        }
    }

    /// Takes events until `pick` finds what is waited for.
    pub(super) async fn wait<T>(
        &mut self,
        what: &'static str,
        mut pick: impl FnMut(ClientEvent) -> Result<Option<T>, DeviceError>,
    ) -> Result<T, DeviceError> {
        let waiting = async {
            loop {
                if let Some(found) = pick(self.next().await?)? {
                    return Ok(found);
                }
            }
        };
        let waited = timeout(ANSWER_TIMEOUT, waiting).await;
        waited.unwrap_or(Err(DeviceError::Timeout { what, after: ANSWER_TIMEOUT }))
    }

    /// Puts a message into the output; it leaves with the next await.
    pub(super) fn publish(&mut self, topic: Text, payload: Bytes, qos: QoS) -> Result<Option<PacketId>, Unpublished> {
        self.connection.publish(&Message::new(topic, payload, qos))
    }

    /// How many messages and requests the server has not answered.
    pub(super) fn in_flight(&self) -> usize {
        self.connection.in_flight()
    }

    /// Asks for messages; [`granted`] reads the answer.
    pub(super) fn subscribe(&mut self, filter: &'static str, qos: QoS) -> Result<PacketId, DeviceError> {
        let topic = Text::try_from(filter).map_err(|source| DeviceError::Text { what: "a filter", source })?;
        Ok(self.connection.subscribe(vec![Filter { topic, qos }])?)
    }

    /// Writes all output.
    pub(super) async fn flush(&mut self) -> Result<(), DeviceError> {
        let flushing = poll_fn(|cx| self.poll_flush(cx));
        let flushed = timeout(ANSWER_TIMEOUT, flushing).await;
        flushed.unwrap_or(Err(DeviceError::Timeout { what: "what is being sent", after: ANSWER_TIMEOUT }))
    }

    /// Says goodbye and waits for the server to close, which it does at once (`contract/dps-device.md 3.6`). A goodbye
    /// that fails changes nothing for anybody.
    pub(super) async fn close(mut self) {
        self.connection.disconnect();
        let closing = async {
            self.flush().await?;
            poll_fn(|cx| self.wire.poll_close(cx)).await.map_err(DeviceError::Io)?;
            while poll_fn(|cx| self.wire.poll_read(cx, |_| ())).await.map_err(DeviceError::Io)? > 0 {}
            Ok::<(), DeviceError>(())
        };
        match timeout(CLOSE_TIMEOUT, closing).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "goodbye failed"),
            Err(_) => tracing::debug!("the server did not close after a goodbye"),
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<ClientEvent, DeviceError>> {
        loop {
            if let Some(event) = self.connection.poll_event() {
                return Poll::Ready(Ok(event));
            }
            if self.connection.is_closed() {
                return Poll::Ready(Err(Unpublished::NotConnected.into()));
            }
            if let Poll::Ready(Err(error)) = self.poll_flush(cx) {
                return Poll::Ready(Err(error));
            }
            if self.connection.wants_input() {
                let Self { wire, connection, .. } = self;
                match wire.poll_read(cx, |bytes| connection.handle_input(bytes)) {
                    Poll::Ready(Ok(0)) => self.connection.handle_eof(),
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(DeviceError::Io(error))),
                    Poll::Pending if self.poll_time(cx) => {}
                    Poll::Pending => return Poll::Pending,
                }
            } else if !self.poll_time(cx) {
                return Poll::Pending;
            }
        }
    }

    /// Writes output until there is none or the socket is full.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), DeviceError>> {
        loop {
            let output = self.connection.output();
            if output.is_empty() {
                break;
            }
            match self.wire.poll_write(cx, output) {
                Poll::Ready(Ok(count)) => {
                    self.connection.handle_written(count, Instant::now().into_std());
                    self.unflushed = true;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(DeviceError::Io(error))),
                Poll::Pending => return Poll::Pending,
            }
        }
        if self.unflushed {
            match self.wire.poll_flush(cx) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(DeviceError::Io(error))),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Whether a deadline has passed and was dealt with.
    fn poll_time(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(deadline) = self.connection.poll_timeout() else { return false };
        let deadline = Instant::from_std(deadline);
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.deadline() != deadline {
            sleep.as_mut().reset(deadline);
        }
        let is_due = sleep.as_mut().poll(cx).is_ready();
        if is_due {
            self.connection.handle_timeout(Instant::now().into_std());
        }
        is_due
    }
}

/// Whether the server granted what [`Link::subscribe`] asked for.
pub(super) fn granted(filter: &'static str, codes: &[SubackCode]) -> Result<(), DeviceError> {
    match codes {
        [SubackCode::Granted(_)] => Ok(()),
        _ => Err(DeviceError::NotGranted { filter }),
    }
}

/// `text` as MQTT carries it.
pub(super) fn text(what: &'static str, text: String) -> Result<Text, DeviceError> {
    Text::try_from(text).map_err(|source| DeviceError::Text { what, source })
}
