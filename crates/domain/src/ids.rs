//! Names and numbers that identify things: parsed once, then trusted.
//!
//! No type here can hold text that its rules refuse. Start at [`RegistrationId`] and [`DeviceId`]: the first names a
//! device to a provisioning service, the second at a hub.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use crate::clock::{Entropy, random};

/// Why a text is not a name of the kind asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// There is nothing.
    #[error("it is empty")]
    Empty,
    /// Longer (or shorter) than the kind allows.
    #[error("it has {length} characters; {min} to {max} are allowed")]
    Length {
        /// Bytes found.
        length: usize,
        /// Fewest allowed.
        min: usize,
        /// Most allowed.
        max: usize,
    },
    /// Holds a character outside the kind's set.
    #[error("the character {found:?} is not allowed")]
    Character {
        /// The first offender.
        found: char,
    },
    /// Ends (or starts) with a character that is allowed only inside.
    #[error("it may not start or end with {found:?}")]
    Edge {
        /// The offender.
        found: char,
    },
}

fn check(text: &str, min: usize, max: usize, allowed: impl Fn(char) -> bool) -> Result<(), InvalidName> {
    if text.is_empty() {
        return Err(InvalidName::Empty);
    }
    if text.len() < min || text.len() > max {
        return Err(InvalidName::Length { length: text.len(), min, max });
    }
    match text.chars().find(|&c| !allowed(c)) {
        Some(found) => Err(InvalidName::Character { found }),
        None => Ok(()),
    }
}

/// Letters, digits and `- . _ :`, at most 128, ending in a letter, a digit or a hyphen (`contract/dps-device.md 0`).
fn check_registration(text: &str) -> Result<(), InvalidName> {
    check(text, 1, 128, |c| c.is_ascii_alphanumeric() || "-._:".contains(c))?;
    match text.chars().last() {
        Some(found @ ('.' | '_' | ':')) => Err(InvalidName::Edge { found }),
        _ => Ok(()),
    }
}

/// The characters the hub's registry allows, at most 128 (`contract/hub-service.md 1`); `:` and `;` as in practice.
fn check_device(text: &str) -> Result<(), InvalidName> {
    check(text, 1, 128, |c| c.is_ascii_alphanumeric() || "-.+%_#*?!(),:;=@$'".contains(c))
}

/// Letters, digits and hyphens, 3 to 64, a letter or digit at both ends (`contract/control-plane.md 4.1`).
fn check_resource(text: &str) -> Result<(), InvalidName> {
    check(text, 3, 64, |c| c.is_ascii_alphanumeric() || c == '-')?;
    match (text.starts_with('-'), text.ends_with('-')) {
        (false, false) => Ok(()),
        _ => Err(InvalidName::Edge { found: '-' }),
    }
}

/// Letters, digits and `- . _`, 1 to 64: names of policies and certificates, which stand in URLs and tokens.
fn check_label(text: &str) -> Result<(), InvalidName> {
    check(text, 1, 64, |c| c.is_ascii_alphanumeric() || "-._".contains(c))
}

/// As [`check_label`], and `$`, with which the name of the fallback route begins (`contract/control-plane.md 4.2`).
fn check_route(text: &str) -> Result<(), InvalidName> {
    check(text, 1, 64, |c| c.is_ascii_alphanumeric() || "-._$".contains(c))
}

/// What stays as it is in a topic and a path, 1 to 100: SDKs disagree about decoding anything else
/// (`contract/hub-device.md 2.10`). `*` stands between a component and its command.
fn check_method(text: &str) -> Result<(), InvalidName> {
    check(text, 1, 100, |c| c.is_ascii_alphanumeric() || "-._*".contains(c))
}

macro_rules! display_and_parse {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({:?})", stringify!($name), self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::parse(text)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

/// A name whose letters' case matters.
macro_rules! exact_name {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            /// Takes `text` if it keeps the kind's rules.
            pub fn parse(text: &str) -> Result<Self, InvalidName> {
                $check(text)?;
                Ok(Self(text.into()))
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        display_and_parse!($name);
    };
}

/// A name compared without regard to the case of its ASCII letters; the spelling it was given in is kept.
macro_rules! caseless_name {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name(Box<str>);

        impl $name {
            /// Takes `text` if it keeps the kind's rules.
            pub fn parse(text: &str) -> Result<Self, InvalidName> {
                $check(text)?;
                Ok(Self(text.into()))
            }

            /// The text as it was spelled.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The text in lower case, by which equal names are found.
            pub fn key(&self) -> String {
                self.0.to_ascii_lowercase()
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.0.eq_ignore_ascii_case(&other.0)
            }
        }

        impl Eq for $name {}

        impl Hash for $name {
            fn hash<H: Hasher>(&self, state: &mut H) {
                for byte in self.0.bytes() {
                    state.write_u8(byte.to_ascii_lowercase());
                }
                state.write_u8(0xff);
            }
        }

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
                Some(self.cmp(other))
            }
        }

        impl Ord for $name {
            fn cmp(&self, other: &Self) -> std::cmp::Ordering {
                let lower = |text: &'_ str| text.bytes().map(|byte| byte.to_ascii_lowercase()).collect::<Vec<_>>();
                lower(&self.0).cmp(&lower(&other.0))
            }
        }

        display_and_parse!($name);
    };
}

