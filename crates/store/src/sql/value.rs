//! Values on their way into statements and out of rows, in the same five kinds whatever database lies beneath.
//!
//! Nothing here knows a table. Start at [`Row::get`] and [`ToValue`].

use std::borrow::Cow;

use super::rows::Bits;
use crate::error::Error;

/// A value to be bound.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value<'a> {
    /// SQL's NULL.
    Null,
    /// A whole number; truths are 1 and 0.
    Integer(i64),
    /// Any other number.
    Real(f64),
    /// Text.
    Text(Cow<'a, str>),
    /// Bytes.
    Blob(Cow<'a, [u8]>),
}

impl From<i64> for Value<'_> {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<f64> for Value<'_> {
    fn from(number: f64) -> Self {
        Self::Real(number)
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl rusqlite::ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        use rusqlite::types::ValueRef;
        Ok(rusqlite::types::ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Integer(number) => ValueRef::Integer(*number),
            Self::Real(number) => ValueRef::Real(*number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

/// What can be bound.
pub(crate) trait ToValue {
    /// The value that is bound.
    fn to_value(&self) -> Value<'_>;
}

/// Binds whole numbers.
macro_rules! whole_numbers {
    ($($kind:ty),*) => {
        $(impl ToValue for $kind {
            fn to_value(&self) -> Value<'_> {
                Value::Integer(i64::from(*self))
            }
        })*
    };
}

whole_numbers!(bool, u16, u32, i32, i64);

impl ToValue for Bits {
    fn to_value(&self) -> Value<'_> {
        Value::Integer(self.0.cast_signed())
    }
}

impl ToValue for str {
    fn to_value(&self) -> Value<'_> {
        Value::Text(Cow::Borrowed(self))
    }
}

impl ToValue for String {
    fn to_value(&self) -> Value<'_> {
        self.as_str().to_value()
    }
}

impl ToValue for [u8] {
    fn to_value(&self) -> Value<'_> {
        Value::Blob(Cow::Borrowed(self))
    }
}

impl ToValue for Vec<u8> {
    fn to_value(&self) -> Value<'_> {
        self.as_slice().to_value()
    }
}

impl<const N: usize> ToValue for [u8; N] {
    fn to_value(&self) -> Value<'_> {
        self.as_slice().to_value()
    }
}

impl ToValue for Value<'_> {
    fn to_value(&self) -> Value<'_> {
        match self {
            Self::Null => Value::Null,
            Self::Integer(number) => Value::Integer(*number),
            Self::Real(number) => Value::Real(*number),
            Self::Text(text) => text.as_ref().to_value(),
            Self::Blob(bytes) => bytes.as_ref().to_value(),
        }
    }
}

impl<T: ToValue + ?Sized> ToValue for &T {
    fn to_value(&self) -> Value<'_> {
        (**self).to_value()
    }
}

impl<T: ToValue> ToValue for Option<T> {
    fn to_value(&self) -> Value<'_> {
        self.as_ref().map_or(Value::Null, ToValue::to_value)
    }
}

