//! Replays what fuzzing has found worth keeping, through the checks of the fuzz targets.

#[path = "../../../fuzz/src/amqp_ends.rs"]
mod amqp_ends;
#[path = "../../../fuzz/src/blob_request.rs"]
mod blob_request;
#[path = "../../../fuzz/src/dps_amqp.rs"]
mod dps_amqp;
#[path = "../../../fuzz/src/enrollment_json.rs"]
mod enrollment_json;
#[path = "../../../fuzz/src/events_amqp.rs"]
mod events_amqp;
#[path = "../../../fuzz/src/http_request.rs"]
mod http_request;
#[path = "../../../fuzz/src/hub_amqp.rs"]
mod hub_amqp;
#[path = "../../../fuzz/src/hub_service_amqp.rs"]
mod hub_service_amqp;
#[path = "../../../fuzz/src/hub_topic.rs"]
mod hub_topic;
#[path = "../../../fuzz/src/identity_json.rs"]
mod identity_json;
#[path = "../../../fuzz/src/management_body.rs"]
mod management_body;
#[path = "../../../fuzz/src/mqtt_dialect.rs"]
mod mqtt_dialect;
#[path = "../../../fuzz/src/property_bag.rs"]
mod property_bag;
#[path = "../../../fuzz/src/refusal.rs"]
mod refusal;
#[path = "../../../fuzz/src/replay.rs"]
mod replay;
#[expect(dead_code, reason = "the targets of proto use the rest")]
#[path = "../../../fuzz/src/script.rs"]
mod script;
#[path = "../../../fuzz/src/service.rs"]
mod service;
#[path = "../../../fuzz/src/telemetry_http.rs"]
mod telemetry_http;
#[path = "../../../fuzz/src/user_name.rs"]
mod user_name;

use replay::replay;

#[test]
fn the_corpus_of_blob_request_holds() {
    replay("blob_request", blob_request::check);
}

#[test]
fn the_corpus_of_dps_amqp_holds() {
    replay("dps_amqp", dps_amqp::check);
}

#[test]
fn the_corpus_of_enrollment_json_holds() {
    replay("enrollment_json", enrollment_json::check);
}

#[test]
fn the_corpus_of_http_request_holds() {
    replay("http_request", http_request::check);
}

#[test]
fn the_corpus_of_events_amqp_holds() {
    replay("events_amqp", events_amqp::check);
}

#[test]
fn the_corpus_of_hub_amqp_holds() {
    replay("hub_amqp", hub_amqp::check);
}

#[test]
fn the_corpus_of_hub_service_amqp_holds() {
    replay("hub_service_amqp", hub_service_amqp::check);
}

#[test]
fn the_corpus_of_hub_topic_holds() {
    replay("hub_topic", hub_topic::check);
}

#[test]
fn the_corpus_of_identity_json_holds() {
    replay("identity_json", identity_json::check);
}

#[test]
fn the_corpus_of_management_body_holds() {
    replay("management_body", management_body::check);
}

#[test]
fn the_corpus_of_mqtt_dialect_holds() {
    replay("mqtt_dialect", mqtt_dialect::check);
}

#[test]
fn the_corpus_of_property_bag_holds() {
    replay("property_bag", property_bag::check);
}

#[test]
fn the_corpus_of_telemetry_http_holds() {
    replay("telemetry_http", telemetry_http::check);
}

#[test]
fn the_corpus_of_user_name_holds() {
    replay("user_name", user_name::check);
}
