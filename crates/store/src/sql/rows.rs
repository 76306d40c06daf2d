//! Between rows and the nouns of `domain`: JSON text, times, etags, names and sealed keys.

use domain::clock::UnixTime;
use domain::ids::Etag;
use domain::sas::{KeyPair, SymmetricKey};
use rusqlite::types::{FromSql, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::error::Error;
use crate::seal::{Place, Sealer};

/// A number that SQLite keeps as 64 bits with a sign; the bits are kept, so that etags of any generation fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bits(pub u64);

impl ToSql for Bits {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::from(self.0.cast_signed()))
    }
}

impl FromSql for Bits {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_i64().map(|number| Self(number.cast_unsigned()))
    }
}

impl From<Etag> for Bits {
    fn from(etag: Etag) -> Self {
        Self(etag.number())
    }
}

impl From<Bits> for Etag {
    fn from(bits: Bits) -> Self {
        Self::from_number(bits.0)
    }
}

/// A number of rows for a `LIMIT`; more rows than fit are no limit.
pub(crate) fn row_limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// Where a value stands, for the error that says it does not parse.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    pub table: &'static str,
    pub column: &'static str,
}

impl Column {
    /// The error for a value of record `key`.
    pub fn corrupt(self, key: impl std::fmt::Display, why: impl std::error::Error + Send + Sync + 'static) -> Error {
        Error::corrupt(self.table, key, self.column, why)
    }
}

/// A value that is of the right type and makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Senseless(pub &'static str);

/// Writes a record as JSON text.
pub(crate) fn to_json(record: &impl Serialize) -> Result<String, Error> {
    serde_json::to_string(record).map_err(|error| Error::backend("writing a record as JSON", error))
}

/// Reads a record from JSON text.
pub(crate) fn from_json<T: DeserializeOwned>(
    text: &str,
    column: Column,
    key: impl std::fmt::Display,
) -> Result<T, Error> {
    serde_json::from_str(text).map_err(|error| column.corrupt(key, error))
}

/// Reads a record from JSON text if there is any.
pub(crate) fn from_json_if<T: DeserializeOwned>(
    text: Option<&str>,
    column: Column,
    key: impl std::fmt::Display,
) -> Result<Option<T>, Error> {
    text.map(|text| from_json(text, column, key)).transpose()
}

/// A moment out of its column.
pub(crate) const fn moment(micros: i64) -> UnixTime {
    UnixTime::from_micros(micros)
}

/// Seals pairs of keys as one value.
pub(crate) fn seal_keys<'k>(
    sealer: &Sealer,
    place: Place<'_>,
    pairs: impl IntoIterator<Item = &'k KeyPair>,
) -> Vec<u8> {
    let mut plain = Zeroizing::new(Vec::with_capacity(2 * (1 + SymmetricKey::BYTES_MAX)));
    for pair in pairs {
        for key in [&pair.primary, &pair.secondary] {
            plain.push(u8::try_from(key.bytes().len()).expect("a key has at most 64 bytes"));
            plain.extend_from_slice(key.bytes());
        }
    }
    sealer.seal(place, &plain)
}

/// Opens what [`seal_keys`] sealed.
pub(crate) fn open_keys(sealer: &Sealer, place: Place<'_>, sealed: &[u8]) -> Result<Vec<KeyPair>, Error> {
    let column = Column { table: place.table, column: place.column };
    let plain = sealer.open_sealed(place, sealed).map_err(|error| column.corrupt(place.row, error))?;
    let senseless = || column.corrupt(place.row, Senseless("it does not hold pairs of keys"));
    let mut rest = plain.as_slice();
    let mut pairs = Vec::new();
    while !rest.is_empty() {
        let primary = next_key(&mut rest).ok_or_else(senseless)?;
        let secondary = next_key(&mut rest).ok_or_else(senseless)?;
        pairs.push(KeyPair { primary, secondary });
    }
    Ok(pairs)
}

fn next_key(rest: &mut &[u8]) -> Option<SymmetricKey> {
    let (length, after) = rest.split_first()?;
    let (key, after) = after.split_at_checked(usize::from(*length))?;
    *rest = after;
    SymmetricKey::from_bytes(key).ok()
}

/// Opens the one pair of keys of a record, if it has one.
pub(crate) fn open_pair(sealer: &Sealer, place: Place<'_>, sealed: Option<&[u8]>) -> Result<Option<KeyPair>, Error> {
    sealed.map(|sealed| open_keys(sealer, place, sealed)).transpose().map(|pairs| pairs?.into_iter().next())
}

/// Opens sealed text.
pub(crate) fn open_text(sealer: &Sealer, place: Place<'_>, sealed: &[u8]) -> Result<String, Error> {
    let column = Column { table: place.table, column: place.column };
    let plain = sealer.open_sealed(place, sealed).map_err(|error| column.corrupt(place.row, error))?;
    String::from_utf8(plain.to_vec()).map_err(|error| column.corrupt(place.row, error.utf8_error()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::clock::SeededEntropy;

    #[test]
    fn keys_of_every_length_survive_sealing_in_their_order() {
        let entropy = SeededEntropy::new(1);
        let sealer = Sealer::ephemeral(&entropy);
        let place = Place { table: "identity", row: "1/dev", column: "keys" };
        let key = |length: usize| SymmetricKey::from_bytes(&vec![7; length]).unwrap();
        let pairs = [
            KeyPair { primary: key(SymmetricKey::BYTES_MIN), secondary: key(SymmetricKey::BYTES_MAX) },
            KeyPair::generate(&entropy),
        ];
        for count in 0..=2 {
            let sealed = seal_keys(&sealer, place, &pairs[..count]);
            assert_eq!(open_keys(&sealer, place, &sealed).unwrap(), pairs[..count], "{count} pairs");
        }
        let odd = sealer.seal(place, &[16, 1, 2, 3]);
        assert!(matches!(open_keys(&sealer, place, &odd), Err(Error::Corrupt { table: "identity", .. })));
    }

    #[test]
    fn numbers_beyond_the_sign_keep_their_bits() {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        for number in [0, 1, u64::from(u32::MAX), 1 << 63, u64::MAX] {
            let read: Bits = connection.query_row("SELECT ?1", [Bits(number)], |row| row.get(0)).unwrap();
            assert_eq!(read, Bits(number));
        }
    }
}
