//! The rules that a twin's content keeps: names, values, depth and size (`contract/hub-device.md 3.4`).
//!
//! A patch is checked before the merge by [`check`], the result of the merge by [`check_total`]. Both walk without
//! changing anything; the first offender is named by its path.

use std::fmt;

use serde_json::{Map, Number, Value};

/// Most bytes of the text of a patch; that of the largest message a device can send.
pub const PATCH_TEXT_BYTES_MAX: usize = 262_144;
/// Most bytes of tags, by the formula of [`document_bytes`].
pub const TAGS_BYTES_MAX: usize = 8 * 1_024;
/// Most bytes of desired or of reported properties, by the formula of [`document_bytes`].
pub const PROPERTIES_BYTES_MAX: usize = 32 * 1_024;
/// Most bytes of a name.
pub const KEY_BYTES_MAX: usize = 1_024;
/// Most bytes of a text.
pub const STRING_BYTES_MAX: usize = 4_096;
/// Smallest integer.
pub const INTEGER_MIN: i64 = -(1 << 52);
/// Largest integer.
pub const INTEGER_MAX: i64 = (1 << 52) - 1;
/// Most objects and arrays inside each other, the section itself not counted.
pub const DEPTH_MAX: usize = 10;
/// Most values of a section. The size formula counts nothing for empty texts, arrays and objects, so that it alone would
/// not bound a section; no section of single-byte values reaches this number before the size limit.
pub const VALUES_MAX: usize = 65_536;
/// Most characters of a number. The size formula counts eight bytes for any number, however many digits it has.
pub const NUMBER_CHARS_MAX: usize = 64;
/// Most characters of a path in an error.
const PATH_CHARS_MAX: usize = 256;

/// A part of a twin with rules of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SectionName {
    /// Tags.
    Tags,
    /// Desired properties.
    Desired,
    /// Reported properties.
    Reported,
}

impl SectionName {
    /// Most bytes by the formula of [`document_bytes`].
    pub const fn bytes_max(self) -> usize {
        match self {
            Self::Tags => TAGS_BYTES_MAX,
            Self::Desired | Self::Reported => PROPERTIES_BYTES_MAX,
        }
    }
}

impl fmt::Display for SectionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tags => "tags",
            Self::Desired => "properties.desired",
            Self::Reported => "properties.reported",
        })
    }
}

/// Why a change of a twin was refused. A path names the offender from the section on, and is cut if it is long.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The text is longer than any patch can be.
    #[error("the patch has {bytes} bytes; {PATCH_TEXT_BYTES_MAX} are allowed")]
    TextTooLong {
        /// Bytes found.
        bytes: usize,
    },
    /// The text is not JSON.
    #[error("the patch is not JSON")]
    NotJson,
    /// The text is JSON and not an object.
    #[error("the patch is not a JSON object")]
    NotAnObject,
    /// A device sent a member that the hub writes.
    #[error("{name} is written by the hub alone")]
    Reserved {
        /// The member.
        name: &'static str,
    },
    /// A name breaks the rules for names.
    #[error("the name at {path} {fault}")]
    Key {
        /// Where, the name included.
        path: String,
        /// What is wrong with it.
        fault: KeyFault,
    },
    /// A text is too long.
    #[error("the text at {path} has {bytes} bytes; {STRING_BYTES_MAX} are allowed")]
    StringTooLong {
        /// Where.
        path: String,
        /// Bytes found.
        bytes: usize,
    },
    /// A number is outside the range, or has too many digits.
    #[error("the number at {path} is out of range; integers reach from {INTEGER_MIN} to {INTEGER_MAX}")]
    NumberOutOfRange {
        /// Where.
        path: String,
    },
    /// Objects and arrays stand too deep inside each other.
    #[error("{path} is nested deeper than {DEPTH_MAX} levels")]
    TooDeep {
        /// The first object or array that is too deep.
        path: String,
    },
    /// Null inside an array, where it cannot mean deletion.
    #[error("null is not allowed inside an array, at {path}")]
    NullInArray {
        /// Where.
        path: String,
    },
    /// The section would be larger than allowed, or the patch is already.
    #[error("{section} has {bytes} bytes; {} are allowed", .section.bytes_max())]
    TooLarge {
        /// Which section.
        section: SectionName,
        /// Bytes by the formula.
        bytes: usize,
    },
    /// The section would hold more values than allowed, or the patch does already.
    #[error("{section} has {values} values; {VALUES_MAX} are allowed")]
    TooManyValues {
        /// Which section.
        section: SectionName,
        /// Values found.
        values: usize,
    },
}

/// What is wrong with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFault {
    /// Too long.
    TooLong {
        /// Bytes found.
        bytes: usize,
    },
    /// Holds a character that no name may have.
    Character {
        /// The first one.
        found: char,
    },
}

impl fmt::Display for KeyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { bytes } => write!(f, "has {bytes} bytes; {KEY_BYTES_MAX} are allowed"),
            Self::Character { found } => write!(f, "holds {found:?}, which is not allowed"),
        }
    }
}

/// The size of a document as the limits count it: UTF-8 bytes of names and texts, 8 for a number, 4 for a boolean,
/// nothing for null, and for objects and arrays what they hold.
pub fn document_bytes(document: &Map<String, Value>) -> usize {
    Weight::of_object(document).bytes
}

