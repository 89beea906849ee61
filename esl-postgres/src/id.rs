//! Ids as the database has them.

use std::error::Error;

use bytes::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type};

/// The 16 bytes of an id, in a column of type `uuid`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Id16(pub(crate) [u8; 16]);

impl ToSql for Id16 {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.extend_from_slice(&self.0);
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::UUID
    }

    tokio_postgres::types::to_sql_checked!();
}

impl<'a> FromSql<'a> for Id16 {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(raw.try_into()?))
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::UUID
    }
}

macro_rules! ids {
    ($($id:ty),+) => {$(
        impl From<$id> for Id16 {
            fn from(id: $id) -> Self {
                Self(id.to_bytes())
            }
        }

        impl From<Id16> for $id {
            fn from(id: Id16) -> Self {
                Self::from_bytes(id.0)
            }
        }
    )+};
}

ids! {
    esl_core::EventId,
    esl_core::OrganizationId,
    esl_core::SubscriptionId,
    esl_core::ReplayId,
    esl_core::WorkerId,
    esl_core::InstallationId
}