caseless_name!(
    /// Names a device to a provisioning service, before it has a device ID. 1 to 128 characters.
    RegistrationId,
    check_registration
);
caseless_name!(
    /// Names an enrollment group within its provisioning service. Same rules as [`RegistrationId`].
    EnrollmentGroupId,
    check_registration
);
caseless_name!(
    /// Names a hub resource; the first label of its host name under `--domain`. 3 to 64 characters.
    HubName,
    check_resource
);
caseless_name!(
    /// Names a provisioning service resource. 3 to 64 characters.
    ServiceName,
    check_resource
);
caseless_name!(
    /// Names a shared access policy. 1 to 64 characters.
    PolicyName,
    check_label
);
caseless_name!(
    /// Names a CA certificate on a provisioning service or a hub. 1 to 64 characters.
    CertificateName,
    check_label
);
caseless_name!(
    /// Names a route of a hub. 1 to 64 characters.
    RouteName,
    check_route
);
caseless_name!(
    /// Names an endpoint that a hub routes messages to. 1 to 64 characters.
    EndpointName,
    check_label
);
exact_name!(
    /// Names a direct method.
    MethodName,
    check_method
);
exact_name!(
    /// Names a device at a hub. 1 to 128 characters, case matters.
    DeviceId,
    check_device
);
exact_name!(
    /// Names a module of a device. 1 to 128 characters, case matters.
    ModuleId,
    check_device
);
exact_name!(
    /// Names a configuration of a hub. 1 to 128 characters, case matters.
    ConfigurationId,
    check_device
);
exact_name!(
    /// Names a job of a hub. 1 to 128 characters, case matters.
    JobId,
    check_device
);
caseless_name!(
    /// The tenant key of a provisioning service, which devices are given; immutable and not to be guessed.
    IdScope,
    |text: &str| check(text, 4, 64, |c| c.is_ascii_alphanumeric())
);

impl IdScope {
    /// A fresh scope: `0ne` and eight random letters or digits (41 bits).
    pub fn generate(entropy: &dyn Entropy) -> Self {
        const ALPHABET: &[u8; 36] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
        let mut number = u64::from_le_bytes(random(entropy));
        let mut text = String::from("0ne");
        for _ in 0..8 {
            let index = usize::try_from(number % 36).unwrap_or(0);
            text.push(char::from(ALPHABET.get(index).copied().unwrap_or(b'0')));
            number /= 36;
        }
        Self(text.into())
    }
}

/// Stored as [`fmt::Display`] writes it.
macro_rules! stored_as_text {
    ($name:ident) => {
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not an identifier of this kind"))
            }
        }
    };
}

/// A 128-bit number written like a GUID.
macro_rules! guid {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(u128);

        impl $name {
            /// A random one, with the version and variant bits of a version 4 UUID.
            pub fn generate(entropy: &dyn Entropy) -> Self {
                let bits = u128::from_be_bytes(random(entropy));
                Self((bits & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62))
            }

            /// From its 128 bits.
            pub const fn from_bits(bits: u128) -> Self {
                Self(bits)
            }

            /// Its 128 bits.
            pub const fn bits(self) -> u128 {
                self.0
            }

            /// Reads the hyphenated form, in either case; hyphens may be missing.
            pub fn parse(text: &str) -> Option<Self> {
                let digits: String = text.chars().filter(|&c| c != '-').collect();
                if digits.len() != 32 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                    return None;
                }
                u128::from_str_radix(&digits, 16).ok().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let bits = self.0;
                write!(
                    f,
                    "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
                    bits >> 96,
                    (bits >> 80) & 0xffff,
                    (bits >> 64) & 0xffff,
                    (bits >> 48) & 0xffff,
                    bits & 0xffff_ffff_ffff
                )
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }
    };
}

guid!(
    /// Finds the decision, or the log lines, behind one answer.
    TrackingId
);
stored_as_text!(TrackingId);

impl JobId {
    /// A name that nobody else has, for a job that nobody named.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        Self(TrackingId::generate(entropy).to_string().into())
    }
}

guid!(
    /// Names a direct method request on its way to a device, so that its response is told from any other. Nobody can
    /// guess one, and none comes twice: a device that answers on a later connection must not answer a later request.
    MethodRequestId
);

guid!(
    /// Names an upload of a file to its device, from the request for a place to the word that it is over.
    UploadId
);

guid!(
    /// Names bytes that were uploaded, wherever they are kept. Random, and no part of it comes from outside.
    ContentId
);
stored_as_text!(ContentId);

guid!(
    /// Whoever holds it has a message, or feedback, for itself. Random, so that nobody settles what it was not given.
    LockToken
);
stored_as_text!(LockToken);

/// Names a running registration to the device that polls it: `5.` 16 hexadecimal digits `.` GUID.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OperationId {
    prefix: u64,
    guid: u128,
}