/// Checks a patch or a whole section by itself: names, values, depth and size. A null is a deletion, or in a whole
/// section a member left out; inside arrays it is neither.
pub fn check(section: SectionName, patch: &Map<String, Value>) -> Result<(), PatchError> {
    Walk { section, steps: Vec::new(), arrays: 0 }.object(patch)?;
    check_total(section, patch)
}

/// Checks the size of a section.
pub fn check_total(section: SectionName, document: &Map<String, Value>) -> Result<(), PatchError> {
    let Weight { bytes, values } = Weight::of_object(document);
    if values > VALUES_MAX {
        return Err(PatchError::TooManyValues { section, values });
    }
    if bytes > section.bytes_max() {
        return Err(PatchError::TooLarge { section, bytes });
    }
    Ok(())
}

#[derive(Clone, Copy, Default)]
struct Weight {
    bytes: usize,
    values: usize,
}

impl Weight {
    fn of_object(object: &Map<String, Value>) -> Self {
        let members = object.iter().map(|(key, value)| Self::of_value(value).plus(key.len()));
        members.fold(Self::default(), Self::and)
    }

    fn of_value(value: &Value) -> Self {
        let inside = match value {
            Value::Null => Self::default(),
            Value::Bool(_) => Self { bytes: 4, values: 0 },
            Value::Number(_) => Self { bytes: 8, values: 0 },
            Value::String(text) => Self { bytes: text.len(), values: 0 },
            Value::Array(items) => items.iter().map(Self::of_value).fold(Self::default(), Self::and),
            Value::Object(members) => Self::of_object(members),
        };
        Self { values: inside.values + 1, ..inside }
    }

    const fn plus(self, bytes: usize) -> Self {
        Self { bytes: self.bytes + bytes, ..self }
    }

    const fn and(self, other: Self) -> Self {
        Self { bytes: self.bytes + other.bytes, values: self.values + other.values }
    }
}

/// A step on the way to a value.
#[derive(Clone, Copy)]
enum Step<'a> {
    Member(&'a str),
    Item(usize),
}

/// A walk through a patch that knows the way it came. One step is taken per object or array entered and one for the value
/// looked at, so that `steps` is also the depth.
struct Walk<'a> {
    section: SectionName,
    steps: Vec<Step<'a>>,
    arrays: usize,
}

impl<'a> Walk<'a> {
    fn object(&mut self, object: &'a Map<String, Value>) -> Result<(), PatchError> {
        for (key, value) in object {
            self.steps.push(Step::Member(key));
            if let Some(fault) = key_fault(key) {
                return Err(PatchError::Key { path: self.path(), fault });
            }
            self.value(value)?;
            self.steps.pop();
        }
        Ok(())
    }

    fn value(&mut self, value: &'a Value) -> Result<(), PatchError> {
        match value {
            Value::Null if self.arrays > 0 => Err(PatchError::NullInArray { path: self.path() }),
            Value::Null | Value::Bool(_) => Ok(()),
            Value::Number(number) if in_range(number) => Ok(()),
            Value::Number(_) => Err(PatchError::NumberOutOfRange { path: self.path() }),
            Value::String(text) if text.len() <= STRING_BYTES_MAX => Ok(()),
            Value::String(text) => Err(PatchError::StringTooLong { path: self.path(), bytes: text.len() }),
            Value::Array(_) | Value::Object(_) if self.steps.len() > DEPTH_MAX => {
                Err(PatchError::TooDeep { path: self.path() })
            }
            Value::Array(items) => self.array(items),
            Value::Object(members) => self.object(members),
        }
    }

    fn array(&mut self, items: &'a [Value]) -> Result<(), PatchError> {
        self.arrays += 1;
        for (index, item) in items.iter().enumerate() {
            self.steps.push(Step::Item(index));
            self.value(item)?;
            self.steps.pop();
        }
        self.arrays -= 1;
        Ok(())
    }

    fn path(&self) -> String {
        let mut path = self.section.to_string();
        for step in &self.steps {
            match step {
                Step::Member(key) => path.extend(std::iter::once('.').chain(key.chars().take(PATH_CHARS_MAX))),
                Step::Item(index) => path.extend(["[", &index.to_string(), "]"]),
            }
        }
        if path.chars().nth(PATH_CHARS_MAX).is_some() {
            path = path.chars().take(PATH_CHARS_MAX - 1).chain(['…']).collect();
        }
        path
    }
}

/// Names hold no control characters, no white space, and none of `.`, `$` and `#` (`contract/hub-service.md 5`).
fn key_fault(key: &str) -> Option<KeyFault> {
    if key.len() > KEY_BYTES_MAX {
        return Some(KeyFault::TooLong { bytes: key.len() });
    }
    let refused = |c: &char| c.is_control() || c.is_whitespace() || matches!(c, '.' | '$' | '#');
    key.chars().find(refused).map(|found| KeyFault::Character { found })
}

/// Integers have 52 bits; a number with a fraction or an exponent only has to be finite as a double.
fn in_range(number: &Number) -> bool {
    let text = number.as_str();
    if text.len() > NUMBER_CHARS_MAX {
        return false;
    }
    if text.contains(['.', 'e', 'E']) {
        return number.as_f64().is_some_and(f64::is_finite);
    }
    number.as_i64().is_some_and(|integer| (INTEGER_MIN..=INTEGER_MAX).contains(&integer))
}
