//! The devices: each sends its messages one after the other, the next when the last was acknowledged, and comes back when
//! the server does. What was not acknowledged is sent again.

use std::collections::BTreeMap;
use std::sync::Arc;

use client::device::{AmqpDeviceClient, Credential, DeviceClient, Dial, HttpsDeviceClient};
use domain::clock::Clock as _;
use domain::message::Draft;
use domain::operation::Transport;
use service::clock::SystemClock;
use tokio::sync::{Barrier, Semaphore, watch};
use tokio::task::JoinSet;

use crate::server::Door;
use crate::story;
use crate::trouble::{During as _, Result, Trouble};

/// Devices that connect at the same time: a handshake costs both ends processor time, and nobody is to wait too long.
const CONNECTING_MAX: usize = 48;
/// What devices speak, in turn.
const TRANSPORTS: [Transport; 5] =
    [Transport::Mqtt, Transport::MqttWebSocket, Transport::Amqp, Transport::AmqpWebSocket, Transport::Https];

/// Which server runs, and whether it is to be killed, or was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    number: u32,
    /// Whatever goes wrong from here on is no wonder.
    pub is_over: bool,
}

impl Life {
    /// The first server.
    pub const FIRST: Self = Self { number: 0, is_over: false };

    /// The server that comes after it.
    pub const fn next(self) -> Self {
        Self { number: self.number + 1, is_over: false }
    }
}

/// What a device sent, in this order. What was not acknowledged was sent again: as the next, with another body.
#[derive(Clone, Debug)]
pub struct Log {
    /// How.
    pub transport: Transport,
    /// Whether the server took over what was sent at this place, which carries the [`body`] of the place.
    pub is_acknowledged: Vec<bool>,
}

impl Log {
    /// How much the server took over.
    pub fn acknowledged(&self) -> usize {
        self.is_acknowledged.iter().filter(|is_acknowledged| **is_acknowledged).count()
    }
}

/// The body of what `device` sent at `place` of its log; no other message is the same.
pub fn body(device: &str, place: usize) -> String {
    format!("{device} {place}")
}

/// Every device, on its way.
pub struct Senders {
    devices: JoinSet<Result<(String, Log)>>,
    /// Of those that have sent everything.
    logs: BTreeMap<String, Log>,
    acknowledged: watch::Receiver<u64>,
}

/// What all devices share.
struct Common {
    door: Door,
    host: String,
    messages: u32,
    lives: watch::Receiver<Life>,
    acknowledged: watch::Sender<u64>,
    connecting: Semaphore,
    /// Passed when all are ready to send for the first time, so that all send at once.
    start: Barrier,
}

impl Senders {
    /// Starts all devices at `host`; each is to send as many messages, while servers live and die.
    #[expect(clippy::disallowed_methods, reason = "the end of each task is looked at")]
    pub fn start(door: &Door, host: &str, names: &[String], (messages, lives): (u32, &watch::Sender<Life>)) -> Self {
        let acknowledged = watch::Sender::new(0);
        let heard = acknowledged.subscribe();
        let common = Arc::new(Common {
            door: door.clone(),
            host: host.to_owned(),
            messages,
            lives: lives.subscribe(),
            acknowledged,
            connecting: Semaphore::new(CONNECTING_MAX),
            start: Barrier::new(names.len()),
        });
        let mut devices = JoinSet::new();
        for (name, transport) in names.iter().zip(TRANSPORTS.iter().cycle()) {
            let (name, common) = (name.clone(), Arc::clone(&common));
            let mut device =
                Device { log: Log { transport: *transport, is_acknowledged: Vec::new() }, has_started: false, name };
            devices.spawn(async move {
                device.send_all(&common).await.during(format!("{}, {:?}", device.name, device.log.transport))?;
                Ok((device.name, device.log))
            });
        }
        Self { devices, logs: BTreeMap::new(), acknowledged: heard }
    }

    /// How many messages have been acknowledged, as it changes.
    pub fn acknowledged(&self) -> watch::Receiver<u64> {
        self.acknowledged.clone()
    }

