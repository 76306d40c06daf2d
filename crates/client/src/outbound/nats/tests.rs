//! Replays what fuzzing has found worth keeping.

use super::wire;

#[path = "../../../../../fuzz/src/nats_server.rs"]
mod nats_server;

#[test]
fn the_corpus_of_nats_server_holds() {
    crate::replay::replay("nats_server", nats_server::check);
}
