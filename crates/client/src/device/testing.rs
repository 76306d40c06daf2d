//! The server's end of MQTT for tests: over bytes in memory, doing what the test tells it.

use std::sync::Arc;
use std::time::Instant;

use domain::operation::Transport;
use proto::mqtt::{Connect, Connection, Event, Limits, Message, QoS, SubackCode, Text};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use super::Dial;
use super::link::Link;
use crate::https;
use crate::wire::Wire;

/// The server's end of a connection.
pub(super) struct Server {
    stream: DuplexStream,
    connection: Connection,
}

impl Server {
    pub(super) async fn next(&mut self) -> Event {
        loop {
            self.flush().await;
            if let Some(event) = self.connection.poll_event() {
                return event;
            }
            let mut bytes = [0; 512];
            match self.stream.read(&mut bytes).await.unwrap() {
                0 => self.connection.handle_eof(),
                count => self.connection.handle_input(&bytes[..count], Instant::now()),
            }
        }
    }

    async fn flush(&mut self) {
        let output = self.connection.output().to_vec();
        self.stream.write_all(&output).await.unwrap();
        self.connection.handle_written(output.len());
    }

    pub(super) async fn publish(&mut self, topic: &str, body: &str) {
        let topic = Text::try_from(topic.to_owned()).unwrap();
        self.connection.publish(&Message::new(topic, body.to_owned().into(), QoS::AtMostOnce)).unwrap();
        self.flush().await;
    }

    pub(super) async fn grant(&mut self, filter: &str, code: SubackCode) {
        let event = self.next().await;
        let Event::Subscribe { packet_id, filters } = event else { panic!("{event:?}") };
        assert_eq!(filters[0].topic, *filter);
        self.connection.suback(packet_id, vec![code]);
        self.flush().await;
    }

    /// The next message, acknowledged.
    pub(super) async fn message(&mut self) -> Message {
        let event = self.next().await;
        let Event::Publish { ticket, message } = event else { panic!("{event:?}") };
        self.connection.acknowledge(ticket);
        self.flush().await;
        message
    }
}

/// A device's open connection, whether the server kept its session, and the server's end.
pub(super) async fn connected() -> (Link, bool, Server) {
    let (device, server) = tokio::io::duplex(4_096);
    let mut server =
        Server { stream: server, connection: Connection::new(Arc::new(Limits::default()), Instant::now()) };
    let dial = Dial::new(https::Server { host: "127.0.0.2".to_owned(), port: 8883 }, Transport::Mqtt);
    let connect = Connect {
        client_id: Text::try_from("cave").unwrap(),
        clean_session: false,
        keep_alive_s: 180,
        will: None,
        username: Some(Text::try_from("127.0.0.2/cave").unwrap()),
        password: None,
    };
    let accepting = async {
        assert!(matches!(server.next().await, Event::Connect(_)));
        server.connection.accept(true, Instant::now());
        server.flush().await;
    };
    let (link, ()) = tokio::join!(Link::introduce(Wire::Stream(Box::new(device)), &dial, connect), accepting);
    let (link, session_present) = link.unwrap();
    (link, session_present, server)
}
