//! What goes wrong in a use case: the class, the words that may be shown, and the cause that only the log sees.

use std::borrow::Cow;

use domain::clock::{Entropy, UnixTime};
use domain::ids::TrackingId;
use domain::operation::{ErrorKind, Failure};
use store::Unavailability;

/// Why a use case did not do what was asked.
#[derive(Debug)]
pub struct Error {
    /// The class.
    pub kind: ErrorKind,
    /// What anyone may read.
    pub public: Cow<'static, str>,
    /// Found again under this, if something was recorded under it already.
    pub tracking: Option<TrackingId>,
    /// What really happened, for the log.
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// A failure that is the caller's doing.
    pub fn new(kind: ErrorKind, public: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, public: public.into(), tracking: None, source: None }
    }

    /// A value that breaks a rule.
    pub fn invalid(public: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::InvalidArgument, public)
    }

    /// The one refusal of a credential; the reason is in the decision (`rules.md` 6).
    pub fn unauthorized() -> Self {
        Self::new(ErrorKind::Unauthorized, "Unauthorized")
    }

    /// A version that does not match.
    pub fn precondition_failed() -> Self {
        Self::new(ErrorKind::PreconditionFailed, "Precondition failed: the record stands at another version.")
    }

    /// Whether the store has no room left, which an outage that passes by itself is not.
    pub fn lacks_room(&self) -> bool {
        let cause = self.source.as_deref().and_then(|source| source.downcast_ref());
        matches!(cause, Some(store::Error::Unavailable { reason: Unavailability::Full, .. }))
    }

    /// Names the decision recorded for it.
    pub fn tracked(mut self, tracking: TrackingId) -> Self {
        self.tracking = Some(tracking);
        self
    }

    /// Writes the log line and leaves what the caller may know. Called once, where the error becomes a reply.
    pub fn into_failure(self, entropy: &dyn Entropy, at: UnixTime) -> Failure {
        let tracking = self.tracking.unwrap_or_else(|| TrackingId::generate(entropy));
        match self.kind {
            // Without a cause it is a refusal, as while the server stops.
            ErrorKind::Internal | ErrorKind::Unavailable
                if self.source.is_some() || self.kind == ErrorKind::Internal =>
            {
                tracing::error!(%tracking, kind = ?self.kind, cause = self.causes(), "{}", self.public);
            }
            _ => tracing::debug!(%tracking, kind = ?self.kind, "{}", self.public),
        }
        let retry_after_s = match self.kind {
            ErrorKind::Throttled => Some(RETRY_THROTTLED_S),
            ErrorKind::Unavailable => Some(RETRY_UNAVAILABLE_S),
            _ => None,
        };
        Failure { kind: self.kind, public: self.public, tracking, retry_after_s, at }
    }

    fn causes(&self) -> String {
        let mut text = String::new();
        let mut cause: Option<&dyn std::error::Error> = self.source.as_deref().map(|source| source as _);
        while let Some(error) = cause {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

/// Seconds a throttled client is asked to wait.
const RETRY_THROTTLED_S: u32 = 5;
/// Seconds a client is asked to wait while a part is down.
const RETRY_UNAVAILABLE_S: u32 = 3;

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        let (kind, public) = match &error {
            store::Error::Unavailable { .. } => (ErrorKind::Unavailable, "The store is not available; try again."),
            store::Error::Corrupt { .. } | store::Error::Backend { .. } => (ErrorKind::Internal, "Internal error."),
        };
        Self { kind, public: public.into(), tracking: None, source: Some(Box::new(error)) }
    }
}