/// What a statement is run with.
pub(crate) trait Parameters {
    /// Calls `run` with the values in their order.
    fn with<R>(&self, run: impl FnOnce(&[Value<'_>]) -> R) -> R;
}

impl Parameters for () {
    fn with<R>(&self, run: impl FnOnce(&[Value<'_>]) -> R) -> R {
        run(&[])
    }
}

impl<T: ToValue, const N: usize> Parameters for [T; N] {
    fn with<R>(&self, run: impl FnOnce(&[Value<'_>]) -> R) -> R {
        run(&self.each_ref().map(ToValue::to_value))
    }
}

impl<A: ToValue, B: ToValue> Parameters for (A, B) {
    fn with<R>(&self, run: impl FnOnce(&[Value<'_>]) -> R) -> R {
        run(&[self.0.to_value(), self.1.to_value()])
    }
}

impl<A: ToValue, B: ToValue, C: ToValue> Parameters for (A, B, C) {
    fn with<R>(&self, run: impl FnOnce(&[Value<'_>]) -> R) -> R {
        run(&[self.0.to_value(), self.1.to_value(), self.2.to_value()])
    }
}

impl Parameters for Vec<Value<'_>> {
    fn with<R>(&self, run: impl FnOnce(&[Value<'_>]) -> R) -> R {
        run(self)
    }
}

impl<P: Parameters> Parameters for &P {
    fn with<R>(&self, run: impl FnOnce(&[Value<'_>]) -> R) -> R {
        (*self).with(run)
    }
}

/// Values of several kinds for one statement.
macro_rules! params {
    ($($value:expr),* $(,)?) => {
        [$(&$value as &dyn $crate::sql::value::ToValue),*]
    };
}
pub(crate) use params;

/// A value of a row.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cell<'r> {
    /// SQL's NULL.
    Null,
    /// A whole number, or a truth.
    Integer(i64),
    /// Any other number, which no column of the store has.
    Real,
    /// Text.
    Text(&'r str),
    /// Bytes.
    Blob(&'r [u8]),
}

/// A value of another kind than the column is read as.
#[derive(Debug, thiserror::Error)]
#[error("a column holds {held} where {wanted} was expected")]
pub(crate) struct Mismatch {
    held: &'static str,
    wanted: &'static str,
}

impl Cell<'_> {
    const fn kind(self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Integer(_) => "a whole number",
            Self::Real => "a number",
            Self::Text(_) => "text",
            Self::Blob(_) => "bytes",
        }
    }

    const fn mismatch(self, wanted: &'static str) -> Mismatch {
        Mismatch { held: self.kind(), wanted }
    }

    /// A whole number.
    const fn integer(self) -> Result<i64, Mismatch> {
        match self {
            Self::Integer(number) => Ok(number),
            other => Err(other.mismatch("a whole number")),
        }
    }
}

/// What can be read from a row.
pub(crate) trait FromCell: Sized {
    /// Reads the value.
    fn from_cell(cell: Cell<'_>) -> Result<Self, Mismatch>;
}

impl FromCell for i64 {
    fn from_cell(cell: Cell<'_>) -> Result<Self, Mismatch> {
        cell.integer()
    }
}

impl FromCell for u32 {
    fn from_cell(cell: Cell<'_>) -> Result<Self, Mismatch> {
        Self::try_from(cell.integer()?).map_err(|_| cell.mismatch("a number of 32 bits"))
    }
}

impl FromCell for u16 {
    fn from_cell(cell: Cell<'_>) -> Result<Self, Mismatch> {
        Self::try_from(cell.integer()?).map_err(|_| cell.mismatch("a number of 16 bits"))
    }
}

impl FromCell for bool {
    fn from_cell(cell: Cell<'_>) -> Result<Self, Mismatch> {
        cell.integer().map(|number| number != 0)
    }
}

impl FromCell for Bits {
    fn from_cell(cell: Cell<'_>) -> Result<Self, Mismatch> {
        cell.integer().map(|number| Self(number.cast_unsigned()))
    }
}

impl FromCell for String {
    fn from_cell(cell: Cell<'_>) -> Result<Self, Mismatch> {
        match cell {
            Cell::Text(text) => Ok(text.to_owned()),
            other => Err(other.mismatch("text")),
        }
    }
}

impl FromCell for Vec<u8> {
    fn from_cell(cell: Cell<'_>) -> Result<Self, Mismatch> {
        match cell {
            Cell::Blob(bytes) => Ok(bytes.to_vec()),
            other => Err(other.mismatch("bytes")),
        }
    }
}

impl<const N: usize> FromCell for [u8; N] {
    fn from_cell(cell: Cell<'_>) -> Result<Self, Mismatch> {
        match cell {
            Cell::Blob(bytes) => bytes.try_into().map_err(|_| cell.mismatch("bytes of another number")),
            other => Err(other.mismatch("bytes")),
        }
    }
}

impl<T: FromCell> FromCell for Option<T> {
    fn from_cell(cell: Cell<'_>) -> Result<Self, Mismatch> {
        match cell {
            Cell::Null => Ok(None),
            other => T::from_cell(other).map(Some),
        }
    }
}

/// A row that a statement found.
#[derive(Debug)]
pub(crate) enum Row<'r> {
    /// One of SQLite's.
    Sqlite(&'r rusqlite::Row<'r>),
    /// One of PostgreSQL's.
    #[cfg(feature = "postgres")]
    Postgres(&'r tokio_postgres::Row),
}

impl Row<'_> {
    /// The value of the column at `place`, counted from 0.
    pub fn get<T: FromCell>(&self, place: usize) -> Result<T, Error> {
        T::from_cell(self.cell(place)?).map_err(|error| Error::backend("reading a row", error))
    }

    /// The text at `place`, if there is any.
    pub fn text(&self, place: usize) -> Result<Option<&str>, Error> {
        match self.cell(place)? {
            Cell::Null => Ok(None),
            Cell::Text(text) => Ok(Some(text)),
            other => Err(Error::backend("reading a row", other.mismatch("text"))),
        }
    }

    fn cell(&self, place: usize) -> Result<Cell<'_>, Error> {
        match self {
            Self::Sqlite(row) => {
                use rusqlite::types::ValueRef;
                Ok(match row.get_ref(place)? {
                    ValueRef::Null => Cell::Null,
                    ValueRef::Integer(number) => Cell::Integer(number),
                    ValueRef::Real(_) => Cell::Real,
                    ValueRef::Text(text) => {
                        Cell::Text(str::from_utf8(text).map_err(|error| Error::backend("reading a row", error))?)
                    }
                    ValueRef::Blob(bytes) => Cell::Blob(bytes),
                })
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(row) => {
                let cell: Option<Cell<'_>> = row.try_get(place)?;
                Ok(cell.unwrap_or(Cell::Null))
            }
        }
    }
}
