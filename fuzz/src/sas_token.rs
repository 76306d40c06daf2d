//! Text of any kind is a token or is refused; a token that this program writes is read back as it was meant.

use domain::clock::UnixTime;
use domain::sas::{SasToken, SymmetricKey};

/// Judges `input` as a token, as a resource of a token, and as a key.
///
/// # Panics
/// When a token is longer than allowed, holds for what it should not, or is not read back.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    judge(text);
    judge(&format!("SharedAccessSignature {text}"));
    if let Ok(key) = SymmetricKey::parse(text) {
        assert_eq!(SymmetricKey::parse(&key.to_base64()), Ok(key));
    }
    write(text);
}

fn judge(text: &str) {
    let Ok(token) = SasToken::parse(text) else { return };
    assert!(text.len() <= SasToken::BYTES_MAX);
    assert!(token.resource().len() <= text.len(), "decoding makes nothing longer");
    assert_ne!(token.policy(), Some(""));
    let (host, path) = token.segments();
    assert!(token.covers(&[&host], &path), "it covers what it names");
    assert!(!token.covers(&[], &path), "no host is covered if none is known");
    let longer: Vec<&str> = path.iter().copied().chain(["more"]).collect();
    assert!(token.covers(&[&host], &longer));
    let _ = token.covers_device(&[&host], "dev-1", Some("part"));
    let _ = token.is_for_registration("0ne00000000", "dev-1");
    let key = SymmetricKey::from_bytes(&[7; 32]).expect("a length that is allowed");
    assert!(!token.is_signed_by(&key), "nobody could sign with a key that is not known");
}

/// A resource that can stand in a token as it is.
fn write(text: &str) {
    let resource: String = text.chars().filter(|c| c.is_ascii_alphanumeric() || "-._~/".contains(*c)).collect();
    let key = SymmetricKey::from_bytes(&[9; 32]).expect("a length that is allowed");
    let ends = UnixTime::from_seconds(2_000_000_000);
    let written = SasToken::write(&key, &resource, Some("owner"), ends);
    let Ok(token) = SasToken::parse(&written) else {
        assert!(written.len() > SasToken::BYTES_MAX, "{written}");
        return;
    };
    assert!(token.is_signed_by(&key));
    assert_eq!((token.resource(), token.policy(), token.expires_at()), (resource.as_str(), Some("owner"), ends));
}
