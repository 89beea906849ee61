//! What a kind asks of its entities beyond its schema.

use async_trait::async_trait;

use super::{Document, Entity, EntityError};
use crate::{EventType, EventTypeEntry, Timestamp, engine::Transaction};

/// What a kind makes of its entities. Everything has a default: to make nothing of it.
#[async_trait]
pub trait Rules: std::fmt::Debug + Send + Sync + 'static {
    /// Completes and checks a document that is about to be written, and that is as the schema asks for. What
    /// it reads by the transaction still stands when that is committed.
    ///
    /// # Errors
    /// [`EntityError::Invalid`] with what is wrong.
    async fn complete(
        &self,
        _transaction: &mut Transaction<'_>,
        _before: Option<&Entity>,
        _document: &mut Document,
    ) -> Result<(), EntityError> {
        Ok(())
    }

    /// When something is to be done about a document that is written now.
    fn due_at(&self, _document: &Document, _now: Timestamp) -> Option<Timestamp> {
        None
    }

    /// Does what is due. It has to write the entity, or to delete it, so that it is not due any more. What is
    /// published with it is never refused for how much was published.
    ///
    /// # Errors
    /// Whatever fails; it is tried again.
    async fn due(
        &self,
        _transaction: &mut Transaction<'_>,
        _entity: &Entity,
    ) -> Result<(), EntityError> {
        Ok(())
    }

    /// What is published of a change, in place of `created`, `updated` and `deleted`; `None` for just those.
    /// Either may be missing: what was, if it is new, and what is, if it is deleted.
    fn says(&self, _before: Option<&Entity>, _after: Option<&Entity>) -> Option<Vec<Said>> {
        None
    }

    /// The types of what [`says`](Self::says) says; `None` for those of `created`, `updated` and `deleted`, which
    /// the kind's schema describes.
    fn event_types(&self) -> Option<Vec<EventTypeEntry>> {
        None
    }

    /// The names of members that the rules keep in a document, for themselves: the schema does not have them,
    /// nobody else writes them, and they are not shown.
    fn keeps(&self) -> &[&str] {
        &[]
    }

    /// The names of the members that [`show`](Self::show) adds.
    fn adds(&self) -> &[&str] {
        &[]
    }

    /// Adds to what is read of an entity, or takes something away.
    fn show(&self, _representation: &mut Document, _entity: &Entity, _now: Timestamp) {}
}

/// Something to be published.
#[derive(Debug, Clone)]
pub struct Said {
    /// Its type.
    pub event_type: EventType,
    /// Its data.
    pub data: Document,
}

#[derive(Debug)]
pub(super) struct NoRules;

impl Rules for NoRules {}
