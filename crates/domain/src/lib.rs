//! The nouns and the rules of Muster. No I/O, no async, no clock, no wire spellings.
//!
//! Every other crate stands on this one. Start at [`ids`] for names, at [`operation`] for what can be asked of the
//! product, at [`attestation`] for how a device proves who it is.

#![deny(missing_docs)]

pub mod access;
pub mod allocation;
pub mod attestation;
pub mod certificate;
pub mod clock;
pub mod cloud_to_device;
pub mod configuration;
pub mod decision;
pub mod digital_twin;
pub mod enrollment;
pub mod event;
pub mod file;
pub mod host;
pub mod identity;
pub mod ids;
pub mod job;
pub mod message;
pub mod method;
pub mod model;
pub mod operation;
pub mod query;
pub mod quota;
pub mod reprovision;
pub mod resource;
pub mod route;
pub mod sas;
pub mod transfer;
pub mod twin;
