//! Reading on over lost connections: where the one left off, the next begins, by the offset of the last message.
//!
//! Start at [`Follower::open`].

use std::fmt;
use std::time::Duration;

use domain::operation::events::{From as Place, Start};
use tokio::time::{Instant, sleep_until};

use super::{EventHub, EventReader, EventsError, Finality, PartitionEvent, Places, Reading};

/// How long is waited before the first attempt to connect again; twice as long before every further one.
const BACK_OFF_MIN: Duration = Duration::from_millis(100);
/// The longest wait.
const BACK_OFF_MAX: Duration = Duration::from_secs(10);

/// Why an endpoint is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// There is no such hub.
    Hub,
    /// There is no server that could tell.
    Server,
}

/// What a follower comes upon.
#[derive(Debug)]
pub enum Followed {
    /// A message.
    Event(Box<PartitionEvent>),
    /// The connection ended; the next call connects again.
    Interrupted(EventsError),
}

/// Says where the endpoint is: that may change while a server is away.
type Locate = Box<dyn Fn() -> Result<EventHub, Absent> + Send>;

/// Follows an endpoint for as long as there is one.
pub struct Follower {
    locate: Locate,
    reading: Reading,
    places: Places,
    /// Gone while there is no connection.
    reader: Option<EventReader>,
    back_off: Duration,
    /// When the next attempt to connect is made.
    retry_at: Instant,
}

impl Follower {
    /// Connects for the first time; whatever fails then is told at once.
    pub async fn open(locate: Locate, reading: Reading, start: Start) -> Result<Self, EventsError> {
        let hub = find(&locate)?;
        let (reader, places) = EventReader::open(hub, &reading, start).await?;
        let reader = Some(reader);
        Ok(Self { locate, reading, places, reader, back_off: BACK_OFF_MIN, retry_at: Instant::now() })
    }

    /// The next message, or that it is waited for another connection. An error is one that does not pass. Dropping the
    /// future loses nothing, but a connection that was being made.
    pub async fn next(&mut self) -> Result<Followed, EventsError> {
        loop {
            if let Some(reader) = &mut self.reader {
                match reader.next().await {
                    Ok(event) => {
                        self.places.insert(event.partition, Place::AfterOffset(event.received.offset));
                        self.back_off = BACK_OFF_MIN;
                        return Ok(Followed::Event(Box::new(event)));
                    }
                    Err(error) if error.finality() == Finality::Final => return Err(error),
                    Err(error) => {
                        self.reader = None;
                        self.wait_longer();
                        return Ok(Followed::Interrupted(error));
                    }
                }
            }
            sleep_until(self.retry_at).await;
            self.wait_longer();
            let opened = match find(&self.locate) {
                Ok(hub) => EventReader::resume(hub, &self.reading, &self.places).await,
                Err(error) => Err(error),
            };
            match opened {
                Ok(reader) => self.reader = Some(reader),
                Err(error) if error.finality() == Finality::Passing => {
                    tracing::debug!(%error, "no connection yet");
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Puts the next attempt off, twice as far as the one before.
    fn wait_longer(&mut self) {
        self.retry_at = Instant::now() + self.back_off;
        self.back_off = (self.back_off * 2).min(BACK_OFF_MAX);
    }

    /// Says goodbye.
    pub async fn close(self) {
        if let Some(reader) = self.reader {
            reader.close().await;
        }
    }
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower").field("places", &self.places).finish_non_exhaustive()
    }
}

fn find(locate: &Locate) -> Result<EventHub, EventsError> {
    locate().map_err(|absent| match absent {
        Absent::Hub => EventsError::Gone,
        Absent::Server => EventsError::NoServer,
    })
}
