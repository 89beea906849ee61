//! Entities: documents that an organization keeps, each change of which is an event.
//!
//! A **kind** is declared ([`EntityKind`]): its name, a JSON Schema, what it refers to. Its entities are
//! written through the engine ([`Entities`](crate::engine::Entities)), each in one unit with the event that
//! says so. What is here decides, and does nothing: no storage, no clock.

#[cfg(feature = "entities")]
mod bounds;
#[cfg(feature = "entities")]
mod changes;
#[cfg(feature = "entities")]
mod error;
#[cfg(feature = "entities")]
mod event_types;
#[cfg(feature = "entities")]
mod fault;
#[cfg(feature = "entities")]
mod index;
mod key;
#[cfg(feature = "entities")]
mod kind;
#[cfg(feature = "entities")]
mod representation;
#[cfg(feature = "entities")]
mod rules;
#[cfg(feature = "entities")]
mod schema;
#[cfg(feature = "entities")]
mod tracked;

#[cfg(feature = "entities")]
pub(crate) use self::bounds::check;
#[cfg(feature = "entities")]
pub use self::{
    bounds::{DOCUMENT_BYTES_MAX, DOCUMENT_LEVELS_MAX, FORBIDDEN_NAME},
    changes::changes,
    error::EntityError,
    fault::Fault,
    kind::{EntityKind, KindError, Kinds, NotSortable, OnDelete},
    representation::Representation,
    rules::{Rules, Said},
    tracked::Entity,
};
pub use key::{EntityId, EntityIdError, EntityKey, KindName, KindNameError};

/// A document, in JSON: an object, its members in order.
#[cfg(feature = "entities")]
pub type Document = serde_json::Map<String, serde_json::Value>;
