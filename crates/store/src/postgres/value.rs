//! Values on the wire: whole numbers in as many bytes as the server has them in, and the rest as it is.

use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

use crate::sql::value::{Cell, Value};

type Failure = Box<dyn std::error::Error + Sync + Send>;

/// A type that no column of the store has.
#[derive(Debug, thiserror::Error)]
#[error("{0} is a type that the store does not use")]
struct UnknownType(Type);

impl Value<'_> {
    /// The type that it is bound as where the statement does not tell.
    pub(super) const fn kind(&self) -> Type {
        match self {
            Self::Null => Type::UNKNOWN,
            Self::Integer(_) => Type::INT8,
            Self::Real(_) => Type::FLOAT8,
            Self::Text(_) => Type::TEXT,
            Self::Blob(_) => Type::BYTEA,
        }
    }
}

impl ToSql for Value<'_> {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, Failure> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Integer(number) => match *kind {
                Type::INT8 => number.to_sql(kind, out),
                Type::INT4 => i32::try_from(*number)?.to_sql(kind, out),
                Type::BOOL => (*number != 0).to_sql(kind, out),
                _ => Err(Box::new(UnknownType(kind.clone()))),
            },
            Self::Real(number) => number.to_sql(kind, out),
            Self::Text(text) => text.as_ref().to_sql(kind, out),
            Self::Blob(bytes) => bytes.as_ref().to_sql(kind, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

impl<'r> FromSql<'r> for Cell<'r> {
    fn from_sql(kind: &Type, raw: &'r [u8]) -> Result<Self, Failure> {
        Ok(match *kind {
            Type::INT8 => Self::Integer(i64::from_sql(kind, raw)?),
            Type::INT4 => Self::Integer(i64::from(i32::from_sql(kind, raw)?)),
            Type::BOOL => Self::Integer(i64::from(bool::from_sql(kind, raw)?)),
            Type::FLOAT8 => Self::Real,
            Type::BYTEA => Self::Blob(raw),
            Type::TEXT | Type::VARCHAR | Type::UNKNOWN => Self::Text(str::from_utf8(raw)?),
            Type::VOID => Self::Null,
            _ => return Err(Box::new(UnknownType(kind.clone()))),
        })
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}
