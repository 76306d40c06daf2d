//! What clients see at the rim of a whole Muster, over real sockets.
//!
//! Start at [`ground`], then at a test of the topic.

mod activity;
mod amqp;
mod amqp_hub;
mod back_ends;
mod backpressure;
mod balancers;
mod budgets;
mod decisions;
mod devices;
mod draining;
mod ground;
mod hosts;
mod logging;
mod messages;
mod methods;
mod resumption;
mod telemetry_order;
