//! Property bags of any kind are read, or hold too much; what was read can be written and read again.

use dialect::hub::property_bag::{decode, encode};
use domain::message::{Draft, PROPERTIES_MAX};

/// Reads `input` as a bag.
///
/// # Panics
/// When more is kept than may be, or writing changes what was read.
pub fn check(input: &[u8]) {
    let Ok(bag) = std::str::from_utf8(input) else { return };
    let mut draft = Draft::default();
    if decode(bag, &mut draft).is_err() {
        assert!(draft.properties.len() > PROPERTIES_MAX);
        return;
    }
    assert!(draft.properties.len() <= PROPERTIES_MAX);
    assert!(draft.properties.iter().all(|(name, _)| !name.is_empty()));
    let written = encode(&draft.system, &draft.properties);
    let mut again = Draft::default();
    decode(&written, &mut again).expect("no more properties than before");
    assert_eq!(again, draft, "{written}");
}
