//! What the clients asked for, when, and what the server acknowledged: the truth that the store is held to.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use domain::clock::UnixTime;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::trouble::Result;

/// What every mark begins with; a number of [`MARK_DIGITS`] digits follows.
pub const MARK_PREFIX: &str = "torture-";
/// Digits of a mark.
pub const MARK_DIGITS: usize = 8;

/// A text that no other request carries. It lies in the store as it is, so that a write of it can be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark(pub u32);

impl std::fmt::Display for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{MARK_PREFIX}{:0MARK_DIGITS$}", self.0)
    }
}

/// A half of a twin's properties.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    /// Written by operators.
    Desired,
    /// Written by the device.
    Reported,
}

impl Section {
    /// Its name in a twin.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Desired => "desired",
            Self::Reported => "reported",
        }
    }
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// An individual enrollment, named by the mark.
    Enrollment,
    /// The `count` of a device's desired or reported properties, which rises by one with each patch.
    Twin {
        /// Which device.
        device: String,
        /// Whose properties.
        section: Section,
        /// To how many.
        count: u64,
    },
    /// A message whose body is the mark.
    Telemetry,
    /// A device registers: acknowledged when it is told that its registration is under way.
    Accepted {
        /// Which device.
        device: String,
    },
    /// A device registers: acknowledged when it is told its hub.
    Registration {
        /// Which device.
        device: String,
    },
}

impl Change {
    /// The kinds of those whose acknowledgements are looked for in a trace.
    pub const TRACED_KINDS: [&str; 4] = ["enrollments", "desired patches", "messages", "accepted registrations"];

    /// What to call many of its kind.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Enrollment => "enrollments",
            Self::Twin { section: Section::Desired, .. } => "desired patches",
            Self::Twin { section: Section::Reported, .. } => "reported patches",
            Self::Telemetry => "messages",
            Self::Accepted { .. } => "accepted registrations",
            Self::Registration { .. } => "assignments",
        }
    }
}

/// A connection. One port of a client may serve several connections to different addresses, so that both ends are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ends {
    /// Where the server is.
    pub server: SocketAddr,
    /// Where the client is.
    pub client: SocketAddr,
}

impl Ends {
    /// Those of a client's socket.
    pub fn of(socket: &TcpStream) -> Result<Self> {
        Ok(Self { server: socket.peer_addr()?, client: socket.local_addr()? })
    }
}

/// A request and what became of it.
#[derive(Clone, Debug)]
pub struct Act {
    /// What was asked for.
    pub change: Change,
    /// What its record carries.
    pub mark: Mark,
    /// The connection; `None` where the acknowledgement is not looked for in a trace.
    pub connection: Option<Ends>,
    /// Before the first byte of the request was written.
    pub sent_at: UnixTime,
    /// After the last byte of the acknowledgement was read.
    pub acknowledged: Option<Acknowledged>,
}

/// An acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    /// When it had been read.
    pub at: UnixTime,
    /// The hub of an assigned device.
    pub hub: Option<String>,
}

/// Everything asked for in one run. Clones are the same journal.
#[derive(Clone, Debug)]
pub struct Journal(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    acts: Mutex<Vec<Act>>,
    marks: Mutex<u32>,
    acknowledged: watch::Sender<usize>,
}

/// Where an act stands in the journal.
#[derive(Clone, Copy, Debug)]
pub struct Entry(usize);

impl Journal {
    /// An empty one, whose marks follow `first`.
    pub fn starting_at(first: u32) -> Self {
        Self(Arc::new(Inner {
            acts: Mutex::new(Vec::new()),
            marks: Mutex::new(first),
            acknowledged: watch::Sender::new(0),
        }))
    }

    /// A mark that was not given out before.
    pub fn mark(&self) -> Mark {
        let mut marks = self.0.marks.lock().unwrap_or_else(PoisonError::into_inner);
        *marks += 1;
        Mark(*marks)
    }

    /// Notes that something is about to be asked for.
    pub fn begin(&self, act: Act) -> Entry {
        let mut acts = self.0.acts.lock().unwrap_or_else(PoisonError::into_inner);
        acts.push(act);
        Entry(acts.len() - 1)
    }

    /// Notes that it was acknowledged.
    pub fn acknowledge(&self, entry: Entry, acknowledged: Acknowledged) {
        let mut acts = self.0.acts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(act) = acts.get_mut(entry.0) {
            act.acknowledged = Some(acknowledged);
        }
        drop(acts);
        self.0.acknowledged.send_modify(|count| *count += 1);
    }

    /// How many acts have been acknowledged, as it changes.
    pub fn acknowledged(&self) -> watch::Receiver<usize> {
        self.0.acknowledged.subscribe()
    }

    /// Everything so far, in the order asked for.
    pub fn acts(&self) -> Vec<Act> {
        self.0.acts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A moment as traces tell it, in nanoseconds since the epoch.
pub fn nanoseconds(moment: UnixTime) -> u64 {
    moment.micros().unsigned_abs() * 1_000
}

/// What had been acknowledged at `moment`, in nanoseconds: later acknowledgements are taken back, later requests left in
/// as not acknowledged.
pub fn as_of(acts: &[Act], moment: u64) -> Vec<Act> {
    let mut acts = acts.to_vec();
    for act in &mut acts {
        act.acknowledged = act.acknowledged.take().filter(|acknowledged| nanoseconds(acknowledged.at) <= moment);
    }
    acts
}
