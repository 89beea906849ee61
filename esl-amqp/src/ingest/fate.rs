//! What becomes of a message whose event was not published.

use esl_core::{PublishError, storage::StorageErrorKind};

/// What becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is tried again here, and those behind it wait: what is wrong is wrong for all of them.
    Again,
    /// It is tried again in a minute, and others go first.
    Later,
    /// It is put aside, for that reason.
    Dead(String),
    /// Nothing is published here any more; it stays at the broker.
    Stay,
}

impl Fate {
    pub(crate) fn of(error: &PublishError) -> Self {
        match error {
            PublishError::Storage(storage) => match storage.kind() {
                // Between two epochs, too.
                StorageErrorKind::Busy
                | StorageErrorKind::Unavailable
                | StorageErrorKind::Fenced => Self::Again,
                // Something of its organization: the others have nothing to do with it.
                _ => Self::Later,
            },
            // Only what is large needs the blob store.
            PublishError::OverLimit { .. } | PublishError::Blob(_) => Self::Later,
            PublishError::Stopped | PublishError::Disabled => Self::Stay,
            refused => Self::Dead(refused.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use esl_core::{EventId, Limit, Usage, storage::StorageError};

    use super::*;

    #[test]
    fn what_may_pass_is_tried_again_and_what_never_will_is_put_aside() {
        let storage = |kind| PublishError::Storage(Arc::new(StorageError::new(kind, "commit")));
        let id = EventId::from_bytes([0; 16]);
        for (error, fate) in [
            (storage(StorageErrorKind::Busy), Fate::Again),
            (storage(StorageErrorKind::Unavailable), Fate::Again),
            (storage(StorageErrorKind::Fenced), Fate::Again),
            (storage(StorageErrorKind::Corrupt), Fate::Later),
            (
                PublishError::OverLimit {
                    events: 1,
                    limit: Limit::AtMost(1),
                    usage: Usage::default(),
                },
                Fate::Later,
            ),
            (PublishError::Stopped, Fate::Stay),
            (PublishError::Disabled, Fate::Stay),
            (
                PublishError::UnknownOrganization,
                Fate::Dead("there is no such organization".to_owned()),
            ),
            (
                PublishError::EventConflict(id),
                Fate::Dead(format!("event {id} exists with other content")),
            ),
            (
                PublishError::TooLarge { bytes: 9, bytes_max: 5 },
                Fate::Dead("the event has 9 bytes in its envelope; at most 5 go inline".to_owned()),
            ),
            (
                PublishError::SystemType,
                Fate::Dead("events of type system.* are published by ESL alone".to_owned()),
            ),
        ] {
            assert_eq!(Fate::of(&error), fate, "{error}");
        }
    }
}
