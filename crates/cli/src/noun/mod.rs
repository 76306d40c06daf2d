//! The nouns: one file each, every one a client of the public APIs that everybody else uses.

pub mod certificate;
pub mod configuration;
pub mod consumer_group;
pub mod device;
pub mod digital_twin;
pub mod dps;
pub mod endpoint;
pub mod enrollment;
pub mod events;
pub mod file;
pub mod hub;
pub mod job;
pub mod linked_hub;
pub mod message;
pub mod method;
pub mod policy;
pub mod query;
pub mod registration;
pub mod resource;
pub mod route;
pub mod transfer;
pub mod twin;
