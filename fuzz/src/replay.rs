//! Replays a committed corpus through the check of its target. Ordinary tests take this file in; the fuzzer does not.

use std::path::Path;

/// Fewer inputs than this are no corpus.
const INPUTS_MIN: usize = 20;

/// Gives every input in `fuzz/corpus/{target}` to `check`.
///
/// # Panics
/// When `check` does, after naming the input, and when there is no corpus.
pub fn replay(target: &str, check: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let mut replayed = 0;
    for entry in folder.read_dir().expect("the corpus is committed") {
        let path = entry.expect("the folder can be read").path();
        let input = std::fs::read(&path).expect("the file can be read");
        // Shown only if the check panics.
        println!("{}", path.display());
        check(&input);
        replayed += 1;
    }
    assert!(replayed >= INPUTS_MIN, "only {replayed} inputs in {}", folder.display());
}
