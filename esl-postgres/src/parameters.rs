//! The values of statements, each with its type.
//!
//! A statement is sent with the types of its values, in one trip, and under no name: so it goes through any
//! pooler, and to whichever of its sessions.

use tokio_postgres::types::{ToSql, Type};

use crate::id::Id16;

/// A value whose type in the database follows from its own.
pub(crate) trait Typed: ToSql + Sync {
    const TYPE: Type;
    const ARRAY: Type;
}

pub(crate) const fn type_of<T: Typed>(_value: &T) -> Type {
    T::TYPE
}

/// The values of a statement, in the order of their numbers.
macro_rules! parameters {
    ($($value:expr),* $(,)?) => {
        &[$((
            &$value as &(dyn ::tokio_postgres::types::ToSql + Sync),
            $crate::parameters::type_of(&$value),
        )),*]
    };
}

pub(crate) use parameters;

macro_rules! typed {
    ($($value:ty: $one:ident, $array:ident;)+) => {$(
        impl Typed for $value {
            const TYPE: Type = Type::$one;
            const ARRAY: Type = Type::$array;
        }
    )+};
}

typed! {
    bool: BOOL, BOOL_ARRAY;
    i16: INT2, INT2_ARRAY;
    i32: INT4, INT4_ARRAY;
    i64: INT8, INT8_ARRAY;
    &str: TEXT, TEXT_ARRAY;
    String: TEXT, TEXT_ARRAY;
    &[u8]: BYTEA, BYTEA_ARRAY;
    Vec<u8>: BYTEA, BYTEA_ARRAY;
    Id16: UUID, UUID_ARRAY;
}

impl<T: Typed> Typed for Option<T> {
    const TYPE: Type = T::TYPE;
    const ARRAY: Type = T::ARRAY;
}

impl<T: Typed> Typed for Vec<T> {
    const TYPE: Type = T::ARRAY;
    /// There is no array of arrays.
    const ARRAY: Type = T::ARRAY;
}

/// A value that is its own, for statements whose values are put together.
pub(crate) type Value = (Box<dyn ToSql + Send + Sync>, Type);

pub(crate) fn value<T: Typed + Send + 'static>(value: T) -> Value {
    (Box::new(value), T::TYPE)
}

/// Values that were put together, for a statement.
pub(crate) fn borrowed(values: &[Value]) -> Vec<(&(dyn ToSql + Sync), Type)> {
    values.iter().map(|(value, ty)| (&**value as &(dyn ToSql + Sync), ty.clone())).collect()
}
