//! Models of Plug and Play devices: what a device announces to be, by the name of its model.
//!
//! Nothing here reads models themselves: a hub keeps the name, shows it and finds devices by it. Names of components,
//! properties and commands follow the same language (DTDL, version 2). Start at [`ModelId`].

use std::fmt;

/// A digital twin model identifier: `dtmi:`, segments separated by colons, `;` and a version.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ModelId(Box<str>);

/// Why a text is not a model identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidModelId {
    /// Too long.
    #[error("a model ID has at most {} characters", ModelId::LEN_MAX)]
    TooLong,
    /// Another kind of name.
    #[error("a model ID begins with dtmi:")]
    Scheme,
    /// A segment breaks the rules for names.
    #[error(
        "each segment of a model ID is letters, digits and underscores, begins with a letter, and ends with neither"
    )]
    Segment,
    /// No version, or none that could be.
    #[error("a model ID ends with a semicolon and a version from 1 to 999999999")]
    Version,
}

impl ModelId {
    /// Most characters.
    pub const LEN_MAX: usize = 2_048;
    /// Most digits of a version, and of its minor part.
    const VERSION_DIGITS_MAX: usize = 9;
    const SCHEME: &'static str = "dtmi:";

    /// Takes a text as it was announced; letter case matters.
    pub fn parse(text: &str) -> Result<Self, InvalidModelId> {
        if text.len() > Self::LEN_MAX {
            return Err(InvalidModelId::TooLong);
        }
        let rest = text.strip_prefix(Self::SCHEME).ok_or(InvalidModelId::Scheme)?;
        let (path, version) = rest.split_once(';').ok_or(InvalidModelId::Version)?;
        if !path.split(':').all(is_segment) {
            return Err(InvalidModelId::Segment);
        }
        // DTDL, version 3, has a minor version too.
        let (major, minor) = version.split_once('.').map_or((version, None), |(major, minor)| (major, Some(minor)));
        if is_version(major) && major != "0" && minor.is_none_or(is_version) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidModelId::Version)
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A segment of a path may begin with an underscore, for the language's own use.
fn is_segment(segment: &str) -> bool {
    is_word(segment, |first| first.is_ascii_alphabetic() || first == b'_')
}

fn is_version(digits: &str) -> bool {
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    let is_short = (1..=ModelId::VERSION_DIGITS_MAX).contains(&digits.len());
    is_number && is_short && (digits == "0" || !digits.starts_with('0'))
}

/// Most characters of the name of a component, property or command.
pub const NAME_CHARS_MAX: usize = 64;

/// Whether `text` could name a component, a property, a field or a command.
pub fn is_name(text: &str) -> bool {
    text.len() <= NAME_CHARS_MAX && is_word(text, |first| first.is_ascii_alphabetic())
}

fn is_word(text: &str, may_begin: impl Fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    may_begin(*first) && *last != b'_' && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn model_ids_are_those_of_the_language() {
        let longest = format!("dtmi:{};1", "a".repeat(ModelId::LEN_MAX - 7));
        let too_long = format!("dtmi:{};1", "a".repeat(ModelId::LEN_MAX - 6));
        let cases: &[(&str, Result<(), InvalidModelId>)] = &[
            ("dtmi:com:example:Thermostat;1", Ok(())),
            ("dtmi:x;1", Ok(())),
            ("dtmi:a_b:_c:D2;999999999", Ok(())),
            ("dtmi:com:example:Thermostat;1.2", Ok(())),
            ("dtmi:com:example:Thermostat;1.0", Ok(())),
            (&longest, Ok(())),
            (&too_long, Err(InvalidModelId::TooLong)),
            ("", Err(InvalidModelId::Scheme)),
            ("DTMI:x;1", Err(InvalidModelId::Scheme)),
            ("urn:example:Thermostat:1", Err(InvalidModelId::Scheme)),
            ("dtmi:;1", Err(InvalidModelId::Segment)),
            ("dtmi:a::b;1", Err(InvalidModelId::Segment)),
            ("dtmi:1a;1", Err(InvalidModelId::Segment)),
            ("dtmi:a_;1", Err(InvalidModelId::Segment)),
            ("dtmi:a b;1", Err(InvalidModelId::Segment)),
            ("dtmi:ä;1", Err(InvalidModelId::Segment)),
            ("dtmi:a", Err(InvalidModelId::Version)),
            ("dtmi:a;", Err(InvalidModelId::Version)),
            ("dtmi:a;0", Err(InvalidModelId::Version)),
            ("dtmi:a;01", Err(InvalidModelId::Version)),
            ("dtmi:a;1000000000", Err(InvalidModelId::Version)),
            ("dtmi:a;1.", Err(InvalidModelId::Version)),
            ("dtmi:a;1;2", Err(InvalidModelId::Version)),
            ("dtmi:a;one", Err(InvalidModelId::Version)),
        ];
        for (text, expected) in cases {
            assert_eq!(ModelId::parse(text).map(|model| assert_eq!(model.as_str(), *text)), *expected, "{text}");
        }
    }

    #[test]
    fn names_are_those_of_the_language() {
        for name in ["a", "targetTemperature", "T_1", &"n".repeat(NAME_CHARS_MAX)] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "_a", "a_", "1a", "a-b", "a.b", "$metadata", "ä", &"n".repeat(NAME_CHARS_MAX + 1)] {
            assert!(!is_name(name), "{name}");
        }
    }
}
