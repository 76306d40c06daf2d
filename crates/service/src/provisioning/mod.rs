//! Provisioning: a device registers, is attested, and is assigned to a hub.
//!
//! [`register`] answers devices; [`assign`] is the worker that carries assignments out. Start at the former.

mod assign;
mod attest;
mod decisions;
mod key_groups;
mod register;

pub(crate) use key_groups::KeyGroups;
