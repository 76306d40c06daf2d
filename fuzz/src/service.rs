//! What a service says to a session, where a target plays it.

use std::borrow::Cow;

use domain::clock::UnixTime;
use domain::cloud_to_device::{Delivery, Draft};
use domain::ids::{HubKey, LockToken, TrackingId};
use domain::operation::identity::IdentityName;
use domain::operation::session::{AuthenticationMethod, ConnectedDevice, Seat};
use domain::operation::{ErrorKind, Failure};

/// A failure of `kind`, always with the same number and time.
pub fn failure(kind: ErrorKind, public: impl Into<Cow<'static, str>>) -> Failure {
    let (tracking, at) = (TrackingId::from_bits(1), UnixTime::from_seconds(1_800_000_000));
    Failure { kind, public: public.into(), tracking, retry_after_s: None, at }
}

/// Lets `name` into a hub.
pub fn seat(name: IdentityName, epoch: u64) -> ConnectedDevice {
    let authentication = AuthenticationMethod::X509;
    ConnectedDevice::seat(Seat { hub: HubKey(1), name, generation: "1".into(), epoch, authentication, model_id: None })
}

/// An empty message under the lock of these bits.
pub fn delivery(lock: u128) -> Delivery {
    Delivery {
        lock: LockToken::from_bits(lock),
        sequence: 1,
        enqueued_at: UnixTime::from_micros(0),
        expires_at: UnixTime::from_micros(1),
        delivery_count: 0,
        message: Draft::default(),
    }
}
