//! Golden files: what a change of behaviour shows up in, as a diff that somebody reads.
//!
//! Start at [`compare`]; `cargo xtask golden` runs the tests whose names contain the word.

use std::path::Path;

/// Compares `text` with `testdata/golden/{name}`, or writes it there if `MUSTER_GOLDEN=write` is set.
///
/// # Panics
/// When they differ, naming the first line that does, and when the file cannot be read or written.
pub fn compare(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/golden").join(name);
    if std::env::var_os("MUSTER_GOLDEN").is_some_and(|mode| mode == "write") {
        let folder = path.parent().expect("a file is in a folder");
        std::fs::create_dir_all(folder).expect("the folder of golden files can be made");
        std::fs::write(&path, text).expect("a golden file can be written");
    }
    let known = std::fs::read_to_string(&path).unwrap_or_default();
    let difference = known.lines().zip(text.lines()).find(|(known, found)| known != found);
    if let Some((known, found)) = difference {
        panic!("{name}: `cargo xtask golden` writes it again\n  committed: {known}\n  found:     {found}");
    }
    assert_eq!(known.lines().count(), text.lines().count(), "{name}: `cargo xtask golden` writes it again");
}
