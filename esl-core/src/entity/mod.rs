//! Entities: documents that an organization keeps, each change of which is an event.

mod key;

pub use key::{EntityId, EntityIdError, EntityKey, KindName, KindNameError};
