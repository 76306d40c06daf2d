//! UTF-8 strings as MQTT carries them (MQTT 3.1.1, section 1.5.3).

use std::fmt;
use std::ops::Deref;

use bytes::Bytes;

/// A string that MQTT can carry: UTF-8, without U+0000, at most 65,535 bytes. Cloning shares the bytes.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Text(Bytes);

/// Why bytes are not an MQTT string.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidText {
    /// Not UTF-8; the encodings of surrogates are not either.
    #[error("not UTF-8")]
    Utf8,
    /// Holds U+0000 (MQTT 3.1.1, rule 1.5.3-2).
    #[error("holds U+0000")]
    Nul,
    /// Longer than a two-byte length can say.
    #[error("{bytes} bytes, where {} are the most", Text::BYTES_MAX)]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
}

impl Text {
    /// The longest string that MQTT's two-byte length can announce.
    pub const BYTES_MAX: usize = u16::MAX as usize;

    /// Checks `bytes` and keeps them without copying.
    pub fn parse(bytes: Bytes) -> Result<Self, InvalidText> {
        if bytes.len() > Self::BYTES_MAX {
            return Err(InvalidText::TooLong { bytes: bytes.len() });
        }
        let text = std::str::from_utf8(&bytes).map_err(|_| InvalidText::Utf8)?;
        if text.as_bytes().contains(&0) {
            return Err(InvalidText::Nul);
        }
        Ok(Self(bytes))
    }

    /// The string itself.
    pub fn as_str(&self) -> &str {
        // The bytes cannot change after `parse`; checking again is what a crate without `unsafe` pays.
        std::str::from_utf8(&self.0).expect("checked to be UTF-8 when it was made")
    }

    /// The same string in an allocation of its own, so that keeping it does not keep the packet it came in.
    pub fn detached(&self) -> Self {
        Self(Bytes::copy_from_slice(&self.0))
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<[u8]> for Text {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<String> for Text {
    type Error = InvalidText;

    fn try_from(text: String) -> Result<Self, InvalidText> {
        Self::parse(Bytes::from(text))
    }
}

impl TryFrom<&'static str> for Text {
    type Error = InvalidText;

    fn try_from(text: &'static str) -> Result<Self, InvalidText> {
        Self::parse(Bytes::from_static(text.as_bytes()))
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_mqtt_can_carry_is_text() {
        let cases: &[(&str, &[u8], Result<&str, InvalidText>)] = &[
            ("empty", b"", Ok("")),
            ("two scripts", "té 温度".as_bytes(), Ok("té 温度")),
            ("control characters are the caller's business", b"a\x01\x7f", Ok("a\u{1}\u{7f}")),
            ("a byte order mark is kept (rule 1.5.3-3)", b"\xef\xbb\xbfa", Ok("\u{feff}a")),
            ("NUL", b"a\0b", Err(InvalidText::Nul)),
            ("a surrogate", b"\xed\xa0\x80", Err(InvalidText::Utf8)),
            ("a cut character", b"\xc3", Err(InvalidText::Utf8)),
            ("an overlong NUL", b"\xc0\x80", Err(InvalidText::Utf8)),
        ];
        for (name, bytes, expected) in cases {
            let found = Text::parse(Bytes::from_static(bytes));
            assert_eq!(found.as_ref().map(Text::as_str).map_err(|&error| error), *expected, "{name}");
        }
        let longest = "x".repeat(Text::BYTES_MAX);
        assert!(Text::try_from(longest.clone()).is_ok());
        assert_eq!(Text::try_from(longest + "x"), Err(InvalidText::TooLong { bytes: 65_536 }));
    }

    #[test]
    fn detached_text_is_equal_and_elsewhere() {
        let whole = Bytes::from(vec![b'a'; 1000]);
        let text = Text::parse(whole.slice(..10)).unwrap();
        let detached = text.detached();
        assert_eq!(text, detached);
        assert_ne!(text.0.as_ptr(), detached.0.as_ptr());
    }
}