    /// Trouble of any device; never answers if there is none.
    pub async fn trouble(&mut self) -> Trouble {
        match self.wait_for_all().await {
            Ok(()) => std::future::pending().await,
            Err(trouble) => trouble,
        }
    }

    /// What they all sent, once they have.
    pub async fn finish(mut self) -> Result<BTreeMap<String, Log>> {
        self.wait_for_all().await?;
        Ok(self.logs)
    }

    /// A future that is dropped loses nothing.
    async fn wait_for_all(&mut self) -> Result<()> {
        while let Some(done) = self.devices.join_next().await {
            let (device, log) = done??;
            self.logs.insert(device, log);
        }
        Ok(())
    }
}

/// One device.
struct Device {
    name: String,
    log: Log,
    has_started: bool,
}

impl Device {
    /// Sends everything, through as many servers as it takes.
    async fn send_all(&mut self, common: &Common) -> Result<()> {
        let mut lives = common.lives.clone();
        loop {
            let life = *lives.wait_for(|life| !life.is_over).await?;
            match self.send_to_one_server(common).await {
                Ok(()) => return Ok(()),
                Err(_) if *lives.borrow() != life => {}
                Err(trouble) => return Err(trouble),
            }
        }
    }

    /// Waits until all are ready to send, the first time.
    async fn start_with_all(&mut self, common: &Common) {
        if !std::mem::replace(&mut self.has_started, true) {
            common.start.wait().await;
        }
    }

    async fn send_to_one_server(&mut self, common: &Common) -> Result<()> {
        // A server does not wait long for the first request of a connection.
        if self.log.transport == Transport::Https {
            self.start_with_all(common).await;
        }
        let mut client = {
            let _turn = common.connecting.acquire().await;
            Client::connect(common, self).await?
        };
        self.start_with_all(common).await;
        while self.log.acknowledged() < common.messages as usize {
            let place = self.log.is_acknowledged.len();
            self.log.is_acknowledged.push(false);
            client.send(&Draft { body: body(&self.name, place).into(), ..Draft::default() }).await?;
            if let Some(is_acknowledged) = self.log.is_acknowledged.last_mut() {
                *is_acknowledged = true;
            }
            common.acknowledged.send_modify(|count| *count += 1);
        }
        client.leave().await;
        Ok(())
    }
}

/// A connection of a device.
enum Client {
    Mqtt(Box<DeviceClient>),
    Amqp(Box<AmqpDeviceClient>),
    Https(Box<HttpsDeviceClient>),
}

impl Client {
    async fn connect(common: &Common, device: &Device) -> Result<Self> {
        let Common { door, host, .. } = common;
        let transport = device.log.transport;
        let server = match transport {
            Transport::Mqtt => door.mqtts(host),
            Transport::Amqp => door.amqps(host),
            Transport::Https | Transport::MqttWebSocket | Transport::AmqpWebSocket => door.https(host),
        };
        let (dial, now) = (Dial::new(server, transport), SystemClock.now());
        let credential = Credential::symmetric_key(Arc::clone(&door.tls), story::key_of(&device.name)?);
        let (name, credential) = (&*device.name, &credential);
        Ok(match transport {
            Transport::Mqtt | Transport::MqttWebSocket => {
                Self::Mqtt(Box::new(DeviceClient::connect(&dial, name, credential, now).await?))
            }
            Transport::Amqp | Transport::AmqpWebSocket => {
                Self::Amqp(Box::new(AmqpDeviceClient::connect(&dial, name, credential, now).await?))
            }
            Transport::Https => Self::Https(Box::new(HttpsDeviceClient::connect(&dial, name, credential, now).await?)),
        })
    }

    async fn send(&mut self, message: &Draft) -> Result<()> {
        match self {
            Self::Mqtt(client) => client.send(message).await?,
            Self::Amqp(client) => client.send(message).await?,
            Self::Https(client) => client.send(message).await?,
        }
        Ok(())
    }

    async fn leave(self) {
        match self {
            Self::Mqtt(client) => client.disconnect().await,
            Self::Amqp(client) => client.disconnect().await,
            Self::Https(client) => drop(client),
        }
    }
}