impl OperationId {
    /// A fresh one, not to be guessed.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        Self { prefix: u64::from_be_bytes(random(entropy)), guid: TrackingId::generate(entropy).bits() }
    }

    /// Reads what [`fmt::Display`] wrote; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let (version, prefix, guid) = (parts.next()?, parts.next()?, parts.next()?);
        if version != "5" || prefix.len() != 16 || parts.next().is_some() {
            return None;
        }
        let prefix = u64::from_str_radix(prefix, 16).ok()?;
        Some(Self { prefix, guid: TrackingId::parse(guid)?.bits() }).filter(|operation| operation.to_string() == text)
    }
}

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "5.{:016x}.{}", self.prefix, TrackingId::from_bits(self.guid))
    }
}

stored_as_text!(OperationId);

impl fmt::Debug for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OperationId({self})")
    }
}

/// The version of a record, for optimistic concurrency. Never given out twice by a store, not after a restore either:
/// the upper 16 bits are the store's restore generation, the lower 48 its counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Etag(u64);

impl Etag {
    /// From its number.
    pub const fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// Its number; each dialect spells it in its own way.
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// What a caller demands of the record it is about to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing was said.
    None,
    /// The record must exist, in whatever version (`*`).
    Exists,
    /// The record must stand at this version.
    Matches(Etag),
    /// A version was named that no record of this store can have; always fails.
    Impossible,
}

impl Precondition {
    /// Whether a record at version `present` satisfies it.
    pub fn holds(self, present: Etag) -> bool {
        match self {
            Self::None | Self::Exists => true,
            Self::Matches(wanted) => wanted == present,
            Self::Impossible => false,
        }
    }
}

/// The store's own number of a hub; host names are aliases derived from the resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct HubKey(pub i64);

/// The store's own number of a provisioning service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct ServiceKey(pub i64);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SeededEntropy;

    #[test]
    fn registration_ids_keep_their_spelling_and_compare_without_case() {
        let cases: &[(&str, Result<(), InvalidName>)] = &[
            ("dev-1", Ok(())),
            ("A.b_c:D-", Ok(())),
            ("", Err(InvalidName::Empty)),
            ("dev/1", Err(InvalidName::Character { found: '/' })),
            ("dev+", Err(InvalidName::Character { found: '+' })),
            ("dev#", Err(InvalidName::Character { found: '#' })),
            ("dev\u{0}", Err(InvalidName::Character { found: '\0' })),
            ("dév", Err(InvalidName::Character { found: 'é' })),
            ("dev.", Err(InvalidName::Edge { found: '.' })),
        ];
        for (text, expected) in cases {
            assert_eq!(RegistrationId::parse(text).map(|_| ()), *expected, "{text}");
        }
        let (upper, lower) = (RegistrationId::parse("Dev-1").unwrap(), RegistrationId::parse("dEV-1").unwrap());
        assert_eq!(upper, lower);
        assert_eq!((upper.as_str(), upper.key().as_str()), ("Dev-1", "dev-1"));
        assert!(matches!(RegistrationId::parse(&"a".repeat(129)), Err(InvalidName::Length { .. })));
    }

    #[test]
    fn device_ids_allow_what_the_registry_allows() {
        for text in ["dev-1", "a.b+c%_#*?!(),:=@$'"] {
            assert!(DeviceId::parse(text).is_ok(), "{text}");
        }
        for text in ["a/b", "a b", "a\n", "a\u{7f}", "ä", ""] {
            assert!(DeviceId::parse(text).is_err(), "{text:?}");
        }
        assert_ne!(DeviceId::parse("dev").unwrap(), DeviceId::parse("DEV").unwrap());
    }

    #[test]
    fn operation_ids_survive_being_written_and_read() {
        let operation = OperationId::generate(&SeededEntropy::new(7));
        assert_eq!(OperationId::parse(&operation.to_string()), Some(operation));
        for text in [
            "",
            "5.",
            "5.0.0",
            "5.x.y.z",
            "4.316aac5bdc130deb.b1e02da8-0000-0000-0000-000000000000",
            "5.+16aac5bdc130deb.b1e02da8-0000-0000-0000-000000000000",
            "5.316AAC5BDC130DEB.b1e02da8-0000-0000-0000-000000000000",
            "5.316aac5bdc130deb.b1e02da8000000000000000000000000",
        ] {
            assert_eq!(OperationId::parse(text), None, "{text}");
        }
    }

    #[test]
    fn tracking_ids_are_version_4_guids() {
        let text = TrackingId::generate(&SeededEntropy::new(1)).to_string();
        assert_eq!(text.len(), 36);
        assert_eq!(text.chars().nth(14), Some('4'));
        assert_eq!(TrackingId::parse(&text.to_uppercase()).map(|id| id.to_string()), Some(text));
        assert_eq!(TrackingId::parse("not one"), None);
    }

    #[test]
    fn an_id_scope_is_letters_and_digits_of_full_length() {
        let scope = IdScope::generate(&SeededEntropy::new(3));
        assert!(scope.as_str().starts_with("0ne") && scope.as_str().len() == 11, "{scope}");
    }
}
