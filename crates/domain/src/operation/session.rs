//! A device connects to a hub, subscribes, and leaves.

use std::sync::Arc;

use crate::ids::{DeviceId, HubKey, ModuleId};

use super::identity::IdentityName;

/// What a device asks about its own connection.
#[derive(Clone, Debug)]
pub enum Ask {
    /// Prove who it is and take over the identity's connection.
    Connect(Box<Connect>),
    /// Prove that a signature is good at a hub, without taking any connection over.
    Verify(Box<Verify>),
    /// Have a newer signature count for a connection, in the place of the one it was let in by.
    Renew {
        /// Who.
        device: ConnectedDevice,
    },
    /// Change the subscriptions; answered once they are in force, and durable if they are kept.
    Subscribe {
        /// Who.
        device: ConnectedDevice,
        /// The whole set as it shall be.
        subscriptions: Subscriptions,
        /// Whether the identity's next connection finds them too.
        is_kept: bool,
    },
    /// Announce another model than when it connected; answered by [`Answer::Announced`].
    Announce {
        /// Who.
        device: ConnectedDevice,
        /// The model.
        model_id: String,
    },
    /// Leave; a clean session is forgotten.
    Disconnect {
        /// Who.
        device: ConnectedDevice,
    },
}

/// A connection attempt.
#[derive(Clone, Debug)]
pub struct Connect {
    /// The host name as the device wrote it; only narrows what was dialled.
    pub host: String,
    /// The identity it claims.
    pub claimed: IdentityName,
    /// What becomes of the session that is remembered.
    pub memory: Memory,
    /// The model it announces.
    pub model_id: Option<String>,
    /// The client's name for itself, for diagnostics.
    pub client: Option<String>,
}

/// What a connection makes of the session by which its identity is remembered: what it subscribed to over MQTT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// It goes on with it.
    Resume,
    /// It forgets it.
    Forget,
    /// It leaves it as it is, for a later connection: its own protocol has no such sessions. Neither does it take a model
    /// back by announcing none.
    LeaveAlone,
}

/// A signature that is presented before it is used.
#[derive(Clone, Debug)]
pub struct Verify {
    /// The host name that the signature names; only narrows what was dialled.
    pub host: String,
    /// The identity that it names; `None` for a policy's signature that names none.
    pub scope: Option<IdentityName>,
}

/// Proof that a device was let in, carried by everything it asks afterwards. Only `service` makes one.
#[derive(Clone, Debug)]
pub struct ConnectedDevice(Arc<Seat>);

/// What a [`ConnectedDevice`] stands for.
#[derive(Debug)]
pub struct Seat {
    /// The hub.
    pub hub: HubKey,
    /// The identity.
    pub name: IdentityName,
    /// The identity's generation, which tells it from an earlier one of the same name.
    pub generation: Box<str>,
    /// The claim on the identity; a later connection has a higher one.
    pub epoch: u64,
    /// How it proved itself, as telemetry shows it.
    pub authentication: AuthenticationMethod,
    /// The model it announced.
    pub model_id: Option<Box<str>>,
}

impl ConnectedDevice {
    /// Seats a device that has proved itself.
    pub fn seat(seat: Seat) -> Self {
        Self(Arc::new(seat))
    }

    /// The same seat, of a device that announces a model.
    #[must_use]
    pub fn announcing(&self, model_id: &str) -> Self {
        let Seat { hub, name, generation, epoch, authentication, model_id: _ } = &*self.0;
        let (name, generation, model_id) = (name.clone(), generation.clone(), Some(model_id.into()));
        Self::seat(Seat { hub: *hub, name, generation, epoch: *epoch, authentication: *authentication, model_id })
    }

    /// Whether both stand for the same connection of the same identity.
    pub fn is_same_seat(&self, other: &Self) -> bool {
        let of = |seat: &Self| (seat.hub, seat.epoch);
        of(self) == of(other) && self.name == other.name
    }
}

impl std::ops::Deref for ConnectedDevice {
    type Target = Seat;
    fn deref(&self) -> &Seat {
        &self.0
    }
}

/// How a connection was authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthenticationMethod {
    /// By the identity's own symmetric key.
    DeviceKey,
    /// By a shared access policy of the hub.
    PolicyKey,
    /// By a certificate.
    X509,
}

/// What a hub answers.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The device is in.
    Connected {
        /// Its seat.
        device: ConnectedDevice,
        /// What it subscribed to before; empty unless that was to be resumed.
        subscriptions: Subscriptions,
        /// Whether there was a session to resume.
        session_present: bool,
    },
    /// The device is known by the model from here on, and asks with this.
    Announced(ConnectedDevice),
    /// Done.
    Done,
}

