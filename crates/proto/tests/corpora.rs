//! Replays what fuzzing has found worth keeping, through the checks of the fuzz targets.

#[path = "../../../fuzz/src/amqp_composites.rs"]
mod amqp_composites;
#[path = "../../../fuzz/src/amqp_frame.rs"]
mod amqp_frame;
#[path = "../../../fuzz/src/amqp_reference.rs"]
mod amqp_reference;
#[path = "../../../fuzz/src/amqp_session.rs"]
mod amqp_session;
#[path = "../../../fuzz/src/amqp_value.rs"]
mod amqp_value;
#[path = "../../../fuzz/src/mqtt_client.rs"]
mod mqtt_client;
#[path = "../../../fuzz/src/mqtt_decode.rs"]
mod mqtt_decode;
#[path = "../../../fuzz/src/mqtt_session.rs"]
mod mqtt_session;
#[path = "../../../fuzz/src/replay.rs"]
mod replay;
#[expect(dead_code, reason = "the targets of dialect use the rest")]
#[path = "../../../fuzz/src/script.rs"]
mod script;

use replay::replay;

#[test]
fn the_corpus_of_amqp_frame_holds() {
    replay("amqp_frame", amqp_frame::check);
}

#[test]
fn the_corpus_of_amqp_session_holds() {
    replay("amqp_session", amqp_session::check);
}

#[test]
fn the_corpus_of_amqp_value_holds() {
    replay("amqp_value", amqp_value::check);
}

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
