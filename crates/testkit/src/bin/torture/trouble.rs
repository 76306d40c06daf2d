//! What went wrong, as one line: this program has nothing to decide from an error but to tell it and fail.

use std::fmt;

/// Something that ends the run as failed.
#[derive(Debug)]
pub struct Trouble(String);

/// What most functions here return.
pub type Result<T> = std::result::Result<T, Trouble>;

impl Trouble {
    /// Trouble of this program's own finding.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// `Trouble` is no `Error` itself, so that every error turns into it with its causes.
impl<E: std::error::Error> From<E> for Trouble {
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        Self(text)
    }
}

/// Says what was being done.
pub trait During<T> {
    /// Puts `what` before the trouble.
    fn during(self, what: impl fmt::Display) -> Result<T>;
}

impl<T, E: Into<Trouble>> During<T> for std::result::Result<T, E> {
    fn during(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|error| Trouble(format!("{what}: {}", error.into())))
    }
}
