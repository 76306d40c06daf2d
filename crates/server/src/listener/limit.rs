//! How many connections there may be at once, over all ports that share the limit.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Refused connections are logged at most this often.
const LOGGED_EVERY: Duration = Duration::from_mins(1);

/// A limit on connections. Over it, a connection is closed as soon as it is accepted: there is no time for a goodbye that
/// costs a handshake.
#[derive(Debug)]
pub struct ConnectionLimit {
    max: usize,
    free: Arc<Semaphore>,
    refused: Mutex<Refused>,
}

#[derive(Debug, Default)]
struct Refused {
    logged_at: Option<Instant>,
    since_then: u64,
}

impl ConnectionLimit {
    /// Room for `max` connections.
    pub fn new(max: usize) -> Arc<Self> {
        let free = Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS)));
        Arc::new(Self { max, free, refused: Mutex::default() })
    }

    /// Takes room for one connection until the permit is dropped. Without room it is `None`, and counted.
    pub(super) fn take(&self, purpose: &'static str, now: Instant) -> Option<OwnedSemaphorePermit> {
        let permit = Arc::clone(&self.free).try_acquire_owned().ok();
        if permit.is_none()
            && let Some(count) = self.count_refused(now)
        {
            tracing::warn!(
                port = purpose,
                count,
                max = self.max,
                "connections are closed: limits.connections is reached"
            );
        }
        permit
    }

    /// Counts a refusal; the number of those to be logged, if it is time.
    fn count_refused(&self, now: Instant) -> Option<u64> {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.since_then += 1;
        if refused.logged_at.is_some_and(|logged| now.saturating_duration_since(logged) < LOGGED_EVERY) {
            return None;
        }
        refused.logged_at = Some(now);
        Some(std::mem::take(&mut refused.since_then))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_connections_are_logged_once_a_minute_with_their_number() {
        let (limit, now) = (ConnectionLimit::new(0), Instant::now());
        assert!(limit.take("test", now).is_none());
        let counted = [0, 30, 59, 60, 61].map(|after_s| limit.count_refused(now + Duration::from_secs(after_s)));
        assert_eq!(counted, [None, None, None, Some(4), None]);
    }
}