/// Why a live connection is ended by the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CutOff {
    /// A newer connection took the identity over.
    Displaced,
    /// The identity was disabled.
    Disabled,
    /// The identity was deleted.
    Deleted,
    /// The identity's credential changed.
    Rekeyed,
    /// The token it came with has expired.
    TokenExpired,
    /// Its certificate has expired.
    CertificateExpired,
    /// It read too slowly; notifications would have been lost.
    Overrun,
    /// The hub was deleted.
    HubDeleted,
}

/// The filters a device can hold, each with the quality of service granted. At most one of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Subscriptions([Option<QualityOfService>; Filter::COUNT]);

/// The known filters (`contract/hub-device.md 2.5`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Filter {
    /// Cloud-to-device messages.
    CloudToDevice,
    /// Direct method requests.
    Methods,
    /// Replies to twin requests.
    TwinReplies,
    /// Changes of desired properties.
    Desired,
    /// Inputs of an edge module.
    Inputs,
    /// Everything of an edge module.
    Module,
}

impl Filter {
    /// How many there are.
    pub const COUNT: usize = 6;
    /// All of them, in the order of their bits in storage.
    pub const ALL: [Self; Self::COUNT] =
        [Self::CloudToDevice, Self::Methods, Self::TwinReplies, Self::Desired, Self::Inputs, Self::Module];

    const fn index(self) -> usize {
        match self {
            Self::CloudToDevice => 0,
            Self::Methods => 1,
            Self::TwinReplies => 2,
            Self::Desired => 3,
            Self::Inputs => 4,
            Self::Module => 5,
        }
    }
}

/// How surely a message is delivered; the hub knows no third degree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QualityOfService {
    /// At most once (0).
    AtMostOnce,
    /// At least once (1).
    AtLeastOnce,
}

impl Subscriptions {
    /// The quality granted to `filter`; `None` if it is not subscribed.
    pub fn granted(&self, filter: Filter) -> Option<QualityOfService> {
        self.0.get(filter.index()).copied().flatten()
    }

    /// Adds or replaces `filter`.
    pub fn insert(&mut self, filter: Filter, quality: QualityOfService) {
        if let Some(slot) = self.0.get_mut(filter.index()) {
            *slot = Some(quality);
        }
    }

    /// Removes `filter`.
    pub fn remove(&mut self, filter: Filter) {
        if let Some(slot) = self.0.get_mut(filter.index()) {
            *slot = None;
        }
    }

    /// Whether nothing is subscribed.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }

    /// Two bits a filter, the lowest first: 0 absent, 1 at most once, 2 at least once. For storage.
    pub fn to_bits(&self) -> u16 {
        self.0.iter().enumerate().fold(0, |bits, (index, granted)| {
            let value = match granted {
                None => 0,
                Some(QualityOfService::AtMostOnce) => 1,
                Some(QualityOfService::AtLeastOnce) => 2,
            };
            bits | (value << (2 * index))
        })
    }

    /// Reads [`Self::to_bits`]; unknown bits are dropped.
    pub fn from_bits(bits: u16) -> Self {
        let mut subscriptions = Self::default();
        for (index, filter) in Filter::ALL.into_iter().enumerate() {
            match (bits >> (2 * index)) & 3 {
                1 => subscriptions.insert(filter, QualityOfService::AtMostOnce),
                2 => subscriptions.insert(filter, QualityOfService::AtLeastOnce),
                _ => {}
            }
        }
        subscriptions
    }
}

/// Shorthand for the parts of an identity's name.
impl From<(DeviceId, Option<ModuleId>)> for IdentityName {
    fn from((device, module): (DeviceId, Option<ModuleId>)) -> Self {
        Self { device, module }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscriptions_survive_storage() {
        let mut subscriptions = Subscriptions::default();
        assert_eq!((subscriptions.to_bits(), subscriptions.is_empty()), (0, true));
        subscriptions.insert(Filter::Desired, QualityOfService::AtLeastOnce);
        subscriptions.insert(Filter::TwinReplies, QualityOfService::AtMostOnce);
        assert_eq!(Subscriptions::from_bits(subscriptions.to_bits()), subscriptions);
        subscriptions.remove(Filter::Desired);
        assert_eq!(subscriptions.granted(Filter::Desired), None);
        assert_eq!(Subscriptions::from_bits(subscriptions.to_bits()), subscriptions);
        assert_eq!(Subscriptions::from_bits(u16::MAX), Subscriptions::default());
    }
}
