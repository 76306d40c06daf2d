//! Replays what fuzzing has found worth keeping, through the checks of the fuzz targets.

#[path = "../../../fuzz/src/certificate.rs"]
mod certificate;
#[path = "../../../fuzz/src/digital_twin.rs"]
mod digital_twin;
#[path = "../../../fuzz/src/query_text.rs"]
mod query_text;
#[path = "../../../fuzz/src/replay.rs"]
mod replay;
#[path = "../../../fuzz/src/sas_token.rs"]
mod sas_token;
#[path = "../../../fuzz/src/twin_patch.rs"]
mod twin_patch;

use replay::replay;

#[test]
fn the_corpus_of_certificate_holds() {
    replay("certificate", certificate::check);
}

#[test]
fn the_corpus_of_digital_twin_holds() {
    replay("digital_twin", digital_twin::check);
}

#[test]
fn the_corpus_of_query_text_holds() {
    replay("query_text", query_text::check);
}

#[test]
fn the_corpus_of_sas_token_holds() {
    replay("sas_token", sas_token::check);
}

#[test]
fn the_corpus_of_twin_patch_holds() {
    replay("twin_patch", twin_patch::check);
}
