//! Replays what fuzzing has found worth keeping, through the checks of the fuzz targets.

use std::path::PathBuf;

#[path = "../../../fuzz/src/mqtt_decode.rs"]
mod mqtt_decode;
#[path = "../../../fuzz/src/mqtt_session.rs"]
mod mqtt_session;

fn replay(target: &str, check: impl Fn(&[u8])) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let mut replayed = 0;
    for entry in folder.read_dir().expect("the corpus is committed") {
        let path = entry.expect("the folder can be read").path();
        let input = std::fs::read(&path).expect("the file can be read");
        // Shown only if the check panics.
        println!("{}", path.display());
        check(&input);
        replayed += 1;
    }
    assert!(replayed >= 20, "only {replayed} inputs in {}", folder.display());
}

#[test]
fn the_corpus_of_mqtt_decode_holds() {
    replay("mqtt_decode", mqtt_decode::check);
}

#[test]
fn the_corpus_of_mqtt_session_holds() {
    replay("mqtt_session", mqtt_session::check);
}
