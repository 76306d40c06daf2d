//! A back-end program stays at a hub to do one thing: it is let in by a shared access policy, told that something waits
//! for it, and cut off when its policy or its time is gone.

use std::sync::Arc;

use crate::access::Action;
use crate::ids::{HubKey, HubName};

/// What a back-end program asks about its own stay.
#[derive(Clone, Debug)]
pub enum Ask {
    /// Be let in.
    Enter(Box<Enter>),
    /// Have a newer signature count, in the place of the one it was let in by.
    Renew(Backend),
    /// Leave.
    Leave(Backend),
}

/// An attempt to be let in.
#[derive(Clone, Debug)]
pub struct Enter {
    /// The host name as the program wrote it, empty if it wrote none; only narrows what was dialled.
    pub host: String,
    /// What it wants to do.
    pub action: Action,
    /// What the signature must cover, below the hub.
    pub path: Vec<String>,
}

/// What is answered.
#[derive(Clone, Debug)]
pub enum Answer {
    /// It is in.
    Entered(Backend),
    /// Done.
    Done,
}

/// Proof that a back-end program was let in, carried by everything it asks afterwards. Only `service` makes one. It is worth
/// nothing any more once the program is cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend(Arc<Stay>);

/// What a [`Backend`] stands for.
#[derive(Debug, PartialEq, Eq)]
pub struct Stay {
    /// Tells it from every other of the node.
    pub number: u64,
    /// The hub.
    pub hub: HubKey,
    /// Its name.
    pub hub_name: HubName,
    /// What it may do.
    pub action: Action,
    /// What its signature has to cover, below the hub.
    pub path: Vec<String>,
}

impl Backend {
    /// Lets in a program that has proved its right.
    pub fn enter(stay: Stay) -> Self {
        Self(Arc::new(stay))
    }
}

impl std::ops::Deref for Backend {
    type Target = Stay;
    fn deref(&self) -> &Stay {
        &self.0
    }
}
