//! What the fuzz targets check: one module per target, each a function from bytes that panics when a promise breaks.

pub mod mqtt_decode;
pub mod mqtt_session;
