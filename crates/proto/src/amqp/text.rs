//! Strings and symbols as slices of what was received (part 1, sections 1.6.20 and 1.6.21).

use std::fmt;
use std::ops::Deref;

use bytes::Bytes;

/// A string: UTF-8. Cloning shares the bytes.
#[derive(Clone, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct Text(Bytes);

/// A symbol: a name from a small set, in ASCII. Cloning shares the bytes.
#[derive(Clone, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct Symbol(Bytes);

/// The bytes are no UTF-8, or for a symbol no ASCII.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not text")]
pub struct NotText;

impl Text {
    /// A string that the program holds anyway.
    pub const fn from_static(text: &'static str) -> Self {
        Self(Bytes::from_static(text.as_bytes()))
    }

    /// Checks `bytes` and keeps them without copying.
    pub fn parse(bytes: Bytes) -> Result<Self, NotText> {
        std::str::from_utf8(&bytes).map_err(|_| NotText)?;
        Ok(Self(bytes))
    }
}

impl Symbol {
    /// A symbol that the program holds anyway.
    ///
    /// # Panics
    /// When `text` is no ASCII: a mistake in the program, found when it is compiled if the result is a constant.
    pub const fn from_static(text: &'static str) -> Self {
        assert!(text.is_ascii(), "a symbol is ASCII");
        Self(Bytes::from_static(text.as_bytes()))
    }

    /// Checks `bytes` and keeps them without copying.
    pub fn parse(bytes: Bytes) -> Result<Self, NotText> {
        if bytes.is_ascii() { Ok(Self(bytes)) } else { Err(NotText) }
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(Bytes::from(text))
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<Symbol> for Text {
    fn from(symbol: Symbol) -> Self {
        Self(symbol.0)
    }
}

impl TryFrom<String> for Symbol {
    type Error = NotText;

    fn try_from(text: String) -> Result<Self, NotText> {
        Self::parse(Bytes::from(text))
    }
}

macro_rules! reads_as_str {
    ($name:ident) => {
        impl $name {
            /// The characters.
            pub fn as_str(&self) -> &str {
                // The bytes cannot change after they were checked; checking again is what a crate without `unsafe` pays.
                std::str::from_utf8(&self.0).expect("checked to be UTF-8 when it was made")
            }

            /// The same in an allocation of its own, so that keeping it does not keep the frame it came in.
            pub fn detached(&self) -> Self {
                Self(Bytes::copy_from_slice(&self.0))
            }
        }

        impl Deref for $name {
            type Target = str;

            fn deref(&self) -> &str {
                self.as_str()
            }
        }

        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                self.0 == other.as_bytes()
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                self.0 == other.as_bytes()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.as_str(), f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

reads_as_str!(Text);
reads_as_str!(Symbol);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_utf_8_and_symbols_ascii() {
        let cases: &[(&str, &[u8], bool, bool)] = &[
            ("empty", b"", true, true),
            ("ASCII", b"amqp:not-found", true, true),
            ("U+0000 is a character here", b"a\0b", true, true),
            ("beyond ASCII", "käse".as_bytes(), true, false),
            ("half a character", b"k\xc3", false, false),
        ];
        for &(name, bytes, is_text, is_symbol) in cases {
            assert_eq!(Text::parse(Bytes::from_static(bytes)).is_ok(), is_text, "{name}");
            assert_eq!(Symbol::parse(Bytes::from_static(bytes)).is_ok(), is_symbol, "{name}");
        }
    }

    #[test]
    fn a_detached_string_is_equal_and_elsewhere() {
        let text = Text::from("dev-1");
        let detached = text.detached();
        assert_eq!(detached, text);
        assert_ne!(detached.as_ptr(), text.as_ptr());
    }
}
