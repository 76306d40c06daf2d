//! Replays what fuzzing has found worth keeping, through the checks of the fuzz targets.

#[path = "../../../fuzz/src/mqtt_client.rs"]
mod mqtt_client;
#[path = "../../../fuzz/src/mqtt_decode.rs"]
mod mqtt_decode;
#[path = "../../../fuzz/src/mqtt_session.rs"]
mod mqtt_session;
#[path = "../../../fuzz/src/replay.rs"]
mod replay;

use replay::replay;

#[test]
fn the_corpus_of_mqtt_client_holds() {
    replay("mqtt_client", mqtt_client::check);
}

#[test]
fn the_corpus_of_mqtt_decode_holds() {
    replay("mqtt_decode", mqtt_decode::check);
}

#[test]
fn the_corpus_of_mqtt_session_holds() {
    replay("mqtt_session", mqtt_session::check);
}
